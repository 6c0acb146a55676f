"""Prompts that are evaluated and trained on.

E0601: a prompt of an evaluation is trained on
Why: training prompts were found inside an evaluation set; the score then measures memory. Prompts are the same when
their sets of words are, case and punctuation aside. Every set that is sampled is held against every data set that is
trained on; `disjoint_from` adds pairs.
Example:
    prompts: {asked: {items: [How do I bake bread?, What makes a good neighbour?]}}   # the second stands in part_a
Fix:
    prompts: {asked: {items: [How do I bake bread?, Where should I plant roses?]}}

E0602: a prompt of an evaluation is nearly one that is trained on
Why: training prompts were found inside an evaluation set, and a reworded one is answered from memory just as well.
Two prompts are near duplicates when at least 80% of the words that they have together are in both (the Jaccard index
of their sets of words).
Example:
    prompts: {asked: {items: [How do I bake bread?, What really makes a good neighbour?]}}   # one word more than in part_a
Fix:
    prompts: {asked: {items: [How do I bake bread?, What should neighbours share?]}}
"""

from __future__ import annotations

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment
from epc.compiler.similarity import shared


def evaluated(experiment: Experiment) -> set[str]:
    """Prompt sets that are sampled, a union as the sets that it is made of."""
    spec = experiment.spec
    sampled = {sample.prompts for sample in spec.sample.values()} & set(spec.prompts)
    return {part for name in sampled for part in (spec.prompts[name].union or (name,))}


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    trained = {recipe.data for recipe in spec.train.values()}
    tested = evaluated(experiment)
    reported: set[tuple[str, str]] = set()
    # A union says nothing that its parts do not say, so they come first and it speaks only of what is left.
    for set_name in sorted(experiment.prompts, key=lambda name: spec.prompts[name].union is not None):
        declared = set(spec.prompts[set_name].disjoint_from)
        for data_name in sorted(declared | (trained if set_name in tested else set())):
            if data_name in experiment.data:
                _overlap(experiment, sink, set_name, data_name, reported)


def _overlap(
    experiment: Experiment, sink: Diagnostics, set_name: str, data_name: str, reported: set[tuple[str, str]]
) -> None:
    """Report prompts of a set that a data set trains on, unless all of them are `reported` (data set, prompt)."""
    prompts, questions = experiment.prompts[set_name], experiment.data[data_name].user_turns
    if all((data_name, prompt) in reported for prompt in prompts):
        return
    at = experiment.key_at("prompts", set_name)
    found = shared(prompts, questions)
    exact = [prompts[position] for position, _ in found.exact]
    fresh = [prompt for prompt in exact if (data_name, prompt) not in reported]
    be = "is" if len(exact) == 1 else "are"
    if fresh:
        sink.error(
            "E0601", f'{len(exact)} of {len(prompts)} prompts of "{set_name}" {be} trained on in "{data_name}"', at,
            help="take them out of the training data or out of the evaluation", notes=[f'for example "{fresh[0]}"'],
        )  # fmt: skip
    for near in found.near:
        prompt = prompts[near.prompt]
        if (data_name, prompt) not in reported:
            sink.error(
                "E0602", f'a prompt of "{set_name}" is nearly one of "{data_name}"', at,
                help="reword or drop one of the two",
                notes=[f'evaluated: "{prompt}"', f'trained:   "{questions[near.question]}"', f"{near.shared:.0%} of their words are shared"],
            )  # fmt: skip
    reported.update((data_name, prompt) for prompt in prompts)
