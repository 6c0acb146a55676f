"""Tasks of the LM Evaluation Harness and the data that they read: in a file of the spec, or by the harness's own name.

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
    metrics: {quiz: {revision: 210d026faf9955653af8916fad021475a3f00453}}
    --- tasks/quiz.yaml
    task: arc_challenge
    dataset_path: allenai/ai2_arc
    dataset_name: ARC-Challenge

E1911: a task that the harness does not have
Why: A benchmark is named by its file or by the harness's own name. A name that nothing answers to would be found out
when every arm has been trained.
Example:
    metrics: {quiz: {lm_eval: arc_chalenge}}
Fix:
    metrics: {quiz: {lm_eval: tasks/quiz.yaml}}

E1912: a task of the harness without the version that it is of
Why: The harness's tasks change: a prompt, a filter, the split that is read. `arc_challenge` is a definition only
together with a version. The definition that is found is copied into the bundle and hashed; a machine with another
version refuses to compile it and to run it.
Example:
    metrics: {quiz: {lm_eval: arc_challenge}}
Fix:
    metrics: {quiz: {lm_eval: tasks/quiz.yaml}}

E1913: a group of tasks where one is needed
Why: A group's score is an average of averages, and its items belong to tasks with other numbers of choices and another
chance level. Tests here are paired by item, so every task is a metric of its own.
Example:
    metrics: {quiz: {lm_eval: mmlu}}
Fix:
    metrics: {quiz: {lm_eval: tasks/quiz.yaml}}
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.chat import lines
from epc.compiler.diagnostics import Span, did_you_mean
from epc.compiler.resolve import harness
from epc.compiler.resolve.context import Context
from epc.compiler.resolve.experiment import InputFile, Task
from epc.compiler.resolve.files import read_file, relative
from epc.compiler.source import is_file, parse, read_text
from epc.compiler.spec import LmEvalMetric

ITEM_CHARACTERS = 320
"""Characters of a multiple-choice item with its choices, for the estimate of a task whose data are not at hand."""
SPLITS: Final = ("test_split", "validation_split")
"""What is evaluated: the first that the task names."""
EXAMPLES: Final = ("fewshot_split", "training_split", "validation_split")
"""What examples are drawn from: the first that the task names, in the harness's order."""
SHOWN: Final = 40
"""Members of a group that a message lists."""
_FUNCTION: Final = re.compile(r"!function\s+['\"]?([\w.]+)\.\w+")


@dataclass(frozen=True, kw_only=True)
class _Definition:
    """A task's definition, wherever it is from."""

    file: InputFile
    content: Mapping[str, Any]
    more: tuple[InputFile, ...] = ()
    shown: str
    """What messages call it."""
    at: Span
    overrides: dict[str, Any] = field(default_factory=dict)


def named(metric: LmEvalMetric) -> bool:
    """Whether the task is one of the harness, and not a file."""
    return not (metric.lm_eval.endswith((".yaml", ".yml")) or "/" in metric.lm_eval)


def task(context: Context, metric_name: str, metric: LmEvalMetric) -> Task | None:
    """The task of a metric; None after an error."""
    at = context.at("metrics", metric_name, "lm_eval")
    found = _of_harness(context, metric_name, metric, at) if named(metric) else _of_file(context, metric, at)
    if found is None:
        return None
    if metric.data is not None:
        return _copied(context, found, metric_name, metric)
    if found.content.get("dataset_path") == "json" and not named(metric):
        return _local(context, found, metric)
    return _of_hub(context, found, metric_name, metric)


# ------------------------------------------------------------------ definitions


def _of_file(context: Context, metric: LmEvalMetric, at: Span) -> _Definition | None:
    file = read_file(context, metric.lm_eval, at)
    more: list[InputFile] = []
    content = None if file is None else _content(context, file, at, more)
    if file is None or content is None:
        return None
    if not content.get("task"):
        context.sink.error("E0409", f"{metric.lm_eval} names no task", at, help="add `task:` with a name of your own")
        return None
    return _Definition(file=file, content=content, more=tuple(more), shown=metric.lm_eval, at=at)


def _content(context: Context, file: InputFile, at: Span, more: list[InputFile]) -> dict[str, Any] | None:
    """The mapping in a task file over what it includes; the files that it needs besides are added to `more`."""
    document = parse(file.text, context.surface.shown(file.path), context.sink)
    if document.data is None:
        return None
    if not isinstance(document.data, dict):
        context.sink.error(
            "E0409",
            f"{file.path} is not a local lm-eval task: it holds no mapping",
            at,
            help="write task: and the other fields of a task",
        )
        return None
    folder = posixpath.dirname(file.path)
    for module in sorted(set(_FUNCTION.findall(file.text))):
        path = posixpath.join(folder, f"{module.replace('.', '/')}.py")
        if is_file(context.surface.folder / path):  # else it is a module of the installed harness
            read = read_file(context, path, at)
            more += [] if read is None else [read]
    whole: dict[str, Any] = {}
    includes = document.data.pop("include", [])
    for name in includes if isinstance(includes, list) else [includes]:
        path = posixpath.join(folder, str(name))
        if any(path == seen.path for seen in more):
            continue
        part = read_file(context, path, at)
        if part is None:
            return None
        more.append(part)
        inner = _content(context, part, at, more)
        if inner is None:
            return None
        whole |= inner
    return whole | document.data


