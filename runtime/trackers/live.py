"""Curves while a model trains: a callback that hands points to one thread for each tracker.

The training never waits for a tracker: what a thread does not get through in time is told from the log when the run ends.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from epc.runtime import journal
from epc.runtime.trackers.jobs import Job, Point, figures_of, finished_job, registration_job, started_job
from epc.runtime.trackers.tracker import State, Tracker, tolerated, trackers, warn

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from epc.runtime.step import Step

LATER: Final = "EPC_REPORT_LATER"
"""Environment variable that leaves all reporting to `epc report-to`."""
PATIENCE: Final[dict[State, float]] = {"finished": 60.0, "failed": 10.0, "killed": 5.0}
"""Seconds that a tracker has to end its run once the step is over."""


def curves(step: Step) -> TrainerCallback:
    """A callback that tells the trackers of the spec of loss, learning rate, gradient norm and tokens/s at every step."""
    from transformers import TrainerCallback

    class Curves(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            step.closing.close()  # of an execution plan that ran out of memory
            self.last = time.monotonic(), 0.0
            self.lanes = _lanes(step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" not in logs:
                return
            values = figures_of(logs)
            now, tokens = time.monotonic(), values.get("num_tokens", 0.0)
            (then, before), self.last = self.last, (now, tokens)
            if tokens > before:
                values["tokens_per_second"] = (tokens - before) / max(now - then, 1e-9)
            for lane in self.lanes:
                lane.put(Point(step=state.global_step, values=values, at=time.time()))

    return Curves()


def _lanes(step: Step) -> list[_Lane]:
    """A started thread for each tracker, to be ended with the step."""
    if os.environ.get(LATER):
        return []
    lanes: list[_Lane] = []
    with tolerated("report_to", step.bundle, []):
        registered = registration_job(step.bundle, step.manifest, decided=False)
        job = started_job(step.manifest, step.plan, began=time.time())
        lanes += [_Lane(step, tracker, registered, job) for tracker in trackers(step.bundle, step.manifest)]
    for lane in lanes:
        lane.start()
        step.closing.callback(lane.finish)
    for lane in lanes:  # called first, because an ExitStack goes backwards: all end at once, then each is waited for
        step.closing.callback(lane.end)
    return lanes


class _Lane(threading.Thread):
    """Tells one tracker of one training. A daemon: a server that hangs does not keep the step from ending."""

    def __init__(self, step: Step, tracker: Tracker, registered: Job, job: Job) -> None:
        super().__init__(name=f"epc-{tracker.name}", daemon=True)
        self._step = step
        self._tracker = tracker
        self._registered = registered
        self._job = job
        self._state: State = "failed"
        self._points: queue.SimpleQueue[Point | None] = queue.SimpleQueue()

    def put(self, point: Point) -> None:
        self._points.put(point)

    def end(self) -> None:
        """The step is over: with its record, or without."""
        step = self._step
        with tolerated(self._tracker.name, step.bundle, []):
            finished = finished_job(step.bundle, step.manifest, step.plan)
            if finished is not None:
                self._state, self._job = "finished", finished
            else:
                self._state, error = _why(step)
                self._job = replace(self._job, tags={**self._job.tags, "epc.error": error}, ended=time.time())
        self._points.put(None)

    def finish(self) -> None:
        self.join(PATIENCE[self._state])
        if self.is_alive():
            warn(self._tracker.name, "it did not answer in time", self._step.bundle)

    def run(self) -> None:
        with tolerated(self._tracker.name, self._step.bundle, []):
            run = self._tracker.begin(self._registered, self._job)
            more = True
            while more:
                waiting = [self._points.get()]
                while not self._points.empty():
                    waiting.append(self._points.get())
                more = None not in waiting
                run.log([point for point in waiting if point is not None])
            run.end(self._job, self._state)
            self._tracker.release()


def _why(step: Step) -> tuple[State, str]:
    """How a step ended that has no record, as the journal says."""
    entries = [entry for entry in journal.read(step.bundle) if entry.data.get("key") == step.plan.key]
    if entries and entries[-1].event == "failed":
        error = str(entries[-1].data["error"])
        return ("killed" if error == "interrupted" else "failed"), error
    return "failed", "this execution plan ran out of memory"
