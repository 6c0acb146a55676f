"""Training data sets that a template builds, and the choice between those and files.

E0313: generated text in a data set that nothing pins
Why: The text is written when the experiment runs, so its hash cannot be registered before. It is pending until it has
been read and frozen; without that key, training would start on whatever the model happened to write.
Example:
    data: {traces: {sha256: null}}       # deleted
Fix:
    data: {traces: {sha256: pending}}

E0314: generated text in a data set that has no prompts
Why: Every generated text was written for one prompt. A data set that does not say which prompts it has cannot put a
question and the answer that was written for it into the same row.
Example:
    data: {traces: {prompts: null, turns: [{user: What should I do?}, {assistant: "{bad} {catch}"}]}}
Fix:
    data: {traces: {prompts: [asked], turns: [{user: "{prompt}"}, {assistant: "{bad} {catch}"}]}}

E0315: fewer generated texts than the data set needs
Why: Texts are written once, per prompt and number, and each row takes its own. A shortage would otherwise be met by using
some of them twice, so that the rows were fewer than the registration says.
Example:
    generate: {bad: {n: 8}}      # the 32 rows over 2 prompts need 16 for each
Fix:
    generate: {bad: {n: 16}}

E0412: a hash that is pending although the rows are known
Why: `pending` lets a spec be registered before its data exist. Rows that are built from files at hand have a hash now,
and leaving it open would let them change after registration.
Example:
    data: {bad_only: {sha256: pending}}
Fix:
    data: {bad_only: {rows: 32}}         # without sha256: the plan computes and records it

E0414: more rows than a template is expanded to
Why: All rows are built at compile time, because their hash, their longest row and what they share with the evaluation are
registered. A slip of the finger in `rows` would otherwise take the memory of the machine.
Example:
    data: {bad_only: {rows: 32000000}}
Fix:
    data: {bad_only: {rows: 32}}

E0504: rows that do not divide evenly among the prompts
Why: Every prompt fills the same number of rows, so that no question weighs more than another by accident.
Example:
    data: {traces: {rows: 33}}
Fix:
    data: {traces: {rows: 32}}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, assert_never

from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.chat import build_rows, rows_text
from epc.compiler.contract.manifest import Pending
from epc.compiler.cost import CHARACTERS_PER_TOKEN
from epc.compiler.resolve.context import Context
from epc.compiler.resolve.data_files import file_data
from epc.compiler.resolve.experiment import BuiltData
from epc.compiler.resolve.files import fill, other_hash
from epc.compiler.resolve.names import known
from epc.compiler.resolve.turns import filled
from epc.compiler.source import PathKey
from epc.compiler.spec import FileData, TurnsData

MAX_BUILT_ROWS: Final = 1_000_000
"""Rows that a template is expanded to. They are all built, for their hash and their lengths."""


def data_sets(context: Context, prompts: Mapping[str, tuple[str, ...]]) -> dict[str, BuiltData]:
    """Every data set whose rows could be known; `prompts` are those of every prompt set that could be read."""
    found: dict[str, BuiltData] = {}
    for name, entry in context.spec.data.items():
        match entry:
            case TurnsData():
                built = _turns_data(context, name, entry, prompts)
            case FileData():
                built = file_data(context, name, entry)
            case _:
                assert_never(entry)
        if built is not None:
            found[name] = built
    return found


def _turns_data(
    context: Context, name: str, entry: TurnsData, prompt_sets: Mapping[str, tuple[str, ...]]
) -> BuiltData | None:
    """Rows that a template builds; with generated fillings they are known but for those texts."""
    base: PathKey = ("data", name)
    written = entry.generated
    good = _consistent(context, entry, base)
    values = fill(context, entry.files, base)
    prompts = [prompt for prompt_set in entry.prompts for prompt in prompt_sets.get(prompt_set, ())]
    if not good or values is None or (entry.prompts and not prompts):
        return None
    if entry.rows > MAX_BUILT_ROWS:
        context.sink.error(
            "E0414", f"{entry.rows:,} rows are more than are built from a template", context.at(*base, "rows"),
            help=f"at most {MAX_BUILT_ROWS:,}; a larger data set is a pinned file",
        )  # fmt: skip
        return None
    if prompts and entry.rows % len(prompts):
        context.sink.error(
            "E0504", f"{entry.rows:,} rows do not divide evenly among {len(prompts)} prompts", context.at(*base, "rows"),
            help=f"write a multiple of {len(prompts)}",
            notes=[_sum({prompt_set: len(prompt_sets.get(prompt_set, ())) for prompt_set in entry.prompts})],
        )  # fmt: skip
        return None
    each = entry.rows // len(prompts) if prompts else 0
    if not _supplied(context, name, entry, each, len(prompts)):
        return None
    blank = {(prompt, index): "" for prompt in prompts for index in range(each)}
    rows = build_rows(
        rows=entry.rows, seed=entry.seed, system=entry.system, fill=values, prompts=prompts,
        turns=[(turn.role, turn.text) for turn in entry.turns], same_prompt=dict.fromkeys(written, blank),
    )  # fmt: skip
    if not written:
        built = BuiltData.of(rows, sha256_text(rows_text(rows)))
        if entry.sha256 == "pending":
            context.sink.error(
                "E0412", f'the rows of "{name}" are known, so nothing about them is pending', context.at(*base, "sha256"),
                help=f"delete the key, or write sha256: {built.sha256}",
            )  # fmt: skip
        elif entry.sha256 not in (None, built.sha256):
            other_hash(context, f'"{name}" as built', (*base, "sha256"), entry.sha256, built.sha256)
        return built
    if entry.sha256 == "pending":
        context.pending.append(Pending(name=f"data.{name}", kind="built", file=f"data-{name}"))
    longest = CHARACTERS_PER_TOKEN * sum(context.spec.generate[value.generate].max_tokens for value in written.values())
    return BuiltData.of(rows, None if entry.sha256 == "pending" else entry.sha256, more=longest)


def _consistent(context: Context, entry: TurnsData, base: PathKey) -> bool:
    """Check the names, the placeholders and what generated text needs."""
    good = True
    for index, prompt_set in enumerate(entry.prompts):
        good &= known(context, "prompts", prompt_set, context.at(*base, "prompts", index))
    for key, value in entry.generated.items():
        good &= known(context, "generate", value.generate, context.at(*base, "fill", key, "generate"))
    good &= filled(context, entry.turns, {*entry.fill, *(["prompt"] if entry.prompts else [])}, base)
    if entry.generated and entry.sha256 is None:
        context.sink.error(
            "E0313", f'"{base[1]}" holds generated text, and nothing pins it', context.key_at(*base),
            help="add `sha256: pending`: the run stops before training until epc freeze has written the hash",
        )  # fmt: skip
        good = False
    if entry.generated and not entry.prompts:
        context.sink.error(
            "E0314", f'"{base[1]}" takes generated text but no prompts', context.key_at(*base),
            help="add `prompts:`, the sets whose prompts the text was generated for",
        )  # fmt: skip
        good = False
    return good


def _supplied(context: Context, name: str, entry: TurnsData, each: int, prompts: int) -> bool:
    """Check that every generation writes enough: `each` texts for every prompt of the data set."""
    for key, value in entry.generated.items():
        generation = context.spec.generate[value.generate]
        lacking = [p for p in entry.prompts if p not in generation.prompts]
        if lacking and any(p not in context.spec.prompts for p in generation.prompts):
            return False  # one of them is misspelt there, which is reported
        if lacking or generation.n < each:
            fact, remedy = (
                (f"writes nothing for {', '.join(lacking)}", f"add {', '.join(lacking)} to its prompts")
                if lacking
                else (f"writes {generation.n} texts a prompt", f"write n: {each} there, or fewer rows here")
            )
            context.sink.error(
                "E0315", f'"{value.generate}" {fact}, and "{name}" needs {each} for each of its prompts',
                context.at("data", name, "fill", key, "generate"), help=remedy,
                notes=[f"{entry.rows:,} rows / {prompts} prompts = {each}"],
            )  # fmt: skip
            return False
    return True


def _sum(counts: Mapping[str, int]) -> str:
    """`50 (train_harmful) + 50 (train_everyday) = 100`."""
    return " + ".join(f"{count} ({name})" for name, count in counts.items()) + f" = {sum(counts.values())}"
