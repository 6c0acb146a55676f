"""Benchmark scores, item by item, through the LM Evaluation Harness."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epc.compiler.contract.canonical import sha256_json
from epc.runtime.errors import Fault

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager


@contextlib.contextmanager
def hub_task(file: Path) -> Iterator[TaskManager]:
    """A task manager that knows the tasks beside `file` only, whose data come from the hub at a pinned revision.

    Raises Fault R0356 when they cannot be fetched.
    """
    from lm_eval.tasks import TaskManager

    try:
        yield TaskManager(include_path=str(file.parent), include_defaults=False)
    except OSError as error:  # no connection, no such data set or revision, no room: all are OSErrors there
        raise Fault(
            "R0356", str(file), f"the task's data cannot be fetched: {' '.join(str(error).split())[:300]}",
            "check the connection, dataset_path and revision in the task file, then run again",
        ) from None  # fmt: skip


@contextlib.contextmanager
def local_task(file: Path) -> Iterator[TaskManager]:
    """A task manager that knows the tasks beside `file` only.

    Inside, the working folder is the task's, because its data files are named relative to it, and
    converted data are cached in a folder of their own instead of one that other runs share.
    """
    import datasets
    from lm_eval.tasks import TaskManager

    before = datasets.config.HF_DATASETS_CACHE
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(file.parent):
        datasets.config.HF_DATASETS_CACHE = Path(scratch)
        try:
            yield TaskManager(include_path=".", include_defaults=False)
        finally:
            datasets.config.HF_DATASETS_CACHE = before


def scores(found: Mapping[str, Any] | None, task: str, value: str, *, items: int) -> list[tuple[str, int]]:
    """(item id, 0 or 1) of every item of a task, sorted by id.

    The id is the document's own `id`, else 12 hex digits of the document's hash. Raises Fault R0351
    when the harness did not report the metric, R0352 when items are missing or repeated, R0353 when a
    score is neither 0 nor 1.
    """
    samples = (found or {}).get("samples", {}).get(task, [])
    if not samples or any(value not in sample for sample in samples):
        raise Fault(
            "R0351", task, f"the harness did not report {value} for this task",
            f"declare {value} in the task's metric_list",
        )  # fmt: skip
    rows: dict[str, int] = {}
    for sample in samples:
        document = sample["doc"]
        item = str(document["id"]) if "id" in document else sha256_json(document)[:12]
        score = sample[value]
        if score not in (0, 1):
            raise Fault(
                "R0353",
                f"{task}, item {item}",
                f"{value} is {score}, not 0 or 1",
                "use a metric that scores single items",
            )
        rows[item] = int(score)
    if len(rows) != items or len(samples) != items:
        raise Fault(
            "R0352", task, f"{len(samples)} scores of {len(rows)} distinct items, registered are {items}",
            "give every document its own id, and state the true number of items in the spec",
        )  # fmt: skip
    return sorted(rows.items())
