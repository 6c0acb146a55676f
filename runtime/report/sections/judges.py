"""Judges: who they are, what they cost, and how far they agree with people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from epc.compiler.contract.decision import Audit, Decision, FieldAudit, StepRecord
from epc.compiler.contract.manifest import Judge, Manifest
from epc.runtime.report import numbers
from epc.runtime.report.text import one_line


@dataclass(frozen=True, kw_only=True)
class FieldView:
    field: str
    compared: str
    kappa: str
    kappa_held: str
    """What was registered of it, and whether it is reached."""
    people: str
    """Kappa between people, empty where one person labelled."""
    agreement: str
    biases: tuple[tuple[str, str, str], ...]
    """(arm, pairs, mean of judge minus human)"""
    gap: str
    gap_held: str
    retest: str
    categories: tuple[str, ...]
    confusion: tuple[tuple[str, tuple[str, ...]], ...]
    """(category of the label, counts by category of the score)"""
    furthest: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AuditView:
    file: str
    sha256: str
    drawn: str
    problems: tuple[str, ...]
    remedy: str
    fields: tuple[FieldView, ...]


@dataclass(frozen=True, kw_only=True)
class JudgeView:
    name: str
    identity: tuple[tuple[str, str], ...]
    step: str
    """Id of its step where that has finished, else empty."""
    audit: AuditView | None


def judge_views(decision: Decision, manifest: Manifest) -> tuple[JudgeView, ...]:
    """Every registered judge in the order of the spec."""
    audits = {audit.judge: audit for audit in decision.audits}
    records = {record.id: record for record in decision.steps}
    steps = {step.recipe.get("judge"): step.id for step in manifest.steps if step.kind == "judge"}
    views = []
    for judge in manifest.design.judges:
        record = records.get(steps.get(judge.name, ""))
        audit = audits.get(judge.name)
        views.append(
            JudgeView(
                name=one_line(judge.name),
                identity=tuple((name, one_line(value)) for name, value in (*_identity(judge), *_paid(record))),
                step="" if record is None else one_line(record.id),
                audit=None if audit is None else _audit(audit),
            )
        )
    return tuple(views)


def _identity(judge: Judge) -> tuple[tuple[str, str], ...]:
    fields = ", ".join(f"{field} {'yes or no' if kind == 'bool' else kind}" for field, kind in judge.output.items())
    votes = f"{judge.votes} a completion, their {judge.aggregate}" if judge.votes > 1 else "1 a completion"
    match judge.provider:
        case "patterns":
            what = "patterns on this machine"
        case "python":
            what = f"function {judge.model} on this machine"
        case "anthropic" | "openai":
            what = judge.model
        case _:
            assert_never(judge.provider)
    told = {
        "judge": what, "fields": fields or "not recorded", "votes": votes,
        "options": ", ".join(f"{name}: {value}" for name, value in judge.options.items()),
        "may leave without a score": f"{numbers.percent(judge.max_missing)} of an arm",
        "SHA-256 of what it goes by": judge.rubric_sha256,
    }  # fmt: skip
    return tuple((name, value) for name, value in told.items() if value)


def _paid(record: StepRecord | None) -> tuple[tuple[str, str], ...]:
    """Calls, tokens and dollars as the step recorded them."""
    if record is None:
        return (("calls", numbers.unknown("its step has not finished")),)
    facts = record.facts
    if "calls" not in facts:
        return ()
    told = [
        (
            "calls",
            f"{facts['calls']:,}" + (f" ({facts['unanswered']:,} without a reply)" if facts.get("unanswered") else ""),
        )
    ]
    if {"input_tokens", "output_tokens", "usd"} <= facts.keys():
        told.append(("tokens", f"{facts['input_tokens']:,} sent, {facts['output_tokens']:,} written"))
        told.append(("cost", f"{facts['usd']:,.4f} USD"))
    return tuple(told)


def _audit(audit: Audit) -> AuditView:
    total = sum(audit.drawn.values())
    per_arm = ", ".join(f"{arm} {number}" for arm, number in audit.drawn.items())
    return AuditView(
        file=one_line(audit.file), sha256=audit.sha256 or "",
        drawn=one_line(
            f"{numbers.count(total, 'completion')} drawn with seed {audit.seed}: {per_arm}"
            if audit.drawn
            else f"{numbers.count(audit.per_arm, 'completion')} of every arm are to be labelled"
        ),
        problems=tuple(one_line(problem) for problem in audit.problems), remedy=one_line(audit.remedy),
        fields=tuple(_field(field) for field in audit.fields),
    )  # fmt: skip


def _field(field: FieldAudit) -> FieldView:
    compared = numbers.count(field.n, "completion")
    if field.n_pairs != field.n:
        compared += f", {numbers.count(field.n_pairs, 'pair')}"
    compared += f"; {field.n_unlabelled} without a label" if field.n_unlabelled else ""
    compared += f"; {field.n_unscored} without a score" if field.n_unscored else ""
    undefined = "nothing varies" if field.n else "nothing to compare"
    kappa = numbers.unknown(undefined)
    if field.kappa is not None and field.kappa_low is not None and field.kappa_high is not None:
        kappa = f"{numbers.fixed(field.kappa, _digits(field))} [{numbers.fixed(field.kappa_low, 3)}, {numbers.fixed(field.kappa_high, 3)}]"
    agreement = numbers.unknown("nothing to compare")
    if field.agreement is not None and field.mean_absolute_difference is not None:
        how = f"within {field.tolerance}" if field.tolerance else "equal"
        agreement = f"{numbers.percent(field.agreement)} {how}, {field.mean_absolute_difference:.3g} apart on average"
    gap = ""
    if field.gap is not None:
        of = f", the largest of {field.gap.pairs} differences" if field.gap.pairs > 1 else ""
        ends = f"[{_signed(field.gap.ci_low)}, {_signed(field.gap.ci_high)}]"
        gap = f"{field.gap.high} above {field.gap.low} by {field.gap.difference:.3g} {ends}{of}"
    retest = ""
    if field.retest is not None:
        stable = (
            numbers.unknown("nothing varies") if field.retest.kappa is None else numbers.fixed(field.retest.kappa, 3)
        )
        retest = f"kappa {stable} over {numbers.count(field.retest.pairs, 'pair')} of votes, {numbers.percent(field.retest.agreement)} "
        retest += f"within {field.tolerance}" if field.tolerance else "equal"
    people = ""
    if field.human_pairs:
        between = (
            numbers.unknown("nothing varies") if field.human_kappa is None else numbers.fixed(field.human_kappa, 3)
        )
        people = f"{between} over {numbers.count(field.human_pairs, 'pair')}"
    return FieldView(
        field=one_line(f"{field.field} ({field.kind})"), compared=compared, kappa=kappa, people=people, agreement=agreement,
        kappa_held=_held("at least", field.kappa_required, field.kappa_reached),
        biases=tuple(
            (one_line(arm.condition), f"{arm.n:,}", numbers.unknown("no pair") if arm.bias is None else _signed(arm.bias))
            for arm in field.arms
        ),
        gap=one_line(gap), gap_held=_held("at most", field.bias_allowed, field.bias_within), retest=retest,
        categories=field.categories,
        confusion=tuple(
            (name, tuple(f"{number:,}" for number in row))
            for name, row in zip(field.categories, field.confusion, strict=True)
        ),
        furthest=tuple(
            one_line(f"{each.id} in {each.condition}: human {each.human:g}, judge {each.judge:g}") for each in field.furthest
        ),
    )  # fmt: skip


def _digits(field: FieldAudit) -> int:
    """Decimals of kappa that show on which side of the registered one it is."""
    if field.kappa is None or field.kappa_required is None:
        return 3
    return numbers.deciding_digits(field.kappa, ">=", field.kappa_required, 3)


def _held(word: str, bound: float | None, truth: bool | None) -> str:
    if bound is None:
        return ""
    return f"{word} {numbers.compact(bound)}: " + (
        "unknown" if truth is None else "reached" if truth else "not reached"
    )


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", numbers.MINUS) if value else "0"
