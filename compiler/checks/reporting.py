"""Words that the reporting policy keeps out of every text that is printed.

E1001: effect-size language where the policy forbids it
Why: with `effect_sizes: forbidden` a reader gets p-values, counts, percentages and intervals and judges for himself.
Cohen's d, "d = 0.8" or "a large effect" bring back the judgement that the policy took out, and what the registration
says the report repeats: titles, rationale, notes on earlier work, what gates and verdicts say, accepted warnings.
Example:
    title: A large effect of catching on alignment
Fix:
    title: Does catching raise alignment by five points or more?
"""

from __future__ import annotations

from typing import Any, Final

from epc.compiler.contract.prose import judgement
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment

PROSE: Final = ("title", "hypothesis", "rationale", "lineage", "deviations", "allow", "metrics", "gates", "verdicts")
"""What is printed in the plan and in the report. Claims are quoted from elsewhere."""
NOT_PROSE: Final = {"lineage": ("cites", "plan"), "metrics": ("contains", "contains_any", "regex", "lm_eval")}
"""Keys whose text is not ours: titles of other work, files, and what a completion may say."""


def check(experiment: Experiment, sink: Diagnostics) -> None:
    if experiment.spec.reporting.effect_sizes == "allowed":
        return

    def visit(value: Any, path: tuple[str | int, ...]) -> None:
        if isinstance(value, str):
            # a verdict label is printed too: SUCCESS_LARGE_EFFECT
            found = judgement(value.replace("_", " "))
            if found is not None:
                sink.error(
                    "E1001", f'"{found}" is effect-size language', experiment.surface.document.span(path),
                    help="say how many points or per cent; or set reporting: {effect_sizes: allowed}",
                )  # fmt: skip
        elif isinstance(value, dict):
            for key, item in value.items():
                if key not in NOT_PROSE.get(str(path[0]), ()) or len(path) == 1:
                    visit(item, (*path, key))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                visit(item, (*path, index))

    data = experiment.surface.document.data
    for section in PROSE:
        visit(data.get(section), (section,))
