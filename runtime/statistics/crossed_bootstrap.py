"""Bootstrap of crossed factors: training seeds and units are drawn independently of each other (pigeonhole).

d_su = treatment - control of unit u with training seed s; every seed meets the same units, so neither is nested in
the other, and drawing units anew within each seed would count each of them S times. A resample draws S of the S
seeds and, on their own, U of the U units, and keeps every cell that both draws meet, as often as they meet it:

    theta* = sum_s sum_u a_s b_u d_su / (S U)          a, b how often seed s and unit u are drawn

theta = mean of all cells. percentile: p = (1 + #{theta* <= 0}) / (B + 1), bounds are quantiles of theta*. shift: p =
(1 + #{theta* >= 2 theta}) / (B + 1), bounds are 2 theta minus quantiles of theta*. (For "greater"; order statistics
at floor((B + 1) tail).) Sums are integers, so ties are counted as ties.

The variance of theta* is at least that of the sum of both main effects, so with many seeds the test is
conservative; with S seeds their spread enters with the factor (S - 1) / S, so with few of them it is liberal.

Units are drawn from the words of every bootstrap over units (`resampling`), seeds from word 2^120 of the same
stream on.

A. B. Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1 (2007) 386-411. Neither scipy nor
statsmodels has it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final, assert_never

import numpy as np
from numpy.typing import NDArray

from epc.compiler.contract.manifest import Side
from epc.runtime.statistics.cluster_bootstrap import ClusterP
from epc.runtime.statistics.estimate import (
    FIXED_POINT_NOTE,
    Bounds,
    Estimate,
    InapplicableError,
    assemble,
    on_lattice,
    p_of,
    side_text,
)
from epc.runtime.statistics.resamples import Resamples, resampled_sums
from epc.runtime.statistics.resampling import Quantiles, as_float, halves_of, words

SEEDS_FROM: Final = 1 << 120
"""Word from which on training seeds are drawn, beyond all that draw units."""

FORMULA: Final[Mapping[ClusterP, str]] = {
    "percentile": "p = (1 + #{theta* at or beyond 0}) / (B + 1), percentile bounds",
    "shift": "p = (1 + #{theta* - theta at or beyond theta}) / (B + 1), basic bounds",
}


def crossed_bootstrap(
    differences: Mapping[str, Mapping[str, Fraction]],
    *,
    p: ClusterP,
    side: Side,
    alpha: float,
    resamples: int,
    seed: int,
    limit: float,
    interval: float | None = None,
    shared: Resamples | None = None,
) -> Estimate:
    """Estimate a contrast from training seed -> unit -> difference treatment - control.

    `limit` is hi - lo of the metric's scale, `interval` the registered level of the displayed interval, None for
    the one that pairs with the test; `shared` holds the draws of a decision and changes no result.

    Raises InapplicableError for fewer than two seeds and where they have not the same units.
    """
    seeds = sorted(differences)
    units = sorted(differences[seeds[0]]) if seeds else []
    if len(seeds) < 2 or not units:
        raise InapplicableError("training seeds can be resampled where there are at least two with units")
    if any(sorted(differences[name]) != units for name in seeds):
        raise InapplicableError("every training seed needs the same units")
    lattice = on_lattice([differences[name][unit] for name in seeds for unit in units])
    rows = [lattice.numerators[i * len(units) : (i + 1) * len(units)] for i in range(len(seeds))]
    by_seed = np.stack(resampled_sums(seed, resamples, rows, shared=shared))
    means = [sum((differences[name][unit] for name in seeds), Fraction(0)) / len(seeds) for unit in units]
    return estimate_of_sums(
        _over_seeds(by_seed, seed),
        theta=lattice.mean,
        denominator=lattice.n * lattice.denominator,
        means=means,
        p=p,
        side=side,
        alpha=alpha,
        limit=limit,
        interval=interval,
        definition=f"Bootstrap of {len(seeds)} training seeds crossed with {len(units)} units, each drawn on their own"
        f" (pigeonhole bootstrap, Owen 2007), B = {resamples} resamples, PCG64 seed {seed}: {FORMULA[p]};"
        f" {side_text(side)}." + (FIXED_POINT_NOTE if lattice.rounded else ""),
    )


def _over_seeds(by_seed: NDArray[Any], seed: int) -> NDArray[Any]:
    """Sum over the drawn training seeds of what each has in a resample: (seeds, B) to (B,)."""
    count, resamples = by_seed.shape
    sums = np.empty(resamples, dtype=by_seed.dtype)
    start = 0
    for block in words(seed, resamples, (count + 1) // 2, skip=SEEDS_FROM):
        drawn = halves_of(block)[:, :count] * np.uint64(count) >> np.uint64(32)
        place = np.arange(start, start + len(block))
        sums[place] = by_seed[drawn.astype(np.int64).T, place].sum(axis=0)
        start += len(block)
    return sums


def estimate_of_sums(
    sums: NDArray[Any],
    *,
    theta: Fraction,
    denominator: int,
    means: list[Fraction],
    p: ClusterP,
    side: Side,
    alpha: float,
    limit: float,
    interval: float | None,
    definition: str,
) -> Estimate:
    """Percentile or shift test of theta from integers that are theta* times `denominator`; `means` are those of the units."""
    thetas = as_float(sums) / denominator
    percentile = Quantiles(thetas, (-limit, limit))
    bounds = Bounds(low=percentile.low, high=percentile.high)
    match p:
        case "percentile":
            greater, less = sums <= 0, sums >= 0
        case "shift":
            twice = 2 * theta * denominator
            greater, less = sums >= math.ceil(twice), sums <= math.floor(twice)
            ends, centre = Quantiles(thetas, (-math.inf, math.inf)), 2 * float(theta)
            bounds = Bounds(low=lambda tail: centre - ends.high(tail), high=lambda tail: centre - ends.low(tail))
        case _:
            assert_never(p)
    shares = [Fraction(1 + int(np.count_nonzero(extreme)), len(sums) + 1) for extreme in (greater, less)]
    return assemble(
        differences=on_lattice(means),
        estimate=sum(means, Fraction(0)) / len(means),
        side=side,
        alpha=alpha,
        interval=interval,
        p=p_of(side, shares[0], shares[1]),
        bounds=bounds,
        percentile=None if p == "percentile" else Bounds(low=percentile.low, high=percentile.high),
        limit=limit,
        definition=definition,
    )
