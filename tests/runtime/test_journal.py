"""The journal's chain: what it accepts, what it refuses, and what a killed writer leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from epc.compiler.contract.canonical import canonical_json
from epc.runtime import journal
from epc.runtime.errors import Fault


def write(bundle: Path, count: int = 3) -> list[str]:
    for number in range(count):
        journal.append(bundle, "started", step=f"s{number}", key="k")
    return journal.path(bundle).read_text().splitlines()


def test_entries_come_back_in_order(tmp_path: Path) -> None:
    write(tmp_path)
    entries = journal.read(tmp_path)
    assert [entry.seq for entry in entries] == [0, 1, 2]
    assert [entry.data["step"] for entry in entries] == ["s0", "s1", "s2"]
    assert entries[0].previous == journal.GENESIS
    assert entries[2].previous == entries[1].hash


def test_no_journal_is_an_empty_one(tmp_path: Path) -> None:
    assert journal.read(tmp_path) == []


def altered(lines: list[str]) -> list[str]:
    return [lines[0], lines[1].replace("s1", "s9"), lines[2]]


def rehashed(lines: list[str]) -> list[str]:
    """A line altered with its own hash made right again: the next line no longer follows it."""
    entry = journal.Entry.model_validate_json(lines[1].replace("s1", "s9"))
    entry = entry.model_copy(update={"hash": entry.expected_hash()})
    return [lines[0], canonical_json(entry.model_dump()), lines[2]]


CANNOT, ALTERED, FOLLOWS = "cannot be read", "was altered", "does not follow"
TAMPERED: dict[str, tuple[Callable[[list[str]], list[str]], int, str]] = {
    "altered": (altered, 2, ALTERED),
    "altered and rehashed": (rehashed, 3, FOLLOWS),
    "first altered": (lambda lines: [lines[0].replace("s0", "s9"), *lines[1:]], 1, ALTERED),
    "dropped": (lambda lines: [lines[0], lines[2]], 2, FOLLOWS),
    "first dropped": (lambda lines: lines[1:], 1, FOLLOWS),
    "reordered": (lambda lines: [lines[0], lines[2], lines[1]], 2, FOLLOWS),
    "repeated": (lambda lines: [*lines, lines[2]], 4, FOLLOWS),
    "not json": (lambda lines: [*lines[:2], "?", lines[2]], 3, CANNOT),
    "blank": (lambda lines: [lines[0], "", *lines[1:]], 2, CANNOT),
    "unknown event": (lambda lines: [lines[0], lines[1].replace("started", "begun"), lines[2]], 2, CANNOT),
    "cut inside": (lambda lines: [lines[0], lines[1][:40], lines[2]], 2, CANNOT),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_tampering_names_the_first_line_that_does_not_fit(tmp_path: Path, case: str) -> None:
    tamper, number, fact = TAMPERED[case]
    lines = tamper(write(tmp_path))
    journal.path(tmp_path).write_text("".join(line + "\n" for line in lines))
    with pytest.raises(Fault) as caught:
        journal.read(tmp_path)
    assert caught.value.code == "R0401"
    assert caught.value.place.endswith(f"journal.jsonl:{number}")
    assert fact in caught.value.fact


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    with journal.path(tmp_path).open("ab") as handle:
        handle.write(b"\xff\xfe\n")
    for use in (lambda: journal.read(tmp_path), lambda: journal.append(tmp_path, "started")):
        with pytest.raises(Fault, match="cannot be read"):
            use()


@pytest.mark.parametrize("kept", [0, 1, 40, -1])
def test_a_cut_last_line_is_left_out_and_overwritten(tmp_path: Path, kept: int) -> None:
    """What a killed writer leaves: its entry was never acknowledged."""
    lines = write(tmp_path)
    journal.path(tmp_path).write_text("\n".join([*lines[:2], lines[2][:kept]]))
    assert len(journal.read(tmp_path)) == 2
    journal.append(tmp_path, "finished", step="next")
    entries = journal.read(tmp_path)
    assert [entry.data["step"] for entry in entries] == ["s0", "s1", "next"]


def test_writers_at_the_same_time_keep_one_chain(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from epc.runtime import journal\n"
        "for n in range(20): journal.append(Path(sys.argv[1]), 'started', step=sys.argv[2] + str(n))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    steps = [entry.data["step"] for entry in journal.read(tmp_path)]
    assert sorted(steps) == sorted(f"{name}{n}" for name in "ab" for n in range(20))


def test_every_line_is_canonical_json(tmp_path: Path) -> None:
    for line in write(tmp_path):
        assert canonical_json(json.loads(line)) == line
