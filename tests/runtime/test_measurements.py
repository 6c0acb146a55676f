"""Reading measurement rows: every problem of a file at once, each at its line; exact unit values."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.canonical import canonical_json, sha256_text
from epc.compiler.contract.manifest import Condition, Design, Manifest, Metric
from epc.compiler.contract.rows import MeasurementRow
from epc.runtime.errors import Fault
from epc.runtime.measurements import Unit, group, read_measurements, rows_sha256

MANIFEST = Manifest(
    epc="0.1.0", id="tiny", title="tiny", mode="real", spec="specs/tiny.yaml", spec_sha256="0" * 64,
    lock_sha256="1" * 64, steps=(),
    design=Design(
        question="If x, then y.",
        conditions=(
            Condition(name="base", key="b" * 16, phases=(), seeds=(0,)),
            Condition(name="tuned", key="c" * 16, phases=("reflex",), seeds=(1, 2)),
        ),
        metrics=(
            Metric(
                name="rate", kind="pattern", source="first", unit="prompt", scale=(0, 1), better="higher", missing="fail"
            ),
        ),
        analyses=(), gates=(), verdicts=(), seeds=(1, 2),
    ),
)  # fmt: skip


def row(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "mode": "real", "condition": "base", "condition_key": "b" * 16, "seed": 0, "metric": "rate", "slice": "all",
        "unit": "p1", "n": 4, "n_missing": 0, "n_filtered": 0, "total": 1, "denominator": 1, "value": 0.25,
    }  # fmt: skip
    return {**fields, **changes}


def write(folder: Path, *lines: dict[str, Any] | str, end: str = "\n") -> Path:
    file = folder / "measurements.jsonl"
    file.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines) + end, encoding="utf-8")
    return file


def read(file: Path) -> tuple[MeasurementRow, ...]:
    return read_measurements(file, MANIFEST)


def test_good_rows_are_read_in_order(tmp_path: Path) -> None:
    found = read(write(tmp_path, row(), row(unit="p2"), row(unit="p1", slice="hard")))
    assert [(r.unit, r.slice) for r in found] == [("p1", "all"), ("p2", "all"), ("p1", "hard")]


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert read(write(tmp_path, end="")) == ()


@pytest.mark.parametrize(
    ("bad", "fact"),
    [
        (row(colour="red"), "unknown field 'colour'"),
        ({k: v for k, v in row().items() if k != "total"}, "field 'total' is missing"),
        (json.dumps(row()).replace("0.25", "NaN"), "value is not a finite number"),
        (row(n="4"), "n: Input should be a valid integer"),
        ("{not json", "not JSON"),
        ("", "not JSON"),
        (row(mode="rehearsal"), "the row is of a rehearsal run, this registration is real"),
        (row(metric="speed"), "metric 'speed' is not in the manifest, which has rate"),
        (row(condition="bsae"), "condition 'bsae' is not in the manifest, which has base, tuned"),
        (row(condition_key="d" * 16), "another arm of the same name"),
        (row(seed=3), "training seed 3 of base is not in the manifest, which has 0"),
        (row(n=-1), "n is -1, below 0"),
        (row(n_missing=-2), "n_missing is -2, below 0"),
        (row(denominator=0), "denominator is 0, below 1"),
        (row(total=5, value=1.25), r"total 5 / 1 over n = 4 lies outside the scale \[0, 1\] of rate"),
        (row(total=-1, value=-0.25), "lies outside the scale"),
        (row(value=0.26), "value is 0.26, but total / denominator / n is 0.25"),
        (row(value=None), "value is None, but total / denominator / n is 0.25"),
        (row(n=0), "n is 0, so total must be 0 and value null"),
        (row(scores=[0, 0, 1]), "the 3 scores of samples add up to 1, but n is 4 and total 1"),
        (row(scores=[0, 0, 1, 1]), "the 4 scores of samples add up to 2, but n is 4 and total 1"),
        (row(scores=[0, 1, 0, 0]), "not ascending"),
        (row(scores=[-1, 0, 1, 1]), "a sample's score of -1 / 1 lies outside the scale"),
        (row(scores=[0, 0, 0.5, 0.5]), "scores.2: Input should be a valid integer"),
    ],
)
def test_each_problem_is_named_at_its_line(tmp_path: Path, bad: dict[str, Any] | str, fact: str) -> None:
    file = write(tmp_path, row(unit="p0"), bad, row(unit="p9"))
    with pytest.raises(Fault, match=fact) as caught:
        read(file)
    assert (caught.value.code, caught.value.place) == ("R0501", f"{file}:2")
    assert str(tmp_path) in caught.value.remedy
    assert caught.value.render().count("\n") == 2


def test_a_second_row_of_the_same_identity_names_the_first(tmp_path: Path) -> None:
    with pytest.raises(Fault, match=r"a second row for base / 0 / rate / all / p1, which line 1 has") as caught:
        read(write(tmp_path, row(), row(unit="p2"), row(total=2, value=0.5)))
    assert caught.value.place.endswith(":3")


@pytest.mark.parametrize("kept", [1, 40, 150])
def test_a_truncated_file_is_refused_wherever_it_was_cut(tmp_path: Path, kept: int) -> None:
    second = json.dumps(row(unit="p2"))
    file = write(tmp_path, row(), second[:kept], end="")
    with pytest.raises(Fault, match="cut off") as caught:
        read(file)
    assert caught.value.place == f"{file}:2"


def test_a_last_row_without_its_newline_counts_as_truncated(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="cut off"):
        read(write(tmp_path, row(), row(unit="p2"), end=""))


def test_all_problems_of_a_file_are_told_at_once_and_the_first_ten_spelled_out(tmp_path: Path) -> None:
    lines = [row(unit=f"p{i}", n=-1) if i % 2 else row(unit=f"p{i}", metric="speed") for i in range(14)]
    with pytest.raises(Fault) as caught:
        read(write(tmp_path, *lines))
    text = caught.value.fact
    assert text.startswith("14 problems in the measurement rows\n")
    assert text.count("    line ") == 10
    assert "line 1: metric 'speed'" in text
    assert "line 10: n is -1" in text
    assert text.endswith("    and 4 more")


def test_a_file_that_is_not_text_is_one_clear_fault(tmp_path: Path) -> None:
    file = tmp_path / "measurements.jsonl"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Fault, match="not UTF-8") as caught:
        read(file)
    assert caught.value.code == "R0502"


def test_the_hash_of_rows_ignores_their_order_and_sees_every_value(tmp_path: Path) -> None:
    one = read(write(tmp_path, row(), row(unit="p2")))
    other = read(write(tmp_path, row(unit="p2"), row()))
    changed = read(write(tmp_path, row(unit="p2"), row(total=2, value=0.5)))
    assert rows_sha256(one) == rows_sha256(other) != rows_sha256(changed)


def test_scores_of_samples_are_in_a_row_only_where_it_has_them(tmp_path: Path) -> None:
    without, within = read(write(tmp_path, row(), row(unit="p2", scores=[0, 0, 0, 1])))
    assert json.loads(without.model_dump_json()) == row()
    assert json.loads(within.model_dump_json()) == row(unit="p2", scores=[0, 0, 0, 1])
    assert rows_sha256([without]) == sha256_text(canonical_json(row()) + "\n")
    both = sorted(canonical_json(one.model_dump(mode="json")) + "\n" for one in (without, within))
    assert rows_sha256([within, without]) == sha256_text("".join(both))


def tuned(seed: int, **changes: Any) -> MeasurementRow:
    return MeasurementRow.model_validate(row(condition="tuned", condition_key="c" * 16, seed=seed, **changes))


@pytest.mark.parametrize(
    ("rows", "fill", "value"),
    [
        # 1/4 and 2/3 weigh the same, whatever their n.
        ([tuned(1), tuned(2, n=3, total=2, value=2 / 3)], None, Fraction(11, 24)),
        ([tuned(1), tuned(2, total=7, denominator=10, value=0.175)], None, Fraction(17, 80)),
        ([tuned(1)], None, None),
        ([tuned(1), tuned(2, n=0, n_missing=4, total=0, value=None)], None, None),
        ([tuned(1), tuned(2, n=0, n_missing=4, total=0, value=None)], Fraction(1), Fraction(5, 8)),
        ([tuned(1)], Fraction(0), Fraction(1, 8)),
        ([tuned(1, n=3, n_missing=1, total=1, value=1 / 3), tuned(2)], Fraction(1), Fraction(3, 8)),
        ([tuned(1, n=3, n_missing=1, total=1, value=1 / 3), tuned(2)], None, Fraction(7, 24)),
    ],
)
def test_a_units_value_is_the_mean_over_its_training_seeds(
    rows: list[MeasurementRow], fill: Fraction | None, value: Fraction | None
) -> None:
    assert Unit(rows={r.seed: r for r in rows}).value((1, 2), fill) == value


def test_grouping_keeps_other_slices_out_of_the_units() -> None:
    found = group([tuned(1), tuned(1, slice="hard", unit="p2"), tuned(1, unit="p3")])
    assert found.units("rate") == ["p1", "p3"]
    assert len(found.rows) == 3


def kept(n: int, missing: int, filtered: int, total: int = 0) -> MeasurementRow:
    return tuned(1, n=n, n_missing=missing, n_filtered=filtered, total=total, value=total / n if n else None)


@pytest.mark.parametrize(
    ("row", "fill", "value", "emptied"),
    [
        (kept(2, 0, 2, total=1), None, Fraction(1, 2), False),
        (kept(2, 0, 2, total=1), Fraction(0), Fraction(1, 2), False),  # what was filtered is known
        (kept(2, 2, 2, total=1), Fraction(0), Fraction(1, 4), False),
        (kept(0, 0, 4), None, None, True),
        (kept(0, 0, 4), Fraction(1), None, True),  # never filled: nothing is missing
        (kept(0, 1, 3), None, None, False),
        (kept(0, 1, 3), Fraction(1), Fraction(1), False),
        (kept(0, 4, 0), None, None, False),
    ],
)
def test_what_the_filter_empties_is_not_missing(
    row: MeasurementRow, fill: Fraction | None, value: Fraction | None, emptied: bool
) -> None:
    unit = Unit(rows={1: row})
    assert (unit.value((1,), fill), unit.emptied((1,))) == (value, emptied)


def test_a_unit_that_also_lacks_a_seed_is_missing_and_not_emptied() -> None:
    unit = Unit(rows={1: kept(0, 0, 4)})
    assert unit.emptied((1,))
    assert not unit.emptied((1, 2))
    assert not Unit(rows={1: kept(0, 0, 4), 2: tuned(2, n=0, n_missing=4, total=0, value=None)}).emptied((1, 2))


def test_unfiltered_rows_are_kept_apart() -> None:
    found = group([tuned(1), tuned(1, slice="unfiltered", total=3, value=0.75)])
    cell = ("rate", "tuned")
    assert found.cells[cell]["p1"].value((1,)) == Fraction(1, 4)
    assert found.unfiltered[cell]["p1"].value((1,)) == Fraction(3, 4)
