"""From measurement rows to a verdict: a pure function of manifest, finish records and rows.

Order of things: rows to unit values; every registered analysis, one that a switch governs both with and
without its filter; switches; gates under Kleene's logic; validity gates, built-in ones first; then the
ordered verdict table under every completion of what is unknown. Missing input is unknown, never false
and never 0.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from epc.compiler.contract.decision import (
    AnalysisResult,
    AnalysisSensitivity,
    Audit,
    Confidence,
    Decision,
    Deviation,
    ResultsRead,
    StepRecord,
    Verdict,
)
from epc.compiler.contract.logic import Atom, Name, leaves
from epc.compiler.contract.manifest import Design, Manifest
from epc.compiler.contract.rows import MeasurementRow
from epc.runtime import bundle as bundles
from epc.runtime.errors import Fault
from epc.runtime.estimates import arm_summaries, arms_of
from epc.runtime.gates import Evaluated, evaluate_follow_up, reason
from epc.runtime.inputs import Inputs, Stored, stored
from epc.runtime.measurements import Measurements, rows_sha256
from epc.runtime.missingness import compute, corner_gate, corners_of, judged_gates
from epc.runtime.registration import Commit, commit_of, frozen_gate, results_changed, spec_folder
from epc.runtime.results import read_results
from epc.runtime.sensitivity import sensitivity
from epc.runtime.stamp import stamped
from epc.runtime.statistics import Resamples
from epc.runtime.step import FinishRecord, read_record
from epc.runtime.switches import Evaluation, evaluate_design, governed
from epc.runtime.validity import audit_gates, band_gates, outputs_intact, recorded_gates
from epc.runtime.verdict import DECIDING, other_labels, verdict_of, would_flip
from epc.runtime.wording import count

MINIMUM_UNITS = 20
"""Below, bootstrap and t reject a true null far too often."""
SMALL_SAMPLE = ("sign_flip", "sign_test", "mcnemar")
STRONG = Fraction(1, 10)
"""A single training seed counts as strong where p is below this share of alpha."""


def read(bundle: Path, *, results: Path | None = None) -> Inputs:
    """What the decision of a bundle is made from.

    `results` is the folder that files of results from elsewhere are relative to, None for that of the spec.

    Raises Fault: R01xx (no or bad manifest), R0201 (bad finish record), R0501 and R0502 (bad rows), R0503 (a manifest whose
    design contradicts itself), R16xx (results from elsewhere). Anything merely missing is unknown instead.
    """
    manifest = bundles.read_manifest(bundle)
    _check_design(bundle, manifest.design)
    records = {step.id: read_record(bundle, step) for step in manifest.steps}
    imported = read_results(manifest, results or spec_folder(bundle, manifest))
    of_entries = (
        Stored(
            file=f"results {entry.name}: {entry.file}",
            rows=tuple(row for row in imported.rows if row.metric in entry.scores),
        )
        for entry in manifest.design.results
    )
    return Inputs(
        manifest=manifest, records=records, stored=(*stored(bundle, manifest, records), *of_entries),
        imported=imported.read,
    )  # fmt: skip


def decide(
    bundle: Path, deviations: Sequence[Deviation] = (), *, results: Path | None = None, inputs: Inputs | None = None
) -> Decision:
    """The decision of a bundle; `deviations` are what its journal tells, and are only reported.

    `results` is as in `read`, whose answer may be given as `inputs`. Raises the Faults of `read`, and R0401 for an altered
    journal.
    """
    inputs = inputs or read(bundle, results=results)
    manifest, records, imported = inputs.manifest, inputs.records, inputs.imported
    audited, relabelled = _audited(bundle, manifest, records, results or spec_folder(bundle, manifest))
    return _decision(
        manifest=manifest,
        records=records,
        measurements=inputs.measurements,
        imported=imported,
        audited=audited,
        recorded=(*_recorded(bundle, manifest, records), *_read_gate(imported), *audit_gates(audited)),
        deviations=(
            *deviations,
            *results_changed(bundle, {entry.name: entry.sha256 for entry in imported}),
            *relabelled,
        ),
        commit=commit_of(bundle, manifest),
    )


def _recorded(
    bundle: Path, manifest: Manifest, records: Mapping[str, FinishRecord | None]
) -> Iterator[Evaluated]:  # fmt: skip
    """The gates that rest on records and journal, not on measurements."""
    if manifest.steps:
        yield from recorded_gates(manifest, records, outputs_intact(bundle, manifest, records))
    frozen = frozen_gate(bundle, manifest, records)
    if frozen is not None:
        yield frozen


def _read_gate(imported: Sequence[ResultsRead]) -> Iterator[Evaluated]:
    """The gate that results from elsewhere get: a file that is not sound ends the decision, so this says what was read."""
    if imported:
        yield Evaluated(
            name="epc.results_read", role="validity", built_in=True, truth=True,
            text="results from elsewhere were read whole, and are those registered where a SHA-256 is",
            detail="; ".join(
                f"{entry.name}: {entry.rows:,} rows of {count(len(entry.files), 'file')}, SHA-256"
                f" {entry.sha256[:12]} {'as registered' if entry.pinned else 'not registered before'}"
                for entry in imported
            ),
        )  # fmt: skip


def _few_units(design: Design, analyses: Sequence[AnalysisResult]) -> Iterator[Evaluated]:
    """Whether confirmatory tests of results from elsewhere have enough units: of others the compiler counts them."""
    of_results = {metric.name for metric in design.metrics if metric.kind == "results"}
    read = [a for a in analyses if a.confirmatory and a.metric in of_results and a.method not in SMALL_SAMPLE]
    few = [a for a in read if a.n_units < MINIMUM_UNITS and a.unknown_because is None]
    if read:
        yield Evaluated(
            name="epc.enough_units", role="validity", built_in=True, truth=not few,
            text=f"every confirmatory test has {MINIMUM_UNITS} units, or is exact in small samples",
            detail=", ".join(f"{a.name} {count(a.n_units, a.unit)}" for a in few or read),
        )  # fmt: skip


def decision_text(decision: Decision) -> str:
    """decision.json as it is written: the same decision is the same bytes."""
    data = decision.model_dump(mode="json")
    return json.dumps(data, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def decision_path(bundle: Path) -> Path:
    return bundle / "report" / "decision.json"


def write_decision(bundle: Path, decision: Decision) -> Path:
    """Write report/decision.json aside, then rename it into place; the same decision is the same bytes.

    Raises Fault R0504 when it cannot be written.
    """
    file = decision_path(bundle)
    write_text(file, decision_text(decision), code="R0504", what="the decision")
    return file


def write_text(file: Path, text: str, *, code: str, what: str) -> None:
    """Write a file aside, force it to disk and rename it into place. Raises Fault `code` when it cannot be written."""
    aside = file.with_name(f"{file.name}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8", newline="\n") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        aside.replace(file)
    except OSError as error:
        raise Fault(
            code, str(file), f"{what} cannot be written: {error.strerror}",
            "make room or the folder writable, then run epc decide again: nothing else is lost",
        ) from None  # fmt: skip


def _check_design(bundle: Path, design: Design) -> None:
    """What `epc check` guarantees and a hand-edited manifest may break. Raises Fault R0503."""
    gates = {gate.name: gate for gate in design.gates}
    analyses = {analysis.name for analysis in design.analyses}
    metrics = {metric.name for metric in design.metrics}
    conditions = {condition.name for condition in design.conditions}
    problems: list[str] = []
    for kind, names in (("gate", [g.name for g in design.gates]), ("analysis", [a.name for a in design.analyses])):
        problems += [f"{kind} {name} is there twice" for name in sorted({n for n in names if names.count(n) > 1})]
    for analysis in design.analyses:
        if analysis.metric not in metrics:
            problems.append(f"analysis {analysis.name} reads metric {analysis.metric}, which is not there")
        if analysis.subset is not None and analysis.subset not in design.subsets:
            problems.append(f"analysis {analysis.name} reads subset {analysis.subset}, which is not there")
        if analysis.interval is not None and not 0 < analysis.interval < 1:
            problems.append(f"analysis {analysis.name} shows an interval of level {analysis.interval:g}")
        if (analysis.contrast is None) == (analysis.arm is None):
            problems.append(f"analysis {analysis.name} has not exactly one of contrast and arm")
        problems += [
            f"analysis {analysis.name} reads condition {arm}, which is not there"
            for arm in arms_of(analysis)
            if arm not in conditions
        ]
    problems += _judge_problems(design)
    problems += _switch_problems(design)
    problems += _family_problems(design)
    for gate in design.gates:
        for leaf in leaves(gate.predicate):
            if isinstance(leaf, Name):
                problems.append(f"gate {gate.name} names {leaf.name} without a statistic")
            elif leaf.analysis not in analyses:
                problems.append(f"gate {gate.name} reads analysis {leaf.analysis}, which is not there")
    for rule in design.verdicts:
        for leaf in leaves(rule.predicate) if rule.predicate is not None else ():
            if isinstance(leaf, Atom):
                problems.append(f"verdict rule `{rule.text}` compares a statistic; rules name gates")
            elif leaf.name not in gates:
                problems.append(f"verdict rule `{rule.text}` names gate {leaf.name}, which is not there")
            elif gates[leaf.name].role not in DECIDING:
                problems.append(
                    f"verdict rule `{rule.text}` names {leaf.name}, but a {gates[leaf.name].role} gate never decides"
                )
    if not design.verdicts or design.verdicts[-1].predicate is not None:
        problems.append("the verdict table does not end with `otherwise`")
    if problems:
        raise Fault(
            "R0503", str(bundle / "manifest.json"), "the design contradicts itself: " + "; ".join(problems),
            "compile the spec again with epc compile; a manifest is not edited by hand",
        )  # fmt: skip


def _judge_problems(design: Design) -> Iterator[str]:
    judges = {judge.name for judge in design.judges}
    for metric in design.metrics:
        if metric.kind == "judge" and metric.judge not in judges:
            yield f"metric {metric.name} is scored by judge {metric.judge}, which is not there"


def _family_problems(design: Design) -> Iterator[str]:
    """Each member is there, with the family's alpha, and in no other; the looks have their levels."""
    alphas = {analysis.name: analysis.alpha for analysis in design.analyses}
    member_of: dict[str, str] = {}
    for family in design.families:
        for name in family.analyses:
            if name not in alphas:
                yield f"family {family.name} holds analysis {name}, which is not there"
            elif alphas[name] != family.alpha:
                yield f"family {family.name} tests at {family.alpha:g}, and its analysis {name} at {alphas[name]:g}"
            if name in member_of:
                yield f"analysis {name} is in families {member_of[name]} and {family.name}"
            member_of[name] = family.name
    if design.interim is not None and len(design.interim.levels) != len(design.interim.looks):
        yield f"{len(design.interim.looks)} looks are planned, with levels for {len(design.interim.levels)}"


