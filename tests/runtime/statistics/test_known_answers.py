"""Published results and exact referees for every method."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from epc.compiler.contract.manifest import Side
from epc.runtime.statistics.bootstrap import bootstrap
from epc.runtime.statistics.estimate import Lattice, on_lattice
from epc.runtime.statistics.fisher import fisher_two_sided
from epc.runtime.statistics.newcombe_paired import PairedTable, newcombe_paired
from epc.runtime.statistics.paired_bootstrap import PDefinition, paired_bootstrap
from epc.runtime.statistics.paired_t import paired_t
from epc.runtime.statistics.sign_flip import sign_flip
from epc.runtime.statistics.wilson import normal_quantile, score_limits, wilson


def lattice(text: str) -> Lattice:
    return on_lattice([Fraction(word) for word in text.split()])


DARWIN = lattice("49 -67 8 16 6 23 28 41 14 29 56 24 75 60 -48")
"""Eighths of an inch: crossed minus self-fertilized maize (Darwin 1876; Fisher 1935, section 17)."""
SLEEP = lattice("1.2 2.4 1.3 1.3 0 1.0 1.8 0.8 4.6 1.4")
"""Extra hours of sleep, second drug minus first (Student 1908)."""


def bootstrap_total(differences: Lattice) -> dict[int, int]:
    """How many of the n^n equally likely resamples have each sum: the n-fold convolution, in integers."""
    values = differences.numerators
    ways = {0: 1}
    for _ in values:
        after: dict[int, int] = {}
        for total, count in ways.items():
            for value in values:
                after[total + value] = after.get(total + value, 0) + count
        ways = after
    assert sum(ways.values()) == len(values) ** len(values)
    return ways


def exact_p(differences: Lattice, p: PDefinition) -> Fraction:
    """One-sided bootstrap p ("greater") with infinitely many resamples."""
    total, n = differences.total, differences.n
    ways = bootstrap_total(differences)
    hit = sum(count for s, count in ways.items() if (s <= 0 if p == "percentile" else s >= 2 * total))
    return Fraction(hit, n**n)


@pytest.mark.parametrize(("p", "published"), [("percentile", 0.018589), ("shift", 0.007039)])
def test_the_convolution_referee_gives_darwins_p(p: PDefinition, published: float) -> None:
    assert float(exact_p(DARWIN, p)) == pytest.approx(published, abs=5e-7)


@pytest.mark.parametrize("p", ["percentile", "shift"])
@pytest.mark.parametrize("data", [DARWIN, SLEEP], ids=["darwin", "sleep"])
@pytest.mark.parametrize("side", ["greater", "less"])
def test_bootstrap_agrees_with_the_convolution(data: Lattice, p: PDefinition, side: Side) -> None:
    resamples = 100_000
    target = data if side == "greater" else Lattice(
        numerators=tuple(-x for x in data.numerators), denominator=data.denominator
    )  # fmt: skip
    exact = float(exact_p(target, p))
    found = paired_bootstrap(data, p=p, side=side, alpha=0.025, resamples=resamples, seed=11, limit=200.0).statistics[
        "p"
    ]
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / resamples) + 2 / resamples)


def test_studentized_agrees_with_full_enumeration() -> None:
    """All 6^6 resamples of six differences; t* compared in rationals, so ties are ties."""
    data = lattice("3 1 -1 2 4 1")
    x, n = data.numerators, data.n
    hits = 0
    for draw in itertools.product(x, repeat=n):
        total, spread = sum(draw), n * sum(v * v for v in draw) - sum(draw) ** 2
        shifted = total - data.total
        t_star_squared = Fraction(shifted * abs(shifted), spread) if spread else None
        hits += t_star_squared is None or t_star_squared >= Fraction(data.total * abs(data.total), data.scatter)
    exact = hits / n**n
    resamples = 200_000
    found = paired_bootstrap(
        data, p="studentized", side="greater", alpha=0.025, resamples=resamples, seed=5, limit=10.0
    )
    assert found.statistics["p"] == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / resamples))


@pytest.mark.parametrize(
    ("data", "side", "t", "p"), [(DARWIN, "greater", 2.14799, 0.024851), (SLEEP, "two_sided", 4.06213, 0.0028329)]
)
def test_paired_t(data: Lattice, side: Side, t: float, p: float) -> None:
    result = paired_t(data, side=side, alpha=0.05, limit=200.0)
    assert result.sd is not None
    assert result.statistics["delta"] / (result.sd / math.sqrt(data.n)) == pytest.approx(t, abs=5e-6)
    assert result.statistics["p"] == pytest.approx(p, rel=5e-5)


def test_paired_t_interval_of_the_sleep_data() -> None:
    found = paired_t(SLEEP, side="two_sided", alpha=0.05, limit=24.0)
    assert (found.statistics["ci_low"], found.statistics["ci_high"]) == pytest.approx((0.70011, 2.45989), abs=5e-6)
    assert found.ci_level == 0.95


@pytest.mark.parametrize(("data", "p"), [(DARWIN, Fraction(863, 32768)), (SLEEP, Fraction(2, 1024))])
def test_sign_flip_is_exact(data: Lattice, p: Fraction) -> None:
    found = sign_flip(data, side="greater", alpha=0.05, resamples=None, seed=None, limit=200.0)
    assert Fraction(found.statistics["p"]) == p


def test_sign_flip_bounds_invert_the_test() -> None:
    """Just inside the lower bound the shifted data are kept, just outside they are rejected."""
    found = sign_flip(DARWIN, side="greater", alpha=0.05, resamples=None, seed=None, limit=200.0)
    lower = Fraction(found.statistics["lower"]).limit_denominator(15)
    for shift, rejected in ((lower - Fraction(1, 1000), True), (lower, False)):
        moved = on_lattice([Fraction(x, DARWIN.denominator) - shift for x in DARWIN.numerators])
        p = sign_flip(moved, side="greater", alpha=0.05, resamples=None, seed=None, limit=200.0).statistics["p"]
        assert (p <= 0.05) is rejected


def test_monte_carlo_sign_flip_agrees_with_the_exact_distribution() -> None:
    """Beyond 20 units: the exact p from the convolution of two-point distributions."""
    values = tuple(int(v) for v in np.random.PCG64(3).random_raw(30) % np.uint64(21))
    data = Lattice(numerators=tuple(v - 8 for v in values), denominator=20)
    ways = {0: 1}
    for x in data.numerators:
        after: dict[int, int] = {}
        for total, count in ways.items():
            for signed in (x, -x):
                after[total + signed] = after.get(total + signed, 0) + count
        ways = after
    exact = sum(count for total, count in ways.items() if total >= data.total) / 2**30
    found = sign_flip(data, side="greater", alpha=0.05, resamples=100_000, seed=9, limit=1.0).statistics["p"]
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 100_000))


@pytest.mark.parametrize(
    ("table", "interval"),
    [
        # Cavo et al. 2012 and Bentur et al. 2009, as in M. Fagerland, S. Lydersen and P. Laake, Statistical
        # Analysis of Contingency Tables, 2017, chapter 8 (R package contingencytables, tests of chapter 8).
        ((59, 6, 16, 80), (-0.1186, -0.0046)),
        ((1, 1, 7, 12), (-0.507, -0.026)),
        # D. Altman et al., Statistics with Confidence, 2nd edition, 2000, table 6.2, page 52.
        ((14, 5, 0, 22), (0.011, 0.226)),
    ],
)
def test_newcombe_method_10(table: tuple[int, int, int, int], interval: tuple[float, float]) -> None:
    both, treatment_only, control_only, neither = table
    outcomes = [(1, 1)] * both + [(1, 0)] * treatment_only + [(0, 1)] * control_only + [(0, 0)] * neither
    treatment = {f"u{i}": Fraction(a) for i, (a, _) in enumerate(outcomes)}
    control = {f"u{i}": Fraction(b) for i, (_, b) in enumerate(outcomes)}
    found = newcombe_paired(treatment, control, side="two_sided", alpha=0.05).statistics
    digits = 4 if table[0] == 59 else 3
    assert (round(found["ci_low"], digits), round(found["ci_high"], digits)) == interval


def test_newcombe_is_square_and_add_of_wilson_when_outcomes_are_uncorrelated() -> None:
    """phi = 0 leaves the unpaired interval; 56/70 against 48/80 is Newcombe 1998's example with (.0524, .3339)."""
    z = normal_quantile(Fraction(1, 40))
    (l1, u1), (l2, u2) = score_limits(56, 70, z), score_limits(48, 80, z)
    p1, p2 = 56 / 70, 48 / 80
    assert p1 - p2 - math.hypot(p1 - l1, u2 - p2) == pytest.approx(0.0524, abs=5e-5)
    assert p1 - p2 + math.hypot(u1 - p1, p2 - l2) == pytest.approx(0.3339, abs=5e-5)
    table = PairedTable(both=12, treatment_only=18, control_only=8, neither=12)  # a d = b c, so phi = 0
    (l1, u1), (l2, u2) = score_limits(30, 50, z), score_limits(20, 50, z)
    assert table.lower(z) == pytest.approx(0.2 - math.hypot(0.6 - l1, u2 - 0.4))
    assert table.upper(z) == pytest.approx(0.2 + math.hypot(u1 - 0.6, 0.4 - l2))


