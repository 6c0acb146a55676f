"""What each method guarantees about its own statistics: the one table that feasibility rests on.

A cell of statistics that breaks a fact cannot be observed, so no witness is taken from it. The
direction of error matters: a fact that is left out only makes a check too strict, a false one
certifies a table that is not sound. So each fact follows from the method as it is computed
(`why`), and the tests hold every fact against the computed statistics of random data.

Bounds are rounded to 12 decimals, and facts that compare a bound with an estimate hold up to that
rounding; no threshold is meant more finely.

Left out because they are false or unproved:
- `reject implies lower > 0` for paired_t and the studentized bootstrap: where all differences are
  equal the test is the sign flip's and the bound is not, and 24 differences of .01 reject at 2^-24
  with a bound below 0;
- `p < .5 implies delta > 0` for the bootstrap (a skewed sample has p < .5 at delta < 0, and the
  reverse) and for the sign flip with resamples (the estimate of a p of .5 may fall below .5);
- any tie between p and the bounds of newcombe_paired: nobody has shown that the bound moves one
  way with the level for every table; and of mcnemar, whose bounds are those and whose test is another;
- `p < alpha implies lower > -margin` for tost: 24 equal differences again. That both bounds are within the
  margin implies p <= alpha, and no fact here has two premises;
- `p > .5 implies delta <= 0` for the sign test: differences of -1 and 3 have p = .75 and a median of 1;
- what the tests of a family say together: that a later one of a fixed sequence rejects only if the earlier do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from epc.compiler.contract.logic import Operator, compare
from epc.compiler.contract.manifest import Analysis, Metric

ROUNDING: Final = 1e-12
"""Bounds and estimates are compared up to this."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`statistic OP constant`."""

    statistic: str
    operator: Operator
    constant: float


@dataclass(frozen=True, kw_only=True)
class Range:
    """The statistic lies in [low, high]; with a step, at a multiple of 1 / `steps`."""

    statistic: str
    low: float
    high: float
    steps: int | None = None
    why: str


@dataclass(frozen=True, kw_only=True)
class Ordered:
    """`low` is never above `high`."""

    low: str
    high: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Same:
    """Two names of one number."""

    name: str
    other: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Implies:
    """Where `given` holds, `then` holds."""

    given: Comparison
    then: Comparison
    why: str


Fact = Range | Ordered | Same | Implies


def facts(analysis: Analysis, metric: Metric) -> tuple[Fact, ...]:
    """Every fact about the statistics of one analysis."""
    return (
        *_ranges(analysis, metric),
        *_order(analysis),
        *_decision(analysis),
        *_test_and_bound(analysis, metric),
        *_test_and_sign(analysis),
    )


def holds(fact: Fact, statistics: Mapping[str, float]) -> bool:
    """Whether computed statistics agree with a fact; true where one of them is absent."""

    def at(comparison: Comparison) -> bool:
        return bool(compare(statistics[comparison.statistic], comparison.operator, comparison.constant))

    if any(name not in statistics for name in mentioned(fact)):
        return True
    match fact:
        case Range(statistic=statistic, low=low, high=high, steps=steps):
            value = statistics[statistic]
            return low <= value <= high and (steps is None or value == round(value * steps) / steps)
        case Ordered(low=first, high=second):
            return statistics[first] <= statistics[second] + ROUNDING
        case Same(name=name, other=other):
            return statistics[name] == statistics[other]
        case Implies(given=given, then=then):
            return not at(given) or at(then)
        case _:
            assert_never(fact)


def mentioned(fact: Fact) -> tuple[str, ...]:
    """The statistics that a fact is about."""
    match fact:
        case Range(statistic=statistic):
            return (statistic,)
        case Ordered(low=low, high=high):
            return (low, high)
        case Same(name=name, other=other):
            return (name, other)
        case Implies(given=given, then=then):
            return (given.statistic, then.statistic)
        case _:
            assert_never(fact)


