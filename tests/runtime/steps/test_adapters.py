"""Adapters that cannot be served are refused before anything is sampled, in either engine and for all arms at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epc.runtime import adapters
from epc.runtime.errors import Fault


def make(model_dir: Path, folder: Path, *, scale: float = 0.5, modules: Any = "all-linear", **changed: Any) -> Path:
    """A LoRA adapter with random weights."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, set_seed

    set_seed(0)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=modules, task_type="CAUSAL_LM", **changed)
    tuned: Any = get_peft_model(AutoModelForCausalLM.from_pretrained(model_dir), config)
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name or "lora_embedding_B" in name:
                weight.normal_(std=scale)
    tuned.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def plain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that both engines serve. Read only."""
    return make(tiny, tmp_path_factory.mktemp("plain") / "a")


def edited(plain: Path, folder: Path, **changed: Any) -> Path:
    """A copy with other values in adapter_config.json."""
    shutil.copytree(plain, folder)
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changed), encoding="utf-8")
    return folder


def poisoned(plain: Path, folder: Path, value: float, side: str = "lora_B") -> Path:
    """A copy in which one weight is not a number."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(plain, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    next(tensor for name, tensor in tensors.items() if side in name)[0, 0] = value
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def grown(plain: Path, folder: Path, name: str) -> Path:
    """A copy that holds one tensor more."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(plain, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(tensors | {name: torch.ones(4, 4)}, folder / "adapter_model.safetensors")
    return folder


def test_plain_adapters_are_served_by_both_engines(plain: Path, tiny: Path, tmp_path: Path) -> None:
    ranked = make(tiny, tmp_path / "rslora", use_rslora=True)
    few = make(tiny, tmp_path / "few", modules=["q_proj"], layers_to_transform=[1], lora_dropout=0.1)
    for max_rank in (None, 8):
        adapters.require({"a": plain, "b": ranked, "c": few}, tiny, max_rank=max_rank)


@pytest.mark.parametrize("max_rank", [None, 8], ids=["transformers", "vllm"])
@pytest.mark.parametrize("side", ["lora_A", "lora_B"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_finite_are_refused(
    value: float, side: str, max_rank: int | None, plain: Path, tiny: Path, tmp_path: Path
) -> None:
    with pytest.raises(Fault, match="R1990"):
        adapters.require({"a": poisoned(plain, tmp_path / "a", value, side)}, tiny, max_rank=max_rank)


@pytest.mark.parametrize("max_rank", [None, 8], ids=["transformers", "vllm"])
def test_what_is_refused_one_by_one_is_refused_before_all(max_rank: int | None, tiny: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config: Any = LlamaConfig(
        vocab_size=400, hidden_size=16, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    other: Any = LlamaForCausalLM(config)
    other.save_pretrained(tmp_path / "other")
    foreign = tmp_path / "store/bbbb/model"
    shutil.copytree(tiny, foreign)
    ours = tmp_path / "store/aaaa/model"
    shutil.copytree(tiny, ours)
    broken = make(ours, tmp_path / "broken")
    (broken / "adapter_model.safetensors").write_bytes(b"0")
    found = {
        "fine": make(ours, tmp_path / "fine"),
        "shape": make(tmp_path / "other", tmp_path / "shape"),
        "base": make(foreign, tmp_path / "base"),
        "empty": make(ours, tmp_path / "empty", scale=0.0),
        "broken": broken,
    }
    codes = {"shape": "R0309", "base": "R0310", "empty": "R0308", "broken": "R0307"}
    for name, code in codes.items():
        with pytest.raises(Fault, match=code) as caught:
            adapters.require({"fine": found["fine"], name: found[name]}, ours, max_rank=max_rank)
        assert str(found[name]) in caught.value.place
    with pytest.raises(Fault, match="R0309") as caught:
        adapters.require(found, ours, max_rank=max_rank)
    for name, code in list(codes.items())[1:]:
        assert f"also refused, {code}: {found[name]}" in caught.value.fact


@pytest.mark.parametrize(("max_rank", "refused"), [(None, False), (3, True), (4, False), (8, False)])
def test_a_rank_above_that_of_the_engine_is_refused(
    max_rank: int | None, refused: bool, plain: Path, tiny: Path
) -> None:
    if not refused:
        adapters.require({"a": plain}, tiny, max_rank=max_rank)
        return
    with pytest.raises(Fault, match="R1991") as caught:
        adapters.require({"a": plain}, tiny, max_rank=max_rank)
    assert "rank 4" in caught.value.fact


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"use_dora": True}, "use_dora is true"),
        ({"modules_to_save": ["lm_head"]}, 'modules_to_save is ["lm_head"]'),
        ({"rank_pattern": {"q_proj": 2}}, 'rank_pattern is {"q_proj": 2}'),
        ({"alpha_pattern": {"q_proj": 2}}, 'alpha_pattern is {"q_proj": 2}'),
        ({"lora_bias": True}, "lora_bias is true"),
        ({"bias": "all"}, 'bias is "all"'),
        ({"trainable_token_indices": [1]}, "trainable_token_indices is [1]"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is pissa"),
        ({"layer_replication": [[0, 2]]}, "layer_replication is [[0, 2]]"),
        ({"peft_type": "IA3"}, "peft_type is IA3"),
        ({"a_field_of_tomorrow": 1}, "a_field_of_tomorrow is 1"),
    ],
)
def test_a_field_that_vllm_does_not_apply_is_refused(
    changed: dict[str, Any], words: str, plain: Path, tiny: Path, tmp_path: Path
) -> None:
    with pytest.raises(Fault, match="R1992") as caught:
        adapters.require({"a": edited(plain, tmp_path / "a", **changed)}, tiny, max_rank=8)
    assert words in caught.value.fact
    adapters.require({"a": tmp_path / "a"}, tiny)  # PEFT is asked what it makes of it when it is merged


@pytest.mark.parametrize("init", [True, False, "gaussian", "orthogonal", "eva"])
def test_what_only_training_reads_is_served(init: Any, plain: Path, tiny: Path, tmp_path: Path) -> None:
    changed = {"init_lora_weights": init, "lora_dropout": 0.1, "exclude_modules": ["k_proj"], "qalora_group_size": 16}
    adapters.require({"a": edited(plain, tmp_path / "a", **changed)}, tiny, max_rank=8)


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.model.embed_tokens.base_layer.weight",
        "base_model.model.lm_head.base_layer.weight",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        "base_model.model.model.embed_tokens.lora_embedding_A",
    ],
)
def test_a_tensor_that_vllm_does_not_apply_is_refused(name: str, plain: Path, tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(Fault, match="R1992") as caught:
        adapters.require({"a": grown(plain, tmp_path / "a", name)}, tiny, max_rank=8)
    assert f"it holds {name}" in caught.value.fact


@pytest.mark.parametrize("module", ["lm_head", "embed_tokens"])
def test_adapters_of_the_ends_of_a_model_are_refused(module: str, tiny: Path, tmp_path: Path) -> None:
    folder = make(tiny, tmp_path / "a", modules=["q_proj", module])
    with pytest.raises(Fault, match="R1992"):
        adapters.require({"a": folder}, tiny, max_rank=8)


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_the_step_refuses_before_its_first_completion(
    engine: str, plain: Path, tiny: Path, tmp_path: Path, sampled: Callable[..., Any]
) -> None:
    """The last of the arms is broken; nothing of the first is sampled, and vLLM need not even start."""
    bad = poisoned(plain, tmp_path / "bad", float("nan"))
    bundle = sampled(tiny, engine=engine, adapters={"good": plain, "bad": bad})
    runner = f"""
import importlib.util, runpy, sys, types
from epc.runtime import vllm_sampling
for name in ("vllm", "vllm.lora", "vllm.lora.request"):
    sys.modules.setdefault(name, types.ModuleType(name))
for name in ("LLM", "SamplingParams", "TokensPrompt"):
    setattr(sys.modules["vllm"], name, None)  # calling one would be another error
sys.modules["vllm.lora.request"].LoRARequest = None
vllm_sampling.prepare = lambda: None
runpy.run_path({str(bundle.script("sample"))!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", runner], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "error[R1990]" in done.stderr, done.stderr
    assert not list((bundle.root / "store").rglob("*.partial.jsonl"))
