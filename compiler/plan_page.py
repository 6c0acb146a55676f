"""plan.md: the pre-registration as a person reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, Final, assert_never

from epc.compiler import cost
from epc.compiler.contract.judge_models import API_VERSION
from epc.compiler.contract.manifest import FIGURES, Analysis, Manifest, Step
from epc.compiler.contract.training import PINNED
from epc.compiler.explain import explanations
from epc.compiler.kinds import train
from epc.compiler.kinds.judge import sets_of
from epc.compiler.lower import Plan
from epc.compiler.resolve import Experiment
from epc.compiler.spec import (
    JudgeMetric,
    LmEvalMetric,
    Lora,
    Metric,
    ModelJudge,
    PatternJudge,
    PatternMetric,
    PromptSet,
    PythonJudge,
    ResultMetric,
)


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _table(head: list[str], rows: list[list[object]]) -> list[str]:
    return [_row(*head), "|" + "---|" * len(head), *(_row(*row) for row in rows), ""]


_LEVELS: Final = {
    ("unit",): "units drawn whole",
    ("seed",): "training seeds drawn whole",
    ("unit", "sample"): "units drawn, then their samples",
    ("seed", "unit"): "training seeds and units drawn, each on their own",
}
_FAMILIES: Final = {
    "holm": "Holm: at most alpha for any false rejection among them",
    "benjamini_hochberg": "Benjamini and Hochberg: at most alpha of the rejections are false, on average",
    "fixed_sequence": "fixed sequence: each at alpha, up to the first that does not reject",
}
_SPENDING: Final = {"obrien_fleming": "O'Brien and Fleming", "pocock": "Pocock"}


def _method(analysis: Analysis) -> str:
    details = [analysis.method.replace("_", " ")]
    if analysis.p is not None:
        details.append(f"{analysis.p} p")
    if analysis.margin is not None:
        details.append(f"equivalent within {analysis.margin:g}")
    if analysis.levels:
        details.append(_LEVELS[analysis.levels])
    if analysis.population == "fixed":
        details.append("units fixed" + (", their samples drawn" if analysis.method == "two_level" else ""))
    if analysis.resamples is not None:
        details.append(f"{analysis.resamples:,} resamples, seed {analysis.seed}")
    return ", ".join(details)


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.4g}"


def _direct(step: Step, manifest: Manifest) -> list[str]:
    """Needs of a step that no other need of it already implies."""
    needs = {other.id: set(other.needs) for other in manifest.steps}

    def above(name: str) -> set[str]:
        return needs[name].union(*(above(need) for need in needs[name]))

    implied = set().union(*(above(need) for need in step.needs))
    return [need for need in step.needs if need not in implied]


def _origin_of(entry: PromptSet) -> str:
    if entry.external is not None:
        pinned = "pending" if entry.external.sha256 == "pending" else f"SHA-256 {entry.external.sha256[:16]}"
        return f"{entry.external.source}; {entry.external.file}, {pinned}"
    return "union of " + ", ".join(entry.union) if entry.union is not None else entry.file or "the spec"


def _value(metric: Metric) -> str:
    """The registered rule that turns what a metric reads into a number."""
    match metric:
        case PatternMetric(contains=str(text)):
            return f"contains {_code(text)}"
        case PatternMetric(contains_any=str(file)):
            return f"contains any line of {file}"
        case PatternMetric():
            return f"matches the regular expression {_code(metric.regex or '')}"
        case JudgeMetric():
            kept = "" if metric.keep is None else f", where {_code(metric.keep)}"
            gone = "makes the analysis unknown" if metric.empty == "fail" else "drops the pair"
            return f"{_code(metric.score)} of judge {metric.judge}" + (
                f"{kept}; a prompt with none left {gone}" if kept else ""
            )
        case LmEvalMetric():
            template = "with" if metric.chat_template else "without"
            examples = f", {metric.fewshot} examples each" if metric.fewshot else ""
            band = metric.base_between
            known = (
                ""
                if band is None
                else f"; an untrained model outside [{band[0]:g}, {band[1]:g}] makes the verdict INVALID"
            )
            return f"{_code(metric.value)} of {metric.items:,} items, {template} the chat template{examples}{known}"
        case ResultMetric():
            return f"{_code(metric.score)} of results from elsewhere, on [{metric.scale[0]:g}, {metric.scale[1]:g}]"
        case _:
            assert_never(metric)


def _code(text: str) -> str:
    """Inline code that may hold backticks itself."""
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


_PROVIDERS: Final = {
    "anthropic": f"Anthropic, interface of {API_VERSION}",
    "openai": "a server of chat completions",
    "patterns": "on this machine",
    "python": "on this machine",
}


def _judge(experiment: Experiment, name: str) -> list[object]:
    """A judge's row: who answers by which route, what is asked how often, and what its scores are held against."""
    judge = experiment.spec.judges[name]
    bill = cost.bill(experiment, name, sets_of(experiment.spec, name))
    route = ", through the batch interface at half price" if bill is not None and bill.batch else ""
    match judge:
        case ModelJudge(rubric=source):
            options = ", ".join(f"{key} {value}" for key, value in judge.options.items())
        case PatternJudge():
            source, options = ", ".join(f"{field}: {_code(text)}" for field, text in judge.patterns.items()), ""
        case PythonJudge(file=source):
            options = ""
        case _:
            assert_never(judge)
    gold = judge.gold
    held = [] if gold is None else [f"kappa of {field} at least {least:g}" for field, least in gold.kappa.items()]
    held += [] if gold is None else [f"bias of {field} at most {most:g}" for field, most in gold.bias.items()]
    return [
        f"`{name}`", f"{judge.asked} ({_PROVIDERS[judge.provider]}{route})",
        ", ".join(f"{field} {kind}" for field, kind in judge.output.items()),
        f"{judge.votes}, {judge.aggregate}" if judge.aggregate is not None else judge.votes, options or "-", source,
        f"`{(experiment.judge_sha256(name) or '')[:16]}`",
        "-" if gold is None else f"{', '.join(held)}; {gold.per_arm} of every arm, {gold.file}", f"{judge.max_missing:.0%}",
    ]  # fmt: skip


