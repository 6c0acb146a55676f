"""What was registered, when, what changed since, and who allowed the cost.

The registration is the lock: its SHA-256 is the identity, the journal says when it was written
down, `history/<sha256>.lock.yaml` keeps every lock that was ever run. Nothing here blocks a
change; it makes one visible. Writing the hash of frozen content into a spec changes its lock too, and
is no change of the design: such a link is told apart from an amendment by comparing both locks.
"""

from __future__ import annotations

import difflib
import itertools
import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from epc.compiler.contract.canonical import KEY_LENGTH, sha256_text
from epc.compiler.contract.decision import Deviation
from epc.compiler.contract.manifest import FIGURES, MONEY, Manifest, Pending, Step
from epc.runtime import bundle as bundles
from epc.runtime import journal
from epc.runtime.errors import Fault
from epc.runtime.gates import Evaluated
from epc.runtime.step import FinishRecord, read_record

LOCK = "spec.lock.yaml"
ROWS = "rows.jsonl"
"""What a data step writes, and what a frozen data set's hash is of."""
PENDING = "pending"
"""Stands in a spec and its lock for a SHA-256 that is still to be frozen."""
RESULT_KINDS = frozenset({"sample", "capability", "judge", "measure"})
"""Steps whose outputs tell something about the answer; a model, data or an adapter does not."""
SHOWN = 80
"""Characters of a value that a change line shows."""
LEAD = 20
"""Characters before the first difference of two long values that a change line shows."""
ABSENT: Final = object()
"""Where a value was added or removed."""
GIT_SECONDS = 10
"""After which git is taken to be absent: a registration never waits for it."""


@dataclass(frozen=True, kw_only=True)
class Commit:
    """Where version control stood when a lock was registered."""

    commit: str
    """Full hash of HEAD."""
    dirty: bool
    """Whether HEAD holds another spec than the compiled one, or anything beside generated/ was not committed."""


def history_path(bundle: Path, lock_sha256: str) -> Path:
    return bundle / "history" / f"{lock_sha256}.lock.yaml"


def register(bundle: Path, manifest: Manifest) -> bool:
    """Journal this lock as registered, unless it is, and keep a copy. True when it was new.

    Raises Fault R0751 (no lock file), R0752 (lock and manifest disagree), R0401 (journal altered).
    """
    entries = journal.read(bundle)
    _keep(bundle, manifest)
    if any(e.event == "registered" and e.data.get("lock_sha256") == manifest.lock_sha256 for e in entries):
        return False
    more: dict[str, Any] = {}
    if pending(manifest):
        more["pending"] = [entry.model_dump() for entry in pending(manifest)]
    at = _git(bundle, manifest)
    if at is not None:
        more |= {"commit": at.commit, "dirty": at.dirty}
    journal.append(
        bundle, "registered", lock_sha256=manifest.lock_sha256, spec=manifest.spec, spec_sha256=manifest.spec_sha256,
        mode=manifest.mode, **more,
    )  # fmt: skip
    return True


def spec_path(bundle: Path, manifest: Manifest) -> Path | None:
    """The spec that a bundle was compiled from, None when it is not beside generated/."""
    file = bundle.resolve().parent.parent / manifest.spec
    return file if file.is_file() else None


def spec_folder(bundle: Path, manifest: Manifest) -> Path:
    """The folder of the spec, which its files are relative to; it need not be there."""
    return (bundle.resolve().parent.parent / manifest.spec).parent


def commit_of(bundle: Path, manifest: Manifest) -> Commit | None:
    """Where version control stood when this lock was registered, None when it was not under git."""
    for entry in reversed(journal.read(bundle)):
        data = entry.data
        if entry.event == "registered" and data.get("lock_sha256") == manifest.lock_sha256 and "commit" in data:
            return Commit(commit=str(data["commit"]), dirty=bool(data.get("dirty")))
    return None


