"""One process at a time: an exclusive lock that ends with its process, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import IO

TRIES = 5
PAUSE = 0.05
"""Seconds between two tries."""


class BusyError(Exception):
    """Another process holds the lock. `pid` is that process, None where its number cannot be read."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(f"held by process {pid}")
        self.pid = pid

    @property
    def owner(self) -> str:
        return "another process" if self.pid is None else f"process {self.pid}"


def acquire(file: Path) -> IO[str]:
    """Lock `file` exclusively and write this process's id into it; `release` or the end of the process unlocks.

    Raises BusyError at once when another process holds it, OSError when the file cannot be written.
    """
    handle = file.open("a+", encoding="ascii", errors="replace")
    for remaining in reversed(range(TRIES)):  # `check_free` holds it too, for an instant
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if not remaining:
                with handle:
                    raise BusyError(_pid(handle)) from None
            time.sleep(PAUSE)
    handle.truncate(0)
    handle.write(f"{os.getpid()}\n")
    handle.flush()
    return handle


def release(handle: IO[str]) -> None:
    """Unlock for forked children too, which share the lock for as long as they live."""
    fcntl.flock(handle, fcntl.LOCK_UN)
    handle.close()


def check_free(file: Path) -> None:
    """Raise BusyError when a process holds `file`; a file that does not exist is free."""
    try:
        handle = file.open(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(_pid(handle)) from None


def _pid(handle: IO[str]) -> int | None:
    handle.seek(0)
    text = handle.read().strip()
    return int(text) if text.isdigit() else None
