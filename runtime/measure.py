"""Rows to measurements: one exact value per metric, arm, training seed and unit."""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from epc.compiler.contract.canonical import json_lines, sha256_json
from epc.compiler.contract.logic import compare
from epc.compiler.contract.rows import JudgementRow, MeasurementRow, Mode, OfCompletion, SampleRow
from epc.runtime import bundle as bundles
from epc.runtime import data, kept
from epc.runtime.errors import Fault
from epc.runtime.measurements import ALL, UNFILTERED
from epc.runtime.step import RECORD, FinishRecord
from epc.runtime.wording import count

Parsed = TypeVar("Parsed", bound=BaseModel)
Arm = tuple[str, int, str]
"""(condition, training seed, condition key)."""
DECIMALS = 9
"""Of a benchmark's score of one item; totals are whole numbers over a denominator."""


def sample_rows(bundle: Path, folder: Path) -> list[SampleRow]:
    """Every completion that a sampling step lists in its index.

    Raises Fault R0361 when a piece is missing, R0362 when it is not the one that was sampled.
    """
    rows: list[SampleRow] = []
    for entry in json.loads((folder / "index.json").read_text(encoding="utf-8")):
        file = bundles.piece(bundle, entry["key"])
        remedy = f"delete {folder} and {file}, then run again: only this piece is sampled anew"
        if not kept.is_there(file):
            raise Fault("R0361", str(file), "the completions are missing", remedy)
        if _content_sha256(file, "R0362", remedy) != entry["sha256"]:
            raise Fault("R0362", str(file), "the completions were altered after they were sampled", remedy)
        rows += _parsed(file, SampleRow, code="R0362", what="sample row", remedy=remedy)
    return rows


def judgement_rows(folder: Path) -> list[JudgementRow]:
    """The final judgements of a judge step, as its finish record knows them.

    Raises Fault R0365 when they are missing, altered since, or no judgement rows.
    """
    file = folder / "judgements.jsonl"
    remedy = f"delete {folder}, then run again: replies that are kept are not asked for again"
    if not kept.is_there(file):
        raise Fault("R0365", str(file), "the judgements are missing", remedy)
    record = FinishRecord.model_validate_json((folder / RECORD).read_text(encoding="utf-8"))
    if _content_sha256(file, "R0365", remedy) != record.outputs.get(file.name):
        raise Fault("R0365", str(file), "the judgements were altered after they were made", remedy)
    rows = _parsed(file, JudgementRow, code="R0365", what="judgement row", remedy=remedy)
    return [row for row in rows if row.final]


def _content_sha256(file: Path, code: str, remedy: str) -> str:
    """Of the rows as they were written. Raises Fault `code` where the file cannot be read."""
    try:
        return kept.sha256(file)
    except OSError as error:
        raise Fault(code, str(file), f"it cannot be read: {error.strerror}", remedy) from None


def _parsed(file: Path, kind: type[Parsed], *, code: str, what: str, remedy: str) -> Iterator[Parsed]:
    """Rows of a JSON Lines file. Raises Fault with the first line that is none."""
    for number, line in enumerate(json_lines(kept.read_text(file)), start=1):
        try:
            yield kind.model_validate_json(line)
        except ValidationError as error:
            raise Fault(code, f"{file}:{number}", f"this is no {what}: {error.errors()[0]['msg']}", remedy) from None


def item_rows(folder: Path) -> list[dict[str, Any]]:
    """Every scored item of a capability step. Raises Fault R0368 where they cannot be read."""
    file = folder / "capability.jsonl"
    try:
        return [json.loads(line) for line in json_lines(kept.read_text(file))]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "these are not rows of JSON"
        raise Fault(
            "R0368", str(file), f"the scored items cannot be read: {reason}", f"restore it, or delete {folder} and run again"
        ) from None  # fmt: skip


