"""The published schemas of what epc writes: up to date, described, and true of a real decision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from tests.support.report_cases import whole

from epc.compiler.contract.decision import Decision
from epc.compiler.contract.rows import MeasurementRow
from epc.compiler.file_schema import file_schema, file_schema_text
from epc.runtime.cli import main
from epc.runtime.decide import decision_text

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = file_schema(Decision, "decision")


def test_the_committed_file_is_what_epc_schema_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """`epc schema decision > generated/schema/decision.schema.json` renews it."""
    committed = (ROOT / "generated/schema/decision.schema.json").read_text(encoding="utf-8")
    assert committed == file_schema_text(Decision, "decision")
    assert main(["schema", "decision"]) == 0
    assert capsys.readouterr().out == committed


def test_it_is_a_schema_that_names_itself() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$id"] == "urn:epc:schema:decision:1"
    assert file_schema(MeasurementRow, "measurement")["$id"] == "urn:epc:schema:measurement"


@pytest.mark.parametrize("name", ["", *SCHEMA["$defs"]])
def test_every_part_forbids_what_it_does_not_know(name: str) -> None:
    part = SCHEMA["$defs"][name] if name else SCHEMA
    assert part["additionalProperties"] is False
    assert set(part["required"]) == set(part["properties"])


def test_texts_under_fields_are_descriptions() -> None:
    assert SCHEMA["properties"]["rows_sha256"]["description"] == "Hash over every measurement row, sorted."
    gate = SCHEMA["$defs"]["GateResult"]["properties"]
    assert gate["would_flip"]["description"].startswith("The verdict label if this gate alone had the other value")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["verdict", "label"], None), (["verdict", "verdict_class"], "MAYBE"), (["rows_sha256"], 5), (["unknown"], 1),
        (["gates", 0, "truth"], "yes"), (["analyses", 0, "statistics", "delta"], "0.4"), (["sensitivity", 0, "fragile"], None),
    ],
)  # fmt: skip
def test_a_decision_conforms_and_a_broken_one_does_not(path: list[Any], value: Any) -> None:
    validator = Draft202012Validator(SCHEMA)
    data = json.loads(decision_text(whole().decision))
    assert list(validator.iter_errors(data)) == []
    part = data
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    assert list(validator.iter_errors(data)) != []
