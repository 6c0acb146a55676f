"""Completions from one arm after another, each a pure function of its own seed.

A token is drawn by inverting the cumulative distribution at a uniform number that SHA-256 makes of
(seed, set, item, turn, index, position). Rows therefore share no noise, and neither batch size nor
order nor a resumed run changes a draw; arms share it, which pairs them (common random numbers).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from epc.compiler.contract import chat
from epc.compiler.contract.canonical import json_lines, sha256_file, sha256_json, sha256_text
from epc.compiler.contract.draws import SEED_BITS, draw
from epc.compiler.contract.rows import SampleRow
from epc.runtime import data, mask
from epc.runtime.errors import Fault

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from epc.runtime.step import Step

PieceName = tuple[str, int, str]
"""(condition, training seed, set)."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One conversation as text that the model is to continue."""

    item: str
    index: int
    turn: int
    prompt: str


@dataclass(frozen=True, kw_only=True)
class Completion:
    request: Request
    draw_seed: int
    text: str
    finish_reason: Literal["stop", "length"]
    tokens: int


def conversations(bundle: Path, entry: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase) -> list[Request]:
    """Every conversation of a sample set, rendered.

    Raises Fault R0341 when the prompts file holds another number of prompts than registered, R0317
    when the chat template adds a system turn that was not asked for.
    """
    file = bundle / entry["prompts"]
    prompts = data.read_lines(file)
    if len(prompts) != entry["count"]:
        raise Fault(
            "R0341", str(file), f"the file holds {len(prompts)} prompts, registered are {entry['count']}",
            "an input file of the bundle was changed: compile the spec again",
        )  # fmt: skip
    found = chat.conversations(
        name=entry["name"], prompts=prompts, system=entry["system"], turns=entry["turns"], n=entry["n"],
        fill={name: data.read_lines(bundle / path) for name, path in entry["fill"].items()}, seed=entry["seed"],
    )  # fmt: skip
    requests: list[Request] = []
    for conversation in found:
        messages = conversation.messages
        if not requests:
            mask.refuse_unasked_system(tokenizer, messages, system=entry["system"], place=str(file))
        prompt = mask.render(tokenizer, messages, to_continue=True)
        requests.append(
            Request(item=conversation.item, index=conversation.index, turn=conversation.turn, prompt=prompt)
        )
    return requests


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
    probabilities = torch.softmax(scores.float() / temperature, dim=-1)
    if top_p < 1:
        ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
        outside = ordered.cumsum(dim=-1, dtype=torch.float64) - ordered >= top_p
        probabilities = probabilities.scatter(-1, order, ordered.masked_fill(outside, 0.0))
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
    wanted = torch.tensor(uniforms, dtype=torch.float64, device=scores.device).unsqueeze(-1) * cumulative[:, -1:]
    # right=True skips tokens of probability 0 when the number falls exactly on a step.
    return torch.searchsorted(cumulative, wanted, right=True).squeeze(-1).clamp(max=scores.shape[-1] - 1)


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens that end a completion: the model's own and the template's end of turn."""
    config: Any = model.generation_config
    own = config.eos_token_id
    ids = list(own) if isinstance(own, list) else [] if own is None else [own]
    end: Any = tokenizer.convert_tokens_to_ids(mask.end_of_turn(tokenizer))
    return sorted({*ids, end})


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[Request],
    *,
    set_name: str,
    seed: int,
    temperature: float,
    top_p: float,
    max_tokens: int,
    batch_size: int,
    on_batch: Callable[[int, int], None],
) -> list[Completion]:
    """Completions in the order of `requests`; batches hold prompts of like length, padded on the left.

    `on_batch(completions, tokens)` is called after each batch. Raises Fault R0342 for a prompt that
    leaves no room in the model's context.
    """
    stops = stop_tokens(model, tokenizer)
    pad: Any = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stops[0]
    encoded: list[list[int]] = [tokenizer.encode(request.prompt, add_special_tokens=False) for request in requests]
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    longest = max(map(len, encoded), default=0)
    if room is not None and longest + max_tokens > room:
        raise Fault(
            "R0342", set_name, f"a prompt of {longest} tokens and {max_tokens} sampled ones exceed the context of {room}",
            "shorten the prompt or lower max_tokens",
        )  # fmt: skip
    order = sorted(range(len(requests)), key=lambda i: (-len(encoded[i]), requests[i].prompt, i))
    done: dict[int, Completion] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        seeds = [draw(seed, "sample", set_name, requests[i].item, requests[i].turn, requests[i].index) for i in batch]
        sampled = _sample_batch(
            model, [encoded[i] for i in batch], seeds, stops=stops, pad=pad, temperature=temperature, top_p=top_p,
            max_tokens=max_tokens,
        )  # fmt: skip
        for i, draw_seed, row in zip(batch, seeds, sampled, strict=True):
            done[i] = Completion(
                request=requests[i], draw_seed=draw_seed, tokens=len(row),
                finish_reason="stop" if row[-1] in stops else "length",
                text=str(tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False)),
            )  # fmt: skip
        on_batch(len(batch), sum(map(len, sampled)))
    return [done[i] for i in range(len(requests))]


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


class Pieces:
    """The stored parts of a sampling step: one file for each arm, training seed and set."""

    def __init__(self, step: Step, keys: Mapping[PieceName, str], requests: Mapping[str, Sequence[Request]]) -> None:
        self.step, self.keys, self.requests = step, keys, requests
        self.folder = step.bundle / "store" / "pieces"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.total = sum(len(requests[name]) for _, _, name in keys)
        self.done = sum(len(requests[name]) for condition, seed, name in keys if self.stored(condition, seed, name))
        self.tokens = 0
        self.began = time.monotonic()

    def path(self, condition: str, seed: int, set_name: str) -> Path:
        return self.folder / f"{self.keys[condition, seed, set_name]}.jsonl"

    def stored(self, condition: str, seed: int, set_name: str) -> bool:
        return self.path(condition, seed, set_name).exists()

    def progress(self, completions: int, tokens: int) -> None:
        """Count a finished batch and publish the step's live line."""
        self.done += completions
        self.tokens += tokens
        self.step.progress(
            self.done, self.total, tokens_per_second=round(self.tokens / (time.monotonic() - self.began))
        )

    def write(
        self, condition: str, seed: int, condition_key: str, set_name: str, completions: Sequence[Completion]
    ) -> None:
        """Store a piece: written aside, forced to disk, renamed."""
        file = self.path(condition, seed, set_name)
        aside = file.with_suffix(".tmp")
        with aside.open("w", encoding="utf-8") as handle:
            for found in completions:
                request = found.request
                row = SampleRow(
                    mode=self.step.manifest.mode, condition=condition, condition_key=condition_key, seed=seed, set=set_name,
                    item=request.item, turn=request.turn, index=request.index, draw_seed=found.draw_seed,
                    prompt=request.prompt, prompt_sha256=sha256_text(request.prompt), text=found.text,
                    finish_reason=found.finish_reason, tokens=found.tokens,
                )  # fmt: skip
                handle.write(row.model_dump_json() + "\n")
            handle.flush()
            os.fsync(handle.fileno())
        aside.replace(file)

    def index(self, file: Path) -> dict[str, Any]:
        """Write the list of pieces with their hashes; return the facts of the step.

        `completions_sha256` hashes the texts of an arm in order, so that two arms that said the same
        everywhere are noticed.
        """
        entries: list[dict[str, Any]] = []
        texts: dict[str, list[str]] = {}
        tokens = 0
        for (condition, seed, set_name), key in self.keys.items():
            path = self.path(condition, seed, set_name)
            rows = [json.loads(line) for line in json_lines(path.read_text(encoding="utf-8"))]
            if len(rows) != len(self.requests[set_name]):
                raise Fault(
                    "R0343", str(path), f"the piece holds {len(rows)} completions, registered are {len(self.requests[set_name])}",
                    f"delete {path} and run again: only this piece is sampled anew",
                )  # fmt: skip
            tokens += sum(row["tokens"] for row in rows)
            texts.setdefault(f"{condition}-s{seed}", []).extend(row["text"] for row in rows)
            entries.append(
                {
                    "key": key,
                    "condition": condition,
                    "seed": seed,
                    "set": set_name,
                    "rows": len(rows),
                    "sha256": sha256_file(path),
                }
            )
        file.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
        return {
            "completions": sum(entry["rows"] for entry in entries),
            "tokens": tokens,
            "completions_sha256": {arm: sha256_json(found) for arm, found in texts.items()},
        }
