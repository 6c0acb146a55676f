"""Rental of GPUs: the price list, the arithmetic, and the budget that it counts against."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest

from epc.compiler import cost
from epc.compiler.contract.prices import GPU_PRICES


@pytest.mark.parametrize("gpu", GPU_PRICES)
def test_every_price_has_a_day_and_a_source(gpu: str) -> None:
    price = GPU_PRICES[gpu]
    assert date(2026, 1, 1) < date.fromisoformat(price.as_of)
    assert price.source
    assert gpu == gpu.lower()


@pytest.mark.parametrize(
    ("gpu", "usd", "says"),
    [
        ("h100-sxm", 32.0, "10 GPU-hours x $3.20 an hour (h100-sxm) = $32.00"),
        ("h200-sxm", 39.9, "10 GPU-hours x $3.99"),
        ("a100-sxm", 50.72, "10 GPU-hours x 3.17 (bf16 peak 989 / 312 TFLOPS) x $1.60 an hour (a100-sxm) = $50.72"),
        ("l40", 54.64, "x 5.46"),
    ],
)
def test_a_slower_gpu_is_rented_for_longer(gpu: str, usd: float, says: str) -> None:
    found, how = cost.gpu_usd(10, gpu)
    assert found == usd
    assert says in how
    assert GPU_PRICES[gpu].as_of in how


@pytest.mark.parametrize(
    ("gpu", "says"),
    [
        ("h100", 'did you mean "h100-sxm"?'),
        ("A100_SXM", 'did you mean "a100-sxm"?'),
        ("tpu", "known: a100-sxm, h100-sxm, h200-sxm, l40"),
    ],
)
def test_a_gpu_that_the_list_lacks(over: Callable[..., Any], gpu: str, says: str) -> None:
    compiled = over(f"budget: {{gpu: {gpu}}}")
    (found,) = [d for d in compiled.sink if d.code == "E1102"]
    assert says in found.help
    assert gpu in compiled.sink.sources[found.span.file][found.span.line - 1]


def test_rental_counts_against_the_dollars(over: Callable[..., Any]) -> None:
    """The base needs some dollars of judging and some minutes of a GPU."""
    figures = over().plan.figures.values
    judging = figures["usd"]
    rental, _ = cost.gpu_usd(figures["gpu_hours"], "l40")
    assert rental > 0.02
    between, above = judging + rental / 2, judging + rental + 0.01
    assert over(f"budget: {{usd: {between}}}").plan is not None
    assert over(f"budget: {{usd: {above}, gpu: l40}}").plan is not None
    compiled = over(f"budget: {{usd: {between}, gpu: l40}}")
    (found,) = [d for d in compiled.sink if d.code == "E1101"]
    assert f"the plan needs about {judging + rental:.2f} dollars" in found.message
    assert found.notes[-1] == f"${judging:,.2f} judging + ${rental:,.2f} rental = ${judging + rental:,.2f}"


def test_hours_and_dollars_are_held_apart(over: Callable[..., Any]) -> None:
    found = [
        d.message
        for d in over("budget: {gpu_hours: 0, usd: 0}\nmodel: {parameters: 70000000000}").sink
        if d.code == "E1101"
    ]
    assert [message.split(", ")[1] for message in sorted(found)] == ["the budget is 0", "the budget is 0"]
    assert any("GPU-hours" in message for message in found)
    assert any("dollars" in message for message in found)
