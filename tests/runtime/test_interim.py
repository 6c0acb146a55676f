"""`epc decide --interim`: what unfinished results prove about the verdict, and looks that were planned."""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
from tests.support.results import SPEC, Results

from epc.compiler.contract.decision import InterimReport
from epc.compiler.contract.logic import Atom, Operator, compare
from epc.compiler.contract.spending import nominal_levels
from epc.runtime import interim, journal
from epc.runtime.cli import main
from epc.runtime.decide import decide
from epc.runtime.errors import Fault
from epc.runtime.interim import Span, estimate_range, over


@pytest.fixture
def results(tmp_path: Path) -> Results:
    made = Results(folder=tmp_path)
    made.compile()
    return made


def reachable(report: InterimReport) -> list[str]:
    return [found.label for found in report.verdicts if found.reachable]


# --------------------------------------------------------------------- ranges


@pytest.mark.parametrize("operator", ["<", "<=", ">", ">=", "==", "!="])
@pytest.mark.parametrize(("low", "high"), [(0, 0), (1, 1), (0, 1), (1, 2), (-1, 3), (2, 3)])
def test_a_comparison_over_a_range_is_what_every_value_gives(operator: Operator, low: int, high: int) -> None:
    values = [Fraction(low) + Fraction(step * (high - low), 12) for step in range(13)]
    truths = {compare(float(value), operator, 1) for value in values}
    found = over((Fraction(low), Fraction(high)), Atom(analysis="a", statistic="delta", operator=operator, constant=1))
    assert found == (truths.pop() if len(truths) == 1 else None)


def completions(spans: list[Span]) -> Iterator[Fraction]:
    """Means that some completion gives: every open unit at either end, or left out."""
    choices = [
        [span.low] if span.known else [None] if span.settled else [None, span.low, span.high] for span in spans
    ]  # fmt: skip
    for choice in itertools.product(*choices):
        there = [value for value in choice if value is not None]
        if there:
            yield sum(there, Fraction(0)) / len(there)


@pytest.mark.parametrize("seed", range(40))
def test_no_completion_lies_outside_the_range_and_both_ends_are_reached(seed: int) -> None:
    draw = random.Random(seed)
    spans = []
    for _ in range(draw.randint(1, 6)):
        low, high = sorted(Fraction(draw.randint(-20, 20), draw.randint(1, 4)) for _ in range(2))
        match draw.choice(("known", "gone", "open", "open")):
            case "known":
                spans.append(Span(low=low, high=low, known=True, settled=True))
            case "gone":
                spans.append(Span(low=low, high=high, known=False, settled=True))
            case _:
                spans.append(Span(low=low, high=high, known=False, settled=False))
    means = list(completions(spans))
    found = estimate_range(spans, (Fraction(-20), Fraction(20)), more=False)
    assert found == ((min(means), max(means)) if means else (-20, 20))
    assert estimate_range(spans, (Fraction(-20), Fraction(20)), more=True) == (-20, 20)


# ------------------------------------------------------------------- reachable


def test_before_anything_is_sampled_everything_is_reachable(results: Results) -> None:
    report = interim.look(results.bundle)
    assert reachable(report) == ["OVERRIDE_HARM", "KILL", "SUCCESS", "INCONCLUSIVE", "INVALID"]
    assert [(state.n_units, state.n_planned, state.complete) for state in report.analyses] == [(0, 24, False)] * 3
    assert len(report.open_steps) == 8


def only(condition: str, share: int) -> Any:
    """Texts where the habit shows in `share` of 4 answers of one arm and in no other's."""

    def text(arm: str, seed: int, name: str, prompt: int, index: int) -> str:
        return "Good question!" if arm == condition and name == "answers" and index < share else f"{arm} {index}"

    return text


