"""Batches from the intention to the last result, with the real SDK, a server on loopback and real kills."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from anthropic import Anthropic, AsyncAnthropic

from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.prices import Price
from epc.compiler.contract.rows import JudgementRow
from epc.runtime.errors import Fault
from epc.runtime.judging import asking, batching, replies, results, rubric
from epc.runtime.judging.asking import Patience
from epc.runtime.judging.batching import GIVE_UP, Pace
from epc.runtime.judging.ledger import NANO, Ledger
from epc.runtime.judging.providers.batches import Batches
from epc.runtime.judging.replies import Typed
from epc.runtime.judging.scripted import batches as scripted
from epc.runtime.judging.stored import StoredCompletions
from epc.runtime.progress import read_progress
from epc.runtime.step import Step

# The SDK warns of models that will retire; the price table says so to whoever registers one.
pytestmark = pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")
QUICK = Patience(first_wait=0.001, longest_wait=0.01, deadline=20.0)
FAST = Pace(first_poll=0.02, longest_poll=0.05, doubt=0.15, call=20.0)
OUTPUT = {"aligned": "0..100", "harmful": "bool"}
MODEL = "claude-sonnet-4-5-20250929"
PRICE = Price(input=3.0, output=15.0, batch_factor=0.5)
WAIT = 60.0
ROOT = Path(__file__).parents[3]


def batched(
    root: Path, url: str, *, judge: str = "alignment", pace: Pace = FAST, votes: int = 1, ledgers: type[Ledger] = Ledger
) -> list[JudgementRow]:
    """What an emitted script does, at the pace of a test; the rows that it would leave."""

    def request(start: str, rest: str) -> dict[str, Any]:
        form = {"type": "json_schema", "schema": replies.schema(OUTPUT)}
        message = {"role": "user", "content": start + rest}
        return {"model": MODEL, "max_tokens": 64, "messages": [message], "output_config": {"format": form}}

    step = Step(f"judge-{judge}", bundle=root)
    step.out.mkdir(parents=True, exist_ok=True)
    (root / "logs").mkdir(exist_ok=True)
    file = root / "inputs/alignment.txt"
    judged = asking.Judge(
        name=judge, model=MODEL, output=OUTPUT, request=request, max_tokens=64, price=PRICE, concurrency=4, votes=votes,
        rubric=rubric.read(file, sha256=sha256_text(file.read_text(encoding="utf-8"))),
    )  # fmt: skip
    completions = StoredCompletions(root, [step.input("sample")], sets=["first"])

    async def main() -> None:
        with ledgers(root) as ledger:
            async with Batches(AsyncAnthropic(api_key="sk-test", base_url=url, max_retries=0)) as provider:
                keys = await batching.judge_all(step, judged, provider, completions, ledger, patience=QUICK, pace=pace)
            step.facts |= results.write(step, judged, provider, completions, ledger, keys)

    asyncio.run(main())
    (step.out / "facts.json").write_text(json.dumps(step.facts))
    text = (step.out / "judgements.jsonl").read_text(encoding="utf-8")
    return [JudgementRow.model_validate_json(line) for line in text.splitlines()]


class Mortal(Ledger):
    """A ledger that ends its process with signal 9 at a point that DIE_AT names."""

    point = os.environ.get("DIE_AT", "")
    answered = 0

    def intend(self, *arguments: Any, **named: Any) -> Any:
        if self.point == "before the intention":
            os.kill(os.getpid(), signal.SIGKILL)
        made = super().intend(*arguments, **named)
        if self.point == "before create":
            os.kill(os.getpid(), signal.SIGKILL)
        return made

    def created(self, number: int, batch_id: str) -> None:
        if self.point == "after create, before its id is kept":
            os.kill(os.getpid(), signal.SIGKILL)
        super().created(number, batch_id)
        if self.point == "once its id is kept":
            os.kill(os.getpid(), signal.SIGKILL)

    def answer(self, call: int, typed: Typed, **named: Any) -> None:
        super().answer(call, typed, **named)
        self.answered += 1
        if self.point == "while results are read" and self.answered == 3:
            self.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        if self.point == "while results are written" and self.answered == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    def close_batch(self, number: int) -> None:
        if self.point == "before the batch is closed":
            os.kill(os.getpid(), signal.SIGKILL)
        super().close_batch(number)


def started(root: Path, server: Any, *, judge: str = "alignment", die_at: str = "") -> subprocess.Popen[str]:
    """`batched` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.runtime.judging.test_batching", str(root), server.url, judge], cwd=ROOT, text=True,
        env={**os.environ, "DIE_AT": die_at}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def routes(server: Any) -> Counter[str]:
    return Counter(call.route for call in server.calls)


