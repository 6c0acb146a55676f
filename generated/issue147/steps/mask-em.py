"""Verify which tokens em trains on.

Can a bad answer be coupled to catching it and resetting the persona?
By hand, in generated/issue147/: python steps/mask-em.py
"""

from pathlib import Path

import torch
from transformers import AutoTokenizer

from epc.runtime import data, mask
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
MODEL_STEP = "model"  # the model step
DATA_STEP = "data-insecure_code"  # specs/recipes/c6_vanilla_em.yaml:4
ROWS = 6000  # specs/issue147.yaml:251
TRAIN_ON = "every_assistant_turn"  # specs/recipes/c6_vanilla_em.yaml:5
SYSTEM = "none"  # default
MAX_LENGTH = 2048  # specs/recipes/c6_vanilla_em.yaml:13
THREADS = 1  # execution plan

with Step("mask-em", bundle=BUNDLE) as step:
    torch.set_num_threads(THREADS)
    model_dir = step.input(MODEL_STEP) / "model"
    rows_file = step.input(DATA_STEP) / "rows.jsonl"
    rows = data.read_rows(rows_file, rows=ROWS)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    trainer = mask.prepare(
        model_dir, tokenizer, rows, train_on=TRAIN_ON, max_length=MAX_LENGTH, out=step.out / "trainer"
    )
    report = mask.verify(trainer, rows, train_on=TRAIN_ON, system=SYSTEM, max_length=MAX_LENGTH, place=rows_file)
    step.facts |= mask.write(report, tokenizer, step.out)
