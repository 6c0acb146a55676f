"""Arms, phases or seeds that are one thing twice.

E0721: two arms are the same
Why: In one lab two "different" control arms turned out to be identical to the last bit. Arms that train the same
recipes in the same order and get the same system prompt differ only in name, so their difference is sampling noise
under the title of an effect. `train_on` alone makes no difference where each row has a single assistant turn.
Example:
    conditions: {attacked: [attack], placebo: [attack]}
Fix:
    conditions: {attacked: [attack], placebo: [talk, attack]}

E0722: an arm trains one phase twice
Why: A recipe says how much is trained: epochs, warm-up and a schedule that ends. Named twice in an arm, it starts again
on the same rows, and the spec still shows 5 epochs where the model saw 10. Say the amount in the recipe, where it is
read.
Example:
    conditions: {caught: [catch, catch]}
Fix:
    conditions: {caught: [catch]}     # and more epochs in the recipe, if more is meant

E0723: a training seed is listed twice
Why: Seeds are there to show how much a result moves from one training run to the next; in one lab that was 5 to 8
points, more than some thresholds. A repeated seed is the same run again: it costs nothing new, adds a run to the count,
and makes the noise look smaller than it is.
Example:
    seeds: [1, 1, 2]
Fix:
    seeds: [1, 2, 3]
"""

from __future__ import annotations

from typing import Final

from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.repeats import repeats
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
        if content in seen and spec.model.from_ != "none":  # of arms from elsewhere nothing but the name is known
            reworded = written[name] != written[seen[content]]
            sink.error(
                "E0721", f'arms "{seen[content]}" and "{name}" are the same', experiment.key_at("conditions", name),
                help="delete one, or give it the phase or the system prompt in which it should differ",
                labels=[Label(span=experiment.key_at("conditions", seen[content]), text="the same chain of recipes" + (" and system prompt" if spec.system(name) else ""))],
                notes=[ONE_TURN] if reworded else [],
            )  # fmt: skip
        seen.setdefault(content, name)
        for index, phase in repeats(phases):
            sink.error(
                "E0722", f'arm "{name}" trains phase "{phase}" twice', experiment.at("conditions", name, *(["phases"] if isinstance(spec.conditions[name], Condition) else []), index),
                help="raise the epochs of the recipe, or declare a second recipe",
            )  # fmt: skip
    for index, seed in repeats(spec.seeds):
        sink.error(
            "E0723", f"training seed {seed} is listed twice", experiment.at("seeds", index), help="list distinct seeds"
        )
