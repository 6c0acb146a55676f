"""Findings that can be read off the gates and roles, without any cell."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, assert_never

from epc.compiler.contract.logic import And, Atom, Name, Not, Or, Predicate, leaves
from epc.compiler.contract.manifest import Analysis, Gate, Role, VerdictRule
from epc.compiler.predicate import number_text
from epc.compiler.table.cells import quantity_of
from epc.compiler.table.facts import estimate_of
from epc.compiler.table.finding import Finding

DECIDING: Final[frozenset[Role]] = frozenset({"override", "kill", "success", "guardrail", "sanity"})
"""Roles that a verdict rule may name; validity stands above the table."""
MUST_DECIDE: Final[frozenset[Role]] = frozenset({"override", "kill", "success", "guardrail"})
"""Roles that mean nothing unless a rule names them."""

Direction = Literal["up", "down", "exact"]


def directed(predicate: Predicate, *, negated: bool = False) -> Iterator[tuple[Atom, Direction]]:
    """Every atom with the direction in which its statistic makes the predicate true."""
    match predicate:
        case Atom(operator=operator):
            match operator:
                case ">" | ">=":
                    yield predicate, "down" if negated else "up"
                case "<" | "<=":
                    yield predicate, "up" if negated else "down"
                case "==" | "!=":
                    yield predicate, "exact"
                case _:
                    assert_never(operator)
        case Name():
            return
        case Not(operand=operand):
            yield from directed(operand, negated=not negated)
        case And(operands=operands) | Or(operands=operands):
            for operand in operands:
                yield from directed(operand, negated=negated)
        case _:
            assert_never(predicate)


def atoms(predicate: Predicate) -> tuple[Atom, ...]:
    return tuple(leaf for leaf in leaves(predicate) if isinstance(leaf, Atom))


def named(rule: VerdictRule) -> tuple[str, ...]:
    """Gates that a rule names, each once."""
    if rule.predicate is None:
        return ()
    return tuple(dict.fromkeys(leaf.name for leaf in leaves(rule.predicate) if isinstance(leaf, Name)))


def treatment_arms(analyses: Mapping[str, Analysis], gates: Sequence[Gate]) -> frozenset[str]:
    """Arms whose effect the success gates test."""
    read = {atom.analysis for gate in gates if gate.role == "success" for atom in atoms(gate.predicate)}
    return frozenset(
        contrast.treatment for name in read if name in analyses and (contrast := analyses[name].contrast) is not None
    )


def declared_findings(
    analyses: Mapping[str, Analysis], gates: Sequence[Gate], verdicts: Sequence[VerdictRule]
) -> Iterator[Finding]:
    """Roles against use; thresholds against each other; point rules; what a manipulation check reads."""
    yield from _roles(gates, verdicts)
    yield from _classes(gates, verdicts)
    yield from _manipulation(analyses, gates)
    yield from _thresholds(analyses, gates)
    yield from _point_rules(analyses, gates)


def _roles(gates: Sequence[Gate], verdicts: Sequence[VerdictRule]) -> Iterator[Finding]:
    for gate in gates:
        rules = tuple(index for index, rule in enumerate(verdicts) if gate.name in named(rule))
        role = gate.role.replace("_", "-")
        if rules and gate.role not in DECIDING:
            fact = "stands above the table" if gate.role == "validity" else "never decides"
            yield Finding(
                kind="descriptive_decides",
                severity="error",
                message=f"rule {rules[0] + 1} names {gate.name}, but a {role} gate {fact}",
                rules=rules,
                gates=(gate.name,),
            )
        if not rules and gate.role in MUST_DECIDE:
            yield Finding(
                kind="undecided_gate",
                severity="error",
                message=f"no verdict rule names the {role} gate {gate.name}, so it decides nothing",
                gates=(gate.name,),
            )


def asserted(predicate: Predicate, *, negated: bool = False) -> Iterator[tuple[str, bool]]:
    """Every gate that a rule names, with the truth that speaks for the rule."""
    match predicate:
        case Name(name=name):
            yield name, not negated
        case Atom():
            return
        case Not(operand=operand):
            yield from asserted(operand, negated=not negated)
        case And(operands=operands) | Or(operands=operands):
            for operand in operands:
                yield from asserted(operand, negated=negated)
        case _:
            assert_never(predicate)


def _classes(gates: Sequence[Gate], verdicts: Sequence[VerdictRule]) -> Iterator[Finding]:
    """Verdicts that no gate of their kind speaks for; names that are no gate are left to name resolution."""
    roles = {gate.name: gate.role for gate in gates}
    for index, rule in enumerate(verdicts):
        found = [] if rule.predicate is None else list(dict.fromkeys(asserted(rule.predicate)))
        if any(name not in roles for name, _ in found):
            continue
        because = _against(rule, [(roles[name], name, holds) for name, holds in found])
        if because is not None:
            yield Finding(
                kind="class_against_role", severity="warning", rules=(index,), gates=tuple(name for name, _ in found),
                message=f"rule {index + 1} gives {rule.label} {because}",
            )  # fmt: skip


def _against(rule: VerdictRule, named: Sequence[tuple[Role, str, bool]]) -> str | None:
    """Why the gates of a rule do not speak for its class; None where they do, or nothing need."""
    holding = {role for role, _, holds in named if holds}
    failing = {role for role, _, holds in named if not holds}
    match rule.verdict_class:
        case "SUCCESS":
            stopping = [name for role, name, holds in named if holds and role in ("kill", "override")]
            if stopping:
                return f"where {stopping[0]} fires, a gate that stops"
            return None if "success" in holding else "where no success gate need hold"
        case "KILL":
            spoken = rule.predicate is None or holding & {"kill", "override"} or failing - {"kill", "override"}
            return None if spoken else "where no kill gate need fire and no other gate need fail"
        case "OVERRIDE":
            return None if "override" in holding else "where no override gate need fire"
        case "INCONCLUSIVE" | "INVALID":
            return None
        case _:
            assert_never(rule.verdict_class)


def _manipulation(analyses: Mapping[str, Analysis], gates: Sequence[Gate]) -> Iterator[Finding]:
    treatments = treatment_arms(analyses, gates)
    for gate in gates:
        if gate.role != "validity":
            continue
        for name in dict.fromkeys(atom.analysis for atom in atoms(gate.predicate)):
            analysis = analyses.get(name)
            if analysis is None:
                continue
            contrast = analysis.contrast
            arms = (analysis.arm,) if contrast is None else (contrast.treatment, contrast.control)
            for arm in arms:
                if arm in treatments:
                    yield Finding(
                        kind="manipulation_reads_treatment",
                        severity="error",
                        message=f"validity gate {gate.name} reads {arm}, the arm whose effect is tested, through {name}:"
                        " the result would decide whether the experiment counts",
                        gates=(gate.name,),
                    )


def _thresholds(analyses: Mapping[str, Analysis], gates: Sequence[Gate]) -> Iterator[Finding]:
    """Two gates of one role that bound one statistic in one direction at different constants."""
    seen: dict[tuple[Role, tuple[str, ...], Direction], list[tuple[Gate, Atom]]] = {}
    for gate in gates:
        for atom, direction in directed(gate.predicate):
            analysis = analyses.get(atom.analysis)
            if analysis is None or direction == "exact":
                continue
            quantity: tuple[str, ...] = (atom.analysis, atom.statistic)
            if atom.statistic == "delta" and analysis.contrast is not None:
                # Two analyses of one contrast have one estimate.
                quantity = quantity_of(analysis)
            seen.setdefault((gate.role, quantity, direction), []).append((gate, atom))
    for (role, _, _), found in seen.items():
        for (gate, atom), (other_gate, other) in itertools.combinations(found, 2):
            if gate.name != other_gate.name and atom.constant != other.constant:
                yield Finding(
                    kind="same_quantity_two_thresholds",
                    severity="warning",
                    message=f"{role.replace('_', '-')} gates {gate.name} and {other_gate.name} hold"
                    f" {atom.analysis}.{atom.statistic} to two thresholds, {number_text(atom.constant)} and"
                    f" {number_text(other.constant)}",
                    gates=(gate.name, other_gate.name),
                )
                break


def _point_rules(analyses: Mapping[str, Analysis], gates: Sequence[Gate]) -> Iterator[Finding]:
    for gate in gates:
        if gate.role not in ("guardrail", "override"):
            continue
        bounded = {atom.analysis for atom in atoms(gate.predicate) if atom.statistic in _BOUNDS}
        points = [
            atom
            for atom in atoms(gate.predicate)
            if atom.analysis in analyses
            and atom.statistic == estimate_of(analyses[atom.analysis])
            and atom.analysis not in bounded
        ]
        if points:
            yield Finding(
                kind="point_rule_at_margin",
                severity="warning",
                message=f"{gate.role} {gate.name} compares the point estimate {points[0].analysis}."
                f"{points[0].statistic} with its margin: when the truth is exactly at the margin a point rule passes"
                " about half of the time, a rule on the 95% bound about one time in twenty",
                gates=(gate.name,),
            )


_BOUNDS: Final = ("lower", "upper", "ci_low", "ci_high")
