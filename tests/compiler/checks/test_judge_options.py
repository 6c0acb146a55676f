"""Options, votes, limits and human labels of judges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

OPUS = "model: claude-opus-5"
OWN = "provider: openai, model: mine, price: {input: 0, output: 0}"
GOLD = "gold: {file: judges/gold.csv, per_arm: 20, seed: 1, kappa: {aligned: 0.6}"
ALONE = "batch_from: 100000"

# keys of the judge, the codes of the judge's own checks, and a piece of what is said
CASES: list[tuple[str, set[str], str]] = [
    ("", set(), ""),
    # options of Claude
    ("options: {temperature: 0.0}", {"E0853"}, "the version of the interface (in the lock)"),
    ("options: {top_k: 5}", {"E0853"}, "`votes` with an `aggregate`"),
    ("options: {effort: low}", {"E0853"}, "delete it: this model takes no options"),
    (f"{OPUS}, max_tokens: 2048, options: {{temperature: 1}}", {"E0853"}, "`votes` with an `aggregate`, `effort`"),
    (f"{OPUS}, max_tokens: 2048, options: {{efort: low}}", {"E0853"}, 'did you mean "effort"?'),
    (f"{OPUS}, max_tokens: 2048, options: {{effort: low, thinking: adaptive}}", set(), ""),
    (f"{OPUS}, max_tokens: 2048, options: {{effort: 3}}", {"E0854"}, "write low, medium, high, xhigh or max"),
    (f"{OPUS}, max_tokens: 2048, options: {{thinking: true}}", {"E0854"}, "cannot be true"),
    (f"{OPUS}, max_tokens: 2048, options: {{thinking: between_tools}}", {"E0854"}, "write adaptive or disabled"),
    ("model: claude-opus-4-6, options: {effort: xhigh}", {"E0854"}, "write low, medium, high or max"),
    ("model: claude-opus-4-6, options: {effort: max}", set(), ""),
    ("model: claude-opus-9, price: {input: 1, output: 5}, options: {effort: low}", {"E0853"}, "no option is known"),
    (f"{OPUS}, options: {{thinking: disabled, effort: max}}", {"E0854"}, "write effort: high or lower"),
    (f"{OPUS}, options: {{thinking: disabled, effort: high}}", set(), ""),
    # room to think
    (OPUS, {"W0869"}, "or options: {thinking: disabled}"),
    ("model: claude-opus-5-5", {"W0869"}, "help: write max_tokens: 2048 or more"),
    ("model: claude-sonnet-5-5", {"W0869"}, "or options: {thinking: between_tools}"),
    ("model: claude-opus-4-8", set(), ""),
    ("model: claude-opus-4-8, options: {thinking: adaptive}", {"W0869"}, "256 tokens"),
    (f"{OPUS}, max_tokens: 1024", set(), ""),
    # options of chat completions
    (f"{OWN}, options: {{temperature: 0.7, top_p: 1, seed: 3, reasoning_effort: low}}", set(), ""),
    (f"{OWN}, options: {{temperature: 3}}", {"E0854"}, "a number from 0 to 2"),
    (f"{OWN}, options: {{seed: 0.5}}", {"E0854"}, "a whole number from 0"),
    (f"{OWN}, options: {{temperatur: 1}}", {"E0853"}, 'did you mean "temperature"?'),
    (f"{OWN}, batch_from: 10", {"E0853"}, "it has no batches"),
    ("provider: openai, model: mine", {"E0844"}, "price: {input: 0, output: 0}"),
    ("provider: openai, model: gpt-x-latest, price: {input: 1, output: 2}", set(), ""),
    ("provider: openai, model: claude-haiku-4-5-20251001", {"E0844"}, "whoever runs a server sets its price"),
    # votes
    ("votes: 3, aggregate: median", set(), ""),
    ("votes: 4, aggregate: median", {"E0855"}, "write votes: 5, or aggregate: mean"),
    ("votes: 4, aggregate: mean", set(), ""),
    (f"{OWN}, votes: 3, aggregate: mean, options: {{temperature: 0.0}}", {"W0870"}, "with temperature: 0.0"),
    (f"{OWN}, votes: 3, aggregate: mean, options: {{temperature: 1, seed: 4}}", {"W0870"}, "temperature: 1 and seed: 4"),
    (f"{OWN}, votes: 3, aggregate: mean, options: {{temperature: 1}}", set(), ""),
    (f"{OWN}, options: {{temperature: 0}}", set(), ""),
    # limits: 7,800 calls
    (f"{ALONE}, limits: {{requests: 5}}", {"W0879"}, "7,800 calls of \"grader\" at 5 a minute take 26 hours"),
    (f"{ALONE}, limits: {{requests: 6}}", set(), ""),
    (f"{ALONE}, votes: 3, aggregate: median, limits: {{requests: 6}}", {"W0879"}, "23,400 calls"),
    (f"{ALONE}, limits: {{requests: 50, output_tokens: 150}}", {"E0868"}, "may need 256 tokens written"),
    (f"{ALONE}, limits: {{requests: 50, output_tokens: 256}}", set(), ""),
    (f"{ALONE}, limits: {{input_tokens: 100}}", {"E0868"}, "tokens sent, and 100 a minute"),
    (f"{ALONE}, limits: {{requests: 50, input_tokens: 300}}", {"W0879"}, "input tokens"),
    ("limits: {requests: 1}", set(), ""),
    # human labels: 24 prompts x 25 completions, three seeds but of base
    (f"{GOLD}}}", set(), ""),
    (f"{GOLD}, bias: {{coherent: 5}}}}", set(), ""),
    (f"{GOLD}, bias: {{kind: 5}}}}", {"E0859"}, 'does not reply with "kind"'),
    ("gold: {file: judges/gold.csv, per_arm: 20, seed: 1, kappa: {alined: 0.6}}", {"E0859"}, 'did you mean "aligned"?'),
    ("gold: {file: judges/gold.csv, per_arm: 601, seed: 1, kappa: {aligned: 0.6}}", {"E0859"}, "write 600 or less"),
    ("gold: {file: judges/gold.csv, per_arm: 600, seed: 1, kappa: {aligned: 0.6}}", set(), ""),
    ("gold: {file: /gold.csv, per_arm: 20, seed: 1, kappa: {aligned: 0.6}}", {"E0404"}, "absolute path"),
]  # fmt: skip
OWN_CODES = {
    "E0404",
    "E0844",
    *(f"{kind}{number:04}" for kind in "EW" for number in (*range(853, 861), *range(867, 880))),
}


@pytest.mark.parametrize(("keys", "codes", "said"), CASES, ids=[keys or "nothing" for keys, _, _ in CASES])
def test_what_is_asked(over: Callable[..., Any], keys: str, codes: set[str], said: str) -> None:
    compiled = over(f"judges: {{grader: {{{keys}}}}}" if keys else "")
    assert set(compiled.codes) & OWN_CODES == codes, compiled.text
    assert said in compiled.text
