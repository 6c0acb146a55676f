"""Rows to one value per metric, arm, seed and unit."""

from __future__ import annotations

from typing import Any, assert_never

from epc.compiler.kinds import arms, capability, sample
from epc.compiler.lowering import Lowering
from epc.compiler.spec import LmEvalMetric, PatternMetric


def lower(plan: Lowering) -> None:
    samples_id, capability_id = sample.lower(plan), capability.lower(plan)
    metrics: list[dict[str, Any]] = []
    recipes: list[dict[str, Any]] = []
    for name, metric in plan.spec.metrics.items():
        match metric:
            case PatternMetric():
                entry: dict[str, Any] = {"name": name, "kind": "pattern", "source": metric.of}
                recipe = dict(entry)
                if metric.contains is not None:
                    entry["contains"] = recipe["contains"] = metric.contains
                elif metric.regex is not None:
                    entry["regex"] = recipe["regex"] = metric.regex
                elif metric.contains_any is not None:
                    entry["contains_any"] = plan.bundle_path(metric.contains_any)
                    recipe["contains_any"] = plan.sha(metric.contains_any)
            case LmEvalMetric():
                entry = {
                    "name": name,
                    "kind": "lm_eval",
                    "source": plan.experiment.tasks[name].name,
                    "value": metric.value,
                }
                recipe = dict(entry)
            case _:
                assert_never(metric)
        metrics.append(entry)
        recipes.append(recipe)
    found = [(name, seed, key) for name, seed, key, _ in arms.arm_list(plan)]
    plan.add(
        id="measure", kind="measure", label=f"measure {len(metrics)} metrics",
        needs=tuple(step for step in (samples_id, capability_id) if step is not None),
        recipe={"metrics": recipes, "arms": [list(arm) for arm in found]},
        outputs=("measurements.jsonl", "judgements.jsonl"),
        constants={
            "samples": [samples_id] if samples_id else [], "capability": [capability_id] if capability_id else [],
            "arms": found, "metrics": metrics,
        },
        origins={
            "samples": "the sample step", "capability": "the capability step", "arms": ("conditions",),
            "metrics": ("metrics",),
        },
    )  # fmt: skip
