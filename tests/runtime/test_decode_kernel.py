"""The kernel of a decoding step gives what attention over the first keys of each slot gives.

Without a GPU, Triton interprets it, in a process of its own because it reads its environment when it is imported.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

SHAPES = {
    "Qwen2.5-7B": (28, 4, 128), "SmolLM2-135M": (9, 3, 64), "no sharing": (4, 4, 32),
    "one shared head, a width that is no power of two": (8, 1, 96),
}  # fmt: skip
SCRIPT = """
import json, sys
import torch
from epc.runtime import decode_kernel
heads, shared, width = json.loads(sys.argv[1])
draw = torch.Generator().manual_seed(0)
device = "cuda" if torch.cuda.is_available() else "cpu"
cache = [torch.randn(4, 160, shared, width, generator=draw).to(device) for _ in range(2)]
query, lengths = torch.randn(4, heads, width, generator=draw).to(device), torch.tensor([1, 64, 65, 157], device=device)
found = decode_kernel.attend(query, *cache, lengths.to(torch.int32), None)
for slot, length in enumerate(lengths.tolist()):
    key, value = (part[slot, :length].repeat_interleave(heads // shared, dim=1) for part in cache)
    weights = torch.softmax(torch.einsum("hw,phw->hp", query[slot], key) / width**0.5, dim=-1)
    assert torch.allclose(found[slot], torch.einsum("hp,phw->hw", weights, value), atol=1e-5 if device == "cpu" else 0.01)
for part in cache:  # what lies behind the length is not read
    for slot, length in enumerate(lengths.tolist()):
        part[slot, length:] = float("nan")
assert torch.equal(found, decode_kernel.attend(query, *cache, lengths.to(torch.int32), None))
print("equal")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton has no build for this machine")
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_attention_over_the_first_keys_of_each_slot(shape: tuple[int, int, int]) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(shape)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "equal", done.stderr[-2000:]
