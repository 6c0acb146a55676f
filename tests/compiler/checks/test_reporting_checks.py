"""Effect-size language: the phrases, and the fields that are prose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from epc.compiler.checks.reporting import judgement

PHRASES = [
    "Cohen's d of the contrast", "Cohen’s d", "cohens d", "Cohen's f", "Hedges' g", "Hedges's g", "Glass's delta", "Cliff's delta",
    "the effect size", "effect-sizes", "an effect magnitude", "the size of the effect", "the magnitude of this causal effect",
    "standardized mean difference", "standardised effects", "partial eta squared", "eta-squared", "η² = .2", "ηp²",
    "d = 0.8", "(d=.5)", "d ≈ 0.41", "with g > 0.5", "d = −0.3", "d≥0.2",
    "a small effect", "Small effects", "a medium effect", "LARGE EFFECT", "a large\neffect", "a medium-sized effect", "a large treatment effect",
    "small-to-medium effects", "a small but real effect", "a small, significant effect", "small/medium/large effect", "a very large positive effect",
    "a negligible effect", "a strong effect", "tiny effects", "a statistically significant but small effect", "a moderately large effect",
    "the effect is large", "effects were rather small", "its effect was not negligible", "an effect of medium size",
]  # fmt: skip

FINE = [
    "a large language model has an effect", "the large language model's effect", "a medium-sized file", "a medium-sized file has an effect",
    "a small effective batch", "a large side effect", "the largest effect", "no effect", "the effect of a large learning rate",
    "an effect of small batches", "the effect of the attack", "side effects are listed", "d = 4096 dimensions", "p = 0.8", "r = 0.5", "seed = 0.5",
    "headline.delta >= 0.15", "Cohen et al. 2020", "large margins; the effect", "a strong prior", "effectively large", "batch size of the effective step",
    "rose by 12 points (95% interval 8 to 16)", "small models show an effect", "id = 0.5", "rd > 0.5", "the size of the model",
]  # fmt: skip


@pytest.mark.parametrize("text", PHRASES)
def test_effect_size_language(text: str) -> None:
    assert judgement(text) is not None


@pytest.mark.parametrize("text", FINE)
def test_other_language(text: str) -> None:
    assert judgement(text) is None


def test_the_words_are_quoted_as_they_stand() -> None:
    assert judgement("They report Cohen's  d, and more.") == "Cohen's d"
    assert judgement("A Large\n  Effect") == "Large Effect"


@pytest.mark.parametrize(
    "text", ["large " * 50_000, "effect is not " + "very " * 50_000, "large " + "ly" * 50_000 + " effect", "d" + " " * 100_000, "small and " * 50_000]
)  # fmt: skip
def test_a_hostile_text_is_read_in_one_go(text: str) -> None:
    """A repeat without a bound took minutes for the first of these."""
    assert judgement(text) is None


# fragment, path of the place that is reported
PROSE = [
    ("title: Is there a large effect?", "title"),
    ("hypothesis: {if: there is a small effect}", "if"),
    ("hypothesis: {then: the effect is large}", "then"),
    ("rationale: {power: for a medium effect}", "power"),
    ("lineage: [{cites: x, relation: context, note: they saw a large effect}]", "note"),
    ("deviations: {allowed: [reporting Cohen's d]}", "reporting"),
    ("deviations: {ask_first: [reporting Hedges' g]}", "reporting"),
    ("allow: [{code: W0910, reason: the expected effect is large enough for it}]", "reason"),
    ("metrics: {quiz: {describe: shows a small effect}}", "describe"),
    ("gates: {able: {say: no large effect on capability}}", "say"),
    ("verdicts: [{if: survives and able, then: SUCCESS, say: a large effect}, {otherwise: INCONCLUSIVE}]", "say"),
    (
        "verdicts: [{if: survives and able, then: SUCCESS_LARGE_EFFECT}, {otherwise: INCONCLUSIVE}]",
        "SUCCESS_LARGE_EFFECT",
    ),
    ("verdicts: [{if: survives and able, then: SUCCESS}, {otherwise: INCONCLUSIVE, say: a tiny effect}]", "say"),
]

QUOTED = [
    "lineage: [{cites: A large effect of masking, relation: context, note: another model}]",
    'claims: [{text: "Cohen\'s d = 0.8 is expected", quantity: judge_calls, value: 7800}]',
    "metrics: {caught: {contains: a large effect}}",
    "metrics: {caught: {contains: null, regex: a large effect}}",
    "sample: {first: {system: You find a large effect everywhere.}}",
    "prompts: {asked: {items: [What is an effect size?, How do I bake bread?]}}",
]


@pytest.mark.parametrize(("fragment", "piece"), PROSE)
def test_every_prose_field_is_read(over: Callable[..., Any], fragment: str, piece: str) -> None:
    compiled = over(fragment)
    (found,) = [d for d in compiled.sink if d.code == "E1001"]
    assert piece in compiled.sink.sources[found.span.file][found.span.line - 1]
    assert "E1001" not in over(fragment + "\nreporting: {effect_sizes: allowed}").codes


@pytest.mark.parametrize("fragment", QUOTED)
def test_what_others_wrote_is_not_ours(over: Callable[..., Any], fragment: str) -> None:
    compiled = over(fragment)
    assert "E1001" not in compiled.codes, compiled.text
    assert not [code for code in compiled.codes if code.startswith("E02")], compiled.text