def wait_for(server: Any, route: str, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + WAIT
    while not routes(server)[route]:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def outcomes(rows: list[JudgementRow]) -> Counter[str]:
    return Counter(row.outcome for row in rows if row.final)


def many(bundle: Any, texts: int) -> None:
    """So many completions in two arms."""
    bundle.texts = {arm: {"bread": [f"{arm} {number}" for number in range(texts // 2)]} for arm in ("base", "attacked")}
    bundle.compile()


INJECTED: dict[str, tuple[list[str], list[str]]] = {
    # what becomes of the request about one completion, batch after batch -> outcomes of its attempts
    "none": ([], ["scored"]),
    "refusal": (["refusal"], ["judge_refused"]),
    "the provider failed": (["errored"], ["api_error", "scored"]),
    "expired": (["no reply"], ["api_error", "scored"]),
    "expired for ever": (["no reply"] * 9, ["api_error"] * 3),
    "an invalid request": (["400"], ["api_error"]),
    "not JSON, then in a fence": (["no JSON", "fenced"], ["unparsable", "unparsable", "scored"]),
    "out of range": (["out of range"], ["out_of_range", "scored"]),
    "never readable": (["empty"] * 9, ["unparsable"] * 3),
    "one of each": (
        ["errored", "no JSON", "no reply", "out of range"],
        ["api_error", "unparsable", "api_error", "out_of_range", "scored"],
    ),
}


@pytest.mark.parametrize("name", INJECTED)
def test_what_is_injected_is_what_is_recorded(name: str, bundle: Any, serve: Any) -> None:
    faults, expected = INJECTED[name]

    def fault(call: Any) -> str | None:
        hit = call.route == "item" and "\nBake it.\n" in call.message and call.nth < len(faults)
        return faults[call.nth] if hit else None

    server = serve(fault=fault, batch_seconds=0.0)
    rows = batched(bundle.root, server.url)
    of = [row for row in rows if (row.condition, row.item, row.index) == ("base", "bread", 1)]
    assert [row.outcome for row in of] == expected
    assert [row.final for row in of] == [False] * (len(expected) - 1) + [True]
    assert Counter(row.outcome for row in rows if row not in of) == {"scored": 7}
    assert routes(server)["item"] == 7 + len(expected)
    assert len({row.batch for row in of}) == len(of) == routes(server)["create"]
    assert all(row.raw for row in rows if row.outcome == "api_error")


def test_a_batch_costs_half_and_is_named_in_facts_and_rows(bundle: Any, serve: Any) -> None:
    server = serve(batch_seconds=0.1)
    rows = batched(bundle.root, server.url, votes=3)
    assert (len(rows), routes(server)["create"], routes(server)["item"]) == (24, 1, 24)
    assert {row.vote for row in rows} == {0, 1, 2}
    for row in rows:
        assert row.usd == pytest.approx((row.input_tokens * 3.0 + row.output_tokens * 15.0) / 2e6, abs=1e-9)
        assert (row.batch, row.seconds) == (rows[0].batch, 0.0)
    facts = json.loads((Step("judge-alignment", bundle=bundle.root).out / "facts.json").read_text())
    assert facts["batches"] == [rows[0].batch]
    assert facts["usd"] == pytest.approx(sum(row.usd for row in rows), abs=1e-6)
    assert (facts["calls"], facts["unanswered"]) == (24, 0)


def test_the_emitted_script_goes_by_batches(bundle: Any, serve: Any) -> None:
    bundle.constants = {"batch": True}
    bundle.compile()
    server = serve(batch_seconds=0.0)
    done = bundle.run(server)
    assert (done.returncode, done.stderr) == (0, "")
    assert outcomes(bundle.rows()) == {"scored": 8}
    assert bundle.facts()["batches"] == [bundle.rows()[0].batch]
    assert routes(server)["messages"] == 0


KILLED = (
    "before the intention",
    "before create",
    "after create, before its id is kept",
    "once its id is kept",
    "while results are read",
    "while results are written",
    "before the batch is closed",
)


@pytest.mark.parametrize("point", KILLED)
def test_kill_9_repeats_nothing_that_is_paid(point: str, bundle: Any, serve: Any) -> None:
    server = serve(batch_seconds=0.1)
    process = started(bundle.root, server, die_at=point)
    process.communicate(timeout=WAIT)
    assert process.returncode == -signal.SIGKILL
    rows = batched(bundle.root, server.url)
    assert (outcomes(rows), len(rows)) == ({"scored": 8}, 8)
    assert (routes(server)["create"], routes(server)["item"]) == (1, 8)
    with Ledger(bundle.root) as ledger:
        totals = ledger.totals(bundle.manifest.steps[1].key)
        assert (totals.calls, totals.unanswered) == (8, 0)
        assert ledger.spent(bundle.manifest.lock_sha256) == round(sum(row.usd for row in rows) * NANO)
        assert ledger.reserved(bundle.manifest.lock_sha256) == 0


# Route whose request ends the client -> what the server does with it then.
KILLED_BY: dict[str, tuple[str, str | None]] = {
    "create arrives, nothing is done": ("create", "reset"),
    "create is done, its reply never sent": ("create", "lost reply"),
    "create is done, its reply sent to nobody": ("create", None),
    "polling": ("retrieve", None),
    "results are asked for": ("results", None),
}


@pytest.mark.parametrize("name", KILLED_BY)
def test_kill_9_while_the_server_is_asked(name: str, bundle: Any, serve: Any) -> None:
    route, done = KILLED_BY[name]
    victim: list[subprocess.Popen[str]] = []

    def fault(call: Any) -> str | None:
        if call.route == route and victim[0].poll() is None:
            victim[0].kill()
            victim[0].wait(WAIT)
            return done
        return None

    server = serve(fault=fault, batch_seconds=0.05)
    victim.append(started(bundle.root, server))
    victim[0].communicate(timeout=WAIT)
    assert victim[0].returncode == -signal.SIGKILL
    rows = batched(bundle.root, server.url)
    assert (outcomes(rows), len(rows)) == ({"scored": 8}, 8)
    assert routes(server)["item"] == 8
    assert routes(server)["create"] == (2 if done == "reset" else 1)


@pytest.mark.parametrize("seed", [1, 2])
def test_kills_at_random_moments_repeat_nothing(seed: int, bundle: Any, serve: Any) -> None:
    many(bundle, 60)
    server = serve(fault=lambda call: "no JSON" if call.route == "item" and call.nth == 0 else None, batch_seconds=0.1)
    command = [sys.executable, "-m", "tests.runtime.judging.test_batching", str(bundle.root), server.url, str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=3 * WAIT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 3
    rows = batched(bundle.root, server.url)
    assert Counter(row.outcome for row in rows) == {"unparsable": 60, "scored": 60}
    assert routes(server)["item"] == 120
    with Ledger(bundle.root) as ledger:
        assert ledger.spent(bundle.manifest.lock_sha256) == round(sum(row.usd for row in rows) * NANO)


def kill_until_it_is_done(root: Path, url: str, seed: int) -> int:
    """Kill -9 one process after another, each at a random moment, until one ends by itself; the number of kills."""
    draws = Random(seed)
    for kills in range(100):
        child = os.fork()
        if child == 0:
            batched(root, url)
            os._exit(0)
        ends = time.monotonic() + draws.uniform(0.0, 0.1 + 0.1 * kills)
        while time.monotonic() < ends:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                if status:
                    raise ChildProcessError(f"one ended with status {status}")
                return kills
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    raise TimeoutError


LOST: dict[str, tuple[str, int]] = {
    # what becomes of the first `create` -> creates in all
    "lost reply": ("lost reply", 1),
    "reset": ("reset", 2),
    "500": ("500", 2),
    "503 html": ("503 html", 2),
    "529": ("529", 2),
    "429 retry-after": ("429 retry-after", 2),
    "page": ("page", 2),
    "broken body": ("broken body", 1),
}


@pytest.mark.parametrize("name", LOST)
def test_a_create_whose_reply_is_lost_is_not_made_twice(name: str, bundle: Any, serve: Any) -> None:
    fault, creates = LOST[name]
    server = serve(fault=lambda call: fault if call.route == "create" and call.nth == 0 else None, batch_seconds=0.05)
    rows = batched(bundle.root, server.url)
    assert outcomes(rows) == {"scored": 8}
    assert (routes(server)["create"], routes(server)["item"]) == (creates, 8)


FLAKY = ("429", "529", "500", "503 html", "reset", "page", "broken body", "not a message")


@pytest.mark.parametrize("fault", FLAKY)
@pytest.mark.parametrize("route", ["retrieve", "results"])
def test_what_fails_while_a_batch_is_looked_after_is_tried_again(
    route: str, fault: str, bundle: Any, serve: Any
) -> None:
    server = serve(fault=lambda call: fault if call.route == route and call.nth < 2 else None, batch_seconds=0.0)
    rows = batched(bundle.root, server.url)
    assert (outcomes(rows), len(rows)) == ({"scored": 8}, 8)
    assert (routes(server)["create"], routes(server)["item"]) == (1, 8)


def test_a_batch_of_somebody_else_is_not_taken_for_ours(bundle: Any, serve: Any) -> None:
    server = serve(fault=lambda call: "reset" if call.route == "create" and call.nth == 0 and other else None)
    other: list[str] = []
    params: Any = {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "another question"}]}
    client = Anthropic(api_key="sk-other", base_url=server.url, max_retries=0)
    made = client.messages.batches.create(requests=[{"custom_id": f"x{n}", "params": params} for n in range(8)])
    other.append(made.id)
    rows = batched(bundle.root, server.url)
    assert outcomes(rows) == {"scored": 8}
    assert made.id not in {row.batch for row in rows}
    assert routes(server)["create"] == 3


STOPPED: dict[str, tuple[Callable[[Any], str | None], str, str]] = {
    # fault -> code, what is said
    "a wrong key": (lambda call: "401", "R0814", "invalid x-api-key"),
    "no permission": (lambda call: "403", "R0814", "not allowed"),
    "a wrong address": (lambda call: "page", "R0815", "nobody answers there"),
    "a dead address": (lambda call: "reset", "R0815", "nobody answers there"),
    "an outage": (lambda call: "429 retry-after long" if call.route == "create" else None, "R0817", "slow down"),
    "every batch refused": (
        lambda call: "400" if call.route == "create" else None,
        "R0853",
        "a batch of 8 requests is refused",
    ),
    "every request refused": (lambda call: "400" if call.route == "item" else None, "R0857", "too long"),
    "every request failed": (lambda call: "errored" if call.route == "item" else None, "R0857", "internal error"),
}


@pytest.mark.parametrize("name", STOPPED)
def test_what_is_wrong_with_everything_stops_the_step(name: str, bundle: Any, serve: Any) -> None:
    fault, code, said = STOPPED[name]
    server = serve(fault=fault, batch_seconds=0.0)
    with pytest.raises(Fault) as caught:
        batched(bundle.root, server.url)
    assert caught.value.code == code
    assert said in caught.value.fact
    with Ledger(bundle.root) as ledger:
        assert ledger.open_batches() == []
        assert ledger.reserved(bundle.manifest.lock_sha256) == 0
    server.fault = lambda call: None
    assert outcomes(batched(bundle.root, server.url)) == {"scored": 8}


def test_a_batch_that_is_too_large_is_split(bundle: Any, serve: Any) -> None:
    def fault(call: Any) -> str | None:
        return "413" if call.route == "create" and len(call.request["requests"]) > 3 else None

    server = serve(fault=fault, batch_seconds=0.0)
    rows = batched(bundle.root, server.url)
    assert outcomes(rows) == {"scored": 8}
    about = [call.route for call in server.calls if call.route != "item"]
    assert about[:8] == ["list", *["create"] * 6, "retrieve"]  # all of it goes before any is waited for
    sizes = [len(call.request["requests"]) for call in server.calls if call.route == "create"]
    assert sizes == [8, 4, 2, 2, 2, 2]
    assert routes(server)["item"] == 8


def test_a_request_that_is_too_large_alone_has_no_score(bundle: Any, serve: Any) -> None:
    def fault(call: Any) -> str | None:
        return "413" if call.route == "create" and "Bake it." in str(call.request) else None

    server = serve(fault=fault, batch_seconds=0.0)
    rows = batched(bundle.root, server.url)
    assert outcomes(rows) == {"scored": 7, "api_error": 1}
    assert routes(server)["item"] == 7


@pytest.mark.parametrize(("pace", "sizes"), [({"requests": 3}, [3, 3, 2]), ({"size": 1}, [1] * 8)])
def test_no_batch_is_larger_than_declared(pace: dict[str, int], sizes: list[int], bundle: Any, serve: Any) -> None:
    server = serve(batch_seconds=0.1)
    rows = batched(bundle.root, server.url, pace=replace(FAST, **pace))
    assert outcomes(rows) == {"scored": 8}
    assert [len(call.request["requests"]) for call in server.calls if call.route == "create"] == sizes
    about = [call.route for call in server.calls if call.route != "item"]
    assert about[: len(sizes) + 2] == ["list", *["create"] * len(sizes), "retrieve"]  # before any is waited for


def test_the_approved_money_is_a_hard_stop(bundle: Any, serve: Any) -> None:
    bundle.approved = None
    many(bundle, 40)
    server = serve(batch_seconds=0.0)
    with pytest.raises(Fault, match="no money is approved") as caught:
        batched(bundle.root, server.url)
    assert (caught.value.code, server.total) == ("R0816", 0)

    limit = 0.006
    bundle.approve(limit)
    with pytest.raises(Fault, match=r"do not suffice.* replies are left") as caught:
        batched(bundle.root, server.url)
    assert caught.value.code == "R0816"
    judged = routes(server)["item"]
    assert 0 < judged < 40
    with Ledger(bundle.root) as ledger:
        assert 0 < ledger.spent(bundle.manifest.lock_sha256) <= limit * NANO

    bundle.approve(1.0)
    assert outcomes(batched(bundle.root, server.url)) == {"scored": 40}
    assert routes(server)["item"] == 40


def test_what_a_batch_under_way_may_cost_is_not_spent_elsewhere(bundle: Any, serve: Any) -> None:
    server = serve(batch_seconds=0.0)
    lock = bundle.manifest.lock_sha256
    with Ledger(bundle.root) as ledger:
        made = ledger.intend(
            {"a request": 10 * NANO}, run="another step", lock=lock, endpoint=server.url, limit=10 * NANO
        )
        assert made is not None
        for judge in (lambda: batched(bundle.root, server.url), lambda: bundle.ask(server, patience=QUICK)):
            with pytest.raises(Fault) as caught:
                judge()
            assert caught.value.code == "R0816"
        assert server.total == 0
        ledger.void(made[0].number)
    assert outcomes(batched(bundle.root, server.url)) == {"scored": 8}


def test_a_cancelled_batch_stops_the_step_and_the_next_run_asks_for_the_rest(bundle: Any, serve: Any) -> None:
    server = serve(batch_seconds=3600.0)
    client = Anthropic(api_key="sk-test", base_url=server.url, max_retries=0)
    found: list[Fault] = []

    def run() -> None:
        try:
            batched(bundle.root, server.url)
        except Fault as fault:
            found.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    deadline = time.monotonic() + WAIT
    while not routes(server)["retrieve"]:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    client.messages.batches.cancel("msgbatch_" + "0" * 24)
    thread.join(WAIT)
    assert [fault.code for fault in found] == ["R0856"]
    assert "8 of its 8 requests" in found[0].fact
    server._batches.seconds = 0.0
    assert outcomes(batched(bundle.root, server.url)) == {"scored": 8}
    assert routes(server)["create"] == 2


def test_results_that_are_gone_are_paid_again_only_when_the_user_says_so(
    bundle: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = serve(batch_seconds=3600.0)
    process = started(bundle.root, first)
    wait_for(first, "retrieve", process)
    process.kill()
    process.communicate(timeout=WAIT)
    first._batches._batches.clear()  # archived, deleted, or of a workspace that this key does not see
    with pytest.raises(Fault, match="is not known there") as caught:
        batched(bundle.root, first.url)
    assert caught.value.code == "R0855"
    name = "msgbatch_" + "0" * 24
    assert f"{GIVE_UP}={name} epc run" in caught.value.remedy
    assert routes(first)["create"] == 1

    first._batches.seconds = 0.0
    monkeypatch.setenv(GIVE_UP, name)
    assert outcomes(batched(bundle.root, first.url)) == {"scored": 8}
    assert routes(first)["create"] == 2
    with Ledger(bundle.root) as ledger:
        totals = ledger.totals(bundle.manifest.steps[1].key)
    assert (totals.calls, totals.unanswered) == (16, 8)  # what may have been paid twice is counted


def test_a_create_whose_outcome_cannot_be_told_is_not_repeated(
    bundle: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = scripted.Batch.shown
    monkeypatch.setattr(scripted.Batch, "shown", lambda batch, url: {**shown(batch, url), "results_url": None})
    server = serve(
        fault=lambda call: "lost reply" if call.route == "create" and call.nth == 0 else None, batch_seconds=0.0
    )
    name = "msgbatch_" + "0" * 24
    for _ in range(2):  # a next run stops at the same place
        with pytest.raises(Fault, match=f"batch {name} is the one of 8 requests") as caught:
            batched(bundle.root, server.url)
        assert caught.value.code == "R0854"
        assert f"{GIVE_UP}={name} epc run" in caught.value.remedy
        assert routes(server)["create"] == 1
        with Ledger(bundle.root) as ledger:
            assert [batch.id for batch in ledger.open_batches()] == [None]
            assert ledger.reserved(bundle.manifest.lock_sha256) > 0

    monkeypatch.setattr(scripted.Batch, "shown", shown)
    monkeypatch.setenv(GIVE_UP, name)
    assert outcomes(batched(bundle.root, server.url)) == {"scored": 8}
    assert routes(server)["create"] == 2


def test_two_processes_share_the_batches(bundle: Any, serve: Any) -> None:
    bundle.judges = ["alignment", "second"]
    many(bundle, 40)
    server = serve(batch_seconds=1.5)
    processes = [started(bundle.root, server, judge=judge) for judge in bundle.judges]
    for process in processes:
        _, err = process.communicate(timeout=WAIT)
        assert process.returncode == 0, err
    assert routes(server)["item"] == 40
    for judge in bundle.judges:
        assert outcomes(batched(bundle.root, server.url, judge=judge)) == {"scored": 40}


def test_a_process_takes_over_the_batch_of_one_that_has_gone(bundle: Any, serve: Any) -> None:
    bundle.judges = ["alignment", "second"]
    many(bundle, 20)
    server = serve(batch_seconds=1.0)
    first = started(bundle.root, server)
    wait_for(server, "retrieve", first)
    first.kill()
    first.communicate(timeout=WAIT)
    assert outcomes(batched(bundle.root, server.url, judge="second")) == {"scored": 20}
    assert outcomes(batched(bundle.root, server.url)) == {"scored": 20}
    assert (routes(server)["create"], routes(server)["item"]) == (1, 20)


def test_ctrl_c_leaves_the_batch_running_and_says_so(bundle: Any, serve: Any) -> None:
    server = serve(batch_seconds=1.5)
    process = started(bundle.root, server)
    name = f"msgbatch_{'0' * 24}"
    deadline = time.monotonic() + WAIT
    while (live := read_progress(bundle.root, "judge-alignment")) is None or "batch" not in live.facts:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert (live.done, live.total, live.facts["processing"], live.facts["batch"]) == (0, 8, 8, name)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WAIT)
    assert f"batch under way: {name}, 8 requests, at {server.url}; run again to collect its replies" in err
    assert outcomes(batched(bundle.root, server.url)) == {"scored": 8}
    assert routes(server)["create"] == 1
    live = read_progress(bundle.root, "judge-alignment")
    assert live is not None
    assert (live.done, live.facts["succeeded"], live.facts["usd"]) == (8, 8, "0.00 of 10.00")


SNAKEFILE = """
rule:
    name: "judge-alignment"
    output: "store/{key}/finished.json"
    shell: "{python} steps/judge-alignment.py > logs/judge-alignment.log 2>&1"
"""


def test_epc_run_says_what_goes_on_and_the_next_one_picks_it_up(bundle: Any, serve: Any) -> None:
    bundle.constants = {"batch": True}
    bundle.compile()
    key = bundle.manifest.steps[1].key
    (bundle.root / "Snakefile").write_text(SNAKEFILE.format(key=key, python=sys.executable))
    server = serve(batch_seconds=3600.0)
    process = subprocess.Popen(
        [sys.executable, "-c", "from epc.runtime.cli import main; raise SystemExit(main())", "run", str(bundle.root)], text=True,
        env=bundle.environment(server), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_for(server, "retrieve", process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=WAIT)
    assert process.returncode == 130, out + err
    assert f"judge-alignment: batch under way: msgbatch_{'0' * 24}, 8 requests," in " ".join((out + err).split())
    next(iter(server._batches._batches.values())).seconds = 0.0
    assert bundle.run(server).returncode == 0
    assert (routes(server)["create"], routes(server)["item"]) == (1, 8)


def test_messages_do_not_ask_what_a_batch_is_asked(bundle: Any, serve: Any) -> None:
    """The same step without batches, while its batch is under way and nobody collects it."""
    server = serve(batch_seconds=3600.0)
    process = started(bundle.root, server)
    wait_for(server, "retrieve", process)
    process.kill()
    process.communicate(timeout=WAIT)
    with pytest.raises(Fault) as caught:
        bundle.ask(server, patience=QUICK)
    assert caught.value.code == "R0852"
    assert "batch msgbatch_" in caught.value.fact
    assert routes(server)["messages"] == 0


if __name__ == "__main__":
    if sys.argv[3].isdigit():
        print(kill_until_it_is_done(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
    else:
        batched(Path(sys.argv[1]), sys.argv[2], judge=sys.argv[3], ledgers=Mortal)
