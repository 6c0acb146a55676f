"""The known answers that the decision engine is held to: one row a figure, with as many digits as are published."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest

from epc.compiler.contract.manifest import Side
from epc.runtime.statistics.estimate import Estimate, InapplicableError, Lattice, on_lattice
from epc.runtime.statistics.mcnemar import chi_squared, mcnemar
from epc.runtime.statistics.multiplicity import Adjusted, benjamini_hochberg, fixed_sequence, holm
from epc.runtime.statistics.newcombe import newcombe
from epc.runtime.statistics.paired_bootstrap import PDefinition, paired_bootstrap
from epc.runtime.statistics.paired_t import paired_t, paired_t_equivalence, paired_t_noninferiority
from epc.runtime.statistics.sign_flip import sign_flip
from epc.runtime.statistics.sign_test import sign_test
from epc.runtime.statistics.wilson import wilson


def lattice(text: str) -> Lattice:
    return on_lattice([Fraction(word) for word in text.split()])


DARWIN = lattice("49 -67 8 16 6 23 28 41 14 29 56 24 75 60 -48")
SLEEP = lattice("1.2 2.4 1.3 1.3 0 1.0 1.8 0.8 4.6 1.4")
R_BOOT = lattice("10 12 12.5 12.5 13.9 15 21 22 23 34 50 81 89 121 134 213")
"""scipy's comparison of its bootstrap with R's package boot (its test test_bootstrap_against_R)."""


def rates(successes: int, n: int, name: str) -> dict[str, Fraction]:
    return {f"{name}{i}": Fraction(int(i < successes)) for i in range(n)}


def pairs(both: int, treatment_only: int, control_only: int, neither: int) -> tuple[dict[str, Fraction], ...]:
    cells = [(1, 1)] * both + [(1, 0)] * treatment_only + [(0, 1)] * control_only + [(0, 0)] * neither
    return tuple({f"u{i}": Fraction(cell[arm]) for i, cell in enumerate(cells)} for arm in (0, 1))


def t(data: Lattice, side: Side) -> Estimate:
    return paired_t(data, side=side, alpha=0.05, limit=300.0)


def flip(data: Lattice) -> Estimate:
    return sign_flip(data, side="greater", alpha=0.05, resamples=None, seed=None, limit=300.0)


def boot(data: Lattice, p: PDefinition, side: Side) -> Estimate:
    return paired_bootstrap(data, p=p, side=side, alpha=0.05, resamples=200_000, seed=20, limit=1000.0)


def t_statistic(found: Estimate, n: int) -> float:
    assert found.sd is not None
    return found.statistics["delta"] / (found.sd / math.sqrt(n))


MCNEMAR = pairs(794, 86, 150, 570)
UNPAIRED = rates(56, 70, "a"), rates(48, 80, "b")

TABLE: list[tuple[str, Callable[[], float], float, float]] = [
    # what, ours, published, half a unit of its last digit (or four Monte-Carlo standard errors)
    ("Darwin, t", lambda: t_statistic(t(DARWIN, "greater"), 15), 2.14799, 5e-6),
    ("Darwin, t, one-sided p", lambda: t(DARWIN, "greater").statistics["p"], 0.024851, 5e-7),
    ("Darwin, sign flip", lambda: flip(DARWIN).statistics["p"], 863 / 32768, 0),
    ("Darwin, percentile p", lambda: boot(DARWIN, "percentile", "greater").statistics["p"], 0.018589, 1.3e-3),
    ("Darwin, shift p", lambda: boot(DARWIN, "shift", "greater").statistics["p"], 0.007039, 8e-4),
    ("R boot, basic, low", lambda: boot(R_BOOT, "shift", "two_sided").statistics["ci_low"], 23.77, 0.3),
    ("R boot, basic, high", lambda: boot(R_BOOT, "shift", "two_sided").statistics["ci_high"], 79.12, 0.3),
    ("R boot, percentile, low", lambda: boot(R_BOOT, "percentile", "two_sided").statistics["ci_low"], 28.86, 0.3),
    ("R boot, percentile, high", lambda: boot(R_BOOT, "percentile", "two_sided").statistics["ci_high"], 84.21, 0.3),
    ("R boot, BCa, low", lambda: boot(R_BOOT, "bca", "two_sided").statistics["ci_low"], 32.31, 0.3),
    ("R boot, BCa, high", lambda: boot(R_BOOT, "bca", "two_sided").statistics["ci_high"], 91.43, 0.5),
    ("sleep, t", lambda: t_statistic(t(SLEEP, "two_sided"), 10), 4.06213, 5e-6),
    ("sleep, t, p", lambda: t(SLEEP, "two_sided").statistics["p"], 0.0028329, 5e-8),
    ("sleep, t, low", lambda: t(SLEEP, "two_sided").statistics["ci_low"], 0.70011, 5e-6),
    ("sleep, t, high", lambda: t(SLEEP, "two_sided").statistics["ci_high"], 2.45989, 5e-6),
    ("sleep, sign flip", lambda: flip(SLEEP).statistics["p"], 2 / 1024, 0),
    ("Newcombe 56/70 v 48/80, low", lambda: unpaired("two_sided").statistics["ci_low"], 0.0524, 5e-5),
    ("Newcombe 56/70 v 48/80, high", lambda: unpaired("two_sided").statistics["ci_high"], 0.3339, 5e-5),
    ("McNemar 794/86/150/570, chi^2", lambda: chi_squared(86, 150), 16.8178, 5e-5),
    ("McNemar 794/86/150/570, p", lambda: mcnemar_p("corrected", "two_sided"), 4.1146e-5, 5e-10),
    # R. Newcombe, Two-sided confidence intervals for the single proportion, 1998, table I, method 3.
    ("Wilson 81/263, low", lambda: level(81, 263).statistics["ci_low"], 0.2553, 5e-5),
    ("Wilson 81/263, high", lambda: level(81, 263).statistics["ci_high"], 0.3662, 5e-5),
]


def unpaired(side: Side) -> Estimate:
    return newcombe(*UNPAIRED, side=side, alpha=0.05)


def mcnemar_p(p: str, side: Side) -> float:
    return mcnemar(*MCNEMAR, p=p, side=side, alpha=0.05).statistics["p"]  # type: ignore[arg-type]


def level(successes: int, n: int) -> Estimate:
    return wilson(rates(successes, n, "u"), side="two_sided", alpha=0.05)


@pytest.mark.parametrize(("ours", "published", "within"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_known_answer(ours: Callable[[], float], published: float, within: float) -> None:
    assert abs(ours() - published) <= within


def test_exact_mcnemar_is_the_binomial_tail() -> None:
    """86 of 236, both tails, by direct summation."""
    tail = sum(math.comb(236, k) for k in range(87)) / 2**236
    assert mcnemar_p("exact", "two_sided") == pytest.approx(2 * tail, rel=1e-12)
    assert mcnemar_p("exact", "less") == pytest.approx(tail, rel=1e-12)
    assert mcnemar_p("exact", "greater") == pytest.approx(1 - tail + math.comb(236, 86) / 2**236, rel=1e-12)


def test_sign_test_of_darwins_maize() -> None:
    """13 of 15 crossed plants are taller: 1 + 15 + 105 of 2^15 ways."""
    found = sign_test(DARWIN, side="greater", alpha=0.05, limit=300.0)
    assert Fraction(found.statistics["p"]) == Fraction(121, 2**15)
    assert found.statistics["delta"] == 24
    # P(Bin(15, 1/2) <= 3) = .0176 <= .05 < P(<= 4) = .0592, so the bounds are the 4th from either end.
    assert (found.statistics["lower"], found.statistics["upper"]) == (8, 49)


PUBLISHED_FDR = [
    ".0001",
    ".0004",
    ".0019",
    ".0095",
    ".0201",
    ".0278",
    ".0298",
    ".0344",
    ".0459",
    ".3240",
    ".4262",
    ".5719",
    ".6528",
    ".7590",
    "1.0",
]
"""Fifteen hypotheses about thrombolysis: Benjamini and Hochberg 1995, section 4."""
STDLIB = ["0.319", "0.201", "0.4", "0.374", "0.113"]
"""The example of stdlib's padjust (stdlib.io, @stdlib/stats/padjust)."""


