"""What is known of decisions: coin flips at a margin, gates that never matter, power of guardrails, sizes."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import pytest
from tests.support.simulated import analysis, atom, gate, metric, names, rule

from epc.compiler.contract.logic import And, Predicate
from epc.compiler.contract.manifest import Analysis, Condition, Contrast, Design, Gate, Judge, Truth
from epc.compiler.contract.simulation import Simulation, TruthOutcome
from epc.runtime.errors import Fault
from epc.runtime.simulate.model import Size
from epc.runtime.simulate.run import Options, Registration, simulate
from epc.runtime.simulate.truths import Deriver

EXPERIMENTS = 2000
ERROR = 3 * (0.25 / EXPERIMENTS) ** 0.5
"""Three standard errors of a share."""


def design_of(gates: tuple[Gate, ...], *analyses: Analysis, truths: tuple[Truth, ...] = (), **of: Any) -> Design:
    """Two arms, a judged score with `units` units and a benchmark with `items` items."""
    units, items, samples = of.get("units", 48), of.get("items", 150), of.get("samples", 10)
    table = (
        rule(names("dead")[0], "KILL"),
        rule(And(operands=names("works", "able")), "SUCCESS"),
        rule(None, "INCONCLUSIVE"),
    )
    return Design(
        question="?", seeds=(1,), analyses=analyses, gates=gates, truths=truths, verdicts=table,
        conditions=tuple(Condition(name=arm, key=arm, phases=("x",), seeds=(1,)) for arm in ("control", "treated")),
        metrics=(metric("score", scale=(0, 100), score="aligned", missing="drop"), metric("quiz", "lm_eval", source="quiz")),
        judges=(Judge(name="grader", model="m", rubric_sha256="0" * 64, max_missing=0.5),),
        units={"score": units, "quiz": items}, samples={"score": samples, "quiz": 1},
    )  # fmt: skip


PAIR = Contrast(treatment="treated", control="control")
HEADLINE = analysis("headline", "score", p="studentized", contrast=PAIR, confirmatory=True, resamples=999)
ABLE = analysis("able", "quiz", "newcombe_paired", contrast=PAIR)


BOUND = atom("able.lower", ">", -0.1)


def gates_of(able: Predicate = BOUND) -> tuple[Gate, ...]:
    return (
        gate("dead", "kill", atom("headline.delta", "<", 5)),
        gate("works", "success", And(operands=(atom("headline.reject", "==", 1), atom("headline.delta", ">=", 5)))),
        gate("able", "guardrail", able),
    )


def truth(name: str = "t", effect: float = 15, harm: float = 0.0, **more: Any) -> Truth:
    """An effect of the score, a harm of the benchmark; its items are of two kinds, of which a fifth differ."""
    fields = {key: more.pop(key) for key in ("expect", "at_least") if key in more}
    score = {"means": {"control": 40, "treated": 40 + effect}, "unit_sd": 12, "correlation": 0.5, **more}
    quiz = {"means": {"control": 0.5, "treated": 0.5 - harm}, "unit_sd": 0.4, "correlation": 0.9375}
    return Truth.model_validate({"name": name, "metrics": {"score": score, "quiz": quiz}, **fields})


def run(design: Design, **options: Any) -> Simulation:
    registration = Registration(epc="0", id="i", title="T", lock_sha256="0" * 64, design=design, place="spec.yaml")
    return simulate(registration, Options(**{"experiments": EXPERIMENTS, **options}))


def share(found: TruthOutcome, label: str) -> float:
    return next(verdict.share for verdict in found.verdicts if verdict.label == label)


def gate_of(found: TruthOutcome, name: str) -> float:
    return next(each.true for each in found.gates if each.name == name)


@pytest.mark.parametrize(("items", "passes"), [(40, 0.37), (150, 0.86)])
def test_a_harmless_treatment_fails_a_narrow_guardrail(items: int, passes: float) -> None:
    """The decision model's figures, of a .10 margin at 20% discordance."""
    design = design_of(gates_of(), HEADLINE, ABLE, truths=(truth(),), items=items, samples=1)
    (found,) = run(design).truths
    assert gate_of(found, "able") == pytest.approx(passes, abs=ERROR + 0.02)


def test_a_point_rule_at_its_margin_is_a_coin_flip_and_a_bound_is_not() -> None:
    """At a harm of exactly 10 points the point rule passes about half of the time, a 95% rule about 5%."""
    point = design_of(gates_of(atom("able.delta", ">", -0.1)), HEADLINE, ABLE, truths=(truth(harm=0.1),), items=600)
    bound = design_of(gates_of(), HEADLINE, ABLE, truths=(truth(harm=0.1),), items=600)
    (by_point,), (by_bound,) = run(point).truths, run(bound).truths
    assert gate_of(by_point, "able") == pytest.approx(0.49, abs=ERROR)
    assert gate_of(by_bound, "able") == pytest.approx(0.05, abs=0.02)
    assert by_point.deserved == "INCONCLUSIVE"
    assert by_point.false_success == by_point.success > 0.4


