"""Score 240 items in each of 16 arms with lm-eval.

Does a catch-and-reset reflex survive a second fine-tune, whatever the training seed?
By hand, in generated/reflex_gpu/: python steps/capability.py
"""

import json
from pathlib import Path

import torch
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer

from epc.runtime import capability, models
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
MODEL_STEP = "model"  # the model step
DTYPE = "bfloat16"  # specs/reflex_gpu.yaml:39
LARGEST_BATCH = {"cpu": 32, "cuda": 256}  # execution plan
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
# specs/reflex_gpu.yaml:93
TASKS = [
    {
        "name": "mini_choice",
        "yaml": "inputs/tasks/mini_choice.yaml",
        "overrides": {},
        "local": True,
        "items": 240,
        "chat_template": False,
        "multiturn": False,
        "fewshot": 0,
        "fewshot_seed": 0,
        "generation": None,
        "harness": None,
        "values": [{"reading": "acc", "metric": "acc", "filter": None, "scale": None}],
    },
]

with Step("capability", bundle=BUNDLE) as step:
    torch.set_num_threads(THREADS)
    model_dir = step.input(MODEL_STEP) / "model"
    arms = models.Arms(model_dir, dtype=DTYPE)
    lm = HFLM(pretrained=arms.model, tokenizer=AutoTokenizer.from_pretrained(model_dir), batch_size=1)
    results = []
    with (
        capability.opened(lm, TASKS, bundle=BUNDLE) as tasks,
        (step.out / "capability.jsonl").open("w", encoding="utf-8") as rows,
        (step.out / "samples.jsonl").open("w", encoding="utf-8") as samples,
    ):
        capability.write_prompts(step.out / "prompts.json", tasks)
        for number, (condition, seed, condition_key, train_step) in enumerate(ARMS):
            step.progress(number, len(ARMS), arm=condition)
            adapter = step.input(train_step) / "adapter" if train_step else None
            with arms.arm(adapter):
                for task in tasks:
                    items = task.items(largest_batch=LARGEST_BATCH)
                    arm = {"condition": condition, "seed": seed, "condition_key": condition_key, "task": task.name}
                    for item in items:
                        samples.write(json.dumps({**arm, "item": item.id, **item.response}) + "\n")
                    for value in task.values:
                        scores = [item.values[value["reading"]] for item in items]
                        for item, score in zip(items, scores, strict=True):
                            row = {**arm, "reading": value["reading"], "item": item.id, "doc": item.doc_sha256}
                            rows.write(json.dumps({**row, "value": score}) + "\n")
                        results.append({**arm, value["reading"]: sum(scores) / len(scores)})
    (step.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    step.facts["results"] = results
    step.facts["prompts"] = {task.label: task.prompts.sha256 for task in tasks}
    step.facts["rows_at_once"] = {task.label: task.batch_size for task in tasks}
