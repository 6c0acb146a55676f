"""Entries that are declared and never used.

W1301: something is declared, and nothing uses it
Why: The source document of issue 147 sets out in its first section to pull five earlier seeds as a noise floor; its
fifth section drops them, and the sentence stayed. Whoever reads such a leftover believes that it counts. Just as often
an entry is unused because the name that was meant to use it is another one.
Example:
    metrics:
      evasive: {of: first, contains: I would rather not, better: lower, missing: drop}
Fix:
    metrics:
      evasive: {of: first, contains: I would rather not, better: lower, missing: drop}
    analyses:
      evading: {metric: evasive, arm: treated, method: bootstrap, side: two_sided, alpha: 0.05,
                resamples: 10000, seed: 1}

W1302: no analysis reads an arm
Why: An arm costs its full price, read or not: from the three arms in the body of the source document of issue 147 to
the five of its plan, the trainings rise from three to seven. An arm that nothing reads was forgotten in the analyses,
or is left over from an older plan. One that is there to be looked at is kept with a written reason.
Example:
    conditions: {talked: [talk]}
Fix:
    conditions: {talked: [talk]}
    analyses:
      talk_effect: {metric: alignment, contrast: talked - base, method: paired_bootstrap,
                    p: percentile, side: two_sided, alpha: 0.05, resamples: 10000, seed: 1}

W1303: training seeds are listed, and nothing is trained
Why: `seeds` repeats the training of an arm. Where no arm is trained it does nothing, while three seeds in a spec read
like three repetitions. What completions are drawn depends on the `seed` of the sample set.
Example:
    seeds: [1, 2, 3]
    conditions: {attacked: [], caught: [], treated: [], placebo: []}     # the base model alone
Fix:
    seeds: [1, 2, 3]
    conditions: {attacked: [attack], caught: [catch], treated: [catch, attack]}
"""

from __future__ import annotations

from collections.abc import Mapping

from epc.compiler.contract.chat import placeholders
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment, arms
from epc.compiler.spec import JudgeMetric, Otherwise, PatternMetric, ResultMetric, Turn, TurnsData


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    # an unknown name was probably meant to use one of these
    if experiment.surface.poisoned or any(found.code.startswith("E03") for found in sink):
        return
    used: dict[str, set[str]] = {
        "data": {recipe.data for recipe in spec.train.values()},
        "train": {phase for name in spec.conditions for phase in spec.phases(name)},
        "prompts": {sample.prompts for sample in spec.sample.values()}
        | {name for entry in spec.generate.values() for name in entry.prompts}
        | {name for entry in spec.data.values() if isinstance(entry, TurnsData) for name in entry.prompts}
        | {name for entry in spec.prompts.values() for name in entry.union or ()}
        | {analysis.on for analysis in spec.analyses.values() if analysis.on is not None},
        "generate": {
            value.generate
            for entry in spec.data.values()
            if isinstance(entry, TurnsData)
            for value in entry.generated.values()
        },
        "judges": {metric.judge for metric in spec.metrics.values() if isinstance(metric, JudgeMetric)},
        "sample": {metric.of for metric in spec.metrics.values() if isinstance(metric, PatternMetric | JudgeMetric)},
        "results": {metric.results for metric in spec.metrics.values() if isinstance(metric, ResultMetric)},
        "metrics": {analysis.metric for analysis in spec.analyses.values()},
    }
    fills: list[tuple[str, str, Mapping[str, object], list[Turn]]] = [
        ("data", name, entry.fill, entry.turns) for name, entry in spec.data.items() if isinstance(entry, TurnsData)
    ]
    fills += [("sample", name, entry.fill, entry.turns) for name, entry in spec.sample.items()]
    for section, name, fill, turns in fills:
        for key in fill:
            if not any(key in placeholders(turn.text) for turn in turns):
                sink.warning(
                    "W1301", f'no turn of "{name}" holds the filling {{{key}}}', experiment.key_at(section, name, "fill", key),
                    help="use it in a turn or delete it",
                )  # fmt: skip
    # an analysis that no gate reads is descriptive, and an undecided gate is the verdict table's finding
    for section, names in used.items():
        for name in getattr(spec, section):
            if name not in names:
                sink.warning(
                    "W1301",
                    f'"{name}" in `{section}` is never used',
                    experiment.key_at(section, name),
                    help="use it or delete it",
                )
    _arms(experiment, sink)
    trained = spec.seeded_elsewhere or any(spec.phases(name) for name in spec.conditions)
    if "seeds" in spec.model_fields_set and not trained:
        sink.warning(
            "W1303", "`seeds` are training seeds, and no arm is trained", experiment.key_at("seeds"),
            help="delete `seeds`; the seed of the completions stands in each sample set",
        )  # fmt: skip


def _arms(experiment: Experiment, sink: Diagnostics) -> None:
    """Arms that no analysis reads, in a spec that decides something: a pilot's arms are there to be looked at."""
    spec = experiment.spec
    if all(isinstance(rule, Otherwise) for rule in spec.verdicts):
        return
    read = {arm for analysis in spec.analyses.values() for arm in arms(analysis)}
    for name in spec.conditions:
        if name not in read:
            sink.warning(
                "W1302", f'no analysis reads arm "{name}", which is run like the others', experiment.key_at("conditions", name),
                help="name it in an analysis or delete it; keep it where its transcripts are the reason for it",
            )  # fmt: skip
