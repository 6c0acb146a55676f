"""The page of a simulation: one HTML file with its figures, light and dark, no network.

Positions are percentages, so a figure fits any width while its text keeps its size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Final

from epc.compiler.contract.manifest import VerdictClass
from epc.compiler.contract.simulation import Power, Simulation, TruthOutcome
from epc.runtime.report.numbers import compact
from epc.runtime.simulate.summary import expected_text, mde_text, needed_text, share

if TYPE_CHECKING:
    from jinja2 import Environment

NARROW_LABEL: Final = 8.0
"""Percent of a bar below which a share is not written into it."""
SHADES: Final = (1.0, 0.62, 0.38)
"""Opacity of the first, second and any later label of one class."""
LANE: Final = 15
"""Height of one line of labels, px."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    x: float
    width: float
    middle: float
    label: str
    verdict_class: VerdictClass
    opacity: float
    title: str
    text: str
    """Empty where it would not fit."""


@dataclass(frozen=True, kw_only=True)
class Row:
    number: int
    truth: TruthOutcome
    segments: tuple[Segment, ...]
    expected: str
    false_success: str
    """Empty where the truth deserves success."""


@dataclass(frozen=True, kw_only=True)
class Key:
    label: str
    verdict_class: VerdictClass
    opacity: float


@dataclass(frozen=True, kw_only=True)
class Mark:
    x: float
    lane: int
    anchor: str
    text: str
    tone: str
    title: str


@dataclass(frozen=True, kw_only=True)
class Tick:
    x: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Dot:
    x: float
    reject: float
    success: float
    title: str


@dataclass(frozen=True, kw_only=True)
class Curve:
    power: Power
    said: str
    reject: str
    success: str
    """Points of a path in a box of 100 by 100."""
    dots: tuple[Dot, ...]
    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]
    asked: float
    """y of the power that is asked for."""
    asked_text: str
    mde: float | None
    top: int


def html(simulation: Simulation) -> str:
    """The page as text."""
    return _environment().get_template("simulate/page.html.j2").render(
        simulation=simulation, rows=tuple(rows(simulation)), keys=tuple(keys(simulation)),
        curves=tuple(curve(power) for power in simulation.power),
        needed=[needed_text(need) for need in simulation.needed], share=share,
    )  # fmt: skip


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    return Environment(
        loader=PackageLoader("epc", "templates"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=select_autoescape(enabled_extensions=("html.j2", "svg.j2"), default=False),
    )  # fmt: skip


def _opacities(truth: TruthOutcome) -> list[float]:
    seen: Counter[str] = Counter()
    found = []
    for verdict in truth.verdicts:
        found.append(SHADES[min(seen[verdict.verdict_class], len(SHADES) - 1)])
        seen[verdict.verdict_class] += 1
    return found


def keys(simulation: Simulation) -> Iterator[Key]:
    """Verdicts that some truth gives."""
    first = simulation.truths[0]
    for place, opacity in enumerate(_opacities(first)):
        if any(truth.verdicts[place].share for truth in simulation.truths):
            verdict = first.verdicts[place]
            yield Key(label=verdict.label, verdict_class=verdict.verdict_class, opacity=opacity)


def rows(simulation: Simulation) -> Iterator[Row]:
    for number, truth in enumerate(simulation.truths, start=1):
        segments, start = [], 0.0
        for verdict, opacity in zip(truth.verdicts, _opacities(truth), strict=True):
            width = 100 * verdict.share
            if width:
                segments.append(
                    Segment(
                        x=round(start, 3), width=round(width, 3), middle=round(start + width / 2, 3), label=verdict.label,
                        verdict_class=verdict.verdict_class, opacity=opacity,
                        title=f"{verdict.label} {share(verdict.share)} under {truth.name}",
                        text=share(verdict.share) if width >= NARROW_LABEL else "",
                    )
                )  # fmt: skip
            start += width
        yield Row(
            number=number, truth=truth, segments=tuple(segments), expected=expected_text(truth),
            false_success="" if truth.false_success is None else share(truth.false_success),
        )  # fmt: skip


def curve(power: Power) -> Curve:
    """Geometry of one power curve; a contrast that succeeds below 0 runs to the left."""
    effects = [point.effect for point in power.points]
    low, high = min(effects), max(effects)

    def across(effect: float) -> float:
        return round(100 * (effect - low) / (high - low), 2)

    ordered = sorted(power.points, key=lambda point: point.effect)
    inside = [each for each in power.thresholds if low <= each.constant <= high]
    by_constant: dict[float, list[str]] = {}
    tones: dict[float, str] = {}
    for each in inside:
        by_constant.setdefault(each.constant, []).append(f"{each.gate} ({each.role})")
        tones[each.constant] = "bad" if each.role in ("kill", "override") else tones.get(each.constant, "good")
    marks = tuple(
        Mark(
            x=across(constant), lane=lane, anchor="start" if across(constant) < 60 else "end",
            text=f"{compact(constant)} {', '.join(gates)}", tone=tones[constant],
            title=", ".join(each.text for each in inside if each.constant == constant),
        )
        for lane, (constant, gates) in enumerate(sorted(by_constant.items()))
    )  # fmt: skip
    return Curve(
        power=power, said=mde_text(power), reject=_path([(across(p.effect), p.reject) for p in ordered]),
        success=_path([(across(p.effect), p.success) for p in ordered]),
        dots=tuple(
            Dot(
                x=across(point.effect), reject=_down(point.reject), success=_down(point.success),
                title=f"true effect {compact(point.effect)}: rejects {share(point.reject)}, SUCCESS {share(point.success)}",
            )
            for point in ordered
        ),
        marks=marks,
        ticks=tuple(Tick(x=across(at), label=compact(at)) for at in _round_ticks(low, high)),
        asked=_down(power.power), asked_text=share(power.power),
        mde=None if power.mde is None else across(power.mde), top=LANE * len(marks) + 6,
    )  # fmt: skip


def _round_ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, about five of them."""
    rough = (high - low) / 5
    power = 10.0 ** floor(log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [round(k * step, 12) for k in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def _down(value: float) -> float:
    return round(100 * (1 - value), 2)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:g} {_down(y):g}" for x, y in points)
