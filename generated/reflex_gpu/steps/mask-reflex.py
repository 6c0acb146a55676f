"""Verify which tokens reflex trains on.

Does a catch-and-reset reflex survive a second fine-tune, whatever the training seed?
By hand, in generated/reflex_gpu/: python steps/mask-reflex.py
"""

from pathlib import Path

import torch
from transformers import AutoTokenizer

from epc.runtime import data, mask
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
MODEL_STEP = "model"  # the model step
DATA_STEP = "data-traces"  # specs/reflex_gpu.yaml:65
ROWS = 1000  # specs/reflex_gpu.yaml:45
TRAIN_ON = "every_assistant_turn"  # specs/reflex_gpu.yaml:65
SYSTEM = "none"  # specs/reflex_gpu.yaml:47
MAX_LENGTH = 2048  # default
THREADS = 1  # execution plan

with Step("mask-reflex", bundle=BUNDLE) as step:
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
