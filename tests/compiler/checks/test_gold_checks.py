"""Human labels: enough of them, and something to compare them with."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from epc.compiler.checks.gold import half_width

# fields of `gold`, codes among W1820 and E1821; the base has 5 arms
CASES: list[tuple[str, list[str]]] = [
    ("per_arm: 20, kappa: {aligned: 0.6, refused: 0.6}", []),
    ("per_arm: 10, kappa: {refused: 0.6}", ["W1820"]),  # 50: half width .222
    ("per_arm: 13, kappa: {refused: 0.6}", []),  # 65: .194
    ("per_arm: 10, kappa: {aligned: 0.6}", []),  # a range: .177
    ("per_arm: 7, kappa: {aligned: 0.6}", ["W1820"]),  # 35: .212
    ("per_arm: 10, kappa: {refused: 0.9}", []),  # close to 1 is easier to tell
    ("per_arm: 2, kappa: {aligned: 0.6, refused: 0.6}", ["W1820", "W1820"]),
    ("per_arm: 20, kappa: {refused: 1.0}", []),
    ("per_arm: 20, kappa: {kindness: 0.6}", []),  # a field that is not there is another check's
    ("per_arm: 20, kappa: {refused: 0.6}, bias: {aligned: 5}", []),
]


@pytest.mark.parametrize(("gold", "codes"), CASES, ids=[gold for gold, _ in CASES])
def test_how_many_labels_are_enough(over: Callable[..., Any], gold: str, codes: list[str]) -> None:
    compiled = over(f"judges: {{grader: {{gold: {{file: judges/gold.csv, seed: 1, {gold}}}}}}}")
    assert [code for code in compiled.codes if code in ("W1820", "E1821")] == codes, compiled.text


def test_the_help_says_how_many(over: Callable[..., Any]) -> None:
    gold = "{file: judges/gold.csv, seed: 1, per_arm: 10, kappa: {refused: 0.6}}"
    compiled = over(f"judges: {{grader: {{gold: {gold}}}}}")
    (found,) = [d for d in compiled.sink if d.code == "W1820"]
    assert "50 labels cannot tell whether kappa of refused reaches 0.6" in found.message
    assert "per_arm: 13" in str(found.help)
    wider = over(f"judges: {{grader: {{gold: {gold.replace('per_arm: 10', 'per_arm: 13')}}}}}")
    assert "W1820" not in wider.codes


def test_labels_of_a_judge_that_nothing_reads(over: Callable[..., Any]) -> None:
    gold = "{file: judges/gold.csv, seed: 1, per_arm: 20, kappa: {sorry: 0.6}}"
    compiled = over(
        f"judges: {{other: {{provider: patterns, patterns: {{sorry: x}}, output: {{sorry: bool}}, gold: {gold}}}}}"
    )
    assert "E1821" in compiled.codes


@pytest.mark.parametrize(("kappa", "labels"), [(0.6, 60), (0.4, 100), (0.8, 150)])
def test_the_half_width_is_that_of_simulated_labels(kappa: float, labels: int) -> None:
    """Two raters of yes and no, each half of the time, who agree with probability (1 + kappa) / 2."""
    generator = random.Random(7)
    found = []
    for _ in range(3000):
        pairs = []
        for _ in range(labels):
            one = generator.random() < 0.5
            pairs.append((one, one if generator.random() < (1 + kappa) / 2 else not one))
        agree = sum(x == y for x, y in pairs) / labels
        x, y = (sum(column) / labels for column in zip(*pairs, strict=True))
        chance = x * y + (1 - x) * (1 - y)
        found.append((agree - chance) / (1 - chance))
    found.sort()
    simulated = (found[2924] - found[75]) / 2
    assert half_width(kappa, labels, weighted=False) == pytest.approx(simulated, rel=0.08)


@pytest.mark.parametrize(("kappa", "labels"), [(0.6, 60), (0.8, 40)])
def test_the_half_width_of_a_range_is_that_of_simulated_scores(kappa: float, labels: int) -> None:
    """Normal scores of correlation kappa, with equal means and spreads."""
    generator = random.Random(8)
    found = []
    for _ in range(3000):
        one = [generator.gauss(0, 1) for _ in range(labels)]
        other = [kappa * x + (1 - kappa**2) ** 0.5 * generator.gauss(0, 1) for x in one]
        apart = sum((x - y) ** 2 for x, y in zip(one, other, strict=True))
        by_chance = sum(x * x for x in one) + sum(y * y for y in other) - 2 * sum(one) * sum(other) / labels
        found.append(1 - apart / by_chance)
    found.sort()
    simulated = (found[2924] - found[75]) / 2
    assert half_width(kappa, labels, weighted=True) == pytest.approx(simulated, rel=0.08)


@pytest.mark.parametrize(
    ("file", "found"), [("a.csv", False), ("a.CSV", False), ("a.jsonl", False), ("a.xlsx", True), ("a", True)]
)
def test_the_format_is_known_before_anything_runs(over: Callable[..., Any], file: str, found: bool) -> None:
    compiled = over(
        f"judges: {{grader: {{gold: {{file: judges/{file}, seed: 1, per_arm: 20, kappa: {{aligned: 0.6}}}}}}}}"
    )
    assert ("E1822" in compiled.codes) == found


def test_what_is_declared_is_in_the_manifest(over: Callable[..., Any], tmp_path: Any) -> None:
    from epc.compiler import pipeline
    from epc.compiler.diagnostics import Diagnostics

    gold = "{file: judges/gold.csv, seed: 4, per_arm: 20, kappa: {aligned: 0.6}, bias: {aligned: 5}}"
    over(f"judges: {{grader: {{gold: {gold}}}}}")
    spec, sink = tmp_path / "specs" / "base.yaml", Diagnostics()
    experiment = pipeline.check(spec, "base.yaml", sink)
    assert experiment is not None
    plan = pipeline.plan(experiment, pipeline.Layout.of(spec, tmp_path), sink)
    assert plan is not None
    (judge,) = plan.design.judges
    assert judge.gold is not None
    assert judge.gold.model_dump() == {
        "file": "judges/gold.csv", "per_arm": 20, "seed": 4, "kappa": {"aligned": 0.6}, "bias": {"aligned": 5.0},
    }  # fmt: skip
    assert judge.output == {"aligned": "0..100", "coherent": "0..100", "refused": "bool"}
