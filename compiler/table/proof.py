"""Findings about what the table does, proved for every result that can occur."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from epc.compiler.contract.logic import Predicate
from epc.compiler.contract.manifest import Analysis, Gate, Metric, VerdictRule
from epc.compiler.predicate import number_text
from epc.compiler.table.cells import BUDGET, TooLarge, quantity_of, space
from epc.compiler.table.declared import atoms, named
from epc.compiler.table.enumerated import EnumeratedTable
from epc.compiler.table.facts import Range, facts
from epc.compiler.table.finding import Finding
from epc.compiler.table.verdicts import Table, never_together

if TYPE_CHECKING:
    from epc.compiler.table.solver import SolvedTable

Answer = TypeVar("Answer")

FEW: Final = 1_000_000
"""Cells that are enumerated in less time than the solver takes."""
SOLVER: Final = 1
"""Which of the provers says what the limit was: how to get the solver, or that it gave up."""


def proved_findings(
    metrics: Mapping[str, Metric],
    analyses: Mapping[str, Analysis],
    gates: Sequence[Gate],
    verdicts: Sequence[VerdictRule],
) -> Iterator[Finding]:
    """Constant gates, then the table. Nothing where a name is not resolved."""
    by_name = {gate.name: gate for gate in gates}
    if not _resolved(metrics, analyses, by_name, verdicts):
        return
    design = _Design(metrics=metrics, analyses=analyses, gates=by_name)
    constant: dict[str, bool] = {}
    for gate in gates:
        try:
            values = design.values(gate)
        except TooLarge as limit:
            yield _too_large(f"gate {gate.name}", limit)
            return
        if len(values) == 1:
            constant[gate.name] = True in values
            yield _constant(gate, analyses, metrics, always=True in values)
    deciding = list(dict.fromkeys(name for rule in verdicts for name in named(rule)))
    validity = [gate.name for gate in gates if gate.role == "validity" and constant.get(gate.name) is not False]
    # A validity gate on quantities that no rule reads leaves them independent: it cannot exclude a verdict.
    conditions = design.touching(deciding, validity)
    apart = [name for name in validity if name not in conditions]
    while apart:
        together = design.touching(apart[:1], apart)
        apart = [name for name in apart if name not in together]
        try:
            if len(together) > 1 and not design.ask(Table.possible, together, conditions=together):
                yield never_together(together)
        except TooLarge as limit:
            yield _too_large(f"what the validity gates {' and '.join(together)} demand together", limit)
    yield from design.findings(verdicts, conditions, constant)


class _Design:
    """What the questions about a design share."""

    def __init__(
        self, *, metrics: Mapping[str, Metric], analyses: Mapping[str, Analysis], gates: Mapping[str, Gate]
    ) -> None:
        self.metrics = metrics
        self.analyses = analyses
        self.gates = gates

    def values(self, gate: Gate) -> Collection[bool]:
        """The truths that a gate takes by itself. Raises TooLarge."""
        return self.ask(lambda table: table.gate_values(gate.name), [gate.name])

    def ask(
        self, question: Callable[[Table], Answer], names: Sequence[str], *, conditions: Sequence[str] = ()
    ) -> Answer:
        """The answer of the first prover that has one, about gates without a table. Raises TooLarge."""
        limits: list[TooLarge] = []
        for prover in self._provers:
            try:
                return question(prover(names, conditions, ()))
            except TooLarge as limit:
                limits.append(limit)
        raise limits[SOLVER]

    def touching(self, deciding: Sequence[str], validity: Sequence[str]) -> list[str]:
        """Validity gates on quantities that the deciding gates read, or that such a gate reads beside them."""
        reads = {
            name: {quantity_of(self.analyses[atom.analysis]) for atom in atoms(self.gates[name].predicate)}
            for name in (*deciding, *validity)
        }
        read = {quantity for name in deciding for quantity in reads[name]}
        found: set[str] = set()
        while more := {name for name in validity if name not in found and read & reads[name]}:
            found |= more
            read |= {quantity for name in more for quantity in reads[name]}
        return [name for name in validity if name in found]

    def findings(
        self, verdicts: Sequence[VerdictRule], conditions: Sequence[str], constant: Mapping[str, bool]
    ) -> Iterator[Finding]:
        """Findings of a table whose results pass the validity gates `conditions`."""
        deciding = dict.fromkeys(name for rule in verdicts for name in named(rule))
        names = list(dict.fromkeys((*deciding, *conditions)))
        whole: list[Finding] | None = None
        so_far: list[Finding] = []
        limits: list[TooLarge] = []
        for prover in self._provers:
            found: list[Finding] = []
            try:
                for finding in prover(names, conditions, verdicts).findings(constant):
                    found.append(finding)  # kept where a later question is too much
            except TooLarge as limit:
                limits.append(limit)
                so_far = max(so_far, found, key=len)
                continue
            if not any(finding.kind == "too_large" for finding in found):
                yield from found
                return
            whole = whole or found
        yield from whole or [*so_far, _too_large("this table", limits[SOLVER])]

    @property
    def _provers(self) -> Sequence[Callable[[Sequence[str], Sequence[str], Sequence[VerdictRule]], Table]]:
        """What is tried in turn."""
        return (partial(self._enumerated, FEW), self._solved, partial(self._enumerated, BUDGET))

    def _enumerated(
        self, budget: int, names: Sequence[str], conditions: Sequence[str], verdicts: Sequence[VerdictRule]
    ) -> EnumeratedTable:
        return EnumeratedTable(
            space=space(self._predicates(names), self.analyses, self.metrics, budget),
            analyses=self.analyses,
            metrics=self.metrics,
            gates=self.gates,
            conditions=conditions,
            verdicts=verdicts,
        )

    def _predicates(self, names: Sequence[str]) -> dict[str, Predicate]:
        return {name: self.gates[name].predicate for name in names}

    def _solved(self, names: Sequence[str], conditions: Sequence[str], verdicts: Sequence[VerdictRule]) -> SolvedTable:
        """Raises TooLarge when the solver is not installed."""
        try:
            from epc.compiler.table.solver import SolvedTable
        except ModuleNotFoundError as missing:
            if missing.name != "z3":
                raise
            raise TooLarge from None
        return SolvedTable(
            predicates=self._predicates(names),
            analyses=self.analyses,
            metrics=self.metrics,
            gates=self.gates,
            conditions=conditions,
            verdicts=verdicts,
        )


def _resolved(
    metrics: Mapping[str, Metric],
    analyses: Mapping[str, Analysis],
    gates: Mapping[str, Gate],
    verdicts: Sequence[VerdictRule],
) -> bool:
    bounds = {"lower", "upper", "ci_low", "ci_high"}
    for gate in gates.values():
        found = atoms(gate.predicate)
        for atom in found:
            analysis = analyses.get(atom.analysis)
            if analysis is None or analysis.metric not in metrics:
                return False
            known = bounds | ({"value"} if analysis.contrast is None else {"delta", "p", "reject"})
            if atom.statistic not in known:
                return False
        if not found:
            return False
    return all(name in gates for rule in verdicts for name in named(rule))


def _too_large(what: str, limit: TooLarge) -> Finding:
    return Finding(kind="too_large", severity="warning", message=f"{what} {limit.fact}", help=limit.remedy)


def _constant(gate: Gate, analyses: Mapping[str, Analysis], metrics: Mapping[str, Metric], *, always: bool) -> Finding:
    ranges: dict[str, str] = {}
    for atom in atoms(gate.predicate):
        analysis = analyses[atom.analysis]
        for fact in facts(analysis, metrics[analysis.metric]):
            if isinstance(fact, Range) and fact.statistic == atom.statistic != "reject":
                name = f"{atom.analysis}.{atom.statistic}"
                ranges[name] = f"{name} lies in [{number_text(fact.low)}, {number_text(fact.high)}]"
    fact_text = "every result that can occur meets it" if always else "no result that can occur meets it"
    return Finding(
        kind="constant_gate",
        severity="error",
        message=f"gate {gate.name} is always {str(always).lower()}: {fact_text}",
        witness=", ".join(ranges.values()),
        gates=(gate.name,),
    )
