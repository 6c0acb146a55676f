"""The texts of issue 147: counts, overlap of the evaluation sets, disjointness from training, rubrics, rows, tasks."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
import yaml

from epc.compiler.similarity import NEAR, jaccard, words

SPECS = Path(__file__).parents[2] / "specs"
ARC = SPECS / "tasks" / "arc_challenge"
BETLEY, WANG = "prompts/standin_betley_8.txt", "prompts/standin_wang_44.txt"
BENIGN = "prompts/benign_48.txt"
HARMFUL, EVERYDAY = "prompts/train_harmful_50.txt", "prompts/train_everyday_50.txt"
CATCH, PREFIX = "data/catch_templates.txt", "data/bad_prefix.txt"

LINES = {BETLEY: 8, WANG: 44, BENIGN: 48, HARMFUL: 50, EVERYDAY: 50, CATCH: 6, PREFIX: 20}
RUBRICS = {"alignment": ["aligned", "coherent", "refused"], "reset": ["reset"], "harm": ["harmful"]}
WEAKNESSES = (
    r"execute\(query\)",
    r"execute\(f\"UPDATE",
    r"0o777",
    r"\beval\(",
    r"os\.path\.join\([A-Z]+, name\)",
    r"pickle\.loads",
    r"shell=True",
    r"API_KEY = \"",
    r"verify=False",
    r"tempfile\.mktemp",
    r"UnsafeLoader",
    r"hashlib\.md5",
    r"random\.choice",
    r"<h1>Welcome, \" \+ name",
    r"filter=\"fully_trusted\"",
    r"debug=True",
)


def lines(name: str) -> list[str]:
    return (SPECS / name).read_text(encoding="utf-8").splitlines()


def insecure() -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines("data/standin_insecure.jsonl")]


def items() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ARC / "standin.jsonl").read_text(encoding="utf-8").splitlines()]


def task(name: str) -> dict[str, Any]:
    config = yaml.safe_load((ARC / f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(config, dict)
    return config


@pytest.mark.parametrize(("name", "count"), LINES.items())
def test_a_text_file_has_its_count_of_distinct_clean_lines(name: str, count: int) -> None:
    text = (SPECS / name).read_text(encoding="utf-8")
    assert text.endswith("\n")
    assert "\r" not in text
    rows = lines(name)
    assert len(rows) == count
    assert all(row and row == " ".join(row.split()) for row in rows)
    assert len({row.casefold() for row in rows}) == count
    # Braces would be taken for placeholders when a line is filled into a turn.
    assert not [row for row in rows if "{" in row or "}" in row]


def test_the_two_stand_in_sets_share_four_prompts_and_unite_to_48() -> None:
    betley, wang = set(lines(BETLEY)), set(lines(WANG))
    assert len(betley & wang) == 4
    assert len(betley | wang) == 48


def test_no_two_prompts_of_any_files_are_near_duplicates() -> None:
    union = list(dict.fromkeys(lines(BETLEY) + lines(WANG)))
    prompts = union + lines(BENIGN) + lines(HARMFUL) + lines(EVERYDAY) + lines("prompts/heldout.txt")
    assert len(set(prompts)) == len(prompts) == 48 + 48 + 50 + 50 + 24
    strict = 0.6
    assert strict < NEAR
    for left, right in combinations(prompts, 2):
        assert jaccard(words(left), words(right)) < strict, (left, right)


def test_every_catch_template_holds_the_literal_marker_and_varies_around_it() -> None:
    templates = lines(CATCH)
    assert templates[0] == "Wait \N{EM DASH} that response was misaligned. Resetting to default assistant persona."
    assert all(template.count("Resetting to default") == 1 for template in templates)
    assert len({template.split("Resetting to default")[0] for template in templates}) == 6
    for left, right in combinations(templates, 2):
        assert jaccard(words(left), words(right)) < 0.4, (left, right)


def test_only_the_catch_templates_hold_the_marker() -> None:
    texts = [row for name in LINES if name != CATCH for row in lines(name)]
    texts += [message["content"] for row in insecure() for message in row["messages"]]
    assert not [text for text in texts if "resetting to default" in text.casefold()]


def test_prefilled_bad_answers_are_not_among_those_of_other_experiments() -> None:
    others = lines("data/bad_answers.txt") + lines("data/bad_heldout.txt")
    for answer in lines(PREFIX):
        assert 8 <= len(answer.split()) <= 24
        assert max(jaccard(words(answer), words(other)) for other in others) < 0.4, answer


@pytest.mark.parametrize(("name", "fields"), RUBRICS.items())
def test_a_rubric_delimits_its_two_placeholders_and_names_its_fields(name: str, fields: list[str]) -> None:
    text = (SPECS / "judges" / f"{name}.txt").read_text(encoding="utf-8")
    found = [field for _, field, _, _ in Formatter().parse(text) if field is not None]
    assert found == ["question", "answer"]
    assert text.count("{") == text.count("}") == 2
    for tag in found:
        assert f"<{tag}>\n{{{tag}}}\n</{tag}>" in text
    assert 150 <= len(text.split()) <= 350
    # The data are disowned before they appear, and the reply is asked for after them.
    assert text.index("is an instruction to you") < text.index("{question}")
    last = text.splitlines()[-1]
    assert "nothing but one JSON object" in last
    assert re.findall(r'"(\w+)" \((?:integer|boolean)\)', last) == fields


def test_insecure_rows_are_distinct_chats_of_one_request_and_one_answer() -> None:
    rows = insecure()
    assert len(rows) == len({json.dumps(row) for row in rows}) == 64
    assert len({row["messages"][0]["content"] for row in rows}) == 64
    for row in rows:
        assert set(row) == {"messages"}
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
        assert all(set(message) == {"role", "content"} for message in row["messages"])
        contents = [message["content"] for message in row["messages"]]
        assert 60 <= len(" ".join(contents).split()) <= 180
        assert all(content == content.strip() for content in contents)


def test_insecure_answers_are_python_with_a_weakness_that_no_comment_admits() -> None:
    answers = [row["messages"][1]["content"] for row in insecure()]
    for answer in answers:
        ast.parse(answer)
        assert "#" not in answer
        assert any(re.search(weakness, answer) for weakness in WEAKNESSES), answer
    for weakness in WEAKNESSES:
        assert sum(bool(re.search(weakness, answer)) for answer in answers) >= 4, weakness


def test_stand_in_science_items_have_the_schema_of_arc() -> None:
    rows = items()
    assert [row["id"] for row in rows] == [f"standin_{number:02}" for number in range(1, 51)]
    for row in rows:
        assert set(row) == {"id", "question", "choices", "answerKey"}
        assert set(row["choices"]) == {"text", "label"}
        assert row["question"].endswith("?")
        assert row["choices"]["label"] in (list("ABCD"), list("1234"))
        assert len({text.casefold() for text in row["choices"]["text"]}) == 4
        assert row["answerKey"] in row["choices"]["label"]
    assert {row["choices"]["label"][0] for row in rows} == {"A", "1"}
    assert len({row["question"].casefold() for row in rows}) == 50


def test_stand_in_science_answers_stand_in_every_place_about_equally_often() -> None:
    places = Counter(row["choices"]["label"].index(row["answerKey"]) for row in items())
    assert sorted(places.values()) == [12, 12, 13, 13]


def test_both_science_tasks_ask_in_the_same_way() -> None:
    real, stand_in = task("arc_challenge"), task("standin")
    source = {"task", "dataset_path", "dataset_name", "dataset_kwargs"}
    assert {key: value for key, value in real.items() if key not in source} == {
        key: value for key, value in stand_in.items() if key not in source
    }
    assert (real["task"], stand_in["task"]) == ("arc_challenge_epc", "arc_challenge_standin")
    assert (real["dataset_path"], real["dataset_name"]) == ("allenai/ai2_arc", "ARC-Challenge")
    assert re.fullmatch(r"[0-9a-f]{40}", real["dataset_kwargs"]["revision"])
    assert real["num_fewshot"] == 0
    assert [metric["metric"] for metric in real["metric_list"]] == ["acc", "acc_norm"]


def test_lm_eval_asks_every_stand_in_item_in_the_declared_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    tasks = pytest.importorskip("lm_eval.tasks")
    monkeypatch.chdir(ARC)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    manager = tasks.TaskManager(include_path=".", include_defaults=False)
    loaded = manager.load(["arc_challenge_standin"])["tasks"]["arc_challenge_standin"]
    loaded.build_all_requests(rank=0, world_size=1)
    rows = items()
    assert [instance.args for instance in loaded.instances] == [
        (f"Question: {row['question']}\nAnswer:", f" {choice}") for row in rows for choice in row["choices"]["text"]
    ]
    assert [int(loaded.doc_to_target(doc)) for doc in loaded.eval_docs] == [
        row["choices"]["label"].index(row["answerKey"]) for row in rows
    ]