def matcher(metric: Mapping[str, Any], bundle: Path) -> Callable[[str], bool]:
    """The rule of a pattern metric as a function of the completion. Raises Fault R0363 for a bad pattern."""
    if "contains" in metric:
        wanted: str = metric["contains"]
        return lambda text: wanted in text
    if "contains_any" in metric:
        any_of = data.read_lines(bundle / metric["contains_any"])
        return lambda text: any(each in text for each in any_of)
    try:
        pattern = re.compile(metric["regex"])
    except re.error as error:
        raise Fault(
            "R0363", metric["name"], f"the pattern cannot be read: {error}", "correct `regex` in the spec"
        ) from None
    return lambda text: pattern.search(text) is not None


def judge_by_pattern(
    samples: Sequence[SampleRow], metric: Mapping[str, Any], *, arms: Sequence[Arm], bundle: Path
) -> list[JudgementRow]:
    """One judgement a completion. Raises Fault R0364 when an arm has no completion in the metric's set."""
    matches = matcher(metric, bundle)
    rule = {key: metric[key] for key in ("contains", "contains_any", "regex") if key in metric}
    if "contains_any" in rule:
        rule["contains_any"] = data.read_lines(bundle / metric["contains_any"])
    rubric = sha256_json(rule)
    chosen = [row for row in samples if row.set == metric["source"]]
    _require_every_arm({(row.condition, row.seed) for row in chosen}, arms, metric)
    return [
        JudgementRow(
            mode=row.mode, condition=row.condition, condition_key=row.condition_key, seed=row.seed, set=row.set, item=row.item,
            turn=row.turn, index=row.index, judge=f"rule:{metric['name']}", vote=0, attempt=0, rubric_sha256=rubric,
            raw="", fields={"match": matches(row.text)}, outcome="scored",
        )
        for row in chosen
    ]  # fmt: skip


def _require_every_arm(found: set[tuple[str, int]], arms: Sequence[Arm], metric: Mapping[str, Any]) -> None:
    absent = [f"{condition}, seed {seed}" for condition, seed, _ in arms if (condition, seed) not in found]
    if absent:
        raise Fault(
            "R0364", metric["name"], f"no rows of {metric['source']} for {'; '.join(absent)}",
            "run the missing step again; a hole is never a zero",
        )  # fmt: skip


def by_prompt(judgements: Iterable[JudgementRow], metric: str, *, scores: bool = False) -> list[MeasurementRow]:
    """Hits and samples of every prompt; with `scores` each row holds those of its samples."""
    return [
        _unit_row(
            rows, metric=metric, of=ALL, scores=[int(row.fields["match"] is True) for row in _scored(rows)],
            scored=len(_scored(rows)), keep=scores,
        )
        for rows in _by_unit(judgements)
    ]  # fmt: skip


def by_judge(
    samples: Sequence[SampleRow], judgements: Sequence[JudgementRow], metric: Mapping[str, Any], *, arms: Sequence[Arm]
) -> list[MeasurementRow]:
    """What a judge said about the completions of the metric's sample set, in total per prompt.

    `judgements` are final ones, of any judge and set, one a vote. The votes about a completion become one
    reply, each field the median or the mean of what they say (`aggregate`), and score and `keep` read that:
    a comparison is made once a completion, so that `coherent < 50` is exactly what `coherent >= 50` leaves
    out. Means of several votes, and medians of an even number of them, are kept exactly, as integers over
    the denominator of the row. A completion of which a vote is not `scored` is missing. With `keep`, slice
    `all` counts in n_filtered the scored completions that it leaves out, and slice `unfiltered` holds the same
    metric over all of them. With `scores` each row holds those of its samples.

    Raises Fault R0364 when an arm has no completion in the set, R0366 when a completion has not exactly
    one judgement a vote, R0367 when a reply lacks a field that the metric reads.
    """
    chosen = [row for row in samples if row.set == metric["source"]]
    _require_every_arm({(row.condition, row.seed) for row in chosen}, arms, metric)
    judged = [row for row in judgements if (row.judge, row.set) == (metric["judge"], metric["source"])]
    _require_one_judgement_a_vote(chosen, judged, metric)
    keep, denominator = metric["keep"], _denominator(metric)
    held = {"metric": metric["name"], "keep": metric.get("scores", False), "denominator": denominator}
    measured: list[MeasurementRow] = []
    for rows in _by_unit(judged):
        scored = [votes for votes in _by_completion(rows) if len(_scored(votes)) == len(votes)]
        scores = [_whole(_score(votes, metric["score"], metric) * denominator) for votes in scored]
        counts = {"rows": rows, "scored": len(scored), "votes": metric.get("votes", 1)}
        if keep is None:
            measured.append(_unit_row(**counts, **held, of=ALL, scores=scores))
            continue
        kept = [score for votes, score in zip(scored, scores, strict=True) if _score(votes, keep, metric)]
        measured.append(_unit_row(**counts, **held, of=ALL, scores=kept))
        measured.append(_unit_row(**counts, **held, of=UNFILTERED, scores=scores))
    return measured


