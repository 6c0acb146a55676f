"""The ordered verdict table under the one rule for unknowns.

Any validity gate false or unknown: INVALID. Otherwise the table is evaluated under every completion
of the unknown gates, and under every answer of an unknown switch; if all give one label it stands,
otherwise INVALID.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from epc.compiler.contract.decision import AnalysisResult, Verdict
from epc.compiler.contract.logic import Atom, Name, Truth, evaluate, first_match, leaves
from epc.compiler.contract.manifest import Role, VerdictRule
from epc.runtime.gates import Evaluated, reason
from epc.runtime.wording import plural

DECIDING: frozenset[Role] = frozenset({"override", "kill", "success", "guardrail", "sanity"})
"""Roles that a verdict rule may name. Validity gates stand above the table."""
INVALID = "INVALID"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The gates under one answer of the switches; without an unknown switch there is one reading."""

    gates: Sequence[Evaluated]
    said: str = ""
    """For example `headline filtered`."""

    def having(self, name: str, truth: bool) -> Reading:
        """The same with one gate's truth replaced."""
        return replace(self, gates=[replace(g, truth=truth) if g.name == name else g for g in self.gates])


def label_of(rules: Sequence[VerdictRule], readings: Sequence[Reading]) -> str:
    """The verdict's label under the one rule for unknowns."""
    labels = {label for reading in readings for label in labels_of(rules, reading)}
    return labels.pop() if len(labels) == 1 else INVALID


def labels_of(rules: Sequence[VerdictRule], reading: Reading) -> list[str]:
    """Labels that one reading allows, in the order of the table."""
    if any(gate.role == "validity" and gate.truth is not True for gate in reading.gates):
        return [INVALID]
    return list(dict.fromkeys(rules[index].label for index in _reached(rules, reading.gates)))


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
    gate: Evaluated, readings: Sequence[Reading], rules: Sequence[VerdictRule], label: str
) -> str | None:  # fmt: skip
    """The label if this gate alone had another truth, None when it would not change or the gate never decides.

    Of a switch it is asked with the readings of its other answer: `switches.Evaluation.flipped`.
    """
    if gate.role not in DECIDING and gate.role != "validity":
        return None
    others = (True, False) if gate.truth is None else (not gate.truth,)
    return other_labels([[reading.having(gate.name, other) for reading in readings] for other in others], rules, label)


def other_labels(
    alternatives: Sequence[Sequence[Reading]], rules: Sequence[VerdictRule], label: str
) -> str | None:  # fmt: skip
    """Labels of the alternatives that are not `label`, None when there is none."""
    found = dict.fromkeys(label_of(rules, readings) for readings in alternatives)
    return " or ".join(other for other in found if other != label) or None


def verdict_of(
    rules: Sequence[VerdictRule],
    gates: Sequence[Evaluated],
    readings: Sequence[Reading],
    results: Mapping[str, AnalysisResult],
    notes: Sequence[str] = (),
) -> Verdict:
    """The verdict with its reason: the deciding gates, their observed values and their thresholds.

    `gates` are as printed, over all readings; `notes` are sentences that follow the reason whatever the
    verdict is, such as the caveat of a switch.
    """
    by_name = {gate.name: gate for gate in gates}

    def told(because: str) -> str:
        return " ".join([because, *notes])

    broken = [gate for gate in gates if gate.role == "validity" and gate.truth is not True]
    if broken:
        false = [gate for gate in broken if gate.truth is False]
        unknown = [gate for gate in broken if gate.truth is None]
        because = f"{plural(len(broken), 'Validity gate')}: {'; '.join(reason(g, results) for g in false or unknown)}"
        if false and unknown:
            because += f"; unknown: {', '.join(gate.name for gate in unknown)}"
        return Verdict(
            label=INVALID, verdict_class="INVALID", rule=None, rule_text="validity gates come before the table", say="",
            because=told(because + "."),
        )  # fmt: skip
    reached = sorted({index for reading in readings for index in _reached(rules, reading.gates)})
    if len({rules[index].label for index in reached}) > 1:
        named = dict.fromkeys(name for rule in rules for name in _named(rule))
        unknown = [by_name[name] for name in named if by_name[name].truth is None]
        unknown += [gate for gate in gates if gate.role == "switch" and gate.truth is None]
        return Verdict(
            label=INVALID, verdict_class="INVALID", rule=None, rule_text="the table depends on what is unknown", say="",
            because=told(
                f"It would be {_would_be(rules, readings)}, depending on what is unknown:"
                f" {'; '.join(reason(g, results) for g in unknown)}."
            ),
        )  # fmt: skip
    index = reached[0]
    rule = rules[index]
    return Verdict(
        label=rule.label,
        verdict_class=rule.verdict_class,
        rule=index,
        rule_text=rule.text,
        say=rule.say,
        because=told(_because(rules, reached, by_name, results)),
    )


def _would_be(rules: Sequence[VerdictRule], readings: Sequence[Reading]) -> str:
    """`KILL or SUCCESS`, or what each answer of an unknown switch allows where they differ."""
    allowed = [" or ".join(labels_of(rules, reading)) for reading in readings]
    if len(set(allowed)) == 1:
        return allowed[0]
    return ", ".join(f"{labels} with {reading.said}" for labels, reading in zip(allowed, readings, strict=True))


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
