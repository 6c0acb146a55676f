"""Sampling with the transformers engine on a GPU against the best static batch of transformers itself.

python benchmarks/gpu_sample.py [--tiny]: one JSON line a case, {case, ours, peer, ratio, bar, ok}, in sampled tokens a
second, exit 1 when a bar is missed. Random weights of Qwen2.5-7B in bf16, temperature 1, the whole vocabulary.

- fixed: 64 tokens in, 200 out, 2,400 completions; the peer is `generate` with all of them in one batch, which was quicker
  than smaller ones whenever those were measured.
- ragged: 400 prompts of log-normal length around 90 tokens, completions that end by themselves after 75 tokens on the
  average and 150 at most (one token in 75 ends one, for both engines); the peer gets them sorted by length, in the
  quicker of batches of 200 and 400. Only tokens of a completion count, for both.

`--tiny` runs a tiny model on any device: it shows that both work, not how fast.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from typing import Any

BAR = 1.5
SIZES = {
    "qwen2.5-7b": {
        "vocab_size": 152_064, "hidden_size": 3584, "intermediate_size": 18_944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4,
    },
    "tiny": {
        "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}  # fmt: skip


def random_model(size: str, device: str) -> Any:
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(**SIZES[size], tie_word_embeddings=False, max_position_embeddings=32_768)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model: Any = Qwen2ForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.02)
    return model.eval()


def timed(run: Callable[[], int], synchronize: Callable[[], None]) -> float:
    """Tokens a second."""
    synchronize()
    began = time.perf_counter()
    tokens = run()
    synchronize()
    return tokens / (time.perf_counter() - began)


def ours(model: Any, prompts: list[list[int]], stops: list[int], longest: int) -> int:
    from epc.runtime import decoding

    found = decoding.sample(
        model, prompts, list(range(len(prompts))), stops=stops, temperature=1.0, top_p=1.0, max_tokens=longest,
        slots=None if model.device.type == "cuda" else 16,
    )  # fmt: skip
    return sum(len(tokens) for _, tokens in found)


def theirs(model: Any, prompts: list[list[int]], stops: list[int], longest: int, batch: int) -> int:
    import torch

    ordered, total = sorted(prompts, key=len, reverse=True), 0
    ends = torch.tensor(stops, device=model.device)
    for start in range(0, len(ordered), batch):
        rows = ordered[start : start + batch]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
        out = model.generate(
            input_ids=ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=longest,
            eos_token_id=stops or None, pad_token_id=0, **({} if stops else {"min_new_tokens": longest}),
        )[:, width:]  # fmt: skip
        if not stops:
            total += out.numel()
            continue
        ended = torch.isin(out, ends)
        before = (ended.cumsum(dim=1) - ended.long()) == 0  # up to the first token that ends it, which counts
        total += int(before.sum())
    return total


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    import torch
    import transformers

    from epc.runtime import decoding

    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    synchronize = torch.cuda.synchronize if cuda else (lambda: None)
    size, count = ("tiny", 48) if args.tiny else ("qwen2.5-7b", 2400)
    model = random_model(size, device)
    vocabulary = SIZES[size]["vocab_size"]
    draw = random.Random(147)

    def prompt(length: int) -> list[int]:
        return [draw.randrange(1, vocabulary) for _ in range(length)]

    stops = draw.sample(range(1, vocabulary), vocabulary // 75)
    fixed_out, ragged_out = (20, 40) if args.tiny else (200, 150)
    cases = {
        f"fixed, 64 in and {fixed_out} out": ([prompt(64) for _ in range(count)], [], fixed_out),
        f"ragged, at most {ragged_out} out": (
            [prompt(int(min(600, max(16, draw.lognormvariate(4.5, 0.5))))) for _ in range(count // 6)], stops, ragged_out,
        ),
    }  # fmt: skip
    missed = False
    warm = [prompt(64) for _ in range(64)]
    theirs(model, warm, [], 8, 64)
    rates: dict[str, dict[int, float]] = {}
    for name, (prompts, ends, longest) in cases.items():  # before anything of ours touches the model
        for batch in (len(prompts),) if not ends else (len(prompts) // 2, len(prompts)):
            try:
                rate = timed(lambda: theirs(model, prompts, ends, longest, batch), synchronize)  # noqa: B023
            except torch.OutOfMemoryError:
                rate = 0.0
            rates.setdefault(name, {})[batch] = rate
            print(f"peer, {name}, batches of {batch:,}: {rate:,.0f} tokens/s", file=sys.stderr, flush=True)
            if cuda:
                torch.cuda.empty_cache()
    decoding.fuse(model)
    reason = decoding.unusable(model, warm[0])
    assert not reason, reason
    ours(model, warm, [], 8)
    for name, (prompts, ends, longest) in cases.items():
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        mine = timed(lambda: ours(model, prompts, ends, longest), synchronize)  # noqa: B023
        best = max(rates[name].values())
        ok = args.tiny or mine >= BAR * best
        missed = missed or not ok
        line = {
            "case": name, "ours": round(mine), "peer": round(best), "ratio": round(mine / best, 2), "bar": BAR, "ok": ok,
            "batches": {str(batch): round(rate) for batch, rate in rates[name].items()},
            "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1) if cuda else None,
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
        }  # fmt: skip
        print(json.dumps(line), flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
