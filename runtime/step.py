"""What surrounds every emitted script: write aside, rename, then record as finished.

A step whose finish record exists is done, on any engine and by hand. A crash leaves
`store/<key>.partial`, which the next try may reuse; nothing half-written is ever read.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from epc.compiler.contract.canonical import sha256_file
from epc.compiler.contract.manifest import Step as StepPlan
from epc.runtime import bundle as bundles
from epc.runtime import journal
from epc.runtime.errors import EXIT_STEP_FAILED, Fault

RECORD = "finished.json"
RECORDED_LIBRARIES = (
    "torch", "transformers", "trl", "peft", "datasets", "accelerate", "lm-eval", "vllm", "anthropic", "numpy", "scipy",
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
        if name.replace("-", "_") in sys.modules:
            versions[name] = metadata.version(name)
    return versions


class Step:
    """Context of one emitted script.

    >>> with Step("train-reflex-s42", bundle=BUNDLE) as step:
    ...     step.progress(3, 16, loss=1.2)
    ...     step.facts["optimizer_steps"] = 16
    ...     write_into(step.out)

    Entering a step that is already finished exits the process with 0. A Fault inside ends it with
    its three lines and code 1; the partial folder stays for the next try.
    """

    def __init__(self, step_id: str, *, bundle: Path) -> None:
        self.bundle = bundle
        self.manifest = bundles.read_manifest(bundle)
        try:
            self.plan = bundles.step_of(self.manifest, step_id)
        except KeyError:
            raise Fault(
                "R0104", str(bundle / "manifest.json"), f"no step {step_id} in this manifest",
                "compile the spec again: script and manifest are of different compilations",
            ) from None  # fmt: skip
        self.final = bundles.store(bundle, self.plan)
        self.out = self.final.with_name(self.plan.key + ".partial")
        self.facts: dict[str, Any] = {}
        self._progress_file = bundle / "logs" / f"{step_id}.progress.json"
        self._began = 0.0

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
        if read_record(self.bundle, self.plan) is not None:
            print(f"{self.plan.id}: already finished ({self.final})")
            raise SystemExit(0)
        for need in self.plan.needs:
            self.input(need)
        if self.final.exists():  # outputs were renamed but the record was never written
            shutil.rmtree(self.final)
        self.out.mkdir(parents=True, exist_ok=True)
        self._progress_file.parent.mkdir(exist_ok=True)
        self._began = time.monotonic()
        journal.append(self.bundle, "started", step=self.plan.id, key=self.plan.key)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress_file.unlink(missing_ok=True)
        if error is not None:
            self._failed(error)
            return
        missing = [name for name in self.plan.outputs if not (self.out / name).exists()]
        if missing:
            fault = Fault("R0203", str(self.out), f"the step did not write {', '.join(missing)}", "this is a bug in the script: report it")
            self._failed(fault)
        seconds = round(time.monotonic() - self._began, 3)
        outputs = {
            str(file.relative_to(self.out)): sha256_file(file) for file in sorted(self.out.rglob("*")) if file.is_file()
        }
        record = FinishRecord(
            id=self.plan.id, key=self.plan.key, kind=self.plan.kind, mode=self.manifest.mode, recipe=self.plan.recipe,
            outputs=outputs, seconds=seconds, versions=library_versions(), facts=self.facts,
        )  # fmt: skip
        self.out.rename(self.final)
        aside = self.final / (RECORD + ".tmp")
        with aside.open("w", encoding="utf-8") as handle:
            handle.write(record.model_dump_json(indent=1) + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        aside.replace(self.final / RECORD)
        journal.append(self.bundle, "finished", step=self.plan.id, key=self.plan.key, seconds=seconds, lock_sha256=self.manifest.lock_sha256)
        print(f"{self.plan.id}: finished in {seconds:.1f} s")

    def _failed(self, error: BaseException) -> None:
        """Journal the failure; turn faults and full disks into three lines and exit code 1."""
        if isinstance(error, SystemExit) and not error.code:
            return
        if isinstance(error, OSError) and error.errno == 28:
            error = Fault("R0204", str(self.out), "no space left on the disk", "free some space and run again: finished steps are kept")
        try:
            journal.append(self.bundle, "failed", step=self.plan.id, key=self.plan.key, error=f"{type(error).__name__}: {error}"[:500])
        except OSError:
            print("the failure could not be journalled", file=sys.stderr)
        if isinstance(error, Fault):
            print(error.render(), file=sys.stderr, flush=True)
            raise SystemExit(EXIT_STEP_FAILED)
