"""`epc run`: says what must run and why, has Snakemake run it, and shows what happens.

Snakemake gets paths only. What decides is the key in the path: a step whose finish record lies
under its key is done, so a change and its reversal run nothing again.
"""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Literal

from epc.compiler.contract.manifest import Manifest, Step
from epc.runtime import bundle as bundles
from epc.runtime import devices, freeze, journal, kept, locking, registration
from epc.runtime.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_STEP_FAILED, Fault
from epc.runtime.judging import GOES_ON
from epc.runtime.lifetime import ENGINE_PID, end_with_parent
from epc.runtime.packing import lacking, read_packed
from epc.runtime.preflight import preflight
from epc.runtime.progress import (
    Display,
    Tail,
    clock,
    display,
    progress_path,
    read_progress,
    say,
)
from epc.runtime.step import RECORD, RUNNING, FinishRecord, partial_path, read_record

if TYPE_CHECKING:
    from rich.console import Console

State = Literal["done", "run", "waits"]

TICK = 0.2
"""Seconds between two looks at the journal and the progress files."""
GRACE = 20.0
"""Seconds that interrupted steps have to end by themselves."""
TAIL = 15
"""Lines of a failed step's log that are printed."""
SHOWN_CHANGES = 3
ENGINE_LOG = "engine.log"
PATIENT_THREADS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
"""Threads that wait for one another sleep: on cores shared with other steps spinning ones hold up the thread waited for.

Left alone where either is set, because GOMP_SPINCOUNT stands above OMP_WAIT_POLICY."""
GPU_MIB = "EPC_GPU_MIB"
"""Environment variable: MiB of a whole GPU, for the Snakefile."""
FAILED_RULE = "Error in rule "
"""How Snakemake's log announces a failed job."""


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """A step, whether it must run, and the one reason why."""

    step: Step
    state: State
    """waits: it must run, and so must something it needs; or it may not run yet."""
    reason: str
    frozen_first: tuple[str, ...] = ()
    """Pending names that `epc freeze` must fill in before the step may run."""


def plan(bundle: Path, until: str | None = None) -> list[PlannedStep]:
    """State and reason of every step, in topological order; with `until`, of that step and what it needs.

    Raises Fault R0706 for an unknown step, and those of reading the manifest.
    """
    manifest = bundles.read_manifest(bundle)
    earlier = _other_records(bundle, manifest)
    finished = {entry.data.get("key") for entry in journal.read(bundle) if entry.event == "finished"}
    planned: dict[str, PlannedStep] = {}
    for step in _wanted(manifest, until, bundle):
        waiting = [need for need in step.needs if planned[need].state != "done"]
        planned[step.id] = _held(_planned(bundle, step, waiting, earlier.get(step.id, ()), finished), manifest)
    return list(planned.values())


