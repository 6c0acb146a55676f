"""What a rehearsal is: how far a plan is scaled down, and in what it therefore differs from the real run."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

FOLDER: Final = "rehearsal"
"""Folder of the bundles of rehearsals, beside generated/."""
SEEDS: Final = 2
"""Training seeds of a rehearsal at most: one shows nothing of what is computed over several."""


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Scale(Part):
    """Upper bounds; what the plan has less of stays as it is."""

    rows: int = 64
    """Of a training data set."""
    prompts: int = 48
    """Of a prompt set that is no union; at least 2."""
    samples: int = 2
    """Completions per prompt, arm and training seed."""
    tokens: int = 24
    """Of a sampled text."""
    items: int = 50
    """Of a benchmark task."""
    model: str | None = None
    """`path:folder`, or another source of a spec's `model.from`; None for the small model that epc rehearses on."""


class Rehearsal(Part):
    """What the manifest of a rehearsal says about itself."""

    scale: Scale
    differences: tuple[str, ...]
    """In what it differs from the real run, one sentence each, in the order of the spec."""
    real: dict[str, str] = Field(default_factory=dict)
    """Step -> what the same step of the real plan is computed to take: GPU-hours, or calls and dollars."""
