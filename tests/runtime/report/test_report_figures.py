from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support import report_cases

from epc.compiler.contract.decision import AnalysisResult, Threshold
from epc.compiler.contract.manifest import Contrast, Metric
from epc.runtime.measurements import group
from epc.runtime.report.figures import axis, distribution, forest, paired, units
from epc.runtime.report.figures.power import power_curve
from epc.runtime.report.sections.sources import Sources

GATES = st.builds(
    Threshold,
    gate=st.text("abcdefgh_", min_size=1, max_size=60),
    role=st.sampled_from(["success", "kill", "guardrail", "validity", "prediction", "follow_up"]),
    statistic=st.sampled_from(["delta", "lower", "upper", "reject", "p"]),
    operator=st.sampled_from(["<", ">="]),
    constant=st.floats(-1, 1),
)


def analysis(
    thresholds: tuple[Threshold, ...], statistics: dict[str, float | None], per_seed: dict[str, float]
) -> AnalysisResult:
    return AnalysisResult(
        name="headline", metric="reset_rate", contrast=Contrast(treatment="b", control="a"), arm=None, method="paired_t",
        definition="", side="greater", alpha=0.025, confirmatory=True, better="higher", scale=(0.0, 1.0), unit="prompt",
        n_units=24, n_samples=192, n_missing=0, n_units_missing=0, statistics=statistics, ci_level=0.95, per_seed=per_seed,
        thresholds=thresholds,
    )  # fmt: skip


@given(
    thresholds=st.lists(GATES, max_size=8).map(tuple),
    ends=st.lists(st.floats(-1, 1), min_size=5, max_size=5).map(sorted),
    known=st.booleans(),
    seeds=st.dictionaries(st.integers(0, 99).map(str), st.floats(-1, 1), max_size=3),
)
def test_a_forest_row_stays_inside_and_its_labels_apart(
    thresholds: tuple[Threshold, ...], ends: list[float], known: bool, seeds: dict[str, float]
) -> None:
    names = ("ci_low", "lower", "delta", "upper", "ci_high")
    values = dict(zip(names, ends if known else [None] * 5, strict=True))
    (panel,) = forest.forest([analysis(thresholds, values, seeds)])
    (row,) = panel.rows
    assert sorted(line.lane for line in row.lines) == list(range(len(row.lines)))
    assert {line.title.split()[0] for line in row.lines}.isdisjoint({"follow_up"})
    for line in row.lines:
        assert len(line.label) <= axis.LONGEST_LABEL + 8
        width = min(axis.LONGEST_LABEL, len(line.label)) * axis.CHARACTER
        at = line.x / 100 * axis.NARROW
        left = {"start": at, "middle": at - width / 2, "end": at - width}[line.anchor]
        assert left >= -axis.CHARACTER * 8
        assert left + width <= axis.NARROW + axis.CHARACTER * 8
    drawn = [line.x for line in row.lines] + [x for x in (row.point, row.low, row.high, panel.zero) if x is not None]
    drawn += [bound.x for bound in row.bounds] + [tick.x for tick in row.seeds]
    assert len(row.seeds) == len(seeds)
    assert all(-0.01 <= x <= 100.01 for x in drawn)
    assert len(row.bounds) == (len({t.statistic for t in thresholds} & {"lower", "upper"}) if known else 0)
    assert row.height >= row.middle + 10 > row.top


@given(low=st.floats(-1e4, 1e4), span=st.floats(1e-3, 1e4))
def test_ticks_are_few_round_and_inside(low: float, span: float) -> None:
    high = low + span
    ticks = axis.round_ticks(low, high, (low, high))
    assert 1 <= len(ticks) <= 6
    assert all(-0.01 <= tick.x <= 100.01 for tick in ticks)
    assert len({tick.label for tick in ticks}) == len(ticks)


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]), (0.0, 100.0, ["0", "20", "40", "60", "80", "100"]),
        (-0.12, 0.53, ["0.0", "0.2", "0.4"]), (0.0, 0.05, ["0.00", "0.01", "0.02", "0.03", "0.04", "0.05"]),
        (-1.0, 1.0, ["−1.0", "−0.5", "0.0", "0.5", "1.0"]),
    ],
)  # fmt: skip
def test_ticks_of_the_usual_scales(low: float, high: float, labels: list[str]) -> None:
    assert [tick.label for tick in axis.round_ticks(low, high, (low, high))] == labels


def test_scales_do_not_share_an_axis(cases: dict[str, Any]) -> None:
    analyses = list(cases["success"].decision.analyses)
    analyses[1] = analyses[1].model_copy(update={"scale": (0.0, 100.0)})
    panels = forest.forest(analyses)
    assert [[row.name for row in panel.rows] for panel in panels] == [
        ["headline", "capability_change"], ["attack_effect"], ["base_capability"],
    ]  # fmt: skip


def test_pairs_are_the_units_of_both_arms_sorted_by_difference(cases: dict[str, Any]) -> None:
    case = cases["invalid"]
    headline, metric = case.decision.analyses[0], case.manifest.design.metrics[0]
    figure = paired.paired(
        headline, headline.contrast, metric, units.Means(case.manifest.design, group(case.measurements)).filtered
    )
    assert (figure.n, figure.n_unpaired, len(figure.marks)) == (21, 3, 21)
    assert figure.up + figure.down + figure.same == figure.n
    held = {(row.condition, row.unit): row.value for row in case.measurements if row.metric == "reset_rate"}
    differences = [held["reflex_attacked", mark.unit] - held["attacked", mark.unit] for mark in figure.marks]
    assert differences == sorted(differences)
    first = figure.marks[0]
    assert first.treatment_text.startswith(f"{held['reflex_attacked', first.unit]:.3f}")
    assert first.control_text.startswith(f"{held['attacked', first.unit]:.3f}")
    assert first.treatment == pytest.approx(100 * (1 - held["reflex_attacked", first.unit]))


