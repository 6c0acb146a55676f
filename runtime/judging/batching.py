"""Have a judge score every stored completion through the provider's batch interface, at its price.

What a batch holds, costs at most, and which one it is, is in the ledger before anything is awaited, so that a
next run goes on from wherever this one ended:

1. intended: the keys and what they cost at most are written down, then `create` is called;
2. in doubt: `create` was called and its reply never kept (killed, or no connection). The batches that the
   provider lists since are looked at: one with as many requests, all of them ours, is the one. Nothing is
   submitted again before that is settled;
3. running: its id is kept; it is polled;
4. ended: results are typed and kept as they stream in, in any order; read again from the start after a kill;
5. closed: every request of it has its outcome. What was answered by nothing that can be read, or was not
   answered (the provider failed, the batch expired), goes into a next batch.

An open batch belongs to the process that looks after it; another one that needs its replies waits, and takes it
over when that process has gone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar, assert_never

from epc.runtime import journal
from epc.runtime.errors import Fault
from epc.runtime.judging import GOES_ON, asking, replies
from epc.runtime.judging.asking import PROGRESS_SECONDS, Judge, Patience
from epc.runtime.judging.ledger import NANO, Batch, Ledger
from epc.runtime.judging.providers.batches import NOT_FOUND, TOO_LARGE, BatchError, Batches, State
from epc.runtime.judging.replies import SUCCESSES, UNREADABLE, Answer, Failure
from epc.runtime.judging.stored import StoredCompletions

if TYPE_CHECKING:
    from epc.runtime.step import Step

Got = TypeVar("Got")
GIVE_UP: Final = "EPC_GIVE_UP_BATCH"
"""Environment variable: batches whose replies are not waited for any more, by id, separated by commas."""
CLOCKS: Final = timedelta(hours=1)
"""By how much the provider's clock may differ from ours."""
READINGS: Final = 3
"""How often the results of a batch are read in search of those that are missing."""
WORTH: Final = 10
"""A batch of what the money suffices for is made where that is more than one request in so many."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How batches are made and looked after."""

    first_poll: float = 5.0
    """Seconds until a batch is looked at again; half as much more each time."""
    longest_poll: float = 60.0
    doubt: float = 60.0
    """Seconds for which a batch that may have been created is looked for before it is taken not to be there."""
    call: float = 600.0
    """Seconds for creating a batch, and for the next piece of its results to arrive."""
    losses: int = 3
    """Batches without a reply to a request after which it is not asked again."""
    requests: int = 10_000
    """In a batch. The provider takes 100,000 and 256 MB; a part of that needs less memory here, and several
    batches are under way together."""
    size: int = 32 * 2**20
    """Bytes of a batch."""


class _Request(NamedTuple):
    """What is held in memory of a vote."""

    position: int
    """Of a completion that it is about."""
    size: int
    """Bytes, at most."""
    bound: int
    """Billionths of a dollar, at most."""


async def judge_all(
    step: Step,
    judge: Judge,
    batches: Batches,
    completions: StoredCompletions,
    ledger: Ledger,
    *,
    patience: Patience | None = None,
    pace: Pace | None = None,
) -> list[list[str]]:
    """Settle every vote about every completion: [completion][vote] -> its key, as `asking.judge_all`.

    Sets the fact `batches` of the step. Raises what that raises, and Fault R0853 (a batch is refused), R0854 (it
    cannot be told whether a batch was created), R0855 (the results of a batch are gone), R0856 (a batch was
    cancelled), R0857 (none of the requests of the batches got a reply). Everything answered until then is kept.
    """
    batching = _Batching(step, judge, batches, completions, ledger, patience or Patience(), pace or Pace())
    try:
        await batching.all()
    except asyncio.CancelledError:
        batching.say_what_goes_on()
        raise
    step.facts["batches"] = ledger.batch_ids(step.plan.key)
    return batching.keys