def _switch_problems(design: Design) -> Iterator[str]:
    """A switch governs one analysis of a filtered metric, alone, and reads none that a switch governs."""
    filtered = {metric.name for metric in design.metrics if metric.filter is not None}
    metric_of = {analysis.name: analysis.metric for analysis in design.analyses}
    governing: dict[str, str] = {}
    for gate in design.gates:
        if gate.role != "switch":
            if gate.analysis is not None:
                yield f"gate {gate.name} binds {gate.analysis}, but only a switch does that"
            continue
        if gate.analysis is None or gate.analysis not in metric_of:
            yield f"switch {gate.name} binds analysis {gate.analysis}, which is not there"
            continue
        if metric_of[gate.analysis] not in filtered:
            yield f"switch {gate.name} binds {gate.analysis}, whose metric {metric_of[gate.analysis]} has no filter"
        if gate.analysis in governing:
            yield f"switches {governing[gate.analysis]} and {gate.name} both bind {gate.analysis}"
        governing[gate.analysis] = gate.name
    for gate in design.gates:
        for leaf in leaves(gate.predicate) if gate.role == "switch" else ():
            if isinstance(leaf, Atom) and leaf.analysis in governing:
                yield f"switch {gate.name} reads {leaf.analysis}, which switch {governing[leaf.analysis]} binds"


