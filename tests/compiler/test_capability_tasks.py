"""Benchmarks by the harness's own name and by file: what is found, copied into the bundle, registered and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import harness
from epc.compiler.source import parse

BASE = Path(__file__).parent / "explain"
INSTALLED = version("lm-eval")
COMMIT = "210d026faf9955653af8916fad021475a3f00453"
HUB = {"harness": INSTALLED, "revision": COMMIT, "items": 1172}
ARC = [
    {
        "id": f"Q_{i}", "question": f"Which is the number {i}?", "answerKey": "AB"[i % 2],
        "choices": {"text": [str(i), str(i + 1)] if i % 2 == 0 else [str(i + 1), str(i)], "label": ["A", "B"]},
    }
    for i in range(24)
]  # fmt: skip
"""Items in the shape of ARC-Challenge."""


@pytest.fixture
def compiled(tmp_path: Path, compile_spec: Callable[..., Any]) -> Callable[..., Any]:
    """Compile the base of the explanations with changes to its benchmark metric; null deletes a key."""

    def run(*, analyses: Mapping[str, Any] | None = None, **changes: Any) -> Any:
        folder = tmp_path / "specs"
        if not folder.exists():
            shutil.copytree(BASE, folder)
        spec = parse((BASE / "base.yaml").read_text(encoding="utf-8"), "base.yaml", Diagnostics()).data
        metric = spec["metrics"]["quiz"] | changes
        spec["metrics"]["quiz"] = {key: item for key, item in metric.items() if item is not None}
        for name, entry in (analyses or {}).items():
            spec["analyses"][name] = {k: v for k, v in (spec["analyses"][name] | entry).items() if v is not None}
        (folder / "base.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
        return compile_spec(folder / "base.yaml")

    return run


def write_rows(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / name)
    else:
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def step_of(found: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipe and the script's entry of the one benchmark."""
    assert found.plan is not None, found.text
    (planned,) = (planned for planned in found.plan.steps if planned.step.kind == "capability")
    (recipe,), (entry,) = planned.step.recipe["tasks"], planned.constants["tasks"]
    return recipe, entry


def test_a_task_of_the_harness_travels_in_the_bundle_with_its_revision(compiled: Callable[..., Any]) -> None:
    found = compiled(lm_eval="arc_challenge", value="acc_norm", fewshot=25, **HUB)
    recipe, entry = step_of(found)
    text = found.files["inputs/lm_eval/arc_challenge/arc_challenge.yaml"]
    assert yaml.safe_load(text)["doc_to_choice"] == "{{choices.text}}", (
        "arc_challenge.yaml takes it from what it includes"
    )
    assert entry["yaml"] == "inputs/lm_eval/arc_challenge/arc_challenge.yaml"
    assert (entry["fewshot"], entry["local"]) == (25, False)
    assert recipe["overrides"] == entry["overrides"] == {"dataset_kwargs": {"revision": COMMIT}}
    assert (recipe["harness"], recipe["fewshot"], recipe["value"]) == (INSTALLED, 25, "acc_norm")
    assert yaml.safe_load(found.files["spec.lock.yaml"])["files"]["arc_challenge"] == recipe["task_sha256"]


def test_functions_that_a_task_of_the_harness_names_travel_too(compiled: Callable[..., Any]) -> None:
    found = compiled(lm_eval="hellaswag", **HUB | {"items": 10042})
    recipe, _ = step_of(found)
    assert "def process_docs" in found.files["inputs/lm_eval/hellaswag/utils.py"]
    assert list(recipe["files"]) == ["hellaswag/utils.py"]


@pytest.mark.parametrize("name", ["test.jsonl", "test.parquet"])
def test_a_local_copy_of_the_items_is_one_line(name: str, tmp_path: Path, compiled: Callable[..., Any]) -> None:
    write_rows(tmp_path / "specs/arc", name, ARC)
    shutil.copytree(BASE, tmp_path / "specs", dirs_exist_ok=True)
    found = compiled(lm_eval="arc_challenge", harness=INSTALLED, data=f"arc/{name}", items=24)
    recipe, entry = step_of(found)
    (file,) = entry["overrides"]["dataset_kwargs"]["data_files"].values()
    assert (entry["local"], entry["overrides"]["dataset_path"], recipe["data_sha256"] is not None) == (
        True,
        "json",
        True,
    )
    at = "inputs/arc/" + Path(file).name
    assert [json.loads(line) for line in found.files[at].splitlines()] == ARC
    assert compiled(lm_eval="arc_challenge", harness=INSTALLED, data=f"arc/{name}", items=23).codes == ["E0503"]


