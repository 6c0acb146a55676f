"""Diagnostics: what is wrong, where, why, and what to do about it.

A diagnostic carries a stable code, a severity, one message, labelled spans and a help line. All
diagnostics of a file are collected and shown together; nothing in the compiler raises for bad input.

As JSON they are one object:

    {"version": 1, "errors": 0, "warnings": 1, "diagnostics": [...], "allowed": [...]}

`diagnostics` holds what counts, in order of place, as `code`, `severity`, `message`, `file`, `line`, `column`,
`length`, `help`, `notes` (texts) and `labels` (`file`, `line`, `column`, `length`, `text`); `allowed` the warnings that the
spec accepts, with `reason` and, as `by`, the place where it does. Lines and columns count from 1. A later
version may add keys; `version` changes when one goes away or changes its meaning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, Literal, NotRequired, TypedDict, Unpack, assert_never

Severity = Literal["error", "warning"]
Format = Literal["text", "json", "sarif", "github"]
JSON_VERSION: Final = 1


@dataclass(frozen=True, kw_only=True)
class Span:
    """A piece of one line. Lines and columns count from 1, columns in characters."""

    file: str
    line: int
    column: int
    length: int = 1


@dataclass(frozen=True, kw_only=True)
class Label:
    """A second place that a diagnostic speaks of."""

    span: Span
    text: str


@dataclass(frozen=True, kw_only=True)
class Diagnostic:
    code: str
    """E#### or W####."""
    severity: Severity
    message: str
    span: Span
    help: str
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    """The arithmetic, the witness: what lets the reader check the claim."""


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """A warning that the spec accepts, and so no longer counts."""

    diagnostic: Diagnostic
    reason: str
    by: Span
    """Where the spec accepts it."""


class Details(TypedDict):
    """What goes with a message: the remedy always, other places and the arithmetic where there are some."""

    help: str
    labels: NotRequired[Iterable[Label]]
    notes: NotRequired[Iterable[str]]


def _diagnostic(severity: Severity, code: str, message: str, span: Span, details: Details) -> Diagnostic:
    return Diagnostic(
        code=code,
        severity=severity,
        message=message,
        span=span,
        help=details["help"],
        labels=tuple(details.get("labels", ())),
        notes=tuple(details.get("notes", ())),
    )


@dataclass(kw_only=True)
class Diagnostics:
    """A sink that passes write to. Holds the text of every source so that it can be quoted."""

    sources: dict[str, list[str]] = field(default_factory=dict)
    _items: list[Diagnostic] = field(default_factory=list)
    _allowed: list[Allowed] = field(default_factory=list)

    def error(self, code: str, message: str, span: Span, **details: Unpack[Details]) -> None:
        self._items.append(_diagnostic("error", code, message, span, details))

    def warning(self, code: str, message: str, span: Span, **details: Unpack[Details]) -> None:
        self._items.append(_diagnostic("warning", code, message, span, details))

    def allow(self, diagnostic: Diagnostic, reason: str, by: Span) -> None:
        """Count a warning no longer: the spec accepts it at `by`."""
        self._items = [item for item in self._items if item != diagnostic]
        self._allowed.append(Allowed(diagnostic=diagnostic, reason=reason, by=by))

    def __iter__(self) -> Iterator[Diagnostic]:
        """What counts, in order of place, each once."""
        return iter(sorted(dict.fromkeys(self._items), key=_place))

    @property
    def allowed(self) -> list[Allowed]:
        """Accepted warnings in order of place."""
        return sorted(self._allowed, key=lambda item: _place(item.diagnostic))

    @property
    def errors(self) -> int:
        return sum(item.severity == "error" for item in self)

    @property
    def warnings(self) -> int:
        return sum(item.severity == "warning" for item in self)


