"""Random bits of simulated experiments, and what is looked up with them.

Every purpose (units of a metric, samples of an arm, missing scores ...) has a stream of its own: raw PCG64 words
seeded by SHA-256 of the simulation's seed and the purpose. Experiment e owns the words from e x width on, so no
digit depends on how experiments are cut into chunks, and two truths that share a purpose share its draws (common
random numbers: their difference is the truths', not chance's). A word is four 16-bit draws, so probabilities are
exact to 1 / 65,536.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

LEVELS: Final = 1 << 16
"""Values of a draw."""
GRID: Final = 1 << 12
REACH: Final = 8.0
"""Standard deviations that the table of a marginal distribution spans on either side."""

Floats = NDArray[np.float64]
Draws = NDArray[np.uint16]


def draws(purpose: tuple[object, ...], first: int, experiments: int, each: int) -> Draws:
    """(experiments, each) 16-bit draws, from experiment `first` on. Purposes that differ are independent."""
    digest = hashlib.sha256("/".join(map(str, purpose)).encode()).digest()
    generator = np.random.PCG64(int.from_bytes(digest[:16], "little"))
    width = (each + 3) // 4
    generator.advance(first * width)
    words = generator.random_raw(experiments * width).reshape(experiments, width)
    return words.astype("<u8", copy=False).view("<u2")[:, :each]


@functools.cache
def _normal() -> Floats:
    from scipy.special import ndtri

    found: Floats = ndtri((np.arange(LEVELS) + 0.5) / LEVELS)
    return found


def normal(values: Draws) -> Floats:
    """Each draw as a standard normal deviate."""
    found: Floats = _normal()[values]
    return found


def happens(values: Draws, probability: Floats | float) -> NDArray[np.bool_]:
    """Whether each draw is among the first `probability` of all; 0 is never and 1 always. Broadcasts."""
    levels = np.rint(np.asarray(probability, dtype=np.float64) * LEVELS)
    last = np.maximum(levels - 1, 0).astype(np.uint16)
    found: NDArray[np.bool_] = values <= last
    if (levels == 0).any():
        found &= levels > 0
    return found


@functools.lru_cache(maxsize=256)
def marginal(mean: float, sd: float, low: float, high: float) -> Floats:
    """Quantiles of a bounded distribution at GRID + 1 standard normal deviates from -REACH to REACH.

    A beta distribution on [low, high] with this mean and standard deviation (method of moments). Where the mean
    allows no such standard deviation, the two ends with this mean: the largest there is.
    """
    from scipy.special import betaincinv, ndtr

    span = high - low
    share = (mean - low) / span
    grid = np.linspace(-REACH, REACH, GRID + 1)
    if share <= 0 or share >= 1 or sd == 0:
        return np.full(GRID + 1, min(max(mean, low), high))
    most = share * (1 - share)
    variance = (sd / span) ** 2
    if variance >= most * (1 - 1e-6):
        return np.where(ndtr(-grid) < share, high, low)
    total = most / variance - 1
    upper = betaincinv(share * total, (1 - share) * total, ndtr(np.minimum(grid, 0)))
    lower = 1 - betaincinv((1 - share) * total, share * total, ndtr(-np.maximum(grid, 0)))
    found: Floats = low + span * np.where(grid < 0, upper, lower)
    return found


def at(table: Floats, deviates: Floats) -> Floats:
    """The quantiles of a table at standard normal deviates, linear in between."""
    place = (deviates + REACH) * (GRID / (2 * REACH))
    np.clip(place, 0, GRID - 1e-9, out=place)
    index = place.astype(np.int32)
    place -= index
    base = table[index]
    found: Floats = base + place * (table[index + 1] - base)
    return found


def largest_sd(mean: float, low: float, high: float) -> float:
    """The largest standard deviation of anything on [low, high] with this mean: that of the two ends."""
    return float(max((mean - low) * (high - mean), 0.0) ** 0.5)
