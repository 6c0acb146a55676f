"""The report's edge: which rows it reads, and how it reaches the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from epc.compiler.contract.decision import Decision
from epc.compiler.contract.manifest import Manifest
from epc.compiler.contract.rows import MeasurementRow, Row, SampleRow
from epc.runtime import bundle as bundles
from epc.runtime.errors import Fault
from epc.runtime.report.render import render
from epc.runtime.report.transcripts import choose

AnyRow = TypeVar("AnyRow", bound=Row)


def write(bundle: Path, decision: Decision) -> dict[str, Path]:
    """Write report/report.md and report/report.html of a bundle; returns {"md": path, "html": path}.

    Rows that are not there yet are not shown; the report says so. The same decision and rows give
    the same bytes. Raises Fault R0601 for a row that cannot be read, R0602 where the report cannot
    be written, and those of `bundle.read_manifest`.
    """
    manifest = bundles.read_manifest(bundle)
    report = render(
        decision, manifest, list(_measurements(bundle, manifest)), choose(_samples(bundle, manifest), manifest.design)
    )
    folder = bundle / "report"
    paths = {"md": folder / "report.md", "html": folder / "report.html"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(paths["md"], report.md)
        _replace(paths["html"], report.html)
    except OSError as error:
        raise Fault(
            "R0602", str(folder), f"the report cannot be written: {error.strerror}",
            "free space or fix the folder's permissions, then: epc decide",
        ) from None  # fmt: skip
    return paths


def _measurements(bundle: Path, manifest: Manifest) -> Iterator[MeasurementRow]:
    for step in manifest.steps:
        if step.kind == "measure":
            yield from _rows(bundles.store(bundle, step) / "measurements.jsonl", MeasurementRow)


def _samples(bundle: Path, manifest: Manifest) -> Iterator[SampleRow]:
    for step in manifest.steps:
        if step.kind == "sample":
            for piece in step.pieces:
                yield from _rows(bundle / "store" / "pieces" / f"{piece.key}.jsonl", SampleRow)


def _rows(file: Path, schema: type[AnyRow]) -> Iterator[AnyRow]:
    try:
        lines = file.read_bytes().splitlines()
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, start=1):
        try:
            yield schema.model_validate_json(line)
        except ValidationError:
            raise Fault(
                "R0601", f"{file}:{number}", f"this line is not a whole {schema.__name__}",
                "the file was cut short or altered: delete it and its step's folder, then: epc run",
            ) from None  # fmt: skip


def _replace(path: Path, text: str) -> None:
    """Write aside, force to disk, rename: a reader sees the old file or the new one, never half."""
    aside = path.with_name(path.name + ".tmp")
    with aside.open("w", encoding="utf-8", newline="\n") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    aside.replace(path)
