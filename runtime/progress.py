"""What a person sees while steps run: a live block on a terminal, plain lines anywhere else."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live

PLAIN_INTERVAL = 10.0
"""Seconds between progress lines where there is no terminal."""
BAR = 20
"""Characters of a progress bar."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a running step last published."""

    done: int
    total: int
    facts: Mapping[str, float | str]

    def text(self) -> str:
        """`12/16  loss 1.21  tokens/s 240`"""
        return "  ".join([f"{self.done}/{self.total}", *(f"{_name(k)} {_value(v)}" for k, v in self.facts.items())])


def read_progress(bundle: Path, step_id: str) -> Progress | None:
    """The live line of a step, None when it has published none or one that cannot be read."""
    try:
        state = json.loads(progress_path(bundle, step_id).read_text(encoding="utf-8"))
        return Progress(done=int(state["done"]), total=int(state["total"]), facts=dict(state["facts"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def progress_path(bundle: Path, step_id: str) -> Path:
    return bundle / "logs" / f"{step_id}.progress.json"


class Tail:
    """Lines added to a file since this object was made; a line still being written is left for later."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = 0
        self.new()

    def new(self) -> list[str]:
        try:
            with self._file.open("rb") as handle:
                handle.seek(self._offset)
                data = handle.read()
        except FileNotFoundError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode("utf-8", "replace").splitlines()


def clock(seconds: float) -> str:
    """`0:07`, `12:30`, `1:02:03`"""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Display(Protocol):
    """`say` prints a line that stays, `began` tells of a step, `show` of all: step -> (seconds, progress)."""

    def __enter__(self) -> Display: ...
    def __exit__(self, *error: object) -> None: ...
    def say(self, text: str, style: str = "") -> None: ...
    def began(self, step_id: str) -> None: ...
    def show(self, done: int, total: int, running: Mapping[str, tuple[float, Progress | None]]) -> None: ...


def display(console: Console) -> Display:
    return LiveDisplay(console) if console.is_terminal else PlainDisplay(console)


class PlainDisplay:
    """For logs: a line when something happens, and what runs every PLAIN_INTERVAL seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = time.monotonic() + PLAIN_INTERVAL

    def __enter__(self) -> PlainDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def say(self, text: str, style: str = "") -> None:
        say(self._console, text, style)

    def began(self, step_id: str) -> None:
        self.say(f"started   {step_id}")

    def show(self, done: int, total: int, running: Mapping[str, tuple[float, Progress | None]]) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PLAIN_INTERVAL
        for step_id, (seconds, progress) in running.items():
            tail = "" if progress is None else "  " + progress.text()
            self.say(f"running   {step_id}  {clock(seconds)}{tail}")


class LiveDisplay:
    """For terminals: finished steps scroll up, below them one line in all and one for each running step."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        self._began = time.monotonic()
        self._live: Live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def say(self, text: str, style: str = "") -> None:
        say(self._console, text, style)

    def began(self, step_id: str) -> None:
        """Nothing: its live line appears."""

    def show(self, done: int, total: int, running: Mapping[str, tuple[float, Progress | None]]) -> None:
        self._live.update(self._block(done, total, running), refresh=True)

    def _block(self, done: int, total: int, running: Mapping[str, tuple[float, Progress | None]]) -> Group:
        from rich.console import Group
        from rich.text import Text

        head = f"{_bar(done, total)} {done} of {total} steps  {clock(time.monotonic() - self._began)}"
        lines = [Text(head, style="bold")]
        for step_id, (seconds, progress) in running.items():
            bar = " " * BAR if progress is None else _bar(progress.done, progress.total)
            tail = "starting" if progress is None else progress.text()
            lines.append(Text(f"{bar} {step_id}  {clock(seconds)}  {tail}", no_wrap=True, overflow="ellipsis"))
        return Group(*lines)


def say(console: Console, text: str, style: str = "") -> None:
    """One line as it is: no markup, no highlighting, no wrapping."""
    from rich.text import Text

    console.print(Text(text, style=style), soft_wrap=True)  # a style of `print` would colour the live block too


def _bar(done: int, total: int) -> str:
    filled = BAR * min(done, total) // total if total > 0 else 0
    return "━" * filled + "╌" * (BAR - filled)


def _name(fact: str) -> str:
    return fact.replace("_per_second", "/s").replace("_", " ")


def _value(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
