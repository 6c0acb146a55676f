"""What was asked and answered, kept as it happens, by several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from epc.compiler.contract.rows import Outcome
from epc.runtime.errors import Fault
from epc.runtime.judging import ledger as ledgers
from epc.runtime.judging.ledger import NANO, Ledger
from epc.runtime.judging.replies import Typed

ROOT = Path(__file__).parents[3]
URL = "https://api.example"
WAIT = 60.0
KEYS = 300


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


def test_what_is_spent_counts_what_is_not_flushed_and_what_others_spend(tmp_path: Path) -> None:
    with Ledger(tmp_path) as one, Ledger(tmp_path) as two:
        keep(one, "a", "scored", nano_usd=3)
        keep(one, "b", "scored", nano_usd=4)
        assert (one.spent("lock"), one.spent("another"), two.spent("lock")) == (7, 0, 0)
        one.flush()
        assert (one.spent("lock"), two.spent("lock")) == (7, 7)
        keep(two, "c", "scored", nano_usd=10)
        assert two.spent("lock") == 17
        two.flush()
        made = two.intend({"x": 50}, run="two", lock="lock", endpoint=URL, limit=NANO)
        assert made is not None
        keep(one, "d", "scored", nano_usd=1)
        assert (one.spent("lock"), one.reserved("lock")) == (18, 50)
        one.flush()
        two.void(made[0].number)
        keep(one, "e", "scored", nano_usd=1)
        assert (one.spent("lock"), one.reserved("lock")) == (19, 0)


def test_what_another_process_answers_between_a_look_and_a_claim_is_not_asked_again(tmp_path: Path) -> None:
    with Ledger(tmp_path) as one, Ledger(tmp_path) as two:
        call = one.ask("another key", run="one", lock="lock")
        assert one.attempts("key", run="one") == []
        one.answer(call, typed("scored"), lock="lock", nano_usd=1, seconds=0.1)
        one.flush()  # money, or a place within the rate limits, is waited for
        keep(two, "key", "scored", run="two")
        two.flush()
        assert one.claim("key", run="one", lock="lock") is None


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


def test_a_full_disk_is_said_to_be_one_and_costs_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        pages = ledger._db.execute("PRAGMA page_count").fetchone()[0]
        ledger._db.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(Fault) as caught:
            _write_into(ledger, "key")
    assert caught.value.code == "R0850"
    assert "every reply kept until then stays" in caught.value.remedy
    with Ledger(tmp_path) as ledger:
        kept = [name for number in range(100) for name in [f"key {number}"] if ledger.attempts(name, run="key")]
        assert kept == [f"key {number}" for number in range(len(kept))]
        assert 0 < len(kept) < 100
        assert ledger.spent("lock") == sum(range(len(kept)))


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


# The tables of version 1, and a file as it left them.
VERSION_1 = """
CREATE TABLE calls (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, run TEXT NOT NULL, lock TEXT NOT NULL, asked_at TEXT NOT NULL,
    seconds REAL, outcome TEXT, raw TEXT, fields TEXT, input_tokens INTEGER, output_tokens INTEGER, nano_usd INTEGER
);
CREATE INDEX calls_by_key ON calls (key);
CREATE TABLE spent (lock TEXT PRIMARY KEY, nano_usd INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO calls VALUES (1, 'a', 'run', 'lock', '2026-11-21T10:00:00Z', 0.25, 'unparsable', 'hm', '{}', 7, 2, 41);
INSERT INTO calls VALUES (2, 'a', 'run', 'lock', '2026-11-21T10:00:01Z', 0.5, 'scored', '{"a": 1}', '{"a": 1}', 7, 3, 51);
INSERT INTO calls VALUES (3, 'b', 'run', 'lock', '2026-11-21T10:00:02Z', NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO spent VALUES ('lock', 92);
PRAGMA user_version = 1;
"""


def _version_1(bundle: Path) -> None:
    file = ledgers.path(bundle)
    file.parent.mkdir()
    db = sqlite3.connect(file)
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(VERSION_1)
    db.close()


def test_a_ledger_of_version_1_is_read_and_written_on(tmp_path: Path) -> None:
    _version_1(tmp_path)
    for _ in range(2):  # upgraded, and then as it is
        with Ledger(tmp_path) as ledger:
            first, second = ledger.attempts("a", run="another")
            assert (first.typed.outcome, first.seconds, first.nano_usd, first.batch) == ("unparsable", 0.25, 41, None)
            assert second.typed == Typed(
                outcome="scored", fields={"a": 1}, raw='{"a": 1}', input_tokens=7, output_tokens=3
            )
            assert (ledger.totals("run").calls, ledger.totals("run").unanswered) == (3, 1)
            assert ledger.spent("lock") == 92
            assert ledger.reserved("lock") == 0
    with Ledger(tmp_path) as ledger:
        call = ledger.claim("b", run="run", lock="lock")  # whoever asked it then is gone
        assert call == 4
        cached = Typed(outcome="scored", fields={}, raw="", input_tokens=9, cache_write_tokens=5, cache_read_tokens=3)
        ledger.answer(call, cached, lock="lock", nano_usd=8, seconds=1.5)
        found = ledger.attempts("b", run="run")[-1]
        assert (found.typed, found.seconds, found.nano_usd) == (cached, 1.5, 8)
    with sqlite3.connect(ledgers.path(tmp_path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)


def _open(bundle: Path) -> None:
    Ledger(bundle).__exit__(None, None, None)


def test_of_several_processes_that_find_an_old_ledger_one_upgrades_it(tmp_path: Path) -> None:
    _version_1(tmp_path)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_open, args=(tmp_path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(WAIT)
    assert [process.exitcode for process in processes] == [0] * 4
    with Ledger(tmp_path) as ledger:
        assert ledger.totals("run").calls == 3


DAMAGE = {
    "the beginning is overwritten": lambda whole: b"\x00" * 100 + whole[100:],
    "a page is overwritten": lambda whole: whole[:4096] + b"\xff" * 4096 + whole[8192:],
    "the end is cut off": lambda whole: whole[: len(whole) // 2 + 100],
}


def _read_all(bundle: Path) -> None:
    with Ledger(bundle) as ledger:
        for number in range(100):
            ledger.attempts(f"key {number}", run="key")
        ledger.totals("key")


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_ledger_is_said_to_hold_paid_replies(name: str, tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        _write_into(ledger, "key")
    file = ledgers.path(tmp_path)
    file.write_bytes(DAMAGE[name](file.read_bytes()))
    before = file.read_bytes()
    with pytest.raises(Fault) as caught:
        _read_all(tmp_path)
    assert caught.value.code == "R0806"
    assert "is damaged" in caught.value.fact
    assert "holds paid replies, so do not delete it" in caught.value.remedy
    assert file.read_bytes() == before


def test_a_ledger_that_may_not_be_read_is_a_fault(tmp_path: Path) -> None:
    ledgers.path(tmp_path).mkdir(parents=True)
    with pytest.raises(Fault, match="cannot be used") as caught:
        Ledger(tmp_path)
    assert caught.value.code == "R0806"


def test_a_writer_that_does_not_let_go_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "BUSY_SECONDS", 0.05)
    with Ledger(tmp_path) as one, Ledger(tmp_path) as two:
        one.ask("key", run="run", lock="lock")
        with pytest.raises(Fault, match="another process") as caught:
            two.ask("other", run="run", lock="lock")
        assert caught.value.code == "R0851"


def test_what_one_process_awaits_no_other_asks(tmp_path: Path) -> None:
    with Ledger(tmp_path) as one, Ledger(tmp_path) as two:
        call = one.claim("key", run="one", lock="lock")
        assert call is not None
        one.flush()
        assert two.claim("key", run="two", lock="lock") is None
        assert two.in_flight("key")
        assert not two.in_flight("another")
        assert two.claim("another", run="two", lock="lock") is not None
        two.flush()
        one.answer(call, typed("unparsable"), lock="lock", nano_usd=1, seconds=0.1)
        one.flush()
        second = two.claim("key", run="two", lock="lock")  # a reply that cannot be read settles nothing
        assert second is not None
        two.answer(second, typed("scored"), lock="lock", nano_usd=1, seconds=0.1)
        two.flush()
        assert one.claim("key", run="one", lock="lock") is None  # answered meanwhile
        assert one.attempts("key", run="one")[-1].run == "two"


def test_what_a_process_that_ended_awaited_is_free(tmp_path: Path) -> None:
    with Ledger(tmp_path) as one:
        one.claim("key", run="run", lock="lock")
    with Ledger(tmp_path) as two:
        assert two.claim("key", run="run", lock="lock") is not None
    assert list((tmp_path / "store/ledger.owners").iterdir()) == []


BATCHES: dict[str, tuple[list[str], list[bool], int]] = {
    # what happens to a batch of x and y -> whether x, y, z are in flight for another process, nano USD reserved
    "nothing": ([], [True, True, False], 30),
    "created": (["created"], [True, True, False], 30),
    "one reply": (["created", "answer"], [False, True, False], 30),
    "closed": (["created", "answer", "close"], [False, False, False], 0),
    "void": (["void"], [False, False, False], 0),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_holds_its_requests_and_its_money(name: str, tmp_path: Path) -> None:
    happened, in_flight, reserved = BATCHES[name]
    with Ledger(tmp_path) as one:
        made = one.intend({"x": 10, "y": 20}, run="run", lock="lock", endpoint=URL, limit=10 * NANO)
        assert made is not None
        batch, keys = made
        assert (keys, batch.requests, batch.bound, batch.id, batch.endpoint) == (["x", "y"], 2, 30, None, URL)
        for what in happened:
            match what:
                case "created":
                    one.created(batch.number, "msgbatch_1")
                case "answer":
                    call = one.call_in(batch.number, "x")
                    assert call is not None
                    one.answer(call, typed("scored"), lock="lock", nano_usd=3, seconds=0.0)
                    one.flush()
                    assert one.call_in(batch.number, "x") is None
                    assert one.attempts("x", run="run")[0].batch == "msgbatch_1"
                case "close":
                    one.close_batch(batch.number)
                case "void":
                    one.void(batch.number)
        with Ledger(tmp_path) as two:
            assert [two.in_flight(key) for key in "xyz"] == in_flight
            assert two.reserved("lock") == reserved
            assert two.reserved("another lock") == 0
            assert not two.adopt(batch.number)  # the one who looks after it lives
            again = two.intend({"x": 1, "y": 1, "z": 1}, run="two", lock="lock", endpoint=URL, limit=10 * NANO)
            assert again is not None
            free = {key for key, held in zip("xyz", in_flight, strict=True) if not held}
            assert set(again[1]) == free - ({"x"} if "answer" in happened else set())
        assert one.adopt(batch.number) == (reserved > 0)


def test_a_batch_takes_what_the_money_suffices_for(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        keep(ledger, "a", "scored", nano_usd=10)

        def intended(limit: int, **bounds: int) -> list[str]:
            made = ledger.intend(bounds, run="run", lock="lock", endpoint=URL, limit=limit)
            return [] if made is None else made[1]

        assert intended(100, a=1, b=40, c=40, d=40) == ["b", "c"]
        assert intended(100, d=11) == []
        assert intended(100, d=10) == ["d"]
        assert ledger.reserved("lock") == 90


def test_a_batch_of_a_process_that_has_gone_is_taken_over_once(tmp_path: Path) -> None:
    with Ledger(tmp_path) as gone:
        made = gone.intend({"x": 10 * NANO}, run="run", lock="lock", endpoint=URL, limit=10 * NANO)
        assert made is not None
    number = made[0].number
    with Ledger(tmp_path) as one, Ledger(tmp_path) as two:
        with pytest.raises(Fault) as caught:
            two.claim("x", run="run", lock="lock")
        assert caught.value.code == "R0852"
        two.flush()
        assert one.adopt(number)
        assert not two.adopt(number)
        assert two.claim("x", run="run", lock="lock") is None
        assert [batch.number for batch in two.open_batches()] == [number]


def paid(bundle: Path) -> Counter[str]:
    """What a provider was asked for: a line a call, in a file beside the bundle."""
    file = bundle / "paid.txt"
    return Counter(file.read_text().split()) if file.exists() else Counter()


def judge(bundle: Path, *, name: str, keys: int, seconds: float) -> None:
    """Settle every key, one call at a time, as a judge step does."""
    with Ledger(bundle) as ledger, (bundle / "paid.txt").open("a") as provider:
        for number in range(keys) if name == "one" else reversed(range(keys)):
            key = f"key-{number}"
            while not ledger.attempts(key, run=name):
                call = ledger.claim(key, run=name, lock="lock")
                ledger.flush()
                if call is None:
                    time.sleep(seconds / 2)
                    continue
                print(key, file=provider, flush=True)
                time.sleep(seconds)
                ledger.answer(call, typed("scored", key), lock="lock", nano_usd=1, seconds=seconds)
        ledger.flush()


def _process(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.runtime.judging.test_ledger", *arguments]


def test_two_processes_ask_nothing_twice(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(_process("judge", str(tmp_path), name), cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for name in ("one", "two")
    ]
    for process in processes:
        _, err = process.communicate(timeout=WAIT)
        assert process.returncode == 0, err
    assert paid(tmp_path) == {f"key-{number}": 1 for number in range(KEYS)}
    with Ledger(tmp_path) as ledger:
        assert ledger.spent("lock") == KEYS
        assert min(ledger.totals(name).calls for name in ("one", "two")) > 0


@pytest.mark.parametrize("seed", [1, 2])
def test_kill_9_at_any_moment_repeats_at_most_the_call_in_flight(seed: int, tmp_path: Path) -> None:
    done = subprocess.run(
        _process("kill", str(tmp_path), str(seed)), cwd=ROOT, capture_output=True, text=True, timeout=2 * WAIT
    )
    assert done.returncode == 0, done.stderr
    kills = int(done.stdout)
    assert kills >= 5
    found = paid(tmp_path)
    with Ledger(tmp_path) as ledger:
        totals = ledger.totals("one")
        assert ledger.spent("lock") == KEYS
    assert len(found) == KEYS
    assert found.total() - KEYS <= totals.unanswered <= kills
    assert totals.calls == KEYS + totals.unanswered


def kill_until_it_is_done(bundle: Path, seed: int) -> int:
    """Kill -9 one process after another, each at a random moment, until one ends by itself; the number of kills."""
    draws = Random(seed)
    for kills in range(1000):
        child = os.fork()
        if child == 0:
            judge(bundle, name="one", keys=KEYS, seconds=0.002)
            os._exit(0)
        time.sleep(draws.uniform(0.0, 0.05 + 0.01 * kills))
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            if status:
                raise ChildProcessError(f"one ended with status {status}")
            return kills
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    raise TimeoutError


if __name__ == "__main__":
    if sys.argv[1] == "judge":
        folder, own = Path(sys.argv[2]), sys.argv[3]
        (folder / f"{own}.ready").touch()
        while not all((folder / f"{name}.ready").exists() for name in ("one", "two")):
            time.sleep(0.001)
        judge(folder, name=own, keys=KEYS, seconds=0.002)
    else:
        print(kill_until_it_is_done(Path(sys.argv[2]), int(sys.argv[3])))
