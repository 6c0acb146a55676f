"""`reject` in a family and at the last of several looks, with what is unknown left unknown."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epc.compiler.contract.decision import AnalysisResult
from epc.compiler.contract.logic import Atom, Operator, Predicate
from epc.compiler.contract.manifest import (
    Analysis,
    Contrast,
    Design,
    Family,
    Gate,
    Interim,
    Metric,
    VerdictRule,
)
from epc.runtime.gates import reason
from epc.runtime.rejections import adjusted, decided
from epc.runtime.switches import Evaluation, evaluate_design

METHODS = ("holm", "benjamini_hochberg", "fixed_sequence")
ALPHA = 0.025


def family(method: str, *names: str) -> Family:
    return Family.model_validate({"name": "primary", "method": method, "analyses": names, "alpha": ALPHA})


def rejections(method: str, ps: Sequence[float | None]) -> list[bool | None]:
    exact = [None if p is None else Fraction(repr(p)) for p in ps]
    return [reject for _, reject in adjusted(family(method, *map(str, range(len(ps)))), exact)]


T, F, U = True, False, None


@pytest.mark.parametrize(
    ("method", "ps", "expected"),
    [
        ("holm", [0.001, 0.02], [T, T]),
        ("holm", [0.0125, 0.0125], [F, F]),  # below alpha / 2, not at it
        ("holm", [0.02, 0.02], [F, F]),
        ("holm", [0.001, 0.03], [T, F]),
        ("benjamini_hochberg", [0.02, 0.02], [T, T]),
        ("benjamini_hochberg", [0.02, 0.03], [F, F]),
        ("fixed_sequence", [0.02, 0.024], [T, T]),
        ("fixed_sequence", [0.03, 0.001], [F, F]),
        # an unknown p: what holds whatever it is stands
        ("holm", [0.001, None], [T, U]),
        ("holm", [0.02, None], [U, U]),
        ("holm", [0.03, None], [F, U]),
        ("holm", [None, 0.0125, 0.001], [U, U, T]),
        ("benjamini_hochberg", [0.02, None], [U, U]),
        ("benjamini_hochberg", [0.012, None], [T, U]),
        ("benjamini_hochberg", [0.03, None], [F, U]),
        ("fixed_sequence", [0.02, None, 0.001], [T, U, U]),
        ("fixed_sequence", [None, 0.03, 0.001], [U, F, F]),
        ("fixed_sequence", [0.03, None, None], [F, F, F]),
        ("holm", [None, None], [U, U]),
    ],
)
def test_rejections(method: str, ps: list[float | None], expected: list[bool | None]) -> None:
    assert rejections(method, ps) == expected


@settings(max_examples=200, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    ps=st.lists(st.none() | st.sampled_from([0.0, 0.004, 0.01, 0.0125, 0.02, 0.025, 0.3, 1.0]), min_size=2, max_size=4),
)
def test_an_unknown_p_is_any_p(method: str, ps: list[float | None]) -> None:
    """Three-valued rejection against every value that the unknown ones can take."""
    grid = [k / 400 for k in range(0, 13)] + [1.0]
    missing = [index for index, p in enumerate(ps) if p is None]
    seen: list[set[bool | None]] = [set() for _ in ps]
    for values in itertools.product(grid, repeat=min(len(missing), 2)):
        filled = list(ps)
        for index, value in itertools.zip_longest(missing, values, fillvalue=values[-1] if values else 0.0):
            filled[int(index)] = value
        for place, reject in enumerate(rejections(method, filled)):
            seen[place].add(reject)
    for place, reject in enumerate(rejections(method, ps)):
        if reject is not None:
            assert seen[place] == {reject}
        elif len(missing) <= 2:
            assert seen[place] == {True, False}


def result(name: str, p: float | None, **more: Any) -> AnalysisResult:
    statistics = {"delta": 0.2, "p": p, "reject": None if p is None else float(p < ALPHA), "lower": 0.1}
    return AnalysisResult.model_validate(
        {
            "name": name, "metric": "m", "contrast": {"treatment": "t", "control": "c"}, "arm": None, "method": "paired_t",
            "definition": f"A test. reject is p < {ALPHA:g}. lower is a bound.", "side": "greater", "alpha": ALPHA,
            "confirmatory": True, "better": "higher", "scale": (0, 1), "unit": "prompt", "n_units": 24, "n_samples": 24,
            "n_missing": 0, "n_units_missing": 0, "statistics": statistics, "ci_level": 0.95, **more,
        }
    )  # fmt: skip


def atom(name: str, statistic: str, operator: Operator = "==", constant: float = 1.0) -> Atom:
    return Atom(analysis=name, statistic=statistic, operator=operator, constant=constant)


def gate(name: str, role: str, predicate: Predicate, **more: Any) -> Gate:
    return Gate.model_validate({"name": name, "role": role, "text": name, "predicate": predicate, **more})


def analysis(name: str, **more: Any) -> Analysis:
    return Analysis(
        name=name, metric="m", contrast=Contrast(treatment="t", control="c"), method="paired_t", side="greater", alpha=ALPHA,
        confirmatory=True, **more,
    )  # fmt: skip


def design(*families: Family, gates: Sequence[Gate] = (), interim: Interim | None = None) -> Design:
    return Design(
        question="?", conditions=(), seeds=(1,), families=families, interim=interim,
        metrics=(
            Metric(
                name="m", kind="judge", source="s", unit="prompt", scale=(0, 1), better="higher", missing="drop", filter="f"
            ),
        ),
        analyses=(analysis("a"), analysis("b"), analysis("s")),
        gates=(gate("wins", "success", atom("a", "reject")), gate("also", "success", atom("b", "reject")), *gates),
        verdicts=(VerdictRule(text="otherwise", predicate=None, label="INCONCLUSIVE", verdict_class="INCONCLUSIVE"),),
    )  # fmt: skip


def truths(evaluation: Evaluation) -> dict[str, bool | None]:
    return {found.name: found.truth for found in evaluation.gates}


def test_gates_read_the_rule_and_p_stays_raw() -> None:
    computed = [result("a", 0.02), result("b", 0.02), result("s", 0.02)]
    alone = evaluate_design(design(), computed)
    together = evaluate_design(design(family("holm", "a", "b")), computed)
    assert truths(alone) == {"wins": True, "also": True}
    assert truths(together) == {"wins": False, "also": False}
    a, s = together.results["a"], together.results["s"]
    assert (a.statistics["p"], a.statistics["reject"], a.p_adjusted, a.family) == (0.02, 0.0, 0.04, "primary")
    assert "reject is the adjusted p < 0.025 by Holm's rule (1979) over a, b (family primary). lower" in a.definition
    assert "reject is p <" not in a.definition
    assert s == computed[2]
    assert "p = 0.02, adjusted p = 0.04, alpha 0.025" in reason(together.gates[0], together.results)


def test_deciding_twice_changes_nothing_and_without_a_rule_nothing_is_touched() -> None:
    computed = {"a": result("a", 0.001), "b": result("b", None), "s": result("s", 0.5)}
    with_rule = design(family("holm", "a", "b"))
    once = decided(with_rule, computed)
    assert decided(with_rule, once) == once
    assert decided(design(), computed) == computed


def test_a_member_that_could_not_be_computed() -> None:
    found = evaluate_design(design(family("holm", "a", "b")), [result("a", 0.02), result("b", None), result("s", 0.5)])
    assert truths(found) == {"wins": None, "also": None}
    assert found.results["a"].p_adjusted is None
    found = evaluate_design(design(family("holm", "a", "b")), [result("a", 0.01), result("b", None), result("s", 0.5)])
    assert truths(found) == {"wins": True, "also": None}


SWITCH = gate("switch", "switch", atom("s", "delta", ">", 0.1), analysis="a")


@pytest.mark.parametrize(
    ("delta", "filtered", "unfiltered", "wins", "also"),
    [
        (0.2, 0.02, 0.001, True, True),  # unfiltered: a and b reject
        (0.0, 0.02, 0.001, False, False),  # filtered: neither
        (None, 0.02, 0.001, None, None),
        (None, 0.001, 0.002, True, True),  # both answers agree
    ],
)
def test_a_member_that_a_switch_governs(
    delta: float | None, filtered: float, unfiltered: float, wins: bool | None, also: bool | None
) -> None:
    base = result("s", 0.5)
    computed = [
        result("a.filtered", filtered, variant_of="a", variant="filtered"),
        result("a.unfiltered", unfiltered, variant_of="a", variant="unfiltered"),
        result("b", 0.02),
        base.model_copy(update={"statistics": {**base.statistics, "delta": delta}}),
    ]
    found = evaluate_design(design(family("holm", "a", "b"), gates=[SWITCH]), computed)
    assert (truths(found)["wins"], truths(found)["also"]) == (wins, also)
    printed = found.results
    assert printed["a.filtered"].statistics["reject"] == float(filtered < ALPHA / 2)
    assert printed["a.unfiltered"].statistics["reject"] == 1.0
    assert (printed["a.filtered"].variant, printed["a.filtered"].confirmatory) == ("filtered", False)
    assert printed["b"].statistics["reject"] == (None if also is None else float(also))
    assert printed["b"].statistics["p"] == 0.02


def test_a_switch_that_reads_a_family_which_it_governs_is_unknown_where_that_matters() -> None:
    circular = gate("switch", "switch", atom("b", "reject"), analysis="a")
    variants = [result(f"a.{v}", 0.001, variant_of="a", variant=v) for v in ("filtered", "unfiltered")]
    together = design(family("holm", "a", "b"), gates=[circular])
    found = evaluate_design(together, [*variants, result("b", 0.02), result("s", 0.5)])
    assert truths(found)["switch"] is None, "whether b rejects depends on the p of a, which the switch is to choose"
    assert truths(found)["also"] is True, "with either"
    found = evaluate_design(together, [*variants, result("b", 0.001), result("s", 0.5)])
    assert truths(found)["switch"] is True, "b rejects whatever the p of a is"


def test_the_last_look_has_what_is_left_of_alpha() -> None:
    looks = Interim(looks=(0.5, 1.0), spending="obrien_fleming", levels=(0.0015, 0.0245))
    one_test = design(interim=looks)
    one_test = one_test.model_copy(
        update={"analyses": (one_test.analyses[0], analysis("b").model_copy(update={"confirmatory": False}))}
    )
    found = evaluate_design(one_test, [result("a", 0.0247), result("b", 0.0247)])
    assert truths(found) == {"wins": False, "also": True}
    assert (found.results["a"].level, found.results["b"].level) == (0.0245, None)
    assert (
        "reject is p < 0.0245, what an O'Brien-Fleming spending function leaves of 0.025"
        in found.results["a"].definition
    )
    assert "p = 0.0247, level of the last look 0.0245" in reason(found.gates[0], found.results)
    assert truths(evaluate_design(one_test, [result("a", 0.0244), result("b", 0.5)]))["wins"] is True
    assert truths(evaluate_design(one_test, [result("a", None), result("b", 0.5)]))["wins"] is None
