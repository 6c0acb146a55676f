"""Benchmark scores, item by item, through the LM Evaluation Harness.

The tasks are opened once and their requests rendered once; then every arm answers the same requests. That they are the
same is shown by their hash, which is compared after each arm and kept with the first request beside the results.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from epc.compiler.contract.canonical import sha256_json, sha256_text
from epc.runtime import device_faults, devices
from epc.runtime.errors import Fault

if TYPE_CHECKING:
    from lm_eval.api.task import Task
    from lm_eval.models.huggingface import HFLM

RESPONSE_CHARACTERS: Final = 4000
"""A longer response is cut in samples.jsonl; its score was computed of all of it."""
BYTES_OF_LOGIT: Final = 12
"""Of a logit and what is computed of it: the model's own, a float32 copy and its logarithm of softmax."""
BYTES_OF_STATE: Final = 64
"""Of each hidden unit and token while a layer is computed, attention and the widened feed-forward part among it."""
SHARE_OF_FREE: Final = 0.6


@contextlib.contextmanager
def local_data() -> Iterator[None]:
    """For a task whose data lie beside it: converted data are cached in a folder of their own, which no other run shares."""
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    with tempfile.TemporaryDirectory() as scratch:
        datasets.config.HF_DATASETS_CACHE = Path(scratch)
        try:
            yield
        finally:
            datasets.config.HF_DATASETS_CACHE = before


@contextlib.contextmanager
def _told(file: Path, *, local: bool) -> Iterator[None]:
    """Raise Fault R0356 for data of the hub that cannot be fetched, R1965 for a task that cannot be asked."""
    from datasets.exceptions import DatasetsError
    from jinja2 import TemplateError

    try:
        yield
    except (
        OSError,
        DatasetsError,
        TemplateError,
        LookupError,
        ValueError,
        TypeError,
        AttributeError,
        ImportError,
    ) as error:
        said = " ".join(str(error.__cause__ or error).split())[:300]
        if isinstance(error, OSError) and not local:  # no connection, no such data set or revision, no room
            raise Fault(
                "R0356", str(file), f"the task's data cannot be fetched: {said}",
                "check the connection, dataset_path and revision of the task, then run again; or name a local copy of the"
                " items under `data:` of the metric",
            ) from None  # fmt: skip
        raise Fault(
            "R1965", str(file), f"the task cannot be asked: {type(error).__name__} {said}",
            "compare the fields that the task reads with those of its items",
        ) from error  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """What a task asks, in every arm alike."""

    sha256: str
    """Of every request in the order of the items: the rendered text, the answers to compare or how to generate."""
    requests: int
    longest: int
    """Tokens of the longest request with its answer, or with the tokens that may be generated."""
    first: str
    """Rendered text of the first request, special tokens included."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One item of a task in one arm."""

    id: str
    doc_sha256: str
    """The harness's hash of the document."""
    values: dict[str, float]
    """Value of the plan -> score."""
    response: dict[str, Any]
    """The text that was generated, or the log-likelihood of every choice."""


@contextlib.contextmanager
def opened(lm: HFLM, plans: Sequence[Mapping[str, Any]], *, bundle: Path) -> Iterator[list[Benchmark]]:
    """The tasks of a capability step, loaded and rendered; their data stay readable inside.

    Raises Fault R0356 for data that cannot be fetched, R1962 for another harness than registered, R1964 for a request
    that is longer than the model reads, R1965 for a task that cannot be asked.
    """
    with contextlib.ExitStack() as stack:
        yield [Benchmark(lm, plan, bundle=bundle, stack=stack) for plan in plans]


