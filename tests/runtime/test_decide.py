"""The decision on constructed bundles: every branch of the verdict, every built-in gate."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.canonical import sha256_file
from epc.compiler.contract.decision import AnalysisResult, Decision, Deviation, GateResult
from epc.compiler.contract.logic import And, Atom, Name, Not, Operator, Or, Predicate
from epc.compiler.contract.manifest import (
    Analysis,
    Condition,
    Contrast,
    Design,
    Gate,
    Manifest,
    Metric,
    Role,
    Step,
    VerdictRule,
)
from epc.compiler.contract.rows import MeasurementRow
from epc.runtime.decide import decide, write_decision
from epc.runtime.errors import Fault
from epc.runtime.estimates import analysis_result
from epc.runtime.measurements import group
from epc.runtime.validity import HASHED_BYTES

UNITS = 24
SAMPLES = 8


def atom(statistic: str, operator: Operator, constant: float) -> Atom:
    analysis, name = statistic.split(".")
    return Atom(analysis=analysis, statistic=name, operator=operator, constant=constant)


def reject(analysis: str) -> Atom:
    return atom(f"{analysis}.reject", "==", 1)


def gate(name: str, role: Role, predicate: Predicate, **more: Any) -> Gate:
    return Gate(name=name, role=role, text=f"text of {name}", predicate=predicate, **more)


def rule(predicate: Predicate | None, label: str, say: str = "") -> VerdictRule:
    kind: Any = label.split("_")[0]
    text = "otherwise" if predicate is None else f"rule for {label}"
    return VerdictRule(text=text, predicate=predicate, label=label, verdict_class=kind, say=say)


def bootstrap(name: str, metric: str, treatment: str, control: str, **more: Any) -> Analysis:
    return Analysis(
        name=name, metric=metric, contrast=Contrast(treatment=treatment, control=control), method="paired_bootstrap",
        p="studentized", side="greater", alpha=0.025, resamples=999, seed=1, **more,
    )  # fmt: skip


def metric(name: str, missing: str = "fail", better: str = "higher", kind: str = "pattern") -> Metric:
    return Metric.model_validate(
        {
            "name": name, "kind": kind, "source": "after", "unit": "item" if kind == "lm_eval" else "prompt",
            "scale": (0, 1), "better": better, "missing": missing,
        }
    )  # fmt: skip


@dataclass
class Lab:
    """A bundle whose results are given: arm means in eighths per prompt, and correct items of 150."""

    folder: Path
    seeds: tuple[int, ...] = (42,)
    trained: bool = True
    mode: Any = "real"
    missing: str = "fail"
    reset: dict[str, int] = field(default_factory=lambda: {"attacked": 0, "reflex_attacked": 3})
    bad: dict[str, int] = field(default_factory=lambda: {"base": 0, "attacked": 7})
    correct: dict[str, int] = field(default_factory=lambda: {"attacked": 120, "reflex_attacked": 118})
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    band: tuple[float, float] | None = None
    """Where the untrained model should score in capability."""
    extra_gates: tuple[Gate, ...] = ()
    extra_analyses: tuple[Analysis, ...] = ()
    verdicts: tuple[VerdictRule, ...] = (
        rule(Name(name="harm"), "OVERRIDE_HARM", "it does harm"),
        rule(Name(name="dead"), "KILL", "the reflex did not survive"),
        rule(And(operands=(Name(name="survives"), Name(name="undamaged"))), "SUCCESS", "it survived"),
        rule(None, "INCONCLUSIVE"),
    )
    edit: dict[tuple[str, str, int, str], dict[str, Any] | None] = field(default_factory=dict)
    """(metric, condition, seed, unit) -> changed fields of that row, None to leave it out."""
    finished: frozenset[str] = frozenset({"model", "mask", "train", "sample", "measure"})

    def design(self) -> Design:
        return Design(
            question="If x, then y.",
            conditions=tuple(
                Condition(
                    name=name, key=f"{index:016d}", phases=phases if self.trained else (),
                    seeds=self.seeds if phases and self.trained else (0,),
                )
                for index, (name, phases) in enumerate(
                    {"base": (), "attacked": ("attack",), "reflex_attacked": ("reflex", "attack")}.items()
                )
            ),
            metrics=(
                metric("reset_rate", self.missing), metric("bad_rate", better="lower"),
                metric("capability", kind="lm_eval").model_copy(update={"base_between": self.band}),
            ),
            analyses=(
                bootstrap("headline", "reset_rate", "reflex_attacked", "attacked", confirmatory=True),
                bootstrap("attack_effect", "bad_rate", "attacked", "base"),
                Analysis(
                    name="capability_change", metric="capability", method="newcombe_paired", side="greater", alpha=0.05,
                    contrast=Contrast(treatment="reflex_attacked", control="attacked"),
                ),
                Analysis(name="level", metric="capability", arm="attacked", method="wilson", side="greater", alpha=0.05),
                *self.extra_analyses,
            ),
            gates=(
                gate("attack_took", "validity", atom("attack_effect.lower", ">", 0.3)),
                gate("harm", "override", atom("capability_change.delta", "<", -0.3)),
                gate("dead", "kill", atom("headline.delta", "<", 0.05)),
                gate("survives", "success", And(operands=(reject("headline"), atom("headline.delta", ">=", 0.15)))),
                gate("undamaged", "guardrail", atom("capability_change.lower", ">", -0.1)),
                *self.extra_gates,
            ),
            verdicts=self.verdicts,
            seeds=self.seeds,
        )  # fmt: skip

    def steps(self) -> tuple[Step, ...]:
        kinds: tuple[Any, ...] = ("model", "mask", "train", "sample", "measure")
        outputs = {"measure": ("measurements.jsonl",)}
        recipes: dict[str, dict[str, Any]] = {
            "model": {"source": "pypi:tiny", "revision": "0.1", "sha256": None}, "train": {"learning_rate": 0.001},
        }  # fmt: skip
        return tuple(
            Step(
                id=kind, kind=kind, label=kind, needs=(), key=kind.ljust(16, "0"), script=f"steps/{kind}.py",
                outputs=outputs.get(kind, ("out.txt",)),
                recipe=recipes.get(kind, {}),
            )
            for kind in kinds
        )  # fmt: skip

    def rows(self) -> list[dict[str, Any]]:
        keys = {condition.name: (condition.key, condition.seeds) for condition in self.design().conditions}
        found = []

        def add(name: str, condition: str, unit: str, n: int, total: int) -> None:
            key, seeds = keys[condition]
            for seed in seeds:
                row = {
                    "mode": self.mode, "condition": condition, "condition_key": key, "seed": seed, "metric": name,
                    "slice": "all", "unit": unit, "n": n, "n_missing": 0, "n_filtered": 0, "total": total,
                    "denominator": 1, "value": total / n,
                }  # fmt: skip
                changes = self.edit.get((name, condition, seed, unit), {})
                if changes is not None:
                    found.append({**row, **changes})

        for name, arms in (("reset_rate", self.reset), ("bad_rate", self.bad)):
            for condition, level in arms.items():
                for index in range(UNITS):
                    spread = (index % 3) - 1 if 0 < level < SAMPLES else 0
                    add(name, condition, f"prompt{index:02d}", SAMPLES, level + spread)
        for condition, right in self.correct.items():
            for index in range(150):
                add("capability", condition, f"item{index:03d}", 1, int(index < right))
        return found

    def write(self) -> Path:
        bundle = self.folder / "generated" / "tiny"
        manifest = Manifest(
            epc="0.1.0", id="tiny", title="Tiny", mode=self.mode, spec="specs/tiny.yaml", spec_sha256="0" * 64,
            lock_sha256="1" * 64, steps=self.steps(), design=self.design(),
        )  # fmt: skip
        bundle.mkdir(parents=True)
        (bundle / "manifest.json").write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
        default = {
            "mask": {"verified": True},
            "train": {"adapter_changed": True, "used": {"learning_rate": 0.001}},
            "sample": {
                "completions_sha256": {
                    f"{c.name}-s{seed}": f"{c.name}{seed}" for c in manifest.design.conditions for seed in c.seeds
                }
            },
        }
        for step in manifest.steps:
            if step.id not in self.finished:
                continue
            folder = bundle / "store" / step.key
            folder.mkdir(parents=True)
            text = "".join(json.dumps(row) + "\n" for row in self.rows()) if step.kind == "measure" else step.id
            (folder / step.outputs[0]).write_text(text, encoding="utf-8")
            record = {
                "schema_version": 1, "id": step.id, "key": step.key, "kind": step.kind, "mode": self.mode,
                "recipe": step.recipe, "outputs": {step.outputs[0]: sha256_file(folder / step.outputs[0])},
                "seconds": 1.5, "versions": {"python": "3.11.9"}, "facts": self.facts.get(step.id, default.get(step.id, {})),
            }  # fmt: skip
            (folder / "finished.json").write_text(json.dumps(record), encoding="utf-8")
        return bundle

    def decide(self) -> Decision:
        return decide(self.write())


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(folder=tmp_path)


def gate_of(decision: Decision, name: str) -> GateResult:
    return next(gate for gate in decision.gates if gate.name == name)


def analysis_of(decision: Decision, name: str) -> AnalysisResult:
    return next(analysis for analysis in decision.analyses if analysis.name == name)


# -------------------------------------------------------------------- verdicts


@pytest.mark.parametrize(
    ("changes", "label", "rule_index", "fired"),
    [
        ({}, "SUCCESS", 2, ()),
        ({"reset": {"attacked": 3, "reflex_attacked": 3}}, "KILL", 1, ("dead",)),
        ({"correct": {"attacked": 140, "reflex_attacked": 60}}, "OVERRIDE_HARM", 0, ("harm",)),
        # harm and dead and neither success: the table's order decides, both are printed
        (
            {"reset": {"attacked": 3, "reflex_attacked": 3}, "correct": {"attacked": 140, "reflex_attacked": 60}},
            "OVERRIDE_HARM", 0, ("harm", "dead"),
        ),
        ({"reset": {"attacked": 2, "reflex_attacked": 3}}, "INCONCLUSIVE", 3, ()),
        ({"correct": {"attacked": 130, "reflex_attacked": 110}}, "INCONCLUSIVE", 3, ()),
    ],
)  # fmt: skip
def test_the_first_rule_that_matches_is_the_verdict(
    lab: Lab, changes: dict[str, Any], label: str, rule_index: int, fired: tuple[str, ...]
) -> None:
    for name, value in changes.items():
        setattr(lab, name, value)
    decision = lab.decide()
    assert (decision.verdict.label, decision.verdict.rule, decision.fired) == (label, rule_index, fired)
    assert decision.verdict.verdict_class == label.split("_")[0]


def test_override_beats_a_success_that_also_holds(lab: Lab) -> None:
    lab.correct = {"attacked": 140, "reflex_attacked": 60}
    lab.verdicts = (lab.verdicts[0], rule(Name(name="survives"), "SUCCESS"), lab.verdicts[-1])
    decision = lab.decide()
    assert gate_of(decision, "survives").truth is True
    assert decision.verdict.label == "OVERRIDE_HARM"
    assert gate_of(decision, "harm").would_flip == "SUCCESS"


def test_the_reason_names_deciding_gates_with_observed_values_and_thresholds(lab: Lab) -> None:
    verdict = lab.decide().verdict
    assert verdict.rule_text == "rule for SUCCESS"
    assert verdict.say == "it survived"
    assert verdict.because == (
        "Rule 3 is the first that matches: survives is true (headline.reject = 1, p = 0.001, alpha 0.025,"
        " headline.delta = 0.375, >= 0.15); undamaged is true (capability_change.lower = -0.0353102, > -0.1)."
    )


def test_the_reason_of_otherwise_names_what_failed(lab: Lab) -> None:
    lab.reset = {"attacked": 2, "reflex_attacked": 3}
    because = lab.decide().verdict.because
    assert because.startswith("No rule before `otherwise` matches: harm is false (capability_change.delta = ")
    assert (
        "survives is false (headline.reject = 1, p = 0.001, alpha 0.025, headline.delta = 0.125, not >= 0.15)"
        in because
    )


def test_invalid_when_a_validity_gate_is_false_and_fired_gates_are_still_printed(lab: Lab) -> None:
    lab.bad = {"base": 3, "attacked": 4}
    lab.reset = {"attacked": 3, "reflex_attacked": 3}
    decision = lab.decide()
    assert (decision.verdict.label, decision.verdict.rule) == ("INVALID", None)
    assert (
        decision.verdict.because == "Validity gate: attack_took is false (attack_effect.lower = -0.0352828, not > 0.3)."
    )
    assert decision.fired == ("dead",)
    assert gate_of(decision, "attack_took").would_flip == "KILL"
    assert gate_of(decision, "dead").would_flip is None


def test_invalid_when_a_validity_gate_is_unknown(lab: Lab) -> None:
    lab.bad = {"attacked": 7}
    decision = lab.decide()
    assert gate_of(decision, "attack_took").truth is None
    assert decision.verdict.label == "INVALID"
    assert "there is no measurement of bad_rate in base" in decision.verdict.because
    assert analysis_of(decision, "attack_effect").statistics == dict.fromkeys(
        ("delta", "p", "reject", "lower", "upper", "ci_low", "ci_high")
    )


def test_invalid_when_the_verdict_depends_on_an_unknown_gate(lab: Lab) -> None:
    lab.correct = {"attacked": 120}
    decision = lab.decide()
    assert (decision.verdict.label, decision.verdict.rule) == ("INVALID", None)
    assert decision.verdict.because.startswith(
        "It would be OVERRIDE_HARM or SUCCESS or INCONCLUSIVE, depending on what is unknown: harm is unknown ("
    )
    assert gate_of(decision, "undamaged").observations[0].value is None
    assert gate_of(decision, "undamaged").detail.startswith("capability_change is unknown: there is no measurement")
    # one gate alone settles nothing: the other is still unknown
    assert gate_of(decision, "undamaged").would_flip is None
    assert gate_of(decision, "harm").would_flip == "OVERRIDE_HARM"


def test_an_unknown_that_no_completion_lets_matter_is_harmless(lab: Lab) -> None:
    lab.correct = {"attacked": 120}
    lab.reset = {"attacked": 3, "reflex_attacked": 3}
    lab.verdicts = lab.verdicts[1:]  # without the override, dead decides alone
    decision = lab.decide()
    assert gate_of(decision, "undamaged").truth is None
    assert decision.verdict.label == "KILL"


def test_two_rules_of_one_label_stand_whichever_the_unknown_selects(lab: Lab) -> None:
    lab.correct = {"attacked": 120}
    lab.verdicts = (
        rule(And(operands=(Name(name="survives"), Name(name="undamaged"))), "SUCCESS", "first"),
        rule(Name(name="survives"), "SUCCESS", "second"),
        rule(None, "INCONCLUSIVE"),
    )
    verdict = lab.decide().verdict
    assert (verdict.label, verdict.rule) == ("SUCCESS", 0)
    assert verdict.because.startswith("Rules 1 and 2 give the same verdict, whatever is unknown: ")


def test_nothing_measured_is_invalid_and_never_an_exception(lab: Lab) -> None:
    lab.finished = frozenset()
    decision = lab.decide()
    assert decision.verdict.label == "INVALID"
    assert gate_of(decision, "epc.steps_finished").detail == "not finished: model, mask, train, sample, measure"
    assert decision.arms == ()
    assert all(analysis.unknown_because for analysis in decision.analyses)
    assert decision.verdict.because == (
        "Validity gates: epc.steps_finished is false (not finished: model, mask, train, sample, measure);"
        " unknown: epc.mask_verified, epc.adapters_changed, epc.recipe_followed,"
        " epc.identical_arms, attack_took."
    )
    assert all(value for value in decision.card.values())


@pytest.mark.parametrize(
    ("predicate", "truth"),
    [
        (Not(operand=atom("headline.delta", "<", 0.05)), True),
        (Or(operands=(atom("headline.delta", "<", 0.05), reject("headline"))), True),
        (Or(operands=(reject("capability_change"), reject("headline"))), True),
        (And(operands=(reject("capability_change"), reject("headline"))), None),
    ],
)
def test_predicates_follow_kleene(lab: Lab, predicate: Predicate, truth: bool | None) -> None:
    lab.correct = {"attacked": 120}
    lab.extra_gates = (gate("extra", "sanity", predicate),)
    assert gate_of(lab.decide(), "extra").truth is truth


def test_predictions_hit_or_miss_and_decide_nothing(lab: Lab) -> None:
    lab.extra_gates = (
        gate("hit", "prediction", atom("headline.delta", ">", 0.1)),
        gate("miss", "prediction", atom("headline.delta", ">", 0.9)),
    )
    decision = lab.decide()
    assert [(gate_of(decision, n).detail, gate_of(decision, n).would_flip) for n in ("hit", "miss")] == [
        ("HIT", None),
        ("MISS", None),
    ]
    assert decision.verdict.label == "SUCCESS"


def test_follow_up_gates_are_read_after_the_verdicts_they_wait_for(lab: Lab) -> None:
    lab.extra_gates = (
        gate("replicate", "follow_up", atom("headline.delta", ">", 0.1), on=("SUCCESS",)),
        gate("why", "follow_up", atom("headline.delta", ">", 0.1), on=("KILL", "INVALID")),
        gate("always", "follow_up", atom("headline.delta", ">", 0.1)),
    )
    decision = lab.decide()
    assert [gate_of(decision, name).truth for name in ("replicate", "why", "always")] == [True, None, True]
    assert gate_of(decision, "why").detail == "not read: it is for KILL or INVALID only"
    assert all(gate_of(decision, name).would_flip is None for name in ("replicate", "why", "always"))


def test_would_flip_is_the_verdict_with_that_gate_alone_changed(lab: Lab) -> None:
    decision = lab.decide()
    assert {gate.name: gate.would_flip for gate in decision.gates if not gate.built_in} == {
        "attack_took": "INVALID", "harm": "OVERRIDE_HARM", "dead": "KILL", "survives": "INCONCLUSIVE",
        "undamaged": "INCONCLUSIVE",
    }  # fmt: skip
    assert all(gate.would_flip == "INVALID" for gate in decision.gates if gate.built_in)


# ---------------------------------------------------------------- missing data


GONE = {"n": 0, "n_missing": SAMPLES, "total": 0, "value": None}
ONE_LESS = {"n": SAMPLES - 1, "n_missing": 1, "total": 3, "value": 3 / (SAMPLES - 1)}


@pytest.mark.parametrize("change", [GONE, ONE_LESS, None], ids=["no score", "one sample missing", "no row"])
def test_missing_fail_makes_the_analysis_unknown(lab: Lab, change: dict[str, Any] | None) -> None:
    lab.edit = {("reset_rate", "reflex_attacked", 42, "prompt04"): change}
    decision = lab.decide()
    headline = analysis_of(decision, "headline")
    assert headline.unknown_because is not None
    assert "declares `missing: fail`" in headline.unknown_because
    assert set(headline.statistics.values()) == {None}
    assert decision.verdict.label == "INVALID"
    assert analysis_of(decision, "attack_effect").unknown_because is None


@pytest.mark.parametrize(
    ("change", "units", "units_missing", "n_missing"),
    [(GONE, 23, 1, 8), (None, 23, 1, 0), (ONE_LESS, 24, 0, 1)],
    ids=["no score", "no row", "one sample missing"],
)
def test_missing_drop_deletes_pairs_and_reports_them(
    lab: Lab, change: dict[str, Any] | None, units: int, units_missing: int, n_missing: int
) -> None:
    lab.missing = "drop"
    lab.edit = {("reset_rate", "reflex_attacked", 42, "prompt04"): change}
    decision = lab.decide()
    headline = analysis_of(decision, "headline")
    assert (headline.n_units, headline.n_units_missing, headline.n_missing) == (units, units_missing, n_missing)
    assert gate_of(decision, "epc.missing_corners").truth is True
    assert decision.verdict.label == "SUCCESS"


def test_dropped_scores_that_could_change_the_verdict_make_it_invalid(lab: Lab) -> None:
    lab.missing = "drop"
    lab.edit = {("reset_rate", "reflex_attacked", 42, f"prompt{i:02d}"): GONE for i in range(16)}
    decision = lab.decide()
    corners = gate_of(decision, "epc.missing_corners")
    assert corners.truth is False
    assert corners.detail == (
        "missing scores were dropped in headline: SUCCESS without them, INCONCLUSIVE with treatment low and control high,"
        " SUCCESS with treatment high and control low"
    )
    assert decision.verdict.label == "INVALID"
    assert corners.would_flip == "SUCCESS"


def test_a_complete_drop_metric_needs_no_corners(lab: Lab) -> None:
    lab.missing = "drop"
    assert "epc.missing_corners" not in {gate.name for gate in lab.decide().gates}


def test_a_missing_training_seed_is_a_missing_unit(lab: Lab) -> None:
    lab.seeds = (1, 2)
    lab.edit = {("reset_rate", "attacked", 2, "prompt00"): None}
    assert "1 prompt are missing" in str(analysis_of(lab.decide(), "headline").unknown_because)


def test_items_that_differ_between_training_seeds_are_no_proportion(lab: Lab) -> None:
    lab.seeds = (1, 2)
    lab.edit = {("capability", "attacked", 2, "item000"): {"total": 0, "value": 0.0}}
    because = analysis_of(lab.decide(), "capability_change").unknown_because
    assert because is not None
    assert "needs one 0 or 1 per unit, but unit item000 has 0.5" in because


def test_a_method_that_does_not_apply_leaves_the_analysis_unknown_with_its_reason(lab: Lab) -> None:
    lab.extra_analyses = (
        Analysis(name="resets", metric="reset_rate", arm="attacked", method="wilson", side="greater", alpha=0.05),
    )
    lab.reset = {"attacked": 2, "reflex_attacked": 5}
    resets = analysis_of(lab.decide(), "resets")
    assert "one 0 or 1 per unit" in str(resets.unknown_because)
    assert resets.statistics == dict.fromkeys(("value", "lower", "upper", "ci_low", "ci_high"))


# ------------------------------------------------------------- built-in gates


@pytest.mark.parametrize(
    ("facts", "name", "truth"),
    [
        ({"mask": {"verified": False}}, "epc.mask_verified", False),
        ({"mask": {}}, "epc.mask_verified", None),
        ({"mask": {"verified": "yes"}}, "epc.mask_verified", False),
        ({"train": {"adapter_changed": False, "used": {"learning_rate": 0.001}}}, "epc.adapters_changed", False),
        ({"train": {"used": {"learning_rate": 0.001}}}, "epc.adapters_changed", None),
        ({"train": {"adapter_changed": True, "used": {"learning_rate": 0.002}}}, "epc.recipe_followed", False),
        ({"train": {"adapter_changed": True, "used": {}}}, "epc.recipe_followed", False),
        ({"train": {"adapter_changed": True}}, "epc.recipe_followed", None),
        ({"sample": {}}, "epc.identical_arms", None),
        (
            {"sample": {"completions_sha256": {"attacked-s42": "x", "reflex_attacked-s42": "x"}}},
            "epc.identical_arms",
            False,
        ),
        ({"sample": {"completions_sha256": {"attacked-s42": "x", "attacked-s43": "x"}}}, "epc.identical_arms", True),
    ],
)
def test_recorded_facts_are_validity_gates(lab: Lab, facts: dict[str, Any], name: str, truth: bool | None) -> None:
    lab.facts = facts
    decision = lab.decide()
    found = gate_of(decision, name)
    assert (found.truth, found.built_in, found.role) == (truth, True, "validity")
    assert decision.verdict.label == ("SUCCESS" if truth else "INVALID")
    if not truth:
        assert name in decision.verdict.because
        assert found.would_flip == "SUCCESS"


@pytest.mark.parametrize(
    ("right", "truth", "detail"),
    [
        (None, None, "base has no score for every item"),
        (59, False, "base scores 0.3933 in 150 items"),
        (60, True, "base scores 0.4 in 150 items"),
        (90, True, "base scores 0.6 in 150 items"),
        (91, False, "base scores 0.6067 in 150 items"),
    ],
)
def test_an_untrained_model_outside_its_band_makes_the_verdict_invalid(
    lab: Lab, right: int | None, truth: bool | None, detail: str
) -> None:
    lab.correct |= {} if right is None else {"base": right}
    lab.band = (0.4, 0.6)
    decision = lab.decide()
    found = gate_of(decision, "epc.base_in_band.capability")
    assert (found.truth, found.detail, found.role) == (truth, detail, "validity")
    assert decision.verdict.label == ("SUCCESS" if truth else "INVALID")


def test_an_untrained_model_without_every_item_is_not_known_to_be_in_its_band(lab: Lab) -> None:
    lab.correct |= {"base": 75}
    lab.band = (0.4, 0.6)
    lab.edit = {("capability", "base", 0, "item003"): None}
    assert gate_of(lab.decide(), "epc.base_in_band.capability").truth is None


def test_an_unfinished_step_makes_the_verdict_invalid(lab: Lab) -> None:
    lab.finished = lab.finished - {"train"}
    decision = lab.decide()
    assert gate_of(decision, "epc.steps_finished").truth is False
    assert decision.verdict.label == "INVALID"
    assert "not finished: train" in decision.verdict.because


def test_rows_of_an_unfinished_measurement_are_not_read(lab: Lab) -> None:
    bundle = lab.write()
    (bundle / "store" / "measure000000000" / "finished.json").unlink()
    decision = decide(bundle)
    assert decision.arms == ()
    assert decision.verdict.label == "INVALID"


@pytest.mark.parametrize("how", ["altered", "missing"])
def test_outputs_that_are_not_what_was_recorded_make_the_verdict_invalid(lab: Lab, how: str) -> None:
    bundle = lab.write()
    file = bundle / "store" / "train00000000000" / "out.txt"
    if how == "altered":
        file.write_text("something else", encoding="utf-8")
    else:
        file.unlink()
    decision = decide(bundle)
    intact = gate_of(decision, "epc.outputs_intact")
    assert intact.truth is False
    assert f"train/out.txt ({how})" in intact.detail
    assert decision.verdict.label == "INVALID"


def test_altered_rows_are_noticed_even_where_they_are_well_formed(lab: Lab) -> None:
    bundle = lab.write()
    file = bundle / "store" / "measure000000000" / "measurements.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text("".join(lines[1:] + lines[:1]), encoding="utf-8")
    decision = decide(bundle)
    assert decision.verdict.label == "INVALID"
    assert "measure/measurements.jsonl (altered)" in decision.verdict.because


def test_large_outputs_are_checked_for_presence_and_named(lab: Lab) -> None:
    bundle = lab.write()
    with (bundle / "store" / "train00000000000" / "out.txt").open("wb") as handle:
        handle.truncate(HASHED_BYTES + 1)
    intact = gate_of(decide(bundle), "epc.outputs_intact")
    assert intact.truth is True
    assert "present, above 50 MiB and not hashed again: train/out.txt" in intact.detail


# ------------------------------------------------------- confidence, card, file


@pytest.mark.parametrize(
    ("seeds", "changes", "label"),
    [
        ((42,), {}, "MODERATE"),  # p = .001 is below .025 / 10
        ((42,), {"extra_gates": (gate("m", "prediction", atom("headline.delta", ">", 0.9)),)}, "LOW"),
        ((42,), {"reset": {"attacked": 3, "reflex_attacked": 3}}, "LOW"),
        ((42,), {"mode": "rehearsal"}, "LOW"),
        ((42,), {"bad": {"base": 3, "attacked": 4}}, "LOW"),
        ((1, 2), {"reset": {"attacked": 3, "reflex_attacked": 3}}, "MODERATE"),
        ((1, 2, 3), {}, "HIGH"),
        ((1, 2, 3), {"extra_gates": (gate("m", "prediction", atom("headline.delta", ">", 0.9)),)}, "MODERATE"),
    ],
)
def test_confidence_follows_the_stated_rules(lab: Lab, seeds: Any, changes: dict[str, Any], label: str) -> None:
    lab.seeds = seeds
    for name, value in changes.items():
        setattr(lab, name, value)
    assert lab.decide().confidence.label == label


TURNED = {
    ("reset_rate", arm, 3, f"prompt{index:02d}"): {"total": total, "value": total / SAMPLES}
    for arm, total in (("attacked", 1), ("reflex_attacked", 0))
    for index in range(UNITS)
}
"""With training seed 3 the reflex makes resets rarer; the average of three seeds still passes every gate."""


def test_a_seed_of_another_sign_is_not_high_confidence(lab: Lab) -> None:
    lab.seeds = (1, 2, 3)
    assert lab.decide().confidence.reason == (
        "3 training seeds; success and prediction gates agree; confirmatory estimates have one sign with all of them"
    )
    lab.folder, lab.edit = lab.folder / "turned", {**TURNED}
    decision = lab.decide()
    assert decision.verdict.label == "SUCCESS"
    assert decision.confidence.label == "MODERATE"
    assert decision.confidence.reason == (
        "3 training seeds; success and prediction gates agree;"
        " headline has another sign with training seed 3 than on average"
    )


@pytest.mark.parametrize(
    ("changes", "label", "reason"),
    [
        ({}, "MODERATE", "all success and prediction gates agree, and every confirmatory p is below alpha / 10"),
        (
            {"extra_gates": (gate("m", "prediction", atom("headline.delta", ">", 0.9)),)}, "LOW",
            "success and prediction gates do not all agree",
        ),
        (
            {"reset": {"attacked": 3, "reflex_attacked": 3}}, "LOW",
            "success and prediction gates agree; not every confirmatory p is below alpha / 10; the verdict is KILL",
        ),
        (
            {"correct": {"attacked": 140, "reflex_attacked": 60}}, "LOW",
            "success and prediction gates agree; the verdict is OVERRIDE_HARM",
        ),
    ],
)  # fmt: skip
def test_without_training_no_seed_is_spoken_of(lab: Lab, changes: dict[str, Any], label: str, reason: str) -> None:
    lab.trained = False
    for name, value in changes.items():
        setattr(lab, name, value)
    decision = lab.decide()
    assert decision.confidence.label == label
    assert decision.confidence.reason == f"no training, so no training-seed variance; {reason}"
    assert decision.conditional_on == ""


def test_estimates_of_each_training_seed(lab: Lab) -> None:
    lab.seeds, lab.edit = (1, 2, 3), {**TURNED}
    decision = lab.decide()
    headline = analysis_of(decision, "headline")
    assert headline.per_seed == pytest.approx({"1": 0.375, "2": 0.375, "3": -0.125})
    # an arm without training is the same with every seed
    assert analysis_of(decision, "attack_effect").per_seed == pytest.approx(dict.fromkeys("123", 7 / 8))
    assert analysis_of(decision, "level").per_seed == pytest.approx(dict.fromkeys("123", 120 / 150))
    for analysis in decision.analyses:
        average = analysis.statistics.get("delta", analysis.statistics.get("value"))
        assert sum(analysis.per_seed.values()) / 3 == pytest.approx(average)


def test_estimates_of_seeds_are_over_the_same_units(lab: Lab) -> None:
    """A prompt that is left out, because one seed lacks it, is left out of the others' estimates too."""
    lab.seeds, lab.missing = (1, 2), "drop"
    lab.edit = {
        ("reset_rate", "reflex_attacked", 1, "prompt00"): {"total": 8, "value": 1.0},
        ("reset_rate", "reflex_attacked", 2, "prompt00"): None,
    }
    headline = analysis_of(lab.decide(), "headline")
    kept = [3 + (index % 3) - 1 for index in range(1, UNITS)]
    assert headline.n_units == UNITS - 1
    assert headline.per_seed == pytest.approx(dict.fromkeys("12", sum(kept) / len(kept) / SAMPLES))


