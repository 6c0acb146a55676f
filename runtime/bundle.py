"""Reading a bundle: its manifest, its lock, where its parts lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from epc.compiler.contract.canonical import sha256_file
from epc.compiler.contract.manifest import MANIFEST_SCHEMA_VERSION, Manifest, Step
from epc.runtime.errors import Fault

RECOMPILE = "compile it again: epc compile SPEC.yaml"


def read_manifest(bundle: Path) -> Manifest:
    """The manifest of a bundle folder. Raises Fault R0101 to R0103."""
    file = bundle / "manifest.json"
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        raise Fault(
            "R0101", str(file), "there is no compiled bundle here", "compile a spec first: epc compile SPEC.yaml"
        ) from None
    except UnicodeDecodeError:
        raise Fault("R0102", str(file), "not UTF-8 text", RECOMPILE) from None
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise Fault("R0102", f"{file}:{error.lineno}:{error.colno}", f"not JSON: {error.msg}", RECOMPILE) from None
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > MANIFEST_SCHEMA_VERSION:
        raise Fault(
            "R0103",
            str(file),
            f"manifest schema {version} is newer than the {MANIFEST_SCHEMA_VERSION} this epc reads",
            "upgrade epc, or compile the spec again with this version",
        )
    try:
        return Manifest.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "manifest"
        raise Fault("R0102", str(file), f"{where}: {first['msg']}", RECOMPILE) from None


def step_of(manifest: Manifest, step_id: str) -> Step:
    for step in manifest.steps:
        if step.id == step_id:
            return step
    raise KeyError(step_id)


def piece(bundle: Path, key: str) -> Path:
    """Where the completions of one arm, training seed and set lie."""
    return bundle / "store" / "pieces" / f"{key}.jsonl"


def store(bundle: Path, step: Step) -> Path:
    """Where a finished step's outputs lie."""
    return bundle / "store" / step.key


def with_input(bundle: Path, metric: Mapping[str, Any]) -> dict[str, Any]:
    """A pattern metric of a recipe, whose file is named by its hash, with the path of that file in the bundle.

    Raises Fault R0547 where no input has that hash.
    """
    if "contains_any" not in metric:
        return dict(metric)
    for file in sorted((bundle / "inputs").rglob("*")):
        if file.is_file() and sha256_file(file) == metric["contains_any"]:
            return {**metric, "contains_any": file.relative_to(bundle).as_posix()}
    raise Fault(
        "R0547", str(bundle / "inputs"), f"no input has SHA-256 {metric['contains_any'][:16]}, which {metric['name']} reads",
        "compile the registered spec again: it writes the inputs",
    )  # fmt: skip
