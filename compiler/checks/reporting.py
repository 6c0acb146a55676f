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

import re
from typing import Any, Final

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment

_SIZE: Final = "(?:small|medium|moderate|modest|large|big|huge|massive|tiny|trivial|negligible|weak|strong|substantial|sizeable|sizable)"
_BETWEEN: Final = (
    "(?:(?:sized?|and|but|to|or|treatment|main|overall|average|causal|positive|negative|real|true|clear|significant|reliable"
    r"|[a-z]{1,30}ly|SIZE)[\s,/-]{1,9}){0,4}".replace("SIZE", _SIZE)
)
"""What may stand between the judgement and the word: `a small but real effect`, never `a large language model's effect`."""
_MEASURE: Final = re.compile(
    r"\bcohen['’]?s?\s{1,9}[dfhw]\b|\bhedges['’]?s?\s{1,9}g\b|\b(?:glass|cliff)['’]?s?\s{1,9}(?:delta|δ)"
    r"|\bstandardi[sz]ed\s{1,9}(?:mean\s{1,9})?(?:difference|effect)s?\b|\b(?:eta|omega)[\s-]squared\b|[ηω]p?²"
    # a letter by itself and a decimal: "d = 0.8", and not "d = 4096"
    r"|(?<![\w.])[dg]\s{0,9}(?:=|≈|~|<=|>=|<|>|≤|≥)\s{0,9}[-−+]?\d{0,9}\.\d"
)
_EFFECT: Final = re.compile(
    r"\beffect[\s-]{0,9}(?:size|magnitude)s?\b"
    r"|\b(?:size|magnitude)\s{1,9}of\s{1,9}(?:the|this|that|an|any|its)\s{1,9}(?:[a-z]{1,30}\s{1,9})?effect\b"
    rf"|\b{_SIZE}[\s,/-]{{1,9}}{_BETWEEN}effects?\b"
    r"|\beffects?\s{1,9}(?:is|are|was|were|be|looks?|seems?|remains?)\s{1,9}(?:(?:an?|not|very|rather|quite|too|only|[a-z]{1,30}ly)\s{1,9}){0,4}"
    rf"{_SIZE}\b"
    rf"|\beffects?\s{{1,9}}of\s{{1,9}}(?:an?\s{{1,9}})?{_SIZE}\s{{1,9}}(?:size|magnitude)\b"
)
PROSE: Final = ("title", "hypothesis", "rationale", "lineage", "deviations", "allow", "metrics", "gates", "verdicts")
"""What is printed in the plan and in the report. Claims are quoted from elsewhere."""
NOT_PROSE: Final = {"lineage": ("cites", "plan"), "metrics": ("contains", "contains_any", "regex", "lm_eval")}
"""Keys whose text is not ours: titles of other work, files, and what a completion may say."""


def judgement(text: str) -> str | None:
    """The first piece of effect-size language in a text. Every repeat is bounded, so that time is linear."""
    lowered = text.lower()  # patterns that ignore case take four times as long to compile
    found = _MEASURE.search(lowered) or _EFFECT.search(lowered)
    if found is None:
        return None
    # a few letters of other alphabets change their length
    return " ".join((text if len(text) == len(lowered) else lowered)[found.start() : found.end()].split())


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
