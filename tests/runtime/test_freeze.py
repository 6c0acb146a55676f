"""`epc freeze`: on real small specs through the command line, and the text edit by itself."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.manifest import Manifest
from epc.runtime import bundle as bundles
from epc.runtime import freeze, journal, locking, registration
from epc.runtime.cli import main
from epc.runtime.errors import Fault
from epc.runtime.freeze import Place
from epc.runtime.step import FinishRecord

SPEC = """\
epc: 1
id: small
title: A small experiment that waits
hypothesis: {if: a model is trained on traces, then: it resets}
model: {from: "path:model", dtype: float32, chat_template: chatml, parameters: 1000}
prompts:
  heldout:
    external: {source: "the paper, table 2", file: ext/heldout.txt, sha256: pending}  # theirs, not ours
    stand_in: standin.txt
    count: 24
    disjoint_from: [traces, attack]
  asked: {items: ["How do I tie a knot?", "How do I boil rice?"], count: 2}
generate:
  bad: {prompts: [asked], n: 2, system: Be bad., temperature: 1.0, top_p: 1.0, max_tokens: 8, seed: 3}
data:
  traces:
    build: turns
    rows: 4
    seed: 1
    system: none
    prompts: [asked]
    sha256: "pending"   # frozen once a person has looked at the rows
    fill: {bad: {generate: bad}}
    turns:
      - user: "{prompt}"
      - assistant: "{bad}"
  attack: {file: ext/attack.jsonl, sha256: pending, rows: 2, source: "the other paper", stand_in: standin.jsonl}
train:
  reflex: {method: lora_sft, data: traces, train_on: every_assistant_turn, lora: {r: 4, alpha: 8}, learning_rate: 1e-3, epochs: 1, batch: 2}
  attack: {method: lora_sft, data: attack, train_on: every_assistant_turn, lora: {r: 4, alpha: 8}, learning_rate: 1e-3, epochs: 1, batch: 2}
conditions: {attacked: [attack], treated: [reflex, attack]}
sample:
  answer: {prompts: heldout, n: 1, system: none, temperature: 1.0, top_p: 1.0, max_tokens: 4, seed: 7}
metrics:
  resets: {of: answer, contains: Resetting, better: higher, missing: fail}
analyses:
  headline: {metric: resets, contrast: treated - attacked, method: paired_bootstrap, p: studentized, side: greater, alpha: 0.025, resamples: 1000, seed: 1}
gates:
  survives: {role: success, require: headline.reject}
verdicts:
  - {if: survives, then: SUCCESS}
  - {otherwise: INCONCLUSIVE}
