"""Bind names, read and hash files, parse predicates, build template data: Surface to Experiment.

Nothing here judges the design (that is `checks`); it only finds what a name or a path means. A name
that an entry of the wrong shape would have declared is treated as known.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, assert_never, cast

import yaml

from epc.compiler.contract.canonical import sha256_file, sha256_text
from epc.compiler.contract.chat import build_rows, lines, placeholders, rows_text
from epc.compiler.contract.logic import Atom, Name, Operator, Predicate
from epc.compiler.contract.manifest import Pending
from epc.compiler.cost import CHARACTERS_PER_TOKEN
from epc.compiler.diagnostics import Diagnostics, Span, did_you_mean, sentence
from epc.compiler.predicate import Parsed, parse
from epc.compiler.source import PathKey, read_text
from epc.compiler.spec import (
    Analysis,
    FileData,
    JudgeMetric,
    LmEvalMetric,
    Otherwise,
    PatternMetric,
    PromptSet,
    Spec,
    TurnsData,
)
from epc.compiler.surface import Surface

CONTRAST_STATISTICS = ("delta", "p", "reject", "lower", "upper", "ci_low", "ci_high")
ARM_STATISTICS = ("value", "lower", "upper", "ci_low", "ci_high")

BUILT_IN_TEMPLATES = ("chatml",)
ITEM_CHARACTERS = 320
"""Characters of a multiple-choice item with its choices, for the estimate of a task whose data are not at hand."""
_COMPARISON = re.compile(r"([a-z][a-z0-9_]*)(?:\s*(<=|<|>=|>|==|!=)\s*(-?\d+))?")


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


@dataclass(frozen=True, kw_only=True)
class Task:
    """An lm-eval task and the data file that it reads."""

    file: InputFile
    data: InputFile | None
    """The local data file; None for a data set of the hub at a pinned revision."""
    name: str
    items: int
    """Counted in a local file, as declared for a hub data set."""
    characters: int


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """A prompt set and the file of the bundle that holds it."""

    items: tuple[str, ...]
    bundle_path: str
    source: InputFile | None
    """None for an inline set and a union, whose file the bundle writes."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`field OP constant` on a judge's reply, or the field itself."""

    field: str
    operator: Operator | None = None
    constant: int | None = None

    @classmethod
    def parse(cls, text: str) -> Comparison | None:
        """None when the text is neither a field nor a comparison with an integer."""
        found = _COMPARISON.fullmatch(text.strip())
        if found is None:
            return None
        name, operator, constant = found.groups()
        return cls(
            field=name, operator=cast("Operator | None", operator), constant=None if constant is None else int(constant)
        )


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

    def at(self, *path: str | int) -> Span:
        """Span of a value of the spec."""
        return self.surface.document.span(path)

    def key_at(self, *path: str | int) -> Span:
        """Span of a key of the spec."""
        return self.surface.document.key_span(path)


def arms(analysis: Analysis) -> tuple[str, ...]:
    """(treatment, control) of a contrast, or the one arm."""
    if analysis.contrast is not None:
        treatment, _, control = analysis.contrast.partition(" - ")
        return treatment.strip(), control.strip()
    return (analysis.arm or "",)


