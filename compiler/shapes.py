"""What is wrong with the shape of a spec, in the words of the language: pydantic's problems as diagnostics.

E0201: a key that the language does not have
Why: A misspelt key is worse than a missing one: the default silently takes its place. In one lab the YAML said one
thing about the learning rate and the run did another. Names that other tools use for a key of ours are recognised.
Example:
    train: {attack: {lr: 5e-6}}
Fix:
    train: {attack: {learning_rate: 5e-6}}

E0202: a key that must be there is not
Why: What matters to the result has no default. A system prompt that was left out silently became the default one of
the model, and the lab that this happened to rediscovered it six times.
Example:
    sample: {first: {system: null}}     # deleted
Fix:
    sample: {first: {system: none}}     # the word none: no system prompt

E0203: a value of another type than the key takes
Why: Nothing is converted. "3" for 3 looks harmless, but the same leniency would read the commit 1234567 as a number, and
a spec that is registered must mean what it says to a reader who knows no conversion rules.
Example:
    train: {attack: {epochs: three}}
    claims: [{text: about 9000 judge calls, quantity: judge_calls, value: {about: 9000}}]
Fix:
    train: {attack: {epochs: 3}}

E0204: a word that is none of those the key takes
Why: Every such choice is closed so that each one can be compiled, checked against the others and explained. An unknown
word cannot fall back to a default: that is how arms come to differ in what nobody decided.
Example:
    model: {dtype: bf16}
Fix:
    model: {dtype: bfloat16}

E0205: a name, a hash or another formatted text that is not of its form
Why: Names become paths, columns and parts of predicates, and `treated-v2.delta` would be read as a subtraction. A hash
that is cut short pins nothing. Only codes of warnings can be allowed, because an error is never a matter of taste.
Example:
    id: Catch the Reflex!
    allow: [{code: E0501, reason: the two prompts too many do not matter to us}]
Fix:
    id: catch_the_reflex

E0206: keys that exclude each other, or that need each other
Why: Of two answers to one question, somebody has to guess which counts. In one lab `warmup_steps: 0` silently overrode the
warm-up ratio beside it. Where exactly one key belongs, epc takes neither none nor two.
Example:
    metrics: {caught: {contains: "Wait", regex: "[Ww]ait"}}
Fix:
    metrics: {caught: {contains: null, regex: "[Ww]ait"}}   # null deletes the key of the base

E0207: a value outside the range that makes sense
Why: A probability above 1 is a slip of the pen. It would surface hours later, in the
library that finally reads it, or not at all.
Example:
    sample: {first: {top_p: 1.5}}
Fix:
    sample: {first: {top_p: 0.95}}

E0209: a judge's option that its provider's SDK does not take
Why: Version 1.0 of the anthropic package removed temperature, top_p and top_k from its requests, newer models answer a
request that sets one with "`temperature` is deprecated for this model", and there is no seed. A registered option that
cannot be sent would fail the first call, after all training and sampling is paid for, or be dropped without a word.
Example:
    judges: {grader: {temperature: 0}}
Fix:
    judges: {grader: {model: claude-haiku-4-5-20251001}}   # a dated id names one model for ever
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError
from pydantic.types import Tag

from epc.compiler.contract.judge_models import CHAT_COMPLETIONS
from epc.compiler.diagnostics import Diagnostics, did_you_mean
from epc.compiler.field_docs import field_docs
from epc.compiler.source import Document, PathKey
from epc.compiler.spec import Analysis, Arm, Gate, Identifier, Metric, Spec

Location = tuple[int | str, ...]
"""Keys and indices, with pydantic's marks between them: `@judge` for a kind of entry, `[key]` for the key itself."""

COMMA: Final = "the text before this place ended at the comma: a text with a comma inside {...} needs quotes"

_MEANT: Final[Mapping[str, tuple[str, ...]]] = {
    "lr": ("learning_rate",),
    "num_train_epochs": ("epochs",),
    "num_epochs": ("epochs",),
    "batch_size": ("batch",),
    "per_device_train_batch_size": ("batch",),
    "gradient_accumulation_steps": ("accumulation",),
    "max_seq_length": ("max_length",),
    "max_seq_len": ("max_length",),
    "lr_scheduler_type": ("schedule",),
    "rank": ("r", "lora.r"),
    "lora_r": ("r", "lora.r"),
    "lora_rank": ("r", "lora.r"),
    "lora_alpha": ("alpha", "lora.alpha"),
    "lora_dropout": ("dropout", "lora.dropout"),
    "target_modules": ("lora.target_modules",),
    "lora_target_modules": ("target_modules", "lora.target_modules"),
    "dataset": ("data",),
    "max_new_tokens": ("max_tokens",),
    "num_samples": ("n",),
    "n_samples": ("n",),
    "num_return_sequences": ("n",),
    "system_prompt": ("system",),
    "model_name_or_path": ("from",),
    **{name: (f"options.{name}",) for name in ("effort", "thinking", *CHAT_COMPLETIONS)},
}
"""Names that other tools have for one of our keys; `lora.r` is the key r of the mapping lora beside it."""

