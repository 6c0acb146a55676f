"""MLflow: a database in the bundle by default, any tracking URI on demand.

A local store is SQLite, which is MLflow's own default since 3.7; its old file store (`mlruns/`) is in maintenance mode
and an error to open since 3.13. Files lie in a folder beside the database.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from epc.compiler.contract import manifest as contract
from epc.runtime.errors import Fault
from epc.runtime.trackers.jobs import Job, Point, flat
from epc.runtime.trackers.tracker import State, own_folder, without_secret

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient

VARIABLE: Final = "MLFLOW_TRACKING_URI"
SETTINGS: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A server that does not answer is given up after seconds, not after the quarter of an hour of the defaults.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
"""Environment variables that are set where nobody has."""
STATUS: Final[dict[State, str]] = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}
TOLD: Final = "epc.told_sha256"
"""Tag with the hash of what a run was told when it ended."""
COUNT: Final = "epc.decisions"
"""Tag with the number of different decisions that the registration's run was told."""
OF_TRAINING: Final = {"mlflow.experimentKind": "custom_model_development"}
"""Tag of an experiment whose runs the pages of MLflow show as trainings, and not as evaluations of prompts."""
PARENT: Final = "mlflow.parentRunId"
METRICS, PARAMETERS, LONGEST_TAG = 1000, 100, 4000
"""Limits of MLflow, for one request and one value."""


