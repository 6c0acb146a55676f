"""The report's edge: what it reads of a bundle, and how it reaches the disk.

R0601 a completion cannot be read; R0602 the report cannot be written; R0603 the note breaks the reporting policy;
R0604 the note cannot be read; R0605 the simulation cannot be read.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.decision import Decision
from epc.runtime.decide import read
from epc.runtime.errors import Fault
from epc.runtime.inputs import Inputs
from epc.runtime.registration import LOCK
from epc.runtime.report.material import Allowance, Material, Note, Registered
from epc.runtime.report.pieces import located, sample_row
from epc.runtime.report.render import Report, render
from epc.runtime.report.transcripts import choose, of_prompts

if TYPE_CHECKING:
    from epc.compiler.contract.simulation import Simulation

NOTE: Final = "report/note.md"
SIMULATION: Final = "report/simulation.json"
_READ_OF_LOCK: Final = re.compile(r"^(?:allow|reporting):.*?(?=^[^\s#-]|\Z)", re.MULTILINE | re.DOTALL)
"""Sections of a lock, which are written one after the other from the first column; parsing all of them takes longer."""
LONGEST_NOTE: Final = 20_000
"""Characters: a note explains a report, it does not replace it."""


def write(bundle: Path, decision: Decision, inputs: Inputs | None = None) -> dict[str, Path]:
    """Write report/report.md and report/report.html of a bundle; returns {"md": path, "html": path}.

    `inputs` are those of the decision, read again where they are not given. Rows that are not there yet are not shown,
    and the report says so. The same decision and files give the same bytes. Raises Faults R0601 to R0605, and those of
    `decide.read`.
    """
    report = rendered(bundle, decision, inputs)
    folder = bundle / "report"
    paths = {"md": folder / "report.md", "html": folder / "report.html"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(paths["md"], report.md)
        _replace(paths["html"], report.html)
    except OSError as error:
        raise Fault(
            "R0602", str(folder), f"the report cannot be written: {error.strerror}",
            "make room or the folder writable, then run epc decide again: nothing else is lost",
        ) from None  # fmt: skip
    return paths


def rendered(bundle: Path, decision: Decision, inputs: Inputs | None = None) -> Report:
    """Both files as text, from what is stored; nothing is written. Raises the Faults of reading."""
    return render(material(bundle, decision, inputs))


def material(bundle: Path, decision: Decision, inputs: Inputs | None = None) -> Material:
    """Everything a report of this decision is made from. Raises the Faults of reading."""
    inputs = inputs or read(bundle)
    manifest = inputs.manifest
    completions = tuple(located(bundle, manifest))
    registered = _registered(bundle, decision)
    return Material(
        decision=decision,
        inputs=inputs,
        transcripts=tuple(sample_row(found) for found in choose(completions, manifest.design)),
        by_prompt=tuple(sample_row(found) for found in of_prompts(completions, manifest.design)),
        simulation=_simulation(bundle),
        registered=registered,
        note=_note(bundle, effect_sizes=registered is not None and registered.effect_sizes),
    )


def _simulation(bundle: Path) -> Simulation | None:
    """What was simulated, of whatever registration; None where nothing was."""
    file = bundle / SIMULATION
    remedy = f"delete {file}, or simulate again with epc simulate"
    try:
        stored = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Fault("R0605", str(file), f"the simulation cannot be read: {error.strerror}", remedy) from None
    from epc.compiler.contract.simulation import Simulation

    try:
        return Simulation.model_validate_json(stored)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Fault("R0605", str(file), f"this is no simulation: {where or 'file'}: {first['msg']}", remedy) from None


def _registered(bundle: Path, decision: Decision) -> Registered | None:
    """What the lock says about warnings and language; None where it is not the decision's."""
    import yaml

    try:
        text = (bundle / LOCK).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if sha256_text(text) != decision.lock_sha256:
        return None
    sections = "".join(_READ_OF_LOCK.findall(text))
    lock: dict[str, Any] = yaml.load(sections, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    return Registered(
        allowed=tuple(
            Allowance(code=str(entry["code"]), reason=str(entry["reason"]), at=entry.get("at"))
            for entry in lock.get("allow") or ()
        ),
        effect_sizes=(lock.get("reporting") or {}).get("effect_sizes") == "allowed",
    )


def _note(bundle: Path, *, effect_sizes: bool) -> Note | None:
    """The researcher's note, held to the reporting policy line by line; None where there is none or it is blank."""
    file = bundle / NOTE
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise Fault("R0604", str(file), f"the note cannot be read: {reason}", "save it as UTF-8 text") from None
    if len(text) > LONGEST_NOTE:
        raise Fault(
            "R0604", str(file), f"the note has {len(text):,} characters, and a report takes {LONGEST_NOTE:,}",
            "shorten it, and keep the rest in a document of its own",
        )  # fmt: skip
    if not effect_sizes:
        _check_language(file, text)
    return Note(text=text, sha256=sha256_text(text)) if text.strip() else None


def _check_language(file: Path, text: str) -> None:
    """Raises Fault R0603 at the first line, or pair of lines, that judges the size of an effect."""
    from epc.compiler.contract.prose import judgement

    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        after = lines[number] if number < len(lines) else ""
        found = judgement(line) or (None if judgement(after) else judgement(f"{line} {after}"))
        if found is not None:
            raise Fault(
                "R0603", f"{file}:{number}", f'"{found}" is effect-size language, which the reporting policy forbids',
                "say how many points or per cent, with the interval; the note is taken up when it does",
            )  # fmt: skip


def _replace(path: Path, text: str) -> None:
    """Write aside, force to disk, rename: a reader sees the old file or the new one, never half."""
    aside = path.with_name(path.name + ".tmp")
    with aside.open("w", encoding="utf-8", newline="\n") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    aside.replace(path)