def test_examples_beside_a_local_copy_need_a_file_of_their_own(tmp_path: Path, compiled: Callable[..., Any]) -> None:
    for name in ("test.jsonl", "train.jsonl"):
        write_rows(tmp_path / "specs/arc", name, ARC)
    shutil.copytree(BASE, tmp_path / "specs", dirs_exist_ok=True)
    local = {"lm_eval": "arc_challenge", "harness": INSTALLED, "data": "arc/test.jsonl", "items": 24, "fewshot": 5}
    assert compiled(**local).codes == ["E1915"]
    _, entry = step_of(compiled(**local, fewshot_data="arc/train.jsonl"))
    assert entry["overrides"]["fewshot_split"] == "examples"
    assert len(entry["overrides"]["dataset_kwargs"]["data_files"]) == 2


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"lm_eval": "arc_chalenge"}, "E1911", 'did you mean "arc_challenge"?'),
        ({"lm_eval": "zzzzzzzzzzzzzzzz"}, "E1911", "lm-eval ls tasks"),
        ({"lm_eval": "arc_challenge"}, "E1912", f"harness: {INSTALLED}"),
        ({"lm_eval": "arc_challenge", "harness": "0.0.1"}, "E1912", "pip install lm-eval==0.0.1"),
        ({"lm_eval": "ai2_arc"}, "E1913", "arc_challenge, arc_easy"),
        ({"lm_eval": "mmlu"}, "E1913", "mmlu_abstract_algebra"),
        ({"lm_eval": "arc_challenge", "harness": INSTALLED}, "E0410", "`revision:`"),
        ({"lm_eval": "arc_challenge", "harness": INSTALLED, "data": "none.jsonl"}, "E0401", "none.jsonl"),
        ({"lm_eval": "gsm8k", "value": "exact_match,strict-match", **HUB}, "E1915", "fewshot: 5"),
        ({"lm_eval": "gsm8k", "value": "exact_match", "fewshot": 5, **HUB}, "E1914", "exact_match,flexible-extract"),
        ({"lm_eval": "gsm8k", "value": "exact_match,strict", "fewshot": 5, **HUB}, "E1914", 'mean "strict-match"?'),
        ({"lm_eval": "arc_challenge", "value": "acc_nrm", **HUB}, "E1914", 'did you mean "acc_norm"?'),
        ({"lm_eval": "humaneval", "value": "pass@1", **HUB}, "E1917", "runs code"),
        ({"lm_eval": "wikitext", "value": "word_perplexity", **HUB}, "E1917", "perplexity of whole texts"),
        ({"base_between": [0.2, 1.5]}, "E1918", "no band within [0, 1]"),
        ({"scale": [1, 0]}, "E1918", "empty"),
        ({"max_tokens": 5}, "E1919", "generates nothing"),
        ({"revision": COMMIT}, "E1919", "local file"),
        ({"harness": INSTALLED}, "E1919", "the task is a file"),
        ({"fewshot_seed": 3}, "E1919", "no examples"),
        ({"fewshot_data": "tasks/quiz.jsonl"}, "E1919", "needs `fewshot` and `data`"),
        ({"value": "acc,none,none"}, "E0205", "value"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_refused_with_what_to_write(
    changes: dict[str, Any], code: str, words: str, compiled: Callable[..., Any]
) -> None:
    found = compiled(**changes)
    assert code in found.codes, found.text
    assert words in found.text


def test_generated_answers_are_greedy_and_limited_by_what_is_declared(compiled: Callable[..., Any]) -> None:
    changes = {"lm_eval": "gsm8k", "value": "exact_match,strict-match", "fewshot": 5, **HUB}
    recipe, entry = step_of(compiled(**changes))
    assert entry["generation"] == {"do_sample": False, "temperature": 0.0, "max_gen_toks": 256}
    assert entry["values"] == [
        {"reading": "exact_match,strict-match, 5-shot, revision 210d026faf99", "metric": "exact_match",
         "filter": "strict-match", "scale": None}
    ]  # fmt: skip
    more, _ = step_of(compiled(**changes, max_tokens=512))
    assert (recipe["generation"]["max_gen_toks"], more["generation"]["max_gen_toks"]) == (256, 512)


def test_a_plain_metric_has_the_recipe_and_the_lock_that_it_had_before(compiled: Callable[..., Any]) -> None:
    found = compiled()
    recipe, _ = step_of(found)
    assert sorted(recipe) == ["chat_template", "data_sha256", "fewshot", "task", "task_sha256", "value"]
    assert sorted(yaml.safe_load(found.files["spec.lock.yaml"])["metrics"]["quiz"]) == [
        "better", "chat_template", "describe", "items", "lm_eval", "missing", "noise", "value",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"fewshot": 1, "lm_eval": "arc_challenge", **HUB},
        {"chat_template": True},
        {"value": "acc_norm"},
        {"scale": [0, 1], "analyses": {"base_quiz": {"method": "bootstrap", "resamples": 10000, "seed": 1}}},
        {"chat_template": True, "fewshot": 2, "multiturn": True, "lm_eval": "arc_challenge", **HUB},
    ],
)
def test_what_changes_scores_changes_the_key_of_the_step(changes: dict[str, Any], compiled: Callable[..., Any]) -> None:
    def key(found: Any) -> str:
        assert found.plan is not None, found.text
        return next(planned.step.key for planned in found.plan.steps if planned.step.kind == "capability")

    assert key(compiled(**changes)) != key(compiled())
    if changes.get("fewshot"):
        without = {k: v for k, v in changes.items() if k not in ("fewshot", "multiturn", "chat_template")}
        assert key(compiled(**changes)) != key(compiled(**without))


