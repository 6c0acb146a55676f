"""What a call of a judge model and an hour of a GPU cost: list prices with the day they were read.

USD per million tokens, and USD an hour. A model that is not in the table has no price here; a spec states one
instead. The compiler computes an estimate with these, the runtime what was spent.
"""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field


class Price(BaseModel):
    """List price of a model."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    input: float = Field(ge=0)
    """USD per million input tokens."""
    output: float = Field(ge=0)
    """USD per million output tokens, thinking included."""
    cache_write: float = 1.25
    """What an input token costs that is written into the provider's prompt cache, relative to one that is not."""
    cache_read: float = 0.1
    """And one that is read from it."""
    batch_factor: float = 1.0
    """What a call through the provider's batch interface costs, relative to one that is not."""
    as_of: str = ""
    """Day on which the price was read."""
    source: str = ""
    retires: str = ""
    """Day from which the provider refuses the model, where one is announced."""

    def usd(
        self, *, input_tokens: int, output_tokens: int, cache_write_tokens: int = 0, cache_read_tokens: int = 0,
        batch: bool = False,
    ) -> float:  # fmt: skip
        """Dollars for that many tokens; `input_tokens` are all that were sent, the cached ones among them."""
        plain = input_tokens - cache_write_tokens - cache_read_tokens
        sent = plain + cache_write_tokens * self.cache_write + cache_read_tokens * self.cache_read
        total = (sent * self.input + output_tokens * self.output) / 1e6
        return total * (self.batch_factor if batch else 1.0)


BATCH_FACTOR: Final = 0.5
"""What a call through Anthropic's Message Batches costs, relative to the same through Messages: every model, every
token (platform.claude.com/docs/en/build-with-claude/batch-processing, read 2026-11-21)."""


def _claude(input_price: float, output_price: float, *, cache_read: float = 0.1, retires: str = "") -> Price:
    return Price(
        input=input_price, output=output_price, cache_read=cache_read, batch_factor=BATCH_FACTOR, as_of="2026-10-24", retires=retires,
        source="model pages of Anthropic's platform documentation",
    )  # fmt: skip


PRICES: Final[dict[str, Price]] = {
    "claude-opus-4-5-20251101": _claude(5.0, 25.0),
    "claude-sonnet-4-5-20250929": _claude(3.0, 15.0, retires="2026-11-30"),
    "claude-haiku-4-5-20251001": _claude(1.0, 5.0),
    # From 4.6 on, an id without a date names one fixed model for as long as it is served.
    "claude-opus-4-6": _claude(5.0, 25.0),
    "claude-sonnet-4-6": _claude(3.0, 15.0),
    "claude-opus-4-7": _claude(5.0, 25.0),
    "claude-opus-4-8": _claude(5.0, 25.0),
    "claude-opus-5": _claude(5.0, 25.0),
    "claude-sonnet-5": _claude(2.0, 10.0),
    "claude-opus-5-5": _claude(4.0, 20.0, cache_read=0.05),
    "claude-sonnet-5-5": _claude(2.0, 10.0, cache_read=0.05),
    "claude-haiku-5-5": _claude(0.1, 0.5),  # of prompts up to 100,000 tokens; five times that above
}


def price_of(model: str) -> Price | None:
    """The price of a model id, None when it is not in the table."""
    return PRICES.get(model)


class GpuPrice(BaseModel):
    """List price of renting a GPU."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    usd_per_hour: float = Field(gt=0)
    """On demand, one GPU."""
    tflops: float = Field(gt=0)
    """Peak of dense bf16 matrix products, from NVIDIA's data sheet."""
    as_of: str
    """Day on which the price was read."""
    source: str


def _hyperstack(usd_per_hour: float, *, tflops: float) -> GpuPrice:
    return GpuPrice(
        usd_per_hour=usd_per_hour, tflops=tflops, as_of="2026-08-26", source="Hyperstack's public list of on-demand prices"
    )  # fmt: skip


GPU_PRICES: Final[dict[str, GpuPrice]] = {
    "h200-sxm": _hyperstack(3.99, tflops=989),
    "h100-sxm": _hyperstack(3.20, tflops=989),
    "a100-sxm": _hyperstack(1.60, tflops=312),  # 80 GB
    "l40": _hyperstack(1.00, tflops=181),
}
