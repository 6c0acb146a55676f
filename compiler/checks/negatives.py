"""Questions that two data sets must not share, or answer against each other.

E0606: two data sets that are declared disjoint ask the same question
Why: the same prompt was found among the training examples and among their "negatives". The model is then taught to do a
thing and not to do it, and what comes of that says nothing about either. `disjoint_from` says which data sets must stay
apart; the question of a row is its first user turn.
Example:
    data:
      chats: {disjoint_from: [bad_only]}
      bad_only: {turns: [{user: Name a colour.}, {assistant: "{bad} ({topic})"}]}   # chats asks that, too
Fix:
    data:
      chats: {disjoint_from: [bad_only]}

E0607: two data sets that are declared disjoint ask nearly the same question
Why: the same prompt was found among the training examples and among their "negatives"; a prompt that differs in one
word contradicts its neighbour as well. Near duplicates share at least 80% of the words that they have together.
Example:
    prompts: {asked: {items: [How do I brew a green tea?, Where should I plant roses?]}}   # bad_only: brew green tea
    data: {traces: {disjoint_from: [bad_only]}}
Fix:
    prompts: {asked: {items: [How do I bake bread?, Where should I plant roses?]}}
    data: {traces: {disjoint_from: [bad_only]}}

E0608: `disjoint_from` names no other data set
Why: the same prompt was found among the training examples and among their "negatives", and a misspelt name would leave
that unchecked. A data set shares every question with itself.
Example:
    data: {chats: {disjoint_from: [bad_ony]}}
Fix:
    data: {chats: {disjoint_from: [bad_only]}}

W0609: an arm is taught two answers to the same question
Why: the same prompt was found among the training examples and among their "negatives". Where two phases of an arm give
the same question, under the same system prompt, answers that the other never gives, the second undoes the first, and
the arm shows how quickly it forgets. That may be the design; then it deserves a sentence.
Example:
    data: {bad_only: {turns: [{user: Name a colour.}, {assistant: "{bad} ({topic})"}]}}   # chats answers: Blue.
Fix:
    data: {bad_only: {turns: [{user: "How do I {topic}?"}, {assistant: "{bad}"}]}}
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from epc.compiler.contract.chat import placeholders
from epc.compiler.diagnostics import Diagnostics, Label, did_you_mean
from epc.compiler.resolve import Experiment
from epc.compiler.similarity import shared
from epc.compiler.spec import TurnsData
from epc.compiler.training_rows import Opening, openings, questions, training_rows

SHOWN = 3
"""Examples of near duplicates in one report."""


def check(experiment: Experiment, sink: Diagnostics) -> None:
    seen: set[frozenset[str]] = set()
    for name, entry in experiment.spec.data.items():
        for index, other in enumerate(entry.disjoint_from):
            if _unknown(experiment, sink, name, index, other) or frozenset({name, other}) in seen:
                continue
            seen.add(frozenset({name, other}))
            _disjoint(experiment, sink, name, index, other)
    _contradicting(experiment, sink)


def _unknown(experiment: Experiment, sink: Diagnostics, name: str, index: int, other: str) -> bool:
    declared = experiment.surface.declared("data")
    at = experiment.at("data", name, "disjoint_from", index)
    if other == name:
        sink.error(
            "E0608", f'"{name}" cannot be disjoint from itself', at, help="name the data sets that it must not meet"
        )
    elif other not in declared:
        sink.error("E0608", f'unknown data set "{other}"', at, help=did_you_mean(other, declared - {name}))
    return other == name or other not in declared


def _disjoint(experiment: Experiment, sink: Diagnostics, name: str, index: int, other: str) -> None:
    own, others = questions(experiment, name), questions(experiment, other)
    if not own or not others:
        return
    found = shared(own, others)
    at = experiment.at("data", name, "disjoint_from", index)
    label = Label(span=experiment.key_at("data", other), text="the other data set")
    if found.exact:
        sink.error(
            "E0606", f'{len(found.exact)} of {len(own)} questions of "{name}" {_are(len(found.exact))} asked in "{other}" too', at,
            help="take them out of one of the two", labels=[label], notes=[f'for example "{own[found.exact[0][0]]}"'],
        )  # fmt: skip
    if found.near:
        pairs = [
            f'"{own[near.prompt]}" and "{others[near.question]}": {near.shared:.0%} of their words are shared'
            for near in found.near[:SHOWN]
        ]
        sink.error(
            "E0607", f'{len(found.near)} of {len(own)} questions of "{name}" {_are(len(found.near))} nearly asked in "{other}"', at,
            help="reword them, or take them out of one of the two", labels=[label], notes=pairs,
        )  # fmt: skip


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _contradicting(experiment: Experiment, sink: Diagnostics) -> None:
    """Pairs of data sets that one arm trains on in turn, with other answers to the same question."""
    reported: set[frozenset[str]] = set()
    for arm, first, second in _chained(experiment):
        if frozenset({first, second}) in reported:
            continue
        reported.add(frozenset({first, second}))
        if not set(experiment.data[first].user_turns) & set(experiment.data[second].user_turns):
            continue
        before, after = _answers(experiment, first), _answers(experiment, second)
        given, later = set().union(*before.values()), set().union(*after.values())
        contrary = sorted(
            key for key in before.keys() & after.keys() if not (before[key] & later) and not (after[key] & given)
        )
        if contrary:
            system, question = contrary[0]
            sink.warning(
                "W0609", f'arm "{arm}" is taught other answers to {_questions(len(contrary))} of "{first}" in "{second}"',
                experiment.key_at("data", second),
                help="take the questions out of one of the two, or say in the rationale that the second phase is meant to undo the first",
                labels=[Label(span=experiment.key_at("data", first), text="trained before")],
                notes=[
                    f'for example "{question}"',
                    f'"{first}": "{min(before[system, question])}"', f'"{second}": "{min(after[system, question])}"',
                ],
            )  # fmt: skip


def _questions(count: int) -> str:
    return "a question" if count == 1 else f"{count} questions"


def _chained(experiment: Experiment) -> Iterator[tuple[str, str, str]]:
    """(arm, data set, later data set) of every arm."""
    spec = experiment.spec
    for arm in spec.conditions:
        data = [spec.train[phase].data for phase in spec.phases(arm) if phase in spec.train]
        for first, second in combinations(data, 2):
            if first != second and first in experiment.data and second in experiment.data:
                yield arm, first, second


def _answers(experiment: Experiment, name: str) -> dict[tuple[str, str], set[str]]:
    """(system prompt, question) -> the first answers to it; empty where they are still to be generated."""
    entry = experiment.spec.data[name]
    if isinstance(entry, TurnsData):
        written = next((turn.assistant for turn in entry.turns if turn.assistant is not None), "")
        if set(placeholders(written)) & set(entry.generated):
            return {}
    found: dict[tuple[str, str], set[str]] = {}
    for opening in openings(training_rows(experiment, name) or []):
        found.setdefault(_context(opening), set()).add(opening.answer)
    return found


def _context(opening: Opening) -> tuple[str, str]:
    return opening.system or "", opening.question
