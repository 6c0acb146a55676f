"""A toy bundle: a manifest built by hand whose steps are a few lines of Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.canonical import content_key, sha256_text
from epc.compiler.contract.manifest import Design, Manifest, Pending, Resources, Step, StepKind
from epc.compiler.emit import environment

SCRIPT = """\
import sys, time
from pathlib import Path
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
with Step("{id}", bundle=BUNDLE) as step:
    with (BUNDLE / "ran.txt").open("a") as ran:
        ran.write("{id}\\n")
{body}
    (step.out / "out.txt").write_text("{id}")
{after}
"""


class ToyBundle:
    """data -> train -> sample, and other -> sample.

    `bodies` are what scripts do inside the step, `after` what they do once it is over.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.recipes: dict[str, dict[str, Any]] = {
            "data": {"rows": 4},
            "train": {"learning_rate": 0.001, "lora": {"r": 16}},
            "other": {"rows": 8},
            "sample": {"n": 2},
        }
        self.needs: dict[str, tuple[str, ...]] = {
            "data": (),
            "train": ("data",),
            "other": (),
            "sample": ("train", "other"),
        }
        self.kinds: dict[str, StepKind] = {"data": "data", "train": "train", "other": "data", "sample": "sample"}
        self.bodies: dict[str, str] = {}
        self.after: dict[str, str] = {}
        self.threads: dict[str, int] = {}
        self.gpu_mib: dict[str, int] = {}
        """Steps that use a GPU, and what they need of it."""
        self.lock = "seeds: [1]\ngates: {dead: {when: headline.delta < 0.05}}\n"
        self.figures: dict[str, float] = {}
        self.arithmetic: dict[str, str] = {}
        self.pending: tuple[Pending, ...] = ()
        self.compile()

    def compile(self) -> Manifest:
        """Write the bundle as the compiler would: keys from recipes, scripts, Snakefile, lock, manifest."""
        steps: list[Step] = []
        keys: dict[str, str] = {}
        for name, recipe in self.recipes.items():
            inputs = [keys[need] for need in self.needs[name]]
            keys[name] = content_key({"id": name, "recipe": recipe, "inputs": inputs})
            steps.append(
                Step(
                    id=name, kind=self.kinds[name], label=f"{name} of the toy",
                    needs=self.needs[name], key=keys[name],
                    script=f"steps/{name}.py", outputs=("out.txt",), recipe=recipe,
                    resources=Resources(
                        threads=self.threads.get(name, 1), gpu=int(name in self.gpu_mib), gpu_mib=self.gpu_mib.get(name, 0)
                    ),
                )
            )  # fmt: skip
        manifest = Manifest(
            epc="0", id="toy", title="toy", mode="real", spec="specs/toy.yaml", spec_sha256="0" * 64,
            lock_sha256=sha256_text(self.lock), steps=tuple(steps), figures=self.figures,
            arithmetic=self.arithmetic, pending=self.pending,
            design=Design(question="?", conditions=(), metrics=(), analyses=(), gates=(), verdicts=(), seeds=(1,)),
        )  # fmt: skip
        (self.root / "steps").mkdir(parents=True, exist_ok=True)
        for step in steps:
            text = SCRIPT.format(
                id=step.id, body=self.bodies.get(step.id, "    pass"), after=self.after.get(step.id, "")
            )
            (self.root / step.script).write_text(text)
        (self.root / "manifest.json").write_text(manifest.model_dump_json(indent=1))
        (self.root / "spec.lock.yaml").write_text(self.lock)
        snakefile = environment().get_template("Snakefile.j2").render(manifest=manifest)
        (self.root / "Snakefile").write_text(snakefile)
        self.manifest = manifest
        return manifest

    def key(self, step_id: str) -> str:
        return next(step.key for step in self.manifest.steps if step.id == step_id)

    def store(self, step_id: str) -> Path:
        return self.root / "store" / self.key(step_id)

    def ran(self) -> list[str]:
        """Steps whose body was entered since the last call, sorted."""
        file = self.root / "ran.txt"
        lines = file.read_text().split() if file.exists() else []
        file.unlink(missing_ok=True)
        return sorted(lines)


@pytest.fixture
def toy(tmp_path: Path) -> ToyBundle:
    return ToyBundle(tmp_path / "toy")
