"""What `epc simulate` prints: verdicts by truth, gates by truth, power, sizes, assumptions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from epc.compiler.contract.manifest import VerdictClass
from epc.compiler.contract.simulation import GateOutcome, Needed, Power, Simulation, TruthOutcome

COLOURS: Final[dict[VerdictClass, str]] = {
    "SUCCESS": "green", "INCONCLUSIVE": "yellow", "KILL": "red", "OVERRIDE": "magenta", "INVALID": "red",
}  # fmt: skip
NEVER: Final = "·"
"""What stands for a share of exactly 0."""


def share(value: float) -> str:
    """`.384`, `1`, or a dot where there is none."""
    if value == 0:
        return NEVER
    text = f"{value:.3f}"
    return "1" if text == "1.000" else text.removeprefix("0")


def print_simulation(console: Console, simulation: Simulation) -> None:
    """Print a simulation for a person."""

    def say(line: str, style: str = "") -> None:
        console.print(line, style=style, highlight=False, markup=False)

    resampled = "" if simulation.resamples is None else f", {simulation.resamples:,} resamples"
    say(f"{simulation.id}: {simulation.title}", "bold")
    say(f"{simulation.experiments:,} experiments under each truth, seed {simulation.seed}{resampled}")
    say("")
    console.print(_verdicts(simulation))
    for line in _warnings(simulation):
        say(line, "red")
    say("")
    say("Share of experiments in which each gate is true, by number of the truth", "bold")
    console.print(_gates(simulation, decisive=False))
    say("")
    say("Decisiveness: share of verdicts that change if the gate, or one comparison of it, is removed", "bold")
    console.print(_gates(simulation, decisive=True))
    for power in simulation.power:
        say("")
        say(mde_text(power), "bold")
        console.print(_power(power))
    for need in simulation.needed:
        say("")
        say(needed_text(need))
    say("")
    for line in simulation.assumptions:
        say(f"- {line}", "dim")


def _verdicts(simulation: Simulation) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("#", justify="right")
    table.add_column("truth")
    shown = [
        place
        for place, verdict in enumerate(simulation.truths[0].verdicts)
        if verdict.label != "INVALID" or any(truth.verdicts[place].share for truth in simulation.truths)
    ]
    for place in shown:
        table.add_column(simulation.truths[0].verdicts[place].label, justify="right")
    table.add_column("of the truth itself")
    table.add_column("expected")
    for number, truth in enumerate(simulation.truths, start=1):
        cells = [
            Text(
                share(truth.verdicts[place].share),
                style=COLOURS[truth.verdicts[place].verdict_class]
                if truth.verdicts[place].label == truth.deserved
                else "",
            )
            for place in shown
        ]
        name = Text(truth.name).append(f"  {truth.describe}", style="dim")
        table.add_row(str(number), name, *cells, truth.deserved, Text(expected_text(truth), style=_met(truth)))
    return table


def _met(truth: TruthOutcome) -> str:
    return "" if truth.met is None else "green" if truth.met else "red"


def expected_text(truth: TruthOutcome) -> str:
    """`SUCCESS .8: .846, met`."""
    if truth.expect is None or truth.expected is None:
        return "nothing declared" if truth.declared else ""
    if truth.at_least is None:
        return f"{truth.expect}: {share(truth.expected)}"
    return f"{truth.expect} {share(truth.at_least)}: {share(truth.expected)}, {'met' if truth.met else 'NOT MET'}"


def _warnings(simulation: Simulation) -> Iterator[str]:
    wrong = [truth for truth in simulation.truths if truth.false_success is not None]
    if wrong:
        worst = max(wrong, key=lambda truth: truth.false_success or 0.0)
        yield f"False success: at most {share(worst.false_success or 0.0)}, under {worst.name}, whose verdict should be {worst.deserved}."
    for truth in simulation.truths:
        for family in truth.families:
            if family.false_rejection is not None:
                yield f"Family {family.name} ({family.method}) under {truth.name}: a false rejection in {share(family.false_rejection)}."


def _gates(simulation: Simulation, *, decisive: bool) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("gate")
    table.add_column("role")
    for number in range(1, len(simulation.truths) + 1):
        table.add_column(str(number), justify="right")
    for place, gate in enumerate(simulation.truths[0].gates):
        columns = [truth.gates[place] for truth in simulation.truths]
        if not decisive:
            table.add_row(Text(gate.name), gate.role.replace("_", "-"), *(_true(column) for column in columns))
            continue
        if gate.decisive is None:
            continue
        table.add_row(Text(gate.name), gate.role.replace("_", "-"), *(share(each.decisive or 0.0) for each in columns))
        for index, part in enumerate(gate.parts):
            name = Text(f"  {part.text}", style="dim")
            table.add_row(name, "", *(share(each.parts[index].decisive) for each in columns), style="dim")
    return table


def _true(gate: GateOutcome) -> str:
    return share(gate.true) + (f" ?{share(gate.unknown)}" if gate.unknown else "")


def mde_text(power: Power) -> str:
    """The minimum detectable effect in a sentence."""
    level = f"{power.analysis}: power against the true effect, all else as in {power.truth}"
    if power.mde is None:
        return f"{level}; {share(power.power)} is not reached up to {power.points[-1].effect:+g}"
    return f"{level}; the minimum detectable effect at {share(power.power)} is {power.mde:+.3g}"


def _power(power: Power) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("true effect", justify="right")
    for point in power.points:
        table.add_column(f"{point.effect:.3g}", justify="right")
    table.add_row("rejects", *(share(point.reject) for point in power.points))
    table.add_row("SUCCESS", *(share(point.success) for point in power.points))
    return table


def needed_text(need: Needed) -> str:
    """How many units, or samples, reach the power."""
    planned = f"{need.planned_units:,} units x {need.planned_samples:,} samples of {need.source}"
    start = f"{need.label} in {share(need.power)} of experiments under {need.truth}: {planned} give {share(need.planned_share)}"
    reached = []
    if need.units is not None and need.units_share is not None:
        reached.append(f"{need.units:,} units ({share(need.units_share)})")
    if need.samples is not None and need.samples_share is not None:
        reached.append(f"{need.samples:,} samples a unit ({share(need.samples_share)})")
    return f"{start}; {' or '.join(reached)} reach it ({need.because})" if reached else f"{start}; {need.because}"
