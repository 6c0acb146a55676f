"""Names that a spec refers to, and the entries that declare them.

E0301: a condition that is not declared
Why: In the source of issue 147 gates name `base`, which its list of conditions does not have, and the control
is c6_vanilla in one place and c6_vanilla_em in another. Whoever runs that has to guess which model was meant.
Example:
    analyses: {gap: {contrast: treated - attack}}      # a recipe, not an arm
Fix:
    analyses: {gap: {contrast: treated - attacked}}

E0302: a training phase that is not declared
Why: A condition is the list of its phases, so a phase without a recipe leaves the arm undefined. Leaving it out instead
would make the arm equal to another one, as two "different" control arms of one lab were.
Example:
    conditions: {treated: [catch, atack]}
Fix:
    conditions: {treated: [catch, attack]}

E0303: a data set that is not declared
Why: A recipe, or a prompt set that must be disjoint from training data, is only as good as the data it names. A check
against a data set that does not exist would pass.
Example:
    train: {attack: {data: bad_answers}}
Fix:
    train: {attack: {data: bad_only}}

E0304: a prompt set that is not declared
Why: The prompts are the units of every test. The source of issue 147 counts 40 of them in one place and 48 in
another; a name that stands for one declared and counted set cannot drift like that.
Example:
    sample: {first: {prompts: held_out}}
Fix:
    sample: {first: {prompts: heldout}}

E0305: a sample set that is not declared
Why: A metric reads the completions of one sample set: its system prompt, its temperature, its turns. With the wrong set
it would be another measurement under the same name.
Example:
    metrics: {caught: {of: secnd}}
Fix:
    metrics: {caught: {of: second}}

E0306: a metric that is not declared
Why: An analysis without a metric has nothing to test, and the gates that read it could never be true.
Example:
    analyses: {gap: {metric: brokn}}
Fix:
    analyses: {gap: {metric: broken}}

E0307: an analysis that is not declared
Why: In one lab a stop rule read a key that nobody wrote and defaulted to "pass". Gates refer to analyses that exist, and
one that cannot be computed makes its gate unknown, never true.
Example:
    gates: {able: {require: quiz.lower > -0.1}}        # the metric, not an analysis of it
Fix:
    gates: {able: {require: quizzed.lower > -0.1}}

E0309: a gate that is not declared
Why: A verdict rule that names a gate nobody defined can never fire, or always, depending on who reads it. The verdict
is decided by the table as it is written.
Example:
    verdicts: [{if: no_efect, then: KILL}, {if: survives and able, then: SUCCESS}, {otherwise: INCONCLUSIVE}]
Fix:
    verdicts: [{if: no_effect, then: KILL}, {if: survives and able, then: SUCCESS}, {otherwise: INCONCLUSIVE}]

E0311: generated text that is not declared
Why: Text that a model writes for the training data is part of the recipe: its prompts, its temperature and its seed are
registered under `generate`. A filling that names no such entry has no source.
Example:
    data: {traces: {fill: {bad: {generate: bad_answers}}}}
Fix:
    data: {traces: {fill: {bad: {generate: bad}}}}

E0316: a judge that is not declared
Why: A judge is a model and a rubric, both hashed. Without them a score has no instrument.
Example:
    metrics: {refusals: {judge: claude}}
Fix:
    metrics: {refusals: {judge: grader}}

E1601: results that are not declared
Why: A metric of results from elsewhere is a column of one declared file. Without the entry nobody could say which file
was decided on, nor hold it to a hash.
Example:
    results: {own: {file: data/own.csv, format: csv, mapping: {unit: item, condition: arm}}}
    metrics: {refusals: {of: null, judge: null, results: owns, score: refused, scale: [0, 1], unit: prompt}}
Fix:
    results: {own: {file: data/own.csv, format: csv, mapping: {unit: item, condition: arm}}}
    metrics: {refusals: {of: null, judge: null, results: own, score: refused, scale: [0, 1], unit: prompt}}
"""

from __future__ import annotations

from typing import Final

from epc.compiler.diagnostics import Span, did_you_mean
from epc.compiler.resolve.context import Context
from epc.compiler.resolve.experiment import arms
from epc.compiler.resolve.files import relative
from epc.compiler.source import PathKey

_UNKNOWN: Final = {
    "conditions": ("E0301", "condition"),
    "train": ("E0302", "training phase"),
    "data": ("E0303", "data set"),
    "prompts": ("E0304", "prompt set"),
    "sample": ("E0305", "sample set"),
    "metrics": ("E0306", "metric"),
    "analyses": ("E0307", "analysis"),
    "gates": ("E0309", "gate"),
    "generate": ("E0311", "generated text"),
    "judges": ("E0316", "judge"),
    "results": ("E1601", "results"),
}
"""Section -> the code of a name that it does not declare, and what such a name is of."""


def known(context: Context, section: str, name: str, at: Span) -> bool:
    """Report a name that a section does not declare. True when the entry exists and has a shape."""
    if not context.surface.declares(section, name):
        code, what = _UNKNOWN[section]
        help_ = did_you_mean(name, context.surface.declared(section))
        context.sink.error(code, f'unknown {what} "{name}"', at, help=help_)
    return name in getattr(context.spec, section)


def recipes(context: Context) -> None:
    """Data sets that training recipes name."""
    for name, recipe in context.spec.train.items():
        known(context, "data", recipe.data, context.at("train", name, "data"))


def conditions(context: Context) -> None:
    """Training phases that conditions name."""
    spans = context.surface.document.spans
    for name in context.spec.conditions:
        for index, phase in enumerate(context.spec.phases(name)):
            path: PathKey = ("conditions", name, "phases", index)
            known(context, "train", phase, context.at(*(path if path in spans else (*path[:2], index))))


def results(context: Context) -> None:
    """Arms that results from elsewhere name, and the paths of their files: the files are read when it is decided."""
    for name, entry in context.spec.results.items():
        relative(context, entry.file, context.at("results", name, "file"))
        if entry.condition is not None:
            known(context, "conditions", entry.condition, context.at("results", name, "condition"))
        for theirs, arm in entry.conditions.items():
            known(context, "conditions", arm, context.at("results", name, "conditions", theirs))


def analyses(context: Context) -> None:
    """Metrics, conditions and prompt sets that analyses name, and analyses that switches name."""
    for name, analysis in context.spec.analyses.items():
        known(context, "metrics", analysis.metric, context.at("analyses", name, "metric"))
        for arm in arms(analysis):
            place = context.at("analyses", name, "contrast" if analysis.contrast is not None else "arm")
            known(context, "conditions", arm, context.within(place, arm))
        if analysis.on is not None:
            known(context, "prompts", analysis.on, context.at("analyses", name, "on"))
    for name, gate in context.spec.gates.items():
        if gate.analysis is not None:
            known(context, "analyses", gate.analysis, context.at("gates", name, "analysis"))
