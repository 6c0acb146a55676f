"""Copies of specs that a test may break, and the compiler run on them."""

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


def edit(file: Path, *edits: tuple[str, str]) -> None:
    """Replace pieces of a text once each; every `old` must be there."""
    text = file.read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text, f"{file.name} no longer contains {old!r}"
        text = text.replace(old, new, 1)
    file.write_text(text, encoding="utf-8")


@pytest.fixture
def edited(specs: Path, compile_spec: Callable[..., Compiled]) -> Callable[..., Compiled]:
    """Compile the quickstart with pieces of its text replaced."""

    def run(*edits: tuple[str, str]) -> Compiled:
        edit(specs / "quickstart.yaml", *edits)
        return compile_spec(specs / "quickstart.yaml")

    return run


@pytest.fixture
def small(tmp_path: Path, compile_spec: Callable[..., Compiled]) -> Callable[..., Compiled]:
    """Compile a fresh copy of a spec of this folder, by name, with pieces replaced: (old, new) of the spec, (file, old, new) of another."""

    def run(name: str, *edits: tuple[str, ...]) -> Compiled:
        folder = tmp_path / "small" / "specs"
        shutil.rmtree(folder.parent, ignore_errors=True)
        shutil.copytree(Path(__file__).parent / "specs", folder)
        for file, old, new in (one if len(one) == 3 else (f"{name}.yaml", *one) for one in edits):
            edit(folder / file, (old, new))
        return compile_spec(folder / f"{name}.yaml")

    return run
