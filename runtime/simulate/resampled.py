"""Counts over resamples of many experiments at once: one matrix of how often each unit is drawn, one product.

The draws are those of `statistics.resampling.count_matrix`, so an experiment gets the p-value that the decision
would give it, to the bit. Sums of integers below 2^24 are exact in float32 in whatever order they are added, and
below 2^53 in float64; counts of the studentized bootstrap that float32 cannot settle are settled in integers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from epc.runtime.statistics.resampling import count_matrix

BLOCK: Final = 1 << 20
"""Resampled sums that a thread holds at once. No result depends on it."""
TILE: Final = 1 << 11
"""Resamples whose sums go through several steps while they lie in a core's cache."""
WORKERS: Final = min(4, os.cpu_count() or 1)
"""Threads. They share out blocks; a BLAS with threads of its own gets in their way: `epc simulate` gives it one."""
SINGLE: Final = 1 << 24
DOUBLE: Final = 1 << 53
"""Integers below are exact in float32 and in float64."""
EXACT_PRODUCTS: Final = isqrt(isqrt(DOUBLE // 4))
"""Below it, n x the largest difference leaves every product of the studentized comparison exact in float64."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Resample:
    """How often each of n units is drawn in each of B resamples."""

    counts: NDArray[np.float32]
    """(n, B)."""

    @classmethod
    def of(cls, seed: int, units: int, resamples: int) -> Resample:
        found = np.empty((units, resamples), dtype=np.float32)
        start = 0
        for block in count_matrix(seed, units, resamples):
            found[:, start : start + len(block)] = block.T
            start += len(block)
        return cls(counts=found)

    @property
    def units(self) -> int:
        return int(self.counts.shape[0])

    @property
    def resamples(self) -> int:
        return int(self.counts.shape[1])

    @cached_property
    def fewest(self) -> int:
        """Distinct units in the resample that has the fewest."""
        return int(np.count_nonzero(self.counts, axis=0).min())

    @cached_property
    def double(self) -> Floats:
        return self.counts.astype(np.float64)

    def by_block(self, experiments: int, work: Callable[[slice], None], step: int | None = None) -> None:
        """Do blocks of experiments, several at a time. A block writes to its own rows, so no digit depends on it."""
        step = step or max(1, BLOCK // self.resamples)
        starts = range(0, experiments, step)
        blocks = [slice(start, min(start + step, experiments)) for start in starts]
        if len(blocks) < 2:
            for block in blocks:
                work(block)
            return
        with ThreadPoolExecutor(min(WORKERS, len(blocks))) as pool:
            list(pool.map(work, blocks))


def counted(flags: NDArray[np.bool_]) -> Ints:
    """How many are true in each row; quicker than a sum over the axis."""
    return np.fromiter((np.count_nonzero(row) for row in flags), dtype=np.int64, count=len(flags))


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Of each experiment: resamples at or beyond what is tested, on either side, and order statistics."""

    at_least: Ints
    at_most: Ints
    low: dict[int, Floats]
    """k -> the k-th smallest resampled value."""
    high: dict[int, Floats]
    """k -> the k-th largest."""

    @classmethod
    def empty(cls, experiments: int, low: set[int], high: set[int]) -> Tally:
        return cls(
            at_least=np.zeros(experiments, dtype=np.int64), at_most=np.zeros(experiments, dtype=np.int64),
            low={k: np.empty(experiments) for k in low}, high={k: np.empty(experiments) for k in high},
        )  # fmt: skip

    def order(self, rows: slice | Ints, largest: NDArray[Any], smallest: NDArray[Any] | None = None) -> None:
        """Take the order statistics of resampled values (rows, B); those from the top from `largest`."""
        smallest = largest if smallest is None else smallest
        width = largest.shape[1]
        for values, found, places in (
            (smallest, self.low, {k: k - 1 for k in self.low}),
            (largest, self.high, {k: width - k for k in self.high}),
        ):
            if places:
                ordered = np.partition(values, sorted(set(places.values())), axis=1)
                for k, place in places.items():
                    found[k][rows] = ordered[:, place]


def sums_tally(resample: Resample, x: Ints, against: Ints, low: set[int], high: set[int]) -> Tally:
    """Resampled sums of each row of x (E, n) counted against a number of that row, with their order statistics.

    n x the largest |x|, and what they are counted against, are below 2^53.
    """
    found = Tally.empty(len(x), low, high)
    single = _single(resample, x, against)
    for rows, kind in ((np.flatnonzero(single), np.float32), (np.flatnonzero(~single), np.float64)):
        counts: NDArray[Any] = resample.counts if kind is np.float32 else resample.double

        def work(block: slice, rows: Ints = rows, kind: Any = kind, counts: NDArray[Any] = counts) -> None:
            mine = rows[block]
            sums = x[mine].astype(kind) @ counts
            limit = against[mine].astype(kind)[:, None]
            found.at_least[mine] = counted(sums >= limit)
            found.at_most[mine] = counted(sums <= limit)
            found.order(mine, sums)

        resample.by_block(len(rows), work)
    return found


def _single(resample: Resample, x: Ints, against: Ints) -> NDArray[np.bool_]:
    """Experiments whose sums are exact in float32."""
    largest = resample.units * np.abs(x).max(axis=1)
    found: NDArray[np.bool_] = np.maximum(largest, np.abs(against)) < SINGLE
    return found


def may_stand_still(resample: Resample, x: Ints) -> NDArray[np.bool_]:
    """Whether some resample of a row may draw one value only."""
    lag = resample.fewest - 1
    ordered = np.sort(x, axis=1)
    found: NDArray[np.bool_] = (ordered[:, lag:] == ordered[:, : ordered.shape[1] - lag]).any(axis=1)
    return found


def exact_products(x: Ints) -> NDArray[np.bool_]:
    """Rows for which `coarse_t_tally` is exact."""
    found: NDArray[np.bool_] = x.shape[1] * np.abs(x).max(axis=1) < EXACT_PRODUCTS
    return found


def coarse_t_tally(resample: Resample, x: Ints, low: set[int], high: set[int]) -> Tally:
    """t* counted against t, on lattices so coarse that every product is exact; see `exact_products`.

    A resample without spread counts as extreme on either side. Order statistics are those of t*.
    """
    found = Tally.empty(len(x), low, high)
    n = resample.units
    total = x.sum(axis=1)
    scatter = n * (x * x).sum(axis=1) - total**2

    def work(rows: slice) -> None:
        mine = x[rows].astype(np.float64)
        shifted = mine @ resample.double
        spread = (mine * mine) @ resample.double
        spread *= n
        spread -= shifted * shifted
        shifted -= total[rows, None]
        still = spread == 0
        left = np.abs(shifted)
        left *= shifted
        left *= scatter[rows, None]
        right = spread * (total * np.abs(total))[rows, None]
        any_still = bool(still.any())
        found.at_least[rows] = counted((left >= right) | still if any_still else left >= right)
        found.at_most[rows] = counted((left <= right) | still if any_still else left <= right)
        if low or high:
            t = shifted / np.sqrt(np.where(still, 1.0, spread))
            found.order(rows, np.where(still, np.inf, t), np.where(still, -np.inf, t))

    resample.by_block(len(x), work, max(1, BLOCK // (4 * resample.resamples)))
    return found


def fine_t_tally(resample: Resample, x: Ints, low: set[int], high: set[int]) -> Tally:
    """t* counted against t where no resample stands still and x is too fine for exact products.

    With c = (x - mean) / sd, sd with n in its denominator, u = sum of c, q = sum of c^2 over a resample and
    h = mean / sd, t* >= t is (1 + h^2) u |u| >= h |h| n q. Where the two sides differ by more than their rounding error
    in float32, at most `bound` x q, that is certain; elsewhere t* and t are compared as integers. Order statistics of
    t* are of float64 sums.
    """
    found = Tally.empty(len(x), low, high)
    n = resample.units
    values = x.astype(np.float64)
    values -= values.mean(axis=1, keepdims=True)
    values /= np.sqrt((values * values).mean(axis=1, keepdims=True))
    h = x.mean(axis=1) / np.sqrt(x.astype(np.float64).var(axis=1))
    slack = (n + 4) * 2.0**-23  # twice the relative error of a float32 sum of n products
    bound = n * (2 * slack * np.abs(h) * np.sqrt(1 + h * h) + slack**2 * (1 + h * h) + 2 * slack * h * h)
    steep = np.sqrt(1 + h * h)[:, None]
    flat = (h * np.abs(h) * n)[:, None]
    highest, lowest = (flat + bound[:, None]).astype(np.float32), (flat - bound[:, None]).astype(np.float32)

    def work(rows: slice) -> None:
        shape = (rows.stop - rows.start, resample.resamples)
        above, not_below = np.empty(shape, dtype=bool), np.empty(shape, dtype=bool)
        single, squares = (values[rows] * steep[rows]).astype(np.float32), (values[rows] ** 2).astype(np.float32)
        for start in range(0, resample.resamples, TILE):
            tile = slice(start, start + TILE)
            u, q = single @ resample.counts[:, tile], squares @ resample.counts[:, tile]
            u *= np.abs(u)
            np.greater(u, q * highest[rows], out=above[:, tile])
            q *= lowest[rows]
            np.greater_equal(u, q, out=not_below[:, tile])
        certain, possible = counted(above), counted(not_below)
        found.at_least[rows] = certain
        found.at_most[rows] = resample.resamples - possible
        for row in np.flatnonzero(certain != possible):
            e = rows.start + int(row)
            for b in np.flatnonzero(above[row] != not_below[row]):
                sign = _t_sign(x[e], resample.counts[:, b])
                found.at_least[e] += sign >= 0
                found.at_most[e] += sign <= 0
        if low or high:
            v, w = values[rows] @ resample.double, values[rows] ** 2 @ resample.double
            found.order(rows, v / np.sqrt(n * w - v * v))

    resample.by_block(len(x), work)
    return found


def _t_sign(x: Ints, counts: NDArray[np.float32]) -> int:
    """Sign of t* - t, in integers."""
    drawn = [int(c) for c in counts]
    data = [int(value) for value in x]
    n, total = len(data), sum(data)
    scatter = n * sum(value * value for value in data) - total**2
    sums = sum(c * value for c, value in zip(drawn, data, strict=True))
    spread = n * sum(c * value * value for c, value in zip(drawn, data, strict=True)) - sums**2
    shifted = sums - total
    difference = shifted * abs(shifted) * scatter - spread * total * abs(total)
    return (difference > 0) - (difference < 0)
