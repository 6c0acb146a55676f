"""What a mask is shown of: the phases of a bundle, their rows and the tokenizer, before any step has run if need be.

What a finished step has stored is read there. Rows that are not built yet are built by the emitted data script itself,
in a folder beside the bundle that is removed afterwards, so that paths mean the same and the bundle stays untouched.

R0380 no training phase of that name or data set; R0381 rows that cannot be built now; R0382 a tokenizer that is not on
this machine; R0383 a row that is not there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from epc.compiler.contract.manifest import Manifest, Step
from epc.runtime import bundle as bundles
from epc.runtime import models
from epc.runtime.data import TrainOn, read_rows
from epc.runtime.errors import Fault
from epc.runtime.lifetime import ENGINE_PID
from epc.runtime.registration import spec_path
from epc.runtime.step import read_record

TEMPLATE: Final = "inputs/chat_template.jinja"


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One training phase, as its mask step is registered."""

    name: str
    data: str
    train_on: TrainOn
    system: str
    max_length: int
    rows: int
    data_step: Step
    model_step: Step


def phases(manifest: Manifest, wanted: str | None = None) -> list[Phase]:
    """The training phases, or those of the data set `wanted`. Raises Fault R0380."""
    found = [_phase(manifest, step) for step in manifest.steps if step.kind == "mask"]
    if not found:
        raise Fault("R0380", manifest.spec, "nothing is trained here", "name a spec with a training phase")
    chosen = [phase for phase in found if wanted in (None, phase.data)]
    if not chosen:
        names = ", ".join(sorted({phase.data for phase in found}))
        raise Fault("R0380", "command line", f"no phase trains on a data set {wanted}", f"one of: {names}")
    return chosen


def _phase(manifest: Manifest, step: Step) -> Phase:
    needs = {need.kind: need for need in (bundles.step_of(manifest, name) for name in step.needs)}
    return Phase(
        name=step.id.removeprefix("mask-"), data=needs["data"].id.removeprefix("data-"), train_on=step.recipe["train_on"],
        system=step.recipe["system"], max_length=step.recipe["max_length"], rows=needs["data"].recipe["rows"],
        data_step=needs["data"], model_step=needs["model"],
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where rows and tokenizer come from. `files` are those of a spec that is not compiled on disk, path -> text."""

    manifest: Manifest
    bundle: Path
    """Where the bundle is, or where it would be."""
    aside: Path
    """A folder beside it for what is made only to be shown."""
    files: Mapping[str, str] | None
    spec: Path | None
    built: dict[str, Path] = field(default_factory=dict)

    def rows(self, phase: Phase) -> tuple[Path, list[dict[str, Any]]]:
        """(file, rows) of a phase. Raises Fault R0381 and those of reading rows."""
        step = phase.data_step
        if read_record(self.bundle, step) is not None:
            file = bundles.store(self.bundle, step) / "rows.jsonl"
        else:
            if step.id not in self.built:
                self.built[step.id] = self._build(phase)
            file = self.built[step.id]
        return file, read_rows(file, rows=phase.rows)

    def model(self, phase: Phase) -> Path:
        """A folder with the tokenizer and the config of the model. Raises Fault R0382."""
        step = phase.model_step
        stored = bundles.store(self.bundle, step) / "model"
        if read_record(self.bundle, step) is not None and stored.is_dir():  # a packed copy has none
            return stored
        if step.id not in self.built:
            template = self._text(TEMPLATE) if step.recipe["chat_template_sha256"] is not None else None
            beside = self.spec.parent if self.spec is not None else self.bundle
            self.built[step.id] = models.save_tokenizer(
                step.recipe, self.aside / "model", template=template, beside=beside
            )
        return self.built[step.id]

    def _text(self, path: str) -> str:
        return self.files[path] if self.files is not None else (self.bundle / path).read_text(encoding="utf-8")

    def _build(self, phase: Phase) -> Path:
        step = phase.data_step
        self._lay_out(step)
        environment = {name: value for name, value in os.environ.items() if name != ENGINE_PID}
        done = subprocess.run(
            [sys.executable, str(self.aside / step.script)],
            cwd=self.aside,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            fact, remedy = _said(done.stderr)
            raise Fault(
                "R0381", step.id, f"the rows of {phase.data} are not built, and cannot be built now: {fact}",
                remedy or f"epc run --until {step.id} builds them",
            )  # fmt: skip
        return bundles.store(self.aside, step) / "rows.jsonl"

    def _lay_out(self, step: Step) -> None:
        """What the script of a data step reads: itself, the manifest, the inputs, and what other steps stored."""
        if (self.aside / "manifest.json").exists():
            self._write(step.script)
            return
        for path in ("manifest.json", "spec.lock.yaml", step.script):
            self._write(path)
        if self.files is None:
            (self.aside / "inputs").symlink_to(self.bundle.resolve() / "inputs")
        else:
            for path in self.files:
                if path.startswith("inputs/"):
                    self._write(path)
        (self.aside / "store").mkdir()
        for other in self.manifest.steps:
            if read_record(self.bundle, other) is not None:
                kept = bundles.store(self.bundle.resolve(), other)
                (self.aside / "store" / other.key).symlink_to(kept, target_is_directory=True)

    def _write(self, path: str) -> None:
        file = self.aside / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self._text(path), encoding="utf-8")


def _said(stderr: str) -> tuple[str, str]:
    """(fact, remedy) of the Fault that ended a script, or its last line."""
    lines = stderr.strip().splitlines() or ["it ended without a word"]
    place = next((number for number, line in enumerate(lines) if line.startswith("error[")), None)
    if place is None:
        return lines[-1], ""
    remedy = "; ".join(line.removeprefix("  = help: ").strip() for line in lines[place + 2 :])
    return lines[place].partition("]: ")[2], remedy


@contextmanager
def opened(
    manifest: Manifest, bundle: Path, *, files: Mapping[str, str] | None, spec: Path | None
) -> Iterator[Sources]:
    """The sources of a bundle, or of a spec's files; what is made meanwhile is removed at the end."""
    parent = bundle.absolute().parent
    made = not parent.exists()
    parent.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".mask-", dir=parent) as aside:
            yield Sources(
                manifest=manifest, bundle=bundle, aside=Path(aside), files=files, spec=spec or spec_path(bundle, manifest)
            )  # fmt: skip
    finally:
        if made and not any(parent.iterdir()):
            shutil.rmtree(parent)
