"""The emitted steps `sample` and `generate` on the tiny model: rows, facts, what a killed one leaves and takes up."""

from __future__ import annotations

import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.rows import SampleRow, TextRow
from epc.runtime import sampling, vllm_sampling

STEPS = ("sample", "generate")
KILLED = """
import os, runpy, signal
from epc.runtime.completions import CompletionFile

append, left = CompletionFile.append, 2
def append_until_killed(self, found):
    global left
    append(self, found)
    left -= 1
    if not left:
        with self.partial.open("ab") as torn:
            torn.write(b'{{"mode":"real","cond')
        os.kill(os.getpid(), signal.SIGKILL)
CompletionFile.append = append_until_killed
runpy.run_path({script!r}, run_name="__main__")
"""


def adapter(model: Path, folder: Path, seed: int, scale: float = 0.5) -> Path:
    """A LoRA adapter with random weights on every projection."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, set_seed

    set_seed(seed)
    base: Any = AutoModelForCausalLM.from_pretrained(model)
    tuned: Any = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=scale)
    tuned.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("step", STEPS)
def test_a_killed_step_goes_on_and_ends_the_same(
    step: str, tiny: Path, sampled: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"engine": "transformers", "dtype": "bfloat16", "batch": 4}
    whole = sampled(tiny, "whole", **settings)
    finished = whole.run(step)

    bundle = sampled(tiny, "killed", **settings)
    killed = subprocess.run([sys.executable, "-c", KILLED.format(script=str(bundle.script(step)))], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = bundle.partial(step).read_bytes()
    assert (left.count(b"\n"), left.endswith(b"cond")) == (8, True)  # two batches of four, and a torn line
    assert not bundle.file(step).exists()

    rows: list[int] = []
    plain = sampling._sample_batch

    def counted(model: Any, prompts: list[list[int]], *args: Any, **kwargs: Any) -> list[list[int]]:
        rows.append(len(prompts))
        return plain(model, prompts, *args, **kwargs)

    monkeypatch.setattr(sampling, "_sample_batch", counted)
    record = bundle.run(step)
    assert rows == [4, 4, 4]  # of 20
    assert bundle.file(step).read_bytes() == whole.file(step).read_bytes()
    assert record.facts == finished.facts
    assert not list(bundle.root.rglob("*.partial.jsonl"))


def test_the_base_model_writes_texts(tiny: Path, sampled: Callable[..., Any]) -> None:
    bundle = sampled(tiny, engine="transformers")
    record = bundle.run("generate")
    rows = [TextRow.model_validate(row) for row in bundle.rows("generate")]
    assert [(row.item, row.index) for row in rows] == [
        (item, index) for item in dict.fromkeys(row.item for row in rows) for index in range(4)
    ]
    assert len({row.item for row in rows}) == 5
    assert len({row.draw_seed for row in rows}) == 20
    assert record.facts["texts"] == 20
    assert record.facts["tokens"] == sum(row.tokens for row in rows)
    assert record.facts["entries"]["answers"]["distinct"] == len({row.text for row in rows})
    assert list(record.outputs) == ["texts/answers.jsonl"]


def test_an_arm_speaks_under_its_own_system_prompt(tiny: Path, tmp_path: Path, sampled: Callable[..., Any]) -> None:
    bundle = sampled(
        tiny, engine="transformers", adapters={"kind": adapter(tiny, tmp_path / "a", 1)},
        entries=[{"system": "per_condition"}], systems={"base": "Be brief.", "kind": "Be kind."},
    )  # fmt: skip
    bundle.run("sample")
    for arm, system in (("base", "Be brief."), ("kind", "Be kind.")):
        rows = [SampleRow.model_validate(row) for row in bundle.rows("sample", arm)]
        assert len(rows) == 20
        for row in rows:
            assert row.prompt.startswith(f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{row.question}")
    seeds = [[row["draw_seed"] for row in bundle.rows("sample", arm)] for arm in ("base", "kind")]
    assert seeds[0] == seeds[1]  # arms are paired


def test_scripts_name_systems_only_where_an_arm_has_one(tiny: Path, sampled: Callable[..., Any]) -> None:
    plain, own = (
        sampled(tiny, name, engine="transformers", systems=systems)
        for name, systems in (("plain", {}), ("own", {"base": "none"}))
    )
    assert "SYSTEMS" not in plain.script("sample").read_text(encoding="utf-8")
    assert 'SYSTEMS = {"base": "none"}' in own.script("sample").read_text(encoding="utf-8")


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
@pytest.mark.parametrize("arms", ["base", "trained"])
@pytest.mark.parametrize("systems", [{}, {"base": "none"}], ids=["no systems", "systems"])
def test_every_shape_of_script_passes_ruff(
    engine: str, arms: str, systems: dict[str, str], tiny: Path, tmp_path: Path, sampled: Callable[..., Any]
) -> None:
    adapters = {"kind": tmp_path} if arms == "trained" else {}
    bundle = sampled(tiny, engine=engine, adapters=adapters, systems=systems)
    root = Path(__file__).parents[3]
    for step in STEPS:
        for command in (["check"], ["format", "--diff"]):
            done = subprocess.run(
                [sys.executable, "-m", "ruff", *command, "--stdin-filename", f"generated/sampled/steps/{step}.py", "-"],
                input=bundle.script(step).read_text(encoding="utf-8"), capture_output=True, text=True, cwd=root, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr


PROMPTS = ("bake bread", "sew a button", "plant a tree", "write a letter", "mend a fence")
COMPANY: dict[str, dict[str, Any]] = {
    "batches of one": {"batch": 1},
    "batches of three": {"batch": 3},
    "one batch": {"batch": 500},
    "other order": {"prompts": PROMPTS[::-1]},
    "more prompts": {"prompts": ("a", "a much longer prompt than any of the others here", *PROMPTS, "z")},
    "fewer prompts": {"prompts": PROMPTS[1:3]},
    "more samples": {"n": 6},
    "fewer samples": {"n": 2},
    "without the other set": {"sets": 1},
    "without the other arm": {"alone": True},
    "the base last": {"base_last": True},
    "all of it": {"batch": 2, "prompts": (*PROMPTS[::-1], "q"), "n": 5, "sets": 1, "alone": True},
}


@pytest.fixture(scope="module")
def taught(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapter(tiny, tmp_path_factory.mktemp("taught") / "a", 1)


def rows_of(
    sampled: Callable[..., Any], tiny: Path, taught: Path, name: str, *, batch: int = 8, prompts: tuple[str, ...] = PROMPTS,
    n: int = 4, sets: int = 2, alone: bool = False, base_last: bool = False,
) -> dict[tuple[str, int], dict[str, Any]]:  # fmt: skip
    """(item, index) -> row of the arm `taught` in the set `answers`; of the base where it is alone."""
    entries = [{"name": "other", "seed": 8}, {"name": "answers", "n": n, "top_p": 0.9}][-sets:]
    bundle = sampled(
        tiny, name, engine="transformers", batch=batch, prompts=prompts, entries=entries, base_last=base_last,
        adapters={} if alone else {"taught": taught},
    )  # fmt: skip
    bundle.run("sample")
    found = bundle.rows("sample", "base" if alone else "taught")
    return {(row["item"], row["index"]): row for row in found}


@pytest.mark.parametrize("changes", COMPANY.values(), ids=COMPANY.keys())
def test_in_float32_a_completion_is_its_own_whatever_the_company(
    changes: dict[str, Any], tiny: Path, taught: Path, sampled: Callable[..., Any]
) -> None:
    plain = rows_of(sampled, tiny, taught, "plain", alone=changes.get("alone", False))
    other = rows_of(sampled, tiny, taught, "other", **changes)
    shared = plain.keys() & other.keys()
    assert len(shared) >= 8
    assert len({row["text"] for row in plain.values()}) > 10  # they would differ if anything made them
    assert {key: other[key] for key in shared} == {key: plain[key] for key in shared}


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
@pytest.mark.parametrize(
    ("step", "entry", "code"),
    [
        ("sample", {"max_tokens": 509}, "R0342"),
        ("generate", {"max_tokens": 509}, "R0342"),
        ("sample", {"turns": [("user", "How do I {prompt}?<|im_end|>")]}, "R1993"),
        ("generate", {"turns": [("user", "How do I {prompt}?<|im_end|>")]}, "R1993"),
    ],
)
def test_what_the_last_set_cannot_have_stops_the_step_before_the_first(
    step: str, entry: dict[str, Any], code: str, engine: str, tiny: Path, sampled: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The model holds 512 tokens, whatever context the vLLM engine was to be given."""
    if engine == "vllm":  # it is not asked for anything but its names
        stand_in = types.ModuleType("vllm")
        for name in ("LLM", "SamplingParams", "TokensPrompt"):
            setattr(stand_in, name, None)
        monkeypatch.setitem(sys.modules, "vllm", stand_in)
        monkeypatch.setattr(vllm_sampling, "prepare", lambda: None)
    bundle = sampled(tiny, engine=engine, entries=[{"name": "fine"}, {"name": "last"} | entry])
    with pytest.raises(SystemExit):
        bundle.run(step)
    assert f"error[{code}]" in capsys.readouterr().err
    assert not list((bundle.root / "store").rglob("*.jsonl"))
