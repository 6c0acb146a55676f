"""Gates, switches and the verdict table on many experiments at once.

Gates are evaluated as arrays under Kleene's logic. The table is not written a second time: each distinct pattern of
gate truths is given to `verdict.label_of`, which decides real experiments too.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from epc.compiler.contract.decision import Slice
from epc.compiler.contract.logic import And, Atom, Name, Not, Operator, Or, Predicate, Truth
from epc.compiler.contract.manifest import Design, Family, Gate, Role, VerdictRule
from epc.runtime.gates import Evaluated
from epc.runtime.rejections import adjusted
from epc.runtime.simulate.contrasts import Floats, Statistics
from epc.runtime.statistics.estimate import exact
from epc.runtime.switches import VARIANTS, governed
from epc.runtime.verdict import DECIDING, INVALID, Reading, label_of

UNKNOWN = 2
Truths = NDArray[np.int8]
"""0 false, 1 true, 2 unknown."""
Results = Mapping[str, Statistics]
"""Analysis, or `analysis.filtered` and `analysis.unfiltered` of one that a switch governs, to its statistics."""
REQUIRED: frozenset[Role] = frozenset({"validity", "success", "guardrail", "sanity"})
"""Roles whose removal means that they hold; without a kill or an override, it does not fire."""


def compare(values: Floats, operator: Operator, constant: float) -> Truths:
    """One comparison; unknown where the value is."""
    match operator:
        case "<":
            held = values < constant
        case "<=":
            held = values <= constant
        case ">":
            held = values > constant
        case ">=":
            held = values >= constant
        case "==":
            held = values == constant
        case "!=":
            held = values != constant
        case _:
            assert_never(operator)
    return np.where(np.isnan(values), UNKNOWN, held).astype(np.int8)


def evaluate(predicate: Predicate, results: Results) -> Truths:
    """Truth of a gate's predicate in each experiment."""
    match predicate:
        case Atom():
            return compare(
                results[predicate.analysis][predicate.statistic], predicate.operator, predicate.constant
            )  # fmt: skip
        case Name():
            raise TypeError("a gate compares statistics, it does not name gates")
        case Not(operand=operand):
            inner = evaluate(operand, results)
            return np.where(inner == UNKNOWN, UNKNOWN, 1 - inner).astype(np.int8)
        case And(operands=operands):
            parts = np.stack([evaluate(operand, results) for operand in operands])
            return np.where((parts == 0).any(0), 0, np.where((parts == UNKNOWN).any(0), UNKNOWN, 1)).astype(np.int8)
        case Or(operands=operands):
            parts = np.stack([evaluate(operand, results) for operand in operands])
            return np.where((parts == 1).any(0), 1, np.where((parts == UNKNOWN).any(0), UNKNOWN, 0)).astype(np.int8)
        case _:
            assert_never(predicate)


