"""What was stored to the two report texts. No files, no clock."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from epc.runtime.report import text
from epc.runtime.report.anchors import step_anchor
from epc.runtime.report.figures.axis import LANE
from epc.runtime.report.material import Material
from epc.runtime.report.sections.completions import unit_anchor
from epc.runtime.report.view import build

if TYPE_CHECKING:
    from jinja2 import BytecodeCache, Environment


@dataclass(frozen=True, kw_only=True)
class Report:
    md: str
    html: str


def render(material: Material) -> Report:
    """Both report files as text."""
    environment = _environment()
    view = build(material)
    return Report(
        md=environment.get_template("report.md.j2").render(view=view),
        html=environment.get_template("report.html.j2").render(view=view),
    )


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("epc.templates", "report"),
        bytecode_cache=_compiled(),
        undefined=StrictUndefined,
        autoescape=select_autoescape(enabled_extensions=("html.j2", "svg.j2"), default=False),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    environment.filters.update(md=text.md, code=text.md_code, fence=text.md_block)
    environment.globals.update(LANE=LANE, unit_anchor=unit_anchor, step_anchor=step_anchor)
    return environment


def _compiled() -> BytecodeCache:
    """Compiled templates, kept beside the templates as Python keeps its own: compiling takes longer than rendering.

    Where nothing can be written, nothing is kept.
    """
    from jinja2 import FileSystemBytecodeCache
    from jinja2.bccache import Bucket

    from epc import templates

    class Kept(FileSystemBytecodeCache):
        def dump_bytecode(self, bucket: Bucket) -> None:
            with suppress(OSError):
                super().dump_bytecode(bucket)

    folder = Path(templates.__file__).parent / "report" / "__pycache__"
    with suppress(OSError):
        folder.mkdir(exist_ok=True)
    return Kept(str(folder))


def _shown(value: object) -> object:
    """What an expression prints: text with its hidden characters spelt out, markup as it is."""
    return text.visible(value) if type(value) is str else value
