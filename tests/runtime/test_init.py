"""`epc init`: what it writes is sound, short, and overwrites nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.schema import schema_text
from epc.compiler.source import parse
from epc.runtime import init
from epc.runtime.cli import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("argv", [[], ["mine.yml"], ["a/specs/deep/er.yaml"]])
def test_what_it_writes_checks_clean_and_compiles(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", *argv]) == 0
    spec = (argv or ["specs/experiment.yaml"])[0]
    assert capsys.readouterr().out.splitlines()[-1] == f"then: epc check {spec}"
    assert main(["check", spec, "--strict"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "sound" in captured.out
    assert main(["compile", spec]) == 0
    assert (Path(spec).parent / "prompts/heldout.txt").read_text(encoding="utf-8").count("\n") >= 20


def test_it_is_two_screens_at_most_and_says_what_its_parts_are() -> None:
    main(["init"])
    lines = Path("specs/experiment.yaml").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 60
    document = parse("\n".join(lines), "experiment.yaml", Diagnostics()).data
    commented = {line.split(":")[0] for line in lines if "#" in line and not line.startswith((" ", "#"))}
    assert {"data", "train", "conditions", "prompts", "sample", "metrics", "analyses", "gates", "verdicts"} <= commented
    assert "allow" not in document
    (headline,) = document["analyses"].values()
    assert (headline["p"], headline["side"], headline["alpha"]) == ("studentized", "greater", 0.025)


def test_the_first_line_names_a_schema_that_is_there() -> None:
    main(["init", "specs/mine.yaml"])
    first = Path("specs/mine.yaml").read_text(encoding="utf-8").splitlines()[0]
    _, _, schema = first.partition("# yaml-language-server: $schema=")
    assert (Path("specs") / schema).read_text(encoding="utf-8") == schema_text()


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("mine.yaml", "mine"), ("My Trial-2.yaml", "my_trial_2"), ("2nd.yaml", "experiment_2nd"), ("__.yaml", "experiment"),
        ("Ärger.yaml", "rger"), ("実験.yaml", "experiment"), (f"{'x' * 90}.yaml", "x" * 60),
    ],
)  # fmt: skip
def test_the_id_is_the_name_of_the_file(name: str, id_: str) -> None:
    assert main(["init", name]) == 0
    assert parse(Path(name).read_text(encoding="utf-8"), name, Diagnostics()).data["id"] == id_
    assert main(["check", name]) == 0


def test_a_path_with_spaces_is_quoted_where_it_is_to_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["init", "my specs/a b.yaml"])
    assert capsys.readouterr().out.splitlines()[-1] == "then: epc check 'my specs/a b.yaml'"
    assert "epc compile 'my specs/a b.yaml' &&" in Path("my specs/a b.yaml").read_text(encoding="utf-8")


def test_a_second_spec_shares_the_files_of_the_first(tmp_path: Path) -> None:
    main(["init"])
    before = contents(tmp_path)
    assert main(["init", "specs/another.yaml"]) == 0
    assert set(contents(tmp_path)) - set(before) == {"specs/another.yaml"}


def test_the_schema_of_an_older_epc_is_replaced() -> None:
    main(["init"])
    schema = Path("specs/spec.schema.json")
    schema.write_text(json.dumps({**json.loads(schema.read_text()), "title": "older"}))
    assert main(["init", "specs/another.yaml"]) == 0
    assert schema.read_text() == schema_text()


@pytest.mark.parametrize(
    ("file", "text", "instead"),
    [
        ("specs/experiment.yaml", "epc: 1\n", "epc init specs/another.yaml"),
        ("specs/prompts/heldout.txt", "my own prompts\n", "epc init specs/another/experiment.yaml"),
        ("specs/data/topics.txt", "", "epc init specs/another/experiment.yaml"),
        ("specs/spec.schema.json", '{"$id": "somebody else"}', "epc init specs/another/experiment.yaml"),
        ("specs/spec.schema.json", "not even json", "epc init specs/another/experiment.yaml"),
    ],
)
def test_nothing_is_overwritten(
    file: str, text: str, instead: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(file).parent.mkdir(parents=True)
    Path(file).write_text(text)
    assert main(["init"]) == 2
    assert contents(tmp_path) == {file: text.encode()}
    err = capsys.readouterr().err
    assert f"--> {file}" in err
    assert f"help: {instead}" in err
    assert main(instead.split()[1:]) == 0


def test_a_folder_or_another_kind_of_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("specs", "specs/mine.json", "."):
        assert main(["init", name]) == 2
        assert "help: epc init " in capsys.readouterr().err
    assert contents(tmp_path) == {}


def test_a_folder_in_the_place_of_a_file_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    Path("specs/prompts/heldout.txt").mkdir(parents=True)
    assert main(["init"]) == 2
    assert "specs/prompts/heldout.txt" in capsys.readouterr().err


def test_the_shipped_minimal_spec_is_what_it_writes() -> None:
    text = init.spec_text(id_="minimal", spec="specs/minimal.yaml", schema="../generated/schema/spec.schema.json")
    assert (ROOT / "specs/minimal.yaml").read_text(encoding="utf-8") == text
    for path, companion in init.companions().items():
        assert (ROOT / "specs" / path).read_text(encoding="utf-8") == companion
