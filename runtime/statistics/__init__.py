"""Methods of analysis, one file each, and the one function that dispatches to them."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import assert_never

from epc.compiler.contract.manifest import Analysis, Metric
from epc.runtime.statistics.bootstrap import bootstrap
from epc.runtime.statistics.estimate import Estimate, InapplicableError, interval_tail, on_lattice
from epc.runtime.statistics.newcombe_paired import newcombe_paired
from epc.runtime.statistics.paired_bootstrap import paired_bootstrap
from epc.runtime.statistics.paired_t import paired_t
from epc.runtime.statistics.sign_flip import sign_flip
from epc.runtime.statistics.wilson import wilson

__all__ = ["Estimate", "InapplicableError", "analyse", "interval_tail"]


def analyse(
    analysis: Analysis, metric: Metric, treatment: Mapping[str, Fraction], control: Mapping[str, Fraction] | None
) -> Estimate:
    """Run the declared method on unit values.

    `treatment` and `control` map the same units to their means; for the level of one arm `control` is
    None. Units are taken in the order of their names. Raises InapplicableError where the method is not
    defined for these data or lacks a parameter.
    """
    if not treatment:
        raise InapplicableError("no unit is left")
    if control is None:
        return _level(analysis, metric, treatment)
    limit = metric.scale[1] - metric.scale[0]
    differences = on_lattice([treatment[unit] - control[unit] for unit in sorted(treatment)])
    side, alpha, interval = analysis.side, analysis.alpha, analysis.interval
    match analysis.method:
        case "paired_bootstrap":
            if analysis.p is None or analysis.resamples is None or analysis.seed is None:
                raise InapplicableError("paired_bootstrap needs p, resamples and seed")
            return paired_bootstrap(
                differences, p=analysis.p, side=side, alpha=alpha, resamples=analysis.resamples, seed=analysis.seed,
                limit=limit, interval=interval,
            )  # fmt: skip
        case "paired_t":
            return paired_t(differences, side=side, alpha=alpha, limit=limit, interval=interval)
        case "sign_flip":
            return sign_flip(
                differences, side=side, alpha=alpha, resamples=analysis.resamples, seed=analysis.seed, limit=limit,
                interval=interval,
            )  # fmt: skip
        case "newcombe_paired":
            _needs_rates(analysis, metric)
            return newcombe_paired(treatment, control, side=side, alpha=alpha, interval=interval)
        case "wilson" | "bootstrap":
            raise InapplicableError(f"{analysis.method} estimates the level of one arm, not a contrast")
        case _:
            assert_never(analysis.method)


def _level(analysis: Analysis, metric: Metric, values: Mapping[str, Fraction]) -> Estimate:
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
            )  # fmt: skip
        case "paired_bootstrap" | "paired_t" | "sign_flip" | "newcombe_paired":
            raise InapplicableError(
                f"{analysis.method} estimates a contrast; the level of one arm needs wilson or bootstrap"
            )
        case _:
            assert_never(analysis.method)


def _needs_rates(analysis: Analysis, metric: Metric) -> None:
    if metric.scale != (0, 1):
        low, high = metric.scale
        raise InapplicableError(f"{analysis.method} needs a metric on [0, 1]; {metric.name} is on [{low:g}, {high:g}]")
