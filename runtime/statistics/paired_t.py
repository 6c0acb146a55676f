"""Student's paired t test, against 0, against a margin of non-inferiority, and twice for equivalence.

t = (mean - m0) / (sd / sqrt(n)) on n - 1 degrees of freedom; bounds are mean -+ t quantile times se.

- paired_t: m0 = 0.
- paired_t_noninferiority: m0 = -margin for "greater" (higher is better), +margin for "less".
- paired_t_equivalence (TOST): the larger of the one-sided p against -margin ("greater") and +margin ("less").

Bounds do not depend on m0 and invert the tests: p < alpha and `lower > -margin` say the same, and equivalence
says the same as `lower > -margin and upper < margin`, up to the rounding of the bounds, unless nothing varies.

Student, The probable error of a mean, Biometrika 6 (1908) 1-25; D. Schuirmann, A comparison of the two one-sided
tests procedure and the power approach for assessing the equivalence of average bioavailability, Journal of
Pharmacokinetics and Biopharmaceutics 15 (1987) 657-680. scipy.special has the t distribution, which is all
that is used of it: scipy.stats.ttest_rel sums floats, whose last digits depend on the order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import assert_never

from epc.compiler.contract.manifest import Side
from epc.runtime.statistics.estimate import (
    NO_SPREAD_TEXT,
    Bounds,
    Estimate,
    InapplicableError,
    Lattice,
    NoSpread,
    against,
    assemble,
    exact,
    side_text,
    significant,
)


def paired_t(
    differences: Lattice, *, side: Side, alpha: float, limit: float, interval: float | None = None
) -> Estimate:
    """Estimate a paired contrast from the unit differences; `limit` is hi - lo of the metric's scale.

    `interval` is the registered level of the displayed interval, None for the one that pairs with the test.
    """
    definition = (
        f"Paired t test over {differences.n} units, {differences.n - 1} degrees of freedom (Student 1908);"
        f" {side_text(side)}."
    )
    return _estimate(
        differences, lambda test: test.p(side, Fraction(0)), side=side, alpha=alpha, limit=limit, interval=interval,
        definition=definition,
    )  # fmt: skip


def paired_t_noninferiority(
    differences: Lattice, *, margin: float, side: Side, alpha: float, limit: float, interval: float | None = None
) -> Estimate:
    """Whether the treatment is worse by less than the margin, in units of the metric; p and reject are against it.

    `side` is "greater" where higher is better, "less" where lower is. Raises InapplicableError for a
    two-sided test and for a margin that is not positive.
    """
    null = against(side, _positive(margin))
    definition = (
        f"Paired t test of non-inferiority over {differences.n} units against {float(null):g},"
        f" {differences.n - 1} degrees of freedom (Student 1908); {side_text(side)}."
    )
    return _estimate(
        differences, lambda test: test.p(side, null), side=side, alpha=alpha, limit=limit, interval=interval,
        definition=definition,
    )  # fmt: skip


def paired_t_equivalence(
    differences: Lattice, *, margin: float, alpha: float, limit: float, interval: float | None = None
) -> Estimate:
    """Whether the treatment is neither better nor worse by the margin or more: two one-sided tests, each at alpha.

    The interval that pairs with the test has level 1 - 2 alpha. Raises InapplicableError for a margin that is
    not positive.
    """
    width = _positive(margin)
    definition = (
        f"Two one-sided paired t tests of equivalence (TOST, Schuirmann 1987) over {differences.n} units against"
        f" -{margin:g} and {margin:g}, {differences.n - 1} degrees of freedom; p is the larger one."
    )
    return _estimate(
        differences, lambda test: max(test.p("greater", -width), test.p("less", width)), side="greater", alpha=alpha,
        limit=limit, interval=interval, definition=definition,
    )  # fmt: skip


def _positive(margin: float) -> Fraction:
    if not margin > 0:
        raise InapplicableError(f"a margin is a positive number, not {margin:g}")
    return exact(margin)


def _estimate(
    differences: Lattice, p: Callable[[_Student | _Flat], float | Fraction], *, side: Side, alpha: float, limit: float,
    interval: float | None, definition: str,
) -> Estimate:  # fmt: skip
    if differences.scatter == 0:
        flat = _Flat(differences=differences, limit=limit)
        return assemble(
            differences=differences, side=side, alpha=alpha, interval=interval, limit=limit, bounds=flat.bounds,
            p=p(flat), definition=definition + NO_SPREAD_TEXT, inverts=False,
        )  # fmt: skip
    test = _Student(differences=differences)
    return assemble(
        differences=differences, side=side, alpha=alpha, interval=interval, limit=limit, bounds=test.bounds,
        p=p(test), definition=definition,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Student:
    """The t distribution around differences that vary."""

    differences: Lattice

    @property
    def _se(self) -> float:
        data = self.differences
        return math.sqrt(Fraction(data.scatter, data.n * data.n * (data.n - 1) * data.denominator**2))

    def p(self, side: Side, null: Fraction) -> float:
        from scipy.special import stdtr

        freedom = self.differences.n - 1
        t = float(self.differences.mean - null) / self._se
        match side:
            case "greater":
                p = float(stdtr(freedom, -t))
            case "less":
                p = float(stdtr(freedom, t))
            case "two_sided":
                p = min(1.0, 2 * float(stdtr(freedom, -abs(t))))
            case _:
                assert_never(side)
        return significant(p)

    @property
    def bounds(self) -> Bounds:
        from scipy.special import stdtrit

        mean, se, freedom = float(self.differences.mean), self._se, self.differences.n - 1

        def reach(tail: Fraction) -> float:
            return -float(stdtrit(freedom, float(tail))) * se

        return Bounds(low=lambda tail: mean - reach(tail), high=lambda tail: mean + reach(tail))


@dataclass(frozen=True, kw_only=True)
class _Flat:
    """Differences that are all the same."""

    differences: Lattice
    limit: float

    def p(self, side: Side, null: Fraction) -> Fraction:
        moved = self.differences.mean - null
        same = Lattice(numerators=(moved.numerator,) * self.differences.n, denominator=moved.denominator)
        return NoSpread(differences=same, limit=self.limit).p(side)

    @property
    def bounds(self) -> Bounds:
        return NoSpread(differences=self.differences, limit=self.limit).bounds
