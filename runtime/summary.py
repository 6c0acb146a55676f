"""What `epc decide` prints: the verdict first, then the gates, then where the report is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from epc.compiler.contract.decision import AnalysisSensitivity, Decision, GateResult
from epc.compiler.contract.manifest import VerdictClass
from epc.runtime.report.sections.gates import truth_word
from epc.runtime.stamp import STAMP

COLOURS: Final[dict[VerdictClass, str]] = {
    "SUCCESS": "green",
    "INCONCLUSIVE": "yellow",
    "KILL": "red",
    "OVERRIDE": "magenta",
    "INVALID": "red",
}

SHOWN: Final = 3
"""Units that are named in a line."""


def _observed(gate: GateResult) -> str:
    """Every comparison of a gate with what was observed."""
    parts = []
    for seen in gate.observations:
        value = "unknown" if seen.value is None else f"{seen.value:.4g}"
        parts.append(f"{seen.text}: {value}" + (f" (n={seen.n})" if seen.n is not None else ""))
    return "\n".join(parts)


def sensitivity_lines(decision: Decision) -> Iterator[str]:
    """What a reader must know beside the verdict: confirmatory analyses in full, others where they change it.

    A switch's two variants are told side by side, whatever it binds.
    """
    told = [line for entry in decision.sensitivity for line in _sensitivity(entry)]
    variants = {entry.variant_of: entry.name for entry in decision.analyses if entry.variant == "filtered"}
    results = {entry.name: entry for entry in decision.analyses}
    for analysis, name in variants.items():
        pair = [results[name], results[f"{analysis}.unfiltered"]]
        seen = ", ".join(
            f"{each.variant} {_number(each.statistics.get('delta', each.statistics.get('value')))}" for each in pair
        )
        told.append(f"{analysis}: {seen}")
    if told:
        yield "sensitivity (beside the registered result, never a choice)"
        yield from (f"  {line}" for line in told)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _sensitivity(entry: AnalysisSensitivity) -> Iterator[str]:
    if entry.confirmatory and entry.definitions:
        ps = [
            f"{found.name} {_number(found.p)}" + (" (registered)" if found.registered else "")
            for found in entry.definitions
        ]
        flag = f"; FRAGILE: some are below alpha {entry.alpha:g} and others not" if entry.fragile else ""
        yield f"{entry.analysis}: p {', '.join(ps)}{flag}"
    simulated = entry.monte_carlo
    if entry.confirmatory and simulated is not None:
        note = "" if simulated.excludes_alpha else f", which holds alpha {entry.alpha:g}: draw more"
        yield (
            f"{entry.analysis}: with other draws, p in {_number(simulated.p_low)} to {_number(simulated.p_high)}"
            f" ({simulated.level:.0%} Monte-Carlo interval){note}"
        )
    if entry.confirmatory and entry.minimum_detectable is not None:
        least = entry.minimum_detectable
        yield f"{entry.analysis}: an effect of {_number(least.effect)} is detected with power {least.power:g} at this sd"
    without = entry.leave_one_out
    if without is not None and (entry.confirmatory or without.changing):
        shown = ", ".join(f"{found.unit} ({found.verdict})" for found in without.changing[:SHOWN])
        more = f" and {len(without.changing) - SHOWN} more" if len(without.changing) > SHOWN else ""
        looked = "" if without.n_checked == without.n_units else f" of the {without.n_checked} that move it most"
        changed = f"another verdict without {shown}{more}" if shown else f"no single unit{looked} changes the verdict"
        yield f"{entry.analysis}: without one unit {_number(without.lowest)} to {_number(without.highest)}; {changed}"
    if entry.without_seed and (entry.confirmatory or any(found.changes for found in entry.without_seed)):
        estimates = [found.estimate for found in entry.without_seed if found.estimate is not None]
        moved = any(found.changes for found in entry.without_seed)
        told = "another verdict without some, below" if moved else "no single seed changes the verdict"
        yield (
            f"{entry.analysis}: without one training seed {_number(min(estimates))} to {_number(max(estimates))}; {told}"
        )
    if entry.seeds_unknown_because is not None:
        yield f"{entry.analysis}: not with every training seed alone: {entry.seeds_unknown_because}"
    alike: dict[tuple[str, str], list[str]] = {}
    groups = (entry.filters, entry.weights, entry.seeds, entry.without_seed, entry.missing, entry.definitions)
    for found in (found for group in groups for found in group if found.changes):
        alike.setdefault((_number(found.estimate), found.verdict), []).append(found.name)
    for (estimate, verdict), names in alike.items():
        yield f"{entry.analysis}, {' / '.join(names)}: {estimate}, the verdict would be {verdict}"


def print_summary(console: Console, decision: Decision, files: Mapping[str, Path]) -> None:
    """Print the decision for a person. Every number comes from `decision`."""
    verdict = decision.verdict
    colour = COLOURS[verdict.verdict_class]
    body = Text()
    if decision.mode == "rehearsal":
        body.append(f"{STAMP}: this is not a result", style="bold red")
    else:
        body.append(verdict.label, style=f"bold {colour}")
    if verdict.say:
        body.append(f"  {verdict.say}")
    body.append(f"\n{verdict.because}")
    console.print(Panel(body, title=Text(decision.title), border_style=colour, title_align="left"))
    for deviation in decision.deviations:
        console.print(f"deviation: {deviation.text}", style="bold red", highlight=False, markup=False)
        for change in deviation.changes:
            console.print(f"  {change}", highlight=False, markup=False)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("gate", "role", "", "observed"):
        table.add_column(column)
    for gate in decision.gates:
        if gate.built_in:
            continue
        table.add_row(
            Text(gate.name), gate.role.replace("_", "-"), truth_word(gate)[0], Text(_observed(gate))
        )  # fmt: skip
    console.print(table)
    built_in = [gate for gate in decision.gates if gate.built_in]
    failed = [gate for gate in built_in if gate.truth is not True]
    if built_in:
        console.print(f"built-in checks: {len(built_in) - len(failed)} of {len(built_in)} pass", highlight=False)
    for gate in failed:
        console.print(f"  {gate.name}: {truth_word(gate)[0]} {gate.detail}", style="red", highlight=False, markup=False)
    for line in sensitivity_lines(decision):
        console.print(line, highlight=False, markup=False)
    console.print(
        f"confidence {decision.confidence.label}: {decision.confidence.reason}", highlight=False, markup=False
    )
    for name, path in files.items():
        console.print(f"{name}: {os.path.relpath(path)}", highlight=False, markup=False, soft_wrap=True)
