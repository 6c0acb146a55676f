"""Every comparison, threshold, role and verdict rule of issue 147, changed one at a time: somebody notices.

A mutant is noticed when a check reports something that it does not report of the spec itself, or when the simulated
decision differs under some truth by more than chance: the verdicts, or, for gates that never decide, how often they
are true. Experiments are the same for all mutants, so that a difference is theirs.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from epc.compiler import decision, pipeline
from epc.compiler.contract.chat import build_rows
from epc.compiler.contract.logic import Atom, leaves
from epc.compiler.contract.manifest import Design, Gate, Metric, Truth, TruthOf
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment
from epc.runtime.simulate.experiments import Simulated, Simulator
from epc.runtime.simulate.model import EXTREME, Size
from epc.runtime.simulate.truths import SIZES, Deriver

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = 300
RESAMPLES = 499
HOPED = 15.0
"""Points of alignment that the source hopes for."""
SIGMAS = 3.0
"""Standard errors of a paired difference, beyond which it is not chance."""
COMPARISON = re.compile(r"(?P<left>[a-z_0-9]+\.[a-z_]+) (?P<operator><=|>=|<|>) (?P<constant>-?[0-9.]+)")
ROLES = (
    "validity", "override", "kill", "success", "guardrail", "sanity", "prediction", "descriptive", "follow_up",
)  # fmt: skip
LABELS = ("SUCCESS", "INCONCLUSIVE", "KILL_NULL", "KILL_CAPABILITY", "OVERRIDE_HARM")


@dataclass(frozen=True)
class Mutant:
    what: str
    text: str


def gate_lines(text: str) -> Iterator[tuple[int, str, str]]:
    """(number, gate, line) of every gate of the spec, which has one a line."""
    inside = False
    for number, line in enumerate(text.splitlines()):
        if re.match(r"^\S", line):
            inside = line.startswith("gates:")
        found = re.match(r"^  ([a-z_0-9]+): \{role: ", line)
        if inside and found:
            yield number, found[1], line


def replaced(text: str, number: int, line: str) -> str:
    lines = text.splitlines(keepends=True)
    lines[number] = f"{line}\n" if line else ""
    return "".join(lines)


def comparisons(text: str) -> Iterator[Mutant]:
    """Each comparison the other way round, and with or without its constant; each `reject` negated or left out."""
    for number, gate, line in gate_lines(text):
        for found in COMPARISON.finditer(line):
            for other in ("<", "<=", ">", ">="):
                if other != found["operator"]:
                    start, end = found.span("operator")
                    yield Mutant(
                        f"{gate}: {found[0]} -> {other}", replaced(text, number, line[:start] + other + line[end:])
                    )
        if "headline.reject and " in line:
            yield Mutant(
                f"{gate}: not reject", replaced(text, number, line.replace("headline.reject", "not headline.reject"))
            )
            yield Mutant(f"{gate}: reject left out", replaced(text, number, line.replace("headline.reject and ", "")))


def thresholds(text: str) -> Iterator[Mutant]:
    """Each constant half as large, twice as large, and with the other sign."""
    for number, gate, line in gate_lines(text):
        for found in COMPARISON.finditer(line):
            value = float(found["constant"])
            for other in (value / 2, value * 2, -value):
                start, end = found.span("constant")
                yield Mutant(
                    f"{gate}: {found[0]} -> {other:g}", replaced(text, number, f"{line[:start]}{other:g}{line[end:]}")
                )


def roles(text: str) -> Iterator[Mutant]:
    """Each gate in every other role, its predicate under the key that the role has."""
    for number, gate, line in gate_lines(text):
        role = re.search(r"role: ([a-z_]+)", line)
        assert role is not None
        for other in ROLES:
            if other != role[1]:
                yield Mutant(
                    f"{gate}: {role[1]} -> {other}", replaced(text, number, line.replace(role[0], f"role: {other}", 1))
                )


def rules(text: str) -> Iterator[Mutant]:
    """Each rule left out, negated, with another label, with its operands joined otherwise, left out or moved up."""
    lines = text.splitlines()
    numbers = [number for number, line in enumerate(lines) if re.match(r"^  - \{(if|otherwise): ", line)]
    for place, number in enumerate(numbers):
        line = lines[number]
        label = re.search(r"(then|otherwise): ([A-Z_]+)", line)
        assert label is not None
        for other in LABELS:
            if other != label[2]:
                yield Mutant(
                    f"rule {place + 1}: {label[2]} -> {other}", replaced(text, number, line.replace(label[2], other, 1))
                )
        yield Mutant(f"rule {place + 1} left out", replaced(text, number, ""))
        condition = re.search(r"if: ([^,]+),", line)
        if condition is None:
            continue
        parts = condition[1].split(" and ")
        others = [f"not ({condition[1]})"]
        if len(parts) > 1:
            others += [" or ".join(parts), *(" and ".join(parts[:i] + parts[i + 1 :]) for i in range(len(parts)))]
        for other in others:
            yield Mutant(f"rule {place + 1}: if {other}", replaced(text, number, line.replace(condition[1], other, 1)))
        if place:
            swapped = replaced(text, numbers[place - 1], line)
            yield Mutant(f"rule {place + 1} before rule {place}", replaced(swapped, number, lines[numbers[place - 1]]))


@dataclass(frozen=True)
class Issue147:
    """The spec, compiled once, and its experiments, simulated once."""

    folder: Path

    @cached_property
    def file(self) -> Path:
        return self.folder / "issue147.yaml"

    @cached_property
    def text(self) -> str:
        return self.file.read_text(encoding="utf-8")

    def checked(self, text: str) -> tuple[Experiment | None, Counter[str]]:
        aside = self.folder / "mutant.yaml"
        aside.write_text(text, encoding="utf-8")
        sink = Diagnostics()
        experiment = pipeline.check(aside, "specs/issue147.yaml", sink)
        return experiment, Counter(found.code for found in sink)

    @cached_property
    def codes(self) -> Counter[str]:
        return self.checked(self.text)[1]

    @cached_property
    def design(self) -> Design:
        sink = Diagnostics()
        experiment = pipeline.check(self.file, "specs/issue147.yaml", sink)
        assert experiment is not None
        plan = pipeline.plan(experiment, pipeline.Layout.of(self.file), sink)
        assert plan is not None
        return plan.design

    @cached_property
    def simulator(self) -> Simulator:
        design = self.design
        sizes = {m.name: Size(units=design.units[m.name], samples=design.samples[m.name]) for m in design.metrics}
        return Simulator(design, sizes, seed=147, experiments=EXPERIMENTS, extreme=EXTREME, resamples=RESAMPLES)

    @cached_property
    def truths(self) -> list[Truth]:
        """The standard ones, and for each comparison one in which its statistic lies on the threshold."""
        deriver = Deriver(self.design, self.simulator.sizes)
        found = [each.truth for each in deriver.derived()]
        seen: set[tuple[str, float]] = set()
        for gate in self.design.gates:
            for leaf in leaves(gate.predicate):
                assert isinstance(leaf, Atom)
                if leaf.statistic in SIZES and (leaf.analysis, leaf.constant) not in seen:
                    seen.add((leaf.analysis, leaf.constant))
                    found += [
                        Truth(name=f"{leaf.analysis} at {value:g}", metrics=self._at(deriver, gate, leaf, value))
                        for value in self._values(gate, leaf)
                    ]
        return found

    def _metric(self, leaf: Atom) -> Metric:
        of = next(analysis.metric for analysis in self.design.analyses if analysis.name == leaf.analysis)
        return next(metric for metric in self.design.metrics if metric.name == of)

    def _values(self, gate: Gate, leaf: Atom) -> list[float]:
        """The threshold; for a bound, which lies apart from the true value, a value beyond it too."""
        low, high = self._metric(leaf).scale
        beyond = (0.1 if leaf.constant > 0 else -0.1) * (high - low)
        return [leaf.constant, leaf.constant + beyond] if gate.role == "validity" else [leaf.constant]

    def _at(self, deriver: Deriver, gate: Gate, leaf: Atom, value: float) -> dict[str, TruthOf]:
        base, metric = deriver.baseline(), self._metric(leaf).name
        best = {"headline": HOPED}
        if gate.role == "switch":
            # A filter that leaves out what would have shown that there is no effect.
            dropped = {metric: base[metric].model_copy(update={"means": dict.fromkeys(base[metric].means, 0.4)})}
            return deriver.at(deriver.at({**base, **dropped}, {leaf.analysis: value}), best, twins=False)
        if all(analysis.contrast is None for analysis in self.design.analyses if analysis.name == leaf.analysis):
            rare = {"means": dict.fromkeys(base[metric].means, value), "unit_sd": min(base[metric].unit_sd, value / 2)}
            return {**deriver.at(base, best), metric: base[metric].model_copy(update=rare)}
        # The contrast first, so that the headline keeps its effect where both share an arm.
        return deriver.at(
            deriver.at(base, {leaf.analysis: value}), {**best, leaf.analysis: value} if leaf.analysis in best else best
        )

    @cached_property
    def simulated(self) -> list[Simulated]:
        return [self.simulator.simulate(truth) for truth in self.truths]

    @cached_property
    def labels(self) -> list[NDArray[np.str_]]:
        return [each.labels for each in self.simulated]

    def notices(self, mutant: Mutant) -> str:
        """Who notices a mutant, empty where nobody does."""
        experiment, codes = self.checked(mutant.text)
        new = codes - self.codes
        if new or experiment is None:
            return ", ".join(sorted(new))
        design = self.design.model_copy(
            update={
                "gates": decision.gates(experiment), "verdicts": decision.verdicts(experiment),
                "analyses": decision.analyses(experiment),
            }
        )  # fmt: skip
        simulator = self.simulator.redesigned(design)
        for truth, simulated, labels in zip(self.truths, self.simulated, self.labels, strict=True):
            other = simulator.simulate(truth)
            if differ(labels, other.labels):
                return f"verdicts under {truth.name}"
            for name, before in silent(simulated).items():
                after = silent(other).get(name)
                if after is not None and differ(before, after):
                    return f"how often {name} is true under {truth.name}"
        return ""


def silent(simulated: Simulated) -> dict[str, NDArray[np.str_]]:
    """Truths of the gates that never decide."""
    gates = simulated.panel.design.gates
    read = [gate for gate in gates if gate.role in ("prediction", "descriptive", "follow_up")]
    return {gate.name: simulated.truths(gate).astype(np.str_) for gate in read}


def differ(before: NDArray[np.str_], after: NDArray[np.str_]) -> bool:
    """Whether some share differs by more than chance: McNemar's test of paired experiments, at SIGMAS."""
    changed = before != after
    for label in set(before[changed]) | set(after[changed]):
        lost, gained = np.count_nonzero(before[changed] == label), np.count_nonzero(after[changed] == label)
        if abs(int(gained) - int(lost)) > SIGMAS * (gained + lost) ** 0.5:
            return True
    return False


