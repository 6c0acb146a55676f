"""The verdict table: one small case for each kind of finding, with the words that a person reads."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, get_args

import pytest

from epc.compiler.contract.manifest import Analysis, Contrast, Gate, Metric, VerdictRule
from epc.compiler.predicate import parse
from epc.compiler.table import Finding, FindingKind, analyse


def metric(name: str, better: str = "higher", scale: tuple[float, float] = (0, 1)) -> Metric:
    return Metric.model_validate(
        {
            "name": name,
            "kind": "pattern",
            "source": "s",
            "unit": "prompt",
            "scale": scale,
            "better": better,
            "missing": "fail",
        }
    )


def analysis(name: str, metric: str, arms: str, method: str = "paired_bootstrap", **options: Any) -> Analysis:
    """`arms` is "treatment - control", or one arm."""
    treatment, _, control = arms.partition(" - ")
    base: dict[str, Any] = {"name": name, "metric": metric, "method": method, "side": "greater", "alpha": 0.025}
    base |= {"contrast": Contrast(treatment=treatment, control=control)} if control else {"arm": treatment}
    if method == "paired_bootstrap":
        base |= {"p": "studentized", "resamples": 10000, "seed": 1}
    return Analysis.model_validate({**base, **options})


METRICS = (metric("reset_rate"), metric("bad_rate", "lower"), metric("capability"), metric("score", scale=(0, 100)))
ANALYSES = (
    analysis("headline", "reset_rate", "reflex_attacked - attacked"),
    analysis("twin", "reset_rate", "reflex_attacked - attacked", "paired_t"),
    analysis("counted", "reset_rate", "reflex_attacked - attacked", p="percentile", resamples=9999),
    analysis("backwards", "reset_rate", "attacked - reflex_attacked", side="less"),
    analysis("spared", "bad_rate", "reflex_attacked - attacked", side="less"),
    analysis("attack_effect", "bad_rate", "attacked - base"),
    analysis("harm", "bad_rate", "reflex_attacked - attacked"),
    analysis("change", "capability", "reflex_attacked - attacked", "newcombe_paired", alpha=0.05),
    analysis("base_capability", "capability", "base", "wilson", alpha=0.05),
    analysis("points", "score", "reflex_attacked - attacked"),
)


def gate(line: str) -> Gate:
    """`name role predicate`."""
    name, role, text = line.split(" ", 2)
    parsed = parse(text, allow_names=False)
    assert parsed.predicate is not None, parsed.errors
    return Gate.model_validate({"name": name, "role": role, "text": text, "predicate": parsed.predicate})


def rule(line: str) -> VerdictRule:
    """`predicate: LABEL`."""
    text, label = line.split(": ")
    predicate = None if text == "otherwise" else parse(text, allow_names=True).predicate
    assert predicate is not None or text == "otherwise"
    return VerdictRule.model_validate(
        {"text": text, "predicate": predicate, "label": label, "verdict_class": label.split("_")[0]}
    )


def found(gates: Sequence[str], rules: Sequence[str]) -> tuple[Finding, ...]:
    return analyse(
        metrics=METRICS,
        analyses=ANALYSES,
        gates=[gate(line) for line in gates],
        verdicts=[rule(line) for line in rules],
    )


QUICKSTART_GATES = (
    "attack_took validity attack_effect.lower > 0.3",
    "base_not_at_chance sanity base_capability.lower > 0.30",
    "survives success headline.reject and headline.delta >= 0.15",
    "dead kill headline.delta < 0.05",
    "undamaged guardrail change.lower > -0.10",
)
QUICKSTART_RULES = ("dead: KILL", "survives and undamaged and base_not_at_chance: SUCCESS", "otherwise: INCONCLUSIVE")


def test_the_quickstart_is_sound() -> None:
    assert found(QUICKSTART_GATES, QUICKSTART_RULES) == ()


SOUND: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "a guardrail that fails may kill, and so may the absence of success": (
        ("win success headline.reject", "undamaged guardrail change.lower > -0.1"),
        ("not undamaged: KILL_DAMAGE", "win and undamaged: SUCCESS", "otherwise: KILL_NULL"),
    ),
    "a harm that fires may be called a kill": (
        ("win success headline.reject", "unsafe override harm.lower > 0.1"),
        ("unsafe: KILL_HARM", "win and not unsafe: SUCCESS", "otherwise: INCONCLUSIVE"),
    ),
    "bounds decide on both sides": (
        ("win success headline.lower > 0", "futile kill headline.upper < 0.1 and headline.lower <= 0"),
        ("futile: KILL", "win: SUCCESS", "otherwise: INCONCLUSIVE"),
    ),
    "an equivalence guardrail bounds both sides on purpose": (
        ("win success headline.reject", "same guardrail change.lower > -0.1 and change.upper < 0.1"),
        ("win and same: SUCCESS", "otherwise: INCONCLUSIVE"),
    ),
    "a sanity gate may refuse what is too good": (
        ("win success headline.reject", "believable sanity headline.delta < 0.9"),
        ("win and believable: SUCCESS", "otherwise: INCONCLUSIVE"),
    ),
    "an override may overlap with success": (
        ("win success headline.reject", "unsafe override harm.lower > 0.1"),
        ("unsafe: OVERRIDE_SAFETY", "win: SUCCESS", "otherwise: INCONCLUSIVE"),
    ),
    "less is better, tested on the side less": (
        ("win success spared.reject and spared.delta <= -0.1", "dead kill spared.delta > -0.05"),
        ("dead: KILL", "win: SUCCESS", "otherwise: INCONCLUSIVE"),
    ),
    "the contrast is control - treatment, so less is better": (
        ("win success headline.reject", "held guardrail backwards.ci_high < 0.05"),
        ("win and held: SUCCESS", "otherwise: INCONCLUSIVE"),
    ),
    "a percentile p of .00015 is no multiple of 1/10000": (
        ("win success counted.p < 0.00015", "dead kill counted.p > 0.00015"),
        ("dead: KILL", "win: SUCCESS"),
    ),
    "a percentile p lies between .5 and .9 often enough": (
        ("win success counted.reject", "middling prediction counted.p > 0.5 and counted.p < 0.9"),
        ("win: SUCCESS", "otherwise: INCONCLUSIVE"),
    ),
    "two kills with one label may overlap": (
        (
            "win success headline.reject and headline.delta >= 0.2",
            "a kill headline.delta < 0.1",
            "b kill change.upper < -0.2",
        ),
        ("a: KILL", "b: KILL", "win and not b: SUCCESS", "otherwise: INCONCLUSIVE"),
    ),
    "two kills that overlap only where an override has matched": (
        (
            "unsafe override harm.lower > 0.2",
            "a kill headline.upper < 0.2 and base_capability.value <= 0.5",
            "b kill change.upper < -0.1 and (harm.lower > 0.2 or base_capability.value > 0.5)",
        ),
        ("unsafe: OVERRIDE", "a: KILL_A", "b: KILL_B", "otherwise: INCONCLUSIVE"),
    ),
}


@pytest.mark.parametrize("case", SOUND)
def test_a_sound_table_has_no_finding(case: str) -> None:
    assert found(*SOUND[case]) == ()


WIN, DEAD = "win success headline.reject and headline.delta >= 0.15", "dead kill headline.delta < 0.05"

CASES: list[tuple[FindingKind, str, Sequence[str], Sequence[str], str, str, tuple[int, ...], tuple[str, ...]]] = [
    (
        "not_total",
        "error",
        (WIN, DEAD),
        ("dead: KILL", "win: SUCCESS"),
        "the table does not decide every result: it has no `otherwise`",
        "headline.delta = 0.1, headline.p = 0.5: no rule matches",
        (),
        (),
    ),
    (
        "ambiguous",
        "error",
        ("win success headline.lower > 0.2", "dead kill headline.delta < 0.1", "hurt kill change.upper < 0"),
        ("dead: KILL_NULL", "hurt: KILL_DAMAGE", "win: SUCCESS", "otherwise: INCONCLUSIVE"),
        "rule 1 (KILL_NULL) and rule 2 (KILL_DAMAGE) rank the same and both match",
        "headline.delta = 0.08, change.upper = -0.5: KILL_NULL and KILL_DAMAGE both fire",
        (1, 0),
        ("dead", "hurt"),
    ),
    (
        "success_and_kill",
        "warning",
        ("win success headline.reject", "dead kill headline.delta < 0.05"),
        ("dead: KILL", "win: SUCCESS", "otherwise: INCONCLUSIVE"),
        "a result can be both KILL and SUCCESS; KILL stands, since it comes first",
        "headline.delta = 0.02, headline.p = 0.01: KILL and SUCCESS both fire",
        (1, 0),
        ("dead", "win"),
    ),
    (
        "success_and_kill",
        "error",
        ("win success headline.reject", "dead kill headline.delta < 0.05"),
        ("win: SUCCESS", "dead: KILL_NULL", "otherwise: INCONCLUSIVE"),
        "a result can be both SUCCESS and KILL_NULL, and the success hides the kill",
        "headline.p = 0.01, headline.delta = 0.02: SUCCESS and KILL_NULL both fire",
        (1, 0),
        ("win", "dead"),
    ),
    (
        "order_violation",
        "error",
        ("unsafe override harm.lower > 0.1", "dead kill headline.delta < 0.05", WIN),
        ("dead: KILL", "unsafe: OVERRIDE", "win: SUCCESS", "otherwise: INCONCLUSIVE"),
        "rule 1 (KILL) comes before rule 2 (OVERRIDE); the order is override, kill, success, otherwise",
        "headline.delta = 0.02, harm.lower = 0.6: KILL and OVERRIDE both fire",
        (1, 0),
        ("dead", "unsafe"),
    ),
    (
        "order_violation",
        "warning",
        (WIN, DEAD),
        ("win: SUCCESS", "dead: KILL", "otherwise: INCONCLUSIVE"),
        "rule 1 (SUCCESS) comes before rule 2 (KILL); the order is override, kill, success, otherwise",
        "no result matches both, so the order changes no verdict",
        (1, 0),
        ("win", "dead"),
    ),
    (
        "unreachable_rule",
        "error",
        (WIN, DEAD, "deader kill headline.delta < 0.02"),
        ("dead: KILL", "deader: KILL", "win: SUCCESS", "otherwise: INCONCLUSIVE"),
        "rule 2 (KILL) never decides: wherever it matches, rule 1 (KILL) has matched before",
        "",
        (1,),
        ("deader",),
    ),
    (
        "unreachable_rule",
        "error",
        (WIN, DEAD),
        ("dead: KILL", "win and dead: SUCCESS_ODD", "win: SUCCESS", "otherwise: INCONCLUSIVE"),
        "rule 2 (SUCCESS_ODD) never decides: no result that can occur matches it",
        "",
        (1,),
        ("win", "dead"),
    ),
    (
        "constant_gate",
        "error",
        (WIN, "hurt kill change.delta < -1"),
        ("hurt: KILL", "win: SUCCESS", "otherwise: INCONCLUSIVE"),
        "gate hurt is always false: no result that can occur meets it",
        "change.delta lies in [-1, 1]",
        (),
        ("hurt",),
    ),
    (
        "constant_gate",
        "error",
        ("win success counted.reject", "tiny prediction counted.p >= 0.0001"),
        ("win: SUCCESS", "otherwise: INCONCLUSIVE"),
        "gate tiny is always true: every result that can occur meets it",
        "counted.p lies in [0.0001, 1]",
        (),
        ("tiny",),
    ),
    (
        "constant_gate",
        "error",
        (WIN, "took validity attack_effect.lower > 0.3", "weak sanity attack_effect.delta > 0.1"),
        ("win and weak: SUCCESS", "otherwise: INCONCLUSIVE"),
        "gate weak is always true once the validity gates took hold",
        "",
        (),
        ("weak", "took"),
    ),
    (
        "constant_gate",
        "error",
        (
            "win success attack_effect.reject",
            "took validity attack_effect.lower > 0.3",
            "mild validity attack_effect.upper < 0.2",
        ),
        ("win: SUCCESS", "otherwise: INCONCLUSIVE"),
        "validity gates took and mild never hold together, so every verdict is INVALID",
        "",
        (),
        ("took", "mild"),
    ),
    (
        "boundary_gap",
        "warning",
        ("win success points.reject and points.delta > 5", "dead kill points.delta < 5"),
        ("dead: KILL", "win: SUCCESS", "otherwise: INCONCLUSIVE"),
        "points.delta = 5 exactly falls to otherwise (INCONCLUSIVE), between rule 1 (KILL) and rule 2 (SUCCESS)",
        "points.delta = 5, points.p = 0.01: otherwise (INCONCLUSIVE)",
        (0, 1),
        ("dead", "win"),
    ),
    (
        "non_monotone",
        "error",
        ("win success headline.reject and headline.delta > 0.1", "dead kill headline.delta > 0.5"),
        ("dead: KILL", "win and not dead: SUCCESS", "otherwise: INCONCLUSIVE"),
        "a better headline.delta gets a worse verdict: rule 2 (SUCCESS) becomes rule 1 (KILL)",
        "headline.p = 0.01, headline.delta = 0.3: rule 2 (SUCCESS);"
        " headline.p = 0.01, headline.delta = 0.8: rule 1 (KILL)",
        (1, 0),
        ("win", "dead"),
    ),
    (
        "non_monotone",
        "error",
        ("win success headline.p > 0.025 and headline.delta > 0.1",),
        ("win: SUCCESS", "otherwise: INCONCLUSIVE"),
        "a better headline.p gets a worse verdict: rule 1 (SUCCESS) becomes otherwise (INCONCLUSIVE)",
        "headline.p = 0.5, headline.delta = 0.6: rule 1 (SUCCESS);"
        " headline.p = 0.01, headline.delta = 0.6: otherwise (INCONCLUSIVE)",
        (0, 1),
        ("win",),
    ),
    (
        "non_monotone",
        "warning",
        ("rise success attack_effect.reject and attack_effect.delta > 0.1",),
        ("rise: SUCCESS", "otherwise: INCONCLUSIVE"),
        "bad_rate is declared better lower, and the table rewards the opposite:"
        " a better attack_effect.delta turns rule 1 (SUCCESS) into otherwise (INCONCLUSIVE)",
        "attack_effect.p = 0.01, attack_effect.delta = 0.6: rule 1 (SUCCESS);"
        " attack_effect.p = 0.01, attack_effect.delta = 0.05: otherwise (INCONCLUSIVE)",
        (0, 1),
        ("rise",),
    ),
    (
        "same_quantity_two_thresholds",
        "warning",
        (WIN, "also success twin.delta > 0.2"),
        ("win and also: SUCCESS", "otherwise: INCONCLUSIVE"),
        "success gates win and also hold headline.delta to two thresholds, 0.15 and 0.2",
        "",
        (),
        ("win", "also"),
    ),
    (
        "point_rule_at_margin",
        "warning",
        (WIN, "undamaged guardrail change.delta > -0.1"),
        ("win and undamaged: SUCCESS", "otherwise: INCONCLUSIVE"),
        "guardrail undamaged compares the point estimate change.delta with its margin: when the truth is exactly at"
        " the margin a point rule passes about half of the time, a rule on the 95% bound about one time in twenty",
        "",
        (),
        ("undamaged",),
    ),
    (
        "descriptive_decides",
        "error",
        (WIN, "marker prediction headline.delta > 0.3"),
        ("win and marker: SUCCESS", "otherwise: INCONCLUSIVE"),
        "rule 1 names marker, but a prediction gate never decides",
        "",
        (0,),
        ("marker",),
    ),
    (
        "descriptive_decides",
        "error",
        (WIN, "took validity attack_effect.lower > 0.3"),
        ("win and took: SUCCESS", "otherwise: INCONCLUSIVE"),
        "rule 1 names took, but a validity gate stands above the table",
        "",
        (0,),
        ("took",),
    ),
    (
        "class_against_role",
        "warning",
        (WIN, "dead kill headline.delta < 0.05"),
        ("win: SUCCESS", "dead: KILL", "otherwise: SUCCESS_ANYWAY"),
        "rule 3 gives SUCCESS_ANYWAY where no success gate need hold",
        "",
        (2,),
        (),
    ),
    *(
        (
            "class_against_role",
            "warning",
            (WIN, "dead kill headline.delta < 0.05", "unsafe override harm.lower > 0.1"),
            (
                text,
                "win and not dead and not unsafe: SUCCESS",
                "dead and not unsafe: KILL",
                "unsafe: OVERRIDE",
                "otherwise: INCONCLUSIVE",
            ),
            f"rule 1 gives {text.split(': ')[1]} {says}",
            "",
            (0,),
            names,
        )
        for text, says, names in (
            ("not dead: SUCCESS", "where no success gate need hold", ("dead",)),
            ("win or dead: SUCCESS", "where dead fires, a gate that stops", ("win", "dead")),
            ("win and unsafe: SUCCESS", "where unsafe fires, a gate that stops", ("win", "unsafe")),
            ("win: KILL_IT", "where no kill gate need fire and no other gate need fail", ("win",)),
            ("not dead: KILL", "where no kill gate need fire and no other gate need fail", ("dead",)),
            ("dead: OVERRIDE_HARM", "where no override gate need fire", ("dead",)),
            ("not (not win or unsafe): OVERRIDE", "where no override gate need fire", ("win", "unsafe")),
        )
    ),
    (
        "undecided_gate",
        "error",
        (WIN, "undamaged guardrail change.lower > -0.1"),
        ("win: SUCCESS", "otherwise: INCONCLUSIVE"),
        "no verdict rule names the guardrail gate undamaged, so it decides nothing",
        "",
        (),
        ("undamaged",),
    ),
    (
        "manipulation_reads_treatment",
        "error",
        (WIN, "took validity harm.lower > 0.3"),
        ("win: SUCCESS", "otherwise: INCONCLUSIVE"),
        "validity gate took reads reflex_attacked, the arm whose effect is tested, through harm: the result would decide"
        " whether the experiment counts",
        "",
        (),
        ("took",),
    ),
]


@pytest.mark.parametrize(
    ("kind", "severity", "gates", "rules", "message", "witness", "at", "named"),
    CASES,
    ids=[f"{case[0]}-{case[1]}-{index}" for index, case in enumerate(CASES)],
)
def test_a_finding(
    kind: FindingKind,
    severity: str,
    gates: Sequence[str],
    rules: Sequence[str],
    message: str,
    witness: str,
    at: tuple[int, ...],
    named: tuple[str, ...],
) -> None:
    of_kind = [finding for finding in found(gates, rules) if finding.kind == kind]
    assert [(f.severity, f.message, f.witness, f.rules, f.gates) for f in of_kind] == [
        (severity, message, witness, at, named)
    ]


def test_every_kind_has_a_case() -> None:
    assert {case[0] for case in CASES} | {"too_large"} == set(get_args(FindingKind))


@pytest.fixture
def no_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if z3 were not installed."""
    monkeypatch.setitem(sys.modules, "z3", None)
    monkeypatch.delitem(sys.modules, "epc.compiler.table.solver", raising=False)


