"""The forest plot: every estimate with its interval against the registered thresholds and their regions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from epc.compiler.contract.decision import AnalysisResult, Threshold
from epc.compiler.contract.manifest import Gate
from epc.runtime.report import numbers
from epc.runtime.report.anchors import analysis_anchor
from epc.runtime.report.figures.axis import (
    LANE,
    LONGEST_LABEL,
    Domain,
    Line,
    Tick,
    across,
    apart,
    around,
    position,
    round_ticks,
    tone,
)
from epc.runtime.report.figures.regions import NAMES, ON_AXIS, Kind, Region, regions
from epc.runtime.report.text import one_line


@dataclass(frozen=True, kw_only=True)
class Bound:
    """A one-sided bound that a gate reads, drawn as a bracket."""

    x: float
    foot: int
    """Length of the bracket's feet, px: positive to the right, for a lower bound."""
    title: str


@dataclass(frozen=True, kw_only=True)
class ForestRow:
    name: str
    anchor: str
    comparison: str
    metric: str
    confirmatory: bool
    point: float | None
    low: float | None
    high: float | None
    bounds: tuple[Bound, ...]
    seeds: tuple[Tick, ...]
    """The estimate with each training seed, where there are several."""
    lines: tuple[Line, ...]
    regions: tuple[Region, ...]
    value: str
    interval: str
    title: str
    top: int
    """Where the labels end and the plot begins, px."""
    height: int
    middle: int
    """y of the interval, px."""


@dataclass(frozen=True, kw_only=True)
class ForestPanel:
    heading: str
    zero: float | None
    ticks: tuple[Tick, ...]
    rows: tuple[ForestRow, ...]


def drawn(analyses: Sequence[AnalysisResult]) -> tuple[AnalysisResult, ...]:
    """Analyses less what would be drawn twice: of a switch that is known the bound variant, else what it governs."""
    governed = {analysis.name: analysis for analysis in analyses if analysis.bound_by is not None}
    return tuple(
        analysis
        for analysis in analyses
        if (
            governed[analysis.variant_of].bound_to != analysis.variant
            if analysis.variant_of is not None
            else analysis.bound_by is None or analysis.bound_to is not None
        )
    )


def forest(
    analyses: Sequence[AnalysisResult], gates: Sequence[Gate] = (), margins: Mapping[str, float] | None = None
) -> tuple[ForestPanel, ...]:
    """Contrasts and single arms, one panel for each kind and scale, in the order of the spec.

    `margins` are those of equivalence tests, by the registered analysis.
    """
    groups: dict[tuple[bool, tuple[float, float]], list[AnalysisResult]] = defaultdict(list)
    for analysis in analyses:
        groups[analysis.contrast is None, analysis.scale].append(analysis)
    return tuple(
        _panel(group, scale, gates, margins or {}, single=single, several=len(groups) > 1)
        for (single, scale), group in sorted(groups.items(), key=lambda item: item[0][0])
    )


def region_names(panels: Sequence[ForestPanel]) -> tuple[tuple[Kind, str], ...]:
    """Kinds of regions that are drawn, with what each means."""
    seen = {region.kind for panel in panels for row in panel.rows for region in row.regions}
    return tuple((kind, name) for kind, name in NAMES.items() if kind in seen)


def comparison(analysis: AnalysisResult) -> str:
    """`treatment − control`, or the one arm, and the prompt set to which it is restricted."""
    on = f", on {one_line(analysis.subset)}" if analysis.subset is not None else ""
    if analysis.contrast is not None:
        return f"{one_line(analysis.contrast.treatment)} − {one_line(analysis.contrast.control)}{on}"
    return f"{one_line(analysis.arm or 'unnamed arm')} alone{on}"


def by_seed(analysis: AnalysisResult) -> Iterator[tuple[int, float, str]]:
    """(training seed, estimate, the estimate as text), by seed; nothing where there are fewer than two."""
    digits = numbers.digits_for(analysis.scale)
    for seed, estimate in sorted((int(seed), estimate) for seed, estimate in analysis.per_seed.items()):
        yield seed, estimate, numbers.fixed(estimate, digits, sign=analysis.contrast is not None)


