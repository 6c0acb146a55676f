"""Training on the tiny model: what is saved is what was trained, and each way to fail is named."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.chat import rows_text
from epc.compiler.contract.manifest import Step
from epc.runtime import adapters, data, device_faults, mask, models, recipe, training
from epc.runtime.errors import Fault
from epc.runtime.step import RECORD, FinishRecord

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
            per_device_train_batch_size=2, use_cpu=True, bf16=False, gradient_checkpointing=False, seed=1, data_seed=1,
            optim="adamw_torch", logging_steps=1,
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
    assert adapters.norm(tmp_path / "increment") > 0


@pytest.mark.parametrize("broken", ["scaling", "weight", "logits"])
def test_a_concatenation_that_is_not_the_sum_is_not_served(
    broken: str, tiny: Path, first_phase: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel

    model: Any = PeftModel.from_pretrained(base_of(tiny), first_phase, adapter_name="parent")
    model.add_adapter("increment", lora(r=2))
    for name, parameter in model.named_parameters():
        if "increment" in name and "lora_B" in name:
            parameter.data.normal_()
    module = next(module for name, module in model.named_modules() if name.endswith("layers.1.mlp.down_proj"))
    restore = training._restore_precision

    def damaged(model: Any, names: list[str]) -> None:
        restore(model, names)
        if broken == "scaling":
            module.scaling["served"] *= 1.01
        else:
            module.lora_A["served"].weight.data[0] *= 3

    monkeypatch.setattr(training, "_restore_precision", damaged)
    if broken == "logits":  # found even where weights were not compared
        monkeypatch.setattr(training, "_other_weights", lambda model, names: "")
    with pytest.raises(Fault, match="R0371") as caught:
        training.save_stacked(model, ["parent", "increment"], tmp_path)
    assert ("logits differ" if broken == "logits" else "down_proj differs") in caught.value.fact
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_served_has_the_precision_of_what_was_trained(
    dtype: str, tiny: Path, first_phase: Path, tmp_path: Path
) -> None:
    """On a half-precision base, too; and adapters may sit on different projections."""
    import torch
    from peft import LoraConfig, PeftModel
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=dtype)
    model: Any = PeftModel.from_pretrained(base, first_phase, adapter_name="parent")
    model.add_adapter(
        "increment", LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "up_proj"], task_type="CAUSAL_LM")
    )
    for name, parameter in model.named_parameters():
        if "increment" in name:
            parameter.data.normal_()
    expected = {
        name: sum(
            (module.lora_B[key].weight @ module.lora_A[key].weight).detach().float() * module.scaling[key]
            for key in ("parent", "increment") if key in module.lora_A
        )
        for name, module in model.named_modules() if hasattr(module, "lora_A")
    }  # fmt: skip
    training.save_stacked(model, ["parent", "increment"], tmp_path)
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(tensors) == 2 * len(expected) == 2 * 3 * 2
    for name, update in expected.items():
        a, b = tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"]
        assert a.dtype == b.dtype == torch.float32
        assert torch.allclose(b @ a, update, rtol=1e-5, atol=1e-6), name


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


RECIPE: dict[str, Any] = {
    "method": "lora_sft", "train_on": "every_assistant_turn",
    "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["q_proj", "down_proj"]}, "learning_rate": 1e-2,
    "schedule": "linear", "warmup_steps": 0, "epochs": 1, "batch": 2, "accumulation": 1, "max_length": 1024, "seed": 1,
    "dtype": "float32", "optimizer_steps": STEPS,
}  # fmt: skip
"""What `trainer_of` builds with `lora`."""


class Recorder:
    """A step that keeps its live lines, in a bundle whose model, data and mask steps have finished."""

    def __init__(self, root: Path, tiny: Path, *, parent: Path | None = None, **changed: Any) -> None:
        self.bundle = root
        self.facts: dict[str, Any] = {}
        self.lines: list[Any] = []
        before: tuple[Step, ...] = (
            _step("model", "model"), _step("data", "data"), _step("mask", "mask"),
            *((_step("parent", "train"),) if parent else ()),
        )  # fmt: skip
        self.plan = _step("train", "train", tuple(step.id for step in before), {**RECIPE, **changed})
        self.manifest = SimpleNamespace(steps=(*before, self.plan))
        (self.folder("data")).mkdir(parents=True)
        (self.input("data") / "rows.jsonl").write_text(rows_text(ROWS), encoding="utf-8")
        for step in before:
            self.folder(step.id).mkdir(parents=True, exist_ok=True)
            outputs = {"rows.jsonl": sha256_text(rows_text(ROWS))} if step.id == "data" else {}
            self.finish(step, outputs=outputs, facts={"labels_sha256": labels(tiny)} if step.id == "mask" else {})
        (self.folder("model") / "model").symlink_to(tiny)
        if parent:
            (self.folder("parent") / "adapter").symlink_to(parent)

    def folder(self, step_id: str) -> Path:
        return self.bundle / "store" / f"key-{step_id}"

    input = folder

    def finish(self, step: Step, **changed: Any) -> None:
        record = {
            "id": step.id, "key": step.key, "kind": step.kind, "mode": "real", "recipe": {}, "outputs": {}, "seconds": 0.0,
            "versions": {}, "facts": {}, **changed,
        }  # fmt: skip
        (self.folder(step.id) / RECORD).write_text(
            FinishRecord.model_validate(record).model_dump_json(), encoding="utf-8"
        )

    def progress(self, done: int, total: int, **facts: Any) -> None:
        self.lines.append((done, total, facts))


def _step(name: str, kind: Any, needs: tuple[str, ...] = (), recipe: dict[str, Any] | None = None) -> Step:
    return Step(
        id=name, kind=kind, label=name, needs=needs, key=f"key-{name}", script=f"steps/{name}.py", outputs=(),
        recipe=recipe or {},
    )  # fmt: skip


def labels(tiny: Path) -> str:
    """The digest that a mask step records."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    trainer = mask.prepare(tiny, tokenizer, ROWS, train_on="every_assistant_turn", max_length=1024, out=tiny / "x")
    return str(mask.found(trainer, tokenizer).facts()["labels_sha256"])


