"""What the analysis of a verdict table can report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FindingKind = Literal[
    "descriptive_decides",
    "undecided_gate",
    "manipulation_reads_treatment",
    "class_against_role",
    "constant_gate",
    "not_total",
    "ambiguous",
    "success_and_kill",
    "order_violation",
    "unreachable_rule",
    "non_monotone",
    "boundary_gap",
    "same_quantity_two_thresholds",
    "point_rule_at_margin",
    "too_large",
]


@dataclass(frozen=True, kw_only=True)
class Finding:
    kind: FindingKind
    severity: Literal["error", "warning"]
    message: str
    witness: str = ""
    """An observable result that shows it, such as `headline.delta = 0.1, headline.p = 0.01: ...`."""
    rules: tuple[int, ...] = ()
    """Rows of the table, counted from 0, the one to point at first."""
    gates: tuple[str, ...] = ()
    help: str = ""
    """What to do, where that differs from one finding of the kind to another."""
