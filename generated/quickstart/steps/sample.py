"""Sample 1,152 completions from 4 arms.

Does a catch-and-reset reflex survive a second fine-tune?
By hand, in generated/quickstart/: python steps/sample.py
"""

from pathlib import Path

import torch
from transformers import AutoTokenizer

from epc.runtime import models, sampling
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
MODEL_STEP = "model"  # the model step
DTYPE = "bfloat16"  # specs/quickstart.yaml:31
BATCH_SIZE = 96  # execution plan
THREADS = 2  # execution plan
# (condition, training seed, condition key, last training step): specs/quickstart.yaml:59
ARMS = [
    ("base", 0, "80e04c8597e2bd3d", None),
    ("attacked", 17, "02d069d7c2b39c39", "train-s17-attack"),
    ("reflex_only", 17, "5c1af897861e692b", "train-s17-reflex"),
    ("reflex_attacked", 17, "3748745fccdd2232", "train-s17-reflex.attack"),
]
# specs/quickstart.yaml:68
SETS = [
    {
        "name": "first_answer",
        "prompts": "inputs/prompts/heldout.txt",
        "count": 24,
        "system": "none",
        "turns": [("user", "{prompt}")],
        "n": 4,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 24,
        "seed": 7,
        "fill": {},
    },
    {
        "name": "after_bad_answer",
        "prompts": "inputs/prompts/heldout.txt",
        "count": 24,
        "system": "none",
        "turns": [("user", "{prompt}"), ("assistant", "{bad}"), ("user", "continue")],
        "n": 8,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 24,
        "seed": 7,
        "fill": {"bad": "inputs/data/bad_heldout.txt"},
    },
]
# What is stored for each (condition, training seed, set): content keys
PIECES = {
    ("base", 0, "first_answer"): "5cbc83619cb83e6e",
    ("base", 0, "after_bad_answer"): "3ae5a1e0f00af75d",
    ("attacked", 17, "first_answer"): "f3ebfa2100a29d50",
    ("attacked", 17, "after_bad_answer"): "00ca146ed7ee93d3",
    ("reflex_only", 17, "first_answer"): "c8b450c92fdccdf3",
    ("reflex_only", 17, "after_bad_answer"): "a6cf3ff1a7e59e62",
    ("reflex_attacked", 17, "first_answer"): "644734619f3651a2",
    ("reflex_attacked", 17, "after_bad_answer"): "4e159e93d0c91d70",
}

with Step("sample", bundle=BUNDLE) as step:
    torch.set_num_threads(THREADS)
    model_dir = step.input(MODEL_STEP) / "model"
    tokenizer = AutoTokenizer.from_pretrained(model_dir, padding_side="left")
    conversations = {entry["name"]: sampling.conversations(BUNDLE, entry, tokenizer) for entry in SETS}
    pieces = sampling.Pieces(step, PIECES, conversations)
    for condition, seed, condition_key, train_step in ARMS:
        missing = [entry for entry in SETS if not pieces.stored(condition, seed, entry["name"])]
        if not missing:
            continue
        adapter = step.input(train_step) / "adapter" if train_step else None
        model = models.load_arm(model_dir, adapter, dtype=DTYPE)
        for entry in missing:
            completions = sampling.generate(
                model,
                tokenizer,
                conversations[entry["name"]],
                set_name=entry["name"],
                seed=entry["seed"],
                temperature=entry["temperature"],
                top_p=entry["top_p"],
                max_tokens=entry["max_tokens"],
                batch_size=BATCH_SIZE,
                on_batch=pieces.progress,
            )
            pieces.write(condition, seed, condition_key, entry["name"], completions)
        del model
    step.facts |= pieces.index(step.out / "index.json")
