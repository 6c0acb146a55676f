"""The sensitivity panel on constructed results: its numbers, and the verdict that each alternative would give."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.canonical import content_key, sha256_file
from epc.compiler.contract.decision import AnalysisSensitivity, Decision
from epc.compiler.contract.manifest import (
    Analysis,
    Condition,
    Contrast,
    Design,
    Gate,
    Manifest,
    Metric,
    Step,
    VerdictRule,
)
from epc.compiler.predicate import parse
from epc.runtime.decide import decide, decision_text
from epc.runtime.sensitivity.leave_one_out import bootstraps_without_each
from epc.runtime.statistics.estimate import Lattice
from epc.runtime.statistics.paired_bootstrap import paired_bootstrap
from epc.runtime.summary import sensitivity_lines

DARWIN = (49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48)
T, C = "treated", "control"
METRIC = Metric(
    name="m", kind="judge", source="s", unit="prompt", scale=(-200, 200), better="higher", missing="drop", judge="j"
)


def predicate(text: str, *, names: bool = False) -> Any:
    found = parse(text, allow_names=names).predicate
    assert found is not None
    return found


def rule(text: str | None, label: str) -> VerdictRule:
    kind: Any = label.split("_")[0]
    found = None if text is None else predicate(text, names=True)
    return VerdictRule(text=text or "otherwise", predicate=found, label=label, verdict_class=kind)


@dataclass
class Study:
    """One contrast of which the differences, unit by unit, are given; the control is at 0."""

    folder: Path
    differences: tuple[float, ...] = DARWIN
    method: dict[str, Any] = field(default_factory=lambda: {"method": "paired_t"})
    alpha: float = 0.025
    side: str = "greater"
    gates: tuple[tuple[str, Any, str], ...] = (("works", "success", "headline.reject"),)
    verdicts: tuple[VerdictRule, ...] = (rule("works", "SUCCESS"), rule(None, "INCONCLUSIVE"))
    seeds: tuple[int, ...] = (1,)
    metric: dict[str, Any] = field(default_factory=dict)
    samples: dict[int, int] = field(default_factory=dict)
    """Unit -> samples of the treatment; 1 where it is not named."""
    gone: dict[int, int] = field(default_factory=dict)
    """Unit -> missing samples of the treatment."""
    of_seed: dict[int, int] = field(default_factory=dict)
    """Training seed -> what is added to every unit of the treatment."""
    planned: int | None = None
    filtered: int | None = None
    """Of the metric with a filter: what is added to the treatment without it."""

    def design(self) -> Design:
        filter_ = {} if self.filtered is None else {"filter": "coherent >= 50", "empty": "drop"}
        metric = METRIC.model_copy(update={**filter_, **self.metric})
        declared = {"resamples": 9999, "seed": 1} if self.method["method"] == "paired_bootstrap" else {}
        analysis = Analysis.model_validate(
            {
                "name": "headline", "metric": "m", "contrast": Contrast(treatment=T, control=C), "side": self.side,
                "alpha": self.alpha, "confirmatory": True, **declared, **self.method,
            }
        )  # fmt: skip
        return Design(
            question="?",
            conditions=(
                Condition(name=T, key=content_key(T), phases=("a",), seeds=self.seeds),
                Condition(name=C, key=content_key(C), phases=(), seeds=(0,)),
            ),
            metrics=(metric,), analyses=(analysis,), verdicts=self.verdicts, seeds=self.seeds,
            gates=tuple(Gate(name=name, role=role, text=text, predicate=predicate(text)) for name, role, text in self.gates),
            judges=({"name": "j", "model": "x", "rubric_sha256": "0" * 64, "max_missing": 0.9},),  # type: ignore[arg-type]
            units={} if self.planned is None else {"m": self.planned},
        )  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        found = []
        for number, difference in enumerate(self.differences):
            for seed in self.seeds:
                n = self.samples.get(number, 1)
                total = round(difference * n) + self.of_seed.get(seed, 0) * n
                gone = self.gone.get(number, 0)
                found.append(self.row(T, seed, number, n=n, total=total, n_missing=gone))
                if self.filtered is not None:
                    found.append(
                        self.row(
                            T, seed, number, n=n, total=total + self.filtered * n, n_missing=gone, slice="unfiltered"
                        )
                    )
            found.append(self.row(C, 0, number, n=1, total=0))
            if self.filtered is not None:
                found.append(self.row(C, 0, number, n=1, total=0, slice="unfiltered"))
        return found

    def row(self, arm: str, seed: int, number: int, *, n: int, total: int, **more: Any) -> dict[str, Any]:
        return {
            "mode": "real", "condition": arm, "condition_key": content_key(arm), "seed": seed, "metric": "m",
            "slice": "all", "unit": f"unit{number:03d}", "n": n, "n_missing": 0, "total": total, "denominator": 1,
            "value": total / n if n else None, **more,
        }  # fmt: skip

    def write(self, rows: list[dict[str, Any]] | None = None) -> Path:
        bundle = self.folder / "generated" / "study"
        step = Step(
            id="measure", kind="measure", label="measure", needs=(), key=content_key("measure"), script="steps/measure.py",
            outputs=("measurements.jsonl",), recipe={},
        )  # fmt: skip
        manifest = Manifest(
            epc="0", id="study", title="Study", mode="real", spec="specs/study.yaml", spec_sha256="0" * 64,
            lock_sha256="1" * 64, steps=(step,), design=self.design(),
        )  # fmt: skip
        store = bundle / "store" / step.key
        store.mkdir(parents=True, exist_ok=True)
        (bundle / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
        file = store / "measurements.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows or self.rows()), encoding="utf-8")
        record = {
            "id": "measure", "key": step.key, "kind": "measure", "mode": "real", "recipe": {}, "seconds": 1.0,
            "outputs": {file.name: sha256_file(file)}, "versions": {}, "facts": {},
        }  # fmt: skip
        (store / "finished.json").write_text(json.dumps(record), encoding="utf-8")
        return bundle

    def decide(self) -> Decision:
        return decide(self.write())

    def panel(self) -> AnalysisSensitivity:
        (entry,) = self.decide().sensitivity
        return entry


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(folder=tmp_path)


# ------------------------------------------------------------------ definitions of p


def test_p_of_darwins_maize_under_every_definition(study: Study) -> None:
    """Known answers: t .024851, sign flip 863 / 32768, percentile .018589 and shift .007039 with infinitely many draws."""
    found = {each.name: each for each in study.panel().definitions}
    assert list(found) == ["percentile", "shift", "studentized", "bca", "paired_t", "sign_flip"]
    assert found["paired_t"].p == pytest.approx(0.024851, abs=5e-7)
    assert found["sign_flip"].p == 863 / 32768
    assert found["percentile"].p == pytest.approx(0.018589, abs=4e-3)
    assert found["shift"].p == pytest.approx(0.007039, abs=3e-3)
    assert [each.name for each in found.values() if each.registered] == ["paired_t"]


@pytest.mark.parametrize(
    ("alpha", "fragile", "label", "others"),
    [
        (0.08, False, "SUCCESS", set()),
        (0.025, True, "SUCCESS", {"INCONCLUSIVE"}),
        (0.0245, True, "INCONCLUSIVE", {"SUCCESS"}),
        (0.001, False, "INCONCLUSIVE", set()),
    ],
)  # fmt: skip
def test_fragile_is_where_definitions_straddle_alpha(
    study: Study, alpha: float, fragile: bool, label: str, others: set[str]
) -> None:
    study.alpha = alpha
    decision = study.decide()
    (panel,) = decision.sensitivity
    assert (decision.verdict.label, panel.fragile) == (label, fragile)
    assert {each.verdict for each in panel.definitions if each.changes} == others
    assert any("FRAGILE" in line for line in sensitivity_lines(decision)) is fragile


def test_zero_one_data_have_their_own_definitions_too(study: Study) -> None:
    study.differences = (1,) * 12 + (0,) * 8 + (-1,) * 4
    study.metric = {"scale": (0.0, 1.0)}
    rows = [
        {**row, "total": total, "value": float(total)}
        for row, d in zip(study.rows(), [d for d in study.differences for _ in range(2)], strict=True)
        for total in [int(d > 0) if row["condition"] == T else int(d < 0)]
    ]
    (panel,) = decide(study.write(rows)).sensitivity
    found = {each.name: each.p for each in panel.definitions}
    assert list(found)[-2:] == ["newcombe_paired", "mcnemar_exact"]
    assert found["mcnemar_exact"] == pytest.approx(2517 / 65536)  # P(X >= 12), X ~ Binomial(16, 1/2)


def test_an_analysis_of_which_only_the_estimate_is_read_has_no_definitions(study: Study) -> None:
    study.gates = (("works", "kill", "headline.delta < 5"),)
    study.verdicts = (rule("works", "KILL"), rule(None, "INCONCLUSIVE"))
    bundle = study.write()
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["design"]["analyses"][0]["confirmatory"] = False
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    (panel,) = decide(bundle).sensitivity
    assert (panel.definitions, panel.fragile, panel.resamples) == ((), False, None)
    assert panel.leave_one_out is not None
    assert panel.leave_one_out.p_lowest is None


# ------------------------------------------------------------------ confidence


@pytest.mark.parametrize(
    ("alpha", "gates", "seeds", "label", "said"),
    [
        (0.025, (("works", "success", "headline.reject"),), (1, 2, 3), "LOW", "FRAGILE"),
        (0.08, (("works", "success", "headline.reject"),), (1, 2, 3), "HIGH", "3 training seeds"),
        (0.08, (("works", "success", "headline.reject"),), (1, 2), "MODERATE", "2 training seeds"),
        (0.08, (("works", "success", "headline.reject"),), (1,), "LOW", "1 training seed"),
        # straddling alpha, and the kill does not ask: the verdict is the same under every definition
        (0.025, (("works", "success", "headline.reject"), ("small", "kill", "headline.delta < 50")), (1, 2), "MODERATE", "2 training seeds"),
    ],
)  # fmt: skip
def test_fragile_caps_the_confidence_where_it_bears_on_the_verdict(
    study: Study, alpha: float, gates: Any, seeds: tuple[int, ...], label: str, said: str
) -> None:
    study.alpha, study.gates, study.seeds = alpha, gates, seeds
    if len(gates) == 2:
        study.verdicts = (rule("small", "KILL"), *study.verdicts)
    confidence = study.decide().confidence
    assert confidence.label == label
    assert said in confidence.reason


# ------------------------------------------------------------------ leave one out


@pytest.mark.parametrize("p", ["percentile", "shift", "studentized", "bca"])
@pytest.mark.parametrize("side", ["greater", "less", "two_sided"])
@pytest.mark.parametrize("interval", [None, 0.9])
def test_looks_are_the_bootstrap_without_the_unit(p: Any, side: Any, interval: float | None) -> None:
    differences = Lattice(numerators=tuple(random.Random(5).randint(-40, 60) for _ in range(14)), denominator=7)
    analysis = Analysis(
        name="a", metric="m", contrast=Contrast(treatment=T, control=C), method="paired_bootstrap", p=p, side=side,
        alpha=0.05, resamples=499, seed=3, interval=interval,
    )  # fmt: skip
    needed = {"p", "lower", "upper", "ci_low", "ci_high"}
    found = bootstraps_without_each(analysis, METRIC, differences, range(14), needed=needed)
    for i in range(14):
        left = Lattice(numerators=differences.numerators[:i] + differences.numerators[i + 1 :], denominator=7)
        alone = paired_bootstrap(
            left, p=p, side=side, alpha=0.05, resamples=499, seed=3, limit=400, interval=interval
        ).statistics
        assert found[i] == pytest.approx(alone, abs=1e-9)
        assert found[i]["p"] == alone["p"]


def test_differences_too_fine_for_float64_are_within_a_draw() -> None:
    values = tuple(random.Random(6).randint(-(10**11), 2 * 10**11) for _ in range(12))
    analysis = Analysis(
        name="a", metric="m", contrast=Contrast(treatment=T, control=C), method="paired_bootstrap", p="studentized",
        side="greater", alpha=0.05, resamples=499, seed=3,
    )  # fmt: skip
    found = bootstraps_without_each(
        analysis, METRIC, Lattice(numerators=values, denominator=10**9), [0, 5], needed={"p"}
    )
    for i in (0, 5):
        left = Lattice(numerators=values[:i] + values[i + 1 :], denominator=10**9)
        alone = paired_bootstrap(left, p="studentized", side="greater", alpha=0.05, resamples=499, seed=3, limit=400)
        assert found[i]["p"] == pytest.approx(alone.statistics["p"], abs=1 / 500)


def test_a_look_without_spread_is_that_of_the_sign_flip() -> None:
    analysis = Analysis(
        name="a", metric="m", contrast=Contrast(treatment=T, control=C), method="paired_bootstrap", p="studentized",
        side="greater", alpha=0.05, resamples=499, seed=3,
    )  # fmt: skip
    found = bootstraps_without_each(
        analysis, METRIC, Lattice(numerators=(9, 2, 2, 2, 2), denominator=1), [0], needed={"p"}
    )
    assert found[0]["p"] == 2**-4


@pytest.mark.parametrize(
    ("method", "checked"),
    [
        ({"method": "paired_t"}, 24),
        ({"method": "paired_bootstrap", "p": "percentile"}, 24),
        ({"method": "sign_test"}, 24),
    ],
)
def test_the_one_unit_that_carries_the_verdict_is_named(study: Study, method: dict[str, Any], checked: int) -> None:
    study.method = method
    study.differences = (90,) + (2, 1, 3) * 7 + (2, 2)
    study.gates = (("small", "kill", "headline.delta < 4"),)
    study.verdicts = (rule("small", "KILL"), rule(None, "INCONCLUSIVE"))
    decision = study.decide()
    (panel,) = decision.sensitivity
    looked = panel.leave_one_out
    assert looked is not None
    assert (looked.n_units, looked.n_checked) == (24, checked)
    if method["method"] == "sign_test":
        assert (decision.verdict.label, looked.lowest, looked.highest, looked.changing) == ("KILL", 2.0, 2.0, ())
        return
    assert decision.verdict.label == "INCONCLUSIVE"
    assert [(found.unit, found.verdict, found.estimate) for found in looked.changing] == [("unit000", "KILL", 2.0)]
    assert (looked.lowest_without, looked.lowest) == ("unit000", 2.0)
    assert any("another verdict without unit000 (KILL)" in line for line in sensitivity_lines(decision))


def test_many_units_are_looked_at_where_they_move_the_estimate_most(study: Study) -> None:
    study.method = {"method": "sign_flip", "resamples": 9999, "seed": 1}
    study.differences = tuple(float(x) for x in range(-20, 60))
    looked = study.panel().leave_one_out
    assert looked is not None
    assert (looked.n_units, looked.n_checked) == (80, 2)
    assert (looked.lowest_without, looked.highest_without) == ("unit079", "unit000")


# ------------------------------------------------------------ precision and margins


@pytest.mark.parametrize("side", ["greater", "two_sided"])
def test_the_monte_carlo_interval_is_clopper_and_pearsons(study: Study, side: str) -> None:
    from scipy.stats import binomtest

    study.method, study.side = {"method": "paired_bootstrap", "p": "percentile"}, side
    panel = study.panel()
    found = panel.monte_carlo
    assert found is not None
    expected = binomtest(found.extreme, found.draws).proportion_ci(confidence_level=0.95, method="exact")
    sides = 2 if side == "two_sided" else 1
    assert found.p_low == pytest.approx(sides * expected.low, rel=1e-9)
    assert found.p_high == pytest.approx(sides * expected.high, rel=1e-9)
    p = next(each.p for each in panel.definitions if each.registered)
    assert p == pytest.approx(sides * (found.extreme + 1) / 10_000)
    assert found.excludes_alpha is not (found.p_low <= 0.025 <= found.p_high)


@pytest.mark.parametrize(
    "method", [{"method": "paired_t"}, {"method": "sign_flip"}, {"method": "paired_bootstrap", "p": "bca"}]
)
def test_a_p_that_is_no_count_of_draws_has_no_monte_carlo_interval(study: Study, method: dict[str, Any]) -> None:
    study.method = method
    assert study.panel().monte_carlo is None


def test_the_detectable_effect_follows_its_formula(study: Study) -> None:
    from scipy.stats import t

    panel = study.panel()
    found = panel.minimum_detectable
    assert found is not None
    assert panel.standard_error is not None
    assert found.effect == pytest.approx((t.ppf(0.975, 14) + t.ppf(0.8, 14)) * panel.standard_error)
    assert "t(0.975, 14)" in found.formula
    assert "/ sqrt(15)" in found.formula


def test_margins_are_in_standard_errors(study: Study) -> None:
    study.gates = (
        ("works", "success", "headline.reject and headline.delta >= 5"), ("far", "prediction", "headline.lower > -10"),
        ("rare", "prediction", "headline.p < 0.5"),
    )  # fmt: skip
    panel = study.panel()
    error = panel.standard_error
    assert error is not None
    found = {each.comparison: each for each in panel.margins}
    delta = found["delta >= 5"]
    assert delta.distance == pytest.approx(sum(DARWIN) / 15 - 5)
    assert delta.standard_errors == pytest.approx(delta.distance / error)
    lower = found["lower > -10"]
    assert found["reject == 1"].distance == pytest.approx(lower.observed)
    assert found["reject == 1"].standard_errors == pytest.approx(lower.observed / error)
    assert found["p < 0.5"].standard_errors is None


# ---------------------------------------------- weights, seeds, missing scores, filter


def test_weights_are_a_ratio_of_sums(study: Study) -> None:
    study.differences, study.samples = (10.0, 0.0, 20.0, 30.0), {0: 1, 1: 3, 2: 2, 3: 4}
    units, samples = study.panel().weights
    assert (units.estimate, samples.estimate) == (15.0, 17.0)  # (10 + 0 + 40 + 120) / 10
    assert units.registered
    assert samples.p != units.p


def test_equal_numbers_of_samples_are_one_weighting(study: Study) -> None:
    study.samples = dict.fromkeys(range(15), 4)
    units, samples = study.panel().weights
    assert (units.estimate, units.p, units.verdict) == (samples.estimate, samples.p, samples.verdict)


def test_seeds_alone(study: Study) -> None:
    study.seeds, study.of_seed = (3, 8), {3: 10, 8: -40}
    first, second = study.panel().seeds
    mean = sum(DARWIN) / 15
    assert (first.name, second.name) == ("training seed 3", "training seed 8")
    assert (first.estimate, second.estimate) == (pytest.approx(mean + 10), pytest.approx(mean - 40))
    assert (first.verdict, second.verdict) == ("SUCCESS", "INCONCLUSIVE")
    assert first.p is not None
    assert second.p is not None
    assert first.p < 0.025 < second.p


SEEDS_DRAWN: dict[str, Any] = {
    "method": "cluster_bootstrap", "p": "percentile", "levels": ("seed", "unit"), "resamples": 999, "seed": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("method", "seeds", "names", "without"),
    [
        ({"method": "paired_t"}, (3, 8), "training seed {}", ()),
        ({"method": "paired_t"}, (3, 8, 9), "training seed {}", (3, 8, 9)),
        (SEEDS_DRAWN, (3, 8), "training seed {}, paired bootstrap over prompts", ()),
        (SEEDS_DRAWN, (3, 8, 9), "training seed {}, paired bootstrap over prompts", (3, 8, 9)),
        (SEEDS_DRAWN | {"levels": ("unit",)}, (3, 8, 9), "training seed {}", (3, 8, 9)),
    ],
)  # fmt: skip
def test_no_verdict_is_read_of_a_seed_that_a_method_cannot_do_without(
    study: Study, method: dict[str, Any], seeds: tuple[int, ...], names: str, without: tuple[int, ...]
) -> None:
    study.method, study.seeds, study.of_seed = method, seeds, {3: 10, 8: 30, 9: 50}
    panel, mean = study.panel(), sum(DARWIN) / 15
    assert [found.name for found in panel.seeds] == [names.format(seed) for seed in seeds]
    assert [found.estimate for found in panel.seeds] == pytest.approx([mean + study.of_seed[seed] for seed in seeds])
    assert [found.name for found in panel.without_seed] == [f"without training seed {seed}" for seed in without]
    added = [sum(study.of_seed[s] for s in seeds if s != seed) / (len(seeds) - 1) for seed in without]
    assert [found.estimate for found in panel.without_seed] == pytest.approx([mean + more for more in added])
    for found in (*panel.seeds, *panel.without_seed):
        assert found.p is not None
        assert found.reject is not None
        assert (found.unknown_because, found.verdict) == (None, "SUCCESS" if found.reject else "INCONCLUSIVE")
    assert panel.seeds_unknown_because is None
    told = (panel.standard_error, panel.minimum_detectable, panel.margins[0].standard_errors)
    assert (None in told, any(told)) == ("seed" in method.get("levels", ()), "seed" not in method.get("levels", ()))


def test_a_seed_alone_is_the_paired_bootstrap_of_its_units(study: Study) -> None:
    study.method, study.seeds, study.of_seed = SEEDS_DRAWN, (3, 8), {3: 10, 8: -40}
    alone = study.panel().seeds[1]
    study.method, study.seeds = {"method": "paired_bootstrap", "p": "percentile", "resamples": 999, "seed": 1}, (8,)
    (registered,) = [found for found in study.panel().definitions if found.registered]
    assert (alone.estimate, alone.p, alone.reject) == (registered.estimate, registered.p, registered.reject)


def test_a_seed_without_scores_is_said_once_and_gives_no_verdict(study: Study) -> None:
    study.method, study.seeds = SEEDS_DRAWN, (3, 8, 9)
    study.method = study.method | {"levels": ("sample",)}  # of several training seeds rows hold no samples to draw
    entry = study.panel()
    assert entry.unknown_because is not None
    assert (entry.seeds, entry.without_seed) == ((), ())
    assert not any("training seed" in line for line in sensitivity_lines(study.decide()))


def test_a_leaning_seed_is_named_and_equal_consequences_are_one_line(study: Study) -> None:
    study.method, study.seeds, study.of_seed = {"method": "paired_t"}, (3, 8, 9), {3: 90, 8: -25, 9: -25}
    decision = study.decide()
    assert decision.verdict.label == "SUCCESS"
    said = list(sensitivity_lines(decision))
    mean = sum(DARWIN) / 15
    assert (
        f"  headline: without one training seed {mean - 25:.4g} to {mean + 32.5:.4g}; another verdict without some, below"
        in said
    )
    assert [line for line in said if "the verdict would be" in line] == [
        f"  headline, training seed 8 / training seed 9 / without training seed 3: {mean - 25:.4g}, the verdict would be INCONCLUSIVE"
    ]


def test_extremes_of_missing_scores_and_their_verdicts(study: Study) -> None:
    study.gates = (("small", "kill", "headline.delta < 15"),)
    study.verdicts = (rule("small", "KILL"), rule(None, "INCONCLUSIVE"))
    study.gone = {0: 1}
    decision = study.decide()
    (panel,) = decision.sensitivity
    assert decision.verdict.label == "INVALID"  # epc.missing_corners: the extremes disagree
    low, high = panel.missing
    assert (low.name, high.name) == ("treatment low and control high", "treatment high and control low")
    total = Fraction(sum(DARWIN) - 49)
    assert low.estimate == pytest.approx(float((total + Fraction(49 - 200, 2)) / 15))
    assert high.estimate == pytest.approx(float((total + Fraction(49 + 200, 2)) / 15))
    assert (low.verdict, high.verdict) == ("KILL", "INCONCLUSIVE")


def test_without_the_filter(study: Study) -> None:
    study.filtered = -60
    filtered, unfiltered = study.panel().filters
    assert (filtered.registered, unfiltered.registered) == (True, False)
    assert unfiltered.estimate == pytest.approx(sum(DARWIN) / 15 - 60)
    assert (filtered.verdict, unfiltered.verdict, unfiltered.changes) == ("SUCCESS", "INCONCLUSIVE", True)


def test_scores_from_elsewhere_that_are_missing_in_one_arm_make_it_invalid(study: Study) -> None:
    """12 of 40 in the treatment and none of 40 in the control: Fisher's exact p is far below .01."""
    study.metric = {"kind": "results", "judge": None}
    study.differences = (30.0, 20.0) * 20
    for gone, label in ((12, "INVALID"), (2, "SUCCESS")):
        rows = [
            {**row, "n": 0, "n_missing": 1, "total": 0, "value": None}
            if row["condition"] == T and int(row["unit"][4:]) < gone
            else row
            for row in study.rows()
        ]
        study.folder = study.folder / str(gone)
        decision = decide(study.write(rows))
        gate = next(gate for gate in decision.gates if gate.name == "epc.differential_missingness")
        assert gate.truth is (gone == 2)
        if gone == 12:
            assert (decision.verdict.label, decision.sensitivity[0].missing[0].n_units) == (label, 40)
            assert "treated 12 of 40 (30%), control 0 of 40 (0%)" in gate.detail


