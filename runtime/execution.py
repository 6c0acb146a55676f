"""How a registered training is carried out on the machine at hand: micro-batch, padding, kernels, recomputation.

The recipe says what is computed: effective batch, order of rows, loss over the trained tokens of an
optimizer step. An execution plan says how, and may not change it: every plan of a script walks through the
same rows in the same order and divides each step's loss by the same number of tokens, so the loss curves
differ by rounding only. The compiler writes the plans, best first; the first that this machine has the
kernels and the memory for is taken, and the finish record names it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from epc.runtime import attention, device_faults, devices
from epc.runtime.errors import Fault

if TYPE_CHECKING:
    import torch

    from epc.runtime.step import Step

CHOICE: Final = "EPC_EXECUTION"
"""Environment variable: `plain` takes the last plan, what the training library does by itself."""
SHARE: Final = 0.92
"""Of the free memory that a plan may be predicted to fill; the rest is for fragments."""
WARM_UP: Final = 3
"""Optimizer steps that are left out of the measured rate: kernels are compiled and chosen in them."""
LEAK: Final = 0.05
"""Relative difference of hidden states that rounding to bf16 explains; a row that reads another differs by about 1."""
GIB: Final = 2**30


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One way to carry out a training."""

    micro_batch: int
    """Rows in a forward pass."""
    accumulation: int
    """Forward passes in an optimizer step."""
    padding_free: bool = False
    """Rows laid end to end with positions that restart, instead of padded to the longest."""
    attention: Literal["sdpa", "varlen"] = "sdpa"
    """varlen: flash attention over rows of several lengths, on a GPU in half precision."""
    liger: bool = False
    """Liger's fused kernels: no logits of a whole batch, norms and activations recomputed."""
    checkpointing: bool = False
    """Activations recomputed in the backward pass."""

    def __str__(self) -> str:
        parts = [f"{self.micro_batch} rows x {self.accumulation}"]
        parts.append(f"padding-free, {self.attention} attention" if self.padding_free else "padded")
        parts += ["Liger kernels"] if self.liger else []
        parts += ["activations recomputed"] if self.checkpointing else []
        return ", ".join(parts)


def plans(written: Sequence[Mapping[str, Any]], *, effective_batch: int, dtype: str) -> Iterator[Plan]:
    """The plans that this machine has the kernels for, best first; says why another is passed over.

    Raises Fault R0337 when a caller asks for one more after the last: even that did not fit; R0339 for a plan that
    makes another effective batch than registered.
    """
    found = [Plan(**entry) for entry in written]
    for plan in found:
        if plan.micro_batch * plan.accumulation != effective_batch:
            raise Fault(
                "R0339", "execution plan", f"{plan} makes {plan.micro_batch * plan.accumulation} rows an optimizer step,"
                f" registered are {effective_batch}", "compile the spec again; a plan decides how, never what is computed",
            )  # fmt: skip
    if os.environ.get(CHOICE) == "plain":
        found = found[-1:]
    for plan in found:
        if lacking := _lacking(plan, dtype=dtype):
            print(f"execution plan passed over ({plan}): {lacking}", flush=True)
            continue
        print(f"execution plan: {plan}", flush=True)
        yield plan
    if devices.take_whole():
        yield from plans(written, effective_batch=effective_batch, dtype=dtype)
    raise Fault(
        "R0337", "GPU" if _cuda() else "memory", "the training does not fit into the memory, not even row by row as planned last",
        "free the device (nvidia-smi shows who holds it), or use a larger one; the recipe need not change",
    )  # fmt: skip


def _lacking(plan: Plan, *, dtype: str) -> str:
    """What this machine lacks for a plan; empty when nothing."""
    needs_gpu = plan.liger or plan.attention == "varlen"
    if needs_gpu and not _cuda():
        return "no GPU"
    if plan.liger and importlib.util.find_spec("liger_kernel") is None:
        return "liger-kernel is not installed: pip install 'epc-prereg[gpu]'"
    if plan.attention == "varlen":
        return attention.lacking(dtype)
    return ""


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def train(trainer: Any, plan: Plan, step: Step) -> bool:
    """Train, and record the plan, tokens a second and peak memory in the step's facts; False when memory ran out.

    The heaviest micro-batch is predicted from a memory model and, on a GPU, tried first, so that a plan
    that cannot work is given up within seconds; one that fails in the middle all the same is given up too,
    and the next starts from the first row. Raises Fault R0338 when rows laid end to end read one another.
    """
    import torch

    batches = _Batches(trainer)
    if batches.predicted > SHARE * batches.free:
        print(
            f"  needs about {batches.predicted / GIB:.0f} GiB beside the weights, {batches.free / GIB:.0f} are free",
            flush=True,
        )
        _release(trainer)
        return False
    clock = _clock()
    trainer.add_callback(clock)
    full = ""
    try:
        with _uncast_inputs(trainer, plan):
            if plan.padding_free:
                _refuse_leaks(trainer, batches)
            if _cuda():
                _probe(trainer, batches)
                torch.cuda.reset_peak_memory_stats()
            trainer.train()
    except RuntimeError as error:  # an OutOfMemoryError is one, and libraries of CUDA say it in words of their own
        if not device_faults.memory_is_full(error):
            raise
        full = str(error).splitlines()[0]
    if full:  # only now that the error is gone, whose traceback holds what was computed
        print(f"  out of memory: {full}", flush=True)
        _release(trainer)
        return False
    facts = {"plan": asdict(plan), "device": torch.cuda.get_device_name() if _cuda() else "cpu", **clock.facts()}
    if _cuda():
        facts["peak_gib"] = round(torch.cuda.max_memory_allocated() / GIB, 1)
    step.facts["execution"] = facts
    return True


