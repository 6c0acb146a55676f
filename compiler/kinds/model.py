"""The base model, fetched once and saved with the chat template that every step uses."""

from __future__ import annotations

import posixpath

from epc.compiler.contract.canonical import sha256_text
from epc.compiler.lowering import TEMPLATE_INPUT, Lowering


def lower(plan: Lowering) -> str:
    if "model" in plan.keys:
        return "model"
    model = plan.spec.model
    template = None if plan.template_text is None else sha256_text(plan.template_text)
    source = model.from_
    if source.startswith("path:") and not source.startswith("path:/"):
        source = "path:" + posixpath.normpath(f"{plan.spec_folder}/{source.removeprefix('path:')}")
    return plan.add(
        id="model", kind="model", label=f"fetch {model.from_}", needs=(),
        recipe={
            "source": model.from_, "revision": model.revision, "sha256": model.sha256,
            "dtype": model.dtype, "chat_template_sha256": template,
        },
        outputs=("model/config.json", "model/tokenizer_config.json", "model.json"),
        constants={
            "source": source, "revision": model.revision, "sha256": model.sha256, "dtype": model.dtype,
            "chat_template": None if template is None else TEMPLATE_INPUT,
        },
        origins={
            "source": ("model", "from"), "revision": ("model", "revision"), "sha256": ("model", "sha256"),
            "dtype": ("model", "dtype"), "chat_template": ("model", "chat_template"),
        },
    )  # fmt: skip
