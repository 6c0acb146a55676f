"""`epc verify`: from what is stored, compute everything again, and name exactly what is not the same.

Each check reads what others wrote and computes it anew with the code that made it: journal chain, locks, manifest
(compiled again where the spec is beside the bundle), keys and finish records, hashes of outputs and completions,
judgements from the judge's raw replies, measurement rows from completions and judgements, decision.json and the report
byte for byte. Nothing is written, and a difference stops no other check.

What it cannot see: a journal cut at its end together with everything that the lost lines were about, and a forger who
makes every record anew. The hash of the last journal line, kept elsewhere, tells of both; it is printed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from epc.compiler.contract.canonical import content_key, json_lines, sha256_file, sha256_text
from epc.compiler.contract.decision import Decision
from epc.compiler.contract.logic import Predicate
from epc.compiler.contract.manifest import Manifest, Step
from epc.compiler.contract.rows import JudgementRow, MeasurementRow, SampleRow
from epc.compiler.contract.versions import STEP_VERSIONS
from epc.runtime import bundle as bundles
from epc.runtime import journal, kept, measure, registration, report
from epc.runtime.decide import decide, decision_path, decision_text, read
from epc.runtime.errors import Fault
from epc.runtime.interim import path_of as interim_path
from epc.runtime.judging import replies
from epc.runtime.measurements import MEASUREMENTS
from epc.runtime.packing import NAME as PACKED
from epc.runtime.packing import lacking, read_packed
from epc.runtime.step import FinishRecord, read_record, record_path
from epc.runtime.validity import recorded_files
from epc.runtime.wording import count

if TYPE_CHECKING:
    from rich.console import Console

SHOWN: Final = 20
"""Differences of one check that are spelled out."""


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """What the compiler says about the bundle; the runtime does not compile."""

    files: Mapping[str, str] | None
    """Path -> text of every file that the spec compiles to; None where it cannot be compiled to this registration."""
    because: str
    """Why there are none, for a person."""
    parse: Callable[[str], Predicate | None]
    """A predicate as written in a lock."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One line of the table."""

    name: str
    looked_at: str
    """What was compared, with its number; or why nothing was."""
    done: bool = True
    differences: tuple[Fault, ...] = ()


@dataclass(kw_only=True)
class _Found:
    """Differences of one check as they are found."""

    code: str
    remedy: str
    faults: list[Fault] = field(default_factory=list)

    def differs(self, place: str | Path, fact: str) -> None:
        self.faults.append(Fault(self.code, str(place), fact, self.remedy))

    def adopt(self, fault: Fault) -> None:
        """What a reader refused, in its own words."""
        self.faults.append(fault)

    def check(self, name: str, looked_at: str, *, done: bool = True) -> Check:
        return Check(name=name, looked_at=looked_at, done=done, differences=tuple(self.faults))


def verify(bundle: Path, compiled: Compiled, results: Path | None = None) -> list[Check]:
    """Every check in order; `results` is the folder of results from elsewhere, None for that of the spec.

    Raises Fault R01xx where there is no bundle to verify.
    """
    manifest = bundles.read_manifest(bundle)
    checked, entries = _journal(bundle)
    records: dict[str, FinishRecord | None] = {}
    checks = [
        checked,
        _locks(bundle, manifest, entries),
        _manifest(bundle, manifest, compiled),
        _records(bundle, manifest, entries, records),
        _outputs(bundle, manifest, records),
    ]
    done = [step for step in manifest.steps if records.get(step.id) is not None]
    checks += [
        _judgements(bundle, [step for step in done if step.kind == "judge"]),
        _rows(bundle, manifest, done),
    ]
    decision, checked = _decision(bundle, manifest, entries, results)
    return [*checks, checked, _report(bundle, decision, results)]


