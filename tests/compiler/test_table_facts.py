"""Every fact of the table of facts, held against statistics that the runtime computes from random data.

A false fact would certify a table that is not sound, so the data are chosen to break them: few units,
lopsided differences, no spread at all, ties, both ends of the scale.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epc.compiler.contract.manifest import Analysis, Contrast, Metric, Side
from epc.compiler.table.facts import Comparison, Implies, Ordered, Range, Same, facts, holds
from epc.runtime.statistics import analyse

SIDES: tuple[Side, ...] = ("greater", "less", "two_sided")


def metric(scale: tuple[float, float] = (0, 1)) -> Metric:
    return Metric(name="rate", kind="pattern", source="s", unit="prompt", scale=scale, better="higher", missing="fail")


def analysis(method: str, **options: Any) -> Analysis:
    contrast = None if method == "wilson" else Contrast(treatment="t", control="c")
    arm = "t" if method == "wilson" else None
    base = {"name": "a", "metric": "rate", "contrast": contrast, "arm": arm, "method": method, "alpha": 0.05}
    return Analysis.model_validate({**base, **options})


def computed(one: Analysis, scale: tuple[float, float], treatment: list[Fraction], control: list[Fraction]) -> None:
    """Compute the statistics and assert every fact."""
    units = [f"u{index:03d}" for index in range(len(treatment))]
    estimate = analyse(
        one,
        metric(scale),
        dict(zip(units, treatment, strict=True)),
        None if one.contrast is None else dict(zip(units, control, strict=True)),
    )
    statistics = {name: value for name, value in estimate.statistics.items() if value is not None}
    broken = [fact for fact in facts(one, metric(scale)) if not holds(fact, statistics)]
    assert broken == [], statistics


eighths = st.integers(0, 8).map(lambda count: Fraction(count, 8))
judged = st.integers(0, 100).map(Fraction)
alike = st.tuples(st.integers(3, 30), st.sampled_from([0, 1, 3, 8]), st.sampled_from([0, 1, 3, 8])).map(
    lambda drawn: [(Fraction(drawn[1], 8), Fraction(drawn[2], 8))] * drawn[0]
)
lopsided = st.tuples(st.integers(3, 24), st.integers(1, 3), st.booleans()).map(
    lambda drawn: [
        (Fraction(index < drawn[1]), Fraction(0)) if drawn[2] else (Fraction(0), Fraction(index < drawn[1]))
        for index in range(drawn[0])
    ]
)
pairs = st.one_of(st.lists(st.tuples(eighths, eighths), min_size=3, max_size=30), alike, lopsided)
binary = st.lists(st.tuples(st.booleans().map(Fraction), st.booleans().map(Fraction)), min_size=2, max_size=60)
alphas = st.sampled_from([0.01, 0.025, 0.05, 0.1])


@pytest.mark.parametrize("p", ["percentile", "shift", "studentized"])
@pytest.mark.parametrize("side", SIDES)
@settings(max_examples=60, deadline=None)
@given(data=pairs, alpha=alphas, resamples=st.sampled_from([999, 1000]), seed=st.integers(0, 5))
def test_paired_bootstrap(
    p: str, side: str, data: list[tuple[Fraction, Fraction]], alpha: float, resamples: int, seed: int
) -> None:
    one = analysis("paired_bootstrap", p=p, side=side, alpha=alpha, resamples=resamples, seed=seed)
    computed(one, (0, 1), [t for t, _ in data], [c for _, c in data])


@pytest.mark.parametrize("p", ["percentile", "shift", "studentized"])
@pytest.mark.parametrize("side", SIDES)
@settings(max_examples=25, deadline=None)
@given(data=st.lists(st.tuples(judged, judged), min_size=3, max_size=24), alpha=alphas)
def test_paired_bootstrap_on_judge_scores(
    p: str, side: str, data: list[tuple[Fraction, Fraction]], alpha: float
) -> None:
    one = analysis("paired_bootstrap", p=p, side=side, alpha=alpha, resamples=999, seed=1)
    computed(one, (0, 100), [t for t, _ in data], [c for _, c in data])


@pytest.mark.parametrize("method", ["paired_t", "sign_flip"])
@pytest.mark.parametrize("side", SIDES)
@settings(max_examples=80, deadline=None)
@given(data=pairs, alpha=alphas, resamples=st.sampled_from([None, 999]))
def test_t_and_sign_flip(
    method: str, side: str, data: list[tuple[Fraction, Fraction]], alpha: float, resamples: int | None
) -> None:
    if method == "sign_flip" and resamples is None:
        data = data[:14]
    options = {} if method == "paired_t" else {"resamples": resamples, "seed": None if resamples is None else 1}
    one = analysis(method, side=side, alpha=alpha, **options)
    computed(one, (0, 1), [t for t, _ in data], [c for _, c in data])


@pytest.mark.parametrize("method", ["newcombe_paired", "wilson"])
@pytest.mark.parametrize("side", SIDES)
@settings(max_examples=150, deadline=None)
@given(data=binary, alpha=st.sampled_from([0.005, 0.05, 0.2, 0.45]))
def test_rates(method: str, side: str, data: list[tuple[Fraction, Fraction]], alpha: float) -> None:
    computed(analysis(method, side=side, alpha=alpha), (0, 1), [t for t, _ in data], [c for _, c in data])


def test_equal_differences_reject_below_a_bound_of_zero() -> None:
    """Why `reject implies lower > 0` is no fact of the methods with a standard error."""
    units = {f"u{index}": Fraction(1, 100) for index in range(24)}
    nothing = dict.fromkeys(units, Fraction(0))
    for one in (
        analysis("paired_t", side="greater", alpha=0.025),
        analysis("paired_bootstrap", p="studentized", side="greater", alpha=0.025, resamples=9999, seed=1),
    ):
        statistics = analyse(one, metric(), units, nothing).statistics
        assert statistics["reject"] == 1
        lower = statistics["lower"]
        assert lower is not None
        assert lower < 0


@pytest.mark.parametrize(
    ("fact", "statistics", "expected"),
    [
        (Range(statistic="p", low=0.5, high=1, why=""), {"p": 0.4}, False),
        (Range(statistic="p", low=0, high=1, steps=4, why=""), {"p": 0.25}, True),
        (Range(statistic="p", low=0, high=1, steps=4, why=""), {"p": 0.3}, False),
        (Ordered(low="lower", high="delta", why=""), {"lower": 0.2, "delta": 0.1}, False),
        (Ordered(low="lower", high="delta", why=""), {"lower": 0.2}, True),
        (Same(name="lower", other="ci_low", why=""), {"lower": 0.2, "ci_low": 0.1}, False),
        (
            Implies(
                given=Comparison(statistic="p", operator="<", constant=0.5),
                then=Comparison(statistic="delta", operator=">", constant=0),
                why="",
            ),
            {"p": 0.4, "delta": 0.0},
            False,
        ),
    ],
)
def test_a_broken_fact_is_noticed(fact: Any, statistics: dict[str, float], expected: bool) -> None:
    assert holds(fact, statistics) is expected
