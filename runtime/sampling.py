"""Completions from one arm after another, each a pure function of its own seed.

Each (seed, set, item, turn, index) has a seed of its own by SHA-256, so rows share no noise. In the
transformers engine, here, token after token is drawn by inverting the cumulative distribution at a
uniform number that SHA-256 makes of (that seed, position). Arms share the seeds, which pairs them
(common random numbers).

So in either engine a draw depends on nothing else: not on the order of the requests, the size of a batch,
the other arms, sets and prompts of the run, or a crash in between. What is drawn from, a model computes for
several rows at once, and how many decides how a kernel rounds. In float32 that has changed no completion
(tests/runtime/steps hold both engines to it). In bfloat16 it changes some tokens, and a text from there on: of 32
greedy completions of 64 tokens by SmolLM2-135M on a processor, 19 differ between batches of 1 and of 32. The
distribution is the same, and so is every text of a second run, because batches are cut from the sorted requests
alone, as if nothing were stored yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from epc.compiler.contract import chat
from epc.compiler.contract.chat import Message
from epc.compiler.contract.draws import SEED_BITS, draw
from epc.runtime import data, device_faults, devices, mask
from epc.runtime.errors import Fault

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BLOCK: Final = 512
"""Entries of the vocabulary that are summed together before a token is looked for among them."""
KEPT_TOGETHER: Final = 64
"""Completions of continuous batches that are stored at once."""
STAND_IN: Final = "[#content#]"
"""What stands for a message where only the chat template's own text is of interest."""
SHORTEST_BORDER: Final = 3
"""Characters of a border between turns that no message may hold: shorter ones stand in ordinary text."""
BATCH_SHARE: Final = 0.5
"""Of what decoding.slots_for gives to a cache that is allocated once: a static batch copies its cache as it grows."""
PER_CONDITION = "per_condition"
"""Value of a sample set's `system` that leaves the system prompt to the arm."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One conversation as text that the model is to continue."""

    item: str
    index: int
    turn: int
    prompt: str
    """The rendered conversation, special tokens included."""
    prompt_ids: list[int]
    """Its token ids."""
    question: str
    """Content of the last user message."""
    draw_seed: int
    """In [0, 2^63); no other request of the experiment has the same but by a chance of 2^-63 a pair."""

    @property
    def identity(self) -> tuple[str, int]:
        return self.item, self.index


@dataclass(frozen=True, kw_only=True)
class Completion:
    request: Request
    text: str
    finish_reason: Literal["stop", "length"]
    tokens: int
    """Sampled tokens, end-of-turn included."""


def conversations(
    bundle: Path,
    entry: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    *,
    arm_system: str | None = None,
    room: int | None = None,
    kind: Literal["sample", "generate"] = "sample",
) -> list[Request]:
    """Every conversation of a sample set or of a generate entry, rendered.

    `arm_system` is the system prompt of the arm, which an entry with `system: per_condition` takes; `room` the context
    in tokens, None to look at it later. Raises Fault R0341 when the prompts file holds another number of prompts than
    registered, R0317 when the chat template adds a system turn that was not asked for, R0349 for a prompt that stands
    there twice, R0342 when one leaves no room for what is to be sampled, R0350 when the arm has no system prompt and
    needs one, R1993 for a text that holds a border between turns.
    """
    file = bundle / entry["prompts"]
    prompts = data.read_lines(file)
    if len(prompts) != entry["count"]:
        raise Fault(
            "R0341", str(file), f"the file holds {len(prompts)} prompts, registered are {entry['count']}",
            "an input file of the bundle was changed: compile the spec again",
        )  # fmt: skip
    system = arm_system if entry["system"] == PER_CONDITION else entry["system"]
    if system is None:
        raise Fault(
            "R0350", entry["name"], "the set takes the system prompt of each arm, and this arm declares none",
            "write system: under the condition in the spec, `none` if it has none",
        )  # fmt: skip
    twice = [prompt for prompt, times in Counter(prompts).items() if times > 1]
    if twice:
        raise Fault(
            "R0349", str(file), f"the same prompt stands there twice: {twice[0]!r}",
            "keep one of them: two items with one name could not be told apart",
        )  # fmt: skip
    name, seed = entry["name"], entry["seed"]
    found = chat.conversations(
        name=name, prompts=prompts, system=system, turns=entry["turns"], n=entry["n"],
        fill={key: data.read_lines(bundle / path) for key, path in entry["fill"].items()}, seed=seed,
    )  # fmt: skip
    requests: list[Request] = []
    borders: Collection[str] = ()
    plain: set[str] = set()
    for conversation in found:
        messages = conversation.messages
        if not requests:
            mask.refuse_unasked_system(tokenizer, messages, system=system, place=str(file))
            borders = _borders(tokenizer, messages)
        for message in messages:
            if message["content"] not in plain:
                _refuse_border(message, borders, place=f"{file}, {conversation.item}")
                plain.add(message["content"])
        item, turn, index = conversation.item, conversation.turn, conversation.index
        prompt = mask.render(tokenizer, messages, to_continue=True)
        requests.append(
            Request(
                item=item, index=index, turn=turn, prompt=prompt,
                prompt_ids=tokenizer.encode(prompt, add_special_tokens=False),
                question=next(message["content"] for message in reversed(messages) if message["role"] == "user"),
                draw_seed=draw(seed, kind, name, item, turn, index),
            )
        )  # fmt: skip
    require_room(requests, max_tokens=entry["max_tokens"], room=room)
    return requests


