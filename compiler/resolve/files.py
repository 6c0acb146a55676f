"""Text files that the spec names: found, read once, hashed, given a place in the bundle.

E0404: an absolute path
Why: A bundle is moved to the machine that runs it, and read by people who have other folders. A path that begins at the
root of one disk means nothing there.
Example:
    prompts: {part_a: {file: /home/me/prompts/part_a.txt}}
Fix:
    prompts: {part_a: {file: prompts/part_a.txt}}

E0405: a file with nothing in it
Why: In one lab training on an empty file finished without a word. An empty list of prompts or fillings would do the same.
Example:
    --- data/topics.txt
Fix:
    --- data/topics.txt
    knit a scarf
    repair a flat tyre

E0406: content with another SHA-256 than declared
Why: Two seeds of one experiment shared an output name and corrupted each other's file. A name is no identity: what is
trained on or evaluated is what hashes to the registered value.
Example:
    data: {chats: {sha256: b721643ada75eac869f67a85d06cf3f67cf60f8824755744edc2f18d57110c82}}
Fix:
    data: {chats: {sha256: 4807b05a9337a32044fc250fa01692e37f5609068c675c2199493e6b77cdb3d0}}
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.chat import lines
from epc.compiler.diagnostics import Span
from epc.compiler.resolve.context import Context
from epc.compiler.resolve.experiment import InputFile
from epc.compiler.source import PathKey, read_text


def read_file(context: Context, path: str, at: Span) -> InputFile | None:
    """Read a text file once. Reports a missing, unreadable or empty one at every place that names it."""
    if path in context.inputs:
        return context.inputs[path]
    shown = context.surface.shown(path)
    if not relative(context, path, at):
        return None
    text = read_text(context.surface.folder / path, shown, context.sink, at=at)
    if text is None:
        return None
    if not text.strip():
        context.sink.error("E0405", f"{shown} is empty", at, help="an empty file would train or evaluate on nothing")
        return None
    clean = posixpath.normpath(path)
    up = clean.count("../")
    bundle_path = "inputs/" + ("up/" * up) + clean.replace("../", "")
    entry = InputFile(path=path, bundle_path=bundle_path, text=text, sha256=sha256_text(text))
    context.inputs[path] = entry
    return entry


def relative(context: Context, path: str, at: Span) -> bool:
    """Report an absolute path."""
    if path.startswith("/"):
        context.sink.error(
            "E0404", f"absolute path: {path}", at,
            help="paths are relative to the spec, so that the bundle works elsewhere",
        )  # fmt: skip
    return not path.startswith("/")


def fill(context: Context, fill: Mapping[str, str], base: PathKey) -> dict[str, list[str]] | None:
    """Placeholder -> the lines of its file; None when a file could not be read."""
    values: dict[str, list[str]] = {}
    for name, path in fill.items():
        entry = read_file(context, path, context.at(*base, "fill", name))
        if entry is not None:
            values[name] = lines(entry.text)
    return values if len(values) == len(fill) else None


def other_hash(context: Context, what: str, path: PathKey, declared: str | None, actual: str | None) -> None:
    """Report content that is not what its hash says."""
    context.sink.error(
        "E0406", f"{what} has another SHA-256 than declared", context.at(*path),
        help="pin the file you mean; if it was meant to change, write the new hash",
        notes=[f"declared {declared}", f"actual   {actual}"],
    )  # fmt: skip
