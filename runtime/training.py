"""What surrounds a training: that it follows its recipe, the live line, the stop on a broken loss, and proof that the
adapter changed.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from epc.runtime import adapters, recipe
from epc.runtime.errors import Fault

if TYPE_CHECKING:
    import torch
    from transformers import TrainerCallback

    from epc.runtime.step import Step

FINGERPRINT_PERIOD = 251
"""A prime: bytes that far apart have the same weight in a fingerprint."""
SERVED: Final = "served"
"""Name of the concatenation of stacked adapters."""
SUM_WEIGHTS: Final = 1e-4
"""Relative difference of an update from the sum of its parts that float32 weights explain."""
SUM_LOGITS: Final = 1e-3
"""Relative difference of logits that rounding explains in float32."""
SUM_NOISE: Final = 3.0
"""Times the difference that summing the stacked adapters in the other order makes, besides: 0.02 of the logits in bf16."""
SUM_ROWS: Final = (4, 32)
"""Rows and tokens over which they are compared."""
PRIME: Final = 7919
FINGERPRINT_ROWS = 1 << 15
"""Periods summed at a time: 8 MB of weights, which take 66 MB meanwhile."""


def progress_callback(step: Step) -> TrainerCallback:
    """A callback that holds the trainer to its recipe, publishes step, loss and tokens/s, and stops on a broken loss.

    Raises Fault R0309 or R0310 for an adapter of another base, R0370 for a training that does not follow its recipe,
    R0372 for one of other tokens than were verified, R0331 for a loss that is not finite, R1880 for a learning rate
    that is not the schedule's, R1881 for an optimizer step that was left out.
    """
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            found = recipe.used(
                args=args, state=state, model=kwargs["model"], optimizer=kwargs["optimizer"],
                dataloader=kwargs["train_dataloader"],
            )  # fmt: skip
            step.facts |= recipe.followed(step, found)
            _require_same_base(step, kwargs["model"])
            self.began = time.monotonic()
            step.progress(0, state.max_steps)

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            _require_rate(step, kwargs["optimizer"], state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if getattr(kwargs["optimizer"], "step_was_skipped", False):
                raise Fault(
                    "R1881", step.plan.script, f"optimizer step {state.global_step} was left out: the gradients overflow float16",
                    "write model.dtype: bfloat16, which has the range of float32",
                )  # fmt: skip

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" not in logs:
                return
            # The trainer may hand the figures over as formatted text.
            loss, tokens = float(logs["loss"]), float(logs.get("num_tokens", 0))
            if not math.isfinite(loss):
                raise Fault(
                    "R0331", step.plan.script, f"the loss is {loss} at optimizer step {state.global_step}",
                    "lower the learning rate or look at the data; nothing of this training is kept",
                )  # fmt: skip
            speed = tokens / (time.monotonic() - self.began)
            step.progress(state.global_step, state.max_steps, loss=round(loss, 4), tokens_per_second=round(speed))

    return Progress()


def _require_rate(step: Step, optimizer: Any, number: int) -> None:
    """Raise Fault R1880 unless the optimizer is about to use the learning rate that is registered for this step."""
    expected = recipe.rate_at(step.plan.recipe, number)
    wrong = [
        g["lr"] for g in optimizer.param_groups if not math.isclose(g["lr"], expected, rel_tol=1e-6, abs_tol=1e-15)
    ]
    if wrong:
        raise Fault(
            "R1880", step.plan.script,
            f"the learning rate of optimizer step {number + 1} is {float(wrong[0]):.6g}, that of the registered schedule {expected:.6g}",
            "report it with the version of transformers; nothing of this training is kept",
        )  # fmt: skip


def _require_same_base(step: Step, model: Any) -> None:
    """The adapter of the phase before belongs to this model. Raises Fault R0307, R0309 or R0310."""
    kinds = {other.id: other.kind for other in step.manifest.steps}
    for need in step.plan.needs:
        if kinds[need] == "train":
            base = next(step.input(name) for name in step.plan.needs if kinds[name] == "model") / "model"
            adapters.require_same_base(step.input(need) / "adapter", model.get_base_model(), base)


def require_same_shape(model: Any, *, r: int, alpha: int, place: Path) -> None:
    """Raise Fault R0332 when an adapter to be continued has another rank or alpha than registered."""
    config = model.peft_config["default"]
    if (config.r, config.lora_alpha) != (r, alpha):
        raise Fault(
            "R0332", str(place),
            f"the adapter to continue has r={config.r}, alpha={config.lora_alpha}; registered is r={r}, alpha={alpha}",
            "give both phases the same lora, or write on_top: stack",
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Parameters before training: trainable ones as copies, all others as fingerprints."""

    trainable: dict[str, torch.Tensor]
    frozen: dict[str, int]