def run(
    bundle: Path,
    *,
    cores: int | None = None,
    plan_only: bool = False,
    until: str | None = None,
    despite: Sequence[str] = (),
    console: Console,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run what is missing and return the exit code: 0, 1 (a step failed) or 130 (interrupted).

    `environment` are variables that the steps get beside those of this process. `despite` names checks of the preflight
    whose failures stop nothing.
    While built rows are pending, only what prepares them runs. Raises Fault R0701 to R0707, R0711,
    R0761 and R0762 (content is to be frozen first), and those of registration and of the preflight.
    """
    planned = plan(bundle, until)
    if plan_only:
        print_plan(console, planned)
        return EXIT_OK
    manifest = bundles.read_manifest(bundle)
    if importlib.util.find_spec("snakemake") is None:
        raise Fault(
            "R0701", sys.executable, "Snakemake, which runs the steps, is not installed here",
            'pip install "epc-prereg[local]"',
        )  # fmt: skip
    with _disk(bundle), only_run(bundle):
        freeze.require_external(bundle, manifest)
        cost = registration.needs_approval(manifest, bundle)
        if cost is not None:
            for line in registration.cost_lines(manifest):
                say(console, line)
            raise Fault(
                "R0704", str(bundle / "plan.md"), f"this registration needs an approval: {cost}",
                f"epc approve {bundle}, then epc run again",
            )  # fmt: skip
        planned = plan(bundle, until)  # once more: only now is no other run going on
        _refuse_damage(bundle, planned)
        new = registration.register(bundle, manifest)
        if new and manifest.mode == "real":
            say(console, f"registered {manifest.id} as {manifest.lock_sha256[:16]}")
        for deviation in registration.deviations(bundle):
            say(console, f"deviation: {deviation.text}", style="yellow")
            for change in deviation.changes:
                say(console, f"  {change}", style="yellow")
        held = [entry.step.id for entry in planned if entry.frozen_first]
        missing = [entry for entry in planned if entry.state != "done" and not entry.frozen_first]
        _refuse_without_weights(bundle, missing)
        preflight.require(
            bundle, manifest, [entry.step for entry in missing], despite=despite, console=console,
            environment=environment or {},
        )  # fmt: skip
        missing = [entry for entry in missing if read_record(bundle, entry.step) is None]
        if missing:
            code = _execute(bundle, planned, missing, cores, console, environment or {})
            if code != EXIT_OK:
                return code
        elif not held:
            say(console, f"nothing to run: all {len(planned)} steps are finished")
        freeze.require_built(bundle, manifest, held)
        return EXIT_OK


def print_plan(console: Console, planned: Sequence[PlannedStep]) -> None:
    """The table of `epc run --plan`, one line a step."""
    width = max((len(entry.step.id) for entry in planned), default=0)
    for entry in planned:
        style = "dim" if entry.state == "done" else ""
        say(console, f"{entry.state:<5}  {entry.step.id:<{width}}  {entry.reason}", style=style)
    count = sum(entry.state != "done" for entry in planned)
    say(console, f"{count} of {len(planned)} steps must run")
    names = dict.fromkeys(name for entry in planned for name in entry.frozen_first)
    if names:
        say(console, f"epc freeze must fill in first: {', '.join(names)}")


# What must run -------------------------------------------------------------------------------


def _wanted(manifest: Manifest, until: str | None, bundle: Path) -> list[Step]:
    if until is None:
        return list(manifest.steps)
    steps = {step.id: step for step in manifest.steps}
    if until not in steps:
        known = ", ".join(steps)
        raise Fault("R0706", str(bundle / "manifest.json"), f"no step {until} in this manifest", f"steps are: {known}")
    wanted = {until}
    for step in reversed(manifest.steps):
        if step.id in wanted:
            wanted.update(step.needs)
    return [step for step in manifest.steps if step.id in wanted]


def _planned(
    bundle: Path,
    step: Step,
    waiting: Sequence[str],
    earlier: Sequence[FinishRecord],
    finished: Set[object],
) -> PlannedStep:
    try:
        record = read_record(bundle, step)
    except Fault:
        return PlannedStep(step=step, state="run", reason="finish record unreadable")
    if record is not None:
        gone = _gone(bundle, step)
        if gone:
            return PlannedStep(step=step, state="run", reason=f"its output {gone[0]} is gone")
        return PlannedStep(step=step, state="done", reason="finished")
    state: State = "waits" if waiting else "run"
    changed = _what_changed(step, earlier)
    if _has_content(bundles.store(bundle, step)):
        reason = "store folder without its finish record"
    elif step.key in finished:
        reason = "finished once, its store folder is gone"
    elif changed is not None and changed[0]:
        reason = f"{changed[0]} (was key {changed[1]})"
    elif waiting:
        reason = f"needs {', '.join(waiting)}, which must run"
    elif changed is not None:
        reason = f"what it is made from changed (was key {changed[1]})"
    elif partial_path(bundle, step).exists():
        reason = "begun, not finished"
    else:
        reason = "never run"
    return PlannedStep(step=step, state=state, reason=reason)


def _held(entry: PlannedStep, manifest: Manifest) -> PlannedStep:
    """The entry as waiting for `epc freeze`, where it does."""
    names = freeze.awaited(manifest, entry.step) if entry.state != "done" else ()
    if not names:
        return entry
    more = f" and {len(names) - SHOWN_CHANGES} more" if len(names) > SHOWN_CHANGES else ""
    reason = f"waits for epc freeze of {', '.join(names[:SHOWN_CHANGES])}{more}"
    return replace(entry, state="waits", reason=reason, frozen_first=names)


def _what_changed(step: Step, earlier: Sequence[FinishRecord]) -> tuple[str, str] | None:
    """How the recipe differs from the nearest finished one of the same step, and that one's key.

    Content keys in recipes are left out: they stand for changes elsewhere. The text is empty when
    there are no others, the result None when the step never finished under another key.
    """
    best: tuple[list[str], str] | None = None
    for record in earlier:
        found = [
            _told(change) for change in registration.differences(record.recipe, step.recipe) if not change.is_derived
        ]
        if best is None or len(found) < len(best[0]):
            best = (found, record.key)
    if best is None:
        return None
    found, key = best
    more = f" and {len(found) - SHOWN_CHANGES} more" if len(found) > SHOWN_CHANGES else ""
    return ", ".join(found[:SHOWN_CHANGES]) + more, key


def _told(change: registration.Change) -> str:
    if change.before is registration.ABSENT or change.after is registration.ABSENT:
        return f"{change.path} {change.text}"
    return f"{change.path} changed from {' to '.join(change.values)}"


def _other_records(bundle: Path, manifest: Manifest) -> dict[str, list[FinishRecord]]:
    """Readable finish records under keys that this manifest does not have, newest first, by step id."""
    current = {step.key for step in manifest.steps}
    found: dict[str, list[FinishRecord]] = {}
    files = [file for file in (bundle / "store").glob(f"*/{RECORD}") if file.parent.name not in current]
    for file in sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True):
        try:
            record = FinishRecord.model_validate_json(file.read_bytes())
        except ValueError:
            continue  # of another version or damaged: it explains nothing
        found.setdefault(record.id, []).append(record)
    return found


def _gone(bundle: Path, step: Step) -> list[str]:
    """Outputs that are lost; weights that a packed copy left out are not."""
    record, folder = read_record(bundle, step), bundles.store(bundle, step)
    absent = [name for name in step.outputs if not (folder / name).exists() and not kept.is_there(folder / name)]
    if not absent or record is None:
        return absent
    left_out = set(lacking(read_packed(bundle), step, record, bundle))
    return [name for name in absent if name not in left_out]


def _refuse_without_weights(bundle: Path, missing: Sequence[PlannedStep]) -> None:
    """Stop before a step runs that may read weights which a packed copy left out. Raises Fault R0713."""
    packed = read_packed(bundle)
    if packed is None:
        return
    steps = {step.id: step for step in bundles.read_manifest(bundle).steps}
    for entry in missing:
        for need in (steps[name] for name in entry.step.needs):
            record = read_record(bundle, need)
            if record is not None and any(lacking(packed, need, record, bundle)):
                raise Fault(
                    "R0713", str(bundles.store(bundle, need)),
                    f"{entry.step.id} must run and needs {need.id}, whose weights are not in this copy",
                    "compile the spec into another folder and run it there: epc compile SPEC.yaml --out FOLDER",
                )  # fmt: skip


def _has_content(folder: Path) -> bool:
    """Snakemake makes the folders of outputs before a step runs; an empty one says nothing."""
    return folder.is_dir() and any(folder.iterdir())


def _refuse_damage(bundle: Path, planned: Sequence[PlannedStep]) -> None:
    """Stop before anything runs when a finished step is not whole or an unfinished one is still running."""
    for entry in planned:
        step, folder = entry.step, bundles.store(bundle, entry.step)
        if read_record(bundle, step) is None:
            try:
                locking.check_free(partial_path(bundle, step) / RUNNING)
            except locking.BusyError as busy:
                remedy = "wait until it has finished" if busy.pid is None else f"wait, or end it: kill {busy.pid}"
                raise Fault(
                    "R0703",
                    str(partial_path(bundle, step)),
                    f"step {step.id} is still being run by {busy.owner}",
                    remedy,
                ) from None
        elif gone := _gone(bundle, step):
            raise Fault(
                "R0707", str(folder), f"the finished step {step.id} has lost {', '.join(gone)}",
                f"restore it, or delete {folder} and run again: only this step is redone",
            )  # fmt: skip


# Running it ----------------------------------------------------------------------------------


@contextmanager
def only_run(bundle: Path) -> Iterator[None]:
    """Hold the bundle's lock. Raises Fault R0702 when an `epc run` or `epc freeze` has it."""
    file = bundle / ".lock"
    try:
        handle = locking.acquire(file)
    except locking.BusyError as busy:
        raise Fault(
            "R0702", str(file), f"this bundle is already being run by {busy.owner}",
            "wait for it, or stop it with Ctrl-C there; epc status shows how far it is",
        ) from None  # fmt: skip
    try:
        yield
    finally:
        locking.release(handle)


@contextmanager
def _disk(bundle: Path) -> Iterator[None]:
    """Turn a full disk into Fault R0711, whatever was being written."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Fault(
            "R0711", str(error.filename or bundle), "no space left on the disk",
            "free some space and run again: finished steps are kept",
        ) from None  # fmt: skip


def _command(missing: Sequence[PlannedStep], cores: int, gpu_mib: int) -> list[str]:
    command = [
        sys.executable, "-P", "-m", "snakemake", "--snakefile", "Snakefile", "--cores", str(cores),
        # The lock is our own and ends with this process; Snakemake's would outlive a kill.
        "--nolock",
        # Finish records are atomic: one that exists is whole, and nobody but its owner deletes it.
        "--ignore-incomplete", "--keep-incomplete", "--drop-metadata",
        "--keep-going", "--rerun-triggers", "mtime", "--scheduler", "greedy", "--nocolor",
        "--profile", "none", "--workflow-profile", "none",
    ]  # fmt: skip
    if gpu_mib:
        # No more at once than can fit; which device each gets is settled as it starts (runtime.devices).
        command += ["--resources", f"gpu_mib={gpu_mib}"]
    return [*command, "--", *(f"store/{entry.step.key}/{RECORD}" for entry in missing)]


def _execute(
    bundle: Path, planned: Sequence[PlannedStep], missing: Sequence[PlannedStep], cores: int | None, console: Console,
    environment: Mapping[str, str],
) -> int:  # fmt: skip
    logs = bundle / "logs"
    logs.mkdir(exist_ok=True)
    # Snakemake would put a copy left by a killed run in the place of a record that has gone since.
    shutil.rmtree(bundle / ".snakemake" / "backup", ignore_errors=True)
    for entry in planned:
        progress_path(bundle, entry.step.id).unlink(missing_ok=True)
    before = {entry.step.id: _written(step_log(bundle, entry.step.id)) for entry in missing}
    began = time.monotonic()
    cores = cores or _cores()
    say(console, f"{len(missing)} of {len(planned)} steps to run on {cores} cores; logs in {logs}/")
    events = Tail(journal.path(bundle))
    with (logs / ENGINE_LOG).open("w", encoding="utf-8") as log, _signals() as signals:
        log.write(f"epc run: {', '.join(entry.step.id for entry in missing)}\n")
        log.flush()
        largest, gpu_mib = _gpu_memory(missing)
        environment = {**environment, GPU_MIB: str(largest)}
        engine = _start(bundle, _command(missing, cores, gpu_mib), log, environment)
        code = _watch(bundle, engine, planned, missing, before, events, signals, console)
    elapsed = clock(time.monotonic() - began)
    left = [entry for entry in missing if read_record(bundle, entry.step) is None]
    if not left:
        able = [entry for entry in planned if not entry.frozen_first]
        which = "steps" if len(able) == len(planned) else "steps that need not wait"
        say(console, f"all {len(able)} {which} are finished, {len(missing)} of them now, in {elapsed}", style="bold")
        return EXIT_OK
    attempted = [entry for entry in left if _written(step_log(bundle, entry.step.id)) != before[entry.step.id]]
    if signals:
        say(console, f"interrupted after {elapsed}: finished steps are kept; epc run goes on from here", style="bold")
        _report_what_goes_on(bundle, attempted, console)
        return EXIT_INTERRUPTED
    _report_failure(bundle, attempted, [entry for entry in left if entry not in attempted], code, console)
    return EXIT_STEP_FAILED


def _cores() -> int:
    """Cores this process may use, which a container or a batch job can make fewer than the machine has."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpu_memory(missing: Sequence[PlannedStep]) -> tuple[int, int]:
    """(MiB of the roomiest GPU, MiB of all) for the steps to run; (1, 0) where they share the cores and nothing else.

    A GPU that nobody lists, such as one of AMD, is one of 1 MiB: steps that want one take turns.
    """
    if not any(entry.step.resources.gpu for entry in missing):
        return 1, 0
    found = devices.visible()
    if not found:
        return 1, int(_has_gpu() and os.environ.get(devices.VISIBLE) not in ("", "-1"))
    return devices.room(found)


def _has_gpu() -> bool:
    """Whether this machine has a GPU of NVIDIA or AMD; without one, steps that could use one share the cores."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


def _home_takes_a_cache(environment: Mapping[str, str]) -> bool:
    """Snakemake insists on a folder for its cache, which a container without a home does not give it."""
    try:
        folder = Path(environment.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: there is no home at all
        return False
    return os.access(folder, os.W_OK)


def _start(bundle: Path, command: Sequence[str], log: IO[str], more: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Snakemake in a process group of its own, which ends when this process does."""
    environment = os.environ | {
        **more,
        "EPC_PYTHON": sys.executable,
        ENGINE_PID: str(os.getpid()),
        "PYTHONUNBUFFERED": "1",
    }
    if not PATIENT_THREADS.keys() & environment.keys():
        environment |= PATIENT_THREADS
    if not _home_takes_a_cache(environment):
        environment["XDG_CACHE_HOME"] = str(bundle.resolve() / ".snakemake" / "cache")
    return subprocess.Popen(
        command, cwd=bundle, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
        process_group=0, preexec_fn=end_with_parent,
    )  # fmt: skip


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM instead of dying of them."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _watch(
    bundle: Path,
    engine: subprocess.Popen[bytes],
    planned: Sequence[PlannedStep],
    missing: Sequence[PlannedStep],
    before: Mapping[str, int | None],
    events: Tail,
    signals: Sequence[int],
    console: Console,
) -> int:
    """Show what happens until the engine ends; on a signal end it, on a second one at once."""
    done = sum(entry.state == "done" for entry in planned)
    scene = _Scene(bundle=bundle, before=before, total=len(planned), done=done)
    engine_lines = Tail(bundle / "logs" / ENGINE_LOG)
    answered = 0
    deadline = float("inf")
    try:
        with display(console) as screen:
            while True:
                ended = engine.poll() is not None
                scene.update(events.new(), engine_lines.new(), screen)
                if ended:
                    return int(engine.returncode)
                if len(signals) > answered:
                    answered = len(signals)
                    if answered == 1:
                        screen.say("stopping the running steps; press Ctrl-C again to end them at once")
                        deadline = time.monotonic() + GRACE
                        os.killpg(engine.pid, signal.SIGINT)
                    else:
                        deadline = 0.0
                if time.monotonic() > deadline:
                    os.killpg(engine.pid, signal.SIGKILL)
                time.sleep(TICK)
    finally:
        with suppress(ProcessLookupError, PermissionError):  # usually the whole group has ended
            os.killpg(engine.pid, signal.SIGKILL)
        engine.wait()


