"""What the figures draw of units: their means by arm, and which scores those are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from epc.compiler.contract.manifest import Design, Metric
from epc.runtime.measurements import Cells, Measurements, Unit
from epc.runtime.report import numbers

UnitMeans = Mapping[tuple[str, str], Mapping[str, float | None]]
"""(metric, condition) -> unit -> mean over training seeds, None where a seed has nothing scored."""


@dataclass(frozen=True)
class Means:
    """The unit values that analyses read: means over the arm's training seeds, units sorted."""

    design: Design
    measurements: Measurements

    @cached_property
    def filtered(self) -> UnitMeans:
        return self._of(self.measurements.cells)

    @cached_property
    def unfiltered(self) -> UnitMeans:
        """Of the metrics that have a filter, without it."""
        return self._of(self.measurements.unfiltered)

    def _of(self, cells: Cells) -> UnitMeans:
        seeds = {condition.name: condition.seeds for condition in self.design.conditions}
        means: dict[tuple[str, str], dict[str, float | None]] = {}
        for (metric, condition), units in cells.items():
            means[metric, condition] = {name: _mean(units[name], seeds[condition]) for name in sorted(units)}
        return means


def _mean(unit: Unit, seeds: Sequence[int]) -> float | None:
    """`unit.value` as the nearest float."""
    row = unit.rows.get(seeds[0]) if len(seeds) == 1 else None
    if row is not None and row.n:
        return row.total / (row.denominator * row.n)  # rounded once, as a Fraction is, at a tenth of its cost
    value = unit.value(seeds)
    return None if value is None else float(value)


def scores_of(metric: Metric, *, unfiltered: bool) -> str:
    """What is said of the scores of a filtered metric, empty where it has no filter."""
    if metric.filter is None:
        return ""
    return f"every scored one, with or without {metric.filter}" if unfiltered else f"only where {metric.filter}"


def mean_text(mean: float | None, scale: tuple[float, float], reason: str | None) -> str:
    return numbers.unknown(reason) if mean is None else numbers.level(mean, scale)
