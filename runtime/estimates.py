"""Registered analyses on measured units: one result per analysis, one summary per metric and arm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from fractions import Fraction
from statistics import median
from typing import assert_never

from epc.compiler.contract.decision import AnalysisResult, ArmCounts, ArmSummary, Slice, Threshold
from epc.compiler.contract.logic import Atom, leaves
from epc.compiler.contract.manifest import Analysis, Design, Metric, Side
from epc.runtime.measurements import Cells, Measurements, Unit
from epc.runtime.statistics import (
    NESTED,
    UNPAIRED,
    Estimate,
    InapplicableError,
    Nested,
    Resamples,
    analyse,
    interval_tail,
)
from epc.runtime.statistics.cluster_bootstrap import Group
from epc.runtime.statistics.estimate import exact, exact_sum
from epc.runtime.wording import count


def arms_of(analysis: Analysis) -> list[str]:
    """The arms an analysis reads, the treatment first."""
    if analysis.contrast is not None:
        return [analysis.contrast.treatment, analysis.contrast.control]
    return [analysis.arm] if analysis.arm is not None else []


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm of an analysis: its units, and the value of each that has one."""

    name: str
    seeds: tuple[int, ...]
    trained: bool
    units: Mapping[str, Unit]
    """Of the units that the analysis expects, those with rows."""
    fill: Fraction | None
    """The score that stands for a missing one, None to drop."""
    values: Mapping[str, Fraction]

    def emptied(self, unit: str) -> bool:
        return unit in self.units and self.units[unit].emptied(self.seeds)

    def counts(self, expected: Sequence[str]) -> ArmCounts:
        n = sum(unit.n for unit in self.units.values())
        missing = sum(unit.n_missing for unit in self.units.values())
        filtered = sum(unit.n_filtered for unit in self.units.values())
        return ArmCounts(
            condition=self.name, n=n, n_missing=missing, n_filtered=filtered,
            n_units_emptied=sum(self.emptied(unit) for unit in expected),
            missing_rate=_share(missing, n + filtered + missing), drop_rate=_share(filtered, n + filtered),
        )  # fmt: skip


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


@dataclass(frozen=True, kw_only=True)
class Units:
    """What an analysis reads: its arms, the treatment first, unit by unit."""

    metric: Metric
    expected: Sequence[str]
    """Units that every arm should have."""
    arms: Sequence[Arm]
    complete: Sequence[str]
    """Those with a value in every arm; of arms that have other units each, those with a value."""
    paired: bool = True
    """False where the arms have other units each."""

    @property
    def values(self) -> list[dict[str, Fraction]]:
        """Of each arm, the values of the complete units."""
        return [
            {unit: arm.values[unit] for unit in self.complete if self.paired or unit in arm.values} for arm in self.arms
        ]

    @property
    def emptied(self) -> list[str]:
        """Those of which the filter left nothing in an arm."""
        return [unit for unit in self.expected if any(arm.emptied(unit) for arm in self.arms)]

    @property
    def missing(self) -> list[str]:
        return [
            unit
            for unit in self.expected
            if any(
                unit not in arm.values and not arm.emptied(unit)
                for arm in self.arms
                if self.paired or unit in arm.units
            )
        ]

    @property
    def nested(self) -> Nested:
        """What is in the complete units of a contrast. Raises InapplicableError where trained arms share no seed."""
        seeds: list[int | None] = [*shared_seeds(self.arms)]
        if not seeds and any(arm.trained for arm in self.arms):
            raise InapplicableError("the trained arms share no training seed")
        differences: dict[str, Mapping[str, Fraction]] = {}
        for seed in seeds or [None]:
            treatment, control = (
                _values(arm.units, self.complete, (seed,) if arm.trained and seed is not None else arm.seeds, arm.fill)
                for arm in self.arms
            )
            differences["" if seed is None else str(seed)] = {u: treatment[u] - control[u] for u in self.complete}
        return Nested(differences=differences, samples=self._samples())

    def _samples(self) -> dict[str, Group] | None:
        """Unit -> samples of both arms; None where rows do not hold them or an arm has several training seeds."""
        if any(len(arm.seeds) != 1 for arm in self.arms):
            return None
        found: dict[str, Group] = {}
        for unit in self.complete:
            treatment, control = (
                arm.units.get(unit, Unit(rows={})).samples(arm.seeds[0], arm.fill) for arm in self.arms
            )
            if treatment is None or control is None:
                return None
            found[unit] = Group(treatment=treatment, control=control)
        return found


def units_of(
    design: Design,
    analysis: Analysis,
    measurements: Measurements,
    fills: Sequence[Fraction | None] = (None, None),
    *,
    variant: Slice | None = None,
    seeds: AbstractSet[int] | None = None,
) -> Units:
    """The units of an analysis; arguments as in `analysis_result`."""
    metric = next(metric for metric in design.metrics if metric.name == analysis.metric)
    expected = _expected(design, analysis, measurements)
    cells = measurements.unfiltered if variant == "unfiltered" else measurements.cells
    arms = tuple(_arms(design, analysis, metric, cells, expected, fills, seeds))
    paired = analysis.method not in UNPAIRED
    enough = all if paired else any
    complete = [unit for unit in expected if enough(unit in arm.values for arm in arms)]
    return Units(metric=metric, expected=expected, arms=arms, complete=complete, paired=paired)


