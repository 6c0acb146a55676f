"""E0801 to W0807: an analysis that is not fully declared, or that its method cannot compute.

Why: a p-value without its definition, side, seed and number of resamples is a choice left for later; an
undeclared definition moved p from .007 to .025 on the same fifteen differences (Darwin's maize).

Example:
    headline: {metric: reset_rate, contrast: a - b, method: paired_bootstrap, side: greater, alpha: 0.025}

Fix: declare p, resamples and seed:
    headline: {..., p: studentized, resamples: 10000, seed: 1}
"""

from __future__ import annotations

import math
from typing import Final

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Comparison, Experiment, arms
from epc.compiler.spec import Analysis, JudgeMetric, LmEvalMetric

REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "paired_bootstrap": ("p", "resamples", "seed"),
    "sign_flip": ("resamples", "seed"),
    "newcombe_paired": (),
    "paired_t": (),
    "wilson": (),
    "bootstrap": ("resamples", "seed"),
}
"""Method -> what must be declared; everything else of the three must be absent."""

RECOMMENDED: Final = {"p": "p: studentized", "resamples": "resamples: 10000", "seed": "seed: 1"}
BINARY_ONLY: Final = ("newcombe_paired", "wilson")
ARM_METHODS: Final = ("wilson", "bootstrap")


def _not_binary(experiment: Experiment, metric: str) -> str | None:
    """Why the metric is not one 0/1 score per unit; None when it is, or when nobody can tell."""
    spec = experiment.spec
    found = spec.metrics.get(metric)
    if found is None or isinstance(found, LmEvalMetric):
        return None
    if isinstance(found, JudgeMetric):
        score, judge = Comparison.parse(found.score), spec.judges.get(found.judge)
        kind = "bool" if score is None or judge is None else judge.output.get(score.field, "bool")
        if kind != "bool" and score is not None and score.operator is None:
            return f"{metric} is a score from {kind.replace('..', ' to ')}"
    sample = spec.sample.get(found.of)
    return None if sample is None or sample.n == 1 else f"{metric} averages several samples"


def _interval(experiment: Experiment, name: str, analysis: Analysis, sink: Diagnostics) -> None:
    """A displayed interval that may contradict the test beside it."""
    two_sided = analysis.side == "two_sided"
    paired = 1 - analysis.alpha if two_sided else 1 - 2 * analysis.alpha
    if analysis.interval is not None and not math.isclose(analysis.interval, paired, abs_tol=1e-9):
        side = "two-sided" if two_sided else "one-sided"
        sink.warning(
            "W0807", f'"{name}" displays a {_percent(analysis.interval)} interval beside a {side} test at {analysis.alpha:g}, which pairs with {_percent(paired)}',
            experiment.at("analyses", name, "interval"),
            help="delete `interval` to show the one that agrees with the test, or say in the rationale why this level",
            notes=[f"{side} {analysis.alpha:g} pairs with 1 - {'' if two_sided else '2 x '}{analysis.alpha:g} = {paired:g}: the two may disagree about zero"],
        )  # fmt: skip


def _percent(share: float) -> str:
    return f"{100 * share:.6g}%"


def check(experiment: Experiment, sink: Diagnostics) -> None:
    for name, analysis in experiment.spec.analyses.items():
        at = experiment.key_at("analyses", name)
        required = REQUIRED[analysis.method]
        missing = [key for key in required if getattr(analysis, key) is None]
        if missing:
            sink.error(
                "E0801", f'analysis "{name}" does not declare {", ".join(missing)}', at,
                help=f"{analysis.method} needs {', '.join(required)}; recommended: {', '.join(RECOMMENDED[key] for key in required)}",
            )  # fmt: skip
        for key in ("p", "resamples", "seed"):
            if key not in required and getattr(analysis, key) is not None:
                sink.error(
                    "E0802",
                    f"{analysis.method} has no {key}",
                    experiment.key_at("analyses", name, key),
                    help=f"delete `{key}`",
                )
        one_arm = analysis.arm is not None
        if one_arm != (analysis.method in ARM_METHODS):
            takes = "the level of one `arm`" if analysis.method in ARM_METHODS else "a `contrast` of two arms"
            sink.error(
                "E0803",
                f"{analysis.method} computes {takes}",
                experiment.key_at("analyses", name, "method"),
                help=f"give {takes}, or choose another method",
            )
        several = len(experiment.spec.seeds) > 1 and any(
            arm in experiment.spec.conditions and experiment.spec.phases(arm) for arm in arms(analysis)
        )
        averaged = f"{analysis.metric} averages several training seeds" if several else None
        why = averaged or _not_binary(experiment, analysis.metric)
        if analysis.method in BINARY_ONLY and why is not None:
            instead = "bootstrap" if analysis.method in ARM_METHODS else "paired_bootstrap with p: studentized"
            sink.error(
                "E0804", f"{analysis.method} needs one 0/1 score per unit, and {why}", experiment.key_at("analyses", name, "method"),
                help=f"use {instead}",
            )  # fmt: skip
        _interval(experiment, name, analysis, sink)
        found = arms(analysis)
        if len(found) == 2 and found[0] == found[1]:
            sink.error(
                "E0805",
                f'analysis "{name}" contrasts "{found[0]}" with itself',
                experiment.at("analyses", name, "contrast"),
                help="name two arms",
            )
        if analysis.resamples is not None and analysis.resamples * analysis.alpha < 10:
            sink.error(
                "E0806", f'{analysis.resamples} resamples are too few for alpha {analysis.alpha:g} in "{name}"',
                experiment.at("analyses", name, "resamples"), help="the bound would rest on fewer than ten resamples: use 10000",
            )  # fmt: skip
