"""What a judge's provider takes: the version of its interface, and options, thinking, prompt cache and batches by model.

Read on 2026-11-21 in Anthropic's platform documentation (platform.claude.com/docs): the pages on effort, thinking,
prompt caching and batch processing, the model pages and the migration guides of 4.7 to 5.5; and in the signature of
`messages.create` of the anthropic package 2.12, which has no temperature, top_p, top_k or seed. Of a model that is not
in the table no option is known, so none is taken. Where two pages differ, or a page is silent, the narrower reading
stands here: manual thinking budgets are taken nowhere, thinking is switched off at effort high and below only, and the
prompt cache of Sonnet 4.6 begins at 2,048 tokens (1,024 in the documentation, 2,048 in anthropic-sdk-python#1194).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

API_VERSION: Final = "2026-10-21"
"""Of Anthropic's interface, sent with every call: an SDK of another day would otherwise choose another one."""

Value = str | int | float | bool


@dataclass(frozen=True, kw_only=True)
class Option:
    """What an option of a request may be: one of some words, or a number between two ends, both allowed."""

    words: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    whole: bool = False

    def takes(self, value: Value) -> bool:
        if self.words:
            return isinstance(value, str) and value in self.words
        number = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        return number and self.low <= float(value) <= self.high

    @property
    def described(self) -> str:
        """What may be written, in words."""
        if self.words:
            return " or ".join(filter(None, [", ".join(self.words[:-1]), self.words[-1]]))
        return f"a {'whole ' if self.whole else ''}number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True, kw_only=True)
class ClaudeModel:
    """What Messages takes for one model. Every one of them takes JSON Schema outputs and goes through Message Batches."""

    effort: tuple[str, ...]
    """Levels of `output_config.effort`; none where the model refuses it."""
    thinking: tuple[str, ...]
    """Values of `thinking.type`; none where only a budget of thinking tokens could be given."""
    thinks: bool
    """Whether it thinks where `thinking` is left out. What it thinks is paid for and counts toward max_tokens."""
    cache_from: int
    """Tokens from which the beginning of a prompt is kept in the prompt cache."""
    tokens: float = 1.0
    """Tokens of an English text, relative to those of the tokenizer before 4.7."""

    @property
    def options(self) -> dict[str, Option]:
        """Name in a spec -> what it may be: `effort` is sent as output_config.effort, `thinking` as thinking.type."""
        found = {"effort": self.effort, "thinking": self.thinking}
        return {name: Option(words=words) for name, words in found.items() if words}

    def thinks_with(self, thinking: Value | None) -> bool:
        """Whether it thinks before it answers, with that value of `thinking`."""
        return self.thinks if thinking is None else thinking == "adaptive"


_THREE: Final = ("low", "medium", "high")
_MAX: Final = (*_THREE, "max")
_ALL: Final = (*_THREE, "xhigh", "max")
NOT_THINKING: Final = ("disabled", "between_tools")
"""Values of `thinking` under which the efforts below are refused."""
THINKING_EFFORTS: Final = ("xhigh", "max")
_NEWER: Final = 1.3
"""The tokenizer of 4.7 and later counts about 30% more tokens in the same text."""

CLAUDE: Final[dict[str, ClaudeModel]] = {
    "claude-opus-4-5-20251101": ClaudeModel(effort=_THREE, thinking=(), thinks=False, cache_from=4096),
    "claude-sonnet-4-5-20250929": ClaudeModel(effort=(), thinking=(), thinks=False, cache_from=1024),
    "claude-haiku-4-5-20251001": ClaudeModel(effort=(), thinking=(), thinks=False, cache_from=4096),
    "claude-opus-4-6": ClaudeModel(effort=_MAX, thinking=("adaptive",), thinks=False, cache_from=4096),
    "claude-sonnet-4-6": ClaudeModel(effort=_MAX, thinking=("adaptive",), thinks=False, cache_from=2048),
    "claude-opus-4-7": ClaudeModel(effort=_ALL, thinking=("adaptive",), thinks=False, cache_from=2048, tokens=_NEWER),
    "claude-opus-4-8": ClaudeModel(effort=_ALL, thinking=("adaptive",), thinks=False, cache_from=1024, tokens=_NEWER),
    "claude-opus-5": ClaudeModel(effort=_ALL, thinking=("adaptive", "disabled"), thinks=True, cache_from=512, tokens=_NEWER),
    "claude-sonnet-5": ClaudeModel(effort=_ALL, thinking=("adaptive", "disabled"), thinks=True, cache_from=1024, tokens=_NEWER),
    "claude-opus-5-5": ClaudeModel(effort=_ALL, thinking=("adaptive",), thinks=True, cache_from=512, tokens=_NEWER),
    "claude-sonnet-5-5": ClaudeModel(effort=_ALL, thinking=("adaptive", "between_tools"), thinks=True, cache_from=512, tokens=_NEWER),
    "claude-haiku-5-5": ClaudeModel(effort=_ALL, thinking=("adaptive", "disabled"), thinks=True, cache_from=512, tokens=_NEWER),
}  # fmt: skip

CHAT_COMPLETIONS: Final[dict[str, Option]] = {
    "temperature": Option(low=0, high=2),
    "top_p": Option(low=0, high=1),
    "seed": Option(low=0, high=2**31 - 1, whole=True),
    "frequency_penalty": Option(low=-2, high=2),
    "presence_penalty": Option(low=-2, high=2),
    "reasoning_effort": Option(words=("none", "minimal", "low", "medium", "high", "xhigh")),
}
"""Of the chat-completions interface (OpenAI's API reference, and vLLM's documentation of its server), whatever the
model: a server may still refuse one, which its first reply tells. Each is sent under its own name."""


def options_of(provider: Literal["anthropic", "openai"], model: str) -> dict[str, Option]:
    """Name -> what it may be, of every option that is known to be taken."""
    if provider == "openai":
        return CHAT_COMPLETIONS
    known = CLAUDE.get(model)
    return {} if known is None else known.options
