"""Every analysis with its numbers, and both variants of one that a switch governs."""

from __future__ import annotations

from dataclasses import dataclass

from epc.compiler.contract.decision import AnalysisResult, Decision
from epc.runtime.report import numbers
from epc.runtime.report.anchors import analysis_anchor
from epc.runtime.report.figures.forest import by_seed, comparison
from epc.runtime.report.sections import multiplicity
from epc.runtime.report.sections.sources import Reference, Sources
from epc.runtime.report.text import one_line


@dataclass(frozen=True, kw_only=True)
class AnalysisView:
    name: str
    anchor: str
    metric: str
    comparison: str
    definition: str
    test: str
    better: str
    contrast: bool
    """False for the level of one arm."""
    known: bool
    """Whether there is an estimate."""
    confirmatory: bool
    scores: str
    """Which scores of a filtered metric are read and why, empty where it has no filter."""
    units: str
    samples: str
    missing: str
    treatment: str
    control: str
    estimate: str
    by_seed: str
    """The estimate with each training seed, empty where there are fewer than two."""
    interval: str
    bounds: str
    p: str
    spread: str
    rows: tuple[Reference, ...]


@dataclass(frozen=True, kw_only=True)
class VariantView:
    """One of the two things that an analysis may be, of which a switch chooses."""

    analysis: AnalysisView
    dropped: str
    state: str
    decides: bool


@dataclass(frozen=True, kw_only=True)
class SwitchView:
    name: str
    analysis: str
    sentence: str
    variants: tuple[VariantView, ...]


def analysis_views(decision: Decision, sources: Sources) -> tuple[AnalysisView, ...]:
    """Every registered analysis; variants stand with their switch."""
    return tuple(_analysis(analysis, sources) for analysis in decision.analyses if analysis.variant_of is None)


def switch_views(decision: Decision, sources: Sources) -> tuple[SwitchView, ...]:
    gates = {gate.name: gate for gate in decision.gates}
    views = []
    for analysis in decision.analyses:
        if analysis.bound_by is None:
            continue
        gate = gates[analysis.bound_by]
        if analysis.bound_to is None:
            state = f"The switch is unknown, so the table was read with both variants of {analysis.name}."
            flip, same = f"One of them alone would make the verdict {gate.would_flip}.", "Both give the same verdict."
        else:
            state = f"The switch is {str(gate.truth).lower()}, so {analysis.name} is its {analysis.bound_to} variant."
            flip = f"The other variant would make the verdict {gate.would_flip}."
            same = "The verdict is the same with the other variant."
        views.append(
            SwitchView(
                name=one_line(gate.name),
                analysis=one_line(analysis.name),
                sentence=one_line(f"{state} {flip if gate.would_flip else same}"),
                variants=tuple(
                    _variant(variant, analysis, sources)
                    for variant in decision.analyses
                    if variant.variant_of == analysis.name
                ),
            )
        )
    return tuple(views)


def _variant(variant: AnalysisResult, governed: AnalysisResult, sources: Sources) -> VariantView:
    decides = governed.bound_to == variant.variant
    return VariantView(
        analysis=_analysis(variant, sources),
        dropped=_drops(variant) or "nothing",
        state="decides" if decides else "may decide" if governed.bound_to is None else "printed only",
        decides=decides,
    )


def _analysis(analysis: AnalysisResult, sources: Sources) -> AnalysisView:
    contrast = analysis.contrast is not None
    point = analysis.statistics.get("delta", analysis.statistics.get("value"))
    unknown = numbers.unknown(analysis.unknown_because)
    dropped = f", {numbers.count(analysis.n_units_missing, analysis.unit)} left out" if analysis.n_units_missing else ""
    if analysis.n_units_emptied:
        dropped += f", {numbers.count(analysis.n_units_emptied, analysis.unit)} emptied by the filter"
    return AnalysisView(
        name=one_line(analysis.name),
        anchor=analysis_anchor(analysis.name),
        metric=one_line(analysis.metric),
        comparison=comparison(analysis),
        definition=one_line(analysis.definition),
        test=_test(analysis),
        better=f"{analysis.better} values are better",
        confirmatory=analysis.confirmatory,
        scores=_scores(analysis),
        units=f"{numbers.count(analysis.n_units, analysis.unit)}{dropped}",
        samples=f"{analysis.n_samples:,}",
        missing=f"{analysis.n_missing:,}",
        contrast=contrast,
        treatment=_mean(analysis, analysis.mean_treatment if contrast else point),
        control=_mean(analysis, analysis.mean_control) if contrast else "no control: one arm",
        known=point is not None,
        estimate=unknown if point is None else numbers.estimate(point, analysis.scale, contrast=contrast),
        by_seed=_by_seed(analysis),
        interval=_interval(analysis),
        bounds=_bounds(analysis),
        p=_p(analysis),
        spread=_spread(analysis),
        rows=sources.of_analysis(analysis),
    )


