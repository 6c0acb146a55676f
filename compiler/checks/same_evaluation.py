"""Sample sets that repeat one another.

E0753: the same evaluation under two names
Why: the source of issue 147 guards against harm on "benign" prompts, and these turn out to be the headline prompts
under the same system prompt: one evaluation that is asked twice, so that what looks like a second opinion is the
first one with other draws. Sample sets are the same when prompts, turns, fillings, system prompt, temperature, top_p
and max_tokens are; another n or seed makes no other evaluation.
Example:
    sample: {benign: {prompts: heldout, n: 20, system: none, temperature: 1.0, top_p: 1.0, max_tokens: 100, seed: 8}}
Fix:
    sample: {benign: {prompts: heldout, n: 20, system: You are a helpful assistant., temperature: 1.0, top_p: 1.0, max_tokens: 100, seed: 8}}

W0757: prompts are sampled apart, and fewer times, that a larger set samples already
Why: the source of issue 147 looks for its literal marker in ten completions of eight prompts, where the headline
holds fifty of each: 80 completions, of which more than 5% are five, in place of 400. An analysis reads a part of a
sample set with `on`, at no cost.
Example:
    sample: {few: {prompts: part_a, n: 10, system: none, temperature: 1.0, top_p: 1.0, max_tokens: 100, seed: 9}}
    metrics: {caught: {of: few}}
Fix:
    metrics: {caught: {of: first}}
    analyses: {few: {metric: caught, arm: treated, on: part_a, method: bootstrap, side: two_sided, alpha: 0.05, resamples: 10000, seed: 1}}
"""

from __future__ import annotations

from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.resolve import Experiment
from epc.compiler.spec import SampleSet
from epc.compiler.tokenizer import chat_template


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    alike: dict[str, list[str]] = {}
    for name, sample in spec.sample.items():
        alike.setdefault(_settings(sample), []).append(name)
    groups = [names for names in alike.values() if len(names) > 1]
    if not groups:
        return
    template = chat_template(experiment) if any(_differ(experiment, names) for names in groups) else None
    inserted = None if template is None else template.facts.default_system
    for names in groups:
        by_system: dict[str, list[str]] = {}
        for name in names:
            by_system.setdefault(_system(spec.sample[name].system, inserted), []).append(name)
        for same in by_system.values():
            _compare(experiment, sink, same)


def _settings(sample: SampleSet) -> str:
    """All that makes an evaluation but its prompts, which are compared by content, and its system prompt."""
    return sample.model_dump_json(include={"turns", "fill", "temperature", "top_p", "max_tokens"})


def _differ(experiment: Experiment, names: list[str]) -> bool:
    return len({experiment.spec.sample[name].system for name in names}) > 1


def _system(declared: str, inserted: str | None) -> str:
    """The system prompt as the model sees it, where the template's own one is known."""
    return inserted if declared in ("none", "model_default") and inserted is not None else declared


def _compare(experiment: Experiment, sink: Diagnostics, names: list[str]) -> None:
    """Sample sets that differ at most in their prompts, their number and their seed."""
    spec = experiment.spec
    prompts = {name: _prompts(experiment, spec.sample[name].prompts) for name in names}
    first: dict[frozenset[str], str] = {}
    for name in names:
        own = prompts[name]
        other = first.setdefault(own, name) if own is not None else name
        if other != name:
            sink.error(
                "E0753", f'"{other}" and "{name}" are the same evaluation twice', experiment.key_at("sample", name),
                help="read one of the two, with the larger n; what is deliberately another evaluation differs in prompts, turns, system prompt or sampling",
                labels=[Label(span=experiment.key_at("sample", other), text="the same prompts, turns, system prompt and sampling")],
                notes=[_count(experiment, other), _count(experiment, name)],
            )  # fmt: skip
    distinct = list(first.items())
    for own, name in distinct:
        larger = [other for held, other in distinct if own < held and spec.sample[name].n <= spec.sample[other].n]
        if larger:
            other = max(larger, key=lambda one: spec.sample[one].n)
            sink.warning(
                "W0757", f'"{name}" samples {len(own)} prompts {spec.sample[name].n} times that "{other}" samples {spec.sample[other].n} times',
                experiment.key_at("sample", name),
                help=f'measure it on "{other}", and restrict the analysis with on: {spec.sample[name].prompts}',
                labels=[Label(span=experiment.key_at("sample", other), text="the same turns, system prompt and sampling")],
                notes=[
                    _count(experiment, name),
                    f'in "{other}": {len(own)} prompts x {spec.sample[other].n} = {len(own) * spec.sample[other].n:,} completions an arm',
                ],
            )  # fmt: skip


def _prompts(experiment: Experiment, name: str) -> frozenset[str] | None:
    """What a prompt set holds; a pending external file counts by its name, since its stand-in is not what is sampled."""
    entry = experiment.spec.prompts.get(name)
    found = experiment.prompt_sets.get(name)
    if entry is None or found is None:
        return None
    if entry.union is not None:
        parts = [_prompts(experiment, part) for part in entry.union]
        return frozenset().union(*(part for part in parts if part is not None)) if None not in parts else None
    substitute = entry.external is not None and found.source is not None and found.source.path != entry.external.file
    if substitute and entry.external is not None:
        return frozenset(f"{entry.external.file}:{prompt}" for prompt in found.items)
    return frozenset(found.items)


def _count(experiment: Experiment, name: str) -> str:
    sample = experiment.spec.sample[name]
    prompts = len(experiment.prompts[sample.prompts])
    return f'"{name}": {prompts} prompts x {sample.n} = {prompts * sample.n:,} completions an arm'