def _by_completion(rows: Iterable[JudgementRow]) -> list[list[JudgementRow]]:
    """The votes about each completion."""
    votes: dict[tuple[Any, ...], list[JudgementRow]] = {}
    for row in rows:
        votes.setdefault(_identity(row), []).append(row)
    return list(votes.values())


def _denominator(metric: Mapping[str, Any]) -> int:
    """What makes every score of the metric a whole number."""
    votes = metric.get("votes", 1)
    if "operator" in metric["score"] or votes == 1:
        return 1
    match metric["aggregate"]:
        case "mean":
            return int(votes)
        case "median":
            return 1 if votes % 2 else 2
        case other:
            raise ValueError(f"{other} is no way to aggregate votes")


def _whole(value: Fraction) -> int:
    assert value.denominator == 1
    return value.numerator


def _identity(row: OfCompletion) -> tuple[str, str, int, str, str, int, int]:
    return (row.condition, row.condition_key, row.seed, row.set, row.item, row.turn, row.index)


def _require_one_judgement_a_vote(
    samples: Sequence[SampleRow], judgements: Sequence[JudgementRow], metric: Mapping[str, Any]
) -> None:
    times = Counter((_identity(row), row.vote) for row in judgements)
    completions = {_identity(row) for row in samples}
    expected = {(identity, vote) for identity in completions for vote in range(metric.get("votes", 1))}
    kinds = {
        "no judgement": sorted({identity for identity, _ in expected - times.keys()}),
        "more than one final judgement": sorted({identity for (identity, _), number in times.items() if number > 1}),
        "a judgement and no completion": sorted({identity for identity, _ in times.keys() - expected} - completions),
        "a vote that was not declared": sorted({identity for identity, _ in times.keys() - expected} & completions),
    }
    wrong = {kind: found for kind, found in kinds.items() if found}
    if not wrong:
        return
    told = []
    for kind, found in wrong.items():
        condition, _, seed, _, item, turn, index = found[0]
        first = f"{condition}, seed {seed}, prompt {item}, turn {turn}, sample {index}"
        told.append(f"{kind} for {count(len(found), 'completion')}, the first: {first}")
    each = "once" if metric.get("votes", 1) == 1 else f"{metric['votes']} times"
    raise Fault(
        "R0366", f"{metric['name']} (judge {metric['judge']}, {metric['source']})", "; ".join(told),
        f"delete the folder of step judge-{metric['judge']}, then run again: each completion is judged {each}, and a hole"
        " is never a zero",
    )  # fmt: skip


def _score(votes: Sequence[JudgementRow], comparison: Mapping[str, Any], metric: Mapping[str, Any]) -> Fraction:
    """A field of the replies, aggregated; with an operator 1 where the comparison holds and 0 where not."""
    values = [_value(row, comparison["field"], metric) for row in votes]
    value = _aggregated(values, metric.get("aggregate"))
    if "operator" not in comparison:
        return value
    return Fraction(compare(value, comparison["operator"], comparison["constant"]) is True)


