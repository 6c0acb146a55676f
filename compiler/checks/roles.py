"""Gates whose role and predicate do not fit.

E0821: a gate that is written the wrong way round
Why: "must hold" and "fires when" are opposites. A kill gate with `require: delta < 5` reads well and says the
contrary of what it does, so each role takes one of the two words.
Example:
    gates: {no_effect: {role: kill, require: headline.upper < 5, when: null}}
Fix:
    gates: {no_effect: {role: kill, when: headline.upper < 5}}

E0822: `on` outside a follow-up gate
Why: `on` names the verdicts after which a gate is read. Only a follow-up is read after the verdict; any other gate
helps to make it, so the key would be ignored.
Example:
    gates: {no_effect: {on: [SUCCESS]}}
Fix:
    gates: {more_seeds: {role: follow_up, on: [SUCCESS], when: headline.delta >= 10}}

E0823: a success gate without the decision of a test
Why: a point estimate above a threshold is no evidence by itself: with noise it is there half of the time that the
truth lies on the threshold. A bare `p < 0.05` leaves out what the analysis declares as its level. `reject` is the
decision: p below alpha, as registered.
Example:
    gates: {survives: {require: headline.delta >= 5}}
Fix:
    gates: {survives: {require: headline.reject and headline.delta >= 5}}

W0824: a success gate that contradicts its own test
Why: a test for an increase rejects where the effect is above zero. Required together with `delta < 0` it holds hardly
ever: the table is sound, and SUCCESS cannot be reached. One of the two has the wrong sign.
Example:
    gates: {survives: {require: headline.reject and headline.delta <= -5}}
Fix:
    gates: {survives: {require: headline.reject and headline.delta >= 5}}
"""

from __future__ import annotations

from typing import Final

from epc.compiler.contract.logic import And, Atom, Predicate, compare, leaves
from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.resolve import Experiment

FIRES: Final = ("override", "kill", "switch", "follow_up")
EFFECTS: Final = ("delta", "lower", "upper", "ci_low", "ci_high")
"""Statistics on the scale of the effect, of which a significant result has the sign."""


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    for name, gate in spec.gates.items():
        fires = gate.role in FIRES
        if fires != (gate.when is not None):
            given, wanted = ("require", "when") if fires else ("when", "require")
            meaning = "fires when its predicate is true" if fires else "passes when its predicate is true"
            sink.error(
                "E0821",
                f"a {gate.role.replace('_', '-')} gate {meaning}",
                experiment.key_at("gates", name, given),
                help=f"write `{wanted}:`",
            )
        if gate.on and gate.role != "follow_up":
            sink.error(
                "E0822",
                f'`on` has no meaning for role "{gate.role}"',
                experiment.key_at("gates", name, "on"),
                help="only a follow-up gate is read after the verdict",
            )
        parsed = experiment.gates.get(name)
        if gate.role == "success" and parsed is not None and parsed.predicate is not None:
            statistics = {leaf.statistic for leaf in leaves(parsed.predicate) if isinstance(leaf, Atom)}
            if not statistics & {"reject", "lower", "upper"}:
                what = "a p-value, but not the decision" if "p" in statistics else "only a point estimate"
                sink.error(
                    "E0823", f'success gate "{name}" reads {what}', experiment.at("gates", name, "require" if gate.require else "when"),
                    help="add the test: `analysis.reject and ...`; `reject` is p < alpha with alpha as the analysis declares it",
                )  # fmt: skip
        if gate.role == "success" and parsed is not None and parsed.predicate is not None:
            _direction(experiment, sink, name, parsed.predicate)


def _direction(experiment: Experiment, sink: Diagnostics, name: str, predicate: Predicate) -> None:
    """Report a gate that requires a one-sided test to reject and the effect to lie on the other side of zero."""
    spec = experiment.spec
    required = [
        atom for atom in (predicate.operands if isinstance(predicate, And) else (predicate,)) if isinstance(atom, Atom)
    ]
    tested = {
        atom.analysis
        for atom in required
        if (atom.statistic == "reject" and compare(1, atom.operator, atom.constant) and not compare(0, atom.operator, atom.constant))
        or (atom.statistic == "p" and atom.operator in ("<", "<="))
    }  # fmt: skip
    for atom in required:
        side = spec.analyses[atom.analysis].side
        if atom.analysis not in tested or atom.statistic not in EFFECTS or side == "two_sided":
            continue
        below = atom.operator in ("<", "<=") and atom.constant <= 0
        above = atom.operator in (">", ">=") and atom.constant >= 0
        if below if side == "greater" else above:
            bound = f"{atom.analysis}.{atom.statistic} {atom.operator} {atom.constant:g}"
            sink.warning(
                "W0824", f'success gate "{name}" requires a test for {"an increase" if side == "greater" else "a decrease"} to reject and `{bound}`',
                experiment.at("gates", name, "require" if spec.gates[name].require is not None else "when"),
                help=f"turn one of the two round: side: {'less' if side == 'greater' else 'greater'}, or the comparison",
                labels=[Label(span=experiment.at("analyses", atom.analysis, "side"), text="the side of the test")],
                notes=["a test rejects on its own side of zero, so both hold together hardly ever"],
            )  # fmt: skip
