"""Issue 147 rehearsed whole, on a model that trains in a second: one command from the spec to a stamped report.

Nothing of the spec is edited: sizes, stand-ins and the judges' address are the rehearsal's own doing.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.tiny_model import tiny_model

from epc.runtime.cli import main

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [
    "run", "--rehearse", "specs/issue147.yaml", "--model", "tiny", "--cores", "2", "--rows", "8", "--prompts", "2",
    "--samples", "1", "--tokens", "8", "--items", "8",
]  # fmt: skip
ARMS = {
    "base", "c6_vanilla_em", "selfcorrect_only", "selfcorrect_em", "random_recovery_em", "placebo_assistant_em",
}  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    pytest.importorskip("trl")
    pytest.importorskip("anthropic")
    folder = tmp_path_factory.mktemp("rehearsal147")
    shutil.copytree(ROOT / "specs", folder / "specs", ignore=shutil.ignore_patterns("external"))
    text = (folder / "specs/issue147.yaml").read_text(encoding="utf-8")
    tiny_model(folder / "tiny", text.splitlines(), positions=4096)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"):
            patch.delenv(name, raising=False)  # neither is needed, and neither would be used
        assert main(COMMAND) == 0
        yield folder


@pytest.fixture
def bundle(project: Path) -> Path:
    return project / "rehearsal/issue147"


def records(bundle: Path) -> dict[str, tuple[dict[str, Any], Path]]:
    found = {}
    for file in (bundle / "store").glob("*/finished.json"):
        record = json.loads(file.read_text(encoding="utf-8"))
        found[record["id"]] = (record, file.parent)
    return found


def test_every_step_of_the_plan_ran(bundle: Path) -> None:
    found = records(bundle)
    kinds = Counter(record["kind"] for record, _ in found.values())
    assert kinds == {
        "model": 1, "generate": 1, "data": 4, "mask": 4, "train": 7, "sample": 1, "capability": 1, "judge": 3, "measure": 1,
    }  # fmt: skip
    assert {record["mode"] for record, _ in found.values()} == {"rehearsal"}


def test_every_completion_was_judged_through_both_interfaces(bundle: Path) -> None:
    judged: Counter[tuple[str, str]] = Counter()
    routes = set()
    for name, (_, folder) in records(bundle).items():
        if name.startswith("judge-"):
            for line in (folder / "judgements.jsonl").open(encoding="utf-8"):
                row = json.loads(line)
                assert (row["mode"], row["outcome"]) == ("rehearsal", "scored")
                routes.add(row["batch"] is not None)
                judged[row["judge"], row["condition"]] += 1
    assert {judge for judge, _ in judged} == {"alignment", "reset", "harm"}
    assert {condition for _, condition in judged} == ARMS
    assert True in routes


def test_the_decision_was_computed_and_is_no_verdict(bundle: Path) -> None:
    decision = json.loads((bundle / "report/decision.json").read_text(encoding="utf-8"))
    assert (decision["mode"], decision["verdict"]["label"]) == ("rehearsal", "REHEARSAL")
    assert {arm["condition"] for arm in decision["arms"]} == ARMS
    named = {analysis["name"] for analysis in decision["analyses"]}
    assert {"headline.filtered", "headline.unfiltered", "arc", "betley", "wang"} <= named
    assert all(gate["truth"] is True for gate in decision["gates"] if gate["name"] == "epc.outputs_intact")


def test_the_report_is_stamped_and_says_what_was_scaled(bundle: Path) -> None:
    for name in ("report.html", "report.md"):
        text = (bundle / "report" / name).read_text(encoding="utf-8")
        assert "REHEARSAL" in text[:1200]
        assert "learning_rate 0.001 instead of 1e-05" in text
        assert "instead of 1,172" in text


def test_nothing_of_it_reaches_the_plan(project: Path, bundle: Path) -> None:
    assert not (project / "generated").exists()
    assert [path.name for path in (project / "rehearsal").iterdir() if path.is_dir()] == ["issue147"]
    events = [json.loads(line) for line in (bundle / "journal.jsonl").open(encoding="utf-8")]
    assert {entry["event"] for entry in events} == {"registered", "preflight", "started", "finished", "decided"}
    assert [entry["data"]["verdict"] for entry in events if entry["event"] == "decided"][:1] == ["REHEARSAL"]


def test_it_is_decided_and_verified_like_any_other(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (bundle / "report/decision.json").read_bytes()
    assert main(["decide", "--exit-code", str(bundle)]) == 24
    assert (bundle / "report/decision.json").read_bytes() == before
    assert "REHEARSAL" in capsys.readouterr().out.splitlines()[0]
    assert main(["verify", str(bundle)]) == 0
    assert capsys.readouterr().out.startswith("REHEARSAL")
    assert main(["status", str(bundle)]) == 0
    assert capsys.readouterr().out.startswith("REHEARSAL")


def test_a_second_rehearsal_has_nothing_to_run_and_says_how_long_the_first_took(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(COMMAND) == 0
    told = capsys.readouterr().out
    assert "nothing to run: all 23 steps are finished" in told
    assert "train-s42-selfcorrect.em" in told
    assert "14,400 calls" in told
    assert "report: rehearsal/issue147/report/report.html" in told
