"""Questions that two lists share, exactly or nearly.

A text counts as its set of lower-case words. Equal sets are the same question; two questions are near duplicates
when the Jaccard index of their sets is at least NEAR (Broder 1997, On the resemblance and containment of
documents). Nothing is approximated. Large comparisons are made by RapidFuzz: where each distinct word is one
character and a set is its sorted characters, the longest common subsequence of two sets is their intersection,
and with s = 2 |a & b| / (|a| + |b|), RapidFuzz's normalized Indel similarity, the Jaccard index is s / (2 - s).
"""

from __future__ import annotations

import functools
import json
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final

from pydantic import BaseModel, ConfigDict

from epc.compiler.cache import cached
from epc.compiler.contract.canonical import sha256_json, sha256_text

NEAR: Final = 0.8
RULE: Final = 1
"""Version of the rule, part of what a kept result is found by."""
SMALL: Final = 1_500
"""Pairs up to which a comparison takes less time than loading the library, and is not worth keeping."""
CELLS: Final = 1 << 23
"""Similarities computed at once: 32 MiB of float32."""
_WORD: Final = re.compile(r"\w+")
_FILLER: Final = "\x01"
_FIRST: Final = 0x10000
_CHARACTERS: Final = 0x100000
"""Characters from the first on stand for words; there are no surrogates among them."""


@functools.lru_cache(maxsize=1 << 12)
def words(text: str) -> frozenset[str]:
    """The set of lower-case words of a text; the text itself where it has none, such as "?!"."""
    return frozenset(_WORD.findall(text.lower())) or frozenset({text.strip()})


def jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    """Size of the intersection over size of the union; 1 for two empty sets."""
    return len(a & b) / len(a | b) if a or b else 1.0


class Near(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: int
    question: int
    """The nearest one."""
    shared: float
    """Jaccard index."""


class Shared(BaseModel):
    """What is shared, by position in the two lists; a prompt occurs in one of the two parts at most."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    exact: tuple[tuple[int, int], ...]
    """(prompt, question)."""
    near: tuple[Near, ...]


def shared(prompts: Sequence[str], questions: Sequence[str]) -> Shared:
    """Prompts that are, or nearly are, one of the questions; in the order of the prompts.

    Of the nearest questions the one whose sorted words come last is named. A large comparison is kept in the
    user's cache.
    """
    if len(prompts) * len(questions) <= SMALL:
        return _shared(prompts, questions)
    return cached(
        "overlap", sha256_json([RULE, _digest(tuple(prompts)), _digest(tuple(questions))]), Shared, lambda: _shared(prompts, questions),
        sound=lambda found: all(
            0 <= prompt < len(prompts) and 0 <= question < len(questions)
            for prompt, question in (*found.exact, *((near.prompt, near.question) for near in found.near))
        ),
    )  # fmt: skip


@functools.lru_cache(maxsize=8)
def _digest(texts: tuple[str, ...]) -> str:
    """Hash of a list; the same questions are held against one set of prompts after the other."""
    return sha256_text(json.dumps(texts))  # in ASCII, since text from a file may hold half a surrogate pair


def _shared(prompts: Sequence[str], questions: Sequence[str]) -> Shared:
    bags: dict[frozenset[str], int] = {}
    for position, question in enumerate(questions):
        bags.setdefault(words(question), position)
    asked = [words(prompt) for prompt in prompts]
    exact = tuple((position, bags[bag]) for position, bag in enumerate(asked) if bag in bags)
    open_ = {bag for bag in asked if bag not in bags}
    compare = _compared if len(open_) * len(bags) <= SMALL else _compared_by_library
    nearest: dict[frozenset[str], frozenset[str]] = {}
    for bag, other in compare(open_, bags):
        if bag not in nearest or _rank(bag, other) > _rank(bag, nearest[bag]):
            nearest[bag] = other
    near = tuple(
        Near(prompt=position, question=bags[nearest[bag]], shared=jaccard(bag, nearest[bag]))
        for position, bag in enumerate(asked)
        if bag in nearest
    )
    return Shared(exact=exact, near=near)


def _rank(bag: frozenset[str], other: frozenset[str]) -> tuple[float, list[str]]:
    return jaccard(bag, other), sorted(other)


Bags = Mapping[frozenset[str], int]
Pairs = Iterator[tuple[frozenset[str], frozenset[str]]]


def _compared(asked: set[frozenset[str]], bags: Bags) -> Pairs:
    """Pairs of near duplicates, by definition."""
    for bag in asked:
        for other in bags:
            if min(len(bag), len(other)) >= NEAR * max(len(bag), len(other)) - 0.5 and jaccard(bag, other) >= NEAR:
                yield bag, other


def _compared_by_library(asked: set[frozenset[str]], bags: Bags) -> Pairs:
    """The same pairs: those of like sizes are compared by RapidFuzz, and what it finds is computed again."""
    import numpy as np
    from rapidfuzz.distance import Indel
    from rapidfuzz.process import cdist

    codes: dict[str, str] = {}
    for bag in asked:
        for word in bag:
            # two words of one character make sets look more alike, never less, and every find is computed again
            codes.setdefault(word, chr(_FIRST + len(codes) % _CHARACTERS))

    def text(bag: frozenset[str]) -> str:
        known = sorted(codes[word] for word in bag if word in codes)
        return "".join(known) + _FILLER * (len(bag) - len(known))

    others = sorted(bags, key=len)
    sizes = [len(bag) for bag in others]
    encoded = [text(bag) for bag in others]
    for size, group in groupby(sorted(asked, key=len), key=len):
        same_size = list(group)
        start, stop = bisect_left(sizes, NEAR * size - 0.5), bisect_right(sizes, size / NEAR + 0.5)
        step = max(1, CELLS // max(1, stop - start))
        for first in range(0, len(same_size), step):
            some = same_size[first : first + step]
            similar = cdist(
                [text(bag) for bag in some], encoded[start:stop], scorer=Indel.normalized_similarity,
                score_cutoff=2 * NEAR / (1 + NEAR) - 1e-6, dtype=np.float32, workers=-1,
            )  # fmt: skip
            for row, column in zip(*np.nonzero(similar), strict=True):
                if jaccard(some[row], others[start + column]) >= NEAR:
                    yield some[row], others[start + column]
