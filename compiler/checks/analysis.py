"""Analyses that are not fully declared, or that their method cannot compute.

E0801: an analysis that leaves a choice open
Why: a p-value without its definition, number of resamples and seed is a choice left for later. The definition alone
moves p from .007 to .019 on the same fifteen differences (Darwin's maize). A deciding number is declared whole.
Example:
    analyses: {headline: {p: null}}
Fix:
    analyses: {headline: {p: studentized}}

E0802: a key, or a value of one, that the method does not have
Why: a paired t-test has one p and no resamples, and McNemar's test is exact or corrected but never studentized. A key
without effect looks like a choice that was made.
Example:
    analyses: {part: {method: paired_t}}      # keeps p, resamples and seed of the bootstrap
Fix:
    analyses: {part: {method: paired_t, p: null, resamples: null, seed: null}}

E0803: a method of one arm for a contrast, or the reverse
Why: wilson and bootstrap estimate the level of one arm; the other methods compare two arms within each unit. The
one cannot stand for the other: a level has no treatment effect in it.
Example:
    analyses: {base_quiz: {method: paired_t}}
Fix:
    analyses: {base_quiz: {method: wilson}}

E0804: a method for yes-or-no scores on something else
Why: wilson, mcnemar and Newcombe's intervals count units that score 0 or 1. A mean over several samples, several
training seeds or a scale from 0 to 100 is no count, and its interval would be wrong.
Example:
    analyses: {refusing: {method: wilson, resamples: null, seed: null}}
Fix:
    analyses: {refusing: {method: bootstrap}}

E0805: an arm contrasted with itself
Why: the difference is zero whatever the arm does, so the analysis reads as an effect that was looked for and not
found.
Example:
    analyses: {attack_effect: {contrast: attacked - attacked}}
Fix:
    analyses: {attack_effect: {contrast: attacked - base}}

E0806: too few resamples for the level
Why: the bound at level alpha is the (B + 1) x alpha-th smallest resampled value, and no p is below 1 / (B + 1). With
100 resamples at .025 the bound is the second smallest: another seed gives another bound, and perhaps another verdict.
Example:
    analyses: {headline: {resamples: 100}}
Fix:
    analyses: {headline: {resamples: 10000}}

W0807: an interval that does not pair with its test
Why: the source document of issue 147 tests one-sided at .05 and displays a 95% two-sided interval. One-sided .05
pairs with 90%; with 95% beside it, the test can reject while the interval holds zero, and readers will quote either.
Example:
    analyses: {headline: {alpha: 0.05, interval: 0.95}}
Fix:
    analyses: {headline: {alpha: 0.05}}       # shows 90%

E0808: a level below the smallest p that the units can give
Why: a sign flip of n units has 2^n equally likely patterns, and the most extreme one has p = 1 / 2^n. With five
units that is .031: at alpha .025 no result whatever can reject, and the null was certain before the run.
Example:
    prompts: {part_a: {file: null, items: [Why?, How?, When?, Where?, Who?], count: 5}, heldout: {count: 21}}
    analyses: {part: {method: sign_flip, p: null, side: greater, alpha: 0.025}}
Fix:
    analyses: {part: {method: sign_flip, p: null, side: greater, alpha: 0.025}}      # 8 units: 1 / 256
"""

from __future__ import annotations

import math
from typing import Final

from epc.compiler.checks.confirmatory import units
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Comparison, Experiment, arms
from epc.compiler.spec import Analysis, JudgeMetric, LmEvalMetric, ResultMetric

KEYS: Final = ("p", "resamples", "seed", "margin", "levels")
REQUIRED: Final[dict[str, tuple[str, ...]]] = {
    "paired_bootstrap": ("p", "resamples", "seed"),
    "two_level": ("p", "resamples", "seed"),
    "cluster_bootstrap": ("p", "levels", "resamples", "seed"),
    "sign_flip": ("resamples", "seed"),
    "sign_test": (),
    "newcombe_paired": (),
    "newcombe": (),
    "mcnemar": ("p",),
    "paired_t": (),
    "tost": ("margin",),
    "wilson": (),
    "bootstrap": ("resamples", "seed"),
}
"""Method -> which of KEYS must be declared; the others must be absent."""
DEFINITIONS: Final[dict[str, tuple[str, ...]]] = {
    "paired_bootstrap": ("studentized", "percentile", "shift", "bca"),
    "two_level": ("percentile", "shift"),
    "cluster_bootstrap": ("percentile", "shift"),
    "mcnemar": ("exact", "corrected"),
}
"""Method -> its definitions of p, the recommended one first."""

