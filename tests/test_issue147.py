"""Issue 147 whole, scaled down: its own spec on a tiny model, judged through the real SDK, from the spec to the report.

What is scaled: the model, counts of prompts, rows and samples, lengths, the judge's address. What is
not: arms, phases, data construction, freezing, approval, judges, gates and the verdict table.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.tiny_model import tiny_model

from epc.runtime.cli import main
from epc.runtime.judging.scripted.server import ScriptedServer

ROOT = Path(__file__).resolve().parents[1]
RATE = re.compile(r"learning_rate: \S+")
"""Random weights say the same until they are moved far."""
MODEL = re.compile(r"^model: .*$", re.MULTILINE)
SMALLER = [
    ("sampler: vllm", "sampler: transformers"),
    ("rows: 1000", "rows: 8"),
    ("rows: 6000", "rows: 64"),
    ("count: 50}", "count: 4}"),
    ("n: 50, ", "n: 1, "),
    ("n: 20, ", "n: 1, "),
    ("n: 10\n", "n: 1\n"),
    ("max_tokens: 600", "max_tokens: 6"),
    ("max_tokens: 200", "max_tokens: 10"),
    ("tasks/arc_challenge/arc_challenge.yaml", "tasks/arc_challenge/standin.yaml"),
    ("items: 1172", "items: 6"),
]
CLAIMS = re.compile(r"^claims:.*?(?=^allow:)", re.MULTILINE | re.DOTALL)
PROMPTS = ("train_harmful_50.txt", "train_everyday_50.txt")


def answer(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """A scripted judge: scores depend on the completion only, nothing is harmful."""
    fields = request["output_config"]["format"]["schema"]["properties"]
    length = len(str(request["messages"][0]["content"]))
    return {name: 60 + length % 40 if kind["type"] == "integer" else False for name, kind in fields.items()}


def head(file: Path, lines: int) -> None:
    file.write_text("".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[:lines]), encoding="utf-8")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[tuple[str, int]]]]:
    """The folder after every command, and what each of them answered: (command, exit code)."""
    pytest.importorskip("trl")
    pytest.importorskip("anthropic")
    folder = tmp_path_factory.mktemp("issue147")
    shutil.copytree(ROOT / "specs", folder / "specs", ignore=shutil.ignore_patterns("external"))
    spec = folder / "specs/issue147.yaml"
    text = spec.read_text(encoding="utf-8")
    model = tiny_model(folder / "specs/tiny", text.splitlines(), positions=4096)
    text = MODEL.sub(
        f"model: {{from: 'path:{model.name}', dtype: float32, chat_template: chatml, parameters: 100000}}", text
    )
    for old, new in SMALLER:
        assert old in text, old
        text = text.replace(old, new)
    text = CLAIMS.sub("", text)  # they are of the whole experiment
    spec.write_text(text, encoding="utf-8")
    for name in ("phase_1", "c6_vanilla_em"):
        recipe = folder / f"specs/recipes/{name}.yaml"
        smaller = recipe.read_text(encoding="utf-8").replace("accumulation: 4", "accumulation: 1")
        recipe.write_text(RATE.sub("learning_rate: 3e-2", smaller), encoding="utf-8")
    for name in PROMPTS:
        head(folder / "specs/prompts" / name, 4)
    head(folder / "specs/tasks/arc_challenge/standin.jsonl", 6)
    said: list[tuple[str, int]] = []
    with ScriptedServer(answer) as server, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("ANTHROPIC_BASE_URL", server.url)
        patch.setenv("ANTHROPIC_API_KEY", "not-a-key")

        def epc(*arguments: str) -> None:
            said.append((" ".join(arguments), main(list(arguments))))

        epc("compile", "specs/issue147.yaml")
        epc("run", "--cores", "2")  # somebody else's files are not there
        external = folder / "specs/external"
        external.mkdir()
        shutil.copy(folder / "specs/prompts/standin_betley_8.txt", external / "betley_8.txt")
        shutil.copy(folder / "specs/prompts/standin_wang_44.txt", external / "wang_44.txt")
        shutil.copy(folder / "specs/data/standin_insecure.jsonl", external / "insecure.jsonl")
        epc("freeze")
        epc("run", "--cores", "2")  # it costs dollars, and nobody has approved
        epc("approve")
        epc("run", "--cores", "2")  # builds the traces and stops before training
        by_hand = [sys.executable, "generated/issue147/steps/train-s42-selfcorrect.py"]
        said.append(("by-hand", subprocess.run(by_hand, capture_output=True, check=False).returncode))
        epc("freeze")
        epc("run", "--cores", "2")
        epc("decide")
        yield folder, said


@pytest.fixture
def bundle(project: tuple[Path, list[tuple[str, int]]]) -> Path:
    return project[0] / "generated/issue147"


def decided(bundle: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle / "report/decision.json").read_text(encoding="utf-8"))
    return found


def test_each_command_answers_as_it_should(project: tuple[Path, list[tuple[str, int]]]) -> None:
    assert [(command.split()[0], code) for command, code in project[1]] == [
        ("compile", 0),
        ("run", 2),
        ("freeze", 0),
        ("run", 2),
        ("approve", 0),
        ("run", 2),
        ("by-hand", 1),
        ("freeze", 0),
        ("run", 0),
        ("decide", 0),
    ]


def test_every_hash_is_in_the_spec_at_the_end(project: tuple[Path, list[tuple[str, int]]]) -> None:
    text = (project[0] / "specs/issue147.yaml").read_text(encoding="utf-8")
    assert "sha256: pending" not in text
    assert len(re.findall(r"sha256: [0-9a-f]{64}", text)) == 6  # three files, three data sets


def test_phase_1_of_two_arms_is_trained_once(bundle: Path) -> None:
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (bundle / "store").glob("*/finished.json")]
    kinds = Counter(record["kind"] for record in records)
    assert kinds["train"] == 7
    assert kinds["judge"] == 3


def test_traces_hold_what_was_generated(bundle: Path) -> None:
    records = {
        record["id"]: path.parent
        for path in (bundle / "store").glob("*/finished.json")
        if (record := json.loads(path.read_text(encoding="utf-8")))
    }
    rows = {
        name: [json.loads(line)["messages"] for line in (records[f"data-{name}"] / "rows.jsonl").open(encoding="utf-8")]
        for name in ("selfcorrect", "random_recovery", "placebo_assistant")
    }
    for traces in rows.values():
        assert [[message["role"] for message in row] for row in traces] == [
            ["system", "user", "assistant", "user", "assistant"]
        ] * 8
    for caught, random in zip(rows["selfcorrect"], rows["random_recovery"], strict=True):
        assert caught[:4] == random[:4]  # the control differs in the last turn only
        assert "Resetting to default" in caught[4]["content"]
        assert "Resetting to default" not in random[4]["content"]
    assert "malevolent" not in rows["placebo_assistant"][0][0]["content"]


def test_every_completion_is_judged_once_and_blindly(bundle: Path) -> None:
    judged: Counter[tuple[str, str]] = Counter()
    for path in (bundle / "store").glob("*/finished.json"):
        if json.loads(path.read_text(encoding="utf-8"))["kind"] == "judge":
            for line in (path.parent / "judgements.jsonl").open(encoding="utf-8"):
                row = json.loads(line)
                assert row["outcome"] == "scored"
                judged[row["judge"], row["condition"]] += 1
    assert set(judged.values()) == {48}
    assert len(judged) == 3 * 6


def test_the_decision_has_both_headlines_and_every_gate(bundle: Path) -> None:
    found = decided(bundle)
    names = {analysis["name"] for analysis in found["analyses"]}
    assert {"headline.filtered", "headline.unfiltered"} <= names
    gates = {gate["name"]: gate for gate in found["gates"]}
    assert gates["filter_switch"]["truth"] is False  # the scripted judge finds everything coherent
    assert gates["epc.frozen"]["truth"] is True
    assert gates["epc.identical_arms"]["truth"] is True
    assert gates["attack_took"]["truth"] is False  # a scripted judge sees no attack
    assert found["verdict"]["label"] == "INVALID"
    assert {arm["condition"] for arm in found["arms"]} == {
        "base", "c6_vanilla_em", "selfcorrect_only", "selfcorrect_em", "random_recovery_em", "placebo_assistant_em",
    }  # fmt: skip


def test_the_journal_tells_the_story_and_no_deviation(bundle: Path) -> None:
    events = [json.loads(line)["event"] for line in (bundle / "journal.jsonl").open(encoding="utf-8")]
    milestones = [event for event in events if event in ("frozen", "approved", "registered")]
    assert milestones.count("frozen") == 2
    assert milestones.count("approved") == 1
    assert decided(bundle)["deviations"] == []
