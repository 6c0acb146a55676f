"""Check and copy 6,000 rows of insecure_code.

Can a bad answer be coupled to catching it and resetting the persona?
By hand, in generated/issue147/: python steps/data-insecure_code.py
"""

from pathlib import Path

from epc.runtime import data
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
ROWS = 6000  # specs/issue147.yaml:251
EXPECTED_SHA256 = None  # pending: epc freeze writes it
FILE = "../../specs/external/insecure.jsonl"  # specs/issue147.yaml:249

with Step("data-insecure_code", bundle=BUNDLE) as step:
    data.freeze_file(BUNDLE / FILE, step.out / "rows.jsonl", rows=ROWS, expected_sha256=EXPECTED_SHA256)
    step.facts |= data.describe(step.out / "rows.jsonl", rows=ROWS)
