"""The table of what a judge's provider takes, held against the price list and the installed SDK."""

from __future__ import annotations

import inspect
from typing import Any, get_args, get_type_hints

import pytest

from epc.compiler.contract.judge_models import CHAT_COMPLETIONS, CLAUDE, Option, options_of
from epc.compiler.contract.prices import PRICES


def test_every_priced_model_is_known() -> None:
    assert set(CLAUDE) == set(PRICES)


def test_the_sdk_takes_what_the_table_has_and_no_sampling_options() -> None:
    from anthropic.resources.messages import AsyncMessages
    from anthropic.types import output_config_param, thinking_config_param

    taken = inspect.signature(AsyncMessages.create).parameters
    assert {"output_config", "thinking"} <= set(taken)
    assert not {"temperature", "top_p", "top_k", "seed"} & set(taken)
    effort = get_type_hints(output_config_param.OutputConfigParam)["effort"]
    levels = {word for part in get_args(effort) for word in get_args(part)}
    kinds = get_args(thinking_config_param.ThinkingConfigParam)
    types = {word for kind in kinds for part in [get_type_hints(kind, include_extras=False)["type"]] for word in get_args(part)}  # fmt: skip
    assert {word for model in CLAUDE.values() for word in model.effort} == levels
    assert {word for model in CLAUDE.values() for word in model.thinking} <= types


@pytest.mark.parametrize("name", sorted(CLAUDE))
def test_a_model_that_thinks_by_itself_can_be_told_how_much(name: str) -> None:
    model = CLAUDE[name]
    assert not model.thinks or (model.effort and "adaptive" in model.thinking)
    assert model.thinks_with("adaptive")
    assert not model.thinks_with("disabled")
    assert model.thinks_with(None) == model.thinks


WORDS = Option(words=("low", "high"))
SHARE = Option(low=0, high=1)
SEED = Option(low=0, high=9, whole=True)


@pytest.mark.parametrize(
    ("option", "value", "taken"),
    [
        (WORDS, "low", True), (WORDS, "medium", False), (WORDS, 1, False), (WORDS, True, False),
        (SHARE, 0, True), (SHARE, 1.0, True), (SHARE, 1.01, False), (SHARE, -0.1, False), (SHARE, "0.5", False), (SHARE, True, False),
        (SEED, 9, True), (SEED, 10, False), (SEED, 0.5, False), (SEED, False, False),
    ],
)  # fmt: skip
def test_what_an_option_takes(option: Option, value: Any, taken: bool) -> None:
    assert option.takes(value) is taken


def test_options_in_words() -> None:
    assert (WORDS.described, Option(words=("a",)).described) == ("low or high", "a")
    assert (SHARE.described, SEED.described) == ("a number from 0 to 1", "a whole number from 0 to 9")


def test_an_unknown_claude_takes_nothing_and_a_server_of_ones_own_the_generic_set() -> None:
    assert options_of("anthropic", "claude-opus-9") == {}
    assert options_of("anthropic", "claude-haiku-4-5-20251001") == {}
    assert set(options_of("anthropic", "claude-opus-5")) == {"effort", "thinking"}
    assert options_of("openai", "claude-opus-5") == options_of("openai", "mine") == CHAT_COMPLETIONS
