"""What `epc decide` prints: the verdict first, then the gates, then where the report is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from epc.compiler.contract.decision import Decision, GateResult
from epc.compiler.contract.manifest import VerdictClass
from epc.runtime.report.view import truth_word

COLOURS: Final[dict[VerdictClass, str]] = {
    "SUCCESS": "green",
    "INCONCLUSIVE": "yellow",
    "KILL": "red",
    "OVERRIDE": "magenta",
    "INVALID": "red",
}


def _observed(gate: GateResult) -> str:
    """Every comparison of a gate with what was observed."""
    parts = []
    for seen in gate.observations:
        value = "unknown" if seen.value is None else f"{seen.value:.4g}"
        parts.append(f"{seen.text}: {value}" + (f" (n={seen.n})" if seen.n is not None else ""))
    return "\n".join(parts)


def print_summary(console: Console, decision: Decision, files: Mapping[str, Path]) -> None:
    """Print the decision for a person. Every number comes from `decision`."""
    verdict = decision.verdict
    colour = COLOURS[verdict.verdict_class]
    body = Text()
    if decision.mode == "rehearsal":
        body.append("REHEARSAL: this is not a result\n", style="bold red")
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
    console.print(
        f"confidence {decision.confidence.label}: {decision.confidence.reason}", highlight=False, markup=False
    )
    for name, path in files.items():
        console.print(f"{name}: {os.path.relpath(path)}", highlight=False, markup=False, soft_wrap=True)
