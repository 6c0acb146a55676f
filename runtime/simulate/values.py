"""Unit means of simulated experiments as exact fractions, and their differences as integers on a lattice.

The same arithmetic as `measurements.Unit.value` and `statistics.estimate.on_lattice`, on arrays of (experiments,
units): a unit's mean over its samples, then over training seeds; differences on their least common denominator, or
half-even on a fixed point of 10^-9 where that exceeds 2^40.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from epc.runtime.simulate.model import Cell, Flags
from epc.runtime.statistics.estimate import EXACT_LIMIT, FIXED_POINT

WIDE: Final = 1 << 62
"""Integers whose magnitude may reach it are held as Python integers."""

Ints = NDArray[Any]
"""int64, or Python integers (dtype object) where products are wider."""


@dataclass(frozen=True, kw_only=True)
class Means:
    """Unit means of one arm, (E, U) or broadcast to it: top / bottom where `known`."""

    top: Ints
    bottom: Ints
    known: Flags
    emptied: Flags
    """No mean because of the filter alone."""
    missing: NDArray[np.int64]
    """(E,) or (1,): samples without a score."""


def means(cells: Sequence[Cell], denominator: int, fill: int | None = None) -> Means:
    """Over training seeds. `fill`, in steps of the lattice, stands for each missing score; None drops them."""
    top: Ints | None = None
    bottom: Ints = np.ones((1, 1), dtype=np.int64)
    known: Flags = np.ones((1, 1), dtype=bool)
    blank: Flags = np.zeros((1, 1), dtype=bool)
    held: Flags = np.ones((1, 1), dtype=bool)
    for cell in cells:
        emptied = (cell.n == 0) & (cell.missing == 0) & (cell.filtered > 0)
        n, total = cell.n, cell.total
        if fill is not None:
            filled = np.where(emptied, 0, np.where(n + cell.missing > 0, cell.missing, 1))
            n, total = n + filled, total + fill * filled
        scored = n > 0
        n = np.where(scored, n, 1)
        known = known & scored
        blank, held = blank | ~scored, held & (scored | emptied)
        if top is None:
            top, bottom = total, n
        elif np.array_equal(n, bottom):
            top = top + total
        else:
            top, bottom = _wide(top, n) * n + _wide(total, bottom) * bottom, _wide(bottom, n) * n
    assert top is not None
    return Means(
        top=top, bottom=_wide(bottom, np.array(denominator * len(cells))) * (denominator * len(cells)), known=known,
        emptied=blank & held, missing=sum((cell.missing.sum(axis=1) for cell in cells), np.zeros(1, dtype=np.int64)),
    )  # fmt: skip


def _wide(values: Ints, factor: Ints) -> Ints:
    """The values in a type that holds their product with `factor`."""
    if values.dtype == object or factor.dtype == object:
        return values.astype(object)
    most = int(np.abs(values).max(initial=0)) * int(np.abs(factor).max(initial=0))
    return values.astype(object) if most >= WIDE else values


def differences(treatment: Means, control: Means) -> tuple[Ints, Ints]:
    """treatment - control as top and bottom, lowest terms where denominators differ; (E, U) or broadcast to it."""
    if treatment.bottom.size == 1 and np.array_equal(treatment.bottom, control.bottom):
        return treatment.top - control.top, treatment.bottom
    top = (
        _wide(treatment.top, control.bottom) * control.bottom
        - _wide(control.top, treatment.bottom) * treatment.bottom
    )  # fmt: skip
    bottom = _wide(treatment.bottom, control.bottom) * control.bottom
    divisor = np.gcd(top, bottom)
    return top // divisor, bottom // divisor


@dataclass(frozen=True, kw_only=True)
class Lattices:
    """Values of some experiments as integers, (E, n): value = numerators / denominators[:, None]."""

    numerators: NDArray[np.int64]
    denominators: NDArray[np.int64]
    rounded: Flags
    top: Ints
    bottom: Ints
    """The values as they came, (E, n)."""

    @property
    def n(self) -> int:
        return int(self.numerators.shape[1])

    def taken(self, rows: NDArray[np.int64]) -> Lattices:
        return Lattices(
            numerators=self.numerators[rows], denominators=self.denominators[rows], rounded=self.rounded[rows],
            top=self.top[rows], bottom=self.bottom[rows],
        )  # fmt: skip

    def exact_mean(self, row: int) -> Fraction:
        values = (Fraction(int(t), int(b)) for t, b in zip(self.top[row], self.bottom[row], strict=True))
        return sum(values, Fraction(0)) / self.n


def on_lattices(top: Ints, bottom: Ints) -> Lattices:
    """What `statistics.estimate.on_lattice` does, for each row of (E, n) fractions in lowest terms.

    Where all have one denominator it is kept, whether or not it is the least: no p and no bound depends on that.
    """
    experiments, n = top.shape
    if bottom.size == 1:
        common = np.full(experiments, int(bottom.flat[0]), dtype=np.int64)
        return Lattices(
            numerators=top.astype(np.int64), denominators=common, rounded=np.zeros(experiments, dtype=bool), top=top,
            bottom=np.broadcast_to(bottom, top.shape),
        )  # fmt: skip
    common = np.ones(experiments, dtype=np.int64)
    rounded = np.zeros(experiments, dtype=bool)
    for unit in range(n):
        each = np.where(rounded, 1, bottom[:, unit])
        rounded |= each > EXACT_LIMIT
        each = np.where(rounded, 1, each).astype(np.int64)
        common = np.lcm(common, each)
        rounded |= common > EXACT_LIMIT
        common = np.where(rounded, 1, common)
    numerators = np.empty(top.shape, dtype=np.int64)
    exact = ~rounded
    if exact.any():
        numerators[exact] = top[exact] * (common[exact, None] // bottom[exact])
    if rounded.any():
        scaled = _wide(top[rounded], np.array(FIXED_POINT)) * FIXED_POINT
        numerators[rounded] = _half_even(scaled, bottom[rounded])
        common = np.where(rounded, FIXED_POINT, common)
    return Lattices(numerators=numerators, denominators=common, rounded=rounded, top=top, bottom=bottom)


def _half_even(top: Ints, bottom: Ints) -> NDArray[np.int64]:
    """top / bottom rounded to the nearest integer, ties to the even one."""
    whole = top // bottom
    rest = 2 * (top - whole * bottom)
    up = (rest > bottom) | ((rest == bottom) & (whole % 2 == 1))
    found: NDArray[np.int64] = (whole + up).astype(np.int64)
    return found
