"""Student's paired t test.

t = mean / (sd / sqrt(n)) on n - 1 degrees of freedom; bounds are mean -+ t quantile times se.
Student, The probable error of a mean, Biometrika 6 (1908) 1-25.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import assert_never

from epc.compiler.contract.manifest import Side
from epc.runtime.statistics.estimate import (
    NO_SPREAD_TEXT,
    Bounds,
    Estimate,
    Lattice,
    NoSpread,
    assemble,
    side_text,
    significant,
)


def paired_t(
    differences: Lattice, *, side: Side, alpha: float, limit: float, interval: float | None = None
) -> Estimate:
    """Estimate a paired contrast from the unit differences; `limit` is hi - lo of the metric's scale.

    `interval` is the registered level of the displayed interval, None for the one that pairs with the test.
    """
    n = differences.n
    definition = f"Paired t test over {n} units, {n - 1} degrees of freedom (Student 1908); {side_text(side)}."
    if differences.scatter == 0:
        flat = NoSpread(differences=differences, limit=limit)
        return assemble(
            differences=differences, side=side, alpha=alpha, interval=interval, limit=limit, bounds=flat.bounds,
            p=flat.p(side), definition=definition + NO_SPREAD_TEXT, inverts=False,
        )  # fmt: skip
    from scipy.special import stdtr, stdtrit

    mean = float(differences.mean)
    se = math.sqrt(Fraction(differences.scatter, n * n * (n - 1) * differences.denominator**2))
    t = mean / se
    match side:
        case "greater":
            p = float(stdtr(n - 1, -t))
        case "less":
            p = float(stdtr(n - 1, t))
        case "two_sided":
            p = min(1.0, 2 * float(stdtr(n - 1, -abs(t))))
        case _:
            assert_never(side)

    def reach(tail: Fraction) -> float:
        return -float(stdtrit(n - 1, float(tail))) * se

    return assemble(
        differences=differences, side=side, alpha=alpha, interval=interval, limit=limit, p=significant(p),
        definition=definition, bounds=Bounds(low=lambda tail: mean - reach(tail), high=lambda tail: mean + reach(tail)),
    )  # fmt: skip
