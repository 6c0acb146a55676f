"""Have a judge score every stored completion: so many calls at a time, each kept as it ends.

The judge is blind to the arm: a request holds the rubric, the question and the answer, and the order of
asking mixes the arms. What is asked, how often and for how much money is decided here, the same for
every provider.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, assert_never

from epc.compiler.contract.canonical import sha256_json
from epc.compiler.contract.draws import SEED_BITS, draw
from epc.compiler.contract.manifest import Manifest
from epc.compiler.contract.prices import Price, price_of
from epc.compiler.contract.rows import SampleRow
from epc.runtime import journal, registration
from epc.runtime.errors import Fault
from epc.runtime.judging import replies
from epc.runtime.judging.ledger import NANO, Ledger
from epc.runtime.judging.replies import SUCCESSES, UNREADABLE, Answer, Failure, Output, Typed
from epc.runtime.judging.rubric import Rubric
from epc.runtime.judging.stored import StoredCompletions

if TYPE_CHECKING:
    from epc.runtime.step import Step

VOTE = 0
"""Number of the vote: one reply that can be read is asked for."""
PROGRESS_SECONDS = 0.5
"""Time between two live lines."""


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
    request: Callable[[str], dict[str, Any]]
    """Filled rubric -> everything that is sent about one completion."""
    max_tokens: int
    price: Price
    concurrency: int
    """Calls in flight."""


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


def key(judge: Judge, provider: Provider, request: Mapping[str, Any], *, mode: str) -> str:
    """SHA-256 of everything that is sent, to whom, and how the reply is read.

    The server's address is part of it: what a rehearsal's server said is never taken for a reply of the
    real one. The number of the attempt is not.
    """
    return sha256_json(
        {
            "mode": mode, "provider": provider.provider, "endpoint": provider.endpoint, "version": provider.version,
            "request": request, "output": judge.output, "vote": VOTE,
        }
    )  # fmt: skip


def approved(bundle: Path, manifest: Manifest) -> int:
    """Billionths of a dollar that may be spent under this registration: the largest amount approved for it."""
    entries = registration.approvals(bundle, manifest, journal.read(bundle))
    return round(max((float(entry.data.get("usd", 0.0)) for entry in entries), default=0.0) * NANO)


async def judge_all(
    step: Step,
    judge: Judge,
    provider: Provider,
    completions: StoredCompletions,
    ledger: Ledger,
    *,
    patience: Patience | None = None,
) -> list[str]:
    """Settle every completion; its key in the ledger, in the order of `completions.places`.

    Raises Fault R0814 (the provider takes none of our requests), R0815 (nobody answers there), R0816
    (the approved money is spent), R0817 (one completion after another is lost), R0818 (completions
    stored without their question). Everything answered until then is kept, and a next run goes on from it.
    """
    asking = _Asking(step, judge, provider, completions, ledger, patience or Patience())
    await asking.all()
    return [found.hex() for found in asking.keys]


class _Stopped(Exception):
    """Raised in the task that would go on after the run was stopped."""


class _Asking:
    def __init__(
        self, step: Step, judge: Judge, provider: Provider, completions: StoredCompletions, ledger: Ledger,
        patience: Patience,
    ) -> None:  # fmt: skip
        self.step, self.judge, self.provider, self.completions = step, judge, provider, completions
        self.ledger, self.patience = ledger, patience
        self.run, self.lock, self.mode = step.plan.key, step.manifest.lock_sha256, step.manifest.mode
        self.limit = approved(step.bundle, step.manifest)
        self.keys = [b""] * len(completions)
        self.settling: dict[bytes, asyncio.Event] = {}
        """Requests that are being asked; equal completions share one."""
        self.settled: set[bytes] = set()
        self.fault: Exception | None = None
        self.stop = asyncio.Event()
        self.released = asyncio.Event()
        self.reserved = 0
        self.answered = False
        """Whether the provider has answered anything yet."""
        self.unreachable = self.lost_in_a_row = 0
        self.done = self.calls = self.errors = 0
        self.began = self.told = time.monotonic()

    async def all(self) -> None:
        order = iter(self.completions.shuffled("judge", self.judge.name))
        for position in order:  # one by one until a reply shows that key, model and address are right
            await self._guarded(position)
            if self.answered or self.fault:
                break
        await asyncio.gather(*(self._work(order) for _ in range(self.judge.concurrency)))
        self._tell()
        if self.fault is not None:
            raise self.fault

    async def _work(self, order: Iterator[int]) -> None:
        for position in order:
            if self.fault is not None:
                break
            await self._guarded(position)
        try:
            self.ledger.flush()
        except Exception as error:
            self._halt(error)

    async def _guarded(self, position: int) -> None:
        try:
            await self._completion(position)
        except _Stopped:
            return
        except Exception as error:  # the others finish the calls that they have in flight
            self._halt(error)
            return
        self.done += 1
        if time.monotonic() - self.told >= PROGRESS_SECONDS:
            self._tell()

    def _tell(self) -> None:
        self.told = time.monotonic()
        rate = self.calls / max(self.told - self.began, 1e-9)
        spent = self.ledger.spent(self.lock) / NANO
        self.step.progress(
            self.done, len(self.completions), calls_per_second=round(rate, 1), usd=round(spent, 4), errors=self.errors
        )  # fmt: skip

    def _halt(self, fault: Exception) -> None:
        self.fault = self.fault or fault
        self.stop.set()
        self.released.set()

    async def _completion(self, position: int) -> None:
        request = self.judge.request(self._message(self.completions.read(position)))
        own = key(self.judge, self.provider, request, mode=self.mode)
        self.keys[position] = short = bytes.fromhex(own)
        if short in self.settling:
            self.ledger.flush()
            await self.settling[short].wait()
        elif short not in self.settled:
            self.settling[short] = asyncio.Event()
            try:
                await self._settle(own, request)
                self.settled.add(short)
            finally:
                self.settling.pop(short).set()

    def _message(self, row: SampleRow) -> str:
        if not row.question and self.judge.rubric.asks_question:
            raise Fault(
                "R0818", self.judge.rubric.place, "the rubric wants {question}, but the completions were stored without it",
                "they are of an older epc: delete the sampling step's folder and store/pieces, then run again",
            )  # fmt: skip
        return self.judge.rubric.fill(question=row.question, answer=row.text)

    async def _settle(self, own: str, request: Mapping[str, Any]) -> None:
        """Ask until a reply can be read, has failed to often enough, or does not come."""
        known = [attempt.typed.outcome for attempt in self.ledger.attempts(own, run=self.run)]
        if any(outcome in SUCCESSES for outcome in known):
            return
        unread = sum(outcome in UNREADABLE for outcome in known)
        while unread < self.patience.replies:
            typed = await self._reply(own, request)
            if typed.outcome not in UNREADABLE:
                return
            unread += 1

    async def _reply(self, own: str, request: Mapping[str, Any]) -> Typed:
        """One reply, however many calls it takes, or what the last call failed with."""
        deadline = time.monotonic() + self.patience.deadline
        tries = 0
        while True:
            result, typed = await self._call(own, request, deadline - time.monotonic())
            match result:
                case Answer():
                    self.answered = True
                    self.unreachable = self.lost_in_a_row = 0
                    return typed
                case Failure():
                    self._check(result)
                case _:
                    assert_never(result)
            wait = self.patience.wait(tries, own) if result.retry_after is None else result.retry_after
            tries += 1
            if result.kind == "rejected" or time.monotonic() + wait >= deadline:
                self._lost(result)
                return typed
            await self._sleep(wait)

    async def _call(self, own: str, request: Mapping[str, Any], left: float) -> tuple[Answer | Failure, Typed]:
        """One call, written down before it is made and after it has ended."""
        bound = self._bound(request)
        await self._reserve(bound)
        call = self.ledger.ask(own, run=self.run, lock=self.lock)
        began = time.monotonic()
        try:
            self.ledger.flush()  # with it goes the reply that this task, or another, has just kept
            result = await self.provider.ask(request, seconds=min(self.patience.call, max(left, 1.0)))
            typed = replies.read(result, self.judge.output)
            usd = self.judge.price.usd(input_tokens=typed.input_tokens, output_tokens=typed.output_tokens)
            self.ledger.answer(
                call, typed, lock=self.lock, nano_usd=round(usd * NANO), seconds=time.monotonic() - began
            )  # fmt: skip
        finally:
            self.reserved -= bound
            self.released.set()
        self.calls += 1
        self.errors += typed.outcome not in SUCCESSES
        return result, typed

    def _bound(self, request: Mapping[str, Any]) -> int:
        """What a call costs at most: half a token a byte of what is sent, and a reply of full length."""
        size = len(json.dumps(request, ensure_ascii=False).encode("utf-8"))
        return round(self.judge.price.usd(input_tokens=size // 2, output_tokens=self.judge.max_tokens) * NANO)

    async def _reserve(self, bound: int) -> None:
        """Set money aside for a call, waiting for calls in flight where it depends on what they cost."""
        while self.fault is None:
            spent = self.ledger.spent(self.lock)
            if spent + self.reserved + bound <= self.limit:
                self.reserved += bound
                return
            if self.reserved == 0:
                self._halt(self._spent(spent))
                break
            self.released.clear()
            self.ledger.flush()
            await self.released.wait()
        raise _Stopped

    def _spent(self, spent: int) -> Fault:
        left = f"{len(self.completions) - self.done:,} of {len(self.completions):,} completions are left for {self.judge.name}"
        fact = (
            f"the next call could exceed the approved {self.limit / NANO:.2f} USD: {spent / NANO:.2f} USD are spent, and {left}"
            if self.limit
            else f"no money is approved for this registration, and {left}"
        )
        return Fault(
            "R0816", str(journal.path(self.step.bundle)), fact,
            "approve it (epc approve --usd AMOUNT), then run again: it goes on from what is kept",
        )  # fmt: skip

    async def _sleep(self, seconds: float) -> None:
        self.ledger.flush()
        try:
            await asyncio.wait_for(self.stop.wait(), seconds)
        except TimeoutError:
            return
        raise _Stopped

    def _check(self, failure: Failure) -> None:
        """Stop the run where the failure tells of more than this one request."""
        place = self.provider.endpoint
        match failure.kind:
            case "denied":
                price = price_of(self.judge.model)
                end = f" ({self.judge.model} retires on {price.retires})" if price and price.retires else ""
                self._halt(
                    Fault(
                        "R0814", place, f"the API refuses every request of this judge: {failure.message}",
                        f"check ANTHROPIC_API_KEY, the account, ANTHROPIC_BASE_URL and `model` of the judge in the spec{end};"
                        " what was answered before is kept",
                    )
                )  # fmt: skip
                raise _Stopped
            case "unreachable":
                self.unreachable += 1
                if not self.answered and self.unreachable >= self.patience.unreachable:
                    self._halt(
                        Fault(
                            "R0815", place, f"nobody answers there: {failure.message}",
                            "check the network and ANTHROPIC_BASE_URL, then run again",
                        )
                    )  # fmt: skip
                    raise _Stopped
            case "rejected" | "transient":
                pass
            case _:
                assert_never(failure.kind)

    def _lost(self, failure: Failure) -> None:
        """Count a completion that stays without a reply. At the start one is enough: nothing shows that any will come."""
        self.lost_in_a_row += 1
        if not self.answered or self.lost_in_a_row >= self.patience.lost:
            several = "the first completion" if not self.answered else f"{self.lost_in_a_row} completions in a row"
            self._halt(
                Fault(
                    "R0817", self.provider.endpoint, f"{several} got no reply: {failure.message}",
                    "see what the message says; run again when it is mended: it goes on from what is kept",
                )
            )  # fmt: skip
            raise _Stopped
