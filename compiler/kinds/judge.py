"""Who scores completions: one step a judge, over every sample set that its metrics read."""

from __future__ import annotations

from typing import Any, assert_never

from epc.compiler import cost
from epc.compiler.kinds import sample
from epc.compiler.lowering import Lowering
from epc.compiler.source import PathKey
from epc.compiler.spec import JudgeMetric, ModelJudge, PatternJudge, PythonJudge, Spec


def sets_of(spec: Spec, name: str) -> list[str]:
    """Sample sets that a judge reads, in the order of the spec."""
    wanted = {metric.of for metric in spec.metrics.values() if isinstance(metric, JudgeMetric) and metric.judge == name}
    return [entry for entry in spec.sample if entry in wanted]


def lower(plan: Lowering) -> tuple[str, ...]:
    """Every judge that a metric reads."""
    return tuple(_lower(plan, name) for name in plan.spec.judges if sets_of(plan.spec, name))


def _lower(plan: Lowering, name: str) -> str:
    """One step; its key hashes what is sent, how it is read and how votes become a score, and not how fast or by which route."""
    entry = plan.spec.judges[name]
    samples_id = sample.lower(plan)
    assert samples_id is not None
    sets = sets_of(plan.spec, name)
    completions = f"{cost.completions(plan.experiment, sets):,} completions"
    said: dict[str, Any] = {
        "judge": name, "provider": entry.provider, "output": entry.output, "votes": entry.votes,
        "aggregate": entry.aggregate, "sets": sets,
    }  # fmt: skip
    constants: dict[str, Any]
    origins: dict[str, PathKey | str]
    match entry:
        case ModelJudge():
            times = f", {entry.votes} times each" if entry.votes > 1 else ""
            label = f"have {entry.model} judge {completions} for {name}{times}"
            said |= {
                "model": entry.model, "rubric_sha256": plan.sha(entry.rubric), "max_tokens": entry.max_tokens,
                "options": dict(entry.options),
            }  # fmt: skip
            constants, origins = _model(plan, name, entry, sets)
        case PatternJudge():
            label = f"match {completions} with the patterns of {name}"
            said |= {"patterns": dict(entry.patterns), "patterns_sha256": plan.experiment.judge_sha256(name)}
            constants, origins = {}, {"patterns_sha256": ("judges", name, "patterns")}
        case PythonJudge():
            label = f"score {completions} with {entry.asked} for {name}"
            said |= {"function_name": entry.asked, "function_sha256": plan.sha(entry.file)}
            constants = {"function": plan.bundle_path(entry.file)}
            origins = dict.fromkeys(("function", "function_name", "function_sha256"), ("judges", name, "function"))
        case _:
            assert_never(entry)
    return plan.add(
        id=f"judge-{name}", kind="judge", label=label, needs=(samples_id,), recipe=said,
        outputs=("judgements.jsonl", "outcomes.json"), constants={"samples": [samples_id], **said, **constants},
        origins={
            **{key: ("judges", name, key) for key in said}, "samples": "the sample step", "judge": ("judges", name),
            "sets": ("metrics",), **origins,
        },
    )  # fmt: skip


def _model(
    plan: Lowering, name: str, entry: ModelJudge, sets: list[str]
) -> tuple[dict[str, Any], dict[str, PathKey | str]]:
    """The constants of a model judge that no key hashes, and the origins of those and of the hash of its rubric."""
    bill = cost.bill(plan.experiment, name, sets)
    assert bill is not None
    assert bill.price is not None
    price = bill.price
    constants = {
        "rubric": plan.bundle_path(entry.rubric), "batch": bill.batch, "cache": bill.cache,
        "limits": entry.limits.model_dump(), "concurrency": cost.CONCURRENCY,
        "price": price.model_dump(include={"input", "output", "cache_write", "cache_read", "batch_factor"}),
        "usd_estimate": round(bill.usd, 2),
    }  # fmt: skip
    origins: dict[str, PathKey | str] = {
        "rubric": ("judges", name, "rubric"), "rubric_sha256": ("judges", name, "rubric"),
        "batch": ("judges", name, "batch_from"), "cache": "where the rubric begins with enough that never changes",
        "limits": ("judges", name, "limits"), "concurrency": "execution plan",
        "price": ("judges", name, "price") if entry.price is not None else f"list price of {price.as_of}",
        "usd_estimate": "computed by epc compile",
    }  # fmt: skip
    return constants, origins
