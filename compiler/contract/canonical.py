"""Canonical JSON and SHA-256: the only way anything in epc is hashed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

KEY_LENGTH = 16
"""Hex digits of a step key: 64 bits, so a collision among 10^6 steps has probability about 3e-8."""


def canonical_json(value: Any) -> str:
    """Serialise to the one JSON text with sorted keys, no spaces and no NaN or infinity.

    Raises ValueError for a float that JSON cannot carry, TypeError for a type it does not know.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def json_lines(text: str) -> list[str]:
    """Lines of a JSON Lines text: split at newlines only, since JSON strings may hold U+2028 and its like raw."""
    return text.removesuffix("\n").split("\n") if text else []


def sha256_text(text: str) -> str:
    """Hex SHA-256 of the UTF-8 bytes of `text`."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of the canonical JSON of `value`."""
    return sha256_text(canonical_json(value))


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes, read in blocks."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def content_key(value: Any) -> str:
    """Key of a recipe: the first KEY_LENGTH hex digits of its canonical hash."""
    return sha256_json(value)[:KEY_LENGTH]
