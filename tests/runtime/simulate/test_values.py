"""Arrays of unit means against the fractions that the engine computes."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from epc.compiler.contract.rows import MeasurementRow
from epc.runtime.measurements import Unit
from epc.runtime.simulate.model import Cell
from epc.runtime.simulate.values import Means, differences, means, on_lattices
from epc.runtime.statistics.estimate import FIXED_POINT, on_lattice

UNITS = 30
EXPERIMENTS = 5


def cells(seeds: int, most: int, *, high: int = 100, holes: bool) -> list[Cell]:
    generator = np.random.default_rng(seeds * most + holes)
    found = []
    for _ in range(seeds):
        shape = (EXPERIMENTS, UNITS)
        missing = generator.integers(0, 2, shape) if holes else np.zeros(shape, dtype=np.int64)
        filtered = generator.integers(0, most, shape) if holes else np.zeros(shape, dtype=np.int64)
        n = np.maximum(most - missing - filtered, 0)
        found.append(Cell(n=n, missing=missing, filtered=filtered, total=generator.integers(0, high * n + 1)))
    return found


def unit(of: Sequence[Cell], experiment: int, place: int, denominator: int) -> Unit:
    rows = {}
    for seed, cell in enumerate(of):
        n, total = int(cell.n[experiment, place]), int(cell.total[experiment, place])
        rows[seed] = MeasurementRow(
            mode="real", condition="a", condition_key="k", seed=seed, metric="m", unit="u", n=n, total=total,
            n_missing=int(cell.missing[experiment, place]), n_filtered=int(cell.filtered[experiment, place]),
            denominator=denominator, value=total / denominator / n if n else None,
        )  # fmt: skip
    return Unit(rows=rows)


def value(found: Means, experiment: int, place: int) -> Fraction | None:
    top, bottom, known = (
        np.broadcast_to(each, (EXPERIMENTS, UNITS)) for each in (found.top, found.bottom, found.known)
    )
    if not known[experiment, place]:
        return None
    return Fraction(int(top[experiment, place]), int(bottom[experiment, place]))


@pytest.mark.parametrize("fill", [None, 0, 100])
@pytest.mark.parametrize(
    ("seeds", "most", "holes"), [(1, 4, False), (1, 3, True), (2, 3, True), (3, 50, True), (5, 50, True)]
)
def test_means_are_those_of_the_engine(seeds: int, most: int, holes: bool, fill: int | None) -> None:
    of = cells(seeds, most, holes=holes)
    found = means(of, 2, fill)
    emptied = np.broadcast_to(found.emptied, (EXPERIMENTS, UNITS))
    for experiment in range(EXPERIMENTS):
        for place in range(UNITS):
            expected = unit(of, experiment, place, 2)
            filled = None if fill is None else Fraction(fill, 2)
            assert value(found, experiment, place) == expected.value(range(seeds), filled)
            assert emptied[experiment, place] == (
                expected.emptied(range(seeds)) and expected.value(range(seeds), filled) is None
            )


@pytest.mark.parametrize(("seeds", "most", "rounds"), [(1, 4, False), (1, 60, True), (2, 9, False), (3, 50, True)])
def test_lattices_are_those_of_the_engine(seeds: int, most: int, rounds: bool) -> None:
    generator = np.random.default_rng(most)
    arms = []
    for _ in range(2):
        arm = cells(seeds, most, holes=False)
        arms.append([
            Cell(n=(n := generator.integers(1, most + 1, cell.n.shape)), missing=cell.missing, filtered=cell.filtered, total=np.minimum(cell.total, 100 * n))
            for cell in arm
        ])  # fmt: skip
    one, other = (means(arm, 1) for arm in arms)
    found = on_lattices(*differences(one, other))
    for experiment in range(EXPERIMENTS):
        values = [_known(one, experiment, place) - _known(other, experiment, place) for place in range(UNITS)]
        expected = on_lattice(values)
        assert found.rounded[experiment] == expected.rounded
        assert found.exact_mean(experiment) == sum(values, Fraction(0)) / UNITS
        assert tuple(found.numerators[experiment].tolist()) == expected.numerators
        assert found.denominators[experiment] == expected.denominator
    assert (found.denominators == FIXED_POINT).any() == rounds


def _known(found: Means, experiment: int, place: int) -> Fraction:
    number = value(found, experiment, place)
    assert number is not None
    return number
