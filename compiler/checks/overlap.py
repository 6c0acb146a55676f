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


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    trained = {recipe.data for recipe in spec.train.values()}
    for set_name, prompts in experiment.prompts.items():
        declared = set(spec.prompts[set_name].disjoint_from)
        for data_name in sorted(declared | trained):
            built = experiment.data.get(data_name)
            if built is None:
                continue
            at = experiment.key_at("prompts", set_name)
            questions = {words(question): question for question in built.user_turns}
            by_word: dict[str, set[frozenset[str]]] = {}
            for bag in questions:
                for word in bag:
                    by_word.setdefault(word, set()).add(bag)
            exact = [prompt for prompt in prompts if words(prompt) in questions]
            if exact:
                sink.error(
                    "E0601", f'{len(exact)} of {len(prompts)} prompts of "{set_name}" are trained on in "{data_name}"', at,
                    help="take them out of the training data or out of the evaluation", notes=[f'for example "{exact[0]}"'],
                )  # fmt: skip
            for prompt in prompts:
                bag = words(prompt)
                if bag in questions:
                    continue
                candidates = set().union(*(by_word.get(word, set()) for word in bag))
                nearest = max(candidates, key=lambda other: (jaccard(bag, other), sorted(other)), default=frozenset())
                if jaccard(bag, nearest) >= NEAR:
                    sink.error(
                        "E0602", f'a prompt of "{set_name}" is nearly one of "{data_name}"', at,
                        help="reword or drop one of the two",
                        notes=[f'evaluated: "{prompt}"', f'trained:   "{questions[nearest]}"', f"{jaccard(bag, nearest):.0%} of their words are shared"],
                    )  # fmt: skip
