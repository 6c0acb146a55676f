"""Validity gates on missing scores: how many a judge left out, in which arm, and whether it matters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from epc.compiler.contract.decision import AnalysisResult
from epc.compiler.contract.logic import Atom, leaves
from epc.compiler.contract.manifest import Analysis, Design, Metric
from epc.runtime.estimates import analysis_result, incomplete
from epc.runtime.gates import Evaluated
from epc.runtime.measurements import Measurements
from epc.runtime.statistics import Resamples
from epc.runtime.statistics.fisher import fisher_two_sided
from epc.runtime.switches import Evaluation, evaluate_design, variants_of
from epc.runtime.verdict import DECIDING, label_of
from epc.runtime.wording import count

DIFFERENTIAL_P = Fraction(1, 100)
"""Missing rates of two arms differ where Fisher's exact p is below this ..."""
DIFFERENTIAL_GAP = Fraction(2, 100)
"""... and they are at least this far apart: with thousands of completions a harmless gap has a small p too."""


SCORED_BY_OTHERS: Final = ("judge", "results")
"""Kinds of metric whose scores may be missing although there is a completion."""


def judged_gates(design: Design, measurements: Measurements) -> Iterator[Evaluated]:
    """The gates that a design gets whose scores come from a judge or from elsewhere."""
    metrics = [metric for metric in design.metrics if metric.kind == "judge"]
    if metrics:
        yield _judge_missing(design, metrics, measurements)
    contrasts = list(_contrasts(design))
    if contrasts:
        yield _differential_missingness(contrasts, measurements)


def read_by_the_decision(design: Design) -> list[Analysis]:
    """Analyses that a deciding gate, a validity gate or a switch reads; what a switch governs is read by others."""
    read = {
        leaf.analysis
        for gate in design.gates
        if gate.role in DECIDING or gate.role in ("validity", "switch")
        for leaf in leaves(gate.predicate)
        if isinstance(leaf, Atom)
    }
    return [analysis for analysis in design.analyses if analysis.name in read]


@dataclass(frozen=True, kw_only=True)
class _Missing:
    """Completions of one arm that a judge should have scored, over all units and training seeds."""

    missing: int
    total: int

    @property
    def rate(self) -> Fraction:
        return Fraction(self.missing, self.total)

    def __str__(self) -> str:
        return f"{self.missing} of {self.total} ({100 * float(self.rate):.3g}%)"


def _missing(metric: Metric, arm: str, measurements: Measurements) -> _Missing | None:
    """Counts of one arm, None where it has no completion."""
    units = measurements.cells.get((metric.name, arm), {}).values()
    missing = sum(unit.n_missing for unit in units)
    total = missing + sum(unit.n + unit.n_filtered for unit in units)
    return _Missing(missing=missing, total=total) if total else None


def _judge_missing(design: Design, metrics: Sequence[Metric], measurements: Measurements) -> Evaluated:
    """Whether every judge left at most its `max_missing` of every arm's completions without a score.

    The share is n_missing / (n + n_missing + n_filtered), summed over units and training seeds, in each
    sample set that the judge scored; it is taken from the measurement rows, so that rows of any origin are
    held to it. A judge of which there is no row at all leaves the gate unknown. Why: in a real run 378 of
    560 replies were HTTP 429, recorded as parse errors and averaged over.
    """
    most = {judge.name: judge.max_missing for judge in design.judges}
    above: dict[str, None] = {}
    highest: dict[str, tuple[Fraction, str]] = {}
    for metric in metrics:
        assert metric.judge is not None  # `decide` has checked it
        for condition in design.conditions:
            found = _missing(metric, condition.name, measurements)
            if found is None:
                continue
            where = f"{metric.judge} in {condition.name} ({metric.source})"
            if found.rate > Fraction(repr(most[metric.judge])):
                above[f"{where}: {found}, allowed {100 * most[metric.judge]:g}%"] = None
            if metric.judge not in highest or found.rate > highest[metric.judge][0]:
                told = f"the most is {found}: {where}" if found.missing else f"{metric.judge}: no score is missing"
                highest[metric.judge] = (found.rate, told)
    unread = [judge.name for judge in design.judges if judge.name not in highest]
    parts = ["; ".join(above)] if above else []
    if unread:
        parts.append(f"there is no measurement of {', '.join(unread)}")
    return Evaluated(
        name="epc.judge_missing", role="validity", built_in=True,
        text="no judge left more completions of an arm without a score than it may",
        truth=False if above else None if unread else True,
        detail="; ".join(parts) or "; ".join(told for _, told in highest.values()),
    )  # fmt: skip


def _contrasts(design: Design) -> Iterator[tuple[Metric, str, str]]:
    """(metric, treatment, control) of contrasts that the decision reads, each judge and sample set once.

    Of scores from elsewhere each metric is one: nobody says which of them were made together.
    """
    metrics = {metric.name: metric for metric in design.metrics}
    read = read_by_the_decision(design)
    seen: set[tuple[str, str, str, str]] = set()
    for analysis in design.analyses:
        metric = metrics[analysis.metric]
        if analysis.contrast is None or metric.kind not in SCORED_BY_OTHERS or analysis not in read:
            continue
        arms = (analysis.contrast.treatment, analysis.contrast.control)
        if (metric.judge or metric.name, metric.source, *arms) not in seen:
            seen.add((metric.judge or metric.name, metric.source, *arms))
            yield metric, *arms


