"""What a judge step leaves behind: a row an attempt, counts of outcomes, facts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from epc.compiler.contract.rows import JudgementRow, OfCompletion, Outcome
from epc.runtime.judging.asking import VOTE, Judge, Provider
from epc.runtime.judging.ledger import NANO, Ledger
from epc.runtime.judging.stored import StoredCompletions
from epc.runtime.step import Step


def write(
    step: Step, judge: Judge, provider: Provider, completions: StoredCompletions, ledger: Ledger, keys: Sequence[str]
) -> dict[str, Any]:
    """Write judgements.jsonl and outcomes.json; return the facts of the step.

    Rows are sorted by arm, set, item, index and attempt. Equal completions share the attempts of their
    request. `calls`, tokens and dollars are those that this step made, in all its tries; `reused` counts
    the completions that were settled by a call of another step or for an equal completion.
    """
    run = step.plan.key
    counts: dict[tuple[str, int, str], Counter[Outcome]] = {}
    asked: set[str] = set()
    with (step.out / "judgements.jsonl").open("w", encoding="utf-8") as handle:
        for position, key in enumerate(keys):
            attempts = ledger.attempts(key, run=run)
            if attempts[-1].run == run:
                asked.add(key)
            row = completions.read(position)
            identity = row.model_dump(include=set(OfCompletion.model_fields))
            for number, attempt in enumerate(attempts):
                typed = attempt.typed
                judged = JudgementRow(
                    **identity, judge=judge.name, vote=VOTE, attempt=number, rubric_sha256=judge.rubric.sha256,
                    raw=typed.raw, fields=typed.fields, outcome=typed.outcome, final=number == len(attempts) - 1,
                    input_tokens=typed.input_tokens, output_tokens=typed.output_tokens, usd=attempt.nano_usd / NANO,
                )  # fmt: skip
                handle.write(judged.model_dump_json() + "\n")
            counts.setdefault((row.condition, row.seed, row.set), Counter())[attempts[-1].typed.outcome] += 1
    _write_outcomes(step.out / "outcomes.json", counts)
    ledger.sync()
    totals = ledger.totals(run)
    arms: dict[str, Counter[Outcome]] = {}
    for (condition, seed, _), found in counts.items():
        arms.setdefault(f"{condition}-s{seed}", Counter()).update(found)
    return {
        "completions": len(keys), "calls": totals.calls, "reused": len(keys) - len(asked),
        "unanswered": totals.unanswered, "outcomes": {arm: dict(sorted(found.items())) for arm, found in arms.items()},
        "input_tokens": totals.input_tokens, "output_tokens": totals.output_tokens,
        "usd": round(totals.nano_usd / NANO, 6), "model": judge.model,
        "rubric_sha256": judge.rubric.sha256, "endpoint": provider.endpoint, "api_version": provider.version,
    }  # fmt: skip


def _write_outcomes(file: Path, counts: dict[tuple[str, int, str], Counter[Outcome]]) -> None:
    """One entry an arm and set, every outcome counted, those that did not occur too."""
    entries = [
        {
            "condition": condition, "seed": seed, "set": name, "completions": found.total(),
            **{outcome: found[outcome] for outcome in get_args(Outcome)},
        }
        for (condition, seed, name), found in counts.items()
    ]  # fmt: skip
    file.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
