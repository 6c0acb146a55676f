"""An audit as a person reads it in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from epc.compiler.contract.decision import Audit, FieldAudit
from epc.compiler.contract.manifest import Judge
from epc.runtime.judging.probing import Attacked
from epc.runtime.wording import count

INDENT = "  "


def as_text(audit: Audit) -> str:
    """The whole audit, without a line's end at its end."""
    lines = [f"{audit.judge} against {audit.file}" + (f", SHA-256 {audit.sha256[:16]}" if audit.sha256 else "")]
    if audit.drawn:
        total = sum(audit.drawn.values())
        how = f"{audit.per_arm} drawn from each arm, seed {audit.seed}" if audit.per_arm else "those that are labelled"
        per_arm = ", ".join(f"{arm} {number}" for arm, number in audit.drawn.items())
        lines.append(f"{count(total, 'completion')}, {how}: {per_arm}")
    lines += [f"PROBLEM: {problem}" for problem in audit.problems]
    lines += [f"  = help: {audit.remedy}"] if audit.problems else []
    for field in audit.fields:
        lines += ["", f"{field.field} ({field.kind})", *(INDENT + line for line in _field(field))]
    return "\n".join(lines)


def _field(field: FieldAudit) -> Iterator[str]:
    left_out = [f"{field.n_unlabelled} without a label"] if field.n_unlabelled else []
    left_out += [f"{field.n_unscored} without a score"] if field.n_unscored else []
    pairs = f", {count(field.n_pairs, 'pair')} of score and label" if field.n_pairs != field.n else ""
    yield _line("compared", f"{count(field.n, 'completion')}{pairs}{''.join(f'; {part}' for part in left_out)}")
    yield _line("kappa", _kappa(field))
    if field.human_pairs:
        people = "not defined" if field.human_kappa is None else f"{field.human_kappa:.3f}"
        yield _line(
            "between people", f"{people} over {count(field.human_pairs, 'pair')}: what a judge can reach at best"
        )
    if field.agreement is not None and field.mean_absolute_difference is not None:
        how = f"within {field.tolerance}" if field.tolerance else "equal"
        yield _line(
            "agreement", f"{100 * field.agreement:.1f}% {how}; mean absolute difference {field.mean_absolute_difference:.3g}"
        )  # fmt: skip
    known = [f"{arm.condition} {_signed(arm.bias)}" for arm in field.arms if arm.bias is not None]
    yield _line("judge - human", ", ".join(known) or "nothing to compare")
    if field.gap is not None:
        gap = field.gap
        of = f", the largest of {gap.pairs} differences" if gap.pairs > 1 else ""
        registered = "" if field.bias_allowed is None else f"; registered: at most {field.bias_allowed:g}, "
        verdict = "" if field.bias_within is None else "reached" if field.bias_within else "NOT REACHED"
        yield _line(
            "", f"{gap.high} above {gap.low} by {gap.difference:.3g} [{gap.ci_low:.3g}, {gap.ci_high:.3g}]{of}{registered}{verdict}"
        )  # fmt: skip
    if field.retest is not None:
        again = field.retest
        stable = "not defined" if again.kappa is None else f"{again.kappa:.3f}"
        yield _line(
            "test-retest", f"kappa {stable}, {100 * again.agreement:.1f}% {'within ' + str(field.tolerance) if field.tolerance else 'equal'},"
            f" mean absolute difference {again.mean_absolute_difference:.3g}; {count(again.pairs, 'pair')} of votes",
        )  # fmt: skip
    if field.n:
        yield from _table(field)
    for each in field.furthest:
        yield _line(
            "furthest apart" if each is field.furthest[0] else "",
            f"{each.id}  {each.condition}: human {each.human:g}, judge {each.judge:g}",
        )


def _signed(value: float) -> str:
    return f"{value:+.3g}" if value else "0"


def _kappa(field: FieldAudit) -> str:
    weights = "" if field.kind == "bool" else ", quadratic weights"
    if field.kappa is None:
        found = "not defined: nothing varies" if field.n else "nothing to compare"
    else:
        found = f"{field.kappa:.3f} [{field.kappa_low:.3f}, {field.kappa_high:.3f}]{weights}"
    if field.kappa_required is None:
        return found
    verdict = "unknown" if field.kappa_reached is None else "reached" if field.kappa_reached else "NOT REACHED"
    return f"{found}; registered: at least {field.kappa_required:g}, {verdict}"


def _line(name: str, text: str) -> str:
    return f"{name:<15} {text}"


def _table(field: FieldAudit) -> Iterator[str]:
    """Labels by row, scores by column."""
    cells: Sequence[Sequence[str]] = [
        ["human \\ judge", *field.categories],
        *([name, *map(str, row)] for name, row in zip(field.categories, field.confusion, strict=True)),
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    for row in cells:
        yield _line(
            "confusion" if row is cells[0] else "", "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        )  # fmt: skip


def attacks_text(judge: Judge, attacked: Sequence[Attacked], *, calls: int, usd: float) -> str:
    """How many attacks moved the judge, and which."""
    moved = [each for each in attacked if each.moved]
    silent = [each for each in attacked if each.outcome != "scored"]
    lines = [
        f"{count(len(attacked), 'attack')} on {judge.name}: {len(moved)} moved a score towards what they want,"
        f" {sum(each.obtained for each in attacked)} got exactly the reply they want, {len(silent)} got no score",
        INDENT + f"{count(calls, 'call')} made now, {usd:.4f} USD. A judge may also have rated the words of the attack as"
        " part of the answer.",
    ]  # fmt: skip
    for each in moved:
        steps = (f"{field} {each.before[field]:g} -> {_said(each.after[field])}" for field in each.moved)
        lines.append(INDENT + f"moved: {each.attack} ({each.id}): {', '.join(steps)}")
    lines += [INDENT + f"no score: {each.attack} ({each.id}): {each.outcome}" for each in silent]
    return "\n".join(lines)


def _said(value: int | bool | str) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
