"""`epc status`: the registration, how far the steps are, looks at the results, and the verdict if there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from epc.compiler.contract.manifest import Manifest
from epc.runtime import bundle as bundles
from epc.runtime import engine, freeze, journal, locking, registration
from epc.runtime.errors import Fault
from epc.runtime.packing import lacking, read_packed
from epc.runtime.progress import read_progress
from epc.runtime.stamp import NO_RESULT
from epc.runtime.step import RUNNING, partial_path, read_record
from epc.runtime.wording import count

if TYPE_CHECKING:
    from rich.text import Text

Line = tuple[str, str]
"""Text and its rich style."""


def status(bundle: Path) -> Text:
    """What `epc status` prints, best with soft_wrap=True: a path cut in two is of no use.

    Raises the Faults of reading manifest and journal; a damaged step is a line, not an error.
    """
    from rich.text import Text

    return Text("\n").join(Text(text, style=style) for text, style in lines(bundle))


def lines(bundle: Path) -> Iterator[Line]:
    """The same line by line, with the style of each."""
    manifest = bundles.read_manifest(bundle)
    entries = journal.read(bundle)
    if manifest.mode == "rehearsal":
        yield NO_RESULT, "bold red"
    yield f"{manifest.id}: {manifest.title}", "bold"
    yield from _registration(bundle, manifest, entries)
    yield from _pending(bundle, manifest)
    yield from _deviations(bundle)
    yield "", ""
    yield from _steps(bundle, entries)
    yield from _looks(manifest, entries)
    yield from _verdict(manifest, entries)


def _registration(bundle: Path, manifest: Manifest, entries: Sequence[journal.Entry]) -> Iterator[Line]:
    lock = manifest.lock_sha256
    yield f"lock        {lock}" + ("" if manifest.mode == "real" else f"  ({manifest.mode})"), ""
    when = [entry.at for entry in entries if registration.lock_of(entry) == lock]
    if when:
        yield f"registered  {when[0]}", ""
    else:
        yield "registered  not yet: epc run registers it", "yellow"
    at = registration.commit_of(bundle, manifest)
    if at is not None:
        yield f"commit      {at.commit}" + ("  (with changes that are not committed)" if at.dirty else ""), ""
    approvals = registration.approvals(bundle, manifest, entries)
    for entry in entries:
        data = entry.data
        if entry in approvals:
            yield (
                f"approved    {entry.at}  up to {data.get('usd', 0):.2f} USD, {data.get('gpu_hours', 0):g} GPU-hours",
                "",
            )
        elif entry.event == "amended":
            yield f"amended     {entry.at}  {data.get('reason')}", ""
            for change in data.get("changes", ()):
                yield f"            {change}", "dim"
        elif entry.event == "frozen":
            for name, sha256 in data.get("items", {}).items():
                yield f"frozen      {entry.at}  {name}  {sha256}", ""
    cost = registration.needs_approval(manifest, bundle)
    if cost is not None:
        yield f"approval    needed: {cost}; epc approve", "yellow"


def _pending(bundle: Path, manifest: Manifest) -> Iterator[Line]:
    for line in freeze.external_lines(bundle, manifest):
        yield f"pending     {line}", "yellow"
    for entry in registration.pending(manifest):
        if entry.kind == "built":
            yield f"pending     {entry.name}: the rows of {entry.file}", "yellow"


def _deviations(bundle: Path) -> Iterator[Line]:
    try:
        found = registration.deviations(bundle)
    except Fault as fault:
        yield f"deviations  not known: {fault.fact}", "red"
        return
    for deviation in found:
        yield f"deviation   {deviation.text}", "yellow"
        if deviation.kind != "amended":  # an amendment's changes are listed with it
            for change in deviation.changes:
                yield f"            {change}", "dim"


def _steps(bundle: Path, entries: Sequence[journal.Entry]) -> Iterator[Line]:
    planned = engine.plan(bundle)
    width = max((len(entry.step.id) for entry in planned), default=0)
    last = {entry.data.get("key"): entry for entry in entries if entry.event in ("started", "finished", "failed")}
    packed = read_packed(bundle)
    done, seconds = 0, 0.0
    for entry in planned:
        step = entry.step
        name = f"{step.id:<{width}}"
        record = read_record(bundle, step) if entry.state == "done" else None
        latest = last.get(step.key)
        if record is not None:
            done, seconds = done + 1, seconds + record.seconds
            without = "  its weights are not in this copy" if any(lacking(packed, step, record, bundle)) else ""
            yield f"finished    {name}  {record.seconds:.1f} s{without}", "green"
        elif _is_running(partial_path(bundle, step) / RUNNING):
            progress = read_progress(bundle, step.id)
            since = "" if latest is None else f"since {latest.at}"
            yield f"running     {name}  {since}  {progress.text() if progress else ''}".rstrip(), "bold"
        elif latest is not None and latest.event == "failed" and latest.data.get("error") != "interrupted":
            yield f"failed      {name}  see {engine.step_log(bundle, step.id)}", "red"
        else:
            yield f"{entry.state:<10}  {name}  {entry.reason}", ""
    yield f"{done} of {len(planned)} steps are finished, {seconds:.1f} s of work", ""


def _is_running(lock: Path) -> bool:
    try:
        locking.check_free(lock)
    except locking.BusyError:
        return True
    return False


def _looks(manifest: Manifest, entries: Sequence[journal.Entry]) -> Iterator[Line]:
    """Planned looks, then each look in the journal that is none of them."""
    looked = [entry for entry in entries if entry.event == "looked"]
    interim = manifest.design.interim
    planned: dict[int, journal.Entry] = {}
    for entry in looked:
        if entry.data.get("look") is not None and entry.data.get("lock_sha256") == manifest.lock_sha256:
            planned.setdefault(entry.data["look"], entry)
    for number, share in enumerate(interim.looks if interim else (), start=1):
        assert interim is not None
        level = f"  p below {interim.levels[number - 1]:.7g}" if interim.levels else ""
        if number == len(interim.looks):
            state, style = "is the decision", ""
        elif number in planned:
            state, style = f"taken {planned[number].at}", "green"
        else:
            state, style = "not taken", ""
        yield f"look        {number} of {len(interim.looks)}  at {share:.4g} of the units{level}  {state}", style
    for entry in looked:
        if entry in planned.values():
            continue
        if entry.data.get("lock_sha256") != manifest.lock_sha256:
            what = "of an earlier lock"
        elif "look" in entry.data:
            what = f"look {entry.data['look']} again"
        else:
            what = f"{count(entry.data.get('open_steps', 0), 'step')} open"
        yield f"looked      {entry.at}  {what}", "yellow"


def _verdict(manifest: Manifest, entries: Sequence[journal.Entry]) -> Iterator[Line]:
    decided = [entry for entry in entries if entry.event == "decided"]
    if not decided:
        return
    data = decided[-1].data
    of = "" if data.get("lock_sha256", manifest.lock_sha256) == manifest.lock_sha256 else "  (of an earlier lock)"
    yield f"verdict     {data.get('verdict')}  decided {decided[-1].at}{of}", "bold"
