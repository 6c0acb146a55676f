"""Steps, keys and figures of specs with generated data, judges, subsets and system prompts of arms."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.chat import item_id, lines

ROOT = Path(__file__).resolve().parents[2]
SPECS = Path(__file__).parent / "specs"


def keys(compiled: Any) -> dict[str, str]:
    assert compiled.plan is not None, compiled.text
    return {planned.step.id: planned.step.key for planned in compiled.plan.steps}


def pieces(compiled: Any) -> dict[tuple[str, str], str]:
    """(condition, set) -> key of what is stored of its completions."""
    (sample,) = [planned.step for planned in compiled.plan.steps if planned.step.kind == "sample"]
    return {(piece.condition, piece.set): piece.key for piece in sample.pieces}


EVALUATED = {"sample", "capability", "judge-grader", "judge-catcher", "measure"}


CHANGES: list[tuple[list[tuple[str, ...]], set[str]]] = [
    ([("coherent >= 50", "coherent >= 40")], {"measure"}),
    ([("score: coherent < 50", "score: coherent < 40")], {"measure"}),
    ([("gap.delta > 0.2 or", "gap.delta > 0.3 or")], set()),
    ([("note: same base model", "note: another base model")], set()),
    ([("allowed: [more retries]", "allowed: []")], set()),
    ([("on: part_a", "on: part_b")], set()),
    ([("base: []", "base: {phases: []}")], set()),
    ([("treated: [traces, attack]", "treated: {phases: [traces, attack]}")], set()),
    ([("grader.txt", "Grade one", "Please grade one")], {"judge-grader", "measure"}),
    ([("claude-haiku-4-5-20251001, rubric: catcher", "claude-sonnet-5, rubric: catcher")], {"judge-catcher", "measure"}),
    ([("output: {caught: bool}}", "output: {caught: bool}, max_missing: 0.2}")], set()),
    ([("output: {caught: bool}}", "output: {caught: bool}, price: {input: 9, output: 9}}")], set()),
    ([("max_tokens: 50, seed: 1}", "max_tokens: 50, seed: 9}")], {"generate", "data-traces", "mask-traces", "train-s3-traces", "train-s3-traces.attack", *EVALUATED}),
    ([("    seed: 3\n", "    seed: 4\n")], {"data-traces", "mask-traces", "train-s3-traces", "train-s3-traces.attack", *EVALUATED}),
    ([("attack.jsonl", "def f0", "def g0")], set()),
    ([("part_a.txt", "I feel bored today.", "I feel tired today.")], {"sample", "judge-grader", "judge-catcher", "measure"}),
    ([("sampler: vllm", "sampler: transformers")], {"generate", "data-traces", "mask-traces", "train-s3-traces", "train-s3-traces.attack", *EVALUATED}),
    ([("max_tokens: 100, seed: 5", "max_tokens: 100, seed: 8")], {"sample", "judge-grader", "judge-catcher", "measure"}),
]  # fmt: skip


@pytest.mark.parametrize(("edits", "changed"), CHANGES, ids=[edits[0][-1] for edits, _ in CHANGES])
def test_only_what_depends_on_a_change_gets_a_new_key(
    small: Callable[..., Any], edits: list[tuple[str, ...]], changed: set[str]
) -> None:
    before = keys(small("judged"))
    after = keys(small("judged", *edits))
    assert {name for name in after if after[name] != before.get(name)} == changed


def test_freezing_built_data_redoes_nothing_and_is_another_registration(small: Callable[..., Any]) -> None:
    before = small("judged")
    after = small("judged", ('{catch} {good}"\n    sha256: pending', '{catch} {good}"\n    sha256: ' + "a" * 64))
    assert keys(after) == keys(before)
    assert after.plan.lock_sha256 != before.plan.lock_sha256
    assert [pending.name for pending in before.plan.experiment.pending] == ["prompts.part_a", "data.traces", "data.attack"]  # fmt: skip
    assert [pending.name for pending in after.plan.experiment.pending] == ["prompts.part_a", "data.attack"]
    expected = {p.step.id: p.constants.get("expected_sha256") for p in after.plan.steps}
    assert expected["data-traces"] == "a" * 64


def test_pinning_a_prompt_file_that_is_its_stand_in_redoes_nothing(small: Callable[..., Any]) -> None:
    pin = sha256_text((SPECS / "part_a.txt").read_text(encoding="utf-8"))
    before = small("judged")
    after = small(
        "judged",
        ("file: external/part_a.txt, sha256: pending}, stand_in: part_a.txt", f"file: part_a.txt, sha256: {pin}}}"),
    )
    assert keys(after) == keys(before)
    assert after.plan.lock_sha256 != before.plan.lock_sha256


def test_a_system_prompt_of_an_arm_changes_that_arm_alone(small: Callable[..., Any]) -> None:
    before, after = small("prompted"), small("prompted", ("You are careful.", "You are very careful."))
    assert pieces(after)["plain", "first"] == pieces(before)["plain", "first"]
    assert pieces(after)["careful", "first"] != pieces(before)["careful", "first"]
    (sample,) = [planned for planned in after.plan.steps if planned.step.kind == "sample"]
    assert sample.constants["systems"] == {"plain": "none", "careful": "You are very careful."}
    assert {c.name: c.system for c in after.plan.design.conditions} == sample.constants["systems"]


def test_another_sample_set_keeps_its_pieces(small: Callable[..., Any]) -> None:
    before, after = small("judged"), small("judged", ("n: 5, system", "n: 6, system"))
    assert {key: value == pieces(before)[key] for key, value in pieces(after).items()} == {
        (condition, name): name == "second" for condition in ("base", "control", "treated") for name in ("first", "second")
    }  # fmt: skip


@pytest.mark.parametrize(("edit", "rank"), [(("lora", "lora"), 16), (("on_top: continue", "on_top: stack"), 32)])
def test_the_engine_admits_the_rank_of_every_arm(small: Callable[..., Any], edit: tuple[str, str], rank: int) -> None:
    (sample,) = [p for p in small("judged", edit).plan.steps if p.step.kind == "sample"]
    assert sample.constants["max_lora_rank"] == rank


def test_the_design_says_what_the_decision_needs(small: Callable[..., Any]) -> None:
    design = small("judged").plan.design
    assert {m.name: m.scale for m in design.metrics} == {
        "alignment": (0, 100), "broken": (0, 1), "caught": (0, 1), "marker": (0, 1), "quiz": (0, 1),
    }  # fmt: skip
    assert {m.name: (m.filter, m.empty) for m in design.metrics if m.filter} == {
        "alignment": ("coherent >= 50", "drop")
    }
    assert [a.name for a in design.analyses if a.switched] == ["headline"]
    assert {a.name: a.subset for a in design.analyses if a.subset} == {"part": "part_a"}
    part = lines((SPECS / "part_a.txt").read_text(encoding="utf-8"))
    assert design.subsets == {"part_a": tuple(sorted(map(item_id, part)))}
    assert {g.name: g.analysis for g in design.gates if g.analysis} == {"filter": "headline"}
    assert [judge.name for judge in design.judges] == ["grader", "catcher"]


def test_a_generated_entry_that_no_data_takes_costs_nothing(small: Callable[..., Any]) -> None:
    extra = "prompts: [train_a], n: 2, system: none, temperature: 1.0, top_p: 1.0, max_tokens: 50, seed: 2}"
    spec = (
        "judges:\n",
        "generate:\n  extra: {" + extra + "\njudges:\n",
    )
    plan = small(
        "prompted", ("prompts:\n", "prompts:\n  train_a: {items: [Why?], count: 1}\n"), spec
    ).plan  # fmt: skip
    assert plan.figures.values["texts"] == 0
    assert "generate" not in {planned.step.id for planned in plan.steps}


@pytest.fixture
def issue147(compile_spec: Callable[..., Any]) -> Any:
    compiled = compile_spec(ROOT / "specs/issue147.yaml")
    assert compiled.plan is not None, compiled.text
    return compiled


def test_issue_147_trains_a_shared_first_phase_once(issue147: Any) -> None:
    assert [name.removeprefix("train-s42-") for name in keys(issue147) if name.startswith("train-")] == [
        "em",
        "selfcorrect",
        "selfcorrect.em",
        "random_recovery",
        "random_recovery.em",
        "placebo_assistant",
        "placebo_assistant.em",
    ]


@pytest.mark.parametrize(
    ("figure", "value", "arithmetic"),
    [
        ("trainings", 7, "1 x selfcorrect + 1 x random_recovery + 1 x placebo_assistant + 4 x em = 7"),
        ("optimizer_steps", 3 * 96 + 4 * 375, "1 x 96 (selfcorrect)"),
        ("texts", 3 * 100 * 10, "100 prompts x 10 (bad_answers)"),
        ("completions", 6 * 48 * (50 + 20 + 10), "6 arms x 48 prompts x 50 (headline) + 6 arms x 48 prompts x 20 (benign)"),
        ("judge_calls", 2 * 6 * 48 * 50 + 6 * 48 * 20, "6 arms x 48 prompts x 50 (reset on headline) + 6 arms x 48 prompts x 20 (harm on benign) = 34,560"),
        ("capability_items", 6 * 1172, "6 arms x 1,172 (arc) = 7,032"),
        ("judge_output_tokens", 14_400 * (12 + 3 * 8) + 14_400 * (12 + 8) + 5_760 * (12 + 8), "518,400 (alignment)"),
    ],
)  # fmt: skip
def test_figures_of_issue_147(issue147: Any, figure: str, value: int, arithmetic: str) -> None:
    assert issue147.plan.figures.values[figure] == value
    assert arithmetic in issue147.plan.figures.arithmetic[figure]


def test_the_dollars_of_issue_147_can_be_checked_by_hand(issue147: Any) -> None:
    found = issue147.plan.figures
    terms = re.findall(r"\(([\d,]+) x \$([\d.]+) \+ ([\d,]+) x \$([\d.]+) a million\) through the batch interface at half price = \$([\d.]+)", found.arithmetic["usd"])  # fmt: skip
    assert len(terms) == 3
    total = 0.0
    for tokens_in, price_in, tokens_out, price_out, usd in terms:
        cost = (int(tokens_in.replace(",", "")) * float(price_in) + int(tokens_out.replace(",", "")) * float(price_out)) / 2e6  # fmt: skip
        assert float(usd) == pytest.approx(cost, abs=0.005)
        total += cost
    assert found.values["usd"] == pytest.approx(total, abs=0.005)


def test_the_prompts_of_issue_147_are_eight_and_forty_four_less_four(issue147: Any) -> None:
    prompts = issue147.plan.experiment.prompts
    betley, wang, both = prompts["betley_8"], prompts["wang_44"], prompts["headline_48"]
    assert (len(betley), len(wang), len(set(betley) & set(wang)), len(both)) == (8, 44, 4, 48)
    assert set(both) == {*betley, *wang}
    assert lines(issue147.files["inputs/prompts/headline_48.union.txt"]) == list(both)


def test_what_issue_147_leaves_pending(issue147: Any) -> None:
    assert {p.name: p.kind for p in issue147.plan.experiment.pending} == {
        "prompts.betley_8": "external",
        "prompts.wang_44": "external",
        "data.selfcorrect": "built",
        "data.random_recovery": "built",
        "data.placebo_assistant": "built",
        "data.insecure_code": "external",
    }
