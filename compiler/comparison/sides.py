"""One side of a comparison, read from disk: a spec is compiled in memory, a lock is read with the texts beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from epc.compiler import pipeline
from epc.compiler.comparison.locks import SUFFIX, Unreadable, read_lock
from epc.compiler.comparison.registration import Registration
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.lower import lower
from epc.compiler.spec import FileData
from epc.compiler.surface import load

OF_COMPARISONS: Final = frozenset({"E1411", "E1412", "E1421", "E1424"})
"""Errors that say that this spec differs from another, which is what a comparison is asked to show."""


def is_lock(path: Path) -> bool:
    return path.name.endswith(SUFFIX)


def pinned_files(path: Path) -> Iterator[str]:
    """Files that a spec pins and that need not be under version control, relative to it."""
    surface = load(path, path.name, Diagnostics())
    if surface is not None:
        for data in surface.spec.data.values():
            if isinstance(data, FileData):
                yield data.file
        for prompts in surface.spec.prompts.values():
            if prompts.external is not None:
                yield prompts.external.file


def read_side(path: Path, shown: str, sink: Diagnostics) -> Registration | Unreadable | None:
    """None for a spec with errors, which the sink then has."""
    if is_lock(path):
        lock = read_lock(path, shown, texts=True)
        return lock if isinstance(lock, Unreadable) else lock.registration
    experiment = pipeline.check(path, shown, sink)
    if experiment is None or any(item.severity == "error" and item.code not in OF_COMPARISONS for item in sink):
        return None
    # What is left is about other plans; this one stands, whatever it may cost and whichever warnings it accepts.
    plan = lower(
        experiment, template_text=pipeline.chat_template(experiment), spec_folder=pipeline.Layout.of(path).spec_folder
    )
    texts = Registration.of_experiment(experiment, shown).texts
    return Registration.of_lock(yaml.safe_load(plan.lock_text), shown, texts)
