"""One simulation from beginning to end: truths, verdicts, power, sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from epc.compiler.contract.manifest import Design
from epc.compiler.contract.simulation import Needed, Simulation
from epc.runtime.errors import Fault
from epc.runtime.simulate import power as powers
from epc.runtime.simulate.experiments import UNSIMULATED, Simulator, atoms_of
from epc.runtime.simulate.model import EXTREME, Scale, Size
from epc.runtime.simulate.outcomes import outcome, read_metrics
from epc.runtime.simulate.truths import (
    CORRELATION,
    ITEM_CORRELATION,
    ITEM_SD,
    NOTHING,
    UNIT_SD,
    Deriver,
    Known,
    Named,
    impossible_sd,
    widened,
)
from epc.runtime.simulate.verdicts import class_of
from epc.runtime.verdict import DECIDING

EXPERIMENTS: Final = 2000
SEED: Final = 0
SLOW: Final = ("paired_t", "sign_flip", "sign_test", "tost")


@dataclass(frozen=True, kw_only=True)
class Options:
    experiments: int = EXPERIMENTS
    resamples: int | None = None
    seed: int = SEED
    truths: tuple[str, ...] = ()
    """Names of those to simulate, all where empty."""
    units: int | None = None
    samples: int | None = None
    """Of metrics whose sizes the design does not plan."""
    extreme: float = EXTREME


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What a simulation is of."""

    epc: str
    id: str
    title: str
    lock_sha256: str
    design: Design
    place: str
    """What an error names."""


def sizes_of(registration: Registration, options: Options, pilot: Mapping[str, Size]) -> dict[str, Size]:
    """Planned units and samples of every metric. Raises Fault R1701 where one is neither planned nor given."""
    design = registration.design
    found: dict[str, Size] = {}
    lacking: list[str] = []
    for metric in design.metrics:
        known = pilot.get(metric.name)
        units = design.units.get(metric.name) or options.units or (known.units if known else None)
        samples = design.samples.get(metric.name) or options.samples or (known.samples if known else 1)
        if units is None:
            lacking.append(metric.name)
        else:
            found[metric.name] = Size(units=units, samples=samples)
    if lacking:
        raise Fault(
            "R1701", registration.place, f"nothing says how many units {' and '.join(lacking)} will have",
            "results from elsewhere have the units that they have: give --units and --samples, or --pilot",
        )  # fmt: skip
    return found


def simulate(
    registration: Registration, options: Options, known: Known = NOTHING, pilot: Mapping[str, Size] | None = None
) -> Simulation:
    """Operating characteristics of a registration.

    Raises Fault: R1701 (no sizes), R1702 (no such truth), R1703 (an analysis that decides is not simulated), R1704 (a
    truth that cannot be).
    """
    design, left_out = simulable(registration)
    sizes = sizes_of(registration, options, pilot or {})
    deriver = Deriver(design, sizes, known)
    named = [
        Named(truth=widened(each.truth, known.spreads), describe=each.describe, declared=each.declared)
        for each in (deriver.declared() if design.truths else deriver.derived())
    ]
    chosen = _chosen(registration, named, options.truths)
    for each in chosen:
        for metric in design.metrics:
            if impossible_sd(metric, each.truth.metrics[metric.name]):
                raise Fault(
                    "R1704", registration.place,
                    f"truth {each.truth.name}: no mean of {metric.name} allows a standard deviation of"
                    f" {each.truth.metrics[metric.name].unit_sd:g} between units on [{metric.scale[0]:g}, {metric.scale[1]:g}]",
                    "lower unit_sd: it is at most sqrt((mean - low) (high - mean))",
                )  # fmt: skip
    simulator = Simulator(
        design, sizes, seed=options.seed, experiments=options.experiments, extreme=options.extreme,
        resamples=options.resamples,
    )  # fmt: skip
    read = read_metrics(design, simulator.wanted)
    outcomes = tuple(outcome(design, each, simulator.simulate(each.truth), read) for each in chosen)
    asked = {each.truth.name: _asked(design, each) for each in chosen}
    goals = [each for each in chosen if asked[each.truth.name] is not None]
    around = goals[-1] if goals else chosen[0]
    goal = asked[around.truth.name]
    level = powers.POWER if goal is None else goal[1]
    return Simulation(
        epc=registration.epc, id=registration.id, title=registration.title, lock_sha256=registration.lock_sha256,
        seed=options.seed, experiments=options.experiments, resamples=options.resamples, truths=outcomes,
        power=tuple(powers.curves(simulator, deriver, around, level)),
        needed=tuple(_needed(simulator, deriver, goals, asked)),
        assumptions=tuple(_assumptions(design, simulator, options, known, left_out)),
    )  # fmt: skip


