"""Rows to one value per metric, arm, seed and unit."""

from __future__ import annotations

from typing import Any, assert_never

from epc.compiler.decision import with_scores
from epc.compiler.kinds import arms, capability, judge, sample
from epc.compiler.lowering import Lowering
from epc.compiler.resolve import Comparison
from epc.compiler.spec import JudgeMetric, LmEvalMetric, PatternMetric, ResultMetric


def lower(plan: Lowering) -> None:
    samples_id, capability_id, judge_ids = sample.lower(plan), capability.lower(plan), judge.lower(plan)
    metrics: list[dict[str, Any]] = []
    recipes: list[dict[str, Any]] = []
    resampled = with_scores(plan.experiment)
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
            case JudgeMetric():
                entry = {
                    "name": name, "kind": "judge", "source": metric.of, "judge": metric.judge,
                    "score": _comparison(metric.score), "keep": _comparison(metric.keep),
                    "votes": plan.spec.judges[metric.judge].votes, "aggregate": plan.spec.judges[metric.judge].aggregate,
                }  # fmt: skip
                recipe = dict(entry)
            case LmEvalMetric():
                entry = {
                    "name": name,
                    "kind": "lm_eval",
                    "source": plan.experiment.tasks[name].name,
                    "value": metric.value,
                }
                if metric.reading != metric.value:
                    entry["reading"] = metric.reading
                recipe = dict(entry)
            case ResultMetric():
                continue  # its rows are read when it is decided
            case _:
                assert_never(metric)
        if name in resampled:
            entry["scores"] = recipe["scores"] = True
        metrics.append(entry)
        recipes.append(recipe)
    found = [(name, seed, key) for name, seed, key, _ in arms.arm_list(plan)]
    plan.add(
        id="measure", kind="measure", label=f"measure {len(metrics)} metrics",
        needs=tuple(step for step in (samples_id, capability_id, *judge_ids) if step is not None),
        recipe={"metrics": recipes, "arms": [list(arm) for arm in found]},
        outputs=("measurements.jsonl", "judgements.jsonl"),
        constants={
            "samples": [samples_id] if samples_id else [], "capability": [capability_id] if capability_id else [],
            "judges": list(judge_ids),
            "arms": found, "metrics": metrics,
        },
        origins={
            "samples": "the sample step", "capability": "the capability step", "judges": "the judge steps", "arms": ("conditions",),
            "metrics": ("metrics",),
        },
    )  # fmt: skip


def _comparison(text: str | None) -> dict[str, Any] | None:
    """`coherent < 50` as a mapping; a field alone has no operator."""
    found = None if text is None else Comparison.parse(text)
    if found is None:
        return None
    if found.operator is None:
        return {"field": found.field}
    return {"field": found.field, "operator": found.operator, "constant": found.constant}
