"""CSV, JSON Lines and Parquet as views: which column or path holds what, by the spec's `mapping`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from epc.compiler.contract.manifest import ResultColumns, ResultsFile
from epc.runtime.errors import Fault
from epc.runtime.results.columns import Field, View, identifier, literal
from epc.runtime.results.files import Source
from epc.runtime.results.problems import LISTED, Problem, did_you_mean, refusal

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

NUMBER: Final = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
LONGEST_RECORD: Final = 1 << 25
"""Bytes of a JSON record. DuckDB holds twice as much for every thread."""
_INTEGERS: Final = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "UHUGEINT",
)
_JSON_KINDS: Final = {
    "VARCHAR": "text", "BOOLEAN": "boolean", "ARRAY": "list", "OBJECT": "object",
    "UBIGINT": "number", "BIGINT": "number", "DOUBLE": "number", "HUGEINT": "number", "UHUGEINT": "number",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Columns that an entry reads, as the spec names them."""

    mapping: ResultColumns
    arm: str | None
    """Of every row, where no column names it."""
    scores: Mapping[str, str]
    """Metric -> column or path."""
    booleans: Collection[str] = ()
    """Metrics whose format writes true and false for 1 and 0."""


def wanted(entry: ResultsFile) -> Wanted:
    """What the mapping of a csv, jsonl or parquet entry says. Raises Fault R1604 when it cannot be read."""
    mapping = entry.mapping
    if mapping is None or (mapping.condition is None) == (entry.condition is None):
        fact = "has no mapping" if mapping is None else "needs one of `mapping.condition` and `condition`"
        raise Fault(
            "R1604", entry.file, f"results `{entry.name}` {fact}", "say which column holds what, and compile the spec again"
        )  # fmt: skip
    return Wanted(mapping=mapping, arm=entry.condition, scores=entry.scores)


def _view(
    source: Source, want: Wanted, relation: str, row: str, field: Callable[[str, str], Field], number: Callable[[str], str],
    places: Callable[[Sequence[int]], Mapping[int, str]], item: str = "NULL::VARCHAR",
) -> View:  # fmt: skip
    """`field(name, role)` finds a column; `role` is unit, condition, seed, sample, outcome or the metric's name."""
    mapping = want.mapping
    return View(
        shown=source.shown, relation=relation, row=row, unit=field(mapping.unit, "unit"),
        condition=Field.constant("condition", want.arm or "") if mapping.condition is None else field(mapping.condition, "condition"),
        seed=None if mapping.seed is None else field(mapping.seed, "seed"),
        sample=None if mapping.sample is None else field(mapping.sample, "sample"),
        number=None if mapping.sample is None else number(mapping.sample),
        outcome=None if mapping.outcome is None else field(mapping.outcome, "outcome"),
        scores=tuple(field(name, metric) for metric, name in want.scores.items()), places=places, item=item,
    )  # fmt: skip


def _columns_of(want: Wanted) -> dict[str, str]:
    """Key of the spec -> column."""
    mapping = {f"mapping.{key}": name for key, name in want.mapping.model_dump().items() if name is not None}
    return mapping | {f"metrics.{metric}.score": name for metric, name in want.scores.items()}


def lacking(source: Source, missing: Mapping[str, str], known: Collection[str]) -> Fault:
    """Columns that are not in a file, all at once."""
    listed = "; ".join(f'{key}: there is no "{name}"{did_you_mean(name, known)}' for key, name in missing.items())
    return Fault("R1604", f"{source.shown}:1", listed, "correct the mapping in the spec, and compile it again")


# ---------------------------------------------------------------------- CSV


def csv_view(con: DuckDBPyConnection, source: Source, want: Wanted) -> View:
    """A CSV file with a header, comma-separated, in UTF-8. Raises Fault R1602 and R1604."""
    header = _header(source)
    missing = {key: name for key, name in _columns_of(want).items() if name not in header}
    if missing:
        raise lacking(source, missing, header)

    def field(name: str, role: str) -> Field:
        column = identifier(name)
        match role:
            case "unit" | "condition" | "outcome" | "sample":
                value = column
            case "seed":
                value = f"CASE WHEN regexp_full_match({column}, '\\d+') THEN TRY_CAST({column} AS BIGINT) END"
            case _:
                value = f"CASE WHEN regexp_full_match({column}, '{NUMBER}') THEN TRY_CAST({column} AS DOUBLE) END"
        kind = "'text'" if role == "unit" else "'cell'"
        return Field(name=name, value=value, text=column, type=kind, there=column)

    columns = "{" + ", ".join(f"{literal(name)}: 'VARCHAR'" for name in header) + "}"
    relation = (
        f"read_csv({literal(str(source.path))}, auto_detect = false, header = true, columns = {columns}, delim = ',', quote = '\"',"
        " escape = '\"', nullstr = '', null_padding = false, strict_mode = true)"
    )
    return _view(
        source, want, relation, "row_number() OVER ()", field,
        lambda name: f"TRY_CAST({identifier(name)} AS BIGINT)", lambda rows: _csv_places(source, rows),
    )  # fmt: skip


