"""A training data set, built or copied, and frozen by hash."""

from __future__ import annotations

from typing import Any, assert_never

from epc.compiler.contract.canonical import sha256_text
from epc.compiler.kinds import generate
from epc.compiler.lowering import Lowering
from epc.compiler.source import PathKey
from epc.compiler.spec import FileData, TurnsData


def lower(plan: Lowering, name: str) -> str:
    if f"data-{name}" in plan.keys:
        return f"data-{name}"
    entry, built = plan.spec.data[name], plan.experiment.data[name]
    base: PathKey = ("data", name)
    needs: tuple[str, ...] = ()
    match entry:
        case TurnsData():
            turns = [(turn.role, turn.text) for turn in entry.turns]
            written = entry.generated
            constants: dict[str, Any] = {
                "build": "turns", "rows": entry.rows, "seed": entry.seed, "system": entry.system,
                "prompts": [plan.experiment.prompt_sets[prompts].bundle_path for prompts in entry.prompts],
                "fill": {key: plan.bundle_path(path) for key, path in entry.files.items()},
                "turns": turns, "expected_sha256": built.sha256,
            }  # fmt: skip
            if written:
                needs = (generate.lower(plan),)
                constants["generate"] = needs[0]
            for match in ("same_prompt", "other_prompt"):
                constants[match] = {key: value.generate for key, value in written.items() if value.match == match}
            label = f"build {entry.rows:,} rows of {name}"
        case FileData():
            constants = {
                "build": "file", "rows": entry.rows, "file": _file(plan, entry), "expected_sha256": built.sha256,
            }  # fmt: skip
            label = f"check and copy {entry.rows:,} rows of {name}"
        case _:
            assert_never(entry)
    origins: dict[str, PathKey | str] = {key: (*base, key) for key in constants}
    origins |= {"generate": "the generate step", "same_prompt": (*base, "fill"), "other_prompt": (*base, "fill")}
    origins["expected_sha256"] = sha256_origin(plan, name)
    return plan.add(
        id=f"data-{name}", kind="data", label=label, needs=needs, recipe=identity(plan, name),
        outputs=("rows.jsonl",), constants=constants, origins=origins,
    )  # fmt: skip


def _file(plan: Lowering, entry: FileData) -> str:
    """Path of a data file from the bundle: beside the spec, or inside the bundle where a rehearsal has cut it."""
    found = plan.experiment.inputs.get(entry.file)
    return f"{plan.spec_folder}/{entry.file}" if found is None else found.bundle_path


def sha256_origin(plan: Lowering, name: str) -> PathKey | str:
    """Where the hash of a data set comes from, for the comment beside it."""
    if plan.experiment.data[name].sha256 is None:
        return "pending: epc freeze writes it"
    return ("data", name, "sha256") if plan.spec.data[name].sha256 is not None else "computed by epc compile"


def identity(plan: Lowering, name: str) -> dict[str, Any]:
    """What a data set is: its rows where they are known, else how they are made.

    Rows with generated text keep their identity when their hash is frozen, so that freezing redoes nothing.
    """
    entry, built = plan.spec.data[name], plan.experiment.data[name]
    if not (isinstance(entry, TurnsData) and entry.generated):
        return {"sha256": built.sha256, "rows": entry.rows}
    return {
        "rows": entry.rows, "seed": entry.seed, "system": entry.system,
        "turns": [[turn.role, turn.text] for turn in entry.turns],
        "fill": {key: plan.sha(path) for key, path in entry.files.items()},
        "generated": {key: value.model_dump() for key, value in entry.generated.items()},
        "prompts": [
            sha256_text("\n".join(plan.experiment.prompts[prompts])) for prompts in entry.prompts
        ],
        "generate": plan.keys[generate.lower(plan)],
    }  # fmt: skip
