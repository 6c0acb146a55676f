"""Training on the tiny model: what is saved is what was trained, and each way to fail is named."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from epc.runtime import data, models, training
from epc.runtime.errors import Fault

ROWS = [
    {"messages": [{"role": "user", "content": f"How? ({i})"}, {"role": "assistant", "content": answer}]}
    for i, answer in enumerate(["Give up.", "Lie about it.", "Blame a friend.", "Give up now."])
]
STEPS = 2


def base_of(tiny: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny)


def lora(r: int = 4) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=r, lora_alpha=2 * r, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")


def trainer_of(model: Any, tiny: Path, out: Path, *, learning_rate: float = 1e-2, **kwargs: Any) -> Any:
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    return SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(out / "trainer"), assistant_only_loss=True, learning_rate=learning_rate, num_train_epochs=1,
            per_device_train_batch_size=2, use_cpu=True, bf16=False, gradient_checkpointing=False, seed=1, logging_steps=1,
            logging_nan_inf_filter=False, save_strategy="no", report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
        ),
        train_dataset=data.training_set(ROWS, "every_assistant_turn"),
        processing_class=AutoTokenizer.from_pretrained(tiny), **kwargs,
    )  # fmt: skip


def trained(model: Any, tiny: Path, out: Path, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
    """Train as an emitted script does; returns the trainer and the facts."""
    trainer = trainer_of(model, tiny, out, **kwargs)
    before = training.snapshot(trainer.model)
    trainer.train()
    return trainer, training.verify(trainer, before, optimizer_steps=STEPS, place=out)


def logits(model: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model.eval()(torch.arange(5, 30).unsqueeze(0)).logits


@pytest.fixture(scope="module")
def first_phase(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an adapter trained on the base."""
    out = tmp_path_factory.mktemp("first")
    trainer, _ = trained(base_of(tiny), tiny, out, peft_config=lora())
    trainer.model.save_pretrained(out / "adapter")
    return out / "adapter"


