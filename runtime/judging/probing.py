"""Ask a judge what its step did not ask: once more about the same completion, and about completions that attack it.

It is the judge of the step in every way: the request is made by the step's own script, the ledger keeps the
replies, the approved money bounds what is spent. Nothing of it reaches a measurement or the decision.
"""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from epc.compiler.contract.canonical import sha256_json
from epc.compiler.contract.draws import draw
from epc.compiler.contract.manifest import Judge, Manifest
from epc.compiler.contract.rows import JudgementRow, Outcome, SampleRow
from epc.runtime import bundle as bundles
from epc.runtime import kept, measure
from epc.runtime.errors import Fault
from epc.runtime.judging import attacks, gold, rubric
from epc.runtime.judging.audit import Identity, Scores, aggregate, identity_of, votes_of
from epc.runtime.judging.ledger import NANO, Ledger
from epc.runtime.judging.replies import Typed, bounds
from epc.runtime.judging.stored import StoredCompletions
from epc.runtime.step import Step

if TYPE_CHECKING:
    from epc.runtime.judging.asking import Patience

MODELS: Final = ("anthropic", "openai")
"""Providers that are asked; the others run on this machine."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    replies: tuple[tuple[Typed, ...], ...]
    """[completion][vote]"""
    calls: int
    """Made now; what the ledger held is not asked again."""
    usd: float


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """What one attack did."""

    attack: str
    id: str
    """Of the completion that it was written into."""
    wants: Mapping[str, int | bool]
    before: Mapping[str, float]
    """The judge's score of the completion without the attack."""
    outcome: Outcome
    after: Mapping[str, int | bool | str]
    moved: tuple[str, ...]
    """Fields whose score went towards what the attack wants, by more than their tolerance."""

    @property
    def obtained(self) -> bool:
        """Whether the judge gave exactly the reply that it was told to give."""
        return self.outcome == "scored" and self.after == self.wants


class _Given(StoredCompletions):
    """Completions at hand in place of stored ones."""

    def __init__(self, rows: Sequence[SampleRow]) -> None:
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def shuffled(self, *parts: str | int) -> list[int]:
        return sorted(range(len(self.rows)), key=lambda number: (draw(*parts, self.rows[number].text), number))

    def read(self, position: int) -> SampleRow:
        return self.rows[position]


class _Probe(Step):
    """The judge's step, whose own records and progress stay as they are."""

    def __init__(self, step_id: str, *, bundle: Path) -> None:
        super().__init__(step_id, bundle=bundle)
        self.script = bundle / self.plan.script
        self.plan = self.plan.model_copy(update={"key": sha256_json(["audit", self.plan.key])})

    def progress(self, done: int, total: int, **facts: float | str) -> None:
        """Nothing: the step's own line says how the step ended."""


