"""Where on the axis of a forest plot an estimate, or a bound, has to lie for a gate to hold."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from epc.compiler.contract.logic import Atom, Name, Truth, compare, evaluate, leaves
from epc.compiler.contract.manifest import Gate, Role
from epc.runtime.report import numbers
from epc.runtime.report.figures.axis import Domain, place, position
from epc.runtime.report.text import one_line

Kind = Literal["kill", "success", "required", "equivalence"]
ON_AXIS = frozenset({"delta", "value", "lower", "upper", "ci_low", "ci_high"})
"""Statistics that lie on the axis; p and reject do not."""
KINDS: dict[Role, Kind] = {
    "kill": "kill", "override": "kill", "success": "success", "guardrail": "required", "validity": "required",
    "sanity": "required",
}  # fmt: skip
NAMES: dict[Kind, str] = {
    "kill": "a kill or an override fires", "success": "a success gate can hold",
    "required": "a guardrail, validity or sanity gate can hold", "equivalence": "within the equivalence margin",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Region:
    kind: Kind
    x: float
    width: float
    """Percent of the axis."""
    title: str


def regions(analysis: str, gates: Sequence[Gate], domain: Domain, margin: float | None = None) -> tuple[Region, ...]:
    """Parts of the axis in which a gate can be true, for every gate that has a threshold on it and a region.

    What else the gate reads is taken as it suits. A gate that holds everywhere on the axis has no region. `margin` is
    that of an equivalence test.
    """
    found = [region for gate in gates for region in _of_gate(analysis, gate, domain)]
    if margin is not None:
        title = f"equivalence: both bounds within ±{numbers.compact(margin)}"
        found += _clipped("equivalence", -margin, margin, domain, title)
    return tuple(found)


def _of_gate(analysis: str, gate: Gate, domain: Domain) -> Iterator[Region]:
    kind = KINDS.get(gate.role)
    atoms = [
        leaf
        for leaf in leaves(gate.predicate)
        if isinstance(leaf, Atom) and leaf.analysis == analysis and leaf.statistic in ON_AXIS
    ]
    if kind is None or not atoms:
        return
    cuts = sorted({atom.constant for atom in atoms})
    ends = [min(domain[0], cuts[0]) - 1, *cuts, max(domain[1], cuts[-1]) + 1]
    pieces = list(itertools.pairwise(ends))
    possible = [_possible(gate, atoms, (low + high) / 2) for low, high in pieces]
    if all(possible):
        return
    title = f"{gate.role} gate {one_line(gate.name)}: {one_line(gate.text)}"
    start: float | None = None
    for (low, high), inside, after in zip(pieces, possible, [*possible[1:], False], strict=True):
        start = low if inside and start is None else start
        if inside and not after and start is not None:
            yield from _clipped(kind, start, high, domain, title)
            start = None


def _possible(gate: Gate, atoms: Sequence[Atom], x: float) -> bool:
    def leaf(node: Atom | Name) -> Truth:
        return compare(x, node.operator, node.constant) if isinstance(node, Atom) and node in atoms else None

    return evaluate(gate.predicate, leaf) is not False


def _clipped(kind: Kind, low: float, high: float, domain: Domain, title: str) -> Iterator[Region]:
    low, high = max(low, domain[0]), min(high, domain[1])
    if low < high:
        start = position(low, domain)
        yield Region(kind=kind, x=start, width=place(position(high, domain) - start), title=title)
