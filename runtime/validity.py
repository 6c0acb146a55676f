"""The validity gates that nobody declares: what the finish records, the files and the audits of judges tell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from epc.compiler.contract.canonical import sha256_file
from epc.compiler.contract.decision import Audit, FieldAudit
from epc.compiler.contract.manifest import Design, Manifest, Step
from epc.runtime import bundle as bundles
from epc.runtime import kept, recipe
from epc.runtime.gates import Evaluated
from epc.runtime.measurements import Measurements
from epc.runtime.packing import lacking, read_packed
from epc.runtime.step import FinishRecord
from epc.runtime.wording import count

HASHED_BYTES = 50 * 1024 * 1024
"""Outputs above this are checked for presence, not hashed again at every decision."""
NAMED: Final = 6
"""Steps of a passed check that are named; more of them are counted."""
ADAPTER: Final = "adapter/adapter_model.safetensors"
"""Of a training, what the arm is served with."""


def recorded_gates(
    manifest: Manifest, records: Mapping[str, FinishRecord | None], outputs: Evaluated
) -> Iterator[Evaluated]:
    """The validity gates that every run gets, in the order in which they are printed."""
    unfinished = [step.id for step in manifest.steps if records[step.id] is None]
    total = len(manifest.steps)
    yield Evaluated(
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
        yield _adapters_changed(trainings, records)
        yield _recipes_followed(trainings, records)
    samples = [step for step in manifest.steps if step.kind == "sample"]
    if samples:
        yield _identical_arms(manifest, samples, records)


def _recorded(
    name: str, text: str, steps: Sequence[Step], records: Mapping[str, FinishRecord | None], fact: str
) -> Evaluated:
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
    return Evaluated(
        name=name, role="validity", text=text, truth=False if failed else None if unknown else True, built_in=True,
        detail="; ".join(parts) or (", ".join(values) if len(values) <= NAMED else count(len(values), "step")),
    )  # fmt: skip


def _adapters_changed(trainings: Sequence[Step], records: Mapping[str, FinishRecord | None]) -> Evaluated:
    """Whether every training changed its adapter, and no two trainings made the same one, as a lost seed would."""
    changed = _recorded(
        "epc.adapters_changed", "every training changed its adapter's weights", trainings, records, "adapter_changed"
    )
    made: dict[str, list[str]] = {}
    for step in trainings:
        record = records[step.id]
        if record is not None and ADAPTER in record.outputs:
            made.setdefault(record.outputs[ADAPTER], []).append(step.id)
    same = [" and ".join(steps) for steps in made.values() if len(steps) > 1]
    if not same:
        return changed
    detail = f"the same adapter, byte for byte: {'; '.join(same)}"
    return replace(
        changed, truth=False, detail="; ".join([*([changed.detail] if changed.truth is not True else []), detail])
    )


def _recipes_followed(trainings: Sequence[Step], records: Mapping[str, FinishRecord | None]) -> Evaluated:
    """Whether what every training read back from its trainer is, field by field, what is registered now."""
    differing: list[str] = []
    unknown: list[str] = []
    fields: set[str] = set()
    for step in trainings:
        record = records[step.id]
        used = None if record is None else record.facts.get(recipe.FACT)
        if not isinstance(used, dict):
            unknown.append(step.id)
            continue
        fields |= recipe.registered(step.recipe).keys()
        differing += [f"{step.id}: {problem}" for problem in recipe.differences(step.recipe, used)]
    parts = ["; ".join(differing)] if differing else []
    if unknown:
        parts.append(f"what was used is not recorded by {', '.join(unknown)}")
    return Evaluated(
        name="epc.recipe_followed", role="validity", built_in=True,
        text="every training used what is registered, as read back from the trainer",
        truth=False if differing else None if unknown else True,
        detail="; ".join(parts) or f"{count(len(trainings), 'training')}, {count(len(fields), 'field')} each",
    )  # fmt: skip


def recorded_files(bundle: Path, step: Step, record: FinishRecord) -> Iterator[tuple[str, Path, str]]:
    """(label, file, SHA-256) of what a step wrote: its own folder, and the pieces that its index lists."""
    for name, expected in sorted(record.outputs.items()):
        yield f"{step.id}/{name}", bundles.store(bundle, step) / name, expected
    index = bundles.store(bundle, step) / "index.json"
    if step.pieces and index.is_file() and sha256_file(index) == record.outputs.get("index.json"):
        for entry in json.loads(index.read_text(encoding="utf-8")):
            label = f"{step.id}/{entry['condition']}-s{entry['seed']}-{entry['set']}"
            yield label, bundles.piece(bundle, entry["key"]), entry["sha256"]


def outputs_intact(bundle: Path, manifest: Manifest, records: Mapping[str, FinishRecord | None]) -> Evaluated:
    """Whether what finished steps wrote is still there, byte for byte (large files: still there).

    Weights that were left out of a packed copy are counted and do not make it false: no reader of results reads them.
    """
    changed: list[str] = []
    skipped: list[str] = []
    hashed, left_out = 0, 0
    packed = read_packed(bundle)
    for step in manifest.steps:
        record = records[step.id]
        absent = set(lacking(packed, step, record, bundle)) if record is not None else set()
        left_out += len(absent)
        for label, file, expected in recorded_files(bundle, step, record) if record is not None else ():
            if label.removeprefix(f"{step.id}/") in absent:
                continue
            try:
                if file.is_file() and file.stat().st_size > HASHED_BYTES:
                    skipped.append(label)
                    continue
                actual = kept.sha256(file)
            except OSError as error:
                changed.append(f"{label} ({'missing' if isinstance(error, FileNotFoundError) else error.strerror})")
                continue
            hashed += 1
            if actual != expected:
                changed.append(f"{label} (altered)")
    parts = [f"no longer what was recorded: {', '.join(changed)}"] if changed else []
    parts.append(f"{count(hashed, 'file')} hashed")
    if left_out:
        parts.append(f"{count(left_out, 'file')} of model and adapters left out of this copy when it was packed")
    if skipped:
        parts.append(f"present, above {HASHED_BYTES // 2**20} MiB and not hashed again: {', '.join(skipped)}")
    return Evaluated(
        name="epc.outputs_intact", role="validity", text="every recorded output still has its SHA-256",
        truth=not changed, built_in=True, detail="; ".join(parts),
    )  # fmt: skip


def _identical_arms(
    manifest: Manifest, samples: Sequence[Step], records: Mapping[str, FinishRecord | None]
) -> Evaluated:
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
        detail = f"{count(len(hashes), 'set')} of completions, all different where the arms differ"
    return Evaluated(
        name="epc.identical_arms", role="validity", text="no two different arms gave identical completions",
        truth=False if same else None if unrecorded else True, built_in=True, detail=detail,
    )  # fmt: skip


def band_gates(design: Design, measurements: Measurements) -> Iterator[Evaluated]:
    """Of every benchmark with a registered band: whether each arm without training scores within it.

    Where a known model does not score what it is known to score, the instrument is broken and not the treatment.
    """
    for metric in design.metrics:
        if metric.base_between is None:
            continue
        low, high = (Fraction(repr(float(end))) for end in metric.base_between)
        told: list[str] = []
        truths: list[bool | None] = []
        for condition in design.conditions:
            if condition.phases:
                continue
            units = measurements.cells.get((metric.name, condition.name), {})
            values = [
                units[name].value(condition.seeds) if name in units else None
                for name in measurements.units(metric.name)
            ]
            known = [value for value in values if value is not None]
            if not known or len(known) < len(values):
                truths.append(None)
                told.append(f"{condition.name} has no score for every item")
                continue
            mean = sum(known, Fraction(0)) / len(known)
            truths.append(low <= mean <= high)
            told.append(f"{condition.name} scores {float(mean):.4g} in {count(len(known), metric.unit)}")
        yield Evaluated(
            name=f"epc.base_in_band.{metric.name}", role="validity", built_in=True,
            text=f"the untrained model scores between {metric.base_between[0]:g} and {metric.base_between[1]:g} on {metric.name}",
            truth=False if False in truths else None if None in truths else True, detail="; ".join(told),
        )  # fmt: skip


def audit_gates(audits: Sequence[Audit]) -> Iterator[Evaluated]:
    """Of every judge with registered human labels: whether it agrees with them as far as was registered.

    Unknown without labels of every drawn completion in every arm: a judge that nobody checked is not one that was
    found to agree.
    """
    for audit in audits:
        declared = [field for field in audit.fields if (field.kappa_required, field.bias_allowed) != (None, None)]
        truths = [reached for field in declared for reached in _reached(field)]
        told = "; ".join(_told(field) for field in declared)
        if audit.problems:
            told = f"{'; '.join(line.strip() for line in audit.problems)}: {audit.remedy}"
        yield Evaluated(
            name=f"epc.judge_agrees.{audit.judge}", role="validity", built_in=True,
            text=f"{audit.judge} agrees with the human labels in {audit.file}",
            truth=None if audit.problems else False if False in truths else None if None in truths else True, detail=told,
        )  # fmt: skip


def _reached(field: FieldAudit) -> Iterator[bool | None]:
    if field.kappa_required is not None:
        yield field.kappa_reached
    if field.bias_allowed is not None:
        yield field.bias_within


def _told(field: FieldAudit) -> str:
    parts: list[str] = []
    if field.kappa_required is not None:
        found = "not defined, because nothing varies" if field.kappa is None else f"{field.kappa:.3g}"
        interval = f" [{field.kappa_low:.2f}, {field.kappa_high:.2f}]" if field.kappa_low is not None else ""
        parts.append(f"kappa {found}{interval}, registered is at least {field.kappa_required:g}")
    if field.bias_allowed is not None:
        gap = field.gap
        found = (
            "in fewer than two arms" if gap is None else f"{gap.difference:.3g} more in {gap.high} than in {gap.low}"
        )
        parts.append(f"bias {found}, registered is at most {field.bias_allowed:g}")
    return f"{field.field} ({count(field.n, 'completion')}): {', '.join(parts)}"
