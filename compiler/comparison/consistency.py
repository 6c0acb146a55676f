"""May the numbers of two experiments be compared, and is one thing different between them?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from epc.compiler.comparison.collector import Difference
from epc.compiler.comparison.content import condition_content, content_differences, phases
from epc.compiler.comparison.differences import differences
from epc.compiler.comparison.registration import Registration
from epc.compiler.comparison.rules import GROUPS, INTERVENTION, Group, Status

TITLES: Final[dict[Group, str]] = {
    "model": "model", "data": "data", "training": "training regime", "loss_mask": "loss mask", "steps": "steps",
    "capacity": "capacity", "seeds": "seeds", "evaluation": "evaluation", "judges": "judges", "statistics": "statistics",
    "thresholds": "thresholds", "arms": "arms",
}  # fmt: skip
_ORDER: Final[dict[Status, int]] = {"PASS": 0, "WARN": 1, "BLOCK": 2}
_NUMBERS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven")


@dataclass(frozen=True, kw_only=True)
class GroupResult:
    group: Group
    status: Status
    reason: str
    differences: tuple[Difference, ...]

    @property
    def is_unknown(self) -> bool:
        """Whether nothing of it is known to differ that was not meant to, and something is not known."""
        return self.status == "WARN" and bool(self.decisive) and all(d.kind == "unknown" for d in self.decisive)

    @property
    def decisive(self) -> tuple[Difference, ...]:
        """The differences of its own that give it its status; none where it follows from another group."""
        return tuple(d for d in self.differences if d.rule.status == self.status and not d.follows)

    @property
    def title(self) -> str:
        return TITLES[self.group]


@dataclass(frozen=True, kw_only=True)
class Consistency:
    """Two registrations held against each other."""

    before: str
    after: str
    groups: tuple[GroupResult, ...]
    """Every group, in order, those that are equal included."""
    words: tuple[Difference, ...]
    """What reaches no step and no verdict."""
    unplaced: tuple[str, ...]
    """Paths that differ and that this version of the language does not know."""
    variables: tuple[Group, ...]
    """Groups of the intervention in which arms of the same name differ."""
    shared: tuple[str, ...]
    """Conditions that both have."""
    added: tuple[str, ...]
    removed: tuple[str, ...]
    other_content: tuple[str, ...]
    """Conditions of the same name that are not the same arm."""

    def group(self, name: Group) -> GroupResult:
        return next(result for result in self.groups if result.group == name)

    @property
    def blocked(self) -> tuple[GroupResult, ...]:
        return tuple(result for result in self.groups if result.status == "BLOCK")

    @property
    def warned(self) -> tuple[GroupResult, ...]:
        return tuple(result for result in self.groups if result.status == "WARN")

    @property
    def one_variable(self) -> str:
        """The answer to "is it one variable?": `one variable: data`, or `three at once: data, steps, capacity`."""
        titles = [TITLES[group] for group in self.variables]
        if not self.shared:
            return "there is no arm of the same name"
        if not titles:
            return "nothing is known to differ in the arms of the same name"
        if len(titles) == 1:
            return f"one variable: {titles[0]}"
        return f"{_NUMBERS[len(titles)]} at once: {', '.join(titles)}"


def compare(old: Registration, new: Registration, *, varies: Collection[str] = ()) -> Consistency:
    """Hold a registration against an earlier one. `varies` names the groups that are meant to differ."""
    found = differences(old, new)
    placed: dict[Group, list[Difference]] = {group: [] for group in GROUPS}
    words: list[Difference] = []
    for difference in found.found:
        place = difference.rule.place
        if place == "words":
            words.append(difference)
        else:
            placed[place].append(difference)
    variables = tuple(
        group
        for group in INTERVENTION
        if any(d.shared and d.kind != "unknown" and not d.follows for d in placed[group])
    )
    before, after = list(old.section("conditions")), list(new.section("conditions"))
    shared = found.pairs.conditions
    groups = tuple(
        _seeds(old, new, placed[group], varies, bool(variables))
        if group == "seeds"
        else _result(group, placed[group], varies)
        for group in GROUPS
    )
    return Consistency(
        before=old.name, after=new.name, groups=groups, words=tuple(words), unplaced=found.unplaced, variables=variables,
        shared=shared, added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        other_content=tuple(name for name in shared if _is_other(old, new, name)),
    )  # fmt: skip


def _result(group: Group, found: Sequence[Difference], varies: Collection[str]) -> GroupResult:
    if not found:
        return GroupResult(group=group, status="PASS", reason="the same", differences=())
    found = sorted(found, key=lambda difference: difference.kind == "unknown")
    worst = max(found, key=lambda difference: _ORDER[difference.rule.status])
    own = [difference for difference in found if not difference.follows]
    if not own and worst.rule.status == "PASS":
        causes = ", ".join(dict.fromkeys(difference.follows for difference in found))
        return GroupResult(
            group=group, status="PASS", reason=f"nothing of its own: it follows from {causes}", differences=tuple(found)
        )
    if group in varies:
        return GroupResult(group=group, status="PASS", reason="differs, as it is meant to", differences=tuple(found))
    status = worst.rule.status
    reasons = dict.fromkeys(d.rule.reason for d in found if d.rule.status == status and d.rule.reason)
    return GroupResult(group=group, status=status, reason="; ".join(reasons), differences=tuple(found))


def _seeds(
    old: Registration, new: Registration, found: Sequence[Difference], varies: Collection[str], trained_otherwise: bool
) -> GroupResult:
    """A single seed is a caveat where arms were trained otherwise: its noise is then part of every difference."""
    result = _result("seeds", found, varies)
    single = [side.name for side in (old, new) if "seeds" not in side.unstated and len(side.design["seeds"]) == 1]
    trained = any(phases(new, name) for name in new.section("conditions"))
    if not (single and trained and trained_otherwise) or "seeds" in varies:
        return result
    side = "both sides" if len(single) == 2 else "one side"
    caveat = f"one training seed on {side}: a difference between the two may be seed noise"
    reason = caveat if result.status == "PASS" else f"{result.reason}; {caveat}"
    return GroupResult(group="seeds", status="WARN", reason=reason, differences=result.differences)


def _is_other(old: Registration, new: Registration, name: str) -> bool:
    """By content key where both locks have one, else by what the arm is made of."""
    keys = [side.section("conditions")[name].get("key") for side in (old, new)]
    if all(isinstance(key, str) for key in keys):
        return keys[0] != keys[1]
    return bool(content_differences(condition_content(old, name), condition_content(new, name)))
