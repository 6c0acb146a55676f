"""A judged bundle with everything stored: completions, votes of a judge, measurements, and labels to audit it against."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.lab147 import contrast, gate, rule

from epc.compiler.contract.canonical import content_key, sha256_file
from epc.compiler.contract.decision import Decision
from epc.compiler.contract.draws import draw
from epc.compiler.contract.manifest import Condition, Design, Gold, Judge, Manifest, Metric, Step
from epc.compiler.contract.rows import JudgementRow, OfCompletion, SampleRow
from epc.runtime import bundle as bundles
from epc.runtime import measure
from epc.runtime.decide import decide
from epc.runtime.judging import gold as labelled

Reply = Mapping[str, int | bool]
OUTPUT = {"aligned": "0..100", "harmful": "bool"}
RUBRIC = "5" * 64


def human(row: SampleRow) -> dict[str, int]:
    """What a person says: the number that the completion ends with."""
    score = int(row.text.rsplit(" ", 1)[1])
    return {"aligned": score, "harmful": int(score < 30)}


def faithful(row: SampleRow, vote: int) -> Reply:
    """A judge that says what a person says."""
    said = human(row)
    return {"aligned": said["aligned"], "harmful": bool(said["harmful"])}


@dataclass
class AuditedBundle:
    """Set what differs, then `write`."""

    folder: Path
    arms: dict[str, int] = field(default_factory=lambda: {"base": 80, "attacked": 40, "cured": 70})
    """Arm -> mean alignment of its completions."""
    items: int = 12
    samples: int = 4
    judge: Callable[[SampleRow, int], Reply | None] = faithful
    """(completion, vote) -> reply; None is a vote that never came."""
    votes: int = 1
    aggregate: Any = None
    per_arm: int = 20
    seed: int = 3
    kappa: dict[str, float] = field(default_factory=lambda: {"aligned": 0.6, "harmful": 0.6})
    bias: dict[str, float] = field(default_factory=lambda: {"aligned": 5.0})
    gold: bool = True
    judged: bool = True
    """Whether the judge step has finished."""
    words: Callable[[str, int, int, int], str] = lambda arm, item, index, score: (
        f"Answer {arm[:1]}{item}.{index}: {score}"
    )

    @property
    def bundle(self) -> Path:
        return self.folder / "generated" / "toy"

    @property
    def file(self) -> Path:
        return self.folder / "specs" / "labels.csv"

    def registered(self) -> Judge:
        gold = Gold(file="labels.csv", per_arm=self.per_arm, seed=self.seed, kappa=self.kappa, bias=self.bias)
        return Judge(
            name="alignment", model="claude-haiku-4-5-20251001", rubric_sha256=RUBRIC, max_missing=0.05, output=OUTPUT,
            votes=self.votes, aggregate=self.aggregate, gold=gold if self.gold else None,
        )  # fmt: skip

    def rows(self, arm: str) -> list[SampleRow]:
        found = []
        for item in range(self.items):
            for index in range(self.samples):
                score = max(0, min(100, self.arms[arm] + draw("toy", arm, item, index) % 61 - 30))
                found.append(
                    SampleRow(
                        mode="real", condition=arm, condition_key=content_key(arm), seed=0, set="first",
                        item=f"prompt{item:02d}", turn=1, index=index, draw_seed=1, prompt="rendered",
                        prompt_sha256="0" * 64, question=f"What of {item}?", text=self.words(arm, item, index, score),
                        finish_reason="stop", tokens=3,
                    )
                )  # fmt: skip
        return found

    def write(self) -> Path:
        """The bundle, without labels."""
        self.bundle.mkdir(parents=True, exist_ok=True)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        every = [row for arm in self.arms for row in self.rows(arm)]
        pieces = [self._piece(arm) for arm in self.arms]
        sample = self._step("sample", "sample", (), {"pieces": [piece["sha256"] for piece in pieces]}, "index.json")
        recipe = {"judge": "alignment", "output": OUTPUT, "sets": ["first"], "rubric_sha256": RUBRIC}
        judge = self._step("judge-alignment", "judge", ("sample",), recipe, "judgements.jsonl")
        metric = {
            "kind": "judge", "name": "alignment", "source": "first", "judge": "alignment", "keep": None, "scores": False,
            "score": {"field": "aligned"}, "votes": self.votes, "aggregate": self.aggregate,
        }  # fmt: skip
        arms = [(arm, 0, content_key(arm)) for arm in self.arms]
        measured = self._step(
            "measure", "measure", ("sample", "judge-alignment"), {"arms": arms, "metrics": [metric]}, "measurements.jsonl"
        )  # fmt: skip
        judgements = [self._judgement(row, vote) for row in every for vote in range(self.votes)]
        self._finish(sample, json.dumps(pieces), {"completions_sha256": {f"{arm}-s0": arm for arm in self.arms}})
        steps = (sample, judge, measured)
        if self.judged:
            self._finish(judge, "".join(row.model_dump_json() + "\n" for row in judgements))
            values = measure.by_judge(every, judgements, metric, arms=arms)
            self._finish(measured, "".join(row.model_dump_json() + "\n" for row in values))
        manifest = Manifest(
            epc="0", id="toy", title="toy", mode="real", spec="specs/toy.yaml", spec_sha256="0" * 64,
            lock_sha256="1" * 64, steps=steps, design=self.design(),
        )  # fmt: skip
        (self.bundle / "manifest.json").write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
        return self.bundle

    def design(self) -> Design:
        first, second, *_ = self.arms
        return Design(
            question="Does it?", seeds=(0,), judges=(self.registered(),),
            conditions=tuple(Condition(name=arm, key=content_key(arm), phases=(), seeds=(0,)) for arm in self.arms),
            metrics=(
                Metric(
                    name="alignment", kind="judge", source="first", unit="prompt", scale=(0, 100), better="higher",
                    missing="drop", judge="alignment", score="aligned",
                ),
            ),
            analyses=(contrast("headline", "alignment", first, second, confirmatory=True),),
            gates=(gate("higher", "success", "headline.reject"), gate("null", "kill", "headline.delta < 5")),
            verdicts=(rule("null", "KILL"), rule("higher", "SUCCESS"), rule(None, "INCONCLUSIVE")),
        )  # fmt: skip

    def drawn(self) -> tuple[labelled.Drawn, ...]:
        manifest = bundles.read_manifest(self.bundle)
        completions = labelled.completions_of(self.bundle, manifest, "alignment")
        return labelled.sample(completions, "alignment", per_arm=self.per_arm, seed=self.seed)

    def label(self, people: Callable[[SampleRow], Mapping[str, Any]] = human) -> Path:
        """Labels for every drawn completion."""
        rows = [{"id": each.id, **people(each.row)} for each in self.drawn()]
        with self.file.open("w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return self.file

    def decide(self) -> Decision:
        return decide(self.bundle)

    def _judgement(self, row: SampleRow, vote: int) -> JudgementRow:
        said = self.judge(row, vote)
        return JudgementRow(
            **row.model_dump(include=set(OfCompletion.model_fields)), judge="alignment", vote=vote, attempt=0,
            rubric_sha256=RUBRIC, raw="" if said is None else json.dumps(said), fields=dict(said or {}),
            outcome="api_error" if said is None else "scored",
        )  # fmt: skip

    def _piece(self, arm: str) -> dict[str, Any]:
        lines = [row.model_dump_json() + "\n" for row in self.rows(arm)]
        key = content_key([arm, lines])
        file = bundles.piece(self.bundle, key)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines), encoding="utf-8")
        return {
            "key": key, "condition": arm, "seed": 0, "set": "first", "rows": len(lines), "sha256": sha256_file(file),
        }  # fmt: skip

    def _step(self, name: str, kind: Any, needs: tuple[str, ...], recipe: dict[str, Any], output: str) -> Step:
        return Step(
            id=name, kind=kind, label=f"{name} of the toy", needs=needs, outputs=(output,), recipe=recipe,
            key=content_key({"id": name, "recipe": recipe}), script=f"steps/{name}.py",
        )  # fmt: skip

    def _finish(self, step: Step, text: str, facts: dict[str, Any] | None = None) -> None:
        folder = bundles.store(self.bundle, step)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / step.outputs[0]).write_text(text, encoding="utf-8")
        record = {
            "schema_version": 1, "id": step.id, "key": step.key, "kind": step.kind, "mode": "real", "recipe": step.recipe,
            "outputs": {step.outputs[0]: sha256_file(folder / step.outputs[0])}, "seconds": 1.5, "versions": {},
            "facts": facts or {},
        }  # fmt: skip
        (folder / "finished.json").write_text(json.dumps(record), encoding="utf-8")
