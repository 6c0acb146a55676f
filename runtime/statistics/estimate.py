"""What every method returns, and the arithmetic they share.

Data are integers on a common denominator, so sums, ties and p-values are exact. Numbers that need a
root or a quantile are rounded to 12 decimals (p from a distribution function: 12 significant
digits), which removes the last bits where two correct platforms may differ.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import assert_never

from epc.compiler.contract.manifest import Side

EXACT_LIMIT = 2**40
"""Largest common denominator that is used as it is."""
FIXED_POINT = 10**9
"""Denominator of the fixed point beyond EXACT_LIMIT."""
FIXED_POINT_NOTE = (
    " The values' common denominator exceeds 2^40, so they were rounded half-even to a fixed point of 10^-9."
)
DECIMALS = 12


class InapplicableError(ValueError):
    """The method is not defined for these data; the message says why, and the statistics are unknown."""


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """Values as integers: value i is numerators[i] / denominator."""

    numerators: tuple[int, ...]
    denominator: int
    unrounded_mean: Fraction | None = None
    """Mean of the values as they came, where they were put on the fixed point of 10^-9."""

    @property
    def rounded(self) -> bool:
        return self.unrounded_mean is not None

    @property
    def n(self) -> int:
        return len(self.numerators)

    @cached_property
    def counts(self) -> Counter[int]:
        """How many values have each numerator."""
        return Counter(self.numerators)

    @cached_property
    def total(self) -> int:
        return sum(self.numerators)

    @cached_property
    def mean(self) -> Fraction:
        """Of the numerators: what resampled means are compared with."""
        return Fraction(self.total, self.n * self.denominator)

    @property
    def estimate(self) -> Fraction:
        """Mean of the values themselves, exact: what a threshold is compared with."""
        return self.mean if self.unrounded_mean is None else self.unrounded_mean

    @cached_property
    def scatter(self) -> int:
        """n sum x^2 - (sum x)^2 of the numerators: n (n - 1) denominator^2 times the sample variance."""
        return self.n * sum(m * x * x for x, m in self.counts.items()) - self.total**2

    @cached_property
    def cubes(self) -> int:
        """sum (n x - sum x)^3 over the numerators: n^4 denominator^3 times the third central moment."""
        n, total = self.n, self.total
        return sum(m * (n * x - total) ** 3 for x, m in self.counts.items())

    @cached_property
    def largest(self) -> int:
        """Of the numerators' magnitudes."""
        return max(abs(x) for x in self.counts)

    @property
    def sd(self) -> float | None:
        """Sample standard deviation (n - 1), None below two values."""
        if self.n < 2:
            return None
        return tidy(math.sqrt(self.scatter / (self.n * (self.n - 1) * self.denominator**2)))

    @property
    def skewness(self) -> float | None:
        """Moment skewness g1 = m3 / m2^1.5, None where the values do not vary."""
        if self.scatter == 0:
            return None
        return tidy(math.copysign(math.sqrt(self.cubes**2 / (self.n**2 * self.scatter**3)), self.cubes))


def exact_sum(values: Iterable[Fraction]) -> Fraction:
    """`sum`, over integers as far as denominators repeat, as those of means of equally many scores do."""
    numerators: dict[int, int] = {}
    for value in values:
        numerators[value.denominator] = numerators.get(value.denominator, 0) + value.numerator
    return sum((Fraction(numerator, denominator) for denominator, numerator in numerators.items()), Fraction(0))


def on_lattice(values: Sequence[Fraction]) -> Lattice:
    """Values on their least common denominator; beyond 2^40 on a fixed point of 10^-9, half-even."""
    denominator = 1
    for value in values:
        denominator = math.lcm(denominator, value.denominator)
        if denominator > EXACT_LIMIT:
            numerators = tuple(round(value * FIXED_POINT) for value in values)
            exact_mean = exact_sum(values) / len(values)
            return Lattice(numerators=numerators, denominator=FIXED_POINT, unrounded_mean=exact_mean)
    return Lattice(numerators=tuple(int(value * denominator) for value in values), denominator=denominator)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    statistics: dict[str, float]
    """delta (or value), p, reject, lower, upper, ci_low, ci_high; wilson has no p and no reject."""
    ci_level: float
    definition: str
    sd: float | None
    skewness: float | None


def tidy(value: float) -> float:
    """Round to 12 decimals, without a negative zero."""
    return round(value, DECIMALS) + 0.0


def significant(value: float) -> float:
    """Round to 12 significant digits: for p-values from a distribution function."""
    return float(f"{value:.12g}")


def exact(alpha: float) -> Fraction:
    """The decimal a person wrote, not its nearest binary fraction."""
    return Fraction(repr(alpha))


def rank(resamples: int, tail: Fraction) -> int:
    """floor((B + 1) tail): which order statistic, from either end, is the quantile; 0 when there is none."""
    return math.floor((resamples + 1) * tail)


def display_tail(side: Side, alpha: Fraction) -> Fraction:
    """Mass on each side of the displayed interval: alpha for one-sided tests, alpha / 2 for two-sided ones."""
    match side:
        case "greater" | "less":
            return alpha
        case "two_sided":
            return alpha / 2
        case _:
            assert_never(side)


def interval_tail(side: Side, alpha: Fraction, interval: float | None) -> Fraction:
    """Mass on each side of the interval shown: of the registered level, or of the one that pairs with the test."""
    return display_tail(side, alpha) if interval is None else (1 - exact(interval)) / 2


