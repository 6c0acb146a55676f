"""E0811, E0812: a confirmatory test on too few units, or several without a multiplicity rule.

Why: below 20 units the bootstrap's type-I error reaches .087 at alpha .05 in simulations (.255 with a
left-skewed effect), and k tests at alpha each give one false success with probability up to k x alpha.

Example:
    gates: {one: {role: success, require: a.reject}, two: {role: success, require: b.reject}}

Fix: keep one confirmatory analysis and make the others predictions; or add prompts; or use sign_flip,
which is exact for small samples.
"""

from __future__ import annotations

from epc.compiler.contract.logic import Atom, leaves
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment
from epc.compiler.spec import JudgeMetric, LmEvalMetric, PatternMetric

MINIMUM_UNITS = 20
EXACT = ("sign_flip",)


def units(experiment: Experiment, metric: str) -> int | None:
    """How many units an analysis of the metric has; None when that could not be resolved."""
    match experiment.spec.metrics.get(metric):
        case LmEvalMetric(items=items):
            return items
        case PatternMetric(of=source) | JudgeMetric(of=source):
            sample = experiment.spec.sample.get(source)
            found = None if sample is None else experiment.prompts.get(sample.prompts)
            return None if found is None else len(found)
        case None:
            return None


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    tested: dict[str, str] = {}
    for gate, parsed in experiment.gates.items():
        if spec.gates[gate].role != "success" or parsed.predicate is None:
            continue
        for leaf in leaves(parsed.predicate):
            if isinstance(leaf, Atom) and leaf.statistic in ("reject", "p"):
                tested.setdefault(leaf.analysis, gate)
    if len(tested) > 1:
        names = ", ".join(tested)
        sink.error(
            "E0812", f"{len(tested)} confirmatory tests without a multiplicity rule: {names}",
            experiment.key_at("gates", list(tested.values())[1]),
            help="keep one as the success test and make the others predictions or descriptive",
            notes=[f"at alpha each, a false success has probability up to {sum(spec.analyses[a].alpha for a in tested):g}"],
        )  # fmt: skip
    for name in tested:
        analysis = spec.analyses[name]
        count = units(experiment, analysis.metric)
        if count is not None and count < MINIMUM_UNITS and analysis.method not in EXACT:
            sink.error(
                "E0811", f'confirmatory analysis "{name}" has {count} units, fewer than {MINIMUM_UNITS}',
                experiment.key_at("analyses", name), help="add units, or use method: sign_flip, which is exact for small samples",
            )  # fmt: skip
