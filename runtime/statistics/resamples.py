"""Resampled sums for every bootstrap of a decision, by whichever way is quickest; digits never depend on it.

- At most PAIRED_UNITS units, one or two columns: two draws are looked up at once (`looked_up_sums`).
- More columns, or a count matrix that is held: one matrix product (`count_matrix`, `weighted_sums`).
- From GROUPED_FROM units on: how often each value is drawn (`grouped_sums`). These are other draws, from
  the same seed, than one by one would be, so the number of units decides and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from epc.runtime.statistics.grouped import grouped_sums
from epc.runtime.statistics.resampling import PAIRED_UNITS, count_matrix, looked_up_sums, weighted_sums

GROUPED_FROM: Final = 1024
HELD_CELLS: Final = 1 << 22
"""Largest count matrix that is held, in cells of 2 bytes."""
_ROWS: Final = 1 << 10


class Resamples:
    """The draws that the analyses of one decision share.

    It is made where a decision begins and dropped where it ends. The count matrix of a seed, a number of
    resamples and a number of units is drawn once, columns given together share one matrix product, and a
    column that comes again (another definition of p, a repeated analysis) costs nothing. To spend one
    product on many contrasts, give `sums` all their columns before the contrasts are analysed.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[int, int, int], NDArray[np.uint16]] = {}
        self._sums: dict[tuple[int, int, tuple[int, ...]], NDArray[Any]] = {}

    def sums(self, seed: int, resamples: int, columns: Sequence[tuple[int, ...]]) -> list[NDArray[Any]]:
        """What `resampled_sums` gives."""
        n = len(columns[0])
        if n >= GROUPED_FROM or n * resamples > HELD_CELLS:
            return resampled_sums(seed, resamples, columns)
        missing = [column for column in dict.fromkeys(columns) if (seed, resamples, column) not in self._sums]
        if missing:
            for column, sums in zip(missing, weighted_sums(self._counts(seed, resamples, n), missing), strict=True):
                self._sums[seed, resamples, column] = sums
        return [self._sums[seed, resamples, column] for column in columns]

    def _counts(self, seed: int, resamples: int, n: int) -> Iterator[NDArray[np.float64]]:
        """`count_matrix`, drawn the first time and read the others."""
        held = self._held.get((seed, resamples, n))
        if held is not None:
            for start in range(0, resamples, _ROWS):
                yield held[start : start + _ROWS].astype(np.float64)
            return
        held, start = np.empty((resamples, n), dtype=np.uint16), 0
        for block in count_matrix(seed, n, resamples):
            held[start : start + len(block)] = block
            start += len(block)
            yield block
        self._held[seed, resamples, n] = held


def resampled_sums(
    seed: int,
    resamples: int,
    columns: Sequence[tuple[int, ...]],
    *,
    shared: Resamples | None = None,
    chunk_rows: int | None = None,
) -> list[NDArray[Any]]:
    """For each column of n integers, its exact sum over each of B resamples of the n units.

    Sums are int64, or Python integers (dtype object) where they are wider. All columns are of the same
    units in the same order. `shared` holds draws for other analyses; without it the draws are made for
    this call alone, and `chunk_rows` bounds memory.
    """
    if shared is not None:
        return shared.sums(seed, resamples, columns)
    n = len(columns[0])
    if n >= GROUPED_FROM:
        return grouped_sums(seed, resamples, columns)
    if n <= PAIRED_UNITS and len(columns) <= 2:
        return looked_up_sums(seed, resamples, columns, chunk_rows=chunk_rows)
    return weighted_sums(count_matrix(seed, n, resamples, chunk_rows=chunk_rows), columns)
