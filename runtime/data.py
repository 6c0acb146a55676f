"""Data sets as they are frozen: text lists, rows of messages, hashes and counts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, assert_never

from epc.compiler.contract import chat
from epc.compiler.contract.canonical import json_lines, sha256_file, sha256_text
from epc.runtime.errors import Fault

if TYPE_CHECKING:
    from datasets import Dataset

TrainOn = Literal["every_assistant_turn", "last_assistant_turn"]
ROLES = ("system", "user", "assistant")


def read_lines(file: Path) -> list[str]:
    """The non-empty lines of a text file. Raises Fault R0321 when it is missing, R0322 when none is left."""
    try:
        entries = chat.lines(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise Fault(
            "R0321", str(file), f"the file cannot be read: {error}", "compile the spec again: it copies its inputs"
        ) from None
    if not entries:
        raise Fault("R0322", str(file), "the file has no non-empty line", "write one entry a line")
    return entries


def read_texts(file: Path, prompts: Sequence[str]) -> dict[tuple[str, int], str]:
    """Generated texts by (prompt, index).

    Raises Fault R0321 when the file cannot be read, R0326 when a prompt has no text.
    """
    try:
        rows = [json.loads(line) for line in json_lines(file.read_text(encoding="utf-8"))]
    except (OSError, ValueError) as error:
        raise Fault("R0321", str(file), f"the texts cannot be read: {error}", "run the generate step again") from None
    prompt_of = {chat.item_id(prompt): prompt for prompt in prompts}
    texts = {(prompt_of[row["item"]], row["index"]): row["text"] for row in rows if row["item"] in prompt_of}
    lacking = [prompt for prompt in prompts if (prompt, 0) not in texts]
    if lacking:
        raise Fault(
            "R0326", str(file), f'{len(lacking)} prompts have no text, for example "{lacking[0]}"',
            "compile the spec again, then run the generate step again",
        )  # fmt: skip
    return texts


def describe(file: Path, *, rows: int) -> dict[str, Any]:
    """Facts of a frozen data set: rows, SHA-256, distinct conversations, mean characters of the assistant's turns."""
    found = read_rows(file, rows=rows)
    said = [[message["content"] for message in row["messages"] if message["role"] == "assistant"] for row in found]
    return {
        "rows": rows, "sha256": sha256_file(file), "distinct": len({json.dumps(row) for row in found}),
        "mean_characters": [
            round(sum(len(turns[place]) for turns in said if place < len(turns)) / rows)
            for place in range(max(map(len, said)))
        ],
    }  # fmt: skip


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]], *, expected_sha256: str | None) -> None:
    """Write JSON Lines that must have the registered hash; None while it is pending. Raises Fault R0323."""
    text = chat.rows_text(rows)
    found = sha256_text(text)
    if expected_sha256 not in (None, found):
        raise Fault(
            "R0323", str(file), f"the built rows have SHA-256 {found}, registered is {expected_sha256}",
            "an input file of the bundle was changed: compile the spec again",
        )  # fmt: skip
    file.write_text(text, encoding="utf-8")


def freeze_file(source: Path, file: Path, *, rows: int, expected_sha256: str) -> None:
    """Copy an existing data set after checking its hash, its row count and every row.

    Raises Fault R0321 when it cannot be read, R0323 to R0325.
    """
    try:
        found = sha256_file(source)
    except OSError as error:
        raise Fault("R0321", str(source), f"the data set cannot be read: {error.strerror}", "put it there") from None
    if found != expected_sha256:
        raise Fault(
            "R0323", str(source), f"the data set has SHA-256 {found}, registered is {expected_sha256}",
            "restore the registered file, or register the new one in the spec",
        )  # fmt: skip
    read_rows(source, rows=rows)
    file.write_bytes(source.read_bytes())


def read_rows(file: Path, *, rows: int, expected_sha256: str | None = None) -> list[dict[str, Any]]:
    """The rows of a data set, each {"messages": [...]}.

    Raises Fault R0321 when it cannot be read, R0323 when its hash is not the expected one, R0324 naming
    the first line that is no row, R0325 when the count is not `rows`.
    """
    if expected_sha256 is not None and file.is_file() and sha256_file(file) != expected_sha256:
        raise Fault(
            "R0323", str(file), f"the rows have SHA-256 {sha256_file(file)}, registered is {expected_sha256}",
            f"delete {file.parent} and run again: the data set is built anew and checked",
        )  # fmt: skip
    try:
        lines = json_lines(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise Fault("R0321", str(file), f"the data set cannot be read: {error}", "run its data step again") from None
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            problem = _problem(row)
        except json.JSONDecodeError as error:
            problem = f"not JSON: {error.msg}"
        if problem:
            raise Fault(
                "R0324", f"{file}:{number}", f"this is no training row: {problem}",
                'write {"messages": [{"role": "user", "content": "..."}, ...]} on each line',
            )  # fmt: skip
        found.append(row)
    if len(found) != rows:
        raise Fault(
            "R0325", str(file), f"the data set has {len(found)} rows, registered are {rows}",
            "restore the registered file, or register the new count in the spec",
        )  # fmt: skip
    return found


def _problem(row: Any) -> str:
    """What keeps a value from being a row of messages, or nothing."""
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        return "it has no list of messages"
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            return f"a message's role must be one of {', '.join(ROLES)}"
        if not isinstance(message.get("content"), str) or not message["content"]:
            return "a message's content must be text that is not empty"
    if messages[-1]["role"] != "assistant":
        return "the last turn is not the assistant's"
    return ""


def training_set(rows: Sequence[Mapping[str, Any]], train_on: TrainOn) -> Dataset:
    """Rows in the format in which TRL masks them as registered, together with assistant_only_loss.

    `messages` trains every assistant turn; `prompt` and `completion` restrict that to the last one.
    """
    from datasets import Dataset

    match train_on:
        case "every_assistant_turn":
            return Dataset.from_list([{"messages": row["messages"]} for row in rows])
        case "last_assistant_turn":
            return Dataset.from_list(
                [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in rows]
            )
        case _:
            assert_never(train_on)
