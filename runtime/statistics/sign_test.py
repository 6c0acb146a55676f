"""Sign test of the median difference.

n+ units have a positive difference, n- a negative one; units without a difference say nothing and are left out
of the test. p = P(X >= n+) of X ~ Binomial(n+ + n-, 1/2) (for "greater"), in integers; 1 where no unit differs.

delta is the median of all n differences, zeros included. Bounds are order statistics: lower is the k-th
smallest for the largest k with P(Binomial(n, 1/2) <= k - 1) <= tail, the end of the scale where there is
none. A bound beyond 0 implies p <= tail; with zeros the reverse need not hold, since the bound counts them.

W. Dixon and A. Mood, The statistical sign test, JASA 41 (1946) 557-566; bounds: W. Thompson, On confidence
ranges for the median, Annals of Mathematical Statistics 7 (1936) 122-128. scipy.stats.binomtest has the p in
floats and no bounds for the median.
"""

from __future__ import annotations

from fractions import Fraction

from epc.compiler.contract.manifest import Side
from epc.runtime.statistics.estimate import Bounds, Estimate, Lattice, assemble, p_of, side_text
from epc.runtime.statistics.proportions import at_most


def sign_test(
    differences: Lattice, *, side: Side, alpha: float, limit: float, interval: float | None = None
) -> Estimate:
    """Estimate the median of paired differences; `limit` is hi - lo of the metric's scale.

    `interval` is the registered level of the displayed interval, None for the one that pairs with the test.
    """
    n, ordered = differences.n, sorted(differences.numerators)
    above, below = sum(x > 0 for x in ordered), sum(x < 0 for x in ordered)
    middle = Fraction(ordered[(n - 1) // 2] + ordered[n // 2], 2 * differences.denominator)

    def low(tail: Fraction) -> float:
        k = _place(n, tail)
        return -limit if k == 0 else ordered[k - 1] / differences.denominator

    def high(tail: Fraction) -> float:
        k = _place(n, tail)
        return limit if k == 0 else ordered[n - k] / differences.denominator

    return assemble(
        differences=differences, estimate=middle, side=side, alpha=alpha, interval=interval, limit=limit,
        p=p_of(side, at_most(below, above + below), at_most(above, above + below)), bounds=Bounds(low=low, high=high),
        inverts=above + below == n,
        definition=f"Sign test of the median difference over {n} units, {above} above 0, {below} below and"
        f" {n - above - below} at it (Dixon and Mood 1946), delta is the median, bounds are order statistics"
        f" (Thompson 1936); {side_text(side)}.",
    )  # fmt: skip


def _place(n: int, tail: Fraction) -> int:
    """Largest k with P(Binomial(n, 1/2) <= k - 1) <= tail; 0 when there is none."""
    inside, outside = 0, n + 1
    while outside - inside > 1:
        k = (inside + outside) // 2
        inside, outside = (k, outside) if at_most(k - 1, n) <= tail else (inside, k)
    return inside