def _header(source: Source) -> list[str]:
    try:
        with source.path.open(encoding="utf-8-sig", newline="") as handle:
            header = next(csv.reader(handle, strict=True), [])
    except (UnicodeDecodeError, csv.Error):
        raise damaged_csv(source) or _unreadable(source, "its header cannot be read") from None
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise Fault(
            "R1604",
            f"{source.shown}:1",
            f"two columns are called {', '.join(twice)}",
            "give every column a name of its own",
        )
    if len(header) == 1 and any(mark in header[0] for mark in ";\t|"):
        raise Fault(
            "R1604", f"{source.shown}:1", f'the header is one column, "{header[0]}": columns are separated by commas',
            "write the file with commas between the columns",
        )  # fmt: skip
    return header


def _csv_places(source: Source, rows: Sequence[int]) -> Mapping[int, str]:
    """Lines on which records begin; a quoted field may hold line breaks."""
    wanted_rows, found = set(rows), {}
    with source.path.open(encoding="utf-8-sig", newline="") as handle:
        reader = csv.reader(handle)
        next(reader, None)
        number, before = 0, reader.line_num
        for record in reader:
            if record:
                number += 1
                if number in wanted_rows:
                    found[number] = f"line {before + 1}"
            before = reader.line_num
    return found


def damaged_csv(source: Source) -> Fault | None:
    """Every record that breaks a CSV file: another number of fields, or bytes that are not UTF-8."""
    problems: list[Problem] = []
    texts: list[str] = []

    def lines() -> Iterator[str]:
        with source.path.open("rb") as handle:
            for number, line in enumerate(handle, start=1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    texts.append(_not_utf8(error))
                    yield line.decode("utf-8", "replace")

    reader = csv.reader(lines(), strict=True)
    width: int | None = None
    try:
        before = 0
        for record in reader:
            place = f"line {before + 1}"
            before = reader.line_num
            problems += [Problem(file=source.shown, place=f"line {reader.line_num}", text=text) for text in texts]
            texts.clear()
            if width is None:
                width = len(record)
            elif record and len(record) != width:
                problems.append(
                    Problem(
                        file=source.shown, place=place, text=f"{len(record)} fields, the header has {width} columns"
                    )
                )
            if len(problems) >= LISTED:
                break
    except csv.Error as error:
        problems.append(Problem(file=source.shown, place=f"line {reader.line_num}", text=f"not CSV: {error}"))
    return _damage(problems)


# ---------------------------------------------------------------------- JSON Lines


def jsonl_view(
    con: DuckDBPyConnection, source: Source, want: Wanted, *, places: Callable[[Sequence[int]], Mapping[int, str]] | None = None,
    item: str | None = None,
) -> View:  # fmt: skip
    """A file with one JSON object a line. Raises Fault R1602 and R1604."""
    first = _first_record(source)
    known = _paths(first)
    names = _columns_of(want)
    relation = (
        f"(SELECT json, row_number() OVER () AS row FROM read_json_objects({literal(str(source.path))},"
        f" format = 'newline_delimited', maximum_object_size = {LONGEST_RECORD}))"
    )
    missing = {key: name for key, name in names.items() if name not in known and not _anywhere(con, relation, name)}
    if missing:
        raise lacking(source, missing, known)

    def field(name: str, role: str) -> Field:
        path = _json_path(name, literal_key=name in first)
        kind = f"json_type(json, {path})"
        named = " ".join(f"WHEN '{theirs}' THEN '{ours}'" for theirs, ours in _JSON_KINDS.items())
        text = f"CASE WHEN {kind} <> 'NULL' THEN json_extract_string(json, {path}) END"
        number = f"{kind} IN ('UBIGINT', 'BIGINT', 'DOUBLE', 'HUGEINT', 'UHUGEINT')"
        match role:
            case "unit" | "sample":
                value = (
                    f"CASE WHEN {kind} IN ('VARCHAR', 'UBIGINT', 'BIGINT') THEN json_extract_string(json, {path}) END"
                )
            case "condition" | "outcome":
                value = f"CASE WHEN {kind} = 'VARCHAR' THEN json_extract_string(json, {path}) END"
            case "seed":
                value = f"CASE WHEN {kind} = 'UBIGINT' THEN TRY_CAST(json_extract_string(json, {path}) AS BIGINT) END"
            case _:
                flag = (
                    f"WHEN {kind} = 'BOOLEAN' THEN (json_extract_string(json, {path}) = 'true')::INT"
                    if role in want.booleans
                    else ""
                )
                value = f"CASE WHEN {number} THEN TRY_CAST(json_extract_string(json, {path}) AS DOUBLE) {flag} END"
        return Field(name=name, value=value, text=text, type=f"CASE {kind} {named} END", there=text)

    def sample_number(name: str) -> str:
        path = _json_path(name, literal_key=name in first)
        return f"TRY_CAST(json_extract_string(json, {path}) AS BIGINT)"

    return _view(
        source, want, relation, "row", field, sample_number, places or (lambda rows: _jsonl_places(source, rows)),
        item or "NULL::VARCHAR",
    )  # fmt: skip


def json_text(name: str) -> str:
    """A key of a JSON record as text, in SQL."""
    return f"json_extract_string(json, {_json_path(name, literal_key=True)})"


def _json_path(name: str, *, literal_key: bool) -> str:
    parts = [name] if literal_key else name.split(".")
    return literal("$" + "".join('."' + part.replace('"', '\\"') + '"' for part in parts))


def _anywhere(con: DuckDBPyConnection, relation: str, name: str) -> bool:
    found = con.execute(
        f"SELECT 1 FROM {relation} WHERE json_exists(json, {_json_path(name, literal_key=False)}) LIMIT 1"
    )
    return found.fetchone() is not None


def _paths(record: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in record.items():
        found.append(prefix + key)
        if isinstance(value, dict):
            found += _paths(value, f"{prefix}{key}.")
    return found


def _first_record(source: Source) -> dict[str, Any]:
    with source.path.open("rb") as handle:
        for line in handle:
            if line.strip():
                try:
                    record = json.loads(line)
                except ValueError:
                    break
                if isinstance(record, dict):
                    return record
                break
    raise damaged_jsonl(source) or Fault(
        "R1602", source.shown, "there is no row in it", "a file without rows says nothing about any arm: write it again"
    )


def _jsonl_places(source: Source, rows: Sequence[int]) -> Mapping[int, str]:
    """Lines of records; blank lines are none."""
    wanted_rows, found, number = set(rows), {}, 0
    with source.path.open("rb") as handle:
        for line_number, line in enumerate(handle, start=1):
            if line.strip():
                number += 1
                if number in wanted_rows:
                    found[number] = f"line {line_number}"
    return found


def damaged_jsonl(source: Source) -> Fault | None:
    """Every line that is no JSON object in UTF-8."""
    problems: list[Problem] = []
    with source.path.open("rb") as handle:
        for number, line in enumerate(handle, start=1):
            text = _json_problem(line) if line.strip() else None
            if text is not None:
                problems.append(Problem(file=source.shown, place=f"line {number}", text=text))
            if len(problems) >= LISTED:
                break
    return _damage(problems)


def _json_problem(line: bytes) -> str | None:
    if line.startswith(b"\xef\xbb\xbf"):
        return "begins with a byte order mark: write UTF-8 without one"
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return _not_utf8(error)
    except json.JSONDecodeError as error:
        cut = "; the file was cut short" if not line.endswith(b"\n") else ""
        return f"not JSON: {error.msg} at character {error.pos + 1}{cut}"
    except RecursionError:
        return "not JSON that can be read: it is nested too deeply"
    return None if isinstance(record, dict) else f"a JSON {type(record).__name__}, not an object: one record a line"


# ---------------------------------------------------------------------- Parquet


def parquet_view(con: DuckDBPyConnection, source: Source, want: Wanted) -> View:
    """A Parquet file; rows are numbered from 0. Raises Fault R1602 and R1604."""
    relation = f"read_parquet({literal(str(source.path))}, file_row_number = true)"
    described = con.execute(f"DESCRIBE SELECT * FROM read_parquet({literal(str(source.path))})").fetchall()
    tops = {str(name): str(kind) for name, kind, *_ in described}
    found: dict[str, tuple[str, str]] = {}
    missing: dict[str, str] = {}
    for key, name in _columns_of(want).items():
        sql = _parquet_column(name, tops)
        kind = tops.get(name) or (None if sql is None else _type_of(con, sql, relation))
        if sql is None or kind is None:
            missing[key] = name
        else:
            found[name] = (sql, kind)
    if missing:
        raise lacking(source, missing, tops)
    wrong = list(_wrong_types(want, {name: kind for name, (_, kind) in found.items()}))
    if wrong:
        raise Fault("R1605", f"{source.shown}:0", "; ".join(wrong), "write the column as what it is, then decide again")

    def field(name: str, role: str) -> Field:
        column, kind = found[name]
        text = f"({column})::VARCHAR"
        match role:
            case "unit":
                return Field(
                    name=name, value=column, text=text, type="'number'" if kind in _INTEGERS else "'text'", there=column
                )
            case "condition" | "outcome":
                return Field(
                    name=name, value=text if kind != "VARCHAR" else column, text=text, type="'text'", there=column
                )
            case "seed":
                return Field(name=name, value=f"({column})::BIGINT", text=text, type="'number'", there=column)
            case "sample":
                there = f"nullif({column}, '')" if kind == "VARCHAR" else sample_number(name)
                return Field(name=name, value=column, text=text, type="'cell'", there=there)
            case _:  # a float32 is the decimal that it is printed as, not the double nearest to it
                value = (
                    f"({column})::VARCHAR::DOUBLE"
                    if kind == "FLOAT"
                    else column
                    if kind == "DOUBLE"
                    else f"({column})::DOUBLE"
                )
                return Field(name=name, value=value, text=text, type="'number'", there=column)

    def sample_number(name: str) -> str:
        column, kind = found[name]
        return (
            column
            if kind == "BIGINT"
            else f"({column})::BIGINT"
            if kind in _INTEGERS and "HUGE" not in kind and kind != "UBIGINT"
            else f"TRY_CAST(({column})::VARCHAR AS BIGINT)"
        )

    return _view(
        source,
        want,
        relation,
        "file_row_number",
        field,
        sample_number,
        lambda rows: {row: f"row {row}" for row in rows},
    )


def _parquet_column(name: str, tops: Mapping[str, str]) -> str | None:
    if name in tops:
        return identifier(name)
    top, *rest = name.split(".")
    if top not in tops or not rest:
        return None
    sql = identifier(top)
    for part in rest:
        sql = f"struct_extract({sql}, {literal(part)})"
    return sql


def _type_of(con: DuckDBPyConnection, sql: str, relation: str) -> str | None:
    import duckdb

    try:
        described = con.execute(f"DESCRIBE SELECT {sql} AS found FROM {relation}").fetchone()
    except duckdb.BinderException:
        return None
    return None if described is None else str(described[1])


def _wrong_types(want: Wanted, kinds: Mapping[str, str]) -> Iterator[str]:
    mapping = want.mapping
    for name in (mapping.unit, mapping.sample):
        if name is not None and kinds[name] not in _INTEGERS and not _is_text(kinds[name]):
            yield f'column "{name}" is {kinds[name]}: units and samples are named by text or integers'
    for name in (mapping.condition, mapping.outcome):
        if name is not None and not _is_text(kinds[name]):
            yield f'column "{name}" is {kinds[name]}, not text'
    if mapping.seed is not None and kinds[mapping.seed] not in _INTEGERS:
        yield f'column "{mapping.seed}" is {kinds[mapping.seed]}: training seeds are integers'
    for name in dict.fromkeys(want.scores.values()):
        kind = kinds[name]
        if kind == "BOOLEAN":
            yield f'column "{name}" is boolean: write 1 and 0 as integers, and declare the scale [0, 1]'
        elif _is_text(kind):
            yield f'column "{name}" is text: scores are numbers, not numbers written as text'
        elif kind not in (*_INTEGERS, "FLOAT", "DOUBLE") and not kind.startswith("DECIMAL"):
            yield f'column "{name}" is {kind}, not a number'


def _is_text(kind: str) -> bool:
    return kind in ("VARCHAR", "UUID") or kind.startswith("ENUM")


# ---------------------------------------------------------------------- what cannot be read


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8: byte 0x{error.object[error.start]:02x} at character {error.start + 1}; write the whole file in UTF-8"


def _damage(problems: Sequence[Problem]) -> Fault | None:
    if not problems:
        return None
    return refusal("R1602", problems, "write the file again, whole and in UTF-8", more=len(problems) >= LISTED)


def _unreadable(source: Source, reason: str) -> Fault:
    return Fault("R1602", source.shown, f"the file cannot be read: {reason}", "write it again, whole")


def damaged(source: Source, format_: str, reason: str) -> Fault:
    """What is wrong with a file that DuckDB could not read; `reason` is its own word for it."""
    found = None
    if format_ == "csv":
        found = damaged_csv(source)
    elif format_ in ("jsonl", "lm_eval"):
        found = damaged_jsonl(source)
    elif format_ == "parquet":
        return _unreadable(source, f"it is no whole Parquet file ({reason}); was it cut short?")
    return found or _unreadable(source, reason)
