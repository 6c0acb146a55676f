"""What both report files say, as finished strings: one source, so that they cannot disagree."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, assert_never, get_args

from epc.compiler.contract.decision import AnalysisResult, Decision, Deviation, GateResult, Observation
from epc.compiler.contract.logic import Operator, Truth
from epc.compiler.contract.manifest import Manifest
from epc.compiler.contract.rows import MeasurementRow, Outcome, SampleRow
from epc.runtime.report import figures, numbers
from epc.runtime.report.text import clipped, limit_for, one_line

Tone = Literal["good", "bad", "unknown", "plain"]

_ATOM = re.compile(
    r"(?P<analysis>\w+(?:\.(?:filtered|unfiltered))?)\.(?P<statistic>\w+)(?: *(?P<operator><=|>=|==|!=|<|>) *(?P<constant>\S+))?"
)
_OPERATORS: Mapping[str, Operator] = {operator: operator for operator in get_args(Operator)}
_SHA256 = re.compile("[0-9a-f]{64}")
LONGEST_FACT = 400
"""Characters of a recorded fact; decision.json holds all of it."""
LONGEST_PREVIEW = 90
"""Characters of a completion in the line that opens it."""


@dataclass(frozen=True, kw_only=True)
class AtomView:
    statistic: str
    observed: str
    threshold: str
    n: str
    word: str
    tone: Tone


@dataclass(frozen=True, kw_only=True)
class GateView:
    name: str
    role: str
    text: str
    say: str
    detail: str
    atoms: tuple[AtomView, ...]
    word: str
    tone: Tone
    flip: str


@dataclass(frozen=True, kw_only=True)
class RuleView:
    number: int
    text: str
    label: str
    say: str
    state: str
    matched: bool


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


@dataclass(frozen=True, kw_only=True)
class OutcomesView:
    """How the replies of one judge step came out, by arm."""

    step: str
    outcomes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...], str], ...]
    """(arm, counts in the order of `outcomes`, share scored)."""


@dataclass(frozen=True, kw_only=True)
class ArmView:
    metric: str
    condition: str
    seeds: str
    units: str
    samples: str
    missing: str
    mean: str
    sample_mean: str
    unfiltered: str
    """Mean without the filter, empty where the metric has none."""


@dataclass(frozen=True, kw_only=True)
class MissingView:
    metric: str
    condition: str
    units: str
    units_empty: str
    completions: str
    missing: str
    filtered: str


@dataclass(frozen=True, kw_only=True)
class TranscriptView:
    condition: str
    seed: str
    ending: str
    prompt: str
    text: str
    preview: str


@dataclass(frozen=True, kw_only=True)
class TranscriptGroup:
    """One identity in every arm that was drawn with it."""

    identity: str
    transcripts: tuple[TranscriptView, ...]


@dataclass(frozen=True, kw_only=True)
class TranscriptSet:
    name: str
    groups: tuple[TranscriptGroup, ...]


@dataclass(frozen=True, kw_only=True)
class StepView:
    id: str
    label: str
    seconds: str
    key: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class DeviationView:
    heading: str
    text: str
    changes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class View:
    """Everything a report template may print. Strings are plain text, to be escaped by the template."""

    epc: str
    id: str
    title: str
    question: str
    rehearsal: bool
    label: str
    verdict_class: str
    because: str
    say: str
    fired: tuple[str, ...]
    deviations: tuple[DeviationView, ...]
    loud: bool
    """Whether a deviation puts the pre-registration itself in doubt."""
    confidence: str
    confidence_reason: str
    conditional_on: str
    gates: tuple[GateView, ...]
    built_in: tuple[GateView, ...]
    rules: tuple[RuleView, ...]
    no_rule: str
    switches: tuple[SwitchView, ...]
    lane: int
    forest: tuple[figures.ForestPanel, ...]
    seeded: bool
    """Whether an analysis has estimates by training seed."""
    paired: tuple[figures.Paired, ...]
    distributions: tuple[figures.Distribution, ...]
    analyses: tuple[AnalysisView, ...]
    arms: tuple[ArmView, ...]
    filtered: bool
    """Whether a metric has a filter, so that arms have two means."""
    missing: tuple[MissingView, ...]
    outcomes: tuple[OutcomesView, ...]
    transcripts: tuple[TranscriptSet, ...]
    transcript_rule: str
    no_transcripts: str
    card: tuple[tuple[str, str], ...]
    steps: tuple[StepView, ...]
    steps_total: str
    registration: str
    hashes: tuple[tuple[str, str], ...]
    commands: tuple[tuple[str, str], ...]


def build(
    decision: Decision, manifest: Manifest, measurements: Sequence[MeasurementRow], transcripts: Sequence[SampleRow]
) -> View:
    """The report's content. Pure: the same inputs give the same view."""
    results = {analysis.name: analysis for analysis in decision.analyses}
    gates = [_gate(gate, results) for gate in decision.gates]
    design = manifest.design
    arms = _arms(decision, manifest)
    return View(
        epc=decision.epc,
        id=one_line(decision.id),
        title=one_line(decision.title),
        question=one_line(decision.question),
        rehearsal=decision.mode == "rehearsal",
        label=one_line(decision.verdict.label),
        verdict_class=decision.verdict.verdict_class,
        because=one_line(decision.verdict.because),
        say=one_line(decision.verdict.say),
        fired=tuple(_fired(name, decision.gates) for name in decision.fired),
        deviations=tuple(_deviation(deviation) for deviation in decision.deviations),
        loud=any(deviation.kind in ("spec_changed_after_results", "unregistered") for deviation in decision.deviations),
        confidence=decision.confidence.label,
        confidence_reason=one_line(decision.confidence.reason),
        conditional_on=one_line(decision.conditional_on),
        gates=tuple(view for view, gate in zip(gates, decision.gates, strict=True) if not gate.built_in),
        built_in=tuple(view for view, gate in zip(gates, decision.gates, strict=True) if gate.built_in),
        rules=_rules(decision, manifest),
        no_rule="" if decision.verdict.rule is not None else _no_rule(decision),
        switches=_switches(decision),
        lane=figures.LANE,
        forest=figures.forest(figures.drawn(decision.analyses)),
        seeded=any(analysis.per_seed for analysis in decision.analyses),
        paired=tuple(_paired(decision, manifest, measurements)),
        distributions=figures.distributions(design, decision.arms, decision.analyses, measurements),
        analyses=tuple(_analysis(analysis) for analysis in decision.analyses if analysis.variant_of is None),
        arms=arms,
        filtered=any(arm.unfiltered for arm in arms),
        missing=_missing(manifest, measurements),
        outcomes=_outcomes(decision, manifest),
        transcripts=_transcripts(transcripts, _untrained(manifest)),
        transcript_rule=(
            f"{numbers.count(design.transcripts, 'completion')} per arm and sample set, drawn with the pre-registered "
            f"seed {design.transcript_seed}. The draw does not know the arm, so that arms show the same prompts."
        ),
        no_transcripts=(
            numbers.unknown("no completion is stored")
            if design.transcripts
            else "The registration asks for no transcript."
        ),
        card=_card(decision),
        steps=_steps(decision, manifest),
        steps_total=f"{numbers.seconds(sum(step.seconds for step in decision.steps))} of step time",
        registration=decision.lock_sha256[:12],
        hashes=_hashes(decision),
        commands=_commands(manifest),
    )


