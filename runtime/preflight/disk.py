"""Room on the disks where a run will write, by really reserving it.

What a file system says is free may lie behind a quota, belong to root, or be the memory of a tmpfs. So files of the
size that is needed are reserved, all folders at once where they share a disk, and given back. They have no name: an
interrupted or killed process leaves none behind.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final

from epc.runtime.errors import Fault
from epc.runtime.preflight.outcome import Row, size
from epc.runtime.wording import shown

PIECE: Final = 256 * 2**20
"""Bytes reserved in one call, between which Ctrl-C is heard."""
FILE: Final = 4 * PIECE
"""Bytes of one reserved file: weights come in several, so a limit on the size of a file is met as they would meet it."""
SECONDS: Final = 20.0
"""After which the rest is believed: a file system that cannot reserve is written to block by block."""
FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def rows(wanted: Mapping[Path, int], parts: str) -> Iterator[Row]:
    """A row for each disk that `wanted` (folder -> bytes) lies on. `parts` says what is written, for a person."""
    by_disk: dict[int, dict[Path, int]] = {}
    for folder, number in wanted.items():
        existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        by_disk.setdefault(existing.stat().st_dev, {})[folder] = number
    for folders in by_disk.values():
        yield _row(folders, parts)


def _row(folders: Mapping[Path, int], parts: str) -> Row:
    first = max(folders, key=lambda folder: folders[folder])
    total = sum(folders.values())
    wanted = f"{size(total)}" + (f": {parts}" if parts else "")
    what = f"disk of {', '.join(map(shown, folders))}"
    faults: list[Fault] = []
    whole = True
    with ExitStack() as held:
        for folder, number in folders.items():
            fault, reserved = _reserve(folder, number, held)
            whole &= reserved
            if fault is not None:
                faults.append(fault)
                break  # the others of this disk would only say the same
        if not faults:
            found = f"{size(total)} reserved and given back"
            if not whole:
                found = f"{size(shutil.disk_usage(first).free)} free by its own word; reserving was too slow to end"
            return Row(check="disk", what=what, found=found, needed=wanted, brief=f"{size(total)} disk")
    return Row(check="disk", what=what, found=_free(first), needed=wanted, faults=tuple(faults))


def _free(folder: Path) -> str:
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    return f"{size(shutil.disk_usage(existing).free)} free by its own word"


def _reserve(folder: Path, number: int, held: ExitStack) -> tuple[Fault | None, bool]:
    """What keeps `number` bytes from being written in a folder, and whether all were reserved; `held` gives them back."""
    place = shown(folder)
    began, left = time.monotonic(), number
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while left > 0:
            file = held.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
            for start in range(0, min(FILE, left), PIECE):
                if time.monotonic() - began > SECONDS:
                    return None, False
                _allocate(file, start, min(PIECE, left - start))
            left -= FILE
    except OSError as error:
        if error.errno in FULL:
            quota = ", because of a quota" if error.errno == errno.EDQUOT else ""
            return Fault(
                "R1910", place, f"the steps still to run will write about {size(number)} here, and that much cannot be reserved{quota}:"
                f" {_free(folder)}",
                "free some space, or move the folder to a larger disk; finished steps are kept",
            ), True  # fmt: skip
        if error.errno == errno.EFBIG:
            return Fault(
                "R1911", place, f"a file of {size(min(FILE, number))} may not be written here: files are limited in size",
                "raise the limit (ulimit -f), or use another file system",
            ), True  # fmt: skip
        return Fault(
            "R1912", place, f"nothing can be written here: {error.strerror}", "check the folder and its permissions"
        ), True
    return None, True


def _allocate(file: IO[bytes], start: int, length: int) -> None:
    """Blocks for a part of a file; written where they cannot be reserved. Raises OSError."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), start, length)
        return
    block = bytes(2**20)
    for offset in range(start, start + length, len(block)):
        os.pwrite(file.fileno(), block[: start + length - offset], offset)
