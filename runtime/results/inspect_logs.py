"""Logs of Inspect (inspect_ai), .eval and .json, through its own reader.

A unit is a sample's id in its task, a sample is an epoch. `score` names a scorer, or `SCORER.KEY` where its value is a
dictionary. The letters that Inspect grades with count as it counts them: C 1, P 0.5, I and N 0. A sample with an
error, without that score, or marked unscored (NaN, Inspect's sentinel) is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

from epc.runtime.errors import Fault
from epc.runtime.results.files import Source, fingerprint
from epc.runtime.results.problems import did_you_mean
from epc.runtime.results.records import Record

GRADES: Final = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""CORRECT, PARTIAL, INCORRECT and NOANSWER, as its `value_to_float` maps them."""


def records(source: Source, score: str, arm: str | None) -> Iterator[Record]:
    """Samples of one log. `arm` is of all of them, None where the name of the model tells it.

    Raises Fault R1608 without inspect_ai, R1602 for a log that cannot be read or did not finish, R1604 where no
    sample has the score.
    """
    log = _read(source)
    if log.status != "success":
        raise Fault(
            "R1602", source.shown, f"the log's status is `{log.status}`: the evaluation did not finish",
            "run inspect eval-retry on it, and name the log that this writes",
        )  # fmt: skip
    samples = log.samples or []
    known = list(dict.fromkeys(name for sample in samples for name in _names(sample)))
    if samples and score not in known and not all(sample.error for sample in samples):
        raise Fault(
            "R1604",
            source.shown,
            f'there is no score "{score}"{did_you_mean(score, known)}',
            "correct `score:` of the metric",
        )
    for sample in samples:
        outcome, value = _scored(sample, score)
        yield Record(
            place=f"sample {sample.id} epoch {sample.epoch}", unit=f"{log.eval.task}/{sample.id}", condition=arm or str(log.eval.model),
            sample=sample.epoch, outcome=outcome, score=value, item=fingerprint(_input(sample)),
        )  # fmt: skip


def _read(source: Source) -> Any:
    try:
        from inspect_ai.log import read_eval_log
    except ImportError:
        raise Fault(
            "R1608", source.shown, "Inspect logs are read with inspect_ai, which is not installed",
            "pip install 'epc-prereg[inspect]'",
        ) from None  # fmt: skip
    try:
        return read_eval_log(str(source.path))
    except Exception as error:  # its reader raises what zip, JSON and pydantic raise
        reason = str(error).split("\n")[0]
        raise Fault(
            "R1602", source.shown, f"inspect_ai cannot read the log: {reason}", "copy it again, whole; was it cut short?"
        ) from None  # fmt: skip


def _names(sample: Any) -> Iterator[str]:
    for name, score in (sample.scores or {}).items():
        yield name
        if isinstance(score.value, dict):
            yield from (f"{name}.{key}" for key in score.value)


def _scored(sample: Any, name: str) -> tuple[str, Any]:
    """(outcome, score)."""
    if sample.error is not None:
        return "error", None
    scores = sample.scores or {}
    scorer, _, key = name.partition(".")
    found = scores.get(name) or scores.get(scorer)
    if found is None:
        return "unscored", None
    value = found.value
    if name not in scores and isinstance(value, dict):
        value = value.get(key)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return (str(getattr(found, "reason", None) or "unscored"), None)
    return "scored", GRADES.get(value, value) if isinstance(value, str) else value


def _input(sample: Any) -> str:
    if isinstance(sample.input, str):
        return sample.input
    return "\n".join(f"{message.role}: {message.text}" for message in sample.input)
