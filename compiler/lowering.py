"""What every step kind lowers into: planned steps, their keys, and numbers derived from a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from epc.compiler import cost
from epc.compiler.contract.canonical import content_key
from epc.compiler.contract.manifest import Piece, Resources, Step, StepKind
from epc.compiler.contract.rows import Mode
from epc.compiler.contract.versions import STEP_VERSIONS
from epc.compiler.resolve import Experiment
from epc.compiler.source import PathKey
from epc.compiler.spec import LoraSft, Spec, TurnsData

TEMPLATE_INPUT = "inputs/chat_template.jinja"


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """A step with what its script says: constants and where each came from."""

    step: Step
    constants: dict[str, Any]
    origins: dict[str, PathKey | str]
    """Constant -> path in the spec, or words such as "default"."""


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """Derived numbers of one phase, printed and asserted."""

    optimizer_steps: int
    warmup_steps: int
    effective_batch: int
    tokens: int
    """Estimated, over all epochs."""


def training_facts(recipe: LoraSft, rows: int, characters: int, turns_per_row: int) -> TrainingFacts:
    """Steps as the Hugging Face Trainer counts them: every epoch ends with a step of what is left.

    optimizer_steps = epochs x ceil(ceil(rows / batch) / accumulation); warm-up = ceil(ratio x steps).
    """
    steps = recipe.epochs * math.ceil(math.ceil(rows / recipe.batch) / recipe.accumulation)
    warmup = recipe.warmup_steps if recipe.warmup_steps is not None else math.ceil((recipe.warmup_ratio or 0.0) * steps)
    return TrainingFacts(
        optimizer_steps=steps,
        warmup_steps=warmup,
        effective_batch=recipe.batch * recipe.accumulation,
        tokens=recipe.epochs * cost.tokens(characters, rows * turns_per_row),
    )


def phase_facts(experiment: Experiment, name: str) -> TrainingFacts | None:
    """Facts of a training phase, None when its data could not be resolved."""
    recipe = experiment.spec.train[name]
    built = experiment.data.get(recipe.data)
    if built is None:
        return None
    entry = experiment.spec.data[recipe.data]
    turns = len(entry.turns) if isinstance(entry, TurnsData) else 2
    return training_facts(recipe, built.rows, built.characters, turns)


@dataclass(kw_only=True)
class Lowering:
    experiment: Experiment
    template_text: str | None
    spec_folder: str
    mode: Mode
    steps: list[PlannedStep] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)
    """Step -> its key."""
    ids: dict[str, str] = field(default_factory=dict)
    """Key -> the step that has it."""
    condition_keys: dict[str, str] = field(default_factory=dict)
    """Arm -> the key of its content, once it is known."""

    @property
    def spec(self) -> Spec:
        return self.experiment.spec

    def add(
        self, *, id: str, kind: StepKind, label: str, needs: tuple[str, ...], recipe: dict[str, Any],
        outputs: tuple[str, ...], constants: dict[str, Any], origins: Mapping[str, PathKey | str],
        resources: Resources | None = None, pieces: tuple[Piece, ...] = (),
    ) -> str:  # fmt: skip
        """Append a step and return its id, or the id of the step that does the same already."""
        if id in self.keys:
            return id
        key = content_key(
            {
                "kind": kind, "version": STEP_VERSIONS[kind], "mode": self.mode, "recipe": recipe,
                "inputs": [self.keys[need] for need in needs],
            }
        )  # fmt: skip
        if key in self.ids:
            return self.ids[key]
        self.keys[id] = key
        self.ids[key] = id
        step = Step(
            id=id, kind=kind, label=label, needs=needs, key=key, script=f"steps/{id}.py", outputs=outputs,
            resources=resources or Resources(), recipe=recipe, pieces=pieces,
        )  # fmt: skip
        self.steps.append(PlannedStep(step=step, constants=constants, origins=dict(origins)))
        return id

    def sha(self, path: str) -> str:
        return self.experiment.inputs[path].sha256

    def bundle_path(self, path: str) -> str:
        return self.experiment.inputs[path].bundle_path
