"""Sign-flip (paired randomization) test of the mean difference.

Under the null each difference is as likely to have the other sign. Flipping the units in A changes
the sum from S to S - 2 S_A, so "a flipped sum is at least the observed one" is S_A <= 0, and

    p = #{A : S_A <= 0} / 2^n          all 2^n subsets, the empty one included, up to n = 20
    p = (1 + #{S_A <= 0}) / (B + 1)    B random subsets beyond

(for "greater"). Bounds invert the test: the null mean m is kept while #{A : mean_A <= m} is large
enough, so the lower bound is the order statistic of subset means at floor(2^n tail), or
floor((B + 1) tail); the empty subset counts as extreme on either side.

R. A. Fisher, The Design of Experiments, 1935, section 21; J. A. Hartigan, Using subsample values as
typical values, JASA 64 (1969) 1303-1317.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epc.compiler.contract.manifest import Side
from epc.runtime.statistics.estimate import (
    Bounds,
    Estimate,
    InapplicableError,
    Lattice,
    assemble,
    p_of,
    side_text,
)
from epc.runtime.statistics.resampling import Quantiles, as_float, sign_matrix, weighted_sums

EXACT_UNITS = 20
"""Up to here all sign patterns are enumerated."""


def sign_flip(
    differences: Lattice,
    *,
    side: Side,
    alpha: float,
    resamples: int | None,
    seed: int | None,
    limit: float,
    interval: float | None = None,
) -> Estimate:
    """Estimate a paired contrast; `resamples` and `seed` are used above 20 units, where they must be given.

    `interval` is the registered level of the displayed interval, None for the one that pairs with the test.

    Raises InapplicableError where they are needed and were not declared.
    """
    n = differences.n
    if n <= EXACT_UNITS:
        sums, sizes = _all_subsets(differences.numerators)
        draws = 2**n - 1  # the empty subset is the "+ 1" of the formulas below
        how = f"all {2**n} sign patterns"
    elif resamples is None or seed is None:
        raise InapplicableError(
            f"sign_flip is exact up to {EXACT_UNITS} units; {n} units need declared resamples and seed"
        )
    else:
        sums, sizes = weighted_sums(sign_matrix(seed, n, resamples), [differences.numerators, [1] * n])
        draws = resamples
        how = f"{resamples} random sign patterns, PCG64 seed {seed}, p = (1 + count) / (B + 1)"
    empty = sizes == 0
    greater = Fraction(1 + int(np.count_nonzero(sums <= 0)), draws + 1)
    less = Fraction(1 + int(np.count_nonzero(sums >= 0)), draws + 1)
    means = as_float(sums) / np.where(empty, 1.0, as_float(sizes) * differences.denominator)
    for_low, for_high = (Quantiles(np.where(empty, end, means), (-limit, limit)) for end in (-np.inf, np.inf))
    return assemble(
        differences=differences, side=side, alpha=alpha, interval=interval, limit=limit, p=p_of(side, greater, less),
        bounds=Bounds(low=for_low.low, high=for_high.high),
        definition=f"Sign-flip test of the mean over {n} units, {how} (Fisher 1935, section 21); {side_text(side)}.",
    )  # fmt: skip


def _all_subsets(numerators: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sum and size of every non-empty subset."""
    wide = sum(abs(x) for x in numerators) >= 2**62
    sums: NDArray[Any] = np.zeros(1, dtype=object if wide else np.int64)
    sizes: NDArray[Any] = np.zeros(1, dtype=np.int64)
    for x in numerators:
        sums = np.concatenate([sums, sums + x])
        sizes = np.concatenate([sizes, sizes + 1])
    return sums[1:], sizes[1:]
