"""Effect-size language: what a reporting policy of `effect_sizes: forbidden` keeps out of every text that is printed."""

from __future__ import annotations

import re
from typing import Final

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


def judgement(text: str) -> str | None:
    """The first piece of effect-size language in a text. Every repeat is bounded, so that time is linear."""
    lowered = text.lower()  # patterns that ignore case take four times as long to compile
    found = _MEASURE.search(lowered) or _EFFECT.search(lowered)
    if found is None:
        return None
    # a few letters of other alphabets change their length
    return " ".join((text if len(text) == len(lowered) else lowered)[found.start() : found.end()].split())
