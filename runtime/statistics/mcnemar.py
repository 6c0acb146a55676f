"""McNemar's test of two paired proportions, exact and continuity-corrected.

b units are 1 under the treatment only, c under the control only, m = b + c.

- exact: given m, b ~ Binomial(m, 1/2); p = P(X >= b), in integers.
- corrected: one-sided p = P(Z >= (b - c - 1) / sqrt(m)) of a standard normal Z; two-sided, chi^2 =
  max(|b - c| - 1, 0)^2 / m on one degree of freedom, which is twice the smaller one-sided p, at most 1.

delta = (b - c) / n. The tests are conditional on m and know nothing of n - m, so they have no bounds for
the difference: lower, upper and the interval are those of Newcombe's method 10 (`newcombe_paired`), the
usual companion, and may disagree with the test. Without a discordant pair p is 1.

Q. McNemar, Note on the sampling error of the difference between correlated proportions or percentages,
Psychometrika 12 (1947) 153-157; A. Edwards, Note on the "correction for continuity" in testing the significance
of the difference between correlated proportions, Psychometrika 13 (1948) 185-187; exact: F. Mosteller,
Biometrics 8 (1952) 220-226. scipy has no McNemar test; statsmodels' is two-sided only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Literal, assert_never

from epc.compiler.contract.manifest import Side
from epc.runtime.statistics.estimate import Estimate, assemble, exact, on_lattice, p_of, side_text, significant
from epc.runtime.statistics.newcombe_paired import table_of
from epc.runtime.statistics.proportions import at_most
from epc.runtime.statistics.wilson import binary

McNemar = Literal["exact", "corrected"]


def mcnemar(
    treatment: Mapping[str, Fraction],
    control: Mapping[str, Fraction],
    *,
    p: McNemar,
    side: Side,
    alpha: float,
    interval: float | None = None,
) -> Estimate:
    """Estimate treatment - control from unit -> 0 or 1 in both arms, the same units in each.

    `interval` is the registered level of the displayed interval, None for the one that pairs with the bounds.

    Raises InapplicableError where a unit is neither 0 nor 1.
    """
    table = table_of(binary(treatment, "mcnemar"), binary(control, "mcnemar"))
    b, c = table.treatment_only, table.control_only
    match p:
        case "exact":
            found, how = exact_p(b, c, side), "exact, from Binomial(b + c, 1/2) (Mosteller 1952)"
        case "corrected":
            found = corrected_p(b, c, side)
            how = f"chi^2 = {chi_squared(b, c):.6g} with continuity correction (McNemar 1947, Edwards 1948)"
        case _:
            assert_never(p)
    return assemble(
        differences=on_lattice([treatment[unit] - control[unit] for unit in sorted(treatment)]),
        side=side,
        alpha=alpha,
        interval=interval,
        p=found,
        bounds=table.bounds,
        limit=1.0,
        inverts=False,
        definition=(
            f"McNemar's test, {how}, {table.n} units of which b = {b} treatment only and c = {c} control only;"
            f" {side_text(side)}. Bounds are Newcombe's for paired proportions, method 10, and may disagree with the test."
        ),
    )


def exact_p(b: int, c: int, side: Side) -> Fraction:
    """P(X >= b) for "greater" with X ~ Binomial(b + c, 1/2); two-sided twice the smaller one, at most 1."""
    return p_of(side, at_most(c, b + c), at_most(b, b + c))


def chi_squared(b: int, c: int) -> float:
    """(|b - c| - 1)^2 / (b + c), 0 where the counts differ by no more than 1."""
    return max(abs(b - c) - 1, 0) ** 2 / (b + c) if b + c else 0.0


def corrected_p(b: int, c: int, side: Side) -> Fraction:
    """Normal tails, to 12 significant digits; 1 without discordant pairs."""
    if b + c == 0:
        return Fraction(1)
    return p_of(side, _tail(b - c - 1, b + c), _tail(c - b - 1, b + c))


def _tail(excess: int, m: int) -> Fraction:
    return exact(significant(math.erfc(excess / math.sqrt(2 * m)) / 2))
