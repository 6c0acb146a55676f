"""The analysis without one unit, for each unit in turn.

The estimate is exact without every unit. p, bounds and the verdict are those of a run without the unit: same method,
same seed. Units with the same values are one look. For the paired bootstrap all looks share one count matrix and one
product, S* = C X for X whose column j lacks unit j; differences are put on a lattice of at most 2^26 / n steps, so that
n Q* - S*^2 is exact in float64, and t* >= t is compared in float64, element by element, which IEEE 754 fixes. Where
a difference has more digits than that, or a t* ties with t in the last bit, p can differ by a draw or so from that of
`paired_bootstrap`. Where the work would be too much, the units that move the estimate most are looked at, half of
them downwards and half upwards: a mean of many units hardly moves with one.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from fractions import Fraction
from typing import Any, Final, assert_never

import numpy as np
from numpy.typing import NDArray

from epc.compiler.contract.decision import LeaveOneOut, UnitVerdict
from epc.compiler.contract.manifest import Analysis, Metric
from epc.runtime.statistics import InapplicableError, Nested, Resamples, analyse
from epc.runtime.statistics.bca import Correction
from epc.runtime.statistics.estimate import Lattice, exact, interval_tail, on_lattice, p_of, tidy
from epc.runtime.statistics.paired_bootstrap import paired_bootstrap
from epc.runtime.statistics.resamples import GROUPED_FROM
from epc.runtime.statistics.resampling import Quantiles, count_matrix

FEWEST: Final = 3
WORK: Final = 60_000_000
"""Draws of units, over all looks of one analysis, that a shared product is spent on."""
WORK_APART: Final = 2_000_000
"""The same where every look is computed by itself: draws of units, or units where nothing is drawn."""
EXACT: Final = 26
"""Bits of n times the largest step, so that squares of sums stay below 2^52."""

Statistics = dict[str, float]
Values = Mapping[str, Fraction]


def leave_one_out(
    analysis: Analysis,
    metric: Metric,
    treatment: Values,
    control: Values | None,
    *,
    nested: Nested | None = None,
    needed: AbstractSet[str],
    label: Callable[[Mapping[str, float | None]], str],
    registered: str,
    shared: Resamples,
) -> LeaveOneOut | None:
    """`needed` are the statistics that gates read or that are to be shown; `label` gives the verdict of statistics.

    `registered` is the verdict as it is. None for fewer than three units, and where the arms are not paired.
    """
    units = sorted(treatment)
    if len(units) < FEWEST or (control is not None and control.keys() != treatment.keys()):
        return None
    first: dict[tuple[Fraction | int, ...], int] = {}
    alike = [
        first.setdefault(
            (i,) if nested is not None  # equal means are not equal samples
            else (treatment[unit],) if control is None else (treatment[unit], control[unit]), i,
        )
        for i, unit in enumerate(units)
    ]  # fmt: skip
    places = sorted(first.values())
    of_place = {i: treatment[units[i]] - (control[units[i]] if control is not None else 0) for i in places}
    values = [of_place[i] for i in alike]
    estimates = dict(
        zip(places, (_medians if analysis.method == "sign_test" else _means)(values, of_place), strict=True)
    )
    ranks = {estimate: rank for rank, estimate in enumerate(sorted(set(estimates.values())))}
    order = sorted(range(len(units)), key=lambda i: (ranks[estimates[alike[i]]], i))
    point = "delta" if control is not None else "value"
    found: dict[int, Statistics]
    if needed <= {point}:
        found = {i: {point: tidy(float(estimates[i]))} for i in places}
    else:
        chosen = _affordable(analysis, places, order, len(units))
        if analysis.method == "paired_bootstrap" and chosen == places:
            found = bootstraps_without_each(analysis, metric, on_lattice(values), places, needed=needed)
        else:
            found = _apart(analysis, metric, treatment, control, nested, [(i, units[i]) for i in chosen], shared)
    verdicts = {i: label(statistics) for i, statistics in found.items()}
    at = [i if i in found else alike[i] for i in range(len(units))]
    ps = [statistics["p"] for statistics in found.values() if "p" in statistics]
    return LeaveOneOut(
        n_units=len(units), n_checked=len(units) if len(found) == len(places) else len(found),
        lowest=tidy(float(estimates[alike[order[0]]])), lowest_without=units[order[0]],
        highest=tidy(float(estimates[alike[order[-1]]])), highest_without=units[order[-1]],
        p_lowest=min(ps, default=None), p_highest=max(ps, default=None),
        changing=tuple(
            UnitVerdict(
                unit=unit, estimate=tidy(float(estimates[alike[i]])), p=found[at[i]].get("p"), verdict=verdicts[at[i]]
            )
            for i, unit in enumerate(units)
            if at[i] in found and verdicts[at[i]] != registered
        ),
    )  # fmt: skip


def _means(values: Sequence[Fraction], each: Mapping[int, Fraction]) -> list[Fraction]:
    """Without each of these values."""
    times = Counter(values)
    total = sum((value * number for value, number in times.items()), Fraction(0))
    return [(total - value) / (len(values) - 1) for value in each.values()]


def _medians(values: Sequence[Fraction], each: Mapping[int, Fraction]) -> list[Fraction]:
    """Without each of these values."""
    ordered, left = sorted(values), len(values) - 1
    low, high = (left - 1) // 2, left // 2
    ranks = [bisect_left(ordered, value) for value in each.values()]
    return [(ordered[low + (rank <= low)] + ordered[high + (rank <= high)]) / 2 for rank in ranks]


def _affordable(analysis: Analysis, places: list[int], order: Sequence[int], n: int) -> list[int]:
    """The places that are looked at: all, or those that move the estimate most."""
    together = analysis.method == "paired_bootstrap" and n - 1 < GROUPED_FROM
    each = n * (analysis.resamples or 1)
    most = max(2, (WORK if together else WORK_APART) // each)
    if len(places) <= most:
        return places
    some = max(2, WORK_APART // each)
    return sorted({*order[: some // 2], *order[len(order) - some // 2 :]})


def _apart(
    analysis: Analysis, metric: Metric, treatment: Values, control: Values | None, nested: Nested | None,
    chosen: Sequence[tuple[int, str]], shared: Resamples,
) -> dict[int, Statistics]:  # fmt: skip
    """The registered method without each of the chosen units (place, name); where it is not defined there is none."""
    found: dict[int, Statistics] = {}
    for i, gone in chosen:
        left = [_without(gone, arm) for arm in (treatment, control or {})]
        inside = None
        if nested is not None:
            differences = {seed: _without(gone, units) for seed, units in nested.differences.items()}
            inside = Nested(
                differences=differences, samples=None if nested.samples is None else _without(gone, nested.samples)
            )
        try:
            estimate = analyse(
                analysis, metric, left[0], left[1] if control is not None else None, nested=inside, shared=shared
            )
        except InapplicableError:
            continue
        found[i] = estimate.statistics
    return found


def _without(gone: str, units: Mapping[str, Any]) -> dict[str, Any]:
    return {unit: value for unit, value in units.items() if unit != gone}


def bootstraps_without_each(
    analysis: Analysis, metric: Metric, differences: Lattice, places: Sequence[int], *, needed: AbstractSet[str]
) -> dict[int, Statistics]:
    """The paired bootstrap of all differences but one, for the one at each of `places`: `delta`, `p`, `reject` and what
    is needed of the bounds.

    `differences` are in the order of the units. Raises InapplicableError where the analysis lacks a parameter.
    """
    if analysis.p is None or analysis.resamples is None or analysis.seed is None:
        raise InapplicableError("paired_bootstrap needs p, resamples and seed")
    n, resamples = differences.n - 1, analysis.resamples
    limit = metric.scale[1] - metric.scale[0]
    step = max(1, -(-differences.largest * n // 2**EXACT))
    steps = np.array([round(Fraction(x, step)) for x in differences.numerators], dtype=np.float64)
    columns = np.stack([np.delete(steps, i) for i in places], axis=1)
    blocks = list(count_matrix(analysis.seed, n, resamples))
    sums = np.concatenate([block @ columns for block in blocks]).T.copy()
    squares = np.empty((0, 0))
    if analysis.p == "studentized":
        squares = np.concatenate([block @ (columns * columns) for block in blocks]).T.copy()
    found: dict[int, Statistics] = {}
    for j, i in enumerate(places):
        left = Lattice(
            numerators=differences.numerators[:i] + differences.numerators[i + 1 :], denominator=differences.denominator
        )
        if analysis.p in ("studentized", "bca") and left.scatter == 0:
            found[i] = paired_bootstrap(
                left, p=analysis.p, side=analysis.side, alpha=analysis.alpha, resamples=resamples, seed=analysis.seed,
                limit=limit, interval=analysis.interval,
            ).statistics  # fmt: skip
            continue
        look = _Look(
            analysis=analysis, left=left, sums=sums[j], steps=columns[:, j], step=step, limit=limit,
            squares=squares[j] if analysis.p == "studentized" else None,
        )  # fmt: skip
        found[i] = look.statistics(needed)
    return found


class _Look:
    """One paired bootstrap from its resampled sums, in steps of step / denominator."""

    def __init__(
        self, *, analysis: Analysis, left: Lattice, sums: NDArray[np.float64], steps: NDArray[np.float64], step: int,
        limit: float, squares: NDArray[np.float64] | None,
    ) -> None:  # fmt: skip
        self.analysis, self.left, self.sums, self.limit = analysis, left, sums, limit
        self.n, self.total = left.n, float(steps.sum())
        self.unit = step / left.denominator / self.n
        """A resampled sum of 1 as a mean."""
        self.mean = float(left.mean)
        if squares is not None:
            spread = self.n * squares - sums * sums
            self.still = spread == 0
            self.t = (sums - self.total) / np.sqrt(np.where(self.still, 1.0, spread))
            self.root = math.sqrt(self.n * float((steps * steps).sum()) - self.total**2)

    def statistics(self, needed: AbstractSet[str]) -> Statistics:
        analysis, resamples = self.analysis, len(self.sums)
        level = exact(analysis.alpha)
        if analysis.p == "bca":
            below, equal = int(np.count_nonzero(self.sums < self.total)), int(np.count_nonzero(self.sums == self.total))
            self.correction = Correction.of(self.left, below, equal, resamples)
        greater, less = (Fraction(1 + int(np.count_nonzero(hits)), resamples + 1) for hits in self._extreme())
        if analysis.p == "bca":
            floor = Fraction(1, resamples + 1)
            greater = max(floor, exact(self.correction.level(greater)))
            less = max(floor, exact(self.correction.mirrored.level(less)))
        p = p_of(analysis.side, greater, less)
        found = {"delta": tidy(self.mean), "p": float(p), "reject": float(p < level)}
        tails = {"lower": level, "upper": level}
        tails |= dict.fromkeys(("ci_low", "ci_high"), interval_tail(analysis.side, level, analysis.interval))
        for name in sorted(needed & tails.keys()):
            own = name in ("lower", "upper") or analysis.interval is None
            bound = self._bound(tails[name], low=name in ("lower", "ci_low"), own=own)
            found[name] = tidy(min(max(bound, -self.limit), self.limit))
        return found

    def _extreme(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which resamples are at or beyond the observed mean, for "greater" and for "less"."""
        match self.analysis.p:
            case "percentile" | "bca":
                return self.sums <= 0, self.sums >= 0
            case "shift":
                return self.sums >= 2 * self.total, self.sums <= 2 * self.total
            case "studentized":
                observed = self.total / self.root
                return (self.t >= observed) | self.still, (self.t <= observed) | self.still
            case "exact" | "corrected" | None:
                raise InapplicableError(f"{self.analysis.p} is no definition of the bootstrap's p")
            case _:
                assert_never(self.analysis.p)

    def _bound(self, tail: Fraction, *, low: bool, own: bool) -> float:
        """A bound of the method's own, or of the percentile interval of the same resamples."""
        p: Any = self.analysis.p if own else "percentile"
        if p == "studentized":
            inner = Quantiles(np.where(self.still, np.inf if low else -np.inf, self.t), (-math.inf, math.inf))
            reached = inner.high(tail) if low else inner.low(tail)
            return self.mean - reached * self.root * self.unit
        ends = (-math.inf, math.inf) if p == "shift" else (-self.limit, self.limit)
        means = Quantiles(self.sums * self.unit, ends)
        if p == "shift":
            return 2 * self.mean - (means.high(tail) if low else means.low(tail))
        if p == "bca":
            tail = (self.correction if low else self.correction.mirrored).tail(tail)
        return means.low(tail) if low else means.high(tail)
