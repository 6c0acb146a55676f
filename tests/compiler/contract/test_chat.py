"""Templates of turns: what is filled, what is left alone, and that draws depend on names only."""

from __future__ import annotations

from typing import Any

import pytest

from epc.compiler.contract import chat


@pytest.mark.parametrize(
    ("template", "values", "filled"),
    [
        ("How do I {topic}?", {"topic": "sew"}, "How do I sew?"),
        ("{a} and {a}", {"a": "x"}, "x and x"),
        ("{a}{b}", {"a": "{b}", "b": "y"}, "{b}y"),  # filled text is not scanned again
        ("{{a}}", {"a": "x"}, "{a}"),
        ("{{{a}}}", {"a": "x"}, "{x}"),
        ("f({}) { 1 }", {}, "f({}) { 1 }"),
        ("nothing", {"a": "x"}, "nothing"),
    ],
)
def test_placeholders_are_replaced_once(template: str, values: dict[str, str], filled: str) -> None:
    assert chat.fill_text(template, values) == filled


def test_an_unknown_placeholder_is_an_error() -> None:
    with pytest.raises(KeyError, match="topic"):
        chat.fill_text("How do I {topic}?", {"bad": "x"})


@pytest.mark.parametrize(
    ("template", "names"),
    [("{b} {a} {b}", ["b", "a", "b"]), ("{{a}}", []), ("{1}", []), ("{a_1}", ["a_1"]), ("", [])],
)
def test_placeholders_are_found_in_order(template: str, names: list[str]) -> None:
    assert chat.placeholders(template) == names


@pytest.mark.parametrize(
    ("text", "entries"),
    [("", []), ("\n \n", []), ("a\nb", ["a", "b"]), (" a \r\n\nb\n", ["a", "b"]), ("# a", ["# a"])],
)
def test_a_file_holds_one_entry_a_line(text: str, entries: list[str]) -> None:
    assert chat.lines(text) == entries


@pytest.mark.parametrize(
    ("system", "roles"),
    [("none", ["user"]), ("model_default", ["user"]), ("Be kind.", ["system", "user"])],
)
def test_only_a_text_becomes_a_system_message(system: str, roles: list[str]) -> None:
    assert [message["role"] for message in chat.fill_turns([("user", "Hi")], system, {})] == roles


ROWS: dict[str, Any] = {
    "seed": 1, "system": "none", "turns": [("user", "{topic}"), ("assistant", "{bad}")],
    "fill": {"topic": [str(i) for i in range(50)], "bad": [str(i) for i in range(50)]},
}  # fmt: skip


def test_a_row_does_not_depend_on_how_many_there_are() -> None:
    assert chat.build_rows(rows=40, **ROWS)[:7] == chat.build_rows(rows=7, **ROWS)


def test_placeholders_of_a_row_are_drawn_apart() -> None:
    rows = chat.build_rows(rows=200, **ROWS)
    same = sum(row["messages"][0]["content"] == row["messages"][1]["content"] for row in rows)
    assert same < 20  # 4 are expected by chance


def test_every_entry_is_drawn() -> None:
    rows = chat.build_rows(rows=600, **ROWS)
    assert {row["messages"][0]["content"] for row in rows} == set(ROWS["fill"]["topic"])


def test_the_text_of_a_data_set_is_pinned() -> None:
    rows = chat.build_rows(
        rows=2, seed=1, system="none", turns=[("user", "Wie geht {x}?"), ("assistant", "Später.")], fill={"x": ["es"]}
    )
    line = '{"messages": [{"role": "user", "content": "Wie geht es?"}, {"role": "assistant", "content": "Später."}]}\n'
    assert chat.rows_text(rows) == line * 2


def sampled(prompts: list[str], **changes: Any) -> dict[tuple[str, int], chat.Conversation]:
    settings: dict[str, Any] = {
        "name": "s", "system": "none", "turns": [("user", "{prompt}"), ("assistant", "{bad}"), ("user", "continue")],
        "fill": {"bad": [str(i) for i in range(50)]}, "n": 8, "seed": 7,
    }  # fmt: skip
    found = chat.conversations(prompts=prompts, **(settings | changes))
    return {(conversation.item, conversation.index): conversation for conversation in found}


def test_a_conversation_depends_on_its_own_prompt_and_index_only() -> None:
    everything = sampled(["How?", "Why?", "When?"])
    assert sampled(["When?", "How?"]).items() <= everything.items()
    assert sampled(["How?"], n=3).items() <= everything.items()
    assert len(everything) == 24
    assert all(conversation.turn == 3 for conversation in everything.values())


@pytest.mark.parametrize("changes", [{"seed": 8}, {"name": "t"}])
def test_seed_and_set_change_the_fillings(changes: dict[str, Any]) -> None:
    before, after = sampled(["How?"]), sampled(["How?"], **changes)
    assert before.keys() == after.keys()
    assert [c.messages for c in before.values()] != [c.messages for c in after.values()]


def test_the_id_of_a_prompt_is_pinned() -> None:
    assert chat.item_id("How do I polish leather boots?") == "89a599014e40"