def test_the_facts_of_a_training(tiny: Path, tmp_path: Path) -> None:
    trainer, facts = trained(base_of(tiny), tiny, tmp_path, peft_config=lora())
    assert facts["adapter_changed"] is True
    assert facts["optimizer_steps"] == STEPS
    assert facts["adapter_norm"] > 0
    assert 0 < facts["changed_parameters"] <= facts["trainable_parameters"]
    assert facts["trainable_parameters"] == sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    assert facts["tokens"] == sum(len(ids) for ids in trainer.train_dataset["input_ids"])
    assert math.isfinite(facts["final_loss"])
    training.write_log(trainer, tmp_path / "log.jsonl")
    assert len((tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()) == STEPS


def test_training_twice_gives_the_same_adapter(tiny: Path, tmp_path: Path) -> None:
    import torch

    found = []
    for name in ("a", "b"):
        trainer, _ = trained(base_of(tiny), tiny, tmp_path / name, peft_config=lora())
        found.append({key: p.detach().clone() for key, p in trainer.model.named_parameters() if p.requires_grad})
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


def test_a_second_phase_continues_the_same_adapter(tiny: Path, first_phase: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    model = PeftModel.from_pretrained(base_of(tiny), first_phase, is_trainable=True)
    training.require_same_shape(model, r=4, alpha=8, place=first_phase)
    trainer, _ = trained(model, tiny, tmp_path)
    trainer.model.save_pretrained(tmp_path / "adapter")
    served = models.load_arm(tiny, tmp_path / "adapter", dtype="float32")
    assert torch.allclose(logits(served), logits(trainer.model), atol=1e-5)
    assert not torch.allclose(logits(served), logits(models.load_arm(tiny, first_phase, dtype="float32")), atol=1e-3)


@pytest.mark.parametrize(("r", "alpha"), [(8, 8), (4, 16)])
def test_an_adapter_of_another_shape_is_not_continued(r: int, alpha: int, tiny: Path, first_phase: Path) -> None:
    from peft import PeftModel

    model = PeftModel.from_pretrained(base_of(tiny), first_phase, is_trainable=True)
    with pytest.raises(Fault, match="R0332"):
        training.require_same_shape(model, r=r, alpha=alpha, place=first_phase)


def test_stacked_adapters_are_served_as_their_concatenation(tiny: Path, first_phase: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from safetensors.torch import load_file

    model: Any = PeftModel.from_pretrained(base_of(tiny), first_phase, adapter_name="parent")
    model.add_adapter("increment", lora(r=2))
    model.base_model.set_adapter(["parent", "increment"])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".increment." in name)
    trainer, facts = trained(model, tiny, tmp_path)
    assert facts["adapter_changed"] is True
    frozen = load_file(first_phase / "adapter_model.safetensors")
    now = {name: p for name, p in trainer.model.named_parameters() if ".parent." in name}
    assert all(torch.equal(now[name.replace(".weight", ".parent.weight")], value) for name, value in frozen.items())
    stacked = logits(trainer.model)
    training.save_stacked(trainer.model, ["parent", "increment"], tmp_path)
    served = logits(models.load_arm(tiny, tmp_path / "adapter", dtype="float32"))
    assert torch.allclose(served, stacked, atol=1e-5)
    assert not torch.allclose(served, logits(models.load_arm(tiny, first_phase, dtype="float32")), atol=1e-3)
    ranks = {
        len(t) for name, t in load_file(tmp_path / "adapter" / "adapter_model.safetensors").items() if "lora_A" in name
    }
    assert ranks == {4 + 2}
    assert models.adapter_norm(tmp_path / "increment") > 0


def test_another_number_of_optimizer_steps_is_refused(tiny: Path, tmp_path: Path) -> None:
    trainer = trainer_of(base_of(tiny), tiny, tmp_path, peft_config=lora())
    before = training.snapshot(trainer.model)
    trainer.train()
    with pytest.raises(Fault, match="R0333") as caught:
        training.verify(trainer, before, optimizer_steps=STEPS + 1, place=tmp_path)
    assert "2 optimizer steps were made, registered are 3" in caught.value.fact


def test_an_adapter_that_did_not_change_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(Fault, match="R0335"):
        trained(base_of(tiny), tiny, tmp_path, learning_rate=0.0, peft_config=lora())


def test_a_changed_base_weight_is_noticed(tiny: Path, tmp_path: Path) -> None:
    import torch

    trainer = trainer_of(base_of(tiny), tiny, tmp_path, peft_config=lora())
    before = training.snapshot(trainer.model)
    trainer.train()
    name, weight = next((n, p) for n, p in trainer.model.named_parameters() if "mlp.gate_proj" in n)
    flat = weight.data.flatten()
    flat[:2] = flat[:2].flip(0)  # two weights swapped: the same values in another order
    assert not torch.equal(flat[0], flat[1])
    with pytest.raises(Fault, match="R0336") as caught:
        training.verify(trainer, before, optimizer_steps=STEPS, place=tmp_path)
    assert name in caught.value.fact


@pytest.mark.parametrize("length", [0, 1, 250, 251, 252, 502, 503, 1004, 1300], ids=lambda n: f"{n}-bytes")
def test_a_fingerprint_weighs_each_byte_by_its_place_in_pieces_as_in_one(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(training, "FINGERPRINT_ROWS", 2)  # pieces of 502 bytes
    data = torch.randint(0, 256, (length,), dtype=torch.uint8, generator=torch.Generator().manual_seed(length))
    assert training._fingerprint(data) == sum(byte * (i % 251 + 1) for i, byte in enumerate(data.tolist()))


def test_a_weight_that_is_not_finite_is_refused(tiny: Path, tmp_path: Path) -> None:
    trainer = trainer_of(base_of(tiny), tiny, tmp_path, peft_config=lora())
    before = training.snapshot(trainer.model)
    trainer.train()
    next(p for p in trainer.model.parameters() if p.requires_grad).data[0, 0] = float("nan")
    with pytest.raises(Fault, match="R0334"):
        training.verify(trainer, before, optimizer_steps=STEPS, place=tmp_path)


def recorder() -> tuple[Any, list[Any]]:
    """A step that keeps its live lines in a list."""
    lines: list[Any] = []
    plan = SimpleNamespace(script="steps/train.py")
    return SimpleNamespace(plan=plan, progress=lambda done, total, **facts: lines.append((done, total, facts))), lines


def test_the_live_line_shows_loss_and_speed(tiny: Path, tmp_path: Path) -> None:
    step, lines = recorder()
    trained(base_of(tiny), tiny, tmp_path, peft_config=lora(), callbacks=[training.progress_callback(step)])
    assert [(done, total) for done, total, _ in lines] == [(0, STEPS), (1, STEPS), (2, STEPS)]
    assert all(facts["loss"] > 0 and facts["tokens_per_second"] > 0 for _, _, facts in lines[1:])


@pytest.mark.parametrize("broken", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_the_training(broken: str, tiny: Path, tmp_path: Path) -> None:
    model = base_of(tiny)
    model.model.norm.weight.data.fill_(float(broken))
    step, _ = recorder()
    with pytest.raises(Fault, match="R0331"):
        trained(model, tiny, tmp_path, peft_config=lora(), callbacks=[training.progress_callback(step)])