def less(predicate: Predicate, atom: Atom) -> Predicate | None:
    """A predicate without one of its comparisons; None where nothing is left."""
    match predicate:
        case Atom() | Name():
            return None if predicate is atom else predicate
        case Not(operand=operand):
            inner = less(operand, atom)
            return None if inner is None else Not(operand=inner)
        case And(operands=operands) | Or(operands=operands):
            rest = tuple(part for operand in operands if (part := less(operand, atom)) is not None)
            return None if not rest else rest[0] if len(rest) == 1 else type(predicate)(operands=rest)
        case _:
            assert_never(predicate)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer of every switch: which variant each governed analysis is."""

    variants: Mapping[str, Slice]
    """Analysis -> variant."""
    possible: NDArray[np.bool_]
    """Experiments in which the switches may give it."""
    results: Results


def decided(design: Design, results: Results) -> Results:
    """Results with `reject` as the design means it: `rejections.decided`, on arrays."""
    found = dict(results)
    if design.interim is not None and design.interim.levels:
        level = exact(design.interim.levels[-1])
        for analysis in design.analyses:
            if analysis.confirmatory and analysis.name in found:
                ps = found[analysis.name]["p"]
                rejected = np.array([np.nan if np.isnan(p) else float(exact(float(p)) < level) for p in ps])
                found[analysis.name] = {**found[analysis.name], "reject": rejected}
    for family in design.families:
        found |= _in_family(family, found)
    return found


def _in_family(family: Family, results: Results) -> dict[str, Statistics]:
    """`reject` of each member; those that are not there are unknown."""
    there = [name for name in family.analyses if name in results]
    if not there:
        return {}
    unknown = np.full(len(next(iter(results[there[0]].values()))), np.nan)
    ps = np.stack([results[name]["p"] if name in results else unknown for name in family.analyses], axis=1)
    distinct, where = np.unique(ps, axis=0, return_inverse=True, equal_nan=True)
    rows = []
    for row in distinct:
        raw = [None if np.isnan(p) else exact(float(p)) for p in row]
        rows.append([np.nan if rejected is None else float(rejected) for _, rejected in adjusted(family, raw)])
    rejected = np.array(rows)[where.reshape(-1)]
    return {
        name: {**results[name], "reject": rejected[:, place]}
        for place, name in enumerate(family.analyses)
        if name in results
    }


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The decisions of many simulated experiments."""

    design: Design
    results: Results
    experiments: int

    @cached_property
    def _switches(self) -> dict[str, Gate]:
        return governed(self.design)

    @cached_property
    def gates(self) -> tuple[Gate, ...]:
        return tuple(gate for gate in self.design.gates if gate.role != "follow_up")

    @cached_property
    def _deciding(self) -> tuple[Gate, ...]:
        return tuple(gate for gate in self.gates if gate.role in DECIDING or gate.role == "validity")

    @cached_property
    def switch_truths(self) -> dict[str, Truths]:
        """Governed analysis -> the truth of its switch."""
        results = decided(self.design, self.results)
        return {name: evaluate(gate.predicate, results) for name, gate in self._switches.items()}

    def answers(self, forced: Mapping[str, Slice] | None = None) -> list[Answer]:
        """Every answer of the switches; `forced` binds an analysis whatever its switch says."""
        found = []
        for variants in itertools.product(VARIANTS, repeat=len(self._switches)):
            chosen: dict[str, Slice] = dict(zip(self._switches, variants, strict=True))
            possible = np.ones(self.experiments, dtype=bool)
            for name, variant in chosen.items():
                if forced is not None and name in forced:
                    possible &= forced[name] == variant
                else:
                    possible &= self.switch_truths[name] != (0 if variant == "unfiltered" else 1)
            bound = {name: self.results[f"{name}.{variant}"] for name, variant in chosen.items()}
            results = decided(self.design, {**self.results, **bound})
            found.append(Answer(variants=chosen, possible=possible, results=results))
        return found

    def truths(self, gate: Gate) -> Truths:
        """As printed: true or false only where it is so under every possible answer."""
        seen = [(answer.possible, evaluate(gate.predicate, answer.results)) for answer in self.answers()]
        all_true = np.logical_and.reduce([~possible | (truth == 1) for possible, truth in seen])
        all_false = np.logical_and.reduce([~possible | (truth == 0) for possible, truth in seen])
        return np.where(all_true, 1, np.where(all_false, 0, UNKNOWN)).astype(np.int8)

    def patterns(self, answers: Sequence[Answer], replaced: Mapping[str, Predicate | bool]) -> Truths:
        """Truths of the deciding gates under each answer, (E, answers x gates); -1 throughout where it is impossible.

        `replaced` gives a gate another predicate, or one truth.
        """
        columns = []
        for answer in answers:
            for gate in self._deciding:
                other = replaced.get(gate.name, gate.predicate)
                if isinstance(other, bool):
                    truth = np.full(self.experiments, int(other), dtype=np.int8)
                else:
                    truth = evaluate(other, answer.results)
                columns.append(np.where(answer.possible, truth, -1))
        return np.stack(columns, axis=1).astype(np.int8) if columns else np.zeros((self.experiments, 0), dtype=np.int8)

    def labels(
        self, replaced: Mapping[str, Predicate | bool] | None = None, forced: Mapping[str, Slice] | None = None
    ) -> NDArray[np.str_]:
        """The verdict of each experiment, built-in gates aside."""
        answers = self.answers(forced)
        patterns = self.patterns(answers, replaced or {})
        distinct, where = np.unique(patterns, axis=0, return_inverse=True)
        said = [self._label(row) for row in distinct]
        return np.array(said, dtype=np.str_)[where.reshape(-1)]

    def _label(self, pattern: NDArray[np.int8]) -> str:
        """What the engine's table says of one pattern."""
        gates = self._deciding
        readings = []
        for start in range(0, len(pattern), len(gates)):
            truths = pattern[start : start + len(gates)]
            if (truths != -1).all():
                readings.append(
                    Reading(gates=[_evaluated(gate, int(value)) for gate, value in zip(gates, truths, strict=True)])
                )
        return label_of(self.design.verdicts, readings)

    def without(self, gate: Gate) -> NDArray[np.str_]:
        """Verdicts if a gate were removed: a requirement holds, a kill or override does not fire, a switch does not
        switch."""
        if gate.role == "switch":
            return self.labels(forced={gate.analysis or "": "filtered"})
        return self.labels({gate.name: gate.role in REQUIRED})

    def without_part(self, gate: Gate, atom: Atom) -> NDArray[np.str_]:
        """Verdicts if one comparison of a gate with several were left out."""
        rest = less(gate.predicate, atom)
        return self.without(gate) if rest is None else self.labels({gate.name: rest})


def _evaluated(gate: Gate, truth: int) -> Evaluated:
    found: Truth = None if truth == UNKNOWN else bool(truth)
    return Evaluated(name=gate.name, role=gate.role, text=gate.text, truth=found)


def class_of(rules: Sequence[VerdictRule], label: str) -> str:
    """The class of a label that a table may give."""
    return next((rule.verdict_class for rule in rules if rule.label == label), INVALID)
