"""Continuous batches on a GPU: a fixed number of slots, each refilled as soon as its completion has ended.

Plain batched generation copies the whole key-value cache at every token, repeats keys and values for every
query head, and carries rows that have ended along until the last one ends. Here the cache is allocated once,
a decoding step reads each key once for all query heads that share it, samples of one prompt share its
prefill, and no slot waits. What is drawn does not depend on any of that: a token is chosen with the uniform
number of its own seed and position (runtime.sampling); only the rounding of half precision can differ with
the rows that happen to share a step, as it does in every engine.
"""

from __future__ import annotations

import importlib.util
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from transformers.cache_utils import Cache

from epc.runtime import decode_kernel, devices
from epc.runtime.attention import SLOTS, Slots, register_slots

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

SHARE: Final = 0.8
"""Of the free memory that the cache and the scores of a step may fill."""
SCORE_BYTES: Final = 36
"""Of a step for each row and entry of the vocabulary: logits, probabilities and their sums in double precision."""
PREFILL_TOKENS: Final = 16_384
"""Prompt tokens in one forward pass."""
REFILL: Final = 1 / 32
"""Share of the slots that must be free before new prompts are read: a prefill for every single row would cost more."""
COMPACT: Final = 0.7
"""Share of the slots still in use below which, with nothing left to refill them, the others are given up."""
DIFFERENT: Final = 0.05
"""Relative difference of scores that rounding to bf16 explains."""
BUCKET: Final = 32
"""The cache is read up to a multiple of that many positions."""


@dataclass(kw_only=True)
class _Row:
    """A completion under way."""

    number: int
    """Of the request."""
    seed: int
    slot: int
    drawn: int = 0
    """Tokens that the device has drawn or been told to draw."""
    tokens: list[int] = field(default_factory=list)
    """Those that the host has seen."""


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """Tokens that the device draws while the host goes on."""

    rows: list[_Row]
    values: torch.Tensor
    """On the host: (2, rows), whether each ends its completion, and each token."""
    ready: torch.cuda.Event | None


def fuse(model: PreTrainedModel) -> None:
    """Give a model on a GPU Liger's norms, rotary positions and activations, where Liger is installed and knows it."""
    if model.device.type != "cuda" or importlib.util.find_spec("liger_kernel") is None:
        return
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    _apply_liger_kernel_to_instance(model=model, cross_entropy=False, fused_linear_cross_entropy=False)


def unusable(model: PreTrainedModel, prompt: Sequence[int]) -> str:
    """Why this model cannot be sampled here; empty when its scores after a prompt and one more token are the usual ones."""
    import torch

    config: Any = model.config.get_text_config()
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return "its attention has a sliding window"
    if getattr(config, "attn_logit_softcapping", None):
        return "it caps the scores of its attention"
    run: Any = model
    with torch.inference_mode():
        ids = torch.tensor([[*prompt, prompt[0]]], device=model.device)
        usual = run(input_ids=ids, use_cache=False).logits[0, -1].float()
        before = model.config._attn_implementation
        register_slots()
        model.set_attn_implementation(SLOTS)
        try:
            cache = SlotCache(model, slots=1, longest=len(prompt) + 1)
            first = torch.zeros(1, dtype=torch.long, device=model.device)
            cache.reading(first, first)
            at = torch.arange(len(prompt) + 1, device=model.device).unsqueeze(0)
            run(input_ids=ids[:, :-1], position_ids=at[:, :-1], past_key_values=cache, use_cache=True)
            cache.decoding(first + len(prompt), len(prompt) + 1)
            ours = run(input_ids=ids[:, -1:], position_ids=at[:, -1:], past_key_values=cache, use_cache=True).logits[
                0, -1
            ]
        finally:
            model.set_attn_implementation(before)
    error = float((ours.float() - usual).norm() / usual.norm())
    return "" if error < DIFFERENT else f"its scores differ by {error:.2g} from the usual ones"


def slots_for(model: PreTrainedModel, *, longest: int, wanted: int, free: int) -> int:
    """Rows of up to `longest` tokens whose cache and scores fit into `free` bytes; at most as many as are wanted."""
    config: Any = model.config.get_text_config()
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    cache = 2 * config.num_hidden_layers * heads * width * longest * model.dtype.itemsize
    return max(1, min(wanted, int(SHARE * free / (cache + SCORE_BYTES * config.vocab_size))))


def sample(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    seeds: Sequence[int],
    *,
    stops: Sequence[int],
    temperature: float,
    top_p: float,
    max_tokens: int,
    slots: int | None = None,
) -> Iterator[tuple[int, list[int]]]:
    """(number of the prompt, its sampled tokens with the stop token) as each ends, in no particular order.

    `slots` None sizes them to the free memory of the GPU. The model's attention is replaced while the
    iterator runs.
    """
    import torch

    longest = max(map(len, prompts)) + max_tokens
    if slots is None:
        slots = slots_for(model, longest=longest, wanted=len(prompts), free=devices.free_bytes())
    before = model.config._attn_implementation
    register_slots()
    model.set_attn_implementation(SLOTS)
    try:
        with torch.inference_mode():
            yield from _Engine(
                model, prompts, seeds, stops, temperature, top_p, max_tokens, min(slots, len(prompts)), longest
            ).run()
    finally:
        model.set_attn_implementation(before)


