"""Human labels for a judge: which completions people are asked about, and what they said.

The completions are drawn at random from every arm, the same ones on every machine, and shown blind: an opaque
id, the question and the answer, in an order that mixes the arms. Who has the bundle can look an id up; the
file does not tell. An id is of the completion's words too, so that a label is never taken for another text.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from epc.compiler.contract.canonical import sha256_json
from epc.compiler.contract.draws import draw
from epc.compiler.contract.manifest import Judge, Manifest, Step
from epc.compiler.contract.rows import OfCompletion, SampleRow
from epc.runtime import bundle as bundles
from epc.runtime.errors import Fault
from epc.runtime.judging.replies import bounds
from epc.runtime.judging.stored import StoredCompletions
from epc.runtime.results.problems import LONGEST, Problem, did_you_mean, refusal
from epc.runtime.step import read_record
from epc.runtime.wording import count

ID: Final = "id"
RATER: Final = "rater"
SHOWN_COLUMNS: Final = ("question", "answer")
FORMATS: Final = {".csv": "csv", ".jsonl": "jsonl"}
REMEDY: Final = "correct these rows of the labels, then go on; an empty label is one that nobody gave"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""A cell that begins so is run as a formula by spreadsheets, and completions are anybody's words."""
_WORDS: Final = {"true": 1, "yes": 1, "1": 1, "false": 0, "no": 0, "0": 0}
_INTEGER: Final = re.compile(r"[+-]?\d{1,18}(\.0*)?")
_NUMBERED: Final = re.compile(r"(.+)_(\d{1,3})")
_CELL: Final = (1 << 31) - 1
"""Longest cell that is read, in characters."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A completion that people are asked about."""

    id: str
    row: SampleRow


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What people said. A completion or a field that nobody labelled is absent."""

    sha256: str
    raters: tuple[str, ...]
    """Columns of one rater are named after their number; a single rater is `human`."""
    of: Mapping[str, Mapping[str, Mapping[str, int]]]
    """Completion -> field -> rater -> label; of a bool 0 or 1."""
    left_out: int
    """Rows of completions that were not drawn."""


def step_of(manifest: Manifest, judge: str) -> Step:
    """The step of a judge. Raises Fault R1801 when no metric reads the judge."""
    for step in manifest.steps:
        if step.kind == "judge" and step.recipe.get("judge") == judge:
            return step
    raise Fault(
        "R1801", judge, "this judge scores nothing here: no metric reads it",
        "name a judge that a metric reads, or give it a metric in the spec and compile again",
    )  # fmt: skip


def completions_of(bundle: Path, manifest: Manifest, judge: str) -> StoredCompletions:
    """Every completion that a judge is asked about.

    Raises Fault R1801 when no metric reads the judge, R1802 when they are not all sampled, R0804 and R0805 when they
    are damaged.
    """
    step = step_of(manifest, judge)
    samples = [need for need in manifest.steps if need.id in step.needs and need.kind == "sample"]
    for need in samples:
        if read_record(bundle, need) is None:
            raise Fault(
                "R1802", str(bundles.store(bundle, need)), f"the completions for {judge} are not sampled yet",
                f"sample them first: epc run --until {need.id}",
            )  # fmt: skip
    return StoredCompletions(bundle, [bundles.store(bundle, need) for need in samples], sets=step.recipe["sets"])


def identity(row: SampleRow) -> str:
    """A completion's id: 60 bits of the SHA-256 of its identity, question and text. It begins with a letter, so that no
    spreadsheet reads it as a number."""
    named = row.model_dump(include=set(OfCompletion.model_fields))
    return "c" + sha256_json({**named, "question": row.question, "text": row.text})[:15]


def sample(completions: StoredCompletions, judge: str, *, per_arm: int, seed: int) -> tuple[Drawn, ...]:
    """The completions to be labelled, in the order in which they are shown.

    From every arm the `per_arm` completions with the smallest SHA-256 draws of (seed, judge, identity): a simple
    random sample without replacement. A smaller sample is part of a larger one, and no arm's depends on another's. An
    arm that has fewer gives all.
    """
    arms: dict[str, list[tuple[int, int]]] = {}
    for position, place in enumerate(completions.places):
        own = draw(
            "gold", seed, judge, place.set, place.item, place.turn, place.number, place.condition, place.seed
        )  # fmt: skip
        arms.setdefault(place.condition, []).append((own, position))
    rows = [completions.read(position) for found in arms.values() for _, position in sorted(found)[:per_arm]]
    drawn = [Drawn(id=identity(row), row=row) for row in rows]
    return tuple(sorted(drawn, key=lambda each: draw("gold order", seed, each.id)))


# ------------------------------------------------------------------------ writing


def write(file: Path, drawn: Sequence[Drawn], fields: Collection[str]) -> bool:
    """Write the completions with empty label columns; False where the file is there already, without a label.

    Raises Fault R1803 for a name that is neither .csv nor .jsonl, R1804 where another file is there, R1805 where it
    cannot be written.
    """
    text = _text(_format(file), drawn, fields)
    try:
        if file.exists():
            if file.read_bytes() == text.encode("utf-8"):
                return False
            raise Fault(
                "R1804", str(file), "there is a file already, and labels are never overwritten",
                "name another file with --out, or move this one away",
            )  # fmt: skip
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8", newline="") as handle:
            handle.write(text)
    except OSError as error:
        raise Fault(
            "R1805", str(file), f"the completions cannot be written: {error.strerror}",
            "make room or the folder writable, or name another file with --out",
        ) from None  # fmt: skip
    return True


def _format(file: Path) -> str:
    found = FORMATS.get(file.suffix.lower())
    if found is None:
        raise Fault(
            "R1803", str(file), f"a file of labels is named .csv or .jsonl, not {file.suffix or 'without an ending'}",
            "rename it, in the spec too",
        )  # fmt: skip
    return found


def _text(kind: str, drawn: Sequence[Drawn], fields: Collection[str]) -> str:
    rows = [{ID: each.id, "question": _clean(each.row.question), "answer": _clean(each.row.text)} for each in drawn]
    if kind == "jsonl":
        return "".join(json.dumps({**row, **dict.fromkeys(fields)}, ensure_ascii=False) + "\n" for row in rows)
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([ID, *SHOWN_COLUMNS, *fields])
    for row in rows:
        shown = ("'" + text if text.startswith(_FORMULA) else text for text in (row["question"], row["answer"]))
        writer.writerow([row[ID], *shown, *("" for _ in fields)])
    return out.getvalue()


def _clean(text: str) -> str:
    """Half a surrogate pair, which no file can hold, is spelt out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


