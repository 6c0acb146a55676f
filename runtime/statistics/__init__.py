"""Methods of analysis, one file each, and the one function that dispatches to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import assert_never

from epc.compiler.contract.manifest import Analysis, Metric
from epc.runtime.statistics.bootstrap import bootstrap
from epc.runtime.statistics.cluster_bootstrap import ClusterP, Group, Tree, cluster_bootstrap, two_level_bootstrap
from epc.runtime.statistics.crossed_bootstrap import crossed_bootstrap
from epc.runtime.statistics.estimate import Estimate, InapplicableError, interval_tail, on_lattice
from epc.runtime.statistics.mcnemar import mcnemar
from epc.runtime.statistics.newcombe import newcombe
from epc.runtime.statistics.newcombe_paired import newcombe_paired
from epc.runtime.statistics.paired_bootstrap import paired_bootstrap
from epc.runtime.statistics.paired_t import paired_t, paired_t_equivalence
from epc.runtime.statistics.resamples import Resamples
from epc.runtime.statistics.sign_flip import sign_flip
from epc.runtime.statistics.sign_test import sign_test
from epc.runtime.statistics.stratified_bootstrap import stratified_bootstrap
from epc.runtime.statistics.wilson import wilson

__all__ = ["NESTED", "UNPAIRED", "Estimate", "InapplicableError", "Nested", "Resamples", "analyse", "interval_tail"]

NESTED = ("two_level", "cluster_bootstrap")
"""Methods that read what is in a unit, and not its mean alone."""
UNPAIRED = ("newcombe",)
"""Methods of arms with other units in each."""


@dataclass(frozen=True, kw_only=True)
class Nested:
    """What is in the units of a contrast."""

    differences: Mapping[str, Mapping[str, Fraction]]
    """Training seed -> unit -> treatment - control, the same units with every seed. A single entry where no seed varies."""
    samples: Mapping[str, Group] | None
    """Unit -> samples of both arms; None where rows hold no samples, or there are several training seeds."""


def analyse(
    analysis: Analysis,
    metric: Metric,
    treatment: Mapping[str, Fraction],
    control: Mapping[str, Fraction] | None,
    *,
    nested: Nested | None = None,
    shared: Resamples | None = None,
) -> Estimate:
    """Run the declared method on unit values.

    `treatment` and `control` map the same units to their means, other ones for a method in UNPAIRED; for the level
    of one arm `control` is None. `nested` is for the methods in NESTED. Units are taken in the order of their
    names. `shared` holds the draws of a decision, so that its analyses share them; no digit depends on it.
    Raises InapplicableError where the method is not defined for these data or lacks a parameter.
    """
    if not treatment:
        raise InapplicableError("no unit is left")
    if control is None:
        return _level(analysis, metric, treatment, shared)
    limit = metric.scale[1] - metric.scale[0]
    side, alpha, interval = analysis.side, analysis.alpha, analysis.interval
    match analysis.method:
        case "newcombe":
            _needs_rates(analysis, metric)
            return newcombe(treatment, control, side=side, alpha=alpha, interval=interval)
        case "newcombe_paired":
            _needs_rates(analysis, metric)
            return newcombe_paired(treatment, control, side=side, alpha=alpha, interval=interval)
        case "mcnemar":
            _needs_rates(analysis, metric)
            if analysis.p != "exact" and analysis.p != "corrected":
                raise InapplicableError("mcnemar needs p: exact or corrected")
            return mcnemar(treatment, control, p=analysis.p, side=side, alpha=alpha, interval=interval)
        case "two_level" | "cluster_bootstrap":
            if nested is None:
                raise InapplicableError(
                    f"{analysis.method} needs what is in the units, and their means alone are known"
                )
            return _nested(analysis, nested, limit, shared)
        case "paired_bootstrap" | "paired_t" | "tost" | "sign_flip" | "sign_test":
            pass
        case "wilson" | "bootstrap":
            raise InapplicableError(f"{analysis.method} estimates the level of one arm, not a contrast")
        case _:
            assert_never(analysis.method)
    differences = on_lattice([treatment[unit] - control[unit] for unit in sorted(treatment)])
    match analysis.method:
        case "paired_bootstrap":
            if analysis.p == "exact" or analysis.p == "corrected":
                raise InapplicableError(f"paired_bootstrap has no p: {analysis.p}")
            if analysis.p is None or analysis.resamples is None or analysis.seed is None:
                raise InapplicableError("paired_bootstrap needs p, resamples and seed")
            return paired_bootstrap(
                differences, p=analysis.p, side=side, alpha=alpha, resamples=analysis.resamples, seed=analysis.seed,
                limit=limit, interval=interval, shared=shared,
            )  # fmt: skip
        case "paired_t":
            return paired_t(differences, side=side, alpha=alpha, limit=limit, interval=interval)
        case "tost":
            if analysis.margin is None:
                raise InapplicableError("tost needs a margin")
            return paired_t_equivalence(
                differences, margin=analysis.margin, alpha=alpha, limit=limit, interval=interval
            )  # fmt: skip
        case "sign_flip":
            return sign_flip(
                differences, side=side, alpha=alpha, resamples=analysis.resamples, seed=analysis.seed, limit=limit,
                interval=interval,
            )  # fmt: skip
        case "sign_test":
            return sign_test(differences, side=side, alpha=alpha, limit=limit, interval=interval)
        case _:
            assert_never(analysis.method)


def _nested(analysis: Analysis, nested: Nested, limit: float, shared: Resamples | None) -> Estimate:
    """Bootstraps of what is in the units. Every unit, and every training seed, weighs the same, as in every estimate."""
    resamples, seed = analysis.resamples, analysis.seed
    if resamples is None or seed is None:
        raise InapplicableError(f"{analysis.method} needs resamples and seed")
    if analysis.p != "percentile" and analysis.p != "shift":
        raise InapplicableError(f"{analysis.method} needs p: percentile or shift")
    p: ClusterP = analysis.p
    side, alpha, interval = analysis.side, analysis.alpha, analysis.interval
    levels = ("unit", "sample") if analysis.method == "two_level" else analysis.levels
    match levels:
        case ("unit", "sample") if analysis.population == "fixed":
            return stratified_bootstrap(
                _samples(nested), p=p, side=side, alpha=alpha, resamples=resamples, seed=seed, limit=limit,
                interval=interval,
            )  # fmt: skip
        case ("unit", "sample"):
            return two_level_bootstrap(
                _samples(nested), weights="equal", p=p, side=side, alpha=alpha, resamples=resamples, seed=seed,
                limit=limit, interval=interval,
            )  # fmt: skip
        case ("seed", "unit"):
            return crossed_bootstrap(
                nested.differences, p=p, side=side, alpha=alpha, resamples=resamples, seed=seed, limit=limit,
                interval=interval, shared=shared,
            )  # fmt: skip
        case ("unit",) | ("seed",):
            return cluster_bootstrap(
                _tree(nested, levels[0]), levels=("unit", "seed") if levels[0] == "unit" else ("seed", "unit"),
                stages=1, weights="equal", p=p, side=side, alpha=alpha, resamples=resamples, seed=seed, limit=limit,
                interval=interval,
            )  # fmt: skip
        case _:
            raise InapplicableError(f"levels {' > '.join(levels) or 'that are not declared'} cannot be resampled")


def _samples(nested: Nested) -> Mapping[str, Group]:
    if nested.samples is None:
        raise InapplicableError(
            "the scores of single samples are not known: rows hold them for one training seed, and where they were"
            " measured for this analysis"
        )
    return nested.samples


def _tree(nested: Nested, top: str) -> Tree:
    """Clusters of differences: units of training seeds, or training seeds of units."""
    found: dict[str, dict[str, Fraction]] = {}
    for seed, values in nested.differences.items():
        for unit, difference in values.items():
            outer, inner = (unit, seed) if top == "unit" else (seed, unit)
            found.setdefault(outer, {})[inner] = difference
    if len(found) < 2:
        raise InapplicableError(
            f"there is one {'unit' if top == 'unit' else 'training seed'}: nothing can be resampled"
        )
    return {
        name: Group(treatment=tuple(inner[each] for each in sorted(inner))) for name, inner in sorted(found.items())
    }


def _level(analysis: Analysis, metric: Metric, values: Mapping[str, Fraction], shared: Resamples | None) -> Estimate:
    match analysis.method:
        case "wilson":
            _needs_rates(analysis, metric)
            return wilson(values, side=analysis.side, alpha=analysis.alpha, interval=analysis.interval)
        case "bootstrap":
            if analysis.resamples is None or analysis.seed is None:
                raise InapplicableError("bootstrap needs resamples and seed")
            return bootstrap(
                on_lattice([values[unit] for unit in sorted(values)]), side=analysis.side, alpha=analysis.alpha,
                resamples=analysis.resamples, seed=analysis.seed, scale=metric.scale, interval=analysis.interval,
                shared=shared,
            )  # fmt: skip
        case (
            "paired_bootstrap" | "two_level" | "cluster_bootstrap" | "paired_t" | "tost" | "sign_flip" | "sign_test"
            | "newcombe_paired" | "newcombe" | "mcnemar"
        ):  # fmt: skip
            raise InapplicableError(
                f"{analysis.method} estimates a contrast; the level of one arm needs wilson or bootstrap"
            )
        case _:
            assert_never(analysis.method)


def _needs_rates(analysis: Analysis, metric: Metric) -> None:
    if metric.scale != (0, 1):
        low, high = metric.scale
        raise InapplicableError(f"{analysis.method} needs a metric on [0, 1]; {metric.name} is on [{low:g}, {high:g}]")