@dataclass(kw_only=True)
class _Scene:
    """What has happened so far, from the steps' logs, the journal and the engine's log."""

    bundle: Path
    before: Mapping[str, int | None]
    """When the log of each step to run was last written before this run."""
    total: int
    done: int
    running: dict[str, float] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)

    def update(self, events: Sequence[str], engine_lines: Sequence[str], screen: Display) -> None:
        for step_id, written in self.before.items():
            # A script is at work before it journals anything: importing torch takes its time.
            known = step_id in self.running or step_id in self.ended
            if not known and _written(step_log(self.bundle, step_id)) != written:
                self.running[step_id] = time.monotonic()
                screen.began(step_id)
        for line in events:
            event = json.loads(line)
            data = event["data"]
            if data.get("step") not in self.before:
                continue  # of a script run by hand meanwhile, or not about a step
            match event["event"]:
                case "finished":
                    self._end(data["step"], f"finished  {data['step']}  {data['seconds']:.1f} s", "green", screen)
                    self.done += 1
                case "failed" if data.get("error") == "interrupted":
                    self._end(data["step"], f"stopped   {data['step']}", "", screen)
                case "failed":
                    self._end(data["step"], f"failed    {data['step']}", "bold red", screen)
                case _:
                    pass
        for line in engine_lines:
            # A script that dies before it is a step, of a missing import say, journals nothing.
            if (
                line.startswith(FAILED_RULE)
                and (step_id := line.removeprefix(FAILED_RULE).rstrip(":")) not in self.ended
            ):
                self._end(step_id, f"failed    {step_id}", "bold red", screen)
        now = time.monotonic()
        state = {step_id: (now - began, read_progress(self.bundle, step_id)) for step_id, began in self.running.items()}
        screen.show(self.done, self.total, state)

    def _end(self, step_id: str, text: str, style: str, screen: Display) -> None:
        self.running.pop(step_id, None)
        self.ended.add(step_id)
        screen.say(text, style)


