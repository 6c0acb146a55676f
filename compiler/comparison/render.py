"""The comparison as a person reads it, and as JSON."""

from __future__ import annotations

from typing import Any

from epc.compiler.comparison.collector import Difference
from epc.compiler.comparison.consistency import TITLES, Consistency

MAX_LINES = 40
"""Differences of one group that are shown."""


def as_text(found: Consistency) -> str:
    """One line a group, its differences under it; then the arms, the answer on one variable, and the words."""
    width = max(map(len, TITLES.values()))
    out = [f"{found.before} -> {found.after}", ""]
    for result in found.groups:
        out.append(f"{result.status:<5}  {result.title:<{width}}  {result.reason}")
        out += [f"         {difference.line}" for difference in result.differences[:MAX_LINES]]
        if len(result.differences) > MAX_LINES:
            out.append(f"         and {len(result.differences) - MAX_LINES} more")
    out += ["", f"arms of the same name: {_names(found.shared)}"]
    if found.other_content:
        out.append(f"of these, not the same arm: {_names(found.other_content)}")
    out += [f"{word}: {_names(names)}" for word, names in (("added", found.added), ("removed", found.removed)) if names]
    out.append(f"is it one variable? {found.one_variable}")
    if found.words:
        paths = list(dict.fromkeys(_short(difference) for difference in found.words))
        out.append(f"words only, which reach no step and no verdict: {_names(paths, 12)}")
    if found.unplaced:
        out.append(f"differs, and is not known to this version of the language: {_names(found.unplaced, 12)}")
    blocked, warned = (", ".join(result.title for result in part) for part in (found.blocked, found.warned))
    out += ["", _conclusion(blocked, warned)]
    return "\n".join(out)


def _conclusion(blocked: str, warned: str) -> str:
    if blocked:
        return f"BLOCK: numbers of the two are not comparable ({blocked})"
    if warned:
        return f"comparable with care ({warned})"
    return "comparable"


def _short(difference: Difference) -> str:
    """The first two parts of a path: which word was changed, not every place in it."""
    return ".".join(difference.path.split(".")[:2])


def _names(names: Any, at_most: int = 20) -> str:
    listed = list(names)
    if not listed:
        return "none"
    more = f" and {len(listed) - at_most} more" if len(listed) > at_most else ""
    return ", ".join(listed[:at_most]) + more


def as_data(found: Consistency) -> dict[str, Any]:
    """For JSON: the same, every difference included."""
    return {
        "before": found.before,
        "after": found.after,
        "status": "BLOCK" if found.blocked else "WARN" if found.warned else "PASS",
        "groups": [
            {
                "group": result.group, "status": result.status, "reason": result.reason,
                "differences": [_difference(difference) for difference in result.differences],
            }
            for result in found.groups
        ],
        "one_variable": found.one_variable,
        "variables": list(found.variables),
        "arms": {
            "shared": list(found.shared), "other_content": list(found.other_content), "added": list(found.added),
            "removed": list(found.removed),
        },
        "words": [_difference(difference) for difference in found.words],
        "unplaced": list(found.unplaced),
    }  # fmt: skip


def _difference(difference: Difference) -> dict[str, Any]:
    return {
        "path": difference.path, "kind": difference.kind, "status": difference.rule.status, "text": difference.text,
        "follows": difference.follows or None,
    }  # fmt: skip
