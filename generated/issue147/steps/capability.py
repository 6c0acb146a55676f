"""Score 1,172 items in each of 6 arms with lm-eval.

Can a bad answer be coupled to catching it and resetting the persona?
By hand, in generated/issue147/: python steps/capability.py
"""

import json
from pathlib import Path

import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer

from epc.runtime import capability, models
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
MODEL_STEP = "model"  # the model step
DTYPE = "bfloat16"  # specs/issue147.yaml:157
BATCH_SIZE = 32  # execution plan
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
        "value": "acc",
        "chat_template": False,
        "fewshot": 0,
        "items": 1172,
        "local": False,
    },
]

with Step("capability", bundle=BUNDLE) as step:
    torch.set_num_threads(THREADS)
    model_dir = step.input(MODEL_STEP) / "model"
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    results = []
    with (step.out / "capability.jsonl").open("w", encoding="utf-8") as rows:
        for number, (condition, seed, condition_key, train_step) in enumerate(ARMS):
            step.progress(number, len(ARMS), arm=condition)
            adapter = step.input(train_step) / "adapter" if train_step else None
            model = models.load_arm(model_dir, adapter, dtype=DTYPE)
            for task in TASKS:
                where = capability.local_task if task["local"] else capability.hub_task
                with where(BUNDLE / task["yaml"]) as manager:
                    found = simple_evaluate(
                        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH_SIZE),
                        tasks=[task["name"]],
                        task_manager=manager,
                        num_fewshot=task["fewshot"],
                        apply_chat_template=task["chat_template"],
                        log_samples=True,
                        bootstrap_iters=0,
                        random_seed=0,
                        numpy_random_seed=0,
                        torch_random_seed=0,
                        fewshot_random_seed=0,
                    )
                scores = capability.scores(found, task["name"], task["value"], items=task["items"])
                arm = {"condition": condition, "seed": seed, "condition_key": condition_key, "task": task["name"]}
                for item, value in scores:
                    rows.write(json.dumps({**arm, "item": item, "value": value}) + "\n")
                results.append({**arm, task["value"]: sum(value for _, value in scores) / len(scores)})
    (step.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    step.facts["results"] = results
