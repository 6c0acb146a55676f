"""Benchmark tasks of every arm of the base model, through the LM Evaluation Harness."""

from __future__ import annotations

from typing import Any

from epc.compiler.contract.manifest import Resources
from epc.compiler.kinds import arms, model
from epc.compiler.lowering import Lowering
from epc.compiler.spec import LmEvalMetric


def lower(plan: Lowering) -> str | None:
    metrics = {name: m for name, m in plan.spec.metrics.items() if isinstance(m, LmEvalMetric)}
    if not metrics:
        return None
    model_id, found = model.lower(plan), arms.arm_list(plan)
    needs = (model_id, *arms.last_steps(found))
    tasks: list[dict[str, Any]] = []
    recipes: list[dict[str, Any]] = []
    for name, metric in metrics.items():
        task = plan.experiment.tasks[name]
        tasks.append(
            {
                "name": task.name, "yaml": task.file.bundle_path, "value": metric.value,
                "chat_template": metric.chat_template, "fewshot": 0, "items": metric.items,
                "local": task.data is not None,
            }
        )  # fmt: skip
        recipes.append(
            {
                "task": task.name, "task_sha256": task.file.sha256, "data_sha256": None if task.data is None else task.data.sha256,
                "value": metric.value, "chat_template": metric.chat_template, "fewshot": 0,
            }
        )  # fmt: skip
    items = sum(task["items"] for task in tasks)
    return plan.add(
        id="capability", kind="capability", label=f"score {items:,} items in each of {len(found)} arms with lm-eval",
        needs=needs,
        recipe={"tasks": recipes, "arms": [[name, seed, key] for name, seed, key, _ in found], "dtype": plan.spec.model.dtype},
        outputs=("capability.jsonl", "results.json"),
        constants={
            "model": model_id, "dtype": plan.spec.model.dtype, "arms": found, "tasks": tasks, "batch_size": 32, "threads": 2,
        },
        origins={
            "model": "the model step", "dtype": ("model", "dtype"), "arms": ("conditions",), "tasks": ("metrics",),
            "batch_size": "execution plan", "threads": "execution plan",
        },
        resources=Resources(threads=2, gpu=1),
    )  # fmt: skip
