"""Collecting differences: one value, one reference, one text of two registrations, under the rule of its path."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from epc.compiler.comparison.pairs import pair
from epc.compiler.comparison.registration import Registration, is_stated_always
from epc.compiler.comparison.rules import Path, Rule, Status, dotted, rule_of
from epc.compiler.comparison.values import ABSENT, Absent, arrow, counted, equal, spaced

Kind = Literal["changed", "added", "removed", "unknown"]
FILES: Final = ("rubric", "contains_any", "lm_eval")
"""Fields that name a text whose hash `files` has."""
_REFERENCES: Final = {
    ("train", "data"): "data", ("data", "prompts"): "prompts", ("generate", "prompts"): "prompts",
    ("sample", "prompts"): "prompts", ("metrics", "of"): "sample", ("metrics", "judge"): "judges",
    ("analyses", "metric"): "metrics", ("analyses", "on"): "prompts",
}  # fmt: skip
"""Field -> section whose entries it names: those are compared, and their names are words."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    path: str
    """On the new side, or on the old one where the new one has nothing: `train.attack.learning_rate`."""
    rule: Rule
    kind: Kind = "changed"
    text: str
    """One line: `1e-05 -> 1e-04`, a sentence on a gate, a hash with the lines added and removed."""
    shared: bool = True
    """Whether something of the same name on both sides rests on it."""
    follows: str = ""
    """Path of the difference from which this one follows by arithmetic; empty for one of its own."""

    @property
    def line(self) -> str:
        """As it is shown under its group."""
        is_sentence = self.kind != "unknown" and self.path.startswith(("gates.", "verdicts"))
        said = self.text if is_sentence else f"{self.path}: {self.text}"
        return said + (f", which follows from {self.follows}" if self.follows else "")


