"""Poisson variates from raw words, the same on every machine: inversion of a table.

NumPy's own may change between versions (NEP 19) and rest on the platform's logarithm. Here the probabilities come
from their recurrence, p(k + 1) = p(k) mu / (k + 1), summed in order and divided by their sum: operations whose
result IEEE 754 fixes. They are right to about 1e-14, and cut off where they are below 1e-22 of the largest.

L. Devroye, Non-Uniform Random Variate Generation, 1986, sections III.2 (inversion, with a guide table) and X.3.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

_GUIDE_BITS: Final = 11
_TOP, _LOW_BITS = np.uint64(64 - _GUIDE_BITS), np.uint64(11)


class Poisson:
    """The law of one mean."""

    def __init__(self, mean: float) -> None:
        mode, reach = math.floor(mean), math.floor(10 * math.sqrt(mean) + 25)
        self._low = max(0, mode - reach)
        up = np.cumprod(mean / np.arange(mode + 1, mode + reach + 1))
        down = np.cumprod(np.arange(mode, self._low, -1) / mean)
        total = np.cumsum(np.concatenate([down[::-1], [1.0], up]))
        reached = (total / total[-1] * 2.0**53).astype(np.uint64)
        # P(X <= k) in units of 2^-64; the last one is at the end, whatever rounding does.
        self._reached = np.minimum(reached, np.uint64(2**53 - 1)) << _LOW_BITS
        self._reached[-1] = np.uint64(2**64 - 1)
        self._guide = np.searchsorted(self._reached, np.arange(1 << _GUIDE_BITS, dtype=np.uint64) << _TOP, side="right")

    def drawn(self, words: NDArray[np.uint64]) -> NDArray[np.float64]:
        """For each word w the smallest k with 2^64 P(X <= k) > w."""
        k = self._guide.take((words >> _TOP).view(np.int64))
        (further,) = np.nonzero(self._reached.take(k) <= words)
        k[further] = np.searchsorted(self._reached, words[further], side="right")
        found = k.astype(np.float64)
        found += self._low
        return found
