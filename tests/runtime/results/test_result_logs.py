"""Logs of lm-eval, Inspect and promptfoo: what their tools write, read as what it means."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from epc.runtime.results import promptfoo
from epc.runtime.results.files import Source

from .conftest import Desk

DATE = "2026-11-21T19-30-31.527866"


# -------------------------------------------------------------------- lm-eval


def sample(doc_id: int, filter_: str = "none", **metrics: Any) -> dict[str, Any]:
    """A row as lm-eval 0.4.13 writes it with --log_samples."""
    doc = {"q": f"q{doc_id}?", "c": ["yes", "no"], "a": doc_id % 2}
    return {
        "doc_id": doc_id, "doc": doc, "target": str(doc["a"]),
        "arguments": {"gen_args_0": {"arg_0": doc["q"], "arg_1": " yes"}},
        "resps": [[["-0.23861592861522019", "False"]]], "filtered_resps": [["-0.23861592861522019", "False"]],
        "filter": filter_, "metrics": sorted(metrics), "doc_hash": hashlib.sha256(str(doc).encode()).hexdigest(),
        "prompt_hash": "3bcb", "target_hash": "5fec", **metrics,
    }  # fmt: skip


def lm_eval_logs(desk: Desk, of: dict[str, list[dict[str, Any]]], *, results: bool = True) -> None:
    """`of` is model -> rows; a folder a model, as the harness makes it of its name."""
    for model, rows in of.items():
        folder = f"logs/{model.replace('/', '__')}"
        desk.put(f"{folder}/samples_tiny_choice_{DATE}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        if results:
            desk.put(f"{folder}/results_{DATE}.json", json.dumps({"results": {}, "model_name": model}))


TWO = {"org/small": [sample(0, acc=1.0), sample(1, acc=0.0)], "org/big": [sample(0, acc=1.0), sample(1, acc=1.0)]}
NAMES = {"org/small": "base", "org/big": "tuned"}


def test_lm_eval_logs_are_paired_by_task_and_document(desk: Desk) -> None:
    lm_eval_logs(desk, TWO)
    entry = desk.entry("logs", "lm_eval", scores={"acc": "acc"}, conditions=NAMES)
    assert desk.rows(entry) == {
        ("base", "tiny_choice/0", 0): (1, 0, 1, 1), ("base", "tiny_choice/1", 0): (1, 0, 0, 1),
        ("tuned", "tiny_choice/0", 0): (1, 0, 1, 1), ("tuned", "tiny_choice/1", 0): (1, 0, 1, 1),
    }  # fmt: skip


def test_the_folder_names_the_model_where_the_results_are_not_beside_the_log(desk: Desk) -> None:
    lm_eval_logs(desk, TWO, results=False)
    by_folder = {name.replace("/", "__"): arm for name, arm in NAMES.items()}
    assert len(desk.rows(desk.entry("logs", "lm_eval", scores={"acc": "acc"}, conditions=by_folder))) == 4
    fault = desk.fault(desk.entry("logs", "lm_eval", scores={"acc": "acc"}))
    assert "org__big" in fault.fact
    assert "no declared condition" in fault.fact


def test_true_and_false_count_where_the_scale_is_a_rate(desk: Desk) -> None:
    lm_eval_logs(desk, {"org/small": [sample(0, acc=True)], "org/big": [sample(0, acc=False)]})
    entry = desk.entry("logs", "lm_eval", scores={"acc": "acc"}, conditions=NAMES)
    assert desk.rows(entry)["base", "tiny_choice/0", 0] == (1, 0, 1, 1)
    assert "score is a boolean" in desk.fault(entry, scale=(0, 100)).fact.replace("acc is", "score is")


FILTERS = [
    ("exact_match,strict-match", None, 1),
    ("exact_match,flexible-extract", None, 0),
    ("exact_match", "`score: exact_match,flexible-extract`", None),
    ("exact_match,strict", 'no filter "strict"', None),
    ("exact_matches,strict-match", 'no "exact_matches"; did you mean exact_match?', None),
]


@pytest.mark.parametrize(("score", "said", "total"), FILTERS)
def test_a_filter_of_the_harness_is_named(desk: Desk, score: str, said: str | None, total: int | None) -> None:
    both = [sample(0, "strict-match", exact_match=1.0), sample(0, "flexible-extract", exact_match=0.0)]
    lm_eval_logs(desk, dict.fromkeys(NAMES, both))
    entry = desk.entry("logs", "lm_eval", scores={"acc": score}, conditions=NAMES)
    if said is None:
        assert {row[2] for row in desk.rows(entry).values()} == {total}
    else:
        fault = desk.fault(entry)
        assert (fault.code, said in f"{fault.fact} {fault.remedy}") == ("R1604", True), fault.fact


def test_documents_that_are_not_the_same_cannot_be_paired(desk: Desk) -> None:
    moved = {**sample(5, acc=1.0), "doc_id": 1}
    lm_eval_logs(desk, {"org/small": [sample(0, acc=1.0), sample(1, acc=1.0)], "org/big": [sample(0, acc=1.0), moved]})
    fault = desk.fault(desk.entry("logs", "lm_eval", scores={"acc": "acc"}, conditions=NAMES))
    assert (fault.code, 'unit "tiny_choice/1" is one item in' in fault.fact) == ("R1609", True)


def test_a_metric_that_the_harness_aggregates_over_items_has_no_score(desk: Desk) -> None:
    lm_eval_logs(desk, {name: [sample(0, f1=[1, 0])] for name in NAMES})
    fault = desk.fault(desk.entry("logs", "lm_eval", scores={"acc": "f1"}, conditions=NAMES))
    assert (fault.code, "f1 is a list" in fault.fact) == ("R1605", True)


def test_a_log_that_was_appended_to_repeats_its_documents(desk: Desk) -> None:
    lm_eval_logs(desk, {**TWO, "org/big": TWO["org/big"] * 2})
    fault = desk.fault(desk.entry("logs", "lm_eval", scores={"acc": "acc"}, conditions=NAMES))
    assert (fault.code, 'line 3: rows repeat unit "tiny_choice/0"' in fault.fact) == ("R1606", True)


# ------------------------------------------------------------------ promptfoo


def result(test: int, provider: str, question: str, **more: Any) -> dict[str, Any]:
    """One of results.results, as promptfoo 0.121 writes it."""
    return {
        "promptIdx": 0, "testIdx": test, "testCase": {"vars": {"q": question}, "assert": [{"type": "contains", "value": "x"}]},
        "promptId": "p", "provider": {"id": f"custom:{provider}", "label": provider},
        "prompt": {"raw": "Answer: {{q}}", "label": "Answer: {{q}}"}, "vars": {"q": question}, "response": {"output": "x"},
        "success": True, "failureReason": 0, "score": 1, "namedScores": {"has": 1}, "latencyMs": 3, **more,
    }  # fmt: skip


def output(*results: dict[str, Any]) -> str:
    return json.dumps(
        {"evalId": "eval-1", "results": {"version": 3, "prompts": [], "results": results, "stats": {}}, "config": {}}
    )


FAILED = {"success": False, "failureReason": 1, "score": 0, "error": "Expected output to contain x"}
BROKEN = {"success": False, "failureReason": 2, "score": 0, "namedScores": {}, "error": "HTTP 429"}


def test_repetitions_of_a_test_are_samples_and_errors_are_missing(desk: Desk) -> None:
    text = output(
        result(0, "base", "one"), result(0, "tuned", "one"), result(1, "base", "one", **FAILED), result(1, "tuned", "one", **BROKEN),
        result(2, "base", "two"), result(2, "tuned", "two", score=0.25),
    )  # fmt: skip
    rows = desk.rows(desk.entry(desk.put("out.json", text), "promptfoo", scores={"acc": "score"}))
    assert sorted((arm, *found) for (arm, _, _), found in rows.items()) == [
        ("base", 1, 0, 100, 100), ("base", 2, 0, 100, 100), ("tuned", 1, 0, 25, 100), ("tuned", 1, 1, 100, 100),
    ]  # fmt: skip
    passed = desk.rows(desk.entry("out.json", "promptfoo", scores={"acc": "success"}))
    assert sorted(found for (arm, _, _), found in passed.items() if arm == "base") == [(1, 0, 1, 1), (2, 0, 1, 1)]
    assert "boolean" in desk.fault(desk.entry("out.json", "promptfoo", scores={"acc": "success"}), scale=(0, 5)).fact


def test_a_named_score_is_missing_where_a_result_has_none(desk: Desk) -> None:
    text = output(result(0, "base", "one"), result(0, "tuned", "one", namedScores={}))
    entry = desk.entry(desk.put("out.json", text), "promptfoo", scores={"acc": "namedScores.has"})
    assert {arm: found[:2] for (arm, _, _), found in desk.rows(entry).items()} == {"base": (1, 0), "tuned": (0, 1)}
    fault = desk.fault(desk.entry("out.json", "promptfoo", scores={"acc": "namedScores.hs"}))
    assert (fault.code, "did you mean namedScores.has?" in fault.fact) == ("R1604", True)


def test_metrics_of_one_output_are_missing_each_for_itself(desk: Desk) -> None:
    text = output(result(0, "base", "one", namedScores={}), result(0, "tuned", "one"))
    entry = desk.entry(desk.put("out.json", text), "promptfoo", scores={"acc": "score", "has": "namedScores.has"})
    found = {(row.metric, row.condition): (row.n, row.n_missing) for row in desk.read(entry).rows}
    assert found == {
        ("acc", "base"): (1, 0),
        ("acc", "tuned"): (1, 0),
        ("has", "base"): (0, 1),
        ("has", "tuned"): (1, 0),
    }


def test_what_promptfoo_calls_an_arm(tmp_path: Path) -> None:
    """The provider; with several prompts the prompt; with several of both, both."""

    def names(*results: dict[str, Any]) -> list[str]:
        file = tmp_path / "out.json"
        file.write_text(output(*results), encoding="utf-8")
        source = Source(path=file, shown="out.json")
        return [record.condition for record in promptfoo.records(source, "score", None)]

    other = {"prompt": {"raw": "Say", "label": "Say"}, "promptIdx": 1}
    assert names(result(0, "a", "q"), result(0, "b", "q")) == ["a", "b"]
    assert names(result(0, "a", "q"), result(0, "a", "q", **other)) == ["Answer: {{q}}", "Say"]
    assert names(result(0, "a", "q"), result(0, "b", "q", **other)) == ["a / Answer: {{q}}", "b / Say"]


NO_OUTPUT = [
    ("cut short", output(result(0, "base", "one"))[:-20], "not JSON"),
    ("another file", '{"a": 1}', "no promptfoo output"),
    ("no result", output(), "holds no sample"),
    ("Latin-1", output(result(0, "base", "one")).encode() + b"\xe9", "not UTF-8"),
]


@pytest.mark.parametrize(("content", "said"), [case[1:] for case in NO_OUTPUT], ids=[case[0] for case in NO_OUTPUT])
def test_no_promptfoo_output(desk: Desk, content: str | bytes, said: str) -> None:
    scores = {"acc": "score"}
    fault = desk.fault(desk.entry(desk.put("out.json", content), "promptfoo", scores=scores))
    assert fault.code in ("R1602", "R1604")
    assert said in fault.fact


# -------------------------------------------------------------------- Inspect


@pytest.fixture(scope="session")
def inspect_logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Logs of two models that Inspect itself writes, in both formats: four questions, two epochs, two scorers."""
    pytest.importorskip("inspect_ai")
    import inspect_ai
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import Score, Scorer, Target, match, mean, scorer
    from inspect_ai.solver import TaskState, generate

    @scorer(metrics=[mean()])
    def graded() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            if "four" in state.input_text:
                return Score.unscored(reason="no grade in the reply")
            return Score(value={"length": len(state.output.completion) / 10, "ok": True})

        return score

    def said(model: str, text: str) -> ModelOutput:
        reply = ModelOutput.from_content(f"mockllm/{model}", text)
        reply.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return reply

    root = tmp_path_factory.mktemp("inspect")
    questions = [
        Sample(id=f"q{i}", input=f"say {word}", target=word) for i, word in enumerate(["one", "two", "three", "four"])
    ]
    for log_format in ("eval", "json"):
        for model, replies in (("base", ["one", "two", "no", "no"]), ("tuned", ["one", "two", "three", "no"])):
            inspect_ai.eval(
                inspect_ai.Task(dataset=questions, solver=generate(), scorer=[match(), graded()], name="quiz"), epochs=2, max_samples=1,
                model=get_model(f"mockllm/{model}", custom_outputs=[said(model, reply) for reply in replies * 2]),
                log_dir=str(root / log_format), log_format=log_format, display="none",
            )  # fmt: skip
    return root


