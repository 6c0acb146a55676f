"""A judge against human labels: agreement, Cohen's kappa, bias by arm, test-retest.

Everything is exact arithmetic on integers until a figure is printed, and the bootstrap draws are those of the
statistics engine, so the same labels and judgements give the same bytes on every machine.

Cohen's kappa (J. Cohen, A coefficient of agreement for nominal scales, Educational and Psychological Measurement 20,
1960, 37-46) of a yes-or-no field, and with quadratic weights (J. Cohen, Weighted kappa, Psychological Bulletin 70,
1968, 213-220) of an integer range, is over N pairs (x, y)

    kappa = 1 - sum of observed (x - y)^2 / N  divided by  sum over all pairings (x_i - y_j)^2 / N^2
          = 1 - N S_dd / (N S_xx + N S_yy - 2 S_x S_y),

where S_dd sums (x - y)^2 and the others sum squares and values. With two values the quadratic weights are those of
the unweighted kappa, so that one formula serves both. It is not defined where everybody says the same one value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import lcm
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, assert_never

from epc.compiler.contract.decision import ArmBias, Audit, BiasGap, Deviation, Disagreement, FieldAudit, Retest
from epc.compiler.contract.draws import draw
from epc.compiler.contract.manifest import Gold, Judge, Manifest
from epc.compiler.contract.rows import JudgementRow, OfCompletion
from epc.runtime import bundle as bundles
from epc.runtime import journal, measure
from epc.runtime.errors import Fault
from epc.runtime.judging import gold as labelled
from epc.runtime.judging.replies import bounds
from epc.runtime.step import FinishRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES: Final = 1999
TAIL: Final = Fraction(1, 40)
"""Mass on each side of the intervals, which are two-sided at 95%."""
SINGLE_VALUES: Final = 11
"""A range of at most so many values has a category for each; a wider one has BINS."""
BINS: Final = 5
FURTHEST: Final = 5
"""Completions with the largest disagreement that are listed."""

Scores = Mapping[str, Fraction]
"""Field -> score of one completion, its votes aggregated."""
Identity = tuple[str, int, str, str, int, int]
"""(condition, training seed, set, item, turn, index)."""


@dataclass(frozen=True, kw_only=True)
class Rated:
    """A completion that was drawn for labels."""

    id: str
    condition: str
    scores: Scores | None
    """None where a vote of the judge has no score."""
    labels: Mapping[str, Mapping[str, int]]
    """Field -> rater -> label."""


class Sums(NamedTuple):
    """What kappa is made of, over pairs (x, y): their number, and sums of (x - y)^2, x^2, y^2, x and y. Ints or arrays."""

    n: Any
    dd: Any
    xx: Any
    yy: Any
    x: Any
    y: Any

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]]) -> Self:
        found = tuple(pairs)
        return cls(
            len(found), sum((x - y) ** 2 for x, y in found), sum(x * x for x, _ in found), sum(y * y for _, y in found),
            sum(x for x, _ in found), sum(y for _, y in found),
        )  # fmt: skip

    def plus(self, other: Sums) -> Sums:
        return Sums(*(one + another for one, another in zip(self, other, strict=True)))


NOTHING: Final = Sums(0, 0, 0, 0, 0, 0)


def kappa(sums: Sums) -> Fraction | None:
    """Cohen's kappa of integer pairs, quadratic weights; None where it is not defined."""
    by_chance = sums.n * (sums.xx + sums.yy) - 2 * sums.x * sums.y
    return None if by_chance == 0 else 1 - Fraction(sums.n * sums.dd, by_chance)


def aggregate(votes: Sequence[Mapping[str, Any]], judge: Judge) -> Scores:
    """One score a field from the replies about one completion."""
    match judge.aggregate:
        case None:
            return {field: Fraction(int(votes[0][field])) for field in judge.output}
        case "median":
            return {field: median([Fraction(int(vote[field])) for vote in votes]) for field in judge.output}
        case "mean":
            return {field: mean([Fraction(int(vote[field])) for vote in votes]) for field in judge.output}
        case _:
            assert_never(judge.aggregate)


# ------------------------------------------------------------------------- figures


