"""Verification of which tokens a phase trains on, before it trains."""

from __future__ import annotations

from epc.compiler.kinds import data, model
from epc.compiler.lowering import Lowering
from epc.compiler.source import PathKey
from epc.compiler.spec import TurnsData


def lower(plan: Lowering, phase: str) -> str:
    if f"mask-{phase}" in plan.keys:
        return f"mask-{phase}"
    recipe = plan.spec.train[phase]
    entry = plan.spec.data[recipe.data]
    data_id, model_id = data.lower(plan, recipe.data), model.lower(plan)
    system = entry.system if isinstance(entry, TurnsData) else "none"
    constants = {
        "model": model_id, "data": data_id, "rows": entry.rows, "train_on": recipe.train_on, "system": system,
        "max_length": recipe.max_length, "threads": 1,
    }  # fmt: skip
    base: PathKey = ("train", phase)
    return plan.add(
        id=f"mask-{phase}", kind="mask", label=f"verify which tokens {phase} trains on", needs=(model_id, data_id),
        recipe={"train_on": recipe.train_on, "max_length": recipe.max_length, "system": system},
        outputs=("mask.json", "mask.txt", "rendered.jsonl"), constants=constants,
        origins={
            "model": "the model step", "data": (*base, "data"), "rows": ("data", recipe.data, "rows"),
            "train_on": (*base, "train_on"), "system": ("data", recipe.data, "system"),
            "max_length": (*base, "max_length"), "threads": "execution plan",
        },
    )  # fmt: skip
