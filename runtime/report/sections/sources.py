"""Where the numbers come from: the stored rows of every metric in every arm, with their hash."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.decision import AnalysisResult, Decision
from epc.compiler.contract.manifest import Design
from epc.compiler.contract.rows import MeasurementRow
from epc.runtime.inputs import Stored
from epc.runtime.report import numbers
from epc.runtime.report.anchors import rows_anchor
from epc.runtime.report.text import one_line

SHORT = 8
"""Hexadecimal digits of a hash beside a number."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Beside a number: the hash of the rows behind it, and where the report names them."""

    short: str
    anchor: str
    title: str


@dataclass(frozen=True, kw_only=True)
class SourceView:
    metric: str
    condition: str
    anchor: str
    rows: str
    sha256: str
    files: tuple[str, ...]


def lines_sha256(rows: Sequence[MeasurementRow]) -> str:
    """Hash over the rows as a step writes them, one a line, sorted: what grep, sort and sha256sum give of the file."""
    return sha256_text("".join(sorted(f"{row.model_dump_json()}\n" for row in rows)))


class Sources:
    """The stored rows by metric and arm, in the order of the registration."""

    def __init__(self, design: Design, stored: Sequence[Stored]) -> None:
        rows: dict[tuple[str, str], list[MeasurementRow]] = defaultdict(list)
        files: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
        for part in stored:
            for row in part.rows:
                rows[row.metric, row.condition].append(row)
                files[row.metric, row.condition][part.file] = None
        order = {
            (metric.name, arm.name): (i, j)
            for i, metric in enumerate(design.metrics)
            for j, arm in enumerate(design.conditions)
        }
        last = (len(design.metrics), len(design.conditions))
        self.rows: Mapping[tuple[str, str], Sequence[MeasurementRow]] = {
            cell: rows[cell] for cell in sorted(rows, key=lambda cell: (order.get(cell, last), cell))
        }
        """(metric, arm) -> rows."""
        self.views = {
            (metric, condition): SourceView(
                metric=one_line(metric), condition=one_line(condition), anchor=rows_anchor(metric, condition),
                rows=numbers.count(len(held), "row"), sha256=lines_sha256(held), files=tuple(files[metric, condition]),
            )
            for (metric, condition), held in self.rows.items()
        }  # fmt: skip

    def of(self, metric: str, *conditions: str) -> tuple[Reference, ...]:
        """References to the rows of a metric in these arms; nothing for an arm without rows."""
        found = [self.views[metric, name] for name in dict.fromkeys(conditions) if (metric, name) in self.views]
        return tuple(
            Reference(
                short=view.sha256[:SHORT], anchor=view.anchor, title=f"{view.rows} of {view.metric} in {view.condition}"
            )
            for view in found
        )

    def of_analysis(self, analysis: AnalysisResult) -> tuple[Reference, ...]:
        if analysis.contrast is not None:
            return self.of(analysis.metric, analysis.contrast.treatment, analysis.contrast.control)
        return self.of(analysis.metric, *([] if analysis.arm is None else [analysis.arm]))


@dataclass(frozen=True, kw_only=True)
class FileView:
    """A file of results from elsewhere."""

    file: str
    entry: str
    columns: str
    pinned: str
    sha256: str


def file_views(decision: Decision) -> tuple[FileView, ...]:
    return tuple(
        FileView(
            file=one_line(file),
            entry=one_line(f"{entry.name} ({entry.format}), {numbers.count(entry.rows, 'row')} in all"),
            columns=one_line(", ".join(f"{what} from {column}" for what, column in entry.columns.items())),
            pinned="before the results were known" if entry.pinned else "no: this hash was not in the registration",
            sha256=sha256,
        )
        for entry in decision.results
        for file, sha256 in entry.files.items()
    )
