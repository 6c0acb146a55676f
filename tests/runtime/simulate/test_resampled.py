"""Tallies over resamples against the engine, on lattices from coarse to the fixed point, ties included."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from epc.runtime.simulate import resampled
from epc.runtime.simulate.resampled import (
    DOUBLE,
    Ints,
    Resample,
    Tally,
    coarse_t_tally,
    exact_products,
    fine_t_tally,
    may_stand_still,
    sums_tally,
)
from epc.runtime.statistics.estimate import Lattice
from epc.runtime.statistics.paired_bootstrap import paired_bootstrap

RESAMPLES = 999
SEED = 11
ROWS = 12


def data(units: int, size: int) -> Ints:
    """Rows of differences up to `size`: normal ones, heavy-tailed ones, few distinct ones, and mirrored pairs."""
    generator = np.random.default_rng(units + size % 1000)
    rows = np.concatenate(
        [
            generator.normal(0.2, 0.4, (3, units)), generator.standard_cauchy((3, units)).clip(-1, 1),
            generator.choice([-1.0, 0.0, 0.5, 1.0], (3, units)), np.tile([[0.9, -0.7], [1.0, 0.3], [0.2, -0.1]], (1, units // 2)),
        ]
    )  # fmt: skip
    found: Ints = np.rint(rows.clip(-1, 1) * size).astype(np.int64)
    return found


def engine(row: Ints, p: Literal["percentile", "shift", "studentized"], side: Literal["greater", "less"]) -> float:
    found = paired_bootstrap(
        Lattice(numerators=tuple(map(int, row)), denominator=1), p=p, side=side, alpha=0.05, resamples=RESAMPLES, seed=SEED,
        limit=float(DOUBLE),
    )  # fmt: skip
    return found.statistics["p"]


SIZES = [1, 8, 5_000, 10**7, 10**11]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("units", [8, 24, 48])
def test_sums_are_counted_as_the_engine_counts_them(units: int, size: int) -> None:
    x, resample = data(units, size), Resample.of(SEED, units, RESAMPLES)
    percentile = sums_tally(resample, x, np.zeros(ROWS, dtype=np.int64), set(), set())
    shift = sums_tally(resample, x, 2 * x.sum(axis=1), set(), set())
    for row in range(ROWS):
        assert (1 + percentile.at_most[row]) / (RESAMPLES + 1) == engine(x[row], "percentile", "greater")
        assert (1 + percentile.at_least[row]) / (RESAMPLES + 1) == engine(x[row], "percentile", "less")
        assert (1 + shift.at_least[row]) / (RESAMPLES + 1) == engine(x[row], "shift", "greater")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("units", [8, 24, 48])
def test_t_is_counted_as_the_engine_counts_it(units: int, size: int) -> None:
    x, resample = data(units, size), Resample.of(SEED, units, RESAMPLES)
    varies = (x != x[:, :1]).any(axis=1)
    coarse = varies & exact_products(x)
    fine = varies & ~may_stand_still(resample, x)
    assert (coarse | fine).any() or units == 8
    for rows, tally in ((coarse, coarse_t_tally), (fine, fine_t_tally)):
        mine = x[rows]
        found = tally(resample, mine, set(), set())
        for place, row in enumerate(mine):
            assert (1 + found.at_least[place]) / (RESAMPLES + 1) == engine(row, "studentized", "greater")
            assert (1 + found.at_most[place]) / (RESAMPLES + 1) == engine(row, "studentized", "less")


def test_what_float32_cannot_settle_is_settled_in_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Differences of which a resample has exactly the observed t."""
    row = [-2, 2, 0, 2, -1, -2, 2, -2, -2, 2, 2, 3, 1, -1, -1, -1, -2, 3, 3, 1, 2, 0, 3, 0]
    x, resample = np.array([row]), Resample.of(SEED, 24, RESAMPLES)
    asked: list[int] = []
    settle = resampled._t_sign

    def recorded(differences: Ints, counts: NDArray[np.float32]) -> int:
        asked.append(settle(differences, counts))
        return asked[-1]

    monkeypatch.setattr(resampled, "_t_sign", recorded)
    found = fine_t_tally(resample, x, set(), set())
    assert asked
    assert 0 in asked
    assert (1 + found.at_least[0]) / (RESAMPLES + 1) == engine(x[0], "studentized", "greater")


def test_order_statistics() -> None:
    x, resample = data(24, 5_000)[:3], Resample.of(SEED, 24, RESAMPLES)
    found = sums_tally(resample, x, np.zeros(3, dtype=np.int64), {25, 50}, {10})
    ordered = np.sort(x @ resample.counts.astype(np.int64), axis=1)
    for k in (25, 50):
        assert np.array_equal(found.low[k], ordered[:, k - 1])
    assert np.array_equal(found.high[10], ordered[:, -10])


def test_no_digit_depends_on_blocks_or_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    x, resample = data(48, 5_000), Resample.of(SEED, 48, RESAMPLES)
    zero = np.zeros(ROWS, dtype=np.int64)

    def tallies() -> list[Tally]:
        return [sums_tally(resample, x, zero, {25}, set()), fine_t_tally(resample, x, {25}, set())]

    whole = tallies()
    monkeypatch.setattr(resampled, "BLOCK", 2 * RESAMPLES)
    monkeypatch.setattr(resampled, "TILE", 77)
    for workers in (1, 3):
        monkeypatch.setattr(resampled, "WORKERS", workers)
        for before, after in zip(whole, tallies(), strict=True):
            assert np.array_equal(before.at_least, after.at_least)
            assert np.array_equal(before.at_most, after.at_most)
            assert np.array_equal(before.low[25], after.low[25])
