"""Registered analyses on many simulated experiments at once: the statistics that gates read.

Vectorised here: the paired bootstrap (percentile, shift, studentized), the bootstrap of a level, and the methods
that need the 2 x 2 table or the count of successes alone (Newcombe's paired interval, McNemar, Wilson). Every other
method, and every experiment that the fast path does not settle exactly (no spread, a resample that may stand still,
more than `resamples.GROUPED_FROM` units), goes through `statistics.analyse`, one experiment after another: slower,
never approximated. p and reject are the engine's to the bit; bounds agree to the last of their 12 decimals but for
rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from epc.compiler.contract.manifest import Analysis, Metric, Side
from epc.runtime.simulate.resampled import (
    DOUBLE,
    Resample,
    Tally,
    coarse_t_tally,
    exact_products,
    fine_t_tally,
    may_stand_still,
    sums_tally,
)
from epc.runtime.simulate.values import Lattices, Means, differences, on_lattices
from epc.runtime.statistics import InapplicableError, analyse, interval_tail
from epc.runtime.statistics.estimate import assemble, exact, rank, significant, tidy
from epc.runtime.statistics.mcnemar import corrected_p, exact_p
from epc.runtime.statistics.newcombe_paired import PairedTable
from epc.runtime.statistics.resamples import GROUPED_FROM
from epc.runtime.statistics.wilson import normal_quantile, score_limits

Floats = NDArray[np.float64]
Statistics = dict[str, Floats]
"""Statistic -> its value in each experiment, NaN where it is unknown."""
NEAR: Final = 1e-9
"""A float mean this close to a threshold is computed again as a fraction."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What somebody reads of an analysis: the rest is not computed."""

    statistics: frozenset[str]
    thresholds: tuple[float, ...] = ()
    """What its point estimate is compared with."""

    @property
    def tested(self) -> bool:
        return bool(self.statistics & {"p", "reject"})

    @property
    def bounded(self) -> bool:
        return bool(self.statistics & {"lower", "upper", "ci_low", "ci_high"})


@dataclass(kw_only=True)
class Draws:
    """Resample counts by seed, units and resamples: drawn once for all experiments, analyses and truths."""

    resamples: int | None = None
    """Instead of the registered number, None to keep it."""
    most: int | None = None
    """Never more than these."""
    _held: dict[tuple[int, int, int], Resample] = field(default_factory=dict)

    def of(self, analysis: Analysis, units: int) -> Resample:
        if analysis.seed is None or analysis.resamples is None:
            raise TypeError(f"{analysis.name} draws no resamples")
        key = (analysis.seed, units, analysis.resamples)
        if key not in self._held:
            self._held[key] = Resample.of(*key)
        return self._held[key]

    def registered(self, analysis: Analysis) -> Analysis:
        if analysis.resamples is None:
            return analysis
        wanted = self.resamples or analysis.resamples
        return analysis.model_copy(update={"resamples": wanted if self.most is None else min(wanted, self.most)})


