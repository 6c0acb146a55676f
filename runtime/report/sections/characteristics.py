"""Operating characteristics: what the registered decision says under assumed truths, from report/simulation.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from epc.compiler.contract.manifest import Design
from epc.compiler.contract.simulation import GateOutcome, Needed, Simulation, TruthOutcome
from epc.runtime.report import numbers
from epc.runtime.report.figures.power import PowerCurve, power_curve
from epc.runtime.report.text import one_line


@dataclass(frozen=True, kw_only=True)
class ShareView:
    label: str
    share: str
    width: float
    """Percent."""
    deserved: bool


@dataclass(frozen=True, kw_only=True)
class TruthView:
    name: str
    describe: str
    origin: str
    deserved: str
    verdicts: tuple[ShareView, ...]
    false_success: str
    expectation: str
    met: bool
    """False where an expectation was declared and is not met."""
    metrics: tuple[tuple[str, str, str, str, str], ...]
    """(metric, means by arm, SD of units, correlation of arms, missing)."""


@dataclass(frozen=True, kw_only=True)
class DecisiveView:
    """A gate, or one comparison of it: how often it is true and how often the verdict hangs on it, by truth."""

    name: str
    role: str
    cells: tuple[tuple[str, str], ...]
    """(how often it is true, how often the verdict hangs on it), in the order of the truths."""


@dataclass(frozen=True, kw_only=True)
class FamilyView:
    name: str
    method: str
    cells: tuple[str, ...]
    """False rejections, in the order of the truths."""


@dataclass(frozen=True, kw_only=True)
class NeededView:
    truth: str
    label: str
    power: str
    source: str
    planned: str
    units: str
    samples: str
    because: str


@dataclass(frozen=True, kw_only=True)
class CharacteristicsView:
    intro: str
    truths: tuple[TruthView, ...]
    gates: tuple[DecisiveView, ...]
    families: tuple[FamilyView, ...]
    curves: tuple[PowerCurve, ...]
    needed: tuple[NeededView, ...]
    assumptions: tuple[str, ...]


def characteristics_view(simulation: Simulation, design: Design) -> CharacteristicsView:
    scales = {metric.name: metric.scale for metric in design.metrics}
    curves = [power_curve(power, scales.get(power.metric, (0.0, 1.0))) for power in simulation.power]
    error = numbers.percent((0.25 / simulation.experiments) ** 0.5)
    resamples = (
        "the registered number of resamples"
        if simulation.resamples is None
        else f"{numbers.count(simulation.resamples, 'resample')} instead of the registered number"
    )
    return CharacteristicsView(
        intro=(
            f"The whole registered decision on {numbers.count(simulation.experiments, 'simulated experiment')} under each "
            f"truth, seed {simulation.seed}, with {resamples}. A share has a standard error of at most {error}."
        ),
        truths=tuple(_truth(truth, scales) for truth in simulation.truths),
        gates=tuple(_gates(simulation)),
        families=tuple(_families(simulation)),
        curves=tuple(curve for curve in curves if curve is not None),
        needed=tuple(_needed(needed) for needed in simulation.needed),
        assumptions=tuple(one_line(text) for text in simulation.assumptions),
    )


def _truth(truth: TruthOutcome, scales: Mapping[str, tuple[float, float]]) -> TruthView:
    expectation = "nothing was expected of it"
    if truth.expect is not None:
        least = "" if truth.at_least is None else f" in at least {numbers.percent(truth.at_least)}"
        found = "" if truth.expected is None else f": {numbers.percent(truth.expected)}"
        met = {None: "", True: ", met", False: ", NOT met"}[truth.met]
        expectation = one_line(f"{truth.expect} was expected{least}{found}{met}")
    return TruthView(
        name=one_line(truth.name),
        describe=one_line(truth.describe),
        origin="declared in the spec" if truth.declared else "derived from the gates",
        deserved=one_line(truth.deserved),
        verdicts=tuple(
            ShareView(
                label=one_line(seen.label), share=numbers.percent(seen.share), width=round(100 * seen.share, 2),
                deserved=seen.label == truth.deserved,
            )
            for seen in truth.verdicts
        ),
        false_success="none possible: it deserves one" if truth.false_success is None else numbers.percent(truth.false_success),
        expectation=expectation,
        met=truth.met is not False,
        metrics=tuple(
            (
                one_line(name),
                ", ".join(
                    f"{one_line(arm)} {numbers.level(mean, scales.get(name, (0.0, 1.0)))}"
                    for arm, mean in of.means.items()
                ),
                numbers.compact(of.unit_sd), numbers.compact(of.correlation), numbers.percent(of.missing),
            )
            for name, of in truth.metrics.items()
        ),
    )  # fmt: skip


def _gates(simulation: Simulation) -> Iterator[DecisiveView]:
    """Every gate with its parts, in the order of the first truth."""
    by_truth = [{gate.name: gate for gate in truth.gates} for truth in simulation.truths]
    for name, first in by_truth[0].items() if by_truth else ():
        seen = [gates.get(name) for gates in by_truth]
        yield DecisiveView(
            name=one_line(name), role=first.role.replace("_", "-"),
            cells=tuple(_cell(gate.true, gate.decisive) if gate else _absent() for gate in seen),
        )  # fmt: skip
        for index, part in enumerate(first.parts):
            yield DecisiveView(
                name=f"{one_line(name)}: {one_line(part.text)}", role="part of it",
                cells=tuple(_part(gate, index) for gate in seen),
            )  # fmt: skip


def _part(gate: GateOutcome | None, index: int) -> tuple[str, str]:
    if gate is None or index >= len(gate.parts):
        return _absent()
    return _cell(gate.parts[index].true, gate.parts[index].decisive)


def _cell(true: float, decisive: float | None) -> tuple[str, str]:
    return numbers.percent(true), "never decides" if decisive is None else numbers.percent(decisive)


def _absent() -> tuple[str, str]:
    return numbers.unknown("not simulated"), numbers.unknown("not simulated")


def _families(simulation: Simulation) -> Iterator[FamilyView]:
    by_truth = [{family.name: family for family in truth.families} for truth in simulation.truths]
    for name, first in by_truth[0].items() if by_truth else ():
        shares = [found.false_rejection if (found := held.get(name)) is not None else None for held in by_truth]
        yield FamilyView(
            name=one_line(name), method=first.method.replace("_", " "),
            cells=tuple("none possible" if share is None else numbers.percent(share) for share in shares),
        )  # fmt: skip


def _needed(needed: Needed) -> NeededView:
    def found(number: int | None, share: float | None, what: str) -> str:
        reached = "" if share is None else f", {numbers.percent(share)}"
        return "none found" if number is None else f"{numbers.count(number, what)}{reached}"

    return NeededView(
        truth=one_line(needed.truth),
        label=one_line(needed.label),
        power=numbers.percent(needed.power),
        source=one_line(needed.source),
        planned=(
            f"{numbers.count(needed.planned_units, 'unit')} of {numbers.count(needed.planned_samples, 'sample')}, "
            f"{numbers.percent(needed.planned_share)}"
        ),
        units=found(needed.units, needed.units_share, "unit"),
        samples=found(needed.samples, needed.samples_share, "sample"),
        because=one_line(needed.because),
    )