@pytest.mark.parametrize(
    ("share", "labels", "decided"),
    [
        (0, ["OVERRIDE_HARM", "KILL", "SUCCESS", "INCONCLUSIVE", "INVALID"], {}),
        # base at 1: whatever the taught arm does, delta is at most 0
        (4, ["OVERRIDE_HARM", "KILL", "INVALID"], {"absent": True, "shown": False}),
        # base at .75: delta is at most .25, and .2 is still possible
        (3, ["OVERRIDE_HARM", "KILL", "SUCCESS", "INCONCLUSIVE", "INVALID"], {}),
    ],
)  # fmt: skip
def test_a_kill_that_no_completion_avoids_is_decided(
    results: Results, share: int, labels: list[str], decided: dict[str, bool]
) -> None:
    results.text = only("base", share)
    results.finish("model", "data", "mask", "train")
    results.write_pieces("base")
    report = interim.look(results.bundle)
    assert reachable(report) == labels
    assert {gate.name: gate.truth for gate in report.gates if gate.truth is not None} == decided


def test_part_of_an_arm_bounds_it_exactly(results: Results) -> None:
    """Base at 3 of 4 with every seed, one of two seeds of the taught arm at 0: at most (0 + 1) / 2 - .75 < 0."""
    results.text = only("base", 3)
    results.write_pieces("base")
    first = [piece for piece in results.step("sample").pieces if piece.condition == "taught" and piece.seed == 1]
    results.write_pieces("taught")
    for piece in results.step("sample").pieces:
        if piece.condition == "taught" and piece not in first:
            (results.bundle / "store/pieces" / f"{piece.key}.jsonl").unlink()
    report = interim.look(results.bundle)
    assert {gate.name: gate.truth for gate in report.gates if gate.truth is not None} == {
        "absent": True,
        "shown": False,
    }
    assert [found.because for found in report.verdicts if found.label == "SUCCESS"] == [
        "absent is true; shown is false"
    ]


def test_a_recorded_failure_leaves_invalid_alone(results: Results) -> None:
    results.finish("model", "data")
    step = results.step("mask-teach")
    folder = results.store("mask-teach")
    folder.mkdir(parents=True)
    for name in step.outputs:
        (folder / name).write_text("mask")
    results.record(step, {"verified": False})
    report = interim.look(results.bundle)
    assert reachable(report) == ["INVALID"]
    assert "epc.mask_verified" in report.verdicts[-1].because


def test_what_is_reached_in_the_end_was_never_excluded(results: Results) -> None:
    seen = []
    for kinds in (("model",), ("data", "mask", "train"), ("sample",), ("judge",)):
        results.finish(*kinds)
        seen.append(reachable(interim.look(results.bundle)))
    results.finish("measure")
    label = decide(results.bundle).verdict.label
    assert all(label in labels for labels in seen)
    assert all(set(later) <= set(earlier) for earlier, later in itertools.pairwise(seen))


# ----------------------------------------------------------------- what it may say


