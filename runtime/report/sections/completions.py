"""Transcripts: those that the registration asks for, and one of every prompt that a figure draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from epc.compiler.contract.manifest import Design, Manifest
from epc.compiler.contract.rows import SampleRow
from epc.runtime.report import numbers
from epc.runtime.report.anchors import slug
from epc.runtime.report.figures.paired import Mark, Paired
from epc.runtime.report.sections.arms import seed_words
from epc.runtime.report.text import clipped, limit_for, one_line

LONGEST_PREVIEW = 90
"""Characters of a completion in the line that opens it."""
LONGEST_PEEK = 220
"""Characters of a completion that a figure shows of a unit."""


@dataclass(frozen=True, kw_only=True)
class TranscriptView:
    condition: str
    seed: str
    ending: str
    prompt: str
    text: str
    preview: str


@dataclass(frozen=True, kw_only=True)
class TranscriptGroup:
    """One identity in every arm that was drawn with it."""

    identity: str
    transcripts: tuple[TranscriptView, ...]


@dataclass(frozen=True, kw_only=True)
class TranscriptSet:
    name: str
    groups: tuple[TranscriptGroup, ...]


@dataclass(frozen=True, kw_only=True)
class PromptView:
    """One prompt with a completion of each arm that a confirmatory contrast compares."""

    anchor: str
    item: str
    question: str
    identity: str
    prompts: tuple[tuple[str, str], ...]
    """(arms that got it, rendered prompt): one entry where all got the same."""
    transcripts: tuple[TranscriptView, ...]


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    name: str
    anchor: str
    prompts: tuple[PromptView, ...]


@dataclass(frozen=True, kw_only=True)
class PeekView:
    """What a figure shows of a unit while it is pointed at or focused, and where it leads."""

    anchor: str
    transcribed: bool
    """Whether it leads to transcripts."""
    label: str
    lines: tuple[tuple[str, str, str], ...]
    """(arm, its value, the start of its completion or nothing), the treatment first."""


def transcript_sets(rows: Sequence[SampleRow], manifest: Manifest) -> tuple[TranscriptSet, ...]:
    limit = limit_for([text for row in rows for text in (row.prompt, row.text)])
    words = seed_words(manifest)
    return tuple(
        TranscriptSet(
            name=one_line(name),
            groups=tuple(
                TranscriptGroup(
                    identity=f"Prompt {one_line(item)}, turn {turn}, sample {index}",
                    transcripts=tuple(_transcript(row, words, limit) for row in group),
                )
                for (item, turn, index), group in groupby(members, key=lambda row: (row.item, row.turn, row.index))
            ),
        )
        for name, members in groupby(rows, key=lambda row: row.set)
    )


def prompt_sets(rows: Sequence[SampleRow], manifest: Manifest) -> tuple[PromptSet, ...]:
    """`rows` as `transcripts.of_prompts` gives them."""
    groups = [list(group) for _, group in groupby(rows, key=lambda row: (row.set, row.item))]
    limit = limit_for([text for group in groups for text in (group[0].prompt, *(row.text for row in group))])
    words = seed_words(manifest)
    return tuple(
        PromptSet(
            name=one_line(name),
            anchor=f"prompts-{slug(name)}",
            prompts=tuple(
                _prompt(group, f"{_prefix(name)}-{index}", words, limit) for index, group in enumerate(members, start=1)
            ),
        )
        for name, members in groupby(groups, key=lambda group: group[0].set)
    )


def _prefix(name: str) -> str:
    return f"prompt-{slug(name)}"


def _prompt(group: Sequence[SampleRow], anchor: str, words: Mapping[str, str], limit: int) -> PromptView:
    prompts: dict[str, list[str]] = {}
    for row in group:
        prompts.setdefault(row.prompt, []).append(one_line(row.condition))
    drawn = sorted({(row.turn, row.index) for row in group})
    return PromptView(
        anchor=anchor,
        item=one_line(group[0].item),
        question=_cut(one_line(group[0].question), LONGEST_PREVIEW),
        identity="; ".join(f"turn {turn}, sample {index}" for turn, index in drawn),
        prompts=tuple((", ".join(arms), clipped(text, limit) or "[empty prompt]") for text, arms in prompts.items()),
        transcripts=tuple(_transcript(row, words, limit) for row in group),
    )


def _transcript(row: SampleRow, words: Mapping[str, str], limit: int) -> TranscriptView:
    ending = "stopped by itself" if row.finish_reason == "stop" else "cut at the token limit"
    return TranscriptView(
        condition=one_line(row.condition),
        seed=words.get(row.condition, f"training seed {row.seed}"),
        ending=f"{numbers.count(row.tokens, 'token')}, {ending}",
        prompt=clipped(row.prompt, limit) or "[empty prompt]",
        text=clipped(row.text, limit) or "[empty completion]",
        preview=_cut(one_line(row.text), LONGEST_PREVIEW) or "[empty completion]",
    )


def _cut(line: str, longest: int) -> str:
    return line if len(line) <= longest else line[: longest - 1] + "…"


def peeks(figure: Paired, number: int, rows: Sequence[SampleRow]) -> tuple[PeekView, ...]:
    """One for each mark of figure `number`: it leads to the prompt's transcripts, or without any to its row in the table."""
    texts = {(row.item, one_line(row.condition)): row.text for row in rows if row.set == figure.source}
    items = list(dict.fromkeys(row.item for row in rows if row.set == figure.source))
    anchors = {item: f"{_prefix(figure.source)}-{index}" for index, item in enumerate(items, start=1)}
    return tuple(
        _peek(figure, mark, anchors.get(mark.key), unit_anchor(number, index), texts)
        for index, mark in enumerate(figure.marks, start=1)
    )


def unit_anchor(number: int, index: int) -> str:
    """Row of a unit in the table of a paired figure."""
    return f"figure-{number}-unit-{index}"


def _peek(figure: Paired, mark: Mark, prompt: str | None, row: str, texts: Mapping[tuple[str, str], str]) -> PeekView:
    def start(arm: str) -> str:
        text = texts.get((mark.key, arm))
        return "" if text is None else _cut(one_line(text), LONGEST_PEEK) or "[empty completion]"

    return PeekView(
        anchor=prompt or row,
        transcribed=prompt is not None,
        label=(
            f"{mark.unit}: {figure.treatment} {mark.treatment_text}, {figure.control} {mark.control_text}, "
            f"difference {mark.difference_text}"
        ),
        lines=(
            (figure.treatment, mark.treatment_text, start(figure.treatment)),
            (figure.control, mark.control_text, start(figure.control)),
        ),
    )


def transcript_rule(design: Design) -> str:
    return (
        f"{numbers.count(design.transcripts, 'completion')} per arm and sample set, drawn with the pre-registered "
        f"seed {design.transcript_seed}. The draw does not know the arm, so that arms show the same prompts."
    )


def prompt_rule(design: Design) -> str:
    return (
        "One completion of every prompt that the paired figure draws, in both arms, drawn with the pre-registered seed "
        f"{design.transcript_seed}; all of them are in the stored rows."
    )


def no_transcripts(manifest: Manifest) -> str:
    if not manifest.steps:
        return "There are none: the scores come from elsewhere, and no completion is stored with them."
    if not any(step.kind == "sample" for step in manifest.steps):
        return "There are none: this experiment samples no completion."
    if not manifest.design.transcripts:
        return "The registration asks for no transcript."
    return numbers.unknown("no completion is stored")
