"""Paired bootstrap over units: percentile, shift, studentized and BCa.

d_i = treatment - control in unit i, n units; a resample draws n units with replacement, B times.

- percentile: p = (1 + #{mean* <= 0}) / (B + 1); bounds are quantiles of mean*.
- shift: p = (1 + #{mean* - mean >= mean}) / (B + 1); bounds are 2 mean minus quantiles of mean*.
- studentized (bootstrap-t): p = (1 + #{t* >= t}) / (B + 1) with t = mean / se, t* = (mean* - mean) / se*;
  bounds are mean minus quantiles of t* times se. A resample with se* = 0 counts as extreme on
  either side.
- bca: bounds are quantiles of mean* at the tail that bias and acceleration give (`bca.Correction`); p is
  the tail whose bound is at the percentile p, the test these bounds invert to, and at least 1 / (B + 1).

(all for "greater"; "less" mirrors them). Where the observed se is 0, the studentized bootstrap has no t
and BCa no acceleration: see `estimate.NoSpread`, with p never below 1 / (B + 1). Quantiles are order
statistics at floor((B + 1) tail) from either end; where that is 0, the bound is the end of the scale. So
for every definition and side, reject (p < alpha) and a bound beyond 0 say the same, except where p equals
alpha or se is 0, and for bca where alpha is below 1 / (B + 1).

Exactness. Counts compare integers: S* = sum c_i x_i against 0, S or 2 S; for t* >= t, with
V* = n sum c_i x_i^2 - S*^2 and V alike, f(S* - S) V >= f(S) V* where f(x) = x |x|, in int64 where
the products fit and in Python integers where they do not. Ties are therefore counted as ties.

Against a margin. With a margin m, `lower > -m` of any definition is its test of non-inferiority at one-sided
alpha, and `lower > -m and upper < m` is equivalence (TOST), since the bounds invert the tests.

scipy.stats.bootstrap has percentile, basic and BCa intervals; it is not used, since its means are floats,
whose ties depend on the order of summation, its quantiles interpolate, and it has no p and no bootstrap-t.

B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, chapters 12, 13 and 16;
A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application, 1997, chapters 4 and 5;
B. Efron, Better bootstrap confidence intervals, JASA 82 (1987) 171-185.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from epc.compiler.contract.manifest import Side
from epc.runtime.statistics.bca import Correction
from epc.runtime.statistics.estimate import (
    NO_SPREAD_TEXT,
    Bounds,
    Estimate,
    Lattice,
    NoSpread,
    assemble,
    exact,
    p_of,
    side_text,
)
from epc.runtime.statistics.resamples import Resamples, resampled_sums
from epc.runtime.statistics.resampling import Quantiles, as_float

PDefinition = Literal["percentile", "shift", "studentized", "bca"]

_FORMULA: dict[PDefinition, str] = {
    "percentile": "p = (1 + #{mean* at or beyond 0}) / (B + 1), percentile bounds (Efron and Tibshirani 1993, ch. 13)",
    "shift": "p = (1 + #{mean* - mean at or beyond mean}) / (B + 1), basic bounds (Davison and Hinkley 1997, ch. 5)",
    "studentized": "p = (1 + #{t* at or beyond t}) / (B + 1) with t = mean / se, bootstrap-t bounds"
    " (Efron and Tibshirani 1993, ch. 12; Davison and Hinkley 1997, ch. 4)",
    "bca": "bias-corrected and accelerated bounds, jackknife acceleration (Efron 1987), p is the level at which the"
    " bound meets 0, at least 1 / (B + 1)",
}


def paired_bootstrap(
    differences: Lattice,
    *,
    p: PDefinition,
    side: Side,
    alpha: float,
    resamples: int,
    seed: int,
    limit: float,
    interval: float | None = None,
    shared: Resamples | None = None,
    chunk_rows: int | None = None,
) -> Estimate:
    """Estimate a paired contrast.

    `differences` are the n unit differences in the order of the units' names, `limit` is hi - lo of
    the metric's scale, `interval` the registered level of the displayed interval, which then is the
    percentile interval of the same resamples; `shared` holds the draws of a decision and `chunk_rows`
    bounds memory, and neither changes a result.
    """
    n, total, scatter = differences.n, differences.total, differences.scatter
    definition = (
        f"Paired bootstrap over {n} units, B = {resamples} resamples, PCG64 seed {seed}:"
        f" {_FORMULA[p]}; {side_text(side)}."
    )
    floor = Fraction(1, resamples + 1)
    if p in ("studentized", "bca") and scatter == 0:
        flat = NoSpread(differences=differences, limit=limit)
        return assemble(
            differences=differences, side=side, alpha=alpha, interval=interval, limit=limit, bounds=flat.bounds,
            p=flat.p(side, floor=floor), definition=definition + NO_SPREAD_TEXT, inverts=False,
        )  # fmt: skip

    columns = [differences.numerators]
    if p == "studentized":
        columns.append(tuple(x * x for x in differences.numerators))
    sums, *square_sums = resampled_sums(seed, resamples, columns, shared=shared, chunk_rows=chunk_rows)
    scale = n * differences.denominator
    mean = float(differences.mean)
    percentile = Quantiles(as_float(sums), (-limit, limit), scale)
    bounds = Bounds(low=percentile.low, high=percentile.high)
    found: Fraction | float
    match p:
        case "percentile":
            found = _share(side, resamples, lambda: sums <= 0, lambda: sums >= 0)
        case "shift":
            found = _share(side, resamples, lambda: sums >= 2 * total, lambda: sums <= 2 * total)
            ends = Quantiles(as_float(sums), (-math.inf, math.inf), scale)
            bounds = Bounds(low=lambda tail: 2 * mean - ends.high(tail), high=lambda tail: 2 * mean - ends.low(tail))
        case "studentized":
            shifted, spread = _shift_and_spread(sums, square_sums[0], n, total, differences)
            still = spread == 0
            left, right = _signed_square(shifted) * scatter, spread * (total * abs(total))
            found = _share(side, resamples, lambda: (left >= right) | still, lambda: (left <= right) | still)
            roots = np.sqrt(np.where(still, 1.0, as_float(spread)))
            t = as_float(shifted) / roots
            width = math.sqrt(scatter) / scale
            largest = Quantiles(np.where(still, np.inf, t), (-math.inf, math.inf))
            smallest = Quantiles(np.where(still, -np.inf, t), (-math.inf, math.inf)) if still.any() else largest
            bounds = Bounds(
                low=lambda tail: mean - largest.high(tail) * width, high=lambda tail: mean - smallest.low(tail) * width
            )
        case "bca":
            below, equal = int(np.count_nonzero(sums < total)), int(np.count_nonzero(sums == total))
            correction = Correction.of(differences, below, equal, resamples)
            found = p_of(
                side,
                *(
                    max(floor, exact(corrected.level(Fraction(1 + int(np.count_nonzero(beyond)), resamples + 1))))
                    for corrected, beyond in ((correction, sums <= 0), (correction.mirrored, sums >= 0))
                ),
            )
            bounds = Bounds(
                low=lambda tail: percentile.low(correction.tail(tail)),
                high=lambda tail: percentile.high(correction.mirrored.tail(tail)),
            )
        case _:
            assert_never(p)
    return assemble(
        differences=differences, side=side, alpha=alpha, interval=interval, limit=limit, bounds=bounds, p=found,
        percentile=None if p == "percentile" else Bounds(low=percentile.low, high=percentile.high),
        definition=definition,
    )  # fmt: skip


Extreme = Callable[[], NDArray[np.bool_]]


def _share(side: Side, resamples: int, greater: Extreme, less: Extreme) -> Fraction:
    """p from which resamples are extreme on either side; the side that is not tested is not counted."""

    def share(extreme: Extreme) -> Fraction:
        return Fraction(1 + int(np.count_nonzero(extreme())), resamples + 1)

    match side:
        case "greater":
            return share(greater)
        case "less":
            return share(less)
        case "two_sided":
            return p_of(side, share(greater), share(less))
        case _:
            assert_never(side)


def _shift_and_spread(
    sums: NDArray[Any], square_sums: NDArray[Any], n: int, total: int, differences: Lattice
) -> tuple[NDArray[Any], NDArray[Any]]:
    """S* - S and n Q* - S*^2 as integers wide enough for the products that compare t* with t.

    |S* - S| <= 2 n m and V, V* <= n^2 m^2 for m = max |x|, so every product is at most 4 n^4 m^4.
    """
    if 4 * (n * differences.largest) ** 4 >= 2**63:
        sums, square_sums = sums.astype(object), square_sums.astype(object)
    return sums - total, n * square_sums - sums * sums


def _signed_square(values: NDArray[Any]) -> NDArray[Any]:
    """x |x|: increasing in x, so it orders roots without taking them."""
    squares: NDArray[Any] = values * np.abs(values)
    return squares
