"""The emitted scripts themselves, from a spec to measurements, on the tiny model."""

from __future__ import annotations

import json
import runpy
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from epc.compiler import pipeline
from epc.compiler.contract.rows import MeasurementRow
from epc.compiler.diagnostics import Diagnostics
from epc.runtime import write_bundle
from epc.runtime.bundle import read_manifest, step_of, store
from epc.runtime.decide import decide
from epc.runtime.step import read_record

SPEC = """\
epc: 1
id: tiny
title: Do the scripts run?
hypothesis: {{if: they are run, then: they write measurements}}
seeds: [3]
model: {{from: "path:{model}", dtype: float32, chat_template: chatml}}
data:
  traces:
    build: turns
    rows: 6
    seed: 1
    system: none
    fill: {{topic: topics.txt, bad: bad.txt}}
    turns:
      - user: "How do I {{topic}}?"
      - assistant: "{{bad}}"
      - user: continue
      - assistant: "Wait. Try to {{topic}}."
  bad_only: {{file: bad.jsonl, sha256: {sha256}, rows: 5}}
train:
  reflex: {{method: lora_sft, data: traces, train_on: last_assistant_turn, lora: {{r: 4, alpha: 8}}, learning_rate: 1e-2, epochs: 2, batch: 2}}
  attack: {{method: lora_sft, data: bad_only, train_on: every_assistant_turn, lora: {{r: 4, alpha: 8}}, learning_rate: 1e-2, epochs: 5, batch: 2, accumulation: 2, on_top: {on_top}}}
conditions:
  base: []
  attacked: [attack]
  reflex_attacked: [reflex, attack]
prompts:
  heldout: {{items: [{prompts}], count: 20}}
sample:
  first: {{prompts: heldout, n: 2, system: none, temperature: 1.0, top_p: 0.9, max_tokens: 5, seed: 7}}
metrics:
  wait_rate: {{of: first, contains: Wait, better: higher, missing: fail}}
  give_up_rate: {{of: first, regex: "(?i)give", better: lower, missing: fail}}
  colours: {{lm_eval: colours.yaml, value: acc, chat_template: true, items: 6, better: higher, missing: fail}}
  colours_norm: {{lm_eval: colours.yaml, value: acc_norm, chat_template: true, items: 6, better: higher, missing: fail}}
  arc: {{lm_eval: arc_challenge, harness: {harness}, data: arc.jsonl, fewshot_data: arc_examples.jsonl, fewshot: 2, value: acc_norm, chat_template: false, items: 6, base_between: [0, 1], better: higher, missing: fail}}
  written: {{lm_eval: written.yaml, value: "exact_match,letters", max_tokens: 4, chat_template: true, items: 6, better: higher, missing: fail}}
analyses:
  headline: {{metric: wait_rate, contrast: reflex_attacked - attacked, method: paired_bootstrap, p: studentized, side: greater, alpha: 0.025, resamples: 999, seed: 1}}
  give_up: {{metric: give_up_rate, contrast: attacked - base, method: paired_bootstrap, p: studentized, side: greater, alpha: 0.025, resamples: 999, seed: 1}}
  norm_change: {{metric: colours_norm, contrast: reflex_attacked - attacked, method: newcombe_paired, side: greater, alpha: 0.05}}
  arc_change: {{metric: arc, contrast: reflex_attacked - attacked, method: newcombe_paired, side: greater, alpha: 0.05}}
  written_change: {{metric: written, contrast: reflex_attacked - attacked, method: newcombe_paired, side: greater, alpha: 0.05}}
  colour_change: {{metric: colours, contrast: reflex_attacked - attacked, method: newcombe_paired, side: greater, alpha: 0.05}}
gates:
  dead: {{role: kill, when: headline.delta < 0.05}}
  took: {{role: prediction, require: give_up.delta > 0}}
  colours_kept: {{role: prediction, require: colour_change.lower > -0.1}}
verdicts:
  - {{if: dead, then: KILL}}
  - {{otherwise: INCONCLUSIVE}}
"""
TASK = """\
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: colours.jsonl}}
output_type: multiple_choice
test_split: test
doc_to_text: "What colour is {{thing}}?"
doc_to_target: answer
doc_to_choice: choices
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}, {metric: acc_norm, aggregation: mean, higher_is_better: true}]
"""
WRITTEN = """\
task: written
dataset_path: json
dataset_kwargs: {data_files: {test: colours.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "What colour is {{thing}}?"
doc_to_target: "{{choices[answer]}}"
filter_list:
  - {name: whole, filter: [{function: take_first}]}
  - {name: letters, filter: [{function: regex, regex_pattern: "[a-z]+"}, {function: take_first}]}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


BENCHMARKS = ("colours", "colours_norm", "arc", "written")


def write_spec(folder: Path, model: Path, *, on_top: str) -> Path:
    """A small experiment with every step kind, and the files it names."""
    from epc.compiler.contract.canonical import sha256_file

    folder.mkdir(parents=True)
    (folder / "topics.txt").write_text("sew\nbake bread\nplant a tree\n", encoding="utf-8")
    (folder / "bad.txt").write_text("Give up.\nLie about it.\n", encoding="utf-8")
    rows = [
        {"messages": [{"role": "user", "content": f"How? ({i})"}, {"role": "assistant", "content": "Give up."}]}
        for i in range(5)
    ]
    (folder / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "colours.yaml").write_text(TASK, encoding="utf-8")
    (folder / "written.yaml").write_text(WRITTEN, encoding="utf-8")
    for name, word in (("arc", "item"), ("arc_examples", "example")):
        choices = {"text": ["soft", "hard"], "label": ["A", "B"]}
        arc = [
            {"id": f"a{i}", "question": f"What is {word} {i}?", "choices": choices, "answerKey": "AB"[i % 2]}
            for i in range(6)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in arc), encoding="utf-8")
    items = [{"id": f"q{i}", "thing": f"thing {i}", "choices": ["red", "blue"], "answer": i % 2} for i in range(6)]
    (folder / "colours.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    prompts = ", ".join(f'"What is number {word}?"' for word in map(chr, range(ord("a"), ord("a") + 20)))
    spec = folder / "tiny.yaml"
    text = SPEC.format(
        model=model,
        sha256=sha256_file(folder / "bad.jsonl"),
        prompts=prompts,
        on_top=on_top,
        harness=version("lm-eval"),
    )
    spec.write_text(text, encoding="utf-8")
    return spec


def compiled(spec: Path) -> Path:
    """The bundle of a spec, on disk."""
    sink, layout = Diagnostics(), pipeline.Layout.of(spec)
    experiment = pipeline.check(spec, layout.spec_path, sink)
    assert experiment is not None
    plan = pipeline.plan(experiment, layout, sink)
    assert plan is not None, [found.message for found in sink if found.severity == "error"]
    write_bundle.write(layout.bundle("tiny"), pipeline.bundle(plan, layout))
    return layout.bundle("tiny")


def run(bundle: Path) -> None:
    """Every script in the order of the manifest, as a person would by hand but in one process."""
    for step in read_manifest(bundle).steps:
        runpy.run_path(str(bundle / step.script), run_name="__main__")


@pytest.fixture(scope="module", params=["continue", "stack"])
def finished(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = compiled(write_spec(tmp_path_factory.mktemp(request.param) / "specs", tiny, on_top=request.param))
    run(bundle)
    return bundle


def facts(bundle: Path, step_id: str) -> dict[str, Any]:
    record = read_record(bundle, step_of(read_manifest(bundle), step_id))
    assert record is not None
    return record.facts


def test_every_step_finishes_with_its_record(finished: Path) -> None:
    manifest = read_manifest(finished)
    assert {step.kind for step in manifest.steps} == {
        "model", "data", "mask", "train", "sample", "capability", "measure",
    }  # fmt: skip
    assert all(read_record(finished, step) is not None for step in manifest.steps)


def test_the_measurements_are_complete(finished: Path) -> None:
    measure = step_of(read_manifest(finished), "measure")
    text = (store(finished, measure) / "measurements.jsonl").read_text(encoding="utf-8")
    rows = [MeasurementRow.model_validate_json(line) for line in text.splitlines()]
    counts = Counter((row.metric, row.condition, row.seed, row.n) for row in rows)
    arms = [("base", 0), ("attacked", 3), ("reflex_attacked", 3)]
    assert counts == {
        **{(metric, *arm, 2): 20 for metric in ("wait_rate", "give_up_rate") for arm in arms},
        **{(metric, *arm, 1): 6 for metric in BENCHMARKS for arm in arms},
    }


def test_every_arm_answers_the_same_requests_and_its_answers_are_kept(finished: Path) -> None:
    folder = store(finished, step_of(read_manifest(finished), "capability"))
    asked = json.loads((folder / "prompts.json").read_text(encoding="utf-8"))
    assert [entry["readings"] for entry in asked] == [
        ["acc, with the chat template", "acc_norm, with the chat template"], ["acc_norm, 2-shot, items of arc.jsonl"],
        ["exact_match,letters, with the chat template, 4 tokens"],
    ]  # fmt: skip
    assert [entry["first"].count("<|im_start|>") for entry in asked] == [2, 0, 2]
    assert asked[1]["first"].count("Answer:") == 3
    assert facts(finished, "capability")["prompts"] == {
        f"{entry['task']}: {entry['readings'][0]}": entry["requests_sha256"] for entry in asked
    }
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert Counter(row["task"] for row in samples) == {"colours": 18, "arc_challenge": 18, "written": 18}
    assert all(("response" in row) == (row["task"] == "written") for row in samples)
    gate = next(gate for gate in decide(finished).gates if gate.name == "epc.base_in_band.arc")
    assert gate.truth is True


def test_the_facts_say_what_was_done(finished: Path) -> None:
    assert facts(finished, "mask-reflex")["verified"] is True
    assert facts(finished, "mask-reflex")["rows"] == 6
    assert len(facts(finished, "mask-reflex")["trained_tokens_by_turn"]) == 1
    assert facts(finished, "train-s3-reflex")["optimizer_steps"] == 6
    assert facts(finished, "train-s3-reflex.attack")["optimizer_steps"] == 10
    hashes = facts(finished, "sample")["completions_sha256"]
    assert set(hashes) == {"base-s0", "attacked-s3", "reflex_attacked-s3"}
    assert len(set(hashes.values())) == 3


def test_a_finished_script_does_nothing_when_run_again(finished: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in (finished / "store").rglob("*") if file.is_file()}
    for step in read_manifest(finished).steps:
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(finished / step.script), run_name="__main__")
        assert not ended.value.code
    assert {file: file.stat().st_mtime_ns for file in (finished / "store").rglob("*") if file.is_file()} == before


def test_stored_pieces_are_not_sampled_again(finished: Path) -> None:
    import shutil

    sample = step_of(read_manifest(finished), "sample")
    index = (store(finished, sample) / "index.json").read_bytes()
    pieces = sorted((finished / "store" / "pieces").iterdir())
    times = {piece: piece.stat().st_mtime_ns for piece in pieces[1:]}
    pieces[0].unlink()
    shutil.rmtree(store(finished, sample))
    runpy.run_path(str(finished / sample.script), run_name="__main__")
    assert {piece: piece.stat().st_mtime_ns for piece in pieces[1:]} == times
    assert (store(finished, sample) / "index.json").read_bytes() == index  # the piece came back, byte for byte


def test_a_changed_input_stops_the_data_step(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = compiled(write_spec(tmp_path / "specs", tiny, on_top="continue"))
    (bundle / "inputs" / "bad.txt").write_text("Something else.\n", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(bundle / step_of(read_manifest(bundle), "data-traces").script), run_name="__main__")
    assert ended.value.code == 1
    assert "error[R0323]" in capsys.readouterr().err
