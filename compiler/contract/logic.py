"""Predicates and verdict tables under Kleene's strong three-valued logic.

True, False and None (unknown). A missing input is unknown, never false and never 0
(S. C. Kleene, Introduction to Metamathematics, 1952, section 64).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Annotated, Literal, assert_never

from pydantic import BaseModel, ConfigDict, Field

Truth = bool | None
Operator = Literal["<", "<=", ">", ">=", "==", "!="]
Direction = Literal[1, -1]
"""Up or down."""


class Node(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Atom(Node):
    """`analysis.statistic OP constant`; a bare boolean statistic is `== 1`."""

    kind: Literal["atom"] = "atom"
    analysis: str
    statistic: str
    operator: Operator
    constant: float


class Name(Node):
    """A gate, in a verdict rule."""

    kind: Literal["name"] = "name"
    name: str


class Not(Node):
    kind: Literal["not"] = "not"
    operand: Predicate


class And(Node):
    kind: Literal["and"] = "and"
    operands: tuple[Predicate, ...]


class Or(Node):
    kind: Literal["or"] = "or"
    operands: tuple[Predicate, ...]


Predicate = Annotated[Atom | Name | Not | And | Or, Field(discriminator="kind")]


def compare(value: float | Fraction | None, operator: Operator, constant: float | Fraction) -> Truth:
    """One comparison; unknown when the value is."""
    if value is None:
        return None
    match operator:
        case "<":
            return value < constant
        case "<=":
            return value <= constant
        case ">":
            return value > constant
        case ">=":
            return value >= constant
        case "==":
            return value == constant
        case "!=":
            return value != constant
        case _:
            assert_never(operator)


def evaluate(predicate: Predicate, leaf: Callable[[Atom | Name], Truth]) -> Truth:
    """Truth of a predicate whose leaves `leaf` decides."""
    match predicate:
        case Atom() | Name():
            return leaf(predicate)
        case Not(operand=operand):
            inner = evaluate(operand, leaf)
            return None if inner is None else not inner
        case And(operands=operands):
            values = [evaluate(operand, leaf) for operand in operands]
            return False if False in values else None if None in values else True
        case Or(operands=operands):
            values = [evaluate(operand, leaf) for operand in operands]
            return True if True in values else None if None in values else False
        case _:
            assert_never(predicate)


def leaves(predicate: Predicate) -> Iterator[Atom | Name]:
    """Every atom and gate name of a predicate, left to right."""
    match predicate:
        case Atom() | Name():
            yield predicate
        case Not(operand=operand):
            yield from leaves(operand)
        case And(operands=operands) | Or(operands=operands):
            for operand in operands:
                yield from leaves(operand)
        case _:
            assert_never(predicate)


def required(
    predicate: Predicate, *, alternatives: bool = False, negated: bool = False
) -> Iterator[tuple[Atom, Direction]]:
    """Comparisons that must all hold for a predicate to hold, with 1 for one that bounds its statistic from below, -1 from above.

    Of alternatives none must hold; with `alternatives` the first counts all the same, so that what is found is enough.
    """
    match predicate:
        case Atom(operator=">" | ">="):
            yield predicate, -1 if negated else 1
        case Atom(operator="<" | "<="):
            yield predicate, 1 if negated else -1
        case Not(operand=operand):
            yield from required(operand, alternatives=alternatives, negated=not negated)
        case And(operands=operands) | Or(operands=operands):
            together = isinstance(predicate, And) is not negated
            for operand in operands if together else operands[:1] if alternatives else ():
                yield from required(operand, alternatives=alternatives, negated=negated)
        case Atom() | Name():
            return


def first_match(rules: Sequence[Predicate | None], gates: Mapping[str, Truth]) -> set[int]:
    """Which rules can be the first to match, over every completion of the unknown gates.

    A rule that is None is `otherwise`. Every gate that a rule names must be in `gates`. Returns
    the set of rule indices; one element means the verdict does not depend on what is unknown.
    """
    named = {leaf.name for rule in rules if rule is not None for leaf in leaves(rule) if isinstance(leaf, Name)}
    unknown = sorted(name for name in named if gates[name] is None)
    reached: set[int] = set()
    for completion in itertools.product((False, True), repeat=len(unknown)):
        known = {**gates, **dict(zip(unknown, completion, strict=True))}

        def leaf(node: Atom | Name, known: Mapping[str, Truth] = known) -> Truth:
            if isinstance(node, Atom):
                raise TypeError("a verdict rule names gates, not statistics")
            return known[node.name]

        for index, rule in enumerate(rules):
            if rule is None or evaluate(rule, leaf):
                reached.add(index)
                break
    return reached
