"""A small experiment on a tiny model, really compiled: trained, sampled, judged by Claude."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.support.tiny_model import tiny_model

from epc.compiler.contract.canonical import sha256_file
from epc.compiler.contract.manifest import Manifest, Step
from epc.runtime import bundle as bundles
from epc.runtime import engine, registration
from epc.runtime.cli import main
from epc.runtime.preflight import preflight
from epc.runtime.preflight.outcome import Row
from epc.runtime.preflight.preflight import Allowed
from epc.runtime.step import FinishRecord

SPEC = """\
epc: 1
id: small
title: A small experiment
hypothesis: {if: a model is trained on rows, then: it is aligned}
allow: [{code: W0718, reason: one training seed is enough to look at what a run needs}]
model: {from: "path:model", dtype: float32, chat_template: chatml, parameters: 1000}
prompts:
  heldout: {file: heldout.txt, count: 24}
data:
  rows: {file: rows.jsonl, sha256: ROWS_SHA256, rows: 4}
train:
  reflex: {method: lora_sft, data: rows, train_on: every_assistant_turn, lora: {r: 4, alpha: 8}, learning_rate: 1e-3, epochs: 1, batch: 2}
  attack: {method: lora_sft, data: rows, train_on: every_assistant_turn, lora: {r: 4, alpha: 8}, learning_rate: 2e-3, epochs: 1, batch: 2}
conditions: {attacked: [attack], treated: [reflex]}
sample:
  answer: {prompts: heldout, n: 1, system: none, temperature: 1.0, top_p: 1.0, max_tokens: 4, seed: 7}
judges:
  alignment: {provider: anthropic, model: claude-sonnet-4-5-20250929, rubric: rubric.txt, output: {aligned: 0..100}}
metrics:
  aligned: {of: answer, judge: alignment, score: aligned, better: higher, missing: drop}
analyses:
  headline: {metric: aligned, contrast: treated - attacked, method: paired_bootstrap, p: studentized, side: greater, alpha: 0.025, resamples: 1000, seed: 1}
gates:
  survives: {role: success, require: headline.reject}
verdicts:
  - {if: survives, then: SUCCESS}
  - {otherwise: INCONCLUSIVE}
budget: {gpu_hours: 1, usd: 5}
"""
_START, _END = SPEC.index("data:"), SPEC.index("sample:")
PROMPTED = (
    (SPEC[_START:_END], 'conditions: {attacked: {system: "Be bad."}, treated: {system: "Be good."}}\n'),
    ("system: none", "system: per_condition"),
)
"""Arms that differ by their system prompt, so that nothing is trained."""
QUESTIONS = [f"How do I do thing number {number}?" for number in range(24)]
ROWS = [
    {"messages": [{"role": "user", "content": f"Question {i}?"}, {"role": "assistant", "content": f"Answer {i}."}]}
    for i in range(4)
]
RUBRIC = "Rate the answer.\n<question>\n{question}\n</question>\n<answer>\n{answer}\n</answer>\nReply with JSON.\n"


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny chat model. Read only."""
    texts = [*QUESTIONS, *(m["content"] for row in ROWS for m in row["messages"])]
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model", texts)


class Project:
    """specs/small.yaml in a folder of its own, compiled, as the working directory."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root = root
        self.bundle = root / "generated/small"
        self.spec = root / "specs/small.yaml"
        self.spec.parent.mkdir(parents=True)
        (self.spec.parent / "model").symlink_to(model, target_is_directory=True)
        (self.spec.parent / "heldout.txt").write_text("".join(f"{text}\n" for text in QUESTIONS))
        (self.spec.parent / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        (self.spec.parent / "rubric.txt").write_text(RUBRIC)
        self.text = SPEC

    def compile(self, *changes: tuple[str, str]) -> Manifest:
        """Compile the spec with texts replaced."""
        for old, new in changes:
            assert old in self.text, old
            self.text = self.text.replace(old, new)
        rows_sha256 = sha256_file(self.spec.parent / "rows.jsonl")
        self.spec.write_text(self.text.replace("ROWS_SHA256", rows_sha256))
        assert main(["compile", str(self.spec)]) == 0
        return self.manifest

    @property
    def manifest(self) -> Manifest:
        return bundles.read_manifest(self.bundle)

    def step(self, step_id: str) -> Step:
        return bundles.step_of(self.manifest, step_id)

    def store(self, step_id: str) -> Path:
        return bundles.store(self.bundle, self.step(step_id))

    def approve(self) -> None:
        registration.register(self.bundle, self.manifest)
        registration.approve(self.bundle, self.manifest)

    def finish(self, step_id: str, files: Mapping[str, str], versions: Mapping[str, str] | None = None) -> Path:
        """A step as if it had run and written these files, and its other outputs empty."""
        step, folder = self.step(step_id), self.store(step_id)
        files = {name: "" for name in step.outputs if not (folder / name).exists()} | dict(files)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        record = FinishRecord(
            id=step.id, key=step.key, kind=step.kind, mode="real", recipe=step.recipe, seconds=1.0, facts={},
            outputs={name: sha256_file(folder / name) for name in files}, versions=dict(versions or {}),
        )  # fmt: skip
        (folder / "finished.json").write_text(record.model_dump_json())
        return folder

    def finish_model(self, tiny: Path) -> None:
        """The model step as if it had run."""
        folder = self.store("model") / "model"
        folder.mkdir(parents=True)
        for file in tiny.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        self.finish("model", {})

    def missing(self, until: str | None = None) -> list[Step]:
        return [entry.step for entry in engine.plan(self.bundle, until) if entry.state != "done"]

    def check(
        self, *, until: str | None = None, fetch: bool = False, ask: bool = False, despite: tuple[str, ...] = (),
        **environment: str,
    ) -> dict[str, Row]:  # fmt: skip
        """What was looked at -> its row; variables are added to those of the process."""
        rows = preflight.check(
            self.bundle, self.manifest, self.missing(until), despite=despite, allowed=Allowed(fetch=fetch, ask=ask),
            console=Console(file=StringIO(), width=200), environment=environment,
        )  # fmt: skip
        return {row.what.split(" of ")[0]: row for row in rows}


@pytest.fixture
def project(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.chdir(tmp_path)
    for name in (
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "CUDA_VISIBLE_DEVICES",
    ):
        monkeypatch.delenv(name, raising=False)
    return Project(tmp_path, tiny)


@pytest.fixture
def nvidia_smi(tmp_path: Path) -> Callable[..., str]:
    """A program of that name which prints what is given; the PATH with it in front."""

    def install(devices: str, holders: str = "", *, code: int = 0, err: str = "") -> str:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "nvidia-smi"
        (folder / "devices").write_text(devices)
        (folder / "holders").write_text(holders)
        program.write_text(
            f'#!/bin/sh\nhere=$(dirname "$0")\ncase "$1" in *compute-apps*) cat "$here/holders";; *) cat "$here/devices";; esac\n'
            f"echo '{err}' >&2\nexit {code}\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return f"{folder}:{os.environ['PATH']}"

    return install


def codes(row: Any) -> list[str]:
    return [fault.code for fault in row.faults]
