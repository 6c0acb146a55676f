"""What the steps still to run read: files of finished steps, and inputs of the bundle, with the registered hash."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, assert_never

from epc.compiler.contract.canonical import sha256_file, sha256_text
from epc.compiler.contract.manifest import Manifest, Step
from epc.runtime import bundle as bundles
from epc.runtime import data
from epc.runtime.errors import Fault
from epc.runtime.preflight import needs
from epc.runtime.preflight.outcome import Row, size
from epc.runtime.step import FinishRecord
from epc.runtime.validity import recorded_files
from epc.runtime.wording import count


def rows(
    bundle: Path, manifest: Manifest, missing: Sequence[Step], records: Mapping[str, FinishRecord]
) -> Iterator[Row]:
    """Outputs that are read, then inputs; each only where there are any."""
    read = {need for step in missing for need in step.needs if need in records}
    if read:
        yield _outputs(bundle, [step for step in manifest.steps if step.id in read], records)
    if inputs := list(_inputs(bundle, missing)):
        yield _registered(inputs)


def _outputs(bundle: Path, steps: Sequence[Step], records: Mapping[str, FinishRecord]) -> Row:
    """Every file of the finished steps that missing ones need is hashed again, weights too: a training costs more."""
    faults: list[Fault] = []
    number = total = 0
    for step in steps:
        for label, file, expected in recorded_files(bundle, step, records[step.id]):
            remedy = f"restore it, or delete {bundles.store(bundle, step)} and run again: only this step is redone"
            if not file.is_file():
                faults.append(Fault("R1920", str(file), f"{label} is missing", remedy))
                continue
            number, total = number + 1, total + file.stat().st_size
            if sha256_file(file) != expected:
                faults.append(
                    Fault(
                        "R1920",
                        str(file),
                        f"{label} was altered: it no longer has the SHA-256 that was recorded",
                        remedy,
                    )
                )
    return Row(
        check="content", what="finished steps", found=f"{count(number, 'file')}, {size(total)}, hashed again",
        needed=f"as {count(len(steps), 'step')} recorded them", faults=tuple(faults),
    )  # fmt: skip


def _registered(inputs: Sequence[tuple[str, Path, bool]]) -> Row:
    faults = [
        Fault(
            "R1922", str(file), f"this is not the registered {what}" if file.is_file() else f"the file with the {what} is missing",
            "the bundle was changed: compile the spec again, which writes its inputs",
        )
        for what, file, same in inputs
        if not same
    ]  # fmt: skip
    return Row(
        check="content", what="inputs", found=f"{count(len(inputs), 'file')} of the bundle", needed="as registered",
        faults=tuple(faults),
    )  # fmt: skip


def _inputs(bundle: Path, missing: Sequence[Step]) -> Iterator[tuple[str, Path, bool]]:
    """(what it is, file, whether it is the registered one) of every input whose hash or content a recipe holds."""
    for step in missing:
        recipe, declared = step.recipe, needs.constants(bundle / step.script)
        if not _parses(bundle / step.script):  # it would end its own step, after those before it
            yield f"script of {step.id}", bundle / step.script, False
        match step.kind:
            case "model":
                if "CHAT_TEMPLATE" in declared:
                    yield _hashed(
                        bundle, "chat template", declared["CHAT_TEMPLATE"], recipe.get("chat_template_sha256")
                    )
            case "sample":
                for entry in declared.get("SETS", ()):
                    registered = recipe.get("sets", {}).get(entry["name"], {})
                    yield from _prompts(
                        bundle, entry, sorted(registered.get("prompts", ())), registered.get("fill", {})
                    )
            case "generate":
                for entry in declared.get("ENTRIES", ()):
                    file = bundle / entry["prompts"]
                    expected = recipe.get("entries", {}).get(entry["name"], {}).get("prompts_sha256")
                    if expected is not None:
                        lines = _lines(file)
                        yield (
                            f"prompts of {entry['name']}",
                            file,
                            lines is not None and sha256_text("\n".join(lines)) == expected,
                        )
            case "judge":
                for name in ("RUBRIC", "FUNCTION"):
                    if name in declared:
                        yield _hashed(bundle, name.lower(), declared[name], recipe.get(f"{name.lower()}_sha256"))
            case "capability":
                hashes = {entry["task"]: entry.get("task_sha256") for entry in recipe.get("tasks", ())}
                for task in declared.get("TASKS", ()):
                    if task.get("name") in hashes:
                        yield _hashed(bundle, f"task {task['name']}", task["yaml"], hashes[task["name"]])
            case "data" | "mask" | "train" | "measure":
                continue
            case _:
                assert_never(step.kind)


def _parses(script: Path) -> bool:
    try:
        ast.parse(script.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return False
    return True


def _hashed(bundle: Path, what: str, path: str, expected: str | None) -> tuple[str, Path, bool]:
    file = bundle / path
    return what, file, file.is_file() and expected in (None, sha256_file(file))


def _prompts(
    bundle: Path, entry: Mapping[str, Any], prompts: Sequence[str], fill: Mapping[str, str]
) -> Iterator[tuple[str, Path, bool]]:
    if prompts:
        file = bundle / entry["prompts"]
        lines = _lines(file)
        yield f"prompts of {entry['name']}", file, lines is not None and sorted(lines) == prompts
    for name, path in entry.get("fill", {}).items():
        yield _hashed(bundle, f"text for {{{name}}} of {entry['name']}", path, fill.get(name))


def _lines(file: Path) -> list[str] | None:
    try:
        return data.read_lines(file)
    except (OSError, ValueError, Fault):
        return None
