"""Chat templates rendered as transformers renders them, without transformers.

transformers compiles a template in Jinja's immutable sandbox with trimmed blocks, `break` and `continue`, a tag
`generation` around what the assistant wrote, and a few names (its documentation, "Chat templates"). Here the tag
leaves a mark on either side of what it encloses.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from epc.compiler.contract.chat import Message

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.nodes import Node
    from jinja2.parser import Parser

_OPEN: Final = "\ue000"
_CLOSE: Final = "\ue001"
_QUESTION: Final = "qzquestion"
_ANSWER: Final = "qzanswer"
_AGAIN: Final = "qzagain"
_TAG: Final = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_SPECIAL: Final = re.compile(r"<[^<>\s]+>|\[/?\w+\]")
"""Words that stand for a special token in the templates of published models."""
_PIECE: Final = re.compile(rf"{_SPECIAL.pattern}|.", re.DOTALL)
_DATE: Final = "26 Jul 2024"
"""What a template that asks for today's date is told, so that facts and counts do not change over night."""

_NO_TOKENS: Final = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "")

EndOfTurn = Literal["trained", "outside", "absent", "unmarked"]
"""Where the end-of-turn token of an assistant turn stands: inside the marks, behind them, nowhere; or no marks."""


@dataclass(frozen=True, kw_only=True)
class TemplateFacts:
    marked: bool
    """Whether it marks what the assistant wrote, from which the loss mask is made."""
    default_system: str | None
    """The system prompt that it inserts where none is given."""
    end_of_turn: EndOfTurn


def render(template: str, messages: Sequence[Message], tokens: Mapping[str, str]) -> str | None:
    """The text of a conversation, None where the template refuses it. `tokens`: names such as bos_token -> text."""
    text = _render(template, messages, tokens)
    return None if text is None else text.replace(_OPEN, "").replace(_CLOSE, "")


def facts(template: str, tokens: Mapping[str, str]) -> TemplateFacts | None:
    """What a template does with conversations, None for one that cannot render the simplest."""
    user = {"role": "user", "content": _QUESTION}
    assistant = {"role": "assistant", "content": _ANSWER}
    alone = _render(template, [user], tokens)
    answered = _render(template, [user, assistant], tokens)
    longer = _render(template, [user, assistant, {"role": "user", "content": _AGAIN}], tokens)
    if alone is None or answered is None or longer is None or _QUESTION not in alone or _ANSWER not in answered:
        return None
    marked = _TAG.search(template) is not None
    return TemplateFacts(
        marked=marked, default_system=_inserted(alone, longer, tokens),
        end_of_turn=_end_of_turn(answered, tokens) if marked else "unmarked",
    )  # fmt: skip


def _inserted(alone: str, longer: str, tokens: Mapping[str, str]) -> str | None:
    """Words before the first user turn that do not stand before a later one."""
    before = _pieces(alone.partition(_QUESTION)[0], tokens)
    later = _pieces(longer.rpartition(_AGAIN)[0].rpartition(_ANSWER)[2].replace(_CLOSE, ""), tokens)
    while before and later and before[-1] == later[-1]:
        before.pop()
        later.pop()
    words = _SPECIAL.sub(" ", "".join(before)).strip()
    words = re.sub(r"^(?:system|developer)\b[:\s]*", "", words, flags=re.IGNORECASE)
    return words if re.search(r"\w", words) else None


def _pieces(text: str, tokens: Mapping[str, str]) -> list[str]:
    """Special tokens, whole, and single characters; what the tokenizer calls a special token is left out."""
    for token in filter(None, tokens.values()):
        text = text.replace(token, "")
    return _PIECE.findall(text)


def _end_of_turn(answered: str, tokens: Mapping[str, str]) -> EndOfTurn:
    """Where the first special token after the assistant's text stands."""
    start = answered.rindex(_ANSWER) + len(_ANSWER)
    found = _SPECIAL.search(answered, start)
    stop = tokens.get("eos_token")
    places = [
        place for place in (answered.find(stop, start) if stop else -1, found.start() if found else -1) if place >= 0
    ]
    if not places:
        return "absent"
    before = answered[: min(places)]
    return "trained" if before.count(_OPEN) > before.count(_CLOSE) else "outside"


def _render(template: str, messages: Sequence[Message], tokens: Mapping[str, str]) -> str | None:
    """The text with the marks in it."""
    try:
        compiled = _environment().from_string(template)
        return compiled.render(messages=list(messages), add_generation_prompt=False, **{**_NO_TOKENS, **tokens})
    except Exception:  # a template is a program of somebody else, and may fail in any way
        return None


@functools.cache
def _environment() -> Environment:
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %} ... {% endgeneration %}`."""

        tags = {"generation"}  # noqa: RUF012 - jinja declares it so

        def parse(self, parser: Parser) -> Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            block = nodes.CallBlock(self.call_method("marked"), [], [], body)
            return block.set_lineno(line)

        def marked(self, caller: Any) -> str:
            return f"{_OPEN}{caller()}{_CLOSE}"

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def as_json(value: Any, indent: int | None = None, **_: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = as_json
    environment.globals |= {"raise_exception": refuse, "strftime_now": lambda _: _DATE}
    return environment
