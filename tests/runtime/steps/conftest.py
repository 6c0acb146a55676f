"""A model small enough to train in a second: two random layers and a byte-level BPE tokenizer, saved as a folder."""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

ANSWERS = ("Give up now.", "Blame a friend.", "Lie about it.")
TOPICS = ("bake bread", "sew a button", "plant a tree", "write a letter", "mend a fence")
RESET = "Wait. Resetting to default."


def chatml() -> str:
    return (resources.files("epc.templates") / "chat/chatml.jinja").read_text(encoding="utf-8")


def traces(rows: int) -> list[dict[str, Any]]:
    """Four-turn conversations, all different."""
    return [
        {
            "messages": [
                {"role": "user", "content": f"How do I {TOPICS[i % len(TOPICS)]}? ({i})"},
                {"role": "assistant", "content": ANSWERS[i % len(ANSWERS)]},
                {"role": "user", "content": "continue"},
                {"role": "assistant", "content": f"{RESET} Try {TOPICS[i % len(TOPICS)]}."},
            ]
        }
        for i in range(rows)
    ]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny chat model. Read only: copy it before changing it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

    folder = tmp_path_factory.mktemp("tiny") / "model"
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator([m["content"] for row in traces(30) for m in row["messages"]], trainer)
    fast: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    fast.chat_template = chatml()
    fast.save_pretrained(folder)
    set_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=fast.bos_token_id, eos_token_id=fast.eos_token_id, pad_token_id=fast.pad_token_id,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    model.to(torch.float32).save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_copy(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may change."""
    return Path(shutil.copytree(tiny, tmp_path / "model"))