@pytest.mark.parametrize(
    ("adjust", "ps", "rejected", "adjusted"),
    [
        # The paper: Bonferroni's .05 / 15 rejects the first three (so does Holm), the new procedure the first four.
        (holm, PUBLISHED_FDR, 3, "0.0015 0.0056 0.0247 0.114"),
        # Adjusted values as in the documentation of scipy.stats.false_discovery_control.
        (benjamini_hochberg, PUBLISHED_FDR, 4, "0.0015 0.003 0.0095 0.035625 0.0603 0.06385714 0.06385714 0.0645 0.0765"),
        (holm, STDLIB, 0, "0.957 0.804 0.957 0.957 0.565"),
        (benjamini_hochberg, STDLIB, 0, "0.4 0.4 0.4 0.4 0.4"),
        # Full alpha until the first that fails, nothing after it, however small.
        (fixed_sequence, ["0.019", "0.045", "0.3", "0.001"], 2, "0.019 0.045 0.3 0.3"),
    ],
)  # fmt: skip
def test_multiplicity(
    adjust: Callable[[list[Fraction], Fraction], list[Adjusted]], ps: list[str], rejected: int, adjusted: str
) -> None:
    found = adjust([Fraction(p) for p in ps], Fraction(1, 20))
    assert sum(each.reject for each in found) == rejected
    for each, expected in zip(found, adjusted.split(), strict=False):
        assert float(each.p) == pytest.approx(
            float(expected), abs=5e-9 if len(expected) > 8 else 5e-5 + 5e-4 * (ps is STDLIB)
        )
    shuffled = adjust([Fraction(p) for p in reversed(ps)], Fraction(1, 20))
    if adjust is not fixed_sequence:
        assert shuffled == found[::-1]


