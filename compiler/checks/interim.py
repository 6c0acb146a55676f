"""Planned looks at partial results: their order, the test they are at, and how much there is to see.

E0835: looks that do not lead to the end
Why: alpha is spent from look to look and all of it is spent at the last one, where every unit is in. Out of order, or
without the end, nobody can say what is left for the test that decides.
Example:
    interim: {looks: [0.9, 0.95], spending: obrien_fleming}
Fix:
    interim: {looks: [0.9, 1], spending: obrien_fleming}

E0836: looks at something else than the one test
Why: each look at half of the data is another chance to reject: five looks at .05 reject a true null 14% of the
time. A spending function divides the alpha of one test over its looks, so there must be one test, its gate must
read `reject`, which contains the division, and no family may divide the same alpha again.
Example:
    gates: {survives: {require: headline.lower >= 5}}
    interim: {looks: [0.9, 1], spending: obrien_fleming}
Fix:
    gates: {survives: {require: headline.reject and headline.lower >= 5}}
    interim: {looks: [0.9, 1], spending: obrien_fleming}

E0839: a look at too few units
Why: below 20 units a bootstrap rejects a true null far too often, and a look tests with the units that are in. Half of
24 prompts are 12.
Example:
    interim: {looks: [0.5, 1], spending: obrien_fleming}
Fix:
    interim: {looks: [0.9, 1], spending: obrien_fleming}
"""

from __future__ import annotations

from itertools import pairwise

from epc.compiler import decision
from epc.compiler.checks.analysis import ARM_METHODS
from epc.compiler.checks.confirmatory import MINIMUM_UNITS, exact, resampled_units, tested
from epc.compiler.contract.spending import units_at
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment


def check(experiment: Experiment, sink: Diagnostics) -> None:
    planned = experiment.spec.interim
    if planned is None:
        return
    looks = planned.looks
    if looks[-1] != 1 or not all(low < high for low, high in pairwise(looks)):
        sink.error(
            "E0835", f"looks at {', '.join(f'{look:g}' for look in looks)} do not rise to 1", experiment.at("interim", "looks"),
            help="write shares of the units in rising order, the last of them 1",
        )  # fmt: skip
        return
    why = _why_not(experiment)
    if why is not None:
        sink.error(
            "E0836", f"looks are planned, and {why}", experiment.key_at("interim"),
            help="keep one success test, read by `reject`, and make the others predictions or guardrails with a margin",
        )  # fmt: skip
        return
    (name,) = decision.confirmatory(experiment)
    analysis = experiment.spec.analyses[name]
    count = resampled_units(experiment, analysis)
    if count is None or exact(analysis):
        return
    first = units_at(looks[0], count)
    if first < MINIMUM_UNITS:
        sink.error(
            "E0839", f'the first look at "{name}" has {first} units, fewer than {MINIMUM_UNITS}', experiment.at("interim", "looks", 0),
            help=f"begin at {MINIMUM_UNITS} of the {count} units, or use method: sign_flip, which is exact for small samples",
            notes=[f"{looks[0]:g} x {count} = {looks[0] * count:g}"],
        )  # fmt: skip


def _why_not(experiment: Experiment) -> str | None:
    """What stands against looks; None when there is one test that they can be at."""
    names = sorted(decision.confirmatory(experiment))
    if len(names) != 1:
        return f"{len(names) or 'no'} analyses are confirmatory" + (f": {', '.join(names)}" if names else "")
    (name,) = names
    analysis = experiment.spec.analyses.get(name)
    if analysis is None:
        return None
    if analysis.method in ARM_METHODS:
        return f"{name} has no p"
    if name not in tested(experiment, ("reject",)):
        return f"no success gate reads {name}.reject, which contains what earlier looks spent"
    if any(name in family.analyses for family in experiment.spec.families.values()):
        return f"the family of {name} divides its alpha already"
    return None
