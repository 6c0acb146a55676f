"""specs/own_results.yaml from the spec to the report: compile and decide, and what the journal makes of a second look."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epc.runtime import journal
from epc.runtime.cli import main

ROOT = Path(__file__).resolve().parents[3]
BUNDLE = Path("generated/own_results")
DATA = Path("specs/results/support.csv")
SPEC = Path("specs/own_results.yaml")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run commands in a folder that holds the spec and its file; returns what the last one printed on both streams."""
    pytest.importorskip("duckdb")
    (tmp_path / DATA).parent.mkdir(parents=True)
    shutil.copy(ROOT / SPEC, tmp_path / SPEC)
    shutil.copy(ROOT / DATA, tmp_path / DATA)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        assert main(list(arguments)) == code
        said = capsys.readouterr()
        return said.out + said.err

    return run


def decision() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((BUNDLE / "report" / "decision.json").read_text(encoding="utf-8"))
    return found


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), encoding="utf-8")


def test_compile_and_decide_is_all(project: Callable[..., str]) -> None:
    said = project("compile", str(SPEC))
    assert "every score comes from results/support.csv" in said
    assert "then: epc decide" in said
    assert "SUCCESS" in project("decide")
    found = decision()
    assert found["verdict"]["label"] == "SUCCESS"
    (read,) = found["results"]
    assert (read["rows"], read["pinned"], list(read["files"])) == (240, False, ["results/support.csv"])
    built_in = {gate["name"]: (gate["truth"], gate["detail"]) for gate in found["gates"] if gate["built_in"]}
    assert set(built_in) == {
        "epc.results_read",
        "epc.enough_units",
        "epc.differential_missingness",
        "epc.missing_corners",
    }
    assert all(truth for truth, _ in built_in.values())
    assert "240 rows of 1 file" in built_in["epc.results_read"][1]
    headline = next(analysis for analysis in found["analyses"] if analysis["name"] == "headline")
    assert (headline["n_units"], headline["n_samples"], headline["n_missing"]) == (40, 237, 3)
    assert found["card"]["results graded"].startswith("results/support.csv (csv), SHA-256 ")
    assert "epc run" not in found["card"]["to reproduce"]
    assert (BUNDLE / "report" / "report.html").is_file()
    events = [(entry.event, entry.data) for entry in journal.read(BUNDLE)]
    assert [event for event, _ in events] == ["registered", "decided"]
    assert events[1][1]["results"] == {"graded": read["sha256"]}


def test_a_second_decision_is_the_same_bytes(project: Callable[..., str]) -> None:
    project("compile", str(SPEC))
    project("decide")
    first = (BUNDLE / "report" / "decision.json").read_bytes()
    project("decide")
    assert (BUNDLE / "report" / "decision.json").read_bytes() == first
    assert "computed again and compared byte for byte" in " ".join(project("verify").split())


def test_rows_in_another_order_are_the_same_verdict(project: Callable[..., str]) -> None:
    project("compile", str(SPEC))
    project("decide")
    first = decision()
    header, *rows = DATA.read_text(encoding="utf-8").splitlines()
    DATA.write_text("\n".join([header, *reversed(rows)]) + "\n", encoding="utf-8")
    project("decide")
    second = decision()
    assert second["rows_sha256"] == first["rows_sha256"]
    assert second["analyses"] == first["analyses"]
    assert [deviation["kind"] for deviation in second["deviations"]] == ["results_changed"]
    assert f"SUCCESS with SHA-256 {first['results'][0]['sha256'][:12]}" in second["deviations"][0]["text"]


def test_gates_that_change_once_results_are_known_are_told(project: Callable[..., str]) -> None:
    project("compile", str(SPEC))
    project("decide")
    change(SPEC, "headline.delta >= 5", "headline.delta >= 4")
    project("compile", str(SPEC))
    project("decide")
    (deviation,) = decision()["deviations"]
    assert deviation["kind"] == "spec_changed_after_results"
    assert "(graded)" in deviation["text"]
    project("amend", "--reason", "a margin of four was agreed on")
    project("decide")
    assert [deviation["kind"] for deviation in decision()["deviations"]] == ["amended"]


def test_a_bad_row_ends_the_decision_and_writes_nothing(project: Callable[..., str]) -> None:
    project("compile", str(SPEC))
    change(DATA, "refund-how,prompt-v1,1,scored,", "refund-how,prompt-v1,1,scored,1")
    said = project("decide", code=2)
    assert "error[R1605]" in said
    assert "results/support.csv:2" in said
    assert "Traceback" not in said
    assert not (BUNDLE / "report").exists()
    assert [entry.event for entry in journal.read(BUNDLE)] == ["registered"]


def test_a_pinned_file_that_differs_is_refused(project: Callable[..., str]) -> None:
    change(SPEC, "format: csv\n", f"format: csv\n    sha256: {'0' * 64}\n")
    project("compile", str(SPEC))
    assert "error[R1603]" in project("decide", code=2)


def test_results_may_lie_in_another_folder(project: Callable[..., str]) -> None:
    project("compile", str(SPEC))
    Path("elsewhere/results").mkdir(parents=True)
    DATA.rename("elsewhere/results/support.csv")
    assert "error[R1601]" in project("decide", code=2)
    assert "SUCCESS" in project("decide", "--results", "elsewhere")


def test_a_confirmatory_test_of_few_units_is_invalid(project: Callable[..., str]) -> None:
    project("compile", str(SPEC))
    header, *rows = DATA.read_text(encoding="utf-8").splitlines()
    kept = [row for row in rows if row.startswith(("refund", "invoice", "password"))]
    DATA.write_text("\n".join([header, *kept]) + "\n", encoding="utf-8")
    project("decide")
    found = decision()
    assert found["verdict"]["label"] == "INVALID"
    few = next(gate for gate in found["gates"] if gate["name"] == "epc.enough_units")
    assert (few["truth"], few["detail"]) == (False, "headline 12 items")


def test_a_unit_that_one_arm_lacks_goes_to_the_missing_rule(project: Callable[..., str]) -> None:
    """Declared `drop`: the pair is left out, counted, and put to both extremes. Declared `fail`: unknown, so INVALID."""
    change(SPEC, "missing: drop, describe: grade", "missing: fail, describe: grade")
    text = DATA.read_text(encoding="utf-8")
    rows = [row for row in text.splitlines() if not row.startswith("refund-how,prompt-v2") and "unparsable" not in row]
    DATA.write_text("\n".join(rows) + "\n", encoding="utf-8")
    project("compile", str(SPEC))
    project("decide")
    found = {analysis["name"]: analysis for analysis in decision()["analyses"]}
    assert decision()["verdict"]["label"] == "INVALID"
    assert "missing: fail" in found["headline"]["unknown_because"]
    assert (found["resolution"]["n_units"], found["resolution"]["n_units_missing"]) == (39, 1)