def field_audit(
    judge: Judge, gold: Gold, field: str, rated: Sequence[Rated], votes: Iterable[Sequence[int]] = ()
) -> FieldAudit:
    """Everything about one field. `votes` are the scored replies about each judged completion, several where asked."""
    kind = judge.output[field]
    ends = bounds(kind)
    tolerance = 0 if ends is None else (ends[1] - ends[0]) // 10
    both = [each for each in rated if each.scores is not None and each.labels.get(field)]
    scores = {each.id: each.scores[field] for each in both if each.scores is not None}
    unit = lcm(*(score.denominator for score in scores.values()))
    pairs = {
        each.id: [(int(scores[each.id] * unit), label * unit) for _, label in sorted(each.labels[field].items())]
        for each in both
    }
    differences = [abs(x - y) for each in pairs.values() for x, y in each]
    arms = list(dict.fromkeys(each.condition for each in rated))
    by_arm = {arm: [Sums.of(pairs[each.id]) for each in both if each.condition == arm] for arm in sorted(arms)}
    total = Sums.of(pair for each in pairs.values() for pair in each)
    resampled = {
        arm: _resampled(sums, draw("audit", gold.seed, judge.name, field, arm)) for arm, sums in by_arm.items() if sums
    }
    found = kappa(total)
    low, high = _kappa_interval(list(resampled.values())) if found is not None else (None, None)
    biases = {arm: _bias(sums, unit) for arm, sums in by_arm.items()}
    gap, exact_gap = _gap(biases, resampled, unit)
    people = Sums.of(
        pair
        for each in rated
        for pair in combinations([label for _, label in sorted(each.labels.get(field, {}).items())], 2)
    )
    required, allowed = gold.kappa.get(field), gold.bias.get(field)
    categories, place = _categories(kind)
    confusion = [[0] * len(categories) for _ in categories]
    for each in both:
        for label in each.labels[field].values():
            confusion[place(Fraction(label))][place(scores[each.id])] += 1
    return FieldAudit(
        field=field, kind=kind, n=len(both), n_pairs=total.n, tolerance=tolerance,
        n_unlabelled=sum(not each.labels.get(field) for each in rated),
        n_unscored=sum(each.scores is None and bool(each.labels.get(field)) for each in rated),
        agreement=_share([found <= tolerance * unit for found in differences]),
        mean_absolute_difference=sum(differences) / (unit * len(differences)) if differences else None,
        kappa=_float(found), kappa_low=low, kappa_high=high, kappa_required=required,
        kappa_reached=None if required is None or found is None else found >= Fraction(repr(required)),
        human_pairs=people.n, human_kappa=_float(kappa(people)),
        arms=tuple(
            ArmBias(condition=arm, n=sum(each.n for each in by_arm[arm]), bias=_float(biases[arm])) for arm in by_arm
        ),
        gap=gap, bias_allowed=allowed,
        bias_within=None if allowed is None or exact_gap is None else exact_gap <= Fraction(repr(allowed)),
        categories=categories, confusion=tuple(map(tuple, confusion)), retest=retest(votes, tolerance),
        furthest=_furthest(both, field, scores),
    )  # fmt: skip


def retest(votes: Iterable[Sequence[int]], tolerance: int) -> Retest | None:
    """Pairs of votes about one completion, the earlier one first; None without a pair."""
    pairs = [pair for each in votes for pair in combinations(each, 2)]
    if not pairs:
        return None
    differences = [abs(x - y) for x, y in pairs]
    return Retest(
        pairs=len(pairs), agreement=sum(found <= tolerance for found in differences) / len(pairs),
        mean_absolute_difference=sum(differences) / len(pairs), kappa=_float(kappa(Sums.of(pairs))),
    )  # fmt: skip


def _float(value: Fraction | None) -> float | None:
    return None if value is None else float(value)


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _bias(sums: Sequence[Sums], unit: int) -> Fraction | None:
    total = sum((each.n for each in sums), 0)
    return Fraction(sum(each.x - each.y for each in sums), total * unit) if total else None


def _resampled(sums: Sequence[Sums], seed: int) -> Sums:
    """The sums over each resample of an arm's completions, as arrays of Python integers."""
    from epc.runtime.statistics.resamples import resampled_sums

    columns = [tuple(int(value) for value in column) for column in zip(*sums, strict=True)]
    return Sums(*(found.astype(object) for found in resampled_sums(seed, RESAMPLES, columns)))


def _kappa_interval(arms: Sequence[Sums]) -> tuple[float, float]:
    """Percentile bounds; a resample of which kappa is not defined counts at the end that widens the interval."""
    total = NOTHING
    for each in arms:
        total = total.plus(each)
    by_chance = total.n * (total.xx + total.yy) - 2 * total.x * total.y
    above = by_chance - total.n * total.dd
    drawn = list(zip(above, by_chance, strict=True))
    low = _bounds([numerator / chance if chance else -1.0 for numerator, chance in drawn])[0]
    high = _bounds([numerator / chance if chance else 1.0 for numerator, chance in drawn])[1]
    return low, high


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    import numpy as np

    from epc.runtime.statistics.resampling import Quantiles

    drawn: NDArray[np.float64] = np.array(values, dtype=np.float64)
    quantiles = Quantiles(drawn, (float(drawn.min()), float(drawn.max())))
    return quantiles.low(TAIL), quantiles.high(TAIL)


