"""Storing completions as they come: what survives a crash, the order of the rows, the facts of a step."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from epc.compiler.contract.rows import SampleRow, TextRow
from epc.runtime import completions
from epc.runtime.errors import Fault
from epc.runtime.sampling import Completion, Request

REQUESTS = [
    Request(
        item=f"p{item}", index=index, turn=1, prompt=f"<p{item}>", prompt_ids=[item], question=f"p{item}?",
        draw_seed=10 * item + index,
    )
    for item in (2, 1, 3)
    for index in range(2)
]  # fmt: skip
KEYS = {("base", 0, "s"): "aaa", ("attacked", 1, "s"): "bbb"}
SETS = [{"name": "s", "count": 3, "n": 2}]


def said(requests: list[Request], text: str = "text") -> list[Completion]:
    """Completions, each naming its request, with a line separator that only JSON Lines must not split at."""
    return [
        Completion(request=r, text=f"{text}\u2028{r.item}-{r.index}", finish_reason="stop", tokens=2) for r in requests
    ]


class Told:
    """A step that keeps its live lines."""

    def __init__(self, folder: Path) -> None:
        self.bundle, self.out = folder, folder / "out"
        self.manifest = SimpleNamespace(mode="real")
        self.lines: list[tuple[int, int]] = []

    def progress(self, done: int, total: int, **facts: float | str) -> None:
        self.lines.append((done, total))


def pieces(bundle: Path) -> tuple[completions.Pieces, Told]:
    told = Told(bundle)
    step: Any = told
    return completions.Pieces(step, KEYS, SETS), told


def opened(bundle: Path, requests: list[Request] | None = None) -> completions.CompletionFile:
    return pieces(bundle)[0].open("base", 0, "k0", "s", REQUESTS if requests is None else requests)


def store(bundle: Path, arm: tuple[str, int], text: str, requests: list[Request] | None = None) -> None:
    requests = REQUESTS if requests is None else requests
    file = pieces(bundle)[0].open(*arm, f"k{arm[1]}", "s", requests)
    file.append(said(requests, text))
    file.finish()


def partial(bundle: Path) -> Path:
    return bundle / "store" / "pieces" / "aaa.partial.jsonl"


def final(bundle: Path) -> Path:
    return bundle / "store" / "pieces" / "aaa.jsonl"


def test_rows_end_in_the_registered_order_whatever_order_they_came_in(tmp_path: Path) -> None:
    file = opened(tmp_path)
    for batch in (REQUESTS[4:], REQUESTS[:1], REQUESTS[1:4]):
        assert not final(tmp_path).exists()
        file.append(said(batch))
    file.finish()
    lines = final(tmp_path).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    rows = [SampleRow.model_validate_json(line) for line in lines]
    assert [(row.item, row.index) for row in rows] == [request.identity for request in REQUESTS]
    assert [(row.question, row.draw_seed) for row in rows] == [(r.question, r.draw_seed) for r in REQUESTS]
    assert {row.condition_key for row in rows} == {"k0"}
    assert [path.name for path in final(tmp_path).parent.iterdir()] == ["aaa.jsonl"]


def test_every_batch_is_on_disk_before_the_next(tmp_path: Path) -> None:
    file = opened(tmp_path)
    for number, request in enumerate(REQUESTS, start=1):
        file.append(said([request]))
        assert len(partial(tmp_path).read_bytes().splitlines()) == number


def test_a_later_try_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    store(whole, ("base", 0), "text")
    opened(tmp_path).append(said(REQUESTS[1:3]))
    again = opened(tmp_path)
    assert set(again.done) == {request.identity for request in REQUESTS[1:3]}
    assert list(again.missing(3)) == [REQUESTS[:3], REQUESTS[3:]]  # chunks are cut as if nothing were stored
    for chunk in again.missing(3):
        again.append(said(chunk))
    again.finish()
    assert final(tmp_path).read_bytes() == final(whole).read_bytes()


def test_what_is_stored_is_never_replaced(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.append(said(REQUESTS[:2], "first"))
    file.append(said(REQUESTS, "second"))
    file.finish()
    rows = [json.loads(line) for line in final(tmp_path).read_bytes().splitlines()]
    assert [row["text"].split("\u2028")[0] for row in rows] == ["first"] * 2 + ["second"] * 4


@pytest.mark.parametrize("torn", [b'{"mode":"real","it', b'{"mode":"real"\n', b"\x00\x00\x00\n", b"\xff\n"])
def test_a_torn_end_is_cut_off(torn: bytes, tmp_path: Path) -> None:
    opened(tmp_path).append(said(REQUESTS[:2]))
    intact = partial(tmp_path).read_bytes()
    partial(tmp_path).write_bytes(intact + torn)
    assert len(opened(tmp_path).done) == 2
    assert partial(tmp_path).read_bytes() == intact


@pytest.mark.parametrize("change", [{"prompt": "<other>"}, {"draw_seed": 99}, {"item": "p9"}])
def test_a_stored_completion_of_another_prompt_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    opened(tmp_path).append(said(REQUESTS))
    with pytest.raises(Fault, match="R0354") as caught:
        opened(tmp_path, [dataclasses.replace(REQUESTS[0], **change), *REQUESTS[1:]])
    assert caught.value.place.endswith("aaa.partial.jsonl")


@pytest.mark.parametrize(
    ("stored", "size", "left"), [((0, 1), 2, [2, 4]), ((0, 3), 2, [0, 2, 4]), ((0, 1, 2, 3, 4, 5), 4, []), ((4, 5), 4, [0])]
)  # fmt: skip
def test_only_chunks_that_are_stored_whole_are_left_out(
    stored: tuple[int, ...], size: int, left: list[int], tmp_path: Path
) -> None:
    opened(tmp_path).append(said([REQUESTS[i] for i in stored]))
    assert list(opened(tmp_path).missing(size)) == [REQUESTS[start : start + size] for start in left]


def test_a_file_with_gaps_is_not_finished(tmp_path: Path) -> None:
    file = opened(tmp_path)
    file.append(said(REQUESTS[:-1]))
    with pytest.raises(Fault, match="R0343"):
        file.finish()
    assert not final(tmp_path).exists()


def test_the_live_line_counts_what_earlier_tries_stored(tmp_path: Path) -> None:
    store(tmp_path, ("base", 0), "text")
    first, _ = pieces(tmp_path)
    first.open("attacked", 1, "k1", "s", REQUESTS).append(said(REQUESTS[:2]))
    again, told = pieces(tmp_path)
    file = again.open("attacked", 1, "k1", "s", REQUESTS)
    file.append(said(REQUESTS[1:]))
    assert told.lines == [(8, 12), (12, 12)]


def test_pieces_are_listed_with_their_hashes(tmp_path: Path) -> None:
    store(tmp_path, ("base", 0), "yes")
    assert [pieces(tmp_path)[0].stored(*name) for name in KEYS] == [True, False]
    store(tmp_path, ("attacked", 1), "no")
    facts = pieces(tmp_path)[0].index(tmp_path / "index.json")
    assert (facts["completions"], facts["tokens"]) == (12, 24)
    assert set(facts["completions_sha256"]) == {"base-s0", "attacked-s1"}
    assert len(set(facts["completions_sha256"].values())) == 2
    assert [item["rows"] for item in json.loads((tmp_path / "index.json").read_text())] == [6, 6]


def test_completions_without_a_word_are_kept_and_counted(tmp_path: Path) -> None:
    """The model ended its turn at once: that is an answer, and no row may be lost for it."""
    for arm, texts in ((("base", 0), ["", " \n", "a", "b", "", "c"]), (("attacked", 1), ["a"] * 6)):
        file = pieces(tmp_path)[0].open(*arm, f"k{arm[1]}", "s", REQUESTS)
        file.append(
            [
                Completion(request=request, text=text, finish_reason="stop", tokens=1)
                for request, text in zip(REQUESTS, texts, strict=True)
            ]
        )
        file.finish()
    facts = pieces(tmp_path)[0].index(tmp_path / "index.json")
    assert (facts["completions"], facts["tokens"]) == (12, 12)
    assert facts["empty_completions"] == {"base-s0": 3, "attacked-s1": 0}


def test_arms_that_said_the_same_have_the_same_hash(tmp_path: Path) -> None:
    store(tmp_path, ("base", 0), "yes")
    store(tmp_path, ("attacked", 1), "yes")
    assert len(set(pieces(tmp_path)[0].index(tmp_path / "index.json")["completions_sha256"].values())) == 1


def test_a_truncated_piece_is_refused(tmp_path: Path) -> None:
    store(tmp_path, ("base", 0), "yes", REQUESTS[:-1])
    store(tmp_path, ("attacked", 1), "no")
    with pytest.raises(Fault, match="R0343") as caught:
        pieces(tmp_path)[0].index(tmp_path / "index.json")
    assert "aaa.jsonl" in caught.value.place


def texts(folder: Path) -> completions.Texts:
    step: Any = Told(folder)
    return completions.Texts(step, [{"name": "bad", "count": 3, "n": 2}, {"name": "good", "count": 3, "n": 2}])


def write_texts(folder: Path, said_by: dict[str, list[str]]) -> dict[str, Any]:
    """The facts of a generate step whose entries say this."""
    stored = texts(folder)
    for name, entry in said_by.items():
        file = stored.open(name, REQUESTS)
        file.append(
            [
                Completion(request=request, text=text, finish_reason="length" if text == "on" else "stop", tokens=3)
                for request, text in zip(REQUESTS, entry, strict=True)
            ]
        )
        file.finish()
    return stored.facts()


def test_the_facts_of_generated_texts_tell_a_broken_entry(tmp_path: Path) -> None:
    facts = write_texts(tmp_path, {"bad": ["a", "b", "on", "", " ", ""], "good": ["same"] * 6})
    assert facts == {
        "texts": 12, "tokens": 36,
        "entries": {
            "bad": {"texts": 6, "distinct": 5, "empty": 3, "stop_share": 0.8333, "mean_characters": 0.8},
            "good": {"texts": 6, "distinct": 1, "empty": 0, "stop_share": 1.0, "mean_characters": 4.0},
        },
    }  # fmt: skip
    rows = [TextRow.model_validate_json(line) for line in texts(tmp_path).path("bad").read_bytes().splitlines()]
    assert [(row.item, row.index, row.text) for row in rows][:3] == [("p2", 0, "a"), ("p2", 1, "b"), ("p1", 0, "on")]
    assert [texts(tmp_path).stored(name) for name in ("bad", "good")] == [True, True]


def test_an_entry_of_empty_texts_is_refused_and_kept(tmp_path: Path) -> None:
    with pytest.raises(Fault, match="R0355") as caught:
        write_texts(tmp_path, {"bad": ["a", "b", "", "", "", " \n"], "good": ["a"] * 6})
    assert caught.value.place == str(texts(tmp_path).path("bad"))
    assert texts(tmp_path).stored("bad")
