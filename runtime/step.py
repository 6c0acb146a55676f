"""What surrounds every emitted script: write aside, rename, then record as finished.

A step whose finish record exists is done, on any engine and by hand. The record is written with
the outputs into `store/<key>.partial`, and one rename makes both appear as `store/<key>`. A crash
leaves the partial folder, which the next try may reuse; nothing half-written is ever read. While a
step runs it holds a lock in its partial folder, so that no second process writes there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import time
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NoReturn, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from epc.compiler.contract.canonical import sha256_file
from epc.compiler.contract.manifest import Manifest
from epc.compiler.contract.manifest import Step as StepPlan
from epc.runtime import bundle as bundles
from epc.runtime import device_faults, devices, journal, locking
from epc.runtime.errors import EXIT_INTERRUPTED, EXIT_STEP_FAILED, Fault
from epc.runtime.lifetime import end_with_engine

RECORD = "finished.json"
RUNNING = ".lock"
"""File in a partial folder that the running step holds locked; it carries the process id."""
RECORDED_LIBRARIES = (
    "torch", "transformers", "trl", "peft", "datasets", "accelerate", "lm-eval", "vllm", "anthropic", "openai", "numpy", "scipy",
)  # fmt: skip


class FinishRecord(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    id: str
    key: str
    kind: str
    mode: str
    recipe: dict[str, Any]
    outputs: dict[str, str]
    """File in the step's folder -> SHA-256."""
    seconds: float
    versions: dict[str, str]
    facts: dict[str, Any]


def partial_path(bundle: Path, plan: StepPlan) -> Path:
    """Where a step writes until it is done."""
    return bundle / "store" / f"{plan.key}.partial"


def record_path(bundle: Path, plan: StepPlan) -> Path:
    return bundles.store(bundle, plan) / RECORD


def read_record(bundle: Path, plan: StepPlan) -> FinishRecord | None:
    """The finish record of a step, None when it has not finished. Raises Fault R0201 when unreadable."""
    file = record_path(bundle, plan)
    try:
        return FinishRecord.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValidationError, UnicodeDecodeError):
        raise Fault(
            "R0201", str(file), f"the finish record of step {plan.id} cannot be read",
            f"delete {file.parent} and run again: only this step is redone",
        ) from None  # fmt: skip


def library_versions() -> dict[str, str]:
    """Versions of the recorded libraries that are imported in this process."""
    versions = {"python": sys.version.split()[0]}
    for name in RECORDED_LIBRARIES:
        module = sys.modules.get(name.replace("-", "_"))
        if module is not None:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:  # a build under another name, such as that of vLLM for processors
                versions[name] = str(module.__version__)
    return versions