def test_the_record_says_what_was_used(tiny: Path, tmp_path: Path) -> None:
    step = Recorder(tmp_path, tiny)
    trained(base_of(tiny), tiny, tmp_path, peft_config=lora(), callbacks=[training.progress_callback(cast(Any, step))])
    used = step.facts[recipe.FACT]
    assert recipe.differences(RECIPE, used) == []
    assert used | recipe.registered(RECIPE) == used
    assert (used["effective_batch"], used["rows"], used["optimizer"]) == (2, len(ROWS), "adamw_torch")
    assert used["data_sha256"] == sha256_text(rows_text(ROWS))
    assert used["labels_sha256"] == labels(tiny)
    assert 0 < used["trained_tokens"] < used["longest_row"] * len(ROWS)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"learning_rate": 2e-2}, "learning_rate is 0.01, registered is 0.02"),
        ({"schedule": "cosine"}, "schedule is linear, registered is cosine"),
        ({"warmup_steps": 1}, "warmup_steps is 0, registered is 1"),
        ({"epochs": 2}, "epochs is 1, registered is 2"),
        ({"accumulation": 4}, "effective_batch is 2, registered is 8"),
        ({"optimizer_steps": 3}, "optimizer_steps is 2, registered is 3"),
        ({"seed": 17}, "seed is 1, registered is 17; data_seed is 1, registered is 17"),
        ({"max_length": 2048}, "max_length is 1024, registered is 2048"),
        ({"dtype": "bfloat16"}, "dtype is float32, registered is bfloat16"),
        ({"lora": {**RECIPE["lora"], "r": 8}}, "lora.r is 4, registered is 8"),
        ({"lora": {**RECIPE["lora"], "alpha": 4}}, "lora.alpha is 8, registered is 4"),
        ({"lora": {**RECIPE["lora"], "dropout": 0.1}}, "lora.dropout is 0.0, registered is 0.1"),
        ({"lora": {**RECIPE["lora"], "rslora": True}}, "lora.rslora is False, registered is True"),
        ({"lora": {**RECIPE["lora"], "target_modules": ["q_proj"]}}, "lora.target_modules is down_proj, q_proj, registered is q_proj"),
    ],
)  # fmt: skip
def test_a_training_that_does_not_follow_its_recipe_stops_before_its_first_step(
    changed: dict[str, Any], words: str, begun: dict[str, Any]
) -> None:
    problems = recipe.differences({**RECIPE, **changed}, begun)
    assert "; ".join(problems) == words


