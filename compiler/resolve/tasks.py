"""Tasks of the LM Evaluation Harness and the data that they read.

E0409: a task file of the LM Evaluation Harness that lacks what a local task needs
Why: An evaluation error was once swallowed and the benchmark skipped. The task is read here, and its items counted,
before any model is trained for it.
Example:
    --- tasks/quiz.yaml
    task: quiz
    dataset_path: json
    doc_to_text: "{{question}}"
Fix:
    --- tasks/quiz.yaml
    task: quiz
    dataset_path: json
    dataset_kwargs: {data_files: {test: quiz.jsonl}}
    test_split: test

E0410: a task on a data set of the hub at no fixed revision
Why: A data set on a hub can be corrected, reordered or replaced under its name. A benchmark that moved between two arms
would be read as an effect of the training.
Example:
    --- tasks/quiz.yaml
    task: arc_challenge
    dataset_path: allenai/ai2_arc
    dataset_name: ARC-Challenge
Fix:
    --- tasks/quiz.yaml
    task: arc_challenge
    dataset_path: allenai/ai2_arc
    dataset_name: ARC-Challenge
    dataset_kwargs: {revision: 210d026faf9955653af8916fad021475a3f00453}
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Any

from epc.compiler.contract.chat import lines
from epc.compiler.diagnostics import Span
from epc.compiler.resolve.context import Context
from epc.compiler.resolve.experiment import InputFile, Task
from epc.compiler.resolve.files import read_file, relative
from epc.compiler.source import is_file, parse, read_text
from epc.compiler.spec import LmEvalMetric

ITEM_CHARACTERS = 320
"""Characters of a multiple-choice item with its choices, for the estimate of a task whose data are not at hand."""


def task(context: Context, metric_name: str, metric: LmEvalMetric) -> Task | None:
    """The task of a metric; None after an error."""
    at = context.at("metrics", metric_name, "lm_eval")
    file = read_file(context, metric.lm_eval, at)
    if file is None:
        return None
    document = parse(file.text, context.surface.shown(metric.lm_eval), context.sink)
    if document.data is None:
        return None
    try:
        content = document.data
        name = str(content["task"])
        if content.get("dataset_path") != "json":
            return _hub_task(context, file, name, content, metric_name, metric, at)
        files = content["dataset_kwargs"]["data_files"]
        split = files[content["test_split"]] if isinstance(files, dict) else files
        path = posixpath.join(posixpath.dirname(metric.lm_eval), str(split))
    except (AttributeError, KeyError, TypeError) as error:
        context.sink.error(
            "E0409", f"{metric.lm_eval} is not a local lm-eval task: {type(error).__name__} {error}".split("\n")[0], at,
            help="it needs task, dataset_path: json, dataset_kwargs.data_files and test_split",
        )  # fmt: skip
        return None
    data = read_file(context, path, at)
    if data is None:
        return None
    items = lines(data.text)
    return Task(file=file, data=data, name=name, items=len(items), characters=sum(map(len, items)))


def _hub_task(
    context: Context, file: InputFile, name: str, content: Mapping[str, Any], metric_name: str, metric: LmEvalMetric, at: Span
) -> Task | None:  # fmt: skip
    """A task whose data set is fetched from the hub when it runs, at one revision."""
    revision = str((content.get("dataset_kwargs") or {}).get("revision", ""))
    if re.fullmatch(r"[0-9a-f]{40}", revision) is None:
        context.sink.error(
            "E0410", f"{metric.lm_eval} does not pin the revision of {content.get('dataset_path')}", at,
            help="add dataset_kwargs: {revision: <the commit, 40 hex digits>} to the task file",
        )  # fmt: skip
        return None
    if metric.stand_in is not None:  # it is read when a rehearsal needs it
        place = context.at("metrics", metric_name, "stand_in")
        if relative(context, metric.stand_in, place) and not is_file(context.surface.folder / metric.stand_in):
            read_text(
                context.surface.folder / metric.stand_in, context.surface.shown(metric.stand_in), context.sink, at=place
            )
    return Task(file=file, data=None, name=name, items=metric.items, characters=metric.items * ITEM_CHARACTERS)
