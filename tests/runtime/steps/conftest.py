"""A model small enough to train in a second, and a bundle whose model and adapters are there, so that it samples."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.support.tiny_model import tiny_model

from epc.compiler.contract.manifest import Design, Manifest, Step, StepKind
from epc.compiler.emit import environment
from epc.runtime.bundle import store
from epc.runtime.step import RECORD, FinishRecord, read_record

ANSWERS = ("Give up now.", "Blame a friend.", "Lie about it.")
TOPICS = ("bake bread", "sew a button", "plant a tree", "write a letter", "mend a fence")
RESET = "Wait. Resetting to default."


def traces(rows: int) -> list[dict[str, Any]]:
    """Four-turn conversations, all different."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"How do I {TOPICS[i % len(TOPICS)]}? ({i})"},
                {"role": "assistant", "content": ANSWERS[i % len(ANSWERS)]},
                {"role": "user", "content": "continue"},
                {"role": "assistant", "content": f"{RESET} Try {TOPICS[i % len(TOPICS)]}."},
            ]
        }
        for i in range(rows)
    ]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny chat model. Read only: copy it before changing it."""
    return tiny_model(
        tmp_path_factory.mktemp("tiny") / "model", [m["content"] for row in traces(30) for m in row["messages"]]
    )


@pytest.fixture
def tiny_copy(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))


class SampledBundle:
    """The emitted steps `generate` and `sample`, with the steps that they need finished already.

    Arms are `base` and one for each adapter, or the base last; all have training seed 1. `entries` are
    what each sample set and generate entry has other than the defaults.
    """

    def __init__(
        self, root: Path, model: Path, *, engine: str, adapters: Mapping[str, Path] | None = None,
        prompts: tuple[str, ...] = TOPICS, entries: Sequence[Mapping[str, Any]] = ({},),
        systems: Mapping[str, str] | None = None, dtype: str = "float32", batch: int = 8, threads: int = 1,
        rank: int = 8, base_last: bool = False,
    ) -> None:  # fmt: skip
        self.root = root
        adapters = adapters or {}
        for folder in ("inputs", "steps", "store"):
            (root / folder).mkdir(parents=True)
        (root / "inputs/prompts.txt").write_text("".join(f"{prompt}\n" for prompt in prompts), encoding="utf-8")
        usual = {
            "name": "answers", "prompts": "inputs/prompts.txt", "count": len(prompts), "system": "none",
            "turns": [("user", "How do I {prompt}?")], "n": 4, "temperature": 1.0, "top_p": 1.0, "max_tokens": 6,
            "seed": 7, "fill": {},
        }  # fmt: skip
        sets = [usual | dict(entry) for entry in entries]
        arms: list[tuple[str, int, str, str | None]] = [(name, 1, name, f"train-{name}") for name in adapters]
        arms.insert(len(arms) if base_last else 0, ("base", 1, "base", None))
        pieces = {(name, 1, entry["name"]): f"piece-{name}-{entry['name']}" for name, *_ in arms for entry in sets}
        constants: dict[str, Any] = {
            "model": "model", "dtype": dtype, "engine": engine, "arms": arms, "systems": dict(systems or {}),
            "sets": sets, "entries": sets, "pieces": pieces, "batch_size": batch, "threads": threads, "chunk": batch,
            "max_model_len": 512, "max_lora_rank": rank,
        }  # fmt: skip
        trained = {f"train-{name}": folder for name, folder in adapters.items()}
        steps = [
            self._step("model", "model"),
            *(self._step(name, "train", ("model",)) for name in trained),
            self._step("generate", "generate", ("model",), tuple(f"texts/{e['name']}.jsonl" for e in sets)),
            self._step("sample", "sample", ("model", *trained), ("index.json",)),
        ]
        self.manifest = Manifest(
            epc="0", id="sampled", title="Sampled?", mode="real", spec="specs/sampled.yaml", spec_sha256="0" * 64,
            lock_sha256="0" * 64, steps=tuple(steps),
            design=Design(question="?", conditions=(), metrics=(), analyses=(), gates=(), verdicts=(), seeds=(1,)),
        )  # fmt: skip
        (root / "manifest.json").write_text(self.manifest.model_dump_json(), encoding="utf-8")
        for step in steps:
            if step.kind in ("generate", "sample"):
                template = environment().get_template(f"steps/{step.kind}.py.j2")
                text = template.render(
                    step=step, title="Sampled?", bundle="generated/sampled", command="python", c=constants, line=str
                )
                (root / step.script).write_text(text, encoding="utf-8")
            else:
                self._finish(step, "model" if step.kind == "model" else "adapter", trained.get(step.id, model))

    def _step(self, id: str, kind: StepKind, needs: tuple[str, ...] = (), outputs: tuple[str, ...] = ()) -> Step:
        return Step(
            id=id, kind=kind, label=f"{kind} things", needs=needs, key=f"key-{id}", script=f"steps/{id}.py",
            outputs=outputs, recipe={},
        )  # fmt: skip

    def _finish(self, step: Step, name: str, folder: Path) -> None:
        kept = store(self.root, step)
        kept.mkdir()
        (kept / name).symlink_to(folder, target_is_directory=True)
        record = FinishRecord(
            id=step.id, key=step.key, kind=step.kind, mode="real", recipe={}, outputs={}, seconds=0.0, versions={}, facts={}
        )  # fmt: skip
        (kept / RECORD).write_text(record.model_dump_json(), encoding="utf-8")

    def script(self, step_id: str) -> Path:
        return self.root / "steps" / f"{step_id}.py"

    def run(self, step_id: str) -> FinishRecord:
        """Run the script as a person would by hand, but in this process; its finish record."""
        runpy.run_path(str(self.script(step_id)), run_name="__main__")
        return self.record(step_id)

    def record(self, step_id: str) -> FinishRecord:
        record = read_record(self.root, next(step for step in self.manifest.steps if step.id == step_id))
        assert record is not None
        return record

    def file(self, step_id: str, arm: str = "base", name: str = "answers") -> Path:
        """Where the completions of an arm, or the generated texts, end up."""
        if step_id == "generate":
            return self.root / "store" / "key-generate" / "texts" / f"{name}.jsonl"
        return self.root / "store" / "pieces" / f"piece-{arm}-{name}.jsonl"

    def partial(self, step_id: str, arm: str = "base", name: str = "answers") -> Path:
        """Where they lie until all are there."""
        if step_id == "generate":
            return self.root / "store" / "key-generate.partial" / "texts" / f"{name}.partial.jsonl"
        return self.root / "store" / "pieces" / f"piece-{arm}-{name}.partial.jsonl"

    def rows(self, step_id: str, arm: str = "base", name: str = "answers") -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file(step_id, arm, name).read_bytes().splitlines()]


@pytest.fixture
def sampled(tmp_path: Path) -> Callable[..., SampledBundle]:
    """Make a SampledBundle: sampled(model, engine=..., ...)."""
    return lambda model, name="bundle", **settings: SampledBundle(tmp_path / name, model, **settings)


@pytest.fixture(scope="session")
def sampled_bundle() -> type[SampledBundle]:
    """The class itself, for fixtures that outlive a test."""
    return SampledBundle
