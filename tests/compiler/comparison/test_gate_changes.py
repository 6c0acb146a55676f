"""Predicates that hold for more or for fewer results, by enumeration, and what that means for a gate's role."""

from __future__ import annotations

from typing import Any

import pytest

from epc.compiler.comparison.gates import alpha_change, change, gate_change, rule_changes
from epc.compiler.predicate import parse

CHANGES = [
    ("a.delta < 5", "a.delta < 3", "less"),
    ("a.delta < 5", "a.delta <= 5", "more"),
    ("a.delta >= 5", "a.delta >= 5", "same"),
    ("a.delta >= 5", "not (a.delta < 5)", "same"),
    ("a.reject and a.delta >= 5", "a.delta >= 5", "more"),
    ("a.delta >= 5", "a.reject and a.delta >= 5", "less"),
    ("a.delta > 2 or a.delta < -2", "a.delta > 2", "less"),
    ("a.delta > 1", "a.delta < 1", "other"),
    ("a.delta > 1", "b.delta > 1", "other"),
    ("a.delta > 1 and a.delta < 3", "a.delta > 0 and a.delta < 2", "other"),
    # a bound lies below its estimate, so the bound over a margin is the stronger demand
    ("a.lower > 0.1", "a.delta > 0.1", "more"),
    ("a.delta < 0.1", "a.upper < 0.1", "less"),
    ("a.ci_low > 0", "a.ci_high > 0", "more"),
    ("a.p < 0.05", "a.p < 0.01", "less"),
    ("a.reject == 0", "not a.reject", "same"),
]


@pytest.mark.parametrize(("before", "after", "expected"), CHANGES)
def test_change(before: str, after: str, expected: str) -> None:
    old, new = (parse(text, allow_names=False).predicate for text in (before, after))
    assert old is not None
    assert new is not None
    assert change(old, new) == expected
    backwards = {"more": "less", "less": "more"}.get(expected, expected)
    assert change(new, old) == backwards


def test_too_many_cells_are_not_enumerated() -> None:
    text = " and ".join(f"a{i}.delta > {i}" for i in range(20))
    old, new = (parse(t, allow_names=False).predicate for t in (text, text + " and b.delta > 0"))
    assert old is not None
    assert new is not None
    assert change(old, new) == "other"


SENTENCES = [
    ("kill", "h.delta < 5", "kill", "h.delta < 3", "g fires later: h.delta < 5 became < 3"),
    ("kill", "h.delta < 3", "kill", "h.delta < 5", "g fires earlier: h.delta < 3 became < 5"),
    ("override", "h.delta >= 0.1", "override", "h.delta > 0.1", "g fires later: h.delta >= 0.1 became > 0.1"),
    ("success", "h.reject and h.delta >= 5", "success", "h.delta >= 5", "g is weaker: `h.reject and h.delta >= 5` became `h.delta >= 5`"),
    ("guardrail", "c.delta >= -0.05", "guardrail", "c.lower >= -0.05", "g is stronger: `c.delta >= -0.05` became `c.lower >= -0.05`"),
    ("validity", "m.upper < -5", "validity", "m.upper < -2", "g is weaker: m.upper < -5 became < -2"),
    ("sanity", "b.lower > 0.3", "sanity", "b.lower > 0.4", "g is stronger: b.lower > 0.3 became > 0.4"),
    ("switch", "d.delta > 0.2", "switch", "d.delta > 0.1", "g switches more often: d.delta > 0.2 became > 0.1"),
    ("prediction", "h.delta > 5", "prediction", "h.delta > 9", "g predicts more: h.delta > 5 became > 9"),
    ("follow_up", "h.delta > 5", "follow_up", "h.delta > 9", "g is asked for less often: h.delta > 5 became > 9"),
    ("kill", "h.delta < 5", "kill", "h.delta > 5", "g decides otherwise, neither weaker nor stronger: h.delta < 5 became > 5"),
    ("kill", "h.delta < 5", "kill", "other.delta < 5", "g reads another quantity: `h.delta < 5` became `other.delta < 5`"),
    ("guardrail", "h.delta > 1", "prediction", "h.delta > 1", "g became a prediction, and was guardrail: it no longer decides"),
    ("descriptive", "h.delta > 1", "override", "h.delta > 1", "g became an override, and was descriptive: it decides now"),
    ("kill", "h.delta < 1", "override", "h.delta < 1", "g became an override, and was kill"),
]  # fmt: skip


