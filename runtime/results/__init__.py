"""Results from elsewhere: files of several formats to measurement rows, exactly, or refused with every bad row named."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from epc.compiler.contract.decision import ResultsRead
from epc.compiler.contract.manifest import Design, Manifest, ResultsFile
from epc.compiler.contract.rows import MeasurementRow
from epc.runtime.errors import Fault
from epc.runtime.estimates import arms_of
from epc.runtime.results import inspect_logs, promptfoo
from epc.runtime.results.columns import Arms, Reader, Totals, View, connect
from epc.runtime.results.files import Source, hashes, sha256_of, sources
from epc.runtime.results.lm_eval_logs import lm_eval_view
from epc.runtime.results.problems import Scale
from epc.runtime.results.records import record_view
from epc.runtime.results.tables import csv_view, damaged, jsonl_view, parquet_view, wanted

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What the files of a design's `results` hold."""

    rows: tuple[MeasurementRow, ...] = ()
    read: tuple[ResultsRead, ...] = ()


def read_results(manifest: Manifest, folder: Path) -> Imported:
    """Measurement rows of every `results` entry; `folder` is what its files are relative to.

    Raises Fault R1601 (no file), R1602 (a file that is empty, damaged or not of its format), R1603 (another SHA-256
    than pinned), R1604 (a column or score that is not there), R1605 (rows that are wrong), R1606 (rows that repeat),
    R1607 (an arm without rows), R1608 (a reader that is not installed), R1609 (units that are not the same items).
    """
    entries = manifest.design.results
    if not entries:
        return Imported()
    found = {entry.name: sources(entry, folder) for entry in entries}
    rows: list[MeasurementRow] = []
    read: list[ResultsRead] = []
    with tempfile.TemporaryDirectory(prefix="epc-") as scratch, ThreadPoolExecutor(max_workers=1) as pool:
        # Hashing needs a core and no lock of Python's, so it runs beside the reading, except where a pin comes first.
        pinned = {entry.name: hashes(found[entry.name]) for entry in entries if entry.sha256 is not None}
        for entry in entries:
            if entry.name in pinned:
                _check_pin(entry, sha256_of(pinned[entry.name]))
        hashing = {entry.name: pool.submit(hashes, found[entry.name]) for entry in entries if entry.name not in pinned}
        with connect(Path(scratch) / "spill") as con:
            for entry in entries:
                n, totals = _read_entry(con, manifest, entry, found[entry.name], Path(scratch))
                sha256 = pinned.get(entry.name) or hashing[entry.name].result()
                rows += [row for total in totals.values() for row in total.rows]
                read.append(
                    ResultsRead(
                        name=entry.name, format=entry.format, files=sha256, sha256=sha256_of(sha256),
                        pinned=entry.sha256 is not None, rows=n, columns=_columns(entry),
                        rounded=tuple(metric for metric, total in totals.items() if total.rounded),
                    )
                )  # fmt: skip
    return Imported(rows=tuple(rows), read=tuple(read))


def _check_pin(entry: ResultsFile, actual: str) -> None:
    if entry.sha256 == "pending":
        raise Fault(
            "R1603", entry.file, f"results `{entry.name}`: its SHA-256 is still pending; it is {actual}",
            "write it into the spec and compile that, before the results are looked at",
        )  # fmt: skip
    if entry.sha256 != actual:
        raise Fault(
            "R1603", entry.file, f"results `{entry.name}` have another SHA-256 than registered: {actual}, not {entry.sha256}",
            "put the registered file in place; nothing was computed from this one",
        )  # fmt: skip


def _columns(entry: ResultsFile) -> dict[str, str]:
    """What is read -> column or path."""
    mapping = {} if entry.mapping is None else {k: v for k, v in entry.mapping.model_dump().items() if v is not None}
    return mapping | dict(entry.scores)


def _arms(design: Design, entry: ResultsFile) -> Arms:
    read = [a for a in design.analyses if a.metric in entry.scores]
    arms = Arms(
        names={condition.name: condition.name for condition in design.conditions} | dict(entry.conditions),
        seeds={condition.name: condition.seeds for condition in design.conditions},
        keys={condition.name: condition.key for condition in design.conditions},
        read=sorted({arm for analysis in read for arm in arms_of(analysis)}),
    )
    if entry.mapping is None or entry.mapping.seed is None:
        several = [name for name in arms.read if len(arms.seeds[name]) > 1]
        if several:
            seeds = ", ".join(map(str, arms.seeds[several[0]]))
            raise Fault(
                "R1604", entry.file, f"{several[0]} has the training seeds {seeds}, and no column says which a row is of",
                "name it in `mapping.seed`, or declare one seed",
            )  # fmt: skip
    return arms


def _read_entry(
    con: DuckDBPyConnection, manifest: Manifest, entry: ResultsFile, files: Sequence[Source], scratch: Path
) -> tuple[int, dict[str, Totals]]:
    """(rows read, metric -> totals) of one entry."""
    import duckdb

    arms = _arms(manifest.design, entry)
    scales = {
        metric.name: Scale(metric=metric.name, low=metric.scale[0], high=metric.scale[1], kept=metric.scores)
        for metric in manifest.design.metrics
        if metric.name in entry.scores
    }
    n = 0
    totals: dict[str, Totals] = {}
    try:
        for views in _views(con, entry, files, arms, scales, scratch):
            metrics = tuple(views)
            n, found = Reader(con, views[metrics[0]], [scales[metric] for metric in metrics], arms).read(manifest.mode)
            totals |= dict(zip(metrics, found, strict=True))
    except duckdb.Error as error:
        reason = str(error).split("\n")[0].split("; ")[0]
        raise _damaged(files, entry.format, reason) from None
    return n, totals


def _damaged(files: Sequence[Source], format_: str, reason: str) -> Fault:
    named = next((source for source in files if str(source.path) in reason), files[0])
    return damaged(named, format_, reason.replace(str(named.path), named.shown))


def _views(
    con: DuckDBPyConnection,
    entry: ResultsFile,
    files: Sequence[Source],
    arms: Arms,
    scales: Mapping[str, Scale],
    scratch: Path,
) -> Iterator[dict[str, list[View]]]:
    """Metrics that are read together -> views of the files, the same list for each."""
    rates = tuple(metric for metric, scale in scales.items() if (scale.low, scale.high) == (0, 1))
    match entry.format:
        case "csv" | "jsonl" | "parquet":
            of_format = {"csv": csv_view, "jsonl": jsonl_view, "parquet": parquet_view}[entry.format]
            want = wanted(entry)
            views = [of_format(con, source, want) for source in files]
            yield dict.fromkeys(want.scores, views)
        case "lm_eval":
            views = [lm_eval_view(con, source, entry.scores, entry.condition, arms.names, rates) for source in files]
            yield dict.fromkeys(entry.scores, views)
        case "inspect" | "promptfoo":
            records = {"inspect": inspect_logs.records, "promptfoo": promptfoo.records}[entry.format]
            numbers = count()
            for metric, score in entry.scores.items():  # whether there is a score may differ between metrics
                yield {
                    metric: [
                        record_view(
                            con, source, records(source, score, entry.condition), aside=scratch / f"{next(numbers)}.jsonl",
                            metric=metric, score=score, booleans=metric in rates,
                        )
                        for source in files
                    ]
                }  # fmt: skip
        case _:
            assert_never(entry.format)
