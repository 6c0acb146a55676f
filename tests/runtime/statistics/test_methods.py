"""What must hold of every method, whatever the data."""

from __future__ import annotations

import itertools
import json
import math
import os
import subprocess
import sys
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from epc.compiler.contract.manifest import Analysis, Contrast, Metric, Side
from epc.runtime.statistics import Estimate, InapplicableError, analyse
from epc.runtime.statistics.estimate import FIXED_POINT_NOTE, Lattice, on_lattice
from epc.runtime.statistics.newcombe_paired import newcombe_paired
from epc.runtime.statistics.paired_bootstrap import PDefinition, paired_bootstrap
from epc.runtime.statistics.resampling import PAIRED_UNITS, count_matrix, looked_up_sums, sign_matrix, weighted_sums

BOOTSTRAPS: tuple[PDefinition, ...] = ("percentile", "shift", "studentized")
METHODS = (*BOOTSTRAPS, "paired_t", "sign_flip")
Values = dict[str, Fraction]


def metric(scale: tuple[float, float] = (0, 1)) -> Metric:
    return Metric(
        name="rate", kind="pattern", source="first", unit="prompt", scale=scale, better="higher", missing="fail"
    )  # fmt: skip


def analysis(
    method: str, side: Side = "greater", alpha: float = 0.025, resamples: int = 999, **changes: object
) -> Analysis:
    named = {"method": "paired_bootstrap", "p": method} if method in BOOTSTRAPS else {"method": method}
    return Analysis.model_validate(
        {
            "name": "headline", "metric": "rate", "contrast": Contrast(treatment="a", control="b"), "side": side,
            "alpha": alpha, "resamples": resamples, "seed": 1, **named, **changes,
        }
    )  # fmt: skip


def arms(treatment: list[int], control: list[int], per_unit: int = 8) -> tuple[Values, Values]:
    names = [f"unit{i:03d}" for i in range(len(treatment))]
    return (
        {name: Fraction(x, per_unit) for name, x in zip(names, treatment, strict=True)},
        {name: Fraction(x, per_unit) for name, x in zip(names, control, strict=True)},
    )


def eighths(n: int, seed: int) -> list[int]:
    return [int(word % np.uint64(9)) for word in np.random.PCG64(seed).random_raw(n)]


counts_of_eight = st.integers(0, 8)
paired_counts = st.lists(st.tuples(counts_of_eight, counts_of_eight), min_size=2, max_size=12)


@settings(max_examples=40, deadline=None)
@given(paired_counts)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("alpha", [0.025, 0.2])
def test_test_and_bound_agree(method: str, alpha: float, pairs: list[tuple[int, int]]) -> None:
    """reject says the same as the bound, for either side, except where p is alpha itself or nothing varies."""
    assume(len({a - b for a, b in pairs}) > 1)
    treatment, control = arms([a for a, _ in pairs], [b for _, b in pairs])
    for side in ("greater", "less"):
        found = analyse(analysis(method, side, alpha), metric(), treatment, control).statistics
        beyond = found["lower"] > 0 if side == "greater" else found["upper"] < 0
        assert found["p"] == alpha or bool(found["reject"]) == beyond
        assert found["reject"] == float(found["p"] < alpha)
        assert (found["ci_low"], found["ci_high"]) == (found["lower"], found["upper"])
        assert -1 <= found["lower"] <= 1
        assert -1 <= found["upper"] <= 1


@settings(max_examples=40, deadline=None)
@given(paired_counts)
@pytest.mark.parametrize("method", METHODS)
def test_swapping_the_arms_mirrors_everything(method: str, pairs: list[tuple[int, int]]) -> None:
    treatment, control = arms([a for a, _ in pairs], [b for _, b in pairs])
    one = analyse(analysis(method, "greater"), metric(), treatment, control).statistics
    other = analyse(analysis(method, "less"), metric(), control, treatment).statistics
    assert (one["delta"], one["p"], one["reject"]) == (-other["delta"], other["p"], other["reject"])
    assert (one["lower"], one["upper"]) == (-other["upper"], -other["lower"])


