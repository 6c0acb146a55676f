"""Texts that the base model writes before any training: one step, one engine start."""

from __future__ import annotations

from typing import Any

from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.manifest import Resources
from epc.compiler.kinds import model, sample
from epc.compiler.lowering import Lowering


def prompts_path(name: str) -> str:
    """Where the prompts of a `generate` entry lie in the bundle, its sets one after another."""
    return f"inputs/prompts/{name}.generate.txt"


def lower(plan: Lowering) -> str:
    if "generate" in plan.keys:
        return "generate"
    model_id = model.lower(plan)
    entries: list[dict[str, Any]] = []
    recipes: dict[str, dict[str, Any]] = {}
    for name, entry in plan.spec.generate.items():
        prompts = [prompt for prompts in entry.prompts for prompt in plan.experiment.prompts[prompts]]
        settings = {
            "system": entry.system, "turns": [(turn.role, turn.text) for turn in entry.turns], "n": entry.n,
            "temperature": entry.temperature, "top_p": entry.top_p, "max_tokens": entry.max_tokens, "seed": entry.seed,
        }  # fmt: skip
        entries.append({"name": name, "prompts": prompts_path(name), "count": len(prompts), **settings, "fill": {}})
        recipes[name] = {**settings, "prompts_sha256": sha256_text("\n".join(prompts))}
    texts = sum(entry["count"] * entry["n"] for entry in entries)
    longest = max(entry["max_tokens"] for entry in entries)
    return plan.add(
        id="generate", kind="generate", label=f"let the base model write {texts:,} texts for {len(entries)} entries",
        needs=(model_id,), recipe={"entries": recipes, "engine": plan.spec.sampler, "dtype": plan.spec.model.dtype},
        outputs=tuple(f"texts/{name}.jsonl" for name in recipes),
        constants={
            "model": model_id, "dtype": plan.spec.model.dtype, "entries": entries, **sample.engine(plan, longest),
        },
        origins={
            "model": "the model step", "dtype": ("model", "dtype"), "entries": ("generate",), **sample.ENGINE_ORIGINS,
        },
        resources=Resources(threads=2, gpu=1),
    )  # fmt: skip