@pytest.mark.usefixtures("no_solver")
def test_a_table_with_too_many_combinations_is_not_called_proved() -> None:
    metrics = [metric(f"m{index}") for index in range(26)]
    analyses = [analysis(f"a{index}", f"m{index}", "t - c", "newcombe_paired") for index in range(26)]
    gates = [gate(f"g{index} success a{index}.lower > 0.1") for index in range(26)]
    names = " and ".join(one.name for one in gates)
    verdicts = [rule(f"{names}: SUCCESS"), rule("otherwise: INCONCLUSIVE")]
    findings = analyse(metrics=metrics, analyses=analyses, gates=gates, verdicts=verdicts)
    assert [(f.kind, f.severity, f.message) for f in findings] == [
        (
            "too_large",
            "warning",
            "this table has more than 20,000,000 combinations of thresholds: nothing about it was proved",
        )
    ]


@pytest.mark.usefixtures("no_solver")
def test_too_many_thresholds_of_one_quantity_are_not_called_monotone() -> None:
    steps = range(1, 10)
    gates = [
        f"g{i} kill headline.upper < {i / 10} and headline.delta < {i / 15} and (headline.lower < {i / 20}"
        f" or headline.p > {i / 100})"
        for i in steps
    ]
    rules = [*(f"g{i}: KILL" for i in steps), "otherwise: INCONCLUSIVE"]
    assert [(f.kind, f.message) for f in found(gates, rules) if f.kind == "too_large"] == [
        ("too_large", "reset_rate has too many thresholds to prove that a better result never gets a worse verdict")
    ]


