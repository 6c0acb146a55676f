"""Findings about what the table does, proved over every combination of cells that can occur."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from epc.compiler.contract.logic import Name
from epc.compiler.contract.manifest import Analysis, Gate, Metric, VerdictClass, VerdictRule
from epc.compiler.predicate import number_text
from epc.compiler.table.cells import (
    BUDGET,
    Block,
    Quantity,
    Space,
    TooLarge,
    Truths,
    Variable,
    codes,
    holds_where,
    quantity_of,
    space,
    variable_of,
)
from epc.compiler.table.declared import MUST_DECIDE, Direction, atoms, directed, named, treatment_arms
from epc.compiler.table.facts import Range, facts
from epc.compiler.table.finding import Finding

PRECEDENCE: Final[dict[VerdictClass, int]] = {"OVERRIDE": 0, "KILL": 1, "SUCCESS": 2, "INCONCLUSIVE": 3, "INVALID": 3}
"""Order in which rules are written."""
RANK: Final[dict[VerdictClass, int]] = {"OVERRIDE": 0, "KILL": 1, "INCONCLUSIVE": 2, "INVALID": 2, "SUCCESS": 3}
"""Worse to better, for a result that improves."""

PAIRS: Final = 5_000_000
"""Most pairs of results of one quantity that are compared."""

Classes = tuple[int, ...]
"""One combination: a class of rows for each block."""


def proved_findings(
    metrics: Mapping[str, Metric],
    analyses: Mapping[str, Analysis],
    gates: Sequence[Gate],
    verdicts: Sequence[VerdictRule],
) -> Iterator[Finding]:
    """Constant gates, then the table. Nothing where a name is not resolved."""
    by_name = {gate.name: gate for gate in gates}
    if not _resolved(metrics, analyses, by_name, verdicts):
        return
    constant: dict[str, bool] = {}
    for gate in gates:
        try:
            alone = space({gate.name: gate.predicate}, analyses, metrics).truths[gate.name]
        except TooLarge:
            yield _too_large(f"gate {gate.name}")
            return
        if alone.all() or not alone.any():
            constant[gate.name] = bool(alone.all())
            yield _constant(gate, analyses, metrics, always=bool(alone.all()))
    deciding = dict.fromkeys(name for rule in verdicts for name in named(rule))
    validity = [gate for gate in gates if gate.role == "validity" and constant.get(gate.name) is not False]
    read = {quantity_of(analyses[atom.analysis]) for name in deciding for atom in atoms(by_name[name].predicate)}
    # A validity gate on quantities that no rule reads leaves them independent: it cannot exclude a verdict.
    conditions = [
        gate.name
        for gate in validity
        if read & {quantity_of(analyses[atom.analysis]) for atom in atoms(gate.predicate)}
    ]
    predicates = {name: by_name[name].predicate for name in (*deciding, *conditions)}
    try:
        table = _Table(
            space=space(predicates, analyses, metrics),
            analyses=analyses,
            metrics=metrics,
            gates=by_name,
            conditions=conditions,
            verdicts=verdicts,
        )
        if not table.valid.any():
            yield Finding(
                kind="constant_gate",
                severity="error",
                message=f"validity gates {' and '.join(conditions)} never hold together, so every verdict is INVALID",
                gates=tuple(conditions),
            )
            return
        yield from table.findings(constant)
    except TooLarge:
        yield _too_large("this table")


def _resolved(
    metrics: Mapping[str, Metric],
    analyses: Mapping[str, Analysis],
    gates: Mapping[str, Gate],
    verdicts: Sequence[VerdictRule],
) -> bool:
    bounds = {"lower", "upper", "ci_low", "ci_high"}
    for gate in gates.values():
        found = atoms(gate.predicate)
        for atom in found:
            analysis = analyses.get(atom.analysis)
            if analysis is None or analysis.metric not in metrics:
                return False
            known = bounds | ({"value"} if analysis.contrast is None else {"delta", "p", "reject"})
            if atom.statistic not in known:
                return False
        if not found:
            return False
    return all(name in gates for rule in verdicts for name in named(rule))


def _too_large(what: str) -> Finding:
    return Finding(
        kind="too_large",
        severity="warning",
        message=f"{what} has more than {BUDGET:,} combinations of thresholds: nothing about it was proved",
    )


def _constant(gate: Gate, analyses: Mapping[str, Analysis], metrics: Mapping[str, Metric], *, always: bool) -> Finding:
    ranges: dict[str, str] = {}
    for atom in atoms(gate.predicate):
        analysis = analyses[atom.analysis]
        for fact in facts(analysis, metrics[analysis.metric]):
            if isinstance(fact, Range) and fact.statistic == atom.statistic != "reject":
                name = f"{atom.analysis}.{atom.statistic}"
                ranges[name] = f"{name} lies in [{number_text(fact.low)}, {number_text(fact.high)}]"
    fact_text = "every result that can occur meets it" if always else "no result that can occur meets it"
    return Finding(
        kind="constant_gate",
        severity="error",
        message=f"gate {gate.name} is always {str(always).lower()}: {fact_text}",
        witness=", ".join(ranges.values()),
        gates=(gate.name,),
    )


@dataclass(frozen=True, kw_only=True)
class _Step:
    """A result and a better one of the same quantity, as rows of a block."""

    block: int
    worse: int
    better: int
    changed: tuple[int, ...]
    """Columns of the block in which they differ."""
    at: Classes
    """Where the other blocks stand; the entry of `block` is that of `worse`."""


class _Table:
    def __init__(
        self,
        *,
        space: Space,
        analyses: Mapping[str, Analysis],
        metrics: Mapping[str, Metric],
        gates: Mapping[str, Gate],
        conditions: Sequence[str],
        verdicts: Sequence[VerdictRule],
    ) -> None:
        self.space = space
        self.analyses = analyses
        self.metrics = metrics
        self.gates = gates
        self.verdicts = verdicts
        self.conditions = conditions
        self.valid = self._full(np.ones((1,) * len(space.shape), dtype=np.bool_))
        for name in conditions:
            self.valid = self.valid & space.truths[name]
        self.matches = [
            self._full(np.ones((1,) * len(space.shape), dtype=np.bool_))
            if rule.predicate is None
            else self._full(holds_where(rule.predicate, self._gate))
            for rule in verdicts
        ]
        self.first: NDArray[np.int16] = np.full(space.shape, len(verdicts), dtype=np.int16)
        for index in range(len(verdicts) - 1, -1, -1):
            self.first[self.matches[index]] = index

    def _gate(self, leaf: Name) -> Truths:
        return self.space.truths[leaf.name]

    def _full(self, truths: Truths) -> Truths:
        return np.broadcast_to(truths, self.space.shape)

    def findings(self, constant: Mapping[str, bool]) -> Iterator[Finding]:
        yield from self._constant_under_validity(constant)
        yield from self._not_total()
        yield from self._pairs()
        yield from self._unreachable(constant)
        yield from self._non_monotone()
        yield from self._boundary_gaps()

    # ---------------------------------------------------------------------------------- words

    def rule(self, index: int) -> str:
        if index == len(self.verdicts):
            return "no rule"
        rule = self.verdicts[index]
        return f"otherwise ({rule.label})" if rule.predicate is None else f"rule {index + 1} ({rule.label})"

    def _values(
        self, at: Classes, block: int | None = None, row: int | None = None
    ) -> dict[tuple[int, Variable], float]:
        """Readable values of every statistic in a combination; `row` replaces the class's own row in `block`."""
        values: dict[tuple[int, Variable], float] = {}
        for position, (piece, rows) in enumerate(zip(self.space.blocks, self.space.rows_of, strict=True)):
            chosen = row if position == block and row is not None else int(rows[at[position]])
            values |= {(position, variable): value for variable, value in piece.point(chosen).items()}
        return values

    def _say(self, values: Mapping[tuple[int, Variable], float], gate_names: Sequence[str]) -> str:
        """`headline.delta = 0.1, headline.p = 0.01` for what the gates read; reject is shown as its p."""
        position = {block.quantity: index for index, block in enumerate(self.space.blocks)}
        said: dict[tuple[int, Variable], str] = {}
        for name in gate_names:
            for atom in atoms(self.gates[name].predicate):
                analysis = self.analyses[atom.analysis]
                statistic = "p" if atom.statistic == "reject" else atom.statistic
                key = (position[quantity_of(analysis)], variable_of(analysis, statistic))
                said.setdefault(key, f"{atom.analysis}.{statistic} = {number_text(values[key])}")
        return ", ".join(said.values())

    def _gates_of(self, *rules: int) -> tuple[str, ...]:
        return tuple(
            dict.fromkeys(name for rule in rules if rule < len(self.verdicts) for name in named(self.verdicts[rule]))
        )

    @property
    def _all_gates(self) -> tuple[str, ...]:
        return self._gates_of(*range(len(self.verdicts)))

    # ----------------------------------------------------------------------------- the checks

    def _somewhere(self, where: Truths) -> Classes | None:
        """The first combination in a mask."""
        flat = int(np.argmax(where))
        at = tuple(int(index) for index in np.unravel_index(flat, where.shape))
        return at if where[at] else None

    def _constant_under_validity(self, constant: Mapping[str, bool]) -> Iterator[Finding]:
        if not self.conditions:
            return
        for name in self._all_gates:
            if name in constant or name in self.conditions:
                continue
            truths = self._full(self.space.truths[name])[self.valid]
            if truths.all() or not truths.any():
                always = bool(truths.all())
                yield Finding(
                    kind="constant_gate",
                    severity="error",
                    message=f"gate {name} is always {str(always).lower()} once the validity gates"
                    f" {' and '.join(self.conditions)} hold",
                    gates=(name, *self.conditions),
                )

    def _not_total(self) -> Iterator[Finding]:
        if any(rule.predicate is None for rule in self.verdicts):
            return
        at = self._somewhere(self.valid & (self.first == len(self.verdicts)))
        if at is not None:
            said = self._say(self._values(at), self._all_gates)
            yield Finding(
                kind="not_total",
                severity="error",
                message="the table does not decide every result: it has no `otherwise`",
                witness=f"{said}: no rule matches" if said else "",
            )

    def _pairs(self) -> Iterator[Finding]:
        """Two rules that both match, where the first of them decides."""
        for i, one in enumerate(self.verdicts):
            for j in range(i + 1, len(self.verdicts)):
                other = self.verdicts[j]
                if one.predicate is None or other.predicate is None or one.label == other.label:
                    continue
                at = self._somewhere(self.valid & (self.first == i) & self.matches[j])
                witness = ""
                if at is not None:
                    said = self._say(self._values(at), self._gates_of(i, j))
                    witness = f"{said}: {one.label} and {other.label} both fire"
                yield from self._pair(i, j, witness)

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
            if rule.predicate is None or (self.valid & (self.first == index)).any():
                continue
            where = self.valid & self.matches[index]
            if where.any():
                taken = [self.rule(int(other)) for other in np.unique(self.first[where])]
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
        explicit = np.array([rule.predicate is not None for rule in self.verdicts] + [False])[self.first]
        for position, block in enumerate(self.space.blocks):
            classes = self.space.class_of[position]
            for column, variable in enumerate(block.variables):
                seen: set[int] = set()
                for cell, low, point, high in _triples(block, column):
                    if cell in seen:
                        continue
                    sides = [np.take(explicit & self.valid, classes[row], axis=position) for row in (low, high)]
                    here = np.take(~explicit & self.valid, classes[point], axis=position)
                    rest = self._somewhere(sides[0] & sides[1] & here)
                    if rest is None:
                        continue
                    seen.add(cell)
                    yield self._gap(position, variable, rows=(low, point, high), rest=rest)

    def _gap(self, position: int, variable: Variable, *, rows: tuple[int, int, int], rest: Classes) -> Finding:
        classes = self.space.class_of[position]
        decided = []
        for row in rows:
            at = (*rest[:position], int(classes[row]), *rest[position:])
            decided.append(int(self.first[at]))
        below, here, above = decided
        at = (*rest[:position], int(classes[rows[1]]), *rest[position:])
        values = self._values(at, position, rows[1])
        gate_names = self._gates_of(below, above)
        label = self._label(position, variable, gate_names)
        return Finding(
            kind="boundary_gap",
            severity="warning",
            message=f"{label} = {number_text(values[position, variable])} exactly falls to {self.rule(here)}, between"
            f" {self.rule(below)} and {self.rule(above)}",
            witness=f"{self._say(values, gate_names)}: {self.rule(here)}",
            rules=tuple(dict.fromkeys((below, above))),
            gates=gate_names,
        )

    def _label(self, position: int, variable: Variable, gate_names: Sequence[str]) -> str:
        """A variable under the name that the gates use."""
        for name in gate_names:
            for atom in atoms(self.gates[name].predicate):
                analysis = self.analyses[atom.analysis]
                here = quantity_of(analysis) == self.space.blocks[position].quantity
                if here and variable_of(analysis, atom.statistic) == variable:
                    return f"{atom.analysis}.{atom.statistic}"
        return ".".join(part for part in variable if part)

    # -------------------------------------------------------------------------- monotonicity

    def _non_monotone(self) -> Iterator[Finding]:
        for position, block in enumerate(self.space.blocks):
            upward = self._better_is_up(block.quantity)
            if upward is None:
                continue
            try:
                step = self._worsening(position, upward)
                meant = step is not None and self._worsening(position, not upward) is None
            except TooLarge:
                yield Finding(
                    kind="too_large",
                    severity="warning",
                    message=f"{block.quantity[0]} has too many thresholds to prove that a better result never gets a worse"
                    " verdict",
                )
                continue
            if step is not None:
                yield self._worse(step, meant=meant)

    def _readers(self, quantity: Quantity) -> list[Gate]:
        """Gates in rules that read a quantity."""
        return [
            self.gates[name]
            for name in self._all_gates
            if any(quantity_of(self.analyses[atom.analysis]) == quantity for atom in atoms(self.gates[name].predicate))
        ]

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

    def _signs(self, block: Block, upward: bool) -> list[int]:
        """Per column: 1 where larger is better, -1 where smaller is, 0 where neither (held equal)."""
        signs = []
        for owner, statistic in block.variables:
            if statistic not in ("p", "reject"):
                signs.append(1 if upward else -1)
            elif self.analyses[owner].side == ("greater" if upward else "less"):
                signs.append(1 if statistic == "reject" else -1)
            else:
                signs.append(0)
        return signs

    def _own_terms(self, position: int) -> list[Truths]:
        """Gates for which more is not better by their own terms; results that differ in one are not compared.

        A sanity gate asks whether the experiment can be believed; a guardrail or override that bounds a
        quantity on both sides (equivalence) says itself that leaving it is bad either way.
        """
        result = []
        for name in self._all_gates:
            gate = self.gates[name]
            both_ways = gate.role in ("guardrail", "override") and self._two_sided(
                gate, self.space.blocks[position].quantity
            )
            if gate.role == "sanity" or both_ways:
                result.append(self._full(self.space.truths[name]))
        return result

    def _two_sided(self, gate: Gate, quantity: Quantity) -> bool:
        ways: set[Direction] = {
            direction
            for atom, direction in directed(gate.predicate)
            if quantity_of(self.analyses[atom.analysis]) == quantity
        }
        return "exact" in ways or ways == {"up", "down"}

    def _worsening(self, position: int, upward: bool) -> _Step | None:
        """A better result in one block with a worse verdict, in as few statistics as possible."""
        block = self.space.blocks[position]
        classes = self.space.class_of[position]
        signs = np.array(self._signs(block, upward), dtype=np.int16)
        rank = np.array([RANK[rule.verdict_class] for rule in self.verdicts] + [RANK["INCONCLUSIVE"]])[self.first]
        own_terms = self._own_terms(position)

        def at_class(array: NDArray[Any], index: int) -> Any:
            return np.take(array, index, axis=position)

        best: tuple[tuple[int, int, int], _Step] | None = None
        for a, b in _improvements(block, classes, signs):
            comparable = at_class(self.valid, a) & at_class(self.valid, b)
            for truths in own_terms:
                comparable = comparable & (at_class(truths, a) == at_class(truths, b))
            drop = np.where(comparable, at_class(rank, a) - at_class(rank, b), 0)
            size = int(drop.max())
            rest = self._somewhere(drop == size)
            if size <= 0 or rest is None:
                continue
            worse, better, changed, distance = _nearest(block, classes, signs, a, b)
            score = (len(changed), -size, distance)
            if best is None or score < best[0]:
                at = (*rest[:position], a, *rest[position:])
                best = (score, _Step(block=position, worse=worse, better=better, changed=changed, at=at))
        return None if best is None else best[1]

    def _worse(self, step: _Step, *, meant: bool) -> Finding:
        position, block = step.block, self.space.blocks[step.block]
        after = (*step.at[:position], int(self.space.class_of[position][step.better]), *step.at[position + 1 :])
        was, becomes = int(self.first[step.at]), int(self.first[after])
        low = self._values(step.at, position, step.worse)
        high = self._values(after, position, step.better)
        low, high = _aligned(
            low, high, {(position, block.variables[column]) for column in step.changed}, block, position
        )
        gate_names = self._gates_of(was, becomes) or self._all_gates
        moved = self._label(position, block.variables[step.changed[0]], self._all_gates)
        message = f"a better {moved} gets a worse verdict: {self.rule(was)} becomes {self.rule(becomes)}"
        if meant:
            metric = self.metrics[block.quantity[0]]
            message = (
                f"{metric.name} is declared better {metric.better}, and the table rewards the opposite:"
                f" a better {moved} turns {self.rule(was)} into {self.rule(becomes)}"
            )
        return Finding(
            kind="non_monotone",
            severity="warning" if meant else "error",
            message=message,
            witness=f"{self._say(low, gate_names)}: {self.rule(was)}; {self._say(high, gate_names)}: {self.rule(becomes)}",
            rules=tuple(dict.fromkeys(rule for rule in (was, becomes) if rule < len(self.verdicts))),
            gates=gate_names,
        )


