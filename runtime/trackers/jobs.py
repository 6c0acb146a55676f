"""What a tracker is told: one job for the registration, and one for each step that trains, samples or scores."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from epc.compiler.contract.canonical import sha256_file, sha256_text
from epc.compiler.contract.decision import Decision
from epc.compiler.contract.manifest import Manifest, Step
from epc.runtime import journal, registration
from epc.runtime.step import FinishRecord, read_record, record_path

KINDS: Final = ("generate", "train", "sample", "capability", "judge")
"""Kinds of steps that are runs of their own."""
REGISTRATION: Final = "registration"
"""Kind of the job that the others belong to."""
LOG: Final = "log.jsonl"
ATTACHED: Final = ("report/decision.json", "report/report.html", "report/report.md", "plan.md", "spec.lock.yaml")
VERDICTS: Final = ("SUCCESS", "INCONCLUSIVE", "KILL", "OVERRIDE", "INVALID")
TRUTHS: Final = {True: "true", False: "false", None: "unknown"}
CURVE: Final = ("loss", "learning_rate", "grad_norm", "num_tokens")
SETTINGS: Final = ("used", "plan")
"""Facts that are parameters of a training."""
LONGEST: Final = 500
"""Characters of a parameter; a longer text is cut."""
LISTED: Final = 200
"""Characters of a list that is a parameter; of a longer one its length is."""

Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Point:
    """Figures of one optimizer step."""

    step: int
    values: Mapping[str, float]
    at: float
    """Unix time in seconds."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of a tracker."""

    name: str
    kind: str
    key: str
    """Of the step; the lock's hash for the registration."""
    lock_sha256: str
    note: str
    parameters: Values
    """Nested by name; the leaves are scalars."""
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    curve: tuple[Point, ...]
    files: tuple[Path, ...]
    sha256: str | None
    """Of what is told; None while the work is not finished. The same work is told once."""
    began: float
    ended: float | None


def registration_name(manifest: Manifest) -> str:
    """`reflex 5ce23725`, with ` rehearsal` after it where it is one."""
    return f"{manifest.id} {manifest.lock_sha256[:8]}" + (" rehearsal" if manifest.mode == "rehearsal" else "")


def registration_job(bundle: Path, manifest: Manifest, *, decided: bool) -> Job:
    """The registration: the spec as parameters, and with `decided` the decision that is on disk, if it is of this lock."""
    deviations = "; ".join(entry.text for entry in registration.deviations(bundle)) or "none"
    tags = {**_tags(manifest), "epc.kind": REGISTRATION, "epc.deviations": deviations}
    note = f"**{manifest.title}**\n\n{manifest.design.question}"
    metrics: dict[str, float] = {}
    files: tuple[Path, ...] = ()
    sha256 = None
    decision = _decision(bundle, manifest) if decided else None
    if decision is not None:
        verdict = decision.verdict
        files = tuple(bundle / name for name in ATTACHED if (bundle / name).is_file())
        tags |= {"epc.verdict": verdict.label, "epc.because": verdict.because}
        tags |= {f"epc.gate.{gate.name}": TRUTHS[gate.truth] for gate in decision.gates}
        metrics = dict(_decided(decision))
        note += f"\n\n**{verdict.label}**. {verdict.say} {verdict.because}"
        sha256 = sha256_text("\n".join([deviations, *(f"{file.name} {sha256_file(file)}" for file in files)]))
    return Job(
        name=registration_name(manifest), kind=REGISTRATION, key=manifest.lock_sha256, lock_sha256=manifest.lock_sha256,
        note=note, parameters=_spec(bundle), tags=tags, metrics=metrics, curve=(), files=files, sha256=sha256,
        began=_began(bundle, manifest), ended=None,
    )  # fmt: skip


def _began(bundle: Path, manifest: Manifest) -> float:
    """When the registration was made, or else compiled."""
    for entry in journal.read(bundle):
        if registration.lock_of(entry) == manifest.lock_sha256:
            return datetime.fromisoformat(entry.at).timestamp()
    return (bundle / "manifest.json").stat().st_mtime


def started_job(manifest: Manifest, step: Step, *, began: float) -> Job:
    """A step that is being run."""
    return Job(
        name=step.id, kind=step.kind, key=step.key, lock_sha256=manifest.lock_sha256, note=step.label,
        parameters=compact(step.recipe), tags={**_tags(manifest), "epc.kind": step.kind}, metrics={}, curve=(), files=(),
        sha256=None, began=began, ended=None,
    )  # fmt: skip


def finished_job(bundle: Path, manifest: Manifest, step: Step) -> Job | None:
    """A step with its facts and its curve, None when it has not finished."""
    record = read_record(bundle, step)
    if record is None:
        return None
    file = record_path(bundle, step)
    ended = file.stat().st_mtime
    began = ended - record.seconds
    started = started_job(manifest, step, began=began)
    return replace(
        started,
        parameters={**started.parameters, **_settings(record.facts)},
        tags={**started.tags, "epc.versions": _versions(record), **dict(_said(record.facts))},
        metrics={"seconds": record.seconds, **dict(_figures(record.facts))},
        curve=tuple(_curve(file.parent / LOG, began, ended)),
        sha256=sha256_file(file),
        ended=ended,
    )


