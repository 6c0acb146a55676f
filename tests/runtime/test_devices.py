"""GPUs are shared by claims: what fits together runs together, on the device that has room; only the listing is faked."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from epc.compiler.contract.devices import CONTEXT_MIB
from epc.runtime import devices, engine
from epc.runtime.devices import MARGIN_MIB, MIB, WHOLE, Claimed, Device
from epc.runtime.errors import EXIT_BAD_INPUT, Fault
from epc.runtime.preflight import gpu

WAIT = 30.0
A, B = "GPU-aaaa-1", "GPU-bbbb-2"
BIG = 80_000 + MARGIN_MIB
MOST = {A: 80_000, B: 80_000}


def device(uuid: str, free: int | None = BIG) -> Device:
    return Device(token={A: "0", B: "1"}[uuid], uuid=uuid, free_mib=free)


def held(uuid: str, mib: int, room: int = 80_000) -> Claimed:
    return Claimed(file=Path(), uuid=uuid, mib=mib, room=room)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give the machine GPUs of so many free MiB; without any it has no nvidia-smi."""
    tools, claims = tmp_path / "tools", tmp_path / "claims"
    tools.mkdir()
    claims.mkdir()
    for name in ("bash", "sh"):
        (tools / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("TMPDIR", str(claims))
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name in (devices.VISIBLE, devices.CLAIM, "EPC_ENGINE_PID", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)

    def have(*free: int | str, code: int = 0) -> None:
        lines = "".join(
            f"{index}, GPU-{letter * 4}-{index + 1}, {mib}\n"
            for index, (letter, mib) in enumerate(zip("abcdefgh", free, strict=False))
        )
        (tools / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{lines}'\nexit {code}\n", encoding="utf-8")
        (tools / "nvidia-smi").chmod(0o755)

    return have


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []

    def start(arguments: Sequence[str], **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments], env=os.environ | variables, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def script(tmp_path: Path) -> str:
    """Says which devices it sees and waits to be told to end."""
    file = tmp_path / "step.py"
    file.write_text(
        "import json, os, sys\n"
        "print(json.dumps([os.environ.get('CUDA_VISIBLE_DEVICES'), os.environ.get('CUDA_DEVICE_ORDER'), 'EPC_GPU_CLAIM' in os.environ]), flush=True)\n"
        "sys.stdin.read()\n",
        encoding="utf-8",
    )
    return str(file)


def starter(need: int, script: str) -> list[str]:
    return ["-P", "-m", "epc.runtime.devices", str(need), script]


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(WAIT) == 0


# What is visible ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "tokens"),
    [
        (None, ["0", "1", "2"]),
        ("", []),
        ("-1", []),
        ("1", ["1"]),
        ("2,0", ["2", "0"]),
        ("GPU-bbbb", ["GPU-bbbb"]),
        ("1,9,0", ["1"]),  # CUDA stops at the first entry that names nothing
        ("MIG-1234", ["MIG-1234"]),
    ],
)
def test_what_is_visible_is_what_the_user_left_visible(
    machine: Callable[..., None], chosen: str | None, tokens: list[str]
) -> None:
    machine(100, 200, 300)
    environment = {} if chosen is None else {devices.VISIBLE: chosen}
    assert [found.token for found in devices.visible(environment)] == tokens


def test_without_nvidia_smi_or_with_one_that_fails_nothing_is_listed(machine: Callable[..., None]) -> None:
    assert devices.visible({}) == []
    assert devices.claim(1000, {}) is None
    machine(100, code=9)
    assert devices.visible({}) == []


def test_rubbish_is_no_device(machine: Callable[..., None], tmp_path: Path) -> None:
    machine(100)
    program = tmp_path / "tools/nvidia-smi"
    program.write_text("#!/bin/sh\nprintf '\\377\\376 rubbish\\na, b, c\\n0, GPU-aaaa-1, 100\\n'\n", encoding="utf-8")
    assert [found.uuid for found in devices.visible({})] == [A]


@pytest.mark.parametrize("chosen", ["", "-1", " "])
def test_a_driver_is_not_asked_for_devices_that_are_hidden(
    machine: Callable[..., None], tmp_path: Path, chosen: str
) -> None:
    machine(100)
    asked = tmp_path / "asked"
    (tmp_path / "tools/nvidia-smi").write_text(f"#!/bin/sh\necho > {asked}\n", encoding="utf-8")
    environment = {devices.VISIBLE: chosen, "PATH": os.environ["PATH"]}
    assert devices.visible(environment) == []
    assert gpu.look(environment) == gpu.Seen()
    assert not asked.exists()


def test_a_folder_of_claims_that_cannot_be_used_is_named(
    machine: Callable[..., None], started: Callable[..., subprocess.Popen[str]], script: str, tmp_path: Path
) -> None:
    machine(100)
    folder = tmp_path / f"claims/epc-devices-{os.getuid()}"
    folder.write_text("", encoding="utf-8")
    process = started(starter(WHOLE, script))
    assert process.wait(WAIT) == EXIT_BAD_INPUT
    assert process.stdout is not None
    assert re.fullmatch(
        rf"error\[R1980\]: .*File exists\n  --> {folder}\n  = help: .*TMPDIR.*\n", process.stdout.read()
    )


def test_claims_in_a_folder_of_somebody_else_are_refused(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    devices.claims_folder()
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)
    folder = Path(tempfile.gettempdir()) / f"epc-devices-{owner + 1}"
    folder.mkdir()  # by the user that we really are
    with pytest.raises(Fault, match=r"R1980.*somebody else"):
        devices.claims_folder()


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        ((BIG,), (80_000, 80_000)),
        ((BIG, 10_000 + MARGIN_MIB), (80_000, 90_000)),
        (("[N/A]",), (1, 1)),
        ((BIG, "[N/A]"), (1, 2)),
    ],
)  # fmt: skip
def test_the_engine_counts_what_is_free(
    machine: Callable[..., None], free: tuple[int | str, ...], expected: tuple[int, int]
) -> None:
    machine(*free)
    assert devices.room(devices.visible({})) == expected