def statistics(
    analysis: Analysis, metric: Metric, arms: Sequence[Means], wanted: Wanted, draws: Draws, experiments: int
) -> Statistics:
    """Statistics of one analysis from the unit means of its arms, the treatment first."""
    analysis = draws.registered(analysis)
    found = {name: np.full(experiments, np.nan) for name in wanted.statistics}
    known = np.broadcast_to(np.logical_and.reduce([arm.known for arm in arms]), _shape(arms, experiments))
    # A unit without a value is a hole where in some arm it lacks one for another reason than the filter.
    unexplained = np.logical_or.reduce([~arm.known & ~arm.emptied for arm in arms])
    unit_missing = np.broadcast_to(unexplained, known.shape).any(axis=1)
    emptied = np.broadcast_to(np.logical_or.reduce([arm.emptied for arm in arms]), known.shape).any(axis=1)
    missing = np.broadcast_to(
        np.sum([np.broadcast_to(arm.missing, (experiments,)) for arm in arms], axis=0), emptied.shape
    )
    usable = np.ones(experiments, dtype=bool)
    if metric.missing == "fail":
        usable &= (missing == 0) & ~unit_missing
    if metric.empty == "fail":
        usable &= ~emptied
    if len(arms) == 2:
        top, bottom = differences(arms[0], arms[1])
    else:
        top, bottom = arms[0].top, arms[0].bottom
    top = np.broadcast_to(top, known.shape)
    bottom = bottom if bottom.size == 1 else np.broadcast_to(bottom, known.shape)
    sizes = known.sum(axis=1)
    for size in np.unique(sizes[usable]):
        rows = np.flatnonzero(usable & (sizes == size))
        if size == 0:
            continue
        if size == known.shape[1]:
            picked = (top[rows], bottom if bottom.size == 1 else bottom[rows])
            outcomes = _outcomes(analysis, arms, rows, None, experiments)
        else:
            # Units keep their order; those without a value are left out.
            place = np.argsort(~known[rows], axis=1, kind="stable")[:, :size]
            full = np.broadcast_to(bottom, known.shape)[rows]
            picked = (np.take_along_axis(top[rows], place, 1), np.take_along_axis(full, place, 1))
            outcomes = _outcomes(analysis, arms, rows, place, experiments)
        sized = (
            _sized(analysis, metric, *picked, wanted, draws)
            if outcomes is None
            else _by_table(analysis, outcomes, wanted)
        )
        for name, values in sized.items():
            found[name][rows] = values
    return found


def _shape(arms: Sequence[Means], experiments: int) -> tuple[int, int]:
    return (experiments, max(arm.top.shape[1] for arm in arms))


@dataclass(frozen=True, kw_only=True)
class _Outcomes:
    """Units by outcome, one row an experiment: (both, treatment only, control only, neither), or (successes, failures)."""

    counts: NDArray[np.int64]
    binary: NDArray[np.bool_]
    """Whether every unit is 0 or 1 in every arm; without that the method is not defined."""


def _outcomes(
    analysis: Analysis, arms: Sequence[Means], rows: NDArray[np.int64], place: NDArray[np.int64] | None, experiments: int
) -> _Outcomes | None:  # fmt: skip
    """For methods that need counts alone, None for others."""
    if analysis.method not in ("newcombe_paired", "mcnemar", "wilson"):
        return None
    hits, binary = [], np.ones(len(rows), dtype=bool)
    for arm in arms:
        top, bottom = (np.broadcast_to(each, _shape(arms, experiments))[rows] for each in (arm.top, arm.bottom))
        if place is not None:
            top, bottom = (np.take_along_axis(each, place, 1) for each in (top, bottom))
        hits.append(top == bottom)
        binary &= ((top == 0) | hits[-1]).all(axis=1)
    first, second = hits[0], hits[-1]
    masks = [first & second, first & ~second, ~first & second, ~first & ~second] if len(hits) == 2 else [first, ~first]
    return _Outcomes(counts=np.stack([mask.sum(axis=1) for mask in masks], axis=1), binary=binary)


def _sized(
    analysis: Analysis, metric: Metric, top: NDArray[Any], bottom: NDArray[Any], wanted: Wanted, draws: Draws
) -> Statistics:
    """Experiments that all have the same number of units."""
    point = "delta" if analysis.contrast is not None else "value"
    data = on_lattices(top, bottom)
    means = analysis.method != "sign_test"  # its delta is the median
    found = {point: _estimates(data, wanted)} if means and point in wanted.statistics else {}
    left = wanted.statistics - found.keys()
    if not left:
        return found
    found |= {name: np.empty(len(data.numerators)) for name in left}
    fast = _fast(analysis, data)
    rows = np.flatnonzero(fast)
    if len(rows):
        for name, values in _bootstrap(analysis, metric, data.taken(rows), Wanted(statistics=left), draws).items():
            found[name][rows] = values
    for name, values in _one_by_one(analysis, metric, data, np.flatnonzero(~fast), left).items():
        found[name][~fast] = values
    return found


