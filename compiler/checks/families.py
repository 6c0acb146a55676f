"""Families of tests: who is in them, at which level, and what their members decide.

E0815: an analysis that is in a family twice, or in two families
Why: each test is one chance of a false success, and its rule counts it once. In two families the rejection of the one
contradicts that of the other, and a gate reads only one of them.
Example:
    families: {primary: {method: holm, analyses: [headline, headline], alpha: 0.025}}
Fix:
    families: {primary: {method: holm, analyses: [headline, attack_effect], alpha: 0.025}}

E0816: a member of a family that decides nothing
Why: a test whose rejection no gate reads only makes the others stricter, and under Benjamini and Hochberg's rule a sure
rejection even makes them laxer. A level of one arm has no p that a rule could read. The family is what must not
succeed falsely, and nothing else.
Example:
    families: {primary: {method: holm, analyses: [headline, attack_effect], alpha: 0.025}}
Fix:
    gates: {survives: {require: headline.reject and attack_effect.reject and headline.lower >= 5}}
    families: {primary: {method: holm, analyses: [headline, attack_effect], alpha: 0.025}}

E0817: a family that tests at another level than its analyses
Why: an analysis at .025 in a family at .05 shows bounds of one level and rejects at the other. The level of the family
is that of its tests before the rule divides it.
Example:
    gates: {survives: {require: headline.reject and attack_effect.reject}}
    families: {primary: {method: holm, analyses: [headline, attack_effect], alpha: 0.05}}
Fix:
    gates: {survives: {require: headline.reject and attack_effect.reject}}
    families: {primary: {method: holm, analyses: [headline, attack_effect], alpha: 0.025}}

E0818: a gate that reads the p of a test in a family
Why: p is that of the test alone: `headline.p < 0.025` passes as if there were no others. The rule of the family is in
`reject`.
Example:
    gates: {survives: {require: headline.p < 0.025 and headline.reject and attack_effect.reject}}
    families: {primary: {method: holm, analyses: [headline, attack_effect], alpha: 0.025}}
Fix:
    gates: {survives: {require: headline.reject and attack_effect.reject}}
    families: {primary: {method: holm, analyses: [headline, attack_effect], alpha: 0.025}}

W0819: false discoveries are bounded where false successes should be
Why: Benjamini and Hochberg's rule bounds the share of false rejections among all rejections. With one true effect in
the family, the probability of at least one false rejection is above alpha; a success that any member can give is then
false more often than registered. Holm's rule bounds it.
Example:
    gates: {survives: {require: headline.reject and attack_effect.reject}}
    families: {primary: {method: benjamini_hochberg, analyses: [headline, attack_effect], alpha: 0.025}}
Fix:
    gates: {survives: {require: headline.reject and attack_effect.reject}}
    families: {primary: {method: holm, analyses: [headline, attack_effect], alpha: 0.025}}
"""

from __future__ import annotations

from epc.compiler.checks.analysis import ARM_METHODS
from epc.compiler.checks.confirmatory import tested
from epc.compiler.contract.logic import Atom, leaves
from epc.compiler.diagnostics import Diagnostics, did_you_mean
from epc.compiler.resolve import Experiment
from epc.compiler.spec import Family
from epc.compiler.table.declared import DECIDING


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    member_of: dict[str, str] = {}
    by_reject, by_p = (_deciding(experiment, statistic) for statistic in ("reject", "p"))
    success = tested(experiment, ("reject",))
    for name, family in spec.families.items():
        for place, member in enumerate(family.analyses):
            at = experiment.at("families", name, "analyses", place)
            if not experiment.surface.declares("analyses", member):
                advice = did_you_mean(member, experiment.surface.declared("analyses"))
                sink.error("E0307", f'unknown analysis "{member}"', at, help=advice)
                continue
            if member in member_of:
                where = (
                    f'in family "{name}" twice'
                    if member_of[member] == name
                    else f'in families "{member_of[member]}" and "{name}"'
                )
                sink.error("E0815", f'"{member}" is {where}', at, help="keep it in one place")
            member_of[member] = name
            analysis = spec.analyses.get(member)
            if analysis is None:
                continue
            if analysis.method in ARM_METHODS:
                sink.error(
                    "E0816", f'"{member}" in family "{name}" is the level of one arm, and has no p', at,
                    help="name contrasts",
                )  # fmt: skip
            elif member not in by_reject:
                sink.error(
                    "E0816", f'no gate that decides reads {member}.reject, and family "{name}" counts it', at,
                    help=f"leave it out of the family, or let a success gate require {member}.reject",
                )  # fmt: skip
            if analysis.alpha != family.alpha:
                sink.error(
                    "E0817", f'"{member}" tests at {analysis.alpha:g}, and its family "{name}" at {family.alpha:g}',
                    experiment.at("families", name, "alpha"), help="write the same alpha in both",
                )  # fmt: skip
            if member in by_p:
                gate = by_p[member]
                sink.error(
                    "E0818", f'gate "{gate}" reads {member}.p, which does not contain the rule of family "{name}"',
                    experiment.at("gates", gate, "require" if spec.gates[gate].require is not None else "when"),
                    help=f"read {member}.reject",
                )  # fmt: skip
        _discoveries(experiment, sink, name, family, [member for member in family.analyses if member in success])


def _deciding(experiment: Experiment, statistic: str) -> dict[str, str]:
    """Analysis -> first deciding gate that reads this statistic of it."""
    found: dict[str, str] = {}
    for gate, parsed in experiment.gates.items():
        if experiment.spec.gates[gate].role in DECIDING and parsed.predicate is not None:
            for leaf in leaves(parsed.predicate):
                if isinstance(leaf, Atom) and leaf.statistic == statistic:
                    found.setdefault(leaf.analysis, gate)
    return found


def _discoveries(experiment: Experiment, sink: Diagnostics, name: str, family: Family, success: list[str]) -> None:
    if family.method == "benjamini_hochberg" and len(success) > 1:
        sink.warning(
            "W0819", f'family "{name}" bounds false discoveries, and {" and ".join(success)} are success tests',
            experiment.at("families", name, "method"), help="use method: holm, or fixed_sequence with an order",
        )  # fmt: skip
