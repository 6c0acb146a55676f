"""Decision, design and rows to the two report texts. No files, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from epc.compiler.contract.decision import Decision
from epc.compiler.contract.manifest import Manifest
from epc.compiler.contract.rows import MeasurementRow, SampleRow
from epc.runtime.report import text
from epc.runtime.report.view import build

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True, kw_only=True)
class Report:
    md: str
    html: str


def render(
    decision: Decision, manifest: Manifest, measurements: Sequence[MeasurementRow], transcripts: Sequence[SampleRow]
) -> Report:
    """Both report files as text. `transcripts` are shown as they come: `transcripts.choose` picks them."""
    environment = _environment()
    view = build(decision, manifest, measurements, transcripts)
    return Report(
        md=environment.get_template("report.md.j2").render(view=view),
        html=environment.get_template("report.html.j2").render(view=view),
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("epc.templates", "report"),
        undefined=StrictUndefined,
        autoescape=select_autoescape(enabled_extensions=("html.j2", "svg.j2"), default=False),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    environment.filters.update(md=text.md, code=text.md_code, fence=text.md_block)
    return environment


def _shown(value: object) -> object:
    """What an expression prints: text with its hidden characters spelt out, markup as it is."""
    return text.visible(value) if type(value) is str else value
