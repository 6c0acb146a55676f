"""The view as text: tokens in colour on a terminal, with marks elsewhere.

Colours are of Okabe and Ito's palette, which people who confuse red and green tell apart; every one is doubled by a
mark or a weight, so that nothing rests on colour alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import shorten
from typing import TYPE_CHECKING, Final

from epc.runtime.masks.view import Piece, Row, Turn, View
from epc.runtime.wording import count

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

TRAINED: Final = ("bold #ffffff on #0072b2", "bold #ffffff on #005a8d")
"""Neighbouring tokens take turns, so that one ends where the next begins."""
PLAIN: Final = ("", "dim")
STOP: Final = "bold #000000 on #e69f00"
SPECIAL: Final = "italic #767676"
WHITE: Final = "#767676"
SYSTEM_WIDTH: Final = 60
"""Characters of a system prompt in the summary; the rows have it in full."""
OPEN, CLOSE = "[[", "]]"
"""Around what is trained, where there is no colour."""


def show(console: Console, views: list[View]) -> None:
    """Print summaries and rows."""
    from rich.text import Text

    coloured = console.is_terminal and not console.no_color and console.color_system is not None
    for view in views:
        for line in summary(view):
            console.print(Text(line), soft_wrap=True)
        if view.fault is not None:
            console.print(Text(view.fault.render()), soft_wrap=True, style="bold" if coloured else None)
        console.print(_legend() if coloured else Text(f"Trained text stands in {OPEN} {CLOSE}."), soft_wrap=True)
        for row in view.rows:
            console.print()
            for text in _row(row, coloured=coloured):
                console.print(text, soft_wrap=True)
        console.print()


def summary(view: View) -> Iterator[str]:
    """The counts of all rows, a few lines."""
    phase, facts = view.phase, view.facts
    system = shorten(phase.system, SYSTEM_WIDTH, placeholder=" ...")
    yield f"{phase.name} trains on {phase.train_on.replace('_', ' ')} of {phase.data}, system: {system}"
    share = facts["trained_tokens"] / facts["tokens"]
    by_turn = ", ".join(f"{number:,}" for number in facts["trained_tokens_by_turn"])
    yield f"  {count(facts['rows'], 'row')}, {facts['tokens']:,} tokens, {facts['trained_tokens']:,} trained ({share:.0%})"
    yield f"  trained tokens of the trained turns, first to last: {by_turn}"
    yield f"  longest row {facts['longest_row']:,} tokens, max_length {phase.max_length:,}"
    yield f"  end of turn {facts['end_of_turn']}" + (
        "" if view.fault is not None else ", trained in every trained turn"
    )


def _legend() -> Text:
    from rich.text import Text

    said = Text()
    for number, word in enumerate((" trained", " by", " the", " loss ")):
        said.append(word, TRAINED[number % 2])
    said.append(" end of turn, trained ", STOP).append("  ").append("special token", SPECIAL).append("  ")
    return said.append("not", PLAIN[0]).append(" trained", PLAIN[1])


def _row(row: Row, *, coloured: bool) -> Iterator[Text]:
    from rich.text import Text

    yield Text(f"row {row.number}: {row.trained} of {count(row.tokens, 'token')} trained", "bold" if coloured else "")
    for turn in row.turns:
        yield Text(f"{turn.number} {turn.role}: {turn.trained} of {turn.tokens}", "bold" if coloured else "")
        yield _coloured(turn) if coloured else Text(_marked(turn))


def _coloured(turn: Turn) -> Text:
    from rich.text import Text

    text = Text("  ")
    for number, piece in enumerate(turn.pieces):
        text.append(_indented(piece), _style(piece, number))
    text.rstrip()
    return text


def _style(piece: Piece, number: int) -> str:
    if piece.trained:
        return STOP if piece.stop else TRAINED[number % 2]
    if piece.special:
        return SPECIAL
    return WHITE if piece.white else PLAIN[number % 2]


def _marked(turn: Turn) -> str:
    parts, inside = ["  "], False
    for piece in turn.pieces:
        if piece.trained != inside:
            parts.append(OPEN if piece.trained else CLOSE)
            inside = piece.trained
        parts.append(_indented(piece))
    return "".join([*parts, CLOSE if inside else ""]).rstrip()


def _indented(piece: Piece) -> str:
    return piece.shown.replace("\n", "\n  ")
