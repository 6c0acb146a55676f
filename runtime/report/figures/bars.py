"""Histograms: bins on the values that a unit mean can take, bars on one height scale."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from epc.compiler.contract.manifest import Metric
from epc.runtime.measurements import Unit
from epc.runtime.report import numbers
from epc.runtime.report.figures.axis import Domain, place, position

BINS = 20
WIDEST_BAR = 0.14
"""Of a bin, as a share of the axis."""
MOST_LATTICE_BINS = 24


@dataclass(frozen=True, kw_only=True)
class Bins:
    """`count` intervals of one width from `low` on. Of a lattice, each is centred on a value it can take."""

    low: float
    width: float
    count: int
    lattice: bool
    domain: Domain
    """What the axis shows. A lattice of two values has wide bins, of which only the middle is shown."""

    def bar(self, index: int) -> tuple[float, float]:
        """Ends of the bar of a bin, a gap left on either side."""
        middle = self.low + (index + 0.5) * self.width
        half = 0.4 * min(self.width, WIDEST_BAR * (self.domain[1] - self.domain[0]))
        return middle - half, middle + half


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bin. Its place and width leave a gap to the next; heights are percent of the figure's tallest."""

    x: float
    width: float
    middle: float
    top: float
    height: float
    count: int
    span: str
    """The values that it holds."""
    title: str


def lattice_bins(values: Mapping[str, Sequence[float]], metric: Metric, units: Iterable[Unit]) -> Bins:
    """One bin for each value that a unit mean can take where those are few and known, else BINS equal ones."""
    low, high = metric.scale
    read = [[row for row in unit.rows.values() if row.n] for unit in units]
    seeds = max((len(rows) for rows in read), default=0) or 1
    lattices = {row.n * row.denominator for rows in read for row in rows}
    steps = round((high - low) * lattices.pop() * seeds) if len(lattices) == 1 else 0
    if 1 <= steps < MOST_LATTICE_BINS:
        width = (high - low) / steps
        at = [(value - low) / width for held in values.values() for value in held]
        if all(abs(found - round(found)) < 1e-6 for found in at):
            air = min(width, WIDEST_BAR * (high - low)) / 2
            return Bins(low=low - width / 2, width=width, count=steps + 1, lattice=True, domain=(low - air, high + air))
    return even_bins(low, high)


def even_bins(low: float, high: float) -> Bins:
    return Bins(low=low, width=(high - low) / BINS, count=BINS, lattice=False, domain=(low, high))


def histogram(
    values: Mapping[str, Sequence[float]], bins: Bins, scale: Domain, units: str, *, sign: bool = False
) -> dict[str, tuple[Bar, ...]]:
    """Histogram of each arm, as shares of its units, all on one height scale."""
    counts = {
        name: Counter(min(bins.count - 1, max(0, math.floor((value - bins.low) / bins.width + 1e-9))) for value in held)
        for name, held in values.items()
    }
    tallest = max((max(count.values()) / count.total() for count in counts.values() if count), default=1.0)
    digits = numbers.digits_for(scale)
    drawn = {}
    for name, count in counts.items():
        bars = []
        for index in sorted(count):
            start = bins.low + index * bins.width
            left, right = (position(end, bins.domain) for end in bins.bar(index))
            height = 100 * count[index] / count.total() / tallest
            if bins.lattice:
                span = numbers.level(round(start + bins.width / 2, 12), scale)
            else:
                ends = (numbers.fixed(end, digits, sign=sign) for end in (start, start + bins.width))
                span = " to ".join(ends)
            bars.append(
                Bar(
                    x=left, width=place(right - left), middle=place((left + right) / 2), top=place(100 - height),
                    height=place(height), count=count[index], span=span,
                    title=f"{span}: {count[index]} of {count.total()} {units}",
                )
            )  # fmt: skip
        drawn[name] = tuple(bars)
    return drawn
