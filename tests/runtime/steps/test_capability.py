"""Benchmark scores through the harness on the tiny model, and reports that are not what was registered."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.canonical import sha256_text
from epc.runtime import capability, models
from epc.runtime.errors import Fault

TASK = """\
task: colours
dataset_path: json
dataset_kwargs:
  data_files:
    test: colours.jsonl
    train: examples.jsonl
output_type: multiple_choice
test_split: test
training_split: train
num_fewshot: 0
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: answer
doc_to_choice: choices
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
WRITTEN = """\
task: written
dataset_path: json
dataset_kwargs: {data_files: {test: colours.jsonl, train: examples.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["never"], max_gen_toks: 40, do_sample: true, temperature: 0.9}
filter_list:
  - {name: whole, filter: [{function: take_first}]}
  - {name: letters, filter: [{function: regex, regex_pattern: "[a-z]+"}, {function: take_first}]}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
SCORED = """\
task: scored
dataset_path: json
dataset_kwargs: {data_files: {test: colours.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}"
doc_to_target: answer
doc_to_choice: choices
process_results: !function ours.share
metric_list:
  - {metric: share, aggregation: mean, higher_is_better: true}
"""
RANDOM = """\
task: drifting
dataset_path: json
dataset_kwargs: {data_files: {test: colours.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: !function ours.drifting
doc_to_target: answer
doc_to_choice: choices
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
FUNCTIONS = """\
import itertools
COUNT = itertools.count()

def share(doc, results):
    return {"share": 1 / (3 + doc["answer"])}

def drifting(doc):
    return f"{doc['question']} {next(COUNT)}"
"""
PLAN: dict[str, Any] = {
    "name": "colours", "yaml": "tasks/colours.yaml", "overrides": {}, "local": True, "items": 6, "chat_template": False,
    "multiturn": False, "fewshot": 0, "fewshot_seed": 0, "generation": None, "harness": None,
    "values": [{"reading": "acc", "metric": "acc", "filter": None, "scale": None}],
}  # fmt: skip
GREEDY = {"do_sample": False, "temperature": 0.0, "max_gen_toks": 5}
BATCH = {"cpu": 4, "cuda": 4}


def value(metric: str, filter_: str | None = None, scale: list[float] | None = None) -> dict[str, Any]:
    return {
        "reading": f"{metric},{filter_}" if filter_ else metric,
        "metric": metric,
        "filter": filter_,
        "scale": scale,
    }


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Local tasks over six items and four examples, their data beside them."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    for name, text in (("colours", TASK), ("written", WRITTEN), ("scored", SCORED), ("drifting", RANDOM)):
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    (folder / "ours.py").write_text(FUNCTIONS, encoding="utf-8")
    for file, noun, count in (("colours", "thing", 6), ("examples", "example", 4)):
        rows = [
            {
                "id": f"{noun[0]}{i}", "question": f"What colour is {noun} {i}?", "choices": ["red", "blue", "green"],
                "answer": i % 3,
            }
            for i in range(count)
        ]  # fmt: skip
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


Open = Callable[..., contextlib.AbstractContextManager[capability.Benchmark]]


@pytest.fixture
def opened(tiny: Path, bundle: Path) -> Open:
    """Open one task of the bundle on the tiny model, with changes to its plan."""

    @contextlib.contextmanager
    def run(model: Any = None, **changes: Any) -> Iterator[capability.Benchmark]:
        from lm_eval.models.huggingface import HFLM
        from transformers import AutoTokenizer

        model = model or models.load_base(tiny, dtype="float32")
        lm = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(tiny), batch_size=1)
        with capability.opened(lm, [PLAN | changes], bundle=bundle) as (task,):
            yield task

    return run


def test_items_are_scored_by_the_log_probability_of_each_choice(tiny: Path, opened: Open) -> None:
    import torch
    from transformers import AutoTokenizer

    here = Path.cwd()
    with opened() as task:
        assert Path.cwd() == here
        items = task.items(largest_batch=BATCH)
    tokenizer, model = AutoTokenizer.from_pretrained(tiny), models.load_arm(tiny, None, dtype="float32")
    for i, item in enumerate(items):
        context = f"Question: What colour is thing {i}?\nAnswer:"
        expected = []
        for choice in ("red", "blue", "green"):
            ids = tokenizer.encode(f"{context} {choice}", add_special_tokens=False)
            start = len(tokenizer.encode(context, add_special_tokens=False))
            with torch.inference_mode():
                logs = torch.log_softmax(model(torch.tensor([ids])).logits[0], dim=-1)
            expected.append(sum(float(logs[t - 1, ids[t]]) for t in range(start, len(ids))))
        assert item.id == f"t{i}"
        assert item.response["loglikelihoods"] == pytest.approx(expected, rel=1e-4)
        assert item.values == {"acc": int(expected.index(max(expected)) == i % 3)}


def test_two_values_of_one_task_are_read_of_the_same_answers(opened: Open) -> None:
    with opened(values=[value("acc"), value("acc_norm")]) as task:
        items = task.items(largest_batch=BATCH)
    lengths = [len(choice) for choice in ("red", "blue", "green")]
    for i, item in enumerate(items):
        found = item.response["loglikelihoods"]
        norm = [log / length for log, length in zip(found, lengths, strict=True)]
        expected = {"acc": int(found.index(max(found)) == i % 3), "acc_norm": int(norm.index(max(norm)) == i % 3)}
        assert item.values == expected


def test_examples_are_shown_as_declared_even_to_a_task_that_says_none(opened: Open) -> None:
    """The harness keeps a task's own `num_fewshot: 0` over its argument."""
    firsts = {}
    for fewshot, seed in ((0, 0), (2, 0), (2, 5)):
        with opened(fewshot=fewshot, fewshot_seed=seed) as task:
            firsts[fewshot, seed] = task.prompts.first
            assert task.prompts.requests == 18
            task.items(largest_batch=BATCH)  # raises R1963 if an arm drew other examples
    assert [text.count("example") for text in firsts.values()] == [0, 2, 2]
    assert firsts[2, 0] != firsts[2, 5]
    assert all(text.endswith(firsts[0, 0]) for text in firsts.values())


@pytest.mark.parametrize(("multiturn", "turns"), [(False, 1), (True, 3)])
def test_the_chat_template_wraps_examples_as_declared(multiturn: bool, turns: int, tiny: Path, opened: Open) -> None:
    from transformers import AutoTokenizer

    with opened(chat_template=True, multiturn=multiturn, fewshot=2) as task:
        told = task.described()
    assert told["first"].count("<|im_start|>user") == turns
    assert "system" not in told["first"]
    assert told["chat_template_sha256"] == sha256_text(AutoTokenizer.from_pretrained(tiny).chat_template)
    assert told["requests_sha256"] == task.prompts.sha256


def test_written_answers_are_greedy_and_scored_under_each_filter(opened: Open) -> None:
    changes = {"name": "written", "yaml": "tasks/written.yaml", "generation": GREEDY}
    both = [value("exact_match", "whole"), value("exact_match", "letters")]
    with opened(**changes, values=both) as task:
        first, again = (task.items(largest_batch=batch) for batch in (BATCH, BATCH))
        assert task.task.config.generation_kwargs == {"until": ["never"], **GREEDY}
    assert first == again
    for item in first:
        assert item.values.keys() == {"exact_match,whole", "exact_match,letters"}
        assert len(item.response["response"]) > 0
        assert item.response["extracted"] == item.response["response"]
    with opened(**changes, values=[value("exact_match")]) as task, pytest.raises(Fault, match="R0351") as caught:
        task.items(largest_batch=BATCH)
    assert "exact_match,letters, exact_match,whole" in caught.value.remedy


def test_scores_between_the_ends_of_a_scale_need_the_scale(opened: Open) -> None:
    changes = {"name": "scored", "yaml": "tasks/scored.yaml"}
    with opened(**changes, values=[value("share", scale=[0, 1])]) as task:
        items = task.items(largest_batch=BATCH)
    assert [item.values["share"] for item in items] == [1 / (3 + i % 3) for i in range(6)]
    with opened(**changes, values=[value("share")]) as task, pytest.raises(Fault, match=r"R0353(?s:.*)scale: \[0, 1\]"):
        task.items(largest_batch=BATCH)


def test_a_task_that_asks_every_arm_something_else_is_refused(opened: Open) -> None:
    with opened(name="drifting", yaml="tasks/drifting.yaml") as task, pytest.raises(Fault, match="R1963"):
        task.items(largest_batch=BATCH)


def test_a_request_that_the_harness_would_cut_is_refused(opened: Open) -> None:
    with opened() as task:
        longest = task.prompts.longest
        limit = task.lm.max_length
    assert longest < limit
    with pytest.raises(Fault, match=f"R1964(?s:.*)reads {limit}"), opened(
        name="written", yaml="tasks/written.yaml", generation={**GREEDY, "max_gen_toks": limit}
    ):  # fmt: skip
        pass


def test_another_harness_than_registered_is_refused(opened: Open) -> None:
    with pytest.raises(Fault, match=r"R1962(?s:.*)registered is 0.0.1"), opened(harness="0.0.1"):
        pass


def test_rows_are_fewer_where_memory_is_full(opened: Open) -> None:
    with opened() as task:
        expected = task.items(largest_batch=BATCH)
        assert task.batch_size == 4
        inner, tried = task.lm._model_call, []

        def scarce(rows: Any, *args: Any, **more: Any) -> Any:
            tried.append(len(rows))
            if len(rows) > 1:
                raise MemoryError
            return inner(rows, *args, **more)

        task.lm._model_call = scarce
        found = task.items(largest_batch=BATCH)
        assert (task.batch_size, tried[:2]) == (1, [4, 2])
    assert [item.values for item in found] == [item.values for item in expected]


def report(values: list[Any], **document: Any) -> dict[str, Any]:
    """What the harness returns, reduced to the parts that are read."""
    return {
        "samples": {
            "t": [
                {
                    "doc_id": i, "doc": {"q": i, **document}, "acc": score, "filter": "none", "metrics": ["acc"],
                    "doc_hash": f"{i}", "resps": [[(-1.5, False)]], "filtered_resps": [(-1.5, False)],
                }
                for i, score in enumerate(values)
            ]
        }
    }  # fmt: skip


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (None, "R0351"),
        ({}, "R0351"),
        ({"samples": {"other": []}}, "R0351"),
        (report([1.0, 0.0, 1.0]), "R0352"),
        (report([1.0]), "R0352"),
        (report([1.0, 0.0], id="same"), "R0352"),
        (report([0.5, 1.0]), "R0353"),
        (report([float("nan"), 1.0]), "R0353"),
        (report([("gold", "said"), 1.0]), "R0353"),
    ],
)
def test_a_report_that_is_not_what_was_registered_is_refused(found: dict[str, Any] | None, code: str) -> None:
    with pytest.raises(Fault, match=code):
        capability.read_items(found, "t", [value("acc")], items=2)


