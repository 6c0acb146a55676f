"""Recipes whose steps are not what they seem, and adapters that are continued as another.

E0711: both warmup_ratio and warmup_steps
Why: in one lab warmup_steps = 0 silently overrode warmup_ratio, and the run trained without the warm-up that its
recipe declared. The two say one thing twice, so a recipe has one of them.
Example:
    train: {attack: {warmup_ratio: 0.03, warmup_steps: 0}}
Fix:
    train: {attack: {warmup_ratio: 0.1}}

E0712: warm-up lasts the whole training
Why: the learning rate would still be rising when training ends, so the declared rate is hardly ever used and the
schedule after it never. The number of steps follows from rows, batch, accumulation and epochs, and nobody had
computed it.
Example:
    train: {attack: {warmup_steps: 40}}     # 5 epochs x 8 steps = 40
Fix:
    train: {attack: {warmup_steps: 4}}

W0713: only a few optimizer steps
Why: an effective batch of 128 gave 47 steps and a fake null: nothing was learnt, and the result read as if the
intervention did not work. Steps are therefore computed and shown before anything runs.
Example:
    train: {attack: {epochs: 1, accumulation: 8}}     # ceil(ceil(32 rows / 4) / 8) = 1 step
Fix:
    train: {attack: {epochs: 5, accumulation: 1}}

E0714: a phase that continues an adapter and declares another one
Why: `on_top: continue` trains the adapter of the phase before, whatever this phase says about rank or projections.
A reader of the second recipe would believe in an adapter that never existed.
Example:
    train: {attack: {lora: {r: 8}}}     # `treated` has r: 16 from its first phase
Fix:
    train: {attack: {lora: {r: 8}, on_top: stack}}

W0715: compared arms take unequal optimizer steps
Why: an arm that was trained for longer differs in dose as well as in data, so the contrast answers two questions
at once. A whole phase more is taken to be the treatment; only arms with as many phases are held against each other.
Example:
    train: {catch: {epochs: 3}}     # `treated` and `placebo` are compared
Fix:
    train: {catch: {epochs: 5}}

W0716: a short warm-up that is no whole number of steps
Why: the source document of issue 147 takes 0.03 of what it calls 94 steps, "2.8 steps", for its warm-up. 1,000
rows in steps of 32 rows are 31.25 steps an epoch, and every epoch ends with a smaller step: 96 in three epochs, of
which 0.03 are 2.88. A trainer takes 3. Where a warm-up has fewer than ten steps, the number says more than the ratio.
Example:
    train: {attack: {warmup_ratio: 0.03}}     # 0.03 x 40 steps = 1.2, taken as 2
Fix:
    train: {attack: {warmup_steps: 2}}
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Final

from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.lowering import TrainingFacts, phase_facts
from epc.compiler.resolve import Experiment, arms

FEW_STEPS: Final = 5
SHORT_WARMUP: Final = 10
"""Steps below which rounding a warm-up up is worth a word."""


def check(experiment: Experiment, sink: Diagnostics) -> None:
    rounded: dict[tuple[int, tuple[str, ...]], list[str]] = {}
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
        elif (notes := _rounded(experiment, name, facts)) is not None:
            rounded.setdefault((facts.warmup_steps, notes), []).append(name)
    for (taken, notes), names in rounded.items():
        # several phases may compose one recipe file, which is one place
        at, *others = dict.fromkeys(experiment.at("train", name, "warmup_ratio") for name in names)
        sink.warning(
            "W0716", f"the warm-up of {', '.join(names)} is {notes[0]} steps, taken as {taken}", at,
            help=f"write warmup_steps: {taken}, which is what runs",
            labels=[Label(span=other, text="the same") for other in others], notes=notes[1:],
        )  # fmt: skip
    _continued(experiment, sink)
    _unequal(experiment, sink)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _rounded(experiment: Experiment, name: str, facts: TrainingFacts) -> tuple[str, ...] | None:
    """(steps, arithmetic...) where a ratio puts the end of a short warm-up between two steps."""
    recipe = experiment.spec.train[name]
    if not recipe.warmup_ratio or facts.warmup_steps >= SHORT_WARMUP:
        return None
    # in decimal: 0.07 x 100 is 7.000000000000001 in floating point, of which a trainer makes 8
    exact = (Decimal(repr(recipe.warmup_ratio)) * facts.optimizer_steps).normalize()
    if exact == facts.warmup_steps:
        return None
    notes = [_arithmetic(experiment, name, facts.optimizer_steps)]
    rows, effective = experiment.data[recipe.data].rows, facts.effective_batch
    if rows % effective:
        notes.append(
            f"{rows:,} rows / {effective} = {rows / effective:g}: the last step of every epoch has {rows % effective} rows,"
            f" so {facts.optimizer_steps} steps and not {recipe.epochs * rows / effective:g}"
        )
    product = f"{recipe.warmup_ratio:g} x {_count(facts.optimizer_steps, 'step')} = {exact:f}"
    if exact == exact.to_integral_value():
        product += f", in floating point {recipe.warmup_ratio * facts.optimizer_steps!r}"
    return f"{exact:f}", *notes, f"{product}, taken as {facts.warmup_steps}"


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


def compared(experiment: Experiment) -> Iterator[tuple[str, str, str]]:
    """(analysis, treatment, control) of every two arms that are contrasted and train as many phases, once each."""
    spec = experiment.spec
    seen: set[frozenset[str]] = set()
    for name, analysis in spec.analyses.items():
        pair = arms(analysis)
        if len(set(pair)) != 2 or frozenset(pair) in seen or not all(arm in spec.conditions for arm in pair):
            continue
        seen.add(frozenset(pair))
        if len(spec.phases(pair[0])) == len(spec.phases(pair[1])) > 0:
            yield name, pair[0], pair[1]


def _unequal(experiment: Experiment, sink: Diagnostics) -> None:
    """Compared arms of as many phases that take unequal optimizer steps in all."""
    for name, *pair in compared(experiment):
        steps = {arm: _steps(experiment, arm) for arm in pair}
        totals = {sum(count for _, count in found) for found in steps.values()}
        if not all(steps.values()) or len(totals) == 1:
            continue
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
