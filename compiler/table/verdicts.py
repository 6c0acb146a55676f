"""What is asked of a verdict table, and the words for what is found.

`Table` asks; how the answers are found is for its two implementations: `enumerated` looks at every
combination of cells, `solver` proves the same statements where there are too many of them.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from epc.compiler.contract.manifest import Analysis, Gate, Metric, VerdictClass, VerdictRule
from epc.compiler.predicate import number_text
from epc.compiler.table.cells import Quantity, TooLarge, Variable, quantity_of, variable_of
from epc.compiler.table.declared import MUST_DECIDE, Direction, atoms, directed, named, treatment_arms
from epc.compiler.table.finding import Finding

PRECEDENCE: Final[dict[VerdictClass, int]] = {"OVERRIDE": 0, "KILL": 1, "SUCCESS": 2, "INCONCLUSIVE": 3, "INVALID": 3}
"""Order in which rules are written."""
RANK: Final[dict[VerdictClass, int]] = {"OVERRIDE": 0, "KILL": 1, "INCONCLUSIVE": 2, "INVALID": 2, "SUCCESS": 3}
"""Worse to better, for a result that improves."""

Values = Mapping[tuple[Quantity, Variable], float]
"""A result in readable numbers."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A result exactly at a threshold that no rule matches, with what decides on either side of it."""

    quantity: Quantity
    variable: Variable
    values: Values
    below: int
    here: int
    above: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """A result and a better one of one quantity that gets a worse verdict."""

    quantity: Quantity
    changed: tuple[Variable, ...]
    """What differs, the first of them being what the message names."""
    low: Values
    high: Values
    was: int
    becomes: int


