"""What a statement about an experiment can be about, recomputed from the spec: name -> value and arithmetic.

A quantity is `name` for the whole experiment (judge_calls, usd, trainings) or `name.entry` for one entry of a
section (optimizer_steps.attack, n.headline). What could not be resolved has no quantities.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from epc.compiler import cost
from epc.compiler.decision import confirmatory
from epc.compiler.figures import figures
from epc.compiler.kinds import judge
from epc.compiler.lowering import phase_facts
from epc.compiler.resolve import Experiment
from epc.compiler.spec import LmEvalMetric, ModelJudge


@dataclass(frozen=True, kw_only=True)
class Quantity:
    value: float | str
    arithmetic: str = ""
    """How the value comes about; empty where the spec states it."""


def quantities(experiment: Experiment) -> dict[str, Quantity]:
    """Every quantity of an experiment that can be computed, errors elsewhere notwithstanding."""
    return dict(_quantities(experiment))


def _registered(experiment: Experiment) -> Iterator[tuple[str, Quantity]]:
    """Earlier registrations in the folder of locks that have a condition of the same name, and their training seeds."""
    spec = experiment.spec
    if spec.locks is None:
        return
    from epc.compiler.comparison.locks import locks_with, prior_locks

    locks = prior_locks(experiment.surface.folder / spec.locks)
    for name in spec.conditions:
        found = [lock for lock in locks_with(locks, name) if lock.id != spec.id]
        listed = ", ".join(lock.path.name for lock in found)
        yield f"registered.{name}", Quantity(value=len(found), arithmetic=listed)
        seeds = sorted({seed for lock in found for seed in lock.registration.design.get("seeds", [])})
        said = f"{', '.join(map(str, seeds))} in {listed}" if seeds else listed
        yield f"registered_seeds.{name}", Quantity(value=len(seeds), arithmetic=said)


def _quantities(experiment: Experiment) -> Iterator[tuple[str, Quantity]]:
    spec = experiment.spec
    totals = figures(experiment)
    for name, value in totals.values.items():
        yield name, Quantity(value=value, arithmetic=totals.arithmetic.get(name, ""))
    if calls := totals.values["judge_calls"]:
        usd = totals.values["usd"]
        yield "usd_per_call", Quantity(value=usd / calls, arithmetic=f"${usd:,.2f} / {calls:,.0f} calls")
    yield "conditions", Quantity(value=len(spec.conditions), arithmetic=", ".join(spec.conditions))
    yield "seeds", Quantity(value=len(spec.seeds), arithmetic=", ".join(map(str, spec.seeds)))
    tests = sorted(confirmatory(experiment))
    yield "confirmatory_tests", Quantity(value=len(tests), arithmetic=", ".join(tests))
    yield from _registered(experiment)
    yield "model", Quantity(value=spec.model.from_.rpartition(":")[2])
    yield "sampler", Quantity(value=spec.sampler)
    for name in spec.conditions:
        yield f"seeds.{name}", Quantity(value=len(spec.training_seeds(name)))
        yield f"phases.{name}", Quantity(value=len(spec.phases(name)), arithmetic=", ".join(spec.phases(name)))
    for name, entry in spec.data.items():
        yield f"rows.{name}", Quantity(value=entry.rows)
    for name, recipe in spec.train.items():
        yield f"epochs.{name}", Quantity(value=recipe.epochs)
        yield f"learning_rate.{name}", Quantity(value=recipe.learning_rate)
        effective = recipe.batch * recipe.accumulation
        yield f"effective_batch.{name}", Quantity(value=effective, arithmetic=f"{recipe.batch} x {recipe.accumulation}")
        facts = phase_facts(experiment, name)
        if facts is not None:
            rows = spec.data[recipe.data].rows
            steps = f"{recipe.epochs} epochs x ceil(ceil({rows:,} rows / {recipe.batch}) / {recipe.accumulation}) = {facts.optimizer_steps}"
            yield f"optimizer_steps.{name}", Quantity(value=facts.optimizer_steps, arithmetic=steps)
            ratio = recipe.warmup_ratio
            warmup = "" if ratio is None else f"ceil({ratio:g} x {facts.optimizer_steps}) = {facts.warmup_steps}"
            yield f"warmup_steps.{name}", Quantity(value=facts.warmup_steps, arithmetic=warmup)
    for name, found in experiment.prompts.items():
        yield f"prompts.{name}", Quantity(value=len(found))
    arms = sum(len(spec.training_seeds(name)) for name in spec.conditions)
    for name, sample in spec.sample.items():
        yield f"n.{name}", Quantity(value=sample.n)
        yield f"max_tokens.{name}", Quantity(value=sample.max_tokens)
        if sample.prompts in spec.prompts:
            count = spec.prompts[sample.prompts].count
            yield f"units.{name}", Quantity(value=count, arithmetic=f"prompts of {sample.prompts}")
            product = f"{arms} arms x {count} prompts x {sample.n} = {arms * count * sample.n:,}"
            yield f"completions.{name}", Quantity(value=arms * count * sample.n, arithmetic=product)
            yield (
                f"completions_per_arm.{name}",
                Quantity(value=count * sample.n, arithmetic=f"{count} prompts x {sample.n} = {count * sample.n:,}"),
            )
    for name, asked in spec.judges.items():
        read = [spec.sample[found] for found in judge.sets_of(spec, name) if spec.sample[found].prompts in spec.prompts]
        votes = asked.votes if isinstance(asked, ModelJudge) else 0  # the others call nobody
        each = [arms * spec.prompts[sample.prompts].count * sample.n * votes for sample in read if votes]
        terms = " + ".join(
            f"{arms} arms x {spec.prompts[s.prompts].count} prompts x {s.n}{cost.votes(votes)}" for s in read
        )
        yield f"judge_calls.{name}", Quantity(value=sum(each), arithmetic=f"{terms} = {sum(each):,}" if each else "")
        yield f"votes.{name}", Quantity(value=asked.votes)
        yield f"judge_model.{name}", Quantity(value=asked.asked)
    for name, metric in spec.metrics.items():
        if isinstance(metric, LmEvalMetric):
            yield f"items.{name}", Quantity(value=metric.items)
            yield f"instrument.{name}", Quantity(value="lm-eval with transformers")
    for name, analysis in spec.analyses.items():
        yield f"alpha.{name}", Quantity(value=analysis.alpha)
        if analysis.resamples is not None:
            yield f"resamples.{name}", Quantity(value=analysis.resamples)
