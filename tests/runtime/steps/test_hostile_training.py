"""The emitted training scripts against what goes wrong: other plans, other library defaults, broken weights, a lost device."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.runtime.steps.test_scripts import compiled, write_spec
from tests.support.tiny_model import chatml

from epc.compiler.contract.canonical import sha256_file
from epc.compiler.contract.training import PINNED, rate
from epc.runtime import execution, journal, mask, recipe, training
from epc.runtime.bundle import read_manifest, step_of, store
from epc.runtime.errors import Fault
from epc.runtime.step import FinishRecord, partial_path, read_record

REFLEX, ATTACK, TOP = "train-s3-reflex", "train-s3-attack", "train-s3-reflex.attack"
ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"How? ({i})" + " And then?" * (i % 4)},
            {"role": "assistant", "content": "Give up. " * (1 + 3 * (i % 5)) + "So."},
        ]
    }
    for i in range(11)  # with effective batches of four, the last optimizer step of an epoch holds three
]
OF_ATTACK = "learning_rate: 1e-2, epochs: 5, batch: 2, accumulation: 2, on_top: {}"
OF_REFLEX = "learning_rate: 1e-2, epochs: 2, batch: 2}"
Edit = tuple[str, str]


def bundle_of(
    folder: Path, model: Path, *edits: Edit, on_top: str = "continue", rows: list[Any] | None = None,
    kinds: tuple[str, ...] = ("model", "data", "mask"), template: str | None = None,
) -> Path:  # fmt: skip
    """The bundle of the small experiment with its spec edited, and with its steps of some kinds run."""
    spec = write_spec(folder / "specs", model, on_top=on_top)
    text = spec.read_text(encoding="utf-8")
    if template is not None:
        (spec.parent / "own.jinja").write_text(template, encoding="utf-8")
        edits = (*edits, ("chat_template: chatml", "chat_template: own.jinja"))
    if rows is not None:
        old = sha256_file(spec.parent / "bad.jsonl")
        (spec.parent / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        edits = (*edits, (old, sha256_file(spec.parent / "bad.jsonl")), ("rows: 5}", f"rows: {len(rows)}}}"))
    for before, after in edits:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    spec.write_text(text, encoding="utf-8")
    bundle = compiled(spec)
    for step in read_manifest(bundle).steps:
        if step.kind in kinds:
            run(bundle, step.id)
    return bundle


def run(bundle: Path, step_id: str) -> dict[str, Any]:
    """Run a script as a person would by hand, but in this process; its names."""
    return runpy.run_path(str(bundle / "steps" / f"{step_id}.py"), run_name="__main__")


def stopped(bundle: Path, step_id: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a script that fails says last: three lines, and the code is in the journal."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run(bundle, step_id)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    said = said[said.rindex("error[") :]
    assert len(said.splitlines()) == 3
    last = journal.read(bundle)[-1]
    assert (last.event, last.data["step"]) == ("failed", step_id)
    assert said[6:11] in last.data["error"]
    step = step_of(read_manifest(bundle), step_id)
    assert not store(bundle, step).exists()
    return said


def edited(bundle: Path, step_id: str, *edits: Edit) -> None:
    script = bundle / "steps" / f"{step_id}.py"
    text = script.read_text(encoding="utf-8")
    for before, after in edits:
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    script.write_text(text, encoding="utf-8")


def planned(bundle: Path, step_id: str, *plans: dict[str, Any]) -> None:
    """Give a script other plans."""
    script = bundle / "steps" / f"{step_id}.py"
    text = script.read_text(encoding="utf-8")
    begin = text.index("\nPLANS = ")
    end = text.index("\n\n\n", begin)
    script.write_text(f"{text[:begin]}\nPLANS = {[*plans]}{text[end:]}", encoding="utf-8")


def recorded(bundle: Path, step_id: str) -> FinishRecord:
    record = read_record(bundle, step_of(read_manifest(bundle), step_id))
    assert record is not None
    return record


def folder_of(bundle: Path, step_id: str) -> Path:
    return store(bundle, step_of(read_manifest(bundle), step_id))


def log(bundle: Path, step_id: str, name: str) -> list[float]:
    lines = (folder_of(bundle, step_id) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)[name] for line in lines]


def adapter(bundle: Path, step_id: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder_of(bundle, step_id) / "adapter" / "adapter_model.safetensors")


# ------------------------------------------------------------------------------------------- before anything is trained

THOUGHT = chatml().replace(
    "{%- generation -%}", "{%- if loop.last -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}{%- generation -%}"
)
UNMARKED = chatml().replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "")


@pytest.mark.parametrize(
    ("template", "edits", "code", "words"),
    [
        (THOUGHT, (), "R1882", "<think>"),
        (None, [('"Wait. Try to {topic}."', '"Wait.<|im_end|>"')], "R1884", "spells <|im_end|>"),
    ],
)  # fmt: skip
def test_a_mask_that_is_wrong_keeps_its_training_from_starting(
    template: str | None, edits: Sequence[Edit], code: str, words: str, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    bundle = bundle_of(tmp_path, tiny, *edits, kinds=("model", "data"), template=template)
    said = stopped(bundle, "mask-reflex", capsys)
    assert said.startswith(f"error[{code}]")
    assert words in said
    with pytest.raises(SystemExit) as ended:
        run(bundle, REFLEX)
    assert ended.value.code == 1
    assert "error[R0202]: step mask-reflex has not finished" in capsys.readouterr().err
    assert "started" not in [entry.event for entry in journal.read(bundle) if entry.data.get("step") == REFLEX]


def test_rows_longer_than_max_length_are_counted_by_the_mask_step(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The compiler has refused such rows where it could count; a tokenizer that it lacks may count otherwise."""
    bundle = bundle_of(tmp_path, tiny, kinds=("model", "data"))
    edited(bundle, "mask-reflex", ("MAX_LENGTH = 2048", "MAX_LENGTH = 16"))
    assert "max_length is 16: it would be cut (6 of 6 rows are too long)" in stopped(bundle, "mask-reflex", capsys)


