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

from epc.compiler.diagnostics import Diagnostics, Span
from epc.compiler.resolve import Experiment
from epc.compiler.spec import Role, Turn, TurnsData


def _shape(sink: Diagnostics, at: Span, turns: list[Turn], *, what: str, last: Role, help: str) -> None:
    """Report turns that end with the wrong role or do not alternate from the user on."""
    ends = turns[-1].role
    if ends != last:
        article = "an" if ends == "assistant" else "a"
        sink.error("E0701", f"{what} end with {article} {ends} turn", at, help=help)
    if turns[0].role != "user" or any(before.role == after.role for before, after in pairwise(turns)):
        name = what.partition(" of ")[2]
        sink.error(
            "E0702", f"turns of {name} do not alternate user, assistant", at, help="start with user and alternate"
        )


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    for name, entry in spec.data.items():
        if isinstance(entry, TurnsData):
            at = experiment.key_at("data", name, "turns")
            advice = "end them with the assistant turn that is trained"
            _shape(sink, at, entry.turns, what=f'rows of "{name}"', last="assistant", help=advice)
    for name, sample in spec.sample.items():
        at = experiment.key_at("sample", name, "turns")
        advice = "end them with the user turn to be answered"
        _shape(sink, at, sample.turns, what=f'conversations of "{name}"', last="user", help=advice)
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
