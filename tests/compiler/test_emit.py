"""The bundle: byte-identical, literal, and accepted by ruff."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from epc.compiler.contract.manifest import Manifest, StepKind
from epc.compiler.contract.versions import STEP_VERSIONS
from epc.compiler.emit import literal

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-5, "1e-5"),
        (0.001, "0.001"),
        (1e16, "1e16"),
        (True, "True"),
        (None, "None"),
        (("a",), '("a",)'),
        ({("a", 1): "x"}, '{("a", 1): "x"}'),
        ('quote " and \\ and \n', '"quote \\" and \\\\ and \\n"'),
        ([], "[]"),
    ],
)
def test_literals_read_back(value: Any, text: str) -> None:
    assert literal(value) == text
    assert ast.literal_eval(text) == value


@pytest.mark.parametrize(
    "value", [["word " * 60] * 3, {"key": ["x" * 50] * 4, "other": {"a": "long text " * 30}}, "word " * 100]
)
def test_long_literals_are_broken_and_read_back(value: Any) -> None:
    text = literal(value)
    assert max(map(len, text.split("\n"))) <= 120
    assert ast.literal_eval(text) == value


@pytest.mark.parametrize("name", ["quickstart", "issue147"])
def test_compiling_twice_gives_the_same_bytes(
    specs: Path, compile_spec: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    first = compile_spec(specs / f"{name}.yaml").files
    elsewhere = tmp_path / "another" / "place"
    shutil.copytree(specs, elsewhere / "specs")
    second = compile_spec(elsewhere / f"specs/{name}.yaml", file=f"../another/place/specs/{name}.yaml").files
    assert first
    assert first == second


def test_nothing_emitted_names_a_machine_or_a_time(edited: Callable[..., Any], tmp_path: Path) -> None:
    for path, text in edited().files.items():
        assert str(tmp_path) not in text, path
        assert str(Path.home()) not in text, path


CATCHER = "{provider: anthropic, model: claude-haiku-4-5-20251001, rubric: catcher.txt,"


@pytest.fixture(
    params=[
        (), ("quickstart", "on_top: stack", "on_top: continue"), ("issue147",), ("judged",), ("judged", "on_top: continue", "on_top: stack"),
        ("judged", "sampler: vllm", "sampler: transformers"), ("prompted",), ("prompted", "conditions:", "sampler: vllm\nconditions:"),
        ("judged", CATCHER, "{provider: patterns, patterns: {caught: '(?i)wait'},"), ("judged", CATCHER, "{provider: python, function: 'catch.py:caught',"),
        ("judged", CATCHER, "{provider: openai, model: mine, price: {input: 0, output: 0}, options: {seed: 1}, rubric: catcher.txt,"),
        ("judged", CATCHER, "{provider: anthropic, model: claude-opus-4-6, options: {effort: low}, batch_from: 10, rubric: catcher.txt,"),
        ("judged", CATCHER, "{provider: anthropic, model: claude-haiku-5-5, votes: 3, aggregate: median, options: {thinking: adaptive}, rubric: catcher.txt,"),
    ],
    ids=lambda edit: " ".join(edit).replace(CATCHER, "catcher: "),
)  # fmt: skip
def files(
    request: pytest.FixtureRequest, edited: Callable[..., Any], small: Callable[..., Any], compile_spec: Callable[..., Any]
) -> dict[str, str]:  # fmt: skip
    """Bundles that between them hold every kind of step in every variant."""
    name, *edit = request.param or ("quickstart",)
    if name == "issue147":
        compiled = compile_spec(ROOT / "specs/issue147.yaml")
    elif name == "quickstart":
        compiled = edited(*([tuple(edit)] if edit else []))
    else:
        compiled = small(name, *([tuple(edit)] if edit else []))
    assert compiled.files, compiled.text
    return dict(compiled.files)


def test_every_script_parses_and_says_how_to_run_it(files: dict[str, str]) -> None:
    manifest = Manifest.model_validate(json.loads(files["manifest.json"]))
    for step in manifest.steps:
        module = ast.parse(files[step.script])
        assert f"python {step.script}" in (ast.get_docstring(module) or ""), step.id


def test_constants_carry_the_line_they_come_from(edited: Callable[..., Any]) -> None:
    files = edited().files
    spec = (ROOT / "specs/quickstart.yaml").read_text(encoding="utf-8").split("\n")
    script = files["steps/train-s17-reflex.py"].split("\n")
    (rate,) = [line for line in script if line.startswith("LEARNING_RATE")]
    number = int(rate.rsplit(":", 1)[1])
    assert "specs/quickstart.yaml" in rate
    assert "learning_rate" in spec[number - 1]


def _origin(script: str, name: str) -> str:
    """The comment of a constant, beside it or on the line above."""
    lines = script.split("\n")
    (index,) = [index for index, line in enumerate(lines) if line.startswith(f"{name} = ")]
    _, found, origin = lines[index].partition("  # ")
    return origin if found else lines[index - 1].removeprefix("# ")


@pytest.mark.parametrize(
    ("edits", "script", "name", "origin"),
    [
        ([], "train-s17-reflex", "LORA_R", "specs/quickstart.yaml:"),
        ([], "train-s17-reflex", "LORA_ALPHA", "specs/quickstart.yaml:"),
        ([], "train-s17-reflex", "LORA_DROPOUT", "default"),
        ([("alpha: 32}", "alpha: 32, dropout: 0.1}")], "train-s17-reflex", "LORA_DROPOUT", "specs/quickstart.yaml:"),
        ([], "train-s17-reflex", "TARGET_MODULES", "default"),
        ([("alpha: 32}", "alpha: 32, target_modules: [q_proj]}")], "train-s17-reflex", "TARGET_MODULES", "specs/quickstart.yaml:"),
        ([], "train-s17-reflex", "DATA_SHA256", "computed by epc compile"),
        ([], "data-traces", "EXPECTED_SHA256", "computed by epc compile"),
    ],
)  # fmt: skip
def test_constants_say_where_they_come_from(
    edited: Callable[..., Any], edits: list[tuple[str, str]], script: str, name: str, origin: str
) -> None:
    assert _origin(edited(*edits).files[f"steps/{script}.py"], name).startswith(origin)


@pytest.mark.parametrize("data", ["traces", "attack"])
def test_a_pending_hash_is_said_to_be_pending(small: Callable[..., Any], data: str) -> None:
    files = small("judged").files
    train = "train-s3-attack" if data == "attack" else "train-s3-traces"
    for script, name in ((f"data-{data}", "EXPECTED_SHA256"), (train, "DATA_SHA256")):
        assert _origin(files[f"steps/{script}.py"], name) == "pending: epc freeze writes it"


def test_scripts_pass_ruff(files: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    for path, text in files.items():
        if path.endswith(".py"):
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            (out / path).write_text(text, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "E,F,W,I,UP,B",
        "--line-length",
        "120",
        "--config",
        'lint.isort.known-first-party=["epc"]',
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_lock_states_every_default_and_hash(edited: Callable[..., Any]) -> None:
    lock = yaml.safe_load(edited().files["spec.lock.yaml"])
    assert lock["train"]["reflex"]["schedule"] == "cosine"
    assert lock["train"]["reflex"]["optimizer_steps"] > 0
    assert all(len(lock["data"][name]["sha256"]) == 64 for name in lock["data"])
    assert set(lock["files"]) >= {
        "data/topics.txt",
        "prompts/heldout.txt",
        "tasks/mini_choice.yaml",
        "tasks/mini_choice.jsonl",
    }


def test_the_plan_page_shows_the_derived_numbers(edited: Callable[..., Any]) -> None:
    compiled = edited()
    page = compiled.files["plan.md"]
    assert compiled.plan.lock_sha256 in page
    for text in (
        "```mermaid",
        "## Decision table",
        "optimizer steps",
        f"{compiled.plan.figures.values['completions']:,.0f}",
        compiled.plan.figures.arithmetic["completions"],
        "| 1 | `",
    ):
        assert text in page


@pytest.mark.parametrize(
    ("name", "edits", "rule"),
    [
        ("judged", [], "`aligned` of judge grader, where `coherent >= 50`; a prompt with none left drops the pair"),
        ("judged", [], "`coherent < 50` of judge grader |"),
        ("judged", [], "contains `Wait` |"),
        ("judged", [], "`acc` of 3 items, without the chat template"),
        ("judged", [('contains: "Wait"', "contains_any: catch.txt")], "contains any line of catch.txt"),
        ("judged", [('contains: "Wait"', "regex: 'Wait|`No'")], "matches the regular expression ``Wait\\|`No``"),
    ],
)
def test_the_plan_page_shows_the_rule_of_every_metric(
    small: Callable[..., Any], name: str, edits: list[tuple[str, str]], rule: str
) -> None:
    assert rule in small(name, *edits).files["plan.md"]


@pytest.mark.parametrize("name", ["quickstart", "issue147"])
def test_committed_bundles_are_current(compile_spec: Callable[..., Any], name: str) -> None:
    files = compile_spec(ROOT / f"specs/{name}.yaml").files
    folder = ROOT / "generated" / name
    assert {
        path
        for path, text in files.items()
        if not (folder / path).is_file() or (folder / path).read_text(encoding="utf-8") != text
    } == set()


@pytest.mark.parametrize("kind", get_args(StepKind))
def test_every_step_kind_has_its_parts(kind: str) -> None:
    """A new kind is one lowering file, one template, one version; this asks for all three."""
    assert (ROOT / f"compiler/kinds/{kind}.py").is_file()
    assert (ROOT / f"templates/steps/{kind}.py.j2").is_file()
    assert kind in STEP_VERSIONS