def test_a_p_value_lies_between_0_and_1() -> None:
    for adjust in (holm, benjamini_hochberg, fixed_sequence):
        with pytest.raises(ValueError, match=r"1\.5 is no p-value"):
            adjust([Fraction(1, 2), Fraction(3, 2)], Fraction(1, 20))
        assert adjust([], Fraction(1, 20)) == []


def test_noninferiority_and_equivalence_are_t_tests_against_the_margin() -> None:
    """Sleep data moved by the margin: the same p as the plain test of the moved data, digit for digit."""
    moved = on_lattice([Fraction(x, SLEEP.denominator) + Fraction(1, 2) for x in SLEEP.numerators])
    down = on_lattice([Fraction(x, SLEEP.denominator) - Fraction(1, 2) for x in SLEEP.numerators])
    found = paired_t_noninferiority(SLEEP, margin=0.5, side="greater", alpha=0.025, limit=24.0)
    assert found.statistics["p"] == t(moved, "greater").statistics["p"]
    assert found.statistics["delta"] == 1.58
    both = paired_t_equivalence(SLEEP, margin=0.5, alpha=0.05, limit=24.0).statistics
    assert both["p"] == max(t(moved, "greater").statistics["p"], t(down, "less").statistics["p"])
    with pytest.raises(InapplicableError, match="one side"):
        paired_t_noninferiority(SLEEP, margin=0.5, side="two_sided", alpha=0.025, limit=24.0)
    with pytest.raises(InapplicableError, match="positive number, not 0"):
        paired_t_equivalence(SLEEP, margin=0.0, alpha=0.05, limit=24.0)


@pytest.mark.parametrize("n", [200, 30_000])
def test_binomial_tails_beyond_the_exact_ones_continue_them(n: int) -> None:
    from scipy.stats import binom

    from epc.runtime.statistics.proportions import at_most

    for k in (-1, 0, n // 2 - 60, n // 2, n // 2 + 7, n - 1, n):
        assert float(at_most(k, n)) == pytest.approx(float(binom.cdf(k, n, 0.5)), rel=1e-9)


def test_arms_of_different_units_share_none() -> None:
    with pytest.raises(InapplicableError, match="u0 is in both; newcombe_paired"):
        newcombe(rates(3, 5, "u"), rates(2, 5, "u"), side="greater", alpha=0.05)
    with pytest.raises(InapplicableError, match="both arms"):
        newcombe(rates(3, 5, "u"), {}, side="greater", alpha=0.05)
    with pytest.raises(InapplicableError, match="one 0 or 1 per unit"):
        newcombe({"a": Fraction(1, 2)}, rates(2, 5, "u"), side="greater", alpha=0.05)
