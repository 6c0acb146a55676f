"""Whether anything is sampled in the turn that the treatment trains.

W0754: no evaluation samples the turn in which the treatment is trained
Why: in the source of issue 147 the reflex is trained in turn 2, after "continue", and every evaluation is a single
turn: a null would not tell a reflex that was destroyed from one that was never asked for. What counts is the last
assistant turn of the data that the treated arm alone is trained on; some sample set has to ask for that turn.
Example:
    sample:
      second: {fill: {}, turns: [{user: "{prompt}"}]}
      first: {system: You are a helpful assistant.}
Fix:
    sample:
      second: {turns: [{user: "{prompt}"}, {assistant: "{opening}"}, {user: continue}]}
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from epc.compiler.contract.logic import Atom, leaves
from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.resolve import Experiment, arms
from epc.compiler.spec import JudgeMetric, PatternMetric, TurnsData

UNREAD: Final = ("descriptive", "follow_up")
"""Roles whose contrasts say nothing about what is treatment and what is control."""


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    sampled = {sum(turn.role == "user" for turn in sample.turns) for sample in spec.sample.values()}
    reported: set[str] = set()
    for analysis, data in _distinguishing(experiment):
        entry = spec.data.get(data)
        # a file's conversations are of many lengths, and their first turns are trained as well
        if not isinstance(entry, TurnsData) or data in reported:
            continue
        turn = sum(turn.role == "assistant" for turn in entry.turns)
        metric = spec.metrics[spec.analyses[analysis].metric]
        if (
            turn < 2
            or turn in sampled
            or not isinstance(metric, PatternMetric | JudgeMetric)
            or metric.of not in spec.sample
        ):
            continue
        reported.add(data)
        before = entry.turns[-2].text if entry.turns[-2].role == "user" else ""
        after = f', after "{before}"' if before else ""
        what = f"turn {min(sampled)}" if len(sampled) == 1 else "turns " + ", ".join(map(str, sorted(sampled)))
        sink.warning(
            "W0754", f'"{data}" trains assistant turn {turn}{after}, and every evaluation samples {what}', experiment.key_at("data", data, "turns"),
            help=f"add a sample set with {turn} user turns, so that what was trained is asked for somewhere; it need not decide",
            labels=[Label(span=experiment.key_at("sample", metric.of), text=f'what "{analysis}" reads')],
        )  # fmt: skip


def _distinguishing(experiment: Experiment) -> Iterator[tuple[str, str]]:
    """(analysis, data set that its treatment trains on and its control does not) of contrasts that gates read."""
    spec = experiment.spec
    read = dict.fromkeys(
        leaf.analysis
        for name, parsed in experiment.gates.items()
        if spec.gates[name].role not in UNREAD and parsed.predicate is not None
        for leaf in leaves(parsed.predicate)
        if isinstance(leaf, Atom)
    )
    for name in read:
        pair = arms(spec.analyses[name])
        if (
            len(pair) != 2
            or not all(arm in spec.conditions for arm in pair)
            or spec.analyses[name].metric not in spec.metrics
        ):
            continue
        treated, control = (
            [spec.train[phase].data for phase in spec.phases(arm) if phase in spec.train] for arm in pair
        )
        for data in treated:
            if data not in control:
                yield name, data
