"""The shape of a spec: every mistake is reported once, in its place, and hides no other one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from epc.compiler.diagnostics import Diagnostic, Diagnostics
from epc.compiler.resolve import Experiment, resolve
from epc.compiler.source import parse
from epc.compiler.surface import load

BASE = Path(__file__).parent / "explain"
Read = Callable[..., tuple[Experiment, list[Diagnostic]]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Load and resolve the base of the explanations with pieces of its text replaced, and text added at its end."""

    def run(*edits: tuple[str, str], more: str = "") -> tuple[Experiment, list[Diagnostic]]:
        folder = tmp_path / "specs"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(BASE, folder)
        text = (folder / "base.yaml").read_text(encoding="utf-8")
        for old, new in edits:
            assert text.count(old) >= 1, f"the base no longer contains {old!r}"
            text = text.replace(old, new, 1)
        (folder / "base.yaml").write_text(text + more, encoding="utf-8")
        sink = Diagnostics()
        surface = load(folder / "base.yaml", "base.yaml", sink)
        assert surface is not None
        return resolve(surface, sink), list(sink)

    return run


GATES = "gates:\n"
CATCH = "learning_rate: 1e-4, epochs: 5, batch: 4}"
FIRST = "max_tokens: 100, seed: 5}"
GRADER = "rubric: judges/grader.txt,"
ALIGNMENT = "judge: grader, score: aligned,"
MISTAKES = [
    # what it is called elsewhere
    ("learning rate of HF", [(CATCH, "lr: 1e-4, epochs: 5, batch: 4}")], "E0201", 'did you mean "learning_rate"?'),
    ("epochs of HF", [(CATCH, "learning_rate: 1e-4, num_train_epochs: 5, batch: 4}")], "E0201", 'did you mean "epochs"?'),
    ("batch of HF", [(CATCH, "learning_rate: 1e-4, epochs: 5, per_device_train_batch_size: 4}")], "E0201", 'did you mean "batch"?'),
    ("accumulation of HF", [(CATCH, CATCH[:-1] + ", gradient_accumulation_steps: 2}")], "E0201", 'did you mean "accumulation"?'),
    ("length of TRL", [(CATCH, CATCH[:-1] + ", max_seq_length: 512}")], "E0201", 'did you mean "max_length"?'),
    ("schedule of HF", [(CATCH, CATCH[:-1] + ", lr_scheduler_type: linear}")], "E0201", 'did you mean "schedule"?'),
    ("LoRA rank beside the adapter", [(CATCH, CATCH[:-1] + ", lora_r: 8}")], "E0201", 'did you mean "r" under `lora:`?'),
    ("LoRA alpha in the adapter", [("lora: {r: 16, alpha: 32}", "lora: {r: 16, lora_alpha: 32}")], "E0201", 'did you mean "alpha"?'),
    ("tokens of HF", [(FIRST, "max_new_tokens: 100, seed: 5}")], "E0201", 'did you mean "max_tokens"?'),
    ("samples", [("prompts: heldout, n: 25", "prompts: heldout, num_samples: 25")], "E0201", 'did you mean "n"?'),
    # options of judges
    ("temperature of a judge", [(GRADER, GRADER + " temperature: 0,")], "E0209", "averages out over the `n:` completions"),
    ("seed of a judge", [(GRADER, GRADER + " seed: 7,")], "E0209", "delete it"),
    ("no option of a judge", [(GRADER, GRADER + " thoughts: true,")], "E0201", "known: aggregate, batch_from, gold"),
    ("option of a judge beside `options`", [(GRADER, GRADER + " thinking: disabled,")], "E0201", 'did you mean "thinking" under `options:`?'),
    # one mistake, one error
    ("misspelt kind of a metric", [(ALIGNMENT, "judg: grader, score: aligned,")], "E0201", 'did you mean "judge"?'),
    ("missing kind of a metric", [(ALIGNMENT, "score: aligned,")], "E0202", "add `judge:`"),
    ("misspelt kind of a rule", [("{otherwise:", "{otherwize:")], "E0201", 'did you mean "otherwise"?'),
    ("misspelt kind of data", [("{file: data/chats.jsonl", "{fil: data/chats.jsonl")], "E0201", 'did you mean "file"?'),
    ("a mapping of which most is missing", [("{use: recipes/attack.yaml, data: bad_only}", "{data: bad_only}")], "E0202", "from a file with `use:`"),
    ("misspelt section", [(GATES, "gats:\n")], "E0201", 'did you mean "gates"?'),
    ("misspelt section that others name", [("\nprompts:\n", "\nprompt:\n")], "E0201", 'did you mean "prompts"?'),
    ("recipe file that is not there", [("recipes/attack.yaml", "recipes/atack.yaml")], "E0401", 'did you mean "attack.yaml"?'),
    ("recipe file of another type", [("use: recipes/attack.yaml", "use: 3")], "E0203", "for example use:"),
    ("prompts of a generation", [("bad: {prompts: [asked]", "bad: {prompts: [aksed]")], "E0304", 'did you mean "asked"?'),
    ("name that no entry can have", [("  placebo: [talk", "  placebo-arm: [talk"), ("treated - placebo", "treated - placebo-arm")], "E0205", "names are lower-case"),
    # keys that exclude each other
    ("two of one", [("contrast: caught - base", "arm: caught, contrast: caught - base")], "E0206", "keep one of arm and contrast"),
    ("none of one", [("contrast: caught - base, ", "")], "E0206", "add one of them"),
    ("one that needs another", [("{file: prompts/part_a.txt,", "{file: prompts/part_a.txt, stand_in: x.txt,")], "E0206", "delete `stand_in`"),
    # types in the words of the language
    ("text for a number", [("count: 8", "count: eight")], "E0203", "write a whole number"),
    ("number for a hash", [("revision: a123456789012345678901234567890123456789", "revision: 1234567")], "E0203", "put it in quotes"),
    ("text for a list", [("  attacked: [attack]", "  attacked: attack")], "E0203", "write a list"),
    ("text for an entry", [("  asked: {items: [How do I bake bread?, Where should I plant roses?], count: 2}", "  asked: How do I bake bread?")], "E0203", "write a mapping with the keys count (and, where wanted, file,"),
    ("word for a hash", [("sha256: pending", "sha256: later")], "E0205", "or pending until epc freeze does"),
    ("form of a judge's field", [("refused: bool", "refused: yes/no")], "E0205", "an integer of a range such as 0..100"),
]  # fmt: skip