@pytest.mark.parametrize(
    ("seeds", "attacked", "shared"),
    [((1, 2, 3), (2, 3), ["2", "3"]), ((1, 2, 3), (3,), []), ((10, 9), (9, 10), ["9", "10"]), ((1,), (1,), [])],
)
def test_only_seeds_that_trained_arms_share_have_estimates(
    lab: Lab, seeds: tuple[int, ...], attacked: tuple[int, ...], shared: list[str]
) -> None:
    lab.seeds = seeds
    design = lab.design()
    conditions = tuple(
        c.model_copy(update={"seeds": attacked}) if c.name == "attacked" else c for c in design.conditions
    )
    measured = group([MeasurementRow.model_validate(row) for row in lab.rows()])
    found = analysis_result(design.model_copy(update={"conditions": conditions}), design.analyses[0], measured)
    assert found.statistics["delta"] == pytest.approx(0.375)
    assert list(found.per_seed) == shared


def test_an_unknown_analysis_has_no_estimates_of_seeds(lab: Lab) -> None:
    lab.seeds = (1, 2)
    lab.edit = {("reset_rate", "attacked", 2, "prompt00"): None}
    assert analysis_of(lab.decide(), "headline").per_seed == {}


def test_a_weak_single_seed_is_low(lab: Lab) -> None:
    lab.extra_analyses = (
        bootstrap("second", "reset_rate", "reflex_attacked", "attacked", confirmatory=True).model_copy(
            update={"resamples": 300}
        ),
    )
    decision = lab.decide()
    assert analysis_of(decision, "second").statistics["p"] == pytest.approx(1 / 301)
    assert decision.verdict.label == "SUCCESS"
    assert decision.confidence.label == "LOW"


