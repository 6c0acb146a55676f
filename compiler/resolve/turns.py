"""Templates of conversations, and what fills their placeholders.

E0310: a placeholder that nothing fills
Why: An unfilled placeholder is trained on or sampled from as it stands: the model would see the braces. Every name in
braces is a filling of the same entry, or {prompt}.
Example:
    data: {bad_only: {turns: [{user: "How do I {topics}?"}, {assistant: "{bad}"}]}}
Fix:
    data: {bad_only: {turns: [{user: "How do I {topic}?"}, {assistant: "{bad}"}]}}
"""

from __future__ import annotations

from collections.abc import Sequence

from epc.compiler.contract.chat import placeholders
from epc.compiler.diagnostics import did_you_mean, sentence
from epc.compiler.resolve.context import Context
from epc.compiler.resolve.files import fill
from epc.compiler.resolve.names import known
from epc.compiler.source import PathKey
from epc.compiler.spec import Turn


def filled(context: Context, turns: Sequence[Turn], names: set[str], base: PathKey) -> bool:
    """Check that every placeholder has a filling."""
    good = True
    for index, turn in enumerate(turns):
        at = context.at(*base, "turns", index, turn.role)
        for name in placeholders(turn.text):
            if name not in names:
                context.sink.error(
                    "E0310", f'unknown placeholder "{{{name}}}"', at,
                    help=f"{sentence(did_you_mean(name, names))} Fillings are declared under `fill:`",
                )  # fmt: skip
                good = False
    return good


def conversations(context: Context) -> None:
    """What sample sets and generations put before the turn that is written."""
    for name, sample in context.spec.sample.items():
        known(context, "prompts", sample.prompts, context.at("sample", name, "prompts"))
        fill(context, sample.fill, ("sample", name))
        filled(context, sample.turns, {"prompt", *sample.fill}, ("sample", name))
    for name, generation in context.spec.generate.items():
        for index, prompt_set in enumerate(generation.prompts):
            known(context, "prompts", prompt_set, context.at("generate", name, "prompts", index))
        filled(context, generation.turns, {"prompt"}, ("generate", name))
