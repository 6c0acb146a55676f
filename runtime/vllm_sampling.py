"""What surrounds vLLM in an emitted script: its environment, what the machine admits, completions as we store them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
