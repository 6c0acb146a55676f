"""Text to Spec: parse, compose shared recipes, check shapes. All errors of the file in one go.

An entry of the wrong shape is reported and left out ("poisoned"), so that the passes after this one
still see the rest and a user gets every error of a file at once.

E0108: a file whose content is no mapping of keys to values
Why: A spec is read by its keys, and a recipe file is laid under the keys of the recipe that uses it. A list, mostly a
dash too many, has nothing to look up, so no other check could say anything true about it.
Example:
    --- recipes/attack.yaml
    - method: lora_sft
    - train_on: every_assistant_turn
Fix:
    train: {attack: {use: recipes/attack.yaml}}   # a file of `key: value` lines

E0208: a spec in a newer version of the language than this epc reads
Why: A key that this epc does not know may change what the experiment is. Reading the rest and guessing would compile
something else than was registered.
Example:
    epc: 2
Fix:
    epc: 1
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from epc.compiler.diagnostics import Diagnostics, Span
from epc.compiler.source import Document, PathKey, parse, read_text
from epc.compiler.spec import LANGUAGE_VERSION, Spec

if TYPE_CHECKING:
    from epc.compiler.shapes import Problem

SECTIONS = (
    "data", "train", "conditions", "prompts", "generate", "sample", "judges", "results", "metrics", "analyses", "gates",
)  # fmt: skip
"""Mappings of named entries; a bad entry poisons itself only."""
LISTS: Final = ("lineage", "claims", "allow", "seeds", "verdicts")
"""Lists whose bad entries are left out one by one."""
_REFERRED: Final = (*SECTIONS, "verdicts")
"""What other parts name or are judged by, so that what was left out of it matters to them."""
_STAND_INS: Final[Mapping[str, Any]] = {
    "epc": LANGUAGE_VERSION, "id": "unnamed", "title": "unnamed", "hypothesis": {"if": "-", "then": "-"},
    "model": {"from": "path:."}, "seeds": [0, 1, 2], "reporting": {"effect_sizes": "allowed"},
    "verdicts": [{"otherwise": "INCONCLUSIVE"}], **{section: {} for section in SECTIONS},
}  # fmt: skip
"""What stands for a part that cannot be read, and gives no diagnostics of its own."""
_ROUNDS: Final = 5
"""Leaving things out shows next to nothing new, so that two or three do."""


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A spec whose shape is right except for the poisoned entries, which it lacks."""

    spec: Spec
    document: Document
    folder: Path
    """Where relative paths start."""
    poisoned: frozenset[tuple[str, str]] = frozenset()
    """(section, name) of entries that were left out."""
    composed: dict[str, str] = field(default_factory=dict)
    """Recipe name -> the file it was composed from."""
    positions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """List -> where its entries stand in the document, of lists that lack some."""

    def shown(self, path: str) -> str:
        """A path that the spec names, as diagnostics show it."""
        return (Path(self.document.file).parent / path).as_posix()

    def span(self, path: PathKey) -> Span:
        """Span of a value of the spec, or of its nearest ancestor that is written."""
        return self.document.span(_in_document(path, self.positions))

    def key_span(self, path: PathKey) -> Span:
        """Span of a key of the spec."""
        return self.document.key_span(_in_document(path, self.positions))

    def lacks(self, *sections: str) -> bool:
        """Whether anything was left out of these sections: what a check misses there may be there, misspelt."""
        return any(section in sections for section, _ in self.poisoned)

    def declares(self, section: str, name: str) -> bool:
        """Whether a section has this name, or may have it among what was left out: one mistake is reported once."""
        return name in self.declared(section) or (section, "*") in self.poisoned

    def declared(self, section: str) -> set[str]:
        """Names of a section, those of entries that were left out included."""
        return set(getattr(self.spec, section)) | {
            name for part, name in self.poisoned if part == section and name != "*"
        }


def _in_document(path: PathKey, positions: Mapping[str, tuple[int, ...]]) -> PathKey:
    """Where an entry stands in the document, when entries before it were left out of a list."""
    match path:
        case (str(section), int(index), *rest) if section in positions and index < len(positions[section]):
            return (section, positions[section][index], *rest)
        case _:
            return path


def load(path: Path, file: str, sink: Diagnostics) -> Surface | None:
    """Read and shape-check a spec. None when nothing after it could make sense."""
    text = read_text(path, file, sink)
    if text is None:
        return None
    document = parse(text, file, sink)
    if document.data is None:
        return None
    if not isinstance(document.data, dict):
        sink.error(
            "E0108",
            "a spec is a mapping of keys to values",
            document.span(()),
            help="start from a minimal spec: epc init",
        )
        return None
    version = document.data.get("epc")
    if type(version) is int and version > LANGUAGE_VERSION:
        sink.error(
            "E0208", f"language version {version} is newer than the {LANGUAGE_VERSION} this epc reads",
            document.span(("epc",)), help="upgrade epc",
        )  # fmt: skip
        return None
    composed, unread = _compose(document, path.parent, sink)
    _arms_of_analyses(document.data)
    return _validate(document, path.parent, composed, unread, sink)


def _arms_of_analyses(data: dict[str, Any]) -> None:
    """Declare the arms that analyses name, in a spec that only decides on results from elsewhere and declares none."""
    analyses = data.get("analyses")
    if "conditions" in data or data.get("model") not in (None, {"from": "none"}):
        return
    if not data.get("results") or not isinstance(analyses, dict):
        return
    written = [entry for entry in analyses.values() if isinstance(entry, dict)]
    contrasts = [entry["contrast"] for entry in written if isinstance(entry.get("contrast"), str)]
    sides = [side.strip() for contrast in contrasts for side in contrast.split(" - ")]
    sides += [entry["arm"] for entry in written if isinstance(entry.get("arm"), str)]
    data["conditions"] = {side: [] for side in sides if side}