@pytest.fixture(scope="module")
def begun(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a training has used."""
    out = tmp_path_factory.mktemp("begun")
    step = Recorder(out, tiny)
    trained(base_of(tiny), tiny, out, peft_config=lora(), callbacks=[training.progress_callback(cast(Any, step))])
    return dict(step.facts[recipe.FACT])


@pytest.mark.parametrize(
    ("prepare", "code", "words"),
    [
        (lambda step: None, "R0370", "learning_rate is 0.01, registered is 0.5"),
        (lambda step: (step.input("data") / "rows.jsonl").write_text("other"), "R0370", "those of step data had"),
        (lambda step: step.finish(step.manifest.steps[2], facts={"labels_sha256": "0"}), "R0372", "step mask verified"),
        (lambda step: step.finish(step.manifest.steps[2]), "R0372", "step mask verified"),
    ],
)
def test_nothing_is_trained_that_was_not_registered_and_verified(
    prepare: Callable[[Recorder], Any], code: str, words: str, tiny: Path, tmp_path: Path
) -> None:
    changed: dict[str, Any] = {"learning_rate": 0.5} if words.startswith("learning_rate") else {}
    step = Recorder(tmp_path, tiny, **changed)
    prepare(step)
    trainer = trainer_of(
        base_of(tiny), tiny, tmp_path, peft_config=lora(), callbacks=[training.progress_callback(cast(Any, step))]
    )
    with pytest.raises(Fault, match=code) as caught:
        trainer.train()
    assert words in caught.value.fact
    assert trainer.state.global_step == 0
    assert step.lines == []


def test_an_adapter_that_does_not_fit_is_one_fault(first_phase: Path, tmp_path: Path) -> None:
    """PEFT refuses it halfway through a script; the step tells it from a failure of the program."""
    from peft import PeftModel
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=400,
        hidden_size=16,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    with pytest.raises(RuntimeError) as caught:
        PeftModel.from_pretrained(LlamaForCausalLM(config), first_phase, is_trainable=True)
    fault = device_faults.classified(caught.value, place="steps/train.py")
    assert fault is not None
    assert fault.code == "R0309"
    assert "size mismatch for" in fault.fact


def test_an_adapter_of_another_model_is_not_continued(tiny: Path, first_phase: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    other = shutil.copytree(first_phase, tmp_path / "other")
    config = json.loads((other / "adapter_config.json").read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = "/elsewhere/store/key-other/model"
    (other / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    model = PeftModel.from_pretrained(base_of(tiny), other, is_trainable=True)
    for parent, code in ((first_phase, None), (other, "R0310")):
        step = Recorder(tmp_path / f"of-{parent.name}", tiny, parent=parent)
        trainer = trainer_of(model, tiny, tmp_path, callbacks=[training.progress_callback(cast(Any, step))])
        if code is None:
            trainer.train()
        else:
            with pytest.raises(Fault, match=code):
                trainer.train()


def test_the_live_line_shows_loss_and_speed(tiny: Path, tmp_path: Path) -> None:
    step = Recorder(tmp_path, tiny)
    trained(base_of(tiny), tiny, tmp_path, peft_config=lora(), callbacks=[training.progress_callback(cast(Any, step))])
    assert [(done, total) for done, total, _ in step.lines] == [(0, STEPS), (1, STEPS), (2, STEPS)]
    assert all(facts["loss"] > 0 and facts["tokens_per_second"] > 0 for _, _, facts in step.lines[1:])


@pytest.mark.parametrize("broken", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_the_training(broken: str, tiny: Path, tmp_path: Path) -> None:
    model = base_of(tiny)
    model.model.norm.weight.data.fill_(float(broken))
    step = Recorder(tmp_path, tiny)
    with pytest.raises(Fault, match="R0331"):
        trained(model, tiny, tmp_path, peft_config=lora(), callbacks=[training.progress_callback(cast(Any, step))])
