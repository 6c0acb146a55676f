"""Have a judge score every stored completion: so many calls at a time, each kept as it ends.

The judge is blind to the arm: a request holds the rubric, the question and the answer, and the order of
asking mixes the arms. What is asked, how often, how fast and for how much money is decided here, the same
for every provider. A judge with several votes is asked for the first one about every completion, then
for the second: the votes of a completion are as far apart as the run is long.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, assert_never

from epc.compiler.contract.canonical import canonical_json, sha256_text
from epc.compiler.contract.draws import SEED_BITS, draw
from epc.compiler.contract.manifest import Manifest
from epc.compiler.contract.prices import Price, price_of
from epc.compiler.contract.rows import Outcome, SampleRow
from epc.runtime import journal, registration
from epc.runtime.errors import Fault
from epc.runtime.judging import replies
from epc.runtime.judging.ledger import NANO, Ledger
from epc.runtime.judging.limits import UNDECLARED, Limits, Meter, Weight
from epc.runtime.judging.providers import VARIABLES
from epc.runtime.judging.replies import SUCCESSES, UNREADABLE, Answer, Failure, Output, Typed
from epc.runtime.judging.rubric import Rubric
from epc.runtime.judging.stored import StoredCompletions
from epc.runtime.progress import clock

if TYPE_CHECKING:
    from epc.runtime.step import Step

PROGRESS_SECONDS = 0.5
"""Time between two live lines."""
ELSEWHERE_SECONDS = 0.2
"""Time between two looks at a request that another process has asked."""


class Provider(Protocol):
    """Someone who can be asked. `provider`, `endpoint` and `version` are part of what is asked."""

    provider: str
    endpoint: str
    version: str

    async def ask(self, request: Mapping[str, Any], *, seconds: float) -> Answer | Failure: ...


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A judge as registered."""

    name: str
    model: str
    rubric: Rubric
    output: Output
    request: Callable[[str, str], dict[str, Any]]
    """The rubric's start, the same in every call, and the rest of it, filled -> everything that is sent about one
    completion."""
    max_tokens: int
    price: Price
    concurrency: int = 1
    """Calls in flight."""
    votes: int = 1
    """Replies that are asked for about each completion."""
    cache: bool = False
    """Whether the request asks the provider to cache the rubric's start."""
    limits: Limits = UNDECLARED

    def about(self, row: SampleRow) -> dict[str, Any]:
        """The request about a completion. Raises Fault R0818 for one that was stored without its question."""
        if not row.question and self.rubric.asks_question:
            raise Fault(
                "R0818", self.rubric.place, "the rubric wants {question}, but the completions were stored without it",
                "they are of an older epc: delete the sampling step's folder and store/pieces, then run again",
            )  # fmt: skip
        return self.request(self.rubric.start, self.rubric.rest(question=row.question, answer=row.text))

    def bound(self, weight: Weight, *, batch: bool = False) -> int:
        """Billionths of a dollar that a call costs at most; with a cache, all that is sent may have to be written to it."""
        usd = self.price.usd(
            input_tokens=weight.input_tokens, output_tokens=weight.output_tokens, batch=batch,
            cache_write_tokens=weight.input_tokens if self.cache else 0,
        )  # fmt: skip
        return round(usd * NANO)

    def cost(self, typed: Typed, *, batch: bool = False) -> int:
        """Billionths of a dollar that a reply has cost."""
        usd = self.price.usd(
            input_tokens=typed.input_tokens, output_tokens=typed.output_tokens, batch=batch,
            cache_write_tokens=typed.cache_write_tokens, cache_read_tokens=typed.cache_read_tokens,
        )  # fmt: skip
        return round(usd * NANO)


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often and how long the same thing is asked. What a step does is registered with the version of its kind."""

    replies: int = 3
    """Replies asked for until one can be read."""
    deadline: float = 600.0
    """Seconds for one reply, calls that failed and waiting included."""
    call: float = 120.0
    """Seconds for one call."""
    first_wait: float = 1.0
    """Seconds before a failed call is repeated; doubled each time, drawn between half and all of it."""
    longest_wait: float = 60.0
    unreachable: int = 4
    """Calls without any server behind them after which, at the start, the address is taken to be wrong."""
    lost: int = 20
    """Completions in a row that ended without a reply after which the rest is not tried."""

    def wait(self, tries: int, key: str) -> float:
        """Exponential backoff with a draw of its own for each request, so that calls do not come back in step."""
        full = min(self.longest_wait, self.first_wait * 2.0 ** min(tries, 30))
        return full * (0.5 + 0.5 * draw("backoff", key, tries) / (1 << SEED_BITS))


class Asked(Protocol):
    """What names the one asked, by whichever route."""

    provider: str
    endpoint: str
    version: str


@dataclass(frozen=True, kw_only=True)
class _Form:
    """Requests without the texts of their messages."""

    shape: str
    """What tells this form from others."""
    pieces: tuple[bytes, ...]
    """Canonical JSON of everything that a key stands for, around the texts."""
    size: int
    """Bytes of such a request as JSON, with empty texts."""


class Identities:
    """What one judge sends to one provider: the key of each request and what it weighs.

    A key is the SHA-256 of the canonical JSON of everything that is sent, to whom, and how the reply is read: the
    identity of one vote. The server's address is part of it: what a rehearsal's server said is never taken for a
    reply of the real one. The number of the attempt is not, nor the route, nor what is cached: the model sees the same.

    All but the texts is the same in one request after another, and is serialised for the first of them only.
    """

    def __init__(self, judge: Judge, provider: Asked, *, mode: str) -> None:
        self._max_tokens = judge.max_tokens
        self._same = {
            "mode": mode, "provider": provider.provider, "endpoint": provider.endpoint, "version": provider.version,
            "output": judge.output,
        }  # fmt: skip
        self._start = judge.rubric.start
        self._start_written = _JSON.encode(self._start).encode("utf-8")[:-1]
        self._forms: dict[int, _Form] = {}
        """Vote -> form of the last request."""

    def of(self, request: Mapping[str, Any], *, vote: int) -> tuple[str, Weight]:
        """Key of a vote, and the tokens of a call at most: half a token a byte of what is sent, and a reply of full length."""
        texts: list[str] = []
        messages: list[dict[str, Any]] = []
        for message in request["messages"]:
            content = message["content"]
            blank: str | list[dict[str, Any]] = ""
            if not isinstance(content, str):
                blank = [{**block, "text": ""} for block in content]
                content = "".join([block["text"] for block in content])
            texts.append(content)
            messages.append({**message, "content": blank})
        blanked = {**request, "messages": messages}
        shape = repr(blanked)
        form = self._forms.get(vote)
        if form is None or form.shape != shape:
            form = self._forms[vote] = self._form(blanked, shape, vote)
        digest = hashlib.sha256(form.pieces[0])
        size = form.size
        for text, after in zip(texts, form.pieces[1:], strict=True):
            if text.startswith(self._start):
                written = self._start_written + _JSON.encode(text[len(self._start) :]).encode("utf-8")[1:]
            else:
                written = _JSON.encode(text).encode("utf-8")
            size += len(written) - len('""')
            digest.update(written)
            digest.update(after)
        return digest.hexdigest(), Weight(input_tokens=size // 2, output_tokens=self._max_tokens)

    def _form(self, blanked: Mapping[str, Any], shape: str, vote: int) -> _Form:
        place = sha256_text(shape)  # a text that holds its own hash is not found
        messages = [{**message, "content": place} for message in blanked["messages"]]
        whole = canonical_json({**self._same, "request": {**blanked, "messages": messages}, "vote": vote})
        return _Form(
            shape=shape, pieces=tuple(piece.encode("utf-8") for piece in whole.split(f'"{place}"')),
            size=len(_JSON.encode(blanked).encode("utf-8")),
        )  # fmt: skip


_JSON: Final = json.JSONEncoder(ensure_ascii=False)


def approved(bundle: Path, manifest: Manifest) -> int:
    """Billionths of a dollar that may be spent under this registration: the largest amount approved for it."""
    entries = registration.approvals(bundle, manifest, journal.read(bundle))
    return round(max((float(entry.data.get("usd", 0.0)) for entry in entries), default=0.0) * NANO)


def denied(judge: Judge, provider: Asked, failure: Failure) -> Fault:
    """What stops a run whose every request is refused."""
    variables, price = VARIABLES[provider.provider], price_of(judge.model)
    end = f" ({judge.model} retires on {price.retires})" if price and price.retires else ""
    return Fault(
        "R0814", provider.endpoint, f"the API refuses every request of this judge: {failure.message}",
        f"check {variables.key}, the account, {variables.url} and `model` of the judge in the spec{end};"
        " what was answered before is kept",
    )  # fmt: skip


def unreachable(provider: Asked, failure: Failure) -> Fault:
    """What stops a run that never reached anybody who speaks the protocol."""
    return Fault(
        "R0815", provider.endpoint, f"nobody answers there: {failure.message}",
        f"check the network and {VARIABLES[provider.provider].url}, then run again",
    )  # fmt: skip


async def judge_all(
    step: Step,
    judge: Judge,
    provider: Provider,
    completions: StoredCompletions,
    ledger: Ledger,
    *,
    patience: Patience | None = None,
) -> list[list[str]]:
    """Settle every vote about every completion.

    [completion][vote] -> its key in the ledger, completions in the order of `completions.places`. Raises Fault R0814 (the provider takes none of our requests), R0815 (nobody answers there), R0816
    (the approved money is spent), R0817 (one completion after another is lost), R0818 (completions
    stored without their question). Everything answered until then is kept, and a next run goes on from it.
    """
    asking = _Asking(step, judge, provider, completions, ledger, patience or Patience())
    gc.freeze()  # what is loaded by now is no garbage, and need not be looked through again and again
    try:
        await asking.all()
    finally:
        gc.unfreeze()
    return [[asking.keys[vote][position].hex() for vote in range(judge.votes)] for position in range(len(completions))]


_NOT_MADE = Failure(message="the call was not made", kind="transient")


class _Stopped(Exception):
    """Raised in the task that would go on after the run was stopped."""


class _Asking:
    def __init__(
        self, step: Step, judge: Judge, provider: Provider, completions: StoredCompletions, ledger: Ledger,
        patience: Patience,
    ) -> None:  # fmt: skip
        self.step, self.judge, self.provider, self.completions = step, judge, provider, completions
        self.ledger, self.patience = ledger, patience
        self.run, self.lock = step.plan.key, step.manifest.lock_sha256
        self.limit = approved(step.bundle, step.manifest)
        self.keys = [[b""] * len(completions) for _ in range(judge.votes)]
        self.identities = Identities(judge, provider, mode=step.manifest.mode)
        self.settling: dict[bytes, list[asyncio.Future[None]]] = {}
        """Votes that are being asked for, and who waits for one; equal completions share one."""
        self.settled: dict[bytes, Outcome] = {}
        self.outcomes: Counter[Outcome] = Counter()
        self.meter = Meter(judge.limits)
        self.turn = asyncio.Lock()
        self.fault: Exception | None = None
        self.stop = asyncio.Event()
        self.released = asyncio.Event()
        self.reserved = 0
        self.answered = False
        """Whether the provider has answered anything yet."""
        self.unreachable = self.lost_in_a_row = 0
        self.calls = self.asked = 0
        """Calls, and votes that took any."""
        self.total = len(completions) * judge.votes
        self.began = self.told = time.monotonic()

    async def all(self) -> None:
        order = self._order()
        for vote, position in order:  # one by one until a reply shows that key, model and address are right
            await self._guarded(vote, position)
            if self.answered or self.fault:
                break
        await asyncio.gather(*(self._work(order) for _ in range(self.judge.concurrency)))
        self._tell()
        if self.fault is not None:
            raise self.fault

    def _order(self) -> Iterator[tuple[int, int]]:
        """(vote, position) of all that is to be asked. A next vote has an order of its own."""
        for vote in range(self.judge.votes):
            for position in self.completions.shuffled("judge", self.judge.name, *([vote] if vote else [])):
                yield vote, position

    async def _work(self, order: Iterator[tuple[int, int]]) -> None:
        for vote, position in order:
            if self.fault is not None:
                break
            await self._guarded(vote, position)
        try:
            self.ledger.flush()
        except Exception as error:
            self._halt(error)

    async def _guarded(self, vote: int, position: int) -> None:
        try:
            self.outcomes[await self._vote(vote, position)] += 1
        except _Stopped:
            return
        except Exception as error:  # the others finish the calls that they have in flight
            self._halt(error)
            return
        if time.monotonic() - self.told >= PROGRESS_SECONDS:
            self._tell()

    @property
    def done(self) -> int:
        """Votes that are settled."""
        return self.outcomes.total()

    def _tell(self) -> None:
        self.told = time.monotonic()
        seconds = max(self.told - self.began, 1e-9)
        facts: dict[str, float | str] = {"calls_per_second": round(self.calls / seconds, 1)}
        if self.limit:
            facts["usd"] = f"{self.ledger.spent(self.lock) / NANO:.2f} of {self.limit / NANO:.2f}"
        if self.asked:
            facts["left"] = clock((self.total - self.done) * seconds / self.asked)
        facts |= {outcome: f"{100 * count / self.done:.3g}%" for outcome, count in self.outcomes.most_common()}
        self.step.progress(self.done, self.total, **facts)

    def _halt(self, fault: Exception) -> None:
        self.fault = self.fault or fault
        self.stop.set()
        self.released.set()

    async def _vote(self, vote: int, position: int) -> Outcome:
        """How one vote about one completion ended."""
        request = self.judge.about(self.completions.read(position))
        own, weight = self.identities.of(request, vote=vote)
        self.keys[vote][position] = short = bytes.fromhex(own)
        while short in self.settling:
            self.ledger.flush()
            waiting = asyncio.get_running_loop().create_future()
            self.settling[short].append(waiting)
            await waiting
        if short not in self.settled:
            self.settling[short] = []
            try:
                self.settled[short] = await self._settle(own, request, weight)
            finally:
                for waiting in self.settling.pop(short):
                    if not waiting.done():
                        waiting.set_result(None)
        return self.settled[short]

    async def _settle(self, own: str, request: Mapping[str, Any], weight: Weight) -> Outcome:
        """Ask until a reply can be read, has failed to often enough, or does not come."""
        known = self._known(own)
        if known and (known[-1] in SUCCESSES or self._unread(known) >= self.patience.replies):
            return known[-1]
        self.asked += 1
        unread = self._unread(known)
        while True:
            outcome = await self._reply(own, request, weight)
            unread += outcome in UNREADABLE
            if outcome not in UNREADABLE or unread >= self.patience.replies:
                return outcome

    def _known(self, own: str) -> list[Outcome]:
        return [attempt.typed.outcome for attempt in self.ledger.attempts(own, run=self.run)]

    @staticmethod
    def _unread(outcomes: list[Outcome]) -> int:
        return sum(outcome in UNREADABLE for outcome in outcomes)

    async def _reply(self, own: str, request: Mapping[str, Any], weight: Weight) -> Outcome:
        """One reply, however many calls it takes, or what the last call failed with."""
        deadline = time.monotonic() + self.patience.deadline
        tries = 0
        while True:
            if self.meter.limited:
                deadline += await self._turn(weight)
            called = await self._call(own, request, weight, deadline)
            if called is None:  # another process has asked the same
                known = self._known(own)
                if known and known[-1] in SUCCESSES:
                    return known[-1]
                await self._sleep(ELSEWHERE_SECONDS)
                deadline += ELSEWHERE_SECONDS
                continue
            result, typed = called
            match result:
                case Answer():
                    self.answered = True
                    self.unreachable = self.lost_in_a_row = 0
                    return typed.outcome
                case Failure():
                    self._check(result)
                case _:
                    assert_never(result)
            wait = self.patience.wait(tries, own) if result.retry_after is None else result.retry_after
            tries += 1
            if result.kind == "rejected" or time.monotonic() + wait >= deadline:
                self._lost(result)
                return typed.outcome
            await self._sleep(wait)

    async def _turn(self, weight: Weight) -> float:
        """Wait until the rate limits let a call through; seconds that it took."""
        began = time.monotonic()
        self.ledger.flush()
        async with self.turn:
            while (seconds := self.meter.take(weight)) > 0:
                await self._sleep(seconds)
        return time.monotonic() - began

    async def _call(
        self, own: str, request: Mapping[str, Any], weight: Weight, deadline: float
    ) -> tuple[Answer | Failure, Typed] | None:
        """One call, written down before it is made and after it has ended. None when another process has asked it."""
        bound = self.judge.bound(weight)
        await self._reserve(bound)
        result: Answer | Failure = _NOT_MADE
        try:
            call = self.ledger.claim(own, run=self.run, lock=self.lock)
            # With it goes the reply that this task has just kept. It is not put off to be one for several tasks: they
            # would leave their connections idle meanwhile, and the client's pool probes every idle one for every call.
            self.ledger.flush()
            if call is None:
                return None
            began = time.monotonic()
            result = await self.provider.ask(request, seconds=min(self.patience.call, max(deadline - began, 1.0)))
            typed = replies.read(result, self.judge.output)
            self.ledger.answer(
                call, typed, lock=self.lock, nano_usd=self.judge.cost(typed), seconds=time.monotonic() - began
            )  # fmt: skip
        finally:
            self.meter.settle(weight, result)
            self.reserved -= bound
            self.released.set()
        self.calls += 1
        return result, typed

    async def _reserve(self, bound: int) -> None:
        """Set money aside for a call, waiting for calls in flight where it depends on what they cost."""
        while self.fault is None:
            spent, in_batches = self.ledger.spent(self.lock), self.ledger.reserved(self.lock)
            if spent + in_batches + self.reserved + bound <= self.limit:
                self.reserved += bound
                return
            if self.reserved == 0:
                self._halt(self._spent(spent, in_batches))
                break
            self.released.clear()
            self.ledger.flush()
            await self.released.wait()
        raise _Stopped

    def _spent(self, spent: int, in_batches: int) -> Fault:
        left = f"{self.total - self.done:,} of {self.total:,} {self._things} are left for {self.judge.name}"
        fact = (
            f"the next call could exceed the approved {self.limit / NANO:.2f} USD: {spent / NANO:.2f} USD are spent"
            + (f", up to {in_batches / NANO:.2f} USD are for batches under way" if in_batches else "")
            + f", and {left}"
            if self.limit
            else f"no money is approved for this registration, and {left}"
        )
        return Fault(
            "R0816", str(journal.path(self.step.bundle)), fact,
            "approve it (epc approve --usd AMOUNT), then run again: it goes on from what is kept",
        )  # fmt: skip

    @property
    def _things(self) -> str:
        return "completions" if self.judge.votes == 1 else "votes"

    async def _sleep(self, seconds: float) -> None:
        self.ledger.flush()
        try:
            await asyncio.wait_for(self.stop.wait(), seconds)
        except TimeoutError:
            return
        raise _Stopped

    def _check(self, failure: Failure) -> None:
        """Stop the run where the failure tells of more than this one request."""
        match failure.kind:
            case "denied":
                self._halt(denied(self.judge, self.provider, failure))
                raise _Stopped
            case "unreachable":
                self.unreachable += 1
                if not self.answered and self.unreachable >= self.patience.unreachable:
                    self._halt(unreachable(self.provider, failure))
                    raise _Stopped
            case "rejected" | "transient":
                pass
            case _:
                assert_never(failure.kind)

    def _lost(self, failure: Failure) -> None:
        """Count a completion that stays without a reply. At the start one is enough: nothing shows that any will come."""
        self.lost_in_a_row += 1
        if not self.answered or self.lost_in_a_row >= self.patience.lost:
            several = "the first completion" if not self.answered else f"{self.lost_in_a_row} {self._things} in a row"
            self._halt(
                Fault(
                    "R0817", self.provider.endpoint, f"{several} got no reply: {failure.message}",
                    "see what the message says; run again when it is mended: it goes on from what is kept",
                )
            )  # fmt: skip
            raise _Stopped
