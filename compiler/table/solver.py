"""A verdict table proved by z3, for tables whose combinations are too many to look at one by one.

Every statistic is a real number; what its method guarantees (`facts`), the gates and the rules become
formulas of linear arithmetic, and a question is whether some assignment meets them. A witness is moved to
readable numbers in the same cells, where every comparison is as in the assignment.

This is the one module that imports z3 (de Moura and Bjørner 2008), an extra: epc-prereg[solver].
"""

from __future__ import annotations

import functools
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, assert_never

import z3

from epc.compiler.contract.logic import And, Atom, Name, Not, Operator, Or, Predicate, compare, evaluate
from epc.compiler.contract.manifest import Analysis, Gate, Metric, VerdictRule
from epc.compiler.table.cells import (
    LOCATIONS,
    Axis,
    Cells,
    Quantity,
    Reads,
    TooLarge,
    Variable,
    grid_axes_of,
    known_facts,
    own_cuts_of,
    quantity_of,
    readable,
    reads_of,
    variable_of,
)
from epc.compiler.table.declared import atoms
from epc.compiler.table.facts import Comparison, Fact, Implies, Ordered, Range, Same
from epc.compiler.table.verdicts import RANK, Gap, Step, Table, Values, aligned

EFFORT: Final = 10_000_000
"""Most steps, as z3 counts them, that a table may take: the same table is proved or not on every machine."""

PLAIN: Final = 12
"""Most statistics of a witness that are moved off the thresholds one by one."""

Formula = Any
"""A z3 expression."""
Terms = Mapping[Variable, Any]
"""Variable -> its z3 real."""


@dataclass(frozen=True, kw_only=True)
class _Statistics:
    """The statistics of one quantity."""

    analyses: tuple[Analysis, ...]
    own: tuple[Variable, ...]
    """Those that some predicate compares."""
    axes: Mapping[Variable, Axis]
    """Their own cuts."""
    grid_axes: Mapping[Variable, Axis]
    terms: Terms
    feasible: Formula
    """What every result meets."""
    off: Mapping[Variable, Formula]
    """Being at no threshold and no end of a range."""

    def copy(self, mark: str) -> Terms:
        """Terms for another result of the quantity."""
        return {variable: z3.Real(f"{term}{mark}") for variable, term in self.terms.items()}

    def moved(self, formula: Formula, terms: Terms) -> Formula:
        """A formula about another result of the quantity."""
        return z3.substitute(formula, *((term, terms[variable]) for variable, term in self.terms.items()))