class _Engine:
    def __init__(
        self, model: Any, prompts: Sequence[list[int]], seeds: Sequence[int], stops: Sequence[int], temperature: float,
        top_p: float, max_tokens: int, slots: int, longest: int,
    ) -> None:  # fmt: skip
        import torch

        self.model, self.prompts, self.seeds = model, prompts, seeds
        self.temperature, self.top_p, self.max_tokens = temperature, top_p, max_tokens
        self.device = model.device
        self.stop_ids = torch.tensor(sorted(stops), dtype=torch.long, device=self.device)
        # Longest first, and samples of one prompt together: they share its prefill.
        self.waiting = deque(
            sorted(range(len(prompts)), key=lambda number: (-len(prompts[number]), prompts[number], number))
        )
        self.rows: list[_Row | None] = [None] * slots
        self.free = list(range(slots - 1, -1, -1))
        self.drawn: list[_Drawn] = []
        self.cache = SlotCache(model, slots=slots, longest=longest)
        self.last = torch.zeros(slots, dtype=torch.long, device=self.device)
        self.lengths = torch.zeros(slots, dtype=torch.long, device=self.device)
        """Positions of each slot that are in the cache."""
        self.upper = [0] * slots
        """The same on the host."""

    def run(self) -> Iterator[tuple[int, list[int]]]:
        while self.waiting or len(self.free) < len(self.rows):
            if len(self.free) >= REFILL * len(self.rows):
                while self.waiting and self.free:
                    self._fill()
            yield from self._step()
            if not self.waiting and len(self.rows) - len(self.free) < COMPACT * len(self.rows):
                yield from self._settle()
                self._compact()

    def _fill(self) -> None:
        """Read waiting prompts into free slots, and draw the first token of each."""
        import torch

        taken: list[tuple[int, int]] = []  # slot, request
        distinct: dict[tuple[int, ...], int] = {}
        while self.free and self.waiting:
            prompt = tuple(self.prompts[self.waiting[0]])
            if (
                prompt not in distinct
                and (len(distinct) + 1) * max(map(len, [*distinct, prompt])) > PREFILL_TOKENS
                and distinct
            ):
                break
            distinct.setdefault(prompt, len(distinct))
            taken.append((self.free.pop(), self.waiting.popleft()))
        width = max(map(len, distinct))
        ids = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in distinct], device=self.device)
        ends = torch.tensor([len(prompt) - 1 for prompt in distinct], device=self.device)
        slots = torch.tensor([slot for slot, _ in taken], device=self.device)
        source = torch.tensor([distinct[tuple(self.prompts[request])] for _, request in taken], device=self.device)
        self.cache.reading(slots, source)
        hidden = self.model.get_decoder()(
            input_ids=ids, position_ids=torch.arange(width, device=self.device).expand(len(ids), -1),
            past_key_values=self.cache, use_cache=True,
        ).last_hidden_state  # fmt: skip
        scores = self.model.get_output_embeddings()(hidden[torch.arange(len(ids), device=self.device), ends])
        rows = [_Row(number=request, seed=self.seeds[request], slot=slot) for slot, request in taken]
        for row in rows:
            self.rows[row.slot] = row
            self.upper[row.slot] = len(self.prompts[row.number])
        self.lengths[slots] = ends[source] + 1
        self._draw(scores[source], rows, slots)

    def _step(self) -> Iterator[tuple[int, list[int]]]:
        """One token for every slot in use; the others are carried along, and what they compute is dropped.

        Whether the last tokens ended their completions is looked at while the device computes the next ones: a row
        that did is computed once more than need be, and the device never waits for the host.
        """
        import torch

        busy = [row for row in self.rows if row is not None and row.drawn < self.max_tokens]
        if not busy:
            yield from self._settle()
            return
        used = max(self.upper[row.slot] for row in busy) + 1
        self.cache.decoding(self.lengths, -(-used // BUCKET) * BUCKET)
        hidden = self.model.get_decoder()(
            input_ids=self.last.unsqueeze(-1), position_ids=self.lengths.unsqueeze(-1), past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state  # fmt: skip
        scores = self.model.get_output_embeddings()(hidden[:, -1])
        # Of a slot that is not in use it says nothing, but a position of the cache it must be.
        self.lengths = (self.lengths + 1).clamp(max=self.cache.positions - 1)
        for row in busy:
            self.upper[row.slot] += 1
        yield from self._settle()
        rows = [row for row in busy if self.rows[row.slot] is row]
        if not rows:
            return
        if len(rows) == len(self.rows):
            self._draw(scores, rows, None)
        else:
            index = torch.tensor([row.slot for row in rows], device=self.device)
            self._draw(scores[index], rows, index)

    def _draw(self, scores: torch.Tensor, rows: list[_Row], index: torch.Tensor | None) -> None:
        """Have the device draw a token for each of these rows, which are those of the slots in `index`, or all in order."""
        import torch

        from epc.runtime.sampling import choose, uniform

        uniforms = [uniform(row.seed, row.drawn) for row in rows]
        chosen = choose(scores, uniforms, temperature=self.temperature, top_p=self.top_p)
        if index is None:
            self.last = chosen
        else:
            self.last[index] = chosen
        for row in rows:
            row.drawn += 1
        values = torch.stack([torch.isin(chosen, self.stop_ids).long(), chosen])
        if self.device.type != "cuda":
            self.drawn.append(_Drawn(rows=rows, values=values, ready=None))
            return
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        ready = torch.cuda.Event()  # type: ignore[no-untyped-call]
        ready.record()
        self.drawn.append(_Drawn(rows=rows, values=host, ready=ready))

    def _settle(self) -> Iterator[tuple[int, list[int]]]:
        """Look at the tokens that were drawn, and hand out what has ended."""
        drawn, self.drawn = self.drawn, []
        for some in drawn:
            if some.ready is not None:
                some.ready.synchronize()
            ended, tokens = some.values.tolist()
            for row, stopped, token in zip(some.rows, ended, tokens, strict=True):
                row.tokens.append(token)
                if stopped or len(row.tokens) == self.max_tokens:
                    self.rows[row.slot] = None
                    self.upper[row.slot] = 0
                    self.free.append(row.slot)
                    yield row.number, row.tokens

    def _compact(self) -> None:
        """Keep the slots in use only."""
        import torch

        rows = [row for row in self.rows if row is not None]
        index = torch.tensor([row.slot for row in rows], dtype=torch.long, device=self.device)
        self.cache.keep(index)
        self.last, self.lengths = self.last[index], self.lengths[index]
        self.upper = [self.upper[row.slot] for row in rows]
        for slot, row in enumerate(rows):
            row.slot = slot
        self.rows = list(rows)
        self.free = []


class SlotCache(Cache):
    """Keys and values of every slot: a pair of tensors (slots, positions, heads, width) a layer, allocated once."""

    def __init__(self, model: PreTrainedModel, *, slots: int, longest: int) -> None:
        import torch

        super().__init__(layers=[])
        config: Any = model.config.get_text_config()
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        positions = -(-(longest + 1) // BUCKET) * BUCKET
        self.positions = positions
        shape = (slots, positions, heads, width)
        self.keys = [
            torch.zeros(shape, dtype=model.dtype, device=model.device) for _ in range(config.num_hidden_layers)
        ]
        self.values = [torch.zeros_like(layer) for layer in self.keys]
        self.slots: torch.Tensor | None = None
        self.source: torch.Tensor | None = None
        self.every = torch.arange(slots, device=model.device)
        self.at: torch.Tensor | None = None
        self.used = 0
        self.mask: torch.Tensor | None = None
        """Of a decoding step: (slots, 1, 1, positions read), true where a slot has a key."""
        self.read: torch.Tensor | None = None
        """Of a decoding step where the device has the kernel for it: how many positions of each slot; then there is no mask."""
        self.has_kernel = decode_kernel.works(model.device, model.dtype, config.num_attention_heads, heads, width)

    def reading(self, slots: torch.Tensor, source: torch.Tensor) -> None:
        """The next forward pass reads prompts: row `source[i]` of it is copied into `slots[i]`."""
        self.slots, self.source, self.mask, self.read = slots, source, None, None
        Slots.state = self

    def decoding(self, lengths: torch.Tensor, used: int) -> None:
        """The next forward pass has one token a slot, written behind `lengths`; `used` positions are read."""
        import torch

        self.slots = None
        self.at, self.used = lengths, min(used, self.positions)
        Slots.state = self
        if self.has_kernel:
            self.read = (lengths + 1).to(torch.int32)
            return
        places = torch.arange(self.used, device=lengths.device)
        self.mask = (places <= lengths.unsqueeze(-1)).view(len(lengths), 1, 1, self.used)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store what a layer has computed; return what its attention reads."""
        keys, values = self.keys[layer_idx], self.values[layer_idx]
        if self.slots is not None and self.source is not None:
            width = key_states.shape[2]
            keys[self.slots, :width] = key_states.transpose(1, 2)[self.source]
            values[self.slots, :width] = value_states.transpose(1, 2)[self.source]
            return key_states, value_states
        assert self.at is not None
        keys[self.every, self.at] = key_states[:, :, 0]
        values[self.every, self.at] = value_states[:, :, 0]
        if self.read is not None:
            return keys, values  # whole: the kernel is told how much of each slot to read
        return keys[:, : self.used].transpose(1, 2), values[:, : self.used].transpose(1, 2)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0 if self.slots is not None else self.used

    def keep(self, index: torch.Tensor) -> None:
        """Give up all other slots."""
        self.every = self.every[: len(index)]
        for layer in range(len(self.keys)):
            self.keys[layer], self.values[layer] = self.keys[layer][index], self.values[layer][index]
