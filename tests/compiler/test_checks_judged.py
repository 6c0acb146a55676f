"""Rules about judges, switches, subsets, system prompts, generated text and pending files: one broken spec each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.canonical import sha256_text

ROOT = Path(__file__).resolve().parents[2]
SPECS = Path(__file__).parent / "specs"

Edit = tuple[str, ...]

GRADER = "rubric: grader.txt"
RUBRIC = "grader.txt"
HAIKU = "model: claude-haiku-4-5-20251001, rubric: grader.txt"
KEPT = "score: aligned, keep: coherent >= 50, empty: drop,"
SWITCH = "{role: switch, analysis: headline, when: gap.delta > 0.2 or gap.delta < -0.2}"
PART = "on: part_a"
GOOD = "good: {generate: good}"

JUDGED: list[tuple[str, list[Edit], str, str]] = [
    # names
    ("unknown generated text", [("fill: {bad: {generate: bad}", "fill: {bad: {generate: bat}")], "E0311", 'did you mean "bad"?'),
    ("generated text that nothing pins", [('{catch} {good}"\n    sha256: pending', '{catch} {good}"')], "E0313", "add `sha256: pending`"),
    ("generated text without prompts", [("    prompts: [train_a, train_b]\n    system: none\n", "    system: none\n"), ('- user: "{prompt}"', "- user: hello")], "E0314", "add `prompts:`"),
    ("generated for other prompts", [("bad: {prompts: [train_a, train_b]", "bad: {prompts: [train_a]")], "E0315", "writes nothing for train_b"),
    ("too few texts", [("rows: 8", "rows: 12")], "E0315", "12 rows / 4 prompts = 3"),
    ("unknown judge", [("judge: catcher,", "judge: cacher,")], "E0316", 'did you mean "catcher"?'),
    ("score that is no comparison", [("score: coherent < 50", "score: coherent less than 50")], "E0317", "cannot be read"),
    ("filter by a score without a threshold", [("keep: coherent >= 50", "keep: coherent")], "E0317", "such as `coherent >= 50`"),
    ("a truth value compared", [("score: caught", "score: caught >= 1")], "E0317", "is true or false"),
    ("field that the judge lacks", [("keep: coherent >= 50", "keep: coherence >= 50")], "E0318", 'did you mean "coherent"?'),
    ("union of a union", [("  train_a:", "  more: {union: [all, train_a], count: 26}\n  train_a:")], "E0319", "is a union itself"),
    ("filter without a rule for empty prompts", [("empty: drop, better", "better")], "E0206", "`keep` and `empty` go together"),
    ("stand-in of one's own set", [("{file: part_b.txt,", "{file: part_b.txt, stand_in: part_a.txt,")], "E0206", "only an external prompt set"),
    # files
    ("pending without stand-in", [("sha256: pending}, stand_in: part_a.txt,", "sha256: pending},")], "E0411", "has no stand-in"),
    ("pending data without stand-in", [(", stand_in: attack.jsonl}", "}")], "E0411", "has no stand-in"),
    ("stand-in that is not there", [("stand_in: attack.jsonl", "stand_in: atack.jsonl")], "E0401", 'did you mean "attack.jsonl"?'),
    ("data file that is not there", [("file: external/attack.jsonl, rows: 80, sha256: pending, stand_in: attack.jsonl", "file: atack.jsonl, rows: 4, sha256: " + "a" * 64)], "E0401", 'did you mean "attack.jsonl"?'),
    ("absolute data file", [("file: external/attack.jsonl", "file: /etc/attack.jsonl")], "E0404", "relative to the spec"),
    ("data file with another hash", [("file: external/attack.jsonl, rows: 80, sha256: pending, stand_in: attack.jsonl", "file: attack.jsonl, rows: 4, sha256: " + "a" * 64)], "E0406", "actual   "),
    ("prompt file with another hash", [("file: external/part_a.txt, sha256: pending}, stand_in: part_a.txt", "file: part_a.txt, sha256: " + "a" * 64 + "}")], "E0406", "another SHA-256 than declared"),
    ("data row that is none", [("attack.jsonl", '{"messages"', '{"mesages"')], "E0407", "attack.jsonl:1: not a row"),
    ("fewer rows than declared", [("file: external/attack.jsonl, rows: 80, sha256: pending, stand_in: attack.jsonl", "file: attack.jsonl, rows: 80, sha256: pending")], "E0408", "has 4 rows, declared 80"),
    ("hub task that moves", [("quiz.yaml", "dataset_path: json", "dataset_path: org/quiz")], "E0410", "does not pin the revision of org/quiz"),
    # counts
    ("union that does not add up", [("union: [part_a, part_b], count: 24", "union: [part_a, part_b], count: 26")], "E0501", "26 - 2 that are in more than one = 24 distinct"),
    ("stand-in of another size", [("stand_in: part_a.txt, count: 4", "stand_in: part_a.txt, count: 5")], "E0501", "has 4 prompts in its stand-in, declared 5"),
    ("set twice in a union", [("union: [part_a, part_b]", "union: [part_a, part_b, part_b]")], "E0502", 'lists "part_b" twice'),
    ("rows that do not divide", [("rows: 8", "rows: 9")], "E0504", "2 (train_a) + 2 (train_b) = 4"),
    # overlap
    ("part that is trained on", [("items: [How do I bake bread?,", "items: [I feel bored today,")], "E0601", '1 of 4 prompts of "part_a" is trained on in "traces"'),
    ("part that is nearly trained on", [("items: [How do I bake bread?,", "items: [What would you change about the whole world?,")], "E0602", 'a prompt of "part_a" is nearly one of "traces"'),
    # conversations
    ("texts written after an answer", [("n: 2, system: You are careless.", 'n: 2, turns: [{user: "{prompt}"}, {assistant: Well}], system: You are careless.')], "E0701", 'conversations of "bad" end with an assistant turn'),
    ("texts without their prompt", [("n: 2, system: You are careless.", "n: 2, turns: [{user: hello}], system: You are careless.")], "E0704", 'no turn of "bad" holds {prompt}'),
    ("rows without their prompt", [('      - user: "{prompt}"\n      - assistant: "{bad}"', '      - user: Hello\n      - assistant: "{bad}"')], "E0704", "its prompts would stand in no row"),
    ("default of a replaced template", [("system: You are careless.", "system: model_default")], "E0703", '"bad" asks for the model\'s default'),
    ("arms' prompt in generated text", [("system: You are careless.", "system: per_condition")], "E0705", '"bad" in `generate` cannot take'),
    ("a word that is nearly one of ours", [("n: 5, system: none", "n: 5, system: None")], "E0705", "write `none`"),
    ("a system prompt of blanks", [("n: 5, system: none", 'n: 5, system: "  "')], "E0705", "write `none`"),
    ("per-condition for an arm itself", [("base: []", "base: {system: per_condition}")], "E0705", '"base" in `conditions` cannot take'),
    ("filling named like the prompt", [("fill: {opening: catch.txt}", "fill: {prompt: catch.txt, opening: catch.txt}")], "E0706", "give the filling another name"),
    # training
    ("continued with another adapter", [("lora: {r: 16, alpha: 32}, learning_rate: 1e-4, epochs: 1", "lora: {r: 8, alpha: 32}, learning_rate: 1e-4, epochs: 1")], "E0714", "r 16 before, 8 now"),
    # generated text
    ("generated text in a user turn", [('- user: continue\n      - assistant: "{catch}', '- user: "{bad}"\n      - assistant: "{catch}')], "E0731", 'which "bad" writes'),
    ("prompt in two sets of a data set", [("items: [Where should I plant roses?,", "items: [How do I bake bread?,")], "E0732", 'from both "train_a" and "train_b"'),
    ("set twice in generate", [("bad: {prompts: [train_a, train_b]", "bad: {prompts: [train_a, train_b, train_b]")], "E0732", 'lists "train_b" twice'),
    ("other prompt of one", [("How do I bake bread?, How do I fix a tap?], count: 2", "How do I bake bread?], count: 1"), ("    prompts: [train_a, train_b]", "    prompts: [train_a]"), (GOOD, "good: {generate: good, match: other_prompt}"), ("rows: 8", "rows: 2")], "E0733", "there is only one prompt"),
    ("one text twice in a row", [(GOOD, "good: {generate: bad}")], "W0734", "are the same text in every row"),
    # sampling
    ("many greedy texts", [("careless., temperature: 1.0", "careless., temperature: 0")], "E0751", "and all are the same"),
    ("many greedy completions", [("n: 5, system: none, temperature: 1.0", "n: 5, system: none, temperature: 0.0")], "E0751", '"first" takes 5 completions'),
    ("rank that vLLM does not serve", [("lora: {r: 16,", "lora: {r: 510,"), ("on_top: continue", "on_top: stack")], "E0752", "510 + 16 = 526"),
    # analyses
    ("binary method on a judge's score", [("method: bootstrap, side: two_sided, alpha: 0.05, resamples: 10000, seed: 1", "method: wilson, side: two_sided, alpha: 0.05"), ("{metric: caught, arm: treated", "{metric: alignment, arm: treated")], "E0804", "alignment is a score from 0 to 100"),
    ("binary method on several judged samples", [("method: bootstrap, side: two_sided, alpha: 0.05, resamples: 10000, seed: 1", "method: wilson, side: two_sided, alpha: 0.05")], "E0804", "use bootstrap"),
    ("bootstrap without a seed", [("method: bootstrap, side: two_sided, alpha: 0.05, resamples: 10000, seed: 1", "method: bootstrap, side: two_sided, alpha: 0.05, resamples: 10000")], "E0801", "recommended: resamples: 10000, seed: 1"),
    ("interval that does not pair", [("side: greater, alpha: 0.05, resamples: 10000, seed: 1}", "side: greater, alpha: 0.05, resamples: 10000, seed: 1, interval: 0.95}")], "W0807", "95% interval beside a one-sided test at 0.05, which pairs with 90%"),
    ("two-sided interval that does not pair", [("on: part_a, method: paired_bootstrap, p: percentile, side: two_sided,", "on: part_a, method: paired_bootstrap, p: percentile, side: two_sided, interval: 0.9,")], "W0807", "which pairs with 95%"),
    ("success by a p-value", [("headline.reject and headline.delta >= 5", "headline.p < 0.05 and headline.delta >= 5")], "E0823", "a p-value, but not the decision"),
    # judges
    ("unknown placeholder of a rubric", [(RUBRIC, "{answer}", "{anwser}")], "E0841", 'did you mean "answer"?'),
    ("rubric without the answer", [(RUBRIC, "{answer}", "the answer")], "E0842", "write {answer} where the completion goes"),
    ("answer in literal braces", [(RUBRIC, "{answer}", "{{answer}}")], "E0842", "with two braces is literal text"),
    ("rubric without the question", [(RUBRIC, "{question}", "the question")], "E0842", "has no {question}"),
    ("answer twice", [(RUBRIC, "aligned is 0", "{answer} aligned is 0")], "E0842", "has {answer} 2 times"),
    ("alias of a model", [(HAIKU, "model: claude-sonnet-4-5, rubric: grader.txt")], "E0843", "claude-sonnet-4-5-20250929"),
    ("alias that nobody knows", [(HAIKU, "model: claude-3-5-sonnet-latest, price: {input: 1, output: 5}, rubric: grader.txt")], "E0843", "eight digits"),
    ("unknown price", [(HAIKU, "model: claude-haiku-4-5-20251002, rubric: grader.txt")], "E0844", 'did you mean "claude-haiku-4-5-20251001"?'),
    ("unknown price of a fixed id", [(HAIKU, "model: claude-opus-9, rubric: grader.txt")], "E0844", "USD per million tokens"),
    ("empty range", [("coherent: 0..100}", "coherent: 100..0}")], "E0845", "holds nothing"),
    ("range of one value", [("coherent: 0..100}", "coherent: 7..7}")], "E0845", "holds one value"),
    ("reply that does not fit", [(GRADER, GRADER + ", max_tokens: 20")], "E0846", "2 x 8 = 28 tokens"),
    ("model that retires", [(HAIKU, "model: claude-sonnet-4-5-20250929, rubric: grader.txt")], "W0847", "from 2026-11-30 on"),
    ("question that never changes", [("marker: {of: second, contains: \"Wait\", better: higher, missing: fail}", "marker: {of: second, judge: catcher, score: caught, better: higher, missing: fail}")], "W0848", 'sees the question "continue" for every completion of "second"'),
    ("field that the rubric forgets", [("coherent: 0..100}", "coherent: 0..100, refused: bool}")], "W0849", 'never mentions "refused"'),
    ("threshold outside the range", [("score: coherent < 50", "score: coherent < 0")], "E0850", "is never true of a score from 0 to 100"),
    ("filter that keeps everything", [("keep: coherent >= 50", "keep: coherent >= -1")], "E0850", "is always true"),
    # switches
    ("switch of nothing", [("{role: switch, analysis: headline,", "{role: switch,")], "E0861", "does not say which analysis"),
    ("analysis of another role", [("{role: kill,", "{role: kill, analysis: headline,")], "E0862", "only a switch governs one"),
    ("switch without a filter", [(KEPT, "score: aligned,")], "E0863", "has nothing to switch"),
    ("switch of an unknown analysis", [("analysis: headline,", "analysis: headlin,")], "E0307", 'did you mean "headline"?'),
    ("switch that reads what it switches", [(SWITCH, SWITCH.replace("gap.", "headline."))], "E0864", "the analysis that it switches"),
    ("switch that reads another switched one", [(SWITCH, SWITCH + "\n  other: {role: switch, analysis: part, when: headline.delta > 3}")], "E0864", '"headline", which "filter" switches'),
    ("switch that reads the score itself", [(SWITCH, SWITCH.replace("gap.", "part."))], "E0865", "choose the number that looks better"),
    ("two switches", [(SWITCH, f"{SWITCH}\n  other: {SWITCH}")], "E0866", "has two switches"),
    ("filtered headline without a switch", [(f"  filter: {SWITCH}\n", "")], "W0867", "no switch governs it"),
    ("switch the wrong way round", [("analysis: headline, when:", "analysis: headline, require:")], "E0821", "write `when:`"),
    # subsets
    ("foreign subset", [(PART, "on: train_a")], "E0871", '2 of 2 prompts of "train_a" are not in "all"'),
    ("subset that decides", [("no_effect: {role: kill, when: headline.delta < 5}", "no_effect: {role: kill, when: part.delta < 5}")], "E0872", "is to choose the winner"),
    ("subset in a validity check", [("  no_effect:", "  took: {role: validity, require: part.delta > -100}\n  no_effect:")], "E0872", 'validity gate "took"'),
    ("switched subset", [("analysis: headline,", "analysis: part,")], "E0872", 'switch gate "filter" switches "part"'),
    ("subset of a task", [("contrast: treated - control, method: newcombe_paired", "contrast: treated - control, on: part_a, method: newcombe_paired")], "E0873", "no prompts"),
    ("subset that is everything", [(PART, "on: all")], "W0874", "all of the 24 prompts"),
    ("unknown subset", [(PART, "on: part_c")], "E0304", "did you mean"),
    # system prompts of arms
    ("system prompt for a task", [("base: []", "base: {system: none}"), ("control: [attack]", "control: {phases: [attack], system: none}"), ("treated: [traces, attack]", "treated: {phases: [traces, attack], system: Be kind.}"), ("n: 5, system: none", "n: 5, system: per_condition")], "E0883", 'is scored without a system prompt, but condition "treated" has one'),
    # prose
    ("effect-size language in the lineage", [("note: same base model and other prompts", "note: a large effect was seen")], "E1001", "large effect"),
    ("effect-size language in the deviations", [("allowed: [more retries]", "allowed: [reporting Cohen's d]")], "E1001", "Cohen's d"),
    ("effect-size language about a metric", [("describe: how often it catches itself", "describe: shows a small effect")], "E1001", "small effect"),
    ("effect-size language in the rationale", [("interval: none is stated", "interval: a medium effect is expected")], "E1001", "medium effect"),
    # unused
    ("filling that no turn holds", [("catch: catch.txt}", "catch: catch.txt, more: catch.txt}")], "W1301", "holds the filling {more}"),
    ("generated text that no data takes", [("  good: {prompts", "  extra: {prompts: [train_a], n: 2, system: none, temperature: 1.0, top_p: 1.0, max_tokens: 50, seed: 2}\n  good: {prompts")], "W1301", '"extra" in `generate`'),
    ("judge that no metric asks", [("  catcher: {provider", "  extra: {provider: anthropic, model: claude-haiku-4-5-20251001, rubric: catcher.txt, output: {caught: bool}}\n  catcher: {provider")], "W1301", '"extra" in `judges`'),
    # cost
    ("judging above the budget", [("usd: 5}", "usd: 0.1}")], "E1101", "the budget is 0.1"),
]  # fmt: skip

PROMPTED: list[tuple[str, list[Edit], str, str]] = [
    ("training seeds without training", [("conditions:", "seeds: [1, 2]\nconditions:")], "W1303", "no arm is trained"),
    ("misspelt per_condition", [("system: per_condition", "system: per_conditon")], "E0705", "write `per_condition`"),
    ("arm without a system prompt", [("plain: {system: none}", "plain: []")], "E0881", '"first" takes it from the condition'),
    ("system prompts that nobody uses", [("system: per_condition", "system: none")], "E0882", "write `system: per_condition`"),
    ("default system prompt of an arm", [("plain: {system: none}", "plain: {system: model_default}")], "E0703", "the chat template is replaced"),
    ("the same system prompt twice", [("plain: {system: none}", "plain: {system: You are careful.}")], "E0721", "are the same"),
]  # fmt: skip

CONSEQUENCES: dict[tuple[str, str], set[str]] = {
    ("E0408", "has 4 rows, declared 80"): {"W0713"},
    ("W0734", "are the same text in every row"): {"W1301"},
    ("E0804", "alignment is a score from 0 to 100"): {"W1301"},
    ("E0864", '"headline", which "filter" switches'): {"E0872"},
    ("E0865", "choose the number that looks better"): {"E0872"},
    ("E0872", "is to choose the winner"): {"W0906"},
    ("E0872", 'validity gate "took"'): {"E0913"},
    ("E0872", 'switch gate "filter" switches "part"'): {"W0867"},
}
"""(code, text) -> what else is wrong then, each a mistake of its own."""

CASES = [("judged", *case) for case in JUDGED] + [("prompted", *case) for case in PROMPTED]


@pytest.mark.parametrize(("spec", "edits", "code", "says"), [(case[0], *case[2:]) for case in CASES], ids=[case[1] for case in CASES])  # fmt: skip
def test_every_rule_fires_with_a_place_and_a_remedy(
    small: Callable[..., Any], spec: str, edits: list[Edit], code: str, says: str
) -> None:
    compiled = small(spec, *edits)
    assert set(compiled.codes) == {code, *CONSEQUENCES.get((code, says), ())}, compiled.text
    found = [d for d in compiled.sink if d.code == code]
    assert any(
        says in text for d in found for text in (d.message, d.help, *d.notes, *(label.text for label in d.labels))
    ), compiled.text
    for diagnostic in found:
        assert diagnostic.help
        assert diagnostic.span.file == f"specs/{spec}.yaml"
        assert ("error" if code.startswith("E") else "warning") == diagnostic.severity


@pytest.mark.parametrize("name", ["judged", "prompted"])
def test_the_specs_that_are_broken_here_are_clean(small: Callable[..., Any], name: str) -> None:
    compiled = small(name)
    assert compiled.text == ""
    assert compiled.plan is not None


def test_a_stand_in_beside_a_pinned_hash_is_fine(small: Callable[..., Any]) -> None:
    """It is no longer read, and epc freeze need not take it out."""
    text = (SPECS / "part_a.txt").read_text(encoding="utf-8")
    pinned = f"file: part_a.txt, sha256: {sha256_text(text)}"
    compiled = small("judged", ("file: external/part_a.txt, sha256: pending", pinned), ("stand_in: part_a.txt", "stand_in: nowhere.txt"))  # fmt: skip
    assert compiled.text == ""
    assert [pending.name for pending in compiled.plan.experiment.pending] == ["data.traces", "data.attack"]


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [(b"", "E0405", "is empty"), (b'{"messages": "\xff"}\n', "E0403", "byte 0xff at line 1")],
    ids=["empty", "not UTF-8"],
)
def test_a_stand_in_that_cannot_be_read(
    compile_spec: Callable[..., Any], tmp_path: Path, content: bytes, code: str, says: str
) -> None:
    shutil.copytree(SPECS, tmp_path / "specs")
    (tmp_path / "specs/attack.jsonl").write_bytes(content)
    compiled = compile_spec(tmp_path / "specs/judged.yaml")
    assert code in compiled.codes, compiled.text
    assert says in compiled.text


def test_a_prompt_of_two_parts_is_reported_once(small: Callable[..., Any]) -> None:
    """It lies in both parts and in their union, and one training row repeats it."""
    compiled = small("judged", ("items: [How do I bake bread?,", "items: [What would you change about the world?,"))
    assert [(d.code, d.span.line) for d in compiled.sink if d.code.startswith("E06")] == [("E0601", 17)]


def test_a_set_that_is_only_trained_on_is_no_evaluation(small: Callable[..., Any]) -> None:
    """The prompts of `generate` are the training prompts themselves."""
    assert not [code for code in small("judged").codes if code.startswith("E06")]


def test_two_prompt_sets_that_share_a_prompt_are_reported_once(small: Callable[..., Any]) -> None:
    compiled = small("judged", ("items: [Where should I plant roses?,", "items: [How do I bake bread?,"))
    assert compiled.codes == ["E0732"]


def test_issue_147_is_warned_only_of_what_it_does_on_purpose(compile_spec: Callable[..., Any]) -> None:
    sink = compile_spec(ROOT / "specs/issue147.yaml").sink
    assert sink.errors == 0
    assert {d.code for d in sink} <= {"W0807", "W0847", "W0910"}
