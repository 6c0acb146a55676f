"""The predicate language: what it reads, what it refuses and how it says so, and the way back to text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epc.compiler.contract.logic import And, Atom, Name, Not, Operator, Or, Predicate, leaves
from epc.compiler.predicate import MAX_DEPTH, MAX_LENGTH, number_text, parse, unparse


def atom(text: str) -> Atom:
    reference, operator, constant = text.split()
    analysis, statistic = reference.rsplit(".", 1)
    return Atom.model_validate(
        {"analysis": analysis, "statistic": statistic, "operator": operator, "constant": float(constant)}
    )


REJECT = Atom(analysis="headline", statistic="reject", operator="==", constant=1.0)
A, B, C = (Name(name=name) for name in "abc")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("headline.delta >= 0.15", atom("headline.delta >= 0.15")),
        ("0.15 <= headline.delta", atom("headline.delta >= 0.15")),
        ("0.05 > headline.p", atom("headline.p < 0.05")),
        ("0.05 == headline.p", atom("headline.p == 0.05")),
        ("0.05 != headline.p", atom("headline.p != 0.05")),
        ("headline.reject", REJECT),
        ("headline.reject == 0", atom("headline.reject == 0")),
        ("switch.filtered.delta<1", atom("switch.filtered.delta < 1")),
        ("x.lower>-.10", atom("x.lower > -0.1")),
        ("x.lower > +5.", atom("x.lower > 5")),
        ("x.p < 1e-3", atom("x.p < 0.001")),
        ("x.delta >= 10pp", atom("x.delta >= 0.10")),
        ("x.delta >= 10 %", atom("x.delta >= 0.10")),
        ("x.delta >= -14.7%", atom("x.delta >= -0.147")),
        ("x.delta >= 1.5e1pp", atom("x.delta >= 0.15")),
        ("not x.delta > 1", Not(operand=atom("x.delta > 1"))),
        ("headline.reject\n  and x.p < 1", And(operands=(REJECT, atom("x.p < 1")))),
    ],
)
def test_a_gate_predicate_is_read(text: str, expected: Predicate) -> None:
    parsed = parse(text, allow_names=False)
    assert parsed.errors == ()
    assert parsed.predicate == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", A),
        ("not a and b", And(operands=(Not(operand=A), B))),
        ("not (a and b)", Not(operand=And(operands=(A, B)))),
        ("a and b or c", Or(operands=(And(operands=(A, B)), C))),
        ("a and (b or c)", And(operands=(A, Or(operands=(B, C))))),
        ("a or b and not c", Or(operands=(A, And(operands=(B, Not(operand=C)))))),
        ("a and b and c", And(operands=(A, B, C))),
        ("a and (b and c)", And(operands=(A, And(operands=(B, C))))),
        ("((a))", A),
        ("not not a", Not(operand=Not(operand=A))),
        ("notable and orchid", And(operands=(Name(name="notable"), Name(name="orchid")))),
    ],
)
def test_a_verdict_rule_is_read(text: str, expected: Predicate) -> None:
    parsed = parse(text, allow_names=True)
    assert parsed.errors == ()
    assert parsed.predicate == expected


GATE_ERRORS = [
    # text, offset, underlined text, message, help
    ("", 0, "", "the predicate is empty", "a predicate is like `headline.lower > 0 and headline.delta >= 10pp`"),
    ("0 < x.p < 1", 0, "0 < x.p < 1", "a comparison has one operator", "write `0 < x.p and x.p < 1`"),
    ("x.p < 1 && x.reject", 8, "&&", "`&&` is not an operator here", "write `and`"),
    ("x.p < 1 || x.reject", 8, "||", "`||` is not an operator here", "write `or`"),
    ("!x.reject", 0, "!", "`!` is not an operator here", "write `not`"),
    ("x.p = 1", 4, "=", "`=` is not an operator here", "write `==`"),
    ("x.p => 1", 4, "=>", "`=>` is not an operator here", "write `>=`"),
    ("x.p ≥ 1", 4, "≥", "`≥` is not an operator here", "write `>=`"),
    ("x.p <> 1", 4, "<>", "`<>` is not an operator here", "write `!=`"),
    ("x.p >> 1", 4, ">>", "`>>` is not an operator", "comparisons are <, <=, >, >=, == and !="),
    ("x.reject AND y.reject", 9, "AND", "`AND` is not an operator here", "write `and`"),
    ("x.delta > −1", 10, "−", "`−` (U+2212) is not a minus sign", "write `-`"),
    ("x.delta > 0,15", 10, "0,15", "`0,15` is not a number", "write a decimal point: 0.15"),
    ("x.delta > 1x", 10, "1x", "`1x` is not a number", "numbers are like 0.15, -5, 1e-3, 10pp and 10%"),
    ("x.delta > 1e999", 10, "1e999", "`1e999` is too large", "constants are 64-bit floats"),
    (
        "x.delta - y.delta > 0",
        0,
        "x.delta - y.delta > 0",
        "there is no arithmetic here",
        "declare an analysis for it and compare its statistic",
    ),
    (
        "x.delta > y.delta",
        0,
        "x.delta > y.delta",
        "two statistics are compared",
        "one side must be a number; declare an analysis of the contrast you mean",
    ),
    ("1 < 2", 0, "1 < 2", "two numbers are compared", "one side must be a statistic, such as `headline.delta`"),
    ("x.delta", 0, "x.delta", "`x.delta` is compared with nothing", "compare it, such as `x.delta > 0`"),
    ("x.rejct", 0, "x.rejct", "`x.rejct` is compared with nothing", "did you mean `x.reject`?"),
    ("x.reject == true", 12, "true", "`true` is not a number", "write `x.reject` or `not x.reject`"),
    ("delta > 1", 0, "delta", "`delta` is not a statistic", "name the analysis too, such as `headline.delta`"),
    (
        "alive",
        0,
        "alive",
        "`alive` is not a statistic",
        "a gate compares statistics of analyses, such as `alive.delta`; only a verdict rule names gates",
    ),
    ("x. > 1", 0, "x.", "`x.` is not a statistic", "a statistic is `analysis.statistic`, such as `headline.delta`"),
    (
        "abs(x.delta) > 1",
        0,
        "abs(x.delta)",
        "there are no functions here",
        "declare an analysis and compare its statistic",
    ),
    (
        "my-arm.delta > 1",
        0,
        "my-arm.delta",
        "`my-arm.delta` is not a name: names have letters, digits and underscores",
        "call it `my_arm.delta`",
    ),
    (
        "x.delta >",
        9,
        "",
        "the predicate ends where a number or a statistic is expected",
        "a predicate is like `headline.lower > 0 and headline.delta >= 10pp`",
    ),
    (
        "(x.reject) == 1",
        11,
        "==",
        "`==` cannot follow `)`",
        "compare one statistic with one number; parentheses group `and`, `or` and `not`",
    ),
    ("(x.reject", 0, "(", "this `(` is never closed", "add `)`"),
    ("'x.reject'", 0, "'", "`'` does not belong here", "names are written without quotes"),
    ("[x.reject]", 0, "[", "`[` does not group", "write `(` and `)`"),
]


@pytest.mark.parametrize(("text", "offset", "underlined", "message", "remedy"), GATE_ERRORS)
def test_a_gate_predicate_is_refused(text: str, offset: int, underlined: str, message: str, remedy: str) -> None:
    parsed = parse(text, allow_names=False)
    assert parsed.predicate is None
    first = parsed.errors[0]
    assert (first.offset, text[first.offset : first.offset + first.length]) == (offset, underlined)
    assert (first.message, first.help) == (message, remedy)


@pytest.mark.parametrize(
    ("text", "offset", "message"),
    [
        ("a and x.delta > 1", 6, "a verdict rule names gates, not statistics"),
        ("x.reject", 0, "a verdict rule names gates, not statistics"),
        ("a b", 2, "`and` or `or` is expected, not `b`"),
        ("a )", 2, "`and` or `or` is expected, not `)`"),
        ("a and or b", 6, "a gate is expected, not `or`"),
        ("a, b", 1, "a comma joins nothing"),
        ("not", 3, "the predicate ends where a gate is expected"),
        ("   ", 0, "the predicate is empty"),
    ],
)
def test_a_verdict_rule_is_refused(text: str, offset: int, message: str) -> None:
    parsed = parse(text, allow_names=True)
    assert parsed.predicate is None
    assert (parsed.errors[0].offset, parsed.errors[0].message) == (offset, message)


def test_every_problem_of_a_text_is_found_in_order() -> None:
    parsed = parse("x.delta = 1 AND 0 < x.p < 1 or x.lower", allow_names=False)
    assert [(problem.offset, problem.length) for problem in parsed.errors] == [(8, 1), (12, 3), (16, 11), (31, 7)]


@pytest.mark.parametrize("wrap", ["({})", "not {}", "not ({})"])
def test_nesting_is_bounded(wrap: str) -> None:
    per_level = 2 if wrap == "not ({})" else 1
    text = "a"
    for _ in range(MAX_DEPTH // per_level):
        text = wrap.format(text)
    assert parse(text, allow_names=True).errors == ()
    deeper = parse(wrap.format(text), allow_names=True)
    assert deeper.predicate is None
    assert "inside each other" in deeper.errors[0].message


def test_absurd_nesting_and_length_are_errors_not_exceptions() -> None:
    nested = parse("(" * (MAX_LENGTH // 2), allow_names=True)
    assert [problem.message for problem in nested.errors] == ["more than 50 parentheses and `not` inside each other"]
    long = parse("a and " * MAX_LENGTH + "a", allow_names=True)
    assert [problem.help for problem in long.errors] == [
        "split the predicate into several gates and join them in the verdict table"
    ]


def test_spans_point_at_the_leaves() -> None:
    text = "not (headline.reject and  0.1<x.delta) or y.p <= 5 %"
    parsed = parse(text, allow_names=False)
    assert [text[start:end] for _, start, end in parsed.leaf_spans] == ["headline.reject", "0.1<x.delta", "y.p <= 5 %"]
    assert parsed.predicate is not None
    assert [leaf for leaf, _, _ in parsed.leaf_spans] == list(leaves(parsed.predicate))


identifiers = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("and", "or", "not")
)
operators: st.SearchStrategy[Operator] = st.sampled_from(("<", "<=", ">", ">=", "==", "!="))
atoms = st.builds(
    Atom,
    analysis=st.lists(identifiers, min_size=1, max_size=2).map(".".join),
    statistic=st.sampled_from(("delta", "p", "reject", "lower", "ci_high")),
    operator=operators,
    constant=st.floats(allow_nan=False, allow_infinity=False),
)


def trees(leaf: st.SearchStrategy[Atom] | st.SearchStrategy[Name]) -> st.SearchStrategy[Predicate]:
    def extend(inner: st.SearchStrategy[Predicate]) -> st.SearchStrategy[Predicate]:
        several = st.lists(inner, min_size=2, max_size=4).map(tuple)
        return st.one_of(
            st.builds(Not, operand=inner), st.builds(And, operands=several), st.builds(Or, operands=several)
        )

    return st.recursive(leaf, extend, max_leaves=20)


@given(trees(atoms))
def test_a_gate_predicate_survives_text(predicate: Predicate) -> None:
    text = unparse(predicate)
    parsed = parse(text, allow_names=False)
    assert parsed.predicate == predicate, parsed.errors
    assert unparse(parsed.predicate) == text


@given(trees(identifiers.map(lambda name: Name(name=name))))
def test_a_verdict_rule_survives_text(predicate: Predicate) -> None:
    assert parse(unparse(predicate), allow_names=True).predicate == predicate


@given(
    st.one_of(st.text(), st.text("abx.()<>=! 0123456789-+e%andornot", max_size=60)),
    st.booleans(),
)
def test_any_text_gives_a_predicate_or_places_and_reasons(text: str, allow_names: bool) -> None:
    parsed = parse(text, allow_names=allow_names)
    assert (parsed.predicate is None) == bool(parsed.errors)
    for problem in parsed.errors:
        assert 0 <= problem.offset <= problem.offset + problem.length <= len(text)
        assert problem.message
        assert problem.help
    if parsed.predicate is not None:
        assert parse(unparse(parsed.predicate), allow_names=allow_names).predicate == parsed.predicate


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_exactly(value: float) -> None:
    assert float(number_text(value)) == value


@pytest.mark.parametrize("predicate", [And(operands=()), Or(operands=())])
def test_what_has_no_text_is_refused(predicate: Predicate) -> None:
    with pytest.raises(ValueError, match="empty"):
        unparse(predicate)
    with pytest.raises(ValueError, match="no decimal form"):
        number_text(float("inf"))
