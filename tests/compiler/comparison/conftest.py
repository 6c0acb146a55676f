"""Registrations from specs, edited, without compiling them."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from epc.compiler.comparison import Registration
from epc.compiler.diagnostics import Diagnostics, render
from epc.compiler.lower import lower
from epc.compiler.pipeline import chat_template
from epc.compiler.resolve import Experiment, resolve
from epc.compiler.surface import load

ROOT = Path(__file__).resolve().parents[3]


def _resolved(spec: Path) -> Experiment:
    sink = Diagnostics()
    surface = load(spec, spec.name, sink)
    assert surface is not None, render(sink)
    experiment = resolve(surface, sink)
    assert not sink.errors, render(sink)
    return experiment


def _registration(spec: Path) -> Registration:
    """A spec as `epc check` compares it."""
    return Registration.of_experiment(_resolved(spec), spec.name)


@pytest.fixture(scope="session")
def lock_text() -> Callable[[Path], str]:
    """The lock of a spec, which need not pass the checks."""

    def run(spec: Path) -> str:
        experiment = _resolved(spec)
        return lower(experiment, template_text=chat_template(experiment), spec_folder="../../specs").lock_text

    return run


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """specs/ without somebody's external files, which would be read in place of the stand-ins."""
    folder = tmp_path_factory.mktemp("sources") / "specs"
    shutil.copytree(ROOT / "specs", folder, ignore=shutil.ignore_patterns("external"))
    return folder


@pytest.fixture(scope="session")
def unedited(sources: Path) -> Callable[[str], Registration]:
    """A spec of specs/ as it is, by name."""
    return functools.cache(lambda name: _registration(sources / f"{name}.yaml"))


@pytest.fixture
def edited_copy(sources: Path, tmp_path: Path) -> Callable[..., Registration]:
    """A spec of specs/ with pieces of its files replaced: (file, old, new), every occurrence."""

    def run(name: str, *edits: tuple[str, str, str]) -> Registration:
        folder = tmp_path / "specs"
        shutil.copytree(sources, folder)
        for file, old, new in edits:
            text = (folder / file).read_text(encoding="utf-8")
            assert old in text, f"{file} no longer contains {old!r}"
            (folder / file).write_text(text.replace(old, new), encoding="utf-8")
        return _registration(folder / f"{name}.yaml")

    return run