def against(side: Side, margin: Fraction) -> Fraction:
    """The value that a test of non-inferiority rejects: -margin where higher is better, margin where lower is."""
    match side:
        case "greater":
            return -margin
        case "less":
            return margin
        case "two_sided":
            raise InapplicableError("non-inferiority has one side: the one on which the treatment may not be worse")
        case _:
            assert_never(side)


def p_of(side: Side, greater: Fraction, less: Fraction) -> Fraction:
    """The p-value of a side; two-sided is twice the smaller one, at most 1."""
    match side:
        case "greater":
            return greater
        case "less":
            return less
        case "two_sided":
            return min(Fraction(1), 2 * min(greater, less))
        case _:
            assert_never(side)


def side_text(side: Side) -> str:
    match side:
        case "greater":
            return "one-sided, greater"
        case "less":
            return "one-sided, less"
        case "two_sided":
            return "two-sided, twice the smaller one-sided p, at most 1"
        case _:
            assert_never(side)


def shown_text(paired: Fraction, interval: Fraction | None, *, own: bool, inverts: bool) -> str:
    """How the displayed interval is defined.

    `paired` is the level that pairs with the test, `interval` the registered one or None; `own` is False for
    the percentile interval beside a test of another definition; `inverts` when bounds and test say the same.
    """
    agree = ", so that interval and test agree" if inverts else ""
    if interval is None:
        return f"the interval shown is two-sided at {percent(paired)}{agree}"
    what = "" if own else " percentile interval of the same resamples"
    start = f"the interval shown is the two-sided{what or ' interval'} at {percent(interval)} registered for display"
    if own and interval == paired:
        return start + agree
    return f"{start}: the test pairs with {'the one' if own else 'its own'} at {percent(paired)}, so interval and test may disagree"


def percent(level: Fraction) -> str:
    return f"{float(100 * level):g}%"


Bound = Callable[[Fraction], float]
"""End of an interval as a function of the mass beyond it."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    low: Bound
    high: Bound


def assemble(
    *,
    differences: Lattice | None,
    side: Side,
    alpha: float,
    interval: float | None,
    p: float | Fraction,
    bounds: Bounds,
    limit: float,
    definition: str,
    inverts: bool = True,
    percentile: Bounds | None = None,
    estimate: Fraction | None = None,
) -> Estimate:
    """The estimate of a contrast from its p and its bounds.

    `limit` is hi - lo of the metric's scale: differences lie in [-limit, limit], and bounds are
    clipped to it, since values outside are impossible. `inverts` is False where the bounds are wider
    than the test implies. `interval` is the registered level of the displayed interval, None for the
    one that pairs with the test; `percentile` gives its ends where they are not those of `bounds`.
    `estimate` is what delta is where it is not the mean of the differences; where the arms are not
    paired there are none, and it must be given.
    """
    if estimate is None:
        assert differences is not None
        estimate = differences.estimate
    level = exact(alpha)
    paired = 1 - 2 * display_tail(side, level)
    shown = paired if interval is None else exact(interval)
    display = bounds if interval is None or percentile is None else percentile
    tail = (1 - shown) / 2

    def clipped(value: float) -> float:
        return tidy(min(max(value, -limit), limit))

    said = shown_text(paired, None if interval is None else shown, own=display is bounds, inverts=inverts)
    return Estimate(
        statistics={
            "delta": tidy(float(estimate)),
            "p": float(p),
            "reject": float((exact(p) if isinstance(p, float) else p) < level),
            "lower": clipped(bounds.low(level)),
            "upper": clipped(bounds.high(level)),
            "ci_low": clipped(display.low(tail)),
            "ci_high": clipped(display.high(tail)),
        },
        ci_level=float(shown),
        definition=f"{definition} reject is p < {float(level):g}. lower and upper are one-sided bounds at"
        f" {percent(1 - level)}; {said}."
        + (FIXED_POINT_NOTE if differences is not None and differences.rounded else ""),
        sd=differences.sd if differences is not None else None,
        skewness=differences.skewness if differences is not None else None,
    )


@dataclass(frozen=True, kw_only=True)
class NoSpread:
    """Where every difference is the same: no standard error, so no t.

    p is that of the sign flip, 2^-n where the mean is on the tested side and 1 where it is not.
    Bounds are delta -+ (1 - tail^(1/n)) times the distance to the end of the scale: had a share
    above 1 - tail^(1/n) of units another value, n alike would have a probability below the tail.
    """

    differences: Lattice
    limit: float

    def p(self, side: Side, floor: Fraction = Fraction(0)) -> Fraction:
        """`floor` is the resolution of a resampling method, 1 / (B + 1)."""
        rare = max(Fraction(1, 2**self.differences.n), floor)
        total = self.differences.total
        return p_of(side, rare if total > 0 else Fraction(1), rare if total < 0 else Fraction(1))

    @property
    def bounds(self) -> Bounds:
        return Bounds(low=self.low, high=self.high)

    def low(self, tail: Fraction) -> float:
        delta = float(self.differences.mean)
        return delta - self._share(tail) * (delta + self.limit)

    def high(self, tail: Fraction) -> float:
        delta = float(self.differences.mean)
        return delta + self._share(tail) * (self.limit - delta)

    def _share(self, tail: Fraction) -> float:
        return float(1 - float(tail) ** (1 / self.differences.n))


NO_SPREAD_TEXT = (
    " All differences are equal here, so there is no standard error: p is the sign flip's, and the bounds are"
    " delta -+ (1 - alpha^(1/n)) times the distance to the end of the scale, which can be wider than the test implies."
)
