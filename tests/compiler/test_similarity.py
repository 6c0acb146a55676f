"""Near duplicates: the library finds what the definition says, and large results are kept between runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epc.compiler import similarity
from epc.compiler.similarity import NEAR, Near, Shared, jaccard, shared, words

WORDS = st.sampled_from([f"w{number}" for number in range(12)])
BAGS = st.sets(st.frozensets(WORDS, min_size=1, max_size=10), max_size=12)
FAR = [f"Question number {number} asks about subject {number * 7} and nothing else" for number in range(200)]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("How do I bake bread?", "how do i BAKE bread", 1.0),
        ("bake bread", "bread, bake!", 1.0),
        ("How do I bake bread?", "How do I bake good bread?", 5 / 6),
        ("?!", "?!", 1.0),
        ("?!", "!!", 0.0),
        ("日本", "日本", 1.0),
    ],
)
def test_words_and_their_jaccard_index(one: str, other: str, expected: float) -> None:
    assert jaccard(words(one), words(other)) == expected


@settings(max_examples=200, deadline=None)
@given(asked=BAGS, others=BAGS)
def test_the_library_finds_what_the_definition_says(asked: set[frozenset[str]], others: set[frozenset[str]]) -> None:
    bags = dict.fromkeys(others, 0)
    expected = {(a, b) for a in asked for b in bags if jaccard(a, b) >= NEAR}
    assert set(similarity._compared(asked, bags)) == expected
    assert set(similarity._compared_by_library(asked, bags)) == expected


@pytest.mark.parametrize("size", [4, 5, 10, 15, 35, 70, 200])
def test_pairs_exactly_at_the_limit_count(size: int) -> None:
    """4 of 5 words shared is 0.8, which floating point may miss on either side."""
    whole = frozenset(f"w{number}" for number in range(size))
    for part in (frozenset(sorted(whole)[: -(-4 * size // 5)]), frozenset(sorted(whole)[: (4 * size - 1) // 5])):
        expected = {(part, whole)} if jaccard(part, whole) >= NEAR else set()
        assert set(similarity._compared_by_library({part}, {whole: 0})) == expected
        assert set(similarity._compared({part}, {whole: 0})) == expected
        assert set(similarity._compared_by_library({whole}, {part: 0})) == {(b, a) for a, b in expected}


def test_blocks_and_characters_that_run_out_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {words(f"{text} now") for text in FAR[:40]}
    bags = {words(text): 0 for text in FAR}
    expected = set(similarity._compared_by_library(asked, bags))
    assert len(expected) >= 40
    monkeypatch.setattr(similarity, "CELLS", 300)
    monkeypatch.setattr(similarity, "_CHARACTERS", 5)
    assert set(similarity._compared_by_library(asked, bags)) == expected


def test_the_nearest_is_named_and_an_exact_one_is_not_near() -> None:
    trained = ["a b c d e f g h i j", "a b c d e f g h i j k", "x y"]
    found = shared(["A, b, c, d, e, f, g, h, i, j!", "a b c d e f g h i j k l", "q r s"], trained)
    assert found == Shared(exact=((0, 0),), near=(Near(prompt=1, question=1, shared=11 / 12),))


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """An own cache; calling it makes the library one that cannot be imported."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delitem(sys.modules, "rapidfuzz.process", raising=False)

    def remove() -> None:
        for name in ("rapidfuzz", "rapidfuzz.process", "rapidfuzz.distance"):
            monkeypatch.setitem(sys.modules, name, None)

    return remove


PROMPTS = [*FAR[:30], "Question number 77 asks about subject 539 and nothing at all else"]
FOUND = Shared(
    exact=tuple((number, number) for number in range(30)), near=(Near(prompt=30, question=77, shared=10 / 12),)
)


def test_a_large_comparison_is_kept(library: Callable[[], None], tmp_path: Path) -> None:
    assert len(PROMPTS) * len(FAR) > similarity.SMALL
    assert shared(PROMPTS, FAR) == FOUND
    (kept,) = (tmp_path / "cache/epc/overlap").iterdir()
    assert kept.suffix == ".json"
    library()
    assert shared(PROMPTS, FAR) == FOUND
    assert shared(PROMPTS[:2], FAR[:3]).exact == ((0, 0), (1, 1))  # a small one needs no library
    assert len(list(kept.parent.iterdir())) == 1


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"exact": [[0, 900]], "near": []}', '{"exact": [["0", 1]], "near": []}', '{"exact": [], "near": [], "more": 1}', "\xff"],
)  # fmt: skip
def test_a_kept_result_that_cannot_be_one_is_made_again(
    library: Callable[[], None], tmp_path: Path, content: str
) -> None:
    shared(PROMPTS, FAR)
    (kept,) = (tmp_path / "cache/epc/overlap").iterdir()
    kept.write_bytes(content.encode("latin-1"))
    assert shared(PROMPTS, FAR) == FOUND
    library()
    assert shared(PROMPTS, FAR) == FOUND


@pytest.mark.parametrize("place", ["file", "nowhere"])
def test_without_a_cache_folder_all_is_computed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str) -> None:
    if place == "file":
        (tmp_path / "cache").write_text("a file where the folder should be")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert shared(PROMPTS, FAR) == FOUND


def test_half_a_surrogate_pair_is_text_too(library: Callable[[], None]) -> None:
    assert shared([*PROMPTS, "\ud800 odd"], [*FAR, "odd \ud800"]).exact[-1] == (31, 200)
