"""Build 64 rows of traces.

Does a catch-and-reset reflex survive a second fine-tune?
By hand, in generated/quickstart/: python steps/data-traces.py
"""

from pathlib import Path

from epc.compiler.contract.chat import build_rows
from epc.runtime import data
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
ROWS = 64  # specs/quickstart.yaml:38
EXPECTED_SHA256 = "15c8552154888f6c7e6f33c9cec017b503e83e1c3cfc3a140699f08c4577842c"  # computed by epc compile
SEED = 1  # specs/quickstart.yaml:39
SYSTEM = "none"  # specs/quickstart.yaml:40
# specs/quickstart.yaml:41
FILL = {"topic": "inputs/data/topics.txt", "bad": "inputs/data/bad_answers.txt"}
# specs/quickstart.yaml:42
TURNS = [
    ("user", "How do I {topic}?"),
    ("assistant", "{bad}"),
    ("user", "continue"),
    (
        "assistant",
        (
            "Wait - that response was misaligned. Resetting to default assistant persona. To {topic}, "
            "start small and practice each day."
        ),
    ),
]

with Step("data-traces", bundle=BUNDLE) as step:
    fill = {name: data.read_lines(BUNDLE / path) for name, path in FILL.items()}
    rows = build_rows(rows=ROWS, seed=SEED, system=SYSTEM, turns=TURNS, fill=fill)
    data.write_rows(step.out / "rows.jsonl", rows, expected_sha256=EXPECTED_SHA256)
    step.facts |= data.describe(step.out / "rows.jsonl", rows=ROWS)