def finished_jobs(bundle: Path, manifest: Manifest) -> Iterator[Job]:
    """Every finished step that is a run of its own, in topological order."""
    for step in manifest.steps:
        if step.kind in KINDS and (job := finished_job(bundle, manifest, step)) is not None:
            yield job


# Parameters --------------------------------------------------------------------------------------


def _tags(manifest: Manifest) -> dict[str, str]:
    return {
        "epc.registration": manifest.id,
        "epc.lock_sha256": manifest.lock_sha256,
        "epc.mode": manifest.mode,
        "epc.version": manifest.epc,
    }


def _spec(bundle: Path) -> Values:
    """The lock without hashes of files, which it has as an attachment."""
    import yaml

    data = yaml.safe_load((bundle / "spec.lock.yaml").read_text(encoding="utf-8"))
    return compact({name: value for name, value in data.items() if name != "files"})


def compact(values: Values) -> dict[str, Any]:
    """Nested mappings with scalars as leaves: lists of mappings by position, others as JSON, long ones as their length."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if value is None or value in ({}, [], ()):
            continue
        match value:
            case dict():
                found[str(name)] = compact(value)
            case list() if all(isinstance(item, dict) for item in value):
                found[str(name)] = compact({str(position): item for position, item in enumerate(value)})
            case list() | tuple():
                text = json.dumps(value, ensure_ascii=False)
                found[str(name)] = text if len(text) <= LISTED else f"{len(value)} entries"
            case str():
                found[str(name)] = value if len(value) <= LONGEST else value[: LONGEST - 1] + "…"
            case _:
                found[str(name)] = value
    return found


def flat(values: Values, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`train.attack.learning_rate` and its value, for each leaf."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


# Facts of steps ----------------------------------------------------------------------------------


def _versions(record: FinishRecord) -> str:
    return ", ".join(f"{name} {version}" for name, version in record.versions.items())


def _settings(facts: Values) -> dict[str, Any]:
    """What a training says that it used, and the plan by which it was carried out."""
    execution = facts.get("execution", {})
    found = {"used": facts.get("used"), "plan": execution.get("plan") if isinstance(execution, dict) else None}
    return compact(found)


def _figures(facts: Values, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers among the facts, settings left out; those of an arm under its name, such as `attacked-s17/mmlu/acc`."""
    for name, value in facts.items():
        match value:
            case bool() | str() | None:
                continue
            case int() | float():
                if math.isfinite(value):
                    yield f"{prefix}{name}", float(value)
            case dict() if name not in SETTINGS:
                yield from _figures(value, f"{prefix}{name}/")
            case list():
                for entry in value:
                    if isinstance(entry, dict) and "condition" in entry:
                        rest = {key: item for key, item in entry.items() if key != "seed"}
                        yield from _figures(rest, f"{_arm(entry)}/")
            case _:
                continue


def _arm(entry: Values) -> str:
    parts = [str(entry["condition"]), *([f"s{entry['seed']}"] if "seed" in entry else [])]
    return "-".join(parts) + (f"/{entry['task']}" if "task" in entry else "")


def _said(facts: Values, prefix: str = "epc.fact.") -> Iterator[tuple[str, str]]:
    """Texts and truths among the facts; settings and hashes left out."""
    for name, value in facts.items():
        if name in SETTINGS or name.endswith("sha256"):
            continue
        match value:
            case bool():
                yield f"{prefix}{name}", str(value).lower()
            case str():
                yield f"{prefix}{name}", value[:LONGEST]
            case dict():
                yield from _said(value, f"{prefix}{name}.")
            case _:
                continue


def _curve(file: Path, began: float, ended: float) -> Iterator[Point]:
    """The points of a training's log, spread evenly over the time that it took."""
    if not file.is_file():
        return
    entries = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]
    for number, entry in enumerate(entries, start=1):
        at = began + (ended - began) * number / len(entries)
        yield Point(step=int(entry["step"]), values=figures_of(entry), at=at)


def figures_of(entry: Values) -> dict[str, float]:
    """The figures of a log entry that are a curve; those that are not finite are left out."""
    found = {name: float(entry[name]) for name in CURVE if name in entry}
    return {name: value for name, value in found.items() if math.isfinite(value)}


# The decision ------------------------------------------------------------------------------------


def _decision(bundle: Path, manifest: Manifest) -> Decision | None:
    """The decision on disk, None where there is none of this registration."""
    try:
        found = Decision.model_validate_json((bundle / "report" / "decision.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if found.lock_sha256 == manifest.lock_sha256 else None


def _decided(decision: Decision) -> Iterator[tuple[str, float]]:
    """Statistics of every analysis, means of every arm, gates that are true or false, and the verdict as 0 and 1."""
    for analysis in decision.analyses:
        given: Sequence[tuple[str, float | None]] = [
            *analysis.statistics.items(),
            ("p_adjusted", analysis.p_adjusted),
            ("n_units", float(analysis.n_units)),
        ]
        for name, value in given:
            if value is not None and math.isfinite(value):
                yield f"{analysis.name}/{name}", float(value)
    for arm in decision.arms:
        if arm.mean is not None:
            yield f"{arm.metric}/{arm.condition}", arm.mean
    for gate in decision.gates:
        if isinstance(gate.truth, bool):
            yield f"gate/{gate.name}", float(gate.truth)
    for name in VERDICTS:
        yield f"verdict/{name}", float(decision.verdict.verdict_class == name)
