"""The paired bootstrap beside scipy.stats.bootstrap: same data, same B, same interval, one process.

    python benchmarks/bootstrap.py [--rounds N]

One JSON line a case, {case, ours, peer, ratio, bar, ok}: best times of N rounds in seconds, in turns of ten,
ratio = peer / ours. Exit code 1 when a bar is missed. 10,000 resamples everywhere, drawing included, and nothing
is kept from one call to the next: each of ours starts from integers, with a new Lattice and new Resamples, and ends
with a whole Estimate (p, bounds, interval, moments, definition), percentile; scipy starts from a float array and ends
with its percentile interval, vectorized, in the batches it takes by default, for 100,000 units in those of 1, 10 and
100 resamples that are quickest (its default would need 8 GB).

- 48 units, one contrast: at least 5 times as fast.
- 48 units, 30 contrasts that share the units, as the analyses of one decision do: at least 2.5 times.
- 100,000 units, differences of two scores of 0-100: at least 50 times, and a peak of less than 100 MB above what is
  in use before, measured in a process of its own. scipy runs 200 resamples there, and its time is taken times 50.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# One thread for both: on a small machine a BLAS that waits for a second one spoils either's timing.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from scipy.stats import bootstrap

from epc.runtime.statistics.estimate import Lattice
from epc.runtime.statistics.paired_bootstrap import paired_bootstrap
from epc.runtime.statistics.resamples import Resamples

RESAMPLES = 10_000
MANY, MANY_RESAMPLES = 100_000, 200
SETTINGS: dict[str, Any] = {
    "p": "percentile", "side": "greater", "alpha": 0.025, "resamples": RESAMPLES, "seed": 1, "limit": 100.0,
}  # fmt: skip

Data = list[tuple[int, ...]]


def ours_one(data: Data) -> None:
    paired_bootstrap(Lattice(numerators=data[0], denominator=1), **SETTINGS)


def ours_shared(data: Data) -> None:
    shared = Resamples()
    shared.sums(SETTINGS["seed"], RESAMPLES, data)
    for numerators in data:
        paired_bootstrap(Lattice(numerators=numerators, denominator=1), shared=shared, **SETTINGS)


def peer(data: Data, resamples: int = RESAMPLES, batch: int | None = None) -> Callable[[], None]:
    values = np.array(data if len(data) > 1 else data[0], dtype=np.float64)

    def run() -> None:
        bootstrap(
            (values,), np.mean, axis=-1, n_resamples=resamples, batch=batch, method="percentile", vectorized=True,
            rng=np.random.default_rng(1),
        )  # fmt: skip

    return run


def scores(units: int, contrasts: int) -> Data:
    """Differences of two judge scores, most of them above 0."""
    generator = np.random.default_rng(units)
    differences = generator.integers(0, 101, (contrasts, units)) - generator.integers(0, 91, (contrasts, units))
    return [tuple(row) for row in differences.tolist()]


def best(rounds: int, *calls: Callable[[], None]) -> list[float]:
    """Seconds of the quickest of `rounds` calls each; calls take turns, ten at a time."""
    times: list[list[float]] = [[] for _ in calls]
    for start in range(0, rounds, 10):
        for call, spent in zip(calls, times, strict=True):
            call()
            for _ in range(min(10, rounds - start)):
                begun = time.perf_counter()
                call()
                spent.append(time.perf_counter() - begun)
    return [min(spent) for spent in times]


def peak() -> float:
    """Megabytes that 100,000 units need above what is in use, in a process of its own."""
    command = [sys.executable, __file__, "--peak"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def own_peak() -> float:
    """From what is resident before to the highest point of the process, which may lie before: never too little."""
    data = scores(MANY, 1)
    paired_bootstrap(Lattice(numerators=data[0][:2000], denominator=1), **SETTINGS)
    before = memory("VmRSS")
    ours_one(data)
    return memory("VmHWM") - before


def memory(name: str) -> float:
    """A figure of this process in megabytes; unlike ru_maxrss, not that of the process that started it."""
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=100, help="rounds of the smallest case (default 100)")
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(own_peak())
        return 0
    missed = False

    def report(case: str, ours: float, other: float, bar: float) -> None:
        nonlocal missed
        ratio = other / ours
        missed |= ratio < bar
        line = {"case": case, "ours": float(f"{ours:.3g}"), "peer": float(f"{other:.3g}"), "ratio": round(ratio, 2)}
        print(json.dumps({**line, "bar": bar, "ok": ratio >= bar}), flush=True)

    one, thirty, many = scores(48, 1), scores(48, 30), scores(MANY, 1)
    ours, other = best(arguments.rounds, lambda: ours_one(one), peer(one))
    report("48 units x 1 contrast, seconds", ours, other, 5)
    ours, other = best(max(1, arguments.rounds // 5), lambda: ours_shared(thirty), peer(thirty))
    report("48 units x 30 contrasts, seconds", ours, other, 2.5)
    ours, *others = best(5, lambda: ours_one(many), *(peer(many, MANY_RESAMPLES, batch) for batch in (1, 10, 100)))
    (again,) = best(10, lambda: ours_one(many))
    report("100,000 units x 1 contrast, seconds", min(ours, again), min(others) * RESAMPLES / MANY_RESAMPLES, 50)
    megabytes = peak()
    report("100,000 units, megabytes at most, against 100", megabytes, 100, 1)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