def _estimates(data: Lattices, wanted: Wanted) -> Floats:
    """Means of the values as they came, to 12 decimals."""
    found = data.numerators.sum(axis=1) / (data.n * data.denominators)
    for row in np.flatnonzero(data.rounded):
        found[row] = np.sum(data.top[row].astype(np.float64) / data.bottom[row].astype(np.float64)) / data.n
        if any(abs(found[row] - constant) < NEAR for constant in wanted.thresholds):
            found[row] = float(data.exact_mean(int(row)))
    return _tidy(found)


def _tidy(values: Floats) -> Floats:
    return np.round(values, 12) + 0.0


def _fast(analysis: Analysis, data: Lattices) -> NDArray[np.bool_]:
    """Experiments that the vectorised bootstrap settles exactly; see the module."""
    if analysis.method not in ("paired_bootstrap", "bootstrap") or analysis.resamples is None or analysis.seed is None:
        return np.zeros(len(data.numerators), dtype=bool)
    if data.n >= GROUPED_FROM or analysis.p == "bca":
        return np.zeros(len(data.numerators), dtype=bool)
    fits: NDArray[np.bool_] = 2 * data.n * np.abs(data.numerators).max(axis=1).astype(np.float64) < DOUBLE
    return fits


@dataclass(frozen=True, kw_only=True)
class _Ranks:
    """Which order statistics the bounds of an analysis are."""

    test: int
    shown: int

    @classmethod
    def of(cls, analysis: Analysis, resamples: int) -> _Ranks:
        level = exact(analysis.alpha)
        tail = interval_tail(analysis.side, level, analysis.interval)
        return cls(test=rank(resamples, level), shown=rank(resamples, tail))

    def needed(self, wanted: Wanted) -> tuple[set[int], set[int]]:
        """Order statistics from the bottom and from the top."""
        low = {k for name, k in (("lower", self.test), ("ci_low", self.shown)) if name in wanted.statistics}
        high = {k for name, k in (("upper", self.test), ("ci_high", self.shown)) if name in wanted.statistics}
        return low - {0}, high - {0}


def _bootstrap(analysis: Analysis, metric: Metric, data: Lattices, wanted: Wanted, draws: Draws) -> Statistics:
    """The bootstrap, percentile, shift or studentized, of a contrast or of a level; see `statistics.paired_bootstrap`."""
    resample = draws.of(analysis, data.n)
    level = analysis.contrast is None
    limit = metric.scale[1] - metric.scale[0]
    ends = metric.scale if level else (-limit, limit)
    ranks = _Ranks.of(analysis, resample.resamples)
    low, high = ranks.needed(wanted)
    x, total = data.numerators, data.numerators.sum(axis=1)
    scale = (data.n * data.denominators).astype(np.float64)
    mean = total / scale
    found: Statistics = {}
    # An interval of its own level beside a test of another definition is the percentile interval.
    apart = not level and analysis.p != "percentile" and analysis.interval is not None
    shown = {"ci_low", "ci_high"} & wanted.statistics if apart else set()
    if shown:
        bare = Wanted(statistics=frozenset(shown))
        tally = sums_tally(resample, x, np.zeros(len(x), dtype=np.int64), *ranks.needed(bare))
        found |= _percentile(tally, ranks, bare, scale, ends)
        wanted = Wanted(statistics=wanted.statistics - shown)
        low, high = ranks.needed(wanted)
    match analysis.p:
        case "percentile" | None:
            tally = sums_tally(resample, x, np.zeros(len(x), dtype=np.int64), low, high)
            found |= _percentile(tally, ranks, wanted, scale, ends)
            greater, less = tally.at_most, tally.at_least
        case "shift":
            tally = sums_tally(resample, x, 2 * total, low=high, high=low)
            found |= {name: 2 * mean - end / scale for name, end in _mirrored(tally, ranks, wanted).items()}
            greater, less = tally.at_least, tally.at_most
        case "studentized":
            tally, flat = _studentized(resample, x, low=high, high=low)
            width = np.sqrt(data.n * (x.astype(np.float64) ** 2).sum(axis=1) - total.astype(np.float64) ** 2) / scale
            found |= {name: mean - end * width for name, end in _mirrored(tally, ranks, wanted).items()}
            greater, less = tally.at_least, tally.at_most
            rest = _one_by_one(analysis, metric, data, np.flatnonzero(flat), wanted.statistics | shown)
        case _:
            raise AssertionError(analysis.p)
    clip = metric.scale if level else (-limit, limit)
    for name in found:
        found[name] = _tidy(np.clip(found[name], *clip))
    if wanted.tested and not level:
        found |= _tested(analysis, greater, less, resample.resamples)
    if analysis.p == "studentized":
        for name, values in rest.items():
            found[name][flat] = values
    return {name: values for name, values in found.items() if name in wanted.statistics | shown}


