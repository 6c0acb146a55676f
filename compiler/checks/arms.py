"""E0721, E0722, E0723: arms or seeds that are the same thing twice.

Why: two "different" control arms were once bit-identical; a repeated seed is a repeated run, not a
second sample of training noise. Where every row has one assistant turn, it is the last one and every one,
so recipes that differ in `train_on` alone train the same tokens.

Example:
    conditions: {attacked: [attack], control: [attack]}
    seeds: [42, 42]

Fix: make the arms differ in what they are compared for, or delete one.
"""

from __future__ import annotations

from typing import Final

from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.resolve import Experiment
from epc.compiler.spec import Condition

ONE_TURN: Final = "they differ in train_on alone, and each row has one assistant turn: the last one is every one"


def _training(experiment: Experiment, phase: str) -> str:
    """What a phase trains; `train_on` is left out where rows of one assistant turn make it idle."""
    recipe = experiment.spec.train[phase]
    built = experiment.data.get(recipe.data)
    idle = built is not None and built.assistant_turns == 1
    return recipe.model_dump_json(exclude={"train_on"} if idle else None)


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    seen: dict[tuple[object, ...], str] = {}
    written: dict[str, list[str]] = {}
    for name in spec.conditions:
        phases = spec.phases(name)
        if any(phase not in spec.train for phase in phases):
            continue
        content = (spec.system(name), *(_training(experiment, phase) for phase in phases))
        written[name] = [spec.train[phase].train_on for phase in phases]
        if content in seen:
            reworded = written[name] != written[seen[content]]
            sink.error(
                "E0721", f'arms "{seen[content]}" and "{name}" are the same', experiment.key_at("conditions", name),
                help="delete one, or give it the phase or the system prompt in which it should differ",
                labels=[Label(span=experiment.key_at("conditions", seen[content]), text="the same chain of recipes" + (" and system prompt" if spec.system(name) else ""))],
                notes=[ONE_TURN] if reworded else [],
            )  # fmt: skip
        seen.setdefault(content, name)
        for index, phase in enumerate(phases):
            if phase in phases[:index]:
                sink.error(
                    "E0722", f'arm "{name}" trains phase "{phase}" twice', experiment.at("conditions", name, *(["phases"] if isinstance(spec.conditions[name], Condition) else []), index),
                    help="raise the epochs of the recipe, or declare a second recipe",
                )  # fmt: skip
    for index, seed in enumerate(spec.seeds):
        if seed in spec.seeds[:index]:
            sink.error(
                "E0723",
                f"training seed {seed} is listed twice",
                experiment.at("seeds", index),
                help="list distinct seeds",
            )
