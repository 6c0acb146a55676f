"""Diagnostics: what is wrong, where, why, and what to do about it.

A diagnostic carries a stable code, a severity, one message, labelled spans and a help line. All
diagnostics of a file are collected and shown together; nothing in the compiler raises for bad input.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal, NotRequired, TypedDict, Unpack

Severity = Literal["error", "warning"]
Format = Literal["text", "json", "github"]


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

    def error(self, code: str, message: str, span: Span, **details: Unpack[Details]) -> None:
        self._items.append(_diagnostic("error", code, message, span, details))

    def warning(self, code: str, message: str, span: Span, **details: Unpack[Details]) -> None:
        self._items.append(_diagnostic("warning", code, message, span, details))

    def __iter__(self) -> Iterator[Diagnostic]:
        """In order of place, each once."""
        unique = dict.fromkeys(self._items)
        return iter(sorted(unique, key=lambda d: (d.span.file, d.span.line, d.span.column, d.code)))

    @property
    def errors(self) -> int:
        return sum(item.severity == "error" for item in self)

    @property
    def warnings(self) -> int:
        return sum(item.severity == "warning" for item in self)


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


def _text_one(diagnostic: Diagnostic, sources: Mapping[str, list[str]]) -> str:
    width = len(str(max([diagnostic.span.line, *(label.span.line for label in diagnostic.labels)])))
    bar = " " * width + " |"
    out = [f"{diagnostic.severity}[{diagnostic.code}]: {diagnostic.message}"]

    def quote(span: Span, text: str, arrow: str) -> None:
        out.append(f"{' ' * width}{arrow} {span.file}:{span.line}:{span.column}")
        lines = sources.get(span.file, [])
        if 1 <= span.line <= len(lines):
            line = lines[span.line - 1].replace("\t", " ")
            start = span.column - 1
            # Long flow lines are cut around the caret so that the caret stays on screen.
            shift = max(0, start - 60) if len(line) > 120 else 0
            shown = ("…" if shift else "") + line[shift : shift + 116] + ("…" if len(line) > shift + 116 else "")
            caret = start - shift + (1 if shift else 0)
            length = max(1, min(span.length, len(shown) - caret))
            out.append(bar)
            out.append(f"{span.line:>{width}} | {shown}")
            out.append(f"{bar} {' ' * caret}{'^' * length}{' ' + text if text else ''}")

    quote(diagnostic.span, "", "-->")
    for label in diagnostic.labels:
        quote(label.span, label.text, ":::")
    out.extend(f"{' ' * width} = note: {note}" for note in diagnostic.notes)
    out.append(f"{' ' * width} = help: {diagnostic.help}")
    return "\n".join(out)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def summary(diagnostics: Diagnostics) -> str:
    """`2 errors, 1 warning`."""
    return f"{_plural(diagnostics.errors, 'error')}, {_plural(diagnostics.warnings, 'warning')}"


def render(diagnostics: Diagnostics, style: Format = "text") -> str:
    """All diagnostics in one of the formats; empty when there are none."""
    items = list(diagnostics)
    if style == "json":
        rows = [
            {
                "code": d.code,
                "severity": d.severity,
                "message": d.message,
                "file": d.span.file,
                "line": d.span.line,
                "column": d.span.column,
                "length": d.span.length,
                "help": d.help,
                "notes": list(d.notes),
                "labels": [
                    {"file": label.span.file, "line": label.span.line, "column": label.span.column, "text": label.text}
                    for label in d.labels
                ],
            }
            for d in items
        ]
        return json.dumps(rows, indent=1, ensure_ascii=False)
    if style == "github":
        return "\n".join(
            f"::{d.severity} file={d.span.file},line={d.span.line},col={d.span.column},title={d.code}::"
            + f"{d.message} ({d.help})".replace("%", "%25").replace("\n", "%0A")
            for d in items
        )
    return "\n\n".join(_text_one(d, diagnostics.sources) for d in items)
