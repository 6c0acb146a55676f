"""Attentions of our own, in the form in which transformers calls one.

Training: flash attention over rows of several lengths that lie end to end. torch.nn.attention.varlen (torch 2.10 and
later) computes it without padding and without compiling anything. Dao et al. 2022, FlashAttention; the boundaries of
rows are where positions restart.

Sampling: one token of every slot against a cache that is allocated once, by the kernel of runtime.decode_kernel where
it works; else the query heads that share a key stand where positions stand otherwise, so that no key is repeated.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, ClassVar, Final

from epc.runtime import decode_kernel

if TYPE_CHECKING:
    import torch

NAME: Final = "epc_varlen"
"""What a model's `attn_implementation` says."""
SLOTS: Final = "epc_slots"
"""The same for sampling."""
HALF: Final = ("bfloat16", "float16")
CAPABILITY: Final = (8, 0)
"""The oldest GPU that flash attention runs on, Ampere."""


def lacking(dtype: str) -> str:
    """What keeps it from running here; empty when nothing."""
    import torch

    if importlib.util.find_spec("torch.nn.attention.varlen") is None:
        return f"torch {torch.__version__} has no attention over rows of several lengths (2.10 has)"
    if dtype not in HALF:
        return f"flash attention needs half precision, the model is in {dtype}"
    if torch.cuda.get_device_capability() < CAPABILITY:
        return f"{torch.cuda.get_device_name()} is too old for flash attention"
    return ""


def implementation(plan_attention: str) -> str:
    """The name of a plan's attention as transformers knows it, registered when it is ours."""
    if plan_attention != "varlen":
        return plan_attention
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, _Varlen())
    return NAME


def register_slots() -> None:
    """Make the attention of sampling known to transformers."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(SLOTS, Slots())


class _Varlen:
    """Query, key and value (1, heads, tokens, width) -> (1, tokens, heads, width)."""

    def __init__(self) -> None:
        self._of: torch.Tensor | None = None
        self._starts: torch.Tensor | None = None
        self._longest = 0

    def __call__(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any,
        dropout: float = 0.0, scaling: float | None = None, position_ids: torch.Tensor | None = None, **others: Any,
    ) -> tuple[torch.Tensor, None]:  # fmt: skip
        """Causal attention within each row. Raises ValueError for padded rows, for dropout and for sliding windows."""
        from torch.nn.attention.varlen import varlen_attn

        if attention_mask is not None or position_ids is None or query.shape[0] != 1:
            raise ValueError("rows must lie end to end, with their positions and no mask")
        if dropout or others.get("sliding_window") is not None:
            raise ValueError("attention dropout and sliding windows are not computed here")
        starts, longest = self._boundaries(position_ids)
        q, k, v = (part[0].transpose(0, 1).contiguous() for part in (query, key, value))
        groups = q.shape[1] // k.shape[1]
        if groups > 1:
            k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        found = varlen_attn(q, k, v, starts, starts, longest, longest, scale=scaling, window_size=(-1, 0))
        assert not isinstance(found, tuple)
        return found.unsqueeze(0), None

    def _boundaries(self, position_ids: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Where rows begin, and the end; and the longest row. Every layer of a forward pass asks for the same."""
        import torch

        if self._of is not position_ids or self._starts is None:
            flat = position_ids[0]
            starts = (flat == 0).nonzero().flatten()
            ends = torch.cat([starts, starts.new_tensor([len(flat)])])
            self._of, self._starts = position_ids, ends.to(torch.int32)
            self._longest = int((ends[1:] - ends[:-1]).max())
        return self._starts, self._longest


class Slots:
    """Query (rows, heads, tokens, width), key and value (rows, shared heads, positions, width) -> (rows, tokens, heads, width).

    `state` is the cache of the forward pass under way. A decoding step has a mask or knows the slots' lengths; the
    reading of prompts has neither, because they are padded on the right, where causality alone keeps the padding out.
    """

    state: ClassVar[Any] = None

    def __call__(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any,
        dropout: float = 0.0, scaling: float | None = None, **others: Any,
    ) -> tuple[torch.Tensor, None]:  # fmt: skip
        from torch.nn.functional import scaled_dot_product_attention

        rows, heads, _, width = query.shape
        if self.state.read is not None:
            found = decode_kernel.attend(query.view(rows, heads, width), key, value, self.state.read, scaling)
            return found.view(rows, 1, heads, width), None
        shared = key.shape[1]
        if self.state.mask is None:
            if heads > shared:
                key, value = (part.repeat_interleave(heads // shared, dim=1) for part in (key, value))
            found = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
            return found.transpose(1, 2), None
        grouped = query.view(rows, shared, heads // shared, width)  # of one token
        found = scaled_dot_product_attention(grouped, key, value, attn_mask=self.state.mask, scale=scaling)
        return found.reshape(rows, 1, heads, width), None
