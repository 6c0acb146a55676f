"""What torch raises when a device fails is a Fault with a remedy; anything else is left as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from epc.runtime import device_faults, journal
from epc.runtime.errors import Fault

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB\nIf reserved but ..."
LOST = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported"
ASSERTED = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"


def out_of_memory() -> BaseException:
    import torch

    return torch.OutOfMemoryError(FULL)


def accelerator(text: str) -> BaseException:
    import torch

    return torch.AcceleratorError(text)


def loading() -> BaseException:
    """What torch says of weights that do not fit."""
    import torch

    try:
        torch.nn.Linear(2, 3).load_state_dict(torch.nn.Linear(2, 4).state_dict())
    except RuntimeError as error:
        return error
    raise AssertionError


def wrapped() -> BaseException:
    try:
        raise ValueError("the engine failed") from out_of_memory()
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            out_of_memory,
            "R0205",
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB",
        ),
        (lambda: RuntimeError("CUDA error: out of memory"), "R0205", "nvidia-smi shows who holds it"),
        (wrapped, "R0205", "CUDA out of memory"),
        (lambda: accelerator(LOST), "R0206", "the GPU is lost to this process: CUDA error: an illegal memory access"),
        (lambda: RuntimeError("No CUDA GPUs are available"), "R0206", "Xid"),
        (lambda: accelerator(ASSERTED), "R0206", "CUDA_LAUNCH_BLOCKING=1"),
        (
            lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "R0207",
            "main memory",
        ),
        (MemoryError, "R0207", "MemoryError"),
        (loading, "R0309", "size mismatch for weight"),
    ],
)
def test_a_failure_of_the_device_is_a_fault(error: Callable[[], BaseException], code: str, words: str) -> None:
    fault = device_faults.classified(error(), place="steps/x.py")
    assert fault is not None
    assert fault.code == code
    assert fault.place == "steps/x.py"
    assert words in f"{fault.fact}; {fault.remedy}"
    assert len(fault.render().splitlines()) == 3


@pytest.mark.parametrize(
    "error",
    [ValueError("CUDA error: in words only"), RuntimeError("shape '[2]' is invalid"), KeyError("x"), KeyboardInterrupt(),
     Fault("R0331", "x", "CUDA error", "y")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_other_failures_are_left_as_they_are(error: BaseException) -> None:
    assert device_faults.classified(error, place="x") is None


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (f"import torch; raise torch.OutOfMemoryError({FULL!r})", "R0205"),
        (f"import torch; raise torch.AcceleratorError({LOST!r})", "R0206"),
    ],
)
def test_a_step_that_loses_its_device_ends_in_three_lines_and_goes_on_later(body: str, code: str, toy: Any) -> None:
    toy.bodies["data"] = f"    (step.out / 'kept').touch()\n    {body}"
    toy.compile()
    done = subprocess.run(
        [sys.executable, "steps/data.py"], cwd=toy.root, env=os.environ, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error[{code}]: ")
    assert len(done.stderr.splitlines()) == 3
    failed = [entry for entry in journal.read(toy.root) if entry.event == "failed"]
    assert code in failed[-1].data["error"]
    assert (toy.root / "store" / f"{toy.key('data')}.partial" / "kept").exists()
    assert not toy.store("data").exists()
