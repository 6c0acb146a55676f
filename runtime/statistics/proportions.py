"""Exact binomial tails at one half, and the level at which a bound meets a value: shared by tests of rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

from epc.runtime.statistics.estimate import exact, significant

EXACT_TRIALS = 10_000
_FAR = 38.0
"""A normal quantile whose tail is below the smallest positive float64 of full precision."""


def at_most(k: int, n: int) -> Fraction:
    """P(X <= k) of X ~ Binomial(n, 1/2): exact up to EXACT_TRIALS, to 12 significant digits beyond."""
    if n > EXACT_TRIALS:
        from scipy.special import bdtr

        return exact(significant(float(bdtr(k, n, 0.5)))) if k >= 0 else Fraction(0)
    if 2 * k >= n:
        return 1 - at_most(n - k - 1, n) if k < n else Fraction(1)
    total = term = 1 if k >= 0 else 0
    for i in range(1, k + 1):
        term = term * (n - i + 1) // i
        total += term
    return Fraction(total, 2**n)


def meeting_level(lower: Callable[[float], float], value: float = 0.0) -> float:
    """The tail mass of the normal quantile z > 0 at which `lower(z)`, falling in z, passes `value`."""
    inside, outside = 0.0, _FAR  # lower(inside) > value >= lower(outside)
    if lower(outside) > value:
        return math.erfc(outside / math.sqrt(2)) / 2
    while (middle := (inside + outside) / 2) not in (inside, outside):
        if lower(middle) > value:
            inside = middle
        else:
            outside = middle
    return math.erfc(outside / math.sqrt(2)) / 2
