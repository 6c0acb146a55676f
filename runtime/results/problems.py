"""What is wrong with a row from elsewhere, in words, and the one error that lists it all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from epc.runtime.errors import Fault
from epc.runtime.wording import count

SHOWN: Final = 20
"""Problems of an entry that are spelled out."""
LISTED: Final = 1000
"""Problems that are looked for."""
LONGEST: Final = 40
"""Characters of a value that a message shows."""
REMEDY: Final = "correct these rows where they were made, then decide again; nothing was computed from the others"
_NUMBER: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NOT_FINITE: Final = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """`place` is what a person calls the row, such as `line 17`."""

    file: str
    place: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Scale:
    metric: str
    low: float
    high: float
    kept: bool = False
    """Whether rows must hold the scores of single samples."""


@dataclass(frozen=True, kw_only=True)
class RowText:
    """(text, type) of what a row holds; text is None where nothing is there."""

    unit: tuple[str | None, str]
    condition: tuple[str | None, str]
    seed: tuple[str | None, str] | None
    sample: tuple[str | None, str] | None
    outcome: tuple[str | None, str] | None
    scores: tuple[tuple[str | None, str], ...]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What rows are held to. Names are those of the columns, as the spec writes them."""

    unit: str
    condition: str
    seed: str
    sample: str
    outcome: str
    scores: tuple[str, ...]
    scales: tuple[Scale, ...]
    arms: Mapping[str, str]
    """Name in the file -> arm."""
    seeds: Mapping[str, Collection[int]]
    unit_type: str | None
    """The type of the file's first unit, where units are of several."""


def row_problems(row: RowText, rules: Rules) -> Iterator[str]:
    """Everything that is wrong with one row."""
    text, kind = row.unit
    if text is None or text == "":
        yield f"{rules.unit} is empty: every row names its unit"
    elif kind not in ("text", "number"):
        yield f"{rules.unit} is {_a(kind)}, {_shown(text)}: a unit is named by text or an integer"
    elif kind == "number" and re.fullmatch(r"-?\d+", text) is None:
        yield f"{rules.unit} is {_shown(text)}: a unit is named by text or an integer"
    elif rules.unit_type not in (None, kind):
        yield (
            f"{rules.unit} is a {kind} here and a {rules.unit_type} before, so {text} and {_shown(text)} would be one"
            " unit: write all of them the same way"
        )
    yield from _arm_problems(row, rules)
    if row.sample is not None and not row.sample[0]:
        yield f"{rules.sample} is empty: it numbers the samples of a unit"
    outcome = "scored" if row.outcome is None else row.outcome[0]
    if not outcome:
        yield f"{rules.outcome} is empty: write `scored`, or why the score is missing"
        return
    for name, scale, score in zip(rules.scores, rules.scales, row.scores, strict=True):
        if outcome == "scored":
            yield from _score_problems(name, score, scale, has_outcome=row.outcome is not None)
        elif score[0] is not None:
            yield f"{name} is {_shown(score[0])}, but {rules.outcome} says {_shown(outcome)}: a missing score has no value"


def _arm_problems(row: RowText, rules: Rules) -> Iterator[str]:
    name = row.condition[0]
    if not name:
        yield f"{rules.condition} is empty: every row names its arm"
        return
    arm = rules.arms.get(name)
    if arm is None:
        yield f"{rules.condition} {_shown(name)} is no declared condition{did_you_mean(name, rules.arms)}"
        return
    if row.seed is None:
        return
    seed, known = row.seed[0], ", ".join(map(str, sorted(rules.seeds[arm])))
    if seed is None or re.fullmatch(r"\d+", seed) is None:
        yield f"{rules.seed} is {_shown(seed)}: a training seed is an integer"
    elif int(seed) not in rules.seeds[arm]:
        yield f"{rules.seed} {seed} of {arm} is not declared, which has {known}: see `seeds:`"


def _score_problems(name: str, score: tuple[str | None, str], scale: Scale, *, has_outcome: bool) -> Iterator[str]:
    text, kind = score
    bounds = f"[{scale.low:g}, {scale.high:g}]"
    if text is None:
        more = "says `scored`" if has_outcome else "is not there to say why: name it in `mapping.outcome`"
        yield f"{name} is empty, and the outcome column {more}"
    elif kind == "boolean" or (kind == "cell" and text.lower() in ("true", "false")):
        yield f"{name} is a boolean, {text}: write 1 or 0 and declare the scale [0, 1]"
    elif kind == "text":
        what = "a number written as text" if _NUMBER.fullmatch(text.strip()) else "text"
        yield f"{name} is {what}, {_shown(text)}: a score is a number, without quotes"
    elif kind in ("list", "object"):
        yield f"{name} is {_a(kind)}, {_shown(text)}: a score is one number; name the path to it"
    elif _NOT_FINITE.fullmatch(text.strip()):
        yield f"{name} is {text.strip()}: a score that does not exist is missing; leave it empty and let the outcome say why"
    elif _NUMBER.fullmatch(text) is None:
        yield f"{name} is {_shown(text)}, which is not a number"
    elif not scale.low <= float(text) <= scale.high:
        yield f"{name} is {text}, outside the scale {bounds} of {scale.metric}"


def _a(kind: str) -> str:
    return f"an {kind}" if kind.startswith("o") else f"a {kind}"


def _shown(text: str | None) -> str:
    if text is None:
        return "empty"
    return f'"{text}"' if len(text) <= LONGEST else f'"{text[:LONGEST]}..."'


def did_you_mean(name: str, names: Collection[str]) -> str:
    """`; did you mean x?`, or which there are."""
    close = get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    listed = sorted(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return f"; there is {', '.join(listed[:SHOWN])}{more}" if listed else ""


def _together(problems: Sequence[Problem]) -> list[tuple[Problem, int]]:
    """Problems in their order, each with how many rows after it have the same one."""
    rows = Counter((problem.file, problem.text) for problem in problems)
    firsts = {(problem.file, problem.text): problem for problem in reversed(problems)}
    return [(problem, rows[key] - 1) for key in rows for problem in [firsts[key]]]


def refusal(code: str, problems: Sequence[Problem], remedy: str = REMEDY, *, more: bool = False) -> Fault:
    """One Fault that lists problems; `more` where the search for them was given up."""
    first = problems[0]
    place = f"{first.file}:{first.place.removeprefix('line ')}"
    if len(problems) == 1:
        return Fault(code, place, f"{first.place}: {first.text}", remedy)
    files = {problem.file for problem in problems}
    least = "at least " if more else ""
    listed: list[str] = []
    shown = 0
    for problem, others in _together(problems)[:SHOWN]:
        name = f"{problem.file} " if len(files) > 1 else ""
        alike = f" ({least}{count(others, 'row')} more)" if others else ""
        listed.append(f"    {name}{problem.place}: {problem.text}{alike}")
        shown += 1 + others
    if len(problems) > shown:
        listed.append(f"    and {least}{len(problems) - shown} more")
    where = f"in {first.file}" if len(files) == 1 else f"in {count(len(files), 'file')}"
    return Fault(code, place, "\n".join([f"{least}{len(problems)} problems {where}", *listed]), remedy)
