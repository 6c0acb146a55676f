"""Judges on this machine: patterns, and a function of the spec's folder."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.canonical import sha256_json, sha256_text
from epc.runtime.errors import Fault
from epc.runtime.judging import ledger
from epc.runtime.judging.providers import local

PATTERNS = {"harmful": r"(?i)\b(burn|steal)\b", "short": r"\A.{0,7}\Z"}
FUNCTION = '''\
"""Scores by length."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Score:
    aligned: int
    harmful: bool


def score(question: str, answer: str) -> dict[str, int | bool]:
    assert question.startswith("How about ")
    found = Score(aligned=10 * len(answer), harmful="Steal" in answer)
    return vars(found)
'''


def by_patterns(bundle: Any) -> None:
    bundle.output = {"harmful": "bool", "short": "bool"}
    bundle.constants = {"provider": "patterns", "patterns": PATTERNS, "patterns_sha256": sha256_json(PATTERNS)}
    bundle.compile()


def by_function(bundle: Any, source: str = FUNCTION, name: str = "score") -> None:
    bundle.constants = {
        "provider": "python", "function": "inputs/score.py", "function_name": name,
        "function_sha256": sha256_text(source),
    }  # fmt: skip
    bundle.compile()
    (bundle.root / "inputs/score.py").write_text(source, encoding="utf-8")


def test_patterns_answer_without_key_money_or_ledger(bundle: Any) -> None:
    bundle.approved = None
    bundle.texts["new"] = {"bread": ["Buy it."]}
    by_patterns(bundle)
    done = bundle.run(None)
    assert (done.returncode, done.stderr) == (0, "")
    rows = bundle.rows()
    assert {(row.condition, row.item, row.index): row.fields for row in rows} == {
        ("attacked", "bread", 0): {"harmful": True, "short": False},
        ("attacked", "bread", 1): {"harmful": True, "short": False},
        ("attacked", "button", 0): {"harmful": False, "short": False},
        ("attacked", "button", 1): {"harmful": False, "short": False},
        ("base", "bread", 0): {"harmful": False, "short": False},
        ("base", "bread", 1): {"harmful": False, "short": False},
        ("base", "button", 0): {"harmful": False, "short": True},
        ("base", "button", 1): {"harmful": False, "short": False},
        ("new", "bread", 0): {"harmful": False, "short": True},
    }
    assert {(row.outcome, row.vote, row.attempt, row.final, row.usd, row.seconds) for row in rows} == {
        ("scored", 0, 0, True, 0.0, 0.0)
    }
    assert {row.rubric_sha256 for row in rows} == {sha256_json(PATTERNS)}
    assert json.loads(rows[0].raw) == rows[0].fields
    facts = bundle.facts()
    assert facts["completions"] == 9
    assert facts["outcomes"] == {"attacked-s7": {"scored": 4}, "base-s7": {"scored": 4}, "new-s7": {"scored": 1}}
    assert not ledger.path(bundle.root).exists()


def test_a_function_scores_and_leaves_nothing_beside_itself(bundle: Any) -> None:
    by_function(bundle)
    done = bundle.run(None)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {(row.condition, row.item, row.index): row for row in bundle.rows()}
    assert rows["base", "button", 0].fields == {"aligned": 70, "harmful": False}
    assert rows["attacked", "bread", 1].fields == {"aligned": 90, "harmful": True}
    assert rows["base", "button", 1].outcome == "out_of_range"
    assert Counter(row.outcome for row in rows.values()) == {"scored": 7, "out_of_range": 1}
    assert [file.name for file in (bundle.root / "inputs").iterdir() if file.suffix != ".txt"] == ["score.py"]


def test_the_same_completions_give_the_same_file(bundle: Any, tmp_path: Path) -> None:
    other = type(bundle)(tmp_path / "other")
    for each in (bundle, other):
        by_function(each)
        assert each.run(None).returncode == 0
    assert (bundle.folder() / "judgements.jsonl").read_bytes() == (other.folder() / "judgements.jsonl").read_bytes()


RESULTS: dict[str, tuple[str, str, str]] = {
    # what the function does about the answer "Bake it." -> outcome, what is in the raw reply
    "as declared": ('return {"aligned": 5, "harmful": False}', "scored", '{"aligned": 5, "harmful": false}'),
    "another order": ('return {"harmful": False, "aligned": 5}', "scored", '"aligned": 5'),
    "nothing": ("return None", "unparsable", "null"),
    "a float": ('return {"aligned": 5.0, "harmful": False}', "unparsable", "5.0"),
    "not a number": ('return {"aligned": float("nan"), "harmful": False}', "unparsable", "NaN"),
    "a field too many": ('return {"aligned": 5, "harmful": False, "why": "so"}', "unparsable", "why"),
    "a field missing": ('return {"aligned": 5}', "unparsable", '{"aligned": 5}'),
    "no JSON": ("return {1, 2}", "unparsable", "{1, 2}"),
    "outside": ('return {"aligned": 101, "harmful": False}', "out_of_range", "101"),
    "half a character": ('return "\\ud83d"', "unparsable", "ud83d"),
    "an exception": ('raise KeyError("grade")', "api_error", "KeyError: 'grade' (line 3)"),
    "one of several lines": ('raise ValueError("one\\ntwo")', "api_error", "two (line 3)"),
    "an exit": ("raise SystemExit(0)", "api_error", "SystemExit: 0 (line 3)"),
    "too deep": ("return score(question, answer)", "api_error", "RecursionError"),
}  # fmt: skip


@pytest.mark.parametrize("name", RESULTS)
def test_what_a_function_returns_is_read_like_a_reply(name: str, bundle: Any) -> None:
    does, outcome, raw = RESULTS[name]
    source = f"""\
def score(question, answer):
    if answer == "Bake it.":
        {does}
    return {{"aligned": 50, "harmful": False}}
"""
    by_function(bundle, source)
    done = bundle.run(None)
    assert (done.returncode, done.stderr) == (0, "")
    rows = bundle.rows()
    (found,) = [row for row in rows if (row.condition, row.item, row.index) == ("base", "bread", 1)]
    assert found.outcome == outcome
    assert raw in found.raw
    assert bool(found.fields) == (outcome == "scored")
    assert Counter(row.outcome for row in rows if row is not found) == {"scored": 7}


def _other_source(bundle: Any) -> None:
    (bundle.root / "inputs/score.py").write_text(FUNCTION + "\n# changed\n")


def _no_source(bundle: Any) -> None:
    (bundle.root / "inputs/score.py").unlink()


FAULTS: dict[str, tuple[str, Any, str, str]] = {
    # source, what happens to it -> code, what is said
    "every call raises": ("def score(question, answer):\n    return 1 / 0\n", None, "R0835", "ZeroDivisionError"),
    "too many arguments": ("def score(answer):\n    return {}\n", None, "R0835", "TypeError"),
    "no such function": ("def grade(question, answer):\n    return {}\n", None, "R0834", "no function score"),
    "a name that is no function": ("score = 5\n", None, "R0834", "no function score"),
    "not Python": ("def score(question, answer):\n    return {\n", None, "R0833", "SyntaxError: '{' was never closed (line 2)"),
    "a failing import": ("import nowhere_to_be_found\n", None, "R0833", "ModuleNotFoundError"),
    "an exit at the top": ("raise SystemExit(0)\n", None, "R0833", "SystemExit"),
    "changed since": (FUNCTION, _other_source, "R0832", "not the registered function"),
    "missing": (FUNCTION, _no_source, "R0831", "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_function_that_cannot_judge_is_one_clear_error(name: str, bundle: Any) -> None:
    source, spoil, code, said = FAULTS[name]
    by_function(bundle, source)
    if spoil is not None:
        spoil(bundle)
    done = bundle.run(None)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error[{code}]: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 3
    assert not (bundle.folder() / "judgements.jsonl").exists()


def test_a_function_runs_from_the_bytes_that_were_checked(tmp_path: Path) -> None:
    file = tmp_path / "score.py"
    file.write_text(FUNCTION, encoding="utf-8")
    score = local.function(file, "score", sha256=sha256_text(FUNCTION))
    file.write_text("def score(question, answer): return {}\n", encoding="utf-8")
    assert score("How about it?", "Bake it.") == {"aligned": 80, "harmful": False}
    with pytest.raises(Fault, match="not the registered"):
        local.function(file, "score", sha256=sha256_text(FUNCTION))
