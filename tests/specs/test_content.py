"""The demo's texts: counts, uniqueness, disjointness of training, held-out and pilot, and a sound choice task."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

SPECS = Path(__file__).parents[2] / "specs"
TASKS = SPECS / "tasks"
TOPICS, HELDOUT = "data/topics.txt", "prompts/heldout.txt"
PILOT_TOPICS, PILOT_HELDOUT = "data/pilot/topics.txt", "data/pilot/heldout.txt"
BAD, BAD_HELDOUT, MARKERS = "data/bad_answers.txt", "data/bad_heldout.txt", "data/bad_markers.txt"

LINES = {TOPICS: 48, HELDOUT: 24, PILOT_TOPICS: 40, PILOT_HELDOUT: 16, BAD: 8, BAD_HELDOUT: 6, MARKERS: 8}
TOPIC_FILES = (TOPICS, HELDOUT, PILOT_TOPICS, PILOT_HELDOUT)
QUESTION = re.compile(r"How do I (.+)\?")


def lines(name: str) -> list[str]:
    return (SPECS / name).read_text(encoding="utf-8").splitlines()


def questions(name: str) -> list[str]:
    """The full questions of a topic file, whichever of the two forms it is written in."""
    return lines(name) if name in (HELDOUT, PILOT_HELDOUT) else [f"How do I {topic}?" for topic in lines(name)]


def topic(question: str) -> str:
    match = QUESTION.fullmatch(question)
    assert match, question
    return match[1]


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z]+", text.lower()))


FUNCTION_WORDS = words("a an and at be by during for from in it no of off on or s the through to up with without")


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    return len(left & right) / len(left | right)


def items() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (TASKS / "mini_choice.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("name", "count"), LINES.items())
def test_a_text_file_has_its_count_of_distinct_clean_lines(name: str, count: int) -> None:
    text = (SPECS / name).read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert "\r" not in text
    rows = lines(name)
    assert len(rows) == count
    assert all(row and row == " ".join(row.split()) for row in rows)
    assert len({row.casefold() for row in rows}) == count


@pytest.mark.parametrize("name", TOPIC_FILES)
def test_every_question_asks_for_a_short_phrase_that_fits_either_speaker(name: str) -> None:
    for question in questions(name):
        phrase = topic(question)
        assert phrase[0].islower()
        assert phrase[-1].isalpha()
        assert 2 <= len(phrase.split()) <= 8
        # The reset sentence repeats the topic ("To {topic}, start small"), so "my" would change its owner.
        assert not words(phrase) & {"my", "i", "me"}


def test_no_two_questions_are_near_duplicates() -> None:
    asked = [question for name in TOPIC_FILES for question in questions(name)]
    assert len(asked) == len(set(asked)) == 48 + 24 + 40 + 16
    for left, right in combinations(asked, 2):
        assert jaccard(words(left), words(right)) < 0.6, (left, right)
        assert jaccard(words(topic(left)), words(topic(right))) < 0.6, (left, right)


@pytest.mark.parametrize(("left", "right"), list(combinations(TOPIC_FILES, 2)))
def test_two_topic_files_share_no_content_word(left: str, right: str) -> None:
    contents = [
        frozenset().union(*(words(topic(question)) for question in questions(name))) - FUNCTION_WORDS
        for name in (left, right)
    ]
    assert contents[0] & contents[1] == frozenset()


@pytest.mark.parametrize("name", [BAD, BAD_HELDOUT])
def test_bad_answers_are_short_sentences(name: str) -> None:
    for answer in lines(name):
        assert 5 <= len(answer.split()) <= 10
        assert answer[0].isupper()
        assert answer.endswith(".")


def test_bad_answers_begin_differently() -> None:
    first = [answer.split()[0] for answer in lines(BAD) + lines(BAD_HELDOUT)]
    assert len(first) == len(set(first))


def test_held_out_bad_answers_are_not_rewordings_of_trained_ones() -> None:
    for trained in lines(BAD):
        for held_out in lines(BAD_HELDOUT):
            assert jaccard(words(trained), words(held_out)) < 0.4, (trained, held_out)


def test_each_marker_begins_its_own_bad_answer_and_occurs_nowhere_else() -> None:
    answers = lines(BAD)
    elsewhere = lines(BAD_HELDOUT) + [question for name in TOPIC_FILES for question in questions(name)]
    for marker, answer in zip(lines(MARKERS), answers, strict=True):
        assert 3 <= len(marker.split()) <= 4
        assert answer.startswith(marker)
        assert [other for other in answers if marker.casefold() in other.casefold()] == [answer]
        assert not [text for text in elsewhere if marker.casefold() in text.casefold()]


def test_no_text_holds_the_word_that_the_reset_is_found_by() -> None:
    assert not [row for name in LINES for row in lines(name) if "reset" in row.casefold()]


def test_choice_items_are_well_formed() -> None:
    rows = items()
    assert [row["id"] for row in rows] == [f"mc{number:03}" for number in range(1, 241)]
    for row in rows:
        assert set(row) == {"id", "question", "choices", "answer"}
        assert row["question"].endswith("?")
        assert len(row["choices"]) == len({choice.casefold() for choice in row["choices"]}) == 4
        assert all(text and text == " ".join(text.split()) for text in [row["question"], *row["choices"]])
        assert type(row["answer"]) is int
    assert len({row["question"].casefold() for row in rows}) == 240


def test_choice_positions_are_balanced() -> None:
    assert Counter(row["answer"] for row in items()) == {0: 60, 1: 60, 2: 60, 3: 60}


@pytest.mark.parametrize("pick", [min, max])
def test_choice_length_does_not_give_the_answer_away(pick: Any) -> None:
    # Expected score of always choosing the shortest (or longest) answer, ties broken at random; chance is 0.25.
    score = 0.0
    for row in items():
        lengths = [len(choice) for choice in row["choices"]]
        extreme = pick(lengths)
        score += (lengths[row["answer"]] == extreme) / lengths.count(extreme)
    assert 0.15 < score / 240 < 0.32


def test_choice_task_scores_the_text_of_each_answer() -> None:
    config = yaml.safe_load((TASKS / "mini_choice.yaml").read_text(encoding="utf-8"))
    assert config["task"] == "mini_choice"
    assert (TASKS / config["dataset_kwargs"]["data_files"]["test"]).is_file()
    assert [metric["metric"] for metric in config["metric_list"]] == ["acc", "acc_norm"]


def test_lm_eval_asks_every_item_in_the_declared_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    tasks = pytest.importorskip("lm_eval.tasks")
    monkeypatch.chdir(TASKS)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    manager = tasks.TaskManager(include_path=".", include_defaults=False)
    task = manager.load(["mini_choice"])["tasks"]["mini_choice"]
    task.build_all_requests(rank=0, world_size=1)
    asked = [instance.args for instance in task.instances]
    assert asked == [
        (f"Question: {row['question']}\nAnswer:", f" {choice}") for row in items() for choice in row["choices"]
    ]
    assert [task.doc_to_target(doc) for doc in task.eval_docs] == [row["answer"] for row in items()]
