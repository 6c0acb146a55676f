"""The columnar core: rows of any format, grouped by DuckDB into exact totals, or refused row by row.

A format says in SQL what its columns hold (`Field`); everything else happens here. One pass groups the rows by unit,
condition and seed, and takes of every group what shows that each of its rows is sound: counts, least and
largest score, and that all scores are multiples of 10^-k. Rows themselves are looked at only where that is not so.

Totals are exact. A double that equals m / 10^k for an integer |m| <= 10^15 is that decimal, because decimals of at
most 15 digits have doubles of their own (DBL_DIG of IEEE 754), so m is what was written. Sums of such m are exact in
float64 while they stay below 2^53, in any order and on any number of threads; beyond that they are taken in integers
of 128 bits. Where a score has more digits, the scores of its metric are rounded half-even to multiples of 10^-9, and
the decision says so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from epc.compiler.contract.rows import MeasurementRow, Mode
from epc.runtime.errors import Fault
from epc.runtime.results.problems import (
    LISTED,
    SHOWN,
    Problem,
    RowText,
    Rules,
    Scale,
    did_you_mean,
    refusal,
    row_problems,
)
from epc.runtime.statistics.estimate import FIXED_POINT

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

SCORED: Final = "scored"
MEMORY: Final = "1GiB"
"""What DuckDB may hold at once; beyond, it writes to a temporary folder."""
DIGITS: Final = 15
LARGEST: Final = 10**DIGITS
FLOAT_EXACT: Final = 2**53
PROBED: Final = 1000
"""Rows from which the number of decimals is guessed; a wrong guess costs a second pass and nothing else."""
SPANS: Final = 100
"""Different ranges of sample numbers whose fingerprint is computed; where there are more, numbers are compared."""
NOTHING: Final = "NULL::VARCHAR"
ARMS_REPEAT: Final = "name the column that numbers the samples (`mapping.sample`), or aggregate them to one row: rows are not independent"


@dataclass(frozen=True, kw_only=True)
class Field:
    """What a column or a path holds, as SQL over a row of its file."""

    name: str
    """As the spec writes it."""
    value: str
    """Null where nothing is there, and where it is not what it must be."""
    text: str
    """As text, whatever it is; null where nothing is there."""
    type: str
    """Name of its type: `number`, `text`, `cell` (text of a format that has nothing else), `boolean`, `list`, `object`."""
    there: str
    """Null where nothing is there."""

    @classmethod
    def constant(cls, name: str, value: str) -> Field:
        """The same in every row."""
        sql = literal(value)
        return cls(name=name, value=sql, text=sql, type="'text'", there=sql)


@dataclass(frozen=True, kw_only=True)
class View:
    """One file as a relation with its fields."""

    shown: str
    """Path as a person would write it beside the spec."""
    relation: str
    """Table function that gives its rows."""
    row: str
    """Number of a row in its file, as SQL."""
    unit: Field
    condition: Field
    seed: Field | None
    sample: Field | None
    number: str | None
    """The sample as a BIGINT, as SQL, null where it is none; None where there is no sample."""
    outcome: Field | None
    scores: tuple[Field, ...]
    """In the order of the metrics."""
    places: Callable[[Sequence[int]], Mapping[int, str]]
    """Number of a row -> what a person calls it, such as `line 17`."""
    item: str = NOTHING
    """Fingerprint of the item's content, as SQL: the same unit must be the same item in every arm."""


@dataclass(frozen=True, kw_only=True)
class Arms:
    """The arms of the design, and what a results file calls them."""

    names: Mapping[str, str]
    """Name in the file -> arm."""
    seeds: Mapping[str, tuple[int, ...]]
    keys: Mapping[str, str]
    """Arm -> content key."""
    read: Collection[str]
    """Those that an analysis of these rows reads."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What was read of one metric."""

    rows: tuple[MeasurementRow, ...]
    rounded: bool
    """Whether its scores were put on the fixed point of 10^-9."""


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def connect(spill: Path) -> DuckDBPyConnection:
    """A private in-memory database that writes to `spill` what does not fit. Raises Fault R1608 without DuckDB."""
    try:
        import duckdb
    except ImportError:
        raise Fault(
            "R1608", "results", "results from elsewhere are read with DuckDB, which is not installed",
            "pip install 'epc-prereg[results]'",
        ) from None  # fmt: skip
    return duckdb.connect(
        config={
            "threads": os.cpu_count() or 1, "memory_limit": MEMORY, "temp_directory": str(spill),
            "autoinstall_known_extensions": "false", "autoload_known_extensions": "false",
        }
    )  # fmt: skip


