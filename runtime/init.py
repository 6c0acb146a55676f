"""`epc init`: a small spec that checks clean, with the files it reads and the schema that editors read.

The schema lies beside the spec, whose first line names it: a language server looks such a path up from the file
that names it, so that this works in every editor, without a network, without settings and wherever epc is
installed. After an upgrade `epc schema > specs/spec.schema.json` brings it up to date.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import Final

from epc.compiler.emit import environment
from epc.compiler.schema import SCHEMA_ID, schema_text
from epc.compiler.templates import template
from epc.runtime.errors import Fault
from epc.runtime.wording import shown

SCHEMA_FILE: Final = "spec.schema.json"
COMPANIONS: Final = ("data/topics.txt", "prompts/heldout.txt")
"""Files that the spec reads, relative to it."""


def spec_text(*, id_: str, spec: str, schema: str = SCHEMA_FILE) -> str:
    """The spec. `spec` is its path as a person types it, `schema` the path from it to the schema."""
    return environment().get_template("init/experiment.yaml.j2").render(id=id_, spec=spec, schema=schema)


def companions() -> Mapping[str, str]:
    """Path -> text of what the spec reads."""
    return {path: template(f"init/{path}") for path in COMPANIONS}


def write(spec: Path) -> list[Path]:
    """Write a spec and what is beside it; returns what was written, in that order.

    A file that is there with the same text stays, and the schema of another version of epc is replaced. Raises Fault
    R0108 (not the name of a YAML file) or R0109 (it would overwrite a file), and then writes nothing.
    """
    if spec.suffix not in (".yaml", ".yml"):
        named = spec.with_suffix(".yaml") if spec.suffix else spec / "experiment.yaml"
        raise Fault("R0108", str(spec), "a spec is a .yaml file", f"epc init {quote(shown(named))}")
    text = spec_text(id_=_identifier(spec.stem), spec=quote(shown(spec)))
    beside = {spec.parent / SCHEMA_FILE: schema_text()}
    beside |= {spec.parent / path: companion for path, companion in companions().items()}
    missing = {spec: text} | {path: text for path, text in beside.items() if not _holds(path, text)}
    if spec.exists():
        raise _refused(spec, spec.with_name("another.yaml"))
    for path in missing:
        if path.exists() and not _is_our_schema(path):
            raise _refused(path, spec.parent / "another" / spec.name)
    for path, text in missing.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    return list(missing)


def _refused(path: Path, instead: Path) -> Fault:
    return Fault(
        "R0109", shown(path), "it is there already and is not overwritten", f"epc init {quote(shown(instead))}"
    )


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _is_our_schema(path: Path) -> bool:
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        return False
    return path.name == SCHEMA_FILE and isinstance(found, dict) and str(found.get("$id", "")).startswith(SCHEMA_ID)


def _identifier(stem: str) -> str:
    """The name of a file as the id of an experiment."""
    name = re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_")
    return (name if name[:1].isalpha() else f"experiment_{name}".rstrip("_"))[:60]
