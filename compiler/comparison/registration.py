"""A registration as data, from a lock or from a spec, in one form.

The form is that of spec.lock.yaml. A lock that was written before a key existed reads as if the key were empty. What
every lock states and this one, written by hand, does not stays absent: it is unknown, and never a default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from epc.compiler import decision
from epc.compiler import spec as language
from epc.compiler.comparison.rules import NAMED
from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.judge_models import API_VERSION
from epc.compiler.lowering import phase_facts
from epc.compiler.predicate import parse, unparse
from epc.compiler.resolve import BUILT_IN_TEMPLATES, Experiment
from epc.compiler.templates import template

Entry = dict[str, Any]
PENDING: Final = "pending"
STATED: Final = ("seeds", "model", "sampler", *NAMED, "verdicts")
"""What every lock that epc wrote states, empty or not."""


@dataclass(frozen=True, kw_only=True)
class Registration:
    name: str
    """As messages call it: a path, or a revision and a path."""
    design: Mapping[str, Any]
    """The lock's form; see the module."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 -> text of what is at hand: rubrics, prompt sets (one prompt a line), fillings."""
    unstated: frozenset[str] = frozenset()
    """Keys that every lock has and this one, written by hand, has not: what they say is not known."""

    @classmethod
    def of_lock(cls, data: Mapping[str, Any], name: str, texts: Mapping[str, str] | None = None) -> Registration:
        """Raises ValueError with one sentence when `data` has not the shape of a lock."""
        found = problem(data)
        if found is not None:
            raise ValueError(found)
        unstated = frozenset(key for key in STATED if data.get(key) is None)
        return cls(name=name, design=_filled(data), texts=texts or {}, unstated=unstated)

    @classmethod
    def of_experiment(cls, experiment: Experiment, name: str) -> Registration:
        """A spec as its lock would state it, content keys left out. Parts that could not be resolved stay as written."""
        texts = {entry.sha256: entry.text for entry in experiment.inputs.values()}
        for prompts in experiment.prompts.values():
            text = "\n".join(prompts)
            texts[sha256_text(text)] = text
        return cls(name=name, design=_filled(_as_lock(experiment)), texts=texts)

    def section(self, name: str) -> Mapping[str, Entry]:
        found: Mapping[str, Entry] = self.design.get(name, {})
        return found

    def sha256(self, path: object) -> str | None:
        """Hash of a file that the registration names, None where it does not say."""
        found = self.design["files"].get(path) if isinstance(path, str) else None
        return found if isinstance(found, str) else None

    def meant_to_differ_from(self, plan: Path, folder: Path) -> set[str]:
        """The groups that a spec in `folder` says are meant to differ from a plan that its lineage cites."""
        lineage = self.design["lineage"]
        return {
            str(group)
            for citation in (lineage if isinstance(lineage, list) else [])
            if isinstance(citation, dict) and isinstance(citation.get("plan"), str)
            if (folder / citation["plan"]).resolve() == plan.resolve() and isinstance(citation.get("varies"), list)
            for group in citation["varies"]
        }


def problem(data: object) -> str | None:
    """Why something is not a lock, None when it can be read as one."""
    if not isinstance(data, dict):
        return "it is not a mapping of keys to values"
    if not isinstance(data.get("conditions"), dict) or not data["conditions"]:
        return "it declares no conditions"
    for section in NAMED:
        entries = data.get(section) or {}
        if not isinstance(entries, dict):
            return f"`{section}` is not a mapping of names"
        for name, entry in entries.items():
            if not isinstance(entry, dict) and not (section == "conditions" and isinstance(entry, list)):
                return f"`{section}.{name}` is not a mapping"
    for key in ("model", "files"):
        if not isinstance(data.get(key) or {}, dict):
            return f"`{key}` is not a mapping"
    rules = data.get("verdicts") or []
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        return "`verdicts` is not a list of rules"
    seeds = data.get("seeds") or []
    if not isinstance(seeds, list) or not all(isinstance(seed, int) for seed in seeds):
        return "`seeds` is not a list of numbers"
    return None


@cache
def _defaults(model: type[BaseModel]) -> Entry:
    return {
        info.alias or name: _plain(info.get_default(call_default_factory=True))
        for name, info in model.model_fields.items()
        if not info.is_required()
    }


def is_stated_always(section: str, entry: Mapping[str, Any], key: str) -> bool:
    """Whether a lock that epc wrote has a key, so that one without it does not say.

    A default that says nothing (null, an empty list) is what a key that is left out means, and what a key means that
    the language got later. Recipes state everything.
    """
    if (section, key) == ("judges", "api_version"):
        return True
    info = model_of(section, entry).model_fields.get(key)
    if info is None:
        return False
    return info.is_required() or section == "train" or bool(info.get_default(call_default_factory=True))


def _plain(value: Any) -> Any:
    match value:
        case BaseModel():
            return {key: item for key, item in value.model_dump(mode="json", by_alias=True).items() if item is not None}
        case list():
            return [_plain(item) for item in value]
        case _:
            return value


