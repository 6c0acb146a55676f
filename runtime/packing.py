"""`epc pack`: a finished bundle as a copy small enough to publish, from which anybody can decide again.

The verdict rests on rows, completions, judgements and finish records, and these are in the copy, the large ones gzipped
(`runtime.kept`). Left out are weights and what lies in their folders, that is every subfolder of a `model` or `train` step,
logs, and what a report is made anew from. `packed.json` names each file that was left out with the SHA-256 that its finish
record gives, which nobody who has only the copy can check: `epc decide` and `epc verify` count such files and say so,
instead of calling them lost. A missing file of any other kind is damage, as before.

`packed.json` also has the hashes of the compiled files, so that scripts which ran can be told from altered ones when a
later epc compiles the same spec to others. The journal of the copy has one line more than the original: that it was packed,
with the hash of `packed.json`.

In the copy `epc status` and `epc run` see every step as finished. A step that would have to read weights which are not
there is refused (R0713) instead of failing halfway. Snakemake called by hand knows nothing of this: it would start the
scripts of the steps, which end at once as finished, and then miss their outputs.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from epc import __version__
from epc.compiler.contract.canonical import sha256_file
from epc.compiler.contract.manifest import Manifest, Step
from epc.runtime import bundle as bundles
from epc.runtime import journal, kept
from epc.runtime.errors import Fault
from epc.runtime.step import FinishRecord, read_record, record_path

NAME: Final = "packed.json"
GZIPPED_FROM: Final = 64 * 1024
"""Bytes from which rows are gzipped."""
WITH_WEIGHTS: Final = ("model", "train")
WITH_ROWS: Final = ("judge", "capability", "measure")
"""Kinds whose rows every reader reads through `runtime.kept`."""
COMPILED: Final = ("manifest.json", "spec.lock.yaml", "plan.md", "Snakefile", "steps", "inputs")
ALONG: Final = ("journal.jsonl", "history", "report/note.md", "report/simulation.json")


class Packed(BaseModel):
    """packed.json. Paths are relative to the bundle, hashes are SHA-256 in hex."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    epc: str
    """That packed it."""
    left_out: dict[str, str]
    """Weights -> hash, as recorded when they were made."""
    compiled: dict[str, str]
    """Compiled files -> hash, as they lay beside the results."""

    def lacks(self, step: Step, name: str, sha256: str) -> bool:
        """Whether this output of a step was left out, and is one that may be."""
        return may_be_left_out(step, name) and self.left_out.get(_stored(step, name)) == sha256

    def weights_of(self, step: Step) -> bool:
        """Whether anything of a step was left out."""
        return step.kind in WITH_WEIGHTS and any(path.startswith(_stored(step, "")) for path in self.left_out)


def may_be_left_out(step: Step, name: str) -> bool:
    return step.kind in WITH_WEIGHTS and "/" in name


def _stored(step: Step, name: str) -> str:
    return f"store/{step.key}/{name}"


def read_packed(bundle: Path) -> Packed | None:
    """None for a bundle that is no packed copy. Raises Fault R0712 where packed.json cannot be read."""
    file = bundle / NAME
    try:
        return Packed.model_validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError):
        raise Fault("R0712", str(file), "what was left out of this copy cannot be read", "take it from the publication again") from None  # fmt: skip


def lacking(packed: Packed | None, step: Step, record: FinishRecord, bundle: Path) -> Iterator[str]:
    """Outputs of a step that are not there because they were left out."""
    for name, sha256 in record.outputs.items():
        if (
            packed is not None
            and packed.lacks(step, name, sha256)
            and not (bundles.store(bundle, step) / name).exists()
        ):
            yield name


def pack(bundle: Path, out: Path) -> Packed:
    """Write the copy to `out`, which must not exist or be empty; the decision is the caller's to write.

    Every file that goes along is held against its recorded SHA-256 first; weights that are there are too. Raises Faults
    R0714 (there is something at `out`), R0715 (a step has not finished), R0716 (a file is lost or altered), R0717 (the
    disk), and those of reading.
    """
    manifest = bundles.read_manifest(bundle)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Fault("R0714", str(out), "there is something here already", "name a folder that does not exist yet")
    before = read_packed(bundle)
    records: dict[str, FinishRecord] = {}
    for step in manifest.steps:
        record = read_record(bundle, step)
        if record is None:
            raise Fault(
                "R0715", str(bundles.store(bundle, step)), f"step {step.id} has not finished, so there is no result to pack",
                f"epc run {bundle}",
            )  # fmt: skip
        records[step.id] = record
    try:
        return _write(bundle, out, manifest, records, before)
    except OSError as error:
        raise Fault(
            "R0717", str(error.filename or out), f"the copy cannot be written: {error.strerror}",
            f"make room or name another folder, and delete what is in {out}",
        ) from None  # fmt: skip


def _write(
    bundle: Path, out: Path, manifest: Manifest, records: Mapping[str, FinishRecord], before: Packed | None
) -> Packed:
    left_out: dict[str, str] = {}
    files: dict[Path, tuple[Path, bool]] = {}
    for step in manifest.steps:
        record = records[step.id]
        files[record_path(out, step)] = record_path(bundle, step), False
        for name, sha256 in sorted(record.outputs.items()):
            file = bundles.store(bundle, step) / name
            if may_be_left_out(step, name):
                if file.exists():
                    _intact(file, sha256)
                elif before is not None and not before.lacks(step, name, sha256):
                    raise _lost(file)
                left_out[_stored(step, name)] = sha256
                continue
            _intact(file, sha256)
            files[bundles.store(out, step) / name] = file, step.kind in WITH_ROWS
    from epc.runtime.validity import recorded_files

    for step in manifest.steps:
        for _, file, sha256 in recorded_files(bundle, step, records[step.id]):
            if file.parent == bundle / "store" / "pieces":
                _intact(file, sha256)
                files[out / file.relative_to(bundle)] = file, True
    compiled: dict[str, str] = {}
    for path in (*COMPILED, *ALONG):
        for file in sorted((bundle / path).rglob("*")) if (bundle / path).is_dir() else [bundle / path]:
            if file.is_file() and "__pycache__" not in file.parts:
                name = file.relative_to(bundle).as_posix()
                files[out / name] = file, False
                if path in COMPILED:
                    compiled[name] = sha256_file(file)
    for target, (source, rows) in files.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        content = kept.read_bytes(source) if rows else b""
        if rows and source.suffix == ".jsonl" and len(content) >= GZIPPED_FROM:
            kept.gzipped(target).write_bytes(gzip.compress(content, 9, mtime=0))
        elif rows:
            target.write_bytes(content)
        else:
            shutil.copyfile(source, target)
    packed = Packed(epc=__version__, left_out=left_out, compiled=compiled)
    file = out / NAME
    file.write_text(packed.model_dump_json(indent=1) + "\n", encoding="utf-8")
    journal.append(
        out, "packed", lock_sha256=manifest.lock_sha256, left_out=len(left_out), sha256=sha256_file(file),
        epc=__version__,
    )  # fmt: skip
    return packed


def _intact(file: Path, sha256: str) -> None:
    try:
        actual = kept.sha256(file)
    except FileNotFoundError:
        raise _lost(file) from None
    if actual != sha256:
        raise Fault(
            "R0716", str(file), f"it was altered: recorded {sha256[:16]}, found {actual[:16]}",
            "restore the file; a copy of altered results is of no use to anybody",
        )  # fmt: skip


def _lost(file: Path) -> Fault:
    return Fault("R0716", str(file), "it is missing", "restore the file, or run its step again")