@pytest.mark.parametrize(
    ("successes", "n", "interval"),
    [
        # R. Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I, method 3.
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson(successes: int, n: int, interval: tuple[float, float]) -> None:
    values = {f"u{i}": Fraction(int(i < successes)) for i in range(n)}
    found = wilson(values, side="two_sided", alpha=0.05)
    assert (round(found.statistics["ci_low"], 4), round(found.statistics["ci_high"], 4)) == interval
    assert found.statistics["value"] == successes / n
    assert "p" not in found.statistics


R_BOOT = lattice("10 12 12.5 12.5 13.9 15 21 22 23 34 50 81 89 121 134 213")
"""The data on which scipy compares its bootstrap with R's package boot (scipy's test_bootstrap_against_R)."""


def test_the_bootstrap_of_one_arm_has_the_percentile_interval_of_r() -> None:
    found = bootstrap(
        R_BOOT, side="two_sided", alpha=0.05, resamples=300_000, seed=3, scale=(0.0, 1000.0)
    )  # fmt: skip
    assert (found.statistics["ci_low"], found.statistics["ci_high"]) == pytest.approx((28.86, 84.21), rel=0.005)
    assert found.statistics["value"] == pytest.approx(53.99375, abs=1e-12)
    assert found.ci_level == 0.95
    assert "p" not in found.statistics


@pytest.mark.parametrize(
    ("p", "interval"), [("percentile", (28.86, 84.21)), ("shift", (28.86, 84.21)), ("studentized", (28.86, 84.21))]
)
def test_a_registered_interval_is_the_percentile_interval_whatever_the_p(
    p: PDefinition, interval: tuple[float, float]
) -> None:
    """Against a control of zeros the differences are the data themselves."""
    found = paired_bootstrap(
        R_BOOT, p=p, side="greater", alpha=0.05, resamples=100_000, seed=3, limit=1000.0, interval=0.95
    )  # fmt: skip
    assert (found.statistics["ci_low"], found.statistics["ci_high"]) == pytest.approx(interval, rel=0.01)
    assert found.ci_level == 0.95


def test_the_basic_interval_of_r_is_the_shift_bootstraps_own() -> None:
    found = paired_bootstrap(R_BOOT, p="shift", side="two_sided", alpha=0.05, resamples=100_000, seed=3, limit=1000.0)
    assert (found.statistics["ci_low"], found.statistics["ci_high"]) == pytest.approx((23.77, 79.12), rel=0.01)


def test_bootstrap_bounds_of_one_arm_are_exact_quantiles() -> None:
    """The share of resampled means below each bound, from the convolution of the values."""
    values = lattice("0 0 1 2 3 3 4 9")
    found = bootstrap(values, side="greater", alpha=0.05, resamples=99_999, seed=5, scale=(0.0, 9.0)).statistics
    ways, n = bootstrap_total(values), values.n
    below = sum(count for total, count in ways.items() if total < round(found["lower"] * n)) / n**n
    at_most = sum(count for total, count in ways.items() if total <= round(found["lower"] * n)) / n**n
    assert below < 0.05 < at_most


@pytest.mark.parametrize(
    ("table", "p"),
    [
        # R. A. Fisher, Statistical Methods for Research Workers, section 21.02: convictions of like-sex twins.
        ((10, 13, 2, 17), 0.000537),
        # The lady tasting tea, all four right: one way in C(8, 4), two-sided twice that.
        ((4, 4, 0, 4), 2 / 70),
        # Judge errors before and after an attack: 0/240 and 10/240.
        ((0, 240, 10, 240), 0.001775),
        ((1, 240, 3, 240), 0.6233),
        ((0, 5, 0, 7), 1.0),
        ((5, 5, 7, 7), 1.0),
    ],
)
def test_fisher_two_sided(table: tuple[int, int, int, int], p: float) -> None:
    first, n1, second, n2 = table
    assert float(fisher_two_sided(first, n1, second, n2)) == pytest.approx(p, rel=1e-3)
    assert fisher_two_sided(first, n1, second, n2) == fisher_two_sided(second, n2, first, n1)


def test_fisher_agrees_with_scipy() -> None:
    from scipy.stats import fisher_exact

    for n1, n2 in ((12, 9), (30, 30), (240, 237)):
        for first, second in itertools.product((0, 1, 3, 7), (0, 2, 5, 9)):
            expected = fisher_exact([[first, n1 - first], [second, n2 - second]]).pvalue
            assert float(fisher_two_sided(first, n1, second, n2)) == pytest.approx(float(expected), rel=1e-9)


def test_fisher_refuses_what_is_no_count() -> None:
    with pytest.raises(ValueError, match="no counts"):
        fisher_two_sided(5, 4, 0, 4)
