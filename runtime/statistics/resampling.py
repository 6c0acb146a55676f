"""Bootstrap counts from raw PCG64 words, and exact weighted sums of integers over them.

A resample of n units is drawn from ceil(n / 2) 64-bit words, each giving two 32-bit halves, low half
first; half h becomes the index floor(h n / 2^32) (multiply and shift: D. Lemire, Fast random integer
generation in an interval, ACM TOMACS 29, 2019, without its rejection step, so an index is off
uniform by less than n / 2^32). Resample b always owns the same words. NumPy guarantees the raw
stream of a bit generator and no higher-level stream (NEP 19), hence only the former is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from epc.runtime.statistics.estimate import rank

CHUNK_CELLS: Final = 1 << 16
"""Counts held at once: they fit a core's cache. No result depends on it."""
LOOKUP_WORDS: Final = 1 << 17
"""Words held at once where draws are looked up; one megabyte."""
VECTOR_CELLS: Final = 9_000
PRODUCT_CELLS: Final = 1 << 18
"""Multiplications in one call of the matrix-vector and of the matrix product: few enough that OpenBLAS does not
share them out to threads, which on small matrices and a busy machine costs more than it saves."""
FLOAT_EXACT: Final = 53
"""Integers below 2^53 in magnitude, and sums that stay below it, are exact in float64 in any order."""
PAIRED_UNITS: Final = 128
"""Up to here a word's two draws are looked up together, in a table of at most 128 x 128 sums."""

_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


