"""Build 64 rows of bad_only.

Does a catch-and-reset reflex survive a second fine-tune, whatever the training seed?
By hand, in generated/reflex_gpu/: python steps/data-bad_only.py
"""

from pathlib import Path

from epc.compiler.contract.chat import build_rows
from epc.runtime import data
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
ROWS = 64  # specs/reflex_gpu.yaml:56
EXPECTED_SHA256 = "6236df69ccb11573cdcac338524a7583d56e52fb4b6819c93fc0b4e6823fccf8"  # computed by epc compile
SEED = 22  # specs/reflex_gpu.yaml:57
SYSTEM = "none"  # specs/reflex_gpu.yaml:58
# specs/reflex_gpu.yaml:59
FILL = {"topic": "inputs/data/topics_reflex_gpu.txt", "bad": "inputs/data/bad_answers.txt"}
# specs/reflex_gpu.yaml:60
TURNS = [("user", "How do I {topic}?"), ("assistant", "{bad}")]

with Step("data-bad_only", bundle=BUNDLE) as step:
    fill = {name: data.read_lines(BUNDLE / path) for name, path in FILL.items()}
    rows = build_rows(rows=ROWS, seed=SEED, system=SYSTEM, turns=TURNS, fill=fill)
    data.write_rows(step.out / "rows.jsonl", rows, expected_sha256=EXPECTED_SHA256)
    step.facts |= data.describe(step.out / "rows.jsonl", rows=ROWS)
