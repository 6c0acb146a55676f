"""Several votes about each completion, and the prompt cache: asked, kept, paid and counted."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from epc.runtime.judging.asking import Patience
from epc.runtime.judging.ledger import Ledger
from epc.runtime.judging.rubric import Rubric

# The SDK warns of models that will retire; the price table says so to whoever registers one.
pytestmark = pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")
QUICK = Patience(first_wait=0.001, longest_wait=0.01, deadline=30.0)


def voting(bundle: Any, votes: int, **more: Any) -> None:
    bundle.constants = {"votes": votes, "aggregate": "median" if votes > 1 else None, **more}
    bundle.compile()


class Fickle:
    """Another score each time the same is asked: 10, 20, 30."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def __call__(self, request: Any) -> dict[str, Any]:
        said = json.dumps(request["messages"])
        self.seen[said] += 1
        return {"aligned": 10 * self.seen[said], "harmful": False}


def test_every_vote_about_every_completion_is_asked_once(bundle: Any, serve: Any) -> None:
    voting(bundle, 3)
    server = serve(Fickle())
    done = bundle.run(server)
    assert (done.returncode, done.stderr) == (0, "")
    rows = bundle.rows()
    assert [(row.item, row.index, row.vote) for row in rows if row.condition == "base"] == [
        (item, index, vote) for item in ("bread", "button") for index in (0, 1) for vote in range(3)
    ]
    votes = [sorted(row.fields["aligned"] for row in rows[start : start + 3]) for start in range(0, 24, 3)]
    assert votes == [[10, 20, 30]] * 8
    assert all((row.attempt, row.final) == (0, True) for row in rows)
    assert server.total == 24
    facts = bundle.facts()
    assert (facts["completions"], facts["votes"], facts["calls"], facts["reused"]) == (8, 3, 24, 0)
    assert facts["outcomes"] == {"attacked-s7": {"scored": 4}, "base-s7": {"scored": 4}}
    assert 0 < facts["seconds_p50"] <= facts["seconds_p95"]


def test_the_votes_of_a_completion_are_far_apart(bundle: Any, serve: Any) -> None:
    bundle.concurrency = 1
    voting(bundle, 2)
    server = serve()
    bundle.ask(server, patience=QUICK)
    messages = [call.message for call in server.calls]
    assert sorted(messages[:8]) == sorted(messages[8:])
    assert len(set(messages[:8])) == 8
    assert messages[:8] != messages[8:]


def test_more_votes_cost_only_themselves(bundle: Any, serve: Any) -> None:
    server = serve(Fickle())
    voting(bundle, 1)
    assert bundle.run(server).returncode == 0
    first = bundle.rows()
    voting(bundle, 3)
    assert bundle.run(server).returncode == 0
    assert server.total == 24
    assert [row for row in bundle.rows() if row.vote == 0] == first
    facts = bundle.facts()
    assert (facts["calls"], facts["reused"]) == (16, 8)


def test_equal_completions_share_their_votes(bundle: Any, serve: Any) -> None:
    bundle.texts = {arm: {"bread": ["I cannot help."] * 3} for arm in ("base", "attacked")}
    voting(bundle, 2)
    server = serve(Fickle())
    rows = bundle.ask(server, patience=QUICK)
    assert server.total == 2
    assert [(row.vote, row.fields["aligned"]) for row in rows] == [(0, 10), (1, 20)] * 6


def test_a_vote_that_fails_is_counted_with_its_completion(bundle: Any, serve: Any) -> None:
    voting(bundle, 3)
    target = bundle.last_asked()
    asked: Counter[str] = Counter()

    def fault(call: Any) -> str | None:
        if f"\n{target}\n" not in call.message:
            return None
        asked["target"] += 1
        return "refusal" if asked["target"] == 2 else "no JSON" if asked["target"] > 2 else None

    server = serve(fault=fault)
    rows = bundle.ask(server, patience=QUICK)
    ends = [row.outcome for row in rows if row.final and row.outcome != "scored"]
    assert ends == ["judge_refused", "unparsable"]
    assert sum(row.final for row in rows) == 24
    counted = json.loads((bundle.folder().with_suffix(".partial") / "outcomes.json").read_text())
    assert sum(entry["completions"] for entry in counted) == 8
    assert sum(entry["judge_refused"] for entry in counted) == 1
    assert sum(entry["unparsable"] for entry in counted) == 0


