"""E0751, E0752: sampling that cannot give what is asked of it.

Why: at temperature 0 every completion of a prompt is the same one, so n of them cost n times as much and
count one fact n times; and vLLM serves adapters up to a fixed rank, which stacked phases add up to.

Example:
    sample: {answers: {prompts: heldout, n: 8, temperature: 0, ...}}

Fix: n: 1, or a temperature above 0.
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
