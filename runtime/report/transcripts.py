"""Which completions a report shows: drawn with the pre-registered seed, so that nobody picks them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from heapq import nsmallest
from typing import Protocol, TypeVar

from epc.compiler.contract.draws import draw
from epc.compiler.contract.manifest import Design
from epc.runtime.report.figures.paired import MOST_MARKS


class Identified(Protocol):
    """A completion, as far as the draw looks at it."""

    @property
    def set(self) -> str: ...
    @property
    def condition(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def item(self) -> str: ...
    @property
    def turn(self) -> int: ...
    @property
    def index(self) -> int: ...


Completion = TypeVar("Completion", bound=Identified)
Identity = tuple[str, str, int, int]
"""(set, item, turn, index)"""


def choose(rows: Iterable[Completion], design: Design) -> tuple[Completion, ...]:
    """`design.transcripts` completions of every arm and sample set, as equally likely subsets.

    A completion's identity within its set is (item, turn, index). The identities with the lowest
    draws are shown, and the draw does not know the arm: where arms hold the same identities, the
    same prompts stand side by side. Of several training seeds one is drawn. The order of `rows`
    does not matter. Returned by set, then draw, then arm as declared.
    """
    rank = _ranks(design, "transcript")
    groups: dict[tuple[str, str], dict[Identity, Completion]] = {}
    for row in rows:
        group = groups.setdefault((row.set, row.condition), {})
        identity = _identity(row)
        held = group.get(identity)
        if held is None or _seed_rank(design, row) < _seed_rank(design, held):
            group[identity] = row

    declared = {condition.name: index for index, condition in enumerate(design.conditions)}
    chosen = [
        group[identity] for group in groups.values() for identity in nsmallest(design.transcripts, group, key=rank)
    ]
    return tuple(
        sorted(
            chosen,
            key=lambda row: (
                row.set, rank(_identity(row)), declared.get(row.condition, len(declared)), row.condition,
            ),
        )
    )  # fmt: skip


def of_prompts(rows: Iterable[Completion], design: Design) -> tuple[Completion, ...]:
    """One completion of every prompt in both arms of every confirmatory contrast, for the prompts that figures draw.

    Of a prompt's (turn, index) the one with the lowest draw is shown, and the draw does not know the arm; of several
    training seeds one is drawn. Nothing of a set with more prompts than a figure draws one by one. Returned by set,
    then prompt, then arm as declared.
    """
    rank = _ranks(design, "transcript of prompt")
    wanted = _confirmatory_arms(design)

    def before(row: Completion, other: Completion) -> bool:
        if (mine := rank(_identity(row))) != (its := rank(_identity(other))):
            return mine < its
        return _seed_rank(design, row) < _seed_rank(design, other)

    held: dict[tuple[str, str, str], Completion] = {}
    for row in rows:
        if row.condition not in wanted.get(row.set, ()):
            continue
        cell = (row.set, row.item, row.condition)
        other = held.get(cell)
        if other is None or before(row, other):
            held[cell] = row
    items = {name: {item for of, item, _ in held if of == name} for name in wanted}
    declared = {condition.name: index for index, condition in enumerate(design.conditions)}
    shown = [cell for cell in held if len(items[cell[0]]) <= MOST_MARKS]
    return tuple(held[cell] for cell in sorted(shown, key=lambda cell: (cell[0], cell[1], declared[cell[2]])))


def _confirmatory_arms(design: Design) -> Mapping[str, frozenset[str]]:
    """Sample set -> the arms that a confirmatory contrast compares on it."""
    sources = {metric.name: metric.source for metric in design.metrics if metric.kind in ("pattern", "judge")}
    found: dict[str, frozenset[str]] = {}
    for analysis in design.analyses:
        if analysis.confirmatory and analysis.contrast is not None and analysis.metric in sources:
            name = sources[analysis.metric]
            arms = {analysis.contrast.treatment, analysis.contrast.control}
            found[name] = found.get(name, frozenset()) | arms
    return found


def _identity(row: Identified) -> Identity:
    return row.set, row.item, row.turn, row.index


def _ranks(design: Design, purpose: str) -> Callable[[Identity], tuple[int, Identity]]:
    """Identity -> its draw; arms share identities, so each is drawn once."""

    @cache
    def rank(identity: Identity) -> tuple[int, Identity]:
        return draw(design.transcript_seed, purpose, *identity), identity

    return rank


def _seed_rank(design: Design, row: Identified) -> tuple[int, int]:
    identity = (row.set, row.condition, row.item, row.turn, row.index, row.seed)
    return draw(design.transcript_seed, "transcript seed", *identity), row.seed
