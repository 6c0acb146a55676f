"""E0601, E0602: a training prompt is, or nearly is, an evaluation prompt.

Why: training prompts were found inside an evaluation set, and the same prompt among the negatives; the
score then measures memory. Near-duplicates are pairs whose sets of words have a Jaccard index of at
least 0.8 (Broder 1997, On the resemblance and containment of documents), case and punctuation aside.

Example:
    a training topic "bake bread" with the evaluation prompt "How do I bake bread?"

Fix: take the prompt out of one of the two.
"""

from __future__ import annotations

import re

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment

NEAR = 0.8
_WORD = re.compile(r"\w+")


def words(text: str) -> frozenset[str]:
    """The set of lower-case words of a text."""
    return frozenset(_WORD.findall(text.lower()))


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection over size of the union; 1 for two empty sets."""
    return len(a & b) / len(a | b) if a or b else 1.0


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
    prompts, built = experiment.prompts[set_name], experiment.data[data_name]
    at = experiment.key_at("prompts", set_name)
    questions = {words(question): question for question in built.user_turns}
    by_word: dict[str, set[frozenset[str]]] = {}
    for bag in questions:
        for word in bag:
            by_word.setdefault(word, set()).add(bag)
    exact = [prompt for prompt in prompts if words(prompt) in questions]
    fresh = [prompt for prompt in exact if (data_name, prompt) not in reported]
    be = "is" if len(exact) == 1 else "are"
    if fresh:
        sink.error(
            "E0601", f'{len(exact)} of {len(prompts)} prompts of "{set_name}" {be} trained on in "{data_name}"', at,
            help="take them out of the training data or out of the evaluation", notes=[f'for example "{fresh[0]}"'],
        )  # fmt: skip
    for prompt in prompts:
        bag = words(prompt)
        if bag in questions or (data_name, prompt) in reported:
            continue
        candidates = set().union(*(by_word.get(word, set()) for word in bag))
        nearest = max(candidates, key=lambda other: (jaccard(bag, other), sorted(other)), default=frozenset())
        if jaccard(bag, nearest) >= NEAR:
            sink.error(
                "E0602", f'a prompt of "{set_name}" is nearly one of "{data_name}"', at,
                help="reword or drop one of the two",
                notes=[f'evaluated: "{prompt}"', f'trained:   "{questions[nearest]}"', f"{jaccard(bag, nearest):.0%} of their words are shared"],
            )  # fmt: skip
    reported.update((data_name, prompt) for prompt in prompts)
