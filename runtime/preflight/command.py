"""`epc preflight`: the checks of the next run by themselves. Nothing is trained, nothing is registered, no model is fetched."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from epc.runtime.errors import EXIT_BAD_INPUT, EXIT_OK

if TYPE_CHECKING:
    from epc.compiler.contract.manifest import Manifest
    from epc.runtime.preflight.preflight import Allowed

CODES: Final = "Exit codes, in both formats: 0 nothing keeps the steps from running; 2 something does, and is named."


def add_despite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--despite", action="append", default=[], metavar="CHECK",
        help="go on although this check of the preflight fails, such as versions; may be repeated; the journal records it",
    )  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--until", metavar="STEP", help="of a run up to this step")
    add_despite(parser)
    parser.add_argument("--format", choices=("text", "json"), default="text")
    parser.epilog = CODES


def run(bundle: Path, args: argparse.Namespace) -> int:
    """Look at a bundle, print the table, and raise FailedError with every failure; the exit code."""
    from rich.console import Console

    from epc.runtime import engine, rehearsal
    from epc.runtime.bundle import read_manifest
    from epc.runtime.preflight import preflight
    from epc.runtime.preflight.outcome import FailedError, outcome, print_table, record
    from epc.runtime.progress import say

    manifest = read_manifest(bundle)
    rehearsal.refuse(
        bundle, manifest, "its own run looks at what it needs, with the scripted judges that only it starts"
    )
    as_json = args.format == "json"
    console = Console(stderr=as_json)
    with engine.only_run(bundle):
        planned = engine.plan(bundle, args.until)
        missing = [entry.step for entry in planned if entry.state != "done" and not entry.frozen_first]
        registered = _registered(bundle, manifest)
        rows = preflight.check(
            bundle, manifest, missing, despite=args.despite, allowed=_allowed(bundle, manifest, registered),
            console=console, environment={},
        )  # fmt: skip
        if rows and registered:
            preflight.write(bundle, rows, args.despite)
    if as_json:
        print(json.dumps(record(rows), indent=1, ensure_ascii=False))
        return EXIT_OK if outcome(rows) == "passed" else EXIT_BAD_INPUT
    if not rows:
        waiting = [entry for entry in planned if entry.frozen_first]
        why = (
            f"{len(waiting)} steps wait for epc freeze"
            if waiting and not missing
            else "no step that is expensive would run"
        )
        say(console, f"nothing to look at: {why}")
        return EXIT_OK
    print_table(console, rows)
    if faults := [fault for row in rows for fault in row.faults]:
        raise FailedError(faults)
    return EXIT_OK


def _registered(bundle: Path, manifest: Manifest) -> bool:
    from epc.runtime import journal, registration

    return any(registration.lock_of(entry) == manifest.lock_sha256 for entry in journal.read(bundle))


def _allowed(bundle: Path, manifest: Manifest, registered: bool) -> Allowed:
    """Judges are asked where money is approved, which is of a registration; the model step is left to the run."""
    from epc.runtime import registration
    from epc.runtime.preflight.preflight import Allowed

    return Allowed(fetch=False, ask=registered and registration.needs_approval(manifest, bundle) is None)
