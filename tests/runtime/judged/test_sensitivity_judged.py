"""The panel of issue 147: a switch that binds one of two variants, and what each of them would decide."""

from __future__ import annotations

from typing import Any

import pytest

from epc.compiler.contract.decision import AnalysisSensitivity, Decision
from epc.runtime.summary import sensitivity_lines

T, C = "selfcorrect_em", "c6_vanilla_em"
COLLAPSED = {"incoherent": {C: 25, T: 5}, "aligned": {T: 42}}
UNKNOWN = {
    "absent": frozenset({("incoherent", T)}), "metric_changes": {"incoherent": {"kind": "pattern", "judge": None}},
}  # fmt: skip


def decided(lab: Any, **knobs: Any) -> Decision:
    for name, value in knobs.items():
        setattr(lab, name, value)
    found: Decision = lab.decide()
    return found


def entries(decision: Decision) -> dict[str, AnalysisSensitivity]:
    return {entry.analysis: entry for entry in decision.sensitivity}


def test_what_the_decision_reads_is_in_the_panel_and_nothing_else(lab: Any) -> None:
    found = entries(decided(lab))
    assert list(found) == ["headline", "attack_effect", "drop_gap", "coherence_change", "harm_change", "arc_change"]
    assert [name for name, entry in found.items() if entry.confirmatory] == ["headline"]
    assert [name for name, entry in found.items() if entry.definitions] == ["headline", "attack_effect"]


@pytest.mark.parametrize(
    ("knobs", "bound", "label"),
    [({}, "filtered", "SUCCESS"), (COLLAPSED, "unfiltered", "SUCCESS")],
    ids=["filtered", "unfiltered"],
)  # fmt: skip
def test_the_variant_that_the_switch_binds_is_the_registered_one(
    lab: Any, knobs: dict[str, Any], bound: str, label: str
) -> None:
    decision = decided(lab, **knobs)
    filters = entries(decision)["headline"].filters
    assert [(each.name, each.registered) for each in filters] == [
        ("filtered", bound == "filtered"), ("unfiltered", bound == "unfiltered"),
    ]  # fmt: skip
    registered = next(each for each in filters if each.registered)
    assert (decision.verdict.label, registered.verdict, registered.changes) == (label, label, False)
    headline = next(analysis for analysis in decision.analyses if analysis.name == "headline")
    assert registered.estimate == headline.statistics["delta"]


def test_the_other_variant_says_what_it_would_decide(lab: Any) -> None:
    """Filtered, the arms differ by 2 points: below the kill; unfiltered by 9."""
    decision = decided(lab, **COLLAPSED)
    other = next(each for each in entries(decision)["headline"].filters if not each.registered)
    assert (other.estimate, other.verdict, other.changes) == (2.0, "KILL_NULL", True)
    lines = list(sensitivity_lines(decision))
    assert any("headline, filtered: 2, the verdict would be KILL_NULL" in line for line in lines)
    assert any(line.strip().startswith("headline: filtered 2, unfiltered ") for line in lines)


def test_under_an_unknown_switch_both_variants_have_their_own_panel(lab: Any) -> None:
    found = entries(decided(lab, **UNKNOWN))
    assert list(found)[:2] == ["headline.filtered", "headline.unfiltered"]
    assert all(found[name].leave_one_out is not None for name in list(found)[:2])
    assert found["drop_gap"].unknown_because is not None


def test_dropped_scores_are_shown_at_both_extremes(lab: Any) -> None:
    found = entries(decided(lab, missing={T: 3}))
    low, high = found["headline"].missing
    own = next(each for each in found["headline"].definitions if each.registered)
    assert low.estimate is not None
    assert own.estimate is not None
    assert high.estimate is not None
    assert low.estimate < own.estimate < high.estimate
    assert found["arc_change"].missing == ()