def _gap(
    biases: Mapping[str, Fraction | None], resampled: Mapping[str, Sums], unit: int
) -> tuple[BiasGap | None, Fraction | None]:
    """The two arms furthest apart in bias, and their exact difference."""
    known = {arm: bias for arm, bias in biases.items() if bias is not None}
    if len(known) < 2:
        return None, None
    low = min(known, key=lambda arm: (known[arm], arm))
    high = max((arm for arm in known if arm != low), key=lambda arm: (known[arm], arm))
    one, other = resampled[high], resampled[low]
    above = (one.x - one.y) * other.n - (other.x - other.y) * one.n
    ends = _bounds([numerator / whole for numerator, whole in zip(above, one.n * other.n * unit, strict=True)])
    difference = known[high] - known[low]
    arms = len(known)
    found = BiasGap(
        high=high, low=low, difference=float(difference), ci_low=ends[0], ci_high=ends[1], pairs=arms * (arms - 1) // 2
    )
    return found, difference


class _Place:
    """Which category a value is in. A mean of votes is in that of the value below it; half of the votes are no yes."""

    def __init__(self, starts: Sequence[Fraction]) -> None:
        self._starts = starts

    def __call__(self, value: Fraction) -> int:
        return sum(value >= start for start in self._starts[1:])


