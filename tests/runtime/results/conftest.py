"""A folder of results files, and the design that reads one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.manifest import (
    Analysis,
    Condition,
    Contrast,
    Design,
    Manifest,
    Metric,
    ResultColumns,
    ResultsFile,
)
from epc.runtime.errors import Fault
from epc.runtime.results import Imported, read_results

PLAIN = {"unit": "item", "condition": "arm"}
SAMPLED = {**PLAIN, "sample": "k"}
TYPED = {**SAMPLED, "outcome": "why"}


@dataclass(frozen=True)
class Desk:
    """Writes one file and reads it as `epc decide` would."""

    folder: Path

    def manifest(
        self, entry: ResultsFile, scale: tuple[float, float] = (0, 1), seeds: tuple[int, ...] = (0,), **metric: Any
    ) -> Manifest:
        first = next(iter(entry.scores))
        return Manifest(
            epc="0", id="x", title="t", mode="real", spec="specs/x.yaml", spec_sha256="0" * 64, lock_sha256="1" * 64, steps=(),
            design=Design(
                question="?", gates=(), verdicts=(), seeds=(0,), results=(entry,),
                conditions=tuple(Condition(name=arm, key=arm, phases=(), seeds=seeds) for arm in ("base", "tuned")),
                metrics=tuple(
                    Metric(name=name, kind="results", source="own", unit="item", scale=scale, better="higher", missing="drop", **metric)
                    for name in entry.scores
                ),
                analyses=(
                    Analysis(
                        name="gap", metric=first, contrast=Contrast(treatment="tuned", control="base"), method="paired_t",
                        side="greater", alpha=0.05,
                    ),
                ),
            ),
        )  # fmt: skip

    def entry(self, file: str, format_: str = "csv", **more: Any) -> ResultsFile:
        mapping = more.pop("mapping", PLAIN if format_ in ("csv", "jsonl", "parquet") else None)
        scores = more.pop("scores", {"acc": "score"})
        columns = None if mapping is None else ResultColumns.model_validate(mapping)
        return ResultsFile(name="own", file=file, format=format_, mapping=columns, scores=scores, **more)  # type: ignore[arg-type]

    def put(self, name: str, content: str | bytes) -> str:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return name

    def read(self, entry: ResultsFile, **design: Any) -> Imported:
        return read_results(self.manifest(entry, **design), self.folder)

    def rows(self, entry: ResultsFile, **design: Any) -> dict[tuple[str, str, int], tuple[int, int, int, int]]:
        """(arm, unit, seed) -> (n, n_missing, total, denominator)."""
        return {
            (row.condition, row.unit, row.seed): (row.n, row.n_missing, row.total, row.denominator)
            for row in self.read(entry, **design).rows
        }

    def fault(self, entry: ResultsFile, **design: Any) -> Fault:
        with pytest.raises(Fault) as caught:
            self.read(entry, **design)
        return caught.value

    def csv(self, content: str | bytes, mapping: Mapping[str, str] = PLAIN, **more: Any) -> ResultsFile:
        return self.entry(self.put("own.csv", content), mapping=mapping, **more)

    def jsonl(self, content: str | bytes, mapping: Mapping[str, str] = PLAIN, **more: Any) -> ResultsFile:
        return self.entry(self.put("own.jsonl", content), "jsonl", mapping=mapping, **more)

    def parquet(self, sql: str, mapping: Mapping[str, str] = PLAIN, **more: Any) -> ResultsFile:
        """A Parquet file of what a query gives."""
        import duckdb

        duckdb.sql(f"COPY ({sql}) TO '{self.folder / 'own.parquet'}' (FORMAT parquet)")
        return self.entry("own.parquet", "parquet", mapping=mapping, **more)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    pytest.importorskip("duckdb")
    return Desk(tmp_path)