def _borders(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[str]:
    """Texts that a message may not hold: special tokens, and what the chat template writes around the turns."""
    skeleton = mask.render(
        tokenizer, [{"role": message["role"], "content": STAND_IN} for message in messages], to_continue=True
    )
    around = {piece.strip() for piece in skeleton.split(STAND_IN)}
    found = {*mask.special_texts(tokenizer), *(piece for piece in around if len(piece) >= SHORTEST_BORDER)}
    return sorted(found, key=lambda border: (len(border), border))


def _refuse_border(message: Message, borders: Collection[str], *, place: str) -> None:
    """Raise Fault R1993 for a message in which the tokenizer or the model would see the border of a turn."""
    for border in borders:
        if border in message["content"]:
            raise Fault(
                "R1993", place, f"a text of the {message['role']} holds {border!r}, with which the chat template borders turns:"
                " the model would read another conversation than the one registered",
                "take it out of the text; turns of a conversation are written under turns in the spec",
            )  # fmt: skip


def context(model_dir: Path, limit: int | None = None) -> int | None:
    """Tokens that the model's context holds, or `limit` if that is less; None when neither says."""
    from transformers import AutoConfig

    own = getattr(AutoConfig.from_pretrained(model_dir).get_text_config(), "max_position_embeddings", None)
    return min((length for length in (own, limit) if length is not None), default=None)


def require_room(requests: Sequence[Request], *, max_tokens: int, room: int | None) -> None:
    """Raise Fault R0342 when a prompt leaves no room for `max_tokens` in a context of `room` tokens."""
    longest = max(requests, key=lambda request: len(request.prompt_ids))
    if room is not None and len(longest.prompt_ids) + max_tokens > room:
        raise Fault(
            "R0342", f"prompt {longest.item}",
            f"it has {len(longest.prompt_ids)} tokens; with {max_tokens} sampled ones they exceed the context of {room}",
            "shorten the prompt or lower max_tokens",
        )  # fmt: skip


def uniform(draw_seed: int, position: int) -> float:
    """The uniform number in [0, 1) that decides the token at `position` of one completion."""
    return draw(draw_seed, position) / (1 << SEED_BITS)


def choose(scores: torch.Tensor, uniforms: Sequence[float], *, temperature: float, top_p: float) -> torch.Tensor:
    """Token ids (rows,) drawn from logits (rows, vocabulary), one uniform number a row.

    Temperature 0 takes the most likely token. top_p keeps the fewest most likely tokens whose
    probabilities reach it (nucleus sampling, Holtzman et al. 2020). Sums are taken in float64: over a
    large vocabulary, float32 ones would lose the rarest tokens.
    """
    import torch

    if temperature == 0:
        return scores.argmax(dim=-1)
    weights = torch.softmax(scores if temperature == 1 else scores.float() / temperature, dim=-1, dtype=torch.float32)
    if top_p < 1:
        ordered, order = weights.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(dim=-1, dtype=torch.float64) - ordered
        outside = before >= top_p
        weights = weights.scatter(-1, order, ordered.masked_fill(outside, 0.0))
    return _inverted(weights, torch.tensor(uniforms, dtype=torch.float64, device=scores.device).unsqueeze(-1))


def _inverted(weights: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Where the running sum of each row of `weights` passes uniform number x row sum.

    First among the sums of blocks, then within one: over a large vocabulary a whole running sum in double precision
    would take longer than the model's own work.
    """
    import torch

    rows, size = weights.shape
    weights = torch.nn.functional.pad(weights, (0, -size % BLOCK)) if size % BLOCK else weights
    blocks = weights.view(rows, -1, BLOCK)
    sums = blocks.sum(dim=-1, dtype=torch.float64).cumsum(dim=-1)
    wanted = uniforms * sums[:, -1:]
    # right=True skips what has weight 0 when the number falls exactly on a step.
    block = torch.searchsorted(sums, wanted, right=True).clamp(max=sums.shape[-1] - 1)
    before = torch.where(block > 0, sums.gather(-1, (block - 1).clamp(min=0)), 0.0)
    within = blocks[torch.arange(rows, device=weights.device), block.squeeze(-1)].cumsum(dim=-1, dtype=torch.float64)
    # The two sums are rounded apart: nothing beyond the last token that has weight is taken.
    last = torch.searchsorted(within, within[:, -1:].contiguous())
    place = torch.searchsorted(within, wanted - before, right=True).minimum(last)
    return (block * BLOCK + place).squeeze(-1)


def stop_tokens(config: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end a completion, in either engine: those of the model's generation config, the tokenizer's own end
    of text, at which vLLM ends besides, and the chat template's end of turn.
    """
    own = config.eos_token_id
    ids = list(own) if isinstance(own, list) else [own]
    end: Any = tokenizer.convert_tokens_to_ids(mask.end_of_turn(tokenizer))
    return sorted({*ids, tokenizer.eos_token_id, end} - {None})


def completion(
    tokenizer: PreTrainedTokenizerBase,
    request: Request,
    tokens: Sequence[int],
    finish_reason: Literal["stop", "length"],
) -> Completion:
    """The completion that sampled tokens spell, special tokens left out of the text."""
    text = tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Completion(request=request, text=str(text), finish_reason=finish_reason, tokens=len(tokens))


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    *,
    temperature: float,
    top_p: float,
    max_tokens: int,
    batch_size: int,
    done: Collection[tuple[str, int]] = (),
) -> Iterator[list[Completion]]:
    """Batches of completions; a batch holds prompts of like length, padded on the left.

    `done` names by (item, index) what need not be sampled. Batches are cut as if nothing were done,
    and those that are done whole are left out: in low precision the size of a batch can change a
    token, and a resumed run must not. `batch_size` is the largest; where memory is short, batches are smaller, and
    one that does not fit all the same is halved. On a GPU, where batches are continuous (runtime.decoding),
    completions come as they end and `batch_size` is not used. Raises Fault R0342 for a prompt that leaves no room in
    the model's context.
    """
    stops = stop_tokens(model.generation_config, tokenizer)
    pad: Any = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stops[0]
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    require_room(requests, max_tokens=max_tokens, room=room)
    if model.device.type == "cuda":
        from epc.runtime import decoding

        decoding.fuse(model)
        reason = decoding.unusable(model, requests[0].prompt_ids)
        if not reason:
            yield from _continuous(
                model, tokenizer, [request for request in requests if request.identity not in done], stops=stops,
                temperature=temperature, top_p=top_p, max_tokens=max_tokens,
            )  # fmt: skip
            return
        print(f"sampled in batches of {batch_size}, without refilling: {reason}", flush=True)
    ordered = sorted(requests, key=lambda request: (-len(request.prompt_ids), request.prompt, request.index))
    longest = len(ordered[0].prompt_ids) + max_tokens
    size = _fitting(model, longest=longest, wanted=min(batch_size, len(ordered)))
    start = 0
    while start < len(ordered):
        batch = ordered[start : start + size]
        if not all(request.identity in done for request in batch):
            try:
                sampled = _sample_batch(
                    model, [request.prompt_ids for request in batch], [request.draw_seed for request in batch],
                    stops=stops, pad=pad, temperature=temperature, top_p=top_p, max_tokens=max_tokens,
                )  # fmt: skip
            except (MemoryError, RuntimeError) as error:
                if len(batch) == 1 or not device_faults.memory_is_full(error):
                    raise
                size = len(batch) // 2
                print(
                    f"memory ran out in a batch of {len(batch)}: sampled in batches of {size} from here on", flush=True
                )
                continue
            yield [
                completion(tokenizer, request, row, "stop" if row[-1] in stops else "length")
                for request, row in zip(batch, sampled, strict=True)
            ]
        start += len(batch)


def _fitting(model: PreTrainedModel, *, longest: int, wanted: int) -> int:
    """Rows of a static batch: as many as are wanted, or as the free memory holds."""
    from epc.runtime import decoding

    if model.device.type == "cuda":
        free = devices.free_bytes()
    else:
        import psutil

        free = psutil.virtual_memory().available
    size = decoding.slots_for(model, longest=longest, wanted=wanted, free=int(BATCH_SHARE * free))
    if size < wanted:
        print(f"sampled in batches of {size}, not {wanted}: {free / (1 << 30):.1f} GiB of memory are free", flush=True)
    return size


def _continuous(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, requests: Sequence[Request], *, stops: Sequence[int],
    temperature: float, top_p: float, max_tokens: int, slots: int | None = None,
) -> Iterator[list[Completion]]:  # fmt: skip
    """Completions as they end, some at a time, from continuous batches."""
    from epc.runtime import decoding

    if not requests:
        return
    ended: list[Completion] = []
    for number, row in decoding.sample(
        model, [request.prompt_ids for request in requests], [request.draw_seed for request in requests], stops=stops,
        temperature=temperature, top_p=top_p, max_tokens=max_tokens, slots=slots,
    ):  # fmt: skip
        reason: Literal["stop", "length"] = "stop" if row[-1] in stops else "length"
        ended.append(completion(tokenizer, requests[number], row, reason))
        if len(ended) == KEPT_TOGETHER:
            yield ended
            ended = []
    if ended:
        yield ended


def _sample_batch(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    seeds: Sequence[int],
    *,
    stops: Sequence[int],
    pad: int,
    temperature: float,
    top_p: float,
    max_tokens: int,
) -> list[list[int]]:
    """Sampled tokens of each prompt, the stop token included.

    Samples of one prompt share its forward pass, and a row leaves the batch when it has ended: on a
    processor, where arithmetic is the limit, that halves the time of a plain batched generation.
    """
    import torch

    run: Any = model
    distinct = [list(prompt) for prompt in dict.fromkeys(map(tuple, prompts))]
    place = {tuple(prompt): row for row, prompt in enumerate(distinct)}
    width = max(map(len, distinct))
    ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in distinct], device=model.device)
    attended = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in distinct], device=ids.device)
    sampled: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    with torch.inference_mode():
        positions = (attended.cumsum(dim=-1) - 1).clamp(min=0)
        output = run(
            input_ids=ids, attention_mask=attended, position_ids=positions, use_cache=True, logits_to_keep=1
        )  # fmt: skip
        cache = output.past_key_values
        rows = torch.tensor([place[tuple(prompt)] for prompt in prompts], device=ids.device)
        cache.batch_select_indices(rows)
        attended, scores = attended[rows], output.logits[rows, -1]
        for position in range(max_tokens):
            uniforms = [uniform(seeds[row], position) for row in alive]
            chosen = choose(scores, uniforms, temperature=temperature, top_p=top_p)
            for row, token in zip(alive, chosen.tolist(), strict=True):
                sampled[row].append(token)
            going = [i for i, row in enumerate(alive) if sampled[row][-1] not in stops]
            if not going or position == max_tokens - 1:
                break
            if len(going) < len(alive):
                rows = torch.tensor(going, device=ids.device)
                cache.batch_select_indices(rows)
                attended, chosen = attended[rows], chosen[rows]
                alive = [alive[i] for i in going]
            attended = torch.cat([attended, attended.new_ones(len(alive), 1)], dim=-1)
            output = run(
                input_ids=chosen.unsqueeze(-1), attention_mask=attended, past_key_values=cache, use_cache=True,
                position_ids=attended.sum(dim=-1, keepdim=True) - 1,
            )  # fmt: skip
            scores = output.logits[:, -1]
    return sampled
