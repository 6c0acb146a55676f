"""Wilson score interval of one proportion.

The limits are the roots of |x/n - P| = z sqrt(P (1 - P) / n), no continuity correction.
E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927);
method 3 of R. G. Newcombe, Two-sided confidence intervals for the single proportion, Statistics in
Medicine 17 (1998) 857-872.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from statistics import NormalDist

from epc.compiler.contract.manifest import Side
from epc.runtime.statistics.estimate import Estimate, InapplicableError, exact, interval_tail, on_lattice, percent, tidy


def score_limits(successes: int, n: int, z: float) -> tuple[float, float]:
    """Lower and upper Wilson limit of successes / n at normal quantile z >= 0."""
    centre = 2 * successes + z * z
    half = z * math.sqrt(z * z + 4 * successes * (n - successes) / n)
    below = 0.0 if successes == 0 else (centre - half) / (2 * (n + z * z))
    above = 1.0 if successes == n else (centre + half) / (2 * (n + z * z))
    return below, above


def normal_quantile(tail: Fraction) -> float:
    """z with probability `tail` above it."""
    return -NormalDist().inv_cdf(float(tail))


def binary(values: Mapping[str, Fraction], method: str) -> dict[str, int]:
    """Unit values as 0 and 1. Raises InapplicableError naming the first unit that is neither."""
    for unit, value in sorted(values.items()):
        if value not in (0, 1):
            raise InapplicableError(
                f"{method} needs one 0 or 1 per unit, but unit {unit} has {float(value):g}"
                " (several samples or training seeds were averaged); paired_bootstrap has no such limit"
            )
    return {unit: int(value) for unit, value in values.items()}


def wilson(values: Mapping[str, Fraction], *, side: Side, alpha: float, interval: float | None = None) -> Estimate:
    """Level of one arm from unit -> 0 or 1. It has bounds and no p, since it states no null value.

    `interval` is the registered level of the displayed interval, None for the one that pairs with the bounds.
    """
    outcomes = binary(values, "wilson")
    n, successes, level = len(outcomes), sum(outcomes.values()), exact(alpha)
    tail = interval_tail(side, level, interval)
    lower, upper = score_limits(successes, n, normal_quantile(level))
    ci_low, ci_high = score_limits(successes, n, normal_quantile(tail))
    return Estimate(
        statistics={
            "value": successes / n,
            "lower": tidy(lower),
            "upper": tidy(upper),
            "ci_low": tidy(ci_low),
            "ci_high": tidy(ci_high),
        },
        ci_level=float(1 - 2 * tail),
        definition=(
            f"Wilson score interval of a proportion, {successes} of {n} units, no continuity correction (Wilson 1927);"
            f" lower and upper are one-sided bounds at {percent(1 - level)}, the interval shown is two-sided at"
            f" {percent(1 - 2 * tail)}."
        ),
        sd=on_lattice(list(values.values())).sd,
        skewness=on_lattice(list(values.values())).skewness,
    )
