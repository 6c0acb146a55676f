"""What was asked and answered, kept as it happens, by several processes."""

from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from epc.compiler.contract.rows import Outcome
from epc.runtime.errors import Fault
from epc.runtime.judging import ledger as ledgers
from epc.runtime.judging.ledger import Ledger
from epc.runtime.judging.replies import Typed


def typed(outcome: Outcome, raw: str = "") -> Typed:
    return Typed(outcome=outcome, fields={"a": 1, "b": True} if outcome == "scored" else {}, raw=raw, output_tokens=2)


def keep(ledger: Ledger, key: str, outcome: Outcome, *, run: str = "run", nano_usd: int = 5) -> None:
    call = ledger.ask(key, run=run, lock="lock")
    ledger.answer(call, typed(outcome, f"{run} {outcome}"), lock="lock", nano_usd=nano_usd, seconds=0.1)


HISTORIES: dict[str, tuple[list[tuple[str, Outcome]], list[str]]] = {
    # (run, outcome) in order -> what "mine" sees
    "nothing": ([], []),
    "own success": ([("mine", "scored")], ["mine scored"]),
    "own failures": (
        [("mine", "api_error"), ("mine", "unparsable")],
        ["mine api_error", "mine unparsable"],
    ),
    "another's failures do not count": ([("other", "unparsable"), ("mine", "api_error")], ["mine api_error"]),
    "another's success is taken, with how it came about": (
        [("mine", "unparsable"), ("other", "out_of_range"), ("other", "scored"), ("mine", "scored")],
        ["other out_of_range", "other scored"],
    ),
    "a refusal is a success": ([("other", "judge_refused")], ["other judge_refused"]),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_what_is_known_about_a_request(name: str, tmp_path: Path) -> None:
    made, seen = HISTORIES[name]
    with Ledger(tmp_path) as ledger:
        for run, outcome in made:
            keep(ledger, "key", outcome, run=run)
            keep(ledger, "another key", "scored", run=run)
        assert [attempt.typed.raw for attempt in ledger.attempts("key", run="mine")] == seen


def test_replies_come_back_as_they_were_kept(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        keep(ledger, "key", "scored")
    with Ledger(tmp_path) as ledger:
        found = ledger.attempts("key", run="run")[0].typed
        assert found == typed("scored", "run scored")
        assert [type(value) for value in found.fields.values()] == [int, bool]


def test_a_call_without_its_reply_is_counted_and_is_no_attempt(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.ask("key", run="run", lock="lock")
        keep(ledger, "key", "scored")
        assert len(ledger.attempts("key", run="run")) == 1
        totals = ledger.totals("run")
        assert (totals.calls, totals.unanswered, totals.nano_usd) == (2, 1, 5)


def test_what_was_not_flushed_is_there_after_a_regular_end_only(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        keep(ledger, "key", "scored")
        with Ledger(tmp_path) as reader:
            assert reader.attempts("key", run="run") == []
            ledger.flush()
            assert len(reader.attempts("key", run="run")) == 1


def _write(bundle: Path, name: str) -> None:
    with Ledger(bundle) as ledger:
        _write_into(ledger, name)


def _write_into(ledger: Ledger, name: str) -> None:
    for number in range(100):
        keep(ledger, f"{name} {number}", "scored", run=name, nano_usd=number)
        ledger.flush()


def test_two_processes_write_one_ledger(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(tmp_path, name)) for name in ("one", "two")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    with Ledger(tmp_path) as ledger:
        assert ledger.spent("lock") == 2 * sum(range(100))
        assert [ledger.totals(name).calls for name in ("one", "two")] == [100, 100]


def test_a_full_disk_is_said_to_be_one(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
        ledger._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(OSError, match="No space left"):
            _write_into(ledger, "key")


def test_a_file_that_is_no_ledger_is_left_alone(tmp_path: Path) -> None:
    file = ledgers.path(tmp_path)
    file.parent.mkdir()
    file.write_bytes(b"this is not a database, and long enough to see that" * 10)
    before = file.read_bytes()
    with pytest.raises(Fault) as caught:
        Ledger(tmp_path)
    assert caught.value.code == "R0806"
    assert file.read_bytes() == before


def test_a_ledger_of_a_newer_epc_is_left_alone(tmp_path: Path) -> None:
    Ledger(tmp_path).__exit__(None, None, None)
    with sqlite3.connect(ledgers.path(tmp_path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(Fault, match="version 99") as caught:
        Ledger(tmp_path)
    assert caught.value.code == "R0806"