# Who gets what --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("need", "there", "claimed", "expected"),
    [
        pytest.param(5_000, [device(A)], [], (A, 5_000), id="room"),
        pytest.param(5_000, [device(A)], [held(A, 70_000)], (A, 5_000), id="beside another"),
        pytest.param(15_000, [device(A)], [held(A, 70_000)], None, id="waits for another"),
        pytest.param(15_000, [device(A, 9_000)], [held(A, 5_000)], None, id="waits: somebody else took what was free"),
        pytest.param(5_000, [device(A, 60_000)], [held(A, 30_000), held(A, 50_000)], None, id="counts what is claimed, not what is used yet"),
        pytest.param(5_000, [device(A), device(B)], [held(A, 10_000)], (B, 5_000), id="the emptier device"),
        pytest.param(5_000, [device(A)], [held(B, 80_000)], (A, 5_000), id="another device's claims do not count"),
        pytest.param(WHOLE, [device(A)], [], (A, 80_000), id="whole"),
        pytest.param(WHOLE, [device(A)], [held(A, 1_000)], None, id="whole waits"),
        pytest.param(WHOLE, [device(A), device(B)], [held(A, 1_000)], (B, 80_000), id="whole of the other"),
        pytest.param(5_000, [device(A)], [held(A, 80_000)], None, id="beside a whole one"),
        pytest.param(90_000, [device(A)], [], (A, 80_000), id="more than there is: alone"),
        pytest.param(90_000, [device(A)], [held(A, 1_000)], None, id="more than there is: waits to be alone"),
        pytest.param(5_000, [device(A, 2_000)], [], (A, 2_000 - MARGIN_MIB), id="full of strangers: goes ahead"),
        pytest.param(WHOLE, [device(A, 100)], [], (A, 1), id="hardly anything free: goes ahead"),
        pytest.param(5_000, [device(A, None)], [], (A, 1), id="size unknown: alone"),
        pytest.param(5_000, [device(A, None)], [held(A, 1, room=0)], None, id="size unknown: waits"),
        pytest.param(5_000, [device(A)], [held(A, 0)], (A, 5_000), id="beside one that waits to be alone"),
    ],
)  # fmt: skip
def test_a_step_is_placed_where_it_fits(
    need: int, there: list[Device], claimed: list[Claimed], expected: tuple[str, int] | None
) -> None:
    found = devices.placed(need, there, claimed)
    assert (None if found is None else (found[1].uuid, found[1].mib)) == expected
    assert found is None or found[0].uuid == found[1].uuid


