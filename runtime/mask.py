"""Which tokens are trained: read from what the trainer's collator returns, compared with the messages.

The check runs on the real tokenizer, chat template and trainer, and on every row. Nothing falls
back to another mask. The step before a training and `epc mask` go through the same functions, and the
training compares the digest of its own tokens and labels with the one that was verified.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_never

from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.chat import NO_SYSTEM, Message
from epc.runtime.data import TrainOn, training_set
from epc.runtime.errors import Fault

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

IGNORED = -100
"""Label of a token that does not count in the loss."""
COLLATED = 32
"""Rows collated at a time."""
SHOWN = 8
"""Rows written to mask.txt."""
AROUND = 12
"""Characters shown on either side of a difference."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A maximal run of trained tokens, as indices [start, end) into the row's tokens."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, kw_only=True)
class MaskedRow:
    tokens: tuple[int, ...]
    spans: tuple[Span, ...]
    text: str
    """All tokens as text, special ones included."""


@dataclass(frozen=True, kw_only=True)
class Report:
    rows: tuple[MaskedRow, ...]
    chat_template_sha256: str
    end_of_turn: str

    def facts(self) -> dict[str, Any]:
        """Counts for the finish record: rows, tokens, trained tokens, and those of each assistant turn."""
        turns: dict[int, int] = {}
        for row in self.rows:
            for turn, span in enumerate(row.spans):
                turns[turn] = turns.get(turn, 0) + span.end - span.start
        return {
            "verified": True,
            "rows": len(self.rows),
            "tokens": sum(len(row.tokens) for row in self.rows),
            "longest_row": max(len(row.tokens) for row in self.rows),
            "trained_tokens": sum(turns.values()),
            "trained_tokens_by_turn": [turns[turn] for turn in sorted(turns)],
            "labels_sha256": digest((row.tokens, [(span.start, span.end) for span in row.spans]) for row in self.rows),
            "rendered_sha256": sha256_text(self.rendered()),
            "end_of_turn": self.end_of_turn,
            "chat_template_sha256": self.chat_template_sha256,
        }

    def rendered(self) -> str:
        """The text of every row as the model reads it, one JSON object a line."""
        lines = (
            json.dumps({"row": number, "text": row.text}, ensure_ascii=False)
            for number, row in enumerate(self.rows, start=1)
        )
        return "".join(f"{line}\n" for line in lines)


def digest(rows: Iterable[tuple[Sequence[int], Sequence[tuple[int, int]]]]) -> str:
    """SHA-256 of the token ids and the trained runs [start, end) of rows in their order, however they are batched."""
    found = hashlib.sha256()
    for tokens, runs in rows:
        found.update(json.dumps([list(tokens), [list(run) for run in runs]], separators=(",", ":")).encode() + b"\n")
    return found.hexdigest()


def prepare(
    model_dir: Path, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Mapping[str, Any]], *, train_on: TrainOn,
    max_length: int, out: Path,
) -> Any:  # fmt: skip
    """The trainer as a training builds it, around a stand-in for the model; its rows are tokenized and masked.

    Raises Fault R0311 for a chat template in which it cannot find the assistant's turns.
    """
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    with explained(model_dir):
        return SFTTrainer(
            model=stand_in(model_dir),
            args=SFTConfig(
                output_dir=str(out), assistant_only_loss=True, max_length=max_length, packing=False, use_cpu=True,
                bf16=False, report_to="none",
            ),
            train_dataset=training_set(rows, train_on), processing_class=tokenizer,
        )  # fmt: skip


def stand_in(model_dir: Path) -> PreTrainedModel:
    """A one-layer model of the same architecture whose weights are never filled.

    The mask depends on the tokenizer and its template alone, so no real weights are loaded to check it;
    drawing random ones would take a minute for the embeddings of a 7B model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(model_dir)
    text = config.get_text_config()
    text.num_hidden_layers = 1
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:1]
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return model.to_empty(device="cpu")


@contextmanager
def explained(model_dir: Path) -> Iterator[None]:
    """Turn the trainer's refusal of a chat template, and the template's refusal of a row, into Fault R0311."""
    from jinja2 import TemplateError

    try:
        yield
    except TemplateError as error:
        raise Fault(
            "R0311", str(model_dir / "chat_template.jinja"), f"the chat template cannot render a row: {error}",
            "give rows the turns that the template asks for, or use model.chat_template: chatml",
        ) from None  # fmt: skip
    except (ValueError, RuntimeError) as error:
        if "template" not in str(error):
            raise
        raise Fault(
            "R0311", str(model_dir / "chat_template.jinja"),
            f"the trainer cannot find the assistant turns in this chat template: {str(error).splitlines()[0]}",
            "mark them with {% generation %} and {% endgeneration %}, or use model.chat_template: chatml",
        ) from None  # fmt: skip


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> str:
    """The token that ends an assistant turn, as text. Raises Fault R0312 when the template writes none."""
    answer = "answer"
    text = render(tokenizer, [{"role": "user", "content": "question"}, {"role": "assistant", "content": answer}])
    after = tokenizer.encode(text.rpartition(answer)[2], add_special_tokens=False)
    if not after or after[0] not in tokenizer.all_special_ids:
        raise Fault(
            "R0312", "chat template", "no special token follows an assistant turn, so a model could not learn to stop",
            "write the end-of-turn token after the content in the chat template",
        )  # fmt: skip
    token = tokenizer.convert_ids_to_tokens(after[0])
    assert isinstance(token, str)
    return token


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, to_continue: bool = False) -> str:
    """The text the template makes of the messages; with `to_continue`, the assistant's header follows."""
    text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=to_continue)
    assert isinstance(text, str)
    return text


