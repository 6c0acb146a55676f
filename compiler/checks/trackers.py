"""Experiment trackers that a spec reports to.

E1901: a tracking URI that carries a password or a token
Why: A spec is committed, compiled into a bundle and shown to reviewers, so what stands in it is no secret any more.
MLflow takes its credentials from the environment, W&B from WANDB_API_KEY or `wandb login`.
Example:
    report_to: {mlflow: {uri: "https://ada:secret@mlflow.lab.org"}}
Fix:
    report_to: {mlflow: {uri: "https://mlflow.lab.org"}}   # and MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD

E1902: a tracking URI that MLflow cannot log to
Why: MLflow takes a text without a scheme, and `file:`, for a folder of its old file store, which is in maintenance
mode: since version 3.13 it is an error to open one. A local store is a database, and a server has an address; a mistake
in it would be found when the first training starts.
Example:
    report_to: {mlflow: {uri: ./mlruns}}
Fix:
    report_to: {mlflow: {uri: "sqlite:///mlflow.db"}}   # beside the spec; without uri it lies in the bundle

E1903: a name of a W&B project that W&B does not take
Why: The name becomes part of an address, so W&B refuses / \\ # ? % and : in it, and more than 128 characters. Offline
runs are written all the same, and refused only when they are synchronised, long after the experiment.
Example:
    report_to: {wandb: {project: lab/reflex}}
Fix:
    report_to: {wandb: {entity: lab, project: reflex}}

E1904: a tracker that is named twice
Why: One of the two was meant to be another one, which would then get nothing.
Example:
    report_to: [mlflow, mlflow]
Fix:
    report_to: [mlflow, wandb]
"""

from __future__ import annotations

from typing import Final, assert_never
from urllib.parse import parse_qsl, urlsplit

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.repeats import repeats
from epc.compiler.resolve import Experiment
from epc.compiler.spec import MlflowOptions, WandbOptions

SCHEMES: Final = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
"""Of tracking URIs; those of databases may name a driver, as in mysql+pymysql."""
WORDS: Final = ("local", "environment", "databricks")
"""Tracking URIs without a scheme."""
SECRET: Final = ("password", "passwd", "pwd", "token", "key", "api_key", "apikey", "secret", "access_token")
"""Names of query parameters that carry one."""
REFUSED: Final = "/\\#?%:"
LONGEST_PROJECT: Final = 128


def check(experiment: Experiment, sink: Diagnostics) -> None:
    listed = experiment.spec.report_to
    for index, name in repeats(listed if isinstance(listed, list) else ()):
        sink.error(
            "E1904", f'report_to names "{name}" twice', experiment.at("report_to", index),
            help="delete one, or name the other tracker",
        )  # fmt: skip
    for options in experiment.spec.trackers.values():
        match options:
            case MlflowOptions():
                _uri(experiment, options.uri, sink)
            case WandbOptions():
                _project(experiment, options.project or "", sink)
            case _:
                assert_never(options)


def _uri(experiment: Experiment, uri: str, sink: Diagnostics) -> None:
    if uri in WORDS:
        return
    place = experiment.at("report_to", "mlflow", "uri")
    try:
        parts = urlsplit(uri)
    except ValueError:  # brackets that do not match
        parts = urlsplit("")
    if parts.password is not None or any(name.lower() in SECRET for name, _ in parse_qsl(parts.query)):
        sink.error(
            "E1901", "the tracking URI carries a secret", place,
            help="take it out; MLflow reads MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
            " For a database with a password write uri: environment, and set MLFLOW_TRACKING_URI",
        )  # fmt: skip
    elif parts.scheme.partition("+")[0] not in SCHEMES or not uri.partition(":")[2].strip("/"):
        sink.error(
            "E1902", f'"{uri}" is no address that MLflow can log to', place,
            help="leave `uri` out for a database in the bundle; or write https://server, or sqlite:///file.db, which is relative"
            " to this spec; or `environment` for what MLFLOW_TRACKING_URI says",
        )  # fmt: skip


def _project(experiment: Experiment, name: str, sink: Diagnostics) -> None:
    bad = sorted({character for character in name if character in REFUSED})
    if bad or len(name) > LONGEST_PROJECT:
        why = f"has {' '.join(bad)}" if bad else f"has {len(name)} characters"
        sink.error(
            "E1903", f'the project "{name}" {why}', experiment.at("report_to", "wandb", "project"),
            help="the project is a name; the user or team that owns it is `entity:`",
        )  # fmt: skip
