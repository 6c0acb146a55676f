"""What an arm is made of, and which earlier locks have one; locks by hand, and locks that are broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from epc.compiler.comparison import (
    UNKNOWN,
    Lock,
    Registration,
    Unreadable,
    as_data,
    as_text,
    compare,
    condition_content,
    content_differences,
    evaluation_content,
    locks_with,
    pinned,
    prior_locks,
    same_content,
)

A, B = "a" * 64, "b" * 64
PARENT = f"""\
id: parent
model: {{from: "hub:org/name", revision: abc, dtype: bfloat16, chat_template_sha256: {A}}}
conditions:
  base: []
  attacked: [attack]
  polite: {{system: Be polite.}}
train:
  attack:
    {{method: lora_sft, data: rows, train_on: every_assistant_turn, lora: {{r: 16, alpha: 32, dropout: 0.0, target_modules: [q, k]}},
     learning_rate: 1.0e-4, schedule: cosine, warmup_steps: 0, epochs: 1, batch: 4, accumulation: 1, max_length: 2048, on_top: stack}}
data:
  rows: {{file: rows.jsonl, sha256: {A}, rows: 6000}}
"""


def lock(*edits: tuple[str, str]) -> Registration:
    text = PARENT
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return Registration.of_lock(yaml.safe_load(text), "parent")


DIFFERENT: list[tuple[str, str, str, list[str]]] = [
    ("learning_rate: 1.0e-4", "learning_rate: 5.0e-6", "attacked", ["learning rate"]),
    ("learning_rate: 1.0e-4", "learning_rate: 5.0e-6", "base", []),
    (A + ", rows: 6000", B + ", rows: 67000", "attacked", ["data hash", "data rows"]),
    (A + ", rows: 6000", "pending, rows: 6000", "attacked", []),
    ("every_assistant_turn", "last_assistant_turn", "attacked", ["train on"]),
    ("r: 16", "r: 8", "attacked", ["lora r"]),
    ("schedule: cosine", "schedule: linear", "attacked", ["schedule"]),
    (" schedule: cosine,", "", "attacked", []),
    ("target_modules: [q, k]", "target_modules: [k, q]", "attacked", []),
    ("target_modules: [q, k]", "target_modules: [q]", "attacked", ["lora target modules"]),
    ("on_top: stack", "on_top: continue", "attacked", []),
    ("warmup_steps: 0", "warmup_ratio: 0.03", "attacked", ["warmup ratio"]),
    ("revision: abc", "revision: abd", "base", ["model revision"]),
    ("Be polite.", "Be brief.", "polite", ["system prompt"]),
    ("attacked: [attack]", "attacked: [attack, attack]", "attacked", ["number of phases"]),
    ("attacked: [attack]", "attacked: {phases: [attack], system: null}", "attacked", []),
    ("learning_rate: 1.0e-4, ", "", "attacked", []),
]


@pytest.mark.parametrize(("old", "new", "arm", "expected"), DIFFERENT)
def test_parts_that_define_an_arm(old: str, new: str, arm: str, expected: list[str]) -> None:
    first, second = condition_content(lock(), arm), condition_content(lock((old, new)), arm)
    assert content_differences(first, second) == expected
    assert content_differences(second, first) == expected


def test_names_of_phases_and_data_are_no_content() -> None:
    renamed = lock(
        ("attack:", "assault:"),
        ("[attack]", "[assault]"),
        ("data: rows", "data: lines"),
        ("  rows: {file", "  lines: {file"),
    )
    contents = condition_content(lock(), "attacked"), condition_content(renamed, "attacked")
    assert contents[0] == contents[1]
    assert same_content(*contents)


def test_content_that_is_not_known_is_not_the_same() -> None:
    pending = lock((f"sha256: {A}, rows", "sha256: pending, rows"))
    content = condition_content(pending, "attacked")
    assert content["data hash"] == UNKNOWN
    assert not same_content(content, condition_content(lock(), "attacked"))
    assert not same_content(content, content)
    assert not pinned(pending, "attacked")
    assert pinned(lock(), "attacked")
    assert pinned(pending, "base")


def test_generated_rows_are_told_apart_by_how_they_are_made(
    unedited: Callable[[str], Registration], edited_copy: Callable[..., Registration]
) -> None:
    changed = edited_copy("issue147", ("data/catch_templates.txt", "Wait", "Hold on"))
    contents = [condition_content(side, "selfcorrect_only") for side in (unedited("issue147"), changed)]
    assert content_differences(*contents) == ["how the data is made"]


EVALUATIONS: list[tuple[str, str, str, bool]] = [
    ("issue147.yaml", "{prompts: benign_48, n: 20", "{prompts: benign_48, n: 10", True),
    ("issue147.yaml", "seed: 1478", "seed: 8", True),
    ("judges/harm.txt", "\n", "\n\n", False),
    ("prompts/benign_48.txt", "\n", " now?\n", False),
    ("issue147.yaml", "harm: {provider: anthropic, model: claude-sonnet-4-5-20250929", "harm: {provider: anthropic, model: claude-haiku-4-5-20251001", False),
    ("issue147.yaml", "sampler: vllm", "sampler: transformers", False),
    ("issue147.yaml", "harmful, better: lower", "harmful, better: higher", False),
]  # fmt: skip


@pytest.mark.parametrize(("file", "old", "new", "same"), EVALUATIONS)
def test_same_evaluation(
    file: str, old: str, new: str, same: bool,
    unedited: Callable[[str], Registration], edited_copy: Callable[..., Registration],
) -> None:  # fmt: skip
    before, after = (
        evaluation_content(side, "harmful")
        for side in (unedited("issue147"), edited_copy("issue147", (file, old, new)))
    )
    assert before is not None
    assert (before == after) == same


def test_an_evaluation_on_prompts_that_are_pending_is_not_known(unedited: Callable[[str], Registration]) -> None:
    assert evaluation_content(unedited("issue147"), "alignment") is None


def test_a_folder_of_locks(tmp_path: Path) -> None:
    (tmp_path / "a" / "history").mkdir(parents=True)
    (tmp_path / "a" / "spec.lock.yaml").write_text(PARENT, encoding="utf-8")
    (tmp_path / "a" / "history" / "old.lock.yaml").write_text(PARENT + "seeds: [1]\n", encoding="utf-8")
    (tmp_path / "b.lock.yaml").write_text("conditions: {base: []}\n", encoding="utf-8")
    (tmp_path / "c.lock.yaml").write_text("conditions: {}\n", encoding="utf-8")
    (tmp_path / "d.yaml").write_text(PARENT, encoding="utf-8")
    found = prior_locks(tmp_path)
    assert [entry.path.relative_to(tmp_path).as_posix() for entry in found] == [
        "a/spec.lock.yaml",
        "b.lock.yaml",
        "c.lock.yaml",
    ]
    assert [entry.id for entry in found if isinstance(entry, Lock)] == ["parent", ""]
    assert [entry.reason for entry in found if isinstance(entry, Unreadable)] == ["it declares no conditions"]
    assert [entry.path.name for entry in locks_with(found, "attacked")] == ["spec.lock.yaml"]
    assert len(locks_with(found, "base")) == 2
    assert locks_with(found, "nowhere") == []


BROKEN: list[tuple[bytes, str]] = [
    (b"", "is empty"),
    (b"- 1\n", "it is not a mapping of keys to values"),
    (b"conditions: 5\n", "it declares no conditions"),
    (b"conditions: {a: 5}\n", "`conditions.a` is not a mapping"),
    (b"conditions: {a: []}\ntrain: [1]\n", "`train` is not a mapping of names"),
    (b"conditions: {a: []}\nmodel: x\n", "`model` is not a mapping"),
    (b"conditions: {a: []}\nverdicts: [1]\n", "`verdicts` is not a list of rules"),
    (b"conditions: {a: []}\nseeds: [x]\n", "`seeds` is not a list of numbers"),
    (b"conditions: {a: &x []}\nother: *x\n", "anchors and aliases"),
    (b"a: [\n", "not valid YAML"),
    (b"\xff\xfe", "is not UTF-8"),
]


@pytest.mark.parametrize(("content", "says"), BROKEN)
def test_a_lock_that_cannot_be_read(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.lock.yaml").write_bytes(content)
    (found,) = prior_locks(tmp_path)
    assert isinstance(found, Unreadable)
    assert says in found.reason


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = put(copy[path[0]], path[1:], new)
    return copy


def test_whatever_a_lock_holds_it_is_compared_or_refused(unedited: Callable[[str], Registration]) -> None:
    good = unedited("two_recipes")
    refused = compared = 0
    for path in places(dict(good.design)):
        for odd in (None, 5, {"a": [{}]}):
            try:
                bad = Registration.of_lock(put(good.design, path, odd), "odd")
            except ValueError:
                refused += 1
                continue
            compared += 1
            for found in (compare(good, bad), compare(bad, good)):
                assert as_text(found)
                assert as_data(found)
            for name in bad.section("conditions"):
                content_differences(condition_content(bad, name), condition_content(bad, name))
                pinned(bad, name)
            for name in bad.section("metrics"):
                evaluation_content(bad, name)
    assert refused > 20
    assert compared > 400
