"""Sample 1,152 completions from 4 arms.

Does a catch-and-reset reflex survive a second fine-tune?
By hand, in generated/quickstart/: python steps/sample.py
"""

from pathlib import Path

import torch
from transformers import AutoTokenizer

from epc.runtime import adapters, completions, models, sampling
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
MODEL_STEP = "model"  # the model step
DTYPE = "bfloat16"  # specs/quickstart.yaml:33
BATCH_SIZE = 96  # execution plan
THREADS = 2  # execution plan
# (condition, training seed, condition key, last training step): specs/quickstart.yaml:61
ARMS = [
    ("base", 0, "80e04c8597e2bd3d", None),
    ("attacked", 17, "ddab80d25aa382a1", "train-s17-attack"),
    ("reflex_only", 17, "6b18601a8478b87e", "train-s17-reflex"),
    ("reflex_attacked", 17, "c531eadf911d6417", "train-s17-reflex.attack"),
]
# specs/quickstart.yaml:70
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
    ("base", 0, "first_answer"): "21a32af7db3116ee",
    ("base", 0, "after_bad_answer"): "54326a2a2fb4a26f",
    ("attacked", 17, "first_answer"): "48ddaadf38c2bcd3",
    ("attacked", 17, "after_bad_answer"): "4bf00f9910127b63",
    ("reflex_only", 17, "first_answer"): "5ffa96dbd0148ab4",
    ("reflex_only", 17, "after_bad_answer"): "39d2c20314b52815",
    ("reflex_attacked", 17, "first_answer"): "5b996bfebabb73cc",
    ("reflex_attacked", 17, "after_bad_answer"): "f1889c37c9fbe5d7",
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
