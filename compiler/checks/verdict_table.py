"""E0901 to W0913: the verdict table decides every outcome, once, and in the right direction.

Why: in the source of the first experiment p < .05 succeeded while delta < 5 killed, so delta = 3 with
p = .01 did both, and delta from 5 to 15 had no verdict at all. A table is proved over the cells that its
thresholds cut, and every finding carries a concrete witness.

Example:
    verdicts:
      - {if: survives, then: SUCCESS}
      - {if: dead, then: KILL}          # both fire at delta = 0.03, p = 0.01

Fix: order rules override, kill, success, otherwise, and end with `otherwise`.
"""

from __future__ import annotations

from typing import Final

from epc.compiler import decision
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment
from epc.compiler.table import FindingKind, analyse

CODES: Final[dict[FindingKind, tuple[str, str]]] = {
    "not_total": ("0901", "end the table with - {otherwise: INCONCLUSIVE}"),
    "ambiguous": ("0902", "make the two rules exclusive, or give them the same verdict"),
    "order_violation": ("0903", "order the rules: override, kill, success, otherwise"),
    "unreachable_rule": ("0904", "delete the rule, or move it up"),
    "constant_gate": ("0905", "a gate that never changes decides nothing: check its threshold"),
    "success_and_kill": ("0906", "say in the rationale that kill wins, or separate the thresholds"),
    "boundary_gap": ("0907", "make one of the two comparisons inclusive"),
    "non_monotone": ("0908", "a better result must never get a worse verdict: check directions and thresholds"),
    "same_quantity_two_thresholds": ("0909", "keep one threshold for this quantity and purpose"),
    "point_rule_at_margin": (
        "0910",
        "read the bound instead (`lower` or `upper`), or say in the rationale why the point estimate",
    ),
    "descriptive_decides": ("0911", "only override, kill, success, guardrail and sanity gates may decide"),
    "undecided_gate": ("0912", "name the gate in a verdict rule, or give it role prediction or descriptive"),
    "manipulation_reads_treatment": ("0913", "contrast arms other than the confirmatory treatment"),
    "too_large": ("0914", "split the table, or use fewer thresholds"),
}


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    whole = experiment.rules_complete and len(experiment.gates) == len(spec.gates) and not experiment.surface.poisoned
    known = all(a.metric in spec.metrics for a in spec.analyses.values())
    if not (whole and known):
        return
    findings = analyse(
        metrics=decision.metrics(experiment), analyses=decision.analyses(experiment), gates=decision.gates(experiment),
        verdicts=decision.verdicts(experiment),
    )  # fmt: skip
    for finding in findings:
        number, help_ = CODES[finding.kind]
        if finding.rules:
            at = experiment.at("verdicts", finding.rules[0])
        elif finding.gates:
            at = experiment.key_at("gates", finding.gates[0])
        else:
            at = experiment.key_at("verdicts")
        notes = [finding.witness] if finding.witness else []
        if finding.severity == "error":
            sink.error(f"E{number}", finding.message, at, help=help_, notes=notes)
        else:
            sink.warning(f"W{number}", finding.message, at, help=help_, notes=notes)