@settings(max_examples=25, deadline=None)
@given(paired_counts)
@pytest.mark.parametrize("method", METHODS)
def test_two_sided_is_twice_the_smaller_side(method: str, pairs: list[tuple[int, int]]) -> None:
    treatment, control = arms([a for a, _ in pairs], [b for _, b in pairs])
    p = {
        side: analyse(analysis(method, side), metric(), treatment, control).statistics["p"]
        for side in ("greater", "less", "two_sided")
    }
    assert p["two_sided"] == pytest.approx(min(1.0, 2 * min(p["greater"], p["less"])), rel=1e-9)


@pytest.mark.parametrize("side", ["greater", "less"])
def test_one_sided_tests_show_the_interval_that_agrees_with_them(side: Side) -> None:
    treatment, control = arms(eighths(24, 1), eighths(24, 2))
    for method in METHODS:
        one = analyse(analysis(method, side, 0.025), metric(), treatment, control)
        two = analyse(analysis(method, "two_sided", 0.05), metric(), treatment, control)
        assert one.ci_level == two.ci_level == 0.95
        assert (one.statistics["ci_low"], one.statistics["ci_high"]) == (
            two.statistics["ci_low"],
            two.statistics["ci_high"],
        )
        assert "two-sided at 95%" in one.definition


# ------------------------------------------------------------- reproducibility


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_units_changes_nothing(method: str) -> None:
    treatment, control = arms(eighths(24, 3), eighths(24, 4))
    turned = dict(reversed(treatment.items())), dict(sorted(control.items(), key=lambda item: item[0][::-1]))
    straight = analyse(analysis(method), metric(), treatment, control)
    assert analyse(analysis(method), metric(), *turned) == straight


@pytest.mark.parametrize("p", BOOTSTRAPS)
@pytest.mark.parametrize("units", [23, 24])
def test_the_chunk_size_changes_nothing(p: PDefinition, units: int) -> None:
    treatment, control = arms(eighths(units, 5), eighths(units, 6))
    differences = on_lattice([treatment[unit] - control[unit] for unit in sorted(treatment)])

    def run(rows: int | None) -> Estimate:
        return paired_bootstrap(
            differences, p=p, side="greater", alpha=0.025, resamples=2000, seed=1, limit=1.0, chunk_rows=rows
        )  # fmt: skip

    assert run(1) == run(7) == run(1999) == run(None)


_THREADED = """
import json
from fractions import Fraction
from epc.runtime.statistics.estimate import Lattice
from epc.runtime.statistics.paired_bootstrap import PDefinition, paired_bootstrap
data = Lattice(numerators=tuple((7 * i * i) % 17 - 7 for i in range(192)), denominator=8)
print(json.dumps([paired_bootstrap(data, p=p, side="greater", alpha=.025, resamples=4000, seed=3, limit=2.0,
                                   chunk_rows=4000).statistics for p in ("percentile", "shift", "studentized")]))
"""


def test_the_number_of_threads_changes_nothing() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", _THREADED], capture_output=True, text=True, check=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)},
        ).stdout
        for threads in (1, 2)
    ]  # fmt: skip
    assert outputs[0] == outputs[1]
    assert len(json.loads(outputs[0])) == 3


def test_draws_are_pinned() -> None:
    """The count matrix of seed 1, as first released. A change here changes every registered p."""
    (block,) = count_matrix(1, 5, 4)
    assert block.astype(int).tolist() == PINNED_COUNTS
    (flips,) = sign_matrix(1, 5, 4)
    assert flips.astype(int).tolist() == PINNED_FLIPS


