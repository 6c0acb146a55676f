"""What plans and runs both take for granted of the devices that they are made for."""

from __future__ import annotations

from typing import Final

LARGE: Final = 1_000_000_000
"""Parameters from which a model is taken to run on a GPU, with a GPU's execution plan."""
CONTEXT_MIB: Final = 1024
"""MiB that a process takes of a GPU beside its tensors, for CUDA's context and its kernels; part of a step's `gpu_mib`."""