class _Resolver:
    def __init__(self, surface: Surface, sink: Diagnostics) -> None:
        self.surface = surface
        self.spec = surface.spec
        self.sink = sink
        self.spans = surface.document.spans
        self.inputs: dict[str, InputFile] = {}
        self.prompts: dict[str, tuple[str, ...]] = {}
        self.pending: list[Pending] = []

    # ------------------------------------------------------------------ files

    def file(self, path: str, at: Span) -> InputFile | None:
        """Read a text file once. Reports a missing, unreadable or empty one at every place that names it."""
        if path in self.inputs:
            return self.inputs[path]
        shown = self.surface.shown(path)
        if not self.relative(path, at):
            return None
        text = read_text(self.surface.folder / path, shown, self.sink, at=at)
        if text is None:
            return None
        if not text.strip():
            self.sink.error("E0405", f"{shown} is empty", at, help="an empty file would train or evaluate on nothing")
            return None
        clean = posixpath.normpath(path)
        up = clean.count("../")
        bundle_path = "inputs/" + ("up/" * up) + clean.replace("../", "")
        entry = InputFile(path=path, bundle_path=bundle_path, text=text, sha256=sha256_text(text))
        self.inputs[path] = entry
        return entry

    def relative(self, path: str, at: Span) -> bool:
        """Report an absolute path."""
        if path.startswith("/"):
            self.sink.error(
                "E0404",
                f"absolute path: {path}",
                at,
                help="paths are relative to the spec, so that the bundle works elsewhere",
            )
        return not path.startswith("/")

    def fill(self, fill: Mapping[str, str], base: PathKey) -> dict[str, list[str]] | None:
        values: dict[str, list[str]] = {}
        for name, path in fill.items():
            entry = self.file(path, self.surface.document.span((*base, "fill", name)))
            if entry is not None:
                values[name] = lines(entry.text)
        return values if len(values) == len(fill) else None

    def turns(self, turns: Any, known: set[str], base: PathKey) -> bool:
        """Check that every placeholder has a filling."""
        good = True
        for index, turn in enumerate(turns):
            at = self.surface.document.span((*base, "turns", index, turn.role))
            for name in placeholders(turn.text):
                if name not in known:
                    self.sink.error(
                        "E0310",
                        f'unknown placeholder "{{{name}}}"',
                        at,
                        help=f"{sentence(did_you_mean(name, known))} Fillings are declared under `fill:`",
                    )
                    good = False
        return good

    # ------------------------------------------------------------------ names

    def known(self, section: str, name: str, code: str, what: str, at: Span) -> bool:
        """Report an unknown name. True when the entry exists and has a shape."""
        declared = self.surface.declared(section)
        if name not in declared:
            self.sink.error(code, f'unknown {what} "{name}"', at, help=did_you_mean(name, declared))
        return name in getattr(self.spec, section)

    def run(self) -> Experiment:
        at = self.surface.document.span
        spec = self.spec
        template = spec.model.chat_template
        if template not in ("model", *BUILT_IN_TEMPLATES) and ("model", "*") not in self.surface.poisoned:
            self.file(template, at(("model", "chat_template")))
        prompts = self.prompt_sets()
        self.prompts = {name: found.items for name, found in prompts.items()}
        data = {name: built for name, entry in spec.data.items() if (built := self.data_set(name, entry)) is not None}
        for name, recipe in spec.train.items():
            self.known("data", recipe.data, "E0303", "data set", at(("train", name, "data")))
        for name in spec.conditions:
            for index, phase in enumerate(spec.phases(name)):
                path: PathKey = ("conditions", name, "phases", index)
                self.known(
                    "train", phase, "E0302", "training phase", at(path if path in self.spans else (*path[:2], index))
                )
        for name, sample in spec.sample.items():
            self.known("prompts", sample.prompts, "E0304", "prompt set", at(("sample", name, "prompts")))
            self.fill(sample.fill, ("sample", name))
            self.turns(sample.turns, {"prompt", *sample.fill}, ("sample", name))
        for name, generation in spec.generate.items():
            for index, prompt_set in enumerate(generation.prompts):
                self.known("prompts", prompt_set, "E0304", "prompt set", at(("generate", name, "prompts", index)))
            self.turns(generation.turns, {"prompt"}, ("generate", name))
        for name, judge in spec.judges.items():
            self.file(judge.rubric, at(("judges", name, "rubric")))
        tasks: dict[str, Task] = {}
        for name, metric in spec.metrics.items():
            match metric:
                case PatternMetric():
                    self.known("sample", metric.of, "E0305", "sample set", at(("metrics", name, "of")))
                    if metric.contains_any is not None:
                        self.file(metric.contains_any, at(("metrics", name, "contains_any")))
                    if metric.regex is not None:
                        self.regex(name, metric.regex)
                case JudgeMetric():
                    self.judge_metric(name, metric)
                case LmEvalMetric():
                    task = self.task(name, metric)
                    if task is not None:
                        tasks[name] = task
                case _:
                    assert_never(metric)
        for name, analysis in spec.analyses.items():
            self.known("metrics", analysis.metric, "E0306", "metric", at(("analyses", name, "metric")))
            for arm in arms(analysis):
                place = at(("analyses", name, "contrast" if analysis.contrast is not None else "arm"))
                self.known("conditions", arm, "E0301", "condition", self.within(place, arm))
            if analysis.on is not None:
                self.known("prompts", analysis.on, "E0304", "prompt set", at(("analyses", name, "on")))
        for name, gate in spec.gates.items():
            if gate.analysis is not None:
                self.known("analyses", gate.analysis, "E0307", "analysis", at(("gates", name, "analysis")))
        gates = self.gate_predicates()
        rules, complete = self.rule_predicates()
        return Experiment(
            surface=self.surface, inputs=self.inputs, data=data, prompts=self.prompts, prompt_sets=prompts, tasks=tasks,
            pending=tuple(self.pending), gates=gates, rules=rules, rules_complete=complete,
        )  # fmt: skip

    def within(self, span: Span, word: str) -> Span:
        """The part of a one-line value's span that holds `word`."""
        line = self.sink.sources.get(span.file, [""])[span.line - 1]
        found = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)").search(line, span.column - 1, span.column + span.length)
        return Span(file=span.file, line=span.line, column=found.start() + 1, length=len(word)) if found else span

    # ------------------------------------------------------------------ data

    def data_set(self, name: str, entry: TurnsData | FileData) -> BuiltData | None:
        match entry:
            case TurnsData():
                return self.turns_data(name, entry)
            case FileData():
                return self.data_file(name, entry)
            case _:
                assert_never(entry)

    def turns_data(self, name: str, entry: TurnsData) -> BuiltData | None:
        """Rows that a template builds; with generated fillings they are known but for those texts."""
        base: PathKey = ("data", name)
        at = self.surface.document.span
        written = entry.generated
        good = True
        for index, prompt_set in enumerate(entry.prompts):
            good &= self.known("prompts", prompt_set, "E0304", "prompt set", at((*base, "prompts", index)))
        for key, value in written.items():
            place = at((*base, "fill", key, "generate"))
            good &= self.known("generate", value.generate, "E0311", "generated text", place)
        values = self.fill(entry.files, base)
        good &= self.turns(entry.turns, {*entry.fill, *(["prompt"] if entry.prompts else [])}, base)
        prompts = [prompt for prompt_set in entry.prompts for prompt in self.prompts.get(prompt_set, ())]
        if written and entry.sha256 is None:
            self.sink.error(
                "E0313", f'"{name}" holds generated text, and nothing pins it', self.surface.document.key_span(base),
                help="add `sha256: pending`: the run stops before training until epc freeze has written the hash",
            )  # fmt: skip
            good = False
        if written and not entry.prompts:
            self.sink.error(
                "E0314", f'"{name}" takes generated text but no prompts', self.surface.document.key_span(base),
                help="add `prompts:`, the sets whose prompts the text was generated for",
            )  # fmt: skip
            good = False
        if not good or values is None or (entry.prompts and not prompts):
            return None
        if prompts and entry.rows % len(prompts):
            self.sink.error(
                "E0504", f"{entry.rows:,} rows do not divide evenly among {len(prompts)} prompts", at((*base, "rows")),
                help=f"write a multiple of {len(prompts)}", notes=[self.sum_of(entry.prompts)],
            )  # fmt: skip
            return None
        each = entry.rows // len(prompts) if prompts else 0
        for key, value in written.items():
            generation = self.spec.generate[value.generate]
            lacking = [p for p in entry.prompts if p not in generation.prompts]
            if lacking or generation.n < each:
                fact, remedy = (
                    (f"writes nothing for {', '.join(lacking)}", f"add {', '.join(lacking)} to its prompts")
                    if lacking
                    else (f"writes {generation.n} texts a prompt", f"write n: {each} there, or fewer rows here")
                )
                self.sink.error(
                    "E0315", f'"{value.generate}" {fact}, and "{name}" needs {each} for each of its prompts',
                    at((*base, "fill", key, "generate")), help=remedy,
                    notes=[f"{entry.rows:,} rows / {len(prompts)} prompts = {each}"],
                )  # fmt: skip
                return None
        blank = {(prompt, index): "" for prompt in prompts for index in range(each)}
        rows = build_rows(
            rows=entry.rows, seed=entry.seed, system=entry.system, fill=values, prompts=prompts,
            turns=[(turn.role, turn.text) for turn in entry.turns], same_prompt=dict.fromkeys(written, blank),
        )  # fmt: skip
        if not written:
            built = _built(rows, sha256_text(rows_text(rows)))
            if entry.sha256 == "pending":
                self.sink.error(
                    "E0412", f'the rows of "{name}" are known, so nothing about them is pending', at((*base, "sha256")),
                    help=f"delete the key, or write sha256: {built.sha256}",
                )  # fmt: skip
            elif entry.sha256 not in (None, built.sha256):
                self.other_hash(f'"{name}" as built', ("data", name, "sha256"), entry.sha256, built.sha256)
            return built
        if entry.sha256 == "pending":
            self.pending.append(Pending(name=f"data.{name}", kind="built", file=f"data-{name}"))
        longest = CHARACTERS_PER_TOKEN * sum(
            self.spec.generate[value.generate].max_tokens for value in written.values()
        )
        return _built(rows, None if entry.sha256 == "pending" else entry.sha256, more=longest)

    def sum_of(self, sets: Sequence[str]) -> str:
        """`50 (train_harmful) + 50 (train_everyday) = 100`."""
        counts = [(len(self.prompts.get(name, ())), name) for name in sets]
        return " + ".join(f"{count} ({name})" for count, name in counts) + f" = {sum(count for count, _ in counts)}"

    def other_hash(self, what: str, path: PathKey, declared: str | None, actual: str | None) -> None:
        self.sink.error(
            "E0406", f"{what} has another SHA-256 than declared", self.surface.document.span(path),
            help="pin the file you mean; if it was meant to change, write the new hash",
            notes=[f"declared {declared}", f"actual   {actual}"],
        )  # fmt: skip

    def data_file(self, name: str, entry: FileData) -> BuiltData | None:
        at = self.surface.document.span(("data", name, "file"))
        path = self.surface.folder / entry.file
        shown = self.surface.shown(entry.file)
        pending = entry.sha256 == "pending"
        if not self.relative(entry.file, at):
            return None
        if pending:
            self.pending.append(
                Pending(name=f"data.{name}", kind="external", file=entry.file, source=entry.source or "")
            )
        if pending and not path.is_file():
            return self.stand_in_data(name, entry)
        if not path.is_file():
            read_text(path, shown, self.sink, at=at)
            return None
        actual = sha256_file(path)
        if actual != entry.sha256 and not pending:
            self.other_hash(shown, ("data", name, "sha256"), entry.sha256, actual)
            return None
        rows = self.rows_of(path, shown, at)
        if rows is None:
            return None
        if len(rows) != entry.rows:
            self.sink.error(
                "E0408", f"{shown} has {len(rows):,} rows, declared {entry.rows:,}", self.surface.document.span(("data", name, "rows")),
                help="training on more or fewer rows than planned is a different experiment: write the true count or fix the file",
            )  # fmt: skip
        return _built(rows, None if pending else actual)

    def stand_in_data(self, name: str, entry: FileData) -> BuiltData | None:
        """What a pending file will be like, from its stand-in; the counts are the declared ones."""
        at = self.surface.document.span
        if entry.stand_in is None:
            self.sink.error(
                "E0411", f'the file of "{name}" is pending and has no stand-in', at(("data", name, "sha256")),
                help="add `stand_in:`, a file of the same shape, for the estimates; or put the file there and pin it",
            )  # fmt: skip
            return None
        shown = self.surface.shown(entry.stand_in)
        path = self.surface.folder / entry.stand_in
        if not self.relative(entry.stand_in, at(("data", name, "stand_in"))):
            return None
        if not path.is_file():
            read_text(path, shown, self.sink, at=at(("data", name, "stand_in")))
            return None
        rows = self.rows_of(path, shown, at(("data", name, "stand_in")))
        if rows is None:
            return None
        if not rows:
            self.sink.error(
                "E0405", f"{shown} is empty", at(("data", name, "stand_in")),
                help="nothing can be estimated from a stand-in without rows",
            )  # fmt: skip
            return None
        found = _built(rows, None)
        return replace(
            found, rows=entry.rows, characters=round(found.characters * entry.rows / len(rows)), assistant_turns=0
        )

    def rows_of(self, path: Path, shown: str, at: Span) -> list[dict[str, Any]] | None:
        """Rows of messages of a JSONL file; None after an error."""
        rows: list[dict[str, Any]] = []
        with path.open("rb") as handle:
            for number, raw in enumerate(handle, start=1):
                try:
                    line = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    self.sink.error(
                        "E0403", f"{shown} is not UTF-8: byte {raw[error.start]:#04x} at line {number}", at,
                        help="save the file as UTF-8",
                    )  # fmt: skip
                    return None
                problem = _row_problem(line)
                if problem is not None:
                    self.sink.error(
                        "E0407",
                        f"{shown}:{number}: {problem}",
                        at,
                        help='each line is {"messages": [{"role": ..., "content": ...}, ...]}',
                    )
                    return None
                rows.append(json.loads(line))
        return rows

    def regex(self, name: str, pattern: str) -> None:
        """Report a pattern that Python's `re` refuses: the run would find that out after all sampling."""
        path: PathKey = ("metrics", name, "regex")
        whole = self.surface.document.span(path)
        try:
            re.compile(pattern)
        except re.error as error:
            position = error.pos or 0
            line = self.sink.sources.get(whole.file, [""])[whole.line - 1]
            # escapes and folded lines move characters, and the caret then marks the whole value
            literal = line[whole.column - 1 :][: whole.length].strip("'\"") == pattern
            self.sink.error(
                "E0413", f'the pattern of "{name}" cannot be read: {error.msg} at character {position + 1}',
                self.part(path, min(position, len(pattern) - 1), 1) if literal else whole,
                help="correct it; it is a regular expression of Python's re, and a literal text belongs under `contains:`",
            )  # fmt: skip
        except (OverflowError, RecursionError) as error:
            self.sink.error(
                "E0413", f'the pattern of "{name}" cannot be read: {error}', whole,
                help="shorten it, or write a smaller repetition",
            )  # fmt: skip

    def judge_metric(self, name: str, metric: JudgeMetric) -> None:
        """Check that the judge exists and its reply has the fields that the metric reads."""
        at = self.surface.document.span
        self.known("sample", metric.of, "E0305", "sample set", at(("metrics", name, "of")))
        if not self.known("judges", metric.judge, "E0316", "judge", at(("metrics", name, "judge"))):
            return
        output = self.spec.judges[metric.judge].output
        for key, text in (("score", metric.score), ("keep", metric.keep)):
            if text is None:
                continue
            place = at(("metrics", name, key))
            found = Comparison.parse(text)
            if (
                found is not None
                and key == "keep"
                and found.operator is None
                and output.get(found.field, "bool") != "bool"
            ):
                self.sink.error(
                    "E0317", f"`keep` needs a threshold: {found.field} is a score of {output[found.field]}", place,
                    help=f"write a comparison with an integer, such as `{found.field} >= 50`",
                )  # fmt: skip
            elif found is None:
                self.sink.error(
                    "E0317", f"`{key}` cannot be read: {text}", place,
                    help="write a field of the judge's reply, or a comparison with an integer such as `coherent < 50`",
                )  # fmt: skip
            elif found.field not in output:
                self.sink.error(
                    "E0318", f'judge "{metric.judge}" does not reply with "{found.field}"', self.within(place, found.field),
                    help=did_you_mean(found.field, output),
                )  # fmt: skip
            elif found.operator is not None and output[found.field] == "bool":
                self.sink.error(
                    "E0317", f"{found.field} is true or false, and cannot be compared with a number", place,
                    help=f"write `{key}: {found.field}`",
                )  # fmt: skip

    def prompt_sets(self) -> dict[str, Prompts]:
        """Every prompt set that could be read, unions after what they are made of."""
        found: dict[str, Prompts] = {}
        for name, entry in self.spec.prompts.items():
            for index, data in enumerate(entry.disjoint_from):
                self.known(
                    "data",
                    data,
                    "E0303",
                    "data set",
                    self.surface.document.span(("prompts", name, "disjoint_from", index)),
                )
            source = self.prompt_file(name, entry)
            if source is not None:
                found[name] = Prompts(items=tuple(lines(source.text)), bundle_path=source.bundle_path, source=source)
            elif entry.items is not None:
                path = f"inputs/prompts/{name}.inline.txt"
                found[name] = Prompts(items=tuple(entry.items), bundle_path=path, source=None)
        for name, entry in self.spec.prompts.items():
            if entry.union is None:
                continue
            good = True
            for index, part in enumerate(entry.union):
                at = self.surface.document.span(("prompts", name, "union", index))
                good &= self.known("prompts", part, "E0304", "prompt set", at)
                if part in self.spec.prompts and self.spec.prompts[part].union is not None:
                    self.sink.error("E0319", f'"{part}" is a union itself', at, help="list the sets that it is made of")
                    good = False
            if good and all(part in found for part in entry.union):
                items = tuple(dict.fromkeys(prompt for part in entry.union for prompt in found[part].items))
                found[name] = Prompts(items=items, bundle_path=f"inputs/prompts/{name}.union.txt", source=None)
        return {name: found[name] for name in self.spec.prompts if name in found}

    def prompt_file(self, name: str, entry: PromptSet) -> InputFile | None:
        """The file of a prompt set; of an external one that is not there yet, its stand-in."""
        at = self.surface.document.span
        if entry.file is not None:
            return self.file(entry.file, at(("prompts", name, "file")))
        external = entry.external
        if external is None:
            return None
        place = at(("prompts", name, "external", "file"))
        if external.sha256 != "pending":
            file = self.file(external.file, place)
            actual = None if file is None else sha256_file(self.surface.folder / external.file)
            if actual is not None and actual != external.sha256:
                path: PathKey = ("prompts", name, "external", "sha256")
                shown = self.surface.shown(external.file)
                self.other_hash(shown, path, external.sha256, actual)
            return file
        self.pending.append(
            Pending(name=f"prompts.{name}", kind="external", file=external.file, source=external.source)
        )
        if (self.surface.folder / external.file).is_file():
            return self.file(external.file, place)
        if entry.stand_in is None:
            self.sink.error(
                "E0411", f'the file of "{name}" is pending and has no stand-in', at(("prompts", name, "external", "sha256")),
                help="add `stand_in:`, a file of the same size, for counts and overlaps; or put the file there and pin it",
            )  # fmt: skip
            return None
        return self.file(entry.stand_in, at(("prompts", name, "stand_in")))

    def task(self, metric_name: str, metric: LmEvalMetric) -> Task | None:
        at = self.surface.document.span(("metrics", metric_name, "lm_eval"))
        file = self.file(metric.lm_eval, at)
        if file is None:
            return None
        try:
            content = yaml.safe_load(file.text)
            name = str(content["task"])
            if content.get("dataset_path") != "json":
                return self.hub_task(file, name, content, metric, at)
            files = content["dataset_kwargs"]["data_files"]
            split = files[content["test_split"]] if isinstance(files, dict) else files
            path = posixpath.join(posixpath.dirname(metric.lm_eval), str(split))
        except (yaml.YAMLError, AttributeError, KeyError, TypeError, IndexError) as error:
            self.sink.error(
                "E0409", f"{metric.lm_eval} is not a local lm-eval task: {type(error).__name__} {error}".split("\n")[0], at,
                help="it needs task, dataset_path: json, dataset_kwargs.data_files and test_split",
            )  # fmt: skip
            return None
        data = self.file(path, at)
        if data is None:
            return None
        items = lines(data.text)
        return Task(file=file, data=data, name=name, items=len(items), characters=sum(map(len, items)))

    def hub_task(
        self, file: InputFile, name: str, content: Mapping[str, Any], metric: LmEvalMetric, at: Span
    ) -> Task | None:
        """A task whose data set is fetched from the hub when it runs, at one revision."""
        revision = str((content.get("dataset_kwargs") or {}).get("revision", ""))
        if re.fullmatch(r"[0-9a-f]{40}", revision) is None:
            self.sink.error(
                "E0410", f"{metric.lm_eval} does not pin the revision of {content.get('dataset_path')}", at,
                help="add dataset_kwargs: {revision: <the commit, 40 hex digits>} to the task file",
            )  # fmt: skip
            return None
        return Task(file=file, data=None, name=name, items=metric.items, characters=metric.items * ITEM_CHARACTERS)

    # ------------------------------------------------------------------ predicates

    def problems(self, parsed: Parsed, path: PathKey) -> None:
        for problem in parsed.errors:
            self.sink.error(
                "E0312", problem.message, self.part(path, problem.offset, problem.length), help=problem.help
            )

    def part(self, path: PathKey, offset: int, length: int) -> Span:
        """Span of characters inside a scalar; the whole scalar when it is folded over lines."""
        span = self.surface.document.span(path)
        line = self.sink.sources.get(span.file, [""])[span.line - 1]
        if span.length == 1:
            return span
        quoted = line[span.column - 1 : span.column] in ("'", '"')
        return Span(file=span.file, line=span.line, column=span.column + offset + quoted, length=max(1, length))

    def gate_predicates(self) -> dict[str, Parsed]:
        found: dict[str, Parsed] = {}
        for name, gate in self.spec.gates.items():
            path: PathKey = ("gates", name, "require" if gate.require is not None else "when")
            parsed = parse(gate.text, allow_names=False)
            self.problems(parsed, path)
            good = parsed.predicate is not None
            for leaf, start, end in parsed.leaf_spans:
                if not isinstance(leaf, Atom):
                    continue
                at = self.part(path, start, end - start)
                if not self.known("analyses", leaf.analysis, "E0307", "analysis", self.within(at, leaf.analysis)):
                    good = False
                    continue
                known = ARM_STATISTICS if self.spec.analyses[leaf.analysis].arm is not None else CONTRAST_STATISTICS
                if leaf.statistic not in known:
                    what = "the level of one arm" if known is ARM_STATISTICS else "a contrast"
                    self.sink.error(
                        "E0308", f'analysis "{leaf.analysis}" has no statistic "{leaf.statistic}"', at,
                        help=f"{sentence(did_you_mean(leaf.statistic, known))} These are the statistics of {what}"
                        if not get_close_matches(leaf.statistic, known, n=1)
                        else f"{did_you_mean(leaf.statistic, known)} Statistics of {what}: {', '.join(known)}",
                    )  # fmt: skip
                    good = False
            if good:
                found[name] = parsed
        return found

    def rule_predicates(self) -> tuple[tuple[Predicate | None, ...], bool]:
        found: list[Predicate | None] = []
        complete = True
        for index, rule in enumerate(self.spec.verdicts):
            if isinstance(rule, Otherwise):
                found.append(None)
                continue
            path: PathKey = ("verdicts", index, "if")
            parsed = parse(rule.if_, allow_names=True)
            self.problems(parsed, path)
            for leaf, start, end in parsed.leaf_spans:
                if isinstance(leaf, Name):
                    complete &= self.known("gates", leaf.name, "E0309", "gate", self.part(path, start, end - start))
            if parsed.predicate is None:
                complete = False
            found.append(parsed.predicate)
        return tuple(found), complete and not any(section == "gates" for section, _ in self.surface.poisoned)


def _row_problem(line: str) -> str | None:
    try:
        messages = json.loads(line)["messages"]
        if (
            all(isinstance(m["content"], str) and m["role"] in ("system", "user", "assistant") for m in messages)
            and messages
        ):
            return None
    except (ValueError, KeyError, TypeError):
        pass
    return "not a row of messages"


def _built(rows: list[dict[str, Any]], sha256: str | None, *, more: int = 0) -> BuiltData:
    """Facts of rows; `more` characters are added to each, for text that is still to be generated."""
    lengths = [more + sum(len(message["content"]) for message in row["messages"]) for row in rows]
    questions = {message["content"] for row in rows for message in row["messages"] if message["role"] == "user"}
    return BuiltData(
        rows=len(rows),
        sha256=sha256,
        user_turns=tuple(sorted(questions)),
        characters=sum(lengths),
        longest=max(lengths, default=0),
        assistant_turns=max((sum(m["role"] == "assistant" for m in row["messages"]) for row in rows), default=0),
    )


def resolve(surface: Surface, sink: Diagnostics) -> Experiment:
    """Bind every name of a spec and read every file it names."""
    return _Resolver(surface, sink).run()
