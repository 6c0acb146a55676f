"""The completions to be judged, one at a time: only their places in the stored files are held in memory."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from sys import intern
from typing import NamedTuple

from pydantic import ValidationError

from epc.compiler.contract.draws import draw
from epc.compiler.contract.rows import SampleRow
from epc.runtime import bundle as bundles
from epc.runtime import kept
from epc.runtime.errors import Fault

KEPT_OPEN = 64
"""Files that are open at once."""


class Place(NamedTuple):
    """Where a completion lies. Places sort by arm, set, item and index."""

    condition: str
    seed: int
    set: str
    item: str
    turn: int
    number: int
    """Index among the samples of the item."""
    file: Path
    offset: int
    length: int


class StoredCompletions:
    """Every completion of the named sets in sampling steps that have finished.

    Raises Fault R0804 for a file that is missing or not the one that was sampled, R0805 for a line that
    is no completion or for a set without any.
    """

    def __init__(self, bundle: Path, folders: Sequence[Path], *, sets: Collection[str]) -> None:
        places: list[Place] = []
        for folder in folders:
            for entry in json.loads((folder / "index.json").read_text(encoding="utf-8")):
                if entry["set"] in sets:
                    places += _places(bundle, folder, entry["key"], entry["sha256"])
        for name in sets:
            if not any(place.set == name for place in places):
                raise Fault(
                    "R0805", str(folders[0]) if folders else str(bundle), f"no completion of {name} was sampled",
                    "compile the spec again: judge and sampling steps are of different compilations",
                )  # fmt: skip
        self.places = sorted(places)
        self._opened: dict[Path, _Opened] = {}

    def __len__(self) -> int:
        return len(self.places)

    def shuffled(self, *parts: str | int) -> list[int]:
        """The order of asking: positions in `places`, each arm spread over the whole run.

        A SHA-256 draw of (parts, set, item, index, arm) orders them, so that a change in the judge while
        the run lasts falls on every arm alike.
        """

        def own(position: int) -> tuple[int, int]:
            place = self.places[position]
            return draw(*parts, place.set, place.item, place.number, place.condition, place.seed), position

        return sorted(range(len(self.places)), key=own)

    def read(self, position: int) -> SampleRow:
        """The completion at `places[position]`."""
        place = self.places[position]
        file = self._opened.get(place.file)
        if file is None:
            if len(self._opened) == KEPT_OPEN:
                self._opened.clear()
            file = self._opened[place.file] = _Opened(place.file)
        return SampleRow.model_validate_json(file.read(place.length, place.offset))


class _Opened:
    """A file open for as long as this object is there; without a buffer, since one line of many is wanted.

    Of a packed copy its whole content is held, which has no places before it is unpacked.
    """

    def __init__(self, file: Path) -> None:
        self.content: bytes | None = None
        if file.is_file():
            self.number = os.open(file, os.O_RDONLY)
        else:
            self.content = kept.read_bytes(file)

    def read(self, length: int, offset: int) -> bytes:
        if self.content is not None:
            return self.content[offset : offset + length]
        return os.pread(self.number, length, offset)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


def _places(bundle: Path, folder: Path, key: str, sha256: str) -> list[Place]:
    file = bundles.piece(bundle, key)
    remedy = f"delete {folder} and {file}, then run again: only this piece is sampled anew"
    if not kept.is_there(file):
        raise Fault("R0804", str(file), "the completions are missing", remedy)
    if kept.sha256(file) != sha256:
        raise Fault("R0804", str(file), "the completions were altered after they were sampled", remedy)
    places: list[Place] = []
    offset = 0
    with file.open("rb") if file.is_file() else io.BytesIO(kept.read_bytes(file)) as handle:
        for number, line in enumerate(handle, start=1):
            try:
                row = SampleRow.model_validate_json(line)
            except ValidationError as error:
                raise Fault(
                    "R0805", f"{file}:{number}", f"this is no completion: {error.errors()[0]['msg']}", remedy
                ) from None
            places.append(
                Place(
                    intern(row.condition), row.seed, intern(row.set), intern(row.item), row.turn, row.index, file, offset,
                    len(line),
                )
            )  # fmt: skip
            offset += len(line)
    return places
