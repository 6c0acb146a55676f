"""The sound spec of `epc explain`, with a fragment laid over it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.source import parse

BASE = Path(__file__).resolve().parents[1] / "explain"


def _merged(under: Any, over: Any) -> Any:
    """Mappings key by key; null deletes; anything else replaces."""
    if not (isinstance(under, dict) and isinstance(over, dict)):
        return over
    result = {**under, **{key: _merged(under.get(key), value) for key, value in over.items()}}
    return {key: value for key, value in result.items() if value is not None}


@pytest.fixture
def over(tmp_path: Path, compile_spec: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a copy of the base with a YAML fragment laid over it, and files (path, text) replaced."""

    def run(fragment: str = "", *files: tuple[str, str]) -> Any:
        folder = tmp_path / "specs"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(BASE, folder)
        spec = folder / "base.yaml"
        sink = Diagnostics()
        data = parse(spec.read_text(encoding="utf-8"), "base.yaml", sink).data
        if fragment:
            data = _merged(data, parse(fragment, "fragment", sink).data)
        assert not list(sink), "the fragment is no YAML"
        spec.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=1000), encoding="utf-8")
        for path, text in files:
            (folder / path).write_text(text, encoding="utf-8")
        return compile_spec(spec)

    return run
