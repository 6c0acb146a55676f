"""What surrounds vLLM in an emitted script: its environment, what the machine admits, completions as we store them.

One engine serves every arm, one call an arm and chunk. Every chunk starts from an empty prefix cache and is cut as if
nothing were stored, so what the engine computes for it does not depend on what it computed before. Beyond that the
rounding of half precision can differ with the rows that share a step: VLLM_BATCH_INVARIANT=1 in the environment makes
vLLM use kernels in which it does not, on NVIDIA GPUs from compute capability 8.0; vLLM calls that mode beta.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from epc.runtime import sampling
from epc.runtime.errors import Fault
from epc.runtime.sampling import Completion, Request, completion

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GIB = 1 << 30
GPU_RESERVE = 0.05
"""Share of a GPU's memory that stays free, at least 2 GiB: what graphs and the driver take after vLLM has measured."""
CPU_CACHE = 4 * GIB
"""Largest key-value cache on a processor; more lets more sequences wait, not run."""
CPU_BATCHED_TOKENS = 8192
COLDEST = 0.01
"""The lowest temperature above 0 that vLLM samples at; it raises lower ones to this (vllm/sampling_params.py)."""

ENVIRONMENT = {
    # The engine lives and dies with this process: nothing is left behind that holds GPU memory.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
CPU_ENVIRONMENT = {
    # Threads bound to cores would compete with whatever else runs there.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


def prepare() -> None:
    """Set what vLLM reads from the environment, and import it. A variable that is set already stays as it is.

    Raises Fault R0345 when vLLM is not installed, R0346 when it cannot be imported.
    """
    if find_spec("vllm") is None:
        raise Fault(
            "R0345", "sampler: vllm", "vLLM is not installed here",
            "pip install 'epc-prereg[vllm]', on the machine with the GPU; without one: sampler: transformers",
        )  # fmt: skip
    import torch

    for name, value in (ENVIRONMENT if torch.cuda.is_available() else ENVIRONMENT | CPU_ENVIRONMENT).items():
        os.environ.setdefault(name, value)
    try:
        import_module("vllm")
    except (ImportError, RuntimeError, OSError) as error:
        raise Fault(
            "R0346", "sampler: vllm", f"vLLM cannot be imported: {str(error).splitlines()[0] if str(error) else error!r}",
            "install it into an environment of its own: it pins torch, and other packages built for another torch break it",
        ) from error  # fmt: skip


def machine(model_dir: Path, *, max_model_len: int) -> dict[str, Any]:
    """Arguments of `vllm.LLM` that depend on the machine and not on the experiment.

    On a GPU, the share of its memory that is free now. On a processor, a key-value cache sized from
    free memory, no compilation, and whole prompts at once: seeded requests crash its chunked prefill.
    Raises Fault R0347 when the weights do not fit.
    """
    import torch

    weights = sum(file.stat().st_size for file in model_dir.glob("*.safetensors"))
    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return {"gpu_memory_utilization": gpu_share(free=free, total=total, weights=weights)}
    import psutil

    return {
        "enforce_eager": True,
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(max_model_len, CPU_BATCHED_TOKENS),
        "kv_cache_memory_bytes": cpu_cache(free=psutil.virtual_memory().available, weights=weights),
    }


def refuse_settings(entries: Sequence[Mapping[str, Any]]) -> None:
    """Raise Fault R1994 for a temperature that vLLM would replace by another one."""
    for entry in entries:
        if 0 < entry["temperature"] < COLDEST:
            raise Fault(
                "R1994", entry["name"], f"vLLM samples at temperature {COLDEST} where {entry['temperature']:g} is registered",
                f"write temperature: 0, or {COLDEST} and above; sampler: transformers takes any",
            )  # fmt: skip


def context(
    model_dir: Path, conversations: Iterable[Sequence[Request]], entries: Sequence[Mapping[str, Any]], *, expected: int
) -> int:
    """Tokens for which the engine is made: as many as were expected when the spec was compiled, which knew characters
    and no tokens, or as the longest conversation needs; never more than the model's own context.
    """
    prompts = max(len(request.prompt_ids) for requests in conversations for request in requests)
    needed = prompts + max(entry["max_tokens"] for entry in entries)
    found = sampling.context(model_dir, max(expected, needed))
    assert found is not None
    return found


def require_loaded(llm: Any, arms: Sequence[Any]) -> None:
    """Have the engine load the adapter of every arm once, before the first completion; `arms` are LoRARequests.

    Raises Fault R1995 with vLLM's own words for one that it refuses.
    """
    for arm in arms:
        try:
            taken = llm.llm_engine.add_lora(arm)
        except (ValueError, RuntimeError, AssertionError) as error:
            raise _refused(arm, (str(error).splitlines() or [repr(error)])[0]) from error
        if not taken:
            raise _refused(arm, "it says no more than that")


def _refused(arm: Any, reason: str) -> Fault:
    return Fault(
        "R1995", str(arm.lora_path), f"vLLM refuses the adapter of {arm.lora_name}: {reason}",
        "write sampler: transformers, which merges it, or look for the adapters that vLLM serves for this model",
    )  # fmt: skip


def gpu_share(*, free: int, total: int, weights: int) -> float:
    """`gpu_memory_utilization` from bytes: all that is free but a reserve, in whole percent.

    vLLM refuses a share that is not free and takes what weights and activations leave of it as cache.
    Raises Fault R0347 when less than the weights and a tenth is left.
    """
    usable = free - max(2 * GIB, round(GPU_RESERVE * total))
    if usable < 1.1 * weights:
        raise Fault(
            "R0347", "GPU memory", f"{free / GIB:.1f} of {total / GIB:.1f} GiB are free, and the weights take {weights / GIB:.1f} GiB",
            "end what holds the memory (nvidia-smi lists it), or use a larger GPU",
        )  # fmt: skip
    return max(usable * 100 // total, 1) / 100


def cpu_cache(*, free: int, weights: int) -> int:
    """`kv_cache_memory_bytes` from bytes: half of what twice the weights leave free, at most CPU_CACHE.

    Twice, because loading holds a second copy for a while. Raises Fault R0347 when nothing is left.
    """
    usable = free - 2 * weights
    if usable <= 0:
        raise Fault(
            "R0347", "memory", f"{free / GIB:.1f} GiB are free, and the weights take {weights / GIB:.1f} GiB, twice while they load",
            "end what holds the memory, or use a larger machine",
        )  # fmt: skip
    return min(usable // 2, CPU_CACHE)


def completions(
    tokenizer: PreTrainedTokenizerBase, requests: Sequence[Request], outputs: Sequence[Any]
) -> list[Completion]:
    """vLLM's `RequestOutput`s as completions, in the order of the requests.

    Raises Fault R0348 for an output that belongs to another prompt, or that ended neither by a stop
    token nor by its length: it was aborted, and half a text is no completion.
    """
    return [_completion(tokenizer, *pair) for pair in zip(requests, outputs, strict=True)]


def _completion(tokenizer: PreTrainedTokenizerBase, request: Request, output: Any) -> Completion:
    place = f"vLLM, {request.item}/{request.index}"
    if list(output.prompt_token_ids) != request.prompt_ids:
        raise Fault("R0348", place, "the output answers another prompt", "this is a bug: report it")
    (only,) = output.outputs
    reasons: tuple[Literal["stop", "length"], ...] = ("stop", "length")
    for reason in reasons:
        if only.finish_reason == reason:
            return completion(tokenizer, request, only.token_ids, reason)
    raise Fault(
        "R0348", place, f"the completion ended with {only.finish_reason!r}, neither stop nor length",
        "run again: what was stored is kept; look for an error of vLLM in the step's log",
    )  # fmt: skip
