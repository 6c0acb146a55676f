"""Analyses of a part of the prompts that is no part of them, or that decides.

E0871: an analysis is restricted to prompts that are not sampled
Why: `on` keeps the prompts of one set and drops the rest. A prompt of that set which is never sampled has no
completions, so the analysis would rest on fewer units than its name says, or on none.
Example:
    analyses: {part: {metric: alignment, on: asked}}     # `first` samples `heldout`
Fix:
    analyses: {part: {metric: alignment, on: part_a}}

E0872: a gate that decides reads only a part of the prompts
Why: An earlier plan of the source document of issue 147 had a rule: if the subsets disagree, switch the headline to the
larger one. The last revision removed it as selection on data, which inflates the chance of a false success. The prompts
where an effect looks best are not the test that was announced, so a subset is described or predicted, and never
decides.
Example:
    gates:
      survives: {role: success, require: headline.reject and headline.lower >= 5 and part.delta > 0}
Fix:
    gates:
      survives: {role: success, require: headline.reject and headline.lower >= 5}
      on_part: {role: prediction, require: part.delta > 0}

E0873: an analysis of a benchmark is restricted to prompts
Why: A task of the evaluation harness is scored item by item. Its items are not prompts of the spec, so there is nothing
to which `on` could restrict it, and leaving `on` unheeded would report the whole task under the name of a part.
Example:
    analyses: {quizzed: {metric: quiz, on: part_a}}
Fix:
    analyses: {quizzed: {metric: quiz}}

W0874: an analysis is restricted to all of the prompts
Why: The set after `on` is the sampled set itself under another name or in another order. What is printed as a subset
analysis then repeats the headline, and a reader takes it for a second finding.
Example:
    analyses: {part: {metric: alignment, on: heldout}}
Fix:
    analyses: {part: {metric: alignment, on: part_a}}
"""

from __future__ import annotations

from typing import Final

from epc.compiler.contract.logic import Atom, leaves
from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.resolve import Experiment
from epc.compiler.spec import Analysis, JudgeMetric, LmEvalMetric, PatternMetric, ResultMetric

MAY_READ: Final = ("prediction", "descriptive", "follow_up")
"""Roles that decide nothing."""


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    for name, analysis in spec.analyses.items():
        if analysis.on is not None:
            _part(experiment, sink, name, analysis)
    for name, gate in spec.gates.items():
        parsed = experiment.gates.get(name)
        predicate = None if parsed is None else parsed.predicate
        if gate.role in MAY_READ or predicate is None:
            continue
        read = [leaf.analysis for leaf in leaves(predicate) if isinstance(leaf, Atom)]
        for analysis_name in dict.fromkeys([*read, *([gate.analysis] if gate.analysis is not None else [])]):
            found = spec.analyses.get(analysis_name)
            part = None if found is None or _of_task(experiment, found) else found.on
            verb = "reads" if analysis_name in read else "switches"
            if part is not None:
                sink.error(
                    "E0872", f'{gate.role} gate "{name}" {verb} "{analysis_name}", which sees only the prompts of "{part}"',
                    experiment.key_at("gates", name),
                    help="read an analysis of all prompts; a subset is predicted or described, because to choose the part that decides is to choose the winner",
                    labels=[Label(span=experiment.at("analyses", analysis_name, "on"), text="the subset")],
                )  # fmt: skip


def _of_task(experiment: Experiment, analysis: Analysis) -> bool:
    return isinstance(experiment.spec.metrics.get(analysis.metric), LmEvalMetric | ResultMetric)


def _part(experiment: Experiment, sink: Diagnostics, name: str, analysis: Analysis) -> None:
    """Whether a subset is one."""
    spec = experiment.spec
    at, part = experiment.at("analyses", name, "on"), analysis.on or ""
    if _of_task(experiment, analysis):
        sink.error(
            "E0873", f'metric "{analysis.metric}" has no prompts of this spec, but items of a task or a file', at,
            help="delete `on`, or read a metric of a sample set",
        )  # fmt: skip
        return
    metric = spec.metrics.get(analysis.metric)
    sample = spec.sample.get(metric.of) if isinstance(metric, PatternMetric | JudgeMetric) else None
    prompts = experiment.prompts.get(part)
    sampled = None if sample is None else experiment.prompts.get(sample.prompts)
    if not isinstance(metric, PatternMetric | JudgeMetric) or sample is None or prompts is None or sampled is None:
        return
    foreign = [prompt for prompt in prompts if prompt not in set(sampled)]
    be = "is" if len(foreign) == 1 else "are"
    if foreign:
        sink.error(
            "E0871", f'{len(foreign)} of {len(prompts)} prompts of "{part}" {be} not in "{sample.prompts}", which "{metric.of}" samples', at,
            help="name a set that is a part of the sampled one, or sample a union that holds it", notes=[f'for example "{foreign[0]}"'],
        )  # fmt: skip
    elif set(prompts) == set(sampled):
        sink.warning(
            "W0874", f'"{part}" is all of the {len(sampled)} prompts that "{metric.of}" samples', at,
            help="delete `on`: an analysis of everything is no subset",
        )  # fmt: skip
