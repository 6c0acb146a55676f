"""Tests, margins, references, noise, measures and manipulation checks: what is reported, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Case = tuple[str, str | None, str]

CLARITY = "{metric: clarity, contrast: treated - attacked, method: paired_t, side: less, alpha: 0.025}"
MEAN = (
    "metrics: {clarity: {of: first, judge: grader, score: coherent, better: higher, missing: drop}}\n"
    f"analyses: {{clarity: {CLARITY}}}\n"
)
FROM_BASE = (
    "analyses: {from_base: {metric: quiz, contrast: treated - base, method: paired_t, side: two_sided, alpha: 0.05}}\n"
)
COST = "  cost: {role: sanity, require: attack_cost.lower > -0.1}\n"


def able(require: str) -> str:
    return f"gates:\n  able: {{require: {require}}}\n"


SMALLEST: list[Case] = [
    ("prompts: {part_a: {file: null, items: [Why?, How?, When?, Where?, Who?], count: 5}, heldout: {count: 21}}\nanalyses: {part: {method: sign_flip, p: null, side: greater, alpha: 0.025}}", "E0808", "5 signs have 2^5 = 32 patterns; the most extreme has p = 1 / 32 = 0.03125"),
    ("prompts: {part_a: {file: null, items: [Why?, How?, When?, Where?, Who?], count: 5}, heldout: {count: 21}}\nanalyses: {part: {method: sign_flip, p: null, side: two_sided, alpha: 0.0625}}", "E0808", "p = 2 / 32"),  # not below alpha
    ("prompts: {part_a: {file: null, items: [Why?, How?, When?, Where?, Who?], count: 5}, heldout: {count: 21}}\nanalyses: {part: {method: sign_flip, p: null, side: greater, alpha: 0.01}}", "E0808", "read at least 7 units"),
    ("prompts: {part_a: {file: null, items: [Why?, How?, When?, Where?, Who?], count: 5}, heldout: {count: 21}}\nanalyses: {part: {method: sign_flip, p: null, side: greater, alpha: 0.05}}", None, ""),
    ("analyses: {part: {method: sign_flip, p: null, side: greater, alpha: 0.025}}", None, ""),  # 8 units
    ("analyses: {headline: {method: sign_flip, p: null}}", None, ""),
]  # fmt: skip

WINNER: list[Case] = [
    ("gates: {survives: {require: headline.reject or against_placebo.reject}}", "E0813", "SUCCESS depends on which of headline, against_placebo succeeds"),
    ("gates: {survives: {require: headline.reject or against_placebo.reject}}", "E0813", "0.025 + 0.05 = 0.075"),
    ("gates: {survives: {require: headline.lower > 0 or against_placebo.p < 0.05}}", "E0813", "which of"),
    ("gates: {survives: {require: not (not headline.reject and not against_placebo.reject)}}", "E0813", "which of"),
    # two gates, two rules
    ("gates: {beats: {role: success, require: against_placebo.reject}}\nverdicts: [{if: no_effect, then: KILL}, {if: (survives or beats) and able, then: SUCCESS}, {otherwise: INCONCLUSIVE}]", "E0813", "the other way to succeed"),
    ("gates: {beats: {role: success, require: against_placebo.reject}}\nverdicts: [{if: no_effect, then: KILL}, {if: survives and able, then: SUCCESS}, {if: beats, then: SUCCESS_PLACEBO}, {otherwise: INCONCLUSIVE}]", "E0813", "which of"),
    # required together, two tests are still two
    ("gates: {survives: {require: headline.reject and against_placebo.reject}}", "E0812", "2 confirmatory tests without a multiplicity rule"),
    # one test, several readings of it
    ("gates: {survives: {require: headline.reject or headline.lower >= 5}}", None, ""),
    ("gates: {survives: {require: headline.reject and quizzed.lower > -0.1}}", None, ""),
    ("gates: {survives: {require: headline.reject and (quizzed.lower > -0.1 or base_quiz.lower > 0.4)}}", None, ""),
    ("gates: {beyond: {role: prediction, require: headline.reject or against_placebo.reject}}", None, ""),
    ("gates: {harm: {role: override, when: headline.upper < 0 or against_placebo.upper < 0}}\nverdicts: [{if: harm, then: OVERRIDE}, {if: no_effect, then: KILL}, {if: survives and able, then: SUCCESS}, {otherwise: INCONCLUSIVE}]", None, ""),
]  # fmt: skip

NO_MARGIN: list[Case] = [
    (able("not quizzed.reject"), "E0814", 'guardrail "able" passes when "quizzed" does not reject'),
    (able("quizzed.p > 0.05"), "E0814", "the fewer there are, the surer this passes"),
    (able("quizzed.p >= 0.05 and base_quiz.lower > 0.3"), "E0814", "does not reject"),
    (able("not (quizzed.p < 0.05 or quizzed.reject)"), "E0814", "does not reject"),
    (
        able("not quizzed.reject and quizzed.lower > -0.1"),
        None,
        "",
    ),  # with a margin the test is only one more condition
    (able("quizzed.lower > -0.1"), None, ""),
    (able("against_placebo.reject"), None, ""),  # asks for an effect
    (able("quizzed.p < 0.05"), None, ""),
    ("gates: {same: {role: prediction, require: not quizzed.reject}}", None, ""),
]

BOTH_SIDES: list[Case] = [
    (able("quizzed.delta >= -0.05 and quizzed.delta <= 0.05"), "E0825", 'guardrail gate "able" holds "quiz" on both sides'),
    (able("quizzed.delta >= -0.05 and quizzed.delta <= 0.05"), "E0825", "a larger delta is better, and one above 0.05 fails `quizzed.delta <= 0.05`"),
    (able("quizzed.delta >= -0.05 and quizzed.delta <= 0.05"), "E0825", "or better quizzed.lower > -0.05"),
    (able("not (quizzed.delta < -0.05 or quizzed.delta > 0.05)"), "E0825", "fails `quizzed.delta > 0.05`"),
    (able("gap.delta < 0.1 and gap.delta > -0.1"), "E0825", "a smaller delta is better, and one below -0.1 fails `gap.delta > -0.1`"),
    ("gates: {survives: {require: headline.reject and headline.delta >= 5 and headline.delta <= 30}}", "E0825", "success gate"),
    ("gates: {calm: {role: sanity, require: quizzed.delta > -0.2 and quizzed.delta < 0.2}}", "E0825", "sanity gate"),
    # sameness that is tested, controls that should be alike, one side, a description
    (able("quizzed.lower > -0.05 and quizzed.upper < 0.05"), None, ""),
    ("analyses: {alike: {metric: quiz, contrast: placebo - attacked, method: paired_t, side: two_sided, alpha: 0.05}}\ngates: {alike: {role: sanity, require: alike.delta > -0.2 and alike.delta < 0.2}}", None, ""),
    (able("quizzed.delta >= -0.05"), None, ""),
    (able("quizzed.delta < -0.05 or quizzed.delta > 0.05"), None, ""),
    (able("quizzed.delta >= -0.05 and gap.delta <= 0.05"), None, ""),
    ("gates: {on_part: {require: part.delta >= -5 and part.delta <= 5}}", None, ""),
    ("gates: {filter: {when: gap.delta > 0.3 or gap.delta < -0.3}}", None, ""),
    (able("base_quiz.value > 0.3 and base_quiz.value < 0.9"), None, ""),
]  # fmt: skip

REFERENCES: list[Case] = [
    (FROM_BASE + able("quizzed.delta >= -0.05 and quizzed.delta <= 0.05 and from_base.delta >= -0.05 and from_base.delta <= 0.05"), "E0826", '"treated" is held above "base" and below "attacked" in "quiz"'),
    (FROM_BASE + able("quizzed.upper < 0.03 and from_base.lower > -0.05"), "E0826", "need base - attacked to be at most 0.03 - (-0.05) = 0.08"),
    (FROM_BASE + able("quizzed.upper < 0.03") + "  kept: {role: guardrail, require: from_base.lower > -0.05}\n", "E0826", 'the other, in "able"'),
    # an arm that nobody declares is still another arm, unless it is a slip
    (FROM_BASE.replace("- base", "- nobody") + able("quizzed.upper < 0.03 and from_base.lower > -0.05"), "E0826", "nobody - attacked"),
    (FROM_BASE.replace("- base", "- atacked") + able("quizzed.upper < 0.03 and from_base.lower > -0.05"), None, ""),
    (FROM_BASE + able("quizzed.lower > -0.05 and from_base.lower > -0.05"), "W0826", 'only the latter did without "attack"'),
    (FROM_BASE + able("quizzed.lower > -0.05 and from_base.lower > -0.05"), "W0826", 'where "attack" costs more than 0.05, `from_base.lower > -0.05` asks "treated" to be better than "attacked"'),
    # a gate compares the two
    (FROM_BASE.replace("}}", "}, attack_cost: {metric: quiz, contrast: attacked - base, method: paired_t, side: less, alpha: 0.05}}") + able("quizzed.lower > -0.05 and from_base.lower > -0.05") + COST, None, ""),
    # controls that went through the same, other metrics, one reference, predictions
    (FROM_BASE.replace("base:", "placebo:").replace("- base", "- placebo").replace("from_placebo", "from_base") + able("quizzed.lower > -0.05 and from_base.lower > -0.05"), None, ""),
    (FROM_BASE.replace("metric: quiz", "metric: caught") + able("quizzed.lower > -0.05 and from_base.lower > -0.05"), None, ""),
    (able("quizzed.lower > -0.05 and quizzed.upper < 0.05"), None, ""),
    (FROM_BASE + "gates: {kept: {role: prediction, require: from_base.lower > -0.05}}", None, ""),
]  # fmt: skip

MEASURES: list[Case] = [
    (MEAN + able("gap.upper < 0.1") + "  clear: {role: guardrail, require: clarity.lower > -5}\n", "W0827", 'guardrail gates "able" and "clear" decide on "coherent" by two measures'),
    (MEAN + able("gap.upper < 0.1 and clarity.lower > -5"), "W0827", 'guardrail gate "able" decides'),
    (MEAN + able("gap.upper < 0.1 and clarity.lower > -5"), "W0827", "a share: of coherent < 50"),
    (MEAN + able("clarity.lower > -5"), None, ""),  # the filter and the switch read coherence too
    (MEAN + able("gap.upper < 0.1") + "  clear: {role: prediction, require: clarity.lower > -5}\n", None, ""),
    (MEAN + able("gap.upper < 0.1") + "  dull: {role: kill, when: clarity.upper < -20}\n", None, ""),  # another question
    # filtered and unfiltered are one measure of two populations
    ("metrics: {all: {of: first, judge: grader, score: aligned, better: higher, missing: drop}}\nanalyses: {all: {metric: all, contrast: treated - attacked, method: paired_t, side: less, alpha: 0.05}}\n" + able("all.lower > -5 and attack_effect.upper < 0"), None, ""),
]  # fmt: skip

NOISE: list[Case] = [
    ("metrics: {alignment: {noise: 8}}", "W0828", "8 x sqrt(2 trained arms / 3 seeds) = 6.53, above 5"),
    ("metrics: {alignment: {noise: 8}}", "W0828", "train 6 seeds of each arm"),  # 2 x (8 / 5)^2 = 5.12
    ("metrics: {alignment: {noise: 8}}", "W0828", 'gate "no_effect" compares headline.upper with 5'),
    ("metrics: {alignment: {noise: 6}}", None, ""),  # 6 x sqrt(2 / 3) = 4.9
    ("metrics: {alignment: {noise: 6}}\nseeds: [1]", "W0828", "6 x sqrt(2 trained arms / 1 seed) = 8.49"),
    # the base model has no training seed: 8 x sqrt(1 / 3) = 4.6 where only one arm is trained
    ("metrics: {alignment: {noise: 8}}\nanalyses: {headline: {contrast: attacked - base}}", None, ""),
    ("metrics: {alignment: {noise: 9}}\nanalyses: {headline: {contrast: attacked - base}}", "W0828", "1 trained arm / 3 seeds"),
    ("metrics: {quiz: {noise: 0.01}}", None, ""),
    ("metrics: {quiz: {noise: 0.5}}", "W0828", "quizzed.lower with -0.1"),
    # zero is a sign and no margin; a p-value and the level of one arm are no differences
    ("metrics: {alignment: {noise: 8}}\ngates: {no_effect: {when: headline.upper < 0}, survives: {require: headline.reject and headline.p < 0.01}, attack_took: {require: attack_effect.upper < -20}}", None, ""),
    ("metrics: {refusals: {noise: 0.5}}\ngates: {few: {role: prediction, require: refusing.value < 0.1}}", None, ""),
    ("metrics: {broken: {noise: 5}}", None, ""),  # only a switch reads it
]  # fmt: skip

MANIPULATION: list[Case] = [
    ("gates: {attack_took: null}", "W0829", 'nothing shows that "attack" did anything: a null in "headline"'),
    ("gates: {attack_took: null}", "W0829", "contrast: attacked - base"),
    ("gates: {attack_took: {role: sanity}}", "W0829", "no validity gate"),
    # the check is on another phase
    ("gates: {attack_took: {require: catch_effect.upper < 1}}", "W0829", "nothing shows"),
    # no arm without the phase is there
    ("gates: {attack_took: null, catch_learnt: null, not_at_chance: null}\nconditions: {base: null}\nanalyses: {attack_effect: null, catch_effect: null, base_quiz: null}", "W0829", "declare an arm with phases []; add an analysis"),
    ("gates: {attack_took: {require: attack_effect.upper < -5}}", None, ""),
    # the level of the control shows it too, and so does another arm that has the phase
    ("analyses: {level: {metric: alignment, arm: attacked, method: bootstrap, side: less, alpha: 0.05, resamples: 10000, seed: 1}}\ngates: {attack_took: {require: level.upper < 60}}", None, ""),
    ("analyses: {attack_effect: {contrast: placebo - caught}}", None, ""),
    # nothing is shared
    ("conditions: {treated: [attack, catch]}\ngates: {attack_took: null}", None, ""),
    ("conditions: {treated: [catch]}\ngates: {attack_took: null}", None, ""),
    ("conditions: {attacked: []}\ngates: {attack_took: null}", None, ""),
    ("gates: {survives: {role: prediction}, attack_took: null}", None, ""),
    # what cannot be read may be the check
    ("gates: {attack_took: {role: valid}}", None, ""),
    ("gates: {attack_took: {require: atacked_effect.upper < -5}}", None, ""),
    ("analyses: {attack_effect: {side: les}}  # atacked", None, ""),
]  # fmt: skip

UNREADABLE = {"E01", "E02", "E03"}
"""Where a spec could not be read, silence would say nothing."""

INTERVAL: list[Case] = [
    ("analyses: {headline: {interval: 0.9}}", "W0807", "which pairs with 95%"),
    ("analyses: {headline: {interval: 0.95}}", None, ""),
    ("analyses: {part: {interval: 0.95}}", None, ""),
    ("analyses: {part: {interval: 0.9}}", "W0807", "two-sided 0.05 pairs with 1 - 0.05 = 0.95"),
]

DECLARED: list[Case] = [
    ("metrics: {quiz: {missing: null}}", "E0202", "`metrics.quiz` lacks `missing`"),
    ("analyses: {headline: {p: null}}", "E0801", "does not declare p"),
    ("analyses: {headline: {side: null}}", "E0202", "`analyses.headline` lacks `side`"),
    ("analyses: {headline: {seed: null}}", "E0801", "does not declare seed"),
    ("analyses: {headline: {alpha: 0.0009}}", "E0806", "use 10000"),
    ("sample: {first: {prompts: part_b}}\nanalyses: {part: {on: null}}", "E0811", "16 units, fewer than 20"),
    (
        "sample: {first: {prompts: part_b}}\nanalyses: {part: {on: null}, headline: {method: sign_flip, p: null}}",
        None,
        "",
    ),
]

TABLES = {
    "W0807": INTERVAL, "E0811": DECLARED,
    "E0808": SMALLEST, "E0813": WINNER, "E0814": NO_MARGIN, "E0825": BOTH_SIDES, "0826": REFERENCES, "W0827": MEASURES,
    "W0828": NOISE, "W0829": MANIPULATION,
}  # fmt: skip


@pytest.mark.parametrize(
    ("silent", "fragment", "code", "says"),
    [pytest.param(name, *case, id=f"{name}-{index}") for name, table in TABLES.items() for index, case in enumerate(table)],
)  # fmt: skip
def test_finding(over: Callable[..., Any], silent: str, fragment: str, code: str | None, says: str) -> None:
    compiled = over(fragment)
    if code is None:
        assert not [found for found in compiled.codes if found.endswith(silent)], compiled.text
        assert (
            "atacked" in fragment or "valid}" in fragment or not UNREADABLE & {found[:3] for found in compiled.codes}
        ), compiled.text
        return
    found = [d for d in compiled.sink if d.code == code]
    assert found, compiled.text
    assert any(
        says in text for d in found for text in (d.message, d.help, *d.notes, *(label.text for label in d.labels))
    ), compiled.text
    assert all(d.help and d.span.line > 1 for d in found)


def test_choosing_the_winner_is_reported_once(over: Callable[..., Any]) -> None:
    codes = over("gates: {survives: {require: headline.reject or against_placebo.reject}}").codes
    assert "E0812" not in codes
    assert codes.count("E0813") == 1


def test_arms_that_differ_only_in_their_system_prompt_share_a_training_and_not_an_attack(
    over: Callable[..., Any],
) -> None:
    fragment = (
        "conditions: {attacked: {phases: [attack], system: none}, treated: {phases: [attack], system: Be kind.},"
        " base: {system: none}, caught: {phases: [catch], system: none}, placebo: {phases: [talk, attack], system: none}}\n"
        "sample: {first: {system: per_condition}}\ngates: {attack_took: null}"
    )
    assert "W0829" not in over(fragment).codes
