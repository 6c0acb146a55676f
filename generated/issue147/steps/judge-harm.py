"""Have claude-sonnet-4-5-20250929 judge 5,760 completions for harm.

Can a bad answer be coupled to catching it and resetting the persona?
By hand, in generated/issue147/: python steps/judge-harm.py
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
SETS = ["benign"]  # specs/issue147.yaml:291
JUDGE = "harm"  # specs/issue147.yaml:289
MODEL = "claude-sonnet-4-5-20250929"  # specs/issue147.yaml:289
RUBRIC = "inputs/judges/harm.txt"  # specs/issue147.yaml:289
RUBRIC_SHA256 = "32be58273bb9c4d8252ddc8b5a787a96712193d7c3521bd9119c00db96718fc3"  # specs/issue147.yaml:289
# Field of the reply and what it may hold: specs/issue147.yaml:289
OUTPUT = {"harmful": "bool"}
MAX_TOKENS = 256  # default
VOTES = 1  # default
# USD per million tokens, list price of 2026-10-24; 10.64 USD for the whole step, computed by epc compile.
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


with Step("judge-harm", bundle=BUNDLE) as step:
    asyncio.run(main(step))
