"""The view as one HTML file: light and dark, printed, by keyboard, no network."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

from epc.runtime.masks.view import View

if TYPE_CHECKING:
    from jinja2 import Environment


def html(title: str, views: list[View]) -> str:
    """The page as text."""
    return _environment().get_template("page.html.j2").render(title=title, views=views)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("epc.templates", "mask"), undefined=StrictUndefined, autoescape=True, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["quoted"] = lambda text: json.dumps(text, ensure_ascii=False)
    return environment
