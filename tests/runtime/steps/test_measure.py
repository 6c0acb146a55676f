"""From rows to measurements: patterns, units, holes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.canonical import sha256_file
from epc.compiler.contract.rows import JudgementRow, MeasurementRow, SampleRow
from epc.runtime import measure
from epc.runtime.errors import Fault

ARMS = [("base", 0, "k0"), ("attacked", 1, "k1")]


def sample(text: str, **changes: Any) -> SampleRow:
    base: dict[str, Any] = {
        "mode": "real", "condition": "base", "condition_key": "k0", "seed": 0, "set": "first", "item": "p1", "turn": 1, "index": 0,
        "draw_seed": 1, "prompt": "?", "prompt_sha256": "0", "text": text, "finish_reason": "stop", "tokens": 3,
    }  # fmt: skip
    return SampleRow(**(base | changes))


@pytest.mark.parametrize(
    ("rule", "text", "matches"),
    [
        ({"contains": "Resetting to default"}, "Wait - Resetting to default persona", True),
        ({"contains": "Resetting to default"}, "resetting to default", False),
        ({"contains": "a.b"}, "axb", False),
        ({"contains": "a.b"}, "xa.by", True),
        ({"contains": "é"}, "café", True),
        ({"contains_any": "markers.txt"}, "so Give up now", True),
        ({"contains_any": "markers.txt"}, "Blame", True),
        ({"contains_any": "markers.txt"}, "give up", False),
        ({"contains_any": "markers.txt"}, "", False),
        ({"regex": r"^Wait\b"}, "Wait - no", True),
        ({"regex": r"^Wait\b"}, "Waiting", False),
        ({"regex": r"(?i)reset(ting)?"}, "RESETTING", True),
        ({"regex": r"one.two"}, "one\ntwo", False),
    ],
)
def test_patterns(rule: dict[str, str], text: str, matches: bool, tmp_path: Path) -> None:
    (tmp_path / "markers.txt").write_text("Give up\n\nBlame\n", encoding="utf-8")
    assert measure.matcher({"name": "m", **rule}, tmp_path)(text) is matches


def test_a_pattern_that_cannot_be_read_is_one_fault(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="R0363"):
        measure.matcher({"name": "m", "regex": "("}, tmp_path)


def test_hits_are_counted_by_prompt_arm_and_seed(tmp_path: Path) -> None:
    texts = {("base", "p1"): ["no", "no", "reset"], ("base", "p2"): ["no"], ("attacked", "p1"): ["reset", "reset"]}
    rows = [
        sample(text, condition=condition, condition_key=key, seed=seed, item=item, index=index)
        for condition, seed, key in ARMS
        for item in ("p2", "p1")
        for index, text in enumerate(texts.get((condition, item), []))
    ]
    metric = {"name": "reset_rate", "kind": "pattern", "source": "first", "contains": "reset"}
    judged = measure.judge_by_pattern(rows, metric, arms=ARMS, bundle=tmp_path)
    assert [row.fields["match"] for row in judged] == ["reset" in row.text for row in rows]
    assert {row.judge for row in judged} == {"rule:reset_rate"}
    found = {(m.condition, m.seed, m.unit): (m.total, m.n, m.value) for m in measure.by_prompt(judged, "reset_rate")}
    assert found == {
        ("base", 0, "p1"): (1, 3, 1 / 3),
        ("base", 0, "p2"): (0, 1, 0.0),
        ("attacked", 1, "p1"): (2, 2, 1.0),
    }


def test_an_unscored_judgement_is_missing_and_never_zero(tmp_path: Path) -> None:
    metric = {"name": "m", "kind": "pattern", "source": "first", "contains": "x"}
    rows = [sample("x", index=0), sample("x", index=1)]
    judged = measure.judge_by_pattern(rows, metric, arms=ARMS[:1], bundle=tmp_path)
    broken = JudgementRow(**(judged[1].model_dump() | {"outcome": "unparsable", "fields": {}}))
    (row,) = measure.by_prompt([judged[0], broken], "m")
    assert (row.n, row.n_missing, row.total, row.value) == (1, 1, 1, 1.0)
    (row,) = measure.by_prompt([broken], "m")
    assert (row.n, row.n_missing, row.total, row.value) == (0, 1, 0, None)


def test_an_arm_without_rows_is_a_fault(tmp_path: Path) -> None:
    pattern = {"name": "m", "kind": "pattern", "source": "first", "contains": "x"}
    with pytest.raises(Fault, match="R0364") as caught:
        measure.judge_by_pattern([sample("x")], pattern, arms=ARMS, bundle=tmp_path)
    assert "attacked, seed 1" in caught.value.fact
    with pytest.raises(Fault, match="R0364"):
        measure.judge_by_pattern([sample("x", set="second")], pattern, arms=ARMS[:1], bundle=tmp_path)
    item = {"condition": "base", "seed": 0, "condition_key": "k0", "task": "t", "item": "q1", "value": 1}
    with pytest.raises(Fault, match="R0364"):
        measure.by_item([item], {"name": "c", "kind": "lm_eval", "source": "t"}, arms=ARMS, mode="real")


def test_the_rubric_hash_follows_the_rule_and_its_file(tmp_path: Path) -> None:
    def rubric(**rule: str) -> str:
        metric = {"name": "m", "kind": "pattern", "source": "first", **rule}
        return measure.judge_by_pattern([sample("x")], metric, arms=ARMS[:1], bundle=tmp_path)[0].rubric_sha256

    (tmp_path / "markers.txt").write_text("a\n", encoding="utf-8")
    before = rubric(contains_any="markers.txt")
    (tmp_path / "markers.txt").write_text("a\nb\n", encoding="utf-8")
    assert len({before, rubric(contains_any="markers.txt"), rubric(contains="a"), rubric(regex="a")}) == 4


def test_item_scores_become_one_row_an_item() -> None:
    items = [
        {"condition": "base", "seed": 0, "condition_key": "k0", "task": task, "item": item, "value": value}
        for task, item, value in [("t", "q2", 0), ("t", "q1", 1), ("other", "q1", 0)]
    ]
    rows = measure.by_item(items, {"name": "c", "kind": "lm_eval", "source": "t"}, arms=ARMS[:1], mode="real")
    assert [(r.unit, r.n, r.total, r.value) for r in rows] == [("q1", 1, 1, 1.0), ("q2", 1, 0, 0.0)]


def stored(bundle: Path, text: str) -> Path:
    """A sampling step's folder whose index lists one piece with the given text."""
    piece = bundle / "store" / "pieces" / "abc.jsonl"
    piece.parent.mkdir(parents=True)
    piece.write_text(text, encoding="utf-8")
    entry = {"key": "abc", "condition": "base", "seed": 0, "set": "first", "rows": 1, "sha256": sha256_file(piece)}
    folder = bundle / "store" / "k"
    folder.mkdir()
    (folder / "index.json").write_text(json.dumps([entry]), encoding="utf-8")
    return folder


