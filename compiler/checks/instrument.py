"""Metrics that are one instrument under two names, and one benchmark that is read in two ways.

E0755: the same measurement under two names
Why: the source of issue 147 measures ARC-Challenge with lm-eval and vLLM in its body and with an in-process callback
in its plan. Written down as two metrics, one instrument looks like two, and its gates like two confirmations. Metrics
are compared by what they read: the task, value and chat template of a benchmark; the completions and the texts looked
for; the completions, the judge behind its name, the score and the filter.
Example:
    metrics: {quiz_again: {lm_eval: tasks/quiz.yaml, value: acc, chat_template: false, items: 200, better: higher, missing: drop}}
Fix:
    metrics: {quiz_again: {lm_eval: tasks/quiz.yaml, value: acc_norm, chat_template: false, items: 200, better: higher, missing: drop}}

W0758: gates decide on two readings of one benchmark
Why: in a trial of epc's own, wrapping the questions in the chat template moved an accuracy from .89 to 1.00. Where
both readings decide, they can contradict each other, and choosing the one that agrees is choosing the winner. One
reading decides; the other may be a prediction.
Example:
    metrics: {wrapped: {lm_eval: tasks/quiz.yaml, value: acc, chat_template: true, items: 200, better: higher, missing: fail}}
    analyses: {base_wrapped: {metric: wrapped, arm: base, method: wilson, side: greater, alpha: 0.05}}
    gates: {wrapped_not_at_chance: {role: sanity, require: base_wrapped.lower > 0.3}}
Fix:
    metrics: {wrapped: {lm_eval: tasks/quiz.yaml, value: acc, chat_template: true, items: 200, better: higher, missing: fail}}
    analyses: {base_wrapped: {metric: wrapped, arm: base, method: wilson, side: greater, alpha: 0.05}}
    gates: {wrapped_not_at_chance: {role: prediction, require: base_wrapped.lower > 0.3}}
"""

from __future__ import annotations

from typing import Final, assert_never

from epc.compiler.contract.canonical import sha256_json
from epc.compiler.contract.chat import lines
from epc.compiler.contract.logic import Atom, leaves
from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.resolve import Comparison, Experiment
from epc.compiler.spec import JudgeMetric, LmEvalMetric, Metric, PatternMetric, ResultMetric

SILENT: Final = ("prediction", "descriptive", "follow_up")
"""Roles that decide nothing."""


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    first: dict[object, str] = {}
    for name, metric in spec.metrics.items():
        content = _content(experiment, name, metric)
        other = name if content is None else first.setdefault(content, name)
        if other != name:
            sink.error(
                "E0755", f'metrics "{other}" and "{name}" measure the same', experiment.key_at("metrics", name),
                help="keep one, and let every analysis read it; or let them differ in what they read",
                labels=[Label(span=experiment.key_at("metrics", other), text=_what(metric))],
            )  # fmt: skip
    _readings(experiment, sink)


def _what(metric: Metric) -> str:
    match metric:
        case LmEvalMetric():
            return "the same task, asked and scored in the same way"
        case PatternMetric():
            return "the same texts in the same completions"
        case JudgeMetric():
            return "the same score of the same completions"
        case ResultMetric():
            return "the same scores from elsewhere"
        case _:
            assert_never(metric)


def _content(experiment: Experiment, name: str, metric: Metric) -> object:
    """What a metric reads, so that equal ones measure the same; None where that could not be resolved."""
    match metric:
        case LmEvalMetric():
            task = _task(experiment, name)
            return None if task is None else (task, metric.reading)
        case PatternMetric():
            texts = _texts(experiment, metric)
            return None if texts is None else (metric.of, texts)
        case JudgeMetric():
            judge = _judge(experiment, metric.judge)
            return None if judge is None else (metric.of, judge, _comparison(metric.score), _comparison(metric.keep))
        case ResultMetric():
            return (metric.results, metric.score)
        case _:
            assert_never(metric)


def _task(experiment: Experiment, name: str) -> tuple[str, str] | None:
    """Hashes of a task's file and of its data."""
    task = experiment.tasks.get(name)
    return None if task is None else (task.file.sha256, "" if task.data is None else task.data.sha256)


def _texts(experiment: Experiment, metric: PatternMetric) -> object:
    if metric.contains is not None:
        return frozenset({metric.contains})
    if metric.contains_any is not None:
        file = experiment.inputs.get(metric.contains_any)
        return None if file is None else frozenset(lines(file.text))
    return metric.regex


def _judge(experiment: Experiment, name: str) -> str | None:
    """The judge behind a name: who answers, by what, how it is asked and what it replies with."""
    judge = experiment.spec.judges.get(name)
    content = None if judge is None else experiment.judge_sha256(name)
    if judge is None or content is None:
        return None
    asked = judge.model_dump(include={"provider", "output", "options", "votes", "aggregate"})
    return sha256_json([content, judge.asked, asked])


def _comparison(text: str | None) -> object:
    return None if text is None else Comparison.parse(text) or text


def _readings(experiment: Experiment, sink: Diagnostics) -> None:
    """Benchmarks of which gates that decide read more than one value."""
    spec = experiment.spec
    deciding: dict[str, str] = {}
    for gate, parsed in experiment.gates.items():
        if spec.gates[gate].role in SILENT or parsed.predicate is None:
            continue
        for leaf in leaves(parsed.predicate):
            if isinstance(leaf, Atom):
                deciding.setdefault(spec.analyses[leaf.analysis].metric, gate)
    first: dict[object, str] = {}
    seen: dict[object, set[str]] = {}
    for name, metric in spec.metrics.items():
        task = _task(experiment, name)
        if not isinstance(metric, LmEvalMetric) or name not in deciding or task is None:
            continue
        other = first.setdefault(task, name)
        reading = metric.reading
        known = seen.setdefault(task, {reading})
        if reading in known:
            continue
        known.add(reading)
        sink.warning(
            "W0758", f'gates "{deciding[other]}" and "{deciding[name]}" decide on two readings of one benchmark, "{other}" and "{name}"',
            experiment.key_at("metrics", name),
            help="let one reading decide, and make the gate of the other a prediction",
            labels=[Label(span=experiment.key_at("metrics", other), text="the other reading")],
            notes=[_reading(experiment, other), _reading(experiment, name)],
        )  # fmt: skip


def _reading(experiment: Experiment, name: str) -> str:
    metric = experiment.spec.metrics[name]
    assert isinstance(metric, LmEvalMetric)
    words = metric.reading if metric.chat_template else f"{metric.reading}, without the chat template"
    return f'"{name}": value {words}'
