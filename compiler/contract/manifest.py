"""manifest.json: the plan that the runtime executes and the design that `epc decide` applies."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from epc.compiler.contract.logic import Predicate
from epc.compiler.contract.rehearsal import Rehearsal
from epc.compiler.contract.rows import Mode

MANIFEST_SCHEMA_VERSION = 1

StepKind = Literal["model", "generate", "data", "mask", "train", "sample", "capability", "judge", "measure"]
Side = Literal["greater", "less", "two_sided"]
Role = Literal[
    "validity",
    "override",
    "kill",
    "success",
    "guardrail",
    "sanity",
    "switch",
    "prediction",
    "descriptive",
    "follow_up",
]
VerdictClass = Literal["SUCCESS", "KILL", "OVERRIDE", "INCONCLUSIVE", "INVALID"]


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class Resources(Part):
    """What the engine must reserve for a step."""

    threads: int = 1
    gpu: int = 0
    gpu_mib: int = 0
    """Memory that it needs of its GPU at most, in MiB; 0 for a GPU of its own."""


class Piece(Part):
    """A part of a step's work that is stored on its own, so that adding an arm redoes no other."""

    key: str
    condition: str
    seed: int
    set: str


class Step(Part):
    """One node of the DAG. It is done when store/<key>/finished.json exists."""

    id: str
    kind: StepKind
    label: str
    """One line for a person: what it does, with its numbers."""
    needs: tuple[str, ...]
    key: str
    script: str
    """Path of the script, relative to the bundle."""
    outputs: tuple[str, ...]
    """Files that must exist in store/<key>/ when the step is done."""
    resources: Resources = Resources()
    recipe: dict[str, Any]
    """What the key hashes, for `epc run --plan` to say what changed."""
    pieces: tuple[Piece, ...] = ()


class Condition(Part):
    name: str
    key: str
    phases: tuple[str, ...]
    seeds: tuple[int, ...]
    """Training seeds; (0,) for an arm without training."""
    system: str | None = None
    """System prompt that belongs to the arm, None where the sample sets decide."""


class Metric(Part):
    name: str
    kind: Literal["pattern", "lm_eval", "judge", "results"]
    source: str
    """Sample set or task that the metric reads."""
    unit: Literal["prompt", "item"]
    scale: tuple[float, float]
    better: Literal["higher", "lower"]
    missing: Literal["fail", "drop"]
    """fail: a missing unit makes every analysis of the metric unknown. drop: paired deletion."""
    description: str = ""
    judge: str | None = None
    """Judge whose reply is scored; metrics of kind judge only."""
    filter: str | None = None
    """Which judged completions are kept, as written; None where all are. Filtered metrics have rows in two slices."""
    scores: bool = False
    """Whether measurement rows hold the score of every sample, because an analysis resamples the samples of a unit."""
    empty: Literal["fail", "drop"] = "fail"
    """A unit of which the filter leaves nothing: fail makes the analysis unknown, drop leaves the pair out."""
    score: str | None = None
    """What is scored of the judge's reply, as written; metrics of kind judge only. The same judge, source and score are
    the same numbers, with or without a filter."""
    noise: float | None = None
    """Declared standard deviation of an arm's mean between training seeds."""
    base_between: tuple[float, float] | None = None
    """[lowest, highest] mean of the arms without training; outside of it the verdict is INVALID. Benchmarks only."""


class Contrast(Part):
    """treatment - control, paired by unit."""

    treatment: str
    control: str


Method = Literal[
    "paired_bootstrap", "two_level", "cluster_bootstrap", "paired_t", "tost", "sign_flip", "sign_test",
    "newcombe_paired", "newcombe", "mcnemar", "wilson", "bootstrap",
]  # fmt: skip
PDefinition = Literal["percentile", "shift", "studentized", "bca", "exact", "corrected"]


