"""Small random verdict tables, and random results that their methods allow."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from epc.compiler.contract.logic import And, Atom, Name, Not, Or, Predicate, compare, evaluate
from epc.compiler.contract.manifest import Analysis, Contrast, Gate, Metric, VerdictRule
from epc.compiler.predicate import unparse
from epc.compiler.table.facts import facts, holds

METRIC = Metric(name="m", kind="pattern", source="s", unit="prompt", scale=(0, 1), better="higher", missing="fail")
METRICS = {"m": METRIC, "k": METRIC.model_copy(update={"name": "k"})}


def contrast(name: str, metric: str, method: str, **options: Any) -> Analysis:
    base = {"name": name, "metric": metric, "contrast": Contrast(treatment="t", control="c"), "method": method}
    return Analysis.model_validate({**base, "side": "greater", "alpha": 0.05, **options})


ANALYSES = {
    one.name: one
    for one in (
        contrast("t", "m", "paired_t"),
        contrast("boot", "m", "paired_bootstrap", p="percentile", resamples=999, seed=1),
        contrast("two", "m", "newcombe_paired", side="two_sided"),
        contrast("stud", "k", "paired_bootstrap", p="studentized", resamples=9999, seed=1, alpha=0.025),
    )
}
CONSTANTS: Mapping[str, Sequence[float]] = {
    "delta": (-0.2, 0.0, 0.1, 0.3),
    "lower": (-0.1, 0.0, 0.1),
    "upper": (0.0, 0.2),
    "ci_low": (-0.1, 0.0),
    "ci_high": (0.1, 0.3),
    "p": (0.01, 0.05, 0.5, 0.0515),
    "reject": (0.0, 1.0, 0.5),
}

atoms = st.sampled_from(sorted(CONSTANTS)).flatmap(
    lambda statistic: st.builds(
        Atom,
        analysis=st.sampled_from(sorted(ANALYSES)),
        statistic=st.just(statistic),
        operator=st.sampled_from(("<", "<=", ">", ">=", "==", "!=")),
        constant=st.sampled_from(CONSTANTS[statistic]),
    )
)


def trees(leaf: st.SearchStrategy[Any], leaves: int) -> st.SearchStrategy[Predicate]:
    def extend(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        several = st.lists(inner, min_size=2, max_size=3).map(tuple)
        return st.one_of(
            st.builds(Not, operand=inner), st.builds(And, operands=several), st.builds(Or, operands=several)
        )

    return st.recursive(leaf, extend, max_leaves=leaves)


Point = dict[tuple[str, str], float]
"""(analysis, statistic) -> value."""


def points(seed: int, count: int) -> Iterator[Point]:
    """Random results on and around the thresholds that meet every fact of every analysis."""
    rng = random.Random(seed)
    places = sorted({c for name in ("delta", "lower", "upper", "ci_low", "ci_high") for c in CONSTANTS[name]})
    made = 0
    while made < count:
        point: Point = {}
        deltas = {metric: place(rng, places) for metric in ("m", "k")}
        for name, one in ANALYSES.items():
            delta = deltas[one.metric]
            statistics = {"delta": delta}
            lows, highs = (
                sorted(place(rng, places, low, high) for _ in "ab") for low, high in ((-1, delta), (delta, 1))
            )
            if one.side == "two_sided":
                # Newcombe's two intervals are not nested by any fact.
                rng.shuffle(lows)
                rng.shuffle(highs)
            statistics["ci_low"], statistics["lower"] = lows if one.side == "two_sided" else (lows[0], lows[0])
            statistics["ci_high"], statistics["upper"] = highs if one.side == "two_sided" else (highs[0], highs[0])
            statistics["p"] = (
                rng.randint(1, 1000) / 1000 if rng.random() < 0.7 else rng.choice((0.05, 0.01, 0.5, 0.051))
            )
            statistics["reject"] = float(statistics["p"] < one.alpha)
            point |= {(name, statistic): value for statistic, value in statistics.items()}
        if all(agrees(name, point) for name in ANALYSES):
            made += 1
            yield point


def place(rng: random.Random, places: Sequence[float], low: float = -1.0, high: float = 1.0) -> float:
    inside = [value for value in places if low <= value <= high]
    return rng.choice(inside) if inside and rng.random() < 0.5 else round(rng.uniform(low, high), 3)


def agrees(name: str, point: Point) -> bool:
    one = ANALYSES[name]
    statistics = {statistic: value for (owner, statistic), value in point.items() if owner == name}
    exact = statistics["ci_low"] <= statistics["delta"] <= statistics["ci_high"]
    return exact and all(holds(fact, statistics) for fact in facts(one, METRICS[one.metric]))


POINTS = list(points(seed=11, count=400))


def truth(predicate: Predicate, point: Point) -> bool:
    def leaf(node: Atom | Name) -> bool:
        assert isinstance(node, Atom)
        return bool(compare(point[node.analysis, node.statistic], node.operator, node.constant))

    return bool(evaluate(predicate, leaf))


NAMES = ("g0", "g1", "g2", "g3")
LABELS = ("SUCCESS", "KILL", "KILL_OTHER", "OVERRIDE", "INCONCLUSIVE_MIXED")
rules = st.lists(
    st.tuples(trees(st.sampled_from(NAMES).map(lambda name: Name(name=name)), 3), st.sampled_from(LABELS)),
    min_size=1,
    max_size=4,
)


def table(predicates: Sequence[Predicate], rows: Sequence[tuple[Predicate, str]], otherwise: bool) -> Any:
    gates = [
        Gate(name=name, role="kill", text=unparse(predicate), predicate=predicate)
        for name, predicate in zip(NAMES, predicates, strict=True)
    ]
    verdicts = [
        VerdictRule.model_validate(
            {"text": unparse(predicate), "predicate": predicate, "label": label, "verdict_class": label.split("_")[0]}
        )
        for predicate, label in rows
    ]
    if otherwise:
        last = VerdictRule(text="otherwise", predicate=None, label="INCONCLUSIVE", verdict_class="INCONCLUSIVE")
        verdicts.append(last)
    return gates, verdicts


def matched(rule: VerdictRule, gate_truth: Mapping[str, bool]) -> bool:
    if rule.predicate is None:
        return True
    return bool(evaluate(rule.predicate, lambda leaf: gate_truth[leaf.name] if isinstance(leaf, Name) else None))