def stored_rows(
    bundle: Path, manifest: Manifest, records: Mapping[str, FinishRecord | None]
) -> Iterator[MeasurementRow]:
    """Rows of every finished step of kind measure; of an unfinished one nothing is read."""
    for part in stored(bundle, manifest, records):
        yield from part.rows


def _audited(
    bundle: Path, manifest: Manifest, records: Mapping[str, FinishRecord | None], folder: Path
) -> tuple[tuple[Audit, ...], tuple[Deviation, ...]]:
    """The audits of judges with registered labels, and the labels that were others at an earlier decision."""
    if all(judge.gold is None for judge in manifest.design.judges):
        return (), ()
    from epc.runtime.judging.audit import audits, labels_changed

    found = audits(bundle, manifest, records, folder)
    return found, tuple(labels_changed(bundle, found))


def _decision(
    *,
    manifest: Manifest,
    records: Mapping[str, FinishRecord | None],
    measurements: Measurements,
    imported: tuple[ResultsRead, ...],
    audited: tuple[Audit, ...],
    recorded: tuple[Evaluated, ...],
    deviations: tuple[Deviation, ...],
    commit: Commit | None,
) -> Decision:
    design = manifest.design
    shared = Resamples()
    computed = compute(design, measurements, shared)
    evaluation = evaluate_design(design, computed)
    analyses, results = tuple(evaluation.results.values()), evaluation.results
    corners = corners_of(design, measurements, evaluation, shared)
    built_in = (
        *recorded,
        *_few_units(design, analyses),
        *band_gates(design, measurements),
        *judged_gates(design, measurements),
        *((corner_gate(design, corners, evaluation),) if corners is not None else ()),
    )
    evaluation = evaluation.after(built_in)
    gates, rules = evaluation.gates, design.verdicts
    verdict = verdict_of(rules, gates, evaluation.readings, results, tuple(_caveats(design, evaluation)))
    seen = [binding.results for binding in evaluation.possible]
    follow_ups = {
        gate.name: evaluate_follow_up(gate, verdict.verdict_class, *seen)
        for gate in design.gates
        if gate.role == "follow_up"
    }
    panel = sensitivity(
        design, measurements, computed=computed, evaluation=evaluation, built_in=built_in, corners=corners,
        label=verdict.label, shared=shared,
    )  # fmt: skip
    by_name = {gate.name: gate for gate in gates} | follow_ups
    ordered = (*built_in, *(by_name[gate.name] for gate in design.gates))

    def flip(gate: Evaluated) -> str | None:
        if gate.role == "switch":
            return other_labels(evaluation.flipped(gate), rules, verdict.label)
        return would_flip(gate, evaluation.readings, rules, verdict.label)

    decision = Decision(
        epc=manifest.epc,
        id=manifest.id,
        title=manifest.title,
        question=design.question,
        mode=manifest.mode,
        lock_sha256=manifest.lock_sha256,
        spec_sha256=manifest.spec_sha256,
        rows_sha256=rows_sha256(measurements.rows),
        verdict=verdict,
        fired=tuple(gate.name for gate in gates if gate.role in ("override", "kill") and gate.truth is True),
        gates=tuple(gate.result(flip(gate)) for gate in ordered),
        verdict_table=tuple((rule.text, rule.label) for rule in design.verdicts),
        analyses=analyses,
        arms=tuple(arm_summaries(design, measurements)),
        sensitivity=panel,
        confidence=_confidence(manifest, analyses, gates, verdict, panel),
        conditional_on=_conditional_on(design),
        deviations=deviations,
        steps=tuple(
            StepRecord(
                id=step.id, key=step.key, seconds=record.seconds, versions=record.versions, facts=_finite(record.facts)
            )
            for step in manifest.steps
            if (record := records[step.id]) is not None
        ),
        results=imported,
        audits=audited,
        card=_card(manifest, records, commit, imported),
    )
    return stamped(decision)


