from __future__ import annotations

from collections import Counter
from typing import Any

from epc.compiler.contract.draws import shuffled
from epc.runtime.report import choose


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
