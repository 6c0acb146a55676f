"""What a metric reads of a judge's reply."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

from epc.compiler.contract.logic import Operator

_COMPARISON = re.compile(r"([a-z][a-z0-9_]*)(?:\s*(<=|<|>=|>|==|!=)\s*(-?\d{1,18}))?")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`field OP constant` on a judge's reply, or the field itself."""

    field: str
    operator: Operator | None = None
    constant: int | None = None

    @classmethod
    def parse(cls, text: str) -> Comparison | None:
        """None when the text is neither a field nor a comparison with an integer."""
        found = _COMPARISON.fullmatch(text.strip())
        if found is None:
            return None
        name, operator, constant = found.groups()
        return cls(
            field=name, operator=cast("Operator | None", operator), constant=None if constant is None else int(constant)
        )