def _caveats(design: Design, evaluation: Evaluation) -> Iterator[str]:
    """What a reader must know of the switches: which analysis is not the filtered one, or may not be."""
    by_name = {gate.name: gate for gate in evaluation.gates}
    metrics = {analysis.name: analysis.metric for analysis in design.analyses}
    filters = {metric.name: metric.filter for metric in design.metrics}
    for analysis, gate in governed(design).items():
        switch = by_name[gate.name]
        if switch.truth is None:
            yield f"Caveat: {analysis} was read with and without its filter, because {switch.name} is unknown."
        elif switch.truth:
            holding = tuple(seen for seen in switch.observations if seen.truth) or switch.observations
            why = reason(replace(switch, observations=holding), evaluation.results)
            yield (
                f"Caveat: {analysis} is computed on unfiltered scores, because {why}: completions that its filter"
                f' "{filters[metrics[analysis]]}" would leave out count in it.'
            )


def _trained_arms(design: Design, arms: Iterable[str]) -> list[tuple[int, ...]]:
    wanted = set(arms)
    return [condition.seeds for condition in design.conditions if condition.phases and condition.name in wanted]


def _confirmatory_seeds(design: Design) -> int:
    """Fewest training seeds of a trained arm that a confirmatory analysis reads, 0 where none of these is trained.

    Of a design without a confirmatory analysis: 1 where it trains, else 0.
    """
    read = [arm for analysis in design.analyses if analysis.confirmatory for arm in arms_of(analysis)]
    if not read:
        return min(1, len(_trained_arms(design, (condition.name for condition in design.conditions))))
    return min((len(seeds) for seeds in _trained_arms(design, read)), default=0)


