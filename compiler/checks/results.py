"""Results from elsewhere: what a file must say about itself before it is read.

E1602: a mapping that is missing, or that the format does not need
Why: A CSV, JSONL or Parquet file has columns of any name, so the spec says which one holds what; guessing would pair
rows by the wrong column and say nothing. The logs of lm-eval, Inspect and promptfoo are read as their tools write them,
and a mapping for one would be ignored.
Example:
    results: {own: {file: data/own.csv, format: csv}}
    metrics: {refusals: {of: null, judge: null, results: own, score: refused, scale: [0, 1], unit: prompt}}
Fix:
    results: {own: {file: data/own.csv, format: csv, mapping: {unit: item, condition: arm}}}
    metrics: {refusals: {of: null, judge: null, results: own, score: refused, scale: [0, 1], unit: prompt}}

E1603: rows of which nothing, or two things, say the arm
Why: Every row belongs to one arm. Either a column names it, or the whole file is of one arm; with both, one of them
would be wrong as soon as they differ.
Example:
    results: {own: {file: data/own.csv, format: csv, mapping: {unit: item}}}
    metrics: {refusals: {of: null, judge: null, results: own, score: refused, scale: [0, 1], unit: prompt}}
Fix:
    results: {own: {file: data/own.csv, format: csv, mapping: {unit: item}, condition: treated}}
    metrics: {refusals: {of: null, judge: null, results: own, score: refused, scale: [0, 1], unit: prompt}}

E1604: a scale whose ends are not in order, or too far apart
Why: A score outside of the scale is an error, missing scores are taken to be at its ends, and bounds are clipped to it.
In one lab -1 stood for "error" and was averaged: a declared scale makes that impossible. Scores are summed exactly up to
15 digits, so its ends lie within 10^15.
Example:
    results: {own: {file: data/own.csv, format: csv, mapping: {unit: item, condition: arm}}}
    metrics: {refusals: {of: null, judge: null, results: own, score: refused, scale: [1, 0], unit: prompt}}
Fix:
    results: {own: {file: data/own.csv, format: csv, mapping: {unit: item, condition: arm}}}
    metrics: {refusals: {of: null, judge: null, results: own, score: refused, scale: [0, 1], unit: prompt}}

E1605: a part that needs a model, in a spec without one
Why: Training, sampling and benchmarks start from a base model, pinned, because a result is of that model. Only a spec
that decides on results from elsewhere does without, and then none of its metrics may ask for completions of its own.
Example:
    --- spec
    epc: 1
    id: no_model
    title: Which model answers more questions?
    hypothesis: {if: a model is tuned, then: it answers more questions}
    conditions: {base: [], tuned: []}
    prompts: {asked: {items: [How do I bake bread?, How do I knit a scarf?], count: 2}}
    sample: {first: {prompts: asked, n: 1, system: none, temperature: 1.0, top_p: 1.0, max_tokens: 50, seed: 1}}
    metrics: {answered: {of: first, contains: Yes, better: higher, missing: fail}}
    analyses: {gap: {metric: answered, contrast: tuned - base, method: paired_t, side: greater, alpha: 0.05}}
    gates: {better: {role: prediction, require: gap.delta > 0}}
    verdicts: [{otherwise: INCONCLUSIVE}]
Fix:
    --- spec
    epc: 1
    id: no_model
    title: Which model answers more questions?
    hypothesis: {if: a model is tuned, then: it answers more questions}
    results: {own: {file: data/own.csv, format: csv, mapping: {unit: question, condition: model}}}
    metrics: {answered: {results: own, score: correct, scale: [0, 1], better: higher, missing: fail}}
    analyses: {gap: {metric: answered, contrast: tuned - base, method: paired_t, side: greater, alpha: 0.05}}
    gates: {better: {role: prediction, require: gap.delta > 0}}
    verdicts: [{otherwise: INCONCLUSIVE}]

E1606: arms of several training seeds, and no column that tells them apart
Why: Training seeds are averaged with equal weight, and how far they differ is part of how sure a verdict is. Rows of
three trainings that are thrown together would be taken for more samples of one.
Example:
    results: {own: {file: data/own.csv, format: csv, mapping: {unit: item, condition: arm}}}
    metrics: {refusals: {of: null, judge: null, results: own, score: refused, scale: [0, 1], unit: prompt}}
Fix:
    seeds: [1]
    results: {own: {file: data/own.csv, format: csv, mapping: {unit: item, condition: arm}}}
    metrics: {refusals: {of: null, judge: null, results: own, score: refused, scale: [0, 1], unit: prompt}}

E1607: a results file whose hash is still pending
Why: `pending` stands for content that is frozen before anything is trained or evaluated on it. Results come last: leave
the hash out, and the decision and the journal record what was read; or pin the file that is there already.
Example:
    results: {own: {file: data/own.csv, format: csv, sha256: pending, mapping: {unit: item, condition: arm}}}
    metrics: {refusals: {of: null, judge: null, results: own, score: refused, scale: [0, 1], unit: prompt}}
Fix:
    results: {own: {file: data/own.csv, format: csv, sha256: null, mapping: {unit: item, condition: arm}}}
    metrics: {refusals: {of: null, judge: null, results: own, score: refused, scale: [0, 1], unit: prompt}}
"""