def snapshot(model: Any) -> Snapshot:
    """Take it after the trainer has been built and before it trains."""
    parameters = dict(model.named_parameters())
    return Snapshot(
        trainable={name: p.detach().clone() for name, p in parameters.items() if p.requires_grad},
        frozen={name: _fingerprint(p) for name, p in parameters.items() if not p.requires_grad},
    )


def _fingerprint(tensor: torch.Tensor) -> int:
    """Sum of the tensor's bytes, each weighted by its place modulo a prime: a changed weight changes it."""
    import torch

    weights = torch.arange(1, FINGERPRINT_PERIOD + 1, device=tensor.device)
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    data = tensor.detach().contiguous().view(-1).view(torch.uint8)
    # Piece by piece, because the sum widens each byte to eight: the embedding of a 7B model would take 8 GiB at once.
    for piece in torch.split(data, FINGERPRINT_PERIOD * FINGERPRINT_ROWS):
        whole = len(piece) // FINGERPRINT_PERIOD * FINGERPRINT_PERIOD
        rows = piece[:whole].view(-1, FINGERPRINT_PERIOD).sum(dim=0, dtype=torch.int64)
        rest = piece[whole:].to(torch.int64)
        total += (rows * weights).sum() + (rest * weights[: len(rest)]).sum()
    return int(total)


def verify(trainer: Any, before: Snapshot, *, optimizer_steps: int, place: Path) -> dict[str, Any]:
    """Facts of a finished training.

    Raises Fault R0333 (another number of optimizer steps than registered), R0334 (a weight is not
    finite), R0335 (the adapter did not change), R0336 (a frozen weight changed).
    """
    import torch

    if trainer.state.global_step != optimizer_steps:
        raise Fault(
            "R0333", str(place), f"{trainer.state.global_step} optimizer steps were made, registered are {optimizer_steps}",
            "one process and one device must run this script; more of them change the effective batch",
        )  # fmt: skip
    parameters = dict(trainer.model.named_parameters())
    squared, changed, total = 0.0, 0, 0
    for name, old in before.trainable.items():
        new = parameters[name].detach()
        if not bool(torch.isfinite(new).all()):
            raise Fault("R0334", str(place), f"{name} is not finite after training", "lower the learning rate")
        difference = (new - old).double()
        squared += float((difference**2).sum())
        changed += int((difference != 0).sum())
        total += difference.numel()
    if changed == 0:
        raise Fault(
            "R0335", str(place), "training changed no parameter of the adapter",
            "check learning rate, epochs and the mask: this arm would be its parent under another name",
        )  # fmt: skip
    touched = [name for name, mark in before.frozen.items() if _fingerprint(parameters[name]) != mark]
    if touched:
        raise Fault("R0336", str(place), f"training changed the frozen weight {touched[0]}", "report it: only the adapter may change")  # fmt: skip
    logs = trainer.state.log_history
    losses = [float(entry["loss"]) for entry in logs if "loss" in entry]
    return {
        "adapter_changed": True,
        "adapter_norm": round(math.sqrt(squared), 6),
        "changed_parameters": changed,
        "trainable_parameters": total,
        "optimizer_steps": trainer.state.global_step,
        "first_loss": losses[0],
        "final_loss": losses[-1],
        "tokens": int(max(float(entry.get("num_tokens", 0)) for entry in logs)),
    }


def write_log(trainer: Any, file: Path) -> None:
    """One JSON object for each logged step: step, loss, learning rate, gradient norm, tokens."""
    names = ("step", "loss", "learning_rate", "grad_norm", "num_tokens")
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    lines = [json.dumps({name: float(entry[name]) for name in names if name in entry}) for entry in entries]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def save_stacked(model: Any, names: list[str], out: Path) -> None:
    """Save adapters that act together as one: `adapter/` is their concatenation, `increment/` the last alone.

    B A of the concatenation is the sum of the parts' scaled B A, so its rank is the sum of the ranks
    and its logits equal the stacked ones up to rounding. Raises Fault R0371 where they do not.
    """
    model.add_weighted_adapter(names, [1.0] * len(names), SERVED, combination_type="cat")
    _restore_precision(model, names)
    _refuse_other_sum(model, names, place=out)
    for name, folder in ((SERVED, out / "adapter"), (names[-1], out / "increment")):
        model.save_pretrained(str(folder), selected_adapters=[name])
        for file in (folder / name).iterdir():  # a named adapter is saved one level down
            file.replace(folder / file.name)
        (folder / name).rmdir()


