"""The solver against the cells: the same answers, each with a result that shows it, and more of them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.support.tables import ANALYSES, METRICS, NAMES, atoms, rules, table, trees

from epc.compiler import decision, pipeline
from epc.compiler.contract.logic import Atom, Name, Predicate, compare, evaluate, leaves
from epc.compiler.contract.manifest import Analysis, Contrast, Gate, Metric, VerdictRule
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.predicate import parse
from epc.compiler.table import Finding, analyse, proof, solver
from epc.compiler.table.cells import TooLarge, quantity_of, space, variable_of
from epc.compiler.table.declared import named
from epc.compiler.table.enumerated import EnumeratedTable
from epc.compiler.table.facts import Range, facts, holds
from epc.compiler.table.solver import SolvedTable
from epc.compiler.table.verdicts import RANK, Table, Values

ROOT = Path(__file__).resolve().parents[2]
STATISTICS = ("delta", "value", "lower", "upper", "ci_low", "ci_high", "p", "reject")
VALUE_DEPENDENT = ("boundary_gap", "non_monotone")
"""Kinds whose witness may stand elsewhere, with other rules in the words."""


def both(
    gates: Sequence[Gate],
    verdicts: Sequence[VerdictRule],
    conditions: Sequence[str],
    analyses: Mapping[str, Analysis] = ANALYSES,
    metrics: Mapping[str, Metric] = METRICS,
) -> tuple[EnumeratedTable, SolvedTable]:
    """The two implementations of one table."""
    by_name = {gate.name: gate for gate in gates}
    used = dict.fromkeys([*(name for rule in verdicts for name in named(rule)), *conditions])
    predicates = {name: by_name[name].predicate for name in used}
    shared: dict[str, Any] = {
        "analyses": analyses, "metrics": metrics, "gates": by_name, "conditions": conditions, "verdicts": verdicts,
    }  # fmt: skip
    return (
        EnumeratedTable(space=space(predicates, analyses, metrics, 300_000), **shared),
        SolvedTable(predicates=predicates, **shared),
    )


def said(findings: Sequence[Finding]) -> list[tuple[object, ...]]:
    """What both must say in the same words, and how often they say the rest."""
    return sorted(
        (f.kind, f.severity, "" if f.kind in VALUE_DEPENDENT else (f.message, f.rules, f.gates), bool(f.witness))
        for f in findings
    )


def decided(one: Table, values: Values) -> int:
    """The rule that decides a result, judged by the predicates themselves."""

    def atom(leaf: Atom | Name) -> bool:
        assert isinstance(leaf, Atom)
        analysis = one.analyses[leaf.analysis]
        value = values[quantity_of(analysis), variable_of(analysis, leaf.statistic)]
        return bool(compare(value, leaf.operator, leaf.constant))

    def gate(leaf: Atom | Name) -> bool:
        assert isinstance(leaf, Name)
        return bool(evaluate(one.gates[leaf.name].predicate, atom))

    assert all(evaluate(one.gates[name].predicate, atom) for name in one.conditions)
    for index, rule in enumerate(one.verdicts):
        if rule.predicate is None or evaluate(rule.predicate, gate):
            return index
    return len(one.verdicts)


def matching(one: Table, values: Values, index: int) -> bool:
    alone = [one.verdicts[index]]
    copy = EnumeratedTable.__new__(EnumeratedTable)
    Table.__init__(
        copy, analyses=one.analyses, metrics=one.metrics, gates=one.gates, conditions=one.conditions, verdicts=alone
    )
    return decided(copy, values) == 0


def assert_possible(one: Table, values: Values) -> None:
    """A result that the methods allow; p may stand between the multiples that it takes."""
    compared = {
        (quantity_of(analysis), variable_of(analysis, leaf.statistic))
        for name in (*one.all_gates, *one.conditions)
        for leaf in leaves(one.gates[name].predicate)
        if isinstance(leaf, Atom)
        for analysis in (one.analyses[leaf.analysis],)
    }
    for analysis in one.analyses.values():
        keys = {name: (quantity_of(analysis), variable_of(analysis, name)) for name in STATISTICS}
        statistics = {name: values[key] for name, key in keys.items() if key in compared and key in values}
        for fact in facts(analysis, one.metrics[analysis.metric]):
            if not (isinstance(fact, Range) and fact.statistic == "p"):
                assert holds(fact, statistics), (fact, statistics)


def assert_witnessed(one: Table) -> None:
    """Every answer's result is what it is said to be."""
    rules_of = range(len(one.verdicts))
    nothing = one.undecided()
    if nothing is not None:
        assert decided(one, nothing) == len(one.verdicts)
    for index in rules_of:
        later = [other for other in rules_of if other > index]
        for other, values in one.clashes(index, later).items():
            assert decided(one, values) == index
            assert matching(one, values, other)
            assert_possible(one, values)
    for gap in one.gaps():
        assert decided(one, gap.values) == gap.here
        assert gap.here == len(one.verdicts) or one.verdicts[gap.here].predicate is None
        assert_possible(one, gap.values)
    for quantity in one.quantities():
        for upward in (True, False):
            step = one.worsening(quantity, upward=upward)
            if step is None:
                continue
            ranks = [
                RANK["INCONCLUSIVE"] if i == len(one.verdicts) else RANK[one.verdicts[i].verdict_class]
                for i in (step.was, step.becomes)
            ]
            assert ranks[0] > ranks[1]
            assert (decided(one, step.low), decided(one, step.high)) == (step.was, step.becomes)
            assert {key for key in step.low if key[0] != quantity and step.low[key] != step.high[key]} == set()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.lists(trees(atoms, 3), min_size=4, max_size=4), rules, st.booleans(), st.booleans())
