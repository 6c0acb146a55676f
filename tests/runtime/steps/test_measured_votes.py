"""Several votes about a completion become one score, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest

from epc.compiler.contract.rows import JudgementRow, OfCompletion, SampleRow
from epc.runtime import measure
from epc.runtime.errors import Fault

ARMS = [("base", 0, "k")]
Vote = tuple[int, int] | str
"""(aligned, coherent), or the outcome of a vote without a score."""


def rows_of(completions: Sequence[Sequence[Vote]]) -> tuple[list[SampleRow], list[JudgementRow]]:
    samples, judgements = [], []
    for index, votes in enumerate(completions):
        sample = SampleRow(
            mode="real", condition="base", condition_key="k", seed=0, set="first", item="p", turn=1, index=index,
            draw_seed=1, prompt="", prompt_sha256="", text="x", finish_reason="stop", tokens=1,
        )  # fmt: skip
        samples.append(sample)
        identity = sample.model_dump(include=set(OfCompletion.model_fields))
        for number, vote in enumerate(votes):
            scored = not isinstance(vote, str)
            fields = {"aligned": vote[0], "coherent": vote[1], "harmful": vote[0] < 20} if scored else {}
            judgements.append(
                JudgementRow(
                    **identity, judge="alignment", vote=number, attempt=0, rubric_sha256="r", raw="", fields=fields,
                    outcome="scored" if scored else vote,
                )
            )  # fmt: skip
    return samples, judgements


def metric(score: str, *, votes: int, aggregate: str | None, keep: str | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "name": "m", "kind": "judge", "source": "first", "judge": "alignment", "score": comparison(score),
        "keep": None if keep is None else comparison(keep), "votes": votes, "aggregate": aggregate, **changes,
    }  # fmt: skip


def comparison(text: str) -> dict[str, Any]:
    field, _, rest = text.partition(" ")
    operator, _, constant = rest.partition(" ")
    return {"field": field, "operator": operator, "constant": int(constant)} if rest else {"field": field}


THREE: list[list[Vote]] = [[(10, 40), (20, 60), (90, 60)], [(0, 0), (0, 50), (1, 100)]]
TWO: list[list[Vote]] = [[(10, 40), (21, 60)], [(0, 49), (1, 50)]]

MEASURED: dict[str, tuple[list[list[Vote]], str, str, str | None, list[tuple[int, int, int]]]] = {
    # votes, aggregate, score, keep -> (n, total, denominator) of each slice
    "median of three": (THREE, "median", "aligned", None, [(2, 20, 1)]),
    "mean of three": (THREE, "mean", "aligned", None, [(2, 121, 3)]),
    "median of two": (TWO, "median", "aligned", None, [(2, 32, 2)]),
    "mean of two": (TWO, "mean", "aligned", None, [(2, 32, 2)]),
    "the median of yes and no is the majority": (THREE, "median", "harmful", None, [(2, 1, 1)]),
    "the mean of yes and no is the share": (THREE, "mean", "harmful", None, [(2, 4, 3)]),
    "a comparison reads the median": (THREE, "median", "coherent < 60", None, [(2, 1, 1)]),
    "a comparison reads the mean": (THREE, "mean", "coherent >= 50", None, [(2, 2, 1)]),
    "and a mean between whole numbers exactly": (TWO, "mean", "coherent >= 50", None, [(2, 1, 1)]),
    "and what it leaves out": (TWO, "mean", "coherent < 50", None, [(2, 1, 1)]),
    "a filter reads the mean": (TWO, "mean", "aligned", "coherent >= 50", [(1, 31, 2), (2, 32, 2)]),
    "a filter reads the median": (THREE, "median", "aligned", "coherent > 50", [(1, 20, 1), (2, 20, 1)]),
    "one vote": ([[(7, 90)], [(8, 10)]], "median", "aligned", "coherent >= 50", [(1, 7, 1), (2, 15, 1)]),
}


@pytest.mark.parametrize("name", MEASURED)
def test_votes_become_one_score(name: str) -> None:
    completions, aggregate, score, keep, expected = MEASURED[name]
    votes = len(completions[0])
    declared = metric(score, votes=votes, aggregate=aggregate if votes > 1 else None, keep=keep)
    measured = measure.by_judge(*rows_of(completions), declared, arms=ARMS)
    assert [(row.n, row.total, row.denominator) for row in measured] == expected
    for row in measured:
        assert row.value == float(Fraction(row.total, row.denominator * row.n))
        assert row.n + row.n_filtered == 2


def test_a_completion_of_which_a_vote_is_missing_is_missing_once() -> None:
    completions: list[list[Vote]] = [
        [(50, 90), "api_error", "judge_refused"], [(10, 90), (20, 90), (30, 90)], ["unparsable", (1, 90), (2, 90)],
        [(90, 10), (90, 20), (90, 30)],
    ]  # fmt: skip
    declared = metric("aligned", votes=3, aggregate="median", keep="coherent >= 50", scores=True)
    kept, every = measure.by_judge(*rows_of(completions), declared, arms=ARMS)
    assert (kept.n, kept.n_missing, kept.n_filtered, kept.total, kept.scores) == (1, 2, 1, 20, (20,))
    assert (every.n, every.n_missing, every.n_filtered, every.total, every.scores) == (2, 2, 0, 110, (20, 90))


def test_every_completion_has_exactly_the_votes_that_were_declared() -> None:
    samples, judgements = rows_of(THREE)
    declared = metric("aligned", votes=3, aggregate="median")
    for wrong, said in (
        (judgements[1:], "no judgement for 1 completion, the first: base, seed 0, prompt p, turn 1, sample 0"),
        ([*judgements, judgements[4]], "more than one final judgement for 1 completion"),
        ([*judgements, judgements[4].model_copy(update={"vote": 3})], "a vote that was not declared for 1 completion"),
    ):
        with pytest.raises(Fault) as caught:
            measure.by_judge(samples, wrong, declared, arms=ARMS)
        assert caught.value.code == "R0366"
        assert caught.value.fact.startswith(said)
        assert "judged 3 times" in caught.value.remedy
