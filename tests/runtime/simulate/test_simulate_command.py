"""`epc simulate`: what it prints, what it writes, the same digits on every run and with any number of threads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.simulated import decided, simulator, truth

from epc.compiler.contract.manifest import Design
from epc.compiler.contract.simulation import Simulation
from epc.runtime.cli import main
from epc.runtime.simulate.model import Size

ROOT = Path(__file__).resolve().parents[3]
QUICKSTART = str(ROOT / "specs" / "quickstart.yaml")
FEW = ("--experiments", "60", "--resamples", "199")


def simulated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["simulate", *arguments, *FEW, "--format", "json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_spec_is_simulated_under_the_standard_truths(capsys: pytest.CaptureFixture[str]) -> None:
    found = Simulation.model_validate(simulated(capsys, QUICKSTART))
    assert [each.name for each in found.truths] == [
        "null", "kill_margin", "success_threshold", "predicted", "harm", "damage_undamaged",
    ]  # fmt: skip
    assert all(sum(verdict.share for verdict in each.verdicts) == pytest.approx(1, abs=1e-5) for each in found.truths)
    assert (found.experiments, found.resamples, found.id) == (60, 199, "quickstart")


def test_text_says_the_same(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "240")
    assert main(["simulate", QUICKSTART, *FEW, "--truth", "null", "--truth", "predicted"]) == 0
    text = capsys.readouterr().out
    assert "60 experiments under each truth, seed 0, 199 resamples" in text
    assert re.search(r"^1\s+null\s+headline \+0 .* KILL\s*$", text, re.MULTILINE)
    assert "damage_undamaged" not in text
    assert "headline.reject" in text
    assert "the minimum detectable effect at .800 is" in text


@pytest.mark.parametrize("threads", ["1", "2"])
def test_digits_do_not_depend_on_threads(threads: str, capsys: pytest.CaptureFixture[str]) -> None:
    here = simulated(capsys, QUICKSTART, "--truth", "predicted")
    command = "import sys; from epc.runtime.cli import main; sys.exit(main(sys.argv[1:]))"
    ran = subprocess.run(
        [sys.executable, "-c", command, "simulate", QUICKSTART, *FEW, "--truth", "predicted", "--format", "json"],
        capture_output=True, text=True, check=True, env={**os.environ, "OPENBLAS_NUM_THREADS": threads},
    )  # fmt: skip
    assert json.loads(ran.stdout) == here


def test_a_bundle_gets_its_simulation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", QUICKSTART, "--out", str(tmp_path)]) == 0
    capsys.readouterr()
    bundle = tmp_path / "quickstart"
    printed = simulated(capsys, str(bundle))
    file = bundle / "report" / "simulation.json"
    assert json.loads(file.read_text(encoding="utf-8")) == printed
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    assert printed["lock_sha256"] == manifest["lock_sha256"]
    before = file.read_bytes()
    simulated(capsys, str(bundle))
    assert file.read_bytes() == before
    assert printed == simulated(capsys, QUICKSTART)


def test_the_page_is_one_file_with_every_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    found = simulated(capsys, QUICKSTART, "--out", str(page))
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(?:src|href)=\"(?!#)", text)
    assert "<script" not in text
    for each in found["truths"]:
        assert each["name"] in text
        for verdict in each["verdicts"]:
            drawn = (
                f'width="{100 * verdict["share"]:g}%"' in text or f'width="{round(100 * verdict["share"], 3)}%"' in text
            )
            assert drawn or verdict["share"] == 0
    assert text.count('class="dot reject"') == len(found["power"][0]["points"])
    assert "prefers-color-scheme: dark" in text


def test_a_pilot_gives_variances_and_sizes(
    tmp_path: Path, design: Design, sizes: Mapping[str, Size], capsys: pytest.CaptureFixture[str]
) -> None:
    decided(tmp_path, simulator(design, sizes), truth(score={"missing": 0.04}), 0)
    bundle = str(tmp_path / "bundle0")
    assert main(["simulate", bundle, *FEW]) == 2
    assert "error[R1701]: nothing says how many units" in capsys.readouterr().err
    capsys.readouterr()
    assert (
        main(["simulate", bundle, "--experiments", "8", "--resamples", "99", "--pilot", bundle, "--format", "json"])
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    assert any("those of the pilot run" in line for line in found["assumptions"])
    of = found["truths"][0]["metrics"]["score"]
    assert of["missing"] == pytest.approx(0.04, abs=0.03)
    assert of["means"]["attacked"] == pytest.approx(45, abs=8)
    assert found["power"][0]["analysis"] == "headline"


def test_a_pilot_without_rows_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compile", QUICKSTART, "--out", str(tmp_path)])
    assert main(["simulate", QUICKSTART, *FEW, "--pilot", str(tmp_path / "quickstart")]) == 2
    assert "error[R1705]: the pilot has no measurement rows" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--experiments", "0"), ("--resamples", "x"), ("--units", "-1")])
def test_counts_are_positive(option: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["simulate", QUICKSTART, *option])
    assert raised.value.code == 2
    assert "R0001" in capsys.readouterr().err


def test_the_schema_is_published(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "simulation"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"truths", "power", "needed", "lock_sha256"} <= schema["properties"].keys()