from __future__ import annotations

from typing import Final

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment, arms
from epc.compiler.spec import ResultMetric

TABLES: Final = ("csv", "jsonl", "parquet")
"""Formats whose columns have any name."""
WIDEST: Final = 10**15


def check(experiment: Experiment, sink: Diagnostics) -> None:
    for name in experiment.spec.results:
        _entry(experiment, sink, name)
    for name, metric in experiment.spec.metrics.items():
        if isinstance(metric, ResultMetric):
            _metric(experiment, sink, name, metric)
    if experiment.spec.model.from_ == "none" and not experiment.surface.lacks("metrics", "results"):
        _without_model(experiment, sink)


def _entry(experiment: Experiment, sink: Diagnostics, name: str) -> None:
    entry, at = experiment.spec.results[name], experiment.key_at("results", name)
    if (entry.mapping is None) == (entry.format in TABLES):
        sink.error(
            "E1602", f'"{name}" has no mapping' if entry.mapping is None else f"{entry.format} logs need no mapping", at,
            help="say which column holds what: mapping: {unit: ..., condition: ...}" if entry.mapping is None
            else "delete it; `score` of the metric names what is read, and `conditions` the arms",
        )  # fmt: skip
    elif entry.mapping is not None and (entry.mapping.condition is None) == (entry.condition is None):
        both = entry.condition is not None
        sink.error(
            "E1603", f'{"two things say" if both else "nothing says"} which arm the rows of "{name}" are of', at,
            help="keep `condition` for a file of one arm, or `mapping.condition` for a column" if both
            else "name the column in `mapping.condition`, or the arm of the whole file in `condition`",
        )  # fmt: skip
    if entry.sha256 == "pending":
        sink.error(
            "E1607", f'the SHA-256 of "{name}" is pending', experiment.at("results", name, "sha256"),
            help="leave it out, and the decision records what it read; or write the hash of the file that is there",
        )  # fmt: skip


def _metric(experiment: Experiment, sink: Diagnostics, name: str, metric: ResultMetric) -> None:
    spec = experiment.spec
    low, high = metric.scale
    if not low < high or max(abs(low), abs(high)) > WIDEST:
        sink.error(
            "E1604", f'the scale of "{name}" goes from {low:g} to {high:g}', experiment.at("metrics", name, "scale"),
            help="write [lowest, highest], each within 10^15 of zero",
        )  # fmt: skip
    entry = spec.results.get(metric.results)
    if entry is None or (entry.mapping is not None and entry.mapping.seed is not None):
        return
    read = [arm for analysis in spec.analyses.values() if analysis.metric == name for arm in arms(analysis)]
    several = [arm for arm in dict.fromkeys(read) if arm in spec.conditions and len(spec.training_seeds(arm)) > 1]
    if several:
        seeds = ", ".join(map(str, spec.seeds))
        sink.error(
            "E1606", f'arm "{several[0]}" has the training seeds {seeds}, and no column of "{metric.results}" tells them apart',
            experiment.key_at("results", metric.results),
            help="name the column in `mapping.seed`, or declare one seed",
        )  # fmt: skip


def _without_model(experiment: Experiment, sink: Diagnostics) -> None:
    """A spec without a model whose metrics or arms need one."""
    spec = experiment.spec
    needs = [f"metrics.{name}" for name, metric in spec.metrics.items() if not isinstance(metric, ResultMetric)]
    needs += [f"conditions.{name}" for name in spec.conditions if spec.phases(name) or spec.system(name) is not None]
    needs += [section for section in ("data", "train", "sample", "generate", "judges") if getattr(spec, section)]
    if needs:
        shown = ", ".join(needs[:3]) + (f" and {len(needs) - 3} more" if len(needs) > 3 else "")
        sink.error(
            "E1605", f"there is no `model:`, and {shown} cannot do without", experiment.key_at(*needs[0].split(".")),
            help='name one, such as model: {from: "hub:ORG/NAME", revision: COMMIT}; or read `results` that exist',
        )  # fmt: skip
