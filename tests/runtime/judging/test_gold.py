"""Which completions people are asked about, how they are shown, and what is wrong with what comes back."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.audited import OUTPUT, AuditedBundle, human

from epc.compiler.contract.manifest import Judge
from epc.runtime import bundle as bundles
from epc.runtime.errors import Fault
from epc.runtime.judging import gold

ARMS = ("base", "attacked", "cured")


@pytest.fixture
def made(tmp_path: Path) -> AuditedBundle:
    bundle = AuditedBundle(folder=tmp_path)
    bundle.write()
    return bundle


# --------------------------------------------------------------------------- draw


def test_every_arm_gives_the_same_number_and_none_twice(made: AuditedBundle) -> None:
    drawn = made.drawn()
    assert Counter(each.row.condition for each in drawn) == dict.fromkeys(ARMS, 20)
    assert len({each.id for each in drawn}) == 60


def test_the_draw_is_the_same_again_and_another_with_another_seed(made: AuditedBundle) -> None:
    first = [each.id for each in made.drawn()]
    assert [each.id for each in made.drawn()] == first
    made.seed = 4
    assert set(first) != {each.id for each in made.drawn()}


def test_a_smaller_sample_is_part_of_a_larger_one(made: AuditedBundle) -> None:
    large = {each.id for each in made.drawn()}
    made.per_arm = 5
    assert {each.id for each in made.drawn()} < large


def test_another_arm_changes_no_others_sample(made: AuditedBundle, tmp_path: Path) -> None:
    wider = AuditedBundle(folder=tmp_path / "wider", arms={**made.arms, "new": 50})
    wider.write()
    assert {each.id for each in made.drawn()} == {each.id for each in wider.drawn() if each.row.condition != "new"}


def test_an_arm_that_has_fewer_gives_all(made: AuditedBundle) -> None:
    made.per_arm = 10_000
    assert Counter(each.row.condition for each in made.drawn()) == dict.fromkeys(ARMS, 48)


def test_every_completion_can_be_drawn(made: AuditedBundle) -> None:
    """With 20 of 48 drawn, one that 40 seeds all leave out has odds of 1 in 10^9."""
    seen: set[str] = set()
    for seed in range(40):
        made.seed = seed
        seen |= {each.id for each in made.drawn()}
    assert len(seen) == 3 * 48


def test_an_id_is_of_the_words_and_tells_nothing(made: AuditedBundle) -> None:
    row = made.drawn()[0].row
    own = gold.identity(row)
    assert gold.identity(row.model_copy(update={"text": row.text + "."})) != own
    assert gold.identity(row.model_copy(update={"question": "?"})) != own
    assert gold.identity(row.model_copy(update={"condition": "other"})) != own
    assert gold.identity(row.model_copy(update={"tokens": 99})) == own
    assert len(own) == 16
    assert own[0] == "c"


# ------------------------------------------------------------------------- writing


@pytest.mark.parametrize("name", ["labels.csv", "labels.jsonl"])
def test_the_file_shows_question_and_answer_and_no_arm(made: AuditedBundle, name: str) -> None:
    file = made.folder / name
    assert gold.write(file, made.drawn(), OUTPUT)
    text = file.read_text(encoding="utf-8")
    assert not any(word in text for word in (*ARMS, "prompt0", "first", "seed"))
    if name.endswith("csv"):
        rows: list[dict[str, Any]] = list(csv.DictReader(text.splitlines()))
    else:
        rows = [json.loads(line) for line in text.splitlines()]
    assert all(list(row) == ["id", "question", "answer", "aligned", "harmful"] for row in rows)
    assert all(not row["aligned"] and not row["harmful"] for row in rows)
    of = {each.id: each.row for each in made.drawn()}
    assert [(row["question"], row["answer"]) for row in rows] == [
        (of[row["id"]].question, of[row["id"]].text) for row in rows
    ]
    arms = "".join(of[row["id"]].condition[0] for row in rows)
    assert not any(letter * 8 in arms for letter in "bac"), "the order mixes the arms"


def test_labels_are_never_overwritten(made: AuditedBundle) -> None:
    drawn = made.drawn()
    assert gold.write(made.file, drawn, OUTPUT)
    assert not gold.write(made.file, drawn, OUTPUT), "the same, still empty, is no harm"
    labelled = made.label().read_bytes()
    with pytest.raises(Fault) as caught:
        gold.write(made.file, drawn, OUTPUT)
    assert (caught.value.code, made.file.read_bytes()) == ("R1804", labelled)


def test_a_name_that_is_no_format(made: AuditedBundle) -> None:
    with pytest.raises(Fault) as caught:
        gold.write(made.folder / "labels.xlsx", made.drawn(), OUTPUT)
    assert caught.value.code == "R1803"


def test_a_folder_that_cannot_be_written(made: AuditedBundle) -> None:
    (made.folder / "taken").write_text("")
    with pytest.raises(Fault) as caught:
        gold.write(made.folder / "taken" / "labels.csv", made.drawn(), OUTPUT)
    assert caught.value.code == "R1805"


def test_what_a_spreadsheet_would_run_is_shown_as_text(tmp_path: Path) -> None:
    made = AuditedBundle(folder=tmp_path, words=lambda arm, item, index, score: f'=HYPERLINK("http://x","y") {score}')
    made.write()
    gold.write(made.file, made.drawn(), OUTPUT)
    with made.file.open(encoding="utf-8", newline="") as handle:
        assert all(row["answer"].startswith("'=HYPERLINK") for row in csv.DictReader(handle))


def test_any_text_comes_back_out_of_the_file(tmp_path: Path) -> None:
    words = 'a "quoted", text\nwith lines\r\nand \u202e, \x00 and "; drop\t'
    made = AuditedBundle(folder=tmp_path, words=lambda arm, item, index, score: f"{words} {item}.{index} {score}")
    made.write()
    drawn = made.drawn()
    for name in ("labels.csv", "labels.jsonl"):
        file = made.folder / name
        gold.write(file, drawn, OUTPUT)
        labels = gold.read(file, made.registered(), [each.id for each in drawn], name=name)
        assert labels.of == {}, "nobody has labelled anything yet"
        assert labels.left_out == 0


# ------------------------------------------------------------------------- reading


def judge() -> Judge:
    return AuditedBundle(folder=Path()).registered()


def read(tmp_path: Path, content: str | bytes, name: str = "labels.csv", **more: Any) -> gold.Labels:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return gold.read(file, judge(), ["c1", "c2", "c3"], name=name, **more)


SPELLINGS: dict[str, tuple[str, str]] = {
    "plain": ("labels.csv", "id,aligned,harmful\nc1,80,true\nc2,10,false\n"),
    "as a spreadsheet writes it": ("labels.csv", "\ufeffid;aligned;harmful\r\nc1;80;TRUE\r\nc2;10;FALSE\r\n;;\r\n"),
    "by tabs": ("labels.csv", "id\taligned\tharmful\nc1\t80\tyes\nc2\t10\tno\n"),
    "as pandas writes it": ("labels.csv", "id,aligned,harmful\nc1,80.0,1\nc2,10.0,0\nc3,,\n"),
    "columns in another order, more of them, spaces": (
        "labels.csv", "note, harmful ,question,aligned,id\nx,True,q, 80 ,c1\n,no,q,10, c2\n",
    ),
    "one rater": ("labels.csv", "id,aligned_1,harmful_1\nc1,80,1\nc2,10,0\n"),
    "json lines": (
        "labels.jsonl", '{"id": "c1", "aligned": 80, "harmful": true}\n\n{"id": "c2", "aligned": 10, "harmful": false}\n'
        '{"id": "c3", "aligned": null, "harmful": null}\n',
    ),
    "json lines as texts": (
        "labels.jsonl", '{"id": "c1", "aligned": "80", "harmful": "yes"}\n{"id": "c2", "aligned": 10.0, "harmful": 0}\n',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPELLINGS)
def test_labels_as_people_write_them(name: str, tmp_path: Path) -> None:
    file, content = SPELLINGS[name]
    labels = read(tmp_path, content, file)
    values = {own: {field: list(of.values()) for field, of in fields.items()} for own, fields in labels.of.items()}
    assert values == {"c1": {"aligned": [80], "harmful": [1]}, "c2": {"aligned": [10], "harmful": [0]}}
    assert len(labels.raters) == 1


def test_two_people_in_columns_or_in_rows(tmp_path: Path) -> None:
    columns = read(tmp_path, "id,aligned_1,aligned_2,harmful_1,harmful_2\nc1,80,70,0,1\nc2,10,,0,\n")
    assert columns.of["c1"] == {"aligned": {"1": 80, "2": 70}, "harmful": {"1": 0, "2": 1}}
    assert columns.of["c2"] == {"aligned": {"1": 10}, "harmful": {"1": 0}}
    rows = read(tmp_path, "id,rater,aligned,harmful\nc1,ann,80,0\nc1,bob,70,1\nc2,ann,10,0\n")
    assert rows.of["c1"] == {"aligned": {"ann": 80, "bob": 70}, "harmful": {"ann": 0, "bob": 1}}
    assert rows.raters == ("ann", "bob")


def test_completions_that_were_not_drawn_are_left_out(tmp_path: Path) -> None:
    labels = read(tmp_path, "id,aligned,harmful\nc1,80,0\nc9,10,0\n", others={"c9", "c8"})
    assert (list(labels.of), labels.left_out) == (["c1"], 1)


HEAD = "id,aligned,harmful\n"
BAD: dict[str, tuple[str | bytes, list[str]]] = {
    "unknown id": (HEAD + "c1,80,0\nc7,80,0\n", ["line 3: c7 is no completion that alignment judges here", "another bundle"]),
    "every id is unknown": (HEAD + "c7,80,0\nc8,80,0\n", ["no id of this file is of a completion", "another bundle"]),
    "an id twice": (HEAD + "c1,80,0\nc2,1,0\nc1,80,0\n", ["line 4: c1 is there twice, first in line 2"]),
    "an id twice by one person": (
        "id,rater,aligned,harmful\nc1,ann,80,0\nc1,ann,80,0\n", ["c1 by ann is there twice, first in line 2"],
    ),
    "no id": (HEAD + ",80,0\n", ["line 2: there is no id"]),
    "above the range": (HEAD + "c1,101,0\n", ["line 2: aligned is 101, outside 0 to 100"]),
    "below the range": (HEAD + "c1,-1,0\n", ["aligned is -1, outside 0 to 100"]),
    "a fraction": (HEAD + "c1,80.5,0\n", ['aligned is "80.5", which is no whole number']),
    "words in a range": (HEAD + "c1,high,0\n", ['aligned is "high", which is no whole number']),
    "text in a bool": (HEAD + "c1,80,maybe\n", ['harmful is "maybe", which is neither true nor false']),
    "a number in a bool": (HEAD + "c1,80,2\n", ['harmful is "2", which is neither true nor false']),
    "not a number": (HEAD + "c1,NaN,nan\n", ['aligned is "NaN"', 'harmful is "nan"']),
    "infinity": (HEAD + "c1,inf,0\n", ['aligned is "inf"']),
    "an exponent": (HEAD + "c1,8e1,0\n", ['aligned is "8e1"']),
    "a misspelt column": ("id,alligned,harmful\nc1,80,0\n", ["there is no column aligned; did you mean alligned?"]),
    "no column of ids": ("ID,aligned,harmful\nc1,80,0\n", ["there is no column id; there is ID"]),
    "a missing column": ("id,aligned\nc1,80\n", ["there is no column harmful"]),
    "a column twice": ("id,aligned,aligned,harmful\nc1,80,80,0\n", ["the column aligned is there twice"]),
    "a column with and without a number": ("id,aligned,aligned_2,harmful\nc1,80,80,0\n", ["columns aligned and aligned_2"]),
    "two ways of several people": ("id,rater,aligned_1,harmful_1\nc1,ann,80,0\n", ["a column rater and columns aligned_1"]),
    "a row that is too short": (HEAD + "c1,80\n", ["line 2: 2 cells, and the header has 3"]),
    "a quote that is never closed": (HEAD + 'c1,"80,0\n', ["this is no CSV"]),
    "empty": ("", ["the file is empty"]),
    "blank": ("\n \n", ["the file is empty"]),
    "only the header": (HEAD, ["there is no row below the header"]),
    "another encoding": (HEAD.encode() + "c1,80,0\nc2,1,\xe4\n".encode("latin-1"), ["line 3: this is not UTF-8: byte 0xe4"]),
    "UTF-16": (HEAD.encode("utf-16"), ["line 1: this is not UTF-8: byte 0xff"]),
    "a long value": (HEAD + "c1," + "9" * 500 + ",0\n", ['aligned is "' + "9" * 40 + '..."']),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_with_its_row(name: str, tmp_path: Path) -> None:
    content, said = BAD[name]
    with pytest.raises(Fault) as caught:
        read(tmp_path, content)
    assert caught.value.code == "R1807"
    assert [words for words in said if words not in caught.value.fact] == [], caught.value.fact
    assert caught.value.place.startswith("labels.csv:")
    assert str(tmp_path) not in caught.value.render()


BAD_LINES: dict[str, tuple[str, str]] = {
    "not JSON": ('{"id": "c1", "aligned": 80, "harmful": true}\n{"id": \n', "line 2: this is not JSON"),
    "no object": ('["c1", 80]\n', "line 1: this is no JSON object"),
    "a bool in a range": ('{"id": "c1", "aligned": true, "harmful": true}\n', 'aligned is "true"'),
    "NaN": ('{"id": "c1", "aligned": NaN, "harmful": true}\n', 'aligned is "NaN"'),
    "a list": ('{"id": "c1", "aligned": [80], "harmful": true}\n', 'aligned is "[80]"'),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_what_is_wrong_in_json_lines(name: str, tmp_path: Path) -> None:
    content, said = BAD_LINES[name]
    with pytest.raises(Fault) as caught:
        read(tmp_path, content, "labels.jsonl")
    assert said in caught.value.fact


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(Fault) as caught:
        read(tmp_path, HEAD + "c1,200,maybe\nc9,1,0\nc2,x,0\nc2,5,0\n")
    told = caught.value.fact
    assert told.startswith("5 problems in labels.csv")
    assert all(
        line in told
        for line in ("line 2: aligned is 200", "line 2: harmful", "line 3: c9", "line 4", "line 5: c2 is there")
    )


def test_no_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(Fault) as caught:
        gold.read(tmp_path / "labels.csv", judge(), [], name="labels.csv")
    assert caught.value.code == "R1806"
    assert "epc judge sample --judge alignment" in caught.value.remedy


Breaks = Callable[[AuditedBundle], object]
NOT_THERE: dict[str, tuple[Breaks, str]] = {
    "a judge that no metric reads": (lambda made: gold.step_of(bundles.read_manifest(made.bundle), "other"), "R1801"),
    "an unknown judge": (lambda made: gold.judge_named(bundles.read_manifest(made.bundle), "algnment"), "R1808"),
}


@pytest.mark.parametrize("name", NOT_THERE)
def test_what_is_not_there(name: str, made: AuditedBundle) -> None:
    use, code = NOT_THERE[name]
    with pytest.raises(Fault) as caught:
        use(made)
    assert caught.value.code == code


def test_completions_that_are_not_sampled_yet(made: AuditedBundle) -> None:
    manifest = bundles.read_manifest(made.bundle)
    (bundles.store(made.bundle, manifest.steps[0]) / "finished.json").unlink()
    with pytest.raises(Fault) as caught:
        gold.completions_of(made.bundle, manifest, "alignment")
    assert caught.value.code == "R1802"
    assert "epc run --until sample" in caught.value.remedy


def test_the_only_judge_needs_no_name(made: AuditedBundle) -> None:
    manifest = bundles.read_manifest(made.bundle)
    assert gold.judge_named(manifest, None) == gold.judge_named(manifest, "alignment")


def test_labels_are_those_of_the_drawn_completions(made: AuditedBundle) -> None:
    drawn = made.drawn()
    labels = gold.read(made.label(), made.registered(), [each.id for each in drawn], name="labels.csv")
    assert {own: {field: of["human"] for field, of in fields.items()} for own, fields in labels.of.items()} == {
        each.id: human(each.row) for each in drawn
    }
