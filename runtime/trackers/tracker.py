"""What a tracker can do, and how its failures are told."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

from epc.compiler.contract.manifest import Manifest
from epc.runtime import registration
from epc.runtime.errors import Fault
from epc.runtime.trackers.jobs import Job, Point
from epc.runtime.wording import shown

FOLDER = "trackers"
"""Of a bundle: what trackers write on this machine."""
State = Literal["finished", "failed", "killed"]


class Run(Protocol):
    """A run that is being told of."""

    def log(self, points: Sequence[Point]) -> None: ...
    def end(self, job: Job, state: State) -> None:
        """Tell the rest of the job, less its curve, and end the run."""


class Tracker(Protocol):
    """A place where runs are shown. Every call may raise any exception of its client library."""

    name: str
    place: str
    """Where the runs lie and how to look at them, for a person."""

    def begin(self, registered: Job, job: Job) -> Run:
        """A new run of the registration; earlier ones of the same step that did not end are closed as killed."""

    def publish(self, registered: Job, job: Job) -> None:
        """Tell all of a finished step, unless that has been told."""

    def close(self, registered: Job, state: State | None) -> None:
        """Tell the registration's own state, None to leave it, and its decision where it has one that has not been told."""

    def release(self) -> None:
        """End what the client library keeps running."""


def trackers(bundle: Path, manifest: Manifest) -> list[Tracker]:
    """The trackers of a bundle. Raises Fault R1942."""
    from epc.runtime.trackers.mlflow_store import MlflowTracker
    from epc.runtime.trackers.wandb_runs import WandbTracker

    asked = manifest.report_to
    if asked is None:
        return []
    folder = (bundle / FOLDER).resolve()
    found: list[Tracker] = []
    if asked.mlflow is not None:
        found.append(MlflowTracker(asked.mlflow, folder, spec_folder=registration.spec_folder(bundle, manifest)))
    if asked.wandb is not None:
        found.append(WandbTracker(asked.wandb, folder))
    return found


def own_folder(folder: Path) -> None:
    """Make the folder of trackers, kept out of version control in whosever project it is."""
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")


@contextmanager
def tolerated(name: str, bundle: Path, failed: list[str]) -> Iterator[None]:
    """Turn whatever is raised while a tracker is told into one line, and into an entry of `failed`.

    Clients raise exceptions of their own, of their transport, of their database and of the file system; none of them is
    a reason to lose an experiment.
    """
    try:
        yield
    except Exception as error:
        failed.append(name)
        warn(name, reason(error), bundle)


def warn(name: str, fact: str, bundle: Path) -> None:
    """One line on stderr."""
    remedy = f"nothing is lost: once that is mended, epc report-to {shown(bundle)}"
    print(f"warning[R1945]: {name} could not be told: {fact}; {remedy}", file=sys.stderr, flush=True)


def reason(error: Exception) -> str:
    """The first line of an exception, without credentials of an address."""
    text = error.fact if isinstance(error, Fault) else f"{type(error).__name__}: {error}".split("\n", 1)[0]
    return without_secret(text)[:300]


def without_secret(text: str) -> str:
    return re.sub(r"//[^/@\s]+@", "//***@", text)