def _categories(kind: str) -> tuple[tuple[str, ...], _Place]:
    ends = bounds(kind)
    if ends is None:
        return ("false", "true"), _Place([Fraction(0), Fraction(501, 1000)])
    low, size = ends[0], ends[1] - ends[0] + 1
    if size <= SINGLE_VALUES:
        return tuple(str(low + each) for each in range(size)), _Place([Fraction(low + each) for each in range(size)])
    starts = [low + size * each // BINS for each in range(BINS)]
    names = (
        f"{first}..{following - 1}" for first, following in zip(starts, (*starts[1:], ends[1] + 1), strict=True)
    )  # fmt: skip
    return tuple(names), _Place([Fraction(start) for start in starts])


def _furthest(both: Sequence[Rated], field: str, scores: Scores) -> tuple[Disagreement, ...]:
    found = []
    for each in both:
        human = mean([Fraction(label) for label in each.labels[field].values()])
        if human != scores[each.id]:
            found.append((-abs(scores[each.id] - human), each.id, each.condition, human, scores[each.id]))
    return tuple(
        Disagreement(id=own, condition=condition, human=float(human), judge=float(score))
        for _, own, condition, human, score in sorted(found)[:FURTHEST]
    )


# ------------------------------------------------------------------------ a bundle


def audits(
    bundle: Path, manifest: Manifest, records: Mapping[str, FinishRecord | None], folder: Path
) -> tuple[Audit, ...]:
    """The audit of every judge with registered labels. `folder` is what their files are relative to.

    Raises nothing for what is missing or wrong: an audit then says so, and its gate is unknown.
    """
    return tuple(
        _registered(bundle, manifest, records, folder, judge)
        for judge in manifest.design.judges
        if judge.gold is not None
    )


def _registered(
    bundle: Path, manifest: Manifest, records: Mapping[str, FinishRecord | None], folder: Path, judge: Judge
) -> Audit:
    gold = judge.gold
    assert gold is not None
    begun = Audit(judge=judge.name, file=gold.file, sha256=None, per_arm=gold.per_arm, seed=gold.seed, drawn={})
    try:
        step = labelled.step_of(manifest, judge.name)
        if records.get(step.id) is None:
            return begun.model_copy(update={"problems": (f"{step.id} has not finished",), "remedy": "epc run"})
        found = audit(bundle, manifest, judge, folder / gold.file)
    except Fault as fault:
        # Other faults' remedies hold paths of this machine, and the decision must not.
        remedy = fault.remedy if fault.code.startswith("R18") else "epc verify names what was altered"
        return begun.model_copy(update={"problems": tuple(fault.fact.split("\n")), "remedy": remedy})
    return found


def audit(bundle: Path, manifest: Manifest, judge: Judge, file: Path) -> Audit:
    """A judge with `gold` against the labels in a file.

    Where its registration draws completions, too few labels in an arm are a problem that the audit names.
    Raises Fault R1801 and R1802 (nothing to audit), R1803, R1806 and R1807 (labels), R0365, R0804 and R0805 (what
    is stored is damaged).
    """
    gold = judge.gold
    assert gold is not None
    step = labelled.step_of(manifest, judge.name)
    completions = labelled.completions_of(bundle, manifest, judge.name)
    every = gold.per_arm == 0
    drawn = labelled.sample(
        completions, judge.name, per_arm=len(completions) if every else gold.per_arm, seed=gold.seed
    )  # fmt: skip
    ids = {each.id for each in drawn}
    try:
        labels = labelled.read(file, judge, ids, name=gold.file)
    except Fault as fault:
        if fault.code != "R1807" or every:
            raise
        # Which ids are of completions that were not drawn takes reading all of them.
        others = {labelled.identity(completions.read(number)) for number in range(len(completions))} - ids
        labels = labelled.read(file, judge, ids, name=gold.file, others=others)
    votes = votes_of(measure.judgement_rows(bundles.store(bundle, step)))
    rated = [
        Rated(
            id=each.id, condition=each.row.condition, labels=labels.of.get(each.id, {}),
            scores=_scores(votes.get(identity_of(each.row), ()), judge),
        )
        for each in sorted(drawn, key=lambda each: identity_of(each.row))
    ]  # fmt: skip
    if every:
        rated = [each for each in rated if each.labels]
    fields = [field for field in judge.output if any(field in each.labels for each in rated)]
    per_arm = {arm: sum(each.condition == arm for each in rated) for arm in sorted({each.condition for each in rated})}
    problems = tuple(_too_few(judge, gold, rated, per_arm)) if not every else ()
    return Audit(
        judge=judge.name, file=gold.file, sha256=labels.sha256, per_arm=gold.per_arm, seed=gold.seed, drawn=per_arm,
        problems=problems, remedy=f"label what is empty in {gold.file}, then decide again" if problems else "",
        fields=tuple(
            field_audit(judge, gold, field, rated, (_field_votes(each, field) for each in votes.values()))
            for field in fields
        ),
    )  # fmt: skip


def labels_changed(bundle: Path, found: Sequence[Audit]) -> Iterator[Deviation]:
    """Labels that were others when an earlier decision was made. Raises Fault R0401 for an altered journal."""
    now = {audit.judge: audit.sha256 for audit in found if audit.sha256 is not None}
    before: dict[str, dict[str, str]] = {}
    for entry in journal.read(bundle) if now else ():
        for judge, sha256 in (entry.data.get("labels") or {}).items() if entry.event == "decided" else ():
            if judge in now and sha256 != now[judge]:
                before.setdefault(judge, {})[str(sha256)] = str(entry.data.get("verdict"))
    for judge, others in before.items():
        told = ", ".join(f"{verdict} with SHA-256 {sha256[:12]}" for sha256, verdict in others.items())
        yield Deviation(
            kind="labels_changed",
            text=f"the human labels for {judge} were others when it was decided before: {told}; now they have"
            f" {str(now[judge])[:12]}",
        )  # fmt: skip


def identity_of(row: OfCompletion) -> Identity:
    return row.condition, row.seed, row.set, row.item, row.turn, row.index


def votes_of(judgements: Iterable[JudgementRow]) -> dict[Identity, tuple[JudgementRow, ...]]:
    """The final judgements of each completion, by vote."""
    found: dict[Identity, list[JudgementRow]] = {}
    for row in judgements:
        found.setdefault(identity_of(row), []).append(row)
    return {key: tuple(sorted(rows, key=lambda row: row.vote)) for key, rows in found.items()}


def _scores(votes: Sequence[JudgementRow], judge: Judge) -> Scores | None:
    if not votes or any(row.outcome != "scored" for row in votes):
        return None
    return aggregate([row.fields for row in votes], judge)


def _field_votes(votes: Sequence[JudgementRow], field: str) -> list[int]:
    return [int(row.fields[field]) for row in votes if row.outcome == "scored"]


def _too_few(judge: Judge, gold: Gold, rated: Sequence[Rated], arms: Mapping[str, int]) -> Iterator[str]:
    for field in judge.output:
        if field not in gold.kappa and field not in gold.bias:
            continue
        for arm in arms:
            given = sum(bool(each.labels.get(field)) for each in rated if each.condition == arm)
            if given < gold.per_arm:
                drawn = f" (it has {arms[arm]} completions)" if arms[arm] < gold.per_arm else ""
                yield f"{field} is labelled for {given} of {gold.per_arm} completions of {arm}{drawn}"