def shared_seeds(arms: Iterable[Arm]) -> list[int]:
    """Training seeds that all trained arms have; none where no arm is trained."""
    trained = [set(arm.seeds) for arm in arms if arm.trained]
    return sorted(set.intersection(*trained)) if trained else []


def analysis_result(
    design: Design,
    analysis: Analysis,
    measurements: Measurements,
    fills: Sequence[Fraction | None] = (None, None),
    *,
    variant: Slice | None = None,
    seeds: AbstractSet[int] | None = None,
    shared: Resamples | None = None,
) -> AnalysisResult:
    """One registered analysis, unknown with its reason where it cannot be computed.

    `fills` are the scores that stand for missing ones in the treatment and in the control, None to drop.
    `variant` is given for an analysis that a switch governs: which scores it reads, and part of its name.
    `seeds` reads those training seeds of trained arms alone; `shared` holds the draws of the decision.
    """
    read = units_of(design, analysis, measurements, fills, variant=variant, seeds=seeds)
    metric, expected, arms, complete, kept = read.metric, read.expected, read.arms, read.complete, read.values
    emptied, missing = read.emptied, read.missing
    counts = tuple(arm.counts(expected) for arm in arms)
    n_missing = sum(arm.n_missing for arm in counts)
    because = _unknown_because(metric, arms, n_missing, units_missing=len(missing), units_emptied=len(emptied))
    estimate: Estimate | None = None
    if because is None:
        try:
            control = kept[1] if analysis.contrast is not None else None
            nested = read.nested if analysis.method in NESTED and complete else None
            estimate = analyse(analysis, metric, kept[0], control, nested=nested, shared=shared)
        except InapplicableError as error:
            because = str(error)
    return AnalysisResult(
        name=analysis.name if variant is None else f"{analysis.name}.{variant}",
        metric=metric.name,
        contrast=analysis.contrast,
        arm=analysis.arm,
        method=analysis.method,
        definition=estimate.definition if estimate else f"{analysis.method}, not computed",
        side=analysis.side,
        alpha=analysis.alpha,
        confirmatory=analysis.confirmatory,
        better=metric.better,
        scale=metric.scale,
        unit=metric.unit,
        n_units=len(complete),
        n_samples=sum(arm.units[unit].n for arm in arms for unit in complete if unit in arm.units),
        n_missing=n_missing,
        n_units_missing=len(missing),
        n_units_emptied=len(set(emptied) - set(missing)),
        arms=counts,
        subset=analysis.subset,
        filter=None if variant == "unfiltered" else metric.filter,
        variant_of=None if variant is None else analysis.name,
        variant=variant,
        mean_treatment=_mean(kept[0].values()),
        mean_control=_mean(kept[1].values()) if analysis.contrast is not None else None,
        statistics={**estimate.statistics} if estimate else dict.fromkeys(_statistics(analysis)),
        per_seed=_per_seed(analysis, arms, complete) if estimate else {},
        ci_level=estimate.ci_level
        if estimate
        else float(1 - 2 * interval_tail(_side_of_bounds(analysis), exact(analysis.alpha), analysis.interval)),
        sd=estimate.sd if estimate else None,
        skewness=estimate.skewness if estimate else None,
        unknown_because=because,
        thresholds=tuple(_thresholds(design, analysis.name)),
    )


def _expected(design: Design, analysis: Analysis, measurements: Measurements) -> list[str]:
    """Units that every arm should have: all that any arm has, or those of the registered subset.

    Where fewer than planned are anywhere, the others are missing too; nobody knows their names.
    """
    if analysis.subset is not None:
        return sorted(design.subsets[analysis.subset])
    found = measurements.units(analysis.metric)
    planned = design.units.get(analysis.metric, 0)
    return found + [f"planned unit {number} of {planned}" for number in range(len(found) + 1, planned + 1)]


def _arms(
    design: Design, analysis: Analysis, metric: Metric, cells: Cells, expected: Sequence[str],
    fills: Sequence[Fraction | None], only: AbstractSet[int] | None = None,
) -> Iterator[Arm]:  # fmt: skip
    everywhere = expected
    for name, fill in zip(arms_of(analysis), fills, strict=False):
        cell = cells.get((metric.name, name), {})
        expected = [unit for unit in everywhere if unit in cell] if analysis.method in UNPAIRED else everywhere
        condition = next(condition for condition in design.conditions if condition.name == name)
        seeds = condition.seeds
        if only is not None and condition.phases:
            seeds = tuple(seed for seed in seeds if seed in only)
        yield Arm(
            name=name, seeds=seeds, trained=bool(condition.phases), fill=fill, units={unit: cell[unit] for unit in expected if unit in cell},
            values=_values(cell, expected, seeds, fill),
        )  # fmt: skip


def _side_of_bounds(analysis: Analysis) -> Side:
    """Two one-sided tests have the bounds of one."""
    return "greater" if analysis.method == "tost" else analysis.side


