"""E0501: a stated count is not what the file holds.

Why: a count that is typed and not computed goes wrong unseen; the literal case is a document whose
8 and 44 prompts were called 48 through four reviews.

Example:
    prompts: {heldout: {file: prompts/heldout.txt, count: 25}}     # the file has 24 lines

Fix: write the true count, or add the missing lines to the file.
"""

from __future__ import annotations

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment
from epc.compiler.spec import LmEvalMetric


def check(experiment: Experiment, sink: Diagnostics) -> None:
    for name, found in experiment.prompts.items():
        entry = experiment.spec.prompts[name]
        if len(found) != entry.count:
            sink.error(
                "E0501", f'prompt set "{name}" has {len(found)} prompts, declared {entry.count}', experiment.at("prompts", name, "count"),
                help=f"write count: {len(found)}, or complete {entry.file or 'the list'}",
            )  # fmt: skip
        twice = sorted({prompt for prompt in found if found.count(prompt) > 1})
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
                help=f"write items: {task.items}, or complete {task.data.path}",
            )  # fmt: skip
