"""W1301: something is declared and never used.

Why: an entry that nothing reads is usually a misspelt reference or the rest of an older plan, and a
reader will believe that it counts.

Example:
    data: {traces: {...}, old_traces: {...}}      # no recipe trains on old_traces

Fix: use it or delete it.
"""

from __future__ import annotations

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment
from epc.compiler.spec import LmEvalMetric


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    if experiment.surface.poisoned:
        return
    used: dict[str, set[str]] = {
        "data": {recipe.data for recipe in spec.train.values()},
        "train": {phase for phases in spec.conditions.values() for phase in phases},
        "prompts": {sample.prompts for sample in spec.sample.values()},
        "sample": {metric.of for metric in spec.metrics.values() if not isinstance(metric, LmEvalMetric)},
        "metrics": {analysis.metric for analysis in spec.analyses.values()},
    }
    # an analysis that no gate reads is descriptive, and an undecided gate is the verdict table's finding
    for section, names in used.items():
        for name in getattr(spec, section):
            if name not in names:
                sink.warning(
                    "W1301",
                    f'"{name}" in `{section}` is never used',
                    experiment.key_at(section, name),
                    help="use it or delete it",
                )