PINNED_COUNTS = [[0, 1, 3, 1, 0], [3, 0, 0, 1, 1], [0, 3, 1, 0, 1], [1, 3, 0, 0, 1]]
PINNED_FLIPS = [[1, 1, 1, 1, 1], [0, 1, 1, 0, 0], [1, 0, 1, 1, 0], [0, 1, 0, 0, 1]]


def drawn_by_the_rule(words: list[int], units: int) -> list[int]:
    """The draws of one resample from its words, as the docstring of `resampling` has them."""
    drawn = []
    for half in (half for word in words for half in (word & 0xFFFFFFFF, word >> 32)):
        product = half * units
        drawn.append(product >> 32)
        if units <= PAIRED_UNITS:
            drawn.append((product & 0xFFFFFFFF) * units >> 32)
    return drawn[:units]


@pytest.mark.parametrize("units", [*range(1, 10), 46, 47, 48, 49, 125, 126, 127, 128, 129, 130, 200])
def test_the_mapping_of_words_to_units_is_the_documented_one(units: int) -> None:
    width = -(-units // (4 if units <= PAIRED_UNITS else 2))
    words = [int(word) for word in np.random.PCG64(4).random_raw(7 * width)]
    expected = []
    for row in range(7):
        drawn = drawn_by_the_rule(words[row * width : (row + 1) * width], units)
        expected.append([drawn.count(unit) for unit in range(units)])
    blocks = list(count_matrix(4, units, 7, chunk_rows=3))
    assert np.concatenate(blocks).astype(int).tolist() == expected


def test_units_are_drawn_equally_often() -> None:
    """Chi-squared of each number of units, each with a seed of its own, and of all of them together."""
    resamples, found, free = 2000, 0.0, 0
    for units in range(2, PAIRED_UNITS + 1):
        draws = np.concatenate(list(count_matrix(units, units, resamples))).sum(axis=0)
        chi_squared = float(((draws - resamples) ** 2 / resamples).sum())
        assert 1e-5 < chi2.sf(chi_squared, units - 1) < 1 - 1e-5, units
        found += chi_squared
        free += units - 1
    assert 1e-4 < chi2.sf(found, free) < 1 - 1e-4


@pytest.mark.parametrize("units", [2, 3, 4, 5])
def test_resamples_have_the_multinomial_law(units: int) -> None:
    """Draws are independent within a half, between halves and between words: whole resamples, told apart by their sums."""
    resamples = 60_000
    (sums,) = looked_up_sums(5, resamples, [[10**unit for unit in range(units)]])
    observed = Counter(sums.tolist())
    law = Counter(sum(10**unit for unit in drawn) for drawn in itertools.product(range(units), repeat=units))
    expected = {total: ways * resamples / units**units for total, ways in law.items()}
    assert observed.keys() <= expected.keys()
    assert min(expected.values()) > 15
    chi_squared = sum((observed[total] - each) ** 2 / each for total, each in expected.items())
    assert chi2.sf(chi_squared, len(expected) - 1) > 1e-4


@pytest.mark.parametrize("units", [*range(1, 13), 24, 47, 48, 100, 127, 128])
def test_the_largest_deviation_from_uniform_is_the_documented_one(units: int) -> None:
    """In closed form over all 2^32 halves: pair k has those from ceil(k c) to ceil((k + 1) c) - 1, c = 2^32 / n^2."""
    pairs = units**2
    first = [-(-k * 2**32 // pairs) for k in range(pairs + 1)]
    assert (first[0], first[-1]) == (0, 2**32)
    for k in range(pairs):  # the rule is constant between these ends, since it does not fall with the half
        for half in (first[k], first[k + 1] - 1):
            product = half * units
            assert (product >> 32) * units + ((product & 0xFFFFFFFF) * units >> 32) == k
    counts = [end - begin for begin, end in itertools.pairwise(first)]
    assert set(counts) <= {2**32 // pairs, -(-(2**32) // pairs)}
    deviation = max(abs(Fraction(count * pairs, 2**32) - 1) for count in counts)
    assert deviation < Fraction(pairs, 2**32) <= Fraction(4, 10**6)
    assert (deviation == 0) == (units & (units - 1) == 0)
    squares = sum((Fraction(count * pairs, 2**32) - 1) ** 2 for count in counts) / pairs
    moved = math.sqrt(squares * (units + 1) / 2 / 2)  # Pinsker, with chi-squared for the Kullback-Leibler divergence
    assert moved <= math.sqrt(units + 1) * pairs / 2**34 < 1.1e-5 < math.sqrt(0.025 * 0.975 / 200_000) / 30


# -------------------------------------------------------------------- exactness


@pytest.mark.parametrize("magnitude", [10, 2**30, 2**60, 2**100])
def test_weighted_sums_are_exact_at_any_size(magnitude: int) -> None:
    words = [int(word) for word in np.random.PCG64(8).random_raw(33)]
    column = [(word * magnitude >> 64) * (1 if word & 1 else -1) for word in words]
    weights = np.concatenate(list(count_matrix(1, 33, 50)))
    found, ones = weighted_sums(count_matrix(1, 33, 50, chunk_rows=8), [column, [1] * 33])
    expected = [sum(int(w) * x for w, x in zip(row, column, strict=True)) for row in weights]
    assert [int(x) for x in found] == expected
    assert set(ones.tolist()) == {33}


@pytest.mark.parametrize("p", BOOTSTRAPS)
@pytest.mark.parametrize("scale", [1, 2**20, 2**35], ids=["int64", "wide", "limbs"])
def test_counts_compare_integers(p: PDefinition, scale: int) -> None:
    """The count is that of rational arithmetic on the same resamples, ties included, at any magnitude."""
    data = Lattice(numerators=tuple((x - 4) * scale for x in eighths(12, 7)), denominator=8)
    n, total, resamples = data.n, data.total, 400
    extreme = 0
    for row in np.concatenate(list(count_matrix(6, n, resamples))).astype(int).tolist():
        star = sum(c * x for c, x in zip(row, data.numerators, strict=True))
        spread = n * sum(c * x * x for c, x in zip(row, data.numerators, strict=True)) - star**2
        if p == "percentile":
            extreme += star <= 0
        elif p == "shift":
            extreme += star - total >= total
        else:
            shifted = star - total
            t_star = Fraction(shifted * abs(shifted), spread) if spread else None
            extreme += t_star is None or t_star >= Fraction(total * abs(total), data.scatter)
    found = paired_bootstrap(data, p=p, side="greater", alpha=0.025, resamples=resamples, seed=6, limit=2.0 * scale)
    assert found.statistics["p"] == float(Fraction(1 + extreme, resamples + 1))


def test_rescaling_the_lattice_changes_no_p() -> None:
    small = Lattice(numerators=tuple(x - 4 for x in eighths(24, 9)), denominator=8)
    large = Lattice(numerators=tuple(x * 3**30 for x in small.numerators), denominator=8 * 3**30)
    for p in BOOTSTRAPS:
        results = [
            paired_bootstrap(data, p=p, side="greater", alpha=0.025, resamples=999, seed=1, limit=1.0).statistics
            for data in (small, large)
        ]
        assert results[0] == results[1]


def test_a_denominator_beyond_the_limit_becomes_a_fixed_point_and_the_definition_says_so() -> None:
    primes = (999983, 999979, 999961, 999959)
    values = [Fraction(1, prime) for prime in primes]
    found = on_lattice(values)
    assert found.rounded
    assert (found.denominator, found.numerators) == (10**9, tuple(round(10**9 / prime) for prime in primes))
    assert on_lattice([Fraction(1, 2 * 10**9), Fraction(3, 2 * 10**9), *values]).numerators[:2] == (0, 2)
    treatment = {f"u{i}": value for i, value in enumerate(values)}
    control = {f"u{i}": Fraction(0) for i in range(len(values))}
    assert FIXED_POINT_NOTE in analyse(analysis("studentized"), metric(), treatment, control).definition
    assert not on_lattice([Fraction(1, 3), Fraction(2, 7)]).rounded


# ------------------------------------------------------------------- edge cases


@pytest.mark.parametrize("method", ["studentized", "paired_t"])
@pytest.mark.parametrize(
    ("treatment", "side", "p", "lower"),
    [
        (8, "greater", Fraction(1, 2**5), 1 - (1 - 0.025 ** (1 / 5)) * 2),
        (8, "less", Fraction(1), None),
        (8, "two_sided", Fraction(1, 2**4), None),
        (0, "greater", Fraction(1), -(1 - 0.025 ** (1 / 5))),
    ],
)
def test_equal_differences_have_the_sign_flip_p(
    method: str, treatment: int, side: Side, p: Fraction, lower: float | None
) -> None:
    found = analyse(analysis(method, side), metric(), *arms([treatment] * 5, [0] * 5)).statistics
    assert Fraction(found["p"]) == p
    if lower is not None:
        assert found["lower"] == pytest.approx(lower, abs=1e-12)


def test_a_bootstrap_p_is_never_below_its_resolution() -> None:
    flat = analyse(analysis("studentized", resamples=999), metric(), *arms([8] * 40, [0] * 40)).statistics
    assert flat["p"] == 1 / 1000
    clear = analyse(analysis("percentile", resamples=999), metric(), *arms([8] * 39 + [7], [0] * 40)).statistics
    assert clear["p"] == 1 / 1000


@pytest.mark.parametrize("method", METHODS[:3])
def test_too_few_resamples_leave_the_end_of_the_scale(method: str) -> None:
    found = analyse(analysis(method, resamples=30), metric(), *arms(eighths(24, 3), eighths(24, 4))).statistics
    assert (found["lower"], found["upper"]) == (-1, 1)  # floor(31 x .025) = 0


def test_newcombe_test_and_bound_agree_on_every_small_table() -> None:
    outcomes = ((1, 1), (1, 0), (0, 1), (0, 0))
    for cells in itertools.product(range(7), repeat=4):
        if not 0 < sum(cells) <= 12:
            continue
        units = [outcome for outcome, count in zip(outcomes, cells, strict=True) for _ in range(count)]
        treatment = {f"u{i}": Fraction(a) for i, (a, _) in enumerate(units)}
        control = {f"u{i}": Fraction(b) for i, (_, b) in enumerate(units)}
        found = newcombe_paired(treatment, control, side="greater", alpha=0.05).statistics
        mirrored = newcombe_paired(control, treatment, side="less", alpha=0.05).statistics
        assert bool(found["reject"]) == (found["lower"] > 0), cells
        assert found["lower"] <= found["delta"] <= found["upper"]
        assert mirrored["p"] == found["p"]
        assert mirrored["upper"] == -found["lower"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (analysis("newcombe_paired"), "one 0 or 1 per unit, but unit unit000 has 0.375"),
        (analysis("studentized", seed=None), "needs p, resamples and seed"),
        (analysis("wilson"), "the level of one arm"),
        (analysis("paired_t", contrast=None, arm="a"), "needs wilson or bootstrap"),
        (analysis("bootstrap"), "the level of one arm"),
        (analysis("bootstrap", contrast=None, arm="a", seed=None), "needs resamples and seed"),
    ],
)
def test_a_method_that_does_not_apply_says_why(change: Analysis, reason: str) -> None:
    treatment, control = arms([3, 8], [0, 8])
    with pytest.raises(InapplicableError, match=reason):
        analyse(change, metric(), treatment, control if change.arm is None else None)


@pytest.mark.parametrize("method", [*METHODS, "newcombe_paired"])
@pytest.mark.parametrize(("side", "pair"), [("greater", 0.95), ("two_sided", 0.975)])
def test_a_registered_interval_changes_nothing_but_itself(method: str, side: Side, pair: float) -> None:
    rates = method == "newcombe_paired"
    data = arms(*(([1, 0, 1, 1] * 6, [0, 0, 1, 0] * 6, 1) if rates else (eighths(24, 3), eighths(24, 4))))
    own = analyse(analysis(method, side), metric(), *data)
    registered = analyse(analysis(method, side, interval=0.8), metric(), *data)
    shown = ("ci_low", "ci_high")
    assert {k: v for k, v in own.statistics.items() if k not in shown} == {
        k: v for k, v in registered.statistics.items() if k not in shown
    }
    assert (own.ci_level, registered.ci_level) == (pair, 0.8)
    assert registered.statistics["ci_low"] > own.statistics["ci_low"]
    assert registered.statistics["ci_high"] < own.statistics["ci_high"]
    assert "at 80% registered for display" in registered.definition
    assert f"at {100 * pair:g}%, so interval and test may disagree" in registered.definition
    percentile = "percentile interval of the same resamples" in registered.definition
    assert percentile is (method in ("shift", "studentized"))


@pytest.mark.parametrize("method", ["percentile", "paired_t", "sign_flip"])
def test_registering_the_level_that_pairs_with_the_test_changes_no_number(method: str) -> None:
    data = arms(eighths(24, 3), eighths(24, 4))
    own, registered = (
        analyse(analysis(method, "greater", interval=level), metric(), *data) for level in (None, 0.95)
    )  # fmt: skip
    assert own.statistics == registered.statistics
    assert "at 95% registered for display, so that interval and test agree" in registered.definition


def test_the_level_of_one_arm_on_any_scale() -> None:
    values = {f"unit{i:03d}": Fraction(x * 10, 3) for i, x in enumerate(eighths(24, 3))}
    level = analysis("bootstrap", contrast=None, arm="a", interval=0.5)
    found = analyse(level, metric((0, 100)), values, None)
    assert found.statistics["value"] == pytest.approx(float(sum(values.values()) / 24), abs=1e-12)
    assert set(found.statistics) == {"value", "lower", "upper", "ci_low", "ci_high"}
    s = found.statistics
    assert s["lower"] < s["ci_low"] < s["value"] < s["ci_high"] < s["upper"]
    few = analyse(analysis("bootstrap", contrast=None, arm="a", resamples=30), metric((0, 100)), values, None)
    assert (few.statistics["lower"], few.statistics["upper"]) == (0, 100)  # floor(31 x .025) = 0


def test_estimates_are_exact_where_the_lattice_is_rounded() -> None:
    """Differences 5 + e over 31 and 37 and so on, where the e cancel: rounded to 10^-9 they do not."""
    values = [5 + Fraction(k, n) for n in (31, 37, 41, 43, 47, 29, 38, 34) for k in (1, 1, -2)]
    found = on_lattice(values)
    assert found.rounded
    assert found.mean != 5
    assert found.estimate == 5
    treatment = {f"u{i}": value for i, value in enumerate(values)}
    control = dict.fromkeys(treatment, Fraction(0))
    for method in (*METHODS[:4],):
        assert analyse(analysis(method), metric((0, 100)), treatment, control).statistics["delta"] == 5.0


def test_proportions_need_the_unit_scale_and_sign_flips_beyond_twenty_units_a_seed() -> None:
    treatment, control = arms([8] * 21, [0] * 21)
    with pytest.raises(InapplicableError, match=r"on \[0, 100\]"):
        analyse(analysis("newcombe_paired"), metric((0, 100)), treatment, control)
    with pytest.raises(InapplicableError, match="declared resamples and seed"):
        analyse(analysis("sign_flip", seed=None), metric(), treatment, control)
    with pytest.raises(InapplicableError, match="no unit is left"):
        analyse(analysis("paired_t"), metric(), {}, {})
