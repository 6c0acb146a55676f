"""Bootstrap of the samples within units that are all there are: units are kept, samples are drawn (stratified).

T_u1 ... T_um and C_u1 ... C_uk are the samples of both arms in unit u. theta = mean over units of mean T_u - mean C_u.
A resample draws m - 1 of the m samples of the treatment and k - 1 of the k of the control, with replacement and in
each unit by themselves, and theta* is the same mean of means. With one draw less than there are samples the variance
of theta* is the usual estimate of that of theta, sum over units of s_T^2 / m + s_C^2 / k (over U^2); with all m it
would be too small by 1 / m.

percentile: p = (1 + #{theta* <= 0}) / (B + 1), bounds are quantiles of theta*. shift: p = (1 + #{theta* >= 2 theta}) /
(B + 1), bounds are 2 theta minus quantiles of theta*. (For "greater"; order statistics at floor((B + 1) tail).)

It says nothing about units that were not asked: its intervals are narrower than those over units.

P. McCarthy and C. Snowden, The Bootstrap and Finite Population Sampling, Vital and Health Statistics 2-95, 1985;
J. Rao and C. Wu, Resampling inference with complex survey data, JASA 83 (1988) 231-241.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from epc.compiler.contract.manifest import Side
from epc.runtime.statistics.cluster_bootstrap import ClusterP, Group
from epc.runtime.statistics.crossed_bootstrap import FORMULA, estimate_of_sums
from epc.runtime.statistics.estimate import FIXED_POINT_NOTE, Estimate, InapplicableError, on_lattice, side_text
from epc.runtime.statistics.resampling import halves_of, words


def stratified_bootstrap(
    units: Mapping[str, Group],
    *,
    p: ClusterP,
    side: Side,
    alpha: float,
    resamples: int,
    seed: int,
    limit: float,
    interval: float | None = None,
) -> Estimate:
    """Estimate a contrast from unit -> samples of both arms.

    `limit` is hi - lo of the metric's scale, `interval` the registered level of the displayed interval, None for
    the one that pairs with the test. The order of a unit's samples does not matter.

    Raises InapplicableError where a unit has fewer than two samples in an arm.
    """
    names = sorted(units)
    strata: list[tuple[Fraction, ...]] = []
    for name in names:
        for arm, sign in ((units[name].treatment, 1), (units[name].control or (), -1)):
            if len(arm) < 2:
                raise InapplicableError(f"unit {name} has {len(arm)} samples in an arm: the spread of a unit needs two")
            strata.append(tuple(sign * value / ((len(arm) - 1) * len(names)) for value in sorted(arm)))
    lattice = on_lattice([value for stratum in strata for value in stratum])
    wide = lattice.largest * lattice.n >= 2**62
    values = np.array(lattice.numerators, dtype=object if wide else np.int64)
    sizes = np.array([len(stratum) for stratum in strata])
    starts = np.cumsum(sizes) - sizes
    first, size = np.repeat(starts, sizes - 1), np.repeat(sizes, sizes - 1).astype(np.uint64)
    sums = np.empty(resamples, dtype=values.dtype)
    at = 0
    for block in words(seed, resamples, (len(first) + 1) // 2):
        drawn = halves_of(block)[:, : len(first)] * size >> np.uint64(32)
        sums[at : at + len(block)] = values[first + drawn.astype(np.int64)].sum(axis=1)
        at += len(block)
    return estimate_of_sums(
        sums,
        theta=sum((units[name].theta() for name in names), Fraction(0)) / len(names),
        denominator=lattice.denominator,
        means=[units[name].theta() for name in names],
        p=p,
        side=side,
        alpha=alpha,
        limit=limit,
        interval=interval,
        definition=f"Bootstrap of the samples within {len(names)} fixed units, {len(values)} in both arms, one fewer drawn"
        f" than there are in each (McCarthy and Snowden 1985), B = {resamples} resamples, PCG64 seed {seed}:"
        f" {FORMULA[p]}; {side_text(side)}." + (FIXED_POINT_NOTE if lattice.rounded else ""),
    )
