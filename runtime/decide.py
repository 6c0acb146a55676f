"""From measurement rows to a verdict: a pure function of manifest, finish records and rows.

Order of things: rows to unit values; every registered analysis; gates under Kleene's logic; validity
gates, built-in ones first; then the ordered verdict table under every completion of what is
unknown. Missing input is unknown, never false and never 0.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, assert_never

from epc.compiler.contract.canonical import sha256_file
from epc.compiler.contract.decision import (
    AnalysisResult,
    ArmSummary,
    Confidence,
    Decision,
    Deviation,
    GateResult,
    Observation,
    StepRecord,
    Threshold,
    Verdict,
)
from epc.compiler.contract.logic import Atom, Name, Truth, compare, evaluate, first_match, leaves
from epc.compiler.contract.manifest import Analysis, Design, Gate, Manifest, Metric, Role, Step, VerdictRule
from epc.compiler.contract.rows import MeasurementRow
from epc.runtime import bundle as bundles
from epc.runtime.errors import Fault
from epc.runtime.measurements import MEASUREMENTS, Measurements, Unit, group, read_measurements, rows_sha256
from epc.runtime.statistics import Estimate, InapplicableError, analyse
from epc.runtime.step import FinishRecord, read_record

HASHED_BYTES = 50 * 1024 * 1024
"""Outputs above this are checked for presence, not hashed again at every decision."""
DECIDING: frozenset[Role] = frozenset({"override", "kill", "success", "guardrail", "sanity"})
"""Roles that a verdict rule may name. Validity gates stand above the table."""
INVALID = "INVALID"
STRONG = Fraction(1, 10)
"""A single training seed counts as strong where p is below this share of alpha."""


def decide(bundle: Path, deviations: Sequence[Deviation] = ()) -> Decision:
    """The decision of a bundle; `deviations` are what its journal tells, and are only reported.

    Raises Fault: R01xx (no or bad manifest), R0201 (bad finish record), R0501 and R0502 (bad rows),
    R0503 (a manifest whose design contradicts itself). Anything merely missing is unknown instead.
    """
    manifest = bundles.read_manifest(bundle)
    _check_design(bundle, manifest.design)
    records = {step.id: read_record(bundle, step) for step in manifest.steps}
    measurements = group(tuple(_rows(bundle, manifest, records)))
    return _decision(
        manifest=manifest,
        records=records,
        measurements=measurements,
        outputs=_outputs_intact(bundle, manifest, records),
        deviations=tuple(deviations),
    )


def decision_path(bundle: Path) -> Path:
    return bundle / "report" / "decision.json"


def write_decision(bundle: Path, decision: Decision) -> Path:
    """Write report/decision.json aside, then rename it into place; the same decision is the same bytes.

    Raises Fault R0504 when it cannot be written.
    """
    file = decision_path(bundle)
    text = json.dumps(
        decision.model_dump(mode="json"), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False
    )  # fmt: skip
    aside = file.with_suffix(".json.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("w", encoding="utf-8", newline="\n") as handle:
            handle.write(text + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        aside.replace(file)
    except OSError as error:
        raise Fault(
            "R0504", str(file), f"the decision cannot be written: {error.strerror}",
            "make room or the folder writable, then run epc decide again: nothing else is lost",
        ) from None  # fmt: skip
    return file


# ---------------------------------------------------------------------- input


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
        if (analysis.contrast is None) == (analysis.arm is None):
            problems.append(f"analysis {analysis.name} has not exactly one of contrast and arm")
        problems += [
            f"analysis {analysis.name} reads condition {arm}, which is not there"
            for arm in _arms(analysis)
            if arm not in conditions
        ]
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


def _arms(analysis: Analysis) -> list[str]:
    """The arms an analysis reads, the treatment first."""
    if analysis.contrast is not None:
        return [analysis.contrast.treatment, analysis.contrast.control]
    return [analysis.arm] if analysis.arm is not None else []


def _rows(bundle: Path, manifest: Manifest, records: Mapping[str, FinishRecord | None]) -> Iterator[MeasurementRow]:
    """Rows of every finished step of kind measure; of an unfinished one nothing is read."""
    for step in manifest.steps:
        file = bundles.store(bundle, step) / MEASUREMENTS
        if step.kind == "measure" and records[step.id] is not None and file.exists():
            yield from read_measurements(file, manifest)


# ------------------------------------------------------------- whole decision


@dataclass(frozen=True, kw_only=True)
class _Evaluated:
    """A gate with its truth, before anybody asks what it would flip."""

    name: str
    role: Role
    text: str
    truth: Truth
    observations: tuple[Observation, ...] = ()
    say: str = ""
    built_in: bool = False
    detail: str = ""

    def result(self, would_flip: str | None) -> GateResult:
        return GateResult(
            name=self.name, role=self.role, text=self.text, truth=self.truth, observations=self.observations,
            would_flip=would_flip, say=self.say, built_in=self.built_in, detail=self.detail,
        )  # fmt: skip


def _decision(
    *,
    manifest: Manifest,
    records: Mapping[str, FinishRecord | None],
    measurements: Measurements,
    outputs: _Evaluated,
    deviations: tuple[Deviation, ...],
) -> Decision:
    design = manifest.design
    analyses = tuple(_analysis(design, analysis, measurements) for analysis in design.analyses)
    results = {analysis.name: analysis for analysis in analyses}
    read_before = tuple(_gate(gate, results) for gate in design.gates if gate.role != "follow_up")
    built_in = (*_built_in(manifest, records, outputs), *_missing_corners(design, measurements, read_before))
    gates = (*built_in, *read_before)
    verdict = _verdict(design.verdicts, gates, results)
    follow_ups = {gate.name: _follow_up(gate, results, verdict) for gate in design.gates if gate.role == "follow_up"}
    by_name = {gate.name: gate for gate in read_before} | follow_ups
    ordered = (*built_in, *(by_name[gate.name] for gate in design.gates))
    return Decision(
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
        gates=tuple(gate.result(_would_flip(gate, gates, design.verdicts, verdict.label)) for gate in ordered),
        verdict_table=tuple((rule.text, rule.label) for rule in design.verdicts),
        analyses=analyses,
        arms=tuple(_arm_summaries(design, measurements)),
        confidence=_confidence(manifest, analyses, gates, verdict),
        conditional_on=_conditional_on(design),
        deviations=deviations,
        steps=tuple(
            StepRecord(
                id=step.id, key=step.key, seconds=record.seconds, versions=record.versions, facts=_finite(record.facts)
            )
            for step in manifest.steps
            if (record := records[step.id]) is not None
        ),
        card=_card(manifest, records),
    )


# ------------------------------------------------------------------- analyses


def _analysis(
    design: Design, analysis: Analysis, measurements: Measurements, fills: Sequence[Fraction | None] = (None, None)
) -> AnalysisResult:
    """One registered analysis, unknown with its reason where it cannot be computed.

    `fills` are the scores that stand for missing ones in the treatment and in the control, None to drop.
    """
    metric = next(metric for metric in design.metrics if metric.name == analysis.metric)
    arms = _arms(analysis)
    cells = [measurements.cells.get((metric.name, arm), {}) for arm in arms]
    values = _unit_values(design, metric, arms, measurements, fills=fills[: len(arms)])
    expected = measurements.units(metric.name)
    complete = [unit for unit in expected if all(unit in arm for arm in values)]
    kept = [{unit: arm[unit] for unit in complete} for arm in values]
    n_missing = sum(unit.n_missing for cell in cells for unit in cell.values())
    because = _unknown_because(metric, arms, cells, n_missing, len(expected) - len(complete))
    estimate: Estimate | None = None
    if because is None:
        try:
            estimate = analyse(analysis, metric, kept[0], kept[1] if analysis.contrast is not None else None)
        except InapplicableError as error:
            because = str(error)
    two_sided = analysis.side == "two_sided"
    return AnalysisResult(
        name=analysis.name,
        metric=metric.name,
        contrast=analysis.contrast,
        arm=analysis.arm,
        method=analysis.method,
        definition=estimate.definition if estimate else f"{analysis.method}, not computed",
        side=analysis.side,
        alpha=analysis.alpha,
        confirmatory=analysis.confirmatory,
        better=metric.better,
        scale=metric.scale,
        unit=metric.unit,
        n_units=len(complete),
        n_samples=sum(cell[unit].n for cell in cells for unit in complete),
        n_missing=n_missing,
        n_units_missing=len(expected) - len(complete),
        mean_treatment=_mean(kept[0].values()),
        mean_control=_mean(kept[1].values()) if analysis.contrast is not None else None,
        statistics=estimate.statistics if estimate else dict.fromkeys(_statistics(analysis)),
        ci_level=estimate.ci_level if estimate else float(1 - Fraction(repr(analysis.alpha)) * (1 if two_sided else 2)),
        sd=estimate.sd if estimate else None,
        skewness=estimate.skewness if estimate else None,
        unknown_because=because,
        thresholds=tuple(_thresholds(design, analysis.name)),
    )


def _statistics(analysis: Analysis) -> tuple[str, ...]:
    """Names of the statistics of an analysis, for when all of them are unknown."""
    if analysis.contrast is None:
        return ("value", "lower", "upper", "ci_low", "ci_high")
    return ("delta", "p", "reject", "lower", "upper", "ci_low", "ci_high")


def _unknown_because(
    metric: Metric, arms: Sequence[str], cells: Sequence[Mapping[str, Unit]], n_missing: int, units_missing: int
) -> str | None:
    """Why the metric's data allow no analysis of these arms; None when they do."""
    absent = [arm for arm, cell in zip(arms, cells, strict=True) if not cell]
    if absent:
        return f"there is no measurement of {metric.name} in {' and '.join(dict.fromkeys(absent))}"
    match metric.missing:
        case "fail":
            if n_missing or units_missing:
                return (
                    f"{metric.name} declares `missing: fail`, and {_count(n_missing, 'sample')} and"
                    f" {_count(units_missing, metric.unit)} are missing in {' and '.join(arms)}"
                )
            return None
        case "drop":
            return None
        case _:
            assert_never(metric.missing)