MODELS = {"mockllm/base": "base", "mockllm/tuned": "tuned"}


@pytest.mark.parametrize("log_format", ["eval", "json"])
def test_inspect_logs_are_read_by_its_own_reader(inspect_logs: Path, log_format: str) -> None:
    desk = Desk(inspect_logs)
    entry = desk.entry(log_format, "inspect", scores={"acc": "match", "length": "graded.length"}, conditions=MODELS)
    imported = desk.read(entry)
    found = {(row.metric, row.condition, row.unit): (row.n, row.n_missing, row.value) for row in imported.rows}
    assert len(found) == 16
    assert found["acc", "base", "quiz/q2"] == (2, 0, 0.0)
    assert found["acc", "tuned", "quiz/q2"] == (2, 0, 1.0)
    assert found["length", "base", "quiz/q0"] == (2, 0, 0.3)
    assert found["length", "tuned", "quiz/q3"] == (0, 2, None)
    assert imported.read[0].rows == 16
    flags = desk.rows(desk.entry(log_format, "inspect", scores={"acc": "graded.ok"}, conditions=MODELS))
    assert flags["base", "quiz/q0", 0] == (2, 0, 2, 1)


def test_an_inspect_log_that_cannot_serve(inspect_logs: Path, tmp_path: Path) -> None:
    desk = Desk(inspect_logs)
    fault = desk.fault(desk.entry("eval", "inspect", scores={"acc": "mtch"}, conditions=MODELS))
    assert (fault.code, "did you mean match?" in fault.fact) == ("R1604", True)
    whole = next((inspect_logs / "json").glob("*.json")).read_text(encoding="utf-8")
    other = Desk(tmp_path)
    cut = other.fault(other.entry(other.put("cut.json", whole[: len(whole) // 2]), "inspect", scores={"acc": "match"}))
    assert cut.code == "R1602"
    unfinished = whole.replace('"status": "success"', '"status": "cancelled"', 1)
    assert unfinished != whole
    stopped = other.fault(other.entry(other.put("cancelled.json", unfinished), "inspect", scores={"acc": "match"}))
    assert (stopped.code, "did not finish" in stopped.fact) == ("R1602", True)


def test_without_inspect_the_error_names_the_extra(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    fault = desk.fault(desk.entry(desk.put("a.eval", b"PK"), "inspect", scores={"acc": "match"}))
    assert (fault.code, "epc-prereg[inspect]" in fault.remedy) == ("R1608", True)
