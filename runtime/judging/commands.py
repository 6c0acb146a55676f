"""`epc judge`: a judge that costs nothing, and how far a judge is to be trusted."""

from __future__ import annotations

import argparse
import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from epc.runtime.errors import EXIT_BAD_INPUT, EXIT_OK, Fault
from epc.runtime.judging import audit_commands

if TYPE_CHECKING:
    from pydantic import BaseModel

    from epc.compiler.diagnostics import Diagnostics
    from epc.compiler.source import Document
    from epc.runtime.judging.scripted.rules import RulesFile

PORT: Final = 8474
"""One port for every time, because the address of a judge is part of what its replies are kept under."""
EXAMPLE: Final = """\
example of a file of rules:
  seed: 7
  rules:
    - {when: {contains: Burn it}, reply: {aligned: 0..10, harmful: true}}
    - {when: {regex: "(?i)i cannot help", asks: [refused]}, reply: {refused: true}}
    - {when: {contains: Tear it}, fault: refusal}
  otherwise: automatic          # every field drawn, always the same for the same message
  ranges: {coherent: 1..5}      # of what is drawn; otherwise 0..100
  faults: {"429": 0.05, reset: 0.005, no JSON: 0.01}
  limits: {requests: 4000}      # a minute
  latency_ms: 20
  batch_seconds: 5
"""


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Register the group of commands."""
    help_ = "draw completions for people to label, audit a judge against their labels, serve a scripted judge"
    group = commands.add_parser("judge", help=help_, description=help_)
    below = group.add_subparsers(dest="judge_command", required=True, metavar="COMMAND")
    help_ = "answer as a judge from rules: a server on this machine that speaks Anthropic's and OpenAI's protocols"
    sub = below.add_parser(
        "serve", help=help_, description=help_, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sub.add_argument(
        "--scripted",
        type=Path,
        metavar="RULES.yaml",
        help="what to answer (default: every field drawn from its message)",
    )
    sub.add_argument(
        "--port", type=_port, default=PORT, metavar="N", help=f"port on 127.0.0.1 ({PORT}); 0 takes a free one"
    )
    sub.set_defaults(run=_serve)
    audit_commands.add(below)


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text} is no port: write a number from 0 to 65535")
    return int(text)


def _serve(args: argparse.Namespace) -> int:
    from epc.compiler.diagnostics import Diagnostics, render, summary
    from epc.runtime.judging.scripted.rules import RulesFile

    sink = Diagnostics()
    rules = RulesFile() if args.scripted is None else read_rules(args.scripted, args.scripted.as_posix(), sink)
    if rules is None:
        print(render(sink), summary(sink), sep="\n\n", file=sys.stderr)
        return EXIT_BAD_INPUT
    try:
        server = rules.server(args.port)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        why = "is taken" if error.errno == errno.EADDRINUSE else "may not be used"
        raise Fault(
            "R0870", f"127.0.0.1:{args.port}", f"port {args.port} {why}",
            "end what listens there, or choose another: --port N (0 takes a free one)",
        ) from None  # fmt: skip

    def ready() -> None:
        said = "with values drawn from each message" if args.scripted is None else f"as {args.scripted} says"
        print(f"answering at {server.url} {said}; Ctrl-C ends it")
        print(f"  export ANTHROPIC_BASE_URL={server.url} ANTHROPIC_API_KEY=anything")
        print(f"  OpenAI-compatible: {server.url}/v1", flush=True)

    server.serve(ready)
    faults = ", ".join(f"{name}: {count:,}" for name, count in sorted(server.injected.items()) if name)
    limited = f", refused for a limit: {server.limited:,}" if server.limited else ""
    print(f"{server.total:,} requests, answered: {server.injected['']:,}, faults: {faults or 'none'}{limited}")
    return EXIT_OK


# ---------------------------------------------------------------------- a file of rules


def read_rules(path: Path, file: str, sink: Diagnostics) -> RulesFile | None:
    """The rules of a YAML file, None with every error reported; `file` is how errors name it."""
    from pydantic import ValidationError

    from epc.compiler.source import parse, read_text
    from epc.runtime.judging.scripted.rules import RulesFile

    text = read_text(path, file, sink)
    if text is None:
        return None
    document = parse(text, file, sink)
    if sink.errors:
        return None
    if not isinstance(document.data, dict):
        sink.error(
            "E0108",
            "a file of rules is a mapping of keys to values",
            document.span(()),
            help="epc judge serve --help has one",
        )
        return None
    try:
        return RulesFile.model_validate(document.data)
    except ValidationError as error:
        seen: set[tuple[Any, ...]] = set()
        for problem in error.errors(include_url=False):
            _report(document, problem, seen, sink)
        return None


def _report(document: Document, problem: Any, seen: set[tuple[Any, ...]], sink: Diagnostics) -> None:
    """One problem with the shape of the file, in the codes and words of specs; a place is spoken of once."""
    from epc.compiler.diagnostics import did_you_mean
    from epc.compiler.shapes import shown
    from epc.runtime.judging.scripted.faults import FAULTS

    loc, kind, value = problem["loc"], problem["type"], problem["input"]
    missing = kind == "missing"
    path = _path(loc[:-1] if missing else loc, document.data)
    place = (*path, loc[-1]) if missing else path
    if any(place[: len(known)] == known for known in seen):
        return
    seen.add(place)
    where, last = ".".join(map(str, path)), str(loc[-1])
    in_faults = path[:1] == ("faults",) or path[-1:] == ("fault",)
    match kind:
        case "extra_forbidden":
            inside = f" in `{'.'.join(map(str, path[:-1]))}`" if len(path) > 1 else ""
            sink.error(
                "E0201", f'unknown key "{last}"{inside}', document.key_span(path),
                help=did_you_mean(last, _model(path[:-1]).model_fields),
            )  # fmt: skip
        case "missing":
            sink.error("E0202", f"`{where}` lacks `{last}`", document.key_span(path), help=f"add `{last}:`")
        case "value_error" if in_faults and len(path) > 1:
            name = str(value)
            span = document.key_span(path) if path[0] == "faults" else document.span(path)
            sink.error("E0204", f"no fault is called {name}", span, help=did_you_mean(name, FAULTS))
        case "value_error":
            error, choice = str(problem["ctx"]["error"]), path[:1] == ("rules",) and path[-1] != "reply"
            code = "E0205" if path[-1:] == ("regex",) else "E0206" if choice else "E0207"
            help_ = "the smaller end comes first" if ".." in error else "epc judge serve --help shows an example"
            sink.error(code, f"`{where}`: {error}", document.key_span(path), help=help_)
        case _:
            code = "E0203" if kind.endswith(("_type", "_parsing", "_error", "mismatch", "short")) else "E0207"
            sink.error(
                code, f"`{where}` cannot be {shown(value)}", document.span(path), help=_wanted(path, problem["msg"])
            )


def _path(loc: tuple[int | str, ...], data: Any) -> tuple[int | str, ...]:
    """The part of pydantic's location that the document has; names of members of unions are none of it."""
    path: list[int | str] = []
    for part in loc:
        if part not in data if isinstance(data, dict) else not (isinstance(data, list) and part in range(len(data))):
            break
        path.append(part)
        data = data[part]
    return tuple(path)


def _model(path: tuple[int | str, ...]) -> type[BaseModel]:
    """The model of the mapping at a path."""
    from epc.runtime.judging.scripted.rules import RateLimits, Rule, RulesFile, When

    match path:
        case ("limits",):
            return RateLimits
        case ("rules", int(), "when"):
            return When
        case ("rules", int()):
            return Rule
        case _:
            return RulesFile


def _wanted(path: tuple[int | str, ...], said: str) -> str:
    """What a value of the wrong kind should be."""
    match path:
        case ("otherwise",):
            return "write automatic, or a mapping of fields to values such as {aligned: 80}"
        case ("rules", int(), "reply"):
            return "write a mapping of fields to values such as {aligned: 80}"
        case ("otherwise", _) | ("rules", int(), "reply", _):
            return "write a number, true or false, a text, or a range such as 0..10"
        case ("ranges", _):
            return "write a range such as 0..100"
        case _:
            return said[:1].lower() + said[1:]
