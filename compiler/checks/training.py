"""E0711 to W0715: a recipe whose steps are not what it seems, or that continues another adapter.

Why: warmup_steps = 0 silently overrode warmup_ratio; an effective batch of 128 gave 47 steps and a fake
null. Steps and warm-up are therefore computed here and asserted by the run. Arms that are compared and take
unequal steps differ in how long they were trained as well as in what they were trained on; a whole phase more is
taken to be the treatment, so only arms with the same number of phases are held against each other.

Example:
    train: {attack: {..., warmup_ratio: 0.03, warmup_steps: 0}}

Fix: keep one of the two.
"""

from __future__ import annotations

from itertools import pairwise

from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.lowering import phase_facts
from epc.compiler.resolve import Experiment, arms

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
        steps = _arithmetic(experiment, name, facts.optimizer_steps)
        arithmetic = f"{steps}, {facts.warmup_steps} of them warm-up"
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
    _unequal(experiment, sink)


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


def _unequal(experiment: Experiment, sink: Diagnostics) -> None:
    """Compared arms of as many phases that take unequal optimizer steps in all."""
    spec = experiment.spec
    reported: set[frozenset[str]] = set()
    for name, analysis in spec.analyses.items():
        pair = arms(analysis)
        if len(pair) != 2 or frozenset(pair) in reported or not all(arm in spec.conditions for arm in pair):
            continue
        steps = {arm: _steps(experiment, arm) for arm in pair}
        first, second = steps[pair[0]], steps[pair[1]]
        if not first or not second or len(first) != len(second):
            continue
        if sum(count for _, count in first) == sum(count for _, count in second):
            continue
        reported.add(frozenset(pair))
        sink.warning(
            "W0715", f'"{pair[0]}" and "{pair[1]}" are compared and take unequal optimizer steps', experiment.at("analyses", name, "contrast"),
            help="give both the same number of steps (rows, batch, accumulation, epochs), or say in the rationale that the dose is what is compared",
            notes=[_sum(experiment, arm, found) for arm, found in steps.items()],
        )  # fmt: skip


def _steps(experiment: Experiment, arm: str) -> list[tuple[str, int]]:
    """(phase, optimizer steps) of an arm; empty where a phase could not be resolved."""
    phases = experiment.spec.phases(arm)
    facts = [phase_facts(experiment, phase) if phase in experiment.spec.train else None for phase in phases]
    known = [(phase, fact.optimizer_steps) for phase, fact in zip(phases, facts, strict=True) if fact is not None]
    return known if len(known) == len(phases) else []


def _arithmetic(experiment: Experiment, phase: str, steps: int) -> str:
    """`2 epochs x ceil(ceil(64 rows / 4) / 1) = 32 optimizer steps`."""
    recipe = experiment.spec.train[phase]
    rows = experiment.data[recipe.data].rows
    return (
        f"{_count(recipe.epochs, 'epoch')} x ceil(ceil({rows} rows / {recipe.batch}) / {recipe.accumulation}) = "
        f"{_count(steps, 'optimizer step')}"
    )


def _sum(experiment: Experiment, arm: str, steps: list[tuple[str, int]]) -> str:
    """The arithmetic of every phase of an arm, and the total of several."""
    parts = ", then ".join(f"{_arithmetic(experiment, phase, count)} ({phase})" for phase, count in steps)
    total = f"; {sum(count for _, count in steps)} in all" if len(steps) > 1 else ""
    return f"{arm}: {parts}{total}"