def truth_word(gate: GateResult) -> tuple[str, Tone]:
    """The word for a gate's truth in its role, and how it should look."""
    role, truth = gate.role, gate.truth
    if role == "follow_up" and not gate.observations:
        return "NOT READ", "plain"
    if truth is None:
        return "UNKNOWN", "unknown"
    match role:
        case "validity" | "sanity" | "success" | "guardrail":
            return ("PASS", "good") if truth else ("FAIL", "bad")
        case "override" | "kill":
            return ("FIRED", "bad") if truth else ("NOT FIRED", "plain")
        case "switch":
            return ("UNFILTERED", "plain") if truth else ("FILTERED", "plain")
        case "follow_up":
            return ("FIRED", "plain") if truth else ("NOT FIRED", "plain")
        case "prediction":
            return ("HIT", "good") if truth else ("MISS", "plain")
        case "descriptive":
            return ("TRUE", "plain") if truth else ("FALSE", "plain")
        case _:
            assert_never(role)


def _gate(gate: GateResult, results: Mapping[str, AnalysisResult]) -> GateView:
    word, tone = truth_word(gate)
    if gate.role in ("prediction", "descriptive", "follow_up"):
        flip = "never decides"
    elif gate.would_flip is None:
        flip = "no"
    else:
        flip = f"yes, to {one_line(gate.would_flip)}"
    return GateView(
        name=one_line(gate.name),
        role=gate.role.replace("_", "-"),
        text=one_line(gate.text),
        say=one_line(gate.say),
        detail=_detail(gate, word),
        atoms=tuple(_atom(observation, results) for observation in gate.observations),
        word=word,
        tone=tone,
        flip=flip,
    )


