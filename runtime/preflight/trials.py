"""Trying things: the model fetched, each sampling engine loaded, each judge asked, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from epc.compiler.contract.manifest import Step
from epc.runtime.errors import EXIT_INTERRUPTED, Fault
from epc.runtime.lifetime import ENGINE_PID
from epc.runtime.preflight.smoke import LOG, PREFIX

GRACE: Final = 20.0
"""Seconds that an interrupted process has to end by itself."""
ENGINE_SECONDS: Final = 1200.0
"""For an engine to load a model and sample a token; vLLM compiles first."""
JUDGE_SECONDS: Final = 180.0
SMOKE: Final = "epc.runtime.preflight.smoke"
_FAULT = re.compile(r"^error\[(R\d{4})\]: (.*)\n  --> (.*)\n  = help: (.*)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One thing to try."""

    kind: Literal["engine", "judge"]
    step: Step
    what: str
    identity: Mapping[str, Any]
    """Everything that it depends on."""


def log_of(bundle: Path, trial: Trial) -> Path:
    return bundle / "logs" / LOG.format(trial.step.id)


def run(bundle: Path, trials: Sequence[Trial], environment: Mapping[str, str]) -> list[str | Fault]:
    """How each went: what it said, or the failure. All at the same time; an interruption ends them."""
    found: list[str | Fault] = []
    with ExitStack() as stack:
        started = [
            stack.enter_context(
                _process(
                    [sys.executable, "-P", "-m", SMOKE, trial.kind, str(bundle.resolve()), trial.step.id],
                    bundle, log_of(bundle, trial), environment,
                )
            )
            for trial in trials
        ]  # fmt: skip
        began = time.monotonic()
        for trial, process in zip(trials, started, strict=True):
            limit = ENGINE_SECONDS if trial.kind == "engine" else JUDGE_SECONDS
            try:
                process.wait(timeout=max(0.1, began + limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                found.append(_failed(trial, bundle, f"it was not ready within {limit:.0f} s"))
                continue
            found.append(_read(trial, bundle, process.returncode))
    return found


def _read(trial: Trial, bundle: Path, code: int) -> str | Fault:
    text = log_of(bundle, trial).read_text(encoding="utf-8", errors="replace")
    last = next((line for line in reversed(text.splitlines()) if line.startswith(PREFIX)), None)
    if last is None:
        how = (
            "it was killed, most often for want of memory" if code == -signal.SIGKILL else f"it ended with code {code}"
        )
        return _failed(trial, bundle, how)
    told = json.loads(last.removeprefix(PREFIX))
    if "code" in told:
        return Fault(told["code"], told["place"], told["fact"], told["remedy"])
    return str(told["said"])


def _failed(trial: Trial, bundle: Path, how: str) -> Fault:
    log = log_of(bundle, trial)
    return Fault(
        "R1925" if trial.kind == "engine" else "R1926", str(log), f"{trial.what} was tried: {how}",
        f"see the last lines of {log}, then run again",
    )  # fmt: skip


def fetch(bundle: Path, step: Step, environment: Mapping[str, str]) -> Fault | None:
    """Run the model step as the engine would, and say what went wrong."""
    log = bundle / "logs" / f"{step.id}.log"
    with _process([sys.executable, step.script], bundle, log, environment) as process:
        code = process.wait()
    if code == 0:
        return None
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    text = log.read_text(encoding="utf-8", errors="replace")
    told = _FAULT.findall(text)
    if told:
        code_, fact, place, remedy = told[-1]
        return Fault(code_, place, fact, remedy)
    last = next((line for line in reversed(text.splitlines()) if line.strip()), f"it ended with code {code}")
    return Fault("R1921", str(log), f"step {step.id} failed: {last}", f"see {log}, then run again")


@contextmanager
def _process(
    command: Sequence[str], bundle: Path, log: Path, more: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a group of its own, of which nothing is left afterwards."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {**more, ENGINE_PID: str(os.getpid()), "PYTHONUNBUFFERED": "1"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=bundle, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            process_group=0,
        )  # fmt: skip
    try:
        yield process
    except BaseException:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGINT)
            process.wait(timeout=GRACE)
        raise
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