def _compose(document: Document, folder: Path, sink: Diagnostics) -> tuple[dict[str, str], set[str]]:
    """Replace `use: file` in recipes by the file's content; keys beside it override, one by one.

    Returns recipe -> file, and the recipes that are left out because their file could not be read.
    """
    composed: dict[str, str] = {}
    unread: set[str] = set()
    recipes = document.data.get("train")
    if not isinstance(recipes, dict):
        return composed, unread
    for name, recipe in recipes.items():
        if not isinstance(recipe, dict) or "use" not in recipe:
            continue
        target = recipe.pop("use")
        shared = _shared(document, folder, target, document.span(("train", name, "use")), sink)
        if shared is None:
            unread.add(name)
            continue
        composed[name] = target
        base: PathKey = ("train", name)
        for inner, span in shared.spans.items():
            document.spans.setdefault((*base, *inner), span)
        for inner, span in shared.key_spans.items():
            document.key_spans.setdefault((*base, *inner), span)
        recipes[name] = _merge(shared.data, recipe)
    for name in unread:
        del recipes[name]
    return composed, unread


def _shared(document: Document, folder: Path, target: Any, at: Span, sink: Diagnostics) -> Document | None:
    """The recipe file that `use` names; None after an error."""
    if not isinstance(target, str):
        sink.error("E0203", "`use` takes the path of a recipe file", at, help="for example use: recipes/attack.yaml")
        return None
    file = (Path(document.file).parent / target).as_posix()
    text = read_text(folder / target, file, sink, at=at)
    if text is None:
        return None
    shared = parse(text, file, sink)
    if shared.data is not None and not isinstance(shared.data, dict):
        sink.error("E0108", "a recipe file is a mapping of keys to values", shared.span(()), help="see specs/recipes/")
    return shared if isinstance(shared.data, dict) else None


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` wins; mappings are merged key by key, anything else is replaced whole."""
    merged = dict(under)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _validate(
    document: Document, folder: Path, composed: dict[str, str], unread: set[str], sink: Diagnostics
) -> Surface | None:
    """The spec of a document; parts of the wrong shape are reported and left out."""
    poisoned = {("train", name) for name in unread}
    left = _LeftOut(data=document.data, poisoned=poisoned)
    model: type[Spec] = Spec
    for _ in range(_ROUNDS):
        try:
            spec = model.model_validate(left.data)
        except ValidationError as error:
            from epc.compiler.shapes import Partial, problems, report  # of use only here, where something is wrong

            found = problems(error, left.data)
        else:
            positions = {section: tuple(kept) for section, kept in left.kept.items()}
            return Surface(
                spec=spec, document=document, folder=folder, poisoned=frozenset(left.poisoned), composed=composed,
                positions=positions,
            )  # fmt: skip
        if model is Spec:
            model = Partial
            left = _LeftOut(data=deepcopy(document.data), poisoned=poisoned)
        for problem in found:
            path = _in_document(problem.path, {section: tuple(kept) for section, kept in left.kept.items()})
            report(document, problem, path, sink)
        for problem in found:
            left.leave_out(problem)
        left.close_gaps()
    return None


@dataclass(kw_only=True)
class _LeftOut:
    """The data of a spec without what is wrong with them."""

    data: dict[str, Any]
    poisoned: set[tuple[str, str]] = field(default_factory=set)
    kept: dict[str, list[int]] = field(default_factory=dict)
    """List -> where its entries stand in the document; of lists that lack some."""
    _gone: set[tuple[str, int]] = field(default_factory=set)

    def leave_out(self, problem: Problem) -> None:
        """Take out the smallest part that the rest does not need."""
        match problem.path:
            case (str(key),) if problem.unknown:
                self.data.pop(key, None)
                if problem.meant is not None and problem.meant in _STAND_INS:
                    self._replace(problem.meant)
            case ("judges", _, _) if problem.foreign:
                self._trim(problem.path)
            case (str(section), str(name), *_) if section in (*SECTIONS, "rationale") and section in self.data:
                self.data[section].pop(name, None)
                if section in _REFERRED:
                    self.poisoned.add((section, name))
            case (str(section), int(index), *_) if section in LISTS:
                self._gone.add((section, index))
            case (str(key), *_):
                for each in (key, *(problem.also if len(problem.path) == 1 else ())):
                    self._replace(each)
            case _:
                pass

    def close_gaps(self) -> None:
        """Take the entries of lists out that were left out."""
        for section, index in sorted(self._gone, reverse=True):
            entries = self.data[section]
            kept = self.kept.setdefault(section, list(range(len(entries))))
            if section in _REFERRED:
                self.poisoned.add((section, str(kept[index])))
            del entries[index], kept[index]
            if not entries:
                self._replace(section)
        self._gone.clear()

    def _replace(self, key: str) -> None:
        self.kept.pop(key, None)
        if key in _STAND_INS:
            self.data[key] = deepcopy(_STAND_INS[key])
            self.poisoned.add((key, "*"))
        else:
            self.data.pop(key, None)

    def _trim(self, path: PathKey) -> None:
        node: Any = self.data
        for part in path[:-1]:
            if isinstance(node, dict) and part not in node:
                return  # what it is in was left out for another reason
            node = node[part]
        node.pop(path[-1], None)
