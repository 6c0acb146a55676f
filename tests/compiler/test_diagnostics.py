"""What a diagnostic looks like in each format."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from epc import __version__
from epc.compiler.diagnostics import Diagnostics, Label, Span, render, render_allowed, summary

FILE = "specs/a spec, new: 100%.yaml"
NASTY = "100% of a: b, c\r\nand ünïcode ✓ ::error::"


def span(line: int, column: int, length: int = 1, file: str = FILE) -> Span:
    return Span(file=file, line=line, column=column, length=length)


@pytest.fixture
def sink() -> Diagnostics:
    """An error with everything, a warning of the same line, and an accepted warning."""
    sink = Diagnostics(sources={FILE: ["epc: 1", "id: x", "allow: [{code: W0001}]"]})
    sink.warning("W1301", "unused", span(2, 5), help="delete it")
    sink.error(
        "E0501", NASTY, span(2, 1, 2), help="write count: 24", notes=["8 + 44 = 52"], labels=[Label(span=span(1, 6), text="here")]
    )  # fmt: skip
    sink.warning("W1302", "no analysis reads it", span(1, 1, 3), help="delete it")
    accepted = next(item for item in sink if item.code == "W1302")
    sink.allow(accepted, "it is there to be looked at", span(3, 16, 5))
    return sink


def test_what_is_allowed_does_not_count(sink: Diagnostics) -> None:
    assert [item.code for item in sink] == ["E0501", "W1301"]
    assert (sink.errors, sink.warnings, len(sink.allowed)) == (1, 1, 1)
    assert summary(sink) == "1 error, 1 warning, 1 allowed by the spec with a reason"
    assert summary(Diagnostics()) == "0 errors, 0 warnings"


# ------------------------------------------------------------------- text


def test_text(sink: Diagnostics) -> None:
    text = render(sink)
    assert "W1302" not in text
    assert "error[E0501]" in text
    assert f"--> {FILE}:2:1" in text
    assert "2 | id: x\n  | ^^\n" in text
    assert f"::: {FILE}:1:6" in text
    assert "1 | epc: 1\n  |      ^ here" in text
    assert "= note: 8 + 44 = 52" in text
    assert "= help: write count: 24" in text


def test_allowed_warnings_are_shown_with_reason_and_place(sink: Diagnostics) -> None:
    text = render_allowed(sink)
    assert text.startswith("allowed[W1302]: no analysis reads it")
    assert f"--> {FILE}:1:1" in text
    assert f"::: {FILE}:3:16" in text
    assert text.endswith("= reason: it is there to be looked at")
    assert render_allowed(Diagnostics()) == ""


def test_colour_is_the_same_text_in_colour(sink: Diagnostics) -> None:
    for draw in (render, render_allowed):
        coloured = draw(sink, colour=True)
        assert "\x1b[" in coloured
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == draw(sink)
        assert "\x1b" not in draw(sink)


# ------------------------------------------------------------------- json


def test_json(sink: Diagnostics) -> None:
    document = json.loads(render(sink, "json"))
    assert set(document) == {"version", "errors", "warnings", "diagnostics", "allowed"}
    assert (document["version"], document["errors"], document["warnings"]) == (1, 1, 1)
    error, warning = document["diagnostics"]
    assert error == {
        "code": "E0501", "severity": "error", "message": NASTY, "file": FILE, "line": 2, "column": 1, "length": 2,
        "help": "write count: 24", "notes": ["8 + 44 = 52"],
        "labels": [{"file": FILE, "line": 1, "column": 6, "length": 1, "text": "here"}],
    }  # fmt: skip
    assert warning["severity"] == "warning"
    (allowed,) = document["allowed"]
    assert allowed["code"] == "W1302"
    assert allowed["reason"] == "it is there to be looked at"
    assert allowed["by"] == {"file": FILE, "line": 3, "column": 16, "length": 5}


def test_nothing_to_report_is_still_a_document() -> None:
    assert json.loads(render(Diagnostics(), "json"))["diagnostics"] == []
    assert json.loads(render(Diagnostics(), "sarif"))["runs"][0]["results"] == []
    assert render(Diagnostics(), "github") == ""


# ------------------------------------------------------------------ sarif

SARIF: dict[str, Any] = {
    "document": ({"$schema": str, "version": str, "runs": list}, ()),
    "run": ({"tool": dict, "results": list, "columnKind": str}, ()),
    "driver": ({"name": str, "version": str, "rules": list}, ()),
    "rule": ({"id": str, "defaultConfiguration": dict}, ("shortDescription", "help")),
    "result": (
        {"ruleId": str, "ruleIndex": int, "level": str, "message": dict, "locations": list, "relatedLocations": list, "suppressions": list},
        (),
    ),
    "location": ({"physicalLocation": dict}, ("id", "message")),
    "physical": ({"artifactLocation": dict, "region": dict}, ()),
    "region": ({"startLine": int, "startColumn": int, "endColumn": int}, ()),
    "suppression": ({"kind": str, "justification": str, "location": dict}, ()),
}  # fmt: skip
"""Object of the standard -> the properties that epc writes, with their types, and those it may leave out.

