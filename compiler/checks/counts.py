"""Counts that a spec states, counted again.

E0501: a prompt set holds another number of prompts than its `count` says
Why: The source document of issue 147 evaluates on the union of 8 and 44 prompts and calls it 48 wherever it multiplies.
8 + 44 is 52, unless four prompts stand in both sets, which nobody says. Four layers of review read that number, and
none of them added it up. A number that is typed goes wrong unseen, so every stated count is counted again.
Example:
    prompts:
      heldout: {union: [part_a, part_b], count: 25}     # 8 + 16, and none in both
Fix:
    prompts:
      heldout: {union: [part_a, part_b], count: 24}

E0502: a prompt set holds a prompt twice
Why: The unit of every test is the prompt, and a bootstrap draws prompts as if none told anything about another. A
prompt that comes twice has double weight in each mean, is no second piece of evidence, and makes the interval look
narrower than it is.
Example:
    prompts:
      asked: {items: [How do I bake bread?, How do I bake bread?], count: 2}
Fix:
    prompts:
      asked: {items: [How do I bake bread?, How do I store bread?], count: 2}

E0503: a task has another number of items than its metric says
Why: A benchmark gives an accuracy whatever its length, so a data file that was cut short on the way goes unnoticed; but
the number of items decides how wide the interval is, and with it whether the gate that reads it can ever be passed. Say
how many there are, and the file is held to it.
Example:
    metrics:
      quiz: {lm_eval: tasks/quiz.yaml, value: acc, items: 1172}     # the file has 200
Fix:
    metrics:
      quiz: {lm_eval: tasks/quiz.yaml, value: acc, items: 200}
"""

from __future__ import annotations

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.repeats import repeats
from epc.compiler.resolve import Experiment
from epc.compiler.spec import LmEvalMetric, PromptSet


def _completed(experiment: Experiment, name: str, entry: PromptSet) -> str:
    source = experiment.prompt_sets[name].source
    return (
        "correct the sets that it is made of"
        if entry.union is not None
        else f"complete {source.path if source else 'the list'}"
    )


def _source(experiment: Experiment, name: str, entry: PromptSet) -> str:
    """` (in its stand-in)` where the prompts are not the real ones yet."""
    source = experiment.prompt_sets[name].source
    stands_in = source is not None and entry.external is not None and source.path != entry.external.file
    return " in its stand-in" if stands_in else ""


def _arithmetic(experiment: Experiment, entry: PromptSet) -> list[str]:
    """`8 (betley) + 44 (wang) - 4 in more than one = 48` for a union."""
    sizes = {name: len(experiment.prompts[name]) for name in entry.union or ()}
    if not sizes:
        return []
    total = sum(sizes.values())
    distinct = len({prompt for name in sizes for prompt in experiment.prompts[name]})
    parts = " + ".join(f"{size} ({name})" for name, size in sizes.items())
    return [f"{parts} = {total}", f"{total} - {total - distinct} that are in more than one = {distinct} distinct"]


def check(experiment: Experiment, sink: Diagnostics) -> None:
    for name, found in experiment.prompts.items():
        entry = experiment.spec.prompts[name]
        if len(found) != entry.count:
            sink.error(
                "E0501", f'prompt set "{name}" has {len(found)} prompts{_source(experiment, name, entry)}, declared {entry.count}',
                experiment.at("prompts", name, "count"),
                help=f"write count: {len(found)}, or {_completed(experiment, name, entry)}", notes=_arithmetic(experiment, entry),
            )  # fmt: skip
        for index, part in repeats(entry.union or ()):
            sink.error(
                "E0502", f'the union "{name}" lists "{part}" twice', experiment.at("prompts", name, "union", index),
                help="a union takes each prompt once: list each set once",
            )  # fmt: skip
        twice = sorted(prompt for _, prompt in repeats(found))
        if twice:
            shown = f'"{twice[0]}"' + (f" and {len(twice) - 1} more" if len(twice) > 1 else "")
            sink.error(
                "E0502", f'prompt set "{name}" repeats {shown}', experiment.key_at("prompts", name),
                help="a repeated prompt counts twice as a unit and is not independent of itself: delete the copy",
            )  # fmt: skip
    for name, task in experiment.tasks.items():
        metric = experiment.spec.metrics[name]
        assert isinstance(metric, LmEvalMetric)
        if task.items != metric.items:
            sink.error(
                "E0503", f'task "{task.name}" has {task.items} items, declared {metric.items}', experiment.at("metrics", name, "items"),
                help=f"write items: {task.items}, or complete {task.data.path if task.data else task.file.path}",
            )  # fmt: skip
