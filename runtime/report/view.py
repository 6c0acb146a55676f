"""What both report files say, as finished strings: one source, so that they cannot disagree."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never, get_args

from epc.compiler.contract.canonical import canonical_json
from epc.compiler.contract.decision import AnalysisResult, Decision, Deviation, GateResult, Observation
from epc.compiler.contract.logic import Operator, Truth
from epc.compiler.contract.manifest import Manifest, Role, Side
from epc.compiler.contract.rows import MeasurementRow, SampleRow
from epc.runtime.report import figures, numbers
from epc.runtime.report.text import clipped, one_line

Tone = Literal["good", "bad", "unknown", "plain"]

_ATOM = re.compile(r"(?P<analysis>\w+)\.(?P<statistic>\w+)(?: *(?P<operator><=|>=|==|!=|<|>) *(?P<constant>\S+))?")
_OPERATORS: Mapping[str, Operator] = {operator: operator for operator in get_args(Operator)}
LONGEST_FACT = 240


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
    confirmatory: bool
    units: str
    samples: str
    missing: str
    treatment: str
    control: str
    estimate: str
    interval: str
    bounds: str
    p: str
    spread: str


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


@dataclass(frozen=True, kw_only=True)
class MissingView:
    metric: str
    condition: str
    units: str
    units_empty: str
    scored: str
    missing: str
    filtered: str


@dataclass(frozen=True, kw_only=True)
class TranscriptView:
    condition: str
    identity: str
    ending: str
    prompt: str
    text: str
    preview: str


@dataclass(frozen=True, kw_only=True)
class TranscriptSet:
    name: str
    transcripts: tuple[TranscriptView, ...]


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
    confidence: str
    confidence_reason: str
    conditional_on: str
    gates: tuple[GateView, ...]
    built_in: tuple[GateView, ...]
    rules: tuple[RuleView, ...]
    no_rule: str
    lane: int
    forest: tuple[figures.ForestPanel, ...]
    paired: tuple[figures.Paired, ...]
    distributions: tuple[figures.Distribution, ...]
    analyses: tuple[AnalysisView, ...]
    arms: tuple[ArmView, ...]
    missing: tuple[MissingView, ...]
    transcripts: tuple[TranscriptSet, ...]
    transcript_rule: str
    card: tuple[tuple[str, str], ...]
    libraries: tuple[tuple[str, str], ...]
    steps: tuple[StepView, ...]
    steps_total: str
    hashes: tuple[tuple[str, str, str], ...]
    commands: tuple[tuple[str, str], ...]


def build(
    decision: Decision, manifest: Manifest, measurements: Sequence[MeasurementRow], transcripts: Sequence[SampleRow]
) -> View:
    """The report's content. Pure: the same inputs give the same view."""
    results = {analysis.name: analysis for analysis in decision.analyses}
    gates = [_gate(gate, results) for gate in decision.gates]
    means = figures.unit_means(measurements)
    metrics = {metric.name: metric for metric in manifest.design.metrics}
    design = manifest.design
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
        confidence=decision.confidence.label,
        confidence_reason=one_line(decision.confidence.reason),
        conditional_on=one_line(decision.conditional_on),
        gates=tuple(view for view, gate in zip(gates, decision.gates, strict=True) if not gate.built_in),
        built_in=tuple(view for view, gate in zip(gates, decision.gates, strict=True) if gate.built_in),
        rules=_rules(decision, manifest),
        no_rule="" if decision.verdict.rule is not None else _no_rule(decision),
        lane=figures.LANE,
        forest=figures.forest(decision.analyses),
        paired=tuple(
            figures.paired(analysis, analysis.contrast, metrics[analysis.metric], means)
            for analysis in decision.analyses
            if analysis.confirmatory and analysis.contrast is not None and analysis.metric in metrics
        ),
        distributions=figures.distributions(design, decision.arms, decision.analyses, means, measurements),
        analyses=tuple(_analysis(analysis) for analysis in decision.analyses),
        arms=_arms(decision, manifest),
        missing=_missing(manifest, measurements),
        transcripts=_transcripts(transcripts),
        transcript_rule=(
            f"{numbers.count(design.transcripts, 'completion')} per arm and sample set, drawn with the pre-registered "
            f"seed {design.transcript_seed}. The draw does not know the arm, so that arms show the same prompts."
        ),
        card=tuple((one_line(name), one_line(value) or numbers.unknown(None)) for name, value in decision.card.items()),
        libraries=_libraries(decision),
        steps=_steps(decision, manifest),
        steps_total=numbers.seconds(sum(step.seconds for step in decision.steps)),
        hashes=(
            ("registration", "SHA-256 of spec.lock.yaml", decision.lock_sha256),
            ("spec", "SHA-256 of the spec file", decision.spec_sha256),
            ("rows", "SHA-256 over every measurement row, sorted", decision.rows_sha256),
        ),
        commands=_commands(manifest),
    )


