"""The arms of an experiment: condition x training seed, each with its content key and last training step."""

from __future__ import annotations

from epc.compiler.contract.canonical import content_key
from epc.compiler.kinds import model, train
from epc.compiler.lowering import Lowering, seeds_of


def arm_list(plan: Lowering) -> list[tuple[str, int, str, str | None]]:
    """(condition, seed, condition key, last training step)."""
    return [
        (name, seed, condition_key(plan, name), train.lower(plan, tuple(phases), seed) if phases else None)
        for name, phases in plan.spec.conditions.items()
        for seed in seeds_of(plan.spec, name)
    ]


def condition_key(plan: Lowering, name: str) -> str:
    """Content of an arm, the training seed left out."""
    phases = []
    for phase in plan.spec.conditions[name]:
        recipe = plan.spec.train[phase]
        phases.append({**recipe.model_dump(exclude={"data"}), "data": plan.experiment.data[recipe.data].sha256})
    return content_key({"model": plan.keys[model.lower(plan)], "phases": phases})
