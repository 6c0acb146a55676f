"""Fixtures: the small design of tests.support.simulated and its sizes."""

from __future__ import annotations

import pytest
from tests.support.simulated import small_design, small_sizes

from epc.compiler.contract.manifest import Design
from epc.runtime.simulate.model import Size


@pytest.fixture
def design() -> Design:
    return small_design()


@pytest.fixture
def sizes(design: Design) -> dict[str, Size]:
    return small_sizes(design)
