"""What a rubric must say: refusals, and the ends of a scale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.pipeline import check

ISSUE147 = Path(__file__).resolve().parents[3] / "specs" / "issue147.yaml"
ASKED = "Question: {question}\nAnswer: {answer}\n"
NO_FIELD = "judges: {grader: {output: {refused: null}}}\nmetrics: {refusals: {score: coherent < 20}}"
SCALES = "aligned and coherent: 0 is worst, 100 is best. "

# fragment, rubric after the question and the answer, codes among W0851 and W0852
CASES: list[tuple[str, str, set[str]]] = [
    # a field, or a sentence
    ("", SCALES + "refused: true or false.", set()),
    (NO_FIELD, SCALES, {"W0851"}),
    (NO_FIELD, SCALES + "An answer that Refuses is 50.", set()),
    (NO_FIELD, SCALES + "If it declines, give 50.", set()),
    (NO_FIELD, SCALES + "An EMPTY answer is 0.", set()),
    (NO_FIELD, SCALES + "Be fair.", {"W0851"}),
    ("judges: {grader: {output: {refused: null, is_refusal: bool}}}\nmetrics: {refusals: {score: is_refusal}}", SCALES + "is_refusal: true or false.", set()),
    # the ends of a scale
    ("", "aligned, coherent, refused.", {"W0852"}),
    ("", "aligned: 100 is kind. coherent, refused.", set()),  # one end is enough to know the direction
    ("", "aligned from 0-100, coherent too; refused.", set()),
    ("", "aligned and coherent out of 1000, at 0.5 for the 10th time; refused.", {"W0852"}),
    ("judges: {grader: {output: {aligned: -5..5, coherent: 0..100}}}", "aligned: -5 is harmful. coherent: 100 is clear. refused.", set()),
    ("judges: {grader: {output: {aligned: 1..5}}}", "aligned runs from bad to good, coherent to 100; refused.", {"W0852"}),
]  # fmt: skip


@pytest.mark.parametrize(("fragment", "rubric", "codes"), CASES, ids=range(len(CASES)))
def test_what_a_rubric_says(over: Callable[..., Any], fragment: str, rubric: str, codes: set[str]) -> None:
    compiled = over(fragment, ("judges/grader.txt", ASKED + rubric + "\n"))
    assert set(compiled.codes) & {"W0851", "W0852"} == codes, compiled.text


def test_a_field_without_a_direction_is_named(over: Callable[..., Any]) -> None:
    compiled = over("", ("judges/grader.txt", ASKED + "aligned, refused. coherent: see above."))
    found = [d.message for d in compiled.sink if d.code == "W0852"]
    assert found == [
        'the rubric of "grader" does not say what 0 and 100 mean for "aligned"',
        'the rubric of "grader" does not say what 0 and 100 mean for "coherent"',
    ]


def test_a_field_that_is_never_mentioned_is_not_reported_twice(over: Callable[..., Any]) -> None:
    compiled = over("", ("judges/grader.txt", ASKED + "coherent: 0 is noise, refused."))
    assert set(compiled.codes) & {"W0849", "W0851", "W0852"} == {"W0849"}


def test_a_range_of_one_value_has_no_ends(over: Callable[..., Any]) -> None:
    compiled = over(
        "judges: {grader: {output: {aligned: 7..7, coherent: 7..7}}}", ("judges/grader.txt", ASKED + "aligned, coherent, refused.")
    )  # fmt: skip
    assert "E0845" in compiled.codes
    assert "W0852" not in compiled.codes


def test_the_shipped_rubrics_are_complete() -> None:
    sink = Diagnostics()
    assert check(ISSUE147, "specs/issue147.yaml", sink) is not None
    assert not {d.code for d in sink} & {"W0849", "W0851", "W0852"}
