"""The bias correction and acceleration of the BCa bootstrap, and what they make of a tail.

B. Efron, Better bootstrap confidence intervals, JASA 82 (1987) 171-185; B. Efron and R. Tibshirani, An
Introduction to the Bootstrap, 1993, chapter 14.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist

from epc.runtime.statistics.estimate import Lattice, significant

_NORMAL = NormalDist()


@dataclass(frozen=True, kw_only=True)
class Correction:
    """z0 = Phi^-1 of (1 + 2 #{mean* < mean} + #{mean* = mean}) / (2 (B + 1)), so half of the ties are below;
    a = sum (x - mean)^3 / (6 (sum (x - mean)^2)^1.5), the jackknife's acceleration of a mean."""

    bias: float
    acceleration: float

    @classmethod
    def of(cls, differences: Lattice, below: int, equal: int, resamples: int) -> Correction:
        """From the counts of resampled means below and at the mean; the differences must vary."""
        ratio = Fraction(differences.cubes**2, (differences.n * differences.scatter) ** 3)
        return cls(
            bias=_quantile(Fraction(1 + 2 * below + equal, 2 * (resamples + 1))),
            acceleration=math.copysign(math.sqrt(ratio), differences.cubes) / 6,
        )

    @property
    def mirrored(self) -> Correction:
        """That of the differences with the other sign."""
        return Correction(bias=-self.bias, acceleration=-self.acceleration)

    def tail(self, tail: Fraction) -> Fraction:
        """Mass of the resampled means below the lower bound at `tail`, to 12 digits: Phi(z0 + y / (1 - a y)) with
        y = z0 + Phi^-1(tail). 0 or 1 where 1 - a y is not positive: no mean or every mean is beyond."""
        if tail <= 0:
            return Fraction(0)
        y = self.bias + _quantile(tail)
        room = 1 - self.acceleration * y
        if room <= 0:
            return Fraction(0 if y < 0 else 1)
        return Fraction(repr(significant(_NORMAL.cdf(self.bias + y / room))))

    def level(self, mass: Fraction) -> float:
        """The tail whose bound has `mass` below it: the inverse of `tail`."""
        if mass >= 1:
            return 1.0
        y = _quantile(mass) - self.bias
        room = 1 + self.acceleration * y
        if room <= 0:
            return 0.0 if y < 0 else 1.0
        return significant(_NORMAL.cdf(y / room - self.bias))


def _quantile(mass: Fraction) -> float:
    """Phi^-1, odd about 1/2 to the last bit."""
    return -_NORMAL.inv_cdf(float(1 - mass)) if mass > Fraction(1, 2) else _NORMAL.inv_cdf(float(mass))
