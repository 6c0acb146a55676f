"""The predicate language of gates and verdict rules: text to `contract.logic.Predicate` and back.

    predicate  := conjunction ("or" conjunction)*
    conjunction:= negation ("and" negation)*
    negation   := "not" negation | "(" predicate ")" | comparison | statistic | gate
    comparison := statistic OP number | number OP statistic        OP: < <= > >= == !=
    statistic  := analysis "." name                                `headline.delta`
    number     := [sign] decimal [exponent] ["pp" | "%"]           10pp = 10% = 0.10

A statistic stands alone only where it is boolean (`headline.reject` is `headline.reject == 1`). A gate's
name stands in a verdict rule only, and a comparison in a gate only. There is no arithmetic, no function
and no comparison of two statistics: that is what lets `epc check` decide every verdict table.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, assert_never

from epc.compiler.contract.logic import And, Atom, Name, Not, Operator, Or, Predicate

MAX_DEPTH: Final = 50
"""Deepest nesting of parentheses and `not`."""
MAX_LENGTH: Final = 4000
"""Longest predicate, in characters."""
BOOLEAN_STATISTICS: Final = frozenset({"reject"})
"""Statistics that are 0 or 1, and may stand without a comparison."""

_STATISTICS: Final = ("delta", "value", "p", "reject", "lower", "upper", "ci_low", "ci_high")
"""For help texts only: which statistics an analysis has is for the resolver to know."""
_FLIPPED: Final[dict[Operator, Operator]] = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!="}


@dataclass(frozen=True, kw_only=True)
class SyntaxProblem:
    """One thing wrong with a predicate's text."""

    offset: int
    """Characters before the place, in the text given to `parse`."""
    length: int
    """Characters to underline; 0 at the end of the text."""
    message: str
    help: str


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """What `parse` found. `predicate` is None exactly when there are errors."""

    predicate: Predicate | None
    errors: tuple[SyntaxProblem, ...] = ()
    leaf_spans: tuple[tuple[Atom | Name, int, int], ...] = ()
    """(leaf, start, end) left to right, as `contract.logic.leaves` yields them; end is exclusive."""


def parse(text: str, *, allow_names: bool) -> Parsed:
    """Parse a gate's predicate (`allow_names=False`) or a verdict rule's (`allow_names=True`).

    Never raises: whatever is wrong is in `errors`, in the order of the text.
    """
    if len(text) > MAX_LENGTH:
        problem = SyntaxProblem(
            offset=0,
            length=len(text),
            message=f"the predicate has {len(text)} characters, more than {MAX_LENGTH}",
            help="split the predicate into several gates and join them in the verdict table",
        )
        return Parsed(predicate=None, errors=(problem,))
    lexer = _Lexer(text)
    if not lexer.readable:
        return Parsed(predicate=None, errors=tuple(lexer.problems))
    parser = _Parser(lexer, allow_names=allow_names)
    predicate = parser.whole()
    if parser.problems:
        return Parsed(predicate=None, errors=tuple(sorted(parser.problems, key=lambda problem: problem.offset)))
    return Parsed(predicate=predicate, leaf_spans=tuple(parser.leaves))


def unparse(predicate: Predicate) -> str:
    """The text of a predicate; parsing it gives the same predicate.

    Raises ValueError for what the language cannot say: an empty `and` / `or`, a constant that is not finite.
    """
    return _text(predicate, above=0)


def number_text(value: float) -> str:
    """The shortest decimal that reads back as the same float: `0.15`, `5`, `1e-05`.

    Raises ValueError when the value is infinite or not a number.
    """
    if not math.isfinite(value):
        raise ValueError(f"{value} has no decimal form")
    text = repr(float(value))
    return text.removesuffix(".0")


