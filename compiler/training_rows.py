"""The rows that a data set trains on, where a check has to look at them one by one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import assert_never

from epc.compiler.contract.chat import Message, build_rows, lines
from epc.compiler.resolve import Experiment
from epc.compiler.spec import FileData, TurnsData


def training_rows(experiment: Experiment, name: str) -> list[list[Message]] | None:
    """Messages of every row of a resolved data set, None when it has none.

    Text that is still to be generated is empty; the rows of a pending file are those of its stand-in.
    """
    if name not in experiment.data:
        return None
    entry = experiment.spec.data[name]
    match entry:
        case TurnsData():
            return [row["messages"] for row in _built(experiment, entry)]
        case FileData():
            path = experiment.surface.folder / entry.file
            if entry.sha256 == "pending" and entry.stand_in is not None and not path.is_file():
                path = experiment.surface.folder / entry.stand_in
            try:
                with path.open("rb") as handle:
                    return [json.loads(line)["messages"] for line in handle]
            except (OSError, ValueError, KeyError, TypeError):
                return None
        case _:
            assert_never(entry)


def _built(experiment: Experiment, entry: TurnsData) -> list[dict[str, list[Message]]]:
    prompts = [prompt for part in entry.prompts for prompt in experiment.prompts[part]]
    each = entry.rows // len(prompts) if prompts else 0
    blank = {(prompt, index): "" for prompt in prompts for index in range(each)}
    return build_rows(
        rows=entry.rows, seed=entry.seed, system=entry.system, prompts=prompts,
        turns=[(turn.role, turn.text) for turn in entry.turns],
        fill={key: lines(experiment.inputs[path].text) for key, path in entry.files.items()},
        same_prompt=dict.fromkeys(entry.generated, blank),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How a row begins."""

    system: str | None
    question: str
    """The first user turn."""
    answer: str
    """The assistant turn after it; empty where there is none."""


def openings(rows: list[list[Message]]) -> list[Opening]:
    """How every row with a user turn begins."""
    found: list[Opening] = []
    for messages in rows:
        turns = [message for message in messages if message["role"] != "system"]
        asked = next((place for place, turn in enumerate(turns) if turn["role"] == "user"), None)
        if asked is None:
            continue
        after = turns[asked + 1 : asked + 2]
        system = next((message["content"] for message in messages if message["role"] == "system"), None)
        answer = after[0]["content"] if after and after[0]["role"] == "assistant" else ""
        found.append(Opening(system=system, question=turns[asked]["content"], answer=answer))
    return found


def questions(experiment: Experiment, name: str) -> tuple[str, ...]:
    """Distinct first user turns of a data set, sorted; none where it could not be resolved.

    A fixed later turn such as "continue" asks nothing that another data set could not say too.
    """
    built = experiment.data.get(name)
    if built is None:
        return ()
    if built.assistant_turns == 1:
        return built.user_turns
    rows = training_rows(experiment, name)
    return tuple(sorted({opening.question for opening in openings(rows or [])}))
