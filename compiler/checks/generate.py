"""Generated text in a place where it cannot be what is meant.

E0731: text that the model is still to write stands in a user turn
Why: In one lab, training prompts stood inside the evaluation set. Every question that a row trains on is therefore
compared with every evaluation prompt before anything runs, and a text that nobody has written yet cannot be compared.
What the model writes is an answer besides: it belongs in an assistant turn.
Example:
    data:
      traces:
        turns: [{user: "{prompt}"}, {assistant: "{catch}"}, {user: "{bad}"}, {assistant: "{catch}"}]
Fix:
    data:
      traces:
        turns: [{user: "{prompt}"}, {assistant: "{bad}"}, {user: continue}, {assistant: "{catch}"}]

E0732: a prompt comes from two of the prompt sets that one entry joins
Why: In one lab, seeds that shared an output name corrupted each other's file. Generated texts are kept by prompt and
number, so a prompt that comes from two sets is one name for two places: both would get the same texts, while the row
count says that they are different.
Example:
    prompts: {more: {items: [How do I bake bread?, How do I store bread?], count: 2}}
    generate: {bad: {prompts: [asked, more]}}     # `asked` has the first one too
Fix:
    prompts: {more: {items: [How do I freeze bread?, How do I store bread?], count: 2}}
    generate: {bad: {prompts: [asked, more]}}

E0733: the text of another prompt is asked for where there is only one prompt
Why: `match: other_prompt` makes a control in which an answer belongs to somebody else's question, like the random
recoveries of the source document of issue 147. With a single prompt there is no other question to take it from.
Example:
    prompts: {asked: {items: [How do I bake bread?], count: 1}}
    generate: {bad: {n: 32}}
    data: {traces: {fill: {bad: {generate: bad, match: other_prompt}}}}
Fix:
    prompts: {asked: {items: [How do I bake bread?, Where should I plant roses?], count: 2}}
    generate: {bad: {n: 32}}
    data: {traces: {fill: {bad: {generate: bad, match: other_prompt}}}}

W0734: two fillings are the same text in every row
Why: Fillings with `match: same_prompt` take the text that was written for the row's own prompt and number. Two that
take it from the same `generate` entry are one text, so that every row says the same thing twice; trained on, it teaches
repetition. Usually two different answers were meant.
Example:
    data:
      traces:
        fill: {bad: {generate: bad}, worse: {generate: bad}}
        turns:
          - user: "{prompt}"
          - assistant: "{bad}"
          - user: continue
          - assistant: "{worse} {catch}"
Fix:
    data:
      traces:
        fill: {bad: {generate: bad}, worse: {generate: bad, match: other_prompt}}
        turns:
          - user: "{prompt}"
          - assistant: "{bad}"
          - user: continue
          - assistant: "{worse} {catch}"
"""

from __future__ import annotations

from collections.abc import Sequence

from epc.compiler.contract.chat import placeholders
from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.resolve import Experiment
from epc.compiler.source import PathKey
from epc.compiler.spec import TurnsData


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    pairs: set[frozenset[str]] = set()
    for name, generation in spec.generate.items():
        _repeated(experiment, sink, ("generate", name), generation.prompts, pairs)
    for name, entry in spec.data.items():
        if isinstance(entry, TurnsData):
            _repeated(experiment, sink, ("data", name), entry.prompts, pairs)
            _fillings(experiment, sink, name, entry)


def _repeated(
    experiment: Experiment, sink: Diagnostics, base: PathKey, sets: Sequence[str], pairs: set[frozenset[str]]
) -> None:
    """A prompt in two of the sets that one entry joins; two sets that share one are reported once, in `pairs`."""
    first: dict[str, str] = {}
    for index, name in enumerate(sets):
        prompts = experiment.prompts.get(name, ())
        twice = [prompt for prompt in dict.fromkeys(prompts) if prompt in first]
        if twice and (first[twice[0]] == name or {first[twice[0]], name} not in pairs):
            other = first[twice[0]]
            remedy = "list each set once" if other == name else "take it out of one of the two"
            pairs.add(frozenset({other, name}))
            fact = (
                f'lists "{name}" twice'
                if other == name
                else f'takes {_prompts(len(twice))} from both "{other}" and "{name}"'
            )
            sink.error(
                "E0732", f'"{base[1]}" {fact}', experiment.at(*base, "prompts", index),
                help=f"{remedy}: texts are kept by prompt, so a repeated one has one text for two places",
                notes=[f'for example "{twice[0]}"'],
            )  # fmt: skip
        for prompt in prompts:
            first.setdefault(prompt, name)


def _prompts(count: int) -> str:
    return "a prompt" if count == 1 else f"{count} prompts"


def _fillings(experiment: Experiment, sink: Diagnostics, name: str, entry: TurnsData) -> None:
    """Where generated text stands, and whether there is another prompt to take it from."""
    written = entry.generated
    for index, turn in enumerate(entry.turns):
        for key in dict.fromkeys(placeholders(turn.text)):
            if turn.role == "user" and key in written:
                sink.error(
                    "E0731", f'a user turn of "{name}" holds {{{key}}}, which "{written[key].generate}" writes',
                    experiment.at("data", name, "turns", index, "user"),
                    help="put generated text into an assistant turn; user turns are checked against the evaluation, and text that is not written yet cannot be",
                )  # fmt: skip
    prompts = [prompt for prompt_set in entry.prompts for prompt in experiment.prompts.get(prompt_set, ())]
    same: dict[str, str] = {}
    for key, value in written.items():
        at = experiment.key_at("data", name, "fill", key)
        if value.match == "other_prompt" and len(prompts) == 1:
            sink.error(
                "E0733", f'{{{key}}} of "{name}" takes the text of another prompt, and there is only one prompt', at,
                help="add prompts, or write match: same_prompt",
            )  # fmt: skip
        if value.match == "same_prompt" and value.generate in same:
            sink.warning(
                "W0734", f'{{{same[value.generate]}}} and {{{key}}} of "{name}" are the same text in every row', at,
                help="add a second `generate` entry with its own name, or match: other_prompt",
                labels=[Label(span=experiment.key_at("data", name, "fill", same[value.generate]), text=f'also the text of "{value.generate}"')],
            )  # fmt: skip
        if value.match == "same_prompt":
            same.setdefault(value.generate, key)