@pytest.mark.parametrize(("unit_sd", "matters"), [(10, False), (25, True)])
def test_a_p_gate_that_can_change_no_verdict(unit_sd: float, matters: bool) -> None:
    """With 48 units and differences of an SD below 5 sqrt(48) / 1.645 = 21, delta >= 5 implies p < .05."""
    design = design_of(gates_of(), HEADLINE, ABLE, truths=(truth(effect=5, unit_sd=unit_sd, correlation=0.0),))
    (found,) = run(design).truths
    works = next(each for each in found.gates if each.name == "works")
    reject = next(part for part in works.parts if part.text == "headline.reject")
    assert (reject.decisive > 0.05) == matters
    assert matters or reject.decisive < 0.005


def test_success_is_hardly_ever_false_under_the_null() -> None:
    (found,) = run(design_of(gates_of(), HEADLINE, ABLE, truths=(truth(effect=0, unit_sd=30),))).truths
    assert found.deserved == "KILL"
    assert found.false_success is not None
    assert found.false_success <= 0.05 + ERROR
    assert found.false_success > 0.005


def test_expectations_are_met_or_not() -> None:
    declared = (
        truth("hoped", 15, expect="SUCCESS", at_least=0.8), truth("too_small", 6, expect="SUCCESS", at_least=0.8),
        truth("null", 0, expect="KILL", at_least=0.9),
    )  # fmt: skip
    found = run(design_of(gates_of(), HEADLINE, ABLE, truths=declared))
    assert [(each.name, each.met) for each in found.truths] == [("hoped", True), ("too_small", False), ("null", True)]
    assert [each.truth for each in found.needed] == ["hoped", "too_small"]
    only = run(design_of(gates_of(), HEADLINE, ABLE, truths=declared), truths=("null",))
    assert [each.name for each in only.truths] == ["null"]
    assert only.truths[0] == found.truths[2]


def test_the_minimum_detectable_effect_is_that_of_normal_theory() -> None:
    design = design_of(gates_of(), HEADLINE, ABLE, truths=(truth(expect="SUCCESS", at_least=0.8),), samples=50)
    (power,) = run(design, experiments=1000).power
    between, within = 12**2, 0.25 * (0.4 * 0.6 * 1e4 - 12**2) / 50
    sd = (2 * between * (1 - 0.5) + 2 * within) ** 0.5
    z = NormalDist().inv_cdf
    assert power.mde == pytest.approx((z(0.95) + z(0.8)) * sd / 48**0.5, rel=0.1)
    rejects = [point.reject for point in power.points]
    assert rejects == sorted(rejects)
    assert {(mark.gate, mark.constant) for mark in power.thresholds} == {("dead", 5.0), ("works", 5.0)}


def test_sizes_reach_the_power_that_is_asked_for() -> None:
    declared = truth("hoped", 9, expect="SUCCESS", at_least=0.9)
    design = design_of(gates_of(), HEADLINE, ABLE, truths=(declared,), units=24, items=1000)
    (needed,) = run(design, experiments=1000).needed
    assert needed.planned_share < 0.9
    assert needed.units is not None
    assert needed.units > 24
    assert needed.units_share is not None
    assert needed.units_share >= 0.9
    enough = design_of(gates_of(), HEADLINE, ABLE, truths=(declared,), units=needed.units, items=1000)
    assert share(run(enough, seed=1).truths[0], "SUCCESS") == pytest.approx(0.9, abs=0.05)


def test_no_size_is_named_where_none_can_do() -> None:
    on_it = truth("margin", 5, expect="SUCCESS", at_least=0.8)
    beyond = truth("wrong", 4, expect="SUCCESS", at_least=0.8)
    found = run(design_of(gates_of(), HEADLINE, ABLE, truths=(on_it, beyond)), experiments=200).needed
    assert [(each.units, each.samples) for each in found] == [(None, None)] * 2
    assert "is the threshold of dead" in found[0].because
    assert "the table says KILL" in found[1].because


def test_samples_cannot_replace_units() -> None:
    declared = truth("hoped", 8, unit_sd=25, correlation=0.0, expect="SUCCESS", at_least=0.9)
    (needed,) = run(design_of(gates_of(), HEADLINE, ABLE, truths=(declared,), items=1000), experiments=300).needed
    assert needed.units is not None
    assert needed.samples is None
    assert "units differ more than samples do" in needed.because


