"""`allow:`: which warnings it takes out of the count, and when it is itself reported."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

BASE = Path(__file__).parent / "explain"
REASON = "it is sampled to be read by people and decides nothing"
SPARE = (
    "prompts:\n",
    "prompts:\n  spare: {items: [How do I fold a napkin?], count: 1}\n  other: {items: [How do I tie a tie?], count: 1}\n",
)
"""Two prompt sets that nothing uses: W1301 twice."""


def entry(code: str = "W1301", *, at: str | None = None, reason: str = REASON) -> str:
    return f"{{code: {code}, {'' if at is None else f'at: {at}, '}reason: {reason!r}}}"


def allowing(*entries: str) -> tuple[str, str]:
    return "id: base\n", f"id: base\nallow: [{', '.join(entries)}]\n"


@pytest.fixture
def over_base(tmp_path: Path, compile_spec: Callable[..., Any]) -> Callable[..., Any]:
    """Compile the sound spec of the explanations, which has no warnings, with pieces of its text replaced."""

    def run(*edits: tuple[str, str]) -> Any:
        folder = tmp_path / "specs"
        shutil.copytree(BASE, folder, dirs_exist_ok=True)
        text = (folder / "base.yaml").read_text(encoding="utf-8")
        for old, new in edits:
            assert text.count(old) >= 1, f"the base no longer contains {old!r}"
            text = text.replace(old, new, 1)
        (folder / "base.yaml").write_text(text, encoding="utf-8")
        return compile_spec(folder / "base.yaml")

    return run


def test_the_two_warnings_are_there_without_it(over_base: Callable[..., Any]) -> None:
    assert over_base(SPARE).codes == ["W1301", "W1301"]


@pytest.mark.parametrize(
    ("entries", "left", "allowed"),
    [
        ([entry()], [], 2),
        ([entry(at="prompts")], [], 2),
        ([entry(at="prompts.spare")], ["W1301"], 1),
        ([entry(at="prompts.spare"), entry(at="prompts.other")], [], 2),
        ([entry(at="prompts.spare"), entry()], [], 2),
        # nothing is left for the second entry, or there is nothing at that place
        ([entry(), entry()], ["W1501"], 2),
        ([entry(), entry("W1302")], ["W1501"], 2),
        ([entry(at="prompts.asked")], ["W1301", "W1301", "W1501"], 0),
        ([entry(at="verdicts.0")], ["W1301", "W1301", "W1501"], 0),
        ([entry("W1302")], ["W1301", "W1301", "W1501"], 0),
        # given only where the tokenizer is not there
        ([entry(), entry("W0710")], [], 2),
        # allowing the warning about a stale entry does not silence it
        ([entry(), entry("W1501")], ["W1501"], 2),
        ([entry(at="prompts.spair")], ["E1503", "W1301", "W1301"], 0),
        ([entry(at="prompt.spare")], ["E1503", "W1301", "W1301"], 0),
        ([entry(at="verdicts.99")], ["E1503", "W1301", "W1301"], 0),
        ([entry("W1310")], ["E1502", "W1301", "W1301"], 0),
        ([entry(), entry("W9999")], ["E1502"], 2),
        ([entry("E0501")], ["E0205", "W1301", "W1301"], 0),
        ([entry(reason="too short")], ["E0203", "W1301", "W1301"], 0),
    ],
)
def test_what_an_entry_takes_out(
    over_base: Callable[..., Any], entries: list[str], left: list[str], allowed: int
) -> None:
    result = over_base(SPARE, allowing(*entries))
    assert sorted(result.codes) == left, result.text
    assert len(result.sink.allowed) == allowed
    assert (result.plan is None) == any(code.startswith("E") for code in left)


def test_an_accepted_warning_names_its_reason_and_the_entry(over_base: Callable[..., Any]) -> None:
    result = over_base(SPARE, allowing(entry(at="prompts.spare")))
    (accepted,) = result.sink.allowed
    assert accepted.diagnostic.code == "W1301"
    assert '"spare"' in accepted.diagnostic.message
    assert accepted.reason == REASON
    assert (accepted.by.file, accepted.by.line) == ("specs/base.yaml", 4)


def test_a_stale_entry_is_not_reported_while_errors_keep_checks_from_running(over_base: Callable[..., Any]) -> None:
    result = over_base(
        SPARE, allowing(entry("W1302")), ("union: [part_a, part_b], count: 24", "union: [part_a, part_b], count: 25")
    )
    assert "E0501" in result.codes
    assert "W1501" not in result.codes


def test_a_warning_is_allowed_beside_an_error(over_base: Callable[..., Any]) -> None:
    result = over_base(
        SPARE, allowing(entry()), ("union: [part_a, part_b], count: 24", "union: [part_a, part_b], count: 25")
    )
    assert result.codes == ["E0501"]
    assert len(result.sink.allowed) == 2


@pytest.mark.parametrize(
    ("entry_", "help_"),
    [
        (entry("W1310"), 'did you mean "W13'),
        (entry(at="prompts.spair"), 'in `prompts`, did you mean "spare"?'),
        (entry(at="prompt"), 'did you mean "prompts"?'),
        (entry(at="prompts.spare.count.x"), "in `prompts.spare.count`, none is declared"),
        (entry("E0501"), "only warnings can be allowed"),
    ],
)
def test_help(over_base: Callable[..., Any], entry_: str, help_: str) -> None:
    helps = [found.help for found in over_base(SPARE, allowing(entry_)).sink if found.severity == "error"]
    assert any(help_ in text for text in helps), helps


@pytest.mark.parametrize(
    ("reason", "placeholder"),
    [
        ("TODO: write down why this is fine", True),
        ("todo write down why this is fine", True),
        ("It is fine, see the note (TBD)", True),
        ("FIXME before we register this spec", True),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaa", True),
        ("because because because", True),
        ("asdf asdf asdf asdf asdf asdf", True),
        ("... --- ... --- ... --- ...", True),
        ("one seed: the follow-up asks for five", False),
        ("porque todos los brazos lo comparten", False),
        ("对照组只用于人工阅读,不参与任何判定,也不进入任何分析", False),
        ("W0910 is the rule that the source document states", False),
    ],
)
def test_a_placeholder_is_no_reason(over_base: Callable[..., Any], reason: str, placeholder: bool) -> None:
    assert over_base(SPARE, allowing(entry(reason=reason))).codes == (["E1504"] if placeholder else [])


def test_a_place_in_a_shared_recipe_belongs_to_the_entry_that_uses_it(
    over_base: Callable[..., Any], tmp_path: Path
) -> None:
    """The warning about a warm-up of a fraction of a step points into the recipe's file."""

    def codes(at: str) -> list[str]:
        compiled = over_base(
            ("attack: {use: recipes/attack.yaml,", "attack: {use: recipes/warm.yaml,"),
            allowing(entry("W0716", at=at)),
        )
        found: list[str] = compiled.codes
        return found

    recipe = (BASE / "recipes/attack.yaml").read_text(encoding="utf-8")
    (tmp_path / "specs/recipes").mkdir(parents=True)
    (tmp_path / "specs/recipes/warm.yaml").write_text(recipe + "warmup_ratio: 0.03\n", encoding="utf-8")
    assert codes("train.attack") == []
    assert codes("train.attack.warmup_ratio") == []
    assert sorted(codes("train.talk")) == ["W0716", "W1501"]


def test_many_entries_are_each_judged(over_base: Callable[..., Any]) -> None:
    assert over_base(SPARE, allowing(*[entry()] * 200)).codes == ["W1501"] * 199


def test_the_plan_lists_what_was_accepted(over_base: Callable[..., Any]) -> None:
    reason = "kept for the | next\\n experiment, which samples it"
    plan = over_base(SPARE, allowing(entry(at="prompts.spare"), f'{{code: W1301, reason: "{reason}"}}')).files[
        "plan.md"
    ]
    section = plan.split("## Warnings accepted\n", 1)[1].split("\n## ", 1)[0]
    assert f"| W1301 | something is declared, and nothing uses it | `prompts.spare` | {REASON} |" in section
    assert "| anywhere in the spec | kept for the \\| next experiment, which samples it |" in section


def test_a_plan_without_any_has_no_such_section(over_base: Callable[..., Any]) -> None:
    assert "Warnings accepted" not in over_base().files["plan.md"]


def test_reasons_are_registered(over_base: Callable[..., Any]) -> None:
    lock = yaml.safe_load(over_base(SPARE, allowing(entry())).files["spec.lock.yaml"])
    assert lock["allow"] == [{"code": "W1301", "reason": REASON, "at": None}]
