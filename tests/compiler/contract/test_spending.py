"""Alpha spending: published boundaries, and that what is spent adds up."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest

from epc.compiler.contract.spending import Spending, nominal_levels, spent, units_at

FIFTHS = (0.2, 0.4, 0.6, 0.8, 1.0)


@pytest.mark.parametrize(
    ("looks", "alpha", "two_sided", "spending", "boundaries"),
    [
        # D. Reboussin, D. DeMets, K. Kim and K. Lan, Computations for group sequential boundaries using the Lan-DeMets
        # spending function method, Controlled Clinical Trials 21 (2000) 190-207; the package ldbounds.
        (FIFTHS, 0.05, True, "obrien_fleming", (4.8769, 3.3569, 2.6803, 2.2898, 2.0310)),
        (FIFTHS, 0.05, True, "pocock", (2.4380, 2.4268, 2.4101, 2.3966, 2.3859)),
        ((0.5, 1.0), 0.025, False, "obrien_fleming", (2.9626, 1.9686)),
        ((0.25, 0.5, 0.75, 1.0), 0.025, False, "obrien_fleming", (4.3326, 2.9631, 2.3590, 2.0141)),
    ],
)
def test_published_boundaries(
    looks: tuple[float, ...], alpha: float, two_sided: bool, spending: Spending, boundaries: tuple[float, ...]
) -> None:
    sides = 2 if two_sided else 1
    levels = nominal_levels(looks, alpha=alpha, two_sided=two_sided, spending=spending)
    found = [NormalDist().inv_cdf(1 - level / sides) for level in levels]
    assert found == pytest.approx(boundaries, abs=2e-4)


@pytest.mark.parametrize("spending", ["obrien_fleming", "pocock"])
def test_one_look_at_the_end_is_the_test_itself(spending: Spending) -> None:
    assert nominal_levels((1.0,), alpha=0.025, two_sided=False, spending=spending) == (0.025,)
    assert spent(1.0, 0.025, spending) == pytest.approx(0.025, abs=1e-15)


@pytest.mark.parametrize("spending", ["obrien_fleming", "pocock"])
@pytest.mark.parametrize("looks", [(0.5, 1.0), (0.3, 0.9, 1.0), (0.01, 0.02, 1.0)])
def test_a_look_costs_the_last_one_something_and_never_more_than_it_spent(
    looks: tuple[float, ...], spending: Spending
) -> None:
    levels = nominal_levels(looks, alpha=0.025, two_sided=False, spending=spending)
    assert levels[0] == pytest.approx(spent(looks[0], 0.025, spending), rel=1e-6)
    assert all(0 <= level <= 0.025 for level in levels)
    assert levels[-1] >= spent(1.0, 0.025, spending) - spent(looks[-2], 0.025, spending) - 1e-9


def test_the_levels_keep_alpha_in_a_simulated_motion() -> None:
    import numpy as np

    looks = np.array([0.4, 0.7, 1.0])
    levels = nominal_levels(tuple(looks), alpha=0.05, two_sided=False, spending="pocock")
    steps = np.random.default_rng(7).normal(size=(200_000, 3)) * np.sqrt(np.diff(looks, prepend=0))
    z = steps.cumsum(axis=1) / np.sqrt(looks)
    crossed = z > [NormalDist().inv_cdf(1 - level) for level in levels]
    assert crossed.any(axis=1).mean() == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / 200_000))


@pytest.mark.parametrize(
    ("share", "planned", "units"),
    [(0.8, 24, 20), (0.79, 24, 19), (0.5, 24, 12), (0.5, 25, 13), (0.7, 10, 7), (0.29, 100, 29), (1.0, 48, 48)],
)
def test_a_look_has_at_least_its_share(share: float, planned: int, units: int) -> None:
    """0.7 x 10 and 0.29 x 100 are whole as they are written, and not as binary fractions."""
    assert units_at(share, planned) == units