def _triples(block: Block, column: int) -> Iterator[tuple[int, int, int, int]]:
    """(cell, row below, row at, row above) for each threshold of a column, all else in the same cells."""
    code = codes(block.own, block.axes, block.variables)
    order = np.argsort(code)
    sorted_code = code[order]
    stride = 1
    for variable in block.variables[column + 1 :]:
        stride *= 2 * len(block.axes[variable].cuts) + 1

    def row(wanted: int) -> int | None:
        place = int(np.searchsorted(sorted_code, wanted))
        return int(order[place]) if place < len(order) and sorted_code[place] == wanted else None

    for point in np.flatnonzero(block.own[:, column] % 2):
        low, high = row(int(code[point]) - stride), row(int(code[point]) + stride)
        if low is not None and high is not None:
            yield int(block.own[point, column]), low, int(point), high


def _better(block: Block, signs: NDArray[np.int16], rows: NDArray[Any], others: NDArray[Any]) -> Truths:
    """(rows, others): whether `others` is at least as good in every statistic, and differs in one.

    Comparing cells is enough. The facts hold for the statistic-wise worse and better of two results
    that meet them, so from two cells so ordered two such results can be taken.
    """
    result = np.ones((len(rows), len(others)), dtype=np.bool_)
    differs = np.zeros_like(result)
    for column, sign in enumerate(signs):
        step = block.own[others, column][None, :] - block.own[rows, column][:, None]
        result &= (step == 0) if sign == 0 else (step * sign >= 0)
        differs |= step != 0
    return result & differs


