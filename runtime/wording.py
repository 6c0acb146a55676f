"""Numbers with their nouns, and paths as a person types them."""

from __future__ import annotations

import os
from pathlib import Path


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def plural(number: int, noun: str) -> str:
    return noun if number == 1 else f"{noun}s"


def shown(path: Path) -> str:
    """A path relative to the working directory where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)
