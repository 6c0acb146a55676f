"""What a bootstrap resamples, whom the units stand for, and margins and pairing that its data must allow.

E0831: completions resampled as if each were an independent unit
Why: 25 completions of one prompt share the prompt, and say far less than 25 prompts. In simulations of judge scores
with 48 prompts a test that takes completions as units rejects a true null 20.3% of the time at alpha .05, and
22.4% of the time with eight prompts and left-skewed scores; over prompts it is 5%. It is no option.
Example:
    analyses: {headline: {method: cluster_bootstrap, p: percentile, levels: [sample]}}
Fix:
    analyses: {headline: {method: cluster_bootstrap, p: percentile, levels: [seed, unit]}}

E0832: levels that the data do not have
Why: every training seed meets the same prompts: the two are crossed, and [seed, unit] draws each of them on its own.
To draw prompts anew within each seed would count every prompt once a seed: simulated with ten seeds and 48 prompts it
rejects a true null 19% of the time at alpha .05, where the crossed draw stays at 4%. A level with a single
member, one seed or one sample, has nothing to draw.
Example:
    analyses: {headline: {method: cluster_bootstrap, p: percentile, levels: [unit, seed]}}
Fix:
    analyses: {headline: {method: cluster_bootstrap, p: percentile, levels: [seed, unit]}}

E0833: a population that the method does not describe
Why: `fixed` says that these prompts are all there are, so that only samples or trainings vary. A test that resamples
prompts, or takes their spread as its error, speaks of other prompts; under the word `fixed` its interval would be of
another question. The reverse is worse: with prompts kept fixed, an interval is too narrow for prompts at large.
Example:
    analyses: {part: {population: fixed}}
Fix:
    analyses: {part: {population: random}}

E0834: a margin of equivalence that no difference can reach
Why: two arms are equivalent when they differ by less than the margin. With a margin as wide as the metric's whole scale
they always are, whatever was measured.
Example:
    analyses: {quizzed: {method: tost, p: null, resamples: null, seed: null, side: two_sided, margin: 1}}
Fix:
    analyses: {quizzed: {method: tost, p: null, resamples: null, seed: null, side: two_sided, margin: 0.1}}

E0837: an unpaired method for arms that are asked the same
Why: both arms answer the same prompts, so a prompt that is hard for one is hard for the other. An unpaired interval
takes that spread between prompts for error, and hides effects that a paired one shows; where the arms go apart
prompt by prompt it is too narrow. It is for arms of different units, and cannot be computed here.
Example:
    analyses: {quizzed: {method: newcombe, p: null, resamples: null, seed: null}}
Fix:
    analyses: {quizzed: {method: newcombe_paired, p: null, resamples: null, seed: null}}

W0838: few training seeds stand for all of them
Why: the spread between seeds is estimated from the seeds there are. Where it is as large as the spread between
prompts, [seed, unit] rejects a true null 15% of the time with three seeds at alpha .05, 9% with five and 6% with
ten. It is still better than leaving their spread out: then it is 32% with three.
Example:
    analyses: {headline: {method: cluster_bootstrap, p: percentile, levels: [seed, unit]}}      # three seeds
Fix:
    seeds: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    analyses: {headline: {method: cluster_bootstrap, p: percentile, levels: [seed, unit]}}
"""

from __future__ import annotations

from typing import Final

from epc.compiler import decision
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment, arms
from epc.compiler.spec import Analysis, JudgeMetric, LmEvalMetric, PatternMetric, ResultMetric

LEVELS: Final = (["unit"], ["seed"], ["unit", "sample"], ["seed", "unit"])
"""What a cluster bootstrap can draw."""
ENOUGH_SEEDS: Final = 10


def check(experiment: Experiment, sink: Diagnostics) -> None:
    widths = {metric.name: metric.scale[1] - metric.scale[0] for metric in decision.metrics(experiment)}
    for name, analysis in experiment.spec.analyses.items():
        if analysis.method in ("cluster_bootstrap", "two_level"):
            _levels(experiment, name, analysis, sink)
        _population(experiment, name, analysis, sink)
        width = widths.get(analysis.metric)
        if analysis.method == "tost" and analysis.margin is not None and width is not None and analysis.margin >= width:
            sink.error(
                "E0834", f'"{name}" tests equivalence within {analysis.margin:g}, and {analysis.metric} is {width:g} wide',
                experiment.at("analyses", name, "margin"), help="name the smallest difference that would matter",
            )  # fmt: skip
        metric = experiment.spec.metrics.get(analysis.metric)
        if analysis.method == "newcombe" and isinstance(metric, PatternMetric | JudgeMetric | LmEvalMetric):
            unit = "items" if isinstance(metric, LmEvalMetric) else "prompts"
            sink.error(
                "E0837", f'"{name}" compares arms as if they had different {unit}, and they have the same',
                experiment.key_at("analyses", name, "method"), help="use method: newcombe_paired, or mcnemar",
            )  # fmt: skip