def estimate_of(analysis: Analysis) -> str:
    """Name of the point estimate: `delta` of a contrast, `value` of one arm."""
    return "value" if analysis.contrast is None else "delta"


def _ranges(analysis: Analysis, metric: Metric) -> Iterator[Fact]:
    low, high = metric.scale
    if analysis.contrast is not None:
        low, high = low - high, high - low
    yield Range(statistic=estimate_of(analysis), low=low, high=high, why="a mean of values on the metric's scale")
    for bound in ("lower", "upper", "ci_low", "ci_high"):
        yield Range(statistic=bound, low=low, high=high, why="bounds are clipped to what the scale allows")
    yield Range(statistic="reject", low=0, high=1, steps=1, why="reject is 0 or 1")
    draws = analysis.resamples
    match analysis.method:
        case "paired_bootstrap" if draws is not None and analysis.p in ("studentized", "bca"):
            why = "p is at least 1 / (B + 1); where all differences are equal it is max(2^-n, 1 / (B + 1))"
            yield Range(statistic="p", low=1 / (draws + 1), high=1, why=why)
        case "paired_bootstrap" | "two_level" | "cluster_bootstrap" if draws is not None:
            why = "p is (1 + a count) / (B + 1); two-sided twice that, at most 1"
            yield Range(statistic="p", low=1 / (draws + 1), high=1, steps=draws + 1, why=why)
        case "sign_flip":
            floor = min(2.0**-20, 1 / (draws + 1)) if draws is not None else 2.0**-20
            yield Range(statistic="p", low=floor, high=1, why="the identity is one of at most 2^20, or B + 1, patterns")
        case (
            "paired_bootstrap" | "two_level" | "cluster_bootstrap" | "paired_t" | "tost" | "sign_test" | "mcnemar"
            | "newcombe_paired" | "newcombe" | "wilson" | "bootstrap"
        ):  # fmt: skip
            yield Range(statistic="p", low=0, high=1, why="p is a probability")
        case _:
            assert_never(analysis.method)


def _one_sided(analysis: Analysis) -> bool:
    """Whether bounds and displayed interval have the same level: also of two one-sided tests."""
    return analysis.side != "two_sided" or analysis.method == "tost"


def _order(analysis: Analysis) -> Iterator[Fact]:
    estimate = estimate_of(analysis)
    one_sided = _one_sided(analysis)
    own_interval = analysis.interval is not None
    if own_interval:
        yield Ordered(low="ci_low", high="ci_high", why="two quantiles of one distribution, at a level of their own")
    elif one_sided:
        why = "the interval shown has level 1 - 2 alpha, so its ends are the one-sided bounds"
        yield Same(name="lower", other="ci_low", why=why)
        yield Same(name="upper", other="ci_high", why=why)
    if not _straddles(analysis):
        return
    why = _STRADDLES[analysis.method]
    for low, high in itertools.product(("ci_low", "lower", estimate), (estimate, "upper", "ci_high")):
        shown = low == "ci_low" or high == "ci_high"
        if low != high and not ((one_sided or own_interval) and shown):
            yield Ordered(low=low, high=high, why=why)
    if not one_sided and not own_interval and analysis.method not in ("newcombe_paired", "mcnemar"):
        why = "the interval shown has level 1 - alpha, and quantiles do not cross"
        yield Ordered(low="ci_low", high="lower", why=why)
        yield Ordered(low="upper", high="ci_high", why=why)


