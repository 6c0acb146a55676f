"""How many trainings a conclusion rests on.

W0718: a success that rests on a single training seed
Why: the unit of the test is the prompt, so the test says nothing about another training of the same recipe. In one
lab the noise between training seeds was five to eight points, more than the thresholds in use. With one seed the
conclusion is about these checkpoints, and the confidence of the verdict is LOW, at best MODERATE.
Example:
    seeds: [1]
Fix:
    seeds: [1, 2, 3]
"""

from __future__ import annotations

from epc.compiler.contract.logic import Atom, leaves
from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.resolve import Experiment, arms


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    if len(spec.seeds) != 1 or experiment.surface.lacks("seeds"):
        return
    for name, parsed in experiment.gates.items():
        if spec.gates[name].role != "success" or parsed.predicate is None:
            continue
        read = dict.fromkeys(leaf.analysis for leaf in leaves(parsed.predicate) if isinstance(leaf, Atom))
        trained = [
            arm
            for analysis in read
            for arm in arms(spec.analyses[analysis])
            if arm in spec.conditions and spec.phases(arm)
        ]
        if not trained:
            continue
        declared = ("seeds",) in experiment.surface.document.spans
        gate = experiment.key_at("gates", name)
        sink.warning(
            "W0718", f'"{name}" decides on one training seed', experiment.at("seeds") if declared else gate,
            help="train each arm with three seeds or more; or accept this in `allow:` and say why one is enough",
            labels=[Label(span=gate, text="what it decides")] if declared else [],
            notes=[
                f"{', '.join(dict.fromkeys(trained))}: one checkpoint {'each' if len(set(trained)) > 1 else 'only'}, so the variance between trainings is not in the test",
                "confidence: HIGH takes three seeds; one gives LOW, or MODERATE where every gate agrees and p is below alpha / 10",
            ],
        )  # fmt: skip
        return
