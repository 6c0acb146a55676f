"""Experiment to Plan: condition x seed x phase becomes typed steps with keys; the design becomes data.

Shared phase prefixes become one step, and all arms of the base model are sampled by one step and
scored by one step. A key hashes the canonical recipe of a step, the keys of its inputs and the
version of what it calls; labels, comments and gates do not reach it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, get_args

import yaml

from epc.compiler import decision
from epc.compiler.contract import manifest as contract
from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.judge_models import API_VERSION
from epc.compiler.contract.manifest import StepKind
from epc.compiler.contract.rows import Mode
from epc.compiler.figures import Figures, figures
from epc.compiler.kinds import arms, measure
from epc.compiler.lowering import Lowering, PlannedStep, TrainingFacts, phase_facts
from epc.compiler.resolve import Experiment
from epc.compiler.spec import LATER, ResultMetric

ELSEWHERE: Final = "elsewhere"
"""The one phase of an arm that was not trained here, and of which rows say the training seed."""
KIND_ORDER = get_args(StepKind)
"""The order in which kinds are listed; it is topological, and steps of one kind keep theirs."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    experiment: Experiment
    steps: tuple[PlannedStep, ...]
    lowering: Lowering
    training: Mapping[str, TrainingFacts]
    figures: Figures
    template_text: str | None
    """The chat template that replaces the model's own."""

    # Made when they are asked for: `epc check` has no use for them.

    @cached_property
    def design(self) -> contract.Design:
        """What is registered about the decision."""
        return _design(self.lowering)

    @cached_property
    def lock_text(self) -> str:
        """The registration as text."""
        return _lock(self)

    @property
    def lock_sha256(self) -> str:
        return sha256_text(self.lock_text)


def _design(plan: Lowering) -> contract.Design:
    spec = plan.spec
    return contract.Design(
        question=f"If {spec.hypothesis.if_}, then {spec.hypothesis.then}.",
        conditions=tuple(
            contract.Condition(
                name=name,
                key=arms.condition_key(plan, name),
                phases=(ELSEWHERE,) if spec.seeded_elsewhere else tuple(spec.phases(name)),
                seeds=spec.training_seeds(name),
                system=spec.system(name),
            )
            for name in spec.conditions
        ),
        metrics=decision.metrics(plan.experiment),
        analyses=decision.analyses(plan.experiment),
        gates=decision.gates(plan.experiment),
        verdicts=decision.verdicts(plan.experiment),
        seeds=tuple(spec.seeds),
        transcripts=spec.reporting.transcripts,
        transcript_seed=spec.reporting.transcript_seed,
        judges=decision.judges(plan.experiment),
        results=decision.results(plan.experiment),
        subsets=decision.subsets(plan.experiment),
        families=decision.families(plan.experiment),
        truths=decision.truths(plan.experiment),
        interim=decision.interim(plan.experiment),
        units=decision.planned_units(plan.experiment),
        samples=decision.planned_samples(plan.experiment),
    )


def _lock(plan: Plan) -> str:
    """The registration as text: every default explicit, every file and data set hashed."""
    spec = plan.experiment.spec
    # Where results are shown decides nothing, and may be changed without a word to the registration.
    value = spec.model_dump(mode="json", by_alias=True, warnings=False, exclude={"report_to"})
    for section in ("data", "generate", "sample"):
        for entry in value[section].values():
            if "turns" in entry:
                entry["turns"] = [
                    {role: text for role, text in turn.items() if text is not None} for turn in entry["turns"]
                ]
    for name, built in plan.experiment.data.items():
        value["data"][name]["sha256"] = built.sha256 or "pending"
    for name, facts in plan.training.items():
        value["train"][name] |= {"optimizer_steps": facts.optimizer_steps, "warmup_steps": facts.warmup_steps}
    for name, prompts in plan.experiment.prompts.items():
        value["prompts"][name]["sha256"] = sha256_text("\n".join(prompts))
    for metric in value["metrics"].values():
        for key in LATER if "lm_eval" in metric else ():
            if metric[key] in (None, False):
                del metric[key]
    for name, judge in spec.judges.items():
        if judge.provider == "anthropic":
            value["judges"][name]["api_version"] = API_VERSION
    value["conditions"] = {
        c.name: {"phases": list(c.phases), "system": c.system, "key": c.key} for c in plan.design.conditions
    }
    value["gates"] = {
        g.name: {"role": g.role, "predicate": g.text, "on": list(g.on), "analysis": g.analysis, "say": g.say}
        for g in plan.design.gates
    }
    if plan.design.interim is not None:
        value["interim"]["levels"] = list(plan.design.interim.levels)
    value["verdicts"] = [{"if": rule.text, "then": rule.label, "say": rule.say} for rule in plan.design.verdicts]
    value["model"]["chat_template_sha256"] = None if plan.template_text is None else sha256_text(plan.template_text)
    value["files"] = {path: entry.sha256 for path, entry in sorted(plan.experiment.inputs.items())}
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)
    head = f"Frozen registration of {spec.id}. Its SHA-256 is its identity; do not edit."
    if plan.lowering.mode == "rehearsal":
        head = f"REHEARSAL of {spec.id}: a scaled copy of its plan. It registers nothing."
    return f"# {head}\n{text}"


def lower(experiment: Experiment, *, template_text: str | None, spec_folder: str, mode: Mode = "real") -> Plan:
    """Steps and design of an experiment that passed every check.

    `template_text` is the chat template that replaces the model's own, None to keep that; `spec_folder`
    is the path from the bundle to the folder of the spec.
    """
    lowering = Lowering(experiment=experiment, template_text=template_text, spec_folder=spec_folder, mode=mode)
    if any(not isinstance(metric, ResultMetric) for metric in experiment.spec.metrics.values()):
        measure.lower(lowering)
    for name in experiment.spec.conditions:
        arms.condition_key(lowering, name)  # of which the steps are part of the plan, also where nothing is sampled
    training = {name: facts for name in experiment.spec.train if (facts := phase_facts(experiment, name)) is not None}
    return Plan(
        experiment=experiment, steps=tuple(sorted(lowering.steps, key=lambda planned: KIND_ORDER.index(planned.step.kind))), lowering=lowering, training=training,
        figures=figures(experiment), template_text=template_text,
    )  # fmt: skip
