"""Randomness that is a pure function of names: SHA-256 of the parts, nothing else.

A draw never depends on order, process, platform or library version, so two machines, two batch
sizes or a resumed run make the same choices.
"""

from __future__ import annotations

import hashlib

SEED_BITS = 63
"""Sampling seeds fit a signed 64-bit integer, which is what torch and vLLM accept."""


def draw(*parts: str | int) -> int:
    """A uniform integer in [0, 2^63) from the SHA-256 of the parts (joined by U+001F)."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") >> 1


def draw_index(size: int, *parts: str | int) -> int:
    """A draw in [0, size). The modulo bias is below size / 2^63.

    Raises ValueError when size is not positive.
    """
    if size <= 0:
        raise ValueError("cannot draw from an empty list")
    return draw(*parts) % size


def shuffled(size: int, *parts: str | int) -> list[int]:
    """A permutation of range(size): indices sorted by their own draw."""
    return sorted(range(size), key=lambda index: (draw(*parts, index), index))