def words(
    seed: int, rows: int, width: int, *, chunk_rows: int | None = None, skip: int = 0
) -> Iterator[NDArray[np.uint64]]:
    """Raw PCG64 words as (chunk, width) blocks, `rows` rows in all, after the first `skip` words."""
    generator = np.random.PCG64(seed)
    if skip:
        generator.advance(skip)
    chunk = chunk_rows or max(1, CHUNK_CELLS // (2 * width))
    for start in range(0, rows, chunk):
        height = min(chunk, rows - start)
        yield generator.random_raw(height * width).reshape(height, width)


def halves_of(block: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each word as its low and its high half: (rows, width) to (rows, 2 width)."""
    height, width = block.shape
    halves = np.empty((height, width, 2), dtype=np.uint64)
    np.bitwise_and(block, _LOW, out=halves[:, :, 0])
    np.right_shift(block, _HALF, out=halves[:, :, 1])
    return halves.reshape(height, 2 * width)


def count_matrix(
    seed: int, units: int, resamples: int, *, chunk_rows: int | None = None
) -> Iterator[NDArray[np.float64]]:
    """How often each unit is drawn: (chunk, units) blocks whose rows sum to `units`."""
    for block in words(seed, resamples, (units + 1) // 2, chunk_rows=chunk_rows):
        height, width = block.shape
        index = np.empty((2, height, width), dtype=np.uint64)  # low halves, then high ones: counts have no order
        np.bitwise_and(block, _LOW, out=index[0])
        np.right_shift(block, _HALF, out=index[1])
        index *= np.uint64(units)
        index >>= _HALF
        index += np.arange(height, dtype=np.uint64)[:, None] * np.uint64(units)
        if units % 2:
            index[1, :, -1] = height * units  # the half that is left over
        counts = np.bincount(index.view(np.int64).reshape(-1), minlength=height * units)
        yield counts[: height * units].reshape(height, units).astype(np.float64)


def sign_matrix(
    seed: int, units: int, resamples: int, *, chunk_rows: int | None = None
) -> Iterator[NDArray[np.float64]]:
    """Which units are flipped: (chunk, units) blocks of 0 and 1, bit i % 64 of word i // 64 for unit i."""
    place = np.arange(units)
    for block in words(seed, resamples, (units + 63) // 64, chunk_rows=chunk_rows):
        bits = (block[:, place // 64] >> (place % 64).astype(np.uint64)) & np.uint64(1)
        yield bits.astype(np.float64)


class Limbs:
    """Columns of integers as float64 columns whose sums over `draws` draws, with repetition, are exact.

    A column whose sums may leave 2^53 is split into signed limbs that do not.
    """

    def __init__(self, columns: Sequence[Sequence[int]], draws: int) -> None:
        self.bits = FLOAT_EXACT - draws.bit_length()  # so many values below 2^bits sum to less than 2^53
        self.values: list[NDArray[np.float64]] = []
        self.counts: list[int] = []
        for column in columns:
            size = max(max(column).bit_length(), min(column).bit_length())
            parts = max(1, -(-size // self.bits))
            self.counts.append(parts)
            if parts == 1:
                self.values.append(np.array(column, dtype=np.float64))
                continue
            for part in range(parts):
                low = [(abs(x) >> (part * self.bits)) & ((1 << self.bits) - 1) for x in column]
                signed = [-y if x < 0 else y for x, y in zip(column, low, strict=True)]
                self.values.append(np.array(signed, dtype=np.float64))

    def whole(self, sums: NDArray[np.float64]) -> list[NDArray[Any]]:
        """The columns' sums from (limbs, rows) those of their limbs: int64, or Python integers (dtype object) of several limbs."""
        found: list[NDArray[Any]] = []
        first = 0
        for parts in self.counts:
            total: NDArray[Any] = sums[first].astype(np.int64)
            if parts > 1:
                total = total.astype(object)
            for part in range(1, parts):
                total = total + sums[first + part].astype(np.int64).astype(object) * (1 << (part * self.bits))
            found.append(total)
            first += parts
        return found


def weighted_sums(weights: Iterator[NDArray[np.float64]], columns: Sequence[Sequence[int]]) -> list[NDArray[Any]]:
    """For each column x of n integers, the exact sums over units of weight times x, one per row.

    Weights are integers from 0 to n with row sums of at most n. All columns share one pass over the
    weights and one matrix product.
    """
    limbs = Limbs(columns, len(columns[0]))
    matrix = np.stack(limbs.values, axis=1)
    return limbs.whole(np.concatenate([_product(block, matrix).T for block in weights], axis=1))


def _product(block: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    n, columns = matrix.shape
    step = max(1, (VECTOR_CELLS if columns == 1 else PRODUCT_CELLS) // (n * columns))
    product = np.empty((len(block), columns))
    for start in range(0, len(block), step):
        np.matmul(block[start : start + step], matrix, out=product[start : start + step])
    return product


def looked_up_sums(
    seed: int, resamples: int, columns: Sequence[Sequence[int]], *, chunk_rows: int | None = None
) -> list[NDArray[Any]]:
    """The sums of `weighted_sums` over `count_matrix`, without counting: for one or two columns of few units.

    The two draws of a word, i from its low half and j from its high one, are one index into a table of sums of
    two values: for n up to 2^k, the high k bits of (high half) n 2^(32 - k) are j, those of (low half) n 2^(32 - k)
    are i.
    """
    limbs = Limbs(columns, len(columns[0]))
    n, width = len(columns[0]), (len(columns[0]) + 1) // 2
    bits = max(1, (n - 1).bit_length())
    tables = []
    for values in limbs.values:
        table = np.zeros((1 << bits, 1 << bits))
        table[:n, :n] = values[:, None] + values
        if n % 2:
            table[n, :n] = values  # what the draw that an odd n leaves over is sent to
        tables.append(table.reshape(-1))
    for_high, for_low = np.uint64(n << (32 - bits)), np.uint64(n << (32 - 2 * bits))
    top, shift, ones = np.uint64((1 << bits) - 1 << 64 - bits), np.uint64(64 - 2 * bits), np.ones(width)
    sums = np.empty((len(tables), resamples))
    step = max(1, VECTOR_CELLS // width)
    start = 0
    height = min(resamples, chunk_rows or max(1, LOOKUP_WORDS // (step * width)) * step)
    room = np.empty((height, width), dtype=np.uint64)
    for block in words(seed, resamples, width, chunk_rows=height):
        index = np.right_shift(block, _HALF, out=room[: len(block)])
        index *= for_high
        index &= top
        if n % 2:
            index[:, -1] = n << (64 - bits)
        block &= _LOW
        block *= for_low
        index |= block
        index >>= shift
        drawn = block.view(np.float64)
        for total, flat in zip(sums, tables, strict=True):
            flat.take(index.view(np.int64), out=drawn, mode="clip")  # no index is out of range; "clip" saves a copy
            whole = len(block) - len(block) % step
            rows = total[start : start + len(block)]
            np.matmul(drawn[:whole].reshape(-1, step, width), ones, out=rows[:whole].reshape(-1, step))
            np.matmul(drawn[whole:], ones, out=rows[whole:])
        start += len(block)
    return limbs.whole(sums)


def as_float(values: NDArray[Any]) -> NDArray[np.float64]:
    """Each integer correctly rounded to float64."""
    return values.astype(np.float64)


class Quantiles:
    """Order statistics of B values at floor((B + 1) tail) from either end, over `scale`; an end where that is 0."""

    def __init__(self, values: NDArray[np.float64], ends: tuple[float, float], scale: float = 1.0) -> None:
        self._values, self._scale = values, scale
        self._found: dict[int, tuple[float, float]] = {0: ends}

    def low(self, tail: Fraction) -> float:
        return self.at(rank(len(self._values), tail))[0]

    def high(self, tail: Fraction) -> float:
        return self.at(rank(len(self._values), tail))[1]

    def at(self, position: int) -> tuple[float, float]:
        """The position-th smallest and the position-th largest value."""
        if position not in self._found:
            first, last = position - 1, len(self._values) - position
            ordered = np.partition(self._values, (first, last))
            self._found[position] = float(ordered[first]) / self._scale, float(ordered[last]) / self._scale
        return self._found[position]
