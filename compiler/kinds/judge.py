"""A language model that scores completions: one step a judge, over every sample set that its metrics read."""

from __future__ import annotations

from typing import Final

from epc.compiler import cost
from epc.compiler.kinds import sample
from epc.compiler.lowering import Lowering
from epc.compiler.spec import JudgeMetric, Spec

CONCURRENCY: Final = 16
"""Calls in flight."""


def sets_of(spec: Spec, name: str) -> list[str]:
    """Sample sets that a judge reads, in the order of the spec."""
    wanted = {metric.of for metric in spec.metrics.values() if isinstance(metric, JudgeMetric) and metric.judge == name}
    return [entry for entry in spec.sample if entry in wanted]


def lower(plan: Lowering) -> tuple[str, ...]:
    """Every judge that a metric reads."""
    return tuple(_lower(plan, name) for name in plan.spec.judges if sets_of(plan.spec, name))


def _lower(plan: Lowering, name: str) -> str:
    entry = plan.spec.judges[name]
    samples_id = sample.lower(plan)
    assert samples_id is not None
    sets = sets_of(plan.spec, name)
    bill = cost.bill(plan.experiment, name, sets)
    assert bill is not None
    assert bill.price is not None
    price = bill.price
    said = {
        "judge": name, "provider": entry.provider, "model": entry.model, "rubric_sha256": plan.sha(entry.rubric),
        "output": entry.output, "max_tokens": entry.max_tokens, "sets": sets,
    }  # fmt: skip
    return plan.add(
        id=f"judge-{name}", kind="judge", label=f"have {entry.model} judge {bill.calls:,} completions for {name}",
        needs=(samples_id,), recipe=said, outputs=("judgements.jsonl", "outcomes.json"),
        constants={
            "samples": [samples_id], **said, "rubric": plan.bundle_path(entry.rubric), "concurrency": CONCURRENCY,
            "price": {"input": price.input, "output": price.output}, "usd_estimate": round(bill.usd, 2),
        },
        origins={
            "samples": "the sample step", "judge": ("judges", name), "sets": ("metrics",),
            **{key: ("judges", name, key) for key in ("provider", "model", "rubric", "output", "max_tokens")},
            "rubric_sha256": ("judges", name, "rubric"), "concurrency": "execution plan",
            "price": ("judges", name, "price") if entry.price is not None else f"list price of {price.as_of}",
            "usd_estimate": "computed by epc compile",
        },
    )  # fmt: skip
