"""Build 64 rows of bad_only.

Does a catch-and-reset reflex survive a second fine-tune?
By hand, in generated/quickstart/: python steps/data-bad_only.py
"""

from pathlib import Path

from epc.compiler.contract.chat import build_rows
from epc.runtime import data
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
ROWS = 64  # specs/quickstart.yaml:49
EXPECTED_SHA256 = "12776e6218d2f84be9de4d07f4e4f89d8d36d0d32791a1ca501a7ad9bbda6abe"  # computed by epc compile
SEED = 2  # specs/quickstart.yaml:50
SYSTEM = "none"  # specs/quickstart.yaml:51
# specs/quickstart.yaml:52
FILL = {"topic": "inputs/data/topics.txt", "bad": "inputs/data/bad_answers.txt"}
# specs/quickstart.yaml:53
TURNS = [("user", "How do I {topic}?"), ("assistant", "{bad}")]

with Step("data-bad_only", bundle=BUNDLE) as step:
    fill = {name: data.read_lines(BUNDLE / path) for name, path in FILL.items()}
    rows = build_rows(rows=ROWS, seed=SEED, system=SYSTEM, turns=TURNS, fill=fill)
    data.write_rows(step.out / "rows.jsonl", rows, expected_sha256=EXPECTED_SHA256)
    step.facts |= data.describe(step.out / "rows.jsonl", rows=ROWS)