def test_solver_and_cells_agree(
    predicates: list[Predicate], rows: list[tuple[Predicate, str]], otherwise: bool, condition: bool
) -> None:
    gates, verdicts = table(predicates, rows, otherwise)
    conditions = [NAMES[-1]] if condition else []
    try:
        cells, solved = both(gates, verdicts, conditions)
        found = list(cells.findings({}))
    except TooLarge:
        assume(False)
    assume(not any(one.kind == "too_large" for one in found))
    assert said(list(solved.findings({}))) == said(found)
    if solved.possible():
        for one in (cells, solved):
            assert_witnessed(one)


@pytest.mark.parametrize("name", ["issue147", "quickstart", "minimal", "two_recipes", "prompt_only"])
def test_the_shipped_tables_are_judged_alike(name: str) -> None:
    spec = ROOT / "specs" / f"{name}.yaml"
    experiment = pipeline.check(spec, f"specs/{name}.yaml", Diagnostics())
    assert experiment is not None
    gates, verdicts = decision.gates(experiment), decision.verdicts(experiment)
    conditions = [gate.name for gate in gates if gate.role == "validity"]
    cells, solved = both(
        gates, verdicts, conditions,
        {one.name: one for one in decision.analyses(experiment)}, {one.name: one for one in decision.metrics(experiment)},
    )  # fmt: skip
    assert said(list(solved.findings({}))) == said(list(cells.findings({})))
    assert_witnessed(solved)


# -------------------------------------------------------------------------------- large tables


def metric(name: str) -> Metric:
    return Metric(name=name, kind="pattern", source="s", unit="prompt", scale=(0, 1), better="higher", missing="fail")


def analysis(name: str, metric: str, treatment: str = "t") -> Analysis:
    return Analysis(
        name=name, metric=metric, contrast=Contrast(treatment=treatment, control="c"), method="paired_bootstrap", p="studentized",
        side="greater", alpha=0.025, resamples=10000, seed=1,
    )  # fmt: skip


def gate(line: str) -> Gate:
    """`name role predicate`."""
    name, role, text = line.split(" ", 2)
    predicate = parse(text, allow_names=False).predicate
    return Gate.model_validate({"name": name, "role": role, "text": text, "predicate": predicate})


def rule(line: str) -> VerdictRule:
    """`predicate: LABEL`."""
    text, label = line.split(": ")
    predicate = None if text == "otherwise" else parse(text, allow_names=True).predicate
    return VerdictRule.model_validate(
        {"text": text, "predicate": predicate, "label": label, "verdict_class": label.split("_")[0]}
    )