class _Score(NamedTuple):
    """One metric in a group of rows."""

    wrong: int
    """Rows that are scored and have no number, or that are not and have something."""
    n: int
    """Rows with a number."""
    low: float | None
    high: float | None
    off: float | None
    """Largest distance from a multiple of 10^-k: 0 where the total is exact."""
    total: float | int | None
    each: list[int] | None
    """Scores of single samples times 10^k, ascending, where rows must hold them."""


class _Samples(NamedTuple):
    """Sample numbers of a group of rows."""

    there: int | None
    n: int
    low: int | None
    high: int | None
    fingerprint: int | None
    """Exclusive or of the numbers' 64-bit hashes."""


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Rows of one unit, condition and seed."""

    unit: Any
    condition: str | None
    seed: int | None
    n: int
    unit_types: tuple[str, str]
    items: tuple[str | None, str | None]
    samples: _Samples
    scores: tuple[_Score, ...]


_Cell = tuple[Any, str, int]
"""(unit, arm, seed)"""


class Reader:
    """Rows of the files of one `results` entry, for the metrics that read it."""

    def __init__(self, con: DuckDBPyConnection, views: Sequence[View], scales: Sequence[Scale], arms: Arms) -> None:
        """`scales` are of the metrics, in the order of the views' scores."""
        self.con = con
        self.views = views
        self.scales = scales
        self.arms = arms
        self.sampled = views[0].sample is not None
        self.seeded = views[0].seed is not None

    def read(self, mode: Mode) -> tuple[int, list[Totals]]:
        """(rows read, Totals by metric). Raises Fault R1602, R1605 to R1607 and R1609."""
        decimals: list[int | None] = [self._probe(index) for index in range(len(self.scales))]
        groups = self._groups(decimals)
        if not groups:
            raise Fault(
                "R1602", ", ".join(view.shown for view in self.views), "there is no row in it",
                "a file without rows says nothing about any arm: write it again",
            )  # fmt: skip
        repeated = self._repeated(groups)
        if repeated or not self._sound(groups):
            self._refuse(groups, repeated)
        needed = [self._decimals(index, groups, k) for index, k in enumerate(decimals)]
        wide = [k is not None and _overflows(index, groups, k) for index, k in enumerate(needed)]
        if needed != decimals or any(wide):
            groups = self._groups(needed, wide)
        self._same_items(groups)
        self._all_arms(groups)
        totals = [
            Totals(rows=tuple(self._rows(index, groups, k, mode)), rounded=k is None) for index, k in enumerate(needed)
        ]
        return sum(group.n for group in groups), totals

    # ------------------------------------------------------------------ one pass

    def _source(self, *, listed: bool = False) -> str:
        """All files as one relation; `listed` adds what messages need."""
        return "\nUNION ALL\n".join(self._select(index, view, listed=listed) for index, view in enumerate(self.views))

    def _select(self, index: int, view: View, *, listed: bool) -> str:
        columns = {
            "unit": view.unit.value, "unit_type": view.unit.type, "condition": view.condition.value,
            "seed": "0::BIGINT" if view.seed is None else view.seed.value,
            "outcome": literal(SCORED) if view.outcome is None else view.outcome.value,
            "sample": NOTHING if view.sample is None else view.sample.text,
            "sample_there": "NULL" if view.sample is None else view.sample.there,
            "number": view.number or "NULL::BIGINT", "item": view.item,
        }  # fmt: skip
        for number, score in enumerate(view.scores):
            columns |= {f"score{number}": score.value, f"there{number}": score.there}
        if listed:
            fields = {
                "unit": view.unit,
                "condition": view.condition,
                "seed": view.seed,
                "outcome": view.outcome,
                "sample": view.sample,
            }
            fields |= {f"score{number}": score for number, score in enumerate(view.scores)}
            columns |= {"file": str(index), "row": view.row}
            for name, field in fields.items():
                columns[f"{name}_said"] = "NULL" if field is None else f"[({field.text})::VARCHAR, {field.type}]"
        chosen = ", ".join(f"{sql} AS {identifier(name)}" for name, sql in columns.items())
        return f"SELECT {chosen} FROM {view.relation}"

    def _probe(self, index: int) -> int:
        """Decimals of the first scores."""
        score = f"score{index}"
        rows = self.con.execute(
            f"SELECT {score} FROM ({self._source()}) WHERE isfinite({score}) LIMIT {PROBED}"
        ).fetchall()
        return max((_decimals_of(value) for (value,) in rows), default=0)

    def _groups(self, decimals: Sequence[int | None], wide: Sequence[bool] = ()) -> list[_Group]:
        keys = ["unit", "condition", *(["seed"] if self.seeded else [])]
        # Ten million values of a column are counted only where that can tell something.
        typed = any("(" in view.unit.type for view in self.views) or len({view.unit.type for view in self.views}) > 1
        items = any(view.item != NOTHING for view in self.views)
        integers = all(view.sample is not None and view.sample.there == view.number for view in self.views)
        taken = [
            "count(*)", "min(unit_type), max(unit_type)" if typed else f"{self.views[0].unit.type}, {self.views[0].unit.type}",
            "min(item), max(item)" if items else "NULL, NULL",
            ("NULL, " if integers else "count(sample_there), ") + "count(number), min(number), max(number), bit_xor(hash(number))"
            if self.sampled else "0, 0, NULL, NULL, NULL",
        ]  # fmt: skip
        for index, k in enumerate(decimals):
            score = f"score{index}"
            plain = all(view.scores[index].there == view.scores[index].value for view in self.views)
            wrong = (
                [f"(outcome = '{SCORED}') IS DISTINCT FROM ({score} IS NOT NULL)", "outcome = ''"]
                if self._has_outcome
                else [f"{score} IS NULL"]
            )
            wrong += [] if plain else [f"({score} IS NULL) <> (there{index} IS NULL)"]
            taken.append(f"count(*) FILTER ({' OR '.join(wrong)}), count({score}), min({score}), max({score})")
            # A cast fails on what is refused later, so it sees only scores of which k leaves at most 15 digits.
            small = f"CASE WHEN abs({score}) * 1e{k or 0} <= 1e{DIGITS} THEN {score} END"
            as_integers = index < len(wide) and wide[index]
            if k is None:
                taken.append(f"NULL, sum(round_even(({small}) * {FIXED_POINT}::DOUBLE, 0)::HUGEINT)")
            elif as_integers:
                taken.append(
                    f"max(abs(round({score} * 1e{k}) / 1e{k} - {score})), sum(round(({small}) * 1e{k})::BIGINT)"
                )
            elif k == 0:
                taken.append(f"max({score} - floor({score})), sum({score})")
            else:
                taken.append(f"max(abs(round({score} * 1e{k}) / 1e{k} - {score})), sum(round({score} * 1e{k}))")
            scaled = f"round_even(({small}) * {FIXED_POINT}::DOUBLE, 0)" if k is None else f"round(({small}) * 1e{k})"
            # list() keeps what is missing as null; it has no score
            taken.append(
                f"list_sort(list({scaled}::BIGINT) FILTER ({score} IS NOT NULL))" if self.scales[index].kept else "NULL"
            )
        self.con.execute("SET preserve_insertion_order = false")
        names = ", ".join(f'"{key}"' for key in keys)
        rows = self.con.execute(
            f"SELECT {names}, {', '.join(taken)} FROM ({self._source()}) GROUP BY {names}"
        ).fetchall()
        return [self._group(list(row)) for row in rows]

    @property
    def _has_outcome(self) -> bool:
        return self.views[0].outcome is not None

    def _group(self, row: list[Any]) -> _Group:
        unit, condition = row.pop(0), row.pop(0)
        seed = row.pop(0) if self.seeded else 0
        samples, scores = _Samples(*row[5:10]), [_Score(*row[at : at + 7]) for at in range(10, len(row), 7)]
        return _Group(
            unit=unit, condition=condition, seed=seed, n=row[0], unit_types=(row[1], row[2]), items=(row[3], row[4]),
            samples=samples if samples.there is not None else samples._replace(there=samples.n),
            scores=tuple(scores),
        )  # fmt: skip

    def _decimals(self, index: int, groups: Sequence[_Group], guess: int | None) -> int | None:
        """Fewest decimals, from the guess on, with which every score is exact; None where 15 digits do not do."""
        scores = [group.scores[index] for group in groups if group.scores[index].n]
        largest = max((max(abs(score.low or 0.0), abs(score.high or 0.0)) for score in scores), default=0.0)
        if guess is not None and all(score.off == 0 for score in scores) and largest * 10**guess <= LARGEST:
            return guess
        score = f"score{index}"
        exact = [f"bool_and(round({score} * 1e{k}) / 1e{k} = {score})" for k in range(DIGITS + 1)]
        found = self.con.execute(f"SELECT {', '.join(exact)} FROM ({self._source()})").fetchone()
        assert found is not None
        return next((k for k, good in enumerate(found) if good and largest * 10**k <= LARGEST), None)

    # ------------------------------------------------------------------ soundness

    def _sound(self, groups: Sequence[_Group]) -> bool:
        """Whether every row of every group is as it must be."""
        types = {kind for group in groups for kind in group.unit_types}
        return len(types) == 1 and all(self._sound_group(group) for group in groups)

    def _sound_group(self, group: _Group) -> bool:
        arm = None if group.condition is None else self.arms.names.get(group.condition)
        if arm is None or group.unit in (None, ""):
            return False
        if self.seeded and group.seed not in self.arms.seeds[arm]:
            return False
        if self.sampled and (group.samples.there or 0) < group.n:
            return False
        return all(
            score.wrong == 0 and (score.low is None or (scale.low <= score.low and (score.high or 0.0) <= scale.high))
            for score, scale in zip(group.scores, self.scales, strict=True)
        )

    def _cells(self, groups: Sequence[_Group]) -> dict[_Cell, list[_Group]]:
        """Groups of declared arms by unit, arm and seed."""
        cells: dict[_Cell, list[_Group]] = {}
        for group in groups:
            arm = self.arms.names.get(group.condition or "")
            if arm is not None and group.unit is not None and group.seed is not None:
                cells.setdefault((group.unit, arm, group.seed), []).append(group)
        return cells

    def _repeated(self, groups: Sequence[_Group]) -> list[tuple[Any, ...]]:
        """(unit, arm, seed) of which there are two rows, or (unit, arm, seed, sample); at most SHOWN, sorted."""
        cells = self._cells(groups)
        if not self.sampled:
            return sorted(cell for cell, found in cells.items() if sum(group.n for group in found) > 1)[:SHOWN]
        if self._numbered(cells):
            return []
        names = ", ".join(f"({literal(name)}, {literal(arm)})" for name, arm in self.arms.names.items())
        return self.con.execute(
            f"SELECT unit, arm, seed, sample FROM ({self._source()}) JOIN (VALUES {names}) t(name, arm) ON condition = name"
            f" WHERE sample IS NOT NULL AND unit IS NOT NULL GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL LIMIT {SHOWN}"
        ).fetchall()

    def _numbered(self, cells: Mapping[_Cell, Sequence[_Group]]) -> bool:
        """Whether the samples of every cell are consecutive integers, each once.

        They are where there are as many as from the least to the largest, and the exclusive or of their hashes is
        that of the whole range; a repeated number in place of a lacking one passes once in 2^64.
        """
        spans: dict[tuple[int, int], set[int]] = {}
        for found in cells.values():
            samples = [group.samples for group in found]
            lows = [part.low for part in samples if part.low is not None]
            highs = [part.high for part in samples if part.high is not None]
            n = sum(part.n for part in samples)
            if n != sum(group.n for group in found) or not lows or n != max(highs) - min(lows) + 1:
                return False
            fingerprint = 0
            for part in samples:
                fingerprint ^= part.fingerprint or 0
            spans.setdefault((min(lows), max(highs)), set()).add(fingerprint)
            if len(spans) > SPANS:
                return False
        for (low, high), fingerprints in spans.items():
            whole = self.con.execute(f"SELECT bit_xor(hash(i::BIGINT)) FROM range({low}, {high + 1}) t(i)").fetchone()
            if whole is None or fingerprints != {whole[0]}:
                return False
        return True

    # ------------------------------------------------------------------ what is wrong

    def _refuse(self, groups: Sequence[_Group], repeated: Sequence[tuple[Any, ...]]) -> None:
        """Raise Fault R1605 with the rows that are wrong, or R1606 where they only repeat."""
        self.con.execute("SET preserve_insertion_order = true")
        wrong = list(self._wrong_rows(groups))
        twice = self._second_rows(repeated) if repeated else []
        listed = sorted([*wrong, *twice], key=lambda found: found[:2])
        numbers: dict[int, list[int]] = {}
        for file, row, _ in listed:
            numbers.setdefault(file, []).append(row)
        places = {file: self.views[file].places(rows) for file, rows in numbers.items()}
        problems = [
            Problem(file=self.views[file].shown, place=places[file][row], text=text) for file, row, text in listed
        ]
        if not problems:
            raise AssertionError("rows were refused, and none of them is wrong")
        if wrong:
            raise refusal("R1605", problems, more=len(wrong) >= LISTED)
        remedy = (
            ARMS_REPEAT if not self.sampled else "a sample is counted once: take the copies out, or number them apart"
        )
        raise refusal("R1606", problems, remedy)

    def _wrong_rows(self, groups: Sequence[_Group]) -> Iterator[tuple[int, int, str]]:
        """(file, row, problem) of rows that are not as they must be."""
        types = {kind for group in groups for kind in group.unit_types}
        mixed = len(types) > 1
        first_type = self._first_type() if mixed else None
        known = ", ".join(map(literal, self.arms.names))
        conditions = [
            "unit IS NULL", "unit::VARCHAR = ''", f"condition IS NULL OR condition NOT IN ({known})", "outcome IS NULL OR outcome = ''",
            *([f"unit_type <> {literal(first_type)}"] if first_type else []),
            *(["sample_there IS NULL"] if self.sampled else []),
        ]  # fmt: skip
        if self.seeded:
            declared = [
                f"(condition = {literal(name)} AND seed IN ({', '.join(map(str, self.arms.seeds[arm]))}))"
                for name, arm in self.arms.names.items()
            ]
            conditions.append(f"seed IS NULL OR NOT ({' OR '.join(declared)})")
        for index, scale in enumerate(self.scales):
            score = f"score{index}"
            conditions.append(
                f"outcome = '{SCORED}' AND ({score} IS NULL OR NOT ({score} >= {scale.low!r}::DOUBLE AND {score} <= {scale.high!r}::DOUBLE))"
            )
            conditions.append(f"outcome <> '{SCORED}' AND there{index} IS NOT NULL")
        view = self.views[0]
        rules = Rules(
            unit=view.unit.name, condition=view.condition.name, seed=view.seed.name if view.seed else "", sample=view.sample.name if view.sample else "",
            outcome=view.outcome.name if view.outcome else "", scores=tuple(score.name for score in view.scores), scales=tuple(self.scales),
            arms=self.arms.names, seeds=self.arms.seeds, unit_type=first_type,
        )  # fmt: skip
        said = [
            "unit",
            "condition",
            "seed",
            "sample",
            "outcome",
            *(f"score{index}" for index in range(len(self.scales))),
        ]
        where = " OR ".join(f"coalesce({condition}, true)" for condition in conditions)
        rows = self.con.execute(
            f"SELECT file, row, {', '.join(f'{name}_said' for name in said)} FROM ({self._source(listed=True)})"
            f" WHERE {where} ORDER BY file, row LIMIT {LISTED}"
        ).fetchall()
        for file, row, unit, condition, seed, sample, outcome, *scores in rows:
            text = RowText(
                unit=unit, condition=condition, seed=seed if self.seeded else None, sample=sample if self.sampled else None,
                outcome=outcome if self._has_outcome else None, scores=tuple(scores),
            )  # fmt: skip
            for problem in row_problems(text, rules):
                yield file, row, problem

    def _first_type(self) -> str:
        found = self.con.execute(f"SELECT unit_type FROM ({self._source()}) WHERE unit IS NOT NULL LIMIT 1").fetchone()
        return str(found[0]) if found else "text"

    def _second_rows(self, repeated: Sequence[tuple[Any, ...]]) -> list[tuple[int, int, str]]:
        """(file, row, problem) of the second row of each repeated key."""
        keys = ["unit", "arm", "seed", *(["sample"] if self.sampled else [])]
        names = ", ".join(f"({literal(name)}, {literal(arm)})" for name, arm in self.arms.names.items())
        wanted = ", ".join(f"({', '.join(literal(str(part)) for part in key)})" for key in repeated)
        matched = ", ".join(f"{key}::VARCHAR" for key in keys)
        rows = self.con.execute(
            f"SELECT file, row, unit, arm, sample, first_file, first_row FROM (SELECT *, row_number() OVER w AS place,"
            f" first_value(file) OVER w AS first_file, first_value(row) OVER w AS first_row"
            f" FROM ({self._source(listed=True)}) JOIN (VALUES {names}) t(name, arm) ON condition = name"
            f" WHERE ({matched}) IN ({wanted}) WINDOW w AS (PARTITION BY {', '.join(keys)} ORDER BY file, row))"
            " WHERE place = 2 ORDER BY file, row"
        ).fetchall()
        found = []
        for file, row, unit, arm, sample, first_file, first_row in rows:
            place = self.views[first_file].places([first_row])[first_row]
            there = place if file == first_file else f"{self.views[first_file].shown} {place}"
            if self.sampled:
                text = f'a second sample "{sample}" of unit "{unit}" within condition {arm}, after {there}'
            else:
                text = f'rows repeat unit "{unit}" within condition {arm}, first in {there}'
            found.append((file, row, text))
        return found

    def _same_items(self, groups: Sequence[_Group]) -> None:
        """Raise Fault R1609 where one unit is not the same item everywhere."""
        items: dict[Any, dict[str, str]] = {}
        for group in groups:
            for item in group.items:
                if item is not None and group.condition is not None:
                    items.setdefault(group.unit, {}).setdefault(item, group.condition)
        differ = [
            (unit, list(found.values()))
            for unit, found in sorted(items.items(), key=lambda pair: str(pair[0]))
            if len(found) > 1
        ]
        if differ:
            unit, where = differ[0]
            raise Fault(
                "R1609", ", ".join(view.shown for view in self.views),
                f'unit "{unit}" is one item in {where[0]} and another in {where[1]}'
                + (f", and so are {len(differ) - 1} more units" if len(differ) > 1 else ""),
                "units are paired between arms, so each must be the same item in all: run every arm on the same items",
            )  # fmt: skip

    def _all_arms(self, groups: Sequence[_Group]) -> None:
        """Raise Fault R1607 where an arm that is analysed has no row."""
        there = {self.arms.names[group.condition] for group in groups if group.condition is not None}
        absent = sorted(set(self.arms.read) - there)
        if absent:
            known = sorted({group.condition for group in groups if group.condition is not None})
            raise Fault(
                "R1607", ", ".join(view.shown for view in self.views),
                f"there is no row of condition {' and '.join(absent)}{did_you_mean(absent[0], known)}",
                "add its results, or say under `conditions:` of the entry what the file calls it",
            )  # fmt: skip

    # ------------------------------------------------------------------ totals

    def _rows(self, index: int, groups: Sequence[_Group], k: int | None, mode: Mode) -> Iterator[MeasurementRow]:
        denominator = FIXED_POINT if k is None else 10**k
        metric = self.scales[index].metric
        cells = [(arm, str(unit), seed, found) for (unit, arm, seed), found in self._cells(groups).items()]
        for arm, unit, seed, found in sorted(cells, key=lambda cell: cell[:3]):
            n = sum(group.scores[index].n for group in found)
            total = sum(int(group.scores[index].total or 0) for group in found)
            each = sorted(score for group in found for score in group.scores[index].each or ())
            yield MeasurementRow(
                mode=mode, condition=arm, condition_key=self.arms.keys[arm], seed=seed if self.seeded else self.arms.seeds[arm][0],
                metric=metric, unit=unit, n=n, n_missing=sum(group.n for group in found) - n, total=total, denominator=denominator,
                value=float(Fraction(total, denominator) / n) if n else None, scores=tuple(each) if self.scales[index].kept else None,
            )  # fmt: skip


def _decimals_of(value: float) -> int:
    """Decimals of the shortest text that reads as this double, at most 15."""
    exponent = Fraction(repr(value)).denominator
    return next((k for k in range(DIGITS + 1) if 10**k % exponent == 0), DIGITS)


def _overflows(index: int, groups: Sequence[_Group], k: int) -> bool:
    """Whether a sum of scores times 10^k may leave the integers that float64 holds."""
    return any(
        group.n * max(abs(group.scores[index].low or 0.0), abs(group.scores[index].high or 0.0)) * 10**k >= FLOAT_EXACT
        for group in groups
    )
