"""Stored completions: found by their identity, and read only where a report shows them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import ValidationError

from epc.compiler.contract.manifest import Manifest
from epc.compiler.contract.rows import SampleRow
from epc.runtime import bundle as bundles
from epc.runtime import kept
from epc.runtime.errors import Fault

_INDEX: Final = b'"index":'
_TEXT: Final = rb'"([^"\\]*(?:\\.[^"\\]*)*)"'
_IDENTITY: Final = re.compile(
    rb'"condition":\s?' + _TEXT + rb',\s?"condition_key":\s?"[^"\\]*",\s?"seed":\s?(-?\d+),\s?"set":\s?' + _TEXT
    + rb',\s?"item":\s?' + _TEXT + rb',\s?"turn":\s?(\d+),\s?"index":\s?(\d+)[,}]'
)  # fmt: skip
"""As epc writes a row. A quote inside a text is escaped, so that no text can look like these keys."""


class Located(NamedTuple):
    """One completion, not parsed."""

    set: str
    condition: str
    seed: int
    item: str
    turn: int
    index: int  # type: ignore[assignment]  # a tuple has a method of that name
    line: bytes
    file: Path
    number: int
    """Of the line, from 1."""


def located(bundle: Path, manifest: Manifest) -> Iterator[Located]:
    """Every stored completion. Raises Fault R0601 for a file or a line that cannot be read."""
    for step in manifest.steps:
        if step.kind == "sample":
            for piece in step.pieces:
                yield from _of_file(bundles.piece(bundle, piece.key))


def sample_row(found: Located) -> SampleRow:
    """The whole row. Raises Fault R0601 where it is none."""
    try:
        return SampleRow.model_validate_json(found.line)
    except ValidationError as error:
        raise _no_row(found.file, found.number, error) from None


def _of_file(file: Path) -> Iterator[Located]:
    """Lines end at newlines only: a completion may hold any other line break."""
    try:
        lines = kept.read_bytes(file).split(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        remedy = _remedy(file)
        raise Fault("R0601", str(file), f"the completions cannot be read: {error.strerror}", remedy) from None
    samples: dict[bytes, tuple[str, str, int, str, int]] = {}
    """What stands before the index -> the rest of the identity: the samples of a prompt share it."""
    for number, line in enumerate(lines, start=1):
        start, _, rest = line.partition(_INDEX)
        index = rest[: rest.find(b",")].strip()
        if (shared := samples.get(start)) is not None and index.isdigit() and line.endswith(b"}"):
            yield Located(*shared, int(index), line, file, number)
        elif line:
            found = _IDENTITY.search(line) if line.endswith(b"}") else None
            if found is None:
                yield _parsed(line, file, number)
                continue
            condition, seed, name, item, turn = found.groups()[:5]
            shared = _text(name), _text(condition), int(seed), _text(item), int(turn)
            if found.start(6) > len(start):  # nothing of the identity comes after
                samples[start] = shared
            yield Located(*shared, int(found[6]), line, file, number)


def _parsed(line: bytes, file: Path, number: int) -> Located:
    """A row that is not written as epc writes it."""
    try:
        row = SampleRow.model_validate_json(line)
    except ValidationError as error:
        raise _no_row(file, number, error) from None
    return Located(row.set, row.condition, row.seed, row.item, row.turn, row.index, line, file, number)


def _text(raw: bytes) -> str:
    """A JSON text without its quotes."""
    return str(json.loads(b'"' + raw + b'"')) if b"\\" in raw else raw.decode("utf-8", errors="replace")


def _no_row(file: Path, number: int, error: ValidationError) -> Fault:
    return Fault("R0601", f"{file}:{number}", f"this is no sample row: {error.errors()[0]['msg']}", _remedy(file))


def _remedy(file: Path) -> str:
    return f"delete {file} and the folder of its sampling step, then: epc run"
