"""The decision part of an Experiment as contract objects: metrics, analyses, gates, verdict table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, assert_never

from epc.compiler.contract import manifest as contract
from epc.compiler.contract.chat import item_id
from epc.compiler.contract.logic import And, Atom, Name, leaves
from epc.compiler.contract.replies import ends
from epc.compiler.predicate import unparse
from epc.compiler.resolve import Comparison, Experiment, arms
from epc.compiler.spec import JudgeMetric, LmEvalMetric, Otherwise, PatternMetric


def metrics(experiment: Experiment) -> tuple[contract.Metric, ...]:
    """Every metric; a task that could not be read keeps its file's path as source."""
    found: list[contract.Metric] = []
    for name, metric in experiment.spec.metrics.items():
        common: dict[str, Any] = {
            "name": name, "scale": (0.0, 1.0), "better": metric.better, "missing": metric.missing, "description": metric.describe,
        }  # fmt: skip
        match metric:
            case PatternMetric():
                found.append(contract.Metric(kind="pattern", source=metric.of, unit="prompt", **common))
            case JudgeMetric():
                output = experiment.spec.judges[metric.judge].output if metric.judge in experiment.spec.judges else {}
                common["scale"] = _scale(metric.score, output)
                found.append(
                    contract.Metric(
                        kind="judge", source=metric.of, unit="prompt", judge=metric.judge, filter=metric.keep,
                        empty=metric.empty or "fail", **common,
                    )
                )  # fmt: skip
            case LmEvalMetric():
                task = experiment.tasks.get(name)
                found.append(
                    contract.Metric(kind="lm_eval", source=task.name if task else metric.lm_eval, unit="item", **common)
                )
            case _:
                assert_never(metric)
    return tuple(found)


def _scale(score: str, output: Mapping[str, str]) -> tuple[float, float]:
    """Ends of a judged score: the declared range of its field, or a rate for a comparison or a yes-or-no field."""
    found = Comparison.parse(score)
    low, high = ends("bool" if found is None or found.operator is not None else output.get(found.field, "bool")) or (
        0,
        1,
    )
    return (float(low), float(high))


def judges(experiment: Experiment) -> tuple[contract.Judge, ...]:
    """Every judge that a metric reads."""
    read = {metric.judge for metric in experiment.spec.metrics.values() if isinstance(metric, JudgeMetric)}
    return tuple(
        contract.Judge(
            name=name, model=judge.model, rubric_sha256=experiment.inputs[judge.rubric].sha256,
            max_missing=judge.max_missing,
        )
        for name, judge in experiment.spec.judges.items()
        if name in read
    )  # fmt: skip


def subsets(experiment: Experiment) -> dict[str, tuple[str, ...]]:
    """Units of every prompt set that an analysis is restricted to."""
    named = sorted({analysis.on for analysis in experiment.spec.analyses.values() if analysis.on is not None})
    return {name: tuple(sorted(item_id(prompt) for prompt in experiment.prompts[name])) for name in named}


def confirmatory(experiment: Experiment) -> set[str]:
    """Analyses that a success gate reads."""
    return {
        leaf.analysis
        for name, parsed in experiment.gates.items()
        if experiment.spec.gates[name].role == "success" and parsed.predicate is not None
        for leaf in leaves(parsed.predicate)
        if isinstance(leaf, Atom)
    }


def analyses(experiment: Experiment) -> tuple[contract.Analysis, ...]:
    """Every analysis, and whether it is confirmatory."""
    spec = experiment.spec
    read_by_success = confirmatory(experiment)
    switched = {gate.analysis for gate in spec.gates.values() if gate.role == "switch"}
    found: list[contract.Analysis] = []
    for name, analysis in spec.analyses.items():
        contrast = None
        if analysis.contrast is not None:
            treatment, control = arms(analysis)
            contrast = contract.Contrast(treatment=treatment, control=control)
        found.append(
            contract.Analysis(
                name=name, metric=analysis.metric, contrast=contrast, arm=analysis.arm, method=analysis.method, p=analysis.p, subset=analysis.on, interval=analysis.interval,
                side=analysis.side, alpha=analysis.alpha, resamples=analysis.resamples, seed=analysis.seed,
                confirmatory=name in read_by_success, switched=name in switched,
            )
        )  # fmt: skip
    return tuple(found)


def gates(experiment: Experiment) -> tuple[contract.Gate, ...]:
    """Every gate whose predicate could be read."""
    spec = experiment.spec
    return tuple(
        contract.Gate(
            name=name, role=spec.gates[name].role, text=unparse(parsed.predicate), predicate=parsed.predicate,
            on=tuple(spec.gates[name].on), say=spec.gates[name].say, analysis=spec.gates[name].analysis,
        )
        for name, parsed in experiment.gates.items()
        if parsed.predicate is not None
    )  # fmt: skip


def verdicts(experiment: Experiment) -> tuple[contract.VerdictRule, ...]:
    """The table; every sanity gate is joined to every SUCCESS rule, because it blocks SUCCESS."""
    return tuple(_rules(experiment))


def _rules(experiment: Experiment) -> Iterator[contract.VerdictRule]:
    sanity = [Name(name=name) for name, gate in experiment.spec.gates.items() if gate.role == "sanity"]
    for rule, predicate in zip(experiment.spec.verdicts, experiment.rules, strict=True):
        label = rule.otherwise if isinstance(rule, Otherwise) else rule.then
        verdict_class: Any = label.split("_")[0]
        if predicate is not None and verdict_class == "SUCCESS" and sanity:
            named = {leaf.name for leaf in leaves(predicate) if isinstance(leaf, Name)}
            missing = [name for name in sanity if name.name not in named]
            before = predicate.operands if isinstance(predicate, And) else (predicate,)
            predicate = And(operands=(*before, *missing)) if missing else predicate
        yield contract.VerdictRule(
            text="otherwise" if predicate is None else unparse(predicate), predicate=predicate, label=label,
            verdict_class=verdict_class, say=rule.say,
        )  # fmt: skip
