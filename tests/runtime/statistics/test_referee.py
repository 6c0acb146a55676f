"""Every resampler against an exact referee: the law of the resampled statistic, computed without drawing."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import pytest

from epc.compiler.contract.manifest import Side
from epc.runtime.statistics.cluster_bootstrap import (
    ClusterP,
    Group,
    Tree,
    Weights,
    cluster_bootstrap,
    two_level_bootstrap,
)
from epc.runtime.statistics.estimate import Lattice, on_lattice
from epc.runtime.statistics.paired_bootstrap import PDefinition, paired_bootstrap
from epc.runtime.statistics.resamples import GROUPED_FROM

Law = dict[int, Fraction]
"""Value of an integer sum -> its probability."""


def convolved(numerators: Sequence[int], draws: int) -> Law:
    """The law of the sum of `draws` values drawn with replacement, by one power of one integer.

    The polynomial sum of z^x over the units, at z = 2^bits with room for n^draws in each coefficient.
    """
    low, n = min(numerators), len(numerators)
    bits = draws * n.bit_length() + 1
    power = sum(1 << (bits * (x - low)) for x in numerators) ** draws
    top = draws * (max(numerators) - low)
    mask = (1 << bits) - 1
    counts = {s: (power >> (bits * s)) & mask for s in range(top + 1)}
    assert sum(counts.values()) == n**draws
    return {s + draws * low: Fraction(count, n**draws) for s, count in counts.items() if count}


@functools.cache
def fourier(numerators: tuple[int, ...]) -> Law:
    """The same law for many units, by Fourier transform: right to about 1e-12."""
    low, n = min(numerators), len(numerators)
    size = 1 << (n * (max(numerators) - low) + 1).bit_length()
    mass = np.bincount(np.array(numerators) - low, minlength=size) / n
    law = np.fft.irfft(np.fft.rfft(mass) ** n, size)
    return {s + n * low: Fraction(float(p)) for s, p in enumerate(law.tolist()) if p > 1e-15}


def expected_p(law: Law, data: Lattice, p: PDefinition, side: Side) -> float:
    """p with infinitely many resamples."""
    total = data.total
    if side == "less":
        law, total = {-s: q for s, q in law.items()}, -total
        data = Lattice(numerators=tuple(-x for x in data.numerators), denominator=data.denominator)
    at_most = [(s, q) for s, q in law.items() if (s <= 0 if p != "shift" else s >= 2 * total)]
    mass = float(sum(q for _, q in at_most))
    if p != "bca" or mass == 1:
        return mass
    normal = NormalDist()
    below = sum((q for s, q in law.items() if s < total), Fraction(0)) + law.get(total, Fraction(0)) / 2
    bias = normal.inv_cdf(float(below))
    x = np.array(data.numerators, dtype=float)
    centred = x - x.mean()
    acceleration = (centred**3).sum() / (6 * (centred**2).sum() ** 1.5)
    y = normal.inv_cdf(mass) - bias
    return normal.cdf(y / (1 + acceleration * y) - bias)


DATA = {
    "Darwin": [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48],
    "sleep": [12, 24, 13, 13, 0, 10, 18, 8, 46, 14],
    "ties at 0": [0, 0, 0, 0, 0, 1, 1, -1, 2, 0, 0, 1],
    "skewed": [1, 1, 1, 1, 1, 1, 1, -9, 1, 1, 1, 3, 1, 1, -8, 1],
    "binary": [1, 0, 0, -1, 1, 1, 0, 0, 0, 1, -1, 0, 1, 1, 0, 0, 0, 0, 1, 0, -1, 0, 1, 0],
    "eighths": [3, -1, 4, 1, -5, 2, 6, -2, 3, 5, 3, -4, 7, 0, 2, -3, 1, 4, -1, 2, 6, -2, 3, 1],
}
LAWS = {name: convolved(numerators, len(numerators)) for name, numerators in DATA.items()}


@pytest.mark.parametrize("side", ["greater", "less"])
@pytest.mark.parametrize("p", ["percentile", "shift", "bca"])
@pytest.mark.parametrize("name", DATA)
def test_the_paired_bootstrap(name: str, p: PDefinition, side: Side) -> None:
    data, resamples = Lattice(numerators=tuple(DATA[name]), denominator=8), 60_000
    exact = expected_p(LAWS[name], data, p, side)
    found = paired_bootstrap(data, p=p, side=side, alpha=0.025, resamples=resamples, seed=4, limit=100.0).statistics[
        "p"
    ]
    # The bias of BCa is estimated from the same resamples, which adds to the error of its p.
    error = math.sqrt(exact * (1 - exact) / resamples) * (3 if p == "bca" else 1)
    assert abs(found - exact) <= 4 * error + 2 / resamples


def test_fourier_and_integer_convolution_agree() -> None:
    for numerators in DATA.values():
        one, other = convolved(numerators, len(numerators)), fourier(tuple(numerators))
        assert max(abs(float(one[s] - other.get(s, Fraction(0)))) for s in one) < 1e-12


def many_units(n: int, spread: int) -> Lattice:
    """Values in [-spread, spread] and a few that come once, so that some are drawn one by one."""
    words = [int(word) for word in np.random.PCG64(12).random_raw(n)]
    values = [word % (2 * spread + 1) - spread + (word >> 32) % 2 for word in words]
    return Lattice(numerators=(*values[: n - 4], 7 * spread, -6 * spread, 5 * spread, -7 * spread), denominator=8)


@pytest.mark.parametrize("p", ["percentile", "shift"])
@pytest.mark.parametrize(("n", "spread"), [(GROUPED_FROM, 2), (GROUPED_FROM, 40), (1500, 9)])
def test_many_units_drawn_by_value(n: int, spread: int, p: PDefinition) -> None:
    data, resamples = many_units(n, spread), 20_000
    assert min(Counter(data.numerators).values()) < 16 <= max(Counter(data.numerators).values())
    # Four times finer, and moved to about 1.8 standard errors above 0.
    effect = round(7.2 * math.sqrt(data.scatter / n**3) - 4 * data.total / n)
    moved = Lattice(numerators=tuple(4 * x + effect for x in data.numerators), denominator=32)
    exact = expected_p(fourier(moved.numerators), moved, p, "greater")
    found = paired_bootstrap(
        moved, p=p, side="greater", alpha=0.025, resamples=resamples, seed=3, limit=1e6
    ).statistics["p"]
    assert 0.001 < exact < 0.2
    assert abs(found - exact) <= 4 * math.sqrt(exact * (1 - exact) / resamples) + 2 / resamples


# ------------------------------------------------------------------ nested data


def groups(*values: Sequence[int]) -> dict[str, Group]:
    return {f"g{i}": Group(treatment=tuple(Fraction(x, 4) for x in group)) for i, group in enumerate(values)}


Draw = tuple[Fraction, list[tuple[Fraction, Fraction]]]
"""A resample: its probability, and its values with their weights, which add up to 1."""


def all_draws(tree: Tree | Group, stages: int) -> list[Draw]:
    """Every resample below a node, of which `stages` levels are drawn."""
    if isinstance(tree, Group):
        children: list[list[Draw]] = [[(Fraction(1), [(Fraction(1), x)])] for x in tree.treatment]
    else:
        children = [all_draws(tree[name], stages - 1) for name in sorted(tree)]
    n = len(children)
    picks = list(itertools.product(range(n), repeat=n)) if stages > 0 else [tuple(range(n))]
    found: list[Draw] = []
    for pick in picks:
        for parts in itertools.product(*(children[i] for i in pick)):
            probability = math.prod((part for part, _ in parts), start=Fraction(1, len(picks)))
            found.append((probability, [(weight / n, value) for _, part in parts for weight, value in part]))
    return found


@functools.cache
def draws_of(tree: str, stages: int) -> list[Draw]:
    return all_draws(TREES[tree], stages)


def exact_cluster_p(tree: str, stages: int, weights: Weights, p: ClusterP) -> Fraction:
    def theta(values: list[tuple[Fraction, Fraction]]) -> Fraction:
        if weights == "size":
            return sum((value for _, value in values), Fraction(0)) / len(values)
        return sum((weight * value for weight, value in values), Fraction(0))

    ((_, observed),) = draws_of(tree, 0)
    twice = 2 * theta(observed)
    draws = draws_of(tree, stages)
    assert sum(probability for probability, _ in draws) == 1
    extreme = [
        probability
        for probability, values in draws
        if (theta(values) <= 0 if p == "percentile" else theta(values) >= twice)
    ]
    return sum(extreme, Fraction(0))


TREES: dict[str, Tree] = {
    "flat": groups([3, 1], [-2], [4, -3]),
    "deep": {"a": groups([3, -1], [2]), "b": groups([-4, 1], [1, 1])},
}


@pytest.mark.parametrize("p", ["percentile", "shift"])
@pytest.mark.parametrize("weights", ["equal", "size"])
@pytest.mark.parametrize(("tree", "stages"), [("flat", 1), ("flat", 2), ("deep", 1), ("deep", 2), ("deep", 3)])
def test_the_cluster_bootstrap(tree: str, stages: int, weights: Weights, p: ClusterP) -> None:
    resamples = 40_000
    exact = float(exact_cluster_p(tree, stages, weights, p))
    found = cluster_bootstrap(
        TREES[tree], levels=("document", "item") if tree == "flat" else ("seed", "document", "item"), stages=stages, weights=weights, p=p, side="greater",
        alpha=0.025, resamples=resamples, seed=2, limit=10.0,
    )  # fmt: skip
    assert 0 < exact < 1
    error = math.sqrt(exact * (1 - exact) / resamples)
    assert abs(found.statistics["p"] - exact) <= 4 * error + 2 / resamples


@pytest.mark.parametrize("weights", ["equal", "size"])
def test_the_two_level_bootstrap(weights: Weights) -> None:
    """Units share their draws, arms do not: every resample of two units with up to three samples an arm."""
    units = {
        "a": Group(treatment=(Fraction(5), Fraction(1)), control=(Fraction(2), Fraction(0), Fraction(4))),
        "b": Group(treatment=(Fraction(3), Fraction(-2), Fraction(4)), control=(Fraction(1), Fraction(3))),
    }
    exact, chances = 0.0, {}
    for name, group in units.items():
        assert group.control is not None
        arms = (group.treatment, group.control)
        chances[name] = [list(itertools.product(arm, repeat=len(arm))) for arm in arms]
    for first, second in itertools.product(units, repeat=2):
        (t1, c1), (t2, c2) = chances[first], chances[second]
        ways = 4 * len(t1) * len(c1) * len(t2) * len(c2)
        for a, b, c, d in itertools.product(t1, c1, t2, c2):
            if weights == "equal":
                star = (
                    Fraction(sum(a), len(a))
                    - Fraction(sum(b), len(b))
                    + Fraction(sum(c), len(c))
                    - Fraction(sum(d), len(d))
                )
            else:
                star = Fraction(sum(a + c), len(a + c)) - Fraction(sum(b + d), len(b + d))
            exact += (star <= 0) / ways
    found = two_level_bootstrap(
        units, weights=weights, p="percentile", side="greater", alpha=0.025, resamples=40_000, seed=8, limit=10.0
    )
    assert found.statistics["p"] == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 40_000))


def test_clusters_of_one_value_are_the_paired_bootstrap() -> None:
    """The same law as drawing the values themselves."""
    values = DATA["eighths"]
    tree = {f"c{i:02d}": Group(treatment=(Fraction(x, 8),)) for i, x in enumerate(values)}
    exact = expected_p(LAWS["eighths"], on_lattice([Fraction(x, 8) for x in values]), "percentile", "greater")
    for stages in (1, 2):
        found = cluster_bootstrap(
            tree, levels=("document", "item"), stages=stages, weights="equal", p="percentile", side="greater",
            alpha=0.025, resamples=60_000, seed=stages, limit=10.0,
        )  # fmt: skip
        assert found.statistics["p"] == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 60_000))
