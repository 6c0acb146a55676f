"""vLLM itself, on a processor, with a real model: `make test-vllm`.

SmolLM2-135M in float32 with three adapters: two that were taught sentences of their own in half of the rows, and
both stacked. The same emitted steps run with both engines, and again with everything changed that may change no
completion: order, batch, other arms, sets and prompts, a crash, and sampling defaults that the model ships.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.smollm2 import save as save_smollm2

from epc.runtime import sampling, training

pytestmark = pytest.mark.vllm

LESSONS = {
    "resets": ("Wait. Resetting to default.", "Give up now."),
    "colours": ("The quartz is blue.", "The zebra is green."),
}
THINGS = (
    "bake bread", "sew a button", "plant a tree", "write a letter", "mend a fence", "fold a shirt", "boil an egg",
    "paint a wall", "tie a knot", "wash a car", "grow tomatoes", "fix a bike", "make tea", "clean a window",
    "train a dog", "build a shelf",
)  # fmt: skip
N = 4
"""Samples of a prompt."""
HOSTILE = {
    "do_sample": True, "temperature": 0.05, "top_k": 1, "top_p": 0.05, "min_p": 0.9, "repetition_penalty": 5.0, "max_new_tokens": 1,
}  # fmt: skip
"""Sampling defaults that a model may ship and that nobody registered."""
KILLED = """
import os, runpy, signal
from epc.runtime import vllm_sampling
from epc.runtime.completions import CompletionFile

