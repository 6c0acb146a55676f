"""Rows that are longer than a recipe allows.

E0710: rows are longer than max_length
Why: a row that is cut loses its end, and with it the answer or the end-of-turn token, and a trainer drops a row of
which nothing trained is left without a word. So the run refuses to cut, which is late to find out. Rows are counted
here, exactly, where the model's tokenizer.json is on this machine: in a local folder, or in the hub's cache at the
pinned revision.
Example:
    model: {from: "path:model", revision: null}
    train: {attack: {max_length: 16}}
    --- model/tokenizer.json
    {"model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}, "pre_tokenizer": {"type": "Whitespace"}}
Fix:
    model: {from: "path:model", revision: null}
    train: {attack: {max_length: 512}}
    --- model/tokenizer.json
    {"model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}, "pre_tokenizer": {"type": "Whitespace"}}

W0710: rows may be longer than max_length
Why: a row that is cut loses its end, so the run refuses to cut, which is late to find out. Where the model's tokenizer
is not on this machine, and for text that is still to be generated, the length of the longest row is estimated as costs
are: four characters a token, and six tokens a turn.
Example:
    train: {attack: {max_length: 8}}
Fix:
    train: {attack: {max_length: 512}}
"""

from __future__ import annotations

import json

from epc.compiler import cost
from epc.compiler.contract.canonical import sha256_text
from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.resolve import Experiment
from epc.compiler.source import is_file
from epc.compiler.spec import FileData, LoraSft, TurnsData
from epc.compiler.tokenizer import can_count, count_tokens
from epc.compiler.training_rows import training_rows


def check(experiment: Experiment, sink: Diagnostics) -> None:
    countable = can_count(experiment)
    for name, recipe in experiment.spec.train.items():
        if recipe.data not in experiment.data:
            continue
        exact = countable and _counted(experiment, sink, name, recipe)
        entry = experiment.spec.data[recipe.data]
        if not exact or (isinstance(entry, TurnsData) and entry.generated):
            _estimated(experiment, sink, name, recipe)


def _counted(experiment: Experiment, sink: Diagnostics, name: str, recipe: LoraSft) -> bool:
    """Report rows that are too long by the model's own tokenizer. Whether it settled the question."""
    rows = training_rows(experiment, recipe.data)
    if not rows:
        return False
    content = experiment.data[recipe.data].sha256 or sha256_text(json.dumps(rows))
    found = count_tokens(experiment, rows, content, recipe.max_length)
    if found is None:
        return False
    if found.over:
        be = "is" if found.over == 1 else "are"
        least = "at least " if _generated(experiment, recipe) else ""
        sink.error(
            "E0710", f'{found.over:,} of {len(rows):,} rows of "{recipe.data}"{_substitute(experiment, recipe)} {be} longer than max_length {recipe.max_length:,}',
            experiment.at("train", name, "max_length"),
            help=f"write max_length: {found.longest}, or shorten the rows",
            labels=[Label(span=experiment.key_at("data", recipe.data), text="the rows")],
            notes=[f"counted with the model's tokenizer and chat template: row {found.row:,} has {least}{found.longest:,} tokens"],
        )  # fmt: skip
    return True


def _generated(experiment: Experiment, recipe: LoraSft) -> bool:
    entry = experiment.spec.data[recipe.data]
    return isinstance(entry, TurnsData) and bool(entry.generated)


def _substitute(experiment: Experiment, recipe: LoraSft) -> str:
    entry = experiment.spec.data[recipe.data]
    pending = isinstance(entry, FileData) and entry.sha256 == "pending"
    there = pending and is_file(experiment.surface.folder / entry.file) if isinstance(entry, FileData) else False
    return " (in its stand-in)" if pending and not there else ""


def _estimated(experiment: Experiment, sink: Diagnostics, name: str, recipe: LoraSft) -> None:
    """Report a longest row that is too long by the estimate that costs are computed with."""
    entry, built = experiment.spec.data[recipe.data], experiment.data[recipe.data]
    turns = len(entry.turns) if isinstance(entry, TurnsData) else 2
    longest = cost.tokens(built.longest, turns)
    if longest <= recipe.max_length:
        return
    parts = [
        f"{built.longest:,} characters / {cost.CHARACTERS_PER_TOKEN} + {cost.TURN_TOKENS} x {turns} turns = {longest:,} tokens"
    ]
    if isinstance(entry, TurnsData) and entry.generated:
        parts.append("generated texts are taken to be as long as their max_tokens allows")
    sink.warning(
        "W0710", f'the longest row of "{recipe.data}"{_substitute(experiment, recipe)} may have {longest:,} tokens, max_length is {recipe.max_length:,}',
        experiment.at("train", name, "max_length"),
        help="raise max_length, or shorten the rows: the run stops before training where a row would be cut",
        labels=[Label(span=experiment.key_at("data", recipe.data), text="the rows")], notes=parts,
    )  # fmt: skip
