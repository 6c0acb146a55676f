"""Judges that answer on this machine: their patterns and functions are read, and never run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

METRIC = "metrics: {seen: {of: first, judge: local, score: polite, better: higher, missing: fail}}"
FLAGS = "judges: {local: {provider: patterns, output: {polite: bool}, patterns: {polite: '(?i)please'}}}\n" + METRIC


def flags(output: str, patterns: str) -> str:
    return f"judges: {{local: {{provider: patterns, output: {{{output}}}, patterns: {{{patterns}}}}}}}\n{METRIC}"


@pytest.mark.parametrize(
    ("fragment", "code", "said"),
    [
        (FLAGS, None, ""),
        (flags("polite: bool, long: bool", "polite: a"), "E0856", 'no pattern of "local" answers "long"'),
        (flags("polite: bool, long: bool", "polite: a, lng: b"), "E0856", 'did you mean "lng"?'),
        (flags("polite: bool", "polite: a, polit: b"), "E0856", 'did you mean "polite"?; or add `polit: bool`'),
        (flags("polite: 0..5", "polite: a"), "E0856", '"polite" is a score of 0..5'),
        (flags("polite: bool", "polite: 'pl(ease'"), "E0857", "at character 3"),
        (flags("polite: bool", "polite: '[z-a]'"), "E0857", "bad character range"),
        (flags("polite: bool", "polite: 'a{99999999999}'"), "E0857", "write a smaller repetition"),
        (flags("polite: 5..1", "polite: a"), "E0845", "holds nothing"),
    ],
)  # fmt: skip
def test_patterns(over: Callable[..., Any], fragment: str, code: str | None, said: str) -> None:
    compiled = over(fragment)
    found = [one for one in compiled.codes if one.startswith("E")]
    assert (code in found) if code else not found, compiled.text
    assert said in compiled.text


def function(named: str = "judges/words.py:count") -> str:
    return (
        f"judges: {{local: {{provider: python, output: {{polite: bool, words: 0..9}}, function: '{named}'}}}}\n{METRIC}"
    )


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("def count(question, answer):\n    return {'polite': True, 'words': 1}", None, ""),
        ("def count(q, a, /):\n    return made(a)", None, ""),
        ("def count(question, answer, more=1, *, least=0):\n    return {}  | made", None, ""),
        ("def count(*texts):\n    return dict(polite=True)", None, ""),
        ("def count(question, answer):\n    def inner():\n        return {'x': 1}\n    return {'polite': 1, 'words': 2}", None, ""),
        ("def count(question, answer):\n    return {**made, 'x': 1}", None, ""),
        ("def cout(question, answer):\n    return {}", "E0858", 'did you mean "cout"?'),
        ("count = len", "E0858", "write def count(question, answer): ... in it"),
        ("class A:\n    def count(self, question, answer):\n        pass", "E0858", "defines no function count"),
        ("async def count(question, answer):\n    pass", "E0858", "count is async"),
        ("def count(answer):\n    pass", "E0858", "takes 1 argument,"),
        ("def count(a, b, c):\n    pass", "E0858", "takes 3 arguments,"),
        ("def count(a, b, *, c):\n    pass", "E0858", "must be given c by name"),
        ("def count(:\n", "E0858", "is no Python that can be read"),
        ("x = '\0'\n", "E0858", "is no Python that can be read"),
        ("def count(a, b):\n    if a:\n        return {'polite': True}\n    return {}", "E0856", "lacks words"),
        ("def count(a, b):\n    return {'polite': 1, 'words': 2, 'more': 3}", "E0856", "has more in addition"),
    ],
)  # fmt: skip
def test_a_function(over: Callable[..., Any], source: str, code: str | None, said: str) -> None:
    compiled = over(function(), ("judges/words.py", source + "\n"))
    found = [one for one in compiled.codes if one.startswith("E")]
    assert (code in found) if code else not found, compiled.text
    assert said in compiled.text


def test_a_function_is_never_run(over: Callable[..., Any], tmp_path: Path) -> None:
    mark = tmp_path / "was run"
    source = f"open({str(mark)!r}, 'w')\n\n\ndef count(question, answer):\n    return {{'polite': True, 'words': 1}}\n"
    compiled = over(function(), ("judges/words.py", source))
    assert compiled.plan is not None, compiled.text
    assert compiled.files["inputs/judges/words.py"] == source
    assert not mark.exists()


@pytest.mark.parametrize(
    ("named", "code"),
    [("judges/none.py:count", "E0401"), ("/judges/words.py:count", "E0404"), ("judges/words.py", "E0205"), ("words:count", "E0205")],
)  # fmt: skip
def test_a_file_that_is_not_there(over: Callable[..., Any], named: str, code: str) -> None:
    compiled = over(function(named), ("judges/words.py", "def count(a, b):\n    return {'polite': 1, 'words': 1}\n"))
    assert [one for one in compiled.codes if one.startswith("E")] == [code], compiled.text


def test_a_judge_that_no_metric_reads_is_unused(over: Callable[..., Any]) -> None:
    compiled = over("judges: {local: {provider: patterns, output: {polite: bool}, patterns: {polite: please}}}")
    assert compiled.codes == ["W1301"], compiled.text


def test_local_judges_cost_nothing(over: Callable[..., Any]) -> None:
    before, after = over(""), over(FLAGS)
    for figure in ("judge_calls", "usd", "judge_input_tokens_at_most", "judge_output_tokens"):
        assert after.plan.figures.values[figure] == before.plan.figures.values[figure]
    assert "match 7,800 completions with the patterns of local" in after.files["plan.md"]
