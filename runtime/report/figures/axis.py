"""Positions along an axis. Percentages, because a figure then fits any width while its text keeps its size.

Every position is rounded to two decimals, so the same data gives the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from epc.compiler.contract.manifest import Role
from epc.runtime.report import numbers

Domain = tuple[float, float]
"""What the axis shows, from its start to its end."""
Tone = Literal["good", "bad", "plain"]
LANE = 15
"""Height of one line of labels, px."""
LONGEST_LABEL = 34
"""Characters of a threshold label: what fits beside its line on a phone."""
CHARACTER = 5.8
"""Mean width of a character of a label, px."""
NARROW = 300
"""Width of a plot on a phone, px."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    x: float
    """Percent along the axis: from the left, or from the top of a vertical one."""
    label: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """A threshold: vertical line at `x` with its label in lane `lane`."""

    x: float
    lane: int
    anchor: Literal["start", "middle", "end"]
    label: str
    title: str
    tone: Tone


def tone(role: Role) -> Tone:
    if role in ("kill", "override"):
        return "bad"
    return "good" if role == "success" else "plain"


def apart(lines: Sequence[tuple[float, str, str, Tone]]) -> tuple[Line, ...]:
    """(x, label, title, tone) of each line, a lane for every label: they touch neither each other nor, if avoidable, a line."""
    placed: list[tuple[Literal["start", "middle", "end"], float, str, str, Tone]] = []
    for x, label, title, colour in lines:
        width = 100 * len(label) * CHARACTER / NARROW
        placed.append(("start" if x + width <= 100 else "end" if x >= width else "middle", x, label, title, colour))
    rank = {"start": 0, "end": 1, "middle": 2}
    placed.sort(key=lambda item: (rank[item[0]], -item[1] if item[0] == "end" else item[1], item[2]))
    return tuple(
        Line(x=x, lane=lane, anchor=anchor, label=label, title=title, tone=colour)
        for lane, (anchor, x, label, title, colour) in enumerate(placed)
    )


def around(values: Sequence[float], limits: Domain) -> Domain:
    """The values with some air around them, within the limits unless a value lies outside."""
    if not values:
        return limits
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 0.05 * (limits[1] - limits[0])
    return min(low, max(limits[0], low - air)), max(high, min(limits[1], high + air))


def round_ticks(low: float, high: float, domain: Domain, *, sign: bool = False) -> tuple[Tick, ...]:
    """Round numbers within [low, high], placed on `domain`: at most six, so that labels stay apart on a phone."""
    power = math.floor(math.log10(high - low)) - 1
    steps = [(multiple * 10.0**exponent, exponent) for exponent in (power, power + 1) for multiple in (1, 2, 5)]
    step, exponent = next((step, exponent) for step, exponent in steps if (high - low) / step <= 5 + 1e-9)
    ticks = []
    for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1):
        ticks.append(
            Tick(x=position(index * step, domain), label=numbers.fixed(index * step, max(0, -exponent), sign=sign))
        )
    return tuple(ticks)


def position(value: float, domain: Domain) -> float:
    """Percent from the start of the axis."""
    return place(100 * (value - domain[0]) / (domain[1] - domain[0]))


def across(value: float | None, domain: Domain) -> float | None:
    return None if value is None else position(value, domain)


def place(percent: float) -> float:
    return round(percent, 2) + 0.0
