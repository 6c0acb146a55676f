"""Paired bootstrap over units: percentile, shift and studentized.

d_i = treatment - control in unit i, n units; a resample draws n units with replacement, B times.

- percentile: p = (1 + #{mean* <= 0}) / (B + 1); bounds are quantiles of mean*.
- shift: p = (1 + #{mean* - mean >= mean}) / (B + 1); bounds are 2 mean minus quantiles of mean*.
- studentized (bootstrap-t): p = (1 + #{t* >= t}) / (B + 1) with t = mean / se, t* = (mean* - mean) / se*;
  bounds are mean minus quantiles of t* times se. A resample with se* = 0 counts as extreme on
  either side. Where the observed se is 0 see `estimate.NoSpread`, with p never below 1 / (B + 1).

(all for "greater"; "less" mirrors them). Quantiles are order statistics at floor((B + 1) tail) from
either end; where that is 0, the bound is the end of the scale. So for every definition and side,
reject (p < alpha) and a bound beyond 0 say the same, except where p equals alpha or se is 0.

Exactness. Counts compare integers: S* = sum c_i x_i against 0 or 2 S; for t* >= t, with
V* = n sum c_i x_i^2 - S*^2 and V alike, f(S* - S) V >= f(S) V* where f(x) = x |x|, in int64 where
the products fit and in Python integers where they do not. Ties are therefore counted as ties.

B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, chapters 12, 13 and 16;
A. C. Davison and D. V. Hinkley, Bootstrap Methods and their Application, 1997, chapters 4 and 5.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Literal, assert_never

import numpy as np
from numpy.typing import NDArray

from epc.compiler.contract.manifest import Side
from epc.runtime.statistics.estimate import (
    NO_SPREAD_TEXT,
    Bounds,
    Estimate,
    Lattice,
    NoSpread,
    assemble,
    p_of,
    rank,
    side_text,
)
from epc.runtime.statistics.resampling import as_float, count_matrix, order_statistic, weighted_sums

PDefinition = Literal["percentile", "shift", "studentized"]

_FORMULA: dict[PDefinition, str] = {
    "percentile": "p = (1 + #{mean* at or beyond 0}) / (B + 1), percentile bounds (Efron and Tibshirani 1993, ch. 13)",
    "shift": "p = (1 + #{mean* - mean at or beyond mean}) / (B + 1), basic bounds (Davison and Hinkley 1997, ch. 5)",
    "studentized": "p = (1 + #{t* at or beyond t}) / (B + 1) with t = mean / se, bootstrap-t bounds"
    " (Efron and Tibshirani 1993, ch. 12; Davison and Hinkley 1997, ch. 4)",
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
    chunk_rows: int | None = None,
) -> Estimate:
    """Estimate a paired contrast.

    `differences` are the n unit differences in the order of the units' names, `limit` is hi - lo of
    the metric's scale, `interval` the registered level of the displayed interval, which then is the
    percentile interval of the same resamples; `chunk_rows` bounds memory and changes no result.
    """
    n, total, scatter = differences.n, differences.total, differences.scatter
    definition = (
        f"Paired bootstrap over {n} units, B = {resamples} resamples, PCG64 seed {seed}:"
        f" {_FORMULA[p]}; {side_text(side)}."
    )
    if p == "studentized" and scatter == 0:
        flat = NoSpread(differences=differences, limit=limit)
        return assemble(
            differences=differences, side=side, alpha=alpha, interval=interval, limit=limit, bounds=flat.bounds,
            p=flat.p(side, floor=Fraction(1, resamples + 1)), definition=definition + NO_SPREAD_TEXT, inverts=False,
        )  # fmt: skip

    counts = count_matrix(seed, n, resamples, chunk_rows=chunk_rows)
    columns = [differences.numerators]
    if p == "studentized":
        columns.append(tuple(x * x for x in differences.numerators))
    sums, *square_sums = weighted_sums(counts, columns)
    scale = n * differences.denominator
    mean = float(differences.mean)
    means = as_float(sums) / scale
    percentile = percentile_bounds(means, ends=(-limit, limit))
    extreme_high: NDArray[np.bool_]
    extreme_low: NDArray[np.bool_]
    match p:
        case "percentile":
            extreme_high, extreme_low = sums <= 0, sums >= 0
            bounds = percentile
        case "shift":
            extreme_high, extreme_low = sums >= 2 * total, sums <= 2 * total

            def low(tail: Fraction) -> float:
                k = rank(resamples, tail)
                return -limit if k == 0 else 2 * mean - order_statistic(means, resamples + 1 - k)

            def high(tail: Fraction) -> float:
                k = rank(resamples, tail)
                return limit if k == 0 else 2 * mean - order_statistic(means, k)

            bounds = Bounds(low=low, high=high)
        case "studentized":
            shifted, spread = _shift_and_spread(sums, square_sums[0], n, total, differences)
            still = spread == 0
            left, right = _signed_square(shifted) * scatter, spread * (total * abs(total))
            extreme_high, extreme_low = (left >= right) | still, (left <= right) | still
            roots = np.sqrt(np.where(still, 1.0, as_float(spread)))
            t = as_float(shifted) / roots
            width = math.sqrt(scatter) / scale
            t_for_low, t_for_high = np.where(still, np.inf, t), np.where(still, -np.inf, t)

            def low(tail: Fraction) -> float:
                k = rank(resamples, tail)
                return -limit if k == 0 else mean - order_statistic(t_for_low, resamples + 1 - k) * width

            def high(tail: Fraction) -> float:
                k = rank(resamples, tail)
                return limit if k == 0 else mean - order_statistic(t_for_high, k) * width

            bounds = Bounds(low=low, high=high)
        case _:
            assert_never(p)
    greater = Fraction(1 + int(np.count_nonzero(extreme_high)), resamples + 1)
    less = Fraction(1 + int(np.count_nonzero(extreme_low)), resamples + 1)
    return assemble(
        differences=differences, side=side, alpha=alpha, interval=interval, limit=limit, bounds=bounds,
        percentile=None if p == "percentile" else percentile, p=p_of(side, greater, less), definition=definition,
    )  # fmt: skip


def percentile_bounds(means: NDArray[np.float64], *, ends: tuple[float, float]) -> Bounds:
    """Quantiles of resampled means: order statistics at floor((B + 1) tail), the end of the scale where that is 0."""
    resamples = len(means)

    def low(tail: Fraction) -> float:
        k = rank(resamples, tail)
        return ends[0] if k == 0 else order_statistic(means, k)

    def high(tail: Fraction) -> float:
        k = rank(resamples, tail)
        return ends[1] if k == 0 else order_statistic(means, resamples + 1 - k)

    return Bounds(low=low, high=high)


def _shift_and_spread(
    sums: NDArray[Any], square_sums: NDArray[Any], n: int, total: int, differences: Lattice
) -> tuple[NDArray[Any], NDArray[Any]]:
    """S* - S and n Q* - S*^2 as integers wide enough for the products that compare t* with t.

    |S* - S| <= 2 n m and V, V* <= n^2 m^2 for m = max |x|, so every product is at most 4 n^4 m^4.
    """
    largest = max(abs(x) for x in differences.numerators)
    if 4 * (n * largest) ** 4 >= 2**63:
        sums, square_sums = sums.astype(object), square_sums.astype(object)
    return sums - total, n * square_sums - sums * sums


def _signed_square(values: NDArray[Any]) -> NDArray[Any]:
    """x |x|: increasing in x, so it orders roots without taking them."""
    squares: NDArray[Any] = values * np.abs(values)
    return squares