def simulable(registration: Registration) -> tuple[Design, tuple[str, ...]]:
    """The design without the gates that cannot be simulated and never decide, and their names.

    Raises Fault R1703 where one of them decides.
    """
    design = registration.design
    beyond = {analysis.name: analysis.method for analysis in design.analyses if analysis.method in UNSIMULATED}
    left_out = []
    for gate in design.gates:
        read = [atom.analysis for atom in atoms_of(gate) if atom.analysis in beyond]
        if not read:
            continue
        if gate.role in DECIDING or gate.role in ("validity", "switch"):
            raise Fault(
                "R1703", registration.place,
                f"{gate.name} reads {read[0]}, a {beyond[read[0]]}, for which simulated experiments have no rows",
                "the whole decision cannot be simulated without it; a bootstrap over units can be",
            )  # fmt: skip
        left_out.append(gate.name)
    kept = tuple(gate for gate in design.gates if gate.name not in left_out)
    return design.model_copy(update={"gates": kept}), tuple(left_out)


def _chosen(registration: Registration, named: Sequence[Named], wanted: Sequence[str]) -> list[Named]:
    by_name = {each.truth.name: each for each in named}
    for name in wanted:
        if name not in by_name:
            raise Fault(
                "R1702", registration.place, f"there is no truth {name}", f"there are {', '.join(by_name) or 'none'}"
            )  # fmt: skip
    return [each for name, each in by_name.items() if not wanted or name in wanted]


def _asked(design: Design, named: Named) -> tuple[str, float] | None:
    """The verdict of class SUCCESS that a truth should get, and how often; None where it should get another."""
    truth = named.truth
    if truth.expect is not None and class_of(design.verdicts, truth.expect) == "SUCCESS":
        return truth.expect, truth.at_least or powers.POWER
    if named.declared or truth.name not in ("success_threshold", "predicted"):
        return None
    labels = [rule.label for rule in design.verdicts if rule.verdict_class == "SUCCESS"]
    return (labels[0], powers.POWER) if labels else None


def _needed(
    simulator: Simulator, deriver: Deriver, goals: Sequence[Named], asked: Mapping[str, tuple[str, float] | None]
) -> Iterator[Needed]:  # fmt: skip
    for each in goals:
        label_power = asked[each.truth.name]
        if label_power is not None:
            found = powers.needed(simulator, deriver, each, *label_power)
            if found is not None:
                yield found


def _assumptions(
    design: Design, simulator: Simulator, options: Options, known: Known, left_out: Sequence[str]
) -> Iterator[str]:  # fmt: skip
    """What a reader must know of how the experiments were made."""
    if not design.truths:
        yield "The spec declares no truths: these were derived from its gates, and stand at the thresholds."
        if not known.spreads:
            yield (
                f"Units vary with a standard deviation of {UNIT_SD:g} of the scale's range and correlate by {CORRELATION:g}"
                f" between arms; where a unit is a single item, {ITEM_SD:g} and {ITEM_CORRELATION:g}. Declare `truths`, or"
                " give a finished run with --pilot, to replace these."
            )
    if known.spreads:
        yield "Variation of units, correlation and missing rates are those of the pilot run."
    read = read_metrics(design, simulator.wanted)
    wide = [metric.name for metric in design.metrics if metric.name in read and not Scale.of(metric).two_valued]
    if wide:
        yield (
            f"A single score of {' and '.join(wide)} lies at an end of its scale with probability {options.extreme:g},"
            " else at its unit's mean: what a judge's scores vary within a prompt is assumed, not known."
        )
    noisy = [f"{metric.name} {metric.noise:g}" for metric in design.metrics if metric.name in read and metric.noise]
    if noisy:
        yield f"Each trained arm and seed deviates from its mean by the declared noise: {', '.join(noisy)}."
    elif any(condition.phases for condition in design.conditions):
        yield "A truth is that of these checkpoints: no metric declares `noise`, so training seeds do not vary."
    slow = sorted({a.method for a in design.analyses if a.name in simulator.wanted and a.method in SLOW})
    if slow:
        yield f"{' and '.join(slow)}: computed one experiment after another, exactly."
    if left_out:
        yield f"Not simulated, since their methods read more than unit means: {', '.join(left_out)}."
    yield "Masks, adapters, files and records are taken to be sound; metrics are independent of each other given the truth."
