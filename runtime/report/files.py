"""The report's edge: which rows it reads, and how it reaches the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from epc.compiler.contract.decision import Decision
from epc.compiler.contract.manifest import Manifest
from epc.compiler.contract.rows import MeasurementRow, SampleRow
from epc.runtime import bundle as bundles
from epc.runtime.errors import Fault
from epc.runtime.measurements import MEASUREMENTS, read_measurements
from epc.runtime.report.render import render
from epc.runtime.report.transcripts import choose
from epc.runtime.step import read_record


def write(bundle: Path, decision: Decision) -> dict[str, Path]:
    """Write report/report.md and report/report.html of a bundle; returns {"md": path, "html": path}.

    Rows that are not there yet are not shown, and the report says so. The same decision and rows
    give the same bytes. Raises Fault R0601 for a completion that cannot be read, R0602 where the
    report cannot be written, and those of reading manifest, finish records and measurements.
    """
    manifest = bundles.read_manifest(bundle)
    rows = _measurements(bundle, manifest)
    report = render(decision, manifest, rows, choose(_samples(bundle, manifest), manifest.design))
    folder = bundle / "report"
    paths = {"md": folder / "report.md", "html": folder / "report.html"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(paths["md"], report.md)
        _replace(paths["html"], report.html)
    except OSError as error:
        raise Fault(
            "R0602", str(folder), f"the report cannot be written: {error.strerror}",
            "make room or the folder writable, then run epc decide again: nothing else is lost",
        ) from None  # fmt: skip
    return paths


def _measurements(bundle: Path, manifest: Manifest) -> list[MeasurementRow]:
    """The rows that the decision read: of finished steps only."""
    rows: list[MeasurementRow] = []
    for step in manifest.steps:
        file = bundles.store(bundle, step) / MEASUREMENTS
        if step.kind == "measure" and read_record(bundle, step) is not None and file.exists():
            rows += read_measurements(file, manifest)
    return rows


def _samples(bundle: Path, manifest: Manifest) -> Iterator[SampleRow]:
    for step in manifest.steps:
        if step.kind == "sample":
            for piece in step.pieces:
                yield from _completions(bundles.piece(bundle, piece.key))


def _completions(file: Path) -> Iterator[SampleRow]:
    """Rows of one piece. Lines end at newlines only: a completion may hold any other line break."""
    remedy = f"delete {file} and the folder of its sampling step, then: epc run"
    try:
        lines = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    except OSError as error:
        raise Fault("R0601", str(file), f"the completions cannot be read: {error.strerror}", remedy) from None
    for number, line in enumerate(lines, start=1):
        if line:
            try:
                yield SampleRow.model_validate_json(line)
            except ValidationError as error:
                problem = error.errors()[0]["msg"]
                raise Fault("R0601", f"{file}:{number}", f"this is no sample row: {problem}", remedy) from None


def _replace(path: Path, text: str) -> None:
    """Write aside, force to disk, rename: a reader sees the old file or the new one, never half."""
    aside = path.with_name(path.name + ".tmp")
    with aside.open("w", encoding="utf-8", newline="\n") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    aside.replace(path)