def _per_seed(analysis: Analysis, arms: Sequence[Arm], units: Sequence[str]) -> dict[str, float]:
    """Point estimate with each training seed that all trained arms share, over units that have a value in every arm."""
    seeds = shared_seeds(arms)
    if len(seeds) < 2:
        return {}
    estimates = {}
    for seed in seeds:
        values = [_values(arm.units, units, (seed,) if arm.trained else arm.seeds, arm.fill) for arm in arms]
        if analysis.method == "sign_test":
            estimates[str(seed)] = float(median(values[0][unit] - values[1][unit] for unit in units))
            continue
        means = [exact_sum(one.values()) / len(units) for one in values]
        estimates[str(seed)] = float(means[0] - means[1] if len(means) == 2 else means[0])
    return estimates


def _values(
    cell: Mapping[str, Unit], expected: Iterable[str], seeds: Sequence[int], fill: Fraction | None = None
) -> dict[str, Fraction]:
    """Unit -> mean over the arm's training seeds; a unit that lacks one is left out, unless filled."""
    seeds, absent = tuple(seeds), Unit(rows={})
    found = {unit: cell.get(unit, absent).value(seeds, fill) for unit in expected}
    return {unit: value for unit, value in found.items() if value is not None}


def _statistics(analysis: Analysis) -> tuple[str, ...]:
    """Names of the statistics of an analysis, for when all of them are unknown."""
    if analysis.contrast is None:
        return ("value", "lower", "upper", "ci_low", "ci_high")
    return ("delta", "p", "reject", "lower", "upper", "ci_low", "ci_high")


def _unknown_because(
    metric: Metric, arms: Sequence[Arm], n_missing: int, *, units_missing: int, units_emptied: int
) -> str | None:
    """Why the metric's data allow no analysis of these arms; None when they do."""
    absent = [arm.name for arm in arms if not arm.units]
    if absent:
        return f"there is no measurement of {metric.name} in {' and '.join(dict.fromkeys(absent))}"
    named = " and ".join(arm.name for arm in arms)
    match metric.missing:
        case "fail":
            if n_missing or units_missing:
                return (
                    f"{metric.name} declares `missing: fail`, and {count(n_missing, 'sample')} and"
                    f" {count(units_missing, metric.unit)} are missing in {named}"
                )
        case "drop":
            pass
        case _:
            assert_never(metric.missing)
    match metric.empty:
        case "fail":
            if units_emptied:
                left = "is" if units_emptied == 1 else "are"
                return (
                    f"{metric.name} declares `empty: fail`, and {count(units_emptied, metric.unit)} {left} left without a"
                    f" completion by the filter `{metric.filter}` in {named}"
                )
        case "drop":
            pass
        case _:
            assert_never(metric.empty)
    return None


def _mean(values: Iterable[Fraction]) -> float | None:
    listed = list(values)
    return float(exact_sum(listed) / len(listed)) if listed else None


def _thresholds(design: Design, analysis: str) -> Iterator[Threshold]:
    for gate in design.gates:
        for leaf in leaves(gate.predicate):
            if isinstance(leaf, Atom) and leaf.analysis == analysis:
                yield Threshold(
                    gate=gate.name,
                    role=gate.role,
                    statistic=leaf.statistic,
                    operator=leaf.operator,
                    constant=leaf.constant,
                )


def arm_summaries(design: Design, measurements: Measurements) -> Iterator[ArmSummary]:
    """One summary per metric and condition that has rows, in the order of the registration."""
    for metric in design.metrics:
        expected = measurements.units(metric.name)
        for condition in design.conditions:
            cell = measurements.cells.get((metric.name, condition.name))
            if cell is None:
                continue
            values = _values(cell, expected, condition.seeds)
            without = _values(measurements.unfiltered.get((metric.name, condition.name), {}), expected, condition.seeds)
            rows = [row for unit in cell.values() for row in unit.rows.values()]
            n = sum(row.n for row in rows)
            score = exact_sum(Fraction(row.total, row.denominator) for row in rows)
            yield ArmSummary(
                metric=metric.name,
                condition=condition.name,
                seeds=tuple(sorted({row.seed for row in rows})),
                n_units=len(values),
                n_samples=n,
                n_missing=sum(row.n_missing for row in rows),
                n_filtered=sum(row.n_filtered for row in rows),
                mean=_mean(values.values()),
                sample_mean=float(score / n) if n else None,
                mean_unfiltered=_mean(without.values()),
            )


def incomplete(design: Design, analysis: Analysis, measurements: Measurements) -> bool:
    """Whether an arm of the analysis has rows but lacks a unit or a score. What a filter leaves out is not missing."""
    metric = next(metric for metric in design.metrics if metric.name == analysis.metric)
    expected = _expected(design, analysis, measurements)
    arms = list(_arms(design, analysis, metric, measurements.cells, expected, (None, None)))
    return all(arm.units for arm in arms) and any(
        unit not in arm.units or arm.units[unit].n_missing > 0 or (unit not in arm.values and not arm.emptied(unit))
        for arm in arms
        for unit in (arm.units if analysis.method in UNPAIRED else expected)
    )
