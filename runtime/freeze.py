"""`epc freeze`: the word `pending` in a spec becomes the SHA-256 of what is there now.

External files are frozen before anything runs, since everything is made from them; rows that a data
step built are frozen before any training. Until then a run goes as far as it may.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from epc.compiler.contract.canonical import sha256_file
from epc.compiler.contract.manifest import Manifest, Pending, Step
from epc.runtime import bundle as bundles
from epc.runtime.errors import Fault
from epc.runtime.registration import PENDING, ROWS, pending, spec_path
from epc.runtime.step import read_record
from epc.runtime.wording import count, shown

PREPARATION = frozenset({"model", "generate", "data", "mask"})
"""Kinds of step that may run while built rows are pending: none of them tells anything about the answer."""

_BREAK = re.compile("\r\n|[\r\n\x85\u2028\u2029]")
"""What ends a line of YAML."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """What there is to freeze under a pending name."""

    pending: Pending
    file: Path
    sha256: str | None
    """None while it is not there."""
    about: str
    """How much it is, or why it is not there."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a value stands in a text: line and column count from 1, the length is in characters."""

    line: int
    column: int
    length: int


# What waits ----------------------------------------------------------------------------------


def awaited(manifest: Manifest, step: Step) -> tuple[str, ...]:
    """Pending names that must be frozen before a step may run."""
    external = tuple(entry.name for entry in pending(manifest) if entry.kind == "external")
    if external or step.kind in PREPARATION:
        return external
    return tuple(entry.name for entry in pending(manifest))


def place_of(manifest: Manifest, entry: Pending, folder: Path | None) -> str:
    """Where the file of an external entry belongs; `folder` is that of the spec, None where it is not known."""
    return shown(folder / entry.file) if folder is not None else f"{entry.file}, relative to {manifest.spec}"


def external_lines(bundle: Path, manifest: Manifest) -> list[str]:
    """One line for each external file that waits: what, where to put it, where it comes from."""
    spec = spec_path(bundle, manifest)
    folder = spec.parent if spec is not None else None
    lines = []
    for entry in pending(manifest):
        if entry.kind == "external":
            there = folder is not None and (folder / entry.file).is_file()
            said = "it is there" if there else "put it there"
            source = f"; from {' '.join(entry.source.split())}" if entry.source else ""
            lines.append(f"{entry.name}: {place_of(manifest, entry, folder)} ({said}{source})")
    return lines


def require_external(bundle: Path, manifest: Manifest) -> None:
    """Raise Fault R0761 when files from elsewhere are pending, naming each, its place and its source."""
    lines = external_lines(bundle, manifest)
    if lines:
        raise Fault(
            "R0761", manifest.spec,
            _listed(f"nothing runs before {count(len(lines), 'external file')} of this registration are frozen", lines),
            f"put every file in its place, then: epc freeze {_spec_shown(bundle, manifest)}",
        )  # fmt: skip


def require_built(bundle: Path, manifest: Manifest, waiting: Sequence[str]) -> None:
    """Raise Fault R0762 when steps wait for built rows to be frozen, telling what there is to look at."""
    if not waiting:
        return
    lines = []
    for entry in pending(manifest):
        content = _built(bundle, manifest, entry)
        state = f"{shown(content.file)}, {content.about}, SHA-256 {content.sha256}" if content.sha256 else content.about
        lines.append(f"{entry.name}: {state}")
    more = f" and {len(waiting) - 3} more" if len(waiting) > 3 else ""
    raise Fault(
        "R0762", manifest.spec,
        _listed(f"{', '.join(waiting[:3])}{more} wait until the data are frozen", lines),
        f"look at the rows, then: epc freeze {_spec_shown(bundle, manifest)}, and epc run again",
    )  # fmt: skip


def _spec_shown(bundle: Path, manifest: Manifest) -> str:
    spec = spec_path(bundle, manifest)
    return manifest.spec if spec is None else shown(spec)


def _listed(fact: str, lines: Sequence[str]) -> str:
    return "\n".join([fact, *(f"       {line}" for line in lines)])


# What is there -------------------------------------------------------------------------------