def _truth(role: Role, truth: Truth) -> tuple[str, Tone]:
    """The word for a gate's truth, and how it should look."""
    if truth is None:
        return "UNKNOWN", "unknown"
    match role:
        case "validity" | "sanity" | "success" | "guardrail":
            return ("PASS", "good") if truth else ("FAIL", "bad")
        case "override" | "kill":
            return ("FIRED", "bad") if truth else ("NOT FIRED", "plain")
        case "follow_up":
            return ("FIRED", "plain") if truth else ("NOT FIRED", "plain")
        case "prediction":
            return ("HIT", "good") if truth else ("MISS", "plain")
        case "descriptive":
            return ("TRUE", "plain") if truth else ("FALSE", "plain")
        case _:
            assert_never(role)


def _gate(gate: GateResult, results: Mapping[str, AnalysisResult]) -> GateView:
    word, tone = _truth(gate.role, gate.truth)
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
        detail=one_line(gate.detail),
        atoms=tuple(_atom(observation, results) for observation in gate.observations),
        word=word,
        tone=tone,
        flip=flip,
    )


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
    return f"No rule of the table decided: the verdict is {one_line(decision.verdict.label)}, which stands above it."


def _analysis(analysis: AnalysisResult) -> AnalysisView:
    statistics, scale = analysis.statistics, analysis.scale
    contrast = analysis.contrast
    sign = contrast is not None
    digits = numbers.digits_for(scale)
    missing = numbers.unknown(analysis.unknown_because)
    without = numbers.unknown("no estimate")

    def told(value: float | None) -> str:
        return missing if value is None else numbers.level(value, scale)

    point = statistics.get("delta", statistics.get("value"))
    if point is None:
        estimate = missing
    else:
        estimate = numbers.difference(point, scale) if sign else numbers.level(point, scale)

    low, high = statistics.get("ci_low"), statistics.get("ci_high")
    level = numbers.percent_level(analysis.ci_level)
    if low is not None and high is not None:
        interval = f"{numbers.interval(low, high, scale, sign=sign)}, {level}"
    else:
        interval = without if analysis.unknown_because else f"{analysis.method} gives no interval"

    one_sided = numbers.percent_level(1 - analysis.alpha)
    ends = [
        f"{name} {numbers.fixed(value, digits, sign=sign)}"
        for name in ("lower", "upper")
        if (value := statistics.get(name)) is not None
    ]
    if ends:
        bounds = f"{', '.join(ends)} (one-sided, {one_sided} each)"
    else:
        bounds = without if analysis.unknown_because else f"{analysis.method} gives no bounds"

    p = statistics.get("p")
    if p is not None:
        reject = statistics.get("reject")
        rejected = "" if reject is None else ", rejected" if reject else ", not rejected"
        p_text = f"{numbers.p_value(p)}{rejected}"
    else:
        p_text = without if analysis.unknown_because else f"{analysis.method} defines no p here"

    if analysis.sd is None:
        spread = without if analysis.unknown_because else f"not defined for {analysis.method}"
    else:
        skew = "" if analysis.skewness is None else f", skewness {numbers.fixed(analysis.skewness, 2)}"
        spread = f"{numbers.fixed(analysis.sd, digits)}{skew}"

    dropped = f", {numbers.count(analysis.n_units_missing, analysis.unit)} left out" if analysis.n_units_missing else ""
    return AnalysisView(
        name=one_line(analysis.name),
        anchor=f"analysis-{figures.slug(analysis.name)}",
        metric=one_line(analysis.metric),
        comparison=figures.comparison(analysis),
        definition=one_line(analysis.definition),
        test=f"{_side(analysis.side)}, α = {numbers.compact(analysis.alpha)}; {analysis.better} values are better",
        confirmatory=analysis.confirmatory,
        units=f"{numbers.count(analysis.n_units, analysis.unit)}{dropped}",
        samples=f"{analysis.n_samples:,}",
        missing=f"{analysis.n_missing:,}",
        treatment=told(analysis.mean_treatment) if contrast else "none: one arm",
        control=told(analysis.mean_control) if contrast else "none: one arm",
        estimate=estimate,
        interval=interval,
        bounds=bounds,
        p=p_text,
        spread=spread,
    )