def _place(diagnostic: Diagnostic) -> tuple[str, int, int, str]:
    return diagnostic.span.file, diagnostic.span.line, diagnostic.span.column, diagnostic.code


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` did you mean "x"?`, or the known names when none is close, or nothing when there are none."""
    names = sorted(set(known))
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    if not names:
        return "none is declared"
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"known: {shown}"


def sentence(text: str) -> str:
    """The text with a full stop, unless it ends as a question."""
    return text if text.endswith("?") else f"{text}."


_COLOURS: Final = {"error": "1;31", "warning": "1;33", "allowed": "1;34", "frame": "34", "help": "32", "bold": "1"}


def _text_one(
    diagnostic: Diagnostic, sources: Mapping[str, list[str]], *, colour: bool, allowed: Allowed | None = None
) -> str:
    def paint(kind: str, text: str) -> str:
        return f"\x1b[{_COLOURS[kind]}m{text}\x1b[0m" if colour and text else text

    kind = diagnostic.severity if allowed is None else "allowed"
    lines_named = [diagnostic.span.line, *(label.span.line for label in diagnostic.labels)]
    width = len(str(max(lines_named if allowed is None else [*lines_named, allowed.by.line])))
    pad = " " * width
    out = [f"{paint(kind, f'{kind}[{diagnostic.code}]')}{paint('bold', f': {diagnostic.message}')}"]

    def quote(span: Span, text: str, arrow: str, kind: str) -> None:
        out.append(f"{pad}{paint('frame', arrow)} {span.file}:{span.line}:{span.column}")
        lines = sources.get(span.file, [])
        if 1 <= span.line <= len(lines):
            line = lines[span.line - 1].replace("\t", " ")
            start = span.column - 1
            # Long flow lines are cut around the caret so that the caret stays on screen.
            shift = max(0, start - 60) if len(line) > 120 else 0
            shown = ("…" if shift else "") + line[shift : shift + 116] + ("…" if len(line) > shift + 116 else "")
            caret = start - shift + (1 if shift else 0)
            length = max(1, min(span.length, len(shown) - caret))
            bar = f"{pad} {paint('frame', '|')}"
            out.append(bar)
            out.append(f"{paint('frame', f'{span.line:>{width}} |')} {shown}")
            out.append(f"{bar} {' ' * caret}{paint(kind, '^' * length + (f' {text}' if text else ''))}")

    quote(diagnostic.span, "", "-->", kind)
    for label in diagnostic.labels:
        quote(label.span, label.text, ":::", "frame")
    out.extend(f"{pad} = note: {note}" for note in diagnostic.notes)
    if allowed is None:
        out.append(f"{pad} = {paint('help', 'help')}: {diagnostic.help}")
    else:
        quote(allowed.by, "", ":::", "allowed")
        out.append(f"{pad} = reason: {allowed.reason}")
    return "\n".join(out)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def summary(diagnostics: Diagnostics) -> str:
    """`2 errors, 1 warning`, and how many more warnings the spec allows."""
    counted = f"{_plural(diagnostics.errors, 'error')}, {_plural(diagnostics.warnings, 'warning')}"
    allowed = len(diagnostics.allowed)
    return f"{counted}, {allowed} allowed by the spec with a reason" if allowed else counted


def _location(span: Span) -> dict[str, Any]:
    return {"file": span.file, "line": span.line, "column": span.column, "length": span.length}


def _row(diagnostic: Diagnostic) -> dict[str, Any]:
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity,
        "message": diagnostic.message,
        **_location(diagnostic.span),
        "help": diagnostic.help,
        "notes": list(diagnostic.notes),
        "labels": [{**_location(label.span), "text": label.text} for label in diagnostic.labels],
    }


def _json(diagnostics: Diagnostics) -> str:
    import json

    document = {
        "version": JSON_VERSION,
        "errors": diagnostics.errors,
        "warnings": diagnostics.warnings,
        "diagnostics": [_row(item) for item in diagnostics],
        "allowed": [
            {**_row(item.diagnostic), "reason": item.reason, "by": _location(item.by)} for item in diagnostics.allowed
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=False)


def _annotation(diagnostic: Diagnostic) -> str:
    """A workflow command of GitHub Actions; its properties escape two characters more than its text does."""

    def data(text: str) -> str:
        return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

    span = diagnostic.span
    properties = {
        "file": span.file, "line": span.line, "endLine": span.line, "col": span.column,
        "endColumn": span.column + span.length, "title": diagnostic.code,
    }  # fmt: skip
    shown = ",".join(
        f"{key}={data(str(value)).replace(':', '%3A').replace(',', '%2C')}" for key, value in properties.items()
    )
    return f"::{diagnostic.severity} {shown}::{data(explained(diagnostic))}"


def explained(diagnostic: Diagnostic) -> str:
    """Message, arithmetic and remedy as plain text, for formats that have one field for all of it."""
    notes = [f"note: {note}" for note in diagnostic.notes]
    return "\n".join([diagnostic.message, *notes, f"help: {diagnostic.help}"])


def render(diagnostics: Diagnostics, style: Format = "text", *, colour: bool = False) -> str:
    """All diagnostics in one of the formats. As text and for GitHub, what counts; empty when nothing does."""
    match style:
        case "json":
            return _json(diagnostics)
        case "sarif":
            from epc.compiler.sarif import sarif

            return sarif(diagnostics)
        case "github":
            return "\n".join(_annotation(item) for item in diagnostics)
        case "text":
            return "\n\n".join(_text_one(item, diagnostics.sources, colour=colour) for item in diagnostics)
        case _:
            assert_never(style)


def render_allowed(diagnostics: Diagnostics, *, colour: bool = False) -> str:
    """The accepted warnings as text, each with its reason; empty when there are none."""
    return "\n\n".join(
        _text_one(item.diagnostic, diagnostics.sources, colour=colour, allowed=item) for item in diagnostics.allowed
    )
