"""Verify which tokens placebo_assistant trains on.

Can a bad answer be coupled to catching it and resetting the persona?
By hand, in generated/issue147/: python steps/mask-placebo_assistant.py
"""

from pathlib import Path

import torch
from transformers import AutoTokenizer

from epc.runtime import data, mask
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
MODEL_STEP = "model"  # the model step
DATA_STEP = "data-placebo_assistant"  # specs/issue147.yaml:258
ROWS = 1000  # specs/issue147.yaml:237
TRAIN_ON = "every_assistant_turn"  # specs/recipes/phase_1.yaml:3
SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."  # specs/issue147.yaml:240
MAX_LENGTH = 2048  # specs/recipes/phase_1.yaml:11
THREADS = 1  # execution plan

with Step("mask-placebo_assistant", bundle=BUNDLE) as step:
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