class Benchmark:
    """One task at one setting of template, examples and decoding, ready to be answered by every arm.

    `plan` is an entry of the emitted script: name, yaml, local, items, fewshot, fewshot_seed, chat_template, multiturn,
    generation (None where nothing is generated), harness and values, each a name, metric, filter and scale.
    """

    def __init__(self, lm: HFLM, plan: Mapping[str, Any], *, bundle: Path, stack: contextlib.ExitStack) -> None:
        self.lm, self.plan = lm, plan
        self.name: str = plan["name"]
        self.values: list[dict[str, Any]] = plan["values"]
        file = bundle / plan["yaml"]
        _require_version(plan["harness"])
        if plan["local"]:
            stack.enter_context(local_data())
        with _told(file, local=plan["local"]):
            self.task = _load(file, plan)
            self.prompts = self._render()
        self.batch_size = 0
        """Rows that are computed at once, from the first arm on; 0 before it."""

    def _settings(self) -> dict[str, Any]:
        """How requests are rendered, as the harness's functions take it."""
        return {
            "system_instruction": None,
            "apply_chat_template": self.plan["chat_template"],
            "fewshot_as_multiturn": self.plan["multiturn"],
        }

    def _seed(self) -> None:
        """Every arm starts from the same state of every generator that the harness may draw from."""
        import numpy as np
        import torch

        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        self.task.set_fewshot_seed(seed=self.plan["fewshot_seed"])

    def _render(self) -> Prompts:
        """Build all requests once, before any arm, and hold their length against what the model reads."""
        self._seed()
        template = {"chat_template": self.lm.apply_chat_template, "tokenizer_name": self.lm.tokenizer_name}
        self.task.build_all_requests(**self._settings(), **(template if self.plan["chat_template"] else {}))
        instances = list(self.task.instances)
        lengths = [self._length(instance.args) for instance in instances]
        longest = max(lengths, default=0)
        if longest > self.lm.max_length:
            raise Fault(
                "R1964", self.name,
                f"a request has {longest} tokens and the model reads {self.lm.max_length}: the harness would cut its"
                " beginning off",
                "ask with fewer examples (`fewshot`), or generate fewer tokens",
            )  # fmt: skip
        arguments: dict[int, list[Any]] = {}
        for instance in instances:
            arguments.setdefault(instance.doc_id, []).append(instance.args)
        return Prompts(
            sha256=_requests_sha256(arguments.values()), requests=len(instances), longest=longest,
            first=str(instances[0].args[0]) if instances else "",
        )  # fmt: skip

    def _length(self, arguments: Sequence[Any]) -> int:
        context = len(self.lm.tok_encode(arguments[0])) if arguments[0] else 1
        if isinstance(arguments[1], Mapping):
            return context + int(arguments[1].get("max_gen_toks", self.lm.max_gen_toks))
        return context + len(self.lm.tok_encode(str(arguments[1]), add_special_tokens=False)) - 1

    def items(self, *, largest_batch: Mapping[str, int]) -> list[Item]:
        """Scores of every item by the model as it is now, sorted by id.

        `largest_batch` says for each kind of device how many rows are computed at once at most; fewer where memory is
        short, and half as many again each time it is found full.

        Raises Fault R0351 when the harness did not report a metric, R0352 when items are missing or repeated, R0353
        when a score is not on its scale, R1963 when the requests were not those that were rendered,
        R1965 when an answer cannot be scored.
        """
        if not self.batch_size:
            self.batch_size = rows_at_once(self.lm.model, self.prompts.longest, largest_batch)
        while True:
            self.lm.batch_size_per_gpu = self.batch_size
            self._seed()
            try:
                return self._items(self._evaluated())
            except (RuntimeError, MemoryError) as error:
                if self.batch_size == 1 or not device_faults.memory_is_full(error):
                    raise
            self.batch_size //= 2
            print(f"{self.name}: memory is full, going on with {self.batch_size} rows at once", flush=True)
            _empty_cache()

    def _evaluated(self) -> Mapping[str, Any] | None:
        from lm_eval.evaluator import evaluate

        try:
            found: Mapping[str, Any] | None = evaluate(
                lm=self.lm, task_dict={"tasks": {self.name: self.task}, "groups": {}, "group_map": {}}, bootstrap_iters=0,
                log_samples=True, **self._settings(),
            )  # fmt: skip
        except (
            LookupError,
            ValueError,
            TypeError,
            AttributeError,
            ArithmeticError,
        ) as error:  # of an item without choices
            said = " ".join(str(error).split())[:300]
            raise Fault(
                "R1965", self.name, f"an answer cannot be scored: {type(error).__name__} {said}",
                "look for an item that is not like the others, such as one without choices",
            ) from error  # fmt: skip
        return found

    def _items(self, found: Mapping[str, Any] | None) -> list[Item]:
        items = read_items(found, self.name, self.values, items=self.plan["items"])
        asked = {sample["doc_id"]: sample["arguments"] for sample in (found or {})["samples"][self.name]}
        if _requests_sha256(asked[number] for number in sorted(asked)) != self.prompts.sha256:
            raise Fault(
                "R1963", self.name, "this arm was asked otherwise than rendered before: its scores compare with nothing",
                "run the step again; if it comes back, the task draws at random without a seed, and cannot be used",
            )  # fmt: skip
        return items

    @property
    def label(self) -> str:
        """The task and what is read of it first: one name for each way of asking."""
        return f"{self.name}: {self.values[0]['reading']}"

    def described(self) -> dict[str, Any]:
        """What was asked, for prompts.json."""
        return {
            "task": self.name, "readings": [value["reading"] for value in self.values], "requests": self.prompts.requests,
            "requests_sha256": self.prompts.sha256, "longest_tokens": self.prompts.longest,
            "fewshot": self.plan["fewshot"], "chat_template_sha256": self._template_sha256(), "generation": self.plan["generation"],
            "first": self.prompts.first,
        }  # fmt: skip

    def _template_sha256(self) -> str | None:
        return sha256_text(str(self.lm.tokenizer.chat_template)) if self.plan["chat_template"] else None


