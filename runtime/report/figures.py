"""Geometry of the figures: numbers in, positions in percent of the plot's width out.

Positions are percentages because a figure then fits any width while its text keeps its size. Every
position is rounded to two decimals, so the same data gives the same bytes.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from epc.compiler.contract.decision import AnalysisResult, ArmSummary, Threshold
from epc.compiler.contract.manifest import Contrast, Design, Metric, Role
from epc.compiler.contract.rows import MeasurementRow
from epc.runtime.measurements import ALL, UNFILTERED, group
from epc.runtime.report import numbers
from epc.runtime.report.text import one_line

ON_AXIS = frozenset({"delta", "value", "lower", "upper", "ci_low", "ci_high"})
"""Statistics that lie on the axis of a forest plot; p and reject do not."""
MOST_MARKS = 300
"""Units that are drawn and listed one by one; above it their differences are binned."""
BINS = 20
WIDEST_BAR = 0.14
"""Of a bin, as a share of the axis."""
MOST_LATTICE_BINS = 24
MOST_COUNTED_BINS = 12
"""Bins that are wide enough on a phone for their count to stand above them."""
LONGEST_LABEL = 34
"""Characters of a threshold label: what fits beside its line on a phone."""
CHARACTER = 5.8
"""Mean width of a character of a label, px."""
NARROW = 300
"""Width of a plot on a phone, px."""
LANE = 15
"""Height of one line of labels, px."""


@dataclass(frozen=True, kw_only=True)
class Bins:
    """`count` intervals of one width from `low` on. Of a lattice, each is centred on a value it can take."""

    low: float
    width: float
    count: int
    lattice: bool
    domain: tuple[float, float]
    """What the axis shows. A lattice of two values has wide bins, of which only the middle is shown."""

    def bar(self, index: int) -> tuple[float, float]:
        """Ends of the bar of a bin, a gap left on either side."""
        middle = self.low + (index + 0.5) * self.width
        half = 0.4 * min(self.width, WIDEST_BAR * (self.domain[1] - self.domain[0]))
        return middle - half, middle + half


UnitMeans = Mapping[tuple[str, str], Mapping[str, float | None]]
"""(metric, condition) -> unit -> mean over training seeds, None where a seed has nothing scored."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    x: float
    """Percent along the axis: from the left, or from the top of a vertical one."""
    label: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """A threshold: vertical line at `x` with its label in lane `lane`."""

    x: float
    lane: int
    anchor: Literal["start", "middle", "end"]
    label: str
    title: str
    tone: Literal["good", "bad", "plain"]


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


