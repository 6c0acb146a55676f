"""What surrounds a script: nothing half-written is read, nothing finished is lost, no traceback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from epc.runtime import journal
from epc.runtime.errors import Fault
from epc.runtime.lifetime import ENGINE_PID
from epc.runtime.step import read_record

WAIT = 30.0
FULL_DISK = "    import os; raise OSError(28, os.strerror(28), 'x')"
FULL_OF_WEIGHTS = (
    "    from safetensors import SafetensorError\n"
    "    raise SafetensorError('Error while serializing: I/O error: No space left on device (os error 28)')"
)
"""What safetensors raises is no OSError."""
PAUSE = "    (step.out / 'began').touch()\n    time.sleep(60)"


def start(toy: Any, step_id: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, f"steps/{step_id}.py"], cwd=toy.root, env=os.environ | environment,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # Started in the background of a script, the tests themselves may have inherited an ignored SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def run(toy: Any, step_id: str, **environment: str) -> subprocess.CompletedProcess[str]:
    process = start(toy, step_id, **environment)
    out, err = process.communicate(timeout=WAIT)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + WAIT
    while not file.exists():
        assert time.monotonic() < deadline, f"{file} did not appear"
        time.sleep(0.02)


def began(toy: Any, step_id: str) -> Path:
    return Path(toy.root, "store", f"{toy.key(step_id)}.partial", "began")


def events(toy: Any) -> list[str]:
    return [f"{entry.event} {entry.data.get('step')}" for entry in journal.read(toy.root)]


def test_a_finished_step_has_its_record_and_is_not_run_again(toy: Any) -> None:
    first = run(toy, "data")
    assert (first.returncode, first.stderr) == (0, "")
    record = read_record(toy.root, toy.manifest.steps[0])
    assert record is not None
    assert set(record.outputs) == {"out.txt"}
    assert record.recipe == toy.manifest.steps[0].recipe
    assert sorted(file.name for file in toy.store("data").iterdir()) == ["finished.json", "out.txt"]
    entry = journal.read(toy.root)[-1]
    assert {
        "step": "data",
        "kind": "data",
        "mode": "real",
        "lock_sha256": toy.manifest.lock_sha256,
    }.items() <= entry.data.items()

    again = run(toy, "data")
    assert again.returncode == 0
    assert "already finished" in again.stdout
    assert toy.ran() == ["data"]
    assert events(toy) == ["started data", "finished data"]


FAILURES: dict[str, tuple[str, int, str, str]] = {
    # body, exit code, what stderr says, what the journal says
    "no space": (FULL_DISK, 1, "error[R0204]: no space left on the disk", "no space left"),
    "no space for weights": (FULL_OF_WEIGHTS, 1, "error[R0204]: no space left on the disk", "no space left"),
    "a fault": (
        "    from epc.runtime.errors import Fault\n    raise Fault('R9999', 'place', 'fact', 'remedy')",
        1, "error[R9999]: fact\n  --> place\n  = help: remedy", "R9999",
    ),
    "interrupted": ("    raise KeyboardInterrupt", 130, "data: interrupted", "interrupted"),
    "a crash": ("    {}['x']", 1, "KeyError: 'x'", "KeyError"),
    "exit": ("    sys.exit('gave up')", 1, "gave up", "gave up"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILURES)
def test_a_failing_step_says_why_and_can_be_tried_again(toy: Any, case: str) -> None:
    body, code, message, journalled = FAILURES[case]
    toy.bodies["data"] = body
    toy.compile()
    result = run(toy, "data")
    assert result.returncode == code
    assert message in result.stderr
    assert ("Traceback" in result.stderr) == (case == "a crash")
    assert not toy.store("data").exists()
    failed = journal.read(toy.root)[-1]
    assert failed.event == "failed"
    assert journalled in failed.data["error"]

    toy.bodies.clear()
    toy.compile()
    assert run(toy, "data").returncode == 0
    assert toy.store("data").joinpath("finished.json").exists()


def test_an_output_that_was_not_written_is_a_failure(toy: Any) -> None:
    script = toy.root / "steps/data.py"
    script.write_text(script.read_text().replace("out.txt", "other.txt"))
    result = run(toy, "data")
    assert result.returncode == 1
    assert "error[R0203]: the step did not write out.txt" in result.stderr
    assert "Traceback" not in result.stderr
    assert not toy.store("data").exists()


def test_a_step_waits_for_what_it_needs(toy: Any) -> None:
    result = run(toy, "train")
    assert result.returncode == 1
    assert "error[R0202]: step data has not finished" in result.stderr
    assert "python steps/data.py" in result.stderr
    assert "Traceback" not in result.stderr


def test_script_and_manifest_of_different_compilations(toy: Any) -> None:
    script = toy.root / "steps/data.py"
    script.write_text(script.read_text().replace('Step("data"', 'Step("gone"'))
    result = run(toy, "data")
    assert result.returncode == 1
    assert "error[R0104]: no step gone" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_folder_without_its_record_is_done_again(toy: Any) -> None:
    toy.store("data").mkdir(parents=True)
    (toy.store("data") / "out.txt").write_text("of an older time")
    (toy.store("data") / "stray.txt").write_text("")
    assert run(toy, "data").returncode == 0
    assert sorted(file.name for file in toy.store("data").iterdir()) == ["finished.json", "out.txt"]
    assert (toy.store("data") / "out.txt").read_text() == "data"


def test_an_unreadable_record_is_a_fault(toy: Any) -> None:
    run(toy, "data")
    (toy.store("data") / "finished.json").write_text('{"id": "da')
    with pytest.raises(Fault, match="cannot be read") as caught:
        read_record(toy.root, toy.manifest.steps[0])
    assert caught.value.code == "R0201"
    result = run(toy, "train")
    assert (result.returncode, "error[R0201]" in result.stderr, "Traceback" in result.stderr) == (1, True, False)


def test_what_a_killed_step_left_is_there_for_the_next_try(toy: Any) -> None:
    toy.bodies["data"] = PAUSE
    toy.compile()
    process = start(toy, "data")
    wait_for(began(toy, "data"))
    process.kill()
    process.communicate()
    assert not toy.store("data").exists()

    toy.bodies["data"] = "    assert (step.out / 'began').exists()"
    toy.compile()
    assert run(toy, "data").returncode == 0
    assert read_record(toy.root, toy.manifest.steps[0]) is not None


def test_two_processes_never_write_the_same_folder(toy: Any) -> None:
    toy.bodies["data"] = PAUSE
    toy.compile()
    first = start(toy, "data")
    wait_for(began(toy, "data"))
    second = run(toy, "data")
    assert second.returncode == 1
    assert f"error[R0705]: step data is being run by process {first.pid}" in second.stderr
    assert first.poll() is None
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=WAIT)
    assert first.returncode == 130
    assert toy.ran() == ["data"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tie a process to its parent")
def test_a_step_ends_with_the_process_that_started_it(toy: Any) -> None:
    """An engine that was killed leaves nothing behind that writes on."""
    toy.bodies["data"] = PAUSE
    toy.compile()
    code = "import subprocess, sys, time; subprocess.Popen([sys.executable, 'steps/data.py']); time.sleep(60)"
    parent = subprocess.Popen(
        [sys.executable, "-c", code], cwd=toy.root, env=os.environ | {ENGINE_PID: str(os.getpid())}
    )
    wait_for(began(toy, "data"))
    step_pid = int((began(toy, "data").parent / ".lock").read_text())
    parent.kill()
    parent.wait()
    assert ended(step_pid)


def ended(pid: int) -> bool:
    """Whether a process ends in time; one that nobody has waited for is a zombie, which counts."""
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_a_step_whose_engine_is_gone_does_not_start(toy: Any) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert run(toy, "data", **{ENGINE_PID: str(gone.pid)}).returncode == 130
    assert toy.ran() == []


def test_progress_is_published_and_removed(toy: Any) -> None:
    toy.bodies["data"] = (
        "    step.progress(3, 16, loss=1.25)\n"
        "    (BUNDLE / 'seen.json').write_text((BUNDLE / 'logs/data.progress.json').read_text())"
    )
    toy.compile()
    assert run(toy, "data").returncode == 0
    seen = json.loads((toy.root / "seen.json").read_text())
    assert (seen["done"], seen["total"], seen["facts"]) == (3, 16, {"loss": 1.25})
    assert not (toy.root / "logs/data.progress.json").exists()
