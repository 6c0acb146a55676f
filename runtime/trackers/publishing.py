"""Telling trackers what a bundle holds: at the end of a run, with a decision, and whenever it is asked for."""

from __future__ import annotations

import fcntl
import importlib.util
import netrc
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from epc.compiler.contract.manifest import Manifest
from epc.runtime import bundle as bundles
from epc.runtime.errors import EXIT_INTERRUPTED, EXIT_OK, Fault
from epc.runtime.progress import say
from epc.runtime.step import read_record
from epc.runtime.trackers.jobs import finished_jobs, registration_job
from epc.runtime.trackers.live import LATER
from epc.runtime.trackers.tracker import FOLDER, State, own_folder, tolerated, trackers

if TYPE_CHECKING:
    from rich.console import Console

INSTALL: Final = 'pip install "epc-prereg[trackers]"'
WANDB_HOST: Final = "api.wandb.ai"
LATER_REMEDY: Final = "or run with --report-later, and epc report-to where it is there"


def require(bundle: Path, manifest: Manifest) -> None:
    """Refuse to begin an experiment whose trackers cannot be told of it here.

    Raises Fault R1940 (a package is not installed), R1941 (no key for W&B), R1942 (no address for MLflow).
    """
    for fault in problems(bundle, manifest):
        raise fault


def problems(bundle: Path, manifest: Manifest) -> Iterator[Fault]:
    """Everything that keeps the trackers of a bundle from being told, without asking any of them."""
    asked = manifest.report_to
    if asked is None:
        return
    needs: dict[str, tuple[str, ...]] = {}
    if asked.mlflow is not None:
        local = asked.mlflow.uri == "local" or asked.mlflow.uri.startswith("sqlite:")
        needs["mlflow"] = ("mlflow", "sqlalchemy", "alembic") if local else ("mlflow",)
    if asked.wandb is not None:
        needs["wandb"] = ("wandb",)
    for name, packages in needs.items():
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            verb = "are" if len(missing) > 1 else "is"
            yield Fault(
                "R1940", sys.executable, f"the spec reports to {name}, and {' and '.join(missing)} {verb} not installed here",
                f"{INSTALL}, {LATER_REMEDY}",
            )  # fmt: skip
    if asked.wandb is not None and asked.wandb.mode == "online" and not _has_key():
        yield Fault(
            "R1941", "WANDB_API_KEY", "the spec reports to wandb online, and there is no key for it here",
            f"set WANDB_API_KEY, or wandb login; or write mode: offline; {LATER_REMEDY}",
        )  # fmt: skip
    try:
        trackers(bundle, manifest)
    except Fault as fault:
        yield fault


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "")).hostname or WANDB_HOST
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def reported(bundle: Path, console: Console, run: Callable[[], int], *, later: bool = False) -> int:
    """The exit code of `run`, which executes the bundle; afterwards the trackers are told what there is by then.

    With `later` no tracker is told of anything. Raises the Faults of `require`.
    """
    manifest = bundles.read_manifest(bundle)
    if manifest.report_to is None:
        return run()
    if later:
        os.environ[LATER] = "1"  # for the steps
        try:
            return run()
        finally:
            del os.environ[LATER]
    require(bundle, manifest)
    for tracker in trackers(bundle, manifest):
        say(console, f"curves go to {tracker.name}: {tracker.place}")
    code = run()
    states: dict[int, State] = {EXIT_OK: "finished", EXIT_INTERRUPTED: "killed"}
    publish(bundle, state=states.get(code, "failed"))
    return code


def publish(
    bundle: Path, *, decided: bool = False, state: State | None = None, console: Console | None = None
) -> list[str]:
    """Tell every tracker of the bundle what it has not been told; the names of those that could not be told.

    With `decided` the decision on disk is told too. Without `state` the registration's run ends when its last step
    has finished. A console hears where the runs lie. Never raises for a tracker: each failure is one line on stderr.
    """
    manifest = bundles.read_manifest(bundle)
    failed: list[str] = []
    if manifest.report_to is None:
        return failed
    with tolerated("report_to", bundle, failed):
        asked = trackers(bundle, manifest)
        own_folder(bundle / FOLDER)
        registered = registration_job(bundle, manifest, decided=decided)
        jobs = list(finished_jobs(bundle, manifest))
        if state is None and all(read_record(bundle, step) is not None for step in manifest.steps):
            state = "finished"
        with (bundle / FOLDER / ".publishing").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)  # two that publish at once would tell everything twice
            for tracker in asked:
                with tolerated(tracker.name, bundle, failed):
                    for job in jobs:
                        tracker.publish(registered, job)
                    tracker.close(registered, state)
                    if console is not None:
                        say(console, f"{tracker.name}: {tracker.place}")
                with tolerated(tracker.name, bundle, failed):
                    tracker.release()
    return failed
