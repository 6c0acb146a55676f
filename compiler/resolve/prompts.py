"""Prompt sets: files, inline lists, somebody else's files, unions.

E0319: a union of unions
Why: The source of issue 147 adds 8 and 44 prompts and gets 48. A union is only as clear as its parts, so they
are listed one by one, each with its own count.
Example:
    prompts:
      both: {union: [part_a, part_b], count: 24}
      heldout: {union: [both, part_b], count: 24}
Fix:
    prompts:
      heldout: {union: [part_a, part_b], count: 24}

E0411: a pending file that has no stand-in
Why: Sizes, steps, overlaps and costs are computed before a file of somebody else's arrives. A stand-in of the same size
serves for that; without one, everything that depends on the file would go unchecked.
Example:
    prompts: {part_a: {file: null, external: {source: the authors, file: prompts/theirs.txt, sha256: pending}}}
Fix:
    prompts:
      part_a:
        file: null
        external: {source: the authors, file: prompts/theirs.txt, sha256: pending}
        stand_in: prompts/part_a.txt
"""

from __future__ import annotations

from epc.compiler.contract.canonical import sha256_file
from epc.compiler.contract.chat import lines
from epc.compiler.contract.manifest import Pending
from epc.compiler.resolve.context import Context
from epc.compiler.resolve.experiment import InputFile, Prompts
from epc.compiler.resolve.files import other_hash, read_file
from epc.compiler.resolve.names import known
from epc.compiler.source import is_file
from epc.compiler.spec import PromptSet


def prompt_sets(context: Context) -> dict[str, Prompts]:
    """Every prompt set that could be read, unions after what they are made of."""
    spec = context.spec
    found: dict[str, Prompts] = {}
    for name, entry in spec.prompts.items():
        for index, data in enumerate(entry.disjoint_from):
            known(context, "data", data, context.at("prompts", name, "disjoint_from", index))
        source = _file(context, name, entry)
        if source is not None:
            found[name] = Prompts(items=tuple(lines(source.text)), bundle_path=source.bundle_path, source=source)
        elif entry.items is not None:
            path = f"inputs/prompts/{name}.inline.txt"
            found[name] = Prompts(items=tuple(entry.items), bundle_path=path, source=None)
    for name, entry in spec.prompts.items():
        if entry.union is None:
            continue
        good = True
        for index, part in enumerate(entry.union):
            at = context.at("prompts", name, "union", index)
            good &= known(context, "prompts", part, at)
            if part in spec.prompts and spec.prompts[part].union is not None:
                context.sink.error("E0319", f'"{part}" is a union itself', at, help="list the sets that it is made of")
                good = False
        if good and all(part in found for part in entry.union):
            items = tuple(dict.fromkeys(prompt for part in entry.union for prompt in found[part].items))
            found[name] = Prompts(items=items, bundle_path=f"inputs/prompts/{name}.union.txt", source=None)
    return {name: found[name] for name in spec.prompts if name in found}


def _file(context: Context, name: str, entry: PromptSet) -> InputFile | None:
    """The file of a prompt set; of an external one that is not there yet, its stand-in."""
    if entry.file is not None:
        return read_file(context, entry.file, context.at("prompts", name, "file"))
    external = entry.external
    if external is None:
        return None
    path = context.surface.folder / external.file
    place = context.at("prompts", name, "external", "file")
    if external.sha256 != "pending":
        file = read_file(context, external.file, place)
        actual = None if file is None else sha256_file(path)
        if actual is not None and actual != external.sha256:
            shown = context.surface.shown(external.file)
            other_hash(context, shown, ("prompts", name, "external", "sha256"), external.sha256, actual)
        return file
    context.pending.append(Pending(name=f"prompts.{name}", kind="external", file=external.file, source=external.source))
    if is_file(path):
        return read_file(context, external.file, place)
    if entry.stand_in is None:
        context.sink.error(
            "E0411", f'the file of "{name}" is pending and has no stand-in', context.at("prompts", name, "external", "sha256"),
            help="add `stand_in:`, a file of the same size, for counts and overlaps; or put the file there and pin it",
        )  # fmt: skip
        return None
    return read_file(context, entry.stand_in, context.at("prompts", name, "stand_in"))
