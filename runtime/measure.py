"""Rows to measurements: one exact value per metric, arm, training seed and unit."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from epc.compiler.contract.canonical import json_lines, sha256_file, sha256_json
from epc.compiler.contract.rows import JudgementRow, MeasurementRow, Mode, SampleRow
from epc.runtime import data
from epc.runtime.errors import Fault

Arm = tuple[str, int, str]
"""(condition, training seed, condition key)."""


def sample_rows(bundle: Path, folder: Path) -> list[SampleRow]:
    """Every completion that a sampling step lists in its index.

    Raises Fault R0361 when a piece is missing, R0362 when it is not the one that was sampled.
    """
    rows: list[SampleRow] = []
    for entry in json.loads((folder / "index.json").read_text(encoding="utf-8")):
        file = bundle / "store" / "pieces" / f"{entry['key']}.jsonl"
        remedy = f"delete {folder} and {file}, then run again: only this piece is sampled anew"
        if not file.exists():
            raise Fault("R0361", str(file), "the completions are missing", remedy)
        if sha256_file(file) != entry["sha256"]:
            raise Fault("R0362", str(file), "the completions were altered after they were sampled", remedy)
        for number, line in enumerate(json_lines(file.read_text(encoding="utf-8")), start=1):
            try:
                rows.append(SampleRow.model_validate_json(line))
            except ValidationError as error:
                raise Fault(
                    "R0362", f"{file}:{number}", f"this is no sample row: {error.errors()[0]['msg']}", remedy
                ) from None
    return rows


def item_rows(folder: Path) -> list[dict[str, Any]]:
    """Every scored item of a capability step."""
    return [json.loads(line) for line in json_lines((folder / "capability.jsonl").read_text(encoding="utf-8"))]


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


def by_prompt(judgements: Iterable[JudgementRow], metric: str) -> list[MeasurementRow]:
    """Hits and samples of every prompt."""
    groups: dict[tuple[str, str, int, str], list[JudgementRow]] = {}
    for row in judgements:
        groups.setdefault((row.condition, row.condition_key, row.seed, row.item), []).append(row)
    measured: list[MeasurementRow] = []
    for (condition, key, seed, item), rows in sorted(groups.items()):
        scored = [row for row in rows if row.outcome == "scored"]
        hits = sum(row.fields["match"] is True for row in scored)
        measured.append(
            MeasurementRow(
                mode=rows[0].mode, condition=condition, condition_key=key, seed=seed, metric=metric, unit=item, n=len(scored),
                n_missing=len(rows) - len(scored), total=hits, value=hits / len(scored) if scored else None,
            )
        )  # fmt: skip
    return measured


def by_item(
    items: Iterable[Mapping[str, Any]], metric: Mapping[str, Any], *, arms: Sequence[Arm], mode: Mode
) -> list[MeasurementRow]:
    """One score an item. Raises Fault R0364 when an arm has none."""
    chosen = [row for row in items if row["task"] == metric["source"]]
    _require_every_arm({(row["condition"], row["seed"]) for row in chosen}, arms, metric)
    return [
        MeasurementRow(
            mode=mode, condition=row["condition"], condition_key=row["condition_key"], seed=row["seed"], metric=metric["name"],
            unit=row["item"], n=1, n_missing=0, total=row["value"], value=float(row["value"]),
        )
        for row in sorted(chosen, key=lambda row: (row["condition"], row["seed"], row["item"]))
    ]  # fmt: skip


def write(file: Path, rows: Iterable[BaseModel]) -> None:
    """Rows as JSON Lines."""
    with file.open("w", encoding="utf-8") as handle:
        handle.writelines(row.model_dump_json() + "\n" for row in rows)
