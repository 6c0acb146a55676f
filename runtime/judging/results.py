"""What a judge step leaves behind: a row an attempt, counts of outcomes, facts."""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, get_args

from epc.compiler.contract.rows import JudgementRow, OfCompletion, Outcome, SampleRow
from epc.runtime.judging.asking import Asked, Judge
from epc.runtime.judging.ledger import NANO, Attempt, Ledger
from epc.runtime.judging.stored import StoredCompletions
from epc.runtime.step import Step

OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)


class Rows:
    """judgements.jsonl as it is written, and outcomes.json, which counts it.

    One row an attempt, in the order of completions, votes and attempts. A completion counts as scored when all
    its votes are, and otherwise as what its first vote without a score ended with.
    """

    def __init__(self, step: Step, *, judge: str, rubric_sha256: str) -> None:
        self._step, self._judge, self._rubric_sha256 = step, judge, rubric_sha256
        self._handle = (step.out / "judgements.jsonl").open("w", encoding="utf-8")
        self._counts: dict[tuple[str, int, str], Counter[Outcome]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.close()
        if kind is None:
            self._write_outcomes(self._step.out / "outcomes.json")

    def add(self, row: SampleRow, votes: Sequence[Sequence[Attempt]]) -> None:
        """The attempts of each vote about a completion, the last one final."""
        identity = row.model_dump(include=set(OfCompletion.model_fields))
        for vote, attempts in enumerate(votes):
            for number, attempt in enumerate(attempts):
                typed = attempt.typed
                judged = JudgementRow(
                    **identity, judge=self._judge, vote=vote, attempt=number, rubric_sha256=self._rubric_sha256,
                    raw=typed.raw, fields=typed.fields, outcome=typed.outcome, final=number == len(attempts) - 1,
                    input_tokens=typed.input_tokens, output_tokens=typed.output_tokens,
                    cache_write_tokens=typed.cache_write_tokens, cache_read_tokens=typed.cache_read_tokens,
                    usd=attempt.nano_usd / NANO, seconds=attempt.seconds, batch=attempt.batch,
                )  # fmt: skip
                self._handle.write(judged.model_dump_json() + "\n")
        ends = [attempts[-1].typed.outcome for attempts in votes]
        ended: Outcome = next((outcome for outcome in ends if outcome != "scored"), "scored")
        self._counts.setdefault((row.condition, row.seed, row.set), Counter())[ended] += 1

    def by_arm(self) -> dict[str, dict[str, int]]:
        """Arm -> outcome -> completions."""
        arms: dict[str, Counter[Outcome]] = {}
        for (condition, seed, _), found in self._counts.items():
            arms.setdefault(f"{condition}-s{seed}", Counter()).update(found)
        return {arm: dict(sorted(found.items())) for arm, found in arms.items()}

    def _write_outcomes(self, file: Path) -> None:
        """One entry an arm and set, every outcome counted, those that did not occur too."""
        entries: list[dict[str, str | int]] = []
        for (condition, seed, name), found in self._counts.items():
            entry: dict[str, str | int] = {
                "condition": condition,
                "seed": seed,
                "set": name,
                "completions": found.total(),
            }
            for outcome in OUTCOMES:
                entry[outcome] = found[outcome]
            entries.append(entry)
        file.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def write(
    step: Step,
    judge: Judge,
    provider: Asked,
    completions: StoredCompletions,
    ledger: Ledger,
    keys: Sequence[Sequence[str]],
) -> dict[str, Any]:
    """Write judgements.jsonl and outcomes.json; return the facts of the step.

    `keys` is [completion][vote]. Equal completions share the attempts of their request. `calls`, tokens,
    seconds and dollars are those that this step made, in all its tries; `reused` counts the votes that were
    settled by a call of another step or for an equal completion. `cached` is the share of what was sent that
    the provider read from its prompt cache.
    """
    run = step.plan.key
    asked: set[bytes] = set()
    seconds, cached = array("d"), 0
    with Rows(step, judge=judge.name, rubric_sha256=judge.rubric.sha256) as rows:
        for position, votes in enumerate(keys):
            attempts = [ledger.attempts(key, run=run) for key in votes]
            for key, found in zip(votes, attempts, strict=True):
                short = bytes.fromhex(key)
                if found[-1].run == run and short not in asked:
                    asked.add(short)
                    seconds.extend(attempt.seconds for attempt in found if attempt.batch is None)
                    cached += sum(attempt.typed.cache_read_tokens for attempt in found)
            rows.add(completions.read(position), attempts)
    ledger.sync()
    totals = ledger.totals(run)
    facts: dict[str, Any] = {
        "completions": len(keys), "votes": judge.votes, "calls": totals.calls,
        "reused": sum(map(len, keys)) - len(asked), "unanswered": totals.unanswered, "outcomes": rows.by_arm(),
        "input_tokens": totals.input_tokens, "output_tokens": totals.output_tokens,
        "cached": round(cached / totals.input_tokens, 4) if totals.input_tokens else 0.0,
        "usd": round(totals.nano_usd / NANO, 6), "model": judge.model,
        "rubric_sha256": judge.rubric.sha256, "endpoint": provider.endpoint, "api_version": provider.version,
    }  # fmt: skip
    if seconds:
        ordered = sorted(seconds)
        facts |= {"seconds_p50": quantile(ordered, 0.5), "seconds_p95": quantile(ordered, 0.95)}
    return facts


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest of ascending values that at least that share of them does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