def _unit_values(
    design: Design,
    metric: Metric,
    arms: Sequence[str],
    measurements: Measurements,
    *,
    fills: Sequence[Fraction | None],
) -> list[dict[str, Fraction]]:
    """Per arm, unit -> mean over the arm's training seeds; a unit that lacks one is left out, unless filled."""
    seeds = {condition.name: condition.seeds for condition in design.conditions}
    found: list[dict[str, Fraction]] = []
    for arm, fill in zip(arms, fills, strict=True):
        cell = measurements.cells.get((metric.name, arm), {})
        values: dict[str, Fraction] = {}
        for name in measurements.units(metric.name):
            value = cell.get(name, Unit(rows={})).value(seeds[arm], fill)
            if value is not None:
                values[name] = value
        found.append(values)
    return found


def _mean(values: Iterable[Fraction]) -> float | None:
    listed = list(values)
    return float(sum(listed, Fraction(0)) / len(listed)) if listed else None


def _thresholds(design: Design, analysis: str) -> Iterator[Threshold]:
    for gate in design.gates:
        for leaf in leaves(gate.predicate):
            if isinstance(leaf, Atom) and leaf.analysis == analysis:
                yield Threshold(
                    gate=gate.name,
                    role=gate.role,
                    statistic=leaf.statistic,
                    operator=leaf.operator,
                    constant=leaf.constant,
                )


