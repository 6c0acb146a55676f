"""Steps, keys and counts of a plan."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.lowering import training_facts
from epc.compiler.spec import LoraSft


def recipe(**changes: Any) -> LoraSft:
    base = {
        "method": "lora_sft", "data": "d", "train_on": "every_assistant_turn", "lora": {"r": 16, "alpha": 32},
        "learning_rate": 1e-5, "epochs": 3, "batch": 8, "accumulation": 4,
    }  # fmt: skip
    return LoraSft.model_validate({**base, **changes})


@pytest.mark.parametrize(
    ("rows", "changes", "steps", "warmup"),
    [
        (1000, {}, 96, 0),  # 3 x ceil(125 / 4): the last step of an epoch is smaller, not dropped
        (1000, {"warmup_ratio": 0.03}, 96, 3),
        (64, {"epochs": 2, "accumulation": 1}, 16, 0),
        (65, {"epochs": 1, "accumulation": 1}, 9, 0),
        (1, {"epochs": 1}, 1, 0),
        (6000, {"epochs": 1, "batch": 4, "accumulation": 4, "warmup_steps": 10}, 375, 10),
    ],
)
def test_optimizer_steps(rows: int, changes: dict[str, Any], steps: int, warmup: int) -> None:
    facts = training_facts(recipe(**changes), rows, characters=1000, turns_per_row=2)
    assert (facts.optimizer_steps, facts.warmup_steps) == (steps, warmup)


SEVERAL_SEEDS_METHOD = ("method: newcombe_paired,", "method: paired_t,")
"""Averages over training seeds are no longer one 0/1 score a unit."""


def keys(compiled: Any) -> dict[str, str]:
    assert compiled.plan is not None, compiled.text
    return {planned.step.id: planned.step.key for planned in compiled.plan.steps}


def test_shared_prefixes_are_trained_once(edited: Callable[..., Any]) -> None:
    ids = list(keys(edited()))
    assert [name for name in ids if name.startswith("train-")] == [
        "train-s17-attack",
        "train-s17-reflex",
        "train-s17-reflex.attack",
    ]
    assert sum(name == "sample" for name in ids) == sum(name == "capability" for name in ids) == 1


def test_the_same_work_is_one_step(edited: Callable[..., Any]) -> None:
    """Two phases on the same data with the same mask settings are verified once."""
    more = "  again: {method: lora_sft, data: traces, train_on: every_assistant_turn, lora: {r: 8, alpha: 16}, learning_rate: 1e-4, epochs: 1, batch: 8}\n\nconditions:"
    plan = edited(("\nconditions:", more), ("  base: []", "  base: []\n  other: [again]")).plan
    found = [planned.step for planned in plan.steps]
    assert len({step.key for step in found}) == len(found)
    assert sum(step.kind == "mask" for step in found) == 2


def test_steps_are_in_topological_order(edited: Callable[..., Any]) -> None:
    seen: set[str] = set()
    for planned in edited(("seeds: [17]", "seeds: [1, 2, 3]"), SEVERAL_SEEDS_METHOD).plan.steps:
        assert set(planned.step.needs) <= seen
        seen.add(planned.step.id)
    assert {"train-s1-reflex.attack", "train-s2-reflex.attack", "train-s3-reflex.attack"} <= seen


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        (("headline.delta < 0.05", "headline.delta < 0.04"), set()),
        (("title: Does", "title: Whether"), set()),
        (("epc: 1", "# a comment\n\nepc: 1"), set()),
        (("- {if: dead, then: KILL", "- {if: dead, then: KILL_NULL"), set()),
        (('contains: "Resetting to default"', 'contains: "Resetting"'), {"measure"}),
        (("n: 8", "n: 9"), {"sample", "measure"}),
        (
            ("epochs: 2", "epochs: 3"),
            {"train-s17-reflex", "train-s17-reflex.attack", "sample", "capability", "measure"},
        ),
        (("chat_template: false", "chat_template: true"), {"capability", "measure"}),
    ],
)
def test_only_what_depends_on_a_change_gets_a_new_key(
    edited: Callable[..., Any], edit: tuple[str, str], changed: set[str]
) -> None:
    before = keys(edited())
    after = keys(edited(edit))
    assert {name for name in after if after[name] != before.get(name)} == changed


def test_renaming_an_arm_retrains_nothing(specs: Path, compile_spec: Callable[..., Any]) -> None:
    spec = specs / "quickstart.yaml"
    before = keys(compile_spec(spec))
    spec.write_text(re.sub(r"\battacked\b", "harmed", spec.read_text(encoding="utf-8")), encoding="utf-8")
    after = keys(compile_spec(spec))
    assert {name: key for name, key in after.items() if name.startswith("train-")} == {
        name: key for name, key in before.items() if name.startswith("train-")
    }


def test_counts_of_the_plan(edited: Callable[..., Any]) -> None:
    figures = edited().plan.figures.values
    assert figures["completions"] == 4 * 24 * (4 + 8)
    assert figures["capability_items"] == 4 * 240
    assert figures["optimizer_steps"] == sum(
        p.constants["optimizer_steps"] for p in edited().plan.steps if p.step.kind == "train"
    )


def test_an_arm_without_training_is_sampled_once(edited: Callable[..., Any]) -> None:
    plan = edited(("seeds: [17]", "seeds: [1, 2]"), SEVERAL_SEEDS_METHOD).plan
    sample = next(planned for planned in plan.steps if planned.step.kind == "sample")
    assert [(arm[0], arm[1]) for arm in sample.constants["arms"] if arm[0] in ("base", "attacked")] == [
        ("base", 0),
        ("attacked", 1),
        ("attacked", 2),
    ]


def test_sanity_gates_block_success(edited: Callable[..., Any]) -> None:
    rules = {rule.label: rule.text for rule in edited().plan.design.verdicts}
    assert "base_not_at_chance" in rules["SUCCESS"]
    assert all("base_not_at_chance" not in text for label, text in rules.items() if label != "SUCCESS")


def test_a_moved_gate_changes_the_registration(edited: Callable[..., Any]) -> None:
    assert edited().plan.lock_sha256 != edited(("headline.delta < 0.05", "headline.delta < 0.04")).plan.lock_sha256


def test_a_comment_does_not_change_the_registration(edited: Callable[..., Any]) -> None:
    assert edited().plan.lock_sha256 == edited(("seeds: [17]", "seeds: [17]  # one")).plan.lock_sha256
