"""Arm by arm: means, what is missing, what a filter dropped, how judge replies came out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from epc.compiler.contract.decision import Decision
from epc.compiler.contract.manifest import Manifest
from epc.compiler.contract.rows import Outcome
from epc.runtime.measurements import ALL
from epc.runtime.report import numbers
from epc.runtime.report.sections.sources import Reference, Sources
from epc.runtime.report.text import one_line


@dataclass(frozen=True, kw_only=True)
class ArmView:
    metric: str
    condition: str
    seeds: str
    units: str
    samples: str
    missing: str
    mean: str
    sample_mean: str
    unfiltered: str
    """Mean without the filter, empty where the metric has none."""
    rows: tuple[Reference, ...]


@dataclass(frozen=True, kw_only=True)
class MissingView:
    metric: str
    condition: str
    units: str
    units_empty: str
    completions: str
    missing: str
    filtered: str
    rows: tuple[Reference, ...]


@dataclass(frozen=True, kw_only=True)
class OutcomesView:
    """How the replies of one judge step came out, by arm."""

    step: str
    outcomes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...], str], ...]
    """(arm, counts in the order of `outcomes`, share scored)."""


def seed_words(manifest: Manifest) -> Mapping[str, str]:
    """Arm -> what stands in place of a seed, for arms whose seed 0 is none."""
    word = "not trained" if manifest.steps else "no seed in the results"
    return {condition.name: word for condition in manifest.design.conditions if not condition.phases}


def arm_views(decision: Decision, manifest: Manifest, sources: Sources) -> tuple[ArmView, ...]:
    scales = {metric.name: metric.scale for metric in manifest.design.metrics}
    without_seed = seed_words(manifest)
    views = []
    for arm in decision.arms:
        scale = scales.get(arm.metric, (0.0, 1.0))
        lost = [f"{numbers.count(arm.n_missing, 'sample')} missing"] if arm.n_missing else []
        lost += [f"{numbers.count(arm.n_filtered, 'sample')} left out by the filter"] if arm.n_filtered else []
        nothing = numbers.unknown(", ".join(lost) or "nothing is scored")
        views.append(
            ArmView(
                metric=one_line(arm.metric),
                condition=one_line(arm.condition),
                seeds=(
                    without_seed[arm.condition]
                    if arm.condition in without_seed and set(arm.seeds) <= {0}
                    else ", ".join(map(str, arm.seeds)) or numbers.unknown("no seed recorded")
                ),
                units=f"{arm.n_units:,}",
                samples=f"{arm.n_samples:,}",
                missing=f"{arm.n_missing:,}",
                mean=nothing if arm.mean is None else numbers.level(arm.mean, scale),
                sample_mean=nothing if arm.sample_mean is None else numbers.level(arm.sample_mean, scale),
                unfiltered="" if arm.mean_unfiltered is None else numbers.level(arm.mean_unfiltered, scale),
                rows=sources.of(arm.metric, arm.condition),
            )
        )
    return tuple(views)


def missing_views(manifest: Manifest, sources: Sources) -> tuple[MissingView, ...]:
    with_filter = {metric.name for metric in manifest.design.metrics if metric.filter is not None}
    views = []
    for (metric, condition), held in sources.rows.items():
        rows = [row for row in held if row.slice == ALL]
        missing, filtered = sum(row.n_missing for row in rows), sum(row.n_filtered for row in rows)
        scored = filtered + sum(row.n for row in rows)
        views.append(
            MissingView(
                metric=one_line(metric),
                condition=one_line(condition),
                units=f"{len(rows):,}",
                units_empty=f"{sum(row.value is None for row in rows):,}",
                completions=f"{scored + missing:,}",
                missing=_counted(missing, scored + missing),
                filtered=_counted(filtered, scored) if metric in with_filter else "no filter",
                rows=sources.of(metric, condition),
            )
        )
    return tuple(views)


def _counted(part: int, whole: int) -> str:
    """`10 (4.2%)`; nothing is just 0."""
    return f"{part:,} ({numbers.percent(part / whole)})" if part else "0"


def outcome_views(decision: Decision, manifest: Manifest) -> tuple[OutcomesView, ...]:
    """Of every judge step that recorded its outcomes: how many replies of each arm were of which kind."""
    judging = {step.id for step in manifest.steps if step.kind == "judge"}
    views = []
    for step in decision.steps:
        arms = step.facts.get("outcomes")
        if step.id not in judging or not isinstance(arms, dict):
            continue
        counts: dict[str, Counter[str]] = {arm: Counter(found) for arm, found in arms.items()}
        kinds = [outcome for outcome in get_args(Outcome) if any(found[outcome] for found in counts.values())]
        rows = [
            (
                one_line(arm),
                tuple(f"{found[outcome]:,}" for outcome in kinds),
                numbers.rate(found["scored"] / found.total() if found.total() else None),
            )
            for arm, found in sorted(counts.items())
        ]
        words = tuple(outcome.replace("_", " ") for outcome in kinds)
        views.append(OutcomesView(step=one_line(step.id), outcomes=words, rows=tuple(rows)))
    return tuple(views)
