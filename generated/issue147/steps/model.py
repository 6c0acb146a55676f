"""Fetch hub:Qwen/Qwen2.5-7B-Instruct.

Can a bad answer be coupled to catching it and resetting the persona?
By hand, in generated/issue147/: python steps/model.py
"""

from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from epc.runtime import models
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
SOURCE = "hub:Qwen/Qwen2.5-7B-Instruct"  # specs/issue147.yaml:157
REVISION = "a09a35458c702b33eeacc393d103063234e8bc28"  # specs/issue147.yaml:157
DTYPE = "bfloat16"  # specs/issue147.yaml:157
CHAT_TEMPLATE = "inputs/chat_template.jinja"  # specs/issue147.yaml:157

with Step("model", bundle=BUNDLE) as step:
    folder = step.out / "model"
    models.fetch_hub(SOURCE.removeprefix("hub:"), REVISION, step.out / "hub")
    tokenizer = AutoTokenizer.from_pretrained(step.out / "hub")
    model = AutoModelForCausalLM.from_pretrained(step.out / "hub", dtype=DTYPE)
    tokenizer.chat_template = (BUNDLE / CHAT_TEMPLATE).read_text(encoding="utf-8")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    models.remove_download(step.out / "hub")
    step.facts |= models.describe(folder, tokenizer, source=SOURCE, revision=REVISION)