class MlflowTracker:
    """Runs of a registration under one parent run."""

    name = "mlflow"

    def __init__(self, asked: contract.Mlflow, folder: Path, *, spec_folder: Path) -> None:
        self._folder = folder
        self._experiment = asked.experiment
        self._uri = _uri(asked.uri, folder, spec_folder)
        self.place = (
            f"mlflow ui --backend-store-uri {self._uri}"
            if self._uri.startswith("sqlite:")
            else f"{without_secret(self._uri)}, experiment {asked.experiment}"
        )
        self._opened: MlflowClient | None = None
        self._id = ""

    # Everything below talks to the store.

    def begin(self, registered: Job, job: Job) -> _Run:
        return _Run(self._client(), self._new(registered, job))

    def publish(self, registered: Job, job: Job) -> None:
        client = self._client()
        if any(run.data.tags.get(TOLD) == job.sha256 for run in self._found(job)):
            return
        run = _Run(client, self._new(registered, job))
        run.log(job.curve)
        run.end(job, "finished")

    def close(self, registered: Job, state: State | None) -> None:
        client = self._client()
        parent = self._parent(registered)
        run_id, told = parent.info.run_id, parent.data.tags
        for name, value in registered.tags.items():
            if told.get(name) != value[:LONGEST_TAG]:
                client.set_tag(run_id, name, value[:LONGEST_TAG])
        if registered.sha256 is not None and told.get(TOLD) != registered.sha256:
            number = int(told.get(COUNT, 0)) + 1
            client.set_tag(run_id, "mlflow.note.content", registered.note)
            _log_batches(client, run_id, _metrics(registered.metrics, step=number))
            for file in registered.files:
                client.log_artifact(run_id, str(file))
            client.set_tag(run_id, COUNT, str(number))
            client.set_tag(run_id, TOLD, registered.sha256)  # last: what broke off before it is told again
        if state is not None and parent.info.status != STATUS[state]:
            client.set_terminated(run_id, STATUS[state])

    def release(self) -> None:
        self._opened = None

    def _client(self) -> MlflowClient:
        if self._opened is None:
            for name, value in SETTINGS.items():
                os.environ.setdefault(name, value)
            from mlflow.tracking import MlflowClient

            for logger in ("mlflow", "alembic"):  # which announce the making of tables
                logging.getLogger(logger).setLevel(logging.ERROR)
            with self._alone():  # two processes would make the tables at once
                client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
                found = client.get_experiment_by_name(self._experiment)
                self._id = (
                    found.experiment_id
                    if found is not None
                    else client.create_experiment(
                        self._experiment, artifact_location=self._artifacts(), tags=OF_TRAINING
                    )
                )
            self._opened = client
        return self._opened

    def _artifacts(self) -> str | None:
        """Where files of a local store lie; a server decides itself."""
        if not self._uri.startswith("sqlite:///"):
            return None
        return (Path(self._uri.removeprefix("sqlite:///")).parent / "artifacts").as_uri()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        own_folder(self._folder)
        if self._uri.startswith("sqlite:///"):
            Path(self._uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        with (self._folder / ".lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _found(self, job: Job) -> list[MlflowRun]:
        """Runs of a job, newest first."""
        assert self._opened is not None
        wanted = {"epc.key": job.key, "epc.lock_sha256": job.lock_sha256}
        text = " and ".join(f"tags.`{name}` = '{value}'" for name, value in wanted.items())
        return list(self._opened.search_runs([self._id], filter_string=text))

    def _parent(self, registered: Job) -> MlflowRun:
        assert self._opened is not None
        with self._alone():
            found = self._found(registered)
            return found[0] if found else self._create(registered, {})

    def _new(self, registered: Job, job: Job) -> str:
        assert self._opened is not None
        parent = self._parent(registered)
        if parent.info.status != "RUNNING":
            self._opened.update_run(parent.info.run_id, status="RUNNING")
        for run in self._found(job):
            if run.info.status == "RUNNING":
                self._opened.set_terminated(run.info.run_id, STATUS["killed"])
        run_id: str = self._create(job, {PARENT: parent.info.run_id}).info.run_id
        return run_id

    def _create(self, job: Job, more: dict[str, str]) -> MlflowRun:
        assert self._opened is not None
        tags = {name: value[:LONGEST_TAG] for name, value in job.tags.items()}
        source = {"mlflow.source.name": "epc", "mlflow.source.type": "LOCAL"}
        run = self._opened.create_run(
            self._id, start_time=_milliseconds(job.began), run_name=job.name,
            tags={**tags, **source, "epc.key": job.key, "mlflow.note.content": job.note, **more},
        )  # fmt: skip
        _log_parameters(self._opened, run.info.run_id, job)
        return run


class _Run:
    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client = client
        self._id = run_id

    def log(self, points: Sequence[Point]) -> None:
        found = [metric for point in points for metric in _metrics(point.values, step=point.step, at=point.at)]
        _log_batches(self._client, self._id, found)

    def end(self, job: Job, state: State) -> None:
        _log_parameters(self._client, self._id, job)
        _log_batches(self._client, self._id, _metrics(job.metrics, step=0, at=job.ended))
        told = {} if job.sha256 is None else {TOLD: job.sha256}
        for name, value in {**job.tags, **told}.items():
            self._client.set_tag(self._id, name, value[:LONGEST_TAG])
        ended = None if job.ended is None else _milliseconds(job.ended)
        self._client.set_terminated(self._id, STATUS[state], end_time=ended)


def _uri(asked: str, folder: Path, spec_folder: Path) -> str:
    if asked == "local":
        return f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}"
    if asked == "environment":
        found = os.environ.get(VARIABLE)
        if not found:
            raise Fault(
                "R1942", VARIABLE, "report_to takes MLflow's address from the environment, and this variable is not set",
                f"export {VARIABLE}=https://..., or leave `uri` out of report_to: mlflow for a database in the bundle",
            )  # fmt: skip
        return found
    if asked.startswith("sqlite:///"):
        return f"sqlite:///{(spec_folder / asked.removeprefix('sqlite:///')).resolve()}"
    return asked


def _metrics(values: Mapping[str, float], *, step: int, at: float | None = None) -> list[Metric]:
    from mlflow.entities import Metric

    stamp = _milliseconds(time.time() if at is None else at)
    return [Metric(_name(name), value, stamp, step) for name, value in values.items()]


def _log_batches(client: MlflowClient, run_id: str, metrics: Sequence[Metric]) -> None:
    for start in range(0, len(metrics), METRICS):
        client.log_batch(run_id, metrics=metrics[start : start + METRICS])


def _log_parameters(client: MlflowClient, run_id: str, job: Job) -> None:
    """Those that the run has already may be told again with the same value."""
    from mlflow.entities import Param

    found = [Param(_name(name), str(value)) for name, value in flat(job.parameters)]
    for start in range(0, len(found), PARAMETERS):
        client.log_batch(run_id, params=found[start : start + PARAMETERS])


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _name(text: str) -> str:
    """A name of a parameter or a metric: what MLflow refuses in one becomes `_`."""
    return re.sub(r"[^\w./ -]", "_", text)[:250]
