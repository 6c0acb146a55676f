"""What must hold of the front end for any input: it returns, and every diagnostic can be shown."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import get_args

from epc.compiler import pipeline
from epc.compiler.diagnostics import Diagnostics, Format, Span, render, render_allowed, summary
from epc.compiler.predicate import parse, unparse

ROOT = Path(__file__).resolve().parents[2]
FILE = "specs/fuzzed.yaml"
"""How diagnostics name the spec."""


def workspace(folder: Path) -> Path:
    """A folder with the files that the shipped specs name. Returns the path of the spec to be written there."""
    specs = folder / "specs"
    if not specs.is_dir():
        shutil.copytree(ROOT / "specs", specs)
    return folder / FILE


def check(spec: Path, *, bundle: bool = False) -> Diagnostics:
    """Everything that `epc check` does with a spec, and with `bundle` what `epc compile` does when it is sound."""
    sink = Diagnostics()
    experiment = pipeline.check(spec, FILE, sink)
    if experiment is not None:
        plan = pipeline.plan(experiment, pipeline.Layout.of(spec), sink)
        if bundle and plan is not None:
            assert pipeline.bundle(plan, pipeline.Layout.of(spec))
    else:
        assert sink.errors, "a file that is no spec has no error"
    assert_presentable(sink)
    return sink


def assert_presentable(sink: Diagnostics) -> None:
    """Every place is inside its file, every diagnostic has a remedy, and every format can be written."""
    shown = [*sink, *(item.diagnostic for item in sink.allowed)]
    for diagnostic in shown:
        assert diagnostic.message.strip(), diagnostic
        assert diagnostic.help.strip(), diagnostic
        for span in (diagnostic.span, *(label.span for label in diagnostic.labels)):
            assert_inside(span, sink)
    for style in get_args(Format):
        text = render(sink, style)
        if style in ("json", "sarif"):
            json.loads(text)
        text.encode("utf-8")
    render_allowed(sink).encode("utf-8")
    assert summary(sink)


def assert_inside(span: Span, sink: Diagnostics) -> None:
    lines = sink.sources.get(span.file)
    if lines is None:
        assert (span.line, span.column) == (1, 1), f"{span} is in a file that was never read"
        return
    assert 1 <= span.line <= len(lines), (span, len(lines))
    assert 1 <= span.column <= len(lines[span.line - 1]) + 1, (span, lines[span.line - 1])
    assert span.length >= 1, span


def predicate(text: str) -> None:
    """A predicate's text is read, and written back as the same predicate, or refused with places and remedies."""
    for allow_names in (False, True):
        parsed = parse(text, allow_names=allow_names)
        assert (parsed.predicate is None) == bool(parsed.errors)
        for problem in parsed.errors:
            assert 0 <= problem.offset <= problem.offset + problem.length <= len(text)
            assert problem.message
            assert problem.help
        if parsed.predicate is not None:
            assert parse(unparse(parsed.predicate), allow_names=allow_names).predicate == parsed.predicate
