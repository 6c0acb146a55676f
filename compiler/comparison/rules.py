"""Where every part of a registration belongs, and what a difference of it means.

| group | what differs | status | why |
|---|---|---|---|
| model | base model, revision, precision, chat template | BLOCK | every number comes from another model |
| loss mask | `train_on` | BLOCK | loss falls on other tokens |
| evaluation | prompts, turns, system prompt, sampler, temperature, top_p, max_tokens, metric, results from elsewhere | BLOCK | the same name measures another thing |
| judges | who answers, how it is asked, output, votes | BLOCK | scores of two judges are two scales |
| statistics | test, side, alpha, contrast, metric of an analysis that both have | BLOCK | the same name is another test |
| statistics | families, planned looks | BLOCK | the same p rejects in one and not in the other |
| data | hash, rows, how rows are built; a hash that is pending on a side | WARN | the arm learnt from other rows, or nobody knows |
| training | learning rate, schedule, batch, phases of an arm, and so on | WARN | the arm was trained otherwise |
| steps | epochs, optimizer steps | WARN | another dose |
| capacity | the adapter | WARN | another capacity |
| seeds | training seeds that are not a superset | WARN | seed noise is not shared |
| evaluation | samples a prompt, sampling seed, a prompt set that is pending | WARN | more or less noise, or nobody knows |
| statistics | resamples, seed of the draws, displayed interval | WARN | Monte-Carlo error only |
| thresholds | a gate or rule that decides, what a judge must agree with | WARN | the verdicts mean other things |
| thresholds | prediction, descriptive, follow-up | PASS | they decide nothing |
| arms | an arm, and what only it uses, that one side lacks | PASS | nothing of the other is compared with it |
| any | what is meant to differ (`varies`) | PASS | it is what the experiment is about |
| any | what only follows from another difference (steps from rows) | PASS | its cause is judged |
| words | title, rationale, say, prices, budget, route and rate of judge calls, where files lie, assumed truths, trackers | none | no step and no verdict reads it |

A name whose content differs in the arms of the same name is judged; a name that only one side has is listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from epc.compiler.spec import DifferenceGroup

Status = Literal["PASS", "WARN", "BLOCK"]
Group = DifferenceGroup
Place = Group | Literal["words"]

GROUPS: Final[tuple[Group, ...]] = get_args(DifferenceGroup)
"""In the order in which they are shown."""
INTERVENTION: Final[tuple[Group, ...]] = ("model", "data", "training", "loss_mask", "steps", "capacity", "arms")
"""What makes an arm what it is."""
NAMED: Final = (
    "data",
    "train",
    "conditions",
    "prompts",
    "generate",
    "sample",
    "judges",
    "results",
    "metrics",
    "analyses",
    "gates",
    "families",
    "truths",
)
"""Sections whose entries have names of the author's choice."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    place: Place
    status: Status = "PASS"
    reason: str = ""
    """What a difference means, in words that follow the name of the group."""


def _rules(place: Place, status: Status, reason: str, *paths: str) -> dict[str, Rule]:
    return dict.fromkeys(paths, Rule(place=place, status=status, reason=reason))


