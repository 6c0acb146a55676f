"""Weights & Biases offline, read back from what would be sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.wandb_file import offline_runs

from epc.runtime import trackers
from epc.runtime.bundle import read_manifest, step_of, store
from epc.runtime.cli import main

Reporting = Callable[..., Path]
TRAINING = "train-s3-attack"


@pytest.fixture
def told(reporting: Reporting) -> Path:
    bundle = reporting({"wandb": {"project": "reflexes"}})
    assert main(["decide", str(bundle)]) == 0
    return bundle


def test_a_bundle_is_told_whole_and_once(told: Path) -> None:
    manifest = read_manifest(told)
    name = f"tiny {manifest.lock_sha256[:8]}"
    found = offline_runs(told / "trackers")
    assert {run.name: run.kind for run in found.values()} == {
        TRAINING: "train",
        "sample": "sample",
        name: "registration",
    }
    assert {(run.project, run.group, run.exit_code) for run in found.values()} == {("reflexes", name, 0)}

    training, registered = found[TRAINING], found[name]
    assert training.config["learning_rate"] == 0.01
    assert training.config["lora"]["r"] == 4
    log = (store(told, step_of(manifest, TRAINING)) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    curve = [(entry["_step"], entry["train/loss"], entry["train/grad_norm"]) for entry in training.history]
    assert curve == [(entry["step"], entry["loss"], entry["grad_norm"]) for entry in map(json.loads, log)]
    assert training.summary["final_loss"] == json.loads(log[-1])["loss"]

    decided = json.loads((told / "report/decision.json").read_text(encoding="utf-8"))
    assert registered.summary["verdict"] == decided["verdict"]["label"]
    assert registered.summary["headline/delta"] == decided["analyses"][0]["statistics"]["delta"]
    assert registered.config["train"]["attack"]["epochs"] == 2
    assert registered.config["epc"]["epc.lock_sha256"] == manifest.lock_sha256
    assert registered.config["epc"]["epc.gate.took"] in ("true", "false")
    assert set(registered.files) >= {"decision.json", "report.html", "report.md", "plan.md", "spec.lock.yaml"}
    (page,) = (told / "trackers/wandb").glob("offline-run-*/files/media/html/*.html")
    assert "Are the trackers told?" in page.read_text(encoding="utf-8")

    assert main(["decide", str(told)]) == main(["report-to", str(told)]) == 0
    assert trackers.publish(told) == []
    assert offline_runs(told / "trackers") == found


def test_a_mark_that_was_cut_short_is_told_again(told: Path) -> None:
    found = list((told / "trackers/wandb").glob("offline-run-*"))
    marks = sorted((told / "trackers/told").iterdir())
    marks[0].write_text("{", encoding="utf-8")
    marks[1].write_text("[]", encoding="utf-8")
    assert trackers.publish(told, decided=True) == []
    assert len(list((told / "trackers/wandb").glob("offline-run-*"))) == len(found) + 2
    assert all("sha256" in json.loads(mark.read_text(encoding="utf-8")) for mark in marks)


def test_nothing_of_the_machine_is_told(told: Path) -> None:
    import getpass
    import socket

    for run in offline_runs(told / "trackers").values():
        assert socket.gethostname() not in run.host
    for folder in (told / "trackers/wandb").glob("offline-run-*"):
        assert not (folder / "files/wandb-metadata.json").exists()
        assert not (folder / "files/requirements.txt").exists()
    assert getpass.getuser()  # the name that would stand in wandb-metadata.json