# ------------------------------------------------------------------------ reading


@dataclass(frozen=True, kw_only=True)
class _Row:
    place: str
    values: Mapping[str, Any]
    """Column -> what stands there; texts in CSV."""


class _Reading:
    """One file of labels, every problem of it collected."""

    def __init__(self, name: str, judge: Judge, drawn: Collection[str], others: Collection[str]) -> None:
        self.name, self.judge, self.drawn, self.others = name, judge, set(drawn), set(others)
        self.needed = () if judge.gold is None else tuple(sorted({*judge.gold.kappa, *judge.gold.bias}))
        """Fields that must have a column; without any, one of all fields must."""
        self.problems: list[Problem] = []

    def problem(self, place: str, text: str) -> None:
        self.problems.append(Problem(file=self.name, place=place, text=text))

    def refuse(self, remedy: str = REMEDY) -> None:
        if self.problems:
            raise refusal("R1807", self.problems, remedy)

    def rows(self, kind: str, text: str) -> list[_Row]:
        return list(self._csv(text) if kind == "csv" else self._jsonl(text))

    def _csv(self, text: str) -> Iterator[_Row]:
        first = text.partition("\n")[0]
        # A spreadsheet separates by what its language's decimal sign leaves free.
        marks = [mark for mark in ",;\t" if ID in (cell.strip().strip('"') for cell in first.split(mark))]
        before = csv.field_size_limit(_CELL)
        try:
            reader = csv.reader(io.StringIO(text, newline=""), delimiter=marks[0] if marks else ",", strict=True)
            names: list[str] | None = None
            end = 0
            for cells in reader:
                place, end = f"line {end + 1}", reader.line_num
                if names is None:
                    names = [cell.strip() for cell in cells]
                    twice = sorted({name for name in names if name and names.count(name) > 1})
                    if twice:
                        self.problem(place, f"the column {twice[0]} is there twice")
                elif len(cells) != len(names) and any(cells):
                    self.problem(place, f"{count(len(cells), 'cell')}, and the header has {len(names)}")
                elif any(cells):
                    yield _Row(place=place, values=dict(zip(names, cells, strict=True)))
        except csv.Error as error:
            self.problem(f"line {end + 1}", f"this is no CSV: {error}")
        finally:
            csv.field_size_limit(before)

    def _jsonl(self, text: str) -> Iterator[_Row]:
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                self.problem(f"line {number}", "this is not JSON")
                continue
            if isinstance(value, dict):
                yield _Row(place=f"line {number}", values=value)
            else:
                self.problem(f"line {number}", "this is no JSON object")

    def columns(self, rows: Sequence[_Row]) -> dict[str, dict[str, str]]:
        """Field -> rater -> column; by a `rater` column, or a single person, the rater is ''."""
        names = list(dict.fromkeys(name for row in rows for name in row.values))
        wanted = [ID, *self.judge.output]
        spare = [name for name in names if name not in (*wanted, RATER, *SHOWN_COLUMNS) and not self._numbered(name)]
        if ID not in names:
            self.problem("line 1", f"there is no column {ID}{did_you_mean(ID, spare)}")
        found: dict[str, dict[str, str]] = {}
        for field in self.judge.output:
            of = {match[2]: name for name in names if (match := self._numbered(name)) and match[1] == field}
            if field in names and of:
                self.problem("line 1", f"there are columns {field} and {', '.join(of.values())}: which one is it?")
            if of and RATER in names:
                self.problem(
                    "line 1", f"there are a column {RATER} and columns {', '.join(of.values())}: use one of both"
                )
            if field in names:
                found[field] = {"": field}
            elif of:
                found[field] = dict(sorted(of.items(), key=lambda item: int(item[0])))
        for field in self.needed or (() if found else tuple(self.judge.output)):
            if field not in found:
                self.problem("line 1", f"there is no column {field}{did_you_mean(field, spare)}")
        return found

    def _numbered(self, name: str) -> re.Match[str] | None:
        match = _NUMBERED.fullmatch(name)
        return match if match and match[1] in self.judge.output else None

    def label(self, place: str, column: str, field: str, value: Any) -> int | None:
        """A label, None where nobody gave one or it is none."""
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        text = json.dumps(value) if isinstance(value, bool | int | float) else str(value).strip()
        shown = text if len(text) <= LONGEST else text[:LONGEST] + "..."
        ends = bounds(self.judge.output[field])
        if ends is None:
            label = _WORDS.get(text.lower())
            if label is None:
                self.problem(place, f'{column} is "{shown}", which is neither true nor false')
            return label
        if not _INTEGER.fullmatch(text) or isinstance(value, bool):
            self.problem(place, f'{column} is "{shown}", which is no whole number')
            return None
        number = int(text.partition(".")[0])
        if not ends[0] <= number <= ends[1]:
            self.problem(place, f"{column} is {number}, outside {ends[0]} to {ends[1]}")
            return None
        return number