class SolvedTable(Table):
    """Every question raises TooLarge when its answer takes more than what is left of EFFORT."""

    def __init__(
        self,
        *,
        predicates: Mapping[str, Predicate],
        analyses: Mapping[str, Analysis],
        metrics: Mapping[str, Metric],
        gates: Mapping[str, Gate],
        conditions: Sequence[str],
        verdicts: Sequence[VerdictRule],
    ) -> None:
        """`predicates` are those of the gates that the rules and `conditions` name."""
        super().__init__(analyses=analyses, metrics=metrics, gates=gates, conditions=conditions, verdicts=verdicts)
        self._left = EFFORT
        self._solver = z3.Solver()
        read = reads_of((atom for predicate in predicates.values() for atom in atoms(predicate)), analyses)
        self._statistics = {
            quantity: _statistics(quantity, reads, metrics[quantity[0]]) for quantity, reads in read.items()
        }
        for statistics in self._statistics.values():
            self._solver.add(statistics.feasible)
        self._truths = {name: _formula(predicate, self._atom) for name, predicate in predicates.items()}
        self._valid = z3.And(*(self._truths[name] for name in conditions))
        self._solver.add(self._valid)
        self._matches = [
            z3.BoolVal(True) if rule.predicate is None else _formula(rule.predicate, self._gate) for rule in verdicts
        ]
        self._explicit = z3.Or(
            *(match for match, rule in zip(self._matches, verdicts, strict=True) if rule.predicate is not None)
        )
        self._decides: list[Formula] = []
        none_before = z3.BoolVal(True)
        for match in self._matches:
            self._decides.append(z3.And(match, none_before))
            none_before = z3.And(none_before, z3.Not(match))
        self._nothing = none_before
        self._at_least = {rank: self._ranked(rank) for rank in range(1, max(RANK.values()) + 1)}
        self._unreached = set(range(len(verdicts)))

    def _atom(self, leaf: Atom | Name) -> Formula:
        assert isinstance(leaf, Atom)
        analysis = self.analyses[leaf.analysis]
        term = self._statistics[quantity_of(analysis)].terms[variable_of(analysis, leaf.statistic)]
        return _compared(term, leaf.operator, leaf.constant)

    def _gate(self, leaf: Atom | Name) -> Formula:
        assert isinstance(leaf, Name)
        return self._truths[leaf.name]

    def _ranked(self, rank: int) -> Formula:
        """Whether the verdict ranks at least so high."""
        result = z3.BoolVal(RANK["INCONCLUSIVE"] >= rank)
        for match, rule in zip(reversed(self._matches), reversed(self.verdicts), strict=True):
            result = z3.If(match, z3.BoolVal(RANK[rule.verdict_class] >= rank), result)
        return result

    # ------------------------------------------------------------------------------ solving

    def _model(self, *constraints: Formula) -> Any | None:
        """An assignment that meets the constraints beside all that is asserted, None when there is none."""
        self._solver.set("rlimit", max(1, self._left))
        before = self._spent()
        answer = self._solver.check(*constraints)
        self._left -= self._spent() - before
        if answer == z3.unknown or self._left <= 0:
            raise TooLarge(
                f"takes the solver more than {EFFORT:,} steps: not everything about it was proved",
                "split the table, or use fewer thresholds",
            )
        return self._solver.model() if answer == z3.sat else None

    @contextmanager
    def _assuming(self, *constraints: Formula) -> Iterator[None]:
        """Assert more for a while."""
        self._solver.push()
        try:
            self._solver.add(*constraints)
            yield
        finally:
            self._solver.pop()

    def _spent(self) -> int:
        statistics = self._solver.statistics()
        return int(statistics.get_key_value("rlimit count")) if "rlimit count" in statistics.keys() else 0  # noqa: SIM118

    def _plain(self, model: Any, gate_names: Iterable[str], *constraints: Formula) -> Any:
        """A model in which what the gates read lies off the thresholds where it can, statistic by statistic."""
        read = {
            (quantity_of(analysis), variable_of(analysis, "p" if atom.statistic == "reject" else atom.statistic))
            for name in gate_names
            for atom in atoms(self.gates[name].predicate)
            for analysis in (self.analyses[atom.analysis],)
        }
        off = [self._statistics[quantity].off[variable] for quantity, variable in sorted(read)]
        all_off = self._model(*constraints, *off)
        if all_off is not None:
            return all_off
        kept: list[Formula] = []
        for one in off[:PLAIN]:
            better = self._model(*constraints, *kept, one)
            if better is not None:
                model = better
                kept.append(one)
        return model

    def _values(self, model: Any, moved: Quantity | None = None, terms: Terms | None = None) -> Values:
        """The assignment in readable numbers; `terms` stand for those of the quantity `moved`."""
        values: dict[tuple[Quantity, Variable], float] = {}
        for quantity, statistics in self._statistics.items():
            asked = terms if terms is not None and quantity == moved else statistics.terms
            cells = {
                variable: _cell(model.eval(term, model_completion=True).as_fraction(), statistics.grid_axes[variable])
                for variable, term in asked.items()
            }
            read = readable(cells, statistics.grid_axes, statistics.own)
            values |= {(quantity, variable): value for variable, value in read.items()}
        return values

    def _decided(self, values: Values) -> int:
        """The rule that decides a result."""

        def atom(leaf: Atom | Name) -> bool:
            assert isinstance(leaf, Atom)
            analysis = self.analyses[leaf.analysis]
            value = values[quantity_of(analysis), variable_of(analysis, leaf.statistic)]
            return bool(compare(value, leaf.operator, leaf.constant))

        def gate(leaf: Atom | Name) -> bool:
            assert isinstance(leaf, Name)
            return bool(evaluate(self.gates[leaf.name].predicate, atom))

        return next(
            (
                index
                for index, rule in enumerate(self.verdicts)
                if rule.predicate is None or evaluate(rule.predicate, gate)
            ),
            len(self.verdicts),
        )

    def _deciding(self, model: Any) -> int:
        """The rule that decides in a model in which one does."""
        return next(
            index for index, match in enumerate(self._matches) if z3.is_true(model.eval(match, model_completion=True))
        )

    # ------------------------------------------------------------------------------ answers

    def possible(self) -> bool:
        return self._model() is not None

    def gate_values(self, name: str) -> Collection[bool]:
        truth = self._truths[name]
        return {value for value, asked in ((False, z3.Not(truth)), (True, truth)) if self._model(asked) is not None}

    def undecided(self) -> Values | None:
        model = self._model(self._nothing)
        return None if model is None else self._values(self._plain(model, self.all_gates, self._nothing))

    def clashes(self, index: int, others: Sequence[int]) -> Mapping[int, Values]:
        found: dict[int, Values] = {}
        left = list(others)
        while left:
            model = self._model(self._decides[index], z3.Or(*(self._matches[other] for other in left)))
            if model is None:
                break
            hit = next(other for other in left if z3.is_true(model.eval(self._matches[other], model_completion=True)))
            both = (self._decides[index], self._matches[hit])
            found[hit] = self._values(self._plain(model, self._gates_of(index, hit), *both))
            left.remove(hit)
        return found

    def reached(self, index: int) -> bool:
        while index in self._unreached:
            model = self._model(z3.Or(*(self._decides[other] for other in sorted(self._unreached))))
            if model is None:
                break
            self._unreached.remove(self._deciding(model))
        return index not in self._unreached

    def taken(self, index: int) -> Sequence[int]:
        with self._assuming(self._matches[index]):
            return [other for other in range(index) if self._model(self._decides[other]) is not None]

    def quantities(self) -> Sequence[Quantity]:
        return list(self._statistics)

    def gaps(self) -> Iterator[Gap]:
        for quantity, statistics in self._statistics.items():
            below, above = statistics.copy("-"), statistics.copy("+")
            decided = z3.And(statistics.feasible, self._valid, self._explicit)
            sides = [statistics.moved(decided, side) for side in (below, above)]
            with self._assuming(z3.Not(self._explicit), *sides):
                found = [gap for variable in statistics.own for gap in self._gaps_of(quantity, variable, below, above)]
            yield from found

    def _gaps_of(self, quantity: Quantity, variable: Variable, below: Terms, above: Terms) -> Iterator[Gap]:
        statistics = self._statistics[quantity]
        term = statistics.terms[variable]
        cuts = statistics.axes[variable].cuts
        same = [
            _same_cell(statistics.axes[other], statistics.terms[other], side[other])
            for other in statistics.own
            if other != variable
            for side in (below, above)
        ]
        for position, cut in enumerate(cuts):
            at = [term == _number(cut), below[variable] < _number(cut), above[variable] > _number(cut), *same]
            if position > 0:
                at.append(below[variable] > _number(cuts[position - 1]))
            if position + 1 < len(cuts):
                at.append(above[variable] < _number(cuts[position + 1]))
            model = self._model(*at)
            if model is None:
                continue
            values = self._values(model)
            low, high = (self._values(model, quantity, side) for side in (below, above))
            yield Gap(
                quantity=quantity,
                variable=variable,
                values=values,
                below=self._decided(low),
                here=self._decided(values),
                above=self._decided(high),
            )

    def worsening(self, quantity: Quantity, *, upward: bool) -> Step | None:
        statistics = self._statistics[quantity]
        better = statistics.copy("'")
        improved = [
            statistics.moved(z3.And(statistics.feasible, self._valid), better),
            *(self._truths[name] == statistics.moved(self._truths[name], better) for name in self.own_terms(quantity)),
            *(self._no_worse(statistics, variable, better, upward=upward) for variable in statistics.own),
        ]
        with self._assuming(*improved):
            model = self._fewest(statistics, better)
            if model is None:
                return None
            low, high = self._values(model), self._values(model, quantity, better)
        changed = tuple(
            variable
            for variable in statistics.own
            if _cell(low[quantity, variable], statistics.axes[variable])
            != _cell(high[quantity, variable], statistics.axes[variable])
        )
        low, high = aligned(low, high, {(quantity, variable) for variable in changed}, quantity, statistics.own)
        return Step(
            quantity=quantity,
            changed=changed,
            low=low,
            high=high,
            was=self._decided(low),
            becomes=self._decided(high),
        )

    def _no_worse(self, statistics: _Statistics, variable: Variable, better: Terms, *, upward: bool) -> Formula:
        here, there = statistics.terms[variable], better[variable]
        match self.sign(variable, upward=upward):
            case 0:
                return _same_cell(statistics.axes[variable], here, there)
            case sign:
                return here <= there if sign > 0 else here >= there

    def _fewest(self, statistics: _Statistics, better: Terms) -> Any | None:
        """A model of a worse verdict for the better result, with few statistics changed and a verdict much worse."""

        def drop(size: int) -> Formula:
            """Whether the verdict is at least so many ranks worse."""
            return z3.Or(
                *(
                    z3.And(self._at_least[rank], z3.Not(statistics.moved(self._at_least[rank - size + 1], better)))
                    for rank in range(size, max(RANK.values()) + 1)
                )
            )

        found = self._model(drop(1))
        if found is None:
            return None
        same = {
            variable: _same_cell(statistics.axes[variable], statistics.terms[variable], better[variable])
            for variable in statistics.own
        }
        fixed: list[Formula] = []
        for variable in statistics.own:
            alone = [same[other] for other in statistics.own if other != variable]
            if self._model(drop(1), *alone) is not None:
                fixed = alone
                break
        else:
            for variable in statistics.own:
                if self._model(drop(1), *fixed, same[variable]) is not None:
                    fixed.append(same[variable])
        for size in range(max(RANK.values()), 0, -1):
            model = self._model(drop(size), *fixed)
            if model is not None:
                return self._plain(model, self._gates_about(statistics), drop(size), *fixed)
        return found

    def _gates_about(self, statistics: _Statistics) -> list[str]:
        names = {analysis.name for analysis in statistics.analyses}
        return [
            name for name in self.all_gates if any(atom.analysis in names for atom in atoms(self.gates[name].predicate))
        ]


