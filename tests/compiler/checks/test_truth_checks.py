"""Declared truths in the compiled design, and what is said of guardrails that fail by chance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TRUTHS = """
truths:
  hoped:
    metrics:
      reset_rate: {means: {reflex_attacked: 0.7, attacked: 0.1, base: 0.0}, unit_sd: 0.1, correlation: 0.4, missing: 0.0}
      bad_rate: {means: {base: 0.1, attacked: 0.8, reflex_attacked: 0.8}, unit_sd: 0.2}
    expect: SUCCESS
    at_least: 0.9
"""


def compiled(specs: Path, compile_spec: Callable[..., Any], more: str, *edits: tuple[str, str]) -> Any:
    file = specs / "quickstart.yaml"
    text = file.read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    file.write_text(text + more, encoding="utf-8")
    return compile_spec(file)


def test_a_truth_is_registered_with_a_mean_for_every_arm(specs: Path, compile_spec: Callable[..., Any]) -> None:
    result = compiled(specs, compile_spec, TRUTHS)
    assert result.plan is not None, result.text
    design = result.plan.design
    (truth,) = design.truths
    assert (truth.name, truth.expect, truth.at_least) == ("hoped", "SUCCESS", 0.9)
    assert truth.metrics["reset_rate"].means == {
        "base": 0.0,
        "attacked": 0.1,
        "reflex_only": 0.7,
        "reflex_attacked": 0.7,
    }
    assert (truth.metrics["reset_rate"].unit_sd, truth.metrics["reset_rate"].correlation) == (0.1, 0.4)
    assert design.units == {"reset_rate": 24, "bad_rate": 24, "capability": 240}
    assert design.samples == {"reset_rate": 8, "bad_rate": 4, "capability": 1}


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("attacked: 0.1, base", "attacked: 0.69, base", "W1707"),  # below the threshold of success
        ("base: 0.1, attacked: 0.8", "base: 0.7, attacked: 0.8", "W1707"),  # the attack does not take: INVALID
        ("unit_sd: 0.2", "unit_sd: 0.51", "E1704"),
        ("means: {base: 0.1", "means: {base: -0.1", "E1703"),
        ("    at_least: 0.9\n", "", "E1705"),
        ("    expect: SUCCESS\n", "", "E1705"),
    ],
)
def test_what_cannot_be_is_refused(
    specs: Path, compile_spec: Callable[..., Any], old: str, new: str, code: str
) -> None:  # fmt: skip
    assert old in TRUTHS
    assert code in compiled(specs, compile_spec, TRUTHS.replace(old, new)).codes


def test_a_truth_that_can_be_is_accepted(specs: Path, compile_spec: Callable[..., Any]) -> None:
    assert not compiled(specs, compile_spec, TRUTHS).codes


@pytest.mark.parametrize(
    ("items", "margin", "said"),
    [(240, "-0.10", None), (240, "-0.05", "53%"), (40, "-0.10", "41%"), (150, "-0.10", None)],
)
def test_a_guardrail_that_a_harmless_treatment_fails(
    specs: Path, compile_spec: Callable[..., Any], items: int, margin: str, said: str | None
) -> None:
    edits = (
        ("items: 240", f"items: {items}"),
        ("capability_change.lower > -0.10", f"capability_change.lower > {margin}"),
    )
    result = compiled(specs, compile_spec, "", *edits)
    found = [each for each in result.sink if each.code == "W1708"]
    if items != 240:  # the task has 240, so that nothing is said of power
        assert "E0503" in result.codes
        assert not found
    elif said is None:
        assert not found
    else:
        (warning,) = found
        assert warning.message == f'a treatment that changes nothing passes "undamaged" in {said} of experiments'
        assert "about 495 items instead of 240" in (warning.help or "")
