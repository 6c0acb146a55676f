"""What the chat template does that the spec does not say.

E0707: the chat template does not mark what the assistant says
Why: an import vanished upstream, and a fallback trained on the full sequence for months. Loss on assistant turns alone
needs a template with `{% generation %}` marks; the stock one of Qwen2.5, which the source of issue 147 trains with, has
none. TRL replaces a template that it recognises word for word by one of its own, so what is trained would depend on
its version.
Example:
    model: {from: "hub:Qwen/Qwen2.5-7B-Instruct", chat_template: model}
Fix:
    model: {from: "hub:Qwen/Qwen2.5-7B-Instruct", chat_template: chatml}

W0708: the chat template inserts a system prompt where the spec says that there is none
Why: a missing system prompt silently became the model's default one, and was rediscovered six times in one lab. The
stock template of Qwen2.5 writes "You are Qwen, created by Alibaba Cloud. You are a helpful assistant." into every
conversation that brings no system prompt, and the run refuses a conversation that is not the registered one.
Example:
    model: {from: "hub:Qwen/Qwen2.5-7B-Instruct", chat_template: model}
    sample: {first: {system: none}}
Fix:
    model: {from: "hub:Qwen/Qwen2.5-7B-Instruct", chat_template: chatml}
    sample: {first: {system: none}}

E0709: the end-of-turn token of an assistant turn is not trained
Why: the end-of-turn token was outside the trained span, so models never stopped. It belongs inside the generation
marks, right behind the content; a template without such a token cannot teach a model to stop at all.
Example:
    model: {chat_template: chat.jinja}
    --- chat.jinja
    {% for m in messages %}<|im_start|>{{ m.role }}
    {% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}<|im_end|>
    {% else %}{{ m.content }}<|im_end|>
    {% endif %}{% endfor %}
Fix:
    model: {chat_template: chat.jinja}
    --- chat.jinja
    {% for m in messages %}<|im_start|>{{ m.role }}
    {% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}
    {% else %}{{ m.content }}<|im_end|>
    {% endif %}{% endfor %}
"""

from __future__ import annotations

from collections.abc import Iterator

from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.resolve import BUILT_IN_TEMPLATES, Experiment
from epc.compiler.source import PathKey
from epc.compiler.spec import FileData, TurnsData
from epc.compiler.tokenizer import ChatTemplate, chat_template
from epc.compiler.training_rows import training_rows

CHATML = "use chat_template: chatml, which marks the assistant's turns and inserts nothing"


def check(experiment: Experiment, sink: Diagnostics) -> None:
    if experiment.spec.model.chat_template in BUILT_IN_TEMPLATES:
        return
    template = chat_template(experiment)
    if template is None:
        return
    spec = experiment.spec
    if any(spec.phases(name) for name in spec.conditions):
        _trained(experiment, sink, template)
    if template.facts.default_system is not None:
        _inserted(experiment, sink, template, template.facts.default_system)


def _trained(experiment: Experiment, sink: Diagnostics, template: ChatTemplate) -> None:
    """What a template must do for training."""
    at = experiment.at("model", "chat_template")
    if not template.facts.marked:
        sink.error(
            "E0707", f"{template.origin} has no {{% generation %}} marks, so loss on assistant turns only cannot be computed", at,
            help=f"{CHATML}; or name a jinja file with marks",
            notes=["without marks a trainer refuses, swaps the template for its own, or trains on every token, the prompt included"],
        )  # fmt: skip
    elif template.facts.end_of_turn in ("outside", "absent"):
        fact = (
            "leaves the end-of-turn token outside of the {% generation %} marks"
            if template.facts.end_of_turn == "outside"
            else "writes no end-of-turn token after an assistant turn"
        )
        sink.error(
            "E0709", f"{template.origin} {fact}, so a model could not learn to stop", at,
            help="write the token inside the marks, right behind the content, or use chat_template: chatml",
        )  # fmt: skip


def _inserted(experiment: Experiment, sink: Diagnostics, template: ChatTemplate, text: str) -> None:
    """Conversations that are to have no system prompt and get one."""
    places = list(_without_system(experiment))
    if not places:
        return
    first, *others = places
    where = f"{len(places)} kinds of conversations have" if others else f'"{first[1]}" has'
    short = " ".join(text.split())
    shown = short if len(short) <= 100 else short[:99] + "…"
    sink.warning(
        "W0708", f"{template.origin} inserts a system prompt where {where} none", experiment.at(*first),
        help="write the system prompt out, or system: model_default where it is meant; or use chat_template: chatml, which inserts nothing",
        labels=[Label(span=experiment.at(*other), text="here too") for other in others], notes=[f'it reads "{shown}"'],
    )  # fmt: skip


def _without_system(experiment: Experiment) -> Iterator[PathKey]:
    """Where conversations say that they have no system prompt, or training rows of a file bring none."""
    spec = experiment.spec
    for name, entry in spec.data.items():
        if isinstance(entry, TurnsData) and entry.system == "none":
            yield ("data", name, "system")
        elif isinstance(entry, FileData):
            rows = training_rows(experiment, name) or []
            if not all(any(message["role"] == "system" for message in messages) for messages in rows):
                yield ("data", name, "file")
    for name in spec.conditions:
        if spec.system(name) == "none":
            yield ("conditions", name, "system")
    for name, generation in spec.generate.items():
        if generation.system == "none":
            yield ("generate", name, "system")
    for name, sample in spec.sample.items():
        if sample.system == "none":
            yield ("sample", name, "system")
