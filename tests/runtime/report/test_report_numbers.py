from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epc.compiler.contract.logic import Operator, compare
from epc.runtime.report import numbers

RATE = (0.0, 1.0)
POINTS = (0.0, 100.0)


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (0.024851, ".0249"), (0.00005, "< .0001"), (0.0001, ".0001"), (0.5, ".5000"), (1.0, "1"), (0.99996, "1"),
        (0.0, "< .0001"), (0.05, ".0500"),
    ],
)  # fmt: skip
def test_p_is_written_as_journals_do(p: float, text: str) -> None:
    assert numbers.p_value(p) == text


@pytest.mark.parametrize(
    ("p", "level", "text"),
    [
        (0.02499, 0.025, ".02499"), (0.025, 0.025, ".0250"), (0.02501, 0.025, ".0250"), (0.0124949, 0.025, ".0125"),
        (0.00004, 0.05, "< .0001"), (0.00004, 0.00005, ".00004"), (0.00005, 0.00005, ".00005"), (1.0, 0.05, "1"),
        (0.99999, 1.0, ".99999"), (0.0, 0.00005, "< .0001"),
    ],
)  # fmt: skip
def test_p_is_never_rounded_across_the_level_that_it_is_compared_to(p: float, level: float, text: str) -> None:
    assert numbers.p_value(p, level) == text


@pytest.mark.parametrize(("p", "text"), [(0.024851, "p = .0249"), (0.00002, "p < .0001")])
def test_p_in_a_sentence(p: float, text: str) -> None:
    assert numbers.p_phrase(p) == text


@pytest.mark.parametrize(
    ("value", "scale", "text"),
    [
        (0.328, RATE, "+0.328 (+32.8 pp)"), (-0.0604, RATE, "−0.060 (−6.0 pp)"), (0.0, RATE, "0.000 (0.0 pp)"),
        (-0.0001, RATE, "0.000 (0.0 pp)"), (5.125, POINTS, "+5.12"), (-5.0, POINTS, "−5.00"), (0.25, (0.0, 0.5), "+0.250"),
    ],
)  # fmt: skip
def test_differences_have_a_sign_and_points(value: float, scale: tuple[float, float], text: str) -> None:
    assert numbers.difference(value, scale) == text


@pytest.mark.parametrize(
    ("value", "scale", "text"), [(0.349, RATE, "0.349 (34.9%)"), (1.0, RATE, "1.000 (100.0%)"), (71.5, POINTS, "71.50")]
)
def test_levels_have_percentages(value: float, scale: tuple[float, float], text: str) -> None:
    assert numbers.level(value, scale) == text


@pytest.mark.parametrize(
    ("level", "text"), [(0.95, "95%"), (0.975, "97.5%"), (1 - 0.025, "97.5%"), (1 - 0.05 / 3, "98.333333%")]
)
def test_confidence_levels_are_not_rounded_to_another_level(level: float, text: str) -> None:
    assert numbers.percent_level(level) == text


@pytest.mark.parametrize(
    ("value", "operator", "constant", "text"),
    [
        (0.328, ">=", 0.15, "0.328"), (0.14996, ">=", 0.15, "0.14996"), (0.15, ">=", 0.15, "0.150"),
        (0.0500001, "<=", 0.05, "0.0500001"), (-0.1, ">", -0.1, "−0.100"), (-0.09999, ">", -0.1, "−0.09999"),
    ],
)  # fmt: skip
def test_a_value_is_never_rounded_across_its_threshold(
    value: float, operator: Operator, constant: float, text: str
) -> None:
    assert numbers.fixed(value, numbers.deciding_digits(value, operator, constant, 3)) == text


@given(
    constant=st.integers(-1000, 1000).map(lambda n: n / 1000),
    offset=st.integers(-(10**9), 10**9).map(lambda n: n / 10**11),
    operator=st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
)
def test_the_printed_value_compares_as_the_value_does(constant: float, offset: float, operator: Operator) -> None:
    value = constant + offset
    digits = numbers.deciding_digits(value, operator, constant, 3)
    printed = float(numbers.fixed(value, digits).replace(numbers.MINUS, "-"))
    assert compare(printed, operator, constant) == compare(round(value, numbers.MOST_DIGITS), operator, constant)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.02, "< 0.1 s"),
        (0.0, "0.0 s"),
        (8.42, "8.4 s"),
        (200.0, "3 min 20 s"),
        (7500.0, "2 h 05 min"),
        (3599.7, "1 h 00 min"),
    ],
)
def test_durations(value: float, text: str) -> None:
    assert numbers.seconds(value) == text


def test_an_unknown_always_has_a_reason() -> None:
    assert numbers.unknown("3 samples missing") == "unknown: 3 samples missing"
    assert numbers.unknown(None) == numbers.unknown("") == "unknown: not recorded"