def _rehearsal(manifest: Manifest) -> list[str]:
    """In what a rehearsal differs from the plan, nothing for a plan."""
    if manifest.rehearsal is None:
        return []
    told = [f"- {difference}" for difference in manifest.rehearsal.differences]
    return [
        "**REHEARSAL: this registers nothing, and its scores are made up.** It differs from the plan in this:",
        "",
        *told,
        "",
    ]


_ATTENTION: Final = {
    "sdpa": "PyTorch's (SDPA)",
    "varlen": "flash attention over rows of several lengths",
}
"""What plans call attention, in words."""


def _ways(plan: Plan) -> list[tuple[list[str], list[dict[str, Any]]]]:
    """(phases, ways to carry them out, the first choice first), phases that are carried out alike together."""
    found: dict[str, tuple[list[str], list[dict[str, Any]]]] = {}
    for name in plan.training:
        ways = train.plans(plan.experiment.spec, plan.experiment.spec.train[name])
        found.setdefault(repr(ways), ([], ways))[0].append(name)
    return list(found.values())


def ways_in_short(plan: Plan) -> Iterator[str]:
    """How trainings are carried out, a line for phases that are carried out alike."""
    for names, found in _ways(plan):
        parts = [
            ", ".join(f"{way['micro_batch']} x {way['accumulation']}" for way in group) + f" rows {laid}"
            for laid, group in groupby(found, key=lambda way: "end to end" if way.get("padding_free") else "padded")
        ]
        yield f"{', '.join(names)} in {', else '.join(parts)}"


