"""`epc mask`: read, verify, show."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from epc.compiler.contract.manifest import Manifest
from epc.runtime.errors import EXIT_BAD_INPUT, EXIT_OK
from epc.runtime.masks import page, sources, terminal, view
from epc.runtime.wording import shown

if TYPE_CHECKING:
    from rich.console import Console

    from epc.runtime.masks.view import View


def run(
    manifest: Manifest, bundle: Path, *, files: Mapping[str, str] | None, spec: Path | None, data: str | None,
    chosen: Sequence[int], rows: int, out: Path | None, console: Console,
) -> int:  # fmt: skip
    """Show the mask of every phase that trains on `data`, None for all; write a page where `out` names one.

    `chosen` are numbers of rows from 1; without them, the first `rows`. Returns 2 when a mask trains other tokens than
    declared. Raises Fault R0380 to R0383, and those of data and masks.
    """
    phases = sources.phases(manifest, data)
    with _quiet(), sources.opened(manifest, bundle, files=files, spec=spec) as opened:
        views = [_view(opened, phase, chosen, rows) for phase in phases]
    terminal.show(console, views)
    if out is not None:
        out.write_text(page.html(manifest.title, views), encoding="utf-8")
        print(f"wrote {shown(out)}")
    return EXIT_BAD_INPUT if any(found.fault is not None for found in views) else EXIT_OK


def _view(opened: sources.Sources, phase: sources.Phase, chosen: Sequence[int], rows: int) -> View:
    from transformers import AutoTokenizer

    from epc.runtime import mask

    file, found = opened.rows(phase)
    model_dir = opened.model(phase)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    trainer = mask.prepare(
        model_dir, tokenizer, found, train_on=phase.train_on, max_length=phase.max_length, out=opened.aside / "trainer"
    )
    numbers = chosen or range(1, min(rows, len(found)) + 1)
    return view.build(phase, tokenizer, found, trainer, place=file, chosen=numbers)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' progress bars and notes off the terminal."""
    import logging
    import warnings

    import datasets
    from transformers.utils import logging as notes

    datasets.disable_progress_bars()
    notes.set_verbosity_error()  # type: ignore[no-untyped-call]
    notes.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("trl").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
