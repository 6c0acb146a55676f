"""What an arm is made of, whatever it and its parts are called.

A condition's name is no identity: two experiments may both have a `c6_vanilla_em` that were trained on other data.
Its content is the base model, the recipes of its phases in order with the data of each, and its system prompt.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from epc.compiler.comparison.registration import PENDING, Registration, model_of
from epc.compiler.contract.canonical import canonical_json, content_key

UNKNOWN: Final = "unknown"
"""Where a registration does not say, or a hash is still pending."""
_LEFT_OUT: Final = ("data", "optimizer_steps", "lora")
"""Parts of a recipe that are read apart: the name of the data says nothing, the steps follow from the rest."""
_OF_HASH: Final = ("how the data is made", "data rows")
"""Parts about which the hash of the data says all."""
_HASH: Final = re.compile(r"[0-9a-f]{64}")


def known_hash(value: object) -> str | None:
    """A SHA-256, None for `pending` and for anything else."""
    return value if isinstance(value, str) and _HASH.fullmatch(value) else None


def entry(registration: Registration, section: str, name: object) -> Mapping[str, Any]:
    """An entry by name, empty where there is none."""
    return registration.section(section).get(name, {}) if isinstance(name, str) else {}


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def phases(registration: Registration, condition: str) -> list[str]:
    """Training phases of an arm."""
    found = entry(registration, "conditions", condition).get("phases", [])
    return [str(phase) for phase in found] if isinstance(found, list) else []


def recipe(registration: Registration, phase: str) -> dict[str, Any]:
    """Part -> value of a training phase and its data; UNKNOWN where the registration does not say."""
    train = entry(registration, "train", phase)
    given: dict[str, Any] = {
        name: train.get(name, UNKNOWN)
        for name in model_of("train", train).model_fields
        if name not in _LEFT_OUT and not (name == "warmup_steps" and train.get("warmup_ratio") is not None)
    }
    lora = train.get("lora")
    for name in ("r", "alpha", "dropout", "target_modules"):
        value = lora.get(name, UNKNOWN) if isinstance(lora, dict) else UNKNOWN
        given[f"lora {name}"] = sorted(map(str, value)) if isinstance(value, list) else value
    data = entry(registration, "data", train.get("data"))
    given["data hash"] = known_hash(data.get("sha256")) or UNKNOWN
    given["data rows"] = data.get("rows", UNKNOWN)
    given["how the data is made"] = UNKNOWN if given["data hash"] != UNKNOWN else _making(registration, data)
    return given


def _making(registration: Registration, data: Mapping[str, Any]) -> str:
    """A key of how rows without a known hash are built; UNKNOWN for a file, of which nothing else is known."""
    if "build" not in data:
        return UNKNOWN
    fill = _mapping(data.get("fill"))
    written = {
        key: {**value, "generate": _content(registration, "generate", value.get("generate"))}
        for key, value in fill.items()
        if isinstance(value, dict)
    }
    read = {key: registration.sha256(value) or value for key, value in fill.items() if not isinstance(value, dict)}
    made = {key: data.get(key) for key in ("rows", "seed", "system", "turns")}
    return content_key(
        _plain({**made, "fill": {**read, **written}, "prompts": _prompts(registration, data.get("prompts"))})
    )


def _prompts(registration: Registration, names: object) -> list[Any]:
    listed = names if isinstance(names, list) else [names]
    return [entry(registration, "prompts", name).get("sha256", name) for name in listed]


def _content(registration: Registration, section: str, name: object) -> dict[str, Any]:
    found = entry(registration, section, name)
    return {**found, "prompts": _prompts(registration, found.get("prompts"))}


def _plain(value: Any) -> Any:
    """Something that JSON can carry, whatever a hand-written lock holds."""
    match value:
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case str() | bool() | None:
            return value
        case _:
            return repr(value)


def condition_content(registration: Registration, name: str) -> dict[str, Any]:
    """Part -> value of an arm, such as `learning rate of phase 1`; UNKNOWN where the registration does not say."""
    model, condition = registration.design["model"], entry(registration, "conditions", name)
    parts: dict[str, Any] = {
        "base model": model.get("from", UNKNOWN),
        "model revision": model.get("revision") or UNKNOWN,
        "model precision": model.get("dtype", UNKNOWN),
        "chat template": _chat_template(model),
        "system prompt": condition.get("system"),
    }
    chain = phases(registration, name)
    parts["number of phases"] = len(chain)
    for number, phase in enumerate(chain, start=1):
        where = f" of phase {number}" if len(chain) > 1 else ""
        parts |= {
            f"{part.replace('_', ' ')}{where}": value
            for part, value in recipe(registration, phase).items()
            if part != "on_top" or number > 1  # of a first phase it says nothing
        }
    return parts


def _chat_template(model: Mapping[str, Any]) -> Any:
    return model.get("chat_template_sha256") or model.get("chat_template", UNKNOWN)


def content_differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Parts that both know and that differ; the number of phases alone where that differs.

    Data that both name by its hash is told apart by that alone; data of which a hash is not known, by how it is made.
    """
    if before["number of phases"] != after["number of phases"]:
        return ["number of phases"]
    found = []
    for part, value in after.items():
        other = before.get(part, UNKNOWN)
        if part.startswith("chat template") and _hashed(value) != _hashed(other):
            continue  # a lock that names its template without the text cannot be held against one with a hash
        if UNKNOWN not in (value, other) and _plain(value) != _plain(other):
            found.append(part)
    return found


