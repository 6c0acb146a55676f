"""The sides of `epc diff`: files of the working tree, and git revisions extracted into a temporary folder.

A side is a path, `REV:PATH` with the path from the repository's root (`REV:./PATH` from here), or `REV` alone, which
means the other side's file in that revision. The whole tree is extracted, because a spec names prompts, rubrics and
data; what `.gitattributes` marks export-ignore is left out, as `git archive` does. Nothing in the repository changes.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Final

from epc.runtime.errors import Fault

GIT_SECONDS: Final = 120
"""After which git is taken to hang."""
LOCK: Final = "spec.lock.yaml"


@dataclass(frozen=True, kw_only=True)
class Side:
    path: Path
    """Of a spec or a lock, on disk."""
    shown: str
    """As messages call it."""
    root: Path | None = None
    """Where a revision was extracted, None for a file of the working tree."""
    repository: Path | None = None
    """The working tree that the revision is of."""


@contextmanager
def sides(before: str, after: str) -> Iterator[tuple[Side, Side]]:
    """Both sides on disk, for as long as they are compared.

    Raises Fault R0911 (no such file or revision), R0912 (no repository, or no git), R0913 (unknown revision),
    R0914 (not in that revision), R0916 (folder without a lock), R0917 (git failed), R0918 (no file named).
    """
    with tempfile.TemporaryDirectory(prefix="epc-diff-") as scratch:
        yield (
            _side(before, after, Path(scratch) / "before"),
            _side(after, before, Path(scratch) / "after"),
        )


def _side(given: str, other: str, scratch: Path) -> Side:
    if Path(given).exists():
        return Side(path=_plan(Path(given), given), shown=given)
    revision, colon, path = given.partition(":")
    if not revision or (colon and not path):
        raise _no_side(given)
    if not colon:
        return _alone(revision, other, scratch)
    repository = _repository(Path.cwd(), given)
    if path.startswith(("./", "../")):
        path = _inside(Path(path), repository, given)
    return _extracted(repository, revision, path, scratch)


def _alone(revision: str, other: str, scratch: Path) -> Side:
    """A revision without a path: the file of the other side."""
    if Path(other).exists():
        repository = _repository(Path(other).resolve().parent, revision)
        _commit(repository, revision, given=revision)
        return _extracted(repository, revision, _inside(Path(other), repository, revision), scratch)
    path = other.partition(":")[2]
    if path:
        return _side(f"{revision}:{path}", other, scratch)
    repository = _repository(Path.cwd(), revision)
    for name in (revision, other):
        _commit(repository, name, given=name)
    raise Fault("R0918", revision, "neither side names a file", f"name one: epc diff {revision}:specs/x.yaml {other}")


def _no_side(given: str) -> Fault:
    path = Path(given)
    names = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = get_close_matches(path.name, names, n=1)
    remedy = (
        f'did you mean "{(path.parent / close[0]).as_posix()}"?'
        if close
        else "a side is a spec, a lock, a bundle folder, REV:PATH or REV"
    )
    return Fault("R0911", given, "there is no such file, and no such revision", remedy)


def _plan(path: Path, shown: str) -> Path:
    """The spec or lock itself: of a bundle, its lock."""
    if not path.is_dir():
        return path
    if not (path / LOCK).is_file():
        raise Fault("R0916", shown, f"the folder has no {LOCK}, so it is no bundle", "name a spec, a lock or a bundle")
    return path / LOCK


# Git -------------------------------------------------------------------------------------------


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    # Optional locks: another git at work in the same tree must not fail because of this look.
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, timeout=GIT_SECONDS, check=False)
    except FileNotFoundError:
        raise Fault(
            "R0912", str(folder), "git is not installed, so a revision cannot be read", "install git, or name two files"
        ) from None
    except subprocess.TimeoutExpired:
        raise Fault("R0917", str(folder), f"git {arguments[0]} took longer than {GIT_SECONDS} s", "try again") from None


def _repository(folder: Path, given: str) -> Path:
    """Root of the working tree that holds a folder."""
    done = _git(folder, "rev-parse", "--show-toplevel")
    if done.returncode != 0:
        if not Path(given).exists() and (Path(given).suffix or "/" in given) and ":" not in given:
            raise _no_side(given)
        raise Fault(
            "R0912", given, f"not a file, and {folder} is in no git repository that could have it as a revision",
            "name a file, or go to the repository",
        )  # fmt: skip
    return Path(os.fsdecode(done.stdout).rstrip("\n"))


def _commit(repository: Path, revision: str, *, given: str) -> str:
    # A revision never begins with a dash; git would take it for an option.
    done = (
        None
        if revision.startswith("-")
        else _git(repository, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}")
    )
    if done is None or done.returncode != 0:
        if ":" not in given and (Path(given).suffix or "/" in given):
            raise _no_side(given)
        raise Fault(
            "R0913", given, f"{revision} is no revision of {repository.name}",
            "git log --oneline lists revisions, git branch --all lists branches",
        )  # fmt: skip
    return done.stdout.decode().strip()


def _inside(path: Path, repository: Path, given: str) -> str:
    """A path from the repository's root."""
    resolved = path.resolve()
    if not resolved.is_relative_to(repository.resolve()):
        raise Fault(
            "R0914", given, f"{path} lies outside of the repository {repository.name}", "name the file too: REV:PATH"
        )
    return resolved.relative_to(repository.resolve()).as_posix()


def _extracted(repository: Path, revision: str, path: str, scratch: Path) -> Side:
    given = f"{revision}:{path}"
    commit = _commit(repository, revision, given=given)
    clean = PurePosixPath(os.path.normpath(path)).as_posix()
    if _git(repository, "cat-file", "-e", f"{commit}:{clean}").returncode != 0:
        raise Fault("R0914", given, f"{clean} is not in revision {revision}", _history(repository, clean))
    scratch.mkdir()
    archive = scratch.with_suffix(".tar")
    done = _git(repository, "archive", "--format=tar", f"--output={archive}", commit)
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()
        raise Fault("R0917", given, f"git archive failed: {reason[-1] if reason else 'no reason given'}", "git fsck")
    try:
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "data_filter"):  # from Python 3.11.4
                tar.extraction_filter = tarfile.data_filter
            tar.extractall(scratch)
    except tarfile.TarError as error:
        raise Fault(
            "R0917", given, f"the revision could not be extracted: {error}", "compare two files instead"
        ) from None
    archive.unlink()
    found = scratch / clean
    if not found.exists():
        raise Fault(
            "R0914", given, f"{clean} is marked export-ignore, so git archive leaves it out",
            f"write it aside and compare that: git show {given} > earlier.yaml",
        )  # fmt: skip
    return Side(path=_plan(found, given), shown=given, root=scratch, repository=repository)


def _history(repository: Path, path: str) -> str:
    done = _git(repository, "log", "--all", "--format=%h", "-n", "1", "--", path)
    last = done.stdout.decode().strip()
    return f"it was last changed in {last}" if last else "git log --all -- PATH shows where a file was"


def lend(side: Side, files: Iterable[str]) -> None:
    """Let an extracted spec see pinned files that are not under version control, as the working tree has them.

    `files` are paths relative to the spec. A file with another hash than the spec pins is refused by the compiler.
    """
    if side.root is None or side.repository is None:
        return
    folder = side.path.parent
    for file in files:
        there = Path(os.path.normpath(folder / file))
        if there.exists() or not there.is_relative_to(side.root):
            continue
        ours = side.repository / there.relative_to(side.root)
        if ours.is_file():
            there.parent.mkdir(parents=True, exist_ok=True)
            there.symlink_to(ours)