class Table(abc.ABC):
    """A verdict table over resolved gates. A rule is an index; one past the last means that no rule matches."""

    def __init__(
        self,
        *,
        analyses: Mapping[str, Analysis],
        metrics: Mapping[str, Metric],
        gates: Mapping[str, Gate],
        conditions: Sequence[str],
        verdicts: Sequence[VerdictRule],
    ) -> None:
        """`conditions` are the validity gates that a result must pass."""
        self.analyses = analyses
        self.metrics = metrics
        self.gates = gates
        self.conditions = conditions
        self.verdicts = verdicts

    # ------------------------------------------------------------- what a table must answer

    @abc.abstractmethod
    def possible(self) -> bool:
        """Whether some result passes all validity gates. All answers below are about such results."""

    @abc.abstractmethod
    def gate_values(self, name: str) -> Collection[bool]:
        """The truths that a gate takes."""

    @abc.abstractmethod
    def undecided(self) -> Values | None:
        """A result that no rule matches."""

    @abc.abstractmethod
    def clashes(self, index: int, others: Sequence[int]) -> Mapping[int, Values]:
        """Those of `others` that match somewhere where rule `index` decides, each with such a result."""

    @abc.abstractmethod
    def reached(self, index: int) -> bool:
        """Whether a rule decides anything."""

    @abc.abstractmethod
    def taken(self, index: int) -> Sequence[int]:
        """The rules that decide where rule `index` matches."""

    @abc.abstractmethod
    def gaps(self) -> Iterator[Gap]:
        """At most one for each threshold of each statistic."""

    @abc.abstractmethod
    def quantities(self) -> Sequence[Quantity]:
        """What the gates read, in the order of the gates."""

    @abc.abstractmethod
    def worsening(self, quantity: Quantity, *, upward: bool) -> Step | None:
        """A better result in one quantity with a worse verdict, in as few statistics as possible.

        `upward` says that larger estimates are better. Raises TooLarge.
        """

    # ---------------------------------------------------------------------------- the checks

    def findings(self, constant: Mapping[str, bool]) -> Iterator[Finding]:
        """Everything wrong with the table; `constant` holds the gates that are the same for every result."""
        if not self.possible():
            yield never_together(self.conditions)
            return
        yield from self._constant_under_validity(constant)
        yield from self._not_total()
        yield from self._pairs()
        yield from self._unreachable(constant)
        yield from self._non_monotone()
        yield from self._boundary_gaps()

    def _constant_under_validity(self, constant: Mapping[str, bool]) -> Iterator[Finding]:
        if not self.conditions:
            return
        for name in self.all_gates:
            if name in constant or name in self.conditions:
                continue
            values = self.gate_values(name)
            if len(values) == 1:
                yield Finding(
                    kind="constant_gate",
                    severity="error",
                    message=f"gate {name} is always {str(True in values).lower()} once the validity gates"
                    f" {' and '.join(self.conditions)} hold",
                    gates=(name, *self.conditions),
                )

    def _not_total(self) -> Iterator[Finding]:
        if any(rule.predicate is None for rule in self.verdicts):
            return
        values = self.undecided()
        if values is not None:
            said = self._say(values, self.all_gates)
            yield Finding(
                kind="not_total",
                severity="error",
                message="the table does not decide every result: it has no `otherwise`",
                witness=f"{said}: no rule matches" if said else "",
            )

    def _pairs(self) -> Iterator[Finding]:
        """Two rules that both match, where the first of them decides."""
        for i, one in enumerate(self.verdicts):
            others = [j for j in range(i + 1, len(self.verdicts)) if self._conflict(one, self.verdicts[j])]
            found = self.clashes(i, others)
            for j in others:
                witness = ""
                if j in found:
                    said = self._say(found[j], self._gates_of(i, j))
                    witness = f"{said}: {one.label} and {self.verdicts[j].label} both fire"
                yield from self._pair(i, j, witness)

    @staticmethod
    def _conflict(one: VerdictRule, other: VerdictRule) -> bool:
        """Whether it matters that both rules match, or that `one` comes first."""
        if one.predicate is None or other.predicate is None or one.label == other.label:
            return False
        ordered = PRECEDENCE[one.verdict_class] < PRECEDENCE[other.verdict_class]
        return not ordered or {one.verdict_class, other.verdict_class} == {"SUCCESS", "KILL"}

    def _pair(self, i: int, j: int, witness: str) -> Iterator[Finding]:
        one, other = self.verdicts[i], self.verdicts[j]
        first, second = PRECEDENCE[one.verdict_class], PRECEDENCE[other.verdict_class]
        both = {one.verdict_class, other.verdict_class}
        if first == second:
            if witness:
                yield Finding(
                    kind="ambiguous",
                    severity="error",
                    message=f"{self.rule(i)} and {self.rule(j)} rank the same and both match",
                    witness=witness,
                    rules=(j, i),
                    gates=self._gates_of(i, j),
                )
        elif both == {"SUCCESS", "KILL"} and witness:
            decided = first < second
            yield Finding(
                kind="success_and_kill",
                severity="warning" if decided else "error",
                message=f"a result can be both {one.label} and {other.label}; {one.label} stands, since it comes first"
                if decided
                else f"a result can be both {one.label} and {other.label}, and the success hides the kill",
                witness=witness,
                rules=(j, i),
                gates=self._gates_of(i, j),
            )
        elif first > second:
            # An early INCONCLUSIVE only withholds a SUCCESS; elsewhere the lower class hides the higher.
            hides = bool(witness) and both != {"INCONCLUSIVE", "SUCCESS"}
            yield Finding(
                kind="order_violation",
                severity="error" if hides else "warning",
                message=f"{self.rule(i)} comes before {self.rule(j)}; the order is override, kill, success, otherwise",
                witness=witness or "no result matches both, so the order changes no verdict",
                rules=(j, i),
                gates=self._gates_of(i, j),
            )

    def _unreachable(self, constant: Mapping[str, bool]) -> Iterator[Finding]:
        for index, rule in enumerate(self.verdicts):
            if rule.predicate is None or self.reached(index):
                continue
            taken = [self.rule(other) for other in self.taken(index)]
            if taken:
                reason = f"wherever it matches, {' or '.join(taken)} has matched before"
            elif any(name in constant for name in named(rule)):
                continue  # the constant gate is the finding
            else:
                reason = "no result that can occur matches it"
            yield Finding(
                kind="unreachable_rule",
                severity="error",
                message=f"{self.rule(index)} never decides: {reason}",
                rules=(index,),
                gates=self._gates_of(index),
            )

    def _boundary_gaps(self) -> Iterator[Finding]:
        """Exactly at a threshold nothing matches, while rules match on either side of it."""
        for gap in self.gaps():
            gate_names = self._gates_of(gap.below, gap.above)
            label = self._label(gap.quantity, gap.variable, gate_names)
            value = number_text(gap.values[gap.quantity, gap.variable])
            yield Finding(
                kind="boundary_gap",
                severity="warning",
                message=f"{label} = {value} exactly falls to {self.rule(gap.here)}, between {self.rule(gap.below)} and"
                f" {self.rule(gap.above)}",
                witness=f"{self._say(gap.values, gate_names)}: {self.rule(gap.here)}",
                rules=tuple(dict.fromkeys((gap.below, gap.above))),
                gates=gate_names,
            )

    def _non_monotone(self) -> Iterator[Finding]:
        for quantity in self.quantities():
            upward = self._better_is_up(quantity)
            if upward is None:
                continue
            try:
                step = self.worsening(quantity, upward=upward)
                meant = step is not None and self.worsening(quantity, upward=not upward) is None
            except TooLarge as limit:
                yield Finding(
                    kind="too_large",
                    severity="warning",
                    message=f"{quantity[0]} has too many thresholds to prove that a better result never gets a worse verdict",
                    help=limit.remedy,
                )
                continue
            if step is not None:
                yield self._worse(step, meant=meant)

    def _worse(self, step: Step, *, meant: bool) -> Finding:
        was, becomes = step.was, step.becomes
        gate_names = self._gates_of(was, becomes) or self.all_gates
        moved = self._label(step.quantity, step.changed[0], self.all_gates)
        message = f"a better {moved} gets a worse verdict: {self.rule(was)} becomes {self.rule(becomes)}"
        if meant:
            metric = self.metrics[step.quantity[0]]
            message = (
                f"{metric.name} is declared better {metric.better}, and the table rewards the opposite:"
                f" a better {moved} turns {self.rule(was)} into {self.rule(becomes)}"
            )
        return Finding(
            kind="non_monotone",
            severity="warning" if meant else "error",
            message=message,
            witness=f"{self._say(step.low, gate_names)}: {self.rule(was)};"
            f" {self._say(step.high, gate_names)}: {self.rule(becomes)}",
            rules=tuple(dict.fromkeys(rule for rule in (was, becomes) if rule < len(self.verdicts))),
            gates=gate_names,
        )

    # ------------------------------------------------------------------------ what is better

    def _better_is_up(self, quantity: Quantity) -> bool | None:
        """Whether a larger estimate is a better result; None where the question has no answer."""
        if not any(gate.role in MUST_DECIDE for gate in self._readers(quantity)):
            return None
        metric, arm, control, _ = quantity
        treatments = treatment_arms(self.analyses, list(self.gates.values()))
        up = self.metrics[metric].better == "higher"
        if not control:
            return up if arm in treatments else None
        return not up if control in treatments and arm not in treatments else up

    def _readers(self, quantity: Quantity) -> list[Gate]:
        """Gates in rules that read a quantity."""
        return [
            self.gates[name]
            for name in self.all_gates
            if any(quantity_of(self.analyses[atom.analysis]) == quantity for atom in atoms(self.gates[name].predicate))
        ]

    def sign(self, variable: Variable, *, upward: bool) -> int:
        """1 where a larger statistic is better, -1 where a smaller one is, 0 where neither (held equal)."""
        owner, statistic = variable
        if statistic not in ("p", "reject"):
            return 1 if upward else -1
        if self.analyses[owner].side == ("greater" if upward else "less"):
            return 1 if statistic == "reject" else -1
        return 0

    def own_terms(self, quantity: Quantity) -> list[str]:
        """Gates for which more is not better by their own terms; results that differ in one are not compared.

        A sanity gate asks whether the experiment can be believed; a guardrail or override that bounds a
        quantity on both sides (equivalence) says itself that leaving it is bad either way.
        """
        return [
            name
            for name in self.all_gates
            if self.gates[name].role == "sanity"
            or (self.gates[name].role in ("guardrail", "override") and self._two_sided(self.gates[name], quantity))
        ]

    def _two_sided(self, gate: Gate, quantity: Quantity) -> bool:
        ways: set[Direction] = {
            direction
            for atom, direction in directed(gate.predicate)
            if quantity_of(self.analyses[atom.analysis]) == quantity
        }
        return "exact" in ways or ways == {"up", "down"}

    # ---------------------------------------------------------------------------------- words

    def rule(self, index: int) -> str:
        """`rule 2 (SUCCESS)`."""
        if index == len(self.verdicts):
            return "no rule"
        rule = self.verdicts[index]
        return f"otherwise ({rule.label})" if rule.predicate is None else f"rule {index + 1} ({rule.label})"

    def _say(self, values: Values, gate_names: Sequence[str]) -> str:
        """`headline.delta = 0.1, headline.p = 0.01` for what the gates read; reject is shown as its p where p decides it."""
        said: dict[tuple[Quantity, Variable], str] = {}
        for name in gate_names:
            for atom in atoms(self.gates[name].predicate):
                analysis = self.analyses[atom.analysis]
                by_p = analysis.rejects_below is None or analysis.rejects_below == analysis.rejects_only_below
                statistic = "p" if atom.statistic == "reject" and by_p else atom.statistic
                key = (quantity_of(analysis), variable_of(analysis, statistic))
                said.setdefault(key, f"{atom.analysis}.{statistic} = {number_text(values[key])}")
        return ", ".join(said.values())

    def _label(self, quantity: Quantity, variable: Variable, gate_names: Sequence[str]) -> str:
        """A variable under the name that the gates use."""
        for name in gate_names:
            for atom in atoms(self.gates[name].predicate):
                analysis = self.analyses[atom.analysis]
                if quantity_of(analysis) == quantity and variable_of(analysis, atom.statistic) == variable:
                    return f"{atom.analysis}.{atom.statistic}"
        return ".".join(part for part in variable if part)

    def _gates_of(self, *rules: int) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(name for rule in rules if rule < len(self.verdicts) for name in named(self.verdicts[rule]))
        )

    @property
    def all_gates(self) -> tuple[str, ...]:
        """Gates that some rule names."""
        return self._gates_of(*range(len(self.verdicts)))


def never_together(validity: Sequence[str]) -> Finding:
    """No result passes these validity gates."""
    return Finding(
        kind="constant_gate",
        severity="error",
        message=f"validity gates {' and '.join(validity)} never hold together, so every verdict is INVALID",
        gates=tuple(validity),
    )


def aligned(
    low: Values,
    high: Values,
    changed: Collection[tuple[Quantity, Variable]],
    quantity: Quantity,
    own: Collection[Variable],
) -> tuple[Values, Values]:
    """Two results with equal values wherever they share a cell, if the order of estimate and bounds allows."""
    for source in (low, high):
        first = {key: low[key] if key in changed else source[key] for key in low}
        second = {key: high[key] if key in changed else source[key] for key in high}
        if all(_in_order(values, quantity, own) for values in (first, second)):
            return first, second
    return low, high


def _in_order(values: Values, quantity: Quantity, own: Collection[Variable]) -> bool:
    for owner in {owner for owner, _ in own}:
        chain = [
            values[quantity, (name_owner, name)]
            for name in ("ci_low", "lower", "delta", "value", "upper", "ci_high")
            for name_owner in ("", owner)
            if (quantity, (name_owner, name)) in values and (name_owner, name) in own
        ]
        if chain != sorted(chain):
            return False
    return True
