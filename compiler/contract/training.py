"""What a training computes with and no spec sets.

Libraries have defaults for these, and change them between versions. So scripts write each of them out, and a training
reads it back from its trainer before its first step: what is registered is what is computed, this year and next.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ARGUMENTS: Final[Mapping[str, str | float | bool]] = {
    "optim": "adamw_torch",
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "label_smoothing_factor": 0.0,
    "loss_type": "nll",
    "packing": False,
    "dataloader_drop_last": False,
}
"""As the trainer's arguments call them."""
ADAPTER: Final[Mapping[str, str | bool]] = {
    "bias": "none",
    "use_rslora": False,
    "use_dora": False,
    "init_lora_weights": True,
}
"""As the configuration of an adapter calls them."""
PINNED: Final[Mapping[str, str | float | bool]] = {
    "optimizer": ARGUMENTS["optim"],
    **{name: value for name, value in ARGUMENTS.items() if name != "optim"},
    "lora.bias": ADAPTER["bias"],
    "lora.rslora": ADAPTER["use_rslora"],
    "lora.dora": ADAPTER["use_dora"],
    "lora.init": ADAPTER["init_lora_weights"],
    "lora.dtype": "float32",
}
"""As a finish record calls them, with the precision of an adapter's weights."""


def rate(step: int, *, peak: float, schedule: str, warmup_steps: int, optimizer_steps: int) -> float:
    """The learning rate of an optimizer step, counted from 0.

    It rises linearly over the warm-up from 0, then stays (`constant`) or falls to 0 linearly or along half a cosine
    (Loshchilov and Hutter 2017, SGDR, without restarts).
    """
    from math import cos, pi

    if step < warmup_steps:
        return peak * step / warmup_steps
    done = (step - warmup_steps) / max(1, optimizer_steps - warmup_steps)
    match schedule:
        case "constant":
            return peak
        case "linear":
            return peak * max(0.0, 1.0 - done)
        case "cosine":
            return peak * max(0.0, 0.5 * (1.0 + cos(pi * done)))
        case _:
            raise ValueError(f"no schedule {schedule}")