_PROVIDERS: Final = ("anthropic", "openai", "patterns", "python")
"""Of judges; an entry with none of them is read as one of the first two."""
_REMOVED: Final = ("temperature", "top_p", "top_k")
_FOREIGN: Final = ("seed", "logprobs", "top_logprobs", "logit_bias", "presence_penalty", "frequency_penalty")
"""Sampling options that judges of other providers have; Messages.create of anthropic 2.12 takes none of them."""

_PATTERN_HELP: Final[Mapping[str, str]] = {
    r"^[a-z][a-z0-9_]*$": "names are lower-case letters, digits and _, and start with a letter",
    r"^[0-9a-f]{64}$": "a SHA-256 is 64 lower-case hex digits: sha256sum FILE prints it",
    r"^([0-9a-f]{64}|pending)$": "write 64 lower-case hex digits (sha256sum FILE prints them), or pending until epc freeze does",
    r"^\s*\S+\s+-\s+\S+\s*$": "write `treatment - control`, with spaces around the minus",
    r"^(SUCCESS|KILL|OVERRIDE|INCONCLUSIVE)(_[A-Z0-9_]+)?$": (
        "a verdict is SUCCESS, KILL, OVERRIDE or INCONCLUSIVE, with a suffix where you want one: KILL_NULL; INVALID is epc's own"
    ),
    r"^(hub:[^/\s]+/[^/\s]+|pypi:[A-Za-z0-9._-]+|path:\S.*)$": "write hub:org/name, pypi:package or path:folder",
    r"^(bool|-?\d{1,18}\.\.-?\d{1,18})$": "a judge replies with `bool`, or with an integer of a range such as 0..100",
    r"^[^:]+\.py:[A-Za-z_]\w*$": "write file.py:name, the name of a function of that file",
    r"^W[0-9]{4}$": "only warnings can be allowed, by their code such as W0910; an error is to be corrected",
}

_ALTERNATIVES: Final = "alternatives"
"""Kind of the one problem that stands for pydantic's several, where a value fits no member of a union."""


class Partial(Spec):
    """A spec whose sections may be empty, because all their entries were left out."""

    conditions: dict[Identifier, Arm] = Field(default_factory=dict)
    metrics: dict[Identifier, Metric] = Field(default_factory=dict)
    analyses: dict[Identifier, Analysis] = Field(default_factory=dict)
    gates: dict[Identifier, Gate] = Field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing wrong with the shape of a document."""

    kind: str
    """pydantic's type of error, or `alternatives`."""
    loc: Location
    path: PathKey
    """Of the value in the document; of a key that is missing, where it would be."""
    value: Any
    message: str
    context: Mapping[str, Any]
    meant: str | None = None
    """Of an unknown key, what was probably meant: a key beside it, or `lora.r`."""

    also: tuple[str, ...] = ()
    """Further keys that are missing beside this one."""
    provider: object = None
    """Of the judge that it is part of."""

    @property
    def unknown(self) -> bool:
        return self.kind == "extra_forbidden"

    @property
    def foreign(self) -> bool:
        """A judge's option that its provider's SDK does not take: the rest of the judge is sound without it."""
        option = len(self.path) == 3 and self.path[-1] in (*_REMOVED, *_FOREIGN)
        return self.unknown and option and self.provider == "anthropic"


def problems(error: ValidationError, data: Any) -> list[Problem]:
    """What is wrong with `data`, once each: no problem is a consequence of another one in the list."""
    listed = [dict(item) for item in error.errors(include_url=False)]
    found = [_problem(item, data) for item in _as_meant(listed, data)]
    found = [
        replace(one, meant=_close(str(one.path[-1]), _fields_at(one.loc[:-1])))
        if one.unknown and not one.foreign
        else one
        for one in found
    ]
    given_otherwise = {(*one.path[:-1], one.meant.partition(".")[0]) for one in found if one.meant is not None}
    unions = [one.path for one in found if one.kind == _ALTERNATIVES]
    result: dict[tuple[PathKey, str], Problem] = {}
    for one in found:
        if one.kind == "missing":
            if one.path in given_otherwise:
                continue
            place = (one.path[:-1], one.kind)  # all that a mapping lacks is one mistake
            first = result.get(place)
            result[place] = one if first is None else replace(first, also=(*first.also, str(one.path[-1])))
        elif one.kind == _ALTERNATIVES or not any(one.path[: len(path)] == path for path in unions):
            result.setdefault((one.path, one.kind), one)
    return list(result.values())


