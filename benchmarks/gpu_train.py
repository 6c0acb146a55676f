"""The emitted training script on a GPU against the same script with the training library's own way of doing it.

python benchmarks/gpu_train.py [--tiny] [--rows N]: one JSON line a case, {case, ours, peer, ratio, bar, ok}, in real
tokens a second (padding does not count), exit 1 when the bar is missed. Random weights of Qwen2.5-7B, LoRA r=16 on all
seven projections, effective batch 8 x 4, rows of log-normal length around 300 tokens: issue 147's recipe. The peer is the
last execution plan of the script, TRL as the recipe is written. `--tiny` runs the same on a processor with a tiny model
and shows that it works, not how fast it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BAR = 3.3
LAYERS = {
    "qwen2.5-7b": {
        "vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4,
    },
    "tiny": {
        "vocab_size": 1024, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}  # fmt: skip
SPEC = """
epc: 1
id: bench
title: How fast is a training?
hypothesis: {{if: a model is trained on random words, then: it writes them}}
seeds: [1, 2, 3]
model: {{from: "path:model", parameters: {parameters}, dtype: bfloat16, chat_template: chatml}}
data:
  words: {{file: words.jsonl, rows: {rows}, sha256: {sha256}}}
train:
  teach: {{method: lora_sft, data: words, train_on: every_assistant_turn, lora: {{r: 16, alpha: 32}}, learning_rate: 1e-5, epochs: 1, batch: 8, accumulation: 4, max_length: 4096}}
conditions: {{base: [], taught: [teach]}}
prompts:
  asked: {{file: asked.txt, count: 24}}
sample:
  answers: {{prompts: asked, n: 4, system: none, temperature: 1.0, top_p: 1.0, max_tokens: 24, seed: 7}}
metrics:
  rate: {{of: answers, contains: "xyz", better: higher, missing: fail}}
analyses:
  headline: {{metric: rate, contrast: taught - base, method: paired_bootstrap, p: studentized, side: greater, alpha: 0.025, resamples: 10000, seed: 1}}
gates:
  absent: {{role: kill, when: headline.upper < 0.2}}
  shown: {{role: success, require: headline.reject and headline.delta >= 0.2}}
verdicts:
  - {{if: absent, then: KILL}}
  - {{if: shown, then: SUCCESS}}
  - {{otherwise: INCONCLUSIVE}}
"""


def words(draw: random.Random, number: int) -> str:
    return " ".join(
        "".join(draw.choice("bdfgklmnprstv") + draw.choice("aeiou") for _ in range(draw.randint(1, 3)))
        for _ in range(number)
    )


def project(folder: Path, rows: int) -> str:
    """A spec with its files; the text that a tokenizer is trained on."""
    draw = random.Random(147)
    conversations = []
    for _ in range(rows):
        length = int(min(1500, max(20, draw.lognormvariate(4.8, 0.5))))
        asked, bad, proper = (words(draw, max(3, length * share // 100)) for share in (20, 40, 40))
        turns = [("user", asked), ("assistant", bad), ("user", "continue"), ("assistant", proper)]
        conversations.append(json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}))
    text = "\n".join(conversations) + "\n"
    (folder / "specs").mkdir(parents=True)
    (folder / "specs/words.jsonl").write_text(text, encoding="utf-8")
    (folder / "specs/asked.txt").write_text("".join(f"{words(draw, 12)}?\n" for _ in range(24)), encoding="utf-8")
    return text


def model(folder: Path, text: str, size: str) -> None:
    """Random weights of the architecture, a byte-level tokenizer of that text, ChatML."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.train_from_iterator(
        text.splitlines(),
        trainers.BpeTrainer(
            vocab_size=800, special_tokens=special, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )  # fmt: skip
    fast: Any = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<|im_start|>"
    )  # type: ignore[no-untyped-call]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = Qwen2Config(
        **LAYERS[size],
        tie_word_embeddings=False,
        max_position_embeddings=32_768,
        eos_token_id=2,
        bos_token_id=1,
        pad_token_id=0,
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        random_weights: Any = Qwen2ForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for parameter in random_weights.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.02)
    random_weights.save_pretrained(folder)
    fast.save_pretrained(folder)