def _detail(gate: GateResult, word: str) -> str:
    """The gate's detail, less what its result and its observations already say."""
    parts = [part for part in one_line(gate.detail).split("; ") if part != word]
    if gate.observations:
        parts = [part for part in parts if " is unknown: " not in part]
    return "; ".join(parts)


def _atom(observation: Observation, results: Mapping[str, AnalysisResult]) -> AtomView:
    words: dict[Truth, tuple[str, Tone]] = {
        True: ("holds", "good"), False: ("does not hold", "plain"), None: ("unknown", "unknown"),
    }  # fmt: skip
    word, tone = words[observation.truth]
    parsed = _ATOM.fullmatch(observation.text.strip())
    statistic, threshold, constant = one_line(observation.text), "is true", 0.0
    operator: Operator | None = None
    result: AnalysisResult | None = None
    if parsed:
        statistic = f"{parsed['analysis']}.{parsed['statistic']}"
        result = results.get(parsed["analysis"])
        if parsed["operator"]:
            threshold = f"{parsed['operator'].replace('<=', '≤').replace('>=', '≥')} {parsed['constant']}"
            operator, constant = _OPERATORS[parsed["operator"]], float(parsed["constant"])
    if observation.value is None:
        observed = numbers.unknown(result.unknown_because if result else "not measured")
    else:
        name = parsed["statistic"] if parsed else ""
        observed = _observed(observation.value, name, operator, constant, result)
    return AtomView(
        statistic=statistic,
        observed=observed,
        threshold=threshold,
        n=numbers.unknown("no unit count") if observation.n is None else _units(observation.n, result),
        word=word,
        tone=tone,
    )


def _units(n: int, result: AnalysisResult | None) -> str:
    return numbers.count(n, result.unit if result else "unit")


def _observed(
    value: float, statistic: str, operator: Operator | None, constant: float, result: AnalysisResult | None
) -> str:
    """A statistic with the decimals that its comparison needs, and what else helps to read it."""
    if statistic == "reject":
        p = result.statistics.get("p") if result else None
        return ("rejected" if value else "not rejected") + (f" ({numbers.p_phrase(p)})" if p is not None else "")
    if statistic == "p":
        return numbers.p_value(value)
    scale = result.scale if result else (0.0, 1.0)
    sign = result is not None and result.contrast is not None
    digits = numbers.digits_for(scale)
    if operator is not None:
        digits = numbers.deciding_digits(value, operator, constant, digits)
    text = numbers.fixed(value, digits, sign=sign)
    if result is None or not numbers.is_share(scale):
        return text
    share = numbers.fixed(100 * value, digits - 2, sign=sign)
    return f"{text} ({share} pp)" if sign else f"{text} ({share}%)"


