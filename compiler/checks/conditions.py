"""System prompts of arms that are missing, that nobody uses, or that a task cannot take.

E0881: a sample set takes the system prompt from each arm, and an arm has none
Why: A system prompt that was not given silently became the model's own default one; a lab rediscovered that six times.
Where each arm brings its own, each has to say what that is, even if it is `none`; otherwise the arms differ in
something that nobody declared.
Example:
    sample: {first: {system: per_condition}}
    conditions:
      base: {system: none}
      attacked: {phases: [attack], system: none}
      caught: {phases: [catch], system: none}
      treated: {phases: [catch, attack], system: none}
      placebo: [talk, attack]                              # which system prompt?
Fix:
    sample: {first: {system: per_condition}}
    conditions:
      base: {system: none}
      attacked: {phases: [attack], system: none}
      caught: {phases: [catch], system: none}
      treated: {phases: [catch, attack], system: none}
      placebo: {phases: [talk, attack], system: none}

E0882: an arm declares a system prompt that no sample set uses
Why: A sample set says itself which system prompt its conversations have, unless it says `per_condition`. Where none
does, the prompt of the arm is never sent: the spec shows arms that differ by an instruction, and the run compares arms
that do not.
Example:
    conditions:
      caught: {phases: [catch], system: Mind your answers.}     # all sample sets say none
Fix:
    conditions:
      caught: [catch]

E0883: arms have system prompts, and a benchmark is scored without any
Why: The items of an evaluation task are scored by the probability of their answers, with no system prompt. If an arm is
defined by one, the task would score another arm than the one whose completions are read, and a guard on capability
would guard a model that is not in the comparison.
Example:
    sample: {first: {system: per_condition}}
    conditions:
      base: {system: none}
      attacked: {phases: [attack], system: none}
      caught: {phases: [catch], system: none}
      treated: {phases: [catch, attack], system: Mind your answers.}     # `quiz` would not see it
      placebo: {phases: [talk, attack], system: none}
Fix:
    sample: {first: {system: Mind your answers.}}     # in every arm; they differ by training alone
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
