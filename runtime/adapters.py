"""What the adapter of an arm must be before anything is sampled from it: all arms are looked at before the first.

An engine that loads an adapter only when its turn comes would stop after hours, and vLLM applies of an adapter what it
knows and leaves some of the rest out without a word: weights of the embeddings (`is_base_embedding_weights` in
vllm/lora/utils.py), and in releases before 0.32 ranks and scales of single modules and changed initial weights. So what
it does not apply is refused here, from the adapter's configuration and the names of its tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from epc.runtime import models
from epc.runtime.errors import Fault

SERVED: Final = frozenset(
    {
        "r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", "exclude_modules", "layers_to_transform",
        "layers_pattern", "fan_in_fan_out", "task_type", "peft_type", "peft_version", "auto_mapping", "revision",
        "base_model_name_or_path", "inference_mode", "eva_config", "init_lora_weights",
    }
)  # fmt: skip
"""Fields of adapter_config.json that vLLM applies, that the tensors say anyway, or that only training reads."""
PLAIN_INITS: Final = ("gaussian", "orthogonal", "eva")
"""Values of init_lora_weights, besides true and false, that leave the weights of the base as they are."""


def require(adapters: Mapping[str, Path], model_dir: Path, *, max_rank: int | None = None) -> None:
    """Refuse adapters that cannot be served, arm -> folder; every arm is looked at, and the message counts them.

    `max_rank` is that of a vLLM engine; None for the transformers engine, which merges whatever PEFT can load. Raises
    Fault R0307 for an adapter that cannot be read, R0308 for one that changes nothing, R0309 and R0310 for one of
    another base, R1990 for weights that are not finite, R1991 for a rank above `max_rank`, R1992 for an adapter of
    which vLLM would leave a part out.
    """
    if not adapters:
        return
    base = _skeleton(model_dir)
    found = [fault for folder in adapters.values() if (fault := _problem(folder, model_dir, base, max_rank))]
    if not found:
        return
    first, others = found[0], found[1:]
    more = "".join(f"; also refused, {fault.code}: {fault.place}" for fault in others)
    raise Fault(first.code, first.place, first.fact + more, first.remedy)


def _problem(adapter: Path, model_dir: Path, base: Any, max_rank: int | None) -> Fault | None:
    try:
        models.require_same_base(adapter, base, model_dir)
        norm = models.adapter_norm(adapter)
        if not math.isfinite(norm):
            raise Fault(
                "R1990", str(adapter), "weights of the adapter are not finite",
                "delete the folder of its training and run again, with a lower learning rate if it happens again",
            )  # fmt: skip
        if max_rank is not None:
            _require_served(adapter, base, max_rank)
        models.refuse_empty(adapter)
    except Fault as fault:
        return fault
    return None


def _skeleton(model_dir: Path) -> Any:
    """The modules of a model with their shapes, and no weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_dir))  # type: ignore[no-untyped-call]


def _require_served(adapter: Path, base: Any, max_rank: int) -> None:
    """Raise Fault R1991 for a rank above `max_rank`, R1992 for what vLLM would leave out."""
    from safetensors import safe_open

    config: dict[str, Any] = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as tensors:
        shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    unserved = [*_unserved_fields(config), *_unserved_tensors(shapes, base)]
    if unserved:
        raise Fault(
            "R1992", str(adapter), f"vLLM would not apply all of this adapter: {'; '.join(unserved[:3])}",
            "write sampler: transformers, which merges it, or train a plain LoRA of the layers' projections",
        )  # fmt: skip
    rank = max((shape[0] for name, shape in shapes.items() if name.endswith(".lora_A.weight")), default=0)
    if rank > max_rank:
        raise Fault(
            "R1991", str(adapter), f"the adapter has rank {rank}, and the engine is made for at most {max_rank}",
            "compile the spec again, which sizes the engine, and run it unchanged; vLLM itself admits up to 512",
        )  # fmt: skip


def _unserved_fields(config: Mapping[str, Any]) -> Iterator[str]:
    """What a configuration asks for beside SERVED, other than PEFT's own defaults."""
    from peft import LoraConfig

    usual = LoraConfig().to_dict()  # type: ignore[no-untyped-call]
    if config.get("peft_type") != "LORA":
        yield f"peft_type is {config.get('peft_type')}"
    init = config.get("init_lora_weights", True)
    if not isinstance(init, bool) and init not in PLAIN_INITS:
        yield f"init_lora_weights is {init}, which changes the weights of the base"
    for name, value in config.items():
        if value and name not in SERVED and value != usual.get(name):
            yield f"{name} is {json.dumps(value)}"


def _unserved_tensors(shapes: Mapping[str, Any], base: Any) -> Iterator[str]:
    """Tensors that are no part of a LoRA, or of one of the embeddings or the output layer, which only some models get."""
    ends = [module for module in (base.get_input_embeddings(), base.get_output_embeddings()) if module is not None]
    outside = {name for name, module in base.named_modules() if any(module is end for end in ends)}
    for name in shapes:
        place, found, _ = name.removeprefix("base_model.model.").rpartition(".lora_")
        if not found or not name.endswith((".lora_A.weight", ".lora_B.weight")):
            yield f"it holds {name}"
        elif place in outside:
            yield f"it adapts {place}"