def _fired(name: str, gates: Sequence[GateResult]) -> str:
    for gate in gates:
        if gate.name == name:
            said = f": {one_line(gate.say)}" if gate.say else ""
            return f"{one_line(name)} ({gate.role}, {one_line(gate.text)}){said}"
    return one_line(name)


def _deviation(deviation: Deviation) -> DeviationView:
    match deviation.kind:
        case "spec_changed_after_results":
            heading = "The spec changed after results existed"
        case "amended":
            heading = "The registration was amended"
        case "unregistered":
            heading = "Not registered before results existed"
        case "library_changed":
            heading = "Steps ran with different library versions"
        case _:
            assert_never(deviation.kind)
    return DeviationView(
        heading=heading, text=one_line(deviation.text), changes=tuple(one_line(change) for change in deviation.changes)
    )


def _rules(decision: Decision, manifest: Manifest) -> tuple[RuleView, ...]:
    matched = decision.verdict.rule
    says = [rule.say for rule in manifest.design.verdicts]
    views = []
    for index, (text, label) in enumerate(decision.verdict_table):
        if matched is None:
            state = "not applied"
        elif index == matched:
            state = "matched"
        else:
            state = "did not match" if index < matched else "not reached"
        say = one_line(says[index]) if index < len(says) else ""
        views.append(
            RuleView(
                number=index + 1, text=one_line(text), label=one_line(label), say=say, state=state,
                matched=index == matched,
            )
        )  # fmt: skip
    return tuple(views)


def _no_rule(decision: Decision) -> str:
    why = one_line(decision.verdict.rule_text) or "what every run must pass comes before the table"
    return f"No rule of the table decided: {why}."


def _paired(
    decision: Decision, manifest: Manifest, measurements: Sequence[MeasurementRow]
) -> Iterator[figures.Paired]:  # fmt: skip
    """Confirmatory contrasts unit by unit; one whose switch is unknown in both of its variants."""
    metrics = {metric.name: metric for metric in manifest.design.metrics}
    confirmatory = {analysis.name: analysis for analysis in decision.analyses if analysis.confirmatory}
    for analysis in figures.drawn(decision.analyses):
        registered = confirmatory.get(analysis.variant_of or analysis.name)
        if registered is None or analysis.contrast is None or analysis.metric not in metrics:
            continue
        if analysis.variant_of is not None and registered.bound_to is not None:
            continue
        unfiltered = "unfiltered" in (analysis.bound_to, analysis.variant)
        means = figures.unit_means(manifest.design, measurements, unfiltered=unfiltered)
        yield figures.paired(
            analysis, analysis.contrast, metrics[analysis.metric], means, unfiltered=unfiltered
        )  # fmt: skip


def _switches(decision: Decision) -> tuple[SwitchView, ...]:
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
                    _variant(variant, analysis) for variant in decision.analyses if variant.variant_of == analysis.name
                ),
            )
        )
    return tuple(views)


def _variant(variant: AnalysisResult, governed: AnalysisResult) -> VariantView:
    decides = governed.bound_to == variant.variant
    return VariantView(
        analysis=_analysis(variant),
        dropped=_drops(variant) or "nothing",
        state="decides" if decides else "may decide" if governed.bound_to is None else "printed only",
        decides=decides,
    )


def _rate(share: float | None) -> str:
    return numbers.unknown("no completion") if share is None else f"{numbers.fixed(100 * share, 1)}%"


