"""Rows and text files as they are frozen: every defect is one fault that names its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.canonical import sha256_file, sha256_text
from epc.compiler.contract.chat import build_rows, rows_text
from epc.runtime import data
from epc.runtime.errors import Fault

GOOD = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


def recipe(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "rows": 5, "seed": 1, "system": "none", "turns": [("user", "How do I {topic}?"), ("assistant", "{bad}")],
        "fill": {"topic": ["sew", "bake", "paint"], "bad": ["No.", "Never."]},
    }  # fmt: skip
    return base | changes


def test_built_rows_are_written_when_their_hash_is_the_registered_one(tmp_path: Path) -> None:
    rows = build_rows(**recipe())
    data.write_rows(tmp_path / "rows.jsonl", rows, expected_sha256=sha256_text(rows_text(rows)))
    assert data.read_rows(tmp_path / "rows.jsonl", rows=5) == rows
    assert sha256_file(tmp_path / "rows.jsonl") == sha256_text(rows_text(rows))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 2},
        {"rows": 6},
        {"system": "Be kind."},
        {"turns": [("user", "How do I {topic}"), ("assistant", "{bad}")]},
        {"fill": {"topic": ["sew", "bake", "paint", "dig"], "bad": ["No.", "Never."]}},
    ],
)
def test_any_change_of_the_recipe_changes_the_rows_and_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    registered = sha256_text(rows_text(build_rows(**recipe())))
    with pytest.raises(Fault, match="R0323"):
        data.write_rows(tmp_path / "rows.jsonl", build_rows(**recipe(**changes)), expected_sha256=registered)
    assert not (tmp_path / "rows.jsonl").exists()


@pytest.mark.parametrize(
    ("line", "fact"),
    [
        ('{"messages": [{"role": "user"', "not JSON"),
        ("[]", "no list of messages"),
        ('{"messages": []}', "no list of messages"),
        ('{"prompt": "x", "completion": "y"}', "no list of messages"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "role must be one of"),
        ('{"messages": [{"role": "assistant", "content": ""}]}', "not empty"),
        ('{"messages": [{"role": "assistant", "content": null}]}', "not empty"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "last turn is not the assistant's"),
    ],
)
def test_a_bad_line_is_named_with_its_number(line: str, fact: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(GOOD) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(Fault, match="R0324") as caught:
        data.read_rows(file, rows=2)
    assert caught.value.place == f"{file}:2"
    assert fact in caught.value.fact


@pytest.mark.parametrize(("count", "registered"), [(3, 4), (4, 3), (0, 1)])
def test_another_number_of_rows_is_refused(count: int, registered: int, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text((json.dumps(GOOD) + "\n") * count, encoding="utf-8")
    with pytest.raises(Fault, match="R0325") as caught:
        data.read_rows(file, rows=registered)
    assert f"{count} rows" in caught.value.fact


def test_an_existing_file_is_copied_only_as_registered(tmp_path: Path) -> None:
    source, copy = tmp_path / "source.jsonl", tmp_path / "rows.jsonl"
    source.write_text((json.dumps(GOOD) + "\n") * 3, encoding="utf-8")
    registered = sha256_file(source)
    data.freeze_file(source, copy, rows=3, expected_sha256=registered)
    assert copy.read_bytes() == source.read_bytes()
    copy.unlink()
    with pytest.raises(Fault, match="R0325"):
        data.freeze_file(source, copy, rows=2, expected_sha256=registered)
    source.write_text((json.dumps(GOOD) + "\n") * 2, encoding="utf-8")
    with pytest.raises(Fault, match="R0323"):
        data.freeze_file(source, copy, rows=3, expected_sha256=registered)
    source.unlink()
    with pytest.raises(Fault, match="R0321"):
        data.freeze_file(source, copy, rows=3, expected_sha256=registered)
    assert not copy.exists()


@pytest.mark.parametrize(("text", "code"), [(None, "R0321"), ("", "R0322"), ("\n \n\t\n", "R0322")])
def test_a_text_file_without_entries_is_refused(text: str | None, code: str, tmp_path: Path) -> None:
    file = tmp_path / "topics.txt"
    if text is not None:
        file.write_text(text, encoding="utf-8")
    with pytest.raises(Fault, match=code):
        data.read_lines(file)


def test_entries_are_stripped_and_empty_lines_left_out(tmp_path: Path) -> None:
    file = tmp_path / "topics.txt"
    file.write_text("  sew a button \n\nbake\r\n", encoding="utf-8")
    assert data.read_lines(file) == ["sew a button", "bake"]


def test_the_last_turn_alone_is_trained_as_prompt_and_completion() -> None:
    messages = [*GOOD["messages"], {"role": "user", "content": "More"}, {"role": "assistant", "content": "Bye"}]
    rows = [{"messages": messages}]
    assert data.training_set(rows, "every_assistant_turn")[0] == {"messages": messages}
    assert data.training_set(rows, "last_assistant_turn")[0] == {"prompt": messages[:3], "completion": messages[3:]}
