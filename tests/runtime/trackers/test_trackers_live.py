"""Trackers while a model trains: the emitted script of a spec that reports, on the tiny model."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.wandb_file import offline_runs

from epc.runtime.bundle import read_manifest, step_of, store
from epc.runtime.step import read_record

Reporting = Callable[..., Path]
TRAINING = "train-s3-attack"


def train(bundle: Path) -> None:
    """Train again what had been trained."""
    step = step_of(read_manifest(bundle), TRAINING)
    shutil.rmtree(store(bundle, step), ignore_errors=True)
    runpy.run_path(str(bundle / step.script), run_name="__main__")


def test_curves_are_told_while_it_trains(reporting: Reporting, capsys: pytest.CaptureFixture[str]) -> None:
    from mlflow.tracking import MlflowClient

    from epc.runtime import trackers

    bundle = reporting(["mlflow", "wandb"])
    train(bundle)
    assert "R1945" not in capsys.readouterr().err
    step = step_of(read_manifest(bundle), TRAINING)
    log = [json.loads(line) for line in (store(bundle, step) / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = [(entry["step"], entry["loss"]) for entry in log]

    client = MlflowClient(tracking_uri=f"sqlite:///{bundle / 'trackers/mlflow/mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    found = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    training = found[TRAINING]
    assert training.info.status == "FINISHED"
    assert [(p.step, p.value) for p in client.get_metric_history(training.info.run_id, "loss")] == expected
    assert len(client.get_metric_history(training.info.run_id, "tokens_per_second")) == len(log)
    record = read_record(bundle, step)
    assert record is not None
    assert training.data.metrics["adapter_norm"] == record.facts["adapter_norm"]
    (run,) = offline_runs(bundle / "trackers").values()
    assert [(entry["_step"], entry["train/loss"]) for entry in run.history] == expected
    assert all(entry["train/tokens_per_second"] > 0 for entry in run.history)

    assert trackers.publish(bundle) == []  # which has only the sampling to add
    assert len(client.get_metric_history(training.info.run_id, "loss")) == len(log)
    assert set(offline_runs(bundle / "trackers")) == {TRAINING, "sample"}


def test_a_training_that_stops_is_told_as_failed(reporting: Reporting) -> None:
    from mlflow.tracking import MlflowClient

    bundle = reporting("mlflow")
    step = step_of(read_manifest(bundle), TRAINING)
    script = bundle / step.script
    text = script.read_text(encoding="utf-8")
    assert "OPTIMIZER_STEPS = 6 " in text
    script.write_text(text.replace("OPTIMIZER_STEPS = 6 ", "OPTIMIZER_STEPS = 7 "), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        train(bundle)
    assert ended.value.code == 1
    client = MlflowClient(tracking_uri=f"sqlite:///{bundle / 'trackers/mlflow/mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    (training,) = (r for r in client.search_runs([experiment.experiment_id]) if r.info.run_name == TRAINING)
    assert training.info.status == "FAILED"
    assert "R0333" in training.data.tags["epc.error"]
    assert len(client.get_metric_history(training.info.run_id, "loss")) == 6


def test_a_tracker_that_fails_stops_no_training(reporting: Reporting, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = reporting(["mlflow", "wandb"])
    (bundle / "trackers").write_text("in the way", encoding="utf-8")
    train(bundle)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "R1945" in line]
    assert sorted(line.split()[1] for line in warnings) == ["mlflow", "wandb"]
    assert all(f"epc report-to {bundle}" in line for line in warnings)
    assert read_record(bundle, step_of(read_manifest(bundle), TRAINING)) is not None


def test_what_is_left_for_later_is_not_told(reporting: Reporting, monkeypatch: pytest.MonkeyPatch) -> None:
    from epc.runtime import trackers

    bundle = reporting(["mlflow", "wandb"])
    monkeypatch.setenv(trackers.LATER, "1")
    train(bundle)
    assert not (bundle / "trackers").exists()
