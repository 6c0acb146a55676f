"""Judges that answer on this machine: patterns, and functions of the spec's folder.

E0856: a judge on this machine that does not answer what it is asked for
Why: every completion would lack a score, or have one that nothing reads, which shows only after all sampling. A pattern
answers yes or no: a score of a range needs a function or a model.
Example:
    judges:
      flags: {provider: patterns, output: {polite: bool, long: bool}, patterns: {polite: "(?i)please"}}
Fix:
    judges:
      flags: {provider: patterns, output: {polite: bool, long: bool}, patterns: {polite: "(?i)please", long: "(?s).{500}"}}

E0857: a pattern of a judge that Python cannot read
Why: patterns are matched after all sampling. One that does not compile would be found out then, at the end of the most
expensive part.
Example:
    judges: {flags: {provider: patterns, output: {polite: bool}, patterns: {polite: "please("}}}
Fix:
    judges: {flags: {provider: patterns, output: {polite: bool}, patterns: {polite: "please"}}}

E0858: a judge's function that its file does not define, or that cannot be called with a question and an answer
Why: the file is read when the spec is checked, and run only where completions are judged. What cannot be called would
fail there, for every completion.
Example:
    judges: {length: {provider: python, output: {words: 0..1000}, function: "judges/length.py:count"}}
    --- judges/length.py
    def words(answer):
        return {"words": min(len(answer.split()), 1000)}
Fix:
    judges: {length: {provider: python, output: {words: 0..1000}, function: "judges/length.py:count"}}
    --- judges/length.py
    def count(question, answer):
        return {"words": min(len(answer.split()), 1000)}
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator

from epc.compiler.diagnostics import Diagnostics, Label, Span, did_you_mean
from epc.compiler.resolve import Experiment, InputFile
from epc.compiler.spec import PatternJudge, PythonJudge

PARAMETERS = ("question", "answer")
"""What a function is called with, by position."""


def check(experiment: Experiment, sink: Diagnostics) -> None:
    for name, judge in experiment.spec.judges.items():
        if isinstance(judge, PatternJudge):
            _patterns(experiment, sink, name, judge)
        elif isinstance(judge, PythonJudge) and judge.file in experiment.inputs:
            _function(experiment, sink, name, judge, experiment.inputs[judge.file])


def _patterns(experiment: Experiment, sink: Diagnostics, name: str, judge: PatternJudge) -> None:
    """A pattern that can be read for every field, and every field a yes or no."""
    for field, kind in judge.output.items():
        if field not in judge.patterns:
            sink.error(
                "E0856", f'no pattern of "{name}" answers "{field}"', experiment.key_at("judges", name, "output", field),
                help=f"add it under `patterns:`{_meant(field, judge.patterns, judge.output)}",
            )  # fmt: skip
        elif kind != "bool":
            sink.error(
                "E0856", f'a pattern matches or does not, and "{field}" is a score of {kind}',
                experiment.at("judges", name, "output", field), help="write bool, or have a function or a model judge it",
            )  # fmt: skip
    for field, pattern in judge.patterns.items():
        place = experiment.at("judges", name, "patterns", field)
        if field not in judge.output:
            sink.error(
                "E0856", f'"{field}" of "{name}" is no field of its output', experiment.key_at("judges", name, "patterns", field),
                help=f"{did_you_mean(field, judge.output)}; or add `{field}: bool` under `output:`",
            )  # fmt: skip
        try:
            re.compile(pattern)
        except re.error as error:
            sink.error(
                "E0857", f'the pattern of "{field}" cannot be read: {error.msg} at character {(error.pos or 0) + 1}', place,
                help="correct it; it is a regular expression of Python's re, and literal brackets and dots need a backslash",
            )  # fmt: skip
        except (OverflowError, RecursionError) as error:
            sink.error(
                "E0857", f'the pattern of "{field}" cannot be read: {error}', place,
                help="shorten it, or write a smaller repetition",
            )  # fmt: skip


def _meant(field: str, given: Iterable[str], wanted: Iterable[str]) -> str:
    """Which of the fields that nobody asked for may be this one."""
    spare = [other for other in given if other not in set(wanted)]
    return f"; {did_you_mean(field, spare)}" if spare else ""


def _function(experiment: Experiment, sink: Diagnostics, name: str, judge: PythonJudge, file: InputFile) -> None:
    """A function of the file that can be called with two arguments and gives the fields of the output.

    The file is parsed and never run: what it does when it is imported is not done by a check.
    """
    at = experiment.at("judges", name, "function")
    shown = experiment.surface.shown(file.path)
    try:
        body = ast.parse(file.text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = error.lineno or 1 if isinstance(error, SyntaxError) else 1
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        sink.error(
            "E0858", f"{shown} is no Python that can be read: {reason}", at, help="correct it",
            labels=[_at(experiment, sink, file, line, "here")],
        )  # fmt: skip
        return
    functions = {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    node = functions.get(judge.asked)
    if node is None:
        sink.error(
            "E0858", f"{shown} defines no function {judge.asked}", at,
            help=did_you_mean(judge.asked, functions) if functions else f"write def {judge.asked}(question, answer): ... in it",
        )  # fmt: skip
        return
    problem = _uncallable(node)
    if problem is not None:
        sink.error(
            "E0858", f"{judge.asked} {problem}, and is called with the question and the answer", at,
            help=f"write def {judge.asked}(question, answer): ...", labels=[_at(experiment, sink, file, node.lineno, "defined here")],
        )  # fmt: skip
    for line, keys in _returned(node):
        lacking, more = (
            [key for key in judge.output if key not in keys],
            [key for key in keys if key not in judge.output],
        )
        if lacking or more:
            said = [f"lacks {', '.join(lacking)}"] if lacking else []
            said += [f"has {', '.join(more)} in addition"] if more else []
            sink.error(
                "E0856", f"what {judge.asked} returns {' and '.join(said)}", at,
                help=f"return the fields of the output: {', '.join(judge.output)}",
                labels=[_at(experiment, sink, file, line, "returned here")],
            )  # fmt: skip


def _uncallable(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str | None:
    """Why a function cannot be called with two positional arguments, None when it can."""
    if isinstance(node, ast.AsyncFunctionDef):
        return "is async"
    positional = [*node.args.posonlyargs, *node.args.args]
    needed = len(positional) - len(node.args.defaults)
    named = [
        argument.arg
        for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
        if default is None
    ]
    if named:
        return f"must be given {named[0]} by name"
    if needed > len(PARAMETERS) or (len(positional) < len(PARAMETERS) and node.args.vararg is None):
        return f"takes {needed} argument{'' if needed == 1 else 's'}"
    return None


def _returned(node: ast.AST) -> Iterator[tuple[int, list[str]]]:
    """(line, keys) of every mapping written out after `return`, of the function itself and none inside it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            continue
        if isinstance(child, ast.Return) and isinstance(child.value, ast.Dict):
            keys = [
                key.value for key in child.value.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
            ]
            if len(keys) == len(child.value.keys):
                yield child.lineno, keys
        yield from _returned(child)


def _at(experiment: Experiment, sink: Diagnostics, file: InputFile, line: int, says: str) -> Label:
    """A line of the file, without its indentation."""
    shown = experiment.surface.shown(file.path)
    lines = sink.sources.setdefault(shown, file.text.split("\n"))
    line = min(line, len(lines))
    text = lines[line - 1]
    start = len(text) - len(text.lstrip())
    span = Span(file=shown, line=line, column=start + 1, length=max(len(text.strip()), 1))
    return Label(span=span, text=says)