@pytest.mark.parametrize(("seeds", "said"), [((42,), True), ((1, 2), False)])
def test_a_single_training_seed_is_said(lab: Lab, seeds: tuple[int, ...], said: bool) -> None:
    lab.seeds = seeds
    assert ("training-seed variance is not included" in lab.decide().conditional_on) is said


def test_the_card_is_filled_from_records(lab: Lab) -> None:
    card = lab.decide().card
    assert card["model"] == "revision 0.1, source pypi:tiny"
    assert card["python"] == "3.11.9"
    assert card["training seeds"] == "42"
    assert card["steps"] == "5 of 5 finished, 7.5 s of step time in all"
    assert "epc compile specs/tiny.yaml" in card["to reproduce"]
    assert all(card.values())


def test_arms_are_summarised_with_both_weightings(lab: Lab) -> None:
    lab.edit = {
        ("reset_rate", "reflex_attacked", 42, "prompt00"): {"n": 2, "n_missing": 6, "total": 2, "value": 1.0},
    }
    arms = {(arm.metric, arm.condition): arm for arm in lab.decide().arms}
    assert ("bad_rate", "reflex_attacked") not in arms
    found = arms["reset_rate", "reflex_attacked"]
    assert (found.n_units, found.n_samples, found.n_missing) == (24, 186, 6)
    assert found.mean == pytest.approx((1 + 7 * 2 / 8 + 8 * 3 / 8 + 8 * 4 / 8) / 24)
    assert found.sample_mean == pytest.approx((2 + 7 * 2 + 8 * 3 + 8 * 4) / 186)


