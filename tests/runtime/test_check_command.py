"""`epc check`: exit codes in every format, --strict, allowed warnings, and colour only where it is wanted."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epc.runtime.cli import main

BASE = Path(__file__).resolve().parents[1] / "compiler/explain"
UNUSED = ("prompts:\n", "prompts:\n  spare: {items: [How do I fold a napkin?], count: 1}\n")
ALLOWED = ("id: base\n", "id: base\nallow: [{code: W1301, reason: it is kept for the next experiment}]\n")
WRONG = ("union: [part_a, part_b], count: 24", "union: [part_a, part_b], count: 25")
FORMATS = ("text", "json", "sarif", "github")


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run `epc check` on a sound spec with pieces of its text replaced: (exit code, stdout, stderr)."""

    def run(*argv: str, edits: tuple[tuple[str, str], ...] = ()) -> tuple[int, str, str]:
        shutil.copytree(BASE, tmp_path / "specs", dirs_exist_ok=True)
        spec = tmp_path / "specs/base.yaml"
        text = spec.read_text(encoding="utf-8")
        for old, new in edits:
            assert old in text
            text = text.replace(old, new, 1)
        spec.write_text(text, encoding="utf-8")
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        code = main(["check", "specs/base.yaml", *argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize(
    ("edits", "code", "strict"),
    [((), 0, 0), ((UNUSED,), 0, 2), ((UNUSED, ALLOWED), 0, 0), ((ALLOWED,), 0, 2), ((WRONG,), 2, 2), ((UNUSED, ALLOWED, WRONG), 2, 2)],
    ids=["sound", "warning", "allowed", "stale", "error", "error beside allowed"],
)  # fmt: skip
def test_exit_codes(
    check: Callable[..., Any], style: str, edits: tuple[tuple[str, str], ...], code: int, strict: int
) -> None:
    assert check("--format", style, edits=edits)[0] == code
    assert check("--format", style, "--strict", edits=edits)[0] == strict


@pytest.mark.parametrize("style", FORMATS)
def test_a_file_that_is_not_there_is_reported_in_every_format(
    style: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(tmp_path / "absent.yaml"), "--format", style]) == 2
    captured = capsys.readouterr()
    assert "E0401" in (captured.err if style == "text" else captured.out)


def test_formats_for_programs_are_whole_documents_on_stdout(check: Callable[..., Any]) -> None:
    _, out, err = check("--format", "json", edits=(UNUSED, WRONG))
    assert [(row["code"], row["file"]) for row in json.loads(out)["diagnostics"]] == [
        ("W1301", "specs/base.yaml"),
        ("E0501", "specs/base.yaml"),
    ]
    assert err == ""
    _, out, err = check("--format", "sarif", edits=(UNUSED, ALLOWED, WRONG))
    results = json.loads(out)["runs"][0]["results"]
    assert [(row["ruleId"], len(row["suppressions"])) for row in results] == [("E0501", 0), ("W1301", 1)]
    assert err == ""
    _, out, err = check("--format", "github", edits=(UNUSED, WRONG))
    assert [line.split(" ")[0] for line in out.splitlines()] == ["::warning", "::error"]
    assert err == ""


def test_allowed_warnings_are_one_line_unless_they_are_asked_for(check: Callable[..., Any]) -> None:
    _, out, err = check(edits=(UNUSED, ALLOWED))
    assert err == "0 errors, 0 warnings, 1 allowed by the spec with a reason\n"
    assert "sound" in out
    _, _, err = check("--show-allowed", edits=(UNUSED, ALLOWED))
    assert err.startswith("allowed[W1301]: ")
    assert "= reason: it is kept for the next experiment" in err
    assert err.endswith("0 errors, 0 warnings, 1 allowed by the spec with a reason\n")


def test_strict_says_why_it_refuses(check: Callable[..., Any]) -> None:
    _, out, err = check("--strict", edits=(UNUSED,))
    assert "warning[W1301]" in err
    assert "error[R0107]: --strict admits no warnings" in err
    assert "sound" not in out


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [(True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False), (True, {"NO_COLOR": ""}, True), (True, {"TERM": "dumb"}, False)],
)  # fmt: skip
def test_colour(
    check: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,
    environment: dict[str, str],
    coloured: bool,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    _, out, err = check(edits=(UNUSED, WRONG))
    assert ("\x1b[" in err) == coloured
    assert "\x1b[" not in check("--format", "github", edits=(UNUSED,))[1] + out


def test_help_says_what_the_exit_codes_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", "--help"])
    assert ended.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Exit codes, in every format: 0 sound, warnings or not; 2 at least one error" in out
    for option in ("--strict", "--show-allowed", "{text,json,sarif,github}"):
        assert option in out