def _mirrored(tally: Tally, ranks: _Ranks, wanted: Wanted) -> Statistics:
    """What bounds are measured back from: the lower one from the top, the upper one from the bottom."""
    return {
        name: held[k] if k else np.full(len(tally.at_least), end)
        for name, k, held, end in (
            ("lower", ranks.test, tally.high, np.inf), ("ci_low", ranks.shown, tally.high, np.inf),
            ("upper", ranks.test, tally.low, -np.inf), ("ci_high", ranks.shown, tally.low, -np.inf),
        )
        if name in wanted.statistics
    }  # fmt: skip


def _percentile(tally: Tally, ranks: _Ranks, wanted: Wanted, scale: Floats, ends: tuple[float, float]) -> Statistics:
    return {
        name: held[k] / scale if k else np.full(len(scale), end)
        for name, k, held, end in (
            ("lower", ranks.test, tally.low, ends[0]), ("ci_low", ranks.shown, tally.low, ends[0]),
            ("upper", ranks.test, tally.high, ends[1]), ("ci_high", ranks.shown, tally.high, ends[1]),
        )
        if name in wanted.statistics
    }  # fmt: skip


def _studentized(
    resample: Resample, x: NDArray[np.int64], low: set[int], high: set[int]
) -> tuple[Tally, NDArray[np.bool_]]:  # fmt: skip
    """The tally of t*, and the experiments that it leaves open: no spread, or too fine while a resample may stand still."""
    coarse = exact_products(x)
    flat = (x == x[:, :1]).all(axis=1)
    flat |= ~coarse & may_stand_still(resample, x)
    found = Tally.empty(len(x), low, high)
    for rows, tally in ((coarse & ~flat, coarse_t_tally), (~coarse & ~flat, fine_t_tally)):
        mine = np.flatnonzero(rows)
        if len(mine):
            part = tally(resample, x[mine], low, high)
            found.at_least[mine], found.at_most[mine] = part.at_least, part.at_most
            for whole, some in ((found.low, part.low), (found.high, part.high)):
                for k, values in some.items():
                    whole[k][mine] = values
    return found, flat


def _tested(analysis: Analysis, greater: NDArray[np.int64], less: NDArray[np.int64], resamples: int) -> Statistics:
    """p and reject from how many resamples are extreme on either side."""
    extreme = 1 + _sided(analysis.side, greater, less)
    factor = 2 if analysis.side == "two_sided" else 1
    level = exact(analysis.alpha)
    reject = np.array([factor * int(k) * level.denominator < level.numerator * (resamples + 1) for k in extreme])
    return {"p": np.minimum(1.0, factor * extreme / (resamples + 1)), "reject": reject.astype(np.float64)}