def large(quantities: int, *, flawed: bool) -> list[Finding]:
    """Findings that need a proof about 10 gates for each three of so many quantities; flawed ones in the first three."""
    gates: list[str] = []
    kills: list[str] = []
    wins: list[str] = []
    for i in range(quantities):
        kill, win = ("<", ">") if flawed and i == 0 else ("<", ">=")
        gates += [f"k{i} kill a{i}.delta {kill} 0.1", f"w{i} success a{i}.reject and a{i}.delta {win} 0.1"]
        gates += [f"g{i} guardrail a{i}.lower > -0.2"]
        kills.append(f"k{i}")
        wins += [f"w{i}", f"g{i}"]
        if i % 3 == 0:
            gates.append(f"o{i} override a{i}.upper < -0.5")
    rules = [
        *(f"o{i}: OVERRIDE" for i in range(0, quantities, 3)),
        *(f"{' or '.join(kills[i : i + 12])}: KILL" for i in range(0, quantities, 12)),
        f"{' and '.join(wins)}: SUCCESS",
        "otherwise: INCONCLUSIVE",
    ]
    if flawed:
        gates += ["deeper kill a1.delta < 0.05", "late kill a2.delta > 0.9"]
        rules[-2:-2] = ["deeper: KILL_DEEPER", "late: KILL_LATE"]
    return [
        finding
        for finding in analyse(
            metrics=[metric(f"m{i}") for i in range(quantities)],
            analyses=[analysis(f"a{i}", f"m{i}") for i in range(quantities)],
            gates=[gate(line) for line in gates],
            verdicts=[rule(line) for line in rules],
        )
        if finding.kind not in ("same_quantity_two_thresholds", "point_rule_at_margin")
    ]


def test_two_hundred_gates_over_sixty_analyses_are_decided() -> None:
    assert large(60, flawed=False) == []


def test_the_flaws_of_a_large_table_are_found() -> None:
    found: dict[str, list[Finding]] = {}
    for finding in large(60, flawed=True):
        found.setdefault(finding.kind, []).append(finding)
    assert "too_large" not in found
    (gap,) = found["boundary_gap"]
    assert gap.message.startswith("a0.delta = 0.1 exactly falls to otherwise (INCONCLUSIVE), between rule ")
    assert "a0.delta = 0.1" in gap.witness
    (late,) = [f for f in found["non_monotone"] if "a2.delta" in f.message]
    assert late.message.startswith("a better a2.delta gets a worse verdict: rule ")
    assert [f.message.split(":")[0] for f in found["unreachable_rule"]] == ["rule 26 (KILL_DEEPER) never decides"]
    (hidden,) = found["success_and_kill"]
    assert hidden.message == "a result can be both KILL_LATE and SUCCESS; KILL_LATE stands, since it comes first"
    assert {frozenset(f.gates) & {"deeper", "late"} for f in found["ambiguous"]} == {
        frozenset({"deeper"}),
        frozenset({"late"}),
    }
    assert set(found) == {"ambiguous", "boundary_gap", "non_monotone", "unreachable_rule", "success_and_kill"}


def test_a_table_beyond_the_effort_is_not_called_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "EFFORT", 50_000)
    found = [f for f in large(60, flawed=False) if f.kind == "too_large"]
    assert [(f.message, f.help) for f in found] == [
        (
            "this table takes the solver more than 50,000 steps: not everything about it was proved",
            "split the table, or use fewer thresholds",
        )
    ]


def test_without_the_solver_the_warning_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "z3", None)
    monkeypatch.delitem(sys.modules, "epc.compiler.table.solver")
    found = [f for f in large(60, flawed=False) if f.kind == "too_large"]
    assert [(f.message, f.help) for f in found] == [
        (
            "this table has more than 20,000,000 combinations of thresholds: nothing about it was proved",
            "pip install 'epc-prereg[solver]' to have it proved by a solver, or use fewer thresholds",
        )
    ]


def test_a_table_of_some_size_is_judged_alike_with_and_without_the_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "FEW", 10_000)
    solved = large(5, flawed=True)
    monkeypatch.setitem(sys.modules, "z3", None)
    monkeypatch.delitem(sys.modules, "epc.compiler.table.solver")
    assert said(solved) == said(large(5, flawed=True))


def test_hundreds_of_validity_gates_that_no_rule_reads_may_still_exclude_each_other() -> None:
    count = 300
    gates = [gate("win success a0.reject"), *(gate(f"v{i} validity a{i}.lower > -0.5") for i in range(1, count))]
    shared: dict[str, Any] = {
        "metrics": [metric(f"m{i}") for i in range(count)],
        "analyses": [analysis(f"a{i}", f"m{i}", "attacked" if i else "t") for i in range(count)],
        "verdicts": [rule("win: SUCCESS"), rule("otherwise: INCONCLUSIVE")],
    }
    assert analyse(gates=gates, **shared) == ()
    against = gate("against validity a7.upper < -0.6")
    (found,) = analyse(gates=[*gates, against], **shared)
    assert found.kind == "constant_gate"
    assert found.message.endswith("never hold together, so every verdict is INVALID")
