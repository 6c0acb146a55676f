"""Every call to a judge and what came back, kept as it happens and paid for once.

SQLite at `store/ledger.sqlite`, shared by all judge steps of a bundle and by several processes. A call
is written down before it is made and completed when its reply is there, so what a killed process had in
flight is known, and nothing that was answered is asked again.

Write-ahead logging with synchronous = NORMAL: a killed process loses nothing; a power cut may lose the
last calls, never the file. The log needs a file system on which processes of one host share memory.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self, cast

from epc.compiler.contract.rows import Outcome
from epc.runtime.errors import Fault
from epc.runtime.judging.replies import SUCCESSES, Typed

VERSION: Final = 1
BUSY_SECONDS: Final = 60.0
"""How long a write waits for another process."""
NANO: Final = 1_000_000_000
"""Money is kept in whole billionths of a dollar, so that sums are exact in any order."""

_SCHEMA = f"""
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,        -- SHA-256 of everything that was sent
    run TEXT NOT NULL,        -- key of the judge step that asked
    lock TEXT NOT NULL,       -- registration that pays
    asked_at TEXT NOT NULL,   -- UTC
    seconds REAL,             -- until the reply; null, as all below, while it is awaited
    outcome TEXT,
    raw TEXT,                 -- the reply as it came, or what the error said
    fields TEXT,              -- JSON
    input_tokens INTEGER,
    output_tokens INTEGER,
    nano_usd INTEGER
);
CREATE INDEX calls_by_key ON calls (key);
CREATE TABLE spent (lock TEXT PRIMARY KEY, nano_usd INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""
_COLUMNS = "run, outcome, raw, fields, input_tokens, output_tokens, nano_usd"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A call that has ended."""

    run: str
    typed: Typed
    nano_usd: int


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What one judge step asked for and paid, over all its tries."""

    calls: int
    unanswered: int
    """Calls in flight when a try was killed: these, and only these, may have been paid twice."""
    input_tokens: int
    output_tokens: int
    nano_usd: int


def path(bundle: Path) -> Path:
    return bundle / "store" / "ledger.sqlite"


class Ledger:
    """The ledger of a bundle.

    Any method raises Fault R0806 when the file cannot be used as a ledger, and OSError when the disk is full.
    """

    def __init__(self, bundle: Path) -> None:
        self.file = path(bundle)
        with self._translated():
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.file, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        if self._version() == 0:
            self._db.execute("BEGIN IMMEDIATE")  # of two processes that find no tables one makes them
            try:
                if self._version() == 0:
                    for statement in _SCHEMA.split(";\n"):
                        self._db.execute(statement)
            finally:
                self._db.execute("COMMIT")
        found = self._version()
        if found != VERSION:
            raise Fault(
                "R0806", str(self.file), f"the ledger has version {found}, this epc reads {VERSION}",
                "upgrade epc; the ledger holds paid replies, so do not delete it",
            )  # fmt: skip

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        finally:
            self._db.close()

    def ask(self, key: str, *, run: str, lock: str) -> int:
        """Write down that a call is about to be made; the number under which its reply is kept.

        Like `answer`, certain to outlive this process only after `flush`.
        """
        with self._writing():
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            cursor = self._db.execute(
                "INSERT INTO calls (key, run, lock, asked_at) VALUES (?, ?, ?, ?)", (key, run, lock, now)
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def answer(self, call: int, typed: Typed, *, lock: str, nano_usd: int, seconds: float) -> None:
        """Keep what came back, and what it cost."""
        with self._writing():
            self._db.execute(
                "UPDATE calls SET seconds = ?, outcome = ?, raw = ?, fields = ?, input_tokens = ?,"
                " output_tokens = ?, nano_usd = ? WHERE id = ?",
                (
                    round(seconds, 3), typed.outcome, typed.raw, json.dumps(typed.fields), typed.input_tokens,
                    typed.output_tokens, nano_usd, call,
                ),
            )  # fmt: skip
            if nano_usd:
                self._db.execute(
                    "INSERT INTO spent (lock, nano_usd) VALUES (?, ?)"
                    " ON CONFLICT (lock) DO UPDATE SET nano_usd = nano_usd + excluded.nano_usd",
                    (lock, nano_usd),
                )

    def flush(self) -> None:
        """Commit. Due before anything is waited for: what is not committed holds up the other processes."""
        with self._translated():
            if self._db.in_transaction:
                self._db.execute("COMMIT")

    def attempts(self, key: str, *, run: str) -> list[Attempt]:
        """What is known about a request, oldest first.

        Where some step had success: that step's attempts up to its first success. Otherwise only those of
        `run`, since another step's failures do not count against this one.
        """
        with self._translated():
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM calls WHERE key = ? AND outcome IS NOT NULL ORDER BY id", (key,)
            ).fetchall()
        ended = [
            Attempt(
                run=row[0], nano_usd=row[6],
                typed=Typed(
                    outcome=cast(Outcome, row[1]), raw=row[2], fields=json.loads(row[3]), input_tokens=row[4],
                    output_tokens=row[5],
                ),
            )
            for row in rows
        ]  # fmt: skip
        success = next((number for number, one in enumerate(ended) if one.typed.outcome in SUCCESSES), None)
        owner = run if success is None else ended[success].run
        return [one for one in ended[: None if success is None else success + 1] if one.run == owner]

    def spent(self, lock: str) -> int:
        """Billionths of a dollar that this registration has paid, in every step and process."""
        with self._translated():
            row = self._db.execute("SELECT nano_usd FROM spent WHERE lock = ?", (lock,)).fetchone()
        return 0 if row is None else int(row[0])

    def totals(self, run: str) -> Totals:
        with self._translated():
            row = self._db.execute(
                "SELECT count(*), count(*) - count(outcome), coalesce(sum(input_tokens), 0),"
                " coalesce(sum(output_tokens), 0), coalesce(sum(nano_usd), 0) FROM calls WHERE run = ?",
                (run,),
            ).fetchone()
        return Totals(calls=row[0], unanswered=row[1], input_tokens=row[2], output_tokens=row[3], nano_usd=row[4])

    def sync(self) -> None:
        """Force what is kept to the disk, as far as other processes let go of it."""
        self.flush()
        with self._translated():
            self._db.execute("PRAGMA wal_checkpoint(FULL)")

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._translated():
            if not self._db.in_transaction:
                self._db.execute("BEGIN IMMEDIATE")
            yield

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.file)) from None
            raise Fault(
                "R0806", str(self.file), f"the ledger of judgements cannot be used: {error}",
                "see that the file is a whole SQLite database on a local disk that you may write; it holds paid"
                " replies, so move it away rather than delete it",
            ) from None  # fmt: skip
