"""The cells against brute force: random tables, judged at random results that the facts allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.support.tables import (
    ANALYSES,
    METRIC,
    METRICS,
    NAMES,
    POINTS,
    Point,
    atoms,
    matched,
    rules,
    table,
    trees,
    truth,
)

from epc.compiler.contract.logic import Predicate
from epc.compiler.table import analyse
from epc.compiler.table.cells import nice, parts, quantity_of, space, variable_of
from epc.compiler.table.facts import Range, facts, holds
from epc.compiler.table.verdicts import PRECEDENCE, RANK


@settings(max_examples=150, deadline=None)
@given(st.lists(trees(atoms, 5), min_size=1, max_size=4))
def test_every_result_lies_in_a_cell_with_its_truths(predicates: list[Predicate]) -> None:
    """No feasible result is missing, and predicates have in its cell the truth they have at the result."""
    keyed = {f"g{index}": predicate for index, predicate in enumerate(predicates)}
    made = space(keyed, ANALYSES, METRICS)
    full = np.stack([np.broadcast_to(made.truths[key], made.shape).ravel() for key in keyed], axis=1)
    combinations = {tuple(row) for row in full.tolist()}
    seen = {tuple(truth(predicate, point) for predicate in predicates) for point in POINTS}
    assert seen <= combinations


@settings(max_examples=150, deadline=None)
@given(st.lists(trees(atoms, 5), min_size=1, max_size=4))
def test_every_cell_holds_a_result(predicates: list[Predicate]) -> None:
    """The witness of each row meets the facts (p up to its lattice) and lies in the row's cells."""
    made = space({f"g{index}": predicate for index, predicate in enumerate(predicates)}, ANALYSES, METRICS)
    for block in made.blocks:
        for row in range(0, len(block.own), max(1, len(block.own) // 40)):
            values = block.point(row)
            for column, variable in enumerate(block.variables):
                low, high = block.axes[variable].ends(int(block.own[row, column]))
                assert low < values[variable] < high or low == values[variable] == high
            for one in ANALYSES.values():
                if quantity_of(one) != block.quantity:
                    continue
                statistics = {
                    statistic: values[variable]
                    for statistic in ("delta", "lower", "upper", "ci_low", "ci_high", "p", "reject")
                    if (variable := variable_of(one, statistic)) in block.variables
                }
                broken = [
                    fact
                    for fact in facts(one, METRIC)
                    if not (isinstance(fact, Range) and fact.statistic == "p") and not holds(fact, statistics)
                ]
                assert broken == []


@settings(max_examples=150, deadline=None)
@given(st.lists(trees(atoms, 3), min_size=4, max_size=4), rules, st.booleans())
def test_findings_agree_with_brute_force(
    predicates: list[Predicate], rows: list[tuple[Predicate, str]], otherwise: bool
) -> None:
    """Whatever goes wrong at one of many results has been found, and nothing that happens is called impossible."""
    gates, verdicts = table(predicates, rows, otherwise)
    findings = analyse(metrics=list(METRICS.values()), analyses=list(ANALYSES.values()), gates=gates, verdicts=verdicts)
    assume(not any(one.kind == "too_large" and one.message.startswith("this table") for one in findings))
    pairs = {(one.kind, one.rules) for one in findings}
    constant = {one.gates[0] for one in findings if one.kind == "constant_gate"}
    unreachable = {one.rules[0] for one in findings if one.kind == "unreachable_rule"}
    monotone = not any(one.kind in ("non_monotone", "too_large") for one in findings)
    values: dict[str, set[bool]] = {name: set() for name in NAMES}
    decided: list[tuple[Point, int]] = []
    for point in POINTS:
        gate_truth = {gate.name: truth(gate.predicate, point) for gate in gates}
        for name, value in gate_truth.items():
            values[name].add(value)
        matches = [index for index, rule in enumerate(verdicts) if matched(rule, gate_truth)]
        if not matches:
            assert ("not_total", ()) in pairs
            decided.append((point, RANK["INCONCLUSIVE"]))
            continue
        first = matches[0]
        decided.append((point, RANK[verdicts[first].verdict_class]))
        assert first not in unreachable
        for other in matches[1:]:
            one, two = verdicts[first], verdicts[other]
            if one.predicate is None or two.predicate is None or one.label == two.label:
                continue
            before, after = PRECEDENCE[one.verdict_class], PRECEDENCE[two.verdict_class]
            if before == after:
                assert ("ambiguous", (other, first)) in pairs
            elif {one.verdict_class, two.verdict_class} == {"SUCCESS", "KILL"}:
                assert ("success_and_kill", (other, first)) in pairs
            elif before > after:
                assert ("order_violation", (other, first)) in pairs
    for name in constant:
        assert len(values[name]) == 1
    if monotone:
        assert_monotone(decided)


def assert_monotone(decided: Sequence[tuple[Point, int]]) -> None:
    """No result is better in one statistic of metric `m`, equal in all else, and has a worse verdict."""
    for point, rank in decided[:60]:
        for statistic, owners in (("delta", ("t", "boot", "two")), ("upper", ("t",)), ("lower", ("boot",))):
            for other_rank in better(point, statistic, owners, decided):
                assert other_rank >= rank


def better(point: Point, statistic: str, owners: Sequence[str], decided: Sequence[tuple[Point, int]]) -> Iterator[int]:
    moved = {(owner, name) for owner in owners for name in alias(statistic)}
    for other, rank in decided:
        same = all(value == other[key] for key, value in point.items() if key not in moved)
        if same and all(other[key] >= point[key] for key in moved):
            yield rank


def alias(statistic: str) -> tuple[str, ...]:
    return {"upper": ("upper", "ci_high"), "lower": ("lower", "ci_low")}.get(statistic, (statistic,))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.05, 0.15, 0.1),
        (0.15, 1, 0.6),
        (0, 0.025, 0.01),
        (-1, 0.05, 0),
        (5, 100, 50),
        (0.3, 0.3, 0.3),
        (0.1234, 0.1235, 0.12345),
    ],
)
def test_a_witness_has_few_decimals(low: float, high: float, expected: float) -> None:
    assert nice(low, high) == expected


@given(
    st.floats(-1000, 1000, allow_nan=False),
    st.floats(1e-9, 1000, allow_nan=False),
    st.integers(1, 5),
)
def test_witnesses_of_one_interval_ascend_inside_it(low: float, width: float, count: int) -> None:
    values = [nice(*part) for part in parts(low, low + width, count)]
    assert values == sorted(values)
    assert all(low < value < low + width for value in values)
