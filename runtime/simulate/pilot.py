"""What the measurement rows of a finished run tell about how units vary: standard deviations, correlation, missing.

Unit means m_u over n samples and S training seeds have variance var(theta) + within / (n S). Within a unit a
two-valued score has variance theta (1 - theta); any other is taken from the data model (`model.EXTREME`), since rows
hold sums and not single scores. With m the mean and s^2 the variance of the unit means, and R the range of the scale,

    two-valued:   var(theta) = (s^2 - m (1 - m) R^2 / k) / (1 - 1 / k),   k = n S, solved for E[theta (1 - theta)]
    others:       the same with m (1 - m) R^2 times `extreme`

at least 0, averaged over arms. Covariance of two arms' unit means is that of theta, so the correlation is the mean
over contrasts of cov / (sd_t sd_c), between 0 and 1. A unit with one sample, such as a benchmark item, tells p and the
share of discordant units, from which only r var(theta) = cov follows; r is then taken to be `truths.ITEM_CORRELATION`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from epc.compiler.contract.manifest import Design, Metric
from epc.runtime.estimates import arms_of
from epc.runtime.measurements import Measurements
from epc.runtime.simulate.draws import largest_sd
from epc.runtime.simulate.model import Scale, Size
from epc.runtime.simulate.truths import CORRELATION, ITEM_CORRELATION, Known, Spread


def known_of(design: Design, measurements: Measurements, extreme: float) -> Known:
    """Spreads of every metric that has rows, and the means of its arms."""
    spreads: dict[str, Spread] = {}
    means: dict[tuple[str, str], float] = {}
    for metric in design.metrics:
        arms = {c.name: _unit_means(measurements, metric, c.name, c.seeds) for c in design.conditions}
        arms = {arm: values for arm, values in arms.items() if len(values) > 1}
        if not arms:
            continue
        means |= {(metric.name, arm): float(np.mean(list(values.values()))) for arm, values in arms.items()}
        spreads[metric.name] = _spread(design, measurements, metric, arms, extreme)
    return Known(spreads=spreads, means=means)


def sizes_of(design: Design, measurements: Measurements) -> dict[str, Size]:
    """Units and samples per unit and seed that a run has, the most that any arm and unit has."""
    found: dict[str, Size] = {}
    for metric in design.metrics:
        rows = [row for row in measurements.rows if row.metric == metric.name and row.slice == "all"]
        if rows:
            found[metric.name] = Size(
                units=len(measurements.units(metric.name)), samples=max(row.n + row.n_missing + row.n_filtered for row in rows)
            )  # fmt: skip
    return found


def _unit_means(measurements: Measurements, metric: Metric, arm: str, seeds: Sequence[int]) -> dict[str, float]:
    units = measurements.cells.get((metric.name, arm), {})
    return {name: float(value) for name, unit in sorted(units.items()) if (value := unit.value(seeds)) is not None}


def _spread(
    design: Design, measurements: Measurements, metric: Metric, arms: Mapping[str, Mapping[str, float]], extreme: float
) -> Spread:  # fmt: skip
    rows = [
        row for row in measurements.rows if row.metric == metric.name and row.slice == "all" and row.condition in arms
    ]
    scored = sum(row.n + row.n_filtered for row in rows)
    missing = sum(row.n_missing for row in rows)
    low, high = metric.scale
    share = 1.0 if Scale.of(metric).two_valued else extreme
    seeds = {condition.name: len(condition.seeds) for condition in design.conditions}
    variances: dict[str, float] = {}
    for arm, values in arms.items():
        of_arm = [row for row in rows if row.condition == arm]
        each = sum(row.n for row in of_arm) / len(of_arm) * seeds[arm]
        variances[arm] = _between(np.array(list(values.values())), low, high, share, each)
    single = Scale.of(metric).two_valued and max((row.n for row in rows), default=1) == 1 and max(seeds.values()) == 1
    pairs = {(arms_of(a)[0], arms_of(a)[1]) for a in design.analyses if a.metric == metric.name and a.contrast}
    covariances = {
        pair: _covariance(arms[pair[0]], arms[pair[1]]) for pair in sorted(pairs) if set(pair) <= arms.keys()
    }
    if single:
        covariance = float(np.mean(list(covariances.values()))) if covariances else 0.0
        sd = (max(covariance, 0.0) / ITEM_CORRELATION) ** 0.5
        correlation = ITEM_CORRELATION
    else:
        sd = float(np.mean(list(variances.values()))) ** 0.5
        ratios = [
            covariance / (variances[one] * variances[other]) ** 0.5
            for (one, other), covariance in covariances.items()
            if variances[one] > 0 and variances[other] > 0
        ]
        correlation = min(max(float(np.mean(ratios)), 0.0), 1.0) if ratios else CORRELATION
    most = max(largest_sd(float(np.mean(list(values.values()))), low, high) for values in arms.values())
    return Spread(
        unit_sd=round(min(sd, most), 6), correlation=round(correlation, 6),
        missing=round(missing / (scored + missing), 6) if scored + missing else 0.0,
    )  # fmt: skip


def _between(values: NDArray[np.float64], low: float, high: float, share: float, each: float) -> float:
    """Variance of theta from unit means over `each` scores."""
    mean, variance = float(values.mean()), float(values.var(ddof=1))
    if each <= 1:
        return variance
    most = (mean - low) * (high - mean)
    return max(0.0, (variance - share * most / each) / (1 - share / each))


def _covariance(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Of two arms' unit means, over the units that both have."""
    units = sorted(one.keys() & other.keys())
    if len(units) < 2:
        return 0.0
    first, second = (np.array([values[unit] for unit in units]) for values in (one, other))
    return float(((first - first.mean()) * (second - second.mean())).sum() / (len(units) - 1))
