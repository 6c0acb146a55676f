"""Newcombe's interval for the difference of two independent proportions, method 10 (square and add).

p1 = s1 / n1, p2 = s2 / n2, theta = p1 - p2. With Wilson limits l1, u1, l2, u2 of p1 and p2:

    lower = theta - sqrt((p1 - l1)^2 + (u2 - p2)^2)
    upper = theta + sqrt((u1 - p1)^2 + (p2 - l2)^2)

R. G. Newcombe, Interval estimation for the difference between independent proportions: comparison of
eleven methods, Statistics in Medicine 17 (1998) 873-890.

The paper gives no test. p is the interval inverted: the one-sided level at which the bound meets 0, so reject
and the bound agree by construction. Arms of different units only: where both arms have the same units, their
correlation counts, and `newcombe_paired` is the method. statsmodels' confint_proportions_2indep(method="newcomb")
has the interval without one-sided bounds or p.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from epc.compiler.contract.manifest import Side
from epc.runtime.statistics.estimate import (
    Bounds,
    Estimate,
    InapplicableError,
    assemble,
    exact,
    p_of,
    side_text,
    significant,
)
from epc.runtime.statistics.proportions import meeting_level
from epc.runtime.statistics.wilson import binary, normal_quantile, score_limits


@dataclass(frozen=True, kw_only=True)
class TwoRates:
    """Successes of units in each of two arms."""

    successes: tuple[int, int]
    n: tuple[int, int]

    @property
    def theta(self) -> Fraction:
        (s1, s2), (n1, n2) = self.successes, self.n
        return Fraction(s1, n1) - Fraction(s2, n2)

    def lower(self, z: float) -> float:
        (s1, s2), (n1, n2) = self.successes, self.n
        return float(self.theta) - math.hypot(
            s1 / n1 - score_limits(s1, n1, z)[0], score_limits(s2, n2, z)[1] - s2 / n2
        )

    def upper(self, z: float) -> float:
        return -self.swapped.lower(z)

    @property
    def swapped(self) -> TwoRates:
        return TwoRates(successes=self.successes[::-1], n=self.n[::-1])

    def p_greater(self) -> float:
        """One-sided p of theta > 0: the tail mass at which `lower` meets 0."""
        if self.theta == 0:
            return 0.5
        return meeting_level(self.lower) if self.theta > 0 else 1 - self.swapped.p_greater()


def newcombe(
    treatment: Mapping[str, Fraction],
    control: Mapping[str, Fraction],
    *,
    side: Side,
    alpha: float,
    interval: float | None = None,
) -> Estimate:
    """Estimate treatment - control from unit -> 0 or 1 in each arm, other units in each.

    `interval` is the registered level of the displayed interval, None for the one that pairs with the test.

    Raises InapplicableError where a unit is neither 0 nor 1, an arm is empty, or a unit is in both arms.
    """
    if not treatment or not control:
        raise InapplicableError("newcombe needs units in both arms")
    if both := sorted(treatment.keys() & control.keys()):
        raise InapplicableError(
            f"newcombe is for arms of different units, but {both[0]} is in both; newcombe_paired is for the same units"
        )
    first, second = (list(binary(values, "newcombe").values()) for values in (treatment, control))
    rates = TwoRates(successes=(sum(first), sum(second)), n=(len(first), len(second)))
    greater, less = rates.p_greater(), rates.swapped.p_greater()
    return assemble(
        differences=None,
        estimate=rates.theta,
        side=side,
        alpha=alpha,
        interval=interval,
        p=p_of(side, exact(significant(greater)), exact(significant(less))),
        bounds=Bounds(
            low=lambda tail: rates.lower(normal_quantile(tail)), high=lambda tail: rates.upper(normal_quantile(tail))
        ),
        limit=1.0,
        definition=(
            f"Newcombe's interval for independent proportions, method 10 (Newcombe 1998, Statistics in Medicine 17:"
            f" 873-890), {rates.successes[0]} of {rates.n[0]} against {rates.successes[1]} of {rates.n[1]} units;"
            f" p is the level at which the bound meets 0; {side_text(side)}."
        ),
    )
