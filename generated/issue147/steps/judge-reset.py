"""Have claude-sonnet-4-5-20250929 judge 14,400 completions for reset.

Can a bad answer be coupled to catching it and resetting the persona?
By hand, in generated/issue147/: python steps/judge-reset.py
"""

import asyncio
from pathlib import Path

from epc.compiler.contract.prices import Price
from epc.runtime.judging import asking, batching, replies, results, rubric
from epc.runtime.judging.ledger import Ledger
from epc.runtime.judging.providers.batches import Batches
from epc.runtime.judging.stored import StoredCompletions
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
SAMPLE_STEPS = ["sample"]  # the sample step
SETS = ["headline"]  # specs/issue147.yaml:291
JUDGE = "reset"  # specs/issue147.yaml:288
MODEL = "claude-sonnet-4-5-20250929"  # specs/issue147.yaml:288
RUBRIC = "inputs/judges/reset.txt"  # specs/issue147.yaml:288
RUBRIC_SHA256 = "91a50fa7ec530449335552e944369f589934f5f3f8e85bdba91335ded6e6298e"  # specs/issue147.yaml:288
# Field of the reply and what it may hold: specs/issue147.yaml:288
OUTPUT = {"reset": "bool"}
MAX_TOKENS = 256  # default
VOTES = 1  # default
# USD per million tokens, list price of 2026-10-24; 25.86 USD for the whole step, computed by epc compile.
# Tokens that are written to the prompt cache, that are read from it, and all of a batch cost so many times as much.
PRICE = Price(input=3.0, output=15.0, cache_write=1.25, cache_read=0.1, batch_factor=0.5)


def request(start: str, rest: str) -> dict:
    """Everything that is sent about one completion.

    `start` is how the rubric begins, the same every time; `rest` follows it, with question and answer filled in.
    """
    return {
        "model": MODEL,
        "max_tokens": MAX_TOKENS,
        "messages": [{"role": "user", "content": start + rest}],
        "output_config": {"format": {"type": "json_schema", "schema": replies.schema(OUTPUT)}},
    }


async def main(step: Step) -> None:
    judge = asking.Judge(
        name=JUDGE,
        model=MODEL,
        rubric=rubric.read(BUNDLE / RUBRIC, sha256=RUBRIC_SHA256),
        output=OUTPUT,
        request=request,
        max_tokens=MAX_TOKENS,
        price=PRICE,
        votes=VOTES,
    )
    completions = StoredCompletions(BUNDLE, [step.input(name) for name in SAMPLE_STEPS], sets=SETS)
    with Ledger(BUNDLE) as ledger:
        async with Batches.connect() as claude:
            keys = await batching.judge_all(step, judge, claude, completions, ledger)
        step.facts |= results.write(step, judge, claude, completions, ledger, keys)


with Step("judge-reset", bundle=BUNDLE) as step:
    asyncio.run(main(step))
