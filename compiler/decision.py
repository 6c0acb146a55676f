"""The decision part of an Experiment as contract objects: metrics, analyses, gates, verdict table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, assert_never

from epc.compiler.contract import manifest as contract
from epc.compiler.contract.chat import item_id
from epc.compiler.contract.logic import And, Atom, Name, leaves
from epc.compiler.contract.replies import ends
from epc.compiler.predicate import unparse
from epc.compiler.resolve import Comparison, Experiment, arms
from epc.compiler.spec import JudgeMetric, LmEvalMetric, ModelJudge, Otherwise, PatternMetric, ResultMetric

if TYPE_CHECKING:
    from epc.compiler.contract.spending import Spending


def metrics(experiment: Experiment) -> tuple[contract.Metric, ...]:
    """Every metric; a task that could not be read keeps its file's path as source."""
    found: list[contract.Metric] = []
    resampled = with_scores(experiment)
    for name, metric in experiment.spec.metrics.items():
        common: dict[str, Any] = {
            "name": name, "scale": (0.0, 1.0), "better": metric.better, "missing": metric.missing, "description": metric.describe,
            "noise": metric.noise, "scores": name in resampled,
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
                        score=metric.score, empty=metric.empty or "fail", **common,
                    )
                )  # fmt: skip
            case LmEvalMetric():
                task = experiment.tasks.get(name)
                if metric.scale is not None:
                    common["scale"] = (metric.scale[0], metric.scale[1])
                band = metric.base_between
                found.append(
                    contract.Metric(
                        kind="lm_eval", source=task.name if task else metric.lm_eval, unit="item",
                        base_between=None if band is None else (band[0], band[1]), **common,
                    )
                )  # fmt: skip
            case ResultMetric():
                common["scale"] = (metric.scale[0], metric.scale[1])
                found.append(contract.Metric(kind="results", source=metric.results, unit=metric.unit, **common))
            case _:
                assert_never(metric)
    return tuple(found)


def with_scores(experiment: Experiment) -> set[str]:
    """Metrics of which an analysis resamples the samples of a unit, so that rows must hold their scores."""
    return {
        analysis.metric
        for analysis in experiment.spec.analyses.values()
        if analysis.method == "two_level" or "sample" in (analysis.levels or ())
    }


def _scale(score: str, output: Mapping[str, str]) -> tuple[float, float]:
    """Ends of a judged score: the declared range of its field, or a rate for a comparison or a yes-or-no field."""
    found = Comparison.parse(score)
    low, high = ends("bool" if found is None or found.operator is not None else output.get(found.field, "bool")) or (
        0,
        1,
    )
    return (float(low), float(high))


def results(experiment: Experiment) -> tuple[contract.ResultsFile, ...]:
    """Every results entry that a metric reads, with the scores that are read of it."""
    scores: dict[str, dict[str, str]] = {}
    for name, metric in experiment.spec.metrics.items():
        if isinstance(metric, ResultMetric):
            scores.setdefault(metric.results, {})[name] = metric.score
    return tuple(
        contract.ResultsFile(
            name=name, file=entry.file, format=entry.format, sha256=entry.sha256, condition=entry.condition,
            conditions=dict(entry.conditions), scores=scores[name],
            mapping=None if entry.mapping is None else contract.ResultColumns.model_validate(entry.mapping.model_dump()),
        )
        for name, entry in experiment.spec.results.items()
        if name in scores
    )  # fmt: skip


def judges(experiment: Experiment) -> tuple[contract.Judge, ...]:
    """Every judge that a metric reads."""
    read = {metric.judge for metric in experiment.spec.metrics.values() if isinstance(metric, JudgeMetric)}
    return tuple(
        contract.Judge(
            name=name, provider=judge.provider, model=judge.asked, rubric_sha256=experiment.judge_sha256(name) or "",
            max_missing=judge.max_missing, output=dict(judge.output), votes=judge.votes, aggregate=judge.aggregate,
            options=dict(judge.options) if isinstance(judge, ModelJudge) else {},
            gold=None if judge.gold is None else contract.Gold.model_validate(judge.gold.model_dump()),
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
    certain = {
        name: level
        for family in families(experiment)
        for name, level in zip(family.analyses, certain_levels(family), strict=True)
    }
    looks = interim(experiment)
    last = looks.levels[-1] if looks is not None and looks.levels else None
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
                margin=analysis.margin, levels=tuple(analysis.levels or ()), population=analysis.population,
                confirmatory=name in read_by_success, switched=name in switched,
                rejects_below=certain.get(name) if last is None or name not in read_by_success else last,
                rejects_only_below=last if name in read_by_success else None,
            )
        )  # fmt: skip
    return tuple(found)


