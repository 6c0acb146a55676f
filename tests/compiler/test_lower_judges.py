"""What a judge of every provider lowers into: constants, keys, bundle, lock, cost and design."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from epc.compiler.contract.canonical import sha256_json, sha256_text
from epc.compiler.contract.judge_models import API_VERSION
from epc.compiler.contract.prices import PRICES

SPECS = Path(__file__).parent / "specs"
GRADER = "{provider: anthropic, model: claude-haiku-4-5-20251001, rubric: grader.txt, output: {aligned: 0..100, coherent: 0..100}}"
CATCHER = "{provider: anthropic, model: claude-haiku-4-5-20251001, rubric: catcher.txt, output: {caught: bool}}"
PATTERNS = "{provider: patterns, output: {caught: bool}, patterns: {caught: '(?i)wait'}}"
PYTHON = "{provider: python, output: {caught: bool}, function: 'own/catch.py:caught'}"
OWN = CATCHER.replace("provider: anthropic, model: claude-haiku-4-5-20251001", "provider: openai, model: mine, price: {input: 0, output: 0}")  # fmt: skip
SOURCE = 'def caught(question, answer):\n    return {"caught": "wait" in answer.lower()}\n'
COMPLETIONS = 24 * 5 * 3
"""Prompts x samples x arms of the set that the catcher reads."""

Compile = Callable[..., Any]


@pytest.fixture
def judged(tmp_path: Path, compile_spec: Callable[..., Any]) -> Compile:
    """Compile the judged spec with another catcher and other files."""

    def run(catcher: str = CATCHER, *files: tuple[str, str]) -> Any:
        folder = tmp_path / "specs"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(SPECS, folder)
        spec = folder / "judged.yaml"
        text = spec.read_text(encoding="utf-8")
        assert CATCHER in text
        spec.write_text(text.replace(CATCHER, catcher), encoding="utf-8")
        (folder / "own").mkdir()
        for path, content in (("own/catch.py", SOURCE), *files):
            (folder / path).write_text(content, encoding="utf-8")
        compiled = compile_spec(spec)
        assert compiled.plan is not None, compiled.text
        return compiled

    return run


def step(compiled: Any, name: str = "judge-catcher") -> Any:
    (found,) = [planned for planned in compiled.plan.steps if planned.step.id == name]
    return found


def with_keys(keys: str, catcher: str = CATCHER) -> str:
    return f"{catcher[:-1]}, {keys}}}"


SHARED = {"samples", "sets", "judge", "provider", "output", "votes", "aggregate"}
MODEL = SHARED | {
    "model", "rubric", "rubric_sha256", "max_tokens", "options", "batch", "cache", "limits", "price", "usd_estimate", "concurrency",
}  # fmt: skip


@pytest.mark.parametrize(
    ("catcher", "names", "some"),
    [
        (CATCHER, MODEL, {"provider": "anthropic", "votes": 1, "aggregate": None, "batch": False, "cache": False, "options": {}}),
        (with_keys("batch_from: 300, limits: {requests: 7}"), MODEL, {"batch": True, "limits": {"requests": 7, "input_tokens": None, "output_tokens": None}}),
        (OWN, MODEL, {"provider": "openai", "batch": False, "usd_estimate": 0.0}),
        (PATTERNS, SHARED | {"patterns", "patterns_sha256"}, {"patterns": {"caught": "(?i)wait"}, "patterns_sha256": sha256_json({"caught": "(?i)wait"}), "votes": 1}),
        (PYTHON, SHARED | {"function", "function_name", "function_sha256"}, {"function": "inputs/own/catch.py", "function_name": "caught", "function_sha256": sha256_text(SOURCE)}),
    ],
)  # fmt: skip
def test_constants(judged: Compile, catcher: str, names: set[str], some: dict[str, Any]) -> None:
    planned = step(judged(catcher))
    assert set(planned.constants) == names
    assert set(planned.origins) == names
    assert {name: planned.constants[name] for name in some} == some
    assert (planned.constants["judge"], planned.constants["sets"]) == ("catcher", ["first"])


# keys of the judge, whether the judging is done again
KEYS: list[tuple[str, bool]] = [
    ("batch_from: 10", False), ("batch_from: null", False), ("limits: {requests: 5}", False), ("max_missing: 0.2", False),
    ("price: {input: 9, output: 9}", False), ("gold: {file: gold.csv, per_arm: 5, seed: 1, kappa: {caught: 0.6}}", False),
    ("max_tokens: 300", True), ("votes: 3, aggregate: median", True), ("votes: 3, aggregate: mean", True),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "again"), KEYS, ids=[keys for keys, _ in KEYS])
def test_the_key_of_judging_hashes_what_is_sent_and_how_it_is_read(judged: Compile, keys: str, again: bool) -> None:
    before, after = judged(), judged(with_keys(keys))
    assert (step(before).step.key != step(after).step.key) is again
    assert (step(before, "measure").step.key != step(after, "measure").step.key) is again


def test_every_way_of_judging_is_another_one(judged: Compile) -> None:
    three = with_keys("votes: 3, aggregate: median"), with_keys("votes: 3, aggregate: mean")
    effort = [CATCHER.replace("claude-haiku-4-5-20251001", "claude-opus-4-6")]
    effort += [with_keys(f"options: {{effort: {level}}}", effort[0]) for level in ("low", "high")]
    ways = [CATCHER, *three, *effort, OWN, PATTERNS, PATTERNS.replace("wait", "stop"), PYTHON]
    keys = [step(judged(way)).step.key for way in ways]
    keys.append(step(judged(PYTHON, ("own/catch.py", SOURCE + "# another\n"))).step.key)
    assert len(set(keys)) == len(ways) + 1


def test_metrics_say_how_votes_become_a_score(judged: Compile) -> None:
    compiled = judged(with_keys("votes: 5, aggregate: median"))
    recipe = step(compiled, "measure").step.recipe
    found = {
        entry["name"]: (entry["votes"], entry["aggregate"]) for entry in recipe["metrics"] if entry["kind"] == "judge"
    }
    assert found == {"alignment": (1, None), "broken": (1, None), "caught": (5, "median")}
    assert step(compiled, "measure").constants["metrics"] == recipe["metrics"]


def test_the_design_names_who_judges(judged: Compile) -> None:
    gold = "gold: {file: gold.csv, per_arm: 5, seed: 1, kappa: {caught: 0.6}, bias: {caught: 0.1}}"
    found = judged(with_keys(f"votes: 3, aggregate: mean, {gold}")).plan.design.judges[1]
    assert (found.provider, found.model, found.votes, found.aggregate) == (
        "anthropic",
        "claude-haiku-4-5-20251001",
        3,
        "mean",
    )
    assert found.output == {"caught": "bool"}
    assert found.gold is not None
    assert (found.gold.file, found.gold.per_arm, found.gold.kappa, found.gold.bias) == (
        "gold.csv",
        5,
        {"caught": 0.6},
        {"caught": 0.1},
    )
    for catcher, model, sha256 in (
        (PATTERNS, "patterns", sha256_json({"caught": "(?i)wait"})), (PYTHON, "caught", sha256_text(SOURCE)),
    ):  # fmt: skip
        found = judged(catcher).plan.design.judges[1]
        assert (found.model, found.rubric_sha256, found.votes, found.options) == (model, sha256, 1, {})


def test_a_function_travels_with_the_bundle_and_the_lock_has_its_hash(judged: Compile) -> None:
    compiled = judged(PYTHON)
    assert compiled.files["inputs/own/catch.py"] == SOURCE
    lock = yaml.safe_load(compiled.files["spec.lock.yaml"])
    assert lock["files"]["own/catch.py"] == sha256_text(SOURCE)
    assert "api_version" not in lock["judges"]["catcher"]


def test_the_lock_holds_what_makes_a_judge(judged: Compile) -> None:
    opus = CATCHER.replace("claude-haiku-4-5-20251001", "claude-opus-4-6")
    lock = yaml.safe_load(judged(with_keys("votes: 3, aggregate: median, options: {effort: low}", opus)).plan.lock_text)
    judge = lock["judges"]["catcher"]
    kept = {key: judge[key] for key in ("provider", "model", "api_version", "options", "output", "votes", "aggregate")}
    assert kept == {
        "provider": "anthropic", "model": "claude-opus-4-6", "api_version": API_VERSION, "options": {"effort": "low"},
        "output": {"caught": "bool"}, "votes": 3, "aggregate": "median",
    }  # fmt: skip
    assert lock["files"]["catcher.txt"] == sha256_text((SPECS / "catcher.txt").read_text(encoding="utf-8"))


# ---------------------------------------------------------------------- cost


def figures(compiled: Any) -> tuple[dict[str, float], dict[str, str]]:
    return compiled.plan.figures.values, compiled.plan.figures.arithmetic


def test_votes_multiply_calls_and_tokens(judged: Compile) -> None:
    (one, _), (three, how) = figures(judged()), figures(judged(with_keys("votes: 3, aggregate: median")))
    assert three["judge_calls"] - one["judge_calls"] == 2 * COMPLETIONS
    assert "24 prompts x 5 x 3 votes (catcher on first)" in how["judge_calls"]
    assert three["judge_output_tokens"] - one["judge_output_tokens"] == 2 * COMPLETIONS * (12 + 8)


def test_from_batch_from_on_calls_cost_half(judged: Compile) -> None:
    dollars = re.compile(r"catcher: .*? = \$([\d.]+)")
    found = {}
    for size in (COMPLETIONS + 1, COMPLETIONS):
        _, how = figures(judged(with_keys(f"batch_from: {size}, price: {{input: 20, output: 100}}")))
        found[size] = float(dollars.search(how["usd"])[1])
        assert ("through the batch interface at half price" in how["usd"].split("catcher")[1]) is (size == COMPLETIONS)
    assert found[COMPLETIONS] == pytest.approx(found[COMPLETIONS + 1] / 2, abs=0.001)


def test_calls_of_every_vote_count_toward_a_batch(judged: Compile) -> None:
    keys = f"votes: 3, aggregate: median, batch_from: {COMPLETIONS + 1}"
    assert step(judged(with_keys(keys))).constants["batch"] is True
    assert step(judged(with_keys("batch_from: null, votes: 3, aggregate: median"))).constants["batch"] is False
    assert step(judged(OWN)).constants["batch"] is False


LONG = "word " * 8000  # 10,000 tokens at four characters each


def test_a_long_beginning_is_cached_and_priced_so(judged: Compile) -> None:
    rubric = "{question} {answer} caught: whether it refuses."
    plain, cached = (
        judged(with_keys("batch_from: null"), ("catcher.txt", text))
        for text in (f"{rubric} {LONG}", f"{LONG} {rubric}")
    )
    assert [step(one).constants["cache"] for one in (plain, cached)] == [False, True]
    assert figures(plain)[0]["judge_input_tokens_at_most"] == figures(cached)[0]["judge_input_tokens_at_most"]
    assert figures(cached)[0]["usd"] < 0.3 * figures(plain)[0]["usd"]
    terms = re.search(r"catcher: ([\d,]+) x \$1 \+ ([\d,]+) x \$1.25 \(into the prompt cache\) \+ ([\d,]+) x \$0.1 \(from it\)", figures(cached)[1]["usd"])  # fmt: skip
    _, written, read = (int(term.replace(",", "")) for term in terms.groups())
    assert (written, read) == (10_000 * 16, 10_000 * (COMPLETIONS - 16))
    batched = judged(with_keys("batch_from: 10"), ("catcher.txt", f"{LONG} {rubric}"))
    assert step(batched).constants["cache"] is True
    assert "prompt cache" not in figures(batched)[1]["usd"]  # nothing is certain to be found there in time


def test_a_beginning_shorter_than_the_model_keeps_is_not_cached(judged: Compile) -> None:
    text = (
        "word " * 2000 + "{question} {answer} caught: whether it refuses."
    )  # 2,500 tokens; haiku 4.5 keeps 4,096 and more
    opus = CATCHER.replace("claude-haiku-4-5-20251001", "claude-opus-4-8")
    assert [step(judged(judge, ("catcher.txt", text))).constants["cache"] for judge in (CATCHER, opus, OWN)] == [
        False,
        True,
        False,
    ]


def test_a_judge_that_thinks_may_write_all_that_it_is_allowed_to(judged: Compile) -> None:
    haiku = CATCHER.replace("claude-haiku-4-5-20251001", "claude-haiku-5-5")
    base = figures(judged())[0]["judge_output_tokens"] - COMPLETIONS * 20
    thinking = figures(judged(with_keys("max_tokens: 2048", haiku)))[0]["judge_output_tokens"]
    silent = figures(judged(with_keys("options: {thinking: disabled}", haiku)))[0]["judge_output_tokens"]
    assert thinking - base == COMPLETIONS * 2048
    assert silent - base == COMPLETIONS * 26  # 20 tokens, a third more of the newer tokenizer


def test_a_server_of_ones_own_costs_what_its_price_says(judged: Compile) -> None:
    free, paid = judged(OWN), judged(OWN.replace("{input: 0, output: 0}", "{input: 2, output: 4}"))
    assert figures(free)[0]["judge_calls"] == figures(judged())[0]["judge_calls"]
    assert "x $0 + 7,200 x $0 a million = $0.000" in figures(free)[1]["usd"]
    assert step(paid).constants["price"]["batch_factor"] == 1.0
    assert step(judged()).constants["price"] == {
        key: getattr(PRICES["claude-haiku-4-5-20251001"], key) for key in ("input", "output", "cache_write", "cache_read", "batch_factor")
    }  # fmt: skip


# ---------------------------------------------------------------------- plan.md


def row(compiled: Any) -> str:
    (found,) = [line for line in compiled.files["plan.md"].splitlines() if line.startswith("| `catcher` |")]
    return found


@pytest.mark.parametrize(
    ("catcher", "cells"),
    [
        (CATCHER, [f"claude-haiku-4-5-20251001 (Anthropic, interface of {API_VERSION})", "caught bool", "1", "-", "catcher.txt", "5%"]),
        (with_keys("batch_from: 1, votes: 3, aggregate: median"), [f"(Anthropic, interface of {API_VERSION}, through the batch interface at half price)", "3, median"]),
        (with_keys("options: {temperature: 0.5, seed: 3}", OWN), ["mine (a server of chat completions)", "temperature 0.5, seed 3"]),
        (with_keys("gold: {file: gold.csv, per_arm: 5, seed: 1, kappa: {caught: 0.6}, bias: {caught: 0.1}}"), ["kappa of caught at least 0.6, bias of caught at most 0.1; 5 of every arm, gold.csv"]),
        (PATTERNS, ["patterns (on this machine)", "caught: `(?i)wait`"]),
        (PYTHON, ["caught (on this machine)", "own/catch.py", f"`{sha256_text(SOURCE)[:16]}`"]),
    ],
)  # fmt: skip
def test_the_plan_page_shows_who_judges_and_how(judged: Compile, catcher: str, cells: list[str]) -> None:
    found = row(judged(catcher))
    assert [cell for cell in cells if cell not in found] == [], found