def _sided(side: Side, greater: NDArray[np.int64], less: NDArray[np.int64]) -> NDArray[np.int64]:
    match side:
        case "greater":
            return greater
        case "less":
            return less
        case "two_sided":
            return np.minimum(greater, less)


def _by_table(analysis: Analysis, outcomes: _Outcomes, wanted: Wanted) -> Statistics:
    """Each distinct table once; unknown where a unit is neither 0 nor 1."""
    counts = outcomes.counts
    if wanted.statistics <= {"delta", "value"}:
        gained = counts[:, 1] - counts[:, 2] if counts.shape[1] == 4 else counts[:, 0]
        estimates = np.where(outcomes.binary, _tidy(gained / counts.sum(axis=1)), np.nan)
        return dict.fromkeys(wanted.statistics, estimates)
    distinct, where = np.unique(counts, axis=0, return_inverse=True)
    rows = [
        _of_table(
            tuple(map(int, row)), analysis.method, analysis.p or "", analysis.side, analysis.alpha, analysis.interval,
            wanted.tested,
        )
        for row in distinct
    ]  # fmt: skip
    return {
        name: np.where(outcomes.binary, np.array([row[name] for row in rows])[where.reshape(-1)], np.nan)
        for name in wanted.statistics
    }


@lru_cache(maxsize=1 << 16)
def _of_table(
    counts: tuple[int, ...], method: str, definition: str, side: Side, alpha: float, interval: float | None, tested: bool
) -> Mapping[str, float]:  # fmt: skip
    """Every statistic of one table; p is 1 where nobody reads it, since inverting an interval takes time."""
    level = exact(alpha)
    if len(counts) == 2:
        successes, n = counts[0], sum(counts)
        tail = interval_tail(side, level, interval)
        lower, upper = score_limits(successes, n, normal_quantile(level))
        ci_low, ci_high = score_limits(successes, n, normal_quantile(tail))
        bounds = {"lower": lower, "upper": upper, "ci_low": ci_low, "ci_high": ci_high}
        return {"value": successes / n, **{name: tidy(bound) for name, bound in bounds.items()}}
    both, one, other, neither = counts
    table = PairedTable(both=both, treatment_only=one, control_only=other, neither=neither)
    p: float | Fraction = Fraction(1)
    if tested and method == "mcnemar":
        p = exact_p(one, other, side) if definition == "exact" else corrected_p(one, other, side)
    elif tested:
        greater, less = table.p_greater(), table.mirrored().p_greater()
        p = significant({"greater": greater, "less": less, "two_sided": min(1.0, 2 * min(greater, less))}[side])
    return assemble(
        differences=None, estimate=Fraction(one - other, sum(counts)), side=side, alpha=alpha, interval=interval, p=p,
        bounds=table.bounds, limit=1.0, definition="",
    ).statistics  # fmt: skip


def _one_by_one(
    analysis: Analysis, metric: Metric, data: Lattices, rows: NDArray[np.int64], names: Collection[str]
) -> Statistics:  # fmt: skip
    """What the engine says of each experiment; unknown where the method is not defined for it."""
    found = {name: np.full(len(rows), np.nan) for name in names}
    units = [f"{unit:06d}" for unit in range(data.n)]
    zero = dict.fromkeys(units, Fraction(0))
    seen: dict[bytes, Mapping[str, float]] = {}
    for place, row in enumerate(rows):
        top, bottom = data.top[row], data.bottom[row]
        key = repr((top.tolist(), bottom.tolist())).encode()
        if key not in seen:
            values = {
                unit: Fraction(int(t), int(b)) for unit, t, b in zip(units, top, bottom, strict=True)
            }  # fmt: skip
            try:
                seen[key] = analyse(
                    analysis, metric, values, zero if analysis.contrast is not None else None
                ).statistics
            except InapplicableError:
                seen[key] = {}
        for name in names:
            found[name][place] = seen[key].get(name, np.nan)
    return found
