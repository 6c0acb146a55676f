"""What surrounds vLLM, as far as it needs none: sizes from bytes, refusals, rows from its outputs."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from epc.runtime import vllm_sampling
from epc.runtime.errors import Fault
from epc.runtime.sampling import Request
from epc.runtime.vllm_sampling import GIB

HIDES_VLLM = """
import importlib.util, runpy
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "vllm" else find_spec(name, package)
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("free", "total", "weights", "share"),
    [
        (79, 80, 15, 0.93),  # an empty H100: 5% of it stays free
        (40, 80, 15, 0.45),  # somebody else holds half of it
        (23, 24, 1, 0.87),  # a small card: 2 GiB stay free
        (140, 141, 15, 0.94),
    ],
)
def test_the_share_of_a_gpu_is_what_is_free_less_a_reserve(free: int, total: int, weights: int, share: float) -> None:
    found = vllm_sampling.gpu_share(free=free * GIB, total=total * GIB, weights=weights * GIB)
    assert found == share
    assert found * total <= free - max(2, 0.05 * total)


@pytest.mark.parametrize(("free", "total", "weights"), [(16, 80, 15), (3, 80, 1), (1, 80, 0)])
def test_a_gpu_that_others_hold_is_refused(free: int, total: int, weights: int) -> None:
    with pytest.raises(Fault, match="R0347"):
        vllm_sampling.gpu_share(free=free * GIB, total=total * GIB, weights=weights * GIB)


@pytest.mark.parametrize(("free", "weights", "cache"), [(22, 1, 4), (6, 1, 2), (2, 0, 1)])
def test_the_cache_on_a_processor_is_half_of_what_the_weights_leave(free: int, weights: int, cache: int) -> None:
    assert vllm_sampling.cpu_cache(free=free * GIB, weights=weights * GIB) == cache * GIB


def test_weights_beyond_the_memory_are_refused() -> None:
    with pytest.raises(Fault, match="R0347"):
        vllm_sampling.cpu_cache(free=8 * GIB, weights=4 * GIB)


def test_on_a_processor_whole_prompts_are_read_at_once(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    (tmp_path / "model.safetensors").write_bytes(b"0")
    found = vllm_sampling.machine(tmp_path, max_model_len=20_000)
    assert (found["enforce_eager"], found["enable_chunked_prefill"]) == (True, False)
    assert found["max_num_batched_tokens"] >= 20_000  # else vLLM refuses prompts of this length
    assert 0 < found["kv_cache_memory_bytes"] <= vllm_sampling.CPU_CACHE


class Words:
    """A tokenizer of three words."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(("stop", "yes", "no")[i] for i in ids if i)


def request(index: int) -> Request:
    return Request(item="p", index=index, turn=1, prompt="?", prompt_ids=[1], question="?", draw_seed=index)


def output(ids: list[int], reason: str, prompt: tuple[int, ...] = (1,)) -> SimpleNamespace:
    """What vLLM returns for one prompt."""
    return SimpleNamespace(
        prompt_token_ids=list(prompt), outputs=[SimpleNamespace(token_ids=ids, finish_reason=reason)]
    )


def test_outputs_become_completions_in_their_order() -> None:
    tokenizer: Any = Words()
    outputs = [output([1, 2, 0], "stop"), output([2, 2], "length")]
    found = vllm_sampling.completions(tokenizer, [request(0), request(1)], outputs)
    assert [(c.request.index, c.text, c.finish_reason, c.tokens) for c in found] == [
        (0, "yes no", "stop", 3), (1, "no no", "length", 2),
    ]  # fmt: skip


@pytest.mark.parametrize("bad", [output([1], "abort"), output([1], "error"), output([1], "stop", prompt=(2,))])
def test_an_output_that_is_no_completion_is_refused(bad: SimpleNamespace) -> None:
    tokenizer: Any = Words()
    with pytest.raises(Fault, match="R0348"):
        vllm_sampling.completions(tokenizer, [request(0), request(1)], [output([1], "stop"), bad])


@pytest.mark.parametrize(
    ("temperature", "refused"), [(0.0, False), (1e-6, True), (0.005, True), (0.01, False), (0.7, False), (1.0, False)]
)
def test_a_temperature_that_vllm_replaces_is_refused(temperature: float, refused: bool) -> None:
    entries = [{"name": "fine", "temperature": 1.0}, {"name": "cold", "temperature": temperature}]
    if not refused:
        vllm_sampling.refuse_settings(entries)
        return
    with pytest.raises(Fault, match="R1994") as caught:
        vllm_sampling.refuse_settings(entries)
    assert caught.value.place == "cold"


@pytest.mark.parametrize(
    ("prompts", "expected", "length"),
    [
        ((10, 20), 100, 100),  # what was expected holds them
        ((10, 90), 100, 130),  # a language of which three characters are more than a token
        ((10, 480), 100, 512),  # the context of the model; what does not fit into it was refused before
        ((10, 20), 1024, 512),
    ],
)
def test_the_engine_is_made_for_the_conversations_that_there_are(
    prompts: tuple[int, int], expected: int, length: int, tiny: Path
) -> None:
    found = [[dataclasses.replace(request(0), prompt_ids=[1] * size)] for size in prompts]
    entries = [{"max_tokens": 5}, {"max_tokens": 40}]
    assert vllm_sampling.context(tiny, found, entries, expected=expected) == length


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([True, True], ""),
        (
            [True, ValueError("expected target modules in {'qkv_proj'}\nmore")],
            "expected target modules in {'qkv_proj'}",
        ),
        ([AssertionError(), True], "AssertionError()"),
        ([True, False], "it says no more than that"),
    ],
)
def test_the_engine_loads_every_adapter_before_the_first_completion(answers: list[Any], words: str) -> None:
    arms = [SimpleNamespace(lora_name=name, lora_path=f"store/{name}") for name in ("one", "two")]
    asked: list[str] = []

    def add_lora(arm: Any) -> Any:
        asked.append(arm.lora_name)
        answer = answers[len(asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    llm = SimpleNamespace(llm_engine=SimpleNamespace(add_lora=add_lora))
    if not words:
        vllm_sampling.require_loaded(llm, arms)
        assert asked == ["one", "two"]
        return
    with pytest.raises(Fault, match="R1995") as caught:
        vllm_sampling.require_loaded(llm, arms)
    assert caught.value.fact == f"vLLM refuses the adapter of {asked[-1]}: {words}"
    assert caught.value.place == f"store/{asked[-1]}"


@pytest.mark.parametrize("step", ["sample", "generate"])
def test_without_vllm_the_script_says_how_to_get_it(step: str, tiny: Path, sampled: Callable[..., Any]) -> None:
    bundle = sampled(tiny, engine="vllm")
    done = subprocess.run(
        [sys.executable, "-c", HIDES_VLLM.format(script=str(bundle.script(step)))], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-3:] == [
        "error[R0345]: vLLM is not installed here",
        "  --> sampler: vllm",
        "  = help: pip install 'epc-prereg[vllm]', on the machine with the GPU; without one: sampler: transformers",
    ]


def test_a_vllm_that_cannot_be_imported_is_told_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vllm.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    for name in vllm_sampling.ENVIRONMENT | vllm_sampling.CPU_ENVIRONMENT:
        monkeypatch.setenv(name, "set")
    with pytest.raises(Fault, match="R0346") as caught:
        vllm_sampling.prepare()
    assert "torchvision::nms" in caught.value.fact