def write_prompts(file: Path, tasks: Sequence[Benchmark]) -> None:
    """Write what every arm will be asked: of each task the hash of all requests and the first of them, rendered."""
    text = json.dumps([task.described() for task in tasks], indent=1, ensure_ascii=False)
    file.write_text(text + "\n", encoding="utf-8")


def _require_version(harness: str | None) -> None:
    from importlib.metadata import version

    installed = version("lm-eval")
    if harness not in (None, installed):
        raise Fault(
            "R1962", "lm-eval", f"version {installed} is installed, registered is {harness}",
            f"pip install lm-eval=={harness}; another version may score otherwise",
        )  # fmt: skip


def _load(file: Path, plan: Mapping[str, Any]) -> Task:
    """The task object, its number of examples and its decoding set as registered.

    The working folder is meanwhile the task's, because local data files are named relative to it.
    """
    from lm_eval.tasks import TaskManager

    with contextlib.chdir(file.parent):
        manager = TaskManager(include_path=".", include_defaults=False)
        # set here and not by the harness's own argument, which a task that says 0 ignores
        wanted = {"task": plan["name"], "num_fewshot": plan["fewshot"], **plan["overrides"]}
        # of a group of one, because only a group's members are the known task with fields replaced
        task: Task = manager.load([{"group": "epc", "task": [wanted]}])["tasks"][plan["name"]]
    if plan["generation"] is not None:
        task.set_config(key="generation_kwargs", value=plan["generation"], update=True)
    return task


def _requests_sha256(arguments: Any) -> str:
    """Of every request: what is asked and what is compared or generated, without what depends on an arm."""
    return sha256_text("\n".join(json.dumps(each, ensure_ascii=False, sort_keys=True) for each in arguments))


def rows_at_once(model: Any, longest: int, largest: Mapping[str, int]) -> int:
    """Rows of `longest` tokens whose logits fit into what is free on the GPU, a power of two; `largest` on a processor."""
    if model.device.type != "cuda":
        return largest["cpu"]
    config = model.config.get_text_config()
    row = max(1, longest) * (config.vocab_size * BYTES_OF_LOGIT + config.hidden_size * BYTES_OF_STATE)
    fitting = max(1, int(SHARE_OF_FREE * devices.free_bytes() / row))
    return min(largest["cuda"], 1 << (fitting.bit_length() - 1))


