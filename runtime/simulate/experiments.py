"""Simulated experiments of a design under a truth: scores, statistics, built-in checks, verdicts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from epc.compiler.contract.decision import Slice
from epc.compiler.contract.logic import Atom, leaves
from epc.compiler.contract.manifest import Analysis, Design, Gate, Metric, Truth
from epc.runtime.estimates import arms_of
from epc.runtime.measurements import ALL, UNFILTERED
from epc.runtime.missingness import CORNERS, DIFFERENTIAL_GAP, DIFFERENTIAL_P, SCORED_BY_OTHERS, read_by_the_decision
from epc.runtime.simulate.contrasts import Draws, Statistics, Wanted, statistics
from epc.runtime.simulate.model import Cell, Data, Instrument, Scale, Size, World
from epc.runtime.simulate.values import means
from epc.runtime.simulate.verdicts import UNKNOWN, Panel, Results, Truths, class_of
from epc.runtime.statistics.fisher import fisher_two_sided
from epc.runtime.switches import governed, variants_of
from epc.runtime.verdict import INVALID

UNSIMULATED: Final = ("two_level", "cluster_bootstrap", "newcombe")
"""Methods that need more than one mean a unit, or other units in each arm."""
HELD: Final = 1 << 20
"""Completions of one arm that are held at once. No result depends on it."""

_SLICES: Mapping[Slice | None, str] = {None: ALL, "filtered": ALL, "unfiltered": UNFILTERED}


def wanted_of(design: Design) -> dict[str, Wanted]:
    """What gates read of each analysis; one that no gate reads is not simulated."""
    methods = {analysis.name: analysis.method for analysis in design.analyses}
    found: dict[str, set[str]] = {}
    thresholds: dict[str, list[float]] = {}
    for gate in design.gates:
        for leaf in leaves(gate.predicate):
            if isinstance(leaf, Atom) and methods[leaf.analysis] not in UNSIMULATED:
                found.setdefault(leaf.analysis, set()).add(leaf.statistic)
                if leaf.statistic in ("delta", "value"):
                    thresholds.setdefault(leaf.analysis, []).append(leaf.constant)
    for analysis in design.analyses:
        in_family = any(analysis.name in family.analyses for family in design.families)
        if analysis.name in found and (analysis.confirmatory or in_family):
            found[analysis.name] |= {"p", "reject"}
    return {
        name: Wanted(statistics=frozenset(names), thresholds=tuple(thresholds.get(name, ())))
        for name, names in found.items()
    }


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Completions of an arm without a score, (E,), and how many completions there are."""

    lost: NDArray[np.int64]
    total: int


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What one instrument gives under a truth."""

    results: Mapping[str, Statistics]
    corners: tuple[Mapping[str, Statistics], ...]
    """At each of CORNERS; empty where nothing is missing."""
    missing: Mapping[tuple[str, str], Missing]
    """(metric, arm)."""


@dataclass(frozen=True, kw_only=True)
class Simulated:
    """Decided experiments."""

    panel: Panel
    sound: NDArray[np.bool_]
    """Whether the built-in checks of missing scores hold."""

    @cached_property
    def labels(self) -> NDArray[np.str_]:
        return self.settled(self.panel.labels())

    def truths(self, gate: Gate) -> Truths:
        """Of each experiment; a follow-up is read after the verdicts that it waits for, and is unknown after others."""
        found = self.panel.truths(gate)
        if gate.role != "follow_up" or not gate.on:
            return found
        rules = self.panel.design.verdicts
        awaited = [label for label in set(self.labels.tolist()) if class_of(rules, label) in gate.on]
        read = np.isin(self.labels, awaited)
        return np.where(read, found, UNKNOWN).astype(np.int8)

    def settled(self, labels: NDArray[np.str_]) -> NDArray[np.str_]:
        """INVALID where a built-in check fails, whatever the table says."""
        return np.where(self.sound, labels, INVALID)


class Simulator:
    """Simulates one design at one size.

    What an instrument gives under a truth is kept, so truths that agree about its metrics cost it once, and
    another number of units redoes the instruments that it touches.
    """

    def __init__(
        self,
        design: Design,
        sizes: Mapping[str, Size],
        *,
        seed: int,
        experiments: int,
        extreme: float,
        resamples: int | None = None,
        chunk: int | None = None,
    ) -> None:
        self.design, self.sizes, self.experiments = design, sizes, experiments
        self.seed, self.extreme = seed, extreme
        self.draws = Draws(resamples=resamples)
        self.wanted = wanted_of(design)
        self._chunk = chunk
        self._found: dict[tuple[object, ...], _Found] = {}
        self._metrics = {metric.name: metric for metric in design.metrics}
        self._read = [analysis for analysis in design.analyses if analysis.name in self.wanted]
        self._world = World(design=design, sizes=sizes, seed=seed, extreme=extreme)
        self._arms = [condition.name for condition in design.conditions]

    def resized(self, sizes: Mapping[str, Size], experiments: int, most: int) -> Simulator:
        """The same with other sizes and at most so many resamples; what is already simulated is shared."""
        other = Simulator(
            self.design, sizes, seed=self.seed, experiments=experiments, extreme=self.extreme, chunk=self._chunk
        )
        other.draws = Draws(resamples=self.draws.resamples, most=most)
        other._found = self._found
        return other

    def redesigned(self, design: Design) -> Simulator:
        """The same experiments under other gates and rules, which read no statistic that this design does not."""
        other = Simulator(
            design, self.sizes, seed=self.seed, experiments=self.experiments, extreme=self.extreme, chunk=self._chunk
        )
        other.draws, other._found, other.wanted = self.draws, self._found, self.wanted
        return other

    def simulate(self, truth: Truth) -> Simulated:
        """Every experiment under a truth, which has every metric and arm."""
        parts = [self._of(instrument, truth) for instrument in self._world.instruments]
        results: dict[str, Statistics] = {}
        for part in parts:
            results |= part.results
        panel = Panel(design=self.design, results=results, experiments=self.experiments)
        missing = {key: lost for part in parts for key, lost in part.missing.items()}
        sound = np.ones(self.experiments, dtype=bool)
        if missing:
            sound &= self._few_missing(missing) & self._alike(missing) & self._same_at_corners(parts, panel)
        return Simulated(panel=panel, sound=sound)

    def rows(self, truth: Truth, experiment: int) -> Iterator[tuple[str, str, int, str, int, Cell]]:
        """Scores of one experiment: (metric, arm, training seed, slice, unit, counts of that unit)."""
        seeds = {condition.name: condition.seeds for condition in self.design.conditions}
        for instrument in self._world.instruments:
            data = self._world.scores(
                instrument, truth, self._arms, experiment, 1, [m.name for m in instrument.metrics]
            )
            units = self.sizes[instrument.metrics[0].name].units
            for (metric, slice_, arm), cells in data.items():
                for seed, cell in zip(seeds[arm], cells, strict=True):
                    shaped = {name: np.broadcast_to(value, (1, units)) for name, value in vars(cell).items()}
                    for unit in range(units):
                        yield metric, arm, seed, slice_, unit, Cell(
                            **{name: value[:, unit : unit + 1] for name, value in shaped.items()}
                        )  # fmt: skip

    # ---------------------------------------------------------------- statistics

    def _of(self, instrument: Instrument, truth: Truth) -> _Found:
        size = self.sizes[instrument.metrics[0].name]
        key = (
            instrument.name, size, self.experiments, self.draws.resamples, self.draws.most,
            *(truth.metrics[metric.name].model_dump_json() for metric in instrument.metrics),
        )  # fmt: skip
        if key not in self._found:
            self._found[key] = self._simulated(instrument, truth)
        return self._found[key]

    def _simulated(self, instrument: Instrument, truth: Truth) -> _Found:
        names = {metric.name for metric in instrument.metrics}
        analyses = [analysis for analysis in self._read if analysis.metric in names]
        size = self.sizes[instrument.metrics[0].name]
        lossy = any(truth.metrics[name].missing > 0 for name in names)
        read = {analysis.metric for analysis in analyses}
        judged = [metric for metric in instrument.metrics if metric.kind in SCORED_BY_OTHERS] if lossy else []
        read |= {metric.name for metric in judged}
        if not read:
            return _Found(results={}, corners=(), missing={})
        used = {arm for analysis in analyses for arm in arms_of(analysis)}
        arms = [arm for arm in self._arms if arm in used or judged]
        step = self._chunk or max(16, HELD // (size.units * size.samples))
        parts: list[tuple[Mapping[str, Statistics], ...]] = []
        lost: dict[tuple[str, str], list[NDArray[np.int64]]] = {}
        for start in range(0, self.experiments, step):
            count = min(step, self.experiments - start)
            data = self._world.scores(instrument, truth, arms, start, count, sorted(read))
            places = [None, *CORNERS] if lossy else [None]
            parts.append(tuple(dict(self._statistics(analyses, data, place, count)) for place in places))
            for metric, arm in itertools.product(judged, arms):
                cells = data[metric.name, ALL, arm]
                n = sum((np.broadcast_to(cell.missing, (count, size.units)).sum(axis=1) for cell in cells), np.zeros(1))
                lost.setdefault((metric.name, arm), []).append(n.astype(np.int64))
        joined = [_joined([part[place] for part in parts]) for place in range(len(parts[0]))]
        seeds = {condition.name: len(condition.seeds) for condition in self.design.conditions}
        return _Found(
            results=joined[0], corners=tuple(joined[1:]),
            missing={
                key: Missing(lost=np.concatenate(each), total=size.units * size.samples * seeds[key[1]])
                for key, each in lost.items()
            },
        )  # fmt: skip

    def _statistics(
        self, analyses: Sequence[Analysis], data: Data, corner: str | None, experiments: int
    ) -> Iterator[tuple[str, Statistics]]:
        """By name, both variants of what a switch governs; at a corner, those alone whose metric drops missing scores."""
        for analysis in analyses:
            metric = self._metrics[analysis.metric]
            if corner is not None and metric.missing != "drop":
                continue
            scale = Scale.of(metric)
            ends = (None, None) if corner is None else (scale.low, scale.high)
            fills = ends if corner in (None, CORNERS[0]) else ends[::-1]
            for variant in variants_of(analysis, self.design):
                arms = []
                for arm, fill in zip(arms_of(analysis), fills, strict=False):
                    cells = [self._restricted(cell, analysis) for cell in data[metric.name, _SLICES[variant], arm]]
                    arms.append(means(cells, scale.denominator, fill))
                name = analysis.name if variant is None else f"{analysis.name}.{variant}"
                yield (
                    name,
                    statistics(
                        analysis,
                        metric,
                        arms,
                        self.wanted[analysis.name],
                        self.draws,
                        experiments,
                    ),
                )

    def _units(self, analysis: Analysis) -> int:
        units = self.sizes[analysis.metric].units
        return units if analysis.subset is None else min(units, len(self.design.subsets[analysis.subset]))

    def _restricted(self, cell: Cell, analysis: Analysis) -> Cell:
        """The first units stand for the registered subset: units are alike."""
        if analysis.subset is None:
            return cell
        units = self._units(analysis)
        return Cell(**{name: value[:, :units] for name, value in vars(cell).items()})

    # ------------------------------------------------------------ missing scores

    def _few_missing(self, missing: Mapping[tuple[str, str], Missing]) -> NDArray[np.bool_]:
        """`missingness.judged_gates`: no judge left more of an arm without a score than it may."""
        most = {judge.name: Fraction(repr(judge.max_missing)) for judge in self.design.judges}
        sound = np.ones(self.experiments, dtype=bool)
        for (name, _), each in missing.items():
            if self._metrics[name].judge is None:
                continue
            share = most[self._metrics[name].judge or ""]
            sound &= each.lost * share.denominator <= share.numerator * each.total
        return sound

    def _alike(self, missing: Mapping[tuple[str, str], Missing]) -> NDArray[np.bool_]:
        """`missingness.judged_gates`: what is missing does not depend on the arm, in contrasts that decide."""
        sound = np.ones(self.experiments, dtype=bool)
        for analysis in read_by_the_decision(self.design):
            pair = analysis.contrast
            if pair is None or (analysis.metric, pair.treatment) not in missing:
                continue
            one, other = missing[analysis.metric, pair.treatment], missing[analysis.metric, pair.control]
            sound &= np.array(
                [_comparable(int(a), one.total, int(b), other.total) for a, b in zip(one.lost, other.lost, strict=True)]
            )
        return sound

    def _same_at_corners(self, parts: Sequence[_Found], panel: Panel) -> NDArray[np.bool_]:
        """`missingness.missing_corners`: the table says the same whatever the missing scores were."""
        at: list[Results] = []
        for place in range(len(CORNERS)):
            results: dict[str, Statistics] = dict(panel.results)
            for part in parts:
                results |= part.corners[place] if part.corners else {}
            at.append(results)
        switching = {
            leaf.analysis
            for gate in governed(self.design).values()
            for leaf in leaves(gate.predicate)
            if isinstance(leaf, Atom)
        }
        sound = np.ones(self.experiments, dtype=bool)
        label = panel.labels()
        for of_rest, of_switch in itertools.product(at, at):
            mixed = {name: (of_switch if name in switching else of_rest)[name] for name in of_rest}
            sound &= Panel(design=self.design, results=mixed, experiments=self.experiments).labels() == label
        return sound


@lru_cache(maxsize=1 << 16)
def _comparable(missing: int, total: int, other_missing: int, other_total: int) -> bool:
    gap = abs(Fraction(missing, total) - Fraction(other_missing, other_total))
    return gap < DIFFERENTIAL_GAP or fisher_two_sided(missing, total, other_missing, other_total) >= DIFFERENTIAL_P


def _joined(parts: Sequence[Mapping[str, Statistics]]) -> dict[str, Statistics]:
    """Chunks of experiments, one after another."""
    return {
        name: {statistic: np.concatenate([part[name][statistic] for part in parts]) for statistic in parts[0][name]}
        for name in parts[0]
    }


def metric_of(design: Design, name: str) -> Metric:
    return next(metric for metric in design.metrics if metric.name == name)


def analysis_of(design: Design, name: str) -> Analysis:
    return next(analysis for analysis in design.analyses if analysis.name == name)


def atoms_of(gate: Gate) -> list[Atom]:
    return [leaf for leaf in leaves(gate.predicate) if isinstance(leaf, Atom)]
