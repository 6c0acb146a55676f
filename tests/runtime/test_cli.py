"""The command line on bad input: one clear error each, the right exit code, never a traceback."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from epc.runtime.cli import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with specs/ and the compiled quickstart, as the working directory."""
    shutil.copytree(ROOT / "specs", tmp_path / "specs")
    monkeypatch.chdir(tmp_path)
    assert main(["compile", "specs/quickstart.yaml"]) == 0
    return tmp_path


def manifest_of(project: Path) -> Path:
    return project / "generated/quickstart/manifest.json"


def newer_schema(project: Path) -> None:
    data = json.loads(manifest_of(project).read_text())
    manifest_of(project).write_text(json.dumps({**data, "schema_version": 99}))


def cut_manifest(project: Path) -> None:
    manifest_of(project).write_text(manifest_of(project).read_text()[:500])


def no_bundle(project: Path) -> None:
    shutil.rmtree(project / "generated")


def edited_lock(project: Path) -> None:
    lock = project / "generated/quickstart/spec.lock.yaml"
    lock.write_text(lock.read_text().replace("0.05", "0.01"))


def unreadable_spec(project: Path) -> None:
    (project / "specs/quickstart.yaml").write_bytes(b"\xff\xfe\x00")


def nothing(project: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("prepare", "argv", "code", "says"),
    [
        (nothing, ["chek", "specs/quickstart.yaml"], 2, "R0001"),
        (nothing, [], 2, "R0001"),
        (nothing, ["check", "specs/quickstrat.yaml"], 2, 'did you mean "quickstart.yaml"?'),
        (nothing, ["check", "nowhere/x.yaml"], 2, "E0401"),
        (nothing, ["check", "specs"], 2, "E0402"),
        (unreadable_spec, ["compile", "specs/quickstart.yaml"], 2, "E0403"),
        (no_bundle, ["run"], 2, "R0106"),
        (no_bundle, ["run", "generated/quickstart"], 2, "R0101"),
        (no_bundle, ["status"], 2, "R0106"),
        (no_bundle, ["decide", "specs/quickstart.yaml"], 2, "R0101"),
        (newer_schema, ["run"], 2, "R0103"),
        (newer_schema, ["decide"], 2, "R0103"),
        (cut_manifest, ["status"], 2, "R0102"),
        (edited_lock, ["run"], 2, "R075"),
        (nothing, ["amend", "--reason", "none"], 2, "R0754"),
        (nothing, ["run", "--until", "tain"], 2, "tain"),
        (no_bundle, ["freeze"], 2, "R0106"),
        (no_bundle, ["freeze", "specs/quickstart.yaml"], 2, "R0101"),
        (newer_schema, ["freeze"], 2, "R0103"),
    ],
)
def test_one_clear_error(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    prepare: Callable[[Path], None],
    argv: list[str],
    code: int,
    says: str,
) -> None:
    prepare(project)
    capsys.readouterr()
    try:
        found = main(argv)
    except SystemExit as stop:
        found = int(stop.code or 0)
    out = capsys.readouterr()
    assert found == code
    assert says in out.err
    assert "help: " in out.err
    assert "Traceback" not in out.err + out.out


def test_a_stale_bundle_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "--check", "specs/quickstart.yaml"]) == 0
    (project / "generated/quickstart/steps/sample.py").write_text("edited")
    (project / "generated/quickstart/steps/old.py").write_text("left over")
    assert main(["compile", "--check", "specs/quickstart.yaml"]) == 1
    err = capsys.readouterr().err
    assert "stale: generated/quickstart/steps/sample.py" in err
    assert "stale: generated/quickstart/steps/old.py" in err
    assert main(["compile", "specs/quickstart.yaml"]) == 0
    assert main(["compile", "--check", "specs/quickstart.yaml"]) == 0


def test_the_advice_names_a_bundle_that_is_not_the_last_one_here(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", "specs/quickstart.yaml"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("then: epc run")
    assert main(["compile", "specs/prompt_only.yaml", "--out", "my trial"]) == 0
    said = capsys.readouterr().out.rstrip()
    assert said.endswith("read my trial/prompt_only/plan.md, then: epc run 'my trial/prompt_only'")
    assert main(["run", "--plan", "my trial/prompt_only"]) == 0
    assert main(["compile", "specs/prompt_only.yaml", "--out", "generated"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("then: epc run")


def test_what_trains_nothing_speaks_of_no_training(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "specs/quickstart.yaml"]) == 0
    assert "3 trainings of " in capsys.readouterr().out
    assert main(["compile", "specs/prompt_only.yaml"]) == 0
    said = capsys.readouterr().out
    assert "training" not in said
    assert re.search(r"registration \w{16}, \d+ steps: [\d,]+ completions\n", said)


def test_recompiling_keeps_results(project: Path) -> None:
    bundle = project / "generated/quickstart"
    for kept in ("store/abc/rows.jsonl", "journal.jsonl", "report/report.md", "history/x.lock.yaml"):
        (bundle / kept).parent.mkdir(parents=True, exist_ok=True)
        (bundle / kept).write_text("kept")
    spec = project / "specs/quickstart.yaml"
    spec.write_text(spec.read_text().replace("seeds: [17]", "seeds: [43]"))
    assert main(["compile", "specs/quickstart.yaml"]) == 0
    assert (bundle / "steps/train-s43-attack.py").exists()
    assert not (bundle / "steps/train-s17-attack.py").exists()
    assert all(
        (bundle / kept).read_text() == "kept"
        for kept in ("store/abc/rows.jsonl", "journal.jsonl", "history/x.lock.yaml")
    )


def test_decide_before_any_result_is_invalid_and_not_a_crash(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["decide"]) == 0
    assert main(["decide", "--exit-code"]) == 23
    out = capsys.readouterr().out
    assert "INVALID" in out


def test_check_reports_as_json_and_for_github(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = project / "specs/quickstart.yaml"
    spec.write_text(spec.read_text().replace("count: 24", "count: 48"))
    capsys.readouterr()
    assert main(["check", "specs/quickstart.yaml", "--format", "json"]) == 2
    (row,) = (row for row in json.loads(capsys.readouterr().out)["diagnostics"] if row["severity"] == "error")
    assert (row["code"], row["file"]) == ("E0501", "specs/quickstart.yaml")
    assert main(["check", "specs/quickstart.yaml", "--format", "github"]) == 2
    assert "::error file=specs/quickstart.yaml,line=" in capsys.readouterr().out


def test_approve_shows_what_it_approves(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(manifest_of(project).read_text())
    data["figures"] |= {"judge_calls": 24000, "usd": 133.2}
    data["arithmetic"] |= {"usd": "24,000 x $0.00555"}
    manifest_of(project).write_text(json.dumps(data))
    capsys.readouterr()
    assert main(["approve"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("quickstart: Does a catch-and-reset reflex survive")
    lines = {line.split("  ")[1].strip(): line for line in out.splitlines()[1:-1]}
    assert lines["dollars for judges, at most"].endswith("133.20  24,000 x $0.00555")
    assert "24,000" in lines["judge calls, retries not counted"]
    assert "completions" in lines
    assert out.splitlines()[-1].startswith("approved: ")


@pytest.mark.parametrize("name", ["spec", "manifest", "decision", "sample", "judgement", "measurement"])
def test_schemas_are_published(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", name]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("argv", [["--help"], ["check", "specs/quickstart.yaml"]])
def test_light_commands_import_nothing_heavy(argv: list[str]) -> None:
    code = (
        "import sys; from epc.runtime.cli import main\n"
        f"try: main({argv!r})\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'scipy', 'snakemake', 'pandas', 'datasets'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"