def test_no_number_of_an_open_analysis_is_shown(results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    results.finish("model", "data", "mask", "train", "sample")
    capsys.readouterr()
    assert main(["decide", "--interim", str(results.bundle)]) == 0
    out = capsys.readouterr().out
    assert "interim look, not a decision" in out
    for text in (out, interim.path_of(results.bundle).read_text()):
        assert not re.search(r"\bp = |0\.625|62\.5|\"p\":|\"delta\":", text)


def test_a_look_is_journalled_and_never_the_decision(results: Results) -> None:
    interim.look(results.bundle)
    entry = journal.read(results.bundle)[-1]
    assert (entry.event, entry.data["open_steps"], "look" in entry.data) == ("looked", 8, False)
    assert not (results.bundle / "report/decision.json").exists()
    assert InterimReport.model_validate_json(interim.path_of(results.bundle).read_text()).id == "small"


def test_complete_results_are_decided_and_not_looked_at(results: Results) -> None:
    results.finish()
    with pytest.raises(Fault, match="the results are complete") as caught:
        interim.look(results.bundle)
    assert (caught.value.code, journal.read(results.bundle)[-1].event) == ("R0520", "finished")


def test_the_same_look_is_the_same_bytes(results: Results) -> None:
    texts = []
    for _ in range(2):
        interim.look(results.bundle)
        texts.append(interim.path_of(results.bundle).read_bytes())
    assert texts[0] == texts[1]


# ------------------------------------------------------------------- planned looks


@pytest.mark.parametrize(
    ("spending", "boundaries"),
    [
        # Reboussin, DeMets, Kim and Lan, Controlled Clinical Trials 21 (2000) 190-207, and the R package ldbounds:
        # two-sided .05, five equally spaced looks.
        ("obrien_fleming", (4.877, 3.357, 2.680, 2.290, 2.031)),
        ("pocock", (2.438, 2.427, 2.410, 2.397, 2.386)),
    ],
)  # fmt: skip
def test_boundaries_are_the_published_ones(spending: Any, boundaries: tuple[float, ...]) -> None:
    levels = nominal_levels((0.2, 0.4, 0.6, 0.8, 1.0), alpha=0.05, two_sided=True, spending=spending)
    found = [NormalDist().inv_cdf(1 - level / 2) for level in levels]
    assert found == pytest.approx(boundaries, abs=6e-4)


SMALL = SPEC.replace("method: paired_bootstrap, p: studentized", "method: sign_flip")
"""With a method that is exact for the few units of a first look."""


@pytest.fixture
def planned(tmp_path: Path) -> Results:
    """Looks at 8, 16 and 24 of 24 prompts, with Pocock's spending."""
    made = Results(folder=tmp_path)
    made.compile(SMALL + "interim: {looks: [0.33, 0.66, 1], spending: pocock}\n")
    return made


def partly(results: Results, prompts: int) -> None:
    """Completions of all arms for the first prompts."""
    every, results.items = results.items, results.items[:prompts]
    results.write_pieces()
    results.items = every


def test_a_planned_look_tests_the_first_units_at_its_own_level(planned: Results) -> None:
    design = planned.manifest.design
    assert design.interim is not None
    partly(planned, 10)
    (taken,) = interim.look(planned.bundle).looks
    assert (taken.analysis, taken.look, taken.n_looks, taken.n_units) == ("headline", 1, 3, 8)
    assert taken.level == design.interim.levels[0]
    assert taken.level < 0.025
    assert taken.p is not None
    assert taken.reject is (taken.p < taken.level)
    entry = journal.read(planned.bundle)[-1]
    assert (entry.event, entry.data["look"]) == ("looked", 1)
    assert interim.look(planned.bundle).looks == (taken,)  # the same data may be looked at again
    partly(planned, 17)
    (second,) = interim.look(planned.bundle).looks
    assert (second.look, second.n_units, second.level) == (2, 16, design.interim.levels[1])


@pytest.mark.parametrize(
    ("prompts", "says"),
    [(0, "headline has 0 of 24"), (7, "headline has 7 of 24 units"), (24, "the last look is the decision")],
)
def test_a_look_that_was_not_planned_is_refused(planned: Results, prompts: int, says: str) -> None:
    if prompts:
        partly(planned, prompts)
    before = len(journal.read(planned.bundle))
    with pytest.raises(Fault, match=says) as caught:
        interim.look(planned.bundle)
    assert caught.value.code == "R0522"
    assert len(journal.read(planned.bundle)) == before
    assert not interim.path_of(planned.bundle).exists()


def test_a_second_look_at_the_same_stage_with_other_units_is_refused(planned: Results) -> None:
    partly(planned, 9)
    interim.look(planned.bundle)
    partly(planned, 15)
    with pytest.raises(Fault, match="look 1 was taken at") as caught:
        interim.look(planned.bundle)
    assert caught.value.code == "R0523"
    assert "the next look is headline at 16 units" in caught.value.remedy


def test_a_look_that_cannot_reject_says_so(tmp_path: Path) -> None:
    """An early O'Brien-Fleming look may spend less than the smallest p of 999 resamples."""
    results = Results(folder=tmp_path)
    results.compile(SPEC + "interim: {looks: [0.85, 1], spending: obrien_fleming}\n")
    file = results.bundle / "manifest.json"
    data = json.loads(file.read_text())
    data["design"]["interim"]["levels"][0] = 0.0005
    file.write_text(json.dumps(data))
    partly(results, 21)
    (taken,) = interim.look(results.bundle).looks
    assert (taken.p, taken.reject) == (0.001, False)
    assert taken.note == "no p of 999 resamples is below this level, so this look cannot reject"


def test_without_planned_looks_there_is_no_test(results: Results) -> None:
    partly(results, 12)
    report = interim.look(results.bundle)
    assert report.looks == ()
    assert json.loads(interim.path_of(results.bundle).read_text())["looks"] == []