def _parts(module: Any, names: list[str]) -> list[tuple[torch.Tensor, torch.Tensor, float]]:
    """(A, B, scaling) of the adapters that a projection has; they may sit on different projections."""
    return [
        (module.lora_A[name].weight.detach(), module.lora_B[name].weight.detach(), module.scaling[name])
        for name in names if name in module.lora_A
    ]  # fmt: skip


def _restore_precision(model: Any, names: list[str]) -> None:
    """Fill the concatenation again in the precision of its parts.

    PEFT makes it in that of the base: in bfloat16 every weight of a float32 adapter would be off by up to 0.4%.
    """
    import torch

    for module in model.modules():
        if SERVED not in getattr(module, "lora_A", {}):
            continue
        parts = _parts(module, names)
        a, b = (
            torch.cat([part * scaling for part, _, scaling in parts]),
            torch.cat([part for _, part, _ in parts], dim=1),
        )
        wide_a, wide_b = module.lora_A[SERVED].weight, module.lora_B[SERVED].weight
        wide_a.data, wide_b.data = wide_a.data.to(a.dtype), wide_b.data.to(b.dtype)
        wide_a.data[: len(a)], wide_b.data[:, : b.shape[1]] = a, b


def _refuse_other_sum(model: Any, names: list[str], *, place: Path) -> None:
    """Raise Fault R0371 when the concatenation is not the sum of its parts, in weights or in logits.

    Logits may differ by the rounding of the precision in which the model computes, measured by summing in the other
    order; weights, in float64, show a difference that is too small for half-precision logits.
    """
    problem = _other_weights(model, names) or _other_logits(model, names)
    if problem:
        raise Fault(
            "R0371", str(place), f"served as one, the stacked adapters are not what was trained: {problem}",
            "report it with the version of peft; on_top: continue needs no such sum",
        )  # fmt: skip


def _other_weights(model: Any, names: list[str]) -> str:
    """The first projection whose served update differs from the sum of its parts; empty when there is none."""
    import torch

    for name, module in model.named_modules():
        if SERVED not in getattr(module, "lora_A", {}):
            continue
        parts, served = _parts(module, names), _parts(module, [SERVED])[0]
        left = torch.cat([*(b.double() * scaling for _, b, scaling in parts), -served[1].double() * served[2]], dim=1)
        right = torch.cat([*(a.double() for a, _, _ in parts), served[0].double()])
        ours = served[1].double() * served[2], served[0].double()
        error, size = _product_norm(left, right), _product_norm(*ours)
        if not error <= SUM_WEIGHTS * size:
            return f"the update of {name} differs by {error:.3g}, where it is {size:.3g}"
    return ""


def _product_norm(left: torch.Tensor, right: torch.Tensor) -> float:
    """Frobenius norm of left @ right, (m, r) and (r, n), through r x r products: tr((L^T L)(R R^T))."""
    return float(((left.T @ left) * (right @ right.T)).sum().clamp(min=0).sqrt())


def _other_logits(model: Any, names: list[str]) -> str:
    """How far the logits of the served adapter are from the stacked ones on a few rows; empty when close enough."""
    import torch

    weight = model.get_input_embeddings().weight
    rows, length = SUM_ROWS
    spread = torch.arange(rows * length, device=weight.device) * PRIME % weight.shape[0]  # tokens from all over
    was = model.training
    model.eval()

    def logits(active: list[str]) -> torch.Tensor:
        model.base_model.set_adapter(active)
        with torch.inference_mode():
            found: torch.Tensor = model(input_ids=spread.view(rows, length)).logits.double()
        return found

    served, stacked, turned = logits([SERVED]), logits(names), logits(names[::-1])
    model.base_model.set_adapter(names)
    model.train(was)
    size = float(stacked.norm())
    error, noise = float((served - stacked).norm()) / size, float((turned - stacked).norm()) / size
    allowed = SUM_LOGITS + SUM_NOISE * noise
    return "" if error <= allowed else f"their logits differ by {error:.2g}, at most {allowed:.2g} is rounding"
