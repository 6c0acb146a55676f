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

from epc.compiler.contract.manifest import Analysis, Contrast, Family, Metric, Side
from epc.compiler.decision import certain_levels
from epc.compiler.table.facts import Comparison, Implies, Ordered, Range, Same, facts, holds
from epc.runtime.rejections import adjusted
from epc.runtime.statistics import UNPAIRED, Nested, analyse
from epc.runtime.statistics.cluster_bootstrap import Group

SIDES: tuple[Side, ...] = ("greater", "less", "two_sided")


def metric(scale: tuple[float, float] = (0, 1)) -> Metric:
    return Metric(name="rate", kind="pattern", source="s", unit="prompt", scale=scale, better="higher", missing="fail")


def analysis(method: str, **options: Any) -> Analysis:
    contrast = None if method == "wilson" else Contrast(treatment="t", control="c")
    arm = "t" if method == "wilson" else None
    base = {"name": "a", "metric": "rate", "contrast": contrast, "arm": arm, "method": method, "alpha": 0.05}
    return Analysis.model_validate({**base, **options})


def computed(
    one: Analysis,
    scale: tuple[float, float],
    treatment: list[Fraction],
    control: list[Fraction],
    nested: Nested | None = None,
) -> None:
    """Compute the statistics and assert every fact."""
    units = [f"u{index:03d}" for index in range(len(treatment))]
    others = [f"v{index:03d}" for index in range(len(control))] if one.method in UNPAIRED else units
    estimate = analyse(
        one,
        metric(scale),
        dict(zip(units, treatment, strict=True)),
        None if one.contrast is None else dict(zip(others, control, strict=True)),
        nested=nested,
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


@pytest.mark.parametrize("p", ["percentile", "shift", "studentized", "bca"])
@pytest.mark.parametrize("side", SIDES)
@settings(max_examples=60, deadline=None)
@given(data=pairs, alpha=alphas, resamples=st.sampled_from([999, 1000]), seed=st.integers(0, 5))
def test_paired_bootstrap(
    p: str, side: str, data: list[tuple[Fraction, Fraction]], alpha: float, resamples: int, seed: int
) -> None:
    one = analysis("paired_bootstrap", p=p, side=side, alpha=alpha, resamples=resamples, seed=seed)
    computed(one, (0, 1), [t for t, _ in data], [c for _, c in data])


@pytest.mark.parametrize("p", ["percentile", "shift", "studentized", "bca"])
@pytest.mark.parametrize("side", SIDES)
@settings(max_examples=25, deadline=None)
@given(data=st.lists(st.tuples(judged, judged), min_size=3, max_size=24), alpha=alphas)
def test_paired_bootstrap_on_judge_scores(
    p: str, side: str, data: list[tuple[Fraction, Fraction]], alpha: float
) -> None:
    one = analysis("paired_bootstrap", p=p, side=side, alpha=alpha, resamples=999, seed=1)
    computed(one, (0, 100), [t for t, _ in data], [c for _, c in data])


@pytest.mark.parametrize("method", ["paired_t", "sign_flip", "sign_test"])
@pytest.mark.parametrize("side", SIDES)
@settings(max_examples=80, deadline=None)
@given(data=pairs, alpha=alphas, resamples=st.sampled_from([None, 999]))
def test_t_and_sign_flip(
    method: str, side: str, data: list[tuple[Fraction, Fraction]], alpha: float, resamples: int | None
) -> None:
    if method == "sign_flip" and resamples is None:
        data = data[:14]
    options = {"resamples": resamples, "seed": None if resamples is None else 1} if method == "sign_flip" else {}
    one = analysis(method, side=side, alpha=alpha, **options)
    computed(one, (0, 1), [t for t, _ in data], [c for _, c in data])


@pytest.mark.parametrize(
    ("method", "p"),
    [("newcombe_paired", None), ("newcombe", None), ("mcnemar", "exact"), ("mcnemar", "corrected"), ("wilson", None)],
)
@pytest.mark.parametrize("side", SIDES)
@settings(max_examples=150, deadline=None)
@given(data=binary, alpha=st.sampled_from([0.005, 0.05, 0.2, 0.45]))
def test_rates(method: str, p: str | None, side: str, data: list[tuple[Fraction, Fraction]], alpha: float) -> None:
    computed(analysis(method, p=p, side=side, alpha=alpha), (0, 1), [t for t, _ in data], [c for _, c in data])


@settings(max_examples=200, deadline=None)
@given(data=pairs, alpha=alphas, margin=st.sampled_from([0.01, 0.125, 0.3, 0.9]))
def test_equivalence(data: list[tuple[Fraction, Fraction]], alpha: float, margin: float) -> None:
    one = analysis("tost", side="two_sided", alpha=alpha, margin=margin)
    computed(one, (0, 1), [t for t, _ in data], [c for _, c in data])


samples = st.lists(eighths, min_size=2, max_size=5).map(tuple)
of_units = st.lists(st.tuples(samples, samples), min_size=2, max_size=9)


@pytest.mark.parametrize("p", ["percentile", "shift"])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("population", ["random", "fixed"])
@settings(max_examples=25, deadline=None)
@given(data=of_units, alpha=alphas)
def test_two_level(
    p: str, side: str, population: str, data: list[tuple[tuple[Fraction, ...], ...]], alpha: float
) -> None:
    groups = {f"u{index:03d}": Group(treatment=t, control=c) for index, (t, c) in enumerate(data)}
    one = analysis("two_level", p=p, side=side, alpha=alpha, population=population, resamples=999, seed=1)
    means = [[sum(arm, Fraction(0)) / len(arm) for arm in pair] for pair in data]
    computed(one, (0, 1), [t for t, _ in means], [c for _, c in means], Nested(differences={}, samples=groups))


@pytest.mark.parametrize("p", ["percentile", "shift"])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("levels", [("unit",), ("seed",), ("seed", "unit")])
@settings(max_examples=25, deadline=None)
@given(
    data=st.integers(2, 8).flatmap(
        lambda n: st.lists(st.lists(eighths, min_size=n, max_size=n), min_size=2, max_size=4)
    ),
    alpha=alphas,
)
def test_cluster_bootstrap(
    p: str, side: str, levels: tuple[str, ...], data: list[list[Fraction]], alpha: float
) -> None:
    differences = {
        str(seed): {f"u{unit:03d}": 2 * value - 1 for unit, value in enumerate(row)} for seed, row in enumerate(data)
    }
    one = analysis("cluster_bootstrap", p=p, side=side, alpha=alpha, levels=levels, resamples=999, seed=1)
    n = len(data[0])
    nested = Nested(differences=differences, samples=None)
    computed(one, (-1, 1), [Fraction(0)] * n, [Fraction(0)] * n, nested)


@pytest.mark.parametrize("method", ["holm", "benjamini_hochberg", "fixed_sequence"])
@settings(max_examples=300, deadline=None)
@given(
    ps=st.lists(st.integers(0, 2000).map(lambda k: Fraction(k, 20_000)), min_size=2, max_size=5),
    alpha=st.sampled_from([0.01, 0.025, 0.05]),
)
def test_reject_in_a_family(method: str, ps: list[Fraction], alpha: float) -> None:
    """What the compiler says of `reject` beside p, of every member in every place."""
    names = tuple(f"a{index}" for index in range(len(ps)))
    family = Family.model_validate({"name": "f", "method": method, "analyses": names, "alpha": alpha})
    certain = dict(zip(names, certain_levels(family), strict=True))
    for name, p, (_, reject) in zip(names, ps, adjusted(family, ps), strict=True):
        one = analysis("paired_t", side="greater", alpha=alpha, rejects_below=certain[name])
        statistics = {"p": float(p), "reject": float(bool(reject))}
        assert [fact for fact in facts(one, metric()) if not holds(fact, statistics)] == []


def test_p_below_alpha_is_no_rejection_in_a_family() -> None:
    """Why `reject == 0 implies p >= alpha` is no fact of a member."""
    family = Family(name="f", method="holm", analyses=("a", "b"), alpha=0.025)
    assert adjusted(family, [Fraction(2, 100), Fraction(2, 100)]) == [(0.04, False), (0.04, False)]
    one = analysis("paired_t", side="greater", alpha=0.025, rejects_below=0.0125)
    assert all(holds(fact, {"p": 0.02, "reject": 0.0}) for fact in facts(one, metric()))
    assert not all(holds(fact, {"p": 0.012, "reject": 0.0}) for fact in facts(one, metric()))


def test_equal_differences_are_equivalent_with_a_bound_beyond_the_margin() -> None:
    """Why `p < alpha implies lower > -margin` is no fact of tost."""
    units = {f"u{index}": Fraction(1, 100) for index in range(24)}
    one = analysis("tost", side="two_sided", alpha=0.05, margin=0.05)
    statistics = analyse(one, metric(), units, dict.fromkeys(units, Fraction(0))).statistics
    assert statistics["reject"] == 1
    assert statistics["lower"] < -0.05


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
