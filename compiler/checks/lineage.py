"""The plans that a spec cites, compared with it: the consistency check of `lineage:`.

E1411: a cited plan is not there or cannot be read
Why: a comparison with a parent that nobody can open is a sentence, and no check. The source of issue 147 compares
itself with earlier issues and names them by number only, so that nobody who reads it can test what it says of them.
`plan:` is a path relative to the spec, to a spec or to a lock.
Example:
    lineage: [{cites: the pilot, relation: parent, note: the same arms, plan: locks/piolt.lock.yaml}]
    --- locks/pilot.lock.yaml
    conditions: {base: []}
Fix:
    lineage: [{cites: the pilot, relation: context, note: the same arms, plan: locks/pilot.lock.yaml}]
    --- locks/pilot.lock.yaml
    conditions: {base: []}

E1412: something that makes numbers incomparable differs from a cited parent or baseline
Why: for months a lab's adapters were trained with loss on the whole sequence, because an import had vanished and a
fallback was silent; a floor measured with them is a floor of another training regime. A judge, a metric, a test or a
loss mask that differs makes two numbers of the same name two quantities, so it is either what the experiment is about,
which `varies` says, or a reason not to compare.
Example:
    lineage: [{cites: the pilot, relation: baseline, note: the floor, plan: pilot.lock.yaml}]
    --- pilot.lock.yaml
    conditions: {attacked: [attack]}
    train: {attack: {method: lora_sft, train_on: last_assistant_turn}}
Fix:
    lineage: [{cites: the pilot, relation: baseline, note: the floor, plan: pilot.lock.yaml, varies: [loss_mask]}]
    --- pilot.lock.yaml
    conditions: {attacked: [attack]}
    train: {attack: {method: lora_sft, train_on: last_assistant_turn}}

W1413: something else than what is meant to differ differs from a cited parent or baseline
Why: "what changed from the parent experiment, is it one thing?" is what researchers asked for again and again. Other
rows, another dose or fewer seeds do not make a comparison meaningless, but whoever reads it must know; a hash that is
still pending on either side means that nobody does.
Example:
    lineage: [{cites: the pilot, relation: baseline, note: the floor, plan: pilot.lock.yaml}]
    --- pilot.lock.yaml
    conditions: {base: []}
    seeds: [4, 5]
Fix:
    lineage: [{cites: the pilot, relation: context, note: other seeds, plan: pilot.lock.yaml}]
    --- pilot.lock.yaml
    conditions: {base: []}
    seeds: [4, 5]

W1414: more than one variable differs from the parent
Why: when the data and the learning rate of an arm changed together, its change in score has two explanations and the
experiment cannot choose. What follows by arithmetic, such as optimizer steps from rows, is not counted again.
Example:
    lineage: [{cites: the pilot, relation: parent, note: its child, plan: pilot.lock.yaml, varies: [training, capacity]}]
    --- pilot.lock.yaml
    conditions: {attacked: [attack]}
    train: {attack: {learning_rate: 5e-4, lora: {r: 8, alpha: 32}}}
Fix:
    lineage: [{cites: the pilot, relation: parent, note: its child, plan: pilot.lock.yaml, varies: [capacity]}]
    --- pilot.lock.yaml
    conditions: {attacked: [attack]}
    train: {attack: {lora: {r: 8, alpha: 32}}}

W1415: something that is meant to differ from a cited plan does not
Why: `varies` is what the experiment claims to study. Where that part is the same on both sides, the claim is out of
date, or the change never reached the plan: in one lab the YAML said one thing and the run did another.
Example:
    lineage: [{cites: the pilot, relation: parent, note: more seeds, plan: pilot.lock.yaml, varies: [seeds]}]
    --- pilot.lock.yaml
    conditions: {base: []}
    seeds: [1, 2, 3]
Fix:
    lineage: [{cites: the pilot, relation: parent, note: more seeds, plan: pilot.lock.yaml, varies: [seeds]}]
    --- pilot.lock.yaml
    conditions: {base: []}
    seeds: [1]
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from epc.compiler.diagnostics import Diagnostics, did_you_mean
from epc.compiler.resolve import Experiment, resolve
from epc.compiler.source import entries, is_file, is_folder
from epc.compiler.spec import Citation
from epc.compiler.surface import load

if TYPE_CHECKING:
    from epc.compiler.comparison import Consistency, GroupResult, Registration

COMPARED: Final = ("parent", "baseline")
"""Relations that speak of comparable numbers; for the others a plan is only looked up."""
MAX_NOTES: Final = 8


def check(experiment: Experiment, sink: Diagnostics) -> None:
    for index, citation in enumerate(experiment.spec.lineage):
        if citation.plan is not None:
            _cited(experiment, sink, index, citation, citation.plan)


def _cited(experiment: Experiment, sink: Diagnostics, index: int, citation: Citation, plan: str) -> None:
    from epc.compiler.comparison import Registration, compare

    found = _read(experiment, plan)
    if isinstance(found, tuple):
        message, remedy = found
        sink.error("E1411", message, experiment.at("lineage", index, "plan"), help=remedy)
        return
    # where an entry is left out for its shape, what is missing would look like a difference
    if citation.relation in COMPARED and not experiment.surface.poisoned:
        own = Registration.of_experiment(experiment, experiment.surface.document.file)
        _report(experiment, sink, index, citation, compare(found, own, varies=citation.varies))


def _read(experiment: Experiment, plan: str) -> Registration | tuple[str, str]:
    """The cited registration, or (what is wrong, what to do). Its own lineage is not followed."""
    from epc.compiler.comparison import Registration, Unreadable, read_lock

    path, shown = experiment.surface.folder / plan, experiment.surface.shown(plan)
    if Path(plan).is_absolute():
        return f"absolute path: {plan}", "paths are relative to the spec, so that they mean the same elsewhere"
    if is_folder(path):
        return f"{shown} is a folder", f"name the lock in it: {plan.rstrip('/')}/spec.lock.yaml"
    if not is_file(path):
        if not is_folder(path.parent):
            return f"the cited plan is not there: {shown}", f"the folder {Path(shown).parent.as_posix()} does not exist"
        names = [entry.name for entry in entries(path.parent) if entry.suffix in (".yaml", ".yml")]
        return f"the cited plan is not there: {shown}", did_you_mean(path.name, names)
    if path.name.endswith(".lock.yaml"):
        lock = read_lock(path, shown, texts=True)
        if isinstance(lock, Unreadable):
            return f"{shown} is not the lock of a plan: {lock.reason}", "name a spec.lock.yaml that epc compile wrote"
        return lock.registration
    aside = Diagnostics()
    surface = load(path, shown, aside)
    parent = None if surface is None else resolve(surface, aside)
    if parent is None or aside.errors:
        first = next(item for item in aside if item.severity == "error")
        return (
            f"{shown} is no plan that can be compared: {first.code}, {first.message}",
            f"see `epc check {shown}`, or cite the lock that it was compiled to",
        )
    return Registration.of_experiment(parent, shown)


def _report(experiment: Experiment, sink: Diagnostics, index: int, citation: Citation, found: Consistency) -> None:
    at = experiment.at("lineage", index, "plan")
    cited = f"{found.before} is cited as {citation.relation}"
    for result in found.groups:
        if result.status == "BLOCK":
            sink.error(
                "E1412", f"{cited} and is not comparable in {result.title}: {result.reason}", at,
                help=_remedy(result), notes=_notes(result),
            )  # fmt: skip
        elif result.status == "WARN" and result.decisive and not result.is_unknown:
            sink.warning(
                "W1413", f"{cited} and differs in {result.title}: {result.reason}", at, help=_remedy(result), notes=_notes(result),
            )  # fmt: skip
    unknown = [result for result in found.groups if result.is_unknown]
    if unknown:
        sink.warning(
            "W1413", f"{cited}, and nobody knows whether it differs in {', '.join(result.title for result in unknown)}", at,
            help="freeze what is pending, or cite a lock that states it; what is meant to differ belongs in `varies`",
            notes=[line for result in unknown for line in _notes(result)][:MAX_NOTES],
        )  # fmt: skip
    if citation.relation == "parent" and len(found.variables) > 1:
        sink.warning(
            "W1414", f"more than one variable differs from {found.before}: {found.one_variable}", at,
            help="change one at a time, or add the arms that tell them apart",
            notes=[line for name in found.variables for line in _notes(found.group(name))][:MAX_NOTES],
        )  # fmt: skip
    for position, name in enumerate(citation.varies):
        if not found.group(name).differences:
            sink.warning(
                "W1415", f"{found.group(name).title} is meant to differ from {found.before}, and is the same",
                experiment.at("lineage", index, "varies", position),
                help=f"delete `{name}` from `varies`, or make the change that it speaks of",
            )  # fmt: skip


def _remedy(result: GroupResult) -> str:
    if result.group == "arms":
        return "give another arm another name, or make it the same"
    return f"make it the same, or write `varies: [{result.group}]` where that is what this experiment is about"


def _notes(result: GroupResult) -> list[str]:
    lines = [difference.line for difference in result.decisive or result.differences]
    more = [f"and {len(lines) - MAX_NOTES} more"] if len(lines) > MAX_NOTES else []
    return lines[:MAX_NOTES] + more
