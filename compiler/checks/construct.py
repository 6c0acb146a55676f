"""One construct, one measure: gates that ask one question twice in different units.

W0827: one construct decided by two measures
Why: the source document of issue 147 guards coherence three times: as a share of flagged completions, as a mean that
may fall by five, and as a filter at fifty. The share and the mean can disagree: where one arm is 70 throughout and
the other half 40 and half 100, the means are equal and half of the second arm is flagged. One of them is the
criterion and the other a description; a filter or a switch is neither.
Example:
    gates:
      coherent: {role: guardrail, require: gap.upper < 0.1}
      clear: {role: guardrail, require: clarity.lower > -5}
    metrics: {clarity: {of: first, judge: grader, score: coherent, better: higher, missing: drop}}
    analyses: {clarity: {metric: clarity, contrast: treated - attacked, method: paired_t, side: less, alpha: 0.025}}
    verdicts:
      - {if: no_effect, then: KILL}
      - {if: survives and able and coherent and clear, then: SUCCESS}
      - {otherwise: INCONCLUSIVE}
Fix:
    gates:
      coherent: {role: guardrail, require: clarity.lower > -5}
    metrics: {clarity: {of: first, judge: grader, score: coherent, better: higher, missing: drop}}
    analyses: {clarity: {metric: clarity, contrast: treated - attacked, method: paired_t, side: less, alpha: 0.025}}
    verdicts:
      - {if: no_effect, then: KILL}
      - {if: survives and able and coherent, then: SUCCESS}
      - {otherwise: INCONCLUSIVE}
"""

from __future__ import annotations

from typing import Final

from epc.compiler.contract.logic import Atom, leaves
from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.resolve import Comparison, Experiment
from epc.compiler.spec import JudgeMetric

DECIDING: Final = ("override", "kill", "success", "guardrail", "sanity")


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    first: dict[tuple[str, ...], tuple[str, str, Comparison]] = {}
    reported: set[tuple[str, ...]] = set()
    for gate, parsed in experiment.gates.items():
        role = spec.gates[gate].role
        if role not in DECIDING or parsed.predicate is None:
            continue
        for leaf in leaves(parsed.predicate):
            metric = spec.metrics.get(spec.analyses[leaf.analysis].metric) if isinstance(leaf, Atom) else None
            score = Comparison.parse(metric.score) if isinstance(metric, JudgeMetric) else None
            if not isinstance(leaf, Atom) or not isinstance(metric, JudgeMetric) or score is None:
                continue
            construct = (role, metric.judge, metric.of, score.field)
            other_gate, other_metric, other = first.setdefault(
                construct, (gate, spec.analyses[leaf.analysis].metric, score)
            )
            if score == other or construct in reported:
                continue
            reported.add(construct)
            name = spec.analyses[leaf.analysis].metric
            gates = f'"{other_gate}" and "{gate}" decide' if gate != other_gate else f'"{gate}" decides'
            sink.warning(
                "W0827", f'{role} {"gates" if gate != other_gate else "gate"} {gates} on "{score.field}" by two measures', experiment.key_at("gates", gate),
                help="keep the one that is meant, and make the other a prediction or a description",
                labels=[Label(span=experiment.at("metrics", metric_name, "score"), text=_kind(found)) for metric_name, found in ((other_metric, other), (name, score))],
                notes=[f'both read "{score.field}" of judge "{metric.judge}" on "{metric.of}", and the one can hold where the other does not'],
            )  # fmt: skip


def _kind(score: Comparison) -> str:
    return "a mean" if score.operator is None else f"a share: of {score.field} {score.operator} {score.constant}"
