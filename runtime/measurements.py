"""Measurement rows: read with every problem named at once, and averaged into exact unit values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from epc.compiler.contract.canonical import canonical_json, sha256_text
from epc.compiler.contract.manifest import Condition, Manifest, Metric
from epc.compiler.contract.rows import MeasurementRow, Mode
from epc.runtime import kept
from epc.runtime.errors import Fault

MEASUREMENTS = "measurements.jsonl"
ALL = "all"
"""The slice that analyses read: what the metric's filter keeps, or everything where it has none."""
UNFILTERED = "unfiltered"
"""The same metric without its filter, which an analysis reads where a switch says so. Other slices are descriptive."""
SHOWN = 10
"""Problems of a file that are spelled out."""
VALUE_TOLERANCE = 1e-9
"""How far the printed value may lie from total / denominator / n, relative to the larger of 1 and the value."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    line: int
    text: str


def read_measurements(file: Path, manifest: Manifest) -> tuple[MeasurementRow, ...]:
    """Every row of a measurements file, checked against the manifest.

    Raises Fault R0501 naming all problems of the file (the first ten in words), R0502 when it cannot
    be read at all.
    """
    try:
        text = kept.read_text(file)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise Fault(
            "R0502", str(file), f"the measurement rows cannot be read: {reason}", _remedy(file)
        ) from None  # fmt: skip
    registered = _Registered.of(manifest)
    problems: list[Problem] = []
    seen: dict[tuple[str, int, str, str, str], int] = {}
    read: list[tuple[int, MeasurementRow]] = []
    whole, _, rest = text.rpartition("\n")
    for number, line in enumerate(whole.split("\n") if whole else [], start=1):
        try:
            row = MeasurementRow.model_validate_json(line)
        except ValidationError as error:
            problems.append(Problem(line=number, text="; ".join(_shape_problems(error))))
            continue
        identity = (row.condition, row.seed, row.metric, row.slice, row.unit)
        found = list(_meaning_problems(row, registered))
        if identity in seen:
            found.append(f"a second row for {' / '.join(map(str, identity))}, which line {seen[identity]} has")
        seen.setdefault(identity, number)
        problems += [Problem(line=number, text=problem) for problem in found]
        read.append((number, row))
    problems += _filter_problems(read)
    if rest:
        problems.append(
            Problem(
                line=text.count("\n") + 1, text="the last line has no end: the file was cut off while it was written"
            )
        )
    if problems:
        raise _fault(file, sorted(problems, key=lambda problem: problem.line))
    return tuple(row for _, row in read)


def _shape_problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"])
        match problem["type"]:
            case "extra_forbidden":
                yield f"unknown field {field!r}"
            case "missing":
                yield f"field {field!r} is missing"
            case "json_invalid":
                yield f"not JSON: {problem['ctx']['error']}"
            case "finite_number":
                yield f"{field} is not a finite number"
            case _:
                yield f"{field}: {problem['msg']}" if field else problem["msg"]


@dataclass(frozen=True, kw_only=True)
class _Registered:
    """What rows are checked against, by name: there are many rows."""

    mode: Mode
    metrics: Mapping[str, Metric]
    scales: Mapping[str, tuple[Fraction, Fraction]]
    conditions: Mapping[str, Condition]

    @classmethod
    def of(cls, manifest: Manifest) -> _Registered:
        design = manifest.design
        return cls(
            mode=manifest.mode,
            metrics={metric.name: metric for metric in design.metrics},
            scales={
                metric.name: (Fraction(repr(float(metric.scale[0]))), Fraction(repr(float(metric.scale[1]))))
                for metric in design.metrics
            },
            conditions={condition.name: condition for condition in design.conditions},
        )


def _meaning_problems(row: MeasurementRow, registered: _Registered) -> Iterator[str]:
    if row.mode != registered.mode:
        yield f"the row is of a {row.mode} run, this registration is {registered.mode}"
    metric = registered.metrics.get(row.metric)
    condition = registered.conditions.get(row.condition)
    if metric is None:
        known = _names(iter(registered.metrics))
        yield f"metric {row.metric!r} is not in the manifest, which has {known}"
    if condition is None:
        known = _names(iter(registered.conditions))
        yield f"condition {row.condition!r} is not in the manifest, which has {known}"
    elif row.condition_key != condition.key:
        yield (
            f"condition {row.condition} has key {row.condition_key}, in the manifest {condition.key}:"
            " another arm of the same name"
        )
    elif row.seed not in condition.seeds:
        known = _names(map(str, condition.seeds))
        yield f"training seed {row.seed} of {row.condition} is not in the manifest, which has {known}"
    if min(row.n, row.n_missing, row.n_filtered) < 0:
        counts = {"n": row.n, "n_missing": row.n_missing, "n_filtered": row.n_filtered}
        yield from (f"{name} is {count}, below 0" for name, count in counts.items() if count < 0)
    if metric is not None and metric.filter is None and row.n_filtered > 0:
        yield f"n_filtered is {row.n_filtered}, but {row.metric} has no registered filter"
    if row.denominator < 1:
        yield f"denominator is {row.denominator}, below 1"
        return
    if row.n < 0:
        return
    if row.scores is not None:
        yield from _score_problems(row, row.scores, registered)
    if row.n == 0:
        if row.total != 0 or row.value is not None:
            yield f"n is 0, so total must be 0 and value null, not {row.total} and {row.value}"
        return
    whole = row.denominator * row.n
    if metric is not None:
        low, high = registered.scales[row.metric]
        above = low.numerator * whole <= row.total * low.denominator
        if not (above and row.total * high.denominator <= high.numerator * whole):
            yield (
                f"total {row.total} / {row.denominator} over n = {row.n} lies outside the scale"
                f" [{float(low):g}, {float(high):g}] of {row.metric}"
            )
    mean = row.total / whole
    if row.value is None or abs(row.value - mean) > VALUE_TOLERANCE * max(1.0, abs(mean)):
        yield f"value is {row.value}, but total / denominator / n is {mean:.12g}"


def _score_problems(row: MeasurementRow, scores: Sequence[int], registered: _Registered) -> Iterator[str]:
    if len(scores) != row.n or sum(scores) != row.total:
        yield f"the {len(scores)} scores of samples add up to {sum(scores)}, but n is {row.n} and total {row.total}"
    if list(scores) != sorted(scores):
        yield "the scores of samples are not ascending"
    if row.metric in registered.scales:
        low, high = (bound * row.denominator for bound in registered.scales[row.metric])
        outside = next((score for score in scores if not low <= score <= high), None)
        if outside is not None:
            yield f"a sample's score of {outside} / {row.denominator} lies outside the scale of {row.metric}"


def _filter_problems(read: Sequence[tuple[int, MeasurementRow]]) -> Iterator[Problem]:
    """A filter moves completions from n to n_filtered: without it, the same ones are scored and missing."""
    kept = {_unit_identity(row): row for _, row in read if row.slice == ALL}
    for line, row in read:
        other = kept.get(_unit_identity(row)) if row.slice == UNFILTERED else None
        if other is None:
            continue
        with_filter = (other.n + other.n_filtered, other.n_missing)
        if row.n_filtered or with_filter != (row.n, row.n_missing):
            yield Problem(
                line=line,
                text=f"{row.metric} in {row.condition} / {row.unit} has {row.n} scored, {row.n_missing} missing and"
                f" {row.n_filtered} filtered without its filter, but {other.n} scored, {other.n_missing} missing and"
                f" {other.n_filtered} filtered with it",
            )


def _unit_identity(row: MeasurementRow) -> tuple[str, int, str, str]:
    return (row.condition, row.seed, row.metric, row.unit)


def _names(names: Iterator[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _remedy(file: Path) -> str:
    return (
        f"delete the folder {file.parent} and measure again with epc run;"
        " rows of your own are corrected where they were made"
    )


def _fault(file: Path, problems: Sequence[Problem]) -> Fault:
    place = f"{file}:{problems[0].line}"
    if len(problems) == 1:
        return Fault("R0501", place, problems[0].text, _remedy(file))
    listed = [f"    line {problem.line}: {problem.text}" for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        listed.append(f"    and {len(problems) - SHOWN} more")
    return Fault(
        "R0501", place, "\n".join([f"{len(problems)} problems in the measurement rows", *listed]), _remedy(file)
    )


def rows_sha256(rows: Sequence[MeasurementRow]) -> str:
    """Hash over every row's canonical JSON, one a line, sorted: independent of the order of files and lines."""
    return sha256_text("".join(sorted(canonical_json(_written(row)) + "\n" for row in rows)))


