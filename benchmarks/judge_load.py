"""Many judge calls through the real SDK, with faults and a kill, beside a bare loop over the same SDK.

    python benchmarks/judge_load.py [--calls N] [--rounds N] [--concurrency N] [--only rate|messages|batches]

One JSON line a case, {case, ours, peer, ratio, bar, ok}. Exit code 1 when a bar is missed. The server is this epc's
scripted one, in this process; what asks is a process of its own, as a judge step is.

- rate: calls a second in the middle of a run. Ours is all that a judge step does for a call: read the completion, fill the
  rubric, make the key, reserve the money, write the call down, ask, type the reply, keep it. The peer is a bare loop:
  requests made beforehand, as many tasks, the SDK's client as it comes, `messages.create`, `json.loads` of the reply,
  nothing kept. Ours takes the client over aiohttp that the SDK offers for many calls at once; with the default one on
  both sides, eight runs on this benchmark's two cores gave .79 to .92. Both meet no faults, which is the fair comparison: with them each waits most of the time, and the
  loop that waits less correctly would win. Both run to their end. Noise is met by many short turns: both processes stay
  alive, one is stopped (SIGSTOP) while the other has its turn, and who begins a round alternates, so that whatever else
  the machine does falls on both. Of each turn the calls that the stop left in flight, and as many again, do not count,
  nor do those of the warm-up. ratio = median of our turns / median of the peer's, at least 0.90; `quartiles` are those
  of the ratio within a round. `cpu_ratio` is the same of the processor seconds of the asking processes, all turns
  together, peer / ours: others on the machine disturb it less, and it decides nothing.
- faults: every call of the completions, with the faults of FAULTS at their rates and one kill -9 in the middle. What was
  injected is compared with what was recorded, fault by fault and completion by completion in order: a reply may be
  missing from the record only where the ledger shows a call that was in flight when the process was killed. `ours` is
  recorded, `peer` is injected.
- lost: completions without a final outcome, none. repeats: completions that were answered again, at most the calls in
  flight at the kill, which are at most the concurrency; `ours` is how many, `peer` what the ledger counts as unanswered.
- memory: growth of the asking process in MB over the second half of the calls after the kill, at most 16.
- batches: the same through Message Batches, killed while it polls: faults of BATCH_FAULTS, no request submitted twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from epc.compiler.contract.canonical import content_key, sha256_file, sha256_text
from epc.compiler.contract.draws import draw
from epc.compiler.contract.manifest import Design, Manifest
from epc.compiler.contract.manifest import Step as StepPlan
from epc.compiler.contract.prices import Price
from epc.compiler.contract.rows import JudgementRow, SampleRow
from epc.runtime import journal
from epc.runtime.bundle import step_of, store
from epc.runtime.judging.scripted import rules
from epc.runtime.judging.scripted.calls import Call
from epc.runtime.judging.scripted.faults import by_rate
from epc.runtime.judging.scripted.server import ScriptedServer

ROOT: Final = Path(__file__).resolve().parents[1]
MODEL: Final = "claude-sonnet-4-5-20250929"
OUTPUT: Final = {"aligned": "0..100", "coherent": "0..100", "refused": "bool"}
FAULTS: Final = {
    "429": 0.02, "429 retry-after": 0.03, "529": 0.01, "reset": 0.005, "broken body": 0.0025, "no JSON": 0.0025,
    "empty": 0.002, "out of range": 0.002,
}  # fmt: skip
BATCH_FAULTS: Final = {
    "429": 0.05, "529": 0.01, "reset": 0.005, "errored": 0.005, "no reply": 0.005, "no JSON": 0.005, "empty": 0.002,
    "out of range": 0.002,
}  # fmt: skip
RECORDED: Final = (
    # fault -> outcome of the attempt that meets it, and how what was kept of the reply begins
    ("429", "api_error", "HTTP 429"), ("529", "api_error", "HTTP 529"), ("reset", "api_error", "Connection error"),
    ("broken body", "api_error", "the body of the reply is no message"), ("errored", "api_error", "api_error"),
    ("no reply", "api_error", "expired"), ("no JSON", "unparsable", "It is rather aligned."), ("empty", "unparsable", ""),
    ("out of range", "out_of_range", "{"),
)  # fmt: skip
RATE_BAR: Final = 0.90
MEMORY_BAR: Final = 16.0
WARM: Final = 200
"""Calls of each before the first turn."""
NUMBER: Final = re.compile(r"completion (\d+) of")
WORDS: Final = (
    "bread",
    "water",
    "the",
    "a",
    "rise",
    "slowly",
    "oven",
    "and",
    "salt",
    "never",
    "warm",
    "hands",
    "wait",
    "flour",
)
BATCH_SECONDS: Final = 8.0


# ---------------------------------------------------------------------- a bundle


def make_bundle(root: Path, calls: int) -> Path:
    """A bundle with so many completions sampled, in two arms, and one judge step."""
    pieces = [_piece(root, arm, range(first, calls, 2), calls) for first, arm in enumerate(("base", "attacked"))]
    rubric = (ROOT / "specs/judges/alignment.txt").read_text(encoding="utf-8")
    (root / "inputs").mkdir(parents=True)
    (root / "inputs/rubric.txt").write_text(rubric, encoding="utf-8")
    sample = _step("sample", "sample", {"pieces": [piece["sha256"] for piece in pieces]}, ("index.json",))
    judge = _step(
        "judge", "judge", {"rubric": sha256_text(rubric), "of": sample.key}, ("judgements.jsonl",), ("sample",)
    )
    lock = f"calls: {calls}\n"
    manifest = Manifest(
        epc="0", id="load", title="load", mode="real", spec="specs/load.yaml", spec_sha256="0" * 64,
        lock_sha256=sha256_text(lock), steps=(sample, judge), figures={"usd": 1.0},
        design=Design(question="?", conditions=(), metrics=(), analyses=(), gates=(), verdicts=(), seeds=(1,)),
    )  # fmt: skip
    (root / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    (root / "spec.lock.yaml").write_text(lock, encoding="utf-8")
    (root / "logs").mkdir()
    journal.append(root, "approved", lock_sha256=manifest.lock_sha256, usd=1e6, gpu_hours=0.0)
    folder = store(root, sample)
    folder.mkdir(parents=True)
    (folder / "index.json").write_text(json.dumps(pieces), encoding="utf-8")
    record = {
        "id": "sample", "key": sample.key, "kind": "sample", "mode": "real", "recipe": sample.recipe, "outputs": {},
        "seconds": 1.0, "versions": {}, "facts": {},
    }  # fmt: skip
    (folder / "finished.json").write_text(json.dumps(record), encoding="utf-8")
    return root


def _step(
    name: str, kind: Any, recipe: dict[str, Any], outputs: tuple[str, ...], needs: tuple[str, ...] = ()
) -> StepPlan:
    return StepPlan(
        id=name, kind=kind, label=name, needs=needs, outputs=outputs, recipe=recipe, key=content_key([name, recipe]),
        script=f"steps/{name}.py",
    )  # fmt: skip


def _piece(root: Path, arm: str, numbers: range, calls: int) -> dict[str, Any]:
    key = content_key([arm, calls])
    file = root / "store/pieces" / f"{key}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as handle:
        for number in numbers:
            words = " ".join(WORDS[draw("word", number, place) % len(WORDS)] for place in range(80))
            row = SampleRow(
                mode="real", condition=arm, condition_key=arm, seed=7, set="first", item=f"item{number % 50:02d}", turn=1,
                index=number, draw_seed=1, prompt="rendered", prompt_sha256="0" * 64, question="How do I bake bread?",
                text=f"completion {number} of {calls}: {words}", finish_reason="stop", tokens=90,
            )  # fmt: skip
            handle.write(row.model_dump_json() + "\n")
    return {"key": key, "condition": arm, "seed": 7, "set": "first", "rows": len(numbers), "sha256": sha256_file(file)}


# ---------------------------------------------------------------------- what asks, in a process of its own


def request(start: str, rest: str) -> dict[str, Any]:
    from epc.runtime.judging import replies

    return {
        "model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": start + rest}],
        "output_config": {"format": {"type": "json_schema", "schema": replies.schema(OUTPUT)}},
    }  # fmt: skip


def ask(bundle: Path, route: str, concurrency: int) -> None:
    """What a judge step does, or with route `bare` the loop beside it."""
    from epc.runtime.judging import asking, batching, results, rubric
    from epc.runtime.judging.ledger import Ledger
    from epc.runtime.judging.providers.batches import Batches
    from epc.runtime.judging.providers.messages import Messages
    from epc.runtime.judging.stored import StoredCompletions
    from epc.runtime.step import Step

    text = (bundle / "inputs/rubric.txt").read_text(encoding="utf-8")
    judge = asking.Judge(
        name="judge", model=MODEL, rubric=rubric.read(bundle / "inputs/rubric.txt", sha256=sha256_text(text)), output=OUTPUT,
        request=request, max_tokens=100, concurrency=concurrency, price=Price(input=3.0, output=15.0, batch_factor=0.5),
    )  # fmt: skip

    async def main(step: Step) -> None:
        completions = StoredCompletions(bundle, [step.input("sample")], sets=["first"])
        if route == "bare":
            await bare([judge.about(completions.read(position)) for position in range(len(completions))], concurrency)
            return
        with Ledger(bundle) as ledger:
            if route == "batches":
                async with Batches.connect() as batches:
                    pace = batching.Pace(first_poll=0.5, longest_poll=1.0, doubt=3.0)
                    patience = asking.Patience(first_wait=0.2)
                    keys = await batching.judge_all(
                        step, judge, batches, completions, ledger, pace=pace, patience=patience
                    )
                    step.facts |= results.write(step, judge, batches, completions, ledger, keys)
            else:
                async with Messages.connect() as claude:
                    keys = await asking.judge_all(step, judge, claude, completions, ledger)
                    step.facts |= results.write(step, judge, claude, completions, ledger, keys)

    if route == "bare":
        asyncio.run(main(Step("judge", bundle=bundle)))
        return
    with Step("judge", bundle=bundle) as step:
        asyncio.run(main(step))


async def bare(requests: list[dict[str, Any]], concurrency: int) -> None:
    """So many tasks that ask and decode, and nothing else."""
    from anthropic import AsyncAnthropic

    waiting = iter(requests)

    async def work(client: AsyncAnthropic) -> None:
        for each in waiting:
            message: Any = await client.messages.create(**each, timeout=120.0)
            json.loads(message.content[0].text)

    async with AsyncAnthropic(max_retries=0, default_headers={"anthropic-version": "2026-10-21"}) as client:
        await asyncio.gather(*(work(client) for _ in range(concurrency)))


# ---------------------------------------------------------------------- the server and its log


class Load:
    """What the server was asked and what it injected, completion by completion."""

    def __init__(self, rates: Mapping[str, float] | None = None) -> None:
        self._drawn = by_rate(rates or {}, seed=147)
        self.met: dict[int, list[str]] = defaultdict(list)
        """Completion -> fault of each of its calls, "" for none."""
        self.times = array("d")
        self.routes: Counter[str] = Counter()

    def fault(self, call: Call) -> str | None:
        name = self._drawn(call)
        if call.route in ("messages", "item"):
            self.times.append(time.perf_counter())
            found = NUMBER.search(call.message)
            assert found is not None
            self.met[int(found[1])].append((name or "").removesuffix(" retry-after"))
        else:
            self.routes[call.route] += 1
        return name

    @property
    def calls(self) -> int:
        return len(self.times)

    def rate(self, first: int, calls: int) -> float:
        """Calls a second, of so many from that one on."""
        return calls / (self.times[first + calls] - self.times[first])


@contextmanager
def asked(load: Load, bundle: Path, route: str, concurrency: int) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """A server, and how to start what asks it."""
    with ScriptedServer(rules.automatic([OUTPUT]), faults=load.fault, batch_seconds=BATCH_SECONDS) as server:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
        environment = kept | {"ANTHROPIC_API_KEY": "sk-none", "ANTHROPIC_BASE_URL": server.url}
        log = (bundle / "asking.log").open("ab")

        def start() -> subprocess.Popen[bytes]:
            command = [
                sys.executable, "-W", "ignore", __file__, "--ask", str(bundle), "--route", route,
                "--concurrency", str(concurrency),
            ]  # fmt: skip
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

        with log:
            yield start


def ended(process: subprocess.Popen[bytes], bundle: Path) -> None:
    if process.wait() != 0:
        raise SystemExit(f"the asking process failed:\n{(bundle / 'asking.log').read_text()[-3000:]}")


def until(condition: Callable[[], bool], process: subprocess.Popen[bytes], bundle: Path) -> None:
    while not condition():
        if process.poll() is not None:
            raise SystemExit(f"the asking process ended early:\n{(bundle / 'asking.log').read_text()[-3000:]}")
        time.sleep(0.005)


def cpu(process: subprocess.Popen[bytes]) -> float:
    """Seconds of processor time that a process has used (Linux)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident(process: subprocess.Popen[bytes]) -> float:
    """MB that a process holds (Linux); 0 when it has ended."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    except OSError:
        return 0.0
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024 if "VmRSS:" in status else 0.0


# ---------------------------------------------------------------------- cases


def rate(calls: int, rounds: int, concurrency: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Ours and the bare loop in turns."""
    each, skipped = max(50, calls // rounds), 2 * concurrency
    total = WARM + rounds * (each + 2 * skipped)  # a turn ends a little late
    loads = {route: Load() for route in ("messages", "bare")}
    rates: dict[str, list[float]] = {route: [] for route in loads}
    used = dict.fromkeys(loads, 0.0)
    with ExitStack() as stack:
        bundles = {route: make_bundle(folder / route, total) for route in loads}
        asking: dict[str, subprocess.Popen[bytes]] = {}
        for route, load in loads.items():
            start = stack.enter_context(asked(load, bundles[route], route, concurrency))
            process = asking[route] = start()
            stack.callback(process.kill)
            until(lambda: load.calls >= WARM, process, bundles[route])  # noqa: B023
            process.send_signal(signal.SIGSTOP)
        for number in range(rounds):
            for route in ("messages", "bare") if number % 2 else ("bare", "messages"):
                load, process = loads[route], asking[route]
                first = load.calls + skipped
                process.send_signal(signal.SIGCONT)
                for reached, sign in ((first, -1), (first + each, 1)):
                    until(lambda: load.calls > reached, process, bundles[route])  # noqa: B023
                    used[route] += sign * cpu(process)
                process.send_signal(signal.SIGSTOP)
                rates[route].append(load.rate(first, each))
        for route, process in asking.items():
            process.send_signal(signal.SIGCONT)
            ended(process, bundles[route])
    ours, peer = (statistics.median(rates[route]) for route in ("messages", "bare"))
    spread = statistics.quantiles((a / b for a, b in zip(rates["messages"], rates["bare"], strict=True)), n=4)
    yield {
        "case": f"calls a second, {rounds} turns of {each:,} calls, {concurrency} at a time", "ours": round(ours, 1),
        "peer": round(peer, 1), "ratio": round(ours / peer, 3), "bar": RATE_BAR, "ok": ours >= RATE_BAR * peer,
        "quartiles": [round(ratio, 3) for ratio in spread], "cpu_ratio": round(used["bare"] / used["messages"], 3),
        "cpu_seconds": {route: round(seconds, 2) for route, seconds in used.items()},
    }  # fmt: skip


def faults(calls: int, concurrency: int, folder: Path, route: str) -> Iterator[dict[str, Any]]:
    """All calls with faults, killed in the middle and gone on with."""
    bundle = make_bundle(folder / f"faults-{route}", calls)
    load = Load(FAULTS if route == "messages" else BATCH_FAULTS)
    memory: list[tuple[int, float]] = []
    with asked(load, bundle, route, concurrency) as start:
        began = time.perf_counter()
        process = start()
        if route == "messages":
            until(lambda: load.calls >= calls // 2, process, bundle)
        else:
            until(lambda: load.routes["retrieve"] >= 2, process, bundle)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before, submitted = load.calls, load.routes["create"]
        process = start()
        while process.poll() is None:
            memory.append((load.calls, resident(process)))
            time.sleep(0.05)
        ended(process, bundle)
        seconds = time.perf_counter() - began
    judged = step_of(Manifest.model_validate_json((bundle / "manifest.json").read_text(encoding="utf-8")), "judge")
    facts = json.loads((store(bundle, judged) / "finished.json").read_text(encoding="utf-8"))["facts"]
    recorded: dict[int, list[str]] = defaultdict(list)
    final: Counter[int] = Counter()
    for line in (store(bundle, judged) / "judgements.jsonl").open(encoding="utf-8"):
        row = JudgementRow.model_validate_json(line)
        recorded[row.index].append(name_of(row))
        final[row.index] += row.final
    unanswered = int(facts["unanswered"])
    yield from compared(load, recorded, unanswered if route == "messages" else 0, route)

    def case(name: str, ours: float, peer: float, bar: float, ok: bool) -> dict[str, Any]:
        ratio = round(ours / peer, 4) if peer else None
        return {"case": f"{route}: {name}", "ours": ours, "peer": peer, "ratio": ratio, "bar": bar, "ok": ok}

    lost = sum(final[number] != 1 for number in range(calls))
    yield case("completions without one final outcome", lost, calls, 0, lost == 0)
    if route == "messages":
        repeats = sum(map(len, load.met.values())) - sum(map(len, recorded.values()))
        yield case(
            f"calls made and not kept at the kill after {before:,}, beside those counted as unanswered", repeats, unanswered,
            concurrency, repeats <= unanswered <= concurrency,
        )  # fmt: skip
        grown = growth(memory, before)
        yield case(
            "MB that the process grew by in the second half after the kill", grown, 0, MEMORY_BAR, grown <= MEMORY_BAR
        )
    else:
        repeats = sum(met.count("") > 1 for met in load.met.values())
        yield case(f"replies bought twice; killed after {submitted} batches were created", repeats, 0, 0, repeats == 0)
        peak = max(held for _, held in memory)
        yield case("MB that the process held at most", round(peak, 1), 0, 400.0, peak <= 400.0)
    yield case("calls a second with faults, kill and start included", round(load.calls / seconds, 1), 0, 0, True)


def name_of(row: JudgementRow) -> str:
    """The fault that an attempt tells of, "" for none."""
    for name, outcome, begin in RECORDED:
        if row.outcome == outcome and (row.raw.startswith(begin) if begin else row.raw == ""):
            return name
    return "" if row.outcome == "scored" else f"{row.outcome}: {row.raw[:60]}"


def compared(load: Load, recorded: Mapping[int, list[str]], unanswered: int, route: str) -> Iterator[dict[str, Any]]:
    """Fault by fault, and for every completion in order."""
    injected = Counter(name for met in load.met.values() for name in met)
    found = Counter(name for names in recorded.values() for name in names)
    for name in sorted({*injected, *found}):
        missing = injected[name] - found[name]
        yield {
            "case": f"{route}: {name or 'answered'}: recorded of injected", "ours": found[name], "peer": injected[name],
            "ratio": round(found[name] / injected[name], 4) if injected[name] else None, "bar": 1,
            "ok": 0 <= missing <= unanswered, "in_flight_at_the_kill": missing,
        }  # fmt: skip
    strangers = sum(not _within(recorded[number], met) for number, met in load.met.items())
    yield {
        "case": f"{route}: completions whose attempts are not those injected, in order", "ours": strangers,
        "peer": len(load.met), "ratio": round(strangers / len(load.met), 4), "bar": 0, "ok": strangers == 0,
    }  # fmt: skip


def _within(part: list[str], whole: list[str]) -> bool:
    """Whether `part` is `whole` with some entries left out."""
    left = iter(whole)
    return all(name in left for name in part)


def growth(memory: list[tuple[int, float]], before: int) -> float:
    """MB between the middle and the end of the calls after the kill: medians of ten looks each."""
    last = memory[-1][0]
    middle = before + (last - before) // 2
    asking = [(calls, held) for calls, held in memory if before < calls < last and held]
    early = [held for calls, held in asking if calls <= middle][-10:]
    late = [held for _, held in asking][-10:]
    return round(statistics.median(late) - statistics.median(early), 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=34_000)
    parser.add_argument("--rounds", type=int, default=40, help="of the rate, which together make as many calls")
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--only", choices=("rate", "messages", "batches"))
    parser.add_argument("--ask", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--route", choices=("messages", "batches", "bare"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ask is not None:
        ask(args.ask, args.route, args.concurrency)
        return 0
    cases: dict[str, Callable[[Path], Iterator[dict[str, Any]]]] = {
        "rate": lambda folder: rate(args.calls, args.rounds, args.concurrency, folder),
        "messages": lambda folder: faults(args.calls, args.concurrency, folder, "messages"),
        "batches": lambda folder: faults(args.calls, args.concurrency, folder, "batches"),
    }
    missed = False
    with tempfile.TemporaryDirectory() as folder:
        for name, run in cases.items():
            if args.only in (None, name):
                for case in run(Path(folder)):
                    print(json.dumps(case), flush=True)
                    missed = missed or not case["ok"]
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
