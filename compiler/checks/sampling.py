"""Sampling that cannot give what is asked of it.

E0751: several completions of a prompt are sampled at temperature 0
Why: At temperature 0 the likeliest token is taken every time, so all completions of a prompt are one text. Fifty of
them cost fifty times as much and tell one fact fifty times; printed as n = 50, they look like evidence.
Example:
    sample: {second: {n: 25, temperature: 0}}
Fix:
    sample: {second: {n: 25, temperature: 0.7}}     # or n: 1 at temperature 0

E0752: an arm needs a LoRA rank that vLLM does not serve
Why: The vLLM engine serves adapters up to a fixed rank. Phases with `on_top: stack` are served as one adapter whose
rank is their sum, so that two phases that are each small enough can be too large together. Found out by the engine,
that would be after all training is paid for.
Example:
    sampler: vllm
    train: {attack: {on_top: stack, lora: {r: 512, alpha: 512}}}     # 16 + 512 in the arm `treated`
Fix:
    sampler: vllm
    train: {attack: {on_top: stack, lora: {r: 16, alpha: 32}}}
"""

from __future__ import annotations

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.kinds.sample import LORA_RANKS, adapter_ranks
from epc.compiler.resolve import Experiment


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    for section, entries in (("generate", spec.generate), ("sample", spec.sample)):
        for name, entry in entries.items():
            if entry.temperature == 0 and entry.n > 1:
                sink.error(
                    "E0751", f'"{name}" takes {entry.n} completions of each prompt at temperature 0, and all are the same',
                    experiment.at(section, name, "n"), help="write n: 1, or a temperature above 0",
                )  # fmt: skip
    if spec.sampler != "vllm":
        return
    for name in spec.conditions:
        terms = adapter_ranks(spec, name)
        if sum(terms) > LORA_RANKS[-1]:
            stacked = " + ".join(map(str, terms))
            sink.error(
                "E0752", f'arm "{name}" needs LoRA rank {sum(terms)}, and vLLM serves at most {LORA_RANKS[-1]}',
                experiment.key_at("conditions", name), help="lower `lora.r`, or write sampler: transformers",
                notes=[f"stacked adapters are served as one: {stacked} = {sum(terms)}"] if len(terms) > 1 else [],
            )  # fmt: skip
