"""Truths: what `epc simulate` assumes, and whether it can be.

E1701: a truth names a metric that is not there
Why: a truth says what the world may be like, and the simulation says what the registered rules would then decide. What
it says of a metric that nobody measures changes no verdict, so a misspelt name would leave the metric that was meant
at its default, and the printed power would be that of another experiment.
Example:
    truths: {hoped: {metrics: {quizz: {means: {treated: 0.7, attacked: 0.5}, unit_sd: 0.4}}}}
Fix:
    truths: {hoped: {metrics: {quiz: {means: {treated: 0.7, attacked: 0.5}, unit_sd: 0.4}}}}

E1702: a truth names an arm that is not there
Why: an arm that a truth leaves out has the mean of the first one, so a misspelt arm silently has no effect: the
simulation would call a null what was meant as the target.
Example:
    truths: {hoped: {metrics: {quiz: {means: {attacked: 0.5, traeted: 0.7}, unit_sd: 0.4}}}}
Fix:
    truths: {hoped: {metrics: {quiz: {means: {attacked: 0.5, treated: 0.7}, unit_sd: 0.4}}}}

E1703: a true mean that is not on the metric's scale
Why: a rate is between 0 and 1. A mean of 70 is the percentage, and a simulation that cut it off at 1 would report the
power of an effect nobody assumed.
Example:
    truths: {hoped: {metrics: {quiz: {means: {attacked: 50, treated: 70}, unit_sd: 0.4}}}}
Fix:
    truths: {hoped: {metrics: {quiz: {means: {attacked: 0.5, treated: 0.7}, unit_sd: 0.4}}}}

E1704: units cannot vary as much as a truth says
Why: a quantity between low and high with mean m has a standard deviation of at most sqrt((m - low) (high - m)), which
it has when every unit is at one of the ends. More is usually the standard deviation of single scores, or one in other
units.
Example:
    truths: {hoped: {metrics: {quiz: {means: {attacked: 0.5, treated: 0.7}, unit_sd: 0.6}}}}
Fix:
    truths: {hoped: {metrics: {quiz: {means: {attacked: 0.5, treated: 0.7}, unit_sd: 0.4}}}}

E1705: a truth that says which verdict it should get or how often, and not both
Why: `at_least` is the share of simulated experiments that have the verdict under `expect`. One without the other
promises nothing that could fail: every verdict comes about in some share, and every share is of some verdict.
Example:
    truths: {hoped: {metrics: {quiz: {means: {attacked: 0.5, treated: 0.7}, unit_sd: 0.4}}, expect: SUCCESS}}
Fix:
    truths: {hoped: {metrics: {quiz: {means: {attacked: 0.5, treated: 0.7}, unit_sd: 0.4}}, at_least: 0.8, expect: SUCCESS}}

E1706: a truth expects a verdict that the table does not have
Why: the expectation could never be met, whatever is simulated.
Example:
    truths: {hoped: {metrics: {quiz: {means: {attacked: 0.5, treated: 0.7}, unit_sd: 0.4}}, expect: SUCCESS_LARGE, at_least: 0.8}}
Fix:
    truths: {hoped: {metrics: {quiz: {means: {attacked: 0.5, treated: 0.7}, unit_sd: 0.4}}, expect: SUCCESS, at_least: 0.8}}

W1707: a truth whose own values get another verdict than it expects
Why: estimates scatter around the true values, so the table applied to these says what the verdict tends to as the
sample grows. Where that is not the expected one, no number of prompts reaches it; usually the truth lies on the wrong
side of a threshold.
Example:
    truths: {hoped: {metrics: {alignment: {means: {attacked: 50, treated: 54}, unit_sd: 20}}, expect: SUCCESS, at_least: 0.8}}
Fix:
    truths: {hoped: {metrics: {alignment: {means: {attacked: 50, treated: 65, base: 80}, unit_sd: 20}}, expect: SUCCESS, at_least: 0.8}}

W1708: a guardrail that a harmless treatment would often fail
Why: a margin of 0.10 on paired yes-or-no items of which a fifth differ between the arms is passed by a treatment that
does nothing in 37% of experiments with 40 items, and in 86% with 150. A guardrail that fails by chance turns a success
into a verdict that says nothing. The power is that of the normal approximation with no difference between the arms;
the variation of units is that of the first truth that declares it, else a fifth of the items differ.
Example:
    gates: {able: {require: quizzed.lower > -0.05}}     # 200 items
Fix:
    gates: {able: {require: quizzed.lower > -0.1}}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from epc.compiler import decision
from epc.compiler.contract.logic import Atom, Name, compare, evaluate, first_match, required
from epc.compiler.contract.logic import Truth as Ternary
from epc.compiler.contract.manifest import Analysis, Metric, Truth, TruthOf
from epc.compiler.diagnostics import Diagnostics, did_you_mean
from epc.compiler.resolve import Experiment

BOUNDS: Final = ("lower", "upper", "ci_low", "ci_high")
SIZES: Final = ("delta", "value", *BOUNDS)
POWER: Final = 0.8
DISCORDANT: Final = 0.2
"""Share of paired items that differ between two arms, where no truth says more."""
EXTREME: Final = 0.25
"""Share of the largest variance within a unit that scores other than yes or no are taken to have, as in `epc simulate`."""


def check(experiment: Experiment, sink: Diagnostics) -> None:
    metrics = {metric.name: metric for metric in decision.metrics(experiment)}
    for name in experiment.spec.truths:
        _possible(experiment, sink, name, metrics)
        _expectation(experiment, sink, name)
    if not sink.errors:
        for truth in decision.truths(experiment):
            _reachable(experiment, sink, truth)
        _guardrails(experiment, sink, metrics)


def _possible(experiment: Experiment, sink: Diagnostics, name: str, metrics: Mapping[str, Metric]) -> None:
    """Names, means and standard deviations of one truth."""
    spec = experiment.spec
    for metric_name, of in spec.truths[name].metrics.items():
        path = ("truths", name, "metrics", metric_name)
        metric = metrics.get(metric_name)
        if metric is None:
            sink.error(
                "E1701", f'truth "{name}" assumes something of "{metric_name}", which is no metric', experiment.key_at(*path),
                help=did_you_mean(metric_name, metrics),
            )  # fmt: skip
            continue
        low, high = metric.scale
        inside = []
        for arm, mean in of.means.items():
            if arm not in spec.conditions:
                sink.error(
                    "E1702", f'truth "{name}" has a mean for "{arm}", which is no arm', experiment.key_at(*path, "means", arm),
                    help=did_you_mean(arm, spec.conditions),
                )  # fmt: skip
            elif not low <= mean <= high:
                sink.error(
                    "E1703", f"{metric_name} is on [{low:g}, {high:g}], so {mean:g} is no mean of it",
                    experiment.at(*path, "means", arm), help=f"write it in units of {metric_name}",
                )  # fmt: skip
            else:
                inside.append(mean)
        most = max((math.sqrt((mean - low) * (high - mean)) for mean in inside), default=math.inf)
        if of.unit_sd > most * (1 + 1e-9):
            sink.error(
                "E1704", f"with these means, units of {metric_name} have a standard deviation of at most {most:.3g}, not {of.unit_sd:g}",
                experiment.at(*path, "unit_sd"), help="between units, of their true means; single samples vary beside that",
            )  # fmt: skip


def _expectation(experiment: Experiment, sink: Diagnostics, name: str) -> None:
    truth = experiment.spec.truths[name]
    labels = {rule.label for rule in decision.verdicts(experiment)}
    if (truth.expect is None) != (truth.at_least is None):
        lacking = "at_least" if truth.at_least is None else "expect"
        sink.error(
            "E1705", f'truth "{name}" has no {lacking}', experiment.key_at("truths", name),
            help="write both: which verdict it should get, and in which share of experiments",
        )  # fmt: skip
    if truth.expect is not None and truth.expect not in labels:
        sink.error(
            "E1706", f'truth "{name}" expects {truth.expect}, which no rule gives', experiment.at("truths", name, "expect"),
            help=did_you_mean(truth.expect, labels),
        )  # fmt: skip


# ------------------------------------------------------------------------- verdict


def _effect(analysis: Analysis, truth: Truth) -> float | None:
    """The true value of an analysis, None where the truth says nothing of its metric."""
    of = truth.metrics.get(analysis.metric)
    if of is None:
        return None
    if analysis.contrast is None:
        return of.means[analysis.arm or ""]
    return round(of.means[analysis.contrast.treatment] - of.means[analysis.contrast.control], 9)


def _atom(node: Atom | Name, analyses: Mapping[str, Analysis], truth: Truth) -> Ternary:
    """A comparison of true values: estimates and bounds are the value, a test rejects where its alternative is true."""
    if isinstance(node, Name):
        raise TypeError("a gate compares statistics, it does not name gates")
    analysis = analyses[node.analysis]
    effect = _effect(analysis, truth)
    if effect is None:
        return None
    if node.statistic in SIZES:
        return compare(effect, node.operator, node.constant)
    alternative = analysis.alternative(effect)
    return compare(float(alternative if node.statistic == "reject" else not alternative), node.operator, node.constant)


def _reachable(experiment: Experiment, sink: Diagnostics, truth: Truth) -> None:
    """Whether the table can give the expected verdict on the true values, whatever the truth leaves open."""
    if truth.expect is None:
        return
    analyses = {analysis.name: analysis for analysis in decision.analyses(experiment)}
    gates = {
        gate.name: (gate.role, evaluate(gate.predicate, lambda node: _atom(node, analyses, truth)))
        for gate in decision.gates(experiment)
    }
    rules = decision.verdicts(experiment)
    broken = [name for name, (role, value) in gates.items() if role == "validity" and value is False]
    reached = first_match([rule.predicate for rule in rules], {name: value for name, (_, value) in gates.items()})
    labels = list(dict.fromkeys(rules[index].label for index in sorted(reached)))
    if broken:
        said = f"INVALID, because {broken[0]} is false"
    elif truth.expect in labels:
        return
    else:
        said = " or ".join(labels)
    sink.warning(
        "W1707", f'truth "{truth.name}" expects {truth.expect}, but the table says {said} of its own values',
        experiment.at("truths", truth.name, "expect"), help="no number of units changes that: move the means, or the expectation",
    )  # fmt: skip


# ---------------------------------------------------------------------- guardrails


def _guardrails(experiment: Experiment, sink: Diagnostics, metrics: Mapping[str, Metric]) -> None:
    if not any(gate.role == "guardrail" for gate in experiment.spec.gates.values()):
        return
    from statistics import NormalDist

    normal = NormalDist()
    analyses = {analysis.name: analysis for analysis in decision.analyses(experiment)}
    for gate in decision.gates(experiment):
        for atom, way in required(gate.predicate) if gate.role == "guardrail" else ():
            analysis = analyses[atom.analysis]
            margin = -way * atom.constant
            error = _standard_error(experiment, analysis, metrics[analysis.metric])
            if atom.statistic not in SIZES or margin <= 0 or error is None or error.value == 0:
                continue
            quantile = normal.inv_cdf(1 - analysis.alpha) if atom.statistic in BOUNDS else 0.0
            power = normal.cdf(margin / error.value - quantile)
            if power < POWER:
                enough = error.units * ((quantile + normal.inv_cdf(POWER)) * error.value / margin) ** 2
                unit = metrics[analysis.metric].unit
                sink.warning(
                    "W1708",
                    f'a treatment that changes nothing passes "{gate.name}" in {power:.0%} of experiments',
                    experiment.key_at("gates", gate.name),
                    help=f"{POWER:.0%} takes about {math.ceil(enough):,} {unit}s instead of {error.units:,}, or a wider margin",
                    notes=[f"{error.because}: a standard error of {error.value:.3g} against a margin of {margin:g}"],
                )


@dataclass(frozen=True, kw_only=True)
class _Error:
    """Standard error of a contrast without difference."""

    value: float
    units: int
    because: str


def _standard_error(experiment: Experiment, analysis: Analysis, metric: Metric) -> _Error | None:
    """From the first truth that tells how the metric varies, or from DISCORDANT items; None where nobody knows."""
    units = decision.planned_units(experiment).get(metric.name)
    samples = decision.planned_samples(experiment).get(metric.name)
    if analysis.contrast is None or not units or not samples:
        return None
    for truth in decision.truths(experiment):
        of = truth.metrics.get(metric.name)
        if of is not None:
            seeds = [
                len(experiment.spec.training_seeds(arm))
                for arm in (analysis.contrast.treatment, analysis.contrast.control)
            ]
            variance = _variance(metric, of, analysis.contrast.control, [samples * k for k in seeds])
            return _Error(
                value=math.sqrt(variance / units),
                units=units,
                because=f'{units:,} {metric.unit}s that vary as in truth "{truth.name}"',
            )
    if metric.unit == "item" and samples == 1 and metric.scale == (0.0, 1.0):
        told = f"{units:,} items of which {DISCORDANT:.0%} differ between the arms"
        return _Error(value=math.sqrt(DISCORDANT / units), units=units, because=told)
    return None


def _variance(metric: Metric, of: TruthOf, control: str, samples: list[int]) -> float:
    """Variance of a unit's difference between two arms with the mean of the control."""
    low, high = metric.scale
    most = (of.means[control] - low) * (high - of.means[control])
    between = min(of.unit_sd**2, most)
    within = (most - between) * (1.0 if high - low == 1 else EXTREME)
    return 2 * between * (1 - of.correlation) + sum(within / n for n in samples)
