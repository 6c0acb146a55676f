"""Resampled sums of many units, by how often each *value* is drawn instead of each unit.

Poisson counts of independent groups, given their total N, are a multinomial count of N draws. So a resample of n
units is drawn in two steps: each group of m units with the same values gets a Poisson count of mean m f, with
f = 1 - 1 / sqrt(n); a resample whose counts add up to more than n is drawn anew (about one in six); and the
n - N draws that are left, some sqrt(n), fall on any of the units, one by one. The counts are those of n draws from n
units, exactly, whatever N is: given N the first N draws are as if drawn one by one. (L. Devroye, Non-Uniform
Random Variate Generation, 1986, section XI.1, has the multinomial's relation to the Poisson law.)

Units whose values fewer than GROUP_UNITS share form one group together, whose draws fall on them one by one.

Words: group g draws from word (g + 1) 2^64 of the seed's stream on, groups in the order of their sizes, the largest
first and ties in the order of their first units, the group of single units last; draws that fall on units
one by one use halves of words, a half a draw, a resample beginning with a whole word: those of the single units
from word 2^96 on, those that are left from the beginning of the stream.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from epc.runtime.statistics.poisson import Poisson
from epc.runtime.statistics.resampling import CHUNK_CELLS, Limbs, halves_of

GROUP_UNITS: Final = 32
"""Below it, drawing the units one by one costs no more than a Poisson count."""

Floats = NDArray[np.float64]


def grouped_sums(
    seed: int, resamples: int, columns: Sequence[tuple[int, ...]], *, chunk_draws: int = CHUNK_CELLS
) -> list[NDArray[Any]]:
    """For each column x of n integers, its exact sum over each of B resamples of the n units.

    `chunk_draws` bounds memory and changes no result.
    """
    units = list(zip(*columns, strict=True)) if len(columns) > 1 else columns[0]
    n = len(units)
    sizes: Counter[Any] = Counter(units)
    groups = [(value, size) for value, size in sizes.most_common() if size >= GROUP_UNITS]
    limbs = Limbs(columns, draws=n)
    left = np.full(resamples, n)
    sums = np.zeros((len(limbs.values), resamples))
    if groups:
        first = [units.index(value) for value, _ in groups]
        values = np.array([column[first] for column in limbs.values])
        rare = {value for value, size in sizes.items() if size < GROUP_UNITS}
        single = [i for i, value in enumerate(units) if value in rare] if rare else []
        on_single = _counted(seed, n, [size for _, size in groups], len(single), values, left, sums)
        if single:
            _add_draws(sums, [column[single] for column in limbs.values], on_single, seed, 1 << 96, chunk_draws)
    _add_draws(sums, limbs.values, left, seed, 0, chunk_draws)
    return limbs.whole(sums)


def _counted(
    seed: int, n: int, sizes: Sequence[int], single: int, values: Floats, left: NDArray[np.int64], sums: Floats
) -> NDArray[np.int64]:
    """Draw the groups: take their draws from `left`, add their values to `sums`, return the draws on single units."""
    fraction = 1 - 1 / math.sqrt(n)
    laws = [Poisson(size * fraction) for size in (*sizes, *([single] if single else []))]
    generators = [np.random.PCG64(seed).advance((g + 1) << 64) for g in range(len(laws))]
    on_single = np.zeros(len(left), dtype=np.int64)
    pending = np.arange(len(left))
    while len(pending):
        drawn, part = np.zeros(len(pending)), np.zeros((len(values), len(pending)))
        for g, (law, generator) in enumerate(zip(laws, generators, strict=True)):
            count = law.drawn(generator.random_raw(len(pending)))
            drawn += count
            if g < len(sizes):
                for total, value in zip(part, values[:, g], strict=True):
                    total += count * value
            else:
                on_single[pending] = count
        kept = drawn <= n
        sums[:, pending[kept]] = part[:, kept]
        left[pending[kept]] -= drawn[kept].astype(np.int64)
        pending = pending[~kept]
    return on_single


def _add_draws(
    sums: Floats, columns: Sequence[Floats], draws: NDArray[np.int64], seed: int, skip: int, chunk_draws: int
) -> None:
    """Add to resample b the values of draws[b] units, each equally likely."""
    generator = np.random.PCG64(seed)
    generator.advance(skip)
    units = len(columns[0])
    tables = [np.append(values, 0.0) for values in columns]  # the last is for the half that an odd number leaves over
    widths = (draws + 1) // 2
    ends = np.cumsum(widths)
    start = 0
    while start < len(draws):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + chunk_draws // 2, side="right")))
        words = generator.random_raw(int(ends[stop - 1]) - before)
        index = halves_of(words[None])[0]
        index *= np.uint64(units)
        index >>= np.uint64(32)
        last = 2 * (ends[start:stop] - before) - 1
        index[last[draws[start:stop] % 2 == 1]] = units
        begins = 2 * (ends[start:stop] - widths[start:stop] - before)
        some = widths[start:stop] > 0
        for total, table in zip(sums, tables, strict=True):
            total[start:stop][some] += np.add.reduceat(table.take(index.view(np.int64)), begins[some])
        start = stop