@pytest.mark.parametrize(("role", "before", "new_role", "after", "expected"), SENTENCES)
def test_a_gate_in_words(role: str, before: str, new_role: str, after: str, expected: str) -> None:
    old, new = {"role": role, "predicate": before}, {"role": new_role, "predicate": after}
    assert [sentence for _, sentence, _ in gate_change("g", old, new, {"other"})] == [expected]


@pytest.mark.parametrize(
    ("role", "decides"), [("kill", True), ("prediction", False), ("descriptive", False), ("follow_up", False)]
)
def test_whether_a_verdict_depends_on_it(role: str, decides: bool) -> None:
    old, new = ({"role": role, "predicate": f"h.delta < {number}"} for number in (1, 2))
    assert [found for _, _, found in gate_change("g", old, new)] == [decides]


ALPHAS = [
    ("success", "h.reject", 0.05, 0.1, "g is weaker: alpha 0.05 -> 0.1"),
    ("success", "h.reject", 0.05, 0.025, "g is stronger: alpha 0.05 -> 0.025"),
    ("success", "h.lower > 0", 0.05, 0.1, "g is weaker: alpha 0.05 -> 0.1"),
    ("validity", "h.upper < -5", 0.05, 0.1, "g is weaker: alpha 0.05 -> 0.1"),
    ("kill", "not h.reject", 0.05, 0.1, "g fires later: alpha 0.05 -> 0.1"),
    ("kill", "h.upper > 0", 0.05, 0.1, "g fires later: alpha 0.05 -> 0.1"),
    ("success", "h.lower > 0 and h.lower < 5", 0.05, 0.1, "g decides otherwise, neither weaker nor stronger: alpha 0.05 -> 0.1"),
    ("success", "h.delta > 0", 0.05, 0.1, None),
    ("success", "h.p < 0.05", 0.05, 0.1, None),
    ("success", "other.reject", 0.05, 0.1, None),
]  # fmt: skip


@pytest.mark.parametrize(("role", "predicate", "before", "after", "expected"), ALPHAS)
def test_another_alpha(role: str, predicate: str, before: float, after: float, expected: str | None) -> None:
    assert alpha_change("g", {"role": role, "predicate": predicate}, "h", before, after) == expected


def rules(*texts: str) -> list[Any]:
    pairs = [text.split(" -> ") for text in texts]
    return [{"if": condition, "then": label} for condition, label in pairs]


TABLES = [
    (("a -> KILL", "otherwise -> INCONCLUSIVE"), ("a -> KILL", "otherwise -> INCONCLUSIVE"), []),
    (("a and b -> SUCCESS",), ("a -> SUCCESS",), ["SUCCESS is reached more easily: `a and b` became `a`"]),
    (("a -> SUCCESS",), ("a and b -> SUCCESS",), ["SUCCESS is harder to reach: `a` became `a and b`"]),
    (("a and b -> SUCCESS",), ("b and a -> SUCCESS",), ["the rule for SUCCESS says the same in other words: `a and b` became `b and a`"]),
    (("a -> SUCCESS",), ("b -> SUCCESS",), ["SUCCESS is reached otherwise: `a` became `b`"]),
    (("a -> KILL",), (), ["a rule was removed: if a, then KILL"]),
    (("otherwise -> KILL",), ("otherwise -> INCONCLUSIVE",), ["a rule was added: otherwise INCONCLUSIVE", "a rule was removed: otherwise KILL"]),
    (("a -> KILL", "b -> SUCCESS"), ("b -> SUCCESS", "a -> KILL"), ["the rules are in another order: SUCCESS, KILL; the first that matches is the verdict"]),
    (("a -> KILL", "b -> KILL"), ("a -> KILL", "c -> KILL"), ["KILL is reached otherwise: `b` became `c`"]),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "expected"), TABLES)
def test_verdict_tables(before: tuple[str, ...], after: tuple[str, ...], expected: list[str]) -> None:
    assert list(rule_changes(rules(*before), rules(*after))) == expected
