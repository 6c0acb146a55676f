"""What the verdict would be with other numbers for one analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from epc.compiler.contract.decision import AnalysisResult
from epc.compiler.contract.logic import Atom, Truth, compare, leaves
from epc.compiler.contract.manifest import Design
from epc.runtime.gates import Evaluated
from epc.runtime.missingness import CORNER_GATE
from epc.runtime.rejections import decided
from epc.runtime.switches import Evaluation, evaluate_design
from epc.runtime.verdict import label_of

Statistics = Mapping[str, float | None]


class Replaced:
    """The verdict table, read again and again; equal truths of all comparisons are read once."""

    def __init__(
        self, design: Design, computed: Sequence[AnalysisResult], evaluation: Evaluation, built_in: Sequence[Evaluated]
    ) -> None:
        self._design, self._computed, self._built_in = design, computed, tuple(built_in)
        self._printed = evaluation.results
        self._adjusts = bool(design.families) or design.interim is not None
        self._atoms: dict[str, list[Atom]] = {}
        for gate in design.gates:
            for leaf in leaves(gate.predicate):
                if isinstance(leaf, Atom):
                    self._atoms.setdefault(leaf.analysis, []).append(leaf)
        self._found: dict[tuple[str, tuple[Truth, ...], float | None, bool], str] = {}

    def verdict(self, name: str, statistics: Statistics, *, corner_gate: bool = True) -> str:
        """The label with `statistics` for the computed analysis (or variant) `name`.

        `corner_gate` False leaves out the gate that compares the extremes of the missing scores.
        """
        atoms = self._atoms.get(_analysis(name), [])
        truths = tuple(compare(statistics.get(a.statistic), a.operator, a.constant) for a in atoms)
        p = statistics.get("p") if self._adjusts else None  # then `reject` is made from it, of others too
        key = (name, truths, p, corner_gate)
        if key not in self._found:
            self._found[key] = self._label(name, statistics, corner_gate)
        return self._found[key]

    def reject(self, name: str, statistics: Statistics) -> bool | None:
        """What `statistics` say of the computed analysis `name`, its family and planned looks included."""
        found = statistics.get("reject")
        if self._adjusts:
            analysis = _analysis(name)
            replaced = self._printed[analysis].model_copy(update={"statistics": dict(statistics)})
            found = decided(self._design, {**self._printed, analysis: replaced})[analysis].statistics.get("reject")
        return None if found is None else bool(found)

    def _label(self, name: str, statistics: Statistics, corner_gate: bool) -> str:
        results = [
            result.model_copy(update={"statistics": dict(statistics)}) if result.name == name else result
            for result in self._computed
        ]
        built_in = [gate for gate in self._built_in if corner_gate or gate.name != CORNER_GATE]
        return label_of(self._design.verdicts, evaluate_design(self._design, results).after(built_in).readings)


def _analysis(name: str) -> str:
    """The analysis of which `name` may be a variant."""
    return name.removesuffix(".filtered").removesuffix(".unfiltered")
