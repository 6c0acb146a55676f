"""Fisher's exact test of a 2 x 2 table, two-sided, in integers.

With both margins fixed, k of `first` has weight C(n1, k) C(n2, m - k); p is the weight of all tables that
are at most as probable as the observed one, over C(n1 + n2, m). Weights are integers, so ties are ties.
R. A. Fisher, Statistical Methods for Research Workers, 5th edition, 1934, section 21.02; the two-sided p is
that of minimum likelihood (J. O. Irwin, Metron 12, 1935).
"""

from __future__ import annotations

from fractions import Fraction
from math import comb
from typing import Final

EXACT_TO: Final = 2_000
"""Hits in both rows up to which weights are exact; beyond, they have hundreds of thousands of digits."""
BITS: Final = 512
TIED: Final = 1 << 64
"""Weights on the fixed point are alike where they differ by less than one part in this: far more than rounding adds up to."""


def fisher_two_sided(first: int, n1: int, second: int, n2: int) -> Fraction:
    """p of `first` of n1 against `second` of n2. Raises ValueError for counts outside 0..n.

    Exact up to EXACT_TO hits together. Beyond, weights are relative to that of the likeliest table, on a fixed point
    of BITS bits, and tables below it count nothing: p is right to a hundred digits, and the same on every machine.
    """
    if not (0 <= first <= n1 and 0 <= second <= n2):
        raise ValueError(f"{first} of {n1} and {second} of {n2} are no counts")
    m = first + second
    low, high = max(0, m - n2), min(n1, m)
    if min(m, n1 + n2 - m) > EXACT_TO:
        return _fixed_point(first, n1, n2, m, low, high)
    weight = comb(n1, low) * comb(n2, m - low)
    weights = [weight]
    for k in range(low, high):  # the ratio of neighbours; each division is exact
        weight = weight * (n1 - k) * (m - k) // ((k + 1) * (n2 - m + k + 1))
        weights.append(weight)
    observed = weights[first - low]
    return Fraction(sum(w for w in weights if w <= observed), sum(weights))


def _fixed_point(first: int, n1: int, n2: int, m: int, low: int, high: int) -> Fraction:
    mode = min(max((n1 + 1) * (m + 1) // (n1 + n2 + 2), low), high)
    weights = {mode: 1 << BITS}
    for k in range(mode, high):
        weights[k + 1] = weights[k] * (n1 - k) * (m - k) // ((k + 1) * (n2 - m + k + 1))
        if not weights[k + 1]:
            break
    for k in range(mode, low, -1):
        weights[k - 1] = weights[k] * k * (n2 - m + k) // ((n1 - k + 1) * (m - k + 1))
        if not weights[k - 1]:
            break
    observed = weights.get(first, 0)
    limit = observed + observed // TIED
    return Fraction(sum(w for w in weights.values() if w <= limit), sum(weights.values()))
