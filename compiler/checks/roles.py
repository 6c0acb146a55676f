"""E0821, E0822, E0823: a gate whose role and predicate do not fit.

Why: "must hold" and "fires when" are opposites, and a gate written the wrong way round reads well and
decides the contrary.

Example:
    dead: {role: kill, require: headline.delta < 0.05}

Fix:
    dead: {role: kill, when: headline.delta < 0.05}
"""

from __future__ import annotations

from typing import Final

from epc.compiler.contract.logic import Atom, leaves
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment

FIRES: Final = ("override", "kill", "switch", "follow_up")


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
