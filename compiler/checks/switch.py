"""Switches that have nothing to switch, or that the result itself could turn.

E0861: a switch does not say which analysis it switches
Why: A switch decides, by a rule written beforehand, that one analysis reads unfiltered scores after all. If it names no
analysis it changes nothing, while whoever reads the spec believes that the headline is safeguarded.
Example:
    analyses:
      placebo_gap: {metric: broken, contrast: treated - placebo, method: paired_bootstrap,
                    p: percentile, side: two_sided, alpha: 0.05, resamples: 10000, seed: 1}
    gates:
      placebo_filter: {role: switch, when: placebo_gap.delta > 0.2}
Fix:
    analyses:
      placebo_gap: {metric: broken, contrast: treated - placebo, method: paired_bootstrap,
                    p: percentile, side: two_sided, alpha: 0.05, resamples: 10000, seed: 1}
    gates:
      placebo_filter: {role: switch, analysis: against_placebo, when: placebo_gap.delta > 0.2}

E0862: a gate that is no switch names an analysis to switch
Why: Only a switch governs an analysis. In any other gate the analyses that count are those that its predicate names, so
a second name beside it would say something that is never done.
Example:
    gates:
      no_effect: {role: kill, analysis: headline, when: headline.upper < 5}
Fix:
    gates:
      no_effect: {role: kill, when: headline.upper < 5}

E0863: a switch governs an analysis whose metric drops nothing
Why: A switch chooses between a filtered and an unfiltered number. Without `keep` in the metric the two are the same,
and whatever the switch says, the headline is what it was; most likely the filter was forgotten.
Example:
    gates:
      refusal_filter: {role: switch, analysis: refusing, when: gap.delta > 0.2}
Fix:
    metrics:
      refusals: {keep: coherent >= 50, empty: drop}
    gates:
      refusal_filter: {role: switch, analysis: refusing, when: gap.delta > 0.2}

E0864: a switch reads the number that it switches
Why: An earlier plan of the source document of issue 147 switched its headline to the larger subset if the subsets
disagreed; the last revision removed that rule as selection on data. A switch that reads a switched number is of the
same kind: the result chooses its own definition, and each choice is another chance to succeed by luck.
Example:
    gates:
      filter: {role: switch, analysis: headline, when: headline.delta < 0}
Fix:
    gates:
      filter: {role: switch, analysis: headline, when: gap.delta > 0.2 or gap.delta < -0.2}

E0865: a switch reads the same score as the analysis that it switches
Why: Another analysis of the same judge's score on the same completions moves with the headline, so a switch that reads
it lets the result choose its own definition by a detour. What a filter may be doing wrong shows in what it drops: the
source document of issue 147 compares the shares of answers below a coherence of 50, and so does the fix.
Example:
    gates:
      filter: {role: switch, analysis: headline, when: against_placebo.delta < 0}
Fix:
    gates:
      filter: {role: switch, analysis: headline, when: gap.delta > 0.2 or gap.delta < -0.2}

E0866: an analysis has two switches
Why: A switch that fires makes its analysis read unfiltered scores, one that does not fire makes it read filtered ones.
Where two govern one analysis and only one fires, both cannot be obeyed, and which number is the headline would be
decided when the results are known.
Example:
    gates:
      filter: {role: switch, analysis: headline, when: gap.delta > 0.2}
      other_way: {role: switch, analysis: headline, when: gap.delta < -0.2}
Fix:
    gates:
      filter: {role: switch, analysis: headline, when: gap.delta > 0.2 or gap.delta < -0.2}

W0867: a success gate reads filtered scores, and no switch governs the filter
Why: In one lab a collapse in coherence was read as misalignment, so broken text is now dropped before scores are
averaged. But a filter that drops 5% of one arm and 40% of the other leaves answers that are no longer comparable. A
switch, written beforehand, says from which difference on the unfiltered number is the headline.
Example:
    gates:
      survives:
        role: success
        require: headline.reject and headline.lower >= 5 and against_placebo.lower > 0
Fix:
    analyses:
      placebo_gap: {metric: broken, contrast: treated - placebo, method: paired_bootstrap,
                    p: percentile, side: two_sided, alpha: 0.05, resamples: 10000, seed: 1}
    gates:
      survives:
        role: success
        require: headline.reject and headline.lower >= 5 and against_placebo.lower > 0
      placebo_filter: {role: switch, analysis: against_placebo, when: placebo_gap.delta > 0.2}
"""

from __future__ import annotations