def _outcomes(decision: Decision, manifest: Manifest) -> tuple[OutcomesView, ...]:
    """Of every judge step that recorded its outcomes: how many replies of each arm were of which kind."""
    judging = {step.id for step in manifest.steps if step.kind == "judge"}
    views = []
    for step in decision.steps:
        arms = step.facts.get("outcomes")
        if step.id not in judging or not isinstance(arms, dict):
            continue
        counts: dict[str, Counter[str]] = {arm: Counter(found) for arm, found in arms.items()}
        kinds = [outcome for outcome in get_args(Outcome) if any(found[outcome] for found in counts.values())]
        rows = [
            (
                one_line(arm),
                tuple(f"{found[outcome]:,}" for outcome in kinds),
                _rate(found["scored"] / found.total() if found.total() else None),
            )
            for arm, found in sorted(counts.items())
        ]
        words = tuple(outcome.replace("_", " ") for outcome in kinds)
        views.append(OutcomesView(step=one_line(step.id), outcomes=words, rows=tuple(rows)))
    return tuple(views)


def _drops(analysis: AnalysisResult) -> str:
    """Shares of the scored completions that the filter left out, by arm; empty where there is no filter."""
    if analysis.filter is None:
        return ""
    return ", ".join(f"{one_line(arm.condition)} {_rate(arm.drop_rate)}" for arm in analysis.arms)


def _scores(analysis: AnalysisResult) -> str:
    """`only where coherent >= 50; dropped: a 1.0%, b 2.0%; filtered, as switch drop_rates_differ says`."""
    parts = [f"only where {analysis.filter}; dropped: {_drops(analysis)}"] if analysis.filter is not None else []
    if analysis.bound_to is not None:
        parts.append(f"{analysis.bound_to}, as switch {analysis.bound_by} says")
    return one_line("; ".join(parts))


def _analysis(analysis: AnalysisResult) -> AnalysisView:
    contrast = analysis.contrast is not None
    point = analysis.statistics.get("delta", analysis.statistics.get("value"))
    write = numbers.difference if contrast else numbers.level
    unknown = numbers.unknown(analysis.unknown_because)
    dropped = f", {numbers.count(analysis.n_units_missing, analysis.unit)} left out" if analysis.n_units_missing else ""
    if analysis.n_units_emptied:
        dropped += f", {numbers.count(analysis.n_units_emptied, analysis.unit)} emptied by the filter"
    return AnalysisView(
        name=one_line(analysis.name),
        anchor=f"analysis-{figures.slug(analysis.name)}",
        metric=one_line(analysis.metric),
        comparison=figures.comparison(analysis),
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
        estimate=unknown if point is None else write(point, analysis.scale),
        by_seed=_by_seed(analysis),
        interval=_interval(analysis),
        bounds=_bounds(analysis),
        p=_without(analysis, "p") if (p := analysis.statistics.get("p")) is None else numbers.p_value(p),
        spread=_spread(analysis),
    )


def _by_seed(analysis: AnalysisResult) -> str:
    """`by seed: 21 −0.520, 22 −0.480`"""
    estimates = ", ".join(f"{seed} {text}" for seed, _, text in figures.by_seed(analysis))
    return f"by seed: {estimates}" if estimates else ""


def _without(analysis: AnalysisResult, what: str) -> str:
    """Why a statistic is not there: nothing was estimated, or the method has none."""
    return numbers.unknown("no estimate") if analysis.unknown_because else f"none: {analysis.method} gives no {what}"


def _mean(analysis: AnalysisResult, mean: float | None) -> str:
    return numbers.unknown(analysis.unknown_because) if mean is None else numbers.level(mean, analysis.scale)


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
    outcome = "" if reject is None else "rejected, " if reject else "not rejected, "
    return f"{outcome}{analysis.side.replace('_', '-')}, α = {numbers.compact(analysis.alpha)}"


def _spread(analysis: AnalysisResult) -> str:
    of = "SD of units" if analysis.contrast is None else "SD of unit differences"
    if analysis.sd is None:
        return f"{of}: {_without(analysis, 'SD')}"
    skewness = "" if analysis.skewness is None else f", skewness {numbers.fixed(analysis.skewness, 2)}"
    return f"{of}: {numbers.fixed(analysis.sd, numbers.digits_for(analysis.scale))}{skewness}"


