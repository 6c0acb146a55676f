"""Every method from measurement rows: the same numbers as from the data, in any order, at the corners, and unknown."""

from __future__ import annotations

import random
from collections.abc import Mapping
from fractions import Fraction
from statistics import median
from typing import Any

import pytest

from epc.compiler.contract.decision import AnalysisResult
from epc.compiler.contract.manifest import Analysis, Condition, Contrast, Design, Metric
from epc.compiler.contract.rows import MeasurementRow
from epc.runtime.estimates import analysis_result, incomplete
from epc.runtime.measurements import group
from epc.runtime.statistics import Resamples
from epc.runtime.statistics.cluster_bootstrap import Group, two_level_bootstrap
from epc.runtime.statistics.crossed_bootstrap import crossed_bootstrap
from epc.runtime.statistics.estimate import on_lattice
from epc.runtime.statistics.mcnemar import mcnemar
from epc.runtime.statistics.newcombe import newcombe
from epc.runtime.statistics.paired_t import paired_t_equivalence
from epc.runtime.statistics.sign_test import sign_test
from epc.runtime.statistics.stratified_bootstrap import stratified_bootstrap

UNITS = [f"u{index:02d}" for index in range(24)]
Scores = Mapping[tuple[str, int, str], list[int]]
"""(arm, training seed, unit) -> scores of the samples."""


def scores(seeds: tuple[int, ...], n: int, top: int = 1) -> dict[tuple[str, int, str], list[int]]:
    drawn = random.Random(4)
    arms = {"base": (0,), "tuned": seeds}
    return {
        (arm, seed, unit): [min(top, drawn.randint(0, top + (arm == "tuned"))) for _ in range(n)]
        for arm, of in arms.items()
        for seed in of
        for unit in UNITS
    }


def row(arm: str, seed: int, unit: str, found: list[int], *, missing: int = 0, stored: bool = True) -> MeasurementRow:
    return MeasurementRow(
        mode="real", condition=arm, condition_key=arm, seed=seed, metric="m", unit=unit, n=len(found), n_missing=missing,
        total=sum(found), value=sum(found) / len(found) if found else None, scores=tuple(sorted(found)) if stored else None,
    )  # fmt: skip


def rows(found: Scores, **more: Any) -> list[MeasurementRow]:
    return [row(*key, values, **more) for key, values in found.items()]


def design(method: str, seeds: tuple[int, ...], top: int = 1, missing: str = "fail", **options: Any) -> Design:
    analysis = Analysis.model_validate(
        {
            "name": "a", "metric": "m", "contrast": Contrast(treatment="tuned", control="base"), "method": method,
            "side": "greater", "alpha": 0.05, **options,
        }
    )  # fmt: skip
    return Design(
        question="?", gates=(), verdicts=(), seeds=seeds, analyses=(analysis,),
        conditions=(
            Condition(name="base", key="base", phases=(), seeds=(0,)),
            Condition(name="tuned", key="tuned", phases=("tune",), seeds=seeds),
        ),
        metrics=(
            Metric.model_validate(
                {
                    "name": "m", "kind": "judge", "source": "s", "unit": "prompt", "scale": (0, top), "better": "higher",
                    "missing": missing,
                }
            ),
        ),
    )  # fmt: skip


def result(one: Design, measured: list[MeasurementRow], **more: Any) -> AnalysisResult:
    return analysis_result(one, one.analyses[0], group(measured), **more)


def mean(values: list[int]) -> Fraction:
    return Fraction(sum(values), len(values))


BOOT = {"p": "percentile", "resamples": 999, "seed": 3}
DRAWS: dict[str, Any] = {"p": "percentile", "side": "greater", "alpha": 0.05, "resamples": 999, "seed": 3}


@pytest.mark.parametrize("population", ["random", "fixed"])
@pytest.mark.parametrize(("method", "levels"), [("two_level", ()), ("cluster_bootstrap", ("unit", "sample"))])
def test_units_then_samples(population: str, method: str, levels: tuple[str, ...]) -> None:
    found = scores((7,), 5, top=4)
    one = design(method, (7,), 4, levels=levels, population=population, **BOOT)
    groups = {
        unit: Group(
            treatment=tuple(map(Fraction, sorted(found["tuned", 7, unit]))),
            control=tuple(map(Fraction, sorted(found["base", 0, unit]))),
        )
        for unit in UNITS
    }
    if population == "fixed":
        expected = stratified_bootstrap(groups, limit=4, **DRAWS)
    else:
        expected = two_level_bootstrap(groups, weights="equal", limit=4, **DRAWS)
    measured = rows(found)
    assert result(one, measured).statistics == expected.statistics
    assert result(one, measured[::-1]).statistics == expected.statistics
    unknown = result(one, rows(found, stored=False))
    assert "the scores of single samples are not known" in (unknown.unknown_because or "")
    assert set(unknown.statistics.values()) == {None}


