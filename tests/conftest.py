"""The order of the tests: files that run whole experiments first, so that no worker ends alone with one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parent
LONG = (TESTS / "specs", TESTS / "runtime/preflight", TESTS / "runtime/steps")


def rank(path: Path) -> int:
    """0 for the tests of the whole, 1 for those that train, sample and start engines, 2 for all others."""
    if path.parent == TESTS:
        return 0
    return 1 if path.parent in LONG else 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank(item.path))
