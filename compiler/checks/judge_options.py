"""What is asked of a model judge besides its rubric: options, votes, limits, human labels.

E0853: something that the judge's model, or the interface of its provider, does not take
Why: a registered option that cannot be sent fails the first call, after all training and sampling is paid for, or is
dropped without a word. Which options a model takes is looked up in a dated table, and one that the table does not have
is refused. Claude takes no temperature, top_p, top_k or seed any more: what fixes such a judge is its model id, the
version of the interface, the rubric, the schema of `output`, several votes with a registered aggregate, and `effort`
where the model has it.
Example:
    judges: {grader: {options: {temperature: 0.0}}}
Fix:
    judges: {grader: {votes: 3, aggregate: median}}

E0854: a value that a judge's option does not take
Why: the provider would answer every call with an error. Levels differ from model to model: claude-opus-4-5 knows no
effort above high, and a model that may be told not to think refuses that beside the two highest efforts.
Example:
    judges: {grader: {model: claude-opus-4-5-20251101, options: {effort: max}}}
Fix:
    judges: {grader: {model: claude-opus-4-5-20251101, options: {effort: high}}}

E0855: an even number of votes under the median
Why: with two votes for and two against there is no majority. The median of an even number of votes is the mean of the
middle two: half a yes, or a score that nobody gave.
Example:
    judges: {grader: {votes: 4, aggregate: median}}
Fix:
    judges: {grader: {votes: 5, aggregate: median}}

E0859: human labels of a field that the judge does not reply with, or of more completions than there are
Why: agreement is computed for the fields that both have. A threshold on a field that the judge never gives could not be
met, and completions that are not there cannot be drawn.
Example:
    judges: {grader: {gold: {file: judges/gold.csv, per_arm: 20, seed: 1, kappa: {kindness: 0.6}}}}
Fix:
    judges: {grader: {gold: {file: judges/gold.csv, per_arm: 20, seed: 1, kappa: {aligned: 0.6}}}}

W0879: limits under which judging takes more than a day
Why: calls wait for the minute in which they fit, so that a limit much below what the account has stretches hours to
weeks without an error. Calls through the batch interface do not count against it.
Example:
    judges: {grader: {batch_from: 10000, limits: {requests: 5}}}
Fix:
    judges: {grader: {batch_from: 10000, limits: {requests: 50}}}

E0868: a limit that a single call exceeds
Why: a call that needs more tokens than a whole minute grants never fits into any minute, and judging would wait for
ever.
Example:
    judges: {grader: {batch_from: 10000, limits: {input_tokens: 100}}}
Fix:
    judges: {grader: {batch_from: 10000, limits: {input_tokens: 50000}}}

W0869: a judge that thinks before it answers, with little room for it
Why: newer models think unless they are told not to, and what they think counts toward `max_tokens`. Where it is used up
before the reply begins, the reply is cut, and its scores are missing. The smallest budget that the interface ever took
for thinking is 1,024 tokens.
Example:
    judges: {grader: {model: claude-haiku-5-5}}
Fix:
    judges: {grader: {model: claude-haiku-5-5, options: {thinking: disabled}}}

W0870: votes that are all the same
Why: with a fixed seed or a temperature of 0 a server gives the same reply to the same request, as far as it is able to.
Three equal votes cost three times as much and say no more than one.
Example:
    judges:
      grader: {provider: openai, model: my-judge, price: {input: 0, output: 0}, votes: 3, aggregate: median, options: {temperature: 0}}
Fix:
    judges:
      grader: {provider: openai, model: my-judge, price: {input: 0, output: 0}, votes: 3, aggregate: median, options: {temperature: 1}}
"""

from __future__ import annotations

from typing import Final

from epc.compiler import cost
from epc.compiler.contract.judge_models import NOT_THINKING, THINKING_EFFORTS, Option, options_of
from epc.compiler.diagnostics import Diagnostics, did_you_mean
from epc.compiler.kinds.judge import sets_of
from epc.compiler.resolve import Experiment
from epc.compiler.spec import Judge, ModelJudge

LONGEST_HOURS: Final = 24.0
"""Of judging, from which limits are taken for a slip."""
THINKING_TOKENS: Final = 1024
"""The smallest budget that Messages takes for thinking, where a budget can be given."""
_SAMPLING: Final = ("temperature", "top_p", "top_k", "seed")


def check(experiment: Experiment, sink: Diagnostics) -> None:
    for name, judge in experiment.spec.judges.items():
        _gold(experiment, sink, name, judge)
        if isinstance(judge, ModelJudge):
            _options(experiment, sink, name, judge)
            _votes(experiment, sink, name, judge)
            _limits(experiment, sink, name, judge)


def _options(experiment: Experiment, sink: Diagnostics, name: str, judge: ModelJudge) -> None:
    """Options that the table has, with values that it has."""
    known = options_of(judge.provider, judge.model)
    for option, value in judge.options.items():
        if option not in known:
            sink.error(
                "E0853", f"{_who(judge)} takes no `{option}`", experiment.key_at("judges", name, "options", option),
                help=_instead(judge, option, known),
            )  # fmt: skip
        elif not known[option].takes(value):
            shown = str(value).lower() if isinstance(value, bool) else value
            sink.error(
                "E0854", f"`{option}` of {_who(judge)} cannot be {shown}", experiment.at("judges", name, "options", option),
                help=f"write {known[option].described}",
            )  # fmt: skip
    thinking, effort = judge.options.get("thinking"), judge.options.get("effort")
    if thinking in NOT_THINKING and effort in THINKING_EFFORTS and judge.provider == "anthropic":
        sink.error(
            "E0854", f"{judge.model} refuses effort {effort} where it is not to think", experiment.at("judges", name, "options", "thinking"),
            help="write effort: high or lower, or delete `thinking`",
        )  # fmt: skip
    if judge.provider == "openai" and "batch_from" in judge.model_fields_set and judge.batch_from is not None:
        sink.error(
            "E0853", "the interface of chat completions takes no `batch_from`: it has no batches",
            experiment.key_at("judges", name, "batch_from"), help="delete it; every call is made by itself",
        )  # fmt: skip
    model = cost.claude(judge)
    if model is not None and model.thinks_with(thinking) and judge.max_tokens < THINKING_TOKENS:
        off = next((value for value in model.thinking if value in NOT_THINKING), None)
        instead = "" if off is None else f", or options: {{thinking: {off}}}, which costs less too"
        sink.warning(
            "W0869", f'{judge.model} thinks before it answers, and {judge.max_tokens} tokens of "{name}" are for both',
            experiment.at("judges", name, "max_tokens" if "max_tokens" in judge.model_fields_set else "model"),
            help=f"write max_tokens: 2048 or more{instead}",
        )  # fmt: skip