def _levels(experiment: Experiment, name: str, analysis: Analysis, sink: Diagnostics) -> None:
    levels = ["unit", "sample"] if analysis.method == "two_level" else list(analysis.levels or ())
    if not levels:
        return
    declared = analysis.levels is not None
    at = experiment.at("analyses", name, "levels") if declared else experiment.key_at("analyses", name, "method")
    said = f"[{', '.join(levels)}]"
    if levels[0] == "sample":
        sink.error(
            "E0831", f'"{name}" resamples the samples of all units as if they were independent', at,
            help="write levels: [unit] or [unit, sample], or [seed, unit] with several training seeds",
            notes=["completions of one prompt are alike: as units they reject a true null 20% of the time at alpha .05"],
        )  # fmt: skip
        return
    seeds = _seeds(experiment, analysis)
    why, instead = None, ""
    if levels not in LEVELS:
        why = "draws levels that are not nested in each other, or one twice"
        instead = "write " + " or ".join(f"[{', '.join(each)}]" for each in LEVELS)
        if set(levels) >= {"seed", "unit"}:
            why = "draws seeds and units one within the other, and every seed has the same units"
            instead = (
                "write levels: [seed, unit]: each is drawn on its own, and the spread of units holds that of samples"
            )
    elif "seed" in levels and seeds == 1:
        why, instead = "resamples training seeds, and there is one", "leave out `seed`, or train with several seeds"
    elif "sample" in levels and seeds > 1:
        why = "resamples the samples of a unit, which come from several trainings"
        instead = "use cluster_bootstrap with levels: [seed, unit]"
    elif "sample" in levels and _single(experiment, analysis):
        why, instead = "resamples the samples of a unit, and there is one", "use paired_bootstrap with p: studentized"
    if why is not None:
        sink.error("E0832", f'{analysis.method} {said} in "{name}" {why}', at, help=instead)
    elif "seed" in levels and seeds < ENOUGH_SEEDS:
        sink.warning(
            "W0838", f'"{name}" resamples {seeds} training seeds', at,
            help=f"train with {ENOUGH_SEEDS} or more, or say in the rationale that the seeds stand for little",
            notes=["the fewer there are, the less of their spread is seen"],
        )  # fmt: skip


def _seeds(experiment: Experiment, analysis: Analysis) -> int:
    """Training seeds that vary in an analysis; 1 where no arm is trained."""
    spec = experiment.spec
    trained = [arm for arm in arms(analysis) if arm in spec.conditions and spec.phases(arm)]
    return len(set(spec.seeds)) if trained else 1


def _single(experiment: Experiment, analysis: Analysis) -> bool:
    """Whether a unit has one sample; False where that is not known."""
    match experiment.spec.metrics.get(analysis.metric):
        case PatternMetric(of=source) | JudgeMetric(of=source):
            sample = experiment.spec.sample.get(source)
            return sample is not None and sample.n == 1
        case LmEvalMetric():
            return True
        case ResultMetric(results=source):
            entry = experiment.spec.results.get(source)
            return entry is not None and entry.mapping is not None and entry.mapping.sample is None
        case None:
            return False


def _population(experiment: Experiment, name: str, analysis: Analysis, sink: Diagnostics) -> None:
    only_seeds = analysis.method == "cluster_bootstrap" and analysis.levels == ["seed"]
    at = experiment.at("analyses", name, "population")
    if analysis.population == "fixed" and analysis.method != "two_level" and not only_seeds:
        sink.error(
            "E0833", f'"{name}" declares its units fixed, and {analysis.method} speaks of other units', at,
            help="delete `population`, or use two_level, which then resamples the samples of each unit, or cluster_bootstrap"
            " with levels: [seed]",
        )  # fmt: skip
    elif analysis.population == "random" and only_seeds:
        sink.error(
            "E0833", f'"{name}" resamples training seeds alone, so its units are fixed', experiment.at("analyses", name, "levels"),
            help="write levels: [seed, unit], or population: fixed",
        )  # fmt: skip
