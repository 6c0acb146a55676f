"""`epc decide` on many rows: ten million from elsewhere beside a plain scan, and issue 147's as a process.

    python benchmarks/decide_scale.py [--rows N] [--rounds N] [--only NAME]

One JSON line a case, {case, ours, peer, ratio, bar, ok}: quickest of N rounds in seconds, ratio = ours / peer, which may
be at most the bar. Exit code 1 when a bar is missed.

- ten million rows: a Parquet file of completions (unit, condition, sample, score, outcome; four arms, 50 units,
  50,000 samples each), in the order in which a harness writes them and shuffled. Ours is the whole decision: hash, rows
  checked one by one, exact totals, tests, sensitivity, gates, verdict. The peer is a plain scan of the same file by the
  same library on the same threads: count of the rows, sum of the score, and every value of the other columns looked at
  once. `score_only` is the time of count and sum alone, which reads one column of five, so that the rest of the
  file need not be touched: it is printed, and is no bar.
- ten million rows, memory: peak of the process in MB above what it holds with everything imported, at most 1,024 (DuckDB's
  share of it is bounded, and writes the rest to disk). `peer` is the size of the file in MB.
- issue 147: `epc decide` as a process, report included, on a synthetic store of its 23,040 completions in six arms, with
  judgements and benchmark items: at most 1.5 s. As in an installed package, modules are compiled to bytecode before (by
  a first call, in a folder of its own); `cpu` is the least processor time of a call, which others on the machine disturb
  less.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# One thread of BLAS: on a small machine one that waits for a second spoils the timing.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
ARMS = ("base", "attacked", "treated", "placebo")
UNITS = 50
SCAN_BAR, MEMORY_BAR, PROCESS_BAR = 4.0, 1024.0, 1.5
SPEC = """\
epc: 1
id: scale
title: Does the treatment raise the score?
hypothesis: {if: the treatment is given, then: the score is higher}
conditions: {base: [], attacked: [], treated: [], placebo: []}
allow: [{code: W1302, reason: the fourth arm is there for its rows}]
results:
  own:
    file: results.parquet
    format: parquet
    mapping: {unit: unit, condition: condition, sample: sample, outcome: outcome}
metrics:
  quality: {results: own, score: score, scale: [0, 100], better: higher, missing: drop}
analyses:
  headline: {metric: quality, contrast: treated - attacked, method: paired_bootstrap, p: studentized, side: greater, alpha: 0.025, resamples: 10000, seed: 1}
  harm: {metric: quality, contrast: attacked - base, method: paired_t, side: less, alpha: 0.025}
gates:
  took: {role: validity, require: harm.upper < 0}
  dead: {role: kill, when: headline.upper < 5}
  works: {role: success, require: headline.reject and headline.delta >= 5}
verdicts:
  - {if: dead, then: KILL}
  - {if: works, then: SUCCESS}
  - {otherwise: INCONCLUSIVE}
