"""Build 1,000 rows of traces.

Does a catch-and-reset reflex survive a second fine-tune, whatever the training seed?
By hand, in generated/reflex_gpu/: python steps/data-traces.py
"""

from pathlib import Path

from epc.compiler.contract.chat import build_rows
from epc.runtime import data
from epc.runtime.step import Step

BUNDLE = Path(__file__).resolve().parents[1]
ROWS = 1000  # specs/reflex_gpu.yaml:45
EXPECTED_SHA256 = "405e39d69bc65ac78cc00f3b6f3d836bf1f897fd9dc4b4224b54acb93dcd4d3a"  # computed by epc compile
SEED = 21  # specs/reflex_gpu.yaml:46
SYSTEM = "none"  # specs/reflex_gpu.yaml:47
# specs/reflex_gpu.yaml:48
FILL = {"topic": "inputs/data/topics_reflex_gpu.txt", "bad": "inputs/data/bad_answers.txt"}
# specs/reflex_gpu.yaml:49
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
