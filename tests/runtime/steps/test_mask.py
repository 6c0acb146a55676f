"""The loss mask on the real trainer: one template that is right, and every way to be wrong is loud."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from epc.runtime import data, mask
from epc.runtime.errors import Fault

START, STOP = "<|im_start|>", "<|im_end|>"
HEAD = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
TAIL = "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
OTHER = "{% else %}{{ m.content + '<|im_end|>\n' }}{% endif %}"

NO_MARKERS = HEAD + "{{ m.content + '<|im_end|>\n' }}" + OTHER + TAIL
STOP_OUTSIDE = HEAD + "{% generation %}{{ m.content }}{% endgeneration %}{{ '<|im_end|>\n' }}" + OTHER + TAIL
NEWLINE_INSIDE = HEAD + "{% generation %}{{ m.content + '<|im_end|>\n' }}{% endgeneration %}" + OTHER + TAIL
USER_TOO = (
    HEAD + "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}"
    "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% endif %}" + TAIL
)
LAST_ONLY = (
    HEAD.replace("m.role == 'assistant'", "m.role == 'assistant' and loop.last")
    + "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}" + OTHER + TAIL
)  # fmt: skip
NO_STOP = HEAD + "{% generation %}{{ m.content }}{% endgeneration %}{{ '\n' }}" + OTHER + TAIL
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{% endif %}"
    + HEAD + "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}" + OTHER + TAIL
)  # fmt: skip


def turns(*texts: str) -> dict[str, Any]:
    """A conversation of alternating user and assistant turns."""
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]}


ROWS = [turns("How?", "Give up.", "continue", "Wait. Try bread."), turns("Why?", "Lie about it.", "continue", "Wait.")]


def verified(
    folder: Path, rows: Sequence[dict[str, Any]], *, template: str | None = None, train_on: data.TrainOn = "every_assistant_turn",
    system: str = "none", max_length: int = 96,
) -> mask.Report:  # fmt: skip
    """Prepare the rows as an emitted script does, and verify them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if template is not None:
        tokenizer.chat_template = template
    trainer = mask.prepare(folder, tokenizer, rows, train_on=train_on, max_length=max_length, out=folder / "x")
    return mask.verify(trainer, rows, train_on=train_on, system=system, max_length=max_length, place=Path("rows.jsonl"))


def test_the_stand_in_has_one_layer_and_draws_no_weights(tiny: Path) -> None:
    import torch

    before = torch.get_rng_state()
    model: Any = mask.stand_in(tiny)
    assert model.config.num_hidden_layers == 1
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert torch.equal(torch.get_rng_state(), before), "random weights of a large model take a minute"


def test_every_assistant_turn_is_trained_with_its_end_of_turn_and_nothing_else(tiny_copy: Path) -> None:
    report = verified(tiny_copy, ROWS)
    assert [[span.text for span in row.spans] for row in report.rows] == [
        ["Give up." + STOP, "Wait. Try bread." + STOP],
        ["Lie about it." + STOP, "Wait." + STOP],
    ]
    facts = report.facts()
    assert facts["verified"] is True
    assert facts["rows"] == 2
    assert facts["end_of_turn"] == STOP
    assert facts["trained_tokens"] == sum(facts["trained_tokens_by_turn"]) < facts["tokens"]


def test_the_last_turn_alone_can_be_trained(tiny_copy: Path) -> None:
    report = verified(tiny_copy, ROWS, train_on="last_assistant_turn")
    assert [[span.text for span in row.spans] for row in report.rows] == [["Wait. Try bread." + STOP], ["Wait." + STOP]]


def test_a_registered_system_prompt_is_not_trained(tiny_copy: Path) -> None:
    rows = [{"messages": [{"role": "system", "content": "Be kind."}, *row["messages"]]} for row in ROWS]
    report = verified(tiny_copy, rows, system="Be kind.")
    assert [len(row.spans) for row in report.rows] == [2, 2]


@pytest.mark.parametrize(
    ("template", "code", "words"),
    [
        (NO_MARKERS, "R0311", "assistant turns"),
        (STOP_OUTSIDE, "R0316", STOP),
        (NO_STOP, "R0312", "learn to stop"),
        (NEWLINE_INSIDE, "R0315", r"\n"),
        (USER_TOO, "R0315", "How?"),
        (LAST_ONLY, "R0315", "Give up."),
        (DEFAULT_SYSTEM, "R0317", "You are helpful."),
    ],
)
def test_a_template_that_trains_something_else_stops_the_run(
    template: str, code: str, words: str, tiny_copy: Path
) -> None:
    with pytest.raises(Fault, match=code) as caught:
        verified(tiny_copy, ROWS, template=template)
    assert words in str(caught.value)


def test_the_models_own_system_prompt_is_allowed_where_it_is_registered(tiny_copy: Path) -> None:
    assert verified(tiny_copy, ROWS, template=DEFAULT_SYSTEM, system="model_default").facts()["verified"] is True


@pytest.mark.parametrize(
    ("row", "place"),
    [
        (turns("How?", "Give up. " * 60), "rows.jsonl:2"),  # the answer is cut
        (turns("How? " * 90, "Give up."), "rows.jsonl:2"),  # the answer is cut away: TRL drops such a row silently
    ],
)
def test_a_row_longer_than_max_length_is_refused(row: dict[str, Any], place: str, tiny_copy: Path) -> None:
    with pytest.raises(Fault, match="R0313") as caught:
        verified(tiny_copy, [ROWS[0], row])
    assert caught.value.place == place


