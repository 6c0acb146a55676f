"""Results that are costly and depend on their inputs alone, kept between runs in the user's cache folder.

Nothing that is compiled depends on them: without a folder, or with a file that cannot be read, the result is
computed again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

Result = TypeVar("Result", bound=BaseModel)


def folder() -> Path:
    """~/.cache/epc, or below XDG_CACHE_HOME. Raises RuntimeError where there is no home folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "epc"


def cached(
    kind: str, key: str, model: type[Result], compute: Callable[[], Result], *, sound: Callable[[Result], bool]
) -> Result:
    """The result kept as <cache>/<kind>/<key>.json, or else `compute()`, which is then kept there.

    `key` is a hash of all that the result depends on; `sound` says whether what was read can be such a result.
    """
    with suppress(OSError, ValueError, RuntimeError):
        file = folder() / kind / f"{key}.json"
        found = model.model_validate_json(file.read_text(encoding="utf-8"), strict=True)
        if sound(found):
            return found
    result = compute()
    with suppress(OSError, RuntimeError):
        _write(folder() / kind / f"{key}.json", result.model_dump_json())
    return result


def _write(file: Path, text: str) -> None:
    """Write aside, then rename, so that no reader ever sees half of it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=file.parent, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(aside).replace(file)
    except OSError:
        Path(aside).unlink(missing_ok=True)
        raise