def truths(experiment: Experiment) -> tuple[contract.Truth, ...]:
    """Every declared truth, with a mean for each arm: one that is left out has that of the first."""
    return tuple(
        contract.Truth(
            name=name, expect=truth.expect, at_least=truth.at_least,
            metrics={
                metric: contract.TruthOf(
                    means={arm: of.means.get(arm, next(iter(of.means.values()), 0.0)) for arm in experiment.spec.conditions},
                    unit_sd=of.unit_sd, correlation=of.correlation, missing=of.missing,
                )
                for metric, of in truth.metrics.items()
            },
        )
        for name, truth in experiment.spec.truths.items()
    )  # fmt: skip


def planned_units(experiment: Experiment) -> dict[str, int]:
    """Metric -> units that the design plans; results from elsewhere have none."""
    spec = experiment.spec
    found: dict[str, int] = {}
    for name, metric in spec.metrics.items():
        match metric:
            case PatternMetric() | JudgeMetric():
                sample = spec.sample.get(metric.of)
                if sample is not None and sample.prompts in spec.prompts:
                    found[name] = spec.prompts[sample.prompts].count
            case LmEvalMetric():
                found[name] = metric.items
            case ResultMetric():
                pass
            case _:
                assert_never(metric)
    return found


def planned_samples(experiment: Experiment) -> dict[str, int]:
    """Metric -> samples per unit, arm and training seed that the design plans."""
    sample = experiment.spec.sample
    return {
        name: 1 if isinstance(metric, LmEvalMetric) else sample[metric.of].n
        for name, metric in experiment.spec.metrics.items()
        if isinstance(metric, LmEvalMetric) or (isinstance(metric, PatternMetric | JudgeMetric) and metric.of in sample)
    }


def families(experiment: Experiment) -> tuple[contract.Family, ...]:
    """Every multiplicity family."""
    return tuple(
        contract.Family(name=name, method=family.method, analyses=tuple(family.analyses), alpha=family.alpha)
        for name, family in experiment.spec.families.items()
    )


def certain_levels(family: contract.Family) -> tuple[float, ...]:
    """Of each member the level below which its p rejects whatever the p-values of the others are.

    alpha / m under the stepwise rules. In a fixed sequence the first is on its own, and a later one never is.
    """
    match family.method:
        case "holm" | "benjamini_hochberg":
            return (float(Fraction(repr(family.alpha)) / len(family.analyses)),) * len(family.analyses)
        case "fixed_sequence":
            return (family.alpha, *[0.0] * (len(family.analyses) - 1))
        case _:
            assert_never(family.method)


def interim(experiment: Experiment) -> contract.Interim | None:
    """The planned looks with their levels; none where the looks or the confirmatory test are not sound."""
    planned = experiment.spec.interim
    if planned is None:
        return None
    tested = [experiment.spec.analyses[name] for name in confirmatory(experiment) if name in experiment.spec.analyses]
    looks = tuple(planned.looks)
    levels: tuple[float, ...] = ()
    if len(tested) == 1 and looks[-1] == 1 and all(low < high for low, high in pairwise(looks)):
        two_sided = tested[0].side == "two_sided" and tested[0].method != "tost"
        levels = _levels(looks, tested[0].alpha, two_sided, planned.spending)
    return contract.Interim(looks=looks, spending=planned.spending, levels=levels)


@lru_cache(maxsize=4)
def _levels(looks: tuple[float, ...], alpha: float, two_sided: bool, spending: Spending) -> tuple[float, ...]:
    from epc.compiler.contract.spending import nominal_levels

    return nominal_levels(looks, alpha=alpha, two_sided=two_sided, spending=spending)


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