def _unstable(design: Design, analyses: Sequence[AnalysisResult]) -> Iterator[str]:
    """Confirmatory analyses of trained arms whose sign is not the same with every training seed and on average."""
    registered = {analysis.name: arms_of(analysis) for analysis in design.analyses if analysis.confirmatory}
    for result in analyses:
        if not _trained_arms(design, registered.get(result.name, ())):
            continue
        average = result.statistics.get("delta", result.statistics.get("value"))
        if average is None or not result.per_seed:
            yield f"{result.name} has no estimate by training seed"
            continue
        other = [seed for seed, estimate in result.per_seed.items() if _sign(estimate) != _sign(average)]
        if other:
            seeds = f"training seed{'' if len(other) == 1 else 's'} {', '.join(sorted(other, key=int))}"
            yield f"{result.name} has another sign with {seeds} than on average"


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _confidence(
    manifest: Manifest, analyses: Sequence[AnalysisResult], gates: Sequence[Evaluated], verdict: Verdict,
    panel: Sequence[AnalysisSensitivity],
) -> Confidence:  # fmt: skip
    """HIGH needs three training seeds, MODERATE two, or one whose evidence is strong and agrees; else LOW.

    Evidence agrees when every success and prediction gate has the same known truth; for HIGH every
    confirmatory estimate has the sign of its average with each training seed too. One seed is strong
    when the verdict is of class SUCCESS, all of those gates are true and every confirmatory p is below
    alpha / 10. Without training there is no seed to vary, and one needs the same for MODERATE. An INVALID
    verdict and a rehearsal are LOW.

    FRAGILE caps the label at LOW where it bears on the verdict: some definition of a confirmatory p gives another
    label. Then the verdict rests on which test was written down, and no number of seeds mends that. Where the
    verdict is the same under every definition, as of a kill on an estimate, FRAGILE says nothing about it.
    """
    if manifest.mode == "rehearsal":
        return Confidence(label="LOW", reason="a rehearsal measures the pipeline, not the question")
    if verdict.verdict_class == "INVALID":
        return Confidence(label="LOW", reason="the verdict is INVALID")
    fragile = [entry for entry in panel if entry.confirmatory and entry.fragile]
    for entry in fragile:
        others = sorted({found.verdict for found in entry.definitions if found.changes})
        if others:
            reason = f"FRAGILE: with another definition of the p of {entry.analysis} the verdict would be"
            return Confidence(label="LOW", reason=f"{reason} {' or '.join(others)}")
    seeds = _confirmatory_seeds(manifest.design)
    votes = {gate.name: gate.truth for gate in gates if gate.role in ("success", "prediction")}
    agree = None not in votes.values() and len(set(votes.values())) <= 1
    split = "success and prediction gates agree" if agree else "success and prediction gates do not all agree"
    told = count(seeds, "training seed") if seeds else "no training, so no training-seed variance"
    if seeds >= 2:
        unstable = list(_unstable(manifest.design, analyses))
        label: Literal["HIGH", "MODERATE"] = "HIGH" if seeds >= 3 and agree and not unstable else "MODERATE"
        signs = unstable or ["confirmatory estimates have one sign with all of them"]
        return Confidence(label=label, reason="; ".join([told, split, *signs]))
    ps = {
        a.name: (a.statistics.get("p") if a.family is None else a.p_adjusted, a.level or a.alpha)
        for a in analyses
        if a.confirmatory
    }
    strong = bool(ps) and all(
        p is not None and Fraction(p) < STRONG * Fraction(repr(alpha)) for p, alpha in ps.values()
    )
    if verdict.verdict_class == "SUCCESS" and agree and votes and all(votes.values()) and strong:
        return Confidence(
            label="MODERATE", reason=f"{told}; all {split}, and every confirmatory p is below alpha / 10"
        )  # fmt: skip
    if seeds:
        return Confidence(label="LOW", reason=f"{told}, whose variance is not measured; {split}")
    weak = "not every confirmatory p is below alpha / 10" if ps else "no analysis is confirmatory"
    lacks = [] if strong else [weak]
    lacks += [] if verdict.verdict_class == "SUCCESS" else [f"the verdict is {verdict.label}"]
    return Confidence(label="LOW", reason="; ".join([told, split, *lacks]))


