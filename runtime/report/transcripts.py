"""Which completions a report shows: chosen by the pre-registered seed, so that nobody picks them."""

from __future__ import annotations

from collections.abc import Iterable

from epc.compiler.contract.draws import draw
from epc.compiler.contract.manifest import Design
from epc.compiler.contract.rows import SampleRow


def choose(rows: Iterable[SampleRow], design: Design) -> tuple[SampleRow, ...]:
    """`design.transcripts` completions of every arm and sample set, as equally likely subsets.

    A completion's identity within its set is (item, turn, index). The identities with the lowest
    draws are shown, and the draw does not know the arm: where arms hold the same identities, the
    same prompts stand side by side. Of several training seeds one is drawn. The order of `rows`
    does not matter. Returned by set, then draw, then arm as declared.
    """
    groups: dict[tuple[str, str], dict[tuple[str, int, int], SampleRow]] = {}
    for row in rows:
        group = groups.setdefault((row.set, row.condition), {})
        identity = (row.item, row.turn, row.index)
        held = group.get(identity)
        if held is None or _seed_rank(design, row) < _seed_rank(design, held):
            group[identity] = row

    declared = {condition.name: index for index, condition in enumerate(design.conditions)}
    chosen = [
        row
        for (name, _), group in groups.items()
        for _, row in sorted(group.items(), key=lambda held: _rank(design, name, held[0]))[: design.transcripts]
    ]
    return tuple(
        sorted(
            chosen,
            key=lambda row: (
                row.set, _rank(design, row.set, (row.item, row.turn, row.index)),
                declared.get(row.condition, len(declared)), row.condition,
            ),
        )
    )  # fmt: skip


def _rank(design: Design, name: str, identity: tuple[str, int, int]) -> tuple[int, tuple[str, int, int]]:
    return draw(design.transcript_seed, "transcript", name, *identity), identity


def _seed_rank(design: Design, row: SampleRow) -> tuple[int, int]:
    identity = (row.set, row.condition, row.item, row.turn, row.index, row.seed)
    return draw(design.transcript_seed, "transcript seed", *identity), row.seed
