"""The cases of tests.support.report_cases, and their reports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.report_cases import CASES, Case, write_bundle

from epc.runtime.report import Report


@pytest.fixture(scope="session")
def cases() -> dict[str, Case]:
    return {name: make() for name, make in CASES.items()}


@pytest.fixture(scope="session")
def reports(cases: dict[str, Case]) -> dict[str, Report]:
    return {name: case.render() for name, case in cases.items()}


@pytest.fixture
def bundle_of(cases: dict[str, Case], tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: write_bundle(cases[name], tmp_path)
