"""decision.json: the verdict with everything it rests on. Byte-identical on every rerun."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from epc.compiler.contract.logic import Truth
from epc.compiler.contract.manifest import Contrast, Role, Side, VerdictClass
from epc.compiler.contract.rows import Mode

DECISION_SCHEMA_VERSION = 1
INTERIM_SCHEMA_VERSION = 1


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
    """delta (or value), p, reject (0 or 1), lower, upper, ci_low, ci_high. p is that of the test alone; reject contains the
    rule of its family and of planned looks."""
    family: str | None = None
    """The family whose rule `reject` contains."""
    p_adjusted: float | None = None
    """p adjusted for the family; null without one, and where an unknown p of another member could change it."""
    level: float | None = None
    """What p is below where it rejects at the last of several planned looks; null is alpha."""
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


class Alternative(Part):
    """An analysis computed in another way than registered, and what the decision would then be. Never a choice."""

    name: str
    """Such as `shift`, `unfiltered`, `every sample weighs the same` or `training seed 17`."""
    registered: bool = False
    """True for the registered way itself, which stands among the others for comparison."""
    estimate: float | None
    """delta, or value for the level of one arm."""
    p: float | None
    """Null where it is not defined or not computed."""
    reject: bool | None
    """Whether p is below the registered alpha."""
    n_units: int
    verdict: str
    """Label of the verdict with this in place of the registered analysis and everything else as it is."""
    changes: bool
    """Whether that is another label than the verdict's."""
    unknown_because: str | None = None
    """Why there are no numbers; null where there are."""


class UnitVerdict(Part):
    """A unit without which the verdict would be another."""

    unit: str
    estimate: float
    p: float | None
    verdict: str


class LeaveOneOut(Part):
    """The analysis without one unit, for each unit in turn."""

    n_units: int
    n_checked: int
    """Units without which the whole analysis and the verdict were computed. Fewer than n_units where that is too much
    work: then those that move the estimate most, half of them down and half up. Units of equal values count as one look."""
    lowest: float
    """Smallest estimate without one unit; over all units."""
    lowest_without: str
    highest: float
    highest_without: str
    p_lowest: float | None
    """Over the units that were checked; null where no gate reads more than the estimate."""
    p_highest: float | None
    changing: tuple[UnitVerdict, ...]
    """Empty: no single unit that was checked changes the verdict."""


class MonteCarlo(Part):
    """What another seed of the resampling could have given: p is a count of random draws."""

    draws: int
    extreme: int
    """Draws at or beyond the observed statistic, on the side that p counts."""
    p_low: float
    """Clopper-Pearson interval of the p that infinitely many draws would give; doubled for two-sided tests."""
    p_high: float
    level: float
    excludes_alpha: bool
    """False: more draws could turn the test around."""


class MinimumDetectable(Part):
    """The smallest true effect that the test detects with the given power."""

    effect: float
    power: float
    formula: str
    """With the numbers filled in; conditional on the observed standard deviation."""


class Margin(Part):
    """How far an observed statistic is from the threshold of a gate."""

    gate: str
    role: Role
    comparison: str
    """Such as `delta >= 5`."""
    observed: float
    distance: float
    """Observed minus threshold, in units of the metric. Of `reject` and of `p`: the bound that pairs with the test, minus 0,
    positive where it rejects."""
    standard_errors: float | None
    """The same over the standard error sd / sqrt(n) of the estimate; null where nothing varies."""


