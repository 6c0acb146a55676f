"""Execution plans: they change nothing that is computed, and one that does not fit gives way to the next."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from epc.runtime import attention, data, execution
from epc.runtime.errors import Fault
from epc.runtime.execution import Plan

EFFECTIVE = 8
ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"How? ({i})" + " And then?" * (i % 5)},
            {"role": "assistant", "content": "Give up. " * (1 + i % 7)},
            {"role": "user", "content": "continue"},
            {"role": "assistant", "content": "Blame a friend." * (1 + i % 3)},
        ]
    }
    for i in range(27)  # the last optimizer step of an epoch holds three rows
]
PLAIN = Plan(micro_batch=2, accumulation=4)
OTHERS = {
    "the whole effective batch, padded": Plan(micro_batch=8, accumulation=1),
    "row by row": Plan(micro_batch=1, accumulation=8),
    "activations recomputed": Plan(micro_batch=2, accumulation=4, checkpointing=True),
    "whole, padding-free": Plan(micro_batch=8, accumulation=1, padding_free=True),
    "halves, padding-free": Plan(micro_batch=4, accumulation=2, padding_free=True),
    "as registered, padding-free": Plan(micro_batch=2, accumulation=4, padding_free=True),
}


def trainer_of(tiny: Path, out: Path, plan: Plan, *, dtype: str = "float32", **changed: Any) -> Any:
    """As an emitted script builds it, on the processor."""
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    set_seed(3)
    return SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(
            tiny, dtype=dtype, attn_implementation=attention.implementation(plan.attention)
        ),
        args=SFTConfig(
            output_dir=str(out / "trainer"), assistant_only_loss=True, max_length=None if plan.padding_free else 512,
            learning_rate=1e-2, num_train_epochs=2, per_device_train_batch_size=plan.micro_batch,
            gradient_accumulation_steps=plan.accumulation, use_cpu=True, bf16=dtype == "bfloat16", padding_free=plan.padding_free,
            use_liger_kernel=plan.liger, gradient_checkpointing=plan.checkpointing, seed=3, data_seed=3, logging_steps=1,
            logging_nan_inf_filter=False, save_strategy="no", report_to="none", disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=data.training_set(ROWS, "every_assistant_turn"),
        processing_class=AutoTokenizer.from_pretrained(tiny),
        peft_config=LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"), **changed,
    )  # fmt: skip


def step_of() -> Any:
    return SimpleNamespace(facts={})


def trained(tiny: Path, out: Path, plan: Plan) -> tuple[Any, Any]:
    trainer, step = trainer_of(tiny, out, plan), step_of()
    assert execution.train(trainer, plan, step)
    return trainer, step


def curve(trainer: Any, name: str) -> list[float]:
    return [float(entry[name]) for entry in trainer.state.log_history if "loss" in entry]


@pytest.fixture(scope="module")
def plain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return trained(tiny, tmp_path_factory.mktemp("plain"), PLAIN)[0]


@pytest.mark.parametrize("plan", OTHERS.values(), ids=OTHERS.keys())
def test_a_plan_changes_nothing_that_is_computed(plan: Plan, tiny: Path, tmp_path: Path, plain: Any) -> None:
    trainer, _ = trained(tiny, tmp_path, plan)
    assert trainer.state.global_step == plain.state.global_step == 2 * 4
    assert curve(trainer, "num_tokens") == curve(plain, "num_tokens")
    assert curve(trainer, "loss") == pytest.approx(curve(plain, "loss"), rel=1e-4)
    assert curve(trainer, "grad_norm") == pytest.approx(curve(plain, "grad_norm"), rel=1e-3)
    weights = dict(plain.model.named_parameters())
    for name, weight in trainer.model.named_parameters():
        if weight.requires_grad:
            assert float((weight - weights[name]).detach().abs().max()) < 1e-3, name


def test_the_micro_batches_that_are_sized_are_those_that_are_trained(tiny: Path, tmp_path: Path) -> None:
    plan = OTHERS["halves, padding-free"]
    trainer = trainer_of(tiny, tmp_path, plan)
    collate, seen = trainer.data_collator, []

    def noted(rows: Any) -> Any:
        seen.append([list(row["input_ids"]) for row in rows])
        return collate(rows)

    trainer.data_collator = noted
    order = execution._Batches(trainer).order
    trainer.train()
    rows = trainer.train_dataset["input_ids"]
    assert [[list(rows[number]) for number in batch] for batch in order] == seen[: len(order)]
    assert sorted(number for batch in order for number in batch) == list(range(len(ROWS)))


def test_half_precision_differs_by_its_rounding_only(tiny: Path, tmp_path: Path) -> None:
    plain = half_precision(tiny, tmp_path, PLAIN)
    assert plain[-1] < plain[0]
    assert half_precision(tiny, tmp_path, OTHERS["whole, padding-free"]) == pytest.approx(plain, rel=0.01)


def half_precision(tiny: Path, out: Path, plan: Plan) -> list[float]:
    trainer = trainer_of(tiny, out, plan, dtype="bfloat16")
    assert execution.train(trainer, plan, step_of())
    return curve(trainer, "loss")


def test_the_finish_record_names_the_plan(tiny: Path, tmp_path: Path) -> None:
    _, step = trained(tiny, tmp_path, OTHERS["whole, padding-free"])
    facts = step.facts["execution"]
    assert facts["plan"] == {
        "micro_batch": 8, "accumulation": 1, "padding_free": True, "attention": "sdpa", "liger": False, "checkpointing": False,
    }  # fmt: skip
    assert facts["device"] == "cpu"
    assert facts["tokens_per_second"] > 0
    json.dumps(facts)


def test_rows_that_read_one_another_stop_the_training(tiny: Path, tmp_path: Path) -> None:
    plan = Plan(micro_batch=4, accumulation=2, padding_free=True)
    trainer = trainer_of(tiny, tmp_path, plan)
    collate = trainer.data_collator

    def without_restarts(rows: Any) -> Any:
        batch = collate(rows)
        batch["position_ids"] = batch["position_ids"].new_tensor([list(range(batch["input_ids"].shape[1]))])
        return batch

    trainer.data_collator = without_restarts
    with pytest.raises(Fault) as caught:
        execution.train(trainer, plan, step_of())
    assert caught.value.code == "R0338"
    assert trainer.state.global_step == 0


def test_a_plan_that_runs_out_of_memory_gives_way_to_the_next(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], plain: Any
) -> None:
    import torch
    from transformers import TrainerCallback

    class OutOfMemory(TrainerCallback):
        def on_substep_end(self, *args: Any, **kwargs: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        on_step_end = on_substep_end

    written = [{"micro_batch": 8, "accumulation": 1, "padding_free": True}, {"micro_batch": 2, "accumulation": 4}]
    step = step_of()
    tried = []
    for plan in execution.plans(written, effective_batch=EFFECTIVE, dtype="float32"):
        tried.append(plan.micro_batch)
        trainer = trainer_of(tiny, tmp_path, plan, callbacks=[OutOfMemory()] if plan.padding_free else [])
        if execution.train(trainer, plan, step):
            break
    assert tried == [8, 2]
    assert step.facts["execution"]["plan"]["micro_batch"] == 2
    assert curve(trainer, "loss") == curve(plain, "loss")
    told = capsys.readouterr().out
    assert "execution plan: 8 rows x 1, padding-free, sdpa attention" in told
    assert "out of memory: CUDA out of memory. Tried to allocate 2.00 GiB" in told
    assert "execution plan: 2 rows x 4, padded" in told


def test_a_plan_that_is_predicted_not_to_fit_leaves_the_memory_to_the_next(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "SHARE", -1.0)  # so that nothing fits
    trainer, step = trainer_of(tiny, tmp_path, PLAIN), step_of()
    assert not execution.train(trainer, PLAIN, step)
    assert trainer.model is None
    assert trainer.state.global_step == 0
    assert step.facts == {}


def test_no_plan_left_is_a_clear_stop() -> None:
    found = execution.plans([{"micro_batch": 4, "accumulation": 2}], effective_batch=EFFECTIVE, dtype="float32")
    next(found)
    with pytest.raises(Fault) as caught:
        next(found)
    assert caught.value.code == "R0337"


def test_a_plan_of_another_effective_batch_is_refused() -> None:
    with pytest.raises(Fault) as caught:
        next(execution.plans([{"micro_batch": 8, "accumulation": 2}], effective_batch=EFFECTIVE, dtype="float32"))
    assert caught.value.code == "R0339"


FAST = {"micro_batch": 8, "accumulation": 1, "padding_free": True, "attention": "varlen", "liger": True}


def test_without_a_gpu_its_plans_are_passed_over(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    plain = {"micro_batch": 2, "accumulation": 4}
    assert next(execution.plans([FAST, plain], effective_batch=EFFECTIVE, dtype="bfloat16")) == PLAIN
    assert "passed over (8 rows x 1, padding-free, varlen attention, Liger kernels): no GPU" in capsys.readouterr().out


def test_the_plain_plan_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(execution.CHOICE, "plain")
    written = [{"micro_batch": 8, "accumulation": 1}, {"micro_batch": 2, "accumulation": 4}]
    assert next(execution.plans(written, effective_batch=EFFECTIVE, dtype="float32")) == PLAIN


@pytest.mark.parametrize(
    ("batch", "problem"),
    [
        ({"attention_mask": True}, "rows must lie end to end"),
        ({"position_ids": None}, "rows must lie end to end"),
        ({"rows": 2}, "rows must lie end to end"),
        ({"dropout": 0.1}, "attention dropout"),
        ({"sliding_window": 128}, "sliding windows"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_flash_attention_refuses_what_it_would_compute_wrongly(batch: dict[str, Any], problem: str) -> None:
    import torch
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    compute = ALL_ATTENTION_FUNCTIONS[attention.implementation("varlen")]
    query = torch.zeros(batch.pop("rows", 1), 4, 6, 8)
    given = {"attention_mask": None, "position_ids": torch.arange(6).unsqueeze(0), **batch}
    with pytest.raises(ValueError, match=problem):
        compute(None, query, query, query, **given)