All of them are in the OASIS schema, which forbids any other in each of these objects.
"""


def sarif_object(kind: str, value: dict[str, Any]) -> dict[str, Any]:
    """The value, after its keys and their types have been compared with the standard's."""
    required, optional = SARIF[kind]
    assert set(required) <= set(value) <= {*required, *optional}
    assert all(isinstance(value[key], type_) for key, type_ in required.items())
    return value


def sarif_location(value: dict[str, Any]) -> tuple[str, int, int, int]:
    physical = sarif_object("physical", sarif_object("location", value)["physicalLocation"])
    region = sarif_object("region", physical["region"])
    uri: str = physical["artifactLocation"]["uri"]
    assert re.fullmatch(r"[A-Za-z0-9._~/%:\-]+", uri), "not a URI reference"
    return uri, region["startLine"], region["startColumn"], region["endColumn"]


def test_sarif_has_the_structure_of_the_standard(sink: Diagnostics) -> None:
    document = sarif_object("document", json.loads(render(sink, "sarif")))
    assert document["version"] == "2.1.0"
    assert document["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = document["runs"]
    sarif_object("run", run)
    assert run["columnKind"] == "unicodeCodePoints"
    driver = sarif_object("driver", run["tool"]["driver"])
    assert (driver["name"], driver["version"]) == ("epc", __version__)
    rules = [sarif_object("rule", rule) for rule in driver["rules"]]
    assert [rule["id"] for rule in rules] == ["E0501", "W1301", "W1302"]
    for rule in rules:
        assert rule["defaultConfiguration"]["level"] == ("error" if rule["id"].startswith("E") else "warning")
        assert set(rule["shortDescription"]) == {"text"}
        assert rule["shortDescription"]["text"] in rule["help"]["text"].replace("\n", " ")
    for result in run["results"]:
        sarif_object("result", result)
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("error", "warning")


def test_sarif_results(sink: Diagnostics) -> None:
    error, warning, allowed = json.loads(render(sink, "sarif"))["runs"][0]["results"]
    uri = "specs/a%20spec%2C%20new%3A%20100%25.yaml"
    assert error["message"] == {"text": f"{NASTY}\nnote: 8 + 44 = 52\nhelp: write count: 24"}
    assert [sarif_location(place) for place in error["locations"]] == [(uri, 2, 1, 3)]
    assert [sarif_location(place) for place in error["relatedLocations"]] == [(uri, 1, 6, 7)]
    assert error["relatedLocations"][0]["message"] == {"text": "here"}
    assert (error["suppressions"], warning["suppressions"]) == ([], [])
    (suppression,) = allowed["suppressions"]
    sarif_object("suppression", suppression)
    assert (suppression["kind"], suppression["justification"]) == ("inSource", "it is there to be looked at")
    assert sarif_location(suppression["location"]) == (uri, 3, 16, 21)


def test_sarif_names_an_absolute_path_as_a_file() -> None:
    sink = Diagnostics()
    sink.error("E0401", "file not found", span(1, 1, file="/srv/my specs/a.yaml"), help="look")
    (result,) = json.loads(render(sink, "sarif"))["runs"][0]["results"]
    assert sarif_location(result["locations"][0])[0] == "file:///srv/my%20specs/a.yaml"


# ----------------------------------------------------------------- github


def parsed(line: str) -> tuple[str, dict[str, str], str]:
    """A workflow command as the runner of GitHub Actions reads it: (command, properties, message)."""

    def data(text: str) -> str:
        return text.replace("%0D", "\r").replace("%0A", "\n").replace("%25", "%")

    found = re.fullmatch(r"::([a-z]+) ([^:]*?)::(.*)", line, re.DOTALL)
    assert found is not None, line
    pairs = (pair.split("=", 1) for pair in found[2].split(","))
    return (
        found[1],
        {key: data(value.replace("%3A", ":").replace("%2C", ",")) for key, value in pairs},
        data(found[3]),
    )


def test_github_has_one_line_for_each_diagnostic_and_loses_nothing(sink: Diagnostics) -> None:
    error, warning = (parsed(line) for line in render(sink, "github").split("\n"))
    assert error[0] == "error"
    assert error[1] == {"file": FILE, "line": "2", "endLine": "2", "col": "1", "endColumn": "3", "title": "E0501"}
    assert error[2] == f"{NASTY}\nnote: 8 + 44 = 52\nhelp: write count: 24"
    assert (warning[0], warning[1]["title"]) == ("warning", "W1301")


@pytest.mark.parametrize("nasty", ["%", "%25", "a%0Ab", "\n", "\r\n", ":", ",", "::error::x", "a,line=3", "{}%3A"])
def test_github_escapes_are_undone_by_the_runner(nasty: str) -> None:
    sink = Diagnostics()
    sink.warning("W1301", f"<{nasty}>", span(1, 1, file=f"<{nasty}>.yaml"), help="h")
    text = render(sink, "github")
    assert "\n" not in text
    _, properties, message = parsed(text)
    assert properties["file"] == f"<{nasty}>.yaml"
    assert message == f"<{nasty}>\nhelp: h"