def _problem(item: Mapping[str, Any], data: Any) -> Problem:
    loc: Location = item["loc"]
    path: list[int | str] = []
    node = data
    kind = str(item["type"])
    for position, part in enumerate(loc):
        if part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node)):
            path.append(part)
            node = node[part]
        elif kind == "missing" and position == len(loc) - 1:
            path.append(part)
        elif part != "[key]" and not str(part).startswith("@"):
            # the name of a member of a union, which is no key of the document
            return Problem(
                kind=_ALTERNATIVES, loc=loc[:position], path=tuple(path), value=node, message="", context={}
            )  # fmt: skip
    judge = data["judges"][path[1]] if len(path) > 2 and path[0] == "judges" else None
    return Problem(
        kind=kind, loc=loc, path=tuple(path), value=item["input"], message=str(item["msg"]), context=item.get("ctx", {}),
        provider=judge.get("provider") if isinstance(judge, dict) else None,
    )  # fmt: skip


def _as_meant(items: Sequence[dict[str, Any]], data: Any) -> list[dict[str, Any]]:
    """Problems of an entry taken for the wrong kind, replaced by those of the kind that its keys fit best.

    `{of: first, judg: grader, score: aligned, ...}` is a judge metric with a typing error, and no
    pattern metric with four unknown keys.
    """
    result: list[dict[str, Any]] = []
    judged: dict[Location, list[dict[str, Any]] | None] = {}
    for item in items:
        loc: Location = item["loc"]
        end = next((i for i, part in enumerate(loc) if str(part).startswith("@")), None)
        if end is None:
            result.append(item)
            continue
        prefix = loc[: end + 1]
        if prefix not in judged:
            judged[prefix] = better = _better_kind(prefix, data)
            result += better or []
        if judged[prefix] is None:
            result.append(item)
    return result


def _better_kind(prefix: Location, data: Any) -> list[dict[str, Any]] | None:
    """Problems of the entry as the kind that it fits best; None where that is the one it was taken for."""
    value = data
    for part in prefix[:-1]:
        value = value[part]
    kinds = {tag: kind for tag, kind in _kinds_at(prefix[:-1]) if tag is not None and _is_model(kind)}
    if not isinstance(value, dict) or prefix[-1] not in kinds:
        return None
    if prefix[0] == "judges" and value.get("provider") in _PROVIDERS:
        return None  # it says itself what it is
    best = min(kinds, key=lambda tag: (_misfit(value, kinds[tag]), tag != prefix[-1]))
    if best == prefix[-1]:
        return None
    try:
        kinds[best].model_validate(value)
    except ValidationError as error:
        return [{**item, "loc": (*prefix[:-1], best, *item["loc"])} for item in error.errors(include_url=False)]
    return None


def _misfit(value: Mapping[str, Any], model: type[BaseModel]) -> int:
    """Keys that the model does not have, and keys that it needs and that are not there, however spelt."""
    keys = {info.alias or name: info.is_required() for name, info in model.model_fields.items()}
    spelt = {key: key if key in keys else _close(key, keys) for key in value}
    return sum(meant is None for meant in spelt.values()) + sum(
        required and key not in spelt.values() for key, required in keys.items()
    )


def _close(key: str, known: Mapping[str, object]) -> str | None:
    """The key that was probably meant; `lora.r` for one of the mapping beside it."""
    for meant in _MEANT.get(key, ()):
        if meant.partition(".")[0] in known:
            return meant
    return next(iter(get_close_matches(key, [name for name in known if name != key], n=1, cutoff=0.6)), None)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _strip(annotation: Any) -> Iterator[tuple[str | None, Any]]:
    """(tag, type) alternatives behind Annotated and unions."""
    if get_origin(annotation) is typing.Annotated:
        inner, *extras = get_args(annotation)
        tag = next((extra.tag for extra in extras if isinstance(extra, Tag)), None)
        for below, kind in _strip(inner):
            yield below or tag, kind
    elif get_origin(annotation) in (typing.Union, types.UnionType):
        for option in get_args(annotation):
            yield from _strip(option)
    else:
        yield None, annotation


