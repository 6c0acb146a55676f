"""Every call to a judge and what came back, kept as it happens and paid for once.

SQLite at `store/ledger.sqlite`, shared by all judge steps of a bundle and by several processes. A call
is written down before it is made and completed when its reply is there, so what a killed process had in
flight is known, and nothing that was answered is asked again. A batch is written down before it is
created, and its id before anything is awaited of it.

Two processes do not ask the same thing: `claim` refuses a request that a living process awaits. A process
is alive as long as it holds the lock on its file in `store/ledger.owners`, which ends with it, however
it ends.

Write-ahead logging with synchronous = NORMAL: a killed process loses nothing; a power cut may lose the
replies of the last SYNC_SECONDS, never the file. What is written about a batch is on the disk at once.
The log needs a file system on which processes of one host share memory.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self, cast

from epc.compiler.contract.rows import Outcome
from epc.runtime import locking
from epc.runtime.errors import Fault
from epc.runtime.judging.replies import SUCCESSES, Typed

VERSION: Final = 2
BUSY_SECONDS: Final = 60.0
"""How long a write waits for another process."""
LOG_PAGES: Final = 16_384
"""Pages of the log from which SQLite moves them into the file by itself; it is done every SYNC_SECONDS as it is."""
SYNC_SECONDS: Final = 5.0
"""How long a committed reply may stay without being forced to the disk."""
NANO: Final = 1_000_000_000
"""Money is kept in whole billionths of a dollar, so that sums are exact in any order."""

_FIRST = """
CREATE TABLE calls (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL,        -- SHA-256 of everything that was sent
    run TEXT NOT NULL,        -- key of the judge step that asked
    lock TEXT NOT NULL,       -- registration that pays
    asked_at TEXT NOT NULL,   -- UTC
    seconds REAL,             -- until the reply, 0 for one of a batch; null, as all below, while it is awaited
    outcome TEXT,
    raw TEXT,                 -- the reply as it came, or what the error said
    fields TEXT,              -- JSON
    input_tokens INTEGER,
    output_tokens INTEGER,
    nano_usd INTEGER
);
CREATE INDEX calls_by_key ON calls (key);
CREATE TABLE spent (lock TEXT PRIMARY KEY, nano_usd INTEGER NOT NULL) WITHOUT ROWID;
"""
_SECOND = """
ALTER TABLE calls ADD COLUMN cache_write_tokens INTEGER;
ALTER TABLE calls ADD COLUMN cache_read_tokens INTEGER;
-- owner: process that awaits the reply; null for a call of a batch
ALTER TABLE calls ADD COLUMN owner TEXT;
-- batch: its number
ALTER TABLE calls ADD COLUMN batch INTEGER;
CREATE TABLE batches (
    number INTEGER PRIMARY KEY,
    run TEXT NOT NULL,
    lock TEXT NOT NULL,
    endpoint TEXT NOT NULL,    -- server that it is created at
    owner TEXT NOT NULL,       -- process that looks after it
    intended_at TEXT NOT NULL, -- UTC
    requests INTEGER NOT NULL,
    bound INTEGER NOT NULL,    -- billionths of a dollar that it costs at most
    id TEXT,                   -- the provider's; null until its reply to `create` was kept
    state TEXT NOT NULL        -- open; closed: every result is in `calls`; void: never created, or given up
);
CREATE INDEX calls_awaited_of_batch ON calls (batch, key) WHERE batch IS NOT NULL AND outcome IS NULL;
"""
_STAGES: Final = (_FIRST, _SECOND)
"""What leads from each version to the next."""
_CALLS = (
    "SELECT calls.run, outcome, raw, fields, input_tokens, output_tokens, coalesce(cache_write_tokens, 0),"
    " coalesce(cache_read_tokens, 0), nano_usd, seconds, batches.id"
    " FROM calls LEFT JOIN batches ON calls.batch = batches.number WHERE key = ? ORDER BY calls.id"
)
_SPENT = "SELECT coalesce(sum(nano_usd), 0) FROM spent WHERE lock = ?"
_RESERVED = "SELECT coalesce(sum(bound), 0) FROM batches WHERE lock = ? AND state = 'open'"
_BATCH = "number, run, lock, endpoint, owner, intended_at, requests, bound, id"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A call that has ended."""

    run: str
    typed: Typed
    nano_usd: int
    seconds: float
    """From sending to the reply; 0 through the batch interface, which does not say."""
    batch: str | None
    """Id of the provider's batch."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch that was intended and whose results are not all kept yet."""

    number: int
    run: str
    lock: str
    endpoint: str
    owner: str
    intended_at: datetime
    requests: int
    bound: int
    """Billionths of a dollar that it costs at most."""
    id: str | None
    """The provider's; None where it is not known whether the batch was created."""


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

    Any method raises Fault R0806 when the file cannot be used as a ledger, R0850 when the disk is full, R0851
    when another process does not let go of it.
    """

    def __init__(self, bundle: Path) -> None:
        self.file = path(bundle)
        self._name = f"{os.getpid()}-{secrets.token_hex(8)}"
        self._alive: IO[str] | None = None
        self._synced = time.monotonic()
        self._translated = _Translated(self)
        self._pending: Counter[str] = Counter()
        """Registration -> what the replies that the open transaction keeps have cost; added to `spent` as it ends."""
        self._sums: dict[tuple[str, str], int] = {}
        """(query, registration) -> what the file holds, as long as nobody else has written to it; less `_pending`."""
        self._version_seen = 0
        """Changes with every commit of another process."""
        self._unknown: set[str] = set()
        """Requests that no call was found of in the open transaction."""
        with self._translated:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.file, timeout=BUSY_SECONDS, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        found = self._version()
        if found <= VERSION:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(f"PRAGMA wal_autocheckpoint = {LOG_PAGES}")
        if found < VERSION:
            self._upgrade()
            found = self._version()
        if found != VERSION:
            raise Fault(
                "R0806", str(self.file), f"the ledger has version {found}, this epc reads {VERSION}",
                "upgrade epc; the ledger holds paid replies, so do not delete it",
            )  # fmt: skip

    def _upgrade(self) -> None:
        """Make the tables, or those that an older version lacks: all of it or, when it fails, nothing."""
        self._db.execute("BEGIN IMMEDIATE")  # of two processes that find an older version one upgrades
        try:
            for stage in _STAGES[self._version() :]:
                for statement in stage.split(";\n"):
                    self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {VERSION}")
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

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
            if self._alive is not None:
                self._owner_file(self._name).unlink(missing_ok=True)
                locking.release(self._alive)

    # Calls

    def ask(self, key: str, *, run: str, lock: str) -> int:
        """Write down that a call is about to be made; the number under which its reply is kept.

        Like `answer`, certain to outlive this process only after `flush`.
        """
        with self._translated:
            self._begin()
            self._unknown.discard(key)
            cursor = self._db.execute(
                "INSERT INTO calls (key, run, lock, asked_at, owner) VALUES (?, ?, ?, ?, ?)",
                (key, run, lock, _now(), self._owner()),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def claim(self, key: str, *, run: str, lock: str) -> int | None:
        """`ask`, unless the request was answered meanwhile or a living process awaits a reply to it.

        None then: look at `attempts` again after a while. Raises Fault R0852 for a request of a batch that is
        under way and that no process looks after, since its reply is being paid for.
        """
        with self._translated:
            self._begin()
            if key not in self._unknown:
                if self._succeeded(key):
                    return None
                for owner, number in self._awaited(key):
                    if number is not None and (owner == self._name or not self._lives(owner)):
                        raise self._nobody_collects(number)
                    if owner != self._name and self._lives(owner):
                        return None
            return self.ask(key, run=run, lock=lock)

    def answer(self, call: int, typed: Typed, *, lock: str, nano_usd: int, seconds: float) -> None:
        """Keep what came back, and what it cost."""
        with self._translated:
            self._begin()
            self._db.execute(
                "UPDATE calls SET seconds = ?, outcome = ?, raw = ?, fields = ?, input_tokens = ?, output_tokens = ?,"
                " cache_write_tokens = ?, cache_read_tokens = ?, nano_usd = ? WHERE id = ?",
                (
                    round(seconds, 3), typed.outcome, typed.raw, json.dumps(typed.fields), typed.input_tokens,
                    typed.output_tokens, typed.cache_write_tokens, typed.cache_read_tokens, nano_usd, call,
                ),
            )  # fmt: skip
            if nano_usd:
                self._pending[lock] += nano_usd

    def attempts(self, key: str, *, run: str) -> list[Attempt]:
        """What is known about a request, oldest first.

        Where some step had success: that step's attempts up to its first success. Otherwise only those of
        `run`, since another step's failures do not count against this one.
        """
        with self._translated:
            rows = self._db.execute(_CALLS, (key,)).fetchall()
            if not rows:
                if self._db.in_transaction:
                    self._unknown.add(key)
                return []
        ended = [_attempt(row) for row in rows if row[1] is not None]
        success = next((number for number, one in enumerate(ended) if one.typed.outcome in SUCCESSES), None)
        owner = run if success is None else ended[success].run
        return [one for one in ended[: None if success is None else success + 1] if one.run == owner]

    def spent(self, lock: str) -> int:
        """Billionths of a dollar that this registration has paid, in every step and process."""
        kept = self._sum(_SPENT, lock)
        return kept + (self._pending[lock] if self._db.in_transaction else 0)

    def _sum(self, query: str, lock: str) -> int:
        with self._translated:
            if not self._db.in_transaction:
                return int(self._db.execute(query, (lock,)).fetchone()[0])
            found = self._sums.get((query, lock))
            if found is None:
                found = self._sums[query, lock] = int(self._db.execute(query, (lock,)).fetchone()[0])
            return found

    def totals(self, run: str) -> Totals:
        with self._translated:
            row = self._db.execute(
                "SELECT count(*), count(*) - count(outcome), coalesce(sum(input_tokens), 0),"
                " coalesce(sum(output_tokens), 0), coalesce(sum(nano_usd), 0) FROM calls WHERE run = ?"
                " AND (outcome IS NOT NULL OR batch IS NULL"
                " OR batch NOT IN (SELECT number FROM batches WHERE state = 'void' AND id IS NULL))",
                (run,),
            ).fetchone()
        return Totals(calls=row[0], unanswered=row[1], input_tokens=row[2], output_tokens=row[3], nano_usd=row[4])

    # Batches

    def reserved(self, lock: str) -> int:
        """Billionths of a dollar that the open batches of this registration cost at most."""
        return self._sum(_RESERVED, lock)

    def intend(
        self, bounds: Mapping[str, int], *, run: str, lock: str, endpoint: str, limit: int
    ) -> tuple[Batch, list[str]] | None:
        """Write down, and force to the disk, that a batch is about to be created.

        `bounds` are the requests, each with what it costs at most. Left out are those that were answered
        meanwhile, or that a living process or an open batch awaits, and from the first on that could bring what is
        spent and reserved above `limit`; None when no others remain.
        """
        with self._durably():
            room = limit - self.spent(lock) - self.reserved(lock)
            keys: list[str] = []
            total = 0
            for key, bound in bounds.items():
                if self._succeeded(key) or self._in_flight(key):
                    continue
                if total + bound > room:
                    break
                keys.append(key)
                total += bound
            if not keys:
                return None
            now = _now()
            cursor = self._db.execute(
                "INSERT INTO batches (run, lock, endpoint, owner, intended_at, requests, bound, state)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, 'open')",
                (run, lock, endpoint, self._owner(), now, len(keys), total),
            )
            number = cursor.lastrowid
            assert number is not None
            self._db.executemany(
                "INSERT INTO calls (key, run, lock, asked_at, batch) VALUES (?, ?, ?, ?, ?)",
                [(key, run, lock, now, number) for key in keys],
            )
            return self._batch(number), keys

    def created(self, number: int, batch_id: str) -> None:
        """Keep the provider's id of a batch, on the disk when this returns."""
        with self._durably():
            self._db.execute("UPDATE batches SET id = ? WHERE number = ?", (batch_id, number))

    def close_batch(self, number: int) -> None:
        """Every result of the batch is kept."""
        with self._durably():
            self._db.execute("UPDATE batches SET state = 'closed' WHERE number = ?", (number,))

    def void(self, number: int) -> None:
        """The batch was never created, or what it has not answered yet is given up: its requests are free again."""
        with self._durably():
            self._db.execute("UPDATE batches SET state = 'void' WHERE number = ?", (number,))

    def open_batches(self) -> list[Batch]:
        """Oldest first, of every step and process."""
        with self._translated:
            rows = self._db.execute(f"SELECT {_BATCH} FROM batches WHERE state = 'open' ORDER BY number").fetchall()
        return [_batch(row) for row in rows]

    def adopt(self, number: int) -> bool:
        """Look after an open batch from now on; False when a living process does, or when it is no longer open."""
        with self._durably():
            row = self._db.execute("SELECT owner, state FROM batches WHERE number = ?", (number,)).fetchone()
            if row[1] != "open" or (row[0] != self._name and self._lives(row[0])):
                return False
            self._db.execute("UPDATE batches SET owner = ? WHERE number = ?", (self._owner(), number))
            return True

    def awaiting(self, key: str) -> Batch | None:
        """The open batch that awaits a reply to this request."""
        with self._translated:
            number = next((number for _, number in self._awaited(key) if number is not None), None)
            return None if number is None else self._batch(number)

    def in_flight(self, key: str) -> bool:
        """Whether an open batch, or another living process, awaits a reply to this request."""
        with self._translated:
            return self._in_flight(key)

    def call_in(self, number: int, key: str) -> int | None:
        """The call of a batch that still awaits its reply."""
        with self._translated:
            row = self._db.execute(
                "SELECT id FROM calls WHERE key = ? AND batch = ? AND outcome IS NULL", (key, number)
            ).fetchone()
        return None if row is None else int(row[0])

    def unanswered_in(self, number: int) -> list[tuple[int, str]]:
        """Calls of a batch that still await their reply, and their keys."""
        with self._translated:
            return self._db.execute(
                "SELECT id, key FROM calls WHERE batch = ? AND outcome IS NULL ORDER BY id", (number,)
            ).fetchall()

    def keys_of(self, number: int) -> set[str]:
        """The requests of a batch."""
        with self._translated:
            return {row[0] for row in self._db.execute("SELECT key FROM calls WHERE batch = ?", (number,))}

    def batch_ids(self, run: str | None = None) -> list[str]:
        """Ids of the batches of a step, or of all, that were created, oldest first."""
        with self._translated:
            rows = self._db.execute(
                "SELECT id FROM batches WHERE id IS NOT NULL AND coalesce(run = ?, 1) ORDER BY number", (run,)
            ).fetchall()
        return [row[0] for row in rows]

    def _batch(self, number: int) -> Batch:
        return _batch(self._db.execute(f"SELECT {_BATCH} FROM batches WHERE number = ?", (number,)).fetchone())

    # In flight, and whose

    def _succeeded(self, key: str) -> bool:
        found = self._db.execute("SELECT outcome FROM calls WHERE key = ? AND outcome IS NOT NULL", (key,))
        return any(row[0] in SUCCESSES for row in found)

    def _awaited(self, key: str) -> list[tuple[str | None, int | None]]:
        """(process, open batch) of the calls without a reply."""
        rows = self._db.execute("SELECT owner, batch FROM calls WHERE key = ? AND outcome IS NULL", (key,)).fetchall()
        found: list[tuple[str | None, int | None]] = []
        for owner, number in rows:
            if number is None:
                found.append((owner, None))
                continue
            state, looks_after = self._db.execute(
                "SELECT state, owner FROM batches WHERE number = ?", (number,)
            ).fetchone()
            if state == "open":
                found.append((looks_after, number))
        return found

    def _in_flight(self, key: str) -> bool:
        return any(
            number is not None or (owner != self._name and self._lives(owner)) for owner, number in self._awaited(key)
        )

    def _nobody_collects(self, number: int) -> Fault:
        batch = self._batch(number)
        return Fault(
            "R0852", str(self.file),
            f"replies that this step needs are being paid for in batch {batch.id or 'of unknown id'},"
            f" of {batch.requests:,} requests, and no process collects them",
            "run the step that started it (epc run does) with `batch_from` as it was: it goes on with that batch",
        )  # fmt: skip

    def _owner(self) -> str:
        """The name of this process, alive from the first time that it is written down. Within a transaction."""
        if self._alive is None:
            folder = self.file.parent / "ledger.owners"
            folder.mkdir(exist_ok=True)
            for file in folder.iterdir():
                if not self._lives(file.name):
                    file.unlink(missing_ok=True)
            self._alive = locking.acquire(self._owner_file(self._name))
        return self._name

    def _owner_file(self, name: str) -> Path:
        return self.file.parent / "ledger.owners" / name

    def _lives(self, owner: str | None) -> bool:
        if owner is None:
            return False
        try:
            locking.check_free(self._owner_file(owner))
        except locking.BusyError:
            return True
        return False

    # The file

    def flush(self) -> None:
        """Commit. Due before anything is waited for: what is not committed holds up the other processes."""
        with self._translated:
            if self._db.in_transaction:
                try:
                    self._write_spent()
                    self._db.execute("COMMIT")
                except sqlite3.Error:
                    self._sums.clear()
                    raise
                if time.monotonic() - self._synced > SYNC_SECONDS:
                    self._synced = time.monotonic()
                    self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def sync(self) -> None:
        """Force what is kept to the disk, as far as other processes let go of it."""
        self.flush()
        with self._translated:
            self._db.execute("PRAGMA wal_checkpoint(FULL)")

    def _begin(self) -> None:
        """Open a transaction, unless one is open. What was noted in one that is gone, kept or not, is forgotten."""
        if not self._db.in_transaction:
            self._pending.clear()
            self._unknown.clear()
            self._db.execute("BEGIN IMMEDIATE")  # from here on nobody else writes
            version = self._db.execute("PRAGMA data_version").fetchone()[0]
            if version != self._version_seen:
                self._version_seen = version
                self._sums.clear()

    def _write_spent(self) -> None:
        for lock, nano_usd in tuple(self._pending.items()):
            self._db.execute(
                "INSERT INTO spent (lock, nano_usd) VALUES (?, ?)"
                " ON CONFLICT (lock) DO UPDATE SET nano_usd = nano_usd + excluded.nano_usd",
                (lock, nano_usd),
            )
            del self._pending[lock]
            if (_SPENT, lock) in self._sums:
                self._sums[_SPENT, lock] += nano_usd

    @contextmanager
    def _durably(self) -> Iterator[None]:
        """A transaction of its own that is on the disk at the end, or has changed nothing."""
        self.flush()
        with self._translated:
            self._db.execute("PRAGMA synchronous = FULL")
            try:
                self._begin()
                yield
                self._db.execute("COMMIT")
            finally:
                self._sums.clear()
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                self._db.execute("PRAGMA synchronous = NORMAL")

    def fault(self, code: int, error: Exception) -> Fault:
        """What an error of SQLite, or of the system, is to a user."""
        place = str(self.file)
        match code:
            case sqlite3.SQLITE_FULL:
                return Fault(
                    "R0850", place, "no space left on the disk for the replies of judges",
                    "free some space and run again: every reply kept until then stays, none of them is asked for again",
                )  # fmt: skip
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return Fault(
                    "R0851", place, f"another process has been writing the ledger for {BUSY_SECONDS:.0f} s: {error}",
                    "see what holds it (a stopped epc, a database browser), end that, and run again; nothing is lost",
                )  # fmt: skip
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return Fault(
                    "R0806", place, f"the ledger of judgements is damaged: {error}",
                    "it holds paid replies, so do not delete it: restore a backup, or save what can be read"
                    f" (sqlite3 {self.file.name} .recover | sqlite3 saved.sqlite) and put that in its place; without it"
                    " every completion is asked about, and paid for, again",
                )  # fmt: skip
            case _:
                return Fault(
                    "R0806", place, f"the ledger of judgements cannot be used: {error}",
                    "see that it is a file on a local disk that you may write; it holds paid replies, so move it away"
                    " rather than delete it",
                )  # fmt: skip