def _improvements(block: Block, classes: NDArray[np.int64], signs: NDArray[np.int16]) -> Iterator[tuple[int, int]]:
    """Pairs of classes (a, b), a != b, where some row of b is better than some row of a. Raises TooLarge."""
    if len(classes) ** 2 > PAIRS:
        raise TooLarge
    order = np.argsort(classes, kind="stable")
    starts = np.searchsorted(classes[order], np.arange(classes.max() + 1))
    ends = [*starts[1:], len(order)]
    for a, (start, end) in enumerate(zip(starts, ends, strict=True)):
        reached = _better(block, signs, order[start:end], order).any(axis=0)
        for b in np.flatnonzero(np.logical_or.reduceat(reached, starts)):
            if b != a:
                yield a, int(b)


def _nearest(
    block: Block, classes: NDArray[np.int64], signs: NDArray[np.int16], a: int, b: int
) -> tuple[int, int, tuple[int, ...], int]:
    """(row of a, better row of b, columns that differ, how far): few columns, then off thresholds, then near."""
    rows, others = np.flatnonzero(classes == a), np.flatnonzero(classes == b)
    points = (block.own % 2).sum(axis=1)
    far = 1000 * (points[rows][:, None] + points[others][None, :])
    for column in range(len(signs)):
        step = np.abs(block.own[others, column][None, :] - block.own[rows, column][:, None])
        far += step + 1_000_000 * (step != 0)
    far[~_better(block, signs, rows, others)] = np.iinfo(far.dtype).max
    i, j = np.unravel_index(int(np.argmin(far)), far.shape)
    worse, better = int(rows[i]), int(others[j])
    changed = tuple(int(column) for column in np.flatnonzero(block.own[worse] != block.own[better]))
    return worse, better, changed, int(far[i, j])


def _aligned(
    low: Mapping[tuple[int, Variable], float],
    high: Mapping[tuple[int, Variable], float],
    changed: set[tuple[int, Variable]],
    block: Block,
    position: int,
) -> tuple[dict[tuple[int, Variable], float], dict[tuple[int, Variable], float]]:
    """Both results with equal values wherever they share a cell, if the order of estimate and bounds allows."""
    for source in (low, high):
        first = {key: low[key] if key in changed else source[key] for key in low}
        second = {key: high[key] if key in changed else source[key] for key in high}
        if all(_in_order(values, block, position) for values in (first, second)):
            return first, second
    return dict(low), dict(high)


def _in_order(values: Mapping[tuple[int, Variable], float], block: Block, position: int) -> bool:
    for owner in {owner for owner, _ in block.variables}:
        chain = [
            values[position, (name_owner, name)]
            for name in ("ci_low", "lower", "delta", "value", "upper", "ci_high")
            for name_owner in ("", owner)
            if (position, (name_owner, name)) in values and (name_owner, name) in block.variables
        ]
        if chain != sorted(chain):
            return False
    return True
