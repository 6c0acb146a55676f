"""Rows cut into turns and turns into tokens, for a person to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from epc.compiler.contract.chat import Message
from epc.runtime import mask
from epc.runtime.errors import Fault
from epc.runtime.mask import MaskedRow, Report

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from epc.runtime.masks.sources import Phase

CUT: Final = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer decodes a part of a character to."""
CONTEXT: Final = 6
"""Tokens before one that decide how it is decoded: some tokenizers write no space before the first."""
TEMPLATE: Final = "template"
"""Role of text that the chat template adds by itself."""
SHOWABLE: Final = ("R0315", "R0316", "R1882", "R1883", "R1884")
"""Faults of a mask that its rows make plain."""
WHITE: Final = {" ": "␣", "\t": "⇥", "\r": "␍", "\n": "↵"}


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A token, or the few that spell one character together."""

    text: str
    index: int
    """Of its first token in the row, from 0."""
    ids: tuple[int, ...]
    trained: bool
    special: bool
    stop: bool
    """The end-of-turn token."""

    @property
    def white(self) -> bool:
        """Whitespace that is a token of its own."""
        return self.text.isspace()

    @property
    def shown(self) -> str:
        """The text with a sign for each whitespace character of a token of nothing else; a line ends after its sign."""
        if not self.white:
            return self.text
        return "".join(WHITE.get(sign, f"U+{ord(sign):04X}") + ("\n" if sign == "\n" else "") for sign in self.text)


@dataclass(frozen=True, kw_only=True)
class Turn:
    number: int
    role: str
    pieces: tuple[Piece, ...]

    @property
    def tokens(self) -> int:
        return sum(len(piece.ids) for piece in self.pieces)

    @property
    def trained(self) -> int:
        return sum(len(piece.ids) for piece in self.pieces if piece.trained)


@dataclass(frozen=True, kw_only=True)
class Row:
    number: int
    """From 1, as in the rows file."""
    turns: tuple[Turn, ...]

    @property
    def tokens(self) -> int:
        return sum(turn.tokens for turn in self.turns)

    @property
    def trained(self) -> int:
        return sum(turn.trained for turn in self.turns)


@dataclass(frozen=True, kw_only=True)
class View:
    """A phase: the counts of all its rows, and some of them in full."""

    phase: Phase
    facts: Mapping[str, Any]
    """Of all rows, as in a finish record."""
    rows: tuple[Row, ...]
    fault: Fault | None
    """What is wrong with the mask where that is so."""


def build(
    phase: Phase, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]], trainer: Any, *, place: Path,
    chosen: Sequence[int],
) -> View:  # fmt: skip
    """The view of a phase whose rows a trainer holds; `chosen` are numbers of rows from 1.

    A mask that trains other tokens than declared is shown, with its Fault. Raises Fault R0383 for a row that is not
    there, and every other Fault of `mask.verify`.
    """
    beyond = [number for number in chosen if not 1 <= number <= len(rows)]
    if beyond:
        raise Fault("R0383", str(place), f"there is no row {beyond[0]}", f"{phase.data} has rows 1 to {len(rows)}")
    fault: Fault | None = None
    try:
        report = mask.verify(
            trainer, rows, train_on=phase.train_on, system=phase.system, max_length=phase.max_length, place=place
        )  # fmt: skip
    except Fault as found:
        if found.code not in SHOWABLE:
            raise
        fault = found
        report = mask.found(trainer, tokenizer)
    facts = report.facts() | {"verified": fault is None}
    shown = tuple(_row(number, tokenizer, rows[number - 1]["messages"], report) for number in chosen)
    return View(phase=phase, facts=facts, rows=shown, fault=fault)


def _row(number: int, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], report: Report) -> Row:
    masked = report.rows[number - 1]
    pieces = iter(tuple(_pieces(tokenizer, masked, stop=report.end_of_turn)))
    turns: list[Turn] = []
    done = 0
    piece = next(pieces, None)
    for role, end in boundaries(tokenizer, messages, masked.text, stop=report.end_of_turn):
        held: list[Piece] = []
        while piece is not None and (done < end or end == len(masked.text)):
            held.append(piece)
            done += len(piece.text)
            piece = next(pieces, None)
        turns.append(Turn(number=len(turns) + 1, role=role, pieces=tuple(held)))
    return Row(number=number, turns=tuple(turns))


def boundaries(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], text: str, *, stop: str
) -> Iterator[tuple[str, int]]:
    """(role, end in characters) of every turn in a rendered row: each ends where the rows up to it end.

    A template that writes earlier turns in another way once later ones follow is cut after their content instead. Text
    with an end-of-turn token before the first message is the template's own.
    """
    begin = 0
    for number, message in enumerate(messages, start=1):
        content = message["content"].strip()
        start = text.find(content, begin)
        if number == len(messages):
            end = len(text)
        else:
            end = _end(tokenizer, messages[:number], text, after=start + len(content), stop=stop)
        if number == 1 and (own := text.rfind(stop, 0, max(start, 0))) >= 0:
            yield TEMPLATE, _past_white(text, own + len(stop))
        yield message["role"], end
        begin = end


def _end(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], text: str, *, after: int, stop: str) -> int:
    from jinja2 import TemplateError

    try:
        prefix = mask.render(tokenizer, messages)
    except TemplateError:  # some refuse to end here
        prefix = ""
    if len(prefix) >= after and text.startswith(prefix):
        return len(prefix)
    return _past_white(text, after + len(stop) if text.startswith(stop, after) else after)


def _past_white(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def _pieces(tokenizer: PreTrainedTokenizerBase, row: MaskedRow, *, stop: str) -> Iterator[Piece]:
    """The tokens with their texts, which joined are the row's text.

    A token is decoded together with those before it, and with those after it until whole characters come out.
    """
    special = set(tokenizer.all_special_ids)
    stop_id = tokenizer.convert_tokens_to_ids(stop)
    trained = {index for span in row.spans for index in range(span.start, span.end)}
    start = 0
    for end in range(1, len(row.tokens) + 1):
        context = row.tokens[max(0, start - CONTEXT) : start]
        before = mask.decode(tokenizer, context)
        text = mask.decode(tokenizer, (*context, *row.tokens[start:end]))[len(before) :]
        goes_on = end < len(row.tokens) and row.tokens[end] not in special and (start in trained) == (end in trained)
        if text.endswith(CUT) and goes_on:
            continue
        ids = row.tokens[start:end]
        yield Piece(
            text=text, index=start, ids=ids, trained=start in trained, special=ids[0] in special, stop=ids == (stop_id,)
        )  # fmt: skip
        start = end