@dataclass(frozen=True, kw_only=True)
class Mark:
    unit: str
    left: float
    width: float
    x: float
    control: float
    treatment: float
    """y positions, percent from the top."""
    control_text: str
    treatment_text: str
    difference_text: str
    direction: Literal["up", "down", "same"]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bin. Its place and width leave a gap to the next; heights are percent of the figure's tallest."""

    x: float
    width: float
    middle: float
    top: float
    height: float
    count: int
    title: str


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Every unit of one confirmatory contrast, or its binned differences where units are many."""

    analysis: str
    metric: str
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


@dataclass(frozen=True, kw_only=True)
class DistributionRow:
    condition: str
    part: Literal["treatment", "control", "other"]
    bars: tuple[Bar, ...]
    mean: float | None
    mean_text: str
    units: str


@dataclass(frozen=True, kw_only=True)
class Distribution:
    metric: str
    scores: str
    """Which scores of a filtered metric are drawn, empty where it has no filter."""
    unit: str
    ticks: tuple[Tick, ...]
    rows: tuple[DistributionRow, ...]
    show_counts: bool


def unit_means(design: Design, rows: Sequence[MeasurementRow], *, unfiltered: bool = False) -> UnitMeans:
    """The unit values that analyses read: means over the arm's training seeds, units sorted.

    With `unfiltered`, those of the metrics that have a filter, without it.
    """
    seeds = {condition.name: condition.seeds for condition in design.conditions}
    grouped = group(rows)
    means: dict[tuple[str, str], dict[str, float | None]] = {}
    for (metric, condition), units in (grouped.unfiltered if unfiltered else grouped.cells).items():
        exact = {name: unit.value(seeds[condition]) for name, unit in sorted(units.items())}
        means[metric, condition] = {name: None if value is None else float(value) for name, value in exact.items()}
    return means


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


def scores_of(metric: Metric, *, unfiltered: bool) -> str:
    """What is said of the scores of a filtered metric, empty where it has no filter."""
    if metric.filter is None:
        return ""
    return f"every scored one, with or without {metric.filter}" if unfiltered else f"only where {metric.filter}"


def forest(analyses: Sequence[AnalysisResult]) -> tuple[ForestPanel, ...]:
    """Contrasts and single arms, one panel for each kind and scale, in the order of the spec."""
    groups: dict[tuple[bool, tuple[float, float]], list[AnalysisResult]] = defaultdict(list)
    for analysis in analyses:
        groups[analysis.contrast is None, analysis.scale].append(analysis)
    return tuple(
        _panel(group, scale, single=single, several=len(groups) > 1)
        for (single, scale), group in sorted(groups.items(), key=lambda item: item[0][0])
    )


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
        bars = _bars({"": differences}, _even_bins(*span), metric.scale, f"{metric.unit}s", sign=True)[""]
        ticks = round_ticks(*span, span, sign=True)
    else:
        bars, ticks = (), round_ticks(low, high, (high, low))
    return Paired(
        analysis=one_line(analysis.name),
        metric=one_line(metric.name),
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
        mean_treatment=_across(analysis.mean_treatment, (high, low)),
        mean_control=_across(analysis.mean_control, (high, low)),
        mean_treatment_text=_mean_text(analysis.mean_treatment, metric.scale, analysis.unknown_because),
        mean_control_text=_mean_text(analysis.mean_control, metric.scale, analysis.unknown_because),
    )


def distributions(
    design: Design,
    arms: Sequence[ArmSummary],
    analyses: Sequence[AnalysisResult],
    rows: Sequence[MeasurementRow],
) -> tuple[Distribution, ...]:
    """Unit means by arm for every metric that has rows; arms in the order of the spec.

    A filtered metric is drawn without its filter too, where an analysis reads it so or may do so.
    """
    filtered, without = unit_means(design, rows), unit_means(design, rows, unfiltered=True)
    also = {a.metric for a in analyses if a.bound_by is not None and a.bound_to != "filtered"}
    found: list[Distribution] = []
    for metric in design.metrics:
        summaries = [arm for arm in arms if arm.metric == metric.name]
        contrasts = [a.contrast for a in analyses if a.metric == metric.name and a.confirmatory and a.contrast]
        kept = {arm.condition: arm.mean for arm in summaries}
        found += _distribution(design, metric, filtered, kept, contrasts, rows, of=ALL)
        if metric.name in also:
            every = {arm.condition: arm.mean_unfiltered for arm in summaries}
            found += _distribution(design, metric, without, every, contrasts, rows, of=UNFILTERED)
    return tuple(found)


def _distribution(
    design: Design, metric: Metric, means: UnitMeans, arm_means: Mapping[str, float | None],
    contrasts: Sequence[Contrast], rows: Sequence[MeasurementRow], *, of: str,
) -> Iterator[Distribution]:  # fmt: skip
    """The figure of one metric in one slice, none where it has no rows."""
    units = {c.name: means[metric.name, c.name] for c in design.conditions if (metric.name, c.name) in means}
    if not units:
        return
    values = {name: [v for v in held.values() if v is not None] for name, held in units.items()}
    bins = _bins(values, metric, [row for row in rows if row.slice == of])
    bars = _bars(values, bins, metric.scale, f"{metric.unit}s")
    lost = "nothing left by the filter" if metric.filter is not None and of == ALL else "nothing scored"
    yield Distribution(
        metric=one_line(metric.name),
        scores=one_line(scores_of(metric, unfiltered=of == UNFILTERED)),
        unit=metric.unit,
        show_counts=bins.count <= MOST_COUNTED_BINS,
        ticks=round_ticks(*metric.scale, bins.domain),
        rows=tuple(
            DistributionRow(
                condition=one_line(name),
                part=_part(name, contrasts),
                bars=bars[name],
                mean=_across(arm_means.get(name), bins.domain),
                mean_text=_mean_text(arm_means.get(name), metric.scale, f"not every {metric.unit} is scored"),
                units=_units_text(held, metric.unit, lost),
            )
            for name, held in units.items()
        ),
    )


def comparison(analysis: AnalysisResult) -> str:
    """`treatment − control`, or the one arm, and the prompt set to which it is restricted."""
    on = f", on {one_line(analysis.subset)}" if analysis.subset is not None else ""
    if analysis.contrast is not None:
        return f"{one_line(analysis.contrast.treatment)} − {one_line(analysis.contrast.control)}{on}"
    return f"{one_line(analysis.arm or 'unnamed arm')} alone{on}"


def _panel(group: Sequence[AnalysisResult], scale: tuple[float, float], *, single: bool, several: bool) -> ForestPanel:
    shown = [value for analysis in group for value in _on_axis(analysis)] + ([] if single else [0.0])
    width = scale[1] - scale[0]
    limits = scale if single else (-width, width)
    low, high = _domain(shown, limits)
    heading = ""
    if several:
        span = f"{numbers.compact(scale[0])} to {numbers.compact(scale[1])}"
        heading = f"Single arms, scale {span}" if single else f"Differences, treatment − control, scale {span}"
    return ForestPanel(
        heading=heading,
        zero=None if single else _across(0.0, (low, high)),
        ticks=round_ticks(low, high, (low, high), sign=not single),
        rows=tuple(_forest_row(analysis, (low, high), single=single) for analysis in group),
    )


def _on_axis(analysis: AnalysisResult) -> list[float]:
    read = {threshold.statistic for threshold in analysis.thresholds}
    names = {"delta", "value", "ci_low", "ci_high"} | (read & {"lower", "upper"})
    values = [value for name, value in analysis.statistics.items() if name in names and value is not None]
    return values + list(analysis.per_seed.values()) + [threshold.constant for threshold in _drawn(analysis)]


def _drawn(analysis: AnalysisResult) -> list[Threshold]:
    """Thresholds that lie on the axis and are read before the verdict."""
    return [t for t in analysis.thresholds if t.statistic in ON_AXIS and t.role != "follow_up"]


def _forest_row(analysis: AnalysisResult, domain: tuple[float, float], *, single: bool) -> ForestRow:
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
    lines = _lines(_drawn(analysis), domain)
    top = max((line.lane + 1 for line in lines), default=0) * LANE
    compared = comparison(analysis)
    return ForestRow(
        name=one_line(analysis.name),
        anchor=f"analysis-{slug(analysis.name)}",
        comparison=compared,
        metric=one_line(analysis.metric),
        confirmatory=analysis.confirmatory,
        point=_across(point, domain),
        low=_across(low, domain),
        high=_across(high, domain),
        bounds=_bounds(analysis, domain),
        seeds=tuple(
            Tick(x=_position(estimate, domain), label=f"training seed {seed}: {text}")
            for seed, estimate, text in by_seed(analysis)
        ),
        lines=lines,
        value=value,
        interval=interval,
        title=f"{one_line(analysis.name)}, {compared}: {value} {interval}".rstrip(),
        top=top,
        height=top + 34,
        middle=top + 19,
    )


def by_seed(analysis: AnalysisResult) -> Iterator[tuple[int, float, str]]:
    """(training seed, estimate, the estimate as text), by seed; nothing where there are fewer than two."""
    digits = numbers.digits_for(analysis.scale)
    for seed, estimate in sorted((int(seed), estimate) for seed, estimate in analysis.per_seed.items()):
        yield seed, estimate, numbers.fixed(estimate, digits, sign=analysis.contrast is not None)


def _bounds(analysis: AnalysisResult, domain: tuple[float, float]) -> tuple[Bound, ...]:
    drawn = []
    level = numbers.percent_level(1 - analysis.alpha)
    for name in ("lower", "upper"):
        value = analysis.statistics.get(name)
        if value is not None and any(threshold.statistic == name for threshold in analysis.thresholds):
            text = numbers.fixed(value, numbers.digits_for(analysis.scale), sign=analysis.contrast is not None)
            title = f"one-sided {level} {name} bound: {text}"
            drawn.append(Bound(x=_position(value, domain), foot=5 if name == "lower" else -5, title=title))
    return tuple(drawn)


def _lines(thresholds: Sequence[Threshold], domain: tuple[float, float]) -> tuple[Line, ...]:
    """A lane for every label: they can touch neither each other nor, where avoidable, a line."""
    placed: list[tuple[Literal["start", "middle", "end"], float, str, Threshold]] = []
    for threshold in thresholds:
        x = _position(threshold.constant, domain)
        label = _label(threshold)
        width = 100 * len(label) * CHARACTER / NARROW
        placed.append(("start" if x + width <= 100 else "end" if x >= width else "middle", x, label, threshold))
    rank = {"start": 0, "end": 1, "middle": 2}
    placed.sort(key=lambda item: (rank[item[0]], -item[1] if item[0] == "end" else item[1], item[2]))
    return tuple(
        Line(
            x=x, lane=lane, anchor=anchor, label=label, tone=_tone(threshold.role),
            title=f"{threshold.role} gate {one_line(threshold.gate)}: {_condition(threshold)}",
        )
        for lane, (anchor, x, label, threshold) in enumerate(placed)
    )  # fmt: skip


def _condition(threshold: Threshold) -> str:
    operator = threshold.operator.replace("<=", "≤").replace(">=", "≥")
    return f"{threshold.statistic} {operator} {numbers.compact(threshold.constant)}"


def _label(threshold: Threshold) -> str:
    """Gate and condition, the gate's name cut so that the label fits beside its line on a phone."""
    gate, condition = one_line(threshold.gate), _condition(threshold)
    room = max(6, LONGEST_LABEL - len(condition) - 2)
    return f"{gate if len(gate) <= room else gate[: room - 1] + '…'}: {condition}"


