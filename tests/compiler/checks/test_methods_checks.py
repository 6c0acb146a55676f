"""Methods, what they resample, families and looks: what is reported, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Case = tuple[str, str | None, str]

BOOT = "resamples: 10000, seed: 1"
BARE = "p: null, resamples: null, seed: null"
ONE = "seeds: [1]\n"
FAMILY = "families: {primary: {method: holm, analyses: [headline, quizzed], alpha: 0.025}}\n"
BOTH = "gates: {survives: {require: headline.reject and quizzed.reject}}\n"
EITHER = "gates: {survives: {require: headline.reject or quizzed.reject}}\n"


def of(name: str, keys: str, before: str = "") -> str:
    return f"{before}analyses: {{{name}: {{{keys}}}}}\n"


def in_family(fragment: str, *families: str) -> str:
    """A fragment with two tests of an increase, and a family, by default one of both."""
    return f"analyses: {{quizzed: {{side: greater}}}}\n{''.join(families or (FAMILY,))}{fragment}"


KEYS: list[Case] = [
    (of("part", f"method: two_level, {BARE}"), "E0801", "does not declare p, resamples, seed"),
    (of("part", "method: two_level, p: null"), "E0801", "recommended: p: percentile"),
    (of("part", "method: cluster_bootstrap"), "E0801", "does not declare levels"),
    (of("part", "method: mcnemar, p: null, resamples: null, seed: null"), "E0801", "recommended: p: exact"),
    (of("part", f"method: tost, {BARE}"), "E0801", "margin: the smallest difference that would matter"),
    (of("part", "method: sign_test"), "E0802", "sign_test has no p"),
    (of("part", "method: newcombe"), "E0802", "newcombe has no resamples"),
    (of("part", "margin: 3"), "E0802", "paired_bootstrap has no margin"),
    (of("part", "levels: [unit]"), "E0802", "paired_bootstrap has no levels"),
    (of("part", "p: exact"), "E0802", "write p: studentized or percentile or shift or bca"),
    (of("part", "method: two_level, p: bca"), "E0802", "two_level has no p: bca"),
    (of("part", "method: mcnemar, p: shift, resamples: null, seed: null"), "E0802", "write p: exact or corrected"),
    (of("quizzed", f"method: tost, {BARE}, margin: 0.1"), "E0802", "tost has no side: less"),
    (of("base_quiz", "method: sign_test"), "E0803", "sign_test computes a `contrast`"),
    (of("base_quiz", f"method: tost, {BARE}, margin: 0.1, side: two_sided"), "E0803", "tost computes a `contrast`"),
    (of("base_quiz", "method: newcombe"), "E0803", "newcombe computes a `contrast`"),
    (of("part", "method: mcnemar, p: exact, resamples: null, seed: null"), "E0804", "mcnemar needs one 0/1 score"),
    (of("quizzed", "method: mcnemar, p: exact, resamples: null, seed: null"), "E0804", "several training seeds"),
    (of("quizzed", "method: mcnemar, p: exact, resamples: null, seed: null"), "E0804", "levels: [seed, unit]"),
    (of("part", "method: sign_test, p: null, resamples: null, seed: null, alpha: 0.001"), "E0808", "8 units"),
    (of("part", "p: bca"), None, ""),
    (of("part", f"method: sign_test, {BARE}"), None, ""),
    (of("quizzed", "method: mcnemar, p: exact, resamples: null, seed: null", ONE), None, ""),
    (of("quizzed", f"method: newcombe_paired, {BARE}", ONE), None, ""),
    (of("quizzed", f"method: tost, {BARE}, side: two_sided, margin: 0.1"), None, ""),
    # the interval of two one-sided tests is that of one
    (of("quizzed", f"method: tost, {BARE}, side: two_sided, margin: 0.1, alpha: 0.05, interval: 0.9"), None, ""),
    (of("quizzed", f"method: tost, {BARE}, side: two_sided, margin: 0.1, alpha: 0.05, interval: 0.95"), "W0807", "90%"),
]  # fmt: skip

LEVELS: list[Case] = [
    (of("part", "method: cluster_bootstrap, levels: [sample]"), "E0831", "as if they were independent"),
    (of("part", "method: cluster_bootstrap, levels: [sample, unit]"), "E0831", "20% of the time"),
    (of("part", "method: cluster_bootstrap, levels: [seed]", ONE), "E0832", "training seeds, and there is one"),
    (of("part", "method: cluster_bootstrap, levels: [unit, seed]"), "E0832", "write levels: [seed, unit]"),
    (of("part", "method: cluster_bootstrap, levels: [seed, unit, sample]"), "E0832", "holds that of samples"),
    (of("part", "method: cluster_bootstrap, levels: [seed, sample]"), "E0832", "[unit, sample]"),
    (of("part", "method: cluster_bootstrap, levels: [unit, sample]"), "E0832", "several trainings"),
    (of("part", "method: two_level"), "E0832", "several trainings"),
    (of("quizzed", f"method: two_level, p: shift, {BOOT}", ONE), "E0832", "and there is one"),
    (of("part", "method: two_level", ONE + "sample: {first: {n: 1}}\n"), "E0832", "and there is one"),
    (of("part", "method: cluster_bootstrap, levels: [seed, unit]"), "W0838", "resamples 3 training seeds"),
    (of("headline", "method: cluster_bootstrap, p: percentile, levels: [seed], population: fixed"), "E0811", "3 training seeds to resample"),
    (of("part", "method: cluster_bootstrap, levels: [unit]"), None, ""),
    (of("part", "method: two_level", ONE), None, ""),
    (of("part", "method: cluster_bootstrap, levels: [unit, sample]", ONE), None, ""),
    (of("part", "method: cluster_bootstrap, levels: [seed, unit]", "seeds: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n"), None, ""),
]  # fmt: skip

POPULATION: list[Case] = [
    (of("part", "population: fixed"), "E0833", "paired_bootstrap speaks of other units"),
    (of("part", f"method: sign_test, {BARE}, population: fixed"), "E0833", "two_level"),
    (of("part", "method: cluster_bootstrap, levels: [seed, unit], population: fixed"), "E0833", "declares its units fixed"),
    (of("part", "method: cluster_bootstrap, levels: [seed]"), "E0833", "so its units are fixed"),
    (of("part", "method: two_level, population: fixed", ONE), None, ""),
    (of("part", "method: cluster_bootstrap, levels: [seed], population: fixed", "seeds: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]\n"), None, ""),
    (of("quizzed", f"method: tost, {BARE}, side: two_sided, margin: 1.0"), "E0834", "quiz is 1 wide"),
    (of("headline", f"method: tost, {BARE}, side: two_sided, margin: 99"), None, ""),
    (of("quizzed", f"method: newcombe, {BARE}", ONE), "E0837", "different items, and they have the same"),
]  # fmt: skip

FAMILIES: list[Case] = [
    (in_family(BOTH), None, ""),
    (in_family(EITHER), None, ""),  # Holm pays for the choice
    (in_family(BOTH, FAMILY.replace("holm", "fixed_sequence")), None, ""),
    (in_family(BOTH, FAMILY.replace("holm", "benjamini_hochberg")), "W0819", "headline and quizzed are success tests"),
    (in_family(BOTH, ""), "E0812", "put them in one family"),
    (in_family(EITHER, ""), "E0813", "which of"),
    # bounds are not adjusted
    (in_family("gates: {survives: {require: headline.lower > 0 or quizzed.reject}}\n"), "E0813", "which of"),
    (in_family("gates: {survives: {require: (headline.reject and headline.lower > 5) or quizzed.reject}}\n"), None, ""),
    # one of two tests is in no family
    (in_family(BOTH, "families: {primary: {method: holm, analyses: [headline, catch_effect], alpha: 0.025}}\n"), "E0812", "without a multiplicity rule"),
    (in_family(BOTH, FAMILY.replace("quizzed", "headline")), "E0815", 'in family "primary" twice'),
    (in_family(BOTH, FAMILY.replace("}}", "}, other: {method: holm, analyses: [headline, catch_effect], alpha: 0.025}}")), "E0815", 'in families "primary" and "other"'),
    (in_family("", FAMILY), "E0816", "no gate that decides reads quizzed.reject"),
    (in_family(BOTH, FAMILY.replace("quizzed", "base_quiz")), "E0816", "has no p"),
    (in_family(BOTH, FAMILY.replace("0.025", "0.05")), "E0817", '"headline" tests at 0.025, and its family "primary" at 0.05'),
    (in_family("gates: {survives: {require: headline.reject and quizzed.reject and quizzed.p < 0.01}}\n"), "E0818", "read quizzed.reject"),
    (in_family(BOTH, FAMILY.replace("quizzed", "quized")), "E0307", "quizzed"),
]  # fmt: skip

LOOKS: list[Case] = [
    ("interim: {looks: [0.9, 1], spending: pocock}", None, ""),
    ("interim: {looks: [0.9, 0.5, 1], spending: pocock}", "E0835", "do not rise to 1"),
    ("interim: {looks: [0.9, 0.95], spending: pocock}", "E0835", "the last of them 1"),
    ("interim: {looks: [0.5, 1], spending: pocock}", "E0839", "has 12 units, fewer than 20"),
    ("interim: {looks: [0.8, 1], spending: pocock}", None, ""),  # 19.2 of 24 units: the look is taken at 20
    ("interim: {looks: [0.79, 1], spending: pocock}", "E0839", "has 19 units, fewer than 20"),
    (of("headline", f"method: sign_flip, p: null, {BOOT}") + "interim: {looks: [0.5, 1], spending: pocock}", None, ""),
    ("gates: {survives: {require: headline.lower >= 5}}\ninterim: {looks: [0.9, 1], spending: pocock}", "E0836", "no success gate reads headline.reject"),
    ("gates: {survives: {require: headline.reject and quizzed.lower > -0.1}}\ninterim: {looks: [0.9, 1], spending: pocock}", "E0836", "2 analyses are confirmatory: headline, quizzed"),
    (in_family(BOTH) + "interim: {looks: [0.9, 1], spending: pocock}", "E0836", "2 analyses are confirmatory"),
    ("gates: {survives: {role: prediction}}\nverdicts: [{if: no_effect, then: KILL}, {otherwise: INCONCLUSIVE}]\ninterim: {looks: [0.9, 1], spending: pocock}", "E0836", "no analyses are confirmatory"),
]  # fmt: skip


@pytest.mark.parametrize(("fragment", "code", "says"), [*KEYS, *LEVELS, *POPULATION, *FAMILIES, *LOOKS])
def test_what_is_reported(over: Callable[..., Any], fragment: str, code: str | None, says: str) -> None:
    result = over(fragment)
    ours = {found for found in result.codes if found[1:3] == "08" or found in ("E0307", "W0807")}
    if code is None:
        assert not ours, result.text
    else:
        assert code in ours, result.text
        assert says in result.text


def test_a_family_in_the_plan(over: Callable[..., Any]) -> None:
    result = over(in_family(BOTH))
    design = result.plan.design
    assert [(f.name, f.method, f.analyses, f.alpha) for f in design.families] == [
        ("primary", "holm", ("headline", "quizzed"), 0.025)
    ]
    below = {analysis.name: (analysis.rejects_below, analysis.rejects_only_below) for analysis in design.analyses}
    assert below["headline"] == below["quizzed"] == (0.0125, None)
    assert below["part"] == (None, None)
    assert "Holm: at most alpha for any false rejection among them" in result.files["plan.md"]


def test_looks_in_the_plan(over: Callable[..., Any]) -> None:
    result = over("interim: {looks: [0.9, 1], spending: obrien_fleming}")
    levels = result.plan.design.interim.levels
    assert 0 < levels[0] < levels[1] < 0.025
    headline = next(analysis for analysis in result.plan.design.analyses if analysis.name == "headline")
    assert (headline.rejects_below, headline.rejects_only_below) == (levels[1], levels[1])
    assert f"{levels[1]:.4g}" in result.files["plan.md"]
    assert repr(levels[1]) in result.plan.lock_text


def test_methods_in_the_plan(over: Callable[..., Any]) -> None:
    fragment = f"analyses: {{quizzed: {{method: tost, {BARE}, side: two_sided, margin: 0.1}}, part: {{method: two_level, population: fixed}}}}"
    text = over(ONE + fragment).files["plan.md"]
    assert "tost, equivalent within 0.1" in text
    assert "two level, percentile p, units fixed, their samples drawn, 10,000 resamples, seed 1" in text
    text = over(of("part", "method: cluster_bootstrap, levels: [seed, unit]")).files["plan.md"]
    assert "training seeds and units drawn, each on their own" in text


def test_scores_of_samples_are_stored_only_where_they_are_resampled(over: Callable[..., Any]) -> None:
    def recipes(fragment: str) -> dict[str, bool]:
        design = over(ONE + fragment).plan
        (measure,) = [planned.step for planned in design.steps if planned.step.kind == "measure"]
        in_design = {metric.name: metric.scores for metric in design.design.metrics}
        in_recipe = {entry["name"]: entry.get("scores", False) for entry in measure.recipe["metrics"]}
        assert in_design == in_recipe
        return in_recipe

    assert not any(recipes("").values())
    assert [name for name, stored in recipes("analyses: {part: {method: two_level}}").items() if stored] == [
        "alignment"
    ]


def test_p_below_alpha_without_a_rejection_is_possible_in_a_family_alone(over: Callable[..., Any]) -> None:
    near = "gates: {near: {role: prediction, require: headline.p < 0.025 and not headline.reject}}\n"
    assert "gate near is always false" in over(near).text
    both = BOTH.replace("}}\n", "}, near: {role: prediction, require: headline.p < 0.025 and not headline.reject}}\n")
    assert "E0905" not in over(in_family(both)).codes
    beyond = both.replace("headline.p < 0.025", "headline.p < 0.0125")
    assert "E0905" in over(in_family(beyond)).codes, "Holm rejects below alpha / 2 whatever the other p is"
