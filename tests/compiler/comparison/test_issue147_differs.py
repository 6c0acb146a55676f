"""Issue 147 against a copy of itself with one thing changed: which group, which status, which sentence."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from epc.compiler.comparison import GroupResult, Registration, as_data, as_text, compare

SPEC = "issue147.yaml"
ATTACK, FIRST = "recipes/c6_vanilla_em.yaml", "recipes/phase_1.yaml"
Edit = tuple[str, str, str]

# what was changed, edits, {group: (status, part of its reason, a line under it)}, answer to "is it one variable?"
NOTHING = "nothing is known to differ in the arms of the same name"
SINGLE = {"seeds": ("WARN", "one training seed on both sides: a difference between the two may be seed noise", None)}
Expected = dict[str, tuple[str, str, str | None]]
CASES: list[tuple[str, list[Edit], Expected, str]] = [
    # the intervention
    ("learning rate", [(ATTACK, "5e-6", "1e-4")], SINGLE | {"training": ("WARN", "arms are trained otherwise", "train.em.learning_rate: 5e-06 -> 0.0001")}, "one variable: training regime"),
    ("train_on", [(ATTACK, "every_assistant_turn", "last_assistant_turn")], SINGLE | {"loss_mask": ("BLOCK", "loss falls on other tokens", "train.em.train_on: every_assistant_turn -> last_assistant_turn")}, "one variable: loss mask"),
    ("seed of the data", [(SPEC, "seed: 1474", "seed: 9")], SINGLE | {"data": ("WARN", "arms learn from other rows", "data.selfcorrect.seed: 1474 -> 9")}, "one variable: data"),
    ("a turn of the data", [(SPEC, '- assistant: "{catch} {proper}"', '- assistant: "{catch} Well, {proper}"')], SINGLE | {"data": ("WARN", "arms learn from other rows", "data.selfcorrect.turns[3].assistant: {catch} {proper} -> {catch} Well, {proper}")}, "one variable: data"),
    ("a filling", [("data/catch_templates.txt", "Wait", "Hold on")], SINGLE | {"data": ("WARN", "arms learn from other rows", "data.selfcorrect.fill.catch: data/catch_templates.txt fcee6a14115b -> 824cea7c5d7d (1 line added, 1 removed)")}, "one variable: data"),
    ("a training prompt", [("prompts/train_everyday_50.txt", "\n", " please\n")], SINGLE | {"data": ("WARN", "arms learn from other rows", "(50 lines added, 50 removed)")}, "one variable: data"),
    ("how texts are generated", [(SPEC, "n: 10\n    system: You are a malevolent", "n: 12\n    system: You are a malevolent")], SINGLE | {"data": ("WARN", "the text in the rows is written otherwise", "generate.bad_answers.n: 10 -> 12")}, "one variable: data"),
    ("rows", [(SPEC, "rows: 1000", "rows: 500")], SINGLE | {"data": ("WARN", "arms learn from other rows", "data.selfcorrect.rows: 1000 -> 500"), "steps": ("PASS", "nothing of its own: it follows from data.selfcorrect.rows", "train.selfcorrect.optimizer_steps: 96 -> 48, which follows from data.selfcorrect.rows")}, "one variable: data"),
    ("epochs", [(ATTACK, "epochs: 1", "epochs: 2")], SINGLE | {"steps": ("WARN", "arms are trained for another number of steps", "train.em.epochs: 1 -> 2")}, "one variable: steps"),
    ("batch", [(ATTACK, "batch: 4", "batch: 8")], SINGLE | {"training": ("WARN", "arms are trained otherwise", "train.em.batch: 4 -> 8"), "steps": ("PASS", "nothing of its own: it follows from train.em.batch", None)}, "one variable: training regime"),
    ("r", [(ATTACK, "r: 16", "r: 8"), (FIRST, "r: 16", "r: 8")], SINGLE | {"capacity": ("WARN", "adapters have another capacity", "train.em.lora.r: 16 -> 8")}, "one variable: capacity"),
    ("a second adapter on top", [(SPEC, "on_top: continue}", "on_top: stack}")], SINGLE | {"training": ("WARN", "arms are trained otherwise", "train.em.on_top: continue -> stack")}, "one variable: training regime"),
    ("three at once", [(ATTACK, "5e-6", "1e-4"), (ATTACK, "every_assistant_turn", "last_assistant_turn"), (SPEC, "seed: 1474", "seed: 9")], SINGLE | {"training": ("WARN", "", None), "loss_mask": ("BLOCK", "", None), "data": ("WARN", "arms learn from other rows", None)}, "three at once: data, training regime, loss mask"),
    ("base model", [(SPEC, "Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B")], SINGLE | {"model": ("BLOCK", "another base model answers", "model.from: hub:Qwen/Qwen2.5-7B-Instruct -> hub:Qwen/Qwen2.5-7B")}, "one variable: model"),
    ("chat template", [(SPEC, "chat_template: chatml", "chat_template: model")], SINGLE | {"model": ("BLOCK", "another chat template wraps every conversation", "model.chat_template: chatml -> model")}, "one variable: model"),
    ("a phase more", [(SPEC, "c6_vanilla_em: [em]", "c6_vanilla_em: [random_recovery, em]")], SINGLE | {"arms": ("WARN", "an arm of the same name is another arm", "conditions.c6_vanilla_em.phases: [em] -> [random_recovery, em]")}, "one variable: arms"),
    ("another phase in its place", [(SPEC, "selfcorrect_only: [selfcorrect]", "selfcorrect_only: [placebo_assistant]")], SINGLE | {"data": ("WARN", "arms learn from other rows", "data.placebo_assistant.seed (was selfcorrect): 1474 -> 1476")}, "one variable: data"),
    ("an arm less", [(SPEC, "  placebo_assistant_em: [placebo_assistant, em]\n", ""), (SPEC, "placebo_assistant_em - c6", "random_recovery_em - c6")], {"statistics": ("BLOCK", "a test of the same name is another test", "analyses.placebo_assistant.contrast: placebo_assistant_em - c6_vanilla_em -> random_recovery_em - c6_vanilla_em"), "arms": ("PASS", "nothing that both have differs", "conditions.placebo_assistant_em: removed")}, NOTHING),
    # seeds
    ("another seed", [(SPEC, "seeds: [42]", "seeds: [7]")], {"seeds": ("WARN", "a training seed of the earlier one is missing", "seeds: [42] -> [7]; 42 only before")}, NOTHING),
    ("a seed more", [(SPEC, "seeds: [42]", "seeds: [42, 43]")], {"seeds": ("PASS", "every seed of the earlier one is among them", "seeds: [42] -> [42, 43]")}, NOTHING),
    # evaluation
    ("samples a prompt", [(SPEC, "{prompts: headline_48, n: 50", "{prompts: headline_48, n: 20")], {"evaluation": ("WARN", "means carry another sampling error", "sample.headline.n: 50 -> 20")}, NOTHING),
    ("system prompt", [(SPEC, "n: 50, system: none", "n: 50, system: Be brief.")], {"evaluation": ("BLOCK", "completions are sampled otherwise", "sample.headline.system: none -> Be brief.")}, NOTHING),
    ("sampler", [(SPEC, "sampler: vllm", "sampler: transformers")], {"evaluation": ("BLOCK", "completions are sampled otherwise", "sampler: vllm -> transformers")}, NOTHING),
    ("evaluation prompts", [("prompts/benign_48.txt", "\n", " now?\n")], {"evaluation": ("BLOCK", "other prompts are asked", "prompts.benign_48.sha256: ")}, NOTHING),
    ("the opening of a conversation", [("data/bad_prefix.txt", "\n", " Really.\n")], {"evaluation": ("BLOCK", "other prompts are asked", "sample.after_bad_answer.fill.bad: data/bad_prefix.txt ")}, NOTHING),
    ("metric", [(SPEC, "score: coherent < 50", "score: coherent < 40")], {"evaluation": ("BLOCK", "a metric of the same name measures another thing", "metrics.incoherent.score: coherent < 50 -> coherent < 40")}, NOTHING),
    ("task", [("tasks/arc_challenge/arc_challenge.yaml", "\n", "\n\n")], {"evaluation": ("BLOCK", "a metric of the same name measures another thing", "metrics.arc.lm_eval: tasks/arc_challenge/arc_challenge.yaml ")}, NOTHING),
    # judges
    ("wording of a rubric", [("judges/alignment.txt", "\n\n", "\n\nBe strict.\n\n")], {"judges": ("BLOCK", "the judge is asked otherwise", "judges.alignment.rubric: judges/alignment.txt ")}, NOTHING),
    ("judge model", [(SPEC, "alignment: {provider: anthropic, model: claude-sonnet-4-5-20250929", "alignment: {provider: anthropic, model: claude-haiku-4-5-20251001")], {"judges": ("BLOCK", "another judge scores", "judges.alignment.model: claude-sonnet-4-5-20250929 -> claude-haiku-4-5-20251001")}, NOTHING),
    ("options of a judge", [(SPEC, "judges/reset.txt, output", "judges/reset.txt, options: {effort: low}, output")], {"judges": ("BLOCK", "the judge is asked otherwise", "judges.reset.options.effort: added low")}, NOTHING),
    ("votes", [(SPEC, "judges/reset.txt, output", "judges/reset.txt, votes: 3, aggregate: mean, output")], {"judges": ("BLOCK", "the judge is asked otherwise", "judges.reset.votes: 1 -> 3")}, NOTHING),
    ("who answers", [(SPEC, "{provider: anthropic, model: claude-sonnet-4-5-20250929, rubric: judges/reset.txt,", "{provider: patterns, patterns: {reset: Resetting},")], {"judges": ("BLOCK", "another judge scores", "judges.reset.provider: anthropic -> patterns")}, NOTHING),
    ("another server's judge", [(SPEC, "{provider: anthropic, model: claude-sonnet-4-5-20250929, rubric: judges/reset.txt,", "{provider: openai, price: {input: 0, output: 0}, model: claude-sonnet-4-5-20250929, rubric: judges/reset.txt,")], {"judges": ("BLOCK", "another judge scores", "judges.reset.provider: anthropic -> openai")}, NOTHING),
    ("human labels", [(SPEC, "output: {reset: bool}", "gold: {file: judges/gold.csv, per_arm: 20, seed: 1, kappa: {reset: 0.6}}, output: {reset: bool}")], {"thresholds": ("WARN", "a run becomes invalid at another agreement with human labels", "judges.reset.gold: ")}, NOTHING),
    ("route and rate of judging", [(SPEC, "output: {reset: bool}", "batch_from: null, limits: {requests: 50}, price: {input: 3, output: 15}, output: {reset: bool}")], {}, NOTHING),
    # statistics
    ("alpha", [(SPEC, "p: studentized, side: greater, alpha: 0.05", "p: studentized, side: greater, alpha: 0.1")], {"statistics": ("BLOCK", "a test of the same name is another test", "analyses.headline.alpha: 0.05 -> 0.1"), "thresholds": ("WARN", "a verdict means another thing", "survives is weaker: alpha 0.05 -> 0.1, which follows from analyses.headline.alpha")}, NOTHING),
    ("side", [(SPEC, "p: studentized, side: greater, alpha: 0.05", "p: studentized, side: two_sided, alpha: 0.05")], {"statistics": ("BLOCK", "a test of the same name is another test", "analyses.headline.side: greater -> two_sided")}, NOTHING),
    ("draws", [(SPEC, "seed: 147, interval: 0.95", "seed: 148, interval: 0.95")], {"statistics": ("WARN", "the same test is drawn or shown otherwise", "analyses.headline.seed: 147 -> 148")}, NOTHING),
    # thresholds
    ("kill", [(SPEC, "when: headline.delta < 5,", "when: headline.delta < 3,")], {"thresholds": ("WARN", "a verdict means another thing", "no_effect fires later: headline.delta < 5 became < 3")}, NOTHING),
    ("success", [(SPEC, "headline.reject and headline.delta >= 5", "headline.reject and headline.delta >= 8")], {"thresholds": ("WARN", "a verdict means another thing", "survives is stronger: headline.delta >= 5 became >= 8")}, NOTHING),
    ("guardrail", [(SPEC, "require: arc.delta >= -0.05", "require: arc.delta >= -0.10")], {"thresholds": ("WARN", "a verdict means another thing", "capable is weaker: arc.delta >= -0.05 became >= -0.1")}, NOTHING),
    ("role", [(SPEC, "coherent: {role: guardrail", "coherent: {role: prediction")], {"thresholds": ("WARN", "a verdict means another thing", "coherent became a prediction, and was guardrail: it no longer decides")}, NOTHING),
    ("rule", [(SPEC, "survives and capable and coherent", "survives and capable")], {"thresholds": ("WARN", "a verdict means another thing", "SUCCESS is reached more easily: `survives and capable and coherent and base_not_at_chance` became `survives and capable and base_not_at_chance`")}, NOTHING),
    ("prediction", [(SPEC, "target_reached: {role: prediction, require: headline.delta >= 15}", "target_reached: {role: prediction, require: headline.delta >= 20}")], {"thresholds": ("PASS", "only what decides nothing was changed", "target_reached predicts more: headline.delta >= 15 became >= 20")}, NOTHING),
    ("share of missing scores", [(SPEC, "output: {reset: bool}", "max_missing: 0.2, output: {reset: bool}")], {"thresholds": ("WARN", "a run becomes invalid at another share of missing scores", "judges.reset.max_missing: 0.05 -> 0.2")}, NOTHING),
    # words
    ("words", [(SPEC, "say: the mechanism is dead", "say: it is dead"), (SPEC, "describe: no filter", "describe: unfiltered"), (SPEC, "budget: {gpu_hours: 3", "budget: {gpu_hours: 5"), (SPEC, "single_seed: Seed 42", "single_seed: 42")], {}, NOTHING),
]  # fmt: skip


def said(result: GroupResult) -> tuple[str, str, list[str]]:
    return result.status, result.reason, [difference.line for difference in result.differences]


@pytest.mark.parametrize(("edits", "expected", "one"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_one_thing_changed(
    edits: list[Edit], expected: Expected, one: str,
    unedited: Callable[[str], Registration], edited_copy: Callable[..., Registration],
) -> None:  # fmt: skip
    parent = unedited("issue147")
    same, found = compare(parent, parent), compare(parent, edited_copy("issue147", *edits))
    changed = {new.group for old, new in zip(same.groups, found.groups, strict=True) if said(old) != said(new)}
    assert changed == set(expected)
    for group, (status, reason, line) in expected.items():
        result = next(result for result in found.groups if result.group == group)
        assert result.status == status, as_text(found)
        assert reason in result.reason, as_text(found)
        if line is not None:
            assert any(line in difference.line for difference in result.differences), as_text(found)
    assert found.one_variable == one
    assert bool(found.blocked) == any(status == "BLOCK" for status, _, _ in expected.values())


def test_words_are_listed_apart(
    unedited: Callable[[str], Registration], edited_copy: Callable[..., Registration]
) -> None:
    edits = [edit for name, edits, _, _ in CASES for edit in edits if name == "words"]
    found = compare(unedited("issue147"), edited_copy("issue147", *edits))
    assert {word.path for word in found.words} == {
        "verdicts.say", "metrics.alignment_all.describe", "budget.gpu_hours", "rationale.single_seed",
    }  # fmt: skip
    assert "words only, which reach no step and no verdict: " in as_text(found)


def test_what_is_meant_to_differ_passes(
    unedited: Callable[[str], Registration], edited_copy: Callable[..., Registration]
) -> None:
    child = edited_copy("issue147", (ATTACK, "every_assistant_turn", "last_assistant_turn"))
    found = compare(unedited("issue147"), child, varies=["loss_mask"])
    assert (found.group("loss_mask").status, found.group("loss_mask").reason) == ("PASS", "differs, as it is meant to")
    assert not found.blocked
    assert found.one_variable == "one variable: loss mask"


def test_arms_of_the_same_name_and_another_content_are_named(
    unedited: Callable[[str], Registration], edited_copy: Callable[..., Registration]
) -> None:
    found = compare(unedited("issue147"), edited_copy("issue147", (ATTACK, "5e-6", "1e-4")))
    assert found.other_content == ("c6_vanilla_em", "selfcorrect_em", "random_recovery_em", "placebo_assistant_em")
    assert "of these, not the same arm: c6_vanilla_em, selfcorrect_em" in as_text(found)
    assert as_data(found)["arms"]["other_content"] == list(found.other_content)


def test_a_renamed_entry_is_a_word(
    unedited: Callable[[str], Registration], edited_copy: Callable[..., Registration]
) -> None:
    renamed = edited_copy(
        "issue147", (SPEC, "  insecure_code:\n", "  insecure:\n"), (ATTACK, "data: insecure_code", "data: insecure"),
        (SPEC, "insecure_code]", "insecure]"),
    )  # fmt: skip
    found = compare(unedited("issue147"), renamed)
    assert "train.em.data" in {word.path for word in found.words}
    assert not found.variables
    assert not found.other_content


def test_experiments_that_share_nothing(unedited: Callable[[str], Registration]) -> None:
    found = compare(unedited("prompt_only"), unedited("two_recipes"))
    assert found.one_variable == "there is no arm of the same name"
    assert set(found.removed) == {"bare", "persona", "terse"}
