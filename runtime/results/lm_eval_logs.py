"""Sample logs of the LM Evaluation Harness: samples_TASK_DATE.jsonl, written with `--log_samples`.

One row a document and filter. A unit is `TASK/doc_id`, and doc_hash shows that it is the same document in every arm.
`score` is a metric of the task, such as `acc`, with the name of the filter behind a comma where there are several, as
the harness writes it: `exact_match,strict-match`. The model's name stands in results_DATE.json beside the log.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from epc.compiler.contract.manifest import ResultColumns
from epc.runtime.errors import Fault
from epc.runtime.results.columns import Field, View, literal
from epc.runtime.results.files import Source
from epc.runtime.results.tables import Wanted, json_text, jsonl_view

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_NAME: Final = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[^_]+)\.jsonl")


def lm_eval_view(
    con: DuckDBPyConnection,
    source: Source,
    scores: Mapping[str, str],
    arm: str | None,
    names: Mapping[str, str],
    booleans: tuple[str, ...],
) -> View:
    """One log. `arm` is of all of its rows, None where the model's name tells it. Raises Fault R1602 and R1604."""
    match = _NAME.fullmatch(source.path.name)
    task = match["task"] if match else source.path.stem.removeprefix("samples_")
    filters = {name.partition(",")[2] for name in scores.values()}
    if len(filters) > 1:
        listed = ", ".join(sorted(name or "none" for name in filters))
        raise Fault(
            "R1604", source.shown, f"the metrics that read it name several filters: {listed}",
            "give each filter a `results` entry of its own",
        )  # fmt: skip
    columns = {metric: name.partition(",")[0] for metric, name in scores.items()}
    condition = arm or _model(source, match["date"] if match else "", names)
    want = Wanted(mapping=ResultColumns(unit="doc_id"), arm=condition, scores=columns, booleans=booleans)
    view = jsonl_view(con, source, want, item=json_text("doc_hash"))
    chosen, relation = filters.pop(), view.relation
    there = [
        str(name)
        for (name,) in con.execute(f"SELECT DISTINCT {json_text('filter')} FROM {relation} ORDER BY 1").fetchall()
        if name
    ]
    if chosen and chosen not in there:
        raise Fault(
            "R1604",
            source.shown,
            f'there is no filter "{chosen}"; there is {", ".join(there)}',
            "correct `score:` of the metric",
        )
    if not chosen and len(there) > 1:
        raise Fault(
            "R1604", source.shown, f"every document has a row for each of the filters {', '.join(there)}",
            f"say which one counts: `score: {next(iter(columns.values()))},{there[0]}`",
        )  # fmt: skip
    if chosen:
        relation = f"(SELECT * FROM {relation} WHERE {json_text('filter')} = {literal(chosen)})"
    unit = view.unit
    named = Field(
        name=unit.name, value=f"{literal(task + '/')} || {unit.value}", text=unit.text, type=unit.type, there=unit.there
    )
    return replace(view, unit=named, relation=relation)


def _model(source: Source, date: str, names: Mapping[str, str]) -> str:
    """What the log calls its model: the name in the results beside it, or the folder that the harness made of it."""
    found = _told(source.path.with_name(f"results_{date}.json"))
    folder = source.path.parent.name
    return next((name for name in (found, folder) if name in names), found or folder)


def _told(file: Path) -> str:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(data.get("model_name") or "") if isinstance(data, dict) else ""