def test_standard_truths_stand_at_the_thresholds() -> None:
    extra = (
        gate("hoped", "prediction", atom("headline.delta", ">=", 15)),
        gate("harm", "override", atom("able.delta", "<", -0.3)),
    )
    design = design_of((*gates_of(), *extra), HEADLINE, ABLE)
    sizes = {"score": Size(units=48, samples=10), "quiz": Size(units=150, samples=1)}
    found = {each.truth.name: each.truth.metrics for each in Deriver(design, sizes).derived()}
    assert list(found) == ["null", "kill_margin", "predicted", "harm", "damage_able"]
    effects = {name: (_effect(of["score"].means), _effect(of["quiz"].means)) for name, of in found.items()}
    assert effects == {
        "null": (0, 0), "kill_margin": (5, 0), "predicted": (15, 0), "harm": (15, -0.3), "damage_able": (15, -0.1),
    }  # fmt: skip


def _effect(means: dict[str, float]) -> float:
    return round(means["treated"] - means["control"], 9)


def test_missing_scores_and_everything_that_was_assumed_are_said() -> None:
    found = run(design_of(gates_of(), HEADLINE, ABLE), experiments=50)
    assert any("declares no truths" in line for line in found.assumptions)
    assert any("score lies at an end of its scale with probability 0.25" in line for line in found.assumptions)
    assert any("no metric declares `noise`" in line for line in found.assumptions)


def test_a_run_is_the_same_again() -> None:
    design = design_of(gates_of(), HEADLINE, ABLE, truths=(truth(missing=0.02, expect="SUCCESS", at_least=0.5),))
    assert run(design, experiments=150) == run(design, experiments=150)
    assert run(design, experiments=150).truths != run(design, experiments=150, seed=1).truths


@pytest.mark.parametrize(
    ("change", "options", "code"),
    [
        ({"units": {"quiz": 150}}, {}, "R1701"),
        ({}, {"truths": ("nil",)}, "R1702"),
        ({"analyses": (HEADLINE.model_copy(update={"method": "two_level"}), ABLE)}, {}, "R1703"),
        ({"truths": (truth(unit_sd=60),)}, {}, "R1704"),
    ],
)
def test_what_cannot_be_simulated_is_refused(change: dict[str, Any], options: dict[str, Any], code: str) -> None:
    with pytest.raises(Fault) as raised:
        run(design_of(gates_of(), HEADLINE, ABLE).model_copy(update=change), experiments=20, **options)
    assert raised.value.code == code


def test_results_from_elsewhere_get_their_sizes_from_the_command() -> None:
    declared = truth(expect="SUCCESS", at_least=0.8)
    design = design_of(gates_of(), HEADLINE, ABLE, truths=(declared,)).model_copy(update={"units": {}, "samples": {}})
    (needed,) = run(design, experiments=20, units=30, samples=2).needed
    assert (needed.planned_units, needed.planned_samples) == (30, 2)


def test_gates_that_never_decide_are_left_out_where_their_method_is_not_simulated() -> None:
    nested = analysis("nested", "score", "two_level", p="percentile", contrast=PAIR, resamples=99, seed=1)
    shown = gate("shown", "prediction", atom("nested.delta", ">", 0))
    found = run(design_of((*gates_of(), shown), HEADLINE, ABLE, nested), experiments=20)
    assert any("Not simulated" in line and "shown" in line for line in found.assumptions)
    assert "shown" not in [each.name for each in found.truths[0].gates]


def test_follow_ups_are_read_after_the_verdicts_that_they_wait_for() -> None:
    more = gate("more", "follow_up", atom("headline.delta", ">=", 0), on=("SUCCESS",))
    (found,) = run(design_of((*gates_of(), more), HEADLINE, ABLE, truths=(truth(effect=8),)), experiments=500).truths
    outcome = next(each for each in found.gates if each.name == "more")
    assert outcome.true == found.success
    assert outcome.unknown == pytest.approx(1 - found.success)
    assert outcome.decisive is None


def test_family_wise_false_rejections() -> None:
    other = analysis("other", "quiz", "mcnemar", p="exact", contrast=PAIR)
    family = {"name": "f", "method": "holm", "analyses": ("headline", "other"), "alpha": 0.05}
    gates = (*gates_of(), gate("second", "success", atom("other.reject", "==", 1)))
    planned = design_of(
        gates, HEADLINE, ABLE, other, truths=(truth(effect=0), truth("one", effect=15), truth("both", 15, -0.3))
    )
    design = Design.model_validate({**planned.model_dump(), "families": [family]})
    null, one, both = (each.families[0].false_rejection for each in run(design).truths)
    assert null is not None
    assert 0.01 < null <= 0.05 + ERROR
    assert one is not None
    assert one <= 0.05 + ERROR
    assert both is None