# ----------------------------------------------------------------- the whole panel


def test_an_unknown_analysis_has_its_reason_and_no_numbers(study: Study) -> None:
    study.metric = {"missing": "fail"}
    study.gone = {3: 1}
    panel = study.panel()
    assert panel.unknown_because is not None
    assert "1 sample" in panel.unknown_because
    assert (panel.definitions, panel.leave_one_out, panel.margins) == ((), None, ())


def test_units_that_were_planned_and_are_nowhere_are_missing(study: Study) -> None:
    study.metric, study.planned = {"missing": "fail"}, 20
    decision = study.decide()
    (analysis,) = decision.analyses
    assert (analysis.n_units, analysis.n_units_missing, analysis.statistics["p"]) == (15, 5, None)
    assert decision.verdict.label == "INVALID"


def test_planned_units_that_may_be_dropped_are_filled_at_the_extremes(study: Study) -> None:
    study.planned = 16
    panel = study.panel()
    low, high = panel.missing
    assert (low.n_units, low.estimate, high.estimate) == (16, (sum(DARWIN) - 400) / 16, (sum(DARWIN) + 400) / 16)


def test_nothing_depends_on_the_order_of_rows(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "other"):
        study = Study(folder=tmp_path / name, seeds=(1, 2), samples={2: 3}, gone={4: 1})
        rows = study.rows()
        if name == "other":
            random.Random(1).shuffle(rows)
        decision = decide(study.write(rows))
        texts.append(json.dumps([entry.model_dump(mode="json") for entry in decision.sensitivity]))
        assert '"sensitivity"' in decision_text(decision)
    assert texts[0] == texts[1]
