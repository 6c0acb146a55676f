"""Bootstrap counts from raw PCG64 words, and exact weighted sums of integers over them.

A resample of n units is drawn from ceil(n / 2) 64-bit words, each giving two 32-bit halves, low half
first; half h becomes the index floor(h n / 2^32) (multiply and shift: D. Lemire, Fast random integer
generation in an interval, ACM TOMACS 29, 2019, without its rejection step, so an index is off
uniform by less than n / 2^32). Resample b always owns the same words. NumPy guarantees the raw
stream of a bit generator and no higher-level stream (NEP 19), hence only the former is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK_CELLS = 1 << 16
"""Counts held at once: they fit a core's cache. No result depends on it."""
FLOAT_EXACT = 53
"""Integers below 2^53 in magnitude, and sums that stay below it, are exact in float64 in any order."""


def words(seed: int, rows: int, width: int, *, chunk_rows: int | None = None) -> Iterator[NDArray[np.uint64]]:
    """Raw PCG64 words as (chunk, width) blocks, `rows` rows in all."""
    generator = np.random.PCG64(seed)
    chunk = chunk_rows or max(1, CHUNK_CELLS // (2 * width))
    for start in range(0, rows, chunk):
        height = min(chunk, rows - start)
        yield generator.random_raw(height * width).reshape(height, width)


def count_matrix(
    seed: int, units: int, resamples: int, *, chunk_rows: int | None = None
) -> Iterator[NDArray[np.float64]]:
    """How often each unit is drawn: (chunk, units) blocks whose rows sum to `units`."""
    mask, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    for block in words(seed, resamples, (units + 1) // 2, chunk_rows=chunk_rows):
        height, width = block.shape
        halves = np.empty((height, 2 * width), dtype=np.uint64)
        halves[:, 0::2] = block & mask
        halves[:, 1::2] = block >> shift
        index = ((halves[:, :units] * np.uint64(units)) >> shift).astype(np.int64)
        index += np.arange(height, dtype=np.int64)[:, None] * units
        yield np.bincount(index.ravel(), minlength=height * units).reshape(height, units).astype(np.float64)


def sign_matrix(
    seed: int, units: int, resamples: int, *, chunk_rows: int | None = None
) -> Iterator[NDArray[np.float64]]:
    """Which units are flipped: (chunk, units) blocks of 0 and 1, bit i % 64 of word i // 64 for unit i."""
    place = np.arange(units)
    for block in words(seed, resamples, (units + 63) // 64, chunk_rows=chunk_rows):
        bits = (block[:, place // 64] >> (place % 64).astype(np.uint64)) & np.uint64(1)
        yield bits.astype(np.float64)


def weighted_sums(weights: Iterator[NDArray[np.float64]], columns: Sequence[Sequence[int]]) -> list[NDArray[Any]]:
    """For each column x of n integers, the exact sums over units of weight times x, one per row.

    Weights are integers from 0 to n with row sums of at most n. All columns share one pass over the
    weights and one matrix product. A column whose sums may leave 2^53 is split into signed limbs that
    do not, and its sums are Python integers (dtype object); otherwise they are int64.
    """
    n = len(columns[0])
    bits = FLOAT_EXACT - n.bit_length()  # n values below 2^bits sum to less than 2^53
    limbs: list[NDArray[np.float64]] = []
    counts: list[int] = []
    for column in columns:
        size = max(x.bit_length() for x in column)
        parts = max(1, -(-size // bits))
        counts.append(parts)
        for part in range(parts):
            low = [(abs(x) >> (part * bits)) & ((1 << bits) - 1) for x in column]
            limbs.append(np.array([-y if x < 0 else y for x, y in zip(column, low, strict=True)], dtype=np.float64))
    matrix = np.stack(limbs, axis=1)
    products = np.concatenate([block @ matrix for block in weights]).astype(np.int64)
    sums: list[NDArray[Any]] = []
    first = 0
    for parts in counts:
        if parts == 1:
            sums.append(products[:, first])
        else:
            whole = products[:, first].astype(object)
            for part in range(1, parts):
                whole = whole + products[:, first + part].astype(object) * (1 << (part * bits))
            sums.append(whole)
        first += parts
    return sums


def as_float(values: NDArray[Any]) -> NDArray[np.float64]:
    """Each integer correctly rounded to float64."""
    return values.astype(np.float64)


def order_statistic(values: NDArray[np.float64], position: int) -> float:
    """The position-th smallest value, counted from 1."""
    return float(np.partition(values, position - 1)[position - 1])
