"""The gates on missing scores that every judged design gets without asking for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.audited import AuditedBundle, Reply, faithful

from epc.compiler import pipeline
from epc.compiler.contract.decision import Decision
from epc.compiler.contract.rows import SampleRow
from epc.compiler.diagnostics import Diagnostics
from epc.runtime.measurements import group
from epc.runtime.missingness import judged_gates

ROOT = Path(__file__).resolve().parents[3]
BOTH = ["epc.judge_missing", "epc.differential_missingness"]
SPECS = ["specs/issue147.yaml", "tests/compiler/explain/base.yaml"]
"""Specs with judges: one as it ships, one with what is asked of every example."""


@pytest.mark.parametrize("spec", SPECS)
def test_every_judged_spec_has_both_and_declares_neither(spec: str, tmp_path: Path) -> None:
    sink = Diagnostics()
    experiment = pipeline.check(ROOT / spec, spec, sink)
    assert experiment is not None
    plan = pipeline.plan(experiment, pipeline.Layout.of(ROOT / spec, tmp_path), sink)
    assert plan is not None
    assert [gate.name for gate in judged_gates(plan.design, group(()))] == BOTH
    assert not [gate.name for gate in plan.design.gates if "missing" in gate.name]
    assert all(gate.truth is None for gate in judged_gates(plan.design, group(()))), "without rows they are unknown"


def losing(*lost: tuple[str, int, int]) -> Callable[[SampleRow, int], Reply | None]:
    """A judge that gives no answer to the first so many completions of an arm, in one of its votes: (arm, number, vote)."""

    def judge(row: SampleRow, vote: int) -> Reply | None:
        place = int(row.item.removeprefix("prompt")) * 4 + row.index
        return (
            None
            if any((row.condition, vote) == (arm, which) and place < number for arm, number, which in lost)
            else faithful(row, vote)
        )

    return judge


def decided(folder: Path, judge: Any, **more: Any) -> Decision:
    made = AuditedBundle(folder=folder, judge=judge, gold=False, **more)
    made.write()
    return made.decide()


def gate(decision: Decision, name: str) -> tuple[bool | None, str]:
    return next((found.truth, found.detail) for found in decision.gates if found.name == name)


# (arm, completions, vote), votes -> truth of both gates, what the first says
CASES: dict[str, tuple[list[tuple[str, int, int]], int, tuple[bool, bool], str]] = {
    "nothing is lost": ([], 1, (True, True), "no score is missing"),
    "within what is allowed": ([("base", 2, 0)], 1, (True, True), "2 of 48 (4.17%)"),
    "above it in one arm": ([("base", 3, 0)], 1, (False, True), "base (first): 3 of 48 (6.25%), allowed 5%"),
    "above it, and not in the other": ([("base", 9, 0)], 1, (False, False), "9 of 48"),
    "above it in both alike": ([("base", 9, 0), ("attacked", 9, 0)], 1, (False, True), "9 of 48"),
    "one vote of three is lost: the completion is": ([("base", 3, 1)], 3, (False, True), "base (first): 3 of 48 (6.25%)"),
    "three votes of one completion are one loss": (
        [("base", 2, 0), ("base", 2, 1), ("base", 2, 2)], 3, (True, True), "2 of 48 (4.17%)",
    ),
    "votes of different completions add up": ([("base", 2, 0), ("base", 3, 2)], 3, (False, True), "3 of 48 (6.25%)"),
    "different losses by arm, in one vote only": ([("base", 9, 2)], 3, (False, False), "9 of 48"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_completions_without_a_score_are_counted_once(name: str, tmp_path: Path) -> None:
    lost, votes, truths, said = CASES[name]
    decision = decided(tmp_path, losing(*lost), votes=votes, aggregate="median" if votes > 1 else None)
    found = [gate(decision, which) for which in BOTH]
    assert tuple(truth for truth, _ in found) == truths, found
    assert said in found[0][1]
    assert (decision.verdict.label == "INVALID") == (False in truths)
