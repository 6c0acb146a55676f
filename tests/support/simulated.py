"""A small design with every method, and simulated experiments handed to the real decision."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from epc.compiler.contract.canonical import sha256_file
from epc.compiler.contract.decision import Decision
from epc.compiler.contract.logic import And, Atom, Name, Not, Operator, Or, Predicate
from epc.compiler.contract.manifest import (
    Analysis,
    Condition,
    Contrast,
    Design,
    Gate,
    Judge,
    Manifest,
    Metric,
    Role,
    Step,
    Truth,
    TruthOf,
    VerdictRule,
)
from epc.compiler.contract.rows import MeasurementRow
from epc.runtime.decide import decide
from epc.runtime.measurements import Measurements, group
from epc.runtime.simulate.experiments import Simulator
from epc.runtime.simulate.model import EXTREME, Scale, Size

ARMS = ("base", "attacked", "treated")


def atom(statistic: str, operator: Operator, constant: float) -> Atom:
    analysis, name = statistic.split(".")
    return Atom(analysis=analysis, statistic=name, operator=operator, constant=constant)


def gate(name: str, role: Role, predicate: Predicate, **more: Any) -> Gate:
    return Gate(name=name, role=role, text=f"text of {name}", predicate=predicate, **more)


def rule(predicate: Predicate | None, label: str) -> VerdictRule:
    kind: Any = label.split("_")[0]
    text = "otherwise" if predicate is None else f"rule for {label}"
    return VerdictRule(text=text, predicate=predicate, label=label, verdict_class=kind)


def names(*gates: str) -> tuple[Name, ...]:
    return tuple(Name(name=name) for name in gates)


def metric(name: str, kind: str = "judge", **more: Any) -> Metric:
    values = {
        "name": name, "kind": kind, "source": "asked", "unit": "item" if kind == "lm_eval" else "prompt",
        "scale": (0, 1), "better": "higher", "missing": "drop", "judge": "grader" if kind == "judge" else None,
        **more,
    }  # fmt: skip
    return Metric.model_validate(values)


def analysis(name: str, of: str, method: str = "paired_bootstrap", **more: Any) -> Analysis:
    values: dict[str, Any] = {"name": name, "metric": of, "method": method, "side": "greater", "alpha": 0.05, **more}
    if "arm" not in more and "contrast" not in more:
        values["contrast"] = Contrast(treatment="treated", control="attacked")
    if method in ("paired_bootstrap", "bootstrap", "sign_flip"):
        values = {"resamples": 499, "seed": 3, **values}
    return Analysis.model_validate(values)


METHODS: Mapping[str, dict[str, Any]] = {
    "percentile": {"p": "percentile"},
    "shift": {"p": "shift", "side": "two_sided"},
    "studentized": {"p": "studentized"},
    "studentized_less": {"p": "studentized", "side": "less", "interval": 0.9},
    "bca": {"p": "bca"},
    "t": {"method": "paired_t", "side": "two_sided"},
    "flip": {"method": "sign_flip"},
}


def every_statistic(name: str) -> Predicate:
    return And(
        operands=tuple(atom(f"{name}.{each}", ">", -99) for each in ("p", "lower", "upper", "ci_low", "ci_high"))
    )


def every_method(of: str) -> tuple[tuple[Analysis, ...], tuple[Gate, ...]]:
    """Each method on a metric, and a gate that reads all of its statistics."""
    analyses = tuple(analysis(f"{of}_{name}", of, **more) for name, more in METHODS.items())
    gates = tuple(gate(f"reads_{a.name}", "prediction", every_statistic(a.name)) for a in analyses)
    return analyses, gates


def small_design() -> Design:
    """A judged metric with filter, switch and twin, a rate with two seeds' worth of arms, a benchmark."""
    scored, scored_gates = every_method("score")
    rated, rated_gates = every_method("rate")
    analyses = (
        analysis("headline", "score", p="studentized", confirmatory=True, switched=True),
        analysis("lost", "incoherent", p="percentile", side="two_sided"),
        analysis("able", "quiz", "newcombe_paired", side="less"),
        analysis("base_able", "quiz", "wilson", arm="base"),
        analysis("level", "rate", "bootstrap", arm="treated"),
        analysis("took", "score_all", p="percentile", side="less", contrast=Contrast(treatment="attacked", control="base")),
        *scored, *rated,
    )  # fmt: skip
    gates = (
        gate("attack_took", "validity", atom("took.delta", "<", 5)),
        gate("not_at_chance", "sanity", atom("base_able.lower", ">", 0.3)),
        gate("filter", "switch", Or(operands=(atom("lost.delta", ">", 0.1), atom("lost.delta", "<", -0.1))), analysis="headline"),
        gate("harm", "override", atom("rate_percentile.lower", ">", 0.1)),
        gate("dead", "kill", atom("headline.delta", "<", 2)),
        gate("survives", "success", And(operands=(atom("headline.reject", "==", 1), atom("headline.delta", ">=", 2)))),
        gate("capable", "guardrail", Not(operand=atom("able.upper", "<", 0))),
        gate("alive", "prediction", atom("level.lower", ">", 0.2)),
        gate("wilson", "prediction", atom("base_able.ci_high", "<", 0.9)),
        *scored_gates, *rated_gates,
    )  # fmt: skip
    return Design(
        question="If x, then y.",
        conditions=tuple(
            Condition(name=name, key=f"{index:016d}", phases=phases, seeds=seeds)
            for index, (name, phases, seeds) in enumerate(
                zip(ARMS, ((), ("attack",), ("reflex", "attack")), ((0,), (1, 2), (1, 2)), strict=True)
            )
        ),
        metrics=(
            metric("score", scale=(0, 100), score="aligned", filter="coherent >= 50", empty="drop"),
            metric("score_all", scale=(0, 100), score="aligned"),
            metric("incoherent", score="coherent < 50", better="lower"),
            metric("rate", "pattern", missing="fail"),
            metric("quiz", "lm_eval", missing="fail"),
        ),
        analyses=analyses,
        gates=gates,
        verdicts=(
            rule(Name(name="harm"), "OVERRIDE_HARM"),
            rule(Name(name="dead"), "KILL"),
            rule(And(operands=names("survives", "capable", "not_at_chance")), "SUCCESS"),
            rule(None, "INCONCLUSIVE"),
        ),
        seeds=(1, 2),
        judges=(Judge(name="grader", model="m", rubric_sha256="0" * 64, max_missing=0.1),),
    )  # fmt: skip


