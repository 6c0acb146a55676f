"""What the adapter of an arm must be before anything is computed with it; for sampling, all arms before the first.

An engine that loads an adapter only when its turn comes would stop after hours, and vLLM applies of an adapter what it
knows and leaves some of the rest out without a word: weights of the embeddings (`is_base_embedding_weights` in
vllm/lora/utils.py), and in releases before 0.32 ranks and scales of single modules and changed initial weights. So what
it does not apply is refused here, from the adapter's configuration and the names of its tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

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


def norm(adapter: Path) -> float:
    """Frobenius norm of all LoRA updates B A, unscaled: 0 exactly for an adapter that changes nothing.

    Raises Fault R0307 when the adapter cannot be read.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(adapter / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise _unreadable(adapter, error) from None
    total = torch.zeros((), dtype=torch.float64)
    for name, b in tensors.items():
        if "lora_B" in name:
            a = tensors[name.replace("lora_B", "lora_A")]
            # ||BA||_F^2 = tr((B^T B)(A A^T)), which needs only r x r products.
            b, a = b.double(), a.double()
            total += ((b.T @ b) * (a @ a.T)).sum()
    return float(total.clamp(min=0).sqrt())


def _unreadable(adapter: Path, error: Exception) -> Fault:
    return Fault("R0307", str(adapter), f"the adapter cannot be read: {error}", "delete the folder and run again")


def require_trained(adapter: Path) -> None:
    """Raise Fault R0307 for an adapter that cannot be read, R0308 for one that changes nothing, R1990 for weights that are
    not finite.
    """
    found = norm(adapter)
    if not math.isfinite(found):
        raise Fault(
            "R1990", str(adapter), "weights of the adapter are not finite",
            "delete the folder of its training and run again, with a lower learning rate if it happens again",
        )  # fmt: skip
    if found == 0.0:
        raise Fault(
            "R0308", str(adapter), "the adapter is empty: all its updates are zero",
            "train it again; an arm with an empty adapter is the base model under another name",
        )  # fmt: skip


def require_same_base(adapter: Path, model: Any, model_dir: Path) -> None:
    """Refuse an adapter that was trained on another model than this one, before anything loads it halfway.

    `model` is the base in memory, `model_dir` where it lies. An adapter names the folder of its base, which in a store
    is called by the key of the model; one from elsewhere is judged by its shapes alone. Raises Fault R0307 when the
    adapter cannot be read, R0310 when it names another base, R0309 when a projection that it adapts is not there or
    has another shape.
    """
    config = adapter / "adapter_config.json"
    try:
        named = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError) as error:
        raise _unreadable(adapter, error) from None
    theirs, ours = _store_key(named), _store_key(str(model_dir.absolute()))
    if theirs is not None and ours is not None and theirs != ours:
        raise Fault(
            "R0310", str(config), f"the adapter was trained on another model: {theirs}, and this is {ours}",
            "delete the folder of its training and run again: an adapter belongs to one base",
        )  # fmt: skip
    problem = _misfit(shapes(adapter), model)
    if problem:
        raise Fault(
            "R0309", str(adapter), f"the adapter does not fit this model: {problem}",
            "delete the folder of its training and run again: an adapter belongs to one base",
        )  # fmt: skip


def _store_key(path: Any) -> str | None:
    """The key of a model in the path of its folder, .../store/KEY/model; None for any other path."""
    parts = Path(path).parts if isinstance(path, str) else ()
    return parts[-2] if len(parts) >= 3 and (parts[-3], parts[-1]) == ("store", "model") else None


def shapes(adapter: Path) -> dict[str, tuple[int, ...]]:
    """Tensor -> shape, from the header of the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter / "adapter_model.safetensors", framework="pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _unreadable(adapter, error) from None


def _misfit(tensors: Mapping[str, tuple[int, ...]], model: Any) -> str:
    """The first tensor of an adapter that has no place in the model, as a phrase; empty when all have one.

    Of a projection (out, in), A is (rank, in) and B is (out, rank).
    """
    modules = dict(model.named_modules())
    for name, shape in tensors.items():
        side = next((side for side in ("lora_A", "lora_B") if f".{side}." in name), None)
        if side is None:
            continue
        place = name.partition(f".{side}.")[0].removeprefix("base_model.model.")
        weight = getattr(modules.get(place), "weight", None)
        if weight is None:
            return f"there is no {place} in it"
        out, inner = weight.shape
        expected = inner if side == "lora_A" else out
        found = shape[1] if side == "lora_A" else shape[0]
        if found != expected:
            return f"{name} has width {found}, {place} has {expected}"
    return ""


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
        require_same_base(adapter, base, model_dir)
        require_trained(adapter)
        if max_rank is not None:
            _require_served(adapter, base, max_rank)
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
    config: dict[str, Any] = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    found = shapes(adapter)
    unserved = [*_unserved_fields(config), *_unserved_tensors(found, base)]
    if unserved:
        raise Fault(
            "R1992", str(adapter), f"vLLM would not apply all of this adapter: {'; '.join(unserved[:3])}",
            "write sampler: transformers, which merges it, or train a plain LoRA of the layers' projections",
        )  # fmt: skip
    rank = max((shape[0] for name, shape in found.items() if name.endswith(".lora_A.weight")), default=0)
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


def _unserved_tensors(names: Iterable[str], base: Any) -> Iterator[str]:
    """Tensors that are no part of a LoRA, or of one of the embeddings or the output layer, which only some models get."""
    ends = [module for module in (base.get_input_embeddings(), base.get_output_embeddings()) if module is not None]
    outside = {name for name, module in base.named_modules() if any(module is end for end in ends)}
    for name in names:
        place, found, _ = name.removeprefix("base_model.model.").rpartition(".lora_")
        if not found or not name.endswith((".lora_A.weight", ".lora_B.weight")):
            yield f"it holds {name}"
        elif place in outside:
            yield f"it adapts {place}"