def refuse_unasked_system(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, system: str, place: str
) -> None:
    """Raise Fault R0317 when the template writes a system turn that the messages do not have.

    Only `model_default` lets the template speak for itself.
    """
    if system == "model_default" or any(message["role"] == "system" for message in messages):
        return
    empty = [{"role": message["role"], "content": "#"} for message in messages]
    skeleton = render(tokenizer, empty, to_continue=messages[-1]["role"] == "user")
    if "system" in skeleton.lower():
        wanted = "registered is `system: none`" if system in NO_SYSTEM else "the registered system text is absent"
        raise Fault(
            "R0317", place, f"the chat template adds a system turn of its own ({skeleton[:80]!r}); {wanted}",
            "write system: model_default if that is meant, or use model.chat_template: chatml",
        )  # fmt: skip


def expected_spans(messages: Sequence[Message], train_on: TrainOn, stop: str) -> list[str]:
    """What must be trained: each trained assistant turn with its end-of-turn token, nothing else."""
    turns = [message["content"] + stop for message in messages if message["role"] == "assistant"]
    match train_on:
        case "every_assistant_turn":
            return turns
        case "last_assistant_turn":
            return turns[-1:]
        case _:
            assert_never(train_on)


def collated(dataset: Any, collator: Any) -> Iterator[tuple[list[int], list[int]]]:
    """(token ids, labels) of every row as the collator hands it to the model, padded or laid end to end."""
    for start in range(0, len(dataset), COLLATED):
        batch = collator([dataset[row] for row in range(start, min(start + COLLATED, len(dataset)))])
        ids, labels = batch["input_ids"].tolist(), batch["labels"].tolist()
        if "attention_mask" in batch:
            for row, lengths in enumerate(batch["attention_mask"].sum(dim=1).tolist()):
                yield ids[row][:lengths], labels[row][:lengths]
            continue
        begins = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
        for begin, end in zip(begins, [*begins[1:], len(ids[0])], strict=True):
            yield ids[0][begin:end], labels[0][begin:end]


def collated_rows(trainer: Any, tokenizer: PreTrainedTokenizerBase) -> Iterator[MaskedRow]:
    """Every row of the prepared data set, with its trained runs as text."""
    for ids, labels in collated(trainer.train_dataset, trainer.data_collator):
        spans = (
            Span(start=start, end=end, text=decode(tokenizer, ids[start:end])) for start, end in trained_runs(labels)
        )
        yield MaskedRow(tokens=tuple(ids), spans=tuple(spans), text=decode(tokenizer, ids))