def _of_harness(context: Context, metric_name: str, metric: LmEvalMetric, at: Span) -> _Definition | None:
    """A task that the installed harness brings, copied into the bundle; None after an error."""
    name, beside = metric.lm_eval, harness.installed()
    if beside is None:
        context.sink.error(
            "E1912", f"{name} is a task of lm-eval, which is not installed here", at,
            help=f"pip install lm-eval{f'=={metric.harness}' if metric.harness else ''}, or name a task file ending in .yaml",
        )  # fmt: skip
        return None
    if name not in harness.index(beside).tasks:
        _no_such_task(context, beside, name, at)
        return None
    if metric.harness is None:
        context.sink.error(
            "E1912", f"{name} is a task of lm-eval, and no version is declared", at,
            help=f"add `harness: {beside.version}`, the version that is installed here",
        )  # fmt: skip
        return None
    if metric.harness != beside.version:
        context.sink.error(
            "E1912", f"{name} is declared as of lm-eval {metric.harness}, and {beside.version} is installed here",
            context.at("metrics", metric_name, "harness"),
            help=f"pip install lm-eval=={metric.harness}; or write harness: {beside.version}, whose task may differ",
        )  # fmt: skip
        return None
    try:
        found = harness.definition(beside, name)
    except (OSError, ValueError) as error:
        context.sink.error(
            "E1911",
            f"the harness's file of {name} cannot be read: {error}",
            at,
            help="reinstall lm-eval, or write a task file",
        )
        return None
    folder = f"inputs/lm_eval/{name}"
    file = InputFile(path=name, bundle_path=f"{folder}/{name}.yaml", text=found.text, sha256=sha256_text(found.text))
    more = tuple(
        InputFile(path=f"{name}/{path}", bundle_path=f"{folder}/{path}", text=text, sha256=sha256_text(text))
        for path, text in sorted(found.modules.items())
    )
    context.inputs.update({each.path: each for each in (file, *more)})
    return _Definition(file=file, content=found.content, more=more, shown=f"{name} of lm-eval {beside.version}", at=at)


def _no_such_task(context: Context, beside: harness.Harness, name: str, at: Span) -> None:
    inside = harness.members(beside, name)
    if inside is None:
        names = harness.index(beside)
        known = (*names.tasks, *names.groups, *names.tags)
        suggested = did_you_mean(name, known)
        context.sink.error(
            "E1911", f"lm-eval {beside.version} has no task {name}", at,
            help=suggested if suggested.startswith("did") else "lm-eval ls tasks lists them; a file is named with its ending, .yaml",
        )  # fmt: skip
        return
    rest = f" and {len(inside) - SHOWN} more" if len(inside) > SHOWN else ""
    context.sink.error(
        "E1913", f"{name} is a group of {len(inside)} tasks", at,
        help=f"name one of them in each metric: {', '.join(inside[:SHOWN])}{rest}",
    )  # fmt: skip


# ------------------------------------------------------------------ items


def _split(found: _Definition) -> str | None:
    """Name of the split that is evaluated."""
    return next((str(found.content[key]) for key in SPLITS if found.content.get(key)), None)


def _local(context: Context, found: _Definition, metric: LmEvalMetric) -> Task | None:
    """A task file with its items beside it."""
    content = found.content
    try:
        name = str(content["task"])
        files = content["dataset_kwargs"]["data_files"]
        split = _split(found)
        if split is None:
            raise KeyError("test_split")
        folder = posixpath.dirname(metric.lm_eval)
        path = posixpath.join(folder, str(files[split] if isinstance(files, dict) else files))
    except (AttributeError, KeyError, TypeError) as error:
        context.sink.error(
            "E0409", f"{metric.lm_eval} is not a local lm-eval task: {type(error).__name__} {error}".split("\n")[0], found.at,
            help="it needs task, dataset_path: json, dataset_kwargs.data_files and test_split",
        )  # fmt: skip
        return None
    data = read_file(context, path, found.at)
    if data is None:
        return None
    others = {key: posixpath.join(folder, str(file)) for key, file in files.items()} if isinstance(files, dict) else {}
    read = [read_file(context, other, found.at) for other in others.values() if other != path]
    return _task(found, name, data, metric, more=tuple(each for each in read if each is not None))