def _tone(role: Role) -> Literal["good", "bad", "plain"]:
    if role in ("kill", "override"):
        return "bad"
    return "good" if role == "success" else "plain"


def _mark(index: int, n: int, pair: tuple[str, float, float], scale: tuple[float, float]) -> Mark:
    unit, before, after = pair
    difference = round(after - before, 12)
    return Mark(
        unit=one_line(unit),
        left=_place(100 * index / n),
        width=_place(100 / n),
        x=_place(100 * (index + 0.5) / n),
        control=_position(before, (scale[1], scale[0])),
        treatment=_position(after, (scale[1], scale[0])),
        control_text=numbers.level(before, scale),
        treatment_text=numbers.level(after, scale),
        difference_text=numbers.difference(difference, scale),
        direction="up" if difference > 0 else "down" if difference < 0 else "same",
    )


def _bins(values: Mapping[str, Sequence[float]], metric: Metric, rows: Sequence[MeasurementRow]) -> Bins:
    """One bin for each value that a unit mean can take where those are few and known, else BINS equal ones."""
    low, high = metric.scale
    read = [row for row in rows if row.metric == metric.name and row.n]
    seeds = max(Counter((row.condition, row.unit) for row in read).values(), default=1)
    lattices = {row.n * row.denominator for row in read}
    steps = round((high - low) * lattices.pop() * seeds) if len(lattices) == 1 else 0
    if 1 <= steps < MOST_LATTICE_BINS:
        width = (high - low) / steps
        at = [(value - low) / width for held in values.values() for value in held]
        if all(abs(position - round(position)) < 1e-6 for position in at):
            air = min(width, WIDEST_BAR * (high - low)) / 2
            return Bins(low=low - width / 2, width=width, count=steps + 1, lattice=True, domain=(low - air, high + air))
    return _even_bins(low, high)


