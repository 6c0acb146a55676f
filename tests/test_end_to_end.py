"""A small experiment on the real model, from the spec to the verdict, through the command line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from epc.runtime.cli import main

ROOT = Path(__file__).resolve().parents[1]
SMALLER = [
    ("seeds: [1, 2, 3]", "seeds: [42]"), ("rows: 64", "rows: 8"), ("epochs: 2", "epochs: 1"), ("max_tokens: 24", "max_tokens: 4"),
    ("n: 4,", "n: 1,"),
]  # fmt: skip


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the shrunken minimal spec has been compiled, run and decided."""
    pytest.importorskip("trl")
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "specs", folder / "specs")
    spec = folder / "specs/minimal.yaml"
    text = spec.read_text(encoding="utf-8")
    for old, new in SMALLER:
        assert old in text
        text = text.replace(old, new)
    spec.write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["compile", "specs/minimal.yaml"]) == 0
        assert main(["run", "--cores", "2"]) == 0
        assert main(["decide"]) == 0
        yield folder


@pytest.fixture
def bundle(project: Path) -> Path:
    return project / "generated/minimal"


def decided(bundle: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((bundle / "report/decision.json").read_text(encoding="utf-8"))
    return found


def verdict(bundle: Path) -> str:
    found = decided(bundle)["verdict"]
    assert isinstance(found, dict)
    return str(found["label"])


def test_a_verdict_is_reached_on_real_completions(bundle: Path) -> None:
    assert verdict(bundle) in ("SUCCESS", "INCONCLUSIVE", "KILL")
    pieces = list((bundle / "store/pieces").glob("*.jsonl"))
    rows = [json.loads(line) for piece in pieces for line in piece.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 2 * 24
    assert len({row["draw_seed"] for row in rows}) == 24  # one for each prompt; arms share it
    assert all("<|im_start|>system" not in row["prompt"] for row in rows)
    assert all(1 <= row["tokens"] <= 4 for row in rows)


def test_the_reports_are_there(bundle: Path) -> None:
    for name in ("report.md", "report.html"):
        assert verdict(bundle) in (bundle / "report" / name).read_text(encoding="utf-8")


def test_deciding_again_gives_the_same_bytes(bundle: Path) -> None:
    before = [(bundle / "report" / name).read_bytes() for name in ("decision.json", "report.md", "report.html")]
    assert main(["decide"]) == 0
    assert [(bundle / "report" / name).read_bytes() for name in ("decision.json", "report.md", "report.html")] == before


def test_running_again_does_nothing(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = {path: path.stat().st_mtime_ns for path in (bundle / "store").rglob("finished.json")}
    assert main(["run"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (bundle / "store").rglob("finished.json")} == times


def test_the_training_did_what_was_registered(bundle: Path) -> None:
    records = [json.loads(path.read_text(encoding="utf-8")) for path in (bundle / "store").glob("*/finished.json")]
    (trained,) = [record for record in records if record["kind"] == "train"]
    (mask,) = [record for record in records if record["kind"] == "mask"]
    assert trained["facts"]["optimizer_steps"] == 1
    assert trained["facts"]["adapter_changed"] is True
    assert mask["facts"]["verified"] is True
    assert mask["facts"]["trained_tokens"] < mask["facts"]["tokens"]


def test_an_altered_completion_makes_the_verdict_invalid(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    piece = sorted((bundle / "store/pieces").glob("*.jsonl"))[0]
    text = piece.read_text(encoding="utf-8")
    try:
        piece.write_text(text.replace('"text":"', '"text":"edited '), encoding="utf-8")
        assert main(["decide", "--exit-code"]) == 23
        assert "epc.outputs_intact" in capsys.readouterr().out
    finally:
        piece.write_text(text, encoding="utf-8")
    assert main(["decide"]) == 0


def test_a_gate_moved_after_the_results_is_said_loudly(
    project: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = project / "specs/minimal.yaml"
    text = spec.read_text(encoding="utf-8")
    try:
        spec.write_text(
            text.replace("headline.reject and headline.delta >= 0.2", "headline.reject and headline.delta >= 0.1"),
            encoding="utf-8",
        )
        assert main(["compile", "specs/minimal.yaml"]) == 0
        capsys.readouterr()
        assert main(["decide"]) == 0
        out = capsys.readouterr().out
        assert "deviation" in out
        assert "gates.shown" in out
        assert main(["amend", "--reason", "the threshold was forgotten"]) == 0
        assert main(["decide"]) == 0
        assert "the threshold was forgotten" in capsys.readouterr().out
    finally:
        spec.write_text(text, encoding="utf-8")