class Analysis(Part):
    """One statistic-producing analysis: a contrast of two arms, or the level of one arm."""

    name: str
    metric: str
    contrast: Contrast | None = None
    arm: str | None = None
    """Exactly one of contrast and arm is set."""
    subset: str | None = None
    """Name in Design.subsets whose units the analysis reads; None for all. Descriptive only."""
    method: Method
    p: PDefinition | None = None
    """Definition of p for the bootstrap and McNemar's test, null for the other methods."""
    margin: float | None = None
    """tost only."""
    levels: tuple[Literal["seed", "unit", "sample"], ...] = ()
    """cluster_bootstrap only: what is drawn; training seeds and units each on their own."""
    population: Literal["random", "fixed"] = "random"
    side: Side
    alpha: float
    resamples: int | None = None
    seed: int | None = None
    interval: float | None = None
    """Level of the displayed two-sided interval ci_low, ci_high; None pairs it with the test."""
    rejects_below: float | None = None
    """reject is certain where p is below this; None is alpha. Less in a family, whose other tests decide too."""
    rejects_only_below: float | None = None
    """Where p is not below this, reject is excluded; None is alpha. Less where a part of alpha is spent at earlier looks."""
    switched: bool = False
    """True when a switch decides whether it reads filtered or unfiltered scores."""
    confirmatory: bool = False
    """True when a success gate reads it."""

    def alternative(self, effect: float) -> bool:
        """Whether an effect is on the tested side."""
        match self.side:
            case "greater":
                return effect > 0
            case "less":
                return effect < 0
            case "two_sided":
                return effect != 0


class Gate(Part):
    name: str
    role: Role
    text: str
    """The predicate as written."""
    predicate: Predicate
    on: tuple[VerdictClass, ...] = ()
    """Follow-up only: the verdicts after which it is read; empty means any."""
    analysis: str | None = None
    """Switch only: the analysis that reads unfiltered scores when the predicate is true, filtered ones when false."""
    say: str = ""


class VerdictRule(Part):
    """One row of the table. predicate None is `otherwise`."""

    text: str
    predicate: Predicate | None
    label: str
    """VerdictClass, or VerdictClass_SUFFIX."""
    verdict_class: VerdictClass
    say: str = ""


class Gold(Part):
    """Human labels that a judge is audited against when the decision is made."""

    file: str
    """Relative to the spec."""
    per_arm: int
    seed: int
    kappa: dict[str, float]
    """Field -> Cohen's kappa that it must reach."""
    bias: dict[str, float] = Field(default_factory=dict)
    """Field -> largest difference between two arms of the mean of judge minus human."""


class Judge(Part):
    """Who turns completions into scores."""

    name: str
    provider: Literal["anthropic", "openai", "patterns", "python"] = "anthropic"
    model: str
    """Model id; name of the function, or `patterns`."""
    rubric_sha256: str
    """Of the rubric, the function's file, or the patterns."""
    max_missing: float
    """Largest share of an arm's completions without a score; above it the run is INVALID."""
    output: dict[str, str] = Field(default_factory=dict)
    """Field of the reply -> `bool` or a range."""
    votes: int = 1
    aggregate: Literal["median", "mean"] | None = None
    options: dict[str, str | int | float | bool] = Field(default_factory=dict)
    gold: Gold | None = None


class Pending(Part):
    """Content that the registration names and whose hash is still to be frozen."""

    name: str
    """Path in the spec, such as `prompts.betley_8` or `data.traces`."""
    kind: Literal["external", "built"]
    """external: a file that a person puts in place. built: rows that a data step writes."""
    file: str
    """external: path relative to the spec. built: id of the data step."""
    source: str = ""
    """Where an external file comes from, for a person."""


class Family(Part):
    """Analyses under one multiplicity rule."""

    name: str
    method: Literal["holm", "benjamini_hochberg", "fixed_sequence"]
    analyses: tuple[str, ...]
    alpha: float


class TruthOf(Part):
    """Assumed means of one metric by arm, and how units and samples vary."""

    means: dict[str, float]
    """Every arm of the design."""
    unit_sd: float
    correlation: float = 0.0
    missing: float = 0.0


class Truth(Part):
    name: str
    metrics: dict[str, TruthOf]
    expect: str | None = None
    at_least: float | None = None


class Interim(Part):
    """Planned looks at the confirmatory test."""

    looks: tuple[float, ...]
    """Shares of the units, ascending; the last is 1."""
    spending: Literal["obrien_fleming", "pocock"]
    levels: tuple[float, ...] = ()
    """For each look the p below which it rejects (contract.spending); the last is that of the final test."""


