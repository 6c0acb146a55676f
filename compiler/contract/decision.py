"""decision.json: the verdict with everything it rests on. Byte-identical on every rerun."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from epc.compiler.contract.logic import Truth
from epc.compiler.contract.manifest import Contrast, Role, Side, VerdictClass
from epc.compiler.contract.rows import Mode

DECISION_SCHEMA_VERSION = 1


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)


class Threshold(Part):
    """A comparison that some gate makes on this analysis, for figures and tables."""

    gate: str
    role: Role
    statistic: str
    operator: str
    constant: float


class ArmCounts(Part):
    """Completions of one arm behind an analysis, over its units and training seeds."""

    condition: str
    n: int
    """Scored, and kept by the filter where the metric has one."""
    n_missing: int
    """Without a score: nobody knows what it would have been."""
    n_filtered: int
    """Scored, and left out by the registered filter."""
    n_units_emptied: int
    """Units of which the filter left nothing."""
    missing_rate: float | None
    """n_missing of all completions, null where there is none."""
    drop_rate: float | None
    """n_filtered of the scored completions, null where there is none."""


Slice = Literal["filtered", "unfiltered"]
"""Which scores of a filtered metric an analysis reads."""


class AnalysisResult(Part):
    """Statistics of one analysis. A field is null where it is unknown or not defined."""

    name: str
    metric: str
    contrast: Contrast | None
    arm: str | None
    method: str
    definition: str
    """The method in one sentence, with the definition of p and its source."""
    side: Side
    alpha: float
    confirmatory: bool
    better: Literal["higher", "lower"]
    scale: tuple[float, float]
    unit: str
    n_units: int
    n_samples: int
    n_missing: int
    n_units_missing: int
    n_units_emptied: int = 0
    """Units left out because the filter left nothing of them in an arm."""
    arms: tuple[ArmCounts, ...] = ()
    """The treatment first."""
    subset: str | None = None
    """Prompt set to which the analysis is restricted."""
    filter: str | None = None
    """The metric's filter, as written; null where it has none and for unfiltered scores."""
    variant_of: str | None = None
    """For `headline.filtered` and `headline.unfiltered`: the analysis that a switch binds to one of the two."""
    variant: Slice | None = None
    bound_to: Slice | None = None
    """For an analysis that a switch governs: the variant it is; null where the switch is unknown, or there is none."""
    bound_by: str | None = None
    """The switch."""
    mean_treatment: float | None = None
    mean_control: float | None = None
    statistics: dict[str, float | None]
    """delta (or value), p, reject (0 or 1), lower, upper, ci_low, ci_high."""
    per_seed: dict[str, float] = {}
    """Training seed -> point estimate (delta or value) over the same units with that seed alone, for the seeds that all
    trained arms of the analysis share; an untrained arm is the same in each. Empty for fewer than two and where
    unknown."""
    ci_level: float
    sd: float | None = None
    """Standard deviation of the unit differences."""
    skewness: float | None = None
    unknown_because: str | None = None
    thresholds: tuple[Threshold, ...] = ()


class Observation(Part):
    """One atom of a gate with what was observed."""

    text: str
    """For example `headline.delta >= 0.15`."""
    value: float | None
    truth: Truth
    n: int | None
    """Units behind the statistic."""


class GateResult(Part):
    name: str
    role: Role
    text: str
    truth: Truth
    observations: tuple[Observation, ...]
    would_flip: str | None
    """The verdict label if this gate alone had the other value, null when it would not change. For a switch: if it bound
    the other variant."""
    say: str = ""
    built_in: bool = False
    """True for the checks every run gets (records, masks, adapters), which no spec declares."""
    detail: str = ""


class ArmSummary(Part):
    """One metric in one arm, over units (mean of unit means) and seeds."""

    metric: str
    condition: str
    seeds: tuple[int, ...]
    n_units: int
    n_samples: int
    n_missing: int
    n_filtered: int = 0
    mean: float | None
    """Units weigh the same."""
    sample_mean: float | None
    """Samples weigh the same; printed as sensitivity only."""
    mean_unfiltered: float | None = None
    """Mean over units without the filter; null where the metric has none."""


class Verdict(Part):
    label: str
    verdict_class: VerdictClass
    rule: int | None
    """Index in the table; null when INVALID."""
    rule_text: str
    say: str
    because: str
    """One sentence for a person."""


class Deviation(Part):
    """Something that differs from what was registered."""

    kind: Literal["spec_changed_after_results", "amended", "unregistered", "library_changed"]
    text: str
    changes: tuple[str, ...] = ()


class Confidence(Part):
    label: Literal["HIGH", "MODERATE", "LOW"]
    reason: str


class StepRecord(Part):
    """Card line of a finished step, from its finish record."""

    id: str
    key: str
    seconds: float
    versions: dict[str, str]
    facts: dict[str, Any]
    """What the step measured about itself: optimizer steps, tokens, final loss, mask counts."""


class Decision(Part):
    schema_version: int = DECISION_SCHEMA_VERSION
    epc: str
    id: str
    title: str
    question: str
    mode: Mode
    lock_sha256: str
    spec_sha256: str
    rows_sha256: str
    """Hash over every measurement row, sorted."""
    verdict: Verdict
    fired: tuple[str, ...]
    """Overrides and kills that fired; printed under INVALID too."""
    gates: tuple[GateResult, ...]
    verdict_table: tuple[tuple[str, str], ...]
    """(rule text, label), as registered."""
    analyses: tuple[AnalysisResult, ...]
    arms: tuple[ArmSummary, ...]
    confidence: Confidence
    conditional_on: str = ""
    """What a single training seed leaves out."""
    deviations: tuple[Deviation, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    card: dict[str, str] = {}
    """Reproducibility card: name -> value, filled from records; never empty or TBD."""
