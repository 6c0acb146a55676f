"""What the figures draw of units: their means by arm, and which scores those are of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from epc.compiler.contract.manifest import Design, Metric
from epc.runtime.measurements import Cells, Measurements
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
            exact = {name: unit.value(seeds[condition]) for name, unit in sorted(units.items())}
            means[metric, condition] = {name: None if value is None else float(value) for name, value in exact.items()}
        return means


def scores_of(metric: Metric, *, unfiltered: bool) -> str:
    """What is said of the scores of a filtered metric, empty where it has no filter."""
    if metric.filter is None:
        return ""
    return f"every scored one, with or without {metric.filter}" if unfiltered else f"only where {metric.filter}"


def mean_text(mean: float | None, scale: tuple[float, float], reason: str | None) -> str:
    return numbers.unknown(reason) if mean is None else numbers.level(mean, scale)
