"""The data model: what a truth says, as completions scored in every arm.

Units. Metric m in arm a has the true mean mu of the truth. Its unit means theta follow a beta distribution on the
metric's scale with mean mu and standard deviation `unit_sd` (the largest that mu allows, two points at the ends,
where unit_sd is larger). Arms share units through a Gaussian copula: the normal score of unit u in arm a is
sqrt(r) g_u + sqrt(1 - r) e_au, r = `correlation`. For skewed marginals the correlation of the means themselves is a
little below r.

Trained arms. Where a metric declares `noise`, each arm and training seed adds a normal deviation of that standard
deviation to its theta, cut off at the scale. Without it a truth is one of these checkpoints: variance between
training seeds is then not in the figures.

Samples, n per unit, on the integer lattice of the real scores:
- two-valued scores (patterns, yes-or-no fields, comparisons, benchmark items): high with probability theta.
- other scores: with probability `extreme` a sample lies at an end of the scale, the upper one in the proportion that
  gives mean theta; else at theta itself (their sum rounded up or down at random, so the mean is kept). The variance
  within a unit is then extreme x (theta - low) (high - theta). `extreme` is 0.25 by default, half of the largest
  standard deviation there is; 1 is a judge that knows two scores only.

Missing scores: each completion with the truth's probability `missing`, once for all metrics of a judge (the largest
that one of them declares), in every arm alike.

Filters. A completion is dropped with the probability that the metric which measures the filter declares (the metric
of the same judge and sample set that scores the opposite comparison, such as `coherent < 50` for
`coherent >= 50`, or the comparison itself), unit by unit; that metric reads these very completions. Without such a
metric nothing is dropped. Means of a filtered metric are those of the completions that are kept. Those that are
dropped have the mean with which the same metric without its filter comes to its own declared mean, where there is
one and as far as the scale allows; else the mean of those that are kept. A metric without filter and
its filtered twin read the same completions.

Otherwise metrics are independent of each other given the truth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import lcm, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from epc.compiler.contract.manifest import Design, Metric, Truth, TruthOf
from epc.runtime.measurements import ALL, UNFILTERED
from epc.runtime.simulate.draws import LEVELS, Floats, at, draws, happens, marginal, normal

EXTREME: Final = 0.25
_COMPARISON: Final = re.compile(r"(\w+)\s*(<=|<|>=|>|==|!=)\s*(-?\d+)")
_OPPOSITE: Final = {"<": ">=", ">=": "<", ">": "<=", "<=": ">", "==": "!=", "!=": "=="}

Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a design plans of a metric."""

    units: int
    samples: int


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One metric in one arm, training seed and slice: counts by experiment and unit, (E, U) or broadcast to it."""

    n: Counts
    """Scored, and kept by the filter where it counts."""
    missing: Counts
    filtered: Counts
    total: Counts
    """Of the scores, in steps of the lattice."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A metric's scale as integers: a score is a whole number of steps of 1 / denominator."""

    low: int
    high: int
    denominator: int

    @classmethod
    def of(cls, metric: Metric) -> Scale:
        low, high = (Fraction(repr(float(end))) for end in metric.scale)
        denominator = lcm(low.denominator, high.denominator)
        return cls(low=int(low * denominator), high=int(high * denominator), denominator=denominator)

    @property
    def two_valued(self) -> bool:
        return self.high - self.low == 1


Key = tuple[str, str, str]
"""(metric, slice, arm)."""
Data = Mapping[Key, tuple[Cell, ...]]
"""One cell a training seed of the arm."""


@dataclass(frozen=True, kw_only=True)
class Instrument:
    """Metrics that read the same completions through the same judge; of other kinds each is alone."""

    name: str
    metrics: tuple[Metric, ...]

    def twin(self, metric: Metric) -> Metric | None:
        """The same score without a filter, or the filtered one of an unfiltered metric."""
        for other in self.metrics:
            same = other is not metric and metric.score is not None and other.score == metric.score
            if same and (other.filter is None) != (metric.filter is None):
                return other
        return None

    def measures(self, filter_: str) -> tuple[Metric, bool] | None:
        """The metric whose score says which completions a filter drops, and whether it is true of those it keeps."""
        for metric in self.metrics:
            if metric.filter is None and metric.score is not None:
                if _plain(metric.score) == _plain(filter_):
                    return metric, True
                if _plain(metric.score) == _opposite(filter_):
                    return metric, False
        return None


