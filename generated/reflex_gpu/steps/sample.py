"""Sample 76,800 completions from 16 arms.

Does a catch-and-reset reflex survive a second fine-tune, whatever the training seed?
By hand, in generated/reflex_gpu/: python steps/sample.py
"""

from pathlib import Path

import torch
from transformers import AutoTokenizer

from epc.runtime import adapters, completions, models, sampling
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
MODEL_STEP = "model"  # the model step
DTYPE = "bfloat16"  # specs/reflex_gpu.yaml:39
BATCH_SIZE = 96  # execution plan
THREADS = 2  # execution plan
# (condition, training seed, condition key, last training step): specs/reflex_gpu.yaml:68
ARMS = [
    ("base", 0, "80e04c8597e2bd3d", None),
    ("attacked", 101, "4ce078a334658fae", "train-s101-attack"),
    ("attacked", 102, "4ce078a334658fae", "train-s102-attack"),
    ("attacked", 103, "4ce078a334658fae", "train-s103-attack"),
    ("attacked", 104, "4ce078a334658fae", "train-s104-attack"),
    ("attacked", 105, "4ce078a334658fae", "train-s105-attack"),
    ("reflex_only", 101, "cb8c5ae7c4038c36", "train-s101-reflex"),
    ("reflex_only", 102, "cb8c5ae7c4038c36", "train-s102-reflex"),
    ("reflex_only", 103, "cb8c5ae7c4038c36", "train-s103-reflex"),
    ("reflex_only", 104, "cb8c5ae7c4038c36", "train-s104-reflex"),
    ("reflex_only", 105, "cb8c5ae7c4038c36", "train-s105-reflex"),
    ("reflex_attacked", 101, "6384dc49656edc2d", "train-s101-reflex.attack"),
    ("reflex_attacked", 102, "6384dc49656edc2d", "train-s102-reflex.attack"),
    ("reflex_attacked", 103, "6384dc49656edc2d", "train-s103-reflex.attack"),
    ("reflex_attacked", 104, "6384dc49656edc2d", "train-s104-reflex.attack"),
    ("reflex_attacked", 105, "6384dc49656edc2d", "train-s105-reflex.attack"),
]
# specs/reflex_gpu.yaml:77
SETS = [
    {
        "name": "first_answer",
        "prompts": "inputs/prompts/heldout_48.txt",
        "count": 48,
        "system": "none",
        "turns": [("user", "{prompt}")],
        "n": 50,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 24,
        "seed": 107,
        "fill": {},
    },
    {
        "name": "after_bad_answer",
        "prompts": "inputs/prompts/heldout_48.txt",
        "count": 48,
        "system": "none",
        "turns": [("user", "{prompt}"), ("assistant", "{bad}"), ("user", "continue")],
        "n": 50,
        "temperature": 1.0,
        "top_p": 1.0,
        "max_tokens": 24,
        "seed": 107,
        "fill": {"bad": "inputs/data/bad_heldout.txt"},
    },
]
# What is stored for each (condition, training seed, set): content keys
PIECES = {
    ("base", 0, "first_answer"): "6e1891daee998722",
    ("base", 0, "after_bad_answer"): "00bb66825024817d",
    ("attacked", 101, "first_answer"): "ba3c7ff4461eb41a",
    ("attacked", 101, "after_bad_answer"): "50539a4279188d14",
    ("attacked", 102, "first_answer"): "8de4023ced1cb55f",
    ("attacked", 102, "after_bad_answer"): "9ec878e2e517bd32",
    ("attacked", 103, "first_answer"): "b475cdc0183c2b68",
    ("attacked", 103, "after_bad_answer"): "cf2871440a5cc514",
    ("attacked", 104, "first_answer"): "66ea767f5aafc148",
    ("attacked", 104, "after_bad_answer"): "37ac849a11dab216",
    ("attacked", 105, "first_answer"): "b6a45939de6d8c02",
    ("attacked", 105, "after_bad_answer"): "b5ec254d5a86b4fd",
    ("reflex_only", 101, "first_answer"): "b81ac250f0865af5",
    ("reflex_only", 101, "after_bad_answer"): "db0457a4fd742d07",
    ("reflex_only", 102, "first_answer"): "c2139befbb3691cf",
    ("reflex_only", 102, "after_bad_answer"): "538dd1717f9f5995",
    ("reflex_only", 103, "first_answer"): "d1b013cd65003bf9",
    ("reflex_only", 103, "after_bad_answer"): "19b191eb05180338",
    ("reflex_only", 104, "first_answer"): "83da3ee603750dfc",
    ("reflex_only", 104, "after_bad_answer"): "4b340f0139722dfb",
    ("reflex_only", 105, "first_answer"): "3e40e5087474feff",
    ("reflex_only", 105, "after_bad_answer"): "0956738cbf82ab2c",
    ("reflex_attacked", 101, "first_answer"): "6f2237d02f5728cd",
    ("reflex_attacked", 101, "after_bad_answer"): "4a45e2aa757bd72b",
    ("reflex_attacked", 102, "first_answer"): "18eef50f5071e207",
    ("reflex_attacked", 102, "after_bad_answer"): "5d9c84768f262794",
    ("reflex_attacked", 103, "first_answer"): "9b56d11c42b2e58b",
    ("reflex_attacked", 103, "after_bad_answer"): "001b70ed5b36b078",
    ("reflex_attacked", 104, "first_answer"): "f9f1895798268c8c",
    ("reflex_attacked", 104, "after_bad_answer"): "3dbf333051d79867",
    ("reflex_attacked", 105, "first_answer"): "38e4491bb58f4429",
    ("reflex_attacked", 105, "after_bad_answer"): "913dc696606e6ef6",
}

with Step("sample", bundle=BUNDLE) as step:
    torch.set_num_threads(THREADS)
    model_dir = step.input(MODEL_STEP) / "model"
    tokenizer = AutoTokenizer.from_pretrained(model_dir, padding_side="left")
    room = sampling.context(model_dir)
    conversations = {entry["name"]: sampling.conversations(BUNDLE, entry, tokenizer, room=room) for entry in SETS}
    served = {
        (condition, seed): step.input(train_step) / "adapter" for condition, seed, _, train_step in ARMS if train_step
    }
    adapters.require(served, model_dir)
    pieces = completions.Pieces(step, PIECES, SETS)
    for condition, seed, condition_key, _ in ARMS:
        missing = [entry for entry in SETS if not pieces.stored(condition, seed, entry["name"])]
        if not missing:
            continue
        model = models.load_arm(model_dir, served.get((condition, seed)), dtype=DTYPE)
        for entry in missing:
            requests = conversations[entry["name"]]
            file = pieces.open(condition, seed, condition_key, entry["name"], requests)
            for batch in sampling.generate(
                model,
                tokenizer,
                requests,
                temperature=entry["temperature"],
                top_p=entry["top_p"],
                max_tokens=entry["max_tokens"],
                batch_size=BATCH_SIZE,
                done=file.done,
            ):
                file.append(batch)
            file.finish()
        del model
    step.facts |= pieces.index(step.out / "index.json")