def test_the_money_stops_votes_and_keeps_them(bundle: Any, serve: Any) -> None:
    bundle.approved = None
    bundle.texts = {arm: {"bread": ["Mix it.", "Eat it.", "Sell it.", "Own it."]} for arm in ("base",)}
    voting(bundle, 3)
    server = serve()
    limit = 0.003
    bundle.approve(limit)
    stopped = bundle.run(server)
    assert "error[R0816]" in stopped.stderr
    assert "of 12 votes are left" in stopped.stderr
    made = server.total
    assert 0 < made < 12
    with Ledger(bundle.root) as ledger:
        assert 0 < ledger.spent(bundle.manifest.lock_sha256) <= limit * 1e9
    bundle.approve(1.0)
    assert bundle.run(server).returncode == 0
    assert server.total == 12
    assert Counter(row.outcome for row in bundle.rows()) == {"scored": 12}


LONG = "Rate the answer with care. " * 300
"""Long enough for a prompt cache."""


def test_what_never_changes_is_cached_and_the_judge_reads_the_same(bundle: Any, serve: Any) -> None:
    bundle.rubric = LONG + bundle.rubric
    voting(bundle, 1, cache=False)
    plain = serve()
    assert bundle.run(plain).returncode == 0
    assert bundle.facts()["cached"] == 0
    said = {call.message for call in plain.calls}
    paid = bundle.facts()["usd"]

    cached = serve()
    voting(bundle, 1, cache=True)
    assert bundle.run(cached).returncode == 0
    assert {call.message for call in cached.calls} == said
    starts = set()
    for call in cached.calls:
        (message,) = call.request["messages"]
        first, rest = message["content"]
        assert first["cache_control"] == {"type": "ephemeral"}
        assert set(rest) == {"type", "text"}
        assert rest["text"].strip()
        starts.add(first["text"])
    (start,) = starts
    assert start.startswith(LONG)
    facts, rows = bundle.facts(), bundle.rows()
    written, found = (sum(getattr(row, f"cache_{name}_tokens") for row in rows) for name in ("write", "read"))
    assert written > 0
    assert found == 7 * written
    assert facts["cached"] == pytest.approx(found / facts["input_tokens"], abs=1e-4)
    assert facts["usd"] < 0.5 * paid
    price = 3e-6
    assert facts["usd"] == pytest.approx(
        price * (facts["input_tokens"] - written - found + 1.25 * written + 0.1 * found) + 15e-6 * facts["output_tokens"],
        abs=1e-6,
    )  # fmt: skip


def test_a_reply_is_the_same_one_with_and_without_the_cache(bundle: Any, serve: Any) -> None:
    server = serve()
    voting(bundle, 1, cache=False)
    assert bundle.run(server).returncode == 0
    voting(bundle, 1, cache=True)
    assert bundle.run(server).returncode == 0
    assert server.total == 8


def test_the_money_that_is_set_aside_counts_writing_to_the_cache(bundle: Any, serve: Any) -> None:
    bundle.rubric = LONG + bundle.rubric
    bundle.approved = None
    bundle.texts = {"base": {"bread": ["Mix it."]}}
    sent = len(LONG) // 2
    limit = 1.1 * 3e-6 * sent  # enough to send it, not enough to have it written to the cache
    voting(bundle, 1, cache=True)
    bundle.approve(limit)
    server = serve()
    assert "error[R0816]" in bundle.run(server).stderr
    assert server.total == 0


STARTS: dict[str, tuple[str, str]] = {
    # rubric -> its start
    "a line before the answer": ("Rate it.\nAnswer:\n{answer}", "Rate it.\n"),
    "a word before the answer": ("Rate {answer}", ""),
    "nothing before the answer": ("{answer} is what?", ""),
    "white space alone": (" \n{answer}", ""),
    "braces": ('Reply {{"a": 1}} about\n\n<q>{question}</q> {answer}', 'Reply {"a": 1} about\n\n'),
}


@pytest.mark.parametrize("name", STARTS)
def test_start_and_rest_are_the_whole_message_and_the_rest_is_never_blank(name: str) -> None:
    text, start = STARTS[name]
    rubric = Rubric(text=text, sha256="", place="")
    assert rubric.start == start
    for answer in ("", " \n", "Yes {question}."):
        whole = rubric.fill(question="How?", answer=answer)
        assert start + rubric.rest(question="How?", answer=answer) == whole
        if start:
            assert rubric.rest(question="How?", answer=answer).strip()
