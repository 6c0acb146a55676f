"""Locks on disk: one of them with the texts beside it, and a folder of the locks of earlier experiments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from epc.compiler.comparison.registration import Registration
from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.chat import lines
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.source import MAX_BYTES, parse, read_text

SUFFIX: Final = ".lock.yaml"
LOCK: Final = "spec.lock.yaml"
"""Name of the lock in a bundle."""
MAX_TEXTS: Final = 1000
"""Files of a bundle's inputs that are looked at."""


@dataclass(frozen=True, kw_only=True)
class Lock:
    path: Path
    id: str
    """Of the experiment, empty where the lock does not say."""
    sha256: str
    """Of the lock's text: the identity of the registration."""
    registration: Registration


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    path: Path
    reason: str
    """One clause, such as `it declares no conditions`."""


def read_lock(path: Path, name: str | None = None, *, texts: bool = False) -> Lock | Unreadable:
    """One lock; `texts` also reads what lies beside it in its bundle, for showing how prose differs."""
    shown = name or path.as_posix()
    sink = Diagnostics()
    text = read_text(path, shown, sink)
    data = None if text is None else parse(text, shown, sink).data
    if text is None or sink.errors:
        first = next(iter(sink))
        return Unreadable(path=path, reason=first.message)
    try:
        registration = Registration.of_lock(data or {}, shown, _texts(path.parent / "inputs") if texts else None)
    except ValueError as error:
        return Unreadable(path=path, reason=str(error))
    identifier = registration.design.get("id")
    return Lock(
        path=path, id=identifier if isinstance(identifier, str) else "", sha256=sha256_text(text), registration=registration,
    )  # fmt: skip


def _texts(folder: Path) -> dict[str, str]:
    """SHA-256 -> text of the files of a bundle, each also as the prompts that it holds."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*"))[:MAX_TEXTS]:
        if path.is_file() and path.stat().st_size <= MAX_BYTES:
            text = read_text(path, path.name, Diagnostics())
            if text is not None:
                prompts = "\n".join(lines(text))
                found[sha256_text(text)] = text
                found[sha256_text(prompts)] = prompts
    return found


def prior_locks(folder: Path) -> list[Lock | Unreadable]:
    """Every `*.lock.yaml` below a folder, in order of path; of a bundle only the lock that is in force."""
    return [read_lock(path) for path in sorted(folder.rglob(f"*{SUFFIX}")) if path.is_file() and not _superseded(path)]


def _superseded(path: Path) -> bool:
    """Whether a lock is one of those that a bundle was registered under before."""
    return path.parent.name == "history" and (path.parent.parent / LOCK).is_file()


def locks_with(locks: Iterable[Lock | Unreadable], condition: str) -> list[Lock]:
    """The locks that have a condition of this name, whatever it is made of; see `pinned` and `condition_content`."""
    return [lock for lock in locks if isinstance(lock, Lock) and condition in lock.registration.section("conditions")]
