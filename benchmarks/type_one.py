"""Type-I error of every test of a paired contrast: the table that the recommended analysis rests on.

    python benchmarks/type_one.py [--simulations N] [--resamples B]

One JSON line a cell: {case, ours, published, standard_error, z, ok}; ours is the share of N simulated experiments
without an effect in which the one-sided test (alpha .05, "greater") rejects, standard_error that of ours and the
published figure together (the published one had 40,000 experiments), ok where they differ by less than 4 of them.
Exit code 1 when a cell is not ok.

The generator. A judge scores completions in whole points on 0-100. Each prompt has 21 completions an arm. Scores
scatter evenly within 22 points of their prompt's level, the control's and the treatment's alike, and

- symmetric: the treatment moves a prompt's level by -11, 0, 0 or 11, each with probability 1/4;
- right-skew: one prompt in eight reacts to the treatment, and its scores become bimodal: each completion has
  48 points more with probability 1/2; in every prompt the treatment also takes 3 points off, so that the mean
  effect is 0;
- left-skew: the mirror image.

Levels (27 for right-skew, 73 for left-skew, 50 for symmetric) keep every score on the scale, and cancel out of the
differences. Of the published figures' generator only this much is known: bimodal judge scores, symmetric or
skewed effects of mean 0. The constants above were fitted to the figures, once. At 40,000 experiments a cell, which
takes some minutes, 37 of the 42 agree within 4 standard errors. The others: at n = 8, right-skew, studentized
.022, bca .047 and sign flip .006 (the package enumerates the 256 patterns, whose largest p below .05 is .047); samples
as units, .250 at n = 8, left-skew, and .186 at n = 48, right-skew.

"samples as units" bootstraps the n x 21 differences between the k-th completions of both arms as if they were
independent: the mistake that the compiler refuses.

All experiments of a batch share one count matrix and one matrix product, a new seed for every batch. p is counted on
integers by the rules of epc.runtime.statistics; the first experiments of each cell are held against it, p by p.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr

from epc.runtime.statistics.estimate import Lattice
from epc.runtime.statistics.paired_bootstrap import paired_bootstrap
from epc.runtime.statistics.paired_t import paired_t
from epc.runtime.statistics.resampling import count_matrix, sign_matrix
from epc.runtime.statistics.sign_flip import sign_flip

ALPHA = 0.05
COMPLETIONS = 21
SCATTER = 22
BATCH = 250
PUBLISHED_SIMULATIONS = 40_000
SHAPES = ("symmetric", "right-skew", "left-skew")
PUBLISHED = {
    "percentile": {8: (0.087, 0.035, 0.255), 48: (0.056, 0.035, 0.082)},
    "shift": {8: (0.089, 0.023, 0.257), 48: (0.056, 0.026, 0.102)},
    "studentized": {8: (0.049, 0.028, 0.191), 48: (0.050, 0.044, 0.047)},
    "bca": {8: (0.086, 0.056, 0.248), 48: (0.055, 0.051, 0.059)},
    "paired t": {8: (0.053, 0.010, 0.205), 48: (0.052, 0.027, 0.087)},
    "sign flip": {8: (0.050, 0.010, 0.199), 48: (0.051, 0.026, 0.086)},
    "samples as units": {8: (0.210, 0.176, 0.224), 48: (0.203, 0.172, 0.202)},
}

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def experiments(shape: str, n: int, size: int, generator: np.random.Generator) -> Ints:
    """Treatment minus control of the k-th completions, in points: (size, n, COMPLETIONS)."""
    scores = generator.integers(-SCATTER, SCATTER + 1, (2, size, n, COMPLETIONS))
    differences = scores[0] - scores[1]
    if shape == "symmetric":
        level = generator.integers(0, 2, (2, size, n))
        moved: Ints = differences + 11 * (level[0] - level[1])[:, :, None]
        return moved
    reacts = (generator.random((size, n)) < 1 / 8)[:, :, None]
    differences += 48 * (reacts & (generator.random(differences.shape) < 1 / 2)) - 3
    skewed: Ints = -differences if shape == "left-skew" else differences
    return skewed


def resampled(x: Ints, seed: int, resamples: int) -> tuple[Floats, Floats]:
    """S* and Q* of every experiment and resample: (experiments, B) each, whole numbers."""
    counts = np.concatenate(list(count_matrix(seed, x.shape[1], resamples))).T
    return x.astype(np.float64) @ counts, (x * x).astype(np.float64) @ counts


def p_values(x: Ints, seed: int, resamples: int) -> Iterator[tuple[str, Floats]]:
    """Method -> p of each row of unit differences."""
    n, total = x.shape[1], x.sum(axis=1)
    scatter = n * (x * x).sum(axis=1) - total**2
    flat = np.where(total > 0, max(2.0**-n, 1 / (resamples + 1)), 1.0)
    sums, squares = resampled(x, seed, resamples)
    below = (sums <= 0).sum(axis=1)
    yield "percentile", (1 + below) / (resamples + 1)
    yield "shift", (1 + (sums >= 2 * total[:, None]).sum(axis=1)) / (resamples + 1)
    yield "bca", np.where(scatter == 0, flat, bca(x, sums, below, resamples))
    star = sums.astype(np.int64)
    spread = n * squares.astype(np.int64) - star**2
    shifted = star - total[:, None]
    if max(float((shifted**2).max()) * scatter.max(), float(spread.max()) * (total**2).max()) >= 2.0**63:
        sys.exit("the products that compare t* with t do not fit 64 bits")
    extreme = shifted * np.abs(shifted) * scatter[:, None] >= spread * (total * np.abs(total))[:, None]
    hits = (extreme | (spread == 0)).sum(axis=1)
    yield "studentized", np.where(scatter == 0, flat, (1 + hits) / (resamples + 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = total / np.sqrt(scatter / (n - 1))
    yield "paired t", np.where(scatter == 0, np.where(total > 0, 2.0**-n, 1.0), stdtr(n - 1, -t))
    if n <= 20:
        flips = np.array([[k >> i & 1 for i in range(n)] for k in range(1, 2**n)], dtype=np.float64)
    else:
        flips = np.concatenate(list(sign_matrix(seed, n, resamples)))
    yield "sign flip", (1 + (x.astype(np.float64) @ flips.T <= 0).sum(axis=1)) / (len(flips) + 1)


def bca(x: Ints, sums: Floats, below: Ints, resamples: int) -> Floats:
    n, total = x.shape[1], x.sum(axis=1)
    low, equal = (sums < total[:, None]).sum(axis=1), (sums == total[:, None]).sum(axis=1)
    bias = ndtri((1 + 2 * low + equal) / (2 * (resamples + 1)))
    centred = (n * x - total[:, None]).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        acceleration = (centred**3).sum(axis=1) / (6 * (centred**2).sum(axis=1) ** 1.5)
        y = ndtri((1 + below) / (resamples + 1)) - bias
        room = 1 + acceleration * y
        level = np.where(room > 0, ndtr(y / room - bias), np.where(y < 0, 0.0, 1.0))
    level = np.where(below == resamples, 1.0, level)
    return np.maximum(level, 1 / (resamples + 1))


def referee(x: Ints, seed: int, resamples: int) -> Iterator[tuple[str, float]]:
    """The same p-values from the package, for one experiment."""
    data = Lattice(numerators=tuple(x.tolist()), denominator=1)
    bounds: dict[str, Any] = {"side": "greater", "alpha": ALPHA, "limit": 1e6}
    for p in ("percentile", "shift", "studentized", "bca"):
        yield p, paired_bootstrap(data, p=p, resamples=resamples, seed=seed, **bounds).statistics["p"]
    yield "paired t", paired_t(data, **bounds).statistics["p"]
    yield "sign flip", sign_flip(data, resamples=resamples, seed=seed, **bounds).statistics["p"]


def rates(shape: str, n: int, simulations: int, resamples: int) -> dict[str, float]:
    """Method -> share of experiments that reject."""
    generator = np.random.default_rng([n, SHAPES.index(shape)])
    rejected = dict.fromkeys(PUBLISHED, 0)
    for batch, start in enumerate(range(0, simulations, BATCH)):
        completions = experiments(shape, n, min(BATCH, simulations - start), generator)
        units = completions.sum(axis=2)
        found = dict(p_values(units, batch, resamples))
        if batch == 0:
            for row in range(3):
                for method, p in referee(units[row], batch, resamples):
                    if not math.isclose(p, found[method][row], rel_tol=1e-9):
                        sys.exit(
                            f"{method} of {units[row].tolist()}: {found[method][row]!r} here, {p!r} in the package"
                        )
        sums, _ = resampled(completions.reshape(len(units), -1), batch, resamples)
        found["samples as units"] = (1 + (sums <= 0).sum(axis=1)) / (resamples + 1)
        for method, ps in found.items():
            rejected[method] += int((ps < ALPHA).sum())
    return {method: count / simulations for method, count in rejected.items()}


def main(say: Callable[[str], None] = print) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--simulations", type=int, default=4000, help="experiments a cell (default 4000)")
    parser.add_argument("--resamples", type=int, default=1999, help="B of each experiment (default 1999)")
    arguments = parser.parse_args()
    missed = 0
    for n in (8, 48):
        for column, shape in enumerate(SHAPES):
            for method, ours in rates(shape, n, arguments.simulations, arguments.resamples).items():
                published = PUBLISHED[method][n][column]
                variance = published * (1 - published)
                error = math.sqrt(variance * (1 / arguments.simulations + 1 / PUBLISHED_SIMULATIONS))
                z = (ours - published) / error
                ok = abs(z) < 4
                missed += not ok
                case = f"{method}, n = {n}, {shape}"
                line = {"case": case, "ours": round(ours, 4), "published": published}
                say(json.dumps({**line, "standard_error": round(error, 4), "z": round(z, 2), "ok": ok}))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