def _arms(decision: Decision, manifest: Manifest) -> tuple[ArmView, ...]:
    scales = {metric.name: metric.scale for metric in manifest.design.metrics}
    untrained = _untrained(manifest)
    views = []
    for arm in decision.arms:
        scale = scales.get(arm.metric, (0.0, 1.0))
        lost = [f"{numbers.count(arm.n_missing, 'sample')} missing"] if arm.n_missing else []
        lost += [f"{numbers.count(arm.n_filtered, 'sample')} left out by the filter"] if arm.n_filtered else []
        nothing = numbers.unknown(", ".join(lost) or "nothing is scored")
        views.append(
            ArmView(
                metric=one_line(arm.metric),
                condition=one_line(arm.condition),
                seeds=(
                    "not trained"
                    if arm.condition in untrained
                    else ", ".join(map(str, arm.seeds)) or numbers.unknown("no seed recorded")
                ),
                units=f"{arm.n_units:,}",
                samples=f"{arm.n_samples:,}",
                missing=f"{arm.n_missing:,}",
                mean=nothing if arm.mean is None else numbers.level(arm.mean, scale),
                sample_mean=nothing if arm.sample_mean is None else numbers.level(arm.sample_mean, scale),
                unfiltered="" if arm.mean_unfiltered is None else numbers.level(arm.mean_unfiltered, scale),
            )
        )
    return tuple(views)


def _missing(manifest: Manifest, measurements: Sequence[MeasurementRow]) -> tuple[MissingView, ...]:
    groups: dict[tuple[str, str], list[MeasurementRow]] = defaultdict(list)
    for row in measurements:
        if row.slice == "all":
            groups[row.metric, row.condition].append(row)
    metrics = [metric.name for metric in manifest.design.metrics]
    with_filter = {metric.name for metric in manifest.design.metrics if metric.filter is not None}
    arms = [condition.name for condition in manifest.design.conditions]
    order = {(metric, arm): (i, j) for i, metric in enumerate(metrics) for j, arm in enumerate(arms)}
    last = (len(metrics), len(arms))
    views = []
    for metric, condition in sorted(groups, key=lambda key: (order.get(key, last), key)):
        rows = groups[metric, condition]
        missing, filtered = sum(row.n_missing for row in rows), sum(row.n_filtered for row in rows)
        scored = filtered + sum(row.n for row in rows)
        views.append(
            MissingView(
                metric=one_line(metric),
                condition=one_line(condition),
                units=f"{len(rows):,}",
                units_empty=f"{sum(row.value is None for row in rows):,}",
                completions=f"{scored + missing:,}",
                missing=_counted(missing, scored + missing),
                filtered=_counted(filtered, scored) if metric in with_filter else "no filter",
            )
        )
    return tuple(views)


def _counted(part: int, whole: int) -> str:
    """`10 (4.2%)`; nothing is just 0."""
    return f"{part:,} ({_rate(part / whole)})" if part else "0"


def _untrained(manifest: Manifest) -> frozenset[str]:
    """Arms without a training phase: their seed 0 is no seed."""
    return frozenset(condition.name for condition in manifest.design.conditions if not condition.phases)


def _transcripts(rows: Sequence[SampleRow], untrained: Set[str]) -> tuple[TranscriptSet, ...]:
    limit = limit_for([text for row in rows for text in (row.prompt, row.text)])
    return tuple(
        TranscriptSet(
            name=one_line(name),
            groups=tuple(
                TranscriptGroup(
                    identity=f"Prompt {one_line(item)}, turn {turn}, sample {index}",
                    transcripts=tuple(_transcript(row, untrained, limit) for row in group),
                )
                for (item, turn, index), group in groupby(members, key=lambda row: (row.item, row.turn, row.index))
            ),
        )
        for name, members in groupby(rows, key=lambda row: row.set)
    )


