"""What a reply of a judge counts as, and what is asked for."""

from __future__ import annotations

import pytest

from epc.runtime.judging import replies
from epc.runtime.judging.replies import Answer, Failure

OUTPUT = {"aligned": "0..100", "shift": "-5..5", "harmful": "bool"}
GOOD = '{"aligned": 80, "shift": -5, "harmful": true}'

REPLIES: dict[str, tuple[str, str]] = {
    "as asked": (GOOD, "scored"),
    "space around it": (f"\n {GOOD}\n", "scored"),
    "other order": ('{"harmful": true, "shift": -5, "aligned": 80}', "scored"),
    "lower end": ('{"aligned": 0, "shift": 0, "harmful": false}', "scored"),
    "upper end": ('{"aligned": 100, "shift": 5, "harmful": false}', "scored"),
    "above the range": ('{"aligned": 101, "shift": 0, "harmful": false}', "out_of_range"),
    "below the range": ('{"aligned": 50, "shift": -6, "harmful": false}', "out_of_range"),
    "a sentinel": ('{"aligned": -1, "shift": 0, "harmful": false}', "out_of_range"),
    "outside and of a wrong type": ('{"aligned": 101, "shift": 0, "harmful": 1}', "unparsable"),
    "empty": ("", "unparsable"),
    "prose": ("I would say 80.", "unparsable"),
    "prose around it": (f"Here it is: {GOOD}", "unparsable"),
    "a code fence": (f"```json\n{GOOD}\n```", "unparsable"),
    "cut off": (GOOD[:-1], "unparsable"),
    "two objects": (GOOD + GOOD, "unparsable"),
    "a list": (f"[{GOOD}]", "unparsable"),
    "null": ("null", "unparsable"),
    "a field missing": ('{"aligned": 80, "shift": 0}', "unparsable"),
    "a field too many": ('{"aligned": 80, "shift": 0, "harmful": true, "why": 1}', "unparsable"),
    "a field twice": ('{"aligned": 20, "aligned": 80, "shift": 0, "harmful": true}', "unparsable"),
    "a float": ('{"aligned": 85.0, "shift": 0, "harmful": true}', "unparsable"),
    "an exponent": ('{"aligned": 8e1, "shift": 0, "harmful": true}', "unparsable"),
    "NaN": ('{"aligned": NaN, "shift": 0, "harmful": true}', "unparsable"),
    "a number in quotes": ('{"aligned": "80", "shift": 0, "harmful": true}', "unparsable"),
    "a bool for a number": ('{"aligned": true, "shift": 0, "harmful": true}', "unparsable"),
    "a number for a bool": ('{"aligned": 80, "shift": 0, "harmful": 1}', "unparsable"),
    "null for a number": ('{"aligned": null, "shift": 0, "harmful": true}', "unparsable"),
    "a number of many digits": ('{"aligned": ' + "9" * 5000 + ', "shift": 0, "harmful": true}', "unparsable"),
    "nested too deep": ("[" * 100_000, "unparsable"),
}


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_counts_as(name: str) -> None:
    text, outcome = REPLIES[name]
    typed = replies.read(Answer(text=text, stop="end", input_tokens=9, output_tokens=4), OUTPUT)
    assert (typed.outcome, typed.raw) == (outcome, text)
    assert (typed.input_tokens, typed.output_tokens) == (9, 4)
    assert bool(typed.fields) == (outcome == "scored")
    if outcome == "scored":
        assert {name: type(value) for name, value in typed.fields.items()} == {
            "aligned": int, "shift": int, "harmful": bool,
        }  # fmt: skip


def test_how_the_reply_ended_comes_before_what_it_says() -> None:
    refused = replies.read(Answer(text=GOOD, stop="refusal", input_tokens=1, output_tokens=1), OUTPUT)
    cut = replies.read(Answer(text=GOOD, stop="cut", input_tokens=1, output_tokens=1), OUTPUT)
    assert (refused.outcome, refused.fields) == ("judge_refused", {})
    assert (cut.outcome, cut.fields) == ("unparsable", {})


def test_no_reply_is_an_api_error_with_what_was_said() -> None:
    typed = replies.read(Failure(message="HTTP 529: overloaded", kind="transient"), OUTPUT)
    assert (typed.outcome, typed.fields, typed.raw) == ("api_error", {}, "HTTP 529: overloaded")


def test_the_schema_asks_for_every_field_and_no_other() -> None:
    assert replies.schema(OUTPUT) == {
        "type": "object",
        "properties": {"aligned": {"type": "integer"}, "shift": {"type": "integer"}, "harmful": {"type": "boolean"}},
        "required": ["aligned", "shift", "harmful"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize("kind", ["0..", "float", "5..1", "0...9", " 0..1", ""])
def test_bounds_of_anything_else_are_an_error(kind: str) -> None:
    with pytest.raises(ValueError, match="neither bool nor a range"):
        replies.bounds(kind)
