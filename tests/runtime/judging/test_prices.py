"""The price table that estimate and spending share."""

from __future__ import annotations

from datetime import date

import pytest

from epc.compiler.contract.prices import PRICES, price_of

BILLS: dict[str, tuple[str, int, int, bool, float]] = {
    # model, input tokens, output tokens, batch, USD: list prices in whole millions, computed by hand
    "a million in": ("claude-sonnet-4-5-20250929", 1_000_000, 0, False, 3.0),
    "a million out": ("claude-sonnet-4-5-20250929", 0, 1_000_000, False, 15.0),
    "in batches": ("claude-sonnet-4-5-20250929", 1_000_000, 1_000_000, True, 9.0),
    "one judgement": ("claude-sonnet-4-5-20250929", 1_000, 40, False, 0.0036),
    "the small one": ("claude-haiku-4-5-20251001", 2_000_000, 100_000, False, 2.5),
}


@pytest.mark.parametrize("name", BILLS)
def test_what_tokens_cost(name: str) -> None:
    model, input_tokens, output_tokens, batch, usd = BILLS[name]
    price = price_of(model)
    assert price is not None
    assert price.usd(input_tokens=input_tokens, output_tokens=output_tokens, batch=batch) == pytest.approx(usd)


def test_a_model_outside_the_table_has_no_price() -> None:
    assert price_of("claude-sonnet-4-5") is None


@pytest.mark.parametrize("model", PRICES)
def test_every_price_says_when_and_where_it_was_read(model: str) -> None:
    price = PRICES[model]
    assert date.fromisoformat(price.as_of)
    assert price.source
    assert not price.retires or date.fromisoformat(price.retires) > date.fromisoformat(price.as_of)
    assert 0 < price.input < price.output
