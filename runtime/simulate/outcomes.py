"""From simulated experiments to operating characteristics: shares of verdicts, of gates, of false successes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from epc.compiler.contract.logic import And, Atom, Name, Not, Or, Predicate
from epc.compiler.contract.manifest import Analysis, Design, Gate, Truth
from epc.compiler.contract.simulation import FamilyOutcome, GateOutcome, PartOutcome, TruthOutcome, VerdictShare
from epc.runtime.simulate.contrasts import Statistics
from epc.runtime.simulate.experiments import Simulated, atoms_of
from epc.runtime.simulate.model import instruments
from epc.runtime.simulate.truths import SIZES, Named, effect_of
from epc.runtime.simulate.verdicts import UNKNOWN, Panel, class_of
from epc.runtime.switches import VARIANTS, governed
from epc.runtime.verdict import DECIDING, INVALID


def standard_error(share: float, experiments: int) -> float:
    """Of a simulated share."""
    return sqrt(share * (1 - share) / experiments)


def deserved(design: Design, truth: Truth) -> str:
    """What the table says of the true values themselves.

    Every estimate and bound is the true value, every test rejects exactly where its alternative is true. A guardrail
    whose margin the true value touches does not hold: non-inferiority excludes its margin.
    """
    switches = governed(design)
    twins = {
        metric.name: twin.name
        for instrument in instruments(design)
        for metric in instrument.metrics
        if (twin := instrument.twin(metric)) is not None
    }
    results: dict[str, Statistics] = {}
    for analysis in design.analyses:
        for variant in VARIANTS if analysis.name in switches else (None,):
            swapped = variant == "unfiltered" and analysis.metric in twins
            read = analysis.model_copy(update={"metric": twins[analysis.metric]}) if swapped else analysis
            effect = effect_of(read, truth)
            true = analysis.alternative(effect)
            values = {**dict.fromkeys(SIZES, effect), "p": 0.0 if true else 1.0, "reject": float(true)}
            name = analysis.name if variant is None else f"{analysis.name}.{variant}"
            results[name] = {key: np.array([value]) for key, value in values.items()}
    strict = [
        gate.model_copy(update={"predicate": _strict(gate.predicate)}) if gate.role == "guardrail" else gate
        for gate in design.gates
    ]
    bare = design.model_copy(update={"gates": tuple(strict), "families": ()})
    return str(Panel(design=bare, results=results, experiments=1).labels()[0])


def _strict(predicate: Predicate) -> Predicate:
    """Comparisons that the constant itself does not pass."""
    match predicate:
        case Atom(operator=">="):
            return predicate.model_copy(update={"operator": ">"})
        case Atom(operator="<="):
            return predicate.model_copy(update={"operator": "<"})
        case Atom() | Name():
            return predicate
        case Not(operand=operand):
            return Not(operand=_loose(operand))
        case And(operands=operands) | Or(operands=operands):
            return type(predicate)(operands=tuple(_strict(operand) for operand in operands))


def _loose(predicate: Predicate) -> Predicate:
    """Comparisons that the constant itself passes."""
    match predicate:
        case Atom(operator=">"):
            return predicate.model_copy(update={"operator": ">="})
        case Atom(operator="<"):
            return predicate.model_copy(update={"operator": "<="})
        case Atom() | Name():
            return predicate
        case Not(operand=operand):
            return Not(operand=_strict(operand))
        case And(operands=operands) | Or(operands=operands):
            return type(predicate)(operands=tuple(_loose(operand) for operand in operands))


def _share(flags: NDArray[np.bool_]) -> float:
    """To six decimals, which are exact below a million experiments."""
    return round(float(np.count_nonzero(flags)) / len(flags), 6)


def outcome(design: Design, named: Named, simulated: Simulated, read: set[str]) -> TruthOutcome:
    """Everything that is said of one truth; `read` are the metrics that are simulated."""
    labels, truth = simulated.labels, named.truth
    table = list(dict.fromkeys([rule.label for rule in design.verdicts] + [INVALID]))
    verdicts = tuple(
        VerdictShare.model_validate(
            {"label": label, "verdict_class": class_of(design.verdicts, label), "share": _share(labels == label)}
        )
        for label in table
    )
    success = round(sum(verdict.share for verdict in verdicts if verdict.verdict_class == "SUCCESS"), 6)
    right = deserved(design, truth)
    expected = None if truth.expect is None else _share(labels == truth.expect)
    return TruthOutcome(
        name=truth.name, describe=named.describe, declared=named.declared,
        metrics={name: of for name, of in truth.metrics.items() if name in read}, deserved=right, verdicts=verdicts,
        success=success, false_success=None if class_of(design.verdicts, right) == "SUCCESS" else success,
        expect=truth.expect, at_least=truth.at_least, expected=expected,
        met=None if expected is None or truth.at_least is None else expected >= truth.at_least,
        gates=tuple(_gates(design, simulated)), families=tuple(_families(design, truth, simulated)),
    )  # fmt: skip


def _gates(design: Design, simulated: Simulated) -> Iterator[GateOutcome]:
    panel, labels = simulated.panel, simulated.labels
    for gate in design.gates:
        truths = simulated.truths(gate)
        decides = gate.role in DECIDING or gate.role in ("validity", "switch")
        yield GateOutcome(
            name=gate.name, role=gate.role, text=gate.text, true=_share(truths == 1), unknown=_share(truths == UNKNOWN),
            decisive=_share(simulated.settled(panel.without(gate)) != labels) if decides else None,
            parts=tuple(_parts(gate, simulated)) if decides else (),
        )  # fmt: skip


def _parts(gate: Gate, simulated: Simulated) -> Iterator[PartOutcome]:
    atoms = atoms_of(gate)
    if len(atoms) < 2 or gate.role == "switch":
        return
    panel = simulated.panel
    for atom in atoms:
        alone = gate.model_copy(update={"predicate": atom})
        yield PartOutcome(
            text=atom_text(atom), true=_share(panel.truths(alone) == 1),
            decisive=_share(simulated.settled(panel.without_part(gate, atom)) != simulated.labels),
        )  # fmt: skip


def atom_text(atom: Atom) -> str:
    if atom.statistic == "reject" and atom.operator == "==" and atom.constant == 1:
        return f"{atom.analysis}.reject"
    return f"{atom.analysis}.{atom.statistic} {atom.operator} {atom.constant:g}"


def _families(design: Design, truth: Truth, simulated: Simulated) -> Iterator[FamilyOutcome]:
    analyses: Mapping[str, Analysis] = {analysis.name: analysis for analysis in design.analyses}
    for family in design.families:
        null = [name for name in family.analyses if not analyses[name].alternative(effect_of(analyses[name], truth))]
        rejected = np.zeros(simulated.panel.experiments, dtype=bool)
        for answer in simulated.panel.answers():
            for name in null:
                rejected |= answer.possible & (answer.results[name]["reject"] == 1)
        yield FamilyOutcome(name=family.name, method=family.method, false_rejection=_share(rejected) if null else None)


def read_metrics(design: Design, analyses: Mapping[str, object]) -> set[str]:
    return {analysis.metric for analysis in design.analyses if analysis.name in analyses}