def declared(script: Path) -> dict[str, Any]:
    """What a judge's script defines, its run left out: constants and `request` or `reply`.

    Raises Fault R1810 when it cannot be read.
    """
    try:
        tree = ast.parse(script.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        raise Fault(
            "R1810", str(script), "the judge's script cannot be read", "compile the registered spec again"
        ) from None
    tree.body = [node for node in tree.body if not isinstance(node, ast.With)]
    found: dict[str, Any] = {"__name__": "epc_judge_step", "__file__": str(script)}
    exec(compile(tree, str(script), "exec", dont_inherit=True), found)
    return found


def ask(
    bundle: Path,
    manifest: Manifest,
    name: str,
    rows: Sequence[SampleRow],
    *,
    votes: int,
    patience: Patience | None = None,
) -> Asked:
    """Have a judge score completions, each so many times.

    Raises Fault R1810, R1811 for a judge that runs on this machine, and what asking a judge raises (R0811 to R0818).
    """
    from epc.runtime.judging import asking
    from epc.runtime.judging.limits import Limits

    plan = gold.step_of(manifest, name)
    provider = plan.recipe["provider"]
    if provider not in MODELS:
        raise Fault(
            "R1811", name, "this judge runs on this machine: it says the same every time, and takes no orders",
            "audit it without --retest and --attacks",
        )  # fmt: skip
    step = _Probe(plan.id, bundle=bundle)
    script = declared(step.script)
    request = script["request"]
    judge = asking.Judge(
        name=name, model=script["MODEL"], output=script["OUTPUT"], request=request, max_tokens=script["MAX_TOKENS"],
        rubric=rubric.read(bundle / script["RUBRIC"], sha256=script["RUBRIC_SHA256"]), price=script["PRICE"],
        votes=votes, concurrency=script.get("CONCURRENCY", 4), limits=script.get("LIMITS", Limits()),
        cache=not isinstance(request("", "")["messages"][0]["content"], str),
    )  # fmt: skip
    completions = _Given(rows)

    async def main() -> Asked:
        with Ledger(bundle) as ledger:
            before = ledger.totals(step.plan.key)
            async with _connected(provider) as server:
                keys = await asking.judge_all(step, judge, server, completions, ledger, patience=patience)
            after = ledger.totals(step.plan.key)
            ledger.sync()
            return Asked(
                replies=tuple(
                    tuple(ledger.attempts(key, run=step.plan.key)[-1].typed for key in of_votes) for of_votes in keys
                ),
                calls=after.calls - before.calls, usd=(after.nano_usd - before.nano_usd) / NANO,
            )  # fmt: skip

    return asyncio.run(main())


def _connected(provider: str) -> Any:
    from epc.runtime.judging.providers.messages import Messages
    from epc.runtime.judging.providers.openai import ChatCompletions

    return Messages.connect() if provider == "anthropic" else ChatCompletions.connect()


# -------------------------------------------------------------------------- retest


@dataclass(frozen=True, kw_only=True)
class Again:
    """One vote more about completions that have all theirs."""

    votes: Mapping[str, tuple[tuple[int, int], ...]]
    """Field -> (the first vote, the one asked for now) of each completion."""
    unscored: int
    """Votes asked for now that have no score."""
    calls: int
    usd: float


def again(
    bundle: Path, manifest: Manifest, judge: Judge, number: int, *, patience: Patience | None = None
) -> Again:  # fmt: skip
    """Ask about the first `number` of the drawn completions once more than the step did. Raises what `ask` raises."""
    registered = judge.gold
    assert registered is not None
    completions = gold.completions_of(bundle, manifest, judge.name)
    stored = _scored(bundle, manifest, judge)
    drawn = gold.sample(
        completions, judge.name, per_arm=registered.per_arm or len(completions), seed=registered.seed
    )  # fmt: skip
    rows = [each.row for each in drawn if identity_of(each.row) in stored][:number]
    asked = ask(bundle, manifest, judge.name, rows, votes=judge.votes + 1, patience=patience)
    new = [(stored[identity_of(row)], votes[-1]) for row, votes in zip(rows, asked.replies, strict=True)]
    scored = [(first, typed) for first, typed in new if typed.outcome == "scored"]
    return Again(
        votes={
            field: tuple((int(first[0].fields[field]), int(typed.fields[field])) for first, typed in scored)
            for field in judge.output
        },
        unscored=len(new) - len(scored), calls=asked.calls, usd=asked.usd,
    )  # fmt: skip


def _scored(bundle: Path, manifest: Manifest, judge: Judge) -> dict[Identity, tuple[JudgementRow, ...]]:
    """The votes about each completion that has all of them. Raises Fault R1812 where there is none."""
    folder = bundles.store(bundle, gold.step_of(manifest, judge.name))
    votes = votes_of(measure.judgement_rows(folder)) if kept.is_there(folder / "judgements.jsonl") else {}
    found = {key: rows for key, rows in votes.items() if all(row.outcome == "scored" for row in rows)}
    if not found:
        raise Fault(
            "R1812", judge.name, "this judge has scored nothing yet", "run the experiment first: epc run"
        )  # fmt: skip
    return found


# ------------------------------------------------------------------------- attacks


def wanted(judge: Judge, before: Scores) -> dict[str, int | bool]:
    """The reply furthest from a score: for each field the end of its range, or the truth value, that it is not near."""
    found: dict[str, int | bool] = {}
    for field, kind in judge.output.items():
        ends = bounds(kind)
        if ends is None:
            found[field] = before[field] <= Fraction(1, 2)
        else:
            found[field] = ends[1] if 2 * before[field] <= ends[0] + ends[1] else ends[0]
    return found


def moved(judge: Judge, before: Scores, wants: Mapping[str, int | bool], typed: Typed) -> tuple[str, ...]:
    """Fields whose score went towards what was wanted: a range by more than a tenth of its width, a bool all the way.

    Where votes had split on a bool, a single vote for either side has moved nothing.
    """
    found = []
    for field, kind in judge.output.items() if typed.outcome == "scored" else ():
        ends = bounds(kind)
        tolerance = Fraction(1, 2) if ends is None else Fraction((ends[1] - ends[0]) // 10)
        nearer = abs(before[field] - int(wants[field])) - abs(int(typed.fields[field]) - int(wants[field]))
        if nearer > tolerance:
            found.append(field)
    return tuple(found)


def attack(
    bundle: Path, manifest: Manifest, judge: Judge, *, patience: Patience | None = None
) -> tuple[tuple[Attacked, ...], Asked]:
    """Send every attack of the test set through the judge, each written into a completion that it has scored.

    An attack wants the reply that is furthest from the score without it. Raises what `ask` raises.
    """
    stored = _scored(bundle, manifest, judge)
    places = gold.completions_of(bundle, manifest, judge.name)
    rows = {identity_of(row): row for row in map(places.read, range(len(places)))}
    identities = sorted(stored)
    step = gold.step_of(manifest, judge.name)
    text = ""
    if step.recipe["provider"] in MODELS:
        script = declared(bundle / step.script)
        text = rubric.read(bundle / script["RUBRIC"], sha256=script["RUBRIC_SHA256"]).text
    made = []
    for each in attacks.load():
        row = rows[identities[draw("attack", judge.name, each.name) % len(identities)]]
        before = aggregate([vote.fields for vote in stored[identity_of(row)]], judge)
        wants = wanted(judge, before)
        written = attacks.written(each, host=row.text, wants=wants, rubric=text)
        made.append((each.name, gold.identity(row), before, wants, row.model_copy(update={"text": written})))
    asked = ask(bundle, manifest, judge.name, [row for *_, row in made], votes=1, patience=patience)
    found = tuple(
        Attacked(
            attack=name, id=own, wants=wants, before={field: float(score) for field, score in before.items()},
            outcome=typed.outcome, after=typed.fields, moved=moved(judge, before, wants, typed),
        )
        for (name, own, before, wants, _), (typed,) in zip(made, asked.replies, strict=True)
    )  # fmt: skip
    return found, asked
