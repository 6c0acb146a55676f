"""How much the verdict rests on how its analyses were computed. Beside the registered result, never a choice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from epc.compiler.contract.decision import (
    Alternative,
    AnalysisResult,
    AnalysisSensitivity,
    Decision,
    LeaveOneOut,
    Margin,
)
from epc.runtime.report import numbers
from epc.runtime.report.anchors import analysis_anchor
from epc.runtime.report.sections.sources import Reference, Sources
from epc.runtime.report.text import one_line
from epc.runtime.statistics import NESTED


@dataclass(frozen=True, kw_only=True)
class AlternativeView:
    name: str
    registered: bool
    estimate: str
    p: str
    test: str
    units: str
    verdict: str
    changes: bool


@dataclass(frozen=True, kw_only=True)
class AlternativeGroup:
    heading: str
    rows: tuple[AlternativeView, ...]


@dataclass(frozen=True, kw_only=True)
class MarginView:
    gate: str
    role: str
    comparison: str
    observed: str
    distance: str
    standard_errors: str


@dataclass(frozen=True, kw_only=True)
class PanelView:
    """The sensitivity of one analysis."""

    analysis: str
    anchor: str
    fragile: bool
    changes: bool
    """Whether an alternative, or a unit left out, gives another verdict."""
    open: bool
    """Whether it is unfolded from the start."""
    sentence: str
    groups: tuple[AlternativeGroup, ...]
    leave_one_out: tuple[str, ...]
    """Sentences."""
    facts: tuple[tuple[str, str], ...]
    margins: tuple[MarginView, ...]
    rows: tuple[Reference, ...]


@dataclass(frozen=True, kw_only=True)
class SensitivityView:
    summary: str
    fragile: tuple[str, ...]
    """One line for each analysis whose test depends on the definition of p."""
    panels: tuple[PanelView, ...]


def sensitivity_view(decision: Decision, sources: Sources) -> SensitivityView:
    results = {analysis.name: analysis for analysis in decision.analyses}
    return SensitivityView(
        summary=_summary(decision.sensitivity),
        fragile=tuple(_fragile(entry) for entry in decision.sensitivity if entry.fragile),
        panels=tuple(
            _panel(entry, results[entry.analysis], sources)
            for entry in decision.sensitivity
            if entry.analysis in results
        ),
    )


def _alternatives(entry: AnalysisSensitivity) -> Iterator[tuple[str, tuple[Alternative, ...]]]:
    drawn = "" if entry.resamples is None else f", {numbers.count(entry.resamples, 'draw')} each, seed {entry.seed}"
    yield f"Definitions of p{drawn}", entry.definitions
    yield "With the filter and without it", entry.filters
    yield "Weights", entry.weights
    yield "One training seed alone", entry.seeds
    yield "One training seed left out", entry.without_seed
    yield "Missing scores at both extremes", entry.missing


def _summary(panel: Sequence[AnalysisSensitivity]) -> str:
    """What became of the verdict in all alternatives, in one sentence."""
    tried = [found for entry in panel for _, group in _alternatives(entry) for found in group if not found.registered]
    changed = [found for found in tried if found.changes]
    units = sum(entry.leave_one_out.n_checked for entry in panel if entry.leave_one_out is not None)
    flips = sum(len(entry.leave_one_out.changing) for entry in panel if entry.leave_one_out is not None)
    if not panel:
        return "no analysis that decides has one"
    if not tried and not units:
        return "nothing could be computed in another way"
    parts = [f"{numbers.count(len(tried), 'other way', 'other ways')} to compute, {_flips(len(changed))}"]
    if units:
        parts.append(f"{numbers.count(units, 'unit')} left out one at a time, {_flips(flips)}")
    return "; ".join(parts)


def _flips(n: int) -> str:
    return f"{n:,} of them with another verdict" if n else "all with the same verdict"


def _fragile(entry: AnalysisSensitivity) -> str:
    sides: dict[bool, list[str]] = {True: [], False: []}
    for found in entry.definitions:
        if found.reject is not None:
            told = "" if found.p is None else f" {numbers.p_phrase(found.p, entry.alpha)}"
            sides[found.reject].append(f"{_title(found)}{told}")
    return one_line(
        f"{entry.analysis}: at α = {numbers.compact(entry.alpha)}, {', '.join(sides[True])} reject; "
        f"{', '.join(sides[False])} do not"
    )


def _title(found: Alternative) -> str:
    return one_line(found.name.replace("_", " "))


def _panel(entry: AnalysisSensitivity, result: AnalysisResult, sources: Sources) -> PanelView:
    leave = entry.leave_one_out
    changes = any(found.changes for _, group in _alternatives(entry) for found in group)
    changes = changes or bool(leave and leave.changing)
    return PanelView(
        analysis=one_line(entry.analysis),
        anchor=analysis_anchor(entry.analysis),
        fragile=entry.fragile,
        changes=changes,
        open=changes or entry.fragile or entry.confirmatory,
        sentence=_sentence(entry),
        groups=tuple(
            AlternativeGroup(heading=heading, rows=tuple(_alternative(found, result) for found in group))
            for heading, group in _alternatives(entry)
            if group
        ),
        leave_one_out=() if leave is None else tuple(_leave_one_out(leave, result)),
        facts=tuple(_facts(entry, result)),
        margins=tuple(_margin(margin, result, known=entry.standard_error is not None) for margin in entry.margins),
        rows=sources.of_analysis(result),
    )


def _sentence(entry: AnalysisSensitivity) -> str:
    if entry.unknown_because is not None:
        return numbers.unknown(one_line(entry.unknown_because))
    if entry.fragile:
        told = "FRAGILE: whether the test rejects depends on the definition of p."
    elif entry.definitions:
        told = "Every definition of p gives the same side of alpha."
    else:
        told = "Of this analysis the decision reads the estimate alone, so no p is compared."
    if any(found.registered and found.name in NESTED for found in entry.definitions):
        told += " All but the registered one draw units alone, and take a unit's mean over seeds and samples as it is."
    if entry.seeds_unknown_because is not None:
        told += f" Not with every training seed alone: {one_line(entry.seeds_unknown_because)}."
    return told


def _alternative(found: Alternative, result: AnalysisResult) -> AlternativeView:
    contrast = result.contrast is not None
    unknown = numbers.unknown(one_line(found.unknown_because or "not defined"))
    return AlternativeView(
        name=_title(found),
        registered=found.registered,
        estimate=unknown
        if found.estimate is None
        else numbers.estimate(found.estimate, result.scale, contrast=contrast),
        p="none" if found.p is None else numbers.p_value(found.p, result.alpha),
        test={True: "rejects", False: "does not reject", None: "no test"}[found.reject],
        units=numbers.count(found.n_units, result.unit),
        verdict=one_line(found.verdict),
        changes=found.changes,
    )


def _leave_one_out(leave: LeaveOneOut, result: AnalysisResult) -> Iterator[str]:
    def write(value: float) -> str:
        return numbers.estimate(value, result.scale, contrast=result.contrast is not None)

    yield (
        f"Without one {result.unit} the estimate lies between {write(leave.lowest)} (without "
        f"{one_line(leave.lowest_without)}) and {write(leave.highest)} (without {one_line(leave.highest_without)})."
    )
    if leave.p_lowest is not None and leave.p_highest is not None:
        yield f"p lies between {numbers.p_value(leave.p_lowest)} and {numbers.p_value(leave.p_highest)}."
    checked = (
        f"each of {numbers.count(leave.n_units, result.unit)}"
        if leave.n_checked == leave.n_units
        else f"the {leave.n_checked:,} of {numbers.count(leave.n_units, result.unit)} that move the estimate most"
    )
    if not leave.changing:
        yield f"The verdict is the same without {checked} in turn."
        return
    yield f"Without {checked} in turn, {leave.n_checked - len(leave.changing):,} times the verdict is the same, and"
    for unit in leave.changing:
        p = "" if unit.p is None else f", {numbers.p_phrase(unit.p)}"
        yield f"without {one_line(unit.unit)} it is {one_line(unit.verdict)} (estimate {write(unit.estimate)}{p})."


def _facts(entry: AnalysisSensitivity, result: AnalysisResult) -> Iterator[tuple[str, str]]:
    digits = numbers.digits_for(result.scale)
    if entry.monte_carlo is not None:
        mc = entry.monte_carlo
        says = (
            "excludes alpha"
            if mc.excludes_alpha
            else "contains alpha: more draws could turn the test around"
        )  # fmt: skip
        yield (
            "Monte Carlo error of p",
            f"{mc.extreme:,} of {numbers.count(mc.draws, 'draw')} at least as extreme; {numbers.percent_level(mc.level)} "
            f"interval {numbers.p_value(mc.p_low)} to {numbers.p_value(mc.p_high)}, which {says}",
        )
    if entry.standard_error is not None:
        yield "Standard error of the estimate", numbers.fixed(entry.standard_error, digits + 1)
    elif result.sd and any(found.registered and found.name in NESTED for found in entry.definitions):
        yield "Standard error of the estimate", "not given: that of the units alone would leave out the training seeds"
    if result.skewness is not None:
        yield "Skewness of the unit values", numbers.fixed(result.skewness, 2)
    if entry.minimum_detectable is not None:
        mde = entry.minimum_detectable
        yield (
            "Minimum detectable effect",
            f"{numbers.fixed(mde.effect, digits)} with power {numbers.percent_level(mde.power)}: {one_line(mde.formula)}",
        )


def _margin(margin: Margin, result: AnalysisResult, *, known: bool) -> MarginView:
    """`known` is whether the analysis has a standard error."""
    digits = numbers.digits_for(result.scale)
    return MarginView(
        gate=one_line(margin.gate),
        role=margin.role.replace("_", "-"),
        comparison=one_line(margin.comparison),
        observed=_observed(margin, digits + 1),
        distance=numbers.fixed(margin.distance, digits + 1, sign=True),
        standard_errors=(
            ("not known" if result.sd and not known else "nothing varies")
            if margin.standard_errors is None
            else numbers.fixed(margin.standard_errors, 2, sign=True)
        ),
    )


def _observed(margin: Margin, digits: int) -> str:
    statistic = margin.comparison.split()[0]
    if statistic == "reject":
        return "rejects" if margin.observed else "does not reject"
    return numbers.p_phrase(margin.observed) if statistic == "p" else numbers.fixed(margin.observed, digits)
