"""Several tests, one error rate: p-values in, adjusted p-values and rejections out, exact in rationals.

With p(1) <= ... <= p(m) the ordered p-values:

- holm: adjusted p(i) = max over j <= i of min(1, (m - j + 1) p(j)). Family-wise error rate.
- benjamini_hochberg: adjusted p(i) = min over j >= i of min(1, m p(j) / j). False discovery rate.
- fixed_sequence: in the registered order, adjusted p_i = max over j <= i of p_j: each test at full alpha, as
  long as all before it rejected. Family-wise error rate.

A hypothesis is rejected where its adjusted p is below alpha, as everywhere in this package (the papers reject
at equality too). Ties need no order: equal p-values have equal adjusted ones.

S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979)
65-70; Y. Benjamini and Y. Hochberg, Controlling the false discovery rate, Journal of the Royal Statistical
Society B 57 (1995) 289-300; W. Maurer, L. Hothorn and W. Lehmacher, Multiple comparisons in drug clinical trials
and preclinical assays: a-priori ordered hypotheses, in: Biometrie in der chemisch-pharmazeutischen Industrie 6
(1995) 3-18; adjusted p-values: S. Wright, Biometrics 48 (1992) 1005-1013. scipy has Benjamini-Hochberg alone, and
statsmodels both, in floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate


@dataclass(frozen=True, kw_only=True)
class Adjusted:
    """One hypothesis after the adjustment."""

    p: Fraction
    reject: bool


def holm(ps: Sequence[Fraction], alpha: Fraction) -> list[Adjusted]:
    """In the order given. Raises ValueError where a p is not in [0, 1]."""
    order, m = _order(ps), len(ps)
    stepped = accumulate((min(Fraction(1), (m - i) * ps[at]) for i, at in enumerate(order)), max)
    return _back(order, list(stepped), alpha)


def benjamini_hochberg(ps: Sequence[Fraction], alpha: Fraction) -> list[Adjusted]:
    """In the order given; `alpha` is the false discovery rate. Raises ValueError where a p is not in [0, 1]."""
    order, m = _order(ps)[::-1], len(ps)
    stepped = accumulate((min(Fraction(1), m * ps[at] / (m - i)) for i, at in enumerate(order)), min)
    return _back(order, list(stepped), alpha)


def fixed_sequence(ps: Sequence[Fraction], alpha: Fraction) -> list[Adjusted]:
    """`ps` in the registered order. Raises ValueError where a p is not in [0, 1]."""
    _order(ps)
    return _back(list(range(len(ps))), list(accumulate(ps, max)), alpha)


def _order(ps: Sequence[Fraction]) -> list[int]:
    for p in ps:
        if not 0 <= p <= 1:
            raise ValueError(f"{float(p):g} is no p-value")
    return sorted(range(len(ps)), key=ps.__getitem__)


def _back(order: Sequence[int], adjusted: Sequence[Fraction], alpha: Fraction) -> list[Adjusted]:
    at = dict(zip(order, adjusted, strict=True))
    return [Adjusted(p=at[i], reject=at[i] < alpha) for i in range(len(order))]