def _side(side: Side) -> str:
    match side:
        case "greater" | "less":
            return f"One-sided ({side})"
        case "two_sided":
            return "Two-sided"
        case _:
            assert_never(side)


def _arms(decision: Decision, manifest: Manifest) -> tuple[ArmView, ...]:
    scales = {metric.name: metric.scale for metric in manifest.design.metrics}
    views = []
    for arm in decision.arms:
        scale = scales.get(arm.metric, (0.0, 1.0))
        lost = f"{numbers.count(arm.n_missing, 'sample')} missing" if arm.n_missing else "nothing is scored"
        nothing = numbers.unknown(lost)
        views.append(
            ArmView(
                metric=one_line(arm.metric),
                condition=one_line(arm.condition),
                seeds=", ".join(str(seed) for seed in arm.seeds) or numbers.unknown("no seed recorded"),
                units=f"{arm.n_units:,}",
                samples=f"{arm.n_samples:,}",
                missing=f"{arm.n_missing:,}",
                mean=nothing if arm.mean is None else numbers.level(arm.mean, scale),
                sample_mean=nothing if arm.sample_mean is None else numbers.level(arm.sample_mean, scale),
            )
        )
    return tuple(views)


def _missing(manifest: Manifest, measurements: Sequence[MeasurementRow]) -> tuple[MissingView, ...]:
    groups: dict[tuple[str, str], list[MeasurementRow]] = defaultdict(list)
    for row in measurements:
        if row.slice == "all":
            groups[row.metric, row.condition].append(row)
    metrics = [metric.name for metric in manifest.design.metrics]
    arms = [condition.name for condition in manifest.design.conditions]
    order = {(metric, arm): (i, j) for i, metric in enumerate(metrics) for j, arm in enumerate(arms)}
    last = (len(metrics), len(arms))
    views = []
    for metric, condition in sorted(groups, key=lambda key: (order.get(key, last), key)):
        rows = groups[metric, condition]
        views.append(
            MissingView(
                metric=one_line(metric),
                condition=one_line(condition),
                units=f"{len(rows):,}",
                units_empty=f"{sum(row.value is None for row in rows):,}",
                scored=f"{sum(row.n for row in rows):,}",
                missing=f"{sum(row.n_missing for row in rows):,}",
                filtered=f"{sum(row.n_filtered for row in rows):,}",
            )
        )
    return tuple(views)


def _transcripts(rows: Sequence[SampleRow]) -> tuple[TranscriptSet, ...]:
    sets: dict[str, list[TranscriptView]] = defaultdict(list)
    for row in rows:
        line = one_line(row.text)
        sets[row.set].append(
            TranscriptView(
                condition=one_line(row.condition),
                identity=f"prompt {one_line(row.item)}, turn {row.turn}, sample {row.index}, training seed {row.seed}",
                ending=(
                    f"{numbers.count(row.tokens, 'token')}, "
                    + ("stopped by itself" if row.finish_reason == "stop" else "cut at the token limit")
                ),
                prompt=clipped(row.prompt) or "[empty prompt]",
                text=clipped(row.text) or "[empty completion]",
                preview=(line if len(line) <= 90 else line[:89] + "…") or "[empty completion]",
            )
        )
    return tuple(TranscriptSet(name=one_line(name), transcripts=tuple(views)) for name, views in sets.items())


def _libraries(decision: Decision) -> tuple[tuple[str, str], ...]:
    """Library -> version, or every version with the steps that had it where they differ."""
    used: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for step in decision.steps:
        for library, version in step.versions.items():
            used[library][version].append(step.id)
    lines = []
    for library, versions in sorted(used.items()):
        if len(versions) == 1:
            text = next(iter(versions))
        else:
            text = "; ".join(f"{version} ({', '.join(steps)})" for version, steps in sorted(versions.items()))
        lines.append((one_line(library), one_line(text)))
    return tuple(lines)


def _steps(decision: Decision, manifest: Manifest) -> tuple[StepView, ...]:
    labels = {step.id: step.label for step in manifest.steps}
    return tuple(
        StepView(
            id=one_line(step.id),
            label=one_line(labels.get(step.id, "")),
            seconds=numbers.seconds(step.seconds),
            key=one_line(step.key),
            facts=tuple((one_line(name), _fact(value)) for name, value in sorted(step.facts.items())),
        )
        for step in decision.steps
    )


def _fact(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", numbers.MINUS)
    text = one_line(value if isinstance(value, str) else canonical_json(value))
    return (text if len(text) <= LONGEST_FACT else text[: LONGEST_FACT - 1] + "…") or "none"


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