RULES: Final[dict[str, Rule]] = {
    **_rules("words", "PASS", "", "epc", "id", "title", "hypothesis", "rationale", "lineage", "deviations", "claims", "allow", "locks",
             "budget", "reporting", "model.parameters", "data.*.source", "data.*.stand_in", "data.*.disjoint_from", "data.*.file",
             "prompts.*.file", "prompts.*.external.source", "prompts.*.external.file", "prompts.*.union", "prompts.*.stand_in",
             "prompts.*.disjoint_from", "judges.*.price", "judges.*.batch_from", "judges.*.limits", "results.*.file", "metrics.*.describe", "metrics.*.noise", "metrics.*.stand_in", "gates.*.say",
             "verdicts.say", "truths", "report_to"),
    **_rules("model", "BLOCK", "another base model answers",
             "model.from", "model.revision", "model.sha256", "model.dtype"),
    **_rules("model", "BLOCK", "another chat template wraps every conversation",
             "model.chat_template", "model.chat_template_sha256"),
    **_rules("data", "WARN", "arms learn from other rows",
             "data.*.build", "data.*.rows", "data.*.seed", "data.*.system", "data.*.prompts", "data.*.fill", "data.*.turns",
             "data.*.sha256", "train.*.data"),
    **_rules("data", "WARN", "the text in the rows is written otherwise",
             "generate.*.prompts", "generate.*.turns", "generate.*.n", "generate.*.system", "generate.*.temperature",
             "generate.*.top_p", "generate.*.max_tokens", "generate.*.seed"),
    **_rules("training", "WARN", "arms are trained otherwise",
             "train.*.method", "train.*.learning_rate", "train.*.schedule", "train.*.warmup_ratio", "train.*.warmup_steps",
             "train.*.batch", "train.*.accumulation", "train.*.max_length", "train.*.on_top"),
    **_rules("loss_mask", "BLOCK", "loss falls on other tokens", "train.*.train_on"),
    **_rules("steps", "WARN", "arms are trained for another number of steps", "train.*.epochs", "train.*.optimizer_steps"),
    **_rules("capacity", "WARN", "adapters have another capacity",
             "train.*.lora.r", "train.*.lora.alpha", "train.*.lora.dropout", "train.*.lora.target_modules"),
    **_rules("seeds", "WARN", "a training seed of the earlier one is missing", "seeds"),
    **_rules("evaluation", "BLOCK", "other prompts are asked", "prompts.*.sha256", "prompts.*.items", "prompts.*.external.sha256",
             "prompts.*.count", "sample.*.prompts", "sample.*.turns", "sample.*.fill"),
    **_rules("evaluation", "BLOCK", "completions are sampled otherwise", "sampler", "sample.*.system", "sample.*.temperature",
             "sample.*.top_p", "sample.*.max_tokens"),
    **_rules("evaluation", "WARN", "means carry another sampling error", "sample.*.n"),
    **_rules("evaluation", "WARN", "other completions are drawn from the same distribution", "sample.*.seed"),
    **_rules("evaluation", "BLOCK", "a metric of the same name measures another thing",
             "metrics.*.of", "metrics.*.judge", "metrics.*.score", "metrics.*.keep", "metrics.*.empty", "metrics.*.contains",
             "metrics.*.contains_any", "metrics.*.regex", "metrics.*.lm_eval", "metrics.*.value", "metrics.*.chat_template",
             "metrics.*.harness", "metrics.*.revision", "metrics.*.data", "metrics.*.fewshot_data", "metrics.*.fewshot",
             "metrics.*.fewshot_seed", "metrics.*.multiturn", "metrics.*.max_tokens",
             "metrics.*.items", "metrics.*.better", "metrics.*.missing", "metrics.*.results", "metrics.*.scale", "metrics.*.unit"),
    **_rules("evaluation", "BLOCK", "other results are read",
             "results.*.format", "results.*.sha256", "results.*.condition", "results.*.conditions", "results.*.mapping"),
    **_rules("evaluation", "BLOCK", "a task reads other items", "files"),
    **_rules("judges", "BLOCK", "another judge scores", "judges.*.provider", "judges.*.model", "judges.*.output",
             "judges.*.function", "judges.*.patterns"),
    **_rules("judges", "BLOCK", "the judge is asked otherwise", "judges.*.rubric", "judges.*.options", "judges.*.votes",
             "judges.*.aggregate", "judges.*.api_version"),
    **_rules("judges", "WARN", "replies are cut at another length", "judges.*.max_tokens"),
    **_rules("statistics", "BLOCK", "a test of the same name is another test",
             "analyses.*.metric", "analyses.*.contrast", "analyses.*.arm", "analyses.*.on", "analyses.*.method", "analyses.*.p",
             "analyses.*.side", "analyses.*.alpha", "analyses.*.margin", "analyses.*.levels", "analyses.*.population"),
    **_rules("statistics", "BLOCK", "another rule says which tests of a family reject", "families"),
    **_rules("statistics", "BLOCK", "alpha is spent at other looks", "interim"),
    **_rules("statistics", "WARN", "the same test is drawn or shown otherwise",
             "analyses.*.resamples", "analyses.*.seed", "analyses.*.interval"),
    **_rules("thresholds", "WARN", "a verdict means another thing",
             "gates.*.role", "gates.*.predicate", "gates.*.analysis", "gates.*.on", "verdicts.if", "verdicts.then"),
    **_rules("thresholds", "WARN", "a run becomes invalid at another share of missing scores", "judges.*.max_missing"),
    **_rules("thresholds", "WARN", "a run becomes invalid at another score of the untrained model", "metrics.*.base_between"),
    **_rules("thresholds", "WARN", "a run becomes invalid at another agreement with human labels", "judges.*.gold"),
    **_rules("arms", "WARN", "an arm of the same name is another arm", "conditions.*.phases", "conditions.*.system", "conditions.*.key"),
}  # fmt: skip

Path = tuple[str | int, ...]


def pattern(path: Sequence[str | int]) -> str:
    """`train.attack.lora.r` as `train.*.lora.r`: without the author's names and without positions."""
    parts = [part for part in path if isinstance(part, str)]
    if len(parts) > 1 and parts[0] in NAMED:
        parts[1] = "*"
    return ".".join(parts)


def rule_of(path: Sequence[str | int], *, of_data: bool = False) -> Rule | None:
    """The rule of a part, by its longest known beginning; None for a part that the language does not know.

    `of_data` says that a prompt set serves training data and no evaluation.
    """
    text = pattern(path)
    while text:
        if text in RULES:
            found = RULES[text]
            return (
                RULES["data.*.prompts"]
                if of_data and text.startswith("prompts.") and found.place == "evaluation"
                else found
            )
        text = text.rpartition(".")[0]
    return None


def dotted(path: Sequence[str | int]) -> str:
    """`data.traces.turns[1].user`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
