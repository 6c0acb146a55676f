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


def evaluate_gate(gate: Gate, *readings: Mapping[str, AnalysisResult]) -> Evaluated:
    """A declared gate with its atoms as observed; an atom of an unknown statistic is unknown.

    Each reading holds every analysis by name. There are several where a switch is unknown: then the gate
    is true or false only where it is so in all of them, and shows what each observed.
    """
    atoms = [node for node in leaves(gate.predicate) if isinstance(node, Atom)]
    truths = {_truth(gate, results) for results in readings}
    truth = truths.pop() if len(truths) == 1 else None
    read = list(dict.fromkeys((atom, results[atom.analysis].name) for atom in atoms for results in readings))
    named = {result.name: result for results in readings for result in results.values()}
    details = dict.fromkeys(f"{name} is unknown: {why}" for _, name in read if (why := named[name].unknown_because))
    if gate.role == "prediction":
        details = dict.fromkeys([_hit(truth), *details])
    return Evaluated(
        name=gate.name, role=gate.role, text=gate.text, truth=truth, say=gate.say, detail="; ".join(details),
        observations=tuple(
            Observation(
                text=_atom_text(atom, name),
                value=(value := named[name].statistics.get(atom.statistic)),
                truth=compare(value, atom.operator, atom.constant),
                n=named[name].n_units,
            )
            for atom, name in read
        ),
    )  # fmt: skip


def _truth(gate: Gate, results: Mapping[str, AnalysisResult]) -> Truth:
    def leaf(node: Atom | Name) -> Truth:
        if isinstance(node, Name):
            raise TypeError("a gate compares statistics, it does not name gates")
        return compare(results[node.analysis].statistics.get(node.statistic), node.operator, node.constant)

    return evaluate(gate.predicate, leaf)


def _hit(truth: Truth) -> str:
    return "HIT" if truth else "UNKNOWN" if truth is None else "MISS"


def _atom_text(atom: Atom, analysis: str) -> str:
    """`analysis` is the name under which the result is printed: that of a variant where a switch is unknown."""
    if atom.statistic == "reject" and atom.operator == "==" and atom.constant == 1:
        return f"{analysis}.{atom.statistic}"
    return f"{analysis}.{atom.statistic} {atom.operator} {_constant(atom.constant)}"


def _constant(value: float) -> str:
    return repr(float(value)).removesuffix(".0")


def evaluate_follow_up(gate: Gate, reached: VerdictClass, *readings: Mapping[str, AnalysisResult]) -> Evaluated:
    """A follow-up gate is read after the verdict it waits for, and feeds nothing back."""
    if gate.on and reached not in gate.on:
        return Evaluated(
            name=gate.name, role=gate.role, text=gate.text, truth=None, say=gate.say,
            detail=f"not read: it is for {' or '.join(gate.on)} only",
        )  # fmt: skip
    return evaluate_gate(gate, *readings)


def reason(gate: Evaluated, results: Mapping[str, AnalysisResult]) -> str:
    """`survives is true (headline.delta = 0.32 >= 0.15)`; a built-in gate tells its detail."""
    word = "unknown" if gate.truth is None else "true" if gate.truth else "false"
    observed = [_observed(observation, results) for observation in gate.observations] or [gate.detail]
    return f"{gate.name} is {word} ({', '.join(observed)})"


def _observed(observation: Observation, results: Mapping[str, AnalysisResult]) -> str:
    statistic, _, comparison = observation.text.partition(" ")
    result = results[statistic.rpartition(".")[0]]
    if observation.value is None:
        why = result.unknown_because or f"{result.method} does not define it"
        return f"{observation.text} is unknown: {why}"
    if not comparison:
        p, adjusted = result.statistics.get("p"), result.p_adjusted
        ps = [] if p is None else [f"p = {p:.6g}"]
        ps += [] if adjusted is None else [f"adjusted p = {adjusted:.6g}"]
        level = f"alpha {result.alpha:g}" if result.level is None else f"level of the last look {result.level:g}"
        return ", ".join([f"{statistic} = {observation.value:.6g}", *ps, *([level] if ps else [])])
    return f"{statistic} = {observation.value:.6g}, {'' if observation.truth else 'not '}{comparison}"