def _panel(
    group: Sequence[AnalysisResult], scale: Domain, gates: Sequence[Gate], margins: Mapping[str, float], *,
    single: bool, several: bool,
) -> ForestPanel:  # fmt: skip
    shown = [value for analysis in group for value in _on_axis(analysis, margins)] + ([] if single else [0.0])
    width = scale[1] - scale[0]
    low, high = domain = around(shown, scale if single else (-width, width))
    heading = ""
    if several:
        span = f"{numbers.compact(scale[0])} to {numbers.compact(scale[1])}"
        heading = f"Single arms, scale {span}" if single else f"Differences, treatment − control, scale {span}"
    return ForestPanel(
        heading=heading,
        zero=None if single else across(0.0, domain),
        ticks=round_ticks(low, high, domain, sign=not single),
        rows=tuple(_row(analysis, gates, margins, domain, single=single) for analysis in group),
    )


def _registered(analysis: AnalysisResult) -> str:
    return analysis.variant_of or analysis.name


def _on_axis(analysis: AnalysisResult, margins: Mapping[str, float]) -> list[float]:
    read = {threshold.statistic for threshold in analysis.thresholds}
    names = {"delta", "value", "ci_low", "ci_high"} | (read & {"lower", "upper"})
    values = [value for name, value in analysis.statistics.items() if name in names and value is not None]
    margin = margins.get(_registered(analysis))
    values += [] if margin is None else [-margin, margin]
    return values + list(analysis.per_seed.values()) + [threshold.constant for threshold in _drawn(analysis)]


def _drawn(analysis: AnalysisResult) -> list[Threshold]:
    """Thresholds that lie on the axis and are read before the verdict."""
    return [t for t in analysis.thresholds if t.statistic in ON_AXIS and t.role != "follow_up"]


def _row(
    analysis: AnalysisResult, gates: Sequence[Gate], margins: Mapping[str, float], domain: Domain, *, single: bool
) -> ForestRow:
    statistics = analysis.statistics
    point = statistics.get("delta", statistics.get("value"))
    low, high = statistics.get("ci_low"), statistics.get("ci_high")
    write = numbers.level if single else numbers.difference
    value = numbers.unknown(analysis.unknown_because) if point is None else write(point, analysis.scale)
    if low is None or high is None:
        interval = "no interval" if point is not None else ""
    else:
        ends = numbers.interval(low, high, analysis.scale, sign=not single)
        interval = f"{numbers.percent_level(analysis.ci_level)} CI {ends}"
    lines = apart(
        [
            (
                position(threshold.constant, domain), _label(threshold),
                f"{threshold.role} gate {one_line(threshold.gate)}: {_condition(threshold)}", tone(threshold.role),
            )
            for threshold in _drawn(analysis)
        ]
    )  # fmt: skip
    top = max((line.lane + 1 for line in lines), default=0) * LANE
    compared = comparison(analysis)
    return ForestRow(
        name=one_line(analysis.name),
        anchor=analysis_anchor(analysis.name),
        comparison=compared,
        metric=one_line(analysis.metric),
        confirmatory=analysis.confirmatory,
        point=across(point, domain),
        low=across(low, domain),
        high=across(high, domain),
        bounds=_bounds(analysis, domain),
        seeds=tuple(
            Tick(x=position(estimate, domain), label=f"training seed {seed}: {text}")
            for seed, estimate, text in by_seed(analysis)
        ),
        lines=lines,
        regions=regions(_registered(analysis), gates, domain, margins.get(_registered(analysis))),
        value=value,
        interval=interval,
        title=f"{one_line(analysis.name)}, {compared}: {value} {interval}".rstrip(),
        top=top,
        height=top + 34,
        middle=top + 19,
    )


def _bounds(analysis: AnalysisResult, domain: Domain) -> tuple[Bound, ...]:
    found = []
    level = numbers.percent_level(1 - analysis.alpha)
    for name in ("lower", "upper"):
        value = analysis.statistics.get(name)
        if value is not None and any(threshold.statistic == name for threshold in analysis.thresholds):
            text = numbers.fixed(value, numbers.digits_for(analysis.scale), sign=analysis.contrast is not None)
            title = f"one-sided {level} {name} bound: {text}"
            found.append(Bound(x=position(value, domain), foot=5 if name == "lower" else -5, title=title))
    return tuple(found)


def _condition(threshold: Threshold) -> str:
    return f"{threshold.statistic} {numbers.operator(threshold.operator)} {numbers.compact(threshold.constant)}"


def _label(threshold: Threshold) -> str:
    """Gate and condition, the gate's name cut so that the label fits beside its line on a phone."""
    gate, condition = one_line(threshold.gate), _condition(threshold)
    room = max(6, LONGEST_LABEL - len(condition) - 2)
    return f"{gate if len(gate) <= room else gate[: room - 1] + '…'}: {condition}"
