"""What both report files say, as finished strings: one source, so that they cannot disagree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from epc.compiler.contract.decision import AnalysisResult
from epc.runtime.report.figures.distribution import Distribution, distributions
from epc.runtime.report.figures.forest import ForestPanel, drawn, forest, region_names
from epc.runtime.report.figures.paired import Paired, paired
from epc.runtime.report.figures.regions import Kind
from epc.runtime.report.figures.units import Means
from epc.runtime.report.material import Material
from epc.runtime.report.sections import completions, multiplicity, provenance
from epc.runtime.report.sections.analyses import AnalysisView, SwitchView, analysis_views, switch_views
from epc.runtime.report.sections.arms import ArmView, MissingView, OutcomesView, arm_views, missing_views, outcome_views
from epc.runtime.report.sections.gates import GateView, RuleView, fired, gate_view, no_rule, rule_views
from epc.runtime.report.sections.judges import JudgeView, judge_views
from epc.runtime.report.sections.sensitivity import SensitivityView, sensitivity_view
from epc.runtime.report.sections.sources import FileView, Reference, Sources, SourceView, file_views
from epc.runtime.report.text import one_line, paragraphs
from epc.runtime.stamp import PREFIX, stamped, stamped_title

if TYPE_CHECKING:
    from epc.compiler.contract.manifest import Design
    from epc.compiler.contract.simulation import Simulation
    from epc.runtime.report.sections.characteristics import CharacteristicsView


@dataclass(frozen=True, kw_only=True)
class NoteView:
    paragraphs: tuple[str, ...]
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PairedView:
    figure: Paired
    number: int
    peeks: tuple[completions.PeekView, ...]
    """One for each mark of the figure."""
    rows: tuple[Reference, ...]


@dataclass(frozen=True, kw_only=True)
class View:
    """Everything a report template may print. Strings are plain text, to be escaped by the template."""

    epc: str
    id: str
    title: str
    question: str
    rehearsal: bool
    stamp: str
    """In front of every heading of a rehearsal."""
    differences: tuple[str, ...]
    """Of a rehearsal from its plan."""
    label: str
    verdict_class: str
    because: str
    say: str
    fired: tuple[str, ...]
    deviations: tuple[provenance.DeviationView, ...]
    loud: bool
    """Whether a deviation puts the pre-registration itself in doubt."""
    confidence: str
    confidence_reason: str
    conditional_on: str
    note: NoteView | None
    gates: tuple[GateView, ...]
    built_in: tuple[GateView, ...]
    rules: tuple[RuleView, ...]
    no_rule: str
    switches: tuple[SwitchView, ...]
    forest: tuple[ForestPanel, ...]
    regions: tuple[tuple[Kind, str], ...]
    seeded: bool
    """Whether an analysis has estimates by training seed."""
    paired: tuple[PairedView, ...]
    distributions: tuple[Distribution, ...]
    analyses: tuple[AnalysisView, ...]
    families: tuple[multiplicity.FamilyView, ...]
    looks: multiplicity.LooksView | None
    sensitivity: SensitivityView
    characteristics: CharacteristicsView | None
    no_characteristics: str
    arms: tuple[ArmView, ...]
    filtered: bool
    """Whether a metric has a filter, so that arms have two means."""
    missing: tuple[MissingView, ...]
    outcomes: tuple[OutcomesView, ...]
    judges: tuple[JudgeView, ...]
    transcripts: tuple[completions.TranscriptSet, ...]
    transcript_rule: str
    no_transcripts: str
    prompts: tuple[completions.PromptSet, ...]
    prompt_rule: str
    allowed: tuple[provenance.AllowanceView, ...]
    no_allowance: str
    card: tuple[tuple[str, str], ...]
    steps: tuple[provenance.StepView, ...]
    steps_total: str
    no_steps: str
    registration: str
    sources: tuple[SourceView, ...]
    files: tuple[FileView, ...]
    hashes: tuple[tuple[str, str], ...]
    commands: tuple[tuple[str, str], ...]


def build(material: Material) -> View:
    """The report's content. Pure: the same material gives the same view."""
    material = replace(material, decision=stamped(material.decision))
    decision, manifest, simulation = material.decision, material.manifest, material.simulation
    design = manifest.design
    results = {analysis.name: analysis for analysis in decision.analyses}
    sources = Sources(design, material.inputs.stored)
    means = Means(design, material.inputs.measurements)
    views = [gate_view(gate, results) for gate in decision.gates]
    arms = arm_views(decision, manifest, sources)
    margins = {analysis.name: analysis.margin for analysis in design.analyses if analysis.margin is not None}
    panels = forest(drawn(decision.analyses), design.gates, margins)
    without = provenance.no_characteristics(decision, simulation)
    return View(
        epc=decision.epc,
        id=one_line(decision.id),
        title=one_line(stamped_title(decision)),
        question=one_line(decision.question),
        rehearsal=decision.mode == "rehearsal",
        stamp=PREFIX if decision.mode == "rehearsal" else "",
        differences=tuple(map(one_line, manifest.rehearsal.differences)) if manifest.rehearsal is not None else (),
        label=one_line(decision.verdict.label),
        verdict_class=decision.verdict.verdict_class,
        because=one_line(decision.verdict.because),
        say=one_line(decision.verdict.say),
        fired=tuple(fired(name, decision.gates) for name in decision.fired),
        deviations=tuple(provenance.deviation_view(deviation) for deviation in decision.deviations),
        loud=provenance.puts_registration_in_doubt(decision),
        confidence=decision.confidence.label,
        confidence_reason=one_line(decision.confidence.reason),
        conditional_on=one_line(decision.conditional_on),
        note=(
            None
            if material.note is None
            else NoteView(paragraphs=paragraphs(material.note.text), sha256=material.note.sha256)
        ),
        gates=tuple(view for view, gate in zip(views, decision.gates, strict=True) if not gate.built_in),
        built_in=tuple(view for view, gate in zip(views, decision.gates, strict=True) if gate.built_in),
        rules=rule_views(decision, manifest),
        no_rule=no_rule(decision),
        switches=switch_views(decision, sources),
        forest=panels,
        regions=region_names(panels),
        seeded=any(analysis.per_seed for analysis in decision.analyses),
        paired=tuple(_paired(material, means, sources, first=2 if panels else 1)),
        distributions=distributions(means, decision.arms, decision.analyses, sources),
        analyses=analysis_views(decision, sources),
        families=multiplicity.family_views(decision, design),
        looks=multiplicity.looks_view(design),
        sensitivity=sensitivity_view(decision, sources),
        characteristics=None if simulation is None or without else _characteristics(simulation, design),
        no_characteristics=without,
        arms=arms,
        filtered=any(arm.unfiltered for arm in arms),
        missing=missing_views(manifest, sources),
        outcomes=outcome_views(decision, manifest),
        judges=judge_views(decision, manifest),
        transcripts=completions.transcript_sets(material.transcripts, manifest),
        transcript_rule=completions.transcript_rule(design),
        no_transcripts=completions.no_transcripts(manifest),
        prompts=completions.prompt_sets(material.by_prompt, manifest),
        prompt_rule=completions.prompt_rule(design),
        allowed=provenance.allowance_views(material.registered),
        no_allowance=provenance.no_allowance(material.registered),
        card=provenance.card(decision),
        steps=provenance.step_views(decision, manifest),
        steps_total=provenance.steps_total(decision),
        no_steps=provenance.no_steps(manifest),
        registration=decision.lock_sha256[:12],
        sources=tuple(sources.views.values()),
        files=file_views(decision),
        hashes=provenance.hashes(decision),
        commands=provenance.commands(manifest),
    )


