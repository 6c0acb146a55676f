"""Issue 147 as a constructed bundle (tests.support.lab147)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.lab147 import Lab147, contrast, gate, rule


@pytest.fixture
def lab(tmp_path: Path) -> Lab147:
    return Lab147(folder=tmp_path)


@pytest.fixture
def declare() -> Any:
    """`gate`, `rule` and `contrast` for tests that extend the design."""
    return type(
        "Declare", (), {"gate": staticmethod(gate), "rule": staticmethod(rule), "contrast": staticmethod(contrast)}
    )
