"""Bootstrap of the level of one arm: the mean over units, on any scale, however many samples a unit has.

x_i = mean of unit i, n units; a resample draws n units with replacement, B times. lower and upper are
percentile bounds: order statistics of the resampled means at floor((B + 1) tail) from either end, and
the end of the scale where that is 0. Resampled sums are exact integers (`resampling`).

B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13. Percentile bounds are too
narrow with few units, where Wilson's are right for rates of single samples.
"""

from __future__ import annotations

from epc.compiler.contract.manifest import Side
from epc.runtime.statistics.estimate import FIXED_POINT_NOTE, Estimate, Lattice, exact, interval_tail, percent, tidy
from epc.runtime.statistics.resamples import Resamples, resampled_sums
from epc.runtime.statistics.resampling import Quantiles, as_float


def bootstrap(
    values: Lattice,
    *,
    side: Side,
    alpha: float,
    resamples: int,
    seed: int,
    scale: tuple[float, float],
    interval: float | None = None,
    shared: Resamples | None = None,
) -> Estimate:
    """Level of one arm from its unit means in the order of the units' names. It has bounds and no p.

    `scale` is that of the metric, `interval` the registered level of the displayed interval, None for the
    one that pairs with the bounds. `shared` holds the draws of a decision and changes no result.
    """
    (sums,) = resampled_sums(seed, resamples, [values.numerators], shared=shared)
    bounds = Quantiles(as_float(sums), scale, values.n * values.denominator)
    level = exact(alpha)
    tail = interval_tail(side, level, interval)
    return Estimate(
        statistics={
            "value": tidy(float(values.estimate)),
            "lower": tidy(bounds.low(level)),
            "upper": tidy(bounds.high(level)),
            "ci_low": tidy(bounds.low(tail)),
            "ci_high": tidy(bounds.high(tail)),
        },
        ci_level=float(1 - 2 * tail),
        definition=f"Bootstrap of the mean over {values.n} units, B = {resamples} resamples, PCG64 seed {seed}, percentile"
        f" bounds (Efron and Tibshirani 1993, ch. 13); lower and upper are one-sided at {percent(1 - level)}, the"
        f" interval shown is two-sided at {percent(1 - 2 * tail)}." + (FIXED_POINT_NOTE if values.rounded else ""),
        sd=values.sd,
        skewness=values.skewness,
    )