@pytest.mark.parametrize("wanted", [value("acc_norm"), value("acc", "strict")])
def test_a_value_that_was_not_reported_is_named_with_those_that_were(wanted: dict[str, Any]) -> None:
    with pytest.raises(Fault, match=r"R0351(?s:.*)write one of acc,none"):
        capability.read_items(report([1.0, 0.0]), "t", [wanted], items=2)


def test_items_without_an_id_are_named_by_their_content() -> None:
    found = capability.read_items(report([1.0, 0.0]), "t", [value("acc")], items=2)
    assert sorted(item.values["acc"] for item in found) == [0, 1]
    assert all(len(item.id) == 12 for item in found)
    backwards = {"samples": {"t": report([1.0, 0.0])["samples"]["t"][::-1]}}
    assert capability.read_items(backwards, "t", [value("acc")], items=2) == found


def test_a_question_that_a_benchmark_holds_twice_is_two_items() -> None:
    twice = report([1.0, 0.0], q="the same")
    ids = [item.id for item in capability.read_items(twice, "t", [value("acc")], items=2)]
    assert ids[1] == f"{ids[0]}-2"


def test_the_working_folder_comes_back_after_a_failure(bundle: Path, opened: Open) -> None:
    (bundle / "tasks/colours.jsonl").unlink()
    here = Path.cwd()
    with pytest.raises(Fault, match="R1965"), opened():
        pass
    assert Path.cwd() == here


