"""The report of issue 147: judged scores on 0 to 100, rates beside them, a switch, and what a judge left out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.decision import Decision
from epc.runtime import report
from epc.runtime.decide import decide
from epc.runtime.report.figures.forest import drawn
from epc.runtime.report.files import material
from epc.runtime.report.view import View, build

T, C = "selfcorrect_em", "c6_vanilla_em"
COLLAPSED = {"incoherent": {C: 25, T: 5}, "missing": {T: 3}}
UNKNOWN = {
    "absent": frozenset({("incoherent", T)}), "metric_changes": {"incoherent": {"kind": "pattern", "judge": None}},
}  # fmt: skip


def set_knobs(lab: Any, knobs: dict[str, Any]) -> None:
    for name, value in knobs.items():
        setattr(lab, name, value)


def viewed(lab: Any, **knobs: Any) -> tuple[View, Decision]:
    set_knobs(lab, knobs)
    bundle = lab.write()
    decision = decide(bundle)
    return build(material(bundle, decision)), decision


def written(lab: Any, **knobs: Any) -> dict[str, str]:
    set_knobs(lab, knobs)
    bundle: Path = lab.write()
    return {kind: path.read_text(encoding="utf-8") for kind, path in report.write(bundle, decide(bundle)).items()}


def section(md: str, heading: str) -> str:
    return md.partition(f"\n## {heading}")[2].partition("\n## ")[0]


def rows_of(table: str, first: str) -> list[list[str]]:
    lines = [line for line in table.splitlines() if line.startswith(f"| `{first}`")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


# ---------------------------------------------------------------------- switch


def test_both_variants_are_in_both_files_and_the_bound_one_is_marked(lab: Any) -> None:
    files = written(lab, **COLLAPSED)
    for text in files.values():
        assert "headline.filtered" in text
        assert "headline.unfiltered" in text
        assert "Caveat: headline is computed on unfiltered scores" in text
    variants = section(files["md"], "Filtered or unfiltered: `headline`")
    (filtered,) = rows_of(variants, "headline.filtered")
    (unfiltered,) = rows_of(variants, "headline.unfiltered")
    assert filtered[1:5] == [
        "printed only",
        "48 prompts",
        "3,357",
        f"{T} 240 of 2,397 (10.0%), {C} 1,200 of 2,400 (50.0%)",
    ]
    assert unfiltered[1:5] == ["**decides**", "48 prompts", "4,797", "nothing"]
    assert (filtered[7], unfiltered[7]) == ("**+20.00**", "**+26.00**")
    assert "The switch is true, so headline is its unfiltered variant." in variants


def test_the_sentence_of_a_switch_says_what_the_other_variant_would_decide(lab: Any) -> None:
    view, _ = viewed(lab, incoherent={C: 25}, aligned={T: 42})
    assert view.switches[0].sentence.endswith("The other variant would make the verdict KILL_NULL.")


def test_a_switch_says_which_scores_it_binds(lab: Any) -> None:
    for knobs, word in ((COLLAPSED, "UNFILTERED"), ({"incoherent": {}, "missing": {}}, "FILTERED")):
        view, _ = viewed(type(lab)(folder=lab.folder / word), **knobs)
        switch = next(gate for gate in view.gates if gate.name == "drop_rates_differ")
        assert (switch.word, switch.role) == (word, "switch")
        assert [atom.threshold for atom in switch.atoms] == ["> 0.2", "< −0.2"]


def test_an_unknown_switch_shows_both_variants_wherever_the_headline_stood(lab: Any) -> None:
    view, _ = viewed(lab, **UNKNOWN)
    assert [variant.state for variant in view.switches[0].variants] == ["may decide", "may decide"]
    forest = [row.name for panel in view.forest for row in panel.rows]
    assert forest[:2] == ["headline.filtered", "headline.unfiltered"]
    assert "headline" not in forest
    assert [(item.figure.analysis, item.figure.scores) for item in view.paired] == [
        ("headline.filtered", "only where coherent >= 50"),
        ("headline.unfiltered", "every scored one, with or without coherent >= 50"),
    ]
    raised = next(gate for gate in view.gates if gate.name == "raised")
    assert {atom.statistic for atom in raised.atoms} == {
        f"headline.{variant}.{statistic}" for variant in ("filtered", "unfiltered") for statistic in ("reject", "delta")
    }
    assert all(atom.observed.startswith(("rejected", "+20.00")) for atom in raised.atoms)


@pytest.mark.parametrize(("knobs", "other"), [({}, "headline.unfiltered"), (COLLAPSED, "headline.filtered")])
def test_the_forest_draws_the_bound_variant_once(lab: Any, knobs: dict[str, Any], other: str) -> None:
    view, decision = viewed(lab, **knobs)
    assert [analysis.name for analysis in drawn(decision.analyses)][:2] == ["headline", other]
    assert [analysis.name for analysis in view.analyses][:2] == ["headline", "attack_effect"]


def test_unit_figures_show_the_scores_that_decide(lab: Any) -> None:
    view, _ = viewed(lab, **COLLAPSED)
    paired = view.paired[0].figure
    assert len(view.paired) == 1
    assert paired.scores == "every scored one, with or without coherent >= 50"
    assert (paired.mean_control_text, paired.mean_treatment_text) == ("30.00", "56.00")
    assert paired.marks[0].control_text == "32.00"  # (25 x 44 + 25 x 20) / 50
    seen = [(figure.metric, figure.scores) for figure in view.distributions]
    assert seen[:3] == [
        ("alignment", "only where coherent >= 50"),
        ("alignment", "every scored one, with or without coherent >= 50"),
        ("coherence", ""),
    ]
    means = {row.condition: row.mean_text for row in view.distributions[1].rows}
    assert (means[C], means[T]) == ("30.00", "56.00")


# ---------------------------------------------------------------------- scales


def test_scores_are_points_and_rates_are_percentages(lab: Any) -> None:
    view, _ = viewed(lab, **COLLAPSED, harmful={T: 48})
    observed = {atom.statistic: atom.observed for gate in view.gates for atom in gate.atoms}
    assert observed["headline.delta"] == "+26.00"
    assert observed["attack_effect.upper"].startswith("−")
    assert "%" not in observed["attack_effect.upper"]
    assert observed["harm_change.delta"] == "+0.050 (+5.0 pp)"
    assert observed["reset_level.value"].endswith("%)")
    arms = {(arm.metric, arm.condition): arm for arm in view.arms}
    assert (arms["alignment", C].mean, arms["alignment", C].unfiltered) == ("40.00", "30.00")
    assert (arms["harm", T].mean, arms["harm", T].unfiltered) == ("0.050 (5.0%)", "")


def test_a_value_beside_its_threshold_is_printed_as_it_compares(lab: Any) -> None:
    """4.9992 is not printed as 5.00 beside the 5 that it fails."""
    lower = {"total": 2448, "value": 48.96}  # of 2,450
    view, decision = viewed(lab, aligned={T: 45}, edit={("alignment", T, "all", "prompt01"): lower})
    delta = next(a for a in decision.analyses if a.name == "headline").statistics["delta"]
    assert delta is not None
    assert 4.99 < delta < 5
    dead = next(gate for gate in view.gates if gate.name == "no_effect")
    assert float(dead.atoms[0].observed.removeprefix("+")) < 5


def test_axes_cover_scale_and_thresholds(lab: Any) -> None:
    view, _ = viewed(lab)
    headings = [panel.heading for panel in view.forest]
    assert headings == [
        "Differences, treatment − control, scale 0 to 100",
        "Differences, treatment − control, scale 0 to 1",
        "Single arms, scale 0 to 1",
    ]
    for panel in view.forest:
        for row in panel.rows:
            places = [line.x for line in row.lines] + [x for x in (row.point, row.low, row.high) if x is not None]
            assert all(0 <= place <= 100 for place in places)
    assert [line.label for line in view.forest[0].rows[0].lines] == ["no_effect: delta < 5", "raised: delta ≥ 5"]
    assert [tick.label for tick in view.paired[0].figure.ticks] == ["0", "20", "40", "60", "80", "100"]
    assert [tick.label for tick in view.distributions[0].ticks] == ["0", "20", "40", "60", "80", "100"]


def test_subsets_are_named_in_every_table(lab: Any) -> None:
    files = written(lab)
    assert f"{T} − {C}, on betley_8" in files["html"]
    assert rows_of(section(files["md"], "Analyses"), "betley")[0][3] == "8 prompts"


# ---------------------------------------------------------- missing and dropped


def test_missing_and_drop_rates_stand_by_arm(lab: Any) -> None:
    table = section(written(lab, **COLLAPSED)["md"], "Missing data")
    alignment = {row[0]: row[2:7] for row in rows_of(table, T) + rows_of(table, C) if row[1] == "`alignment`"}
    assert alignment[f"`{T}`"] == ["48", "0", "2,400", "3 (0.1%)", "240 (10.0%)"]
    assert alignment[f"`{C}`"] == ["48", "0", "2,400", "0", "1,200 (50.0%)"]
    harm = next(row for row in rows_of(table, T) if row[1] == "`harm`")
    assert harm[2:7] == ["48", "0", "960", "0", "no filter"]


def test_emptied_prompts_are_told_from_missing_ones(lab: Any) -> None:
    changes = {"n": 0, "n_filtered": 50, "total": 0, "value": None}
    view, _ = viewed(lab, edit={("alignment", T, "all", "prompt07"): changes})
    assert view.analyses[0].units == "47 prompts, 1 prompt emptied by the filter"
    row = next(row for row in view.distributions[0].rows if row.condition == T)
    assert row.units == "47 prompts, 1 with nothing left by the filter"


def test_outcomes_of_a_judge_stand_by_arm_and_not_among_the_facts(lab: Any) -> None:
    outcomes = {f"{T}-s42": {"scored": 190, "judge_refused": 4, "api_error": 6}, f"{C}-s42": {"scored": 200}}
    facts = {"judge-alignment": {"outcomes": outcomes, "calls": 400}}
    view, _ = viewed(lab, facts=facts)
    (table,) = view.outcomes
    assert table.outcomes == ("scored", "judge refused", "api error")
    assert table.rows == ((f"{C}-s42", ("200", "0", "0"), "100.0%"), (f"{T}-s42", ("190", "4", "6"), "95.0%"))
    step = next(step for step in view.steps if step.id == "judge-alignment")
    assert step.facts == (("calls", "400"),)
    files = written(type(lab)(folder=lab.folder / "again", facts=facts))
    assert (
        '>How the replies of <a href="#step-judge-alignment"><code>judge-alignment</code></a> came out' in files["html"]
    )
    assert f"| `{T}-s42` | 190 | 4 | 6 | 95.0% |" in files["md"]


def test_a_judge_that_recorded_no_outcomes_has_no_table(lab: Any) -> None:
    view, _ = viewed(lab, facts={"judge-alignment": {"calls": 3}})
    assert view.outcomes == ()


@pytest.mark.parametrize("knobs", [{}, COLLAPSED, UNKNOWN], ids=["filtered", "unfiltered", "unknown"])
def test_no_cell_is_empty_and_tables_are_whole(lab: Any, knobs: dict[str, Any]) -> None:
    files = written(lab, **knobs)
    assert not re.search(r"<td[^>]*>(<span>)?\s*(</span>)?</td>", files["html"])
    assert "None" not in files["html"].partition("<body>")[2]
    width = 0
    for line in files["md"].splitlines():
        cells = len(re.split(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        if cells and width and not line.startswith("| |"):
            assert cells in (width, 4), line  # 4: the two columns of the card
        width = cells
        assert "|  |" not in line or line.startswith("| |")