from epc.compiler.contract.logic import Atom, leaves
from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.resolve import Comparison, Experiment
from epc.compiler.spec import JudgeMetric, Metric


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    governing: dict[str, str] = {}
    for name, gate in spec.gates.items():
        if gate.role != "switch":
            if gate.analysis is not None:
                sink.error(
                    "E0862", f'`analysis` has no meaning for role "{gate.role.replace("_", "-")}"', experiment.key_at("gates", name, "analysis"),
                    help="delete it: the predicate names the analyses that the gate reads, and only a switch governs one",
                )  # fmt: skip
            continue
        if gate.analysis is None:
            sink.error(
                "E0861", f'switch "{name}" does not say which analysis it switches', experiment.key_at("gates", name),
                help="add `analysis:`, the analysis that reads unfiltered scores when the switch fires",
            )  # fmt: skip
            continue
        at = experiment.at("gates", name, "analysis")
        if gate.analysis in governing:
            sink.error(
                "E0866", f'analysis "{gate.analysis}" has two switches', at,
                help="keep one, and join the predicates with `or`",
                labels=[Label(span=experiment.at("gates", governing[gate.analysis], "analysis"), text="the other switch")],
            )  # fmt: skip
        governing.setdefault(gate.analysis, name)
        analysis = spec.analyses.get(gate.analysis)
        metric = None if analysis is None else spec.metrics.get(analysis.metric)
        if analysis is not None and metric is not None and _keep(metric) is None:
            sink.error(
                "E0863", f'switch "{name}" has nothing to switch: metric "{analysis.metric}" keeps every completion', at,
                help=f'give "{analysis.metric}" a `keep`, or delete the switch',
                labels=[Label(span=experiment.key_at("metrics", analysis.metric), text="no `keep` here")],
            )  # fmt: skip
    _predicates(experiment, sink, governing)
    _unswitched(experiment, sink, governing)


def _keep(metric: Metric) -> str | None:
    return metric.keep if isinstance(metric, JudgeMetric) else None


def _read(experiment: Experiment, gate: str) -> list[str]:
    """Analyses that a gate's predicate reads, each once."""
    parsed = experiment.gates.get(gate)
    if parsed is None or parsed.predicate is None:
        return []
    return list(dict.fromkeys(leaf.analysis for leaf in leaves(parsed.predicate) if isinstance(leaf, Atom)))


def _predicates(experiment: Experiment, sink: Diagnostics, governing: dict[str, str]) -> None:
    """What switches read: never a number that a switch defines, and never the score in question."""
    spec = experiment.spec
    for name in governing.values():
        at = experiment.at("gates", name, "when" if spec.gates[name].when is not None else "require")
        own = spec.gates[name].analysis
        scored = _scored(experiment, own or "")
        for read in _read(experiment, name):
            if read in governing:
                itself = "the analysis that it switches" if read == own else f'which "{governing[read]}" switches'
                sink.error(
                    "E0864", f'switch "{name}" reads "{read}", {itself}', at,
                    help="read an analysis that no switch governs, for example the share that the filter drops",
                )  # fmt: skip
            elif scored is not None and _scored(experiment, read) == scored:
                sink.error(
                    "E0865", f'switch "{name}" reads "{read}", which measures the same score as "{own}"', at,
                    help="read what the filter drops: a switch that sees the result would choose the number that looks better",
                    notes=[f'both are "{scored[2]}" of judge "{scored[0]}" on "{scored[1]}"'],
                )  # fmt: skip


def _scored(experiment: Experiment, analysis: str) -> tuple[str, str, str] | None:
    """(judge, sample set, field) of a judged analysis."""
    entry = experiment.spec.analyses.get(analysis)
    metric = None if entry is None else experiment.spec.metrics.get(entry.metric)
    found = Comparison.parse(metric.score) if isinstance(metric, JudgeMetric) else None
    return None if found is None or not isinstance(metric, JudgeMetric) else (metric.judge, metric.of, found.field)


def _unswitched(experiment: Experiment, sink: Diagnostics, governing: dict[str, str]) -> None:
    """A filtered score that decides, and nothing that says when the filter is not to be believed."""
    spec = experiment.spec
    if any(gate.role == "switch" and gate.analysis not in spec.analyses for gate in spec.gates.values()):
        return
    reading = {
        analysis: name for name, gate in spec.gates.items() if gate.role == "success" for analysis in _read(experiment, name)
    }  # fmt: skip
    for analysis, gate_name in reading.items():
        metric = spec.metrics.get(spec.analyses[analysis].metric)
        keep = None if metric is None else _keep(metric)
        if keep is not None and analysis not in governing:
            sink.warning(
                "W0867", f'success gate "{gate_name}" reads "{analysis}", which drops completions, and no switch governs it',
                experiment.key_at("gates", gate_name),
                help="declare a metric for the share that is dropped, and a switch that fires when the arms differ in it",
                labels=[Label(span=experiment.at("metrics", spec.analyses[analysis].metric, "keep"), text="the filter")],
                notes=["where the arms lose unequal shares, what is left of them are not answers to the same prompts"],
            )  # fmt: skip