class AnalysisSensitivity(Part):
    """How much one analysis rests on how it was computed. Printed beside the registered result, never instead of it."""

    analysis: str
    """As printed: `headline`, or a variant of it where a switch is unknown."""
    confirmatory: bool
    side: Side
    alpha: float
    definitions: tuple[Alternative, ...] = ()
    """p under every definition that the data allow, the registered one included. Empty where no gate reads more of the
    analysis than its estimate, and for the level of one arm."""
    resamples: int | None = None
    """Draws of those definitions: the registered ones, or DEFAULT_RESAMPLES of runtime.sensitivity."""
    seed: int | None = None
    """Their seed: the registered one, or that default's."""
    fragile: bool = False
    """FRAGILE: some definitions reject and others do not."""
    filters: tuple[Alternative, ...] = ()
    """With the metric's filter and without it; empty where it has none."""
    weights: tuple[Alternative, ...] = ()
    """Every unit weighs the same, every sample weighs the same."""
    seeds: tuple[Alternative, ...] = ()
    """With each training seed alone; empty where the trained arms share fewer than two. A method that draws training seeds
    is read as the paired bootstrap of units then, and the name says so."""
    seeds_unknown_because: str | None = None
    """Why a training seed is not among them; null where all are."""
    without_seed: tuple[Alternative, ...] = ()
    """By the registered method without each training seed in turn; empty for fewer than three shared ones."""
    missing: tuple[Alternative, ...] = ()
    """At both extremes of the missing scores; empty where none is missing. Their verdict leaves out the gate
    epc.missing_corners, which compares them."""
    leave_one_out: LeaveOneOut | None = None
    """Null for fewer than three units."""
    monte_carlo: MonteCarlo | None = None
    """Null where p is no count of random draws."""
    standard_error: float | None = None
    minimum_detectable: MinimumDetectable | None = None
    """Null for the level of one arm and where nothing varies."""
    margins: tuple[Margin, ...] = ()
    """One for each comparison that a gate makes, in the order of the gates."""
    unknown_because: str | None = None


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

    kind: Literal[
        "spec_changed_after_results",
        "amended",
        "unregistered",
        "library_changed",
        "results_changed",
        "labels_changed",
    ]
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


class ArmBias(Part):
    """How far a judge is above or below people in one arm."""

    condition: str
    n: int
    """Pairs of a score and a label; two raters of one completion make two."""
    bias: float | None
    """Mean of judge minus human; null without a pair."""


class BiasGap(Part):
    """The two arms whose bias differs most."""

    high: str
    low: str
    difference: float
    """Bias in `high` minus bias in `low`, never negative."""
    ci_low: float
    """Percentile bootstrap of this pair's difference, completions drawn within arms. The pair was picked as the largest of
    all, so that the difference is too large on average."""
    ci_high: float
    pairs: int
    """Pairs of arms that it is the largest of."""


class Retest(Part):
    """The same judge about the same completion more than once."""

    pairs: int
    """Pairs of votes of one completion."""
    agreement: float
    """Share of pairs that are equal, or of an integer range at most `tolerance` apart."""
    mean_absolute_difference: float
    kappa: float | None


class Disagreement(Part):
    id: str
    """Of the completion, as in the gold file."""
    condition: str
    human: float
    """Mean of its labels."""
    judge: float


