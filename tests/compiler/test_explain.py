"""Every code is explained, and its example and its fix do what they say."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import epc.compiler
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.explain import explanations, sections
from epc.compiler.source import parse

BASE = Path(__file__).parent / "explain"
COMPILER = Path(epc.compiler.__path__[0])
FILE = re.compile(r"^--- (?P<path>\S+)(?: \((?P<encoding>[a-z0-9-]+)\))?$", re.MULTILINE)


def reported() -> list[str]:
    """Every code that the compiler's source can report."""
    literal = {code for path in COMPILER.rglob("*.py") for code in re.findall(r'"([EW]\d{4})"', path.read_text())}
    from epc.compiler.checks.verdict_table import CODES

    return sorted(
        literal | {f"{letter}{number}" for number, _ in CODES.values() for letter in "EW"} & set(explanations())
    )


def laid_over(base: Any, fragment: Any) -> Any:
    """Mappings merged key by key; null deletes; anything else replaces."""
    if not (isinstance(base, dict) and isinstance(fragment, dict)):
        return fragment
    merged = dict(base)
    for key, value in fragment.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = laid_over(merged.get(key), value)
    return merged


def write(folder: Path, block: str) -> Path:
    """A copy of the base with a block of an explanation laid over it."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(BASE, folder)
    spec = folder / "base.yaml"
    fragment, *files = re.split(r"^(?=--- \S+)", block, flags=re.MULTILINE)
    sink = Diagnostics()
    data = parse(spec.read_text(encoding="utf-8"), "base.yaml", sink).data
    if fragment.strip():
        over = parse(fragment, "example", sink).data
        assert over is not None, f"the fragment cannot be read:\n{fragment}"
        data = laid_over(data, over)
    spec.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=200), encoding="utf-8")
    for text in files:
        heading, _, body = text.partition("\n")
        found = FILE.match(heading)
        assert found is not None, f"not the heading of a file: {heading}"
        target = spec if found["path"] == "spec" else folder / found["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((body.rstrip("\n") + "\n").encode(found["encoding"] or "utf-8"))
    return spec


def test_the_base_is_sound(tmp_path: Path, compile_spec: Callable[..., Any]) -> None:
    result = compile_spec(write(tmp_path / "specs", ""))
    assert not result.codes, result.text


def test_every_code_is_explained_and_every_explanation_is_of_a_code() -> None:
    assert sorted(explanations()) == reported()


@pytest.mark.parametrize("code", sorted(set(reported()) | set(explanations())))
def test_example_and_fix(
    code: str, tmp_path: Path, compile_spec: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if code == "W0914":  # reported where the solver is not installed
        monkeypatch.setitem(sys.modules, "z3", None)
        monkeypatch.delitem(sys.modules, "epc.compiler.table.solver", raising=False)
    assert code in explanations(), f"{code} has no explanation"
    found = explanations()[code]
    assert found.what, f"{code} does not say what it reports"
    assert len(found.why) >= 40, f"{code} does not say why"
    assert found.example, f"{code} has no example"
    assert found.fix, f"{code} has no fix"
    refused = compile_spec(write(tmp_path / "specs", found.example))
    assert code in refused.codes, f"the example does not give {code}:\n{refused.text}"
    fixed = compile_spec(write(tmp_path / "specs", found.fix))
    assert code not in fixed.codes, f"the fix still gives {code}:\n{fixed.text}"


def test_a_section_and_its_parts() -> None:
    docstring = """Summary.

E0001, W0001: a thing is wrong
and it shows
Why: because
it is.
Example:
    a: 1   # so
    b:
      - 2
Fix:
    a: 2
    --- file.txt
    text

E0002: another
"""
    first, second = sections(docstring)
    assert (first.codes, first.what, first.why) == (
        ("E0001", "W0001"),
        "a thing is wrong and it shows",
        "because it is.",
    )
    assert first.example == "a: 1   # so\nb:\n  - 2"
    assert first.fix == "a: 2\n--- file.txt\ntext"
    assert (second.what, second.why, second.example, second.fix) == ("another", "", "", "")
