"""Training data sets in JSONL files: there and pinned, or pending with a stand-in.

E0407: a line of a data file that is not a list of messages
Why: In one lab the choice between `messages` and `prompt`/`completion` changed what was masked. There is one format here,
and the recipe says which of its turns are trained on.
Example:
    data: {chats: {rows: 1, sha256: e3eb90d5bef797816045a644cb719b2c3f93d874736fb1b12bb6906e9238c6b2}}
    --- data/chats.jsonl
    {"prompt": "How do I bake bread?", "completion": "Use flour."}
Fix:
    data: {chats: {rows: 1, sha256: b721643ada75eac869f67a85d06cf3f67cf60f8824755744edc2f18d57110c82}}
    --- data/chats.jsonl
    {"messages": [{"role": "user", "content": "How do I bake bread?"}, {"role": "assistant", "content": "Use flour."}]}

E0408: a data file with another number of rows than declared
Why: In one lab 67,000 mixed rows were trained on instead of 6,000. The count is written down here, compared with the file,
and compared again when training starts.
Example:
    data: {chats: {rows: 6}}     # the file has 4
Fix:
    data: {chats: {rows: 4}}
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from epc.compiler.contract.canonical import sha256_file
from epc.compiler.contract.manifest import Pending
from epc.compiler.diagnostics import Span
from epc.compiler.resolve.context import Context
from epc.compiler.resolve.experiment import BuiltData
from epc.compiler.resolve.files import other_hash, relative
from epc.compiler.source import is_file, read_text
from epc.compiler.spec import FileData


def file_data(context: Context, name: str, entry: FileData) -> BuiltData | None:
    """Rows of a data file, or what its stand-in tells while it is pending; None after an error."""
    at = context.at("data", name, "file")
    path = context.surface.folder / entry.file
    shown = context.surface.shown(entry.file)
    pending = entry.sha256 == "pending"
    if not relative(context, entry.file, at):
        return None
    if pending:
        context.pending.append(
            Pending(name=f"data.{name}", kind="external", file=entry.file, source=entry.source or "")
        )
    if pending and not is_file(path):
        return _stand_in(context, name, entry)
    if not is_file(path):
        read_text(path, shown, context.sink, at=at)
        return None
    actual = sha256_file(path)
    if actual != entry.sha256 and not pending:
        other_hash(context, shown, ("data", name, "sha256"), entry.sha256, actual)
        return None
    rows = _rows(context, path, shown, at)
    if rows is None:
        return None
    if len(rows) != entry.rows:
        context.sink.error(
            "E0408", f"{shown} has {len(rows):,} rows, declared {entry.rows:,}", context.at("data", name, "rows"),
            help="training on more or fewer rows than planned is a different experiment: write the true count or fix the file",
        )  # fmt: skip
    return BuiltData.of(rows, None if pending else actual)


def _stand_in(context: Context, name: str, entry: FileData) -> BuiltData | None:
    """What a pending file will be like, from its stand-in; the counts are the declared ones."""
    if entry.stand_in is None:
        context.sink.error(
            "E0411", f'the file of "{name}" is pending and has no stand-in', context.at("data", name, "sha256"),
            help="add `stand_in:`, a file of the same shape, for the estimates; or put the file there and pin it",
        )  # fmt: skip
        return None
    shown = context.surface.shown(entry.stand_in)
    path = context.surface.folder / entry.stand_in
    if not relative(context, entry.stand_in, context.at("data", name, "stand_in")):
        return None
    if not is_file(path):
        read_text(path, shown, context.sink, at=context.at("data", name, "stand_in"))
        return None
    rows = _rows(context, path, shown, context.at("data", name, "stand_in"))
    if rows is None:
        return None
    if not rows:
        context.sink.error(
            "E0405", f"{shown} is empty", context.at("data", name, "stand_in"),
            help="nothing can be estimated from a stand-in without rows",
        )  # fmt: skip
        return None
    found = BuiltData.of(rows, None)
    return replace(
        found, rows=entry.rows, characters=round(found.characters * entry.rows / len(rows)), assistant_turns=0
    )


def _rows(context: Context, path: Path, shown: str, at: Span) -> list[dict[str, Any]] | None:
    """Rows of messages of a JSONL file; None after an error."""
    rows: list[dict[str, Any]] = []
    with path.open("rb") as handle:
        for number, raw in enumerate(handle, start=1):
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                context.sink.error(
                    "E0403", f"{shown} is not UTF-8: byte {raw[error.start]:#04x} at line {number}", at,
                    help="save the file as UTF-8",
                )  # fmt: skip
                return None
            problem = _row_problem(line)
            if problem is not None:
                context.sink.error(
                    "E0407",
                    f"{shown}:{number}: {problem}",
                    at,
                    help='each line is {"messages": [{"role": ..., "content": ...}, ...]}',
                )
                return None
            rows.append(json.loads(line))
    return rows


def _row_problem(line: str) -> str | None:
    try:
        messages = json.loads(line)["messages"]
        if messages and all(
            isinstance(m["content"], str) and m["role"] in ("system", "user", "assistant") for m in messages
        ):
            return None
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return "not a row of messages"
