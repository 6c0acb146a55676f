"""Cells: the thresholds cut each statistic's axis into points and open intervals.

An axis with cuts c_0 < ... < c_{k-1} has 2 k + 1 cells: cell 2 j + 1 is the point c_j, cell 2 j the
open interval below it (the last one is above all cuts). No comparison with a cut changes its truth
within a cell, so neither does any predicate.

Statistics of one quantity (a metric in one contrast, or in one arm) form a block. Estimate and bounds
of a block share one grid of cuts, so `lower <= delta` is a comparison of cell indices, exactly. Two
analyses of one quantity share its estimate. Blocks are independent of each other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, Final, assert_never

import numpy as np
from numpy.typing import NDArray

from epc.compiler.contract.logic import And, Atom, Name, Not, Operator, Or, Predicate, leaves
from epc.compiler.contract.manifest import Analysis, Metric
from epc.compiler.table.facts import Comparison, Fact, Implies, Ordered, Range, Same, estimate_of, facts, mentioned

BUDGET: Final = 20_000_000
"""Most cells that are enumerated at once, which takes some seconds and half a gigabyte."""

Cells = NDArray[np.int16]
Truths = NDArray[np.bool_]
Quantity = tuple[str, str, str, str]
"""(metric, treatment or arm, control or empty)."""
Variable = tuple[str, str]
"""(analysis, statistic); the estimate, shared by a block, has the analysis ""."""
Reads = Mapping[Analysis, set[tuple[str, float]]]
"""Analysis -> the (statistic, constant) that predicates compare."""

LOCATIONS: Final = ("ci_low", "lower", "delta", "value", "upper", "ci_high")
"""Statistics on the scale of the metric, in the order that witnesses respect."""


class TooLarge(Exception):
    """More than can be proved: what there is too much of, what that means, and what helps."""

    def __init__(
        self,
        fact: str = f"has more than {BUDGET:,} combinations of thresholds: nothing about it was proved",
        remedy: str = "pip install 'epc-prereg[solver]' to have it proved by a solver, or use fewer thresholds",
    ) -> None:
        super().__init__(fact)
        self.fact = fact
        self.remedy = remedy


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One statistic's cuts, ascending."""

    cuts: tuple[float, ...]

    def compare(self, operator: Operator, constant: float) -> Truths:
        """Truth of `cell OP constant` for each cell; the constant must be a cut."""
        at = 2 * self.cuts.index(constant) + 1
        cell: Cells = np.arange(2 * len(self.cuts) + 1, dtype=np.int16)
        truths: Truths
        match operator:
            case "<":
                truths = cell < at
            case "<=":
                truths = cell <= at
            case ">":
                truths = cell > at
            case ">=":
                truths = cell >= at
            case "==":
                truths = cell == at
            case "!=":
                truths = cell != at
            case _:
                assert_never(operator)
        return truths

    def ends(self, cell: int) -> tuple[float, float]:
        """The cell's ends: equal for a point, exclusive and possibly infinite for an interval."""
        if cell % 2:
            return self.cuts[cell // 2], self.cuts[cell // 2]
        low = self.cuts[cell // 2 - 1] if cell else -math.inf
        high = self.cuts[cell // 2] if cell // 2 < len(self.cuts) else math.inf
        return low, high


@dataclass(frozen=True, kw_only=True)
class Block:
    """Every combination of cells that the statistics of one quantity can take."""

    quantity: Quantity
    variables: tuple[Variable, ...]
    """Those that some predicate compares, with their own cuts only."""
    own: Cells
    """(rows, variables): distinct combinations."""
    axes: Mapping[Variable, Axis]
    """On their own cuts."""
    grid: Cells
    """(rows, grid_variables): one feasible combination on the common grid behind each row."""
    grid_variables: tuple[Variable, ...]
    grid_axes: Mapping[Variable, Axis]

    def truth(self, variable: Variable, operator: Operator, constant: float) -> Truths:
        """Truth of a comparison in each row."""
        column = self.variables.index(variable)
        return self.axes[variable].compare(operator, constant)[self.own[:, column]]

    def point(self, row: int) -> dict[Variable, float]:
        """Readable values of the statistics somewhere in a row's cells, in the order the facts demand."""
        cells = {variable: int(self.grid[row, column]) for column, variable in enumerate(self.grid_variables)}
        return readable(cells, self.grid_axes, self.variables)


def readable(
    cells: Mapping[Variable, int], axes: Mapping[Variable, Axis], compared: Collection[Variable]
) -> dict[Variable, float]:
    """A value in each cell, of few digits; compared statistics that share a cell ascend as the facts demand."""
    values: dict[Variable, float] = {}
    places: dict[tuple[float, float], list[Variable]] = {}
    for variable, cell in cells.items():
        ends = axes[variable].ends(cell)
        if variable[1] in LOCATIONS and variable in compared:
            places.setdefault(ends, []).append(variable)
        else:
            values[variable] = nice(*ends)
    for (low, high), together in places.items():
        together.sort(key=lambda variable: LOCATIONS.index(variable[1]))
        for variable, part in zip(together, parts(low, high, len(together)), strict=True):
            values[variable] = nice(*part)
    return values


def quantity_of(analysis: Analysis) -> Quantity:
    """What an analysis estimates. One that a switch may rebind shares its estimate with no other.

    The sign test estimates a median, and an unpaired method the difference of other units.
    """
    part = analysis.name if analysis.switched else analysis.subset or ""
    if analysis.method in ("sign_test", "newcombe"):
        part = f"{part} by {analysis.method}"
    if analysis.contrast is not None:
        return analysis.metric, analysis.contrast.treatment, analysis.contrast.control, part
    return analysis.metric, analysis.arm or "", "", part


def variable_of(analysis: Analysis, statistic: str) -> Variable:
    """The variable behind a statistic: one-sided `ci_low` is `lower`, and the estimate is the block's."""
    if statistic == estimate_of(analysis):
        return "", statistic
    if analysis.side != "two_sided" and analysis.interval is None:
        statistic = {"ci_low": "lower", "ci_high": "upper"}.get(statistic, statistic)
    return analysis.name, statistic


def blocks(
    atoms: Iterable[Atom], analyses: Mapping[str, Analysis], metrics: Mapping[str, Metric], budget: int = BUDGET
) -> dict[Quantity, Block]:
    """The blocks of all quantities that the atoms read. Raises TooLarge."""
    read = reads_of(atoms, analyses)
    return {quantity: _block(quantity, reads, metrics[quantity[0]], budget) for quantity, reads in read.items()}


def reads_of(atoms: Iterable[Atom], analyses: Mapping[str, Analysis]) -> dict[Quantity, Reads]:
    """Per quantity: analysis -> what the atoms compare of it."""
    grouped: dict[Quantity, dict[str, set[tuple[str, float]]]] = {}
    for atom in atoms:
        analysis = analyses[atom.analysis]
        read = grouped.setdefault(quantity_of(analysis), {}).setdefault(atom.analysis, set())
        read.add((atom.statistic, atom.constant))
    return {
        quantity: {analyses[name]: read for name, read in sorted(by_name.items())}
        for quantity, by_name in grouped.items()
    }


def own_cuts_of(reads: Reads) -> dict[Variable, set[float]]:
    """The constants that each statistic is compared with."""
    own_cuts: dict[Variable, set[float]] = {}
    for analysis, read in reads.items():
        for statistic, constant in sorted(read):
            own_cuts.setdefault(variable_of(analysis, statistic), set()).add(constant)
    return own_cuts


def _block(quantity: Quantity, reads: Reads, metric: Metric, budget: int) -> Block:
    own_cuts = own_cuts_of(reads)
    known = {analysis: known_facts(analysis, metric) for analysis in reads}
    grid_axes, possible = grid_axes_of(own_cuts, known)
    parts_of = {
        analysis: _analysis_cells(analysis, known[analysis], own_cuts, grid_axes, possible, budget, link=len(reads) > 1)
        for analysis in reads
    }
    variables = tuple(own_cuts)
    axes = {variable: Axis(cuts=tuple(sorted(cuts))) for variable, cuts in own_cuts.items()}
    estimate = next((variable for variable in grid_axes if variable[0] == ""), None)
    pieces = []
    for its_variables, cells in parts_of.values():
        # What tells two rows apart: the own cells, and for the join the estimate on the grid.
        kept = {variable: axis for variable, axis in axes.items() if variable in its_variables}
        if len(reads) > 1 and estimate in its_variables:
            kept[estimate] = grid_axes[estimate]
        pieces.append((its_variables, _distinct(cells, its_variables, grid_axes, kept)[0]))
    grid_variables, grid = _joined(pieces, budget)
    variables = tuple(sorted(variables, key=grid_variables.index))
    grid, own = _distinct(grid, grid_variables, grid_axes, {variable: axes[variable] for variable in variables})
    order = np.argsort((own % 2).sum(axis=1), kind="stable")
    return Block(
        quantity=quantity,
        variables=variables,
        own=own[order],
        axes=axes,
        grid=grid[order],
        grid_variables=grid_variables,
        grid_axes=grid_axes,
    )


def _distinct(
    grid: Cells, variables: Sequence[Variable], fine: Mapping[Variable, Axis], coarse: Mapping[Variable, Axis]
) -> tuple[Cells, Cells]:
    """The plainest row of `grid` for each combination of cells of the coarse axes, and those combinations."""
    grid = grid[_plainest_first(grid, variables, fine)]
    cells = np.empty((len(grid), len(coarse)), dtype=np.int16)
    for column, (variable, axis) in enumerate(coarse.items()):
        cells[:, column] = _coarser(fine[variable], axis)[grid[:, variables.index(variable)]]
    first = np.sort(np.unique(codes(cells, coarse, tuple(coarse)), return_index=True)[1])
    return grid[first], cells[first]


def _plainest_first(grid: Cells, variables: Sequence[Variable], axes: Mapping[Variable, Axis]) -> NDArray[np.int64]:
    """An order of rows by how well they serve as a witness: off the thresholds, then close to them."""
    width = np.zeros(len(grid))
    for column, variable in enumerate(variables):
        if variable[1] in LOCATIONS:
            axis = axes[variable]
            size = [high - low for low, high in map(axis.ends, range(2 * len(axis.cuts) + 1))]
            width += np.array(size)[grid[:, column]]
    return np.lexsort((width, (grid % 2).sum(axis=1)))


def codes(own: Cells, axes: Mapping[Variable, Axis], variables: Sequence[Variable]) -> NDArray[np.int64]:
    """One integer a row, mixed radix over the axes, the last variable fastest. Raises TooLarge."""
    code = np.zeros(len(own), dtype=np.int64)
    if math.prod(2 * len(axes[variable].cuts) + 1 for variable in variables) >= 2**62:
        raise TooLarge
    for column, variable in enumerate(variables):
        code = code * (2 * len(axes[variable].cuts) + 1) + own[:, column]
    return code


def known_facts(analysis: Analysis, metric: Metric) -> tuple[Fact, ...]:
    """The facts under the variables' names; aliases are gone."""

    def named(comparison: Comparison) -> Comparison:
        statistic = variable_of(analysis, comparison.statistic)[1]
        return Comparison(statistic=statistic, operator=comparison.operator, constant=comparison.constant)

    result: list[Fact] = []
    for fact in facts(analysis, metric):
        match fact:
            case Same():
                pass  # variable_of gives both names one variable
            case Range() | Ordered():
                result.append(fact)
            case Implies(given=given, then=then, why=why):
                result.append(Implies(given=named(given), then=named(then), why=why))
            case _:
                assert_never(fact)
    return tuple(result)


def _included(analysis: Analysis, known: Sequence[Fact], own_cuts: Iterable[Variable], *, link: bool) -> list[str]:
    """Statistics to enumerate: those compared, those an implication ties to them, and the shared estimate."""
    estimate = estimate_of(analysis)
    names = {name for owner, name in own_cuts if owner == analysis.name or (owner == "" and name == estimate)}
    if link:
        names.add(estimate)
    grown = True
    while grown:
        grown = False
        for fact in known:
            if isinstance(fact, Implies) and len(names & set(mentioned(fact))) == 1:
                names |= set(mentioned(fact))
                grown = True
    return sorted(names, key=lambda name: (*LOCATIONS, "p", "reject").index(name))


def grid_axes_of(
    own_cuts: Mapping[Variable, set[float]], known: Mapping[Analysis, tuple[Fact, ...]]
) -> tuple[dict[Variable, Axis], dict[Variable, Cells]]:
    """Axes with every cut that a predicate or a fact makes, and which of their cells can occur.

    Estimate and bounds of a block share their cuts.
    """
    cuts: dict[Variable, set[float]] = {variable: set(values) for variable, values in own_cuts.items()}
    ranges: dict[Variable, Range] = {}
    for analysis, its_facts in known.items():
        for fact in its_facts:
            match fact:
                case Range(statistic=statistic, low=low, high=high):
                    variable = variable_of(analysis, statistic)
                    ranges[variable] = fact
                    cuts.setdefault(variable, set()).update((low, high))
                case Implies(given=given, then=then):
                    for side in (given, then):
                        cuts.setdefault(variable_of(analysis, side.statistic), set()).add(side.constant)
                case Ordered() | Same():
                    pass
                case _:
                    assert_never(fact)
    shared = set[float]().union(*(values for (_, name), values in cuts.items() if name in LOCATIONS))
    axes = {
        variable: Axis(cuts=tuple(sorted(shared if variable[1] in LOCATIONS else values)))
        for variable, values in cuts.items()
    }
    return axes, {variable: _possible(axis, ranges[variable]) for variable, axis in axes.items()}


def _possible(axis: Axis, limits: Range) -> Cells:
    """Cells that meet the range, and with a step hold one of its values."""
    kept: list[int] = []
    for cell in range(2 * len(axis.cuts) + 1):
        low, high = axis.ends(cell)
        inside = limits.low <= low and high <= limits.high
        if inside and (limits.steps is None or _holds_step(low, high, limits.steps)):
            kept.append(cell)
    return np.array(kept, dtype=np.int16)


def _holds_step(low: float, high: float, steps: int) -> bool:
    """Whether some j / steps, as a float, is the point (low == high) or lies strictly between."""
    near = math.floor(low * steps)
    for multiple in range(near - 1, near + 3):
        value = multiple / steps
        if value == low == high or low < value < high:
            return True
    return False


def _analysis_cells(
    analysis: Analysis,
    known: Sequence[Fact],
    own_cuts: Mapping[Variable, set[float]],
    grid_axes: Mapping[Variable, Axis],
    possible: Mapping[Variable, Cells],
    budget: int,
    *,
    link: bool,
) -> tuple[tuple[Variable, ...], Cells]:
    """Feasible cells of one analysis on the grid, grown statistic by statistic."""
    names = _included(analysis, known, own_cuts, link=link)
    rows: Cells = np.zeros((1, 0), dtype=np.int16)
    for count, name in enumerate(names, start=1):
        new = possible[variable_of(analysis, name)]
        if len(rows) * len(new) > budget:
            raise TooLarge
        rows = np.hstack([np.repeat(rows, len(new), axis=0), np.tile(new, len(rows))[:, None]])
        keep = np.ones(len(rows), dtype=np.bool_)
        present = names[:count]
        for fact in known:
            about = mentioned(fact)
            if name not in about or not set(about) <= set(present):
                continue
            match fact:
                case Ordered(low=low, high=high):
                    keep &= rows[:, present.index(low)] <= rows[:, present.index(high)]
                case Implies(given=given, then=then):
                    first, second = (
                        grid_axes[variable_of(analysis, side.statistic)].compare(side.operator, side.constant)[
                            rows[:, present.index(side.statistic)]
                        ]
                        for side in (given, then)
                    )
                    keep &= ~first | second
                case Range() | Same():
                    pass
                case _:
                    assert_never(fact)
        rows = rows[keep]
    return tuple(variable_of(analysis, name) for name in names), rows


def _joined(pieces: Sequence[tuple[tuple[Variable, ...], Cells]], budget: int) -> tuple[tuple[Variable, ...], Cells]:
    """Analyses of one quantity side by side, wherever they agree on the estimate they share."""
    variables, rows = pieces[0]
    for more_variables, more in pieces[1:]:
        shared = next(variable for variable in variables if variable[0] == "")
        here, there = rows[:, variables.index(shared)], more[:, more_variables.index(shared)]
        others = [column for column, variable in enumerate(more_variables) if variable != shared]
        size = sum(
            int(np.count_nonzero(here == cell)) * int(np.count_nonzero(there == cell)) for cell in np.unique(here)
        )
        if size > budget:
            raise TooLarge
        joined = []
        for cell in np.unique(here):
            left, right = rows[here == cell], more[there == cell][:, others]
            joined.append(np.hstack([np.repeat(left, len(right), axis=0), np.tile(right, (len(left), 1))]))
        rows = np.concatenate(joined)
        variables = (*variables, *(more_variables[column] for column in others))
    return variables, rows


def _coarser(fine: Axis, coarse: Axis) -> Cells:
    """For each cell of `fine` the cell of `coarse` that holds it; every cut of `coarse` is one of `fine`."""
    result = np.empty(2 * len(fine.cuts) + 1, dtype=np.int16)
    for cell in range(len(result)):
        low, high = fine.ends(cell)
        below = sum(cut <= low for cut in coarse.cuts)
        exactly = low == high and low in coarse.cuts
        result[cell] = 2 * below - 1 if exactly else 2 * below
    return result


def parts(low: float, high: float, count: int) -> list[tuple[float, float]]:
    """`count` ascending intervals inside (low, high), or the point that many times."""
    if low == high or count == 1:
        return [(low, high)] * count
    ends = [low + (high - low) * index / count for index in range(count + 1)]
    return list(zip(ends, [*ends[1:-1], high], strict=False))


def nice(low: float, high: float) -> float:
    """The point, or the number with the fewest decimals strictly between, near the middle."""
    if low == high:
        return low
    first, last = Decimal(repr(low)), Decimal(repr(high))
    middle = (first + last) / 2
    for digits in range(-3, 330):
        step = Decimal(1).scaleb(-digits)
        below = (first / step).to_integral_value(ROUND_FLOOR) + 1
        above = (last / step).to_integral_value(ROUND_CEILING) - 1
        if below <= above:
            value = float(min(max((middle / step).to_integral_value(), below), above) * step)
            if low < value < high:
                return value
    return (low + high) / 2


@dataclass(frozen=True, kw_only=True)
class Space:
    """The product of blocks, with rows that no predicate tells apart taken together.

    `truths` maps each predicate's key to its truth in every combination of classes: one axis a block,
    of length 1 where the predicate does not read the block.
    """

    blocks: tuple[Block, ...]
    class_of: tuple[NDArray[np.int64], ...]
    """Per block: row -> class."""
    rows_of: tuple[NDArray[np.int64], ...]
    """Per block: class -> its first row."""
    truths: Mapping[str, Truths]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(rows) for rows in self.rows_of)


def space(
    predicates: Mapping[str, Predicate],
    analyses: Mapping[str, Analysis],
    metrics: Mapping[str, Metric],
    budget: int = BUDGET,
) -> Space:
    """Truth of the predicates in every feasible combination of cells. Raises TooLarge."""
    atoms_of = {key: _atoms(predicate) for key, predicate in predicates.items()}
    found = tuple(blocks((atom for atoms in atoms_of.values() for atom in atoms), analyses, metrics, budget).values())
    index = {block.quantity: position for position, block in enumerate(found)}

    def home(atom: Atom) -> int:
        return index[quantity_of(analyses[atom.analysis])]

    def rows(atom: Atom) -> Truths:
        variable = variable_of(analyses[atom.analysis], atom.statistic)
        return found[home(atom)].truth(variable, atom.operator, atom.constant)

    # What tells rows of a block apart: predicates that read it alone, and the atoms of all others.
    columns: list[dict[str | Atom, Truths]] = [{} for _ in found]
    for key, predicate in predicates.items():
        homes = {home(atom) for atom in atoms_of[key]}
        if len(homes) == 1:
            columns[homes.pop()][key] = holds_where(predicate, rows)
        else:
            for atom in atoms_of[key]:
                columns[home(atom)][atom] = rows(atom)
    class_of, rows_of = [], []
    for block, column in zip(found, columns, strict=True):
        packed = np.packbits(np.stack(list(column.values()), axis=1), axis=1)
        _, first, inverse = np.unique(packed, axis=0, return_index=True, return_inverse=True)
        class_of.append(inverse.reshape(len(block.own)))
        rows_of.append(first)
    if math.prod(len(first) for first in rows_of) > budget:
        raise TooLarge

    def spread(position: int, key: str | Atom) -> Truths:
        shape = [1] * len(found)
        shape[position] = len(rows_of[position])
        return columns[position][key][rows_of[position]].reshape(shape)

    truths: dict[str, Truths] = {}
    for key, predicate in predicates.items():
        homes = {home(atom) for atom in atoms_of[key]}
        if len(homes) == 1:
            truths[key] = spread(homes.pop(), key)
        else:
            truths[key] = holds_where(predicate, lambda atom: spread(home(atom), atom))
    return Space(blocks=found, class_of=tuple(class_of), rows_of=tuple(rows_of), truths=truths)


def _atoms(predicate: Predicate) -> tuple[Atom, ...]:
    return tuple(leaf for leaf in leaves(predicate) if isinstance(leaf, Atom))


def holds_where(predicate: Predicate, leaf: Callable[[Any], Truths]) -> Truths:
    """`contract.logic.evaluate` on arrays, where nothing is unknown."""
    match predicate:
        case Atom() | Name():
            return leaf(predicate)
        case Not(operand=operand):
            return ~holds_where(operand, leaf)
        case And(operands=operands):
            return functools.reduce(np.logical_and, (holds_where(operand, leaf) for operand in operands))
        case Or(operands=operands):
            return functools.reduce(np.logical_or, (holds_where(operand, leaf) for operand in operands))
        case _:
            assert_never(predicate)
