"""Files of a `results` entry: one, those of a folder, or those that a pattern matches; and their hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from epc.compiler.contract.canonical import sha256_file, sha256_text
from epc.compiler.contract.manifest import ResultsFile
from epc.runtime.errors import Fault
from epc.runtime.results.problems import did_you_mean

WRITTEN: Final = {
    "csv": ("*.csv",),
    "jsonl": ("*.jsonl", "*.ndjson"),
    "parquet": ("*.parquet",),
    "lm_eval": ("samples_*.jsonl",),
    "inspect": ("*.eval", "*.json"),
    "promptfoo": ("*.json",),
}
"""What a folder is searched for, at any depth."""
_PATTERN: Final = re.compile(r"[*?\[]")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file, and how it is called beside the spec."""

    path: Path
    shown: str


def sources(entry: ResultsFile, folder: Path) -> tuple[Source, ...]:
    """Files of an entry, sorted by path. Raises Fault R1601 when there is none, R1602 when one is empty."""
    named = folder / entry.file
    if named.is_file():
        found = [named]
    elif named.is_dir():
        found = [path for pattern in WRITTEN[entry.format] for path in named.rglob(pattern) if path.is_file()]
    elif _PATTERN.search(entry.file) and not PurePosixPath(entry.file).is_absolute():
        found = [path for path in folder.glob(entry.file) if path.is_file()]
    else:
        found = []
    listed = sorted({Source(path=path, shown=_shown(path, folder)) for path in found}, key=lambda source: source.shown)
    if not listed:
        beside = [path.name for path in named.parent.iterdir()] if named.parent.is_dir() else []
        what = (
            f"the folder holds no {' or '.join(WRITTEN[entry.format])}" if named.is_dir() else "there is no such file"
        )
        hint = "" if named.is_dir() or _PATTERN.search(entry.file) else did_you_mean(named.name, beside)
        raise Fault(
            "R1601", entry.file, f"results `{entry.name}`: {what}{hint}",
            "put it there, or name the folder that `file:` is relative to: epc decide --results FOLDER",
        )  # fmt: skip
    for source in listed:
        if source.path.stat().st_size == 0:
            raise Fault("R1602", source.shown, "the file is empty", "write it again: nothing was measured by it")
    return tuple(listed)


def _shown(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def hashes(files: Sequence[Source]) -> dict[str, str]:
    """File as shown -> SHA-256."""
    return {source.shown: sha256_file(source.path) for source in files}


def sha256_of(found: dict[str, str]) -> str:
    """SHA-256 of one file; of several, that of the listing that `sha256sum` prints of them, sorted by name."""
    if len(found) == 1:
        return next(iter(found.values()))
    return sha256_text("".join(f"{sha256}  {name}\n" for name, sha256 in sorted(found.items())))


def fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
