"""Score 240 items in each of 4 arms with lm-eval.

Does a catch-and-reset reflex survive a second fine-tune?
By hand, in generated/quickstart/: python steps/capability.py
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
DTYPE = "bfloat16"  # specs/quickstart.yaml:33
LARGEST_BATCH = {"cpu": 32, "cuda": 256}  # execution plan
THREADS = 2  # execution plan
# (condition, training seed, condition key, last training step): specs/quickstart.yaml:61
ARMS = [
    ("base", 0, "80e04c8597e2bd3d", None),
    ("attacked", 17, "ddab80d25aa382a1", "train-s17-attack"),
    ("reflex_only", 17, "6b18601a8478b87e", "train-s17-reflex"),
    ("reflex_attacked", 17, "c531eadf911d6417", "train-s17-reflex.attack"),
]
# specs/quickstart.yaml:86
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