def model_of(section: str, entry: Mapping[str, Any]) -> type[BaseModel]:
    """The surface model of an entry of a section."""
    match section:
        case "data":
            return language.FileData if "file" in entry else language.TurnsData
        case "metrics":
            if "lm_eval" in entry:
                return language.LmEvalMetric
            if "results" in entry:
                return language.ResultMetric
            return language.JudgeMetric if "judge" in entry else language.PatternMetric
        case "judges":
            return _JUDGES.get(str(entry.get("provider")), language.ModelJudge)
        case _:
            return _MODELS[section]


_MODELS: Final[dict[str, type[BaseModel]]] = {
    "train": language.LoraSft, "conditions": language.Condition, "prompts": language.PromptSet,
    "generate": language.Generation, "sample": language.SampleSet,
    "analyses": language.Analysis, "gates": language.Gate, "results": language.ResultsFile, "families": language.Family,
    "truths": language.Truth,
}  # fmt: skip


_JUDGES: Final[dict[str, type[BaseModel]]] = {"patterns": language.PatternJudge, "python": language.PythonJudge}


def _filled(data: Mapping[str, Any]) -> Entry:
    """Every default filled in, every short form written out."""
    value = _with_defaults({key: item for key, item in data.items() if item is not None}, language.Spec)
    for section in NAMED:
        value[section] = {name: _entry(section, entry) for name, entry in (value.get(section) or {}).items()}
    value["model"] = _with_defaults(data["model"], language.Model, empty=True) if data.get("model") else {}
    value["verdicts"] = [_rule(rule) for rule in value.get("verdicts") or []]
    value["files"] = dict(value.get("files") or {})
    return value


def _with_defaults(given: Mapping[str, Any], model: type[BaseModel], *, empty: bool = False) -> Entry:
    """In the order of what is given; the defaults that it leaves out follow, with `empty` only those that say nothing."""
    return {
        **given,
        **{key: value for key, value in _defaults(model).items() if key not in given and not (empty and value)},
    }


def _entry(section: str, entry: Any) -> Entry:
    if isinstance(entry, list):
        entry = {"phases": entry}
    merged = dict(entry) if section == "train" else _with_defaults(entry, model_of(section, entry), empty=True)
    if section == "analyses":
        merged.setdefault("population", "random")  # what every plan meant that was written before the key
    if section == "judges" and merged.get("provider", "anthropic") in ("anthropic", "openai"):
        # what every plan meant that was written before these keys
        merged.setdefault("votes", 1)
        merged.setdefault("batch_from", None)
    if section == "gates":
        text = merged.get("predicate", merged.get("require") or merged.get("when"))
        merged = {key: item for key, item in merged.items() if key not in ("require", "when")}
        if isinstance(text, str):
            parsed = parse(text, allow_names=False).predicate
            merged["predicate"] = text if parsed is None else unparse(parsed)
    if section == "train" and {"warmup_ratio", "warmup_steps"} & set(merged):
        merged = {**merged, "warmup_ratio": merged.get("warmup_ratio"), "warmup_steps": merged.get("warmup_steps")}
        if merged["warmup_ratio"] is None and merged["warmup_steps"] is None:
            merged["warmup_steps"] = 0
    if isinstance(merged.get("turns"), list):
        merged["turns"] = [
            {role: text for role, text in turn.items() if text is not None} if isinstance(turn, dict) else turn
            for turn in merged["turns"]
        ]
    return merged


def _rule(rule: Mapping[str, Any]) -> Entry:
    if "otherwise" in rule:
        return {"if": "otherwise", "then": rule["otherwise"], "say": rule.get("say", "")}
    text = rule.get("if")
    parsed = parse(text, allow_names=True).predicate if isinstance(text, str) and text != "otherwise" else None
    return {"say": "", **rule, **({} if parsed is None else {"if": unparse(parsed)})}


def _as_lock(experiment: Experiment) -> Entry:
    """The lock of `lower` without content keys, for an experiment that may have errors."""
    spec = experiment.spec
    value: Entry = spec.model_dump(mode="json", by_alias=True, warnings=False)
    for name, built in experiment.data.items():
        value["data"][name]["sha256"] = built.sha256 or PENDING
    for name in spec.train:
        facts = phase_facts(experiment, name)
        if facts is not None:
            value["train"][name] |= {"optimizer_steps": facts.optimizer_steps, "warmup_steps": facts.warmup_steps}
    for name, prompts in experiment.prompts.items():
        value["prompts"][name]["sha256"] = sha256_text("\n".join(prompts))
    for name, judge in spec.judges.items():
        if judge.provider == "anthropic":
            value["judges"][name]["api_version"] = API_VERSION
    value["conditions"] = {name: {"phases": spec.phases(name), "system": spec.system(name)} for name in spec.conditions}
    looks = decision.interim(experiment)
    if looks is not None:
        value["interim"]["levels"] = list(looks.levels)
    if experiment.rules_complete:
        value["verdicts"] = [
            {"if": rule.text, "then": rule.label, "say": rule.say} for rule in decision.verdicts(experiment)
        ]
    chosen = spec.model.chat_template
    text = template(f"chat/{chosen}.jinja") if chosen in BUILT_IN_TEMPLATES else None
    if chosen in experiment.inputs:
        text = experiment.inputs[chosen].text
    value["model"]["chat_template_sha256"] = None if text is None else sha256_text(text)
    value["files"] = {path: entry.sha256 for path, entry in sorted(experiment.inputs.items())}
    return value
