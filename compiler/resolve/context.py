"""What every part of the resolver reads and adds to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from epc.compiler.contract.manifest import Pending
from epc.compiler.diagnostics import Diagnostics, Span
from epc.compiler.resolve.experiment import InputFile
from epc.compiler.source import PathKey
from epc.compiler.spec import Spec
from epc.compiler.surface import Surface


@dataclass(frozen=True, kw_only=True)
class Context:
    """The spec, the sink, and the files and pending hashes that were met so far."""

    surface: Surface
    sink: Diagnostics
    inputs: dict[str, InputFile] = field(default_factory=dict)
    """Path as the spec writes it -> file; each is read once."""
    pending: list[Pending] = field(default_factory=list)

    @property
    def spec(self) -> Spec:
        return self.surface.spec

    def at(self, *path: str | int) -> Span:
        """Span of a value of the spec."""
        return self.surface.span(path)

    def key_at(self, *path: str | int) -> Span:
        """Span of a key of the spec."""
        return self.surface.key_span(path)

    def line(self, span: Span) -> str:
        """The line that a span lies in."""
        return self.sink.sources.get(span.file, [""])[span.line - 1]

    def within(self, span: Span, word: str) -> Span:
        """The part of a one-line value's span that holds `word`."""
        line = self.line(span)
        found = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)").search(line, span.column - 1, span.column + span.length)
        return Span(file=span.file, line=span.line, column=found.start() + 1, length=len(word)) if found else span

    def part(self, path: PathKey, offset: int, length: int) -> Span:
        """Span of characters inside a scalar; the whole scalar when it is folded over lines."""
        span = self.at(*path)
        if span.length == 1:
            return span
        quoted = self.line(span)[span.column - 1 : span.column] in ("'", '"')
        return Span(file=span.file, line=span.line, column=span.column + offset + quoted, length=max(1, length))
