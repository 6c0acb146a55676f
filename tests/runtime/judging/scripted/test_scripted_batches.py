"""Message Batches of the scripted server through the SDK: the life of a batch, its faults, lists and refusals."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import anthropic
import pytest

from epc.runtime.judging import replies
from epc.runtime.judging.scripted import rules
from epc.runtime.judging.scripted.server import ScriptedServer

pytestmark = pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")
OUTPUT = {"aligned": "0..100"}


def params(text: str) -> Any:
    return {
        "model": "claude-sonnet-4-5-20250929", "max_tokens": 64, "messages": [{"role": "user", "content": text}],
        "output_config": {"format": {"type": "json_schema", "schema": replies.schema(OUTPUT)}},
    }  # fmt: skip


def entries(count: int) -> list[Any]:
    return [{"custom_id": f"id-{number}", "params": params(f"text {number}")} for number in range(count)]


def client(server: ScriptedServer) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="any", base_url=server.url, max_retries=0)


def ended(sdk: anthropic.Anthropic, name: str) -> Any:
    while (batch := sdk.messages.batches.retrieve(name)).processing_status != "ended":
        time.sleep(0.01)
    return batch


def test_a_batch_from_creation_to_its_results() -> None:
    with ScriptedServer(rules.automatic(), batch_seconds=0.1) as server:
        sdk = client(server)
        batch = sdk.messages.batches.create(requests=entries(50))
        assert (batch.processing_status, batch.results_url, batch.ended_at) == ("in_progress", None, None)
        assert (batch.request_counts.processing, batch.request_counts.succeeded) == (50, 0)
        with pytest.raises(anthropic.AnthropicError, match="No `results_url`"):
            sdk.messages.batches.results(batch.id)
        done = ended(sdk, batch.id)
        assert (done.request_counts.processing, done.request_counts.succeeded) == (0, 50)
        assert done.ended_at >= done.created_at
        results = list(sdk.messages.batches.results(batch.id))
        assert results == list(sdk.messages.batches.results(batch.id))
        order = [result.custom_id for result in results]
        assert sorted(order) == sorted(f"id-{number}" for number in range(50))
        assert order != [f"id-{number}" for number in range(50)]
        alone = json.loads(sdk.messages.create(**params("text 7")).content[0].text)
        kept: Any = next(result.result for result in results if result.custom_id == "id-7")
        assert json.loads(kept.message.content[0].text) == alone
        assert sum(call.route == "item" for call in server.calls) == 50


def test_what_can_become_of_a_request() -> None:
    fates = {
        "text 0": "errored",
        "text 1": "no reply",
        "text 2": "refusal",
        "text 3": "400",
        "text 4": "empty",
        "text 5": "reset",
    }
    with ScriptedServer(rules.automatic(), faults=lambda call: fates.get(call.message), batch_seconds=0.0) as server:
        sdk = client(server)
        bad: Any = {"custom_id": "bad", "params": {**params("x"), "max_tokens": "many"}}
        batch = sdk.messages.batches.create(requests=[*entries(8), bad])
        counts = ended(sdk, batch.id).request_counts
        assert (counts.succeeded, counts.errored, counts.expired, counts.canceled) == (4, 4, 1, 0)
        found: dict[str, Any] = {each.custom_id: each.result for each in sdk.messages.batches.results(batch.id)}
        kinds = {name: result.error.error.type for name, result in found.items() if result.type == "errored"}
        assert kinds == {
            "id-0": "api_error", "id-3": "invalid_request_error", "id-5": "api_error", "bad": "invalid_request_error",
        }  # fmt: skip
        assert found["id-1"].type == "expired"
        assert found["id-2"].message.stop_reason == "refusal"
        assert found["id-4"].message.content == []


def test_rates_of_the_wire_spare_the_requests_within() -> None:
    with ScriptedServer(rules.automatic(), faults={"429": 0.5, "no JSON": 0.2}, batch_seconds=0.0) as server:
        sdk = client(server)
        outcomes: Counter[str] = Counter()
        batch: Any = None
        while batch is None or batch.processing_status != "ended":
            try:
                batch = (
                    sdk.messages.batches.retrieve(batch.id)
                    if batch
                    else sdk.messages.batches.create(requests=entries(100))
                )
                outcomes["done"] += 1
            except anthropic.RateLimitError:
                outcomes["429"] += 1
        assert batch.request_counts.succeeded == 100
        assert 5 <= server.injected["no JSON"] <= 40
        assert set(server.injected) == {"", "no JSON"}


def test_a_reply_that_is_lost_leaves_a_batch_and_a_reset_none() -> None:
    faults = {"lost": "lost reply", "reset": "reset"}

    def fault(call: Any) -> str | None:
        return faults.get(str(call.request["requests"][0]["custom_id"])) if call.route == "create" else None

    with ScriptedServer(rules.automatic(), faults=fault) as server:
        sdk = client(server)
        for name in ("lost", "reset"):
            with pytest.raises(anthropic.APIConnectionError):
                sdk.messages.batches.create(requests=[{"custom_id": name, "params": params(name)}])
        assert [batch.request_counts.processing for batch in sdk.messages.batches.list()] == [1]


def test_a_cancelled_batch_keeps_what_was_answered() -> None:
    with ScriptedServer(rules.automatic(), batch_seconds=3600.0) as server:
        sdk = client(server)
        batch = sdk.messages.batches.create(requests=entries(20))
        cancelled = sdk.messages.batches.cancel(batch.id)
        assert cancelled.processing_status == "canceling"
        assert cancelled.cancel_initiated_at is not None
        counts = ended(sdk, batch.id).request_counts
        assert counts.canceled == 20
        assert {each.result.type for each in sdk.messages.batches.results(batch.id)} == {"canceled"}


def test_lists_come_newest_first_and_in_pages() -> None:
    with ScriptedServer(rules.automatic()) as server:
        sdk = client(server)
        assert list(sdk.messages.batches.list()) == []
        made = [sdk.messages.batches.create(requests=entries(1)).id for _ in range(7)]
        assert [batch.id for batch in sdk.messages.batches.list(limit=3)] == made[::-1]
        page = sdk.messages.batches.list(limit=2, after_id=made[4])
        assert ([batch.id for batch in page.data], page.has_more) == ([made[3], made[2]], True)
        page = sdk.messages.batches.list(limit=2, before_id=made[4])
        assert ([batch.id for batch in page.data], page.has_more) == ([made[6], made[5]], False)
        for wrong in ({"limit": 0}, {"limit": 1001}, {"after_id": "none"}):
            with pytest.raises(anthropic.BadRequestError):
                sdk.messages.batches.list(**wrong)


REFUSED: dict[str, tuple[Any, str]] = {
    "none": ([], "between 1 and 100000"),
    "an id that is none": ([{"custom_id": "a b", "params": {}}], "requests.0.custom_id"),
    "an id too long": ([{"custom_id": "a" * 65, "params": {}}], "requests.0.custom_id"),
    "an id twice": ([*entries(2), *entries(1)], "requests.2.custom_id: id-0 is not unique"),
    "no params": ([{"custom_id": "a"}], "requests.0.params: Field required"),
    "no entry": (["a"], "requests.0.custom_id"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_batches_that_are_refused(name: str) -> None:
    requests, said = REFUSED[name]
    with ScriptedServer(rules.automatic()) as server, pytest.raises(anthropic.BadRequestError, match=said):
        client(server).messages.batches.create(requests=requests)


def test_a_batch_that_nobody_knows() -> None:
    with ScriptedServer(rules.automatic()) as server:
        for ask in (client(server).messages.batches.retrieve, client(server).messages.batches.cancel):
            with pytest.raises(anthropic.NotFoundError, match="no batch msgbatch_x exists"):
                ask("msgbatch_x")
