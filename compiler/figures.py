"""The totals of a plan with the arithmetic behind each: what plan.md prints and `epc approve` approves.

Counts are exact; tokens, GPU-hours and dollars are estimates that say so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from epc.compiler import cost
from epc.compiler.contract.prices import GPU_PRICES
from epc.compiler.kinds import judge
from epc.compiler.lowering import phase_facts
from epc.compiler.resolve import Experiment
from epc.compiler.spec import ModelJudge, TurnsData


@dataclass(kw_only=True)
class Figures:
    values: dict[str, float] = field(default_factory=dict)
    arithmetic: dict[str, str] = field(default_factory=dict)
    """Figure -> how it comes about, in one line."""

    def add(self, name: str, value: float, arithmetic: str = "") -> None:
        self.values[name] = value
        if arithmetic:
            self.arithmetic[name] = arithmetic

    def total(self, name: str, parts: Iterable[tuple[int, str]]) -> int:
        """Add a sum whose terms are (value, how it comes about)."""
        listed = list(parts)
        value = sum(part for part, _ in listed)
        self.add(name, value, " + ".join(text for _, text in listed) + (f" = {value:,}" if listed else ""))
        return value


def _chains(experiment: Experiment) -> dict[tuple[str, ...], str]:
    """Distinct chains of training phases (content of every phase) -> the phase that ends each; a shared one counts once."""
    spec = experiment.spec
    found: dict[tuple[str, ...], str] = {}
    for name in spec.conditions:
        chain: tuple[str, ...] = ()
        for phase in spec.phases(name):
            recipe = spec.train.get(phase)
            if recipe is None:
                break
            built = experiment.data.get(recipe.data)
            content = recipe.model_dump_json(exclude={"data"} if chain else {"data", "on_top"})
            chain = (*chain, f"{content} {built.sha256 if built and built.sha256 else recipe.data}")
            found.setdefault(chain, phase)
    return found


def figures(experiment: Experiment) -> Figures:
    """Totals of an experiment. Parts that could not be resolved are left out; a declared count is taken as it is."""
    spec = experiment.spec
    found = Figures()
    phases = list(_chains(experiment).values())
    runs = {name: phases.count(name) * len(spec.seeds) for name in spec.train if name in phases}
    facts = {name: phase for name in runs if (phase := phase_facts(experiment, name)) is not None}
    found.total("trainings", ((count, f"{count} x {name}") for name, count in runs.items()))
    found.total(
        "optimizer_steps",
        ((runs[name] * phase.optimizer_steps, f"{runs[name]} x {phase.optimizer_steps} ({name})") for name, phase in facts.items()),
    )  # fmt: skip
    train_tokens = found.total(
        "train_tokens",
        ((runs[name] * phase.tokens, f"{runs[name]} x {phase.tokens:,} ({name})") for name, phase in facts.items()),
    )
    trained = {spec.train[phase].data for phase in phases} & set(spec.data)
    needed = any(isinstance(entry := spec.data[name], TurnsData) and entry.generated for name in trained)
    written = {
        name: (sum(spec.prompts[prompts].count for prompts in entry.prompts if prompts in spec.prompts), entry)
        for name, entry in spec.generate.items()
        if needed
    }
    found.total("texts", ((count * e.n, f"{count} prompts x {e.n} ({name})") for name, (count, e) in written.items()))
    arms = sum(len(spec.training_seeds(name)) for name in spec.conditions)
    sampled = {
        name: (spec.prompts[entry.prompts].count, entry)
        for name, entry in spec.sample.items()
        if entry.prompts in spec.prompts
    }
    found.total(
        "completions",
        ((arms * count * e.n, f"{arms} arms x {count} prompts x {e.n} ({name})") for name, (count, e) in sampled.items()),
    )  # fmt: skip
    sampled_tokens = found.total(
        "sampled_tokens_at_most",
        [
            *((count * e.n * e.max_tokens, f"{count * e.n:,} x {e.max_tokens} ({name})") for name, (count, e) in written.items()),
            *((arms * count * e.n * e.max_tokens, f"{arms * count * e.n:,} x {e.max_tokens} ({name})") for name, (count, e) in sampled.items()),
        ],
    )  # fmt: skip
    found.total(
        "capability_items",
        ((arms * task.items, f"{arms} arms x {task.items:,} ({name})") for name, task in experiment.tasks.items()),
    )
    scored = sum(4 * cost.tokens(task.characters, 0) * arms for task in experiment.tasks.values())
    bills = {
        name: bill
        for name in spec.judges
        if (bill := cost.bill(experiment, name, judge.sets_of(spec, name))) is not None
    }
    judged = [
        (name, read, entry.votes, *sampled[read])
        for name, entry in spec.judges.items()
        if isinstance(entry, ModelJudge)
        for read in judge.sets_of(spec, name)
        if read in sampled
    ]
    found.total(
        "judge_calls",
        ((arms * count * e.n * votes, f"{arms} arms x {count} prompts x {e.n}{cost.votes(votes)} ({name} on {read})") for name, read, votes, count, e in judged),
    )  # fmt: skip
    for kind in ("input", "output"):
        name_of = "judge_input_tokens_at_most" if kind == "input" else "judge_output_tokens"
        each = {name: getattr(bill, f"{kind}_tokens") for name, bill in bills.items()}
        found.total(name_of, ((value, f"{value:,} ({name})") for name, value in each.items()))
    usd = sum(bill.usd for bill in bills.values())
    terms = [f"{name}: {cost.arithmetic(bill, bill.price)}" for name, bill in bills.items() if bill.price is not None]
    dated = sorted({bill.price.as_of for bill in bills.values() if bill.price is not None and bill.price.as_of})
    read = f"; {'list prices of ' + ', '.join(dated) if dated else 'prices as the spec states them'}"
    found.add("usd", round(usd, 2), "; ".join(terms) + read if terms else "")
    parameters = cost.parameters_of(spec)
    if parameters is not None:
        hours = cost.gpu_hours(
            parameters, train=train_tokens, sample=sampled_tokens, score=scored, sampler=spec.sampler
        )
        scale = parameters / cost.REFERENCE_PARAMETERS
        found.add(
            "gpu_hours", round(hours, 4),
            f"({train_tokens:,} trained / {cost.TRAIN_TOKENS_PER_SECOND:,} + {sampled_tokens:,} sampled /"
            f" {cost.SAMPLE_TOKENS_PER_SECOND[spec.sampler]:,} + {scored:,} scored / {cost.SCORE_TOKENS_PER_SECOND:,} tokens a second)"
            f" x {scale:.3g} of the reference model's size",
        )  # fmt: skip
        if spec.budget.gpu in GPU_PRICES:
            found.add("gpu_usd", *cost.gpu_usd(hours, spec.budget.gpu))
    return found
