"""Failures of the device under a step, told apart from failures of the program by the errors that torch raises.

R0205 the GPU's memory is full; R0206 the GPU is lost, or a kernel on it failed; R0207 the main memory is full. Told by
class and text, so that a step that needs no GPU does not load torch to be told.
"""

from __future__ import annotations

from typing import Final

from epc.runtime.errors import Fault

FULL: Final = ("CUDA out of memory", "HIP out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
ASSERTED: Final = ("device-side assert",)
LOST: Final = (
    "CUDA error", "HIP error", "CUDA driver", "cuDNN error", "CUBLAS_STATUS", "No CUDA GPUs are available", "NVML",
    "uncorrectable ECC",
)  # fmt: skip
NO_MEMORY: Final = ("can't allocate memory", "not enough memory")
MISFIT: Final = "size mismatch for"
KEPT: Final = "finished steps and stored completions are kept"


def classified(error: BaseException, *, place: str) -> Fault | None:
    """The Fault that an error of the device is, None for any other error. `place` is the script."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, Fault):
        if found := _classified(cause, place):
            return found
        cause = cause.__cause__
    return None


def memory_is_full(error: BaseException) -> bool:
    """Whether a device, or the machine, had no memory left for what was asked."""
    found = classified(error, place="")
    return found is not None and found.code in ("R0205", "R0207")


def _classified(error: BaseException, place: str) -> Fault | None:
    kind = type(error).__name__
    of_torch = isinstance(error, RuntimeError)  # OutOfMemoryError and AcceleratorError are RuntimeErrors
    said = str(error)
    line = (said.splitlines() or [kind])[0]
    if of_torch and (kind == "OutOfMemoryError" or _says(said, FULL)):
        return Fault(
            "R0205", place, f"the memory of the GPU is full: {line}",
            f"nvidia-smi shows who holds it; free it, or use a larger device, and run again: {KEPT}",
        )  # fmt: skip
    if of_torch and _says(said, ASSERTED):
        return Fault(
            "R0206", place, f"a kernel on the GPU refused its input: {line}",
            f"run the script by hand with CUDA_LAUNCH_BLOCKING=1 to see where: {KEPT}",
        )  # fmt: skip
    if of_torch and (kind == "AcceleratorError" or _says(said, LOST)):
        return Fault(
            "R0206", place, f"the GPU is lost to this process: {line}",
            f"look at nvidia-smi and at the system log for Xid errors, then run again: {KEPT}",
        )  # fmt: skip
    if isinstance(error, MemoryError) or (of_torch and _says(said, NO_MEMORY)):
        return Fault("R0207", place, f"the main memory is full: {line}", f"free some of it and run again: {KEPT}")
    if of_torch and MISFIT in said:
        first = next(text.strip() for text in said.splitlines() if MISFIT in text)
        return Fault(
            "R0309", place, f"an adapter or checkpoint does not fit this model: {first}",
            "delete the folder of its training and run again: an adapter belongs to one base",
        )  # fmt: skip
    return None


def _says(text: str, phrases: tuple[str, ...]) -> bool:
    return any(phrase in text for phrase in phrases)
