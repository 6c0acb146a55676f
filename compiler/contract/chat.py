"""Conversations as pure functions: prompt files, templates of turns, and what fills them.

The compiler computes hashes with these functions and the runtime writes rows with the same ones,
so what was registered and what is trained on or sampled from cannot differ.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.draws import draw_index

Message = dict[str, str]
"""{"role": "system" | "user" | "assistant", "content": text}."""

NO_SYSTEM = ("none", "model_default")
"""Values of `system` that put no system message into the conversation."""

_PLACEHOLDER = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")


def lines(text: str) -> list[str]:
    """Entries of a one-per-line file: stripped lines that are not empty, in order."""
    return [line.strip() for line in text.split("\n") if line.strip()]


def item_id(prompt: str) -> str:
    """Id of a prompt: 12 hex digits of its SHA-256, stable under reordering of the file."""
    return sha256_text(prompt)[:12]


def placeholders(template: str) -> list[str]:
    """Names in braces, in order of appearance; `{{` and `}}` are literal braces."""
    return [match.group(1) for match in _PLACEHOLDER.finditer(template) if match.group(1)]


def before_placeholders(template: str) -> str:
    """The text before the first placeholder, the same however the template is filled; all of it where there is none."""
    begin = ""
    for named, piece in _pieces(template):
        if named:
            break
        begin += piece
    return begin


def fill_text(template: str, values: Mapping[str, str]) -> str:
    """The template with every {name} replaced once; filled text is not scanned again.

    Raises KeyError for a name that `values` lacks.
    """
    return _filled(_pieces(template), values)


Pieces = tuple[tuple[bool, str], ...]
"""A template in pieces, left to right: whether it is a name, and the name or literal text."""


def _filled(pieces: Pieces, values: Mapping[str, str]) -> str:
    return "".join([values[piece] if named else piece for named, piece in pieces])


@functools.lru_cache(maxsize=1024)
def _pieces(template: str) -> Pieces:
    pieces: list[tuple[bool, str]] = []
    end = 0
    for match in _PLACEHOLDER.finditer(template):
        if match.group(1):
            pieces += [(False, template[end : match.start()]), (True, match.group(1))]
        else:
            pieces.append((False, template[end : match.start() + 1]))  # one of two braces
        end = match.end()
    pieces.append((False, template[end:]))
    return tuple(piece for piece in pieces if piece[1])


def fill_turns(turns: Iterable[tuple[str, str]], system: str, values: Mapping[str, str]) -> list[Message]:
    """Messages of one conversation: the system text if there is one, then the filled turns."""
    return _messages([(role, _pieces(template)) for role, template in turns], system, values)


def _messages(turns: Iterable[tuple[str, Pieces]], system: str, values: Mapping[str, str]) -> list[Message]:
    messages = [] if system in NO_SYSTEM else [{"role": "system", "content": system}]
    return messages + [{"role": role, "content": _filled(pieces, values)} for role, pieces in turns]


Texts = Mapping[tuple[str, int], str]
"""Generated texts: (prompt, index) -> text."""


def build_rows(
    *,
    rows: int,
    seed: int,
    system: str,
    turns: Sequence[tuple[str, str]],
    fill: Mapping[str, Sequence[str]],
    prompts: Sequence[str] = (),
    same_prompt: Mapping[str, Texts] | None = None,
    other_prompt: Mapping[str, Texts] | None = None,
) -> list[dict[str, Any]]:
    """Training rows {"messages": [...]}; row i takes for each name in `fill` the SHA-256 draw of (seed, "data", i, name).

    With `prompts`, every prompt gives rows / len(prompts) consecutive rows, numbered from 0 within the
    prompt, and {prompt} is the prompt. A name in `same_prompt` is the text generated for that prompt and
    number; one in `other_prompt` is the text of that number for another prompt, drawn by (seed, "other",
    i, name). Raises ValueError when a list to draw from is empty or the rows do not divide evenly,
    KeyError when a text is missing.
    """
    each, rest = divmod(rows, len(prompts)) if prompts else (rows, 0)
    if rest:
        raise ValueError(f"{rows} rows do not divide evenly among {len(prompts)} prompts")
    pieces = [(role, _pieces(template)) for role, template in turns]
    built = []
    for i in range(rows):
        values = {name: entries[draw_index(len(entries), seed, "data", i, name)] for name, entries in fill.items()}
        if prompts:
            own, number = divmod(i, each)
            values["prompt"] = prompts[own]
            for name, texts in (same_prompt or {}).items():
                values[name] = texts[prompts[own], number]
            for name, texts in (other_prompt or {}).items():
                other = draw_index(len(prompts) - 1, seed, "other", i, name)
                values[name] = texts[prompts[other + (other >= own)], number]
        built.append({"messages": _messages(pieces, system, values)})
    return built


def rows_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """The JSON Lines text of a data set, the one whose SHA-256 is registered."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


class Conversation(BaseModel):
    """What the model is to continue: one (item, index) of a sample set."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    item: str
    index: int
    turn: int
    """Position in the conversation of the assistant turn to be sampled, system message not counted."""
    messages: tuple[Message, ...]


def conversations(
    *,
    name: str,
    prompts: Sequence[str],
    system: str,
    turns: Sequence[tuple[str, str]],
    fill: Mapping[str, Sequence[str]],
    n: int,
    seed: int,
) -> Iterator[Conversation]:
    """Every conversation of the sample set `name`: n for each prompt, in the order of the prompts.

    {prompt} is the prompt; the other names are SHA-256 draws of (seed, "fill", name, item, index,
    placeholder), the same for every arm. Raises ValueError when a list to draw from is empty.
    """
    for prompt in prompts:
        item = item_id(prompt)
        for index in range(n):
            values = {
                key: entries[draw_index(len(entries), seed, "fill", name, item, index, key)]
                for key, entries in fill.items()
            }
            messages = fill_turns(turns, system, {**values, "prompt": prompt})
            yield Conversation(item=item, index=index, turn=len(turns), messages=tuple(messages))