def _written(row: MeasurementRow) -> dict[str, Any]:
    """`row.model_dump(mode="json")`, in a tenth of the time: fields of a row are what JSON has, or a tuple of integers."""
    fields = vars(row)
    return fields if row.scores is not None else {name: value for name, value in fields.items() if name != "scores"}


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One unit of one metric in one arm, over its training seeds."""

    rows: Mapping[int, MeasurementRow]
    """Training seed -> row."""
    _dropped: dict[tuple[int, ...], Fraction | None] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """What `value` gave without `fill`, by seeds: many analyses of a decision ask for it."""

    @property
    def n(self) -> int:
        return sum(row.n for row in self.rows.values())

    @property
    def n_missing(self) -> int:
        return sum(row.n_missing for row in self.rows.values())

    @property
    def n_filtered(self) -> int:
        return sum(row.n_filtered for row in self.rows.values())

    def emptied(self, seeds: Sequence[int]) -> bool:
        """Whether there is no value because of the filter alone: every seed without a score is there and emptied."""
        blank = [self.rows.get(seed) for seed in seeds if seed not in self.rows or self.rows[seed].n == 0]
        return bool(blank) and all(row is not None and _emptied(row) for row in blank)

    def value(self, seeds: Sequence[int], fill: Fraction | None = None) -> Fraction | None:
        """Mean over seeds of total / denominator / n, exact; None where a seed has no score.

        With `fill`, every missing sample, and every seed without a row, has that score instead. What the
        filter left out stays out: it is known.
        """
        if fill is not None:
            return self._value(seeds, fill)
        key = tuple(seeds)
        if key not in self._dropped:
            self._dropped[key] = self._value(seeds, None)
        return self._dropped[key]

    def _value(self, seeds: Sequence[int], fill: Fraction | None) -> Fraction | None:
        means: list[Fraction] = []
        for seed in seeds:
            row = self.rows.get(seed)
            if fill is None and row is not None and row.n:
                means.append(Fraction(row.total, row.denominator * row.n))
                continue
            n = 0 if row is None else row.n
            score = Fraction(0) if row is None else Fraction(row.total, row.denominator)
            if fill is not None and not (row is not None and _emptied(row)):
                filled = row.n_missing if row is not None and row.n + row.n_missing > 0 else 1
                n, score = n + filled, score + fill * filled
            if n == 0:
                return None
            means.append(score / n)
        return means[0] if len(means) == 1 else sum(means, Fraction(0)) / len(means)

    def samples(self, seed: int, fill: Fraction | None = None) -> tuple[Fraction, ...] | None:
        """Scores of the samples with one training seed, ascending, exact; None where the row does not hold them.

        `fill` stands for missing ones as in `value`.
        """
        row = self.rows.get(seed)
        if row is None:
            return () if fill is None else (fill,)
        if row.scores is None and row.n > 0:
            return None
        found = [Fraction(score, row.denominator) for score in row.scores or ()]
        if fill is not None and not _emptied(row):
            found += [fill] * (row.n_missing if row.n + row.n_missing > 0 else 1)
        return tuple(sorted(found))


def _emptied(row: MeasurementRow) -> bool:
    """The filter left nothing, and nothing is missing that it could have kept."""
    return row.n == 0 and row.n_missing == 0 and row.n_filtered > 0


Cells = Mapping[tuple[str, str], Mapping[str, Unit]]
"""(metric, condition) -> unit name -> unit."""


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Rows by (metric, condition) and unit name."""

    rows: tuple[MeasurementRow, ...]
    """Every row, of whatever slice."""
    cells: Cells
    """Slice `all`."""
    unfiltered: Cells
    """Slice `unfiltered`, of metrics with a filter."""

    def units(self, metric: str) -> list[str]:
        """Names of all units that any arm has for this metric, sorted."""
        return sorted({unit for (name, _), units in self.cells.items() if name == metric for unit in units})


def group(rows: Sequence[MeasurementRow]) -> Measurements:
    """Rows as units with their seeds."""
    return Measurements(rows=tuple(rows), cells=_cells(rows, ALL), unfiltered=_cells(rows, UNFILTERED))


def _cells(rows: Sequence[MeasurementRow], of: str) -> Cells:
    cells: dict[tuple[str, str], dict[str, dict[int, MeasurementRow]]] = {}
    for row in rows:
        if row.slice == of:
            cells.setdefault((row.metric, row.condition), {}).setdefault(row.unit, {})[row.seed] = row
    return {cell: {name: Unit(rows=seeds) for name, seeds in units.items()} for cell, units in cells.items()}