def test_thresholds_are_collected_from_the_gates(lab: Lab) -> None:
    found = [(t.gate, t.statistic, t.operator, t.constant) for t in analysis_of(lab.decide(), "headline").thresholds]
    assert found == [
        ("dead", "delta", "<", 0.05),
        ("survives", "reject", "==", 1),
        ("survives", "delta", ">=", 0.15),
    ]


def test_the_file_is_byte_identical_on_rerun_and_reads_back(lab: Lab) -> None:
    lab.facts = {"train": {"adapter_changed": True, "final_loss": 0.5, "history": [1.0, {"loss": 2.0}]}}
    bundle = lab.write()
    file = write_decision(bundle, decide(bundle))
    first = file.read_bytes()
    assert write_decision(bundle, decide(bundle)).read_bytes() == first
    assert first.endswith(b"\n}\n")
    assert file == bundle / "report" / "decision.json"
    assert sorted(path.name for path in file.parent.iterdir()) == ["decision.json"]
    assert Decision.model_validate_json(first) == decide(bundle)
    assert str(lab.folder).encode() not in first


def test_another_place_and_another_row_order_give_the_same_statistics(tmp_path: Path) -> None:
    one, other = Lab(folder=tmp_path / "one"), Lab(folder=tmp_path / "other")
    straight = one.decide()
    bundle = other.write()
    file = bundle / "store" / "measure000000000" / "measurements.jsonl"
    file.write_text("".join(reversed(file.read_text(encoding="utf-8").splitlines(keepends=True))), encoding="utf-8")
    turned = decide(bundle)
    assert turned.analyses == straight.analyses
    assert turned.rows_sha256 == straight.rows_sha256