def _even_bins(low: float, high: float) -> Bins:
    return Bins(low=low, width=(high - low) / BINS, count=BINS, lattice=False, domain=(low, high))


def _bars(
    values: Mapping[str, Sequence[float]], bins: Bins, scale: tuple[float, float], units: str, *, sign: bool = False
) -> dict[str, tuple[Bar, ...]]:
    """Histogram of each arm, as shares of its units, all on one height scale."""
    counts = {
        name: Counter(min(bins.count - 1, max(0, math.floor((value - bins.low) / bins.width + 1e-9))) for value in held)
        for name, held in values.items()
    }
    tallest = max((max(count.values()) / count.total() for count in counts.values() if count), default=1.0)
    digits = numbers.digits_for(scale)
    drawn = {}
    for name, count in counts.items():
        bars = []
        for index in sorted(count):
            start = bins.low + index * bins.width
            left, right = (_position(end, bins.domain) for end in bins.bar(index))
            height = 100 * count[index] / count.total() / tallest
            if bins.lattice:
                span = numbers.level(round(start + bins.width / 2, 12), scale)
            else:
                ends = (numbers.fixed(end, digits, sign=sign) for end in (start, start + bins.width))
                span = " to ".join(ends)
            bars.append(
                Bar(
                    x=left,
                    width=_place(right - left),
                    middle=_place((left + right) / 2),
                    top=_place(100 - height),
                    height=_place(height),
                    count=count[index],
                    title=f"{span}: {count[index]} of {count.total()} {units}",
                )
            )
        drawn[name] = tuple(bars)
    return drawn


