"""Simulated experiments against the matrix products that they cannot do without.

python benchmarks/simulate.py: one JSON line a case, {case, ours, peer, ratio, bar, ok}, in seconds; exit 1 when a bar
is missed. The floor of a case is its products alone: B resamples of n units times 10,000 experiments, in float32, once
for each contrast whose p is the percentile's or the shift's, twice for a studentized one (sums, and sums of squares).
`whole` is 10,000 experiments of a decision with five contrasts from the draw of every score to the verdicts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray

from epc.compiler.contract.logic import And, Atom, Name
from epc.compiler.contract.manifest import (
    Analysis,
    Condition,
    Contrast,
    Design,
    Gate,
    Metric,
    Truth,
    TruthOf,
    VerdictRule,
)
from epc.runtime.simulate.experiments import Simulator
from epc.runtime.simulate.model import EXTREME, Size
from epc.runtime.simulate.resampled import BLOCK, WORKERS, Resample, fine_t_tally, sums_tally

EXPERIMENTS, RESAMPLES, UNITS, CONTRASTS = 10_000, 10_000, 48, 5
BAR = 4.0
REPEATS = 3


def best(work: Callable[[], object]) -> float:
    """Seconds of the quickest of several calls."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def floor(resample: Resample, x: NDArray[np.float32], products: int) -> Callable[[], None]:
    """The products, shared out to as many threads."""
    rows = BLOCK // RESAMPLES

    def block(start: int) -> None:
        for _ in range(products):
            x[start : start + rows] @ resample.counts

    def work() -> None:
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(block, range(0, len(x), rows)))

    return work


def report(case: str, ours: float, peer: float) -> bool:
    ratio = ours / peer
    line = {
        "case": case, "ours": round(ours, 3), "peer": round(peer, 3), "ratio": round(ratio, 2), "bar": BAR, "ok": ratio <= BAR,
    }  # fmt: skip
    print(json.dumps(line), flush=True)
    return ratio <= BAR


def design() -> Design:
    """Five contrasts of judged scores, each with a percentile p, read by gates of a table of three rules."""
    arms = ("control", *(f"treated{place}" for place in range(CONTRASTS)))
    analyses = tuple(
        Analysis(
            name=f"contrast{place}", metric="score", contrast=Contrast(treatment=arm, control="control"), p="percentile",
            method="paired_bootstrap", side="greater", alpha=0.05, resamples=RESAMPLES, seed=1, confirmatory=place == 0,
        )
        for place, arm in enumerate(arms[1:])
    )  # fmt: skip

    def tested(place: int) -> Atom:
        return Atom(analysis=f"contrast{place}", statistic="reject", operator="==", constant=1)

    def gate(name: str, role: str, *atoms: Atom) -> Gate:
        return Gate.model_validate({"name": name, "role": role, "text": name, "predicate": And(operands=atoms)})

    small = Atom(analysis="contrast0", statistic="delta", operator="<", constant=2)
    gates = (gate("dead", "kill", small), gate("works", "success", *(tested(place) for place in range(CONTRASTS))))
    rules = (("dead", "KILL"), ("works", "SUCCESS"), (None, "INCONCLUSIVE"))
    return Design(
        question="?", seeds=(1,), analyses=analyses, gates=gates,
        conditions=tuple(Condition(name=arm, key=arm, phases=(), seeds=(0,)) for arm in arms),
        metrics=(
            Metric(
                name="score", kind="judge", source="asked", unit="prompt", scale=(0, 100), better="higher", missing="drop",
                judge="grader", score="aligned",
            ),
        ),
        verdicts=tuple(
            VerdictRule.model_validate(
                {"text": label, "predicate": name and Name(name=name), "label": label, "verdict_class": label}
            )
            for name, label in rules
        ),
    )  # fmt: skip


def whole() -> Callable[[], object]:
    planned = design()
    means = {condition.name: 40.0 if condition.name == "control" else 48.0 for condition in planned.conditions}
    truth = Truth(name="t", metrics={"score": TruthOf(means=means, unit_sd=18, correlation=0.5)})
    sizes = {"score": Size(units=UNITS, samples=10)}
    return lambda: Simulator(planned, sizes, seed=1, experiments=EXPERIMENTS, extreme=EXTREME).simulate(truth).labels


def main() -> int:
    resample = Resample.of(1, UNITS, RESAMPLES)
    generator = np.random.default_rng(1)
    fine = np.clip(generator.normal(300, 900, (EXPERIMENTS, UNITS)), -5000, 5000).astype(np.int64)
    zero = np.zeros(EXPERIMENTS, dtype=np.int64)
    single = fine.astype(np.float32)
    once, twice = best(floor(resample, single, 1)), best(floor(resample, single, 2))
    five = best(floor(resample, single, CONTRASTS))
    sound = [
        report("percentile p", best(lambda: sums_tally(resample, fine, zero, set(), set())), once),
        report("shift p", best(lambda: sums_tally(resample, fine, 2 * fine.sum(axis=1), set(), set())), once),
        report("studentized p, judge scores", best(lambda: fine_t_tally(resample, fine, set(), set())), twice),
        report("whole decision, 5 contrasts", best(whole()), five),
    ]
    return 0 if all(sound) else 1


if __name__ == "__main__":
    sys.exit(main())
