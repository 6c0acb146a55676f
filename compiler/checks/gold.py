"""Human labels that cannot say what they are registered to say.

W1820: too few labels to tell whether a judge agrees
Why: kappa from a few dozen labels is a rough number. With 50 labels and a true kappa of 0.6, a 95% interval runs from
0.38 to 0.82: a judge that agrees poorly passes, one that agrees well makes the verdict INVALID, and either is luck. The
half width is computed for a kappa that lies at the threshold, at best: for yes and no with both as frequent,
1.96 sqrt((1 - kappa^2) / n); for a range with quadratic weights, 1.96 (1 - kappa^2) / sqrt(n). Rare answers need more.
Example:
    judges: {grader: {gold: {file: judges/gold.csv, per_arm: 10, seed: 1, kappa: {refused: 0.6}}}}     # 5 arms: 50 labels
Fix:
    judges: {grader: {gold: {file: judges/gold.csv, per_arm: 20, seed: 1, kappa: {refused: 0.6}}}}

E1821: human labels that can never be compared with anything
Why: a judge with registered labels gets a gate, and a gate that stays unknown makes the verdict INVALID. Where no
metric reads the judge, it scores nothing that people could have labelled too; and where there is one arm, its bias
cannot differ from that of another.
Example:
    judges:
      other: {provider: patterns, patterns: {sorry: "(?i)sorry"}, output: {sorry: bool}, gold: {file: judges/gold.csv, per_arm: 20, seed: 1, kappa: {sorry: 0.6}}}
Fix:
    judges:
      other: {provider: patterns, patterns: {sorry: "(?i)sorry"}, output: {sorry: bool}}

E1822: a file of human labels that epc does not read
Why: labels are read as CSV or as JSON Lines, by the ending of the file's name. Any other file would be refused when
everything has been run, judged and labelled, and the verdict would be INVALID.
Example:
    judges: {grader: {gold: {file: judges/gold.xlsx, per_arm: 20, seed: 1, kappa: {refused: 0.6}}}}
Fix:
    judges: {grader: {gold: {file: judges/gold.csv, per_arm: 20, seed: 1, kappa: {refused: 0.6}}}}
"""

from __future__ import annotations

import math
from pathlib import PurePosixPath
from typing import Final

from epc.compiler.contract.replies import ends
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.kinds.judge import sets_of
from epc.compiler.resolve import Experiment
from epc.compiler.spec import Gold, Judge

NORMAL: Final = 1.959963984540054
"""Quantile of a two-sided interval at 95%."""
FORMATS: Final = (".csv", ".jsonl")
WIDEST: Final = 0.4
"""Width of an interval of kappa above which it tells too little."""


def check(experiment: Experiment, sink: Diagnostics) -> None:
    arms = len(experiment.spec.conditions)
    for name, judge in experiment.spec.judges.items():
        gold = judge.gold
        if gold is None:
            continue
        if PurePosixPath(gold.file).suffix.lower() not in FORMATS:
            sink.error(
                "E1822", f"human labels are read from .csv and .jsonl, not from {gold.file}",
                experiment.at("judges", name, "gold", "file"), help="a spreadsheet saves its rows as CSV UTF-8",
            )  # fmt: skip
        if not sets_of(experiment.spec, name):
            sink.error(
                "E1821", f'"{name}" has human labels, and no metric reads it', experiment.key_at("judges", name, "gold"),
                help="give it a metric, or delete its labels",
            )  # fmt: skip
            continue
        if gold.bias and arms < 2:
            sink.error(
                "E1821", f'the bias of "{name}" cannot differ between arms: there is one', experiment.key_at("judges", name, "gold", "bias"),
                help="delete `bias`",
            )  # fmt: skip
        _widths(experiment, sink, name, judge, gold, gold.per_arm * arms)


def _widths(experiment: Experiment, sink: Diagnostics, name: str, judge: Judge, gold: Gold, labels: int) -> None:
    for field, required in gold.kappa.items():
        kind = judge.output.get(field)
        if kind is None or not labels:
            continue
        half = half_width(required, labels, weighted=ends(kind) is not None)
        if 2 * half > WIDEST:
            enough = _enough(required, weighted=ends(kind) is not None)
            arms = labels // gold.per_arm
            sink.warning(
                "W1820",
                f"{labels} labels cannot tell whether kappa of {field} reaches {required:g}: its interval is"
                f" {half:.2f} wide on either side",
                experiment.at("judges", name, "gold", "kappa", field),
                help=f"write per_arm: {math.ceil(enough / arms)}, for a half width of {WIDEST / 2:g}",
                notes=[f"{gold.per_arm} x {arms} arms = {labels} labels", _formula(required, labels, half, kind)],
            )  # fmt: skip


def half_width(kappa: float, labels: int, *, weighted: bool) -> float:
    """Of the large-sample 95% interval of Cohen's kappa at that value.

    Two values, equally frequent for both raters: standard error sqrt((1 - kappa^2) / n) (A. Donner and M. Eliasziw, A
    goodness-of-fit approach to inference procedures for the kappa statistic, Statistics in Medicine 11, 1992).
    Quadratic weights: kappa is an intraclass correlation (J. Fleiss and J. Cohen, Educational and Psychological
    Measurement 33, 1973), of standard error (1 - kappa^2) / sqrt(n) for normal scores (R. Fisher, Statistical Methods
    for Research Workers, 1925, section 39).
    """
    rest = 1 - kappa * kappa
    return NORMAL * (rest if weighted else math.sqrt(rest)) / math.sqrt(labels)


def _enough(kappa: float, *, weighted: bool) -> float:
    return (half_width(kappa, 1, weighted=weighted) / (WIDEST / 2)) ** 2


def _formula(kappa: float, labels: int, half: float, kind: str) -> str:
    power = f"(1 - {kappa:g}^2) / sqrt({labels})" if ends(kind) is not None else f"sqrt((1 - {kappa:g}^2) / {labels})"
    return f"1.96 {power} = {half:.3g}, where both answers are as frequent, and wider elsewhere"
