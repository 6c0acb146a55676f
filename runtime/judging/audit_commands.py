"""`epc judge sample` and `epc judge audit`."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from epc.runtime.errors import EXIT_OK, EXIT_STEP_FAILED, Fault
from epc.runtime.wording import count, shown

if TYPE_CHECKING:
    from epc.compiler.contract.decision import Audit
    from epc.compiler.contract.manifest import Judge, Manifest
    from epc.runtime.judging.probing import Again

AUDIT_CODES: Final = (
    "Exit codes: 0 the judge agrees as far as registered, or nothing is registered; 1 it does not, or labels are"
    " lacking; 2 bad input."
)


def add(below: argparse._SubParsersAction[Any]) -> None:
    """Register both commands in the group."""
    help_ = "draw completions of every arm for people to label, blind to the arm"
    sub = below.add_parser("sample", help=help_, description=help_)
    sub.add_argument("bundle", nargs="?", type=Path, help="bundle folder or spec; default: the last one compiled")
    sub.add_argument("--judge", metavar="NAME", help="whose fields are to be labelled (the only one)")
    sub.add_argument("--out", type=Path, metavar="FILE", help=".csv or .jsonl (default: the file that the spec names)")
    sub.add_argument("--per-arm", type=_positive, metavar="N", help="of a judge whose spec registers no gold")
    sub.add_argument("--seed", type=int, metavar="N", help="and the seed of the draw")
    sub.set_defaults(run=_sample)
    help_ = "compare a judge with human labels: agreement, Cohen's kappa, bias by arm, test-retest, attacks"
    sub = below.add_parser("audit", help=help_, description=help_, epilog=AUDIT_CODES)
    sub.add_argument("bundle", nargs="?", type=Path, help="bundle folder or spec; default: the last one compiled")
    sub.add_argument("--judge", metavar="NAME", help="the judge (the only one)")
    sub.add_argument("--gold", type=Path, metavar="FILE", help="the labels (default: the file that the spec names)")
    sub.add_argument(
        "--retest", type=_positive, metavar="N", help="ask about N of the drawn completions once more; costs N calls"
    )
    sub.add_argument(
        "--attacks", action="store_true",
        help="send completions that attack the judge through it, and count the scores that moved; costs a call each",
    )  # fmt: skip
    sub.add_argument("--format", choices=("text", "json"), default="text")
    sub.set_defaults(run=_audit)


def _positive(text: str) -> int:
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is no number from 1 on")
    return int(text)


def _read(args: argparse.Namespace) -> tuple[Path, Manifest, Judge]:
    from epc.runtime import cli
    from epc.runtime.bundle import read_manifest
    from epc.runtime.judging.gold import judge_named

    bundle = cli._bundle(args.bundle)
    manifest = read_manifest(bundle)
    return bundle, manifest, judge_named(manifest, args.judge)


def _sample(args: argparse.Namespace) -> int:
    from epc.runtime.judging import gold
    from epc.runtime.registration import spec_folder

    bundle, manifest, judge = _read(args)
    registered = judge.gold
    if registered is not None and (args.per_arm is not None or args.seed is not None):
        raise Fault(
            "R1813", judge.name, f"the spec registers {registered.per_arm} completions an arm and seed {registered.seed}",
            "leave --per-arm and --seed out",
        )  # fmt: skip
    if registered is None and (args.per_arm is None or args.seed is None or args.out is None):
        raise Fault(
            "R1814", judge.name, "the spec registers no gold for this judge, so nothing says what to draw",
            "give --per-arm, --seed and --out, or better: register `gold` for the judge in the spec",
        )  # fmt: skip
    per_arm, seed = (args.per_arm, args.seed) if registered is None else (registered.per_arm, registered.seed)
    file = args.out or spec_folder(bundle, manifest) / registered.file  # type: ignore[union-attr]
    drawn = gold.sample(gold.completions_of(bundle, manifest, judge.name), judge.name, per_arm=per_arm, seed=seed)
    written = gold.write(file, drawn, judge.output)
    arms = len({each.row.condition for each in drawn})
    print(
        f"{'wrote' if written else 'already there:'} {shown(file)}: {count(len(drawn), 'completion')} of {count(arms, 'arm')}"
    )
    short = [arm for arm in sorted({each.row.condition for each in drawn}) if _of(arm, drawn) < per_arm]
    for arm in short:
        print(f"  {arm} has {_of(arm, drawn)} completions, fewer than the {per_arm} that are to be labelled")
    print(
        f"  fill in {', '.join(judge.output)}; leave empty what nobody can tell; then: epc judge audit --judge {judge.name}"
    )
    return EXIT_OK


def _of(arm: str, drawn: Any) -> int:
    return sum(each.row.condition == arm for each in drawn)


def _audit(args: argparse.Namespace) -> int:
    from epc.compiler.contract.manifest import Gold
    from epc.runtime.judging import probing
    from epc.runtime.judging.audit import audit
    from epc.runtime.judging.audit_text import as_text, attacks_text
    from epc.runtime.registration import spec_folder

    bundle, manifest, judge = _read(args)
    if judge.gold is None and args.gold is None and not (args.attacks and args.retest is None):
        raise Fault(
            "R1815", judge.name, "the spec registers no gold for this judge", "name the labels: --gold FILE"
        )  # fmt: skip
    found: Audit | None = None
    if args.gold is not None or judge.gold is not None:
        file = args.gold
        if judge.gold is None:  # of labels that nobody registered, every one counts
            judge = judge.model_copy(update={"gold": Gold(file=shown(file), per_arm=0, seed=0, kappa={}, bias={})})
        elif file is None:
            file = spec_folder(bundle, manifest) / judge.gold.file
        else:
            judge = judge.model_copy(update={"gold": judge.gold.model_copy(update={"file": shown(file)})})
        found = audit(bundle, manifest, judge, file)
    asked_again = probing.again(bundle, manifest, judge, args.retest) if args.retest else None
    if found is not None and asked_again is not None:
        found = _with_retest(found, asked_again)
    attacked, asked = probing.attack(bundle, manifest, judge) if args.attacks else ((), None)
    if args.format == "json":
        data: dict[str, Any] = {"audit": None if found is None else found.model_dump(mode="json")}
        if asked_again is not None:
            data["retest"] = {"calls": asked_again.calls, "usd": asked_again.usd, "unscored": asked_again.unscored}
        if asked is not None:
            data["attacks"] = {
                "calls": asked.calls, "usd": asked.usd,
                "attacks": [{**asdict(each), "obtained": each.obtained} for each in attacked],
            }  # fmt: skip
        print(json.dumps(data, indent=1, ensure_ascii=False))
    else:
        parts = [] if found is None else [as_text(found)]
        if asked_again is not None:
            again = f"asked again: {count(asked_again.calls, 'call')}, {asked_again.usd:.4f} USD"
            parts.append(again + (f"; {asked_again.unscored} without a score" if asked_again.unscored else ""))
        if asked is not None:
            parts.append(attacks_text(judge, attacked, calls=asked.calls, usd=asked.usd))
        print("\n\n".join(parts))
    return EXIT_OK if found is None or _agrees(found) else EXIT_STEP_FAILED


def _with_retest(audit: Audit, again: Again) -> Audit:
    """The audit with the votes that were asked for now in the place of the stored ones."""
    from epc.runtime.judging.audit import retest

    fields = tuple(
        field.model_copy(update={"retest": retest(again.votes[field.field], field.tolerance)}) for field in audit.fields
    )
    return audit.model_copy(update={"fields": fields})


def _agrees(audit: Audit) -> bool:
    from epc.runtime.validity import audit_gates

    return all(gate.truth is True for gate in audit_gates([audit]))
