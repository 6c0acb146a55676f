"""Benchmark tasks: what is read of them, how they are asked, and what the untrained model should score.

E1914: a value that the task does not report
Why: A task reports some metrics, and under several filters the same answer is right or wrong: on gsm8k the strict and
the flexible filter are ten points apart. A value that is not there would be found out when every arm has been scored.
Example:
    metrics: {quiz: {value: exact_match}}
Fix:
    metrics: {quiz: {value: acc_norm}}

E1915: examples that the task does not settle
Why: 25 examples move ARC-Challenge by several points, and five are what everybody means by gsm8k. The number is declared
with the metric; where the task's own file says another, silence would be read either way. Examples come from a split of
their own: drawn from the items that are asked, they give answers away.
Example:
    metrics: {quiz: {fewshot: 5}}      # the task has no split but the one that it asks
Fix:
    metrics: {quiz: {fewshot: 0}}

E1916: a value that is computed of all items at once
Why: Tests here are paired by item. A corpus-level F1, a BLEU of all sentences or a perplexity is no mean of scores of
single items, so no item has one.
Example:
    metrics: {quiz: {value: f1}}
    --- tasks/quiz.yaml
    task: quiz
    dataset_path: json
    dataset_kwargs: {data_files: {test: quiz.jsonl}}
    test_split: test
    output_type: multiple_choice
    doc_to_text: "{{question}}"
    doc_to_choice: choices
    doc_to_target: answer
    metric_list: [{metric: f1, aggregation: f1}, {metric: acc, aggregation: mean}]
Fix:
    metrics: {quiz: {value: acc}}

E1917: a kind of task that cannot be scored here
Why: Tasks written as Python classes, tasks that run the code that a model wrote, tasks with images, and tasks that ask
the same several times do more than ask each item once and score the answer.
Example:
    --- tasks/quiz.yaml
    task: quiz
    dataset_path: json
    dataset_kwargs: {data_files: {test: quiz.jsonl}}
    test_split: test
    output_type: generate_until
    doc_to_text: "{{question}}"
    doc_to_target: answer
    repeats: 8
Fix:
    metrics: {quiz: {value: exact_match}}
    --- tasks/quiz.yaml
    task: quiz
    dataset_path: json
    dataset_kwargs: {data_files: {test: quiz.jsonl}}
    test_split: test
    output_type: generate_until
    doc_to_text: "{{question}}"
    doc_to_target: answer

E1918: a band for the untrained model that holds nothing or cannot be read
Why: Where a known model does not score what it is known to score, the instrument is broken: a wrong template, other
items, a truncated prompt. The band says what to expect before anybody has seen the number. It needs two ends on the
scale of the score, and an arm without training.
Example:
    metrics: {quiz: {base_between: [0.6, 0.4]}}
Fix:
    metrics: {quiz: {base_between: [0.4, 0.6]}}

E1919: a key of a benchmark metric without effect
Why: A key that nothing reads looks like a choice that was made. Several turns need the chat template and examples, a
seed needs examples that are drawn, a limit on generated tokens needs a task that generates.
Example:
    metrics: {quiz: {multiturn: true}}
Fix:
    metrics: {quiz: {multiturn: false}}

W1911: a task that samples, and is decoded greedily here
Why: With sampled answers a benchmark's score changes from run to run, and two arms differ by luck. Answers are the
likeliest ones here, which is not what the task's own file says; published scores of it may be of sampled answers.
Example:
    metrics: {quiz: {value: exact_match}}
    --- tasks/quiz.yaml
    task: quiz
    dataset_path: json
    dataset_kwargs: {data_files: {test: quiz.jsonl}}
    test_split: test
    output_type: generate_until
    doc_to_text: "{{question}}"
    doc_to_target: answer
    generation_kwargs: {until: ["."], do_sample: true, temperature: 0.7}
Fix:
    metrics: {quiz: {value: exact_match}}
    --- tasks/quiz.yaml
    task: quiz
    dataset_path: json
    dataset_kwargs: {data_files: {test: quiz.jsonl}}
    test_split: test
    output_type: generate_until
    doc_to_text: "{{question}}"
    doc_to_target: answer
    generation_kwargs: {until: ["."]}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from epc.compiler.diagnostics import Diagnostics, did_you_mean
from epc.compiler.resolve import Experiment, Task
from epc.compiler.resolve.harness import Function
from epc.compiler.resolve.tasks import examples_split, named
from epc.compiler.spec import LmEvalMetric

DEFAULTS: Final = {
    "multiple_choice": ("acc", "acc_norm"), "generate_until": ("exact_match",), "loglikelihood": ("perplexity", "acc"),
}  # fmt: skip
"""What a task without a list of metrics reports, by its kind of output."""
OF_ALL_ITEMS: Final = frozenset(
    {"f1", "mcc", "matthews_corrcoef", "bleu", "chrf", "ter", "perplexity", "word_perplexity", "byte_perplexity",
     "weighted_perplexity", "bits_per_byte", "brier_score", "likelihood", "gini"}
)  # fmt: skip
"""Aggregations of the harness that are no mean of items, and the metrics that have one by default."""


def check(experiment: Experiment, sink: Diagnostics) -> None:
    for name, metric in experiment.spec.metrics.items():
        if not isinstance(metric, LmEvalMetric):
            continue
        _band(experiment, name, metric, sink)
        task = experiment.tasks.get(name)
        if task is None:
            continue
        problem = _unsupported(task.content)
        if problem is not None:
            sink.error(
                "E1917", f'"{task.name}" {problem}', experiment.at("metrics", name, "lm_eval"),
                help="use a task that asks each item once and scores the answer; scores from elsewhere come in under `results:`",
            )  # fmt: skip
            continue
        _value(experiment, name, metric, task.content, sink)
        _examples(experiment, name, metric, task, sink)
        _without_effect(experiment, name, metric, task, sink)
        _greedy(experiment, name, task, sink)


def _band(experiment: Experiment, name: str, metric: LmEvalMetric, sink: Diagnostics) -> None:
    low, high = metric.scale or (0.0, 1.0)
    if metric.scale is not None and low >= high:
        sink.error(
            "E1918",
            f'the scale of "{name}" is empty',
            experiment.at("metrics", name, "scale"),
            help="write [lowest, highest]",
        )
        return
    if metric.base_between is None:
        return
    at = experiment.at("metrics", name, "base_between")
    least, most = metric.base_between
    if not low <= least < most <= high:
        sink.error(
            "E1918",
            f"[{least:g}, {most:g}] is no band within [{low:g}, {high:g}]",
            at,
            help="write [lowest, highest] mean score",
        )
    elif all(experiment.spec.phases(arm) for arm in experiment.spec.conditions):
        sink.error("E1918", "no arm is without training", at, help="add a condition without phases, such as `base: []`")


def _unsupported(content: Mapping[str, Any]) -> str | None:
    """Why a task cannot be scored, None when it can."""
    if "class" in content:
        return "is written as a Python class"
    if content.get("unsafe_code"):
        return "runs code that the model wrote"
    if content.get("doc_to_image") or content.get("doc_to_audio"):
        return "asks about images or sound"
    if content.get("custom_dataset"):
        return "makes its data set while it runs, so that nothing pins it"
    if content.get("repeats", 1) != 1:
        return f"asks every item {content['repeats']} times"
    if content.get("output_type") == "loglikelihood_rolling":
        return "has a perplexity of whole texts, and no items"
    return None


def _metrics(content: Mapping[str, Any]) -> Iterator[tuple[object, object]]:
    """(name, aggregation) of what a task reports."""
    listed = content.get("metric_list")
    if listed is None:
        for metric in DEFAULTS.get(str(content.get("output_type")), ()):
            yield metric, None
    for entry in listed or ():
        if isinstance(entry, dict):
            yield entry.get("metric"), entry.get("aggregation")


def _value(
    experiment: Experiment, name: str, metric: LmEvalMetric, content: Mapping[str, Any], sink: Diagnostics
) -> None:
    at = experiment.at("metrics", name, "value")
    wanted, _, wanted_filter = metric.value.partition(",")
    reported = dict(_metrics(content))
    settled = all(isinstance(each, str) and not isinstance(each, Function) for each in reported) and reported
    if settled and wanted not in reported and "process_results" not in content:
        sink.error(
            "E1914",
            f'"{content.get("task")}" does not report {wanted}',
            at,
            help=did_you_mean(wanted, map(str, reported)),
        )
        return
    aggregation = reported.get(wanted)
    if "process_results" not in content and (aggregation or wanted) in OF_ALL_ITEMS and aggregation != "mean":
        sink.error(
            "E1916", f"{wanted} of \"{content.get('task')}\" is computed of all items at once", at,
            help="use a value that every item has, such as acc or exact_match",
        )  # fmt: skip
        return
    filters = [str(each.get("name")) for each in content.get("filter_list") or () if isinstance(each, dict)] or ["none"]
    if wanted_filter and wanted_filter not in filters:
        sink.error(
            "E1914", f'"{content.get("task")}" has no filter {wanted_filter}', at,
            help=f"write {wanted} alone" if filters == ["none"] else did_you_mean(wanted_filter, filters),
        )  # fmt: skip
    elif not wanted_filter and len(filters) > 1:
        sink.error(
            "E1914", f'"{content.get("task")}" reports {wanted} under {len(filters)} filters', at,
            help=f"write one of {', '.join(f'{wanted},{each}' for each in filters)}",
        )  # fmt: skip


def _examples(experiment: Experiment, name: str, metric: LmEvalMetric, task: Task, sink: Diagnostics) -> None:
    own = task.content.get("num_fewshot")
    if metric.fewshot is None and own:
        sink.error(
            "E1915", f'"{task.name}" asks with {own} examples by itself, and the metric declares no number',
            experiment.at("metrics", name, "lm_eval"), help=f"write fewshot: {own}, or fewshot: 0",
        )  # fmt: skip
    sampled = isinstance(task.content.get("fewshot_config"), dict) and task.content["fewshot_config"].get("samples")
    if metric.fewshot and examples_split(task.content) is None and not sampled:
        local = metric.data is not None
        sink.error(
            "E1915", f'"{task.name}" has no split apart from its items to draw {metric.fewshot} examples from',
            experiment.at("metrics", name, "fewshot"),
            help="add `fewshot_data:` with a local file of examples" if local else "name one as fewshot_split in the task file, or write fewshot: 0",
        )  # fmt: skip


def _without_effect(experiment: Experiment, name: str, metric: LmEvalMetric, task: Task, sink: Diagnostics) -> None:
    generates = task.content.get("output_type", "generate_until") == "generate_until"
    local = metric.data is not None or (task.data is not None)
    useless = {
        "multiturn": (metric.multiturn and not (metric.chat_template and metric.fewshot), "it needs the chat template and examples"),
        "fewshot_seed": (metric.fewshot_seed is not None and not metric.fewshot, "no examples are drawn"),
        "fewshot_data": (metric.fewshot_data is not None and not (metric.fewshot and metric.data), "it needs `fewshot` and `data`"),
        "max_tokens": (metric.max_tokens is not None and not generates, "the task generates nothing"),
        "revision": (metric.revision is not None and local, "the items are in a local file"),
    }  # fmt: skip
    for key, (idle, why) in useless.items():
        if idle:
            sink.error(
                "E1919",
                f"`{key}` has no effect: {why}",
                experiment.key_at("metrics", name, key),
                help=f"delete `{key}`",
            )
    if metric.harness is not None and not named(metric):
        sink.error(
            "E1919", "`harness` has no effect: the task is a file, which is hashed", experiment.key_at("metrics", name, "harness"),
            help="delete `harness`",
        )  # fmt: skip


def _greedy(experiment: Experiment, name: str, task: Task, sink: Diagnostics) -> None:
    settings = task.content.get("generation_kwargs") or {}
    if isinstance(settings, dict) and (settings.get("do_sample") or settings.get("temperature")):
        sink.warning(
            "W1911", f'"{task.name}" samples its answers, and is decoded greedily here', experiment.at("metrics", name, "lm_eval"),
            help="allow it with a reason; scores of sampled answers published elsewhere do not compare",
            notes=[f"its own settings: {', '.join(f'{key} {value}' for key, value in settings.items() if key != 'until')}"],
        )  # fmt: skip
