"""Training seeds crossed with units, and samples within fixed units: against every possible draw, and in any order."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from fractions import Fraction
from math import sqrt

import numpy as np
import pytest

from epc.runtime.statistics.cluster_bootstrap import ClusterP, Group
from epc.runtime.statistics.crossed_bootstrap import crossed_bootstrap
from epc.runtime.statistics.estimate import InapplicableError
from epc.runtime.statistics.resamples import Resamples
from epc.runtime.statistics.stratified_bootstrap import stratified_bootstrap

DIFFERENCES = {"1": [3, -1, 0], "2": [2, 1, -4], "17": [5, -2, 1]}
TREATMENT = {"a": (3, 1, 2), "b": (0, 4)}
CONTROL = {"a": (2, 1), "b": (1, 0, 3)}
B = 40_000


def cells(rows: dict[str, list[int]]) -> dict[str, dict[str, Fraction]]:
    return {seed: {f"u{i}": Fraction(x) for i, x in enumerate(row)} for seed, row in rows.items()}


def groups() -> dict[str, Group]:
    return {
        unit: Group(treatment=tuple(map(Fraction, TREATMENT[unit])), control=tuple(map(Fraction, CONTROL[unit])))
        for unit in TREATMENT
    }


def every_crossed_draw() -> list[Fraction]:
    rows = list(DIFFERENCES.values())
    draws = list(itertools.product(range(3), repeat=3))
    return [Fraction(sum(rows[s][u] for s in seeds for u in units), 9) for seeds in draws for units in draws]


def every_sample_draw() -> list[Fraction]:
    """One fewer than there are, in each arm of each unit."""

    def means(values: Sequence[int]) -> list[Fraction]:
        n = len(values) - 1
        return [Fraction(sum(drawn), n) for drawn in itertools.product(values, repeat=n)]

    strata = [means(TREATMENT["a"]), means(CONTROL["a"]), means(TREATMENT["b"]), means(CONTROL["b"])]
    return [(ta - ca + tb - cb) / 2 for ta, ca, tb, cb in itertools.product(*strata)]


def share(thetas: Sequence[Fraction], theta: Fraction, p: ClusterP) -> float:
    extreme = [t <= 0 if p == "percentile" else t >= 2 * theta for t in thetas]
    return sum(extreme) / len(extreme)


@pytest.mark.parametrize("p", ["percentile", "shift"])
def test_every_draw_of_seeds_and_units(p: ClusterP) -> None:
    found = crossed_bootstrap(cells(DIFFERENCES), p=p, side="greater", alpha=0.05, resamples=B, seed=3, limit=10)
    exact = share(every_crossed_draw(), Fraction(5, 9), p)
    assert found.statistics["delta"] == pytest.approx(5 / 9, abs=1e-12)
    assert found.statistics["p"] == pytest.approx(exact, abs=4 * sqrt(exact * (1 - exact) / B))


@pytest.mark.parametrize("p", ["percentile", "shift"])
def test_every_draw_of_samples(p: ClusterP) -> None:
    found = stratified_bootstrap(groups(), p=p, side="greater", alpha=0.05, resamples=B, seed=3, limit=10)
    theta = (Fraction(6, 3) - Fraction(3, 2) + Fraction(4, 2) - Fraction(4, 3)) / 2
    exact = share(every_sample_draw(), theta, p)
    assert found.statistics["delta"] == pytest.approx(float(theta), abs=1e-12)
    assert found.statistics["p"] == pytest.approx(exact, abs=4 * sqrt(exact * (1 - exact) / B))


def test_the_variance_of_fixed_units_is_that_of_their_samples() -> None:
    """One draw fewer than there are makes the bootstrap's variance the usual estimate, s^2 / n in each stratum."""
    thetas = [float(theta) for theta in every_sample_draw()]
    usual = sum(
        np.var(arm, ddof=1) / len(arm) for unit in TREATMENT for arm in (TREATMENT[unit], CONTROL[unit])
    ) / len(TREATMENT) ** 2  # fmt: skip
    assert np.var(thetas) == pytest.approx(usual, rel=1e-12)


def test_neither_order_nor_sharing_changes_a_digit() -> None:
    shuffled = random.Random(5)
    mixed = {s: dict(shuffled.sample(list(row.items()), 3)) for s, row in reversed(cells(DIFFERENCES).items())}
    first = crossed_bootstrap(
        cells(DIFFERENCES), p="shift", side="two_sided", alpha=0.05, resamples=999, seed=3, limit=10
    )
    other = crossed_bootstrap(
        mixed, p="shift", side="two_sided", alpha=0.05, resamples=999, seed=3, limit=10, shared=Resamples()
    )
    assert first == other
    turned = {u: Group(treatment=g.treatment[::-1], control=(g.control or ())[::-1]) for u, g in groups().items()}
    options = {"p": "percentile", "side": "less", "alpha": 0.05, "resamples": 999, "seed": 3, "limit": 10}
    assert stratified_bootstrap(groups(), **options) == stratified_bootstrap(turned, **options)  # type: ignore[arg-type]


def test_crossed_seeds_keep_the_level_that_nested_ones_lose() -> None:
    """No effect, units and cells vary, seeds do not: five seeds and 40 units at alpha .05, 400 experiments."""
    rng, rejected = np.random.default_rng(11), 0
    for _ in range(400):
        noise = rng.normal(size=40)[None] + rng.normal(size=(5, 40))
        rows = {str(s): [round(1000 * x) for x in 100 * row] for s, row in enumerate(noise)}
        found = crossed_bootstrap(
            cells(rows), p="percentile", side="greater", alpha=0.05, resamples=499, seed=1, limit=10**7
        )
        rejected += found.statistics["reject"] == 1
    assert rejected <= 32, "more than .08: four standard errors above .05"


@pytest.mark.parametrize(
    ("rows", "says"),
    [({"1": [1, 2]}, "at least two"), ({"1": [1, 2], "2": [1]}, "the same units"), ({}, "at least two")],
)
def test_seeds_that_cannot_be_crossed(rows: dict[str, list[int]], says: str) -> None:
    with pytest.raises(InapplicableError, match=says):
        crossed_bootstrap(cells(rows), p="shift", side="less", alpha=0.05, resamples=99, seed=1, limit=10)


def test_a_unit_with_one_sample_has_no_spread() -> None:
    alone = {"a": Group(treatment=(Fraction(1),), control=(Fraction(0), Fraction(1)))}
    with pytest.raises(InapplicableError, match="unit a has 1 samples"):
        stratified_bootstrap(alone, p="shift", side="less", alpha=0.05, resamples=99, seed=1, limit=1)