def _hashed(value: object) -> bool:
    return known_hash(value) is not None


def pinned(registration: Registration, condition: str) -> bool:
    """Whether every data set that an arm was trained on has a known hash. True for an untrained arm."""
    return all(
        known_hash(entry(registration, "data", entry(registration, "train", phase).get("data")).get("sha256"))
        for phase in phases(registration, condition)
    )


def same_content(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether two arms are known to be the same: every part is stated, and the data by its hash."""
    if content_differences(before, after) or _hashed(before["chat template"]) != _hashed(after["chat template"]):
        return False
    return all(
        UNKNOWN not in (before.get(part), value) for part, value in after.items() if not part.startswith(_OF_HASH)
    )


def evaluation_content(registration: Registration, metric: str) -> str | None:
    """A key of what a metric measures and how: sample set, prompts, judge. None where a hash is pending or unknown.

    Samples a prompt and the sampling seed are left out: they change the noise, not what is measured.
    """
    found = dict(entry(registration, "metrics", metric))
    for words in ("describe", "noise"):
        found.pop(words, None)
    for name in ("contains_any", "lm_eval"):
        if isinstance(found.get(name), str):
            found[name] = registration.sha256(found[name])
            if found[name] is None:
                return None
    if "of" in found:
        sample = dict(entry(registration, "sample", found["of"]))
        prompts = entry(registration, "prompts", sample.get("prompts"))
        if awaited(registration, sample.get("prompts")) or known_hash(prompts.get("sha256")) is None:
            return None
        fill = _mapping(sample.get("fill"))
        sample["fill"] = {key: registration.sha256(path) or path for key, path in fill.items()}
        sample["prompts"] = prompts["sha256"]
        found["of"] = {key: value for key, value in sample.items() if key not in ("n", "seed")}
        found["sampler"] = registration.design.get("sampler")
    if "judge" in found:
        judge = dict(entry(registration, "judges", found["judge"]))
        file, _, name = str(judge.get("function", "")).rpartition(":")
        read = judge.get("patterns") or registration.sha256(judge.get("rubric", file))
        if read is None:
            return None
        asked = {key: judge.get(key) for key in ("provider", "model", "output", "options", "votes", "aggregate")}
        found["judge"] = {**asked, "function": name, "read": read}
    return canonical_json(_plain(found))


def awaited(registration: Registration, prompts: object) -> bool:
    """Whether a prompt set, or a part of a union, is somebody's file whose hash is pending."""
    parts = entry(registration, "prompts", prompts).get("union")
    sets = [prompts, *(parts if isinstance(parts, list) else [])]
    found = [entry(registration, "prompts", name).get("external") for name in sets]
    return any(isinstance(external, dict) and external.get("sha256") == PENDING for external in found)
