"""What a decision is made from, read once: manifest, finish records, measurement rows, results from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from epc.compiler.contract.decision import ResultsRead
from epc.compiler.contract.manifest import Manifest
from epc.compiler.contract.rows import MeasurementRow
from epc.runtime import bundle as bundles
from epc.runtime import kept
from epc.runtime.measurements import MEASUREMENTS, Measurements, group, read_measurements
from epc.runtime.step import FinishRecord


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Measurement rows of one file, or of one entry of `results`."""

    file: str
    """Relative to the bundle, or as the spec calls it."""
    rows: tuple[MeasurementRow, ...]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    manifest: Manifest
    records: Mapping[str, FinishRecord | None]
    """Step -> its finish record, None where it is not finished."""
    stored: tuple[Stored, ...]
    imported: tuple[ResultsRead, ...] = ()

    @cached_property
    def measurements(self) -> Measurements:
        return group(tuple(row for part in self.stored for row in part.rows))


def stored(bundle: Path, manifest: Manifest, records: Mapping[str, FinishRecord | None]) -> Iterator[Stored]:
    """Rows of every finished step of kind measure; of an unfinished one nothing is read. Raises Faults R0501, R0502."""
    for step in manifest.steps:
        file = bundles.store(bundle, step) / MEASUREMENTS
        if step.kind == "measure" and records[step.id] is not None and kept.is_there(file):
            yield Stored(file=file.relative_to(bundle).as_posix(), rows=read_measurements(file, manifest))
