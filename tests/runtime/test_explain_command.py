"""`epc explain`: pages of one code and of several, the list, and codes that have no page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import textwrap
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.explain import GROUPS, WIDTH, explanations, known_codes
from epc.compiler.source import parse
from epc.runtime.cli import main

ROOT = Path(__file__).resolve().parents[2]


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["explain", *argv]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "order"),
    [
        (["E0501"], ["error[E0501]: ", "8 + 44 is 52", "count: 25}", "count: 24}"]),
        (["e0501"], ["error[E0501]: "]),
        (["W0867"], ["warning[W0867]: ", "allow: [{code: W0867, reason: "]),
        (["E0721", "E0501"], ["error[E0721]: ", "placebo: [attack]", "\n-----", "error[E0501]: "]),
    ],
)
def test_a_page(capsys: pytest.CaptureFixture[str], argv: list[str], order: list[str]) -> None:
    out = said(capsys, *argv)
    places = [out.find(piece) for piece in order]
    assert -1 not in places
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("E0405", "`--- FILE` begins the text of a file"),
        ("E0103", "`--- spec` begins the text of a whole spec."),
        ("E0206", "`null` stands for a key that is left out."),
        ("E0501", "count: 24}\n"),
    ],
)
def test_a_page_says_how_to_read_its_example(capsys: pytest.CaptureFixture[str], code: str, says: str) -> None:
    """The last line of a page; an example without anything special has no such line."""
    assert says in said(capsys, code)[-120:]


def test_a_code_that_is_asked_twice_has_one_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "E0501", "e0501") == said(capsys, "E0501")


def test_an_error_cannot_be_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "allow:" not in said(capsys, "E0501")


def read(fragment: str) -> Any:
    sink = Diagnostics()
    found = parse(fragment, "fragment", sink)
    return None if found is None else found.data


def fragments(page: str) -> list[str]:
    """The two fragments of a spec on a page, without the files after them."""
    refused, _, accepted = page.partition("\n\nand this is not:\n\n")
    blocks = [refused.partition(":\n\n  ")[2], accepted.removeprefix("  ")]
    indented = [
        "\n".join(takewhile(lambda line: line[:2] in ("", "  "), f"  {block}".splitlines())) for block in blocks
    ]
    return [re.split(r"^--- ", textwrap.dedent(block), flags=re.MULTILINE)[0] for block in indented]


@pytest.mark.parametrize("code", known_codes())
def test_a_page_fits_a_terminal_and_says_what_was_tested(code: str) -> None:
    found = explanations([code])[code]
    for shown, written in zip(fragments(found.text(code)), (found.example, found.fix), strict=True):
        assert not [line for line in shown.splitlines() if len(line) > WIDTH - 2 and ", " in line]
        fragment = re.split(r"^--- ", written, flags=re.MULTILINE)[0]
        assert read(shown) == read(fragment)


def test_the_list_has_every_code_once_in_a_named_group(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys).splitlines()
    group, groups = "", {}
    for line in lines[:-2]:
        if line.startswith("  "):
            code = line.split()[0]
            assert code not in groups
            groups[code] = group
        else:
            group = line or group
    assert list(groups) == known_codes() == list(explanations())
    assert {code: GROUPS.get(code[1:3]) for code in groups} == groups
    assert max(map(len, lines)) <= WIDTH


def test_for_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = json.loads(said(capsys, "w1203", "--format", "json"))
    assert (row["code"], row["severity"], row["group"]) == ("W1203", "warning", "The model")
    assert row["example"] == 'model: {from: "path:models/mine"}'
    assert row["module"] == "checks/pinned_model.py"
    assert {"what", "why", "fix"} < set(row)
    assert [row["code"] for row in json.loads(said(capsys, "--format", "json"))] == known_codes()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["E0867"], ["R0010", "there is no code E0867", 'did you mean "W0867"?']),
        (["E5001"], ["R0010", "did you mean"]),
        (["0501"], ["R0010", 'did you mean "E0501"?']),
        (["counts"], ["R0010", "there is no code counts", "help: epc explain lists all codes"]),
        (["E0501", "E9999"], ["R0010", "E9999"]),
        (["r0106"], ["R0011", "R0106 comes from a command or a run", "its message is all there is"]),
    ],
)
def test_a_code_without_a_page(capsys: pytest.CaptureFixture[str], argv: list[str], says: list[str]) -> None:
    assert main(["explain", *argv]) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.count("error[") == 1
    assert all(piece in out.err for piece in says)


def test_only_the_module_of_a_code_is_parsed_and_no_check_imported() -> None:
    code = (
        "import ast, sys\n"
        "parse, count = ast.parse, []\n"
        "ast.parse = lambda *a, **k: (count.append(1), parse(*a, **k))[1]\n"
        "from epc.runtime.cli import main\n"
        "main(['explain', 'E0501', 'E0502'])\n"
        "slow = [name for name in sys.modules if name.split('.')[0] in ('pydantic', 'yaml', 'numpy') or name == 'epc.compiler.checks']\n"
        "print(len(count), slow)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.splitlines()[-1] == "1 []"


@pytest.fixture
def sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A spec of which nothing is reported, in the working directory."""
    shutil.copytree(ROOT / "tests/compiler/explain", tmp_path / "specs")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "specs/base.yaml"


PATH = ("hub:org/name", "path:models/mine")
COUNT = ("count: 24", "count: 25")


@pytest.mark.parametrize(("edits", "first"), [([COUNT], "E0501"), ([PATH], "W1203"), ([PATH, COUNT], "E0501")])
def test_a_check_says_where_the_reason_is(
    sound: Path, capsys: pytest.CaptureFixture[str], edits: list[tuple[str, str]], first: str
) -> None:
    """Of the first error, or of the first warning where there is no error."""
    text = sound.read_text()
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    sound.write_text(text)
    main(["check", "specs/base.yaml"])
    assert capsys.readouterr().err.splitlines()[-1] == f"epc explain {first} says why"
    for style in ("json", "github"):
        main(["check", "specs/base.yaml", "--format", style])
        out = capsys.readouterr()
        assert "says why" not in out.out + out.err


def test_a_check_that_finds_nothing_says_nothing_more(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "specs/base.yaml"]) == 0
    assert capsys.readouterr().err == ""
