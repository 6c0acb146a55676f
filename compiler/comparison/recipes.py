"""Training recipes compared: what follows by arithmetic is told apart from what was changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from epc.compiler.comparison.collector import Collector, both
from epc.compiler.comparison.content import entry, phases
from epc.compiler.comparison.pairs import Pair
from epc.compiler.comparison.rules import Path
from epc.compiler.comparison.values import ABSENT, arrow


def recipe(collector: Collector, names: Pair, old: Mapping[str, Any], new: Mapping[str, Any], **more: Any) -> None:
    """A recipe. Its number of steps follows from what it says and from its rows."""
    name = names[1]
    derived = ["optimizer_steps"]
    if old.get("warmup_ratio") is not None or new.get("warmup_ratio") is not None:
        derived.append("warmup_steps")
    for key in both(old, new):
        before, after = old.get(key), new.get(key)
        path: Path = ("train", name, key)
        if key == "lora":
            _lora(collector, path, before, after, **more)
        elif key in derived:
            if before is not None and after is not None and before != after:
                cause = _cause(collector, names, old, new, key)
                collector.add(
                    ("train", name, "optimizer_steps"), arrow(before, after), path=f"train.{name}.{key}", follows=cause,
                    status="PASS" if cause else None, **more,
                )  # fmt: skip
        elif key == "on_top" and not _continues(collector, names):
            if key in old and key in new and before != after:
                collector.words(path, arrow(before, after))
        else:
            collector.field(path, old, new, **more)


def _lora(collector: Collector, path: Path, before: Any, after: Any, **more: Any) -> None:
    if not (isinstance(before, dict) and isinstance(after, dict)):
        if before != after:
            collector.unknown((*path, "r"), "one side does not say", path=".".join(map(str, path)), **more)
        return
    for part in both(before, after):
        one, other = before.get(part, ABSENT), after.get(part, ABSENT)
        if ABSENT in (one, other):
            collector.unknown((*path, part), "one side does not say", **more)
        elif part == "target_modules" and isinstance(one, list) and isinstance(other, list):
            if sorted(map(str, one)) != sorted(map(str, other)):
                collector.add((*path, part), arrow(one, other), **more)
        else:
            collector.value((*path, part), one, other, **more)


def _continues(collector: Collector, names: Pair) -> bool:
    """Whether a phase comes after another in some arm of either side; of a first phase `on_top` says nothing."""
    return any(
        name in phases(side, condition)[1:]
        for side, name in zip((collector.old, collector.new), names, strict=True)
        for condition in side.section("conditions")
    )


def _cause(collector: Collector, names: Pair, old: Mapping[str, Any], new: Mapping[str, Any], key: str) -> str:
    """Path of what changed the number of steps, empty when nothing else did."""
    for name in ("epochs", "batch", "accumulation", *(["warmup_ratio"] if key == "warmup_steps" else [])):
        if old.get(name) != new.get(name):
            return f"train.{names[1]}.{name}"
    before = entry(collector.old, "data", old.get("data")).get("rows")
    after = entry(collector.new, "data", new.get("data")).get("rows")
    return f"data.{new.get('data')}.rows" if before != after else ""
