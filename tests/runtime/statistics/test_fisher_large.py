"""Fisher's test of tables whose exact weights would have hundreds of thousands of digits."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from epc.runtime.statistics import fisher


def test_the_fixed_point_is_the_exact_p(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(3)
    for _ in range(100):
        n1 = draw.randint(30, 200)
        n2 = n1 if draw.random() < 0.5 else draw.randint(30, 200)  # alike rows have tied tables
        first, second = draw.randint(0, n1), draw.randint(0, n2)
        exact = fisher.fisher_two_sided(first, n1, second, n2)
        with monkeypatch.context() as patched:
            patched.setattr(fisher, "EXACT_TO", 0)
            near = fisher.fisher_two_sided(first, n1, second, n2)
        assert abs(near - exact) <= exact / 10**30 + Fraction(1, 10**140)


@pytest.mark.parametrize(
    ("table", "p"),  # scipy 1.17.1, stats.fisher_exact
    [
        ((2_500, 2_500_000, 2_600, 2_500_000), 0.16544002),
        ((50_000, 2_500_000, 51_000, 2_500_000), 0.00149476),
        ((2_500, 2_500_000, 2_500, 2_500_000), 1.0),
        ((100_000, 5_000_000, 0, 5_000_000), 0.0),
    ],
)
def test_millions(table: tuple[int, int, int, int], p: float) -> None:
    assert float(fisher.fisher_two_sided(*table)) == pytest.approx(p, rel=1e-5)