def test_many_units_are_binned(cases: dict[str, Any]) -> None:
    case = cases["success"]
    metric = Metric(
        name="capability", kind="lm_eval", source="t", unit="item", scale=(0.0, 1.0), better="higher", missing="fail"
    )
    row = next(row for row in case.measurements if row.metric == "capability")
    rows = [
        row.model_copy(update={"condition": arm, "seed": seed, "unit": f"{i:05d}", "total": i % 3 % 2, "value": i % 3 % 2 + 0.0})
        for arm, seed in (("attacked", 42), ("reflex_attacked", 42))
        for i in range(4000)
    ]  # fmt: skip
    change = case.decision.analyses[2]
    figure = paired.paired(change, change.contrast, metric, units.Means(case.manifest.design, group(rows)).filtered)
    assert figure.marks == ()
    assert sum(bar.count for bar in figure.bars) == figure.n == figure.same == 4000


def test_every_scored_unit_is_in_exactly_one_bar(cases: dict[str, Any]) -> None:
    for case in (cases["success"], cases["invalid"]):
        design = case.manifest.design
        means, sources = units.Means(design, group(case.measurements)), Sources(design, case.material.inputs.stored)
        drawn = distribution.distributions(means, case.decision.arms, case.decision.analyses, sources)
        assert [figure.metric for figure in drawn] == [metric.name for metric in design.metrics]
        for figure in drawn:
            for row in figure.rows:
                scored = [
                    r for r in case.measurements
                    if (r.metric, r.condition) == (figure.metric, row.condition) and r.value is not None
                ]  # fmt: skip
                assert sum(bar.count for bar in row.bars) == len(scored)
                assert all(bar.x >= 0 and bar.x + bar.width <= 100.01 and 0 < bar.height <= 100 for bar in row.bars)
                ends = [(bar.x, bar.x + bar.width) for bar in row.bars]
                assert all(left[1] < right[0] for left, right in itertools.pairwise(ends))


@pytest.mark.parametrize(
    ("n", "denominator", "scale", "titles"),
    [
        (1, 1, (0.0, 1.0), ["0.000 (0.0%): 2 of 4 items", "1.000 (100.0%): 2 of 4 items"]),
        (4, 1, (0.0, 1.0), ["0.000 (0.0%): 1 of 4 items", "0.250 (25.0%): 1 of 4 items", "1.000 (100.0%): 2 of 4 items"]),
        (1, 1, (0.0, 100.0), ["0.00 to 5.00: 1 of 4 items", "45.00 to 50.00: 2 of 4 items", "95.00 to 100.00: 1 of 4 items"]),
    ],
)  # fmt: skip
def test_bins_follow_the_values_a_unit_can_have(
    cases: dict[str, Any], n: int, denominator: int, scale: tuple[float, float], titles: list[str]
) -> None:
    case = cases["success"]
    totals = {1: [0, 0, 1, 1], 4: [0, 1, 4, 4]}[n] if scale[1] == 1 else [0, 47, 49, 100]
    row = case.measurements[0]
    rows = [
        row.model_copy(
            update={"metric": "capability", "unit": str(i), "n": n, "denominator": denominator, "total": total, "value": total / n}
        )
        for i, total in enumerate(totals)
    ]  # fmt: skip
    metric = case.manifest.design.metrics[2].model_copy(update={"scale": scale})
    design = case.manifest.design.model_copy(update={"metrics": (metric,)})
    (figure,) = distribution.distributions(units.Means(design, group(rows)), (), (), Sources(design, ()))
    assert [bar.title for bar in figure.rows[0].bars] == titles
    assert figure.rows[0].mean is None
    assert figure.rows[0].mean_text == "unknown: not every item is scored"


def test_power_rises_along_the_axis_and_labels_fit() -> None:
    (power,) = report_cases.simulation("0" * 64).power
    long = power.thresholds[0].model_copy(update={"gate": "a_gate_whose_name_is_much_too_long_for_a_phone"})
    beyond = long.model_copy(update={"constant": 0.9})
    curve = power_curve(power.model_copy(update={"thresholds": (*power.thresholds, long, beyond)}), (0.0, 1.0))
    assert curve is not None
    assert [line.label for line in curve.lines] == [
        "survives: delta ≥ 0.15", "a_gate_whose_name_is_much_too_lon…",
    ]  # fmt: skip
    assert [point.x for point in curve.points] == [12.5 * step for step in range(9)]
    assert (curve.points[0].reject, curve.points[8].reject) == (100.0, 0.0)
    assert (curve.mde, curve.asked, curve.asked_y) == ("+0.213 (+21.3 pp)", "80.0%", 20.0)
    assert [(s.x1, s.x2) for s in curve.reject] == [(12.5 * step, 12.5 * (step + 1)) for step in range(8)]
    assert power_curve(power.model_copy(update={"points": power.points[:1]}), (0.0, 1.0)) is None
    never = power_curve(power.model_copy(update={"mde": None}), (0.0, 1.0))
    assert never is not None
    assert never.mde == "none on the curve: power 80.0% is not reached"
