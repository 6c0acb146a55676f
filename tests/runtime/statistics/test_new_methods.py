"""What the methods beside the first ones claim, held against random data."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from epc.compiler.contract.manifest import Side
from epc.runtime.statistics.bca import Correction
from epc.runtime.statistics.cluster_bootstrap import Group, Tree, cluster_bootstrap, nested, two_level_bootstrap
from epc.runtime.statistics.estimate import Estimate, InapplicableError, Lattice, NoSpread
from epc.runtime.statistics.mcnemar import mcnemar
from epc.runtime.statistics.multiplicity import benjamini_hochberg, fixed_sequence, holm
from epc.runtime.statistics.newcombe import TwoRates, newcombe
from epc.runtime.statistics.paired_bootstrap import paired_bootstrap
from epc.runtime.statistics.paired_t import paired_t, paired_t_equivalence, paired_t_noninferiority
from epc.runtime.statistics.sign_test import sign_test

RESAMPLES = 999
LIMIT = 10.0
ROUNDING = 1e-12
Method = Callable[[Lattice, Side, float], Estimate]


def bca(data: Lattice, side: Side, alpha: float) -> Estimate:
    return paired_bootstrap(data, p="bca", side=side, alpha=alpha, resamples=RESAMPLES, seed=1, limit=LIMIT)


def signs(data: Lattice, side: Side, alpha: float) -> Estimate:
    return sign_test(data, side=side, alpha=alpha, limit=LIMIT)


def clusters(data: Lattice, side: Side, alpha: float) -> Estimate:
    values = [Fraction(x, data.denominator) for x in data.numerators]
    tree = {f"c{i}": Group(treatment=tuple(values[i::3])) for i in range(min(3, len(values)))}
    return cluster_bootstrap(
        tree, levels=("document", "item"), weights="equal", p="percentile", side=side, alpha=alpha, resamples=RESAMPLES,
        seed=1, limit=LIMIT,
    )  # fmt: skip


PAIRED: dict[str, Method] = {"bca": bca, "sign_test": signs, "cluster_bootstrap": clusters}
eighths = st.lists(st.integers(-24, 24), min_size=2, max_size=14)


def lattice(numerators: list[int]) -> Lattice:
    return Lattice(numerators=tuple(numerators), denominator=8)


def mirrored(data: Lattice) -> Lattice:
    return Lattice(numerators=tuple(-x for x in data.numerators), denominator=data.denominator)


@settings(max_examples=60, deadline=None)
@given(eighths, st.sampled_from([0.025, 0.05, 0.1]))
@pytest.mark.parametrize("method", PAIRED)
def test_ranges_sides_and_mirror(method: str, numerators: list[int], alpha: float) -> None:
    run, data = PAIRED[method], lattice(numerators)
    greater, less, both = (run(data, side, alpha).statistics for side in ("greater", "less", "two_sided"))
    other = run(mirrored(data), "less", alpha).statistics
    assert (greater["p"], greater["reject"], greater["delta"]) == (other["p"], other["reject"], -other["delta"])
    assert (greater["lower"], greater["upper"]) == (-other["upper"], -other["lower"])
    assert both["p"] == pytest.approx(min(1.0, 2 * min(greater["p"], less["p"])), rel=1e-11)
    for found in (greater, less, both):
        assert found["reject"] == float(found["p"] < alpha)
        assert -LIMIT <= found["lower"] <= found["upper"] <= LIMIT
        assert -LIMIT <= found["ci_low"] <= found["ci_high"] <= LIMIT
        assert (0 if method == "sign_test" else 1 / (RESAMPLES + 1)) <= found["p"] <= 1
    assert (greater["ci_low"], greater["ci_high"]) == (greater["lower"], greater["upper"])


@settings(max_examples=60, deadline=None)
@given(eighths, st.integers(1, 20), st.sampled_from([0.025, 0.05, 0.1]))
@pytest.mark.parametrize("method", PAIRED)
def test_a_better_result_never_has_a_worse_p_or_bound(
    method: str, numerators: list[int], up: int, alpha: float
) -> None:
    run = PAIRED[method]
    before, after = (run(lattice([x + move for x in numerators]), "greater", alpha).statistics for move in (0, up))
    assert after["p"] <= before["p"] * (1 + 1e-11)
    assert after["lower"] >= before["lower"]
    assert after["delta"] == pytest.approx(before["delta"] + up / 8)


@settings(max_examples=80, deadline=None)
@given(eighths, st.sampled_from([0.025, 0.05, 0.2]))
def test_bca_bounds_invert_its_test(numerators: list[int], alpha: float) -> None:
    assume(len(set(numerators)) > 1)
    for side in ("greater", "less"):
        found = bca(lattice(numerators), side, alpha).statistics
        beyond = found["lower"] > 0 if side == "greater" else found["upper"] < 0
        assert found["p"] == pytest.approx(alpha, rel=1e-9) or bool(found["reject"]) == beyond


@settings(max_examples=80, deadline=None)
@given(st.floats(-1.5, 1.5), st.floats(-0.166, 0.166), st.integers(1, 9999))
def test_the_bca_tail_and_level_are_inverse(bias: float, acceleration: float, mass: int) -> None:
    correction = Correction(bias=bias, acceleration=acceleration)
    level = correction.level(Fraction(mass, 10_000))
    assume(1e-6 < level < 1 - 1e-6)
    assert float(correction.tail(Fraction(repr(level)))) == pytest.approx(mass / 10_000, rel=1e-6)


def test_the_bca_tail_at_the_ends_of_its_range() -> None:
    strong = Correction(bias=0.0, acceleration=-0.166)
    assert strong.tail(Fraction(1, 10**12)) == 0
    assert strong.tail(Fraction(0)) == 0
    assert strong.level(Fraction(1)) == 1
    assert strong.mirrored.tail(1 - Fraction(1, 10**12)) == 1
    assert strong.mirrored.level(Fraction(1, 10**12)) == 0
    assert strong.level(1 - Fraction(1, 10**12)) == 1
    none = Correction(bias=0.0, acceleration=0.0)
    assert none.tail(Fraction(1, 40)) == Fraction(1, 40)
    assert none.level(Fraction(1, 40)) == 0.025


@pytest.mark.parametrize(("value", "p"), [(8, Fraction(1, 32)), (0, Fraction(1)), (-8, Fraction(1))])
def test_bca_without_spread_has_the_sign_flip_p(value: int, p: Fraction) -> None:
    data = lattice([value] * 5)
    found = bca(data, "greater", 0.025)
    assert Fraction(found.statistics["p"]) == p
    assert found.statistics["lower"] == pytest.approx(NoSpread(differences=data, limit=LIMIT).low(Fraction(1, 40)))
    assert "All differences are equal" in found.definition


@settings(max_examples=100, deadline=None)
@given(eighths)
def test_sign_test_bounds(numerators: list[int]) -> None:
    found = signs(lattice(numerators), "greater", 0.1).statistics
    assert found["lower"] <= found["delta"] <= found["upper"]
    if found["lower"] > 0:
        assert found["p"] <= 0.1
    if 0 not in numerators:
        assert bool(found["p"] <= 0.1) == (found["lower"] > 0)
    if found["p"] < 0.5:
        assert sum(x > 0 for x in numerators) > sum(x < 0 for x in numerators)


# ---------------------------------------------------------------------- rates

OUTCOMES = ((1, 1), (1, 0), (0, 1), (0, 0))


def test_mcnemar_on_every_small_table() -> None:
    for cells in itertools.product(range(6), repeat=4):
        if not 0 < sum(cells) <= 9:
            continue
        units = [outcome for outcome, count in zip(OUTCOMES, cells, strict=True) for _ in range(count)]
        arms = [{f"u{i}": Fraction(unit[arm]) for i, unit in enumerate(units)} for arm in (0, 1)]
        for p in ("exact", "corrected"):
            found = mcnemar(*arms, p=p, side="greater", alpha=0.05).statistics
            other = mcnemar(*reversed(arms), p=p, side="less", alpha=0.05).statistics
            two = mcnemar(*arms, p=p, side="two_sided", alpha=0.05).statistics
            assert (found["p"], found["lower"], found["upper"]) == (other["p"], -other["upper"], -other["lower"])
            assert found["lower"] <= found["delta"] <= found["upper"]
            assert two["p"] == pytest.approx(
                min(1.0, 2 * min(found["p"], mcnemar(*arms, p=p, side="less", alpha=0.05).statistics["p"]))
            )
            if found["p"] < 0.5:
                assert found["delta"] > 0
            if cells[1] == cells[2]:
                assert two["p"] == 1


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.data())
def test_newcombe_of_independent_rates(n1: int, n2: int, data: st.DataObject) -> None:
    s1, s2 = data.draw(st.integers(0, n1)), data.draw(st.integers(0, n2))
    first = {f"a{i}": Fraction(int(i < s1)) for i in range(n1)}
    second = {f"b{i}": Fraction(int(i < s2)) for i in range(n2)}
    found = newcombe(first, second, side="greater", alpha=0.05).statistics
    other = newcombe(second, first, side="less", alpha=0.05).statistics
    assert (found["p"], found["lower"], found["upper"]) == (other["p"], -other["upper"], -other["lower"])
    assert -1 <= found["lower"] <= found["delta"] + ROUNDING
    assert found["delta"] - ROUNDING <= found["upper"] <= 1
    assert bool(found["reject"]) == (found["lower"] > 0) or found["p"] == pytest.approx(0.05, rel=1e-9)
    assert (found["p"] < 0.5) == (s1 * n2 > s2 * n1)
    rates = TwoRates(successes=(s1, s2), n=(n1, n2))
    assert all(rates.lower(z) >= rates.lower(z + 0.25) - ROUNDING for z in (0.0, 0.5, 1.0, 2.0, 4.0))
    more = newcombe({**first, **dict.fromkeys(list(first)[: s1 + 1], Fraction(1))}, second, side="greater", alpha=0.05)
    assert more.statistics["p"] <= found["p"] + ROUNDING


# --------------------------------------------------------------------- margins


@settings(max_examples=100, deadline=None)
@given(eighths, st.integers(1, 24), st.sampled_from([0.025, 0.05]))
def test_margins_are_read_off_the_bounds(numerators: list[int], margin: int, alpha: float) -> None:
    """p < alpha is `lower > -margin`, and equivalence is both bounds inside, except where nothing varies."""
    data, m = lattice(numerators), margin / 8
    assume(data.scatter > 0)
    plain = paired_t(data, side="greater", alpha=alpha, limit=1e6).statistics
    worse = paired_t_noninferiority(data, margin=m, side="greater", alpha=alpha, limit=1e6).statistics
    better = paired_t_noninferiority(data, margin=m, side="less", alpha=alpha, limit=1e6).statistics
    both = paired_t_equivalence(data, margin=m, alpha=alpha, limit=1e6)
    assume(min(abs(plain["lower"] + m), abs(plain["upper"] - m)) > 1e-9)
    assert bool(worse["reject"]) == (plain["lower"] > -m)
    assert bool(better["reject"]) == (plain["upper"] < m)
    assert bool(both.statistics["reject"]) == (plain["lower"] > -m and plain["upper"] < m)
    assert both.statistics["p"] == max(worse["p"], better["p"])
    assert (worse["lower"], worse["upper"]) == (plain["lower"], plain["upper"])
    assert both.ci_level == float(1 - 2 * Fraction(repr(alpha)))
    assert (
        paired_t_noninferiority(data, margin=m + 1, side="greater", alpha=alpha, limit=1e6).statistics["p"]
        <= worse["p"]
    )


@pytest.mark.parametrize(
    ("value", "p"), [(0, Fraction(1, 64)), (-4, Fraction(1, 64)), (-8, Fraction(1)), (-9, Fraction(1))]
)
def test_margins_where_nothing_varies(value: int, p: Fraction) -> None:
    found = paired_t_noninferiority(lattice([value] * 6), margin=1.0, side="greater", alpha=0.05, limit=LIMIT)
    assert Fraction(found.statistics["p"]) == p
    assert found.statistics["delta"] == value / 8


# ----------------------------------------------------------------- nested data

ROWS = [
    ((f"s{s}", f"d{d}", f"i{i}"), Fraction((7 * s + 3 * d * i) % 11 - 4, 8))
    for s in range(3)
    for d in range(4)
    for i in range(d + 1)
]


def deep(tree: Tree, stages: int | None = None) -> Estimate:
    return cluster_bootstrap(
        tree, levels=("seed", "document", "item"), stages=stages, weights="size", p="shift", side="greater", alpha=0.05,
        resamples=500, seed=1, limit=LIMIT,
    )  # fmt: skip


def test_the_order_of_nested_rows_changes_nothing() -> None:
    shuffled = ROWS[:]
    random.Random(5).shuffle(shuffled)
    assert nested(shuffled) == nested(ROWS)
    assert deep(nested(shuffled)) == deep(nested(ROWS))


def test_weights() -> None:
    """One long and one short document: the mean of means, or the mean of all items."""
    tree = {"long": Group(treatment=(Fraction(1),) * 9), "short": Group(treatment=(Fraction(-1),))}
    for weights, delta in (("equal", 0.0), ("size", 0.8)):
        found = cluster_bootstrap(
            tree, levels=("document", "item"), weights=weights, p="percentile", side="greater", alpha=0.05,
            resamples=99, seed=1, limit=1.0,
        )  # fmt: skip
        assert found.statistics["delta"] == delta
        assert ("by its size" in found.definition) is (weights == "size")


def test_two_levels_are_wider_than_one() -> None:
    """What completions vary within a unit is in the unit means already, and the second draw adds it again."""
    units = {
        f"u{i:02d}": Group(treatment=tuple(Fraction((i * j + j) % 5) for j in range(4)), control=tuple(Fraction((i + j * j) % 4) for j in range(5)))
        for i in range(30)
    }  # fmt: skip
    two = two_level_bootstrap(
        units, weights="equal", p="percentile", side="greater", alpha=0.05, resamples=4000, seed=1, limit=5.0
    ).statistics
    one = cluster_bootstrap(
        units, levels=("unit", "sample"), stages=1, weights="equal", p="percentile", side="greater", alpha=0.05,
        resamples=4000, seed=1, limit=5.0,
    ).statistics  # fmt: skip
    assert two["delta"] == one["delta"]
    assert two["lower"] < one["lower"] < one["upper"] < two["upper"]


def test_sums_beyond_64_bits_are_exact() -> None:
    wide = {f"c{i}": Group(treatment=(Fraction(3**38 * (i - 3), 8), Fraction(3**38, 8))) for i in range(9)}
    small = {f"c{i}": Group(treatment=(Fraction(i - 3, 8), Fraction(1, 8))) for i in range(9)}
    found = [
        cluster_bootstrap(
            tree, levels=("document", "item"), weights="equal", p="shift", side="greater", alpha=0.05, resamples=999,
            seed=1, limit=1e20,
        ).statistics["p"]
        for tree in (wide, small)
    ]  # fmt: skip
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("tree", "stages", "reason"),
    [
        ({"a": Group(treatment=())}, None, "holds no values"),
        ({"a": {"b": Group(treatment=(Fraction(1),))}}, None, "more clusters"),
        ({}, None, "is empty"),
        ({"a": Group(treatment=(Fraction(1),), control=())}, None, "holds no values"),
        ({"a": Group(treatment=(Fraction(1),)), "b": Group(treatment=(Fraction(1),), control=(Fraction(0),))}, None, "some groups hold differences"),
        ({"a": Group(treatment=(Fraction(1),))}, 3, "3 of 2 levels cannot be drawn"),
    ],
)  # fmt: skip
def test_trees_that_cannot_be_drawn(tree: Tree, stages: int | None, reason: str) -> None:
    with pytest.raises(InapplicableError, match=reason):
        cluster_bootstrap(
            tree, levels=("document", "item"), stages=stages, weights="equal", p="percentile", side="greater",
            alpha=0.05, resamples=9, seed=1, limit=1.0,
        )  # fmt: skip


def test_rows_that_are_no_tree() -> None:
    with pytest.raises(InapplicableError, match="a / b has two values"):
        nested([(("a", "b"), Fraction(1)), (("a", "b"), Fraction(2))])
    with pytest.raises(InapplicableError, match="paths of one length"):
        nested([(("a", "b"), Fraction(1)), (("a", "b", "c"), Fraction(2))])
    with pytest.raises(InapplicableError, match="paths of one length"):
        nested([(("a",), Fraction(1))])


# ----------------------------------------------------------------- multiplicity

p_lists = st.lists(st.fractions(0, 1, max_denominator=1000), min_size=1, max_size=9)


@given(p_lists, st.fractions(Fraction(1, 100), Fraction(1, 2), max_denominator=100))
def test_adjustments(ps: list[Fraction], alpha: Fraction) -> None:
    m = len(ps)
    for adjust in (holm, benjamini_hochberg, fixed_sequence):
        found = adjust(ps, alpha)
        assert all(p <= each.p <= 1 for p, each in zip(ps, found, strict=True))
        assert all(each.reject == (each.p < alpha) for each in found)
    stepwise, rate, sequence = holm(ps, alpha), benjamini_hochberg(ps, alpha), fixed_sequence(ps, alpha)
    assert all(one.p >= other.p for one, other in zip(stepwise, rate, strict=True))
    assert all(each.p <= min(Fraction(1), m * p) for p, each in zip(ps, stepwise, strict=True))
    assert [each.reject for each in sequence] == [all(p < alpha for p in ps[: i + 1]) for i in range(m)]
    for (p, a), (q, b) in itertools.combinations(zip(ps, stepwise, strict=True), 2):
        assert (p <= q) == (a.p <= b.p) or a.p == b.p