def test_items_that_lack_what_the_task_reads_are_one_clear_error(bundle: Path, opened: Open) -> None:
    for name in ("colours", "examples"):
        (bundle / f"tasks/{name}.jsonl").write_text('{"stem": "What?", "label": 1}\n', encoding="utf-8")
    with pytest.raises(Fault, match=r"R1965(?s:.*)compare the fields"), opened():
        pass


def test_an_item_without_choices_is_one_clear_error(bundle: Path, opened: Open) -> None:
    file = bundle / "tasks/colours.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows[3]["choices"] = []
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(Fault, match=r"R1965(?s:.*)without choices"), opened() as benchmark:
        benchmark.items(largest_batch=BATCH)


HUB = (
    "task: away\ndataset_path: nobody/nothing-of-the-kind\ndataset_kwargs: {revision: " + "0" * 40 + "}\n"
    'output_type: multiple_choice\ntest_split: test\ndoc_to_text: "{{question}}"\ndoc_to_target: answer\n'
    "doc_to_choice: choices\nmetric_list: [{metric: acc}]\n"
)


def test_a_hub_task_that_cannot_be_fetched_is_one_clear_error(
    bundle: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    away = bundle / "away/away.yaml"
    away.parent.mkdir()
    away.write_text(HUB, encoding="utf-8")
    plan = {"name": "away", "yaml": "away/away.yaml", "local": False}
    with pytest.raises(Fault, match=r"(?s)R0356.*cannot be fetched.*revision.*data:"), opened(**plan):
        pass
    copied = {
        "dataset_path": "json", "dataset_name": None, "test_split": "test", "training_split": None, "validation_split": None,
        "fewshot_split": None, "dataset_kwargs": {"data_files": {"test": "../tasks/colours.jsonl"}},
    }  # fmt: skip
    with opened(**plan | {"local": True, "overrides": copied}) as task:
        assert [item.id for item in task.items(largest_batch=BATCH)] == [f"t{i}" for i in range(6)]