_STRADDLES: Final = {
    "paired_bootstrap": "a bound crosses the estimate only if fewer than alpha (B + 1) of B resampled means lie on that"
    " side of it; searched data of up to 7 units put .44 or more there, and with .25 the chance is below 1e-30",
    "two_level": "as for the paired bootstrap: searched data of up to 7 units put .34 or more on either side, and a single"
    " sample that differs, in the limit of many units, puts .27 there",
    "cluster_bootstrap": "as for the paired bootstrap: searched data of up to 6 seeds put .32 or more on either side, and a"
    " single cell that differs, in the limit of many seeds and units, puts .26 there",
    "sign_flip": "of a subset and its complement one has a mean at or below the sample's and one at or above",
    "sign_test": "below a tail of one half the order statistic stays on its side of the median",
    "newcombe_paired": "the estimate minus, and plus, a root",
    "newcombe": "the estimate minus, and plus, a root",
    "mcnemar": "the estimate minus, and plus, a root: the bounds are Newcombe's",
    "paired_t": "the estimate minus, and plus, a positive multiple of the standard error",
    "tost": "the estimate minus, and plus, a positive multiple of the standard error",
    "wilson": "the score interval contains the observed proportion",
    "bootstrap": "as for the paired bootstrap: it is the same resampling of unit values",
}


def _straddles(analysis: Analysis) -> bool:
    """Whether the bounds lie on either side of the estimate."""
    match analysis.method:
        case "paired_bootstrap" | "two_level" | "cluster_bootstrap" | "bootstrap":
            return analysis.alpha <= 0.1 and (analysis.resamples or 0) >= 999
        case "sign_flip":
            exact = analysis.resamples is None
            return analysis.alpha < 0.5 if exact else analysis.alpha <= 0.1 and (analysis.resamples or 0) >= 999
        case "newcombe_paired" | "newcombe" | "mcnemar" | "paired_t" | "tost" | "sign_test" | "wilson":
            return analysis.alpha < 0.5
        case _:
            assert_never(analysis.method)


def _decision(analysis: Analysis) -> Iterator[Fact]:
    only = analysis.alpha if analysis.rejects_only_below is None else analysis.rejects_only_below
    surely = only if analysis.rejects_below is None else analysis.rejects_below
    below = Comparison(statistic="p", operator="<", constant=only)
    above = Comparison(statistic="p", operator=">=", constant=surely)
    why = "reject is p < alpha, or less than that where a family or earlier looks take a part of alpha"
    yield Implies(given=Comparison(statistic="reject", operator="==", constant=1), then=below, why=why)
    yield Implies(given=Comparison(statistic="reject", operator="==", constant=0), then=above, why=why)


def _test_and_bound(analysis: Analysis, metric: Metric) -> Iterator[Fact]:
    """Test inversion. Zero is exact on both sides: bounds are rounded, but never across it."""
    small = Comparison(statistic="p", operator="<=", constant=analysis.alpha)
    reject = Comparison(statistic="p", operator="<", constant=analysis.alpha)
    paired = analysis.interval is None
    lower, upper = ("ci_low", "ci_high") if paired else ("lower", "upper")
    above = Comparison(statistic=lower, operator=">", constant=0)
    below = Comparison(statistic=upper, operator="<", constant=0)
    draws = analysis.resamples or 0
    match analysis.method:
        case "newcombe_paired" | "mcnemar" | "tost" | "wilson" | "bootstrap":
            return
        case "paired_bootstrap" if analysis.p in ("studentized", "bca"):
            # The bound is a float, right to about limit / 10^15, and rounded to 10^-12: enough up to 100.
            inverts = (draws + 1) * analysis.alpha >= 1 and metric.scale[1] - metric.scale[0] <= 100
            one_way = True
            why = "the bound is beyond 0 only if fewer than floor((B + 1) tail) of the t* reach t"
        case "paired_t":
            inverts, one_way = metric.scale[1] - metric.scale[0] <= 100, True
            why = "bound and p invert one distribution; without spread, p = 2^-n and the bound needs alpha > 2^-n"
        case "paired_bootstrap" | "two_level" | "cluster_bootstrap" | "sign_flip":
            inverts, one_way = True, False
            why = "the bound is the order statistic at floor((B + 1) tail) of what p counts"
        case "newcombe":
            inverts, one_way = True, False
            why = "p is the level at which the bound meets 0, and Wilson's limits widen with the level"
        case "sign_test":
            inverts, one_way = True, True
            why = "a bound beyond 0 leaves fewer than k signs against it; units without a difference weaken the bound alone"
        case _:
            assert_never(analysis.method)
    if not inverts:
        return
    match analysis.side:
        case "greater":
            yield Implies(given=above, then=small, why=why)
            if not one_way:
                yield Implies(given=reject, then=Comparison(statistic=lower, operator=">=", constant=0), why=why)
        case "less":
            yield Implies(given=below, then=small, why=why)
            if not one_way:
                yield Implies(given=reject, then=Comparison(statistic=upper, operator="<=", constant=0), why=why)
        case "two_sided" if not paired:
            return
        case "two_sided":
            yield Implies(given=above, then=small, why=why)
            yield Implies(given=below, then=small, why=why)
        case _:
            assert_never(analysis.side)


