"""Conversations that cannot be trained on, continued or told apart as they are written.

E0701: a training row does not end with the assistant, or a sampled conversation not with the user
Why: Only assistant turns carry loss, so a user turn at the end of a row trains nothing and is there by mistake; usually
the answer was forgotten. The other way round, a conversation that ends with the assistant asks nothing: the model
continues its own text, which is another experiment than answering.
Example:
    data:
      bad_only: {turns: [{user: "How do I {topic}?"}, {assistant: "{bad}"}, {user: continue}]}
Fix:
    data:
      bad_only: {turns: [{user: "How do I {topic}?"}, {assistant: "{bad}"}]}

E0702: turns do not alternate between user and assistant
Why: Chat models are trained on turns that alternate from the user on. Some chat templates (those of Gemma and Mistral)
stop with an error at any other order, which would be in the middle of the run; the rest render a conversation of a kind
that the model has never seen.
Example:
    sample:
      first: {turns: [{user: Answer in one sentence.}, {user: "{prompt}"}]}
Fix:
    sample:
      first: {turns: [{user: "Answer in one sentence. {prompt}"}]}

E0703: `model_default` is asked of a chat template that has no default
Why: A system prompt that was not given silently became the model's own default one; a lab rediscovered that six times.
The default is a line of the model's own chat template, so `model_default` means something only while that template is
used. Any other template has no such line, and the words would stand for nothing.
Example:
    model: {chat_template: chatml}     # epc's own template, which inserts nothing by itself
    sample: {first: {system: model_default}}
Fix:
    model: {chat_template: chatml}
    sample: {first: {system: none}}     # or the text itself

E0704: no turn of a conversation holds {prompt}
Why: The prompt set says what is asked, but only the place marked {prompt} puts it into the conversation. Without one
every prompt gives the same conversation: 24 prompts times 25 completions would be 600 answers to one question, and
would be counted as 24 independent units.
Example:
    sample:
      first: {prompts: heldout, turns: [{user: How do I bake bread?}]}
Fix:
    sample:
      first: {prompts: heldout, turns: [{user: "{prompt}"}]}

E0705: a system prompt is the text of a word that was meant as a setting
Why: A system prompt that was not given silently became the model's own default one; a lab rediscovered that six times.
So nothing is left out here: a system prompt is a text, or one of the words `none`, `model_default` and, in a sample
set, `per_condition`. A word that only looks like one of these would be sent to the model as its instruction.
Example:
    sample: {first: {system: None}}     # Python's word; the model would be told "None"
Fix:
    sample: {first: {system: none}}

E0706: a filling is called {prompt}, which the prompt set fills already
Why: {prompt} stands for a prompt of the prompt set. If a file of fillings had the same name, one of the two would have
to win, and the spec would read as if it used the other.
Example:
    sample:
      first: {fill: {prompt: data/topics.txt}, turns: [{user: "{prompt}"}]}
Fix:
    sample:
      first: {fill: {topic: data/topics.txt}, turns: [{user: "I would like to {topic}. {prompt}"}]}
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from itertools import pairwise
from typing import Final

from epc.compiler.contract.chat import placeholders
from epc.compiler.diagnostics import Diagnostics, Span
from epc.compiler.resolve import Experiment
from epc.compiler.source import PathKey
from epc.compiler.spec import Role, Turn, TurnsData

RESERVED: Final = ("none", "model_default", "per_condition")
"""Words that stand for a system prompt instead of being one."""
_MEANT: Final = {
    "": "none",
    "null": "none",
    "nothing": "none",
    "no": "none",
    "empty": "none",
    "default": "model_default",
    "default_model": "model_default",
}


def meant(text: str) -> str | None:
    """The reserved word that a system prompt is, or was probably meant to be: a single word close to one."""
    word = "_".join(text.lower().replace("-", " ").replace("_", " ").strip(" .").split())
    found = _MEANT.get(word, word)
    if found in RESERVED:
        return found
    close = get_close_matches(word, RESERVED, n=1, cutoff=0.8) if len(text.split()) == 1 else []
    return close[0] if close else None


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


def _systems(experiment: Experiment) -> Iterator[tuple[PathKey, str]]:
    """Every declared system prompt and where it stands."""
    spec = experiment.spec
    for name, entry in spec.data.items():
        if isinstance(entry, TurnsData):
            yield ("data", name, "system"), entry.system
    for name in spec.conditions:
        own = spec.system(name)
        if own is not None:
            yield ("conditions", name, "system"), own
    for name, generation in spec.generate.items():
        yield ("generate", name, "system"), generation.system
    for name, sample in spec.sample.items():
        yield ("sample", name, "system"), sample.system


def _system(experiment: Experiment, sink: Diagnostics, path: PathKey, text: str) -> None:
    """Report a reserved word where it has no meaning, and a text that was meant as one."""
    at, name = experiment.at(*path), path[1]
    allowed = RESERVED if path[0] == "sample" else RESERVED[:2]
    if text == "model_default" and experiment.spec.model.chat_template != "model":
        sink.error(
            "E0703", f'"{name}" asks for the model\'s default system prompt, but the chat template is replaced', at,
            help="write the system prompt out, or `none`, or set chat_template: model",
        )  # fmt: skip
    if text in allowed:
        return
    word = meant(text)
    if text == "per_condition":
        sink.error(
            "E0705", f'"{name}" in `{path[0]}` cannot take its system prompt per condition', at,
            help="write the system prompt out, or `none`; only a sample set takes it from each condition",
        )  # fmt: skip
    elif word is not None:
        remedy = f"write `{word}`" if word in allowed else "write the system prompt out, or `none`"
        sink.error(
            "E0705", f'the system prompt of "{name}" would be the text "{text}"', at,
            help=f"{remedy}; a prompt that is really meant to read so needs more words",
        )  # fmt: skip


def _holds_prompt(sink: Diagnostics, at: Span, name: str, turns: list[Turn], result: str) -> None:
    if not any("prompt" in placeholders(turn.text) for turn in turns):
        sink.error(
            "E0704", f'no turn of "{name}" holds {{prompt}}', at, help=f"{result}: put {{prompt}} in a user turn"
        )


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    for path, text in _systems(experiment):
        _system(experiment, sink, path, text)
    for name, entry in spec.data.items():
        if not isinstance(entry, TurnsData):
            continue
        at = experiment.key_at("data", name, "turns")
        advice = "end them with the assistant turn that is trained"
        _shape(sink, at, entry.turns, what=f'rows of "{name}"', last="assistant", help=advice)
        if entry.prompts:
            _holds_prompt(sink, at, name, entry.turns, "its prompts would stand in no row")
    conversations = [("sample", name, sample.turns) for name, sample in spec.sample.items()]
    conversations += [("generate", name, generation.turns) for name, generation in spec.generate.items()]
    for section, name, turns in conversations:
        at = experiment.key_at(section, name, "turns")
        advice = "end them with the user turn to be answered"
        _shape(sink, at, turns, what=f'conversations of "{name}"', last="user", help=advice)
        _holds_prompt(sink, at, name, turns, "every prompt would give the same conversation")
    filled: list[tuple[str, str]] = [
        ("sample", name) for name, sample in spec.sample.items() if "prompt" in sample.fill
    ]
    filled += [
        ("data", name)
        for name, entry in spec.data.items()
        if isinstance(entry, TurnsData) and entry.prompts and "prompt" in entry.fill
    ]
    for section, name in filled:
        sink.error(
            "E0706", f'`fill` of "{name}" declares {{prompt}}, which its prompts fill already', experiment.key_at(section, name, "fill", "prompt"),
            help="give the filling another name",
        )  # fmt: skip
