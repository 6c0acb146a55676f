"""What was registered, when, what changed since, and who allowed the cost.

The registration is the lock: its SHA-256 is the identity, the journal says when it was written
down, `history/<sha256>.lock.yaml` keeps every lock that was ever run. Nothing here blocks a
change; it makes one visible.
"""

from __future__ import annotations

import difflib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from epc.compiler.contract.canonical import KEY_LENGTH, sha256_text
from epc.compiler.contract.decision import Deviation
from epc.compiler.contract.manifest import Manifest
from epc.runtime import bundle as bundles
from epc.runtime import journal
from epc.runtime.errors import Fault
from epc.runtime.step import FinishRecord, read_record

LOCK = "spec.lock.yaml"
RESULT_KINDS = frozenset({"sample", "capability", "measure"})
"""Steps whose outputs tell something about the answer; a model, data or an adapter does not."""
SHOWN = 80
"""Characters of a value that a change line shows."""
LEAD = 20
"""Characters before the first difference of two long values that a change line shows."""
ABSENT: Final = object()
"""Where a value was added or removed."""


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
    journal.append(
        bundle, "registered", lock_sha256=manifest.lock_sha256, spec=manifest.spec, spec_sha256=manifest.spec_sha256,
        mode=manifest.mode,
    )  # fmt: skip
    return True


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
    if not earlier or _covered(entries, earlier[-1], new) is not None:
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
    for entry in journal.read(bundle):
        if entry.event == "approved" and entry.data.get("lock_sha256") == manifest.lock_sha256:
            allowed = entry.data
            if float(allowed.get("usd", 0.0)) >= usd and float(allowed.get("gpu_hours", 0.0)) >= gpu_hours:
                return None
    return " and ".join(reasons)


def _gpu_budget(bundle: Path) -> float:
    """budget.gpu_hours of the lock, 0 where it declares none. `register` tells of a lock that is not whole."""
    import yaml

    try:
        lock = yaml.safe_load((bundle / LOCK).read_bytes())
        return float(lock["budget"]["gpu_hours"])
    except (FileNotFoundError, yaml.YAMLError, KeyError, TypeError, ValueError):
        return 0.0


def deviations(bundle: Path) -> tuple[Deviation, ...]:
    """Everything in which the results at hand differ from what was registered, worst first."""
    manifest = bundles.read_manifest(bundle)
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
        case "amended":
            return str(entry.data.get("new"))
        case _:
            return None


def _keep(bundle: Path, manifest: Manifest) -> None:
    """Verify spec.lock.yaml against the manifest and copy it into history/."""
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
    kept = history_path(bundle, manifest.lock_sha256)
    if _lock_text(bundle, manifest.lock_sha256) is None:
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


def _covered(entries: Sequence[journal.Entry], old: str, new: str) -> list[str] | None:
    """Reasons of the amendments that lead from one lock to the other, None when none do."""
    reasons: dict[str, list[str]] = {old: []}
    for entry in entries:  # amendments are journalled in order, so one pass follows every chain
        if entry.event == "amended" and entry.data.get("old") in reasons:
            reasons.setdefault(str(entry.data["new"]), [*reasons[entry.data["old"]], str(entry.data["reason"])])
    return reasons.get(new)


def _is_result(entry: journal.Entry, manifest: Manifest) -> bool:
    """A finished measurement of this mode: a rehearsal tells nothing about the real answer."""
    return (
        entry.event == "finished"
        and entry.data.get("kind") in RESULT_KINDS
        and entry.data.get("mode", manifest.mode) == manifest.mode
    )


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
            before.append(str(entry.data.get("step")))
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
            under.setdefault(sha, []).append(str(entry.data.get("step")))
    for sha, steps in under.items():
        listed = _changes_between(bundle, sha, manifest.lock_sha256)
        reasons = _covered(entries, sha, manifest.lock_sha256)
        existed = f"results existed under lock {sha[:12]} ({_names(steps)})"
        if reasons is not None:
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