def _differential_missingness(
    contrasts: Sequence[tuple[Metric, str, str]], measurements: Measurements
) -> Evaluated:  # fmt: skip
    """Whether the two arms of no deciding contrast differ in how much is missing.

    They differ where Fisher's exact two-sided p of (missing, scored) by arm is below DIFFERENTIAL_P and the
    rates are at least DIFFERENTIAL_GAP apart. Missingness that depends on the arm depends on what the arm
    wrote, so that neither dropping nor filling repairs it (R. Little and D. Rubin, Statistical Analysis with
    Missing Data, 2002, chapter 1). Why: judge errors were 0/240 before and 10/240 after an attack, p = .0018.
    """
    differ: list[str] = []
    alike: list[str] = []
    unknown: list[str] = []
    for metric, treatment, control in contrasts:
        where = f"{metric.judge or metric.name} on {metric.source}"
        one, other = (_missing(metric, arm, measurements) for arm in (treatment, control))
        if one is None or other is None:
            absent = " and ".join(arm for arm, found in ((treatment, one), (control, other)) if found is None)
            unknown.append(f"there is no measurement of {metric.name} in {absent}")
            continue
        p = fisher_two_sided(one.missing, one.total, other.missing, other.total)
        told = f"{where}: {treatment} {one}, {control} {other}, p = {float(p):.3g}"
        fires = p < DIFFERENTIAL_P and abs(one.rate - other.rate) >= DIFFERENTIAL_GAP
        if fires:
            differ.append(told)
        elif one.missing or other.missing:
            alike.append(told)
    return Evaluated(
        name="epc.differential_missingness", role="validity", built_in=True,
        text="what is missing does not depend on the arm", truth=False if differ else None if unknown else True,
        detail="; ".join(differ or unknown or alike)
        or f"no score is missing in {count(len(contrasts), 'scored contrast')} that the decision reads",
    )  # fmt: skip


Corner = Literal["treatment low and control high", "treatment high and control low"]
CORNER_GATE: Final = "epc.missing_corners"
CORNERS: tuple[Corner, Corner] = ("treatment low and control high", "treatment high and control low")


def compute(design: Design, measurements: Measurements, shared: Resamples | None = None) -> tuple[AnalysisResult, ...]:
    """Every analysis as registered; one that a switch governs in both variants. `shared` holds the draws."""
    return tuple(
        analysis_result(design, analysis, measurements, variant=variant, shared=shared)
        for analysis in design.analyses
        for variant in variants_of(analysis, design)
    )


@dataclass(frozen=True, kw_only=True)
class Corners:
    """What the decision reads at both extremes of the missing scores that were dropped."""

    dropped: tuple[Analysis, ...]
    """Analyses that the decision reads and that dropped something."""
    at: Mapping[Corner, Mapping[str, AnalysisResult]]
    """Every analysis by name, those that dropped something recomputed."""


def corners_of(
    design: Design, measurements: Measurements, observed: Evaluation, shared: Resamples | None = None
) -> Corners | None:
    """Every missing score of a treatment at the bottom of the scale and of a control at the top, and the reverse.

    None where no analysis that the decision reads dropped something.
    """
    metrics = {metric.name: metric for metric in design.metrics}
    dropped = tuple(
        analysis
        for analysis in read_by_the_decision(design)
        if metrics[analysis.metric].missing == "drop" and incomplete(design, analysis, measurements)
    )
    if not dropped:
        return None
    at = {corner: _filled(design, measurements, dropped, corner, observed, shared) for corner in CORNERS}
    return Corners(dropped=dropped, at=at)


def corner_gate(design: Design, corners: Corners, observed: Evaluation) -> Evaluated:
    """Where missing scores were dropped: does the design say the same whatever they were?

    What a switch reads goes through the two corners on its own, since a missing completion may have been one that
    the filter drops, and the switch is evaluated again at each.
    """
    switching = {
        leaf.analysis
        for gate in design.gates
        if gate.role == "switch"
        for leaf in leaves(gate.predicate)
        if isinstance(leaf, Atom)
    }
    switch_has_holes = any(analysis.name in switching for analysis in corners.dropped)
    label = label_of(design.verdicts, observed.readings)
    told: dict[tuple[str, str], None] = {}
    for corner in CORNERS:
        for of_switch in CORNERS if switch_has_holes else (corner,):
            at = corners.at[corner]
            results = [corners.at[of_switch if name in switching else corner][name] for name in at]
            readings = evaluate_design(design, results).readings
            said = " or ".join(reading.said for reading in readings)
            told[label_of(design.verdicts, readings), corner + (f" and {said}" if said else "")] = None
    names = ", ".join(analysis.name for analysis in corners.dropped)
    return Evaluated(
        name=CORNER_GATE, role="validity", built_in=True, truth=all(other == label for other, _ in told),
        text="the verdict is the same at both extremes of the missing scores",
        detail=f"missing scores were dropped in {names}: {label} without them, "
        + ", ".join(f"{other} with {corner}" for other, corner in told),
    )  # fmt: skip


def _filled(
    design: Design, measurements: Measurements, holes: Sequence[Analysis], corner: Corner, observed: Evaluation,
    shared: Resamples | None,
) -> Mapping[str, AnalysisResult]:  # fmt: skip
    """Every analysis by name, those with holes at a corner."""
    metrics = {metric.name: metric for metric in design.metrics}
    found: dict[str, AnalysisResult] = {}
    for analysis in design.analyses:
        low, high = (Fraction(repr(float(bound))) for bound in metrics[analysis.metric].scale)
        fills = (low, high) if corner == CORNERS[0] else (high, low)
        for variant in variants_of(analysis, design):
            name = analysis.name if variant is None else f"{analysis.name}.{variant}"
            if analysis in holes:
                found[name] = analysis_result(design, analysis, measurements, fills, variant=variant, shared=shared)
            else:
                found[name] = observed.results[name]
    return found
