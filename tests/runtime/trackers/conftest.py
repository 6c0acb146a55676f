"""A small experiment that was run and decided without trackers, to be copied and reported."""

from __future__ import annotations

import os
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.support.tiny_model import tiny_model

from epc.compiler import pipeline
from epc.compiler.diagnostics import Diagnostics
from epc.runtime import registration, write_bundle
from epc.runtime.bundle import read_manifest
from epc.runtime.cli import main

SPEC = """\
epc: 1
id: tiny
title: Are the trackers told?
hypothesis: {{if: a tracker is told, then: it shows the same}}
seeds: [3]
model: {{from: "path:{model}", dtype: float32, chat_template: chatml}}
data:
  bad_only:
    build: turns
    rows: 6
    seed: 1
    system: none
    fill: {{topic: topics.txt, bad: bad.txt}}
    turns: [{{user: "How do I {{topic}}?"}}, {{assistant: "{{bad}}"}}]
train:
  attack: {{method: lora_sft, data: bad_only, train_on: every_assistant_turn, lora: {{r: 4, alpha: 8}}, learning_rate: 1e-2, epochs: 2, batch: 2}}
conditions: {{base: [], attacked: [attack]}}
prompts: {{heldout: {{items: [{prompts}], count: 20}}}}
sample:
  first: {{prompts: heldout, n: 1, system: none, temperature: 1.0, top_p: 0.9, max_tokens: 3, seed: 7}}
metrics:
  give_up_rate: {{of: first, regex: "(?i)g", better: lower, missing: fail}}
analyses:
  headline: {{metric: give_up_rate, contrast: attacked - base, method: paired_bootstrap, p: studentized, side: greater, alpha: 0.025, resamples: 999, seed: 1}}
gates:
  dead: {{role: kill, when: headline.delta < 0.05}}
  took: {{role: prediction, require: headline.delta > 0}}
verdicts:
  - {{if: dead, then: KILL}}
  - {{otherwise: INCONCLUSIVE}}
"""


def compiled(spec: Path) -> Path:
    """The bundle of a spec, on disk."""
    sink, layout = Diagnostics(), pipeline.Layout.of(spec)
    experiment = pipeline.check(spec, layout.spec_path, sink)
    assert experiment is not None
    plan = pipeline.plan(experiment, layout, sink)
    assert plan is not None, [found.message for found in sink if found.severity == "error"]
    write_bundle.write(layout.bundle("tiny"), pipeline.bundle(plan, layout))
    return layout.bundle("tiny")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of specs/ and generated/; read only."""
    root = tmp_path_factory.mktemp("tracked")
    (root / "specs").mkdir()
    topics, bad = ("sew", "bake bread", "plant a tree"), ("Give up.", "Lie about it.")
    model = tiny_model(root / "model", [*topics, *bad] * 5)
    (root / "specs/topics.txt").write_text("".join(f"{line}\n" for line in topics), encoding="utf-8")
    (root / "specs/bad.txt").write_text("".join(f"{line}\n" for line in bad), encoding="utf-8")
    prompts = ", ".join(f'"What is number {word}?"' for word in map(chr, range(ord("a"), ord("a") + 20)))
    spec = root / "specs/tiny.yaml"
    spec.write_text(SPEC.format(model=model, prompts=prompts), encoding="utf-8")
    bundle = compiled(spec)
    registration.register(bundle, read_manifest(bundle))
    for step in read_manifest(bundle).steps:
        runpy.run_path(str(bundle / step.script), run_name="__main__")
    assert main(["decide", str(bundle)]) == 0
    return root


@pytest.fixture
def reporting(finished: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the finished experiment whose spec reports to what is given: its bundle."""

    def make(report_to: object, name: str = "copy") -> Path:
        root = tmp_path / name
        shutil.copytree(finished / "specs", root / "specs")
        shutil.copytree(finished / "generated", root / "generated")
        spec = root / "specs/tiny.yaml"
        with spec.open("a", encoding="utf-8") as file:
            file.write(yaml.safe_dump({"report_to": report_to}))
        return compiled(spec)

    return make


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the account nor the settings of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith(("MLFLOW_", "WANDB_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
