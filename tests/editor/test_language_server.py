"""What a person sees who edits a spec that `epc init` wrote, in an editor with a YAML language server.

Opt-in, since the server comes from npm: make test-editor. Nothing here needs a network once it is installed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from epc.compiler.spec import Spec

pytestmark = pytest.mark.editor

ROOT = Path(__file__).resolve().parents[2]
MODELINE = "# yaml-language-server: $schema=spec.schema.json\n"


@pytest.fixture
def spec(project: Path) -> Path:
    return project / "specs/experiment.yaml"


@pytest.fixture
def scratch(project: Path) -> Path:
    """Another file beside it."""
    return project / "specs/scratch.yaml"


def test_what_init_writes_has_no_squiggle(editor: Any, spec: Path) -> None:
    text = spec.read_text(encoding="utf-8")
    assert text.startswith(MODELINE)
    assert editor.problems(spec, text) == []


@pytest.mark.parametrize("name", ["minimal", "quickstart", "issue147", "prompt_only", "two_recipes"])
def test_shipped_specs_have_none_either(editor: Any, scratch: Path, name: str) -> None:
    text = (ROOT / f"specs/{name}.yaml").read_text(encoding="utf-8")
    body = "".join(line for line in text.splitlines(keepends=True) if "yaml-language-server" not in line)
    assert editor.problems(scratch, MODELINE + body) == []


def test_top_level_keys_are_completed(editor: Any, scratch: Path) -> None:
    offered = editor.completion(scratch, MODELINE + "|\n")
    keys = {field.alias or name for name, field in Spec.model_fields.items()}
    assert keys <= set(offered)
    assert offered["epc"] == "epc: 1"
    # those that are there are not offered again, and a prefix narrows
    assert "id" not in editor.completion(scratch, MODELINE + "id: x\n|\n")
    assert "metrics" in editor.completion(scratch, MODELINE + "me|\n")


METRIC = {"better", "missing", "describe", "noise"}
PATTERN, JUDGED, BENCHMARK = (
    {"contains", "contains_any", "regex"},
    {"judge", "score", "keep", "empty"},
    {"lm_eval", "value"},
)


@pytest.mark.parametrize(
    ("body", "offered", "not_offered"),
    [
        ("metrics:\n  x:\n    |\n", METRIC | PATTERN | JUDGED | BENCHMARK | {"of"}, set()),
        ("metrics:\n  x:\n    judge: j\n    |\n", METRIC | (JUDGED - {"judge"}) | {"of"}, PATTERN | BENCHMARK),
        ("metrics:\n  x:\n    lm_eval: t.yaml\n    |\n", METRIC | {"value", "items"}, PATTERN | JUDGED | {"of"}),
        ("metrics:\n  x:\n    contains: hello\n    |\n", METRIC | {"of"}, JUDGED | BENCHMARK),
        ("data:\n  x:\n    |\n", {"build", "turns", "file", "sha256", "rows"}, set()),
        ("data:\n  x:\n    file: a.jsonl\n    |\n", {"sha256", "rows", "stand_in"}, {"turns", "build"}),
        ("train:\n  x:\n    |\n", {"use", "method", "data", "lora"}, set()),
        ("train:\n  x:\n    use: a.yaml\n    |\n", {"method", "data", "lora"}, set()),
        ("verdicts:\n  - |\n", {"if", "then", "otherwise"}, set()),
        ("gates:\n  x:\n    role: |\n", {"validity", "kill", "success", "guardrail"}, set()),
        ("analyses:\n  x: {metric: m, side: |}\n", {"greater", "less", "two_sided"}, set()),
        ("lineage:\n  - varies:\n      - |\n", {"data", "seeds"}, set()),
    ],
)
def test_keys_and_values_are_completed(
    editor: Any, scratch: Path, body: str, offered: set[str], not_offered: set[str]
) -> None:
    found = set(editor.completion(scratch, MODELINE + body))
    assert offered <= found
    assert not not_offered & found


def test_an_analysis_is_offered_with_the_recommended_test(editor: Any, scratch: Path) -> None:
    offered = editor.completion(scratch, MODELINE + "analyses:\n  |\n")
    (body,) = (text for label, text in offered.items() if "studentized" in label)
    for line in ("method: paired_bootstrap", "p: studentized", "alpha: 0.025", "resamples: 10000", "seed: 1"):
        assert line in body


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("conditions: {base", "cond|itions: {base", ["Arm -> its phases in order"]),
        ("hypothesis:\n", "hypo|thesis:\n", ["What is predicted."]),
        ("train_on: every", "tra|in_on: every", ["Which tokens carry loss", "Only the last assistant turn"]),
        ("role: kill", "ro|le: kill", ["The mechanism is dead", "Non-inferiority that success also needs"]),
        ("p: studentized", "p: student|ized", ["Definition of the bootstrap p-value", "recommended"]),
        ("better: higher", "bet|ter: higher", ["Which direction is good"]),
    ],
)
def test_hover_shows_what_a_key_means(editor: Any, spec: Path, old: str, new: str, shown: list[str]) -> None:
    text = spec.read_text(encoding="utf-8")
    assert old in text
    hovered = editor.hover(spec, text.replace(old, new, 1))
    assert all(piece in hovered for piece in shown), hovered


@pytest.mark.parametrize(
    ("old", "new", "under", "message"),
    [
        ("better: higher", "beter: higher", "beter", "Property beter is not allowed."),
        ("side: greater", "side: geater", "geater", 'Valid values: "greater", "less", "two_sided"'),
        ("  habit_rate:", "  Habit_rate:", "Habit_rate", "Property Habit_rate is not allowed."),
        ("hypothesis:\n", "hypotesis:\n", "hypotesis", "Property hypotesis is not allowed."),
        ("conditions:", "condition:", "condition", "Property condition is not allowed."),
        ("n: 4,", "n: four,", "four", 'Incorrect type. Expected "integer"'),
        ("when: headline", "require: headline.reject, when: headline", "{", "only one must validate"),
        ("epochs: 2", "epoch: 2", "epoch", "Property epoch is not allowed."),
    ],
)
def test_mistakes_are_underlined(editor: Any, spec: Path, old: str, new: str, under: str, message: str) -> None:
    text = spec.read_text(encoding="utf-8")
    assert old in text
    broken = text.replace(old, new, 1)
    line = broken[: broken.index(new)].count("\n") + 1
    found = editor.problems(spec, broken)
    assert [place for place, piece, said in found if message in said and piece.startswith(under)] == [line], found


def test_only_the_mistake_is_underlined(editor: Any, spec: Path) -> None:
    """A misspelt optional key of a union's member is one problem, not one for every member."""
    broken = spec.read_text(encoding="utf-8").replace("better: higher", "better: higher, describ: x", 1)
    assert [said for _, _, said in editor.problems(spec, broken)] == ["Property describ is not allowed."]