def _statistics(quantity: Quantity, reads: Reads, metric: Metric) -> _Statistics:
    own_cuts = own_cuts_of(reads)
    known = {analysis: known_facts(analysis, metric) for analysis in reads}
    grid_axes, possible = grid_axes_of(own_cuts, known)
    order = [
        variable_of(analysis, name)
        for analysis in reads
        for name in (*LOCATIONS, "p", "reject")
        if name in LOCATIONS or analysis.contrast is not None
    ]
    terms = {variable: z3.Real(f"{'|'.join(quantity)}|{'.'.join(variable)}") for variable in grid_axes}
    return _Statistics(
        analyses=tuple(reads),
        own=tuple(sorted(own_cuts, key=order.index)),
        axes={variable: Axis(cuts=tuple(sorted(cuts))) for variable, cuts in own_cuts.items()},
        grid_axes=grid_axes,
        terms=terms,
        feasible=z3.And(*_feasible(known, grid_axes, possible, terms)),
        off={
            variable: z3.And(*(terms[variable] != _number(cut) for cut in axis.cuts))
            for variable, axis in grid_axes.items()
        },
    )


def _feasible(
    known: Mapping[Analysis, Sequence[Fact]],
    axes: Mapping[Variable, Axis],
    possible: Mapping[Variable, Cells],
    terms: Terms,
) -> Iterator[Formula]:
    """What every result of a quantity meets."""
    for variable, axis in axes.items():
        yield z3.Or(*(_inside(terms[variable], *run) for run in _runs(possible[variable].tolist(), axis)))
    for analysis, its_facts in known.items():
        for fact in its_facts:
            match fact:
                case Ordered(low=low, high=high):
                    yield terms[variable_of(analysis, low)] <= terms[variable_of(analysis, high)]
                case Implies(given=given, then=then):
                    before, after = (_stated(analysis, side, terms) for side in (given, then))
                    yield z3.Implies(before, after)
                case Range() | Same():
                    pass  # a range is in the possible cells; variable_of gives both names one variable
                case _:
                    assert_never(fact)


