"""Gates, tables and families on arrays; what removing a gate changes; what a truth deserves."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from tests.support.simulated import analysis, atom, gate, metric, names, rule, truth

from epc.compiler.contract.decision import AnalysisResult
from epc.compiler.contract.logic import And, Atom, Not, Or, Predicate
from epc.compiler.contract.logic import compare as compare_one
from epc.compiler.contract.logic import evaluate as evaluate_one
from epc.compiler.contract.manifest import Design, Family, Gate, Interim, VerdictRule
from epc.runtime.rejections import decided as decided_one
from epc.runtime.simulate.contrasts import Statistics
from epc.runtime.simulate.outcomes import deserved
from epc.runtime.simulate.verdicts import Panel, evaluate, less
from epc.runtime.simulate.verdicts import decided as decided_all

VALUES = (np.nan, -1.0, 0.0, 1.0)
TRUTH = {0: False, 1: True, 2: None}
A, B, C = atom("a.delta", ">", 0), atom("b.delta", ">=", 0), atom("c.delta", "<", 0)


def results(**columns: Sequence[float]) -> dict[str, Statistics]:
    return {name: {"delta": np.array(values)} for name, values in columns.items()}


@pytest.mark.parametrize(
    "predicate",
    [A, Not(operand=B), And(operands=(A, B)), Or(operands=(A, Not(operand=C))), And(operands=(Or(operands=(A, C)), Not(operand=B)))],
)  # fmt: skip
def test_predicates_follow_kleene(predicate: Predicate) -> None:
    rows = list(itertools.product(VALUES, repeat=3))
    columns = dict(zip("abc", np.array(rows).T, strict=True))
    found = evaluate(predicate, results(**columns))
    for place, row in enumerate(rows):
        values = {name: None if np.isnan(value) else value for name, value in zip("abc", row, strict=True)}

        def leaf(node: Any, values: Mapping[str, float | None] = values) -> bool | None:
            return compare_one(values[node.analysis], node.operator, node.constant)

        assert TRUTH[int(found[place])] is evaluate_one(predicate, leaf)


def test_a_comparison_is_left_out() -> None:
    assert less(A, A) is None
    assert less(And(operands=(A, B)), A) == B
    assert less(And(operands=(A, B, C)), A) == And(operands=(B, C))
    assert less(Or(operands=(A, Not(operand=B))), A) == Not(operand=B)
    assert less(Or(operands=(A, Not(operand=B))), B) == A


def design_of(gates: Sequence[Gate], verdicts: Sequence[VerdictRule], **more: Any) -> Design:
    rates = tuple(analysis(name, "rate", p="percentile", confirmatory=name == "a") for name in "abc")
    values: dict[str, Any] = {
        "question": "?", "conditions": (), "metrics": (metric("rate", "pattern"),), "analyses": rates, "gates": gates,
        "verdicts": verdicts, "seeds": (1,), **more,
    }  # fmt: skip
    return Design.model_validate(values)


TABLE = (
    rule(names("dead")[0], "KILL"),
    rule(And(operands=names("works", "safe")), "SUCCESS"),
    rule(None, "INCONCLUSIVE"),
)
GATES = (
    gate("took", "validity", C), gate("dead", "kill", atom("a.delta", "<", 1)),
    gate("works", "success", And(operands=(A, atom("a.reject", "==", 1)))), gate("safe", "guardrail", B),
)  # fmt: skip


def panel(**columns: Sequence[float]) -> Panel:
    found = results(**columns)
    found["a"]["reject"] = found["a"]["delta"] * 0 + 1
    return Panel(design=design_of(GATES, TABLE), results=found, experiments=len(found["a"]["delta"]))


def test_labels_and_what_removing_a_gate_changes() -> None:
    made = panel(a=[0, 2, 2, 2, np.nan], b=[1, 1, -1, 1, 1], c=[-1, -1, -1, 1, -1])
    assert made.labels().tolist() == ["KILL", "SUCCESS", "INCONCLUSIVE", "INVALID", "INVALID"]
    took, dead, works, safe = GATES
    assert made.without(took).tolist() == ["KILL", "SUCCESS", "INCONCLUSIVE", "SUCCESS", "INVALID"]
    assert made.without(dead).tolist() == ["INCONCLUSIVE", "SUCCESS", "INCONCLUSIVE", "INVALID", "INVALID"]
    assert made.without(works).tolist() == ["KILL", "SUCCESS", "INCONCLUSIVE", "INVALID", "INVALID"]
    assert made.without(safe).tolist() == ["KILL", "SUCCESS", "SUCCESS", "INVALID", "INVALID"]
    reject = next(leaf for leaf in works.predicate.operands if isinstance(leaf, Atom) and leaf.statistic == "reject")  # type: ignore[union-attr]
    assert made.without_part(works, reject).tolist() == made.labels().tolist()


def test_an_unknown_switch_is_read_both_ways() -> None:
    switch = gate("filter", "switch", C, analysis="a")
    made = Panel(
        design=design_of((*GATES[1:], switch), TABLE), experiments=4,
        results={
            "a.filtered": {"delta": np.array([2.0, 2, 2, 2]), "reject": np.ones(4)},
            "a.unfiltered": {"delta": np.array([0.0, 0, 0, 2]), "reject": np.ones(4)},
            **results(b=[1, 1, 1, 1], c=[-1, 1, np.nan, np.nan]),
        },
    )  # fmt: skip
    assert made.labels().tolist() == ["KILL", "SUCCESS", "INVALID", "SUCCESS"]
    assert made.truths(GATES[1]).tolist() == [1, 0, 2, 0]
    assert made.without(switch).tolist() == ["SUCCESS"] * 4


RULES = ("holm", "benjamini_hochberg", "fixed_sequence")


@pytest.mark.parametrize("method", RULES)
def test_families_reject_as_the_engine_does(method: Any) -> None:
    design = design_of(GATES, TABLE, families=(Family(name="f", method=method, analyses=("a", "b", "c"), alpha=0.05),))
    ps = np.array(
        [[0.01, 0.02, 0.2], [0.03, 0.03, 0.03], [0.04, 0.01, np.nan], [np.nan, 0.001, 0.9], [0.2, 0.001, 0.001]]
    )
    _same_rejections(design, ps)


def test_the_last_look_rejects_as_the_engine_does() -> None:
    design = design_of(GATES, TABLE, interim=Interim(looks=(0.5, 1.0), spending="pocock", levels=(0.03, 0.028)))
    _same_rejections(design, np.array([[0.027, 0.5, 0.5], [0.028, 0.5, 0.5], [0.04, 0.01, 0.01], [np.nan, 0.001, 0.9]]))


def _same_rejections(design: Design, ps: np.ndarray[Any, np.dtype[np.float64]]) -> None:
    columns: dict[str, Statistics] = {
        name: {"p": ps[:, place], "reject": (ps[:, place] < 0.05).astype(np.float64)}
        for place, name in enumerate("abc")
    }
    found = decided_all(design, columns)
    for row in range(len(ps)):
        one = {name: _result(name, ps[row, place]) for place, name in enumerate("abc")}
        expected = decided_one(design, one)
        for name in "abc":
            rejected = found[name]["reject"][row]
            assert (None if np.isnan(rejected) else rejected) == expected[name].statistics["reject"], (row, name)


def _result(name: str, p: float) -> AnalysisResult:
    return AnalysisResult(
        name=name, metric="rate", contrast=None, arm=None, method="m", definition="reject is p < 0.05.", side="greater",
        alpha=0.05, confirmatory=name == "a", better="higher", scale=(0, 1), unit="prompt", n_units=9, n_samples=9, n_missing=0,
        n_units_missing=0, ci_level=0.9,
        statistics={"p": None if np.isnan(p) else float(p), "reject": None if np.isnan(p) else float(p < 0.05)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        ({}, "SUCCESS"),
        ({"score": {"means": {"base": 70, "attacked": 45, "treated": 46}}}, "KILL"),
        ({"rate": {"means": {"base": 0.1, "attacked": 0.4, "treated": 0.52}}}, "OVERRIDE_HARM"),
        # exactly on the margin of the guardrail: non-inferiority excludes its margin
        ({"quiz": {"means": {"base": 0.6, "attacked": 0.5, "treated": 0.5}}}, "INCONCLUSIVE"),
        ({"quiz": {"means": {"base": 0.6, "attacked": 0.5, "treated": 0.5001}}}, "SUCCESS"),
        # the switch: the filter loses much more of the treatment, and without it there is no difference
        (
            {
                "incoherent": {"means": {"base": 0.05, "attacked": 0.1, "treated": 0.4}},
                "score_all": {"means": {"base": 68, "attacked": 44, "treated": 44}},
            },
            "KILL",
        ),
    ],
)
def test_what_a_truth_deserves(design: Design, changes: dict[str, Any], label: str) -> None:
    strict = tuple(
        gate("capable", "guardrail", atom("able.delta", ">=", 0)) if each.name == "capable" else each
        for each in design.gates
    )
    of = truth(**{"quiz": {"means": {"base": 0.6, "attacked": 0.5, "treated": 0.55}}, **changes})
    assert deserved(design.model_copy(update={"gates": strict}), of) == label
