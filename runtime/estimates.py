"""Registered analyses on measured units: one result per analysis, one summary per metric and arm."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import assert_never

from epc.compiler.contract.decision import AnalysisResult, ArmSummary, Threshold
from epc.compiler.contract.logic import Atom, leaves
from epc.compiler.contract.manifest import Analysis, Design, Metric
from epc.runtime.measurements import Measurements, Unit
from epc.runtime.statistics import Estimate, InapplicableError, analyse
from epc.runtime.wording import count


def arms_of(analysis: Analysis) -> list[str]:
    """The arms an analysis reads, the treatment first."""
    if analysis.contrast is not None:
        return [analysis.contrast.treatment, analysis.contrast.control]
    return [analysis.arm] if analysis.arm is not None else []


def analysis_result(
    design: Design, analysis: Analysis, measurements: Measurements, fills: Sequence[Fraction | None] = (None, None)
) -> AnalysisResult:
    """One registered analysis, unknown with its reason where it cannot be computed.

    `fills` are the scores that stand for missing ones in the treatment and in the control, None to drop.
    """
    metric = next(metric for metric in design.metrics if metric.name == analysis.metric)
    arms = arms_of(analysis)
    cells = [measurements.cells.get((metric.name, arm), {}) for arm in arms]
    values = _unit_values(design, metric, arms, measurements, fills=fills[: len(arms)])
    expected = measurements.units(metric.name)
    complete = [unit for unit in expected if all(unit in arm for arm in values)]
    kept = [{unit: arm[unit] for unit in complete} for arm in values]
    n_missing = sum(unit.n_missing for cell in cells for unit in cell.values())
    because = _unknown_because(metric, arms, cells, n_missing, len(expected) - len(complete))
    estimate: Estimate | None = None
    if because is None:
        try:
            estimate = analyse(analysis, metric, kept[0], kept[1] if analysis.contrast is not None else None)
        except InapplicableError as error:
            because = str(error)
    two_sided = analysis.side == "two_sided"
    return AnalysisResult(
        name=analysis.name,
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
        n_samples=sum(cell[unit].n for cell in cells for unit in complete if unit in cell),
        n_missing=n_missing,
        n_units_missing=len(expected) - len(complete),
        mean_treatment=_mean(kept[0].values()),
        mean_control=_mean(kept[1].values()) if analysis.contrast is not None else None,
        statistics={**estimate.statistics} if estimate else dict.fromkeys(_statistics(analysis)),
        ci_level=estimate.ci_level if estimate else float(1 - Fraction(repr(analysis.alpha)) * (1 if two_sided else 2)),
        sd=estimate.sd if estimate else None,
        skewness=estimate.skewness if estimate else None,
        unknown_because=because,
        thresholds=tuple(_thresholds(design, analysis.name)),
    )


def _statistics(analysis: Analysis) -> tuple[str, ...]:
    """Names of the statistics of an analysis, for when all of them are unknown."""
    if analysis.contrast is None:
        return ("value", "lower", "upper", "ci_low", "ci_high")
    return ("delta", "p", "reject", "lower", "upper", "ci_low", "ci_high")


def _unknown_because(
    metric: Metric, arms: Sequence[str], cells: Sequence[Mapping[str, Unit]], n_missing: int, units_missing: int
) -> str | None:
    """Why the metric's data allow no analysis of these arms; None when they do."""
    absent = [arm for arm, cell in zip(arms, cells, strict=True) if not cell]
    if absent:
        return f"there is no measurement of {metric.name} in {' and '.join(dict.fromkeys(absent))}"
    match metric.missing:
        case "fail":
            if n_missing or units_missing:
                return (
                    f"{metric.name} declares `missing: fail`, and {count(n_missing, 'sample')} and"
                    f" {count(units_missing, metric.unit)} are missing in {' and '.join(arms)}"
                )
            return None
        case "drop":
            return None
        case _:
            assert_never(metric.missing)


def _unit_values(
    design: Design,
    metric: Metric,
    arms: Sequence[str],
    measurements: Measurements,
    *,
    fills: Sequence[Fraction | None],
) -> list[dict[str, Fraction]]:
    """Per arm, unit -> mean over the arm's training seeds; a unit that lacks one is left out, unless filled."""
    seeds = {condition.name: condition.seeds for condition in design.conditions}
    found: list[dict[str, Fraction]] = []
    for arm, fill in zip(arms, fills, strict=True):
        cell = measurements.cells.get((metric.name, arm), {})
        values: dict[str, Fraction] = {}
        for name in measurements.units(metric.name):
            value = cell.get(name, Unit(rows={})).value(seeds[arm], fill)
            if value is not None:
                values[name] = value
        found.append(values)
    return found


def _mean(values: Iterable[Fraction]) -> float | None:
    listed = list(values)
    return float(sum(listed, Fraction(0)) / len(listed)) if listed else None


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
        for condition in design.conditions:
            cell = measurements.cells.get((metric.name, condition.name))
            if cell is None:
                continue
            (values,) = _unit_values(design, metric, [condition.name], measurements, fills=[None])
            rows = [row for unit in cell.values() for row in unit.rows.values()]
            n = sum(row.n for row in rows)
            score = sum((Fraction(row.total, row.denominator) for row in rows), Fraction(0))
            yield ArmSummary(
                metric=metric.name,
                condition=condition.name,
                seeds=tuple(sorted({row.seed for row in rows})),
                n_units=len(values),
                n_samples=n,
                n_missing=sum(row.n_missing for row in rows),
                mean=_mean(values.values()),
                sample_mean=float(score / n) if n else None,
            )


def incomplete(analysis: Analysis, measurements: Measurements) -> bool:
    """Whether an arm of the analysis has rows but lacks a unit or a score."""
    expected = measurements.units(analysis.metric)
    cells = [measurements.cells.get((analysis.metric, arm), {}) for arm in arms_of(analysis)]
    return all(cells) and any(
        unit not in cell or cell[unit].n_missing > 0 or cell[unit].n == 0 for cell in cells for unit in expected
    )