def _aggregated(values: Sequence[int], how: str | None) -> Fraction:
    """Exactly; with an even number of values the median is the mean of the two in the middle."""
    if len(values) == 1:
        return Fraction(values[0])
    fractions = [Fraction(value) for value in values]
    return statistics.mean(fractions) if how == "mean" else statistics.median(fractions)


def _value(row: JudgementRow, field: str, metric: Mapping[str, Any]) -> int:
    value = row.fields.get(field)
    if not isinstance(value, int):  # bool is one: yes is 1
        told = "lacks it" if value is None else f"has {value!r}"
        raise Fault(
            "R0367", f"{metric['name']} (judge {metric['judge']})",
            f"the score reads field {field!r} as a number, and the judgement of {row.condition}, seed"
            f" {row.seed}, prompt {row.item}, sample {row.index} {told}",
            "the judge's `output` must declare the field; compile again and run",
        )  # fmt: skip
    return int(value)


def _scored(rows: Sequence[JudgementRow]) -> list[JudgementRow]:
    return [row for row in rows if row.outcome == "scored"]


def _by_unit(judgements: Iterable[JudgementRow]) -> Iterator[list[JudgementRow]]:
    """Judgements of one prompt in one arm and training seed, sorted by these."""
    groups: dict[tuple[str, str, int, str], list[JudgementRow]] = {}
    for row in judgements:
        groups.setdefault((row.condition, row.condition_key, row.seed, row.item), []).append(row)
    for _, rows in sorted(groups.items()):
        yield rows


def _unit_row(
    rows: Sequence[JudgementRow],
    *,
    metric: str,
    of: str,
    scores: Sequence[int],
    scored: int,
    keep: bool,
    votes: int = 1,
    denominator: int = 1,
) -> MeasurementRow:
    """One unit from all its judgements and the scores that count; scored completions that do not count were filtered."""
    first, n, total = rows[0], len(scores), sum(scores)
    return MeasurementRow(
        mode=first.mode, condition=first.condition, condition_key=first.condition_key, seed=first.seed, metric=metric,
        slice=of, unit=first.item, n=n, n_missing=len(rows) // votes - scored, n_filtered=scored - n, total=total,
        denominator=denominator, value=total / (denominator * n) if n else None,
        scores=tuple(sorted(scores)) if keep else None,
    )  # fmt: skip


def by_item(
    items: Iterable[Mapping[str, Any]], metric: Mapping[str, Any], *, arms: Sequence[Arm], mode: Mode
) -> list[MeasurementRow]:
    """One score an item; fractions of the scale are kept to nine decimals. Raises Fault R0364 when an arm has none."""
    chosen = [row for row in items if row["task"] == metric["source"] and _is_reading(row, metric)]
    _require_every_arm({(row["condition"], row["seed"]) for row in chosen}, arms, metric)
    return [
        MeasurementRow(
            mode=mode, condition=row["condition"], condition_key=row["condition_key"], seed=row["seed"], metric=metric["name"],
            unit=row["item"], n=1, n_missing=0, total=score.numerator, denominator=score.denominator, value=float(score),
        )
        for row in sorted(chosen, key=lambda row: (row["condition"], row["seed"], row["item"]))
        for score in [Fraction(repr(round(row["value"], DECIMALS)))]
    ]  # fmt: skip


def _is_reading(row: Mapping[str, Any], metric: Mapping[str, Any]) -> bool:
    """Whether an item's row is of this value of its task: one task may be read in several ways."""
    wanted = metric.get("reading", metric.get("value"))
    return bool(row.get("reading", wanted) == wanted)


def write(file: Path, rows: Iterable[BaseModel]) -> None:
    """Rows as JSON Lines."""
    with file.open("w", encoding="utf-8") as handle:
        handle.writelines(row.model_dump_json() + "\n" for row in rows)