def _who(judge: ModelJudge) -> str:
    return judge.model if judge.provider == "anthropic" else "the interface of chat completions"


def _instead(judge: ModelJudge, option: str, known: dict[str, Option]) -> str:
    """What to write in place of an option that is not taken."""
    if judge.provider == "openai":
        return did_you_mean(option, known)
    if option in _SAMPLING:
        effort = ", `effort`" if "effort" in known else ""
        return (
            "delete it, and pre-register what fixes this judge: its model id, the version of the interface (in the lock), the"
            f" rubric, the schema of `output`, `votes` with an `aggregate`{effort}"
        )
    if cost.claude(judge) is None:
        return "delete it: no option is known of a model that epc's table does not have"
    return did_you_mean(option, known) if known else "delete it: this model takes no options"


def _votes(experiment: Experiment, sink: Diagnostics, name: str, judge: ModelJudge) -> None:
    """Votes that have a middle, and that can differ."""
    if judge.aggregate == "median" and judge.votes % 2 == 0:
        sink.error(
            "E0855", f"the median of {judge.votes} votes is the mean of two of them", experiment.at("judges", name, "votes"),
            help=f"write votes: {judge.votes + 1}, or aggregate: mean",
        )  # fmt: skip
    fixed = [f"{key}: {judge.options[key]}" for key in ("temperature", "seed") if key in judge.options]
    same = judge.provider == "openai" and ("seed" in judge.options or judge.options.get("temperature") == 0)
    if judge.votes > 1 and same:
        sink.warning(
            "W0870", f'with {" and ".join(fixed)}, the {judge.votes} votes of "{name}" are one reply {judge.votes} times',
            experiment.at("judges", name, "votes"), help="write votes: 1, or let the replies differ: a temperature above 0 and no seed",
        )  # fmt: skip


def _limits(experiment: Experiment, sink: Diagnostics, name: str, judge: ModelJudge) -> None:
    """A minute into which every call fits, and not more minutes than a day has."""
    limits = judge.limits
    sets = sets_of(experiment.spec, name)
    bill = cost.bill(experiment, name, sets)
    if bill is None or bill.batch or not bill.calls:
        return
    single = {"input_tokens": cost.longest_call(experiment, name, sets), "output_tokens": judge.max_tokens}
    for key, needed in single.items():
        granted = getattr(limits, key)
        if granted is not None and granted < needed:
            kind = "sent" if key == "input_tokens" else "written"
            sink.error(
                "E0868", f'one call of "{name}" may need {needed:,} tokens {kind}, and {granted:,} a minute are granted',
                experiment.at("judges", name, "limits", key), help=f"write what the account has, at least {needed}",
            )  # fmt: skip
            return
    totals = {"requests": bill.calls, "input_tokens": bill.input_tokens, "output_tokens": bill.output_tokens}
    minutes = {key: total / granted for key, total in totals.items() if (granted := getattr(limits, key)) is not None}
    if not minutes:
        return
    key = max(minutes, key=lambda found: minutes[found])
    hours = minutes[key] / 60
    if hours > LONGEST_HOURS:
        sink.warning(
            "W0879", f'{totals[key]:,} {_UNITS[key]} of "{name}" at {getattr(limits, key):,} a minute take {hours:,.0f} hours',
            experiment.at("judges", name, "limits", key),
            help="write what the account has, or delete it: epc then goes by what the provider's replies say",
        )  # fmt: skip


_UNITS: Final = {"requests": "calls", "input_tokens": "input tokens", "output_tokens": "output tokens"}


def _gold(experiment: Experiment, sink: Diagnostics, name: str, judge: Judge) -> None:
    """Fields that the judge replies with, and no more completions than an arm has."""
    if judge.gold is None:
        return
    for key in ("kappa", "bias"):
        for field in getattr(judge.gold, key):
            if field not in judge.output:
                sink.error(
                    "E0859", f'judge "{name}" does not reply with "{field}"', experiment.key_at("judges", name, "gold", key, field),
                    help=did_you_mean(field, judge.output),
                )  # fmt: skip
    sets = sets_of(experiment.spec, name)
    spec = experiment.spec
    arms = sum(len(spec.training_seeds(condition)) for condition in spec.conditions)
    if not arms or not sets or any(spec.sample[entry].prompts not in spec.prompts for entry in sets):
        return
    each = cost.completions(experiment, sets) // arms
    least = min(each * len(spec.training_seeds(condition)) for condition in spec.conditions)
    if judge.gold.per_arm > least:
        sink.error(
            "E0859", f'{judge.gold.per_arm} completions are to be drawn from every arm, and "{name}" judges {least} of one',
            experiment.at("judges", name, "gold", "per_arm"), help=f"write {least} or less",
        )  # fmt: skip