class Step:
    """Context of one emitted script.

    >>> with Step("train-reflex-s42", bundle=BUNDLE) as step:
    ...     step.progress(3, 16, loss=1.2)
    ...     step.facts["optimizer_steps"] = 16
    ...     write_into(step.out)

    Entering a step that is already finished exits the process with 0. A Fault ends it with its
    three lines and code 1; the partial folder stays for the next try.
    """

    def __init__(self, step_id: str, *, bundle: Path) -> None:
        self.bundle = bundle
        try:
            self.manifest = bundles.read_manifest(bundle)
            self.plan = self._plan(step_id)
        except Fault as fault:
            _exit_with(fault)
        self.final = bundles.store(bundle, self.plan)
        self.out = partial_path(bundle, self.plan)
        self.facts: dict[str, Any] = {}
        self.closing = contextlib.ExitStack()
        """What is to be done once the step is over, finished or not."""
        self._progress_file = bundle / "logs" / f"{step_id}.progress.json"
        self._began = 0.0
        self._lock: IO[str] | None = None
        self._device: IO[str] | None = None
        """Holds the claim on a GPU that this process made itself."""

    def _plan(self, step_id: str) -> StepPlan:
        try:
            return bundles.step_of(self.manifest, step_id)
        except KeyError:
            raise Fault(
                "R0104", str(self.bundle / "manifest.json"), f"no step {step_id} in this manifest",
                "compile the spec again: script and manifest are of different compilations",
            ) from None  # fmt: skip

    def input(self, step_id: str) -> Path:
        """Folder of a step this one needs. Raises Fault R0202 when it has not finished."""
        plan = bundles.step_of(self.manifest, step_id)
        if read_record(self.bundle, plan) is None:
            raise Fault(
                "R0202", str(bundles.store(self.bundle, plan)), f"step {step_id} has not finished",
                f"run it first: python {plan.script}, or epc run for everything",
            )  # fmt: skip
        return bundles.store(self.bundle, plan)

    def progress(self, done: int, total: int, **facts: float | str) -> None:
        """Publish the live line of this step: done of total, and for example loss or tokens_per_second."""
        state = {"done": done, "total": total, "facts": facts, "seconds": time.monotonic() - self._began}
        aside = self._progress_file.with_suffix(".tmp")
        aside.write_text(json.dumps(state), encoding="utf-8")
        aside.replace(self._progress_file)

    def __enter__(self) -> Self:
        try:
            self._begin()
        except (Fault, OSError, KeyboardInterrupt) as error:
            self._failed(error)
            raise
        return self

    def _begin(self) -> None:
        self._exit_if_finished()
        _require_frozen(self.bundle, self.manifest, self.plan)
        _require_scripted(self.manifest, self.plan)
        for need in self.plan.needs:
            self.input(need)
        end_with_engine()
        if self.plan.resources.gpu:
            self._device = devices.settle(self.plan.resources.gpu_mib)
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = locking.acquire(self.out / RUNNING)
        except locking.BusyError as busy:
            raise Fault(
                "R0705", str(self.out), f"step {self.plan.id} is being run by {busy.owner}",
                "wait until it has finished, or end it; then run again",
            ) from None  # fmt: skip
        self._exit_if_finished()  # by whoever held the lock until now
        if self.final.exists():  # a folder without its record: nothing in it can be trusted
            shutil.rmtree(self.final)
        (self.out / RECORD).unlink(missing_ok=True)
        self._progress_file.parent.mkdir(exist_ok=True)
        self._began = time.monotonic()
        journal.append(self.bundle, "started", step=self.plan.id, key=self.plan.key)

    def _exit_if_finished(self) -> None:
        if read_record(self.bundle, self.plan) is None:
            return
        print(f"{self.plan.id}: already finished ({self.final})")
        if self._lock is not None:
            shutil.rmtree(self.out)
            locking.release(self._lock)
        raise SystemExit(0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self._failed(error)
                return
            try:
                self._finish()
            except (Fault, OSError) as failure:
                self._failed(failure)
                raise
        finally:
            self._progress_file.unlink(missing_ok=True)
            if self._lock is not None:
                locking.release(self._lock)
            if self._device is not None:
                locking.release(self._device)
            self.closing.close()

    def _finish(self) -> None:
        missing = [name for name in self.plan.outputs if not (self.out / name).exists()]
        if missing:
            raise Fault(
                "R0203", str(self.out), f"the step did not write {', '.join(missing)}",
                "this is a bug in the script: report it",
            )  # fmt: skip
        seconds = round(time.monotonic() - self._began, 3)
        outputs = {
            str(file.relative_to(self.out)): sha256_file(file)
            for file in sorted(self.out.rglob("*"))
            if file.is_file() and file != self.out / RUNNING
        }
        record = FinishRecord(
            id=self.plan.id, key=self.plan.key, kind=self.plan.kind, mode=self.manifest.mode, recipe=self.plan.recipe,
            outputs=outputs, seconds=seconds, versions=library_versions(), facts=self.facts,
        )  # fmt: skip
        with (self.out / RECORD).open("w", encoding="utf-8") as handle:
            handle.write(record.model_dump_json(indent=1) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        # Journalled first: a finished step that the journal does not know would be a hole in the
        # record, while one it knows too early is only run, and journalled, again.
        journal.append(
            self.bundle, "finished", step=self.plan.id, kind=self.plan.kind, key=self.plan.key, seconds=seconds,
            mode=self.manifest.mode, lock_sha256=self.manifest.lock_sha256, record=sha256_file(self.out / RECORD),
        )  # fmt: skip
        self.out.rename(self.final)
        (self.final / RUNNING).unlink()
        print(f"{self.plan.id}: finished in {seconds:.1f} s")

    def _failed(self, error: BaseException) -> None:
        """Journal the failure; end with three lines where the cause is outside the program.

        Returns for any other exception, whose traceback then goes into the step's log.
        """
        if isinstance(error, SystemExit) and not error.code:
            return
        if _disk_full(error):
            error = Fault(
                "R0204", str(self.out), "no space left on the disk",
                "free some space and run again: finished steps are kept",
            )  # fmt: skip
        error = device_faults.classified(error, place=self.plan.script) or error
        message = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
        try:
            journal.append(self.bundle, "failed", step=self.plan.id, key=self.plan.key, error=message[:500])
        except (OSError, Fault):
            print("the failure could not be journalled", file=sys.stderr)
        if isinstance(error, Fault):
            _exit_with(error)
        if isinstance(error, KeyboardInterrupt):
            print(f"{self.plan.id}: interrupted; run it again to go on", file=sys.stderr, flush=True)
            raise SystemExit(EXIT_INTERRUPTED)


def _disk_full(error: BaseException) -> bool:
    """Whether a disk or a quota is full: as an OSError, or in the words of a library that writes by itself."""
    full = (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, OSError):
        return error.errno in full
    return any(f"(os error {number})" in str(error) for number in full)  # safetensors, which is in Rust


def _require_frozen(bundle: Path, manifest: Manifest, plan: StepPlan) -> None:
    """Raise Fault R0761 or R0762 for a step that waits for `epc freeze`, by hand as under an engine."""
    from epc.runtime import freeze

    if freeze.awaited(manifest, plan):
        freeze.require_external(bundle, manifest)
        freeze.require_built(bundle, manifest, [plan.id])


def _require_scripted(manifest: Manifest, plan: StepPlan) -> None:
    """Raise Fault R0885 for a judge of a rehearsal that would ask anyone but a server on this machine."""
    from epc.runtime.judging.providers import VARIABLES, setting

    provider = str(plan.recipe.get("provider"))
    if manifest.mode != "rehearsal" or plan.kind != "judge" or provider not in VARIABLES:
        return
    variable = VARIABLES[provider].url
    if urlsplit(setting(variable)).hostname != "127.0.0.1":
        raise Fault(
            "R0885", variable, f"{plan.id} is a rehearsal, and its judge would be asked for money",
            f"epc run --rehearse answers it; by hand, start epc judge serve and set {variable} to its address",
        )  # fmt: skip


def _exit_with(fault: Fault) -> NoReturn:
    print(fault.render(), file=sys.stderr, flush=True)
    raise SystemExit(EXIT_STEP_FAILED)