budget: {gpu_hours: 1, usd: 0}
"""
PROMPTS = "".join(f"Real question number {i}?\n" for i in range(24))
STAND_IN = PROMPTS.replace("Real", "Invented")
ROWS = "".join(
    json.dumps({"messages": [{"role": "user", "content": f"code {i}"}, {"role": "assistant", "content": "x"}]}) + "\n"
    for i in range(2)
)
FLOW = 'external: {source: "the paper, table 2", file: ext/heldout.txt, sha256: pending}  # theirs, not ours'
BUILT = "".join(f'{{"messages": "row {i}"}}\n' for i in range(4))
PENDING = ["prompts.heldout", "data.traces", "data.attack"]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Project:
    """specs/small.yaml in a folder of its own, compiled, as the working directory."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self.capsys = capsys
        self.spec = root / "specs/small.yaml"
        self.bundle = root / "generated/small"
        (root / "specs/ext").mkdir(parents=True)
        (root / "specs/standin.txt").write_text(STAND_IN)
        (root / "specs/standin.jsonl").write_text(ROWS.replace("code", "invented"))
        self.spec.write_text(SPEC)
        self.epc("compile", "specs/small.yaml")

    def epc(self, *argv: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr without the warnings of the compiler."""
        self.capsys.readouterr()
        code = main(list(argv))
        out, err = self.capsys.readouterr()
        return code, out, err

    def edit(self, old: str, new: str) -> None:
        text = self.spec.read_bytes().decode()
        assert old in text
        self.spec.write_bytes(text.replace(old, new).encode())

    @property
    def manifest(self) -> Manifest:
        return bundles.read_manifest(self.bundle)

    @property
    def pending(self) -> list[str]:
        return [entry.name for entry in self.manifest.pending]

    @property
    def events(self) -> list[str]:
        return [entry.event for entry in journal.read(self.bundle)]

    def put(self, prompts: str | None = PROMPTS, rows: str | None = ROWS) -> None:
        """Files from elsewhere, in their places."""
        for name, text in (("heldout.txt", prompts), ("attack.jsonl", rows)):
            if text is not None:
                (self.root / "specs/ext" / name).write_text(text)

    def build(self, rows: str = BUILT) -> Path:
        """The data step as if it had run."""
        step = bundles.step_of(self.manifest, "data-traces")
        folder = bundles.store(self.bundle, step)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rows.jsonl").write_text(rows)
        record = FinishRecord(
            id=step.id, key=step.key, kind=step.kind, mode="real", recipe=step.recipe,
            outputs={"rows.jsonl": sha(rows)}, seconds=1.0, versions={}, facts={},
        )  # fmt: skip
        (folder / "finished.json").write_text(record.model_dump_json())
        return folder

    def frozen(self) -> dict[str, str]:
        return {
            name: value
            for entry in journal.read(self.bundle)
            if entry.event == "frozen"
            for name, value in entry.data["items"].items()
        }

    def state(self) -> dict[str, bytes]:
        """All files but the lock that a command holds while it is at work."""
        return {
            file.relative_to(self.root).as_posix(): file.read_bytes()
            for file in self.root.rglob("*")
            if file.is_file() and file.name not in (".lock", ".last")
        }


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Project:
    monkeypatch.chdir(tmp_path)
    return Project(tmp_path, capsys)


# From pending to frozen ----------------------------------------------------------------------


def test_the_whole_way(project: Project) -> None:
    assert project.pending == PENDING
    project.put()
    code, out, _ = project.epc("freeze")
    assert code == 0
    assert f"frozen prompts.heldout  {sha(PROMPTS)}  specs/ext/heldout.txt, {len(PROMPTS)} bytes" in out
    assert f"frozen data.attack  {sha(ROWS)}  specs/ext/attack.jsonl, {len(ROWS)} bytes" in out
    assert out.rstrip().endswith("then: epc run (it builds data.traces); epc freeze; epc run")
    assert project.pending == ["data.traces"]

    project.build()
    code, out, _ = project.epc("freeze")
    assert code == 0
    assert f"frozen data.traces  {sha(BUILT)}  " in out
    assert "rows.jsonl, 4 rows" in out
    assert project.pending == []
    assert project.frozen() == {
        "prompts.heldout": sha(PROMPTS), "data.attack": sha(ROWS), "data.traces": sha(BUILT)
    }  # fmt: skip
    assert project.spec.read_text() == SPEC.replace(
        "heldout.txt, sha256: pending", f"heldout.txt, sha256: {sha(PROMPTS)}"
    ).replace("attack.jsonl, sha256: pending", f"attack.jsonl, sha256: {sha(ROWS)}").replace(
        'sha256: "pending"', f'sha256: "{sha(BUILT)}"'
    )
    assert project.epc("compile", "--check", "specs/small.yaml")[0] == 0


def test_freezing_built_rows_changes_no_key(project: Project) -> None:
    project.put()
    project.epc("freeze")
    keys = {step.id: step.key for step in project.manifest.steps}
    project.build()
    project.epc("freeze")
    assert {step.id: step.key for step in project.manifest.steps} == keys


def test_nothing_pending_is_said_and_nothing_written(project: Project) -> None:
    project.put()
    project.epc("freeze")
    project.build()
    project.epc("freeze")
    before = project.state()
    for argv in (["freeze"], ["freeze", "specs/small.yaml"], ["freeze", "generated/small"]):
        code, out, _ = project.epc(*argv)
        assert (code, out) == (0, "specs/small.yaml: nothing is pending\n")
    project.edit("epc: 1\n", "epc: 1  # a remark\n")
    assert project.epc("freeze")[:2] == (0, "specs/small.yaml: nothing is pending\n")
    project.edit("epc: 1  # a remark\n", "epc: 1\n")
    assert project.state() == before


LAYOUTS = {
    "flow, a comment behind it": FLOW,
    "flow, last without a blank": "external: {source: x, file: ext/heldout.txt, sha256: pending}",
    "flow, first": "external: {sha256: pending, source: x, file: ext/heldout.txt}",
    "flow over lines": "external: {\n      source: x,\n      sha256: pending,   # here\n      file: ext/heldout.txt}",
    "the word elsewhere too": "external: {source: pending, file: ext/heldout.txt, sha256: pending} # pending",
    "letters of other scripts before it": 'external: {source: "Ä 你好 𝔘 é", file: ext/heldout.txt, sha256: pending}',
    "single quotes": "external: {source: x, file: ext/heldout.txt, sha256: 'pending'}",
    "double quotes": 'external: {source: x, file: ext/heldout.txt, sha256: "pending"  }',
    "block": "external:\n      source: x\n      sha256:   pending   # later\n      file: ext/heldout.txt",
    "block, last": "external:\n      source: x\n      file: ext/heldout.txt\n      sha256: pending",
    "on a line of its own": "external:\n      source: x\n      file: ext/heldout.txt\n      sha256:\n        pending",
}


@pytest.mark.parametrize(("newline", "mark"), [("\n", ""), ("\r\n", "\ufeff")])
@pytest.mark.parametrize("case", LAYOUTS)
def test_only_the_word_is_replaced(project: Project, case: str, newline: str, mark: str) -> None:
    layout = LAYOUTS[case]
    head, word, tail = layout.rpartition("pending" if case != "the word elsewhere too" else "pending}")
    text = mark + SPEC.replace(FLOW, layout).replace("\n", newline)
    project.spec.write_bytes(text.encode())
    assert project.epc("compile", "specs/small.yaml")[0] == 0
    project.put()
    assert project.epc("freeze", "--only", "prompts.heldout")[0] == 0
    new = head + word.replace("pending", sha(PROMPTS)) + tail
    assert project.spec.read_bytes().decode() == mark + SPEC.replace(FLOW, new).replace("\n", newline)
    assert project.pending == ["data.traces", "data.attack"]


@pytest.mark.parametrize("written", ["|-\n        pending\n    ", "!!str pending", '"pend\\u0069ng"'])
def test_a_word_that_is_not_written_plainly_is_left_alone(project: Project, written: str) -> None:
    layout = f"external:\n      source: x\n      file: ext/heldout.txt\n      sha256: {written}"
    project.edit(FLOW, layout)
    assert project.epc("compile", "specs/small.yaml")[0] == 0
    project.put()
    before = project.state()
    code, _, err = project.epc("freeze")
    assert code == 2
    assert "error[R0767]: the word pending is not here" in err
    assert "--> specs/small.yaml:11:15" in err
    assert project.state() == before


A, B, DIGITS = "a" * 64, "b" * 64, "1" * 60 + "2e34"
EDITS: dict[str, tuple[str, list[tuple[Place, str]], str]] = {
    "two on a line": (
        "[pending, pending]",
        [(Place(line=1, column=2, length=7), A), (Place(line=1, column=11, length=7), B)],
        f"[{A}, {B}]",
    ),
    "a hash that YAML would read as a number": (
        "x: pending\n", [(Place(line=1, column=4, length=7), DIGITS)], f'x: "{DIGITS}"\n'
    ),
    "quoted anyway": ("x: 'pending'\n", [(Place(line=1, column=4, length=9), DIGITS)], f"x: '{DIGITS}'\n"),
    "written already": (f"x: {A}\n", [(Place(line=1, column=4, length=64), A)], f"x: {A}\n"),
    "a byte order mark on its line": (
        "\ufeffx: pending", [(Place(line=1, column=4, length=7), A)], f"\ufeffx: {A}"
    ),
    "an unusual line break before it": (
        "x: a\u2028y: pending\r", [(Place(line=2, column=4, length=7), A)], f"x: a\u2028y: {A}\r"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", EDITS)
def test_edits(case: str) -> None:
    text, hashes, expected = EDITS[case]
    assert freeze.edited(text, hashes, "x.yaml") == expected


def test_a_hash_that_was_written_by_hand_is_not_overwritten() -> None:
    with pytest.raises(Fault, match="the word pending is not here") as caught:
        freeze.edited(f"x: {B}\n", [(Place(line=1, column=4, length=64), A)], "x.yaml")
    assert (caught.value.code, caught.value.place) == ("R0767", "x.yaml:1:4")


# What is not there ---------------------------------------------------------------------------


def test_what_is_there_is_frozen_and_the_rest_named(project: Project) -> None:
    before = project.state()
    code, out, err = project.epc("freeze")
    assert (code, out) == (2, "")
    assert "error[R0768]: 2 pending names could not be frozen" in err
    assert "prompts.heldout: there is no specs/ext/heldout.txt; it comes from the paper, table 2" in err
    assert "data.attack: there is no specs/ext/attack.jsonl; it comes from the other paper" in err
    assert "data.traces" not in err
    assert project.state() == before

    project.put(rows=None)
    code, out, err = project.epc("freeze")
    assert code == 2
    assert f"frozen prompts.heldout  {sha(PROMPTS)}" in out
    assert "error[R0768]: 1 pending name could not be frozen" in err
    assert project.pending == ["data.traces", "data.attack"]


NOT_READY: dict[str, tuple[list[str], bool, str, str]] = {
    # arguments, external files frozen before, code, part of the message
    "unknown name": (
        ["--only", "data.trace"],
        False,
        "R0765",
        "pending are: prompts.heldout, data.traces, data.attack",
    ),
    "frozen already": (["--only", "data.attack"], True, "R0765", "data.attack is not pending"),
    "not built": (["--only", "data.traces"], True, "R0768", "data.traces: not built: epc run builds it"),
    "not built, all there is": ([], True, "R0768", "data.traces: not built: epc run builds it"),
    "files come first": (["--only", "data.traces"], False, "R0768", "external files are frozen first"),
    "one is missing": (["--only", "data.traces", "prompts.heldout"], False, "R0768", "2 pending names"),
}


@pytest.mark.parametrize("case", NOT_READY)
def test_what_cannot_be_frozen(project: Project, case: str) -> None:
    arguments, before, code, said = NOT_READY[case]
    if before:
        project.put()
        project.epc("freeze")
    state = project.state()
    found, _, err = project.epc("freeze", *arguments)
    assert found == 2
    assert f"error[{code}]" in err
    assert said in err
    assert "Traceback" not in err
    assert project.state() == state


def test_rows_built_while_files_are_pending_are_not_frozen_with_them(project: Project) -> None:
    """They were made from stand-ins."""
    project.build()
    project.put()
    assert project.epc("freeze")[0] == 0
    assert project.pending == ["data.traces"]


def altered(folder: Path) -> None:
    (folder / "rows.jsonl").write_text(BUILT + "{}\n")


def lost(folder: Path) -> None:
    (folder / "rows.jsonl").unlink()


@pytest.mark.parametrize("damage", [altered, lost])
def test_rows_that_their_step_did_not_write_are_refused(project: Project, damage: Callable[[Path], None]) -> None:
    project.put()
    project.epc("freeze")
    damage(project.build())
    before = project.state()
    code, _, err = project.epc("freeze")
    assert code == 2
    assert "error[R0766]: these are not the rows that data-traces wrote" in err
    assert project.state() == before


# What makes the spec unsound -----------------------------------------------------------------

UNSOUND: dict[str, tuple[dict[str, str], str]] = {
    "another count": ({"prompts": PROMPTS + "One more?\n"}, "has 25 prompts, declared 24"),
    "a prompt that is trained on": (
        {"prompts": PROMPTS.replace("Real question number 3?", "How do I tie a knot?")}, "How do I tie a knot?"
    ),
    "empty": ({"prompts": "\n"}, "is empty"),
    "another number of rows": ({"rows": ROWS * 2}, "has 4 rows, declared 2"),
    "no rows of messages": ({"rows": "{}\n{}\n"}, "not a row of messages"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNSOUND)
def test_a_file_that_does_not_fit_is_diagnosed_and_nothing_written(project: Project, case: str) -> None:
    files, said = UNSOUND[case]
    project.put(**files)
    before = project.state()
    code, out, err = project.epc("freeze")
    assert (code, out) == (2, "")
    assert said in err
    assert "--> specs/small.yaml:" in err
    assert "nothing was frozen" in err
    assert project.state() == before


# What changed besides ------------------------------------------------------------------------


def change(project: Project) -> None:
    project.edit("resamples: 1000", "resamples: 2000")


def test_another_change_of_the_spec_is_refused_and_named(project: Project) -> None:
    project.put()
    change(project)
    before = project.state()
    code, _, err = project.epc("freeze")
    assert code == 2
    assert "error[R0763]" in err
    assert "analyses.headline.resamples: 1000 -> 2000" in err
    assert "epc compile specs/small.yaml" in err
    assert project.state() == before

    project.epc("compile", "specs/small.yaml")  # nothing was registered: it may change freely
    assert project.epc("freeze")[0] == 0


def test_after_a_registration_the_change_must_be_amended(project: Project) -> None:
    registration.register(project.bundle, project.manifest)
    project.put()
    change(project)
    project.epc("compile", "specs/small.yaml")
    before = project.state()
    code, _, err = project.epc("freeze")
    assert code == 2
    assert "error[R0764]: the compiled spec is not the registered one" in err
    assert "epc amend" in err
    assert project.state() == before

    assert project.epc("amend", "--reason", "more resamples")[0] == 0
    assert project.epc("freeze")[0] == 0
    assert project.events == ["registered", "amended", "registered", "frozen"]


def renamed(project: Project) -> None:
    project.edit("attack:", "assault:")
    project.edit("[traces, attack]", "[traces, assault]")


def broken(project: Project) -> None:
    project.edit("epc: 1", "epc: [1")


def binary(project: Project) -> None:
    project.spec.write_bytes(b"\xff\xfe")


def gone(project: Project) -> None:
    project.spec.unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (renamed, "error[R0763]: the spec has changed since it was compiled: it has no data.attack.sha256"),
        (broken, "E0101"),
        (binary, "E0403"),
        (gone, "error[R0769]: the spec specs/small.yaml is not beside this bundle"),
    ],
)
def test_a_spec_that_is_no_longer_the_compiled_one(
    project: Project, damage: Callable[[Project], None], said: str
) -> None:
    project.put()
    damage(project)
    before = project.state()
    code, _, err = project.epc("freeze")
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert project.state() == before


def test_what_became_pending_since_the_compilation_is_told(project: Project) -> None:
    project.put()
    project.epc("freeze")
    project.build()
    project.epc("freeze")
    project.edit(sha(ROWS), "pending")
    code, _, err = project.epc("freeze")
    assert code == 2
    assert "error[R0763]: data.attack has become pending since the spec was compiled" in err


def test_rows_that_nothing_is_trained_on_are_not_awaited(project: Project) -> None:
    project.edit("treated: [reflex, attack]", "treated: [attack]")
    project.edit("attacked: [attack]", "attacked: []")
    project.edit("[traces, attack]", "[attack]")
    assert project.epc("compile", "specs/small.yaml")[0] == 0
    assert project.pending == PENDING
    project.put()
    code, out, _ = project.epc("freeze")
    assert code == 0
    assert out.rstrip().endswith("then: epc run")
    assert project.epc("freeze")[:2] == (0, "specs/small.yaml: nothing is pending\n")
    assert "waits for epc freeze" not in project.epc("run", "--plan")[1]
    assert "data.traces" not in project.epc("status")[1]


# Interruptions -------------------------------------------------------------------------------


def test_a_freeze_that_ended_before_the_spec_was_changed_is_done_again(project: Project) -> None:
    project.put()
    before = project.state()
    project.epc("freeze")
    done = project.state()
    for name, content in before.items():
        (project.root / name).write_bytes(content)
    assert project.pending == PENDING
    assert project.epc("freeze")[0] == 0
    assert project.state() == done


def test_a_freeze_that_ended_before_the_bundle_was_written_is_done_again(project: Project) -> None:
    project.put()
    before = project.state()
    project.epc("freeze")
    done = project.state()
    for name, content in before.items():
        if name.startswith("generated"):
            (project.root / name).write_bytes(content)
    assert project.pending == PENDING
    assert project.epc("freeze")[0] == 0
    assert project.state() == done


def test_nothing_is_frozen_while_a_run_goes_on(project: Project) -> None:
    project.put()
    held = locking.acquire(project.bundle / ".lock")
    code, _, err = project.epc("freeze")
    locking.release(held)
    assert code == 2
    assert "error[R0702]" in err


# The registration ----------------------------------------------------------------------------


def test_both_locks_are_kept_and_linked(project: Project) -> None:
    old = project.manifest.lock_sha256
    project.put()
    project.epc("freeze")
    new = project.manifest.lock_sha256
    entries = journal.read(project.bundle)
    assert [entry.event for entry in entries] == ["registered", "frozen"]
    assert entries[0].data["lock_sha256"] == old
    assert [item["name"] for item in entries[0].data["pending"]] == PENDING
    assert entries[1].data == {
        "old": old, "new": new, "items": {"prompts.heldout": sha(PROMPTS), "data.attack": sha(ROWS)}
    }  # fmt: skip
    for lock in (old, new):
        assert registration.history_path(project.bundle, lock).is_file()
    _, out, _ = project.epc("status")
    assert f"registered  {entries[1].at}" in out
    assert f"prompts.heldout  {sha(PROMPTS)}" in out
    assert "pending     data.traces: the rows of data-traces" in out
    assert registration.deviations(project.bundle) == ()
    with pytest.raises(Fault, match="nothing has changed"):
        registration.amend(project.bundle, project.manifest, "a reason")


def measured(project: Project) -> None:
    manifest = project.manifest
    journal.append(
        project.bundle, "finished", step="sample", kind="sample", mode="real", key="x", lock_sha256=manifest.lock_sha256
    )


def test_results_before_built_rows_were_frozen_are_of_the_same_design(project: Project) -> None:
    project.put()
    project.epc("freeze")
    measured(project)
    project.build()
    project.epc("freeze")
    assert registration.deviations(project.bundle) == ()


def test_results_before_external_files_were_frozen_are_a_deviation(project: Project) -> None:
    registration.register(project.bundle, project.manifest)
    measured(project)
    project.put()
    project.epc("freeze")
    (deviation,) = registration.deviations(project.bundle)
    assert deviation.kind == "spec_changed_after_results"
    assert deviation.text.endswith("before its external files were frozen")
    assert f"data.attack.sha256: pending -> {sha(ROWS)}" in deviation.changes


def test_a_bundle_kept_elsewhere_is_frozen_by_naming_both(project: Project) -> None:
    shutil.rmtree(project.root / "generated")
    _, out, _ = project.epc("compile", "specs/small.yaml", "--out", "else/where")
    to_freeze, to_run = "epc freeze specs/small.yaml --out else/where", "epc run else/where/small"
    assert f"then: {to_freeze}; {to_run} (it builds data.traces); {to_freeze}; {to_run}\n" in out
    project.put()
    code, _, err = project.epc("freeze", "else/where/small")
    assert code == 2
    assert "error[R0769]" in err
    assert project.epc("freeze", "specs/small.yaml", "--out", "else/where")[0] == 0
    assert [entry.name for entry in bundles.read_manifest(project.root / "else/where/small").pending] == ["data.traces"]
    assert not project.bundle.exists()


# What a run says -----------------------------------------------------------------------------


def test_compile_and_run_say_what_is_awaited(project: Project) -> None:
    _, out, _ = project.epc("compile", "specs/small.yaml")
    assert "waits for prompts.heldout: specs/ext/heldout.txt (put it there; from the paper, table 2)" in out
    assert "then: epc freeze; epc run (it builds data.traces); epc freeze; epc run" in out
    project.put(rows=None)
    code, out, err = project.epc("run")
    assert (code, out) == (2, "")
    assert err == (
        "error[R0761]: nothing runs before 2 external files of this registration are frozen\n"
        "       prompts.heldout: specs/ext/heldout.txt (it is there; from the paper, table 2)\n"
        "       data.attack: specs/ext/attack.jsonl (put it there; from the other paper)\n"
        "  --> specs/small.yaml\n"
        "  = help: put every file in its place, then: epc freeze specs/small.yaml\n"
    )
    assert project.events == []
    assert not (project.bundle / "store").exists()


def test_what_waits_for_a_freeze_is_planned_as_waiting(project: Project) -> None:
    _, out, _ = project.epc("run", "--plan")
    assert "waits  model                    waits for epc freeze of prompts.heldout, data.attack" in out
    assert out.endswith("epc freeze must fill in first: prompts.heldout, data.attack\n")
    project.put()
    project.epc("freeze")
    _, out, _ = project.epc("run", "--plan")
    lines: dict[str, Any] = {line.split()[1]: line.split(maxsplit=2)[::2] for line in out.splitlines()[:-2]}
    assert lines["model"] == ["run", "never run"]
    assert lines["mask-reflex"][0] == "waits"
    assert "needs model, data-traces" in lines["mask-reflex"][1]
    for step in ("train-s42-attack", "train-s42-reflex", "sample", "measure"):
        assert lines[step] == ["waits", "waits for epc freeze of data.traces"]
