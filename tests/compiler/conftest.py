"""A copy of the quickstart that a test may break, and the compiler run on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from epc.compiler import pipeline
from epc.compiler.diagnostics import Diagnostics, render
from epc.compiler.lower import Plan

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Compiled:
    sink: Diagnostics
    plan: Plan | None
    files: dict[str, str]

    @property
    def codes(self) -> list[str]:
        return [diagnostic.code for diagnostic in self.sink]

    @property
    def text(self) -> str:
        return render(self.sink)


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    """A private copy of specs/."""
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    return tmp_path / "specs"


@pytest.fixture
def compile_spec() -> Callable[..., Compiled]:
    """Compile a spec file in memory."""

    def run(spec: Path, file: str | None = None) -> Compiled:
        sink = Diagnostics()
        layout = pipeline.Layout.of(spec)
        experiment = pipeline.check(spec, file or f"specs/{spec.name}", sink)
        plan = None if experiment is None else pipeline.plan(experiment, layout, sink)
        files = {} if plan is None else pipeline.bundle(plan, layout)
        return Compiled(sink, plan, files)

    return run


@pytest.fixture
def edited(specs: Path, compile_spec: Callable[..., Compiled]) -> Callable[..., Compiled]:
    """Compile the quickstart with pieces of its text replaced; every `old` must be there."""

    def run(*edits: tuple[str, str]) -> Compiled:
        spec = specs / "quickstart.yaml"
        text = spec.read_text(encoding="utf-8")
        for old, new in edits:
            assert old in text, f"the quickstart no longer contains {old!r}"
            text = text.replace(old, new, 1)
        spec.write_text(text, encoding="utf-8")
        return compile_spec(spec)

    return run
