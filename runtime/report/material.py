"""Everything a report is made from, as it was stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from epc.compiler.contract.decision import Decision
from epc.compiler.contract.manifest import Manifest
from epc.compiler.contract.rows import SampleRow
from epc.runtime.inputs import Inputs

if TYPE_CHECKING:
    from epc.compiler.contract.simulation import Simulation


@dataclass(frozen=True, kw_only=True)
class Allowance:
    """A warning that the registration accepts."""

    code: str
    reason: str
    at: str | None


@dataclass(frozen=True, kw_only=True)
class Registered:
    """What the report reads of the lock."""

    allowed: tuple[Allowance, ...]
    effect_sizes: bool
    """Whether the reporting policy allows effect-size language."""


@dataclass(frozen=True, kw_only=True)
class Note:
    """What a researcher adds by hand."""

    text: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Material:
    decision: Decision
    inputs: Inputs
    transcripts: tuple[SampleRow, ...] = ()
    """Those that `transcripts.choose` picks, in its order."""
    by_prompt: tuple[SampleRow, ...] = ()
    """Those that `transcripts.of_prompts` picks, in its order."""
    simulation: Simulation | None = None
    registered: Registered | None = None
    """None where the lock is not there, or is another than the decision's."""
    note: Note | None = None

    @property
    def manifest(self) -> Manifest:
        return self.inputs.manifest
