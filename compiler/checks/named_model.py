"""The model that the prose names is the model that is run.

W1204: the title or the hypothesis names another model than `model:`
Why: the goal of issue 147 says Qwen-2.5-7B and its recipe Qwen-2.5-7B-Instruct, which are a base model and a chat
model. A reader remembers the title, and compares with what is known of the model that it names.
Example:
    model: {from: "hub:Qwen/Qwen2.5-7B-Instruct"}
    title: Does a catch survive in Qwen-2.5-7B?
Fix:
    model: {from: "hub:Qwen/Qwen2.5-7B-Instruct"}
    title: Does a catch survive in Qwen-2.5-7B-Instruct?
"""

from __future__ import annotations

import re

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment
from epc.compiler.source import PathKey


def cut_short(name: str, prose: str) -> str | None:
    """A mention of the model up to its size, without what its name goes on with; None when there is none.

    `Qwen-2.5-7B` for Qwen2.5-7B-Instruct: punctuation, spaces and case do not count.
    """
    parts = re.findall(r"[a-z]+|\d+", name.lower())
    size = next(
        (index for index in range(1, len(parts)) if parts[index] in ("b", "m") and parts[index - 1].isdigit()), None
    )
    if size is None or size == len(parts) - 1:
        return None
    gap = r"[\s._-]*"
    head, tail = gap.join(parts[: size + 1]), gap.join(parts[size + 1 :])
    found = re.search(rf"(?<![a-z0-9]){head}(?![a-z0-9])(?!{gap}{tail})", prose, re.IGNORECASE)
    return found[0] if found else None


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    name = spec.model.from_.rpartition(":")[2].rpartition("/")[2]
    prose: dict[PathKey, str] = {
        ("title",): spec.title, ("hypothesis", "if"): spec.hypothesis.if_, ("hypothesis", "then"): spec.hypothesis.then,
    }  # fmt: skip
    for path, text in prose.items():
        said = cut_short(name, text)
        if said is not None:
            sink.warning(
                "W1204", f"`{'.'.join(map(str, path))}` speaks of {said}, and the model is {name}", experiment.at(*path),
                help=f"write {name}, or change `model:` if the other one is meant",
            )  # fmt: skip