def _transcript(row: SampleRow, untrained: Set[str], limit: int) -> TranscriptView:
    line = one_line(row.text)
    ending = "stopped by itself" if row.finish_reason == "stop" else "cut at the token limit"
    return TranscriptView(
        condition=one_line(row.condition),
        seed="not trained" if row.condition in untrained else f"training seed {row.seed}",
        ending=f"{numbers.count(row.tokens, 'token')}, {ending}",
        prompt=clipped(row.prompt, limit) or "[empty prompt]",
        text=clipped(row.text, limit) or "[empty completion]",
        preview=(line if len(line) <= LONGEST_PREVIEW else line[: LONGEST_PREVIEW - 1] + "…") or "[empty completion]",
    )


def _hashes(decision: Decision) -> tuple[tuple[str, str], ...]:
    return (
        ("Registration: SHA-256 of spec.lock.yaml", decision.lock_sha256),
        ("Spec: SHA-256 of the file", decision.spec_sha256),
        ("Rows: SHA-256 over all measurement rows, sorted", decision.rows_sha256),
    )


def _card(decision: Decision) -> tuple[tuple[str, str], ...]:
    """The card without what has its own table: hashes, and libraries, which stand in one line.

    Sorted, so that a decision read back from decision.json gives the same report.
    """
    hashes = {value for _, value in _hashes(decision)}
    used: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for step in decision.steps:
        for library, version in step.versions.items():
            used[library][version].append(step.id)
    card = {
        name: value for name, value in decision.card.items() if value not in hashes and not (name in used and value)
    }
    lines = [(one_line(name), one_line(value) or numbers.unknown(None)) for name, value in sorted(card.items())]
    libraries = [f"{library} {_versions(versions)}" for library, versions in sorted(used.items())]
    return (*lines, ("libraries", one_line(", ".join(libraries)) or numbers.unknown("no step has finished")))


def _versions(versions: Mapping[str, Sequence[str]]) -> str:
    """One version, or each with the steps that had it."""
    if len(versions) == 1:
        return next(iter(versions))
    return " and ".join(f"{version} (in {', '.join(steps)})" for version, steps in sorted(versions.items()))


def _steps(decision: Decision, manifest: Manifest) -> tuple[StepView, ...]:
    labels = {step.id: step.label for step in manifest.steps}
    judging = {step.id for step in manifest.steps if step.kind == "judge"}
    return tuple(
        StepView(
            id=one_line(step.id),
            label=one_line(labels.get(step.id, "")),
            seconds=numbers.seconds(step.seconds),
            key=one_line(step.key),
            facts=tuple(
                (one_line(name), _fact(value))
                for name, value in sorted(step.facts.items())
                if not (name == "outcomes" and step.id in judging)  # has a table of its own
            ),
        )
        for step in decision.steps
    )


def _fact(value: Any) -> str:
    """What a step recorded, as text: records as `name value` pairs, hashes by their first digits."""
    match value:
        # Not as patterns: `{}` matches every mapping.
        case None | str() | list() | dict() if not value:
            return "none"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}".replace("-", numbers.MINUS)
        case dict():
            text = ", ".join(f"{one_line(str(name))} {_fact(inner)}" for name, inner in value.items())
        case list():
            text = ("; " if any(isinstance(inner, dict) for inner in value) else ", ").join(map(_fact, value))
        case _:
            text = one_line(str(value))
            if _SHA256.fullmatch(text):
                return text[:12] + "…"
    return text if len(text) <= LONGEST_FACT else text[: LONGEST_FACT - 1] + "…"


def _commands(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    bundle = f"generated/{one_line(manifest.id)}"
    spec = one_line(manifest.spec)
    return (
        ("The bundle is what the spec compiles to", f"epc compile --check {spec}"),
        ("The registration's identity", f"sha256sum {bundle}/spec.lock.yaml"),
        ("What would run again, and why", f"epc run --plan {bundle}"),
        ("Run what is missing", f"epc run {bundle}"),
        ("Decide again: decision.json and this report come out byte for byte the same", f"epc decide {bundle}"),
    )
