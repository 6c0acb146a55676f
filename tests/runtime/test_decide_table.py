"""The verdict table under unknowns, against a brute-force reading of the rule."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from epc.compiler.contract.logic import And, Atom, Name, Not, Or, Predicate, Truth, evaluate
from epc.compiler.contract.manifest import VerdictRule
from epc.runtime.gates import Evaluated
from epc.runtime.verdict import Reading, label_of, would_flip

NAMES = ("g0", "g1", "g2", "g3")
LABELS = ("KILL", "SUCCESS", "INCONCLUSIVE")

predicates = st.recursive(
    st.sampled_from(NAMES).map(lambda name: Name(name=name)),
    lambda inner: st.one_of(
        inner.map(lambda p: Not(operand=p)),
        st.lists(inner, min_size=1, max_size=3).map(lambda ps: And(operands=tuple(ps))),
        st.lists(inner, min_size=1, max_size=3).map(lambda ps: Or(operands=tuple(ps))),
    ),
    max_leaves=5,
)
tables = st.lists(st.tuples(predicates, st.sampled_from(LABELS)), max_size=4)
truths = st.tuples(*[st.sampled_from((True, False, None))] * len(NAMES))


def table(rows: Sequence[tuple[Predicate, str]]) -> list[VerdictRule]:
    rules = [
        VerdictRule.model_validate({"text": "r", "predicate": p, "label": label, "verdict_class": label})
        for p, label in rows
    ]
    return [
        *rules,
        VerdictRule(text="otherwise", predicate=None, label="INCONCLUSIVE", verdict_class="INCONCLUSIVE"),
    ]


def gates(values: Mapping[str, Truth]) -> list[Evaluated]:
    return [Evaluated(name=name, role="success", text=name, truth=truth) for name, truth in values.items()]


def one(found: Sequence[Evaluated]) -> list[Reading]:
    return [Reading(gates=found)]


def brute_force(rules: Sequence[VerdictRule], values: Mapping[str, Truth]) -> str:
    labels = set()
    for completion in itertools.product((True, False), repeat=len(values)):
        known = dict(zip(values, completion, strict=True))
        if any(value is not None and known[name] != value for name, value in values.items()):
            continue

        def leaf(node: Atom | Name, known: Mapping[str, bool] = known) -> Truth:
            assert isinstance(node, Name)
            return known[node.name]

        labels.add(next(rule.label for rule in rules if rule.predicate is None or evaluate(rule.predicate, leaf)))
    return labels.pop() if len(labels) == 1 else "INVALID"


@settings(max_examples=300, deadline=None)
@given(tables, truths)
def test_the_label_is_that_of_every_completion(rows: list[tuple[Predicate, str]], values: tuple[Truth, ...]) -> None:
    named = dict(zip(NAMES, values, strict=True))
    assert label_of(table(rows), one(gates(named))) == brute_force(table(rows), named)


@settings(max_examples=150, deadline=None)
@given(tables, truths, st.sampled_from(NAMES))
def test_would_flip_tells_the_labels_of_the_other_truths(
    rows: list[tuple[Predicate, str]], values: tuple[Truth, ...], name: str
) -> None:
    rules, named = table(rows), dict(zip(NAMES, values, strict=True))
    label = brute_force(rules, named)
    others = {brute_force(rules, {**named, name: value}) for value in (True, False) if value is not named[name]}
    (gate,) = [gate for gate in gates(named) if gate.name == name]
    found = would_flip(gate, one(gates(named)), rules, label)
    assert (set() if found is None else set(found.split(" or "))) == others - {label}


def test_a_table_of_many_unknown_gates_is_decided_by_the_rule_that_is_known() -> None:
    """Two to the sixty completions, none of which is worth enumerating."""
    unknown = {f"u{i}": None for i in range(60)}
    everything = Or(operands=tuple(Name(name=name) for name in unknown))
    rules = table([(Name(name="dead"), "KILL"), (everything, "SUCCESS")])
    assert label_of(rules, one(gates({"dead": True, **unknown}))) == "KILL"
    rules = table([(And(operands=(Name(name="alive"), everything)), "SUCCESS")])
    assert label_of(rules, one(gates({"alive": False, **unknown}))) == "INCONCLUSIVE"


def test_a_validity_gate_that_is_not_true_stands_above_the_table() -> None:
    rules = table([(Name(name="g0"), "KILL")])
    for truth in (False, None):
        validity = Evaluated(name="v", role="validity", text="v", truth=truth)
        assert label_of(rules, one([validity, *gates({"g0": True})])) == "INVALID"
