"""Kleene's logic and the first match over unknown gates, against the plain definition by completions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from epc.compiler.contract.logic import (
    And,
    Atom,
    Name,
    Not,
    Operator,
    Or,
    Predicate,
    Truth,
    compare,
    evaluate,
    first_match,
    leaves,
)

NAMES = ("a", "b", "c", "d")
A, B = Name(name="a"), Name(name="b")


def trees() -> st.SearchStrategy[Predicate]:
    def extend(inner: st.SearchStrategy[Predicate]) -> st.SearchStrategy[Predicate]:
        several = st.lists(inner, min_size=1, max_size=3).map(tuple)
        return st.one_of(
            st.builds(Not, operand=inner), st.builds(And, operands=several), st.builds(Or, operands=several)
        )

    return st.recursive(st.sampled_from(NAMES).map(lambda name: Name(name=name)), extend, max_leaves=8)


gate_truths = st.fixed_dictionaries({name: st.sampled_from((True, False, None)) for name in NAMES})


def decided(predicate: Predicate, gates: Mapping[str, Truth]) -> Truth:
    def leaf(node: Atom | Name) -> Truth:
        assert isinstance(node, Name)
        return gates[node.name]

    return evaluate(predicate, leaf)


def completions(gates: Mapping[str, Truth]) -> list[dict[str, Truth]]:
    """Every way in which the unknown gates may turn out."""
    unknown = [name for name, truth in gates.items() if truth is None]
    return [
        {**gates, **dict(zip(unknown, values, strict=True))}
        for values in itertools.product((True, False), repeat=len(unknown))
    ]


@pytest.mark.parametrize(
    ("left", "right", "both", "either"),
    [
        (True, True, True, True),
        (True, False, False, True),
        (True, None, None, True),
        (False, False, False, False),
        (False, None, False, None),
        (None, None, None, None),
    ],
)
def test_kleenes_tables(left: Truth, right: Truth, both: Truth, either: Truth) -> None:
    for gates in ({"a": left, "b": right}, {"a": right, "b": left}):
        assert decided(And(operands=(A, B)), gates) is both
        assert decided(Or(operands=(A, B)), gates) is either


@pytest.mark.parametrize(("truth", "negated"), [(True, False), (False, True), (None, None)])
def test_not(truth: Truth, negated: Truth) -> None:
    assert decided(Not(operand=A), {"a": truth}) is negated


@given(trees(), gate_truths)
def test_a_known_truth_is_that_of_every_completion(predicate: Predicate, gates: dict[str, Truth]) -> None:
    truth = decided(predicate, gates)
    outcomes = {decided(predicate, completion) for completion in completions(gates)}
    assert None not in outcomes
    if truth is not None:
        assert outcomes == {truth}


@given(trees(), gate_truths)
def test_de_morgan(predicate: Predicate, gates: dict[str, Truth]) -> None:
    if isinstance(predicate, And | Or):
        dual = Or if isinstance(predicate, And) else And
        other = dual(operands=tuple(Not(operand=operand) for operand in predicate.operands))
        assert decided(Not(operand=predicate), gates) is decided(other, gates)


@pytest.mark.parametrize(
    ("operator", "below", "at", "above"),
    [
        ("<", True, False, False),
        ("<=", True, True, False),
        (">", False, False, True),
        (">=", False, True, True),
        ("==", False, True, False),
        ("!=", True, False, True),
    ],
)
def test_compare(operator: Operator, below: bool, at: bool, above: bool) -> None:
    assert [compare(value, operator, 0.15) for value in (0.1, 0.15, 0.2, None)] == [below, at, above, None]


def by_definition(rules: Sequence[Predicate | None], gates: Mapping[str, Truth]) -> set[int]:
    """The first rule that matches, in each completion."""
    reached = set()
    for completion in completions(gates):
        for index, rule in enumerate(rules):
            if rule is None or decided(rule, completion):
                reached.add(index)
                break
    return reached


@given(st.lists(trees(), max_size=4), st.booleans(), gate_truths)
def test_first_match_is_over_all_completions(
    predicates: list[Predicate], otherwise: bool, gates: dict[str, Truth]
) -> None:
    rules: list[Predicate | None] = [*predicates, None] if otherwise else [*predicates]
    reached = first_match(rules, gates)
    assert reached == by_definition(rules, gates)
    if otherwise:
        assert reached


@pytest.mark.parametrize(
    ("rules", "gates", "expected"),
    [
        ((A, B, None), {"a": True, "b": None}, {0}),
        ((A, B, None), {"a": None, "b": True}, {0, 1}),
        ((A, B, None), {"a": None, "b": False}, {0, 2}),
        ((A, B, None), {"a": False, "b": False}, {2}),
        ((And(operands=(A, B)), None), {"a": None, "b": False}, {1}),
        ((Or(operands=(A, Not(operand=A))), None), {"a": None, "b": False}, {0}),
        ((A,), {"a": False, "b": True}, set()),
    ],
)
def test_first_match(rules: Sequence[Predicate | None], gates: dict[str, Truth], expected: set[int]) -> None:
    assert first_match(rules, gates) == expected


def test_a_rule_that_compares_a_statistic_is_refused() -> None:
    with pytest.raises(TypeError, match="names gates"):
        first_match([Atom(analysis="x", statistic="p", operator="<", constant=1)], {})


@given(trees())
def test_leaves_come_left_to_right_and_json_keeps_the_predicate(predicate: Predicate) -> None:
    adapter: TypeAdapter[Predicate] = TypeAdapter(Predicate)
    text = adapter.dump_json(predicate).decode()
    assert adapter.validate_json(text) == predicate
    names = [leaf.name for leaf in leaves(predicate) if isinstance(leaf, Name)]
    assert names == [part.split('"')[0] for part in text.split('"name":"')[1:]]


def test_an_unknown_field_or_operator_is_refused() -> None:
    with pytest.raises(ValidationError):
        Atom.model_validate({"analysis": "x", "statistic": "p", "operator": "=", "constant": 1})
    with pytest.raises(ValidationError):
        Name.model_validate({"name": "a", "weight": 1})
