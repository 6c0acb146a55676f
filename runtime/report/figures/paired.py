"""Every unit in both arms of a contrast."""

from __future__ import annotations

from dataclasses import dataclass

from epc.compiler.contract.decision import AnalysisResult
from epc.compiler.contract.manifest import Contrast, Metric
from epc.runtime.report import numbers
from epc.runtime.report.figures.axis import Tick, across, place, position, round_ticks
from epc.runtime.report.figures.bars import Bar, even_bins, histogram
from epc.runtime.report.figures.units import UnitMeans, mean_text, scores_of
from epc.runtime.report.text import one_line

MOST_MARKS = 300
"""Units that are drawn and listed one by one; above it their differences are binned."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One unit, as a column of the figure; y positions are percent from the top."""

    key: str
    """The unit as stored."""
    unit: str
    """The unit as printed."""
    left: float
    width: float
    x: float
    control: float
    treatment: float
    control_text: str
    treatment_text: str
    difference_text: str


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Every unit of one confirmatory contrast, or its binned differences where units are many."""

    analysis: str
    metric: str
    source: str
    """Sample set or task of the metric."""
    scores: str
    """Which scores of a filtered metric are drawn, empty where it has no filter."""
    unit: str
    treatment: str
    control: str
    n: int
    n_unpaired: int
    up: int
    down: int
    same: int
    marks: tuple[Mark, ...]
    radius: float
    """Of a mark, px: small enough that neighbours stay apart on a phone."""
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    mean_treatment: float | None
    mean_control: float | None
    """y positions of the decision's arm means."""
    mean_treatment_text: str
    mean_control_text: str


def paired(
    analysis: AnalysisResult, contrast: Contrast, metric: Metric, means: UnitMeans, *, unfiltered: bool = False
) -> Paired:
    """Control and treatment of every unit that both arms have, sorted by difference, then by name."""
    control = means.get((metric.name, contrast.control), {})
    treatment = means.get((metric.name, contrast.treatment), {})
    pairs: list[tuple[str, float, float]] = []
    for unit in sorted(control.keys() | treatment.keys()):
        before, after = control.get(unit), treatment.get(unit)
        if before is not None and after is not None:
            pairs.append((unit, before, after))
    unpaired = len(control.keys() | treatment.keys()) - len(pairs)
    pairs.sort(key=lambda pair: (round(pair[2] - pair[1], 12), pair[1], pair[0]))
    low, high = metric.scale
    many = len(pairs) > MOST_MARKS
    differences = [round(after - before, 12) for _, before, after in pairs]
    if many:
        span = (low - high, high - low)
        bars = histogram({"": differences}, even_bins(*span), metric.scale, f"{metric.unit}s", sign=True)[""]
        ticks = round_ticks(*span, span, sign=True)
    else:
        bars, ticks = (), round_ticks(low, high, (high, low))
    return Paired(
        analysis=one_line(analysis.name),
        metric=one_line(metric.name),
        source=metric.source,
        scores=one_line(scores_of(metric, unfiltered=unfiltered)),
        unit=metric.unit,
        treatment=one_line(contrast.treatment),
        control=one_line(contrast.control),
        n=len(pairs),
        n_unpaired=unpaired,
        up=sum(difference > 0 for difference in differences),
        down=sum(difference < 0 for difference in differences),
        same=sum(difference == 0 for difference in differences),
        marks=() if many else tuple(_mark(index, len(pairs), pair, metric.scale) for index, pair in enumerate(pairs)),
        radius=5.0 if len(pairs) <= 30 else 3.5 if len(pairs) <= 60 else 2.0,
        bars=bars,
        ticks=ticks,
        mean_treatment=across(analysis.mean_treatment, (high, low)),
        mean_control=across(analysis.mean_control, (high, low)),
        mean_treatment_text=mean_text(analysis.mean_treatment, metric.scale, analysis.unknown_because),
        mean_control_text=mean_text(analysis.mean_control, metric.scale, analysis.unknown_because),
    )


def _mark(index: int, n: int, pair: tuple[str, float, float], scale: tuple[float, float]) -> Mark:
    unit, before, after = pair
    return Mark(
        key=unit,
        unit=one_line(unit),
        left=place(100 * index / n),
        width=place(100 / n),
        x=place(100 * (index + 0.5) / n),
        control=position(before, (scale[1], scale[0])),
        treatment=position(after, (scale[1], scale[0])),
        control_text=numbers.level(before, scale),
        treatment_text=numbers.level(after, scale),
        difference_text=numbers.difference(round(after - before, 12), scale),
    )
