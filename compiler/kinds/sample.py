"""Completions of every arm of the base model: one step, one engine start, one stored piece an arm and set."""

from __future__ import annotations

import math
from typing import Any, Final

from epc.compiler import cost
from epc.compiler.contract.canonical import content_key
from epc.compiler.contract.chat import lines
from epc.compiler.contract.devices import LARGE
from epc.compiler.contract.manifest import Piece, Resources
from epc.compiler.contract.versions import STEP_VERSIONS
from epc.compiler.kinds import arms, model
from epc.compiler.lowering import Lowering
from epc.compiler.source import PathKey
from epc.compiler.spec import Generation, SampleSet, Spec

BATCH_SIZE: Final = 96
"""Conversations in a batch of the transformers engine on a processor."""
GPU_BATCH_SIZE: Final = 384
"""The same for a model that needs a GPU: on one H100, 6,700 tokens a second against 3,700 in batches of 96."""
CHUNK: Final = 512
"""Requests that the vLLM engine is given at once; their completions are stored before the next."""
LORA_RANKS: Final = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM admits as max_lora_rank."""
SHORTEST_CONTEXT: Final = 1024
ENGINE_ORIGINS: Final[dict[str, PathKey | str]] = {
    "engine": ("sampler",), "batch_size": "execution plan", "threads": "execution plan", "chunk": "execution plan",
    "max_model_len": "execution plan",
}  # fmt: skip


def engine(plan: Lowering, longest: int) -> dict[str, Any]:
    """Constants of the sampling engine; `longest` is the largest number of sampled tokens."""
    match plan.spec.sampler:
        case "transformers":
            return {
                "engine": "transformers",
                "batch_size": GPU_BATCH_SIZE if (cost.parameters_of(plan.spec) or 0) >= LARGE else BATCH_SIZE,
                "threads": 2,
            }
        case "vllm":
            return {"engine": "vllm", "chunk": CHUNK, "max_model_len": _context(plan, longest)}


def _context(plan: Lowering, longest: int) -> int:
    """A power of two that holds the longest conversation, at three characters a token, and what is sampled."""
    spec = plan.spec
    entries: list[SampleSet | Generation] = [*spec.sample.values(), *spec.generate.values()]
    prompt = max((len(p) for prompts in plan.experiment.prompts.values() for p in prompts), default=0)
    fills = [
        max(map(len, lines(plan.experiment.inputs[path].text)))
        for entry in spec.sample.values()
        for path in entry.fill.values()
    ]
    systems = [len(entry.system) for entry in entries] + [len(spec.system(name) or "") for name in spec.conditions]
    turns = max(sum(len(turn.text) for turn in entry.turns) for entry in entries)
    characters = prompt + sum(fills) + max(systems) + turns
    return max(SHORTEST_CONTEXT, 1 << math.ceil(math.log2(characters / 3 + 64 + longest)))


def lora_rank(plan: Lowering) -> int:
    """The smallest rank that vLLM admits for every arm; adapters that were stacked are served as one of their sum."""
    needed = max(sum(adapter_ranks(plan.spec, name)) for name in plan.spec.conditions)
    return next((admitted for admitted in LORA_RANKS if admitted >= needed), LORA_RANKS[-1])


def adapter_ranks(spec: Spec, condition: str) -> list[int]:
    """Ranks of the adapters of an arm, of which a later phase continues the last or adds one."""
    found: list[int] = []
    for phase in spec.phases(condition):
        recipe = spec.train.get(phase)
        if recipe is None:
            return []
        if found and recipe.on_top == "continue":
            found[-1] = max(found[-1], recipe.lora.r)
        else:
            found.append(recipe.lora.r)
    return found


def lower(plan: Lowering) -> str | None:
    if not plan.spec.sample:
        return None
    if "sample" in plan.keys:
        return "sample"
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
                "name": name, "prompts": plan.experiment.prompt_sets[entry.prompts].bundle_path, "count": len(prompts), **settings,
                "fill": {key: plan.bundle_path(path) for key, path in entry.fill.items()},
            }
        )  # fmt: skip
        recipes[name] = {
            **settings, "engine": plan.spec.sampler, "prompts": sorted(prompts), "fill": {key: plan.sha(path) for key, path in entry.fill.items()},
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
    longest = max(entry.max_tokens for entry in plan.spec.sample.values())
    systems = {name: text for name in plan.spec.conditions if (text := plan.spec.system(name)) is not None}
    constants = {
        "model": model_id, "dtype": plan.spec.model.dtype, "arms": found, "systems": systems, "sets": sets,
        "pieces": pieces, **engine(plan, longest), "max_lora_rank": lora_rank(plan),
    }  # fmt: skip
    return plan.add(
        id="sample", kind="sample", label=f"sample {completions:,} completions from {len(found)} arms", needs=needs,
        recipe={"sets": recipes, "pieces": sorted(pieces.values())}, outputs=("index.json",), constants=constants,
        origins={
            "model": "the model step", "dtype": ("model", "dtype"), "arms": ("conditions",), "sets": ("sample",),
            "systems": ("conditions",), "pieces": "content keys", **ENGINE_ORIGINS, "max_lora_rank": ("train",),
        },
        resources=Resources(threads=2, gpu=1),
        pieces=tuple(Piece(key=key, condition=c, seed=s, set=name) for (c, s, name), key in pieces.items()),
    )  # fmt: skip