def _git(bundle: Path, manifest: Manifest) -> Commit | None:
    spec = spec_path(bundle, manifest)
    if spec is None:
        return None
    root, generated = bundle.resolve().parent.parent, bundle.resolve().parent.name

    def git(*arguments: str, folder: Path) -> str | None:
        # Optional locks: another git at work in the same tree must not fail because of this look.
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
        try:
            done = subprocess.run(command, capture_output=True, timeout=GIT_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.decode("utf-8-sig", "replace") if done.returncode == 0 else None

    head = git("rev-parse", "--verify", "HEAD", folder=spec.parent)
    if head is None:
        return None
    committed = git("show", f"HEAD:./{spec.name}", folder=spec.parent)
    changed = git("status", "--porcelain", "--", ".", f":(exclude){generated}", folder=root)
    same = committed is not None and sha256_text(_newlines(committed)) == manifest.spec_sha256
    return Commit(commit=head.strip(), dirty=not same or changed != "")


def _newlines(text: str) -> str:
    """As the compiler reads a text before it hashes it."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def amend(bundle: Path, manifest: Manifest, reason: str) -> tuple[str, ...]:
    """Journal that the registration changed from the lock before to this one, and why. Returns what changed.

    Raises Fault R0753 (no reason), R0754 (nothing to amend), and those of `register`.
    """
    place = str(bundle / LOCK)
    if not reason.strip():
        raise Fault("R0753", place, "an amendment needs a reason", 'say why: epc amend --reason "..."')
    entries = journal.read(bundle)
    new = manifest.lock_sha256
    lineage = [sha for entry in entries if (sha := lock_of(entry)) is not None]
    earlier = [sha for sha in lineage if sha != new]
    if not lineage:
        raise Fault(
            "R0754", place, "nothing has been registered, so there is nothing to amend",
            "epc run registers what is compiled; until then, change the spec freely",
        )  # fmt: skip
    if not earlier or _covered(bundle, entries, earlier[-1], new) is not None:
        raise Fault(
            "R0754", place, "the compiled spec is the registered one: nothing has changed",
            "change the spec, compile it, then amend",
        )  # fmt: skip
    old = earlier[-1]
    _keep(bundle, manifest)
    listed = _changes_between(bundle, old, new)
    journal.append(bundle, "amended", old=old, new=new, reason=reason.strip(), changes=list(listed))
    return listed


def approve(bundle: Path, manifest: Manifest, amount: Mapping[str, float] | None = None) -> journal.Entry:
    """Journal that this lock may cost up to `amount` (gpu_hours, usd); by default what was computed for it."""
    allowed = {name: float((amount or {}).get(name, manifest.figures.get(name, 0.0))) for name in ("gpu_hours", "usd")}
    return journal.append(bundle, "approved", lock_sha256=manifest.lock_sha256, **allowed)


def needs_approval(manifest: Manifest, bundle: Path) -> str | None:
    """Why a run of this lock must be approved first, None when it need not be or has been.

    It must when it costs money, or more GPU-hours than the budget that the spec declares; a budget
    of 0 declares none, since the same plan runs without a GPU.
    """
    figures = manifest.figures
    usd, gpu_hours = figures.get("usd", 0.0), figures.get("gpu_hours", 0.0)
    reasons = []
    if usd > 0:
        reasons.append(f"it costs about {usd:.2f} USD")
    budget = _gpu_budget(bundle)
    if 0 < budget < gpu_hours:
        reasons.append(f"it takes about {gpu_hours:g} GPU-hours, the budget is {budget:g}")
    if not reasons:
        return None
    granted = [
        (float(entry.data.get("usd", 0.0)), float(entry.data.get("gpu_hours", 0.0)))
        for entry in approvals(bundle, manifest, journal.read(bundle))
    ]
    if any(dollars >= usd and hours >= gpu_hours for dollars, hours in granted):
        return None
    less = f"; approved are {granted[-1][0]:.2f} USD and {granted[-1][1]:g} GPU-hours" if granted else ""
    return " and ".join(reasons) + less


def approvals(bundle: Path, manifest: Manifest, entries: Sequence[journal.Entry]) -> list[journal.Entry]:
    """Approvals of this lock, and of those that freezing alone has turned into it."""
    locks = {manifest.lock_sha256}
    for entry in reversed(entries):
        if entry.event == "frozen" and entry.data.get("new") in locks and _only_froze(bundle, entry):
            locks.add(str(entry.data.get("old")))
    return [entry for entry in entries if entry.event == "approved" and entry.data.get("lock_sha256") in locks]


def cost_lines(manifest: Manifest) -> tuple[str, ...]:
    """What a plan comes to, one figure a line with its arithmetic, for the person who approves it."""
    told = {name: value for name, value in manifest.figures.items() if value or name in ("usd", "gpu_hours")}
    labels = {name: FIGURES[name].partition(" (")[0] for name in told}
    shown = {name: f"{value:,.2f}" if name in MONEY else f"{value:,.0f}" for name, value in told.items()}
    width, digits = (max(map(len, texts), default=0) for texts in (labels.values(), shown.values()))
    return tuple(
        f"{labels[name]:<{width}}  {shown[name]:>{digits}}  {manifest.arithmetic.get(name, '')}".rstrip()
        for name in told
    )


def _gpu_budget(bundle: Path) -> float:
    """budget.gpu_hours of the lock, 0 where it declares none. `register` tells of a lock that is not whole."""
    import yaml

    try:
        lock = yaml.safe_load((bundle / LOCK).read_bytes())
        return float(lock["budget"]["gpu_hours"])
    except (FileNotFoundError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return 0.0


def deviations(bundle: Path) -> tuple[Deviation, ...]:
    """Everything in which the results at hand differ from what was registered, worst first; nothing of a rehearsal."""
    manifest = bundles.read_manifest(bundle)
    if manifest.mode == "rehearsal":  # each may be scaled otherwise than the one before
        return ()
    entries = journal.read(bundle)
    records = [record for step in manifest.steps if (record := read_record(bundle, step)) is not None]
    return (
        *_unregistered(manifest, entries, records),
        *_changed_after_results(bundle, manifest, entries),
        *_libraries(records),
    )


def changes(old_lock_text: str, new_lock_text: str) -> tuple[str, ...]:
    """Readable differences of two locks by path, in the order of the new one; content keys only if nothing else differs.

    >>> changes("gates: {dead: {when: a < 1}}", "gates: {dead: {when: a < 2}}")
    ('gates.dead.when: a < 1 -> a < 2',)
    """
    import yaml

    found = list(differences(yaml.safe_load(old_lock_text), yaml.safe_load(new_lock_text)))
    told = [change for change in found if not change.is_derived] or found
    return tuple(f"{change.path}: {change.text}" for change in told)


@dataclass(frozen=True, kw_only=True)
class Change:
    """One place in which two JSON values differ."""

    path: str
    """Such as `train.attack.lora.r` or `verdicts[0].then`."""
    before: Any = ABSENT
    after: Any = ABSENT

    @property
    def is_derived(self) -> bool:
        """A content key changed, which says no more than the change that it stands for."""
        return _is_key(self.before) or _is_key(self.after)

    @property
    def text(self) -> str:
        """`16 -> 32`, `added 32` or `removed (was 16)`."""
        if self.before is ABSENT:
            return f"added {_shown(self.after)}"
        if self.after is ABSENT:
            return f"removed (was {_shown(self.before)})"
        return " -> ".join(self.values)

    @property
    def values(self) -> tuple[str, str]:
        """Both values as text that differs, each on one short line."""
        before, after = _flat(self.before), _flat(self.after)
        if before == after:  # 1 and "1"
            before, after = json.dumps(self.before), json.dumps(self.after)
        start = 0
        if max(len(before), len(after)) > SHOWN:
            shared = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False))
            start = max(0, sum(1 for _ in shared) - LEAD)
        return _cut(before, start), _cut(after, start)


def differences(old: Any, new: Any, path: str = "") -> Iterator[Change]:
    """Where two JSON values differ, in the order of the new one. The elements of lists are aligned first."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*new, *(name for name in old if name not in new)]:
            inner = f"{path}.{name}" if path else str(name)
            if name in old and name in new:
                yield from differences(old[name], new[name], inner)
            else:
                yield Change(path=inner, before=old.get(name, ABSENT), after=new.get(name, ABSENT))
    elif isinstance(old, list) and isinstance(new, list):
        yield from _list_differences(old, new, path)
    elif type(old) is not type(new) or old != new:
        yield Change(path=path, before=old, after=new)


def _list_differences(old: Sequence[Any], new: Sequence[Any], path: str) -> Iterator[Change]:
    """Aligned, so that an element inserted in front does not change all that follow."""
    matcher = difflib.SequenceMatcher(a=[_text(x) for x in old], b=[_text(x) for x in new], autojunk=False)
    for tag, a, a_end, b, b_end in matcher.get_opcodes():
        if tag == "equal":
            continue
        paired = min(a_end - a, b_end - b)
        for offset in range(paired):
            yield from differences(old[a + offset], new[b + offset], f"{path}[{b + offset}]")
        for index in range(b + paired, b_end):
            yield Change(path=f"{path}[{index}]", after=new[index])
        for index in range(a + paired, a_end):
            yield Change(path=f"{path}[{index}]", before=old[index])


def _is_key(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{KEY_LENGTH}}}", value) is not None


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _flat(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return " ".join(text.split()) or '""'


def _cut(text: str, start: int = 0) -> str:
    text = "..." + text[start:] if start else text
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _shown(value: Any) -> str:
    return _cut(_flat(value))


def lock_of(entry: journal.Entry) -> str | None:
    """The lock that an entry puts in force, None for an entry that does not."""
    match entry.event:
        case "registered":
            return str(entry.data.get("lock_sha256"))
        case "amended" | "frozen":
            return str(entry.data.get("new"))
        case _:
            return None


def _keep(bundle: Path, manifest: Manifest) -> None:
    """Verify spec.lock.yaml against the manifest and copy it into history/."""
    _keep_text(bundle, _verified_lock(bundle, manifest))


def _verified_lock(bundle: Path, manifest: Manifest) -> str:
    """Text of spec.lock.yaml. Raises Fault R0751 when it is missing, R0752 when it is not the compiled one."""
    file = bundle / LOCK
    try:
        text = file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise Fault(
            "R0751", str(file), "the bundle has no lock", f"compile it again: epc compile {manifest.spec}"
        ) from None
    except UnicodeDecodeError:
        text = ""
    if sha256_text(text) != manifest.lock_sha256:
        raise Fault(
            "R0752", str(file), "spec.lock.yaml was edited by hand: its hash is not the one the manifest names",
            f"change the spec instead and compile it again: epc compile {manifest.spec}",
        )  # fmt: skip
    return text


def _keep_text(bundle: Path, text: str) -> None:
    kept = history_path(bundle, sha256_text(text))
    if _lock_text(bundle, sha256_text(text)) is None:
        kept.parent.mkdir(exist_ok=True)
        aside = kept.with_suffix(".tmp")
        aside.write_bytes(text.encode("utf-8"))
        aside.replace(kept)


def _lock_text(bundle: Path, lock_sha256: str) -> str | None:
    """A kept lock, None when it is gone or no longer has its own hash."""
    try:
        text = history_path(bundle, lock_sha256).read_bytes().decode("utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return text if sha256_text(text) == lock_sha256 else None


def _changes_between(bundle: Path, old: str, new: str) -> tuple[str, ...]:
    """Changes by way of history/; one line that says so when a lock is no longer there."""
    before, after = _lock_text(bundle, old), _lock_text(bundle, new)
    if after is None:
        file = bundle / LOCK
        text = file.read_bytes().decode("utf-8", "replace") if file.exists() else ""
        after = text if sha256_text(text) == new else None
    for sha, text_or_none in ((old, before), (new, after)):
        if text_or_none is None:
            return (f"history/{sha}.lock.yaml is missing or altered: what changed is not known",)
    assert before is not None
    assert after is not None
    return changes(before, after)


def _covered(bundle: Path, entries: Sequence[journal.Entry], old: str, new: str) -> list[str] | None:
    """Reasons of the amendments that lead from one lock to the other, None when none do.

    Freezing is a link without a reason, so that the list is empty where nothing else happened.
    """
    reasons: dict[str, list[str]] = {old: []}
    for entry in entries:  # both are journalled in order, so one pass follows every chain
        data = entry.data
        if data.get("old") not in reasons or data.get("new") in reasons:
            continue
        if entry.event == "amended":
            reasons[str(data["new"])] = [*reasons[data["old"]], str(data["reason"])]
        elif entry.event == "frozen" and _only_froze(bundle, entry):
            reasons[str(data["new"])] = reasons[data["old"]]
    return reasons.get(new)


# Freezing ------------------------------------------------------------------------------------


def freeze(bundle: Path, manifest: Manifest, lock_text: str, items: Mapping[str, str]) -> None:
    """Journal that `items` (name -> SHA-256) turned the compiled lock into `lock_text`; keep both.

    Called before the spec is changed: where that is interrupted, freezing again finds the entry and
    adds none. Raises Fault R0763 when anything but frozen hashes differs, R0764 when the compiled lock
    is not the one in force, and those of `register`.
    """
    beyond = beyond_freezing(_verified_lock(bundle, manifest), lock_text)
    if beyond:
        raise Fault(
            "R0763", str(bundle / LOCK),
            f"the spec has changed in other ways since it was compiled: {'; '.join(beyond[:3])}"
            + (f" and {len(beyond) - 3} more" if len(beyond) > 3 else ""),
            f"compile it first: epc compile {manifest.spec}, amend it if it was registered, then freeze",
        )  # fmt: skip
    check_in_force(bundle, manifest)
    register(bundle, manifest)
    _keep_text(bundle, lock_text)
    data = {"old": manifest.lock_sha256, "new": sha256_text(lock_text), "items": dict(items)}
    if not any(entry.event == "frozen" and entry.data == data for entry in journal.read(bundle)):
        journal.append(bundle, "frozen", **data)


def check_in_force(bundle: Path, manifest: Manifest) -> None:
    """Raise Fault R0764 when another lock than the compiled one was registered last.

    A lock from which the one in force was frozen is allowed: the freeze was interrupted, or undone.
    """
    entries = journal.read(bundle)
    locks = [sha for entry in entries if (sha := lock_of(entry)) is not None]
    if not locks or manifest.lock_sha256 == locks[-1]:
        return
    again = {"old": manifest.lock_sha256, "new": locks[-1]}
    if any(entry.event == "frozen" and again.items() <= entry.data.items() for entry in entries):
        return
    raise Fault(
        "R0764", str(bundle / LOCK),
        f"the compiled spec is not the registered one: lock {manifest.lock_sha256[:12]}, registered {locks[-1][:12]}",
        'say why it changed: epc amend --reason "...", then freeze',
    )  # fmt: skip


def beyond_freezing(old_lock_text: str, new_lock_text: str) -> tuple[str, ...]:
    """Readable differences of two locks that freezing does not explain.

    It explains `pending` that became a SHA-256, the hash of the prompts that were counted in an
    external file's stead, the entries of that file and of its stand-in, and content keys.
    """
    import yaml

    old, new = yaml.safe_load(old_lock_text), yaml.safe_load(new_lock_text)
    found = [change for change in differences(old, new) if not change.is_derived]
    frozen = {change.path for change in found if change.before == PENDING and _is_sha256(change.after)}
    explained = set(frozen)
    for path in frozen:
        if re.fullmatch(r"data\.[^.]+\.sha256|prompts\.[^.]+\.external\.sha256", path) is None:
            return (f"{path}: is no place for frozen content",)
        section, name, *_ = path.split(".")
        entry = new[section][name]
        files = (entry.get("file"), entry.get("stand_in"), (entry.get("external") or {}).get("file"))
        explained |= {f"files.{file}" for file in files if file}
    hashes = re.compile(r"prompts\.[^.]+\.sha256")  # of the prompts themselves; a union has one too
    left = [
        change
        for change in found
        if change.path not in explained
        and not (frozen and hashes.fullmatch(change.path) and _is_sha256(change.before) and _is_sha256(change.after))
    ]
    return tuple(f"{change.path}: {change.text}" for change in left)


def _is_sha256(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _only_froze(bundle: Path, entry: journal.Entry) -> bool:
    """Whether a `frozen` entry tells the truth: both locks are kept, and nothing else differs between them."""
    old, new = (_lock_text(bundle, str(entry.data.get(end))) for end in ("old", "new"))
    return old is not None and new is not None and not beyond_freezing(old, new)


def _awaited_external(lock_text: str | None) -> bool:
    """Whether a lock waited for files from elsewhere, so that nothing may have run under it."""
    import yaml

    lock = yaml.safe_load(lock_text or "") or {}
    files = [entry.get("external") or {} for entry in lock.get("prompts", {}).values()]
    files += [entry for entry in lock.get("data", {}).values() if "file" in entry]
    return any(entry.get("sha256") == PENDING for entry in files)


def pending(manifest: Manifest) -> tuple[Pending, ...]:
    """Pending content that the plan waits for: not rows that no step builds, since nothing reads them."""
    steps = {step.id for step in manifest.steps}
    return tuple(entry for entry in manifest.pending if entry.kind == "external" or entry.file in steps)


def frozen_gate(
    bundle: Path, manifest: Manifest, records: Mapping[str, FinishRecord | None]
) -> Evaluated | None:  # fmt: skip
    """Whether every data set that was ever pending was frozen before anything was trained on it.

    Its `frozen` entry must hold the hash of the rows that its data step recorded, and precede the first
    `started` of every training that needs them. None when nothing was ever pending.
    """
    entries = journal.read(bundle)
    steps = {step.id: step for step in manifest.steps}
    awaited = {entry.name: _data_step(entry.model_dump()) for entry in pending(manifest)}
    for entry in entries:
        if entry.event == "registered":
            awaited |= {item["name"]: _data_step(item) for item in entry.data.get("pending", ())}
    if not awaited:
        return None
    wrong = [f"{entry.name} is still pending" for entry in pending(manifest)]
    unknown: list[str] = []
    good: list[str] = []
    left = {entry.name for entry in pending(manifest)}
    for name, step_id in awaited.items():
        if name in left or step_id not in steps:  # prompts have no step; a data set may have been amended away
            continue
        record = records[step_id]
        if record is None:
            unknown.append(f"{step_id} has not finished")
            continue
        recorded = record.outputs.get(ROWS)
        frozen = [e.seq for e in entries if e.event == "frozen" and e.data.get("items", {}).get(name) == recorded]
        late = [
            step.id for step in _trainings_on(manifest, step_id) if _started(entries, step.key) < min(frozen, default=0)
        ]
        if not frozen:
            wrong.append(f"{name} was never frozen with the rows that were trained on ({recorded})")
        elif late:
            wrong.append(f"{name} was frozen after {_names(late)} had started")
        else:
            good.append(f"{name} {str(recorded)[:12]}")
    return Evaluated(
        name="epc.frozen", role="validity", built_in=True, truth=False if wrong else None if unknown else True,
        text="what was pending was frozen, and every data set before it was trained on",
        detail="; ".join([*wrong, *unknown]) or ", ".join(good) or "no data set of this design was",
    )  # fmt: skip


def _data_step(entry: Mapping[str, Any]) -> str:
    """Id of the step that writes pending content as rows, empty for prompts."""
    if entry["kind"] == "built":
        return str(entry["file"])
    section, _, name = str(entry["name"]).partition(".")
    return f"data-{name}" if section == "data" else ""


def _trainings_on(manifest: Manifest, step_id: str) -> list[Step]:
    """Trainings that a step's output reaches."""
    reached = {step_id}
    for step in manifest.steps:  # topological order
        if reached & set(step.needs):
            reached.add(step.id)
    return [step for step in manifest.steps if step.kind == "train" and step.id in reached]


def _started(entries: Sequence[journal.Entry], key: str) -> float:
    """Number of the entry with which a step first started, infinite when it has not."""
    return next((e.seq for e in entries if e.event == "started" and e.data.get("key") == key), float("inf"))


def _is_result(entry: journal.Entry, manifest: Manifest) -> bool:
    """A finished measurement of this mode, or results from elsewhere that were read: a rehearsal tells nothing."""
    if entry.event == "decided":
        return bool(entry.data.get("results"))
    return (
        entry.event == "finished"
        and entry.data.get("kind") in RESULT_KINDS
        and entry.data.get("mode", manifest.mode) == manifest.mode
    )


def results_changed(bundle: Path, read: Mapping[str, str]) -> Iterator[Deviation]:
    """Files of results from elsewhere that were others when an earlier decision was made. `read` is name -> SHA-256."""
    before: dict[str, dict[str, str]] = {}
    for entry in journal.read(bundle) if read else ():
        for name, sha256 in (entry.data.get("results") or {}).items() if entry.event == "decided" else ():
            if name in read and sha256 != read[name]:
                before.setdefault(name, {})[str(sha256)] = str(entry.data.get("verdict"))
    for name, found in before.items():
        told = ", ".join(f"{verdict} with SHA-256 {sha256[:12]}" for sha256, verdict in found.items())
        yield Deviation(
            kind="results_changed",
            text=f"results {name} were decided on before with other content: {told}; now they have {read[name][:12]}",
        )


def _step_of(entry: journal.Entry) -> str:
    """Where a result came from."""
    return str(entry.data.get("step")) if entry.event == "finished" else ", ".join(sorted(entry.data["results"]))


def _unregistered(
    manifest: Manifest, entries: Sequence[journal.Entry], records: Sequence[FinishRecord]
) -> Iterator[Deviation]:
    registered: set[str] = set()
    before: list[str] = []
    for entry in entries:
        sha = lock_of(entry)
        if sha is not None:
            registered.add(sha)
        elif _is_result(entry, manifest) and entry.data.get("lock_sha256") not in registered:
            before.append(_step_of(entry))
    if before:
        yield Deviation(
            kind="unregistered",
            text=f"results existed before their spec was registered: {_names(before)}",
        )
    journalled = {entry.data.get("key") for entry in entries if entry.event == "finished"}
    unknown = [record.id for record in records if record.kind in RESULT_KINDS and record.key not in journalled]
    if unknown:
        yield Deviation(kind="unregistered", text=f"results that the journal does not know: {_names(unknown)}")


def _changed_after_results(bundle: Path, manifest: Manifest, entries: Sequence[journal.Entry]) -> Iterator[Deviation]:
    under: dict[str, list[str]] = {}
    for entry in entries:
        sha = entry.data.get("lock_sha256")
        if _is_result(entry, manifest) and isinstance(sha, str) and sha != manifest.lock_sha256:
            under.setdefault(sha, []).append(_step_of(entry))
    for sha, steps in under.items():
        listed = _changes_between(bundle, sha, manifest.lock_sha256)
        reasons = _covered(bundle, entries, sha, manifest.lock_sha256)
        existed = f"results existed under lock {sha[:12]} ({_names(steps)})"
        if reasons == []:  # nothing but hashes was filled in
            if _awaited_external(_lock_text(bundle, sha)):
                text = f"{existed}, before its external files were frozen"
                yield Deviation(kind="spec_changed_after_results", text=text, changes=listed)
        elif reasons is not None:
            text = f"amended after {existed}: {'; '.join(reasons)}"
            yield Deviation(kind="amended", text=text, changes=listed)
        else:
            text = f"the spec changed after {existed}, and no amendment says why"
            yield Deviation(kind="spec_changed_after_results", text=text, changes=listed)


def _libraries(records: Sequence[FinishRecord]) -> Iterator[Deviation]:
    seen: dict[str, dict[str, list[str]]] = {}
    for record in records:
        for library, version in record.versions.items():
            seen.setdefault(library, {}).setdefault(version, []).append(record.id)
    for library in sorted(seen):
        if len(seen[library]) > 1:
            parts = [f"{version} in {_names(ids)}" for version, ids in sorted(seen[library].items())]
            yield Deviation(kind="library_changed", text=f"{library} changed between steps: {', '.join(parts)}")


def _names(ids: Sequence[str]) -> str:
    distinct = list(dict.fromkeys(ids))
    shown = ", ".join(distinct[:3])
    return shown if len(distinct) <= 3 else f"{shown} and {len(distinct) - 3} more"