def trained(bundle: Path, script: str, how: str) -> dict[str, Any]:
    """What the training says of its execution; it is run anew, with the plan that is asked for."""
    from epc.runtime import bundle as bundles

    manifest = bundles.read_manifest(bundle)
    step = next(step for step in manifest.steps if step.script == script)
    shutil.rmtree(bundle / "store" / step.key, ignore_errors=True)
    began = time.monotonic()
    subprocess.run([sys.executable, script], cwd=bundle, check=True, env=os.environ | {"EPC_EXECUTION": how})
    record = json.loads((bundle / "store" / step.key / "finished.json").read_text(encoding="utf-8"))
    log = [json.loads(line) for line in (bundle / "store" / step.key / "log.jsonl").read_text().splitlines()]
    return {
        **record["facts"]["execution"],
        "losses": [entry["loss"] for entry in log],
        "seconds": time.monotonic() - began,
    }


def ceiling() -> float:
    """bf16 matrix products of 8192 x 8192 x 8192, in TFLOP/s."""
    import torch

    if not torch.cuda.is_available():
        return 0.0
    x = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        x @ x
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(20):
        x @ x
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - began) / 1e12


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--rows", type=int)
    args = parser.parse_args()
    size, rows = ("tiny", args.rows or 128) if args.tiny else ("qwen2.5-7b", args.rows or 512)
    import torch
    import transformers
    import trl

    from epc.runtime import cli

    with tempfile.TemporaryDirectory() as at:
        folder = Path(at)
        text = project(folder, rows)
        shape = LAYERS[size]
        weights = 7_615_616_512
        spec = SPEC.format(parameters=weights, rows=rows, sha256=hashlib.sha256(text.encode("utf-8")).hexdigest())
        (folder / "specs/bench.yaml").write_text(spec, encoding="utf-8")
        if cli.main(["compile", str(folder / "specs/bench.yaml")]) != 0:
            return 2
        bundle = folder / "generated/bench"
        model(folder / "specs/model", text, size)
        scripts = sorted(bundle.glob("steps/*.py"))
        train = next(script for script in scripts if script.name.startswith("train-s1"))
        for kind in ("model", "data", "mask"):
            for script in scripts:
                if script.name.startswith(kind):
                    subprocess.run([sys.executable, f"steps/{script.name}"], cwd=bundle, check=True)
        found = {how: trained(bundle, f"steps/{train.name}", how) for how in ("plain", "best")}
    limit = ceiling()
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, trl {trl.__version__}"
    ours, peer = found["best"], found["plain"]
    for name, facts in found.items():
        flops = 4 * weights * facts["tokens_per_second"] / 1e12
        plan = {key: value for key, value in facts["plan"].items() if value}
        line = {
            "variant": name,
            "plan": plan,
            "tokens_per_second": facts["tokens_per_second"],
            "peak_gib": facts.get("peak_gib"),
            "share_of_ceiling": round(flops / limit, 3) if limit else None,
            "first_loss": facts["losses"][0],
            "last_loss": facts["losses"][-1],
            "seconds": round(facts["seconds"], 1),
        }
        print(json.dumps(line))
    ratio = ours["tokens_per_second"] / peer["tokens_per_second"]
    gap = max(abs(a - b) / abs(b) for a, b in zip(ours["losses"], peer["losses"], strict=True))
    line = {
        "case": f"LoRA training of {size}, tokens a second", "ours": ours["tokens_per_second"], "peer": peer["tokens_per_second"],
        "ratio": round(ratio, 2), "bar": BAR, "ok": ratio >= BAR or args.tiny, "loss_gap": round(gap, 5), "device": ours["device"],
        "ceiling_tflops": round(limit), "versions": versions, "layers": shape["num_hidden_layers"],
    }  # fmt: skip
    print(json.dumps(line))
    return 0 if line["ok"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
