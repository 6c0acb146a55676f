"""Simulated experiments, decided at once and one by one: the same verdict, the same p to the bit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.simulated import analysis, decided, every_statistic, gate, simulator, truth

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


TABLES: dict[str, dict[str, Any]] = {
    **{
        f"mcnemar_{p}_{side}": {"method": "mcnemar", "p": p, "side": side}
        for side in ("greater", "less", "two_sided")
        for p in ("exact", "corrected")
    },
    **{f"newcombe_{side}": {"method": "newcombe_paired", "side": side} for side in ("greater", "less", "two_sided")},
}
"""Of one unit's 0 or 1 in each arm, so with one training seed."""
OTHERS: dict[str, dict[str, Any]] = {
    "tost": {"method": "tost", "side": "two_sided", "margin": 9.0},
    "tost_narrow": {"method": "tost", "side": "two_sided", "margin": 2.0, "interval": 0.95},
    "t_margin": {"method": "paired_t", "side": "greater", "margin": 3.0},
    **{f"sign_test_{side}": {"method": "sign_test", "side": side} for side in ("greater", "less", "two_sided")},
}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"quiz": {"means": dict.fromkeys(("base", "attacked", "treated"), 1.0), "unit_sd": 0.0}},  # nobody differs
        {"score_all": {"missing": 0.02}},
        {"score_all": {"means": dict.fromkeys(("base", "attacked", "treated"), 50), "unit_sd": 0.0}},
    ],
    ids=["as planned", "no discordant pair", "some missing", "no effect"],
)
def test_tables_signs_and_margins_too(sizes: Mapping[str, Size], design: Design, tmp_path: Path, changes: Any) -> None:
    analyses = [
        analysis(name, metric, **{"p": None, **more})
        for metric, methods in (("quiz", TABLES), ("score_all", OTHERS))
        for name, more in methods.items()
    ]
    gates = [gate(f"reads_{each.name}", "prediction", every_statistic(each.name)) for each in analyses]
    conditions = [each.model_copy(update={"seeds": each.seeds[:1]}) for each in design.conditions]
    wider = design.model_copy(
        update={
            "analyses": (*design.analyses, *analyses), "gates": (*design.gates, *gates), "conditions": tuple(conditions), "seeds": (1,),
        }
    )  # fmt: skip
    simulated = _agree(wider, sizes, truth(**changes), tmp_path)
    for each in analyses:
        known = [not math.isnan(p) for p in simulated[each.name]["p"]]
        assert all(known), each.name


def _agree(
    design: Design, sizes: Mapping[str, Size], of: Truth, folder: Path
) -> Mapping[str, Mapping[str, NDArray[np.float64]]]:
    """The simulated statistics, once those of the first experiments are the engine's."""
    made = simulator(design, sizes)
    simulated = made.simulate(of)
    results = simulated.panel.results
    for experiment in range(CHECKED):
        decision = decided(folder, made, of, experiment)
        assert simulated.labels[experiment] == decision.verdict.label, decision.verdict.because
        by_name = {each.name: each for each in decision.analyses}
        for name, found in results.items():
            for statistic, values in found.items():
                expected = by_name[name].statistics.get(statistic)
                where = f"{name}.{statistic} of experiment {experiment}"
                if expected is None:
                    assert math.isnan(values[experiment]), where
                elif statistic in ("p", "reject"):
                    assert values[experiment] == expected, where
                else:
                    assert values[experiment] == pytest.approx(expected, rel=1e-11, abs=1e-11), where
        gates = {each.name: each.truth for each in decision.gates}
        for each in simulated.panel.gates:
            truth_of = {0: False, 1: True, 2: None}[int(simulated.panel.truths(each)[experiment])]
            assert truth_of is gates[each.name], each.name
    return results
