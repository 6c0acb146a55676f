"""Experiment to Plan: condition x seed x phase becomes typed steps with keys; the design becomes data.

Shared phase prefixes become one step, and all arms of the base model are sampled by one step and
scored by one step. A key hashes the canonical recipe of a step, the keys of its inputs and the
version of what it calls; labels, comments and gates do not reach it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never, get_args

import yaml

from epc.compiler import cost, decision
from epc.compiler.contract import manifest as contract
from epc.compiler.contract.canonical import content_key, sha256_text
from epc.compiler.contract.manifest import Piece, Resources, Step, StepKind
from epc.compiler.contract.versions import STEP_VERSIONS
from epc.compiler.resolve import Experiment
from epc.compiler.source import PathKey
from epc.compiler.spec import FileData, LmEvalMetric, LoraSft, PatternMetric, Spec, TurnsData

TEMPLATE_INPUT = "inputs/chat_template.jinja"
KIND_ORDER = get_args(StepKind)
"""The order in which kinds are listed; it is topological, and steps of one kind keep theirs."""
NO_TRAINING_SEED = 0
"""Seed of an arm without training: it is sampled once, whatever the training seeds."""


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """A step with what its script says: constants and where each came from."""

    step: Step
    constants: dict[str, Any]
    origins: dict[str, PathKey | str]
    """Constant -> path in the spec, or words such as "default"."""


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """Derived numbers of one phase, printed and asserted."""

    optimizer_steps: int
    warmup_steps: int
    effective_batch: int
    tokens: int
    """Estimated, over all epochs."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    experiment: Experiment
    steps: tuple[PlannedStep, ...]
    design: contract.Design
    training: Mapping[str, TrainingFacts]
    figures: dict[str, float]
    lock_text: str

    @property
    def lock_sha256(self) -> str:
        return sha256_text(self.lock_text)


def training_facts(recipe: LoraSft, rows: int, characters: int, turns_per_row: int) -> TrainingFacts:
    """Steps as the Hugging Face Trainer counts them: every epoch ends with a step of what is left.

    optimizer_steps = epochs x ceil(ceil(rows / batch) / accumulation); warm-up = ceil(ratio x steps).
    """
    steps = recipe.epochs * math.ceil(math.ceil(rows / recipe.batch) / recipe.accumulation)
    warmup = recipe.warmup_steps if recipe.warmup_steps is not None else math.ceil((recipe.warmup_ratio or 0.0) * steps)
    return TrainingFacts(
        optimizer_steps=steps,
        warmup_steps=warmup,
        effective_batch=recipe.batch * recipe.accumulation,
        tokens=recipe.epochs * cost.tokens(characters, rows * turns_per_row),
    )


def phase_facts(experiment: Experiment, name: str) -> TrainingFacts | None:
    """Facts of a training phase, None when its data could not be resolved."""
    recipe = experiment.spec.train[name]
    built = experiment.data.get(recipe.data)
    if built is None:
        return None
    entry = experiment.spec.data[recipe.data]
    turns = len(entry.turns) if isinstance(entry, TurnsData) else 2
    return training_facts(recipe, built.rows, built.characters, turns)


def seeds_of(spec: Spec, condition: str) -> tuple[int, ...]:
    return tuple(spec.seeds) if spec.conditions[condition] else (NO_TRAINING_SEED,)


