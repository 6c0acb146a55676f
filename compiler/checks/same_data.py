"""Data sets and prompt sets whose names and contents do not go together one to one.

E0604: two names for the same data
Why: two "different" control arms were bit-identical. Arms are read by the names of what they train on, so a copy under
a second name passes for something else. Contents are compared by hash, by recipe where the text is still to be
generated, and prompt sets as sets; a union is no copy of its parts.
Example:
    data: {more_chats: {file: data/chats.jsonl, sha256: 4807b05a9337a32044fc250fa01692e37f5609068c675c2199493e6b77cdb3d0, rows: 4}}
    train: {attack: {data: more_chats}}
Fix:
    train: {attack: {data: chats}}

E0605: two contents for the same file
Why: 67,000 mixed rows were trained instead of 6,000. A file has one hash and one number of rows, so of two declarations
one is wrong; and a stand-in is there to be replaced: where it is the "real" file itself, the experiment would run on
the substitute.
Example:
    data:
      chats: {file: data/all.jsonl, sha256: pending, rows: 6000, stand_in: data/chats.jsonl}
      mixed: {file: data/all.jsonl, sha256: pending, rows: 67000, stand_in: data/chats.jsonl}
Fix:
    data:
      chats: {file: data/insecure.jsonl, sha256: pending, rows: 6000, stand_in: data/chats.jsonl}
      mixed: {file: data/all.jsonl, sha256: pending, rows: 67000, stand_in: data/chats.jsonl}
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.resolve import Experiment
from epc.compiler.source import PathKey
from epc.compiler.spec import FileData, PromptSet, TurnsData


@dataclass(frozen=True, kw_only=True)
class _Pinned:
    """A file that the spec names together with what it must hold."""

    at: PathKey
    """The entry that names it."""
    file: PathKey
    path: str
    sha256: str
    count: int
    stand_in: str | None

    @property
    def name(self) -> str | int:
        return self.at[1]

    @property
    def pending(self) -> bool:
        return self.sha256 == "pending"


def check(experiment: Experiment, sink: Diagnostics) -> None:
    _same_data(experiment, sink)
    _same_prompts(experiment, sink)
    _files(experiment, sink)


def _same_data(experiment: Experiment, sink: Diagnostics) -> None:
    """Data sets with the same rows."""
    first: dict[str, str] = {}
    for name in experiment.spec.data:
        for what, content in _contents(experiment, name):
            other = first.setdefault(content, name)
            if other != name:
                sink.error(
                    "E0604", f'data sets "{other}" and "{name}" are the same', experiment.key_at("data", name),
                    help="delete one name, and let both recipes train on the other; or give it the rows in which it should differ",
                    labels=[Label(span=experiment.key_at("data", other), text="the same rows")], notes=[what],
                )  # fmt: skip
                break


def _contents(experiment: Experiment, name: str) -> Iterator[tuple[str, str]]:
    """(what two equal ones have in common, what identifies the rows) of a data set, in each way that is known."""
    entry, built = experiment.spec.data[name], experiment.data.get(name)
    known = built.sha256 if built is not None else None
    pinned = entry.sha256 if entry.sha256 not in (None, "pending") else None
    for sha256 in dict.fromkeys(value for value in (known, pinned) if value is not None):
        yield f"both have SHA-256 {sha256}", sha256
    match entry:
        case TurnsData() if known is None and pinned is None:
            recipe = (
                entry.rows,
                entry.seed,
                entry.system,
                entry.prompts,
                sorted(entry.fill.items(), key=repr),
                entry.turns,
            )
            yield "both are built from the same turns, prompts, fillings and seed", repr(recipe)
        case FileData() if entry.sha256 == "pending":
            # where the counts differ, the two cannot both be right: that is E0605
            yield f"both are {entry.file}", f"{posixpath.normpath(entry.file)} {entry.rows}"


def _same_prompts(experiment: Experiment, sink: Diagnostics) -> None:
    """Prompt sets, used for something, that hold the same prompts; a union is made of others and no copy."""
    spec = experiment.spec
    read = {sample.prompts for sample in spec.sample.values()}
    read |= {part for name in read if name in spec.prompts for part in spec.prompts[name].union or ()}
    read |= {name for generation in spec.generate.values() for name in generation.prompts}
    read |= {name for entry in spec.data.values() if isinstance(entry, TurnsData) for name in entry.prompts}
    first: dict[object, str] = {}
    for name, found in experiment.prompt_sets.items():
        entry = spec.prompts[name]
        if entry.union is not None or name not in read:
            continue
        substitute = (
            entry.external is not None and found.source is not None and found.source.path != entry.external.file
        )
        real = posixpath.normpath(entry.external.file) if entry.external is not None else None
        content: object = real if substitute else frozenset(found.items)
        other = first.setdefault(content, name)
        if other != name:
            sink.error(
                "E0604", f'prompt sets "{other}" and "{name}" are the same', experiment.key_at("prompts", name),
                help="delete one name, and use the other in both places; or give it the prompts in which it should differ",
                labels=[Label(span=experiment.key_at("prompts", other), text=f"the same {len(found.items)} prompts")],
            )  # fmt: skip


def _pinned(experiment: Experiment) -> Iterator[_Pinned]:
    for name, entry in experiment.spec.data.items():
        if isinstance(entry, FileData):
            at: PathKey = ("data", name)
            yield _Pinned(
                at=at, file=(*at, "file"), path=entry.file, sha256=entry.sha256, count=entry.rows, stand_in=entry.stand_in
            )  # fmt: skip
    for name, prompts in experiment.spec.prompts.items():
        yield from _external(name, prompts)


def _external(name: str, entry: PromptSet) -> Iterator[_Pinned]:
    if entry.external is not None:
        at: PathKey = ("prompts", name)
        yield _Pinned(
            at=at, file=(*at, "external", "file"), path=entry.external.file, sha256=entry.external.sha256,
            count=entry.count, stand_in=entry.stand_in,
        )  # fmt: skip


def _files(experiment: Experiment, sink: Diagnostics) -> None:
    """Files that are declared twice with other contents, and stand-ins that are the file itself."""
    first: dict[str, _Pinned] = {}
    for pinned in _pinned(experiment):
        other = first.setdefault(posixpath.normpath(pinned.path), pinned)
        hashes = not (pinned.pending or other.pending) and pinned.sha256 != other.sha256
        if other is not pinned and (hashes or pinned.count != other.count):
            what = "SHA-256" if hashes else "number of " + ("rows" if pinned.at[0] == "data" else "prompts")
            one, two = (
                f'"{entry.name}": {entry.sha256 if hashes else format(entry.count, ",")}' for entry in (other, pinned)
            )
            sink.error(
                "E0605", f'{pinned.path} is declared twice, each time with another {what}', experiment.at(*pinned.file),
                help="a file has one content: name two files, or delete the entry that is wrong",
                labels=[Label(span=experiment.at(*other.file), text="the same file")], notes=[one, two],
            )  # fmt: skip
        if _stands_in_for_itself(experiment.surface.folder, pinned):
            sink.error(
                "E0605", f'the stand-in of "{pinned.name}" is the file itself', experiment.at(*pinned.at, "stand_in"),
                help="name the place of the real file, or delete `stand_in` if this is the real one",
                labels=[Label(span=experiment.at(*pinned.file), text="what it stands in for")],
            )  # fmt: skip


def _stands_in_for_itself(folder: Path, pinned: _Pinned) -> bool:
    """Whether a stand-in is, by name or through a link, the file that it stands in for."""
    if pinned.stand_in is None:
        return False
    if posixpath.normpath(pinned.stand_in) == posixpath.normpath(pinned.path):
        return True
    try:
        return (folder / pinned.stand_in).samefile(folder / pinned.path)
    except (OSError, ValueError):
        return False