def _part(name: str, contrasts: Sequence[Contrast]) -> Literal["treatment", "control", "other"]:
    if any(contrast.treatment == name for contrast in contrasts):
        return "treatment"
    return "control" if any(contrast.control == name for contrast in contrasts) else "other"


def _units_text(held: Mapping[str, float | None], unit: str, lost: str) -> str:
    missing = sum(value is None for value in held.values())
    text = numbers.count(len(held) - missing, unit)
    return f"{text}, {missing} with {lost}" if missing else text


def _mean_text(mean: float | None, scale: tuple[float, float], reason: str | None) -> str:
    return numbers.unknown(reason) if mean is None else numbers.level(mean, scale)


def _domain(values: Sequence[float], limits: tuple[float, float]) -> tuple[float, float]:
    """The values with some air around them, within the limits unless a value lies outside."""
    if not values:
        return limits
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 0.05 * (limits[1] - limits[0])
    return min(low, max(limits[0], low - air)), max(high, min(limits[1], high + air))


def round_ticks(low: float, high: float, domain: tuple[float, float], *, sign: bool = False) -> tuple[Tick, ...]:
    """Round numbers within [low, high], placed on `domain`: at most six, so that labels stay apart on a phone."""
    power = math.floor(math.log10(high - low)) - 1
    steps = [(multiple * 10.0**exponent, exponent) for exponent in (power, power + 1) for multiple in (1, 2, 5)]
    step, exponent = next((step, exponent) for step, exponent in steps if (high - low) / step <= 5 + 1e-9)
    ticks = []
    for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        ticks.append(
            Tick(x=_position(index * step, domain), label=numbers.fixed(index * step, max(0, -exponent), sign=sign))
        )
    return tuple(ticks)


def _position(value: float, domain: tuple[float, float]) -> float:
    """Percent from the left."""
    return _place(100 * (value - domain[0]) / (domain[1] - domain[0]))


def _across(value: float | None, domain: tuple[float, float]) -> float | None:
    return None if value is None else _position(value, domain)


def _place(percent: float) -> float:
    return round(percent, 2) + 0.0


def slug(name: str) -> str:
    """An id for an anchor: letters, digits, hyphens; distinct names of a spec stay distinct enough to link."""
    return "".join(char if char.isascii() and (char.isalnum() or char == "_") else "-" for char in name)
