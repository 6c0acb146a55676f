"""Judges that run on this machine: patterns, and a function of the spec's folder.

Nobody is called and nothing is paid, so there is no ledger. What they say is read like the reply of a
model, and they leave the same rows.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from epc.runtime.errors import Fault
from epc.runtime.judging import replies
from epc.runtime.judging.ledger import Attempt
from epc.runtime.judging.providers import SHOWN, readable
from epc.runtime.judging.replies import Answer, Failure, Output, Typed
from epc.runtime.judging.results import Rows
from epc.runtime.judging.stored import StoredCompletions
from epc.runtime.step import Step

Reply = Callable[[str, str], Any]
"""(question, answer) -> the fields of the reply."""
PROGRESS_SECONDS: Final = 0.5
"""Time between two live lines."""


def function(file: Path, name: str, *, sha256: str) -> Reply:
    """The function that a bundle's file defines, run from the very bytes whose hash was checked.

    Raises Fault R0831 when the file is missing, R0832 when it is not the registered one, R0833 when it
    cannot be run, R0834 when it defines no such function.
    """
    place = str(file)
    try:
        source = file.read_bytes()
    except OSError as error:
        raise Fault(
            "R0831", place, f"the judge's function cannot be read: {error.strerror}", "compile the spec again"
        ) from None
    found = hashlib.sha256(source).hexdigest()
    if found != sha256:
        raise Fault(
            "R0832", place, f"this is not the registered function: its SHA-256 begins {found[:12]}, not {sha256[:12]}",
            "an input file of the bundle was changed: compile the spec again",
        )  # fmt: skip
    module = ModuleType(f"epc_judge_{file.stem}")
    module.__file__ = place
    sys.modules[module.__name__] = module  # where a dataclass, for one, looks its annotations up
    try:
        exec(compile(source, place, "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        raise Fault(
            "R0833", place, f"the file of the judge's function fails: {_last_line(error, place)}",
            "correct it, and compile the spec again",
        ) from None  # fmt: skip
    chosen = getattr(module, name, None)
    if not callable(chosen):
        raise Fault(
            "R0834", place, f"it defines no function {name}",
            "name one that it has: function: file.py:name; then compile the spec again",
        )  # fmt: skip
    return chosen  # type: ignore[no-any-return]


def judge_all(
    step: Step,
    judge: str,
    reply: Reply,
    completions: StoredCompletions,
    *,
    output: Output,
    sha256: str,
    place: str = "",
) -> dict[str, Any]:
    """Have `reply` score every completion; write judgements.jsonl and outcomes.json; return the facts of the step.

    A call that raises is an api_error with what was raised. Rows have no seconds: the same completions give
    the same file. Raises Fault R0818 for a completion that was stored without its question where `place`
    names the file of a function, which takes it, and R0835 when every call raises.
    """
    began = told = time.monotonic()
    answered, failure = False, ""
    with Rows(step, judge=judge, rubric_sha256=sha256) as rows:
        for position in range(len(completions)):
            row = completions.read(position)
            if place and not row.question:
                raise Fault(
                    "R0818", place, "the function takes the question, but the completions were stored without it",
                    "they are of an older epc: delete the sampling step's folder and store/pieces, then run again",
                )  # fmt: skip
            result = _call(reply, row.question, row.text, place)
            match result:
                case Failure():
                    failure = failure or result.message
                case Answer():
                    answered = True
            typed = replies.read(result, output)
            rows.add(row, [[_attempt(typed, step.plan.key)]])
            if (now := time.monotonic()) - told >= PROGRESS_SECONDS:
                told = now
                step.progress(position + 1, len(completions), calls_per_second=round((position + 1) / (now - began), 1))
    if not answered:
        raise Fault(
            "R0835", place or judge, f"every call of the judge raises, the first one {failure}",
            "correct it, and compile the spec again",
        )  # fmt: skip
    return {"completions": len(completions), "outcomes": rows.by_arm(), "rubric_sha256": sha256}


def _call(reply: Reply, question: str, answer: str, place: str) -> Answer | Failure:
    try:
        fields = reply(question, answer)
    except (Exception, SystemExit) as error:
        return Failure(message=_last_line(error, place), kind="rejected")
    try:
        text = json.dumps(fields, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = repr(fields)[:SHOWN]  # no JSON, and so unparsable
    return Answer(text=readable(text), stop="end", input_tokens=0, output_tokens=0)


def _attempt(typed: Typed, run: str) -> Attempt:
    return Attempt(run=run, typed=typed, nano_usd=0, seconds=0.0, batch=None)


def _last_line(error: BaseException, place: str) -> str:
    """`ValueError: no such grade (line 12)`"""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == place]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    said = "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[-1]
    return readable(said)[:SHOWN] + (f" (line {lines[-1]})" if lines and lines[-1] else "")
