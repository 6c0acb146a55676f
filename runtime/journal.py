"""journal.jsonl: what happened to a registration, append-only and hash-chained.

Each line holds the hash of the line before it, so an altered, dropped or reordered line breaks
the chain at a place that can be named. Writers hold an exclusive lock while they append.
"""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from epc.compiler.contract.canonical import canonical_json, sha256_text
from epc.runtime.errors import Fault

Event = Literal[
    "registered", "approved", "preflight", "started", "finished", "failed", "amended", "frozen", "looked", "decided", "packed",
]  # fmt: skip
GENESIS = "0" * 64
REMEDY = "restore the journal from version control or a backup; results stay valid, their history does not"


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    seq: int
    at: str
    """UTC, ISO 8601, seconds."""
    event: Event
    data: dict[str, Any]
    previous: str
    hash: str

    def expected_hash(self) -> str:
        return sha256_text(canonical_json(self.model_dump(exclude={"hash"})))


def path(bundle: Path) -> Path:
    return bundle / "journal.jsonl"


def read(bundle: Path) -> list[Entry]:
    """Every entry, oldest first, with the chain verified.

    Raises Fault R0401 naming the first line that does not fit. A last line without its newline is
    the trace of a killed writer: it was never acknowledged, and is left out.
    """
    file = path(bundle)
    if not file.exists():
        return []
    entries: list[Entry] = []
    previous = GENESIS
    lines = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        place = f"{file}:{number}"
        entry = _parse(line, place)
        if entry.previous != previous or entry.seq != number - 1:
            raise Fault("R0401", place, "this journal line does not follow the one before it", REMEDY)
        if entry.hash != entry.expected_hash():
            raise Fault("R0401", place, "this journal line was altered after it was written", REMEDY)
        previous = entry.hash
        entries.append(entry)
    return entries


def _parse(line: bytes, place: str) -> Entry:
    try:
        return Entry.model_validate_json(line)
    except ValidationError:
        raise Fault("R0401", place, "this journal line cannot be read", REMEDY) from None


def append(bundle: Path, event: Event, **data: Any) -> Entry:
    """Add one entry under an exclusive lock and force it to disk.

    Cuts off what a killed writer left of its line. Raises Fault R0401 when there is no whole last
    entry to follow, OSError when the disk is full.
    """
    file = path(bundle)
    with file.open("a+b") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        handle.seek(0)
        content = handle.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            handle.truncate(len(whole))
        lines = whole.split(b"\n")[:-1]
        last = _parse(lines[-1], f"{file}:{len(lines)}") if lines else None
        entry = Entry(
            seq=0 if last is None else last.seq + 1,
            at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            event=event,
            data=data,
            previous=GENESIS if last is None else last.hash,
            hash="",
        )
        entry = entry.model_copy(update={"hash": entry.expected_hash()})
        handle.write(canonical_json(entry.model_dump()).encode("utf-8") + b"\n")
        handle.flush()
        os.fsync(handle.fileno())
    return entry
