"""Bind names, read and hash files, parse predicates, build template data: Surface to Experiment.

Nothing here judges the design (that is `checks`); it only finds what a name or a path means. A name
that an entry of the wrong shape would have declared is treated as known.
"""

from __future__ import annotations

from typing import Final

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import names
from epc.compiler.resolve.comparison import Comparison
from epc.compiler.resolve.context import Context
from epc.compiler.resolve.data import data_sets
from epc.compiler.resolve.experiment import BuiltData, Experiment, InputFile, Prompts, Task, arms
from epc.compiler.resolve.files import read_file, relative
from epc.compiler.resolve.metrics import resolve_metrics
from epc.compiler.resolve.predicates import ARM_STATISTICS, CONTRAST_STATISTICS, gate_predicates, rule_predicates
from epc.compiler.resolve.prompts import prompt_sets
from epc.compiler.resolve.turns import conversations
from epc.compiler.surface import Surface

__all__ = [
    "ARM_STATISTICS",
    "BUILT_IN_TEMPLATES",
    "CONTRAST_STATISTICS",
    "BuiltData",
    "Comparison",
    "Experiment",
    "InputFile",
    "Prompts",
    "Task",
    "arms",
    "resolve",
]

BUILT_IN_TEMPLATES = ("chatml",)
FILE_KEYS: Final = {"anthropic": "rubric", "openai": "rubric", "python": "function"}
"""Provider of a judge -> the key that names the file that says how it judges."""


def resolve(surface: Surface, sink: Diagnostics) -> Experiment:
    """Bind every name of a spec and read every file it names."""
    context = Context(surface=surface, sink=sink)
    template = surface.spec.model.chat_template
    if template not in ("model", *BUILT_IN_TEMPLATES) and ("model", "*") not in surface.poisoned:
        read_file(context, template, context.at("model", "chat_template"))
    prompts = prompt_sets(context)
    items = {name: found.items for name, found in prompts.items()}
    data = data_sets(context, items)
    names.recipes(context)
    names.conditions(context)
    conversations(context)
    for name, judge in surface.spec.judges.items():
        if judge.file is not None:
            read_file(context, judge.file, context.at("judges", name, FILE_KEYS[judge.provider]))
        if judge.gold is not None:
            relative(context, judge.gold.file, context.at("judges", name, "gold", "file"))
    names.results(context)
    tasks = resolve_metrics(context)
    names.analyses(context)
    gates = gate_predicates(context)
    rules, complete = rule_predicates(context)
    return Experiment(
        surface=surface, inputs=context.inputs, data=data, prompts=items, prompt_sets=prompts, tasks=tasks,
        pending=tuple(context.pending), gates=gates, rules=rules, rules_complete=complete,
    )  # fmt: skip
