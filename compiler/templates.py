"""The files under templates/, by name."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent.parent / "templates"


@functools.cache
def template(name: str) -> str:
    """Text of a file under templates/."""
    return (FOLDER / name).read_text(encoding="utf-8")