@dataclass(kw_only=True)
class _Lowering:
    experiment: Experiment
    template_text: str | None
    spec_folder: str
    mode: contract.Mode
    steps: list[PlannedStep] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> Spec:
        return self.experiment.spec

    def add(
        self, *, id: str, kind: StepKind, label: str, needs: tuple[str, ...], recipe: dict[str, Any],  # noqa: A002
        outputs: tuple[str, ...], constants: dict[str, Any], origins: Mapping[str, PathKey | str],
        resources: Resources | None = None, pieces: tuple[Piece, ...] = (),
    ) -> str:  # fmt: skip
        """Append a step unless its id is there, and return the id."""
        if id in self.keys:
            return id
        key = content_key(
            {
                "kind": kind, "version": STEP_VERSIONS[kind], "mode": self.mode, "recipe": recipe,
                "inputs": [self.keys[need] for need in needs],
            }
        )  # fmt: skip
        self.keys[id] = key
        step = Step(
            id=id, kind=kind, label=label, needs=needs, key=key, script=f"steps/{id}.py", outputs=outputs,
            resources=resources or Resources(), recipe=recipe, pieces=pieces,
        )  # fmt: skip
        self.steps.append(PlannedStep(step=step, constants=constants, origins=dict(origins)))
        return id

    # ------------------------------------------------------------------ steps

    def sha(self, path: str) -> str:
        return self.experiment.inputs[path].sha256

    def bundle_path(self, path: str) -> str:
        return self.experiment.inputs[path].bundle_path

    def model(self) -> str:
        model = self.spec.model
        template = None if self.template_text is None else sha256_text(self.template_text)
        return self.add(
            id="model", kind="model", label=f"fetch {model.from_}", needs=(),
            recipe={
                "source": model.from_, "revision": model.revision, "sha256": model.sha256,
                "dtype": model.dtype, "chat_template_sha256": template,
            },
            outputs=("model/config.json", "model/tokenizer_config.json", "model.json"),
            constants={
                "source": model.from_, "revision": model.revision, "sha256": model.sha256, "dtype": model.dtype,
                "chat_template": None if template is None else TEMPLATE_INPUT,
            },
            origins={
                "source": ("model", "from"), "revision": ("model", "revision"), "sha256": ("model", "sha256"),
                "dtype": ("model", "dtype"), "chat_template": ("model", "chat_template"),
            },
        )  # fmt: skip

    def data(self, name: str) -> str:
        entry, built = self.spec.data[name], self.experiment.data[name]
        base: PathKey = ("data", name)
        match entry:
            case TurnsData():
                turns = [(turn.role, turn.text) for turn in entry.turns]
                recipe: dict[str, Any] = {"sha256": built.sha256, "rows": entry.rows}
                constants: dict[str, Any] = {
                    "build": "turns", "rows": entry.rows, "seed": entry.seed, "system": entry.system,
                    "fill": {key: self.bundle_path(path) for key, path in entry.fill.items()}, "turns": turns,
                    "expected_sha256": built.sha256,
                }  # fmt: skip
            case FileData():
                recipe = {"sha256": built.sha256, "rows": entry.rows}
                constants = {
                    "build": "file", "rows": entry.rows, "file": f"{self.spec_folder}/{entry.file}",
                    "expected_sha256": built.sha256,
                }  # fmt: skip
            case _:
                assert_never(entry)
        origins: dict[str, PathKey | str] = {key: (*base, key) for key in constants}
        origins["expected_sha256"] = "computed by epc compile" if isinstance(entry, TurnsData) else (*base, "sha256")
        return self.add(
            id=f"data-{name}", kind="data", label=f"build {entry.rows} rows of {name}", needs=(), recipe=recipe,
            outputs=("rows.jsonl",), constants=constants, origins=origins,
        )  # fmt: skip

    def mask(self, phase: str) -> str:
        recipe = self.spec.train[phase]
        entry = self.spec.data[recipe.data]
        data, model = self.data(recipe.data), self.model()
        system = entry.system if isinstance(entry, TurnsData) else "none"
        constants = {
            "model": model, "data": data, "rows": entry.rows, "train_on": recipe.train_on, "system": system,
            "max_length": recipe.max_length, "threads": 1,
        }  # fmt: skip
        base: PathKey = ("train", phase)
        return self.add(
            id=f"mask-{phase}", kind="mask", label=f"verify which tokens {phase} trains on", needs=(model, data),
            recipe={"train_on": recipe.train_on, "max_length": recipe.max_length, "system": system},
            outputs=("mask.json", "mask.txt"), constants=constants,
            origins={
                "model": "the model step", "data": (*base, "data"), "rows": ("data", recipe.data, "rows"),
                "train_on": (*base, "train_on"), "system": ("data", recipe.data, "system"),
                "max_length": (*base, "max_length"), "threads": "execution plan",
            },
        )  # fmt: skip

    def train(self, phases: tuple[str, ...], seed: int) -> str:
        """The last phase of a chain; the chain before it is trained first, once."""
        *before, phase = phases
        parent = self.train(tuple(before), seed) if before else None
        recipe = self.spec.train[phase]
        facts = phase_facts(self.experiment, phase)
        assert facts is not None
        model, data, mask = self.model(), self.data(recipe.data), self.mask(phase)
        lora = recipe.lora.model_dump()
        shared = {
            "train_on": recipe.train_on, "lora": lora, "learning_rate": recipe.learning_rate,
            "schedule": recipe.schedule, "warmup_steps": facts.warmup_steps, "epochs": recipe.epochs,
            "batch": recipe.batch, "accumulation": recipe.accumulation, "max_length": recipe.max_length,
            "seed": seed, "dtype": self.spec.model.dtype, "optimizer_steps": facts.optimizer_steps,
        }  # fmt: skip
        constants = {
            "model": model, "data": data, "rows": self.spec.data[recipe.data].rows, "parent": parent,
            "on_top": recipe.on_top, **shared, "threads": 1,
        }  # fmt: skip
        base: PathKey = ("train", phase)
        origins: dict[str, PathKey | str] = {key: (*base, key) for key in constants}
        warmup = "warmup_steps" if recipe.warmup_steps is not None else "warmup_ratio"
        origins |= {
            "model": "the model step", "rows": ("data", recipe.data, "rows"), "seed": ("seeds",),
            "parent": "the phase before" if parent else "first phase", "dtype": ("model", "dtype"),
            "warmup_steps": (*base, warmup),
            "optimizer_steps": "computed: epochs x ceil(ceil(rows / batch) / accumulation)",
            "threads": "execution plan",
        }  # fmt: skip
        outputs = ["adapter/adapter_config.json", "adapter/adapter_model.safetensors", "log.jsonl"]
        stacked = parent is not None and recipe.on_top == "stack"
        if stacked:
            outputs.append("increment/adapter_model.safetensors")
        chain = " then ".join(phases)
        return self.add(
            id=f"train-s{seed}-{'.'.join(phases)}", kind="train",
            label=f"train {chain}, seed {seed}: {facts.optimizer_steps} optimizer steps",
            needs=(model, data, mask, *((parent,) if parent else ())),
            recipe={"method": recipe.method, **shared, **({"on_top": recipe.on_top} if parent else {})},
            outputs=tuple(outputs), constants=constants, origins=origins, resources=Resources(threads=1, gpu=1),
        )  # fmt: skip

    def arm_list(self) -> list[tuple[str, int, str, str | None]]:
        """(condition, seed, condition key, last training step)."""
        return [
            (name, seed, self.condition_key(name), self.train(tuple(phases), seed) if phases else None)
            for name, phases in self.spec.conditions.items()
            for seed in seeds_of(self.spec, name)
        ]

    def condition_key(self, name: str) -> str:
        """Content of an arm, the training seed left out."""
        phases = []
        for phase in self.spec.conditions[name]:
            recipe = self.spec.train[phase]
            phases.append({**recipe.model_dump(exclude={"data"}), "data": self.experiment.data[recipe.data].sha256})
        return content_key({"model": self.keys[self.model()], "phases": phases})

    def sample(self) -> str | None:
        if not self.spec.sample:
            return None
        model, found = self.model(), self.arm_list()
        needs = (model, *dict.fromkeys(step for *_, step in found if step is not None))
        sets: list[dict[str, Any]] = []
        recipes: dict[str, dict[str, Any]] = {}
        for name, entry in self.spec.sample.items():
            prompts = self.experiment.prompts[entry.prompts]
            turns = [(turn.role, turn.text) for turn in entry.turns]
            settings = {
                "system": entry.system, "turns": turns, "n": entry.n, "temperature": entry.temperature,
                "top_p": entry.top_p, "max_tokens": entry.max_tokens, "seed": entry.seed,
            }  # fmt: skip
            sets.append(
                {
                    "name": name, "prompts": self.prompt_path(entry.prompts), "count": len(prompts), **settings,
                    "fill": {key: self.bundle_path(path) for key, path in entry.fill.items()},
                }
            )  # fmt: skip
            recipes[name] = {
                **settings, "prompts": sorted(prompts), "fill": {key: self.sha(path) for key, path in entry.fill.items()},
            }  # fmt: skip
        pieces: dict[tuple[str, int, str], str] = {}
        for condition, seed, key, step in found:
            for name, recipe in recipes.items():
                pieces[condition, seed, name] = content_key(
                    {
                        "kind": "sample", "version": STEP_VERSIONS["sample"], "mode": self.mode, "condition": condition,
                        "condition_key": key, "seed": seed, "set": name, "recipe": recipe, "model": self.keys[model],
                        "adapter": None if step is None else self.keys[step],
                    }
                )  # fmt: skip
        completions = sum(entry["count"] * entry["n"] for entry in sets) * len(found)
        constants = {
            "model": model, "dtype": self.spec.model.dtype, "arms": found, "sets": sets, "pieces": pieces,
            "batch_size": 96, "threads": 2,
        }  # fmt: skip
        return self.add(
            id="sample", kind="sample", label=f"sample {completions:,} completions from {len(found)} arms", needs=needs,
            recipe={"pieces": sorted(pieces.values())}, outputs=("index.json",), constants=constants,
            origins={
                "model": "the model step", "dtype": ("model", "dtype"), "arms": ("conditions",), "sets": ("sample",),
                "pieces": "content keys", "batch_size": "execution plan", "threads": "execution plan",
            },
            resources=Resources(threads=2, gpu=1),
            pieces=tuple(Piece(key=key, condition=c, seed=s, set=name) for (c, s, name), key in pieces.items()),
        )  # fmt: skip

    def prompt_path(self, name: str) -> str:
        """Where a prompt set lies in the bundle; an inline one is written out as a file."""
        entry = self.spec.prompts[name]
        return self.bundle_path(entry.file) if entry.file is not None else f"inputs/prompts/{name}.inline.txt"

    def capability(self) -> str | None:
        metrics = {name: m for name, m in self.spec.metrics.items() if isinstance(m, LmEvalMetric)}
        if not metrics:
            return None
        model, found = self.model(), self.arm_list()
        needs = (model, *dict.fromkeys(step for *_, step in found if step is not None))
        tasks: list[dict[str, Any]] = []
        recipes: list[dict[str, Any]] = []
        for name, metric in metrics.items():
            task = self.experiment.tasks[name]
            tasks.append(
                {
                    "name": task.name, "yaml": task.file.bundle_path, "value": metric.value,
                    "chat_template": metric.chat_template, "fewshot": 0, "items": metric.items,
                }
            )  # fmt: skip
            recipes.append(
                {
                    "task": task.name, "task_sha256": task.file.sha256, "data_sha256": task.data.sha256,
                    "value": metric.value, "chat_template": metric.chat_template, "fewshot": 0,
                }
            )  # fmt: skip
        items = sum(task["items"] for task in tasks)
        return self.add(
            id="capability", kind="capability", label=f"score {items:,} items in each of {len(found)} arms with lm-eval",
            needs=needs,
            recipe={"tasks": recipes, "arms": [[name, seed, key] for name, seed, key, _ in found], "dtype": self.spec.model.dtype},
            outputs=("capability.jsonl", "results.json"),
            constants={
                "model": model, "dtype": self.spec.model.dtype, "arms": found, "tasks": tasks, "batch_size": 32, "threads": 2,
            },
            origins={
                "model": "the model step", "dtype": ("model", "dtype"), "arms": ("conditions",), "tasks": ("metrics",),
                "batch_size": "execution plan", "threads": "execution plan",
            },
            resources=Resources(threads=2, gpu=1),
        )  # fmt: skip

    def measure(self) -> None:
        samples, capability = self.sample(), self.capability()
        metrics: list[dict[str, Any]] = []
        recipes: list[dict[str, Any]] = []
        for name, metric in self.spec.metrics.items():
            match metric:
                case PatternMetric():
                    entry: dict[str, Any] = {"name": name, "kind": "pattern", "source": metric.of}
                    recipe = dict(entry)
                    if metric.contains is not None:
                        entry["contains"] = recipe["contains"] = metric.contains
                    elif metric.regex is not None:
                        entry["regex"] = recipe["regex"] = metric.regex
                    elif metric.contains_any is not None:
                        entry["contains_any"] = self.bundle_path(metric.contains_any)
                        recipe["contains_any"] = self.sha(metric.contains_any)
                case LmEvalMetric():
                    entry = {"name": name, "kind": "lm_eval", "source": self.experiment.tasks[name].name, "value": metric.value}
                    recipe = dict(entry)
                case _:
                    assert_never(metric)
            metrics.append(entry)
            recipes.append(recipe)
        found = [(name, seed, key) for name, seed, key, _ in self.arm_list()]
        self.add(
            id="measure", kind="measure", label=f"measure {len(metrics)} metrics",
            needs=tuple(step for step in (samples, capability) if step is not None),
            recipe={"metrics": recipes, "arms": [list(arm) for arm in found]},
            outputs=("measurements.jsonl", "judgements.jsonl"),
            constants={
                "samples": [samples] if samples else [], "capability": [capability] if capability else [],
                "arms": found, "metrics": metrics,
            },
            origins={
                "samples": "the sample step", "capability": "the capability step", "arms": ("conditions",),
                "metrics": ("metrics",),
            },
        )  # fmt: skip

    def design(self) -> contract.Design:
        spec = self.spec
        return contract.Design(
            question=f"If {spec.hypothesis.if_}, then {spec.hypothesis.then}.",
            conditions=tuple(
                contract.Condition(name=name, key=self.condition_key(name), phases=tuple(phases), seeds=seeds_of(spec, name))
                for name, phases in spec.conditions.items()
            ),
            metrics=decision.metrics(self.experiment),
            analyses=decision.analyses(self.experiment),
            gates=decision.gates(self.experiment),
            verdicts=decision.verdicts(self.experiment),
            seeds=tuple(spec.seeds),
            transcripts=spec.reporting.transcripts,
            transcript_seed=spec.reporting.transcript_seed,
            effect_sizes_forbidden=spec.reporting.effect_sizes == "forbidden",
        )

    # ------------------------------------------------------------------ totals

    def figures(self) -> dict[str, float]:
        """Totals of the plan. Tokens are estimates; counts are exact."""
        train_tokens = optimizer_steps = 0
        for planned in self.steps:
            if planned.step.kind == "train":
                facts = phase_facts(self.experiment, planned.step.id.split("-", 2)[2].split(".")[-1])
                assert facts is not None
                train_tokens += facts.tokens
                optimizer_steps += facts.optimizer_steps
        arm_count = sum(len(seeds_of(self.spec, name)) for name in self.spec.conditions)
        completions = sampled = 0
        for entry in self.spec.sample.values():
            count = len(self.experiment.prompts[entry.prompts]) * entry.n * arm_count
            completions += count
            sampled += count * entry.max_tokens
        scored = items = 0
        for task in self.experiment.tasks.values():
            items += task.items * arm_count
            scored += 4 * cost.tokens(task.characters, 0) * arm_count
        figures: dict[str, float] = {
            "trainings": sum(planned.step.kind == "train" for planned in self.steps), "optimizer_steps": optimizer_steps,
            "train_tokens": train_tokens, "completions": completions, "sampled_tokens_at_most": sampled,
            "capability_items": items, "judge_calls": 0, "usd": 0.0,
        }  # fmt: skip
        parameters = parameters_of(self.spec)
        if parameters is not None:
            hours = cost.gpu_hours(parameters, train=train_tokens, sample=sampled, score=scored)
            figures["gpu_hours"] = round(hours, 4)
        return figures

    def lock(self, design: contract.Design, training: Mapping[str, TrainingFacts]) -> str:
        """The registration as text: every default explicit, every file and data set hashed."""
        spec = self.spec
        value = spec.model_dump(mode="json", by_alias=True, warnings=False)
        for section in ("data", "sample"):
            for entry in value[section].values():
                if "turns" in entry:
                    entry["turns"] = [{role: text for role, text in turn.items() if text is not None} for turn in entry["turns"]]
        for name, built in self.experiment.data.items():
            value["data"][name]["sha256"] = built.sha256
        for name, facts in training.items():
            value["train"][name] |= {"optimizer_steps": facts.optimizer_steps, "warmup_steps": facts.warmup_steps}
        for name, prompts in self.experiment.prompts.items():
            value["prompts"][name]["sha256"] = sha256_text("\n".join(prompts))
        value["conditions"] = {c.name: {"phases": list(c.phases), "key": c.key} for c in design.conditions}
        value["gates"] = {
            g.name: {"role": g.role, "predicate": g.text, "on": list(g.on), "say": g.say} for g in design.gates
        }
        value["verdicts"] = [{"if": rule.text, "then": rule.label, "say": rule.say} for rule in design.verdicts]
        value["model"]["chat_template_sha256"] = None if self.template_text is None else sha256_text(self.template_text)
        value["files"] = {path: entry.sha256 for path, entry in sorted(self.experiment.inputs.items())}
        text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)
        return f"# Frozen registration of {spec.id}. Its SHA-256 is its identity; do not edit.\n{text}"


def parameters_of(spec: Spec) -> int | None:
    return spec.model.parameters or cost.PARAMETERS.get(spec.model.from_)


def lower(experiment: Experiment, *, template_text: str | None, spec_folder: str, mode: contract.Mode = "real") -> Plan:
    """Steps and design of an experiment that passed every check.

    `template_text` is the chat template that replaces the model's own, None to keep that; `spec_folder`
    is the path from the bundle to the folder of the spec.
    """
    lowering = _Lowering(experiment=experiment, template_text=template_text, spec_folder=spec_folder, mode=mode)
    lowering.measure()
    design = lowering.design()
    training = {name: facts for name in experiment.spec.train if (facts := phase_facts(experiment, name)) is not None}
    return Plan(
        experiment=experiment, steps=tuple(sorted(lowering.steps, key=lambda planned: KIND_ORDER.index(planned.step.kind))), design=design, training=training,
        figures=lowering.figures(), lock_text=lowering.lock(design, training),
    )  # fmt: skip

