"""Declared gates on analysis results, under Kleene's logic, and how a gate is said in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from epc.compiler.contract.decision import AnalysisResult, GateResult, Observation
from epc.compiler.contract.logic import Atom, Name, Truth, compare, evaluate, leaves
from epc.compiler.contract.manifest import Gate, Role, VerdictClass


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """A gate with its truth, before anybody asks what it would flip."""

    name: str
    role: Role
    text: str
    truth: Truth
    observations: tuple[Observation, ...] = ()
    say: str = ""
    built_in: bool = False
    detail: str = ""

    def result(self, would_flip: str | None) -> GateResult:
        return GateResult(
            name=self.name, role=self.role, text=self.text, truth=self.truth, observations=self.observations,
            would_flip=would_flip, say=self.say, built_in=self.built_in, detail=self.detail,
        )  # fmt: skip


def evaluate_gate(gate: Gate, results: Mapping[str, AnalysisResult]) -> Evaluated:
    """A declared gate with its atoms as observed; an atom of an unknown statistic is unknown."""

    def leaf(node: Atom | Name) -> Truth:
        if isinstance(node, Name):
            raise TypeError("a gate compares statistics, it does not name gates")
        return compare(results[node.analysis].statistics.get(node.statistic), node.operator, node.constant)

    atoms = [node for node in leaves(gate.predicate) if isinstance(node, Atom)]
    truth = evaluate(gate.predicate, leaf)
    details = dict.fromkeys(
        f"{atom.analysis} is unknown: {why}" for atom in atoms if (why := results[atom.analysis].unknown_because)
    )
    if gate.role == "prediction":
        details = dict.fromkeys([_hit(truth), *details])
    return Evaluated(
        name=gate.name, role=gate.role, text=gate.text, truth=truth, say=gate.say, detail="; ".join(details),
        observations=tuple(
            Observation(
                text=_atom_text(atom),
                value=results[atom.analysis].statistics.get(atom.statistic),
                truth=leaf(atom),
                n=results[atom.analysis].n_units,
            )
            for atom in atoms
        ),
    )  # fmt: skip


def _hit(truth: Truth) -> str:
    return "HIT" if truth else "UNKNOWN" if truth is None else "MISS"


def _atom_text(atom: Atom) -> str:
    if atom.statistic == "reject" and atom.operator == "==" and atom.constant == 1:
        return f"{atom.analysis}.{atom.statistic}"
    return f"{atom.analysis}.{atom.statistic} {atom.operator} {_constant(atom.constant)}"


def _constant(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def evaluate_follow_up(gate: Gate, results: Mapping[str, AnalysisResult], reached: VerdictClass) -> Evaluated:
    """A follow-up gate is read after the verdict it waits for, and feeds nothing back."""
    if gate.on and reached not in gate.on:
        return Evaluated(
            name=gate.name, role=gate.role, text=gate.text, truth=None, say=gate.say,
            detail=f"not read: it is for {' or '.join(gate.on)} only",
        )  # fmt: skip
    return evaluate_gate(gate, results)


def reason(gate: Evaluated, results: Mapping[str, AnalysisResult]) -> str:
    """`survives is true (headline.delta = 0.32 >= 0.15)`; a built-in gate tells its detail."""
    word = "unknown" if gate.truth is None else "true" if gate.truth else "false"
    observed = [_observed(observation, results) for observation in gate.observations] or [gate.detail]
    return f"{gate.name} is {word} ({', '.join(observed)})"


def _observed(observation: Observation, results: Mapping[str, AnalysisResult]) -> str:
    statistic, _, comparison = observation.text.partition(" ")
    result = results[statistic.partition(".")[0]]
    if observation.value is None:
        why = result.unknown_because or f"{result.method} does not define it"
        return f"{observation.text} is unknown: {why}"
    if not comparison:
        p = result.statistics.get("p")
        return f"{statistic} = {observation.value:.6g}" + (
            "" if p is None else f", p = {p:.6g}, alpha {result.alpha:g}"
        )
    return f"{statistic} = {observation.value:.6g}, {'' if observation.truth else 'not '}{comparison}"