def _plain(comparison: str) -> str:
    found = _COMPARISON.fullmatch(comparison.strip())
    return comparison if found is None else "".join(found.groups())


def _opposite(comparison: str) -> str | None:
    found = _COMPARISON.fullmatch(comparison.strip())
    return None if found is None else f"{found[1]}{_OPPOSITE[found[2]]}{found[3]}"


def instruments(design: Design) -> tuple[Instrument, ...]:
    """Every metric of a design in exactly one instrument."""
    found: dict[str, list[Metric]] = {}
    for metric in design.metrics:
        name = metric.name if metric.judge is None else f"{metric.judge} on {metric.source}"
        found.setdefault(name, []).append(metric)
    return tuple(Instrument(name=name, metrics=tuple(metrics)) for name, metrics in found.items())


@dataclass(frozen=True, kw_only=True)
class World:
    """A design with its sizes; makes the scores of simulated experiments."""

    design: Design
    sizes: Mapping[str, Size]
    """Of every metric."""
    seed: int
    extreme: float = EXTREME

    @cached_property
    def instruments(self) -> tuple[Instrument, ...]:
        return instruments(self.design)

    @cached_property
    def _seeds(self) -> dict[str, tuple[tuple[int, ...], bool]]:
        return {condition.name: (condition.seeds, bool(condition.phases)) for condition in self.design.conditions}

    def scores(
        self, instrument: Instrument, truth: Truth, arms: Sequence[str], first: int, experiments: int,
        metrics: Sequence[str],
    ) -> Data:  # fmt: skip
        """Scores of `experiments` experiments, from number `first` on, of some metrics of an instrument in some arms.

        The truth has every metric of the instrument, with every arm.
        """
        found: dict[Key, tuple[Cell, ...]] = {}
        for arm in arms:
            cells: dict[tuple[str, str], list[Cell]] = {}
            for seed in self._seeds[arm][0]:
                made = _Arm(
                    world=self, instrument=instrument, truth=truth, arm=arm, training_seed=seed,
                    trained=self._seeds[arm][1], first=first, experiments=experiments, metrics=frozenset(metrics),
                )  # fmt: skip
                for key, cell in made.cells():
                    cells.setdefault(key, []).append(cell)
            found |= {(metric, slice_, arm): tuple(each) for (metric, slice_), each in cells.items()}
        return found