def _characteristics(simulation: Simulation, design: Design) -> CharacteristicsView:
    from epc.runtime.report.sections.characteristics import characteristics_view

    return characteristics_view(simulation, design)


def _paired(material: Material, means: Means, sources: Sources, *, first: int) -> Iterator[PairedView]:
    """Confirmatory contrasts unit by unit; one whose switch is unknown in both of its variants."""
    for number, (analysis, registered) in enumerate(_confirmatory(material), start=first):
        contrast = analysis.contrast
        metric = next(metric for metric in material.manifest.design.metrics if metric.name == analysis.metric)
        assert contrast is not None
        unfiltered = "unfiltered" in (registered.bound_to, analysis.variant)
        values = means.unfiltered if unfiltered else means.filtered
        figure = paired(analysis, contrast, metric, values, unfiltered=unfiltered)
        yield PairedView(
            figure=figure, number=number, peeks=completions.peeks(figure, number, material.by_prompt),
            rows=sources.of_analysis(analysis),
        )  # fmt: skip


def _confirmatory(material: Material) -> Iterator[tuple[AnalysisResult, AnalysisResult]]:
    """(what is drawn, the registered analysis that it is or is a variant of)"""
    metrics = {metric.name for metric in material.manifest.design.metrics}
    analyses = material.decision.analyses
    confirmatory = {analysis.name: analysis for analysis in analyses if analysis.confirmatory}
    for analysis in drawn(analyses):
        registered = confirmatory.get(analysis.variant_of or analysis.name)
        if registered is None or analysis.contrast is None or analysis.metric not in metrics:
            continue
        if analysis.variant_of is None or registered.bound_to is None:
            yield analysis, registered