class ResultColumns(Part):
    unit: str
    condition: str | None = None
    sample: str | None = None
    seed: str | None = None
    outcome: str | None = None


class ResultsFile(Part):
    """Scores from elsewhere, read when the decision is made."""

    name: str
    file: str
    """File, folder or glob, relative to the spec."""
    format: Literal["csv", "jsonl", "parquet", "lm_eval", "inspect", "promptfoo"]
    sha256: str | None = None
    condition: str | None = None
    conditions: dict[str, str] = Field(default_factory=dict)
    mapping: ResultColumns | None = None
    scores: dict[str, str] = Field(default_factory=dict)
    """Metric -> column or path of its score."""


class Design(Part):
    """What was pre-registered about the decision."""

    question: str
    conditions: tuple[Condition, ...]
    metrics: tuple[Metric, ...]
    analyses: tuple[Analysis, ...]
    gates: tuple[Gate, ...]
    verdicts: tuple[VerdictRule, ...]
    seeds: tuple[int, ...]
    transcripts: int = 2
    """Transcripts shown per arm and sample set."""
    transcript_seed: int = 0
    judges: tuple[Judge, ...] = ()
    subsets: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Prompt set -> ids of its prompts (contract.chat.item_id), for analyses of a part of the units."""
    families: tuple[Family, ...] = ()
    truths: tuple[Truth, ...] = ()
    interim: Interim | None = None
    results: tuple[ResultsFile, ...] = ()
    units: dict[str, int] = Field(default_factory=dict)
    """Metric -> units that the design plans; a metric of results from elsewhere has none."""
    samples: dict[str, int] = Field(default_factory=dict)
    """Metric -> samples per unit and arm that the design plans."""


FIGURES: Final = {
    "trainings": "trainings", "optimizer_steps": "optimizer steps", "train_tokens": "training tokens (estimate)",
    "texts": "texts written by the base model", "completions": "completions",
    "sampled_tokens_at_most": "sampled tokens, at most", "capability_items": "capability items scored",
    "judge_calls": "judge calls, retries not counted", "judge_input_tokens_at_most": "judge input tokens, at most",
    "judge_output_tokens": "judge output tokens (estimate)", "usd": "dollars for judges, at most",
    "gpu_hours": "GPU-hours on one H100 or H200 (estimate, start-up not counted)",
    "gpu_usd": "dollars for renting the GPU (estimate)",
}  # fmt: skip
"""Figure -> what a person calls it."""
MONEY: Final = ("usd", "gpu_hours", "gpu_usd")
"""Figures that are shown with decimals."""


class Mlflow(Part):
    """MLflow, as the spec asks for it."""

    uri: str
    """`local`, `environment`, or a tracking URI; the file of sqlite:///file is relative to the spec."""
    experiment: str


class Wandb(Part):
    """Weights & Biases, as the spec asks for it."""

    project: str
    entity: str | None = None
    mode: Literal["offline", "online"] = "offline"


class Trackers(Part):
    """Where parameters, curves and the verdict are shown besides; no part of the registration."""

    mlflow: Mlflow | None = None
    wandb: Wandb | None = None


class Manifest(Part):
    schema_version: int = MANIFEST_SCHEMA_VERSION
    epc: str
    """Version of the compiler that wrote it."""
    id: str
    title: str
    mode: Mode
    spec: str
    """Path of the spec, relative to the folder that holds generated/."""
    spec_sha256: str
    lock_sha256: str
    """Identity of the registration."""
    steps: tuple[Step, ...]
    """In topological order."""
    design: Design
    pending: tuple[Pending, ...] = ()
    """Nothing external may be pending when a run starts, nothing built when a training starts."""
    figures: dict[str, float] = Field(default_factory=dict)
    """Computed totals: optimizer steps, tokens, completions, calls, gpu_hours, usd."""
    arithmetic: dict[str, str] = Field(default_factory=dict)
    """Figure -> how it comes about, in one line for a person."""
    rehearsal: Rehearsal | None = None
    """How a bundle of mode `rehearsal` differs from the real one."""
    report_to: Trackers | None = None
    """Experiment trackers; None where the spec names none."""
