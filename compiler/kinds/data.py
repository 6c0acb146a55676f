"""A training data set, built or copied, and frozen by hash."""

from __future__ import annotations

from typing import Any, assert_never

from epc.compiler.lowering import Lowering
from epc.compiler.source import PathKey
from epc.compiler.spec import FileData, TurnsData


def lower(plan: Lowering, name: str) -> str:
    entry, built = plan.spec.data[name], plan.experiment.data[name]
    base: PathKey = ("data", name)
    match entry:
        case TurnsData():
            turns = [(turn.role, turn.text) for turn in entry.turns]
            recipe: dict[str, Any] = {"sha256": built.sha256, "rows": entry.rows}
            constants: dict[str, Any] = {
                "build": "turns", "rows": entry.rows, "seed": entry.seed, "system": entry.system,
                "fill": {key: plan.bundle_path(path) for key, path in entry.fill.items()}, "turns": turns,
                "expected_sha256": built.sha256,
            }  # fmt: skip
        case FileData():
            recipe = {"sha256": built.sha256, "rows": entry.rows}
            constants = {
                "build": "file", "rows": entry.rows, "file": f"{plan.spec_folder}/{entry.file}",
                "expected_sha256": built.sha256,
            }  # fmt: skip
        case _:
            assert_never(entry)
    origins: dict[str, PathKey | str] = {key: (*base, key) for key in constants}
    origins["expected_sha256"] = "computed by epc compile" if isinstance(entry, TurnsData) else (*base, "sha256")
    return plan.add(
        id=f"data-{name}", kind="data", label=f"build {entry.rows} rows of {name}", needs=(), recipe=recipe,
        outputs=("rows.jsonl",), constants=constants, origins=origins,
    )  # fmt: skip