def _arm_summaries(design: Design, measurements: Measurements) -> Iterator[ArmSummary]:
    """One summary per metric and condition that has rows, in the order of the registration."""
    for metric in design.metrics:
        for condition in design.conditions:
            cell = measurements.cells.get((metric.name, condition.name))
            if cell is None:
                continue
            (values,) = _unit_values(design, metric, [condition.name], measurements, fills=[None])
            rows = [row for unit in cell.values() for row in unit.rows.values()]
            n = sum(row.n for row in rows)
            score = sum((Fraction(row.total, row.denominator) for row in rows), Fraction(0))
            yield ArmSummary(
                metric=metric.name,
                condition=condition.name,
                seeds=tuple(sorted({row.seed for row in rows})),
                n_units=len(values),
                n_samples=n,
                n_missing=sum(row.n_missing for row in rows),
                mean=_mean(values.values()),
                sample_mean=float(score / n) if n else None,
            )


# ---------------------------------------------------------------------- gates


def _gate(gate: Gate, results: Mapping[str, AnalysisResult]) -> _Evaluated:
    def leaf(node: Atom | Name) -> Truth:
        assert isinstance(node, Atom)  # _check_design refused names
        return compare(results[node.analysis].statistics.get(node.statistic), node.operator, node.constant)

    atoms = [node for node in leaves(gate.predicate) if isinstance(node, Atom)]
    truth = evaluate(gate.predicate, leaf)
    details = dict.fromkeys(
        f"{atom.analysis} is unknown: {reason}" for atom in atoms if (reason := results[atom.analysis].unknown_because)
    )
    if gate.role == "prediction":
        details = dict.fromkeys([_hit(truth), *details])
    return _Evaluated(
        name=gate.name, role=gate.role, text=gate.text, truth=truth, say=gate.say, detail="; ".join(details),
        observations=tuple(
            Observation(
                text=_atom_text(atom),
                value=results[atom.analysis].statistics.get(atom.statistic),
                truth=leaf(atom),
                n=results[atom.analysis].n_units,
            )
            for atom in atoms
        ),
    )  # fmt: skip


