"""report.md and report.html: the decision as a person reads it, from stored results only."""

from epc.runtime.report.files import write
from epc.runtime.report.render import Report, render
from epc.runtime.report.transcripts import choose

__all__ = ["Report", "choose", "render", "write"]