def _kinds_at(loc: Location) -> list[tuple[str | None, Any]]:
    """(tag, type) alternatives of what a pydantic location points to."""
    kinds: list[tuple[str | None, Any]] = [(None, Spec)]
    for part in loc:
        following: list[tuple[str | None, Any]] = []
        for tag, kind in kinds:
            if tag is not None:
                following += [(None, kind)] if tag == part else []
            elif _is_model(kind):
                for name, info in kind.model_fields.items():
                    if part in (name, info.alias):
                        following += _strip(info.annotation)
            elif get_origin(kind) is dict:
                following += _strip(get_args(kind)[1])
            elif get_origin(kind) is list:
                following += _strip(get_args(kind)[0])
        kinds = following
    return kinds


def _fields_at(loc: Location) -> dict[str, str]:
    """Key -> description of the model that a pydantic location points to."""
    fields: dict[str, str] = {}
    for _, model in _kinds_at(loc):
        if _is_model(model):
            docs = field_docs(model)
            fields |= {info.alias or name: docs.get(name, "") for name, info in model.model_fields.items()}
    return fields


def _keys(loc: Location) -> list[tuple[str, bool]]:
    """(key, whether it must be there) of the model that a pydantic location points to."""
    return [
        (info.alias or name, info.is_required())
        for _, model in _kinds_at(loc)
        if _is_model(model)
        for name, info in model.model_fields.items()
    ]


def shown(value: Any) -> str:
    """A value as a message quotes it."""
    match value:
        case None:
            return "empty (null)"
        case bool():
            return "true" if value else "false"
        case str():
            text = f'"{value}"'
        case list():
            text = f"[{', '.join(map(shown, value[:10]))}{', ...' if len(value) > 10 else ''}]"
        case dict():
            text = f"{{{', '.join(f'{key}: {shown(item)}' for key, item in list(value.items())[:10])}}}"
        case _:
            text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def report(document: Document, problem: Problem, path: PathKey, sink: Diagnostics) -> None:
    """One problem as a diagnostic; `path` is where it is in the document as it was written."""
    where = ".".join(str(part) for part in path)
    last = str(path[-1]) if path else ""
    match problem.kind:
        case "extra_forbidden" if problem.foreign:
            sink.error(
                "E0209", f"the provider's SDK takes no `{last}`", document.key_span(path),
                help="delete it: a judge is fixed by its dated `model:` and the text of its rubric, and what is left of its noise"
                " averages out over the `n:` completions of a prompt",
                notes=[
                    "anthropic 1.0 (August 2026) removed temperature, top_p and top_k from Messages.create; newer models"
                    ' answer a request that sets a temperature with "`temperature` is deprecated for this model"'
                    if last in _REMOVED
                    else f"Messages.create of the anthropic SDK has no {last}"
                ],
            )  # fmt: skip
        case "extra_forbidden":
            place = f" in `{'.'.join(map(str, path[:-1]))}`" if len(path) > 1 else ""
            sink.error(
                "E0201", f'unknown key "{last}"{place}', document.key_span(path),
                help=COMMA if _cut_off(document, problem.value, path, sink) else _suggestion(problem, path),
            )  # fmt: skip
        case "missing":
            owner = f"`{'.'.join(map(str, path[:-1]))}`" if len(path) > 1 else "the spec"
            described = _fields_at(problem.loc[:-1])
            lacking = [last, *problem.also]
            brief = len(lacking) > 2
            help_ = "; ".join(_with(f"`{key}:`", "" if brief else described.get(key, "")) for key in lacking)
            if path[0] == "train" and len(path) == 3 and problem.also:
                help_ += "; or take all of them from a file with `use:`"
            sink.error(
                "E0202", f"{owner} lacks {_listed(lacking)}",
                document.key_span(path[:-1]), help=f"add {help_}",
            )  # fmt: skip
        case "literal_error":
            expected = str(problem.context.get("expected", "")).replace(" or ", ",").split(",")
            words = [word.strip().strip("'") for word in expected]
            if path[0] == "judges" and last == "provider":
                words = [*_PROVIDERS]
            sink.error(
                "E0204", f"`{where}` cannot be {shown(problem.value)}", document.span(path),
                help=did_you_mean(str(problem.value), words),
            )  # fmt: skip
        case "string_pattern_mismatch":
            pattern = str(problem.context.get("pattern", ""))
            key = problem.loc[-1] == "[key]"
            cut = key and _cut_off(document, _value_at(document.data, path), path, sink)
            sink.error(
                "E0205", f"{shown(problem.value)} is not a valid {'name' if key else 'value'} for `{where}`",
                document.key_span(path) if key else document.span(path),
                help=COMMA if cut else _PATTERN_HELP.get(pattern, f"it must match {pattern}"),
            )  # fmt: skip
        case "value_error":
            error = str(problem.context["error"])
            sink.error("E0206", f"`{where}`: {error}", document.key_span(path), help=_choice(error, problem.value))
        case _ if problem.kind.endswith(("_type", "_parsing")) or problem.kind in (
            "int_from_float", "string_too_short", _ALTERNATIVES,
        ):  # fmt: skip
            if path and _cut_off(document, problem.value, path, sink):
                return  # its name, which no entry can have, is reported as cut off
            sink.error(
                "E0203", f"`{where}` cannot be {shown(problem.value)}", document.span(path), help=_remedy(problem)
            )
        case _:
            sink.error(
                "E0207",
                f"`{where}` cannot be {shown(problem.value)}",
                document.span(path),
                help=_plain(problem.message),
            )


