"""`epc decide --interim`: what unfinished results already say about the verdict, and planned looks.

Every verdict is reachable or not. An open score takes every value that its scale allows, an open unit may also stay
missing, and the estimate of an open analysis lies between the ends of what any completion gives (`estimate_range`);
p, bounds and rejections of an open analysis are free. A gate is decided where no point of these ranges changes it, by
Kleene's logic; the table is then read under every completion of the open gates. So "no longer reachable" is proved.
"Still reachable" may be too much, since gates that share an estimate are completed independently. INVALID stays
reachable while anything is open, because what is open may fail.

No number of an open analysis is shown, and no p before the end: a p that was seen at half the data and would have ended
the experiment is not the p of the registered test. Where looks were registered (`interim:`, alpha spent by
contract.spending), one is taken when its share of the units is there: the confirmatory test on the first so many
complete units by name, at the look's own level. A look that was not planned is refused, as is a second one at the
same stage with other data.

Nothing here is a decision: it goes to report/interim.json, never to decision.json, and each look is journalled.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from epc.compiler.contract.canonical import json_lines, sha256_json
from epc.compiler.contract.decision import (
    AnalysisResult,
    GateSoFar,
    InterimReport,
    PlannedLook,
    Progress,
    Reachable,
    Slice,
)
from epc.compiler.contract.logic import Atom, Name, Operator, Truth, compare, evaluate, leaves
from epc.compiler.contract.manifest import Analysis, Design, Gate, Interim, Manifest, Metric
from epc.compiler.contract.rows import JudgementRow, MeasurementRow, SampleRow
from epc.compiler.contract.spending import units_at
from epc.runtime import bundle as bundles
from epc.runtime import journal, kept, measure, registration
from epc.runtime.decide import stored_rows, write_text
from epc.runtime.errors import Fault
from epc.runtime.estimates import Arm, analysis_result, units_of
from epc.runtime.gates import Evaluated
from epc.runtime.measurements import Measurements, Unit, group, rows_sha256
from epc.runtime.results import read_results
from epc.runtime.statistics.sign_flip import EXACT_UNITS
from epc.runtime.step import FinishRecord, read_record
from epc.runtime.switches import VARIANTS, governed
from epc.runtime.validity import outputs_intact, recorded_gates
from epc.runtime.verdict import INVALID, Reading, labels_of
from epc.runtime.wording import count

if TYPE_CHECKING:
    from rich.console import Console

NOTE: Final = (
    "Not a decision. No longer reachable is proved; still reachable may be too much. Numbers of open analyses are not"
    " shown, and this look is in the journal."
)
Range = tuple[Fraction, Fraction]
"""Ends of what a statistic can still be; equal where it is known."""


def path_of(bundle: Path) -> Path:
    return bundle / "report" / "interim.json"


def look(bundle: Path, results: Path | None = None) -> InterimReport:
    """Journal a look at a bundle, write report/interim.json and return what it says.

    `results` is the folder of results from elsewhere, None for that of the spec. Raises Fault R0520 (nothing is open),
    R0522 (no look is planned now), R0523 (this look was taken with other data), R0524 (it cannot be written), R0764 (the
    registration is not the compiled one), and those of reading a bundle and its results.
    """
    manifest = bundles.read_manifest(bundle)
    registration.check_in_force(bundle, manifest)
    records = {step.id: read_record(bundle, step) for step in manifest.steps}
    imported = read_results(manifest, results or registration.spec_folder(bundle, manifest))
    measurements = group((*partial_rows(bundle, manifest, records), *imported.rows))
    open_steps = tuple(step.id for step in manifest.steps if records[step.id] is None)
    states = {state.name: state for state in _states(manifest.design, measurements, finished=not open_steps)}
    if not open_steps and all(state.complete for state in states.values()):
        raise Fault(
            "R0520", str(bundle), "the results are complete: a look at them would be the decision", "epc decide"
        )
    taken = _planned(bundle, manifest, measurements, states)
    journal.append(
        bundle, "looked", lock_sha256=manifest.lock_sha256, rows_sha256=rows_sha256(measurements.rows),
        open_steps=len(open_steps), **({} if taken is None else {"look": taken.number, "units": taken.units}),
    )  # fmt: skip
    recorded = tuple(recorded_gates(manifest, records, outputs_intact(bundle, manifest, records)))
    gates = tuple(_gates(manifest.design, states))
    report = InterimReport(
        epc=manifest.epc, id=manifest.id, title=manifest.title, mode=manifest.mode, lock_sha256=manifest.lock_sha256,
        rows_sha256=rows_sha256(measurements.rows), open_steps=open_steps,
        verdicts=tuple(_verdicts(manifest.design, states, recorded)), gates=gates,
        analyses=tuple(_progress(manifest.design, states)),
        looks=() if taken is None else tuple(_looks(manifest.design, measurements, taken)), note=NOTE,
    )  # fmt: skip
    text = json.dumps(report.model_dump(mode="json"), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    write_text(path_of(bundle), text + "\n", code="R0524", what="the interim report")
    return report


# ------------------------------------------------------------------- what there is


def partial_rows(
    bundle: Path, manifest: Manifest, records: Mapping[str, FinishRecord | None]
) -> Iterator[MeasurementRow]:
    """Measurement rows of what is stored: of a finished measure step its own, else made from completions, judgements
    and items that are complete for an arm and sample set. Raises the Faults of `runtime.measure` for damaged files."""
    yield from stored_rows(bundle, manifest, records)
    for step in manifest.steps:
        if step.kind == "measure" and records[step.id] is None:
            needs = [need for need in manifest.steps if need.id in step.needs]
            samples = [row for need in needs if need.kind == "sample" for row in _samples(bundle, need.pieces)]
            items, replied = _finished(bundle, [need for need in needs if records[need.id] is not None])
            arms = [(str(name), int(seed), str(key)) for name, seed, key in step.recipe["arms"]]
            for metric in step.recipe["metrics"]:
                yield from _metric_rows(bundle, metric, arms, samples, items, replied, manifest)


def _samples(bundle: Path, pieces: Iterable[Any]) -> Iterator[SampleRow]:
    """Rows of the pieces that are complete: one that is being sampled has another name."""
    for piece in pieces:
        file = bundles.piece(bundle, piece.key)
        if kept.is_there(file):
            for line in json_lines(kept.read_text(file)):
                yield SampleRow.model_validate_json(line)


def _finished(bundle: Path, needs: Iterable[Any]) -> tuple[list[dict[str, Any]], list[JudgementRow]]:
    items: list[dict[str, Any]] = []
    replied: list[JudgementRow] = []
    for need in needs:
        if need.kind == "capability":
            items += measure.item_rows(bundles.store(bundle, need))
        elif need.kind == "judge":
            replied += measure.judgement_rows(bundles.store(bundle, need))
    return items, replied


def _metric_rows(
    bundle: Path, metric: Mapping[str, Any], arms: Sequence[measure.Arm], samples: Sequence[SampleRow],
    items: Sequence[Mapping[str, Any]], replied: Sequence[JudgementRow], manifest: Manifest,
) -> Iterator[MeasurementRow]:  # fmt: skip
    """Rows of one metric in the arms that have its completions or items."""
    if metric["kind"] == "lm_eval":
        there = {(row["condition"], row["seed"]) for row in items if row["task"] == metric["source"]}
    else:
        there = {(row.condition, row.seed) for row in samples if row.set == metric["source"]}
    arms = [arm for arm in arms if arm[:2] in there]
    if not arms:
        return
    match metric["kind"]:
        case "pattern":
            judged = measure.judge_by_pattern(samples, bundles.with_input(bundle, metric), arms=arms, bundle=bundle)
            yield from measure.by_prompt(judged, metric["name"], scores=metric.get("scores", False))
        case "judge":
            if any(row.judge == metric["judge"] for row in replied):
                yield from measure.by_judge(samples, replied, metric, arms=arms)
        case _:
            yield from measure.by_item(items, metric, arms=arms, mode=manifest.mode)


# ------------------------------------------------------- what it can still become


@dataclass(frozen=True, kw_only=True)
class State:
    """One analysis, or one variant of it."""

    name: str
    analysis: Analysis
    complete: bool
    n_units: int
    planned: int | None
    result: AnalysisResult | None
    """Of a complete analysis."""
    ranges: Mapping[str, Range]
    """Of an open one: statistic -> what it can still be."""

    def truth(self, atom: Atom) -> Truth:
        if self.result is not None:
            return compare(self.result.statistics.get(atom.statistic), atom.operator, atom.constant)
        return None if atom.statistic not in self.ranges else over(self.ranges[atom.statistic], atom)


def over(values: Range, atom: Atom) -> Truth:
    """The truth of a comparison for every value from end to end, None where they differ."""
    low, high = values
    constant = Fraction(repr(float(atom.constant)))
    operators: dict[Operator, tuple[bool, bool]] = {
        "<": (high < constant, low >= constant),
        "<=": (high <= constant, low > constant),
        ">": (low > constant, high <= constant),
        ">=": (low >= constant, high < constant),
        "==": (low == high == constant, not low <= constant <= high),
        "!=": (not low <= constant <= high, low == high == constant),
    }
    always, never = operators[atom.operator]
    return True if always else False if never else None


def _states(design: Design, measurements: Measurements, *, finished: bool) -> Iterator[State]:
    switched = governed(design)
    for analysis in design.analyses:
        for variant in VARIANTS if analysis.name in switched else (None,):
            yield _state(design, analysis, measurements, variant, finished)


def _state(
    design: Design, analysis: Analysis, measurements: Measurements, variant: Slice | None, finished: bool
) -> State:
    units = units_of(design, analysis, measurements, variant=variant)
    finished = finished and units.metric.kind != "results"  # nobody says when those are all there
    planned = len(units.expected) if analysis.subset is not None else design.units.get(analysis.metric)
    samples = 1 if units.metric.kind == "lm_eval" else design.samples.get(analysis.metric)
    spans = [
        _span(units.arms, unit, _scale(units.metric), samples, finished=finished)
        for unit in units.expected
    ]  # fmt: skip
    n_units = sum(span.known for span in spans)
    complete = all(span.settled for span in spans) and (planned is not None or finished) and bool(spans)
    name = analysis.name if variant is None else f"{analysis.name}.{variant}"
    limit = _limit(analysis, _scale(units.metric))
    free: dict[str, Range] = dict.fromkeys(("lower", "upper", "ci_low", "ci_high"), limit)
    point = "value" if analysis.contrast is None else "delta"
    free |= {point: estimate_range(spans, limit, more=planned is None and not finished)}
    free |= {} if analysis.contrast is None else dict.fromkeys(("p", "reject"), (Fraction(0), Fraction(1)))
    if analysis.method == "sign_test":  # its delta is a median
        free[point] = limit
    result = analysis_result(design, analysis, measurements, variant=variant) if complete else None
    return State(
        name=name, analysis=analysis, complete=complete, n_units=n_units, planned=planned, result=result, ranges=free
    )  # fmt: skip


def _scale(metric: Metric) -> Range:
    low, high = (Fraction(repr(float(bound))) for bound in metric.scale)
    return low, high


def _limit(analysis: Analysis, scale: Range) -> Range:
    return scale if analysis.contrast is None else (scale[0] - scale[1], scale[1] - scale[0])


@dataclass(frozen=True, kw_only=True)
class Span:
    """What one unit can still contribute: treatment minus control, or the level of one arm."""

    low: Fraction
    high: Fraction
    known: bool
    """It is there in every arm, with all its samples."""
    settled: bool
    """Nothing about it is open: it is known, or it is missing for good."""


def _span(arms: Sequence[Arm], unit: str, scale: Range, samples: int | None, *, finished: bool) -> Span:
    """The unit's span from that of each arm; the control's is turned round."""
    found = [_arm_span(arm, unit, scale, samples, finished=finished) for arm in arms]
    low, high = found[0].low, found[0].high
    if len(found) == 2:
        low, high = low - found[1].high, high - found[1].low
    return Span(
        low=low, high=high, known=all(span.known for span in found), settled=all(span.settled for span in found)
    )  # fmt: skip


def _arm_span(arm: Arm, unit: str, scale: Range, samples: int | None, *, finished: bool) -> Span:
    """One arm's unit mean over training seeds, each between what its open samples at either end of the scale give.

    Samples that are still open may be scored, filtered or missing; each of these leaves the mean between the ends.
    """
    rows = arm.units.get(unit, Unit(rows={})).rows
    ends: list[Range] = []
    is_open = gone = False
    for seed in arm.seeds:
        row = rows.get(seed)
        if row is None:
            is_open, gone = is_open or not finished, gone or finished
            ends.append(scale)
            continue
        left = 0 if finished else None if samples is None else max(0, samples - row.n - row.n_missing - row.n_filtered)
        if left == 0:
            gone = gone or row.n == 0
            mean = Fraction(row.total, row.denominator * row.n) if row.n else None
            ends.append(scale if mean is None else (mean, mean))
            continue
        is_open = True
        if left is None:
            ends.append(scale)
            continue
        score = Fraction(row.total, row.denominator)
        low, high = ((score + end * left) / (row.n + left) for end in scale)
        ends.append((low, high))
    return Span(
        low=sum((low for low, _ in ends), Fraction(0)) / len(ends),
        high=sum((high for _, high in ends), Fraction(0)) / len(ends),
        known=not is_open and not gone, settled=not is_open,
    )  # fmt: skip


def estimate_range(spans: Sequence[Span], limit: Range, *, more: bool) -> Range:
    """Ends of the mean over units, whatever the open ones become and whichever of them stay missing.

    Known units are in the mean; each other one is in it or not, at either end of its span; with `more`, any number of
    units that nobody has seen may come. The largest mean takes the largest spans as long as they raise it.
    """
    known = [span.low for span in spans if span.known]
    optional = [span for span in spans if not span.settled]
    total = sum(known, Fraction(0))
    if more or not known:  # with nothing known the mean may be that of any single unit
        if more:
            return limit
        return min((s.low for s in optional), default=limit[0]), max((s.high for s in optional), default=limit[1])
    return (
        -_largest(-total, len(known), [-span.low for span in optional]),
        _largest(total, len(known), [span.high for span in optional]),
    )


def _largest(total: Fraction, n: int, tops: Sequence[Fraction]) -> Fraction:
    for top in sorted(tops, reverse=True):
        if top * n <= total:
            break
        total, n = total + top, n + 1
    return total / n


# --------------------------------------------------------------- gates and verdicts


def _bound(design: Design, states: Mapping[str, State], variants: Mapping[str, Slice]) -> dict[str, State]:
    """Analysis -> its state, the governed ones as `variants` (analysis -> variant) bind them."""
    return {
        analysis.name: states[
            f"{analysis.name}.{variants[analysis.name]}" if analysis.name in variants else analysis.name
        ]
        for analysis in design.analyses
    }


def _answers(design: Design, states: Mapping[str, State]) -> Iterator[dict[str, Slice]]:
    """Every answer of the switches that is still possible."""
    found: list[dict[str, Slice]] = [{}]
    for name, gate in governed(design).items():
        truth = _truth(gate, states)
        possible = VARIANTS if truth is None else (VARIANTS[truth],)
        found = [{**answer, name: variant} for answer in found for variant in possible]
    yield from found


def _truth(gate: Gate, states: Mapping[str, State]) -> Truth:
    def leaf(node: Atom | Name) -> Truth:
        if isinstance(node, Name):
            raise TypeError("a gate compares statistics, it does not name gates")
        return states[node.analysis].truth(node)

    return evaluate(gate.predicate, leaf)


def _readings(design: Design, states: Mapping[str, State]) -> Iterator[list[Evaluated]]:
    for answer in _answers(design, states):
        bound = _bound(design, states, answer)
        yield [
            Evaluated(name=gate.name, role=gate.role, text=gate.text, truth=_truth(gate, bound))
            for gate in design.gates
            if gate.role != "follow_up"
        ]


def _gates(design: Design, states: Mapping[str, State]) -> Iterator[GateSoFar]:
    readings = [{gate.name: gate.truth for gate in reading} for reading in _readings(design, states)]
    for gate in design.gates:
        if gate.role == "follow_up":
            continue
        truths = {reading[gate.name] for reading in readings}
        truth = truths.pop() if len(truths) == 1 else None
        read = {leaf.analysis for leaf in leaves(gate.predicate) if isinstance(leaf, Atom)}
        waiting = sorted(
            state.analysis.name for state in states.values() if state.analysis.name in read and not state.complete
        )
        if truth is None:
            because = f"open: {', '.join(dict.fromkeys(waiting)) or 'unknown on complete results'}"
        else:
            because = "whatever is still open" if waiting else "on complete results"
        yield GateSoFar(name=gate.name, role=gate.role, text=gate.text, truth=truth, because=because)


def _verdicts(design: Design, states: Mapping[str, State], recorded: Sequence[Evaluated]) -> Iterator[Reachable]:
    """Every label of the table in its order, then INVALID."""
    failed = [gate.name for gate in recorded if gate.truth is False and gate.name != "epc.steps_finished"]
    labels: dict[str, None] = {}
    for reading in _readings(design, states):
        broken = [gate.name for gate in reading if gate.role == "validity" and gate.truth is False]
        failed += [name for name in broken if name not in failed]
        kept = [gate for gate in reading if gate.role != "validity"]
        if not broken:
            labels |= dict.fromkeys(labels_of(design.verdicts, Reading(gates=kept)))
    if any(gate.truth is False for gate in recorded if gate.name in failed):
        labels = {}
    decided = {gate.name: gate.truth for gate in _gates(design, states) if gate.truth is not None}
    for rule in {rule.label: rule for rule in design.verdicts}.values():
        if rule.label in labels:
            waiting = [name for name in _named(design, rule.label) if name not in decided]
            because = f"open: {', '.join(waiting)}" if waiting else "open: the rules before it"
            if len(labels) == 1:
                because = "the only one left, unless the experiment turns out INVALID"
        elif not labels:
            because = f"validity has failed: {', '.join(dict.fromkeys(failed))}"
        else:
            because = (
                "; ".join(
                    f"{name} is {'true' if truth else 'false'}"
                    for name, truth in decided.items()
                    if name in _deciding(design)
                )
                or "no rule leads to it"
            )
        yield Reachable(
            label=rule.label, verdict_class=rule.verdict_class, reachable=rule.label in labels, because=because
        )
    because = (
        f"validity has failed: {', '.join(dict.fromkeys(failed))}"
        if not labels
        else "what is open may fail or stay missing"
    )
    yield Reachable(label=INVALID, verdict_class="INVALID", reachable=True, because=because)


def _named(design: Design, label: str) -> list[str]:
    rules = [rule for rule in design.verdicts if rule.label == label]
    if any(rule.predicate is None for rule in rules):
        rules = list(design.verdicts)
    found = (leaf for rule in rules if rule.predicate is not None for leaf in leaves(rule.predicate))
    return list(dict.fromkeys(leaf.name for leaf in found if isinstance(leaf, Name)))


def _deciding(design: Design) -> set[str]:
    return {name for rule in design.verdicts for name in _named(design, rule.label)}


def _progress(design: Design, states: Mapping[str, State]) -> Iterator[Progress]:
    for state in states.values():
        yield Progress(
            analysis=state.name, confirmatory=state.analysis.confirmatory, n_units=state.n_units,
            n_planned=state.planned, complete=state.complete,
        )  # fmt: skip


# -------------------------------------------------------------------- planned looks


@dataclass(frozen=True, kw_only=True)
class _Taken:
    """A planned look that is due."""

    number: int
    interim: Interim
    chosen: Mapping[str, tuple[str, ...]]
    """Confirmatory analysis or variant -> its units."""

    @property
    def units(self) -> str:
        """Hash of the units, by which a second look at the same stage is told from the first."""
        return sha256_json({name: list(units) for name, units in self.chosen.items()})


def _planned(
    bundle: Path, manifest: Manifest, measurements: Measurements, states: Mapping[str, State]
) -> _Taken | None:  # fmt: skip
    """The registered look that is due now; None for a design without looks.

    Raises Fault R0522 when none is, R0523 when it was taken with other units.
    """
    interim = manifest.design.interim
    tested = [state for state in states.values() if state.analysis.confirmatory]
    if interim is None or not tested:
        return None
    sizes = {state.name: _sizes(interim, state.planned or 0) for state in tested}
    number = min(sum(state.n_units >= size for size in sizes[state.name]) for state in tested)
    there = ", ".join(f"{state.name} has {state.n_units} of {state.planned} units" for state in tested)
    plan = "; ".join(f"{name} at {', '.join(map(str, found))}" for name, found in sizes.items())
    if number == 0 or any(state.planned is None for state in tested):
        raise Fault("R0522", str(bundle), f"no look is planned now: {there}", f"looks are registered for {plan} units")
    if number == len(interim.looks):
        raise Fault("R0522", str(bundle), f"the last look is the decision: {there}", "finish the run, then: epc decide")
    chosen = {
        state.name: tuple(_known(manifest.design, measurements, state)[: sizes[state.name][number - 1]])
        for state in tested
    }
    taken = _Taken(number=number, interim=interim, chosen=chosen)
    for entry in journal.read(bundle):
        earlier = entry.event == "looked" and entry.data.get("lock_sha256") == manifest.lock_sha256
        if earlier and entry.data.get("look") == number and entry.data.get("units") != taken.units:
            later = "; ".join(f"{name} at {found[number]}" for name, found in sizes.items())
            raise Fault(
                "R0523", f"{journal.path(bundle)}:{entry.seq + 1}",
                f"look {number} was taken at {entry.at} with other units; {there}", f"the next look is {later} units",
            )  # fmt: skip
    return taken


def _sizes(interim: Interim, planned: int) -> list[int]:
    """Units of each look."""
    return [units_at(share, planned) for share in interim.looks]


def _known(design: Design, measurements: Measurements, state: State) -> list[str]:
    """Complete units of an analysis, by name."""
    variant: Slice | None = "unfiltered" if state.name.endswith(".unfiltered") else None
    units = units_of(design, state.analysis, measurements, variant=variant)
    samples = 1 if units.metric.kind == "lm_eval" else design.samples.get(state.analysis.metric)
    return [
        unit
        for unit in units.expected
        if _span(units.arms, unit, _scale(units.metric), samples, finished=False).known
    ]  # fmt: skip


def _looks(design: Design, measurements: Measurements, taken: _Taken) -> Iterator[PlannedLook]:
    """The confirmatory tests on the look's units alone."""
    level = taken.interim.levels[taken.number - 1]
    for name, units in taken.chosen.items():
        analysis = next(a for a in design.analyses if name in (a.name, *(f"{a.name}.{v}" for v in VARIANTS)))
        variant: Any = name.removeprefix(analysis.name).removeprefix(".") or None
        kept = group([row for row in measurements.rows if row.metric != analysis.metric or row.unit in set(units)])
        result = analysis_result(design.model_copy(update={"units": {}}), analysis, kept, variant=variant)
        p = result.statistics["p"]
        note = result.unknown_because or ""
        drawn = analysis.method != "sign_flip" or len(units) > EXACT_UNITS
        if drawn and analysis.resamples is not None and level <= 1 / (analysis.resamples + 1):
            note = f"no p of {analysis.resamples} resamples is below this level, so this look cannot reject"
        yield PlannedLook(
            analysis=name, look=taken.number, n_looks=len(taken.interim.looks),
            share=taken.interim.looks[taken.number - 1], n_units=len(units), level=level,
            delta=result.statistics["delta"], p=p, reject=None if p is None else p < level, note=note,
        )  # fmt: skip