RECOMMENDED: Final = {
    "resamples": "resamples: 10000", "seed": "seed: 1", "margin": "margin: the smallest difference that would matter",
    "levels": "levels: [seed, unit] with several training seeds",
}  # fmt: skip
BINARY_ONLY: Final = ("newcombe_paired", "newcombe", "mcnemar", "wilson")
ARM_METHODS: Final = ("wilson", "bootstrap")


def _not_binary(experiment: Experiment, metric: str) -> str | None:
    """Why the metric is not one 0/1 score per unit; None when it is, or when nobody can tell."""
    spec = experiment.spec
    found = spec.metrics.get(metric)
    if found is None:
        return None
    if isinstance(found, LmEvalMetric):
        return None if found.scale is None else f"{metric} is a score from {found.scale[0]:g} to {found.scale[1]:g}"
    if isinstance(found, JudgeMetric):
        score, judge = Comparison.parse(found.score), spec.judges.get(found.judge)
        kind = "bool" if score is None or judge is None else judge.output.get(score.field, "bool")
        if kind != "bool" and score is not None and score.operator is None:
            return f"{metric} is a score from {kind.replace('..', ' to ')}"
    if isinstance(found, ResultMetric):
        entry = spec.results.get(found.results)
        if found.scale != [0, 1]:
            return f"{metric} is a score from {found.scale[0]:g} to {found.scale[1]:g}"
        sampled = entry is not None and entry.mapping is not None and entry.mapping.sample is not None
        return f"{metric} averages several samples" if sampled else None
    sample = spec.sample.get(found.of)
    return None if sample is None or sample.n == 1 else f"{metric} averages several samples"


def _interval(experiment: Experiment, name: str, analysis: Analysis, sink: Diagnostics) -> None:
    """A displayed interval that may contradict the test beside it."""
    two_sided = analysis.side == "two_sided" and analysis.method != "tost"
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
            recommended = (
                {**RECOMMENDED, "p": f"p: {DEFINITIONS[analysis.method][0]}"} if "p" in required else RECOMMENDED
            )
            sink.error(
                "E0801", f'analysis "{name}" does not declare {", ".join(missing)}', at,
                help=f"{analysis.method} needs {', '.join(required)}; recommended: {', '.join(recommended[key] for key in required)}",
            )  # fmt: skip
        _values(experiment, name, analysis, sink)
        for key in KEYS:
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
            if averaged is not None and analysis.method not in ARM_METHODS:
                instead += ", or cluster_bootstrap with levels: [seed, unit]"
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
        _smallest(experiment, name, analysis, sink)


def _values(experiment: Experiment, name: str, analysis: Analysis, sink: Diagnostics) -> None:
    """Values that other methods give their keys."""
    known = DEFINITIONS.get(analysis.method, ())
    if known and analysis.p is not None and analysis.p not in known:
        sink.error(
            "E0802", f"{analysis.method} has no p: {analysis.p}", experiment.at("analyses", name, "p"),
            help=f"write p: {' or '.join(known)}",
        )  # fmt: skip
    if analysis.method == "tost" and analysis.side != "two_sided":
        sink.error(
            "E0802", f"tost has no side: {analysis.side}", experiment.at("analyses", name, "side"),
            help="write side: two_sided, since equivalence is tested on both; for one side use a bound and a margin in a gate",
        )  # fmt: skip


def _smallest(experiment: Experiment, name: str, analysis: Analysis, sink: Diagnostics) -> None:
    """A sign flip or sign test of so few units that its most extreme pattern is not below alpha."""
    of_signs = analysis.method in ("sign_flip", "sign_test") or (analysis.method == "mcnemar" and analysis.p == "exact")
    count = units(experiment, analysis) if of_signs else None
    if not count:
        return
    sides = 2 if analysis.side == "two_sided" else 1
    least = sides / 2**count
    if analysis.alpha > least:  # reject is p < alpha
        return
    enough = next(n for n in range(count + 1, 1100) if analysis.alpha > sides / 2**n)
    sink.error(
        "E0808", f'"{name}" cannot reject: with {count} units no p is below {least:.4g}, and alpha is {analysis.alpha:g}',
        experiment.at("analyses", name, "alpha"), help=f"read at least {enough} units, or raise alpha before anything is run",
        notes=[f"{count} signs have 2^{count} = {2**count:,} patterns; the most extreme has p = {sides} / {2**count:,} = {least:.4g}"],
    )  # fmt: skip