def _text(predicate: Predicate, *, above: int) -> str:
    """`above` is the binding strength of the surrounding operator: or 1, and 2, not 3."""
    match predicate:
        case Name(name=name):
            return name
        case Atom(analysis=analysis, statistic=statistic, operator=operator, constant=constant):
            if statistic in BOOLEAN_STATISTICS and operator == "==" and constant == 1:
                return f"{analysis}.{statistic}"
            return f"{analysis}.{statistic} {operator} {number_text(constant)}"
        case Not(operand=operand):
            return f"not {_text(operand, above=3)}"
        case And(operands=operands) | Or(operands=operands):
            word, strength = (" and ", 2) if isinstance(predicate, And) else (" or ", 1)
            if not operands:
                raise ValueError(f"an empty{word.rstrip()} has no text")
            if len(operands) == 1:
                return _text(operands[0], above=above)
            # An operand of equal strength keeps its parentheses: `a and (b and c)` is another tree.
            inner = word.join(_text(operand, above=strength) for operand in operands)
            return f"({inner})" if strength <= above else inner
        case _:
            assert_never(predicate)


# ---------------------------------------------------------------------------------------- words

_Kind = Literal["reference", "number", "operator", "and", "or", "not", "(", ")", "arithmetic", "end"]


@dataclass(frozen=True, kw_only=True)
class _Token:
    kind: _Kind
    text: str
    start: int
    end: int
    value: float = 0.0


