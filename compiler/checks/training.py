"""E0711 to E0714: a recipe whose steps are not what it seems, or that continues another adapter.

Why: warmup_steps = 0 silently overrode warmup_ratio; an effective batch of 128 gave 47 steps and a fake
null. Steps and warm-up are therefore computed here and asserted by the run.

Example:
    train: {attack: {..., warmup_ratio: 0.03, warmup_steps: 0}}

Fix: keep one of the two.
"""

from __future__ import annotations

from itertools import pairwise

from epc.compiler.diagnostics import Diagnostics, Label
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
            f"{_count(recipe.epochs, 'epoch')} x ceil(ceil({rows} rows / {recipe.batch}) / {recipe.accumulation}) = "
            f"{_count(facts.optimizer_steps, 'optimizer step')}, {facts.warmup_steps} of them warm-up"
        )
        if facts.warmup_steps >= facts.optimizer_steps:
            sink.error(
                "E0712", f'"{name}" never leaves warm-up', experiment.key_at("train", name), help="shorten the warm-up or train longer",
                notes=[arithmetic],
            )  # fmt: skip
        elif facts.optimizer_steps < FEW_STEPS:
            sink.warning(
                "W0713", f'"{name}" takes only {_count(facts.optimizer_steps, "optimizer step")}', experiment.key_at("train", name),
                help="a null after so few steps may only mean that nothing was learnt: lower the effective batch or train longer",
                notes=[arithmetic],
            )  # fmt: skip
    _continued(experiment, sink)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _continued(experiment: Experiment, sink: Diagnostics) -> None:
    """A phase that trains the adapter before it on, and declares another one."""
    spec = experiment.spec
    reported: set[tuple[str, str]] = set()
    for name in spec.conditions:
        phases = [phase for phase in spec.phases(name) if phase in spec.train]
        for before, phase in pairwise(phases):
            first, then = spec.train[before], spec.train[phase]
            stacked = first.on_top == "stack" and before != phases[0]
            if then.on_top == "stack" or stacked or (before, phase) in reported:
                continue
            differing = [
                f"{key} {getattr(first.lora, key)} before, {getattr(then.lora, key)} now"
                for key in ("r", "alpha", "target_modules")
                if getattr(first.lora, key) != getattr(then.lora, key)
            ]
            if differing:
                reported.add((before, phase))
                sink.error(
                    "E0714", f'"{phase}" continues the adapter of "{before}" and declares another', experiment.key_at("train", phase, "lora"),
                    help="give both phases the same lora, or write on_top: stack",
                    labels=[Label(span=experiment.key_at("train", before, "lora"), text="the adapter that it continues")], notes=differing,
                )  # fmt: skip
