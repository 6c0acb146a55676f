"""One phase of a chain: LoRA supervised fine-tuning."""

from __future__ import annotations

from typing import Any, Final

from epc.compiler import cost
from epc.compiler.contract.devices import LARGE
from epc.compiler.contract.manifest import Resources
from epc.compiler.contract.training import ADAPTER, ARGUMENTS
from epc.compiler.kinds import data, mask, model
from epc.compiler.lowering import Lowering, phase_facts
from epc.compiler.source import PathKey
from epc.compiler.spec import LoraSft, Spec, TurnsData

SMALLEST: Final = 4
"""Rows below which a micro-batch without padding is no faster than a padded one."""


def plans(spec: Spec, recipe: LoraSft) -> list[dict[str, Any]]:
    """Ways to carry a recipe out, best first; the last is what the training library does by itself.

    For a model that needs a GPU, whole effective batches without padding and with fused kernels come first, then halves
    of them; each walks through the same rows in the same order, because its micro-batches divide the effective batch.
    A model of unknown size is taken to be large: running out of memory is worse than a probe.
    """
    parameters = cost.parameters_of(spec)
    large = parameters is None or parameters >= LARGE
    plain = {"micro_batch": recipe.batch, "accumulation": recipe.accumulation, "checkpointing": large}
    effective = recipe.batch * recipe.accumulation
    halves = [effective // parts for parts in (1, 2, 4, 8) if effective % parts == 0 and effective // parts >= SMALLEST]
    fast = {"padding_free": True, "attention": "varlen", "liger": True}
    return [*({"micro_batch": size, "accumulation": effective // size, **fast} for size in halves), plain]


def lower(plan: Lowering, phases: tuple[str, ...], seed: int) -> str:
    """The last phase of a chain; the chain before it is trained first, once."""
    name = f"train-s{seed}-{'.'.join(phases)}"
    if name in plan.keys:
        return name
    *before, phase = phases
    parent = lower(plan, tuple(before), seed) if before else None
    recipe = plan.spec.train[phase]
    facts = phase_facts(plan.experiment, phase)
    assert facts is not None
    model_id, data_id, mask_id = model.lower(plan), data.lower(plan, recipe.data), mask.lower(plan, phase)
    lora = recipe.lora.model_dump()
    shared = {
        "train_on": recipe.train_on, "lora": lora, "learning_rate": recipe.learning_rate,
        "schedule": recipe.schedule, "warmup_steps": facts.warmup_steps, "epochs": recipe.epochs,
        "batch": recipe.batch, "accumulation": recipe.accumulation, "max_length": recipe.max_length,
        "seed": seed, "dtype": plan.spec.model.dtype, "optimizer_steps": facts.optimizer_steps,
    }  # fmt: skip
    constants = {
        "model": model_id, "data": data_id, "rows": plan.spec.data[recipe.data].rows,
        "data_sha256": plan.experiment.data[recipe.data].sha256, "parent": parent,
        "on_top": recipe.on_top, **shared, "threads": 1,
        "plans": plans(plan.spec, recipe), "arguments": ARGUMENTS, "adapter": ADAPTER,
    }  # fmt: skip
    base: PathKey = ("train", phase)
    origins: dict[str, PathKey | str] = {key: (*base, key) for key in constants}
    warmup = "warmup_steps" if recipe.warmup_steps is not None else "warmup_ratio"
    origins |= {
        "model": "the model step", "rows": ("data", recipe.data, "rows"), "data_sha256": data.sha256_origin(plan, recipe.data), "seed": ("seeds",),
        **{f"lora.{key}": (*base, "lora", key) for key in lora},
        "parent": "the phase before" if parent else "first phase", "dtype": ("model", "dtype"),
        "warmup_steps": (*base, warmup),
        "optimizer_steps": "computed: epochs x ceil(ceil(rows / batch) / accumulation)",
        "threads": "execution plan", "plans": "execution plan",
    }  # fmt: skip
    outputs = ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "log.jsonl"]
    stacked = parent is not None and recipe.on_top == "stack"
    if stacked:
        outputs.append("increment/adapter_model.safetensors")
    chain = " then ".join(phases)
    return plan.add(
        id=name, kind="train",
        label=f"train {chain}, seed {seed}: {facts.optimizer_steps} optimizer steps",
        needs=(model_id, data_id, mask_id, *((parent,) if parent else ())),
        recipe={"method": recipe.method, **shared, **({"on_top": recipe.on_top} if parent else {})},
        outputs=tuple(outputs), constants=constants, origins=origins, resources=Resources(threads=1, gpu=1, gpu_mib=_gpu_mib(plan, phases)),
    )  # fmt: skip


def _gpu_mib(plan: Lowering, phases: tuple[str, ...]) -> int:
    """MiB of a GPU for the last phase of a chain, 0 for one of its own."""
    recipe = plan.spec.train[phases[-1]]
    built, entry = plan.experiment.data[recipe.data], plan.spec.data[recipe.data]
    turns = len(entry.turns) if isinstance(entry, TurnsData) else max(2, 2 * built.assistant_turns)
    return cost.training_mib(plan.spec, recipe, longest=built.longest, turns=turns, adapters=len(phases))