@pytest.mark.parametrize(
    ("share", "free", "held", "expected"),
    [
        (0, 70 * MIB, 5 * MIB, 70 * MIB),
        (CONTEXT_MIB + 100, 70_000 * MIB, 0, 100 * MIB),
        (CONTEXT_MIB + 100, 70_000 * MIB, 60 * MIB, 40 * MIB),
        (CONTEXT_MIB + 100, 30 * MIB, 0, 30 * MIB),
        (CONTEXT_MIB + 100, 70_000 * MIB, 200 * MIB, 0),
        (100, 70_000 * MIB, 0, 0),
    ],
)
def test_what_is_left_of_a_share_is_never_more_than_is_free(share: int, free: int, held: int, expected: int) -> None:
    assert devices.left(share, free=free, held=held) == expected


# Processes ------------------------------------------------------------------------------------


def test_steps_that_fit_run_together_and_the_next_waits_for_one_to_end(
    machine: Callable[..., None], started: Callable[..., subprocess.Popen[str]], script: str
) -> None:
    machine(10_000 + MARGIN_MIB)
    first, second = started(starter(5_000, script)), started(starter(5_000, script))
    assert json.loads(line(first)) == json.loads(line(second)) == [None, None, True], "one device needs no choice"
    third = started(starter(2_000, script))
    assert line(third) == "waits for 2,000 MiB of a GPU that other steps hold"
    end(first)
    assert json.loads(line(third))[2]
    whole = started(starter(WHOLE, script))
    assert line(whole) == "waits for a GPU that other steps hold"
    second.kill()  # without a chance to say so
    end(third)
    assert json.loads(line(whole))[2]


def test_each_step_gets_a_device_of_its_own_where_there_are_several(
    machine: Callable[..., None], started: Callable[..., subprocess.Popen[str]], script: str
) -> None:
    machine(BIG, BIG)
    both = [started(starter(WHOLE, script)) for _ in range(2)]
    assert sorted(json.loads(line(process)) for process in both) == [
        ["0", "PCI_BUS_ID", True],
        ["1", "PCI_BUS_ID", True],
    ]
    third = started(starter(5_000, script))
    assert line(third).startswith("waits")
    end(both[1])
    assert json.loads(line(third))[0] in ("0", "1")


def test_devices_that_the_user_chose_are_the_only_ones(
    machine: Callable[..., None], started: Callable[..., subprocess.Popen[str]], script: str
) -> None:
    machine(BIG, BIG, BIG)
    two = [started(starter(WHOLE, script), CUDA_VISIBLE_DEVICES="2,1") for _ in range(2)]
    assert sorted(json.loads(line(process)) for process in two) == [["1", None, True], ["2", None, True]]
    one = started(starter(5_000, script), CUDA_VISIBLE_DEVICES="0")
    assert json.loads(line(one)) == ["0", None, True]
    hidden = started(starter(5_000, script), CUDA_VISIBLE_DEVICES="")
    assert json.loads(line(hidden)) == ["", None, False], "no GPU: nothing to claim"


def test_without_a_gpu_a_step_starts_as_it_is(
    machine: Callable[..., None], started: Callable[..., subprocess.Popen[str]], script: str
) -> None:
    assert json.loads(line(started(starter(5_000, script)))) == [None, None, False]


def test_a_waiting_step_ends_quietly_when_it_is_interrupted_and_with_its_engine(
    machine: Callable[..., None], started: Callable[..., subprocess.Popen[str]], script: str
) -> None:
    machine(BIG)
    line(started(starter(WHOLE, script)))
    waiting = started(starter(WHOLE, script))
    assert line(waiting).startswith("waits")
    waiting.send_signal(signal.SIGINT)
    assert waiting.communicate(timeout=WAIT)[0] == ""
    assert waiting.returncode == 130
    orphan = started(starter(WHOLE, script), EPC_ENGINE_PID=str(_gone()))
    assert orphan.wait(WAIT) == 130


def _gone() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