def _hit(truth: Truth) -> str:
    return "HIT" if truth else "UNKNOWN" if truth is None else "MISS"


def _atom_text(atom: Atom) -> str:
    if atom.statistic == "reject" and atom.operator == "==" and atom.constant == 1:
        return f"{atom.analysis}.{atom.statistic}"
    return f"{atom.analysis}.{atom.statistic} {atom.operator} {_constant(atom.constant)}"


def _constant(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def _follow_up(gate: Gate, results: Mapping[str, AnalysisResult], verdict: Verdict) -> _Evaluated:
    """A follow-up gate is read after the verdict it waits for, and feeds nothing back."""
    if gate.on and verdict.verdict_class not in gate.on:
        return _Evaluated(
            name=gate.name, role=gate.role, text=gate.text, truth=None, say=gate.say,
            detail=f"not read: it is for {' or '.join(gate.on)} only",
        )  # fmt: skip
    return _gate(gate, results)


# ------------------------------------------------------------- built-in gates


def _built_in(
    manifest: Manifest, records: Mapping[str, FinishRecord | None], outputs: _Evaluated
) -> Iterator[_Evaluated]:
    """The validity gates that every run gets, in the order in which they are printed."""
    unfinished = [step.id for step in manifest.steps if records[step.id] is None]
    total = len(manifest.steps)
    yield _Evaluated(
        name="epc.steps_finished", role="validity", text="every step has its finish record", built_in=True,
        truth=not unfinished,
        detail=f"not finished: {', '.join(unfinished)}" if unfinished else f"{total} of {total} steps",
    )  # fmt: skip
    yield outputs
    masks = [step for step in manifest.steps if step.kind == "mask"]
    if masks:
        yield _recorded(
            "epc.mask_verified", "the trained spans of every data set were decoded and are the declared ones", masks,
            records, "verified",
        )  # fmt: skip
    trainings = [step for step in manifest.steps if step.kind == "train"]
    if trainings:
        yield _recorded(
            "epc.adapters_changed", "every training changed its adapter's weights", trainings, records,
            "adapter_changed",
        )  # fmt: skip
    samples = [step for step in manifest.steps if step.kind == "sample"]
    if samples:
        yield _identical_arms(manifest, samples, records)


def _recorded(
    name: str, text: str, steps: Sequence[Step], records: Mapping[str, FinishRecord | None], fact: str
) -> _Evaluated:
    """Whether every step recorded `fact` as true; a step that did not record it leaves it unknown."""
    values: dict[str, Any] = {
        step.id: None if (record := records[step.id]) is None else record.facts.get(fact) for step in steps
    }
    failed = [step for step, value in values.items() if value is not None and value is not True]
    unknown = [step for step, value in values.items() if value is None]
    parts = []
    if failed:
        parts.append(f"{fact} is not true in {', '.join(failed)}")
    if unknown:
        parts.append(f"{fact} is not recorded by {', '.join(unknown)}")
    return _Evaluated(
        name=name, role="validity", text=text, truth=False if failed else None if unknown else True, built_in=True,
        detail="; ".join(parts) or ", ".join(values),
    )  # fmt: skip


def _outputs_intact(bundle: Path, manifest: Manifest, records: Mapping[str, FinishRecord | None]) -> _Evaluated:
    """Whether what finished steps wrote is still there, byte for byte (large files: still there)."""
    changed: list[str] = []
    skipped: list[str] = []
    hashed = 0
    for step in manifest.steps:
        record = records[step.id]
        for name, expected in sorted(record.outputs.items()) if record is not None else ():
            file = bundles.store(bundle, step) / name
            label = f"{step.id}/{name}"
            try:
                if file.stat().st_size > HASHED_BYTES:
                    skipped.append(label)
                    continue
                actual = sha256_file(file)
            except OSError as error:
                changed.append(f"{label} ({'missing' if isinstance(error, FileNotFoundError) else error.strerror})")
                continue
            hashed += 1
            if actual != expected:
                changed.append(f"{label} (altered)")
    parts = [f"no longer what was recorded: {', '.join(changed)}"] if changed else []
    parts.append(f"{_count(hashed, 'file')} hashed")
    if skipped:
        parts.append(f"present, above {HASHED_BYTES // 2**20} MiB and not hashed again: {', '.join(skipped)}")
    return _Evaluated(
        name="epc.outputs_intact", role="validity", text="every recorded output still has its SHA-256",
        truth=not changed, built_in=True, detail="; ".join(parts),
    )  # fmt: skip


def _identical_arms(
    manifest: Manifest, samples: Sequence[Step], records: Mapping[str, FinishRecord | None]
) -> _Evaluated:
    """Whether no two arms of different content gave the same text in every completion of every sample step."""
    keys = {condition.name: condition.key for condition in manifest.design.conditions}
    hashes: dict[str, list[str]] = {}
    unrecorded: list[str] = []
    for step in samples:
        record = records[step.id]
        found = None if record is None else record.facts.get("completions_sha256")
        if not isinstance(found, dict):
            unrecorded.append(step.id)
            continue
        for arm, value in sorted(found.items()):
            hashes.setdefault(arm, []).append(f"{step.id}:{value}")
    same = [
        f"{first} and {second}"
        for first in sorted(hashes)
        for second in sorted(hashes)
        if first < second
        and hashes[first] == hashes[second]
        and keys.get(first.rpartition("-s")[0]) != keys.get(second.rpartition("-s")[0])
    ]
    if same:
        detail = f"the same text in every completion: {'; '.join(same)}"
    elif unrecorded:
        detail = f"completions_sha256 is not recorded by {', '.join(unrecorded)}"
    else:
        detail = f"{_count(len(hashes), 'set')} of completions, all different where the arms differ"
    return _Evaluated(
        name="epc.identical_arms", role="validity", text="no two different arms gave identical completions",
        truth=False if same else None if unrecorded else True, built_in=True, detail=detail,
    )  # fmt: skip


def _missing_corners(
    design: Design, measurements: Measurements, gates: Sequence[_Evaluated]
) -> Iterator[_Evaluated]:  # fmt: skip
    """Where missing scores were dropped: does the design say the same whatever they were?

    Recomputed at two corners: every missing score of a treatment at the bottom of the scale and of a
    control at the top, and the reverse. The gate exists only when an analysis that a gate of the
    decision reads dropped something.
    """
    metrics = {metric.name: metric for metric in design.metrics}
    read = {
        leaf.analysis
        for gate in design.gates
        if gate.role in DECIDING or gate.role == "validity"
        for leaf in leaves(gate.predicate)
        if isinstance(leaf, Atom)
    }
    dropping = [analysis for analysis in design.analyses if metrics[analysis.metric].missing == "drop"]
    incomplete = [a.name for a in dropping if a.name in read and _incomplete(a, measurements)]
    if not incomplete:
        return
    observed = _label(design.verdicts, gates)
    labels: dict[str, str] = {}
    for corner, low_treatment in (("treatment low and control high", True), ("treatment high and control low", False)):
        results: dict[str, AnalysisResult] = {}
        for analysis in design.analyses:
            low, high = (Fraction(repr(float(bound))) for bound in metrics[analysis.metric].scale)
            fills = (low, high) if low_treatment else (high, low)
            results[analysis.name] = _analysis(
                design, analysis, measurements, fills if analysis in dropping else (None, None)
            )
        there = [_gate(gate, results) for gate in design.gates if gate.role != "follow_up"]
        labels[corner] = _label(design.verdicts, there)
    yield _Evaluated(
        name="epc.missing_corners", role="validity", built_in=True,
        truth=all(label == observed for label in labels.values()),
        text="the verdict is the same at both extremes of the missing scores",
        detail=f"missing scores were dropped in {', '.join(incomplete)}: {observed} without them, "
        + ", ".join(f"{label} with {corner}" for corner, label in labels.items()),
    )  # fmt: skip


def _incomplete(analysis: Analysis, measurements: Measurements) -> bool:
    """Whether an arm of the analysis has rows but lacks a unit or a score."""
    expected = measurements.units(analysis.metric)
    cells = [measurements.cells.get((analysis.metric, arm), {}) for arm in _arms(analysis)]
    return all(cells) and any(
        unit not in cell or cell[unit].n_missing > 0 or cell[unit].n == 0 for cell in cells for unit in expected
    )


# -------------------------------------------------------------------- verdict


def _label(rules: Sequence[VerdictRule], gates: Sequence[_Evaluated]) -> str:
    """The verdict's label under the one rule for unknowns."""
    if any(gate.role == "validity" and gate.truth is not True for gate in gates):
        return INVALID
    reached = {rules[index].label for index in _reached(rules, gates)}
    return reached.pop() if len(reached) == 1 else INVALID


def _reached(rules: Sequence[VerdictRule], gates: Sequence[_Evaluated]) -> list[int]:
    """Indices of the rules that can be the first to match, over every completion of what is unknown."""
    truths = {gate.name: gate.truth for gate in gates}
    return sorted(first_match([rule.predicate for rule in rules], truths))


def _would_flip(
    gate: _Evaluated, gates: Sequence[_Evaluated], rules: Sequence[VerdictRule], label: str
) -> str | None:  # fmt: skip
    """The label if this gate alone had another truth, None when it would not change or the gate never decides."""
    if gate.role not in DECIDING and gate.role != "validity":
        return None
    others = (True, False) if gate.truth is None else (not gate.truth,)
    found = [_label(rules, [replace(g, truth=other) if g.name == gate.name else g for g in gates]) for other in others]
    return " or ".join(dict.fromkeys(other for other in found if other != label)) or None


def _verdict(
    rules: Sequence[VerdictRule], gates: Sequence[_Evaluated], results: Mapping[str, AnalysisResult]
) -> Verdict:  # fmt: skip
    by_name = {gate.name: gate for gate in gates}
    broken = [gate for gate in gates if gate.role == "validity" and gate.truth is not True]
    if broken:
        return Verdict(
            label=INVALID, verdict_class="INVALID", rule=None, rule_text="validity gates come before the table", say="",
            because=f"{_plural(len(broken), 'Validity gate')}: {'; '.join(_reason(g, results) for g in broken)}.",
        )  # fmt: skip
    reached = _reached(rules, gates)
    labels = list(dict.fromkeys(rules[index].label for index in reached))
    if len(labels) > 1:
        named = dict.fromkeys(name for rule in rules for name in _named(rule))
        unknown = [by_name[name] for name in named if by_name[name].truth is None]
        return Verdict(
            label=INVALID, verdict_class="INVALID", rule=None, rule_text="the table depends on what is unknown", say="",
            because=f"It would be {' or '.join(labels)}, depending on what is unknown:"
            f" {'; '.join(_reason(g, results) for g in unknown)}.",
        )  # fmt: skip
    index = reached[0]
    rule = rules[index]
    return Verdict(
        label=rule.label,
        verdict_class=rule.verdict_class,
        rule=index,
        rule_text=rule.text,
        say=rule.say,
        because=_because(rules, reached, by_name, results),
    )


def _named(rule: VerdictRule) -> list[str]:
    """Gates that a rule names, left to right, each once."""
    found = leaves(rule.predicate) if rule.predicate is not None else iter(())
    return list(dict.fromkeys(leaf.name for leaf in found if isinstance(leaf, Name)))


def _because(
    rules: Sequence[VerdictRule],
    reached: Sequence[int],
    gates: Mapping[str, _Evaluated],
    results: Mapping[str, AnalysisResult],
) -> str:
    """The deciding gates with observed values and thresholds."""
    index = reached[0]
    if len(reached) > 1:
        numbers = " and ".join(str(number + 1) for number in reached)
        start = f"Rules {numbers} give the same verdict, whatever is unknown"
        named = [name for number in reached for name in _named(rules[number])]
    elif rules[index].predicate is None:
        start = "No rule before `otherwise` matches"
        named = [name for rule in rules for name in _named(rule)]
    else:
        start = f"Rule {index + 1} is the first that matches"
        named = _named(rules[index])
    reasons = [_reason(gates[name], results) for name in dict.fromkeys(named)]
    return f"{start}: {'; '.join(reasons)}." if reasons else f"{start}."


def _reason(gate: _Evaluated, results: Mapping[str, AnalysisResult]) -> str:
    """`survives is true (headline.delta = 0.32 >= 0.15)`; a built-in gate tells its detail."""
    word = "unknown" if gate.truth is None else "true" if gate.truth else "false"
    observed = [_observed(observation, results) for observation in gate.observations] or [gate.detail]
    return f"{gate.name} is {word} ({', '.join(observed)})"


def _observed(observation: Observation, results: Mapping[str, AnalysisResult]) -> str:
    statistic, _, comparison = observation.text.partition(" ")
    result = results[statistic.partition(".")[0]]
    if observation.value is None:
        reason = result.unknown_because or f"{result.method} does not define it"
        return f"{observation.text} is unknown: {reason}"
    if not comparison:
        p = result.statistics.get("p")
        return f"{statistic} = {observation.value:.6g}" + (
            "" if p is None else f", p = {p:.6g}, alpha {result.alpha:g}"
        )
    return f"{statistic} = {observation.value:.6g}, {'' if observation.truth else 'not '}{comparison}"


# ----------------------------------------------------- confidence and the card


def _trained_arms(design: Design, arms: Iterable[str]) -> list[tuple[int, ...]]:
    wanted = set(arms)
    return [condition.seeds for condition in design.conditions if condition.phases and condition.name in wanted]


def _confirmatory_seeds(design: Design) -> int:
    """Fewest training seeds of a trained arm that a confirmatory analysis reads; 1 where none is trained."""
    read = [arm for analysis in design.analyses if analysis.confirmatory for arm in _arms(analysis)]
    return min((len(seeds) for seeds in _trained_arms(design, read)), default=1)


def _confidence(
    manifest: Manifest, analyses: Sequence[AnalysisResult], gates: Sequence[_Evaluated], verdict: Verdict
) -> Confidence:  # fmt: skip
    """HIGH needs three training seeds, MODERATE two, or one whose evidence is strong and agrees; else LOW.

    Evidence agrees when every success and prediction gate has the same known truth. One seed is strong
    when the verdict is of class SUCCESS, all of those gates are true and every confirmatory p is below
    alpha / 10. An INVALID verdict and a rehearsal are LOW.
    """
    if verdict.verdict_class == "INVALID":
        return Confidence(label="LOW", reason="the verdict is INVALID")
    if manifest.mode == "rehearsal":
        return Confidence(label="LOW", reason="a rehearsal measures the pipeline, not the question")
    seeds = _confirmatory_seeds(manifest.design)
    votes = {gate.name: gate.truth for gate in gates if gate.role in ("success", "prediction")}
    agree = None not in votes.values() and len(set(votes.values())) <= 1
    told = _count(seeds, "training seed")
    split = "success and prediction gates agree" if agree else "success and prediction gates do not all agree"
    if seeds >= 3:
        return Confidence(label="HIGH" if agree else "MODERATE", reason=f"{told}; {split}")
    if seeds == 2:
        return Confidence(label="MODERATE", reason=f"{told}; {split}")
    ps = {a.name: (a.statistics.get("p"), a.alpha) for a in analyses if a.confirmatory}
    strong = bool(ps) and all(
        p is not None and Fraction(p) < STRONG * Fraction(repr(alpha)) for p, alpha in ps.values()
    )
    if verdict.verdict_class == "SUCCESS" and agree and votes and all(votes.values()) and strong:
        return Confidence(
            label="MODERATE", reason=f"{told}; all {split}, and every confirmatory p is below alpha / 10"
        )  # fmt: skip
    return Confidence(label="LOW", reason=f"{told}, whose variance is not measured; {split}")


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


def _card(manifest: Manifest, records: Mapping[str, FinishRecord | None]) -> dict[str, str]:
    """Reproducibility card. An entry whose value nobody recorded says so; none is empty."""
    design = manifest.design
    finished = [record for step in manifest.steps if (record := records[step.id]) is not None]
    card = {
        "registration (SHA-256 of spec.lock.yaml)": manifest.lock_sha256,
        "spec": manifest.spec,
        "spec SHA-256": manifest.spec_sha256,
        "mode": manifest.mode,
        "epc": manifest.epc,
    }
    for step in manifest.steps:
        if step.kind == "model":
            card[step.id] = (
                ", ".join(f"{name} {value}" for name, value in sorted(_flat(step.recipe))) or "no recipe recorded"
            )
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
        card["libraries"] = "no step has finished"
    seconds = sum(record.seconds for record in finished)
    card["steps"] = f"{len(finished)} of {len(manifest.steps)} finished, {seconds:.1f} s of wall time in all"
    card["to reproduce"] = (
        f"epc compile {manifest.spec} && epc run generated/{manifest.id} && epc decide generated/{manifest.id}"
    )
    return card


def _flat(recipe: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Scalar fields of a recipe, one level of nesting opened; what is not set is left out."""
    for name, value in recipe.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", str(v)) for inner, v in value.items() if isinstance(v, str | int | float))
        elif isinstance(value, str | int | float) and value != "":
            yield name, str(value)


# --------------------------------------------------------------------- helpers


def _finite(value: Any) -> Any:
    """JSON has no NaN or infinity; a recorded loss may have been one, and its name is kept."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return value


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _plural(number: int, noun: str) -> str:
    return noun if number == 1 else f"{noun}s"
