"""A pilot's rows tell how units vary: simulated runs of a known truth are the pilots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.support.simulated import ARMS, measurements_of, simulator, truth

from epc.compiler.contract.manifest import Design
from epc.runtime.simulate.model import EXTREME, Size
from epc.runtime.simulate.pilot import known_of, sizes_of


@pytest.fixture
def large(design: Design) -> Mapping[str, Size]:
    return {
        each.name: Size(units=600, samples=1) if each.name == "quiz" else Size(units=300, samples=10)
        for each in design.metrics
    }  # fmt: skip


def test_spreads_means_and_missing_rates_come_back(design: Design, large: Mapping[str, Size]) -> None:
    changes: dict[str, Any] = {
        "score": {"missing": 0.05, "correlation": 0.6}, "rate": {"unit_sd": 0.2, "correlation": 0.4},
        "quiz": {"means": dict.fromkeys(ARMS, 0.5)}, "incoherent": {"means": dict.fromkeys(ARMS, 0.0), "unit_sd": 0.0},
    }  # fmt: skip
    of = truth(**changes)
    measured = measurements_of(simulator(design, large, experiments=1), of, 0)
    known = known_of(design, measured, EXTREME)
    assert known.spreads["rate"].unit_sd == pytest.approx(0.2, abs=0.03)
    assert known.spreads["rate"].correlation == pytest.approx(0.4, abs=0.12)
    assert known.spreads["score"].unit_sd == pytest.approx(15, abs=1.5)
    assert known.spreads["score"].correlation == pytest.approx(0.6, abs=0.12)
    assert known.spreads["score"].missing == pytest.approx(0.05, abs=0.01)
    assert known.spreads["rate"].missing == 0
    # of single items only the product is known: a covariance of 0.9 x 0.4^2
    quiz = known.spreads["quiz"]
    assert quiz.correlation * quiz.unit_sd**2 == pytest.approx(0.9 * 0.16, abs=0.04)
    assert known.means["score", "attacked"] == pytest.approx(45, abs=3)
    assert sizes_of(design, measured)["rate"] == Size(units=300, samples=10)
    assert sizes_of(design, measured)["quiz"] == Size(units=600, samples=1)