def test_the_band_of_the_base_is_registered_and_changes_no_score(compiled: Callable[..., Any]) -> None:
    plain, banded = compiled(), compiled(base_between=[0.4, 0.6])
    metric = next(metric for metric in banded.plan.design.metrics if metric.name == "quiz")
    assert metric.base_between == (0.4, 0.6)
    assert [planned.step.key for planned in plain.plan.steps] == [planned.step.key for planned in banded.plan.steps]
    assert yaml.safe_load(banded.files["spec.lock.yaml"])["metrics"]["quiz"]["base_between"] == [0.4, 0.6]


@pytest.mark.parametrize("method", ["wilson", "bootstrap"])
def test_a_score_on_a_scale_is_no_count(method: str, compiled: Callable[..., Any]) -> None:
    drawn = {"resamples": 10000, "seed": 1} if method == "bootstrap" else {}
    found = compiled(scale=[0, 1], analyses={"base_quiz": {"method": method, **drawn}})
    assert ("E0804" in found.codes) == (method == "wilson")


def test_the_index_of_the_harness_is_what_the_harness_finds() -> None:
    """Compared with the harness's own reading of three of its folders."""
    from lm_eval.tasks import TaskManager

    beside = harness.installed()
    assert beside is not None
    mine = harness.index(beside)
    for folder in ("arc", "mmlu/default", "truthfulqa"):
        theirs = TaskManager(include_path=str(beside.folder / folder), include_defaults=False)
        assert set(theirs.all_subtasks) <= mine.tasks.keys()
        assert set(theirs.all_groups) <= mine.groups.keys()
        for tag in theirs.all_tags:
            assert set(theirs.task_index[tag].tags) <= set(mine.tags[tag])


@pytest.mark.parametrize("name", ["arc_challenge", "hellaswag", "gsm8k", "mmlu_abstract_algebra", "truthfulqa_mc1"])
def test_a_written_out_definition_reads_as_the_original(name: str, tmp_path: Path) -> None:
    from lm_eval.tasks._yaml_loader import load_yaml

    beside = harness.installed()
    assert beside is not None
    found = harness.definition(beside, name)
    (tmp_path / "task.yaml").write_text(found.text, encoding="utf-8")
    original = load_yaml(beside.folder / harness.index(beside).tasks[name], resolve_func=False)
    copy = load_yaml(tmp_path / "task.yaml", resolve_func=False)

    def plain(content: dict[str, Any]) -> dict[str, Any]:
        kept = {key: item for key, item in content.items() if key not in ("tag", "group")}
        return json.loads(json.dumps(kept).replace(str(beside.folder), "").replace(str(tmp_path), "")) | {
            "process_docs": bool(kept.get("process_docs"))
        }

    assert plain(copy) == plain(original)
