"""What keeps a rehearsal from being read as a result: its decision names no verdict.

Everything is computed as for the plan, so that all of it is tried out. Then the verdict is replaced by a stamp, and a
label that stands anywhere else gets the stamp in front of it.
"""

from __future__ import annotations

from typing import Any, Final

from epc.compiler.contract.decision import Decision

STAMP: Final = "REHEARSAL"
PREFIX: Final = f"{STAMP}: "
NO_RESULT: Final = f"{PREFIX}a small model and made-up scores; nothing here is a result"
LABELLED: Final = ("verdict", "would_flip")
"""Fields of gates and of the sensitivity panel that hold a label."""


def stamped(decision: Decision) -> Decision:
    """The decision of a rehearsal without a verdict; any other, and one that is stamped, as it is.

    Its class is INVALID, so that a program that reads nothing else does not take it for a result either.
    """
    verdict = decision.verdict
    if decision.mode == "real" or verdict.label == STAMP:
        return decision
    data = decision.model_dump()
    for part in (*data["gates"], *data["sensitivity"]):
        _stamp_labels(part)
    data["verdict"] = {
        "label": STAMP, "verdict_class": "INVALID", "rule": None, "rule_text": "a rehearsal has no verdict", "say": "",
        "because": (
            f"{PREFIX}the rules would have read {verdict.label} on made-up scores; this is no verdict."
            f" They would have, because: {verdict.because}"
        ),
    }  # fmt: skip
    return Decision.model_validate(data)


def stamped_title(decision: Decision) -> str:
    """The title, which of a rehearsal begins with the stamp."""
    bare = decision.mode == "real" or decision.title.startswith(STAMP)
    return decision.title if bare else PREFIX + decision.title


def _stamp_labels(part: Any) -> None:
    match part:
        case dict():
            for name, value in part.items():
                if name in LABELLED and isinstance(value, str):
                    part[name] = PREFIX + value
                else:
                    _stamp_labels(value)
        case list() | tuple():
            for value in part:
                _stamp_labels(value)
        case _:
            pass
