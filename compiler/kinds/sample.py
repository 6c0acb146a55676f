"""Completions of every arm of the base model: one step, one engine start, one stored piece an arm and set."""

from __future__ import annotations

from typing import Any

from epc.compiler.contract.canonical import content_key
from epc.compiler.contract.manifest import Piece, Resources
from epc.compiler.contract.versions import STEP_VERSIONS
from epc.compiler.kinds import arms, model
from epc.compiler.lowering import Lowering


def lower(plan: Lowering) -> str | None:
    if not plan.spec.sample:
        return None
    model_id, found = model.lower(plan), arms.arm_list(plan)
    needs = (model_id, *arms.last_steps(found))
    sets: list[dict[str, Any]] = []
    recipes: dict[str, dict[str, Any]] = {}
    for name, entry in plan.spec.sample.items():
        prompts = plan.experiment.prompts[entry.prompts]
        turns = [(turn.role, turn.text) for turn in entry.turns]
        settings = {
            "system": entry.system, "turns": turns, "n": entry.n, "temperature": entry.temperature,
            "top_p": entry.top_p, "max_tokens": entry.max_tokens, "seed": entry.seed,
        }  # fmt: skip
        sets.append(
            {
                "name": name, "prompts": prompt_path(plan, entry.prompts), "count": len(prompts), **settings,
                "fill": {key: plan.bundle_path(path) for key, path in entry.fill.items()},
            }
        )  # fmt: skip
        recipes[name] = {
            **settings, "prompts": sorted(prompts), "fill": {key: plan.sha(path) for key, path in entry.fill.items()},
        }  # fmt: skip
    pieces: dict[tuple[str, int, str], str] = {}
    for condition, seed, key, step in found:
        for name, recipe in recipes.items():
            pieces[condition, seed, name] = content_key(
                {
                    "kind": "sample", "version": STEP_VERSIONS["sample"], "mode": plan.mode, "condition": condition,
                    "condition_key": key, "seed": seed, "set": name, "recipe": recipe, "model": plan.keys[model_id],
                    "adapter": None if step is None else plan.keys[step],
                }
            )  # fmt: skip
    completions = sum(entry["count"] * entry["n"] for entry in sets) * len(found)
    constants = {
        "model": model_id, "dtype": plan.spec.model.dtype, "arms": found, "sets": sets, "pieces": pieces,
        "batch_size": 96, "threads": 2,
    }  # fmt: skip
    return plan.add(
        id="sample", kind="sample", label=f"sample {completions:,} completions from {len(found)} arms", needs=needs,
        recipe={"sets": recipes, "pieces": sorted(pieces.values())}, outputs=("index.json",), constants=constants,
        origins={
            "model": "the model step", "dtype": ("model", "dtype"), "arms": ("conditions",), "sets": ("sample",),
            "pieces": "content keys", "batch_size": "execution plan", "threads": "execution plan",
        },
        resources=Resources(threads=2, gpu=1),
        pieces=tuple(Piece(key=key, condition=c, seed=s, set=name) for (c, s, name), key in pieces.items()),
    )  # fmt: skip


def prompt_path(plan: Lowering, name: str) -> str:
    """Where a prompt set lies in the bundle; an inline one is written out as a file."""
    entry = plan.spec.prompts[name]
    return plan.bundle_path(entry.file) if entry.file is not None else f"inputs/prompts/{name}.inline.txt"