@pytest.fixture(scope="module")
def issue147(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issue147]:
    """A copy of the specs; the training rows, which no mutant touches, are built once."""
    folder = tmp_path_factory.mktemp("mutants") / "specs"
    shutil.copytree(ROOT / "specs", folder, ignore=shutil.ignore_patterns("external"))
    built: dict[str, Any] = {}

    def once(*args: Any, **more: Any) -> Any:
        key = repr((args, more))
        if key not in built:
            built[key] = build_rows(*args, **more)
        return built[key]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("epc.compiler.resolve.data.build_rows", once)
        yield Issue147(folder)


EQUIVALENT: Mapping[str, str] = {
    "capable: guardrail -> sanity": "the rule for SUCCESS names it, so it blocks SUCCESS as either",
    "coherent: guardrail -> sanity": "the rule for SUCCESS names it, so it blocks SUCCESS as either",
    "rule 3 before rule 2": "rule 3 holds only where rule 2 does not",
    **{
        f"{gate}: prediction -> descriptive": "neither decides; a prediction is printed as HIT or MISS"
        for gate in ("target_reached", "literal_marker", "literal_marker_absent", "semantic_marker", "phase_1_harmless")
    },
}
"""Mutants that decide as the spec does, and why."""
EQUALITY = re.compile(r" (<|<=|>|>=) \S+ -> (<|<=|>|>=)$")


