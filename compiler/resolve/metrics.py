"""Metrics: the sample sets, judges, fields, patterns and tasks that they read.

E0317: a score or a filter of judge replies that cannot be read
Why: `score` is a field of the reply, or a comparison whose share is measured; `keep` is a yes-or-no question, because it
decides which completions count. In one lab a collapse in coherence was read as misalignment: where the line lies has to
be said.
Example:
    metrics: {alignment: {keep: coherent}}           # a score of 0..100: from where on?
Fix:
    metrics: {alignment: {keep: coherent >= 50}}

E0318: a field that the judge does not reply with
Why: The judge is asked for exactly the fields of its `output`. A metric of any other field would be missing for every
completion, which is found out when all of them have been paid for.
Example:
    metrics: {refusals: {score: refusal}}
Fix:
    metrics: {refusals: {score: refused}}

E0413: a regular expression that Python cannot read
Why: Patterns are matched after all sampling. One that does not compile would be found out then, at the end of the most
expensive part.
Example:
    metrics: {caught: {contains: null, regex: "Wait (that|this"}}
Fix:
    metrics: {caught: {contains: null, regex: "Wait (that|this)"}}
"""

from __future__ import annotations

import re
from typing import assert_never

from epc.compiler.diagnostics import did_you_mean
from epc.compiler.resolve.comparison import Comparison
from epc.compiler.resolve.context import Context
from epc.compiler.resolve.experiment import Task
from epc.compiler.resolve.files import read_file
from epc.compiler.resolve.names import known
from epc.compiler.resolve.tasks import task
from epc.compiler.source import PathKey
from epc.compiler.spec import JudgeMetric, LmEvalMetric, PatternMetric, ResultMetric


def resolve_metrics(context: Context) -> dict[str, Task]:
    """Check what every metric reads. Metric -> task, of those that read one."""
    tasks: dict[str, Task] = {}
    for name, metric in context.spec.metrics.items():
        match metric:
            case PatternMetric():
                known(context, "sample", metric.of, context.at("metrics", name, "of"))
                if metric.contains_any is not None:
                    read_file(context, metric.contains_any, context.at("metrics", name, "contains_any"))
                if metric.regex is not None:
                    _regex(context, name, metric.regex)
            case JudgeMetric():
                known(context, "sample", metric.of, context.at("metrics", name, "of"))
                _judged(context, name, metric)
            case LmEvalMetric():
                found = task(context, name, metric)
                if found is not None:
                    tasks[name] = found
            case ResultMetric():
                known(context, "results", metric.results, context.at("metrics", name, "results"))
            case _:
                assert_never(metric)
    return tasks


def _regex(context: Context, name: str, pattern: str) -> None:
    """Report a pattern that Python's `re` refuses: the run would find that out after all sampling."""
    path: PathKey = ("metrics", name, "regex")
    whole = context.at(*path)
    try:
        re.compile(pattern)
    except re.error as error:
        position = error.pos or 0
        line = context.line(whole)
        # escapes and folded lines move characters, and the caret then marks the whole value
        literal = line[whole.column - 1 :][: whole.length].strip("'\"") == pattern
        context.sink.error(
            "E0413", f'the pattern of "{name}" cannot be read: {error.msg} at character {position + 1}',
            context.part(path, min(position, len(pattern) - 1), 1) if literal else whole,
            help="correct it; it is a regular expression of Python's re, and a literal text belongs under `contains:`",
        )  # fmt: skip
    except (OverflowError, RecursionError) as error:
        context.sink.error(
            "E0413", f'the pattern of "{name}" cannot be read: {error}', whole,
            help="shorten it, or write a smaller repetition",
        )  # fmt: skip


def _judged(context: Context, name: str, metric: JudgeMetric) -> None:
    """Check that the judge exists and its reply has the fields that the metric reads."""
    if not known(context, "judges", metric.judge, context.at("metrics", name, "judge")):
        return
    output = context.spec.judges[metric.judge].output
    for key, text in (("score", metric.score), ("keep", metric.keep)):
        if text is None:
            continue
        place = context.at("metrics", name, key)
        found = Comparison.parse(text)
        if found is not None and key == "keep" and found.operator is None and output.get(found.field, "bool") != "bool":
            context.sink.error(
                "E0317", f"`keep` needs a threshold: {found.field} is a score of {output[found.field]}", place,
                help=f"write a comparison with an integer, such as `{found.field} >= 50`",
            )  # fmt: skip
        elif found is None:
            context.sink.error(
                "E0317", f"`{key}` cannot be read: {text}", place,
                help="write a field of the judge's reply, or a comparison with an integer such as `coherent < 50`",
            )  # fmt: skip
        elif found.field not in output:
            context.sink.error(
                "E0318", f'judge "{metric.judge}" does not reply with "{found.field}"', context.within(place, found.field),
                help=did_you_mean(found.field, output),
            )  # fmt: skip
        elif found.operator is not None and output[found.field] == "bool":
            context.sink.error(
                "E0317", f"{found.field} is true or false, and cannot be compared with a number", place,
                help=f"write `{key}: {found.field}`",
            )  # fmt: skip