class _Batching:
    def __init__(
        self, step: Step, judge: Judge, provider: Batches, completions: StoredCompletions, ledger: Ledger,
        patience: Patience, pace: Pace,
    ) -> None:  # fmt: skip
        self.step, self.judge, self.provider, self.completions = step, judge, provider, completions
        self.ledger, self.patience, self.pace = ledger, patience, pace
        self.run, self.lock = step.plan.key, step.manifest.lock_sha256
        self.limit = asking.approved(step.bundle, step.manifest)
        self.given_up = {name.strip() for name in os.environ.get(GIVE_UP, "").split(",")} - {""}
        self.keys: list[list[str]] = []
        self.requests: dict[str, _Request] = {}
        """Every different vote, in the order of asking."""
        self.settled: set[str] = set()
        self.losses: Counter[str] = Counter()
        """Request -> batches that ended without a reply to it."""
        self.states: dict[str, State] = {}
        self.answered = False
        """Whether the provider has said anything that is of its interface."""
        self.most, self.largest = pace.requests, pace.size
        self.told = time.monotonic()

    async def all(self) -> None:
        self._identify()
        self._give_up()
        while True:
            due, elsewhere = self._survey()
            self._tell()
            submitted = await self._submit(due)
            under_way = [batch for batch in self.ledger.open_batches() if self._concerns(batch, elsewhere)]
            mine = [batch for batch in under_way if self.ledger.adopt(batch.number)]
            if mine:
                await self._collect(mine)
            elif elsewhere:
                await asyncio.sleep(self.pace.first_poll)
            elif due and not submitted:
                raise self._spent(due)
            elif not due:
                return

    # What there is to be asked

    def _identify(self) -> None:
        """The key of every vote; equal completions share one."""
        self.keys = [[] for _ in range(len(self.completions))]
        identities = asking.Identities(self.judge, self.provider, mode=self.step.manifest.mode)
        for position in self.completions.shuffled("judge", self.judge.name):
            request = self._request(position)
            for vote in range(self.judge.votes):
                own, weight = identities.of(request, vote=vote)
                self.keys[position].append(own)
                bound = self.judge.bound(weight, batch=True)
                self.requests.setdefault(own, _Request(position, 2 * weight.input_tokens, bound))

    def _request(self, position: int) -> dict[str, Any]:
        return self.judge.about(self.completions.read(position))

    def _survey(self) -> tuple[list[str], set[int | None]]:
        """Requests that are due, and the batches that await others; None stands for a call of another process."""
        due: list[str] = []
        elsewhere: set[int | None] = set()
        for key in self.requests:
            if key in self.settled:
                continue
            if self._is_settled(key):
                self.settled.add(key)
            elif (batch := self.ledger.awaiting(key)) is not None:
                elsewhere.add(batch.number)
            elif self.ledger.in_flight(key):
                elsewhere.add(None)
            else:
                due.append(key)
        return due, elsewhere

    def _is_settled(self, key: str) -> bool:
        known = [attempt.typed.outcome for attempt in self.ledger.attempts(key, run=self.run)]
        return (
            (bool(known) and known[-1] in SUCCESSES)
            or sum(outcome in UNREADABLE for outcome in known) >= self.patience.replies
            or self.losses[key] >= self.pace.losses
        )

    def _concerns(self, batch: Batch, awaited: set[int | None]) -> bool:
        return batch.endpoint == self.provider.endpoint and (batch.run == self.run or batch.number in awaited)

    def _give_up(self) -> None:
        """Free the requests of the batches that the user has given up."""
        for batch in self.ledger.open_batches():
            if _name(batch) in self.given_up and self.ledger.adopt(batch.number):
                self.ledger.void(batch.number)

    # Money

    async def _submit(self, due: Sequence[str]) -> bool:
        """Submit what is due, or as much of it as the approved money suffices for; whether any was."""
        free = self.limit - self.ledger.spent(self.lock) - self.ledger.reserved(self.lock)
        chosen: list[str] = []
        for key in due:
            free -= self.requests[key].bound
            if free < 0:
                break
            chosen.append(key)
        if len(chosen) * WORTH <= len(due) and len(chosen) < len(due):  # not ever smaller batches of the last cents
            return False
        if chosen and not self.answered:  # a wrong key or address shows before anything is written down or sent
            await self._patiently(lambda: self.provider.greet(seconds=self.patience.call))
        while chosen:
            piece = list(self._piece(chosen))
            if await self._create(piece):
                chosen = chosen[len(piece) :]
        return bool(due)

    def _piece(self, keys: Iterable[str]) -> Iterator[str]:
        """The first of them that go into one batch, at least one."""
        size = 0
        for number, key in enumerate(keys):
            size += self.requests[key].size
            if number and (number == self.most or size > self.largest):
                return
            yield key

    def _spent(self, due: Sequence[str]) -> Fault:
        spent, under_way = self.ledger.spent(self.lock), self.ledger.reserved(self.lock)
        more = sum(self.requests[key].bound for key in due)
        names = ", ".join(_name(batch) for batch in self.ledger.open_batches() if batch.lock == self.lock)
        fact = (
            f"the approved {self.limit / NANO:.2f} USD do not suffice: {spent / NANO:.2f} USD are spent"
            + (f", up to {under_way / NANO:.2f} USD are for batches under way ({names})" if under_way else "")
            if self.limit
            else "no money is approved for this registration"
        )
        return Fault(
            "R0816", str(journal.path(self.step.bundle)),
            f"{fact}, and {len(due):,} of {len(self.requests):,} replies are left for {self.judge.name},"
            f" for up to {more / NANO:.2f} USD more",
            "approve it (epc approve --usd AMOUNT), then run again: it goes on from what is kept",
        )  # fmt: skip

    # A batch is made

    async def _create(self, keys: Sequence[str]) -> bool:
        """Submit one batch; False where the provider finds these requests too large together."""
        bounds = {key: self.requests[key].bound for key in keys}
        intended = self.ledger.intend(
            bounds, run=self.run, lock=self.lock, endpoint=self.provider.endpoint, limit=self.limit
        )
        if intended is None:  # other processes ask all of them, or spent the money
            return True
        batch, keys = intended
        requests = [(key, self._request(self.requests[key].position)) for key in keys]
        trying = self._trying()
        while True:
            try:
                batch_id = await self.provider.create(requests, seconds=self.pace.call)
            except BatchError as error:
                if error.in_doubt:
                    found = await self._find(batch)
                    if found is not None:
                        self.ledger.created(batch.number, found.id)
                        return True
                elif error.status == TOO_LARGE:
                    return self._refused_as_too_large(batch, keys, error.failure)
                elif error.failure.kind == "rejected":
                    self.ledger.void(batch.number)
                    raise self._refused(batch, error.failure) from None
                try:
                    await trying.again(error.failure)
                except Fault:
                    self.ledger.void(batch.number)
                    raise
            else:
                self.ledger.created(batch.number, batch_id)
                self.answered = True
                return True

    def _refused_as_too_large(self, batch: Batch, keys: Sequence[str], failure: Failure) -> bool:
        """Halve the next batches; a request that is too large alone stays without a reply: True then."""
        if len(keys) == 1:
            self._keep(batch, keys[0], failure)
            self.ledger.flush()
            self.ledger.close_batch(batch.number)
            return True
        self.ledger.void(batch.number)
        self.most = min(self.most, -(-len(keys) // 2))
        return False

    def _refused(self, batch: Batch, failure: Failure) -> Fault:
        return Fault(
            "R0853", self.provider.endpoint, f"a batch of {batch.requests:,} requests is refused: {failure.message}",
            "see what the message says; `batch_from: null` of the judge asks without batches, at the full price",
        )  # fmt: skip

    async def _find(self, batch: Batch) -> State | None:
        """The batch whose creation is in doubt, once it has ended; None when there is none.

        Only its results tell for certain that a batch is this one, so each that might be is awaited first.
        """
        keys = self.ledger.keys_of(batch.number)
        others: set[str] = set()
        until = time.monotonic() + self.pace.doubt
        while True:
            last = time.monotonic() >= until
            listed = await self._patiently(
                lambda: self.provider.listed(batch.intended_at - CLOCKS, seconds=self.patience.call)
            )
            others.update(self.ledger.batch_ids(), self.given_up)
            for state in listed:
                if state.id not in others and state.requests == batch.requests:
                    if await self._holds(batch, state, keys):
                        return state
                    others.add(state.id)
            if last:
                return None
            await asyncio.sleep(min(self.pace.first_poll, max(0.0, until - time.monotonic())))

    async def _holds(self, batch: Batch, state: State, keys: set[str]) -> bool:
        """Whether a batch of the provider is the one that was intended."""
        name = state.id

        async def look() -> State:
            return await self.provider.state(name, seconds=self.patience.call)

        pauses = self._pauses()
        while not state.ended:
            self.states[state.id] = state
            self._tell()
            await asyncio.sleep(next(pauses))
            state = await self._patiently(look)
        self.states.pop(state.id, None)
        if not state.results:
            raise Fault(
                "R0854", self.provider.endpoint,
                f"it cannot be told whether batch {state.id} is the one of {batch.requests:,} requests that was about to be"
                f" created at {batch.intended_at:%Y-%m-%d %H:%M} UTC: its results are gone",
                f"look at it in the provider's console; {GIVE_UP}={state.id} epc run leaves it aside, and if it was that one,"
                " its requests are paid for a second time",
            )  # fmt: skip

        async def read() -> bool:
            async with aclosing(self.provider.results(state.id, seconds=self.pace.call)) as pieces:
                async for results in pieces:
                    if any(name not in keys for name, _ in results):
                        return False
            return True

        return await self._patiently(read)

    # A batch is collected

    async def _collect(self, batches: Sequence[Batch]) -> None:
        """Wait for these batches and keep their results."""
        waiting = list(batches)
        pauses = self._pauses()
        lost: list[Failure] = []
        delivered = 0
        while True:
            for batch in tuple(waiting):
                known = await self._identified(batch)
                if known is None:
                    waiting.remove(batch)
                    continue
                waiting[waiting.index(batch)] = batch = known
                state = self.states[_name(batch)] = await self._state(batch)
                if state.ended:
                    waiting.remove(batch)
                    answers, failures = await self._take(batch, state)
                    delivered += answers
                    lost += failures
            self._tell()
            if not waiting:
                break
            await asyncio.sleep(next(pauses))
        self._check(lost, delivered)

    async def _identified(self, batch: Batch) -> Batch | None:
        """The batch with its id; None when it turns out that it was never created."""
        if batch.id is not None:
            return batch
        found = await self._find(batch)
        if found is None:
            self.ledger.void(batch.number)
            return None
        self.ledger.created(batch.number, found.id)
        return dataclasses.replace(batch, id=found.id)

    async def _state(self, batch: Batch) -> State:
        name = _name(batch)
        trying = self._trying()
        while True:
            try:
                state = await self.provider.state(name, seconds=self.patience.call)
            except BatchError as error:
                if error.status == NOT_FOUND and error.failure.kind == "denied":
                    raise self._gone(batch, f"is not known there: {error.failure.message}") from None
                await trying.again(error.failure)
                continue
            self.answered = True
            if state.ended and not state.results:
                raise self._gone(batch, "has ended, and its results are no longer kept")
            return state

    def _gone(self, batch: Batch, said: str) -> Fault:
        left = len(self.ledger.unanswered_in(batch.number))
        return Fault(
            "R0855", self.provider.endpoint, f"batch {_name(batch)}, with {left:,} replies that are not kept yet, {said}",
            "use the key of the workspace that created it, and its ANTHROPIC_BASE_URL; if its results are lost,"
            f" {GIVE_UP}={_name(batch)} epc run asks for them again and pays for them a second time",
        )  # fmt: skip

    async def _take(self, batch: Batch, state: State) -> tuple[int, list[Failure]]:
        """Keep every result of a batch that has ended; the number of replies, and what the others failed with."""
        answers = 0
        failures: list[Failure] = []

        async def read() -> None:
            nonlocal answers
            async for results in self.provider.results(_name(batch), seconds=self.pace.call):
                for key, result in results:
                    kept = self._keep(batch, key, result)
                    if isinstance(result, Answer):
                        answers += 1
                    elif kept:
                        failures.append(result)
                self.ledger.flush()
                if time.monotonic() - self.told >= PROGRESS_SECONDS:
                    self._tell()

        for _ in range(READINGS):
            await self._patiently(read)
            missing = self.ledger.unanswered_in(batch.number)
            if not missing:
                break
        for _, key in missing:
            failure = Failure(message="the batch has ended without a result for this request", kind="transient")
            self._keep(batch, key, failure)
            failures.append(failure)
        self.ledger.flush()
        self.ledger.close_batch(batch.number)
        if state.cancelled and state.counts.get("canceled"):
            raise Fault(
                "R0856", self.provider.endpoint,
                f"batch {_name(batch)} was cancelled: {state.counts['canceled']:,} of its {batch.requests:,} requests"
                " were not answered, the replies to the others are kept",
                "run again to ask for the rest",
            )  # fmt: skip
        return answers, failures

    def _keep(self, batch: Batch, key: str, result: Answer | Failure) -> bool:
        """Keep a result; False for one that is kept already or was not asked for in this batch."""
        call = self.ledger.call_in(batch.number, key)
        if call is None:
            return False
        typed = replies.read(result, self.judge.output)
        cost = self.judge.cost(typed, batch=True)
        self.ledger.answer(call, typed, lock=batch.lock, nano_usd=cost, seconds=0.0)
        match result:
            case Answer():
                pass
            case Failure(kind="rejected"):
                self.losses[key] = self.pace.losses
            case Failure():
                self.losses[key] += 1
            case _:
                assert_never(result)
        return True

    def _check(self, lost: Sequence[Failure], delivered: int) -> None:
        """Stop where the failures tell of more than single requests."""
        for failure in lost:
            if failure.kind == "denied":
                raise asking.denied(self.judge, self.provider, failure)
        if lost and not delivered and (len(lost) >= self.patience.lost or not self._any_success()):
            raise Fault(
                "R0857", self.provider.endpoint,
                f"none of {len(lost):,} requests in a batch got a reply: {lost[-1].message}",
                "see what the message says; run again when it is mended: it goes on from what is kept",
            )  # fmt: skip

    def _any_success(self) -> bool:
        return any(
            attempt.typed.outcome in SUCCESSES
            for key in self.requests
            for attempt in self.ledger.attempts(key, run=self.run)
        )

    # Patience and what a person sees

    def _pauses(self) -> Iterator[float]:
        pause = self.pace.first_poll
        while True:
            yield pause
            pause = min(self.pace.longest_poll, 1.5 * pause)

    def _trying(self) -> _Trying:
        return _Trying(self)

    async def _patiently(self, call: Callable[[], Awaitable[Got]]) -> Got:
        """What a call brings in the end. Raises what `_Trying.again` raises."""
        trying = self._trying()
        while True:
            try:
                result = await call()
            except BatchError as error:
                await trying.again(error.failure)
            else:
                self.answered = True
                return result

    def _tell(self) -> None:
        """Publish how far it is."""
        self.told = time.monotonic()
        counts: Counter[str] = Counter()
        for state in self.states.values():
            counts.update(state.counts)
        facts: dict[str, float | str] = {name: counts[name] for name in ("processing", "succeeded", "errored")}
        if self.limit:
            facts["usd"] = f"{self.ledger.spent(self.lock) / NANO:.2f} of {self.limit / NANO:.2f}"
        running = [name for name, state in self.states.items() if not state.ended]
        if running:
            facts["batch"] = running[0] + (f" and {len(running) - 1} more" if len(running) > 1 else "")
        self.step.progress(len(self.settled), len(self.requests), **facts)

    def say_what_goes_on(self) -> None:
        for batch in self.ledger.open_batches():
            if batch.run == self.run:
                which = f"{batch.id}, {batch.requests:,} requests," if batch.id else (
                    f"one of {batch.requests:,} requests, if it was created,"
                )  # fmt: skip
                print(
                    f"{GOES_ON}{which} at {batch.endpoint}; run again to collect its replies",
                    file=sys.stderr,
                    flush=True,
                )


class _Trying:
    """Calls about batches that fail, one after another."""

    def __init__(self, batching: _Batching) -> None:
        self._batching = batching
        self._tries = 0
        self._deadline = time.monotonic() + batching.patience.deadline

    async def again(self, failure: Failure) -> None:
        """Wait before the next try. Raises Fault R0814, R0815 or R0817 where there is no sense in one."""
        batching = self._batching
        patience = batching.patience
        self._tries += 1
        match failure.kind:
            case "denied" | "rejected":
                raise asking.denied(batching.judge, batching.provider, failure)
            case "unreachable" if not batching.answered and self._tries >= patience.unreachable:
                raise asking.unreachable(batching.provider, failure)
            case "unreachable" | "transient":
                pass
            case _:
                assert_never(failure.kind)
        wait = failure.retry_after
        if wait is None:
            wait = patience.wait(self._tries - 1, batching.run)
        if time.monotonic() + wait >= self._deadline:
            raise Fault(
                "R0817", batching.provider.endpoint, f"{self._tries} calls about a batch failed: {failure.message}",
                "run again when that is mended: what is kept stays, and batches under way are collected",
            )  # fmt: skip
        await asyncio.sleep(wait)


def _name(batch: Batch) -> str:
    """What a batch is called in EPC_GIVE_UP_BATCH: its id, or one of ours for as long as it has none."""
    return batch.id or f"intended-{batch.number}"
