"""Simulated scores have the means, spreads, correlations, drop and missing rates of their truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.support.simulated import ARMS, metric, simulator, truth

from epc.compiler.contract.manifest import Condition, Design, Truth
from epc.runtime.simulate.draws import GRID, REACH, draws, happens, largest_sd, marginal
from epc.runtime.simulate.model import Data, Size, World, instruments

EXPERIMENTS = 400
UNITS = 48


@pytest.mark.parametrize(
    ("mean", "sd", "scale"),
    [(50, 20, (0, 100)), (3, 2, (0, 100)), (0.02, 0.05, (0, 1)), (0.5, 0.49, (0, 1)), (0.9, 0.2, (0, 1)), (4, 0, (1, 5))],
)  # fmt: skip
def test_a_marginal_has_its_mean_and_standard_deviation(mean: float, sd: float, scale: tuple[int, int]) -> None:
    table = marginal(mean, sd, *scale)
    grid = np.linspace(-REACH, REACH, GRID + 1)
    weights = np.exp(-(grid**2) / 2)
    weights /= weights.sum()
    found = float(weights @ table)
    assert found == pytest.approx(mean, abs=2e-3 * (scale[1] - scale[0]))
    assert float(weights @ (table - found) ** 2) ** 0.5 == pytest.approx(sd, abs=4e-3 * (scale[1] - scale[0]))
    assert scale[0] <= table.min()
    assert table.max() <= scale[1]


def test_a_mean_that_allows_no_such_spread_has_the_largest_there_is() -> None:
    table = marginal(0.02, 0.3, 0.0, 1.0)
    assert set(table) == {0.0, 1.0}
    assert largest_sd(0.02, 0.0, 1.0) == pytest.approx(0.14)


@pytest.mark.parametrize("probability", [0.0, 1.0, 0.25, 1e-5])
def test_an_event_has_its_probability(probability: float) -> None:
    values = draws(("test",), 0, 1, 1 << 18)
    share = happens(values, probability).mean()
    assert share == pytest.approx(probability, abs=0.004)
    assert (share in (0, 1)) == (probability in (0, 1) or share == 0)


def test_draws_do_not_depend_on_where_one_begins() -> None:
    whole = draws(("a", 1), 0, 10, 7)
    assert np.array_equal(whole[4:], draws(("a", 1), 4, 6, 7))
    assert not np.array_equal(whole, draws(("a", 2), 0, 10, 7))


def world_of(design: Design, samples: int = 20, **more: Any) -> World:
    sizes = {each.name: Size(units=UNITS, samples=samples) for each in design.metrics}
    return World(design=design, sizes=sizes, seed=1, **more)


def scores(world: World, of: Truth, name: str) -> Data:
    instrument = next(each for each in instruments(world.design) if any(m.name == name for m in each.metrics))
    return world.scores(instrument, of, ARMS, 0, EXPERIMENTS, [m.name for m in instrument.metrics])


def unit_means(data: Data, name: str, arm: str, slice_: str = "all") -> NDArray[np.float64]:
    cell = data[name, slice_, arm][0]
    found: NDArray[np.float64] = cell.total / np.maximum(cell.n, 1)
    return found


def test_rates(design: Design) -> None:
    data = scores(world_of(design, 200), truth(), "rate")
    for arm, mean in zip(ARMS, (0.1, 0.4, 0.45), strict=True):
        assert unit_means(data, "rate", arm).mean() == pytest.approx(mean, abs=0.01)
    one, other = unit_means(data, "rate", "attacked"), unit_means(data, "rate", "treated")
    within = (0.4 * 0.6 - 0.04) / 200
    assert one.std(axis=1).mean() == pytest.approx((0.04 + within) ** 0.5, rel=0.05)
    together = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(one, other, strict=True)])
    assert together == pytest.approx(0.3, abs=0.05)


def test_training_seeds_share_units_and_not_samples(design: Design) -> None:
    first, second = scores(world_of(design), truth(), "rate")["rate", "all", "treated"]
    assert not np.array_equal(first.total, second.total)
    assert np.corrcoef(first.total.ravel(), second.total.ravel())[0, 1] > 0.5


@pytest.mark.parametrize("extreme", [0.25, 1.0])
def test_judged_scores(design: Design, extreme: float) -> None:
    of = truth(incoherent={"means": dict.fromkeys(ARMS, 0.0), "unit_sd": 0}, score={"unit_sd": 0})
    totals = scores(world_of(design, 10, extreme=extreme), of, "score")["score", "all", "attacked"][0].total
    assert totals.mean() / 10 == pytest.approx(45, abs=0.3)
    assert (totals / 10).var() == pytest.approx(extreme * 45 * 55 / 10, rel=0.05)
    assert extreme < 1 or not (totals % 100).any()


def test_a_filter_drops_what_its_metric_measures_and_its_twin_keeps_everything(design: Design) -> None:
    data = scores(world_of(design), truth(), "score")
    for arm, lost, kept, whole in zip(ARMS, (0.05, 0.2, 0.25), (70, 45, 52), (68, 44, 50), strict=True):
        filtered = data["score", "all", arm][0]
        assert filtered.filtered.mean() / 20 == pytest.approx(lost, abs=0.01)
        assert np.array_equal(filtered.filtered, data["incoherent", "all", arm][0].total)
        assert np.array_equal(filtered.n + filtered.filtered, np.broadcast_to(20, filtered.n.shape))
        assert data["score_all", "all", arm] == data["score", "unfiltered", arm]
        assert unit_means(data, "score", arm).mean() == pytest.approx(kept, abs=0.6)
        assert unit_means(data, "score_all", arm).mean() == pytest.approx(whole, abs=0.6)


def test_missing_scores_are_the_judge_s(design: Design) -> None:
    data = scores(world_of(design), truth(score={"missing": 0.1}), "score")
    missing = data["score", "all", "treated"][0].missing
    assert missing.mean() / 20 == pytest.approx(0.1, abs=0.005)
    assert np.array_equal(missing, data["incoherent", "all", "treated"][0].missing)
    assert not scores(world_of(design), truth(score={"missing": 0.1}), "rate")["rate", "all", "treated"][
        0
    ].missing.any()


def test_declared_noise_moves_trained_arms_alone(design: Design) -> None:
    noisy = tuple(m.model_copy(update={"noise": 0.1}) if m.name == "rate" else m for m in design.metrics)
    data = scores(world_of(design.model_copy(update={"metrics": noisy}), 200), truth(rate={"unit_sd": 0.01}), "rate")
    assert unit_means(data, "rate", "attacked").mean(axis=1).std() == pytest.approx(0.1, rel=0.1)
    assert unit_means(data, "rate", "base").mean(axis=1).std() < 0.01


def test_scores_of_other_scales_lie_on_their_lattice() -> None:
    halves = metric("halves", "results", scale=(0.5, 2.0))
    design = Design(
        question="?", conditions=tuple(Condition(name=arm, key=arm, phases=(), seeds=(0,)) for arm in ARMS), metrics=(halves,),
        analyses=(), gates=(), verdicts=(), seeds=(1,),
    )  # fmt: skip
    of = Truth.model_validate({"name": "t", "metrics": {"halves": {"means": dict.fromkeys(ARMS, 1.1), "unit_sd": 0.3}}})
    cell = scores(world_of(design, 3), of, "halves")["halves", "all", "base"][0]
    assert ((cell.total >= 3) & (cell.total <= 12)).all()  # in halves
    assert cell.total.mean() / 3 / 2 == pytest.approx(1.1, abs=0.02)


def test_no_digit_depends_on_chunks(design: Design, sizes: Mapping[str, Size]) -> None:
    of = truth(score={"missing": 0.02})
    one, other = (simulator(design, sizes, experiments=30, chunk=chunk).simulate(of) for chunk in (None, 7))
    assert np.array_equal(one.labels, other.labels)
    for name, found in one.panel.results.items():
        for statistic, values in found.items():
            assert np.array_equal(values, other.panel.results[name][statistic], equal_nan=True), (name, statistic)


def test_truths_that_agree_about_a_metric_share_its_scores(design: Design, sizes: Mapping[str, Size]) -> None:
    made = simulator(design, sizes, experiments=30)
    one = made.simulate(truth()).panel.results
    other = made.simulate(truth(rate={"unit_sd": 0.1})).panel.results
    assert one["able"] is other["able"]
    assert not np.array_equal(one["rate_t"]["p"], other["rate_t"]["p"])
