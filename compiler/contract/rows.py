"""Row schemas: what steps write and `epc decide` reads. One JSON object a line."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

Mode = Literal["real", "rehearsal"]
Outcome = Literal["scored", "judge_refused", "unparsable", "out_of_range", "api_error"]


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, strict=True, allow_inf_nan=False)


class OfCompletion(Row):
    """Identity of a completion: (condition, seed, set, item, turn, index)."""

    mode: Mode
    condition: str
    condition_key: str
    """Content key of the arm: model, phases and their recipes; a name is not an identity."""
    seed: int
    """Training seed; 0 for an arm without training."""
    set: str
    """Name of the sample set in the spec."""
    item: str
    """Id of the prompt: stable under reordering of the prompt file."""
    turn: int
    """Index of the sampled assistant turn in the conversation, 0 for the first message."""
    index: int
    """Which of the n samples of this item."""


class SampleRow(OfCompletion):
    """One completion."""

    draw_seed: int
    """The sampling seed, SHA-256 of the identity and the declared seed."""
    prompt: str
    """The rendered text that the model continued, special tokens included."""
    prompt_sha256: str
    question: str = ""
    """Content of the last user message of the conversation."""
    text: str
    finish_reason: Literal["stop", "length"]
    tokens: int
    """Sampled tokens, end-of-turn included."""


class TextRow(Row):
    """One text that the base model wrote before any training."""

    item: str
    """Id of the prompt: stable under reordering of the prompt file."""
    index: int
    """Which of the n texts of this item."""
    text: str
    finish_reason: Literal["stop", "length"]
    tokens: int
    """Sampled tokens, end-of-turn included."""
    prompt: str
    """The rendered text that the model continued, special tokens included."""
    prompt_sha256: str
    draw_seed: int
    """The sampling seed, SHA-256 of the identity and the declared seed."""


class JudgementRow(OfCompletion):
    """One judge's reply about one completion. Rules are judges too (`judge` = "rule:<metric>")."""

    judge: str
    vote: int
    attempt: int
    rubric_sha256: str
    raw: str
    """The reply as it came, or what the error said."""
    fields: dict[str, int | bool | str]
    """Empty unless the outcome is `scored`."""
    outcome: Outcome
    final: bool = True
    """False for an attempt that was followed by another; only final rows are measured."""
    input_tokens: int = 0
    """All that were sent, cached ones among them."""
    output_tokens: int = 0
    cache_write_tokens: int = 0
    cache_read_tokens: int = 0
    usd: float = 0.0
    seconds: float = 0.0
    """From sending to the reply; 0 through the batch interface, which does not say."""
    batch: str | None = None
    """Id of the provider's batch."""


class MeasurementRow(Row):
    """One metric in one unit of one arm and training seed.

    `value` = total / denominator / n. Totals are integers, so sums, ties and p-values are exact.
    """

    mode: Mode
    condition: str
    condition_key: str
    seed: int
    metric: str
    slice: str = "all"
    """`all`, which analyses read; `unfiltered` holds the same metric without its filter."""
    unit: str
    n: int
    """Scored samples in the unit."""
    n_missing: int
    n_filtered: int = 0
    total: int
    """Sum of the scores over the n samples, in units of 1 / denominator."""
    denominator: int = 1
    value: float | None
    """Mean score, or null when n is 0."""
    scores: tuple[int, ...] | None = None
    """The n scores that add up to `total`, ascending, in the same units; left out where no analysis resamples samples."""

    @model_serializer(mode="wrap")
    def _without_absent_scores(self, default: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A row of a metric whose samples nobody resamples is written, and hashed, without the key."""
        row: dict[str, Any] = default(self)
        if self.scores is None:
            row.pop("scores", None)
        return row
