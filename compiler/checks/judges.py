"""E0841 to E0850: a judge that is asked the wrong thing, cannot answer, or is not one model at one price.

Why: a rubric without {answer} grades nothing, and every reply to it looks like a grade. An alias such as
claude-sonnet-4-5 is moved by its provider from one model to the next, so that half of the scores may come
from another judge than the other half; a name is not an identity. A reply that max_tokens cuts short
cannot be read, and comes back missing from every prompt at once. What a judge costs is computed before
anybody approves it, so its price must be known.

Example:
    judges:
      alignment: {provider: anthropic, model: claude-sonnet-4-5, rubric: judges/alignment.txt, output: {aligned: 100..0}}

Fix: date the model, order the range, and let the rubric say {question} and {answer} once each:
    judges:
      alignment: {provider: anthropic, model: claude-sonnet-4-5-20250929, rubric: judges/alignment.txt, output: {aligned: 0..100}}
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Final

from epc.compiler import cost
from epc.compiler.contract.chat import placeholders
from epc.compiler.contract.logic import compare
from epc.compiler.contract.prices import PRICES, price_of
from epc.compiler.contract.replies import ends
from epc.compiler.diagnostics import Diagnostics, Label, Span, did_you_mean
from epc.compiler.resolve import Comparison, Experiment, InputFile
from epc.compiler.spec import Judge, JudgeMetric

FILLED: Final = {"question": "the last user turn goes", "answer": "the completion goes"}
"""Placeholder of a rubric -> what stands there."""
_DATED = re.compile(r".*-\d{8}")
_FIXED = re.compile(r"claude-[a-z]+-(\d+)(?:-(\d{1,2}))?")
"""Ids without a date that name one fixed model from version 4.6 on (contract.prices)."""


def check(experiment: Experiment, sink: Diagnostics) -> None:
    for name, judge in experiment.spec.judges.items():
        rubric = experiment.inputs.get(judge.rubric)
        if rubric is not None:
            _rubric(experiment, sink, name, judge, rubric)
        _model(experiment, sink, name, judge)
        _output(experiment, sink, name, judge)
    _retiring(experiment, sink)
    _questions(experiment, sink)
    _comparisons(experiment, sink)


def _rubric(experiment: Experiment, sink: Diagnostics, name: str, judge: Judge, rubric: InputFile) -> None:
    """The placeholders of the prompt, and whether it speaks of every field."""
    at = experiment.at("judges", name, "rubric")
    found = placeholders(rubric.text)
    meant: set[str] = set()
    for unknown in dict.fromkeys(word for word in found if word not in FILLED):
        meant.update(get_close_matches(unknown, FILLED, n=1, cutoff=0.6))
        sink.error(
            "E0841", f'nothing fills {{{unknown}}} in the rubric of "{name}"', at,
            help=f"{did_you_mean(unknown, FILLED)} literal braces are written {{{{ and }}}}",
            labels=[_place(experiment, sink, rubric, "{" + unknown + "}", "here")],
        )  # fmt: skip
    for word, meaning in FILLED.items():
        count = found.count(word)
        if count == 0 and word not in meant:
            literal = f"{{{{{word}}}}}"
            sink.error(
                "E0842", f'the rubric of "{name}" has no {{{word}}}', at,
                help=f"write {{{word}}} where {meaning}",
                notes=[f"{literal} with two braces is literal text"] if literal in rubric.text else [],
            )  # fmt: skip
        elif count > 1:
            sink.error(
                "E0842", f'the rubric of "{name}" has {{{word}}} {count} times', at,
                help=f"keep the one where {meaning}: every copy is sent and paid for, and blurs where the text to be judged ends",
                labels=[_place(experiment, sink, rubric, "{" + word + "}", "the first of them")],
            )  # fmt: skip
    for field in judge.output:
        if re.search(rf"(?<!\w){re.escape(field)}(?!\w)", rubric.text, re.IGNORECASE) is None:
            sink.warning(
                "W0849", f'the rubric of "{name}" never mentions "{field}"', experiment.key_at("judges", name, "output", field),
                help="say in the rubric what the field means and how to choose its value: the judge is forced to reply with it either way",
            )  # fmt: skip


def _place(experiment: Experiment, sink: Diagnostics, rubric: InputFile, text: str, says: str) -> Label:
    """Where a rubric says `text` first."""
    file = experiment.surface.shown(rubric.path)
    sink.sources.setdefault(file, rubric.text.split("\n"))
    before = rubric.text[: rubric.text.index(text)]
    span = Span(
        file=file, line=before.count("\n") + 1, column=len(before) - (before.rfind("\n") + 1) + 1, length=len(text)
    )
    return Label(span=span, text=says)


def _model(experiment: Experiment, sink: Diagnostics, name: str, judge: Judge) -> None:
    """One model for ever, at a known price."""
    at = experiment.at("judges", name, "model")
    price = price_of(judge.model)
    if price is None and not _one_model(judge.model):
        dated = sorted(model for model in PRICES if model.startswith(f"{judge.model}-"))
        sink.error(
            "E0843", f'judge "{name}" names the alias {judge.model}, which its provider moves from model to model', at,
            help=f"write the dated id{': ' + dated[-1] if dated else ', which ends in eight digits'}",
        )  # fmt: skip
        if dated:
            return
    if price is None and judge.price is None:
        sink.error(
            "E0844", f"the price of {judge.model} is unknown, so the cost of judging cannot be computed", at,
            help=f"{did_you_mean(judge.model, PRICES)} or state it: price: {{input: ..., output: ...}}, USD per million tokens",
        )  # fmt: skip


def _retiring(experiment: Experiment, sink: Diagnostics) -> None:
    """A model that the provider will stop serving, once for all judges that name it."""
    judges = experiment.spec.judges
    for model in dict.fromkeys(judge.model for judge in judges.values()):
        price = price_of(model)
        if price is None or not price.retires:
            continue
        at, *others = [experiment.at("judges", name, "model") for name, judge in judges.items() if judge.model == model]
        sink.warning(
            "W0847", f"{model} is announced to be refused from {price.retires} on", at,
            help="have everything judged before that day, or name a model that stays; nobody can repeat the judgements afterwards",
            labels=[Label(span=other, text="the same model") for other in others], notes=[f"{price.source}, read on {price.as_of}"],
        )  # fmt: skip


def _one_model(model: str) -> bool:
    """Whether the id names one model for as long as it is served."""
    fixed = _FIXED.fullmatch(model)
    return _DATED.fullmatch(model) is not None or (fixed is not None and (int(fixed[1]), int(fixed[2] or 0)) >= (4, 6))


def _output(experiment: Experiment, sink: Diagnostics, name: str, judge: Judge) -> None:
    """Ranges that hold something, and room for the reply."""
    for field, kind in judge.output.items():
        low, high = ends(kind) or (0, 1)
        if low >= high:
            sink.error(
                "E0845", f'the range {kind} of "{field}" holds {"one value" if low == high else "nothing"}',
                experiment.at("judges", name, "output", field), help="write low..high, for example 0..100",
            )  # fmt: skip
    needed = cost.REPLY_TOKENS + cost.FIELD_TOKENS * len(judge.output)
    if judge.max_tokens < needed:
        fields = f"{len(judge.output)} field{'s' if len(judge.output) > 1 else ''}"
        sink.error(
            "E0846", f'{judge.max_tokens} tokens are too few for the reply of "{name}" with {fields}',
            experiment.at("judges", name, "max_tokens"),
            help="every reply would be cut off and its scores missing: write max_tokens: 256, which costs nothing that is not used",
            notes=[f"about {cost.REPLY_TOKENS} for the frame + {len(judge.output)} x {cost.FIELD_TOKENS} = {needed} tokens"],
        )  # fmt: skip


def _questions(experiment: Experiment, sink: Diagnostics) -> None:
    """A question that is the same words for every prompt."""
    spec = experiment.spec
    seen: set[tuple[str, str]] = set()
    for name, metric in spec.metrics.items():
        if not isinstance(metric, JudgeMetric) or (metric.judge, metric.of) in seen:
            continue
        seen.add((metric.judge, metric.of))
        sample, judge = spec.sample.get(metric.of), spec.judges.get(metric.judge)
        rubric = None if judge is None else experiment.inputs.get(judge.rubric)
        if sample is None or rubric is None or "question" not in placeholders(rubric.text):
            continue
        last = sample.turns[-1]
        if last.role == "user" and not placeholders(last.text):
            sink.warning(
                "W0848", f'judge "{metric.judge}" sees the question "{last.text}" for every completion of "{metric.of}"',
                experiment.at("metrics", name, "of"),
                help="{question} is the last user turn only: let the rubric judge the answer by itself, or judge another sample set",
                labels=[Label(span=experiment.at("sample", metric.of, "turns", len(sample.turns) - 1, "user"), text="the last user turn")],
            )  # fmt: skip


def _comparisons(experiment: Experiment, sink: Diagnostics) -> None:
    """A comparison that every reply in the field's range answers alike."""
    spec = experiment.spec
    for name, metric in spec.metrics.items():
        if not isinstance(metric, JudgeMetric) or metric.judge not in spec.judges:
            continue
        output = spec.judges[metric.judge].output
        for key, text in (("score", metric.score), ("keep", metric.keep)):
            found = None if text is None else Comparison.parse(text)
            kind = None if found is None else output.get(found.field)
            if found is None or found.operator is None or found.constant is None or kind in (None, "bool"):
                continue
            low, high = ends(str(kind)) or (0, 1)
            near = {low, high, *(value for step in (-1, 0, 1) if low <= (value := found.constant + step) <= high)}
            answers = {compare(value, found.operator, found.constant) for value in near}
            if len(answers) == 1 and low < high:
                always = "always" if answers == {True} else "never"
                sink.error(
                    "E0850", f"`{text}` is {always} true of a score from {low} to {high}", experiment.at("metrics", name, key),
                    help="compare with a number inside the range that the judge declares",
                    labels=[Label(span=experiment.at("judges", metric.judge, "output", found.field), text="the range")],
                )  # fmt: skip
