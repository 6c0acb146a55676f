"""`epc diff` between specs, locks, bundles and git revisions: what it prints, and how it ends."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from epc.runtime.cli import main

ROOT = Path(__file__).resolve().parents[2]
SMALL = ROOT / "tests/compiler/comparison/specs/small.yaml"
SPEC = "specs/small.yaml"


def git(*arguments: str) -> None:
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)


def change(old: str, new: str, file: str = SPEC) -> None:
    text = Path(file).read_text(encoding="utf-8")
    assert old in text
    Path(file).write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit, which holds specs/ and the bundle of a spec, as the working directory."""
    shutil.copytree(ROOT / "specs", tmp_path / "specs", ignore=shutil.ignore_patterns("external"))
    shutil.copy(SMALL, tmp_path / "specs")
    monkeypatch.chdir(tmp_path)
    assert main(["compile", SPEC]) == 0
    git("init", "--quiet", "--initial-branch", "main")
    git("add", "--all")
    git("commit", "--quiet", "--message", "first")
    return tmp_path


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (SPEC, SPEC),
        ("HEAD", SPEC),
        ("HEAD:specs/small.yaml", SPEC),
        ("main:./specs/small.yaml", SPEC),
        ("HEAD", "main:specs/small.yaml"),
        ("generated/small", SPEC),
        ("generated/small/spec.lock.yaml", "generated/small"),
        ("HEAD:generated/small", "HEAD:generated/small/spec.lock.yaml"),
    ],
)
def test_the_same_in_every_form(before: str, after: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", before, after]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "comparable"
    assert "BLOCK" not in out
    assert "WARN" not in out


@pytest.mark.parametrize(
    ("before", "after"),
    [("HEAD", SPEC), ("HEAD:specs/small.yaml", SPEC), ("generated/small", SPEC), ("HEAD:generated/small", SPEC)],
)
def test_a_change_since(before: str, after: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change("learning_rate: 1e-3", "learning_rate: 1e-4")
    assert main(["diff", before, after]) == 0
    out = capsys.readouterr().out
    assert (
        "WARN   training regime  arms are trained otherwise\n         train.attack.learning_rate: 0.001 -> 0.0001"
        in out
    )
    assert "is it one variable? one variable: training regime" in out
    assert "of these, not the same arm: attacked" in out


def test_texts_of_a_revision_are_compared(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change("\n", " now?\n", "specs/prompts/heldout.txt")
    assert main(["diff", "HEAD", SPEC]) == 1
    out = capsys.readouterr().out
    assert "BLOCK  evaluation       other prompts are asked" in out
    assert "(24 lines added, 24 removed)" in out
    assert out.splitlines()[-1] == "BLOCK: numbers of the two are not comparable (evaluation)"


def test_texts_beside_a_lock_are_compared(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change("\n", " now?\n", "specs/prompts/heldout.txt")
    assert main(["diff", "generated/small", SPEC]) == 1
    assert "(24 lines added, 24 removed)" in capsys.readouterr().out


def test_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change("every_assistant_turn", "last_assistant_turn")
    assert main(["diff", "HEAD", SPEC, "--format", "json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["before"], found["after"], found["status"]) == ("HEAD:specs/small.yaml", SPEC, "BLOCK")
    assert found["variables"] == ["loss_mask"]
    groups = {group["group"]: group for group in found["groups"]}
    assert groups["loss_mask"]["differences"] == [
        {
            "path": "train.attack.train_on", "kind": "changed", "status": "BLOCK",
            "text": "every_assistant_turn -> last_assistant_turn", "follows": None,
        }
    ]  # fmt: skip
    assert groups["model"]["status"] == "PASS"


def test_what_is_meant_to_differ_by_option(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change("every_assistant_turn", "last_assistant_turn")
    assert main(["diff", "HEAD", SPEC, "--varies", "loss_mask"]) == 0
    assert "PASS   loss mask        differs, as it is meant to" in capsys.readouterr().out


def test_what_is_meant_to_differ_by_lineage(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(SPEC, "specs/child.yaml")
    change("every_assistant_turn", "last_assistant_turn", "specs/child.yaml")
    cited = (
        "lineage: [{cites: the first, relation: parent, note: another mask, plan: small.yaml, varies: [loss_mask]}]\n"
    )
    with Path("specs/child.yaml").open("a", encoding="utf-8") as child:
        child.write(cited)
    assert main(["diff", SPEC, "specs/child.yaml"]) == 0
    assert "PASS   loss mask        differs, as it is meant to" in capsys.readouterr().out


def test_a_child_that_its_own_lineage_refuses_is_shown(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(SPEC, "specs/child.yaml")
    change("every_assistant_turn", "last_assistant_turn", "specs/child.yaml")
    with Path("specs/child.yaml").open("a", encoding="utf-8") as child:
        child.write("lineage: [{cites: the first, relation: parent, note: like it, plan: small.yaml}]\n")
    assert main(["check", "specs/child.yaml"]) == 2
    assert "E1412" in capsys.readouterr().err
    assert main(["diff", SPEC, "specs/child.yaml"]) == 1
    assert "BLOCK  loss mask" in capsys.readouterr().out


def test_a_spec_with_errors(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change("[attack]", "[atack]")
    assert main(["diff", "HEAD", SPEC]) == 2
    shown = capsys.readouterr()
    assert "error[E0302]" in shown.err
    assert not shown.out


def test_a_revision_with_errors_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change("[attack]", "[atack]")
    git("commit", "--all", "--quiet", "--message", "second")
    change("[atack]", "[attack]")
    assert main(["diff", "HEAD", SPEC]) == 2
    assert "--> HEAD:specs/small.yaml:" in capsys.readouterr().err


def test_a_pinned_file_that_is_not_committed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.dumps({"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]}) + "\n"
    Path("specs/external").mkdir()
    Path("specs/external/rows.jsonl").write_text(rows * 64, encoding="utf-8")
    from epc.compiler.contract.canonical import sha256_text

    data = next(
        line for line in Path(SPEC).read_text(encoding="utf-8").splitlines() if line.startswith("  bad: {build")
    )
    change(data, f"  bad: {{file: external/rows.jsonl, sha256: {sha256_text(rows * 64)}, rows: 64}}")
    Path(".gitignore").write_text("external/\n", encoding="utf-8")
    git("add", "--all")
    git("commit", "--quiet", "--message", "second")
    assert main(["diff", "HEAD", SPEC]) == 0
    assert "PASS   data             the same" in capsys.readouterr().out


def outside(project: Path) -> None:
    shutil.rmtree(project / ".git")


def export_ignored(project: Path) -> None:
    Path(".gitattributes").write_text("small.yaml export-ignore\n", encoding="utf-8")
    git("add", "--all")
    git("commit", "--quiet", "--message", "second")


def new(project: Path) -> None:
    shutil.copy(SPEC, "specs/new.yaml")


def junk(project: Path) -> None:
    Path("junk.lock.yaml").write_text("a: 1\n", encoding="utf-8")


def nothing(project: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("prepare", "sides", "code", "says"),
    [
        (nothing, ["specs/smal.yaml", SPEC], "R0911", 'did you mean "specs/small.yaml"?'),
        (nothing, ["elsewhere/x.yaml", SPEC], "R0911", "a side is a spec, a lock"),
        (nothing, [":", SPEC], "R0911", "no such file"),
        (outside, ["HEAD:specs/small.yaml", SPEC], "R0912", "no git repository"),
        (outside, ["HEAD", SPEC], "R0912", "no git repository"),
        (nothing, ["HAED", SPEC], "R0913", "HAED is no revision"),
        (nothing, ["HAED:specs/small.yaml", SPEC], "R0913", "HAED is no revision"),
        (nothing, ["-x:specs/small.yaml", SPEC], "R0913", "-x is no revision"),
        (nothing, ["HEAD:specs/smal.yaml", SPEC], "R0914", "specs/smal.yaml is not in revision HEAD"),
        (new, ["HEAD", "specs/new.yaml"], "R0914", "specs/new.yaml is not in revision HEAD"),
        (nothing, ["HEAD:../small.yaml", SPEC], "R0914", "lies outside of the repository"),
        (export_ignored, ["HEAD", SPEC], "R0914", "export-ignore"),
        (junk, ["junk.lock.yaml", SPEC], "R0915", "it declares no conditions"),
        (nothing, ["specs", SPEC], "R0916", "no spec.lock.yaml"),
        (nothing, ["HEAD:specs", SPEC], "R0916", "no spec.lock.yaml"),
        (nothing, ["HEAD", "main"], "R0918", "neither side names a file"),
        (nothing, [SPEC, SPEC, "--varies", "dta"], "R0919", 'did you mean "data"?'),
    ],
)
def test_faults(
    prepare: Callable[[Path], None], sides: list[str], code: str, says: str,
    project: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    prepare(project)
    assert main(["diff", "--", *sides] if sides[0].startswith("-") else ["diff", *sides]) == 2
    err = capsys.readouterr().err
    assert f"error[{code}]: " in err
    assert says in err
    assert "Traceback" not in err


def test_the_repository_is_left_as_it_was(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change("learning_rate: 1e-3", "learning_rate: 1e-4")
    before = subprocess.run(["git", "status", "--porcelain"], capture_output=True, check=True).stdout
    assert main(["diff", "HEAD", SPEC]) == 0
    assert subprocess.run(["git", "status", "--porcelain"], capture_output=True, check=True).stdout == before
