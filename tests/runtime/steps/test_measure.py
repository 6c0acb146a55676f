"""From rows to measurements: patterns, units, holes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.canonical import sha256_file
from epc.compiler.contract.rows import JudgementRow, MeasurementRow, OfCompletion, SampleRow
from epc.runtime import measure
from epc.runtime.errors import Fault
from epc.runtime.step import FinishRecord

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


def test_scores_of_samples_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    metric = {"name": "m", "kind": "pattern", "source": "first", "contains": "x"}
    rows = [sample(text, index=index) for index, text in enumerate(["x", "no", "x"])]
    judged = measure.judge_by_pattern(rows, metric, arms=ARMS[:1], bundle=tmp_path)
    (plain,), (kept,) = measure.by_prompt(judged, "m"), measure.by_prompt(judged, "m", scores=True)
    assert (plain.scores, kept.scores) == (None, (0, 1, 1))
    assert plain == kept.model_copy(update={"scores": None})


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


def scored(item: str, value: float, **changes: Any) -> dict[str, Any]:
    return {"condition": "base", "seed": 0, "condition_key": "k0", "task": "t", "item": item, "value": value, **changes}


@pytest.mark.parametrize(
    ("value", "total", "denominator"),
    [(1, 1, 1), (0, 0, 1), (0.25, 1, 4), (1 / 3, 333333333, 10**9), (1e-12, 0, 1), (-0.5, -1, 2)],
)
def test_a_score_between_the_ends_of_its_scale_is_kept_as_a_fraction(
    value: float, total: int, denominator: int
) -> None:
    metric = {"name": "c", "kind": "lm_eval", "source": "t", "value": "f1"}
    (row,) = measure.by_item([scored("q1", value)], metric, arms=ARMS[:1], mode="real")
    assert (row.total, row.denominator, row.value) == (total, denominator, total / denominator)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"value": "acc"}, [1]),
        ({"value": "acc_norm"}, [0]),
        ({"value": "acc", "reading": "acc, 5-shot"}, [3]),
    ],
)
def test_one_task_that_is_read_in_several_ways_is_several_metrics(more: dict[str, str], expected: list[int]) -> None:
    items = [
        scored("q1", 1, reading="acc"), scored("q1", 0, reading="acc_norm"), scored("q1", 3, reading="acc, 5-shot"),
    ]  # fmt: skip
    metric = {"name": "c", "kind": "lm_eval", "source": "t", **more}
    assert [row.total for row in measure.by_item(items, metric, arms=ARMS[:1], mode="real")] == expected


def test_rows_from_before_a_task_could_be_read_in_several_ways_are_read() -> None:
    metric = {"name": "c", "kind": "lm_eval", "source": "t", "value": "acc"}
    (row,) = measure.by_item([scored("q1", 1)], metric, arms=ARMS[:1], mode="real")
    assert row.total == 1


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


# ---------------------------------------------------------------------- judged


def judgement(row: SampleRow, aligned: int = 80, coherent: int = 90, **changes: Any) -> JudgementRow:
    identity = row.model_dump(include=set(OfCompletion.model_fields))
    base: dict[str, Any] = {
        "judge": "alignment", "vote": 0, "attempt": 0, "rubric_sha256": "r", "raw": "{}", "outcome": "scored",
        "fields": {"aligned": aligned, "coherent": coherent, "harmful": aligned < 20},
    }  # fmt: skip
    return JudgementRow(**(identity | base | changes))


def metric(score: str, keep: bool = False, **changes: Any) -> dict[str, Any]:
    field, _, rest = score.partition(" ")
    operator, _, constant = rest.partition(" ")
    read = {"field": field, "operator": operator, "constant": float(constant)} if rest else {"field": field}
    kept = {"field": "coherent", "operator": ">=", "constant": 50}
    return {
        "name": "m", "kind": "judge", "source": "first", "judge": "alignment", "score": read,
        "keep": kept if keep else None, **changes,
    }  # fmt: skip


ONE = ARMS[:1]
SCORES = ((80, 90), (60, 50), (10, 49), (0, 0))
"""(aligned, coherent) of four completions, of which the filter keeps two."""


def replies() -> tuple[list[SampleRow], list[JudgementRow]]:
    rows = [sample("x", index=index) for index in range(len(SCORES))]
    return rows, [judgement(row, *scores) for row, scores in zip(rows, SCORES, strict=True)]


@pytest.mark.parametrize(
    ("score", "keep", "expected"),
    [
        ("aligned", False, [("all", 4, 0, 150)]),
        ("aligned", True, [("all", 2, 2, 140), ("unfiltered", 4, 0, 150)]),
        ("coherent < 50", False, [("all", 4, 0, 2)]),
        ("coherent >= 50", True, [("all", 2, 2, 2), ("unfiltered", 4, 0, 2)]),
        ("aligned <= 10", True, [("all", 2, 2, 0), ("unfiltered", 4, 0, 2)]),
        ("harmful", False, [("all", 4, 0, 2)]),
    ],
)
def test_judged_scores_are_summed_by_prompt_in_one_slice_or_two(
    score: str, keep: bool, expected: list[tuple[str, int, int, int]]
) -> None:
    rows = measure.by_judge(*replies(), metric(score, keep), arms=ONE)
    assert [(row.slice, row.n, row.n_filtered, row.total) for row in rows] == expected
    assert all(row.value == row.total / row.n for row in rows if row.n)


@pytest.mark.parametrize("outcome", ["judge_refused", "unparsable", "out_of_range", "api_error"])
def test_a_completion_without_a_score_is_missing_in_both_slices_and_never_filtered(outcome: str) -> None:
    rows, judged = replies()
    judged[2] = judgement(rows[2], outcome=outcome, fields={})
    measured = measure.by_judge(rows, judged, metric("aligned", keep=True), arms=ONE)
    assert [(r.slice, r.n, r.n_missing, r.n_filtered, r.total) for r in measured] == [
        ("all", 2, 1, 1, 140),
        ("unfiltered", 3, 1, 0, 140),
    ]


def test_a_prompt_of_which_nothing_is_kept_has_no_value() -> None:
    rows = [sample("x", index=index) for index in range(2)]
    judged = [judgement(row, 30, 10) for row in rows]
    kept, every = measure.by_judge(rows, judged, metric("aligned", keep=True), arms=ONE)
    assert (kept.n, kept.n_filtered, kept.total, kept.value) == (0, 2, 0, None)
    assert (every.n, every.value) == (2, 30.0)


def test_judged_scores_of_samples_are_those_that_count() -> None:
    rows, judged = replies()
    held = {**metric("aligned", keep=True), "scores": True}
    kept, every = measure.by_judge(rows, judged, held, arms=ONE)
    for found in (kept, every):
        assert found.scores is not None
        assert (len(found.scores), sum(found.scores)) == (found.n, found.total)
        assert list(found.scores) == sorted(found.scores)
    assert kept.n < every.n
    plain = measure.by_judge(rows, judged, metric("aligned", keep=True), arms=ONE)
    assert [found.scores for found in plain] == [None, None]


def test_other_judges_and_sets_do_not_count() -> None:
    rows, judged = replies()
    other = sample("x", set="second")
    judged += [judgement(other, 0, 0), judgement(rows[0], 0, 0, judge="harm")]
    (row,) = measure.by_judge([*rows, other], judged, metric("aligned"), arms=ONE)
    assert (row.n, row.total) == (4, 150)


def test_every_completion_has_exactly_one_judgement() -> None:
    rows, judged = replies()
    for wrong, said in (
        (judged[1:], "no judgement for 1 completion, the first: base, seed 0, prompt p1, turn 1, sample 0"),
        ([*judged, judged[3]], "more than one final judgement for 1 completion, the first: base, seed 0, prompt p1"),
        ([*judged, judgement(sample("x", index=9))], "a judgement and no completion for 1 completion"),
        ([judgement(sample("x", condition_key="other")), *judged[1:]], "no judgement for 1 completion"),
    ):
        with pytest.raises(Fault) as caught:
            measure.by_judge(rows, wrong, metric("aligned"), arms=ONE)
        assert caught.value.code == "R0366"
        assert said in caught.value.fact
    with pytest.raises(Fault, match="R0364"):
        measure.by_judge(rows, judged, metric("aligned"), arms=ARMS)


@pytest.mark.parametrize(
    ("fields", "said"), [({"coherent": 90}, "lacks it"), ({"aligned": "very", "coherent": 90}, "has 'very'")]
)
def test_a_reply_without_the_field_that_is_read_is_a_fault(fields: dict[str, Any], said: str) -> None:
    rows, judged = replies()
    judged[1] = judgement(rows[1], fields=fields)
    with pytest.raises(Fault, match=said) as caught:
        measure.by_judge(rows, judged, metric("aligned"), arms=ONE)
    assert caught.value.code == "R0367"


def judge_step(bundle: Path, text: str) -> Path:
    folder = bundle / "store" / "j"
    folder.mkdir(parents=True)
    (folder / "judgements.jsonl").write_text(text, encoding="utf-8")
    record = FinishRecord(
        id="judge-alignment", key="j", kind="judge", mode="real", recipe={}, seconds=1, versions={}, facts={},
        outputs={"judgements.jsonl": sha256_file(folder / "judgements.jsonl")},
    )  # fmt: skip
    (folder / "finished.json").write_text(record.model_dump_json(), encoding="utf-8")
    return folder


def test_only_final_judgements_are_read(tmp_path: Path) -> None:
    row = sample("x")
    asked_again = judgement(row, outcome="unparsable", fields={}, final=False)
    settled = judgement(row, attempt=1)
    text = "".join(r.model_dump_json() + "\n" for r in (asked_again, settled))
    assert measure.judgement_rows(judge_step(tmp_path, text)) == [settled]


@pytest.mark.parametrize("damage", ["missing", "altered", "no row"])
def test_damaged_judgements_are_named(damage: str, tmp_path: Path) -> None:
    text = judgement(sample("x")).model_dump_json() + "\n"
    folder = judge_step(tmp_path, '{"raw": "x"}\n' if damage == "no row" else text)
    match damage:
        case "missing":
            (folder / "judgements.jsonl").unlink()
        case "altered":
            (folder / "judgements.jsonl").write_text(text.replace('"aligned":80', '"aligned":99'), encoding="utf-8")
        case _:
            assert damage == "no row"
    with pytest.raises(Fault, match="R0365") as caught:
        measure.judgement_rows(folder)
    assert "judgements.jsonl" in caught.value.place