class _Translated:
    """Errors of SQLite and of the system become faults. A class and no generator: some are entered in every call."""

    def __init__(self, ledger: Ledger) -> None:
        self._fault = ledger.fault

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        match error:
            case sqlite3.Error():
                code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF
                raise self._fault(code, error) from None
            case OSError():
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                raise self._fault(sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_IOERR, error) from None
            case _:
                return


def _now() -> str:
    return _shown(int(time.time()))


@functools.lru_cache(maxsize=1)
def _shown(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _attempt(row: tuple[Any, ...]) -> Attempt:
    run, outcome, raw, fields, sent, written, cache_write, cache_read, nano_usd, seconds, batch = row
    return Attempt(
        run=run, nano_usd=nano_usd, seconds=seconds, batch=batch,
        typed=Typed(
            outcome=cast(Outcome, outcome), raw=raw, fields=json.loads(fields), input_tokens=sent, output_tokens=written,
            cache_write_tokens=cache_write, cache_read_tokens=cache_read,
        ),
    )  # fmt: skip


def _batch(row: tuple[Any, ...]) -> Batch:
    number, run, lock, endpoint, owner, intended_at, requests, bound, batch_id = row
    return Batch(
        number=number, run=run, lock=lock, endpoint=endpoint, owner=owner, requests=requests, bound=bound, id=batch_id,
        intended_at=datetime.strptime(intended_at, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC),
    )  # fmt: skip