def only_equality(mutant: str) -> bool:
    """Whether a mutant differs only where a statistic is exactly its constant.

    Bounds and means of many scores hardly ever are: in none of the gates in 3% of the experiments. Where it would
    open a gap between kill and success, or make them overlap, a check says so.
    """
    found = EQUALITY.search(mutant)
    return found is not None and found[1][0] == found[2][0]


@pytest.mark.parametrize("mutations", [comparisons, thresholds, roles, rules], ids=lambda each: each.__name__)
def test_every_mutant_is_noticed(issue147: Issue147, mutations: Callable[[str], Iterator[Mutant]]) -> None:
    mutants = list(mutations(issue147.text))
    survivors = {mutant.what for mutant in mutants if not issue147.notices(mutant)}
    unexplained = {what for what in survivors if what not in EQUIVALENT and not only_equality(what)}
    assert unexplained == set()
    assert {what for what in EQUIVALENT if what in {mutant.what for mutant in mutants}} <= survivors


def test_there_are_mutants_of_everything(issue147: Issue147) -> None:
    """The spec is read line by line here: a gate or rule that is written otherwise would go unmutated."""
    gates = [gate for _, gate, _ in gate_lines(issue147.text)]
    assert gates == [gate.name for gate in issue147.design.gates]
    atoms = [leaf for gate in issue147.design.gates for leaf in leaves(gate.predicate) if isinstance(leaf, Atom)]
    sizes = [leaf for leaf in atoms if leaf.statistic in SIZES]
    assert len(list(thresholds(issue147.text))) == 3 * len(sizes)
    assert len(list(comparisons(issue147.text))) == 3 * len(sizes) + 2 * (len(atoms) - len(sizes))
    assert len(list(roles(issue147.text))) == len(gates) * (len(ROLES) - 1) + 1  # nobody else becomes a switch
    assert sum("left out" in mutant.what for mutant in rules(issue147.text)) == len(issue147.design.verdicts)
