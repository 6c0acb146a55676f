"""The command line: check, compile, freeze, approve, run, status, decide, amend, schema.

Exit codes: 0 done (any verdict); 1 a step failed or a committed bundle is stale; 2 bad input, or
something is to be frozen or approved first; 130 interrupted. `epc decide --exit-code` gives each
verdict its own: see VERDICT_CODES.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from epc import __version__
from epc.runtime.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_STEP_FAILED, Fault
from epc.runtime.wording import shown

if TYPE_CHECKING:
    from epc.compiler.contract.manifest import Manifest, VerdictClass
    from epc.compiler.diagnostics import Diagnostics
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

    sub = command("check", "prove a spec sound; write nothing", _check)
    sub.add_argument("spec", type=Path)
    sub.add_argument("--format", choices=("text", "json", "github"), default="text")
    sub = command("compile", "prove a spec sound and write its bundle: plan, lock, scripts", _compile)
    sub.add_argument("spec", type=Path)
    sub.add_argument("--out", type=Path, help="folder of bundles (default: generated/ beside specs/)")
    sub.add_argument("--check", action="store_true", help="write nothing; exit 1 when the bundle on disk is stale")
    sub = command("run", "execute what is missing of a bundle", _run)
    with_bundle(sub)
    sub.add_argument("--plan", action="store_true", help="show what would run and why; run nothing")
    sub.add_argument("--cores", type=int, help="processor cores to use (default: all)")
    sub.add_argument("--until", metavar="STEP", help="run up to this step")
    with_bundle(command("status", "registration, steps and verdict of a bundle", _status))
    sub = command("decide", "apply the registered gates to the results and write the report", _decide)
    with_bundle(sub)
    sub.add_argument(
        "--exit-code", action="store_true", help="SUCCESS 0, INCONCLUSIVE 20, KILL 21, OVERRIDE 22, INVALID 23"
    )
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
    sub = command("schema", "print a JSON Schema: of the language, or of a file that epc writes", _schema)
    sub.add_argument(
        "name",
        nargs="?",
        default="spec",
        choices=("spec", "manifest", "decision", "sample", "judgement", "measurement"),
    )
    return parser


# ---------------------------------------------------------------------- compiler


def _plan(spec: Path, out: Path | None, sink: Diagnostics) -> tuple[Plan | None, Layout]:
    from epc.compiler import pipeline

    layout = pipeline.Layout.of(spec, out)
    experiment = pipeline.check(spec, spec.as_posix(), sink)
    return (None if experiment is None else pipeline.plan(experiment, layout, sink)), layout


def _report(sink: Diagnostics, style: str) -> None:
    from epc.compiler.diagnostics import render, summary

    if style == "json":
        print(render(sink, "json"))
        return
    text = render(sink, "github" if style == "github" else "text")
    if text:
        print(text, file=sys.stderr, end="\n\n")
    if sink.errors or sink.warnings:
        print(summary(sink), file=sys.stderr)


def _check(args: argparse.Namespace) -> int:
    from epc.compiler.diagnostics import Diagnostics

    sink = Diagnostics()
    plan, _ = _plan(args.spec, None, sink)
    _report(sink, args.format)
    if plan is None:
        return EXIT_BAD_INPUT
    if args.format == "text":
        print(f"{args.spec}: sound. {len(plan.steps)} steps, {plan.figures.values['completions']:,.0f} completions.")
    return EXIT_OK


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
    figures = plan.figures.values
    print(f"compiled {args.spec} -> {shown(folder)}")
    work = [f"{figures['completions']:,.0f} completions"]
    if figures["trainings"]:
        trainings, steps = figures["trainings"], figures["optimizer_steps"]
        work.insert(0, f"{trainings:.0f} trainings of {steps:,.0f} optimizer steps together")
    print(f"  registration {plan.lock_sha256[:16]}, {len(plan.steps)} steps: {', '.join(work)}")
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
    print(f"  read {shown(folder / 'plan.md')}, then: {'; '.join([*then, f'epc run{bundle}'])}")


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


def _freeze(args: argparse.Namespace) -> int:
    from epc.compiler import pipeline
    from epc.runtime import engine, freeze, registration
    from epc.runtime.bundle import read_manifest

    folder = _bundle(args.bundle, args.out)
    manifest = read_manifest(folder)
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

    from epc.runtime import engine

    return engine.run(_bundle(args.bundle), cores=args.cores, plan_only=args.plan, until=args.until, console=Console())


def _status(args: argparse.Namespace) -> int:
    from rich.console import Console

    from epc.runtime.status import status

    Console().print(status(_bundle(args.bundle)), soft_wrap=True)
    return EXIT_OK


def _decide(args: argparse.Namespace) -> int:
    from rich.console import Console

    from epc.runtime import journal, registration, report
    from epc.runtime.decide import decide, write_decision
    from epc.runtime.summary import print_summary

    bundle = _bundle(args.bundle)
    decision = decide(bundle, deviations=registration.deviations(bundle))
    decision_file = write_decision(bundle, decision)
    written = report.write(bundle, decision)
    journal.append(
        bundle,
        "decided",
        verdict=decision.verdict.label,
        lock_sha256=decision.lock_sha256,
        rows_sha256=decision.rows_sha256,
    )
    print_summary(Console(), decision, {"decision": decision_file, **written})
    return VERDICT_CODES[decision.verdict.verdict_class] if args.exit_code else EXIT_OK


def _amount(text: str) -> float:
    """A number of dollars for argparse, which says what it cannot read."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


def _approve(args: argparse.Namespace) -> int:
    from epc.runtime import registration
    from epc.runtime.bundle import read_manifest

    bundle = _bundle(args.bundle)
    manifest = read_manifest(bundle)
    registration.register(bundle, manifest)
    print(f"{manifest.id}: {manifest.title}", *registration.cost_lines(manifest), sep="\n  ")
    entry = registration.approve(bundle, manifest, {} if args.usd is None else {"usd": args.usd})
    amount = f"{entry.data['gpu_hours']:g} GPU-hours, {entry.data['usd']:g} dollars"
    print(f"approved: {amount} for registration {manifest.lock_sha256[:16]}")
    return EXIT_OK


def _amend(args: argparse.Namespace) -> int:
    from epc.runtime import registration
    from epc.runtime.bundle import read_manifest

    bundle = _bundle(args.bundle)
    changes = registration.amend(bundle, read_manifest(bundle), args.reason)
    print("amended:", *changes, sep="\n  ")
    return EXIT_OK


def _schema(args: argparse.Namespace) -> int:
    import json

    from pydantic import BaseModel

    from epc.compiler.contract import decision, manifest, rows
    from epc.compiler.spec import Spec

    models: dict[str, type[BaseModel]] = {
        "spec": Spec, "manifest": manifest.Manifest, "decision": decision.Decision, "sample": rows.SampleRow,
        "judgement": rows.JudgementRow, "measurement": rows.MeasurementRow,
    }  # fmt: skip
    print(json.dumps(models[args.name].model_json_schema(by_alias=True), indent=1))
    return EXIT_OK


def main(argv: list[str] | None = None) -> int:
    """Entry point of the `epc` command."""
    args = _parser().parse_args(argv)
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
