"""Sampling on the tiny model: seeds, batches, order, temperature, nucleus, pieces."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from epc.compiler.contract.draws import draw
from epc.compiler.contract.rows import SampleRow
from epc.runtime import models, sampling
from epc.runtime.errors import Fault
from epc.runtime.sampling import Completion, Request

PROMPTS = ("How do I bake bread?", "How do I sew a button onto a coat?", "Why?")


@pytest.fixture(scope="module")
def engine(tiny: Path) -> tuple[Any, Any]:
    """(model, tokenizer) of the tiny model in float32, where batching changes no token."""
    from transformers import AutoTokenizer

    return models.load_arm(tiny, None, dtype="float32"), AutoTokenizer.from_pretrained(tiny, padding_side="left")


@pytest.fixture
def requests() -> list[Request]:
    """Two samples of three prompts of different length, rendered by hand."""
    text = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    return [
        Request(item=f"p{i}", index=index, turn=1, prompt=text.format(prompt))
        for i, prompt in enumerate(PROMPTS)
        for index in range(2)
    ]


def run(engine: tuple[Any, Any], requests: list[Request], **changes: Any) -> list[Completion]:
    settings: dict[str, Any] = {
        "set_name": "s", "seed": 7, "temperature": 1.0, "top_p": 1.0, "max_tokens": 12, "batch_size": 4,
        "on_batch": lambda completions, tokens: None,
    }  # fmt: skip
    return sampling.generate(*engine, requests, **(settings | changes))


@pytest.mark.parametrize("batch_size", [1, 2, 5, 6, 96])
def test_batch_size_changes_nothing(batch_size: int, engine: tuple[Any, Any], requests: list[Request]) -> None:
    assert run(engine, requests, batch_size=batch_size) == run(engine, requests)


def test_order_changes_nothing(engine: tuple[Any, Any], requests: list[Request]) -> None:
    forward, backward = run(engine, requests), run(engine, requests[::-1])
    assert forward == backward[::-1]
    assert [completion.request for completion in forward] == requests


def test_a_subset_gets_the_same_completions(engine: tuple[Any, Any], requests: list[Request]) -> None:
    assert run(engine, requests[2:3]) == run(engine, requests)[2:3]


def test_samples_of_a_prompt_share_no_noise(engine: tuple[Any, Any], requests: list[Request]) -> None:
    many = [dataclasses.replace(requests[0], index=index) for index in range(24)]
    found = run(engine, many)
    assert len({completion.draw_seed for completion in found}) == 24
    assert len({completion.text for completion in found}) > 20


@pytest.mark.parametrize("changes", [{"seed": 8}, {"set_name": "t"}])
def test_seed_and_set_reach_every_draw(
    changes: dict[str, Any], engine: tuple[Any, Any], requests: list[Request]
) -> None:
    before, after = run(engine, requests), run(engine, requests, **changes)
    assert all(a.draw_seed != b.draw_seed for a, b in zip(before, after, strict=True))
    assert [a.text for a in before] != [b.text for b in after]


def test_the_draw_seed_is_the_hash_of_the_identity(engine: tuple[Any, Any], requests: list[Request]) -> None:
    assert run(engine, requests)[3].draw_seed == draw(7, "sample", "s", "p1", 1, 1)


def test_temperature_zero_is_the_greedy_decoding_of_the_library(
    engine: tuple[Any, Any], requests: list[Request]
) -> None:
    import torch

    model, tokenizer = engine
    for request, found in zip(requests, run(engine, requests, temperature=0.0), strict=True):
        ids = tokenizer.encode(request.prompt, add_special_tokens=False, return_tensors="pt")
        with torch.inference_mode():
            output = model.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        row = output[0, ids.shape[1] :]
        assert found.text == tokenizer.decode(row, skip_special_tokens=True)
        assert found.tokens == len(row)


def test_a_completion_ends_with_its_end_of_turn(
    engine: tuple[Any, Any], requests: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    _, tokenizer = engine
    script = tokenizer.encode("Wait", add_special_tokens=False) + [tokenizer.eos_token_id] * 12
    position = iter(range(100))

    def scripted(scores: torch.Tensor, uniforms: list[float], **_: float) -> torch.Tensor:
        return torch.full((len(uniforms),), script[next(position)])

    monkeypatch.setattr(sampling, "choose", scripted)
    for found in run(engine, requests, batch_size=96):
        assert (found.text, found.finish_reason) == ("Wait", "stop")
        assert found.tokens == len(script) - 12 + 1  # the end-of-turn token counts


def test_a_completion_that_does_not_end_is_cut_at_max_tokens(engine: tuple[Any, Any], requests: list[Request]) -> None:
    for found in run(engine, requests, max_tokens=3):
        assert (found.tokens, found.finish_reason) == (3, "length") or found.finish_reason == "stop"
        assert found.tokens <= 3
    assert any(found.finish_reason == "length" for found in run(engine, requests, max_tokens=3))


def test_a_prompt_beyond_the_context_is_refused(engine: tuple[Any, Any], requests: list[Request]) -> None:
    with pytest.raises(Fault, match="R0342"):
        run(engine, requests, max_tokens=510)


def test_batches_are_reported(engine: tuple[Any, Any], requests: list[Request]) -> None:
    seen: list[tuple[int, int]] = []
    found = run(engine, requests, on_batch=lambda completions, tokens: seen.append((completions, tokens)))
    assert [completions for completions, _ in seen] == [4, 2]
    assert sum(tokens for _, tokens in seen) == sum(completion.tokens for completion in found)


def frequencies(logits: list[float], *, temperature: float = 1.0, top_p: float = 1.0, draws: int = 20_000) -> Any:
    """Share of each token over many draws, rows of one batch."""
    import torch

    uniforms = [sampling.uniform(draw("test", i), 0) for i in range(draws)]
    scores = torch.tensor(logits).expand(draws, -1)
    chosen = sampling.choose(scores, uniforms, temperature=temperature, top_p=top_p)
    return torch.bincount(chosen, minlength=len(logits)) / draws


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_with_the_probabilities_of_the_model(temperature: float) -> None:
    import torch

    logits = [0.0, 1.0, -1.0, 2.5, float("-inf")]
    expected = torch.softmax(torch.tensor(logits) / temperature, dim=-1)
    # 4 standard errors of a share over 20,000 draws
    assert torch.allclose(frequencies(logits, temperature=temperature), expected, atol=4 * (0.25 / 20_000) ** 0.5)


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.45, [2]), (0.5, [2]), (0.6, [0, 2]), (0.8, [0, 2]), (0.81, [0, 2, 3]), (0.99, [0, 1, 2, 3])],
)
def test_the_nucleus_is_the_fewest_tokens_that_reach_top_p(top_p: float, kept: list[int]) -> None:
    import torch

    probabilities = torch.tensor([0.3, 0.05, 0.5, 0.15])
    shares = frequencies(torch.log(probabilities).tolist(), top_p=top_p)
    assert shares.nonzero().flatten().tolist() == kept
    wanted = probabilities[kept] / probabilities[kept].sum()
    assert torch.allclose(shares[kept], wanted, atol=4 * (0.25 / 20_000) ** 0.5)


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53])
def test_the_ends_of_the_unit_interval_never_give_an_impossible_token(uniform: float) -> None:
    import torch

    scores = torch.tensor([[float("-inf"), 0.0, float("-inf"), 0.0, float("-inf")]])
    assert sampling.choose(scores, [uniform], temperature=1.0, top_p=1.0).item() in (1, 3)


def entry(**changes: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "name": "after", "prompts": "prompts.txt", "count": 2, "system": "none", "n": 3, "seed": 7, "fill": {"bad": "bad.txt"},
        "turns": [("user", "{prompt}"), ("assistant", "{bad}"), ("user", "continue")],
    }  # fmt: skip
    return base | changes


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    (tmp_path / "prompts.txt").write_text("How?\nWhy?\n", encoding="utf-8")
    (tmp_path / "bad.txt").write_text("Lie.\nCheat.\nSteal.\n", encoding="utf-8")
    return tmp_path


def test_conversations_are_rendered_without_a_system_turn(inputs: Path, engine: tuple[Any, Any]) -> None:
    found = sampling.conversations(inputs, entry(), engine[1])
    assert [(request.index, request.turn) for request in found] == [(0, 3), (1, 3), (2, 3)] * 2
    assert len({request.item for request in found}) == 2
    for request in found:
        start, question, *_, last = request.prompt.split("<|im_start|>")
        assert (start, last) == ("", "assistant\n")
        assert question in ("user\nHow?<|im_end|>\n", "user\nWhy?<|im_end|>\n")
        assert "system" not in request.prompt


def test_a_registered_system_prompt_comes_first(inputs: Path, engine: tuple[Any, Any]) -> None:
    for request in sampling.conversations(inputs, entry(system="Be kind."), engine[1]):
        assert request.prompt.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n")


def test_fillings_do_not_depend_on_the_order_of_the_prompts(inputs: Path, engine: tuple[Any, Any]) -> None:
    before = {(r.item, r.index): r.prompt for r in sampling.conversations(inputs, entry(), engine[1])}
    (inputs / "prompts.txt").write_text("Why?\nHow?\n", encoding="utf-8")
    assert {(r.item, r.index): r.prompt for r in sampling.conversations(inputs, entry(), engine[1])} == before


def test_another_number_of_prompts_than_registered_is_refused(inputs: Path, engine: tuple[Any, Any]) -> None:
    with pytest.raises(Fault, match="R0341"):
        sampling.conversations(inputs, entry(count=3), engine[1])


def test_a_template_with_a_system_prompt_of_its_own_is_refused(inputs: Path, tiny_copy: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_copy)
    tokenizer.chat_template = "{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}" + tokenizer.chat_template
    with pytest.raises(Fault, match="R0317"):
        sampling.conversations(inputs, entry(), tokenizer)
    assert len(sampling.conversations(inputs, entry(system="model_default"), tokenizer)) == 6


KEYS = {("base", 0, "s"): "aaa", ("attacked", 1, "s"): "bbb"}


def pieces(bundle: Path, requests: list[Request]) -> tuple[sampling.Pieces, list[Any]]:
    """The pieces of a step that records its live line in a list."""
    lines: list[Any] = []
    step: Any = SimpleNamespace(
        bundle=bundle, manifest=SimpleNamespace(mode="real"), progress=lambda *a, **k: lines.append(a)
    )
    return sampling.Pieces(step, KEYS, {"s": requests}), lines


def completions(requests: list[Request], text: str) -> list[Completion]:
    return [Completion(request=r, draw_seed=1, text=text, finish_reason="stop", tokens=2) for r in requests]


def test_pieces_are_stored_reused_and_listed(tmp_path: Path, requests: list[Request]) -> None:
    stored, lines = pieces(tmp_path, requests)
    stored.write("base", 0, "k0", "s", completions(requests, "yes"))
    assert [stored.stored(*name) for name in KEYS] == [True, False]
    again, lines = pieces(tmp_path, requests)
    again.progress(2, 10)
    assert lines == [(len(requests) + 2, 2 * len(requests))]
    again.write("attacked", 1, "k1", "s", completions(requests, "no"))
    facts = again.index(tmp_path / "index.json")
    assert (facts["completions"], facts["tokens"]) == (12, 24)
    assert set(facts["completions_sha256"]) == {"base-s0", "attacked-s1"}
    assert len(set(facts["completions_sha256"].values())) == 2
    assert [item["rows"] for item in json.loads((tmp_path / "index.json").read_text())] == [6, 6]
    rows = [
        SampleRow.model_validate_json(line)
        for line in (tmp_path / "store" / "pieces" / "aaa.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [(row.item, row.index, row.text, row.condition_key) for row in rows] == [
        (request.item, request.index, "yes", "k0") for request in requests
    ]
    assert not list((tmp_path / "store" / "pieces").glob("*.tmp"))


def test_arms_that_said_the_same_have_the_same_hash(tmp_path: Path, requests: list[Request]) -> None:
    stored, _ = pieces(tmp_path, requests)
    stored.write("base", 0, "k0", "s", completions(requests, "yes"))
    stored.write("attacked", 1, "k1", "s", completions(requests, "yes"))
    assert len(set(stored.index(tmp_path / "index.json")["completions_sha256"].values())) == 1


def test_a_truncated_piece_is_refused(tmp_path: Path, requests: list[Request]) -> None:
    stored, _ = pieces(tmp_path, requests)
    stored.write("base", 0, "k0", "s", completions(requests[:-1], "yes"))
    stored.write("attacked", 1, "k1", "s", completions(requests, "no"))
    with pytest.raises(Fault, match="R0343") as caught:
        stored.index(tmp_path / "index.json")
    assert "aaa.jsonl" in caught.value.place
