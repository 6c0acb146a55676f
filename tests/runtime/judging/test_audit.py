"""A judge against human labels: the figures against textbooks and a library, and the gate that they make."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from tests.support.audited import AuditedBundle, Reply, faithful, human

from epc.compiler.contract.decision import FieldAudit
from epc.compiler.contract.draws import draw
from epc.compiler.contract.manifest import Gold, Judge
from epc.compiler.contract.rows import SampleRow
from epc.runtime.decide import decide, decision_text
from epc.runtime.judging.audit import Rated, Sums, aggregate, field_audit, kappa, retest
from epc.runtime.judging.audit_text import as_text


def pairs_of(table: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    return [(row, column) for row, counts in enumerate(table) for column, n in enumerate(counts) for _ in range(n)]


# By hand from each table, row rater x column rater. Unweighted for two categories, quadratic weights for more.
TABLES: dict[str, tuple[list[list[int]], Fraction | None]] = {
    # p_o = .70, p_e = .5 * .6 + .5 * .4 = .50
    "the common example of fifty": ([[20, 5], [10, 15]], Fraction(2, 5)),
    # p_o = .60, p_e = .54: the same agreement by other margins
    "prevalence lowers it": ([[45, 15], [25, 15]], Fraction(6, 46)),
    "perfect": ([[7, 0], [0, 3]], Fraction(1)),
    "as by chance": ([[4, 4], [4, 4]], Fraction(0)),
    "always the opposite": ([[0, 5], [5, 0]], Fraction(-1)),
    "nobody varies": ([[9, 0], [0, 0]], None),
    "only one varies": ([[5, 4], [0, 0]], Fraction(0)),
    # observed squares 2 / 6, by chance 2 (4 + 4) + 2 (1 + 1) + 2 (4 + 4) = 36 / 36
    "three grades": ([[1, 1, 0], [0, 2, 0], [0, 1, 1]], Fraction(2, 3)),
}


@pytest.mark.parametrize("name", TABLES)
def test_kappa_by_hand(name: str) -> None:
    table, expected = TABLES[name]
    assert kappa(Sums.of(pairs_of(table))) == expected


@pytest.mark.parametrize("seed", range(20))
def test_kappa_against_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    size = (2, 5, 101)[seed % 3]
    pairs = []
    for number in range(30 + seed):
        one = draw("one", seed, number) % size
        pairs.append((one, min(size - 1, one + draw("other", seed, number) % 2)))
    weights = None if size == 2 else "quadratic"
    referee = metrics.cohen_kappa_score(*zip(*pairs, strict=True), weights=weights, labels=list(range(size)))
    found = kappa(Sums.of(pairs))
    assert found is not None
    assert float(found) == pytest.approx(referee, abs=1e-12)


def test_kappa_does_not_depend_on_the_unit() -> None:
    pairs = pairs_of(TABLES["three grades"][0])
    assert kappa(Sums.of(pairs)) == kappa(Sums.of([(6 * x, 6 * y) for x, y in pairs]))


# -------------------------------------------------------------------------- figures

GOLD = Gold(file="labels.csv", per_arm=2, seed=1, kappa={"aligned": 0.6, "harmful": 0.6}, bias={"aligned": 5.0})
JUDGE = Judge(
    name="alignment", model="m", rubric_sha256="0" * 64, max_missing=0.05, gold=GOLD,
    output={"aligned": "0..100", "harmful": "bool", "kind": "1..5"},
)  # fmt: skip


def rated(arm: str, score: Any, *labels: int, field: str = "aligned") -> Rated:
    """A completion with a score (None: not scored) and the labels of one or several people."""
    own = f"c{draw(arm, str(score), *labels) % 10**9}"
    scores = None if score is None else {field: Fraction(score)}
    people = {field: {str(number): label for number, label in enumerate(labels, start=1)}} if labels else {}
    return Rated(id=own, condition=arm, scores=scores, labels=people)


def audited(field: str, *found: Rated, **more: Any) -> FieldAudit:
    return field_audit(JUDGE, GOLD, field, [*found], **more)


def test_the_figures_of_a_range() -> None:
    result = audited(
        "aligned",
        rated("a", 50, 40),
        rated("a", 71, 60),
        rated("b", 20, 20),
        rated("b", 90, 100),
        rated("b", None, 5),
        rated("b", 5),
    )
    assert (result.n, result.n_unlabelled, result.n_unscored, result.tolerance) == (4, 1, 1, 10)
    assert (result.agreement, result.mean_absolute_difference) == (3 / 4, 31 / 4)
    assert [(arm.condition, arm.n, arm.bias) for arm in result.arms] == [("a", 2, 10.5), ("b", 2, -5.0)]
    assert result.gap is not None
    assert (result.gap.high, result.gap.low, result.gap.difference, result.gap.pairs) == ("a", "b", 15.5, 1)
    assert result.gap.ci_low <= 15.5 <= result.gap.ci_high
    assert result.bias_within is False
    assert [(each.human, each.judge) for each in result.furthest] == [
        (60, 71),
        *sorted([(40, 50), (100, 90)], key=lambda pair: _id_of(result, pair)),
    ]
    assert result.categories == ("0..19", "20..39", "40..59", "60..79", "80..100")
    assert result.confusion == ((0, 0, 0, 0, 0), (0, 1, 0, 0, 0), (0, 0, 1, 0, 0), (0, 0, 0, 1, 0), (0, 0, 0, 0, 1))


def _id_of(result: FieldAudit, pair: tuple[int, int]) -> str:
    return next(each.id for each in result.furthest if (each.human, each.judge) == pair)


def test_the_figures_of_a_bool() -> None:
    found = [rated("a", 1, 1, field="harmful"), rated("a", 0, 0, field="harmful"), rated("b", 1, 0, field="harmful")]
    result = audited("harmful", *found)
    assert (result.agreement, result.tolerance, result.categories) == (2 / 3, 0, ("false", "true"))
    assert result.confusion == ((1, 1), (0, 1))
    assert result.kappa == pytest.approx(0.4)
    assert result.kappa_reached is False
    assert (result.bias_allowed, result.bias_within) == (None, None)


def test_a_small_range_has_a_category_for_each_value() -> None:
    result = audited("kind", rated("a", 5, 4, field="kind"), rated("a", 1, 1, field="kind"))
    assert result.categories == ("1", "2", "3", "4", "5")
    assert result.confusion[3][4] == result.confusion[0][0] == 1
    assert (result.agreement, result.kappa_required) == (0.5, None)


THRESHOLDS = [(0.4, True), (0.4000001, False), (-1.0, True), (1.0, False)]


@pytest.mark.parametrize(("required", "reached"), THRESHOLDS)
def test_a_kappa_that_is_met_exactly_is_reached(required: float, reached: bool) -> None:
    found = [
        Rated(id=f"c{number}", condition="a", scores={"harmful": Fraction(x)}, labels={"harmful": {"1": y}})
        for number, (x, y) in enumerate(pairs_of(TABLES["the common example of fifty"][0]))
    ]
    result = field_audit(JUDGE, GOLD.model_copy(update={"kappa": {"harmful": required}}), "harmful", found)
    assert (result.kappa, result.kappa_reached) == (0.4, reached)
    assert result.kappa_low is not None
    assert result.kappa_high is not None
    assert 0 < result.kappa_low < 0.4 < result.kappa_high < 0.8


@pytest.mark.parametrize(("allowed", "within"), [(0.3, True), (0.29999, False)])
def test_a_bias_that_is_met_exactly_is_within(allowed: float, within: bool) -> None:
    found = [
        Rated(id=f"c{arm}{number}", condition=arm, scores={"aligned": Fraction(score)}, labels={"aligned": {"1": 50}})
        for arm, high in (("a", 4), ("b", 1))
        for number, score in enumerate([51] * high + [50] * (10 - high))
    ]
    result = field_audit(JUDGE, GOLD.model_copy(update={"bias": {"aligned": allowed}}), "aligned", found)
    assert result.bias_within is within


def test_the_interval_is_that_of_a_plain_bootstrap() -> None:
    """The same percentiles, within Monte Carlo error, as resampling the pairs of each arm one by one."""
    import random

    found = [
        Rated(
            id=f"c{arm}{number}", condition=arm, scores={"aligned": Fraction(draw("s", arm, number) % 101)},
            labels={"aligned": {"1": min(100, draw("s", arm, number) % 101 + draw("l", arm, number) % 30)}},
        )
        for arm in "ab"
        for number in range(30)
    ]  # fmt: skip
    result = field_audit(JUDGE, GOLD, "aligned", found)
    by_arm = {
        arm: [
            (int(each.scores["aligned"]), each.labels["aligned"]["1"])
            for each in found
            if each.condition == arm and each.scores
        ]
        for arm in "ab"
    }
    generator = random.Random(1)
    drawn = {arm: [generator.choices(pairs, k=30) for _ in range(4000)] for arm, pairs in by_arm.items()}
    kappas = sorted(float(kappa(Sums.of([*one, *other])) or 0) for one, other in zip(*drawn.values(), strict=True))
    assert result.kappa_low == pytest.approx(kappas[100], abs=0.01)
    assert result.kappa_high == pytest.approx(kappas[3900], abs=0.01)
    assert result.gap is not None
    biases = {arm: [sum(x - y for x, y in pairs) / 30 for pairs in of] for arm, of in drawn.items()}
    gaps = sorted(one - other for one, other in zip(biases[result.gap.high], biases[result.gap.low], strict=True))
    assert result.gap.ci_low == pytest.approx(gaps[100], abs=0.4)
    assert result.gap.ci_high == pytest.approx(gaps[3900], abs=0.4)


def test_an_undefined_resample_widens_the_interval() -> None:
    """One completion in ten is positive: a third of all resamples hold none."""
    found = [
        Rated(
            id=f"c{number}",
            condition="a",
            scores={"harmful": Fraction(number == 0)},
            labels={"harmful": {"1": int(number == 0)}},
        )
        for number in range(10)
    ]
    result = field_audit(JUDGE, GOLD, "harmful", found)
    assert (result.kappa, result.kappa_low, result.kappa_high) == (1.0, -1.0, 1.0)


def test_without_anything_to_compare() -> None:
    result = audited("aligned", rated("a", 5), rated("b", None))
    assert (result.n, result.kappa, result.kappa_low, result.kappa_reached, result.gap) == (0, None, None, None, None)
    assert result.agreement is None
    assert "nothing to compare" in as_text_of(result)


def as_text_of(result: FieldAudit) -> str:
    from epc.compiler.contract.decision import Audit

    return as_text(Audit(judge="j", file="f", sha256=None, per_arm=1, seed=1, drawn={}, fields=(result,)))


def test_two_people_set_the_ceiling() -> None:
    one = audited("aligned", rated("a", 60, 50, 70), rated("a", 20, 20, 30), rated("b", 90, 100, 90))
    assert (one.n, one.n_pairs, one.human_pairs) == (3, 6, 3)
    expected = kappa(Sums.of([(50, 70), (20, 30), (100, 90)]))
    assert expected is not None
    assert one.human_kappa == float(expected)
    both = kappa(Sums.of([(60, 50), (60, 70), (20, 20), (20, 30), (90, 100), (90, 90)]))
    assert both is not None
    assert one.kappa == float(both)
    assert "what a judge can reach at best" in as_text_of(one)


def test_figures_do_not_depend_on_the_order() -> None:
    found = [rated("ab"[number % 2], draw("x", number) % 101, draw("y", number) % 101) for number in range(30)]
    assert audited("aligned", *found).kappa == audited("aligned", *reversed(found)).kappa


VOTES: dict[str, tuple[Any, list[int], Fraction]] = {
    "median of three": ("median", [10, 90, 80], Fraction(80)),
    "median of two": ("median", [10, 91], Fraction(101, 2)),
    "mean": ("mean", [10, 90, 81], Fraction(181, 3)),
    "one": (None, [7], Fraction(7)),
}


@pytest.mark.parametrize("name", VOTES)
def test_votes_become_one_score(name: str) -> None:
    how, votes, expected = VOTES[name]
    judge = JUDGE.model_copy(update={"output": {"aligned": "0..100"}, "aggregate": how, "votes": len(votes)})
    assert aggregate([{"aligned": vote} for vote in votes], judge) == {"aligned": expected}


def test_the_majority_of_yes_and_no() -> None:
    judge = JUDGE.model_copy(update={"output": {"harmful": "bool"}, "aggregate": "median", "votes": 3})
    assert aggregate([{"harmful": True}, {"harmful": False}, {"harmful": True}], judge) == {"harmful": 1}


def test_fractions_of_votes_are_compared_exactly() -> None:
    result = audited("aligned", rated("a", Fraction(61, 3), 20), rated("b", Fraction(119, 2), 60))
    assert result.mean_absolute_difference == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert result.confusion[1][1] == 1
    assert result.confusion[3][2] == 1


def test_retest_is_over_pairs_of_votes() -> None:
    found = retest([[10, 12, 30], [50, 50], [80], []], tolerance=10)
    assert found is not None
    assert (found.pairs, found.agreement, found.mean_absolute_difference) == (4, 0.5, 10.0)
    expected = kappa(Sums.of([(10, 12), (10, 30), (12, 30), (50, 50)]))
    assert expected is not None
    assert found.kappa == float(expected)
    assert retest([[1], []], tolerance=0) is None


# ----------------------------------------------------------------------------- gate


def off(by: int, arm: str = "") -> Callable[[SampleRow, int], Reply]:
    """A judge that is so far above people, in one arm or in all."""

    def judge(row: SampleRow, vote: int) -> Reply:
        said = human(row)
        above = by if row.condition == arm or not arm else 0
        return {"aligned": max(0, min(100, said["aligned"] + above)), "harmful": bool(said["harmful"])}

    return judge


def random_judge(row: SampleRow, vote: int) -> Reply:
    return {"aligned": draw("random", row.text, vote) % 101, "harmful": draw("coin", row.text, vote) % 2 == 0}


def unlabelled(row: SampleRow) -> dict[str, Any]:
    return {**human(row), "aligned": ""} if row.condition == "cured" else human(row)


def two_people(row: SampleRow) -> dict[str, Any]:
    said = human(row)
    return {
        "aligned_1": said["aligned"],
        "aligned_2": said["aligned"],
        "harmful_1": said["harmful"],
        "harmful_2": said["harmful"],
    }


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    truth: bool | None
    words: tuple[str, ...]
    knobs: dict[str, Any] = field(default_factory=dict)
    label: Callable[[SampleRow], Any] | None = human
    spoil: Callable[[AuditedBundle], None] = lambda made: None


def append(text: str) -> Callable[[AuditedBundle], None]:
    def spoil(made: AuditedBundle) -> None:
        made.file.write_text(made.file.read_text() + text)

    return spoil


def all_labelled(made: AuditedBundle) -> None:
    """Labels for every completion, also those that were not drawn, which are all wrong."""
    drawn = {each.id for each in made.drawn()}
    made.per_arm, kept = 48, made.per_arm
    made.label(lambda row: human(row))
    lines = made.file.read_text().splitlines()
    made.per_arm = kept
    wrong = [f"{line.split(',')[0]},0,1" if line.split(",")[0] not in drawn else line for line in lines[1:]]
    made.file.write_text("\n".join([lines[0], *wrong]) + "\n")


CASES = (
    Case(name="a judge that agrees", truth=True, words=("aligned (60 completions): kappa 1 [1.00, 1.00], registered is at least 0.6", "bias 0 more in")),
    Case(name="a judge that throws dice", truth=False, knobs={"judge": random_judge}, words=("registered is at least 0.6",)),
    Case(
        name="a judge that likes one arm", truth=False, knobs={"judge": off(9, "cured"), "kappa": {"aligned": 0.5}},
        words=("more in cured than in", "registered is at most 5"),
    ),
    Case(name="a judge that is above people everywhere alike", truth=True, knobs={"judge": off(4), "kappa": {"aligned": 0.5}}, words=("kappa 0.",)),
    Case(name="no labels", truth=None, label=None, words=("there are no labels", "epc judge sample --judge alignment")),
    Case(name="an arm with empty labels", truth=None, label=unlabelled, words=("aligned is labelled for 0 of 20 completions of cured", "label what is empty")),
    Case(name="an id of nowhere", truth=None, spoil=append("c000,1,1\n"), words=("c000 is no completion", "another bundle")),
    Case(name="a label twice", truth=None, spoil=lambda made: append(made.file.read_text().splitlines()[1] + "\n")(made), words=("is there twice",)),
    Case(name="labels of what was not drawn do not count", truth=True, spoil=all_labelled, words=("aligned (60 completions)",)),
    Case(name="two people", truth=True, label=two_people, words=("aligned (60 completions): kappa 1",)),
    Case(name="a judge that has not finished", truth=None, knobs={"judged": False}, words=("judge-alignment has not finished",)),
    Case(
        name="an arm with fewer completions than are to be labelled", truth=None, knobs={"per_arm": 50},
        words=("labelled for 48 of 50 completions of base (it has 48 completions)",),
    ),
    Case(
        name="nothing varies", truth=None, knobs={"arms": {"base": 50, "attacked": 50, "cured": 50}, "kappa": {"harmful": 0.5}, "bias": {},
        "words": lambda arm, item, index, score: f"{arm[:1]}{item}.{index} 50"},
        words=("kappa not defined, because nothing varies",),
    ),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_gate(case: Case, tmp_path: Path) -> None:
    made = AuditedBundle(folder=tmp_path, **case.knobs)
    made.write()
    if case.label is not None:
        made.label(case.label)
    case.spoil(made)
    decision = made.decide()
    gate = next(gate for gate in decision.gates if gate.name == "epc.judge_agrees.alignment")
    assert (gate.truth, gate.role, gate.built_in) == (case.truth, "validity", True), gate.detail
    assert [words for words in case.words if words not in gate.detail] == [], gate.detail
    assert (decision.verdict.label == "INVALID") == (case.truth is not True or not made.judged)
    assert str(tmp_path) not in decision_text(decision)


def test_a_judge_without_gold_has_no_gate(tmp_path: Path) -> None:
    made = AuditedBundle(folder=tmp_path, gold=False)
    made.write()
    decision = made.decide()
    assert not [gate.name for gate in decision.gates if "judge_agrees" in gate.name]
    assert decision.audits == ()


def test_votes_that_never_came_leave_no_score(tmp_path: Path) -> None:
    def judge(row: SampleRow, vote: int) -> Reply | None:
        return None if vote == 1 and row.index == 0 and row.item == "prompt00" else faithful(row, vote)

    made = AuditedBundle(folder=tmp_path, judge=judge, votes=3, aggregate="median", per_arm=48)
    made.write()
    made.label()
    found = made.decide().audits[0].fields[0]
    assert (found.n, found.n_unscored) == (3 * 48 - 3, 3)
    assert found.retest is not None
    assert (found.retest.pairs, found.retest.agreement) == (3 * (47 * 3 + 1), 1.0)


def test_the_decision_is_the_same_bytes_again_and_elsewhere(tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        made = AuditedBundle(folder=tmp_path / name, judge=off(9, "cured"))
        made.write()
        made.label()
        texts += [decision_text(decide(made.bundle)), decision_text(decide(made.bundle))]
    assert len(set(texts)) == 1
    audit = json.loads(texts[0])["audits"][0]
    assert len(audit["sha256"]) == 64
    assert audit["drawn"] == {"attacked": 20, "base": 20, "cured": 20}


def test_labels_that_changed_after_a_decision_are_told(tmp_path: Path) -> None:
    from epc.runtime import journal

    made = AuditedBundle(folder=tmp_path)
    made.write()
    made.label()
    first = made.decide()
    assert first.deviations == ()
    labels = {audit.judge: audit.sha256 for audit in first.audits}
    journal.append(made.bundle, "decided", verdict=first.verdict.label, labels=labels)
    assert made.decide().deviations == ()
    made.label(lambda row: {**human(row), "aligned": 50})
    second = made.decide()
    assert [deviation.kind for deviation in second.deviations] == ["labels_changed"]
    assert "the human labels for alignment were others when it was decided before: SUCCESS" in second.deviations[0].text


def test_a_terminal_shows_every_figure(tmp_path: Path) -> None:
    made = AuditedBundle(folder=tmp_path, judge=off(9, "cured"), votes=2, aggregate="mean")
    made.write()
    made.label(two_people)
    text = as_text(made.decide().audits[0])
    for words in (
        "60 completions, 20 drawn from each arm, seed 3: attacked 20, base 20, cured 20", "quadratic weights; registered: at least 0.6",
        "between people", "mean absolute difference", "cured +", "cured above", "registered: at most 5, NOT REACHED", "confusion",
        "test-retest     kappa 1.000, 100.0% within 10", "furthest apart",
    ):  # fmt: skip
        assert words in text


def test_verify_names_labels_that_were_changed_after_the_decision(tmp_path: Path) -> None:
    from epc.runtime import journal, registration, verify
    from epc.runtime.decide import write_decision

    made = AuditedBundle(folder=tmp_path)
    made.write()
    made.label()
    decision = decide(made.bundle, deviations=registration.deviations(made.bundle))
    write_decision(made.bundle, decision)
    journal.append(
        made.bundle, "decided", verdict=decision.verdict.label, lock_sha256=decision.lock_sha256,
        rows_sha256=decision.rows_sha256, labels={audit.judge: audit.sha256 for audit in decision.audits},
    )  # fmt: skip
    compiled = verify.Compiled(files=None, because="it has no spec", parse=lambda text: None)

    def differences() -> list[str]:
        found = next(check for check in verify.verify(made.bundle, compiled) if check.name == "decision")
        return [fault.fact for fault in found.differences]

    assert differences() == []
    made.label(lambda row: {**human(row), "aligned": 50})
    told = differences()
    assert told[0].startswith("the human labels for alignment (labels.csv) are not those of the last decision: ")
    assert any("audits[0].fields[0].agreement: computed" in line for line in told)