def read(
    file: Path, judge: Judge, drawn: Collection[str], *, name: str, others: Collection[str] = ()
) -> Labels:  # fmt: skip
    """The labels of a file, every problem of it named at once with its row.

    `drawn` are the ids that count; rows of `others`, completions that were not drawn, are left out and counted, so
    that nobody can choose what a judge is audited on. `name` is what a person calls the file. Raises Fault R1803 for
    an ending that is neither .csv nor .jsonl, R1806 when there is no file, or none that can be read, R1807 with all
    problems of its rows.
    """
    kind = _format(file)
    try:
        raw = file.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise Fault(
            "R1806", name, "there are no labels" if missing else f"the labels cannot be read: {error.strerror}",
            f"epc judge sample --judge {judge.name} writes the completions to be labelled" if missing
            else "make the file readable",
        ) from None  # fmt: skip
    reading = _Reading(name, judge, drawn, others)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        reading.problem(f"line {line}", f"this is not UTF-8: byte {raw[error.start]:#04x}")
        reading.refuse("save it as UTF-8; in a spreadsheet: CSV UTF-8")
    if not text.strip():
        reading.problem("line 1", "the file is empty")
        reading.refuse(f"epc judge sample --judge {judge.name} writes the completions to be labelled")
    rows = reading.rows(kind, text)
    if not rows and not reading.problems:
        reading.problem("line 1", "there is no row below the header")
    reading.refuse()
    columns = reading.columns(rows)
    reading.refuse()
    of, left_out = _labels(reading, rows, columns)
    reading.refuse()
    raters = dict.fromkeys(rater for fields in of.values() for given in fields.values() for rater in given)
    return Labels(sha256=hashlib.sha256(raw).hexdigest(), raters=tuple(sorted(raters)), of=of, left_out=left_out)