def print_checks(console: Console, checks: Sequence[Check]) -> None:
    """The table, then every difference as an error with its place."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("", "checked", "against"):
        table.add_column(column)
    for check in checks:
        if check.differences:
            word, style = f"{len(check.differences)} DIFFER", "red"
        else:
            word, style = ("same", "green") if check.done else ("-", "dim")
        table.add_row(Text(word, style=style), check.name, Text(check.looked_at))
    console.print(table)
    for check in checks:
        for fault in check.differences[:SHOWN]:
            told = f"error[{fault.code}]: {fault.fact}\n  --> {fault.place}"
            console.print(told, highlight=False, markup=False, soft_wrap=True)
        if len(check.differences) > SHOWN:
            console.print(f"and {len(check.differences) - SHOWN} more in {check.name}", highlight=False)
        for remedy in dict.fromkeys(fault.remedy for fault in check.differences):
            console.print(f"  = help: {remedy}", highlight=False, markup=False, soft_wrap=True)
    differing = sum(len(check.differences) for check in checks)
    console.print(f"{count(differing, 'difference')}" if differing else "everything that is stored is as recorded")


# ------------------------------------------------------------------- registration


def _journal(bundle: Path) -> tuple[Check, list[journal.Entry] | None]:
    found = _Found(code="R0540", remedy=journal.REMEDY)
    try:
        entries = journal.read(bundle)
    except Fault as fault:
        found.adopt(fault)
        return found.check("journal", "the chain of its lines"), None
    if interim_path(bundle).exists() and not any(entry.event == "looked" for entry in entries):
        found.differs(journal.path(bundle), "no line says that anybody looked, and an interim report exists")
    if (bundle / PACKED).exists():
        lines = [entry.data.get("sha256") for entry in entries if entry.event == "packed"]
        if lines[-1:] != [sha256_file(bundle / PACKED)]:
            found.differs(bundle / PACKED, "this is not the list of left out files that the journal says was packed")
    if not entries:
        return found.check("journal", "nothing has been run or registered", done=False), entries
    return found.check("journal", f"{count(len(entries), 'line')}, the last is {entries[-1].hash[:16]}"), entries


def _locks(bundle: Path, manifest: Manifest, entries: Sequence[journal.Entry] | None) -> Check:
    """The lock's hash is the manifest's and the registered one; every kept lock has the hash in its name."""
    found = _Found(
        code="R0541", remedy="restore the registered lock and compile its spec, or say why it changed: epc amend"
    )
    file = bundle / registration.LOCK
    kept = {path.name.split(".")[0]: path for path in sorted((bundle / "history").glob("*.lock.yaml"))}
    for sha, path in kept.items():
        if sha256_file(path) != sha:
            found.differs(path, "this kept lock was altered: it no longer has the hash in its name")
    locks = [lock for entry in entries or () if (lock := registration.lock_of(entry)) is not None]
    in_force = locks[-1] if locks else manifest.lock_sha256
    try:
        text = file.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        found.differs(file, f"the lock is missing; registered is {in_force[:16]}")
        return found.check("lock", "the lock of the registration")
    now = sha256_text(text)
    if now != in_force:
        registered = kept[in_force].read_text(encoding="utf-8") if in_force in kept else None
        changes = registration.changes(registered, text) if registered is not None else ()
        for change in changes or (f"it has hash {now[:16]}",):
            found.differs(file, f"not as registered ({in_force[:16]}): {change}")
    if now != manifest.lock_sha256:
        found.differs(bundle / "manifest.json", f"it names lock {manifest.lock_sha256[:16]}, the lock has {now[:16]}")
    if not locks:
        return found.check("lock", "against the manifest; nothing is registered yet")
    return found.check("lock", f"{now[:16]} as registered, {count(len(kept), 'kept lock')}")


def _manifest(bundle: Path, manifest: Manifest, compiled: Compiled) -> Check:
    """The bundle is what its spec compiles to; without the spec, gates and analyses are those of the lock."""
    found = _Found(code="R0542", remedy=f"compile the registered spec again: epc compile {manifest.spec}")
    _against_lock(bundle, manifest, compiled, found)
    packed = read_packed(bundle)
    if packed is not None:
        for path, sha256 in sorted(packed.compiled.items()):
            if not (bundle / path).is_file() or sha256_file(bundle / path) != sha256:
                found.differs(bundle / path, "this compiled file is not the one that was packed")
    if compiled.files is None:
        return found.check("manifest", f"gates, analyses and verdicts against the lock only: {compiled.because}")
    older = 0
    for path, text in sorted(compiled.files.items()):
        stored = bundle / path
        if not stored.is_file():
            found.differs(stored, "this compiled file is missing")
        elif packed is not None and _is_emitted(path) and stored.read_bytes() != text.encode("utf-8"):
            older += 1
        elif stored.read_bytes() != text.encode("utf-8"):
            for change in _how(path, text, stored.read_text(encoding="utf-8", errors="replace")):
                found.differs(stored, change)
    told = f"{count(len(compiled.files) - older, 'file')} against what {manifest.spec} compiles to"
    if older:
        told += f"; {count(older, 'script')} and pages as packed, which this epc writes otherwise"
    return found.check("manifest", told)


def _is_emitted(path: str) -> bool:
    """Scripts and pages, which change with epc; what they are made from is in manifest, lock and inputs."""
    return path in ("Snakefile", "plan.md") or path.startswith("steps/")


def _how(path: str, compiled: str, stored: str) -> Iterator[str]:
    """Where a file differs from the compiled one: by path in JSON, else the first line. A gate by its name."""
    if path == "manifest.json":
        old, new = json.loads(compiled), json.loads(stored)
        yield from _named_gates(old, new)
        left = [
            change
            for change in registration.differences(old, new)
            if not change.path.startswith("design.gates") and change.path != "lock_sha256"
        ]
        yield from (f"not as compiled: {change.path}: {change.text}" for change in left[:SHOWN])
        return
    pairs = zip((*compiled.splitlines(), ""), (*stored.splitlines(), ""), strict=False)
    number, (was, now) = next((n, pair) for n, pair in enumerate(pairs, start=1) if pair[0] != pair[1])
    yield f"line {number} is not as compiled: {was.strip()!r} -> {now.strip()!r}"


def _named_gates(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    gates = [{gate["name"]: gate for gate in found["design"]["gates"]} for found in (old, new)]
    for name in dict.fromkeys([*gates[0], *gates[1]]):
        if name not in gates[1]:
            yield f"gate {name} is gone; registered is `{gates[0][name]['text']}`"
        elif name not in gates[0]:
            yield f"gate {name} was added: `{gates[1][name]['text']}`"
        else:
            for change in registration.differences(gates[0][name], gates[1][name]):
                yield f"gate {name} is not as registered: {change.path}: {change.text}"
    if list(gates[0]) != list(gates[1]) and gates[0].keys() == gates[1].keys():
        yield "the gates are in another order than registered"


def _against_lock(bundle: Path, manifest: Manifest, compiled: Compiled, found: _Found) -> None:
    """Every gate's role and predicate, every analysis and every verdict, as the lock has them."""
    import yaml

    place = bundle / "manifest.json"
    try:
        lock = yaml.safe_load((bundle / registration.LOCK).read_text(encoding="utf-8"))
        gates, analyses, verdicts = dict(lock["gates"]), dict(lock["analyses"]), list(lock["verdicts"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError):
        found.differs(bundle / registration.LOCK, "the lock has no gates, analyses and verdicts that can be read")
        return
    for gate in manifest.design.gates:
        registered = gates.pop(gate.name, None)
        if registered is None:
            found.differs(place, f"gate {gate.name} is not in the lock: `{gate.text}`")
        elif (registered["role"], compiled.parse(registered["predicate"])) != (gate.role, gate.predicate):
            was, now = (
                f"{role} `{text}`"
                for role, text in ((registered["role"], registered["predicate"]), (gate.role, gate.text))
            )
            same = " (its text is the registered one, what is evaluated is not)" if was == now else ""
            found.differs(place, f"gate {gate.name} is not as registered: registered {was}, found {now}{same}")
    for name, registered in gates.items():
        found.differs(place, f"gate {name} is gone; registered is `{registered['predicate']}`")
    for analysis in manifest.design.analyses:
        registered = analyses.pop(analysis.name, None)
        if registered is None:
            found.differs(place, f"analysis {analysis.name} is not in the lock")
            continue
        for key in ("metric", "method", "p", "side", "alpha", "resamples", "seed", "interval"):
            if registered.get(key) != getattr(analysis, key):
                found.differs(
                    place,
                    f"analysis {analysis.name} is not as registered: {key}: {registered.get(key)} ->"
                    f" {getattr(analysis, key)}",
                )
    for name in analyses:
        found.differs(place, f"analysis {name} is gone")
    labels = [rule.get("then") or rule.get("otherwise") for rule in verdicts]
    if labels != [rule.label for rule in manifest.design.verdicts]:
        found.differs(place, f"the verdicts are not as registered: {', '.join(map(str, labels))}")


# ------------------------------------------------------------------------ steps


def _records(
    bundle: Path, manifest: Manifest, entries: Sequence[journal.Entry] | None, records: dict[str, FinishRecord | None]
) -> Check:
    """Keys follow from recipes, finish records are of these keys and recipes, and the journal knows them. Fills `records`."""
    found = _Found(code="R0543", remedy="delete the step's folder and run again: only this step is redone")
    keys = {step.id: step.key for step in manifest.steps}
    journalled = {
        str(entry.data.get("key")): entry.data for entry in entries or () if entry.event == "finished"
    }  # fmt: skip
    for step in manifest.steps:
        recipe = {
            "kind": step.kind, "version": STEP_VERSIONS[step.kind], "mode": manifest.mode, "recipe": step.recipe,
            "inputs": [keys[need] for need in step.needs],
        }  # fmt: skip
        if content_key(recipe) != step.key:
            found.differs(
                bundle / "manifest.json", f"step {step.id}: key {step.key} is not that of its recipe and inputs"
            )
        file = record_path(bundle, step)
        try:
            record = records[step.id] = read_record(bundle, step)
        except Fault as fault:
            found.adopt(fault)
            continue
        if record is None:
            continue
        if (record.id, record.key, record.kind, record.mode) != (step.id, step.key, step.kind, manifest.mode):
            found.differs(file, f"this is the record of {record.id} ({record.kind}, {record.mode}), key {record.key}")
        for change in registration.differences(step.recipe, record.recipe):
            found.differs(file, f"step {step.id} ran another recipe: {change.path}: {change.text}")
        absent = [name for name in step.outputs if name not in record.outputs]
        if absent:
            found.differs(file, f"it records no {', '.join(absent)}")
        if entries is not None and step.key not in journalled:
            found.differs(journal.path(bundle), f"no line says that {step.id} finished, and its record exists")
        elif entries is not None and journalled[step.key].get("record", sha256_file(file)) != sha256_file(file):
            found.differs(file, f"the finish record of {step.id} was altered after it was journalled")
    for step in manifest.steps:
        if entries is not None and step.key in journalled and not record_path(bundle, step).exists():
            found.differs(bundles.store(bundle, step), f"step {step.id} finished once, and its record is gone")
    done = sum(record is not None for record in records.values())
    return found.check("finish records", f"{done} of {count(len(manifest.steps), 'step')}")


def _outputs(bundle: Path, manifest: Manifest, records: Mapping[str, FinishRecord | None]) -> Check:
    """Every recorded file, and every piece of completions, has its hash; large ones too."""
    packed = read_packed(bundle)
    left_out = 0
    found = _Found(
        code="R0544", remedy="restore the file, or delete the step's folder and run again; its results are then others"
    )
    hashed = 0
    for step in manifest.steps:
        record = records.get(step.id)
        absent = set(lacking(packed, step, record, bundle)) if record is not None else set()
        left_out += len(absent)
        for label, file, expected in recorded_files(bundle, step, record) if record is not None else ():
            if label.removeprefix(f"{step.id}/") in absent:
                continue
            hashed += 1
            try:
                actual = kept.sha256(file)
            except FileNotFoundError:
                found.differs(file, f"{label} is missing")
                continue
            except OSError as error:
                found.differs(file, f"{label} cannot be read: {error.strerror}")
                continue
            if actual != expected:
                found.differs(file, f"{label} was altered: recorded {expected[:16]}, found {actual[:16]}")
        if record is not None and step.pieces:
            _pieces(bundle, step, found)
    told = (
        f"; not checked: {count(left_out, 'file')} of model and adapters, which are not in this copy"
        if left_out
        else ""
    )
    return found.check("outputs and completions", f"{count(hashed, 'file')} against their SHA-256{told}")


def _pieces(bundle: Path, step: Step, found: _Found) -> None:
    """The index lists the registered pieces, and each row says the prompt that its hash is of."""
    index = bundles.store(bundle, step) / "index.json"
    try:
        listed = {entry["key"] for entry in json.loads(index.read_text(encoding="utf-8"))}
    except (OSError, ValueError, KeyError, TypeError):
        return  # it is named above, by its hash
    for piece in step.pieces:
        label = f"{piece.condition}, seed {piece.seed}, {piece.set}"
        if piece.key not in listed:
            found.differs(index, f"the index does not list the completions of {label}")
            continue
        file = bundles.piece(bundle, piece.key)
        for number, row in enumerate(_read(file, SampleRow, found), start=1):
            if row is not None and sha256_text(row.prompt) != row.prompt_sha256:
                found.differs(f"{file}:{number}", f"the prompt of this completion ({label}, {row.item}) was altered")


def _read(file: Path, kind: type[Any], found: _Found) -> Iterator[Any]:
    """Rows of a file in order, None for a line that is none; a missing file is named elsewhere."""
    try:
        lines = json_lines(kept.read_text(file))
    except (OSError, UnicodeDecodeError):
        return
    for number, line in enumerate(lines, start=1):
        try:
            yield kind.model_validate_json(line)
        except ValidationError as error:
            found.differs(f"{file}:{number}", f"this line cannot be read: {error.errors()[0]['msg']}")
            yield None


GOES_BY: Final = ("rubric_sha256", "function_sha256", "patterns_sha256")
"""Hashes of what a judge goes by, of which its recipe has one."""


def _judgements(bundle: Path, steps: Sequence[Step]) -> Check:
    """Every score is what the judge's raw reply says, read as it was read then."""
    found = _Found(
        code="R0545", remedy="delete the judge step's folder and run again: kept replies are not asked for again"
    )
    read = 0
    for step in steps:
        file = bundles.store(bundle, step) / "judgements.jsonl"
        output = step.recipe.get("output", {})
        rubric = next((step.recipe[name] for name in GOES_BY if name in step.recipe), None)
        for number, row in enumerate(_read(file, JudgementRow, found), start=1):
            if row is None:
                continue
            read += 1
            place = f"{file}:{number}"
            if row.rubric_sha256 != rubric:
                found.differs(place, f"judged by rubric {row.rubric_sha256[:16]}, registered is {str(rubric)[:16]}")
            if row.outcome in ("scored", "out_of_range"):
                answer = replies.Answer(text=row.raw, stop="end", input_tokens=0, output_tokens=0)
                typed = replies.read(answer, output)
                if (typed.outcome, typed.fields) != (row.outcome, row.fields):
                    found.differs(
                        place,
                        f"recorded {row.outcome} {json.dumps(row.fields)}, the reply says {typed.outcome}"
                        f" {json.dumps(typed.fields)}",
                    )
            elif row.fields:
                found.differs(place, f"{row.outcome} has no fields, but {json.dumps(row.fields)} are recorded")
    if not steps:
        return Check(name="judgements", looked_at="no judge has finished", done=False)
    return found.check("judgements", f"{count(read, 'judgement')} against the judge's raw replies")


def _rows(bundle: Path, manifest: Manifest, done: Sequence[Step]) -> Check:
    """Measurement rows, and judgements by patterns, made again from completions, judgements and items."""
    found = _Found(code="R0546", remedy="delete the folder of the measure step, then run it again: epc run")
    measured = next((step for step in done if step.kind == "measure"), None)
    if measured is None:
        return Check(name="measurement rows", looked_at="nothing was measured", done=False)
    folder = bundles.store(bundle, measured)
    needs = [step for step in done if step.id in measured.needs]
    try:
        judgements, rows = _measured(bundle, manifest, measured, needs)
    except Fault as fault:
        found.adopt(fault)
        return found.check("measurement rows", "could not be made again")
    _compare(folder / MEASUREMENTS, [row.model_dump(mode="json") for row in rows], MeasurementRow, found)
    _compare(folder / "judgements.jsonl", [row.model_dump(mode="json") for row in judgements], JudgementRow, found)
    return found.check("measurement rows", f"{count(len(rows), 'row')} made again from completions and judgements")


def _measured(
    bundle: Path, manifest: Manifest, measured: Step, needs: Sequence[Step]
) -> tuple[list[JudgementRow], list[MeasurementRow]]:
    """What the measure step writes."""
    folders = {
        kind: [bundles.store(bundle, step) for step in needs if step.kind == kind]
        for kind in ("sample", "capability", "judge")
    }
    samples = [row for folder in folders["sample"] for row in measure.sample_rows(bundle, folder)]
    items = [row for folder in folders["capability"] for row in measure.item_rows(folder)]
    replied = [row for folder in folders["judge"] for row in measure.judgement_rows(folder)]
    arms = [(str(name), int(seed), str(key)) for name, seed, key in measured.recipe["arms"]]
    judgements: list[JudgementRow] = []
    rows: list[MeasurementRow] = []
    for metric in measured.recipe["metrics"]:
        match metric["kind"]:
            case "pattern":
                judged = measure.judge_by_pattern(samples, bundles.with_input(bundle, metric), arms=arms, bundle=bundle)
                judgements += judged
                rows += measure.by_prompt(judged, metric["name"], scores=metric.get("scores", False))
            case "judge":
                rows += measure.by_judge(samples, replied, metric, arms=arms)
            case _:
                rows += measure.by_item(items, metric, arms=arms, mode=manifest.mode)
    return judgements, rows


def _compare(file: Path, expected: Sequence[Mapping[str, Any]], kind: type[Any], found: _Found) -> None:
    """Stored rows against rows made again, matched by what they are of: a line too many or too few shifts no others."""
    stored: dict[str, tuple[int, Mapping[str, Any]]] = {}
    for number, row in enumerate(_read(file, kind, found), start=1):
        if row is not None:
            data = row.model_dump(mode="json")
            identity = _identity(data)
            if identity in stored:
                found.differs(f"{file}:{number}", f"a second row of {identity}, which line {stored[identity][0]} has")
            stored.setdefault(identity, (number, data))
    for again in expected:
        identity = _identity(again)
        if identity not in stored:
            found.differs(file, f"the row of {identity} is missing")
            continue
        number, data = stored.pop(identity)
        if changes := list(registration.differences(again, data)):
            told = [
                f"{change.path} is {_value(change.after)}, measured again {_value(change.before)}" for change in changes
            ]
            found.differs(f"{file}:{number}", f"{identity}: {'; '.join(told)}")
    for identity, (number, _) in stored.items():
        found.differs(f"{file}:{number}", f"a row of {identity}, which nothing measures")


def _identity(row: Mapping[str, Any]) -> str:
    """Names a measurement row or a judgement for a person."""
    if "metric" in row:
        parts = [row["metric"], row["condition"], f"seed {row['seed']}", row["unit"]]
        return " / ".join(parts if row.get("slice") == "all" else [*parts, str(row.get("slice"))])
    return " / ".join(
        [row["judge"], row["condition"], f"seed {row['seed']}", row["set"], row["item"], f"sample {row['index']}"]
    )


def _value(value: Any) -> str:
    return "absent" if value is registration.ABSENT else json.dumps(value, ensure_ascii=False)


# --------------------------------------------------------------------- decision


def _decision(
    bundle: Path, manifest: Manifest, entries: Sequence[journal.Entry] | None, results: Path | None
) -> tuple[Decision | None, Check]:
    """decision.json byte for byte; the decision as computed now, None where there is none to compare."""
    found = _Found(code="R0548", remedy="decide again, and keep both files: epc decide")
    file = decision_path(bundle)
    if not file.exists():
        if any(entry.event == "decided" for entry in entries or ()):
            found.differs(file, "the journal says that it was decided, and the decision is gone")
        return None, found.check("decision", "nothing has been decided yet", done=False)
    if entries is None:
        return None, Check(name="decision", looked_at="not computed: it rests on the journal", done=False)
    try:
        again = decide(bundle, deviations=registration.deviations(bundle), results=results)
    except Fault as fault:
        found.adopt(fault)
        return None, found.check("decision", "could not be computed again")
    text, stored = decision_text(again), file.read_text(encoding="utf-8", errors="replace")
    decided = [entry for entry in entries if entry.event == "decided"]
    lock = _lock_of(stored)
    if lock is not None and lock != manifest.lock_sha256:
        found.differs(file, f"it is of registration {lock[:16]}, the bundle is now {manifest.lock_sha256[:16]}")
        return None, found.check("decision", "not compared: it is of another registration")
    if not decided:
        found.differs(journal.path(bundle), "no line says that anything was decided, and a decision exists")
    labels = decided[-1].data.get("labels") or {} if decided else {}
    for audit in again.audits:
        if labels.get(audit.judge, audit.sha256) != audit.sha256:
            found.differs(
                file,
                f"the human labels for {audit.judge} ({audit.file}) are not those of the last decision:"
                f" {str(labels[audit.judge])[:16]} then, {str(audit.sha256)[:16]} now",
            )
    if stored != text:
        try:
            changes = list(registration.differences(json.loads(text), json.loads(stored)))
        except ValueError:
            changes = []
            found.differs(file, "this is not JSON")
        for change in changes[:SHOWN]:
            found.differs(file, f"{change.path}: computed {_value(change.before)}, found {_value(change.after)}"[:400])
        if len(changes) > SHOWN:
            found.differs(file, f"and {len(changes) - SHOWN} more places")
        if not changes and not found.faults:
            found.differs(file, "the same content in other bytes")
    if decided and decided[-1].data.get("rows_sha256") != again.rows_sha256:
        found.differs(
            f"{journal.path(bundle)}:{decided[-1].seq + 1}",
            f"the rows are not those of the last decision: {str(decided[-1].data.get('rows_sha256'))[:16]} then,"
            f" {again.rows_sha256[:16]} now",
        )
    return again, found.check("decision", f"{again.verdict.label}, computed again and compared byte for byte")


def _lock_of(text: str) -> str | None:
    """The registration that a stored decision names."""
    try:
        return str(json.loads(text)["lock_sha256"])
    except (ValueError, KeyError, TypeError):
        return None


def _report(bundle: Path, decision: Decision | None, results: Path | None) -> Check:
    """report.md and report.html as they come of the decision: every figure in them is one of its numbers."""
    found = _Found(code="R0549", remedy="write it again: epc decide")
    folder = bundle / "report"
    stored = {name: folder / name for name in ("report.md", "report.html") if (folder / name).exists()}
    if decision is None or not stored:
        return Check(name="report", looked_at="there is none to compare", done=False)
    try:
        again = report.rendered(bundle, decision, read(bundle, results=results))
    except Fault as fault:
        found.adopt(fault)
        return found.check("report", "could not be written again")
    for name, text in (("report.md", again.md), ("report.html", again.html)):
        if name not in stored:
            found.differs(folder / name, "this half of the report is missing")
        elif stored[name].read_bytes() != text.encode("utf-8"):
            was, now = text.splitlines(), stored[name].read_text(encoding="utf-8", errors="replace").splitlines()
            pairs = enumerate(zip((*was, ""), (*now, ""), strict=False), start=1)
            number, (one, other) = next(((n, pair) for n, pair in pairs if pair[0] != pair[1]), (0, ("", "")))
            found.differs(
                f"{stored[name]}:{number}",
                f"not what the stored results give: {other.strip()[:120]!r}, computed {one.strip()[:120]!r}",
            )
    return found.check("report", f"{count(len(stored), 'file')} written again from the decision")
