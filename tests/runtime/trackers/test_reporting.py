"""Trackers beside the commands: refused in time, tolerated when they fail, and of no weight in a decision."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from epc.runtime import trackers
from epc.runtime.bundle import read_manifest
from epc.runtime.cli import main
from epc.runtime.errors import Fault

Reporting = Callable[..., Path]


@pytest.mark.parametrize(
    ("report_to", "missing", "expected"),
    [
        ("mlflow", [], []),
        ("wandb", [], []),
        ("mlflow", ["mlflow"], ["R1940"]),
        ("mlflow", ["sqlalchemy"], ["R1940"]),
        ({"mlflow": {"uri": "https://mlflow.lab.org"}}, ["sqlalchemy"], []),
        (["mlflow", "wandb"], ["mlflow", "wandb"], ["R1940", "R1940"]),
        ({"wandb": {"mode": "online"}}, [], ["R1941"]),
        ({"mlflow": {"uri": "environment"}}, [], ["R1942"]),
    ],
)
def test_what_keeps_trackers_from_being_told(
    reporting: Reporting, monkeypatch: pytest.MonkeyPatch, report_to: object, missing: list[str], expected: list[str]
) -> None:
    bundle = reporting(report_to)
    for package in missing:
        monkeypatch.setitem(sys.modules, package, None)
    found = list(trackers.problems(bundle, read_manifest(bundle)))
    assert [fault.code for fault in found] == expected
    if missing and expected:
        assert all("epc-prereg[trackers]" in fault.remedy and "--report-later" in fault.remedy for fault in found)


@pytest.mark.parametrize(
    ("variable", "value", "report_to"),
    [
        ("WANDB_API_KEY", "0" * 40, {"wandb": {"mode": "online"}}),
        ("MLFLOW_TRACKING_URI", "https://ada:pw@mlflow.lab.org", {"mlflow": {"uri": "environment"}}),
    ],
)
def test_the_environment_may_say_more(
    reporting: Reporting, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, report_to: object
) -> None:
    bundle = reporting(report_to)
    monkeypatch.setenv(variable, value)
    assert list(trackers.problems(bundle, read_manifest(bundle))) == []
    (tracker,) = trackers.trackers(bundle, read_manifest(bundle))
    assert "pw" not in tracker.place


def test_a_key_in_netrc_is_enough(reporting: Reporting, tmp_path: Path) -> None:
    bundle = reporting({"wandb": {"mode": "online"}})
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password 0\n", encoding="utf-8")
    assert list(trackers.problems(bundle, read_manifest(bundle))) == []


def test_a_run_that_cannot_report_does_not_begin(reporting: Reporting, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = reporting("mlflow")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    begun: list[int] = []
    with pytest.raises(Fault, match="R1940"):
        trackers.reported(bundle, Console(file=io.StringIO()), lambda: begun.append(1) or 0)
    assert begun == []

    def run() -> int:
        begun.append(2)
        assert os.environ[trackers.LATER]
        return 3

    assert trackers.reported(bundle, Console(file=io.StringIO()), run, later=True) == 3
    assert begun == [2]
    assert trackers.LATER not in os.environ


def test_the_end_of_a_run_is_told(reporting: Reporting) -> None:
    from mlflow.tracking import MlflowClient

    bundle = reporting("mlflow")
    client = MlflowClient(tracking_uri=f"sqlite:///{bundle / 'trackers/mlflow/mlflow.db'}")
    parent = f"tiny {read_manifest(bundle).lock_sha256[:8]}"
    for code, status in [(1, "FAILED"), (130, "KILLED"), (0, "FINISHED")]:
        out = io.StringIO()
        assert trackers.reported(bundle, Console(file=out, width=400), lambda code=code: code) == code  # type: ignore[misc]
        assert "curves go to mlflow: mlflow ui --backend-store-uri sqlite:///" in out.getvalue()
        experiment = client.get_experiment_by_name("tiny")
        assert experiment is not None
        states = {run.info.run_name: run.info.status for run in client.search_runs([experiment.experiment_id])}
        assert states == {parent: status, "train-s3-attack": "FINISHED", "sample": "FINISHED"}


def test_a_server_that_is_not_there_costs_a_line(reporting: Reporting, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:  # bound and not listening: a connection is refused
        taken.bind(("127.0.0.1", 0))
        bundle = reporting({"mlflow": {"uri": f"http://127.0.0.1:{taken.getsockname()[1]}"}})
        assert trackers.publish(bundle, decided=True) == ["mlflow"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning[R1945]: mlflow could not be told: ")
    assert line.endswith(f"epc report-to {bundle}")


def test_a_decision_is_the_same_whatever_trackers_do(
    reporting: Reporting, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told, broken = reporting("mlflow", "told"), reporting("mlflow", "broken")
    (broken / "trackers").write_text("in the way", encoding="utf-8")
    assert main(["decide", str(told)]) == main(["decide", str(broken)]) == 0
    assert capsys.readouterr().err.count("warning[R1945]") == 1
    decided = (told / "report/decision.json").read_bytes()
    assert (broken / "report/decision.json").read_bytes() == decided

    def but_for_the_text(data: bytes) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(data)
        text = found.pop("spec_sha256")  # of the file itself, which has a line more
        found["card"] = {name: value for name, value in found["card"].items() if value != text}
        return found

    without = (finished / "generated/tiny/report/decision.json").read_bytes()
    assert but_for_the_text(without) == but_for_the_text(decided)
    assert read_manifest(finished / "generated/tiny").lock_sha256 == read_manifest(told).lock_sha256
    assert main(["report-to", str(broken)]) == 1


def test_a_spec_without_trackers_has_nothing_to_report(finished: Path) -> None:
    assert main(["report-to", str(finished / "generated/tiny")]) == 2
    assert trackers.publish(finished / "generated/tiny", decided=True) == []