def _listed(keys: Sequence[str]) -> str:
    """`a`, `b` and `c`."""
    quoted = [f"`{key}`" for key in keys]
    return " and ".join(filter(None, [", ".join(quoted[:-1]), quoted[-1]]))


def _suggestion(problem: Problem, path: PathKey) -> str:
    """What to write in place of an unknown key."""
    if problem.meant is None:
        known = _fields_at(problem.loc[:-1])
        if path[0] == "train" and len(path) == 3:
            known = {**known, "use": ""}
        return did_you_mean(str(path[-1]), known)
    beside, _, inner = problem.meant.partition(".")
    return f'did you mean "{inner}" under `{beside}:`?' if inner else f'did you mean "{beside}"?'


def _choice(error: str, value: Any) -> str:
    """The remedy for keys that exclude or need each other, told from which of them are given."""
    named = [word for word in error.replace(",", " ").replace("`", " ").split() if word != "a"]
    given = [key for key in value if key in named] if isinstance(value, dict) else []
    if "go together" in error:
        return "declare both or neither"
    if "exactly one" in error:
        return f"keep one of {' and '.join(given)}" if len(given) > 1 else "add one of them"
    return f"delete {' and '.join(f'`{key}`' for key in given)}" if given else "keep one and delete the others"


def _remedy(problem: Problem) -> str:
    """What a value of another type should be."""
    described = _fields_at(problem.loc[:-1]).get(str(problem.loc[-1]), "") if problem.loc else ""
    number = isinstance(problem.value, int | float) and not isinstance(problem.value, bool)
    match problem.kind:
        case "int_type" | "int_parsing" | "int_from_float":
            return "write a whole number"
        case "float_type" | "float_parsing":
            return "write a number"
        case "bool_type" | "bool_parsing":
            return "write true or false"
        case "string_type":
            # a commit or a hash of digits only is a number to YAML
            return "write a text" + (": put it in quotes" if number else "")
        case "string_too_short":
            least = problem.context["min_length"]
            return "write a text" if least == 1 else _with(f"write at least {least} characters", described)
        case "list_type":
            return _with("write a list, such as [a, b]", described)
        case "dict_type":
            return _with("write a mapping of names to entries", described)
        case "model_type":
            needed = [name for name, required in _keys(problem.loc) if required]
            optional = [name for name, required in _keys(problem.loc) if not required]
            if not needed:
                return f"write {{}}, or a mapping with {_listed(optional)}"
            return f"write a mapping with the keys {', '.join(needed)}" + (
                f" (and, where wanted, {', '.join(optional)})" if optional else ""
            )
        case "alternatives":
            one = _plain(described.removeprefix("What it says: ").removesuffix("."))
            return f"write {one or 'a word, a number, true or false'}"
        case _:
            return _plain(problem.message)


def _with(remedy: str, described: str) -> str:
    return f"{remedy} - {described.removesuffix('.')}" if described else remedy


def _cut_off(document: Document, value: Any, path: PathKey, sink: Diagnostics) -> bool:
    """Whether a key is what a comma cut off a text inside {...}: words with spaces and neither colon nor value."""
    key = str(path[-1])
    if value is not None or " " not in key:
        return False
    span = document.key_span(path)
    line = sink.sources.get(span.file, [""])[span.line - 1]
    # a span of one character is a key that goes on in the next line, which only a cut-off text does
    return span.length == 1 or not line[span.column - 1 + span.length :].lstrip().startswith(":")


def _value_at(data: Any, path: PathKey) -> Any:
    for part in path:
        data = data[part]
    return data


def _plain(message: str) -> str:
    return message[:1].lower() + message[1:]
