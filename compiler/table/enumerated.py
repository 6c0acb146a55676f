"""A verdict table judged at every combination of cells that can occur."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from epc.compiler.contract.logic import Name
from epc.compiler.contract.manifest import Analysis, Gate, Metric, VerdictRule
from epc.compiler.table.cells import Block, Quantity, Space, TooLarge, Truths, Variable, codes, holds_where
from epc.compiler.table.verdicts import RANK, Gap, Step, Table, Values, aligned

PAIRS: Final = 5_000_000
"""Most pairs of results of one quantity that are compared."""

Classes = tuple[int, ...]
"""One combination: a class of rows for each block."""


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """A result and a better one of the same quantity, as rows of a block."""

    worse: int
    better: int
    changed: tuple[int, ...]
    """Columns of the block in which they differ."""
    at: Classes
    """Where the other blocks stand; the entry of the block is that of `worse`."""


class EnumeratedTable(Table):
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
        super().__init__(analyses=analyses, metrics=metrics, gates=gates, conditions=conditions, verdicts=verdicts)
        self.space = space
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

    def _values(self, at: Classes, block: int | None = None, row: int | None = None) -> Values:
        """Readable values of every statistic in a combination; `row` replaces the class's own row in `block`."""
        values: dict[tuple[Quantity, Variable], float] = {}
        for position, (piece, rows) in enumerate(zip(self.space.blocks, self.space.rows_of, strict=True)):
            chosen = row if position == block and row is not None else int(rows[at[position]])
            values |= {(piece.quantity, variable): value for variable, value in piece.point(chosen).items()}
        return values

    def _somewhere(self, where: Truths) -> Classes | None:
        """The first combination in a mask."""
        flat = int(np.argmax(where))
        at = tuple(int(index) for index in np.unravel_index(flat, where.shape))
        return at if where[at] else None

    def possible(self) -> bool:
        return bool(self.valid.any())

    def gate_values(self, name: str) -> Collection[bool]:
        truths = self._full(self.space.truths[name])[self.valid]
        return {value for value in (False, True) if (truths == value).any()}

    def undecided(self) -> Values | None:
        at = self._somewhere(self.valid & (self.first == len(self.verdicts)))
        return None if at is None else self._values(at)

    def clashes(self, index: int, others: Sequence[int]) -> Mapping[int, Values]:
        decides = self.valid & (self.first == index)
        found = {other: self._somewhere(decides & self.matches[other]) for other in others}
        return {other: self._values(at) for other, at in found.items() if at is not None}

    def reached(self, index: int) -> bool:
        return bool((self.valid & (self.first == index)).any())

    def taken(self, index: int) -> Sequence[int]:
        return [int(other) for other in np.unique(self.first[self.valid & self.matches[index]])]

    def quantities(self) -> Sequence[Quantity]:
        return [block.quantity for block in self.space.blocks]

    def gaps(self) -> Iterator[Gap]:
        explicit = np.array([rule.predicate is not None for rule in self.verdicts] + [False])[self.first]
        for position, block in enumerate(self.space.blocks):
            classes = self.space.class_of[position]
            for column in range(len(block.variables)):
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
                    yield self._gap(position, column, rows=(low, point, high), rest=rest)

    def _gap(self, position: int, column: int, *, rows: tuple[int, int, int], rest: Classes) -> Gap:
        classes, block = self.space.class_of[position], self.space.blocks[position]
        places = [(*rest[:position], int(classes[row]), *rest[position:]) for row in rows]
        below, here, above = (int(self.first[at]) for at in places)
        return Gap(
            quantity=block.quantity,
            variable=block.variables[column],
            values=self._values(places[1], position, rows[1]),
            below=below,
            here=here,
            above=above,
        )

    def worsening(self, quantity: Quantity, *, upward: bool) -> Step | None:
        position = self.quantities().index(quantity)
        block = self.space.blocks[position]
        pair = self._pair_of(position, upward)
        if pair is None:
            return None
        after = (*pair.at[:position], int(self.space.class_of[position][pair.better]), *pair.at[position + 1 :])
        changed = tuple(block.variables[column] for column in pair.changed)
        low, high = aligned(
            self._values(pair.at, position, pair.worse),
            self._values(after, position, pair.better),
            {(quantity, variable) for variable in changed},
            quantity,
            block.variables,
        )
        return Step(
            quantity=quantity,
            changed=changed,
            low=low,
            high=high,
            was=int(self.first[pair.at]),
            becomes=int(self.first[after]),
        )

    def _pair_of(self, position: int, upward: bool) -> _Pair | None:
        block = self.space.blocks[position]
        classes = self.space.class_of[position]
        signs = np.array([self.sign(variable, upward=upward) for variable in block.variables], dtype=np.int16)
        rank = np.array([RANK[rule.verdict_class] for rule in self.verdicts] + [RANK["INCONCLUSIVE"]])[self.first]
        own_terms = [self._full(self.space.truths[name]) for name in self.own_terms(block.quantity)]

        def at_class(array: NDArray[Any], index: int) -> Any:
            return np.take(array, index, axis=position)

        best: tuple[tuple[int, int, int], _Pair] | None = None
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
                best = (score, _Pair(worse=worse, better=better, changed=changed, at=at))
        return None if best is None else best[1]


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
