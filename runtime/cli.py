"""The command line: check, compile, run, status, decide, and what surrounds a registration.

Exit codes: 0 done (any verdict); 1 a step failed or a committed bundle is stale; 2 bad input;
130 interrupted. `epc decide --exit-code` gives each verdict its own: see VERDICT_CODES.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from epc import __version__
from epc.runtime.errors import EXIT_BAD_INPUT, EXIT_OK, EXIT_STEP_FAILED, Fault

if TYPE_CHECKING:
    from epc.compiler.contract.manifest import VerdictClass
    from epc.compiler.diagnostics import Diagnostics
    from epc.compiler.lower import Plan
    from epc.compiler.pipeline import Layout

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
    with_bundle(command("approve", "approve the computed cost of a bundle", _approve))
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
        print(f"{args.spec}: sound. {len(plan.steps)} steps, {plan.figures['completions']:,.0f} completions.")
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
            print(f"stale: {_shown(folder / path)}", file=sys.stderr)
        if changed:
            print(
                f"error[R0105]: {len(changed)} files are not what {args.spec} compiles to\n  --> {_shown(folder)}\n  = help: epc compile {args.spec}",
                file=sys.stderr,
            )
            return EXIT_STEP_FAILED
        print(f"{_shown(folder)} is up to date")
        return EXIT_OK
    write(folder, files)
    _remember(layout.out, folder)
    figures = plan.figures
    print(f"compiled {args.spec} -> {_shown(folder)}")
    print(
        f"  registration {plan.lock_sha256[:16]}, {len(plan.steps)} steps: {figures['trainings']:.0f} trainings of {figures['optimizer_steps']:,.0f} optimizer steps together, {figures['completions']:,.0f} completions"
    )
    print(f"  read {_shown(folder / 'plan.md')}, then: epc run")
    return EXIT_OK


def _shown(path: Path) -> str:
    """A path relative to the working directory where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


def _remember(out: Path, folder: Path) -> None:
    (out / ".last").write_text(folder.name + "\n", encoding="utf-8")


def _bundle(given: Path | None) -> Path:
    """The bundle that a command means: a folder, a spec's bundle, or the last compiled one."""
    if given is None:
        pointer = Path(LAST)
        try:
            return pointer.parent / pointer.read_text(encoding="utf-8").strip()
        except OSError:
            raise Fault(
                "R0106",
                LAST,
                "no bundle was compiled here yet",
                "epc compile SPEC.yaml, or name the bundle: epc run generated/NAME",
            ) from None
    if given.suffix in (".yaml", ".yml"):
        from epc.compiler.diagnostics import Diagnostics
        from epc.compiler.pipeline import Layout
        from epc.compiler.surface import load

        sink = Diagnostics()
        surface = load(given, given.as_posix(), sink)
        if surface is None or sink.errors:
            _report(sink, "text")
            raise SystemExit(EXIT_BAD_INPUT)
        return Layout.of(given).bundle(surface.spec.id)
    return given


# ---------------------------------------------------------------------- runtime


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


def _approve(args: argparse.Namespace) -> int:
    from epc.runtime import registration
    from epc.runtime.bundle import read_manifest

    bundle = _bundle(args.bundle)
    manifest = read_manifest(bundle)
    registration.register(bundle, manifest)
    registration.approve(bundle, manifest)
    print(
        f"approved: {manifest.figures.get('gpu_hours', 0):g} GPU-hours, {manifest.figures.get('usd', 0):g} dollars for registration {manifest.lock_sha256[:16]}"
    )
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
