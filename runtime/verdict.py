"""The ordered verdict table under the one rule for unknowns.

Any validity gate false or unknown: INVALID. Otherwise the table is evaluated under every completion
of the unknown gates; if all give one label it stands, otherwise INVALID.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from epc.compiler.contract.decision import AnalysisResult, Verdict
from epc.compiler.contract.logic import Atom, Name, Truth, evaluate, first_match, leaves
from epc.compiler.contract.manifest import Role, VerdictRule
from epc.runtime.gates import Evaluated, reason
from epc.runtime.wording import plural

DECIDING: frozenset[Role] = frozenset({"override", "kill", "success", "guardrail", "sanity"})
"""Roles that a verdict rule may name. Validity gates stand above the table."""
INVALID = "INVALID"


def label_of(rules: Sequence[VerdictRule], gates: Sequence[Evaluated]) -> str:
    """The verdict's label under the one rule for unknowns."""
    if any(gate.role == "validity" and gate.truth is not True for gate in gates):
        return INVALID
    reached = {rules[index].label for index in _reached(rules, gates)}
    return reached.pop() if len(reached) == 1 else INVALID


def _reached(rules: Sequence[VerdictRule], gates: Sequence[Evaluated]) -> list[int]:
    """Indices of the rules that can be the first to match, over every completion of what is unknown.

    Rules that are false whatever is unknown cannot match, and nothing behind a rule that is true
    whatever is unknown can: leaving both out first keeps the number of completions small.
    """
    truths = {gate.name: gate.truth for gate in gates}
    open_rules: list[int] = []
    for index, rule in enumerate(rules):
        truth = True if rule.predicate is None else evaluate(rule.predicate, lambda leaf: _gate_truth(leaf, truths))
        if truth is not False:
            open_rules.append(index)
        if truth is True:
            break
    return sorted(open_rules[place] for place in first_match([rules[i].predicate for i in open_rules], truths))


def _gate_truth(leaf: Atom | Name, truths: Mapping[str, Truth]) -> Truth:
    if isinstance(leaf, Atom):
        raise TypeError("a verdict rule names gates, not statistics")
    return truths[leaf.name]


def would_flip(
    gate: Evaluated, gates: Sequence[Evaluated], rules: Sequence[VerdictRule], label: str
) -> str | None:  # fmt: skip
    """The label if this gate alone had another truth, None when it would not change or the gate never decides."""
    if gate.role not in DECIDING and gate.role != "validity":
        return None
    others = (True, False) if gate.truth is None else (not gate.truth,)
    found = [
        label_of(rules, [replace(g, truth=other) if g.name == gate.name else g for g in gates]) for other in others
    ]
    return " or ".join(dict.fromkeys(other for other in found if other != label)) or None


def verdict_of(
    rules: Sequence[VerdictRule], gates: Sequence[Evaluated], results: Mapping[str, AnalysisResult]
) -> Verdict:  # fmt: skip
    """The verdict with its reason: the deciding gates, their observed values and their thresholds."""
    by_name = {gate.name: gate for gate in gates}
    broken = [gate for gate in gates if gate.role == "validity" and gate.truth is not True]
    if broken:
        false = [gate for gate in broken if gate.truth is False]
        unknown = [gate for gate in broken if gate.truth is None]
        because = f"{plural(len(broken), 'Validity gate')}: {'; '.join(reason(g, results) for g in false or unknown)}"
        if false and unknown:
            because += f"; unknown: {', '.join(gate.name for gate in unknown)}"
        return Verdict(
            label=INVALID, verdict_class="INVALID", rule=None, rule_text="validity gates come before the table", say="",
            because=because + ".",
        )  # fmt: skip
    reached = _reached(rules, gates)
    labels = list(dict.fromkeys(rules[index].label for index in reached))
    if len(labels) > 1:
        named = dict.fromkeys(name for rule in rules for name in _named(rule))
        unknown = [by_name[name] for name in named if by_name[name].truth is None]
        return Verdict(
            label=INVALID, verdict_class="INVALID", rule=None, rule_text="the table depends on what is unknown", say="",
            because=f"It would be {' or '.join(labels)}, depending on what is unknown:"
            f" {'; '.join(reason(g, results) for g in unknown)}.",
        )  # fmt: skip
    index = reached[0]
    rule = rules[index]
    return Verdict(
        label=rule.label,
        verdict_class=rule.verdict_class,
        rule=index,
        rule_text=rule.text,
        say=rule.say,
        because=_because(rules, reached, by_name, results),
    )


def _named(rule: VerdictRule) -> list[str]:
    """Gates that a rule names, left to right, each once."""
    found = leaves(rule.predicate) if rule.predicate is not None else iter(())
    return list(dict.fromkeys(leaf.name for leaf in found if isinstance(leaf, Name)))


def _because(
    rules: Sequence[VerdictRule],
    reached: Sequence[int],
    gates: Mapping[str, Evaluated],
    results: Mapping[str, AnalysisResult],
) -> str:
    """The deciding gates with observed values and thresholds."""
    index = reached[0]
    if len(reached) > 1:
        numbers = " and ".join(str(number + 1) for number in reached)
        start = f"Rules {numbers} give the same verdict, whatever is unknown"
        named = [name for number in reached for name in _named(rules[number])]
    elif rules[index].predicate is None:
        start = "No rule before `otherwise` matches"
        named = [name for rule in rules for name in _named(rule)]
    else:
        start = f"Rule {index + 1} is the first that matches"
        named = _named(rules[index])
    reasons = [reason(gates[name], results) for name in dict.fromkeys(named)]
    return f"{start}: {'; '.join(reasons)}." if reasons else f"{start}."