def _test_and_sign(analysis: Analysis) -> Iterator[Fact]:
    match analysis.method:
        case "paired_t" | "newcombe_paired" | "newcombe":
            both_ways = True
            why = (
                "p is above .5 only for an estimate beyond 0 on the other side, or for equal differences at or beyond 0"
            )
        case "mcnemar":
            both_ways = True
            why = "p is below .5 only if more units changed to that side, and above it only if no more did"
        case "sign_test":
            yield from _median_at_or_beyond_zero(analysis)
            return
        case "tost":
            yield from _within_margin(analysis)
            return
        case "sign_flip" if analysis.resamples is None:
            both_ways = False
            why = "a sign pattern and its opposite have opposite sums, so p is at least .5 unless delta is beyond 0"
        case "sign_flip" | "paired_bootstrap" | "two_level" | "cluster_bootstrap" | "wilson" | "bootstrap":
            return
        case _:
            assert_never(analysis.method)
    toward: Operator
    away: Operator
    match analysis.side:
        case "greater":
            toward, away = ">", "<="
        case "less":
            toward, away = "<", ">="
        case "two_sided":
            return
        case _:
            assert_never(analysis.side)
    below, above = (
        Comparison(statistic="p", operator="<", constant=0.5),
        Comparison(statistic="p", operator=">", constant=0.5),
    )
    yield Implies(given=below, then=Comparison(statistic=estimate_of(analysis), operator=toward, constant=0), why=why)
    if both_ways:
        yield Implies(given=above, then=Comparison(statistic=estimate_of(analysis), operator=away, constant=0), why=why)


def _median_at_or_beyond_zero(analysis: Analysis) -> Iterator[Fact]:
    """Of the sign test. Units without a difference may hold the median at 0."""
    small = Comparison(statistic="p", operator="<", constant=0.5)
    why = "p is below .5 only if there are more signs for than against it, and then the median is not against it"
    match analysis.side:
        case "greater":
            yield Implies(
                given=small, then=Comparison(statistic=estimate_of(analysis), operator=">=", constant=0), why=why
            )
        case "less":
            yield Implies(
                given=small, then=Comparison(statistic=estimate_of(analysis), operator="<=", constant=0), why=why
            )
        case "two_sided":
            return
        case _:
            assert_never(analysis.side)


def _within_margin(analysis: Analysis) -> Iterator[Fact]:
    """Of two one-sided tests; delta is rounded, so it may be shown on the margin itself."""
    if analysis.margin is None:
        return
    small = Comparison(statistic="p", operator="<", constant=0.5)
    why = "the larger p is below .5 only if the mean is within the margin on both sides"
    yield Implies(
        given=small, then=Comparison(statistic=estimate_of(analysis), operator=">=", constant=-analysis.margin), why=why
    )
    yield Implies(
        given=small, then=Comparison(statistic=estimate_of(analysis), operator="<=", constant=analysis.margin), why=why
    )
