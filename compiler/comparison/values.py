"""Values of a lock as a line shows them."""

from __future__ import annotations

import json
from typing import Any, Final

SHOWN: Final = 90
"""Characters of a value that a line shows."""
LEAD: Final = 20
"""Characters before the first difference of two long values."""


class Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = Absent()
"""Where a value was added or removed."""


def spaced(value: Any) -> Any:
    """A text without the spaces and line breaks that say nothing."""
    return " ".join(value.split()) if isinstance(value, str) else value


def equal(one: Any, other: Any) -> bool:
    """Equal as JSON: 1 is 1.0 and not true; nothing stated is null."""
    if isinstance(one, Absent) or isinstance(other, Absent):
        return one is other or (None in (one, other)) or one in ([], {}, "") or other in ([], {}, "")
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def arrow(before: Any, after: Any) -> str:
    """`1e-05 -> 0.0001` on one line; of two long values the part from where they differ."""
    if isinstance(before, Absent):
        return f"added {_flat(after)}"
    if isinstance(after, Absent):
        return f"removed (was {_flat(before)})"
    old, new = _flat(before), _flat(after)
    if len(old) + len(new) > 2 * SHOWN:
        start = next((at for at, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), 0)
        start = max(0, start - LEAD)
        old, new = (("..." if start else "") + text[start:] for text in (old, new))
    return f"{_cut(old)} -> {_cut(new)}"


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


def _flat(value: Any) -> str:
    match value:
        case str():
            return " ".join(value.split()) or '""'
        case list():
            return listed(value)
        case _:
            return json.dumps(value, ensure_ascii=False, default=str)


def listed(values: list[Any]) -> str:
    return "[" + ", ".join(_flat(value) for value in values) + "]"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
