"""Fisher's exact test of a 2 x 2 table, two-sided, in integers.

With both margins fixed, k of `first` has weight C(n1, k) C(n2, m - k); p is the weight of all tables that
are at most as probable as the observed one, over C(n1 + n2, m). Weights are integers, so ties are ties.
R. A. Fisher, Statistical Methods for Research Workers, 5th edition, 1934, section 21.02; the two-sided p is
that of minimum likelihood (J. O. Irwin, Metron 12, 1935).
"""

from __future__ import annotations

from fractions import Fraction
from math import comb


def fisher_two_sided(first: int, n1: int, second: int, n2: int) -> Fraction:
    """p of `first` of n1 against `second` of n2. Raises ValueError for counts outside 0..n."""
    if not (0 <= first <= n1 and 0 <= second <= n2):
        raise ValueError(f"{first} of {n1} and {second} of {n2} are no counts")
    m = first + second
    low, high = max(0, m - n2), min(n1, m)
    weight = comb(n1, low) * comb(n2, m - low)
    weights = [weight]
    for k in range(low, high):  # the ratio of neighbours; each division is exact
        weight = weight * (n1 - k) * (m - k) // ((k + 1) * (n2 - m + k + 1))
        weights.append(weight)
    observed = weights[first - low]
    return Fraction(sum(w for w in weights if w <= observed), sum(weights))