def small_sizes(design: Design) -> dict[str, Size]:
    return {
        m.name: Size(units=60, samples=1) if m.name == "quiz" else Size(units=24, samples=4) for m in design.metrics
    }


def truth(**changes: Any) -> Truth:
    """Means by arm; `changes` are fields of a metric, such as score={"means": ...}."""
    metrics: dict[str, Any] = {
        "score": {"means": dict(zip(ARMS, (70, 45, 52), strict=True)), "unit_sd": 15, "correlation": 0.5},
        "score_all": {"means": dict(zip(ARMS, (68, 44, 50), strict=True)), "unit_sd": 15, "correlation": 0.5},
        "incoherent": {"means": dict(zip(ARMS, (0.05, 0.2, 0.25), strict=True)), "unit_sd": 0.1},
        "rate": {"means": dict(zip(ARMS, (0.1, 0.4, 0.45), strict=True)), "unit_sd": 0.2, "correlation": 0.3},
        "quiz": {"means": dict(zip(ARMS, (0.6, 0.55, 0.53), strict=True)), "unit_sd": 0.4, "correlation": 0.9},
    }
    for name, change in changes.items():
        metrics[name] = {**metrics[name], **change}
    return Truth(name="t", metrics={name: TruthOf.model_validate(of) for name, of in metrics.items()})


def simulator(design: Design, sizes: Mapping[str, Size], **more: Any) -> Simulator:
    return Simulator(design, sizes, **{"seed": 5, "experiments": 60, "extreme": EXTREME, **more})


def rows_of(simulated: Simulator, of: Truth, experiment: int) -> Iterator[dict[str, Any]]:
    """Measurement rows of one simulated experiment."""
    design = simulated.design
    keys = {condition.name: condition.key for condition in design.conditions}
    scales = {each.name: Scale.of(each).denominator for each in design.metrics}
    for name, arm, seed, slice_, unit, cell in simulated.rows(of, experiment):
        n, total = int(cell.n[0, 0]), int(cell.total[0, 0])
        yield {
            "mode": "real", "condition": arm, "condition_key": keys[arm], "seed": seed, "metric": name, "slice": slice_,
            "unit": f"u{unit:03d}", "n": n, "n_missing": int(cell.missing[0, 0]),
            "n_filtered": int(cell.filtered[0, 0]), "total": total, "denominator": scales[name],
            "value": total / scales[name] / n if n else None,
        }  # fmt: skip


def measurements_of(simulated: Simulator, of: Truth, experiment: int) -> Measurements:
    return group([MeasurementRow.model_validate(row) for row in rows_of(simulated, of, experiment)])


def decided(folder: Path, simulated: Simulator, of: Truth, experiment: int) -> Decision:
    """What `epc decide` says of the rows of one simulated experiment."""
    design = simulated.design
    step = Step(
        id="measure", kind="measure", label="measure", needs=(), key="measure000000000", script="steps/measure.py",
        outputs=("measurements.jsonl",), recipe={},
    )  # fmt: skip
    manifest = Manifest(
        epc="0", id="tiny", title="Tiny", mode="real", spec="specs/tiny.yaml", spec_sha256="0" * 64,
        lock_sha256="1" * 64, steps=(step,), design=design,
    )  # fmt: skip
    bundle = folder / f"bundle{experiment}"
    out = bundle / "store" / step.key
    out.mkdir(parents=True)
    (bundle / "manifest.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    lines = [json.dumps(row) for row in rows_of(simulated, of, experiment)]
    (out / "measurements.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    record = {
        "schema_version": 1, "id": "measure", "key": step.key, "kind": "measure", "mode": "real", "recipe": {},
        "outputs": {"measurements.jsonl": sha256_file(out / "measurements.jsonl")}, "seconds": 1.0, "versions": {},
        "facts": {},
    }  # fmt: skip
    (out / "finished.json").write_text(json.dumps(record), encoding="utf-8")
    return decide(bundle)