BY_HAND = """\
import os, sys
from epc.runtime import devices
print("begins", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
handle = devices.settle(int(sys.argv[1]))
print("holds", os.environ.get("CUDA_VISIBLE_DEVICES"), [(c.uuid, c.mib) for c in devices.living()], handle is None, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("free", "lines"),
    [
        ((BIG,), ["begins None", f"holds None [('{A}', 5000)] False"]),
        ((BIG, 1_000), ["begins None", "begins 0", f"holds 0 [('{A}', 5000)] True"]),
        ((), ["begins None", "holds None [] True"]),
    ],
    ids=["one GPU", "several: starts again with one", "none"],
)
def test_a_script_that_is_started_by_hand_claims_for_itself(
    machine: Callable[..., None],
    started: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    free: tuple[int, ...],
    lines: list[str],
) -> None:
    if free:
        machine(*free)
    file = tmp_path / "by_hand.py"
    file.write_text(BY_HAND, encoding="utf-8")
    process = started([str(file), "5000"])
    assert [line(process) for _ in lines] == lines
    end(process)


ALONE = """\
from epc.runtime import devices
handle = devices.settle(5000)
print("whole", devices.take_whole(), [(c.mib, c.room) for c in devices.living()], devices.take_whole(), flush=True)
"""


def test_a_step_that_needs_more_than_its_share_waits_to_be_alone(
    machine: Callable[..., None], started: Callable[..., subprocess.Popen[str]], script: str
) -> None:
    pytest.importorskip("torch")
    machine(10_000 + MARGIN_MIB)
    other = started(starter(5_000, script))
    line(other)
    process = started(["-c", textwrap.dedent(ALONE)])
    assert line(process) == "needs more than its share of the GPU (5,000 MiB): waits to have it alone"
    time.sleep(devices.PAUSE)
    late = started(starter(10_000, script))  # the share was given up, but it is not alone yet
    assert line(late).startswith("waits")
    late.kill()
    end(other)
    assert line(process) == "whole True [(10000, 10000)] False"
    assert process.wait(WAIT) == 0


def test_a_claim_that_was_never_finished_and_one_of_another_process_are_not_taken_for_ones_own(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(BIG)
    (devices.claims_folder() / "1.claim").write_text("1\n", encoding="ascii")
    assert devices.living() == []
    assert not list(devices.claims_folder().glob("*.claim"))
    monkeypatch.setenv(devices.CLAIM, str(devices.claims_folder() / "1.claim"))
    assert not devices.take_whole()


# Under the engine -----------------------------------------------------------------------------

MEETS = """\
    import os
    (BUNDLE / f"{{step.plan.id}}.here").touch()
    other = BUNDLE / {{"data": "other.here", "other": "data.here"}}[step.plan.id]
    deadline = time.monotonic() + {patience}
    while not other.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    (BUNDLE / f"{{step.plan.id}}.saw").write_text(f"{{other.exists()}} {{os.environ.get('CUDA_VISIBLE_DEVICES')}}")
    time.sleep(0.3)
    (BUNDLE / f"{{step.plan.id}}.here").unlink()
"""


@pytest.mark.parametrize(
    ("free", "need", "cores", "met", "devices_seen"),
    [
        pytest.param((BIG,), 30_000, 2, True, {"None"}, id="shares of one device"),
        pytest.param((BIG,), 50_000, 2, False, {"None"}, id="shares that do not fit together"),
        pytest.param((BIG,), WHOLE, 2, False, {"None"}, id="one device whole"),
        pytest.param((BIG, BIG), WHOLE, 2, True, {"0", "1"}, id="two devices whole"),
        pytest.param((BIG,), 30_000, 1, False, {"None"}, id="no more at once than cores"),
        pytest.param(("[N/A]",), 30_000, 2, False, {"None"}, id="a device of unknown size"),
    ],
)  # fmt: skip
def test_the_engine_runs_together_what_fits_together(
    toy: Any,
    machine: Callable[..., None],
    free: tuple[int | str, ...],
    need: int,
    cores: int,
    met: bool,
    devices_seen: set[str],
) -> None:
    machine(*free)
    toy.gpu_mib = dict.fromkeys(["data", "other"], need)
    body = MEETS.format(patience=WAIT if met else 1.5)
    toy.bodies = dict.fromkeys(["data", "other"], body)
    toy.compile()
    console = Console(file=StringIO(), width=200)
    assert engine.run(toy.root, cores=cores, console=console) == 0, console.file.getvalue()  # type: ignore[attr-defined]
    saw = [(toy.root / f"{name}.saw").read_text().split() for name in ("data", "other")]
    assert [seen for seen, _ in saw] == [str(met)] * 2
    assert {token for _, token in saw} == devices_seen
