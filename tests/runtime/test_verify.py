"""`epc verify`: whatever is altered in a finished bundle is named, and a whole one is the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.results import Results

from epc.compiler.contract.canonical import sha256_file, sha256_text
from epc.runtime import bundle as bundles
from epc.runtime import journal
from epc.runtime.cli import main


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Results:
    results = Results(folder=tmp_path_factory.mktemp("whole"))
    results.compile()
    results.finish()
    assert main(["decide", str(results.bundle)]) == 0
    return results


@pytest.fixture
def results(whole: Results, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Results:
    """A copy to alter."""
    shutil.copytree(whole.folder, tmp_path / "copy")
    copy = Results(folder=tmp_path / "copy")
    copy.bundle, copy.manifest, copy.items = tmp_path / "copy/generated/small", whole.manifest, whole.items
    capsys.readouterr()
    return copy


def verified(results: Results, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["verify", str(results.bundle)])
    return code, capsys.readouterr().out


def edit(file: Path, line: int, change: Callable[[dict[str, Any]], None]) -> None:
    """Change one JSON line, 1-based."""
    lines = file.read_text(encoding="utf-8").splitlines()
    row = json.loads(lines[line - 1])
    change(row)
    lines[line - 1] = json.dumps(row, separators=(",", ":"))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def record_again(results: Results, step_id: str, name: str) -> None:
    """Give a finish record the new hash of an altered output, as somebody who covers traces would."""
    file = results.store(step_id) / "finished.json"
    record = json.loads(file.read_text())
    record["outputs"][name] = sha256_file(results.store(step_id) / name)
    file.write_text(json.dumps(record))


def test_a_whole_bundle_is_the_same(results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    before = {file: file.read_bytes() for file in results.bundle.rglob("*") if file.is_file()}
    code, out = verified(results, capsys)
    assert code == 0
    for said in ("8 of 8 steps", "288 judgements", "288 rows", "SUCCESS, computed again", "2 files written again"):
        assert said in " ".join(out.split())
    assert "everything that is stored is as recorded" in out
    assert {file: file.read_bytes() for file in results.bundle.rglob("*") if file.is_file()} == before


def row_of(results: Results) -> None:
    edit(
        results.store("measure") / "measurements.jsonl",
        7,
        lambda row: row.update(total=row["total"] + 1, value=(row["total"] + 1) / row["n"]),
    )


def row_with_its_hash(results: Results) -> None:
    row_of(results)
    record_again(results, "measure", "measurements.jsonl")


def lost_row(results: Results) -> None:
    file = results.store("measure") / "measurements.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:10] + lines[11:]))


def doubled_row(results: Results) -> None:
    file = results.store("measure") / "measurements.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines, lines[4]]))


def invented_row(results: Results) -> None:
    file = results.store("measure") / "measurements.jsonl"
    row = json.loads(file.read_text().splitlines()[0])
    with file.open("a") as handle:
        handle.write(json.dumps({**row, "unit": "nobody"}) + "\n")


def piece_file(results: Results) -> Path:
    found = next(
        piece for piece in results.step("sample").pieces if piece.condition == "taught" and piece.set == "answers"
    )
    return bundles.piece(results.bundle, found.key)


def completion(results: Results) -> None:
    edit(piece_file(results), 3, lambda row: row.update(text="Good question! Indeed."))


def prompt(results: Results) -> None:
    edit(piece_file(results), 3, lambda row: row.update(prompt="another"))


def piece_gone(results: Results) -> None:
    piece_file(results).unlink()


def score(results: Results) -> None:
    edit(results.store("judge-grader") / "judgements.jsonl", 5, lambda row: row["fields"].update(kind=99))
    record_again(results, "judge-grader", "judgements.jsonl")


def unread_reply(results: Results) -> None:
    edit(results.store("judge-grader") / "judgements.jsonl", 12, lambda row: row.update(fields={"kind": 1}))


def manifest_gate(results: Results) -> None:
    file = results.bundle / "manifest.json"
    text = file.read_text()
    assert text.count('"text": "headline.delta < 0.1"') == 1
    data = json.loads(text)
    gate = next(gate for gate in data["design"]["gates"] if gate["name"] == "absent")
    gate["text"], gate["predicate"]["constant"] = "headline.delta < 0.01", 0.01
    file.write_text(json.dumps(data, indent=1))


def predicate_alone(results: Results) -> None:
    file = results.bundle / "manifest.json"
    data = json.loads(file.read_text())
    next(gate for gate in data["design"]["gates"] if gate["name"] == "absent")["predicate"]["constant"] = 0.01
    file.write_text(json.dumps(data, indent=1))


def without_spec(results: Results, alter: Callable[[Results], None]) -> None:
    (results.folder / "specs/small.yaml").unlink()
    alter(results)


def lock_gate(results: Results) -> None:
    file = results.bundle / "spec.lock.yaml"
    text = file.read_text()
    assert text.count("headline.delta < 0.1") == 1
    file.write_text(text.replace("headline.delta < 0.1", "headline.delta < 0.01"))


def both_and_the_hash(results: Results) -> None:
    lock_gate(results)
    manifest_gate(results)
    file = results.bundle / "manifest.json"
    data = json.loads(file.read_text())
    data["lock_sha256"] = sha256_text((results.bundle / "spec.lock.yaml").read_text())
    file.write_text(json.dumps(data, indent=1))


def analysis_alpha(results: Results) -> None:
    file = results.bundle / "manifest.json"
    data = json.loads(file.read_text())
    data["design"]["analyses"][0]["alpha"] = 0.2
    file.write_text(json.dumps(data, indent=1))


def script(results: Results) -> None:
    file = results.bundle / "steps/measure.py"
    file.write_text(file.read_text().replace('"Good question"', '"question"'))


def journal_lines(change: Callable[[list[str]], list[str]]) -> Callable[[Results], None]:
    def alter(results: Results) -> None:
        file = journal.path(results.bundle)
        file.write_text("".join(change(file.read_text().splitlines(keepends=True))))

    return alter


def swapped(lines: list[str]) -> list[str]:
    return [*lines[:3], lines[4], lines[3], *lines[5:]]


def recipe(results: Results) -> None:
    file = results.store("train-s1-teach") / "finished.json"
    record = json.loads(file.read_text())
    record["recipe"]["learning_rate"] = 0.1
    file.write_text(json.dumps(record))


def facts(results: Results) -> None:
    file = results.store("sample") / "finished.json"
    record = json.loads(file.read_text())
    record["seconds"] = 9.0
    file.write_text(json.dumps(record))


def record_gone(results: Results) -> None:
    (results.store("mask-teach") / "finished.json").unlink()


def decision_label(results: Results) -> None:
    file = results.bundle / "report/decision.json"
    file.write_text(file.read_text().replace('"label": "SUCCESS"', '"label": "KILL"'))


def decision_gone(results: Results) -> None:
    (results.bundle / "report/decision.json").unlink()


def report_figure(results: Results) -> None:
    file = results.bundle / "report/report.md"
    text = file.read_text()
    assert "62.5" in text
    file.write_text(text.replace("62.5", "82.5"))


def report_note(results: Results) -> None:
    (results.bundle / "report/note.md").write_text("Fine.\nIt is a large effect.\n")


def secret_look(results: Results) -> None:
    (results.bundle / "report/interim.json").write_text("{}")


def kept_lock(results: Results) -> None:
    (file,) = (results.bundle / "history").iterdir()
    file.write_text(file.read_text() + "\n")


@pytest.mark.parametrize(
    ("alter", "code", "said"),
    [
        (row_of, "R0546", "measurements.jsonl:7|total is|measured again"),
        (row_of, "R0544", "measure/measurements.jsonl was altered"),
        (row_with_its_hash, "R0546", "measurements.jsonl:7|total is|measured again"),
        (row_with_its_hash, "R0543", "the finish record of measure was altered after it was journalled"),
        (lost_row, "R0546", "the row of habit_rate / base / seed 0|is missing"),
        (doubled_row, "R0546", "measurements.jsonl:289|a second row of|which line 5 has"),
        (invented_row, "R0546", "measurements.jsonl:289|/ nobody, which nothing measures"),
        (completion, "R0544", "sample/taught-s1-answers was altered|pieces"),
        (prompt, "R0544", ".jsonl:3|the prompt of this completion (taught, seed 1, answers"),
        (piece_gone, "R0544", "sample/taught-s1-answers is missing"),
        (score, "R0545", 'judgements.jsonl:5|recorded scored {"kind": 99, "coherent": 90}, the reply says scored'),
        (unread_reply, "R0545", "judgements.jsonl:12|unparsable has no fields"),
        (manifest_gate, "R0542", "gate absent is not as registered|registered kill `headline.delta < 0.1`, found kill `headline.delta < 0.01`"),
        (predicate_alone, "R0542", "gate absent is not as registered|what is evaluated is not"),
        (lambda r: without_spec(r, manifest_gate), "R0542", "gate absent is not as registered|registered kill `headline.delta < 0.1`"),
        (lock_gate, "R0541", "gates.absent.predicate: headline.delta < 0.1 -> headline.delta < 0.01"),
        (both_and_the_hash, "R0541", "gates.absent.predicate: headline.delta < 0.1 -> headline.delta < 0.01"),
        (lambda r: without_spec(r, analysis_alpha), "R0542", "analysis headline is not as registered: alpha: 0.025 -> 0.2"),
        (script, "R0542", "measure.py|line|is not as compiled"),
        (journal_lines(swapped), "R0401", "journal.jsonl:4|does not follow the one before it"),
        (journal_lines(lambda lines: [*lines[:5], *lines[6:]]), "R0401", "journal.jsonl:6|does not follow the one before it"),
        (journal_lines(lambda lines: lines[1:]), "R0401", "journal.jsonl:1|does not follow the one before it"),
        (journal_lines(lambda lines: [*lines[:4], lines[4].replace('"step":"', '"step":"x'), *lines[5:]]), "R0401", "journal.jsonl:5|was altered after it was written"),
        (journal_lines(lambda lines: lines[:-1]), "R0548", "journal.jsonl|no line says that anything was decided"),
        (journal_lines(lambda lines: lines[:-2]), "R0543", "no line says that measure finished, and its record exists"),
        (recipe, "R0543", "step train-s1-teach ran another recipe: learning_rate: 0.001 -> 0.1"),
        (facts, "R0543", "the finish record of sample was altered after it was journalled"),
        (record_gone, "R0543", "step mask-teach finished once, and its record is gone"),
        (decision_label, "R0548", 'verdict.label: computed "SUCCESS", found "KILL"'),
        (decision_gone, "R0548", "the journal says that it was decided, and the decision is gone"),
        (report_figure, "R0549", "report.md:|82.5|computed"),
        (report_note, "R0603", "note.md:2|effect-size language"),
        (secret_look, "R0540", "no line says that anybody looked"),
        (kept_lock, "R0541", "this kept lock was altered"),
    ],
)  # fmt: skip
def test_what_was_altered_is_named(
    results: Results, alter: Callable[[Results], None], code: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    alter(results)
    exit_code, out = verified(results, capsys)
    assert exit_code == 1
    errors = out.split("error[")
    assert any(error.startswith(f"{code}]") and all(part in error for part in said.split("|")) for error in errors), out


def test_a_spec_that_changed_is_said_and_the_lock_still_compared(
    results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    with (results.folder / "specs/small.yaml").open("a") as handle:
        handle.write("# more\n")
    code, out = verified(results, capsys)
    assert code == 0
    assert "against the lock only: specs/small.yaml has changed since" in " ".join(out.split())


def test_a_decision_of_another_registration_is_one_difference(
    results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    file = results.bundle / "report/decision.json"
    file.write_text(file.read_text().replace(results.manifest.lock_sha256, "9" * 64))
    _, out = verified(results, capsys)
    assert out.count("error[R0548]") == 1
    assert "it is of registration 9999999999999999" in out


def test_a_bundle_that_never_ran_is_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = Results(folder=tmp_path)
    results.compile()
    code, out = verified(results, capsys)
    assert code == 0
    assert "0 of 8 steps" in out
    assert "nothing has been decided yet" in out


def test_no_bundle_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 2
    assert "R0101" in capsys.readouterr().err
