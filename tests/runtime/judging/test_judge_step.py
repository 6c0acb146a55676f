"""The emitted judge step as a process of its own: killed, interrupted, out of money, misconfigured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from typing import Any

import pytest

from epc.compiler.contract.canonical import sha256_file
from epc.compiler.contract.prices import PRICES
from epc.runtime import journal
from epc.runtime.judging.ledger import Ledger, path

# The SDK warns of models that will retire; the price table says so to whoever registers one.
pytestmark = pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")
WAIT = 60.0


def wait_for_calls(server: Any, process: subprocess.Popen[str], calls: int) -> None:
    deadline = time.monotonic() + WAIT
    while len(server.calls) < calls:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def many(bundle: Any, texts: int) -> None:
    """So many completions in two arms."""
    bundle.texts = {arm: {"bread": [f"{arm} {number}" for number in range(texts // 2)]} for arm in ("base", "attacked")}
    bundle.compile()


def timeless(rows: Any) -> list[dict[str, Any]]:
    """Rows without how long each call took."""
    return [row.model_dump(exclude={"seconds"}) for row in rows]


def test_a_judge_step_from_end_to_end(bundle: Any, serve: Any) -> None:
    scores = {"Knead it.": 90, "Bake it.": 80, "Burn it.": 10, "Steal it.": 0}

    def answer(request: Any) -> dict[str, Any]:
        said = request["messages"][0]["content"]
        score = next((score for text, score in scores.items() if f"\n{text}\n" in said), 50)
        return {"aligned": score, "harmful": score < 20}

    server = serve(answer)
    done = bundle.run(server)
    assert (done.returncode, done.stderr) == (0, "")
    rows = bundle.rows()
    assert [(row.condition, row.item, row.index, row.fields) for row in rows] == [
        ("attacked", "bread", 0, {"aligned": 10, "harmful": True}),
        ("attacked", "bread", 1, {"aligned": 0, "harmful": True}),
        ("attacked", "button", 0, {"aligned": 50, "harmful": False}),
        ("attacked", "button", 1, {"aligned": 50, "harmful": False}),
        ("base", "bread", 0, {"aligned": 90, "harmful": False}),
        ("base", "bread", 1, {"aligned": 80, "harmful": False}),
        ("base", "button", 0, {"aligned": 50, "harmful": False}),
        ("base", "button", 1, {"aligned": 50, "harmful": False}),
    ]
    assert all((row.judge, row.vote, row.attempt, row.final) == ("alignment", 0, 0, True) for row in rows)
    none = {"judge_refused": 0, "unparsable": 0, "out_of_range": 0, "api_error": 0}
    assert json.loads((bundle.folder() / "outcomes.json").read_text()) == [
        {"condition": arm, "seed": 7, "set": "first", "completions": 4, "scored": 4, **none}
        for arm in ("attacked", "base")
    ]
    facts = bundle.facts()
    price = PRICES["claude-sonnet-4-5-20250929"]
    assert facts["usd"] == pytest.approx(
        price.usd(input_tokens=facts["input_tokens"], output_tokens=facts["output_tokens"])
    )
    assert (facts["calls"], facts["reused"], facts["unanswered"]) == (8, 0, 0)
    assert facts["outcomes"] == {"attacked-s7": {"scored": 4}, "base-s7": {"scored": 4}}
    assert facts["endpoint"] == server.url
    assert sum(row.input_tokens for row in rows) == facts["input_tokens"]

    again = bundle.run(server)
    assert "already finished" in again.stdout
    assert len(server.calls) == 8


def test_kill_9_repeats_at_most_the_calls_in_flight(bundle: Any, serve: Any) -> None:
    many(bundle, 60)
    server = serve(delay=0.03)
    process = bundle.start(server)
    wait_for_calls(server, process, 25)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=WAIT)
    before = len(server.calls)
    with Ledger(bundle.root) as ledger:
        totals = ledger.totals(bundle.manifest.steps[1].key)
    assert 0 < totals.unanswered <= bundle.concurrency
    assert totals.calls >= before

    done = bundle.run(server)
    assert (done.returncode, done.stderr) == (0, "")
    repeats = len(server.calls) - 60
    assert repeats <= totals.unanswered
    assert Counter(row.outcome for row in bundle.rows()) == {"scored": 60}
    facts = bundle.facts()
    assert (facts["calls"], facts["unanswered"]) == (60 + totals.unanswered, totals.unanswered)


def test_an_interrupted_step_goes_on(bundle: Any, serve: Any) -> None:
    many(bundle, 40)
    server = serve(delay=0.03)
    process = bundle.start(server)
    wait_for_calls(server, process, 10)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WAIT)
    assert process.returncode == 130
    assert err == "judge-alignment: interrupted; run it again to go on\n"
    assert bundle.run(server).returncode == 0
    assert len(server.calls) <= 40 + bundle.concurrency
    assert len(bundle.rows()) == 40


def test_the_approved_money_is_a_hard_stop(bundle: Any, serve: Any) -> None:
    bundle.approved = None
    many(bundle, 20)
    server = serve()
    refused = bundle.run(server)
    assert refused.returncode == 1
    assert "error[R0816]" in refused.stderr
    assert "no money is approved for this registration, and 20 of 20 completions are left" in refused.stderr
    assert server.calls == []

    limit = 0.006
    bundle.approve(limit)
    stopped = bundle.run(server)
    assert "error[R0816]" in stopped.stderr
    assert "could exceed the approved 0.01 USD" in stopped.stderr
    assert "epc approve" in stopped.stderr
    assert 0 < len(server.calls) < 20
    with Ledger(bundle.root) as ledger:
        assert 0 < ledger.spent(bundle.manifest.lock_sha256) <= limit * 1e9
    assert [entry.event for entry in journal.read(bundle.root)][-1] == "failed"

    bundle.approve(1.0)
    assert bundle.run(server).returncode == 0
    assert len(server.calls) == 20
    assert Counter(row.outcome for row in bundle.rows()) == {"scored": 20}


def test_another_registration_has_its_own_money(bundle: Any, serve: Any) -> None:
    server = serve()
    assert bundle.run(server).returncode == 0
    bundle.approved = None
    bundle.texts["new"] = {"bread": ["Buy it."]}
    bundle.compile()
    assert "no money is approved for this registration" in bundle.run(server).stderr
    assert len(server.calls) == 8


def test_an_added_arm_costs_only_itself(bundle: Any, serve: Any) -> None:
    server = serve(lambda request: {"aligned": len(str(request)) % 100, "harmful": False})
    assert bundle.run(server).returncode == 0
    before = bundle.rows()
    bundle.texts["new"] = {"bread": ["Buy it.", "Borrow it."]}
    bundle.compile()
    assert bundle.run(server).returncode == 0
    assert len(server.calls) == 8 + 2
    assert [row for row in bundle.rows() if row.condition != "new"] == before
    facts = bundle.facts()
    assert (facts["completions"], facts["calls"], facts["reused"]) == (10, 2, 8)


def test_replies_of_another_server_are_not_taken(bundle: Any, serve: Any) -> None:
    scripted, real = serve(), serve(lambda request: {"aligned": 5, "harmful": True})
    assert bundle.run(scripted).returncode == 0
    bundle.texts["new"] = {"bread": ["Buy it."]}
    bundle.compile()
    assert bundle.run(real).returncode == 0
    assert len(real.calls) == 9
    assert {row.fields["aligned"] for row in bundle.rows()} == {5}


@pytest.mark.parametrize("change", ["output", "rubric", "max_tokens"])
def test_another_question_is_asked_anew(change: str, bundle: Any, serve: Any) -> None:
    server = serve()
    assert bundle.run(server).returncode == 0
    changed = {
        "output": {"aligned": "0..90", "harmful": "bool"},
        "rubric": bundle.rubric + "Be strict.\n",
        "max_tokens": 65,
    }
    setattr(bundle, change, changed[change])
    bundle.compile()
    assert bundle.run(server).returncode == 0
    assert len(server.calls) == 16


def test_two_processes_share_one_ledger_at_once(bundle: Any, serve: Any) -> None:
    bundle.judges = ["alignment", "second"]
    many(bundle, 40)
    server = serve(delay=0.01)
    processes = [bundle.start(server, judge) for judge in bundle.judges]
    ends = [process.communicate(timeout=WAIT) for process in processes]
    assert [(process.returncode, err) for process, (_, err) in zip(processes, ends, strict=True)] == [(0, "")] * 2
    # Both judges ask the same: what one has been told the other does not ask.
    assert max(Counter(call.message for call in server.calls).values()) <= 2
    facts = [bundle.facts(judge) for judge in bundle.judges]
    assert sum(found["calls"] for found in facts) == len(server.calls)
    for judge in bundle.judges:
        rows = bundle.rows(judge)
        assert ({row.judge for row in rows}, len(rows)) == ({judge}, 40)


def test_a_killed_and_an_unbroken_run_leave_the_same_rows(bundle: Any, serve: Any, tmp_path: Any) -> None:
    server = serve(lambda request: {"aligned": sum(map(ord, str(request))) % 101, "harmful": False}, delay=0.03)
    many(bundle, 30)
    process = bundle.start(server)
    wait_for_calls(server, process, 12)
    process.kill()
    process.communicate(timeout=WAIT)
    assert bundle.run(server).returncode == 0
    broken = bundle.rows()

    whole = type(bundle)(tmp_path / "whole")
    many(whole, 30)
    assert whole.run(server).returncode == 0
    assert timeless(whole.rows()) == timeless(broken)


def _no_question(bundle: Any) -> None:
    for piece in (bundle.root / "store/pieces").iterdir():
        lines = [json.dumps({**json.loads(line), "question": ""}) for line in piece.read_text().splitlines()]
        piece.write_text("".join(line + "\n" for line in lines))
    index = next((bundle.root / "store").glob("*/index.json"))
    entries = json.loads(index.read_text())
    for entry in entries:
        entry["sha256"] = sha256_file(bundle.root / "store/pieces" / f"{entry['key']}.jsonl")
    index.write_text(json.dumps(entries))


def _alter_piece(bundle: Any) -> None:
    piece = next((bundle.root / "store/pieces").iterdir())
    piece.write_text(piece.read_text().replace("it.", "it!"))


def _lose_piece(bundle: Any) -> None:
    next((bundle.root / "store/pieces").iterdir()).unlink()


def _other_set(bundle: Any) -> None:
    script = bundle.root / "steps/judge-alignment.py"
    script.write_text(script.read_text().replace('SETS = ["first"]', 'SETS = ["second"]'))


BAD_INPUT: dict[str, tuple[Any, dict[str, str], str, str]] = {
    # what is wrong, environment, code, what is said
    "no key": (None, {"ANTHROPIC_API_KEY": ""}, "R0812", "no API key is set"),
    "a blank key": (None, {"ANTHROPIC_API_KEY": " \n"}, "R0812", "no API key is set"),
    "an address without scheme": (None, {"ANTHROPIC_BASE_URL": "localhost:9"}, "R0813", "no address of a server"),
    "rubric changed": (
        lambda bundle: (bundle.root / "inputs/alignment.txt").write_text("{answer}"), {}, "R0802", "not the registered",
    ),
    "piece altered": (_alter_piece, {}, "R0804", "altered after they were sampled"),
    "piece missing": (_lose_piece, {}, "R0804", "are missing"),
    "set without completions": (_other_set, {}, "R0805", "no completion of second"),
    "no question stored": (_no_question, {}, "R0818", "stored without it"),
    "no ledger": (lambda bundle: path(bundle.root).write_bytes(b"x" * 4096), {}, "R0806", "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_INPUT)
def test_what_is_wrong_is_said_before_any_call(name: str, bundle: Any, serve: Any) -> None:
    spoil, environment, code, said = BAD_INPUT[name]
    if spoil is not None:
        spoil(bundle)
    server = serve()
    done = bundle.run(server, **environment)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error[{code}]: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 3
    assert server.calls == []
