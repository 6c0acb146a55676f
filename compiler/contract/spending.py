"""How much of alpha each planned look at the results may spend, and the p below which it rejects.

With t the share of the units, the alpha that a one-sided test has spent by t is (Lan and DeMets 1983)

- obrien_fleming: 2 (1 - Phi(z / sqrt(t))) with z the upper alpha / 2 quantile of a standard normal;
- pocock: alpha log(1 + (e - 1) t).

A two-sided test spends alpha / 2 on each side, as two one-sided ones. The statistic at the looks is taken as a
Brownian motion B at times t_1 < ... < t_k = 1: the boundary b_i at look i is where the probability of B beyond b_i,
and beyond no earlier boundary, is what is spent between t_(i-1) and t_i; the look rejects where its p is below
1 - Phi(b_i / sqrt(t_i)), doubled for two sides. Densities are integrated by Simpson's rule (P. Armitage, C. McPherson
and B. Rowe, Repeated significance tests on accumulating data, JRSS A 132 (1969) 235-244). Levels are rounded to
seven significant digits, so that they are the same on every machine.

The motion is that of a mean of many units; for the looks of a bootstrap or a sign flip it is the usual approximation.

K. Lan and D. DeMets, Discrete sequential boundaries for clinical trials, Biometrika 70 (1983) 659-663.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from statistics import NormalDist
from typing import Any, Final, Literal, assert_never

Spending = Literal["obrien_fleming", "pocock"]

_NORMAL: Final = NormalDist()
_FAR: Final = 9.0
"""Standard deviations below 0 where the density begins."""
_STEPS: Final = 400
"""Intervals of Simpson's rule on the first piece, even; the mesh is as fine on all of them."""


def spent(share: float, alpha: float, spending: Spending) -> float:
    """Alpha that a one-sided test at `alpha` has spent when `share` of the units, above 0 and at most 1, is in."""
    match spending:
        case "obrien_fleming":
            return 2 * _upper(_NORMAL.inv_cdf(1 - alpha / 2) / math.sqrt(share))
        case "pocock":
            return alpha * math.log(1 + (math.e - 1) * share)
        case _:
            assert_never(spending)


def units_at(share: float, planned: int) -> int:
    """Units of a look at this share of the planned ones: the fewest that are that share, as it is written, or more."""
    return math.ceil(Fraction(repr(share)) * planned)


def nominal_levels(looks: Sequence[float], *, alpha: float, two_sided: bool, spending: Spending) -> tuple[float, ...]:
    """For each look the p below which it rejects.

    `looks` are shares of the units, ascending, above 0 and at most 1; `alpha` is that of the whole test. Where almost
    nothing is spent at a look, its level may be 0.
    """
    import numpy as np

    sides = 2 if two_sided else 1
    share_of_alpha = alpha / sides
    levels: list[float] = []
    nodes = np.zeros(1)  # where the motion may be before the next look, and the mass there
    mass = np.ones(1)
    before = already = 0.0
    for look in looks:
        total = spent(look, share_of_alpha, spending)
        spread = math.sqrt(look - before)
        boundary = _boundary(nodes, mass, spread, total - already, highest=_FAR * math.sqrt(look))
        levels.append(float(f"{sides * _upper(boundary / math.sqrt(look)):.7g}"))
        nodes, mass = _step(nodes, mass, spread, low=-_FAR * math.sqrt(look), high=boundary)
        before, already = look, total
    return tuple(levels)


def _upper(z: float) -> float:
    return math.erfc(z / math.sqrt(2)) / 2


def _boundary(nodes: Any, mass: Any, spread: float, wanted: float, *, highest: float) -> float:
    """Where the mass beyond is what may be spent; `highest` where even there it is more."""

    def beyond(boundary: float) -> float:
        return math.fsum(
            float(weight) * _upper((boundary - float(node)) / spread)
            for node, weight in zip(nodes, mass, strict=True)
            if weight
        )

    low, high = -highest, highest
    if beyond(high) > wanted:
        return high
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if beyond(middle) > wanted else (low, middle)
    return high


def _step(nodes: Any, mass: Any, spread: float, *, low: float, high: float) -> tuple[Any, Any]:
    """Nodes and masses of the motion after a look that did not reject."""
    import numpy as np

    steps = 2 * math.ceil(_STEPS * max(1.0, 0.2 / spread) / 2)
    onward = np.linspace(low, high, steps + 1)
    z = (onward[:, None] - nodes[None, :]) / spread
    density = np.exp(-z * z / 2) @ mass / (spread * math.sqrt(2 * math.pi))
    simpson = np.full(steps + 1, 2.0)
    simpson[1::2] = 4.0
    simpson[[0, -1]] = 1.0
    return onward, density * simpson * ((high - low) / steps / 3)