_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_HYPHENATED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:-[A-Za-z][A-Za-z0-9_]*)+(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_NUMBER = re.compile(
    r"(?P<mantissa>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE](?P<exponent>[+-]?[0-9]+))?(?P<unit>\s*(?:pp\b|%))?"
)
_TAIL = re.compile(r"[A-Za-z0-9_.]+")
_DECIMAL_COMMA = re.compile(r",[0-9]+(?:[eE][+-]?[0-9]+)?")
_SYMBOLS = re.compile(r"[<>=!]+|&+|\|+|[~¬∧∨≤≥≠⩽⩾≦≧]")
_OPERATORS: Final[frozenset[str]] = frozenset(_FLIPPED)

_MEANT: Final[dict[str, tuple[_Kind, str]]] = {
    "&&": ("and", "and"),
    "&": ("and", "and"),
    "∧": ("and", "and"),
    "||": ("or", "or"),
    "|": ("or", "or"),
    "∨": ("or", "or"),
    "!": ("not", "not"),
    "~": ("not", "not"),
    "¬": ("not", "not"),
    "=": ("operator", "=="),
    "===": ("operator", "=="),
    "=>": ("operator", ">="),
    "=<": ("operator", "<="),
    "≥": ("operator", ">="),
    "⩾": ("operator", ">="),
    "≧": ("operator", ">="),
    "≤": ("operator", "<="),
    "⩽": ("operator", "<="),
    "≦": ("operator", "<="),
    "≠": ("operator", "!="),
    "<>": ("operator", "!="),
    "!==": ("operator", "!="),
}
"""Spellings of other languages. They are refused, read as what was meant, and reading goes on."""


class _Lexer:
    """Text to tokens. `readable` turns false when something was left out that the parser would miss."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.tokens: list[_Token] = []
        self.problems: list[SyntaxProblem] = []
        self.readable = True
        while True:
            space = _SPACE.match(text, self.at)
            self.at = space.end() if space else self.at
            if self.at >= len(text):
                break
            self._next()
        end = len(text.rstrip())
        self._emit("end", "", end, end)

    def _next(self) -> None:
        start = self.at
        after_operand = bool(self.tokens) and self.tokens[-1].kind in ("reference", "number", ")")
        number = _NUMBER.match(self.text, start)
        # After an operand a sign can only be arithmetic, which the parser refuses as such.
        if number and not (after_operand and self.text[start] in "+-"):
            self._number(number)
        elif hyphenated := _HYPHENATED.match(self.text, start):
            self.at = hyphenated.end()
            name = hyphenated.group()
            self._unreadable(
                start,
                f"`{name}` is not a name: names have letters, digits and underscores",
                f"call it `{name.replace('-', '_')}`",
            )
        elif word := _WORD.match(self.text, start):
            self._word(word)
        elif symbols := _SYMBOLS.match(self.text, start):
            self._symbols(symbols)
        else:
            self._character(start)

    def _emit(self, kind: _Kind, text: str, start: int, end: int, value: float = 0.0) -> None:
        self.tokens.append(_Token(kind=kind, text=text, start=start, end=end, value=value))

    def _report(self, start: int, message: str, remedy: str) -> None:
        self.problems.append(SyntaxProblem(offset=start, length=self.at - start, message=message, help=remedy))

    def _unreadable(self, start: int, message: str, remedy: str) -> None:
        self._report(start, message, remedy)
        self.readable = False

    def _number(self, number: re.Match[str]) -> None:
        start, self.at = number.span()
        if comma := _DECIMAL_COMMA.match(self.text, self.at):
            self.at = comma.end()
            written = self.text[start : self.at]
            self._unreadable(
                start, f"`{written}` is not a number", f"write a decimal point: {written.replace(',', '.')}"
            )
        elif tail := _TAIL.match(self.text, self.at):
            self.at = tail.end()
            written = self.text[start : self.at]
            self._unreadable(start, f"`{written}` is not a number", "numbers are like 0.15, -5, 1e-3, 10pp and 10%")
        else:
            value = _value(number)
            if not math.isfinite(value):
                self._unreadable(start, f"`{number.group()}` is too large", "constants are 64-bit floats")
            self._emit("number", number.group(), start, self.at, value)

    def _word(self, word: re.Match[str]) -> None:
        start, self.at = word.span()
        written = word.group()
        if self.text[self.at : self.at + 1] == ".":
            tail = _TAIL.match(self.text, self.at)
            self.at = tail.end() if tail else self.at
            self._unreadable(
                start,
                f"`{self.text[start : self.at]}` is not a statistic",
                "a statistic is `analysis.statistic`, such as `headline.delta`",
            )
            return
        match written.lower():
            case "and" | "or" | "not" as keyword:
                if written != keyword:
                    self._report(start, f"`{written}` is not an operator here", f"write `{keyword}`")
                self._emit(keyword, keyword, start, self.at)
            case _:
                self._emit("reference", written, start, self.at)

    def _symbols(self, symbols: re.Match[str]) -> None:
        start, self.at = symbols.span()
        written = symbols.group()
        if written in _OPERATORS:
            self._emit("operator", written, start, self.at)
        elif written in _MEANT:
            kind, meant = _MEANT[written]
            self._report(start, f"`{written}` is not an operator here", f"write `{meant}`")
            self._emit(kind, meant, start, self.at)
        else:
            self._unreadable(start, f"`{written}` is not an operator", "comparisons are <, <=, >, >=, == and !=")

    def _character(self, start: int) -> None:
        self.at += 1
        written = self.text[start]
        match written:
            case "(" | ")" as bracket:
                self._emit(bracket, bracket, start, self.at)
            case "+" | "-" | "*" | "/" | "%" | "^":
                self._emit("arithmetic", written, start, self.at)
            case "−" | "–" | "—":
                self._unreadable(start, f"`{written}` (U+{ord(written):04X}) is not a minus sign", "write `-`")
            case ",":
                self._unreadable(start, "a comma joins nothing", "write `and` or `or`")
            case "[" | "]" | "{" | "}":
                self._unreadable(start, f"`{written}` does not group", "write `(` and `)`")
            case '"' | "'" | "`" | "“" | "”" | "‘" | "’":
                self._unreadable(start, f"`{written}` does not belong here", "names are written without quotes")
            case _:
                self._unreadable(
                    start,
                    f"`{written}` (U+{ord(written):04X}) does not belong in a predicate",
                    "a predicate is like `headline.lower > 0 and headline.delta >= 10pp`",
                )


def _value(number: re.Match[str]) -> float:
    """The float nearest to the decimal written. The exponent takes the 1/100, so 14.7% is exactly 0.147."""
    exponent = int(number["exponent"] or 0) - (2 if number["unit"] else 0)
    return float(f"{number['mantissa']}e{exponent}")


# -------------------------------------------------------------------------------------- grammar


class _RefusedError(Exception):
    """The rest of this operand of and / or cannot be read; its problem is recorded already."""


class _Parser:
    """Recursive descent. After a problem it goes on behind the next and / or, to find the others."""

    def __init__(self, lexer: _Lexer, *, allow_names: bool) -> None:
        self.tokens = lexer.tokens
        self.problems = lexer.problems
        self.allow_names = allow_names
        self.position = 0
        self.depth = 0
        self.leaves: list[tuple[Atom | Name, int, int]] = []

    @property
    def token(self) -> _Token:
        return self.tokens[self.position]

    def _at(self, *kinds: _Kind) -> bool:
        return self.token.kind in kinds

    def _take(self) -> _Token:
        token = self.token
        if token.kind != "end":
            self.position += 1
        return token

    def _refuse(self, first: _Token, last: _Token, message: str, remedy: str) -> _RefusedError:
        problem = SyntaxProblem(offset=first.start, length=last.end - first.start, message=message, help=remedy)
        self.problems.append(problem)
        return _RefusedError()

    def whole(self) -> Predicate | None:
        if self._at("end"):
            self._refuse(self.token, self.token, "the predicate is empty", self._example())
            return None
        try:
            predicate = self._or()
            if not self._at("end"):
                raise self._unexpected("`and` or `or`")
        except _RefusedError:
            return None
        return predicate

    def _example(self) -> str:
        if self.allow_names:
            return "a rule is like `survives and not dead`"
        return "a predicate is like `headline.lower > 0 and headline.delta >= 10pp`"

    def _or(self) -> Predicate | None:
        return self._joined("or", self._and, Or)

    def _and(self) -> Predicate | None:
        return self._joined("and", self._not, And)

    def _joined(
        self, word: _Kind, operand: Callable[[], Predicate | None], node: type[And] | type[Or]
    ) -> Predicate | None:
        """operand (word operand)*; None when an operand was refused."""
        operands = [operand()]
        while self._at(word):
            self._take()
            operands.append(operand())
        good = tuple(one for one in operands if one is not None)
        if len(good) < len(operands):
            return None
        return good[0] if len(good) == 1 else node(operands=good)

    def _not(self) -> Predicate | None:
        if not self._at("not"):
            return self._primary()
        self._enter(self._take())
        operand = self._not()
        self.depth -= 1
        return None if operand is None else Not(operand=operand)

    def _enter(self, token: _Token) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self._refuse(
                token,
                token,
                f"more than {MAX_DEPTH} parentheses and `not` inside each other",
                "split the predicate into several gates and join them in the verdict table",
            )

    def _primary(self) -> Predicate | None:
        if self._at("("):
            opening = self._take()
            self._enter(opening)
            predicate = self._or()
            self.depth -= 1
            if self._at("end"):
                raise self._refuse(opening, opening, "this `(` is never closed", "add `)`")
            if not self._at(")"):
                raise self._unexpected("`)`")
            self._take()
            if self._at("operator", "arithmetic"):
                raise self._refuse(
                    self.token,
                    self.token,
                    f"`{self.token.text}` cannot follow `)`",
                    "compare one statistic with one number; parentheses group `and`, `or` and `not`",
                )
            return predicate
        return self._comparison()

    def _comparison(self) -> Predicate | None:
        """One statistic and one number, or a leaf that stands alone."""
        start = self.position
        try:
            if not self._at("reference", "number"):
                raise self._unexpected("a gate" if self.allow_names else "a statistic")
            self._operand()
            while self._at("operator", "arithmetic"):
                self._take()
                if not self._at("reference", "number"):
                    raise self._unexpected("a number or a statistic")
                self._operand()
            return self._leaf(self.tokens[start : self.position])
        except _RefusedError:
            while not self._at("and", "or", ")", "end"):
                self._take()
            return None

    def _operand(self) -> None:
        operand = self._take()
        if operand.kind == "reference" and self._at("("):
            opened = 0
            while not self._at("end"):
                last = self._take()
                opened += {"(": 1, ")": -1}.get(last.kind, 0)
                if opened == 0:
                    break
            raise self._refuse(
                operand,
                last,
                "there are no functions here",
                "declare an analysis and compare its statistic",
            )

    def _leaf(self, tokens: list[_Token]) -> Atom | Name:
        """`tokens` alternate: operand, operator, operand, ..."""
        first, last = tokens[0], tokens[-1]
        signs = tokens[1::2]
        if any(token.kind == "arithmetic" for token in signs):
            raise self._refuse(
                first, last, "there is no arithmetic here", "declare an analysis for it and compare its statistic"
            )
        if len(signs) > 1:
            raise self._refuse(first, last, "a comparison has one operator", self._unchained(tokens))
        if self.allow_names and signs:
            raise self._refuse(
                first, last, "a verdict rule names gates, not statistics", "make this comparison a gate and name it"
            )
        leaf = self._alone(first) if not signs else self._compared(first, signs[0], last)
        self.leaves.append((leaf, first.start, last.end))
        return leaf

    def _statistic_help(self, name: str) -> str:
        if name in _STATISTICS:
            return f"name the analysis too, such as `headline.{name}`"
        return f"a gate compares statistics of analyses, such as `{name}.delta`; only a verdict rule names gates"

    def _unchained(self, tokens: list[_Token]) -> str:
        """The pairs of a chain, `0 < a.delta < 1`, written out."""
        pairs = [" ".join(token.text for token in tokens[index : index + 3]) for index in range(0, len(tokens) - 2, 2)]
        return f"write `{' and '.join(pairs)}`"

    def _alone(self, token: _Token) -> Atom | Name:
        analysis, _, statistic = token.text.rpartition(".")
        if token.kind == "number":
            raise self._refuse(token, token, f"`{token.text}` is compared with nothing", self._example())
        if self.allow_names:
            if analysis:
                raise self._refuse(
                    token, token, "a verdict rule names gates, not statistics", "make this statistic a gate and name it"
                )
            return Name(name=token.text)
        if not analysis:
            raise self._refuse(
                token,
                token,
                f"`{token.text}` is not a statistic",
                self._statistic_help(token.text),
            )
        if statistic not in BOOLEAN_STATISTICS:
            close = difflib.get_close_matches(statistic, BOOLEAN_STATISTICS, n=1)
            raise self._refuse(
                token,
                token,
                f"`{token.text}` is compared with nothing",
                f"did you mean `{analysis}.{close[0]}`?" if close else f"compare it, such as `{token.text} > 0`",
            )
        return Atom(analysis=analysis, statistic=statistic, operator="==", constant=1.0)

    def _compared(self, left: _Token, sign: _Token, right: _Token) -> Atom:
        operator = _operator(sign.text)
        if left.kind == "number":
            left, right, operator = right, left, _FLIPPED[operator]
        if left.kind == "number":
            raise self._refuse(
                right,
                left,
                "two numbers are compared",
                "one side must be a statistic, such as `headline.delta`",
            )
        if right.kind == "reference":
            if right.text.lower() in ("true", "false", "yes", "no"):
                raise self._refuse(
                    right,
                    right,
                    f"`{right.text}` is not a number",
                    f"write `{left.text}` or `not {left.text}`",
                )
            raise self._refuse(
                left,
                right,
                "two statistics are compared",
                "one side must be a number; declare an analysis of the contrast you mean",
            )
        analysis, _, statistic = left.text.rpartition(".")
        if not analysis:
            raise self._refuse(
                left,
                left,
                f"`{left.text}` is not a statistic",
                self._statistic_help(left.text),
            )
        return Atom(analysis=analysis, statistic=statistic, operator=operator, constant=right.value)

    def _unexpected(self, wanted: str) -> _RefusedError:
        token = self.token
        if token.kind == "end":
            return self._refuse(token, token, f"the predicate ends where {wanted} is expected", self._example())
        return self._refuse(token, token, f"{wanted} is expected, not `{token.text}`", self._example())


def _operator(written: str) -> Operator:
    match written:
        case "<" | "<=" | ">" | ">=" | "==" | "!=":
            return written
        case _:
            raise ValueError(f"{written} is no comparison")
