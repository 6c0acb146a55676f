"""What the checks found: rows of one table, and the failures with their remedies."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from epc.runtime.errors import Fault
from epc.runtime.progress import say
from epc.runtime.wording import count, plural

if TYPE_CHECKING:
    from rich.console import Console

Check = Literal["gpu", "disk", "packages", "versions", "model", "content", "keys", "engine", "judge"]
State = Literal["ok", "warned", "failed", "skipped"]
NAMES: Final[tuple[Check, ...]] = (
    "gpu", "disk", "packages", "versions", "model", "content", "keys", "engine", "judge",
)  # fmt: skip
"""What `--despite` may name."""
STYLES: Final[Mapping[State, str]] = {"ok": "green", "warned": "yellow", "failed": "bold red", "skipped": "dim"}
GIB: Final = 2**30


@dataclass(frozen=True, kw_only=True)
class Row:
    """One thing that was looked at."""

    check: Check
    what: str
    found: str
    needed: str = ""
    faults: tuple[Fault, ...] = ()
    """What is wrong, each with its remedy."""
    warnings: tuple[str, ...] = ()
    """What is worth knowing and stops nothing."""
    skipped: bool = False
    """Whether it could not be looked at yet; `found` says why."""
    brief: str = ""
    """How the one line of a passed preflight tells of it; empty where it need not."""

    @property
    def state(self) -> State:
        if self.faults:
            return "failed"
        if self.warnings:
            return "warned"
        return "skipped" if self.skipped else "ok"


class FailedError(Fault):
    """Everything that a preflight found wrong."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        first = faults[0]
        super().__init__(first.code, first.place, first.fact, first.remedy)
        self.faults = tuple(faults)

    def render(self) -> str:
        """Every failure, three lines each, and how many there are."""
        total = f"preflight: {count(len(self.faults), 'failure')}; nothing expensive was started"
        return "\n\n".join([*(fault.render() for fault in self.faults), total])


def overridden(rows: Sequence[Row], despite: Collection[str]) -> list[Row]:
    """The rows with the failures of the named checks turned into warnings."""
    return [
        replace(row, faults=(), warnings=(*row.warnings, *(f"gone on despite: {fault.fact}" for fault in row.faults)))
        if row.faults and row.check in despite
        else row
        for row in rows
    ]  # fmt: skip


def size(number: int) -> str:
    """Bytes as a person reads them: `1.2 GiB`, `310 MiB`, `12 KiB`."""
    for unit, name in ((GIB, "GiB"), (2**20, "MiB")):
        if number >= unit:
            value = number / unit
            return f"{value:.1f} {name}" if value < 10 else f"{value:,.0f} {name}"
    return f"{-(-number // 1024)} KiB"


def print_table(console: Console, rows: Sequence[Row]) -> None:
    """Every row: aligned columns, one line each, also where the output is piped."""
    from rich.text import Text

    heading = ("", "checked", "found", "needed")
    cells = [(row.state, row.what, row.found, row.needed) for row in rows]
    widths = [max(len(line[column]) for line in (heading, *cells)) for column in range(3)]
    say(
        console,
        "  ".join(f"{text:<{width}}" for text, width in zip(heading, [*widths, 0], strict=True)).rstrip(),
        "dim",
    )
    for row, line in zip(rows, cells, strict=True):
        padded = "  ".join(f"{text:<{width}}" for text, width in zip(line, [*widths, 0], strict=True)).rstrip()
        text = Text(padded)
        text.stylize(STYLES[row.state], 0, len(row.state))
        console.print(text, soft_wrap=True)
    print_warnings(console, rows)


def print_warnings(console: Console, rows: Sequence[Row]) -> None:
    for row in rows:
        for warning in row.warnings:
            say(console, f"preflight: {row.what}: {warning}", style="yellow")


def print_line(console: Console, rows: Sequence[Row]) -> None:
    """A passed preflight in one line, then its warnings."""
    passed = sum(row.state in ("ok", "warned") for row in rows)
    told = "; ".join(row.brief for row in rows if row.brief)
    say(console, f"preflight: {passed} {plural(passed, 'check')} passed" + (f" ({told})" if told else ""))
    print_warnings(console, rows)


def record(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows as JSON."""
    return {
        "outcome": outcome(rows),
        "checks": [
            {
                "check": row.check, "what": row.what, "state": row.state, "found": row.found, "needed": row.needed,
                "warnings": list(row.warnings),
                "failures": [
                    {"code": fault.code, "place": fault.place, "fact": fault.fact, "remedy": fault.remedy}
                    for fault in row.faults
                ],
            }
            for row in rows
        ],
    }  # fmt: skip


def outcome(rows: Sequence[Row]) -> Literal["passed", "failed"]:
    return "failed" if any(row.faults for row in rows) else "passed"
