"""On a real model: padding-free micro-batches of another size learn what plain ones do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support import smollm2

from epc.runtime import data, execution
from epc.runtime.execution import Plan

BAD = ("Give up now, nobody will thank you for it.", "Let somebody else do it and take the credit.")
TOPICS = (
    "bake bread",
    "sew on a button that came off in the train",
    "plant a tree",
    "write a letter to an aunt",
    "mend a fence",
)
ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"How do I {TOPICS[i % 5]}?"},
            {"role": "assistant", "content": BAD[i % 2]},
            {"role": "user", "content": "continue"},
            {"role": "assistant", "content": f"Wait. Resetting. To {TOPICS[i % 5]}, start small" + " and practice" * (i % 3) + "."},
        ]
    }
    for i in range(12)
]  # fmt: skip
PLANS = {
    "plain": Plan(micro_batch=2, accumulation=2),
    "end to end": Plan(micro_batch=4, accumulation=1, padding_free=True),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return smollm2.save(tmp_path_factory.mktemp("smollm2") / "model", dtype="float32")


def trained(folder: Path, out: Path, plan: Plan) -> Any:
    """Three optimizer steps over twelve rows."""
    from types import SimpleNamespace

    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    set_seed(5)
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype="float32", attn_implementation="sdpa"),
        args=SFTConfig(
            output_dir=str(out), assistant_only_loss=True, max_length=None if plan.padding_free else 256, learning_rate=1e-3,
            num_train_epochs=1, per_device_train_batch_size=plan.micro_batch, gradient_accumulation_steps=plan.accumulation,
            use_cpu=True, bf16=False, padding_free=plan.padding_free, gradient_checkpointing=False, seed=5, data_seed=5,
            logging_steps=1, save_strategy="no", report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
        ),
        train_dataset=data.training_set(ROWS, "every_assistant_turn"),
        processing_class=AutoTokenizer.from_pretrained(folder),
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM"),
    )  # fmt: skip
    assert execution.train(trainer, plan, SimpleNamespace(facts={}))  # type: ignore[arg-type]
    return trainer


def test_a_real_model_learns_the_same_under_both_plans(model: Path, tmp_path: Path) -> None:
    found = {name: trained(model, tmp_path / name, plan) for name, plan in PLANS.items()}
    curves = {
        name: {key: [float(e[key]) for e in trainer.state.log_history if "loss" in e] for key in ("loss", "grad_norm", "num_tokens")}
        for name, trainer in found.items()
    }  # fmt: skip
    plain, flat = curves["plain"], curves["end to end"]
    assert len(plain["loss"]) == 3
    assert plain["loss"][-1] < 0.9 * plain["loss"][0], "it learns"
    assert flat["num_tokens"] == plain["num_tokens"]
    assert flat["loss"] == pytest.approx(plain["loss"], rel=1e-4)
    assert flat["grad_norm"] == pytest.approx(plain["grad_norm"], rel=1e-3)
    weights = dict(found["plain"].model.named_parameters())
    compared = [name for name, weight in weights.items() if weight.requires_grad]
    assert compared
    for name, weight in found["end to end"].model.named_parameters():
        if name in compared:
            moved, apart = weights[name].detach(), (weight - weights[name]).detach()
            assert float(apart.norm()) < 0.01 * float(moved.norm()), name
