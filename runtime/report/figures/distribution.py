"""How many units have which mean, by arm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from epc.compiler.contract.decision import AnalysisResult, ArmSummary
from epc.compiler.contract.manifest import Contrast, Design, Metric
from epc.runtime.measurements import ALL, UNFILTERED, Cells
from epc.runtime.report import numbers
from epc.runtime.report.figures.axis import Tick, across, round_ticks
from epc.runtime.report.figures.bars import Bar, histogram, lattice_bins
from epc.runtime.report.figures.units import Means, UnitMeans, mean_text, scores_of
from epc.runtime.report.sections.sources import Reference, Sources
from epc.runtime.report.text import one_line

MOST_COUNTED_BINS = 12
"""Bins that are wide enough on a phone for their count to stand above them."""


@dataclass(frozen=True, kw_only=True)
class DistributionRow:
    condition: str
    part: Literal["treatment", "control", "other"]
    bars: tuple[Bar, ...]
    mean: float | None
    mean_text: str
    units: str
    rows: tuple[Reference, ...]


@dataclass(frozen=True, kw_only=True)
class Distribution:
    metric: str
    confirmatory: bool
    """Whether a confirmatory contrast reads the metric."""
    scores: str
    """Which scores of a filtered metric are drawn, empty where it has no filter."""
    unit: str
    ticks: tuple[Tick, ...]
    rows: tuple[DistributionRow, ...]
    show_counts: bool


def distributions(
    means: Means, arms: Sequence[ArmSummary], analyses: Sequence[AnalysisResult], sources: Sources
) -> tuple[Distribution, ...]:
    """Unit means by arm for every metric that has rows; arms in the order of the spec.

    A filtered metric is drawn without its filter too, where an analysis reads it so or may do so.
    """
    design, measured = means.design, means.measurements
    also = {a.metric for a in analyses if a.bound_by is not None and a.bound_to != "filtered"}
    found: list[Distribution] = []
    for metric in design.metrics:
        summaries = [arm for arm in arms if arm.metric == metric.name]
        contrasts = [a.contrast for a in analyses if a.metric == metric.name and a.confirmatory and a.contrast]
        kept = {arm.condition: arm.mean for arm in summaries}
        found += _distribution(design, metric, means.filtered, kept, contrasts, measured.cells, sources, of=ALL)
        if metric.name in also:
            every = {arm.condition: arm.mean_unfiltered for arm in summaries}
            cells = measured.unfiltered
            found += _distribution(design, metric, means.unfiltered, every, contrasts, cells, sources, of=UNFILTERED)
    return tuple(found)


def _distribution(
    design: Design, metric: Metric, means: UnitMeans, arm_means: Mapping[str, float | None],
    contrasts: Sequence[Contrast], cells: Cells, sources: Sources, *, of: str,
) -> Iterator[Distribution]:  # fmt: skip
    """The figure of one metric in one slice, none where it has no rows."""
    units = {c.name: means[metric.name, c.name] for c in design.conditions if (metric.name, c.name) in means}
    if not units:
        return
    values = {name: [v for v in held.values() if v is not None] for name, held in units.items()}
    bins = lattice_bins(values, metric, (unit for name in units for unit in cells[metric.name, name].values()))
    bars = histogram(values, bins, metric.scale, f"{metric.unit}s")
    lost = "nothing left by the filter" if metric.filter is not None and of == ALL else "nothing scored"
    yield Distribution(
        metric=one_line(metric.name),
        confirmatory=bool(contrasts),
        scores=one_line(scores_of(metric, unfiltered=of == UNFILTERED)),
        unit=metric.unit,
        show_counts=bins.count <= MOST_COUNTED_BINS,
        ticks=round_ticks(*metric.scale, bins.domain),
        rows=tuple(
            DistributionRow(
                condition=one_line(name),
                part=_part(name, contrasts),
                bars=bars[name],
                mean=across(arm_means.get(name), bins.domain),
                mean_text=mean_text(arm_means.get(name), metric.scale, f"not every {metric.unit} is scored"),
                units=_units_text(held, metric.unit, lost),
                rows=sources.of(metric.name, name),
            )
            for name, held in units.items()
        ),
    )


def _part(name: str, contrasts: Sequence[Contrast]) -> Literal["treatment", "control", "other"]:
    if any(contrast.treatment == name for contrast in contrasts):
        return "treatment"
    return "control" if any(contrast.control == name for contrast in contrasts) else "other"


def _units_text(held: Mapping[str, float | None], unit: str, lost: str) -> str:
    missing = sum(value is None for value in held.values())
    text = numbers.count(len(held) - missing, unit)
    return f"{text}, {missing} with {lost}" if missing else text