def _drops(analysis: AnalysisResult) -> str:
    """How many of the scored completions the filter left out, by arm; empty where there is no filter."""
    if analysis.filter is None:
        return ""
    return ", ".join(
        f"{one_line(arm.condition)} {arm.n_filtered:,} of {arm.n + arm.n_filtered:,} ({numbers.rate(arm.drop_rate)})"
        for arm in analysis.arms
    )


def _scores(analysis: AnalysisResult) -> str:
    """`only where coherent >= 50; dropped: a 1 of 100 (1.0%); filtered, as switch drop_rates_differ says`."""
    parts = [f"only where {analysis.filter}; dropped: {_drops(analysis)}"] if analysis.filter is not None else []
    if analysis.bound_to is not None:
        parts.append(f"{analysis.bound_to}, as switch {analysis.bound_by} says")
    return one_line("; ".join(parts))


def _by_seed(analysis: AnalysisResult) -> str:
    """`by seed: 21 −0.520, 22 −0.480`, a seed and its estimate on one line."""
    estimates = ", ".join(f"{seed}\N{NO-BREAK SPACE}{text}" for seed, _, text in by_seed(analysis))
    return f"by seed: {estimates}" if estimates else ""


def _without(analysis: AnalysisResult, what: str) -> str:
    """Why a statistic is not there: nothing was estimated, or the method has none."""
    return numbers.unknown("no estimate") if analysis.unknown_because else f"none: {analysis.method} gives no {what}"


def _mean(analysis: AnalysisResult, mean: float | None) -> str:
    return numbers.unknown(analysis.unknown_because) if mean is None else numbers.level(mean, analysis.scale)


def _p(analysis: AnalysisResult) -> str:
    """`.0249`, and in a family `.0249, adjusted .0498`."""
    return multiplicity.p_text(analysis) or _without(analysis, "p")


def _interval(analysis: AnalysisResult) -> str:
    low, high = analysis.statistics.get("ci_low"), analysis.statistics.get("ci_high")
    if low is None or high is None:
        return _without(analysis, "interval")
    ends = numbers.interval(low, high, analysis.scale, sign=analysis.contrast is not None)
    return f"{ends}, {numbers.percent_level(analysis.ci_level)}"


def _bounds(analysis: AnalysisResult) -> str:
    digits, sign = numbers.digits_for(analysis.scale), analysis.contrast is not None
    ends = [
        f"{name} {numbers.fixed(value, digits, sign=sign)}"
        for name in ("lower", "upper")
        if (value := analysis.statistics.get(name)) is not None
    ]
    if not ends:
        return _without(analysis, "bounds")
    return f"{', '.join(ends)} (one-sided, {numbers.percent_level(1 - analysis.alpha)} each)"


def _test(analysis: AnalysisResult) -> str:
    reject = analysis.statistics.get("reject")
    tested = analysis.statistics.get("p") is not None
    unknown = "unknown whether rejected, " if tested and analysis.family is not None else ""
    outcome = unknown if reject is None else "rejected, " if reject else "not rejected, "
    family = "" if analysis.family is None else f", family {analysis.family}"
    look = "" if analysis.level is None else f", at the last look p below {numbers.compact(analysis.level)}"
    return one_line(f"{outcome}{analysis.side.replace('_', '-')}, α = {numbers.compact(analysis.alpha)}{family}{look}")


def _spread(analysis: AnalysisResult) -> str:
    of = "SD of units" if analysis.contrast is None else "SD of unit differences"
    if analysis.sd is None:
        return f"{of}: {_without(analysis, 'SD')}"
    skewness = "" if analysis.skewness is None else f", skewness {numbers.fixed(analysis.skewness, 2)}"
    return f"{of}: {numbers.fixed(analysis.sd, numbers.digits_for(analysis.scale))}{skewness}"