def _labels(
    reading: _Reading, rows: Sequence[_Row], columns: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, dict[str, dict[str, int]]], int]:
    found: dict[str, dict[str, dict[str, int]]] = {}
    seen: dict[tuple[str, str], str] = {}
    unknown: list[tuple[str, str]] = []
    left_out = 0
    for row in rows:
        own = str(row.values.get(ID) or "").strip()
        rater = str(row.values.get(RATER) or "").strip()
        if not own:
            reading.problem(row.place, f"there is no {ID}")
        elif (own, rater) in seen:
            by = f" by {rater}" if rater else ""
            reading.problem(row.place, f"{own}{by} is there twice, first in {seen[own, rater]}")
        elif own not in reading.drawn and own not in reading.others:
            unknown.append((row.place, own))
        else:
            seen[own, rater] = row.place
        labels = [
            (field, number or rater or "human", reading.label(row.place, column, field, row.values.get(column)))
            for field, of_raters in columns.items()
            for number, column in of_raters.items()
        ]
        left_out += own in reading.others and own not in reading.drawn
        if own in reading.drawn:
            for field, who, label in labels:
                if label is not None:
                    found.setdefault(own, {}).setdefault(field, {})[who] = label
    another = "was it drawn from another bundle, or before these completions were sampled again?"
    if unknown and len(unknown) == len(rows):
        reading.problem(
            unknown[0][0], f"no id of this file is of a completion that {reading.judge.name} judges here: {another}"
        )  # fmt: skip
    else:
        for place, own in unknown:
            shown = own if len(own) <= LONGEST else own[:LONGEST] + "..."
            reading.problem(place, f"{shown} is no completion that {reading.judge.name} judges here: {another}")
    return found, left_out


def judge_named(manifest: Manifest, name: str | None) -> Judge:
    """The judge that is meant; without a name the only one. Raises Fault R1808 where that is none or several."""
    judges = {judge.name: judge for judge in manifest.design.judges}
    if name is not None and name in judges:
        return judges[name]
    if name is None and len(judges) == 1:
        return next(iter(judges.values()))
    fact = "no judge is registered" if not judges else "which judge?" if name is None else f"there is no judge {name}"
    remedy = f"name one with --judge: {', '.join(judges)}" if judges else "judges are declared under `judges` in a spec"
    raise Fault("R1808", manifest.id, fact, remedy)
