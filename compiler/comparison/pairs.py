"""Which entry of one registration is held against which of the other.

Entries of the same name are. Beyond names, what conditions of the same name train in the same place, and what these
read, are: a phase that is called otherwise is still the phase that the arm was trained with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from epc.compiler.comparison.content import entry, phases
from epc.compiler.comparison.registration import Registration

Pair = tuple[str, str]
"""(name before, name after)."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    conditions: tuple[str, ...]
    """Names that both have."""
    by_section: dict[str, dict[Pair, bool]]
    """Section -> pair -> whether an arm of the same name, or an evaluation, rests on it."""
    evaluated: frozenset[Pair]
    """Pairs of prompt sets that are sampled from or analysed, rather than trained on."""

    def of(self, section: str) -> dict[Pair, bool]:
        return self.by_section[section]


def pair(old: Registration, new: Registration) -> Pairs:
    """Pairs of all sections but gates and verdicts, which are compared by name."""
    found: dict[str, dict[Pair, bool]] = {
        section: {(name, name): False for name in new.section(section) if name in old.section(section)}
        for section in ("train", "data", "generate", "prompts", "sample", "judges", "metrics", "analyses")
    }
    shared = tuple(name for name in new.section("conditions") if name in old.section("conditions"))

    def hold(section: str, before: Any, after: Any, rests: bool) -> None:
        if (
            isinstance(before, str)
            and isinstance(after, str)
            and before in old.section(section)
            and after in new.section(section)
        ):
            pairs = found[section]
            pairs[before, after] = pairs.get((before, after), False) or rests

    def hold_lists(section: str, before: Any, after: Any, rests: bool) -> None:
        if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
            for one, other in zip(before, after, strict=True):
                hold(section, one, other, rests)

    def entries(section: str) -> Iterator[tuple[Any, Any, bool]]:
        for (before, after), rests in list(found[section].items()):
            yield entry(old, section, before), entry(new, section, after), rests

    for name in shared:
        hold_lists("train", phases(old, name), phases(new, name), True)
    for before, after, rests in entries("train"):
        hold("data", before.get("data"), after.get("data"), rests)
    for before, after, rests in entries("data"):
        hold_lists("prompts", before.get("prompts"), after.get("prompts"), rests)
        for key, one, other in _fillings(before, after):
            hold("generate", one, other, rests and bool(key))
    for before, after, rests in entries("generate"):
        hold_lists("prompts", before.get("prompts"), after.get("prompts"), rests)
    for section in ("analyses", "metrics", "sample", "judges"):
        found[section] = dict.fromkeys(found[section], True)

    def hold_alike(section: str, before: Any, after: Any) -> None:
        """Another name is another entry, unless it says the same."""
        if _bare(old, section, before) == _bare(new, section, after):
            hold(section, before, after, True)

    for before, after, _ in entries("analyses"):
        hold_alike("metrics", before.get("metric"), after.get("metric"))
    for before, after, _ in entries("metrics"):
        hold_alike("sample", before.get("of"), after.get("of"))
        hold_alike("judges", before.get("judge"), after.get("judge"))
    evaluated: set[Pair] = set()
    for section, key in (("sample", "prompts"), ("analyses", "on")):
        for before, after, _ in entries(section):
            hold("prompts", before.get(key), after.get(key), True)
            evaluated.add((str(before.get(key)), str(after.get(key))))
    return Pairs(conditions=shared, by_section=found, evaluated=frozenset(evaluated))


def _bare(side: Registration, section: str, name: Any) -> dict[str, Any]:
    """An entry without words and without the names of other entries; files by their hash."""
    left_out = ("describe", "noise", "price", "of", "judge", "prompts", "fill")
    return {
        key: side.sha256(value) or value for key, value in entry(side, section, name).items() if key not in left_out
    }


def _fillings(before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    """(placeholder, generate entry before, after) of fillings that are generated on both sides."""
    old, new = before.get("fill"), after.get("fill")
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in new.items():
            if isinstance(value, dict) and isinstance(old.get(key), dict):
                yield key, old[key].get("generate"), value.get("generate")
