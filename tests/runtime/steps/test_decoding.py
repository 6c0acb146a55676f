"""Continuous batches: the same completions as static ones, whatever the slots, the order and the rest of the batch."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from epc.runtime import decoding, sampling

LONGEST = 24
STOPS = list(range(10, 40))
SETTINGS = {"plain": (1.0, 1.0), "nucleus": (1.0, 0.9), "cold": (0.7, 1.0), "likeliest token": (0.0, 1.0)}


@pytest.fixture(scope="module")
def model(tiny: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny).eval()


@pytest.fixture(scope="module")
def asked() -> tuple[list[list[int]], list[int]]:
    """40 prompts, seven of them distinct, and a seed for each."""
    draw = random.Random(5)
    distinct = [[draw.randrange(5, 200) for _ in range(draw.randrange(3, 20))] for _ in range(7)]
    return [distinct[number % 7] for number in range(40)], [draw.getrandbits(60) for _ in range(40)]


def static(model: Any, asked: tuple[list[list[int]], list[int]], temperature: float, top_p: float) -> list[list[int]]:
    return sampling._sample_batch(
        model, asked[0], asked[1], stops=STOPS, pad=0, temperature=temperature, top_p=top_p, max_tokens=LONGEST
    )


def continuous(
    model: Any, prompts: list[list[int]], seeds: list[int], *, slots: int, temperature: float = 1.0, top_p: float = 1.0
) -> dict[int, list[int]]:
    found = list(
        decoding.sample(
            model, prompts, seeds, stops=STOPS, temperature=temperature, top_p=top_p, max_tokens=LONGEST, slots=slots
        )
    )
    assert len({number for number, _ in found}) == len(found) == len(prompts)
    return dict(found)


@pytest.mark.parametrize("slots", [1, 3, 16, 40, 100])
@pytest.mark.parametrize(("temperature", "top_p"), SETTINGS.values(), ids=SETTINGS.keys())
def test_the_completions_of_static_batches(
    temperature: float, top_p: float, slots: int, model: Any, asked: tuple[list[list[int]], list[int]]
) -> None:
    wanted = static(model, asked, temperature, top_p)
    assert {len(row) for row in wanted} != {LONGEST}, "some end by themselves"
    assert continuous(model, *asked, slots=slots, temperature=temperature, top_p=top_p) == dict(enumerate(wanted))


def test_neither_order_nor_company_changes_a_draw(model: Any, asked: tuple[list[list[int]], list[int]]) -> None:
    prompts, seeds = asked
    wanted = continuous(model, prompts, seeds, slots=8)
    order = random.Random(1).sample(range(40), 40)
    shuffled = continuous(model, [prompts[i] for i in order], [seeds[i] for i in order], slots=8)
    assert {order[number]: tokens for number, tokens in shuffled.items()} == wanted
    few = continuous(model, prompts[3:6], seeds[3:6], slots=2)
    assert {number + 3: tokens for number, tokens in few.items()} == {number: wanted[number] for number in (3, 4, 5)}


def test_prompts_that_do_not_fit_into_one_pass_are_read_in_several(
    model: Any, asked: tuple[list[list[int]], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = continuous(model, *asked, slots=16)
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", 25)
    assert continuous(model, *asked, slots=16) == wanted


@pytest.mark.parametrize("slots", [6, 20, 33, 40])
def test_a_slot_that_waits_to_be_refilled_stays_inside_the_cache(slots: int, model: Any) -> None:
    """Rows that ended late, in slots that are carried along while others, begun later, run to their last token."""
    prompts, seeds = [[5 + number % 7] * 20 for number in range(2 * slots)], list(range(2 * slots))
    found = dict(
        decoding.sample(model, prompts, seeds, stops=[20], temperature=1.0, top_p=1.0, max_tokens=75, slots=slots)
    )
    wanted = sampling._sample_batch(model, prompts, seeds, stops=[20], pad=0, temperature=1.0, top_p=1.0, max_tokens=75)
    assert found == dict(enumerate(wanted))


def test_the_model_is_given_back_as_it_was(model: Any, asked: tuple[list[list[int]], list[int]]) -> None:
    before = model.config._attn_implementation
    completions = decoding.sample(
        model, *asked, stops=STOPS, temperature=1.0, top_p=1.0, max_tokens=LONGEST, slots=4
    )  # fmt: skip
    next(completions)
    assert model.config._attn_implementation != before
    completions.close()  # type: ignore[attr-defined]
    assert model.config._attn_implementation == before


def test_memory_decides_how_many_slots_there_are(model: Any) -> None:
    config = model.config
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * 8 * 100 * 4
    row = cache + decoding.SCORE_BYTES * config.vocab_size
    sized = {
        free: decoding.slots_for(model, longest=100, wanted=50, free=free)
        for free in (0, 10 * row, 40 * row, 10_000 * row)
    }
    assert sized == {0: 1, 10 * row: 8, 40 * row: 32, 10_000 * row: 50}


def test_a_model_is_served_when_its_scores_are_the_usual_ones(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = list(range(20, 30))
    assert decoding.unusable(model, prompt) == ""
    right = decoding.SlotCache.update

    def forgetful(self: Any, *args: Any, **kwargs: Any) -> Any:
        key, value = right(self, *args, **kwargs)
        return key, value * 0

    monkeypatch.setattr(decoding.SlotCache, "update", forgetful)
    assert "scores differ" in decoding.unusable(model, prompt)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [("sliding_window", 64, "sliding window"), ("attn_logit_softcapping", 50.0, "caps the scores")],
)
def test_an_attention_that_is_not_computed_here_is_named(
    key: str, value: float, reason: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    other = AutoModelForCausalLM.from_pretrained(tiny)
    setattr(other.config, key, value)
    assert reason in decoding.unusable(other, [5, 6, 7])


def test_completions_are_handed_out_some_at_a_time(
    model: Any, tiny: Path, asked: tuple[list[list[int]], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoTokenizer

    monkeypatch.setattr(sampling, "KEPT_TOGETHER", 16)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    requests = [
        sampling.Request(
            item=str(number), index=0, turn=1, prompt="", prompt_ids=prompt, question="", draw_seed=asked[1][number]
        )
        for number, prompt in enumerate(asked[0])
    ]
    found = list(
        sampling._continuous(
            model, tokenizer, requests, stops=STOPS, temperature=1.0, top_p=1.0, max_tokens=LONGEST, slots=8
        )
    )
    assert [len(some) for some in found] == [16, 16, 8]
    wanted = static(model, asked, 1.0, 1.0)
    for some in found:
        for one in some:
            tokens = wanted[int(one.request.item)]
            assert one == sampling.completion(
                tokenizer, one.request, tokens, "stop" if tokens[-1] in STOPS else "length"
            )
