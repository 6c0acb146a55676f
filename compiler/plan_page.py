"""plan.md: the pre-registration as a person reads it."""

from __future__ import annotations

from epc.compiler.contract.manifest import Analysis, Manifest, Step
from epc.compiler.lower import Plan, parameters_of


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _table(head: list[str], rows: list[list[object]]) -> list[str]:
    return [_row(*head), "|" + "---|" * len(head), *(_row(*row) for row in rows), ""]


def _method(analysis: Analysis) -> str:
    details = [analysis.method.replace("_", " ")]
    if analysis.p is not None:
        details.append(f"{analysis.p} p")
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


def plan_page(plan: Plan, manifest: Manifest) -> str:
    """Question, arms, DAG, tests, decision table and cost, in that order."""
    spec, design = plan.experiment.spec, plan.design
    out = [
        f"# {spec.title}", "", f"Registration `{manifest.lock_sha256}`, compiled from `{manifest.spec}`.", "",
        "## Question", "", f"**If** {spec.hypothesis.if_}, **then** {spec.hypothesis.then}.", "",
        "## Arms", "",
    ]  # fmt: skip
    out += _table(
        ["arm", "phases", "training seeds", "content key"],
        [
            [f"`{c.name}`", " then ".join(c.phases) or "none (the base model)", ", ".join(map(str, c.seeds)) if c.phases else "-", f"`{c.key}`"]
            for c in design.conditions
        ],
    )  # fmt: skip
    if plan.training:
        out += ["## Training", ""]
        out += _table(
            ["phase", "data", "loss on", "LoRA", "learning rate", "effective batch", "epochs", "optimizer steps", "warm-up steps"],
            [
                [
                    f"`{name}`", f"{spec.train[name].data}, {plan.experiment.data[spec.train[name].data].rows:,} rows",
                    spec.train[name].train_on.replace("_", " "), f"r={spec.train[name].lora.r}, alpha={spec.train[name].lora.alpha}",
                    f"{spec.train[name].learning_rate:g}, {spec.train[name].schedule}",
                    f"{spec.train[name].batch} x {spec.train[name].accumulation} = {facts.effective_batch}",
                    spec.train[name].epochs, facts.optimizer_steps, facts.warmup_steps,
                ]
                for name, facts in plan.training.items()
            ],
        )  # fmt: skip
    if spec.sample:
        out += ["## Sampling", ""]
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
    out += ["## Metrics", ""]
    out += _table(
        ["metric", "reads", "unit", "scale", "better", "a missing value"],
        [
            [
                f"`{m.name}`", f"{m.kind} on {m.source}", m.unit, f"{m.scale[0]:g} to {m.scale[1]:g}", m.better,
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
    labels = {
        "trainings": "trainings", "optimizer_steps": "optimizer steps", "train_tokens": "training tokens (estimate)",
        "completions": "completions", "sampled_tokens_at_most": "sampled tokens, at most", "capability_items": "capability items scored",
        "judge_calls": "judge calls", "usd": "dollars", "gpu_hours": "GPU-hours on one H200 (estimate)",
    }  # fmt: skip
    out += _table(["quantity", "value"], [[labels[name], _number(value)] for name, value in manifest.figures.items()])
    if parameters_of(spec) is None:
        out += ["GPU-hours are not estimated: the size of this model is not known; `model.parameters` states it.", ""]
    out += [f"Budget: {spec.budget.gpu_hours:g} GPU-hours, {spec.budget.usd:g} dollars.", ""]
    if spec.rationale:
        out += ["## Rationale", ""]
        out += [f"- **{name.replace('_', ' ')}**: {' '.join(text.split())}" for name, text in spec.rationale.items()]
        out.append("")
    return "\n".join(out)
