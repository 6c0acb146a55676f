"""Arms that are compared with adapters of unequal size.

W0717: compared arms have adapters of unequal capacity
Why: an adapter of rank 32 can learn what one of rank 8 cannot, so an effect may come from the room to learn and not
from what was taught. Ranks are summed for each projection: a stacked phase adds an adapter, a continued one trains the
one that is there. A whole phase more is taken to be the treatment, as it is for optimizer steps.
Example:
    train: {catch: {lora: {r: 32}, on_top: stack}, attack: {on_top: stack}}
Fix:
    train: {catch: {lora: {r: 16}, on_top: stack}, attack: {on_top: stack}}
"""

from __future__ import annotations

from collections import Counter

from epc.compiler.checks.training import compared
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment


def check(experiment: Experiment, sink: Diagnostics) -> None:
    for name, *pair in compared(experiment):
        found = {arm: _adapters(experiment, arm) for arm in pair}
        ranks = [_ranks(experiment, phases) for phases in found.values()]
        if not all(found.values()) or ranks[0] == ranks[1]:
            continue
        sink.warning(
            "W0717", f'"{pair[0]}" and "{pair[1]}" are compared and have adapters of unequal capacity', experiment.at("analyses", name, "contrast"),
            help="give both the same ranks on the same projections, or say in the rationale that the capacity is what is compared",
            notes=[f"{arm}: {_sum(experiment, phases)}" for arm, phases in found.items()],
        )  # fmt: skip


def _adapters(experiment: Experiment, arm: str) -> list[str]:
    """Phases of an arm that start an adapter; none where a phase is unknown."""
    train, phases = experiment.spec.train, experiment.spec.phases(arm)
    if any(phase not in train for phase in phases):
        return []
    return [phase for index, phase in enumerate(phases) if index == 0 or train[phase].on_top == "stack"]


def _ranks(experiment: Experiment, phases: list[str]) -> Counter[str]:
    """Projection -> sum of the ranks of its adapters."""
    ranks: Counter[str] = Counter()
    for phase in phases:
        lora = experiment.spec.train[phase].lora
        ranks.update(dict.fromkeys(lora.target_modules, lora.r))
    return ranks


def _sum(experiment: Experiment, phases: list[str]) -> str:
    """`16 x 7 projections (catch) + 8 x 7 projections (attack) = 168`."""
    adapters = [(phase, experiment.spec.train[phase].lora) for phase in phases]
    sizes = [lora.r * len(set(lora.target_modules)) for _, lora in adapters]
    terms = " + ".join(
        f"rank {lora.r} x {len(set(lora.target_modules))} projections ({phase})" for phase, lora in adapters
    )
    return f"{terms} = {sum(sizes)}"
