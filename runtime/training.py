"""What surrounds a training: the live line, the stop on a broken loss, and proof that the adapter changed."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epc.runtime.errors import Fault

if TYPE_CHECKING:
    import torch
    from transformers import TrainerCallback

    from epc.runtime.step import Step

FINGERPRINT_PERIOD = 251
"""A prime: bytes that far apart have the same weight in a fingerprint."""
FINGERPRINT_ROWS = 1 << 17
"""Periods summed at a time: 33 MB of weights."""


def progress_callback(step: Step) -> TrainerCallback:
    """A callback that publishes step, loss and tokens/s, and stops with Fault R0331 on a loss that is not finite."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.began = time.monotonic()
            step.progress(0, state.max_steps)

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
    and its logits equal the stacked ones up to rounding.
    """
    model.add_weighted_adapter(names, [1.0] * len(names), "served", combination_type="cat")
    for name, folder in (("served", out / "adapter"), (names[-1], out / "increment")):
        model.save_pretrained(str(folder), selected_adapters=[name])
        for file in (folder / name).iterdir():  # a named adapter is saved one level down
            file.replace(folder / file.name)
        (folder / name).rmdir()
