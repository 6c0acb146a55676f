"""Power against the true effect, from the simulated decision."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from epc.compiler.contract.simulation import Power, PowerThreshold
from epc.runtime.report import numbers
from epc.runtime.report.figures.axis import LANE, LONGEST_LABEL, Line, Tick, apart, position, round_ticks, tone
from epc.runtime.report.text import one_line

HEIGHT = 150
"""Of the plot, px."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, kw_only=True)
class PowerPoint:
    x: float
    reject: float
    success: float
    """y positions, percent from the top."""
    effect_text: str
    reject_text: str
    success_text: str


@dataclass(frozen=True, kw_only=True)
class PowerCurve:
    analysis: str
    truth: str
    experiments: str
    asked: str
    asked_y: float
    mde: str
    points: tuple[PowerPoint, ...]
    reject: tuple[Segment, ...]
    success: tuple[Segment, ...]
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    top: int
    """Where the labels end and the plot begins, px."""
    height: int


def power_curve(power: Power, scale: tuple[float, float]) -> PowerCurve | None:
    """Curves of one confirmatory contrast; None for fewer than two effects."""
    effects = [point.effect for point in power.points]
    if len(set(effects)) < 2:
        return None
    domain = min(effects), max(effects)
    upright = (1.0, 0.0)
    points = tuple(
        PowerPoint(
            x=position(point.effect, domain), reject=position(point.reject, upright),
            success=position(point.success, upright), effect_text=numbers.difference(point.effect, scale),
            reject_text=numbers.percent(point.reject), success_text=numbers.percent(point.success),
        )
        for point in sorted(power.points, key=lambda point: point.effect)
    )  # fmt: skip
    lines = apart(
        [
            (position(t.constant, domain), _label(t), f"{t.role} gate {one_line(t.gate)}: {one_line(t.text)}", tone(t.role))
            for t in power.thresholds
            if domain[0] <= t.constant <= domain[1]
        ]
    )  # fmt: skip
    top = len(lines) * LANE
    asked = numbers.percent(power.power)
    none = f"none on the curve: power {asked} is not reached"
    return PowerCurve(
        analysis=one_line(power.analysis),
        truth=one_line(power.truth),
        experiments=f"{power.experiments:,}",
        asked=asked,
        asked_y=position(power.power, upright),
        mde=none if power.mde is None else numbers.difference(power.mde, scale),
        points=points,
        reject=_segments([(point.x, point.reject) for point in points]),
        success=_segments([(point.x, point.success) for point in points]),
        lines=lines,
        x_ticks=round_ticks(*domain, domain, sign=True),
        y_ticks=round_ticks(0.0, 1.0, upright),
        top=top,
        height=HEIGHT,
    )


def _label(threshold: PowerThreshold) -> str:
    label = f"{one_line(threshold.gate)}: {numbers.operator(one_line(threshold.text))}"
    return label if len(label) <= LONGEST_LABEL else label[: LONGEST_LABEL - 1] + "…"


def _segments(points: Sequence[tuple[float, float]]) -> tuple[Segment, ...]:
    return tuple(Segment(x1=x1, y1=y1, x2=x2, y2=y2) for (x1, y1), (x2, y2) in itertools.pairwise(points))
