"""Experiment trackers (`report_to` in a spec): the same figures shown elsewhere, at no cost to the experiment.

A tracker is told of what the bundle holds, and holds nothing that the bundle lacks: `epc report-to` can tell it again,
and a tracker that fails costs one line. Nothing here is read by a decision.
"""

from epc.runtime.trackers.live import LATER, curves
from epc.runtime.trackers.publishing import problems, publish, reported, require
from epc.runtime.trackers.tracker import trackers

__all__ = ["LATER", "curves", "problems", "publish", "reported", "require", "trackers"]
