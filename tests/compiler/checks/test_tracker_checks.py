"""report_to: what it may say, and that it changes nothing that is registered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.manifest import Manifest, Mlflow, Trackers, Wandb

LOCAL, OFFLINE = Mlflow(uri="local", experiment="quickstart"), Wandb(project="quickstart")


def with_report_to(specs: Path, value: str) -> Path:
    spec = specs / "quickstart.yaml"
    with spec.open("a", encoding="utf-8") as file:
        file.write(f"report_to: {value}\n")
    return spec


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("none", None),
        ("[]", None),
        ("{}", None),
        ("mlflow", Trackers(mlflow=LOCAL)),
        ("wandb", Trackers(wandb=OFFLINE)),
        ("[mlflow, wandb]", Trackers(mlflow=LOCAL, wandb=OFFLINE)),
        ("{mlflow: {}}", Trackers(mlflow=LOCAL)),
        (
            '{mlflow: {uri: "https://mlflow.lab.org", experiment: lab/reflex}, wandb: {project: p, entity: e, mode: online}}',
            Trackers(
                mlflow=Mlflow(uri="https://mlflow.lab.org", experiment="lab/reflex"),
                wandb=Wandb(project="p", entity="e", mode="online"),
            ),
        ),
    ],
)
def test_what_is_reported_to(
    specs: Path, compile_spec: Callable[..., Any], value: str, expected: Trackers | None
) -> None:
    plain = compile_spec(specs / "quickstart.yaml")
    result = compile_spec(with_report_to(specs, value))
    assert Manifest.model_validate_json(result.files["manifest.json"]).report_to == expected
    assert result.files["spec.lock.yaml"] == plain.files["spec.lock.yaml"]
    assert [step.step.key for step in result.plan.steps] == [step.step.key for step in plain.plan.steps]
    changed = {path for path, text in result.files.items() if text != plain.files[path]}
    curves = {step.step.script for step in plain.plan.steps if step.step.kind == "train"}
    assert changed == {"manifest.json"} | (curves if expected else set())


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("tensorboard", "E0204"),
        ("[mlflow, tensorboard]", "E0204"),
        ("null", "E0204"),
        ("{mlflow: }", "E0203"),
        ("{neptune: {}}", "E0201"),
        ("{wandb: {api_key: abc}}", "E0201"),
        ("{wandb: {mode: disabled}}", "E0204"),
        ('{mlflow: {uri: "https://ada:secret@mlflow.lab.org"}}', "E1901"),
        ('{mlflow: {uri: "postgresql://ada:secret@db/runs"}}', "E1901"),
        ('{mlflow: {uri: "https://mlflow.lab.org?token=abc"}}', "E1901"),
        ("{mlflow: {uri: mlruns}}", "E1902"),
        ('{mlflow: {uri: "file:///tmp/mlruns"}}', "E1902"),
        ('{mlflow: {uri: "http://["}}', "E1902"),
        ('{mlflow: {uri: "sqlite://"}}', "E1902"),
        ("{wandb: {project: lab/reflex}}", "E1903"),
        (f"{{wandb: {{project: {'x' * 129}}}}}", "E1903"),
        ("[wandb, wandb]", "E1904"),
    ],
)
def test_what_it_may_not_say(specs: Path, compile_spec: Callable[..., Any], value: str, code: str) -> None:
    result = compile_spec(with_report_to(specs, value))
    assert result.codes == [code], result.text


@pytest.mark.parametrize(
    "uri",
    [
        "local", "environment", "databricks", "databricks://profile", "http://127.0.0.1:5000", "https://mlflow.lab.org/team",
        "https://ada@mlflow.lab.org", "sqlite:///runs.db", "sqlite:////data/runs.db", "mysql+pymysql://ada@db/runs",
    ],
)  # fmt: skip
def test_addresses_that_mlflow_can_log_to(specs: Path, compile_spec: Callable[..., Any], uri: str) -> None:
    result = compile_spec(with_report_to(specs, f'{{mlflow: {{uri: "{uri}"}}}}'))
    assert not result.codes, result.text