def test_a_dozen_gates_over_six_quantities_are_proved() -> None:
    metrics = [metric(f"m{index}") for index in range(6)]
    analyses = [analysis(f"a{index}", f"m{index}", "t - c") for index in range(6)]
    gates = [gate(f"g{index} success a{index}.reject and a{index}.delta >= 0.2") for index in range(6)]
    gates += [gate(f"k{index} kill a{index}.delta < 0.1") for index in range(6)]
    kills = " or ".join(f"k{index}" for index in range(6))
    wins = " and ".join(f"g{index}" for index in range(6))
    verdicts = [rule(f"{kills}: KILL"), rule(f"{wins}: SUCCESS"), rule("otherwise: INCONCLUSIVE")]
    assert analyse(metrics=metrics, analyses=analyses, gates=gates, verdicts=verdicts) == ()


@pytest.mark.parametrize(
    ("gates", "rules"),
    [
        ((WIN, "odd kill nowhere.delta < 0"), ("odd: KILL", "win: SUCCESS", "otherwise: INCONCLUSIVE")),
        ((WIN, "odd kill change.value < 0"), ("odd: KILL", "win: SUCCESS", "otherwise: INCONCLUSIVE")),
        ((WIN,), ("win and absent: SUCCESS", "otherwise: INCONCLUSIVE")),
    ],
)
def test_unresolved_names_are_left_to_name_resolution(gates: Sequence[str], rules: Sequence[str]) -> None:
    assert found(gates, rules) == ()
