"""The arms of an experiment: condition x training seed, each with its content key and last training step."""

from __future__ import annotations

from typing import Any

from epc.compiler.contract.canonical import content_key
from epc.compiler.kinds import data, model, train
from epc.compiler.lowering import Lowering

Arm = tuple[str, int, str, str | None]
"""(condition, seed, condition key, last training step)."""


def arm_list(plan: Lowering) -> list[Arm]:
    """Every arm, in the order of the spec."""
    return [
        (
            name,
            seed,
            condition_key(plan, name),
            train.lower(plan, tuple(phases), seed) if (phases := plan.spec.phases(name)) else None,
        )
        for name in plan.spec.conditions
        for seed in plan.spec.training_seeds(name)
    ]


def last_steps(found: list[Arm]) -> tuple[str, ...]:
    """The training steps that evaluating these arms waits for, each once."""
    return tuple(dict.fromkeys(step for *_, step in found if step is not None))


def condition_key(plan: Lowering, name: str) -> str:
    """Content of an arm, the training seed left out; of an arm from elsewhere its name is all there is."""
    if plan.spec.model.from_ == "none":
        return content_key({"elsewhere": name})
    if name not in plan.condition_keys:
        plan.condition_keys[name] = content_key(_content(plan, name))
    return plan.condition_keys[name]


def _content(plan: Lowering, name: str) -> dict[str, Any]:
    phases = []
    for phase in plan.spec.phases(name):
        recipe = plan.spec.train[phase]
        phases.append({**recipe.model_dump(exclude={"data"}), "data": data.identity(plan, recipe.data)})
    content: dict[str, Any] = {"model": plan.keys[model.lower(plan)], "phases": phases}
    system = plan.spec.system(name)
    return content if system is None else {**content, "system": system}
