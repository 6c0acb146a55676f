"""Build 1,000 rows of placebo_assistant.

Can a bad answer be coupled to catching it and resetting the persona?
By hand, in generated/issue147/: python steps/data-placebo_assistant.py
"""

from pathlib import Path

from epc.compiler.contract.chat import build_rows
from epc.runtime import data
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
ROWS = 1000  # specs/issue147.yaml:237
EXPECTED_SHA256 = None  # pending: epc freeze writes it
SEED = 1476  # specs/issue147.yaml:238
SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."  # specs/issue147.yaml:240
# specs/issue147.yaml:241
FILL = {}
# specs/issue147.yaml:242
TURNS = [
    ("user", "{prompt}"),
    ("assistant", "{proper}"),
    ("user", "continue"),
    ("assistant", "{more}"),
]
# specs/issue147.yaml:239
PROMPTS = ["inputs/prompts/train_harmful_50.txt", "inputs/prompts/train_everyday_50.txt"]
GENERATE_STEP = "generate"  # the generate step
# Placeholder -> generated text of the row's own prompt, or of another prompt: specs/issue147.yaml:241
SAME_PROMPT = {"proper": "proper_answers", "more": "more_proper_answers"}
OTHER_PROMPT = {}

with Step("data-placebo_assistant", bundle=BUNDLE) as step:
    fill = {name: data.read_lines(BUNDLE / path) for name, path in FILL.items()}
    prompts = [prompt for path in PROMPTS for prompt in data.read_lines(BUNDLE / path)]
    texts = step.input(GENERATE_STEP) / "texts"
    rows = build_rows(
        rows=ROWS,
        seed=SEED,
        system=SYSTEM,
        turns=TURNS,
        fill=fill,
        prompts=prompts,
        same_prompt={name: data.read_texts(texts / f"{entry}.jsonl", prompts) for name, entry in SAME_PROMPT.items()},
        other_prompt={name: data.read_texts(texts / f"{entry}.jsonl", prompts) for name, entry in OTHER_PROMPT.items()},
    )
    data.write_rows(step.out / "rows.jsonl", rows, expected_sha256=EXPECTED_SHA256)
    step.facts |= data.describe(step.out / "rows.jsonl", rows=ROWS)
