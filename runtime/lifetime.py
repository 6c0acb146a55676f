"""Steps end with the engine that started them, even when it is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from epc.runtime.errors import EXIT_INTERRUPTED

ENGINE_PID = "EPC_ENGINE_PID"
"""Environment variable by which an engine on this host asks its steps to end when it is gone."""


def end_with_engine() -> None:
    """Have the kernel end this process with its parent (Linux), so that a killed engine leaves no step behind.

    Does nothing for a script run by hand: then a parent that goes away is only a closed shell.
    """
    engine = os.environ.get(ENGINE_PID)
    if engine is None:
        return
    end_with_parent()
    try:
        os.kill(int(engine), 0)  # it may have gone before the request was made
    except ProcessLookupError:
        raise SystemExit(EXIT_INTERRUPTED) from None


def end_with_parent() -> None:
    """prctl(PR_SET_PDEATHSIG, SIGKILL): a system call that Linux has and others lack."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