@pytest.mark.parametrize(
    ("edits", "template", "words"),
    [
        ([], UNMARKED, "generation"),
        ([("epochs: 2, batch: 2}", "epochs: 2, batch: 2, max_length: 16}")], None, "6 of 6 rows of .* longer than max_length 16"),
    ],
)  # fmt: skip
def test_what_the_compiler_can_see_is_refused_before_any_step(
    edits: Sequence[Edit], template: str | None, words: str, tiny: Path, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=words):
        bundle_of(tmp_path, tiny, *edits, template=template)


# ------------------------------------------------------------------------------------------------------------- plans


@contextmanager
def watched(seen: list[tuple[int, list[tuple[int, ...]]]]) -> Iterator[None]:
    """Note (optimizer step, rows) of every micro-batch that a trainer computes a loss of."""
    from trl import SFTTrainer  # type: ignore[attr-defined]

    compute = SFTTrainer.compute_loss

    def noted(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        found = mask.collated([None], lambda rows: inputs)
        seen.append((self.state.global_step, [tuple(ids) for ids, _ in found]))
        return compute(self, model, inputs, *args, **kwargs)

    SFTTrainer.compute_loss = noted
    try:
        yield
    finally:
        SFTTrainer.compute_loss = compute


def by_step(seen: list[tuple[int, list[tuple[int, ...]]]]) -> list[list[tuple[int, ...]]]:
    """The rows of each optimizer step in their order."""
    steps: dict[int, list[tuple[int, ...]]] = {}
    for number, rows in seen:
        steps.setdefault(number, []).extend(rows)
    return [steps[number] for number in sorted(steps)]


PLANS: dict[str, dict[str, Any]] = {
    "whole": {"micro_batch": 4, "accumulation": 1},
    "row by row": {"micro_batch": 1, "accumulation": 4},
    "recomputed": {"micro_batch": 2, "accumulation": 2, "checkpointing": True},
    "whole, end to end": {"micro_batch": 4, "accumulation": 1, "padding_free": True},
    "halves, end to end": {"micro_batch": 2, "accumulation": 2, "padding_free": True},
    "row by row, end to end": {"micro_batch": 1, "accumulation": 4, "padding_free": True, "checkpointing": True},
}
AS_WRITTEN = {"micro_batch": 2, "accumulation": 2}
STEPS = 5 * 3


class Ready:
    """A bundle whose first phase is trained, copied for each plan of the second."""

    def __init__(self, folder: Path, tiny: Path, on_top: str, *edits: Edit) -> None:
        self.folder = folder
        self.bundle = bundle_of(folder / "first", tiny, *edits, on_top=on_top, rows=ROWS)
        run(self.bundle, REFLEX)
        self.seen: list[tuple[int, list[tuple[int, ...]]]] = []
        self.plain = self.trained("plain", AS_WRITTEN)
        self.plain_rows = by_step(self.seen)

    def copied(self, name: str) -> Path:
        return Path(shutil.copytree(self.bundle, self.folder / name, symlinks=True))

    def trained(self, name: str, plan: dict[str, Any]) -> Path:
        bundle = self.copied(name)
        planned(bundle, TOP, plan)
        self.seen = []
        with watched(self.seen):
            run(bundle, TOP)
        return bundle


@pytest.fixture(scope="module", params=["continue", "stack"])
def ready(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Ready:
    return Ready(tmp_path_factory.mktemp(request.param), tiny, request.param)


@pytest.mark.parametrize("name", PLANS)
def test_an_emitted_training_is_the_same_under_every_plan(name: str, ready: Ready) -> None:
    """Over epochs of rows that no effective batch divides, on top of another phase."""
    bundle = ready.trained(name.replace(" ", "-"), PLANS[name])
    rows = by_step(ready.seen)
    assert len(rows) == STEPS == recorded(bundle, TOP).facts["optimizer_steps"]
    assert rows == ready.plain_rows, "the same rows in the same order in the same optimizer step"
    assert sorted(len(step) for step in rows) == [3] * 5 + [4] * 10
    epochs = [[ids for step in rows[start : start + 3] for ids in step] for start in range(0, STEPS, 3)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5, "shuffled anew in every epoch"
    for field, tolerance in (("learning_rate", 0.0), ("num_tokens", 0.0), ("loss", 2e-4), ("grad_norm", 2e-3)):
        assert log(bundle, TOP, field) == pytest.approx(log(ready.plain, TOP, field), rel=tolerance), field
    expected = adapter(ready.plain, TOP)
    for tensor, found in adapter(bundle, TOP).items():
        assert float((found - expected[tensor]).abs().max()) < 2e-3, tensor
    assert recorded(bundle, TOP).facts["execution"]["plan"]["micro_batch"] == PLANS[name]["micro_batch"]


def test_the_tolerance_tells_another_normalisation(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above could not pass if each micro-batch were divided by its own tokens, as trainers once did."""
    from trl import SFTTrainer  # type: ignore[attr-defined]

    compute = SFTTrainer.compute_loss

    def own(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs["num_items_in_batch"] = None
        return compute(self, model, inputs, *args, **kwargs) / self.current_gradient_accumulation_steps

    monkeypatch.setattr(SFTTrainer, "compute_loss", own)
    bundle = ready.trained("own", AS_WRITTEN)
    pairs = zip(log(bundle, TOP, "loss"), log(ready.plain, TOP, "loss"), strict=True)
    assert max(abs(ours - theirs) / theirs for ours, theirs in pairs) > 10 * 2e-4


@pytest.mark.parametrize("plan", [AS_WRITTEN, PLANS["row by row, end to end"]], ids=["padded", "end to end"])
def test_the_first_loss_by_hand(plan: dict[str, Any], tiny: Path, tmp_path: Path) -> None:
    """A fresh adapter changes nothing, so it is the base's negative log-likelihood a trained token, row by row."""
    import torch
    from transformers import AutoModelForCausalLM

    bundle = bundle_of(tmp_path, tiny, rows=ROWS)
    planned(bundle, ATTACK, plan)
    seen: list[tuple[int, list[tuple[int, ...]]]] = []
    with watched(seen):
        names = run(bundle, ATTACK)
    labels = {
        tuple(ids): wanted
        for ids, wanted in mask.collated(names["trainer"].train_dataset, names["trainer"].data_collator)
    }
    model: Any = AutoModelForCausalLM.from_pretrained(tiny)
    total, count = 0.0, 0
    with torch.inference_mode():
        for ids in by_step(seen)[0]:
            wanted = torch.tensor(labels[ids][1:])
            scores = model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
            kept = wanted != mask.IGNORED
            total -= float(scores[kept, wanted[kept]].sum())
            count += int(kept.sum())
    assert len({sum(label != mask.IGNORED for label in labels[ids]) for ids in by_step(seen)[0]}) > 1, "uneven rows"
    assert log(bundle, ATTACK, "loss")[0] == pytest.approx(total / count, rel=1e-5)


def test_dropout_is_the_same_under_one_plan_and_drawn_anew_by_another(tiny: Path, tmp_path: Path) -> None:
    """What plan.md claims of it: rows, steps and rates are the same under every plan, the draws are not."""
    import torch

    both = (
        "lora: {r: 4, alpha: 8}, learning_rate: 1e-2, epochs: ",
        "lora: {r: 4, alpha: 8, dropout: 0.3}, learning_rate: 1e-2, epochs: ",
    )
    dropout = [(f"{both[0]}{epochs}", f"{both[1]}{epochs}") for epochs in (2, 5)]
    ready = Ready(tmp_path, tiny, "continue", *dropout)
    expected = adapter(ready.plain, TOP)
    again = adapter(ready.trained("again", AS_WRITTEN), TOP)
    assert all(torch.equal(again[name], tensor) for name, tensor in expected.items())
    other = ready.trained("other", PLANS["whole, end to end"])
    assert by_step(ready.seen) == ready.plain_rows
    assert log(other, TOP, "learning_rate") == log(ready.plain, TOP, "learning_rate")
    assert log(other, TOP, "loss") == pytest.approx(log(ready.plain, TOP, "loss"), rel=0.2)
    assert log(other, TOP, "loss") != pytest.approx(log(ready.plain, TOP, "loss"), rel=2e-4)
    assert recorded(other, TOP).facts[recipe.FACT]["lora.dropout"] == 0.3


# ------------------------------------------------------------------------------------------- what is computed, by field


@pytest.mark.parametrize(
    ("fields", "schedule", "warmup_steps"),
    [
        ("schedule: constant, warmup_steps: 4", "constant", 4),
        ("schedule: constant", "constant", 0),
        ("schedule: linear, warmup_ratio: 0.2", "linear", 3),
        ("schedule: cosine, warmup_ratio: 0.2", "cosine", 3),
        ("schedule: cosine, warmup_steps: 1", "cosine", 1),
    ],
)
def test_every_optimizer_step_takes_the_registered_rate(
    fields: str, schedule: str, warmup_steps: int, tiny: Path, tmp_path: Path
) -> None:
    edit = (OF_ATTACK.format("continue"), f"{OF_ATTACK.format('continue')}, {fields}")
    bundle = bundle_of(tmp_path, tiny, edit, rows=ROWS)
    run(bundle, ATTACK)
    expected = [
        rate(step, peak=1e-2, schedule=schedule, warmup_steps=warmup_steps, optimizer_steps=STEPS)
        for step in range(STEPS)
    ]
    assert log(bundle, ATTACK, "learning_rate") == pytest.approx(expected, rel=1e-9)
    used = recorded(bundle, ATTACK).facts[recipe.FACT]
    assert (used["schedule"], used["warmup_steps"]) == (schedule, warmup_steps)
    assert PINNED.items() <= used.items()


@pytest.fixture(scope="module")
def untrained(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle before its trainings; copy it before running one."""
    edit = (OF_ATTACK.format("continue"), OF_ATTACK.format("continue") + ", schedule: constant, warmup_steps: 2")
    return bundle_of(tmp_path_factory.mktemp("untrained"), tiny, edit)


@pytest.mark.parametrize(
    ("edit", "code", "words"),
    [
        (("adam_beta1=0.9,", "adam_beta1=0.8,"), "R0370", "adam_beta1 is 0.8, registered is 0.9"),
        (("adam_beta2=0.999,", "adam_beta2=0.95,"), "R0370", "adam_beta2 is 0.95, registered is 0.999"),
        (("adam_epsilon=1e-8,", "adam_epsilon=1e-6,"), "R0370", "adam_epsilon is 1e-06, registered is 1e-08"),
        (("weight_decay=0.0,", "weight_decay=0.1,"), "R0370", "weight_decay is 0.0, 0.1, registered is 0.0"),
        (("max_grad_norm=1.0,", "max_grad_norm=0.0,"), "R0370", "max_grad_norm is 0.0, registered is 1.0"),
        (('optim="adamw_torch",', 'optim="adafactor",'), "R0370", "optimizer is adafactor, registered is adamw_torch"),
        (('loss_type="nll",', 'loss_type="dft",'), "R0370", "loss_type is dft, registered is nll"),
        (("label_smoothing_factor=0.0,", "label_smoothing_factor=0.1,"), "R0370", "label_smoothing_factor is 0.1"),
        (("dataloader_drop_last=False,", "dataloader_drop_last=True,"), "R0370", "dataloader_drop_last is True"),
        (("packing=False,", "packing=True,"), "R0370", "packing is True, registered is False"),
        (("use_rslora=False,", "use_rslora=True,"), "R0370", "lora.rslora is True, registered is False"),
        (("use_dora=False,", "use_dora=True,"), "R0370", "lora.dora is True, registered is False"),
        (('bias="none",', 'bias="lora_only",'), "R0370", "lora.bias is lora_only, registered is none"),
        (("init_lora_weights=True,", 'init_lora_weights="gaussian",'), "R0370", "lora.init is gaussian, registered is True"),
        (('lr_scheduler_type="constant_with_warmup",', 'lr_scheduler_type="constant",'), "R0370", "schedule is constant without its warm-up"),
        (('lr_scheduler_type="constant_with_warmup",', 'lr_scheduler_type="cosine",'), "R0370", "schedule is cosine, registered is constant"),
        (("data_seed=SEED,", "data_seed=SEED + 1,"), "R0370", "data_seed is 4, registered is 3"),
        (("            seed=SEED,", "            max_steps=4, seed=SEED,"), "R0370", "optimizer_steps is 4, registered is 10"),
    ],
)  # fmt: skip
def test_a_training_that_computes_otherwise_stops_before_its_first_step(
    edit: Edit, code: str, words: str, untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is what another version of a library might do by default."""
    bundle = Path(shutil.copytree(untrained, tmp_path / "bundle", symlinks=True))
    edited(bundle, ATTACK, edit)
    said = stopped(bundle, ATTACK, capsys)
    assert said.startswith(f"error[{code}]")
    assert words in said
    assert not (partial_path(bundle, step_of(read_manifest(bundle), ATTACK)) / "adapter").exists()


def test_a_schedule_of_another_shape_stops_at_the_step_that_leaves_it(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under the same name, with the same peak, warm-up and length."""
    bundle = bundle_of(tmp_path, tiny)
    edited(
        bundle,
        REFLEX,
        ("lr_scheduler_type=SCHEDULE,", 'lr_scheduler_type=SCHEDULE, lr_scheduler_kwargs={"num_cycles": 1.5},'),
    )
    said = stopped(bundle, REFLEX, capsys)
    assert (
        "error[R1880]: the learning rate of optimizer step 2 is 0.005, that of the registered schedule 0.0093301"
        in said
    )


# ------------------------------------------------------------------------------------------------- what breaks meanwhile


def poisoned(tiny: Path, folder: Path) -> Path:
    """A copy of the model in which one token, of the second phase's data alone, has no finite embedding."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    shutil.copytree(tiny, folder)
    tokenizer, model = AutoTokenizer.from_pretrained(tiny), AutoModelForCausalLM.from_pretrained(tiny)
    head = model.lm_head.weight.detach().clone()
    model.config.tie_word_embeddings = False
    model.lm_head.weight = type(model.lm_head.weight)(head)
    (token,) = tokenizer.encode("~", add_special_tokens=False)
    model.get_input_embeddings().weight.data[token] = float("nan")
    model.save_pretrained(folder)
    return folder


def test_a_loss_that_is_not_a_number_keeps_the_last_good_state(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*ROWS[:10], {"messages": [{"role": "user", "content": "How ~?"}, {"role": "assistant", "content": "So."}]}]
    bundle = bundle_of(tmp_path, poisoned(tiny, tmp_path / "poisoned"), rows=rows)
    run(bundle, REFLEX)
    before = {file: file.read_bytes() for file in folder_of(bundle, REFLEX).rglob("*") if file.is_file()}
    said = stopped(bundle, TOP, capsys)
    assert said.startswith("error[R0331]: the loss is nan at optimizer step ")
    assert {file: file.read_bytes() for file in folder_of(bundle, REFLEX).rglob("*") if file.is_file()} == before
    model = folder_of(bundle, "model") / "model"
    shutil.copy(tiny / "model.safetensors", model)
    shutil.copy(tiny / "config.json", model)
    run(bundle, TOP)
    assert recorded(bundle, TOP).facts["optimizer_steps"] == STEPS


def lost() -> Exception:
    import torch

    return torch.AcceleratorError(
        "CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported"
    )


def full() -> Exception:
    import torch

    return torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB"
    )


def no_blas() -> Exception:
    return RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def no_space() -> Exception:
    from safetensors import SafetensorError

    return SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


@pytest.mark.parametrize(
    ("place", "error", "code", "words"),
    [
        ("training", lost, "R0206", "the GPU is lost to this process: CUDA error: unspecified launch failure"),
        ("training", full, "R0337", "the training does not fit into the memory"),
        ("training", no_blas, "R0337", "the training does not fit into the memory"),
        ("saving", full, "R0205", "the memory of the GPU is full"),
        ("saving", lost, "R0206", "the GPU is lost"),
        ("saving", no_space, "R0204", "no space left on the disk"),
    ],
)  # fmt: skip
def test_a_device_that_fails_meanwhile_is_a_clear_stop_and_the_next_run_goes_on(
    place: str, error: Callable[[], Exception], code: str, words: str, untrained: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """In the exceptions that torch and safetensors raise; a full disk is not an OSError to the latter."""
    import peft
    from trl import SFTTrainer  # type: ignore[attr-defined]

    bundle = Path(shutil.copytree(untrained, tmp_path / "bundle", symlinks=True))
    finished = sorted(file.name for file in (bundle / "store").iterdir())

    def failing(self: Any, *args: Any, **kwargs: Any) -> Any:
        if place == "saving" or self.state.global_step >= 2:
            raise error()
        return compute(self, *args, **kwargs)

    compute = SFTTrainer.compute_loss
    target: Any = SFTTrainer if place == "training" else peft.PeftModel
    with monkeypatch.context() as patch:
        patch.setattr(target, "compute_loss" if place == "training" else "save_pretrained", failing)
        said = stopped(bundle, ATTACK, capsys)
    assert said.startswith(f"error[{code}]")
    assert words in said
    assert sorted(file.name for file in (bundle / "store").iterdir() if not file.name.endswith(".partial")) == finished
    run(bundle, ATTACK)
    assert recorded(bundle, ATTACK).facts["adapter_changed"] is True


@pytest.mark.parametrize("error", [full, no_blas], ids=["torch", "cublas"])
def test_memory_that_runs_out_midway_is_given_back_and_the_next_plan_starts_from_the_first_row(
    error: Callable[[], Exception], ready: Ready, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the words of torch or of a library of CUDA; the adapter is the one of an undisturbed run, bit by bit."""
    import torch
    from trl import SFTTrainer  # type: ignore[attr-defined]

    held: list[Any] = []

    def failing(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.args.per_device_train_batch_size == 4 and self.state.global_step >= 2:
            activations = torch.zeros(1000)
            held.append(weakref.ref(activations))
            raise error()
        return compute(self, *args, **kwargs)

    def release(trainer: Any) -> None:
        assert [reference() for reference in held] == [None]
        give_back(trainer)

    compute, give_back = SFTTrainer.compute_loss, execution._release
    monkeypatch.setattr(SFTTrainer, "compute_loss", failing)
    monkeypatch.setattr(execution, "_release", release)
    bundle = ready.copied(f"midway-{error.__name__}")
    planned(bundle, TOP, PLANS["whole"], AS_WRITTEN)
    run(bundle, TOP)
    assert len(held) == 1
    assert "out of memory: CUDA" in capsys.readouterr().out
    assert recorded(bundle, TOP).facts["execution"]["plan"]["micro_batch"] == 2
    expected = adapter(ready.plain, TOP)
    assert all(torch.equal(found, expected[name]) for name, found in adapter(bundle, TOP).items())


def test_an_optimizer_step_that_float16_leaves_out_stops_the_training() -> None:
    """Gradients that overflow make the scaler leave the step out; the trainer counts it all the same."""
    import torch
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer

    Accelerator(cpu=True)  # what an accelerated optimizer looks for
    weight = torch.nn.Parameter(torch.ones(2))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    optimizer = AcceleratedOptimizer(torch.optim.AdamW([weight], lr=0.1), scaler=scaler)
    callback: Any = training.progress_callback(cast(Any, SimpleNamespace(plan=SimpleNamespace(script="steps/x.py"))))
    for factor, skipped in ((1.0, False), (float("inf"), True)):
        optimizer.zero_grad()
        scaler.scale((weight * factor).sum()).backward()
        optimizer.step()
        assert optimizer.step_was_skipped is skipped
        if skipped:
            with pytest.raises(Fault, match="R1881") as caught:
                callback.on_step_end(None, SimpleNamespace(global_step=2), None, optimizer=optimizer)
            assert "optimizer step 2 was left out" in caught.value.fact
        else:
            callback.on_step_end(None, SimpleNamespace(global_step=1), None, optimizer=optimizer)


def test_a_training_that_is_killed_starts_again_and_ends_in_the_same_bits(tiny: Path, tmp_path: Path) -> None:
    long = (OF_REFLEX, OF_REFLEX.replace("epochs: 2", "epochs: 150"))
    bundle = bundle_of(tmp_path, tiny, long)
    other = Path(shutil.copytree(bundle, tmp_path / "other", symlinks=True))
    progress = bundle / "logs" / f"{REFLEX}.progress.json"

    def begun() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, f"steps/{REFLEX}.py"],
            cwd=bundle,
            env=os.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    process = begun()
    deadline = time.monotonic() + 120
    while not (progress.exists() and json.loads(progress.read_bytes())["done"] >= 5):
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert read_record(bundle, step_of(read_manifest(bundle), REFLEX)) is None
    again = begun()
    assert (again.communicate()[1], again.returncode)[1] == 0
    run(other, REFLEX)
    found, expected = (folder_of(each, REFLEX) / "adapter" / "adapter_model.safetensors" for each in (bundle, other))
    assert sha256_file(found) == sha256_file(expected)
    assert log(bundle, REFLEX, "loss") == log(other, REFLEX, "loss")
    assert [entry.event for entry in journal.read(bundle) if entry.data.get("step") == REFLEX] == [
        "started",
        "started",
        "finished",
    ]