class Collector:
    """Differences of two registrations as they are found."""

    def __init__(self, old: Registration, new: Registration) -> None:
        self.old, self.new = old, new
        self.pairs = pair(old, new)
        self.found: list[Difference] = []
        self.unplaced: list[str] = []
        """Paths that differ and that the language does not know: a lock of another version."""

    def add(
        self, where: Path, text: str, *, path: str = "", kind: Kind = "changed", shared: bool = True,
        follows: str = "", status: Status | None = None, reason: str = "", of_data: bool = False, was: str = "",
    ) -> None:  # fmt: skip
        rule = rule_of(where, of_data=of_data)
        if rule is None:
            self.unplaced.append(path or dotted(where))
            return
        if status is not None or reason:
            rule = replace(rule, status=status or rule.status, reason=reason or rule.reason)
        self.found.append(
            Difference(
                path=(path or dotted(where)) + was, rule=rule, kind=kind, text=text, shared=shared, follows=follows
            )
        )

    def unknown(self, where: Path, text: str, **more: Any) -> None:
        self.add(
            where,
            text,
            kind="unknown",
            **{**more, "status": "WARN", "reason": "what cannot be compared yet may differ"},
        )

    def words(self, path: Path, text: str) -> None:
        rule = Rule(place="words")
        self.found.append(Difference(path=dotted(path), rule=rule, text=text))

    def value(self, path: Path, old: Any, new: Any, **more: Any) -> None:
        """Mappings and lists of one length part by part, anything else as a whole."""
        if isinstance(old, dict) and isinstance(new, dict):
            for key in both(old, new):
                self.value((*path, key), old.get(key, ABSENT), new.get(key, ABSENT), **more)
        elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
            for index, (one, other) in enumerate(zip(old, new, strict=True)):
                self.value((*path, index), one, other, **more)
        elif not equal(old, new):
            self.add(path, arrow(old, new), **more)

    def field(self, path: Path, old: Mapping[str, Any], new: Mapping[str, Any], **more: Any) -> None:
        """One field of an entry: a reference is left to the pair it names, a file is compared by its hash."""
        section, _, key = map(str, path)
        before, after = old.get(key, ABSENT), new.get(key, ABSENT)
        if self.is_held(section, key, before, after):
            if before != after:
                self.words(path, arrow(before, after))
        elif isinstance(before, Absent) or isinstance(after, Absent):
            if is_stated_always(section, old if isinstance(before, Absent) else new, key):
                self.unknown(path, "one side does not say", **more)
            elif not equal(before, after):
                self.add(path, arrow(before, after), **more)
        elif key in FILES and isinstance(before, str) and isinstance(after, str):
            self.file(path, before, after, **more)
        elif key == "function" and isinstance(before, str) and isinstance(after, str):
            (old_file, _, old_name), (new_file, _, new_name) = before.rpartition(":"), after.rpartition(":")
            self.value(path, old_name, new_name, **more)
            self.file(path, old_file, new_file, **more)
        elif key == "fill" and isinstance(before, dict) and isinstance(after, dict):
            for name in both(before, after):
                self.filling((*path, name), before.get(name, ABSENT), after.get(name, ABSENT), **more)
        elif key in ("contrast", "score", "keep"):
            self.value(path, spaced(before), spaced(after), **more)
        elif key in ("target_modules", "disjoint_from") and isinstance(before, list) and isinstance(after, list):
            self.value(path, sorted(map(str, before)), sorted(map(str, after)), **more)
        else:
            self.value(path, before, after, **more)

    def is_held(self, section: str, key: str, before: Any, after: Any) -> bool:
        """Whether a field is a reference, and what it names on both sides is compared as a pair."""
        target = _REFERENCES.get((section, key))
        lists = [value if isinstance(value, list) else [value] for value in (before, after)]
        if target is None or len(lists[0]) != len(lists[1]):
            return False
        return all(
            isinstance(one, str) and isinstance(other, str) and (one, other) in self.pairs.of(target)
            for one, other in zip(*lists, strict=True)
        )

    def filling(self, path: Path, before: Any, after: Any, **more: Any) -> None:
        """What fills a placeholder: a file, or generated text, whose entry is compared as a pair."""
        if isinstance(before, str) and isinstance(after, str):
            self.file(path, before, after, **more)
        elif isinstance(before, dict) and isinstance(after, dict):
            names = before.get("generate"), after.get("generate")
            for key in both(before, after):
                if key != "generate" or names not in self.pairs.of("generate"):
                    self.value((*path, key), before.get(key, ABSENT), after.get(key, ABSENT), **more)
        else:
            self.value(path, before, after, **more)

    def file(self, path: Path, before: str, after: str, **more: Any) -> None:
        """A text by its hash; by its path where a side does not have the hash."""
        old, new = self.old.sha256(before), self.new.sha256(after)
        if old is None or new is None:
            if before != after:
                self.add(path, f"{arrow(before, after)}, and the hash of one is not known", **more)
            elif old != new:
                self.unknown(path, f"{after}: one side does not say its hash", **more)
        elif old != new:
            place = after if before == after else f"{before} -> {after}"
            self.add(path, f"{place} {self.hashes(old, new)}", **more)

    def hashes(self, old: object, new: object) -> str:
        """`12345678 -> 9abcdef0 (1 line added, 2 removed)`; the lines only where both texts are at hand."""
        text = f"{str(old)[:12]} -> {str(new)[:12]}"
        before, after = self.old.texts.get(str(old)), self.new.texts.get(str(new))
        if before is None or after is None:
            return text
        matcher = difflib.SequenceMatcher(a=before.splitlines(), b=after.splitlines(), autojunk=False)
        codes = [code for code in matcher.get_opcodes() if code[0] != "equal"]
        added, removed = sum(code[4] - code[3] for code in codes), sum(code[2] - code[1] for code in codes)
        return f"{text} ({counted(added, 'line')} added, {removed} removed)"


def both(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Keys of two mappings: those of the new one, then those that only the old one has."""
    return [*new, *(key for key in old if key not in new)]
