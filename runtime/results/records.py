"""Logs that are read record by record, in Python: put into JSON Lines, which the columnar core then reads."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from epc.compiler.contract.manifest import ResultColumns
from epc.runtime.errors import Fault
from epc.runtime.results.columns import View
from epc.runtime.results.files import Source
from epc.runtime.results.tables import Wanted, json_text, jsonl_view

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_MAPPING: Final = ResultColumns(unit="unit", condition="condition", sample="sample", outcome="outcome")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One scored completion of a log."""

    place: str
    """What a person calls it, such as `results[3]`."""
    unit: str
    condition: str
    sample: int
    outcome: str
    """`scored`, or why there is no score."""
    score: Any
    """As the log has it, None where there is none."""
    item: str
    """Fingerprint of the item's content."""


def record_view(
    con: DuckDBPyConnection,
    source: Source,
    records: Iterable[Record],
    *,
    aside: Path,
    metric: str,
    score: str,
    booleans: bool,
) -> View:
    """Records of one log and one metric as a view; `aside` is the file that they are written to.

    Raises Fault R1602 when there is none.
    """
    places: list[str] = []
    name = f"score {score}"  # no key of ours
    with aside.open("w", encoding="utf-8", newline="\n") as handle:
        for record in records:
            places.append(record.place)
            row = {
                "unit": record.unit, "condition": record.condition, "sample": record.sample, "outcome": record.outcome,
                "item": record.item, name: record.score,
            }  # fmt: skip
            handle.write(json.dumps(row) + "\n")
    if not places:
        raise Fault("R1602", source.shown, "the log holds no sample", "write it again: nothing was measured by it")
    want = Wanted(mapping=_MAPPING, arm=None, scores={metric: name}, booleans=(metric,) if booleans else ())
    return jsonl_view(
        con, Source(path=aside, shown=source.shown), want,
        places=lambda rows: {row: places[row - 1] for row in rows}, item=json_text("item"),
    )  # fmt: skip
