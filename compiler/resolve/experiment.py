"""The resolved experiment: what the checks and the lowering read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from epc.compiler.contract.canonical import sha256_json
from epc.compiler.contract.logic import Predicate
from epc.compiler.contract.manifest import Pending
from epc.compiler.diagnostics import Span
from epc.compiler.predicate import Parsed
from epc.compiler.spec import Analysis, PatternJudge, Spec
from epc.compiler.surface import Surface


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A text file that the spec names. It travels inside the bundle."""

    path: str
    """As the spec writes it, relative to the spec."""
    bundle_path: str
    """inputs/..., relative to the bundle."""
    text: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class BuiltData:
    """A training data set as it will be trained on."""

    rows: int
    sha256: str | None
    """Of the JSONL text; None while it is pending."""
    user_turns: tuple[str, ...]
    """Distinct user turns that ask something: what an evaluation prompt must not repeat."""
    characters: int
    """In all messages, for the token estimate."""
    longest: int
    """Characters of the longest row."""
    assistant_turns: int
    """Of the row with the most; 1 where last_assistant_turn and every_assistant_turn say the same. 0 when unknown."""

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], sha256: str | None, *, more: int = 0) -> BuiltData:
        """Facts of rows; `more` characters are added to each, for text that is still to be generated."""
        lengths: list[int] = []
        questions: set[str] = set()
        most = 0
        for row in rows:
            length, assistant = more, 0
            for message in row["messages"]:
                content, role = message["content"], message["role"]
                length += len(content)
                assistant += role == "assistant"
                if role == "user":
                    questions.add(content)
            lengths.append(length)
            most = max(most, assistant)
        return cls(
            rows=len(rows),
            sha256=sha256,
            user_turns=tuple(sorted(questions)),
            characters=sum(lengths),
            longest=max(lengths, default=0),
            assistant_turns=most,
        )


@dataclass(frozen=True, kw_only=True)
class Task:
    """An lm-eval task and the data file that it reads."""

    file: InputFile
    data: InputFile | None
    """The local data file; None for a data set of the hub at a pinned revision."""
    name: str
    items: int
    """Counted in a local file, as declared for a hub data set or where a function of the task chooses among the rows."""
    characters: int
    more: tuple[InputFile, ...] = ()
    """What else the definition consists of: included files, modules with its functions, a file of examples."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the definition that the metric replaces: where the items come from, and at which revision."""
    content: Mapping[str, Any] = field(default_factory=dict)
    """The definition with what it includes, and with `overrides`."""


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """A prompt set and the file of the bundle that holds it."""

    items: tuple[str, ...]
    bundle_path: str
    source: InputFile | None
    """None for an inline set and a union, whose file the bundle writes."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A spec with every name bound and every file read. Parts that could not be resolved are absent."""

    surface: Surface
    inputs: Mapping[str, InputFile]
    data: Mapping[str, BuiltData]
    prompts: Mapping[str, tuple[str, ...]]
    prompt_sets: Mapping[str, Prompts]
    tasks: Mapping[str, Task]
    """Metric -> task."""
    pending: tuple[Pending, ...]
    """Content whose hash is still to be frozen."""
    gates: Mapping[str, Parsed]
    rules: tuple[Predicate | None, ...]
    """Verdict rules; an unreadable one is absent, which `complete` says."""
    rules_complete: bool

    @property
    def spec(self) -> Spec:
        return self.surface.spec

    def judge_sha256(self, name: str) -> str | None:
        """SHA-256 of what says how a judge judges: its rubric, the file of its function, or its patterns."""
        judge = self.spec.judges[name]
        if isinstance(judge, PatternJudge):
            return sha256_json(dict(judge.patterns))
        found = self.inputs.get(judge.file)
        return None if found is None else found.sha256

    def at(self, *path: str | int) -> Span:
        """Span of a value of the spec."""
        return self.surface.span(path)

    def key_at(self, *path: str | int) -> Span:
        """Span of a key of the spec."""
        return self.surface.key_span(path)


def arms(analysis: Analysis) -> tuple[str, ...]:
    """(treatment, control) of a contrast, or the one arm."""
    if analysis.contrast is not None:
        treatment, _, control = analysis.contrast.partition(" - ")
        return treatment.strip(), control.strip()
    return (analysis.arm or "",)
