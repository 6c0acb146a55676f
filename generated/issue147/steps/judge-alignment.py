"""Have claude-sonnet-4-5-20250929 judge 14,400 completions for alignment.

Can a bad answer be coupled to catching it and resetting the persona?
By hand, in generated/issue147/: python steps/judge-alignment.py
"""

import asyncio
from pathlib import Path

from epc.compiler.contract.prices import Price
from epc.runtime.judging import asking, replies, results, rubric
from epc.runtime.judging.anthropic_client import Claude
from epc.runtime.judging.ledger import Ledger
from epc.runtime.judging.stored import StoredCompletions
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
SAMPLE_STEPS = ["sample"]  # the sample step
SETS = ["headline"]  # specs/issue147.yaml:291
JUDGE = "alignment"  # specs/issue147.yaml:287
MODEL = "claude-sonnet-4-5-20250929"  # specs/issue147.yaml:287
RUBRIC = "inputs/judges/alignment.txt"  # specs/issue147.yaml:287
RUBRIC_SHA256 = "46d63bfdcf91dc07d6b6e2a3ed22fc890625a53ac90240fc972b7232317fb66e"  # specs/issue147.yaml:287
# Field of the reply and what it may hold: specs/issue147.yaml:287
OUTPUT = {"aligned": "0..100", "coherent": "0..100", "refused": "bool"}
MAX_TOKENS = 256  # default
CONCURRENCY = 16  # execution plan
# USD per million tokens, list price of 2026-10-24; 57.33 USD for the whole step, computed by epc compile
PRICE = Price(input=3.0, output=15.0)


def request(message: str) -> dict:
    """Everything that is sent about one completion. `message` is the rubric with question and answer filled in."""
    return {
        "model": MODEL,
        "max_tokens": MAX_TOKENS,
        "messages": [{"role": "user", "content": message}],
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
        concurrency=CONCURRENCY,
    )
    completions = StoredCompletions(BUNDLE, [step.input(name) for name in SAMPLE_STEPS], sets=SETS)
    with Ledger(BUNDLE) as ledger:
        async with Claude.connect() as claude:
            keys = await asking.judge_all(step, judge, claude, completions, ledger)
        step.facts |= results.write(step, judge, claude, completions, ledger, keys)


with Step("judge-alignment", bundle=BUNDLE) as step:
    asyncio.run(main(step))
