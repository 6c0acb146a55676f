"""Weights & Biases: runs in the bundle by default, for `wandb sync`; sent as they come on demand.

A run that was written offline cannot be opened again, so a step's run is written once, and a decision that differs from
the one before is a run of its own. All runs of a registration are one group.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from epc.compiler.contract import manifest as contract
from epc.compiler.contract.canonical import sha256_text
from epc.runtime.trackers.jobs import Job, Point
from epc.runtime.trackers.tracker import State, own_folder

if TYPE_CHECKING:
    import wandb

SETTINGS: Final = {"WANDB_ERROR_REPORTING": "false", "DO_NOT_TRACK": "1"}
"""Environment variables that are set where nobody has: the client reports its own errors to its maker otherwise."""
HOST: Final = "not told"
"""Instead of this machine's name."""
REPORT: Final = "report.html"


class WandbTracker:
    """Runs of a registration in one group."""

    name = "wandb"

    def __init__(self, asked: contract.Wandb, folder: Path) -> None:
        self._asked = asked
        self._folder = folder
        runs = folder / "wandb"
        self.place = (
            f"offline runs, which `wandb sync {runs}/offline-run-*` sends to an account"
            if asked.mode == "offline"
            else f"wandb.ai, project {asked.project}"
        )
        self._used = False

    def begin(self, registered: Job, job: Job) -> _Run:
        return _Run(self._init(registered, job), self._told(job))

    def publish(self, registered: Job, job: Job) -> None:
        try:
            told = json.loads(self._told(job).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):  # never told, or a file that was cut short: told again
            told = None
        if isinstance(told, dict) and told.get("sha256") == job.sha256:
            return
        run = self.begin(registered, job)
        run.log(job.curve)
        run.end(job, "finished")

    def close(self, registered: Job, state: State | None) -> None:
        if registered.sha256 is not None:
            self.publish(registered, registered)

    def release(self) -> None:
        if self._used:
            import wandb

            wandb.teardown()

    def _told(self, job: Job) -> Path:
        """The file that says what was told of a job; offline there is nobody to ask."""
        return self._folder / "told" / f"wandb-{sha256_text(job.lock_sha256 + job.key)[:16]}.json"

    def _init(self, registered: Job, job: Job) -> wandb.Run:
        own_folder(self._folder)
        hidden = self._folder / "wandb" / ".client"
        hidden.mkdir(parents=True, exist_ok=True)
        here = {f"WANDB_{name}_DIR": str(hidden) for name in ("CACHE", "DATA")}
        for name, value in {**SETTINGS, **here}.items():
            os.environ.setdefault(name, value)
        import wandb

        self._used = True
        return wandb.init(
            project=self._asked.project, entity=self._asked.entity, group=registered.name, job_type=job.kind,
            name=job.name, notes=job.note, tags=[job.tags["epc.mode"]], config=_config(job), reinit="create_new",
            settings=wandb.Settings(
                mode=self._asked.mode, root_dir=str(self._folder), console="off", silent=True,
                # Only what is told here is sent: no command line, user, host, code or load of the machine.
                disable_code=True, disable_git=True, save_code=False, x_disable_meta=True, x_disable_stats=True, host=HOST,
                x_save_requirements=False,
            ),
        )  # fmt: skip


class _Run:
    def __init__(self, run: wandb.Run, told: Path) -> None:
        self._run = run
        self._told = told

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            # Under the names that the trainer's own callback gives them.
            self._run.log({f"train/{name}": value for name, value in point.values.items()}, step=point.step)

    def end(self, job: Job, state: State) -> None:
        self._run.config.update(_config(job), allow_val_change=True)  # type: ignore[no-untyped-call]
        self._run.summary.update(dict(job.metrics))
        if "epc.verdict" in job.tags:
            self._run.summary["verdict"] = job.tags["epc.verdict"]
        self._attach(job.files)
        self._run.finish(exit_code=0 if state == "finished" else 1)
        if job.sha256 is not None:
            self._told.parent.mkdir(parents=True, exist_ok=True)
            aside = self._told.with_suffix(".tmp")
            aside.write_text(json.dumps({"sha256": job.sha256, "run": self._run.id}), encoding="utf-8")
            aside.replace(self._told)

    def _attach(self, files: Sequence[Path]) -> None:
        """Files of the run, and the report as a page in its panel. Copies: an offline run may be synchronised elsewhere."""
        import wandb

        for file in files:
            copy = Path(self._run.dir) / file.name
            shutil.copyfile(file, copy)
            self._run.save(str(copy), base_path=self._run.dir, policy="now")
            if file.name == REPORT:
                self._run.log({"report": wandb.Html(file.read_text(encoding="utf-8"), inject=False)})


def _config(job: Job) -> dict[str, Any]:
    return {**job.parameters, "epc": {**job.tags, "epc.key": job.key}}
