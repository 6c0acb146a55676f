"""Benchmark tasks of every arm of the base model, through the LM Evaluation Harness."""

from __future__ import annotations

from typing import Any, Final

from epc.compiler.contract.canonical import canonical_json, sha256_text
from epc.compiler.contract.manifest import Resources
from epc.compiler.kinds import arms, model
from epc.compiler.lowering import Lowering
from epc.compiler.resolve import Task
from epc.compiler.spec import LmEvalMetric

LARGEST_BATCH: Final = {"cpu": 32, "cuda": 256}
"""Rows that are computed at once at most, by the kind of device; a run takes fewer where memory is short."""
MAX_TOKENS: Final = 256
"""Of a generated answer, where neither the metric nor the task says: the harness's own."""
TOKEN_LIMITS: Final = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""Under which names a task may limit its answers, in the harness's order."""


def lower(plan: Lowering) -> str | None:
    metrics = {name: m for name, m in plan.spec.metrics.items() if isinstance(m, LmEvalMetric)}
    if not metrics:
        return None
    model_id, found = model.lower(plan), arms.arm_list(plan)
    needs = (model_id, *arms.last_steps(found))
    tasks: dict[str, dict[str, Any]] = {}
    recipes: list[dict[str, Any]] = []
    for name, metric in metrics.items():
        task = plan.experiment.tasks[name]
        settings = _settings(task, metric)
        # values of one task that is asked in one way are read of the same answers
        entry = tasks.setdefault(canonical_json(settings), {**settings, "values": []})
        wanted, _, filter_ = metric.value.partition(",")
        value = {"reading": metric.reading, "metric": wanted, "filter": filter_ or None, "scale": metric.scale}
        if value not in entry["values"]:
            entry["values"].append(value)
        recipes.append(
            {
                "task": task.name, "task_sha256": task.file.sha256, "data_sha256": None if task.data is None else task.data.sha256,
                "value": metric.value, "chat_template": metric.chat_template, "fewshot": metric.fewshot or 0,
                **_more(plan, task, metric, settings),
            }
        )  # fmt: skip
    items = sum(task["items"] for task in tasks.values())
    return plan.add(
        id="capability", kind="capability", label=f"score {items:,} items in each of {len(found)} arms with lm-eval",
        needs=needs,
        recipe={"tasks": recipes, "arms": [[name, seed, key] for name, seed, key, _ in found], "dtype": plan.spec.model.dtype},
        outputs=("capability.jsonl", "results.json"),
        constants={
            "model": model_id, "dtype": plan.spec.model.dtype, "arms": found, "tasks": list(tasks.values()),
            "largest_batch": LARGEST_BATCH, "threads": 2,
        },
        origins={
            "model": "the model step", "dtype": ("model", "dtype"), "arms": ("conditions",), "tasks": ("metrics",),
            "largest_batch": "execution plan", "threads": "execution plan",
        },
        resources=Resources(threads=2, gpu=1),
    )  # fmt: skip


def _settings(task: Task, metric: LmEvalMetric) -> dict[str, Any]:
    """How the task is asked, for the script."""
    return {
        "name": task.name, "yaml": task.file.bundle_path, "overrides": dict(task.overrides), "local": task.data is not None,
        "items": metric.items, "chat_template": metric.chat_template, "multiturn": metric.multiturn,
        "fewshot": metric.fewshot or 0, "fewshot_seed": metric.fewshot_seed or 0, "generation": _generation(task, metric),
        "harness": metric.harness,
    }  # fmt: skip


def _generation(task: Task, metric: LmEvalMetric) -> dict[str, Any] | None:
    """Greedy decoding and its limit; None where nothing is generated."""
    if task.content.get("output_type", "generate_until") != "generate_until":
        return None
    own = task.content.get("generation_kwargs") or {}
    limit = next((own[key] for key in TOKEN_LIMITS if own.get(key)), MAX_TOKENS)
    return {"do_sample": False, "temperature": 0.0, "max_gen_toks": metric.max_tokens or limit}


def _more(plan: Lowering, task: Task, metric: LmEvalMetric, settings: dict[str, Any]) -> dict[str, Any]:
    """What else changes scores. Fields that say nothing are left out, so that a recipe is what it was before them."""
    template = plan.template_text if metric.chat_template else None
    more = {
        "files": {file.path: file.sha256 for file in task.more}, "overrides": dict(task.overrides), "harness": metric.harness,
        "multiturn": metric.multiturn, "fewshot_seed": settings["fewshot_seed"] if metric.fewshot else 0, "scale": metric.scale,
        "generation": settings["generation"], "template_sha256": None if template is None else sha256_text(template),
    }  # fmt: skip
    return {key: value for key, value in more.items() if value}