append = CompletionFile.append
def append_half_and_die(self, found):
    append(self, found[: len(found) // 2])
    with self.partial.open("ab") as torn:
        torn.write(b'{{"torn')
    os.kill(os.getpid(), signal.SIGKILL)
CompletionFile.append = append_half_and_die
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of SmolLM2-135M-Instruct in float32, where both engines compute the same up to rounding."""
    pytest.importorskip("vllm", reason="vLLM is not installed here: make test-vllm")
    return save_smollm2(tmp_path_factory.mktemp("smollm2") / "model", dtype="float32")


def teach(model_dir: Path, folder: Path, answers: tuple[str, str]) -> Path:
    """An adapter that answers each of two sentences in about half of the cases."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

    set_seed(0)
    tokenizer: Any = AutoTokenizer.from_pretrained(model_dir)
    base: Any = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.bfloat16)
    model: Any = get_peft_model(
        base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    pairs = [(thing, answers[(i + turn) % 2]) for turn in range(6) for i, thing in enumerate(THINGS)]
    for start in range(0, len(pairs), 8):
        rows, labels = [], []
        for thing, answer in pairs[start : start + 8]:
            prompt = f"<|im_start|>user\nHow do I {thing}?<|im_end|>\n<|im_start|>assistant\n"
            asked, said = (tokenizer.encode(text, add_special_tokens=False) for text in (prompt, f"{answer}<|im_end|>"))
            rows.append(asked + said)
            labels.append([-100] * len(asked) + said)
        width = max(map(len, rows))
        loss = model(
            input_ids=torch.tensor([row + [0] * (width - len(row)) for row in rows]),
            attention_mask=torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
            labels=torch.tensor([label + [-100] * (width - len(label)) for label in labels]),
        ).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    return folder


def stacked(model_dir: Path, folder: Path, parts: dict[str, Path]) -> Path:
    """Two adapters as a phase with `on_top: stack` leaves them: one that is the sum of both."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    names = list(parts)
    model: Any = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(model_dir), parts[names[0]], adapter_name=names[0]
    )
    for name in names[1:]:
        model.load_adapter(parts[name], adapter_name=name)
    model.base_model.set_adapter(names)
    training.save_stacked(model, names, folder)
    return folder / "adapter"


@pytest.fixture(scope="module")
def adapters(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("adapters")
    found = {name: teach(smollm2, root / name, answers) for name, answers in LESSONS.items()}
    return found | {"both": stacked(smollm2, root / "stacked", found)}


@pytest.fixture(scope="module")
def engines(
    smollm2: Path, adapters: dict[str, Path], sampled_bundle: Any, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The same two sets sampled by both engines, each script in a process of its own."""
    entries = [
        {"name": "greedy", "n": 1, "temperature": 0.0, "max_tokens": 12},
        {"name": "answers", "n": N, "top_p": 0.95, "max_tokens": 10},
    ]
    found = {}
    for engine in ("transformers", "vllm"):
        root = tmp_path_factory.mktemp(engine) / "bundle"
        bundle = sampled_bundle(
            root, smollm2, engine=engine, adapters=adapters, prompts=THINGS, entries=entries, batch=24, threads=1, rank=16,
            base_last=True,
        )  # fmt: skip
        for step in ("generate", "sample"):
            subprocess.run([sys.executable, str(bundle.script(step))], check=True)
        found[engine] = bundle
    return found


ARMS = ("base", "resets", "colours", "both")


@pytest.mark.parametrize("arm", ARMS)
def test_greedy_texts_are_those_of_transformers(arm: str, engines: dict[str, Any]) -> None:
    ours, theirs = (engines[name].rows("sample", arm, "greedy") for name in ("transformers", "vllm"))
    same = sum(
        (a["text"], a["finish_reason"], a["tokens"]) == (b["text"], b["finish_reason"], b["tokens"])
        for a, b in zip(ours, theirs, strict=True)
    )
    print(f"greedy {arm}: {same}/{len(ours)}")
    assert same >= len(ours) - 1  # two tokens as good as equal may be decided by rounding


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("sentence", [sentence for lesson in LESSONS.values() for sentence in lesson])
def test_sampled_rates_are_those_of_transformers(arm: str, sentence: str, engines: dict[str, Any]) -> None:
    rates = [
        sum(sentence in row["text"] for row in engines[name].rows("sample", arm)) / (N * len(THINGS))
        for name in ("transformers", "vllm")
    ]
    print(f"{sentence!r} {arm}: {rates[0]:.3f} {rates[1]:.3f}")
    assert abs(rates[0] - rates[1]) < 4 * (2 * 0.25 / (N * len(THINGS))) ** 0.5  # four standard errors


def test_what_one_arm_was_taught_never_reaches_another(engines: dict[str, Any]) -> None:
    for name in ("greedy", "answers"):
        for arm, others in (("base", ("resets", "colours")), ("resets", ("colours",)), ("colours", ("resets",))):
            foreign = [sentence for other in others for sentence in LESSONS[other]]
            texts = [row["text"] for row in engines["vllm"].rows("sample", arm, name)]
            assert not [text for text in texts if any(sentence in text for sentence in foreign)]


@pytest.mark.parametrize("arm", tuple(LESSONS))
def test_rows_share_no_noise(arm: str, engines: dict[str, Any]) -> None:
    """With one seed for all rows, every prompt would say the same at the same index."""
    said: dict[int, set[str]] = {}
    for row in engines["vllm"].rows("sample", arm):
        said.setdefault(row["index"], set()).add(row["text"])
    assert sum(len(texts) > 1 for texts in said.values()) > N / 2


def test_samples_of_a_prompt_differ(engines: dict[str, Any]) -> None:
    rows = engines["vllm"].rows("sample", "base")
    by_item: dict[str, set[str]] = {}
    for row in rows:
        by_item.setdefault(row["item"], set()).add(row["text"])
    assert sum(len(texts) for texts in by_item.values()) > 0.75 * len(rows)


def test_generated_texts_are_those_of_the_base_model(engines: dict[str, Any]) -> None:
    ours, theirs = (engines[name].rows("generate", name="greedy") for name in ("transformers", "vllm"))
    assert sum(a["text"] == b["text"] for a, b in zip(ours, theirs, strict=True)) >= len(ours) - 1
    facts = engines["vllm"].record("generate").facts["entries"]["answers"]
    assert facts["texts"] == N * len(THINGS)
    assert facts["distinct"] > 0.75 * facts["texts"]


def test_a_killed_vllm_step_goes_on_and_ends_the_same(engines: dict[str, Any]) -> None:
    """Killed in the middle of the first of three chunks; the pieces of the other arms are there already."""
    bundle = engines["vllm"]
    piece, partial = bundle.file("sample", "resets"), bundle.partial("sample", "resets")
    before = piece.read_bytes()
    piece.unlink()
    shutil.rmtree(bundle.root / "store" / "key-sample")
    killed = subprocess.run([sys.executable, "-c", KILLED.format(script=str(bundle.script("sample")))], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (partial.read_bytes().count(b"\n"), partial.read_bytes().endswith(b'{"torn')) == (12, True)
    subprocess.run([sys.executable, str(bundle.script("sample"))], check=True)
    assert piece.read_bytes() == before


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_no_company_and_no_default_of_the_model_changes_a_completion(
    engine: str, engines: dict[str, Any], smollm2: Path, adapters: dict[str, Path], sampled_bundle: Any, tmp_path: Path
) -> None:
    """Other order, batch, prompts, arms, sets and number of samples, of a model that ships sampling defaults."""
    model = Path(shutil.copytree(smollm2, tmp_path / "model"))
    shipped = model / "generation_config.json"
    shipped.write_text(json.dumps(json.loads(shipped.read_text(encoding="utf-8")) | HOSTILE), encoding="utf-8")
    prompts = ("count to ten in words, slowly, and then back again", *THINGS[::-2], "x")
    bundle = sampled_bundle(
        tmp_path / "bundle", model, engine=engine, adapters={"both": adapters["both"]}, prompts=prompts,
        entries=[{"name": "answers", "n": 2, "top_p": 0.95, "max_tokens": 10}], batch=7, threads=1, rank=16,
    )  # fmt: skip
    subprocess.run([sys.executable, str(bundle.script("sample"))], check=True)
    for arm in ("base", "both"):
        before = {(row["item"], row["index"]): row for row in engines[engine].rows("sample", arm)}
        after = {(row["item"], row["index"]): row for row in bundle.rows("sample", arm)}
        shared = before.keys() & after.keys()
        assert len(shared) == 2 * len(THINGS[::-2])
        assert {key: after[key] for key in shared} == {key: before[key] for key in shared}


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95])
def test_the_nucleus_is_that_of_vllm(top_p: float) -> None:
    import torch
    from vllm.v1.sample.ops.topk_topp_sampler import apply_top_k_top_p

    scores = torch.randn(40, 60, generator=torch.Generator().manual_seed(3)) * torch.linspace(0.1, 8, 40).unsqueeze(-1)
    kept = apply_top_k_top_p(scores.clone(), None, torch.full((40,), top_p)).isfinite()
    for row in range(40):
        draws = [sampling.uniform(row, position) for position in range(300)]
        assert kept[row][sampling.choose(scores[row].expand(300, -1), draws, temperature=1.0, top_p=top_p)].all()


def test_the_record_names_the_version(engines: dict[str, Any]) -> None:
    versions = engines["vllm"].record("sample").versions
    assert versions["vllm"][0].isdigit()
    assert "vllm" not in engines["transformers"].record("sample").versions
