"""What a field of a judge's reply may hold: `bool`, or an integer range such as `0..100`."""

from __future__ import annotations

import re

_RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})")


def ends(kind: str) -> tuple[int, int] | None:
    """Ends of a range as written, None for `bool`. Raises ValueError for anything else."""
    if kind == "bool":
        return None
    match = _RANGE.fullmatch(kind)
    if match is None:
        raise ValueError(f"{kind} is neither bool nor a range such as 0..100")
    return int(match[1]), int(match[2])