def test_a_loss_that_was_not_a_number_is_kept_by_name(lab: Lab) -> None:
    lab.facts = {"train": {"adapter_changed": True, "final_loss": math.nan}}
    bundle = lab.write()
    decision = decide(bundle)
    assert next(step for step in decision.steps if step.id == "train").facts["final_loss"] == "nan"
    assert b"NaN" not in write_decision(bundle, decision).read_bytes()


def test_deviations_are_reported_and_change_no_verdict(lab: Lab) -> None:
    deviation = Deviation(kind="amended", text="seed changed", changes=("seeds",))
    decision = decide(lab.write(), (deviation,))
    assert decision.deviations == (deviation,)
    assert decision.verdict.label == "SUCCESS"


# ------------------------------------------------------------------- bad input


def test_bad_rows_are_a_fault(lab: Lab) -> None:
    bundle = lab.write()
    file = bundle / "store" / "measure000000000" / "measurements.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(Fault, match="cut off") as caught:
        decide(bundle)
    assert caught.value.code == "R0501"


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"verdicts": (rule(Name(name="survives"), "SUCCESS"),)}, "does not end with `otherwise`"),
        ({"verdicts": (rule(Name(name="nobody"), "KILL"), rule(None, "INCONCLUSIVE"))}, "names gate nobody"),
        (
            {"verdicts": (rule(Name(name="attack_took"), "KILL"), rule(None, "INCONCLUSIVE"))},
            "a validity gate never decides",
        ),
        ({"verdicts": (rule(reject("headline"), "KILL"), rule(None, "INCONCLUSIVE"))}, "compares a statistic"),
        ({"extra_gates": (gate("g", "sanity", reject("nothing")),)}, "gate g reads analysis nothing"),
        ({"extra_gates": (gate("g", "sanity", Name(name="dead")),)}, "gate g names dead without a statistic"),
        ({"extra_gates": (gate("dead", "sanity", reject("headline")),)}, "gate dead is there twice"),
        ({"extra_analyses": (bootstrap("a", "speed", "attacked", "base"),)}, "analysis a reads metric speed"),
        ({"extra_analyses": (bootstrap("a", "bad_rate", "attacked", "none"),)}, "analysis a reads condition none"),
        (
            {"extra_analyses": (Analysis(name="a", metric="bad_rate", method="wilson", side="less", alpha=0.05),)},
            "exactly one of contrast and arm",
        ),
    ],
)
def test_a_manifest_that_contradicts_itself_is_one_fault(lab: Lab, changes: dict[str, Any], fact: str) -> None:
    for name, value in changes.items():
        setattr(lab, name, value)
    with pytest.raises(Fault, match=fact) as caught:
        lab.decide()
    assert (caught.value.code, caught.value.place) == ("R0503", str(lab.folder / "generated/tiny/manifest.json"))


def test_a_report_folder_that_cannot_be_written_is_a_fault(lab: Lab) -> None:
    bundle = lab.write()
    (bundle / "report").write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(Fault, match="cannot be written") as caught:
        write_decision(bundle, decide(bundle))
    assert caught.value.code == "R0504"