# When it did not work ------------------------------------------------------------------------


def step_log(bundle: Path, step_id: str) -> Path:
    """Everything that a step printed, of its latest try."""
    return bundle / "logs" / f"{step_id}.log"


def _written(file: Path) -> int | None:
    """When a file was last written, None when it does not exist."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _report_what_goes_on(bundle: Path, stopped: Sequence[PlannedStep], console: Console) -> None:
    """What stopped judge steps left with their provider."""
    for entry in stopped:
        if entry.step.kind == "judge":
            lines = step_log(bundle, entry.step.id).read_text(encoding="utf-8", errors="replace").splitlines()
            for line in lines:
                if line.startswith(GOES_ON):
                    say(console, f"  {entry.step.id}: {line}")


def _report_failure(
    bundle: Path, failed: Sequence[PlannedStep], unreached: Sequence[PlannedStep], code: int, console: Console
) -> None:
    """Last lines and path of every failed step's log, then what could not run because of it."""
    last = {entry.data.get("key"): entry.event for entry in journal.read(bundle)}
    for entry in failed:
        file = step_log(bundle, entry.step.id)
        say(console, f"\nstep {entry.step.id} failed; the last lines of {file}:", style="bold red")
        _print_tail(file, console)
        if last.get(entry.step.key) == "started":
            say(console, "  it was ended from outside without a word: killed, most often for want of memory")
    if not failed:
        file = bundle / "logs" / ENGINE_LOG
        say(
            console,
            f"\nthe engine ended with code {code} before any step failed; the last lines of {file}:",
            style="bold red",
        )
        _print_tail(file, console)
    if unreached:
        say(console, f"\nnot run: {', '.join(entry.step.id for entry in unreached)}")
    say(console, "finished steps are kept; after the repair, epc run does only what is missing")


def _print_tail(file: Path, console: Console) -> None:
    text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
    # A progress bar rewrites its line with carriage returns: only its last state is of interest.
    lines = [line.rsplit("\r", 1)[-1] for line in text.rstrip().split("\n")]
    for line in lines[-TAIL:]:
        say(console, f"  {line}")