@dataclass(frozen=True, kw_only=True)
class _Arm:
    """One arm and training seed of an instrument."""

    world: World
    instrument: Instrument
    truth: Truth
    arm: str
    training_seed: int
    trained: bool
    first: int
    experiments: int
    metrics: frozenset[str]

    @cached_property
    def _size(self) -> Size:
        return self.world.sizes[self.instrument.metrics[0].name]

    def _draws(self, *purpose: object, each: int) -> NDArray[np.uint16]:
        return draws((self.world.seed, self.instrument.name, *purpose), self.first, self.experiments, each)

    def _by_sample(self, *purpose: object) -> NDArray[np.uint16]:
        units, samples = self._size.units, self._size.samples
        found = self._draws(*purpose, self.arm, self.training_seed, each=units * samples)
        return found.reshape(self.experiments, units, samples)

    @cached_property
    def _missing(self) -> Flags | None:
        """Which completions lack a score, None where none does."""
        rate = max(self.truth.metrics[metric.name].missing for metric in self.instrument.metrics)
        return happens(self._by_sample("missing"), rate) if rate > 0 else None

    def _of(self, metric: Metric) -> TruthOf:
        return self.truth.metrics[metric.name]

    def _theta(self, metric: Metric, mean: float | None = None) -> Floats:
        """True unit means, (E, U), in units of the metric; of the same units with another mean of the arm, if given."""
        of, units = self._of(metric), self._size.units
        low, high = metric.scale
        table = marginal(of.means[self.arm] if mean is None else mean, of.unit_sd, low, high)
        if of.unit_sd == 0 or table[0] == table[-1]:
            theta = np.full((self.experiments, units), table[0])
        else:
            deviates = sqrt(1 - of.correlation) * normal(self._draws(metric.name, "unit", self.arm, each=units))
            if of.correlation > 0:
                deviates += sqrt(of.correlation) * normal(self._draws(metric.name, "unit", each=units))
            theta = at(table, deviates)
        if metric.noise and self.trained:
            shift = normal(self._draws(metric.name, "checkpoint", self.arm, self.training_seed, each=1))
            theta = np.clip(theta + metric.noise * shift, low, high)
        return theta

    def _dropped(self, filter_: str) -> Flags | None:
        """Which completions a filter drops, None where no metric measures it."""
        found = self.instrument.measures(filter_)
        if found is None:
            return None
        metric, kept = found
        true = happens(self._by_sample(metric.name, "sample"), self._theta(metric)[..., None])
        return ~true if kept else true

    def cells(self) -> Iterator[tuple[tuple[str, str], Cell]]:
        """Every metric in slice `all`, and those with a filter in slice `unfiltered` too."""
        for metric in self.instrument.metrics:
            twin = self.instrument.twin(metric)
            if metric.name not in self.metrics and (twin is None or twin.name not in self.metrics):
                continue
            if metric.filter is None and twin is not None and self.instrument.measures(twin.filter or "") is not None:
                continue  # it comes with its twin
            yield from self._metric_cells(metric, twin)

    def _metric_cells(self, metric: Metric, twin: Metric | None) -> Iterator[tuple[tuple[str, str], Cell]]:
        size, scale = self._size, Scale.of(metric)
        missing = self._missing
        theta = self._theta(metric)
        dropped = None if metric.filter is None else self._dropped(metric.filter)
        scored = None if missing is None else ~missing
        nothing = np.zeros((1, 1), dtype=np.int64)
        n_missing = nothing if missing is None else _count(missing)
        n_all = size.samples - n_missing if missing is not None else np.full((1, 1), size.samples, dtype=np.int64)
        if dropped is None:
            whole = Cell(
                n=n_all, missing=n_missing, filtered=nothing, total=self._total(metric, scale, theta, scored, n_all)
            )
            yield (metric.name, ALL), whole
            if metric.filter is not None:
                yield (metric.name, UNFILTERED), whole
            return
        if scored is not None:
            dropped &= scored
        kept = ~dropped if scored is None else scored & ~dropped
        n_kept, n_dropped = _count(kept), _count(dropped)
        total_kept = self._total(metric, scale, theta, kept, n_kept)
        mean = self._mean_dropped(metric, twin)
        theta = theta if mean is None else self._theta(metric, mean)
        total_dropped = self._total(metric, scale, theta, dropped, n_dropped)
        without = Cell(n=n_all, missing=n_missing, filtered=nothing, total=total_kept + total_dropped)
        yield (metric.name, ALL), Cell(n=n_kept, missing=n_missing, filtered=n_dropped, total=total_kept)
        yield (metric.name, UNFILTERED), without
        if twin is not None:
            yield (twin.name, ALL), without

    def _mean_dropped(self, metric: Metric, twin: Metric | None) -> float | None:
        """Mean score of what the filter drops, None where it is that of what is kept."""
        found = self.instrument.measures(metric.filter or "")
        if twin is None or found is None:
            return None
        share = self._of(found[0]).means[self.arm]
        share = 1 - share if found[1] else share
        if share <= 0:
            return None
        low, high = metric.scale
        kept, whole = self._of(metric).means[self.arm], self._of(twin).means[self.arm]
        return min(max((whole - (1 - share) * kept) / share, low), high)

    def _total(self, metric: Metric, scale: Scale, theta: Floats, mask: Flags | None, n: Counts) -> Counts:
        """Sum of the scores of the completions under a mask, None for all, with n of them in each unit."""
        low, high = metric.scale
        share = ((theta - low) / (high - low))[..., None]
        values = self._by_sample(metric.name, "sample")

        def count(flags: Flags) -> Counts:
            return _count(flags if mask is None else flags & mask)

        if scale.two_valued:
            return scale.low * n + count(happens(values, share))
        extreme = self.world.extreme
        top, end = count(happens(values, extreme * share)), count(happens(values, extreme))
        rounding = self._draws(metric.name, "round", self.arm, self.training_seed, each=self._size.units) / LEVELS
        middle = np.floor((n - end) * (theta * scale.denominator) + rounding).astype(np.int64)
        return scale.high * top + scale.low * (end - top) + middle


def _count(flags: Flags) -> Counts:
    """How many samples of each unit."""
    if flags.shape[-1] == 1:
        return flags[..., 0].astype(np.int64)
    kind: Any = np.uint8 if flags.shape[-1] < 256 else np.uint32
    found: Counts = np.add.reduce(flags.view(np.uint8), axis=-1, dtype=kind).astype(np.int64)
    return found