def _execution(plan: Plan) -> list[str]:
    """How trainings are carried out: every way that a script knows, the first choice first."""
    spec = plan.experiment.spec
    rows: list[list[object]] = [
        [
            ", ".join(f"`{name}`" for name in names) if number == 0 else "", "first choice" if number == 0 else f"fallback {number}",
            *_way(way),
        ]
        for names, found in _ways(plan)
        for number, way in enumerate(found)
    ]  # fmt: skip
    half = spec.model.dtype != "float32"
    precision = (
        f"The frozen weights are in {spec.model.dtype}, under autocast to it" if half else "All weights are in float32"
    )
    dropout = [name for name in plan.training if spec.train[name].lora.dropout > 0]
    return [
        "### How it is carried out", "",
        "The ways below are not part of the recipe, and do not change what is computed: all take the same rows in the same"
        " order into the same optimizer steps, and divide the loss of a step by the number of its trained tokens, so that"
        " their results differ by rounding only."
        + (f" Dropout ({', '.join(f'`{name}`' for name in dropout)}) is drawn anew by each way, from the same distribution." if dropout else ""),
        "",
        "A script takes the first for which the machine has the kernels and the memory: the memory is predicted, and on a GPU"
        " the heaviest micro-batch is tried before the first step. One that does not fit gives way to the next, with a message,"
        " and the finish record names the way that was taken.",
        "",
        *_table(["phase", "", "micro-batch", "rows", "attention", "kernels", "activations"], rows),
        f"{precision}; the weights of the adapter and the moments of the optimizer are in {PINNED['lora.dtype']}. Nothing is compiled"
        " (`torch.compile`), and one process trains on one device.",
        "",
    ]  # fmt: skip


def _way(way: Mapping[str, Any]) -> list[object]:
    """The cells of a plan: micro-batch, rows, attention, kernels, activations."""
    return [
        f"{way['micro_batch']} x {way['accumulation']}", "end to end, no padding" if way.get("padding_free") else "padded to the longest",
        _ATTENTION[way.get("attention", "sdpa")], "Liger's fused" if way.get("liger") else "those of the model",
        "recomputed in the backward pass" if way.get("checkpointing") else "kept",
    ]  # fmt: skip


def _lora(lora: Lora) -> str:
    dropout = f", dropout {lora.dropout:g}" if lora.dropout else ""
    return f"r={lora.r}, alpha={lora.alpha}{dropout}, on {', '.join(lora.target_modules)}"


def _optimizer() -> str:
    """What every training computes with that no spec sets."""
    return (
        f"AdamW (Loshchilov and Hutter 2019), betas {PINNED['adam_beta1']:g} and {PINNED['adam_beta2']:g}, epsilon {PINNED['adam_epsilon']:g},"
        f" weight decay {PINNED['weight_decay']:g}, gradients clipped to norm {PINNED['max_grad_norm']:g}; the loss is the mean of the negative"
        " log-likelihood over the trained tokens of an optimizer step. Every training reads these back from its trainer, with the fields above,"
        " before its first step."
    )  # fmt: skip


