"""Bind names, read and hash files, parse predicates, build template data: Surface to Experiment.

Nothing here judges the design (that is `checks`); it only finds what a name or a path means. A name
that an entry of the wrong shape would have declared is treated as known.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import yaml

from epc.compiler.contract.canonical import sha256_file, sha256_text
from epc.compiler.contract.chat import build_rows, lines, placeholders, rows_text
from epc.compiler.contract.logic import Atom, Name, Predicate
from epc.compiler.diagnostics import Diagnostics, Span, did_you_mean
from epc.compiler.predicate import Parsed, parse
from epc.compiler.source import PathKey, read_text
from epc.compiler.spec import Analysis, FileData, LmEvalMetric, Otherwise, PatternMetric, Spec, TurnsData
from epc.compiler.surface import Surface

CONTRAST_STATISTICS = ("delta", "p", "reject", "lower", "upper", "ci_low", "ci_high")
ARM_STATISTICS = ("value", "lower", "upper", "ci_low", "ci_high")

BUILT_IN_TEMPLATES = ("chatml",)


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
    sha256: str
    """Of the JSONL text."""
    user_turns: tuple[str, ...]
    """Distinct user turns that ask something: what an evaluation prompt must not repeat."""
    characters: int
    """In all messages, for the token estimate."""
    longest: int
    """Characters of the longest row."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """An lm-eval task and the data file that it reads."""

    file: InputFile
    data: InputFile
    name: str
    items: int
    characters: int


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A spec with every name bound and every file read. Parts that could not be resolved are absent."""

    surface: Surface
    inputs: Mapping[str, InputFile]
    data: Mapping[str, BuiltData]
    prompts: Mapping[str, tuple[str, ...]]
    tasks: Mapping[str, Task]
    """Metric -> task."""
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
        self.inputs: dict[str, InputFile] = {}

    # ------------------------------------------------------------------ files

    def file(self, path: str, at: Span) -> InputFile | None:
        """Read a text file once. Reports a missing, unreadable or empty one at every place that names it."""
        if path in self.inputs:
            return self.inputs[path]
        shown = (Path(self.surface.document.file).parent / path).as_posix()
        if path.startswith("/"):
            self.sink.error(
                "E0404",
                f"absolute path: {path}",
                at,
                help="paths are relative to the spec, so that the bundle works elsewhere",
            )
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
                        help=f"{did_you_mean(name, known)} fillings are declared under `fill:`",
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
        data = {name: built for name, entry in spec.data.items() if (built := self.data_set(name, entry)) is not None}
        for name, recipe in spec.train.items():
            self.known("data", recipe.data, "E0303", "data set", at(("train", name, "data")))
        for name, phases in spec.conditions.items():
            for index, phase in enumerate(phases):
                self.known("train", phase, "E0302", "training phase", at(("conditions", name, index)))
        prompts = self.prompt_sets()
        for name, sample in spec.sample.items():
            self.known("prompts", sample.prompts, "E0304", "prompt set", at(("sample", name, "prompts")))
            self.fill(sample.fill, ("sample", name))
            self.turns(sample.turns, {"prompt", *sample.fill}, ("sample", name))
        tasks: dict[str, Task] = {}
        for name, metric in spec.metrics.items():
            match metric:
                case PatternMetric():
                    self.known("sample", metric.of, "E0305", "sample set", at(("metrics", name, "of")))
                    if metric.contains_any is not None:
                        self.file(metric.contains_any, at(("metrics", name, "contains_any")))
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
        gates = self.gate_predicates()
        rules, complete = self.rule_predicates()
        return Experiment(
            surface=self.surface, inputs=self.inputs, data=data, prompts=prompts, tasks=tasks,
            gates=gates, rules=rules, rules_complete=complete,
        )  # fmt: skip

    def within(self, span: Span, word: str) -> Span:
        """The part of a one-line value's span that holds `word`."""
        line = self.sink.sources.get(span.file, [""])[span.line - 1]
        found = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)").search(line, span.column - 1, span.column + span.length)
        return Span(file=span.file, line=span.line, column=found.start() + 1, length=len(word)) if found else span

    # ------------------------------------------------------------------ data

    def data_set(self, name: str, entry: TurnsData | FileData) -> BuiltData | None:
        base: PathKey = ("data", name)
        match entry:
            case TurnsData():
                values = self.fill(entry.fill, base)
                if not self.turns(entry.turns, set(entry.fill), base) or values is None:
                    return None
                rows = build_rows(
                    rows=entry.rows, seed=entry.seed, system=entry.system, fill=values,
                    turns=[(turn.role, turn.text) for turn in entry.turns],
                )  # fmt: skip
                return _built(rows, rows_text(rows))
            case FileData():
                return self.data_file(name, entry)
            case _:
                assert_never(entry)

    def data_file(self, name: str, entry: FileData) -> BuiltData | None:
        at = self.surface.document.span(("data", name, "file"))
        path = self.surface.folder / entry.file
        shown = (Path(self.surface.document.file).parent / entry.file).as_posix()
        if not path.is_file():
            read_text(path, shown, self.sink, at=at)
            return None
        actual = sha256_file(path)
        if actual != entry.sha256:
            self.sink.error(
                "E0406", f"{shown} has another SHA-256 than declared", self.surface.document.span(("data", name, "sha256")),
                help="pin the file you mean; if it was meant to change, write the new hash",
                notes=[f"declared {entry.sha256}", f"actual   {actual}"],
            )  # fmt: skip
            return None
        rows: list[dict[str, Any]] = []
        with path.open(encoding="utf-8") as handle:
            for number, line in enumerate(handle, start=1):
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
        if len(rows) != entry.rows:
            self.sink.error(
                "E0408", f"{shown} has {len(rows):,} rows, declared {entry.rows:,}", self.surface.document.span(("data", name, "rows")),
                help="training on more or fewer rows than planned is a different experiment: write the true count or fix the file",
            )  # fmt: skip
        return _built(rows, None, sha256=actual)

    def prompt_sets(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for name, entry in self.spec.prompts.items():
            for index, data in enumerate(entry.disjoint_from):
                self.known(
                    "data",
                    data,
                    "E0303",
                    "data set",
                    self.surface.document.span(("prompts", name, "disjoint_from", index)),
                )
            if entry.file is not None:
                file = self.file(entry.file, self.surface.document.span(("prompts", name, "file")))
                if file is not None:
                    found[name] = tuple(lines(file.text))
            else:
                found[name] = tuple(entry.items or ())
        return found

    def task(self, metric_name: str, metric: LmEvalMetric) -> Task | None:
        at = self.surface.document.span(("metrics", metric_name, "lm_eval"))
        file = self.file(metric.lm_eval, at)
        if file is None:
            return None
        try:
            content = yaml.safe_load(file.text)
            name = str(content["task"])
            files = content["dataset_kwargs"]["data_files"]
            split = files[content["test_split"]] if isinstance(files, dict) else files
            path = posixpath.join(posixpath.dirname(metric.lm_eval), str(split))
        except (yaml.YAMLError, KeyError, TypeError, IndexError) as error:
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
                        help=f"{did_you_mean(leaf.statistic, known)} {what} has {', '.join(known)}",
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


def _built(rows: list[dict[str, Any]], text: str | None, *, sha256: str | None = None) -> BuiltData:
    lengths = [sum(len(message["content"]) for message in row["messages"]) for row in rows]
    questions = {message["content"] for row in rows for message in row["messages"] if message["role"] == "user"}
    return BuiltData(
        rows=len(rows),
        sha256=sha256 if sha256 is not None else sha256_text(text or ""),
        user_turns=tuple(sorted(questions)),
        characters=sum(lengths),
        longest=max(lengths, default=0),
    )


def resolve(surface: Surface, sink: Diagnostics) -> Experiment:
    """Bind every name of a spec and read every file it names."""
    return _Resolver(surface, sink).run()
