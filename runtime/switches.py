"""Switches: which scores an analysis reads, and every gate under each answer.

A switch governs one analysis of a filtered metric. Where its predicate is true the analysis is computed
on unfiltered scores, where it is false on filtered ones. Both variants are always computed. Where the
predicate is unknown, gates and verdict are evaluated under both answers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from epc.compiler.contract.decision import AnalysisResult, Slice
from epc.compiler.contract.logic import Truth
from epc.compiler.contract.manifest import Analysis, Design, Gate
from epc.runtime.gates import Evaluated, evaluate_gate
from epc.runtime.rejections import decided
from epc.runtime.verdict import Reading

VARIANTS: tuple[Slice, Slice] = ("filtered", "unfiltered")


def governed(design: Design) -> dict[str, Gate]:
    """Analysis -> the switch that governs it."""
    return {gate.analysis: gate for gate in design.gates if gate.role == "switch" and gate.analysis is not None}


def variants_of(analysis: Analysis, design: Design) -> tuple[Slice | None, ...]:
    """What has to be computed of an analysis: both variants where a switch governs it."""
    return VARIANTS if analysis.name in governed(design) else (None,)


@dataclass(frozen=True, kw_only=True)
class Binding:
    """One answer of every switch."""

    variants: Mapping[str, Slice]
    """Switch -> the variant that it binds."""
    possible: bool
    """Whether the switches, as observed, may give this answer."""
    results: Mapping[str, AnalysisResult]
    """Every analysis by name, the governed ones as bound."""
    reading: Reading


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The gates of a design, follow-ups excepted, on given results."""

    bindings: tuple[Binding, ...]
    """Every answer, possible or not: the others tell what a switch would flip."""
    results: Mapping[str, AnalysisResult]
    """Every analysis and variant by name, as printed."""
    gates: tuple[Evaluated, ...]
    """True or false only where they are so under every possible answer."""

    @property
    def possible(self) -> list[Binding]:
        return [binding for binding in self.bindings if binding.possible]

    @property
    def readings(self) -> list[Reading]:
        return [binding.reading for binding in self.possible]

    def after(self, built_in: Sequence[Evaluated]) -> Evaluation:
        """The same with gates that do not depend on a switch put before the declared ones."""
        return replace(
            self,
            gates=(*built_in, *self.gates),
            bindings=tuple(
                replace(binding, reading=replace(binding.reading, gates=(*built_in, *binding.reading.gates)))
                for binding in self.bindings
            ),
        )

    def flipped(self, switch: Evaluated) -> list[list[Reading]]:
        """The readings if this switch alone had another truth, one list for each."""
        others: list[Slice] = [variant for variant in VARIANTS if variant != bound(switch.truth)]
        return [
            [
                binding.reading
                for binding in self.bindings
                if binding.variants[switch.name] == other
                and any(_differs_at_most_in(switch.name, binding, seen) for seen in self.possible)
            ]
            for other in others
        ]


def _differs_at_most_in(switch: str, one: Binding, other: Binding) -> bool:
    return all(other.variants[name] == variant for name, variant in one.variants.items() if name != switch)


def bound(truth: Truth) -> Slice | None:
    """The variant that a switch binds, None where it is unknown."""
    return None if truth is None else "unfiltered" if truth else "filtered"