def _empty_cache() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def read_items(
    found: Mapping[str, Any] | None, task: str, values: Sequence[Mapping[str, Any]], *, items: int
) -> list[Item]:
    """Every item of a task in the harness's report, sorted by id.

    The id is the document's own `id`, else 12 hex digits of the document's hash, with -2 for its second copy and so on.
    Raises Fault R0351 when the harness did not report a metric or filter, R0352 when items are missing or repeated,
    R0353 when a score is not on its scale: 0 or 1 where none is declared.
    """
    samples = (found or {}).get("samples", {}).get(task, [])
    reported = [_reported(samples, task, value) for value in values]
    if not samples or any(len(each) != items for each in reported):
        told = min((len(each) for each in reported), default=0)
        raise Fault(
            "R0352", task, f"{told} scores, registered are {items} items",
            "state the true number of items in the spec",
        )  # fmt: skip
    documents = reported[0]
    seen: dict[str, int] = {}
    rows: dict[str, Item] = {}
    for number in sorted(documents):
        sample = documents[number]
        own = "id" in sample["doc"]
        item = str(sample["doc"]["id"]) if own else _content_id(sample)
        seen[item] = seen.get(item, 0) + 1
        if seen[item] > 1 and not own:
            item = f"{item}-{seen[item]}"
        rows[item] = Item(
            id=item, doc_sha256=sample["doc_hash"], response=_response(sample),
            values={
                value["reading"]: _checked(each[number][value["metric"]], task, item, value)
                for value, each in zip(values, reported, strict=True)
            },
        )  # fmt: skip
    if len(rows) != items:
        raise Fault(
            "R0352", task, f"{items} items have {len(rows)} distinct ids", "give every document an id of its own"
        )
    return [rows[item] for item in sorted(rows)]


def _content_id(sample: Mapping[str, Any]) -> str:
    try:
        return sha256_json(sample["doc"])[:12]
    except TypeError:  # a document with a date or an image in it
        return str(sample["doc_hash"])[:12]


def _reported(
    samples: Sequence[Mapping[str, Any]], task: str, value: Mapping[str, Any]
) -> dict[int, Mapping[str, Any]]:
    """Number of the document -> what the harness reports of it under the filter of a value, its metric among it."""
    metric, wanted = value["metric"], value["filter"]
    filters = list(dict.fromkeys(sample["filter"] for sample in samples))
    chosen = wanted if wanted is not None else filters[0] if len(filters) == 1 else None
    kept = [sample for sample in samples if sample["filter"] == chosen]
    if not kept or any(metric not in sample for sample in kept):
        named = f"{metric},{wanted}" if wanted else metric
        reported = sorted({f"{name},{sample['filter']}" for sample in samples for name in sample["metrics"]})
        raise Fault(
            "R0351", task, f"the harness did not report {named} for this task",
            f"write one of {', '.join(reported)}" if reported else f"declare {metric} in the task's metric_list",
        )  # fmt: skip
    found = {sample["doc_id"]: sample for sample in kept}
    if len(found) != len(kept):
        raise Fault("R0352", task, f"{len(kept)} scores of {len(found)} items", "score every item once")
    return found


def _checked(score: Any, task: str, item: str, value: Mapping[str, Any]) -> float:
    """The score as a number of its scale."""
    low, high = value["scale"] or (0.0, 1.0)
    is_number = isinstance(score, Real) and math.isfinite(score)
    if is_number and (low <= score <= high if value["scale"] else score in (0, 1)):
        return int(score) if value["scale"] is None else float(score)
    expected = f"on its scale of {low:g} to {high:g}" if value["scale"] else "0 or 1"
    remedy = (
        "use a metric that scores single items"
        if not is_number
        else "declare the scale of the score in the spec, for example `scale: [0, 1]`"
    )
    raise Fault("R0353", f"{task}, item {item}", f"{value['metric']} is {score}, not {expected}", remedy)


def _response(sample: Mapping[str, Any]) -> dict[str, Any]:
    """What the model said: the text that it generated, or the log-likelihood of each choice."""
    first = sample["resps"][0][0]
    if isinstance(first, str):
        extracted = sample["filtered_resps"][0]
        kept = {"response": first[:RESPONSE_CHARACTERS], "extracted": str(extracted)[:RESPONSE_CHARACTERS]}
        return kept | ({"characters": len(first)} if len(first) > RESPONSE_CHARACTERS else {})
    return {"loglikelihoods": [float(each[0][0]) for each in sample["resps"]]}
