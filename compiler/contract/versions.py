"""Versions of what each step kind does. Raised when a change could change results; part of every key."""

from __future__ import annotations

from typing import Final

from epc.compiler.contract.manifest import StepKind

STEP_VERSIONS: Final[dict[StepKind, int]] = {
    "model": 1,
    "generate": 1,
    "data": 1,
    "mask": 1,
    "train": 1,
    "sample": 1,
    "capability": 1,
    "judge": 1,
    "measure": 1,
}