def test_seeds_and_units() -> None:
    found = scores((7, 8, 9), 5, top=4)
    one = design("cluster_bootstrap", (7, 8, 9), 4, levels=("seed", "unit"), **BOOT)
    differences = {
        str(seed): {unit: mean(found["tuned", seed, unit]) - mean(found["base", 0, unit]) for unit in UNITS}
        for seed in (7, 8, 9)
    }
    expected = crossed_bootstrap(differences, limit=4, **DRAWS)
    measured = rows(found, stored=False)
    assert result(one, measured).statistics == expected.statistics
    assert result(one, measured[::-1], shared=Resamples()).statistics == expected.statistics
    paired = result(design("paired_bootstrap", (7, 8, 9), 4, **BOOT), measured)
    assert paired.statistics["delta"] == expected.statistics["delta"], "units and seeds weigh the same in both"


@pytest.mark.parametrize(("level", "clusters"), [("unit", 24), ("seed", 3)])
def test_whole_clusters(level: str, clusters: int) -> None:
    measured = rows(scores((7, 8, 9), 5, top=4), stored=False)
    population = "fixed" if level == "seed" else "random"
    one = result(design("cluster_bootstrap", (7, 8, 9), 4, levels=(level,), population=population, **BOOT), measured)
    assert f"({clusters} at the top, 72 values), drawn by {level}" in one.definition
    assert one.statistics["delta"] == result(design("paired_t", (7, 8, 9), 4), measured).statistics["delta"]


def test_one_training_seed_cannot_be_resampled() -> None:
    one = result(design("cluster_bootstrap", (7,), levels=("seed",), population="fixed", **BOOT), rows(scores((7,), 2)))
    assert "one training seed: nothing can be resampled" in (one.unknown_because or "")


def test_methods_of_unit_values() -> None:
    found = scores((7,), 1)
    treatment, control = (
        {unit: mean(found[arm, seed, unit]) for unit in UNITS} for arm, seed in (("tuned", 7), ("base", 0))
    )
    differences = on_lattice([treatment[unit] - control[unit] for unit in UNITS])
    exact = mcnemar(treatment, control, p="exact", side="greater", alpha=0.05)
    assert result(design("mcnemar", (7,), p="exact"), rows(found)).statistics == exact.statistics
    signs = sign_test(differences, side="greater", alpha=0.05, limit=1)
    assert result(design("sign_test", (7,)), rows(found)).statistics == signs.statistics
    alike = paired_t_equivalence(differences, margin=0.3, alpha=0.05, limit=1)
    tost = result(design("tost", (7,), margin=0.3, side="two_sided"), rows(found))
    assert (tost.statistics, tost.ci_level) == (alike.statistics, 0.9)
    assert result(design("tost", (7,), margin=0.3, side="two_sided"), []).ci_level == 0.9


def test_the_estimate_of_a_sign_test_is_a_median_with_every_seed() -> None:
    found = scores((7, 8), 5, top=4)
    one = result(design("sign_test", (7, 8), 4), rows(found))
    expected = {
        str(seed): float(median(mean(found["tuned", seed, u]) - mean(found["base", 0, u]) for u in UNITS))
        for seed in (7, 8)
    }
    assert one.per_seed == expected


def test_arms_of_other_units() -> None:
    found = scores((7,), 1)
    split = {key: value for key, value in found.items() if (key[2] < "u14") == (key[0] == "tuned")}
    treatment = {unit: mean(split["tuned", 7, unit]) for unit in UNITS[:14]}
    control = {unit: mean(split["base", 0, unit]) for unit in UNITS[14:]}
    one = design("newcombe", (7,))
    computed = result(one, rows(split))
    assert computed.statistics == newcombe(treatment, control, side="greater", alpha=0.05).statistics
    assert (computed.n_units, computed.n_samples, computed.n_units_missing) == (24, 24, 0)
    assert not incomplete(one, one.analyses[0], group(rows(split)))
    both = result(one, rows(found))
    assert "is in both; newcombe_paired is for the same units" in (both.unknown_because or "")


def test_the_corners_fill_samples_that_are_missing() -> None:
    found = scores((7,), 4, top=4)
    measured = rows(found)
    at = next(index for index, each in enumerate(measured) if (each.condition, each.unit) == ("tuned", "u03"))
    kept = found["tuned", 7, "u03"][:3]
    measured[at] = row("tuned", 7, "u03", kept, missing=1)
    one = design("two_level", (7,), 4, missing="drop", **BOOT)
    filled = result(one, measured, fills=(Fraction(0), Fraction(4)))
    whole = rows({**found, ("tuned", 7, "u03"): [*kept, 0]})
    assert filled.statistics == result(one, whole).statistics
    assert result(one, measured).statistics != filled.statistics
