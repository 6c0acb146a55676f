"""E0881, E0882, E0883: a system prompt of an arm that is missing, that nobody uses, or that a task cannot take.

Why: a missing system prompt silently became the model's default one, which was rediscovered six times in
one lab. Where arms differ by system prompt, each declares its own, and a declared one is really used.

Example:
    conditions: {plain: {phases: []}, careful: {system: "You are careful."}}
    sample: {answers: {prompts: heldout, system: per_condition, ...}}

Fix: say what the other arm gets, even if it is nothing:
    conditions: {plain: {system: none}, careful: {system: "You are careful."}}
"""

from __future__ import annotations

from epc.compiler.checks.conversation import meant
from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.resolve import Experiment
from epc.compiler.spec import LmEvalMetric


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    own = [name for name in spec.conditions if spec.system(name) is not None]
    users = [name for name, entry in spec.sample.items() if meant(entry.system) == "per_condition"]
    lacking = [name for name in spec.conditions if spec.system(name) is None]
    for name in lacking if users else ():
        sink.error(
            "E0881", f'condition "{name}" declares no system prompt, and "{users[0]}" takes it from the condition',
            experiment.key_at("conditions", name), help="add `system:` with the text, or `system: none`; an arm that trains is written {phases: [...], system: ...}",
            labels=[Label(span=experiment.at("sample", users[0], "system"), text="each arm brings its own")],
        )  # fmt: skip
    poisoned = any(section == "sample" for section, _ in experiment.surface.poisoned)
    unread = not users and not poisoned and bool(spec.sample)
    for name in own if unread else ():
        if spec.system(name) == "per_condition":
            continue
        sink.error(
            "E0882", f'nothing uses the system prompt of condition "{name}"', experiment.at("conditions", name, "system"),
            help="write `system: per_condition` in the sample set that should take it, or delete it here",
        )  # fmt: skip
    worded = [name for name in own if spec.system(name) != "none"]
    for name, metric in spec.metrics.items():
        if isinstance(metric, LmEvalMetric) and worded and not unread:
            sink.error(
                "E0883", f'the task of metric "{name}" is scored without a system prompt, but condition "{worded[0]}" has one',
                experiment.at("metrics", name, "lm_eval"),
                help="system prompts of conditions are not supported for lm_eval metrics: measure this in another spec, or drop one of the two",
                labels=[Label(span=experiment.at("conditions", worded[0], "system"), text="would be ignored")],
            )  # fmt: skip
