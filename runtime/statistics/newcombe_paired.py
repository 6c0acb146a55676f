"""Newcombe's interval for the difference of two paired proportions, method 10.

Units fall into a (both 1), b (treatment only), c (control only), d (both 0); p1 = (a + b) / n,
p2 = (a + c) / n, theta = p1 - p2 = (b - c) / n. With Wilson limits l1, u1, l2, u2 of p1 and p2:

    lower = theta - sqrt((p1 - l1)^2 - 2 phi (p1 - l1) (u2 - p2) + (u2 - p2)^2)
    upper = theta + sqrt((u1 - p1)^2 - 2 phi (u1 - p1) (p2 - l2) + (p2 - l2)^2)

phi = k / sqrt((a + b) (c + d) (a + c) (b + d)) with k = a d - b c where that is at most 0, and
max(a d - b c - n / 2, 0) where it is positive; phi = 0 where a margin is empty.
R. G. Newcombe, Improved confidence intervals for the difference between binomial proportions based
on paired data, Statistics in Medicine 17 (1998) 2635-2650.

The paper gives no test. p is the interval inverted: the one-sided level at which the bound meets 0,
so reject and the bound agree by construction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import assert_never

from epc.compiler.contract.manifest import Side
from epc.runtime.statistics.estimate import Bounds, Estimate, assemble, on_lattice, side_text, significant
from epc.runtime.statistics.proportions import meeting_level
from epc.runtime.statistics.wilson import binary, normal_quantile, score_limits


@dataclass(frozen=True, kw_only=True)
class PairedTable:
    """Counts of units by (treatment, control)."""

    both: int
    treatment_only: int
    control_only: int
    neither: int

    @property
    def n(self) -> int:
        return self.both + self.treatment_only + self.control_only + self.neither

    @property
    def theta(self) -> float:
        return (self.treatment_only - self.control_only) / self.n

    @property
    def phi(self) -> float:
        """Correlation of the two outcomes with Newcombe's continuity correction."""
        a, b, c, d = self.both, self.treatment_only, self.control_only, self.neither
        margins = (a + b) * (c + d) * (a + c) * (b + d)
        if margins == 0:
            return 0.0
        product = a * d - b * c
        numerator = max(product - self.n / 2, 0.0) if product > 0 else float(product)
        return numerator / math.sqrt(margins)

    def lower(self, z: float) -> float:
        first, second = self.both + self.treatment_only, self.both + self.control_only
        down = first / self.n - score_limits(first, self.n, z)[0]
        up = score_limits(second, self.n, z)[1] - second / self.n
        return self.theta - _hypotenuse(down, up, self.phi)

    def upper(self, z: float) -> float:
        first, second = self.both + self.treatment_only, self.both + self.control_only
        up = score_limits(first, self.n, z)[1] - first / self.n
        down = second / self.n - score_limits(second, self.n, z)[0]
        return self.theta + _hypotenuse(up, down, self.phi)

    def mirrored(self) -> PairedTable:
        return PairedTable(
            both=self.both,
            treatment_only=self.control_only,
            control_only=self.treatment_only,
            neither=self.neither,
        )

    @property
    def bounds(self) -> Bounds:
        return Bounds(
            low=lambda tail: self.lower(normal_quantile(tail)), high=lambda tail: self.upper(normal_quantile(tail))
        )

    def p_greater(self) -> float:
        """One-sided p of theta > 0: the tail mass at which `lower` meets 0."""
        if self.treatment_only == self.control_only:
            return 0.5
        if self.treatment_only < self.control_only:
            return 1 - self.mirrored().p_greater()
        return meeting_level(self.lower)


def _hypotenuse(x: float, y: float, correlation: float) -> float:
    return math.sqrt(max(x * x - 2 * correlation * x * y + y * y, 0.0))


def table_of(treatment: Mapping[str, int], control: Mapping[str, int]) -> PairedTable:
    cells = [(treatment[unit], control[unit]) for unit in treatment]
    return PairedTable(
        both=cells.count((1, 1)),
        treatment_only=cells.count((1, 0)),
        control_only=cells.count((0, 1)),
        neither=cells.count((0, 0)),
    )


def newcombe_paired(
    treatment: Mapping[str, Fraction],
    control: Mapping[str, Fraction],
    *,
    side: Side,
    alpha: float,
    interval: float | None = None,
) -> Estimate:
    """Estimate treatment - control from unit -> 0 or 1 in both arms, the same units in each.

    `interval` is the registered level of the displayed interval, None for the one that pairs with the test.

    Raises InapplicableError where a unit is neither 0 nor 1.
    """
    table = table_of(binary(treatment, "newcombe_paired"), binary(control, "newcombe_paired"))
    greater, less = table.p_greater(), table.mirrored().p_greater()
    match side:
        case "greater":
            p = greater
        case "less":
            p = less
        case "two_sided":
            p = min(1.0, 2 * min(greater, less))
        case _:
            assert_never(side)
    return assemble(
        differences=on_lattice([treatment[unit] - control[unit] for unit in sorted(treatment)]),
        side=side,
        alpha=alpha,
        interval=interval,
        p=significant(p),
        bounds=table.bounds,
        limit=1.0,
        definition=(
            f"Newcombe's interval for paired proportions, method 10 (Newcombe 1998, Statistics in Medicine 17:"
            f" 2635-2650), {table.n} units of which {table.both} both, {table.treatment_only} treatment only,"
            f" {table.control_only} control only, {table.neither} neither; p is the level at which the bound meets 0;"
            f" {side_text(side)}."
        ),
    )