def _copied(context: Context, found: _Definition, metric_name: str, metric: LmEvalMetric) -> Task | None:
    """A task whose items, and examples where there are any, are read from local files instead of its own source."""
    assert metric.data is not None
    data = _rows(context, metric.data, context.at("metrics", metric_name, "data"))
    examples = None
    if metric.fewshot_data is not None:
        examples = _rows(context, metric.fewshot_data, context.at("metrics", metric_name, "fewshot_data"))
    if data is None or (metric.fewshot_data is not None and examples is None):
        return None
    split = _split(found) or "test"
    folder = posixpath.dirname(found.file.bundle_path)
    files = {split: posixpath.relpath(data.bundle_path, folder)}
    overrides: dict[str, Any] = {
        "dataset_path": "json", "dataset_name": None, "test_split": split, "validation_split": None, "training_split": None,
        "fewshot_split": None,
    }  # fmt: skip
    if examples is not None:
        files["examples"] = posixpath.relpath(examples.bundle_path, folder)
        overrides |= {"training_split": "examples", "fewshot_split": "examples"}
    overrides["dataset_kwargs"] = {"data_files": files}
    found.overrides.update(overrides)
    more = () if examples is None else (examples,)
    return _task(found, str(found.content.get("task")), data, metric, more=more)


def _rows(context: Context, path: str, at: Span) -> InputFile | None:
    """A local copy of items; one in Parquet travels as JSON Lines."""
    if not path.endswith(".parquet"):
        return read_file(context, path, at)
    if path in context.inputs:
        return context.inputs[path]
    whole = context.surface.folder / path
    if not relative(context, path, at):
        return None
    if not is_file(whole):
        read_text(whole, context.surface.shown(path), context.sink, at=at)
        return None
    try:
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(whole).to_pylist()
        text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    except ImportError:
        context.sink.error(
            "E0402",
            f"cannot read {path}: pyarrow is not installed",
            at,
            help="pip install pyarrow, or save the items as JSON Lines",
        )
        return None
    except (OSError, ValueError, TypeError) as error:  # ArrowInvalid is a ValueError
        context.sink.error(
            "E0402", f"cannot read {path}: {' '.join(str(error).split())[:200]}", at,
            help="save the items as JSON Lines",
        )  # fmt: skip
        return None
    clean = posixpath.normpath(path)
    up = clean.count("../")
    bundle_path = "inputs/" + ("up/" * up) + clean.replace("../", "") + ".jsonl"
    entry = InputFile(path=path, bundle_path=bundle_path, text=text, sha256=sha256_text(text))
    context.inputs[path] = entry
    return entry


def _of_hub(context: Context, found: _Definition, metric_name: str, metric: LmEvalMetric) -> Task | None:
    """A task whose data set is fetched from the hub when it runs, at one revision."""
    given = dict(found.content.get("dataset_kwargs") or {})
    revision = metric.revision or str(given.get("revision", ""))
    if re.fullmatch(r"[0-9a-f]{40}", revision) is None:
        context.sink.error(
            "E0410", f"{found.shown} does not pin the revision of {found.content.get('dataset_path')}", found.at,
            help="add `revision:` with the commit, 40 hex digits, to the metric; or `data:` with a local copy of the items",
        )  # fmt: skip
        return None
    if metric.revision is not None:
        given.pop("trust_remote_code", None)
        found.overrides["dataset_kwargs"] = {**given, "revision": revision}
    if metric.stand_in is not None:  # it is read when a rehearsal needs it
        place = context.at("metrics", metric_name, "stand_in")
        if relative(context, metric.stand_in, place) and not is_file(context.surface.folder / metric.stand_in):
            read_text(
                context.surface.folder / metric.stand_in, context.surface.shown(metric.stand_in), context.sink, at=place
            )
    return _task(found, str(found.content.get("task")), None, metric)


def _task(
    found: _Definition, name: str, data: InputFile | None, metric: LmEvalMetric, *, more: tuple[InputFile, ...] = ()
) -> Task:
    items = [] if data is None else lines(data.text)
    counted = data is not None and not found.content.get("process_docs")
    return Task(
        file=found.file, data=data, name=name, items=len(items) if counted else metric.items,
        characters=sum(map(len, items)) if data is not None else metric.items * ITEM_CHARACTERS,
        more=(*found.more, *more), overrides=found.overrides, content={**found.content, **found.overrides},
    )  # fmt: skip


def examples_split(content: Mapping[str, Any]) -> str | None:
    """Name of the split that the examples of a task are drawn from; None where it names none apart from what it asks."""
    asked = next((content[key] for key in SPLITS if content.get(key)), None)
    named = next((content[key] for key in EXAMPLES if content.get(key)), None)
    return None if named is None or named == asked else str(named)
