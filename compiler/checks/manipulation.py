"""Whether anything shows that what both arms went through has happened.

W0829: no manipulation check
Why: the source document of issue 147 asks whether a reflex survives an insecure-code fine-tune, and nothing in it
tests that this fine-tune lowered alignment in the arm without the reflex. In one lab the attack did not take, and
the null was read as a defence. Where both arms of the test end with the same phase, a validity gate shows that the
phase worked, on arms other than the treated one.
Example:
    gates: {attack_took: null}
Fix:
    gates: {attack_took: {role: validity, require: attack_effect.upper < -5}}
"""

from __future__ import annotations

from epc.compiler.contract.logic import Atom, leaves
from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.resolve import Experiment, arms


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    validity = {name for name, gate in spec.gates.items() if gate.role == "validity"}
    if experiment.surface.lacks("gates", "analyses") or validity - experiment.gates.keys():
        return  # what could not be read may be the check
    checked = _checked(experiment)
    reported: set[tuple[str, ...]] = set()
    for gate, parsed in experiment.gates.items():
        if spec.gates[gate].role != "success" or parsed.predicate is None:
            continue
        for name in dict.fromkeys(leaf.analysis for leaf in leaves(parsed.predicate) if isinstance(leaf, Atom)):
            pair = arms(spec.analyses[name])
            if len(pair) != 2 or not all(arm in spec.conditions for arm in pair):
                continue
            shared = _shared(spec.phases(pair[0]), spec.phases(pair[1]))
            if not shared or checked & set(shared) or pair in reported:
                continue
            reported.add(pair)
            _report(experiment, sink, gate, name, shared)


def _shared(treatment: list[str], control: list[str]) -> list[str]:
    """Phases with which both end; none where they train alike and differ in something else."""
    if treatment == control:
        return []
    count = 0
    while count < min(len(treatment), len(control)) and treatment[-1 - count] == control[-1 - count]:
        count += 1
    return treatment[len(treatment) - count :]


def _checked(experiment: Experiment) -> set[str]:
    """Phases whose work a validity gate looks at: the level of an arm that has it, or its contrast with one that has not."""
    spec = experiment.spec
    found: set[str] = set()
    for name, parsed in experiment.gates.items():
        if spec.gates[name].role != "validity" or parsed.predicate is None:
            continue
        for leaf in leaves(parsed.predicate):
            if not isinstance(leaf, Atom):
                continue
            chains = [set(spec.phases(arm)) for arm in arms(spec.analyses[leaf.analysis]) if arm in spec.conditions]
            found |= chains[0] ^ chains[1] if len(chains) == 2 else chains[0] if chains else set()
    return found


def _report(experiment: Experiment, sink: Diagnostics, gate: str, analysis: str, shared: list[str]) -> None:
    spec = experiment.spec
    treatment, control = arms(spec.analyses[analysis])
    phase, metric = shared[-1], spec.analyses[analysis].metric
    before = spec.phases(control)[: len(spec.phases(control)) - len(shared)]
    reference = next((arm for arm in spec.conditions if spec.phases(arm) == before), None)
    declare = "" if reference else f"declare an arm with phases [{', '.join(before)}]; "
    sink.warning(
        "W0829", f'nothing shows that "{phase}" did anything: a null in "{analysis}" could mean that it did not happen',
        experiment.key_at("gates", gate),
        help=f'{declare}add an analysis of "{metric}" with contrast: {control} - {reference or "that arm"},'
        " and a validity gate that asks for a difference beyond a margin",
        labels=[
            Label(span=experiment.key_at("conditions", treatment), text=f'ends with "{phase}"'),
            Label(span=experiment.key_at("conditions", control), text="and so does this"),
        ],
        notes=[f'no validity gate reads an arm that has "{phase}" against one that has not'],
    )  # fmt: skip
