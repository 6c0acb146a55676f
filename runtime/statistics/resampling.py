"""Bootstrap counts from raw PCG64 words, and exact weighted sums of integers over them.

A 64-bit word gives two 32-bit halves, the low one first. Above PAIRED_UNITS units a half h gives one draw, the index
floor(h n / 2^32) (multiply and shift: D. Lemire, Fast random integer generation in an interval, ACM TOMACS 29, 2019).
Up to PAIRED_UNITS it gives two, i and then j, by multiplying on with what the first product leaves below 2^32:

    i = floor(h n / 2^32),    j = floor(((h n) mod 2^32) n / 2^32),    so    i n + j = floor(h n^2 / 2^32)

(N. Brackett-Rozinsky and D. Lemire, Batched Ranged Random Integer Generation, Software: Practice and Experience, 2024,
doi 10.1002/spe.3369). A resample takes the first n draws of its ceil(n / 4) words, above PAIRED_UNITS of its
ceil(n / 2); what is left of the last word is not used. Resample b always owns the same words. NumPy guarantees the raw
stream of a bit generator and no higher-level stream (NEP 19), hence only the former is used.

Neither has the rejection step that makes draws exactly uniform. One draw a half: an index is off by a relative error
below n / 2^32. Two draws: each pair (i, j) comes from floor(c) or ceil(c) of the 2^32 halves, c = 2^32 / n^2, so it is
off by less than n^2 / 2^32, at most 4e-6, and not at all where n is a power of two. By Pinsker's inequality over the
(n + 1) / 2 pairs of a resample no probability, hence no expected p, moves by more than sqrt(n + 1) n^2 / 2^34: 1e-6 for
48 units, 1.1e-5 for 127, less than 1/30 of the Monte-Carlo standard error of p = .025 from 200,000 resamples, 3.5e-4.
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
LOOKUP_CELLS: Final = 1 << 16
"""Pairs of draws that are looked up at once; half a megabyte. No result depends on it."""
VECTOR_CELLS: Final = 9_000
PRODUCT_CELLS: Final = 1 << 18
"""Multiplications in one call of the matrix-vector and of the matrix product: few enough that OpenBLAS does not
share them out to threads, which on small matrices and a busy machine costs more than it saves."""
FLOAT_EXACT: Final = 53
"""Integers below 2^53 in magnitude, and sums that stay below it, are exact in float64 in any order."""
PAIRED_UNITS: Final = 128
"""Up to here half a word gives two draws, looked up together in a table of at most 128 x 128 sums."""

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
    each = 2 if units <= PAIRED_UNITS else 1  # draws of a half
    used = -(-units // each)  # halves
    width = -(-used // 2)
    n = np.uint64(units)
    for block in words(seed, resamples, width, chunk_rows=chunk_rows or max(1, CHUNK_CELLS // (2 * each * width))):
        height = len(block)
        index = np.empty((each, 2, height, width), dtype=np.uint64)  # low halves, then high ones: counts have no order
        np.bitwise_and(block, _LOW, out=index[0, 0])
        np.right_shift(block, _HALF, out=index[0, 1])
        index[0] *= n
        if each == 2:
            np.bitwise_and(index[0], _LOW, out=index[1])
            index[1] *= n
        index >>= _HALF
        index += np.arange(height, dtype=np.uint64)[:, None] * n
        unused = height * units
        if used % 2:
            index[:, 1, :, -1] = unused
        if units < each * used:
            index[1, 1 - used % 2, :, -1] = unused  # the second draw of the last half in use
        counts = np.bincount(index.view(np.int64).reshape(-1), minlength=unused)
        yield counts[:unused].reshape(height, units).astype(np.float64)


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
    """The sums of `weighted_sums` over `count_matrix`, without counting: one or two columns, at most PAIRED_UNITS units.

    The two draws of half h are one index, floor(h n^2 / 2^32), into a table of n^2 sums of two values. Behind them
    it has the n single values, for the last draw of an odd n, and a 0 for the half that is not used.
    """
    limbs = Limbs(columns, len(columns[0]))
    n = len(columns[0])
    used = (n + 1) // 2
    width = (used + 1) // 2
    tables = [np.concatenate([np.add.outer(values, values).ravel(), values, [0.0]]) for values in limbs.values]
    ones = np.ones(2 * width)
    sums = np.empty((len(tables), resamples))
    step = max(1, VECTOR_CELLS // (2 * width))
    height = min(resamples, chunk_rows or max(1, LOOKUP_CELLS // (2 * width * step)) * step)
    room, drawn = np.empty((height, 2 * width), dtype=np.uint64), np.empty((height, 2 * width))
    start = 0
    for block in words(seed, resamples, width, chunk_rows=height):
        halves = block.astype("<u8", copy=False).view("<u4")  # low half first on every machine
        index, values = room[: len(block)], drawn[: len(block)]
        np.multiply(halves, np.uint64(n * n), out=index)
        index >>= _HALF
        if n % 2:
            np.multiply(halves[:, used - 1], np.uint64(n), out=index[:, used - 1])
            index[:, used - 1] >>= _HALF
            index[:, used - 1] += np.uint64(n * n)
        index[:, used:] = n * n + n
        whole = len(block) - len(block) % step
        for total, table in zip(sums, tables, strict=True):
            table.take(index.view(np.int64), out=values, mode="clip")  # no index is out of range; "clip" saves a copy
            rows = total[start : start + len(block)]
            np.matmul(values[:whole].reshape(-1, step, 2 * width), ones, out=rows[:whole].reshape(-1, step))
            np.matmul(values[whole:], ones, out=rows[whole:])
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