def _conditional_on(design: Design) -> str:
    """The sentence for arms of a single training seed, empty when every trained arm has more."""
    single = sorted(
        {seeds[0] for seeds in _trained_arms(design, (c.name for c in design.conditions)) if len(seeds) == 1}
    )
    if not single:
        return ""
    return (
        f"Conditional on these checkpoints, each of one training seed ({', '.join(map(str, single))}):"
        " training-seed variance is not included."
    )


def _card(
    manifest: Manifest,
    records: Mapping[str, FinishRecord | None],
    commit: Commit | None,
    imported: Sequence[ResultsRead],
) -> dict[str, str]:
    """Reproducibility card. An entry whose value nobody recorded says so; none is empty."""
    design = manifest.design
    finished = [record for step in manifest.steps if (record := records[step.id]) is not None]
    card = {
        "registration (SHA-256 of spec.lock.yaml)": manifest.lock_sha256,
        "spec": manifest.spec,
        "spec SHA-256": manifest.spec_sha256,
        "mode": manifest.mode,
        "epc": manifest.epc,
        "commit": "not under version control when it was registered"
        if commit is None
        else commit.commit + (", with changes that were not committed" if commit.dirty else ""),
    }
    for judge in design.judges:
        card[f"judge {judge.name}"] = f"{judge.model}, rubric SHA-256 {judge.rubric_sha256}"
    for entry in imported:
        rounded = f"; {', '.join(entry.rounded)} rounded to multiples of 10^-9" if entry.rounded else ""
        files = f"{next(iter(entry.files))}" if len(entry.files) == 1 else count(len(entry.files), "file")
        card[f"results {entry.name}"] = (
            f"{files} ({entry.format}), SHA-256 {entry.sha256}{'' if entry.pinned else ' (not registered)'},"
            f" {count(entry.rows, 'row')}{rounded}"
        )
    for step in manifest.steps:
        if step.kind == "model":
            card[step.id] = (
                ", ".join(f"{name} {value}" for name, value in sorted(_flat(step.recipe))) or "no recipe recorded"
            )
        record = records[step.id]
        if step.kind == "data" and record is not None and "sha256" in record.facts:
            card[f"{step.id} SHA-256"] = f"{record.facts['sha256']}, {record.facts.get('rows', '?')} rows"
    trained = sorted({seed for condition in design.conditions if condition.phases for seed in condition.seeds})
    card["training seeds"] = ", ".join(map(str, trained)) or "no arm is trained"
    seeded = [f"{a.name} {a.seed}" for a in design.analyses if a.seed is not None]
    card["analysis seeds"] = ", ".join(seeded) or "no analysis draws"
    versions: dict[str, dict[str, None]] = {}
    for record in finished:
        for library, version in sorted(record.versions.items()):
            versions.setdefault(library, {})[version] = None
    for library in sorted(versions):
        card[library] = " and ".join(sorted(versions[library]))
    if not versions:
        card["libraries"] = "no step has finished" if manifest.steps else "no step: every score was made elsewhere"
    seconds = sum(record.seconds for record in finished)
    if manifest.steps:
        card["steps"] = f"{len(finished)} of {len(manifest.steps)} finished, {seconds:.1f} s of step time in all"
    run = f"epc run generated/{manifest.id} && " if manifest.steps else ""
    card["to reproduce"] = f"epc compile {manifest.spec} && {run}epc decide generated/{manifest.id}"
    return card


def _flat(recipe: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Scalar fields of a recipe, one level of nesting opened; what is not set is left out."""
    for name, value in recipe.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", str(v)) for inner, v in value.items() if isinstance(v, str | int | float))
        elif isinstance(value, str | int | float) and value != "":
            yield name, str(value)


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity; a recorded loss may have been one, and its name is kept."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return value
