"""How sharp the numbers of one analysis are: Monte-Carlo error of p, detectable effect, distance to thresholds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Final, assert_never

from epc.compiler.contract.decision import AnalysisResult, Margin, MinimumDetectable, MonteCarlo
from epc.compiler.contract.manifest import Analysis, Side
from epc.runtime.statistics.estimate import display_tail, exact, significant
from epc.runtime.statistics.sign_flip import EXACT_UNITS

LEVEL: Final = 0.95
"""Of the Monte-Carlo interval."""
POWER: Final = 0.8
"""At which the minimum detectable effect is stated."""


def standard_error(analysis: Analysis, result: AnalysisResult) -> float | None:
    """sd / sqrt(n) of the units; None where it is not known, nothing varies, or training seeds are drawn too.

    Units alone would leave out that the seeds vary: a number that looks much sharper than the interval beside it.
    """
    if not result.sd or not result.n_units or "seed" in analysis.levels:
        return None
    return significant(result.sd / math.sqrt(result.n_units))


def monte_carlo(analysis: Analysis, result: AnalysisResult) -> MonteCarlo | None:
    """The exact interval of a p that is (1 + k) / (B + 1) for k of B random draws; None for any other p.

    k is binomial with the p of infinitely many draws: C. Clopper and E. Pearson, The use of confidence or fiducial
    limits illustrated in the case of the binomial, Biometrika 26 (1934) 404-413. A two-sided p is twice the smaller
    of two counts, so its ends are doubled; at p = 1 neither count is known.
    """
    p, draws = result.statistics.get("p"), analysis.resamples
    if p is None or draws is None or not _counted(analysis, result):
        return None
    sides = 2 if analysis.side == "two_sided" else 1
    if sides == 2 and p >= 1:
        return None
    extreme = round(Fraction(p) / sides * (draws + 1)) - 1
    from scipy.special import betaincinv

    tail = (1 - LEVEL) / 2
    low = 0.0 if extreme == 0 else float(betaincinv(extreme, draws - extreme + 1, tail))
    high = 1.0 if extreme == draws else float(betaincinv(extreme + 1, draws - extreme, 1 - tail))
    low, high = significant(min(1.0, sides * low)), significant(min(1.0, sides * high))
    return MonteCarlo(
        draws=draws, extreme=extreme, p_low=low, p_high=high, level=LEVEL,
        excludes_alpha=high < analysis.alpha or low > analysis.alpha,
    )  # fmt: skip


def _counted(analysis: Analysis, result: AnalysisResult) -> bool:
    match analysis.method:
        case "paired_bootstrap":
            return analysis.p in ("percentile", "shift") or (analysis.p == "studentized" and bool(result.sd))
        case "two_level" | "cluster_bootstrap":
            return True
        case "sign_flip":
            return result.n_units > EXACT_UNITS
        case "paired_t" | "tost" | "sign_test" | "newcombe_paired" | "newcombe" | "mcnemar" | "wilson" | "bootstrap":
            return False
        case _:
            assert_never(analysis.method)


def minimum_detectable(analysis: Analysis, result: AnalysisResult) -> MinimumDetectable | None:
    """(t(1 - alpha, n - 1) + t(power, n - 1)) sd / sqrt(n), with alpha / 2 for two-sided tests; None without an sd.

    None too for a test of equivalence, which has no effect to detect. H. Bloom, Minimum detectable effects, Evaluation Review 19 (1995) 547-556. Conditional on the sd that was
    observed, and about the test of no effect, not about other thresholds of the gates.
    """
    error = standard_error(analysis, result)
    if error is None or result.contrast is None or analysis.method == "tost":
        return None
    from scipy.special import stdtrit

    freedom = result.n_units - 1
    level = 1 - display_tail(analysis.side, exact(analysis.alpha))
    for_test, for_power = float(stdtrit(freedom, float(level))), float(stdtrit(freedom, POWER))
    return MinimumDetectable(
        effect=significant((for_test + for_power) * error), power=POWER,
        formula=f"(t({float(level):g}, {freedom}) + t({POWER:g}, {freedom})) sd / sqrt(n) = ({for_test:.4f} + {for_power:.4f})"
        f" x {result.sd:.6g} / sqrt({result.n_units}), conditional on the observed sd (Bloom 1995)",
    )  # fmt: skip


def margins(analysis: Analysis, result: AnalysisResult) -> Iterator[Margin]:
    """Every comparison that a gate makes on a known statistic."""
    error = standard_error(analysis, result)
    for threshold in result.thresholds:
        observed = result.statistics.get(threshold.statistic)
        if observed is None:
            continue
        distance: float | None = observed - threshold.constant
        in_errors = error
        if threshold.statistic == "reject" or (threshold.statistic == "p" and threshold.constant == analysis.alpha):
            found = _beyond_zero(analysis.side, result)
            if found is None:  # the test is not the bound's: what is left is the distance of p
                distance, in_errors = analysis.alpha - (result.statistics["p"] or 0.0), None
            else:
                distance = found
        elif threshold.statistic == "p":
            in_errors = None
        assert distance is not None
        yield Margin(
            gate=threshold.gate, role=threshold.role,
            comparison=f"{threshold.statistic} {threshold.operator} {threshold.constant:g}", observed=observed,
            distance=significant(distance),
            standard_errors=None if in_errors is None else significant(distance / in_errors),
        )  # fmt: skip


def _beyond_zero(side: Side, result: AnalysisResult) -> float | None:
    """By how much the bound that pairs with the test is beyond 0; None where test and bound do not say the same."""
    found: float | None
    match side:
        case "greater":
            found = result.statistics["lower"]
        case "less":
            upper = result.statistics["upper"]
            found = None if upper is None else -upper
        case "two_sided":
            low, high = result.statistics["ci_low"], result.statistics["ci_high"]
            paired = abs(result.ci_level - (1 - result.alpha)) < 1e-9
            found = max(low, -high) if paired and low is not None and high is not None else None
        case _:
            assert_never(side)
    return found if found is not None and (found > 0) == bool(result.statistics.get("reject")) else None