def _release(trainer: Any) -> None:
    """Leave the memory to the next plan, while the script still holds the trainer."""
    import gc

    import torch

    trainer.model = trainer.model_wrapped = trainer.optimizer = trainer.accelerator = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class _Batches:
    """The micro-batches of the first epoch, and what the heaviest of them needs."""

    def __init__(self, trainer: Any) -> None:
        import torch

        self.trainer = trainer
        lengths = [len(row) for row in trainer.train_dataset["input_ids"]]
        flat = trainer.args.padding_free

        def tokens(batch: Sequence[int]) -> int:
            found = [lengths[number] for number in batch]
            return sum(found) if flat else len(found) * max(found)

        self.order = _order(trainer)
        self.heaviest = max(self.order, key=tokens)
        self.lightest = sorted(range(len(lengths)), key=lambda number: (lengths[number], number))[:2]
        self.predicted = _activations(trainer.model.config.get_text_config(), tokens(self.heaviest), trainer.args)
        self.free = devices.free_bytes() if torch.cuda.is_available() else float("inf")

    def collated(self, numbers: Sequence[int]) -> dict[str, Any]:
        rows = self.trainer.train_dataset
        batch = self.trainer.data_collator([rows[number] for number in numbers])
        device = self.trainer.args.device
        return {name: value.to(device) if hasattr(value, "to") else value for name, value in batch.items()}


def _order(trainer: Any) -> list[list[int]]:
    """Rows of each micro-batch of the first epoch, as the trainer will take them; no random state is moved on."""
    import torch

    state = torch.random.get_rng_state()
    order = [list(batch) for batch in trainer.get_train_dataloader().batch_sampler]
    torch.random.set_rng_state(state)
    return order


def _activations(config: Any, tokens: int, args: Any) -> float:
    """Bytes kept for the backward pass of a decoder whose adapters sit on all seven projections.

    Of each token a layer keeps about eight vectors of the hidden and three of the intermediate size, in half
    precision; with recomputation one hidden vector. Measured with Qwen2.5-7B, 32 rows and about 10,000 tokens on an
    H200: 65 GiB with the weights' 14. Without fused kernels the logits come on top, three times in float32.
    """
    width = 2 if args.bf16 or args.fp16 else 4
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    full = width * (8 * hidden + 3 * inner)
    kept = layers * width * hidden + full if args.gradient_checkpointing else layers * full
    logits = 0 if args.use_liger_kernel else 3 * 4 * config.vocab_size
    return float(tokens * (kept + logits))


@contextlib.contextmanager
def _uncast_inputs(trainer: Any, plan: Plan) -> Iterator[None]:
    """Leave activations in half precision on their way into an adapter whose weights are in float32.

    PEFT widens them first, and autocast narrows them again before they are multiplied: the same numbers, for two
    copies of every activation.
    """
    if not plan.padding_free or not (trainer.args.bf16 or trainer.args.fp16):
        yield
        return
    from peft.helpers import disable_input_dtype_casting

    with disable_input_dtype_casting(trainer.model):
        yield


def _autocast(trainer: Any) -> Any:
    """What the trainer wraps its own forward passes in, once it trains."""
    import torch

    args = trainer.args
    dtype = torch.bfloat16 if args.bf16 else torch.float16
    return torch.autocast(args.device.type, dtype=dtype, enabled=args.bf16 or args.fp16)


def _probe(trainer: Any, batches: _Batches) -> None:
    """Forward and backward over the heaviest micro-batch; nothing of it is kept."""
    import torch

    state = torch.random.get_rng_state(), torch.cuda.get_rng_state_all()
    trainer.model.train()
    with _autocast(trainer):
        loss = trainer.model(**batches.collated(batches.heaviest), use_cache=False).loss
    loss.backward()
    trainer.model.zero_grad(set_to_none=True)
    del loss
    torch.cuda.synchronize()
    torch.random.set_rng_state(state[0])
    torch.cuda.set_rng_state_all(state[1])


def _refuse_leaks(trainer: Any, batches: _Batches) -> None:
    """Raise Fault R0338 when a row's hidden states depend on the row that lies before it."""
    import torch

    decoder = trainer.model.get_base_model().model
    rows = [batches.collated([number]) for number in batches.lightest]
    together = batches.collated(batches.lightest)

    def hidden(batch: Mapping[str, Any]) -> torch.Tensor:
        with torch.no_grad(), _autocast(trainer):
            found = decoder(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False)
        return found.last_hidden_state.float()  # type: ignore[no-any-return]

    was = trainer.model.training
    trainer.model.eval()
    alone, flat = torch.cat([hidden(row) for row in rows], dim=1), hidden(together)
    trainer.model.train(was)
    error = float((alone - flat).norm() / alone.norm())
    if not error < LEAK:
        raise Fault(
            "R0338", "execution plan", f"rows that lie end to end read one another: their hidden states differ by {error:.2g}",
            f"run with {CHOICE}=plain, and report it with the versions of torch and transformers",
        )  # fmt: skip


def _clock() -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Tokens a second over the optimizer steps after the first few."""

        def __init__(self) -> None:
            self.ends: list[tuple[float, float]] = []

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" in logs:  # which waited for the device
                self.ends.append((time.monotonic(), float(logs.get("num_tokens", 0))))

        def facts(self) -> dict[str, Any]:
            first = min(WARM_UP, len(self.ends) - 1) - 1
            if first < 0:
                return {}
            (began, before), (ended, after) = self.ends[first], self.ends[-1]
            return {"tokens_per_second": round((after - before) / max(ended - began, 1e-9))}

    return Clock()