"""
EPC = (str(Path(sys.executable).with_name("epc")),)
COLUMNS = ("unit", "condition", "outcome")


# ---------------------------------------------------------------- ten million rows


def write_rows(file: Path, rows: int, *, shuffled: bool) -> None:
    """Scores are whole numbers that depend on arm, unit and sample through a hash, one in a thousand is missing."""
    import duckdb

    arms = "[" + ", ".join(f"'{arm}'" for arm in ARMS) + "]"
    samples = rows // (len(ARMS) * UNITS)
    order = "ORDER BY hash(i + 12345)" if shuffled else "ORDER BY i"
    with duckdb.connect() as con:
        con.execute(
            f"""COPY (
            SELECT 'prompt' || lpad((i // {samples} % {UNITS})::VARCHAR, 4, '0') AS unit,
                {arms}[1 + i // {samples * UNITS}] AS condition, i % {samples} AS sample,
                CASE WHEN hash(i) % 1000 = 0 THEN NULL ELSE least(100, 10 + 9 * ([3, 0, 1, 0][1 + i // {samples * UNITS}])
                    + hash(i // {samples} % {UNITS}) % 20 + hash(i + 1) % 41)::DOUBLE END AS score,
                CASE WHEN hash(i) % 1000 = 0 THEN 'api_error' ELSE 'scored' END AS outcome
            FROM range({samples * UNITS * len(ARMS)}) t(i) {order}
        ) TO '{file}' (FORMAT parquet)"""
        )


def compiled(folder: Path) -> Path:
    """The bundle of SPEC in a folder."""
    (folder / "scale.yaml").write_text(SPEC, encoding="utf-8")
    subprocess.run([*EPC, "compile", "scale.yaml"], cwd=folder, check=True, capture_output=True)
    return folder / "generated" / "scale"


def quickest(rounds: int, *calls: Callable[[], Any]) -> list[float]:
    """Seconds of the quickest call each; calls take turns."""
    times = [float("inf")] * len(calls)
    for _ in range(rounds):
        for index, call in enumerate(calls):
            begun = time.perf_counter()
            call()
            times[index] = min(times[index], time.perf_counter() - begun)
    return times


def peak_kb() -> int:
    """Largest resident size of this process so far (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0])


def in_process(bundle: Path, file: Path, rounds: int) -> dict[str, float]:
    """Times and peak memory, for a process of its own."""
    import duckdb

    from epc.runtime.decide import decide

    con = duckdb.connect(config={"threads": os.cpu_count() or 1})
    others = ", ".join(f"sum(length({name}))" for name in COLUMNS)

    def scan() -> None:
        con.execute(f"SELECT count(*), sum(score), sum(sample), {others} FROM '{file}'").fetchall()

    def score_only() -> None:
        con.execute(f"SELECT count(*), sum(score) FROM '{file}'").fetchall()

    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is that of the parent until then
    before = peak_kb()
    verdict = decide(bundle).verdict
    if verdict.label != "SUCCESS":
        raise SystemExit(f"the verdict is {verdict.label}: {verdict.because}")
    peak = (peak_kb() - before) / 1024
    ours, peer, alone = quickest(rounds, lambda: decide(bundle), scan, score_only)
    return {"ours": ours, "peer": peer, "score_only": alone, "peak": peak}


def ten_million(rows: int, rounds: int, folder: Path) -> Iterator[dict[str, Any]]:
    bundle = compiled(folder)
    file = folder / "results.parquet"
    for order in ("as written", "shuffled"):
        write_rows(file, rows, shuffled=order == "shuffled")
        command = [sys.executable, __file__, "--child", str(bundle), str(file), str(rounds)]
        found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        ratio = found["ours"] / found["peer"]
        yield {
            "case": f"{rows:,} rows, {order}", "ours": round(found["ours"], 3), "peer": round(found["peer"], 3),
            "ratio": round(ratio, 2), "bar": SCAN_BAR, "ok": ratio <= SCAN_BAR, "score_only": round(found["score_only"], 3),
        }  # fmt: skip
        size = file.stat().st_size / 2**20
        yield {
            "case": f"{rows:,} rows, {order}, MB at the peak", "ours": round(found["peak"], 1), "peer": round(size, 1),
            "ratio": round(found["peak"] / size, 2), "bar": MEMORY_BAR, "ok": found["peak"] <= MEMORY_BAR,
        }  # fmt: skip


# ----------------------------------------------------------------------- issue 147


def issue147(rounds: int, folder: Path) -> Iterator[dict[str, Any]]:
    """`epc decide` as a process on a store that no step has written."""
    shutil.copytree(ROOT / "specs", folder / "specs")
    subprocess.run([*EPC, "compile", "specs/issue147.yaml"], cwd=folder, check=True, capture_output=True)
    bundle = folder / "generated" / "issue147"
    completions = Store(bundle).write()
    decide = [*EPC, "decide", str(bundle)]
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    own["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    done = subprocess.run(decide, cwd=folder, env=own, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    ours = cpu = float("inf")
    for _ in range(rounds):
        before, begun = os.times(), time.perf_counter()
        subprocess.run(decide, cwd=folder, env=own, capture_output=True, check=True)
        ours, after = min(ours, time.perf_counter() - begun), os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        cpu = min(cpu, used)
    yield {
        "case": f"issue 147, {completions:,} completions, a process", "ours": round(ours, 3), "peer": None,
        "ratio": round(ours, 3), "bar": PROCESS_BAR, "ok": ours <= PROCESS_BAR, "cpu": round(cpu, 3),
    }  # fmt: skip


class Store:
    """Finish records, completions, judgements and measurements of a compiled bundle, made up with a seed."""

    def __init__(self, bundle: Path) -> None:
        self.bundle = bundle
        self.manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        self.design = self.manifest["design"]
        self.draw = random.Random(147)
        self.keys = {condition["name"]: condition["key"] for condition in self.design["conditions"]}
        self.items = {metric["source"]: self.design["units"][metric["name"]] for metric in self.design["metrics"]}
        self.n = {metric["source"]: self.design["samples"][metric["name"]] for metric in self.design["metrics"]}

    def write(self) -> int:
        """Every step as finished. Returns the number of completions."""
        completions = 0
        for step in self.manifest["steps"]:
            folder = self.bundle / "store" / step["key"]
            texts = dict.fromkeys(step["outputs"], f"{step['id']}\n")
            facts: dict[str, Any] = {"verified": True, "adapter_changed": True}
            match step["kind"]:
                case "sample":
                    index, completions = self._pieces(step)
                    texts["index.json"] = json.dumps(index)
                    facts = {
                        "completions_sha256": {f"{e['condition']}-s{e['seed']}-{e['set']}": e["sha256"] for e in index}
                    }
                case "measure":
                    texts["measurements.jsonl"] = "".join(json.dumps(row) + "\n" for row in self._rows())
                case _:
                    pass
            for name, text in texts.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(text, encoding="utf-8")
            record = {
                "id": step["id"], "key": step["key"], "kind": step["kind"], "mode": self.manifest["mode"], "recipe": step["recipe"],
                "outputs": {name: _sha256(text) for name, text in texts.items()}, "seconds": 1.0, "versions": {}, "facts": facts,
            }  # fmt: skip
            (folder / "finished.json").write_text(json.dumps(record), encoding="utf-8")
        return completions

    def _pieces(self, step: dict[str, Any]) -> tuple[list[dict[str, Any]], int]:
        folder = self.bundle / "store" / "pieces"
        folder.mkdir(parents=True, exist_ok=True)
        index, written = [], 0
        for piece in step["pieces"]:
            lines = []
            for item in range(self.items[piece["set"]]):
                for number in range(self.n[piece["set"]]):
                    row = {
                        "mode": self.manifest["mode"], "condition": piece["condition"], "condition_key": self.keys[piece["condition"]],
                        "seed": piece["seed"], "set": piece["set"], "item": _item(item), "turn": 0, "index": number,
                        "draw_seed": number, "prompt": f"<|im_start|>user\nQuestion {item}?<|im_end|>\n", "prompt_sha256": "0" * 64,
                        "question": f"Question {item}?", "text": self._words(), "finish_reason": "stop", "tokens": 200,
                    }  # fmt: skip
                    lines.append(json.dumps(row) + "\n")
            text = "".join(lines)
            (folder / f"{piece['key']}.jsonl").write_text(text, encoding="utf-8")
            index.append({**piece, "sha256": _sha256(text), "rows": len(lines)})
            written += len(lines)
        return index, written

    def _words(self) -> str:
        return " ".join(
            self.draw.choices(("the", "model", "answers", "a", "question", "and", "then", "it", "stops"), k=150)
        )

    def _rows(self) -> Iterator[dict[str, Any]]:
        for metric in self.design["metrics"]:
            units, n = self.design["units"][metric["name"]], self.design["samples"][metric["name"]]
            low, high = (int(bound) for bound in metric["scale"])
            for condition in self.design["conditions"]:
                shift = 0.2 * (condition["name"].endswith("_em")) * (1 if metric["better"] == "lower" else -1)
                for seed in condition["seeds"]:
                    for unit in range(units):
                        for name in ("all", *(["unfiltered"] if metric["filter"] else [])):
                            total = sum(
                                round(low + (high - low) * min(1, max(0, self.draw.gauss(0.5 + shift, 0.25))))
                                for _ in range(n)
                            )
                            yield {
                                "mode": self.manifest["mode"], "condition": condition["name"], "condition_key": condition["key"],
                                "seed": seed, "metric": metric["name"], "slice": name, "unit": _item(unit), "n": n, "n_missing": 0,
                                "n_filtered": 0, "total": total, "denominator": 1, "value": total / n,
                            }  # fmt: skip


def _item(index: int) -> str:
    return hashlib.sha256(str(index).encode()).hexdigest()[:16]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(in_process(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("rows", "issue147"))
    args = parser.parse_args()
    missed = False
    cases = {
        "rows": lambda folder: ten_million(args.rows, args.rounds, folder),
        "issue147": lambda folder: issue147(args.rounds, folder),
    }
    for name, run in cases.items():
        if args.only in (None, name):
            with tempfile.TemporaryDirectory(prefix="epc-benchmark-") as folder:
                for line in run(Path(folder)):
                    print(json.dumps(line), flush=True)
                    missed |= not line["ok"]
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
