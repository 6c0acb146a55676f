"""E0801 to E0805: an analysis that is not fully declared, or that its method cannot compute.

Why: a p-value without its definition, side, seed and number of resamples is a choice left for later; an
undeclared definition moved p from .007 to .025 on the same fifteen differences (Darwin's maize).

Example:
    headline: {metric: reset_rate, contrast: a - b, method: paired_bootstrap, side: greater, alpha: 0.025}

Fix: declare p, resamples and seed:
    headline: {..., p: studentized, resamples: 10000, seed: 1}
"""

from __future__ import annotations

from typing import Final

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment, arms
from epc.compiler.spec import LmEvalMetric, PatternMetric

REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "paired_bootstrap": ("p", "resamples", "seed"),
    "sign_flip": ("resamples", "seed"),
    "newcombe_paired": (),
    "paired_t": (),
    "wilson": (),
}
"""Method -> what must be declared; everything else of the three must be absent."""

BINARY_ONLY: Final = ("newcombe_paired", "wilson")
ARM_METHODS: Final = ("wilson",)


def _binary(experiment: Experiment, metric: str) -> bool | None:
    """Whether every unit holds exactly one 0/1 score; None when the metric is unknown."""
    match experiment.spec.metrics.get(metric):
        case LmEvalMetric():
            return True
        case PatternMetric(of=source):
            sample = experiment.spec.sample.get(source)
            return None if sample is None else sample.n == 1
        case None:
            return None


def check(experiment: Experiment, sink: Diagnostics) -> None:
    for name, analysis in experiment.spec.analyses.items():
        at = experiment.key_at("analyses", name)
        required = REQUIRED[analysis.method]
        missing = [key for key in required if getattr(analysis, key) is None]
        if missing:
            sink.error(
                "E0801", f'analysis "{name}" does not declare {", ".join(missing)}', at,
                help=f"{analysis.method} needs {', '.join(required)}; recommended: p: studentized, resamples: 10000, seed: 1",
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
        several = len(experiment.spec.seeds) > 1 and any(experiment.spec.conditions.get(arm) for arm in arms(analysis))
        if analysis.method in BINARY_ONLY and (several or _binary(experiment, analysis.metric) is False):
            what = "training seeds" if several else "samples"
            sink.error(
                "E0804", f"{analysis.method} needs one 0/1 score per unit, and {analysis.metric} averages several {what}",
                experiment.key_at("analyses", name, "method"), help="use paired_bootstrap with p: studentized",
            )  # fmt: skip
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
