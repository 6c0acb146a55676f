"""CSV, JSON Lines and Parquet: exact totals of sound rows, and every kind of bad row named with file and row."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from fractions import Fraction
from typing import Any

import pytest

from epc.compiler.contract.manifest import ResultsFile

from .conftest import PLAIN, SAMPLED, TYPED, Desk

Rows = dict[tuple[str, str, int], tuple[int, int, int, int]]

SOUND: list[tuple[str, str, dict[str, str], Rows]] = [
    (
        "one row a unit", "item,arm,score\na,base,0.1\na,tuned,1\nb,base,0.25\nb,tuned,0\n", PLAIN,
        {("base", "a", 0): (1, 0, 10, 100), ("tuned", "a", 0): (1, 0, 100, 100), ("base", "b", 0): (1, 0, 25, 100), ("tuned", "b", 0): (1, 0, 0, 100)},
    ),
    (
        "samples", "item,arm,k,score\na,base,0,0.1\na,base,1,0.2\na,tuned,0,1\na,tuned,1,.5\n", SAMPLED,
        {("base", "a", 0): (2, 0, 3, 10), ("tuned", "a", 0): (2, 0, 15, 10)},
    ),
    (
        "samples with gaps, and named ones", "item,arm,k,score\na,base,0,0.1\na,base,7,0.2\na,tuned,x,1e0\na,tuned,y,1e-1\n", SAMPLED,
        {("base", "a", 0): (2, 0, 3, 10), ("tuned", "a", 0): (2, 0, 11, 10)},
    ),
    (
        "outcomes", "item,arm,k,score,why\na,base,0,1,scored\na,base,1,,api_error\na,tuned,0,,refused\na,tuned,1,,refused\n", TYPED,
        {("base", "a", 0): (1, 1, 1, 1), ("tuned", "a", 0): (0, 2, 0, 1)},
    ),
    (
        "one unit missing in one arm is left to the missing rule", "item,arm,score\na,base,0\na,tuned,1\nb,base,1\n", PLAIN,
        {("base", "a", 0): (1, 0, 0, 1), ("tuned", "a", 0): (1, 0, 1, 1), ("base", "b", 0): (1, 0, 1, 1)},
    ),
    (
        "quotes, line breaks, a byte order mark, Windows lines", '\ufeffitem,arm,score\r\n"a, ""b""\nc",base,1\r\n\r\n"a, ""b""\nc",tuned,0\r\n', PLAIN,
        {("base", 'a, "b"\nc', 0): (1, 0, 1, 1), ("tuned", 'a, "b"\nc', 0): (1, 0, 0, 1)},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "mapping", "rows"), [case[1:] for case in SOUND], ids=[case[0] for case in SOUND])
def test_sound_rows_have_exact_totals(desk: Desk, text: str, mapping: dict[str, str], rows: Rows) -> None:
    assert desk.rows(desk.csv(text, mapping)) == rows


FORMS: list[tuple[str, str, str, str]] = [
    ("decimals", "0.1", "0.1::DOUBLE", "0.1"),
    ("an integer", "1", "1::INTEGER", "1"),
    ("a decimal type", "0.25", "0.25::DECIMAL(10, 2)", "0.25"),
    ("single precision is the decimal it prints", "0.1", "0.1::FLOAT", "0.1"),
    ("fifteen digits", "0.123456789012345", "0.123456789012345::DOUBLE", "0.123456789012345"),
    ("an exponent", "1e-05", "1e-05::DOUBLE", "0.00001"),
]


@pytest.mark.parametrize(("text", "sql", "exact"), [case[1:] for case in FORMS], ids=[case[0] for case in FORMS])
def test_every_format_gives_the_same_exact_score(desk: Desk, text: str, sql: str, exact: str) -> None:
    entries = [
        desk.csv(f"item,arm,score\na,base,{text}\na,tuned,0\n"),
        desk.jsonl(f'{{"item": "a", "arm": "base", "score": {text}}}\n{{"item": "a", "arm": "tuned", "score": 0}}\n'),
        desk.parquet(f"SELECT 'a' item, 'base' arm, {sql} score UNION ALL SELECT 'a', 'tuned', 0"),
    ]
    for entry in entries:
        _, _, total, denominator = desk.rows(entry)["base", "a", 0]
        assert Fraction(total, denominator) == Fraction(exact)
        assert not desk.read(entry).read[0].rounded


def test_a_score_of_more_digits_is_rounded_and_the_decision_says_so(desk: Desk) -> None:
    entry = desk.csv("item,arm,score\na,base,0.3333333333333333\na,tuned,0.5\n")
    assert desk.rows(entry) == {("base", "a", 0): (1, 0, 333333333, 10**9), ("tuned", "a", 0): (1, 0, 5 * 10**8, 10**9)}
    assert desk.read(entry).read[0].rounded == ("acc",)


def test_totals_are_those_of_exact_arithmetic_whatever_the_order_of_rows(desk: Desk) -> None:
    draw = random.Random(5)
    scores = [round(draw.uniform(0, 100), draw.choice((0, 1, 3, 11))) for _ in range(4000)]
    lines = [f"u{index % 7},{('base', 'tuned')[index % 2]},{index},{score!r}" for index, score in enumerate(scores)]
    expected: dict[tuple[str, str], Fraction] = {}
    for index, score in enumerate(scores):
        cell = (("base", "tuned")[index % 2], f"u{index % 7}")
        expected[cell] = expected.get(cell, Fraction(0)) + Fraction(repr(score))
    found = []
    for _ in range(2):
        draw.shuffle(lines)
        entry = desk.csv("item,arm,k,score\n" + "\n".join(lines) + "\n", SAMPLED)
        imported = desk.read(entry, scale=(0, 100))
        assert {(row.condition, row.unit): Fraction(row.total, row.denominator) for row in imported.rows} == expected
        found.append(imported.rows)
    assert found[0] == found[1]


def test_scores_of_single_samples_are_kept_where_an_analysis_resamples_them(desk: Desk) -> None:
    text = "item,arm,k,score,why\na,base,0,0.5,scored\na,base,1,0.25,scored\na,base,2,,lost\na,tuned,0,1,scored\n"
    rows = desk.read(desk.csv(text, TYPED), scores=True).rows
    assert {row.condition: (row.scores, row.total, row.denominator) for row in rows} == {
        "base": ((25, 50), 75, 100), "tuned": ((100,), 100, 100)
    }  # fmt: skip


def test_training_seeds_are_rows_of_their_own(desk: Desk) -> None:
    text = "item,arm,s,score\n" + "".join(
        f"a,{arm},{seed},{seed - 1}\n" for arm in ("base", "tuned") for seed in (1, 2)
    )
    entry = desk.csv(text, {**PLAIN, "seed": "s"})
    assert desk.rows(entry, seeds=(1, 2)) == {(a, "a", s): (1, 0, s - 1, 1) for a in ("base", "tuned") for s in (1, 2)}
    fault = desk.fault(entry, seeds=(1, 3))
    assert fault.code == "R1605"
    assert "s 2 of base is not declared, which has 1, 3" in fault.fact
    assert "no column says which" in desk.fault(desk.csv("item,arm,score\na,base,1\na,tuned,1\n"), seeds=(1, 2)).fact


def test_a_path_leads_into_records_and_structs(desk: Desk) -> None:
    record = {"id": {"q": 7}, "arm": "base", "scores": {"own": {"x": 1}}, "odd.key": 0}
    other = {**record, "arm": "tuned"}
    mapping = {"unit": "id.q", "condition": "arm"}
    text = f"{json.dumps(record)}\n\n{json.dumps(other)}\n"
    assert desk.rows(desk.jsonl(text, mapping, scores={"acc": "scores.own.x"})) == {
        ("base", "7", 0): (1, 0, 1, 1), ("tuned", "7", 0): (1, 0, 1, 1)
    }  # fmt: skip
    assert desk.rows(desk.jsonl(text, mapping, scores={"acc": "odd.key"}))["base", "7", 0] == (1, 0, 0, 1)
    sql = "SELECT 7 item, arm, {'own': {'x': 1}} scores FROM (VALUES ('base'), ('tuned')) t(arm)"
    assert desk.rows(desk.parquet(sql, scores={"acc": "scores.own.x"}))["tuned", "7", 0] == (1, 0, 1, 1)


def test_names_in_the_file_are_mapped_to_arms(desk: Desk) -> None:
    text = "item,arm,score\na,v1,0\na,v2,1\n"
    assert set(desk.rows(desk.csv(text, conditions={"v1": "base", "v2": "tuned"}))) == {
        ("base", "a", 0),
        ("tuned", "a", 0),
    }
    # two names of one arm make one arm, of which a unit is there twice
    assert (
        desk.fault(desk.csv("item,arm,score\na,v1,0\na,base,1\na,tuned,1\n", conditions={"v1": "base"})).code == "R1606"
    )


def test_a_folder_a_pattern_and_a_file_of_one_arm(desk: Desk) -> None:
    desk.put("runs/b/base.csv", "item,arm,score\na,base,0\n")
    desk.put("runs/a/tuned.csv", "item,arm,score\na,tuned,1\n")
    for named in ("runs", "runs/*/*.csv"):
        imported = desk.read(desk.entry(named))
        assert len(imported.rows) == 2
        read = imported.read[0]
        assert list(read.files) == ["runs/a/tuned.csv", "runs/b/base.csv"]
        listing = "".join(f"{sha256}  {name}\n" for name, sha256 in read.files.items())
        assert read.sha256 == hashlib.sha256(listing.encode()).hexdigest()
    fault = desk.fault(desk.csv("item,score\na,1\n", {"unit": "item"}, condition="base"))
    assert (fault.code, "there is no row of condition tuned" in fault.fact) == ("R1607", True)


BAD_ROWS: list[tuple[str, str, str, str, int]] = [
    ("not a number", "csv", "a,base,NaN", "score is NaN", 1),
    ("infinity", "csv", "a,base,-inf", "score is -inf", 1),
    ("above the scale", "csv", "a,base,1.5", "score is 1.5, outside the scale [0, 1] of acc", 1),
    ("below the scale", "csv", "a,base,-0.1", "outside the scale", 1),
    ("a boolean", "csv", "a,base,True", "score is a boolean, True", 1),
    ("text", "csv", "a,base,good", '"good", which is not a number', 1),
    ("underscored digits", "csv", "a,base,1_0", "which is not a number", 1),
    ("no score and no outcome column", "csv", "a,base,", "name it in `mapping.outcome`", 1),
    ("no unit", "csv", ",base,1", "item is empty", 1),
    ("no arm", "csv", "a,,1", "arm is empty", 1),
    ("an arm that nobody declared", "csv", "a,tuned2,1", 'arm "tuned2" is no declared condition; did you mean tuned?', 1),
    ("NaN in JSON", "jsonl", '{"item": "a", "arm": "base", "score": NaN}', "score is NaN", 1),
    ("infinity in JSON", "jsonl", '{"item": "a", "arm": "base", "score": -Infinity}', "score is -Infinity", 1),
    ("a boolean in JSON", "jsonl", '{"item": "a", "arm": "base", "score": true}', "score is a boolean, true", 1),
    ("digits as text", "jsonl", '{"item": "a", "arm": "base", "score": "0.5"}', 'a number written as text, "0.5"', 1),
    ("a list", "jsonl", '{"item": "a", "arm": "base", "score": [1]}', "score is a list", 1),
    ("an object for a unit", "jsonl", '{"item": {}, "arm": "base", "score": 1}', "item is an object", 1),
    ("a fraction for a unit", "jsonl", '{"item": 1.5, "arm": "base", "score": 1}', "a unit is named by text or an integer", 1),
    ("no key", "jsonl", '{"item": "a", "arm": "base"}', "score is empty", 1),
    ("another type of unit", "jsonl", '{"item": 1, "arm": "base", "score": 1}', 'so 1 and "1" would be one unit', 1),
    ("three mistakes", "csv", ",nobody,2", "outside the scale", 3),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "row", "said", "problems"), [case[1:] for case in BAD_ROWS], ids=[case[0] for case in BAD_ROWS]
)
def test_a_bad_row_is_named_with_its_line(desk: Desk, kind: str, row: str, said: str, problems: int) -> None:
    if kind == "csv":
        entry = desk.csv(f'item,arm,score\n"z\nz",base,1\nz,tuned,1\n{row}\nb,base,1\n')
        line = 5
    else:
        entry = desk.jsonl(
            f'{{"item": "z", "arm": "tuned", "score": 1}}\n\n{row}\n{{"item": "b", "arm": "base", "score": 0}}\n'
        )
        line = 3
    fault = desk.fault(entry)
    assert fault.code == "R1605"
    assert fault.place == f"own.{kind}:{line}"
    assert said in fault.fact
    assert fault.fact.count(f"line {line}: ") == problems


OUTCOMES: list[tuple[str, str, str]] = [
    ("scored without a score", "a,base,0,,scored", "score is empty, and the outcome column says `scored`"),
    ("a score of a missing one", "a,base,0,0.5,api_error", 'score is "0.5", but why says "api_error"'),
    ("no outcome", "a,base,0,0.5,", "why is empty"),
    ("no sample", "a,base,,0.5,scored", "k is empty"),
]


@pytest.mark.parametrize(("row", "said"), [case[1:] for case in OUTCOMES], ids=[case[0] for case in OUTCOMES])
def test_score_and_outcome_say_the_same(desk: Desk, row: str, said: str) -> None:
    fault = desk.fault(desk.csv(f"item,arm,k,score,why\n{row}\na,tuned,0,1,scored\n", TYPED))
    assert (fault.code, fault.place) == ("R1605", "own.csv:2")
    assert said in fault.fact


PARQUET: list[tuple[str, str, str, str]] = [
    ("booleans", "('a', 'base', true), ('a', 'tuned', false)", "R1605", 'column "score" is boolean'),
    ("text", "('a', 'base', '1'), ('a', 'tuned', '0')", "R1605", 'column "score" is text'),
    ("fractions for units", "(1.5::DOUBLE, 'base', 1), (2, 'tuned', 0)", "R1605", 'column "item" is DOUBLE'),
    ("NaN", "('a', 'base', 1::DOUBLE), ('a', 'tuned', 'nan')", "R1605", "row 1: score is nan"),
    ("nothing", "('a', 'base', 1), ('a', 'tuned', NULL)", "R1605", "row 1: score is empty"),
    ("no unit", "('a', 'base', 1), (NULL, 'tuned', 1)", "R1605", "row 1: item is empty"),
    ("a repeated unit", "('a', 'base', 1), ('a', 'tuned', 1), ('a', 'tuned', 1)", "R1606", 'rows repeat unit "a" within condition tuned, first in row 1'),
]  # fmt: skip


@pytest.mark.parametrize(("values", "code", "said"), [case[1:] for case in PARQUET], ids=[case[0] for case in PARQUET])
def test_bad_parquet(desk: Desk, values: str, code: str, said: str) -> None:
    fault = desk.fault(desk.parquet(f"SELECT * FROM (VALUES {values}) t(item, arm, score)"))
    assert (fault.code, said in fault.fact) == (code, True), fault.fact


def test_rows_that_repeat_a_unit_are_not_independent(desk: Desk) -> None:
    fault = desk.fault(desk.csv("item,arm,score\na,base,1\na,base,1\na,tuned,1\nb,tuned,1\nb,tuned,0\n"))
    assert fault.code == "R1606"
    assert 'line 3: rows repeat unit "a" within condition base, first in line 2' in fault.fact
    assert 'line 6: rows repeat unit "b" within condition tuned, first in line 5' in fault.fact
    assert "mapping.sample" in fault.remedy
    assert "rows are not independent" in fault.remedy


@pytest.mark.parametrize("samples", ["0 1 2 2", "0 1 1 3", "5 5", "x y x", "0 0 2 2"])
def test_a_sample_is_counted_once(desk: Desk, samples: str) -> None:
    rows = "".join(f"a,base,{sample},1\n" for sample in samples.split())
    fault = desk.fault(desk.csv(f"item,arm,k,score\n{rows}a,tuned,0,1\n", SAMPLED))
    assert (fault.code, "a second sample" in fault.fact) == ("R1606", True)


def test_no_multiset_of_sample_numbers_with_a_repetition_passes(desk: Desk) -> None:
    """All multisets of four numbers below five, one cell each."""
    chosen = list(itertools.combinations_with_replacement(range(5), 4))
    repeated = [numbers for numbers in chosen if len(set(numbers)) < 4]
    for numbers in repeated:
        rows = "".join(f"a,base,{number},1\n" for number in numbers)
        assert desk.fault(desk.csv(f"item,arm,k,score\n{rows}a,tuned,0,1\n", SAMPLED)).code == "R1606", numbers


def test_twenty_problems_are_shown_and_the_rest_counted(desk: Desk) -> None:
    rows = "".join(f"u{index},base,{index + 2}\n" for index in range(50))
    fault = desk.fault(desk.csv(f"item,arm,score\n{rows}a,tuned,1\n"))
    assert fault.fact.startswith("50 problems in own.csv")
    assert fault.fact.count("\n    line ") == 20
    assert fault.fact.endswith("and 30 more")


def test_rows_with_the_same_problem_are_one_line(desk: Desk) -> None:
    rows = "".join(f"u{index},{('spare', 'base')[index % 2]},{index % 2}\n" for index in range(50))
    fault = desk.fault(desk.csv(f"item,arm,score\n{rows}a,tuned,1\nb,tuned,nan\n"))
    assert fault.fact.split("\n")[1:] == [
        '    line 2: arm "spare" is no declared condition; there is base, tuned (24 rows more)',
        "    line 53: score is nan: a score that does not exist is missing; leave it empty and let the outcome say why",
    ]


DAMAGED: list[tuple[str, str, bytes, str, list[str]]] = [
    ("an empty file", "csv", b"", "R1602", ["the file is empty"]),
    ("a header alone", "csv", b"item,arm,score\n", "R1602", ["there is no row in it"]),
    ("blank lines alone", "jsonl", b"\n\n", "R1602", ["there is no row in it"]),
    ("bytes of another encoding", "csv", b"item,arm,score\n\xe9,base,1\nb,tuned,1\n", "R1602", ["line 2: not UTF-8: byte 0xe9"]),
    (
        "two damages", "csv", b"item,arm,score\n\xff,base,1\nb,base\nc,tuned,1,2\n", "R1602",
        ["line 2: not UTF-8", "line 3: 2 fields, the header has 3 columns", "line 4: 4 fields"],
    ),
    ("a quote that nobody closes", "csv", b'item,arm,score\na,base,1\n"b,tuned,1\n', "R1602", ["line 3"]),
    ("semicolons", "csv", b"item;arm;score\na;base;1\n", "R1604", ["separated by commas"]),
    ("a column twice", "csv", b"item,arm,score,score\na,base,1,1\n", "R1604", ["two columns are called score"]),
    ("mixed encodings in JSON", "jsonl", b'{"item":"a","arm":"base","score":1}\n{"item":"\xff"}\n', "R1602", ["line 2: not UTF-8"]),
    ("a file cut short", "jsonl", b'{"item":"a","arm":"base","score":1}\n{"item":"b","ar', "R1602", ["line 2: not JSON", "cut short"]),
    ("no object", "jsonl", b"[1]\n", "R1602", ["line 1: a JSON list, not an object"]),
    ("a byte order mark", "jsonl", b'\xef\xbb\xbf{"item":"a","arm":"base","score":1}\n', "R1602", ["byte order mark"]),
    ("no Parquet", "parquet", b"PAR1" + b"x" * 100, "R1602", ["was it cut short?"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "content", "code", "said"), [case[1:] for case in DAMAGED], ids=[case[0] for case in DAMAGED]
)
def test_a_damaged_file_is_named(desk: Desk, kind: str, content: bytes, code: str, said: list[str]) -> None:
    fault = desk.fault(desk.entry(desk.put(f"own.{kind}", content), kind))
    assert fault.code == code
    assert "own." in fault.place
    for part in said:
        assert part in f"{fault.place} {fault.fact}", fault.fact


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_parquet_file_cut_short_is_no_pass(desk: Desk, kept: float) -> None:
    entry = desk.parquet("SELECT i::VARCHAR item, ['base', 'tuned'][1 + i % 2] arm, 1.0 score FROM range(5000) t(i)")
    file = desk.folder / "own.parquet"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])
    assert desk.fault(entry).code == "R1602"


COLUMNS: list[tuple[str, dict[str, Any], list[str]]] = [
    (
        "a column that is not there",
        {"mapping": {"unit": "itm", "condition": "arm"}},
        ["mapping.unit", 'no "itm"', "did you mean item?"],
    ),
    ("two of them", {"mapping": {"unit": "itm", "condition": "ar"}}, ["did you mean item?", "did you mean arm?"]),
    ("a score", {"scores": {"acc": "scor"}}, ["metrics.acc.score", "did you mean score?"]),
]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(("more", "said"), [case[1:] for case in COLUMNS], ids=[case[0] for case in COLUMNS])
def test_a_column_that_is_not_there(desk: Desk, kind: str, more: dict[str, Any], said: list[str]) -> None:
    made: dict[str, ResultsFile] = {
        "csv": desk.csv("item,arm,score\na,base,1\na,tuned,1\n"),
        "jsonl": desk.jsonl('{"item": "a", "arm": "base", "score": 1}\n'),
        "parquet": desk.parquet("SELECT 'a' item, 'base' arm, 1 score"),
    }
    fault = desk.fault(desk.entry(made[kind].file, kind, **more))
    assert fault.code == "R1604"
    assert all(part in fault.fact for part in said), fault.fact


def test_an_arm_without_rows(desk: Desk) -> None:
    fault = desk.fault(desk.csv("item,arm,score\na,base,1\n"))
    assert (fault.code, fault.fact) == ("R1607", "there is no row of condition tuned; there is base")


def test_a_file_that_is_not_there(desk: Desk) -> None:
    desk.put("own.csv", "item,arm,score\n")
    fault = desk.fault(desk.entry("owm.csv"))
    assert (fault.code, "did you mean own.csv?" in fault.fact) == ("R1601", True)
    (desk.folder / "logs").mkdir()
    assert "the folder holds no *.csv" in desk.fault(desk.entry("logs")).fact


def test_a_pinned_file_is_held_to_its_hash_before_anything_is_read(desk: Desk) -> None:
    text = "item,arm,score\na,base,1\na,tuned,1\n"
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    read = desk.read(desk.csv(text, sha256=sha256)).read[0]
    assert (read.pinned, read.sha256, read.rows) == (True, sha256, 2)
    assert read.columns == {"unit": "item", "condition": "arm", "acc": "score"}
    assert not desk.read(desk.csv(text)).read[0].pinned
    fault = desk.fault(desk.csv("not,even\nthe,columns\n", sha256=sha256))
    assert (fault.code, sha256 in fault.fact) == ("R1603", True)


def test_without_the_library_the_error_names_the_extra(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "duckdb", None)
    fault = desk.fault(desk.csv("item,arm,score\na,base,1\n"))
    assert (fault.code, "epc-prereg[results]" in fault.remedy) == ("R1608", True)


def test_no_result_is_read_where_none_is_declared(desk: Desk) -> None:
    manifest = desk.manifest(desk.csv("item,arm,score\na,base,1\n"))
    from epc.runtime.results import read_results

    bare = manifest.model_copy(update={"design": manifest.design.model_copy(update={"results": ()})})
    assert read_results(bare, desk.folder).rows == ()