def evaluate_design(design: Design, computed: Sequence[AnalysisResult]) -> Evaluation:
    """Gates on computed analyses, of which governed ones are there as their two variants."""
    plain = {result.name: result for result in computed}
    switches = governed(design)
    ungoverned = decided(design, plain)  # in a family with a governed analysis, what that could change is unknown
    truths = {gate.name: evaluate_gate(gate, ungoverned).truth for gate in switches.values()}

    def evaluated(gate: Gate, *readings: Mapping[str, AnalysisResult]) -> Evaluated:
        """A switch is read before it binds."""
        return evaluate_gate(gate, *([ungoverned] if gate.role == "switch" else readings))

    declared = [gate for gate in design.gates if gate.role != "follow_up"]
    bindings: list[Binding] = []
    for answer in itertools.product(VARIANTS, repeat=len(switches)):
        by_analysis = dict(zip(switches, answer, strict=True))
        bound_here = {
            name: _as_bound(plain[f"{name}.{variant}"], switches[name], truths[switches[name].name])
            for name, variant in by_analysis.items()
        }
        results = decided(design, plain | bound_here)
        variants = {switches[name].name: variant for name, variant in by_analysis.items()}
        bindings.append(
            Binding(
                variants=variants,
                possible=all(bound(truths[name]) in (None, variant) for name, variant in variants.items()),
                results=results,
                reading=Reading(
                    gates=tuple(evaluated(gate, results) for gate in declared),
                    said=" and ".join(f"{name} {variant}" for name, variant in by_analysis.items()),
                ),
            )
        )
    seen = [binding.results for binding in bindings if binding.possible]
    return Evaluation(
        bindings=tuple(bindings),
        results={result.name: result for result in _printed(design, plain, truths, bindings)},
        gates=tuple(evaluated(gate, *seen) for gate in declared),
    )


def _as_bound(variant: AnalysisResult, switch: Gate, truth: Truth) -> AnalysisResult:
    """A variant under the name of its analysis, where the switch settles which; else under its own."""
    if truth is None:
        return variant
    return variant.model_copy(
        update={
            "name": variant.variant_of, "variant_of": None, "variant": None, "bound_to": variant.variant,
            "bound_by": switch.name,
        }
    )  # fmt: skip


def _printed(
    design: Design, plain: Mapping[str, AnalysisResult], truths: Mapping[str, Truth], bindings: Sequence[Binding]
) -> Iterator[AnalysisResult]:
    """Analyses as registered; a governed one is followed by its two variants, which no success gate names."""
    switches = governed(design)
    possible = [binding for binding in bindings if binding.possible]
    for analysis in design.analyses:
        switch = switches.get(analysis.name)
        if switch is None:
            yield _agreed([binding.results[analysis.name] for binding in possible])
            continue
        filtered, unfiltered = (plain[f"{analysis.name}.{variant}"] for variant in VARIANTS)
        truth = truths[switch.name]
        if truth is None:
            yield filtered.model_copy(
                update={
                    "name": analysis.name, "variant_of": None, "variant": None, "bound_by": switch.name,
                    "definition": f"{analysis.method} on filtered or on unfiltered scores",
                    "statistics": dict.fromkeys(filtered.statistics), "per_seed": {}, "mean_treatment": None, "mean_control": None,
                    "sd": None, "skewness": None,
                    "unknown_because": f"the switch {switch.name} is unknown, so it is {filtered.name} or {unfiltered.name}",
                }
            )  # fmt: skip
        else:
            yield _agreed([binding.results[analysis.name] for binding in possible])
        for variant in (filtered, unfiltered):
            found = _agreed(
                [
                    binding.results[analysis.name]
                    for binding in bindings
                    if binding.variants[switch.name] == variant.variant
                    and any(_differs_at_most_in(switch.name, binding, seen) for seen in possible)
                ]
            )
            as_decided = {"statistics", "definition", "family", "p_adjusted", "level"}
            yield variant.model_copy(
                update={"confirmatory": False} | {name: getattr(found, name) for name in as_decided}
            )  # fmt: skip


def _agreed(found: Sequence[AnalysisResult]) -> AnalysisResult:
    """One analysis under several answers of switches that govern others of its family: only `reject` may differ."""
    first = found[0]
    if all((other.statistics, other.p_adjusted) == (first.statistics, first.p_adjusted) for other in found):
        return first
    return first.model_copy(update={"statistics": {**first.statistics, "reject": None}, "p_adjusted": None})
