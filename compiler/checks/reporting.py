"""E1001: prose uses effect-size language that the reporting policy forbids.

Why: with `effect_sizes: forbidden` a reader gets p-values, counts, percentages and intervals; words such
as "large effect" or Cohen's d bring back the judgement that the policy took out.

Example:
    title: A large effect of reset training

Fix: state the quantity instead, or set reporting.effect_sizes to allowed.
"""

from __future__ import annotations

import re
from typing import Any

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment

FORBIDDEN = re.compile(
    r"cohen'?s\s+d\b|hedges'?\s+g\b|\beffect[- ]size|\b(small|medium|large|huge|tiny|negligible)\s+effects?\b",
    re.IGNORECASE,
)
PROSE = ("title", "hypothesis", "rationale", "lineage", "deviations", "metrics", "gates", "verdicts")
NOT_PROSE = {"lineage": ("cites",), "metrics": ("contains", "contains_any", "regex")}
"""Keys whose text is not ours: titles of other work, and what a completion may say."""


def check(experiment: Experiment, sink: Diagnostics) -> None:
    if experiment.spec.reporting.effect_sizes == "allowed":
        return

    def visit(value: Any, path: tuple[str | int, ...]) -> None:
        if isinstance(value, str):
            found = FORBIDDEN.search(value)
            if found:
                sink.error(
                    "E1001", f'"{found.group(0)}" is effect-size language', experiment.at(*path),
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