def asked(manifest: Manifest, only: Sequence[str]) -> tuple[Pending, ...]:
    """The pending entries that a command means, all without `only`. Raises Fault R0765 for another name."""
    known = {entry.name: entry for entry in pending(manifest)}
    unknown = [name for name in only if name not in known]
    if unknown:
        raise Fault("R0765", manifest.spec, f"{unknown[0]} is not pending", f"pending are: {', '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(only)) if only else pending(manifest)


def look(bundle: Path, manifest: Manifest, entry: Pending, folder: Path) -> Content:
    """What there is under a pending name; `folder` is that of the spec.

    Raises Fault R0766 when built rows are not those that their step recorded.
    """
    return _external(entry, folder) if entry.kind == "external" else _built(bundle, manifest, entry)


def not_there(spec: str, contents: Sequence[Content]) -> Fault:
    """Fault R0768, to be raised: what was to be frozen and is not there."""
    lines = [f"{content.pending.name}: {content.about}" for content in contents]
    return Fault(
        "R0768", spec, _listed(f"{count(len(lines), 'pending name')} could not be frozen", lines),
        f"put a file in its place, or let epc run build it; then: epc freeze {spec}",
    )  # fmt: skip


def _external(entry: Pending, folder: Path) -> Content:
    file = folder / entry.file
    if file.is_file():
        return Content(pending=entry, file=file, sha256=sha256_file(file), about=f"{file.stat().st_size:,} bytes")
    source = f"; it comes from {' '.join(entry.source.split())}" if entry.source else ""
    return Content(pending=entry, file=file, sha256=None, about=f"there is no {shown(file)}{source}")


def _built(bundle: Path, manifest: Manifest, entry: Pending) -> Content:
    step = bundles.step_of(manifest, entry.file)
    file = bundles.store(bundle, step) / ROWS
    if any(other.kind == "external" for other in pending(manifest)):
        return Content(pending=entry, file=file, sha256=None, about="not built: external files are frozen first")
    record = read_record(bundle, step)
    if record is None:
        return Content(pending=entry, file=file, sha256=None, about="not built: epc run builds it")
    found = sha256_file(file) if file.is_file() else None
    if found is None or found != record.outputs.get(ROWS):
        raise Fault(
            "R0766", str(file), f"these are not the rows that {step.id} wrote",
            f"delete {file.parent} and run again: the data set is built anew",
        )  # fmt: skip
    with file.open("rb") as handle:
        rows = sum(1 for _ in handle)
    return Content(pending=entry, file=file, sha256=found, about=f"{rows:,} rows")


# Writing it down -----------------------------------------------------------------------------


def path_of(entry: Pending) -> tuple[str, ...]:
    """Keys under which a spec writes the hash of a pending entry."""
    section, _, name = entry.name.partition(".")
    return (section, name, "external", "sha256") if section == "prompts" else (section, name, "sha256")


def edited(text: str, hashes: Iterable[tuple[Place, str]], file: str) -> str:
    """The text with each hash in place of the word `pending`; nothing else is touched.

    A value that is the hash already is left as it is. Raises Fault R0767 for any other value.
    """
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    text = text.removeprefix(mark)
    starts = [0, *(match.end() for match in _BREAK.finditer(text))]
    for place, sha256 in sorted(hashes, key=lambda pair: (pair[0].line, pair[0].column), reverse=True):
        start = starts[place.line - 1] + place.column - 1
        written = text[start : start + place.length]
        quote = written[0] if written[:1] in ("'", '"') else ""
        if written == f"{quote}{sha256}{quote}":
            continue
        if written != f"{quote}{PENDING}{quote}":
            raise Fault(
                "R0767", f"{file}:{place.line}:{place.column}", f"the word {PENDING} is not here, but {written}",
                f"write sha256: {PENDING} on one line, compile, then freeze",
            )  # fmt: skip
        if not quote and not re.search("[a-df]", sha256):  # digits and e alone: YAML reads a number
            quote = '"'
        text = text[:start] + quote + sha256 + quote + text[start + place.length :]
    return mark + text


def write_aside(file: Path, text: str) -> None:
    """Write a text that is to be renamed over a file of the user's, and force it to disk."""
    with file.open("wb") as handle:
        handle.write(text.encode("utf-8"))
        handle.flush()
        os.fsync(handle.fileno())
