"""One decoding step of attention against a cache in slots, as a Triton kernel.

Every program reads the keys and values of one slot and one shared head once, for all query heads that share them
(Ainslie et al. 2023, GQA), with a running softmax (Dao et al. 2022, FlashAttention). The flash kernels made for training
pad the few query heads of a group to 64 or 128 rows; at 2,400 slots that takes longer than the reading.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import torch

BLOCK: Final = 64
"""Positions that are read at once."""
FEWEST_ROWS: Final = 16
"""Rows of the smallest matrix product on tensor cores."""
LOG2_E: Final = 1.4426950408889634


@functools.cache
def _kernel() -> Any:
    import triton
    import triton.language as tl

    @triton.jit  # type: ignore[untyped-decorator]
    def attend(  # type: ignore[no-untyped-def]
        query, key, value, found, lengths, scale, query_slot, query_head, key_slot, key_position, key_head,
        group: tl.constexpr, height: tl.constexpr, width: tl.constexpr, breadth: tl.constexpr, block: tl.constexpr,
    ):  # fmt: skip
        slot, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
        rows, columns, places = tl.arange(0, height), tl.arange(0, breadth), tl.arange(0, block)
        queries = slot * query_slot + (head * group + rows[:, None]) * query_head + columns[None, :]
        wanted = (rows[:, None] < group) & (columns[None, :] < width)
        q = tl.load(query + queries, mask=wanted, other=0.0)
        length = tl.load(lengths + slot)
        start = slot * key_slot + head * key_head + columns[None, :]
        top = tl.full([height], float("-inf"), tl.float32)
        total = tl.zeros([height], tl.float32)
        sums = tl.zeros([height, breadth], tl.float32)
        for first in range(0, length, block):
            there = first + places < length
            at = start + (first + places)[:, None].to(tl.int64) * key_position
            held = there[:, None] & (columns[None, :] < width)
            k = tl.load(key + at, mask=held, other=0.0)
            scores = tl.dot(q, tl.trans(k)) * scale
            scores = tl.where(there[None, :], scores, float("-inf"))
            peak = tl.maximum(top, tl.max(scores, 1))
            weights = tl.exp2(scores - peak[:, None])
            shrink = tl.exp2(top - peak)
            v = tl.load(value + at, mask=held, other=0.0)
            sums = sums * shrink[:, None] + tl.dot(weights.to(v.dtype), v)
            total = total * shrink + tl.sum(weights, 1)
            top = peak
        tl.store(found + queries, (sums / total[:, None]).to(found.dtype.element_ty), mask=wanted)

    return attend


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: torch.Tensor, scale: float | None
) -> torch.Tensor:
    """Query (slots, heads, width); keys and values (slots, positions, shared heads, width) -> (slots, heads, width).

    Of slot i the first `lengths[i]` positions are read, at least one. `scale` None is 1 / sqrt(width).
    """
    import torch
    import triton

    query = query.contiguous()
    slots, heads, width = query.shape
    shared = key.shape[2]
    group = heads // shared
    found = torch.empty_like(query)
    assert key.stride() == value.stride()
    assert key.stride(3) == 1
    _kernel()[(slots, shared)](
        query, key, value, found, lengths, (scale or width**-0.5) * LOG2_E, query.stride(0), query.stride(1),
        key.stride(0), key.stride(1), key.stride(2), group=group, height=max(FEWEST_ROWS, triton.next_power_of_2(group)),
        width=width, breadth=triton.next_power_of_2(width), block=BLOCK, num_warps=4,
    )  # fmt: skip
    return found


@functools.cache
def works(device: torch.device, dtype: torch.dtype, heads: int, shared: int, width: int) -> bool:
    """Whether the kernel compiles on this device for heads of this shape and gives the usual numbers: tried."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return False
    generator = torch.Generator(device=device).manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=dtype)

    positions = 2 * BLOCK + 32
    query, key, value = draw(3, heads, width), draw(3, positions, shared, width), draw(3, positions, shared, width)
    lengths = torch.tensor([1, 17, positions - 3], device=device, dtype=torch.int32)
    try:
        ours = attend(query, key, value, lengths, None)
    except Exception as error:  # Triton is not there, or its compiler fails, in ways of its own
        print(f"decoding without the kernel for grouped heads: {type(error).__name__}: {str(error)[:200]}", flush=True)
        return False
    mask = (torch.arange(positions, device=device) < lengths[:, None])[:, None, None]
    usual = scaled_dot_product_attention(
        query[:, :, None], key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask, enable_gqa=True
    )[:, :, 0]
    return bool(torch.allclose(ours.float(), usual.float(), atol=0.02))
