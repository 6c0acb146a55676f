"""Benchmark scores through the harness on the tiny model, and reports that are not what was registered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from epc.runtime import capability, models
from epc.runtime.errors import Fault

TASK = """\
task: colours
dataset_path: json
dataset_kwargs:
  data_files:
    test: colours.jsonl
output_type: multiple_choice
test_split: test
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: answer
doc_to_choice: choices
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""


@pytest.fixture
def task(tmp_path: Path) -> Path:
    """A local task of six items, its data beside it."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "colours.yaml").write_text(TASK, encoding="utf-8")
    rows = [
        {"id": f"q{i}", "question": f"What colour is thing {i}?", "choices": ["red", "blue", "green"], "answer": i % 3}
        for i in range(6)
    ]
    (folder / "colours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / "colours.yaml"


def evaluated(tiny: Path, task: Path) -> Any:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    model = models.load_arm(tiny, None, dtype="float32")
    with capability.local_task(task) as manager:
        return simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(tiny), batch_size=4), tasks=["colours"],
            task_manager=manager, num_fewshot=0, log_samples=True, bootstrap_iters=0,
        )  # fmt: skip


def test_items_are_scored_by_the_log_probability_of_each_choice(tiny: Path, task: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    here = Path.cwd()
    found = capability.scores(evaluated(tiny, task), "colours", "acc", items=6)
    assert Path.cwd() == here
    tokenizer, model = AutoTokenizer.from_pretrained(tiny), models.load_arm(tiny, None, dtype="float32")
    expected = []
    for i in range(6):
        context = f"Question: What colour is thing {i}?\nAnswer:"
        likelihoods = []
        for choice in ("red", "blue", "green"):
            ids = tokenizer.encode(f"{context} {choice}", add_special_tokens=False)
            start = len(tokenizer.encode(context, add_special_tokens=False))
            with torch.inference_mode():
                logs = torch.log_softmax(model(torch.tensor([ids])).logits[0], dim=-1)
            likelihoods.append(sum(float(logs[t - 1, ids[t]]) for t in range(start, len(ids))))
        expected.append((f"q{i}", int(likelihoods.index(max(likelihoods)) == i % 3)))
    assert found == expected


def report(values: list[Any], **document: Any) -> dict[str, Any]:
    """What the harness returns, reduced to the parts that are read."""
    return {"samples": {"t": [{"doc": {"q": i, **document}, "acc": value} for i, value in enumerate(values)]}}


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (None, "R0351"),
        ({}, "R0351"),
        ({"samples": {"other": []}}, "R0351"),
        ({"samples": {"t": [{"doc": {"q": 1}, "acc_norm": 1.0}]}}, "R0351"),
        (report([1.0, 0.0, 1.0]), "R0352"),
        (report([1.0]), "R0352"),
        (report([1.0, 0.0], id="same"), "R0352"),
        (report([0.5, 1.0]), "R0353"),
        (report([float("nan"), 1.0]), "R0353"),
    ],
)
def test_a_report_that_is_not_what_was_registered_is_refused(found: dict[str, Any] | None, code: str) -> None:
    with pytest.raises(Fault, match=code):
        capability.scores(found, "t", "acc", items=2)


def test_items_without_an_id_are_named_by_their_content() -> None:
    found = capability.scores(report([1.0, 0.0]), "t", "acc", items=2)
    assert sorted(value for _, value in found) == [0, 1]
    assert all(len(item) == 12 for item, _ in found)
    backwards = {"samples": {"t": report([1.0, 0.0])["samples"]["t"][::-1]}}
    assert capability.scores(backwards, "t", "acc", items=2) == found


def test_the_working_folder_comes_back_after_a_failure(tiny: Path, task: Path) -> None:
    (task.parent / "colours.jsonl").unlink()
    here = Path.cwd()
    with pytest.raises(FileNotFoundError):
        evaluated(tiny, task)
    assert Path.cwd() == here


def test_a_hub_task_that_cannot_be_fetched_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.tasks import get_task_dict

    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    file = tmp_path / "away.yaml"
    file.write_text(
        "task: away\ndataset_path: nobody/nothing-of-the-kind\ndataset_kwargs: {revision: " + "0" * 40 + "}\n"
        'output_type: multiple_choice\ntest_split: test\ndoc_to_text: "{{question}}"\ndoc_to_target: "{{answer}}"\n'
        'doc_to_choice: ["a", "b"]\nmetric_list: [{metric: acc}]\n',
        encoding="utf-8",
    )
    with pytest.raises(Fault, match=r"(?s)R0356.*cannot be fetched.*revision"), capability.hub_task(file) as manager:
        get_task_dict(["away"], manager)