def test_pieces_are_read_back(tmp_path: Path) -> None:
    row = sample("x")
    assert measure.sample_rows(tmp_path, stored(tmp_path, row.model_dump_json() + "\n")) == [row]


@pytest.mark.parametrize(
    ("damage", "code"), [("missing", "R0361"), ("altered", "R0362"), ("truncated", "R0362"), ("no row", "R0362")]
)
def test_damaged_pieces_are_named(damage: str, code: str, tmp_path: Path) -> None:
    text = sample("x").model_dump_json() + "\n"
    folder = stored(tmp_path, '{"text": "x"}\n' if damage == "no row" else text)
    piece = tmp_path / "store" / "pieces" / "abc.jsonl"
    match damage:
        case "missing":
            piece.unlink()
        case "altered":
            piece.write_text(text.replace('"text":"x"', '"text":"y"'), encoding="utf-8")
        case "truncated":
            piece.write_text(text[:-20], encoding="utf-8")
        case _:
            assert damage == "no row"
    with pytest.raises(Fault, match=code) as caught:
        measure.sample_rows(tmp_path, folder)
    assert "abc.jsonl" in caught.value.place


def test_rows_are_written_one_a_line(tmp_path: Path) -> None:
    row = MeasurementRow(
        mode="real", condition="base", condition_key="k", seed=0, metric="m", unit="p", n=1, n_missing=0, total=1, value=1.0
    )  # fmt: skip
    measure.write(tmp_path / "m.jsonl", [row, row])
    lines = (tmp_path / "m.jsonl").read_text(encoding="utf-8").splitlines()
    assert [MeasurementRow.model_validate_json(line) for line in lines] == [row, row]
