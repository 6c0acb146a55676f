from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.report_cases import write_bundle

from epc.compiler.contract.draws import shuffled
from epc.runtime.report.pieces import located, sample_row
from epc.runtime.report.transcripts import choose, of_prompts


def identities(rows: Any, arm: str, name: str) -> list[tuple[str, int, int]]:
    return [(row.item, row.turn, row.index) for row in rows if (row.condition, row.set) == (arm, name)]


def test_every_arm_shows_the_same_prompts_as_many_as_registered(cases: dict[str, Any]) -> None:
    case = cases["success"]
    design = case.manifest.design
    chosen = choose(case.samples, design)
    assert Counter((row.set, row.condition) for row in chosen) == {
        (name, arm.name): design.transcripts
        for name in ("after_bad_answer", "first_answer")
        for arm in design.conditions
    }
    for name in ("after_bad_answer", "first_answer"):
        drawn = [identities(chosen, arm.name, name) for arm in design.conditions]
        assert all(ids == drawn[0] for ids in drawn)


def test_the_choice_depends_on_the_seed_and_not_on_the_order_of_rows(cases: dict[str, Any]) -> None:
    case = cases["success"]
    design = case.manifest.design
    first = choose(case.samples, design)
    mixed = [case.samples[index] for index in shuffled(len(case.samples), "mix")]
    assert choose(mixed, design) == first
    other = choose(case.samples, design.model_copy(update={"transcript_seed": 1}))
    assert identities(other, "base", "first_answer") != identities(first, "base", "first_answer")


def test_a_lost_arm_changes_no_other(cases: dict[str, Any]) -> None:
    case = cases["success"]
    design = case.manifest.design
    without = choose([row for row in case.samples if row.condition != "attacked"], design)
    assert without == tuple(row for row in choose(case.samples, design) if row.condition != "attacked")


def test_of_several_training_seeds_one_is_drawn(cases: dict[str, Any]) -> None:
    case = cases["success"]
    design = case.manifest.design
    again = [row.model_copy(update={"seed": 43}) for row in case.samples if row.condition == "attacked"]
    chosen = choose([*case.samples, *again], design)
    assert identities(chosen, "attacked", "first_answer") == identities(chosen, "base", "first_answer")
    many = choose([*case.samples, *again], design.model_copy(update={"transcripts": 40}))
    assert {row.seed for row in many if row.condition == "attacked"} == {42, 43}


def test_fewer_completions_than_asked_for_are_all_shown(cases: dict[str, Any]) -> None:
    case = cases["success"]
    design = case.manifest.design
    assert len(choose(case.samples, design.model_copy(update={"transcripts": 10**6}))) == len(case.samples)
    assert choose(case.samples, design.model_copy(update={"transcripts": 0})) == ()
    assert choose((), design) == ()


def test_every_prompt_of_a_paired_figure_has_a_completion_of_both_arms(cases: dict[str, Any]) -> None:
    case = cases["success"]
    design = case.manifest.design
    chosen = of_prompts(case.samples, design)
    assert [(row.set, row.item, row.condition) for row in chosen] == [
        ("after_bad_answer", f"heldout-{item:02d}", arm)
        for item in range(24)
        for arm in ("attacked", "reflex_attacked")
    ]
    pairs = [chosen[at : at + 2] for at in range(0, 48, 2)]
    assert all((one.turn, one.index) == (other.turn, other.index) for one, other in pairs), "the draw ignores the arm"
    assert len({one.index for one, _ in pairs}) > 1
    assert of_prompts([case.samples[index] for index in shuffled(len(case.samples), "mix")], design) == chosen
    assert of_prompts(case.samples, design.model_copy(update={"transcript_seed": 1})) != chosen


def test_prompts_that_no_figure_draws_one_by_one_have_none(cases: dict[str, Any]) -> None:
    case = cases["success"]
    design = case.manifest.design
    row = next(row for row in case.samples if (row.set, row.condition) == ("after_bad_answer", "attacked"))
    many = [row.model_copy(update={"item": f"item-{number:04d}"}) for number in range(301)]
    assert of_prompts(many, design) == ()
    assert len(of_prompts(many[:300], design)) == 300
    untested = design.model_copy(
        update={"analyses": tuple(a.model_copy(update={"confirmatory": False}) for a in design.analyses)}
    )
    assert of_prompts(case.samples, untested) == ()


@dataclass(frozen=True)
class Awkward:
    """Texts that could be taken for another part of a row."""

    item: str
    text: str


@pytest.mark.parametrize("spaced", [False, True])
@pytest.mark.parametrize(
    "row",
    [
        Awkward("plain", "text"), Awkward('quote " inside', '"item": "other", "turn": 9, "index": 9}'),
        Awkward("back\\slash\\", "\\"), Awkward("größer 中 \u2028", "é"), Awkward('","item":"x","turn":1,"index":1,', "tail"),
        Awkward("", ""),
    ],
    ids=repr,
)  # fmt: skip
def test_a_completion_is_found_by_the_identity_that_it_has(
    cases: dict[str, Any], tmp_path: Path, row: Awkward, spaced: bool
) -> None:
    case = cases["success"]
    bundle = write_bundle(case, tmp_path)
    piece = next(step for step in case.manifest.steps if step.kind == "sample").pieces[0]
    whole = case.samples[0].model_copy(
        update={"item": row.item, "text": row.text, "prompt": row.text, "question": row.text}
    )
    line = json.dumps(whole.model_dump()) if spaced else whole.model_dump_json()
    for file in (bundle / "store/pieces").iterdir():
        file.unlink()
    (bundle / "store/pieces" / f"{piece.key}.jsonl").write_text(line + "\n", encoding="utf-8")
    (found,) = located(bundle, case.manifest)
    assert sample_row(found) == whole
    assert (found.set, found.condition, found.seed, found.item, found.turn, found.index) == (
        whole.set, whole.condition, whole.seed, whole.item, whole.turn, whole.index,
    )  # fmt: skip


def test_samples_of_a_prompt_keep_their_identities_in_any_order_of_keys(cases: dict[str, Any], tmp_path: Path) -> None:
    """Rows as epc writes them, with spaces, with the index first, and with texts that hold the keys, in one file."""
    case = cases["success"]
    bundle = write_bundle(case, tmp_path)
    step = next(step for step in case.manifest.steps if step.kind == "sample")
    for file in (bundle / "store/pieces").iterdir():
        file.unlink()
    text = '"index":99,"item":"other"}'
    rows = [
        row.model_copy(update={"text": text, "index": row.index * 10})
        for row in case.samples
        if row.item in ("heldout-00", "heldout-01") and row.set == "first_answer"
    ]
    lines = []
    for number, row in enumerate(rows):
        held = row.model_dump()
        first = {"index": held["index"], **held}
        lines.append([row.model_dump_json(), json.dumps(held), json.dumps(first, separators=(",", ":"))][number % 3])
    (bundle / "store/pieces" / f"{step.pieces[0].key}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = list(located(bundle, case.manifest))
    assert [(f.set, f.condition, f.seed, f.item, f.turn, f.index) for f in found] == [
        (row.set, row.condition, row.seed, row.item, row.turn, row.index) for row in rows
    ]
    assert [sample_row(f) for f in found] == rows