@pytest.mark.parametrize(("edits", "code", "help_"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_one_mistake_is_one_error(read: Read, edits: list[tuple[str, str]], code: str, help_: str) -> None:
    _, found = read(*edits)
    assert [one.code for one in found] == [code]
    assert help_ in found[0].help


VALUE = "write a number, [low, high], a bound such as `< 5`, or a name"


@pytest.mark.parametrize(
    ("value", "help_"),
    [
        *((value, VALUE) for value in ("-3", "true", "[3]", "[1, 2, 3]", "[3, x]", '""', "null", "{low: 1}", ".nan", "[-1, 2]")),
        *((value, None) for value in ("3", "2.5", "[20000, 22000]", '"< 5"', "< 5", "Qwen-2.5-7B", "0")),
    ],
)  # fmt: skip
def test_a_claim_has_one_of_four_forms(read: Read, value: str, help_: str | None) -> None:
    _, found = read(more=f"claims: [{{text: as stated, quantity: judge_calls, value: {value}}}]\n")
    assert [(one.code, one.help) for one in found] == ([] if help_ is None else [("E0203", help_)])


@pytest.mark.parametrize(
    ("entry", "code", "help_"),
    [
        ("{code: E0501, reason: it does not matter to us here}", "E0205", "only warnings can be allowed"),
        ("{code: W501, reason: it does not matter to us here}", "E0205", "by their code such as W0910"),
        ("{code: W0718, reason: fine}", "E0203", "write at least 20 characters - Why it does not matter"),
        ("{code: W0718}", "E0202", "add `reason:`"),
        ("W0718", "E0203", "write a mapping with the keys code, reason (and, where wanted, at)"),
    ],
)
def test_a_bad_allowance_says_what_one_is(read: Read, entry: str, code: str, help_: str) -> None:
    experiment, found = read(more=f"allow: [{entry}]\n")
    assert [one.code for one in found] == [code]
    assert help_ in found[0].help
    assert not experiment.spec.allow


def test_an_entry_of_a_list_poisons_itself_only(read: Read) -> None:
    experiment, found = read(
        ("{if: no_effect, then: KILL}", "{if: no_effect, then: DIE}"),
        ("{if: survives and able,", "{if: survives and abel,"),
        ("seeds: [1, 2, 3]", "seeds: [1, two, 3]"),
        more="""\
claims:
  - {text: first, quantity: judge_calls, value: 1}
  - {text: second, quantity: judge_calls, value: -1}
  - third
  - {text: fourth, quantity: judge_calls, value: 4}
lineage:
  - {cites: a, relation: child, note: n}
  - {cites: b, relation: parent, note: n}
allow:
  - {code: E0501, reason: it does not matter to us here}
  - {code: W0501, reason: it does not matter to us here}
""",
    )
    assert [one.code for one in found] == ["E0203", "E0205", "E0309", "E0203", "E0203", "E0204", "E0205"]
    spec = experiment.spec
    assert [claim.text for claim in spec.claims] == ["first", "fourth"]
    assert [citation.cites for citation in spec.lineage] == ["b"]
    assert [allowance.code for allowance in spec.allow] == ["W0501"]
    assert spec.seeds == [1, 3]
    assert len(spec.verdicts) == 2
    assert not experiment.rules_complete
    # places are those of the file, whatever was left out before them
    quoted = _quoted(experiment, "claims", 1, "text"), _quoted(experiment, "lineage", 0, "cites")
    assert quoted == ("fourth", "b")
    assert _quoted(experiment, "verdicts", 1, "otherwise") == "INCONCLUSIVE"
    (unknown,) = [one for one in found if one.code == "E0309"]
    assert unknown.message == 'unknown gate "abel"'
    assert _text(experiment, unknown.span.line, unknown.span.column, unknown.span.length) == "abel"


def _quoted(experiment: Experiment, *path: str | int) -> str:
    span = experiment.at(*path)
    return _text(experiment, span.line, span.column, span.length)


def _text(experiment: Experiment, line: int, column: int, length: int) -> str:
    return experiment.surface.document.text.splitlines()[line - 1][column - 1 :][:length]


def _base() -> Any:
    return parse((BASE / "base.yaml").read_text(encoding="utf-8"), "base.yaml", Diagnostics()).data


TWELVE = [
    ("seeds: [1, 2, 3]", "seeds: [1, two, 3]", "E0203"),
    ("count: 8", "count: eight", "E0203"),
    (CATCH, "learning_rate: 1e-4, num_train_epochs: 5, batch: 4}", "E0201"),
    ("recipes/attack.yaml", "recipes/atack.yaml", "E0401"),
    ("placebo: [talk,", "placebo: [talc,", "E0302"),
    ("top_p: 1.0, max_tokens: 100, seed: 5", "top_p: 1.5, max_tokens: 100, seed: 5", "E0207"),
    (GRADER, GRADER + " temperature: 0,", "E0209"),
    ("score: refused", "score: refusal", "E0318"),
    ("contrast: caught - base", "contrast: caught-base", "E0205"),
    ("attack_effect.upper < -5", "attack_effect.upper << -5", "E0312"),
    ("{if: survives and able,", "{if: survives and capable,", "E0309"),
    ("budget: {gpu_hours: 1,", "budget: {gpu_hours: 1, gpus: 8,", "E0201"),
]


def test_all_errors_are_reported_at_once(read: Read) -> None:
    _, found = read(*((old, new) for old, new, _ in TWELVE))
    assert [one.code for one in found] == [code for *_, code in TWELVE]


def test_a_section_may_lose_all_its_entries(read: Read) -> None:
    edits = [(f"  {name}: {{role: ", f"  {name}: {{roll: ") for name in _base()["gates"]]
    experiment, found = read(*edits, ("caught: [catch]", "caught: [cach]"))
    assert [one.code for one in found] == ["E0302", *["E0201"] * len(edits)]
    assert not experiment.spec.gates


@pytest.mark.parametrize(
    "section", ["conditions", "metrics", "analyses", "gates", "verdicts", "data", "train", "model"]
)
@pytest.mark.parametrize("value", ["{}", "[]", "[a, b]", "text", "3", "null"])
def test_a_section_of_another_shape_is_one_error(read: Read, section: str, value: str) -> None:
    # the rest stays as it is, so that every name which refers to the section is there
    edited = yaml.safe_dump({**_base(), section: "SECTION"}, sort_keys=False).replace("SECTION", value)
    _, found = read(((BASE / "base.yaml").read_text(encoding="utf-8"), edited))
    if (section, value) in (("data", "{}"), ("train", "{}")):
        assert {one.code for one in found} <= {"E0302", "E0303"}  # nothing is declared, and that may be so
    elif (section, value) == ("model", "{}"):
        assert [(one.code, one.message) for one in found] == [("E0202", "`model` lacks `from`")]
    else:
        each = 2 if (section, value) == ("verdicts", "[a, b]") else 1  # a list of two wrong entries
        assert [one.code in ("E0203", "E0207") for one in found] == [True] * each


@pytest.mark.parametrize(
    ("file", "text", "code", "place"),
    [
        ("tasks/quiz.yaml", "a: &a [x]\ntask: *a\n", "E0102", ("tasks/quiz.yaml", 1)),
        ("tasks/quiz.yaml", "task: [\n", "E0101", ("tasks/quiz.yaml", 2)),
        ("tasks/quiz.yaml", "task: 2001-13-45\ndataset_path: json\n", "E0409", None),
        ("tasks/quiz.yaml", "- task\n", "E0409", None),
        ("recipes/attack.yaml", "- lora\n", "E0108", ("recipes/attack.yaml", 1)),
        ("recipes/attack.yaml", "\n", "E0106", ("recipes/attack.yaml", 1)),
        ("data/chats.jsonl", "[" * 100_000 + "\n", "E0407", None),
        ("data/chats.jsonl", '{"messages": {"role": "user"}}\n', "E0407", None),
    ],
)
def test_a_bad_file_is_one_error(
    tmp_path: Path, file: str, text: str, code: str, place: tuple[str, int] | None
) -> None:
    shutil.copytree(BASE, tmp_path / "specs")
    (tmp_path / "specs" / file).write_text(text, encoding="utf-8")
    spec = tmp_path / "specs/base.yaml"
    if file.startswith("data/"):
        pinned = spec.read_text(encoding="utf-8")
        spec.write_text(re.sub(r"(chats.jsonl, sha256: )\w{64}", r"\1pending", pinned), encoding="utf-8")
    sink = Diagnostics()
    surface = load(spec, "base.yaml", sink)
    assert surface is not None
    resolve(surface, sink)
    (found,) = sink
    assert found.code == code
    assert place in (None, (found.span.file, found.span.line))
