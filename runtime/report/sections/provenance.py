"""What was registered and what became of it: deviations, accepted warnings, card, hashes, commands."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, assert_never

from epc.compiler.contract.decision import Decision, Deviation
from epc.compiler.contract.manifest import Manifest
from epc.compiler.contract.rehearsal import FOLDER
from epc.runtime.report import numbers
from epc.runtime.report.material import Registered
from epc.runtime.report.text import one_line

if TYPE_CHECKING:
    from epc.compiler.contract.simulation import Simulation

_SHA256 = re.compile("[0-9a-f]{64}")
LONGEST_FACT = 400
"""Characters of a recorded fact; decision.json holds all of it."""


@dataclass(frozen=True, kw_only=True)
class StepView:
    id: str
    label: str
    seconds: str
    key: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class DeviationView:
    heading: str
    text: str
    changes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AllowanceView:
    code: str
    at: str
    """Where in the spec, empty for anywhere."""
    reason: str


IN_DOUBT: Final = ("spec_changed_after_results", "unregistered", "results_changed", "labels_changed")
"""Kinds of deviation after which a reader may doubt that the gates were there before the results."""


def deviation_view(deviation: Deviation) -> DeviationView:
    match deviation.kind:
        case "spec_changed_after_results":
            heading = "The spec changed after results existed"
        case "amended":
            heading = "The registration was amended"
        case "unregistered":
            heading = "Not registered before results existed"
        case "library_changed":
            heading = "Steps ran with different library versions"
        case "results_changed":
            heading = "Results from elsewhere changed after a decision"
        case "labels_changed":
            heading = "Human labels changed after a decision"
        case _:
            assert_never(deviation.kind)
    return DeviationView(
        heading=heading, text=one_line(deviation.text), changes=tuple(one_line(change) for change in deviation.changes)
    )


def puts_registration_in_doubt(decision: Decision) -> bool:
    return any(deviation.kind in IN_DOUBT for deviation in decision.deviations)


def allowance_views(registered: Registered | None) -> tuple[AllowanceView, ...]:
    if registered is None:
        return ()
    return tuple(
        AllowanceView(
            code=one_line(allowed.code),
            at=one_line(allowed.at or ""),
            reason=one_line(allowed.reason),
        )
        for allowed in registered.allowed
    )


def no_allowance(registered: Registered | None) -> str:
    """What is said where no accepted warning is listed."""
    if registered is None:
        return numbers.unknown("spec.lock.yaml is not there, or is not the registration that was decided")
    return "The registration accepts no warning."


def hashes(decision: Decision) -> tuple[tuple[str, str], ...]:
    return (
        ("Registration: SHA-256 of spec.lock.yaml", decision.lock_sha256),
        ("Spec: SHA-256 of the file", decision.spec_sha256),
        ("Rows: SHA-256 over all measurement rows, sorted", decision.rows_sha256),
    )


def card(decision: Decision) -> tuple[tuple[str, str], ...]:
    """The card without what has its own table: hashes, and libraries, which stand in one line.

    Sorted, so that a decision read back from decision.json gives the same report.
    """
    known = {value for _, value in hashes(decision)}
    used: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for step in decision.steps:
        for library, version in step.versions.items():
            used[library][version].append(step.id)
    kept = {name: value for name, value in decision.card.items() if value not in known and not (name in used and value)}
    lines = [(one_line(name), one_line(value) or numbers.unknown(None)) for name, value in sorted(kept.items())]
    if not used and "libraries" in kept:
        return tuple(lines)
    libraries = [f"{library} {_versions(versions)}" for library, versions in sorted(used.items())]
    return (*lines, ("libraries", one_line(", ".join(libraries)) or numbers.unknown("no step has finished")))


def _versions(versions: Mapping[str, Sequence[str]]) -> str:
    """One version, or each with the steps that had it."""
    if len(versions) == 1:
        return next(iter(versions))
    return " and ".join(f"{version} (in {', '.join(steps)})" for version, steps in sorted(versions.items()))


def step_views(decision: Decision, manifest: Manifest) -> tuple[StepView, ...]:
    labels = {step.id: step.label for step in manifest.steps}
    judging = {step.id for step in manifest.steps if step.kind == "judge"}
    return tuple(
        StepView(
            id=one_line(step.id),
            label=one_line(labels.get(step.id, "")),
            seconds=numbers.seconds(step.seconds),
            key=one_line(step.key),
            facts=tuple(
                (one_line(name), fact(value))
                for name, value in sorted(step.facts.items())
                if not (name == "outcomes" and step.id in judging)  # has a table of its own
            ),
        )
        for step in decision.steps
    )


def steps_total(decision: Decision) -> str:
    return f"{numbers.seconds(sum(step.seconds for step in decision.steps))} of step time"


def no_steps(manifest: Manifest) -> str:
    """What is said where no step is listed."""
    if not manifest.steps:
        return "The experiment has no step of its own: it decides on results from elsewhere."
    return numbers.unknown("no finished step is recorded")


def fact(value: Any) -> str:
    """What a step recorded, as text: records as `name value` pairs, hashes by their first digits."""
    match value:
        # Not as patterns: `{}` matches every mapping.
        case None | str() | list() | dict() if not value:
            return "none"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:.4g}".replace("-", numbers.MINUS)
        case dict():
            text = ", ".join(f"{one_line(str(name))} {fact(inner)}" for name, inner in value.items())
        case list():
            text = ("; " if any(isinstance(inner, dict) for inner in value) else ", ").join(map(fact, value))
        case _:
            text = one_line(str(value))
            if _SHA256.fullmatch(text):
                return text[:12] + "…"
    return text if len(text) <= LONGEST_FACT else text[: LONGEST_FACT - 1] + "…"


def commands(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    rehearsed = manifest.mode == "rehearsal"
    bundle = f"{FOLDER if rehearsed else 'generated'}/{one_line(manifest.id)}"
    spec = one_line(manifest.spec)
    run = "epc run --rehearse" if rehearsed else "epc run"
    runs = (
        ("What would run again, and why", f"{run} --plan {bundle}"),
        ("Run what is missing", f"{run} {bundle}"),
    )  # fmt: skip
    return (
        ("Compute everything again from what is stored, and name what differs", f"epc verify {bundle}"),
        *(() if rehearsed else (("The bundle is what the spec compiles to", f"epc compile --check {spec}"),)),
        ("The registration's identity", f"sha256sum {bundle}/spec.lock.yaml"),
        *(runs if manifest.steps else ()),
        ("Decide again: decision.json and this report come out byte for byte the same", f"epc decide {bundle}"),
    )


def no_characteristics(decision: Decision, simulation: Simulation | None) -> str:
    """Why none are shown, empty where they are."""
    if simulation is None:
        return f"Not simulated: epc simulate generated/{one_line(decision.id)} computes what these rules decide under assumed truths."
    if simulation.lock_sha256 != decision.lock_sha256:
        return (
            f"Not shown: report/simulation.json is of registration {simulation.lock_sha256[:12]}, and this decision of "
            f"{decision.lock_sha256[:12]}. epc simulate generated/{one_line(decision.id)} simulates this one."
        )
    return ""
