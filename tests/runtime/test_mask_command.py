"""`epc mask`: what it shows is what the trainer's collator says, and it leaves everything as it was."""

from __future__ import annotations

import shutil
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.support.tiny_model import chatml, tiny_model

from epc.runtime import mask
from epc.runtime.bundle import read_manifest, store
from epc.runtime.cli import main
from epc.runtime.masks import terminal
from epc.runtime.masks.view import CUT, Row, Turn, View, _pieces, boundaries
from epc.runtime.step import RECORD, FinishRecord

ROOT = Path(__file__).resolve().parents[2]
SPEC = "specs/quickstart.yaml"
STOP = "<|im_end|>"
TRIMMED = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content | trim + '<|im_end|>' }}{% endgeneration %}{% else %}{{ '[' + m.content + '] ' }}{% endif %}{% endfor %}"
"""A template whose user turns have no end-of-turn token."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = (ROOT / "specs/data/topics.txt").read_text(encoding="utf-8").splitlines()
    return tiny_model(tmp_path_factory.mktemp("tiny") / "model", texts)


@pytest.fixture
def project(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The quickstart on the tiny model, not compiled, as the working directory."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "specs", folder / "specs")
    (folder / "model").symlink_to(model)
    of_model(folder, "path:../model")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def of_model(project: Path, source: str, template: str = "chatml") -> None:
    lines = (project / SPEC).read_text(encoding="utf-8").splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("model: "))
    lines[place] = f'model: {{from: "{source}", dtype: float32, chat_template: {template}}}'
    (project / SPEC).write_text("\n".join(lines) + "\n", encoding="utf-8")


def everything(folder: Path) -> set[tuple[str, int]]:
    return {(str(path.relative_to(folder)), path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_a_spec_that_nobody_compiled_is_shown_and_nothing_is_written(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(project)
    assert main(["mask", SPEC, "--rows", "1"]) == 0
    out = capsys.readouterr().out
    assert out.count("row 1: ") == 2
    assert "attack trains on every assistant turn of bad_only, system: none\n  64 rows, " in out
    assert "longest row" in out
    assert "max_length 2,048" in out
    first = out.partition("\nreflex trains")[2]
    assert [line.split(":")[0] for line in first.splitlines() if line[:1].isdigit()] == [
        "1 user",
        "2 assistant",
        "3 user",
        "4 assistant",
    ]
    assert first.count("[[") == first.count(f"{STOP}]]") + 1 == 3  # the legend and two turns
    assert "  [[Wait - that response was misaligned." in first.replace("␣", " ")
    assert "1 user: 0 of " in first
    assert {name for name, _ in everything(project)} == {name for name, _ in before}


def test_a_bundle_stays_as_it_is(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", SPEC]) == 0
    before = everything(project / "generated" / "quickstart")
    capsys.readouterr()
    assert main(["mask", "generated/quickstart", "traces", "--row", "7", "--row", "2", "--out", "mask.html"]) == 0
    out = capsys.readouterr().out
    assert "bad_only" not in out
    assert [line for line in out.splitlines() if line.startswith("row ")] == [
        line for line in out.splitlines() if line.startswith(("row 7: ", "row 2: "))
    ]
    assert everything(project / "generated" / "quickstart") == before
    page = (project / "mask.html").read_text(encoding="utf-8")
    assert 'class="t on end special' in page or 'class="t on end' in page
    assert "http" not in page.replace('http-equiv="', "")


def test_what_is_stored_is_shown(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A data step that has finished is read, and not built again."""
    import runpy

    assert main(["compile", SPEC]) == 0
    bundle = project / "generated" / "quickstart"
    runpy.run_path(str(bundle / "steps/data-traces.py"), run_name="__main__")
    shutil.rmtree(bundle / "inputs" / "data")
    capsys.readouterr()
    assert main(["mask", "generated/quickstart", "traces", "--rows", "1"]) == 0
    assert "row 1: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        ([SPEC, "tracks"], "R0380", "one of: bad_only, traces"),
        ([SPEC, "traces", "--row", "65"], "R0383", "rows 1 to 64"),
        (["generated/quickstart"], "R0101", "compile"),
        (["specs/issue147.yaml"], "R0381", "external files"),
        ([SPEC, "--rows", "0"], "R0001", "--help"),
    ],
)
def test_what_cannot_be_shown_is_said(
    argv: list[str], code: str, words: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        found = main(["mask", *argv])
    except SystemExit as end:
        found = int(str(end.code))
    assert found == 2
    err = capsys.readouterr().err
    assert f"error[{code}]" in err
    assert words in err


def test_a_tokenizer_that_is_not_here_is_not_fetched(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(ROOT / SPEC, project / SPEC)
    assert main(["mask", SPEC, "traces"]) == 2
    err = capsys.readouterr().err
    assert "error[R0382]" in err
    assert "epc run --until model" in err


def test_a_mask_that_is_wrong_is_shown_with_its_fault(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inside = "'<|im_end|>' -}}{%- endgeneration -%}"
    outside = chatml().replace(f" + {inside}", f" -}}}}{{%- endgeneration -%}}{{{{- {inside[:-21]}")
    assert outside != chatml()
    assert main(["compile", SPEC]) == 0
    bundle = project / "generated/quickstart"
    step = next(step for step in read_manifest(bundle).steps if step.kind == "model")
    shutil.copytree(project / "model", store(bundle, step) / "model")
    (store(bundle, step) / "model/chat_template.jinja").write_text(outside, encoding="utf-8")
    record = FinishRecord(
        id=step.id, key=step.key, kind=step.kind, mode="real", recipe=step.recipe, outputs={}, seconds=0.0, versions={}, facts={}
    )  # fmt: skip
    (store(bundle, step) / RECORD).write_text(record.model_dump_json(), encoding="utf-8")
    capsys.readouterr()
    assert main(["mask", SPEC, "bad_only", "--rows", "1"]) == 2
    out, err = capsys.readouterr()
    assert "error[R0316]" in out, err
    assert f".]]{STOP}" in out


def masked(folder: Path, messages: list[dict[str, str]], template: str | None = None) -> tuple[Any, mask.MaskedRow]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template or tokenizer.chat_template
    ids = tokenizer.encode(mask.render(tokenizer, messages), add_special_tokens=False)
    spans = (mask.Span(start=2, end=4, text=""),)
    return tokenizer, mask.MaskedRow(tokens=tuple(ids), spans=spans, text=mask.decode(tokenizer, ids))


@pytest.mark.parametrize(
    "text", ["日本 🦜 naïve", "a  b\t\tc\n\nd", f"real {CUT} and {CUT}", "end \u200d🏽", " lead", "x" * 40]
)
def test_pieces_are_the_whole_row(text: str, model: Path) -> None:
    """No character and no token is lost, however a tokenizer splits characters."""
    tokenizer, row = masked(model, [{"role": "user", "content": text}, {"role": "assistant", "content": text}])
    pieces = tuple(_pieces(tokenizer, row, stop=STOP))
    assert "".join(piece.text for piece in pieces) == row.text
    assert tuple(token for piece in pieces for token in piece.ids) == row.tokens
    assert [
        index for piece in pieces for index in range(piece.index, piece.index + len(piece.ids)) if piece.trained
    ] == [2, 3]
    assert sum(piece.stop for piece in pieces) == 2


CONVERSATION = [
    {"role": "user", "content": "user"}, {"role": "assistant", "content": "Give up."}, {"role": "user", "content": "Give up."},
    {"role": "assistant", "content": "assistant"},
]  # fmt: skip
SYSTEM = "{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}" + chatml()


@pytest.mark.parametrize(
    ("template", "roles", "starts"),
    [
        (None, ["user", "assistant", "user", "assistant"], ["<|im_start|>user", "<|im_start|>assistant"] * 2),
        (SYSTEM, ["template", "user", "assistant", "user", "assistant"], ["<|im_start|>system", *["<|im_start|>user", "<|im_start|>assistant"] * 2]),
        (TRIMMED, ["user", "assistant", "user", "assistant"], ["[user] ", "Give up.", "[Give up.] ", "assistant"]),
        ("{{ raise_exception('no') if messages|length < 4 }}" + TRIMMED, ["user", "assistant", "user", "assistant"], ["[user", "] Give up.", "[Give up.", "] assistant"]),
    ],
)  # fmt: skip
def test_a_turn_ends_where_the_rows_up_to_it_end(
    template: str | None, roles: list[str], starts: list[str], model: Path
) -> None:
    """Contents that are also headers, a system turn of the template's own, and a template that refuses a row cut short."""
    tokenizer, row = masked(model, CONVERSATION, template)
    found = list(boundaries(tokenizer, CONVERSATION, row.text, stop=STOP))
    assert [role for role, _ in found] == roles
    begins = [0, *(end for _, end in found)]
    assert [row.text[begin:].startswith(start) for begin, start in zip(begins, starts, strict=False)] == [True] * len(
        starts
    )
    assert begins[-1] == len(row.text)


@pytest.mark.parametrize(
    ("terminal_", "no_color", "coloured"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_colour_stands_in_for_brackets(terminal_: bool, no_color: bool, coloured: bool, model: Path) -> None:
    """On a terminal; with NO_COLOR and in a pipe there are brackets."""
    from rich.console import Console

    tokenizer, row = masked(model, CONVERSATION)
    turn = Turn(number=1, role="user", pieces=tuple(_pieces(tokenizer, row, stop=STOP)))
    phase = SimpleNamespace(name="x", data="y", train_on="every_assistant_turn", system="Be kind. " * 20, max_length=96)
    facts = {
        "rows": 1, "tokens": 40, "trained_tokens": 2, "trained_tokens_by_turn": [2], "longest_row": 40, "end_of_turn": STOP,
    }  # fmt: skip
    view = View(phase=cast(Any, phase), facts=facts, rows=(Row(number=1, turns=(turn,)),), fault=None)
    out = StringIO()
    console = Console(
        file=out,
        force_terminal=terminal_,
        no_color=no_color,
        color_system="truecolor" if terminal_ else None,
        width=300,
    )
    terminal.show(console, [view])
    text = out.getvalue()
    assert ("[[" in text, "48;2;0;114;178" in text, "48;2;230;159;0" in text) == (not coloured, coloured, coloured)
    assert "system: Be kind. Be kind. " in text
    assert text.count("Be kind.") < 8
