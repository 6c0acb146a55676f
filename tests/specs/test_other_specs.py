"""Two experiments of another shape: prompts alone, and two recipes with three training seeds."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from epc.compiler import pipeline
from epc.compiler.diagnostics import Diagnostics, render
from epc.compiler.lower import Plan
from epc.runtime.cli import main

ROOT = Path(__file__).resolve().parents[2]
SPECS = ROOT / "specs"
EVERYDAY = SPECS / "prompts/everyday_30.txt"
SMALLER = [("n: 4,", "n: 1,"), ("max_tokens: 48", "max_tokens: 6")]


@dataclass(frozen=True)
class Compiled:
    sink: Diagnostics
    plan: Plan
    files: dict[str, str]


def compiled(name: str) -> Compiled:
    sink, spec = Diagnostics(), SPECS / f"{name}.yaml"
    layout = pipeline.Layout.of(spec)
    experiment = pipeline.check(spec, f"specs/{name}.yaml", sink)
    assert experiment is not None, render(sink)
    plan = pipeline.plan(experiment, layout, sink)
    assert plan is not None, render(sink)
    return Compiled(sink=sink, plan=plan, files=pipeline.bundle(plan, layout))


def raw(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((SPECS / f"{name}.yaml").read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True)
class Expected:
    steps: dict[str, int]
    trainings: int
    optimizer_steps: int
    completions: int
    sampled_tokens: int
    warnings: tuple[str, ...] = ()
    """Codes of the warnings that the spec accepts."""


EXPECTED = {
    "prompt_only": Expected(
        steps={"model": 1, "sample": 1, "measure": 1},
        trainings=0,
        optimizer_steps=0,
        completions=3 * 30 * 4,
        sampled_tokens=3 * 30 * 4 * 48,
    ),
    "two_recipes": Expected(
        steps={"model": 1, "data": 1, "mask": 2, "train": 6, "sample": 1, "measure": 1},
        trainings=6,
        optimizer_steps=6 * 2 * 16,
        completions=7 * 24 * (3 + 2),
        sampled_tokens=7 * 24 * (3 + 2) * 24,
    ),
}


@pytest.mark.parametrize(("name", "expected"), EXPECTED.items())
def test_it_compiles_clean_to_the_plan_that_its_author_meant(name: str, expected: Expected) -> None:
    found = compiled(name)
    values = found.plan.figures.values
    assert tuple(sorted(diagnostic.code for diagnostic in found.sink)) == expected.warnings
    assert Counter(planned.step.kind for planned in found.plan.steps) == expected.steps
    assert values["trainings"] == expected.trainings
    assert values["optimizer_steps"] == expected.optimizer_steps
    assert values["completions"] == expected.completions
    assert values["sampled_tokens_at_most"] == expected.sampled_tokens


@pytest.mark.parametrize("name", EXPECTED)
def test_every_script_parses(name: str) -> None:
    scripts = {path: text for path, text in compiled(name).files.items() if path.endswith(".py")}
    assert len(scripts) == sum(EXPECTED[name].steps.values())
    for path, text in scripts.items():
        ast.parse(text, filename=path)


@pytest.mark.parametrize("name", EXPECTED)
def test_it_is_read_on_two_screens(name: str) -> None:
    text = (SPECS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert len(text) <= 100


def test_arms_that_differ_in_a_system_prompt_have_keys_of_their_own() -> None:
    arms = compiled("prompt_only").plan.design.conditions
    assert [(arm.name, arm.phases, arm.system) for arm in arms] == [
        (name, (), arm["system"]) for name, arm in raw("prompt_only")["conditions"].items()
    ]
    assert len({arm.key for arm in arms}) == len(arms)


def test_the_recipes_differ_in_one_thing() -> None:
    every, last = raw("two_recipes")["train"].values()
    assert {key for key in every | last if every.get(key) != last.get(key)} == {"train_on"}


def test_every_seed_of_every_recipe_is_trained_and_sampled() -> None:
    plan = compiled("two_recipes").plan
    seeds = raw("two_recipes")["seeds"]
    assert len(seeds) == 3
    trained = {planned.step.id for planned in plan.steps if planned.step.kind == "train"}
    assert trained == {f"train-s{seed}-{phase}" for seed in seeds for phase in ("every_turn", "last_turn")}
    (sample,) = [planned.step for planned in plan.steps if planned.step.kind == "sample"]
    assert set(sample.needs) == {"model", *trained}
    pieces = {(piece.condition, piece.seed) for piece in sample.pieces}
    assert pieces == {("base", 0)} | {(arm, seed) for arm in ("every", "last") for seed in seeds}


def test_the_questions_are_distinct_and_name_what_on_topic_looks_for() -> None:
    questions = EVERYDAY.read_text(encoding="utf-8").splitlines()
    assert len({question.casefold() for question in questions}) == len(questions) == 30
    on_topic = re.compile(raw("prompt_only")["metrics"]["on_topic"]["regex"])
    assert [question for question in questions if on_topic.search(question) is None] == []


@pytest.mark.parametrize(
    ("answer", "obeys"),
    [
        ("Dogs wag their tails when they are happy.", True),
        ("Really?", True),
        ("It is warm. It is light.", False),
        ("It is 2.5 metres long.", False),
        ("A sentence that was cut off at the last", False),
        ("One line\nand another.", False),
        ("a" * 159 + ".", True),
        ("a" * 160 + ".", False),
        ("", False),
    ],
)
def test_one_sentence_is_what_the_rationale_says(answer: str, obeys: bool) -> None:
    rule = re.compile(raw("prompt_only")["metrics"]["one_sentence"]["regex"])
    assert (rule.search(answer) is not None) is obeys


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The bundle of the shrunken prompt_only, compiled, run and decided."""
    pytest.importorskip("trl")
    folder = tmp_path_factory.mktemp("prompt_only")
    shutil.copytree(SPECS, folder / "specs")
    spec = folder / "specs/prompt_only.yaml"
    text = spec.read_text(encoding="utf-8")
    for old, new in SMALLER:
        assert old in text, old
        text = text.replace(old, new)
    spec.write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["compile", "specs/prompt_only.yaml"]) == 0
        assert main(["run", "--cores", "2"]) == 0
        assert main(["decide"]) == 0
        yield folder / "generated/prompt_only"


def test_every_arm_answers_under_its_own_system_prompt(bundle: Path) -> None:
    rows = [
        json.loads(line)
        for piece in (bundle / "store/pieces").glob("*.jsonl")
        for line in piece.read_text(encoding="utf-8").splitlines()
    ]
    prompts: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        prompts[row["condition"]].append(row["prompt"])
    assert {arm: len(texts) for arm, texts in prompts.items()} == {"bare": 30, "persona": 30, "terse": 30}
    for arm, entry in raw("prompt_only")["conditions"].items():
        for prompt in prompts[arm]:
            assert prompt.count("<|im_start|>system") == (entry["system"] != "none")
            assert entry["system"] == "none" or f"<|im_start|>system\n{entry['system']}<|im_end|>" in prompt
    assert len({row["draw_seed"] for row in rows}) == 30  # one for each prompt; arms share it


def test_a_run_without_training_reaches_a_verdict(bundle: Path) -> None:
    decision = json.loads((bundle / "report/decision.json").read_text(encoding="utf-8"))
    assert decision["verdict"]["label"] in {
        rule.get("then", rule.get("otherwise")) for rule in raw("prompt_only")["verdicts"]
    }
    assert decision["conditional_on"] == ""  # nothing was trained, so no checkpoint conditions the result
    assert decision["verdict"]["label"] in (bundle / "report/report.md").read_text(encoding="utf-8")