def _runs(cells: Sequence[int], axis: Axis) -> list[tuple[float, bool, float, bool]]:
    """Adjacent cells as intervals: (low, low included, high, high included)."""
    runs: list[list[int]] = []
    for cell in cells:
        if runs and runs[-1][-1] == cell - 1:
            runs[-1].append(cell)
        else:
            runs.append([cell])
    return [(axis.ends(run[0])[0], run[0] % 2 == 1, axis.ends(run[-1])[1], run[-1] % 2 == 1) for run in runs]


def _stated(analysis: Analysis, comparison: Comparison, terms: Terms) -> Formula:
    term = terms[variable_of(analysis, comparison.statistic)]
    return _compared(term, comparison.operator, comparison.constant)


def _inside(term: Any, low: float, from_low: bool, high: float, to_high: bool) -> Formula:
    above = term >= _number(low) if from_low else term > _number(low)
    below = term <= _number(high) if to_high else term < _number(high)
    return z3.And(above, below)


def _same_cell(axis: Axis, one: Any, other: Any) -> Formula:
    return z3.And(
        *(
            holds
            for cut in axis.cuts
            for holds in (
                (one < _number(cut)) == (other < _number(cut)),
                (one <= _number(cut)) == (other <= _number(cut)),
            )
        )
    )


def _cell(value: Fraction | float, axis: Axis) -> int:
    """The cell of an axis that holds a value, compared exactly."""
    position = bisect_left(axis.cuts, value)
    return 2 * position + (position < len(axis.cuts) and axis.cuts[position] == value)


@functools.cache
def _number(value: float) -> Any:
    """The float as an exact rational."""
    return z3.RealVal(str(Fraction(value)))


def _compared(term: Any, operator: Operator, constant: float) -> Formula:
    number = _number(constant)
    match operator:
        case "<":
            return term < number
        case "<=":
            return term <= number
        case ">":
            return term > number
        case ">=":
            return term >= number
        case "==":
            return term == number
        case "!=":
            return term != number
        case _:
            assert_never(operator)


def _formula(predicate: Predicate, leaf: Callable[[Atom | Name], Formula]) -> Formula:
    match predicate:
        case Atom() | Name():
            return leaf(predicate)
        case Not(operand=operand):
            return z3.Not(_formula(operand, leaf))
        case And(operands=operands):
            return z3.And(*(_formula(operand, leaf) for operand in operands))
        case Or(operands=operands):
            return z3.Or(*(_formula(operand, leaf) for operand in operands))
        case _:
            assert_never(predicate)
