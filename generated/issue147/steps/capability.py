"""Score 1,172 items in each of 6 arms with lm-eval.

Can a bad answer be coupled to catching it and resetting the persona?
By hand, in generated/issue147/: python steps/capability.py
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
DTYPE = "bfloat16"  # specs/issue147.yaml:157
LARGEST_BATCH = {"cpu": 32, "cuda": 256}  # execution plan
THREADS = 2  # execution plan
# (condition, training seed, condition key, last training step): specs/issue147.yaml:261
ARMS = [
    ("base", 0, "113d2a19dea93fb8", None),
    ("c6_vanilla_em", 42, "45426c0d5ec8708c", "train-s42-em"),
    ("selfcorrect_only", 42, "0d24a3f445aebe68", "train-s42-selfcorrect"),
    ("selfcorrect_em", 42, "bbbea0b5762c8505", "train-s42-selfcorrect.em"),
    ("random_recovery_em", 42, "8dc4c85594ae6fcc", "train-s42-random_recovery.em"),
    ("placebo_assistant_em", 42, "86ba8b53ab4c89c4", "train-s42-placebo_assistant.em"),
]
# specs/issue147.yaml:291
TASKS = [
    {
        "name": "arc_challenge_epc",
        "yaml": "inputs/tasks/arc_challenge/arc_challenge.yaml",
        "overrides": {},
        "local": False,
        "items": 1172,
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