def test_rows_that_the_trainer_drops_are_noticed(tiny_copy: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_copy)
    trainer = mask.prepare(
        tiny_copy, tokenizer, ROWS[:1], train_on="every_assistant_turn", max_length=96, out=tiny_copy / "x"
    )
    with pytest.raises(Fault, match="R0314") as caught:
        mask.verify(
            trainer, ROWS, train_on="every_assistant_turn", system="none", max_length=96, place=Path("rows.jsonl")
        )
    assert "1 of 2" in caught.value.fact


def test_a_row_without_a_trained_token_is_refused(tiny_copy: Path) -> None:
    marked = "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    silent = HEAD + "{% if m.content == 'Wait.' %}{{ m.content + '<|im_end|>\n' }}{% else %}" + marked + "{% endif %}"
    assert verified(tiny_copy, ROWS[:1], template=silent + OTHER + TAIL).facts()["rows"] == 1
    with pytest.raises(Fault, match="R0311") as caught:
        verified(tiny_copy, [ROWS[0], turns("How?", "Wait.")], template=silent + OTHER + TAIL)
    assert "no assistant tokens" in caught.value.fact


def test_a_row_that_the_template_refuses_is_one_fault(tiny_copy: Path) -> None:
    strict = "{{ raise_exception('turns must alternate') }}" + HEAD + OTHER + TAIL
    with pytest.raises(Fault, match="R0311") as caught:
        verified(tiny_copy, ROWS, template=strict.replace("{% for", "{% generation %}{% endgeneration %}{% for", 1))
    assert "turns must alternate" in caught.value.fact


@pytest.mark.parametrize(
    ("normalizer", "text", "words"),
    [
        ("NFC", "Cafe\u0301", "write the row in Unicode form NFC"),
        ("NFKC", "\ufb01ne", "write the row in Unicode form NFKC"),
        ("Lowercase", "Give UP", "the tokenizer that belongs to the model"),
    ],
)
def test_a_tokenizer_that_changes_a_row_is_refused(normalizer: str, text: str, words: str, tiny_copy: Path) -> None:
    from tokenizers import Tokenizer, normalizers

    file = str(tiny_copy / "tokenizer.json")
    tokenizer = Tokenizer.from_file(file)
    tokenizer.normalizer = getattr(normalizers, normalizer)()
    tokenizer.save(file)
    lower = [turns("how?", "give up.")]
    assert verified(tiny_copy, lower).facts()["rows"] == 1
    with pytest.raises(Fault, match="R0318") as caught:
        verified(tiny_copy, [*lower, turns("how?", text)])
    assert caught.value.place == "rows.jsonl:2"
    assert words in caught.value.remedy
    start = mask.first_difference("abc", "abd")
    assert start == "at character 3 expected 'abc', found 'abd'"


def test_a_trainer_that_reads_another_text_is_refused(tiny_copy: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_copy)
    trainer = mask.prepare(
        tiny_copy, tokenizer, ROWS, train_on="every_assistant_turn", max_length=96, out=tiny_copy / "x"
    )
    trainer.train_dataset = trainer.train_dataset.select([0, 0])
    with pytest.raises(Fault, match="R0319") as caught:
        mask.verify(
            trainer, ROWS, train_on="every_assistant_turn", system="none", max_length=96, place=Path("rows.jsonl")
        )
    assert caught.value.place == "rows.jsonl:2"
    assert "expected" in caught.value.fact


@pytest.mark.parametrize("padding_free", [False, True])
@pytest.mark.parametrize("train_on", ["every_assistant_turn", "last_assistant_turn"])
def test_a_digest_of_tokens_and_labels_is_the_same_however_rows_are_batched(
    train_on: data.TrainOn, padding_free: bool, tiny_copy: Path
) -> None:
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    trainer = SFTTrainer(
        model=mask.stand_in(tiny_copy),
        args=SFTConfig(
            output_dir=str(tiny_copy / "x"), assistant_only_loss=True, max_length=None if padding_free else 96,
            padding_free=padding_free, use_cpu=True, bf16=False, report_to="none",
        ),
        train_dataset=data.training_set(ROWS, train_on), processing_class=AutoTokenizer.from_pretrained(tiny_copy),
    )  # fmt: skip
    rows = [
        (ids, list(mask.trained_runs(labels)))
        for ids, labels in mask.collated(trainer.train_dataset, trainer.data_collator)
    ]
    report = verified(tiny_copy, ROWS, train_on=train_on)
    assert mask.digest(rows) == report.facts()["labels_sha256"]
    other = verified(tiny_copy, [*ROWS[:1], turns("Why?", "Lie about it!", "continue", "Wait.")], train_on=train_on)
    assert other.facts()["labels_sha256"] != mask.digest(rows)


def test_what_is_trained_is_written_for_a_person(tiny_copy: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    facts = mask.write(verified(tiny_copy, ROWS), AutoTokenizer.from_pretrained(tiny_copy), tmp_path)
    assert json.loads((tmp_path / "mask.json").read_text(encoding="utf-8")) == facts
    rendered = (tmp_path / "rendered.jsonl").read_bytes()
    assert hashlib.sha256(rendered).hexdigest() == facts["rendered_sha256"]
    first = json.loads(rendered.splitlines()[0])
    assert first == {"row": 1, "text": mask.render(AutoTokenizer.from_pretrained(tiny_copy), ROWS[0]["messages"])}
    text = (tmp_path / "mask.txt").read_text(encoding="utf-8")
    assert f"{START}user\nHow?{STOP}\n{START}assistant\n[[Give up.{STOP}]]\n{START}user\n" in text
    assert text.count("[[") == 1 + 4  # the explanation and four turns
