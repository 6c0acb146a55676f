"""What was tried on this machine and worked, so that a run which goes on does not try it again.

A trial is remembered under everything that it depended on. It lies with the logs: it tells of a machine, and is no part
of the record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from epc.compiler.contract.canonical import sha256_json

FILE: Final = "preflight.json"
KEPT: Final = 50
"""Trials that are remembered, the last ones."""


class Remembered:
    """Trials of one bundle: identity -> how it went, for a person."""

    def __init__(self, bundle: Path) -> None:
        self._file = bundle / "logs" / FILE
        try:
            known = json.loads(self._file.read_text(encoding="utf-8"))
            self._known = {str(key): str(said) for key, said in known.items()}
        except (OSError, ValueError, AttributeError):  # nothing there, or nothing that can be read: tried again
            self._known = {}

    def get(self, identity: Mapping[str, Any]) -> str | None:
        """How the same thing went, None where it was never tried or did not work."""
        return self._known.get(sha256_json(dict(identity)))

    def keep(self, identity: Mapping[str, Any], said: str) -> None:
        key = sha256_json(dict(identity))
        self._known.pop(key, None)
        self._known[key] = said
        self._known = dict(list(self._known.items())[-KEPT:])
        self._file.parent.mkdir(parents=True, exist_ok=True)
        aside = self._file.with_suffix(".tmp")
        aside.write_text(json.dumps(self._known, indent=1) + "\n", encoding="utf-8")
        aside.replace(self._file)
