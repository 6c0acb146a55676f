"""E0711, E0712, W0713: a recipe whose steps are not what it seems.

Why: warmup_steps = 0 silently overrode warmup_ratio; an effective batch of 128 gave 47 steps and a fake
null. Steps and warm-up are therefore computed here and asserted by the run.

Example:
    train: {attack: {..., warmup_ratio: 0.03, warmup_steps: 0}}

Fix: keep one of the two.
"""

from __future__ import annotations

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.lowering import phase_facts
from epc.compiler.resolve import Experiment

FEW_STEPS = 5


def check(experiment: Experiment, sink: Diagnostics) -> None:
    for name, recipe in experiment.spec.train.items():
        if recipe.warmup_steps is not None and recipe.warmup_ratio is not None:
            sink.error(
                "E0711", f'"{name}" gives both warmup_ratio and warmup_steps', experiment.key_at("train", name, "warmup_steps"),
                help="keep one: trainers let the second override the first without a word",
            )  # fmt: skip
            continue
        facts = phase_facts(experiment, name)
        if facts is None:
            continue
        rows = experiment.data[recipe.data].rows
        arithmetic = (
            f"{recipe.epochs} epochs x ceil(ceil({rows} rows / {recipe.batch}) / {recipe.accumulation}) = "
            f"{facts.optimizer_steps} optimizer steps, {facts.warmup_steps} of them warm-up"
        )
        if facts.warmup_steps >= facts.optimizer_steps:
            sink.error(
                "E0712", f'"{name}" never leaves warm-up', experiment.key_at("train", name), help="shorten the warm-up or train longer",
                notes=[arithmetic],
            )  # fmt: skip
        elif facts.optimizer_steps < FEW_STEPS:
            sink.warning(
                "W0713", f'"{name}" takes only {facts.optimizer_steps} optimizer steps', experiment.key_at("train", name),
                help="a null after so few steps may only mean that nothing was learnt: lower the effective batch or train longer",
                notes=[arithmetic],
            )  # fmt: skip