class FieldAudit(Part):
    """One field of a judge's reply against human labels."""

    field: str
    kind: str
    """`bool` or a range."""
    n: int
    """Completions with a label and a score."""
    n_pairs: int
    """Pairs of a score and a label; more than n where several people labelled."""
    n_unlabelled: int
    n_unscored: int
    """Labelled, but without a score of the judge."""
    tolerance: int
    """How far apart a label and a score of a range may be and still agree; 0 for bool."""
    agreement: float | None
    mean_absolute_difference: float | None
    kappa: float | None
    """Cohen's kappa, quadratic weights for a range; null where it is not defined, as where nothing varies."""
    kappa_low: float | None
    """95% percentile bootstrap, completions drawn within arms."""
    kappa_high: float | None
    kappa_required: float | None
    kappa_reached: bool | None
    """Exactly; null where nothing is required or kappa is not defined."""
    human_pairs: int
    """Pairs of labels of one completion by two people."""
    human_kappa: float | None
    """Between people: what a judge can reach at best."""
    arms: tuple[ArmBias, ...]
    gap: BiasGap | None
    """Null with fewer than two arms that have a pair."""
    bias_allowed: float | None
    bias_within: bool | None
    """Exactly; null where no bound is registered or there is no gap."""
    categories: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Pairs by the label's category (row) and the score's (column)."""
    retest: Retest | None
    """From repeated votes over every judged completion; null where the judge has one vote."""
    furthest: tuple[Disagreement, ...]
    """Completions with the largest disagreement, the largest first."""


class Audit(Part):
    """A judge against the human labels that its registration names."""

    judge: str
    file: str
    """Relative to the spec."""
    sha256: str | None
    """Of the labels; null where there is no file."""
    per_arm: int
    seed: int
    drawn: dict[str, int]
    """Arm -> completions drawn for labels; empty where they could not be read."""
    problems: tuple[str, ...] = ()
    """Why the judge could not be audited as registered."""
    remedy: str = ""
    fields: tuple[FieldAudit, ...] = ()


class ResultsRead(Part):
    """What was read of one `results` entry."""

    name: str
    format: str
    files: dict[str, str]
    """File, relative to the spec -> SHA-256."""
    sha256: str
    """Of the file; of several, of the listing that sha256sum prints of them, sorted by name."""
    pinned: bool
    """Whether the registration names this hash."""
    rows: int
    columns: dict[str, str]
    """unit, condition, sample, seed, outcome or a metric -> column or path."""
    rounded: tuple[str, ...] = ()
    """Metrics with a score of more than 15 digits, whose scores were rounded half-even to multiples of 10^-9."""


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
    sensitivity: tuple[AnalysisSensitivity, ...] = ()
    """Of every analysis that the decision reads, in the order of the registration. It decides nothing."""
    confidence: Confidence
    conditional_on: str = ""
    """What a single training seed leaves out."""
    deviations: tuple[Deviation, ...] = ()
    steps: tuple[StepRecord, ...] = ()
    results: tuple[ResultsRead, ...] = ()
    """Results from elsewhere, in the order of the registration."""
    audits: tuple[Audit, ...] = ()
    """Of every judge with registered human labels, in the order of the registration."""
    card: dict[str, str] = {}
    """Reproducibility card: name -> value, filled from records; never empty or TBD."""


class Reachable(Part):
    """A verdict, and whether the results that are still open can lead to it."""

    label: str
    verdict_class: VerdictClass
    reachable: bool
    """False is proved; true may be too much: the open gates are completed independently of one another."""
    because: str
    """Why it no longer is, or what is still open about it."""


class GateSoFar(Part):
    name: str
    role: Role
    text: str
    truth: Truth
    """True or false only where no completion of the results can change it."""
    because: str


class Progress(Part):
    """How much of an analysis is there. Of one that is not complete nothing else is said."""

    analysis: str
    confirmatory: bool
    n_units: int
    """Complete in every arm."""
    n_planned: int | None
    """Null where the design plans no number."""
    complete: bool


class PlannedLook(Part):
    """The confirmatory test at a look that was registered."""

    analysis: str
    look: int
    """1 for the first."""
    n_looks: int
    share: float
    n_units: int
    """The first so many complete units in the order of their names."""
    level: float
    """The p below which this look rejects: the alpha that it may spend."""
    delta: float | None
    p: float | None
    reject: bool | None
    note: str = ""


class InterimReport(Part):
    """report/interim.json: what unfinished results already say about the verdict. Never a decision."""

    schema_version: int = INTERIM_SCHEMA_VERSION
    epc: str
    id: str
    title: str
    mode: Mode
    lock_sha256: str
    rows_sha256: str
    """Hash over the measurement rows that there are."""
    open_steps: tuple[str, ...]
    verdicts: tuple[Reachable, ...]
    """Every label of the table in its order, then INVALID."""
    gates: tuple[GateSoFar, ...]
    analyses: tuple[Progress, ...]
    looks: tuple[PlannedLook, ...] = ()
    note: str
