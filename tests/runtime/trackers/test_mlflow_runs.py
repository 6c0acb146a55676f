"""MLflow, read back with its own client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.wandb_file import offline_runs

from epc.runtime import trackers
from epc.runtime.bundle import read_manifest, step_of, store
from epc.runtime.cli import main
from epc.runtime.trackers.jobs import finished_jobs, registration_job

Reporting = Callable[..., Path]
TRAINING = "train-s3-attack"


def client(bundle: Path, file: str = "trackers/mlflow/mlflow.db") -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{bundle / file}")


def runs(store: Any, experiment: str = "tiny") -> dict[str, Any]:
    """Name -> run; no name may come twice."""
    found = store.search_runs([store.get_experiment_by_name(experiment).experiment_id])
    named = {run.info.run_name: run for run in found}
    assert len(named) == len(found)
    return named


def log_of(bundle: Path) -> list[dict[str, float]]:
    file = store(bundle, step_of(read_manifest(bundle), TRAINING)) / "log.jsonl"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def decision(bundle: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle / "report/decision.json").read_text(encoding="utf-8"))
    return found


def test_a_bundle_is_told_whole_and_once(reporting: Reporting, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = reporting("mlflow")
    lock = read_manifest(bundle).lock_sha256
    assert main(["decide", str(bundle)]) == 0
    assert main(["report-to", str(bundle)]) == 0
    assert f"mlflow ui --backend-store-uri sqlite:///{bundle}" in capsys.readouterr().out
    tracked = client(bundle)
    found = runs(tracked)
    assert set(found) == {f"tiny {lock[:8]}", TRAINING, "sample"}
    assert {run.info.status for run in found.values()} == {"FINISHED"}

    parent, training, sampled = found[f"tiny {lock[:8]}"], found[TRAINING], found["sample"]
    assert training.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.params["train.attack.learning_rate"] == "0.01"
    assert parent.data.params["train.attack.lora.r"] == "4"
    assert training.data.params["learning_rate"] == "0.01"
    assert training.data.params["used.seed"] == "3"
    assert sampled.data.metrics["completions"] == 40
    for name in ("loss", "learning_rate", "grad_norm", "num_tokens"):
        history = tracked.get_metric_history(training.info.run_id, name)
        assert [(point.step, point.value) for point in history] == [(e["step"], e[name]) for e in log_of(bundle)]

    decided = decision(bundle)
    (headline,) = decided["analyses"]
    assert parent.data.metrics["headline/delta"] == headline["statistics"]["delta"]
    assert parent.data.metrics["headline/ci_low"] == headline["statistics"]["ci_low"]
    assert parent.data.metrics[f"verdict/{decided['verdict']['verdict_class']}"] == 1
    assert sum(value for name, value in parent.data.metrics.items() if name.startswith("verdict/")) == 1
    assert parent.data.tags["epc.verdict"] == decided["verdict"]["label"]
    assert parent.data.tags["epc.mode"] == "real"
    assert parent.data.tags["epc.lock_sha256"] == lock
    truths = {True: "true", False: "false", None: "unknown"}
    for gate in decided["gates"]:
        assert parent.data.tags[f"epc.gate.{gate['name']}"] == truths[gate["truth"]]
    attached = {item.path for item in tracked.list_artifacts(parent.info.run_id)}
    assert attached == {"decision.json", "report.html", "report.md", "plan.md", "spec.lock.yaml"}
    copy = Path(tracked.download_artifacts(parent.info.run_id, "decision.json"))
    assert copy.read_bytes() == (bundle / "report/decision.json").read_bytes()

    before = {name: run.to_dictionary() for name, run in found.items()}
    assert main(["decide", str(bundle)]) == 0
    assert main(["report-to", str(bundle)]) == 0
    assert {name: run.to_dictionary() for name, run in runs(tracked).items()} == before
    assert len(tracked.get_metric_history(training.info.run_id, "loss")) == len(log_of(bundle))
    assert len(tracked.get_metric_history(parent.info.run_id, "headline/delta")) == 1


def test_another_decision_is_another_point(reporting: Reporting) -> None:
    bundle = reporting("mlflow")
    manifest = read_manifest(bundle)
    registered = registration_job(bundle, manifest, decided=True)
    (tracker,) = trackers.trackers(bundle, manifest)
    tracker.close(registered, "finished")
    metrics = {**registered.metrics, "headline/delta": -0.25}
    tracker.close(replace(registered, metrics=metrics, sha256="another"), "finished")
    tracked = client(bundle)
    (parent,) = runs(tracked).values()
    history = tracked.get_metric_history(parent.info.run_id, "headline/delta")
    assert [(point.step, point.value) for point in history] == [(1, registered.metrics["headline/delta"]), (2, -0.25)]


def test_a_run_that_broke_off_is_closed_and_told_anew(reporting: Reporting) -> None:
    bundle = reporting("mlflow")
    manifest = read_manifest(bundle)
    registered = registration_job(bundle, manifest, decided=False)
    job = next(job for job in finished_jobs(bundle, manifest) if job.name == TRAINING)
    (tracker,) = trackers.trackers(bundle, manifest)
    tracker.begin(registered, job).log(job.curve[:2])  # and then the machine was switched off
    assert trackers.publish(bundle) == []
    tracked = client(bundle)
    found = tracked.search_runs([tracked.get_experiment_by_name("tiny").experiment_id])
    tries = [run for run in found if run.info.run_name == TRAINING]
    told = {run.info.status: len(tracked.get_metric_history(run.info.run_id, "loss")) for run in tries}
    assert told == {"KILLED": 2, "FINISHED": len(job.curve)}


def test_several_experiments_share_a_store_beside_the_spec(reporting: Reporting) -> None:
    bundle = reporting({"mlflow": {"uri": "sqlite:///../all.db", "experiment": "shared"}})
    assert main(["report-to", str(bundle)]) == 0
    root = bundle.parent.parent
    assert TRAINING in runs(client(root, "all.db"), "shared")
    assert not (bundle / "trackers/mlflow").exists()


def test_two_processes_at_once_tell_everything_once_and_write_nowhere_else(
    reporting: Reporting, tmp_path: Path
) -> None:
    bundle = reporting(["mlflow", "wandb"])
    here, home = tmp_path / "here", tmp_path / "home"
    here.mkdir()
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
    command = [sys.executable, "-m", "epc.runtime.cli", "report-to", str(bundle)]
    both = [
        subprocess.Popen(
            command, cwd=here, env={**environment, "HOME": str(home)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert [(process.communicate()[1], process.returncode) for process in both] == [("", 0), ("", 0)]
    tracked = client(bundle)
    assert len(runs(tracked)) == len(offline_runs(bundle / "trackers")) == 3
    assert len(tracked.get_metric_history(runs(tracked)[TRAINING].info.run_id, "loss")) == len(log_of(bundle))
    assert list(here.iterdir()) == []
    assert [file for file in home.rglob("*") if file.is_file()] == []
    assert (bundle / "trackers/.gitignore").read_text(encoding="utf-8") == "*\n"
