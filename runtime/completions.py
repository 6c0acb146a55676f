"""Completions are stored as they come: batch by batch, each forced to disk before the next is sampled.

Until all are there they lie in `<name>.partial.jsonl`; then they are put into the registered order
and take their name. Whoever goes on after a crash finds in that file what need not be sampled again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epc.compiler.contract.canonical import json_lines, sha256_file, sha256_json, sha256_text
from epc.compiler.contract.rows import SampleRow, TextRow
from epc.runtime import bundle as bundles
from epc.runtime.errors import Fault
from epc.runtime.sampling import Completion, Request

if TYPE_CHECKING:
    from epc.runtime.step import Step

PieceName = tuple[str, int, str]
"""(condition, training seed, set)."""
Identity = tuple[str, int]
"""(item, index)."""


class CompletionFile:
    """One file of completions that grows until every request has one.

    >>> file = CompletionFile(path, requests, to_row, on_batch)
    >>> for chunk in file.missing(512):
    ...     file.append(sample(chunk))
    >>> file.finish()

    Raises Fault R0354 when a stored row is the answer to another prompt than the one rendered now.
    """

    def __init__(
        self,
        file: Path,
        requests: Sequence[Request],
        to_row: Callable[[Completion], SampleRow | TextRow],
        on_batch: Callable[[int, int], None],
    ) -> None:
        self.file, self.partial = file, file.with_suffix(".partial.jsonl")
        self.requests, self.to_row, self.on_batch = requests, to_row, on_batch
        file.parent.mkdir(parents=True, exist_ok=True)
        self._lines = self._recover()
        self.on_batch(len(self._lines), 0)

    @property
    def done(self) -> Collection[Identity]:
        """(item, index) of the completions that are stored."""
        return self._lines.keys()

    def missing(self, size: int) -> Iterator[list[Request]]:
        """Chunks of `size` requests in the registered order, without those of which every completion is stored.

        They are cut as if nothing were stored: what shares a batch can decide the rounding of a completion, and after
        a crash it has to be what it would have been without.
        """
        for start in range(0, len(self.requests), size):
            chunk = list(self.requests[start : start + size])
            if any(request.identity not in self._lines for request in chunk):
                yield chunk

    def append(self, completions: Sequence[Completion]) -> None:
        """Store a batch; completions that are stored already are left as they were."""
        new = [found for found in completions if found.request.identity not in self._lines]
        lines = {found.request.identity: self.to_row(found).model_dump_json() + "\n" for found in new}
        with self.partial.open("a", encoding="utf-8") as handle:
            handle.write("".join(lines.values()))
            handle.flush()
            os.fsync(handle.fileno())
        self._lines |= lines
        self.on_batch(len(new), sum(found.tokens for found in new))

    def finish(self) -> None:
        """Put the rows into the registered order and give the file its name.

        Raises Fault R0343 when some are missing.
        """
        if len(self._lines) != len(self.requests):
            raise Fault(
                "R0343", str(self.partial), f"the file holds {len(self._lines)} completions, registered are {len(self.requests)}",
                "this is a bug in the script: report it",
            )  # fmt: skip
        aside = self.file.with_suffix(".tmp")
        with aside.open("w", encoding="utf-8") as handle:
            handle.writelines(self._lines[request.identity] for request in self.requests)
            handle.flush()
            os.fsync(handle.fileno())
        aside.replace(self.partial)  # two renames, so that no crash leaves a partial file beside a complete one
        self.partial.replace(self.file)

    def _recover(self) -> dict[Identity, str]:
        """What an earlier try stored; a torn end is cut off."""
        try:
            text = self.partial.read_bytes()
        except FileNotFoundError:
            return {}
        expected = {request.identity: request for request in self.requests}
        lines: dict[Identity, str] = {}
        whole = 0
        for line in text.splitlines(keepends=True):
            row = _row(line)
            if row is None:
                break
            request = expected.get((row["item"], row["index"]))
            if request is None or (row["prompt"], row["draw_seed"]) != (request.prompt, request.draw_seed):
                raise Fault(
                    "R0354", str(self.partial), f"a stored completion of {row['item']}/{row['index']} answers another prompt or seed",
                    f"delete {self.partial} and run again: only these completions are sampled anew",
                )  # fmt: skip
            lines[request.identity] = line.decode("utf-8")
            whole += len(line)
        if whole < len(text):
            with self.partial.open("r+b") as handle:
                handle.truncate(whole)
        return lines


def _row(line: bytes) -> dict[str, Any] | None:
    """A stored line as a row, None for one that a crash left torn."""
    if not line.endswith(b"\n"):
        return None
    try:
        row: dict[str, Any] = json.loads(line)
        return row
    except ValueError:
        return None


class LiveLine:
    """The live line of a step that samples: completions done of total, tokens per second."""

    def __init__(self, step: Step, *, total: int) -> None:
        self.step, self.total = step, total
        self.done = self.tokens = 0
        self.began = time.monotonic()

    def advance(self, completions: int, tokens: int) -> None:
        """Count completions; the clock starts when the first file is opened, with the model loaded."""
        if not tokens and not self.tokens:
            self.began = time.monotonic()
        self.done += completions
        self.tokens += tokens
        speed = self.tokens / max(time.monotonic() - self.began, 1e-9)
        self.step.progress(self.done, self.total, tokens_per_second=round(speed))


class Pieces:
    """The stored parts of a sampling step: one file for each arm, training seed and set."""

    def __init__(self, step: Step, keys: Mapping[PieceName, str], sets: Sequence[Mapping[str, Any]]) -> None:
        self.step, self.keys = step, keys
        self.rows = {entry["name"]: entry["count"] * entry["n"] for entry in sets}
        self.line = LiveLine(step, total=sum(self.rows[name] for _, _, name in keys))
        self.line.done = sum(self.rows[name] for condition, seed, name in keys if self.stored(condition, seed, name))

    def path(self, condition: str, seed: int, set_name: str) -> Path:
        return bundles.piece(self.step.bundle, self.keys[condition, seed, set_name])

    def stored(self, condition: str, seed: int, set_name: str) -> bool:
        return self.path(condition, seed, set_name).exists()

    def open(
        self, condition: str, seed: int, condition_key: str, set_name: str, requests: Sequence[Request]
    ) -> CompletionFile:
        """The file of one piece, with what an earlier try stored in it. Raises Fault R0354."""

        def to_row(found: Completion) -> SampleRow:
            request = found.request
            return SampleRow(
                mode=self.step.manifest.mode, condition=condition, condition_key=condition_key, seed=seed, set=set_name,
                item=request.item, turn=request.turn, index=request.index, draw_seed=request.draw_seed,
                prompt=request.prompt, prompt_sha256=sha256_text(request.prompt), question=request.question,
                text=found.text, finish_reason=found.finish_reason, tokens=found.tokens,
            )  # fmt: skip

        return CompletionFile(self.path(condition, seed, set_name), requests, to_row, self.line.advance)

    def index(self, file: Path) -> dict[str, Any]:
        """Write the list of pieces with their hashes; return the facts of the step.

        `completions_sha256` hashes the texts of an arm in order, so that two arms that said the same
        everywhere are noticed; `empty_completions` counts those without a word, which are kept like any other. Raises
        Fault R0343 for a piece with another number of rows.
        """
        entries: list[dict[str, Any]] = []
        texts: dict[str, list[str]] = {}
        tokens = 0
        for (condition, seed, set_name), key in self.keys.items():
            path = self.path(condition, seed, set_name)
            rows = [json.loads(line) for line in json_lines(path.read_text(encoding="utf-8"))]
            if len(rows) != self.rows[set_name]:
                raise Fault(
                    "R0343", str(path), f"the piece holds {len(rows)} completions, registered are {self.rows[set_name]}",
                    f"delete {path} and run again: only this piece is sampled anew",
                )  # fmt: skip
            tokens += sum(row["tokens"] for row in rows)
            texts.setdefault(f"{condition}-s{seed}", []).extend(row["text"] for row in rows)
            entries.append(
                {
                    "key": key,
                    "condition": condition,
                    "seed": seed,
                    "set": set_name,
                    "rows": len(rows),
                    "sha256": sha256_file(path),
                }
            )
        file.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
        return {
            "completions": sum(entry["rows"] for entry in entries),
            "tokens": tokens,
            "completions_sha256": {arm: sha256_json(found) for arm, found in texts.items()},
            "empty_completions": {arm: sum(not text.strip() for text in found) for arm, found in texts.items()},
        }


class Texts:
    """What the base model writes before any training: `texts/<name>.jsonl` in the step's folder, one an entry."""

    def __init__(self, step: Step, entries: Sequence[Mapping[str, Any]]) -> None:
        self.folder = step.out / "texts"
        self.rows = {entry["name"]: entry["count"] * entry["n"] for entry in entries}
        self.line = LiveLine(step, total=sum(self.rows.values()))
        self.line.done = sum(rows for name, rows in self.rows.items() if self.stored(name))

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def stored(self, name: str) -> bool:
        return self.path(name).exists()

    def open(self, name: str, requests: Sequence[Request]) -> CompletionFile:
        """The file of one entry, with what an earlier try stored in it. Raises Fault R0354."""
        return CompletionFile(self.path(name), requests, _text_row, self.line.advance)

    def facts(self) -> dict[str, Any]:
        """Facts of the step: texts, tokens, and of each entry what tells a good one from a broken one.

        Raises Fault R0355 when more than half of an entry's texts are empty.
        """
        entries: dict[str, dict[str, Any]] = {}
        tokens = 0
        for name in self.rows:
            text = self.path(name).read_text(encoding="utf-8")
            rows = [TextRow.model_validate_json(line) for line in json_lines(text)]
            empty = sum(not row.text.strip() for row in rows)
            if 2 * empty > len(rows):
                raise Fault(
                    "R0355", str(self.path(name)), f"{empty} of {len(rows)} texts of `{name}` are empty",
                    "look at the prompt in the file: the model ends its turn at once, or the chat template is not its own",
                )  # fmt: skip
            tokens += sum(row.tokens for row in rows)
            entries[name] = {
                "texts": len(rows),
                "distinct": len({row.text for row in rows}),
                "empty": empty,
                "stop_share": round(sum(row.finish_reason == "stop" for row in rows) / len(rows), 4),
                "mean_characters": round(sum(len(row.text) for row in rows) / len(rows), 1),
            }
        return {"texts": sum(entry["texts"] for entry in entries.values()), "tokens": tokens, "entries": entries}


def _text_row(found: Completion) -> TextRow:
    request = found.request
    return TextRow(
        item=request.item, index=request.index, text=found.text, finish_reason=found.finish_reason, tokens=found.tokens,
        prompt=request.prompt, prompt_sha256=sha256_text(request.prompt), draw_seed=request.draw_seed,
    )  # fmt: skip