def plan_page(plan: Plan, manifest: Manifest) -> str:
    """Question, arms, DAG, tests, decision table and cost, in that order."""
    spec, design = plan.experiment.spec, plan.design
    out = [
        f"# {manifest.title}", "", f"Registration `{manifest.lock_sha256}`, compiled from `{manifest.spec}`.", "",
        *_rehearsal(manifest),
        "## Question", "", f"**If** {spec.hypothesis.if_}, **then** {spec.hypothesis.then}.", "",
        "## Arms", "",
    ]  # fmt: skip
    out += _table(
        ["arm", "phases", "training seeds", "content key"],
        [
            [
                f"`{c.name}`", " then ".join(c.phases) or "none (the base model)" + (f"; system: {c.system}" if c.system else ""),
                ", ".join(map(str, c.seeds)) if c.phases else "-", f"`{c.key}`",
            ]
            for c in design.conditions
        ],
    )  # fmt: skip
    if plan.training:
        out += ["## Training", ""]
        out += _table(
            ["phase", "data", "loss on", "LoRA", "learning rate", "effective batch", "epochs", "optimizer steps", "warm-up steps", "longest row"],
            [
                [
                    f"`{name}`", f"{spec.train[name].data}, {plan.experiment.data[spec.train[name].data].rows:,} rows",
                    spec.train[name].train_on.replace("_", " "), _lora(spec.train[name].lora),
                    f"{spec.train[name].learning_rate:g}, {spec.train[name].schedule}",
                    f"{spec.train[name].batch} x {spec.train[name].accumulation} = {facts.effective_batch}",
                    spec.train[name].epochs, facts.optimizer_steps, facts.warmup_steps, f"{spec.train[name].max_length:,} tokens",
                ]
                for name, facts in plan.training.items()
            ],
        )  # fmt: skip
        out += [_optimizer(), "", *_execution(plan)]
    if manifest.pending:
        out += [
            "## Pending",
            "",
            "Nothing below is fixed yet: `epc freeze` writes its hash, and no training starts before.",
            "",
        ]
        out += _table(
            ["what", "kind", "file", "source"],
            [[f"`{p.name}`", p.kind, p.file, p.source or "-"] for p in manifest.pending],
        )
    if spec.prompts:
        out += ["## Prompts", ""]
        out += _table(
            ["set", "prompts", "from"],
            [
                [f"`{name}`", len(plan.experiment.prompts[name]), _origin_of(entry)]
                for name, entry in spec.prompts.items()
            ],
        )
    if spec.generate:
        out += ["## Generated texts", ""]
        out += _table(
            ["entry", "prompts", "texts per prompt", "system prompt", "temperature", "top-p", "max tokens", "seed"],
            [
                [f"`{name}`", ", ".join(g.prompts), g.n, g.system, f"{g.temperature:g}", f"{g.top_p:g}", g.max_tokens, g.seed]
                for name, g in spec.generate.items()
            ],
        )  # fmt: skip
    if spec.sample:
        out += ["## Sampling", "", f"Sampled with {spec.sampler}.", ""]
        out += _table(
            ["set", "prompts", "samples per prompt", "turns", "system prompt", "temperature", "top-p", "max tokens", "seed"],
            [
                [
                    f"`{name}`", f"{s.prompts}, {len(plan.experiment.prompts[s.prompts])}", s.n,
                    " / ".join(turn.role for turn in s.turns), s.system, f"{s.temperature:g}", f"{s.top_p:g}", s.max_tokens, s.seed,
                ]
                for name, s in spec.sample.items()
            ],
        )  # fmt: skip
    out += ["## Steps", "", "```mermaid", "flowchart LR"]
    ids = {step.id: f"s{index}" for index, step in enumerate(manifest.steps)}
    out += [f'    {ids[step.id]}["{step.id}"]' for step in manifest.steps]
    out += [f"    {ids[need]} --> {ids[step.id]}" for step in manifest.steps for need in _direct(step, manifest)]
    out += ["```", ""]
    out += _table(
        ["step", "what it does", "key", "script"],
        [[f"`{s.id}`", s.label, f"`{s.key}`", f"[{s.script}]({s.script})"] for s in manifest.steps],
    )
    if spec.judges:
        out += ["## Judges", ""]
        out += _table(
            ["judge", "who answers", "replies with", "votes", "options", "how it judges", "SHA-256", "must agree with people", "may miss at most"],
            [_judge(plan.experiment, name) for name in spec.judges],
        )  # fmt: skip
    out += ["## Metrics", ""]
    out += _table(
        ["metric", "reads", "value", "unit", "scale", "better", "a missing value"],
        [
            [
                f"`{m.name}`", f"{m.kind} on {m.source}", _value(spec.metrics[m.name]), m.unit, f"{m.scale[0]:g} to {m.scale[1]:g}", m.better,
                "makes the analysis unknown" if m.missing == "fail" else "drops the pair, counted",
            ]
            for m in design.metrics
        ],
    )  # fmt: skip
    out += ["## Analyses", ""]
    out += _table(
        ["analysis", "quantity", "method", "side", "alpha", "standing"],
        [
            [
                f"`{a.name}`",
                f"{a.metric}: {a.contrast.treatment} - {a.contrast.control}" if a.contrast else f"{a.metric} in {a.arm}",
                _method(a), a.side.replace("_", "-"), f"{a.alpha:g}", "confirmatory" if a.confirmatory else "supporting",
            ]
            for a in design.analyses
        ],
    )  # fmt: skip
    if design.families:
        out += [
            "## Families",
            "",
            "`reject` of these tests contains the rule of their family; `p` is that of the test alone.",
            "",
        ]
        out += _table(
            ["family", "tests", "alpha", "rule"],
            [[f"`{f.name}`", ", ".join(f.analyses), f"{f.alpha:g}", _FAMILIES[f.method]] for f in design.families],
        )
    if design.interim is not None:
        out += [
            "## Planned looks", "",
            f"Alpha is spent by the function of {_SPENDING[design.interim.spending]} (Lan and DeMets 1983).", "",
        ]  # fmt: skip
        out += _table(
            ["look", "units", "rejects where p is below"],
            [
                [number, f"{look:.0%}", f"{level:.4g}"]
                for number, (look, level) in enumerate(
                    zip(design.interim.looks, design.interim.levels, strict=True), start=1
                )
            ],
        )
    out += ["## Gates", ""]
    out += _table(
        ["gate", "role", "predicate", "meaning"],
        [[f"`{g.name}`", g.role.replace("_", "-"), f"`{g.text}`", g.say or "-"] for g in design.gates],
    )
    out += [
        "## Decision table", "",
        "A validity gate that is false or unknown makes the verdict INVALID. Otherwise the first rule that matches decides.", "",
    ]  # fmt: skip
    out += _table(
        ["", "if", "verdict", "meaning"],
        [
            [index, f"`{rule.text}`", f"**{rule.label}**", rule.say or "-"]
            for index, rule in enumerate(design.verdicts, start=1)
        ],
    )
    out += ["## Cost, computed", ""]
    shown = {name: value for name, value in manifest.figures.items() if value or name in ("usd", "gpu_hours")}
    out += _table(
        ["quantity", "value", "how it comes about"],
        [[FIGURES[name], _number(value), manifest.arithmetic.get(name) or "-"] for name, value in shown.items()],
    )
    if cost.parameters_of(spec) is None:
        out += ["GPU-hours are not estimated: the size of this model is not known; `model.parameters` states it.", ""]
    out += [f"Budget: {spec.budget.gpu_hours:g} GPU-hours, {spec.budget.usd:g} dollars.", ""]
    if spec.allow:
        meant = explanations({entry.code for entry in spec.allow})
        out += ["## Warnings accepted", ""]
        out += _table(
            ["code", "warns of", "where", "accepted because"],
            [[entry.code, meant[entry.code].what, f"`{entry.at}`" if entry.at else "anywhere in the spec", " ".join(entry.reason.split())] for entry in spec.allow],
        )  # fmt: skip
    if spec.deviations.allowed or spec.deviations.ask_first:
        out += ["## Deviations", ""]
        out += [f"- allowed: {text}" for text in spec.deviations.allowed]
        out += [f"- ask first: {text}" for text in spec.deviations.ask_first]
        out.append("")
    if spec.lineage:
        out += ["## Lineage", ""]
        out += _table(["cites", "relation", "note"], [[c.cites, c.relation, c.note] for c in spec.lineage])
    if spec.rationale:
        out += ["## Rationale", ""]
        out += [f"- **{name.replace('_', ' ')}**: {' '.join(text.split())}" for name, text in spec.rationale.items()]
        out.append("")
    return "\n".join(out)
