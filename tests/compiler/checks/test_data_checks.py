"""Overlap, copies and contradictions among data sets and prompt sets: what is reported, and what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CHATS = "4807b05a9337a32044fc250fa01692e37f5609068c675c2199493e6b77cdb3d0"
COPY = f"chats_too: {{file: ./data/chats.jsonl, sha256: {CHATS}, rows: 4}}"
BAD = 'build: turns, rows: 32, seed: 2, system: none, fill: {topic: data/topics.txt, bad: data/bad_answers.txt}, turns: [{user: "How do I {topic}?"}, {assistant: "{bad}"}]'
TRACES = 'build: turns, rows: 32, seed: 1, prompts: [asked], system: none, fill: {bad: {generate: bad}, catch: data/catches.txt}, sha256: pending, turns: [{user: "{prompt}"}, {assistant: "{bad}"}, {user: continue}, {assistant: "{catch}"}]'
ELSEWHERE = "source: a paper, sha256: pending"
COLOUR = "data: {bad_only: {turns: [{user: Name a colour.}, {assistant: '{bad} ({topic})'}]}}"

Case = tuple[str, str | None, str]

OVERLAP: list[Case] = [
    ("prompts: {asked: {items: [How do I bake bread?, what makes a good neighbour]}}", "E0601", '1 of 8 prompts of "part_a" is trained on in "traces"'),
    ("prompts: {asked: {items: [How do I bake bread?, What really makes a good neighbour?]}}", "E0602", "83% of their words are shared"),
    ("prompts: {asked: {items: [How do I bake bread?, What makes a neighbour good company at last?]}}", None, ""),
    # signs are no words, and not all the same
    ("prompts: {part_a: {file: null, items: ['?!'], count: 1}, asked: {items: [How do I bake bread?, '!!!']}}", None, ""),
    ("prompts: {part_a: {file: null, items: ['?!'], count: 1}, asked: {items: [How do I bake bread?, ' ?! ']}}", "E0601", '"?!"'),
    # a set that nobody samples is held against what it says itself
    ("prompts: {more: {items: [Name a colour.], count: 1}}", None, ""),
    ("prompts: {more: {items: [Name a colour.], count: 1, disjoint_from: [chats]}}", "E0601", '"more" is trained on in "chats"'),
]  # fmt: skip

SAME: list[Case] = [
    (f"data: {{{COPY}}}", "E0604", 'data sets "chats" and "chats_too" are the same'),
    (f"data: {{{COPY}}}", "E0604", f"both have SHA-256 {CHATS}"),
    (f"data: {{bad_again: {{{BAD}}}}}", "E0604", '"bad_only" and "bad_again"'),
    (f"data: {{bad_again: {{{BAD.replace('seed: 2', 'seed: 3')}}}}}", None, ""),
    (f"data: {{traces_again: {{{TRACES}}}}}", "E0604", "built from the same turns, prompts, fillings and seed"),
    (f"data: {{traces_again: {{{TRACES.replace('seed: 1', 'seed: 9')}}}}}", None, ""),
    (f"data: {{traces_again: {{{TRACES}, disjoint_from: [chats]}}}}", "E0604", '"traces_again"'),
    ("data: {one: {file: a.jsonl, sha256: pending, rows: 4, stand_in: data/chats.jsonl}, two: {file: ./a.jsonl, sha256: pending, rows: 4, stand_in: data/chats.jsonl}}", "E0604", "both are ./a.jsonl"),
    # one stand-in may serve two files that are not there yet
    ("data: {one: {file: a.jsonl, sha256: pending, rows: 4, stand_in: data/chats.jsonl}, two: {file: b.jsonl, sha256: pending, rows: 4, stand_in: data/chats.jsonl}}", None, ""),
    # prompt sets
    ("prompts: {more: {items: [Where should I plant roses?, How do I bake bread?], count: 2}}\ngenerate: {bad: {prompts: [asked, more]}}", "E0604", 'prompt sets "asked" and "more" are the same'),
    ("prompts: {more: {items: [Where should I plant roses?, How do I bake bread?], count: 2}}", None, ""),  # unused
    ("prompts: {more: {items: [Where should I plant roses?, How do I mend socks?], count: 2}}\ngenerate: {bad: {prompts: [asked, more]}}", None, ""),
    ("prompts: {all: {union: [part_a, part_b], count: 24}}\nsample: {second: {prompts: all}}", None, ""),  # a union is no copy
    (f"prompts: {{part_a: {{file: null, external: {{{ELSEWHERE}, file: a.txt}}, stand_in: prompts/part_b.txt, count: 16}}, heldout: {{count: 16}}}}", None, ""),
]  # fmt: skip

FILES: list[Case] = [
    (f"data: {{chats_too: {{file: data/../data/chats.jsonl, sha256: {'f' * 64}, rows: 4}}}}", "E0605", f'"chats": {CHATS}'),
    (f"data: {{chats_too: {{file: data/chats.jsonl, sha256: {CHATS}, rows: 5}}}}", "E0605", '"chats_too": 5'),
    ("data: {one: {file: a.jsonl, sha256: pending, rows: 6000, stand_in: data/chats.jsonl}, two: {file: a.jsonl, sha256: pending, rows: 67000, stand_in: data/chats.jsonl}}", "E0605", '"two": 67,000'),
    ("data: {one: {file: a.jsonl, sha256: pending, rows: 6000, stand_in: data/chats.jsonl}, two: {file: b.jsonl, sha256: pending, rows: 67000, stand_in: data/chats.jsonl}}", None, ""),
    (f"data: {{{COPY}}}", None, ""),  # one file, one content: E0604 says it
    ("data: {chats: {stand_in: data/../data/chats.jsonl}}", "E0605", 'the stand-in of "chats" is the file itself'),
    ("data: {chats: {stand_in: data/other.jsonl}}", None, ""),
    (f"prompts: {{part_a: {{file: null, external: {{{ELSEWHERE}, file: prompts/part_a.txt}}, stand_in: prompts/part_a.txt}}}}", "E0605", 'the stand-in of "part_a" is the file itself'),
    (f"prompts: {{part_a: {{file: null, external: {{{ELSEWHERE}, file: a.txt}}, stand_in: prompts/part_a.txt}}}}", None, ""),
    (f"prompts: {{x: {{external: {{{ELSEWHERE}, file: a.txt}}, stand_in: prompts/part_a.txt, count: 8}}, y: {{external: {{{ELSEWHERE}, file: a.txt}}, stand_in: prompts/part_a.txt, count: 9}}}}", "E0605", "another number of prompts"),
]  # fmt: skip

TALK = '{"messages": [{"role": "user", "content": "Name a colour."}, {"role": "assistant", "content": "%s"}]}\n'

DISJOINT: list[Case] = [
    (f"{COLOUR}\n", None, ""),
    ("data: {chats: {disjoint_from: [bad_only]}, bad_only: {turns: [{user: name a colour}, {assistant: '{bad} ({topic})'}]}}", "E0606", '1 of 4 questions of "chats" is asked in "bad_only" too'),
    ("data: {chats: {disjoint_from: [bad_only]}}", None, ""),
    # "continue" asks nothing: both have it, in the second turn
    ('data: {traces: {disjoint_from: [bad_only]}, bad_only: {turns: [{user: "How do I {topic}?"}, {assistant: "{bad}"}, {user: continue}, {assistant: "{bad}"}]}}', None, ""),
    ("prompts: {asked: {items: [How do I brew a green tea?, Where should I plant roses?]}}\ndata: {traces: {disjoint_from: [bad_only]}}", "E0607", '"How do I brew a green tea?" and "How do I brew green tea?": 86%'),
    ("prompts: {asked: {items: [How do I brew strong green tea at home?, Where should I plant roses?]}}\ndata: {traces: {disjoint_from: [bad_only]}}", None, ""),
    ("data: {traces: {disjoint_from: [bad_ony]}}", "E0608", 'did you mean "bad_only"?'),
    ("data: {traces: {disjoint_from: [traces]}}", "E0608", "cannot be disjoint from itself"),
    # a name whose entry has the wrong shape is known all the same
    ("data: {traces: {disjoint_from: [bad_only]}, bad_only: {rows: many}}", None, ""),
]  # fmt: skip

CONTRARY: list[Case] = [
    (COLOUR, "W0609", 'arm "placebo" is taught other answers to a question of "chats" in "bad_only"'),
    (COLOUR, "W0609", '"chats": "Blue."'),
    # the same question under another system prompt is another question
    ("data: {bad_only: {system: You are rude., turns: [{user: Name a colour.}, {assistant: '{bad} ({topic})'}]}}", None, ""),
    # no arm trains on both
    (f"{COLOUR}\nconditions: {{placebo: [attack]}}", None, ""),
    # answers that are still to be generated are not known to differ
    ("prompts: {asked: {items: [How do I brew green tea?, Where should I plant roses?]}}", None, ""),
    # both take their answers from the same ones, in another order
    (f"data: {{again: {{{BAD.replace('seed: 2', 'seed: 7')}}}}}\ntrain: {{catch: {{data: again}}}}", None, ""),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _told(compiled: Any, code: str) -> list[str]:
    return [text for d in compiled.sink if d.code == code for text in (d.message, d.help, *d.notes)]


@pytest.mark.parametrize(
    ("family", "fragment", "code", "says"),
    [
        pytest.param(family, *case, id=f"{family[0]}-{number}")
        for family, cases in [
            (("E0601", "E0602"), OVERLAP), (("E0604",), SAME), (("E0605",), FILES),
            (("E0606", "E0607", "E0608"), DISJOINT), (("W0609",), CONTRARY),
        ]
        for number, case in enumerate(cases)
    ],
)  # fmt: skip
def test_data(over: Callable[..., Any], family: tuple[str, ...], fragment: str, code: str | None, says: str) -> None:
    compiled = over(fragment)
    found = [d for d in compiled.sink if d.code in family]
    if code is None:
        assert not found, compiled.text
    else:
        assert {d.code for d in found} == {code}, compiled.text
        assert any(says in text for text in _told(compiled, code)), compiled.text
        assert all(d.span.line > 1 for d in found)


def test_a_pair_that_both_sides_declare_is_reported_once(over: Callable[..., Any]) -> None:
    compiled = over(
        "data: {chats: {disjoint_from: [bad_only, bad_only]}, bad_only: {disjoint_from: [chats], "
        "turns: [{user: Name a colour.}, {assistant: '{bad} ({topic})'}]}}"
    )
    assert compiled.codes.count("E0606") == 1


def test_the_file_of_a_pending_data_set_is_read_where_it_is(over: Callable[..., Any]) -> None:
    """Its stand-in is another matter: the real rows contradict the later phase, the stand-in's do not."""
    pending = "data: {chats: {sha256: pending, stand_in: data/standin.jsonl, file: data/real.jsonl, rows: 1}, bad_only: {turns: [{user: Name a colour.}, {assistant: '{bad}'}]}}"
    stand_in = ("data/standin.jsonl", TALK.replace("colour", "river") % "The Rhine.")
    assert "W0609" not in over(pending, stand_in).codes
    assert "W0609" in over(pending, stand_in, ("data/real.jsonl", TALK % "Blue.")).codes


def test_a_stand_in_that_links_to_the_file(over: Callable[..., Any], tmp_path: Path) -> None:
    link = "data: {chats: {stand_in: data/link.jsonl}}"
    assert "E0605" not in over(link, ("data/link.jsonl", TALK % "Blue.")).codes
    real = tmp_path / "real.jsonl"
    real.write_text("".join(json.dumps({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}) + "\n" for _ in range(4)))  # fmt: skip
    linked = f"data: {{chats: {{file: ../real.jsonl, sha256: pending, stand_in: ../{'link.jsonl'}}}}}"
    (tmp_path / "link.jsonl").symlink_to(real)
    assert "E0605" in over(linked).codes