def trained_runs(labels: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The maximal runs [start, end) of labels that count in the loss."""
    start = None
    for position, label in enumerate([*labels, IGNORED]):
        if label != IGNORED and start is None:
            start = position
        if label == IGNORED and start is not None:
            yield start, position
            start = None


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of token ids, special ones included and no space tidied away."""
    text = tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


def verify(
    trainer: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    train_on: TrainOn,
    system: str,
    max_length: int,
    place: Path,
) -> Report:
    """Compare the trained spans of every row with its messages. `place` is the rows file, for errors.

    Raises Fault R0312 (no end-of-turn token), R0313 (a row is cut), R0314 (rows were dropped), R0315
    (other text is trained than the assistant turns, or none), R0316 (the end-of-turn token is not trained),
    R0317 (a system turn nobody asked for), R0318 (the tokenizer changes a text), R0319 (the trainer reads another
    text than the chat template makes), R1882 (a turn is trained after another text than the one that asks for it),
    R1883 (a conversation begins twice), R1884 (a text spells a special token), R1885 (a row is longer than the model
    reads).
    """
    tokenizer: Any = trainer.processing_class
    stop = end_of_turn(tokenizer)
    special = special_texts(tokenizer)
    lengths: list[int] = []
    for number, row in enumerate(rows, start=1):
        refuse_unasked_system(tokenizer, row["messages"], system=system, place=f"{place}:{number}")
        refuse_special_text(row["messages"], special, place=f"{place}:{number}")
        text = render(tokenizer, row["messages"])
        ids = tokenizer.encode(text, add_special_tokens=False)
        refuse_changed_text(text, decode(tokenizer, ids), place=f"{place}:{number}")
        _refuse_two_beginnings(tokenizer, ids, place=f"{place}:{number}")
        lengths.append(len(ids))
    _refuse_long(lengths, trainer, max_length=max_length, place=place)
    if len(trainer.train_dataset) != len(rows):
        raise Fault(
            "R0314", str(place), f"the trainer keeps {len(trainer.train_dataset)} of {len(rows)} rows",
            "a row without a trained token is dropped without a word: every row needs an assistant turn",
        )  # fmt: skip
    report = found(trainer, tokenizer)
    for number, (row, masked) in enumerate(zip(rows, report.rows, strict=True), start=1):
        if (text := render(tokenizer, row["messages"])) != masked.text:
            raise Fault(
                "R0319", f"{place}:{number}", f"the trainer reads another text than the chat template makes: {first_difference(text, masked.text)}",
                "report it with the versions of trl and transformers: rows must be tokenized as they are rendered",
            )  # fmt: skip
        _compare(f"{place}:{number}", expected_spans(row["messages"], train_on, stop), masked, stop)
        _require_asked(tokenizer, row["messages"], masked, place=f"{place}:{number}")
    return report


def special_texts(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """The texts that a tokenizer reads as special tokens, longest first."""
    added: Mapping[int, Any] = tokenizer.added_tokens_decoder
    return tuple(
        sorted({token.content for token in added.values() if token.special}, key=lambda text: (-len(text), text))
    )


def refuse_special_text(messages: Sequence[Message], special: Sequence[str], *, place: str) -> None:
    """Raise Fault R1884 for a message whose text the tokenizer reads as one of its special tokens."""
    for turn, message in enumerate(messages, start=1):
        found = next((text for text in special if text in message["content"]), None)
        if found is not None:
            raise Fault(
                "R1884", place, f"turn {turn} spells {found}, which the tokenizer reads as that special token and not as text",
                "take it out of the row: it may end the turn early, or begin one that nobody wrote",
            )  # fmt: skip


def _refuse_two_beginnings(tokenizer: Any, ids: Sequence[int], *, place: str) -> None:
    """Raise Fault R1883 for two beginning-of-sequence tokens in a row."""
    begin = tokenizer.bos_token_id
    if begin is not None and any(pair == (begin, begin) for pair in pairwise(ids)):
        raise Fault(
            "R1883", place, f"the conversation begins with {tokenizer.bos_token} twice",
            "write it once in the chat template; a model has never seen two",
        )  # fmt: skip


def _refuse_long(lengths: Sequence[int], trainer: Any, *, max_length: int, place: Path) -> None:
    """Raise Fault R0313 for rows of more tokens than `max_length`, R1885 for more than the model has positions."""
    reads = getattr(trainer.model.config.get_text_config(), "max_position_embeddings", None)
    for code, limit, called, remedy in (
        ("R0313", max_length, f"max_length is {max_length}: it would be cut", "raise max_length to {}, or shorten the row"),
        ("R1885", reads, f"the model reads {reads}", "shorten the row, or train a model that reads {}"),
    ):  # fmt: skip
        over = [] if limit is None else [number for number, length in enumerate(lengths, start=1) if length > limit]
        if over:
            others = f" ({len(over)} of {len(lengths)} rows are too long)" if len(over) > 1 else ""
            raise Fault(
                code, f"{place}:{over[0]}", f"the row has {lengths[over[0] - 1]} tokens, {called}{others}",
                remedy.format(max(lengths)),
            )  # fmt: skip


def _require_asked(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], masked: MaskedRow, *, place: str
) -> None:
    """Raise Fault R1882 unless each trained turn comes after the very tokens that ask for it when texts are sampled.

    Some templates write something between the header and a turn that is there, such as an empty thought, which they do
    not write where a turn is asked for; some tokens span the end of the header.
    """
    from jinja2 import TemplateError

    turns = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    for number, span in zip(turns[len(turns) - len(masked.spans) :], masked.spans, strict=True):
        if number == 0:  # nothing asks for a turn that opens a conversation
            continue
        try:
            asked = render(tokenizer, messages[:number], to_continue=True)
        except TemplateError as error:
            raise _unasked(place, number, f"the chat template cannot ask for it: {error}") from None
        before = decode(tokenizer, masked.tokens[: span.start])
        if asked != before:
            raise _unasked(
                place, number, f"it is trained after another text than asks for it: {first_difference(asked, before)}"
            )
        if tuple(tokenizer.encode(asked, add_special_tokens=False)) != masked.tokens[: span.start]:
            raise _unasked(place, number, "the text that asks for it is in other tokens than the text before it")


def _unasked(place: str, number: int, fact: str) -> Fault:
    return Fault(
        "R1882", place, f"turn {number + 1}: {fact}",
        "a model would be sampled from what it was never trained to continue: use model.chat_template: chatml",
    )  # fmt: skip


def found(trainer: Any, tokenizer: PreTrainedTokenizerBase) -> Report:
    """What a trainer trains, right or wrong. Raises Fault R0312 when no end-of-turn token follows an assistant turn."""
    template = trainer.chat_template or tokenizer.chat_template
    return Report(
        rows=tuple(collated_rows(trainer, tokenizer)), chat_template_sha256=sha256_text(template),
        end_of_turn=end_of_turn(tokenizer),
    )  # fmt: skip


def refuse_changed_text(text: str, decoded: str, *, place: str) -> None:
    """Raise Fault R0318 unless the tokenizer gives a text back as it was."""
    if text == decoded:
        return
    form = next((form for form in ("NFC", "NFKC") if unicodedata.normalize(form, text) == decoded), None)
    raise Fault(
        "R0318", place, f"the tokenizer does not give the text back that it is given: {first_difference(text, decoded)}",
        f"write the row in Unicode form {form}, into which the tokenizer turns it" if form is not None
        else "use the tokenizer that belongs to the model, or rows of characters that it knows",
    )  # fmt: skip


def first_difference(expected: str, found: str) -> str:
    """Where two texts part, for a message."""
    place = next(
        (i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), min(len(expected), len(found))
    )
    around = slice(max(0, place - AROUND), place + AROUND)
    return f"at character {place + 1} expected {expected[around]!r}, found {found[around]!r}"


def _compare(place: str, expected: Sequence[str], masked: MaskedRow, stop: str) -> None:
    trained = [span.text for span in masked.spans]
    if list(expected) == trained:
        return
    if [text.removesuffix(stop) for text in expected] == trained:
        raise Fault(
            "R0316", place, f"the end-of-turn token {stop} is not trained: expected {expected[0]!r}, trained {trained[0]!r}",
            "move it before {% endgeneration %} in the chat template, or the model never learns to stop",
        )  # fmt: skip
    pairs = [*zip(expected, trained, strict=False)]
    turn = next((i for i, (wanted, got) in enumerate(pairs) if wanted != got), len(pairs))
    wanted = repr(expected[turn]) if turn < len(expected) else "nothing more"
    got = repr(trained[turn]) if turn < len(trained) else "nothing"
    raise Fault(
        "R0315", place, f"trained span {turn + 1} is not the assistant turn: expected {wanted}, trained {got}",
        "write the row without white space around the turn: the template trims it, or a token spans it"
        if turn < len(pairs) and _bare(expected[turn], stop) == _bare(trained[turn], stop)
        else "mark the content and the end-of-turn token of assistant turns in the chat template, and nothing else",
    )  # fmt: skip


def _bare(text: str, stop: str) -> str:
    return text.removesuffix(stop).strip()


def write(report: Report, tokenizer: PreTrainedTokenizerBase, folder: Path) -> dict[str, Any]:
    """Write mask.json (counts), mask.txt (the first rows with trained text in [[ ]]) and rendered.jsonl (the text of
    every row, whose SHA-256 is among the counts); return the facts.
    """
    facts = report.facts()
    (folder / "rendered.jsonl").write_text(report.rendered(), encoding="utf-8")
    (folder / "mask.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    parts = [f"Trained text stands in [[ ]]. {facts['trained_tokens']} of {facts['tokens']} tokens are trained.\n"]
    for number, row in enumerate(report.rows[:SHOWN], start=1):
        marked, done = [], 0
        for span in row.spans:
            marked += [decode(tokenizer, row.tokens[done : span.start]), "[[", span.text, "]]"]
            done = span.end
        marked.append(decode(tokenizer, row.tokens[done:]))
        parts.append(f"--- row {number}\n{''.join(marked)}")
    (folder / "mask.txt").write_text("\n".join(parts), encoding="utf-8")
    return facts
