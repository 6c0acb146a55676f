"""How long `epc check` takes.

    python benchmarks/check.py [--runs N]

One JSON line a case, {case, ours, peer, ratio, bar, ok}: seconds, ratio = ours / peer, ok where ratio is at most bar.
Exit code 1 when a bar is missed.

- fresh process: `epc check specs/issue147.yaml` beside the imports that any such program makes, `python -c "from pydantic
  import BaseModel; import yaml, numpy"`: medians of N runs, in turns, after one that fills the caches of bytecode and of
  near-duplicates. At most 2.5 times.
- help: `epc --help` in a fresh process; the peer is the 0.2 s that a person does not notice.
- growth: the processor time of a check of 1,000 arms with prompts, of 1,000 arms with data sets and recipes of their own, and
  of 1,000 analyses with their gates; the peer is four times that of 250 of them. At most 1.3 times: linear, with room for the
  caches of the processor.
- verdict table: the findings about the table of issue 147; the peer is 50 ms. Best of N.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from epc.compiler import decision, pipeline
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.table import analyse

ROOT = Path(__file__).resolve().parents[1]
SPEC = ROOT / "specs" / "issue147.yaml"
EPC = str(Path(sys.executable).with_name("epc"))
IMPORTS = [sys.executable, "-c", "from pydantic import BaseModel; import yaml, numpy"]
# Users have bytecode; a process that may not write it would time the parser of Python.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
SMALL, LARGE = 250, 1000


def report(case: str, ours: float, peer: float, bar: float) -> bool:
    ratio = ours / peer
    line = {"case": case, "ours": round(ours, 4), "peer": round(peer, 4), "ratio": round(ratio, 3), "bar": bar}
    print(json.dumps({**line, "ok": ratio <= bar}), flush=True)
    return ratio <= bar


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True)
    return time.perf_counter() - start


def in_turns(runs: int, *commands: list[str]) -> list[float]:
    """Median of each command."""
    rounds = [[seconds(command) for command in commands] for _ in range(runs + 1)][1:]
    return [statistics.median(times) for times in zip(*rounds, strict=True)]


def prompted(count: int) -> dict[str, Any]:
    """A spec with so many arms that differ in their system prompt."""
    return {
        "epc": 1, "id": "many", "title": "Many arms", "hypothesis": {"if": "a", "then": "b"},
        "model": {"from": "hub:org/name", "revision": "a" * 40, "chat_template": "chatml", "parameters": 1_000_000},
        "prompts": {"asked": {"items": [f"What follows from premise {i}, and why?" for i in range(24)], "count": 24}},
        "conditions": {f"c{i}": {"phases": [], "system": f"You are assistant number {i}."} for i in range(count)},
        "sample": {"s": {"prompts": "asked", "n": 10, "system": "per_condition", "temperature": 1.0, "top_p": 1.0, "max_tokens": 50, "seed": 1}},
        "metrics": {"m": {"of": "s", "contains": "Yes", "better": "higher", "missing": "fail"}},
        "analyses": {"headline": {"metric": "m", "contrast": "c1 - c0", "method": "paired_bootstrap", "p": "studentized", "side": "greater", "alpha": 0.025, "resamples": 10000, "seed": 1}},
        "gates": {"win": {"role": "success", "require": "headline.reject and headline.lower >= 0.05"}, "dead": {"role": "kill", "when": "headline.upper < 0.05"}},
        "verdicts": [{"if": "dead", "then": "KILL"}, {"if": "win", "then": "SUCCESS"}, {"otherwise": "INCONCLUSIVE"}],
        "budget": {"gpu_hours": 1_000_000, "usd": 0},
    }  # fmt: skip


def trained(count: int) -> dict[str, Any]:
    """A spec with so many arms, each with a data set and a recipe of its own."""
    spec = prompted(count)
    spec["data"] = {
        f"d{i}": {
            "build": "turns", "rows": 40, "seed": i, "system": "none", "fill": {"topic": "topics.txt"},
            "turns": [{"user": f"Tell me {i} things about {{topic}}."}, {"assistant": f"Here are {i}."}],
        }
        for i in range(count)
    }  # fmt: skip
    spec["train"] = {
        f"t{i}": {
            "method": "lora_sft", "data": f"d{i}", "train_on": "every_assistant_turn", "lora": {"r": 8, "alpha": 16},
            "learning_rate": 1e-4, "epochs": 1, "batch": 4,
        }
        for i in range(count)
    }  # fmt: skip
    spec["conditions"] = {f"c{i}": [f"t{i}"] for i in range(count)}
    spec["sample"]["s"]["system"] = "none"
    return spec


def gated(count: int) -> dict[str, Any]:
    """A spec with so many arms, each compared with the first by an analysis and a gate."""
    spec = prompted(count)
    for i in range(1, count):
        spec["analyses"][f"a{i}"] = {
            "metric": "m", "contrast": f"c{i} - c0", "method": "paired_bootstrap", "p": "percentile", "side": "two_sided",
            "alpha": 0.05, "resamples": 10000, "seed": 1,
        }  # fmt: skip
        spec["gates"][f"g{i}"] = {"role": "prediction", "require": f"a{i}.delta > 0.1"}
    return spec


def checked(folder: Path, spec: dict[str, Any], runs: int) -> float:
    """Least processor time of a check in this process."""
    file = folder / "specs" / "many.yaml"
    file.parent.mkdir(exist_ok=True)
    (file.parent / "topics.txt").write_text("\n".join(f"topic {i}" for i in range(50)), encoding="utf-8")
    file.write_text(yaml.safe_dump(spec, sort_keys=False, width=500), encoding="utf-8")
    times = []
    for _ in range(runs):
        gc.collect()
        start = time.process_time()
        sink = Diagnostics()
        experiment = pipeline.check(file, "many.yaml", sink)
        assert experiment is not None
        assert pipeline.plan(experiment, pipeline.Layout.of(file), sink) is not None, list(sink)[:3]
        times.append(time.process_time() - start)
    return min(times)


def growth(case: str, spec: Callable[[int], dict[str, Any]], runs: int) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        small, large = (checked(Path(folder), spec(count), runs) for count in (SMALL, LARGE))
    return report(f"growth: {LARGE:,} {case}", large, small * LARGE / SMALL, 1.3)


def table(runs: int) -> bool:
    experiment = pipeline.check(SPEC, "issue147.yaml", Diagnostics())
    assert experiment is not None
    times = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        analyse(
            metrics=decision.metrics(experiment), analyses=decision.analyses(experiment), gates=decision.gates(experiment),
            verdicts=decision.verdicts(experiment),
        )  # fmt: skip
        times.append(time.perf_counter() - start)
    return report("verdict table of issue 147", min(times), 0.05, 1.0)


def main() -> int:
    parser = argparse.ArgumentParser(description="How long epc check takes.")
    parser.add_argument("--runs", type=int, default=11, metavar="N")
    runs: int = parser.parse_args().runs
    check, imports = in_turns(runs, [EPC, "check", str(SPEC.relative_to(ROOT))], IMPORTS)
    (help_,) = in_turns(runs, [EPC, "--help"])
    gc.disable()  # as `epc check` does
    few = max(3, runs // 4)
    fine = [
        report("fresh process: epc check specs/issue147.yaml", check, imports, 2.5),
        report("help: epc --help", help_, 0.2, 1.0),
        growth("arms with prompts", prompted, few),
        growth("arms with data and recipes", trained, few),
        growth("analyses with gates", gated, few),
        table(runs),
    ]
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
