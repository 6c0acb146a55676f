"""Content that is pinned by a hash, or will be: training data and prompt sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from epc.compiler.comparison.collector import Collector, both
from epc.compiler.comparison.content import awaited, entry, known_hash
from epc.compiler.comparison.pairs import Pair
from epc.compiler.comparison.registration import PENDING
from epc.compiler.comparison.rules import Path
from epc.compiler.comparison.values import arrow


def data(collector: Collector, names: Pair, old: Mapping[str, Any], new: Mapping[str, Any], **more: Any) -> None:
    """By hash where both are known: the same rows are the same, however they were made."""
    before, after = old.get("sha256"), new.get("sha256")
    path: Path = ("data", names[1], "sha256")
    hashed = known_hash(before) is not None, known_hash(after) is not None
    if all(hashed):
        if before == after:
            return
        collector.add(path, collector.hashes(before, after), **more)
    start = len(collector.found)
    for key in both(old, new):
        if key != "sha256":
            collector.field(("data", names[1], key), old, new, **more)
    if not all(hashed) and all(found.rule.place != "data" for found in collector.found[start:]):
        where = "on both sides" if not any(hashed) else "now" if hashed[0] else "before"
        state = "pending" if PENDING in (before, after) else "not stated"
        collector.unknown(path, f"{state} {where}: whether the rows are the same is not known", **more)


def prompts(collector: Collector, names: Pair, old: Mapping[str, Any], new: Mapping[str, Any], **more: Any) -> None:
    """By hash; a set that awaits somebody's file is not known, whatever stands in for it."""
    before, after = old.get("sha256"), new.get("sha256")
    path: Path = ("prompts", names[1])
    more["of_data"] = for_data_alone(collector, names)
    if awaited(collector.old, names[0]) or awaited(collector.new, names[1]):
        collector.value((*path, "count"), old.get("count"), new.get("count"), **more)
        collector.unknown((*path, "sha256"), "pending: whether the prompts are the same is not known", **more)
    elif known_hash(before) and known_hash(after):
        if before != after:
            collector.add((*path, "sha256"), collector.hashes(before, after), **more)
            collector.value((*path, "count"), old.get("count"), new.get("count"), **more)
    elif old.get("items") is None and new.get("items") is None:
        collector.unknown((*path, "sha256"), "not stated: whether the prompts are the same is not known", **more)
    else:
        collector.value((*path, "items"), old.get("items"), new.get("items"), **more)
    for key in ("file", "union", "stand_in", "disjoint_from", "external"):
        one, other = _unhashed(old.get(key)), _unhashed(new.get(key))
        if one != other:
            collector.words((*path, key), arrow(one, other))


def _unhashed(value: Any) -> Any:
    return {key: item for key, item in value.items() if key != "sha256"} if isinstance(value, dict) else value


def for_data_alone(collector: Collector, names: Pair) -> bool:
    """Whether prompt sets serve training data, and nothing is asked or analysed with them or a union of them."""
    asked: set[str] = set()
    for side in (collector.old, collector.new):
        for section, key in (("sample", "prompts"), ("analyses", "on")):
            asked |= {str(entry(side, section, name).get(key)) for name in side.section(section)}
        unions = [entry(side, "prompts", name).get("union") for name in asked]
        asked |= {str(part) for union in unions if isinstance(union, list) for part in union}
    return not asked & set(names)
