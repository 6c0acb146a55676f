"""Exact static analysis of a decision: what the verdict table does for every result that can occur.

Thresholds cut each statistic's axis into points and open intervals; verdicts are constant on each
combination of them, so enumerating the combinations that the methods' facts allow proves what holds
and gives a witness for what does not. Nothing is sampled, and nothing is approximated: a table with too many
combinations goes to a solver, and where there is none, or it gives up, is reported as not proved.

    facts       what each method guarantees about its statistics
    cells       the combinations that can occur, and where a predicate holds
    declared    findings read off roles and thresholds
    verdicts    what is asked of a table, and the words for what is found
    enumerated  the answers, from every combination
    solver      the answers, from z3
    proof       which of the two is asked
"""

from __future__ import annotations

from collections.abc import Sequence

from epc.compiler.contract.manifest import Analysis, Gate, Metric, VerdictRule
from epc.compiler.table.declared import declared_findings
from epc.compiler.table.finding import Finding, FindingKind
from epc.compiler.table.proof import proved_findings

__all__ = ["Finding", "FindingKind", "analyse"]


def analyse(
    *,
    metrics: Sequence[Metric],
    analyses: Sequence[Analysis],
    gates: Sequence[Gate],
    verdicts: Sequence[VerdictRule],
) -> tuple[Finding, ...]:
    """Everything wrong or doubtful about a decision, errors first.

    Gate truth is true or false here; unknown gates are the runtime's, by the one rule for unknowns.
    Validity gates are taken as passed, since without them the verdict is INVALID before the table.
    A design that names an analysis, statistic or gate that is not there is left to name resolution:
    only what can be read without it is reported.
    """
    by_name = {analysis.name: analysis for analysis in analyses}
    found = [
        *declared_findings(by_name, gates, verdicts),
        *proved_findings({metric.name: metric for metric in metrics}, by_name, gates, verdicts),
    ]
    return tuple(sorted(found, key=lambda finding: finding.severity))