# ------------------------------------------------------------------------ terminal


def print_report(console: Console, report: InterimReport, file: Path) -> None:
    """What `epc decide --interim` prints."""
    from rich.table import Table
    from rich.text import Text

    from epc.runtime.wording import shown

    def say(text: str, style: str = "") -> None:
        console.print(Text(text, style=style), soft_wrap=True)

    say(f"{report.title}: interim look, not a decision", "bold")
    open_analyses = [state for state in report.analyses if not state.complete]
    say(f"open: {count(len(report.open_steps), 'step')}, {len(open_analyses)} of {len(report.analyses)} analyses")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("verdict", "", "why"):
        table.add_column(column)
    for verdict in report.verdicts:
        word, style = ("reachable", "green") if verdict.reachable else ("NO LONGER", "red")
        table.add_row(Text(verdict.label), Text(word, style=style), Text(verdict.because))
    console.print(table)
    for gate in report.gates:
        if gate.truth is not None:
            say(f"decided: {gate.name} ({gate.text}) is {'true' if gate.truth else 'false'}, {gate.because}")
    for taken in report.looks:
        p = "unknown" if taken.p is None else f"{taken.p:.6g}"
        word = "unknown" if taken.reject is None else "REJECTED" if taken.reject else "not rejected"
        say(
            f"planned look {taken.look} of {taken.n_looks}: {taken.analysis} on {taken.n_units} units, p = {p}, level"
            f" {taken.level:g}: {word}" + (f" ({taken.note})" if taken.note else "")
        )
    say(report.note, "dim")
    say(f"interim: {shown(file)}")
