"""Score 240 items in each of 4 arms with lm-eval.

Does a catch-and-reset reflex survive a second fine-tune?
By hand, in generated/quickstart/: python steps/capability.py
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
DTYPE = "bfloat16"  # specs/quickstart.yaml:33
BATCH_SIZE = 32  # execution plan
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
        "value": "acc",
        "chat_template": False,
        "fewshot": 0,
        "items": 240,
        "local": True,
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
