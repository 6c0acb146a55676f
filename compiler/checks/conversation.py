"""E0701, E0702, E0703: a conversation that cannot be trained on or continued as written.

Why: a row that does not end with the assistant trains nothing at its end; a prompt that ends with the
assistant is continued, not answered; and a missing system prompt silently became the model's default
one, rediscovered six times in one lab.

Example:
    turns: [{user: "How do I {topic}?"}]            # a training row without an answer

Fix: end training rows with an assistant turn and sampled conversations with a user turn.
"""

from __future__ import annotations

from itertools import pairwise

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment
from epc.compiler.spec import Turn, TurnsData


def _alternates(turns: list[Turn]) -> bool:
    return turns[0].role == "user" and all(before.role != after.role for before, after in pairwise(turns))


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    for name, entry in spec.data.items():
        if isinstance(entry, TurnsData):
            at = experiment.key_at("data", name, "turns")
            if entry.turns[-1].role != "assistant":
                sink.error(
                    "E0701",
                    f'rows of "{name}" end with a user turn',
                    at,
                    help="end them with the assistant turn that is trained",
                )
            if not _alternates(entry.turns):
                sink.error(
                    "E0702",
                    f'turns of "{name}" do not alternate user, assistant',
                    at,
                    help="start with user and alternate",
                )
    for name, sample in spec.sample.items():
        at = experiment.key_at("sample", name, "turns")
        if sample.turns[-1].role != "user":
            sink.error(
                "E0701",
                f'conversations of "{name}" end with an assistant turn',
                at,
                help="end them with the user turn to be answered",
            )
        if not _alternates(list(sample.turns)):
            sink.error(
                "E0702", f'turns of "{name}" do not alternate user, assistant', at, help="start with user and alternate"
            )
        if not any("{prompt}" in turn.text for turn in sample.turns):
            sink.error(
                "E0704",
                f'no turn of "{name}" holds {{prompt}}',
                at,
                help="every prompt would give the same conversation: put {prompt} in a user turn",
            )
        if sample.system == "model_default" and spec.model.chat_template != "model":
            sink.error(
                "E0703", f'"{name}" asks for the model\'s default system prompt, but the chat template is replaced',
                experiment.at("sample", name, "system"), help="write the system prompt out, or `none`, or set chat_template: model",
            )  # fmt: skip
