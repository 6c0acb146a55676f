"""report.md and report.html: the decision as a person reads it, from stored results only."""

from epc.runtime.report.files import rendered, write
from epc.runtime.report.material import Material
from epc.runtime.report.render import Report, render

__all__ = ["Material", "Report", "render", "rendered", "write"]
