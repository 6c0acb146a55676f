"""Simulated experiments, decided at once and one by one: the same verdict, the same p to the bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.simulated import decided, simulator, truth

from epc.compiler.contract.manifest import Design, Truth
from epc.runtime.simulate.model import Size

CHECKED = 6
"""Experiments of each truth that the engine decides too."""

TRUTHS: dict[str, dict[str, Any]] = {
    "as planned": {},
    "nothing filtered": {"incoherent": {"means": {"base": 0.0, "attacked": 0.0, "treated": 0.0}, "unit_sd": 0.0}},
    "most filtered, some units emptied": {
        "incoherent": {"means": {"base": 0.5, "attacked": 0.6, "treated": 0.8}, "unit_sd": 0.3}
    },
    "some scores missing": {"score": {"missing": 0.02}, "incoherent": {"missing": 0.02}},
    "more missing than the judge may": {"score": {"missing": 0.2}},
    "no spread": {"rate": {"means": {"base": 0.0, "attacked": 0.0, "treated": 0.0}, "unit_sd": 0.0}},
    "nearly no spread": {"rate": {"means": {"base": 0.0, "attacked": 0.01, "treated": 0.02}, "unit_sd": 0.05}},
    "a rate with holes": {"rate": {"missing": 0.01}},
}


@pytest.mark.parametrize("name", TRUTHS)
def test_the_real_engine_says_the_same(
    design: Design, sizes: Mapping[str, Size], tmp_path: Path, name: str
) -> None:  # fmt: skip
    _agree(design, sizes, truth(**TRUTHS[name]), tmp_path)


def _agree(design: Design, sizes: Mapping[str, Size], of: Truth, folder: Path) -> None:
    made = simulator(design, sizes)
    simulated = made.simulate(of)
    results = simulated.panel.results
    for experiment in range(CHECKED):
        decision = decided(folder, made, of, experiment)
        assert simulated.labels[experiment] == decision.verdict.label, decision.verdict.because
        by_name = {analysis.name: analysis for analysis in decision.analyses}
        for analysis, found in results.items():
            for statistic, values in found.items():
                expected = by_name[analysis].statistics.get(statistic)
                where = f"{analysis}.{statistic} of experiment {experiment}"
                if expected is None:
                    assert math.isnan(values[experiment]), where
                elif statistic in ("p", "reject"):
                    assert values[experiment] == expected, where
                else:
                    assert values[experiment] == pytest.approx(expected, rel=1e-11, abs=1e-11), where
        gates = {gate.name: gate.truth for gate in decision.gates}
        for gate in simulated.panel.gates:
            truth_of = {0: False, 1: True, 2: None}[int(simulated.panel.truths(gate)[experiment])]
            assert truth_of is gates[gate.name], gate.name
